"""Does a token still know where it came from? CKA of tokens with input patches (section 7; Figs 9, 10, D.1-D.3)."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images
from vitcnn_utils.measures.cka import Hsic, centred_gram, hsic, labelled_cka
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.run import minibatches, of_first, reduce_whole, whole_pace

TOKEN = ("row", "col")
PATCH = ("patch_row", "patch_col")
DIMS = TOKEN + PATCH

Grid = tuple[int, int]


def layer_patch_similarity(
    model: Model,
    images: Images,
    layers: Sequence[Layer] | None = None,
    batch_size: int = 512,
    seed: int = 0,
    left_out: bool = False,
) -> xr.DataArray:
    """Minibatch unbiased CKA of each spatial token with the raw pixels of each input patch (Fig 9).

    A sample is an image; x is the activation of one token (of a CNN: all channels at one location), y the pixels of
    one cell of the image, cut into as many cells as there are tokens. Prefix tokens are left out. The pixels are
    those before normalisation, so that all models are asked about the same. `seed` draws the minibatches, see
    `run.minibatches`; one of n images needs about (2 x tokens) x n² x 2 bytes: 0.8 GB for 14 x 14 tokens and n = 1024.

    layers: of one grid; None for the output of the last block.
    left_out: also without each minibatch, along `left_out`, see `cka.layer_similarity`.

    Returns (layer, row, col, patch_row, patch_col), about 0 where a token tells nothing of a patch, NaN where one is
    constant. Neighbouring patches are alike in photographs: `patch_patch_similarity` is what that alone would give.
    Raises VitcnnError for fewer than 4 images, or an image that the grid does not divide into whole pixels.
    """
    layers = (model.blocks or model.layers)[-1:] if layers is None else layers
    grid = _common_grid(model, images, layers)
    batches: dict[str, list[Hsic]] = {layer.name: [] for layer in layers}
    pace = whole_pace(model, images, layers, batch_size)
    for pixels in minibatches(images, batch_size, seed, f"token x patch CKA, {model.name}"):
        patches = _grams(cut(pixels.to(model.device), grid), "patch")

        def of_layer(name: str, activation: Tensor, patches: Tensor = patches) -> Hsic:
            return hsic(_grams(model.spatial(activation), f"{name} of {model.name}, token"), patches)

        for name, new in reduce_whole(model, pixels, layers, of_layer, pace).items():
            batches[name].append(new)
    by_layer = xr.concat([_on_grid(batches[layer.name], grid, left_out) for layer in layers], "layer")
    coords = {"layer": [x.name for x in layers], "depth": ("layer", [x.depth for x in layers])}
    attrs = {"measure": "unbiased minibatch linear CKA, token and patch of raw pixels", "units": "1",
             **provenance.of(model, images, seed), "batch_size": batch_size}  # fmt: skip
    return by_layer.transpose(..., "layer", *DIMS).assign_coords(coords).assign_attrs(attrs)


def patch_patch_similarity(
    images: Images, grid: Grid, batch_size: int = 512, seed: int = 0, left_out: bool = False
) -> xr.DataArray:
    """The baseline of `layer_patch_similarity`: how alike the patches themselves are, (row, col, patch_row, patch_col).

    A model whose tokens are its patches would give this. grid: rows and columns of cells. left_out: as there.
    """
    batches = []
    for pixels in minibatches(images, batch_size, seed, "patch x patch CKA"):
        grams = _grams(cut(pixels, grid), "patch")
        batches.append(hsic(grams, grams))
    attrs = {"measure": "unbiased minibatch linear CKA, patch and patch of raw pixels", "units": "1",
             **provenance.of(None, images, seed), "batch_size": batch_size}  # fmt: skip
    return _on_grid(batches, grid, left_out).assign_attrs(attrs)


def _on_grid(batches: Sequence[Hsic], grid: Grid, left_out: bool) -> xr.DataArray:
    """CKA of tokens and patches, both row by row, to (row, col, patch_row, patch_col)."""
    flat = labelled_cka(batches, ("token", "patch"), left_out)
    values = flat.values.reshape(*flat.shape[:-2], *grid, *grid)
    cells = dict(zip(DIMS, map(np.arange, (*grid, *grid)), strict=True))
    return xr.DataArray(values, {**flat.coords, **cells}, (*flat.dims[:-2], *DIMS), name="cka")


def cut(pixels: Tensor, grid: Grid) -> Tensor:
    """(B, H, W, 3) images into cells: (B, rows, cols, H / rows * W / cols * 3), float32."""
    B, H, W, _ = pixels.shape
    rows, cols = grid
    if H % rows or W % cols:
        raise VitcnnError(f"a grid of {rows} x {cols} does not divide {H} x {W} pixels: load images of another size")
    cells = pixels.float().reshape(B, rows, H // rows, cols, W // cols, 3)
    return cells.permute(0, 1, 3, 2, 4, 5).reshape(B, rows, cols, -1)


# Summaries of (…, row, col, patch_row, patch_col)


def localization_rate(similarity: xr.DataArray) -> xr.Dataset:
    """How often the patch most like a token is its own, over region: tokens 'all', 'interior' or 'border'.

    top1: its own patch; within_one: its own or one of the up to 8 around it; chance_top1: its own, of a patch drawn at
    random; all from 0 to 1. tokens: how many there are. A token that is constant over the images, or whose own patch is
    (NaN), could not be right and is not counted.
    """
    distance = _chebyshev(similarity)
    miss = distance.where(similarity == similarity.max(PATCH)).min(PATCH)
    chance = (distance == 0).mean(PATCH)
    by_token = xr.Dataset({"top1": miss == 0, "within_one": miss <= 1, "chance_top1": chance}).astype(float)
    known = similarity.where(distance == 0).notnull().any(PATCH)
    border = _is_border(similarity)
    regions = {"all": border | True, "interior": ~border, "border": border}
    counted = [known & inside for inside in regions.values()]
    by_region = [by_token.where(c).mean(TOKEN).assign(tokens=c.sum(TOKEN)) for c in counted]
    region = xr.Variable("region", list(regions))
    return xr.concat(by_region, "region").assign_coords(region=region).assign_attrs(similarity.attrs)


def best_patch(similarity: xr.DataArray) -> xr.DataArray:
    """Row and column of the patch most like each token, the nearest of equals: (..., row, col, axis); NaN: none."""
    distance = _chebyshev(similarity).where(similarity == similarity.max(PATCH), np.inf)
    place = xr.concat(distance.argmin(PATCH).values(), "axis")
    return place.where(similarity.notnull().any(PATCH)).transpose(..., *TOKEN, "axis")


def contrast(similarity: xr.DataArray) -> xr.Dataset:
    """How much a token stands out for its own patch, over (row, col).

    own: CKA with its own patch; others: mean CKA with all other patches; difference: own - others.
    """
    is_own = _chebyshev(similarity) == 0
    own, others = (similarity.where(where).mean(PATCH) for where in (is_own, ~is_own))
    return xr.Dataset({"own": own, "others": others, "difference": own - others}, attrs=similarity.attrs)


def border_similarity(similarity: xr.DataArray) -> xr.DataArray:
    """Mean CKA by place, (token, patch), each 'interior' or 'border', a token's own patch left out.

    The paper sees tokens at the border be like other patches at the border. To be compared with the same of
    `patch_patch_similarity`: border patches may be alike in themselves.
    """
    border = _is_border(similarity)
    patch_border = border.rename(row="patch_row", col="patch_col")
    others = similarity.where(_chebyshev(similarity) > 0)
    means = [
        xr.concat([others.where(token & patch).mean(DIMS) for patch in (~patch_border, patch_border)], "patch")
        for token in (~border, border)
    ]
    places = ["interior", "border"]
    table = xr.concat(means, "token").assign_coords(token=places, patch=places)
    return table.transpose(..., "token", "patch").rename("cka").assign_attrs(similarity.attrs)


def skill(similarity: xr.DataArray, region: str = "all") -> float:
    """How much oftener than by chance tokens are most like their own patch: 1 always, 0 as often as by chance.

    similarity: (row, col, patch_row, patch_col). With it, grids of unlike size can be compared. region: as in
    `localization_rate`.
    """
    rate = localization_rate(similarity).sel(region=region)
    return float((rate["top1"] - rate["chance_top1"]) / (1 - rate["chance_top1"]))


def border_lean(similarity: xr.DataArray) -> float:
    """How much more border tokens are like other border patches than like interior ones: from -1 to 1."""
    means = border_similarity(similarity).sel(token="border")
    border, interior = float(means.sel(patch="border")), float(means.sel(patch="interior"))
    return (border - interior) / (abs(border) + abs(interior))


# Cells and Gram matrices


def _grams(cells: Tensor, name: str) -> Tensor:
    """(B, rows, cols, D) to the Gram of each cell, row by row: (rows * cols, B (B - 1) / 2)."""
    return torch.stack([
        centred_gram(cells[:, row, col], f"{name} ({row}, {col})")
        for row in range(cells.shape[1]) for col in range(cells.shape[2])
    ])  # fmt: skip


def _common_grid(model: Model, images: Images, layers: Sequence[Layer]) -> Grid:
    """The grid of the layers' activations, which must be one."""
    grids = of_first(model, images, lambda x: model.reduce(x, layers, lambda _, a: model.spatial(a).shape[1:3]))
    distinct = {tuple(grid): name for name, grid in grids.items()}
    if len(distinct) > 1:
        found = ", ".join(f"{rows} x {cols} ({name})" for (rows, cols), name in distinct.items())
        raise VitcnnError(f"the layers of {model.name} have several grids, {found}: take those of one grid")
    ((rows, cols),) = distinct
    return rows, cols


def _chebyshev(similarity: xr.DataArray) -> xr.DataArray:
    """How many cells a patch is from a token, diagonal steps allowed: (row, col, patch_row, patch_col)."""
    row, col, patch_row, patch_col = (similarity.coords[dim] for dim in DIMS)
    rows, cols = abs(row - patch_row), abs(col - patch_col)
    return xr.where(rows > cols, rows, cols).transpose(*DIMS)


def _is_border(similarity: xr.DataArray) -> xr.DataArray:
    """Which tokens are in the outermost rows and columns, (row, col)."""
    row, col = similarity.coords["row"], similarity.coords["col"]
    return (row == 0) | (row == row[-1]) | (col == 0) | (col == col[-1])
