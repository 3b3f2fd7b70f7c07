import gzip

import numpy as np
import pytest
import traitlets
import xarray as xr
from explorer_pages import unpacked
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_receptive_field, receptive_field
from vitcnn_utils.measures.receptive_field import effective_receptive_fields, radius_of_mass

DARKEST = receptive_field._DARKEST


def fields_of(values, depths, kind="attention", centre=None):
    """Receptive fields (layer, y, x) made by hand, the centre in the middle of the pixel with index n // 2."""
    values = np.asarray(values, float)
    L, H, W = values.shape
    y, x = centre or (H // 2 + 0.5, W // 2 + 0.5)
    over = {"kind": [kind] * L, "block": list(range(L)), "depth": depths, "centre_y": [y] * L, "centre_x": [x] * L}
    coords = {"layer": [f"{kind}.{i}" for i in range(L)], "y": np.arange(H) + 0.5, "x": np.arange(W) + 0.5}
    coords |= {name: ("layer", value) for name, value in over.items()}
    return xr.DataArray(values, dims=("layer", "y", "x"), coords=coords)


def distances(side):
    """How far each pixel is from the centre."""
    y, x = np.mgrid[:side, :side] - side // 2
    return np.hypot(y, x)


@pytest.fixture
def pair():
    """A ViT of four layers and a CNN of three, on images of 9 px, with noise for fields."""
    rng = np.random.default_rng(0)
    vit = fields_of(rng.random((4, 9, 9)), [0, 0.3, 0.6, 0.9])
    cnn = fields_of(rng.random((3, 9, 9)), [0.1, 0.5, 1], "residual")
    return {"ViT": vit, "CNN": cnn}


# Known answers


def test_a_field_that_is_zero_is_none():
    explorer = explore_receptive_field({"CNN": fields_of(np.zeros((1, 5, 5)), [0.5])})
    assert np.isnan(unpacked(explorer, "map_after0")).all() and np.isnan(unpacked(explorer, "radius_after0")).all()


def test_large_maps_are_means_over_whole_pixels(monkeypatch):
    monkeypatch.setattr(receptive_field, "_BYTES", 9)  # 3 x 3 cells
    values = np.arange(1.0, 50).reshape(1, 7, 7)
    explorer = explore_receptive_field({"ViT": fields_of(values, [0.5])})
    assert explorer.header["cells"] == [3]
    means = 10 ** unpacked(explorer, "map_after0")[0] * 49
    assert means[0, 0] == pytest.approx(values[0, :3, :3].mean(), rel=0.02)
    assert means[2, 2] == pytest.approx(49, rel=0.02)  # what is left at the edge


def test_it_opens_on_the_attention_in_the_middle():
    kinds = ["attention", "mlp"] * 4
    vit = fields_of(np.random.default_rng(0).random((8, 9, 9)), np.linspace(0, 1, 8))
    vit = vit.assign_coords(kind=("layer", kinds))
    explorer = explore_receptive_field({"ViT": vit, "CNN": fields_of(np.ones((3, 9, 9)), [0.1, 0.5, 1], "residual")})
    depth = explorer.header["stops"][explorer.layer]
    assert (explorer.addition, depth) == ("after", pytest.approx(4 / 7, abs=1e-4))
    assert kinds[4] == "attention"
    cnn = explore_receptive_field({"CNN": fields_of(np.ones((3, 9, 9)), [0.1, 0.5, 1], "residual")})
    assert cnn.header["stops"][cnn.layer] == 0.5


# Arrays in, arrays out


def test_maps_are_the_measured_ones(pair):
    explorer = explore_receptive_field(pair)
    for i, fields in enumerate(pair.values()):
        shown = np.maximum(fields / fields.max(("y", "x")), DARKEST)
        np.testing.assert_allclose(10 ** unpacked(explorer, f"map_after{i}"), shown, rtol=explorer.header["error"])
        np.testing.assert_allclose(unpacked(explorer, f"radius_after{i}"), radius_of_mass(fields, 0.5), rtol=1e-6)
    assert explorer.header["error"] < 0.015


def test_every_layer_is_at_a_stop_on_both_sides(pair):
    before = {"ViT": pair["ViT"][1:], "CNN": pair["CNN"][1:]}
    explorer = explore_receptive_field(pair, before=before)
    for side, measured in (("after", pair), ("before", before)):
        for facts, fields in zip(explorer.header["layers"][side], measured.values(), strict=True):
            nearest = {int(np.abs(np.subtract(facts["depths"], stop)).argmin()) for stop in explorer.header["stops"]}
            assert nearest == set(range(fields.sizes["layer"]))


def test_labels_may_be_numbers(pair):
    numbered = dict(enumerate(pair.values()))
    assert explore_receptive_field(numbered, before=numbered).header["labels"] == ["0", "1"]


def test_of_the_order_of_dimensions_nothing_depends(pair):
    turned = {label: fields.transpose("x", "layer", "y") for label, fields in pair.items()}
    assert explore_receptive_field(turned).data == explore_receptive_field(pair).data


def test_without_fields_before_the_addition_there_is_no_such_choice(pair):
    explorer = explore_receptive_field(pair)
    with pytest.raises(VitcnnError, match="addition must be one of after, not 'before'"):
        explorer.addition = "before"


@pytest.mark.parametrize(("name", "value"), [("layer", 99), ("layer", -1), ("scale", "square"), ("layer", "first")])
def test_a_state_that_is_not_allowed_is_refused(pair, name, value):
    explorer = explore_receptive_field(pair)
    with pytest.raises((VitcnnError, traitlets.TraitError), match=name):
        setattr(explorer, name, value)


def test_models_are_measured(vit, resnet):
    images = noise_images(2)
    explorer = explore_receptive_field({"ViT": vit, "CNN": resnet}, images, channels=1)
    for side, before in (("after", False), ("before", True)):
        for i, model in enumerate((vit, resnet)):
            fields = effective_receptive_fields(model, images, channels=1, before_addition=before)
            radius = unpacked(explorer, f"radius_{side}{i}")
            np.testing.assert_allclose(radius, radius_of_mass(fields, 0.5), rtol=1e-6)


def test_payload_of_large_models_is_small_enough():
    """ViT-L/16 and ResNet-152 at 224 px, as noise, which cannot be packed any smaller."""
    rng = np.random.default_rng(0)
    fields = {
        "ViT": fields_of(rng.random((49, 224, 224)), np.linspace(0, 1, 49)),
        "CNN": fields_of(rng.random((51, 224, 224)), np.linspace(0, 1, 51)),
    }
    explorer = explore_receptive_field(fields, before={label: f[1:] for label, f in fields.items()})
    assert len(gzip.compress(explorer.data)) < 1e6
    assert explorer.header["cells"] == [4, 4]


# What is said of what cannot be shown


def test_errors_say_what_to_do(pair, vit, noise):
    with pytest.raises(VitcnnError, match="models need images"):
        explore_receptive_field({"ViT": vit})
    with pytest.raises(VitcnnError, match="not both"):
        explore_receptive_field({"ViT": vit, "CNN": pair["CNN"]}, noise)
    with pytest.raises(VitcnnError, match="same labels"):
        explore_receptive_field(pair, before={"ViT": pair["ViT"]})
    with pytest.raises(VitcnnError, match="'ViT' is not a receptive field"):
        explore_receptive_field({"ViT": pair["ViT"].values})
    with pytest.raises(VitcnnError, match="nothing to explore"):
        explore_receptive_field({})
    with pytest.raises(VitcnnError, match="up to 4"):
        explore_receptive_field({str(i): pair["ViT"] for i in range(5)})
