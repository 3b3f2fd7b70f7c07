import numpy as np
import pytest
import xarray as xr
from textbook import cka, model_of, noise_images, patch_copier
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import load_images
from vitcnn_utils.measures.localization import (
    border_similarity,
    contrast,
    layer_patch_similarity,
    localization_rate,
    patch_patch_similarity,
)
from vitcnn_utils.models.load import load_model
from vitcnn_utils.run import minibatches


def labelled(values):
    return xr.DataArray(
        values, dims=("row", "col", "patch_row", "patch_col"),
        coords={dim: range(n) for dim, n in zip(("row", "col", "patch_row", "patch_col"), values.shape, strict=True)},
    )  # fmt: skip


# Similarity of tokens and patches


def test_a_model_that_copies_its_patches():
    images = noise_images(200)
    similarity = layer_patch_similarity(patch_copier(), images)[0]
    assert similarity.dims == ("row", "col", "patch_row", "patch_col")
    assert similarity.shape == (8, 8, 8, 8)
    np.testing.assert_allclose(contrast(similarity).own, 1, atol=1e-5)
    assert abs(contrast(similarity).others).max() < 0.02
    rate = localization_rate(similarity)
    np.testing.assert_array_equal(rate.top1, 1)


@pytest.mark.parametrize("name", ["zoo/vit-cls", "zoo/vit-gap"])
def test_a_vit_whose_blocks_do_nothing(name):
    """Its tokens stay the embeddings of their patches. Prefix tokens are left out, and tokens numbered as patches."""
    model = load_model(name, "untrained", device="cpu")
    for block in model.module.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    similarity = layer_patch_similarity(model, noise_images(200))[0]
    assert localization_rate(similarity).top1.sel(region="all") == 1


def test_against_the_textbook(zoo_vit):
    images = load_images("cifar10", n=20)
    layers = [zoo_vit.blocks[6], zoo_vit.blocks[1]]
    similarity = layer_patch_similarity(zoo_vit, images, layers, batch_size=10)
    assert list(similarity.layer.values) == ["blocks.6", "blocks.1"]
    batches = list(minibatches(images, 10, 0, ""))
    patch = [p[:, 4:8, 12:16].reshape(10, -1).numpy() for p in batches]
    for layer in layers:
        recorded = [zoo_vit.record(zoo_vit.prepare(p), [layer])[layer.name] for p in batches]
        token = [values[:, 1 + 2 * 8 + 5].double().numpy() for values in recorded]
        assert similarity.sel(layer=layer.name)[2, 5, 1, 3].item() == pytest.approx(cka(token, patch), abs=1e-5)
        alone = layer_patch_similarity(zoo_vit, images, [layer], batch_size=10)
        np.testing.assert_array_equal(similarity.sel(layer=[layer.name]), alone)


def test_layers_and_grids(zoo_resnet):
    similarity = layer_patch_similarity(zoo_resnet, noise_images(8))
    assert similarity.layer.values.tolist() == ["layer4.2"]  # the last block, unless others are given
    assert similarity.shape == (1, 4, 4, 4, 4)
    with pytest.raises(VitcnnError, match=r"several grids, 32 x 32 \(layer1\.2\), .*4 x 4 \(layer4\.2\)"):
        layer_patch_similarity(zoo_resnet, noise_images(8), zoo_resnet.blocks)
    pool = nn.AvgPool2d(7)
    with pytest.raises(VitcnnError, match="4 x 4 does not divide 30 x 30 pixels"):
        layer_patch_similarity(model_of(pool, {"pool": pool}, size=30), noise_images(8, size=30))


# The baseline


def test_patches_against_themselves():
    images = load_images("cifar10", n=40)
    similarity = patch_patch_similarity(images, (8, 8), batch_size=20)
    np.testing.assert_allclose(contrast(similarity).own, 1, atol=1e-9)
    np.testing.assert_allclose(similarity, similarity.transpose(*similarity.dims[2:], *similarity.dims[:2]), atol=1e-9)
    copied = layer_patch_similarity(patch_copier(), images, batch_size=20)[0]
    np.testing.assert_allclose(similarity, copied, atol=1e-4)
    neighbour, far = similarity[3, 3, 3, 4], similarity[3, 3, 7, 0]
    assert neighbour > 2 * far  # photographs: near patches are alike


# Summaries


def test_rates_of_a_known_array():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 0.1, (4, 4, 4, 4))
    for row in range(4):
        for col in range(4):
            values[row, col, row, col] = 1
    values[0, 0, 1, 1] = 2  # a border token, one step off
    values[1, 1, 3, 1] = 2  # an interior token, two steps off
    rate = localization_rate(labelled(values))
    np.testing.assert_allclose(rate.top1.sel(region=["all", "interior", "border"]), [14 / 16, 3 / 4, 11 / 12])
    np.testing.assert_allclose(rate.within_one.sel(region=["all", "interior", "border"]), [15 / 16, 3 / 4, 1])
    np.testing.assert_array_equal(rate.tokens, [16, 4, 12])
    np.testing.assert_allclose(rate.chance_top1, 1 / 16)


def test_tokens_and_regions_that_are_not_there_are_not_counted():
    images = noise_images(50)
    images.pixels[:, :4, :4] = 0  # the first patch is constant
    similarity = layer_patch_similarity(patch_copier(), images)[0]
    assert np.isnan(similarity[0, 0]).all()
    assert np.isnan(similarity[:, :, 0, 0]).all()
    rate = localization_rate(similarity)
    np.testing.assert_array_equal(rate.tokens, [63, 36, 27])
    np.testing.assert_array_equal(rate.top1, 1)
    without_interior = localization_rate(patch_patch_similarity(noise_images(20), (2, 2)))
    np.testing.assert_array_equal(without_interior.tokens, [4, 0, 4])
    np.testing.assert_array_equal(without_interior.top1, [1, np.nan, 1])


def test_contrast_of_a_known_array():
    values = np.full((2, 2, 2, 2), 0.2)
    values[0, 0] = [[0.8, 0.1], [0.2, 0.3]]
    result = contrast(labelled(values)).isel(row=0, col=0)
    assert result.own == pytest.approx(0.8)
    assert result.others == pytest.approx(0.2)
    assert result.difference == pytest.approx(0.6)


def test_border_of_a_known_array():
    border = np.ones((4, 4), bool)
    border[1:3, 1:3] = False
    b = border.astype(float)
    values = 0.1 + 0.5 * np.einsum("ij,kl->ijkl", b, b) + 0.2 * np.einsum("ij,kl->ijkl", b, 1 - b)
    for row in range(4):
        for col in range(4):
            values[row, col, row, col] = 99  # a token's own patch, which does not count
    table = border_similarity(labelled(values))
    assert table.sel(token="border", patch="border") == pytest.approx(0.6)
    assert table.sel(token="border", patch="interior") == pytest.approx(0.3)
    assert table.sel(token="interior", patch="border") == pytest.approx(0.1)
    assert table.sel(token="interior", patch="interior") == pytest.approx(0.1)


def test_summaries_keep_the_layers(zoo_vit):
    similarity = layer_patch_similarity(zoo_vit, noise_images(16), zoo_vit.blocks[:3])
    assert localization_rate(similarity).top1.sizes == {"region": 3, "layer": 3}
    assert contrast(similarity).own.sizes == {"layer": 3, "row": 8, "col": 8}
    assert border_similarity(similarity).sizes == {"layer": 3, "token": 2, "patch": 2}
    one = localization_rate(similarity.isel(layer=1))
    xr.testing.assert_equal(localization_rate(similarity).isel(layer=1), one)
