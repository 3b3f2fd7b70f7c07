"""A model as the measures see it: a timm module and the few facts they need of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from vitcnn_utils.errors import VitcnnError, near
from vitcnn_utils.models.trace import (
    Call,
    Layout,
    Skip,
    Tap,
    Unit,
    Value,
    has_places,
    has_several,
    is_norm,
    trace,
    units,
)

T = TypeVar("T")
Fact = Literal["attention", "tokens", "residual stream"]


@dataclass(frozen=True)
class Layer:
    """A recorded activation.

    kind: 'stem', 'norm', 'attention', 'mlp hidden', 'mlp', 'conv', 'linear', 'block' or 'final norm'; a part of another
    kind that a skip goes around has the kind of that branch.
    block: index of the transformer block or residual unit it lies in; None outside them.
    depth: position among all layers of the model, from 0 (first) to 1 (last).
    grid: rows and columns of its places in the image; None where they cannot be told.
    stage: which resolution of the model's maps it has, 0 for the finest; inside a block that of the block's output.
    None in a model of which all blocks work on the same tokens.
    """

    name: str
    kind: str
    block: int | None
    depth: float
    tap: Tap
    grid: tuple[int, int] | None = None
    stage: int | None = None


@dataclass(frozen=True)
class Branch:
    """What a skip connection goes around.

    skip: z, the residual stream that enters (before the norm).
    shortcut: what the skip adds: z, or its projection where a stage changes shape.
    branch: f(z), what the branch gives, after layer scale.
    sum: z + f(z); in a post-activation ResNet, after the ReLU that follows the addition.
    kind: 'attention', 'mlp' (the last of several), 'residual' (the only one of its unit), or what else the block calls
    the part that it runs through, such as 'mlp_tokens'.
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
    branches: empty where the model has no residual stream.
    patch_size (pixels), grid (rows, columns), prefix_tokens: of a model that works on tokens;
    None, None and 0 for others.
    tokens: how tokens lie in the image, by how many there are.
    outside: the name of a part that adds or attends but lies in no block; '' if there is none. With one, `blocks` is
    empty, as the blocks that were found are not all of the model.
    weights: the first 12 digits of the SHA-256 of the file they are from, or 'untrained, seed N'.
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
    patch_size: int | None = None
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0
    weights: str = "unknown"
    outside: str = ""
    tokens: dict[int, Layout] = field(default_factory=dict)
    _overwritten: dict[Tap, bool] = field(default_factory=dict, init=False, repr=False)

    @property
    def blocks(self) -> list[Layer]:
        """The outputs of the transformer blocks or residual units, in order."""
        return [layer for layer in self.layers if layer.kind == "block"]

    @property
    def attentions(self) -> list[nn.Module]:
        """The attention modules, in order; empty where the model has none."""
        return [self.module.get_submodule(layer.name) for layer in self.layers if layer.kind == "attention"]

    @property
    def prefix_names(self) -> list[str]:
        """What the tokens before the patches are called, in timm's order: 'CLS', 'distillation', 'register 0', …"""
        parameters = {name.rpartition(".")[2] for name, _ in self.module.named_parameters()}
        named = {"cls_token": "CLS", "dist_token": "distillation"}
        names = [name for parameter, name in named.items() if parameter in parameters]
        return [*names, *(f"register {i}" for i in range(self.prefix_tokens))][: self.prefix_tokens]

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

        x: (B, 3, H, W), from `prepare`. Each activation is (B, T, D) or (B, C, H, W) and shares memory with nothing.
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

        with torch.no_grad(), _hooks(self.module, [layer.tap for layer in layers], keep):
            self.module(x)
        for layer in layers:
            if layer.name not in kept:
                raise VitcnnError(f"{self.name} does not run {layer.name}: give layers of this model")
        return kept

    @contextmanager
    def reading(self, taps: Sequence[Tap]) -> Iterator[list[Tensor]]:
        """While open, a list that each forward pass of the module fills with the tensors at `taps`, in their order.

        The graph is kept. A tensor that the model goes on to overwrite (ReLU in place, `x += shortcut`) is a copy.
        """
        self._find_overwritten(taps)
        values: list[Any] = [None] * len(taps)

        def keep(index: int, tensor: Tensor) -> None:
            values[index] = tensor.clone() if self._overwritten[taps[index]] else tensor

        with _hooks(self.module, taps, keep):
            yield values

    def blank(self) -> Tensor:
        """One image of the size and precision that the module takes."""
        dtype = next((p.dtype for p in self.module.parameters()), torch.float32)
        return torch.zeros(1, 3, *self.image_size, device=self.device, dtype=dtype)

    def _find_overwritten(self, taps: Sequence[Tap]) -> None:
        """Notes which of `taps` the model overwrites after the tap, as its tensors' version counters tell."""
        new = [tap for tap in taps if tap not in self._overwritten]
        if not new:
            return
        seen: dict[int, tuple[Tensor, int]] = {}

        def note(index: int, tensor: Tensor) -> None:
            seen[index] = tensor, tensor._version

        with torch.no_grad(), _hooks(self.module, new, note):
            self.module(self.blank())
        for index, tap in enumerate(new):
            if index not in seen:
                raise VitcnnError(f"{self.name} does not run this {type(tap.module).__name__}: give its own layers")
            tensor, version = seen[index]
            self._overwritten[tap] = tensor._version != version

    def spatial(self, activation: Tensor) -> Tensor:
        """An activation on its grid, channels last: (B, T, D) or (B, C, H, W) to (B, rows, columns, channels).

        Prefix tokens are left out. VitcnnError where the forward pass did not tell how the places lie.
        """
        shape = tuple(activation.shape)
        if len(shape) == 4 and self.is_picture(shape[2], shape[3]):
            return activation.permute(0, 2, 3, 1)
        layout = self.tokens.get(shape[1]) if len(shape) == 3 else None
        if layout is None or layout.grid is None:
            raise self.refusal(f"grid for an activation of shape {shape}", "this measure")
        return activation[:, layout.prefix :].unflatten(1, layout.grid)

    def is_picture(self, rows: int, columns: int) -> bool:
        """Whether a map has the proportions of the image, give or take one row or column."""
        H, W = self.image_size
        return abs(rows * W - columns * H) <= max(H, W)

    def require(self, fact: Fact, measure: str) -> None:
        """VitcnnError if the model lacks what a measure needs; it names what is missing and what does work."""
        if self.has(fact):
            return
        missing = {
            "attention": "attention over one grid of tokens, one a block" if self.attentions else "attention module",
            "tokens": "one grid of tokens in all its blocks",
            "residual stream": "residual stream that can be read",
        }[fact]
        if self.outside:
            missing = f"blocks that hold all its additions and attention ({self.outside} is outside of them)"
        elif fact == "residual stream" and self.branches:
            missing = "residual stream whose places in the image can be told"
        raise self.refusal(missing, measure)

    def has(self, fact: Fact) -> bool:
        """Whether a model has what some measures need."""
        if fact == "residual stream":
            return bool(self.branches) and all(layer.grid for layer in self.blocks)
        a_block = [layer.block for layer in self.layers if layer.kind == "attention"]
        return self.grid is not None and (fact == "tokens" or (bool(a_block) and len(set(a_block)) == len(a_block)))

    def refusal(self, missing: str, measure: str, of_attention: bool = False) -> VitcnnError:
        """What to raise where a model lacks what a measure needs. of_attention: so no measure of attention works."""
        works = ["layer similarity"]
        if any(layer.grid for layer in (self.blocks or self.layers)[-1:]):
            works += ["linear probes", "token-patch similarity"]
        if self.has("attention") and not of_attention:
            works.append("attention distance")
        if self.has("residual stream"):
            works += ["effective receptive fields", "skip ratios"]
        elif any(layer.grid for layer in self.layers):
            works.append("effective receptive fields of layers you name")
        works_with_it = ", ".join(works)
        return VitcnnError(f"{self.name} has no {missing}, which {measure} needs; what works with it: {works_with_it}")


@contextmanager
def _hooks(root: nn.Module, taps: Sequence[Tap], keep: Callable[[int, Tensor], Any]) -> Iterator[None]:
    """While open, calls keep(index, tensor) whenever `root` passes a tap, maps as (B, C, H, W).

    Outputs are seen before any other hook changes them.
    """
    with ExitStack() as stack:
        for index, tap in enumerate(taps):

            def show(tensor: Tensor, index: int = index, last: bool = tap.layout.channels_last) -> None:
                keep(index, tensor.permute(0, 3, 1, 2) if last and tensor.ndim == 4 else tensor)

            stack.enter_context(hook(root, tap, show, first=True))
        yield


@contextmanager
def hook(root: nn.Module, tap: Tap, function: Callable[[Tensor], Any], first: bool = False) -> Iterator[None]:
    """While open, calls function(tensor) in each forward pass of `root` at a tap, with the tensor as it is there.

    What it gives, unless None, takes the place of an output. first: before all hooks that are there already.
    """
    calls = 0

    def begin(*_: Any) -> None:
        nonlocal calls
        calls = 0

    def at(tensor: Tensor) -> Any:
        nonlocal calls
        calls += 1
        return function(tensor) if calls == tap.call + 1 else None

    with ExitStack() as stack:
        stack.callback(root.register_forward_pre_hook(begin, prepend=True).remove)
        if tap.side == "input":
            handle = tap.module.register_forward_pre_hook(lambda _, args: at(args[0]))
        else:
            handle = tap.module.register_forward_hook(lambda _, args, out: at(out), prepend=first)
        stack.callback(handle.remove)
        yield


def describe(model: Model) -> None:
    """Fills in what the measures ask for, from what the module does with an image (never from its class name)."""
    root = trace(model.module, model.blank())
    residual_units = units(root)
    blocks = _blocks(root, residual_units)
    model.outside = _outside(root, blocks)
    if model.outside:
        blocks = []
    model.tokens = _tokens(root)
    _describe_grid(model, blocks)
    model.branches = _branches(blocks, residual_units)
    layers = _layers(model, root, blocks)
    last, stages = max(len(layers) - 1, 1), _stages(layers, blocks)
    model.layers = [replace(layer, depth=i / last, stage=stages[i]) for i, layer in enumerate(layers)]


def _blocks(root: Call, residual_units: Sequence[Unit]) -> list[Call]:
    """The residual units, and others of their kind, which have no skip (as at the start of a stage), in order."""
    kinds = tuple({type(unit.call.module) for unit in residual_units})
    found: list[Call] = []
    for call in root.walk():
        inside = any(call.name.startswith(f"{block.name}.") for block in found)
        if isinstance(call.module, kinds) and not inside and call.number == 0 and call.given and call.taken:
            found.append(call)
    return found


def _outside(root: Call, blocks: Sequence[Call]) -> str:
    """The name of a part outside the blocks that adds or attends to places; '' if there is none.

    Attention behind blocks that attend too is a head, which reads them out.
    """
    if not blocks:
        return ""
    blocks_attend = any(block.attends for block in blocks)
    last = blocks[-1].given

    def is_apart(call: Call) -> bool:
        attends = call.attends and not any(inner.attends for inner in call.inner)
        attends_to_places = attends and call.given is not None and has_several(call.given.shape)
        if not attends_to_places and not any(has_places(addition.total.shape) for addition in call.additions):
            return False
        behind = call.taken is not None and last is not None and call.taken.bit >= last.bit
        return not (blocks_attend and call.attends and behind)

    return next((call.name or "the model itself" for call in [root, *_apart(root, blocks)] if is_apart(call)), "")


def _apart(call: Call, blocks: Sequence[Call]) -> Iterator[Call]:
    """The calls inside a call outside the blocks."""
    for inner in call.inner:
        if inner not in blocks:
            yield inner
            yield from _apart(inner, blocks)


def _tokens(root: Call) -> dict[int, Layout]:
    """How tokens lie on a grid, by how many there are; without those that lie in two ways."""
    found: dict[int, set[Layout]] = {}
    for call in root.walk():
        for value in (call.taken, call.given):
            if value is not None and len(value.shape) == 3 and value.layout.grid and value.layout.channels_last:
                found.setdefault(value.shape[1], set()).add(value.layout)
    return {count: min(layouts) for count, layouts in found.items() if len({x[3:] for x in layouts}) == 1}


def _shared_tokens(blocks: Sequence[Call]) -> int:
    """How many tokens all blocks work on; 0 where they differ in that, or work on maps."""
    shapes = {block.given.shape[1:-1] for block in blocks if block.given}
    counts = [shape[0] for shape in shapes if len(shape) == 1]
    return counts[0] if len(shapes) == len(counts) == 1 else 0


def _describe_grid(model: Model, blocks: Sequence[Call]) -> None:
    """Grid, patch size and prefix tokens, if all blocks work on the same tokens, laid out on one grid."""
    layout = model.tokens.get(_shared_tokens(blocks))
    if layout is None or layout.grid is None:
        return
    patch = int(layout.step)
    if tuple(patch * places for places in layout.grid) != model.image_size:
        side = model.image_size[0]
        fits = f"{side // patch * patch} or {(side // patch + 1) * patch}"
        raise VitcnnError(
            f"{model.name} cuts images into patches of {patch} x {patch} pixels, into which {side} x {side} pixels "
            f"cannot be divided: give image_size={fits}"
        )
    model.grid, model.prefix_tokens, model.patch_size = layout.grid, layout.prefix, patch


# Branches


def _branches(blocks: Sequence[Call], residual_units: Sequence[Unit]) -> list[Branch]:
    """The branches of all blocks; none if one of them is nowhere to be read."""
    unit_of = {unit.call: unit for unit in residual_units}
    found: list[Branch | None] = []
    for index, block in enumerate(blocks):
        if block in unit_of:
            found += [_branch(unit_of[block], skip, index) for skip in unit_of[block].skips]
        elif getattr(block.module, "skipless", False):
            like = next(unit for unit in residual_units if isinstance(block.module, type(unit.call.module)))
            found += [_without(_branch(like, skip, index), like.call, block) for skip in like.skips]
    return [] if None in found else [branch for branch in found if branch is not None]


def _branch(unit: Unit, skip: Skip, block: int) -> Branch | None:
    """None where the stream, the branch or their sum is not what a module takes or gives."""
    name, kind, part = unit.call.name, "residual", unit.part(skip)
    if len(unit.skips) > 1:
        name, last = part.name, skip is unit.skips[-1]
        kind = "attention" if part.attends else "mlp" if last else name.rpartition(".")[2]
    inside = set(unit.call.module.modules())

    def taps(value: Value, side: str) -> list[Tap]:
        return [tap for tap in value.taps if tap.side == side and tap.module in inside]

    # The first module that takes the stream, before anything is made of it; the last that gives the branch.
    z, f, total = taps(skip.entering, "input")[:1], taps(skip.branch, "output")[-1:], unit.reading(skip)
    shortcut = z if skip.shortcut is skip.entering else taps(skip.shortcut, "output")[-1:]
    return Branch(name, kind, block, z[0], shortcut[0], f[0], total) if z and f and shortcut and total else None


def _without(branch: Branch | None, like: Call, block: Call) -> Branch | None:
    """The branch of a block without skips that corresponds to one of a block with."""
    if branch is None:
        return None
    names = {module: name for name, module in like.module.named_modules()}

    def moved(tap: Tap) -> Tap:
        return replace(tap, module=block.module.get_submodule(names[tap.module]))

    taps: dict[str, Any] = {side: moved(getattr(branch, side)) for side in ("skip", "shortcut", "branch", "sum")}
    return replace(branch, name=block.name + branch.name.removeprefix(like.name), has_skip=False, **taps)


# Layers


def _layers(model: Model, root: Call, blocks: Sequence[Call]) -> list[Layer]:
    """The layers in the order in which they run; outside the blocks of a model with tokens, only the final norm.

    Their depth and stage follow from all of them together, and are not filled in here.
    """
    found: list[Layer] = []
    index = -1
    for call, kind in _recorded(root, lambda call: "block" if call in blocks else _kind(call)):
        after = index == len(blocks) - 1 and bool(blocks)
        if kind == "block":
            index += 1
            if index == 0:
                found.append(Layer("stem", "stem", None, 0, call.tap("input"), _grid(model, call.taken)))
            found += _inside(model, call, index)
            found.append(Layer(call.name, kind, index, 0, call.tap("output"), _grid(model, call.given)))
        elif _has_layout(model, call.given) and (model.grid is None or (after and kind == "norm")):
            kind = "final norm" if after and kind == "norm" else kind
            found.append(Layer(call.name, kind, None, 0, call.tap("output"), _grid(model, call.given)))
    return found


def _inside(model: Model, block: Call, index: int) -> list[Layer]:
    """The layers of a block. One that is laid out in another way, such as in windows, is read where it is added."""
    branches = {branch.name: branch for branch in model.branches if branch.block == index}
    shortcuts = {branch.shortcut.module for branch in branches.values() if branch.shortcut != branch.skip}
    grid = _grid(model, block.given)
    found: list[Layer] = []

    def kind_of(call: Call) -> str:
        if call.module in shortcuts:
            return "conv"
        return _kind_inside(model, call) or (branches[call.name].kind if call.name in branches else "")

    for call, kind in _recorded(block, kind_of):
        hidden = _hidden(model, call) if kind == "mlp" else None
        if hidden is not None:
            found.append(Layer(f"{call.name}.hidden", "mlp hidden", index, 0, hidden, grid))
        if _has_layout(model, call.given):
            found.append(Layer(call.name, kind, index, 0, call.tap("output"), grid))
        elif call.name in branches:
            found.append(Layer(call.name, kind, index, 0, branches[call.name].branch, grid))
    return found


def _recorded(call: Call, kind_of: Callable[[Call], str]) -> Iterator[tuple[Call, str]]:
    """The calls in `call` that have a kind, with it; what is inside those is not looked at."""
    for inner in call.inner:
        kind = kind_of(inner) if inner.number == 0 else ""
        if kind:
            yield inner, kind
        else:
            yield from _recorded(inner, kind_of)


def _has_layout(model: Model, value: Value | None) -> bool:
    """Whether an activation is one of places of the image, and, if the model has tokens, of all of them."""
    if value is None or not has_places(value.shape):
        return False
    return model.grid is None or value.shape[1:-1] == (model.prefix_tokens + model.grid[0] * model.grid[1],)


def _stages(layers: Sequence[Layer], blocks: Sequence[Call]) -> list[int | None]:
    """Of each layer, which resolution it has; None where all blocks work on the same tokens."""
    if _shared_tokens(blocks):
        return [None] * len(layers)
    resolutions = sorted({math.prod(layer.grid) for layer in layers if layer.grid}, reverse=True)
    return [resolutions.index(math.prod(layer.grid)) if layer.grid else None for layer in layers]


def _grid(model: Model, value: Value | None) -> tuple[int, int] | None:
    """The rows and columns of an activation of one image; None where they cannot be told."""
    assert value is not None
    if len(value.shape) == 3:
        layout = model.tokens.get(value.shape[1])
        return layout.grid if layout else None
    rows, columns = value.shape[1:3] if value.layout.channels_last else value.shape[2:]
    return (rows, columns) if model.is_picture(rows, columns) else None


def _kind_inside(model: Model, call: Call) -> str:
    if call.attends:
        return "attention"
    is_mlp = call.name.rpartition(".")[2].startswith("mlp") or _hidden(model, call) is not None
    return "mlp" if is_mlp else _kind(call)


def _hidden(model: Model, call: Call) -> Tap | None:
    """The hidden activation of an MLP, which its second layer takes; a gate's has no places and does not count."""
    second = [inner for inner in call.inner if inner.module is getattr(call.module, "fc2", None)]
    return second[0].tap("input") if second and _has_layout(model, second[0].taken) else None


def _kind(call: Call) -> str:
    """The kind of a layer anywhere; '' for what is not recorded."""
    if isinstance(call.module, nn.Conv2d | nn.Linear):
        return "conv" if isinstance(call.module, nn.Conv2d) else "linear"
    return "norm" if is_norm(call) else ""
