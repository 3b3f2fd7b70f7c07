"""What claims of chapter 5 quote, what they are held against, and the sentences under its figures."""

import pytest
import xarray as xr
from claim_cases import SERIES
from made import scattered
from similarity_maps import curves, probes

from vitcnn_utils.claims import scale
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS
from vitcnn_utils.measures.cka import CEILING, FLOOR

LOW = probes(0.2, 0.1)


def test_both_series_have_one_ceiling_with_a_second_seed_or_without() -> None:
    alone = {label: ends for label, ends in SERIES.items() if label != CEILING}
    for one, other in zip(*map(scale.series_claims, (curves(SERIES), curves(alone))), strict=True):
        assert [(p.estimate, p.control) for p in one.parts] == [(p.estimate, p.control) for p in other.parts]


def test_one_part_of_the_data_has_no_order() -> None:
    alone = curves({"10 %": (0.9, 0.3), CEILING: (0.95, 0.9), FLOOR: (0.2, 0.1)})
    assert [claim.verdict for claim in scale.series_claims(alone)[1:]] == [CANNOT, CANNOT]


def test_claims_of_several_series_and_sets_have_names_of_their_own() -> None:
    of = {"ViT": LOW, "CNN": LOW, "ViT, untrained": LOW, "CNN, untrained": LOW}
    claims = [*scale.series_claims(curves(SERIES)), *scale.series_claims(curves(SERIES), "-smaller"),
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
    of = {"ViT": probes(0.2, 0.6), "ViT, small data": LOW, "ViT, second seed": probes(0.2, 0.5), "ViT, untrained": LOW}
    claim = scale.data_claims(of, {})[0]
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
    without = {label: ends for label, ends in SERIES.items() if label != CEILING}
    text = scale.series_words([curves(SERIES), curves(without, reference="zoo/small")])
    assert "zoo/ref, mean CKA of the lower third and of the upper half: 3 % 0.97 and 0.84, 10 % 0.99" in text
    assert "the model of 3 % of the data is farther from it than one of all data" in text
    assert text.count("another start") == 1 and "untrained 0.40 and 0.40." in text
    near = scale.series_words([curves(SERIES | {"3 %": (0.98, 0.98)})])
    assert "3 % of the data is as near to it as one" in near


def test_sentences_on_figure_13() -> None:
    both = xr.concat([probes(0.2, 0.6), probes(0.1, 0.2, readout="cls")], "readout")
    of = {"ViT": both, "CNN": probes(0.1, 0.4), "ViT, untrained": LOW, "CNN, untrained": LOW}
    text = scale.depth_words(of)
    assert text.startswith("At half depth the ViT's patches 40 %, its CLS token 15 %, the CNN 25 %.")
    assert "-10 to +15 points: the sign depends on how it is read" in text
    assert text.endswith("the ViT 25 and the CNN 10 points are learned.")
