"""Section 5 of the paper: attention distance, groups of heads, effective receptive fields (Figs 3 to 6).

The paper gives no thresholds: all are ours. Distances are judged as percent of the distance of uniform attention, so
that a rule means the same at any image size.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import Arrays, Claim, Part, difference_of_shares
from vitcnn_utils.measures.attention import rank_correlations
from vitcnn_utils.measures.receptive_field import early_radius, largest_growth, share_of_centre

LOCAL, GLOBAL = 40.0, 60.0
"""Percent of the distance of uniform attention up to which a head is called local, and from which on global."""
SMALLEST_GRID = 2.0
"""Uniform attention must reach so many patches: below, in grids of 4 × 4 and less, neighbours are as far as all."""
GAP = 5.0
"""Percent of the uniform distance from which on two distances are called different."""
WORSE = 5.0
"""Percentage points of accuracy from which on a model is called worse."""
MONOTONE = -0.8
"""Spearman's rho up to which similarity is said to fall with distance."""
CLEAR_FALL = 0.1
"""The fall in CKA from the most local to the most global heads that is worth a statement."""
HALF_LEFT = 50.0
"""Percent of the fall that may be left where places are averaged away."""
RANGE = 20.0
"""Groups of heads must differ in distance by this percent of the largest, or there is no 'local' and 'global'."""
LARGER = 1.2
"""The ratio from which on one receptive field is called larger than another."""
IN_A_QUARTER = 10.0
"""Percentage points of the growth that one quarter of the depth must hold more, to be called a jump beside another."""
CENTRE = 3.0
"""From so many times its share of the image on, a patch is said to dominate a receptive field."""
SHIFT = 5.0
"""Percentage points of the field from which on two shares of the centre are called different."""

Side = Literal["above", "below"]
Statistic = Callable[[xr.Dataset], float]

# Figures 3 and 4: attention distance. All take `attention.head_distances`.

_CLS_MASS = (
    "Attention that goes to the CLS token counts as distance 0, as in the public code for this measure: a head that "
    "rests there looks nearer than it is. Uniform attention counts as global, though it picks nothing."
)


def low_blocks_mix(heads: xr.Dataset, control: xr.Dataset) -> Claim:
    """Fig 3: the lowest blocks have local and global heads side by side."""

    def part(words: str, number: Statistic, side: Side, threshold: float, why: str) -> Part:
        return Part.of(words, number, (heads,), side, threshold, why, unit="%", control=(control,))

    of_uniform = "in percent of the distance of uniform attention"
    return Claim(
        id="fig-3-mix",
        figure="3",
        section="5",
        paper="The lowest blocks have heads that attend locally next to heads that attend globally.",
        parts=(
            part(f"the nearest head of each of the two lowest blocks, the farther of the two, {of_uniform}",
                 lambda h: float(_share(_low(h)).min("head").max()), "below", LOCAL,
                 "A head that looks at its patch and the eight around it has 13 to 28 % at the paper's sizes."),
            part(f"the farthest head of each of the two lowest blocks, the nearer of the two, {of_uniform}",
                 lambda h: float(_share(_low(h)).max("head").min()), "above", GLOBAL,
                 "Heads that look everywhere alike have 100 %, less what goes to the CLS token."),
        ),
        caveat=_CLS_MASS,
        missing=_too_small(heads),
        note=f"{_per_block(_low(heads))}; untrained: {_per_block(_low(control))}",
    )  # fmt: skip


def high_blocks_are_global(heads: xr.Dataset, control: xr.Dataset) -> Claim:
    """Fig 3: the two highest blocks are entirely global, with and without renormalising."""

    def part(words: str, name: str) -> Part:
        statistic = f"nearest head of the two highest blocks, in percent of the distance of uniform attention, {words}"
        return Part.of(statistic, lambda h: float(_share(_high(h, name)).min()), (heads,), "above", GLOBAL,
                       "All heads must be global, so the nearest of them.", unit="%", control=(control,))  # fmt: skip

    mass = float(_high(heads, "prefix_mass").mean())
    return Claim(
        id="fig-3-global",
        figure="3",
        section="5",
        paper="All heads of the two highest blocks are global.",
        parts=(
            part("attention to the CLS token counted as distance 0", "distance"),
            part("renormalised without it", "distance_renormalized"),
        ),
        together="agree",
        caveat=_CLS_MASS,
        missing=_too_small(heads),
        note=f"{mass:.0%} of the attention of these blocks goes to prefix tokens",
    )


def little_data_hides_locality(little: xr.Dataset, full: xr.Dataset, other: xr.Dataset | None) -> Claim:
    """Fig 4: without much data the lowest blocks do not learn to attend locally.

    little, full: twins trained for equally many steps. other: a model that saw all data from another start, for what
    chance alone may do, if there is one.
    """
    return Claim(
        id="fig-4-little-data",
        figure="4",
        section="5",
        paper="Trained on little data, the lowest blocks do not learn to attend locally.",
        of=_versus(little, full),
        parts=_farther(little, full, other, "above"),
        together="agree",
        control="another start with all data",
        caveat="One training each: what another start changes is the control, where there is one.",
        missing=_nothing_local(full),
    )


def small_model_keeps_locality(little: xr.Dataset, full: xr.Dataset) -> Claim:
    """Fig C.5: a smaller ViT learns local heads from little data too; the same numbers, the opposite outcome."""
    return Claim(
        id="fig-4-small-model",
        figure="4",
        section="5, C.5",
        paper="A smaller ViT learns to attend locally from little data too.",
        of=_versus(little, full),
        parts=_farther(little, full, None, "below"),
        together="agree",
        caveat="That nothing is lost is said of one training each.",
        missing=_nothing_local(full),
    )


def little_data_scores_worse(little: float, full: float, who: str, n_images: int) -> Claim:
    """Fig 4: the model without local heads is also the worse one. little, full: accuracies from 0 to 1."""
    return Claim(
        id="fig-4-accuracy",
        figure="4",
        section="5",
        paper="The model trained on little data also recognises much less.",
        of=who,
        parts=(
            Part("accuracy with all data minus with little", difference_of_shares(full, little, n_images), "above",
                 WORSE, "The paper says 'much worse', and gives no number.", unit="points"),
        ),
        caveat="Less data changes much besides the heads: that both fall together does not make one the cause.",
        note=f"accuracy {100 * full:.1f} % with all data, {100 * little:.1f} % with little, {n_images:,} images",
    )  # fmt: skip


def _farther(little: xr.Dataset, full: xr.Dataset, other: xr.Dataset | None, side: Side) -> tuple[Part, ...]:
    """By how much the near heads of the two lowest blocks are farther with little data, in two ways."""
    numbers: dict[str, Statistic] = {
        "nearest head": lambda h: float(_share(_low(h)).min()),
        "lower quartile of the heads": lambda h: float(_share(_low(h)).quantile(0.25)),
    }
    control: Arrays | None = None if other is None else (other, full)
    return tuple(
        Part.of(f"{words} of the two lowest blocks, little data − all data, in percent of the uniform distance",
                lambda a, b, number=number: number(a) - number(b), (little, full), side, GAP,
                "Smaller differences cannot be seen in the figure.", unit="%", control=control)
        for words, number in numbers.items()
    )  # fmt: skip


def _nothing_local(full: xr.Dataset) -> str:
    nearest = float(_share(_low(full)).min())
    return _too_small(full) or ("" if nearest <= LOCAL else f"with all data no head is within {LOCAL:g} % either")


def _too_small(heads: xr.Dataset) -> str:
    patches = heads.attrs["uniform_distance"] / heads.attrs["patch_size"]
    return "" if patches >= SMALLEST_GRID else "on a grid this small every head is as local as it is global"


def _share(distance: xr.DataArray) -> xr.DataArray:
    """In percent of the distance of uniform attention."""
    return 100 * distance / distance.attrs["uniform_distance"]


def _low(heads: xr.Dataset, name: str = "distance") -> xr.DataArray:
    return heads[name].isel(block=slice(0, 2)).assign_attrs(uniform_distance=heads.attrs["uniform_distance"])


def _high(heads: xr.Dataset, name: str = "distance") -> xr.DataArray:
    return heads[name].isel(block=slice(-2, None)).assign_attrs(uniform_distance=heads.attrs["uniform_distance"])


def _versus(little: xr.Dataset, full: xr.Dataset) -> str:
    return f"{little.attrs['model']} against {full.attrs['model']}"


def _per_block(distances: xr.DataArray) -> str:
    return "; ".join(
        f"block {int(b)} from {float(row.min()):.1f} to {float(row.max()):.1f} px"
        for b, row in zip(distances["block"], distances, strict=True)
    )


# Figure 5: groups of heads and CNN units


def local_heads_resemble_cnn(subsets: xr.Dataset, untrained: xr.Dataset) -> Claim:
    """Fig 5: similarity to the lower CNN units falls as groups of heads look farther, and places are why.

    subsets, untrained: of `attention.head_subset_similarity`.
    """
    distance = subsets["distance"]
    narrow = float(distance.max() - distance.min()) < RANGE / 100 * float(distance.max())

    def part(words: str, number: Statistic, side: Side, threshold: float, why: str, **unit: Any) -> Part:
        return Part.of(words, number, (subsets,), side, threshold, why, control=(untrained,), **unit)

    def left(of_groups: xr.Dataset) -> float:
        fall = _fall(of_groups)
        return 100 * max(_fall(of_groups, "cka_pooled"), 0) / fall if fall > 0 else np.nan

    return Claim(
        id=f"fig-5-groups-of-{subsets.attrs['size']}",
        figure="5",
        section="5",
        paper="The farther a group of heads looks, the less it resembles the lower CNN units.",
        of=f"groups of {subsets.attrs['size']} heads",
        parts=(
            part("Spearman's ρ of distance and CKA, the largest of the CNN's units",
                 lambda s: float(rank_correlations(s["distance"], s["cka"]).max()), "below", MONOTONE,
                 "The paper's lines fall without a turn: the fall must be nearly monotone for each unit."),
            part("fall of CKA from the most local to the most global group, mean over units", _fall, "above",
                 CLEAR_FALL, "By the axes of the paper's figure, its lines fall by about 0.3."),
            part("what is left of that fall when tokens are averaged", left, "below", HALF_LEFT,
                 "If CKA falls as much without places, the claim is not about looking near or far.", unit="%"),
        ),
        caveat="Global heads in block 0 are nearly uniform, so their outputs hardly vary, and CKA may fall for that "
        "reason alone: the part on averaged tokens shows it. Groups have one size, as CKA depends on how many features "
        "there are.",
        missing=f"the groups differ in distance by less than {RANGE:g} % of the largest" if narrow else "",
        note=f"distances from {float(distance.min()):.1f} to {float(distance.max()):.1f} px",
    )  # fmt: skip


def _fall(subsets: xr.Dataset, name: str = "cka") -> float:
    """CKA of the most local minus that of the most global group, mean over units."""
    cka = subsets[name]
    return float((cka.isel(subset=0, drop=True) - cka.isel(subset=-1, drop=True)).mean())


# Figures 6 and C.4: effective receptive fields
#
# Every argument is of `receptive_field.summarize`, with the layers of one kind in order: attention sub-layers or MLPs
# of the ViT, stem and units of the CNN.

_GRADIENT = "A gradient says what a small change of a pixel does, not what the layer uses; fields average over images."


def vit_sees_farther_early(
    vit: xr.Dataset, cnn: xr.Dataset, vit_untrained: xr.Dataset, cnn_untrained: xr.Dataset
) -> Claim:
    """Fig 6: in low layers the ViT's receptive field is larger."""

    def part(percent: int) -> Part:
        return Part.of(f"radius that holds {percent} % of the field, mean of the lowest third of depth, ViT / CNN",
                       lambda a, b: early_radius(a, f"radius_{percent}") / early_radius(b, f"radius_{percent}"),
                       (vit, cnn), "above", LARGER, "Smaller ratios cannot be seen in the figure.", unit="times",
                       control=(vit_untrained, cnn_untrained))  # fmt: skip

    return Claim(
        id="fig-6-early",
        figure="6",
        section="5",
        paper="In the lower layers, effective receptive fields are larger in the ViT than in the CNN.",
        parts=(part(50), part(90)),
        together="agree",
        caveat=f"No ViT place sees less than its own patch, which is {vit.attrs['side']:g} px wide here. {_GRADIENT}",
        note=", ".join(f"radius of {percent} %: ViT {early_radius(vit, f'radius_{percent}'):.1f}, "
                       f"CNN {early_radius(cnn, f'radius_{percent}'):.1f} px" for percent in (50, 90)),
    )  # fmt: skip


def vit_grows_midway(vit: xr.Dataset, cnn: xr.Dataset, vit_untrained: xr.Dataset, cnn_untrained: xr.Dataset) -> Claim:
    """Fig 6: the CNN's receptive field grows step by step, the ViT's in a jump at medium depth."""
    trained, twins = (vit, cnn), (vit_untrained, cnn_untrained)
    return Claim(
        id="fig-6-midway",
        figure="6",
        section="5",
        paper="The CNN's receptive fields grow gradually with depth; the ViT's become global in the middle.",
        parts=(
            Part.of("share of all growth in that quarter of the depth which holds most of it, ViT − CNN",
                    lambda a, b: 100 * (largest_growth(a)[0] - largest_growth(b)[0]), trained, "above", IN_A_QUARTER,
                    "Steady growth has 25 % in every quarter.", unit="points", control=twins),
            Part.of("distance of the middle of the ViT's quarter from depth ½",
                    lambda a, b: abs(largest_growth(a)[1] - 0.5), trained, "below", 0.25,
                    "The middle half of the network.", control=twins),
        ),
        caveat="Growth is that of the radius with half of the field, which a bright centre holds down. " + _GRADIENT,
    )  # fmt: skip


def centre_dominates_vit(vit: xr.Dataset, untrained: xr.Dataset) -> Claim:
    """Fig 6: ViT places depend strongly on their own patch at every depth."""
    return Claim(
        id="fig-6-centre",
        figure="6",
        section="5",
        paper="At every depth, the ViT's places depend strongly on their own patch.",
        parts=(
            Part.of("share of the field in the own patch, by the patch's share of the image, the least over depth",
                    lambda v: float(v["centre_ratio"].min(skipna=False)), (vit,), "above", CENTRE,
                    "1 is a uniform field; the centres in the paper's figure stand out clearly.", unit="times",
                    control=(untrained,)),
        ),
        caveat=_GRADIENT,
    )  # fmt: skip


def centre_comes_through_skips(
    after: xr.Dataset, before: xr.Dataset, untrained: tuple[xr.Dataset, xr.Dataset] | None = None
) -> Claim:
    """Fig C.4: before the addition, attention depends much less on the centre. untrained: (after, before)."""
    return Claim(
        id="fig-c4-attention",
        figure="C.4",
        section="C",
        paper="What attention adds depends clearly less on the centre than the residual stream does.",
        parts=(
            Part.of("share of the field in the own patch, after the addition − before it, median over blocks", _shift,
                    (after, before), "above", SHIFT, "A smaller part of the field cannot be seen in the figure.",
                    unit="points", control=untrained),
        ),
        caveat=_GRADIENT,
    )  # fmt: skip


def others_keep_centre(after: Mapping[str, xr.Dataset], before: Mapping[str, xr.Dataset]) -> Claim:
    """Fig C.4: for the ViT's MLPs and the CNN's units it makes little difference."""
    return Claim(
        id="fig-c4-others",
        figure="C.4",
        section="C",
        paper="For MLPs and for the units of a CNN, the addition makes little difference.",
        parts=tuple(
            Part.of(f"change of the share in the own patch from before to after the addition, median, {name}",
                    lambda a, b: abs(_shift(a, b)), (after[name], before[name]), "below", SHIFT,
                    "A smaller part of the field cannot be seen in the figure.", unit="points")
            for name in after
        ),
        caveat="A unit that opens a stage of a CNN has a projected skip and differs: hence medians. " + _GRADIENT,
    )  # fmt: skip


def _shift(after: xr.Dataset, before: xr.Dataset) -> float:
    return 100 * (share_of_centre(after) - share_of_centre(before))
