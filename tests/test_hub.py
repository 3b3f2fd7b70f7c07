"""Models from a hub on 127.0.0.1 that has real names and real faults, through timm's and the hub's own clients."""

import hashlib
import json
import logging
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from hub_server import COMMIT, Fault, redirect, serve
from safetensors.torch import save_file
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.models.facts import Model
from vitcnn_utils.models.load import load_model

NAME = "test_vit.r160_in1k"
WEIGHTS = "content/timm/test_vit.*safetensors"


class Hub:
    """Where the hub's files lie, what goes wrong with it, what it was asked, and for how long we waited."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.monkeypatch = root, monkeypatch
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.waits: list[float] = []

    def goes_away(self) -> None:
        """From then on nobody answers."""
        redirect(self.monkeypatch, "http://127.0.0.1:9")

    def publish(self, repository: str, module: nn.Module, **config: object) -> None:
        folder = self.root / repository
        folder.mkdir(parents=True)
        save_file(module.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, an empty cache, and no real waiting."""
    hub = Hub(tmp_path / "hub", monkeypatch)
    hub.publish(f"timm/{NAME}", with_random_weights("test_vit", seed=5))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "sleep", hub.waits.append)
    with serve(hub.root, hub.faults, hub.log) as endpoint:
        redirect(monkeypatch, endpoint)
        yield hub


def with_random_weights(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name)


def assert_published(model: Model, hub: Hub, repository: str = f"timm/{NAME}") -> None:
    """The weights of the model are those that the hub has."""
    from safetensors.torch import load_file

    published = load_file(hub.root / repository / "model.safetensors")
    state = model.module.state_dict()
    assert published.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in published.items())


def refusal(name: str = NAME, *arguments: object, **keywords: object) -> str:
    """The message with which `load_model` refuses; it must be one line."""
    with pytest.raises(VitcnnError) as caught:
        load_model(name, *arguments, device="cpu", **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cached(tmp_path: Path) -> list[str]:
    """Every file of weights in the hub's cache, whole or in part."""
    return [path.name for path in (tmp_path / "cache").rglob("*") if "blobs" in path.parts and path.is_file()]


# One run online is enough


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k_ft_in1k", "resnet18.a1_in1k"])
def test_real_names(hub, name):
    hub.publish(f"timm/{name}", with_random_weights(name.partition(".")[0], seed=1))
    model = load_model(name, device="cpu")
    assert_published(model, hub, f"timm/{name}")
    published = (hub.root / f"timm/{name}/model.safetensors").read_bytes()
    assert model.weights == hashlib.sha256(published).hexdigest()[:12]
    assert {line.rpartition("/")[2] for line in hub.log if name in line} == {"model.safetensors"}
    hub.log.clear()
    hub.goes_away()
    assert_published(load_model(name, device="cpu"), hub, f"timm/{name}")
    assert (hub.log, hub.waits) == ([], [])


def test_repository_by_its_own_name(hub, monkeypatch):
    hub.publish("me/mine", with_random_weights("test_resnet", seed=2), architecture="test_resnet", num_classes=1000)
    for name in ("hf-hub:me/mine", "hf-hub:me/mine@main", f"hf-hub:me/mine@{COMMIT}"):
        assert_published(load_model(name, device="cpu"), hub, "me/mine")
        hub.log.clear()
        assert_published(load_model(name, device="cpu"), hub, "me/mine")
        load_model(name, "untrained", device="cpu")
        assert hub.log == [], "once is enough"
    assert "hf-hub:me/mine@v2 could not be fetched from the hub (me/mine@v2: no such revision)" in refusal(
        "hf-hub:me/mine@v2"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.goes_away()
    assert_published(load_model("hf-hub:me/mine", device="cpu"), hub, "me/mine")


def test_facts_come_from_the_configuration_of_a_repository(hub):
    config = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.3, 0.2, 0.1], "fixed_input_size": True}
    module = timm.create_model("test_vit", img_size=96, num_classes=7)
    hub.publish(
        "me/seven", module, architecture="test_vit", num_classes=7, model_args={"img_size": 96}, pretrained_cfg=config
    )
    model = load_model("hf-hub:me/seven", device="cpu")
    assert (model.image_size, model.num_classes, model.grid) == ((96, 96), 7, (6, 6))
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (0.3, 0.2, 0.1))
    assert model.record(model.prepare(torch.zeros(1, 96, 96, 3, dtype=torch.uint8)), model.blocks)


def test_weights_of_ones_own_for_a_repository(hub, tmp_path):
    hub.publish("me/mine", with_random_weights("test_resnet", seed=2), architecture="test_resnet")
    other = with_random_weights("test_resnet", seed=3)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    model = load_model("hf-hub:me/mine", tmp_path / "other.safetensors", device="cpu")
    assert torch.equal(model.module.conv1[0].weight, other.conv1[0].weight)
    assert not any("model.safetensors" in line for line in hub.log)


# Faults that pass


PASSING = {
    "too many requests": (Fault("HEAD .*resolve", 1, 429, {"Retry-After": "7"}), [8]),
    "too many requests, in other words": (Fault("HEAD .*resolve", 1, 429, {"RateLimit": '"resolvers";r=0;t=20'}), [21]),
    "too many requests of content": (Fault(WEIGHTS, 1, 429, {"Retry-After": "7"}), [8]),
    "down for a while": (Fault("HEAD .*resolve", 3, 503), [1, 5, 20]),
    "no content for a while": (Fault(WEIGHTS, 2, 503), [1, 5]),
    "broken off": (Fault(WEIGHTS, 1, cut=1000), [1]),
    "broken off before the first byte": (Fault(WEIGHTS, 1, cut=0), [1]),
    "reset": (Fault(WEIGHTS, 1, cut=1000, reset=True), [1]),
    "damaged": (Fault(WEIGHTS, 1, flip=True), [1]),
    "damaged twice": (Fault(WEIGHTS, 2, flip=True), [1, 5]),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSING)
def test_faults_that_pass(hub, caplog, case):
    fault, waits = PASSING[case]
    hub.faults.append(fault)
    # The hub's client speaks through a logger of its own, which hands nothing on.
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)
    assert_published(load_model(NAME, device="cpu"), hub)
    logging.getLogger("huggingface_hub").removeHandler(caplog.handler)
    assert fault.times == 0
    assert hub.waits == waits
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) >= len(waits)


def test_a_download_that_stalls_is_asked_for_again(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.faults.append(Fault(WEIGHTS, 1, stall=0.5))
    assert_published(load_model(NAME, device="cpu"), hub)
    assert hub.waits[0] == 1


def test_a_download_that_breaks_off_is_resumed(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 500)  # it is resumed in whole chunks
    hub.faults += [Fault(WEIGHTS, 1, cut=1000), Fault(WEIGHTS, 1, cut=5000)]
    assert_published(load_model(NAME, device="cpu"), hub)
    assert [line.split()[-1] for line in hub.log if "bytes=" in line] == ["bytes=1000-", "bytes=6000-"]


# Faults that stay


GATED = {"X-Error-Code": "GatedRepo"}
STAYING = {
    "no such model": (Fault(".", status=404, headers={"X-Error-Code": "RepoNotFound"}), "no public model timm/"),
    "gated": (Fault(".", status=401, headers=GATED), "gated: accept its conditions on its page"),
    "gated, logged in": (Fault(".", status=403, headers=GATED), "gated: accept its"),
    "forbidden": (Fault(".", status=403), "the hub refuses access"),
    "too many requests": (Fault(".", status=429, headers={"Retry-After": "3600"}), "the hub asks to wait 3600 s"),
    "down": (Fault(".", status=503), "the hub answers 503"),
    "no content": (Fault("/content/", status=500), "the hub answers 500"),
    "no hub but a portal": (Fault(".", status=200), "does not seem to be served by a Hugging Face Hub"),
    "broken off": (Fault(WEIGHTS, cut=0), "peer closed connection"),
    "damaged": (Fault(WEIGHTS, flip=True), "what arrives is damaged: its SHA-256 is not"),
}  # fmt: skip


@pytest.mark.parametrize("case", STAYING)
def test_faults_that_stay(hub, tmp_path, case):
    fault, message = STAYING[case]
    hub.faults.append(fault)
    assert message in refusal()
    assert sum(hub.waits) < 200
    assert cached(tmp_path) == []
    hub.faults.clear()
    assert_published(load_model(NAME, device="cpu"), hub)


@pytest.mark.parametrize(("name", "weights"), [(NAME, None), ("hf-hub:me/x", None), ("hf-hub:me/x", "untrained")])
def test_no_network(hub, name, weights):
    hub.goes_away()
    message = refusal(name, weights)
    assert f"{name} could not be fetched from the hub (" in message
    assert "ConnectError: " in message
    # That works whatever was asked for: untrained, a model of the hub needs its configuration.
    assert message.endswith("or a timm name with weights='untrained' or a safetensors file")
    assert hub.waits == []  # its client would ask for 20 seconds


def test_forbidden_to_ask(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "not on this machine, and HF_HUB_OFFLINE forbids to ask" in refusal()
    assert hub.log == []


def test_no_space_is_no_fault_of_the_hub(hub, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.move", full)
    assert "No space left on device" in refusal()
    assert hub.waits == []


# What lies in the cache


@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lambda content: content[:-1] + b"\xff"])
def test_damaged_weights_in_the_cache_are_not_used(hub, tmp_path, damage, caplog):
    load_model(NAME, device="cpu")
    (link,) = (tmp_path / "cache").rglob("model.safetensors")
    weights = link.resolve()
    weights.write_bytes(damage(weights.read_bytes()))
    assert_published(load_model(NAME, device="cpu"), hub)
    assert "is damaged: it is fetched again" in caplog.text
    weights.write_bytes(damage(weights.read_bytes()))
    hub.goes_away()
    assert "could not be fetched from the hub" in refusal()


def test_half_a_file_in_a_cache_without_links_is_refused(hub, tmp_path):
    load_model(NAME, device="cpu")
    (path,) = (tmp_path / "cache").rglob("model.safetensors")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    assert "model.safetensors is not a safetensors file" in refusal()


# What is no model


def test_pickles_are_not_even_fetched(hub):
    (hub.root / "me/pickle").mkdir(parents=True)
    (hub.root / "me/pickle/config.json").write_text('{"architecture": "test_vit"}')
    torch.save({"a": torch.zeros(1)}, hub.root / "me/pickle/pytorch_model.bin")
    message = refusal("hf-hub:me/pickle")
    assert "me/pickle has no model.safetensors, and nothing else is loaded: give the name of a timm model" in message
    assert not any("pytorch_model.bin" in line for line in hub.log)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"architectures": ["ViTModel"]}', "hf-hub:me/other is not a timm model: its config.json names no timm arch"),
        ("nothing of the kind", "hf-hub:me/other is not a timm model"),
        ('{"architecture": "vit_of_tomorrow"}', f"is a vit_of_tomorrow, which timm {timm.__version__} does not have"),
    ],
)
@pytest.mark.parametrize("weights", [None, "untrained"])
def test_repositories_of_other_libraries(hub, config, message, weights):
    (hub.root / "me/other").mkdir(parents=True)
    (hub.root / "me/other/config.json").write_text(config)
    assert message in refusal("hf-hub:me/other", weights)


def test_weights_of_another_architecture(hub):
    hub.publish("me/mixed", with_random_weights("test_resnet", seed=0), architecture="test_vit")
    assert "do not fit hf-hub:me/mixed" in refusal("hf-hub:me/mixed")


@pytest.mark.parametrize(
    "config",
    ['{"architecture": 5}', '{"architecture": ["test_vit"]}', "[]", '{"architecture": "test_vit", "pretrained_cfg": 5}',
     '{"architecture": "test_vit", "model_args": {"depth": "x"}}', '{"architecture": "test_vit", "model_args": [1]}',
     '{"architecture": "test_vit", "pretrained_cfg": {"input_size": "x"}}',
     '{"architecture": "test_vit", "pretrained_cfg": {"input_size": [3, 160, 160], "mean": "x", "std": [1]}}',
     '{"architecture": "test_vit", "pretrained_cfg": {"no_such_key": 1}}',
     '{"architecture": "test_vit", "x": ' + "[" * 9999],
)  # fmt: skip
def test_configurations_that_make_no_sense(hub, config):
    (hub.root / "me/other").mkdir(parents=True)
    (hub.root / "me/other/config.json").write_text(config)
    assert len(refusal("hf-hub:me/other", "untrained")) < 500
