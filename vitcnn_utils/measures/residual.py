"""What skip connections carry (paper, section 6; Figs 7, E.1, E.2), and models run without one (beside Fig 8)."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError, check_finite
from vitcnn_utils.models.facts import Branch, Model, hook
from vitcnn_utils.run import each_batch

if TYPE_CHECKING:
    from vitcnn_utils.images import Images


def skip_ratios(model: Model, images: "Images", batch_size: int | None = None) -> xr.Dataset:
    """How much of each token comes through the skip, and how much from the branch: over (block, branch, token).

    z is what the skip adds: the residual stream before the norm or, where a CNN changes shape, its projection. f(z) is
    what the branch adds, after layer scale. Norms are over channels.
    ratio, median: mean and median over images of |z| / |f(z)| (Figs 7 and E.1).
    ratio_of_means: mean |z| / mean |f(z)|. The paper does not say which of the three it shows.
    cosine_branch, cosine_sum: mean cosine of z with f(z), and with z + f(z), before any ReLU (E.2: the paper's caption
    names one, its axis the other).
    ratio_by_image: |z| / |f(z)| of each image, (sample, block, branch, token), float32, for `intervals`; 1.9 GB for
    50,000 images and ViT-L/16.

    branch: 'attention' and 'mlp', or 'residual' in a CNN; see `models.Branch`. part (token): 'spatial', or the name of
    a prefix token, such as 'CLS'. projected (block): whether z is a projection. The stages of a CNN or a Swin have
    different numbers of places: these are averaged, image by image, into one spatial token. A branch that gives exactly
    0, as in a ResNet before training, has ratio infinity and cosine_branch NaN; a branch without a skip is NaN in all.
    attrs['grid']: rows and columns of the spatial tokens.

    batch_size: images at once; None for as many as fit in memory.
    Raises VitcnnError, with the branch's name, for NaN or Inf.
    """
    model.require("residual stream", "skip ratios")
    branches = [branch for branch in model.branches if branch.has_skip]
    taps = [tap for branch in branches for tap in (branch.shortcut, branch.branch)]

    def compare(x: Tensor) -> Tensor:
        with torch.no_grad(), model.reading(taps) as values:
            model.module(x)
        by_token = model.grid is not None
        z_and_f = [value if by_token else model.spatial(value) for value in values]
        pairs = zip(branches, z_and_f[::2], z_and_f[1::2], strict=True)
        return torch.stack([_compare(z, f, by_token, f"{b.name} of {model.name}") for b, z, f in pairs])

    by_image, total = [], np.zeros(())
    for values in each_batch(model, images, batch_size, compare):
        total = total + values.double().sum(2).numpy()
        by_image.append(values[:, 2].transpose(0, 1).numpy().copy())
    z_norm, f_norm, ratio, cosine_branch, cosine_sum = total.swapaxes(0, 1) / len(images)
    with np.errstate(divide="ignore", invalid="ignore"):  # a branch of 0
        ratio_of_means = z_norm / f_norm
    ratios = np.concatenate(by_image)  # (N, branches, T)
    by_image.clear()  # frees much memory
    # Branch by branch, as a median makes several copies.
    median = np.stack([np.median(ratios[:, i].astype(np.float64), axis=0) for i in range(len(branches))])
    return _by_block(model, branches, {
        "ratio": ratio, "ratio_of_means": ratio_of_means, "median": median, "cosine_branch": cosine_branch,
        "cosine_sum": cosine_sum, "ratio_by_image": ratios,
    }).assign_attrs(provenance.of(model, images) | ({"grid": model.grid} if model.grid else {}))  # fmt: skip


def _compare(z: Tensor, f: Tensor, by_token: bool, name: str) -> Tensor:
    """|z|, |f|, |z| / |f|, cos(z, f) and cos(z, z + f), by token or as a mean over places: (5, B, T).

    z, f: (B, T, D), or else (B, rows, columns, D).
    """
    s = z + f
    z_norm, f_norm, s_norm = (v.norm(dim=-1) for v in (z, f, s))
    check_finite(f"the skip or the branch of {name}", z_norm, f_norm)
    cosines = (z * f).sum(-1) / (z_norm * f_norm), (z * s).sum(-1) / (z_norm * s_norm)
    values = torch.stack([z_norm, f_norm, z_norm / f_norm, *cosines])
    # Where all channels of a place are 0 after a ReLU, its cosine is NaN and left out of the mean.
    return (values if by_token else values.flatten(2).nanmean(-1, keepdim=True)).cpu()


def _by_block(model: Model, branches: list[Branch], values: dict[str, np.ndarray]) -> xr.Dataset:
    """Values over (…, branches, T) as a data set over (…, block, branch, token), NaN where there is no such branch."""
    kinds = list(dict.fromkeys(branch.kind for branch in model.branches))
    blocks = sorted({branch.block for branch in model.branches})
    layers = {layer.block: layer for layer in model.blocks}
    projected = {branch.block for branch in model.branches if branch.shortcut != branch.skip}
    row, column = [blocks.index(branch.block) for branch in branches], [kinds.index(branch.kind) for branch in branches]
    T = values["ratio"].shape[-1]
    data = {}
    for name, value in values.items():
        array = np.full((*value.shape[:-2], len(blocks), len(kinds), T), np.nan, value.dtype)
        array[..., row, column, :] = value
        data[name] = (("sample", "block", "branch", "token")[-array.ndim :], array, {"units": "1"})
    coords = {
        "block": blocks, "branch": kinds, "token": np.arange(T),
        "layer": ("block", [layers[block].name for block in blocks]),
        "depth": ("block", [layers[block].depth for block in blocks]),
        "projected": ("block", [block in projected for block in blocks]),
        "part": ("token", model.prefix_names + ["spatial"] * (T - model.prefix_tokens)),
    }  # fmt: skip
    return xr.Dataset(data, coords)


@contextmanager
def without_skip(model: Model, block: int, branch: str | None = None) -> Iterator[None]:
    """While open, the model runs without the skips of a block: z -> f(z) instead of z + f(z).

    The models of Fig 8 were trained without a skip; this cuts it from a model that was trained with it.

    branch: 'attention', 'mlp' or 'residual' for one of them, None for all that the block has.
    The branch gives f(z) - z to the addition, or a projection gives 0, so f(z) is exact up to rounding;
    `model.reading` and `model.record` still see f(z) itself as the branch.
    Raises VitcnnError if there is no such block or branch, or it has no skip.
    """
    model.require("residual stream", "the removal of a skip")
    chosen = _chosen(model, block, branch)
    # The model must be read once as it is, without the hooks below, to know which activations it overwrites.
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
    """Make a skip add nothing until the stack is closed."""
    if branch.shortcut != branch.skip:  # a projection is a module of its own, so its output can be set to zero
        stack.enter_context(hook(model.module, branch.shortcut, torch.zeros_like))
        return
    held: list[Tensor] = []
    stack.enter_context(hook(model.module, branch.skip, lambda z: held.append(z)))
    stack.enter_context(hook(model.module, branch.branch, lambda f: f - held.pop()))


# Summaries of the ratios

AVERAGES = {"ratio": "mean of ratios", "ratio_of_means": "ratio of mean norms", "median": "median ratio"}


def by_part(ratios: xr.Dataset, statistic: str = "ratio") -> xr.DataArray:
    """A statistic of `skip_ratios` over (block, branch, part): 'CLS' and 'spatial'.

    Spatial tokens are averaged. A model without a CLS token has only 'spatial'.
    """
    values, part = ratios[statistic], ratios["part"].values
    means = {"spatial": values.isel(token=part == "spatial").mean("token")}
    if "CLS" in part:
        means = {"CLS": values.isel(token=part.tolist().index("CLS")).reset_coords(drop=True), **means}
    return xr.concat(means.values(), "part", coords="minimal").assign_coords(part=list(means))


def averages(models: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """The three averages that the paper's text allows, in each half of the blocks: (tokens, average).

    tokens: 'model, branch, part'. Within a half, the geometric mean over blocks is taken: 4 and 1/4 average to 1.
    """
    rows: dict[str, list[float]] = {}
    for name, ratios in models.items():
        for branch in ratios["branch"].values:
            for part in by_part(ratios)["part"].values:
                rows[f"{name}, {branch}, {part}"] = [
                    geometric_mean(by_part(ratios, statistic).sel(branch=branch, part=part)[half])
                    for half in halves(ratios)
                    for statistic in AVERAGES
                ]
    columns = [f"{half} half: {title}" for half in ("first", "second") for title in AVERAGES.values()]
    return xr.DataArray(list(rows.values()), {"tokens": list(rows), "average": columns}, ("tokens", "average"))


def halves(ratios: xr.Dataset) -> tuple[slice, slice]:
    """The first and the second half of the blocks; a middle one counts as second."""
    middle = ratios.sizes["block"] // 2
    return slice(0, middle), slice(middle, None)


def geometric_mean(ratios: xr.DataArray) -> float:
    """Geometric mean of the finite ratios, NaN if there are none."""
    logs = np.log(ratios.values[np.isfinite(ratios.values)])
    return float(np.exp(logs.mean())) if logs.size else float("nan")
