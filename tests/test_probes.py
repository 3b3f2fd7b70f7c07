from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler
from small_models import described, small_vit
from textbook import model_of, noise_images, patch_copier
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images, load_images
from vitcnn_utils.measures.probes import STRENGTHS, Ridge, _at_grid, _groups, layer_probes, split_images
from vitcnn_utils.models.load import load_model
from vitcnn_utils.models.trace import Layout


def telling_patch(n=120, classes=4, row=2, col=5):
    """Noise in which one 4 x 4 patch alone tells the class: by which pixel of its first row is white."""
    images = noise_images(n, classes=classes)
    patch = images.pixels[:, 4 * row : 4 * row + 4, 4 * col : 4 * col + 4]
    patch[:] = 0
    patch[np.arange(n), 0, images.labels] = 255
    return images


# Ridge regression


@pytest.mark.parametrize(("n", "D"), [(40, 12), (12, 40), (20, 20)])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 300.0])
def test_scikit_learn(n, D, alpha):
    rng = np.random.default_rng(n)
    x, x_test = rng.normal(3, rng.uniform(0.1, 5, (3, 1, D)), (3, n, D)), rng.normal(3, 1, (3, 7, D))
    y = rng.normal(size=(n, 4)) + 2
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 2e-2 if alpha < 1 else 1e-3)):
        ridge = Ridge.fit(torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype))
        predicted = ridge.predict(ridge.project(torch.from_numpy(x_test).to(dtype)), alpha)
        for p in range(3):
            scaler = StandardScaler().fit(x[p])
            expected = SklearnRidge(alpha).fit(scaler.transform(x[p]), y).predict(scaler.transform(x_test[p]))
            np.testing.assert_allclose(predicted[p], expected, rtol=tolerance, atol=tolerance)


def test_features_that_are_constant_but_for_rounding_do_no_harm():
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(1, 20, 5))), torch.from_numpy(rng.normal(size=(20, 2)))
    constant = 0.1 * (1 + 1e-9 * torch.from_numpy(rng.normal(size=(1, 20, 3))))
    plain, padded = (Ridge.fit(v, y) for v in (x, torch.cat([x, constant], dim=2)))
    expected = plain.predict(plain.project(x), 1.0)
    got = padded.predict(padded.project(torch.cat([x, constant], dim=2)), 1.0)
    torch.testing.assert_close(got, expected)


def test_a_whole_probe_against_scikit_learn():
    """Split, standardising, targets, strength on the validation images, accuracy on the test images."""
    images = load_images("cifar10", n=300)
    pool = nn.AvgPool2d(8)
    model = model_of(pool, {"pool": pool})
    result = layer_probes(model, images, readouts=["mean"], shots=6, draws=3, seed=1)
    x = model.record(model.prepare(torch.from_numpy(images.pixels)), model.layers)["pool"].mean((2, 3)).double().numpy()
    y, split = images.labels, split_images(images, 6, 3, 1)
    for draw, train in enumerate(split.draws):
        scaler = StandardScaler().fit(x[train])
        target = 2.0 * (y[train][:, None] == np.arange(10)) - 1
        correct = {}
        for strength in STRENGTHS:
            ridge = SklearnRidge(strength * 3).fit(scaler.transform(x[train]), target)
            correct[strength] = [
                (ridge.predict(scaler.transform(x[part])).argmax(1) == y[part]).mean() for part in split[1:]
            ]
        best = max(STRENGTHS, key=lambda s: (correct[s][0], s))
        assert result.accuracy[0, 0, draw] == pytest.approx(correct[best][1])


# What probes see


def test_random_labels_stay_near_chance(zoo_vit):
    result = layer_probes(zoo_vit, noise_images(400, classes=2), zoo_vit.blocks[::4], draws=4)
    # 160 test images: a standard deviation of 0.04, less the more probes are averaged.
    np.testing.assert_allclose(result.accuracy.mean("draw"), 0.5, atol=0.12)
    assert abs(result.accuracy.sel(readout="token").mean() - 0.5) < 0.03


def test_only_the_location_that_knows_the_class_finds_it():
    result = layer_probes(patch_copier(), telling_patch(), draws=2)
    accuracy = result.token_accuracy.isel(layer=0).mean("draw")
    assert accuracy[2, 5] == 1
    elsewhere = accuracy.values[np.arange(64).reshape(8, 8) != 2 * 8 + 5]
    assert elsewhere.mean() == pytest.approx(0.25, abs=0.05)
    np.testing.assert_allclose(result.accuracy.sel(readout="token"), result.token_accuracy.mean(("row", "col")))
    assert result.accuracy_by_image.sizes["sample"] == result.attrs["n_test"]
    np.testing.assert_allclose(result.accuracy_by_image.mean("sample"), result.accuracy, rtol=1e-6)


def test_tokens_of_a_vit_are_numbered_as_its_patches_are():
    model = load_model("zoo/vit-cls", "untrained", device="cpu")
    for block in model.module.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    accuracy = layer_probes(model, telling_patch(), model.blocks[-1:], draws=1).token_accuracy[0, ..., 0]
    assert accuracy[2, 5] == 1
    assert accuracy.mean() < 0.4
    in_the_corner = telling_patch(row=0, col=0)
    assert layer_probes(model, in_the_corner, model.blocks[-1:], ["first token"], draws=1).accuracy == 1


def test_readouts_that_a_model_has(zoo_vit, zoo_resnet):
    gap = load_model("zoo/vit-gap", "untrained", device="cpu")
    images = noise_images(50, classes=2)
    registers = described(small_vit(class_token=False, reg_tokens=2, global_pool="avg"))
    for model, expected in (
        (registers, ["mean", "first token", "token"]),
        (zoo_vit, ["cls", "mean", "mean with cls", "first token", "token"]), (gap, ["mean", "first token", "token"]),
        (zoo_resnet, ["mean", "token"]),
    ):  # fmt: skip
        assert list(layer_probes(model, images, model.blocks[-1:], draws=1).readout.values) == expected
    for model, readout, message in (
        (gap, "cls", r"zoo/vit-gap .* has no CLS token"),
        (zoo_resnet, "first token", "has no tokens"),
        (gap, "max", "no read-out 'max'; there are: cls, mean"),
    ):
        with pytest.raises(VitcnnError, match=message):
            layer_probes(model, images, readouts=[readout])


def test_labels_of_the_result(zoo_vit):
    images = noise_images(64, classes=2)
    result = layer_probes(zoo_vit, images, zoo_vit.blocks[:3], ["cls", "token"], shots=5, draws=2, seed=7)
    assert result.accuracy.sizes == {"layer": 3, "readout": 2, "draw": 2}
    assert result.token_accuracy.sizes == {"layer": 3, "row": 8, "col": 8, "draw": 2}
    assert list(result.layer.values) == ["blocks.0", "blocks.1", "blocks.2"]
    assert (result.attrs["shots"], result.attrs["n_test"], result.attrs["chance"]) == (5, 28, 0.5)
    alone = layer_probes(zoo_vit, images, zoo_vit.blocks[:3], ["cls"], shots=5, draws=2, seed=7)
    np.testing.assert_array_equal(result.accuracy.sel(readout="cls"), alone.accuracy[:, 0])
    assert "token_accuracy" not in alone


def test_means_with_and_without_the_cls_token():
    """The class is told by the CLS token alone, which all images of a class share."""
    images = noise_images(60, classes=2)

    class Tokens(nn.Module):
        def forward(self, x):
            spatial = nn.functional.avg_pool2d(x, 8).flatten(2).mT  # (B, 16, 3), noise
            return torch.cat([x[:, :1, :1, :1].reshape(-1, 1, 1).expand(-1, 1, 3) * 100, spatial], dim=1)

    images.pixels[:, 0, 0] = 255 * images.labels[:, None]
    tokens = Tokens()
    tokens.cls_token = nn.Parameter(torch.zeros(1))
    of_17 = {17: Layout(True, 4, 8, (4, 4), 1)}
    model = replace(model_of(tokens, {"tokens": tokens}), grid=(4, 4), patch_size=8, prefix_tokens=1, tokens=of_17)
    accuracy = layer_probes(model, images).accuracy[0].mean("draw")
    assert accuracy.sel(readout="cls") == 1
    assert accuracy.sel(readout="mean with cls") == 1
    assert accuracy.sel(readout="mean") < 0.8


# Maps of several sizes


def test_large_maps_are_cut_in_squares_and_pooled():
    x = torch.randn(2, 32, 32, 64)
    cells = _at_grid(x, 4, 4, 512)
    assert cells.shape == (2, 4, 4, 256)  # squares of 2 x 2: 4 x 64 channels; 4 x 4 would make 1024, more than 512
    # Channel c, at the upper right of its square, pooled over the 4 x 4 squares of the cell.
    assert cells[1, 2, 3, 4 * 9 + 1] == pytest.approx(x[1, 16:24:2, 25:32:2, 9].mean().item(), abs=1e-6)
    last = torch.randn(2, 4, 4, 512)
    assert torch.equal(_at_grid(last, 4, 4, 512), last)
    assert _at_grid(torch.randn(2, 13, 13, 8), 4, 4, 512).shape == (2, 4, 4, 8)


def test_every_unit_of_a_resnet_on_the_last_grid(zoo_resnet):
    result = layer_probes(zoo_resnet, noise_images(30, classes=2), shots=4, draws=1)
    assert result.token_accuracy.sizes == {"layer": 12, "row": 4, "col": 4, "draw": 1}
    one = layer_probes(zoo_resnet, noise_images(30, classes=2), zoo_resnet.blocks[1:2], shots=4, draws=1)
    xr.testing.assert_equal(result.isel(layer=[1]), one)


# Groups that fit in memory


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 50)), min_size=1, max_size=8), st.integers(1, 20_000))
def test_groups_hold_every_cell_once_and_keep_to_the_budget(sizes, budget):
    shapes = {(f"layer {i}", "token"): size for i, size in enumerate(sizes)}
    groups = list(_groups(shapes, 3, budget))
    for group in groups:
        cells = [piece.cells.stop - piece.cells.start for piece in group]
        assert sum(4 * 3 * n * piece.channels for n, piece in zip(cells, group, strict=True)) <= budget or cells == [1]
    found = [(p.layer, cell) for group in groups for p in group for cell in range(p.cells.start, p.cells.stop)]
    assert found == [(layer, cell) for (layer, _), (P, _) in shapes.items() for cell in range(P)]


# Images and draws


def test_classes_have_equal_shares_and_parts_do_not_overlap():
    labels = np.array([0] * 30 + [3] * 41 + [7] * 26)
    images = Images("x", np.zeros((97, 2, 2, 3), np.uint8), labels)
    split = split_images(images, shots=8, draws=4, seed=0)
    assert (images.labels[split.test].reshape(11, -1) == [0, 3, 7]).all()
    for part, count in ((split.validation, 5), (split.test, 11), *((draw, 8) for draw in split.draws)):
        assert list(np.unique(labels[part], return_counts=True)[1]) == [count] * 3
    parts = [set(part) for part in (np.concatenate(split.draws), split.validation, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert len({tuple(sorted(draw)) for draw in split.draws}) > 1


def test_the_seed_decides_and_more_draws_begin_with_the_same_ones():
    images = load_images("cifar10", n=300)
    first, again, other = (layer_probes(patch_copier(), images, seed=seed, draws=2) for seed in (0, 0, 1))
    xr.testing.assert_identical(first, again)
    assert not np.array_equal(first.accuracy, other.accuracy)
    xr.testing.assert_equal(first, layer_probes(patch_copier(), images, draws=4).isel(draw=slice(2)))


# Errors


@pytest.mark.parametrize(
    ("n", "classes", "options", "message"),
    [
        (40, None, {}, "noise has no labels, which linear probes need"),
        (40, 1, {}, "two or more"),
        (49, 2, {}, "10-shot probes need 25 images of each class, and noise has 24 of one"),
        (40, 2, {"shots": 0}, "1 or more"),
        (40, 2, {"draws": 0}, "1 or more"),
    ],
)
def test_images_that_do_not_do(zoo_vit, n, classes, options, message):
    with pytest.raises(VitcnnError, match=message):
        layer_probes(zoo_vit, noise_images(n, classes=classes), **options)
