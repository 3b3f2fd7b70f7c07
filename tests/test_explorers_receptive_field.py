import gzip

import numpy as np
import pytest
import traitlets
import xarray as xr
from small_models import described, small_vit
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_receptive_field
from vitcnn_utils.explorers.receptive_field import _cells, _means
from vitcnn_utils.measures.receptive_field import effective_receptive_fields, radius_of_mass
from vitcnn_utils.plots.locality import DARKEST


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


def test_a_cone_has_a_straight_profile():
    cone = np.maximum(5 - np.floor(distances(11)), 0)
    explorer = explore_receptive_field({"ViT": fields_of([cone], [0.5])})
    (m,) = explorer._models["after"]
    np.testing.assert_allclose(m.profile[0], [1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0], atol=1e-6)


def test_one_pixel_holds_half_within_nothing():
    spot = np.zeros((1, 9, 9))
    spot[0, 4, 4] = 3
    ring = np.where(np.round(distances(9), 6) == 3, 1.0, 0)[None]
    explorer = explore_receptive_field({"spot": fields_of(spot, [0.5]), "ring": fields_of(ring, [0.5])})
    assert "spot (attention 1, attention.0): half of the field lies within 0.0 px" in explorer.sentence()
    assert "ring (attention 1, attention.0): half of the field lies within 3.0 px" in explorer.sentence()


def test_a_field_that_is_zero_is_none():
    explorer = explore_receptive_field({"CNN": fields_of(np.zeros((1, 5, 5)), [0.5])})
    (m,) = explorer._models["after"]
    assert np.isnan(m.maps.values).all() and np.isnan(m.radius).all() and np.isnan(m.profile).all()
    assert "no field, as nothing here depends on the image" in explorer.sentence()
    assert explorer.fallback()


@pytest.mark.parametrize(("side", "most", "cells"), [(32, 98, 32), (224, 98, 56), (240, 90, 80), (227, 98, 98)])
def test_maps_are_averaged_over_whole_pixels_where_they_can_be(side, most, cells):
    assert _cells(side, most) == cells


@pytest.mark.parametrize(("side", "cells"), [(6, 3), (5, 2), (7, 7)])
def test_means_of_cells(side, cells):
    means = _means(side, cells)
    np.testing.assert_allclose(means.sum(1), 1)  # a constant stays what it is
    np.testing.assert_allclose(means.sum(0), cells / side)  # and no pixel counts more than another
    if side % cells == 0:
        values = np.arange(side)
        np.testing.assert_allclose(means @ values, values.reshape(cells, -1).mean(1))


# Arrays in, arrays out


def test_maps_are_the_measured_ones(pair):
    explorer = explore_receptive_field(pair)
    for m, fields in zip(explorer._models["after"], pair.values(), strict=True):
        shown = np.maximum(fields / fields.max(("y", "x")), DARKEST)
        np.testing.assert_allclose(10**m.maps.values, shown, rtol=explorer.header["error"])
        np.testing.assert_allclose(m.radius, radius_of_mass(fields, 0.5), rtol=1e-6)
    assert explorer.header["error"] < 0.015


def test_every_layer_is_at_a_stop_on_both_sides(pair):
    before = {"ViT": pair["ViT"][1:], "CNN": pair["CNN"][1:]}
    explorer = explore_receptive_field(pair, before=before)
    for side, measured in (("after", pair), ("before", before)):
        shown = np.array([step["shown"][side] for step in explorer.header["steps"]])
        assert [set(column) for column in shown.T] == [set(range(f.sizes["layer"])) for f in measured.values()]


def test_of_the_order_of_dimensions_nothing_depends(pair):
    turned = {label: fields.transpose("x", "layer", "y") for label, fields in pair.items()}
    assert explore_receptive_field(turned).data == explore_receptive_field(pair).data


def test_the_sentence_follows_the_state(pair):
    before = {label: fields[1:] for label, fields in pair.items()}
    explorer = explore_receptive_field(pair, before=before)
    explorer.layer, explorer.addition, explorer.scale = 0, "before", "linear"
    radius, uniform = (float(radius_of_mass(f[:1], 0.5)[0]) for f in (before["ViT"], xr.ones_like(before["ViT"])))
    start = (
        "Near depth 0.00, before the addition. ViT (attention 2, attention.1): half of the field lies within "
        f"{radius:.1f} px of its centre, of a uniform one within {uniform:.1f} px. CNN (unit 2, residual.1): "
    )
    assert explorer.sentence().startswith(start) and explorer.sentence().endswith("Scale: linear.")
    assert "before the addition" in explorer.fallback()


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
    explorer.addition = "before"
    for side, before in (("after", False), ("before", True)):
        for m, model in zip(explorer._models[side], (vit, resnet), strict=True):
            expected = radius_of_mass(
                effective_receptive_fields(model, images, channels=1, before_addition=before), 0.5
            )
            np.testing.assert_allclose(m.radius, expected, rtol=1e-6)


def test_models_without_cls_or_with_registers():
    shape = {"depth": 1, "img_size": 28, "patch_size": 2, "embed_dim": 8, "num_heads": 2}  # a grid of 14 x 14
    plain = described(small_vit(**shape, class_token=False, global_pool="avg"), "plain", 28)
    registers = described(small_vit(**shape, reg_tokens=3), "registers", 28)
    explorer = explore_receptive_field({"plain": plain, "registers": registers}, noise_images(1, size=28), channels=1)
    explorer.layer = 1
    assert "plain (attention 1, blocks.0.attn)" in explorer.sentence()
    assert "registers (attention 1, blocks.0.attn)" in explorer.sentence()


def test_payload_of_large_models_is_small_enough():
    """ViT-L/16 and ResNet-152 at 224 px, as noise, which cannot be packed any smaller."""
    rng = np.random.default_rng(0)
    fields = {
        "ViT": fields_of(rng.random((49, 224, 224)), np.linspace(0, 1, 49)),
        "CNN": fields_of(rng.random((51, 224, 224)), np.linspace(0, 1, 51)),
    }
    explorer = explore_receptive_field(fields, before={label: f[1:] for label, f in fields.items()})
    assert len(gzip.compress(explorer.data)) < 1e6
    assert explorer.header["averaged"] == 4


# What is said of what cannot be shown


def test_errors_say_what_to_do(pair, vit, noise):
    with pytest.raises(VitcnnError, match="models need images"):
        explore_receptive_field({"ViT": vit})
    with pytest.raises(VitcnnError, match="not both"):
        explore_receptive_field({"ViT": vit, "CNN": pair["CNN"]}, noise)
    with pytest.raises(VitcnnError, match="same labels"):
        explore_receptive_field(pair, before={"ViT": pair["ViT"]})
    with pytest.raises(VitcnnError, match="'ViT' is no receptive field"):
        explore_receptive_field({"ViT": pair["ViT"].values})
    with pytest.raises(VitcnnError, match="nothing to explore"):
        explore_receptive_field({})
    with pytest.raises(VitcnnError, match="up to 4"):
        explore_receptive_field({str(i): pair["ViT"] for i in range(5)})
