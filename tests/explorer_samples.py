"""An explorer of each kind over small made-up arrays, for the tests in a browser."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import xarray as xr

from vitcnn_utils import explorers
from vitcnn_utils.explorers.base import Explorer
from vitcnn_utils.images import Images
from vitcnn_utils.measures.localization import DIMS

STILL = SimpleNamespace(
    svg='<svg viewBox="0 0 9 9" role="img" aria-label="A figure"><rect width="9" height="9"/></svg>'
)
DARKEST = 1e-3
# What was given to an explorer, by the name under which the page has it.
Given = dict[str, np.ndarray]


def similarity() -> tuple[Explorer, Given]:
    maps = {"ViT with itself": _map("vit", 12, "vit", 12), "ViT with CNN": _map("vit", 12, "cnn", 17)}
    return explorers.explore_similarity(maps, still=STILL), {
        f"map{i}": one.values for i, one in enumerate(maps.values())
    }


def _map(a: str, rows: int, b: str, columns: int) -> xr.DataArray:
    """CKA that falls with the distance in depth, with a layer that has no value."""
    coords = {}
    for side, count in (("a", rows), ("b", columns)):
        dim = f"layer_{side}"
        kinds = [("attention", "mlp", "block")[i % 3] for i in range(count)]
        coords |= {
            dim: [f"blocks.{i // 3}.{kind}" for i, kind in enumerate(kinds)],
            f"kind_{side}": (dim, kinds),
            f"depth_{side}": (dim, np.linspace(0, 1, count) ** 1.5),
        }
    depth_a, depth_b = coords["depth_a"][1], coords["depth_b"][1]
    values = np.exp(-2 * np.abs(depth_a[:, None] - depth_b)) * np.linspace(0.9, 1, columns)
    values[3, :] = np.nan
    return xr.DataArray(values, coords, ("layer_a", "layer_b"), attrs={"model": a, "model_b": b})


def localization() -> tuple[Explorer, Given]:
    models = {"CLS": _places(4, 5, 0.6), "GAP": _places(4, 5, 0.2), "CNN": _places(2, 3, 0.4)}
    given = {f"map{i}": one.values for i, one in enumerate(models.values())}
    own = {f"own{i}": np.einsum("lrcrc->lrc", one.values) for i, one in enumerate(models.values())}
    return explorers.explore_localization(models, still=STILL), given | own


def _places(layers: int, grid: int, own: float) -> xr.DataArray:
    """(layer, row, col, patch_row, patch_col): a peak at the own patch that moves off by one column in each layer."""
    at = np.arange(grid)
    row, col, patch_row, patch_col = np.meshgrid(at, at, at, at, indexing="ij")
    far = [np.hypot(row - patch_row, (col + layer) % grid - patch_col) for layer in range(layers)]
    coords = {"layer": [f"blocks.{i}" for i in range(layers)], "depth": ("layer", np.linspace(0.2, 1, layers))}
    return xr.DataArray(own * np.exp(-np.array(far) / 2), coords | dict.fromkeys(DIMS, at), ("layer", *DIMS))


def receptive_field() -> tuple[Explorer, Given]:
    after = {"ViT": _fields(7, 16, ("attention", "mlp")), "CNN": _fields(5, 16, ("residual",))}
    before = {label: field**2 for label, field in after.items()}
    given = {
        f"map_{side}{i}": np.log10(np.maximum(one.values / one.values.max((1, 2), keepdims=True), DARKEST))
        for side, fields in (("after", after), ("before", before))
        for i, one in enumerate(fields.values())
    }
    return explorers.explore_receptive_field(after, before=before, still=STILL), given


def _fields(layers: int, size: int, kinds: tuple[str, ...]) -> xr.DataArray:
    """(layer, y, x): bells around a place beside the middle, wider with depth."""
    at = np.arange(size) + 0.5
    y, x = np.meshgrid(at, at, indexing="ij")
    square = (y - size / 2 - 0.5) ** 2 + (x - size / 2 - 0.5) ** 2
    values = np.array([np.exp(-square / (2 * width**2)) for width in np.linspace(1.5, size, layers)])
    found = [kinds[i % len(kinds)] for i in range(layers)]
    over_layer = {
        "kind": found, "block": np.arange(layers) // len(kinds), "depth": np.linspace(0.1, 1, layers),
        "centre_y": np.full(layers, size / 2 + 0.5), "centre_x": np.full(layers, size / 2 + 0.5),
    }  # fmt: skip
    coords = {"layer": [f"blocks.{i}.{kind}" for i, kind in enumerate(found)], "y": at, "x": at}
    return xr.DataArray(values, coords | {k: ("layer", v) for k, v in over_layer.items()}, ("layer", "y", "x"))


def probes() -> tuple[Explorer, Given]:
    models = {"ViT": _probes(5, ["cls", "mean"], 4), "CNN": _probes(3, ["mean"], 0)}
    order = ["cls", "mean"]
    given = {
        f"accuracy{i}": one["accuracy"].sel(readout=[r for r in order if r in one["readout"]]).mean("draw").values.T
        for i, one in enumerate(models.values())
    }
    return explorers.explore_probes(models, still=STILL), given | {
        "by_token0": models["ViT"]["token_accuracy"].mean("draw").values
    }


def _probes(layers: int, readouts: list[str], grid: int) -> xr.Dataset:
    """Accuracy in two draws that rises with depth, and by token on a grid, if there is one."""
    rising = np.linspace(0.2, 0.7, layers)[:, None]
    draws = np.array([0.97, 1.03])
    dims = ("layer", "readout", "draw")
    level = np.linspace(0.8, 1, len(readouts))[:, None]
    variables = {"accuracy": (dims, rising[:, None] * level * draws)}
    if grid:
        tokens = rising[..., None, None] * np.linspace(0.5, 1, grid * grid).reshape(grid, grid, 1) * draws
        variables["token_accuracy"] = (("layer", "row", "col", "draw"), tokens)
    coords = {
        "layer": [f"blocks.{i}" for i in range(layers)], "depth": ("layer", np.linspace(0.2, 1, layers)),
        "readout": readouts, "draw": range(2),
    }  # fmt: skip
    return xr.Dataset(variables, coords, {"chance": 0.1, "shots": 10, "n_test": 100, "images": "cifar10"})


def skip_ratios() -> tuple[Explorer, Given]:
    models = {"ViT": _ratios(4, 1 + 9), "GAP": _ratios(3, 9), "CNN": _ratios(5, 1)}
    given = {f"ratio{i}": models[label]["ratio"].values for i, label in enumerate(("ViT", "GAP"))}
    return explorers.explore_skip_ratios(models, still=STILL), given | {
        "unit_ratio0": models["CNN"]["ratio"].values[:, 0, 0]
    }


def _ratios(blocks: int, tokens: int) -> xr.Dataset:
    """(block, branch, token): all different; of one token: a CNN, whose first branch adds nothing."""
    branches = ["attention", "mlp"] if tokens > 1 else ["residual"]
    prefix = tokens % 9 if tokens > 1 else 0
    values = 1 + np.arange(blocks * len(branches) * tokens).reshape(blocks, len(branches), tokens) ** 1.1
    if tokens == 1:
        values[0] = np.inf
    dims = ("block", "branch", "token")
    variables = {"ratio": (dims, values), "median": (dims, 1.5 * values), "ratio_of_means": (dims, 1.2 * values)}
    coords = {
        "block": range(blocks), "branch": branches, "token": range(tokens),
        "part": ("token", ["CLS"] * prefix + ["spatial"] * (tokens - prefix)),
        "depth": ("block", np.linspace(0.1, 1, blocks)), "projected": ("block", [False] * blocks),
    }  # fmt: skip
    return xr.Dataset(variables, coords, {"model": "made up"})


def attention() -> tuple[Explorer, Given]:
    images = Images("made up", np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8))
    models = [_heads("vit", 0), _heads("vit-3%", 1)]
    weights = np.stack([maps.values for _, maps in models])[..., 1:]
    given = {"pixels": images.pixels, "distance": np.stack([one["distance"].values for one, _ in models])}
    given |= {"peak": weights.max(-1), "relative": weights / weights.max(-1, keepdims=True)}
    return explorers.explore_attention(models[0], images, models[1], still=STILL), given


def _heads(model: str, seed: int, blocks: int = 3, heads: int = 4, side: int = 4) -> tuple[xr.Dataset, xr.DataArray]:
    """What `head_distances` and `attention_maps` give of three images: every query looks elsewhere."""
    rng = np.random.default_rng(seed)
    tokens = 1 + side * side
    weights = rng.dirichlet(np.full(tokens, 0.5), (3, blocks, heads, tokens)).astype(np.float32)
    names = ("distance", "distance_renormalized", "prefix_mass", "entropy")
    variables = {name: (("block", "head"), rng.uniform(0.1, 0.9, (blocks, heads))) for name in names}
    coords = {"block": np.arange(blocks), "head": np.arange(heads)}
    attrs = {"model": model, "n_images": 3, "grid": (side, side), "patch_size": 4, "prefix": ["CLS"]}
    maps = xr.DataArray(weights, dims=("image", "block", "head", "query", "key"), attrs=attrs)
    return xr.Dataset(variables, coords, {**attrs, "uniform_distance": 0.6}), maps


SAMPLES: dict[str, Callable[[], tuple[Explorer, Given]]] = {
    "attention": attention,
    "similarity": similarity,
    "receptive_field": receptive_field,
    "skip_ratios": skip_ratios,
    "localization": localization,
    "probes": probes,
}
