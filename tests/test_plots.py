"""Figures draw the arrays that they are given, name what they draw, and say it to those who cannot see it."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from explorer_samples import fields
from made import HIGH_THEN_LOW, LOW_THEN_HIGH, cnn_ratios, elsewhere, layers, probe_curves, token_map, vit_ratios
from similarity_maps import DIAGONAL, PAPER, by_distance, curves, probes, staged

from vitcnn_utils.measures.cka import CEILING, FLOOR
from vitcnn_utils.measures.receptive_field import of_kind, summarize
from vitcnn_utils.plots import locality, localization, scale, skips, structure, training
from vitcnn_utils.plots.style import BLUE, GREEN, ORANGE


def lines(ax):
    """The lines of a panel that the legend names: label -> line."""
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def drawn(ax):
    """The values of a panel's heat map."""
    return np.ma.filled(ax.collections[0].get_array(), np.nan)


def titles(figure):
    return [ax.get_title(loc="left") or ax.get_title() for ax in figure.drawing.axes]


def check(figure, name):
    """What every figure owes: its id, well-formed SVG that carries its alt text, and a caption."""
    svg = ElementTree.fromstring(re.search(r"<svg.*</svg>", figure._repr_html_(), re.S).group())
    assert figure.id == name
    assert svg.attrib["aria-label"] == figure.alt
    assert "nan" not in figure.alt and figure.caption
    return figure


# Figures 1 and 2


def named(values, name):
    return values.assign_attrs(model=name, model_b=name)


def within(cnn=None, key=""):
    trained = [named(by_distance(0.3), "my-vit"), named(staged(0.9, 0.2) if cnn is None else cnn, "my-cnn")]
    untrained = [named(by_distance(0.1), "my-vit (untrained)"), named(by_distance(0.2), "my-cnn (untrained)")]
    return trained, untrained, structure.within_models(trained, untrained, key=key)


def test_figure_1_draws_four_maps_with_layer_0_at_the_bottom():
    trained, untrained, figure = within()
    check(figure, "fig-1")
    for ax, values in zip(figure.drawing.axes, [*trained, *untrained], strict=False):
        np.testing.assert_array_equal(drawn(ax), values)
        assert not ax.yaxis_inverted() and ax.collections[0].get_clim() == (0, 1)
    assert titles(figure)[:4] == ["my-vit", "my-cnn", "my-vit (untrained)", "my-cnn (untrained)"]
    assert "my-cnn 0.20" in figure.alt
    assert "before training (on 128 images)" in figure.caption


def test_stage_lines_and_constant_layers_are_drawn_and_explained_only_where_there_are_any():
    _, _, figure = within()
    of_vit, of_cnn = figure.drawing.axes[:2]
    assert len(of_vit.lines) == 0
    assert [line.get_ydata()[0] for line in of_cnn.lines[::2]] == [12]
    assert "new stage" in figure.caption and "Grey" not in figure.caption
    gap = staged(0.9, 0.2)
    gap[3], gap[:, 3] = np.nan, np.nan
    _, _, figure = within(gap, key="blocks")
    assert "Grey" in figure.caption and np.isnan(drawn(figure.drawing.axes[1])[3]).all()
    assert figure.id == "" and 'id="fig-1-blocks-' in figure.svg
    _, _, figure = within(cnn=by_distance(0.5))
    assert not any(ax.lines for ax in figure.drawing.axes[:4])
    assert "stage" not in figure.caption


def test_figure_2_marks_the_layer_most_alike_in_the_map_and_in_depth():
    figure = check(structure.across_models(named(PAPER, "my-vit"), named(DIAGONAL, "my-vit")), "fig-2")
    trained, untrained, matches, best = figure.drawing.axes[:4]
    np.testing.assert_array_equal(drawn(trained), PAPER)
    np.testing.assert_array_equal(drawn(untrained), DIAGONAL)
    np.testing.assert_allclose(trained.lines[0].get_ydata() - 0.5, PAPER.values.argmax(axis=0))
    np.testing.assert_allclose(lines(matches)["most similar"].get_ydata(), PAPER.depth_a[PAPER.values.argmax(axis=0)])
    np.testing.assert_allclose(best.lines[-2].get_ydata(), PAPER.max("layer_b"))
    assert "for its last" in figure.alt


def test_depths_are_marked_at_the_layers_that_have_them():
    assert structure._positions(np.array([0.0, 0.25, 0.5, 1.0]), [0.0, 0.5, 1.0]).tolist() == [0.5, 2.5, 3.5]


# Figures 3 to 6


def heads_of(n_blocks=6, n_heads=4):
    rng = np.random.default_rng(0)
    names = ("distance", "distance_renormalized", "prefix_mass", "entropy")
    variables = {name: (("block", "head"), rng.uniform(0.1, 0.9, (n_blocks, n_heads))) for name in names}
    coords = {"block": np.arange(n_blocks), "head": np.arange(n_heads)}
    return xr.Dataset(variables, coords, {"uniform_distance": 0.5, "model": "zoo/vit"})


def test_figure_3_draws_the_outer_blocks_from_the_nearest_head_to_the_farthest():
    heads, untrained = heads_of(), heads_of(n_heads=3)
    heads["distance"][0] = [5.5, 1.25, 3, 4]
    figure = check(locality.head_distances(heads, untrained), "fig-3")
    panels = [heads["distance"], heads["distance_renormalized"], untrained["distance"]]
    for ax, distances in zip(figure.drawing.axes, panels, strict=True):
        assert list(lines(ax)) == ["uniform", "block 0", "block 1", "block 4", "block 5"]
        for block in (0, 1, 4, 5):
            np.testing.assert_array_equal(lines(ax)[f"block {block}"].get_ydata(), np.sort(distances[block]))
    assert "block 0 from 1.2 to 5.5" in figure.alt
    assert "Uniform attention: 0.5" in figure.alt


def test_beside_figure_3_stands_a_dot_for_each_head_of_all_blocks():
    heads, untrained = heads_of(), heads_of()
    figure = check(locality.all_head_distances(heads, untrained), "")
    left, right = figure.drawing.axes
    dots = np.concatenate([dots.get_offsets()[:, 1] for dots in left.collections])
    both = np.concatenate([heads["distance"].values.ravel(), untrained["distance"].values.ravel()])
    np.testing.assert_allclose(np.sort(dots), np.sort(both))
    np.testing.assert_array_equal(lines(right)["entropy"].get_ydata(), heads["entropy"].mean("head"))
    again = locality.all_head_distances(heads, untrained)
    assert again.svg == figure.svg, "no dot is placed by chance"


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_a_model_of_few_blocks_shows_each_once(n_blocks):
    figure = check(locality.head_distances_by_training({"little": heads_of(n_blocks)}), "fig-4")
    assert list(lines(figure.drawing.axes[0])) == ["uniform", *(f"block {i}" for i in range(n_blocks))]
    assert titles(figure) == ["little"] and "little: zoo/vit" in figure.caption


def subsets_of(n_subsets):
    rng = np.random.default_rng(0)
    variables = {name: (("subset", "layer"), rng.uniform(size=(n_subsets, 5))) for name in ("cka", "cka_pooled")}
    coords = {"distance": ("subset", np.linspace(3, 9, n_subsets)), "layer": [f"unit{i}" for i in range(5)]}
    return xr.Dataset(variables, coords, {"block": 0, "model": "zoo/vit", "cnn": "zoo/resnet"})


def test_figure_5_has_a_row_a_size_and_a_line_a_unit():
    sizes = {4: subsets_of(5), 2: subsets_of(7)}
    figure = check(locality.head_subsets(sizes, sizes), "fig-5")
    for row, (size, subsets) in enumerate(sizes.items()):
        for ax, name in zip(figure.drawing.axes[3 * row :], ("cka", "cka_pooled", "cka"), strict=False):
            for unit, line in lines(ax).items():
                np.testing.assert_array_equal(line.get_ydata(), subsets[name].sel(layer=unit))
                np.testing.assert_array_equal(line.get_xdata(), subsets["distance"])
        assert figure.drawing.axes[3 * row].get_ylabel() == f"CKA, groups of {size}"
    assert "Groups of 2 heads, untrained: from 3.0 to 9.0 pixels" in figure.alt


def fields_of(kinds):
    values = np.random.default_rng(0).uniform(0.1, 1, (len(kinds), 8, 8))
    attrs = {"model": "a model", "channels": "all", "before_addition": 0}
    return fields(values, np.linspace(0, 1, len(kinds)), kinds).assign_attrs(attrs)


VIT = fields_of(["stem", *["attention", "mlp"] * 6])
CNN = fields_of(["stem", *["residual"] * 8])


def test_figure_6_shows_five_depths_of_each_model_counted_from_0():
    figure = check(locality.receptive_fields(VIT, CNN, 4), "fig-6")
    shown = [f"attention {i}" for i in (0, 1, 2, 4, 5)] + ["stem", "unit 1", "unit 3", "unit 5", "unit 7"]
    assert titles(figure)[:10] == shown
    assert all(title in figure.alt for title in shown)
    first = figure.drawing.axes[0]
    np.testing.assert_allclose(drawn(first), VIT[1] / VIT[1].max())
    square = first.patches[-1]
    assert (square.get_x(), square.get_y(), square.get_width()) == (2.5, 2.5, 4)
    assert first.yaxis_inverted(), "row 0 of an image is at the top"
    estimated = VIT.assign_attrs(channels="8 of each image, drawn with seed 0")
    assert "estimated from channels: 8 of each image" in locality.receptive_fields(estimated, CNN, 4).caption


def test_a_field_that_is_zero_everywhere_is_dark():
    found = fields_of(["stem", "residual"])
    found[1] = 0
    vit = fields_of(["attention"] * 3).assign_attrs(before_addition=1)
    figure = check(locality.receptive_fields(vit, found, 4), "")
    assert "before the addition" in figure.caption
    assert (drawn(figure.drawing.axes[6]) == locality.DARKEST).all()


def test_curves_beside_figure_6_are_in_the_colours_of_their_models():
    sizes = {"ViT": summarize(of_kind(VIT, "attention"), 4), "CNN": summarize(CNN, 4)}
    sizes |= {f"{label}, untrained": one for label, one in sizes.items()}
    figure = check(locality.receptive_field_curves(sizes, summarize(xr.ones_like(VIT[:1]), 4)), "")
    for ax, name in zip(figure.drawing.axes, locality._CURVES, strict=True):
        for label, data in sizes.items():
            np.testing.assert_array_equal(lines(ax)[label].get_ydata(), data[name])
            assert lines(ax)[label].get_color() == (BLUE if "ViT" in label else ORANGE)
    assert "radius with half the field (px), ViT: from" in figure.alt


def test_the_centre_is_shown_before_and_after_by_block_from_0():
    after = {"attention": summarize(of_kind(VIT, "attention"), 4), "CNN unit": summarize(CNN[1:], 4)}
    before = {name: data * 0.5 for name, data in after.items()}
    figure = check(locality.centre_before_and_after({name: (after[name], before[name]) for name in after}), "")
    for ax, name in zip(figure.drawing.axes, after, strict=True):
        np.testing.assert_array_equal(lines(ax)["after the addition"].get_ydata(), after[name]["centre_mass"])
        np.testing.assert_array_equal(lines(ax)["before the addition"].get_ydata(), before[name]["centre_mass"])
        assert lines(ax)["after the addition"].get_xdata()[0] == 0


# Figures 7 and 8

RATIOS = vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH).assign_attrs(grid=(2, 2))
UNITS = cnn_ratios([2.0] * 6, [False, False, True] * 2)


def test_figure_7_draws_the_ratios_of_tokens_and_of_parts():
    figure = check(skips.norm_ratios(RATIOS, UNITS), "fig-7")
    attention, mlp, by_block = figure.drawing.axes[:3]
    for ax, branch in ((attention, "attention"), (mlp, "mlp")):
        np.testing.assert_array_equal(drawn(ax), RATIOS["ratio"].sel(branch=branch).transpose("token", "block"))
        assert not ax.yaxis_inverted(), "token 0 is at the bottom"
    assert list(lines(by_block)["MLP, CLS"].get_ydata()) == HIGH_THEN_LOW
    assert list(lines(by_block)["self-attention, spatial"].get_ydata()) == LOW_THEN_HIGH
    assert lines(by_block)["CNN units"].get_color() == ORANGE
    hollow = by_block.lines[-1]
    np.testing.assert_array_equal(hollow.get_ydata(), [np.nan, np.nan, 2] * 2)
    assert "MLP CLS from 8.0 to 2.0" in figure.alt and "2.0 to 2.0" in figure.alt


def test_figure_7_leaves_out_what_there_is_not():
    without_cls = skips.norm_ratios(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=0), UNITS)
    assert "CLS" not in without_cls.svg + without_cls.caption
    figure = skips.norm_ratios(RATIOS, cnn_ratios([np.inf] * 6, [False] * 6), key="untrained")
    assert np.isnan(lines(figure.drawing.axes[2])["CNN units"].get_ydata()).all()
    assert figure.id == "" and "inf" in figure.alt


def test_token_grids_put_each_token_at_its_place():
    figure = check(skips.token_grids(RATIOS), "")
    np.testing.assert_array_equal(drawn(figure.drawing.axes[0]), np.full((2, 2), LOW_THEN_HIGH[0]))
    assert figure.drawing.axes[0].get_xlabel() == "CLS 8.0"
    assert "from 2.0 to 8.0 (MLP)" in figure.alt
    deep = skips.token_grids(vit_ratios(np.arange(1.0, 25), np.arange(1.0, 25)).assign_attrs(grid=(2, 2)))
    assert [title for title in titles(deep) if title][::7] == ["block 0", "block 23"]


def test_cosines_show_both_readings():
    figure = check(skips.cosines(RATIOS, UNITS), "")
    assert titles(figure) == ["cos(z, z + f(z))", "cos(z, f(z))"]
    assert list(lines(figure.drawing.axes[0])["MLP, CLS"].get_ydata()) == HIGH_THEN_LOW


def test_figure_8_has_the_intact_model_first():
    intact, changed = by_distance(0.1), {1: staged(0.9, 0.4), 2: staged(0.9, 0.2)}
    figure = check(skips.split_maps(intact, changed, how="trained without"), "fig-8")
    for ax, values in zip(figure.drawing.axes, [intact, *changed.values()], strict=False):
        np.testing.assert_array_equal(drawn(ax), values)
    assert titles(figure)[:3] == ["all skips", "none in block 1", "none in block 2"]
    assert [line.get_xdata()[0] for line in figure.drawing.axes[1].lines[1::2]] == [6, 12]
    assert "trained without both skip connections" in figure.caption
    assert "for block 2 (0.0" in figure.alt


def with_parts(measured):
    """As a measure gives it with each minibatch left out in turn; without these, other numbers."""
    return xr.concat([measured, 0.5 * measured], xr.Variable("left_out", [-1, 0])).assign_attrs(measured.attrs)


DRAWN = {
    "fig-1": (lambda *maps: structure.within_models(maps[:2], maps[2:]), [named(by_distance(0.3), "a")] * 4),
    "fig-2": (structure.across_models, [PAPER, DIAGONAL]),
    "fig-5": (lambda *sizes: locality.head_subsets({4: sizes[0]}, {4: sizes[1]}), [subsets_of(5), subsets_of(5)]),
    "fig-6": (lambda *fields: locality.receptive_fields(*fields, 4), [VIT, CNN]),
    "fig-8": (lambda *maps: skips.split_maps(maps[0], {1: maps[1]}), [by_distance(0.1), staged(0.9, 0.4)]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_that_of_all_images(name):
    draw, arrays = DRAWN[name]
    assert draw(*map(with_parts, arrays)).svg == draw(*arrays).svg


# Figures 9 to 11


def test_positions_are_those_of_the_paper_on_its_grid_and_fit_any():
    assert localization.positions((7, 7)) == {
        "corner": (0, 0), "border": (4, 0), "near border": (2, 1), "interior": (4, 4),
    }  # fmt: skip
    assert all(0 <= r < 2 and 0 <= c < 2 for r, c in localization.positions((2, 2)).values())


def test_token_maps_of_a_column_share_a_scale_and_the_baseline_has_its_own():
    strong, weak, patches = token_map(0.5), token_map(0.2), token_map(1.0, 0.3)
    strong[0, 0] = 0.9  # one corner token must not hide the interior
    figure = check(localization.token_maps({"ViT": strong, "CNN": weak}, "fig-9", baseline=patches), "fig-9")
    axes = np.reshape(figure.drawing.axes[:12], (3, 4))
    for column, at in enumerate(localization.positions((5, 5)).values()):
        for ax, values in zip(axes[:, column], (strong, weak, patches), strict=True):
            np.testing.assert_array_equal(drawn(ax), values.values[at])
            assert (ax.patches[-1].get_y(), ax.patches[-1].get_x()) == at
            assert ax.yaxis_inverted()
    limits = [[ax.collections[0].get_clim() for ax in row] for row in axes]
    assert limits[0] == limits[1] == [(0.1, 0.9)] + [(0.1, 0.5)] * 3
    assert limits[2] == [(0.3, 1)] * 4
    assert "CNN, 100%" in figure.alt


def test_a_map_that_is_constant_or_unknown_still_draws():
    values = token_map(0.1, 0.1)
    values[0, 0] = np.nan
    check(localization.token_maps({"ViT": token_map(), "CNN": values}, "fig-10"), "fig-10")


def test_by_layer_draws_the_share_that_finds_its_patch():
    figure = check(localization.by_layer({"ViT": layers(token_map(), elsewhere())}), "")
    found, excess = figure.drawing.axes
    np.testing.assert_allclose(lines(found)["ViT"].get_ydata(), [1, 1 / 25])
    np.testing.assert_allclose(lines(excess)["ViT"].get_ydata()[0], 0.4)
    assert "ViT 100% in the first and 4% in the last" in figure.alt


def test_figure_11_draws_tokens_left_and_read_outs_right_in_the_colours_of_their_models():
    vit = probe_curves(token=[0.2, 0.3], cls=[0.2, 0.8], mean=[0.3, 0.4], mean_with_cls=[0.3, 0.5])
    gap = probe_curves(token=[0.2, 0.6], first_token=[0.1, 0.6], mean=[0.3, 0.7])
    figure = check(localization.probes({"ViT": vit, "ViT-GAP": gap, "CNN": vit}), "fig-11")
    left, right = figure.drawing.axes
    np.testing.assert_allclose(lines(left)["ViT-GAP"].get_ydata(), [20, 60])
    np.testing.assert_allclose(lines(right)["CLS; CLS token"].get_ydata(), [20, 80])
    np.testing.assert_allclose(lines(right)["GAP; first token"].get_ydata(), [10, 60])
    colours = {label: line.get_color() for ax in (left, right) for label, line in lines(ax).items()}
    assert colours["ViT"] == colours["CLS; CLS token"] == BLUE and colours["CNN"] == ORANGE
    assert colours["ViT-GAP"] == colours["GAP; mean of all tokens"] == GREEN
    assert "ViT 20 % to 30 %" in figure.alt and "10 labelled images a class" in figure.caption
    alone = localization.probes({"ViT": vit, "CNN": vit})
    assert not [label for label in lines(alone.drawing.axes[1]) if label.startswith("GAP")]


def test_token_accuracies_draw_the_last_layers():
    data = probe_curves(token=[0.2, 0.3, 0.4])
    figure = check(localization.token_accuracies({"ViT": data}, 2), "")
    for ax, layer in zip(figure.drawing.axes, (1, 2), strict=False):
        np.testing.assert_allclose(drawn(ax), 100 * data["token_accuracy"][layer].mean("draw"))
    assert titles(figure)[:2] == ["l1", "l2"] and "ViT 40 to 40 %" in figure.alt


# Figures 12 and 13

LARGE = curves({"3 %": (0.9, 0.1), "10 %": (0.9, 0.5), CEILING: (1, 0.9), FLOOR: (0.4, 0)}, reference="zoo/large")
SMALL = curves({"3 %": (0.9, 0.3), FLOOR: (0.4, 0)}, count=6, reference="zoo/small")


def test_figure_12_has_a_panel_a_series_and_only_the_controls_there_are():
    figure = check(scale.similarity_by_data([LARGE, SMALL]), "fig-12")
    large, small = figure.drawing.axes
    assert list(lines(large)) == ["3 % of the data", "10 % of the data", "second seed, all data", "untrained"]
    assert list(lines(small)) == ["3 % of the data", "untrained"]
    np.testing.assert_array_equal(lines(large)["10 % of the data"].get_ydata(), LARGE.sel(model="10 %"))
    legend = [text.get_text() for text in figure.drawing.legends[0].texts]
    assert len(legend) == len(set(legend)) == 4
    # Six blocks from 0.9 to 0.3: the first two, and the last three.
    assert "3 % 0.84 and 0.42" in figure.alt


PROBED = {
    "ViT": probes(0.2, 0.6), "CNN": probes(0.2, 0.7), "ViT, small data": probes(0.2, 0.4),
    f"ViT, {CEILING}": probes(0.2, 0.5), "ViT-GAP": probes(0.3, 0.5), f"CNN, {FLOOR}": probes(0.2, 0.1),
}  # fmt: skip


def test_figure_13_compares_data_on_the_left_and_models_on_the_right():
    figure = check(scale.probes_over_depth(PROBED), "fig-13")
    left, right = (lines(ax) for ax in figure.drawing.axes)
    assert list(left) == ["ViT", "CNN", "ViT, small data", f"ViT, {CEILING}"]
    assert list(right) == ["ViT", "CNN", "ViT-GAP", f"CNN, {FLOOR}"]
    np.testing.assert_allclose(left["ViT, small data"].get_ydata(), [20, 25, 30, 35, 40])
    assert {line.get_color() for label, line in left.items() if label.startswith("ViT")} == {BLUE}
    assert right["CNN"].get_color() == right[f"CNN, {FLOOR}"].get_color() == ORANGE
    assert left["ViT, small data"].get_linestyle() == "--" and right[f"CNN, {FLOOR}"].get_linestyle() == ":"
    assert "ViT, small data 30 at depth ½ and 40 at the end" in figure.alt
    assert "10-shot" in figure.caption and "1,000 test images" in figure.caption


def test_bands_are_the_standard_deviation_of_a_sample():
    spread = probes(0.2, 0.6)
    spread["accuracy"] = spread["accuracy"] + xr.DataArray([-0.01, 0, 0.01], dims="draw")
    ax = scale.probes_over_depth({"ViT": spread}).drawing.axes[0]
    band = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose((band[:, 1].min(), band[:, 1].max()), (20 - 1, 60 + 1))  # ddof 1: a point, not 0.82


# The page of the zoo, from logs

LOG = [
    {"epoch": i, "step": 100 * i, "train_accuracy": 0.1 * i, "held_out_accuracy": 0.2,
     "head_distances": [[16.0, 14.0 - i], [15.0, 13.5]]}
    for i in (1, 2, 3)
]  # fmt: skip
OTHER = [{**row, "held_out_accuracy": 0.25} for row in LOG]


def test_learning_curves_have_a_panel_a_group_and_two_lines_a_model():
    figure = training.learning_curves({"ViT": {"zoo/a": LOG, "zoo/b": OTHER}, "ResNet": {"zoo/cnn": LOG}})
    of_vits, _ = figure.drawing.axes
    np.testing.assert_allclose(of_vits.lines[0].get_ydata(), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(of_vits.lines[3].get_ydata(), [0.25] * 3)
    assert "zoo/a 0.30 and 0.20, zoo/b 0.30 and 0.25, zoo/cnn 0.30 and 0.20." in figure.alt


def test_distances_have_a_panel_a_block():
    figure = training.distances_over_training("zoo/a", LOG)
    first, _ = figure.drawing.axes
    np.testing.assert_allclose(first.lines[1].get_ydata(), [13, 12, 11])
    assert "block 0 13.0 and 11.0 px, block 1 13.5 and 13.5 px." in figure.alt


def test_other_measures_are_those_of_the_claims():
    map_ = by_distance(0.3)
    similarities = {"CutMix": named(map_, "a"), "no CutMix": named(map_ / 2, "b")}
    sizes = {label: summarize(of_kind(VIT, "attention"), 4) for label in similarities}
    own = xr.DataArray(np.eye(4).reshape(2, 2, 2, 2), dims=("row", "col", "patch_row", "patch_col"))
    figure = training.other_measures(similarities, sizes, {"CutMix": own, "no CutMix": -own})
    likeness, radius, places = figure.drawing.axes
    for i, (label, similarity) in enumerate(similarities.items()):
        np.testing.assert_allclose(likeness.lines[i].get_ydata(), similarity.max("layer_b"))
        np.testing.assert_allclose(radius.lines[i].get_ydata(), sizes[label]["radius_50"])
    assert [float(line.get_ydata()[0]) for line in places.lines[:2]] == [1, pytest.approx(-1 / 3)]
    assert "places 1.00" in figure.alt
