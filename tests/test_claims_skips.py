"""Claims about skip connections, on arrays made so that they hold, fail, or cannot be decided."""

import numpy as np
import pytest
from made import HIGH_THEN_LOW, LOW_THEN_HIGH, cnn_ratios, vit_ratios
from made import divided as similarity

from vitcnn_utils.claims import skips


def test_a_phase_transition_holds() -> None:
    claim = skips.phase_transition(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH), {})
    assert claim.holds is True
    assert "4.00 in the first half, 0.25 in the second" in claim.measured
    assert "blocks 3 and 4" in claim.measured


def test_the_opposite_of_a_phase_transition_does_not_hold() -> None:
    assert skips.phase_transition(vit_ratios(LOW_THEN_HIGH, HIGH_THEN_LOW), {}).holds is False


def test_cls_above_spatial_all_through_is_no_phase_transition() -> None:
    claim = skips.phase_transition(vit_ratios([8.0] * 8, [2.0] * 8), {})
    assert claim.holds is False
    assert "never changes" in claim.measured


def test_a_phase_transition_too_small_to_tell_is_undecided() -> None:
    assert skips.phase_transition(vit_ratios([2.02] * 4 + [2.0] * 4, [2.0] * 4 + [2.02] * 4), {}).holds is None


def test_a_phase_transition_needs_a_cls_token() -> None:
    assert skips.phase_transition(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=0), {}).holds is None


def test_controls_are_quoted_by_name() -> None:
    claim = skips.phase_transition(
        vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH), {"untrained": vit_ratios([3.0] * 8, [2.0] * 8)}
    )
    assert claim.control == "untrained: 1.50 and 1.50"


def test_vit_above_cnn_everywhere() -> None:
    claim = skips.vit_above_cnn(vit_ratios([4.0] * 8, [4.0] * 8), cnn_ratios([2.0] * 6, [False] * 6), {})
    assert claim.holds is True
    assert "12 of 12, 2.00 times" in claim.measured


def test_vit_below_cnn_at_one_unit_does_not_hold() -> None:
    cnn = cnn_ratios([2.0] * 5 + [5.0], [False] * 6)
    assert skips.vit_above_cnn(vit_ratios([4.0] * 8, [4.0] * 8), cnn, {}).holds is False


def test_units_with_a_projection_are_left_out() -> None:
    cnn = cnn_ratios([2.0] * 5 + [5.0], [False] * 5 + [True])
    assert skips.vit_above_cnn(vit_ratios([4.0] * 8, [4.0] * 8), cnn, {}).holds is True


def test_an_untrained_cnn_decides_nothing() -> None:
    cnn = cnn_ratios([np.inf] * 6, [False] * 6)
    vit = vit_ratios([4.0] * 8, [4.0] * 8)
    assert skips.vit_above_cnn(vit, cnn, {"untrained": vit}).holds is None


@pytest.mark.parametrize(("mlp", "holds"), [(2.0, True), (8.0, False), (4.1, None)])
def test_late_changes_of_cls(mlp: float, holds: bool | None) -> None:
    cls = np.array([[4.0, 9.0]] * 4 + [[4.0, mlp]] * 4)
    assert skips.late_cls_changes(vit_ratios(cls, [1.0] * 8), {}).holds is holds


@pytest.mark.parametrize(("spatial", "holds"), [(LOW_THEN_HIGH, True), (HIGH_THEN_LOW, False), ([3.0] * 8, None)])
def test_early_changes_of_spatial_tokens(spatial: list[float], holds: bool | None) -> None:
    assert skips.early_spatial_changes(vit_ratios([1.0] * 8, spatial), {}).holds is holds


# Figure 8


@pytest.mark.parametrize(
    ("across", "intact", "holds"),
    [(0.2, 0.8, True), (0.8, 0.8, False), (0.2, 0.3, False)],  # the last: divided, but the intact model is as well
)
def test_models_split(across: float, intact: float, holds: bool) -> None:
    claim = skips.split(similarity(intact), {1: similarity(across)}, similarity(0.9))
    assert claim.holds is holds
    assert "block 1: 0.00" in claim.control


def test_one_block_that_does_not_split_is_enough_against_the_claim() -> None:
    maps = {1: similarity(0.2), 0: similarity(0.9, block=0)}
    assert skips.split(similarity(0.9), maps, similarity(0.9)).holds is False


@pytest.mark.parametrize(("middle", "holds"), [(0.75, True), (0.85, False), (0.795, None)])
def test_accuracy_falls_for_the_middle_block(middle: float, holds: bool | None) -> None:
    claim = skips.accuracy_loss(0.80, {1: 0.99, 4: middle, 6: 0.99}, 10_000, "test images")
    assert claim.holds is holds
    assert f"block 4: {100 * (middle - 0.8):+.1f} points" in claim.measured


def test_few_images_leave_a_small_drop_undecided() -> None:
    assert skips.accuracy_loss(0.80, {4: 0.75}, 100, "images").holds is None
