"""Load models by name: from the zoo, timm, the hub, or a checkpoint of the user's. Only safetensors are read."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitcnn_utils import hub
from vitcnn_utils.errors import VitcnnError, near, whole_number
from vitcnn_utils.models.facts import Model, describe

LARGEST_IMAGE = 4096
"""Pixels a side."""

State = dict[str, Tensor]


def load_model(
    name: str | Mapping[str, Any],
    weights: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    image_size: int | None = None,
) -> Model:
    """Load a model and read off what the measures need.

    name: a zoo model ('zoo/vit-cls'), any timm name, or 'hf-hub:OWNER/NAME', with '@REVISION' if it must be that one.
    Or a mapping with name, weights and image_size, as an edition writes it; the arguments given beside it come first.
    weights: None for the published weights, 'untrained' for a random start drawn from `seed`, or the path of a
    safetensors file that fits the model, or of a folder that holds it as model.safetensors. The number of classes is
    read off such a file, and the prefixes that training libraries put before all names ('module.') are taken off.
    device: 'cpu', 'cuda', 'mps', or 'auto' for the best there is.
    image_size: side in pixels of the images it is to take; None for what it was made for. A convolutional network takes
    any; the position embeddings of a transformer are resampled (by timm), which changes what it was trained to be.

    Only safetensors are read, never a pickle. Published weights stay in the hub's cache: after one run online, nothing
    is asked of the hub.
    """
    if isinstance(name, Mapping):
        name, weights, image_size = _of_mapping(name, weights, image_size)
    if not isinstance(name, str) or len(name) > 200:
        raise VitcnnError(f"{str(name)[:200]!r} is not a name of a model; {_NAMES}")
    whole_number("seed", seed, least=0, most=2**63 - 1)
    if image_size is not None:
        whole_number("image_size", image_size, most=LARGEST_IMAGE)
    target = find_device(device)
    file_given = None if weights in (None, "untrained") else _users_file(weights)
    # The CPU's generator alone: to fork those of several GPUs too would warn, and take memory on each.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        load = _load_zoo if name.startswith("zoo/") else _load_timm
        module, facts, file = load(name, weights == "untrained", file_given, image_size)
    natural = facts["image_size"]
    if image_size is not None:
        facts["image_size"] = (image_size, image_size)
    title = name if file else f"{name} (untrained)"
    origin = _sha256(file)[:12] if file else f"untrained, seed {seed}"
    model = Model(name=title, module=module.to(target).eval(), device=target, weights=origin, **facts)
    try:
        describe(model)
    except (RuntimeError, AssertionError) as error:
        size = model.image_size[0]
        problem = f"{name} takes no images of image_size={size} ({_in_one_line(error)})"
        raise VitcnnError(f"{problem}: the model was made for {natural[0]}") from error
    return model


def _of_mapping(
    model: Mapping[str, Any], weights: str | Path | None, image_size: int | None
) -> tuple[Any, Any, int | None]:
    for key in model:
        if key not in ("name", "weights", "image_size"):
            raise VitcnnError(f"a model has no {key!r}: give its name, and if need be weights and image_size")
    if weights is None:
        weights = model.get("weights")
    return model.get("name"), weights, model.get("image_size") if image_size is None else image_size


def find_device(name: str) -> torch.device:
    """The device of that name, or the best of this machine for 'auto'; VitcnnError if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        tensor = torch.ones(1, device=name)
        if name != "meta":  # it has shapes and no values, which is all that `vitcnn check` needs
            tensor.tolist()
        return tensor.device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise VitcnnError(f"device {name!r} cannot be used ({reason}); 'auto' takes the best there is") from None


# From a name to a module. Each returns the module, the facts that are not read off it, and the file of its weights.


def _load_zoo(
    name: str, untrained: bool, file: Path | None, image_size: int | None
) -> tuple[nn.Module, dict[str, Any], Path | None]:
    from vitcnn_utils import zoo
    from vitcnn_utils.zoo.architectures import CLASS_NAMES, CLASSES, IMAGE_SIZE, MEAN, STD, build

    module: Any = build(zoo.shape(name))
    classes, path = CLASSES, None
    if file is None:
        module.pretrained_cfg = {"label_names": CLASS_NAMES}  # where timm has them; a user's weights may know others
    if not untrained:
        path = file or zoo.weights_path(name)
        state = _read(path)
        classifier = "fc" if hasattr(module, "fc") else "head"
        classes = _rows(state, classifier)
        if classes != CLASSES:
            module.reset_classifier(classes)
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise VitcnnError(f"the weights in {path} do not fit {name}: {_in_one_line(error)}") from error
    return module, {"image_size": (IMAGE_SIZE, IMAGE_SIZE), "mean": MEAN, "std": STD, "num_classes": classes}, path


def _load_timm(
    name: str, untrained: bool, file: Path | None, image_size: int | None
) -> tuple[nn.Module, dict[str, Any], Path | None]:
    repository = repository_of(name)
    source, architecture = name, name.partition(".")[0]
    if name.startswith("hf-hub:"):
        config = fetch_file(name, repository, "config.json")
        architecture = _architecture(name, config)
        source = f"local-dir:{config.parent}"  # of the hub itself, timm would ask for the configuration each time
    path = None if untrained else file or fetch_file(name, repository, "model.safetensors")
    options: dict[str, Any] = {"pretrained": False}
    if path is not None:
        state = _read(path)
        # These weights as they are, in the place of those that timm would fetch and convert.
        overlay: dict[str, Any] = {"state_dict": state, "source": "", "custom_load": False}
        classes = None if file is None else _classes(state, architecture)
        if file is not None:
            overlay["label_names"] = None  # those of the published weights
        if classes is not None:
            overlay |= {"num_classes": classes, "label_offset": 0}
            options["num_classes"] = classes
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        module: Any = _create(source, image_size, options)
        facts = _images_of(module)
    except Exception as error:  # timm's conversions of older weights raise errors of any kind where they do not fit
        at_size = "" if image_size is None else f" at image_size={image_size}"
        problem = f"timm cannot build {name}" if path is None else f"the weights in {path} do not fit {name}"
        raise VitcnnError(f"{problem}{at_size}: {_in_one_line(error)}") from error
    module.pretrained_cfg.pop("state_dict", None)
    return module, facts, path


def _create(name: str, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    import timm

    if image_size is not None:
        try:
            return timm.create_model(name, img_size=image_size, **options)
        except TypeError:
            pass  # not a model of a fixed size: it takes images of any, unasked
    return timm.create_model(name, **options)


def _images_of(module: Any) -> dict[str, Any]:
    """Which images a module of timm takes, and how many classes it tells apart."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    channels, *size = map(int, config["input_size"])
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    right_sides = len(size) == 2 and 0 < min(size) <= max(size) <= LARGEST_IMAGE
    if not right_sides or not channels == len(mean) == len(std) == 3 or min(std) <= 0:
        raise ValueError("it does not say which images it takes: three channels, their mean and std, and a size")
    return {"image_size": tuple(size), "mean": mean, "std": std, "num_classes": module.num_classes}


def _architecture(name: str, path: Path) -> str:
    """The timm model that the configuration of a repository names; VitcnnError if there is none."""
    import timm

    try:
        architecture = json.loads(path.read_text(encoding="utf-8"))["architecture"]
    except (ValueError, KeyError, TypeError, RecursionError):
        architecture = None
    if not isinstance(architecture, str):
        raise VitcnnError(f"{name} is not a timm model: its config.json names no timm architecture")
    if not timm.is_model(architecture):
        raise VitcnnError(f"{name} is a {architecture}, which timm {timm.__version__} does not have: try a newer timm")
    return architecture


def _in_one_line(error: Exception) -> str:
    """What an error says; of one of torch's about weights, the first that does not fit."""
    lines = [line.strip() for line in str(error).splitlines()]
    first = lines[1] if len(lines) > 1 and lines[0].startswith("Error(s) in loading") else " ".join(lines)
    return first[:300] or type(error).__name__


# Weights


def _users_file(weights: Any) -> Path:
    """The file of weights that a user named."""
    if not isinstance(weights, str | Path):
        raise VitcnnError(f"weights={weights!r}: give None, 'untrained', or the path of a safetensors file")
    try:
        path = Path(weights).expanduser()
        path = path / "model.safetensors" if path.is_dir() else path
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user, a zero byte
        path = Path(weights)
    raise VitcnnError(f"there is no file of weights {str(path)[:200]!r}")


def _read(path: Path) -> State:
    """The weights in a file, by the names that the model itself has for them.

    Whatever the file is called, it is read as safetensors: the loaders of torch and timm choose by its name, and run
    the code in a pickle.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VitcnnError(f"{path} is not a safetensors file, and nothing else is loaded: {error}") from error
    if not state:
        raise VitcnnError(f"there are no weights in {path}")
    for name, weight in state.items():
        of_a_layer = name.endswith((".weight", ".bias"))
        if weight.dtype not in _FLOATS and (of_a_layer or weight.dtype not in _INDICES):
            raise VitcnnError(
                f"{name} in {path} is {str(weight.dtype).removeprefix('torch.')}: weights that are quantised are not "
                "read, give them as float16, bfloat16 or float32"
            )
    while prefix := next((one for one in _WRAPPERS if all(name.startswith(one) for name in state)), None):
        state = {name.removeprefix(prefix): weight for name, weight in state.items()}
    return state


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INDICES = (torch.int64, torch.int32, torch.bool)

_WRAPPERS = ("module.", "model.", "_orig_mod.", "timm_model.", "backbone.", "net.", "encoder.")
"""What libraries put before all names: DataParallel, Lightning, torch.compile, transformers, and users' modules."""


def _classes(state: State, architecture: str) -> int | None:
    """How many classes the weights are for, 0 without a classifier; None where their names are not timm's."""
    import timm

    config = timm.get_pretrained_cfg(architecture)
    names = [getattr(config, key, None) for key in ("classifier", "first_conv")]
    classifier, first = (str(name[0] if isinstance(name, list | tuple) else name) for name in names)
    return _rows(state, classifier) if f"{first}.weight" in state else None


def _rows(state: State, layer: str) -> int:
    """How many outputs a layer has; 0 where it is not there."""
    weight = state.get(f"{layer}.weight", torch.empty(0))
    return weight.shape[0] if weight.ndim else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# The hub


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
    """A file of a model, from the hub's cache on this machine or the hub; VitcnnError if neither has it."""
    if repository is None:
        otherwise = "give weights='untrained' or a safetensors file"
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
        return VitcnnError(f"{repository!r} is not the name of a model on the hub: give hf-hub:OWNER/NAME")
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return VitcnnError(f"there is no public model {repository.partition('@')[0]} on the hub: check the name")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, FileNotFoundError):
        instead = "give the name of a timm model, and its weights as a safetensors file (weights=)"
        return VitcnnError(f"{repository} has no {file}, and nothing else is loaded: {instead}")
    # Without its configuration, a model of the hub cannot be built, even untrained.
    instead = "use a zoo model such as 'zoo/vit-cls', or a timm name with weights='untrained' or a safetensors file"
    return VitcnnError(f"{name} could not be fetched from the hub ({repository}: {hub.reason(error)}): {instead}")


_NAMES = "give one of timm.list_models(), 'hf-hub:OWNER/NAME', or a zoo model such as 'zoo/vit-cls'"
