"""Arrays as the measures give them, made by hand, and an explorer of each kind over small ones."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import made
import numpy as np
import xarray as xr
from similarity_maps import similarity as layer_map
from test_attention import random_weights
from textbook import noise_images

from vitcnn_utils import explorers
from vitcnn_utils.explorers.base import Explorer
from vitcnn_utils.measures.attention import patch_distances, query_distance, uniform_distance
from vitcnn_utils.measures.localization import DIMS
from vitcnn_utils.measures.receptive_field import radius_of_mass

STILL = SimpleNamespace(
    svg='<svg viewBox="0 0 9 9" role="img" aria-label="A figure"><rect width="9" height="9"/></svg>'
)
# Of every array of an explorer, what it was made of.
Given = dict[str, Any]


def heads(
    images: int = 2,
    blocks: int = 3,
    heads: int = 4,
    grid: tuple[int, int] = (4, 5),
    prefix: Sequence[str] = ("CLS",),
    seed: int = 0,
) -> tuple[xr.Dataset, xr.DataArray]:
    """Attention drawn at random and the distances that follow from it, as if measured on these images alone."""
    P, T = len(prefix), len(prefix) + grid[0] * grid[1]
    weights = random_weights((images, blocks, heads), T, seed).astype(np.float32)
    distance, renormalized = (query_distance(weights, grid, 8, P, way).mean(-1).mean(0) for way in (False, True))
    dims = ("block", "head")
    variables = {
        "distance": (dims, distance),
        "distance_renormalized": (dims, renormalized),
        "prefix_mass": (dims, weights[..., P:, :P].sum(-1).mean((0, 3))),
    }
    attrs = {"model": "made up", "n_images": images, "grid": grid, "patch_size": 8, "prefix": list(prefix)}
    coords = {"block": range(blocks), "head": range(heads)}
    distances = xr.Dataset(variables, coords, {**attrs, "uniform_distance": uniform_distance(grid, 8)})
    return distances, xr.DataArray(weights, coords, ("image", *dims, "query", "key"), attrs=attrs)


def places(layers: int, grid: int, own: float = 0.5, noise: float = 0.0, seed: int = 0) -> xr.DataArray:
    """(layer, row, col, patch_row, patch_col): a peak at the own patch that moves off by one column in each layer."""
    at = np.arange(grid)
    row, col, patch_row, patch_col = np.meshgrid(at, at, at, at, indexing="ij")
    far = [np.hypot(row - patch_row, (col + layer) % grid - patch_col) for layer in range(layers)]
    values = own * np.exp(-np.array(far) / 2)
    values = values + noise * np.random.default_rng(seed).standard_normal(values.shape)
    coords = {"layer": [f"b{i}" for i in range(layers)], "depth": ("layer", np.linspace(0.1, 1, layers))}
    return xr.DataArray(values, coords | dict.fromkeys(DIMS, at), ("layer", *DIMS))


def probed(
    readouts: Sequence[str] = ("cls", "mean", "token"), grid: int = 4, layers: int = 3, draws: int = 3, seed: int = 0
) -> xr.Dataset:
    """Accuracies drawn at random, those of 'token' the mean over tokens."""
    rng = np.random.default_rng(seed)
    by_token = rng.uniform(0.2, 0.6, (layers, grid, grid, draws))
    accuracy = rng.uniform(0.2, 0.9, (layers, len(readouts), draws))
    data: dict[str, Any] = {"accuracy": (("layer", "readout", "draw"), accuracy)}
    if "token" in readouts:
        accuracy[:, readouts.index("token")] = by_token.mean((1, 2))
        data["token_accuracy"] = (("layer", "row", "col", "draw"), by_token)
    coords = {
        "layer": [f"b{i}" for i in range(layers)], "depth": ("layer", np.linspace(0.2, 1, layers)),
        "readout": list(readouts), "draw": range(draws),
    }  # fmt: skip
    return xr.Dataset(data, coords, {"chance": 0.1, "shots": 10, "images": "cifar10", "n_test": 1000})


def fields(values: Any, depths: Any, kind: str | Sequence[str] = "attention") -> xr.DataArray:
    """Receptive fields (layer, y, x), the centre in the middle of the pixel with index n // 2."""
    values = np.asarray(values, float)
    L, H, W = values.shape
    kinds = [kind] * L if isinstance(kind, str) else list(kind)
    blocks = np.cumsum([one in ("attention", "residual") for one in kinds]) - 1
    centre = {"centre_y": [H // 2 + 0.5] * L, "centre_x": [W // 2 + 0.5] * L}
    over = {"kind": kinds, "block": blocks, "depth": depths, **centre}
    coords = {"layer": [f"{one}.{i}" for i, one in enumerate(kinds)], "y": np.arange(H) + 0.5, "x": np.arange(W) + 0.5}
    return xr.DataArray(values, coords | {name: ("layer", value) for name, value in over.items()}, ("layer", "y", "x"))


def ratios(
    values: Any, prefix: int = 1, branches: Sequence[str] = ("attention", "mlp"), columns: int | None = None
) -> xr.Dataset:
    """Skip ratios (block, branch, token); the median is twice the mean, the ratio of means half as large again.

    columns: of the grid; None: it is square.
    """
    values = np.asarray(values, float)
    found = made.ratios(values, list(branches), prefix, [False] * len(values))
    S = values.shape[2] - prefix
    columns = columns or int(S**0.5)
    found.attrs["grid"] = (S // columns, columns)
    return found.assign(median=2 * found["ratio"], ratio_of_means=1.5 * found["ratio"])


def counted(blocks: int = 2, tokens: int = 7, prefix: int = 1, columns: int | None = None) -> xr.Dataset:
    """Ratios 0, 1, 2, … in the order of the array."""
    return ratios(np.arange(blocks * 2 * tokens).reshape(blocks, 2, tokens), prefix, columns=columns)


def units(*values: float) -> xr.Dataset:
    """The skip ratios of a CNN."""
    return ratios(np.reshape(values, (-1, 1, 1)), 0, ["residual"])


# --- an explorer of each kind -------------------------------------------------------------------------------------


def attention() -> tuple[Explorer, Given]:
    images = noise_images(3)
    models = [heads(3, grid=(4, 4), seed=seed) for seed in range(2)]
    weights = np.stack([maps.values for _, maps in models])
    on_patches = weights[..., 1:]
    patches = on_patches[..., 1:, :].astype(np.float64)
    given = {key: np.stack([one[key].values for one, _ in models]) for key in models[0][0]} | {
        "pixels": images.pixels,
        "peak": on_patches.max(-1),
        "relative": on_patches / on_patches.max(-1, keepdims=True),
        "prefix": weights[..., :1],
        "query_distance": (patches * patch_distances((4, 4), 8).numpy()).sum(-1) / patches.sum(-1),
    }
    return explorers.explore_attention(models[0], images, models[1], still=STILL), given


def similarity() -> tuple[Explorer, Given]:
    maps = {"ViT with itself": _map(12, 12), "ViT with CNN": _map(12, 17)}
    given = {f"map{i}": one.values for i, one in enumerate(maps.values())}
    return explorers.explore_similarity(maps, still=STILL), given


def _map(rows: int, columns: int) -> xr.DataArray:
    """CKA that falls with the distance in depth, with a layer that has no value."""
    depth_a, depth_b = (np.linspace(0, 1, count) ** 1.5 for count in (rows, columns))
    values = np.exp(-2 * np.abs(depth_a[:, None] - depth_b)) * np.linspace(0.9, 1, columns)
    values[3, :] = np.nan
    found = layer_map(values, ("attention", "mlp", "block"))
    return found.assign_coords(depth_a=("layer_a", depth_a), depth_b=("layer_b", depth_b))


def localization() -> tuple[Explorer, Given]:
    models = {"CLS": places(4, 5, 0.6), "GAP": places(4, 5, 0.2), "CNN": places(2, 3, 0.4)}
    given: Given = {}
    for i, one in enumerate(models.values()):
        layers, grid, patches = *one.shape[:2], one.shape[1] ** 2
        own = np.einsum("lrcrc->lrc", one.values)
        others = (one.values.sum((-2, -1)) - own) / (patches - 1)
        peak = one.values.reshape(layers, patches, patches).argmax(-1)
        given |= {
            f"map{i}": one.values, f"own{i}": own, f"others{i}": others, f"mean{i}": (own - others).mean((1, 2)),
            f"peak{i}": np.stack(np.divmod(peak, grid), -1).reshape(layers, grid, grid, 2),
            f"found{i}": (peak == np.arange(patches)).mean(1), f"chance{i}": np.full(layers, 1 / patches),
        }  # fmt: skip
    return explorers.explore_localization(models, still=STILL), given


def receptive_field() -> tuple[Explorer, Given]:
    after = {"ViT": _bells(7, ["attention", "mlp"] * 3 + ["attention"]), "CNN": _bells(5, "residual")}
    before = {label: field**2 for label, field in after.items()}
    given: Given = {}
    for side, of_side in (("after", after), ("before", before)):
        for i, one in enumerate(of_side.values()):
            share = np.maximum(one.values / one.values.max((1, 2), keepdims=True), 1e-3)
            given |= {f"map_{side}{i}": np.log10(share), f"radius_{side}{i}": radius_of_mass(one, 0.5).values,
                      f"centre_{side}{i}": np.full((len(one), 2), 8.5)}  # fmt: skip
    return explorers.explore_receptive_field(after, before=before, still=STILL), given


def _bells(layers: int, kind: str | list[str]) -> xr.DataArray:
    """(layer, y, x) of 16 px: bells, wider with depth."""
    y, x = np.mgrid[:16, :16] - 8
    values = [np.exp(-(y**2 + x**2) / (2 * width**2)) for width in np.linspace(1.5, 16, layers)]
    return fields(values, np.linspace(0.1, 1, layers), kind)


def probes() -> tuple[Explorer, Given]:
    models = {"ViT": probed(layers=5), "CNN": probed(("mean",), seed=1)}
    given: Given = {}
    for i, one in enumerate(models.values()):
        accuracy = one["accuracy"].transpose("readout", "layer", "draw").values
        tokens = one["token_accuracy"].values if i == 0 else np.zeros((3, 0, 0, 2))
        given |= {f"accuracy{i}": accuracy.mean(-1), f"spread{i}": accuracy.std(-1, ddof=1),
                  f"by_token{i}": tokens.mean(-1), f"token_spread{i}": tokens.std(-1, ddof=1)}  # fmt: skip
    return explorers.explore_probes(models, still=STILL), given


def skip_ratios() -> tuple[Explorer, Given]:
    models = {"ViT": counted(4, 1 + 9), "GAP": counted(3, 9, 0), "CNN": units(np.inf, 2, 4, 8, 3)}
    given = {
        f"{prefix}{name}{i}": models[label][name].values.reshape(shape)
        for name in ("ratio", "median", "ratio_of_means")
        for prefix, i, label, shape in (("", 0, "ViT", (4, 2, 10)), ("", 1, "GAP", (3, 2, 9)), ("unit_", 0, "CNN", 5))
    }
    return explorers.explore_skip_ratios(models, still=STILL), given


SAMPLES: dict[str, Callable[[], tuple[Explorer, Given]]] = {
    "attention": attention, "similarity": similarity, "receptive_field": receptive_field, "skip_ratios": skip_ratios,
    "localization": localization, "probes": probes,
}  # fmt: skip


def differs(found: np.ndarray, values: np.ndarray, place: dict[str, Any]) -> bool:
    """Whether an array is farther from what it was made of than half a step of `place`, its entry of the header."""
    values = np.asarray(values, float)
    known = np.isfinite(values)
    error = place["step"] / 2 + 1e-9 if "step" in place else 1e-6 * np.abs(values[known]).max(initial=1)
    return found.shape != values.shape or (np.isfinite(found) != known).any() or (
        np.abs(found[known] - values[known]).max(initial=0) > error
    )  # fmt: skip
