"""Each claim of chapters 1 to 5 in each of the verdicts, what it quotes, and the sentences under its figure."""

import warnings

import claim_cases as given
import pytest
import xarray as xr
from claim_cases import CASES, FIGURES, SERIES, Case, mixed, unknown
from made import cnn_ratios, divided, probe_curves, scattered, token_map
from similarity_maps import curves, probes

from vitcnn_utils.claims import locality, localization, scale, skips, structure
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO
from vitcnn_utils.measures.cka import CEILING, FLOOR

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


# What single claims quote, what they are held against, and the ways that are to agree


def test_two_ways_to_measure_must_agree() -> None:
    assert locality.head_claims(given.ON_CLS, {"untrained": given.LOCAL})[1].verdict == CLOSE  # CLS takes the mass
    farther_once = given.STEADY.assign(radius_90=9 + 0 * given.STEADY["radius_90"])
    assert locality.field_claims(farther_once, given.STEADY, {})[0].verdict == CLOSE
    half = given.LOCAL.copy(deep=True)
    half["distance"][:2] = [[28, 32, 40, 100], [28, 31, 40, 100]]
    assert given.figure_4((half, given.LOCAL), {"untrained": (given.LOCAL, None)})[0].verdict == CLOSE
    assert given.figure_4((half, given.LOCAL), {"untrained": (given.FAR, None)})[2].verdict == CLOSE


def test_numbers_beside_a_claim() -> None:
    low = structure.within_claims(*given.VIT_LIKE, {"untrained": given.ALIKE})[0]
    assert low.parts[0].estimate.value == pytest.approx(0.62, abs=0.005)
    assert low.note.startswith("ViT 0.82, CNN 0.20, untrained ViT ")
    mix, _ = locality.head_claims(given.LOCAL, {"untrained": given.FAR})
    assert mix.note.startswith(
        "block 0 from 20.0 to 100.0 px; block 1 from 30.0 to 100.0 px; untrained: block 0 from 6"
    )
    assert [part.estimate.value for part in mix.parts] == [30, 100]
    few, _ = locality.little_data_claims({locality.LITTLE: given.FAR, locality.ALL: given.LOCAL}, {})
    assert few.of == "few against model" and few.parts[0].control is None
    transition = skips.ratio_claims(given.TURNING, given.UNITS, {})[0]
    assert [part.estimate.value for part in transition.parts] == pytest.approx([4, 0.25])
    assert "blocks 3 and 4" in transition.note
    interior = localization.interior_tokens(given.OWN, {})
    assert interior.parts[0].estimate.value == pytest.approx(100) and "100% of 9 tokens" in interior.note
    lead = localization.readout_matters(given.stage(5, 5), given.stage(5, 1), (given.OWN, given.OWN), {})
    assert "by block: +0, " in lead.note


def test_a_unit_with_a_projected_skip_does_not_decide() -> None:
    exception = cnn_ratios([2.0] * 5 + [5.0], [False] * 5 + [True])
    assert skips.ratio_claims(given.ABOVE, exception, {})[1].verdict == HOLDS
    before = given.PEAKED.copy(deep=True)
    before["centre_mass"][1] = 0
    assert given.addition((given.PEAKED, before), {"untrained": (given.PEAKED, given.FLAT)})[1].verdict == HOLDS


def test_one_block_that_does_not_split_is_enough_against_the_claim() -> None:
    changed = {1: divided(0.2), 2: divided(0.9, block=2)}
    claim = skips.split_claim(divided(0.9), changed, divided(0.9), changed)
    assert claim.verdict == FAILS
    assert [claim.verdict_of(part) for part in claim.parts] == [HOLDS_TOO, FAILS]
    nothing_before = skips.split_claim(divided(0.9), {0: divided(0.2, block=0)}, divided(0.9), {0: divided(0.9)})
    assert nothing_before.verdict == CANNOT


def test_single_tokens_without_a_twin_have_no_control() -> None:
    cls, gap = given.tokens(0.2, 0.5)
    claim = localization.single_tokens(cls, {"ViT-GAP": gap}, {"ViT": gap}, {"second": gap})
    assert claim.parts[0].control is None and "second 50.0 %; chance 10%" in claim.note


def test_probes_have_an_interval_over_draws() -> None:
    (gap,) = given.one_token(0.5, 0.51)
    claim = localization.one_token_is_all(scattered(gap, 0.05, "token"), gap)
    assert claim.verdict == CLOSE and "4 draws would show" in claim.reason
    of = {"CNN": scattered(probes(0.2, 0.6), 0.02), "CNN, small data": probes(0.2, 0.4)}
    ((part,),) = (claim.parts for claim in scale.data_claims(of, {}))
    # Deviations of 4 / 3, -8 / 3, 4 / 3 points; Student's quantile for 2 degrees of freedom is 4.303.
    half = 4.303 * (16 / 3) ** 0.5 / 3**0.5
    assert part.estimate.value == pytest.approx(10) and part.control is None
    assert part.estimate.interval == pytest.approx((10 - half, 10 + half), abs=0.01)


WITHOUT_CEILING = {label: ends for label, ends in SERIES.items() if label != CEILING}
LOW = probes(0.2, 0.1)
BOTH = xr.concat([probes(0.2, 0.6), probes(0.1, 0.3, readout="cls")], "readout")
PAIR = {"ViT": LOW, "CNN": LOW, "ViT, untrained": LOW, "CNN, untrained": LOW}


def test_claims_on_series_need_no_second_seed_but_an_order() -> None:
    for one, other in zip(*map(scale.series_claims, (curves(SERIES), curves(WITHOUT_CEILING))), strict=True):
        assert [(p.estimate, p.control) for p in one.parts] == [(p.estimate, p.control) for p in other.parts]
    one_part = curves({"10 %": (0.9, 0.3), CEILING: (0.95, 0.9), FLOOR: (0.2, 0.1)})
    assert [claim.verdict for claim in scale.series_claims(one_part)[1:]] == [CANNOT, CANNOT]


def test_claims_of_several_series_and_sets_have_names_of_their_own() -> None:
    claims = [*scale.series_claims(curves(SERIES)), *scale.series_claims(curves(SERIES), "-smaller"),
              *scale.architecture_claims(PAIR), *scale.architecture_claims(PAIR, "-transfer")]  # fmt: skip
    assert len({claim.id for claim in claims}) == len(claims) == 8


def test_all_data_from_either_start_are_compared_with_the_part() -> None:
    of = {"ViT": probes(0.2, 0.6), "ViT, small data": LOW, "ViT, second seed": probes(0.2, 0.5), "ViT, untrained": LOW}
    claims = scale.data_claims(of, {"ViT": "9 steps against 3"}, "-transfer")
    assert [claim.id for claim in claims] == ["fig-13-data-vit-transfer", "fig-13-data-vit-second-seed-transfer"]
    assert [claim.of for claim in claims] == ["ViT, cifar10", "ViT, second seed, cifar10"]
    assert (claims[0].verdict, claims[0].reason) == (CANNOT, "9 steps against 3") and claims[1].verdict != CANNOT
    for quoted in ("untrained 15.0 and 10.0 %", "another start with all data 35.0 and 50.0 %"):
        assert quoted in claims[0].note


def test_each_way_to_read_a_vit_is_a_claim() -> None:
    of = PAIR | {"ViT": BOTH, "CNN": probes(0.1, 0.3), "ViT-GAP": probes(0.2, 0.6), "ViT-GAP, untrained": LOW}
    assert [claim.verdict for claim in scale.architecture_claims(of)] == [HOLDS, FAILS, HOLDS]
    again = scale.architecture_claims(of | {"ViT, second seed": probes(0.1, 0.3)})
    assert [claim.verdict for claim in again] == [CLOSE, FAILS, HOLDS]


def test_a_lead_at_one_depth_only_is_too_close_to_call() -> None:
    level, peaked = probes(0.3, 0.3), probes(0.3, 0.3, depths=(0, 0.49, 0.5, 0.51, 1))
    peaked["accuracy"][2] = 0.5
    assert scale.architecture_claims(dict.fromkeys(PAIR, level) | {"ViT": peaked})[0].verdict == CLOSE


# Sentences under the figures


@pytest.mark.parametrize("figure", FIGURES)
def test_sentences_follow_the_numbers(figure: str) -> None:
    claims, words, good, bad = FIGURES[figure]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means of nothing
        said = {
            "good": words(claims(good, {"untrained": bad})),
            "bad": words(claims(bad, {"untrained": bad})),
            "matched": words(claims(good, {"untrained": good})),
            "close": words(claims(mixed(good, bad), {"untrained": bad})),
            "unknown": words(claims(unknown(*good), {"untrained": unknown(*bad)})),
        }
    assert len(set(said.values())) == 5
    assert not any(word in text for text in said.values() for word in ("not defined", "nan"))
    first = next(claim for claim in claims(good, {"untrained": bad}) if claim.verdict != CANNOT)
    assert any(part.words(part.estimate.value) in said["good"] for part in first.parts)


def test_sentences_on_figure_9() -> None:
    (vit,) = mixed((given.OWN,), (given.OWN,))
    text = localization.place_words(vit, given.OWN, {"CNN, last unit": given.ELSEWHERE}, token_map(1.0, 0.3))
    assert text.startswith("100 % of the tokens of the ViT's last block")
    assert "Training has not moved tokens off their places: before it, 100 %" in text
    assert "own patch; CNN, last unit: 4 %." in text and "0.10 on average, where raw patches have 0.30" in text
    assert "Training has moved many tokens" in localization.place_words(given.ELSEWHERE, given.OWN, {}, given.OWN)


def test_sentences_on_figure_10() -> None:
    text = localization.readout_words(given.stage(5, 5, 5), given.stage(4, 4, 1))
    assert (
        "last block 100 % of" in text
        and "CLS leads by +20 points; the lead of CLS changes most with block 2, where" in text
    )


def test_sentences_on_figure_11() -> None:
    vit = probe_curves(token=[0.1, 0.3], mean=[0.1, 0.7], cls=[0.1, 0.85])
    gap = probe_curves(token=[0.1, 0.6], mean=[0.1, 0.65])
    text = localization.token_words({"ViT": vit, "ViT-GAP": gap, "CNN": gap})
    assert "CLS token gives 85 % and all patches pooled 70 %: what CLS knows is not in their average" in text
    assert "the ViT gives 30 %, the ViT-GAP 60 %, the CNN 60 %" in text and "CLS 40 points and the one" in text
    assert localization.token_words({"ViT": vit}).endswith("the ViT gives 30 %.")


def test_sentences_on_figure_12() -> None:
    text = scale.series_words([curves(SERIES), curves(WITHOUT_CEILING, reference="zoo/small")])
    assert "zoo/ref, mean CKA of the lower third and of the upper half: 3 % 0.97 and 0.84, 10 % 0.99" in text
    assert "the model of 3 % of the data is farther from that model than one of all data" in text
    assert text.count("another start") == 1 and "untrained 0.40 and 0.40." in text
    near = scale.series_words([curves(SERIES | {"3 %": (0.98, 0.98)})])
    assert "3 % of the data is as near to that model as one" in near


def test_sentences_on_figure_13() -> None:
    text = scale.depth_words(PAIR | {"ViT": BOTH, "CNN": probes(0.1, 0.4)})
    assert text.startswith("At half depth the ViT's patches 40 %, its CLS token 20 %, the CNN 25 %.")
    assert "by -5 to +15 points: the sign depends on how it is read." in text
    assert text.endswith("the ViT 25 and the CNN 10 points are learned.")
