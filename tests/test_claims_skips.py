"""Claims of chapter 3: where they hold, fail, are matched by a control, are too close, or cannot be asked."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from made import HIGH_THEN_LOW, LOW_THEN_HIGH, cnn_ratios, divided, vit_ratios

from vitcnn_utils.claims import skips
from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO

PAPER = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH)
REVERSE = vit_ratios(LOW_THEN_HIGH, HIGH_THEN_LOW)
WITHOUT_CLS = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=0)


@pytest.mark.parametrize(
    ("ratios", "controls", "verdict"),
    [
        (PAPER, {}, HOLDS),
        (PAPER, {"untrained": REVERSE}, HOLDS),
        (PAPER, {"untrained": PAPER}, HOLDS_TOO),
        (PAPER, {"untrained": PAPER, "second seed": REVERSE}, CLOSE),
        (PAPER, {"untrained": REVERSE, "second seed": PAPER}, HOLDS),
        (REVERSE, {"untrained": PAPER}, FAILS),
        (vit_ratios([8.0] * 8, [2.0] * 8), {}, FAILS),  # CLS above all through
        (WITHOUT_CLS, {"untrained": WITHOUT_CLS}, CANNOT),
    ],
)
def test_phase_transition(ratios: xr.Dataset, controls: dict[str, xr.Dataset], verdict: str) -> None:
    assert skips.phase_transition(ratios, controls).verdict == verdict


def test_the_phase_transition_is_told_in_numbers() -> None:
    claim = skips.phase_transition(PAPER, {"second seed, longer": REVERSE})
    assert [part.estimate.value for part in claim.parts] == pytest.approx([4, 0.25])
    assert "blocks 3 and 4" in claim.note
    assert claim.reason == "another training says the reverse (second seed, longer)"
    assert "never changes" in skips.phase_transition(vit_ratios([8.0] * 8, [2.0] * 8), {}).note


ABOVE, BELOW = vit_ratios([4.0] * 8, [4.0] * 8), vit_ratios([1.0] * 8, [1.0] * 8)


@pytest.mark.parametrize(
    ("units", "projected", "untrained", "verdict"),
    [
        ([2.0] * 6, [False] * 6, BELOW, HOLDS),
        ([2.0] * 6, [False] * 6, ABOVE, HOLDS_TOO),
        ([2.0] * 5 + [5.0], [False] * 6, BELOW, FAILS),  # at one unit
        ([2.0] * 5 + [5.0], [False] * 5 + [True], BELOW, HOLDS),  # that has a projection
        ([np.inf] * 6, [False] * 6, BELOW, CANNOT),  # not trained
    ],
)
def test_vit_above_cnn(units: list[float], projected: list[bool], untrained: xr.Dataset, verdict: str) -> None:
    claim = skips.vit_above_cnn(ABOVE, cnn_ratios(units, projected), {"untrained": untrained})
    assert claim.verdict == verdict


@pytest.mark.parametrize(("mlp", "verdict"), [(2.0, HOLDS), (8.0, FAILS)])
def test_late_changes_of_cls(mlp: float, verdict: str) -> None:
    def ratios(late: float) -> xr.Dataset:
        return vit_ratios(np.array([[4.0, 9.0]] * 4 + [[4.0, late]] * 4), [1.0] * 8)

    assert skips.late_cls_changes(ratios(mlp), {"untrained": ratios(9.0)}).verdict == verdict
    assert skips.late_cls_changes(ratios(2.0), {"untrained": ratios(mlp), "second": ratios(mlp)}).verdict == (
        HOLDS_TOO if verdict == HOLDS else CLOSE
    )
    assert skips.late_cls_changes(WITHOUT_CLS, {}).verdict == CANNOT


@pytest.mark.parametrize(("spatial", "verdict"), [(LOW_THEN_HIGH, HOLDS), (HIGH_THEN_LOW, FAILS), ([3.0] * 8, FAILS)])
def test_early_changes_of_spatial_tokens(spatial: list[float], verdict: str) -> None:
    ratios = vit_ratios([1.0] * 8, spatial)
    assert skips.early_spatial_changes(ratios, {"untrained": REVERSE}).verdict == verdict
    assert skips.early_spatial_changes(WITHOUT_CLS, {"untrained": ratios}).verdict == (
        HOLDS_TOO if verdict == HOLDS else HOLDS
    )


# Figure 8


@pytest.mark.parametrize(
    ("across", "intact", "untrained", "verdict"),
    [
        (0.2, 0.8, 0.9, HOLDS),
        (0.2, 0.8, 0.3, HOLDS_TOO),
        (0.8, 0.8, 0.9, FAILS),
        (0.2, 0.3, 0.9, FAILS),  # divided, but the intact model is as well
    ],
)
def test_models_split(across: float, intact: float, untrained: float, verdict: str) -> None:
    changed, untrained_changed = {1: divided(across)}, {1: divided(untrained)}
    assert skips.split(divided(intact), changed, divided(0.9), untrained_changed).verdict == verdict


def test_one_block_that_does_not_split_is_enough_against_the_claim() -> None:
    changed = {1: divided(0.2), 2: divided(0.9, block=2)}
    claim = skips.split(divided(0.9), changed, divided(0.9), changed)
    assert claim.verdict == FAILS
    assert [claim.verdict_of(part) for part in claim.parts] == [HOLDS_TOO, FAILS]


def test_the_first_block_has_nothing_before_it() -> None:
    maps: dict[int, Any] = {0: divided(0.2, block=0)}
    assert skips.split(divided(0.9), maps, divided(0.9), maps).verdict == CANNOT


@pytest.mark.parametrize(("middle", "verdict"), [(0.75, HOLDS), (0.85, FAILS), (0.795, CLOSE)])
def test_accuracy_falls_for_the_middle_block(middle: float, verdict: str) -> None:
    claim = skips.accuracy_loss(0.80, {1: 0.99, 4: middle, 6: 0.99}, 10_000, "test images")
    assert claim.verdict == verdict
    assert "block 4" in claim.parts[0].statistic and len(claim.parts) == 1


def test_few_images_leave_a_small_drop_too_close_to_call() -> None:
    claim = skips.accuracy_loss(0.80, {4: 0.75}, 100, "images")
    assert claim.verdict == CLOSE
    assert "points beyond the threshold would have decided" in claim.reason
