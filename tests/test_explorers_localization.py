"""The explorer of Figures 9 and 10: what it keeps of the arrays, what it says, what it refuses."""

import gzip
from typing import Any

import numpy as np
import pytest
import xarray as xr
from made import elsewhere, layers
from made import token_map as similarity

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import compare, explore_localization
from vitcnn_utils.images import Images
from vitcnn_utils.measures import localization
from vitcnn_utils.measures.localization import DIMS
from vitcnn_utils.models.facts import Model


def unpacked(explorer: Any, name: str) -> np.ndarray:
    """An array as the script reads it."""
    at = explorer.header["arrays"][name]
    dtype, size = np.dtype(f"<{at['type']}"), int(np.prod(at["shape"]))
    codes = np.frombuffer(explorer.data, dtype, size, at["offset"]).reshape(at["shape"])
    if "step" not in at:
        return codes
    return np.where(codes == np.iinfo(dtype).max, np.nan, at["low"] + at["step"] * codes.astype(float))


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


def test_a_stop_shows_of_each_model_the_layer_nearest_in_depth_and_none_is_left_out() -> None:
    found = compare.steps([[0.0, 0.5, 1.0], [0.01, 1.0], [0.9]])
    assert found == [{"depth": 0.0, "shown": [0, 0, 0]}, {"depth": 0.5, "shown": [1, 0, 0]},
                     {"depth": 1.0, "shown": [2, 1, 0]}]  # fmt: skip
    assert compare.steps([[0.0]]) == [{"depth": 0.0, "shown": [0]}]


@pytest.mark.parametrize(("fine", "coarse"), [(8, 4), (14, 7), (8, 7), (5, 5), (3, 1)])
def test_a_place_of_a_coarse_grid_is_found_again_from_the_fine_one(fine: int, coarse: int) -> None:
    assert [compare.place(compare.place(i, coarse, fine), fine, coarse) for i in range(coarse)] == list(range(coarse))
    assert compare.place(fine - 1, fine, coarse) == coarse - 1


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


def test_it_says_where_the_maximum_falls_and_the_contrast() -> None:
    coarse = layers(similarity(0.4, 0.2, grid=2))
    explorer = explore_localization({"CLS": layers(similarity(), elsewhere()), "CNN": coarse})
    explorer.row, explorer.column = 4, 1
    assert explorer.sentence() == (
        "Token (4, 1) of 5 × 5, near depth 1.00. CLS (l1): most similar to patch (0, 0), 4 patches away, contrast "
        "0.367. CNN (l0, token (1, 0) of 2 × 2): most similar to its own patch, contrast 0.200. "
        "Line plot: contrast of this token. Colours: each map its own scale."
    )
    explorer.layer, explorer.scale, explorer.curve = 0, "common", "found"
    assert "near depth 0.00. CLS (l0): most similar to its own patch, contrast 0.400." in explorer.sentence()
    assert explorer.sentence().endswith("share of tokens that find their patch. Colours: one scale for all.")
    explorer.row, explorer.column, explorer.layer = 0, 1, 1
    assert "patch (0, 0), 1 patch away" in explorer.sentence()


def test_the_nearest_of_equals_is_the_maximum_as_in_the_rate() -> None:
    explorer = explore_localization({"flat": layers(similarity(0.3, 0.3))})
    assert "most similar to its own patch, contrast 0.000" in explorer.sentence()
    assert unpacked(explorer, "found0").tolist() == [1]


def test_patches_that_never_change_have_no_value() -> None:
    blank = similarity()
    blank[0, 0] = np.nan  # a token that is constant
    blank[:, :, 0, 0] = np.nan  # and a patch
    explorer = explore_localization({"ViT": layers(blank)})
    explorer.row = explorer.column = 0
    assert "ViT (l0): no values, as nothing here differs between the images." in explorer.sentence()
    explorer.row = 1
    assert "most similar to its own patch, contrast 0.400" in explorer.sentence()
    assert explorer.still().axes
    assert unpacked(explorer, "peak0")[0, 0, 0].tolist() == [255, 255]
    dark = explore_localization({"ViT": layers(blank * np.nan)})
    assert "no values" in dark.sentence()
    assert dark.still().axes


def test_raw_patches_stand_beside_the_models_and_leave_the_common_scale_to_them() -> None:
    explorer = explore_localization({"ViT": layers(similarity(0.4), similarity(0.3)), "patches": similarity(1.0)})
    assert [step["shown"] for step in explorer.header["steps"]] == [[0, 0], [1, 0]]
    assert explorer.header["limits"] == pytest.approx([0.1, 0.4])
    assert "patches (pixels): most similar to its own patch, contrast 0.900" in explorer.sentence()


def test_one_layer_of_a_model_keeps_its_name() -> None:
    explorer = explore_localization({"ViT": layers(similarity(), elsewhere()).isel(layer=1)})
    assert "near depth 1.00. ViT (l1)" in explorer.sentence()


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
    with pytest.raises(VitcnnError, match=r"ViT is .*, not a `localization.layer_patch_similarity`"):
        explore_localization({"ViT": similarity()[0]})


def test_the_still_picture_has_a_map_for_each_model_and_the_lines() -> None:
    explorer = explore_localization({"CLS": layers(similarity(), elsewhere()), "CNN": layers(similarity(grid=3))})
    titles = [ax.get_title() or ax.get_title("left") for ax in explorer.still().axes]
    assert {"CLS\nl1", "CNN\nl0", "contrast of this token"} <= set(titles)


def test_three_models_of_14_x_14_tokens_are_light_enough() -> None:
    explorer = explore_localization({"CLS": noisy(12, 14), "GAP": noisy(12, 14, 1), "CNN": noisy(3, 7, 2)})
    assert len(gzip.compress(explorer.data)) < 1e6
