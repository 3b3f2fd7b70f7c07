"""Verdicts on section 5: where the rules hold, where they fail, and where nothing can be said."""

import numpy as np
import pytest
import xarray as xr
from made import subsets_of

from vitcnn_utils.claims import locality as claims

UNIFORM = 100.0


def heads_of(*blocks, renormalized=None, model="model"):
    """Distances of heads, a row a block, as `attention.head_distances` gives them; no mass on CLS unless told apart."""
    distance = np.array(blocks, dtype=float)
    renormalized = distance if renormalized is None else np.array(renormalized, dtype=float)
    variables = {
        "distance": (("block", "head"), distance),
        "distance_renormalized": (("block", "head"), renormalized),
        "prefix_mass": (("block", "head"), 1 - distance / renormalized),
    }
    attrs = {"uniform_distance": UNIFORM, "model": model}
    return xr.Dataset(variables, {"block": np.arange(len(distance))}, attrs)


EVEN = heads_of(*[[99, 99, 99, 99]] * 4)
LOCAL = heads_of([20, 50, 80, 100], [30, 60, 80, 100], [80] * 4, [90] * 4)


def test_low_blocks_mix_needs_local_and_global_heads_in_both():
    assert claims.low_blocks_mix(LOCAL, EVEN).holds is True
    assert claims.low_blocks_mix(EVEN, EVEN).holds is False
    assert claims.low_blocks_mix(heads_of([20, 90], [50, 90], [90, 90]), EVEN).holds is False
    assert claims.low_blocks_mix(heads_of([20, 30], [20, 30], [90, 90]), EVEN).holds is False


def test_low_blocks_mix_quotes_numbers_and_control():
    claim = claims.low_blocks_mix(LOCAL, EVEN)
    assert "block 0: heads from 20.0 to 100.0 px" in claim.measured
    assert "block 1: heads from 30.0 to 100.0 px" in claim.measured
    assert "99.0 to 99.0 px" in claim.control


def test_high_blocks_are_global_only_if_every_head_of_both_is():
    assert claims.high_blocks_are_global(LOCAL, EVEN).holds is True
    assert claims.high_blocks_are_global(heads_of([90, 90], [59, 90], [90, 90]), EVEN).holds is False


def test_high_blocks_are_undecided_where_the_mass_on_cls_decides():
    parked = heads_of([90, 90], [45, 90], [90, 90], renormalized=[[90, 90], [90, 90], [90, 90]])
    claim = claims.high_blocks_are_global(parked, EVEN)
    assert claim.holds is None
    assert "45.0 px, 90.0 px after" in claim.measured
    assert "12% of the attention" in claim.measured


FAR = heads_of([60, 70, 80, 100], [60, 70, 80, 100], [90] * 4, model="few")
HALF = heads_of([28, 32, 40, 100], [28, 31, 40, 100], [90] * 4)


def test_little_data_hides_locality_if_nearest_head_and_quartile_move_away():
    claim = claims.little_data_hides_locality(FAR, LOCAL, LOCAL)
    assert claim.holds is True
    assert "few against model" in claim.paper
    assert "nearest head 60.0 px" in claim.measured
    assert "nearest head 20.0 px" in claim.control
    assert claims.little_data_hides_locality(LOCAL, LOCAL, EVEN).holds is False


def test_little_data_is_undecided_where_only_one_number_moves_or_nothing_was_local():
    assert claims.little_data_hides_locality(HALF, LOCAL, LOCAL).holds is None
    assert claims.little_data_hides_locality(EVEN, FAR, LOCAL).holds is None


def test_a_small_model_keeps_locality_where_the_large_one_would_lose_it():
    assert claims.small_model_keeps_locality(FAR, LOCAL).holds is False
    assert claims.small_model_keeps_locality(LOCAL, LOCAL).holds is True
    assert claims.small_model_keeps_locality(EVEN, EVEN).holds is None


def test_scores_are_worse_from_a_clear_difference_on():
    assert claims.little_data_scores_worse(0.40, 0.50, "a against b").holds is True
    assert claims.little_data_scores_worse(0.48, 0.50, "a against b").holds is False


DISTANCES = [20, 40, 60, 80, 100]
FALLING = subsets_of(DISTANCES, [[0.6, 0.55], [0.5, 0.5], [0.4, 0.45], [0.35, 0.4], [0.3, 0.35]])
RISING = subsets_of(DISTANCES, FALLING["cka"].values[::-1])
NARROW = subsets_of([90, 91, 92, 93, 94], FALLING["cka"].values)
SHALLOW = subsets_of(DISTANCES, [[0.60], [0.59], [0.58], [0.57], [0.56]])


def test_local_heads_resemble_cnn_if_similarity_falls_with_distance():
    assert claims.local_heads_resemble_cnn(FALLING, NARROW).holds is True
    assert claims.local_heads_resemble_cnn(RISING, NARROW).holds is False
    assert "20.0 to 100.0 px, CKA falls by 0.20 to 0.30" in claims.local_heads_resemble_cnn(FALLING, NARROW).measured


@pytest.mark.parametrize(("trained", "untrained"), [(NARROW, NARROW), (SHALLOW, NARROW), (FALLING, FALLING)])
def test_local_heads_are_undecided_without_range_without_a_fall_or_against_the_control(trained, untrained):
    assert claims.local_heads_resemble_cnn(trained, untrained).holds is None


def summary_of(radius_50, radius_90=None, centre_mass=0.5, centre_ratio=10.0):
    n = len(radius_50)
    over_layer = {
        "radius_50": radius_50,
        "radius_90": radius_50 if radius_90 is None else radius_90,
        "centre_mass": np.broadcast_to(centre_mass, n),
        "centre_ratio": np.broadcast_to(centre_ratio, n),
    }
    variables = {name: ("layer", np.array(value, dtype=float)) for name, value in over_layer.items()}
    return xr.Dataset(variables, {"depth": ("layer", np.linspace(0, 1, n))}, {"side": 4})


STEADY = summary_of([1, 2, 3, 4, 5])
JUMP = summary_of([3, 3.5, 4, 8, 8.5])


def test_vit_sees_farther_early_compares_the_lowest_third():
    assert claims.vit_sees_farther_early(JUMP, STEADY, STEADY, STEADY).holds is True
    assert claims.vit_sees_farther_early(STEADY, JUMP, STEADY, STEADY).holds is False
    late = summary_of([1, 2, 30, 40, 50])
    assert claims.vit_sees_farther_early(late, STEADY, STEADY, STEADY).holds is False
    assert "3.2 against 1.5 px for 50 %" in claims.vit_sees_farther_early(JUMP, STEADY, STEADY, STEADY).measured


def test_vit_sees_farther_early_is_undecided_where_the_radii_disagree():
    peaked = summary_of([1, 2, 3, 4, 5], radius_90=[9, 9, 9, 9, 9])
    assert claims.vit_sees_farther_early(peaked, STEADY, STEADY, STEADY).holds is None


def test_vit_grows_midway_wants_a_jump_and_in_the_middle():
    assert claims.vit_grows_midway(JUMP, STEADY).holds is True
    assert (
        "73% of the ViT's growth (at depth 0.62) and 25% of the CNN's" in claims.vit_grows_midway(JUMP, STEADY).measured
    )
    assert claims.vit_grows_midway(STEADY, STEADY).holds is False
    assert claims.vit_grows_midway(summary_of([1, 8, 8.5, 9, 9.5]), STEADY).holds is False
    assert claims.vit_grows_midway(summary_of([3, 3, 3, 3, 3]), STEADY).holds is None


def test_centre_dominates_only_if_it_does_at_every_depth():
    assert claims.centre_dominates_vit(STEADY, STEADY).holds is True
    assert claims.centre_dominates_vit(summary_of([1, 2, 3], centre_ratio=[9, 9, 2]), STEADY).holds is False


def test_centre_comes_through_skips_if_the_branch_has_less_of_it():
    flat, peaked = summary_of([1, 2, 3], centre_mass=0.1), summary_of([1, 2, 3], centre_mass=0.5)
    assert claims.centre_comes_through_skips(peaked, flat).holds is True
    assert claims.centre_comes_through_skips(flat, flat).holds is False
    assert claims.centre_comes_through_skips(flat, peaked).holds is False


def test_others_keep_centre_is_undecided_where_branches_disagree():
    flat, peaked = summary_of([1, 2, 3], centre_mass=0.1), summary_of([1, 2, 3], centre_mass=0.5)
    assert claims.others_keep_centre({"a": flat, "b": peaked}, {"a": flat, "b": peaked}).holds is True
    assert claims.others_keep_centre({"a": peaked, "b": peaked}, {"a": flat, "b": flat}).holds is False
    assert claims.others_keep_centre({"a": flat, "b": peaked}, {"a": flat, "b": flat}).holds is None


def test_a_unit_that_opens_a_stage_does_not_decide():
    before = summary_of([1, 2, 3, 4], centre_mass=[0.5, 0.5, 0.0, 0.5])
    after = summary_of([1, 2, 3, 4], centre_mass=0.5)
    assert claims.others_keep_centre({"unit": after}, {"unit": before}).holds is True
