"""Each claim of chapters 1 to 5 in each of the verdicts, and the sentences that connect those of a figure."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from claim_cases import (
    ABOVE,
    ALIKE,
    AN_EXCEPTION,
    CASES,
    EVEN_MAP,
    FADING,
    FALLING,
    FAR,
    FLAT,
    JUMP,
    LOCAL,
    NEAR_HIGH,
    ON_CLS,
    PEAKED,
    REVERSE,
    REVERSED,
    RISING,
    STEADY,
    TURNING,
    UNITS,
    VIT_LIKE,
    Case,
    addition,
    cross,
    figure_4,
    figure_8,
    maps,
    mixed,
    ratios,
    subsets,
    unknown,
    within,
)
from made import cnn_ratios, divided

from vitcnn_utils.claims import locality, skips, structure
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO

every_claim = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@every_claim
def test_arrays_that_satisfy_a_claim(case: Case, request: pytest.FixtureRequest) -> None:
    claim = case.claim(case.good, {"untrained": case.bad})
    assert claim.verdict == HOLDS and claim.reason == ""
    assert claim.id == request.node.callspec.id


@every_claim
def test_arrays_that_break_a_claim(case: Case) -> None:
    for bad in (case.bad, *case.also_bad):
        assert case.claim(bad, {"untrained": case.bad}).verdict == FAILS


@every_claim
def test_arrays_that_vary_so_much_that_a_claim_is_too_close_to_call(case: Case) -> None:
    claim = case.claim(case.close or mixed(case.good, case.bad), {"untrained": case.bad})
    assert claim.verdict == CLOSE
    assert "would show, in 4 of 5 cases" in claim.reason and "threshold" in claim.reason


@every_claim
def test_a_control_that_satisfies_a_claim_too(case: Case) -> None:
    claim = case.claim(case.good, {"untrained": case.good})
    if all(part.control is None for part in claim.parts):
        assert claim.verdict == HOLDS and claim.uncontrolled.endswith(".")
    elif claim.id == "fig-4-accuracy":  # the control's accuracy stands where that with little data does
        assert case.claim(case.good, {"untrained": (0.29,)}).verdict == HOLDS_TOO
    else:
        assert claim.verdict == HOLDS_TOO and claim.control in claim.reason


@every_claim
def test_arrays_that_lack_what_a_claim_needs(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means of nothing
        for lacking in case.lacking:
            claim = case.claim(lacking, {"untrained": case.bad})
            assert claim.verdict == CANNOT and claim.reason


@every_claim
def test_a_second_training_that_says_the_reverse(case: Case) -> None:
    claim = case.claim(case.good, {"untrained": case.bad, "second seed, longer": case.bad})
    assert claim.verdict == (CLOSE if case.second else HOLDS)
    assert claim.reason == (f"another training says the reverse ({claim.second})" if case.second else "")
    assert case.claim(case.good, {"untrained": case.bad, "second seed": case.good}).verdict == HOLDS


# What single claims quote, and the ways that are to agree


def test_two_ways_to_measure_must_agree() -> None:
    assert locality.head_claims(ON_CLS, {"untrained": LOCAL})[1].verdict == CLOSE  # CLS takes the mass
    farther_once = STEADY.assign(radius_90=9 + 0 * STEADY["radius_90"])
    assert locality.field_claims(farther_once, STEADY, {})[0].verdict == CLOSE
    half = LOCAL.copy(deep=True)
    half["distance"][:2] = [[28, 32, 40, 100], [28, 31, 40, 100]]
    assert locality.little_data_claim(half, LOCAL, LOCAL).verdict == CLOSE
    assert locality.small_model_claim(half, LOCAL, FAR).verdict == CLOSE


def test_numbers_beside_a_claim() -> None:
    low = structure.within_claims(*VIT_LIKE, {"untrained": ALIKE})[0]
    assert low.parts[0].estimate.value == pytest.approx(0.62, abs=0.005)
    assert low.note.startswith("ViT 0.82, CNN 0.20, untrained ViT ")
    mix, _ = locality.head_claims(LOCAL, {"untrained": FAR})
    assert mix.note.startswith(
        "block 0 from 20.0 to 100.0 px; block 1 from 30.0 to 100.0 px; untrained: block 0 from 6"
    )
    assert [part.estimate.value for part in mix.parts] == [30, 100]
    transition = skips.ratio_claims(TURNING, UNITS, {})[0]
    assert [part.estimate.value for part in transition.parts] == pytest.approx([4, 0.25])
    assert "blocks 3 and 4" in transition.note
    assert locality.little_data_claim(FAR, LOCAL, None).of == "few against model"


def test_a_unit_with_a_projected_skip_does_not_decide() -> None:
    exception = cnn_ratios([2.0] * 5 + [5.0], [False] * 5 + [True])
    assert skips.ratio_claims(ABOVE, exception, {})[1].verdict == HOLDS
    before = PEAKED.copy(deep=True)
    before["centre_mass"][1] = 0
    assert addition((PEAKED, before), {"untrained": (PEAKED, FLAT)})[1].verdict == HOLDS


def test_one_block_that_does_not_split_is_enough_against_the_claim() -> None:
    changed = {1: divided(0.2), 2: divided(0.9, block=2)}
    claim = skips.split_claim(divided(0.9), changed, divided(0.9), changed)
    assert claim.verdict == FAILS
    assert [claim.verdict_of(part) for part in claim.parts] == [HOLDS_TOO, FAILS]
    nothing_before = skips.split_claim(divided(0.9), {0: divided(0.2, block=0)}, divided(0.9), {0: divided(0.9)})
    assert nothing_before.verdict == CANNOT


# Sentences

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


@pytest.mark.parametrize("figure", FIGURES)
def test_sentences_follow_the_numbers(figure: str) -> None:
    claims, words, good, bad = FIGURES[figure]
    ask: Callable[..., Any] = claims  # type: ignore[assignment]
    said = {
        "good": words(ask(good, {"untrained": bad})),
        "bad": words(ask(bad, {"untrained": bad})),
        "matched": words(ask(good, {"untrained": good})),
        "close": words(ask(mixed(good, bad), {"untrained": bad})),
    }
    assert len(set(said.values())) == 4
    for text in said.values():
        assert text.endswith(".") and "not defined" not in text
    first = next(claim for claim in ask(good, {"untrained": bad}) if claim.verdict != CANNOT)
    assert any(part.words(part.estimate.value) in said["good"] for part in first.parts)


@pytest.mark.parametrize("figure", FIGURES)
def test_sentences_say_nothing_of_what_cannot_be_asked(figure: str) -> None:
    claims, words, good, bad = FIGURES[figure]
    ask: Callable[..., Any] = claims  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = words(ask(unknown(*good), {"untrained": unknown(*bad)}))
    assert "nan" not in said and "not defined" not in said
