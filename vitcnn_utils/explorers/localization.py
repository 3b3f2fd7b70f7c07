"""The explorer of Figures 9 and 10: does a token still know its place?"""

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import xarray as xr

from vitcnn_utils.explorers.base import Explorer, Page, depths_of, measured, number, numbered, quantize, stops, word
from vitcnn_utils.images import Images
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.localization import DIMS, best_patch, contrast, layer_patch_similarity, localization_rate
from vitcnn_utils.models.facts import Model


class LocalizationExplorer(Explorer):
    """See `explore_localization`."""

    kind, title, color_map = "localization", "Does a token still know its place?", "magma"

    layer = number()  # which of header['stops']: by depth, over all models
    row = number()  # of the token, from the top of the finest grid
    column = number()
    curve = word("token", "mean", "found")  # what the lines are: see localization.js
    scale = word("own", "common")  # of the colours: each map its own, or one for all


def explore_localization(
    models: Mapping[str, xr.DataArray | Model], images: Images | None = None, **page: Unpack[Page]
) -> LocalizationExplorer:
    """CKA of one token, chosen on the grid, with every patch of the input, by depth, for one to four models.

    models: by label, `layer_patch_similarity` results (their grids may differ), or models, which are then measured on
    `images` (square, of a size that all the models take): the blocks of the last block's grid. A map without layers, as
    `patch_patch_similarity`, the baseline, stands at depth 0 beside the rest. page: see `explorers.base.Page`.
    """
    form = "what `layer_patch_similarity` returns"
    similarities = measured(models, images, _of_last_grid, lambda one: one.dims[-4:] == DIMS, form, most=4)
    layered = [_with_layer(whole(one)) for one in similarities.values()]
    arrays = [_arrays(one) for one in layered]
    depths, grids = [depths_of(one) for one in layered], [one.shape[1:3] for one in layered]
    slider, (rows, columns) = stops(depths), np.max(grids, axis=0)
    return LocalizationExplorer(
        numbered(arrays),
        {"layer": len(slider), "row": rows, "column": columns},
        {"layer": len(slider) - 1, "row": rows // 2, "column": columns // 3},
        page, labels=list(similarities), layers=[one["layer"].values.tolist() for one in layered], depths=depths,
        stops=slider, grids=grids, error=max(one["map"].error for one in arrays),
    )  # fmt: skip


def _of_last_grid(model: Model, images: Images) -> xr.DataArray:
    """Of the blocks whose grid is that of the last: all of a ViT's, those of a CNN's last stage."""
    blocks = model.blocks or model.layers[-1:]
    return layer_patch_similarity(model, images, [block for block in blocks if block.grid == blocks[-1].grid])


def _with_layer(similarity: xr.DataArray) -> xr.DataArray:
    """(layer, row, col, patch_row, patch_col), also where one layer was taken out of it, or the input was measured."""
    if "layer" in similarity.dims:
        return similarity
    of_input = {"layer": "pixels", "depth": 0.0}
    one = similarity.assign_coords(of_input | dict(similarity.coords)).expand_dims("layer")
    return one.assign_coords(depth=("layer", np.atleast_1d(one["depth"].values)))


def _arrays(similarity: xr.DataArray) -> dict[str, Any]:
    """own, others: CKA with the own and mean CKA with the other patches, (layer, row, col); peak: the most similar
    patch, (layer, row, col, 2), 255 for none; mean, found, chance: the mean difference, the share of tokens most like
    their own patch, and that share by chance, (layer,).
    """
    summary, rate = contrast(similarity), localization_rate(similarity).sel(region="all")
    return {
        "map": quantize(similarity.values),
        "own": quantize(summary["own"].values, bits=16),
        "others": quantize(summary["others"].values, bits=16),
        "peak": best_patch(similarity).fillna(255).values.astype(np.uint8),
        "mean": summary["difference"].mean(["row", "col"]).values,
        "found": rate["top1"].values,
        "chance": np.broadcast_to(rate["chance_top1"].values, similarity.shape[:1]),
    }
