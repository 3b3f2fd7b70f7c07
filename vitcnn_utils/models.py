"""A model as the measures see it: a timm module and the few facts they need of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vitcnn_utils.errors import VitcnnError, near

if TYPE_CHECKING:
    from vitcnn_utils.data import Images

T = TypeVar("T")


@dataclass(frozen=True)
class Tap:
    """Where an activation is read: what a module takes or gives."""

    module: nn.Module
    side: Literal["input", "output"] = "output"


@dataclass(frozen=True)
class Layer:
    """A recorded activation.

    kind: 'stem', 'norm', 'attention', 'mlp hidden', 'mlp', 'conv', 'block' or 'final norm'.
    block: index of the transformer block or residual unit it lies in; None outside them.
    depth: position among all layers of the model, from 0 (first) to 1 (last).
    """

    name: str
    kind: str
    block: int | None
    depth: float
    tap: Tap


@dataclass(frozen=True)
class Branch:
    """What a skip connection goes around.

    skip: z, the residual stream that enters (before the norm).
    shortcut: what the skip adds: z, or its projection where a stage changes shape.
    branch: f(z), what the branch gives, after layer scale.
    sum: z + f(z); in a post-activation ResNet, after the ReLU that follows the addition.
    kind: 'attention', 'mlp' or 'residual' (the long branch of a CNN's unit).
    """

    name: str
    kind: str
    block: int
    skip: Tap
    shortcut: Tap
    branch: Tap
    sum: Tap
    has_skip: bool = True


@dataclass
class Model:
    """A timm module in eval mode, and what the measures ask of it.

    layers: every recorded activation, input to output; blocks: the block outputs among them.
    branches, attentions: empty where the model has no residual stream or no attention.
    patch_size (pixels), grid (rows, columns), prefix_tokens: of a model that works on tokens;
    None, None and 0 for others.
    """

    name: str
    module: nn.Module
    device: torch.device
    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_classes: int
    layers: list[Layer] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    attentions: list[nn.Module] = field(default_factory=list)
    patch_size: int | None = None
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0
    readout: str = "avg"
    trained: bool = True
    _overwritten: dict[Tap, bool] = field(default_factory=dict, repr=False)

    @property
    def blocks(self) -> list[Layer]:
        """The outputs of the transformer blocks or residual units, in order."""
        return [layer for layer in self.layers if layer.kind == "block"]

    def layer(self, name: str) -> Layer:
        """The layer of that name; VitcnnError, with near names, if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise VitcnnError(f"{self.name} has no layer {name!r}{near(name, [x.name for x in self.layers])}")

    def prepare(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) crops to normalised float32 (B, 3, H, W) on the model's device."""
        x = pixels.to(self.device).permute(0, 3, 1, 2).float() / 255
        if self.grid is not None and tuple(x.shape[2:]) != self.image_size:
            H, W = x.shape[2:]
            raise VitcnnError(
                f"{self.name} takes images of {self.image_size[0]} x {self.image_size[1]} pixels, not {H} x {W}: "
                f"load them with size={self.image_size[0]}"
            )
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std

    def record(self, x: Tensor, layers: Sequence[Layer]) -> dict[str, Tensor]:
        """One forward pass without gradients: the activations of `layers`, by name.

        x: (B, 3, H, W), from `prepare`. Each activation is (B, T, D) or (B, C, H, W) and a tensor of its own.
        """
        taps = [layer.tap for layer in layers]
        with torch.no_grad(), self.reading(taps) as values:
            self.module(x)
        return {layer.name: value for layer, value in zip(layers, values, strict=True)}

    def reduce(self, x: Tensor, layers: Sequence[Layer], function: Callable[[str, Tensor], T]) -> dict[str, T]:
        """As `record`, but keeps of each activation only function(name, activation), called as soon as it is there.

        So one activation is held at a time, not all. What `function` gives must be no view of the activation, which the
        model may go on to overwrite.
        """
        kept: dict[str, T] = {}

        def keep(index: int, tensor: Tensor) -> None:
            name = layers[index].name
            kept[name] = function(name, tensor)

        with torch.no_grad(), _hooks([layer.tap for layer in layers], keep):
            self.module(x)
        for layer in layers:
            if layer.name not in kept:
                raise VitcnnError(f"{self.name} does not run {layer.name}: give layers of this model")
        return kept

    def activations(
        self, images: "Images", layers: Sequence[Layer], batch_size: int = 256
    ) -> Iterator[dict[str, Tensor]]:
        """The activations of `layers`, batch by batch, without gradients."""
        for pixels in tqdm(images.batches(batch_size), total=-(-len(images) // batch_size), desc=self.name,
                           leave=False, disable=None):  # fmt: skip
            yield self.record(self.prepare(pixels), layers)

    @contextmanager
    def reading(self, taps: Sequence[Tap]) -> Iterator[list[Tensor]]:
        """While open, a list that each forward pass of the module fills with the tensors at `taps`, in their order.

        The graph is kept. A tensor that the model goes on to overwrite (ReLU in place, `x += shortcut`) is a copy.
        """
        self._find_overwritten(taps)
        values: list[Any] = [None] * len(taps)

        def keep(index: int, tensor: Tensor) -> None:
            values[index] = tensor.clone() if self._overwritten[taps[index]] else tensor

        with _hooks(taps, keep):
            yield values

    def _find_overwritten(self, taps: Sequence[Tap]) -> None:
        """Notes which of `taps` the model overwrites after the tap, as its tensors' version counters tell."""
        new = [tap for tap in taps if tap not in self._overwritten]
        if not new:
            return
        seen: dict[int, tuple[Tensor, int]] = {}
        with torch.no_grad(), _hooks(new, lambda i, tensor: seen.__setitem__(i, (tensor, tensor._version))):
            self.module(torch.zeros(1, 3, *self.image_size, device=self.device))
        for index, tap in enumerate(new):
            if index not in seen:
                raise VitcnnError(f"{self.name} does not run this {type(tap.module).__name__}: give its own layers")
            tensor, version = seen[index]
            self._overwritten[tap] = tensor._version != version

    def spatial(self, activation: Tensor) -> Tensor:
        """An activation on its grid, channels last: (B, T, D) or (B, C, H, W) to (B, rows, columns, channels)."""
        if activation.ndim == 4:
            return activation.permute(0, 2, 3, 1)
        if activation.ndim == 3 and self.grid is not None:
            B, _, D = activation.shape
            return activation[:, self.prefix_tokens :].reshape(B, *self.grid, D)
        raise VitcnnError(f"an activation of shape {tuple(activation.shape)} of {self.name} has no spatial grid")

    def require(self, fact: Literal["attention", "tokens", "residual stream"], measure: str) -> None:
        """VitcnnError if the model lacks what a measure needs; it names what is missing and what does work."""
        has = {
            "attention": bool(self.attentions),
            "tokens": self.grid is not None,
            "residual stream": bool(self.branches),
        }
        if has[fact]:
            return
        works = ["layer similarity", "linear probes", "token-patch similarity"]
        if has["attention"]:
            works += ["attention distance"]
        if has["residual stream"]:
            works += ["effective receptive fields", "skip ratios"]
        raise VitcnnError(f"{self.name} has no {fact}, which {measure} needs; what works with it: {', '.join(works)}")


@contextmanager
def _hooks(taps: Sequence[Tap], keep: Any) -> Iterator[None]:
    """While open, calls keep(index, tensor) whenever the model passes a tap.

    Outputs are seen before any other hook changes them.
    """
    with ExitStack() as stack:
        for index, tap in enumerate(taps):
            if tap.side == "input":
                handle = tap.module.register_forward_pre_hook(lambda _, args, i=index: keep(i, args[0]))
            else:
                handle = tap.module.register_forward_hook(lambda _, args, out, i=index: keep(i, out), prepend=True)
            stack.callback(handle.remove)
        yield


def load_model(name: str, weights: str | Path | None = None, device: str = "auto", seed: int = 0) -> Model:
    """A model ready to be measured.

    name: a zoo model ('zoo/vit-cls'), any timm name, or 'hf-hub:OWNER/NAME'.
    weights: None for the published weights, 'untrained' for a random start drawn from `seed`, or the path of a
    .safetensors file that fits the model. Only safetensors are read, never a pickle.
    device: 'cpu', 'cuda', 'mps', or 'auto' for the best there is.
    """
    target = find_device(device)
    if weights is not None and weights != "untrained":
        _check_safetensors(Path(weights))
    with torch.random.fork_rng(), torch.device("cpu"):
        torch.manual_seed(seed)
        if name.startswith("zoo/"):
            module, facts = _load_zoo(name, weights)
        else:
            module, facts = _load_timm(name, weights)
    trained = weights != "untrained"
    title = name if trained else f"{name} (untrained)"
    model = Model(name=title, module=module.to(target).eval(), device=target, trained=trained, **facts)
    _describe(model)
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


def _load_zoo(name: str, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any]]:
    from safetensors.torch import load_file

    from vitcnn_utils import zoo
    from vitcnn_utils.zoo.architectures import CLASSES, IMAGE_SIZE, MEAN, STD, build
    from vitcnn_utils.zoo.recipes import RECIPES

    if name not in RECIPES:
        raise VitcnnError(f"no zoo model {name!r}{near(name, list(RECIPES))}")
    module = build(RECIPES[name])
    if weights != "untrained":
        path = zoo.weights_path(name) if weights is None else Path(weights)
        _fit(module, load_file(path), name, path)
    return module, {"image_size": (IMAGE_SIZE, IMAGE_SIZE), "mean": MEAN, "std": STD, "num_classes": CLASSES}


def _fit(module: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split("\n")[1:2]).strip()
        raise VitcnnError(f"the weights in {path} do not fit {name}: {problem}") from error


def _load_timm(name: str, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any]]:
    import timm
    from timm.data import resolve_model_data_config

    repository = _repository(name)
    if name.startswith("hf-hub:"):
        _fetch(name, repository, "config.json")  # else timm would, and report a hub that fails in its own way
    if weights == "untrained":
        module = timm.create_model(name, pretrained=False)
    else:
        path = _fetch(name, repository, "model.safetensors") if weights is None else Path(weights)
        try:
            module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path)})
        except RuntimeError as error:
            problem = " ".join(str(error).split("\n")[1:2]).strip() or str(error)
            raise VitcnnError(f"the weights in {path} do not fit {name}: {problem}") from error
    config = resolve_model_data_config(module)
    facts = {"image_size": config["input_size"][1:], "mean": config["mean"], "std": config["std"],
             "num_classes": module.num_classes}  # fmt: skip
    return module, facts


def _repository(name: str) -> str | None:
    """The hub's repository of a model's published weights, None if there are none; VitcnnError for an unknown model."""
    import timm

    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise VitcnnError(f"timm has no model {name!r}{near(architecture, timm.list_models())}")
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


def _fetch(name: str, repository: str | None, file: str) -> Path:
    """A file of a model, from the hub's cache on this machine or the hub."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if repository is None:
        raise VitcnnError(f"no weights are published for {name}: give weights='untrained' or a .safetensors file")
    try:
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the hub's cache on this machine
    except HFValidationError as error:
        raise VitcnnError(f"{repository!r} is no name of a model on the hub: give hf-hub:OWNER/NAME") from error
    try:
        # One question first: of a hub that does not answer, hf_hub_download asks six times, which takes 20 seconds.
        get_hf_file_metadata(hf_hub_url(repository, file))
        return Path(hf_hub_download(repository, file))
    except RepositoryNotFoundError as error:
        raise VitcnnError(f"there is no public model {repository} on the hub: check the name") from error
    except RemoteEntryNotFoundError as error:
        raise VitcnnError(f"{repository} has no {file}, and nothing else is loaded") from error
    except Exception as error:  # the hub's client raises errors of several libraries, httpx and requests among them
        raise _unreachable(name, repository, error) from error


def _unreachable(name: str, repository: str, error: Exception) -> VitcnnError:
    return VitcnnError(
        f"the weights of {name} could not be had from the hub ({repository}, {type(error).__name__}): offline, "
        "use a zoo model such as 'zoo/vit-cls', give a .safetensors file, or weights='untrained'"
    )


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise VitcnnError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise VitcnnError(f"{path} is not a safetensors file, and nothing else is loaded: {error}") from error


def _describe(model: Model) -> None:
    """Fills in what the measures ask for, from the parts that the module has (never from its class name)."""
    module = model.module
    found = getattr(module, "blocks", None)
    blocks = list(found) if isinstance(found, nn.Sequential | nn.ModuleList) else []
    if blocks and all(hasattr(block, part) for block in blocks for part in ("norm1", "norm2", "mlp")):
        drafts = _describe_transformer(model, blocks)
    elif units := _residual_units(module):
        drafts = _describe_resnet(model, units)
    else:
        drafts = [(name, _kind(m), None, Tap(m)) for name, m in module.named_modules() if _kind(m)]
    last = max(len(drafts) - 1, 1)
    model.layers = [
        Layer(name, kind, block, index / last, tap) for index, (name, kind, block, tap) in enumerate(drafts)
    ]
    if not _branches_hold(model):
        model.branches = []


def _branches_hold(model: Model) -> bool:
    """Whether each branch and its shortcut add up to the sum: in a post-norm block, say, the parts are other ones."""
    branches = [branch for branch in model.branches if branch.has_skip]
    x = torch.randn(1, 3, *model.image_size, generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.no_grad(), model.reading([t for b in branches for t in (b.shortcut, b.branch, b.sum)]) as values:
        model.module(x)
    for branch, z, f, found in zip(branches, values[::3], values[1::3], values[2::3], strict=True):
        expected = (z + f).relu() if branch.kind == "residual" else z + f
        if not torch.allclose(expected, found, rtol=1e-3, atol=1e-4 * found.abs().max().item(), equal_nan=True):
            return False
    return True


Draft = tuple[str, str, int | None, Tap]


def _describe_transformer(model: Model, blocks: Sequence[nn.Module]) -> list[Draft]:
    module: Any = model.module
    model.prefix_tokens = getattr(module, "num_prefix_tokens", 0)
    model.readout = getattr(module, "global_pool", "avg")
    patches = module.patch_embed if hasattr(module, "patch_embed") else module.stem
    model.grid = tuple(patches.grid_size)
    model.patch_size = patches.patch_size[0]
    drafts: list[Draft] = [("stem", "stem", None, Tap(blocks[0], "input"))]
    for i, block in enumerate(blocks):
        b: Any = block
        name = f"blocks.{i}"
        if hasattr(b, "attn"):
            model.attentions.append(b.attn)
            drafts += [(f"{name}.norm1", "norm", i, Tap(b.norm1)), (f"{name}.attn", "attention", i, Tap(b.attn))]
            has_skip = _has_skip(b)
            z, middle = Tap(b.norm1, "input"), Tap(b.norm2, "input")
            attention, mlp = (Tap(_last(b, f"drop_path{k}", f"ls{k}", part)) for k, part in ((1, "attn"), (2, "mlp")))
            model.branches += [
                Branch(f"{name}.attn", "attention", i, z, z, attention, middle, has_skip),
                Branch(f"{name}.mlp", "mlp", i, middle, middle, mlp, Tap(b), has_skip),
            ]
        hidden = [(f"{name}.mlp.hidden", "mlp hidden", i, Tap(b.mlp.fc2, "input"))] if hasattr(b.mlp, "fc2") else []
        drafts += [(f"{name}.norm2", "norm", i, Tap(b.norm2)), *hidden,
                   (f"{name}.mlp", "mlp", i, Tap(b.mlp)), (name, "block", i, Tap(b))]  # fmt: skip
    if not isinstance(module.norm, nn.Identity):
        drafts.append(("norm", "final norm", None, Tap(module.norm)))
    return drafts


def _has_skip(block: nn.Module) -> bool:
    from vitcnn_utils.zoo.architectures import SkiplessBlock

    return not isinstance(block, SkiplessBlock)


def _last(block: nn.Module, *names: str) -> nn.Module:
    """The first of the named sub-modules that the block has."""
    return next(getattr(block, name) for name in names if getattr(block, name, None) is not None)


def _residual_units(module: nn.Module) -> list[tuple[str, Any]]:
    """The residual units of a post-activation ResNet: bottleneck or basic."""
    parts = ("conv1", "bn1", "conv2", "bn2")
    return [(n, m) for n, m in module.named_modules() if hasattr(m, "downsample") and all(hasattr(m, p) for p in parts)]


def _describe_resnet(model: Model, units: list[tuple[str, Any]]) -> list[Draft]:
    module: Any = model.module
    drafts: list[Draft] = [("conv1", "conv", None, Tap(module.conv1)), ("bn1", "norm", None, Tap(module.bn1)),
                           ("stem", "stem", None, Tap(units[0][1], "input"))]  # fmt: skip
    for i, (name, unit) in enumerate(units):
        inner = [n for n in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3") if hasattr(unit, n)]
        drafts += [(f"{name}.{n}", "conv" if n.startswith("conv") else "norm", i, Tap(getattr(unit, n))) for n in inner]
        if unit.downsample is not None:
            drafts.append((f"{name}.downsample", "conv", i, Tap(unit.downsample)))
        drafts.append((name, "block", i, Tap(unit)))
        z = Tap(unit, "input")
        shortcut = z if unit.downsample is None else Tap(unit.downsample)
        end = _last(unit, "drop_path", "se", inner[-1])
        model.branches.append(Branch(name, "residual", i, z, shortcut, Tap(end), Tap(unit)))
    return drafts


def _kind(module: nn.Module) -> str:
    """The kind of a layer in a model of no known family; '' for what is not recorded."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        return "conv" if isinstance(module, nn.Conv2d) else "linear"
    return "norm" if "norm" in type(module).__name__.lower() else ""
