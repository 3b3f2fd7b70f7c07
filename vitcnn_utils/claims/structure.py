"""Figures 1 and 2: how the layers of one model, and of a ViT and a CNN, resemble each other (paper, section 4).

All functions take what `cka.layer_similarity` gives; maps with `left_out` give intervals. The paper prints no CKA
value, so every threshold is ours.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import CANNOT, FAILS, HOLDS, Claim, Controls, Part, whole
from vitcnn_utils.claims.words import cause, direction, effect_of_training, moves, shown
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
Pair = tuple[xr.DataArray, xr.DataArray]

_SEEN = "Smaller differences of mean CKA cannot be seen in the figure."
_CONFOUND = (
    "Images that are alike as pixels stay alike through any layers, so CKA is high without any training; a few images "
    "of large norm can make or break it. Compare the untrained twins and the row with clipped norms."
)

# Figure 1


def within_claims(vit: xr.DataArray, cnn: xr.DataArray, controls: Mapping[str, Pair]) -> list[Claim]:
    """The claims of Fig 1, from the map of each model with itself; controls: name -> the same two, see `Controls`."""
    starts = stage_starts(cnn)
    maps = {"ViT": vit, "CNN": cnn}
    others = Controls.of(controls)
    if others.untrained:
        maps |= dict(zip(("untrained ViT", "untrained CNN"), others.untrained, strict=True))

    def in_stages(similarity: xr.DataArray) -> float:
        return stage_contrast(similarity, starts)

    def claim(name: str, paper: str, words: str, statistic: Statistic, sign: int, threshold: float, why: str,
              missing: str = "") -> Claim:  # fmt: skip
        def lead(a: xr.DataArray, b: xr.DataArray) -> float:
            return sign * (statistic(a) - statistic(b))

        return _claim(
            name, paper, (Part.of(f"{words}, {'ViT − CNN' if sign > 0 else 'CNN − ViT'}", lead, (vit, cnn), "above",
                                  threshold, why, **others.with_others()),),
            "1", others.second_name, missing=missing, caveat=_CONFOUND,
            note=", ".join(f"{model} {statistic(whole(one)):.2f}" for model, one in maps.items()),
        )  # fmt: skip

    fine = "Texture shows at smaller differences than whole regions of a map do."
    of_vit = Controls.of({name: pair[0] for name, pair in controls.items()})
    return [
        claim("fig-1-low-high", "Low and high layers are far more alike in the ViT than in the CNN.",
              "mean CKA of the first and the last third of depth", low_high, 1, VISIBLE, _SEEN),
        claim("fig-1-uniform", "The ViT's map is much more uniform.",
              "standard deviation of CKA over pairs of layers", spread, -1, FINE, fine),
        claim("fig-1-stages", "The CNN falls into stages, more than the ViT does.",
              "mean CKA within minus between stages (the ViT cut at the CNN's depths)", in_stages, -1, VISIBLE, _SEEN,
              "" if starts else "all blocks of this CNN have one resolution: it has no stages"),
        _claim(
            "fig-1-grid", "The ViT's map looks like a grid: sub-layers of one kind resemble each other across blocks.",
            (Part.of("mean CKA of sub-layers of one kind minus that of two kinds, in different blocks, ViT",
                     grid_contrast, (vit,), "above", FINE, fine, **of_vit.with_others()),),
            "1", of_vit.second_name, caveat=_CONFOUND,
        ),
    ]  # fmt: skip


def within_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 1, from `within_claims`, in sentences."""
    low, uniform, stages, grid = claims
    lead = low.parts[0]
    said = []
    if low.verdict != CANNOT:
        than = direction(lead.estimate, "more alike in the ViT than", "less alike in the ViT than",
                         "about as alike in the ViT as")  # fmt: skip
        said.append(f"Low and high layers are {than} in the CNN (mean CKA, difference {shown(lead)})"
                    f"{effect_of_training(lead)}.")  # fmt: skip
    rows = {"the more uniform map of the ViT": uniform, "the stages of the CNN": stages, "the grid of the ViT": grid}
    return " ".join([*said, cause(rows)])


# Figure 2


def cross_claims(similarity: xr.DataArray, with_and_without: Pair, controls: Mapping[str, Pair]) -> list[Claim]:
    """The claims of Fig 2, from the map (ViT, CNN).

    with_and_without: the map with and without the CLS token, on the same images. controls: name -> the same two, see
    `Controls`; the first of them also stands beside `similarity`.
    """
    others = Controls.of({name: pair[0] for name, pair in controls.items()})

    def part(words: str, number: Callable[[dict[str, float]], float], side: Any, threshold: float, why: str,
             unit: str = "") -> Part:  # fmt: skip
        return Part.of(words, lambda one: number(across_summary(one)), (similarity,), side, threshold, why, unit,
                       **others.with_others())  # fmt: skip

    def claim(name: str, paper: str, *parts: Part, **more: str) -> Claim:
        return _claim(name, paper, parts, "2", others.second_name, **more)

    stages = "" if stage_starts(similarity, "b") else "all blocks of this CNN have one resolution: it has no halves"
    soft = "The ridge of the map is soft, so that the most similar layer may jump: compare the weighted depth."
    trained = across_summary(whole(similarity))
    low, high = NEXT_THIRD
    return [
        claim(
            "fig-2-lower-half", "The lower half of the CNN resembles the lowest quarter of the ViT's layers.",
            part("median depth of the most similar ViT layer, over the CNN's first half of stages",
                 lambda s: s["lower half"], "below", QUARTER,
                 "The paper says a quarter, and its Fig B.1 shows a third."),
            missing=stages, caveat=soft, note=f"weighted depth {trained['lower half, centroid']:.2f}",
        ),
        claim(
            "fig-2-upper-half", "The upper half of the CNN resembles the next third of the ViT's layers.",
            part("median depth of the most similar ViT layer, over the CNN's other stages",
                 lambda s: s["upper half"], "above", low, "Below lies the quarter that is like the lower half."),
            part("the same median", lambda s: s["upper half"], "below", high,
                 "A quarter and a third of the ViT's layers make 0.58; the borders in the paper are soft."),
            part("the same median minus that of the first half of stages",
                 lambda s: s["upper half"] - s["lower half"], "above", 0, "The next third lies deeper."),
            missing=stages, caveat=soft, note=f"weighted depth {trained['upper half, centroid']:.2f}",
        ),
        claim(
            "fig-2-ahead", "The CNN needs more of its layers for what the ViT computes in few of its own.",
            part("share of the CNN's layers that lie deeper than their most similar ViT layer",
                 lambda s: 100 * s["ahead"], "above", MOST, "It would be half if both went in step.", "%"),
            caveat="A layer is one entry of the map, whatever it costs to compute. " + soft,
        ),
        claim(
            "fig-2-last-third", "The last third of the ViT is unlike every layer of the CNN.",
            part("mean over ViT layers of the best CKA with any CNN layer, first two thirds − last third",
                 _drop, "above", VISIBLE, _SEEN),
            caveat=_CONFOUND,
        ),
        _cls_is_why(with_and_without, controls),
    ]  # fmt: skip


def cross_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 2, from `cross_claims`, in sentences."""
    lower, upper, ahead, last, token = claims
    said = []
    if CANNOT not in (lower.verdict, upper.verdict):
        depths = [shown(claim.parts[0]) for claim in (lower, upper)]
        deeper = direction(upper.parts[2].estimate, "further up", "further down", "no further up")
        said.append(f"The lower half of the CNN is most like the ViT at depth {depths[0]}, its upper half at "
                    f"{depths[1]}, {deeper}.")  # fmt: skip
    if ahead.verdict != CANNOT:
        share = ahead.parts[0]
        said.append(f"{shown(share)} of the CNN's layers lie deeper than their like in the ViT"
                    f"{effect_of_training(share)}.")  # fmt: skip
    if last.verdict != CANNOT:
        said.append(f"In the ViT's last third its best CKA with the CNN {moves(last.parts[0])}{_conclusion(token)}.")
    return " ".join(said)


def _conclusion(token: Claim) -> str:
    if token.verdict == CANNOT:
        return f"; whether the CLS token is why cannot be asked, as {token.reason}"
    why = {FAILS: "so the token is not the main reason", HOLDS: "so the token is the main reason"}
    so = why.get(token.verdict, "which does not decide whether the token is why")
    return f"; without the CLS token {shown(token.parts[0])} of the fall are left, {so}"


def _drop(numbers: dict[str, float]) -> float:
    """By how much the ViT's last third is less like any CNN layer than the layers before."""
    return numbers["first two thirds"] - numbers["last third"]


def _cls_is_why(pair: Pair, controls: Mapping[str, Pair]) -> Claim:
    """The paper's explanation of the drop in the last third of the ViT: it goes where the CLS token is left out."""

    def left(with_cls: xr.DataArray, without: xr.DataArray) -> float:
        drop = _drop(across_summary(with_cls))
        return 100 * _drop(across_summary(without)) / drop if drop > VISIBLE else np.nan

    others = Controls.of(controls)
    drop = Part.of("drop", lambda one: _drop(across_summary(one)), pair[:1], "above", VISIBLE, _SEEN)
    missing = {HOLDS: "", FAILS: "there is no drop to explain"}.get(
        drop.says(drop.estimate), "the drop is too near to the smallest that counts"
    )
    if np.array_equal(*pair, equal_nan=True):
        missing = "this ViT has no token besides the spatial ones"
    drops = [_drop(across_summary(whole(one))) for one in pair]
    return _claim(
        "fig-2-cls", "The last third of the ViT is unlike the CNN because it works on the CLS token.",
        (
            Part.of("drop of the best CKA in the last third without the CLS token, in percent of the drop with it",
                    left, pair, "below", HALF_GONE,
                    "If the token is why, most of the drop goes with it.", unit="%", **others.with_others()),
        ),
        "2", others.second_name, missing=missing,
        caveat="Without the token the spatial tokens still hold what attention brought to them from it.",
        note=f"drop with the token {drops[0]:.2f}, without it {drops[1]:.2f}, on the same images",
    )  # fmt: skip


def _claim(name: str, paper: str, parts: tuple[Part, ...], figure: str, second: str, **more: str) -> Claim:
    return Claim(id=name, figure=figure, section="4", paper=paper, parts=parts, second=second, **more)  # type: ignore[arg-type]
