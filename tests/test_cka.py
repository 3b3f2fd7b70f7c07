from contextlib import nullcontext

import numpy as np
import pytest
import torch
import xarray as xr
from textbook import biased_cka, cka, noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures.cka import STRIP, WIDTH, centred_gram, hsic, layer_similarities, layer_similarity, linear_cka
from vitcnn_utils.measures.cka import cka as cka_of
from vitcnn_utils.models.load import load_model
from vitcnn_utils.run import minibatches


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def related(rng, n=40, p=30, q=20):
    """Two representations with something in common."""
    x = rng.normal(size=(n, p))
    return x, x[:, :q] + rng.normal(size=(n, q))


def cka32(x, y):
    """The float32 route that the layers of a model take."""
    return cka_of([hsic_of(*(torch.from_numpy(np.asarray(v, dtype=np.float32)) for v in (x, y)))])[0, 0]


def hsic_of(x, y, clip_norms=False):
    """HSIC of one minibatch of two representations."""
    return hsic(*(centred_gram(v, clip_norms=clip_norms)[None] for v in (x, y)))


# Linear CKA


def test_textbook(rng):
    for n, p, q in [(4, 3, 2), (5, 1, 1), (7, 40, 3), (40, 30, 20), (41, 2500, 9), (300, 30, 20)]:
        x, y = rng.normal(size=(n, p)) + 1, rng.normal(size=(n, q))
        y[:, 0] += x[:, 0]
        expected = cka([x], [y])
        assert linear_cka(x, y) == pytest.approx(expected, abs=1e-12)
        assert cka32(x, y) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("n", [STRIP - 1, STRIP, 2 * STRIP + 3])
@pytest.mark.parametrize("p", [5, WIDTH - 1, WIDTH + 1])
def test_strips_and_columns_that_do_not_fill(rng, n, p, monkeypatch):
    x, y = related(rng, n, p, 4)
    expected = cka([x], [y])
    assert cka32(x, y) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(torch.ops, "mkldnn", object())  # nor without oneDNN
    assert cka32(x, y) == pytest.approx(expected, abs=1e-6)


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "every other column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "channels last": lambda x: x.reshape(len(x), 3, 5, 2).contiguous(memory_format=torch.channels_last),
    "inside a larger one": lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4))[1:-4, 3:-2],
    "with gradients": lambda x: x.clone().requires_grad_(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_however_features_lie_in_memory(rng, layout, dtype):
    x = torch.from_numpy(rng.normal(size=(70, 30))).to(dtype)
    expected = centred_gram(x)
    for mode in (nullcontext(), torch.inference_mode()):
        with mode:
            found = centred_gram(LAYOUTS[layout](x))
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("clip_norms", [False, True])
def test_other_kinds_of_numbers_are_those_that_they_stand_for(rng, dtype, clip_norms):
    """Norms that float16 cannot hold are clipped all the same."""
    x = torch.from_numpy(1000 * rng.normal(size=(30, 400)))
    x[3] *= 20
    x = x.to(dtype)
    exact = centred_gram(x.double(), clip_norms=clip_norms)
    assert (centred_gram(x, clip_norms=clip_norms) - exact).norm() < 1e-5 * exact.norm()


def test_rotation_scale_and_shift_change_nothing(rng):
    x, y = related(rng)
    rotation, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    expected = linear_cka(x, y)
    assert 0.1 < expected < 0.9
    assert linear_cka(x @ rotation, y) == pytest.approx(expected, abs=1e-12)
    assert linear_cka(-1e4 * x, 1e-4 * y) == pytest.approx(expected, abs=1e-12)
    assert linear_cka(x + 100, y - 7) == pytest.approx(expected, abs=1e-12)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-14)


def test_axes_after_the_first_are_flattened(rng):
    x, y = related(rng)
    assert linear_cka(x.reshape(40, 5, 3, 2), y) == linear_cka(x, y)
    assert linear_cka(x[:, 0], y) == linear_cka(x[:, :1], y)


@pytest.mark.parametrize("shift", [0, 10, 100])
def test_a_large_mean_does_no_harm_in_float32(rng, shift):
    x, y = related(rng, n=128, p=300, q=200)
    assert cka32(x + shift, y + shift) == pytest.approx(cka([x], [y]), abs=1e-5)


def test_independent_features_are_near_zero_where_the_biased_estimate_is_near_one(rng):
    x, y = rng.normal(size=(128, 4096)), rng.normal(size=(128, 4096))
    assert abs(linear_cka(x, y)) < 0.02
    assert biased_cka(x, y) > 0.95
    many = [linear_cka(rng.normal(size=(16, 64)), rng.normal(size=(16, 64))) for _ in range(400)]
    assert abs(np.mean(many)) < 4 * np.std(many) / 20


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
@pytest.mark.parametrize("n", [20, 1000])  # the float32 mean of many equal numbers is not that number
def test_constant_is_nan(rng, n, value):
    x, constant = rng.normal(size=(n, 7)), np.full((n, 7), value)
    but_for_rounding = constant * (1 + 1e-7 * rng.uniform(-1, 1, size=(n, 7)))
    assert np.isnan(linear_cka(x, constant))
    assert np.isnan([cka32(x, constant), cka32(constant, constant), cka32(x, but_for_rounding)]).all()
    assert np.isnan([linear_cka(x, x[:, :0]), cka32(x, x[:, :0])]).all()  # no features at all


def test_small_but_not_constant_is_no_nan(rng):
    x, y = related(rng)
    assert cka32(1e-4 * x + 1, y) == pytest.approx(cka([x], [y]), abs=1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e200])
def test_nan_and_inf_are_reported_by_name(rng, bad):
    x = torch.from_numpy(rng.normal(size=(10, 3)))
    x[4, 1] = bad
    with pytest.raises(VitcnnError, match=r"NaN or Inf in blocks\.3"):
        centred_gram(x, "blocks.3")


def test_images_that_are_too_few_or_not_the_same(rng, zoo_vit):
    with pytest.raises(VitcnnError, match="same images"):
        linear_cka(rng.normal(size=(10, 3)), rng.normal(size=(11, 3)))
    with pytest.raises(VitcnnError, match="at least 4"):
        linear_cka(rng.normal(size=(3, 3)), rng.normal(size=(3, 3)))
    with pytest.raises(VitcnnError, match="at least 4 images a batch, not 3 images of noise"):
        layer_similarity(zoo_vit, zoo_vit, noise_images(3))
    with pytest.raises(VitcnnError, match="batch_size=3"):
        layer_similarity(zoo_vit, zoo_vit, noise_images(8), batch_size=3)


# Sums over minibatches


def test_sums_come_before_the_ratio(rng):
    batches = [(scale * x, y / scale) for n, scale in ((6, 1), (20, 4), (9, 2)) for x, y in [related(rng, n)]]
    value = cka_of([hsic_of(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches])[0, 0]
    assert value == pytest.approx(cka(*zip(*batches, strict=True)), abs=1e-12)
    assert value != pytest.approx(np.mean([cka([x], [y]) for x, y in batches]), abs=1e-3)


def test_clipped_norms(rng, zoo_resnet):
    x, y = related(rng, n=30)
    x[3] *= 50
    norms = np.linalg.norm(x, axis=1)
    clipped = x * np.minimum(1, np.sort(norms)[14] / norms)[:, None]
    gram_x, gram_y = (centred_gram(torch.from_numpy(v), clip_norms=c) for v, c in ((x, True), (y, False)))
    assert cka_of([hsic(gram_x[None], gram_y[None])])[0, 0] == pytest.approx(cka([clipped], [y]), abs=1e-12)
    model, images = zoo_resnet, noise_images(12)
    of_layers, of_clipped = (
        layer_similarity(model, model, images, 12, model.blocks, model.blocks, clip_norms=c) for c in (False, True)
    )
    assert (of_layers.attrs["clip_norms"], of_clipped.attrs["clip_norms"]) == (0, 1)
    assert np.abs(of_layers - of_clipped).max() > 1e-4


# Layers of models


def recorded(model, images, layers, batch_size):
    """Activations by layer, a list of minibatches each, float64."""
    batches = [model.record(model.prepare(p), layers) for p in minibatches(images, batch_size, 0, "")]
    return {layer.name: [b[layer.name].double().numpy() for b in batches] for layer in layers}


def flat(xs):
    return [x.reshape(len(x), -1) for x in xs]


def test_two_models_against_the_textbook(zoo_vit, zoo_resnet):
    images = noise_images(17)
    layers_a = zoo_vit.layers[3:12:4]
    layers_b = [zoo_resnet.layer(name) for name in ("bn1", "layer2.1.conv2", "layer4.2")]
    result = layer_similarity(zoo_vit, zoo_resnet, images, 6, layers_a, layers_b)
    a, b = recorded(zoo_vit, images, layers_a, 6), recorded(zoo_resnet, images, layers_b, 6)
    for x in layers_a:
        for y in layers_b:
            value = result.sel(layer_a=x.name, layer_b=y.name).item()
            assert value == pytest.approx(cka(flat(a[x.name]), flat(b[y.name])), abs=1e-5)
    for side, layers, blocks in (("a", layers_a, [0, 1, 1]), ("b", layers_b, [-1, 4, 11])):
        assert result[f"layer_{side}"].values.tolist() == [layer.name for layer in layers]
        assert result[f"kind_{side}"].values.tolist() == [layer.kind for layer in layers]
        assert result[f"depth_{side}"].values.tolist() == [layer.depth for layer in layers]
        assert result[f"block_{side}"].values.tolist() == blocks
    assert (result.attrs["model_b"], result.attrs["batch_size"]) == ("zoo/resnet (untrained)", 6)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_all_layers_of_one_model(name, request):
    model = request.getfixturevalue(f"zoo_{name}")
    result = layer_similarity(model, model, noise_images(12), batch_size=6)
    assert result.shape == (len(model.layers), len(model.layers))
    np.testing.assert_allclose(np.diag(result), 1, atol=1e-12)
    np.testing.assert_allclose(result, result.T, atol=1e-12)
    assert np.isfinite(result).all()
    twin = load_model(f"zoo/{'vit-cls' if name == 'vit' else 'resnet'}", "untrained", device="cpu")
    twin.module.load_state_dict(model.module.state_dict())
    np.testing.assert_allclose(result, layer_similarity(model, twin, noise_images(12), batch_size=6), atol=1e-6)


def test_three_maps_of_two_models_in_one_pass(zoo_vit, zoo_resnet):
    images = noise_images(12)
    how = {"batch_size": 6, "seed": 3, "left_out": True, "clip_norms": True}
    pairs = (zoo_vit, zoo_vit), (zoo_resnet, zoo_resnet), (zoo_vit, zoo_resnet)
    for found, (a, b) in zip(layer_similarities(zoo_vit, zoo_resnet, images, **how), pairs, strict=True):
        xr.testing.assert_identical(found, layer_similarity(a, b, images, **how))


def test_one_model_runs_once_a_batch(zoo_vit, monkeypatch):
    calls = []
    monkeypatch.setattr(type(zoo_vit.module), "forward_head", lambda self, x: calls.append(len(x)) or x)
    layer_similarity(zoo_vit, zoo_vit, noise_images(12), 6, zoo_vit.layers[:2], zoo_vit.blocks)
    assert calls == [1, 6, 6]  # the first image alone shows how many fit in memory


def test_which_tokens(zoo_vit, zoo_resnet):
    images = noise_images(10)
    layers = zoo_vit.blocks[2:4]
    batches = recorded(zoo_vit, images, layers, 10)
    chosen = {"all": slice(None), "spatial": slice(1, None)}
    values = {}
    for tokens, part in chosen.items():
        x, y = (flat([b[:, part] for b in batches[layer.name]]) for layer in layers)
        values[tokens] = layer_similarity(zoo_vit, zoo_vit, images, 10, layers, layers, tokens=tokens).values[0, 1]
        assert values[tokens] == pytest.approx(cka(x, y), abs=1e-5)
    assert len({round(v, 6) for v in values.values()}) == 2
    # A map has no tokens and stays whole.
    maps = zoo_resnet.blocks[:1]
    y = flat(recorded(zoo_resnet, images, maps, 10)["layer1.0"])
    beside_a_map = layer_similarity(zoo_vit, zoo_resnet, images, 10, layers[:1], maps, tokens="spatial")
    assert beside_a_map.item() == pytest.approx(cka(flat([batches["blocks.2"][0][:, 1:]]), y), abs=1e-5)
    with pytest.raises(VitcnnError, match="tokens='class'"):
        layer_similarity(zoo_vit, zoo_vit, images, tokens="class")
