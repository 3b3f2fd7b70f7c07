"""The one logic of all claims, what a card shows of it, and that the rule which is shown is the rule that decides."""

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import xarray as xr
from claim_cases import CASES

from vitcnn_utils.claims import table, unless
from vitcnn_utils.claims.cards import MIME, SCHEMA
from vitcnn_utils.claims.ledger import (
    CANNOT,
    CLOSE,
    FAILS,
    HOLDS,
    HOLDS_TOO,
    UNDECIDED,
    Claim,
    Estimate,
    Part,
    agreed,
    all_of,
    estimate,
)  # fmt: skip

NAN = float("nan")


@pytest.mark.parametrize(
    ("said", "all_", "agree"),
    [
        ([HOLDS, HOLDS], HOLDS, HOLDS),
        ([HOLDS, FAILS], FAILS, UNDECIDED),
        ([FAILS, FAILS], FAILS, FAILS),
        ([HOLDS, UNDECIDED], UNDECIDED, UNDECIDED),
        ([FAILS, UNDECIDED], FAILS, UNDECIDED),
        ([], UNDECIDED, UNDECIDED),
    ],
)
def test_three_values(said: list[str], all_: str, agree: str) -> None:
    assert all_of(said) == all_
    if said:
        assert agreed(said) == agree


def part(value: float, interval: tuple[float, float] | None = None, **more: object) -> Part:
    return Part("a number", Estimate(value, interval), **{"side": "above", "threshold": 0.5, "why": "So.", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("estimate", "above", "below"),
    [
        (Estimate(0.6), HOLDS, FAILS),
        (Estimate(0.5), FAILS, FAILS),  # neither above nor below
        (Estimate(0.6, (0.51, 0.7)), HOLDS, FAILS),
        (Estimate(0.6, (0.49, 0.7)), UNDECIDED, UNDECIDED),
        (Estimate(NAN), UNDECIDED, UNDECIDED),
        (Estimate(0.6, (NAN, NAN)), UNDECIDED, UNDECIDED),
        (Estimate(float("inf")), UNDECIDED, UNDECIDED),
    ],
)
def test_an_estimate_lies_beyond_a_threshold_with_its_whole_interval(estimate, above: str, below: str) -> None:
    assert part(0).says(estimate) == above
    assert part(0, side="below").says(estimate) == below


def claim(*parts: Part, **more: object) -> Claim:
    return Claim("fig-0-x", "0", "0", "The <paper> says.", parts, "It may mislead.", **more)  # type: ignore[arg-type]


YES, NO, OPEN, NOTHING = part(0.9), part(0.1), part(0.6, (0.4, 0.8)), part(NAN)


@pytest.mark.parametrize(
    ("asked", "verdict", "reason"),
    [
        (claim(YES), HOLDS, ""),
        (claim(NO, OPEN), FAILS, ""),
        (claim(NO, NOTHING), FAILS, ""),
        (claim(YES, OPEN), CLOSE, "in 4 of 5 cases, what lies 0.29 above the threshold (a number)"),
        (claim(YES, replace(OPEN, estimate=Estimate(0.6, (NAN, NAN), "9 images"))), CLOSE, "without some of 9 images"),
        (claim(YES, NO, together="agree"), CLOSE, "do not agree"),
        (claim(YES, NOTHING), CANNOT, "nothing to count"),
        (claim(YES, missing="no twin"), CANNOT, "no twin"),
        (claim(replace(YES, control=Estimate(0.7))), HOLDS_TOO, "it does not take training"),
        (claim(replace(YES, control=Estimate(0.7, (0.4, 1)))), HOLDS, ""),
        (claim(replace(YES, control=Estimate(NAN))), HOLDS, ""),
        (claim(replace(YES, control=Estimate(0.7)), YES), HOLDS, ""),  # the control meets one part only
        (claim(replace(NO, control=Estimate(0.7))), FAILS, ""),
        (claim(replace(YES, control=Estimate(-0.7, (-0.8, -0.6)))), HOLDS, ""),
        (
            claim(replace(YES, control=Estimate(-0.7, (-0.8, -0.6)), chance=True)),
            HOLDS_TOO,
            "it does not take training",
        ),
        (claim(replace(YES, control=Estimate(-0.4), chance=True)), HOLDS, ""),
        (
            claim(replace(YES, again=Estimate(0.1)), second="seed 2"),
            CLOSE,
            "another training says the reverse (seed 2)",
        ),
        (claim(replace(YES, again=Estimate(0.8))), HOLDS, ""),
        (claim(replace(YES, again=Estimate(0.6, (0.4, 0.8)))), HOLDS, ""),
    ],
)
def test_verdicts(asked: Claim, verdict: str, reason: str) -> None:
    assert asked.verdict == verdict
    assert reason in asked.reason and bool(reason) == bool(asked.reason)


# Intervals


def test_the_magnitude_of_an_interval_around_zero_starts_at_zero() -> None:
    assert Estimate(-1, (-3, 2)).magnitude() == Estimate(1, (0, 3))
    assert Estimate(-2, (-3, -1)).magnitude() == Estimate(2, (1, 3))
    assert Estimate(-2).magnitude() == Estimate(2)


def test_what_is_known_by_image_has_an_interval() -> None:
    by_image = np.random.default_rng(0).normal(50, 10, (200, 3, 4))
    over = {"distance": (("block", "head"), by_image.mean(0)), "entropy": (("block", "head"), np.ones((3, 4))),
            "distance_by_image": (("sample", "block", "head"), by_image)}  # fmt: skip
    heads = xr.Dataset(over)
    found = estimate(lambda h: float(h["distance"].mean()), heads)
    assert found.value == pytest.approx(by_image.mean())
    assert found.interval is not None and found.interval[1] - found.interval[0] == pytest.approx(0.8, abs=0.3)
    assert estimate(lambda h: float(h["entropy"].mean()), heads).interval is None
    assert estimate(lambda h: float(h["distance"].mean()), heads.isel(sample=[0])).interval is None


def test_a_claim_says_what_made_each_of_its_arrays() -> None:
    made = {"model": "a", "weights": "w", "images": "cats", "n_images": 9, "seed": 1, "device": "cpu", "commit": "c0"}
    own, other = (xr.DataArray(1.0, attrs=made | {"units": "1", "model": name}) for name in "ab")
    asked = claim(Part.of("a", float, (own,), "above", 0, "So.", control=(other,)), part(0.9),
                  Part.of("b", float, (own,), "below", 0, "So."))  # fmt: skip
    assert asked.as_json()["made_of"] == [made, made | {"model": "b"}]


def test_minibatches_left_out_give_an_interval_and_one_array_may_stay_the_same() -> None:
    cka = xr.DataArray([0.5, 0.4, 0.5, 0.6], {"left_out": [-1, 0, 1, 2]}, "left_out")
    found = estimate(lambda a, b: float(a - b), cka, xr.DataArray(0.1))
    # Tukey's standard error is 2 / 3**0.5 times the deviation 0.1, Student's quantile for 2 degrees of freedom 4.303.
    half = 4.303 * 2 / 3**0.5 * 0.1
    assert found.interval == pytest.approx((0.4 - half, 0.4 + half), abs=1e-3)


# Every claim of the book


@cache
def of_the_book(name: str) -> Claim:
    case = CASES[name]
    return case.claim(case.good, {"untrained": case.bad, "second seed": case.good})


@pytest.mark.parametrize("name", CASES)
def test_the_rule_that_is_shown_decides(name: str) -> None:
    """Side and threshold are read from the printed rule alone; they must decide as the claim does."""
    asked = of_the_book(name)
    shown = re.findall("<li>(.*?) \\((?:ours|the paper)\\)", table([asked])._repr_html_())
    assert len(shown) == len(asked.parts) > 0
    for rule, decided in zip(shown, asked.parts, strict=True):
        rule, either, _ = rule.partition("; the control counts in either direction")
        found = re.fullmatch(r".*: (above|below) (−?[\d.]+)(?:\s?[%a-zA-Z]+)?", rule)
        assert found, rule
        side, threshold = found[1], float(found[2].replace("−", "-"))
        assert bool(either) == decided.chance
        assert threshold == pytest.approx(decided.threshold, rel=1e-5)
        for value in (threshold - 0.01, threshold + 0.01, decided.estimate.value):
            holds = value > threshold if side == "above" else value < threshold
            expected = UNDECIDED if np.isnan(value) else HOLDS if holds else FAILS
            assert decided.says(Estimate(value)) == expected


# What is shown


def test_a_card_shows_the_verdict_first_and_escapes_every_name() -> None:
    hostile = "<img onerror=x>"
    made_of = ({"images": hostile, "n_images": 3},)
    own = replace(part(0.9), estimate=Estimate(0.9, (0.8, 1), "9 images"), made_of=made_of)
    asked = claim(replace(own, statistic=hostile, control=Estimate(0.2), again=Estimate(0.8)),
                  of=hostile, second=hostile, note=hostile)  # fmt: skip
    page = table([asked])._repr_html_()
    assert "<img" not in page and "<paper>" not in page
    words = re.sub("<[^>]+>", " ", page)
    assert words.index("Holds") < words.index("The &lt;paper&gt; says") < words.index("0.90") < words.index("The rule")
    assert "[0.80, 1.00] (9 images); untrained: 0.20" in words
    assert "<details><summary>" in page and 'role="img"' in page


def test_a_picture_has_threshold_estimate_control_and_second_training() -> None:
    asked = claim(replace(part(0.9, (0.8, 1)), control=Estimate(0.2), again=Estimate(0.8)), second="seed 2")
    page = table([asked])._repr_html_()
    assert (page.count("<circle"), page.count("<rect"), page.count("<line")) == (2, 2, 2)  # a rectangle is the ground
    x = [float(at) for at in re.findall('<circle cx="([^"]+)"', page)]
    threshold = float(re.findall('<line x1="([^"]+)" x2="[^"]+" y1="0"', page)[0])
    assert x[1] < threshold < x[0]  # control, threshold, estimate


@pytest.mark.parametrize("interval", [(NAN, NAN), (0.8, float("inf"))])
def test_an_interval_that_is_not_known_is_not_drawn(interval: tuple[float, float]) -> None:
    page = table([claim(part(0.9, interval))])._repr_html_()
    picture = re.findall("<svg.*?</svg>", page)[0].split("aria-label", 1)[1].partition("viewBox")[2]
    assert picture.count("<line") == 1 and "nan" not in picture and "inf" not in picture


def test_what_is_missing_is_said() -> None:
    page = table([claim(NOTHING, missing="this edition has no twin")])._repr_html_()
    assert "Cannot be asked here" in page and "this edition has no twin" in page and "<svg" not in page
    one_draw = replace(YES, estimate=Estimate(0.9, over="one draw"))
    page = table([claim(one_draw, uncontrolled="Nothing is learned before training.")])._repr_html_()
    assert "no interval (one draw); no control" in page and "Nothing is learned before training." in page


def test_a_control_has_its_own_name_in_the_verdict() -> None:
    asked = claim(replace(YES, control=Estimate(0.7)), control="another start")
    assert repr(table([asked])).startswith("[holds, another start too] The <paper> says.")
    assert asked.reason == "the control (another start) meets the rule as well"


def test_a_notebook_carries_the_claims_as_data() -> None:
    claims = [of_the_book(name) for name in CASES]
    bundle = table(claims)._repr_mimebundle_()
    data = json.loads(json.dumps(bundle[MIME], allow_nan=False))
    assert data["schema"] == SCHEMA
    assert [one["verdict"] for one in data["claims"]] == [claim.verdict for claim in claims]
    first = data["claims"][0]["parts"][0]
    assert first["rule"] == claims[0].parts[0].rule and first["threshold"] == 0.05
    assert bundle["text/plain"].count("\n") == len(claims) - 1


def test_claims_that_cannot_be_asked_say_why() -> None:
    asked, without = unless("two lengths", [claim(YES), claim(YES, missing="no twin")])
    assert (asked.verdict, asked.reason, without.reason) == (CANNOT, "two lengths", "no twin")
    assert unless("", [claim(YES)])[0].verdict == HOLDS
