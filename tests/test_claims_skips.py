"""Claims about skip connections, on arrays made so that they hold, fail, or cannot be decided."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from vitcnn_utils.claims import skips
from vitcnn_utils.errors import VitcnnError

BLOCKS = 8
SPATIAL = 4


def vit_ratios(cls: Any, spatial: Any, prefix: int = 1) -> xr.Dataset:
    """As `residual.skip_ratios` gives; cls, spatial: ratio by block, (block,) or (block, branch)."""
    cls, spatial = (np.broadcast_to(np.reshape(v, (len(v), -1)), (len(v), 2)) for v in (cls, spatial))
    values = np.stack([cls] * prefix + [spatial] * SPATIAL, axis=-1)
    return ratios(values, ["attention", "mlp"], prefix, [False] * len(cls))


def cnn_ratios(values: Any, projected: Any) -> xr.Dataset:
    return ratios(np.reshape(values, (-1, 1, 1)), ["residual"], 0, projected)


def ratios(values: np.ndarray, branches: list[str], prefix: int, projected: Any) -> xr.Dataset:
    L, _, T = values.shape
    names = (*skips.AVERAGES, "cosine_branch", "cosine_sum")
    return xr.Dataset(
        {name: (("block", "branch", "token"), values.copy()) for name in names},
        coords={
            "block": np.arange(L), "branch": branches, "token": np.arange(T),
            "part": ("token", ["CLS", "register 0", "register 1"][:prefix] + ["spatial"] * (T - prefix)),
            "depth": ("block", np.linspace(0.1, 1, L)), "projected": ("block", list(projected)),
        },
        attrs={"model": "a model"},
    )  # fmt: skip


HIGH_THEN_LOW = [8.0] * 4 + [2.0] * 4
LOW_THEN_HIGH = HIGH_THEN_LOW[::-1]


def test_by_part_keeps_cls_and_averages_the_spatial_tokens() -> None:
    dataset = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH)
    dataset["ratio"][0, 0, 1:] = [1, 2, 3, 6]
    parts = skips.by_part(dataset)
    assert list(parts["part"].values) == ["CLS", "spatial"]
    assert parts.sel(part="spatial", branch="attention")[0] == 3
    assert parts.sel(part="CLS", branch="attention")[0] == 8


def test_by_part_of_a_model_without_cls_has_spatial_only() -> None:
    assert list(skips.by_part(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=0))["part"].values) == ["spatial"]


def test_registers_are_neither_cls_nor_spatial() -> None:
    dataset = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=3)
    dataset["ratio"][:, :, 1:3] = 99
    np.testing.assert_array_equal(skips.by_part(dataset).sel(part="CLS", branch="mlp"), HIGH_THEN_LOW)


def test_averages_are_geometric_within_each_half() -> None:
    table = skips.averages({"m": vit_ratios([1, 4, 1, 4, 3, 3, 3, 3], LOW_THEN_HIGH)})
    row = table.sel(tokens="m, attention, CLS")
    np.testing.assert_allclose(row, [2, 2, 2, 3, 3, 3])
    assert table.shape == (4, 6)


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


def similarity(across: float, within: float = 0.9, block: int = 1) -> xr.DataArray:
    """CKA of stem, three blocks of two layers, norm: `within` on one side of `block`, `across` between the sides."""
    blocks = np.array([-1, 0, 0, 1, 1, 2, 2, -1])
    side = np.array([0, 0, 0, 2, 2, 1, 1, 1]) if block == 1 else np.array([0, 2, 2, 1, 1, 1, 1, 1])
    values = np.where(side[:, None] == side, within, across)
    values[side == 2] = values[:, side == 2] = 0.123  # layers inside the block count for nothing
    np.fill_diagonal(values, 1)
    return xr.DataArray(values, dims=("layer_a", "layer_b"), coords={"block_a": ("layer_a", blocks)})


def test_contrast_is_within_less_across() -> None:
    assert skips.split_contrast(similarity(0.2), 1) == pytest.approx(0.7)


def test_a_uniform_map_has_no_contrast() -> None:
    assert skips.split_contrast(similarity(0.9), 1) == pytest.approx(0)


def test_contrast_at_the_first_block_has_the_stem_alone_on_one_side() -> None:
    assert skips.split_contrast(similarity(0.2, block=0), 0) == pytest.approx(0.7)


def test_a_constant_layer_is_left_out_of_the_contrast() -> None:
    values = similarity(0.2)
    values[7, :] = values[:, 7] = np.nan
    assert skips.split_contrast(values, 1) == pytest.approx(0.7)


def test_contrast_at_a_block_that_is_not_there() -> None:
    with pytest.raises(VitcnnError, match="no block 5"):
        skips.split_contrast(similarity(0.2), 5)


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


def card(name: str, steps: int = 100, seed: int = 1) -> dict[str, Any]:
    return {"name": name, "steps": steps, "recipe": {"seed": seed}}


def test_training_says_when_twins_are_alike() -> None:
    words = skips.training(card("twin"), [card("a"), card("b")])
    assert "twin took 100 steps, as many as each of the others" in words
    assert "same seed" in words


def test_training_says_when_they_are_not() -> None:
    words = skips.training(card("twin", steps=1000, seed=2), [card("a"), card("b", steps=200)])
    assert "1,000 steps, the others 100, 200: not a fair pair" in words
    assert "seed 2, the others from 1" in words


def test_accuracies_are_unknown_where_no_model_was_trained() -> None:
    table = skips.accuracies(0.8, {4: 0.7}, {1: 0.2, 4: 0.1})
    assert list(table["skips"].values) == ["all there", "none in block 1", "none in block 4"]
    np.testing.assert_allclose(table, [[80, 80], [np.nan, 20], [70, 10]])
