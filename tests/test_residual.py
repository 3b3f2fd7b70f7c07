import numpy as np
import pytest
import torch
from small_models import described, small_vit
from textbook import left_as_it_was
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures.residual import skip_ratios, without_skip
from vitcnn_utils.models.load import load_model


def constant_branches(norms):
    """A ViT whose branches add the same vector at every token, of a norm that is known; layer scale halves them."""
    module = small_vit(depth=2)
    for block in module.blocks:
        nn.init.constant_(block.ls1.gamma, 0.5)
        nn.init.constant_(block.ls2.gamma, 0.5)
        for linear, norm in zip((block.attn.proj, block.mlp.fc2), norms, strict=True):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            linear.bias.data[0] = 2 * norm
    return described(module)


def read(model, images, taps):
    with torch.no_grad(), model.reading(taps) as values:
        model.module(model.prepare(torch.from_numpy(images.pixels)))
    return [value.double().numpy() for value in values]


# Ratios that are known


@pytest.mark.parametrize("norms", [(1.0, 0.25), (7.0, 3.0)])
def test_block_built_by_hand(noise, norms):
    model = constant_branches(norms)
    found = skip_ratios(model, noise)
    (z,) = read(model, noise, [model.layers[0].tap])  # (N, T, D)
    for block in range(2):
        for branch, norm in zip(("attention", "mlp"), norms, strict=True):
            here = found.sel(block=block, branch=branch)
            ratio = np.linalg.norm(z, axis=-1) / norm
            np.testing.assert_allclose(here.ratio, ratio.mean(0), rtol=1e-5)
            np.testing.assert_allclose(here["median"], np.median(ratio, axis=0), rtol=1e-5)
            np.testing.assert_allclose(here.cosine_branch, (z[..., 0] / ratio / norm).mean(0), rtol=1e-4, atol=1e-6)
            z = z + norm * np.eye(24)[0]
    assert found.ratio.dims == ("block", "branch", "token")
    assert found.part.values.tolist() == ["CLS"] + ["spatial"] * 16


def test_textbook(vit, noise):
    found = skip_ratios(vit, noise, batch_size=4)
    for branch in vit.branches:
        z, f = read(vit, noise, [branch.skip, branch.branch])
        here = found.sel(block=branch.block, branch=branch.kind)
        z_norm, f_norm = (np.sqrt((v**2).sum(-1)) for v in (z, f))
        expected = {
            "ratio": (z_norm / f_norm).mean(0),
            "ratio_of_means": z_norm.mean(0) / f_norm.mean(0),
            "median": np.median(z_norm / f_norm, axis=0),
            "cosine_branch": ((z * f).sum(-1) / z_norm / f_norm).mean(0),
            "cosine_sum": ((z * (z + f)).sum(-1) / z_norm / np.linalg.norm(z + f, axis=-1)).mean(0),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(here[name], values, rtol=1e-4, atol=1e-5, err_msg=f"{name} of {branch.name}")
    # The three averages differ on these, so that a mix-up would show.
    assert not np.allclose(found.ratio, found.ratio_of_means, rtol=1e-3)
    assert not np.allclose(found.ratio, found["median"], rtol=1e-3)


def test_units_of_a_cnn_are_averaged_over_places(resnet, noise):
    # After the ReLU of the first unit, some places of the second one's skip have no channel left, and no cosine.
    resnet.module.layer1[0].bn3.bias.data -= 6
    found = skip_ratios(resnet, noise, batch_size=4)
    assert found.ratio.sizes == {"block": 8, "branch": 1, "token": 1}
    assert found.projected.values.tolist() == [True, False] * 4
    for branch in resnet.branches:
        z, f = read(resnet, noise, [branch.shortcut, branch.branch])  # (N, C, H, W)
        z_norm, f_norm = (np.sqrt((v**2).sum(1)) for v in (z, f))
        here = found.sel(block=branch.block, branch="residual", token=0)
        assert here.ratio.item() == pytest.approx((z_norm / f_norm).mean(), rel=1e-4)
        assert here.ratio_of_means.item() == pytest.approx(z_norm.mean() / f_norm.mean(), rel=1e-4)
        assert here["median"].item() == pytest.approx(np.median((z_norm / f_norm).mean((1, 2))), rel=1e-4)
        with np.errstate(invalid="ignore"):
            cosine = np.nanmean((z * f).sum(1) / z_norm / f_norm)
        assert here.cosine_branch.item() == pytest.approx(cosine, rel=1e-3, abs=1e-5)


def test_a_branch_of_zero_is_infinitely_short(noise):
    found = skip_ratios(load_model("zoo/resnet", "untrained", device="cpu"), noise)
    for name in ("ratio", "ratio_of_means", "median"):
        assert np.isposinf(found[name]).all()
    assert np.isnan(found.cosine_branch).all()
    np.testing.assert_allclose(found.cosine_sum, 1, rtol=1e-5)


def test_a_block_trained_without_skips_has_no_ratio(noise):
    found = skip_ratios(load_model("zoo/vit-cls-noskip-middle", "untrained", device="cpu"), noise)
    missing = np.isnan(found.ratio).all(("branch", "token"))
    assert missing.values.tolist() == [block == 4 for block in range(8)]


# Without a skip


def by_hand(vit, x, block, kept):
    """A forward pass of a timm ViT, spelled out; kept: which skips the block still has."""
    module = vit.module
    z = module._pos_embed(module.patch_embed(x))
    for i, b in enumerate(module.blocks):
        f = b.ls1(b.attn(b.norm1(z)))
        z = z + f if i != block or "attention" in kept else f
        f = b.ls2(b.mlp(b.norm2(z)))
        z = z + f if i != block or "mlp" in kept else f
    return module.forward_head(module.norm(z))


@pytest.mark.parametrize(("branch", "kept"), [(None, ()), ("attention", ("mlp",)), ("mlp", ("attention",))])
@pytest.mark.parametrize("block", [0, 2])
def test_vit_without_a_skip(vit, noise, block, branch, kept):
    x = vit.prepare(torch.from_numpy(noise.pixels))
    intact = vit.module(x)
    torch.testing.assert_close(by_hand(vit, x, block, ("attention", "mlp")), intact)
    with left_as_it_was(vit):
        with without_skip(vit, block, branch):
            found = vit.module(x)
        torch.testing.assert_close(found, by_hand(vit, x, block, kept), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, intact, rtol=1e-2)
        assert torch.equal(vit.module(x), intact)


def test_untrained_twins_with_and_without_a_skip(noise):
    # The same seed draws the same weights, so removal must give what the architecture without that skip gives.
    model, twin = (load_model(name, "untrained", device="cpu") for name in ("zoo/vit-cls", "zoo/vit-cls-noskip-middle"))
    x = model.prepare(torch.from_numpy(noise.pixels))
    with without_skip(model, 4):
        found = model.record(x, model.layers)
    expected = twin.record(x, twin.layers)
    for name, activation in found.items():
        torch.testing.assert_close(activation, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_branch_is_still_read_as_it_is(resnet, noise):
    # Bound to be wrong if the hook that removes the skip came first: bn3 would be read as f(z) - z.
    branch = resnet.branches[1]
    (intact,) = read(resnet, noise, [branch.branch])
    with without_skip(resnet, 1):
        (found,) = read(resnet, noise, [branch.branch])
    np.testing.assert_array_equal(found, intact)
    (after,) = read(resnet, noise, [branch.branch])
    np.testing.assert_array_equal(after, intact)


@pytest.mark.parametrize(
    ("block", "branch", "message"),
    [
        (8, None, "no block 8 with a skip: its blocks are 0 to 7"),
        (-1, None, "no block -1"),
        (0, "conv", r"block 0 of zoo/vit-cls-noskip-early \(untrained\) has no branch 'conv', but: attention, mlp"),
        (1, None, r"block 1 of zoo/vit-cls-noskip-early \(untrained\) was trained without skips: there is none to"),
    ],
)
def test_no_such_skip(block, branch, message):
    model = load_model("zoo/vit-cls-noskip-early", "untrained", device="cpu")
    with left_as_it_was(model), pytest.raises(VitcnnError, match=message), without_skip(model, block, branch):
        pass
