"""How accuracy and the distances of heads run over a training of the zoo, from its log."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.measures.attention import nearest_quarter

Log = Sequence[Mapping[str, Any]]


def courses(logs: Mapping[str, Log], uniform_distance: float) -> dict[str, xr.Dataset]:
    """Trainings by step, a value a pass over the images; those without distances of heads in their log are left out.

    logs: of `zoo.log`, by model. accuracy: on held-out images, 0 to 1. distance: as `attention.near_heads`;
    `uniform_distance` in pixels.
    """
    return {model: _course(log, uniform_distance) for model, log in logs.items() if "head_distances" in log[0]}


def _course(log: Log, uniform_distance: float) -> xr.Dataset:
    near = [nearest_quarter(np.array(row["head_distances"]), uniform_distance) for row in log]
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
