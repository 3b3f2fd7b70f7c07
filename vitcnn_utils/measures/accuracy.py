"""How often a classifier is right."""

import re
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError, check_finite
from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Model
from vitcnn_utils.run import each_batch


def accuracy(model: Model, images: Images, batch_size: int | None = None) -> float:
    """Share of images whose class is the largest of the model's logits, from 0 to 1; see `right_guesses`."""
    return float(right_guesses(model, images, batch_size).mean())


def right_guesses(model: Model, images: Images, batch_size: int | None = None) -> xr.DataArray:
    """Whether the class of each image is the largest of the model's logits: 1 or 0, over (sample).

    batch_size: images at once; None for as many as fit in memory.
    Raises VitcnnError where the images have no labels, or classes that are not the model's, see `class_numbers`, and
    for NaN or Inf in the logits.
    """
    if images.labels is None:
        raise VitcnnError(f"{images.name} has no labels, which accuracy needs: call their column label")
    numbers = class_numbers(model, images)
    if numbers is None:
        theirs = f"labels up to {images.labels.max()}"
        if images.classes is not None:
            theirs = f"{len(images.classes)}, the first of them {images.classes[0]!r}"
        raise VitcnnError(
            f"{model.name} has {model.num_classes} classes and {images.name} has {theirs}: "
            "accuracy needs the classes that the model was trained on"
        )

    def guesses(x: Tensor) -> np.ndarray:
        with torch.no_grad():
            logits = model.module(x)
        check_finite(f"the logits of {model.name}", logits)
        return logits.argmax(-1).cpu().numpy()

    right = np.concatenate(list(each_batch(model, images, batch_size, guesses))) == numbers
    return xr.DataArray(right.astype(float), dims="sample", attrs=provenance.of(model, images))


def points_ahead(a: xr.DataArray, b: xr.DataArray) -> float:
    """By how many percentage points one accuracy is above another, both of `right_guesses`."""
    return 100 * float(a.mean() - b.mean())


def knows_classes(model: Model, images: Images) -> bool:
    """Whether the images have labels that are classes of the model, as far as is known."""
    return class_numbers(model, images) is not None


def class_numbers(model: Model, images: Images) -> np.ndarray | None:
    """The number of each image's class in the model's own numbering, int64 (N,); None where it has no such class.

    Folders are numbered by the alphabet and ImageNet's classes are not, so classes are matched by name, or by number in
    WordNet such as n01440764, where the model's are known. Where they are not, labels count as the model's numbers if
    there are as many classes, or, without names, no label beyond the last class.
    """
    if images.labels is None:
        return None
    if images.classes is None:
        return images.labels if images.labels.max() < model.num_classes else None
    alike = len(images.classes) == model.num_classes
    named = class_names(model)
    if named is None:
        return images.labels if alike else None
    matches = [named.get(_plain(name), set()) for name in images.classes]
    if alike and sum(i in match for i, match in enumerate(matches)) > len(matches) / 2:
        return images.labels  # in the model's order, with a few names spelt otherwise
    if any(len(match) != 1 for match in matches) or len(set.union(*matches)) < len(matches):
        return None
    return np.array([min(match) for match in matches])[images.labels]


def class_names(model: Model) -> dict[str, set[int]] | None:
    """The numbers of the classes that have a name, each by all its names and by each alone; None where none are known.

    A name that is all of one class's names, such as "missile", is not that of another, "projectile, missile".
    """
    from timm.data import ImageNetInfo, infer_imagenet_subset

    facts = getattr(model.module, "pretrained_cfg", None) or {}
    subset = infer_imagenet_subset({"num_classes": model.num_classes})
    if facts.get("label_names"):
        names: list[list[str]] = [[name] for name in facts["label_names"]]
    elif subset:
        info = ImageNetInfo(subset)
        names = [list(pair) for pair in zip(info.label_names(), info.label_descriptions(), strict=True)]
    else:
        return None
    whole = _numbers(names)
    return _numbers([[word for name in of_class for word in name.split(", ")] for of_class in names]) | whole


def _numbers(names: list[list[str]]) -> dict[str, set[int]]:
    numbers: dict[str, set[int]] = {}
    for number, of_class in enumerate(names):
        for name in of_class:
            numbers.setdefault(_plain(name), set()).add(number)
    return numbers


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.lower()))


def accuracies(
    intact: xr.DataArray, trained: Mapping[int, xr.DataArray], cut: Mapping[int, xr.DataArray]
) -> xr.DataArray:
    """Accuracy in percent of the intact model and of those without a block's skips: (skips, experiment).

    All of `right_guesses`. trained: block -> of the model that was trained without, as far as there is one (else NaN);
    cut: block -> of the intact model that was run without.
    """
    rows = {"all there": [intact, intact]} | {f"none in block {b}": [trained.get(b, np.nan), cut[b]] for b in cut}
    coords = {"skips": list(rows), "experiment": ["trained without", "cut after training"]}
    values = [[100 * float(np.mean(one)) for one in row] for row in rows.values()]
    return xr.DataArray(values, coords, ("skips", "experiment"), attrs={"units": "%"})
