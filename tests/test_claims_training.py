"""Chapter 6: trainings that differ in one thing, and how they run."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from claim_cases import guesses, heads_of

from vitcnn_utils import zoo
from vitcnn_utils.claims import training as claims
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO
from vitcnn_utils.claims.training import AGAIN, CUTMIX, MIMETIC, PLAIN
from vitcnn_utils.measures.attention import near_heads, uniform_distance
from vitcnn_utils.measures.training import course, courses, half_way
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
        (FAR, NEAR, FAR, CLOSE),  # another start with CutMix is not nearer
        (heads_of([45] * 4, [45] * 4, [90] * 4), NEAR, NEAR, HOLDS),
        (heads_of([39] * 4, [39] * 4, [90] * 4), NEAR, NEAR, FAILS),  # local without it as well
    ],
)
def test_cutmix_makes_local(without: Any, cutmix: Any, second: Any, verdict: str) -> None:
    claim, _ = claims.local_claims(labelled(without, cutmix, FAR, second))
    assert claim.verdict == verdict
    said = claims.local_words([claim, _])
    assert ("Another start" in said) == ("chance alone" in said) == (second is not None)


def labelled(without: Any, cutmix: Any, mimetic: Any, second: Any = None) -> dict[str, Any]:
    models = {CUTMIX: cutmix, PLAIN: without, MIMETIC: mimetic}
    return models if second is None else models | {AGAIN: second}


def test_another_start_that_differs_as_much_matches_the_difference() -> None:
    nearest = heads_of([5] * 4, [5] * 4, [90] * 4)
    first = claims.local_claims(labelled(FAR, NEAR, FAR, nearest))[0].parts[0]
    assert claims.local_claims(labelled(FAR, NEAR, FAR, NEAR))[0].verdict_of(first) == HOLDS_TOO


@pytest.mark.parametrize(("mimetic", "verdict"), [(NEAR, HOLDS), (MIDDLE, FAILS), (FAR, FAILS)])
def test_a_start_makes_local(mimetic: Any, verdict: str) -> None:
    assert claims.local_claims(labelled(FAR, NEAR, mimetic))[1].verdict == verdict


def log(accuracies: list[float], nearest: list[float]) -> list[dict[str, Any]]:
    """As the trainer writes it: three blocks of four heads, of which the two lowest have a near quarter."""
    return [
        {"step": 100 * (i + 1), "held_out_accuracy": a, "head_distances": [[d, d, 17.0, 17.0], [17.0] * 4, [1.0] * 4]}
        for i, (a, d) in enumerate(zip(accuracies, nearest, strict=True))
    ]  # fmt: skip


def of(accuracies: list[float], nearest: list[float]) -> xr.Dataset:
    return course(log(accuracies, nearest))


def test_a_course_is_read_off_the_log() -> None:
    uniform = uniform_distance((8, 8), 4)
    found = of([0.1, 0.5], [uniform, uniform / 2])
    np.testing.assert_allclose(found["distance"], [100, 50])
    np.testing.assert_allclose(found["accuracy"], [0.1, 0.5])
    assert found["step"].values.tolist() == [100, 200]


def test_courses_of_zoo_models_that_have_them() -> None:
    mine = {"name": "vit_tiny_patch16_224", "weights": "mine.safetensors"}
    (only,) = courses(
        {CUTMIX: "zoo/vit-cls", "CNN": "zoo/resnet", "other": "vit_tiny_patch16_224", "own": mine}
    ).values()
    card = zoo.card("zoo/vit-cls")
    assert only.sizes["step"] == card["passes"]
    (made,) = claims.local_late({CUTMIX: only}).made_of
    assert (made["model"], made["weights"]) == ("zoo/vit-cls", card["sha256"][:12])


@pytest.mark.parametrize(
    ("values", "percent"),
    [([0, 1, 2, 3, 4], 60), ([0, 4, 4, 4, 4], 30), ([4, 4, 4, 4, 0], 90), ([0, 0, 3, 4, 4], 40 + 20 * 2 / 3)],
)
def test_half_way_by_hand(values: list[float], percent: float) -> None:
    over = xr.DataArray(np.array(values, float), dims="step", coords={"step": [100, 200, 300, 400, 500]})
    assert half_way(over) == pytest.approx(percent)
    assert np.isnan(half_way(xr.zeros_like(over)))


EARLY, LATE = [0.1, 0.6, 0.7, 0.75, 0.8], [16.0, 16.0, 15.0, 12.0, 8.0]
QUICK = [16.0, 9.0, 8.5, 8.0, 8.0]


def late(first: xr.Dataset, second: xr.Dataset | None = None) -> str:
    return claims.local_late({CUTMIX: first} if second is None else {CUTMIX: first, AGAIN: second}).verdict


def test_locality_comes_late_or_not() -> None:
    slow, quick = of(EARLY, LATE), of(LATE, QUICK)
    assert late(slow) == late(slow, slow) == HOLDS
    assert late(quick) == FAILS
    assert late(slow, quick) == CLOSE  # another training says the reverse
    assert late(of(EARLY, [16.0, 16.0, 16.0, 16.0, 15.9])) == CANNOT


def recognised(*shares: float | None) -> dict[str, Any]:
    return labelled(*(share and guesses(share, 10_000) for share in shares))


@pytest.mark.parametrize(
    ("without", "cutmix", "second", "verdict"),
    [
        (0.80, 0.85, 0.85, HOLDS),
        (0.80, 0.70, 0.70, FAILS),
        (0.80, 0.815, None, CLOSE),
        (0.80, 0.85, 0.70, CLOSE),  # the second training loses
        (0.80, 0.85, 0.95, HOLDS_TOO),  # another start gains as much
        (0.80, 0.95, 0.90, HOLDS_TOO),  # another start loses as much
    ],
)
def test_scores(without: float, cutmix: float, second: float | None, verdict: str) -> None:
    of_cutmix, of_start = claims.accuracy_claims(recognised(without, cutmix, 0.9, second), labelled(FAR, NEAR, NEAR))
    assert of_cutmix.verdict == verdict and of_start.verdict == (HOLDS if cutmix < 0.9 else FAILS)
    assert "CutMix changes accuracy by" in claims.accuracy_words([of_cutmix, of_start])


def test_nothing_is_asked_of_a_model_whose_heads_are_not_nearer() -> None:
    scores = recognised(0.8, 0.85, 0.86)
    of_cutmix, of_start = claims.accuracy_claims(scores, labelled(FAR, FAR, FAR))
    assert (of_cutmix.verdict, of_start.verdict) == (CANNOT, HOLDS)
    assert "question of locality only where" in of_start.caveat
    assert "CutMix 91 %, no CutMix 91 %" in of_cutmix.reason


def test_all_claims_are_named_where_models_are_missing() -> None:
    lacks = "zoo/a, which is not trained yet"
    missing = [
        *claims.local_claims({}, lacks), *claims.accuracy_claims({}, {}, lacks),
        *claims.companion_claims({}, {}, {}, {}, lacks), claims.local_late({}),
    ]  # fmt: skip
    assert {claim.verdict for claim in missing} == {CANNOT}
    assert [claim.paper for claim in missing if lacks not in claim.reason] == [claims.SENTENCES["when"]]
    assert {claim.paper for claim in missing} == set(claims.SENTENCES.values())
    assert missing[0].place == "Beyond the paper, chapter 6"
    assert claims.local_words(missing[:2]) == claims.accuracy_words(missing[2:4]) == ""


def test_what_is_said_of_a_mimetic_start_needs_one() -> None:
    heads = {CUTMIX: NEAR, PLAIN: FAR}
    local, scores = (
        claims.local_claims(heads),
        claims.accuracy_claims({CUTMIX: guesses(0.85), PLAIN: guesses(0.8)}, heads),
    )
    assert [claim.verdict for claim in (*local, *scores)] == [HOLDS, CANNOT, HOLDS, CANNOT]
    assert "mimetic start" in local[1].reason and local[1].reason == scores[1].reason
    assert "mimetic" not in claims.local_words(local) + claims.accuracy_words(scores)


def test_accuracies_need_classes_that_the_models_know() -> None:
    reasons = {claim.reason for claim in claims.accuracy_claims({}, labelled(FAR, NEAR, NEAR))}
    assert reasons == {"it needs images with labels that the models know"}


def test_the_twins_differ_from_the_vit_in_one_thing_each() -> None:
    vit, plain, mimetic = (vars(RECIPES[f"zoo/vit-cls{twin}"]) for twin in ("", "-nocutmix", "-mimetic"))
    assert {key for key in vit if vit[key] != plain[key]} == {"cutmix"}
    assert {key for key in vit if plain[key] != mimetic[key]} == {"mimetic"}
