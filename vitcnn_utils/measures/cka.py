"""Centred kernel alignment: how alike two layers see the same images (paper, section 3, app. A; Figs 1, 2, 8, 12).

With x and y the (n, p) and (n, q) features of n images, K = x xᵀ and L = y yᵀ,

    CKA = Σ HSIC₁(K, L) / sqrt(Σ HSIC₁(K, K) · Σ HSIC₁(L, L)),

the sums running over minibatches and HSIC₁ the unbiased estimator of Song et al. (2012), as in Nguyen et al. (2021).
The biased one, which many libraries take, reads near 1 for any two layers with far more features than images.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError, check_finite
from vitcnn_utils.images import Images
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.run import SMALLEST_BATCH, Pace, minibatches, reduce_whole, whole_pace

COLUMNS = 1 << 15
"""How many entries of each Gram matrix are in float64 at a time."""

STRIP, WIDTH = 64, 1 << 13
"""On a CPU a Gram matrix is computed in blocks of so many rows, as far as the diagonal, from so many columns of the
features: these stay in the cache."""

Tokens = Literal["all", "spatial", "cls"]


def linear_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Unbiased linear CKA of one batch of features, in float64.

    x: (N, p); y: (N, q); of the same N >= 4 images. Later dimensions are flattened; (N,) is one feature. NaN if one is
    constant.

    >>> linear_cka([[0], [1], [2], [4]], [[0], [10], [20], [40]])
    1.0
    """
    a, b = (torch.from_numpy(np.array(v, dtype=np.float64)) for v in (x, y))
    if len(a) != len(b):
        raise VitcnnError(f"CKA compares features of the same images: {tuple(a.shape)} and {tuple(b.shape)} are not")
    return float(cka([hsic(centred_gram(a, "x")[None], centred_gram(b, "y")[None])])[0, 0])


def layer_similarity(
    a: Model,
    b: Model,
    images: Images,
    batch_size: int = 256,
    layers_a: Sequence[Layer] | None = None,
    layers_b: Sequence[Layer] | None = None,
    tokens: Tokens = "all",
    clip_norms: bool = False,
    seed: int = 0,
    left_out: bool = False,
) -> xr.DataArray:
    """Minibatch unbiased CKA of every layer of `a` with every layer of `b` (Figs 1, 2, 8, 12).

    A sample is an image: its activation is flattened, over tokens and channels or over the map, without pooling. Both
    models see the same crops. `a` and `b` may be one model, which then runs once. `seed` draws the minibatches, see
    `run.minibatches`.

    layers_a, layers_b: None for all; `model.blocks` for the block outputs only.
    tokens: which tokens of a model with tokens: 'all' (prefix tokens too), 'spatial' or 'cls'.
    clip_norms: see `centred_gram`. A map that changes with it is made by a few images of large norm.
    left_out: also give the map without each minibatch, along a first dimension `left_out`, for `intervals.jackknife`:
    -1 is the map of all minibatches, i the map without minibatch i, where there are two or more.

    batch_size: images a minibatch, on which the estimate depends a little. Where so many do not fit in memory, they go
    through the models in smaller parts, and CKA is that of the same minibatches (see `run.reduce_whole`).

    Returns (layer_a, layer_b), from about 0 (unrelated) to 1 (equal up to rotation and scale), NaN where a layer is
    constant over the images; coordinates kind, depth (0 to 1), block and stage of both (-1: none).
    Raises VitcnnError for fewer than 4 images and, with its name, for a layer with NaN or Inf.
    """
    layers_a = a.layers if layers_a is None else layers_a
    layers_b = b.layers if layers_b is None else layers_b
    grams = _grams_of_both(a, b, images, layers_a, layers_b, batch_size, tokens, clip_norms, seed)
    attrs = _attrs(a, b, images, batch_size, tokens, clip_norms, seed)
    return _map([hsic(*both) for both in grams], layers_a, layers_b, left_out, attrs)


def layer_similarities(
    a: Model,
    b: Model,
    images: Images,
    batch_size: int = 256,
    tokens: Tokens = "all",
    clip_norms: bool = False,
    seed: int = 0,
    left_out: bool = False,
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """The maps of all layers of `a` with each other, of `b` with each other, and of `a` with `b` (Figs 1 and 2).

    Each is as `layer_similarity` gives it, and the images go through each model once for all three.
    """
    how = batch_size, tokens, clip_norms, seed
    pairs = (a, a), (b, b), (a, b)
    batches: list[list[Hsic]] = [[], [], []]
    for x, y in _grams_of_both(a, b, images, a.layers, b.layers, *how):
        for found, both in zip(batches, ((x, x), (y, y), (x, y)), strict=True):
            found.append(hsic(*both))
    within_a, within_b, across = (
        _map(found, one.layers, other.layers, left_out, _attrs(one, other, images, *how))
        for found, (one, other) in zip(batches, pairs, strict=True)
    )
    return within_a, within_b, across


# From features to CKA


def centred_gram(features: Tensor, name: str = "the features", clip_norms: bool = False) -> Tensor:
    """The U-centred Gram matrix of one representation of a minibatch, below the diagonal: all that CKA needs of it.

    features: (n, ...) of n >= 4 images; dimensions after the first are flattened. float64 stays, all else becomes
    float32. No gradient goes through it.
    clip_norms: scale the features of each image down to the median norm of the batch where they are longer, so that a
    few images of large norm do not decide alone. This is done before centring, as the mean would follow the outliers.
    It is not in the paper.

    Returns (n (n - 1) / 2,), scaled so that the dot product of two of them is HSIC₁; zero for features that are
    constant up to rounding.
    Raises VitcnnError with `name` if there is NaN or Inf in the features, or in their squares, or fewer than 4 of them.
    """
    x = features.detach().unsqueeze(-1).flatten(1)
    n = len(x)
    if n < SMALLEST_BATCH:
        raise VitcnnError(f"CKA needs at least {SMALLEST_BATCH} images a batch, {name} has {n}: give more")
    if clip_norms:
        x = x.to(_precision(x))  # norms in float16 are soon infinite
        norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x = torch.where(norms > norms.median(), x * (norms.median() / norms), x)
    gram = _gram(x)
    variance = gram.diagonal().mean()
    check_finite(name, variance)  # the diagonal has the largest of all entries
    # The float32 mean of equal numbers misses them by up to 4 eps.
    rounding = 16 * torch.finfo(gram.dtype).eps * float(torch.linalg.vector_norm(x[0].to(gram.dtype)))
    if float(variance) ** 0.5 <= rounding:
        return gram.new_zeros(n * (n - 1) // 2)
    return _u_centred(gram) * (2 / (n * (n - 3))) ** 0.5


def _gram(x: Tensor) -> Tensor:
    """(n, p) features, centred over the n images, times their transpose: (n, n), of which the lower triangle counts.

    HSIC₁ does not change when features are shifted, but in float32 it drowns in the rounding of a large mean.
    """
    dtype, n = _precision(x), len(x)
    gram = torch.zeros(n, n, dtype=dtype, device=x.device)
    strip, width = (STRIP, WIDTH) if x.device.type == "cpu" else (n, 1 << 16)
    for columns in x.split(width, dim=1):
        c = columns.to(dtype)
        c = c - c.mean(dim=0)
        for start in range(0, n, strip):
            end = min(start + strip, n)
            gram[start:end, :end] += _products(c[start:end], c[:end])
    return gram


def _precision(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _products(a: Tensor, b: Tensor) -> Tensor:
    """(m, p) times the transpose of (n, p): (m, n)."""
    of_onednn = a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() > 0  # which refuses p = 0
    if of_onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        # By oneDNN, in half the time that MKL, which is behind `a @ b.T`, takes on AMD's processors. There is no public
        # way to it that makes no copies; this one is what torch.compile writes.
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return a @ b.T


def _u_centred(gram: Tensor) -> Tensor:
    """The entries below the diagonal of a symmetric (n, n), after U-centring (Székely and Rizzo, 2014)."""
    n = len(gram)
    below = gram.tril(-1)
    rows = (below.sum(dim=0) + below.sum(dim=1)) / (n - 2)
    below -= rows[:, None]
    below -= rows - rows.sum() / (n - 1)
    # MPS has had no tril_indices before torch 2.6.
    there = gram.device if gram.device.type != "mps" else torch.device("cpu")
    row, column = torch.tril_indices(n, n, -1, device=there).to(gram.device)
    return below[row, column]


class Hsic(NamedTuple):
    """HSIC₁ of one minibatch, float64, of two lists of representations.

    between: (La, Lb); within_a: (La,) and within_b: (Lb,), each representation with itself.
    """

    between: np.ndarray
    within_a: np.ndarray
    within_b: np.ndarray


def hsic(a: Tensor, b: Tensor) -> Hsic:
    """HSIC₁ from what `centred_gram` gives, stacked, of the same n images, (La, m) and (Lb, m), m = n (n - 1) / 2."""
    if a.device.type == "mps":  # has no float64
        a, b = a.cpu(), b.cpu()
    b = b.to(a.device)
    between = a.new_zeros(len(a), len(b), dtype=torch.float64)
    within_a, within_b = between.new_zeros(len(a)), between.new_zeros(len(b))
    for a32, b32 in zip(a.split(COLUMNS, dim=1), b.split(COLUMNS, dim=1), strict=True):
        a64, b64 = a32.double(), b32.double()
        between += a64 @ b64.T
        within_a += a64.square().sum(dim=1)
        within_b += b64.square().sum(dim=1)
    return Hsic(between.cpu().numpy(), within_a.cpu().numpy(), within_b.cpu().numpy())


def cka(batches: Sequence[Hsic]) -> np.ndarray:
    """CKA of all minibatches, (La, Lb): sums come before the ratio; NaN where a representation is constant in all."""
    between, within_a, within_b = (np.sum(parts, axis=0) for parts in zip(*batches, strict=True))
    scale = np.sqrt(np.outer(within_a, within_b))
    return np.divide(between, scale, out=np.full_like(scale, np.nan), where=scale > 0)


def labelled_cka(batches: Sequence[Hsic], dims: tuple[str, str], left_out: bool) -> xr.DataArray:
    """`cka` over `dims`; with `left_out` also without each minibatch, see `layer_similarity`."""
    if not left_out:
        return xr.DataArray(cka(batches), dims=dims, name="cka")
    without = [cka([*batches[:i], *batches[i + 1 :]]) for i in range(len(batches))] if len(batches) > 1 else []
    coords = {"left_out": np.arange(-1, len(without))}
    return xr.DataArray(np.stack([cka(batches), *without]), coords, ("left_out", *dims), name="cka")


# From a model to Gram matrices


def _grams_of_both(
    a: Model, b: Model, images: Images, layers_a: Sequence[Layer], layers_b: Sequence[Layer], batch_size: int,
    tokens: Tokens, clip_norms: bool, seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """For each minibatch the centred Grams of the layers of `a` and of `b`, stacked; if they are one, it runs once."""
    _check_tokens(a, b, tokens)
    run_a = list(dict.fromkeys([*layers_a, *layers_b])) if a is b else layers_a
    pace_a = whole_pace(a, images, run_a, batch_size)
    pace_b = pace_a if a is b else whole_pace(b, images, layers_b, batch_size)
    for pixels in minibatches(images, batch_size, seed, f"CKA, {a.name} and {b.name}"):
        grams_a = _layer_grams(a, pixels, run_a, tokens, clip_norms, pace_a)
        grams_b = grams_a if a is b else _layer_grams(b, pixels, layers_b, tokens, clip_norms, pace_b)
        yield (
            torch.stack([grams_a[layer.name] for layer in layers_a]),
            torch.stack([grams_b[layer.name] for layer in layers_b]),
        )


def _attrs(
    a: Model, b: Model, images: Images, batch_size: int, tokens: Tokens, clip_norms: bool, seed: int
) -> dict[str, Any]:
    return {
        "measure": "unbiased minibatch linear CKA", "units": "1",
        **provenance.of(a, images, seed, model_b=b), "batch_size": batch_size, "tokens": tokens,
        "clip_norms": int(clip_norms),
    }  # fmt: skip


def _map(
    batches: Sequence[Hsic], layers_a: Sequence[Layer], layers_b: Sequence[Layer], left_out: bool, attrs: dict[str, Any]
) -> xr.DataArray:
    return (
        labelled_cka(batches, ("layer_a", "layer_b"), left_out)
        .assign_coords(_layer_coords(layers_a, "a") | _layer_coords(layers_b, "b"))
        .assign_attrs(attrs)
    )


def _layer_grams(
    model: Model, pixels: Tensor, layers: Sequence[Layer], tokens: Tokens, clip_norms: bool, pace: Pace
) -> dict[str, Tensor]:
    """The centred Gram of each layer, made while the model runs, so that one activation is held at a time."""

    def gram(name: str, activation: Tensor) -> Tensor:
        return centred_gram(_of_tokens(model, activation, tokens), f"{name} of {model.name}", clip_norms)

    return reduce_whole(model, pixels, layers, gram, pace)


def _of_tokens(model: Model, activation: Tensor, tokens: Tokens) -> Tensor:
    """The chosen tokens of (B, T, D); a map has no tokens and stays whole."""
    if activation.ndim != 3 or tokens == "all":
        return activation
    return model.spatial(activation) if tokens == "spatial" else activation[:, :1]


def _check_tokens(a: Model, b: Model, tokens: Tokens) -> None:
    if tokens not in ("all", "spatial", "cls"):
        raise VitcnnError(f"tokens={tokens!r} is neither 'all', 'spatial' nor 'cls'")
    with_tokens = [model for model in (a, b) if model.grid is not None] or [a]
    without = [model.name for model in with_tokens if "CLS" not in model.prefix_names]
    if tokens == "cls" and without:
        raise VitcnnError(f"{without[0]} has no CLS token: give tokens='all' or 'spatial'")


def _layer_coords(layers: Sequence[Layer], side: Literal["a", "b"]) -> dict[str, Any]:
    dim = f"layer_{side}"
    return {
        dim: [layer.name for layer in layers],
        f"kind_{side}": (dim, [layer.kind for layer in layers]),
        f"depth_{side}": (dim, [layer.depth for layer in layers]),
        f"block_{side}": (dim, [-1 if layer.block is None else layer.block for layer in layers]),
        f"stage_{side}": (dim, [-1 if layer.stage is None else layer.stage for layer in layers]),
    }


# Summaries of a map (layer_a, layer_b)


def block_outputs(similarity: xr.DataArray) -> xr.DataArray:
    """The part of a map (layer_a, layer_b) that compares block outputs only."""
    chosen = {f"layer_{side}": (similarity[f"kind_{side}"] == "block").values for side in "ab"}
    return similarity.isel(chosen)


def low_high(similarity: xr.DataArray) -> float:
    """Mean CKA between layers of the first and of the last third of depth."""
    first, last = similarity.depth_a.values <= 1 / 3, similarity.depth_b.values >= 2 / 3
    return float(similarity[first, last].mean())


def spread(similarity: xr.DataArray) -> float:
    """Standard deviation of CKA over all pairs of two different layers."""
    return float(np.nanstd(_pairs(similarity)[1]))


def decay(similarity: xr.DataArray) -> float:
    """Slope of CKA against the distance in depth of two different layers, by least squares: CKA per whole depth."""
    distance, cka = _pairs(similarity)
    known = np.isfinite(cka)
    line = len(np.unique(distance[known])) > 1
    return float(np.polyfit(distance[known], cka[known], 1)[0]) if line else float("nan")


def stage_contrast(similarity: xr.DataArray, starts: Sequence[float]) -> float:
    """Mean CKA of different layers of one stage minus that of layers of two stages; NaN without a second stage.

    starts: depths at which stages begin; for a ViT, those of the CNN beside it.
    """
    # A depth fraction of one model, written as a float, may miss the layer it names in the other by rounding.
    stage = np.searchsorted(np.asarray(starts) - 1e-9, similarity.depth_a.values, side="right")
    row, column = np.triu_indices(len(stage), 1)
    return _contrast(similarity.values[row, column], stage[row] == stage[column])


def grid_contrast(similarity: xr.DataArray) -> float:
    """Mean CKA of layers of one kind in two different blocks, minus that of layers of two kinds in two blocks.

    Above zero the map looks like a grid: an attention output resembles other attention outputs, and so on. Both means
    run over the same pairs of blocks, so distance in depth plays no part. NaN for a map of block outputs only.
    """
    inside = similarity.block_a.values >= 0
    inner = similarity[inside, inside]
    block, kind = inner.block_a.values, inner.kind_a.values
    row, column = np.triu_indices(len(block), 1)
    apart = block[row] != block[column]
    row, column = row[apart], column[apart]
    return _contrast(inner.values[row, column], kind[row] == kind[column])


def _pairs(similarity: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in depth and CKA of all pairs of two different layers of one model."""
    row, column = np.triu_indices(len(similarity), 1)
    depth = similarity.depth_a.values
    return depth[column] - depth[row], similarity.values[row, column]


def _contrast(values: np.ndarray, same: np.ndarray) -> float:
    known = np.isfinite(values)
    if not (known & same).any() or not (known & ~same).any():
        return float("nan")
    return float(values[known & same].mean() - values[known & ~same].mean())


def split_contrast(similarity: xr.DataArray, block: int) -> float:
    """How sharply a block divides a model: mean CKA of block outputs on one side of it, minus mean CKA across it.

    similarity: (layer_a, layer_b) of one model with itself. The block's own output counts as after it, and no layer is
    compared with itself. Near 0 for a model that is alike all through, 1 at most; NaN where one side is empty.
    Raises VitcnnError if the model has no such block.
    """
    outputs = block_outputs(similarity)
    blocks = outputs["block_a"].values
    if block not in blocks:
        raise VitcnnError(
            f"there is no block {block} in {similarity.attrs.get('model', 'the model')}: the last is {blocks.max()}"
        )
    after = blocks >= block
    row, column = np.triu_indices(len(blocks), 1)
    return _contrast(outputs.values[row, column], after[row] == after[column])


def matched_depth(similarity: xr.DataArray) -> xr.Dataset:
    """Where in the ViT (layer_a) each CNN layer (layer_b) finds its like.

    Returns over layer_b: `argmax`, the depth of the most similar ViT layer; `centroid`, the mean depth of all ViT
    layers, weighted by how far their CKA lies above the lowest of that column (a soft ridge makes the argmax jump; what
    all layers share would pull every centroid to the middle); and `best`, the highest CKA. NaN for a constant layer.
    """
    depth = similarity.depth_a.values[:, None]  # (La, 1)
    cka = similarity.values  # (La, Lb)
    known = np.isfinite(cka).any(axis=0)
    filled = np.where(np.isfinite(cka), cka, -np.inf)
    weight = np.where(np.isfinite(cka), cka - np.where(np.isfinite(cka), cka, np.inf).min(axis=0), 0)
    total = weight.sum(axis=0)
    found = {
        "argmax": np.where(known, depth[filled.argmax(axis=0), 0], np.nan),
        "centroid": np.divide((weight * depth).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0),
        "best": np.where(known, filled.max(axis=0), np.nan),
    }
    coords = {name: ("layer_b", similarity[name].values) for name in ("layer_b", "kind_b", "depth_b", "block_b")}
    return xr.Dataset({name: ("layer_b", values) for name, values in found.items()}, coords, attrs=similarity.attrs)


def best_match(similarity: xr.DataArray) -> xr.DataArray:
    """For each ViT layer (layer_a), its highest CKA with any CNN layer."""
    return similarity.max("layer_b")


def stage_starts(similarity: xr.DataArray, side: Literal["a", "b"] = "a") -> list[float]:
    """The depths (0 to 1) at which the stages of a CNN begin, the first one left out; empty for a ViT.

    A stage is one resolution of the blocks; what comes before the first block belongs to the first stage.
    """
    stage, block, depth = (similarity[f"{name}_{side}"].values for name in ("stage", "block", "depth"))
    inside = np.flatnonzero((block >= 0) & (stage >= 0))
    starts = [j for i, j in itertools.pairwise(inside) if stage[j] != stage[i]]
    return [float(depth[j]) for j in starts]


def halfway(starts: Sequence[float]) -> float:
    """The depth at which the paper's 'lower half' of a CNN ends: behind half of its stages; NaN without stages.

    The 'about 60 layers' of the paper's ResNet50 are half of its indexed entries and end just behind stage 2 of 4.
    """
    return starts[(len(starts) + 1) // 2 - 1] if starts else float("nan")


def across_summary(similarity: xr.DataArray) -> dict[str, float]:
    """Of a map (ViT, CNN): median matched depths of the CNN's two halves, and the ViT's best CKA by thirds."""
    half = halfway(stage_starts(similarity, "b"))
    matched = matched_depth(similarity)
    lower, upper = matched.depth_b.values < half, matched.depth_b.values >= half
    best = best_match(similarity)
    last = best.depth_a.values >= 2 / 3
    found = matched.dropna("layer_b")
    return {
        "lower half": float(matched["argmax"][lower].median()),
        "upper half": float(matched["argmax"][upper].median()),
        "lower half, centroid": float(matched["centroid"][lower].median()),
        "upper half, centroid": float(matched["centroid"][upper].median()),
        "ahead": float((found.depth_b > found["argmax"]).astype(float).mean()),
        "first two thirds": float(best[~last].mean()),
        "last third": float(best[last].mean()),
    }


def within_numbers(maps: Mapping[str, tuple[xr.DataArray, xr.DataArray]]) -> pd.DataFrame:
    """The summaries of Fig 1 for several ways to measure: a row each, from (ViT map, CNN map)."""
    starts = stage_starts(next(iter(maps.values()))[1])
    columns = {
        "low–high CKA": low_high,
        "spread": spread,
        "CKA per depth": decay,
        "stage contrast": lambda s: stage_contrast(s, starts),
    }
    rows = {
        way: {
            f"{name}, {kind}": summary(whole(of_model))
            for name, summary in columns.items()
            for kind, of_model in zip(("ViT", "CNN"), pair, strict=True)
        }
        for way, pair in maps.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def across_numbers(maps: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """The summaries of Fig 2 for several ways to measure: a row each."""
    names = {
        "lower half": "matched depth, lower half of CNN",
        "upper half": "matched depth, upper half of CNN",
        "ahead": "share of CNN layers deeper than their match",
        "first two thirds": "best CKA, ViT's first two thirds",
        "last third": "best CKA, ViT's last third",
    }
    rows = {way: across_summary(whole(similarity)) for way, similarity in maps.items()}
    return pd.DataFrame.from_dict(rows, orient="index")[list(names)].rename(columns=names)


# Summaries of models trained on parts of the data (Fig 12)

CEILING, FLOOR = "second seed", "untrained"
"""Names of the controls among the models of a series: the same recipe from another start, and no training."""


def same_blocks(similarities: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """CKA of block i of each model with block i of the reference: (model, block), coordinate `depth` from 0 to 1.

    similarities: label -> `cka.layer_similarity` of the block outputs of a model (layer_a) with those of the reference
    (layer_b): as many blocks, in the same order. Labels are parts of the data, smallest first, `CEILING` and `FLOOR`.
    With `left_out`, which all must have or none, that is the first dimension of the result.
    attrs name every model and its weights.
    """
    maps = list(similarities.values())
    values = np.stack([np.diagonal(similarity.values, axis1=-2, axis2=-1) for similarity in maps], axis=-2)
    blocks = np.arange(values.shape[-1])
    depth = blocks / max(len(blocks) - 1, 1)
    coords: dict[Any, Any] = {name: maps[0][name] for name in maps[0].dims[:-2]}
    coords |= {"model": list(similarities), "block": blocks, "depth": ("block", depth)}
    every = {name: ", ".join(str(similarity.attrs[name]) for similarity in maps) for name in ("model", "weights")}
    attrs = maps[0].attrs | every | {"reference": maps[0].attrs["model_b"]}
    return xr.DataArray(values, coords, (*maps[0].dims[:-2], "model", "block"), name="cka", attrs=attrs)


def subsets(curves: xr.DataArray) -> list[str]:
    """The labels of the models that were trained on a part of the data, smallest part first."""
    return [label for label in curves["model"].values.tolist() if label not in (CEILING, FLOOR)]


def lower_third(curves: xr.DataArray) -> xr.DataArray:
    """Mean over the blocks of the lower third, (model,)."""
    return curves.sel(block=(curves.depth <= 1 / 3).values).mean("block")


def upper_half(curves: xr.DataArray) -> xr.DataArray:
    """Mean over the blocks of the upper half, (model,)."""
    return curves.sel(block=(curves.depth > 1 / 2).values).mean("block")
