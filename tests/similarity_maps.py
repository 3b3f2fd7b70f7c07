"""Maps of CKA and curves over depth whose structure is known, in the form that the measures give them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.measures.cka import same_blocks

KINDS = ("norm", "attention", "norm", "mlp hidden", "mlp", "block")


def similarity(values: np.ndarray, kinds: tuple[str, ...] = KINDS, stages: int = 0) -> xr.DataArray:
    """A map (layer_a, layer_b) as `cka.layer_similarity` gives it, its layers in blocks of `kinds`.

    stages: that the blocks are divided into, as evenly as can be; 0 for a model without.
    """

    def coords(side: str, count: int) -> dict[str, Any]:
        dim, block = f"layer_{side}", np.arange(count) // len(kinds)
        return {
            dim: [f"{side}{i}" for i in range(count)],
            f"kind_{side}": (dim, [kinds[i % len(kinds)] for i in range(count)]),
            f"depth_{side}": (dim, np.linspace(0, 1, count)),
            f"block_{side}": (dim, block),
            f"stage_{side}": (dim, block * stages // (block[-1] + 1) if stages else np.full(count, -1)),
        }

    attrs = {"model": "a", "weights": "w", "model_b": "b", "weights_b": "w", "n_images": 128}
    both = coords("a", values.shape[0]) | coords("b", values.shape[1])
    return xr.DataArray(values, dims=("layer_a", "layer_b"), coords=both, attrs=attrs)


def by_distance(fall: float, count: int = 24) -> xr.DataArray:
    """CKA that falls by `fall` from one end of the model to the other."""
    depth = np.linspace(0, 1, count)
    return similarity(1 - fall * np.abs(depth[:, None] - depth))


def staged(within: float, between: float, count: int = 24) -> xr.DataArray:
    """Two stages, cut in the middle."""
    stage = np.arange(count) >= count // 2
    return similarity(np.where(stage[:, None] == stage, within, between), stages=2)


def grid(same: float, different: float) -> xr.DataArray:
    """24 layers in four blocks, alike by kind."""
    kind = np.array([KINDS[i % len(KINDS)] for i in range(24)])
    return similarity(np.where(kind[:, None] == kind, same, different))


def ridge(where: Callable[[np.ndarray], np.ndarray], height: Callable[[np.ndarray], np.ndarray]) -> xr.DataArray:
    """(31 ViT layers, 41 CNN layers): a ridge at ViT depth where(CNN depth), of height(ViT depth)."""
    vit, cnn = np.linspace(0, 1, 31), np.linspace(0, 1, 41)
    return similarity(height(vit)[:, None] * np.exp(-50 * (vit[:, None] - where(cnn)) ** 2), stages=4)


def constant(depth: np.ndarray) -> np.ndarray:
    return np.ones_like(depth)


PAPER = ridge(lambda d: 0.6 * d, constant)
DIAGONAL = ridge(lambda d: d, constant)


def similarity_to(reference: str, diagonal: np.ndarray) -> xr.DataArray:
    """A map of block outputs with those of `reference`: known on the diagonal, zero elsewhere."""
    return similarity(np.diag(diagonal), kinds=("block",)).assign_attrs(model="part", model_b=reference)


def curves(ends: Mapping[str, tuple[float, float]], count: int = 8, reference: str = "zoo/ref") -> xr.DataArray:
    """For each label, CKA that runs straight from the first block to the last: (model, block)."""
    return same_blocks({label: similarity_to(reference, np.linspace(*pair, count)) for label, pair in ends.items()})


def probes(
    start: float, end: float, depths: Sequence[float] = (0, 0.25, 0.5, 0.75, 1), readout: str = "mean"
) -> xr.Dataset:
    """Probe accuracy that runs straight from depth 0 to depth 1, the same in three draws."""
    accuracy = np.interp(depths, [0, 1], [start, end])[:, None, None].repeat(3, axis=2)
    coords = {
        "layer": [f"blocks.{i}" for i in range(len(depths))], "depth": ("layer", list(depths)), "readout": [readout],
        "draw": range(3),
    }  # fmt: skip
    attrs = {
        "images": "cifar10",
        "shots": 10,
        "n_images": 2500,
        "n_test": 1000,
        "chance": 0.1,
        "model": "zoo/x",
        "weights": "w",
    }
    return xr.Dataset({"accuracy": (("layer", "readout", "draw"), accuracy)}, coords, attrs)
