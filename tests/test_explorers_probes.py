"""The explorer of Figures 11 and 13: what it keeps of the arrays, what it refuses."""

import gzip
from typing import Any

import numpy as np
import pytest
import similarity_maps
import xarray as xr
from explorer_pages import unpacked
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_probes
from vitcnn_utils.measures.probes import layer_probes
from vitcnn_utils.models.facts import Model


def probes(
    readouts: tuple[str, ...] = ("cls", "mean", "token"), grid: int = 4, layers: int = 3, draws: int = 3, seed: int = 0
) -> xr.Dataset:
    """Accuracies drawn at random, those of 'token' the mean over tokens."""
    rng = np.random.default_rng(seed)
    by_token = rng.uniform(0.2, 0.6, (layers, grid, grid, draws))
    accuracy = rng.uniform(0.2, 0.9, (layers, len(readouts), draws))
    data: dict[str, Any] = {"accuracy": (("layer", "readout", "draw"), accuracy)}
    if "token" in readouts:
        accuracy[:, readouts.index("token")] = by_token.mean((1, 2))
        data["token_accuracy"] = (("layer", "row", "col", "draw"), by_token)
    coords = {
        "layer": [f"b{i}" for i in range(layers)], "depth": ("layer", np.linspace(0.2, 1, layers)),
        "readout": list(readouts), "draw": range(draws),
    }  # fmt: skip
    return xr.Dataset(data, coords, {"chance": 0.1, "shots": 10, "images": "cifar10", "n_test": 1000})


def test_the_arrays_are_those_of_the_figures() -> None:
    measured = probes()
    explorer = explore_probes({"ViT": measured})
    accuracy = measured["accuracy"].transpose("readout", "layer", "draw")
    error = 1.01 * explorer.header["error"]
    assert error < 1e-5
    np.testing.assert_allclose(unpacked(explorer, "accuracy0"), accuracy.mean("draw"), atol=error)
    np.testing.assert_allclose(unpacked(explorer, "spread0"), accuracy.std("draw", ddof=1), atol=error)
    np.testing.assert_allclose(unpacked(explorer, "by_token0"), measured["token_accuracy"].mean("draw"), atol=error)
    spread = measured["token_accuracy"].std("draw", ddof=1)
    np.testing.assert_allclose(unpacked(explorer, "token_spread0"), spread, atol=error)


def test_it_starts_with_all_models_and_the_read_out_that_most_have() -> None:
    explorer = explore_probes({"ViT": probes(), "GAP": probes(("mean", "token")), "CNN": probes(("mean",))})
    assert (explorer.readout, explorer.shown) == ("mean", 7)
    assert explorer.header["readouts"] == [["cls", "mean", "token", "chosen"], ["mean", "token", "chosen"], ["mean"]]


def test_one_read_out_of_many_models_is_a_plot_alone() -> None:
    models = {f"m{i}": similarity_maps.probes(0.2, 0.5 + 0.05 * i) for i in range(8)}
    explorer = explore_probes(models)
    assert explorer.header["choices"] | {"layer": 0} == {
        "readout": ["mean"], "layer": 0, "shown": 256, "model": 8, "row": 1, "column": 1, "scale": ["own", "common"],
    }  # fmt: skip


def test_one_draw_has_no_spread() -> None:
    explorer = explore_probes({"ViT": probes(draws=1)})
    assert np.isnan(unpacked(explorer, "spread0")).all()


def test_models_of_unlike_grids_are_probed_on_images(vit: Model, resnet: Model) -> None:
    images = noise_images(60, classes=2)
    explorer = explore_probes({"ViT": vit, "CNN": resnet}, images)
    expected = layer_probes(vit, images)
    assert explorer.header["readouts"][0] == [*expected["readout"].values, "chosen"]
    assert explorer.header["readouts"][1] == ["mean", "token", "chosen"]
    assert explorer.header["grids"][0] == [4, 4]
    np.testing.assert_allclose(unpacked(explorer, "by_token0"), expected["token_accuracy"].mean("draw"), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("readout", "first token", "one of cls"), ("shown", 2, "from 0 to 1"), ("column", -1, "from 0 to 3")],
)
def test_a_state_that_is_not_there_is_refused(name: str, value: int | str, message: str) -> None:
    with pytest.raises(VitcnnError, match=message):
        setattr(explore_probes({"ViT": probes()}), name, value)


def test_what_cannot_be_shown_is_refused(vit: Model) -> None:
    with pytest.raises(VitcnnError, match="nothing to explore"):
        explore_probes({})
    with pytest.raises(VitcnnError, match="need images"):
        explore_probes({"ViT": vit})
    with pytest.raises(VitcnnError, match=r"'ViT' has x, not those of `layer_probes`"):
        explore_probes({"ViT": xr.Dataset({"x": 1})})
    with pytest.raises(VitcnnError, match=r"differ in chance \(a 10.0 %, b 50.0 %\)"):
        explore_probes({"a": probes(), "b": probes().assign_attrs(chance=0.5)})


def test_four_models_of_14_x_14_tokens_are_light_enough() -> None:
    every = ("cls", "mean", "mean with cls", "first token", "token")
    models = {str(i): probes(every, grid=14, layers=12, draws=5, seed=i) for i in range(4)}
    assert len(gzip.compress(explore_probes(models).data)) < 1e6
