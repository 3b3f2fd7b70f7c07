"""Claims of chapter 5, on curves whose answer is known."""

import numpy as np
import pytest
import xarray as xr
from similarity_maps import curves, probes

from vitcnn_utils.claims import scale
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO
from vitcnn_utils.measures.cka import CEILING, FLOOR

PAPER = {"3 %": (0.99, 0.35), "10 %": (0.99, 0.5), "30 %": (0.99, 0.65), CEILING: (0.97, 0.97), FLOOR: (0.4, 0.4)}


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        ({"3 %": (1.0, 0.8)}, [HOLDS, HOLDS, FAILS]),
        ({}, [FAILS, HOLDS, HOLDS]),  # the lower third falls below 0.9 already
        ({"3 %": (0.5, 0.5), "10 %": (0.5, 0.5), "30 %": (0.5, 0.5)}, [FAILS, FAILS, FAILS]),
        ({"3 %": (0.3, 0.9), "10 %": (0.6, 0.7), "30 %": (0.7, 0.5)}, [FAILS, FAILS, FAILS]),
        # The untrained model is as alike in low blocks; another start falls as much with depth.
        ({"3 %": (1.0, 0.8), FLOOR: (1.0, 0.8), CEILING: (1.0, 0.8)}, [HOLDS_TOO, HOLDS_TOO, FAILS]),
    ],
)
def test_verdicts_of_figure_12(change: dict[str, tuple[float, float]], verdicts: list[str]) -> None:
    assert [claim.verdict for claim in scale.series_claims(curves(PAPER | change))] == verdicts


def test_a_series_without_a_second_seed_has_the_same_ceiling() -> None:
    alone = {label: ends for label, ends in PAPER.items() if label != CEILING}
    with_seed, without = scale.series_claims(curves(PAPER)), scale.series_claims(curves(alone))
    for one, other in zip(with_seed, without, strict=True):
        assert [part.estimate for part in one.parts] == [part.estimate for part in other.parts]
    assert without[1].parts[0].control is None


def test_one_part_of_the_data_has_no_order() -> None:
    alone = curves({"10 %": (0.9, 0.3), CEILING: (0.95, 0.9), FLOOR: (0.2, 0.1)})
    assert scale.series_claims(alone)[2].verdict == CANNOT


@pytest.mark.parametrize(
    ("small_end", "equally_long", "floor", "verdict"),
    [(0.8, True, 0.1, HOLDS), (0.8, True, 0.8, HOLDS_TOO), (0.0, True, 0.1, FAILS), (0.8, False, 0.1, CANNOT)],
)
def test_the_claim_on_size(small_end: float, equally_long: bool, floor: float, verdict: str) -> None:
    small = curves({"3 %": (0.95, small_end), FLOOR: (0.4, floor)}, count=6)
    large = curves({"3 %": (0.95, 0.2), FLOOR: (0.4, 0.1)}, count=6)
    assert scale.size_claim(large, small, equally_long).verdict == verdict


# Figure 13


def scattered(start: float, end: float, readout: str = "mean") -> xr.Dataset:
    """Probe curves of which the draws differ by two points."""
    one = probes(start, end, readout=readout)
    one["accuracy"] = one["accuracy"] + 0.02 * xr.DataArray([-1, 0, 1], dims="draw")
    return one


LOW = probes(0.2, 0.1)


@pytest.mark.parametrize(("end", "verdict"), [(0.8, HOLDS), (0.3, FAILS), (0.05, FAILS), (0.44, CLOSE)])
def test_verdicts_on_more_data(end: float, verdict: str) -> None:
    claim = scale.data_claim(scattered(0.2, end), probes(0.2, 0.3), LOW, "ViT")
    assert claim.verdict == verdict
    assert claim.of == "ViT, cifar10"
    assert "untrained 15.0 and 10.0 %" in claim.note


def test_more_data_have_an_interval_over_draws() -> None:
    (part,) = scale.data_claim(scattered(0.2, 0.6), probes(0.2, 0.4), LOW, "CNN").parts
    assert part.estimate.value == pytest.approx(10)
    # Student's quantile for 2 degrees of freedom is 4.303; the standard error of -2, 0, 2 is 2 / sqrt(3).
    assert part.estimate.interval == pytest.approx((10 - 4.303 * 2 / 3**0.5, 10 + 4.303 * 2 / 3**0.5), abs=0.01)


@pytest.mark.parametrize(
    ("vit", "cnn", "untrained", "verdict"),
    [
        ((0.2, 0.6), (0.1, 0.3), LOW, HOLDS),
        ((0.2, 0.6), (0.1, 0.3), probes(0.3, 0.5), HOLDS_TOO),
        ((0.1, 0.3), (0.2, 0.6), LOW, FAILS),
        ((0.2, 0.6), (0.2, 0.6), LOW, FAILS),
        ((np.nan, np.nan), (0.2, 0.6), LOW, CANNOT),
    ],
)
def test_verdicts_on_architecture(vit: tuple, cnn: tuple, untrained: xr.Dataset, verdict: str) -> None:
    (claim,) = scale.architecture_claims(probes(*vit), probes(*cnn), untrained, LOW)
    assert claim.verdict == verdict


def test_each_way_to_read_a_vit_is_a_claim() -> None:
    both = xr.concat([probes(0.2, 0.6), probes(0.1, 0.3, readout="cls")], "readout")
    claims = scale.architecture_claims(both, probes(0.1, 0.3), LOW, LOW, gap=probes(0.2, 0.6))
    assert [claim.verdict for claim in claims] == [HOLDS, FAILS, HOLDS]
    assert len({claim.id for claim in claims}) == 3


def test_a_lead_at_one_depth_only_is_too_close_to_call() -> None:
    level = probes(0.3, 0.3)
    peaked = probes(0.3, 0.3, depths=(0, 0.49, 0.5, 0.51, 1))
    peaked["accuracy"][2] = 0.5
    assert scale.architecture_claims(peaked, level, level, level)[0].verdict == CLOSE
