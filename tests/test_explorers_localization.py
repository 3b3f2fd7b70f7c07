"""The explorer of Figures 9 and 10: what it keeps of the arrays, what it refuses."""

import gzip
from typing import Any

import numpy as np
import pytest
import xarray as xr
from explorer_pages import unpacked
from made import elsewhere, layers
from made import token_map as similarity

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_localization
from vitcnn_utils.explorers.base import stops
from vitcnn_utils.images import Images
from vitcnn_utils.measures import localization
from vitcnn_utils.measures.localization import DIMS
from vitcnn_utils.models.facts import Model


def noisy(layer_count: int, grid: int, seed: int = 0) -> xr.DataArray:
    """What a trained model's maps are like: bright at the own patch, fading around it, and measured with noise."""
    rng = np.random.default_rng(seed)
    at = np.arange(grid)
    near = np.exp(-np.abs(at[:, None] - at))
    values = 0.5 * near[:, None, :, None] * near[None, :, None, :]
    values = values * np.linspace(1, 0.3, layer_count)[:, None, None, None, None]
    values = values + 0.01 * rng.standard_normal((layer_count, *[grid] * 4))
    coords: dict[str, Any] = dict.fromkeys(DIMS, at)
    coords |= {"layer": [f"b{i}" for i in range(layer_count)], "depth": ("layer", np.linspace(0.1, 1, layer_count))}
    return xr.DataArray(values, dims=("layer", *DIMS), coords=coords)


def test_every_layer_of_every_model_is_nearest_to_one_of_the_stops() -> None:
    assert stops([[0.0, 0.5, 1.0], [0.01, 1.0], [0.9]]) == [0.0, 0.5, 1.0]
    assert stops([[0.0]]) == [0.0]


def test_the_arrays_are_those_of_the_figures() -> None:
    measured = noisy(3, 5)
    explorer = explore_localization({"ViT": measured})
    contrast, rate = localization.contrast(measured), localization.localization_rate(measured)
    np.testing.assert_allclose(unpacked(explorer, "map0"), measured, atol=1.01 * explorer.header["error"])
    assert explorer.header["error"] < 0.002
    np.testing.assert_allclose(unpacked(explorer, "own0"), contrast["own"], atol=1e-5)
    np.testing.assert_allclose(unpacked(explorer, "others0"), contrast["others"], atol=1e-5)
    np.testing.assert_allclose(unpacked(explorer, "mean0"), contrast["difference"].mean(["row", "col"]), atol=1e-6)
    np.testing.assert_allclose(unpacked(explorer, "found0"), rate["top1"].sel(region="all"), atol=1e-6)
    flat = measured.values.reshape(3, 5, 5, 25).argmax(-1)
    np.testing.assert_array_equal(unpacked(explorer, "peak0"), np.stack(np.divmod(flat, 5), -1))


def test_the_nearest_of_equals_is_the_maximum_as_in_the_rate() -> None:
    explorer = explore_localization({"flat": layers(similarity(0.3, 0.3))})
    assert unpacked(explorer, "peak0")[0, 2, 1].tolist() == [2, 1]
    assert unpacked(explorer, "found0").tolist() == [1]


def test_patches_that_never_change_have_no_value() -> None:
    blank = similarity()
    blank[0, 0] = np.nan  # a token that is constant
    blank[:, :, 0, 0] = np.nan  # and a patch
    explorer = explore_localization({"ViT": layers(blank)})
    assert unpacked(explorer, "peak0")[0, 0, 0].tolist() == [255, 255]
    assert unpacked(explorer, "peak0")[0, 1, 0].tolist() == [1, 0]
    assert np.isnan(unpacked(explorer, "own0")[0, 0, 0])
    assert (unpacked(explore_localization({"ViT": layers(blank * np.nan)}), "peak0") == 255).all()


def test_raw_patches_stand_beside_the_models_at_depth_0() -> None:
    explorer = explore_localization({"ViT": layers(similarity(0.4), similarity(0.3)), "patches": similarity(1.0)})
    assert (explorer.header["stops"], explorer.header["depths"]) == ([0, 1], [[0, 1], [0]])
    assert explorer.header["layers"] == [["l0", "l1"], ["pixels"]]


def test_one_layer_of_a_model_keeps_its_name() -> None:
    explorer = explore_localization({"ViT": layers(similarity(), elsewhere()).isel(layer=1)})
    assert (explorer.header["layers"], explorer.header["depths"]) == ([["l1"]], [[1]])


def test_models_of_unlike_grids_are_measured_on_images(vit: Model, resnet: Model, noise: Images) -> None:
    explorer = explore_localization({"ViT": vit, "CNN": resnet}, noise)
    assert explorer.header["layers"][0] == [block.name for block in vit.blocks]
    assert explorer.header["layers"][1] == [block.name for block in resnet.blocks[-2:]]  # the last of four grids
    expected = localization.layer_patch_similarity(vit, noise, vit.blocks)
    np.testing.assert_allclose(unpacked(explorer, "map0"), expected, atol=1.01 * explorer.header["error"])


@pytest.mark.parametrize(
    ("state", "message"),
    [({"row": 5}, "row must be from 0 to 4"), ({"layer": 2}, "layer must be"), ({"curve": "x"}, "one of token, mean")],
)
def test_a_state_that_is_not_there_is_refused(state: dict[str, Any], message: str) -> None:
    explorer = explore_localization({"ViT": layers(similarity(), elsewhere())})
    for name, value in state.items():
        with pytest.raises(VitcnnError, match=message):
            setattr(explorer, name, value)


def test_what_cannot_be_shown_is_refused(vit: Model) -> None:
    with pytest.raises(VitcnnError, match="nothing to explore"):
        explore_localization({})
    with pytest.raises(VitcnnError, match="up to 4 side by side, not 5"):
        explore_localization({str(i): layers(similarity()) for i in range(5)})
    with pytest.raises(VitcnnError, match="need images"):
        explore_localization({"ViT": vit})
    with pytest.raises(VitcnnError, match=r"'ViT' is .*, not a `layer_patch_similarity`"):
        explore_localization({"ViT": similarity()[0]})


def test_three_models_of_14_x_14_tokens_are_light_enough() -> None:
    explorer = explore_localization({"CLS": noisy(12, 14), "GAP": noisy(12, 14, 1), "CNN": noisy(3, 7, 2)})
    assert len(gzip.compress(explorer.data)) < 1e6
