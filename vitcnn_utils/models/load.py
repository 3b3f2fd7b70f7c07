"""Models by name: those of the zoo, of timm, of the hub, and checkpoints of one's own; only safetensors are read."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitcnn_utils import hub
from vitcnn_utils.errors import VitcnnError, near, whole_number
from vitcnn_utils.models.facts import Model, describe


def load_model(
    name: str, weights: str | Path | None = None, device: str = "auto", seed: int = 0, image_size: int | None = None
) -> Model:
    """A model ready to be measured.

    name: a zoo model ('zoo/vit-cls'), any timm name, or 'hf-hub:OWNER/NAME', with '@REVISION' if it must be that one.
    weights: None for the published weights, 'untrained' for a random start drawn from `seed`, or the path of a
    .safetensors file that fits the model. Only safetensors are read, never a pickle.
    device: 'cpu', 'cuda', 'mps', or 'auto' for the best there is.
    image_size: side in pixels of the images it is to take; None for what it was made for. A convolutional network takes
    any; the position embeddings of a transformer are resampled (by timm), which changes what it was trained to be.

    Published weights stay in the hub's cache, so that one run online is enough; only their first use asks the hub.
    """
    if not isinstance(name, str):
        raise VitcnnError(f"{name!r} is no name of a model; {_NAMES}")
    if image_size is not None:
        whole_number("image_size", image_size)
    target = find_device(device)
    if weights is not None and weights != "untrained":
        _check_safetensors(Path(weights))
    # The CPU's generator alone: to fork those of several GPUs too would warn, and take memory on each.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        if name.startswith("zoo/"):
            module, facts, file = _load_zoo(name, weights)
        else:
            module, facts, file = _load_timm(name, weights, image_size)
    natural = facts["image_size"]
    if image_size is not None:
        facts["image_size"] = (image_size, image_size)
    title = name if file else f"{name} (untrained)"
    origin = _sha256(file)[:12] if file else f"untrained, seed {seed}"
    model = Model(name=title, module=module.to(target).eval(), device=target, weights=origin, **facts)
    try:
        describe(model)
    except (RuntimeError, AssertionError) as error:
        if model.image_size == natural:
            raise
        problem = " ".join(str(error).split()) or "it fails where it is run"
        problem = f"{name} takes no images of image_size={image_size} ({problem})"
        raise VitcnnError(f"{problem}: the model was made for {natural[0]}") from error
    return model


def find_device(name: str) -> torch.device:
    """The device of that name, the best there is for 'auto'; VitcnnError if this machine has none such."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise VitcnnError(f"device {name!r} cannot be used ({reason}); 'auto' takes the best there is") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _load_zoo(name: str, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any], Path | None]:
    from safetensors.torch import load_file

    from vitcnn_utils import zoo
    from vitcnn_utils.zoo.architectures import CLASSES, IMAGE_SIZE, MEAN, STD, build
    from vitcnn_utils.zoo.recipes import find_recipe

    module = build(find_recipe(name))
    path = None
    if weights != "untrained":
        path = zoo.weights_path(name) if weights is None else Path(weights)
        _fit(module, load_file(path), name, path)
    return module, {"image_size": (IMAGE_SIZE, IMAGE_SIZE), "mean": MEAN, "std": STD, "num_classes": CLASSES}, path


def _fit(module: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split("\n")[1:2]).strip()
        raise VitcnnError(f"the weights in {path} do not fit {name}: {problem}") from error


def _load_timm(
    name: str, weights: str | Path | None, image_size: int | None
) -> tuple[nn.Module, dict[str, Any], Path | None]:
    from timm.data import resolve_model_data_config

    repository = repository_of(name)
    if name.startswith("hf-hub:"):
        _check_config(name, fetch_file(name, repository, "config.json"))
    path = None
    if weights == "untrained":
        module = _create(name, image_size, pretrained=False)
    else:
        path = fetch_file(name, repository, "model.safetensors") if weights is None else Path(weights)
        _check_safetensors(path)
        # The file, wherever timm would take the weights from and in whatever format it expects them there.
        overlay = {"file": str(path), "source": "", "custom_load": False}
        try:
            module = _create(name, image_size, pretrained=True, pretrained_cfg_overlay=overlay)
        except RuntimeError as error:
            problem = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
            at_size = "" if image_size is None else f" at image_size={image_size}"
            raise VitcnnError(f"the weights in {path} do not fit {name}{at_size}: {problem}") from error
    config = resolve_model_data_config(module)
    # A configuration from the hub has lists.
    facts = {"image_size": tuple(config["input_size"][1:]), "mean": tuple(config["mean"]), "std": tuple(config["std"]),
             "num_classes": module.num_classes}  # fmt: skip
    return module, facts, path


def _create(name: str, image_size: int | None, **options: Any) -> nn.Module:
    import timm

    if image_size is not None:
        try:
            return timm.create_model(name, img_size=image_size, **options)
        except TypeError:
            pass  # not a model of a fixed size: it takes images of any, unasked
    return timm.create_model(name, **options)


def _check_config(name: str, path: Path) -> None:
    """VitcnnError unless the configuration of a repository is one of a timm model."""
    import timm

    try:
        architecture = json.loads(path.read_text(encoding="utf-8"))["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise VitcnnError(f"{name} is no timm model: its config.json names no timm architecture") from error
    if not timm.is_model(architecture):
        raise VitcnnError(f"{name} is a {architecture}, which timm {timm.__version__} does not have: try a newer timm")


def repository_of(name: str) -> str | None:
    """The hub's repository of a model's published weights, None if there are none; VitcnnError for an unknown model.

    'OWNER/NAME' or 'OWNER/NAME@REVISION', as `fetch_file` takes it.
    """
    import timm

    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        of_hub = f"; one of the hub is called 'hf-hub:{name}'" if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) else ""
        known = near(architecture.lower(), timm.list_models())
        raise VitcnnError(f"timm has no model {name!r}{of_hub + known or f'; {_NAMES}'}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        there = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
        raise VitcnnError(f"timm has no weights {tag!r} of {architecture}, but: {', '.join(there) or 'none'}") from None
    if config is None or not config.hf_hub_id:
        return None
    # timm writes 'timm/' for 'timm/' and the full name of the model.
    full_name = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    return config.hf_hub_id + full_name if config.hf_hub_id.endswith("/") else config.hf_hub_id


def fetch_file(name: str, repository: str | None, file: str) -> Path:
    """A file of a model, from the hub's cache on this machine or the hub; VitcnnError if it is not to be had."""
    if repository is None:
        otherwise = "give weights='untrained' or a .safetensors file"
        raise VitcnnError(f"no weights are published for {name} on the hub: {otherwise}")
    owner_and_name, _, revision = repository.partition("@")
    try:
        return hub.fetch(owner_and_name, file, revision or None)
    except Exception as error:  # the hub's client raises errors of several libraries, httpx and requests among them
        raise not_from_hub(name, repository, file, error) from error


def not_from_hub(name: str, repository: str, file: str, error: Exception) -> VitcnnError:
    """What to raise where the hub's client raised `error` when it was asked for a file of a model."""
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, HFValidationError):
        return VitcnnError(f"{repository!r} is no name of a model on the hub: give hf-hub:OWNER/NAME")
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return VitcnnError(f"there is no public model {repository.partition('@')[0]} on the hub: check the name")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, FileNotFoundError):
        return VitcnnError(f"{repository} has no {file}, and nothing else is loaded: {_WITHOUT[file]}")
    return VitcnnError(
        f"the weights of {name} could not be had from the hub ({repository}: {hub.reason(error)}): "
        "otherwise, use a zoo model such as 'zoo/vit-cls', give a .safetensors file, or weights='untrained'"
    )


_NAMES = "give one of timm.list_models(), 'hf-hub:OWNER/NAME', or a zoo model such as 'zoo/vit-cls'"

_WITHOUT = {
    "config.json": "give the name of a timm model",
    "model.safetensors": "make a .safetensors file of its weights and give that as weights=, with its timm name",
}
"""What to do where a repository lacks a file."""


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise VitcnnError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise VitcnnError(f"{path} is not a safetensors file, and nothing else is loaded: {error}") from error
