"""Figures 1 and 2: how the layers of one model, and of a ViT and a CNN, resemble each other (paper, section 4).

All functions take what `cka.layer_similarity` gives. The paper states no CKA value, so every margin is this project's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim, decide
from vitcnn_utils.measures.cka import across_summary, grid_contrast, halfway, low_high, spread, stage_contrast
from vitcnn_utils.models.facts import Model

MARGIN = 0.05
"""Mean CKAs of two models that differ by less are called undecided."""
FINE_MARGIN = 0.02
"""The same for differences within one map, where the same images enter both sides: spread and grid."""


def stage_starts(model: Model) -> list[float]:
    """The depths (0 to 1) at which a CNN's stages begin, the first stage left out.

    A stage begins where a residual unit changes the shape, so that its skip needs a projection. Empty where no unit
    does, as in a ViT.
    """
    opens = {b.block for b in model.branches if b.kind == "residual" and b.block > 0 and b.shortcut != b.skip}
    return [next(layer.depth for layer in model.layers if layer.block == block) for block in sorted(opens)]


# Figure 1


def within_claims(
    vit: xr.DataArray,
    cnn: xr.DataArray,
    untrained_vit: xr.DataArray,
    untrained_cnn: xr.DataArray,
    starts: Sequence[float],
) -> list[Claim]:
    """The claims of Fig 1, from the map of each model with itself and those of the untrained twins.

    starts: of the CNN's stages, from `stage_starts`.
    """

    def row(paper: str, measure: Any, test: str, sign: int, margin: float) -> Claim:
        pair, twins = (measure(vit), measure(cnn)), (measure(untrained_vit), measure(untrained_cnn))
        return Claim(
            paper, _both(*pair), decide(sign * (pair[0] - pair[1]), margin), test, "untrained: " + _both(*twins)
        )

    grid, untrained_grid = grid_contrast(vit), grid_contrast(untrained_vit)
    return [
        row(
            "Low and high layers are far more alike in the ViT than in the CNN.", low_high,
            f"mean CKA of first and last third of depth: ViT above CNN by more than {MARGIN}", 1, MARGIN,
        ),
        row(
            "The ViT's map is much more uniform.", spread,
            f"standard deviation of CKA over pairs of layers: ViT below CNN by more than {FINE_MARGIN}",
            -1, FINE_MARGIN,
        ),
        row(
            "The CNN falls into stages, more than the ViT does.", lambda s: stage_contrast(s, starts),
            f"mean CKA within minus between stages (ViT cut at the CNN's depths): CNN above ViT by more than {MARGIN}",
            -1, MARGIN,
        ),
        Claim(
            "The ViT's map looks like a grid: sub-layers of one kind resemble each other across blocks.",
            f"same kind minus different kind, ViT: {grid:+.2f}", decide(grid, FINE_MARGIN),
            f"mean CKA of pairs in different blocks, same kind above different kinds by more than {FINE_MARGIN}",
            f"untrained: {untrained_grid:+.2f}",
        ),
    ]  # fmt: skip


def _both(vit: float, cnn: float) -> str:
    if np.isnan([vit, cnn]).any():
        return "not defined for these models"
    return f"ViT {vit:.2f}, CNN {cnn:.2f}"


# Figure 2


def cross_claims(
    similarity: xr.DataArray, untrained: xr.DataArray, spatial: xr.DataArray, starts: Sequence[float]
) -> list[Claim]:
    """The claims of Fig 2, from the map (ViT, CNN), that of the untrained twins, and that without the CLS token."""
    half = halfway(starts)
    trained, control = across_summary(similarity, half), across_summary(untrained, half)
    without_cls = across_summary(spatial, half)
    lower, upper = trained["lower half"], trained["upper half"]
    return [
        Claim(
            "The lower half of the CNN resembles the lowest quarter of the ViT's layers.",
            f"median depth of the most similar ViT layer {lower:.2f} (centroid {trained['lower half, centroid']:.2f})",
            None if np.isnan(lower) else lower <= 1 / 3,
            f"CNN layers below depth {half:.2f}: median of the most similar ViT layer's depth at most 1/3",
            f"untrained: {control['lower half']:.2f}",
        ),
        Claim(
            "The upper half of the CNN resembles the next third of the ViT's layers.",
            f"median depth of the most similar ViT layer {upper:.2f} (centroid {trained['upper half, centroid']:.2f})",
            None if np.isnan(upper) else bool(0.25 < upper <= 0.6 and upper > lower),
            "the same for the CNN's other layers: above 0.25, at most 0.6, and deeper than for the lower half",
            f"untrained: {control['upper half']:.2f}",
        ),
        Claim(
            "The CNN needs more of its layers for what the ViT computes in few of its own.",
            f"{trained['ahead']:.0%} of the CNN's layers lie deeper than their match",
            decide(trained["ahead"] - 0.5, 0.1),
            "share of CNN layers that lie deeper than their most similar ViT layer: above 60 % (undecided from 40 %)",
            f"untrained: {control['ahead']:.0%}",
        ),
        Claim(
            "The last third of the ViT is unlike every layer of the CNN (the paper: it works on the CLS token).",
            f"best CKA with any CNN layer: last third {trained['last third']:.2f}, "
            f"before {trained['first two thirds']:.2f}",
            decide(trained["first two thirds"] - trained["last third"], MARGIN),
            f"mean over ViT layers of the best CKA: lower in the last third by more than {MARGIN}",
            f"untrained: {control['last third']:.2f} and {control['first two thirds']:.2f}; without the CLS token: "
            f"{without_cls['last third']:.2f} and {without_cls['first two thirds']:.2f}",
        ),
    ]
