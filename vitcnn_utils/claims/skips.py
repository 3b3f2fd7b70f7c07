"""Section 6 of the paper: what it says of skip connections (Figs 7 and 8), beside what was measured."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import Claim, Controls, Part, difference_of_shares
from vitcnn_utils.measures.cka import split_contrast
from vitcnn_utils.measures.residual import by_part, geometric_mean, halves

EVEN = 1.0
"""Where two ratios are equal: the paper only says which is the higher."""
CLEAR_SPLIT = 0.2
"""The contrast of mean CKAs, beyond that of the intact twin, from which on a model is said to fall into two parts."""

# Figure 7: norm ratios. All claims take `residual.skip_ratios`.

_RATIO = (
    "A ratio compares norms, not what is carried, and the residual stream grows with depth, which raises all ratios. "
    "A few tokens of large norm can move a mean: compare the medians in the table."
)


Ratios = Mapping[str, xr.Dataset]


def phase_transition(ratios: xr.Dataset, controls: Ratios) -> Claim:
    """The CLS token lives on its skips in the first half of the blocks, the spatial tokens in the second."""

    def part(words: str, half: int, side: Any) -> Part:
        def advantage(r: xr.Dataset) -> float:
            return geometric_mean(_advantage(r)[halves(r)[half]])

        statistic = f"CLS ratio / spatial ratio, both branches, geometric mean over the {words} half of the blocks"
        return _part(statistic, _of_cls(advantage), side, ratios, controls)

    return _claim(
        "fig-7-transition",
        "In the first half of a ViT the CLS token is carried by its skips and spatial tokens are remade by the "
        "branches; in the second half it is the other way round.",
        (part("first", 0, "above"), part("second", 1, "below")),
        ratios,
        controls,
        missing=_without_cls(ratios),
        note="" if _without_cls(ratios) else _crossings(ratios),
    )


def vit_above_cnn(vit: xr.Dataset, cnn: xr.Dataset, controls: Ratios) -> Claim:
    """Skips carry more in the ViT than in the CNN at every depth. controls: of ViTs, beside the same CNN."""

    def least(a: xr.Dataset, b: xr.Dataset) -> float:
        factors = _factors(a, b)
        return float(factors.min()) if factors.size else np.nan

    factors = _factors(vit, cnn)
    words = (
        "ratio of the ViT / that of the CNN, mean over tokens, the least over all CNN units with an identity skip and "
        "both branches of the ViT at their depth"
    )
    part = Part.of(words, least, (vit, cnn), "above", EVEN, "'Throughout' means at every depth.", unit="times",
                   **Controls.of(controls).with_others(cnn))  # fmt: skip
    return _claim(
        "fig-7-vit-above-cnn",
        "The ratios are much higher in the ViT than in the ResNet, throughout.",
        (part,),
        vit,
        controls,
        control="untrained ViT beside the trained CNN",
        missing="" if factors.size else "the branches of this CNN give 0: it was not trained",
        note=f"on geometric average {np.exp(np.log(factors).mean()):.2f} times the CNN's; units that open a stage have "
        "a projected skip and are left out" if factors.size else "",
    )  # fmt: skip


def late_cls_changes(ratios: xr.Dataset, controls: Ratios) -> Claim:
    """Appendix E: late in the network the MLPs change the CLS token, more than attention does."""

    def late(r: xr.Dataset) -> float:
        cls = by_part(r).sel(part="CLS")[halves(r)[1]]
        return geometric_mean(cls.sel(branch="mlp")) / geometric_mean(cls.sel(branch="attention"))

    statistic = "CLS ratio of the MLPs / of attention, geometric mean over the second half of the blocks"
    return _claim(
        "fig-7-late-cls",
        "Late in the network the CLS token is changed mostly by the MLPs.",
        (_part(statistic, _of_cls(late), "below", ratios, controls),),
        ratios,
        controls,
        section="6, E",
        missing=_without_cls(ratios),
    )


def early_spatial_changes(ratios: xr.Dataset, controls: Ratios) -> Claim:
    """Appendix E: spatial tokens change mostly in early blocks."""

    def early(r: xr.Dataset) -> float:
        spatial = by_part(r).sel(part="spatial")
        first, later = (geometric_mean(spatial[half]) for half in halves(r))
        return first / later

    statistic = "spatial ratio, both branches, geometric mean: first / second half of the blocks"
    return _claim(
        "fig-7-early-spatial",
        "Spatial tokens change mostly in the early layers.",
        (_part(statistic, early, "below", ratios, controls),),
        ratios,
        controls,
        section="6, E",
    )


def _part(words: str, number: Callable[[xr.Dataset], float], side: Any, ratios: xr.Dataset, controls: Ratios) -> Part:
    return Part.of(words, number, (ratios,), side, EVEN, "The paper only says which is the higher.", unit="times",
                   whose="the paper", **Controls.of(controls).with_others())  # fmt: skip


def _claim(
    name: str,
    paper: str,
    parts: tuple[Part, ...],
    ratios: xr.Dataset,
    controls: Ratios,
    section: str = "6",
    **more: str,
) -> Claim:
    """A claim on the ratios of one ViT."""
    return Claim(id=name, figure="7", section=section, paper=paper, parts=parts, caveat=_RATIO,
                 second=Controls.of(controls).second_name, **more)  # type: ignore[arg-type]  # fmt: skip


def _of_cls(number: Callable[[xr.Dataset], float]) -> Callable[[xr.Dataset], float]:
    """NaN for a model without a CLS token."""
    return lambda ratios: np.nan if _without_cls(ratios) else number(ratios)


def _without_cls(ratios: xr.Dataset) -> str:
    return "" if "CLS" in by_part(ratios)["part"] else "this model has no CLS token"


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


def split(
    intact: xr.DataArray,
    changed: Mapping[int, xr.DataArray],
    untrained: xr.DataArray,
    untrained_changed: Mapping[int, xr.DataArray],
) -> Claim:
    """Without the skips of a block, the layers before it and after it have little in common.

    intact: (layer_a, layer_b) of the model with all skips; changed: block -> the same of a model without that block's
    skips; untrained, untrained_changed: of the same models before training.
    """

    def part(block: int) -> Part:
        return Part.of(f"contrast at block {block}, without its skips − intact twin",
                       lambda a, b: split_contrast(a, block) - split_contrast(b, block), (changed[block], intact),
                       "above", CLEAR_SPLIT, "The parts of the paper's maps differ at a glance.",
                       control=(untrained_changed[block], untrained))  # fmt: skip

    numbers = (f"block {b}: {split_contrast(m, b):z.2f} without, {split_contrast(intact, b):z.2f} intact"
               for b, m in changed.items())  # fmt: skip
    return Claim(
        id="fig-8-split",
        figure="8",
        section="6",
        paper="Trained without the skips of one block, a ViT falls into two parts that are hardly alike.",
        parts=tuple(map(part, changed)),
        caveat="Contrast: mean CKA of block outputs on one side of the block, minus mean CKA across it. A block "
        "without skips changes its input whatever it has learned: compare the untrained models.",
        note="; ".join(numbers),
    )


def accuracy_loss(intact: float, without: Mapping[int, float], n_images: int, of: str) -> Claim:
    """Without the skips of a middle block, accuracy falls by about 4 points.

    intact, without: accuracy from 0 to 1 of the intact twin and, by block, of the models without that block's skips, on
    `n_images` images; `of` says which. Only blocks that are neither the first nor the last of those removed count as
    middle ones, where there are three or more.
    """
    ordered = sorted(without)
    middle = ordered[1:-1] if len(ordered) > 2 else ordered
    return Claim(
        id=f"fig-8-accuracy-{n_images}",
        figure="8",
        section="6",
        paper="Without the skips of a middle block, accuracy falls (by 4 %; of what, and on what, is not said).",
        of=of,
        parts=tuple(
            Part(f"accuracy of the intact twin − without the skips of block {block}",
                 difference_of_shares(intact, without[block], n_images), "above", 0,
                 "Any fall counts, as 4 % may be absolute or relative.", unit="points", whose="the paper")
            for block in middle
        ),
        caveat="The interval is that of the images alone; another start may change accuracy by more.",
        note=f"intact {100 * intact:.1f} %; " + ", ".join(f"block {b} {100 * without[b]:.1f} %" for b in ordered),
    )  # fmt: skip
