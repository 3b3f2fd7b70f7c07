import gzip

import numpy as np
import pytest
import traitlets
import xarray as xr
from explorer_pages import unpacked
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_skip_ratios
from vitcnn_utils.measures.residual import skip_ratios


def ratios_of(values, prefix=1, branches=("attention", "mlp"), projected=False):
    """Skip ratios (block, branch, token) made by hand; the median is twice the mean."""
    values = np.asarray(values, float)
    B, _, T = values.shape
    dims = ("block", "branch", "token")
    return xr.Dataset(
        {"ratio": (dims, values), "median": (dims, 2 * values)},
        coords={"block": range(B), "branch": list(branches), "token": range(T),
                "part": ("token", ["CLS", "register 0", "register 1"][:prefix] + ["spatial"] * (T - prefix)),
                "projected": ("block", [projected] * B)},
    )  # fmt: skip


def counted(blocks=2, tokens=7, **kwargs):
    """Ratios 0, 1, 2, … in the order of the array."""
    return ratios_of(np.arange(blocks * 2 * tokens).reshape(blocks, 2, tokens), **kwargs)


@pytest.fixture
def cnn():
    return ratios_of([[[3.0]], [[np.inf]], [[4.0]]], 0, ("residual",))


# Known answers


def test_what_is_read_back_is_what_was_measured(cnn):
    ratios = counted()
    explorer = explore_skip_ratios({"ViT": ratios, "CNN": cnn}, grid=(2, 3))
    np.testing.assert_array_equal(unpacked(explorer, "ratio0"), ratios["ratio"])
    np.testing.assert_array_equal(unpacked(explorer, "median0"), ratios["median"])
    np.testing.assert_array_equal(unpacked(explorer, "unit_ratio0"), [3, np.inf, 4])


# Other models


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_any_number_of_prefix_tokens(prefix):
    assert explore_skip_ratios({7: counted(tokens=prefix + 4, prefix=prefix)}).header["labels"] == ["7"]
    explorer = explore_skip_ratios({"ViT": counted(tokens=prefix + 196, prefix=prefix)})
    assert explorer.header["grids"] == [[14, 14]] and list(map(len, explorer.header["prefix"])) == [prefix]
    assert explorer.token == prefix + 7 * 14 + 7


def test_only_averages_that_all_have_can_be_chosen(cnn):
    explorer = explore_skip_ratios({"ViT": counted(tokens=5).drop_vars("median"), "CNN": cnn})
    with pytest.raises(VitcnnError, match="average must be one of ratio, not 'median'"):
        explorer.average = "median"


def test_models_are_measured(vit, resnet):
    images = noise_images(3)
    explorer = explore_skip_ratios({"ViT": vit, "CNN": resnet}, images)
    expected = skip_ratios(vit, images)
    for average in ("ratio", "median", "ratio_of_means"):
        np.testing.assert_allclose(unpacked(explorer, f"{average}0"), expected[average], rtol=1e-6)
    assert explorer.header["units"][0]["projected"] == [True, False] * 4  # each stage of the small ResNet changes shape


def test_the_grid_is_the_model_s_own(vit):
    vit.grid = (2, 8)  # as of a picture four times as wide as it is high; the ratios do not ask for it
    explorer = explore_skip_ratios({"ViT": vit}, noise_images(2))
    assert explorer.header["grids"] == [[2, 8]]


@pytest.mark.parametrize(
    ("name", "value"), [("block", 2), ("token", 5), ("token", -1), ("branch", "residual"), ("model", 1), ("block", "a")]
)
def test_a_state_that_is_not_allowed_is_refused(name, value):
    explorer = explore_skip_ratios({"ViT": counted(tokens=5)})
    with pytest.raises((VitcnnError, traitlets.TraitError), match=name):
        setattr(explorer, name, value)


def test_payload_of_large_models_is_small_enough():
    """Three of the size of ViT-H/14."""
    rng = np.random.default_rng(0)
    models = {str(i): ratios_of(rng.random((32, 2, 257))) for i in range(3)}
    for one in models.values():
        one["ratio_of_means"] = one["ratio"] * 1.1
    assert len(gzip.compress(explore_skip_ratios(models).data)) < 1e6


# What is said of what cannot be shown


def test_errors_say_what_to_do(vit, cnn):
    with pytest.raises(VitcnnError, match="models need images"):
        explore_skip_ratios({"ViT": vit})
    with pytest.raises(VitcnnError, match="6 spatial tokens: give grid"):
        explore_skip_ratios({"ViT": counted()})
    with pytest.raises(VitcnnError, match="at least one transformer"):
        explore_skip_ratios({"CNN": cnn})
    with pytest.raises(VitcnnError, match="'ViT' has no skip ratios"):
        explore_skip_ratios({"ViT": counted()["ratio"]})
    with pytest.raises(VitcnnError, match="nothing to explore"):
        explore_skip_ratios({})
