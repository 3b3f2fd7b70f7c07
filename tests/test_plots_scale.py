"""The figures of chapter 5: panels, axes, alt text."""

import xml.etree.ElementTree as ET

import pytest
from similarity_maps import curves, probes

from vitcnn_utils.measures.cka import CEILING, FLOOR
from vitcnn_utils.plots import scale
from vitcnn_utils.plots.style import Figure
from vitcnn_utils.provenance import Provenance

SOURCE = Provenance("zoo", "cifar10", 128, 0, "cpu")
SVG = "{http://www.w3.org/2000/svg}"
LARGE = curves({"3 %": (0.9, 0.1), "10 %": (0.9, 0.5), CEILING: (1, 0.9), FLOOR: (0.4, 0)}, reference="zoo/large")
SMALL = curves({"3 %": (0.9, 0.3), FLOOR: (0.4, 0)}, count=6, reference="zoo/small")


def texts(figure: Figure) -> list[str]:
    return ["".join(node.itertext()).strip() for node in ET.fromstring(figure.svg).iter(f"{SVG}text")]


def panels(figure: Figure) -> int:
    return sum(node.get("id", "").rsplit("-", 1)[-1].startswith("axes_") for node in ET.fromstring(figure.svg).iter())


@pytest.mark.parametrize("series", [[LARGE, SMALL], [SMALL]])
def test_figure_12_has_a_panel_a_series(series: list) -> None:
    figure = scale.similarity_by_data(series, SOURCE)
    assert figure.ids == ("fig-12",)
    assert panels(figure) == len(series)
    shown = texts(figure)
    assert shown.count("block") == len(series)
    assert {"zoo/small", "3 % of the data", "untrained", "CKA with the model of all data"} <= set(shown)


def test_figure_12_shows_each_label_once_and_only_the_controls_there_are() -> None:
    both = texts(scale.similarity_by_data([LARGE, SMALL], SOURCE))
    assert both.count("3 % of the data") == both.count("untrained") == both.count("second seed, all data") == 1
    assert "second seed, all data" not in texts(scale.similarity_by_data([SMALL], SOURCE))


def test_figure_12_says_its_numbers() -> None:
    alt = scale.similarity_by_data([SMALL], SOURCE).alt
    # Six blocks from 0.9 to 0.3: the first two, and the last three.
    assert "3 % 0.84 and 0.42" in alt


PANELS = {
    "data": {"ViT": probes(0.2, 0.6), "ViT, small data": probes(0.2, 0.4), f"ViT, {CEILING}": probes(0.2, 0.5)},
    "models": {"ViT": probes(0.2, 0.6), "CNN": probes(0.2, 0.7), f"CNN, {FLOOR}": probes(0.2, 0.1)},
}


def test_figure_13_has_a_panel_a_comparison_and_a_line_a_model() -> None:
    figure = scale.probes_over_depth(PANELS, SOURCE)
    assert figure.ids == ("fig-13",)
    assert panels(figure) == 2
    shown = texts(figure)
    labels = {label for curves_ in PANELS.values() for label in curves_}
    assert {"data", "models", "probe accuracy (%)", *labels} <= set(shown)
    assert shown.count("depth") == 2
    assert shown.count("ViT") == 1, "in the legend once"


def test_figure_13_says_its_numbers_shots_and_images() -> None:
    figure = scale.probes_over_depth(PANELS, SOURCE, key="transfer")
    assert "ViT, small data 30 at depth ½ and 40 at the end" in figure.alt
    assert "10-shot" in figure.caption
    assert "1,000 test images" in figure.caption
    assert figure.ids == ()


def test_a_variant_that_no_line_stands_for_is_an_error() -> None:
    with pytest.raises(KeyError):
        scale.probes_over_depth({"data": {"ViT, upside down": probes(0, 1)}}, SOURCE)
