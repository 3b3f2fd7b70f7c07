"""What all sums over images have in common: those over parts of the images, computed apart, add up.

Each measure that runs over images is `…_sums(…).result()`. To compute it in parts, on several machines or with breaks,
take the sums of each part, keep them (they can be pickled), add them in any order, and ask for the result:

>>> parts = [skip_ratio_sums(model, images[i::4]) for i in range(4)]
>>> ratios = (parts[0] + parts[1] + parts[2] + parts[3]).result()

The numbers are those of one run over all images, but for rounding. Measures made of CKA take all images and
`part=(i, 4)` instead of a quarter of them: CKA compares minibatches, and these must be the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitcnn_utils.errors import VitcnnError


@dataclass(frozen=True)
class Labels:
    """What a measure says of its result: coordinates and attrs, in plain lists, strings and numbers.

    Those of sums over parts of the images are the same, but for attrs['images'] and attrs['n_images'], which add up.
    """

    coords: Mapping[str, Any]
    attrs: Mapping[str, Any]

    def __add__(self, other: "Labels") -> "Labels":
        mine, theirs = ({**labels.coords, **labels.attrs} for labels in (self, other))
        for key in {**mine, **theirs}:
            if key not in ("images", "n_images") and mine.get(key) != theirs.get(key):
                raise VitcnnError(f"sums of two kinds do not add up, {key} is not the same: measure all parts alike")
        names = dict.fromkeys([*self.attrs["images"].split(" + "), *other.attrs["images"].split(" + ")])
        count = self.attrs["n_images"] + other.attrs["n_images"]
        return Labels(self.coords, {**self.attrs, "images": " + ".join(names), "n_images": count})
