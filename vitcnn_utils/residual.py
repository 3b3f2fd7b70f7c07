"""What skip connections carry: norm ratios (paper, section 6; Figs 7, E.1, E.2), and models without one (Fig 8)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.models import Branch, Model, hook

if TYPE_CHECKING:
    from vitcnn_utils.data import Images


def skip_ratios(model: Model, images: "Images", batch_size: int = 64) -> xr.Dataset:
    """How much of each token comes through the skip, and how much from the branch: over (block, branch, token).

    With z what the skip adds (the residual stream before the norm; where a CNN changes shape, its projection), f(z)
    what the branch adds (after layer scale), and norms over channels:
    ratio: mean over images of |z| / |f(z)| (Figs 7 and E.1); median: their median.
    ratio_of_means: mean |z| / mean |f(z)|. The paper does not say which of the three it shows.
    cosine_branch, cosine_sum: mean cosine of z with f(z), and with z + f(z), before any ReLU (E.2; the paper's caption
    and axis differ).

    branch is 'attention' or 'mlp', or, in a CNN, 'residual'; see `models.Branch`. Coordinate part (token): 'prefix'
    (CLS and the like) or 'spatial'. The places of a CNN's map differ in number from stage to stage, and so do the
    tokens of a Swin: they are averaged, image by image, into one spatial token. A branch that gives exactly 0, as in a
    ResNet that starts training, has ratio infinity and no cosine_branch (NaN); one without a skip is NaN in all.
    Coordinate projected (block): z is a projection.
    """
    model.require("residual stream", "skip ratios")
    branches = [branch for branch in model.branches if branch.has_skip]
    taps = [tap for branch in branches for tap in (branch.shortcut, branch.branch)]
    parts: list[list[Tensor]] = [[] for _ in branches]
    for pixels in tqdm(images.batches(batch_size), total=-(-len(images) // batch_size), desc=model.name,
                       leave=False, disable=None):  # fmt: skip
        with torch.no_grad(), model.reading(taps) as values:
            model.module(model.prepare(pixels))
        for part, z, f in zip(parts, values[::2], values[1::2], strict=True):
            part.append(_compare(z, f, by_token=model.grid is not None))
    summaries = [_summarize(torch.cat(part, dim=1).numpy()) for part in parts]
    return _label(model, branches, summaries, images)


def _compare(z: Tensor, f: Tensor, by_token: bool) -> Tensor:
    """|z|, |f|, |z| / |f|, cos(z, f) and cos(z, z + f), by token or as a mean over tokens or places: (5, B, T)."""
    over = 1 if z.ndim == 4 else -1
    s = z + f
    z_norm, f_norm, s_norm = (v.norm(dim=over) for v in (z, f, s))
    cosines = (z * f).sum(over) / (z_norm * f_norm), (z * s).sum(over) / (z_norm * s_norm)
    values = torch.stack([z_norm, f_norm, z_norm / f_norm, *cosines])
    # A place whose channels are all 0 after a ReLU has no direction: it is left out of the mean cosine.
    return (values if by_token else values.flatten(2).nanmean(-1, keepdim=True)).cpu().double()


def _summarize(values: np.ndarray) -> dict[str, np.ndarray]:
    """(5, N, T) of `_compare` to what is reported of a branch, (T,) each."""
    z_norm, f_norm, ratio, cosine_branch, cosine_sum = values
    with np.errstate(divide="ignore", invalid="ignore"):  # a branch of 0
        ratio_of_means = z_norm.mean(0) / f_norm.mean(0)
    return {
        "ratio": ratio.mean(0),
        "ratio_of_means": ratio_of_means,
        "median": np.median(ratio, axis=0),
        "cosine_branch": cosine_branch.mean(0),
        "cosine_sum": cosine_sum.mean(0),
    }


def _label(
    model: Model, branches: list[Branch], summaries: list[dict[str, np.ndarray]], images: "Images"
) -> xr.Dataset:
    kinds = list(dict.fromkeys(branch.kind for branch in model.branches))
    blocks = sorted({branch.block for branch in model.branches})
    T = max(len(summary["ratio"]) for summary in summaries)
    arrays = {name: np.full((len(blocks), len(kinds), T), np.nan) for name in summaries[0]}
    for branch, summary in zip(branches, summaries, strict=True):
        for name, value in summary.items():
            arrays[name][blocks.index(branch.block), kinds.index(branch.kind)] = value
    layers = {layer.block: layer for layer in model.blocks}
    projected = {branch.block for branch in model.branches if branch.shortcut != branch.skip}
    return xr.Dataset(
        {name: (("block", "branch", "token"), value, {"units": "1"}) for name, value in arrays.items()},
        coords={"block": blocks, "branch": kinds, "token": np.arange(T),
                "part": ("token", ["prefix"] * model.prefix_tokens + ["spatial"] * (T - model.prefix_tokens)),
                "layer": ("block", [layers[block].name for block in blocks]),
                "depth": ("block", [layers[block].depth for block in blocks]),
                "projected": ("block", [block in projected for block in blocks])},
        attrs={"model": model.name, "images": images.name, "n_images": len(images)},
    )  # fmt: skip


@contextmanager
def without_skip(model: Model, block: int, branch: str | None = None) -> Iterator[None]:
    """While open, the model runs without the skips of a block: z -> f(z) instead of z + f(z).

    branch: 'attention', 'mlp' or 'residual' for one of them, None for all that the block has. This is another
    experiment than that of Fig 8, whose models were trained without: one trained with a skip never had to do without.
    The branch gives f(z) - z to the addition, or the projection 0, so f(z) is exact up to rounding; `model.reading` and
    `model.record` still see f(z) itself as the branch.
    VitcnnError if there is no such block or branch, or it never had a skip.
    """
    model.require("residual stream", "the removal of a skip")
    chosen = _chosen(model, block, branch)
    # Which activations are overwritten has to be known of the model as it is, without the hooks below.
    with model.reading([layer.tap for layer in model.layers]):
        pass
    with ExitStack() as stack:
        for one in chosen:
            _undo(model, one, stack)
        yield


def _chosen(model: Model, block: int, branch: str | None) -> list[Branch]:
    of_block = [b for b in model.branches if b.block == block]
    if not of_block:
        last = max(b.block for b in model.branches)
        raise VitcnnError(f"{model.name} has no block {block} with a skip: its blocks are 0 to {last}")
    chosen = [b for b in of_block if branch in (None, b.kind)]
    if not chosen:
        there = ", ".join(b.kind for b in of_block)
        raise VitcnnError(f"block {block} of {model.name} has no branch {branch!r}, but: {there}")
    if not all(b.has_skip for b in chosen):
        raise VitcnnError(f"block {block} of {model.name} was trained without skips: there is none to remove")
    return chosen


def _undo(model: Model, branch: Branch, stack: ExitStack) -> None:
    """Makes a skip add nothing, until the stack is closed."""
    if branch.shortcut != branch.skip:  # a projection: a module of its own, whose output can be zero
        stack.enter_context(hook(model.module, branch.shortcut, torch.zeros_like))
        return
    held: list[Tensor] = []
    stack.enter_context(hook(model.module, branch.skip, lambda z: held.append(z)))
    stack.enter_context(hook(model.module, branch.branch, lambda f: f - held.pop()))
