import gzip

import numpy as np
import pytest
import traitlets
import xarray as xr
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
    places = explorer.header["arrays"]
    read = {
        name: np.frombuffer(explorer.data, "<f4", np.prod(place["shape"]), place["offset"]).reshape(place["shape"])
        for name, place in places.items()
    }
    np.testing.assert_array_equal(read["ratio0"], ratios["ratio"])
    np.testing.assert_array_equal(read["median0"], ratios["median"])
    # Block 0, attention: tokens 1 to 6 have the ratios 1 to 6.
    assert read["mean_ratio0"][0, 0] == 3.5 and read["mean_median0"][0, 0] == 7
    np.testing.assert_array_equal(read["unit_ratio0"], [3, np.inf, 4])


def test_the_sentence_names_the_token_and_its_ratio(cnn):
    explorer = explore_skip_ratios({"ViT": counted(), "CNN": cnn}, grid=(2, 3))
    explorer.set_trait("block", 1)
    explorer.branch, explorer.token = "mlp", 5
    # Block 1, MLP holds 21 to 27; token 5 is the spatial token 4: row 1, column 1.
    assert explorer.sentence() == (
        "ViT, block 1, MLP: the ratio of skip to branch is 26.00 for token (1, 1) of 2 × 3; CLS 21.00, "
        "mean of spatial tokens 24.50 (mean of ratios)."
    )
    explorer.token, explorer.average = 0, "median"
    assert explorer.sentence() == (
        "ViT, block 1, MLP: the ratio of skip to branch is 42.00 for CLS; mean of spatial tokens 49.00 (median ratio)."
    )
    assert explorer.sentence() in explorer.fallback()


def test_infinite_and_missing_ratios_are_none():
    values = np.ones((2, 2, 5))
    values[0, 0], values[1, 0, 2] = np.nan, np.inf  # an attention without a skip; a branch that gives 0
    explorer = explore_skip_ratios({"ViT": ratios_of(values)})
    explorer.block, explorer.token = 0, 1
    assert explorer.sentence() == (
        "ViT, block 0, self-attention: the ratio of skip to branch is none for token (0, 0) of 2 × 2; CLS none, "
        "mean of spatial tokens none (mean of ratios)."
    )
    explorer.block, explorer.token = 1, 2
    assert "is none for token (0, 1)" in explorer.sentence() and "CLS 1.00" in explorer.sentence()
    assert explorer.fallback()
    assert explorer.header["limits"][0]["ratio"] == {"attention": [1, 1], "mlp": [1, 1]}


def test_colours_run_over_all_blocks_and_leave_the_prefix_out():
    explorer = explore_skip_ratios({"ViT": counted(tokens=5)})
    # Block 0: 0 to 4 and 5 to 9; block 1: 10 to 14 and 15 to 19; each begins with CLS.
    assert explorer.header["limits"][0]["ratio"] == {"attention": [1, 14], "mlp": [6, 19]}


# Other models


@pytest.mark.parametrize(("prefix", "word"), [(0, None), (1, "CLS"), (3, "register 1")])
def test_any_number_of_prefix_tokens(prefix, word):
    explorer = explore_skip_ratios({"ViT": counted(tokens=prefix + 196, prefix=prefix)})
    assert explorer.header["grids"] == [[14, 14]] and list(map(len, explorer.header["prefix"])) == [prefix]
    assert explorer.token == prefix + 7 * 14 + 7 and "token (7, 7) of 14 × 14" in explorer.sentence()
    assert ("CLS" in explorer.sentence()) == (prefix > 0)
    if word:
        explorer.token = prefix - 1
        assert f"for {word};" in explorer.sentence()
    assert explorer.fallback()


def test_a_smaller_model_shows_its_last_block_and_token():
    explorer = explore_skip_ratios({"large": counted(4, 10), "small": counted(2, 5)})
    explorer.block, explorer.token, explorer.model = 3, 9, 1
    assert explorer.sentence().startswith("small, block 1") and "token (1, 1) of 2 × 2" in explorer.sentence()


def test_only_averages_that_all_have_can_be_chosen(cnn):
    explorer = explore_skip_ratios({"ViT": counted(tokens=5).drop_vars("median"), "CNN": cnn})
    with pytest.raises(VitcnnError, match="average must be one of ratio, not 'median'"):
        explorer.average = "median"


def test_models_are_measured(vit, resnet):
    images = noise_images(3)
    explorer = explore_skip_ratios({"ViT": vit, "CNN": resnet}, images)
    expected = skip_ratios(vit, images)
    for average in ("ratio", "median", "ratio_of_means"):
        np.testing.assert_allclose(explorer._models[0].values[average], expected[average], rtol=1e-6)
    assert explorer.header["units"][0]["projected"] == [True, False] * 4  # each stage of the small ResNet changes shape


def test_the_grid_is_the_model_s_own(vit):
    vit.grid = (2, 8)  # as of a picture four times as wide as it is high; the ratios do not ask for it
    explorer = explore_skip_ratios({"ViT": vit}, noise_images(2))
    assert explorer.header["grids"] == [[2, 8]] and "of 2 × 8" in explorer.sentence()


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
