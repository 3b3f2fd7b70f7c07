"""What one forward pass tells of a model's structure: which parts run, in which order, and where skips are added.

Nothing here knows a class or a family. A skip connection is an addition of two tensors one of which was computed from
the other (or, where a unit changes shape, of two that were computed from the unit's input).
"""

import itertools
import math
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Layout(NamedTuple):
    """How the places of an activation lie in its tensor and in the image.

    channels_last: (B, H, W, C) or (B, T, D), not (B, C, H, W) or (B, D, T).
    offset, step: the middle of row i, as of column i, is at `offset + i * step` pixels from the corner, as far as
    convolutions, poolings and paddings tell.
    grid: rows and columns of the places; None where the functions that were called do not tell.
    prefix: how many tokens come before those of the grid.
    """

    channels_last: bool = False
    offset: float = 0.5
    step: float = 1
    grid: tuple[int, int] | None = None
    prefix: int = 0

    def of(self, shape: tuple[int, ...]) -> "Layout":
        """Itself, without its grid if a tensor of that shape does not have it."""
        if self.grid is None:
            return self
        places = shape[1:-1] if self.channels_last else shape[2:]
        if len(shape) == 6:  # cut into patches, see `_reshaped`, or rows and columns in front
            fits = self.grid in ((shape[1], shape[2]), (shape[1], shape[3]), (shape[2], shape[4]))
        elif len(shape) == 4:
            fits = places == self.grid and self.prefix == 0
        else:
            fits = places == (self.prefix + math.prod(self.grid),) and self.prefix >= 0
        return self if fits and shape[0] == 1 else self._replace(grid=None, prefix=0)


AS_THE_IMAGE = Layout()


@dataclass(frozen=True)
class Tap:
    """Where an activation is read: what a module takes or gives, at which of its calls in a forward pass."""

    module: nn.Module
    side: Literal["input", "output"] = "output"
    call: int = 0
    layout: Layout = AS_THE_IMAGE


@dataclass(eq=False)
class Value:
    """A tensor of the forward pass at one moment: overwritten, it becomes another value.

    ancestors: the bits of all values that it was computed from, and its bit; steps: how many functions in a row.
    source: the only value that the function `made_by` made it of.
    taps: the inputs and outputs of modules that it was.
    """

    shape: tuple[int, ...]
    bit: int
    ancestors: int
    steps: int
    layout: Layout
    made_by: str = ""
    source: "Value | None" = None
    taps: list[Tap] = field(default_factory=list)

    def comes_from(self, other: "Value") -> bool:
        """Whether it was computed from the other, or is it."""
        return bool(self.ancestors & other.bit)

    def unchanged(self, *functions: str) -> Iterator["Value"]:
        """Itself, and back from it what it was before other shapes, and the functions named, were made of it."""
        value: Value | None = self
        while value is not None:
            yield value
            value = value.source if value.made_by in {"reshape", "view", "flatten", "contiguous", *functions} else None


@dataclass(eq=False)
class Call:
    """One run of a module. number: how often it ran before; attends: a softmax over a last dimension was in it."""

    name: str
    module: nn.Module
    number: int
    taken: Value | None
    given: Value | None = None
    attends: bool = False
    inner: list["Call"] = field(default_factory=list)
    additions: list["Addition"] = field(default_factory=list)

    def tap(self, side: Literal["input", "output"]) -> Tap:
        value = self.taken if side == "input" else self.given
        assert value is not None
        return Tap(self.module, side, self.number, value.layout)

    def walk(self) -> Iterator["Call"]:
        """The calls inside it, in order, each before those inside of it."""
        for call in self.inner:
            yield call
            yield from call.walk()


class Addition(NamedTuple):
    """Two values of the shape of their sum."""

    terms: tuple[Value, Value]
    total: Value


ADD = {"add", "add_", "__add__", "__iadd__", "__radd__"}
ACTIVATIONS = ("relu", "relu_", "relu6", "silu", "silu_", "gelu", "hardtanh", "hardswish", "leaky_relu")


class _Trace(TorchFunctionMode):
    """Sees every module, and every function that is called on a tensor that comes from the image."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.running = [Call("", root, 0, None)]
        self.counts: dict[nn.Module, int] = {}
        self.bit = 1
        # By address, held weakly: no activation lives longer than in a plain forward pass.
        self.known: dict[int, tuple[weakref.ref[Tensor], dict[int, Value]]] = {}

    def value(self, tensor: Tensor) -> Value | None:
        """What the tensor is now; None if it does not come from the image, such as a weight."""
        reference, versions = self.known.get(id(tensor), (None, {}))
        return versions.get(tensor._version) if reference is not None and reference() is tensor else None

    def add(self, tensor: Tensor, parents: list[Value], made_by: str, layout: Layout) -> None:
        self.bit <<= 1
        ancestors = self.bit
        for parent in parents:
            ancestors |= parent.ancestors
        steps = 1 + max((parent.steps for parent in parents), default=0)
        source = parents[0] if len(parents) == 1 else None
        reference, versions = self.known.get(id(tensor), (None, {}))
        if reference is None or reference() is not tensor:
            reference, versions = weakref.ref(tensor), {}
        shape = tuple(tensor.shape)
        versions[tensor._version] = Value(shape, self.bit, ancestors, steps, layout.of(shape), made_by, source)
        self.known[id(tensor)] = reference, versions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = [(tensor, tensor._version, self.value(tensor)) for tensor in _tensors([*args, *kwargs.values()])]
        parents = [value for *_, value in before if value is not None]
        out = func(*args, **kwargs)
        if not parents:
            return out
        name = getattr(func, "__name__", "")
        source = next((value for value in parents if value.layout.grid), parents[0])
        shape = tuple(out.shape) if isinstance(out, Tensor) else source.shape
        layout = _layout(name, args, kwargs, source, shape)
        if name == "cat" and len(shape) == 3:
            ahead = itertools.takewhile(lambda one: one[2] is not source, before)
            layout = layout._replace(prefix=layout.prefix + sum(tensor.shape[1] for tensor, *_ in ahead))
        overwritten = [tensor for tensor, version, _ in before if tensor._version != version]
        for tensor in [*overwritten, *_tensors([out])]:
            if self.value(tensor) is None:
                self.add(tensor, parents, name, layout)
        if name == "scaled_dot_product_attention" or (name == "softmax" and _over_last(args, kwargs)):
            for call in self.running:
                call.attends = True
        total = self.value(out) if isinstance(out, Tensor) else None
        if name in ADD and not kwargs and len(parents) == len(args) == 2 and total is not None:
            first, second = parents
            if first.shape == second.shape == total.shape:
                self.running[-1].additions.append(Addition((first, second), total))
        return out

    def enter(self, name: str, module: nn.Module, args: Any) -> None:
        number = self.counts.get(module, 0)
        self.counts[module] = number + 1
        call = Call(name, module, number, self.value(args[0]) if args and isinstance(args[0], Tensor) else None)
        if call.taken is not None:
            call.taken.taps.append(call.tap("input"))
        self.running[-1].inner.append(call)
        self.running.append(call)

    def leave(self, out: Any) -> None:
        call = self.running.pop()
        call.given = self.value(out) if isinstance(out, Tensor) else None
        if call.given is not None:
            call.given.taps.append(call.tap("output"))


def trace(module: nn.Module, x: Tensor) -> Call:
    """One forward pass of one prepared image x (1, 3, H, W), without gradients, as the call of the module."""
    seen = _Trace(module)
    with torch.no_grad(), ExitStack() as stack:
        for name, part in module.named_modules():
            enter = part.register_forward_pre_hook(lambda m, args, name=name: seen.enter(name, m, args))
            leave = part.register_forward_hook(lambda m, args, out: seen.leave(out))
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        seen.add(x, [], "", Layout(grid=(x.shape[2], x.shape[3])))
        stack.enter_context(seen)
        module(x)
    return seen.running[0].inner[0]


def _tensors(items: Iterable[Any]) -> Iterator[Tensor]:
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, list | tuple):
            yield from _tensors(item)


def _over_last(args: Any, kwargs: Any) -> bool:
    return kwargs.get("dim", args[1] if len(args) > 1 else None) in (-1, args[0].ndim - 1)


REORDERING = {"__getitem__", "gather", "index_select", "roll", "flip", "sort", "matmul", "bmm", "einsum"}
"""Functions after which a token need not be at its place, whatever the shape."""


def _layout(name: str, args: Any, kwargs: Any, source: Value, shape: tuple[int, ...]) -> Layout:
    """The layout of what a function gives, of that shape, if it is made of `source`; `Layout.of` checks the grid."""
    before = source.layout
    if name in ("linear", "layer_norm", "rms_norm"):
        mixes_places = name == "linear" and not before.channels_last
        return before._replace(channels_last=True, grid=None if mixes_places else before.grid)
    if name in ("permute", "transpose"):
        return _permuted(name, args, before, len(shape))
    if name in ("flatten", "reshape", "view"):
        return _reshaped(before, source.shape, shape)
    if name == "pad" and len(args[1]) == 4:
        if before.channels_last:
            return before
        return before._replace(
            offset=before.offset - args[1][2] * before.step, grid=before.grid and (shape[2], shape[3])
        )
    if name == "conv2d":
        window = dict(zip(("stride", "padding", "dilation"), args[3:6], strict=False)) | kwargs
        return _windows(args[1].shape[-2], window, before, shape)
    if name in ("max_pool2d", "avg_pool2d"):
        window = dict(zip(("kernel_size", "stride", "padding"), args[1:4], strict=False)) | kwargs
        kernel = _first(window["kernel_size"])
        return _windows(kernel, window | {"stride": window.get("stride") or kernel}, before, shape)
    if name == "__getitem__" and _is_rest_of_tokens(args[1]):
        return before._replace(prefix=before.prefix - args[1][1].start)
    return before._replace(grid=None) if name in REORDERING else before


def _permuted(name: str, args: Any, before: Layout, ndim: int) -> Layout:
    order = list(range(ndim))
    if name == "permute":
        order = list(args[1:]) if isinstance(args[1], int) else list(args[1])
    elif len(args) == 3:
        first, second = args[1:]
        order[first], order[second] = order[second], order[first]
    order = [dim % ndim for dim in order]
    if order in ([0, 2, 3, 1], [0, 2, 1]) and not before.channels_last:
        return before._replace(channels_last=True)
    if order in ([0, 3, 1, 2], [0, 2, 1]) and before.channels_last:
        return before._replace(channels_last=False)
    if ndim == 6 and order[1:3] == ([1, 3] if before.channels_last else [2, 4]):
        return before._replace(channels_last=True)
    return before._replace(grid=None)


def _reshaped(before: Layout, shape: tuple[int, ...], new: tuple[int, ...]) -> Layout:
    """Places in a row or on a grid again; or a map that is cut into patches.

    Those are (1, rows, height, columns, width, C) or (1, C, rows, height, columns, width).
    """
    if len(shape) != 4 or len(new) != 6 or before.grid is None:
        return before
    rows, height, columns, width = new[1:5] if before.channels_last else new[2:6]
    if (rows * height, columns * width) != before.grid:
        return before._replace(grid=None)
    step = before.step * height
    return before._replace(grid=(rows, columns), step=step, offset=before.offset + (step - before.step) / 2)


def _is_rest_of_tokens(index: Any) -> bool:
    """Whether an index is that of x[:, 1:]."""
    if not isinstance(index, tuple) or len(index) != 2 or not all(isinstance(one, slice) for one in index):
        return False
    return index[0] == slice(None) and isinstance(index[1].start, int) and index[1] == slice(index[1].start, None)


def _windows(kernel: int, window: dict[str, Any], before: Layout, shape: tuple[int, ...]) -> Layout:
    """Each place is now the middle of a window of places."""
    reach = (kernel - 1) * _first(window.get("dilation", 1)) / 2
    padding = window.get("padding", 0)
    ahead = {"same": reach, "valid": 0}[padding] if isinstance(padding, str) else _first(padding)
    offset = before.offset + (reach - ahead) * before.step
    step = before.step * _first(window.get("stride", 1))
    return Layout(channels_last=False, offset=offset, step=step, grid=before.grid and (shape[2], shape[3]))


def _first(number: Any) -> int:
    return number if isinstance(number, int) else number[0]


# Skip connections


class Skip(NamedTuple):
    """One addition of a residual unit. entering: the residual stream; shortcut: what is kept of it; branch: f of it."""

    entering: Value
    shortcut: Value
    branch: Value
    total: Value


@dataclass(frozen=True)
class Unit:
    """A module that adds to what it is given, and all the skips on the way from its input to its last addition."""

    call: Call
    skips: list[Skip]

    def part(self, skip: Skip) -> Call:
        """Which part of the unit a branch is: of those that it alone runs through, norms apart, that with most weights.

        Without weights (pooling) the first of them; a unit without parts is the part itself.
        """
        z, f = skip.entering, skip.branch
        parts = [c for c in self.call.inner if c.given and f.comes_from(c.given) and not z.comes_from(c.given)]
        # Matrices only: what scales channels is not a part.
        size = {call: sum(p.numel() for p in call.module.parameters() if p.ndim > 1) for call in parts}
        return max(parts, key=lambda call: (not is_norm(call), size[call]), default=self.call)

    def reading(self, skip: Skip) -> Tap | None:
        """Where the sum of a skip is read: what the unit gives, after an activation or not, or what a part takes."""
        if self.call.given is not None and skip.total in self.call.given.unchanged(*ACTIVATIONS):
            return self.call.tap("output")
        takes = [call for call in self.call.walk() if call.taken is not None and skip.total in call.taken.unchanged()]
        return takes[0].tap("input") if takes else None


def is_norm(call: Call) -> bool:
    """Whether the module calls itself a norm, and does not just have one."""
    if isinstance(call.module, nn.Identity) or any(isinstance(m, nn.Conv2d | nn.Linear) for m in call.module.modules()):
        return False
    return "norm" in type(call.module).__name__.lower() or call.name.rpartition(".")[2].startswith("norm")


def units(call: Call) -> list[Unit]:
    """The residual units inside a call, in order; where one lies in another, the outer."""
    skips = _skips(call)
    return [Unit(call, skips)] if skips else [unit for inner in call.inner for unit in units(inner)]


def _skips(call: Call) -> list[Skip]:
    """The skips on the way back from the last addition in a call to its input; none if there is no such way."""
    if call.taken is None or call.given is None:
        return []
    totals = {addition.total: addition for addition in call.additions if has_places(addition.total.shape)}
    wanted = next((a for a in reversed(totals.values()) if call.given.comes_from(a.total)), None)
    found: list[Skip] = []
    while wanted is not None:
        skip = _skip(wanted, call.taken)
        if skip is None:
            return []
        found.insert(0, skip)
        before = list(skip.entering.unchanged())
        if call.taken in before:
            return found
        wanted = next((totals[value] for value in before if value in totals), None)
    return []


def _skip(addition: Addition, start: Value) -> Skip | None:
    """An addition as a skip connection; the longer way to it is the branch."""
    shortcut, branch = sorted(addition.terms, key=lambda value: value.steps)
    if branch.comes_from(shortcut):
        return Skip(shortcut, shortcut, branch, addition.total)
    if shortcut.comes_from(start) and branch.comes_from(start):
        return Skip(start, shortcut, branch, addition.total)
    return None


def has_places(shape: tuple[int, ...]) -> bool:
    """Whether an activation of one image has several tokens, (1, T, D), or places, (1, C, H, W)."""
    return shape[0] == 1 and has_several(shape)


def has_several(shape: tuple[int, ...]) -> bool:
    """The same also of the windows of an image, (n, T, D) or (n, C, H, W)."""
    return (len(shape) == 3 and shape[1] > 1) or (len(shape) == 4 and shape[2:] != (1, 1))
