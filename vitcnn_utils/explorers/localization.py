"""The explorer of Figures 9 and 10: does a token still know its place?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets
import xarray as xr

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Still, depths_of, measured, quantize, stops
from vitcnn_utils.images import Images
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.localization import DIMS, contrast, layer_patch_similarity, localization_rate
from vitcnn_utils.models.facts import Model

_PIXELS = "pixels"  # the layer of a map that has none: the input itself
_NONE = 255


class LocalizationExplorer(Explorer):
    """See `explore_localization`. Its state: a stop in depth, a token, what the lines are, and how colours run."""

    kind, title, color_map = "localization", "Does a token still know its place?", "magma"

    layer = traitlets.Int(0).tag(sync=True, state=True)  # which of header['stops']: by depth, over all models
    row = traitlets.Int(0).tag(sync=True, state=True)  # of the token, from the top of the finest grid
    column = traitlets.Int(0).tag(sync=True, state=True)
    curve = traitlets.Unicode("token").tag(sync=True, state=True)  # 'token', 'mean' or 'found': see localization.js
    scale = traitlets.Unicode("own").tag(sync=True, state=True)  # of colours: each map its 'own', or 'common' to all


def explore_localization(
    models: Mapping[str, xr.DataArray | Model],
    images: Images | None = None,
    name: str | None = None,
    still: Still | None = None,
) -> LocalizationExplorer:
    """CKA of one token, chosen on the grid, with every patch of the input, by depth, for one to four models.

    models: by label, `layer_patch_similarity` results (their grids may differ), or models, which are then measured on
    `images` (square, of a size that all the models take): the blocks of the last block's grid. A map without layers, as
    `patch_patch_similarity`, the baseline, stands at depth 0 beside the rest. name: tells apart two of these on one
    page. still: the figure of the same arrays, shown where no script runs.
    """
    similarities = {label: whole(one) for label, one in measured(models, images, _of_last_grid, most=4).items()}
    for label, one in similarities.items():
        if one.dims[-4:] != DIMS:
            raise VitcnnError(f"{label!r} is {one.dims}, not a `layer_patch_similarity`")
    layered = [_with_layer(one) for one in similarities.values()]
    arrays = [_arrays(one) for one in layered]
    depths, grids = [depths_of(one) for one in layered], [one.shape[1:3] for one in layered]
    slider, (rows, columns) = stops(depths), np.max(grids, axis=0)
    return LocalizationExplorer(
        {f"{key}{i}": array for i, one in enumerate(arrays) for key, array in one.items()},
        {"layer": len(slider), "row": rows, "column": columns, "curve": ["token", "mean", "found"],
         "scale": ["own", "common"]},
        {"layer": len(slider) - 1, "row": rows // 2, "column": columns // 3},
        name, still, labels=list(similarities), layers=[one["layer"].values.tolist() for one in layered],
        depths=depths, stops=slider, grids=grids, error=max(one["map"].error for one in arrays),
    )  # fmt: skip


def _of_last_grid(model: Model, images: Images) -> xr.DataArray:
    """Of the blocks whose grid is that of the last: all of a ViT's, those of a CNN's last stage."""
    blocks = model.blocks or model.layers[-1:]
    return layer_patch_similarity(model, images, [block for block in blocks if block.grid == blocks[-1].grid])


def _with_layer(similarity: xr.DataArray) -> xr.DataArray:
    """(layer, row, col, patch_row, patch_col), also where one layer was taken out of it, or the input was measured."""
    if "layer" in similarity.dims:
        return similarity
    coords = {"layer": _PIXELS, "depth": 0.0} | dict(similarity.coords)
    one = similarity.assign_coords(coords).expand_dims("layer")
    return one.assign_coords(depth=("layer", np.atleast_1d(one["depth"].values)))


def _arrays(similarity: xr.DataArray) -> dict[str, Any]:
    """own, others: CKA with the own and mean CKA with the other patches, (layer, row, col); mean, found, chance:
    their mean difference, the share of tokens most like their own patch, and that share by chance, (layer,).
    """
    summary, rate = contrast(similarity), localization_rate(similarity).sel(region="all")
    return {
        "map": quantize(similarity.values),
        "own": quantize(summary["own"].values, bits=16),
        "others": quantize(summary["others"].values, bits=16),
        "peak": _peak(similarity.values),
        "mean": summary["difference"].mean(["row", "col"]).values,
        "found": rate["top1"].values,
        "chance": np.broadcast_to(rate["chance_top1"].values, similarity.shape[:1]),
    }


def _peak(values: np.ndarray) -> np.ndarray:
    """The most similar patch of each token, the nearest one among equals: (layer, row, col, 2), uint8, 255 for none."""
    layers, rows, columns = values.shape[:3]
    row, column, patch_row, patch_column = np.indices((rows, columns, rows, columns))
    distance = np.maximum(abs(row - patch_row), abs(column - patch_column))
    known = np.where(np.isnan(values), -np.inf, values)
    highest = known.max(axis=(-2, -1), keepdims=True)
    nearest = np.where(known == highest, distance, rows + columns).reshape(layers, rows, columns, -1).argmin(axis=-1)
    peak = np.stack(np.divmod(nearest, columns), axis=-1)
    return np.where(np.isfinite(highest[..., 0]), peak, _NONE).astype(np.uint8)
