"""Claims of chapter 5, on curves whose answer is known."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from made import Cases, scattered, unsteady, verdicts
from similarity_maps import curves, probes

from vitcnn_utils.claims import scale
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO, Claim
from vitcnn_utils.measures.cka import CEILING, FLOOR

PAPER = {"3 %": (1.0, 0.8), "10 %": (1.0, 0.9), "30 %": (1.0, 0.95), CEILING: (0.97, 0.97), FLOOR: (0.4, 0.4)}
FLAT = {"3 %": (0.5, 0.5), "10 %": (0.5, 0.5), "30 %": (0.5, 0.5)}


# Figure 12


def series(claim: int, change: Any = None, without: Any = None, **more: Any) -> Claim:
    """A claim on the series of the paper, changed; without: the same where one of two minibatches is left out."""
    every = curves(PAPER | (change or {}), **more)
    return scale.series_claims(every if without is None else unsteady(every, every, curves(PAPER | without)))[claim]


def low(**arrays: Any) -> Claim:
    return series(0, **arrays)


def high(**arrays: Any) -> Claim:
    return series(1, **arrays)


def more_data(**arrays: Any) -> Claim:
    return series(2, **arrays)


def size(small: Any = (1.0, 0.8), floor: float = 0.1, equally_long: bool = True, without: Any = None) -> Claim:
    large, of_small = (curves({"3 %": ends, FLOOR: (0.4, f)}) for ends, f in (((1.0, 0.2), 0.1), (small, floor)))
    if without is not None:
        large = unsteady(large, large, large)
        of_small = unsteady(of_small, of_small, curves({"3 %": without, FLOOR: (0.4, floor)}))
    return scale.size_claim(large, of_small, equally_long)


# Figure 13

LOW = probes(0.2, 0.1)


def data(full: Any = 0.8, by: float = 0.0, another: Any = 0.8) -> Claim:
    """Half depth of the part of the data: 25 %."""
    of_all, other = (scattered(probes(0.2, end), by) for end in (full, another))
    return scale.data_claims({"ViT": of_all, "ViT, small data": probes(0.2, 0.3), "ViT, second seed": other,
                              "ViT, untrained": LOW}, {})[0]  # fmt: skip


def architecture(vit: Any = (0.2, 0.6), cnn: Any = (0.1, 0.3), twin: Any = LOW, by: float = 0.0) -> Claim:
    of = {"ViT": scattered(probes(*vit), by), "CNN": probes(*cnn), "ViT, untrained": twin, "CNN, untrained": LOW}
    return scale.architecture_claims(of)[0]


NO_CONTROL = "no untrained model has seen a part of the data"
CASES: Cases = {
    "low": (low, {
        HOLDS: {}, HOLDS_TOO: {"change": {FLOOR: (1.0, 0.8)}}, FAILS: {"change": {"3 %": (0.8, 0.8)}},
        CLOSE: {"without": {"3 %": (0.7, 0.8)}}, CANNOT: {"change": {"3 %": (np.nan, 0.8)}}}),
    "high": (high, {
        HOLDS: {}, HOLDS_TOO: NO_CONTROL, FAILS: {"change": FLAT}, CLOSE: {"without": FLAT},
        CANNOT: {"change": {"3 %": (np.nan, np.nan)}}}),
    "more data": (more_data, {
        HOLDS: {}, HOLDS_TOO: NO_CONTROL, FAILS: {"change": {"10 %": (1.0, 0.7)}},
        CLOSE: {"without": {"10 %": (1.0, 0.7)}}, CANNOT: {"change": {"30 %": (np.nan, np.nan)}}}),
    "size": (size, {
        HOLDS: {}, HOLDS_TOO: {"floor": 0.8}, FAILS: {"small": (1.0, 0.0)}, CLOSE: {"without": (1.0, 0.0)},
        CANNOT: {"equally_long": False}}),
    "data": (data, {
        HOLDS: {}, HOLDS_TOO: {"another": 0.4}, FAILS: {"full": 0.3}, CLOSE: {"full": 0.44, "by": 0.1},
        CANNOT: {"full": np.nan}}),
    "architecture": (architecture, {
        HOLDS: {}, HOLDS_TOO: {"twin": probes(0.3, 0.5)}, FAILS: {"vit": (0.1, 0.3)}, CLOSE: {"by": 0.1},
        CANNOT: {"vit": (np.nan, np.nan)}}),
}  # fmt: skip


@pytest.mark.parametrize(("make", "arrays", "verdict"), verdicts(CASES))
def test_verdicts(make: Any, arrays: Any, verdict: str) -> None:
    assert make(**arrays).verdict == verdict


def test_both_series_have_one_ceiling_with_a_second_seed_or_without() -> None:
    alone = {label: ends for label, ends in PAPER.items() if label != CEILING}
    for one, other in zip(*map(scale.series_claims, (curves(PAPER), curves(alone))), strict=True):
        assert [(p.estimate, p.control) for p in one.parts] == [(p.estimate, p.control) for p in other.parts]


def test_a_fall_with_depth_that_more_data_leave_is_no_need_for_data() -> None:
    assert high(change=dict.fromkeys(("3 %", "10 %", "30 %"), (0.9, 0.3))).verdict == FAILS


def test_one_part_of_the_data_has_no_order() -> None:
    alone = curves({"10 %": (0.9, 0.3), CEILING: (0.95, 0.9), FLOOR: (0.2, 0.1)})
    assert [claim.verdict for claim in scale.series_claims(alone)[1:]] == [CANNOT, CANNOT]


def test_claims_of_several_series_and_sets_have_names_of_their_own() -> None:
    of = {"ViT": LOW, "CNN": LOW, "ViT, untrained": LOW, "CNN, untrained": LOW}
    claims = [*scale.series_claims(curves(PAPER)), *scale.series_claims(curves(PAPER), "-smaller"),
              *scale.architecture_claims(of), *scale.architecture_claims(of, "-transfer")]  # fmt: skip
    assert len({claim.id for claim in claims}) == len(claims) == 8


def test_more_data_have_an_interval_over_draws() -> None:
    of = {"CNN": scattered(probes(0.2, 0.6), 0.02), "CNN, small data": probes(0.2, 0.4)}
    ((part,),) = (claim.parts for claim in scale.data_claims(of, {}))
    assert part.estimate.value == pytest.approx(10)
    # Deviations of 4 / 3, -8 / 3, 4 / 3 points; Student's quantile for 2 degrees of freedom is 4.303.
    half = 4.303 * (16 / 3) ** 0.5 / 3**0.5
    assert part.estimate.interval == pytest.approx((10 - half, 10 + half), abs=0.01)
    assert part.control is None


def test_all_data_from_either_start_are_compared_with_the_part() -> None:
    of = {"ViT": LOW, "ViT, small data": LOW, "ViT, second seed": LOW}
    claims = scale.data_claims(of, {"ViT": ", 9 steps against 3"}, "-transfer")
    assert [claim.id for claim in claims] == ["fig-13-data-vit-transfer", "fig-13-data-vit-second-seed-transfer"]
    assert [claim.of for claim in claims] == ["ViT, 9 steps against 3, cifar10", "ViT, second seed, cifar10"]


def test_the_note_on_data_names_every_model() -> None:
    claim = data(full=0.6, another=0.5)
    assert claim.of == "ViT, cifar10"
    assert "untrained 15.0 and 10.0 %" in claim.note and "another start with all data 35.0 and 50.0 %" in claim.note


def test_each_way_to_read_a_vit_is_a_claim() -> None:
    both = xr.concat([probes(0.2, 0.6), probes(0.1, 0.3, readout="cls")], "readout")
    of = {"ViT": both, "CNN": probes(0.1, 0.3), "ViT, untrained": LOW, "CNN, untrained": LOW,
          "ViT-GAP": probes(0.2, 0.6)}  # fmt: skip
    claims = scale.architecture_claims(of)
    assert [claim.verdict for claim in claims] == [HOLDS, FAILS, HOLDS]
    again = scale.architecture_claims(of | {"ViT, second seed": probes(0.1, 0.3)})
    assert [claim.verdict for claim in again] == [CLOSE, FAILS, HOLDS]


def test_a_lead_at_one_depth_only_is_too_close_to_call() -> None:
    level, peaked = probes(0.3, 0.3), probes(0.3, 0.3, depths=(0, 0.49, 0.5, 0.51, 1))
    peaked["accuracy"][2] = 0.5
    of = {"ViT": peaked} | dict.fromkeys(("CNN", "ViT, untrained", "CNN, untrained"), level)
    assert scale.architecture_claims(of)[0].verdict == CLOSE


# What the figures show


def test_sentences_on_figure_12() -> None:
    without = {label: ends for label, ends in PAPER.items() if label != CEILING}
    text = scale.series_words([curves(PAPER), curves(without, reference="zoo/small")])
    assert "zoo/ref, mean CKA of the lower third and of the upper half: 3 % 0.97 and 0.84, 10 % 0.99" in text
    assert "the model of 3 % of the data is farther from it than one of all data" in text
    assert text.count("another start") == 1 and "untrained 0.40 and 0.40." in text
    near = scale.series_words([curves(PAPER | {"3 %": (0.98, 0.98)})])
    assert "3 % of the data is as near to it as one" in near


def test_sentences_on_figure_13() -> None:
    both = xr.concat([probes(0.2, 0.6), probes(0.1, 0.2, readout="cls")], "readout")
    of = {"ViT": both, "CNN": probes(0.1, 0.4), "ViT, untrained": LOW, "CNN, untrained": LOW}
    text = scale.depth_words(of)
    assert text.startswith("At half depth the ViT's patches 40 %, its CLS token 15 %, the CNN 25 %.")
    assert "-10 to +15 points: the sign depends on how it is read" in text
    assert text.endswith("the ViT 25 and the CNN 10 points are learned.")
