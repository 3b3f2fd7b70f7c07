"""Claims of chapter 4: where they hold, fail, are matched by a control, are too close, or cannot be asked."""

from typing import Any

import pytest
import xarray as xr
from made import elsewhere, layers, probe_curves, token_map

from vitcnn_utils.claims import localization as claims
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO

OWN, ELSEWHERE = token_map(), elsewhere()


def partly(right: int) -> xr.DataArray:
    """The first rows of tokens are most like their own patch, all others like the first patch."""
    values = elsewhere()
    values[:right] = OWN[:right]
    return values


# Figures 9 and 10


@pytest.mark.parametrize(
    ("of_vit", "controls", "verdict"),
    [
        (OWN, {"untrained": ELSEWHERE}, HOLDS),
        (OWN, {"untrained": OWN}, HOLDS_TOO),
        (OWN, {"untrained": ELSEWHERE, "second seed": ELSEWHERE}, CLOSE),
        (ELSEWHERE, {"untrained": OWN}, FAILS),
        (token_map(grid=2), {}, CANNOT),
    ],
)
def test_interior_tokens(of_vit: xr.DataArray, controls: dict[str, xr.DataArray], verdict: str) -> None:
    assert claims.interior_tokens(of_vit, controls).verdict == verdict


def test_interior_tokens_are_counted() -> None:
    claim = claims.interior_tokens(OWN, {})
    assert "100% of 9 tokens" in claim.note
    assert claim.parts[0].estimate.value == pytest.approx(100)


@pytest.mark.parametrize(
    ("tokens", "patches", "untrained", "verdict"),
    [
        (0.2, 0.0, 0.0, HOLDS),
        (0.2, 0.0, 0.2, HOLDS_TOO),
        (0.2, 0.3, 0.0, FAILS),  # raw patches are more so
        (-0.05, -0.09, 0.0, FAILS),
    ],
)
def test_border_tokens(tokens: float, patches: float, untrained: float, verdict: str) -> None:
    controls = {"untrained": token_map(border=untrained)}
    assert claims.border_tokens(token_map(border=tokens), token_map(border=patches), controls).verdict == verdict


def test_border_tokens_need_an_interior() -> None:
    small = token_map(grid=2)
    assert claims.border_tokens(small, small, {}).verdict == CANNOT


@pytest.mark.parametrize(
    ("vit", "cnn", "untrained", "verdict"),
    [
        (OWN, elsewhere()[:3, :3, :3, :3], ELSEWHERE, HOLDS),
        (OWN, elsewhere(), OWN, HOLDS_TOO),
        (OWN, token_map(grid=4), ELSEWHERE, FAILS),  # equally well
        (ELSEWHERE, OWN, ELSEWHERE, FAILS),
        (OWN * float("nan"), OWN, ELSEWHERE, CANNOT),
    ],
)
def test_vit_over_cnn(vit: xr.DataArray, cnn: xr.DataArray, untrained: xr.DataArray, verdict: str) -> None:
    claim = claims.vit_over_cnn(vit, {"CNN, last unit": cnn, "CNN, stage before": OWN}, {"untrained": untrained})
    assert claim.verdict == verdict
    assert "CNN, stage before 100 %" in claim.note


@pytest.mark.parametrize(
    ("units", "vit", "verdict"),
    [((4, 3, 2), 5, HOLDS), ((2, 3, 4), 5, FAILS), ((4, 4, 4), 5, FAILS), ((4, 3, 2), 3, FAILS), ((3,), 5, CANNOT)],
)
def test_last_stage(units: tuple[int, ...], vit: int, verdict: str) -> None:
    assert claims.last_stage(partly(vit), layers(*map(partly, units))).verdict == verdict


@pytest.mark.parametrize(
    ("gap", "second", "verdict"),
    [(1, OWN, HOLDS), (5, OWN, FAILS), (3, partly(2), CLOSE)],  # the last: a second model with CLS is below GAP
)
def test_the_readout_matters_in_the_last_block(gap: int, second: xr.DataArray, verdict: str) -> None:
    of_gap = layers(OWN, partly(gap))
    claim = claims.readout_matters(layers(OWN, OWN), of_gap, {"untrained": of_gap, "second": layers(second)})
    assert claim.verdict == verdict
    assert "by block: +0, " in claim.note


# Figure 11


@pytest.mark.parametrize(("gap", "verdict"), [(0.50, HOLDS), (0.25, FAILS), (0.30, CLOSE)])
def test_single_tokens(gap: float, verdict: str) -> None:
    cls = probe_curves(token=[0.1, 0.2])
    of_gap = probe_curves(token=[0.1, gap])
    of_gap["accuracy"] = of_gap["accuracy"] + xr.DataArray([0.002, -0.002, 0, 0], dims="draw")
    claim = claims.single_tokens(cls, {"GAP": of_gap, "CNN": probe_curves(token=[0.1, 0.6])}, {"untrained": cls})
    assert claim.verdict == verdict
    assert "untrained 20.0 ± 0.1 %" in claim.note


@pytest.mark.parametrize(("pooled", "verdict"), [(0.51, HOLDS), (0.60, FAILS)])
def test_one_token_of_gap_is_as_good_as_all(pooled: float, verdict: str) -> None:
    assert claims.one_token_is_all(probe_curves(token=[0.1, 0.5], mean=[0.1, pooled])).verdict == verdict


@pytest.mark.parametrize(("gap", "verdict"), [(0.51, HOLDS), (0.60, FAILS)])
def test_native_readouts(gap: float, verdict: str) -> None:
    assert claims.native_readouts(probe_curves(cls=[0.1, 0.5]), probe_curves(mean=[0.1, gap])).verdict == verdict


def test_native_readouts_at_the_margin_are_too_close_to_call() -> None:
    gap = probe_curves(mean=[0.1, 0.53])
    gap["accuracy"] = gap["accuracy"] + xr.DataArray([0.02, -0.02, -0.02, 0.02], dims="draw")
    assert claims.native_readouts(probe_curves(cls=[0.1, 0.5]), gap).verdict == CLOSE


@pytest.mark.parametrize(
    ("cls", "mean", "verdict"),
    [
        ([0.2, 0.4, 0.5, 0.7], [0.2, 0.4, 0.5, 0.52], HOLDS),
        ([0.2, 0.4, 0.5, 0.6], [0.2, 0.4, 0.5, 0.7], FAILS),
        ([0.2, 0.4, 0.5, 0.7], [0.2, 0.3, 0.3, 0.3], FAILS),  # never kept up
    ],
)
def test_pooled_tokens_reach_a_plateau(cls: list[float], mean: list[float], verdict: str) -> None:
    assert claims.pooled_plateau(probe_curves(cls=cls, mean=mean)).verdict == verdict


@pytest.mark.parametrize(
    ("first", "verdict"), [([0.1, 0.2, 0.59], HOLDS), ([0.1, 0.2, 0.3], FAILS), ([0.29, 0.39, 0.59], FAILS)]
)
def test_the_first_token_catches_up(first: list[float], verdict: str) -> None:
    assert claims.first_token_catches_up(probe_curves(mean=[0.3, 0.4, 0.6], first_token=first)).verdict == verdict


def test_accuracies_that_are_not_numbers_cannot_be_asked() -> None:
    nothing: Any = probe_curves(cls=[0.1, float("nan")], mean=[0.1, 0.5])
    assert claims.native_readouts(nothing, nothing).verdict == CANNOT
