"""Figures 3 to 6 and the front page: panels, axes, alt text, and what a reader is told."""

import base64
import io
import re
from xml.etree import ElementTree

import front
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from vitcnn_utils.measures.receptive_field import summarize
from vitcnn_utils.plots import locality
from vitcnn_utils.provenance import Provenance

PROVENANCE = Provenance("zoo", "cifar10", 2500, 0, "cpu")
SVG = "{http://www.w3.org/2000/svg}"


def svg_of(shown):
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", shown._repr_html_(), re.S).group())


def texts(shown):
    return ["".join(element.itertext()) for element in svg_of(shown).iter(f"{SVG}text")]


def n_axes(shown):
    """How many axes were drawn; a colour bar is one."""
    return sum(bool(re.search(r"-axes_\d+$", e.attrib.get("id", ""))) for e in svg_of(shown).iter(f"{SVG}g"))


def heads_of(n_blocks=6, n_heads=4, model="zoo/vit"):
    rng = np.random.default_rng(0)
    names = ("distance", "distance_renormalized", "prefix_mass", "entropy")
    variables = {name: (("block", "head"), rng.uniform(0.1, 0.9, (n_blocks, n_heads))) for name in names}
    return xr.Dataset(variables, {"block": np.arange(n_blocks)}, {"uniform_distance": 0.5, "model": model})


def subsets_of(n_subsets):
    rng = np.random.default_rng(0)
    variables = {name: (("subset", "layer"), rng.uniform(size=(n_subsets, 5))) for name in ("cka", "cka_pooled")}
    coords = {"distance": ("subset", np.linspace(3, 9, n_subsets)), "layer": [f"unit{i}" for i in range(5)]}
    return xr.Dataset(variables, coords, {"block": 0, "model": "zoo/vit", "cnn": "zoo/resnet"})


def fields_of(kinds, size=8):
    n = len(kinds)
    values = np.random.default_rng(0).uniform(0.1, 1, (n, size, size))
    over_layer = {
        "kind": kinds,
        "block": np.cumsum([kind in ("attention", "residual") for kind in kinds]) - 1,
        "depth": np.linspace(0, 1, n),
        "centre_y": np.full(n, 4.5),
        "centre_x": np.full(n, 4.5),
    }
    coords = {"layer": [f"l{i}" for i in range(n)], "y": np.arange(size) + 0.5, "x": np.arange(size) + 0.5}
    coords |= {name: ("layer", value) for name, value in over_layer.items()}
    attrs = {"model": "a model", "n_images": 32, "channels": "all"}
    return xr.DataArray(values, dims=("layer", "y", "x"), coords=coords, attrs=attrs)


VIT = fields_of(["stem", *["attention", "mlp"] * 6])
CNN = fields_of(["stem", *["residual"] * 8])


def test_figure_3_has_the_papers_axes_in_both_conventions_and_a_control():
    shown = locality.head_distances(heads_of(), heads_of(), PROVENANCE)
    assert n_axes(shown) == 3
    labels = texts(shown)
    assert labels.count("head, sorted") == 3
    assert "mean attention distance (px)" in labels
    assert {"as in the paper", "untrained", "uniform"} <= set(labels)
    # The two lowest and the two highest blocks, and no other.
    assert [label for label in labels if label.startswith("block")] == ["block 0", "block 1", "block 4", "block 5"]


def test_figure_3_tells_its_numbers_to_those_who_cannot_see_it():
    heads = heads_of()
    heads["distance"][0] = [5.5, 1.25, 3, 4]
    shown = locality.head_distances(heads, heads_of(), PROVENANCE)
    assert "block 0 from 1.2 to 5.5" in shown.alt
    assert "Uniform attention: 0.5" in shown.alt
    assert shown.ids == ("fig-3",)


def test_heads_are_drawn_from_the_nearest_to_the_farthest():
    heads = heads_of()
    heads["distance"][0] = [4.0, 1.0, 3.0, 2.0]
    drawing = locality._draw_head_distances({"one": heads["distance"]}, 2.0)
    line = next(line for line in drawing.axes[0].lines if line.get_label() == "block 0")
    assert list(line.get_ydata()) == [1, 2, 3, 4]
    assert list(line.get_xdata()) == [1, 2, 3, 4]


def test_all_blocks_stand_beside_figure_3_without_a_number_of_their_own():
    shown = locality.all_head_distances(heads_of(), heads_of(), PROVENANCE)
    assert n_axes(shown) == 2
    assert shown.ids == ()
    assert {"share on CLS", "entropy", "block"} <= set(texts(shown))


def test_figure_4_has_a_panel_a_model():
    shown = locality.head_distances_by_data({"little": heads_of(model="few"), "all": heads_of()}, PROVENANCE)
    assert n_axes(shown) == 2
    assert {"little", "all"} <= set(texts(shown))
    assert "little: few" in shown.caption
    assert shown.ids == ("fig-4",)


def test_figure_5_has_a_row_a_size_and_a_line_a_unit():
    sizes = {4: subsets_of(5), 2: subsets_of(7)}
    shown = locality.head_subsets(sizes, sizes, PROVENANCE)
    labels = texts(shown)
    assert n_axes(shown) == 6
    assert {"CKA, groups of 4", "CKA, groups of 2", *(f"unit{i}" for i in range(5))} <= set(labels)
    assert labels.count("mean distance of the group (px)") == 3
    assert sum("ρ" in label for label in labels) == 6
    assert "Groups of 2 heads, untrained: from 3.0 to 9.0 pixels" in shown.alt


def test_figure_6_shows_five_depths_of_each_model():
    shown = locality.receptive_fields(VIT, CNN, 4, PROVENANCE)
    titles = [f"attention {i}" for i in (1, 2, 3, 5, 6)] + ["stem", "unit 2", "unit 4", "unit 6", "unit 8"]
    assert n_axes(shown) == 11  # and a colour bar
    assert [label for label in texts(shown) if label in titles] == titles
    assert "share of the largest value" in texts(shown)
    assert all(title in shown.alt for title in titles)
    assert "all channels" in shown.caption


def test_an_estimate_is_called_one():
    estimated = VIT.assign_attrs(channels="8 of each image, drawn with seed 0")
    assert (
        "estimated from channels: 8 of each image" in locality.receptive_fields(estimated, CNN, 4, PROVENANCE).caption
    )


def test_a_model_with_fewer_blocks_than_panels_leaves_some_empty():
    shown = locality.receptive_fields(fields_of(["attention"] * 3), fields_of(["stem", "residual"]), 4, PROVENANCE)
    assert {"attention 3", "unit 1"} <= set(texts(shown))


def test_maps_before_the_addition_have_no_stem():
    shown = locality.receptive_fields_before(VIT, CNN[1:], 4, PROVENANCE)
    assert "stem" not in texts(shown)
    assert shown.ids == ()


def test_the_middle_is_marked_where_the_layer_looks():
    drawing = locality._draw_maps({"ViT": VIT[1:2], "CNN": CNN[1:2]}, 4)
    square = drawing.axes[0].patches[0]
    assert (square.get_x(), square.get_y(), square.get_width()) == (2.5, 2.5, 4)
    assert drawing.axes[0].yaxis_inverted()  # row 0 of an image is at the top


def test_curves_have_both_models_and_their_controls():
    sizes = {"ViT": summarize(locality.of_kind(VIT, "attention"), 4), "CNN": summarize(CNN, 4)}
    uniform = summarize(xr.ones_like(VIT[:1]), 4)
    shown = locality.receptive_field_curves(sizes, sizes, uniform, PROVENANCE)
    assert n_axes(shown) == 3
    assert {"ViT", "CNN", "ViT, untrained", "CNN, untrained", "uniform field"} <= set(texts(shown))
    assert texts(shown).count("depth") == 3
    assert "radius with half the field (px), ViT: from" in shown.alt


def test_centre_is_shown_before_and_after_for_each_kind_of_branch():
    sizes = {"attention": summarize(locality.of_kind(VIT, "attention"), 4), "CNN unit": summarize(CNN[1:], 4)}
    shown = locality.centre_before_and_after(sizes, sizes, PROVENANCE)
    assert n_axes(shown) == 2
    assert {"after the addition", "before the addition", "share in one patch", "attention"} <= set(texts(shown))


@pytest.fixture
def picture():
    return ElementTree.fromstring(front.compose(CNN[:5], locality.of_kind(VIT, "attention")[:5]))


def test_the_front_picture_stands_alone_on_its_own_ground(picture):
    assert len(list(picture.iter(f"{SVG}image"))) == 2 * front.SHEETS
    assert all(image.attrib["href"].startswith("data:image/png;base64,") for image in picture.iter(f"{SVG}image"))
    ground = next(picture.iter(f"{SVG}rect"))
    assert ground.attrib["fill"] == "url(#front-ground)"
    assert picture.attrib["aria-label"] == picture.find(f"{SVG}title").text


def test_the_front_picture_can_be_read_on_a_phone(picture):
    width = float(picture.attrib["viewBox"].split()[2])
    sizes = [float(text.attrib["font-size"]) for text in picture.iter(f"{SVG}text")]
    assert min(sizes) * 360 / width >= 12


def test_what_matters_most_glows_brightest():
    field = np.full((32, 32), 1e-9)
    field[8, 24] = 1
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(front._glow(field)))))
    scale = len(picture) // 32
    row, column = np.unravel_index(picture[..., 3].argmax(), picture.shape[:2])
    assert (row // scale, column // scale) == (8, 24)
    assert picture[0, 0, 3] == 0
