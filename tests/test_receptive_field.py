from collections import OrderedDict

import numpy as np
import pytest
import torch
import xarray as xr
from small_models import described, small_resnet, small_vit
from textbook import noise_images
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures.receptive_field import effective_receptive_fields, radius_of_mass, summarize


def convolutions(*layers):
    """Convolutions in a row, each (in, out, kernel, stride), as a model with a layer each; colours have std 0.5.

    Odd kernels are padded to the size of what they take, even ones not at all, as in patch embeddings.
    """
    stack = [nn.Conv2d(i, o, k, s, padding=k // 2 * (k % 2), bias=False) for i, o, k, s in layers]
    model = described(nn.Sequential(OrderedDict((f"conv{i}", layer) for i, layer in enumerate(stack))))
    model.std = (0.5, 0.5, 0.5)
    return model


def field_of(values, centre=(8.5, 8.5)):
    """A receptive field (1, y, x) made by hand."""
    H, W = values.shape
    coords = {"layer": ["made"], "depth": ("layer", [0.5]), "y": np.arange(H) + 0.5, "x": np.arange(W) + 0.5,
              "centre_y": ("layer", [centre[0]]), "centre_x": ("layer", [centre[1]])}  # fmt: skip
    return xr.DataArray(values[None].astype(float), dims=("layer", "y", "x"), coords=coords)


# Fields that are known


def test_linear_map_is_exact():
    model = convolutions((3, 5, 4, 4))  # a patch embedding
    model.std = (0.1, 0.2, 0.5)
    with torch.no_grad():
        model.module[0].weight[1] = -model.module[0].weight[0]  # channels must not cancel
    found = effective_receptive_fields(model, noise_images(3, size=16), layers=["conv0"])
    W = model.module[0].weight.detach().double().numpy()  # (channel, colour, y, x)
    expected = np.zeros((16, 16))
    expected[8:12, 8:12] = np.abs(W / np.array(model.std)[:, None, None]).mean((0, 1))  # place 2 of 4
    np.testing.assert_allclose(found.sel(layer="conv0"), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("layers", "fields", "centres"),
    [
        ([(3, 4, 3, 1), (4, 4, 5, 1), (4, 4, 3, 1)], [3, 7, 9], [16.5, 16.5, 16.5]),
        ([(3, 4, 7, 2), (4, 4, 3, 2), (4, 4, 3, 1)], [7, 11, 19], [16.5, 16.5, 16.5]),
        ([(3, 4, 1, 1), (4, 4, 3, 2), (4, 4, 1, 2)], [1, 3, 3], [16.5, 16.5, 16.5]),
        ([(3, 4, 4, 4), (4, 4, 3, 1), (4, 4, 2, 2)], [4, 12, 16], [18, 18, 20]),  # as in a ConvNeXt
    ],
)
def test_support_is_the_computed_receptive_field(layers, fields, centres):
    model = convolutions(*layers)
    for conv in model.module:
        nn.init.uniform_(conv.weight, 0.1, 1)
    found = effective_receptive_fields(model, noise_images(1), layers=[layer.name for layer in model.layers])
    for i, (field, side, middle) in enumerate(zip(found, fields, centres, strict=True)):
        rows, columns = (field > 0).any("x").values.nonzero()[0], (field > 0).any("y").values.nonzero()[0]
        for seen, centre in ((rows, field.centre_y), (columns, field.centre_x)):
            assert len(seen) == seen[-1] - seen[0] + 1 == side
            # It lies around the place that the coordinates name.
            assert seen.mean() + 0.5 == centre == middle
        assert found.layer[i] == f"conv{i}"


# Tokens, residual streams


def test_branches_by_default(vit, resnet):
    for model, centre in ((vit, 20), (resnet, 16.5)):
        after = effective_receptive_fields(model, noise_images(1), channels=1)
        before = effective_receptive_fields(model, noise_images(1), channels=1, before_addition=True)
        names = [branch.name for branch in model.branches]
        assert after.layer.values.tolist() == ["stem", *names]
        assert before.layer.values.tolist() == names
        assert (after.attrs["before_addition"], before.attrs["before_addition"]) == (0, 1)
        assert np.all(np.diff(after.depth) > 0)
        assert after.depth[-1] == model.blocks[-1].depth
        assert after.kind[-1] == model.branches[-1].kind
        assert after.centre_y[0] == after.centre_x[0] == centre


def test_a_branch_that_adds_nothing_shows_before_the_addition_only(vit, resnet, noise):
    nn.init.zeros_(vit.attentions[0].proj.weight)
    layers = ["blocks.0.attn", "blocks.0.mlp"]
    stem = effective_receptive_fields(vit, noise, layers=["stem"])[0]
    after = effective_receptive_fields(vit, noise, layers=layers)
    np.testing.assert_allclose(after[0], stem, rtol=1e-5)
    before = effective_receptive_fields(vit, noise, layers=layers, before_addition=True)
    assert before[0].max() == 0
    assert before[1].max() > 0
    # The MLP works token by token: it too sees the patch only, and the sum is another field than the branch.
    assert before[1].values[:16].max() == 0
    assert abs(after[1] - before[1]).max() > 1e-3 * after[1].max()
    # A CNN whose units begin at zero, as timm starts them.
    for unit in resnet.module.layer1:
        nn.init.zeros_(unit.bn3.weight)
    assert effective_receptive_fields(resnet, noise, layers=["layer1.0"], before_addition=True).max() == 0
    assert effective_receptive_fields(resnet, noise, layers=["layer1.0"]).max() > 0


@pytest.mark.parametrize("name", ["small_vit", "small_resnet"])
def test_gradients_against_differences(name):
    # In float64, where a step of the pixel shows the derivative to six digits.
    model = described({"small_vit": small_vit, "small_resnet": small_resnet}[name]())
    model.module.double()
    prepare = model.prepare
    model.prepare = lambda pixels: prepare(pixels).double()
    images = noise_images(1)
    branch = model.branches[2]
    found = effective_receptive_fields(model, images, layers=[branch.name])[0]
    y, x, step = 13, 18, 1e-6
    expected = 0.0
    for colour in range(3):
        ends = []
        for sign in (1, -1):
            pixels = model.prepare(torch.from_numpy(images.pixels))
            pixels[0, colour, y, x] += sign * step / model.std[colour]
            with torch.no_grad(), model.reading([branch.sum]) as values:
                model.module(pixels)
            grid = model.spatial(values[0])[0]
            ends.append(grid[grid.shape[0] // 2, grid.shape[1] // 2])
        expected += ((ends[0] - ends[1]) / (2 * step)).abs().mean().item() / 3
    assert found[y, x].item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_batches_do_not_matter(vit):
    images = noise_images(5)
    one, many = (effective_receptive_fields(vit, images, ["blocks.2.mlp"], batch_size=size) for size in (5, 2))
    np.testing.assert_allclose(one, many, rtol=1e-4)


# A sample of the channels


def test_sampled_channels_estimate_the_mean_over_all(vit):
    images, layers = noise_images(4), ["blocks.1.mlp"]
    exact = effective_receptive_fields(vit, images, layers)
    assert exact.attrs["channels"] == "all"
    assert exact.n_channels.values.tolist() == [24]
    np.testing.assert_array_equal(effective_receptive_fields(vit, images, layers, channels=24), exact)
    draws = [effective_receptive_fields(vit, images, layers, channels=3, seed=seed) for seed in range(40)]
    assert draws[0].attrs["channels"] == "3 of each image, drawn with seed 0"
    patch = slice(16, 24)
    mean = np.mean([draw.values[0, patch, patch] for draw in draws], axis=0)
    expected = exact.values[0, patch, patch]
    # 40 draws of 3 channels of 4 images: 480 draws of a quantity that varies by some 80 %.
    assert abs(mean.sum() / expected.sum() - 1) < 0.05
    assert np.abs(mean / expected - 1).max() < 0.3
    assert not np.allclose(draws[0], draws[1])
    np.testing.assert_array_equal(draws[5], effective_receptive_fields(vit, images, layers, channels=3, seed=5))


# Errors


def test_layers_that_are_not_there(vit, noise):
    with pytest.raises(VitcnnError, match=r"no layer 'blocks\.0\.atn'; did you mean blocks\.0\.attn"):
        effective_receptive_fields(vit, noise, ["blocks.0.atn"])
    with pytest.raises(VitcnnError, match="'stem' is not a branch"):
        effective_receptive_fields(vit, noise, ["stem"], before_addition=True)
    with pytest.raises(VitcnnError, match="has no residual stream"):
        effective_receptive_fields(convolutions((3, 4, 3, 1)), noise)
    with pytest.raises(VitcnnError, match="channels=0"):
        effective_receptive_fields(vit, noise, ["stem"], channels=0)


# Summaries


def test_uniform_field_and_a_field_of_zeros():
    found = summarize(field_of(np.ones((32, 32)), (16, 16)), side=4).isel(layer=0)
    assert found.centre_ratio == pytest.approx(1)
    assert found.centre_mass == pytest.approx(1 / 64)
    assert found.participation == pytest.approx(1)
    # A disc of half the area; one of 90 % is cut off by the sides, so it is larger than sqrt(0.9 / pi) = 0.535 sides.
    assert found.radius_50 == pytest.approx(32 * np.sqrt(0.5 / np.pi), rel=0.02)
    assert 0.535 < found.radius_90 / 32 < 0.71
    assert found.radius_50.attrs["units"] == "px"
    zeros = summarize(field_of(np.zeros((8, 8))), side=2)
    assert all(np.isnan(value.item()) for value in zeros.drop_vars("uniform_90").values())
    assert found.uniform_90 == pytest.approx(found.radius_90.item())


def test_one_pixel():
    values = np.zeros((16, 16))
    values[8, 8] = 3
    found = summarize(field_of(values), side=1).isel(layer=0)
    assert found.radius_50 == found.radius_90 == 0
    assert found.centre_mass == pytest.approx(1)
    assert found.centre_ratio == pytest.approx(256)
    assert found.participation == pytest.approx(1 / 256)
    # A square of half a pixel a side covers a quarter of it.
    assert summarize(field_of(values), side=0.5).centre_mass.item() == pytest.approx(1 / 4)


def test_the_patch_of_a_token_is_the_square_around_its_centre():
    values = np.zeros((32, 32))
    values[16:20, 16:20] = 1
    values[0, 0] = 16
    assert summarize(field_of(values, (18, 18)), side=4).centre_mass.item() == pytest.approx(0.5)
    # Around the middle of pixel 16 a square of 4 covers 3 1/2 pixels of the patch each way: 14.5 to 18.5.
    found = summarize(field_of(values, (16.5, 16.5)), side=4).centre_mass.item()
    assert found == pytest.approx(2.5**2 / 32)
    # Of a square that leaves the image, what is inside counts.
    found = summarize(field_of(np.ones((8, 8)), (0.5, 4)), side=4).isel(layer=0)
    assert found.centre_mass == pytest.approx(2.5 * 4 / 64)
    assert found.centre_ratio == pytest.approx(1)


def test_radius_of_rings():
    values = np.zeros((17, 17))
    values[8, 8], values[8, 11], values[3, 8] = 0.4, 0.3, 0.3
    radii = [radius_of_mass(field_of(values), share).item() for share in (0.4, 0.7, 1)]
    assert radii == pytest.approx([0, 3, 5])
    # From the ring before, at sqrt(8), to that at 3, a disc gains 0.3, of which a third is wanted.
    assert radius_of_mass(field_of(values), 0.5).item() == pytest.approx(8**0.5 + (3 - 8**0.5) / 3)
    for share in (0, -1, 1.5):
        with pytest.raises(VitcnnError, match="share="):
            radius_of_mass(field_of(values), share)


def test_fields_with_images_left_out_have_a_size_each():
    rng = np.random.default_rng(0)
    fields = xr.concat([field_of(rng.random((16, 16))) for _ in range(3)], "left_out").assign_attrs(model="m")
    fields = xr.concat([fields, fields.assign_coords(layer=["other"], centre_y=("layer", [4.5]))], "layer")
    sizes = summarize(fields, side=4)
    assert sizes.radius_50.dims == ("left_out", "layer")
    assert sizes.attrs == {"model": "m", "side": 4}
    assert sizes.depth.values.tolist() == [0.5, 0.5]
    for i in range(3):
        xr.testing.assert_allclose(sizes.isel(left_out=i), summarize(fields.isel(left_out=i), side=4))


@pytest.mark.parametrize("factor", [1e-6, 0.3, 1e6])
def test_summaries_do_not_depend_on_the_scale(factor):
    values = np.random.default_rng(0).random((8, 8))
    one, other = (summarize(field_of(v, (4.5, 4.5)), side=2) for v in (values, factor * values))
    for name in one:
        assert one[name].item() == pytest.approx(other[name].item(), rel=1e-9)
