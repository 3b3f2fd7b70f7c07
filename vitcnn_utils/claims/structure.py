"""Figures 1 and 2: how the layers of one model, and of a ViT and a CNN, resemble each other (paper, section 4).

All functions take what `cka.layer_similarity` gives. The paper prints no CKA value, so every threshold is ours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import Claim, Part, whole
from vitcnn_utils.measures.cka import across_summary, grid_contrast, low_high, spread, stage_contrast, stage_starts

VISIBLE = 0.05
"""A difference of mean CKAs that can be seen on a colour scale from 0 to 1."""
FINE = 0.02
"""The same where texture is compared within one map: neighbouring cells show smaller differences."""
QUARTER = 1 / 3
"""The depth up to which a layer counts as of the ViT's lowest quarter: the paper's Fig B.1 needs a third for B/32."""
NEXT_THIRD = (0.25, 0.6)
"""The depths between which the paper's 'next third' of the ViT lies: a quarter and a third make 0.58."""
MOST = 60.0
"""Percent of layers that are called most of them."""
HALF_GONE = 50.0
"""Percent of an effect up to which what is left of it is the smaller part."""

Statistic = Callable[[xr.DataArray], float]

_SEEN = "Smaller differences of mean CKA cannot be seen in the figure."
_CONFOUND = (
    "Images that are alike as pixels stay alike through any layers, so CKA is high without any training; a few images "
    "of large norm can make or break it. Compare the untrained twins and the row with clipped norms."
)


def within_claims(
    vit: xr.DataArray, cnn: xr.DataArray, untrained_vit: xr.DataArray, untrained_cnn: xr.DataArray
) -> list[Claim]:
    """The claims of Fig 1, from the map of each model with itself and those of the untrained twins.

    Maps with `left_out`, see `cka.layer_similarity`, give intervals.
    """
    starts = stage_starts(cnn)
    trained, twins = (vit, cnn), (untrained_vit, untrained_cnn)

    def lead(statistic: Statistic, sign: int = 1) -> Callable[[xr.DataArray, xr.DataArray], float]:
        return lambda a, b: sign * (statistic(a) - statistic(b))

    def in_stages(similarity: xr.DataArray) -> float:
        return stage_contrast(similarity, starts)

    def numbers(statistic: Statistic) -> str:
        maps = {"ViT": vit, "CNN": cnn, "untrained ViT": untrained_vit, "untrained CNN": untrained_cnn}
        return ", ".join(f"{name} {statistic(whole(of_model)):.2f}" for name, of_model in maps.items())

    fine = "Texture shows at smaller differences than whole regions of a map do."
    common: dict[str, Any] = {"figure": "1", "section": "4", "caveat": _CONFOUND}
    return [
        Claim(
            id="fig-1-low-high",
            paper="Low and high layers are far more alike in the ViT than in the CNN.",
            parts=(Part.of("mean CKA of the first and the last third of depth, ViT − CNN",
                           lead(low_high), trained, "above", VISIBLE, _SEEN, control=twins),),
            note=numbers(low_high), **common,
        ),
        Claim(
            id="fig-1-uniform",
            paper="The ViT's map is much more uniform.",
            parts=(Part.of("standard deviation of CKA over pairs of layers, CNN − ViT",
                           lead(spread, -1), trained, "above", FINE, fine, control=twins),),
            note=numbers(spread), **common,
        ),
        Claim(
            id="fig-1-stages",
            paper="The CNN falls into stages, more than the ViT does.",
            parts=(Part.of("mean CKA within minus between stages (the ViT cut at the CNN's depths), CNN − ViT",
                           lead(in_stages, -1), trained, "above", VISIBLE, _SEEN, control=twins),),
            missing="" if starts else "all blocks of this CNN have one resolution: it has no stages",
            note=numbers(in_stages), **common,
        ),
        Claim(
            id="fig-1-grid",
            paper="The ViT's map looks like a grid: sub-layers of one kind resemble each other across blocks.",
            parts=(Part.of("mean CKA of sub-layers of one kind minus that of two kinds, in different blocks, ViT",
                           grid_contrast, (vit,), "above", FINE, fine, control=(untrained_vit,)),),
            **common,
        ),
    ]  # fmt: skip


def cross_claims(
    similarity: xr.DataArray, untrained: xr.DataArray, fewer: xr.DataArray, spatial: xr.DataArray
) -> list[Claim]:
    """The claims of Fig 2, from the map (ViT, CNN) and that of the untrained twins.

    fewer, spatial: the map with and without the CLS token, on the same images. Maps with `left_out` give intervals.
    """

    def part(words: str, number: Callable[[dict[str, float]], float], side: Any, threshold: float, why: str) -> Part:
        def of_map(one: xr.DataArray) -> float:
            return number(across_summary(one))

        return Part.of(words, of_map, (similarity,), side, threshold, why, control=(untrained,))

    stages = "" if stage_starts(similarity, "b") else "all blocks of this CNN have one resolution: it has no halves"
    soft = "The ridge of the map is soft, so that the most similar layer may jump: compare the weighted depth."
    common: dict[str, Any] = {"figure": "2", "section": "4"}
    trained = across_summary(whole(similarity))
    low, high = NEXT_THIRD
    return [
        Claim(
            id="fig-2-lower-half",
            paper="The lower half of the CNN resembles the lowest quarter of the ViT's layers.",
            parts=(part("median depth of the most similar ViT layer, over the CNN's first half of stages",
                        lambda s: s["lower half"], "below", QUARTER,
                        "The paper says a quarter, and its Fig B.1 shows a third."),),
            missing=stages, caveat=soft, note=f"weighted depth {trained['lower half, centroid']:.2f}", **common,
        ),
        Claim(
            id="fig-2-upper-half",
            paper="The upper half of the CNN resembles the next third of the ViT's layers.",
            parts=(
                part("median depth of the most similar ViT layer, over the CNN's other stages",
                     lambda s: s["upper half"], "above", low, "Below lies the quarter that is like the lower half."),
                part("the same median", lambda s: s["upper half"], "below", high,
                     "A quarter and a third of the ViT's layers make 0.58; the borders in the paper are soft."),
                part("the same median minus that of the first half of stages",
                     lambda s: s["upper half"] - s["lower half"], "above", 0, "The next third lies deeper."),
            ),
            missing=stages, caveat=soft, note=f"weighted depth {trained['upper half, centroid']:.2f}", **common,
        ),
        Claim(
            id="fig-2-ahead",
            paper="The CNN needs more of its layers for what the ViT computes in few of its own.",
            parts=(part("percent of the CNN's layers that lie deeper than their most similar ViT layer",
                        lambda s: 100 * s["ahead"], "above", MOST, "It would be half if both went in step."),),
            caveat="A layer is one entry of the map, whatever it costs to compute. " + soft, **common,
        ),
        Claim(
            id="fig-2-last-third",
            paper="The last third of the ViT is unlike every layer of the CNN.",
            parts=(part("mean over ViT layers of the best CKA with any CNN layer, first two thirds − last third",
                        _drop, "above", VISIBLE, _SEEN),),
            caveat=_CONFOUND, **common,
        ),
        _cls_is_why(fewer, spatial),
    ]  # fmt: skip


def _drop(numbers: dict[str, float]) -> float:
    """By how much the ViT's last third is less like any CNN layer than the layers before."""
    return numbers["first two thirds"] - numbers["last third"]


def _cls_is_why(fewer: xr.DataArray, spatial: xr.DataArray) -> Claim:
    """The paper's explanation of the drop in the last third of the ViT: it goes where the CLS token is left out."""
    drop, drop_without = (_drop(across_summary(whole(one))) for one in (fewer, spatial))
    missing = "" if drop > VISIBLE else "there is no drop to explain"
    if np.array_equal(fewer, spatial, equal_nan=True):
        missing = "this ViT has no token besides the spatial ones"

    def left(with_cls: xr.DataArray, without: xr.DataArray) -> float:
        return 100 * _drop(across_summary(without)) / _drop(across_summary(with_cls)) if not missing else np.nan

    return Claim(
        id="fig-2-cls",
        figure="2",
        section="4",
        paper="The last third of the ViT is unlike the CNN because it works on the CLS token.",
        parts=(
            Part.of("drop of the best CKA in the last third without the CLS token, in percent of the drop with it",
                    left, (fewer, spatial), "below", HALF_GONE,
                    "If the token is why, most of the drop goes with it.", unit="%"),
        ),
        caveat="Without the token the spatial tokens still hold what attention brought to them from it.",
        missing=missing,
        note=f"drop with the token {drop:.2f}, without it {drop_without:.2f}, on the same images",
    )  # fmt: skip
