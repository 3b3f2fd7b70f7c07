import numpy as np
import pytest
import torch
from small_models import attention_in, described, small_vit, stir
from textbook import noise_images
from timm.models.beit import Beit
from timm.models.cait import Cait
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures.attention import (
    _weights,
    attention_maps,
    head_distances,
    head_subset_similarity,
    query_distance,
    uniform_distance,
)
from vitcnn_utils.measures.cka import linear_cka


def mean_distance(*weights_and_grid, **how):
    """Of each head, over its queries."""
    return query_distance(*weights_and_grid, **how).mean(-1)


def random_weights(shape, T, seed=0):
    """Softmax weights, (*shape, T, T)."""
    logits = np.random.default_rng(seed).normal(0, 2, (*shape, T, T))
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def textbook_distance(A, grid, patch_size, P, renormalize):
    """Of one head, (T, T), query by query."""
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    per_query = []
    for i, (y, x) in enumerate(places):
        row = A[P + i, P:]
        far = sum(row[j] * patch_size * np.hypot(y - v, x - u) for j, (v, u) in enumerate(places))
        per_query.append(far / row.sum() if renormalize else far)
    return np.mean(per_query)


# Mean distance


@pytest.mark.parametrize(
    ("side", "patch_size", "expected"),
    [(7, 32, 115.5), (14, 16, 116.5), (16, 14, 116.6), (24, 16, 200), (32, 16, 267), (37, 14, 270)],
)
def test_uniform_attention(side, patch_size, expected):
    grid, S = (side, side), side**2
    assert round(uniform_distance(grid, patch_size), 1 if side <= 16 else 0) == expected
    weights = np.full((1, S, S), 1 / S)
    assert mean_distance(weights, grid, patch_size) == pytest.approx(uniform_distance(grid, patch_size))
    in_float32 = mean_distance(torch.from_numpy(weights).float(), grid, patch_size)
    assert in_float32.item() == pytest.approx(uniform_distance(grid, patch_size), rel=1e-5)


def test_attention_to_oneself_and_to_the_neighbour():
    assert mean_distance(np.eye(49)[None], (7, 7), 32).tolist() == [0.0]
    # Every query looks at the patch to its right, those of the last column at themselves.
    to_the_right = np.kron(np.eye(3), np.eye(4, k=1) + np.diag([0, 0, 0, 1.0]))
    assert mean_distance(to_the_right[None], (3, 4), 16).item() == pytest.approx(16 * 3 / 4)
    # One row down is 4 patches further in row-major order.
    down = np.eye(12, k=4) + np.diag([0.0] * 8 + [1] * 4)
    assert mean_distance(down[None], (3, 4), 16).item() == pytest.approx(16 * 2 / 3)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("P", [0, 1, 3])
def test_textbook(P, renormalize):
    A = random_weights((2, 3), P + 20)
    expected = [[textbook_distance(head, (4, 5), 8, P, renormalize) for head in image] for image in A]
    of_numpy = mean_distance(A, (4, 5), 8, P, renormalize)
    assert isinstance(of_numpy, np.ndarray)
    np.testing.assert_allclose(of_numpy, expected, rtol=1e-12)
    of_torch = mean_distance(torch.from_numpy(A), (4, 5), 8, P, renormalize)
    assert of_torch.dtype == torch.float64
    np.testing.assert_allclose(of_torch, of_numpy, rtol=1e-12)


@pytest.mark.parametrize("mass", [0, 0.3, 0.999])
def test_mass_on_cls_shrinks_the_distance_unless_renormalized(mass):
    spatial = random_weights((2,), 12)
    A = np.zeros((2, 13, 13))
    A[:, 1:, 1:] = (1 - mass) * spatial
    A[:, 1:, 0] = mass
    A[:, 0, 0] = 1  # the CLS token as a query must not count
    expected = mean_distance(spatial, (3, 4), 16)
    np.testing.assert_allclose(mean_distance(A, (3, 4), 16, 1), (1 - mass) * expected, rtol=1e-9)
    np.testing.assert_allclose(mean_distance(A, (3, 4), 16, 1, renormalize=True), expected, rtol=1e-9)
    A[:, 1:] = A[:, :1]  # all mass on it is no distance in either convention
    assert not mean_distance(A, (3, 4), 16, 1).any()
    assert not mean_distance(A, (3, 4), 16, 1, renormalize=True).any()


@pytest.mark.parametrize("shape", [(2, 13, 12), (2, 12, 12), (13,)])
def test_weights_that_do_not_fit_the_grid(shape):
    with pytest.raises(VitcnnError, match="must be 13 x 13"):
        mean_distance(np.zeros(shape), (3, 4), 16, prefix_tokens=1)


# The weights of a model


SHAPE = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 24, "depth": 2, "num_heads": 4}

ROTARY = {**SHAPE, "embed_dim": 32, "use_rot_pos_emb": True}


VARIANTS = {
    "plain": lambda: small_vit(),
    "registers, no CLS": lambda: small_vit(class_token=False, reg_tokens=2, global_pool="avg"),
    "norms of queries and keys": lambda: small_vit(qk_norm=True, scale_attn_norm=True),
    "rotary": lambda: stir(Eva(**ROTARY)),
    "rotary, separate projections": lambda: stir(Eva(**ROTARY, qkv_fused=False, attn_type="rope")),
    "relative positions": lambda: stir(VisionTransformerRelPos(**SHAPE, rel_pos_type="mlp", class_token=True)),
    "relative positions, as in BEiT": lambda: stir(Beit(**SHAPE, use_rel_pos_bias=True)),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_maps_are_those_that_timm_forms_without_fusing(name, fused):
    model, images = described(VARIANTS[name]()), noise_images(5)
    x = model.prepare(torch.from_numpy(images.pixels))
    expected = []
    for attention in model.attentions:
        attention.fused_attn = False
        attention.attn_drop.register_forward_hook(lambda module, args, out: expected.append(out.detach()))
    model.module(x)
    by_block = np.stack([weights.numpy() for weights in expected], axis=1)
    for attention in model.attentions:
        attention.fused_attn = fused
    found = attention_maps(model, images, batch_size=2)
    assert found.dims == ("image", "block", "head", "query", "key")
    assert found.block.values.tolist() == [0, 1, 2][: len(model.attentions)]
    np.testing.assert_allclose(found, by_block, rtol=1e-4, atol=1e-6)
    assert found.std() > 1e-3  # not the trivial case in which all is uniform
    assert found.attrs["grid"] == model.grid
    # With the values that belong to them, they make what the module gives.
    layer = model.layer("blocks.1.attn")
    weights, values = attention_in(model, x, block=1)
    side_by_side = (weights @ values).transpose(1, 2).flatten(2)
    module = model.attentions[1]
    with torch.no_grad():
        output = module.proj(getattr(module, "norm", nn.Identity())(side_by_side))
    torch.testing.assert_close(output, model.record(x, [layer])[layer.name], rtol=1e-4, atol=1e-5)


MASK = torch.arange(9)[:, None] >= torch.arange(9) - 2


@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"attn_mask": MASK}, {"attn_mask": MASK.double(), "scale": 2}])
def test_weights_are_those_of_torchs_fused_kernel(options):
    query, key, value = torch.randn(3, 2, 4, 9, 6, dtype=torch.float64)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(_weights(query, key, value, **options) @ value, expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["CLS"]),
        ({"reg_tokens": 2}, ["CLS", "register 0", "register 1"]),
        ({"class_token": False, "global_pool": "avg"}, []),
        ({"class_token": False, "global_pool": "avg", "reg_tokens": 1}, ["register 0"]),
    ],
)
def test_maps_name_the_tokens_before_the_patches(changes, expected):
    found = attention_maps(described(small_vit(**changes)), noise_images(1))
    assert found.attrs["prefix"] == expected
    assert found.sizes["key"] == 16 + len(expected)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (lambda: VisionTransformer(**SHAPE, attn_layer="diff"), "DiffAttention"),
        (lambda: Cait(**SHAPE), "TalkingHeadAttn"),
    ],
)
def test_other_attention_is_named(module, named):
    model = described(module())
    with pytest.raises(VitcnnError, match=f"no plain softmax attention over all.*{named} is none"):
        head_distances(model, noise_images(2))


def test_no_attention(vit, resnet, noise):
    for measure in (head_distances, attention_maps, lambda *a: head_subset_similarity(a[0], *a)):
        with pytest.raises(VitcnnError, match="small ResNet has no attention"):
            measure(resnet, noise)


# Distances of the heads of a model


def test_heads_of_a_model(vit):
    images = noise_images(7)
    found = head_distances(vit, images, batch_size=3)
    assert found.distance.dims == ("block", "head")
    assert found.layer.values.tolist() == ["blocks.0.attn", "blocks.1.attn", "blocks.2.attn"]
    assert found.distance.attrs["units"] == "px"
    x = vit.prepare(torch.from_numpy(images.pixels))
    for block in range(3):
        A = attention_in(vit, x, block)[0].double().numpy()  # (N, H, T, T)
        here = found.sel(block=block)
        for name, renormalize in (("distance", False), ("distance_renormalized", True)):
            per_image = [[textbook_distance(head, (4, 4), 8, 1, renormalize) for head in image] for image in A]
            np.testing.assert_allclose(here[name], np.mean(per_image, axis=0), rtol=1e-5)
            if name == "distance":
                np.testing.assert_allclose(here.distance_by_image, per_image, rtol=1e-5)
        np.testing.assert_allclose(here.prefix_mass, A[:, :, 1:, 0].mean((0, 2)), rtol=1e-5)
        entropy = -(A * np.log(A)).sum(-1)[:, :, 1:].mean((0, 2)) / np.log(17)
        np.testing.assert_allclose(here.entropy, entropy, rtol=1e-5)
        # The heads differ, so that a mix-up of heads would show.
        assert np.ptp(here.distance.values) > 0.1


def test_heads_that_see_nothing_attend_uniformly(noise):
    model = described(small_vit(reg_tokens=3))
    for attention in model.attentions:
        nn.init.zeros_(attention.qkv.weight)
        nn.init.zeros_(attention.qkv.bias)
    found = head_distances(model, noise)
    uniform = uniform_distance((4, 4), 8)
    assert found.attrs["uniform_distance"] == uniform
    expected = {"distance": uniform * 16 / 20, "distance_renormalized": uniform, "prefix_mass": 4 / 20, "entropy": 1}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    np.testing.assert_allclose(found.distance_by_image.std("sample"), 0, atol=1e-5)


# Head subsets and a CNN


def subset_by_hand(vit, resnet, images, heads, layer, pooled):
    weights, values = attention_in(vit, vit.prepare(torch.from_numpy(images.pixels)), 0)
    features = (weights @ values)[:, heads]
    features = features.mean(2) if pooled else features
    other = resnet.record(resnet.prepare(torch.from_numpy(images.pixels)), [layer])[layer.name]
    return linear_cka(features.flatten(1).numpy(), other.flatten(1).numpy())


def test_subsets_side_by_side(vit, resnet):
    images = noise_images(24)
    layers = resnet.blocks[:5]
    distance = head_distances(vit, images).distance.sel(block=0).values
    order = np.argsort(distance)
    for size, found in head_subset_similarity(vit, resnet, images, sizes=(1, 3)).items():
        assert found.cka.dims == ("subset", "layer")
        assert found.layer.values.tolist() == [layer.name for layer in layers]
        assert len(found.subset) == 4 - size + 1 and found.attrs["size"] == size
        for i, heads in enumerate(found.heads.values):
            assert heads.tolist() == order[i : i + size].tolist()
            assert found.distance[i].item() == pytest.approx(distance[heads].mean(), rel=1e-5)
            for name, pooled in (("cka", False), ("cka_pooled", True)):
                for layer in layers[::4]:
                    expected = subset_by_hand(vit, resnet, images, heads.tolist(), layer, pooled)
                    assert found[name].sel(layer=layer.name)[i].item() == pytest.approx(expected, abs=1e-4)
        assert np.all(np.diff(found.distance) > 0)


@pytest.mark.parametrize("size", [0, 5])
def test_no_such_subset(vit, resnet, noise, size):
    with pytest.raises(VitcnnError, match="4 heads a block: give sizes from 1 to 4"):
        head_subset_similarity(vit, resnet, noise, sizes=(1, size))


def test_heads_are_compared_with_units(vit, noise):
    plain = described(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)))
    with pytest.raises(VitcnnError, match="has no residual units"):
        head_subset_similarity(vit, plain, noise)
