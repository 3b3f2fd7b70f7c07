"""Claims of section 5 of the paper: attention distance, head subsets, effective receptive fields (Figs 3-6).

Every threshold here is this project's own; the paper gives none. Distances are judged as shares of the distance of
uniform attention, so that rules mean the same at any image size.
"""

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim
from vitcnn_utils.measures.attention import rank_correlations

LOCAL, GLOBAL = 0.4, 0.6
"""A head is called local up to, and global from, this share of the distance of uniform attention."""
GAP = 0.05
"""Distances that differ by less than this share of the uniform distance are called equal."""
MONOTONE = -0.8
"""Spearman's rho up to which similarity is said to fall with distance."""
WORSE = 0.05
"""Share of images that a model must name wrongly more often to be called worse."""
CLEAR_DROP = 0.1
"""The fall in CKA from the most local to the most global heads that is worth a statement."""
RANGE = 0.2
"""Groups of heads must differ in distance by this share of the largest, or there is no 'local' and 'global'."""
LARGER = 1.2
"""The ratio from which on one receptive field is called larger than another."""
CENTRE_RATIO = 3
"""From so many times its share of the image on, a patch is said to dominate a receptive field."""
CENTRE_SHIFT = 0.05
"""Shares of the centre that differ by less are called equal."""


# --- Figs 3 and 4: attention distance -----------------------------------------------------------------------


def low_blocks_mix(heads: xr.Dataset, control: xr.Dataset) -> Claim:
    """Fig 3: the lowest blocks have local and global heads side by side.

    heads, control: of `attention.head_distances`, of the trained model and of its untrained twin.
    """
    uniform = heads.attrs["uniform_distance"]
    low = _low(heads)
    mixed = bool(((low.min("head") <= LOCAL * uniform) & (low.max("head") >= GLOBAL * uniform)).all())
    return Claim(
        "The lowest blocks have heads that attend locally next to heads that attend globally.",
        f"{_per_block(low)}; uniform attention: {uniform:.1f} px",
        mixed,
        f"in both of the two lowest blocks the nearest head is at most {LOCAL} and the farthest at least {GLOBAL} "
        "times as far as uniform attention",
        f"untrained: {_per_block(_low(control))}",
    )


def high_blocks_are_global(heads: xr.Dataset, control: xr.Dataset) -> Claim:
    """Fig 3: the two highest blocks are entirely global. Undecided where the two conventions disagree."""
    uniform = heads.attrs["uniform_distance"]
    nearest = {name: float(_high(heads, name).min()) for name in ("distance", "distance_renormalized")}
    verdicts = {value >= GLOBAL * uniform for value in nearest.values()}
    mass = float(_high(heads, "prefix_mass").mean())
    return Claim(
        "All heads of the two highest blocks are global.",
        f"the nearest head reaches {nearest['distance']:.1f} px, {nearest['distance_renormalized']:.1f} px after "
        f"renormalising; {mass:.0%} of the attention goes to the CLS token; uniform attention: {uniform:.1f} px",
        verdicts.pop() if len(verdicts) == 1 else None,
        f"every head at least {GLOBAL} times as far as uniform attention, in both conventions; undecided if only in "
        "one",
        f"untrained: the nearest head reaches {float(_high(control).min()):.1f} px, so being global takes no training",
    )


def little_data_hides_locality(little: xr.Dataset, full: xr.Dataset, other: xr.Dataset | None) -> Claim:
    """Fig 4: without much data the lowest blocks do not learn to attend locally.

    little, full: of `attention.head_distances`, of twins trained for equally many steps. other: of a model that saw all
    data from another start, for what chance alone may do, if there is one.
    """
    few, all_ = _nearest_and_quartile(little), _nearest_and_quartile(full)
    return Claim(
        f"Trained on little data, the lowest blocks do not learn to attend locally ({_versus(little, full)}).",
        f"little data: {_describe(few)}; all data: {_describe(all_)}",
        _lost_locality(few, all_, full.attrs["uniform_distance"]),
        _LOST,
        "" if other is None else f"all data, {other.attrs['model']}: {_describe(_nearest_and_quartile(other))}",
    )


def little_data_scores_worse(little: float, full: float, who: str) -> Claim:
    """Fig 4: the model without local heads is also the worse one. little, full: accuracies, shares of images."""
    return Claim(
        f"The model trained on little data also recognises much less ({who}).",
        f"accuracy {little:.1%} with little data, {full:.1%} with all data",
        full - little >= WORSE,
        f"a difference of at least {WORSE:.0%} of the images",
    )


def small_model_keeps_locality(little: xr.Dataset, full: xr.Dataset) -> Claim:
    """Fig C.5: a smaller ViT learns local heads from little data too; the same rule, the opposite outcome."""
    few, all_ = _nearest_and_quartile(little), _nearest_and_quartile(full)
    lost = _lost_locality(few, all_, full.attrs["uniform_distance"])
    return Claim(
        f"A smaller ViT learns to attend locally from little data too ({_versus(little, full)}).",
        f"little data: {_describe(few)}; all data: {_describe(all_)}",
        None if lost is None else not lost,
        "the rule for the larger model is not met; undecided as there",
    )


_LOST = (
    "in the two lowest blocks, both the nearest head and the lower quartile of the heads are farther with little "
    "data, by "
    f"at least {GAP} of the uniform distance; undecided if only one is, or if all data give no head within {LOCAL} of "
    "it"
)


def _lost_locality(few: tuple[float, float], all_: tuple[float, float], uniform: float) -> bool | None:
    if all_[0] > LOCAL * uniform:
        return None
    farther = {a - b >= GAP * uniform for a, b in zip(few, all_, strict=True)}
    return farther.pop() if len(farther) == 1 else None


def _nearest_and_quartile(heads: xr.Dataset) -> tuple[float, float]:
    low = _low(heads)
    return float(low.min()), float(low.quantile(0.25))


def _describe(values: tuple[float, float]) -> str:
    return f"nearest head {values[0]:.1f} px, lower quartile {values[1]:.1f} px"


def _versus(little: xr.Dataset, full: xr.Dataset) -> str:
    return f"{little.attrs['model']} against {full.attrs['model']}"


def _low(heads: xr.Dataset, name: str = "distance") -> xr.DataArray:
    return heads[name].isel(block=slice(0, 2))


def _high(heads: xr.Dataset, name: str = "distance") -> xr.DataArray:
    return heads[name].isel(block=slice(-2, None))


def _per_block(distances: xr.DataArray) -> str:
    return "; ".join(
        f"block {int(b)}: heads from {float(row.min()):.1f} to {float(row.max()):.1f} px"
        for b, row in zip(distances["block"], distances, strict=True)
    )


# --- Fig 5: groups of heads and CNN units -------------------------------------------------------------------


def local_heads_resemble_cnn(subsets: xr.Dataset, untrained: xr.Dataset) -> Claim:
    """Fig 5: similarity to the lower CNN units falls as groups of heads look farther.

    subsets, untrained: of `attention.head_subset_similarity`. Undecided where heads hardly differ in distance, where
    CKA falls by too little, and where the untrained twin meets the rule as well.
    """
    (rho, fall), (rho_control, fall_control) = _rho_and_fall(subsets), _rho_and_fall(untrained)
    pooled = _rho_and_fall(subsets, "cka_pooled")[1]
    distance = subsets["distance"]
    verdict = _falls(subsets)
    return Claim(
        "The farther a group of heads looks, the less it resembles the lower CNN units "
        f"(groups of {subsets.attrs['size']}).",
        f"as the distance goes from {float(distance.min()):.1f} to {float(distance.max()):.1f} px, CKA falls by "
        f"{_span(fall)} ({_span(pooled)} with tokens averaged); Spearman's ρ {_span(rho)} over {len(rho)} units",
        None if verdict and _falls(untrained) else verdict,
        f"ρ at most {MONOTONE} for every unit and a mean fall of at least {CLEAR_DROP}; undecided if the groups "
        "differ by "
        f"less than {RANGE} of the largest distance, if the fall is smaller, or if the untrained ViT meets the rule "
        "too",
        f"untrained: CKA falls by {_span(fall_control)}; ρ {_span(rho_control)}",
    )


def _falls(subsets: xr.Dataset) -> bool | None:
    rho, fall = _rho_and_fall(subsets)
    distance = subsets["distance"]
    if float(distance.max() - distance.min()) < RANGE * float(distance.max()):
        return None
    if float(rho.max()) > MONOTONE:
        return False
    return True if float(fall.mean()) >= CLEAR_DROP else None


def _rho_and_fall(subsets: xr.Dataset, name: str = "cka") -> tuple[xr.DataArray, xr.DataArray]:
    """Of each unit: rank correlation, and CKA of the most local minus that of the most global group."""
    cka = subsets[name]
    fall = cka.isel(subset=0, drop=True) - cka.isel(subset=-1, drop=True)
    return rank_correlations(subsets["distance"], cka), fall


def _span(values: xr.DataArray) -> str:
    return f"{float(values.min()):.2f} to {float(values.max()):.2f}"


# --- Figs 6 and C.4: effective receptive fields -------------------------------------------------------------
#
# Every argument is of `receptive_field.summarize`, with the layers of one kind in order: attention sub-layers or MLPs
# of the ViT, stem and units of the CNN.


def vit_sees_farther_early(
    vit: xr.Dataset, cnn: xr.Dataset, vit_untrained: xr.Dataset, cnn_untrained: xr.Dataset
) -> Claim:
    """Fig 6: in low layers the ViT's receptive field is larger. Undecided where the two radii disagree."""
    names = ("radius_50", "radius_90")
    larger = {_early(vit, name) >= LARGER * _early(cnn, name) for name in names}
    numbers, control = (
        ", ".join(f"{_early(a, n):.1f} against {_early(b, n):.1f} px for {n[-2:]} % of the field" for n in names)
        for a, b in ((vit, cnn), (vit_untrained, cnn_untrained))
    )
    return Claim(
        "In the lower layers, effective receptive fields are larger in the ViT than in the CNN.",
        f"mean radius in the lowest third of the depth, ViT against CNN: {numbers}",
        larger.pop() if len(larger) == 1 else None,
        f"both radii at least {LARGER} times as large; undecided if only one is",
        f"untrained: {control} (a patch is {vit.attrs['side']:g} px wide, so no ViT place sees less)",
    )


def vit_grows_midway(vit: xr.Dataset, cnn: xr.Dataset) -> Claim:
    """Fig 6: the CNN's receptive field grows step by step, the ViT's in a jump at medium depth."""
    (vit_share, vit_depth), (cnn_share, cnn_depth) = _largest_step(vit), _largest_step(cnn)
    undecided = np.isnan(vit_share) or np.isnan(cnn_share)
    return Claim(
        "The CNN's receptive fields grow gradually with depth; the ViT's become global in the middle of the network.",
        f"the largest single step makes {vit_share:.0%} of the ViT's growth (at depth {vit_depth:.2f}) and "
        f"{cnn_share:.0%} of "
        f"the CNN's (at depth {cnn_depth:.2f}), in terms of the radius with half the field",
        None if undecided else vit_share >= LARGER * cnn_share and 0.25 <= vit_depth <= 0.75,
        f"the ViT's largest step is at least {LARGER} times the CNN's, as a share of the growth, and lies between "
        "depth 0.25 and 0.75; undecided if a model does not grow at all",
    )


def centre_dominates_vit(vit: xr.Dataset, untrained: xr.Dataset) -> Claim:
    """Fig 6: ViT places depend strongly on their own patch at every depth."""
    ratio = vit["centre_ratio"]
    return Claim(
        "At every depth, the ViT's places depend strongly on their own patch.",
        f"the own patch holds {float(ratio.min()):.1f} to {float(ratio.max()):.1f} times its share of the image",
        bool((ratio >= CENTRE_RATIO).all()),
        f"at least {CENTRE_RATIO} times its share of the image after every attention sub-layer",
        f"untrained: {float(untrained['centre_ratio'].min()):.1f} to {float(untrained['centre_ratio'].max()):.1f} "
        "times",
    )


def centre_comes_through_skips(after: xr.Dataset, before: xr.Dataset) -> Claim:
    """Fig C.4: before the addition, attention depends much less on the centre: the skip carries it."""
    return Claim(
        "What attention adds depends clearly less on the centre than the residual stream does: the skip carries the "
        "centre.",
        f"the patch's share of the field is {_centre(before):.2f} before the addition and {_centre(after):.2f} after "
        "it, the median over blocks",
        _shift(after, before) >= CENTRE_SHIFT,
        f"the median share is smaller by at least {CENTRE_SHIFT} before the addition",
    )


def others_keep_centre(after: dict[str, xr.Dataset], before: dict[str, xr.Dataset]) -> Claim:
    """Fig C.4: for the ViT's MLPs and the CNN's units it makes no difference. Undecided where they disagree."""
    shifts = {name: _shift(after[name], before[name]) for name in after}
    same = {abs(shift) < CENTRE_SHIFT for shift in shifts.values()}
    return Claim(
        "For MLPs and for the units of a CNN, the addition makes little difference.",
        "from before to after, the median share of the centre changes by "
        + ", ".join(f"{shift:+.2f} ({name})" for name, shift in shifts.items()),
        same.pop() if len(same) == 1 else None,
        f"a change of less than {CENTRE_SHIFT} for all; undecided if only for some",
    )


def _early(summary: xr.Dataset, name: str) -> float:
    return float(summary[name].where(summary["depth"] <= 1 / 3, drop=True).mean())


def _largest_step(summary: xr.Dataset) -> tuple[float, float]:
    """The largest growth of the radius from one layer to the next as a share of all growth, and its depth, or NaN."""
    radius, depth = summary["radius_50"].values, summary["depth"].values
    steps, growth = np.diff(radius), radius.max() - radius[0]
    if growth <= 0:
        return float("nan"), float("nan")
    largest = int(np.argmax(steps))
    return float(steps[largest] / growth), float(depth[largest : largest + 2].mean())


def _shift(after: xr.Dataset, before: xr.Dataset) -> float:
    return _centre(after) - _centre(before)


def _centre(summary: xr.Dataset) -> float:
    """Not the mean: a unit that opens a CNN's stage has a projected shortcut and would weigh heavily."""
    return float(summary["centre_mass"].median())
