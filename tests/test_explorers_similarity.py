"""The explorer of Figures 1, 2 and 8."""

import gzip

import numpy as np
import pytest
import xarray as xr
from explorer_pages import unpacked

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_similarity
from vitcnn_utils.images import load_images
from vitcnn_utils.measures import cka
from vitcnn_utils.models.load import load_model

KINDS = ["norm", "attention", "norm", "mlp hidden", "mlp", "block"]


def similarity(rows, columns, values=None, names=("one", "other")):
    """A map of rows × columns layers, of six kinds in turn, evenly over the depth."""
    values = np.random.default_rng(0).random((rows, columns)) if values is None else values
    coords = {}
    for side, count in (("a", rows), ("b", columns)):
        coords[f"layer_{side}"] = [f"{side}{i}" for i in range(count)]
        coords[f"kind_{side}"] = (f"layer_{side}", [KINDS[i % 6] for i in range(count)])
        coords[f"depth_{side}"] = (f"layer_{side}", np.linspace(0, 1, count))
    attrs = dict(zip(("model", "model_b"), names, strict=True))
    return xr.DataArray(values, dims=("layer_a", "layer_b"), coords=coords, attrs=attrs)


def test_arrays_are_those_that_were_given():
    maps = {"first": similarity(12, 12), "second": similarity(12, 7)}
    explorer = explore_similarity(maps)
    assert explorer.header["titles"] == ["first", "second"]
    for i, given in enumerate(maps.values()):
        assert np.abs(unpacked(explorer, f"map{i}") - given.values).max() <= explorer.header["error"] * 1.0001
    assert explorer.header["error"] < 0.002


def test_a_map_may_be_smaller_than_the_chosen_cell():
    explorer = explore_similarity({"large": similarity(12, 12), "small": similarity(3, 3)})
    explorer.row = 11
    with pytest.raises(VitcnnError, match="row must be from 0 to 11, not 12"):
        explorer.row = 12


def test_two_models_are_measured():
    images = load_images("cifar10", 12)
    vit, cnn = (load_model(f"zoo/{name}", weights="untrained", device="cpu") for name in ("vit-small-data-3", "resnet"))
    explorer = explore_similarity((vit, cnn), images)
    assert explorer.header["titles"] == [
        f"{vit.name} with itself", f"{cnn.name} with itself", f"{vit.name} with {cnn.name}"
    ]  # fmt: skip
    expected = cka.layer_similarity(vit, cnn, images)
    np.testing.assert_allclose(unpacked(explorer, "map2"), np.clip(expected, 0, 1), atol=0.003)
    with pytest.raises(VitcnnError, match="need images"):
        explore_similarity((vit, cnn))


def test_nothing_to_explore():
    with pytest.raises(VitcnnError, match="nothing to explore"):
        explore_similarity({})


def test_large_maps_stay_within_the_budget():
    # ViT-L/16 and ResNet-152: 151 and 361 layers; noise is the worst case for compression.
    sizes = [(151, 151), (361, 361), (151, 361)]
    explorer = explore_similarity({str(size): similarity(*size) for size in sizes})
    assert len(gzip.compress(explorer.data)) < 1e6
