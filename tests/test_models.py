import hashlib
import json
from contextlib import suppress
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from small_models import described, small_vit, stir
from textbook import left_as_it_was, noise_images
from torch import nn

from vitcnn_utils import zoo
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures import attention, cka, localization, probes, receptive_field, residual
from vitcnn_utils.models.load import load_model
from vitcnn_utils.models.trace import Tap


def untrained(name):
    return load_model(name, "untrained", device="cpu")


# What a model is


@pytest.mark.parametrize(
    ("name", "layers", "blocks", "branches", "attentions", "grid", "patch_size", "prefix_tokens", "image_size"),
    [
        ("vit_tiny_patch16_224", 74, 12, 24, 12, (14, 14), 16, 1, 224),
        ("deit_tiny_distilled_patch16_224", 74, 12, 24, 12, (14, 14), 16, 2, 224),
        ("resnet18", 46, 8, 8, 0, None, None, 0, 224),
        ("resnet50", 119, 16, 16, 0, None, None, 0, 224),
        ("zoo/vit-gap", 50, 8, 16, 8, (8, 8), 4, 0, 32),
        ("zoo/vit-cls-noskip-late", 50, 8, 16, 8, (8, 8), 4, 1, 32),
        ("zoo/vit-small-data-3", 38, 6, 12, 6, (8, 8), 4, 1, 32),
        ("zoo/resnet", 90, 12, 12, 0, None, None, 0, 32),
    ],
)
def test_facts(name, layers, blocks, branches, attentions, grid, patch_size, prefix_tokens, image_size):
    model = untrained(name)
    counts = len(model.layers), len(model.blocks), len(model.branches), len(model.attentions)
    assert counts == (layers, blocks, branches, attentions)
    assert (model.grid, model.patch_size, model.prefix_tokens) == (grid, patch_size, prefix_tokens)
    assert model.image_size == (image_size, image_size)
    assert model.num_classes == (10 if name.startswith("zoo/") else 1000)
    assert (model.name, model.weights) == (f"{name} (untrained)", "untrained, seed 0")
    assert not model.module.training
    depths = [layer.depth for layer in model.layers]
    assert (depths[0], depths[-1]) == (0, 1) and depths == sorted(depths)
    assert [layer.block for layer in model.blocks] == list(range(blocks))


def test_six_entries_a_transformer_block_and_seven_a_bottleneck(vit, resnet):
    of_block = [layer for layer in vit.layers if layer.block == 1]
    assert [layer.kind for layer in of_block] == ["norm", "attention", "norm", "mlp hidden", "mlp", "block"]
    of_unit = [layer.name for layer in resnet.layers if layer.block == 1]
    assert of_unit == [*(f"layer1.1.{part}{i}" for i in (1, 2, 3) for part in ("conv", "bn")), "layer1.1"]


def test_layers_of_other_models_are_their_convolutions_and_norms():
    model = described(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 2)))
    # Not the classifier: it gives nothing of any place in the image.
    assert [(layer.name, layer.kind) for layer in model.layers] == [("0", "conv"), ("1", "norm")]
    assert model.branches == []


@pytest.mark.parametrize(
    ("name", "size", "starts"),
    [
        # Behind the stem of a ResNet the resolution falls too; a block has that of its output, all of it.
        ("resnet18", 64, ["conv1", "stem", "layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]),
        ("resnetv2_50x1_bit", 64, ["stem.conv", "stem", *(f"stages.{i}.blocks.0.norm1" for i in (1, 2, 3))]),
        ("convnext_atto", 64, ["stem.0", *(f"stages.{i}.downsample.1" for i in (1, 2, 3))]),
        ("efficientnet_b0", 64, ["conv_stem", *(f"blocks.{i}.0.conv_pw" for i in (1, 2, 3, 5))]),
        (
            "swin_tiny_patch4_window7_224",
            224,
            ["patch_embed.proj", *(f"layers.{i}.downsample.norm" for i in "123")],
        ),
    ],
)
def test_a_stage_is_one_resolution(name, size, starts):
    model = load_model(name, "untrained", "cpu", image_size=size)
    stages = [layer.stage for layer in model.layers]
    assert stages == sorted(stages)
    assert [next(x.name for x in model.layers if x.stage == stage) for stage in sorted(set(stages))] == starts
    of_blocks = model.record(model.prepare(torch.zeros(1, size, size, 3, dtype=torch.uint8)), model.blocks)
    sides = [activation.shape[-1] for activation in of_blocks.values()]
    assert [side < before for before, side in pairwise(sides)] == [b.stage > a.stage for a, b in pairwise(model.blocks)]


def test_models_whose_blocks_have_the_same_tokens_have_no_stages(vit):
    for model in (vit, load_model("xcit_nano_12_p16_224", "untrained", "cpu", image_size=64)):
        assert {layer.stage for layer in model.layers} == {None}


def test_prepare_normalises_channel_by_channel(vit):
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    pixels[..., 1], pixels[..., 2] = 255, 51
    x = vit.prepare(pixels)
    assert x.shape == (2, 3, 32, 32)
    expected = [(0 - 0.5) / 0.2, (1 - 0.4) / 0.25, (0.2 - 0.3) / 0.4]
    torch.testing.assert_close(x[0, :, 7, 9], torch.tensor(expected))
    with pytest.raises(VitcnnError, match="takes images of 32 x 32 pixels, not 16 x 16: load them with size=32"):
        vit.prepare(pixels[:, :16, :16])


# Activations


def test_each_activation_is_its_own(resnet, noise):
    # timm's ReLUs and additions work in place: unless copied, bn1 would be read as what the ReLU made of it.
    x, truth, copy = resnet.prepare(torch.from_numpy(noise.pixels)), {}, deepcopy(resnet.module)
    names = {module: name for name, module in resnet.module.named_modules()}
    outputs = [layer for layer in resnet.layers if layer.tap.side == "output"]
    for layer in outputs:
        hook = lambda module, args, out, name=layer.name: truth.__setitem__(name, out.clone())  # noqa: E731
        copy.get_submodule(names[layer.tap.module]).register_forward_hook(hook)
    with torch.no_grad():
        copy(x)
    found = resnet.record(x, resnet.layers)
    reduced = resnet.reduce(x, resnet.layers, lambda name, z: (name, z.double().sum().item()))
    assert len(truth) == len(outputs) == len(resnet.layers) - 1  # all but the stem, which is an input
    for name, value in truth.items():
        assert torch.equal(found[name], value), name
        assert reduced[name] == (name, value.double().sum().item())
    assert all((found[layer.name] < 0).any() for layer in outputs if layer.kind == "norm")


def test_only_what_is_overwritten_is_copied(resnet, vit):
    for model in (resnet, vit):
        model.record(torch.zeros(1, 3, 32, 32), model.layers)
    overwritten = {layer.name for layer in resnet.layers if resnet._overwritten[layer.tap]}
    # ReLU in place after each norm; the last norm of a unit takes the shortcut in place.
    assert overwritten == {layer.name for layer in resnet.layers if layer.kind == "norm"}
    assert not any(vit._overwritten[layer.tap] for layer in vit.layers)


def test_layers_of_another_model(vit, noise):
    x, other = vit.prepare(torch.from_numpy(noise.pixels)), described(small_vit())
    for read in (vit.record, partial(vit.reduce, function=lambda name, z: 0)):
        with left_as_it_was(vit), left_as_it_was(other), pytest.raises(VitcnnError, match="small ViT does not run"):
            read(x, other.layers)


class Stages(nn.Module):
    """Channels last in the middle; one module is used for two activations."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 4, 4), nn.ReLU()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.act(self.conv(x)).permute(0, 2, 3, 1)
        return self.act(self.fc(self.norm(x)))


def test_maps_are_read_with_channels_first_and_at_the_call_that_is_asked_for(noise):
    model = described(Stages())
    module, x = model.module, model.prepare(torch.from_numpy(noise.pixels))
    norm = model.record(x, model.layers)["norm"]
    for _ in range(2):  # of each forward pass, whatever was before it
        with torch.no_grad(), model.reading([Tap(module.act, "output", 0), Tap(module.act, "output", 1)]) as values:
            last = module(x)
        assert torch.equal(values[0], module.act(module.conv(x)))
        assert torch.equal(values[1], last)
    expected = module.norm(values[0].permute(0, 2, 3, 1))
    assert torch.equal(norm, expected.permute(0, 3, 1, 2))
    assert torch.equal(model.spatial(norm), expected)


class Tokens(nn.Module):
    """Two blocks on the tokens of 8 x 8 pixels, as `twist` makes them, behind `prefix` others; `between` the blocks."""

    def __init__(self, prefix, twist, between=lambda x: x):
        super().__init__()
        self.cut, self.twist, self.between = nn.Conv2d(3, 6, 8, 8), twist, between
        self.prefix, self.first, self.second = nn.Parameter(torch.randn(1, prefix, 6)), Added(), Added()

    def forward(self, x):
        x = self.twist(self.cut(x))
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
        return self.second(self.between(self.first(x)))


class Added(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return x + self.fc(x)


@pytest.mark.parametrize(
    ("between", "outside"),
    [
        (lambda x: x * 2 + 1, ""),
        (lambda x: x + x.relu(), "the model itself"),
        (lambda x: (x @ x.mT).softmax(-1) @ x, "the model itself"),
    ],
)
def test_parts_outside_the_blocks_leave_no_blocks(between, outside, noise):
    model = described(Tokens(1, rows, between))
    assert model.outside == outside
    assert (len(model.blocks), len(model.branches), model.grid) == ((0, 0, None) if outside else (2, 2, (4, 4)))
    if outside:
        message = r"has no blocks that hold all its additions and attention \(the model itself is outside of them\)"
        with pytest.raises(VitcnnError, match=message):
            residual.skip_ratios(model, noise)


def rows(x):
    return x.flatten(2).transpose(1, 2)


TWISTS = {
    "rows": (rows, (4, 4)),
    "channels last": (lambda x: x.permute(0, 2, 3, 1).reshape(len(x), -1, 6), (4, 4)),
    "one put before them and taken off": (lambda x: torch.cat([torch.zeros(len(x), 1, 6), rows(x)], 1)[:, 1:], (4, 4)),
    "cropped": (lambda x: rows(x)[:, 7:], None),
    "shuffled": (lambda x: rows(x)[:, torch.randperm(16)], None),
    "windows": (lambda x: x.view(len(x), 6, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(len(x), -1, 6), None),
    "doubled": (lambda x: rows(torch.cat([x, x], 2)), None),
}


@pytest.mark.parametrize("prefix", [0, 1, 4, 9])
@pytest.mark.parametrize("twist", TWISTS)
def test_tokens_lie_where_the_forward_pass_puts_them(prefix, twist):
    # Never where their number would allow it: 9 + 16 = 25 is no grid of 5 x 5, nor is 9 in 16 one of 3 x 3.
    function, grid = TWISTS[twist]
    model = described(Tokens(prefix, function))
    assert (model.grid, model.prefix_tokens) == (grid, prefix if grid else 0)
    tokens = model.record(torch.zeros(2, 3, 32, 32), model.blocks)["second"]
    if grid:
        assert torch.equal(model.spatial(tokens), tokens[:, prefix:].reshape(2, 4, 4, 6))
        assert (model.patch_size, model.prefix_names) == (8, [f"register {i}" for i in range(prefix)])
    else:
        with pytest.raises(VitcnnError, match=r"has no grid .*; what works with it: layer similarity"):
            model.spatial(tokens)


# Loading


def test_untrained_weights_follow_from_the_seed_and_leave_the_generators_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # torch would warn to fork these, which is an error here
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, same, other = (load_model("test_vit", "untrained", "cpu", seed=seed) for seed in (0, 0, 1))
    assert torch.rand(1) == expected
    weight = "blocks.0.attn.qkv.weight"
    assert torch.equal(one.module.get_parameter(weight), same.module.get_parameter(weight))
    assert not torch.equal(one.module.get_parameter(weight), other.module.get_parameter(weight))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tyny_patch16_224", "timm has no model 'vit_tyny_patch16_224'; did you mean vit_tiny_patch16_224"),
        ("zoo/vit-clss", "no zoo model 'zoo/vit-clss'; did you mean zoo/vit-cls"),
        ("qqqqqqqq", r"timm has no model 'qqqqqqqq'; give one of timm.list_models\(\), 'hf-hub:OWNER/NAME', or a zoo"),
        ("ResNet50", "timm has no model 'ResNet50'; did you mean resnet50 "),
        ("timm/resnet50.a1_in1k", "; one of the hub is called 'hf-hub:timm/resnet50.a1_in1k'; did you mean resnet50 "),
        ("./a.safetensors", "timm has no model './a.safetensors'; give one of"),
        (None, "^'None' is not a name of a model; give one of"),
        ("a" * 5000, "^'a{200}' is not a name of a model; give one of"),
        ({"weights": "a"}, "^'None' is not a name of a model"),
        ({"name": "test_vit", "wights": "a"}, "a model has no 'wights': give its name, and if need be weights and"),
        ("test_vit.nonsense", "timm has no weights 'nonsense' of test_vit, but: r160_in1k"),
        ("hf-hub:a/b/c", "'a/b/c' is not the name of a model on the hub"),
    ],
)
@pytest.mark.parametrize("weights", [None, "untrained"])
def test_unknown_models(name, message, weights):
    with pytest.raises(VitcnnError, match=message):
        load_model(name, weights, "cpu")


def test_no_published_weights():
    with pytest.raises(VitcnnError, match="no weights are published for vit_base_patch16_gap_224 on the hub: give"):
        load_model("vit_base_patch16_gap_224", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"device": device}, "device .* cannot be used") for device in ([], "", "tpu", "xla")),
        *(({"seed": seed}, "seed=.*: it must be a whole number, 0 to 9223372036854775807")
          for seed in (-1, 2**63, 1.5, "0", True, None)),
        *(({"image_size": size}, "image_size=.*: it must be a whole number, 1 to 4096")
          for size in (0, -16, 4097, 1.5, "64", True)),
        *(({"weights": weights}, "there is no file of weights .{1,210}")
          for weights in ("~nouser/x.safetensors", "a" * 5000, "a\0b", "", Path("nowhere"))),
        *(({"weights": weights}, "weights=.*: give None, 'untrained', or the path of a safetensors file")
          for weights in (5, True, ["a"])),
    ],
)  # fmt: skip
def test_arguments_that_mean_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VitcnnError, match=f"^{message}") as caught:
        load_model("test_vit", **{"weights": "untrained", "device": "cpu", **arguments})
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


# Weights of one's own


def same_weights(model, module):
    state = model.module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "classes", "prefix"),
    [
        ("test_vit", 1000, ""), ("test_vit", 19, "module."), ("test_vit", 0, "model."),
        ("test_vit", 19, "_orig_mod.module."), ("test_vit", 1000, "timm_model."),
        ("deit_tiny_distilled_patch16_224", 7, ""), ("resnet18", 0, ""), ("convnext_atto", 7, ""),
        ("mixer_s32_224", 0, ""), ("zoo/vit-small-data-3", 10, "module."), ("zoo/resnet", 3, ""),
        ("zoo/vit-gap", 0, ""),
    ],
)  # fmt: skip
def test_the_number_of_classes_is_that_of_the_file(name, classes, prefix, tmp_path):
    module, file = stir(untrained(name).module), tmp_path / "mine.safetensors"
    module.reset_classifier(classes)
    save_file({prefix + key: value for key, value in module.state_dict().items()}, file)
    model = load_model(name, file, "cpu")
    assert (model.name, model.num_classes) == (name, classes)
    assert model.weights == hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    same_weights(model, module)
    # No weights stay in memory beside the model.
    config = getattr(model.module, "pretrained_cfg", {})
    assert not any(isinstance(value, dict) and "head.weight" in value for value in config.values())


def test_a_model_as_an_edition_writes_it(tmp_path, monkeypatch):
    module = stir(timm.create_model("test_vit", num_classes=3, img_size=96))
    save_file(module.state_dict(), tmp_path / "model.safetensors")  # as `save_pretrained` calls it
    vit = {"name": "test_vit", "weights": str(tmp_path), "image_size": 96}
    model = load_model(vit, device="cpu")
    assert (model.name, model.num_classes, model.image_size) == ("test_vit", 3, (96, 96))
    assert model.weights == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()[:12]
    twin = load_model(vit, "untrained", "cpu", seed=1, image_size=64)
    assert (twin.name, twin.weights, twin.image_size) == ("test_vit (untrained)", "untrained, seed 1", (64, 64))
    assert load_model({"name": "test_vit", "weights": "untrained"}, device="cpu").image_size == (160, 160)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_model("test_vit", "~/model.safetensors", "cpu", image_size=96).weights == model.weights


def quantised(name, dtype):
    state = untrained(name).module.state_dict()
    key = "blocks.0.mlp.fc1.weight"
    return save(state | {key: state[key].to(dtype)})


NOT_READ = r"mine.safetensors is not a safetensors file, and nothing else is loaded"
QUANTISED = (
    r"blocks.0.mlp.fc1.weight in .*mine.safetensors is {}: weights that are quantised are not read, give them as"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda name: b"weights", NOT_READ),
        (lambda name: b"", NOT_READ),
        (lambda name: save(untrained("test_resnet").module.state_dict()), "mine.safetensors do not fit {name}: "),
        (lambda name: save({}), "there are no weights in"),
        (lambda name: save({"head.weight": torch.tensor(1.0)}), "the weights in"),
        (lambda name: save({"a": torch.zeros(3)}), "the weights in"),
        *((partial(quantised, dtype=dtype), QUANTISED.format(str(dtype)[6:]))
          for dtype in (torch.int8, torch.int64, torch.float8_e4m3fn)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["test_vit", "zoo/vit-cls"])
def test_files_that_hold_no_weights_of_the_model(name, content, message, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(content(name))
    with pytest.raises(VitcnnError, match=message.replace("{name}", name)) as caught:
        load_model(name, tmp_path / "mine.safetensors", "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_files_that_hold_no_weights_of_models_that_timm_converts(name, tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "mine.safetensors")
    with pytest.raises(VitcnnError, match=f"^the weights in .*mine.safetensors do not fit {name}: "):
        load_model(name, tmp_path / "mine.safetensors", "cpu")


def test_weights_of_the_zoo_are_loaded_as_their_card_says(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    name, weights = "zoo/vit-small-data-3", tmp_path / "vit-small-data-3.safetensors"

    def refuse(message):
        with pytest.raises(VitcnnError, match=message):
            load_model(name, device="cpu")

    refuse(f"{name} is not trained yet: run `vitcnn train {name}`")
    source = load_model(name, "untrained", "cpu", seed=5)
    half = {key: value.half() for key, value in source.module.state_dict().items()}
    save_file(half, weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    # Trained when the table had other heads, by a recipe of other words. The weights fit either.
    card = {"name": name, "sha256": sha256, "recipe": {"family": "vit-small", "heads": 2, "ema_decay": 0.0}}
    (tmp_path / "vit-small-data-3.json").write_text(json.dumps(card))
    for model in (load_model(name, device="cpu"), untrained(name)):
        assert [block.num_heads for block in model.attentions] == [2] * 6
    found = load_model(name, device="cpu").module.state_dict()
    assert all(value.dtype == torch.float32 for value in found.values())
    assert torch.equal(found["head.weight"].half(), half["head.weight"])

    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    refuse("is damaged: its sha256 is not that of its card")
    weights.unlink()
    refuse("is missing, though its card is there")


class Payload:
    """A pickle that makes a file when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("file", ["mine.safetensors", "mine.pt"])
def test_whatever_a_file_is_called_it_is_read_as_safetensors(file, tmp_path):
    module, path, marker = untrained("test_vit").module, tmp_path / file, tmp_path / "was run"
    save_file(module.state_dict(), path)
    same_weights(load_model("test_vit", path, "cpu"), module)
    torch.save(Payload(marker), path)
    with pytest.raises(VitcnnError, match=f"{file} is not a safetensors file, and nothing else is loaded"):
        load_model("test_vit", path, "cpu")
    assert not marker.exists()


def test_position_embeddings_are_resampled_for_another_size(tmp_path):
    source = load_model("test_vit", "untrained", "cpu", seed=5)
    save_file(source.module.state_dict(), tmp_path / "mine.safetensors")
    model = load_model("test_vit", tmp_path / "mine.safetensors", "cpu", image_size=96)
    assert (model.image_size, model.grid, source.grid) == ((96, 96), (6, 6), (10, 10))
    resampled = timm.layers.resample_abs_pos_embed(source.module.pos_embed, (6, 6))
    torch.testing.assert_close(model.module.pos_embed, resampled)
    weight = "blocks.0.attn.qkv.weight"
    assert torch.equal(model.module.get_parameter(weight), source.module.get_parameter(weight))


@pytest.mark.parametrize(
    ("name", "size"),
    [("test_resnet", 64), ("zoo/resnet", 64), ("test_vit", 96), ("test_vit", 160), ("zoo/vit-cls", 32)],
)
def test_images_of_another_size_if_asked(name, size):
    model, unasked = load_model(name, "untrained", "cpu", image_size=size), untrained(name)
    assert model.image_size == (size, size)
    assert model.record(model.prepare(torch.from_numpy(noise_images(2, size=size).pixels)), model.blocks)
    if size == unasked.image_size[0]:
        for key, value in unasked.module.state_dict().items():
            assert torch.equal(model.module.state_dict()[key], value)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("test_vit", 100, r"test_vit takes no images of image_size=100 .*: the model was made for 160"),
        ("zoo/vit-cls", 100, r"zoo/vit-cls takes no images of image_size=100 .*: the model was made for 32"),
        ("vit_small_patch14_reg4_dinov2", 416, ".* cannot be divided: give image_size=406 or 420"),
        ("deit_tiny_patch16_224", 34, ".* cannot be divided: give image_size=32 or 48"),
        ("mixer_s32_224", 72, ".* cannot be divided: give image_size=64 or 96"),
    ],
)
def test_a_size_that_a_model_does_not_take(name, size, message):
    with pytest.raises(VitcnnError, match=f"^{message}$"):
        load_model(name, "untrained", "cpu", image_size=size)


def test_weights_that_depend_on_the_size(tmp_path):
    save_file(untrained("gmixer_12_224").module.state_dict(), tmp_path / "mixer.safetensors")
    with pytest.raises(VitcnnError, match="do not fit gmixer_12_224 at image_size=96: "):
        load_model("gmixer_12_224", tmp_path / "mixer.safetensors", "cpu", image_size=96)


# What every measure owes the model


def without_skip(model, images):
    with residual.without_skip(model, 1):
        model.module(model.prepare(torch.from_numpy(images.pixels[:4])))


LAYERS = ["blocks.0.attn", "blocks.2.mlp"]

MEASURES = {
    "layer similarity": lambda m, images: cka.layer_similarity(m, m, images, batch_size=6),
    "head distances": lambda m, images: attention.head_distances(m, images, batch_size=4),
    "attention maps": lambda m, images: attention.attention_maps(m, images, 4),
    "head subsets": lambda m, images: attention.head_subset_similarity(m, m, images, sizes=(2,)),
    "receptive fields": lambda m, images: receptive_field.effective_receptive_fields(m, images, LAYERS, channels=2),
    "fields of branches": lambda m, images: receptive_field.effective_receptive_fields(m, images, LAYERS, True, 2),
    "skip ratios": lambda m, images: residual.skip_ratios(m, images, batch_size=4),
    "without skip": without_skip,
    "token-patch similarity": lambda m, images: localization.layer_patch_similarity(m, images),
    "probes": lambda m, images: probes.layer_probes(m, images, shots=1, draws=1),
}


@pytest.fixture
def some():
    """Enough labelled images for every measure."""
    return noise_images(40, classes=2)


@pytest.fixture
def caller(vit):
    """Fails if a measure leaves traces: in the model, in the caller's gradient mode, or in torch's function modes."""
    vit.module.blocks[0].attn.fused_attn = False
    vit.module.blocks[0].mlp.fc1.weight.requires_grad_(False)
    vit.module.blocks[1].train()  # nothing random in it, so that this cannot matter to the result
    with left_as_it_was(vit):
        yield vit
        assert torch.is_grad_enabled()
        assert torch._C._len_torch_function_stack() == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_success_leaves_no_trace(measure, caller, some):
    MEASURES[measure](caller, some)
    with torch.no_grad():
        MEASURES[measure](caller, some)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("measure", MEASURES)
def test_images_of_another_size_leave_no_trace(measure, caller):
    with pytest.raises(VitcnnError, match="takes images of 32 x 32 pixels, not 48 x 48"):
        MEASURES[measure](caller, noise_images(40, size=48, classes=2))


@pytest.mark.parametrize("measure", [name for name in MEASURES if name != "without skip"])  # which gives no numbers
def test_nan_in_a_layer_is_named_and_leaves_no_trace(measure, vit, some):
    nn.init.constant_(vit.module.blocks[0].mlp.fc2.bias, np.nan)
    with left_as_it_was(vit), pytest.raises(VitcnnError, match=r"NaN or Inf in .*blocks\.\d.* of small ViT"):
        MEASURES[measure](vit, some)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_crash_inside_the_model_leaves_no_trace(measure, caller, some, monkeypatch, at):
    calls = []
    mlp = caller.module.blocks[1].mlp
    forward = mlp.forward

    def crash(x):
        calls.append(1)
        if len(calls) == at:
            raise RuntimeError("inside the model")
        return forward(x)

    monkeypatch.setattr(mlp, "forward", crash)
    # Some measures need one pass only, and then there is no second one to crash in.
    with suppress(RuntimeError):
        MEASURES[measure](caller, some)
    assert 1 <= len(calls) <= at
