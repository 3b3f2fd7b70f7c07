import numpy as np
import pytest
import torch
import xarray as xr
from textbook import cka, left_as_it_was, model_of, noise_images, patch_copier
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import load_images
from vitcnn_utils.measures.localization import (
    border_similarity,
    contrast,
    cut,
    layer_patch_similarity,
    localization_rate,
    patch_patch_similarity,
    token_patch_similarity,
)
from vitcnn_utils.models.load import load_model
from vitcnn_utils.run import minibatches


class Permute(nn.Module):
    """Puts the cells of a map in another order."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.flatten(2)[:, :, self.order].reshape(x.shape)


def blocks_that_do_nothing(name):
    """A ViT whose tokens stay the linear embeddings of their patches."""
    model = load_model(name, "untrained", device="cpu")
    for block in model.module.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def best_patch(similarity):
    """For each token, row by row, the number of the patch that is most like it."""
    rows, cols = similarity.sizes["row"], similarity.sizes["col"]
    return similarity.values.reshape(rows * cols, rows * cols).argmax(1)


def labelled(values):
    return xr.DataArray(
        values, dims=("row", "col", "patch_row", "patch_col"),
        coords={dim: range(n) for dim, n in zip(("row", "col", "patch_row", "patch_col"), values.shape, strict=True)},
    )  # fmt: skip


# Similarity of tokens and patches


def test_cells_are_cut_row_by_row():
    pixels = torch.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    cells = cut(pixels, (2, 3))
    assert cells.shape == (2, 2, 3, 12)
    assert torch.equal(cells[1, 1, 2], pixels[1, 2:, 4:].float().flatten())


def test_a_model_that_copies_its_patches():
    images = noise_images(200)
    similarity = token_patch_similarity(patch_copier(), images)
    assert similarity.dims == ("row", "col", "patch_row", "patch_col")
    assert similarity.shape == (8, 8, 8, 8)
    np.testing.assert_allclose(contrast(similarity).own, 1, atol=1e-5)
    assert abs(contrast(similarity).others).max() < 0.02
    rate = localization_rate(similarity)
    np.testing.assert_array_equal(rate.top1, 1)
    np.testing.assert_array_equal(rate.miss, 0)


@pytest.mark.parametrize("name", ["zoo/vit-cls", "zoo/vit-gap"])
def test_a_vit_whose_blocks_do_nothing(name):
    """Prefix tokens are left out, and tokens are numbered as the patches are."""
    similarity = token_patch_similarity(blocks_that_do_nothing(name), noise_images(200))
    assert localization_rate(similarity).top1.sel(region="all") == 1
    assert similarity.attrs["n_images"] == 200


def test_a_model_that_permutes_its_patches():
    order = np.random.default_rng(0).permutation(64)
    copier = patch_copier()
    permute = Permute(order)
    model = model_of(nn.Sequential(copier.module, permute), {"permute": permute})
    np.testing.assert_array_equal(best_patch(token_patch_similarity(model, noise_images(100))), order)


def test_against_the_textbook():
    model = load_model("zoo/vit-cls", "untrained", device="cpu")
    images = load_images("cifar10", n=20)
    similarity = token_patch_similarity(model, images, model.blocks[1], batch_size=10)
    batches = list(minibatches(images, 10, 0, ""))
    token = [
        model.record(model.prepare(p), [model.blocks[1]])["blocks.1"][:, 1 + 2 * 8 + 5].double().numpy()
        for p in batches
    ]
    patch = [p[:, 4:8, 12:16].reshape(10, -1).numpy() for p in batches]
    assert similarity[2, 5, 1, 3].item() == pytest.approx(cka(token, patch), abs=1e-5)
    assert similarity.layer == "blocks.1"


def test_the_default_layer_is_the_last_block():
    model = load_model("zoo/resnet", "untrained", device="cpu")
    similarity = token_patch_similarity(model, noise_images(8))
    assert similarity.shape == (4, 4, 4, 4)
    assert similarity.layer == "layer4.2"


def test_several_layers_are_those_one_by_one():
    model = load_model("zoo/vit-cls", "untrained", device="cpu")
    images, layers = noise_images(16), [model.blocks[6], model.blocks[0]]
    together = layer_patch_similarity(model, images, layers, batch_size=8)
    assert list(together.layer.values) == ["blocks.6", "blocks.0"]
    for layer in layers:
        alone = token_patch_similarity(model, images, layer, batch_size=8)
        np.testing.assert_array_equal(together.sel(layer=layer.name), alone)


def test_layers_of_several_grids_are_refused():
    model = load_model("zoo/resnet", "untrained", device="cpu")
    with pytest.raises(VitcnnError, match=r"several grids, 32 x 32 \(layer1\.2\), .*4 x 4 \(layer4\.2\)"):
        layer_patch_similarity(model, noise_images(8), model.blocks)


def test_a_grid_that_does_not_divide_the_image():
    pool = nn.AvgPool2d(7)
    with pytest.raises(VitcnnError, match="4 x 4 does not divide 30 x 30 pixels"):
        token_patch_similarity(model_of(pool, {"pool": pool}, size=30), noise_images(8, size=30))


def test_too_few_images():
    with pytest.raises(VitcnnError, match="at least 4"):
        token_patch_similarity(patch_copier(), noise_images(3))


def test_as_many_tokens_as_a_large_vit_has():
    similarity = token_patch_similarity(patch_copier(2), noise_images(64, size=28))
    assert similarity.shape == (14, 14, 14, 14)
    assert localization_rate(similarity).top1.sel(region="all") == 1


# The baseline


def test_patches_against_themselves():
    images = load_images("cifar10", n=40)
    similarity = patch_patch_similarity(images, (8, 8), batch_size=20)
    np.testing.assert_allclose(contrast(similarity).own, 1, atol=1e-9)
    np.testing.assert_allclose(similarity, similarity.transpose(*similarity.dims[2:], *similarity.dims[:2]), atol=1e-9)
    copied = token_patch_similarity(patch_copier(), images, batch_size=20)
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
    np.testing.assert_allclose(rate.miss.sel(region="all"), 3 / 16)
    np.testing.assert_array_equal(rate.tokens, [16, 4, 12])
    np.testing.assert_allclose(rate.chance_top1, 1 / 16)
    # A corner has 4 cells within one step, an edge 6, an interior cell 9.
    np.testing.assert_allclose(rate.chance_within_one.sel(region="interior"), 9 / 16)
    np.testing.assert_allclose(rate.chance_within_one.sel(region="border"), (4 * 4 + 8 * 6) / 12 / 16)


def test_rates_are_at_chance_for_noise():
    rng = np.random.default_rng(0)
    many = xr.concat([labelled(rng.normal(size=(6, 6, 6, 6))) for _ in range(100)], "draw")
    rate = localization_rate(many).sel(region="all").mean("draw")
    assert abs(rate.top1 - rate.chance_top1) < 0.01
    assert abs(rate.within_one - rate.chance_within_one) < 0.03


def test_constant_tokens_and_patches_are_not_counted():
    images = noise_images(50)
    images.pixels[:, :4, :4] = 0  # the first patch
    similarity = token_patch_similarity(patch_copier(), images)
    assert np.isnan(similarity[0, 0]).all()
    assert np.isnan(similarity[:, :, 0, 0]).all()
    rate = localization_rate(similarity)
    np.testing.assert_array_equal(rate.tokens, [63, 36, 27])
    np.testing.assert_array_equal(rate.top1, 1)


def test_a_grid_without_interior():
    rate = localization_rate(patch_patch_similarity(noise_images(20), (2, 2)))
    assert rate.tokens.sel(region="interior") == 0
    assert np.isnan(rate.top1.sel(region="interior"))
    assert rate.top1.sel(region="border") == 1


def test_contrast_of_a_known_array():
    values = np.full((2, 2, 2, 2), 0.2)
    values[0, 0] = [[0.8, 0.1], [0.2, 0.3]]
    result = contrast(labelled(values)).isel(row=0, col=0)
    assert result.own == pytest.approx(0.8)
    assert result.others == pytest.approx(0.2)
    assert result.ratio == pytest.approx(4)
    assert result.difference == pytest.approx(0.6)
    assert result.z_score == pytest.approx(0.6 / np.std([0.1, 0.2, 0.3]))


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


def test_summaries_keep_the_layers():
    model = load_model("zoo/vit-cls", "untrained", device="cpu")
    similarity = layer_patch_similarity(model, noise_images(16), model.blocks[:3])
    assert localization_rate(similarity).top1.sizes == {"region": 3, "layer": 3}
    assert contrast(similarity).own.sizes == {"layer": 3, "row": 8, "col": 8}
    assert border_similarity(similarity).sizes == {"layer": 3, "token": 2, "patch": 2}
    one = localization_rate(similarity.isel(layer=1))
    xr.testing.assert_equal(localization_rate(similarity).isel(layer=1), one)


# Nothing is left behind


def test_the_model_is_as_before(monkeypatch):
    model = load_model("zoo/resnet", "untrained", device="cpu")
    with left_as_it_was(model):
        token_patch_similarity(model, noise_images(8))

    def crash(x):
        raise RuntimeError("inside the model")

    monkeypatch.setattr(model.module.layer4[2], "forward", crash)
    with left_as_it_was(model), pytest.raises(RuntimeError, match="inside the model"):
        token_patch_similarity(model, noise_images(8))
