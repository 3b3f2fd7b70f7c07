"""Figures 12 and 13: what more training data and larger models change (paper, section 8).

Fig 12 takes similarities (model, block) from `same_blocks`; Fig 13 takes `probes.layer_probes` with the read-out
'mean'. Margins are this project's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim, decide
from vitcnn_utils.measures.cka import CEILING, FLOOR, lower_third, subsets, upper_half
from vitcnn_utils.measures.probes import at_depth, average, curve

MARGIN = 0.05
"""Mean CKAs that differ by less are called undecided."""
STEP = 0.01
"""The same for the next larger part of the data, whose models saw many of the same images."""
POINTS = 5.0
"""Percentage points of probe accuracy that are worth a statement; draws of the shots scatter by one or two."""


# --- Figure 12: similarity to the model that saw all data ---------------------------------------------------


def series_claims(curves: xr.DataArray) -> list[Claim]:
    """The claims of Fig 12 on one series of models, from `same_blocks`.

    curves: with `FLOOR` and, where there is one, `CEILING` among the models.
    """
    smallest = subsets(curves)[0]
    bottom, top = lower_third(curves), upper_half(curves)
    missing_low, missing_high = _ceiling(bottom) - bottom, _ceiling(top) - top
    rise = np.diff(top.sel(model=subsets(curves)).values)
    name, control = curves.attrs["reference"], [label for label in (CEILING, FLOOR) if label in curves["model"]]
    return [
        Claim(
            f"Low blocks are much the same with little data ({name}).",
            f"with {smallest} of the data, mean CKA {_at(bottom, smallest):.2f}",
            _at(missing_low, smallest) <= 2 * MARGIN if _at(missing_low, FLOOR) > 2 * MARGIN else None,
            f"mean CKA of the lower third at most {2 * MARGIN} below the second seed's (or 1 where there is none); "
            "undecided if an untrained model passes too",
            _numbers(bottom, control),
        ),
        Claim(
            f"Higher blocks need much more data ({name}).",
            f"with {smallest} of the data, CKA falls short by {_at(missing_low, smallest):z.2f} in the lower third, "
            f"by {_at(missing_high, smallest):z.2f} in the upper half",
            decide(_at(missing_high, smallest) - _at(missing_low, smallest), MARGIN),
            f"shortfall from the second seed (or from 1) larger in the upper half by more than {MARGIN}",
            _numbers(top, control),
        ),
        Claim(
            f"With more data the higher blocks come nearer to those of the model that saw all ({name}).",
            _numbers(top, subsets(curves)),
            decide(float(rise.min()), STEP) if len(rise) else None,
            f"mean CKA of the upper half rises by more than {STEP} at every step to a larger part",
            _numbers(top, control),
        ),
    ]


def size_claim(large: xr.DataArray, small: xr.DataArray, equally_long: bool) -> Claim:
    """The claim of Fig 12 on model size: a larger model needs more data.

    equally_long: whether all models of both series were trained for one number of steps, see `equal_steps`.
    """
    tops = [upper_half(curves) for curves in (large, small)]
    smallest = [subsets(curves)[0] for curves in (large, small)]
    values = [_at(top, label) for top, label in zip(tops, smallest, strict=True)]
    floors = [_at(top, FLOOR) for top in tops]
    return Claim(
        "A larger model's higher blocks need more data than a smaller one's.",
        f"upper half at {smallest[0]} of the data: larger {values[0]:.2f}, smaller {values[1]:.2f}",
        decide(values[1] - values[0], MARGIN) if equally_long else None,
        f"mean CKA with the model that saw all data lower in the larger model by more than {MARGIN}; undecided where "
        "the models compared were not all trained for one number of steps",
        f"untrained: larger {floors[0]:.2f}, smaller {floors[1]:.2f}",
    )


def _ceiling(curves: xr.DataArray) -> Any:
    """The curve of the second seed; 1 for a series that has none."""
    return curves.sel(model=CEILING, drop=True) if CEILING in curves["model"] else 1.0


def _at(values: xr.DataArray, label: str) -> float:
    return float(values.sel(model=label))


def _numbers(values: xr.DataArray, labels: Sequence[str]) -> str:
    return ", ".join(f"{label}: {_at(values, label):.2f}" for label in labels)


# --- How long the models of a series were trained -----------------------------------------------------------


# --- Figure 13: linear probes over depth --------------------------------------------------------------------


def data_claim(full: xr.Dataset, part: xr.Dataset, untrained: xr.Dataset, who: str) -> Claim:
    """Fig 13, left: by how much a model that saw all data is ahead. who: of what model, for the reader."""
    middle, end = (at_depth(full, depth) - at_depth(part, depth) for depth in (0.5, 1.0))
    return Claim(
        f"More training data makes features much better, in middle layers already (in the paper, by 30 points; {who}).",
        f"all data ahead by {middle:+.1f} points at depth ½ ({_spread(full)}) and {end:+.1f} at the end",
        decide(middle, POINTS),
        f"at depth ½ ahead by more than {POINTS:.0f} percentage points",
        f"untrained at depth ½: {at_depth(untrained, 0.5):.1f} %, with all data {at_depth(full, 0.5):.1f} %",
    )


def architecture_claim(vit: xr.Dataset, cnn: xr.Dataset, untrained_vit: xr.Dataset, untrained_cnn: xr.Dataset) -> Claim:
    """Fig 13, right: whether a ViT's intermediate features are better than a CNN's."""
    middle, whole = at_depth(vit, 0.5) - at_depth(cnn, 0.5), average(vit) - average(cnn)
    verdicts = {decide(middle, POINTS), decide(whole, POINTS)}
    return Claim(
        "Large ViTs have much stronger intermediate features than ResNets.",
        f"ViT minus CNN: {middle:+.1f} points at depth ½, {whole:+.1f} on average over depth",
        verdicts.pop() if len(verdicts) == 1 else None,
        f"both above {POINTS:.0f} percentage points; undecided if only one is",
        f"untrained: {at_depth(untrained_vit, 0.5) - at_depth(untrained_cnn, 0.5):+.1f} and "
        f"{average(untrained_vit) - average(untrained_cnn):+.1f}",
    )


def _spread(probes: xr.Dataset) -> str:
    """The scatter between draws of the shots."""
    return f"± {float(curve(probes).std('draw', ddof=1).mean()):.1f} between draws"
