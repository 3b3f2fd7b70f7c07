"""What every figure, claim and provenance line of the book shares."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vitcnn_utils.plots.style import CYCLE, figure, heat_map, number, panels, styled
from vitcnn_utils.provenance import Provenance

PROVENANCE = Provenance("zoo", "cifar10", 2500, 0, "cpu")


@styled
def draw():
    drawing, axes = panels(1, 2)
    axes[0, 0].plot([0, 1], label="line")
    axes[0, 0].legend(title="legend")
    drawing.colorbar(heat_map(axes[0, 1], np.eye(3)))
    axes[0, 1].set_title("heat map")
    return drawing


@pytest.fixture
def drawing():
    return draw()


def svg_of(shown):
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", shown._repr_html_(), re.S).group())


def test_a_figure_takes_the_colour_of_the_page(drawing):
    text = figure(drawing, ["fig-1"], "alt", "caption", PROVENANCE)._repr_html_()
    assert "currentColor" in text
    assert not re.search(r"#000000|#010203|: *black", text)
    assert "<style" not in text and "<metadata" not in text


def test_a_figure_has_alt_text_caption_and_provenance(drawing):
    shown = figure(drawing, ["fig-1", "fig-2"], 'a "quoted" <picture>', "What it shows", PROVENANCE)
    assert svg_of(shown).attrib["aria-label"] == 'a "quoted" <picture>'
    assert 'id="fig-1"' in shown._repr_html_() and 'id="fig-2"' in shown._repr_html_()
    assert "Figures 1 and 2.</strong> What it shows" in shown._repr_html_()
    assert "Edition zoo · 2,500 images of cifar10 · seed 0 · cpu · commit" in shown._repr_html_()


def test_two_drawings_of_a_page_share_no_id(drawing):
    ids = []
    for key in ("", "detail"):
        shown = figure(drawing, ["fig-1"], "alt", "caption", PROVENANCE, key=key)
        ids.append({element.attrib["id"] for element in svg_of(shown).iter() if "id" in element.attrib})
        references = set(re.findall(r'href="#([^"]+)|url\(#([^)]+)\)', shown._repr_html_()))
        assert {"".join(pair) for pair in references} <= ids[-1]
    assert ids[0] and not ids[0] & ids[1]


def test_two_equal_colour_bars_share_no_id():
    @styled
    def twins():
        drawing, axes = panels(1, 2)
        for ax in axes[0]:
            drawing.colorbar(heat_map(ax, np.eye(3), vmin=0, vmax=1))
        return drawing

    svg = svg_of(figure(twins(), ["fig-1"], "alt", "caption", PROVENANCE))
    ids = [element.attrib["id"] for element in svg.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert sum(element.tag.endswith("image") for element in svg.iter()) == 4


def test_the_same_drawing_gives_the_same_bytes():
    first, second = (figure(draw(), ["fig-1"], "alt", "caption", PROVENANCE)._repr_html_() for _ in range(2))
    assert first == second


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("ground", ["#ffffff", "#14181e"])  # of the book's light and dark theme
@pytest.mark.parametrize("colour", CYCLE)
def test_lines_stand_out_in_light_and_dark(colour, ground):
    light, dark = sorted((_luminance(colour), _luminance(ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 1.4.11


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [(0.125, 2, "0.13"), (-0.125, 2, "-0.13"), (2.675, 2, "2.67"), (-0.001, 2, "0.00"), (7, 0, "7"),
     (np.nan, 2, "none"), (-np.inf, 1, "none"), (np.float32(0.5), 1, "0.5")],
)  # fmt: skip
def test_numbers_are_written_as_in_the_page(value, digits, words):
    assert number(value, digits) == words
