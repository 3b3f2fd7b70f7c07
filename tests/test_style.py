"""What every figure of the book shares: its looks, its place in the page, one colour a model."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vitcnn_utils.plots.style import BLUE, CYCLE, GREEN, ORANGE, figure, heat_map, model_style, panels, styled

MADE = "zoo/vit (1234) · 2,500 images of <cifar10>"


@styled
def draw(columns=2):
    drawing, axes = panels(1, columns)
    axes[0, 0].plot([0, 1], label="line")
    axes[0, 0].legend(title="legend")
    for ax in axes[0, 1:]:
        drawing.colorbar(heat_map(ax, np.eye(3), vmin=0, vmax=1))
        ax.set_title("heat map")
    return drawing


def svg_of(shown):
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", shown._repr_html_(), re.S).group())


def ids_of(shown):
    return [element.attrib["id"] for element in svg_of(shown).iter() if "id" in element.attrib]


def test_a_figure_has_alt_text_caption_and_provenance_and_no_text_writes_the_page():
    shown = figure(draw(), "fig-1", 'a "quoted" <picture>', "What <b> shows", MADE)
    assert svg_of(shown).attrib["aria-label"] == 'a "quoted" <picture>'
    text = shown._repr_html_()
    for written in ('id="fig-1"', "Figure 1.</strong> What &lt;b&gt; shows", "2,500 images of &lt;cifar10&gt;"):
        assert written in text
    # Its colours are the page's.
    assert "currentColor" in text and not re.search(r"#000000|#010203|: *black|<style|<metadata", text)


def test_drawings_have_ids_of_their_own_and_are_the_same_each_time():
    one, again, detail = (figure(draw(3), "fig-1", "alt", "caption", MADE, key=key) for key in ("", "", "detail"))
    assert one._repr_html_() == again._repr_html_()
    for shown in (one, detail):
        assert len(ids_of(shown)) == len(set(ids_of(shown)))  # of equal colour bars too
        references = re.findall(r'href="#([^"]+)|url\(#([^)]+)\)', shown._repr_html_())
        assert {"".join(pair) for pair in references} <= set(ids_of(shown))
    assert not set(ids_of(one)) & set(ids_of(detail))


@pytest.mark.parametrize("upward", [True, False])
def test_a_heat_map_lies_as_it_is_told_and_is_grey_where_there_is_no_value(upward):
    _, axes = panels()
    mesh = heat_map(axes[0, 0], np.array([[1.0, np.nan]]), upward=upward)
    assert axes[0, 0].yaxis_inverted() != upward
    np.testing.assert_allclose(mesh.get_cmap().get_bad()[:3], [128 / 255] * 3)


@pytest.mark.parametrize(
    ("label", "colour", "line"),
    [("ViT", BLUE, "-"), ("CNN", ORANGE, "-"), ("ViT-GAP", GREEN, "-"), ("CNN, small data", ORANGE, "--"),
     ("ViT, second seed, 12 steps against 34", BLUE, "-."), ("CNN, untrained", ORANGE, ":")],
)  # fmt: skip
def test_a_model_has_one_colour_and_a_way_of_training_one_line(label, colour, line):
    look = model_style(label)
    assert (look["color"], look["linestyle"]) == (colour, line)


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("ground", ["#ffffff", "#14181e"])  # of the book's light and dark theme
@pytest.mark.parametrize("colour", CYCLE)
def test_lines_stand_out_in_light_and_dark(colour, ground):
    light, dark = sorted((_luminance(colour), _luminance(ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 1.4.11
