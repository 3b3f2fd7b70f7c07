"""Centred kernel alignment: how alike two layers see the same images (paper, section 3, app. A; Figs 1, 2, 8, 12).

With x and y the (n, p) and (n, q) features of n images, K = x xᵀ and L = y yᵀ,

    CKA = Σ HSIC₁(K, L) / sqrt(Σ HSIC₁(K, K) · Σ HSIC₁(L, L)),

the sums running over minibatches and HSIC₁ the unbiased estimator of Song et al. (2012), as in Nguyen et al. (2021).
The biased one, which many libraries take, reads near 1 for any two layers with more features than images.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError, not_finite
from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.run import Pace, reduce_whole, whole_pace
from vitcnn_utils.sums import Labels

SMALLEST_BATCH = 4
"""HSIC₁ divides by n (n - 3): with fewer than 4 images there is none."""

COLUMNS = 1 << 15
"""So many entries of every Gram matrix are in float64 at a time."""

STRIP, WIDTH = 64, 1 << 13
"""On a CPU so many rows of a Gram matrix are computed at once, as far as the diagonal, from so many columns of the
features, which stay in its cache."""

Tokens = Literal["all", "spatial", "cls"]

Part = tuple[int, int]
"""(i, k): the i-th of k parts of the minibatches, counted from 0."""


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
    return float(HsicSums.of_features({"x": a}, {"y": b}).cka()[0, 0])


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
) -> xr.DataArray:
    """Minibatch unbiased CKA of every layer of `a` with every layer of `b` (Figs 1, 2, 8, 12).

    A sample is an image: its activation is flattened, over tokens and channels or over the map, without pooling. Both
    models see the same crops. `a` and `b` may be one model, which then runs once. See `minibatches` for how the images
    are divided.

    layers_a, layers_b: None for all; `model.blocks` for the block outputs only.
    tokens: what a model with tokens is compared by: 'all' (prefix tokens too), 'spatial' or 'cls' (first of all).
    clip_norms: see `centred_gram`. A map that changes with it is made by a few images of large norm.

    batch_size: images a minibatch, on which the estimate depends a little. Where so many do not fit in memory, they go
    through the models in smaller parts, and CKA is that of the same minibatches (see `batching.reduce_whole`).

    Returns (layer_a, layer_b), from about 0 (unrelated) to 1 (equal up to rotation and scale), NaN where a layer is
    constant over the images; coordinates kind, depth (0 to 1) and block (-1 outside blocks) of both.
    Raises VitcnnError for fewer than 4 images and, with its name, for a layer with NaN or Inf.
    """
    return similarity_sums(a, b, images, batch_size, layers_a, layers_b, tokens, clip_norms, seed).result()


def similarity_sums(
    a: Model,
    b: Model,
    images: Images,
    batch_size: int = 256,
    layers_a: Sequence[Layer] | None = None,
    layers_b: Sequence[Layer] | None = None,
    tokens: Tokens = "all",
    clip_norms: bool = False,
    seed: int = 0,
    part: Part = (0, 1),
) -> "SimilaritySums":
    """What `layer_similarity` is made of, of some of the minibatches (see `minibatches`); those of all parts add up.

    >>> parts = [similarity_sums(vit, cnn, images, part=(i, 2)) for i in range(2)]
    >>> similarity = (parts[0] + parts[1]).result()
    """
    layers_a = a.layers if layers_a is None else layers_a
    layers_b = b.layers if layers_b is None else layers_b
    _check_tokens(a, b, tokens)
    run_a = list(dict.fromkeys([*layers_a, *layers_b])) if a is b else layers_a
    pace_a = whole_pace(a, images, run_a, batch_size)
    pace_b = pace_a if a is b else whole_pace(b, images, layers_b, batch_size)
    total, count = HsicSums.zeros(len(layers_a), len(layers_b)), 0
    for pixels in minibatches(images, batch_size, seed, f"CKA, {a.name} and {b.name}", part):
        grams_a = _layer_grams(a, pixels, run_a, tokens, clip_norms, pace_a)
        grams_b = grams_a if a is b else _layer_grams(b, pixels, layers_b, tokens, clip_norms, pace_b)
        total += HsicSums.of_grams(
            torch.stack([grams_a[layer.name] for layer in layers_a]),
            torch.stack([grams_b[layer.name] for layer in layers_b]),
        )
        count += len(pixels)
    attrs = {
        "measure": "unbiased minibatch linear CKA", "units": "1", "model_a": a.name,
        **provenance.of(a, images, seed, model_b=b), "n_images": count, "batch_size": batch_size, "tokens": tokens,
        "clip_norms": int(clip_norms),
    }  # fmt: skip
    return SimilaritySums(total, Labels(_layer_coords(layers_a, "a") | _layer_coords(layers_b, "b"), attrs))


@dataclass(frozen=True)
class SimilaritySums:
    """HSIC₁ of all pairs of layers, with what to call them."""

    hsic: "HsicSums"
    labels: Labels

    def __add__(self, other: "SimilaritySums") -> "SimilaritySums":
        labels = self.labels + other.labels
        return SimilaritySums(self.hsic + other.hsic, labels)

    def result(self) -> xr.DataArray:
        """As `layer_similarity` describes it."""
        coords, attrs = dict(self.labels.coords), dict(self.labels.attrs)
        return xr.DataArray(self.hsic.cka(), dims=("layer_a", "layer_b"), coords=coords, name="cka", attrs=attrs)


def minibatches(images: Images, batch_size: int, seed: int, title: str, part: Part = (0, 1)) -> Iterator[Tensor]:
    """All images in an order drawn with `seed`, in batches of nearly equal size, uint8 (B, H, W, 3).

    Batches have at most `batch_size` images and differ by at most one: none is dropped, and no small last one, whose
    estimate would be poor, weighs as much as the others. Where batches would have fewer than 4 images, there are fewer.
    part: (i, k) for the batches i, i + k, i + 2 k, ... only, to be given to several machines.
    """
    if batch_size < SMALLEST_BATCH or len(images) < SMALLEST_BATCH:
        few = f"batch_size={batch_size}" if batch_size < SMALLEST_BATCH else f"{len(images)} images of {images.name}"
        raise VitcnnError(f"CKA needs at least {SMALLEST_BATCH} images a batch, not {few}: give more")
    count = min(-(-len(images) // batch_size), len(images) // SMALLEST_BATCH)
    index, of = part
    if not 0 <= index < of <= count:
        raise VitcnnError(f"part={part} of {count} minibatches: give (i, k) with 0 <= i < k <= {count}")
    order = np.random.default_rng(seed).permutation(len(images))
    for chosen in tqdm(np.array_split(order, count)[index::of], desc=title, leave=False, disable=None):
        yield torch.from_numpy(images.pixels[chosen])


# From features to CKA


def centred_gram(features: Tensor, name: str = "the features", clip_norms: bool = False) -> Tensor:
    """All that CKA asks of one representation of a minibatch: its U-centred Gram matrix, below the diagonal.

    features: (n, ...) of n >= 4 images; dimensions after the first are flattened. float64 stays, all else becomes
    float32. No gradient goes through it.
    clip_norms: the features of each image are scaled down to the median norm of the batch where they are longer, before
    they are centred (the mean would follow the outliers), so that no few images of large norm decide alone. This is
    not in the paper.

    Returns (n (n - 1) / 2,), scaled so that the dot product of two of them is HSIC₁; zero for constant features, where
    constant means up to rounding.
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
    variance = float(gram.diagonal().mean())
    if not isfinite(variance):  # the diagonal has the largest of all entries
        raise not_finite(name)
    # The float32 mean of equal numbers misses them by up to 4 eps.
    rounding = 16 * torch.finfo(gram.dtype).eps * float(torch.linalg.vector_norm(x[0].to(gram.dtype)))
    if variance**0.5 <= rounding:
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


@dataclass(frozen=True)
class HsicSums:
    """HSIC₁ of every pair of two lists of representations, summed over minibatches: what CKA is made of.

    Sums over parts of the images, computed apart, add up: `a + b` is what both parts in one would have given.

    >>> total = HsicSums.zeros(1, 2)
    >>> for x, y, z in batches:
    ...     total += HsicSums.of_features({"x": x}, {"y": y, "z": z})
    >>> total.cka().shape
    (1, 2)

    between: (La, Lb); within_a: (La,) and within_b: (Lb,), each representation with itself; all float64.
    """

    between: np.ndarray
    within_a: np.ndarray
    within_b: np.ndarray

    @classmethod
    def zeros(cls, count_a: int, count_b: int) -> "HsicSums":
        """No minibatch yet."""
        return cls(np.zeros((count_a, count_b)), np.zeros(count_a), np.zeros(count_b))

    @classmethod
    def of_features(cls, a: Mapping[str, Tensor], b: Mapping[str, Tensor], clip_norms: bool = False) -> "HsicSums":
        """Of one minibatch: the features of the same images, (n, ...) each, by name (for errors)."""
        grams_a, grams_b = (torch.stack([centred_gram(x, name, clip_norms) for name, x in m.items()]) for m in (a, b))
        return cls.of_grams(grams_a, grams_b)

    @classmethod
    def of_grams(cls, a: Tensor, b: Tensor) -> "HsicSums":
        """Of one minibatch: what `centred_gram` gives, stacked: (La, m) and (Lb, m), m = n (n - 1) / 2."""
        if a.shape[1] != b.shape[1]:
            raise VitcnnError(f"CKA compares features of the same images, not Grams of {a.shape[1]} and {b.shape[1]}")
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
        return cls(between.cpu().numpy(), within_a.cpu().numpy(), within_b.cpu().numpy())

    def __add__(self, other: "HsicSums") -> "HsicSums":
        if self.between.shape != other.between.shape:
            raise VitcnnError(f"sums over {self.between.shape} and {other.between.shape} layers do not add up")
        return HsicSums(self.between + other.between, self.within_a + other.within_a, self.within_b + other.within_b)

    def cka(self) -> np.ndarray:
        """(La, Lb); NaN where either representation is constant in all minibatches."""
        scale = np.sqrt(np.outer(self.within_a, self.within_b))
        return np.divide(self.between, scale, out=np.full_like(scale, np.nan), where=scale > 0)


# From a model to Gram matrices


def _layer_grams(
    model: Model, pixels: Tensor, layers: Sequence[Layer], tokens: Tokens, clip_norms: bool, pace: Pace
) -> dict[str, Tensor]:
    """The centred Gram of each layer, made while the model runs, so that one activation is held at a time."""

    def gram(name: str, activation: Tensor) -> Tensor:
        return centred_gram(_of_tokens(model, activation, tokens), f"{name} of {model.name}", clip_norms)

    return reduce_whole(model, pixels, layers, gram, pace)


def _of_tokens(model: Model, activation: Tensor, tokens: Tokens) -> Tensor:
    """What `tokens` names of (B, T, D); a map has no tokens and stays whole."""
    if activation.ndim != 3 or tokens == "all":
        return activation
    return model.spatial(activation) if tokens == "spatial" else activation[:, :1]


def _check_tokens(a: Model, b: Model, tokens: Tokens) -> None:
    if tokens not in ("all", "spatial", "cls"):
        raise VitcnnError(f"tokens={tokens!r} is neither 'all', 'spatial' nor 'cls'")
    without = [model.name for model in (a, b) if model.grid is not None and "CLS" not in model.prefix_names]
    if a.grid is None and b.grid is None:
        without = [a.name, b.name]
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
    return similarity[(similarity.kind_a == "block").values, (similarity.kind_b == "block").values]


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
    return float(np.polyfit(distance[known], cka[known], 1)[0]) if np.ptp(distance[known]) > 0 else float("nan")


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
            f"there is no block {block} in {similarity.attrs.get('model_a', 'the model')}: the last is {blocks.max()}"
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
            f"{name}, {kind}": summary(of_model)
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
    rows = {way: across_summary(similarity) for way, similarity in maps.items()}
    return pd.DataFrame.from_dict(rows, orient="index")[list(names)].rename(columns=names)


# Summaries of models trained on parts of the data (Fig 12)

CEILING, FLOOR = "second seed", "untrained"
"""Names of the controls among the models of a series: the same recipe from another start, and no training."""


def same_blocks(similarities: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """CKA of block i of each model with block i of the reference: (model, block), coordinate `depth` from 0 to 1.

    similarities: label -> `cka.layer_similarity` of the block outputs of a model (layer_a) with those of the reference
    (layer_b): as many blocks, in the same order. Labels are parts of the data, smallest first, `CEILING` and `FLOOR`.
    """
    first = next(iter(similarities.values()))
    values = np.stack([np.diagonal(similarity.values) for similarity in similarities.values()])
    blocks = np.arange(values.shape[1])
    coords = {
        "model": list(similarities), "block": blocks, "depth": ("block", blocks / max(len(blocks) - 1, 1)),
    }  # fmt: skip
    attrs = first.attrs | {"reference": first.attrs["model_b"]}
    return xr.DataArray(values, dims=("model", "block"), coords=coords, name="cka", attrs=attrs)


def subsets(curves: xr.DataArray) -> list[str]:
    """The labels of the models that were trained on a part of the data, smallest part first."""
    return [label for label in curves["model"].values.tolist() if label not in (CEILING, FLOOR)]


def lower_third(curves: xr.DataArray) -> xr.DataArray:
    """Mean over the blocks of the lower third, (model,)."""
    return curves.sel(block=(curves.depth <= 1 / 3).values).mean("block")


def upper_half(curves: xr.DataArray) -> xr.DataArray:
    """Mean over the blocks of the upper half, (model,)."""
    return curves.sel(block=(curves.depth > 1 / 2).values).mean("block")
