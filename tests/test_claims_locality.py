"""Claims of chapter 2: where they hold, fail, are matched by a control, are too close, or cannot be asked."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from made import subsets_of

from vitcnn_utils.claims import locality as claims
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO

UNIFORM = 100.0


def heads_of(*blocks: list[float], renormalized: Any = None, model: str = "model", patch: float = 25.0) -> xr.Dataset:
    """Distances of heads, a row a block, as `attention.head_distances` gives them; no mass on CLS unless told apart."""
    distance = np.array(blocks, dtype=float)
    renormalized = distance if renormalized is None else np.array(renormalized, dtype=float)
    variables = {
        "distance": (("block", "head"), distance),
        "distance_renormalized": (("block", "head"), renormalized),
        "prefix_mass": (("block", "head"), 1 - distance / renormalized),
    }
    attrs = {"uniform_distance": UNIFORM, "patch_size": patch, "model": model, "weights": "w"}
    return xr.Dataset(variables, {"block": np.arange(len(distance))}, attrs)


EVEN = heads_of(*[[99.0, 99, 99, 99]] * 4)
LOCAL = heads_of([20, 50, 80, 100], [30, 60, 80, 100], [80] * 4, [90] * 4)
COARSE = heads_of(*LOCAL["distance"].values.tolist(), patch=60)  # as on a grid of 3 × 3


@pytest.mark.parametrize(
    ("heads", "untrained", "verdict"),
    [
        (LOCAL, EVEN, HOLDS),
        (LOCAL, LOCAL, HOLDS_TOO),
        (EVEN, EVEN, FAILS),
        (heads_of([20, 90], [50, 90], [90, 90]), EVEN, FAILS),  # nothing near in block 1
        (heads_of([20, 30], [20, 30], [90, 90]), EVEN, FAILS),  # nothing far
        (COARSE, EVEN, CANNOT),
    ],
)
def test_low_blocks_mix(heads: xr.Dataset, untrained: xr.Dataset, verdict: str) -> None:
    assert claims.low_blocks_mix(heads, untrained).verdict == verdict


def test_low_blocks_mix_quotes_numbers_and_control() -> None:
    claim = claims.low_blocks_mix(LOCAL, EVEN)
    assert claim.note.startswith(
        "block 0 from 20.0 to 100.0 px; block 1 from 30.0 to 100.0 px; untrained: block 0 from 99"
    )
    assert [part.estimate.value for part in claim.parts] == [30, 100]
    assert claim.verdict_of(claim.parts[1]) == HOLDS_TOO  # the untrained heads are far as well


@pytest.mark.parametrize(
    ("heads", "verdict"),
    [
        (LOCAL, HOLDS_TOO),  # untrained heads are global without training
        (heads_of([90, 90], [59, 90], [90, 90]), FAILS),
        (heads_of([90, 90], [45, 90], [90, 90], renormalized=[[90, 90]] * 3), CLOSE),  # CLS takes the mass
        (COARSE, CANNOT),
    ],
)
def test_high_blocks_are_global(heads: xr.Dataset, verdict: str) -> None:
    assert claims.high_blocks_are_global(heads, EVEN).verdict == verdict


FAR = heads_of([60, 70, 80, 100], [60, 70, 80, 100], [90] * 4, model="few")
HALF = heads_of([28, 32, 40, 100], [28, 31, 40, 100], [90] * 4)


@pytest.mark.parametrize(
    ("little", "full", "other", "verdict"),
    [
        (FAR, LOCAL, LOCAL, HOLDS),
        (FAR, LOCAL, None, HOLDS),
        (FAR, LOCAL, FAR, HOLDS_TOO),  # another start loses as much
        (LOCAL, LOCAL, EVEN, FAILS),
        (HALF, LOCAL, LOCAL, CLOSE),  # the nearest head moves away, the quartile does not
        (EVEN, FAR, LOCAL, CANNOT),  # nothing was local
        (FAR, COARSE, None, CANNOT),
    ],
)
def test_little_data_hides_locality(little: Any, full: Any, other: Any, verdict: str) -> None:
    claim = claims.little_data_hides_locality(little, full, other)
    assert claim.verdict == verdict
    assert claim.of == f"{little.attrs['model']} against {full.attrs['model']}"


def test_a_small_model_keeps_locality_where_the_large_one_would_lose_it() -> None:
    assert claims.small_model_keeps_locality(FAR, LOCAL).verdict == FAILS
    assert claims.small_model_keeps_locality(LOCAL, LOCAL).verdict == HOLDS
    assert claims.small_model_keeps_locality(HALF, LOCAL).verdict == CLOSE
    assert claims.small_model_keeps_locality(EVEN, EVEN).verdict == CANNOT


@pytest.mark.parametrize(("little", "n", "verdict"), [(0.30, 2500, HOLDS), (0.49, 2500, FAILS), (0.42, 100, CLOSE)])
def test_scores_are_worse_from_a_clear_difference_on(little: float, n: int, verdict: str) -> None:
    assert claims.little_data_scores_worse(little, 0.50, "a against b", n).verdict == verdict


DISTANCES = [20, 40, 60, 80, 100]
FALL = [[0.6, 0.55], [0.5, 0.5], [0.4, 0.45], [0.35, 0.4], [0.3, 0.35]]
FALLING, NARROW = subsets_of(DISTANCES, FALL), subsets_of([90, 91, 92, 93, 94], FALL)
RISING = subsets_of(DISTANCES, FALL[::-1])


@pytest.mark.parametrize(
    ("subsets", "untrained", "verdict"),
    [
        (FALLING, RISING, HOLDS),
        (FALLING, FALLING, HOLDS_TOO),
        (RISING, FALLING, FAILS),
        (subsets_of(DISTANCES, [[0.60], [0.59], [0.58], [0.57], [0.56]]), RISING, FAILS),  # hardly
        (subsets_of(DISTANCES, FALL, pooled=1), RISING, FAILS),  # as much without places
        (NARROW, RISING, CANNOT),
    ],
)
def test_local_heads_resemble_cnn(subsets: xr.Dataset, untrained: xr.Dataset, verdict: str) -> None:
    assert claims.local_heads_resemble_cnn(subsets, untrained).verdict == verdict


def summary_of(radius_50: list[float], radius_90: Any = None, centre_mass: Any = 0.5, centre_ratio: Any = 10.0) -> Any:
    n = len(radius_50)
    over_layer = {
        "radius_50": radius_50,
        "radius_90": radius_50 if radius_90 is None else radius_90,
        "centre_mass": np.broadcast_to(centre_mass, n),
        "centre_ratio": np.broadcast_to(centre_ratio, n),
    }
    variables = {name: ("layer", np.array(value, dtype=float)) for name, value in over_layer.items()}
    return xr.Dataset(variables, {"depth": ("layer", np.linspace(0, 1, n))}, {"side": 4})


STEADY = summary_of([1, 2, 3, 4, 5])
JUMP = summary_of([3, 3.5, 4, 8, 8.5])
UNKNOWN = summary_of([np.nan] * 5)


@pytest.mark.parametrize(
    ("vit", "cnn", "untrained", "verdict"),
    [
        (JUMP, STEADY, STEADY, HOLDS),
        (JUMP, STEADY, JUMP, HOLDS_TOO),
        (STEADY, JUMP, STEADY, FAILS),
        (summary_of([1, 2, 30, 40, 50]), STEADY, STEADY, FAILS),  # late
        (summary_of([1, 2, 3, 4, 5], radius_90=[9] * 5), STEADY, STEADY, CLOSE),  # by one radius only
        (UNKNOWN, STEADY, STEADY, CANNOT),
    ],
)
def test_vit_sees_farther_early(vit: Any, cnn: Any, untrained: Any, verdict: str) -> None:
    assert claims.vit_sees_farther_early(vit, cnn, untrained, STEADY).verdict == verdict


@pytest.mark.parametrize(
    ("vit", "untrained", "verdict"),
    [
        (JUMP, STEADY, HOLDS),
        (JUMP, JUMP, HOLDS_TOO),
        (STEADY, STEADY, FAILS),
        (summary_of([1, 8, 8.5, 9, 9.5]), STEADY, FAILS),  # a jump, but early
        (summary_of([3, 3, 3, 3, 3]), STEADY, CANNOT),
    ],
)
def test_vit_grows_midway(vit: Any, untrained: Any, verdict: str) -> None:
    assert claims.vit_grows_midway(vit, STEADY, untrained, STEADY).verdict == verdict


def test_centre_dominates_only_if_it_does_at_every_depth() -> None:
    flat = summary_of([1, 2, 3], centre_ratio=1)
    assert claims.centre_dominates_vit(STEADY, flat).verdict == HOLDS
    assert claims.centre_dominates_vit(STEADY, STEADY).verdict == HOLDS_TOO
    assert claims.centre_dominates_vit(summary_of([1, 2, 3], centre_ratio=[9, 9, 2]), flat).verdict == FAILS
    assert claims.centre_dominates_vit(summary_of([1, 2, 3], centre_ratio=[9, 9, np.nan]), flat).verdict == CANNOT


FLAT, PEAKED = summary_of([1, 2, 3], centre_mass=0.1), summary_of([1, 2, 3], centre_mass=0.5)


def test_centre_comes_through_skips_if_the_branch_has_less_of_it() -> None:
    assert claims.centre_comes_through_skips(PEAKED, FLAT).verdict == HOLDS
    assert claims.centre_comes_through_skips(PEAKED, FLAT, (PEAKED, FLAT)).verdict == HOLDS_TOO
    assert claims.centre_comes_through_skips(FLAT, FLAT).verdict == FAILS
    assert claims.centre_comes_through_skips(FLAT, PEAKED).verdict == FAILS
    assert claims.centre_comes_through_skips(summary_of([1], centre_mass=np.nan), FLAT).verdict == CANNOT


def test_others_keep_centre_only_if_both_do() -> None:
    assert claims.others_keep_centre({"a": FLAT, "b": PEAKED}, {"a": FLAT, "b": PEAKED}).verdict == HOLDS
    assert claims.others_keep_centre({"a": FLAT, "b": PEAKED}, {"a": FLAT, "b": FLAT}).verdict == FAILS


def test_a_unit_that_opens_a_stage_does_not_decide() -> None:
    before = summary_of([1, 2, 3, 4], centre_mass=[0.5, 0.5, 0.0, 0.5])
    after = summary_of([1, 2, 3, 4], centre_mass=0.5)
    assert claims.others_keep_centre({"unit": after}, {"unit": before}).verdict == HOLDS
