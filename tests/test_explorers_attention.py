"""The explorer of Figures 3 and 4: what it keeps of the arrays, what it refuses."""

import gzip

import numpy as np
import pytest
import torch
import traitlets
import xarray as xr
from explorer_pages import unpacked
from small_models import described, small_vit
from test_attention import random_weights
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_attention
from vitcnn_utils.explorers.attention import AttentionExplorer
from vitcnn_utils.images import Images
from vitcnn_utils.measures.attention import (
    attention_maps,
    head_distances,
    mean_distance,
    patch_distances,
    uniform_distance,
)


def measured(
    images: int = 2,
    blocks: int = 3,
    heads: int = 4,
    grid: tuple[int, int] = (4, 5),
    prefix: tuple[str, ...] = ("CLS",),
    seed: int = 0,
) -> tuple[xr.Dataset, xr.DataArray]:
    """Attention drawn at random and the distances that follow from it, as if measured on these images alone."""
    P, T = len(prefix), len(prefix) + grid[0] * grid[1]
    weights = random_weights((images, blocks, heads), T, seed).astype(np.float32)
    distance, renormalized = (mean_distance(weights, grid, 8, P, way).mean(0) for way in (False, True))
    dims = ("block", "head")
    variables = {
        "distance": (dims, distance),
        "distance_renormalized": (dims, renormalized),
        "prefix_mass": (dims, weights[..., P:, :P].sum(-1).mean((0, 3))),
    }
    attrs = {"model": "made up", "n_images": images, "grid": grid, "patch_size": 8, "prefix": list(prefix)}
    coords = {"block": range(blocks), "head": range(heads)}
    distances = xr.Dataset(variables, coords, {**attrs, "uniform_distance": uniform_distance(grid, 8)})
    return distances, xr.DataArray(weights, coords, ("image", *dims, "query", "key"), attrs=attrs)


def shown_weights(explorer: AttentionExplorer) -> np.ndarray:
    """Weights on patches as the script has them: (model, image, block, head, query, patch)."""
    return unpacked(explorer, "relative") * unpacked(explorer, "peak")[..., None]


@pytest.mark.parametrize("prefix", [(), ("CLS",), ("CLS", "register 0", "register 1")])
def test_the_arrays_are_those_that_were_measured(prefix: tuple[str, ...]) -> None:
    given = measured(prefix=prefix)
    explorer = explore_attention(given, noise_images(2))
    P, weights = len(prefix), given[1].values
    error = explorer.header["errors"]
    assert error["weight"] < 0.002  # so small a model is kept as finely as can be
    largest = weights[..., P:].max(-1, keepdims=True)
    assert (np.abs(shown_weights(explorer)[0] - weights[..., P:]) / largest).max() < 1.05 * error["weight"]
    np.testing.assert_allclose(unpacked(explorer, "prefix")[0], weights[..., :P], atol=1e-5)
    for name in ("distance", "distance_renormalized", "prefix_mass"):
        np.testing.assert_allclose(unpacked(explorer, name)[0], given[0][name], rtol=1e-6)
    patches = weights[..., P:, P:].astype(np.float64)
    far = (patches * patch_distances((4, 5), 8).numpy()).sum(-1) / patches.sum(-1)
    np.testing.assert_allclose(unpacked(explorer, "query_distance")[0], far, atol=1.01 * error["distance"])
    assert error["distance"] < 0.1


def test_a_query_that_sees_no_patch() -> None:
    given = measured(1)
    given[1][0, 1, 2, 3] = np.eye(21)[0]
    explorer = explore_attention(given, noise_images(1))
    assert (shown_weights(explorer)[0, 0, 1, 2, 3] == 0).all()
    assert np.isnan(unpacked(explorer, "query_distance")[0, 0, 1, 2, 2])


def test_it_starts_at_the_head_that_looks_nearest() -> None:
    given = measured(prefix=())
    explorer = explore_attention(given, noise_images(2))
    distances = given[0].distance.values
    assert distances[explorer.block, explorer.head] == distances.min()
    assert explorer.token == 2 * 5 + 2
    assert explorer.scale == "same"


def test_models_and_images(vit, noise) -> None:
    little = described(small_vit(), "little data")
    with torch.no_grad():
        little.attentions[0].qkv.weight.neg_()
    explorer = explore_attention(vit, noise, small_data=little, n_images=3)
    for i, model in enumerate((vit, little)):
        maps = attention_maps(model, noise[:3]).values
        np.testing.assert_allclose(shown_weights(explorer)[i], maps[..., 1:], atol=0.005)
        np.testing.assert_allclose(unpacked(explorer, "distance")[i], head_distances(model, noise).distance, rtol=1e-6)
    assert explorer.header["n_images"] == 10
    assert explorer.header["models"] == [vit.name, "little data"]


def test_some_blocks_keep_their_numbers() -> None:
    distances, maps = (one.isel(block=[0, 1, -2, -1]) for one in measured(blocks=6))
    explorer = explore_attention((distances, maps), noise_images(2))
    assert explorer.header["blocks"] == [0, 1, 4, 5]
    with pytest.raises(VitcnnError, match="block must be from 0 to 3, not 4"):
        explorer.block = 4


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("token", 21, "token must be from 0 to 20"),
        ("image", -1, "image must be from 0 to 1"),
        ("model", 1, "model must"),
        ("view", "both", "view must be one of overlay, attention, picture"),
    ],
)
def test_a_state_that_is_not_there_is_refused(name: str, value: int | str, problem: str) -> None:
    explorer = explore_attention(measured(), noise_images(2))
    before = getattr(explorer, name)
    with pytest.raises((VitcnnError, traitlets.TraitError), match=problem):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_what_cannot_be_explored_is_refused() -> None:
    given, images = measured(), noise_images(2)
    for arguments, problem in (
        ((given[0], images), "give a model, or"),
        (((given[1], given[0]), images), "give a model, or"),
        ((given, noise_images(1)), "measured on 2 images, not 1"),
        ((given, images, measured(heads=3)), "models differ"),
    ):
        with pytest.raises(VitcnnError, match=problem):
            explore_attention(*arguments)
    with pytest.raises(VitcnnError, match="n_images=0"):
        explore_attention(given, images, n_images=0)


def test_large_pictures_become_small_and_keep_their_form() -> None:
    pixels = np.zeros((2, 300, 600, 3), np.uint8)
    pixels[:, :, 300:] = 200
    labelled = Images("halves", pixels, np.array([0, 1]), ("cat", "dog"))
    explorer = explore_attention(measured(), labelled)
    kept = unpacked(explorer, "pixels")
    assert kept.nbytes <= 160_000
    assert kept.shape[2] / kept.shape[1] == pytest.approx(2, rel=0.02)
    assert kept[:, :, 0].max() == 0
    assert kept[:, :, -1].min() == 200
    assert explorer.header["pictures"] == ["image 0 (cat)", "image 1 (dog)"]


def test_four_images_of_the_zoo_s_size_fit_into_a_megabyte() -> None:
    """Two models of 8 blocks, of weights without any structure: the worst case."""
    two = [measured(4, blocks=8, heads=8, grid=(8, 8), seed=seed) for seed in range(2)]
    explorer = explore_attention(two[0], noise_images(4), two[1])
    assert len(gzip.compress(explorer.data)) < 1_000_000
    assert explorer.header["errors"]["weight"] < 0.04
