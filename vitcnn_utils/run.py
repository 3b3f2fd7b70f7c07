"""Images through a model: in batches as large as fit in memory, or in minibatches that are seen as a whole."""

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from vitcnn_utils.errors import VitcnnError

if TYPE_CHECKING:
    from vitcnn_utils.images import Images
    from vitcnn_utils.models.facts import Layer, Model

T = TypeVar("T")

MOST = 64
"""The most images at once, unless the caller says otherwise; larger batches are little faster."""

SMALLEST_BATCH = 4
"""Images in a minibatch: the unbiased estimator of CKA divides by n (n - 3)."""

SHARE = {"cpu": 0.5, "cuda": 0.8, "mps": 0.8}
"""The part of a device's free memory that is used. Kernels take more than the tensors that can be counted, and a host
that runs out of memory kills the process, where a GPU raises an error."""


@dataclass
class Pace:
    """How many things are worked on at once; halved when they do not fit in memory.

    what: names the things, such as 'images through ViT-L/16', in the error where not even one fits.
    """

    size: int
    what: str

    @classmethod
    def of(cls, batch_size: int | None, model: "Model", probe: Callable[[], object], most: int = MOST) -> "Pace":
        """`batch_size` images at once; for None as many, up to `most`, as fit if each needs the memory of probe()."""
        if batch_size is not None and batch_size < 1:
            raise VitcnnError(f"batch_size={batch_size}: give 1 or more, or None for as many as fit in memory")
        pace = cls(batch_size or 1, _through(model))
        if batch_size is None:
            (needed,) = pace.over(1, lambda _: peak_bytes(probe))
            pace.size = min(most, max(1, room(model.device) // max(needed, 1)))
        return pace

    def over(self, count: int, step: Callable[[slice], T], title: str | None = None) -> Iterator[T]:
        """Yield step(part) for each slice of `count` things, in order.

        Where memory runs out, the same slice is run again in halves, so a step must be safe to repeat; VitcnnError
        where a slice of one does not fit. title: of the progress bar, which is text and shows in terminals only.
        """
        with tqdm(total=count, desc=title, leave=False, disable=True if title is None else None) as bar:
            start = 0
            while start < count:
                part = slice(start, min(start + self.size, count))
                done = attempt(partial(step, part))
                if done:
                    yield done.pop()
                    bar.update(part.stop - start)
                    start = part.stop
                else:
                    self.shrink(part.stop - start)

    def shrink(self, failed: int) -> None:
        """Halve the size after `failed` things did not fit."""
        if failed == 1:
            raise VitcnnError(f"there is no memory for even one of the {self.what}: take smaller images or models")
        self.size = failed // 2


def each_batch(model: "Model", images: "Images", batch_size: int | None, step: Callable[[Tensor], T]) -> Iterator[T]:
    """Yield step(x) for all images in order, x the prepared images, (B, 3, H, W).

    batch_size: B, or None for as many as fit in memory. A step may be repeated, see `Pace.over`.
    """
    pace = Pace.of(batch_size, model, lambda: step(prepared(model, images, slice(1))))
    return pace.over(len(images), lambda part: step(prepared(model, images, part)), title=model.name)


def of_first(model: "Model", images: "Images", function: Callable[[Tensor], T]) -> T:
    """function(x) of the first image, prepared, (1, 3, H, W); VitcnnError where not even that fits in memory."""
    (found,) = Pace(1, _through(model)).over(1, lambda part: function(prepared(model, images, part)))
    return found


def _through(model: "Model") -> str:
    return f"images through {model.name} on {model.device}"


def prepared(model: "Model", images: "Images", part: slice) -> Tensor:
    """Some of the images as the model takes them: (B, 3, H, W), on its device."""
    return model.prepare(torch.from_numpy(images.pixels[part]))


# Minibatches that are seen as a whole


def minibatches(images: "Images", batch_size: int, seed: int, title: str) -> Iterator[Tensor]:
    """Yield all images in an order drawn with `seed`, in minibatches of nearly equal size, uint8 (B, H, W, 3).

    Minibatches have at most `batch_size` images, at least 4, and differ by at most one: no image is dropped, and no
    small last minibatch, whose estimate would be poor, weighs as much as the others.
    """
    if batch_size < SMALLEST_BATCH or len(images) < SMALLEST_BATCH:
        few = f"batch_size={batch_size}" if batch_size < SMALLEST_BATCH else f"{len(images)} images of {images.name}"
        raise VitcnnError(f"CKA needs at least {SMALLEST_BATCH} images a batch, not {few}: give more")
    count = min(-(-len(images) // batch_size), len(images) // SMALLEST_BATCH)
    order = np.random.default_rng(seed).permutation(len(images))
    for chosen in tqdm(np.array_split(order, count), desc=title, leave=False, disable=None):
        yield torch.from_numpy(images.pixels[chosen])


def whole_pace(model: "Model", images: "Images", layers: "Sequence[Layer]", batch_size: int) -> Pace:
    """The pace for `reduce_whole`: up to `batch_size` images at once, fewer if they would not fit in memory."""

    def probe() -> None:
        model.reduce(prepared(model, images, slice(1)), layers, lambda name, activation: None)

    return Pace.of(None, model, probe, most=batch_size)


def reduce_whole(
    model: "Model", pixels: Tensor, layers: "Sequence[Layer]", function: Callable[[str, Tensor], T], pace: Pace
) -> dict[str, T]:
    """`Model.reduce` for a minibatch that `function` must see as a whole, as CKA must, even where it does not fit.

    pixels: uint8 (n, H, W, 3). Where n images do not fit, they go through the model in parts, and the activations of as
    many layers as there is room for are put together; then again for the next layers. The function sees the same; the
    time is one forward pass for each group of layers.
    """
    n = len(pixels)
    if n <= pace.size:
        done = attempt(lambda: model.reduce(model.prepare(pixels), layers, function))
        if done:
            return done.pop()
        pace.shrink(n)
    # On 'meta' a tensor has a shape and takes no memory.
    one = model.reduce(model.prepare(pixels[:1]), layers, lambda name, activation: activation.to("meta"))
    kept: dict[str, T] = {}
    for group in _groups(layers, {name: n * like.nbytes for name, like in one.items()}, room(model.device)):
        held = _hold(model, group, one, n)
        for _ in pace.over(n, partial(_put, model, pixels, group, held)):
            pass
        for layer in group:
            kept[layer.name] = function(layer.name, held.pop(layer.name))
    return kept


def _put(model: "Model", pixels: Tensor, group: "Sequence[Layer]", held: dict[str, Tensor], part: slice) -> None:
    """Write the activations of a part of the images into `held`."""
    model.reduce(model.prepare(pixels[part]), group, lambda name, activation: held[name][part].copy_(activation))


def _groups(layers: "Sequence[Layer]", needed: dict[str, int], there: int) -> "Iterator[list[Layer]]":
    """Groups of layers whose activations fit together into half of the free memory; the model needs some too."""
    group: list[Layer] = []
    for layer in layers:
        if group and sum(needed[x.name] for x in [*group, layer]) > there / 2:
            yield group
            group = []
        group.append(layer)
    yield group


def _hold(model: "Model", group: "Sequence[Layer]", one: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    """Empty tensors for the activations of n images, by layer; `one` holds those of one image."""
    done = attempt(
        lambda: {
            x.name: torch.empty(n, *one[x.name].shape[1:], dtype=one[x.name].dtype, device=model.device) for x in group
        }
    )
    if not done:
        raise VitcnnError(
            f"{group[0].name} of {model.name} does not fit in the memory of {model.device} for a minibatch of {n} "
            "images, which CKA compares as a whole: give a smaller batch_size (which changes the estimate somewhat)"
        )
    return done.pop()


# Memory


def attempt(step: Callable[[], T]) -> list[T]:
    """[step()], or [] if memory ran out; then nothing that the step made is held."""
    try:
        return [step()]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Out of the `except` clause, where the error no longer holds what the step had made.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return []


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on CUDA, MPS or the host."""
    signs = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")  # the last of cuBLAS and cuDNN
    out_of = (torch.cuda.OutOfMemoryError, MemoryError)
    return isinstance(error, out_of) or (isinstance(error, RuntimeError) and any(s in str(error) for s in signs))


def room(device: torch.device) -> int:
    """Bytes of a device's memory that tensors may take now."""
    return int(SHARE.get(device.type, SHARE["cpu"]) * free_memory(device))


def free_memory(device: torch.device) -> int:
    """Bytes of a device's memory that are free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(psutil.virtual_memory().available, _free_cgroup())


def _free_cgroup() -> int:
    """What the limit of a container leaves; cached pages of files count as free."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        taken = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        return max(0, int(limit) - int(taken["anon"]))
    except (OSError, ValueError, KeyError):
        return sys.maxsize  # no container, or one without a limit


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that tensors made during run() take at one time, on any device."""
    with _Live() as live:
        run()
    return live.peak


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that torch functions make, as long as these live."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, weakref.ref] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self.note(storage, 0)  # existed before, such as a weight
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            self.note(storage, storage.nbytes())
        return out

    def note(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self.known:
            return

        def gone(_: weakref.ref) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
