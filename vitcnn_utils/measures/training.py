"""How accuracy and the distances of heads run over a training of the zoo, from its log."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils import zoo
from vitcnn_utils.measures.attention import nearest_quarter, uniform_distance
from vitcnn_utils.zoo.architectures import IMAGE_SIZE, PATCH_SIZE
from vitcnn_utils.zoo.recipes import WATCHED


def courses(models: Mapping[str, Any]) -> dict[str, xr.Dataset]:
    """The trainings of zoo models over (step), a value a pass over the images.

    models: label -> name; what is not of the zoo, or has no distances of heads in its log, is left out.
    accuracy: on held-out images, 0 to 1. distance: as `attention.near_heads`.
    """
    there = zoo.names()
    found = {label: (zoo.log(name), zoo.card(name)) for label, name in models.items() if name in there}
    return {
        label: course(log).assign_attrs(
            model=card["name"], weights=card["sha256"][:12], images="CIFAR-10, test", n_images=WATCHED,
            device=card["device"], commit=card["commit"],
        )
        for label, (log, card) in found.items()
        if "head_distances" in log[0]
    }  # fmt: skip


def course(log: Sequence[Mapping[str, Any]]) -> xr.Dataset:
    """The same of one log, as `zoo.log` gives it."""
    side = IMAGE_SIZE // PATCH_SIZE
    uniform = uniform_distance((side, side), PATCH_SIZE)
    near = [nearest_quarter(np.array(row["head_distances"]), uniform) for row in log]
    accuracy = [row["held_out_accuracy"] for row in log]
    return xr.Dataset(
        {"accuracy": ("step", accuracy), "distance": ("step", near, {"units": "%"})},
        {"step": [row["step"] for row in log]},
    )


def half_way(values: xr.DataArray) -> float:
    """The percent of the training after which a value (step,) has made half of its change, by linear interpolation.

    The change is that from the first pass to the last; NaN where there is none.
    """
    change = values.values - values.values[0]
    if change[-1] == 0:
        return float("nan")
    share, done = change / change[-1], (100 * values["step"] / values["step"][-1]).values
    after = int(np.argmax(share >= 0.5))
    return float(np.interp(0.5, share[after - 1 : after + 1], done[after - 1 : after + 1]))
