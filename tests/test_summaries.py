"""Summaries of the measures, on arrays whose answer is known."""

import re

import numpy as np
import pytest
import xarray as xr
from made import HIGH_THEN_LOW, LOW_THEN_HIGH, divided, elsewhere, subsets_of, token_map, vit_ratios
from similarity_maps import DIAGONAL, PAPER, by_distance, grid, probes, similarity, similarity_to, staged

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


def test_numbers_of_a_map_whose_cka_falls_with_the_distance() -> None:
    assert cka.low_high(by_distance(0)) == pytest.approx(1)
    # Of 4 layers at depths 0, 1/3, 2/3, 1, the first and the last two are 2/3, 1, 1/3 and 2/3 apart.
    assert cka.low_high(by_distance(0.6, count=4)) == pytest.approx(1 - 0.6 * 2 / 3)
    assert cka.decay(by_distance(0.7)) == pytest.approx(-0.7)
    assert abs(cka.grid_contrast(by_distance(0.9))) < 0.05  # distance in depth alone makes no grid
    assert np.isnan(cka.decay(by_distance(0.7, count=2)))
    assert np.isnan(cka.decay(by_distance(0.7) * np.nan)), "all images are one picture"


def test_spread_leaves_the_diagonal_out() -> None:
    values = np.full((5, 5), 0.3)
    np.fill_diagonal(values, 1)
    assert cka.spread(similarity(values)) == pytest.approx(0, abs=1e-12)
    assert cka.spread(staged(1, 0)) > 0.4


def test_a_constant_layer_is_left_out_of_every_number() -> None:
    gap = by_distance(0.5)
    whole = (cka.decay(gap), cka.low_high(gap))
    gap[5], gap[:, 5] = np.nan, np.nan
    assert cka.decay(gap) == pytest.approx(whole[0])
    assert np.isfinite([cka.low_high(gap), cka.spread(gap), cka.stage_contrast(gap, [0.5])]).all()
    assert np.isfinite(cka.grid_contrast(gap))


def test_stage_contrast_sees_stages_only_where_they_are_cut() -> None:
    first_of_second = np.linspace(0, 1, 24)[12]
    assert cka.stage_contrast(staged(0.9, 0.2), [0.5]) == pytest.approx(0.7)
    assert cka.stage_contrast(staged(0.9, 0.2), [first_of_second]) == pytest.approx(0.7)
    assert cka.stage_contrast(staged(0.9, 0.2), [0.25]) < 0.7
    assert np.isnan(cka.stage_contrast(staged(0.9, 0.2), []))


def test_grid_contrast_compares_kinds_across_blocks() -> None:
    # Two of six entries are norms, so "same kind" counts them across names.
    assert cka.grid_contrast(grid(0.8, 0.5)) == pytest.approx(0.3)
    assert cka.grid_contrast(grid(0.5, 0.5)) == pytest.approx(0)
    outputs = cka.block_outputs(grid(0.8, 0.5))
    assert outputs.shape == (4, 4) and np.isnan(cka.grid_contrast(outputs))


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
    shared_by_all = cka.matched_depth(DIAGONAL + 5)
    assert np.allclose(matched["centroid"], shared_by_all["centroid"], atol=0.02)


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
    dataset = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=3)
    dataset["ratio"][:, :, 1:3] = 99  # registers are neither
    dataset["ratio"][0, 0, 3:] = [1, 2, 3, 6]
    parts = residual.by_part(dataset)
    assert list(parts["part"].values) == ["CLS", "spatial"]
    assert parts.sel(part="spatial", branch="attention")[0] == 3
    np.testing.assert_array_equal(parts.sel(part="CLS", branch="mlp"), HIGH_THEN_LOW)
    assert list(residual.by_part(vit_ratios([1], [1], prefix=0))["part"].values) == ["spatial"]


def test_averages_are_geometric_within_each_half() -> None:
    table = residual.averages({"m": vit_ratios([1, 4, 1, 4, 3, 3, 3, 3], LOW_THEN_HIGH)})
    row = table.sel(tokens="m, attention, CLS")
    np.testing.assert_allclose(row, [2, 2, 2, 3, 3, 3])
    assert table.shape == (4, 6)


def test_contrast_is_within_less_across() -> None:
    assert cka.split_contrast(divided(0.2), 1) == pytest.approx(0.7)
    assert cka.split_contrast(divided(0.9), 1) == pytest.approx(0)
    assert np.isnan(cka.split_contrast(divided(0.2, block=0), 0))  # nothing stands before the first block
    constant = divided(0.2)
    constant[8, :] = constant[:, 8] = np.nan
    assert cka.split_contrast(constant, 1) == pytest.approx(0.7)
    assert np.isnan(cka.split_contrast(constant, 3))  # the only one behind
    with pytest.raises(VitcnnError, match="no block 5"):
        cka.split_contrast(divided(0.2), 5)


def test_accuracies_are_unknown_where_no_model_was_trained() -> None:
    table = accuracies(0.8, {4: 0.7}, {1: 0.2, 4: 0.1})
    assert list(table["skips"].values) == ["all there", "none in block 1", "none in block 4"]
    np.testing.assert_allclose(table, [[80, 80], [np.nan, 20], [70, 10]])


def test_same_blocks_takes_the_diagonal_and_keeps_what_is_left_out() -> None:
    values = np.array([1.0, 1, 1, 0.5, 0, 0, 0, 0])
    maps = {
        label: xr.concat([similarity_to("ref", height * values) for height in (1, 0.9, 0.8)],
                         xr.Variable("left_out", [-1, 0, 1])).assign_attrs(model=label, weights=f"w {label}")
        for label in ("3 %", "10 %", cka.FLOOR)
    }  # fmt: skip
    result = cka.same_blocks(maps)
    assert result.dims == ("left_out", "model", "block") and result.left_out.values.tolist() == [-1, 0, 1]
    assert result.attrs["reference"] == "ref"
    assert (result.attrs["model"], result.attrs["weights"]) == ("3 %, 10 %, untrained", "w 3 %, w 10 %, w untrained")
    np.testing.assert_allclose(result.depth, np.linspace(0, 1, 8))
    one = cka.same_blocks({label: similarity.isel(left_out=2) for label, similarity in maps.items()})
    assert one.dims == ("model", "block")
    np.testing.assert_allclose(one, np.tile(0.8 * values, (3, 1)))
    np.testing.assert_allclose(result.isel(left_out=2), one)
    assert cka.subsets(one) == ["3 %", "10 %"]  # the controls are no parts of the data
    # What is low and what is high do not overlap.
    assert (cka.lower_third(one)[0], cka.upper_half(one)[0]) == (pytest.approx(0.8), 0)


def test_accuracy_of_probes_is_interpolated_over_depth_in_percent() -> None:
    even, uneven = probes(0.2, 0.6), probes(0.2, 0.6, depths=(0, 0.01, 0.02, 0.03, 1))
    assert at_depth(even, 0.5) == pytest.approx(40)
    assert at_depth(even, 1) == pytest.approx(60)
    assert average(even) == pytest.approx(40)
    assert average(uneven) == pytest.approx(40, abs=0.5)  # wherever layers lie


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
    assert early_radius(sizes([1, 2, 30, 40]), "radius_50") == 1.5  # of the lowest third


def test_a_jump_is_found_where_it_is() -> None:
    share, middle = largest_growth(sizes([1, 1, 1, 5, 5, 5], [0, 0.2, 0.45, 0.55, 0.8, 1]))
    assert share == pytest.approx(1)
    assert middle == pytest.approx(0.5, abs=0.1)
    assert np.isnan(largest_growth(sizes([3, 3, 3]))).all()
    assert np.isnan(largest_growth(sizes([3, 2.5, 3.01]))).all()  # as good as nothing


def test_the_shift_of_the_centre_compares_each_layer_with_itself() -> None:
    after, before = sizes([1, 2, 3]), sizes([1, 2, 3])
    before["centre_mass"][:] = [0.4, 0.1, 0.3]  # differences −0.2, 0.2 and 0.1; both have a median of 0.3
    assert centre_shift(after, before) == pytest.approx(10)
