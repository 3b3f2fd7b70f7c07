"""Chapter 6: trainings that differ in one thing, and how they run."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from claim_cases import heads_of

from vitcnn_utils.claims import training as claims
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO
from vitcnn_utils.claims.training import Trio
from vitcnn_utils.measures.attention import near_heads
from vitcnn_utils.measures.training import courses, half_way
from vitcnn_utils.zoo.recipes import RECIPES

NEAR = heads_of([20, 30, 80, 100], [30, 40, 80, 100], [90] * 4, [90] * 4, model="near")
FAR = heads_of([90, 95, 99, 100], [92, 95, 99, 100], [90] * 4, [90] * 4, model="far")
MIDDLE = heads_of([50, 60, 80, 100], [60, 80, 80, 100], [90] * 4, [90] * 4, model="middle")


def test_near_heads_are_the_nearest_quarter_of_two_blocks() -> None:
    assert near_heads(NEAR) == pytest.approx((20 + 30) / 2)
    assert near_heads(FAR) == pytest.approx((90 + 92) / 2)


@pytest.mark.parametrize(
    ("without", "cutmix", "second", "verdict"),
    [
        (FAR, NEAR, NEAR, HOLDS),
        (FAR, NEAR, None, HOLDS),
        (NEAR, NEAR, NEAR, FAILS),
        (FAR, MIDDLE, MIDDLE, FAILS),  # nearer, yet not local
        (NEAR, FAR, NEAR, FAILS),
        (heads_of([45] * 4, [45] * 4, [90] * 4), NEAR, NEAR, HOLDS),
        (heads_of([39] * 4, [39] * 4, [90] * 4), NEAR, NEAR, FAILS),  # local without it as well
    ],
)
def test_cutmix_makes_local(without: Any, cutmix: Any, second: Any, verdict: str) -> None:
    assert claims.cutmix_makes_local(Trio(without, cutmix, second)).verdict == verdict


def test_another_start_that_differs_as_much_matches_the_difference() -> None:
    first = claims.cutmix_makes_local(Trio(FAR, NEAR, heads_of([5] * 4, [5] * 4, [90] * 4))).parts[0]
    assert claims.cutmix_makes_local(Trio(FAR, NEAR, NEAR)).verdict_of(first) == HOLDS_TOO


def test_a_start_makes_local() -> None:
    assert claims.start_makes_local(NEAR, FAR).verdict == HOLDS
    assert claims.start_makes_local(MIDDLE, FAR).verdict == FAILS


def log(accuracies: list[float], nearest: list[float]) -> list[dict[str, Any]]:
    """As the trainer writes it: three blocks of four heads, of which the two lowest have a near quarter."""
    return [
        {"step": 100 * (i + 1), "held_out_accuracy": a, "head_distances": [[d, d, 16.0, 16.0], [16.0] * 4, [1.0] * 4]}
        for i, (a, d) in enumerate(zip(accuracies, nearest, strict=True))
    ]  # fmt: skip


def course(accuracies: list[float], nearest: list[float]) -> xr.Dataset:
    (found,) = courses({"a": log(accuracies, nearest), "old": [{"step": 1}]}, 16.0).values()
    return found


def test_a_course_is_read_off_the_log() -> None:
    found = course([0.1, 0.5], [16.0, 8.0])
    np.testing.assert_allclose(found["distance"], [100, 50])
    np.testing.assert_allclose(found["accuracy"], [0.1, 0.5])
    assert found["step"].values.tolist() == [100, 200]


@pytest.mark.parametrize(
    ("values", "percent"),
    [([0, 1, 2, 3, 4], 60), ([0, 4, 4, 4, 4], 30), ([4, 4, 4, 4, 0], 90), ([0, 0, 3, 4, 4], 40 + 20 * 2 / 3)],
)
def test_half_way_by_hand(values: list[float], percent: float) -> None:
    over = xr.DataArray(np.array(values, float), dims="step", coords={"step": [100, 200, 300, 400, 500]})
    assert half_way(over) == pytest.approx(percent)
    assert np.isnan(half_way(xr.zeros_like(over)))


EARLY, LATE = [0.1, 0.6, 0.7, 0.75, 0.8], [16.0, 16.0, 15.0, 12.0, 8.0]


def test_locality_comes_late_or_not() -> None:
    late, early = course(EARLY, LATE), course(LATE, [16.0, 9.0, 8.5, 8.0, 8.0])
    assert claims.local_late(late, None).verdict == HOLDS
    assert claims.local_late(late, late).verdict == HOLDS
    assert claims.local_late(early, None).verdict == FAILS
    assert claims.local_late(late, early).verdict == CLOSE  # another training says the reverse
    assert claims.local_late(course(EARLY, [16.0, 16.0, 16.0, 16.0, 15.9]), None).verdict == CANNOT


@pytest.mark.parametrize(
    ("without", "cutmix", "second", "verdict"),
    [
        (0.80, 0.85, 0.85, HOLDS),
        (0.80, 0.70, 0.70, FAILS),
        (0.80, 0.815, None, CLOSE),
        (0.80, 0.85, 0.70, CLOSE),  # the second training loses
        (0.80, 0.85, 0.95, HOLDS_TOO),  # another start gains as much
    ],
)
def test_scores(without: float, cutmix: float, second: float | None, verdict: str) -> None:
    assert claims.local_heads_score_better(Trio(without, cutmix, second), 10_000, "").verdict == verdict
    assert claims.local_heads_score_better(Trio(without, cutmix, second), 10_000, "none").verdict == CANNOT


def test_a_local_start_gains_or_not() -> None:
    assert claims.local_start_scores_better(0.85, 0.80, 10_000, "").verdict == HOLDS
    assert claims.local_start_scores_better(0.80, 0.80, 10_000, "").verdict in (FAILS, CLOSE)


def test_nothing_is_asked_of_local_heads_where_there_are_none() -> None:
    assert claims.no_local_heads(NEAR, FAR) == ""
    assert "far 91 %" in claims.no_local_heads(FAR, FAR)


def test_all_claims_are_named_where_models_are_missing() -> None:
    missing = claims.not_asked("it needs a model")
    assert {claim.verdict for claim in missing} == {CANNOT}
    assert {claim.paper for claim in [*missing, claims.local_late(None, None)]} == set(claims.SENTENCES.values())
    assert claims.local_late(None, None).verdict == CANNOT
    assert missing[0].place == "Beyond the paper, chapter 6"


def test_the_twins_differ_from_the_vit_in_one_thing_each() -> None:
    vit, plain, mimetic = (vars(RECIPES[f"zoo/vit-cls{twin}"]) for twin in ("", "-nocutmix", "-mimetic"))
    assert {key for key in vit if vit[key] != plain[key]} == {"cutmix"}
    assert {key for key in vit if plain[key] != mimetic[key]} == {"mimetic"}
