"""Section 6 of the paper: what it says of skip connections (Figs 7 and 8), beside what was measured.

Controls are given by name, see `ledger.Controls`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import CANNOT, FAILS, HOLDS, NO_CLASSES, UNDECIDED, Claim, Controls, Part, whole
from vitcnn_utils.claims.words import cause, direction, effect_of_training, shown
from vitcnn_utils.measures.accuracy import points_ahead
from vitcnn_utils.measures.cka import split_contrast
from vitcnn_utils.measures.residual import by_part, geometric_mean, halves

EVEN = 1.0
"""Where two ratios are equal: the paper only says which is the higher."""
CLEAR_SPLIT = 0.2
"""The contrast of mean CKAs, beyond that of the intact twin, from which on a model is said to fall into two parts."""

# Figure 7: norm ratios. All take `residual.skip_ratios`.

_RATIO = (
    "A ratio compares norms, not what is carried, and a residual stream that grows with depth raises the ratios. "
    "A few tokens of large norm can move a mean: compare the medians in the table."
)


def ratio_claims(vit: xr.Dataset, cnn: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> list[Claim]:
    """The claims of Fig 7 and of appendix E; controls: other ViTs, of which the CNN stays the same.

    The CLS token lives on its skips in the first half of the blocks, the spatial tokens in the second; skips carry more
    in the ViT than in the CNN at every depth; late, the MLPs change the CLS token more than attention does; spatial
    tokens change mostly in early blocks.
    """
    others = Controls.of(controls)
    no_cls = "" if _has_cls(vit) else "this model has no CLS token"

    def part(words: str, number: Callable[[xr.Dataset], float], side: Any) -> Part:
        return Part.of(words, number, (vit,), side, EVEN, "The paper only says which is the higher.", unit="times",
                       whose="the paper", **others.with_others())  # fmt: skip

    def advantage(words: str, half: int, side: Any) -> Part:
        return part(f"CLS ratio / spatial ratio, both branches, geometric mean over the {words} half of the blocks",
                    lambda r: geometric_mean(_advantage(r)[halves(r)[half]]) if _has_cls(r) else np.nan,
                    side)  # fmt: skip

    def claim(name: str, paper: str, *parts: Part, section: str = "6", **more: str) -> Claim:
        return Claim(id=f"fig-7-{name}", figure="7", section=section, paper=paper, parts=parts, caveat=_RATIO,
                     second=others.second_name, **more)  # type: ignore[arg-type]  # fmt: skip

    factors = _factors(whole(vit), whole(cnn))
    return [
        claim(
            "transition", "In the first half of a ViT the CLS token is carried by its skips and spatial tokens are "
            "remade by the branches; in the second half it is the other way round.",
            advantage("first", 0, "above"), advantage("second", 1, "below"),
            missing=no_cls, note=no_cls or _crossings(whole(vit)),
        ),
        claim(
            "vit-above-cnn", "The ratios are much higher in the ViT than in the ResNet, throughout.",
            Part.of("ratio of the ViT / that of the CNN, mean over tokens, the least over all CNN units with an "
                    "identity skip and both branches of the ViT at their depth", _least, (vit, cnn), "above", EVEN,
                    "'Throughout' means at every depth.", unit="times", again=others.with_others(cnn)["again"]),
            uncontrolled="Before training the branches of the CNN give 0, and its ratios are infinite.",
            missing="" if factors.size else "the branches of this CNN give 0: it was not trained",
            note=f"on geometric average {np.exp(np.log(factors).mean()):.2f} times the CNN's; units that open a stage "
            "have a projected skip and are left out" if factors.size else "",
        ),
        claim(
            "late-cls", "Late in the network the CLS token is changed mostly by the MLPs.",
            part("CLS ratio of the MLPs / of attention, geometric mean over the second half of the blocks", _late,
                 "below"),
            section="6, E", missing=no_cls,
        ),
        claim(
            "early-spatial", "Spatial tokens change mostly in the early layers.",
            part("spatial ratio, both branches, geometric mean: first / second half of the blocks", _early, "below"),
            section="6, E",
        ),
    ]  # fmt: skip


def ratio_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 7, from `ratio_claims`, in sentences."""
    transition, above, late, early = claims
    said = []
    if transition.verdict != CANNOT:
        first, second = transition.parts
        turn = {
            (HOLDS, HOLDS): "the order turns, as in the paper",
            (FAILS, FAILS): "the order turns, against the paper",
        }
        order = (first.says(first.estimate), second.says(second.estimate))
        turned = turn.get(order, "the order does not turn")
        if UNDECIDED in order:
            turned = "whether the order turns is too close to call"
        untrained = "" if first.control is None or second.control is None else (
            f"; before training {first.words(first.control.value)} and {second.words(second.control.value)}"
        )  # fmt: skip
        said.append(f"The ratio of the CLS token is {shown(first)} that of the spatial tokens in the first half of the "
                    f"blocks and {shown(second)} in the second: "
                    f"{turned}{untrained}.")  # fmt: skip
    if late.verdict != CANNOT:
        ratio = late.parts[0]
        branch = "the MLPs change" if ratio.estimate.value < EVEN else "attention changes"
        said.append(f"Late, {branch} the CLS token more (ratio of the MLPs {shown(ratio)} that of attention"
                    f"{effect_of_training(ratio)}).")  # fmt: skip
    rows = {"the turn at half depth": transition, "higher ratios than the CNN's": above,
            "late changes of CLS by the MLPs": late, "early changes of the spatial tokens": early}  # fmt: skip
    return " ".join([*said, cause(rows)])


def _least(vit: xr.Dataset, cnn: xr.Dataset) -> float:
    factors = _factors(vit, cnn)
    return float(factors.min()) if factors.size else np.nan


def _late(ratios: xr.Dataset) -> float:
    if not _has_cls(ratios):
        return np.nan
    cls = by_part(ratios).sel(part="CLS")[halves(ratios)[1]]
    return geometric_mean(cls.sel(branch="mlp")) / geometric_mean(cls.sel(branch="attention"))


def _early(ratios: xr.Dataset) -> float:
    spatial = by_part(ratios).sel(part="spatial")
    first, later = (geometric_mean(spatial[half]) for half in halves(ratios))
    return first / later


def _has_cls(ratios: xr.Dataset) -> bool:
    return "CLS" in ratios["part"]


def _advantage(ratios: xr.Dataset) -> xr.DataArray:
    """CLS ratio over spatial ratio, (block, branch)."""
    parts = by_part(ratios)
    return parts.sel(part="CLS") / parts.sel(part="spatial")


def _crossings(ratios: xr.Dataset) -> str:
    """Where the sign of the CLS token's advantage changes, in words."""
    sign = np.sign(np.log(_advantage(ratios).values).mean(axis=1))
    changes = [f"{i - 1} and {i}" for i in range(1, len(sign)) if sign[i] != sign[i - 1]]
    return f"the order changes between blocks {', '.join(changes)}" if changes else "the order never changes"


def _factors(vit: xr.Dataset, cnn: xr.Dataset) -> np.ndarray:
    """ViT over CNN, each branch at the depth of each unit with an identity skip and a finite ratio (flat)."""
    identity = cnn.isel(block=~cnn["projected"].values, branch=0, token=0)
    units = identity.isel(block=np.isfinite(identity["ratio"].values))
    lines = vit["ratio"].mean("token")  # (block, branch)
    at_units = [np.interp(units["depth"], vit["depth"], lines.sel(branch=b)) for b in vit["branch"].values]
    return (np.stack(at_units) / units["ratio"].values).ravel()


# Figure 8: models trained without the skips of one block

Map = xr.DataArray


def split_claim(intact: Map, changed: Mapping[int, Map], untrained: Map, untrained_changed: Mapping[int, Map]) -> Claim:
    """Without the skips of a block, the layers before it and after it have little in common.

    intact: (layer_a, layer_b) of the model with all skips; changed: block -> the same of a model without that block's
    skips; untrained, untrained_changed: of the same models before training. Maps with `left_out` give intervals.
    """

    def part(block: int) -> Part:
        return Part.of(f"fall of the CKA of block outputs across block {block}, without its skips − intact twin",
                       lambda a, b: split_contrast(a, block) - split_contrast(b, block), (changed[block], intact),
                       "above", CLEAR_SPLIT, "The parts of the paper's maps differ at a glance.",
                       control=(untrained_changed[block], untrained))  # fmt: skip

    numbers = (f"block {b}: {split_contrast(whole(m), b):z.2f} without, {split_contrast(whole(intact), b):z.2f} intact"
               for b, m in changed.items())  # fmt: skip
    return Claim(
        id="fig-8-split",
        figure="8",
        section="6",
        paper="Trained without the skips of one block, a ViT falls into two parts that are hardly alike.",
        parts=tuple(map(part, changed)),
        caveat="The fall is the mean CKA of block outputs on one side of the block, minus the mean CKA across it. A "
        "block without skips changes its input whatever it has learned: compare the untrained models. One training "
        "each.",
        note="; ".join(numbers),
    )


def accuracy_loss(guesses: xr.DataArray | None, without: Mapping[int, xr.DataArray]) -> Claim:
    """Without the skips of a middle block, accuracy falls by about 4 points.

    guesses, without: of `accuracy.right_guesses`, of the intact twin and, by block, of the models without that block's
    skips. guesses is None where the images have no labels that the models know.
    """
    parts: tuple[Part, ...] = ()
    note = ""
    if guesses is not None:
        parts = tuple(
            Part.of(f"accuracy of the intact twin − without the skips of block {block}", points_ahead,
                    (guesses, without[block]), "above", 0, "Any fall counts, as 4 % may be absolute or relative.",
                    unit="points", whose="the paper")
            for block in _middle(without)
        )  # fmt: skip
        by_block = ", ".join(f"block {block} {100 * float(without[block].mean()):.1f} %" for block in sorted(without))
        note = f"intact {100 * float(guesses.mean()):.1f} %; {by_block}"
    return Claim(
        id="fig-8-accuracy",
        figure="8",
        section="6",
        paper="Without the skips of a middle block, accuracy falls (by 4 %; of what, and on what, is not said).",
        parts=parts,
        caveat="The interval is that of the images alone; another start may change accuracy by more.",
        uncontrolled="Before training no model has any accuracy that it could lose.",
        missing="" if parts else NO_CLASSES,
        note=note,
    )


def _middle(without: Mapping[int, Any]) -> list[int]:
    """The blocks that are neither the first nor the last of those without skips, where there are three or more."""
    ordered = sorted(without)
    return ordered[1:-1] if len(ordered) > 2 else ordered


def split_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 8, from `split_claim` and `accuracy_loss`, in sentences; '' for no claims."""
    if not claims or claims[0].verdict == CANNOT:
        return ""
    split, accuracy = claims
    most = max(split.parts, key=lambda part: part.estimate.value)
    said = [f"The model divides most {_at(most)}, where CKA falls by {shown(most)} more than in the intact twin"
            f"{effect_of_training(most)}."]  # fmt: skip
    if len(split.parts) > 1:
        said.append(cause({f"a split {_at(part)}": replace(split, parts=(part,)) for part in split.parts}))
    if accuracy.parts:
        changes = ", ".join(f"{_lost(part)} {_at(part)}" for part in accuracy.parts)
        said.append(f"Without the skips accuracy is {changes}.")
    return " ".join(said)


def _lost(part: Part) -> str:
    """How accuracy without skips lies beside that with all of them, from a part that subtracts it from that."""
    by = part.words(abs(part.estimate.value))
    side = "lower" if part.estimate.value > 0 else "higher"
    return direction(part.estimate, f"lower by {by}", f"higher by {by}", f"not clearly another ({side} by {by})")


def _at(part: Part) -> str:
    """'at block 4', from the statistic of a part."""
    return f"at block {part.statistic.split('block ')[-1].split(',')[0]}"
