"""The figures of chapter 1: panels, axes, alt text."""

import xml.etree.ElementTree as ET

import numpy as np
import xarray as xr
from similarity_maps import DIAGONAL, PAPER, by_distance, staged

from vitcnn_utils.plots import structure
from vitcnn_utils.plots.style import Figure
from vitcnn_utils.provenance import Provenance

SOURCE = Provenance("zoo", "cifar10", 128, 0, "cpu")
SVG = "{http://www.w3.org/2000/svg}"


def named(similarity: xr.DataArray, name: str) -> xr.DataArray:
    return similarity.assign_attrs(model_a=name, model_b=name)


def within(trained_cnn: xr.DataArray | None = None, key: str = "") -> Figure:
    cnn = staged(0.9, 0.2) if trained_cnn is None else trained_cnn
    return structure.within_models(
        [named(by_distance(0.3), "my-vit"), named(cnn, "my-cnn")],
        [named(by_distance(0.1), "my-vit (untrained)"), named(by_distance(0.2), "my-cnn (untrained)")],
        [0.5], SOURCE, key=key,
    )  # fmt: skip


def texts(figure: Figure) -> list[str]:
    return ["".join(node.itertext()).strip() for node in ET.fromstring(figure.svg).iter(f"{SVG}text")]


def images(figure: Figure) -> int:
    return len(list(ET.fromstring(figure.svg).iter(f"{SVG}image")))


def test_figure_1_has_four_maps_and_a_colour_bar() -> None:
    figure = within()
    assert figure.ids == ("fig-1",)
    assert images(figure) == 5
    shown = texts(figure)
    assert {"my-vit", "my-cnn", "my-vit (untrained)", "my-cnn (untrained)", "CKA", "½"} <= set(shown)
    assert shown.count("layer") == 8


def test_figure_1_says_its_numbers_to_those_who_cannot_see_it() -> None:
    assert "my-cnn 0.20" in within().alt
    assert "my-vit" in within().caption
    assert "before training (on 128 images)" in within().caption


def test_constant_layers_are_explained_only_where_there_are_any() -> None:
    gap = staged(0.9, 0.2)
    gap[3], gap[:, 3] = np.nan, np.nan
    assert "Grey" in within(gap).caption
    assert "Grey" not in within().caption


def test_a_second_drawing_has_no_number_of_its_own() -> None:
    assert within(key="blocks").ids == ()
    assert 'id="fig-1-blocks-' in within(key="blocks").svg


def test_figure_2_has_two_maps_and_two_line_plots() -> None:
    figure = structure.across_models(named(PAPER, "my-vit"), named(DIAGONAL, "my-vit"), SOURCE)
    assert figure.ids == ("fig-2",)
    assert images(figure) == 3
    assert {"trained", "untrained", "CNN layer", "ViT layer", "depth in the CNN", "matching depth in the ViT",
            "depth in the ViT", "best CKA with a CNN layer"} <= set(texts(figure))  # fmt: skip
    assert "for its last" in figure.alt


def test_depths_are_marked_at_the_layers_that_have_them() -> None:
    assert structure._positions(np.array([0.0, 0.25, 0.5, 1.0]), [0.0, 0.5, 1.0]).tolist() == [0, 2, 3]


def test_a_stage_border_lies_before_its_first_layer() -> None:
    every_layer, block_outputs = np.linspace(0, 1, 11), np.array([0.2, 0.5, 0.8, 1])
    assert structure._borders(every_layer, [0.3, 0.6]).tolist() == [2.5, 5.5]
    # The layer that opens the stage is not among the block outputs.
    assert structure._borders(block_outputs, [0.3, 0.6]).tolist() == [0.5, 1.5]
