"""Figures 7 and 8: valid SVG with the paper's panels, axes that say what they show, numbers in the alt text."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from made import HIGH_THEN_LOW, LOW_THEN_HIGH, cnn_ratios, vit_ratios
from made import divided as similarity

from vitcnn_utils.plots import skips
from vitcnn_utils.plots.style import Figure
from vitcnn_utils.provenance import Provenance

PROVENANCE = Provenance("test", "cifar10", 4, 0, "cpu")
CNN = cnn_ratios([2.0] * 6, [False, False, True] * 2)


def texts(figure: Figure) -> list[str]:
    """What is written in a figure, which must be well-formed."""
    root = ElementTree.fromstring(re.sub(r"xlink:", "", figure.svg))
    return ["".join(e.itertext()).strip() for e in root.iter() if e.tag.endswith("text")]


def panels(figure: Figure) -> int:
    return len(set(re.findall(r'id="[^"]*axes_(\d+)"', figure.svg)))


def test_figure_7_has_a_map_for_each_branch_and_the_lines() -> None:
    figure = skips.norm_ratios(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH), CNN, PROVENANCE)
    found = texts(figure)
    assert figure.ids == ("fig-7",)
    assert panels(figure) == 5  # three panels and two colour bars
    assert {"self-attention", "MLP", "token (0 = CLS)", "block or unit", "MLP, CLS", "CNN units"} <= set(found)
    assert "MLP CLS from 8.0 to 2.0" in figure.alt
    assert "2.0 to 2.0" in figure.alt


def test_figure_7_without_cls_draws_spatial_tokens_only() -> None:
    figure = skips.norm_ratios(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH, prefix=0), CNN, PROVENANCE)
    assert not [text for text in [*texts(figure), figure.caption] if "CLS" in text]


def test_figure_7_of_an_untrained_cnn_leaves_its_line_out() -> None:
    untrained = cnn_ratios([np.inf] * 6, [False] * 6)
    figure = skips.norm_ratios(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH), untrained, PROVENANCE, key="untrained")
    assert figure.ids == ()
    assert "nan" not in figure.svg.lower().replace("nano", "")
    assert "inf" in figure.alt


def test_token_grids_have_a_map_for_each_block_and_branch() -> None:
    figure = skips.token_grids(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH), (2, 2), PROVENANCE)
    assert panels(figure) == 2 * 8 + 2
    assert "CLS 8.0" in texts(figure)
    assert "from 2.0 to 8.0 (MLP)" in figure.alt


def test_token_grids_of_a_deep_model_show_eight_blocks() -> None:
    deep = vit_ratios(np.arange(1.0, 25), np.arange(1.0, 25))
    figure = skips.token_grids(deep, (2, 2), PROVENANCE)
    assert panels(figure) == 2 * 8 + 2
    assert {"block 0", "block 23"} <= set(texts(figure))


def test_cosines_show_both_readings() -> None:
    figure = skips.cosines(vit_ratios(HIGH_THEN_LOW, LOW_THEN_HIGH), CNN, PROVENANCE)
    assert panels(figure) == 2
    assert {"cos(z, z + f(z))", "cos(z, f(z))", "cosine"} <= set(texts(figure))


@pytest.mark.parametrize(("how", "key", "ids"), [("trained without", "", ("fig-8",)), ("run without", "cut", ())])
def test_figure_8_has_the_intact_model_first(how: str, key: str, ids: tuple[str, ...]) -> None:
    changed: dict[int, xr.DataArray] = {0: similarity(0.2, block=0), 1: similarity(0.4)}
    figure = skips.split_maps(similarity(0.8), changed, PROVENANCE, how=how, key=key)
    found = texts(figure)
    assert figure.ids == ids
    assert panels(figure) == 4  # three maps and the colour bar
    assert [t for t in found if "skips" in t or "none" in t] == ["all skips", "none in block 0", "none in block 1"]
    assert f"{how} both skip connections" in figure.caption
    assert "layer, input to output" in found
    assert "0.50 for block 1 (0.10 with all skips)" in figure.alt
