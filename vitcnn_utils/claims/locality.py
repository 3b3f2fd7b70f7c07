"""Section 5 of the paper: attention distance, groups of heads, effective receptive fields (Figs 3 to 6).

The paper gives no thresholds: all are ours. Distances are judged as percent of the distance of uniform attention, so
that a rule means the same at any image size. Controls are given by name, see `ledger.Controls`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import (
    CANNOT,
    FAILS,
    HOLDS,
    NO_CLASSES,
    UNDECIDED,
    Arrays,
    Claim,
    Controls,
    Part,
    whole,
)
from vitcnn_utils.claims.words import cause, direction, effect_of_training, minus, moves, shown
from vitcnn_utils.measures.accuracy import points_ahead
from vitcnn_utils.measures.attention import rank_correlations
from vitcnn_utils.measures.receptive_field import centre_shift, early_radius, largest_growth, late_radius

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
WIDE = 80.0
"""Percent of the radius of a uniform field from which on a receptive field is called global."""
SHIFT = 5.0
"""Percentage points of the field from which on two shares of the centre are called different."""

Side = Literal["above", "below"]
Statistic = Callable[..., float]
Sizes = tuple[xr.Dataset, xr.Dataset]


def _claim(name: str, figure: str, paper: str, parts: tuple[Part, ...], section: str = "5", **more: Any) -> Claim:
    return Claim(id=name, figure=figure, section=section, paper=paper, parts=parts, **more)


# Figures 3 and 4: attention distance. All take `attention.head_distances`.

_CLS_MASS = (
    "Attention that goes to the CLS token counts as distance 0, as in the public code for this measure: a head that "
    "rests there looks nearer than it is. Uniform attention counts as global, though it picks nothing."
)
_OF_UNIFORM = "in percent of the distance of uniform attention"


def head_claims(heads: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> list[Claim]:
    """The claims of Fig 3: the lowest blocks mix local and global heads, the highest are entirely global."""
    others = Controls.of(controls)
    common = {"second": others.second_name, "caveat": _CLS_MASS, "missing": _too_small(heads)}

    def part(words: str, number: Statistic, side: Side, threshold: float, why: str) -> Part:
        return Part.of(f"{words}, {_OF_UNIFORM}", number, (heads,), side, threshold, why, unit="%",
                       **others.with_others())  # fmt: skip

    def nearest_of_high(words: str, name: str) -> Part:
        return part(f"nearest head of the two highest blocks, {words}", lambda h: float(_share(_high(h, name)).min()),
                    "above", GLOBAL, "All heads must be global, so the nearest of them.")  # fmt: skip

    low = {"": heads} if others.untrained is None else {"": heads, "; untrained: ": others.untrained}
    return [
        _claim(
            "fig-3-mix", "3", "The lowest blocks have heads that attend locally next to heads that attend globally.",
            (
                part("the nearest head of each of the two lowest blocks, the farther of the two",
                     lambda h: float(_share(_low(h)).min("head").max()), "below", LOCAL,
                     "A head that looks at its patch and the eight around it has 13 to 28 % at the paper's sizes."),
                part("the farthest head of each of the two lowest blocks, the nearer of the two",
                     lambda h: float(_share(_low(h)).max("head").min()), "above", GLOBAL,
                     "Heads that look everywhere alike have 100 %, less what goes to the CLS token."),
            ),
            note="".join(title + _per_block(_low(whole(h))) for title, h in low.items()), **common,
        ),
        _claim(
            "fig-3-global", "3", "All heads of the two highest blocks are global.",
            (
                nearest_of_high("attention to the CLS token counted as distance 0", "distance"),
                nearest_of_high("renormalised without it", "distance_renormalized"),
            ),
            together="agree",
            note=f"{float(_high(whole(heads), 'prefix_mass').mean()):.0%} of the attention of these blocks goes to "
            "prefix tokens", **common,
        ),
    ]  # fmt: skip


def head_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 3, from `head_claims`, in sentences."""
    mix, high = claims
    if mix.verdict == CANNOT:
        return ""
    near, far = mix.parts
    counted, renormalised = high.parts
    is_local, is_global = (part.says(part.estimate) == HOLDS for part in mix.parts)
    kinds = {
        (True, True): "local and global heads side by side",
        (True, False): "local heads, and none that are global",
        (False, True): "global heads, and none that are local",
        (False, False): "neither local nor global heads",
    }
    token = minus(renormalised.estimate, counted.estimate).value
    return (
        f"Each of the two lowest blocks has a head at {shown(near)} of the uniform distance or nearer and one at "
        f"{shown(far)} or farther: {kinds[is_local, is_global]}{effect_of_training(near)}. In the two highest blocks "
        f"the nearest head is at {shown(counted)}, and at {shown(renormalised)} once attention to the CLS token is "
        f"left out: the token makes a difference of {token:z.1f} points. "
        + cause({"local heads next to global ones, low": mix, "global heads alone, high": high})
    )  # fmt: skip


LITTLE, ALL, AGAIN = "little data", "all data", "another start"
"""Labels of the models of Fig 4: twins that saw little data and all of it, and one that saw all from another start."""


def little_data_claims(heads: Mapping[str, xr.Dataset], guesses: Mapping[str, xr.DataArray]) -> list[Claim]:
    """The claims of Fig 4 on models by `LITTLE`, `ALL` and, where there is one, `AGAIN`; none where there are none.

    guesses: of `accuracy.right_guesses`; empty where the images have no labels that the models know.
    """
    if not heads:
        return []
    return [_little_data(heads[LITTLE], heads[ALL], heads.get(AGAIN)), _accuracy(guesses)]


def small_model_claims(series: Mapping[str, xr.Dataset]) -> list[Claim]:
    """The claim of Fig C.5 on smaller ViTs by what they saw: least, …, all data, and untrained; none without them."""
    if not series:
        return []
    least, *_, most, untrained = series.values()
    return [_small_model(least, most, untrained)]


def _little_data(little: xr.Dataset, full: xr.Dataset, other: xr.Dataset | None) -> Claim:
    """Fig 4: without much data the lowest blocks do not learn to attend locally. other: for what chance may do."""
    return _claim(
        "fig-4-little-data", "4", "Trained on little data, the lowest blocks do not learn to attend locally.",
        _farther(little, full, other, "above", chance=True), of=_versus(little, full), together="agree",
        control="another start with all data", uncontrolled="There is no other start with all data here.",
        caveat="One training each: what another start changes is the control, where there is one.",
        missing=_nothing_local(full),
    )  # fmt: skip


def _small_model(little: xr.Dataset, full: xr.Dataset, untrained: xr.Dataset) -> Claim:
    """Fig C.5: a smaller ViT learns local heads from little data too; the same numbers, the opposite outcome.

    untrained: the smaller ViT before training, in the place of the one that saw little data.
    """
    return _claim(
        "fig-4-small-model", "4", "A smaller ViT learns to attend locally from little data too.",
        _farther(little, full, untrained, "below"), section="5, C.5", of=_versus(little, full), together="agree",
        caveat="That nothing is lost is said of one training each.", missing=_nothing_local(full),
    )  # fmt: skip


def _accuracy(guesses: Mapping[str, xr.DataArray]) -> Claim:
    """Fig 4: the model without local heads is also the worse one. guesses: as for `little_data_claims`."""
    parts: tuple[Part, ...] = ()
    note = ""
    if guesses:
        little, full, other = guesses[LITTLE], guesses[ALL], guesses.get(AGAIN)
        parts = (
            Part.of("accuracy with all data minus with little", points_ahead, (full, little), "above", WORSE,
                    "The paper says 'much worse', and gives no number.", unit="points",
                    control=None if other is None else (full, other), chance=True),
        )  # fmt: skip
        note = (
            f"accuracy {100 * float(full.mean()):.1f} % with all data, {100 * float(little.mean()):.1f} % with little"
        )
    return _claim(
        "fig-4-accuracy", "4", "The model trained on little data also recognises much less.", parts,
        of=_versus(little, full) if guesses else "", control="another start with all data",
        uncontrolled="There is no other start with all data here.",
        caveat="Less data changes much besides the heads: that both fall together does not make one the cause.",
        missing="" if guesses else NO_CLASSES, note=note,
    )  # fmt: skip


def data_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 4, from its claims, in sentences."""
    by_id = {claim.id: claim for claim in claims}
    heads, accuracy, small = (by_id.get(f"fig-4-{name}") for name in ("little-data", "accuracy", "small-model"))
    said, open_ = [], dict[str, list[str]]()
    for claim, who in ((heads, "the ViT"), (small, "the smaller ViT")):
        if claim and claim.verdict != CANNOT:
            near = claim.parts[0]
            moved = direction(near.estimate, "farther", "nearer", "no farther")
            chance = near.control if claim is heads else None
            start = f" (another start moves it by {near.words(chance.value)})" if chance else ""
            said.append(f"With little data the nearest head of the lowest blocks of {who} looks {moved}, by "
                        f"{near.words(abs(near.estimate.value))} of the uniform distance{start}.")  # fmt: skip
        elif claim:
            open_.setdefault(claim.reason, []).append(who)
    for reason, of in open_.items():
        said.append(f"Whether little data takes local heads from {' and from '.join(of)} cannot be asked: {reason}.")
    if accuracy and not accuracy.missing:
        loss = accuracy.parts[0]
        both = {HOLDS: ", and locality falls with it", FAILS: ", though the heads look as near as with all data"}
        with_heads = both.get(heads.verdict, "") if heads and loss.says(loss.estimate) == HOLDS else ""
        said.append(f"Little data costs {shown(loss)} of accuracy{with_heads}.")
    return " ".join(said)


def _farther(
    little: xr.Dataset, full: xr.Dataset, other: xr.Dataset | None, side: Side, chance: bool = False
) -> tuple[Part, ...]:
    """By how much the near heads of the two lowest blocks are farther with little data, in two ways."""
    numbers: dict[str, Statistic] = {
        "nearest head": lambda h: float(_share(_low(h)).min()),
        "lower quartile of the heads": lambda h: float(_share(_low(h)).quantile(0.25)),
    }
    control: Arrays | None = None if other is None else (other, full)
    return tuple(
        Part.of(f"{words} of the two lowest blocks, little data − all data, in percent of the uniform distance",
                lambda a, b, number=number: number(a) - number(b), (little, full), side, GAP,
                "Smaller differences cannot be seen in the figure.", unit="%", control=control, chance=chance)
        for words, number in numbers.items()
    )  # fmt: skip


def _nothing_local(full: xr.Dataset) -> str:
    nearest = float(_share(_low(whole(full))).min())
    return _too_small(full) or (
        "" if nearest <= LOCAL else f"with all data, too, no head looks nearer than {LOCAL:g} % of the uniform distance"
    )


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


def _versus(little: xr.Dataset | xr.DataArray, full: xr.Dataset | xr.DataArray) -> str:
    return f"{little.attrs['model']} against {full.attrs['model']}"


def _per_block(distances: xr.DataArray) -> str:
    return "; ".join(
        f"block {int(b)} from {float(row.min()):.1f} to {float(row.max()):.1f} px"
        for b, row in zip(distances["block"], distances, strict=True)
    )


# Figure 5: groups of heads and CNN units


def subset_claims(subsets: Mapping[int, xr.Dataset], controls: Mapping[str, Mapping[int, xr.Dataset]]) -> list[Claim]:
    """Fig 5: similarity to the lower CNN units falls as groups of heads look farther, and places are why.

    subsets: of `attention.head_subset_similarity`, a claim for each size; controls: name -> the same.
    """
    return [
        _subset_claim(of_size, {name: others[size] for name, others in controls.items()})
        for size, of_size in subsets.items()
    ]


def _subset_claim(subsets: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> Claim:
    distance, others = subsets["distance"], Controls.of(controls)
    narrow = float(distance.max() - distance.min()) < RANGE / 100 * float(distance.max())

    def part(words: str, number: Statistic, side: Side, threshold: float, why: str, **unit: Any) -> Part:
        return Part.of(words, number, (subsets,), side, threshold, why, **unit, **others.with_others())

    def left(of_groups: xr.Dataset) -> float:
        fall = _fall(of_groups)
        return 100 * max(_fall(of_groups, "cka_pooled"), 0) / fall if fall > 0 else np.nan

    return _claim(
        f"fig-5-groups-of-{subsets.attrs['size']}", "5",
        "The farther a group of heads looks, the less it resembles the lower CNN units.",
        (
            part("Spearman's ρ of distance and CKA, the largest of the CNN's units",
                 lambda s: float(rank_correlations(s["distance"], s["cka"]).max()), "below", MONOTONE,
                 "The paper's lines fall without a turn: the fall must be nearly monotone for each unit."),
            part("fall of CKA from the most local to the most global group, mean over units", _fall, "above",
                 CLEAR_FALL, "By the axes of the paper's figure, its lines fall by about 0.3."),
            part("what is left of that fall when tokens are averaged", left, "below", HALF_LEFT,
                 "If CKA falls as much without places, the claim is not about looking near or far.", unit="%"),
        ),
        of=f"groups of {subsets.attrs['size']} heads", second=others.second_name,
        caveat="Global heads in block 0 are nearly uniform, so their outputs hardly vary, and CKA may fall for that "
        "reason alone: the part on averaged tokens shows it. Groups have one size, as CKA depends on how many features "
        "there are.",
        missing=f"the groups differ in distance by less than {RANGE:g} % of the largest" if narrow else "",
        note=f"distances from {float(distance.min()):.1f} to {float(distance.max()):.1f} px",
    )  # fmt: skip


def subset_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 5, from `subset_claims`, in sentences."""
    said = []
    for claim in claims:
        _, fall, left = claim.parts
        if not np.isfinite(fall.estimate.value):
            continue
        about = {HOLDS: "so the fall is about places", FAILS: "so the fall is not about places",
                 UNDECIDED: "which does not tell whether it is about places"}  # fmt: skip
        averaged = "" if not np.isfinite(left.estimate.value) else (
            f"; with tokens averaged {shown(left)} of it is left, {about[left.says(left.estimate)]}"
        )  # fmt: skip
        said.append(f"From the {claim.of} that look nearest to those that look farthest, CKA with the CNN "
                    f"{moves(fall)}{averaged}{effect_of_training(fall)}.")  # fmt: skip
    missing = [f"the {claim.of}" for claim in claims if claim.missing]
    if missing:
        said.append(f"Yet {' and '.join(missing)} span too small a distance to be called local and global.")
    return " ".join(said)


def _fall(subsets: xr.Dataset, name: str = "cka") -> float:
    """CKA of the most local minus that of the most global group, mean over units."""
    cka = subsets[name]
    return float((cka.isel(subset=0, drop=True) - cka.isel(subset=-1, drop=True)).mean())


# Figures 6 and C.4: effective receptive fields
#
# Every argument is of `receptive_field.summarize`, with the layers of one kind in order: attention sub-layers or MLPs
# of the ViT, stem and units of the CNN.

_GRADIENT = "A gradient says what a small change of a pixel does, not what the layer uses; fields average over images."


def field_claims(vit: xr.Dataset, cnn: xr.Dataset, controls: Mapping[str, Sizes]) -> list[Claim]:
    """The claims of Fig 6; controls: name -> the sizes of the ViT's fields and of the CNN's.

    In low layers the ViT sees farther; the CNN's fields grow step by step, the ViT's in a jump at medium depth; and
    the ViT's places depend strongly on their own patch at every depth.
    """
    others = Controls.of(controls)
    of_vit = Controls.of({name: pair[0] for name, pair in controls.items()})

    def part(words: str, number: Statistic, side: Side, threshold: float, why: str, unit: str = "") -> Part:
        return Part.of(words, number, (vit, cnn), side, threshold, why, unit, **others.with_others())

    def early(percent: int) -> Part:
        return part(f"radius that holds {percent} % of the field, mean of the lowest third of depth, ViT / CNN",
                    lambda a, b: early_radius(a, f"radius_{percent}") / early_radius(b, f"radius_{percent}"),
                    "above", LARGER, "Smaller ratios cannot be seen in the figure.", "times")  # fmt: skip

    return [
        _claim(
            "fig-6-early", "6",
            "In the lower layers, effective receptive fields are larger in the ViT than in the CNN.",
            (early(50), early(90)), together="agree", second=others.second_name,
            caveat=f"No ViT place sees less than its own patch, which is {vit.attrs['side']:g} px wide here. "
            + _GRADIENT,
        ),
        _claim(
            "fig-6-midway", "6",
            "The CNN's receptive fields grow gradually with depth; the ViT's jump at medium depth and become global.",
            (
                part("share of all growth in that quarter of the depth which holds most of it, ViT − CNN",
                     lambda a, b: 100 * (largest_growth(a)[0] - largest_growth(b)[0]), "above", IN_A_QUARTER,
                     "Steady growth has 25 % in every quarter.", "points"),
                part("distance of the middle of the ViT's quarter from depth ½",
                     lambda a, b: abs(largest_growth(a)[1] - 0.5), "below", 0.25, "The middle half of the network."),
                part("radius that holds 90 % of the field, mean of the ViT's upper half, by that of a uniform field",
                     lambda a, b: late_radius(a), "above", WIDE, "Global is nearly as wide as a uniform field.", "%"),
            ),
            second=others.second_name,
            caveat="Growth is that of the radius with half of the field, which a bright centre holds down. "
            + _GRADIENT,
        ),
        _claim(
            "fig-6-centre", "6", "At every depth, the ViT's places depend strongly on their own patch.",
            (Part.of("share of the field in the own patch, by the patch's share of the image, the least over depth",
                     lambda v: float(v["centre_ratio"].min(skipna=False)), (vit,), "above", CENTRE,
                     "1 is a uniform field; the centres in the paper's figure stand out clearly.", unit="times",
                     **of_vit.with_others()),),
            second=others.second_name, caveat=_GRADIENT,
        ),
    ]  # fmt: skip


def field_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig 6, from `field_claims`, in sentences."""
    early, midway, centre = claims
    said = []
    if early.verdict != CANNOT:
        half, most = early.parts
        said.append(f"In the lowest third of the depth, a disc with half of the field is {shown(half)} as wide in the "
                    f"ViT as in the CNN, one with 90 % of it {shown(most)}{effect_of_training(half)}.")  # fmt: skip
    if centre.verdict != CANNOT:
        own = centre.parts[0]
        said.append(f"The own patch of a ViT's place has at least {shown(own)} its share of the image at every depth"
                    f"{effect_of_training(own)}.")  # fmt: skip
    rows = {"larger fields in the ViT's low layers": early, "growth in the middle of the ViT": midway,
            "the bright centre": centre}  # fmt: skip
    return " ".join([*said, cause(rows)])


def addition_claims(pairs: Mapping[str, Sizes], untrained: Mapping[str, Sizes]) -> list[Claim]:
    """Fig C.4: before the addition, attention depends much less on the centre; MLPs and CNN units, hardly less.

    pairs, untrained: 'attention', 'MLP' and 'CNN unit' -> sizes of the fields after and before the addition.
    """

    def part(words: str, number: Statistic, name: str, side: Side) -> Part:
        return Part.of(f"{words} of the share of the field in the own patch, after − before the addition, median over "
                       f"blocks, {name}", number, pairs[name], side, SHIFT,
                       "A smaller part of the field cannot be seen in the figure.", unit="points",
                       control=untrained[name])  # fmt: skip

    return [
        _claim(
            "fig-c4-attention", "C.4",
            "What attention adds depends clearly less on the centre than the residual stream does.",
            (part("difference", centre_shift, "attention", "above"),), section="C", caveat=_GRADIENT,
        ),
        _claim(
            "fig-c4-others", "C.4", "For MLPs and for the units of a CNN, the addition makes little difference.",
            tuple(part("size of the difference", lambda a, b: abs(centre_shift(a, b)), name, "below")
                  for name in pairs if name != "attention"),
            section="C",
            caveat="A unit that opens a stage of a CNN has a projected skip and differs: hence medians. " + _GRADIENT,
        ),
    ]  # fmt: skip


def addition_words(claims: Sequence[Claim]) -> str:
    """What these models show in Fig C.4, from `addition_claims`, in sentences."""
    attention, others = claims
    if attention.verdict == CANNOT:
        return ""
    shift = attention.parts[0]
    sizes = [f"{part.statistic.rsplit(', ', 1)[-1]} {shown(part)}" for part in others.parts]
    carried = direction(minus(shift.estimate, max(others.parts, key=lambda part: part.estimate.value).estimate),
                        "attention is where the skip carries the centre most", "it is not attention where the skip "
                        "carries the centre most", "attention does not stand out")  # fmt: skip
    return (
        f"After the addition of attention the own patch holds {shown(shift)} more of the field than before it"
        f"{effect_of_training(shift)}. Elsewhere the share moves by: {', '.join(sizes)}; {carried}."
    )
