"""Claims of chapter 1, on maps whose answer is known."""

import numpy as np
import pytest
import xarray as xr
from similarity_maps import DIAGONAL, PAPER, by_distance, constant, grid, ridge, similarity, staged

from vitcnn_utils.claims import NumberTable, decide, structure
from vitcnn_utils.models.load import load_model


@pytest.mark.parametrize(
    ("difference", "verdict"), [(0.06, True), (0.05, None), (-0.05, None), (-0.06, False), (float("nan"), None)]
)
def test_a_difference_within_the_margin_decides_nothing(difference: float, verdict: bool | None) -> None:
    assert decide(difference, 0.05) is verdict


def test_a_number_table_shows_two_decimals_text_and_what_is_missing() -> None:
    table = NumberTable({"a & b": {"x": -0.001, "y": "1,000"}, "c": {"x": float("nan"), "y": "–"}})
    assert repr(table) == " | x | y\na & b | 0.00 | 1,000\nc | – | –"
    assert "<td>a &amp; b</td><td>0.00</td>" in table._repr_html_()
    assert '<th scope="col">x</th>' in table._repr_html_()


def test_low_high_is_the_mean_of_the_corner() -> None:
    assert structure.low_high(by_distance(0)) == pytest.approx(1)
    # Of 4 layers at depths 0, 1/3, 2/3, 1, the first and the last two are 2/3, 1, 1/3 and 2/3 apart.
    assert structure.low_high(by_distance(0.6, count=4)) == pytest.approx(1 - 0.6 * 2 / 3)


def test_spread_leaves_the_diagonal_out() -> None:
    values = np.full((5, 5), 0.3)
    np.fill_diagonal(values, 1)
    assert structure.spread(similarity(values)) == pytest.approx(0, abs=1e-12)
    assert structure.spread(staged(1, 0)) > 0.4


def test_decay_is_the_slope() -> None:
    assert structure.decay(by_distance(0.7)) == pytest.approx(-0.7)
    assert np.isnan(structure.decay(by_distance(0.7, count=2)))


def test_a_constant_layer_is_left_out_of_every_number() -> None:
    gap = by_distance(0.5)
    whole = (structure.decay(gap), structure.low_high(gap))
    gap[5], gap[:, 5] = np.nan, np.nan
    assert structure.decay(gap) == pytest.approx(whole[0])
    assert np.isfinite([structure.low_high(gap), structure.spread(gap), structure.stage_contrast(gap, [0.5])]).all()
    assert np.isfinite(structure.grid_contrast(gap))


def test_stage_contrast_sees_stages_only_where_they_are_cut() -> None:
    assert structure.stage_contrast(staged(0.9, 0.2), [0.5]) == pytest.approx(0.7)
    assert structure.stage_contrast(staged(0.9, 0.2), [0.25]) < 0.7
    assert np.isnan(structure.stage_contrast(staged(0.9, 0.2), []))


def test_a_stage_starts_at_its_first_layer_not_behind_it() -> None:
    depth = np.linspace(0, 1, 24)
    assert structure.stage_contrast(staged(0.9, 0.2), [depth[12]]) == pytest.approx(0.7)


def test_grid_contrast_compares_kinds_across_blocks() -> None:
    # Two of six entries are norms, so "same kind" counts them across names.
    assert structure.grid_contrast(grid(0.8, 0.5)) == pytest.approx(0.3)
    assert structure.grid_contrast(grid(0.5, 0.5)) == pytest.approx(0)
    assert np.isnan(structure.grid_contrast(structure.block_outputs(grid(0.8, 0.5))))


def test_distance_in_depth_alone_makes_no_grid() -> None:
    assert abs(structure.grid_contrast(by_distance(0.9))) < 0.05


def test_block_outputs_keeps_one_entry_a_block() -> None:
    assert structure.block_outputs(grid(0.8, 0.5)).shape == (4, 4)


VIT_LIKE = (grid(0.9, 0.8), staged(0.9, 0.2))


@pytest.mark.parametrize(
    ("maps", "verdicts"),
    [
        (VIT_LIKE, [True, True, True, True]),
        (VIT_LIKE[::-1], [False, False, False, False]),
        ((by_distance(0.5), by_distance(0.5)), [None, None, None, None]),
    ],
)
def test_verdicts_of_figure_1(maps: tuple[xr.DataArray, xr.DataArray], verdicts: list[bool | None]) -> None:
    claims = structure.within_claims(*maps, by_distance(0.1), by_distance(0.2), [0.5])
    # The fourth is about the ViT alone: a map in two stages has pairs of one kind as often within as across.
    assert [claim.holds for claim in claims][:3] == verdicts[:3]
    assert claims[3].holds is (True if maps is VIT_LIKE else None)
    assert all("untrained" in claim.control for claim in claims)


def test_figure_1_quotes_its_numbers() -> None:
    claims = structure.within_claims(*VIT_LIKE, by_distance(0), by_distance(0), [0.5])
    assert claims[0].measured == "ViT 0.82, CNN 0.20"
    assert claims[0].control == "untrained: ViT 1.00, CNN 1.00"


def test_a_cnn_without_stages_leaves_the_claim_on_stages_undecided() -> None:
    claim = structure.within_claims(*VIT_LIKE, *VIT_LIKE, [])[2]
    assert claim.holds is None
    assert claim.measured == "not defined for these models"


def test_stages_start_where_the_skip_is_projected() -> None:
    cnn = load_model("zoo/resnet", weights="untrained", device="cpu")
    starts = structure.stage_starts(cnn)
    named = [next(layer.name for layer in cnn.layers if layer.depth == start) for start in starts]
    assert named == ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]
    assert structure.stage_starts(load_model("zoo/vit-cls", weights="untrained", device="cpu")) == []


def test_halfway_is_where_stage_3_starts() -> None:
    assert structure.halfway([0.2, 0.45, 0.8]) == 0.45
    assert structure.halfway([]) == 0.5


# --- Figure 2


def test_the_matched_depth_follows_the_ridge() -> None:
    matched = structure.matched_depth(DIAGONAL)
    assert np.abs(matched["argmax"] - matched.depth_b).max() < 0.03
    # Within reach of an end, a ridge is cut off and its mean moves inwards.
    inner = (matched.depth_b > 0.3) & (matched.depth_b < 0.7)
    assert np.abs(matched["centroid"] - matched.depth_b)[inner].max() < 0.01
    assert float(matched["best"].min()) > 0.9


def test_the_centroid_ignores_what_all_layers_share() -> None:
    low, high = structure.matched_depth(DIAGONAL), structure.matched_depth(DIAGONAL + 5)
    assert np.allclose(low["centroid"], high["centroid"], atol=0.02)


def test_constant_layers_have_no_match() -> None:
    gaps = PAPER.copy()
    gaps[:, 3] = np.nan  # a constant CNN layer
    gaps[4] = np.nan  # a constant ViT layer
    matched = structure.matched_depth(gaps)
    assert matched["argmax"].isnull().values.nonzero()[0].tolist() == [3]
    assert matched["centroid"].isnull().values.nonzero()[0].tolist() == [3]
    assert float(gaps.depth_a[4]) not in matched["argmax"].values


@pytest.mark.parametrize(
    ("trained", "verdicts"),
    [
        (PAPER, [True, True, True, True]),
        (ridge(lambda d: 0.5 + 0.5 * d, constant), [False, False, False, False]),
        (ridge(lambda d: 1 - d, constant), [False, False, None, None]),
    ],
)
def test_verdicts_of_figure_2(trained: xr.DataArray, verdicts: list[bool | None]) -> None:
    claims = structure.cross_claims(trained, DIAGONAL, trained, [0.25, 0.5, 0.75])
    assert [claim.holds for claim in claims] == verdicts


def test_figure_2_cannot_be_decided_without_any_cka() -> None:
    empty = xr.full_like(PAPER, np.nan)
    with np.errstate(all="ignore"):
        claims = structure.cross_claims(empty, empty, empty, [])
    assert [claim.holds for claim in claims] == [None] * 4


def test_tables_have_a_row_a_way_and_a_column_a_number() -> None:
    within = structure.within_table({"all": VIT_LIKE, "blocks": tuple(map(structure.block_outputs, VIT_LIKE))}, [0.5])
    assert list(within.rows) == ["all", "blocks"]
    assert within.rows["all"]["stage contrast, CNN"] == pytest.approx(0.7)
    across = structure.cross_table({"all": PAPER}, [])
    assert across.rows["all"]["share of CNN layers deeper than their match"] > 0.9
    assert "<td>all</td>" in across._repr_html_()
