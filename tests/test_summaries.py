"""Summaries of the measures, on arrays whose answer is known."""

import re

import numpy as np
import pytest
import xarray as xr
from made import HIGH_THEN_LOW, LOW_THEN_HIGH, divided, elsewhere, subsets_of, token_map, vit_ratios
from similarity_maps import DIAGONAL, PAPER, by_distance, curves, grid, probes, similarity, similarity_to, staged

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import load_images
from vitcnn_utils.measures import cka, residual
from vitcnn_utils.measures.accuracy import accuracies
from vitcnn_utils.measures.attention import rank_correlations
from vitcnn_utils.measures.localization import skill
from vitcnn_utils.measures.probes import at_depth, average
from vitcnn_utils.measures.receptive_field import centre_shift, early_radius, largest_growth
from vitcnn_utils.models.load import load_model
from vitcnn_utils.tables import number_table

DISTANCES = [20, 40, 60, 80, 100]
VIT_LIKE = (grid(0.9, 0.8), staged(0.9, 0.2))
SERIES = {
    "3 %": (0.95, 0.35),
    "10 %": (0.95, 0.5),
    "30 %": (0.95, 0.65),
    cka.CEILING: (0.97, 0.9),
    cka.FLOOR: (0.4, 0.1),
}


def test_low_high_is_the_mean_of_the_corner() -> None:
    assert cka.low_high(by_distance(0)) == pytest.approx(1)
    # Of 4 layers at depths 0, 1/3, 2/3, 1, the first and the last two are 2/3, 1, 1/3 and 2/3 apart.
    assert cka.low_high(by_distance(0.6, count=4)) == pytest.approx(1 - 0.6 * 2 / 3)


def test_spread_leaves_the_diagonal_out() -> None:
    values = np.full((5, 5), 0.3)
    np.fill_diagonal(values, 1)
    assert cka.spread(similarity(values)) == pytest.approx(0, abs=1e-12)
    assert cka.spread(staged(1, 0)) > 0.4


def test_decay_is_the_slope() -> None:
    assert cka.decay(by_distance(0.7)) == pytest.approx(-0.7)
    assert np.isnan(cka.decay(by_distance(0.7, count=2)))
    assert np.isnan(cka.decay(by_distance(0.7) * np.nan)), "all images are one picture"


def test_a_constant_layer_is_left_out_of_every_number() -> None:
    gap = by_distance(0.5)
    whole = (cka.decay(gap), cka.low_high(gap))
    gap[5], gap[:, 5] = np.nan, np.nan
    assert cka.decay(gap) == pytest.approx(whole[0])
    assert np.isfinite([cka.low_high(gap), cka.spread(gap), cka.stage_contrast(gap, [0.5])]).all()
    assert np.isfinite(cka.grid_contrast(gap))


def test_stage_contrast_sees_stages_only_where_they_are_cut() -> None:
    assert cka.stage_contrast(staged(0.9, 0.2), [0.5]) == pytest.approx(0.7)
    assert cka.stage_contrast(staged(0.9, 0.2), [0.25]) < 0.7
    assert np.isnan(cka.stage_contrast(staged(0.9, 0.2), []))


def test_a_stage_starts_at_its_first_layer_not_behind_it() -> None:
    depth = np.linspace(0, 1, 24)
    assert cka.stage_contrast(staged(0.9, 0.2), [depth[12]]) == pytest.approx(0.7)


def test_grid_contrast_compares_kinds_across_blocks() -> None:
    # Two of six entries are norms, so "same kind" counts them across names.
    assert cka.grid_contrast(grid(0.8, 0.5)) == pytest.approx(0.3)
    assert cka.grid_contrast(grid(0.5, 0.5)) == pytest.approx(0)
    assert np.isnan(cka.grid_contrast(cka.block_outputs(grid(0.8, 0.5))))


def test_distance_in_depth_alone_makes_no_grid() -> None:
    assert abs(cka.grid_contrast(by_distance(0.9))) < 0.05


def test_block_outputs_keeps_one_entry_a_block() -> None:
    assert cka.block_outputs(grid(0.8, 0.5)).shape == (4, 4)


@pytest.mark.parametrize(
    ("name", "size", "first"),
    [
        ("zoo/resnet", 32, ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]),
        ("convnext_atto", 64, [f"stages.{i}.blocks.0.conv_dw" for i in (1, 2, 3)]),
        ("zoo/vit-cls", 32, []),
    ],
)
def test_a_stage_starts_with_the_first_layer_of_its_blocks(name: str, size: int, first: list[str]) -> None:
    model = load_model(name, weights="untrained", device="cpu", image_size=size)
    similarity_of = cka.layer_similarity(model, model, load_images("cifar10", 4, size=size), batch_size=4)
    depths = similarity_of.depth_a.values.tolist()
    assert [model.layers[depths.index(start)].name for start in cka.stage_starts(similarity_of)] == first


def test_the_lower_half_ends_behind_half_of_the_stages() -> None:
    assert cka.halfway([0.2, 0.45, 0.8]) == 0.45
    assert cka.halfway([0.3, 0.6]) == 0.3
    assert np.isnan(cka.halfway([]))


def test_the_matched_depth_follows_the_ridge() -> None:
    matched = cka.matched_depth(DIAGONAL)
    assert np.abs(matched["argmax"] - matched.depth_b).max() < 0.03
    # Within reach of an end, a ridge is cut off and its mean moves inwards.
    inner = (matched.depth_b > 0.3) & (matched.depth_b < 0.7)
    assert np.abs(matched["centroid"] - matched.depth_b)[inner].max() < 0.01
    assert float(matched["best"].min()) > 0.9


def test_the_centroid_ignores_what_all_layers_share() -> None:
    low, high = cka.matched_depth(DIAGONAL), cka.matched_depth(DIAGONAL + 5)
    assert np.allclose(low["centroid"], high["centroid"], atol=0.02)


def test_constant_layers_have_no_match() -> None:
    gaps = PAPER.copy()
    gaps[:, 3] = np.nan  # a constant CNN layer
    gaps[4] = np.nan  # a constant ViT layer
    matched = cka.matched_depth(gaps)
    assert matched["argmax"].isnull().values.nonzero()[0].tolist() == [3]
    assert matched["centroid"].isnull().values.nonzero()[0].tolist() == [3]
    assert float(gaps.depth_a[4]) not in matched["argmax"].values


def test_tables_have_a_row_a_way_and_a_column_a_number() -> None:
    within = cka.within_numbers({"all": VIT_LIKE, "blocks": tuple(map(cka.block_outputs, VIT_LIKE))})
    assert list(within.index) == ["all", "blocks"]
    assert within.loc["all", "stage contrast, CNN"] == pytest.approx(0.7)
    across = cka.across_numbers({"all": PAPER})
    assert across.loc["all", "share of CNN layers deeper than their match"] > 0.9


def test_a_number_table_shows_two_decimals_text_and_what_is_missing() -> None:
    table = number_table({"a & b": {"x": -0.001, "y": "1,000"}, "c": {"x": float("nan"), "y": "–"}}, "1 < 2")
    assert '<th class="blank' not in table._repr_html_(), "a head without words is none"
    page = table._repr_html_()
    assert "<caption>1 &lt; 2</caption>" in page
    assert re.search('<th scope="row"[^>]*>a &amp; b</th>', page) and re.search('<th scope="col"[^>]*>x</th>', page)
    cells = re.findall("<td[^>]*>(.*?)</td>", page)
    assert cells == ["", "0.00", "1,000", "–", "–"]
    assert "a & b" in repr(table)


def test_by_part_keeps_cls_and_averages_the_spatial_tokens() -> None:
    dataset = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH)
    dataset["ratio"][0, 0, 1:] = [1, 2, 3, 6]
    parts = residual.by_part(dataset)
    assert list(parts["part"].values) == ["CLS", "spatial"]
    assert parts.sel(part="spatial", branch="attention")[0] == 3
    assert parts.sel(part="CLS", branch="attention")[0] == 8


def test_by_part_of_a_model_without_cls_has_spatial_only() -> None:
    assert list(residual.by_part(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=0))["part"].values) == ["spatial"]


def test_registers_are_neither_cls_nor_spatial() -> None:
    dataset = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=3)
    dataset["ratio"][:, :, 1:3] = 99
    np.testing.assert_array_equal(residual.by_part(dataset).sel(part="CLS", branch="mlp"), HIGH_THEN_LOW)


def test_averages_are_geometric_within_each_half() -> None:
    table = residual.averages({"m": vit_ratios([1, 4, 1, 4, 3, 3, 3, 3], LOW_THEN_HIGH)})
    row = table.sel(tokens="m, attention, CLS")
    np.testing.assert_allclose(row, [2, 2, 2, 3, 3, 3])
    assert table.shape == (4, 6)


def test_contrast_is_within_less_across() -> None:
    assert cka.split_contrast(divided(0.2), 1) == pytest.approx(0.7)


def test_a_uniform_map_has_no_contrast() -> None:
    assert cka.split_contrast(divided(0.9), 1) == pytest.approx(0)


def test_nothing_stands_before_the_first_block() -> None:
    assert np.isnan(cka.split_contrast(divided(0.2, block=0), 0))


def test_a_constant_layer_is_left_out_of_the_contrast() -> None:
    values = divided(0.2)
    values[8, :] = values[:, 8] = np.nan
    assert cka.split_contrast(values, 1) == pytest.approx(0.7)
    assert np.isnan(cka.split_contrast(values, 3))  # the only one behind


def test_contrast_at_a_block_that_is_not_there() -> None:
    with pytest.raises(VitcnnError, match="no block 5"):
        cka.split_contrast(divided(0.2), 5)


def test_accuracies_are_unknown_where_no_model_was_trained() -> None:
    table = accuracies(0.8, {4: 0.7}, {1: 0.2, 4: 0.1})
    assert list(table["skips"].values) == ["all there", "none in block 1", "none in block 4"]
    np.testing.assert_allclose(table, [[80, 80], [np.nan, 20], [70, 10]])


def test_same_blocks_takes_the_diagonal() -> None:
    values = np.linspace(0.9, 0.1, 5)
    result = cka.same_blocks({"3 %": similarity_to("ref", values), cka.FLOOR: similarity_to("ref", values / 2)})
    assert result.dims == ("model", "block")
    assert np.allclose(result.sel(model="3 %"), values)
    assert np.allclose(result.sel(model=cka.FLOOR), values / 2)
    assert result.depth.values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert result.attrs["reference"] == "ref"


def test_same_blocks_keeps_what_is_left_out_and_what_made_each_map() -> None:
    maps = {
        label: xr.concat([similarity_to("ref", height * np.linspace(0.9, 0.1, 5)) for height in (1, 0.9, 0.8)],
                         xr.Variable("left_out", [-1, 0, 1])).assign_attrs(model=label, weights=f"w {label}")
        for label in ("3 %", "10 %")
    }  # fmt: skip
    result = cka.same_blocks(maps)
    assert result.dims == ("left_out", "model", "block") and result.left_out.values.tolist() == [-1, 0, 1]
    one = cka.same_blocks({label: similarity.isel(left_out=2) for label, similarity in maps.items()})
    np.testing.assert_allclose(result.isel(left_out=2), one)
    assert (result.attrs["model"], result.attrs["weights"]) == ("3 %, 10 %", "w 3 %, w 10 %")


def test_controls_are_no_parts_of_the_data() -> None:
    assert cka.subsets(curves(SERIES)) == ["3 %", "10 %", "30 %"]


def test_low_and_high_do_not_overlap() -> None:
    values = np.array([1.0, 1, 1, 0.5, 0, 0, 0, 0])
    result = cka.same_blocks({"3 %": similarity_to("ref", values)})
    assert float(cka.lower_third(result)[0]) == 1
    assert float(cka.upper_half(result)[0]) == 0


def test_accuracy_at_a_depth_is_interpolated_in_percent() -> None:
    assert at_depth(probes(0.2, 0.6), 0.5) == pytest.approx(40)
    assert at_depth(probes(0.2, 0.6), 1) == pytest.approx(60)


def test_the_average_does_not_depend_on_where_layers_lie() -> None:
    even, uneven = probes(0.2, 0.6), probes(0.2, 0.6, depths=(0, 0.01, 0.02, 0.03, 1))
    assert average(even) == pytest.approx(40)
    assert average(uneven) == pytest.approx(40, abs=0.5)


def test_skill_is_one_where_all_tokens_find_their_patch_and_zero_by_chance() -> None:
    assert skill(token_map()) == pytest.approx(1)
    assert skill(elsewhere()) == pytest.approx(0)  # 1 of 25, as by chance


def test_rank_correlations_are_spearmans():
    falling = subsets_of(DISTANCES, [[0.6, 0.55], [0.5, 0.5], [0.4, 0.45], [0.35, 0.4], [0.3, 0.35]])
    rho = rank_correlations(falling["distance"], falling["cka"])
    assert rho.values == pytest.approx([-1, -1])
    # By hand: ranks 0 1 2 3 4 against 1 0 2 4 3, sum of squared differences 4, so 1 - 6 * 4 / (5 * 24).
    swapped = subsets_of(DISTANCES, [[0.2], [0.1], [0.3], [0.9], [0.8]])
    assert rank_correlations(swapped["distance"], swapped["cka"]).values == pytest.approx([0.8])


def sizes(radius: list[float], depths: list[float] | None = None) -> xr.Dataset:
    """As `receptive_field.summarize` gives it."""
    depths = np.linspace(0, 1, len(radius)).tolist() if depths is None else depths
    over = {"radius_50": radius, "centre_mass": np.linspace(0.2, 0.4, len(radius))}
    return xr.Dataset({name: ("layer", list(v)) for name, v in over.items()}, {"depth": ("layer", depths)})


def test_steady_growth_has_a_quarter_in_each_quarter_of_the_depth() -> None:
    assert largest_growth(sizes([0, 1, 2, 3, 4]))[0] == pytest.approx(0.25)
    assert largest_growth(sizes([0, 4]))[0] == pytest.approx(0.25)  # however many layers there are


def test_a_jump_is_found_where_it_is() -> None:
    share, middle = largest_growth(sizes([1, 1, 1, 5, 5, 5], [0, 0.2, 0.45, 0.55, 0.8, 1]))
    assert share == pytest.approx(1)
    assert middle == pytest.approx(0.5, abs=0.1)
    assert np.isnan(largest_growth(sizes([3, 3, 3]))).all()
    assert np.isnan(largest_growth(sizes([3, 2.5, 3.01]))).all()  # as good as nothing


def test_early_is_the_lowest_third() -> None:
    assert early_radius(sizes([1, 2, 30, 40]), "radius_50") == 1.5


def test_the_shift_of_the_centre_compares_each_layer_with_itself() -> None:
    after, before = sizes([1, 2, 3]), sizes([1, 2, 3])
    before["centre_mass"][:] = [0.4, 0.1, 0.3]  # differences −0.2, 0.2 and 0.1; both have a median of 0.3
    assert centre_shift(after, before) == pytest.approx(10)
