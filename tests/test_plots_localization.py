"""Figures 9, 10 and 11: valid SVG with the paper's panels, axes that say what they show, numbers in the alt text."""

from made import elsewhere, layers
from made import probe_curves as probes
from made import token_map as similarity
from test_plots_skips import panels, texts

from vitcnn_utils.plots import localization as plots
from vitcnn_utils.provenance import Provenance

PROVENANCE = Provenance("test", "cifar10", 4, 0, "cpu")


def test_positions_are_those_of_the_paper_on_its_grid() -> None:
    assert plots.positions((7, 7)) == {"corner": (0, 0), "border": (4, 0), "near border": (2, 1), "interior": (4, 4)}


def test_positions_stay_on_small_grids_and_are_what_they_say() -> None:
    assert plots.positions((8, 8)) == {"corner": (0, 0), "border": (5, 0), "near border": (2, 1), "interior": (5, 5)}
    assert all(0 <= r < 2 and 0 <= c < 2 for r, c in plots.positions((2, 2)).values())


def test_token_maps_have_a_row_for_each_model_and_four_tokens() -> None:
    figure = plots.token_maps({"ViT": similarity(), "CNN": elsewhere()[:3, :3, :3, :3]}, ("fig-9",), PROVENANCE)
    found = texts(figure)
    assert figure.ids == ("fig-9",)
    assert panels(figure) == 2 * 4 + 2
    assert {"corner (0, 0)", "interior (3, 3)", "interior (1, 1)", "patch column", "CKA"} <= set(found)
    assert "ViT, 100%; CNN, 11%" in figure.alt


def test_a_map_that_is_constant_or_unknown_still_draws() -> None:
    values = similarity(0.1, 0.1)
    values[0, 0] = float("nan")
    assert panels(plots.token_maps({"ViT": values}, ("fig-10",), PROVENANCE)) == 5


def test_by_layer_names_what_it_compares() -> None:
    figure = plots.by_layer({"ViT": layers(similarity(), elsewhere())}, PROVENANCE)
    assert panels(figure) == 2
    assert {"share of tokens", "CKA, own − others", "depth of the layer, 0 to 1", "ViT"} <= set(texts(figure))
    assert "ViT 100% in the first and 4% in the last" in figure.alt


def test_figure_11_has_the_papers_two_panels() -> None:
    dataset = probes(token=[0.2, 0.3], cls=[0.2, 0.8])
    figure = plots.probes({"ViT": dataset}, {"CLS; CLS token": (dataset, "cls")}, PROVENANCE)
    assert figure.ids == ("fig-11",)
    assert panels(figure) == 2
    assert {"test accuracy, %", "depth of the layer, 0 to 1", "ViT", "CLS; CLS token"} <= set(texts(figure))
    assert "ViT 20 % to 30 %; CLS; CLS token 20 % to 80 %" in figure.alt
    assert "10 labelled images a class" in figure.caption


def test_token_accuracies_have_a_map_for_each_layer() -> None:
    figure = plots.token_accuracies({"ViT": probes(token=[0.2, 0.3, 0.4])}, 2, PROVENANCE)
    assert panels(figure) == 2 + 2
    assert {"l1", "l2", "ViT"} <= set(texts(figure))
    assert "ViT 40 to 40 %" in figure.alt
