"""The claims of chapters 1 to 5, each with arrays that satisfy it, that break it, and that lack what it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from made import (
    HIGH_THEN_LOW,
    LOW_THEN_HIGH,
    cnn_ratios,
    divided,
    elsewhere,
    layers,
    probe_curves,
    subsets_of,
    token_map,
    vit_ratios,
)  # fmt: skip
from similarity_maps import PAPER, by_distance, constant, curves, grid, probes, ridge, similarity, staged

from vitcnn_utils.claims import locality, localization, scale, skips, structure
from vitcnn_utils.claims.ledger import Claim
from vitcnn_utils.measures.cka import CEILING, FLOOR

Arrays = tuple[Any, ...]
Controls = Mapping[str, Arrays]


@dataclass(frozen=True)
class Case:
    """A claim, asked by `claim(arrays, controls)`; controls: 'untrained' and 'second seed' -> the same arrays.

    lacking: arrays of which it cannot be asked. close: such that it is too close to call, where `mixed` cannot make
    them. also_bad: other ways to break it. second: whether a second training can turn it.
    """

    claim: Callable[[Arrays, Controls], Claim]
    good: Arrays
    bad: Arrays
    lacking: tuple[Arrays, ...] = ()
    close: Arrays | None = None
    also_bad: tuple[Arrays, ...] = ()
    second: bool = False


def mixed(good: Arrays, bad: Arrays) -> Arrays:
    """Arrays of a measure that depends on which images are left out: good, or bad without every other part of them."""
    return tuple(
        xr.concat([a, a, b, a, b], xr.Variable("left_out", range(-1, 4)), coords="minimal", compat="override",
                  join="override")
        for a, b in zip(good, bad, strict=True)
    )  # fmt: skip


def unknown(*arrays: Any) -> Arrays:
    """The same arrays without any number."""
    return tuple(xr.full_like(array, np.nan) for array in arrays)


def maps(arrays: Arrays, count: slice | int) -> Any:
    return {name: found[count] for name, found in arrays.items()}


# Chapter 1: maps of CKA

VIT_LIKE = (grid(0.9, 0.8), staged(0.9, 0.2))
ALIKE = (by_distance(0.5), similarity(by_distance(0.5).values, stages=2))
STAGELESS = (VIT_LIKE[0], similarity(staged(0.9, 0.2).values))
BLOCKS = (similarity(by_distance(0.5, 8).values, kinds=("block",)),) * 2
REVERSED = ridge(lambda d: 1 - d, constant)
LATE = ridge(lambda d: 0.5 + 0.5 * d, constant)
FADING = ridge(lambda d: 0.6 * d, lambda depth: np.where(depth < 2 / 3, 1, 0.3))
EVEN_MAP = PAPER * 0 + 0.5
WITHOUT_STAGES = PAPER.assign_coords(stage_b=("layer_b", np.full(PAPER.sizes["layer_b"], -1)))


def within(arrays: Arrays, controls: Controls) -> list[Claim]:
    return structure.within_claims(*arrays, controls)


def cross(arrays: Arrays, controls: Controls) -> list[Claim]:
    """arrays: the map with all tokens, and without the CLS token."""
    return structure.cross_claims(arrays[0], arrays, controls)


def number(claims: Callable[[Arrays, Controls], list[Claim]], index: int) -> Callable[[Arrays, Controls], Claim]:
    return lambda arrays, controls: claims(arrays, controls)[index]


# Chapter 2: distances of heads, groups of heads, sizes of receptive fields


def heads_of(*blocks: list[float], renormalized: Any = None, model: str = "model", patch: float = 25.0) -> xr.Dataset:
    """Distances of heads, a row a block, as `attention.head_distances` gives them; uniform attention has 100."""
    distance = np.array(blocks, dtype=float)
    renormalized = distance if renormalized is None else np.array(renormalized, dtype=float)
    variables = {
        "distance": (("block", "head"), distance),
        "distance_renormalized": (("block", "head"), renormalized),
        "prefix_mass": (("block", "head"), 1 - distance / renormalized),
    }
    attrs = {"uniform_distance": 100.0, "patch_size": patch, "model": model, "weights": "w"}
    return xr.Dataset(variables, {"block": np.arange(len(distance))}, attrs)


LOCAL = heads_of([20, 50, 80, 100], [30, 60, 80, 100], [80] * 4, [90] * 4)
EVEN = heads_of(*[[99.0, 99, 99, 99]] * 4)
FAR = heads_of([60, 70, 80, 100], [60, 70, 80, 100], [90] * 4, [90] * 4, model="few")
COARSE = heads_of(*LOCAL["distance"].values.tolist(), patch=60)  # as on a grid of 3 × 3
NEAR_HIGH = heads_of([90] * 4, [90] * 4, [59, 90, 90, 90], [90] * 4)
ON_CLS = heads_of([90] * 4, [90] * 4, [45, 90, 90, 90], [90] * 4, renormalized=[[90] * 4] * 4)

DISTANCES = [20, 40, 60, 80, 100]
FALL = [[0.6, 0.55], [0.5, 0.5], [0.4, 0.45], [0.35, 0.4], [0.3, 0.35]]
FALLING, RISING = subsets_of(DISTANCES, FALL), subsets_of(DISTANCES, FALL[::-1])


def sizes_of(radius_50: list[float], radius_90: Any = None, centre_mass: Any = 0.5, centre_ratio: Any = 10.0) -> Any:
    """Sizes of receptive fields over layers, as `receptive_field.summarize` gives them."""
    n = len(radius_50)
    over_layer = {
        "radius_50": radius_50,
        "radius_90": radius_50 if radius_90 is None else radius_90,
        "centre_mass": np.broadcast_to(centre_mass, n),
        "centre_ratio": np.broadcast_to(centre_ratio, n),
        "uniform_90": np.full(n, 8.0),
    }
    variables = {name: ("layer", np.array(value, dtype=float)) for name, value in over_layer.items()}
    return xr.Dataset(variables, {"depth": ("layer", np.linspace(0, 1, n))}, {"side": 4})


STEADY, JUMP = sizes_of([1, 2, 3, 4, 5]), sizes_of([3, 3.5, 4, 8, 8.5])
DIM = sizes_of([1, 2, 3, 4, 5], centre_ratio=1)
FLAT, PEAKED = sizes_of([1, 2, 3], centre_mass=0.1), sizes_of([1, 2, 3], centre_mass=0.5)


def addition(arrays: Arrays, controls: Controls) -> list[Claim]:
    return locality.addition_claims(*(dict.fromkeys(("attention", "MLP", "CNN unit"), pair)
                                      for pair in (arrays, controls["untrained"])))  # fmt: skip


def guesses(share: float, n: int = 2500, model: str = "model") -> xr.DataArray:
    """As `accuracy.right_guesses` gives it; models of two shares are right independently of each other."""
    right = np.arange(n) < round(share * n)
    random = np.random.default_rng(round(10_000 * share))
    return xr.DataArray(random.permutation(right).astype(float), dims="sample", attrs={"model": model, "n_images": n})


def figure_4(arrays: Arrays, controls: Controls) -> list[Claim]:
    little, full = arrays
    other, _ = controls["untrained"]
    by_data = {locality.LITTLE: little, locality.ALL: full, locality.AGAIN: other}
    known = {locality.LITTLE: guesses(0.3), locality.ALL: guesses(0.5)}
    series = {"3 %": little, "all data": full, "untrained": other}
    return [*locality.little_data_claims(by_data, known), *locality.small_model_claims(series)]


def accuracy(arrays: Arrays, controls: Controls) -> Claim:
    """arrays: the shares that two models recognise, None where that is not known, and of how many images."""
    little, full, n = arrays
    other, *_ = controls["untrained"]
    found = {locality.LITTLE: guesses(little, n), locality.ALL: guesses(full, n)} if little else {}
    heads = {locality.LITTLE: FAR, locality.ALL: LOCAL}
    return locality.little_data_claims(heads, found and found | {locality.AGAIN: guesses(other, n)})[1]


def subsets(arrays: Arrays, controls: Controls) -> list[Claim]:
    return locality.subset_claims({4: arrays[0]}, {name: {4: found[0]} for name, found in controls.items()})


# Chapter 3: ratios of skip and branch, maps of models without a skip

TURNING = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH)
REVERSE = vit_ratios(LOW_THEN_HIGH, HIGH_THEN_LOW)
WITHOUT_CLS = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=0)
ABOVE, BELOW = vit_ratios([4.0] * 8, [4.0] * 8), vit_ratios([1.0] * 8, [1.0] * 8)
UNITS = cnn_ratios([2.0] * 6, [False] * 6)
AN_EXCEPTION = cnn_ratios([2.0] * 5 + [5.0], [False] * 6)
WITHOUT_BRANCHES = cnn_ratios([np.inf] * 6, [False] * 6)
NEVER_ENDING = vit_ratios([1.0] * 8, [np.inf] * 8)


def late(mlp: float) -> xr.Dataset:
    return vit_ratios(np.array([[4.0, 9.0]] * 4 + [[4.0, mlp]] * 4), [1.0] * 8)


def ratios(arrays: Arrays, controls: Controls) -> list[Claim]:
    return skips.ratio_claims(*arrays, {name: vit for name, (vit, _) in controls.items()})


def split(arrays: Arrays, controls: Controls) -> Claim:
    (changed, intact), (control, control_intact) = arrays, controls["untrained"]
    return skips.split_claim(intact, {1: changed}, control_intact, {1: control})


def figure_8(arrays: Arrays, controls: Controls) -> list[Claim]:
    return [split(arrays, controls), skips.accuracy_loss(guesses(0.8), {4: guesses(0.75)})]


def loss(arrays: Arrays, _: Controls) -> Claim:
    intact, middle, n = arrays
    without = {1: guesses(0.99, n), 4: guesses(middle, n), 6: guesses(0.99, n)}
    return skips.accuracy_loss(guesses(intact, n) if intact else None, without)


# Chapter 4: maps of tokens and patches, probes

OWN, ELSEWHERE = token_map(), elsewhere()
SMALL = token_map(grid=2)  # all of it is border
LEANING, LEANING_OUT = token_map(border=0.2), token_map(border=-0.05)


def partly(right: int) -> xr.DataArray:
    """The first rows of tokens are most like their own patch, all others like the first patch."""
    values = elsewhere()
    values[:right] = OWN[:right]
    return values


def stage(*right: int) -> xr.DataArray:
    return layers(*map(partly, right))


def seconds(controls: Controls) -> dict[str, Any]:
    """The first array of each training besides the untrained model."""
    return {name: found[0] for name, found in controls.items() if name != "untrained"}


def above_cnn(arrays: Arrays, controls: Controls) -> Claim:
    cnn = {"CNN, last unit": arrays[1], "CNN, stage before": OWN}
    return localization.vit_over_cnn(arrays[0], cnn, controls["untrained"][1], maps(controls, 0))


def readouts(arrays: Arrays, controls: Controls) -> Claim:
    untrained = tuple(of_layers.isel(layer=-1) for of_layers in controls["untrained"])
    again = {name: of_layers.isel(layer=-1) for name, of_layers in seconds(controls).items()}
    return localization.readout_matters(*arrays, untrained, again)


def tokens(*ends: float) -> Arrays:
    """Probes of one token of the ViT, the ViT-GAP and the CNN, by their accuracy in the last layer."""
    return tuple(probe_curves(token=[0.1, end]) for end in ends)


def single(arrays: Arrays, controls: Controls) -> Claim:
    untrained = dict(zip(("ViT", "ViT-GAP", "CNN"), controls["untrained"], strict=True))
    cls, *others = arrays
    return localization.single_tokens(cls, dict(zip(("ViT-GAP", "CNN"), others, strict=True)), untrained,
                                      seconds(controls))  # fmt: skip


def native(arrays: Arrays, controls: Controls) -> Claim:
    return localization.native_readouts(*arrays, controls["untrained"], seconds(controls))


def read(cls: float, gap: float) -> Arrays:
    return probe_curves(cls=[0.1, cls]), probe_curves(mean=[0.1, gap])


def one_token(single: float, pooled: float) -> Arrays:
    return (probe_curves(token=[0.1, single], mean=[0.1, pooled]),)


def depths(*mean: float, cls: Any = (0.2, 0.4, 0.5, 0.7)) -> Arrays:
    return (probe_curves(cls=cls, mean=mean),)


def first(*curve: float) -> Arrays:
    return (probe_curves(mean=[0.3, 0.4, 0.6], first_token=curve),)


# Chapter 5: curves over blocks of models trained on parts of the data, probes over depth

SERIES = {"3 %": (1.0, 0.8), "10 %": (1.0, 0.9), "30 %": (1.0, 0.95), CEILING: (0.97, 0.97), FLOOR: (0.4, 0.4)}
SAME = dict.fromkeys(("3 %", "10 %", "30 %"), (0.5, 0.5))


def with_floor(of_series: xr.DataArray, untrained: xr.DataArray) -> xr.DataArray:
    """A series in which the model of the least data of another stands for the untrained one."""
    others = of_series.drop_sel(model=FLOOR)
    floor = untrained.isel(model=[0]).assign_coords(model=[FLOOR]).broadcast_like(others.isel(model=0, drop=True))
    return xr.concat([others, floor], "model", combine_attrs="override")


def by_data(arrays: Arrays, controls: Controls) -> list[Claim]:
    return scale.series_claims(with_floor(arrays[0], controls["untrained"][0]))


def size(arrays: Arrays, controls: Controls) -> Claim:
    large, small = map(with_floor, arrays, controls["untrained"])
    return scale.size_claim(large, small)


def sizes(large: float, small: float) -> Arrays:
    return tuple(curves({"3 %": (1.0, end), FLOOR: (0.4, 0.1)}) for end in (large, small))


def data(arrays: Arrays, controls: Controls) -> Claim:
    labels = ("ViT", "ViT, small data", "ViT, second seed")
    return scale.data_claims(dict(zip(labels, (*arrays, controls["untrained"][1]), strict=True)), {})[0]


def architecture(arrays: Arrays, controls: Controls) -> Claim:
    of = dict(zip(("ViT", "CNN"), arrays, strict=True))
    of |= dict(zip(("ViT, untrained", "CNN, untrained"), controls["untrained"], strict=True))
    again = dict(zip(("ViT, second seed",), seconds(controls).values(), strict=False))
    return scale.architecture_claims(of | again)[0]


def pair(a: float, b: float) -> Arrays:
    """Probes of two models by their accuracy in the last layer."""
    return probes(0.2, a), probes(0.2, b)


CASES = {
    "fig-1-low-high": Case(number(within, 0), VIT_LIKE, ALIKE, (unknown(*VIT_LIKE),), second=True),
    "fig-1-uniform": Case(number(within, 1), VIT_LIKE, ALIKE, (unknown(*VIT_LIKE),), second=True),
    "fig-1-stages": Case(number(within, 2), VIT_LIKE, ALIKE, (STAGELESS, unknown(*VIT_LIKE)), second=True),
    "fig-1-grid": Case(number(within, 3), VIT_LIKE, ALIKE, (BLOCKS,), second=True),
    "fig-2-lower-half": Case(number(cross, 0), (PAPER,) * 2, (REVERSED,) * 2, ((WITHOUT_STAGES,) * 2,),
                             also_bad=((LATE,) * 2,), second=True),
    "fig-2-upper-half": Case(number(cross, 1), (PAPER,) * 2, (LATE,) * 2, ((WITHOUT_STAGES,) * 2,),
                             also_bad=((REVERSED,) * 2,), second=True),
    "fig-2-ahead": Case(number(cross, 2), (PAPER,) * 2, (LATE,) * 2, (unknown(PAPER, PAPER),), second=True),
    "fig-2-last-third": Case(number(cross, 3), (FADING,) * 2, (REVERSED,) * 2, (unknown(PAPER, PAPER),), second=True),
    "fig-2-cls": Case(number(cross, 4), (FADING, EVEN_MAP), (FADING, 0.99 * FADING),
                      ((FADING,) * 2, (REVERSED, EVEN_MAP), mixed((FADING, EVEN_MAP), (REVERSED, EVEN_MAP))),
                      second=True),
    "fig-3-mix": Case(number(lambda a, c: locality.head_claims(*a, maps(c, 0)), 0), (LOCAL,), (EVEN,), ((COARSE,),),
                      also_bad=((heads_of([20] * 4, [30] * 4, [90] * 4),), (FAR,)), second=True),
    "fig-3-global": Case(number(lambda a, c: locality.head_claims(*a, maps(c, 0)), 1), (LOCAL,), (NEAR_HIGH,),
                         ((COARSE,),), second=True),
    "fig-4-little-data": Case(number(figure_4, 0), (FAR, LOCAL), (LOCAL, LOCAL), ((EVEN, FAR), (FAR, COARSE))),
    "fig-4-accuracy": Case(accuracy, (0.30, 0.50, 2500), (0.49, 0.50, 2500), ((None, None, 2500),),
                           close=(0.42, 0.50, 100)),
    "fig-4-small-model": Case(number(figure_4, 2), (LOCAL, LOCAL), (FAR, LOCAL), ((EVEN, EVEN),)),
    "fig-5-groups-of-4": Case(
        number(subsets, 0), (FALLING,), (RISING,), ((subsets_of([90, 91, 92, 93, 94], FALL),),), second=True,
        also_bad=((subsets_of(DISTANCES, [[0.60], [0.59], [0.58], [0.57], [0.56]]),),  # hardly
                  (subsets_of(DISTANCES, FALL, pooled=1),)),  # as much without places
    ),
    "fig-6-early": Case(number(lambda a, c: locality.field_claims(*a, c), 0), (JUMP, STEADY), (STEADY, JUMP),
                        (unknown(STEADY, STEADY),), also_bad=((sizes_of([1, 2, 30, 40, 50]), STEADY),), second=True),
    "fig-6-midway": Case(number(lambda a, c: locality.field_claims(*a, c), 1), (JUMP, STEADY), (STEADY, STEADY),
                         ((sizes_of([8] * 5), STEADY),), second=True,
                         also_bad=((sizes_of([1, 8, 8.5, 9, 9.5]), STEADY),
                                   (sizes_of([3, 3.5, 4, 8, 8.5], [4] * 5), STEADY))),  # a jump, but not to all
    "fig-6-centre": Case(number(lambda a, c: locality.field_claims(*a, c), 2), (STEADY, STEADY), (DIM, STEADY),
                         ((sizes_of([1, 2, 3], centre_ratio=[9, 9, np.nan]), STEADY),),
                         also_bad=((sizes_of([1, 2, 3], centre_ratio=[9, 9, 2]), STEADY),), second=True),
    "fig-c4-attention": Case(number(addition, 0), (PEAKED, FLAT), (FLAT, FLAT), (unknown(FLAT, FLAT),),
                             also_bad=((FLAT, PEAKED),)),
    "fig-c4-others": Case(number(addition, 1), (FLAT, FLAT), (PEAKED, FLAT), (unknown(FLAT, FLAT),),
                          also_bad=((FLAT, PEAKED),)),
    "fig-7-transition": Case(number(ratios, 0), (TURNING, UNITS), (REVERSE, UNITS), ((WITHOUT_CLS, UNITS),),
                             also_bad=((vit_ratios([8.0] * 8, [2.0] * 8), UNITS),), second=True),
    "fig-7-vit-above-cnn": Case(number(ratios, 1), (ABOVE, UNITS), (BELOW, UNITS), ((ABOVE, WITHOUT_BRANCHES),),
                                also_bad=((ABOVE, AN_EXCEPTION),), second=True),
    "fig-7-late-cls": Case(number(ratios, 2), (late(2), UNITS), (late(8), UNITS), ((WITHOUT_CLS, UNITS),), second=True),
    "fig-7-early-spatial": Case(number(ratios, 3), (TURNING, UNITS), (REVERSE, UNITS), ((NEVER_ENDING, UNITS),),
                                second=True),
    "fig-8-split": Case(split, (divided(0.2), divided(0.8)), (divided(0.8), divided(0.8)),
                        (unknown(divided(0.2), divided(0.8)),),
                        also_bad=((divided(0.2), divided(0.3)),)),  # divided, but the intact model is as well
    "fig-8-accuracy": Case(loss, (0.80, 0.75, 10_000), (0.80, 0.85, 10_000), ((None, 0.75, 10_000),),
                           close=(0.80, 0.795, 10_000)),
    "fig-9-interior-last": Case(lambda a, c: localization.interior_tokens(*a, maps(c, 0)), (OWN,), (ELSEWHERE,),
                                ((SMALL,),), second=True),
    "fig-9-border": Case(lambda a, c: localization.border_tokens(*a, maps(c, 0)), (LEANING, OWN), (LEANING_OUT, OWN),
                         ((SMALL, SMALL),), second=True,
                         also_bad=((LEANING, token_map(border=0.3)), (LEANING_OUT, token_map(border=-0.09)))),
    "fig-9-vit-above-cnn": Case(above_cnn, (OWN, ELSEWHERE), (ELSEWHERE, OWN), (unknown(OWN, OWN),), second=True,
                                also_bad=((OWN, token_map(grid=4)),)),  # equally well
    "fig-d3-last-stage": Case(lambda a, c: localization.last_stage(*a, *c["untrained"]), (OWN, stage(4, 3, 2)),
                              (OWN, stage(2, 3, 4)), ((OWN, stage(3)),),
                              also_bad=((OWN, stage(4, 4, 4)), (partly(3), stage(4, 3, 2)))),
    "fig-10-readout": Case(readouts, (stage(5, 5), stage(5, 1)), (stage(5, 1), stage(1, 5)),
                           (unknown(stage(5, 5), stage(5, 1)),), second=True),
    "fig-11-single-tokens": Case(single, tokens(0.2, 0.5, 0.6), tokens(0.4, 0.5, 0.6), (tokens(0.2, np.nan, 0.6),),
                                 also_bad=(tokens(0.2, 0.5, 0.25),), second=True),
    "fig-11-one-token": Case(lambda a, c: localization.one_token_is_all(*a, c["untrained"][0]), one_token(0.5, 0.51),
                             one_token(0.5, 0.6), (one_token(0.5, np.nan),), also_bad=(one_token(0.5, 0.4),)),
    "fig-11-native": Case(native, read(0.5, 0.51), read(0.3, 0.6), (read(0.5, np.nan),), second=True),
    "fig-11-plateau": Case(lambda a, c: localization.pooled_plateau(*a, maps(c, 0)), depths(0.2, 0.4, 0.5, 0.52),
                           depths(0.2, 0.4, 0.5, 0.8), (depths(0.2, 0.4, np.nan, np.nan),), second=True,
                           also_bad=(depths(0.2, 0.3, 0.3, 0.3),  # never kept up
                                     depths(0.2, 0.4, 0.5, 0.65))),  # gains less than CLS, but does not stop
    "fig-11-first-token": Case(lambda a, c: localization.first_token_catches_up(*a, c["untrained"][0]),
                               first(0.1, 0.2, 0.59), first(0.1, 0.2, 0.3), (first(*[np.nan] * 3),),
                               also_bad=(first(0.29, 0.39, 0.59),)),  # never behind
    "fig-12-low": Case(number(by_data, 0), (curves(SERIES),), (curves(SERIES | SAME),),
                       ((curves(SERIES | {"3 %": (np.nan, 1.0)}),),)),
    "fig-12-high": Case(number(by_data, 1), (curves(SERIES),), (curves(SERIES | SAME),),
                        ((curves(SERIES | {"3 %": (np.nan, np.nan)}),),),
                        also_bad=((curves(SERIES | dict.fromkeys(SAME, (0.9, 0.3))),),)),  # more data leave the fall
    "fig-12-more-data": Case(number(by_data, 2), (curves(SERIES),), (curves(SERIES | {"10 %": (1.0, 0.7)}),),
                             ((curves(SERIES | {"30 %": (np.nan, np.nan)}),),)),
    "fig-12-size": Case(size, sizes(0.2, 0.8), sizes(0.8, 0.2), (unknown(*sizes(0.2, 0.8)),)),
    "fig-13-data-vit": Case(data, pair(0.8, 0.3), pair(0.3, 0.8), (pair(np.nan, 0.3),), also_bad=(pair(0.3, 0.3),)),
    "fig-13-architecture-patch-means": Case(architecture, pair(0.6, 0.3), pair(0.2, 0.5), (pair(np.nan, 0.3),),
                                            also_bad=(pair(0.5, 0.5),), second=True),
}  # fmt: skip

# Of a figure: its claims, the words that connect them, arrays that satisfy the claims, and arrays that break them

FIGURES = {
    "fig-1": (within, structure.within_words, VIT_LIKE, ALIKE),
    "fig-2": (cross, structure.cross_words, (FADING, EVEN_MAP), (REVERSED, REVERSED)),
    "fig-3": (lambda a, c: locality.head_claims(*a, maps(c, 0)), locality.head_words, (LOCAL,), (NEAR_HIGH,)),
    "fig-4": (figure_4, locality.data_words, (FAR, LOCAL), (LOCAL, LOCAL)),
    "fig-5": (subsets, locality.subset_words, (FALLING,), (RISING,)),
    "fig-6": (lambda a, c: locality.field_claims(*a, c), locality.field_words, (JUMP, STEADY), (STEADY, JUMP)),
    "fig-c4": (addition, locality.addition_words, (PEAKED, FLAT), (FLAT, PEAKED)),
    "fig-7": (ratios, skips.ratio_words, (TURNING, UNITS), (REVERSE, AN_EXCEPTION)),
    "fig-8": (figure_8, skips.split_words, (divided(0.2), divided(0.8)), (divided(0.8), divided(0.8))),
}
