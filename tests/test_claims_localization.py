"""Claims of chapter 4: where they hold, fail, are matched by a control, are too close, or cannot be asked."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from made import Cases, elsewhere, layers, probe_curves, scattered, token_map, unsteady, verdicts

from vitcnn_utils.claims import localization as claims
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO, Claim

OWN, ELSEWHERE = token_map(), elsewhere()
NOTHING = OWN * np.nan


def partly(right: int) -> xr.DataArray:
    """The first rows of tokens are most like their own patch, all others like the first patch."""
    values = elsewhere()
    values[:right] = OWN[:right]
    return values


def stage(*right: int) -> xr.DataArray:
    return layers(*map(partly, right))


# Figures 9 and 10


def interior(vit: Any = OWN, untrained: Any = ELSEWHERE, **second: Any) -> Claim:
    return claims.interior_tokens(vit, {"untrained": untrained, **second})


def border(vit: Any = 0.2, patches: Any = 0.0, untrained: Any = 0.0, grid: int = 5) -> Claim:
    of_vit, of_patches, control = (
        token_map(border=one, grid=grid) if isinstance(one, float) else one for one in (vit, patches, untrained)
    )
    return claims.border_tokens(of_vit, of_patches, {"untrained": control})


def above_cnn(vit: Any = OWN, cnn: Any = ELSEWHERE, untrained: Any = ELSEWHERE) -> Claim:
    units = {"CNN, last unit": cnn, "CNN, stage before": OWN}
    return claims.vit_over_cnn(vit, units, ELSEWHERE, {"untrained": untrained})


FALLING, LEVEL, LOST = stage(4, 3, 2), stage(3, 3, 3), stage(5, 1)


def last_stage(vit: Any = OWN, units: Any = FALLING, untrained: Any = LEVEL) -> Claim:
    return claims.last_stage(vit, units, OWN, untrained)


def readout(gap: Any = LOST, untrained: Any = (OWN, OWN), **second: Any) -> Claim:
    return claims.readout_matters(layers(OWN, OWN), gap, untrained, second)


# Figure 11

SAME, NAN = [0.1, 0.5], [0.1, np.nan]


def single(gap: Any = SAME, by: float = 0.0, twins: Any = (0.1, 0.1), **second: Any) -> Claim:
    """One token of the ViT gives 20 %, of the CNN 60 %. twins: of the GAP model and the CNN before training."""
    others = {"ViT-GAP": scattered(probe_curves(token=gap), by), "CNN": probe_curves(token=[0.1, 0.6])}
    untrained = {name: probe_curves(token=[0.1, end]) for name, end in zip(others, twins, strict=True)}
    untrained["ViT"] = probe_curves(token=[0.1, 0.1])
    return claims.single_tokens(probe_curves(token=[0.1, 0.2]), others, untrained, second)


def one_token(pooled: Any = (0.1, 0.51), by: float = 0.0, untrained: float = 0.6) -> Claim:
    gap = scattered(probe_curves(token=SAME, mean=pooled), by, "token")
    return claims.one_token_is_all(gap, probe_curves(token=SAME, mean=[0.1, untrained]))


def native(gap: Any = (0.1, 0.51), by: float = 0.0, untrained: float = 0.6) -> Claim:
    of_gap, of_cls = scattered(probe_curves(mean=gap), by), probe_curves(cls=SAME)
    return claims.native_readouts(of_cls, of_gap, (of_cls, probe_curves(mean=[0.1, untrained])), {})


def plateau(
    cls: Any = (0.2, 0.4, 0.5, 0.7), mean: Any = (0.2, 0.4, 0.5, 0.52), by: float = 0.0, twin: Any = None
) -> Claim:
    untrained = probe_curves(cls=[0.2, 0.4, 0.5, 0.5], mean=twin or [0.2, 0.4, 0.5, 0.6])
    return claims.pooled_plateau(scattered(probe_curves(cls=cls, mean=mean), by, "mean"), {"untrained": untrained})


def first_token(first: Any = (0.1, 0.2, 0.59), by: float = 0.0, untrained: Any = (0.3, 0.4, 0.6)) -> Claim:
    gap, twin = (probe_curves(mean=[0.3, 0.4, 0.6], first_token=curve) for curve in (first, untrained))
    return claims.first_token_catches_up(scattered(gap, by, "first token"), twin)


CASES: Cases = {
    "interior": (interior, {
        HOLDS: {}, HOLDS_TOO: {"untrained": OWN}, FAILS: {"vit": ELSEWHERE, "untrained": OWN},
        CLOSE: {"vit": unsteady(OWN, OWN, ELSEWHERE)}, CANNOT: {"vit": token_map(grid=2)}}),
    "border": (border, {
        HOLDS: {}, HOLDS_TOO: {"untrained": 0.2}, FAILS: {"patches": 0.3},  # raw patches lean more
        CLOSE: {"vit": unsteady(*(token_map(border=b) for b in (0.2, 0.2, -0.09)))}, CANNOT: {"grid": 2}}),
    "ViT above CNN": (above_cnn, {
        HOLDS: {}, HOLDS_TOO: {"untrained": OWN}, FAILS: {"cnn": token_map(grid=4)},  # equally well
        CLOSE: {"vit": unsteady(OWN, OWN, ELSEWHERE)}, CANNOT: {"vit": NOTHING}}),
    "last stage": (last_stage, {
        HOLDS: {}, HOLDS_TOO: {"untrained": stage(4, 3, 2)}, FAILS: {"units": stage(2, 3, 4)},
        CLOSE: {"units": unsteady(stage(4, 3, 2), stage(4, 3, 2), stage(2, 3, 4))}, CANNOT: {"units": stage(3)}}),
    "read-out": (readout, {
        HOLDS: {}, HOLDS_TOO: {"untrained": (OWN, ELSEWHERE)}, FAILS: {"gap": stage(1, 5)},
        CLOSE: {"gap": unsteady(stage(5, 1), stage(5, 1), stage(5, 5))}, CANNOT: {"gap": layers(OWN, NOTHING)}}),
    "single tokens": (single, {
        HOLDS: {}, FAILS: {"gap": [0.1, 0.25]}, CLOSE: {"gap": [0.1, 0.3], "by": 0.1}, CANNOT: {"gap": NAN},
        HOLDS_TOO: {"twins": (0.5, 0.6)}}),
    "one token": (one_token, {
        HOLDS: {}, HOLDS_TOO: {"untrained": 0.5}, FAILS: {"pooled": [0.1, 0.6]}, CLOSE: {"by": 0.05},
        CANNOT: {"pooled": NAN}}),
    "native": (native, {
        HOLDS: {}, HOLDS_TOO: {"untrained": 0.5}, FAILS: {"gap": [0.1, 0.6]}, CLOSE: {"by": 0.05},
        CANNOT: {"gap": NAN}}),
    "plateau": (plateau, {
        HOLDS: {}, HOLDS_TOO: {"twin": [0.2, 0.4, 0.5, 0.3]}, FAILS: {"mean": [0.2, 0.4, 0.5, 0.8]},
        CLOSE: {"by": 0.2}, CANNOT: {"mean": [0.2, 0.4, np.nan, np.nan]}}),
    "first token": (first_token, {
        HOLDS: {}, HOLDS_TOO: {"untrained": [0.1, 0.2, 0.59]}, FAILS: {"first": [0.1, 0.2, 0.3]}, CLOSE: {"by": 0.2},
        CANNOT: {"first": [np.nan] * 3}}),
}  # fmt: skip


@pytest.mark.parametrize(("make", "arrays", "verdict"), verdicts(CASES))
def test_verdicts(make: Any, arrays: Any, verdict: str) -> None:
    assert make(**arrays).verdict == verdict


def test_interior_tokens_are_counted() -> None:
    claim = interior()
    assert "100% of 9 tokens" in claim.note
    assert claim.parts[0].estimate.value == pytest.approx(100)


@pytest.mark.parametrize(
    "claim",
    [interior(second=ELSEWHERE), readout(gap=stage(5, 3), second=partly(2)), single(second=probe_curves(token=SAME))],
)
def test_a_second_training_that_says_the_reverse_leaves_it_open(claim: Claim) -> None:
    assert claim.verdict == CLOSE and "(second)" in claim.reason


@pytest.mark.parametrize("arrays", [{"patches": 0.3}, {"vit": -0.05, "patches": -0.09}])
def test_border_tokens_must_lean_more_than_raw_patches_and_to_the_border(arrays: Any) -> None:
    assert border(**arrays).verdict == FAILS


@pytest.mark.parametrize(("units", "vit", "verdict"), [((4, 4, 4), 5, FAILS), ((4, 3, 2), 3, FAILS)])
def test_last_stage(units: tuple[int, ...], vit: int, verdict: str) -> None:
    assert last_stage(partly(vit), stage(*units)).verdict == verdict


def test_the_lead_of_a_readout_is_told_block_by_block() -> None:
    assert "by block: +0, " in readout().note and readout().parts[0].control is not None


def test_single_tokens_without_a_twin_have_no_control() -> None:
    gap = probe_curves(token=SAME)
    claim = claims.single_tokens(probe_curves(token=[0.1, 0.2]), {"ViT-GAP": gap}, {"ViT": gap}, {"second": gap})
    assert claim.parts[0].control is None and "second 50.0 %; chance 10%" in claim.note


def test_pooled_tokens_that_never_kept_up_are_no_plateau() -> None:
    assert plateau(mean=[0.2, 0.3, 0.3, 0.3]).verdict == FAILS


def test_a_first_token_that_was_never_behind_does_not_catch_up() -> None:
    assert first_token([0.29, 0.39, 0.59]).verdict == FAILS


# What the figures show


@pytest.mark.parametrize(
    ("untrained", "said"),
    [(OWN, "Training has not moved tokens off their places: before it, 100 %"), (ELSEWHERE, "has not moved")],
)
def test_sentences_on_figure_9(untrained: xr.DataArray, said: str) -> None:
    text = claims.place_words(unsteady(OWN, OWN), untrained, {"CNN, last unit": ELSEWHERE}, token_map(1.0, 0.3))
    assert text.startswith("100 % of the tokens of the ViT's last block") and said in text
    assert "4 % of those of the CNN, last unit" in text and "0.10 on average, where raw patches have 0.30" in text
    assert "Training has moved" in claims.place_words(ELSEWHERE, OWN, {}, OWN)


def test_sentences_on_figure_10() -> None:
    text = claims.readout_words(stage(5, 5, 5), stage(4, 4, 1))
    assert "last block 100 % of" in text and "CLS is +20 points; it changes most with block 2, where" in text


def test_sentences_on_figure_11() -> None:
    vit = probe_curves(token=[0.1, 0.3], mean=[0.1, 0.7], cls=[0.1, 0.85])
    gap = probe_curves(token=[0.1, 0.6], mean=[0.1, 0.65])
    text = claims.token_words({"ViT": vit, "ViT-GAP": gap, "CNN": gap})
    assert "CLS token gives 85 % and all patches pooled 70 %: the patches pull the average down" in text
    assert "the ViT gives 30 %, the ViT-GAP 60 %, the CNN 60 %" in text and "CLS 40 points and the one" in text
    assert claims.token_words({"ViT": vit}).endswith("the ViT gives 30 %.")
