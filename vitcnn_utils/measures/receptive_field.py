"""How far a layer sees in the image: effective receptive fields (paper, section 5; Figs 6, C.1 to C.4)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError, check_finite
from vitcnn_utils.measures import intervals
from vitcnn_utils.models.facts import Branch, Model
from vitcnn_utils.models.trace import Layout, Tap
from vitcnn_utils.run import Pace, of_first, prepared

if TYPE_CHECKING:
    from vitcnn_utils.images import Images

DRAWN = 32
"""For how many images at a time the channels of a layer are drawn."""


def effective_receptive_fields(
    model: Model,
    images: "Images",
    layers: Sequence[str] | None = None,
    before_addition: bool = False,
    channels: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    left_out: bool = False,
) -> xr.DataArray:
    """How strongly the centre of each layer depends on each pixel: (layer, y, x), Figs 6 and C.1 to C.4.

    A field is the mean over images, channels c and colours of |d z[c, centre] / d pixel|, with pixels from 0 to 1. The
    absolute value comes before any mean, since gradients of different channels would cancel (at a layer norm their sum
    is zero). The paper does not state the following; these choices are ours: in a map with an even number of rows or
    columns, the centre is the place with index n // 2; colours are averaged; nothing is scaled or smoothed.

    layers: names from `model.branches`, where z is the sum after the residual addition; 'stem'; or other names from
    `model.layers`. None: 'stem' and every branch.
    before_addition: z is what the branch adds, without the shortcut (C.4). There is no 'stem' then.
    channels: measure so many channels of each image, drawn with `seed` for each image. This is an unbiased estimate of
    the same mean; the cost is one backward pass a channel. None: all channels.

    Coordinates over layer: kind, depth, block (-1 outside blocks), n_channels; centre_y and centre_x, the place's
    position in the image, in pixels from the corner. For tokens that is the middle of the patch; in a CNN, where the
    convolutions and poolings before it are centred. Where a map was made smaller in another way, such as by merging
    patches, its cells count as squares. attrs['channels'] says which channels were measured.

    left_out: also give the field without each of up to 20 groups of images, along a first dimension `left_out`, for
    `intervals.jackknife`: -1 is the field of all images.
    batch_size: images at once; None for as many as fit in memory.
    Raises VitcnnError, with the layer's name, for NaN or Inf in it or in its gradient.
    """
    if channels is not None and channels < 1:
        raise VitcnnError(f"channels={channels} of each layer: give 1 or more, or None for all")
    places = places_of(model, layers, before_addition)
    with frozen(model.module), torch.enable_grad():
        facts = _facts(model, images, places)
        drawn = _draw([fact[0] for fact in facts], len(images), channels, seed)

        def fields(part: slice, drawn: list[np.ndarray] = drawn) -> Tensor:
            return _fields(model, prepared(model, images, part), places, [of_layer[part] for of_layer in drawn])

        # Channels are measured one after the other, so one channel takes as much memory as all.
        pace = Pace.of(batch_size, model, lambda: fields(slice(1), [of_layer[:, :1] for of_layer in drawn]))
        parts = pace.over(len(images), fields, title=model.name)
        if left_out:
            values = torch.cat(list(parts)).numpy()
        else:
            zero = torch.zeros((), dtype=torch.float64)
            values = (sum((part.double().sum(0) for part in parts), zero) / len(images)).numpy()
    attrs = {
        "units": "mean |gradient| per unit of pixel value",
        **provenance.of(model, images, None if channels is None else seed), "before_addition": int(before_addition),
        "channels": "all" if channels is None else f"{channels} of each image, drawn with seed {seed}",
    }  # fmt: skip
    H, W = values.shape[-2:]
    names = ("n_channels", "centre_y", "centre_x")
    over_layer = _coords(places) | dict(zip(names, map(list, zip(*facts, strict=True)), strict=True))
    field = xr.DataArray(
        values,
        dims=("sample", "layer", "y", "x")[-values.ndim :],
        coords={"y": np.arange(H) + 0.5, "x": np.arange(W) + 0.5}
        | {name: ("layer", value) for name, value in over_layer.items()},
        name="effective receptive field",
        attrs=attrs,
    )
    return intervals.left_out(field) if left_out else field


Place = tuple[str, str, int, float, Tap]


def places_of(model: Model, names: Sequence[str] | None, before_addition: bool) -> list[Place]:
    """Name, kind, block (-1 outside blocks), depth and tap of each layer that `effective_receptive_fields` measures.

    names, before_addition: as there. Raises VitcnnError for an unknown name, or one that is not of a branch.
    """
    branches = {branch.name: branch for branch in model.branches}
    if names is None:
        model.require("residual stream", "the choice of layers for receptive fields (name them with layers)")
        names = [*([] if before_addition else ["stem"]), *branches]
    places: list[Place] = []
    for name in names:
        if name in branches:
            branch = branches[name]
            tap = branch.branch if before_addition else branch.sum
            places.append((name, branch.kind, branch.block, _depth(model, branch), tap))
        elif before_addition:
            raise VitcnnError(f"{name!r} is not a branch of {model.name}; there are: {', '.join(branches)}")
        else:
            layer = model.layer(name)
            places.append((name, layer.kind, -1 if layer.block is None else layer.block, layer.depth, layer.tap))
    return places


def _coords(places: list[Place]) -> dict[str, list]:
    names, kinds, blocks, depths, _ = map(list, zip(*places, strict=True))
    return {"layer": names, "kind": kinds, "block": blocks, "depth": depths}


def _depth(model: Model, branch: Branch) -> float:
    """Depth of the sum of a branch: that of the layer with the branch's name; for the last branch, of the block."""
    of_block = [layer for layer in model.layers if layer.block == branch.block]
    is_last = branch is [b for b in model.branches if b.block == branch.block][-1]
    return next((x.depth for x in of_block if x.name == branch.name and not is_last), of_block[-1].depth)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """While open, no parameter asks for gradients, which halves the cost of a backward pass to the input."""
    before = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for p, _ in before:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)


def _facts(model: Model, images: "Images", places: list[Place]) -> list[tuple[int, float, float]]:
    """Of each place, from one image: the number of channels, and the row and column of its centre in pixels."""

    def read(x: Tensor) -> list[Tensor]:
        with torch.no_grad(), model.reading([tap for *_, tap in places]) as values:
            model.module(x)
        return [model.spatial(z) for z in values]

    grids = of_first(model, images, read)
    size = images.pixels.shape[1], images.pixels.shape[2]
    return [(grid.shape[-1], *_centre(tap, grid, size)) for grid, (*_, tap) in zip(grids, places, strict=True)]


def _draw(sizes: Sequence[int], count: int, channels: int | None, seed: int) -> list[np.ndarray]:
    """The channels that are measured of each of `count` images, (count, K), for each layer.

    sizes: how many channels a layer has.
    """
    rng = np.random.default_rng(seed)
    every = [np.broadcast_to(np.arange(C, dtype=np.int32), (count, C)) for C in sizes]
    parts: list[list[np.ndarray]] = [[] for _ in sizes]
    for start in range(0, count, DRAWN):
        for of_layer, found in zip(every, parts, strict=True):
            if channels is not None and channels < of_layer.shape[1]:
                found.append(rng.permuted(of_layer[start : start + DRAWN], axis=1)[:, :channels])
    return [np.concatenate(found) if found else of_layer for of_layer, found in zip(every, parts, strict=True)]


def _fields(model: Model, x: Tensor, places: list[Place], drawn: list[np.ndarray]) -> Tensor:
    """The field of each of the images x: (B, layer, H, W), float32 on the CPU."""
    x.requires_grad_()
    with model.reading([tap for *_, tap in places]) as values:
        model.module(x)
    found, std = [], torch.tensor(model.std, device=x.device).view(3, 1, 1)
    for z, (name, *_), of_layer in zip(values, places, drawn, strict=True):
        grid = model.spatial(z)
        centre = grid[:, grid.shape[1] // 2, grid.shape[2] // 2]  # (B, C)
        gradient = _absolute_gradients(centre, x, torch.tensor(of_layer, dtype=torch.long, device=x.device))
        check_finite(f"{name} of {model.name}, or its gradient", z, gradient)
        # x = (pixel - mean) / std, so d z / d pixel = d z / d x / std.
        found.append((gradient / std).mean(1).cpu())
    return torch.stack(found, dim=1)


def _absolute_gradients(centre: Tensor, x: Tensor, drawn: Tensor) -> Tensor:
    """|d centre[b, c] / d x[b]|, averaged over channels c of each image: (B, 3, H, W).

    centre: (B, C); each row depends on one image of x (B, 3, H, W) only, so one backward pass does B images at once.
    drawn: (B, K), the channels c of each image.
    """
    total = torch.zeros_like(x)
    for channel in drawn.T:
        chosen = torch.zeros_like(centre).scatter_(1, channel[:, None], 1)
        (gradient,) = torch.autograd.grad(centre, x, chosen, retain_graph=True)
        total += gradient.abs_()
    return total / len(drawn.T)


def _centre(tap: Tap, grid: Tensor, image: tuple[int, int]) -> tuple[float, float]:
    """Row and column, in pixels, where the middle place (index n // 2) of a grid (B, rows, columns, C) lies."""
    y, x = (_middle(tap.layout, side, places) for side, places in zip(image, grid.shape[1:3], strict=True))
    return y, x


def _middle(layout: Layout, side: int, places: int) -> float:
    """The same along one side of the image, which has so many places."""
    offset, step = layout.offset, layout.step
    if not 2 / 3 < side / places / step < 3 / 2:  # something besides convolutions made the map smaller
        offset, step = side / places / 2, side / places
    return offset + places // 2 * step


def of_kind(fields: xr.DataArray, kind: str) -> xr.DataArray:
    """The layers of one kind: 'attention', 'mlp', 'residual' (units of a CNN) or 'stem'."""
    return fields.isel(layer=fields["kind"].values == kind)


def summarize(fields: xr.DataArray, side: float) -> xr.Dataset:
    """The size of each receptive field, over (..., layer); `fields` (..., layer, y, x): `effective_receptive_fields`.

    Fields with some images left out (`intervals.left_out`) give sizes with the same left out, for intervals.

    side: of the square around the centre, pixels; the patch size of the transformer, for all models of a comparison.
    radius_50, radius_90: of the discs around the centre that hold 50 and 90 % of the field, pixels.
    uniform_90: the same as radius_90 of a uniform field, (layer).
    centre_mass: share of the field in the square, as far as the square lies in the image.
    centre_ratio: centre_mass divided by the square's share of the image; 1 for a uniform field.
    participation: (sum m)^2 / sum m^2 over all pixels, divided by their number: 1 for a uniform field, 1 / (H W) for a
    single pixel.
    All but uniform_90 are NaN for a field that is zero everywhere.
    """
    mass = (fields / fields.sum(("y", "x"))).where(fields.sum(("y", "x")) > 0)
    inside = _overlap(fields.y, fields.centre_y, side) * _overlap(fields.x, fields.centre_x, side)
    centre_mass = (mass * inside).sum(("y", "x"), skipna=False)
    participation = 1 / (mass**2).sum(("y", "x"), skipna=False) / (fields.sizes["y"] * fields.sizes["x"])
    result = xr.Dataset(
        {
            "radius_50": radius_of_mass(fields, 0.5),
            "radius_90": radius_of_mass(fields, 0.9),
            "uniform_90": radius_of_mass(xr.ones_like(intervals.whole(fields)), 0.9),
            "centre_mass": centre_mass,
            "centre_ratio": centre_mass / inside.mean(("y", "x")),
            "participation": participation,
        },
        attrs={**fields.attrs, "side": side},
    )
    units = {"centre_mass": "share of the field", "centre_ratio": "1", "participation": "share of the image"}
    for name, unit in units.items():
        result[name].attrs["units"] = unit
    return result


def _overlap(middle: xr.DataArray, centre: xr.DataArray, side: float) -> xr.DataArray:
    """Share of each pixel of a row or column that lies within side / 2 of the centre; middle: that of each pixel."""
    # A pixel and the square touch at a distance of (1 + side) / 2; nearer, they overlap by the rest.
    return ((1 + side) / 2 - abs(middle - centre)).clip(0, min(1, side))


def radius_of_mass(fields: xr.DataArray, share: float) -> xr.DataArray:
    """Radius in pixels of the disc around the centre that holds `share` of each field: (..., layer).

    Pixels lie at their middle; between two distances that occur, what a disc holds grows evenly, so that the radius
    follows every change of the field. A field that is zero everywhere gives NaN.
    """
    if not 0 < share <= 1:
        raise VitcnnError(f"share={share} of a receptive field: give more than 0 and at most 1")
    fields = fields.transpose(..., "layer", "y", "x")
    distance = np.hypot(fields.y - fields.centre_y, fields.x - fields.centre_x).transpose("layer", "y", "x")
    radii = [_radius(far.ravel(), fields.isel(layer=i).values, share) for i, far in enumerate(distance.values)]
    like = fields.isel(y=0, x=0, drop=True)
    return xr.DataArray(np.stack(radii, axis=-1), like.coords, like.dims, "radius", {"units": "px"})


def _radius(far: np.ndarray, fields: np.ndarray, share: float) -> np.ndarray:
    """Of fields (..., y, x) whose pixels lie `far` (y * x,) from the centre: (...)."""
    order = np.argsort(far, kind="stable")
    distances, first = np.unique(far[order].round(9), return_index=True)
    rings = np.add.reduceat(fields.reshape(*fields.shape[:-2], -1)[..., order], first, axis=-1, dtype=np.float64)
    held = np.cumsum(rings, axis=-1)
    total = held[..., -1:]
    # The last ring holds everything; rounding must not put the share out of reach.
    target = np.minimum(share * total, total)
    ring = np.argmax(held >= target, axis=-1)[..., None]
    mass, after = (np.take_along_axis(values, ring, axis=-1) for values in (rings, held))
    width = np.diff(distances, prepend=0)[ring]
    with np.errstate(invalid="ignore"):  # a field of zeros
        radius = distances[ring] - width * (after - target) / mass
    return np.where(total > 0, radius, np.nan)[..., 0]


# Summaries of what `summarize` gives, over layers of one kind in order


def early_radius(sizes: xr.Dataset, name: str) -> float:
    """Mean of a radius ('radius_50' or 'radius_90') over the lowest third of the depth, pixels."""
    return float(sizes[name].where(sizes["depth"] <= 1 / 3, drop=True).mean())


def late_radius(sizes: xr.Dataset) -> float:
    """Mean of radius_90 over the upper half of the depth, in percent of that of a uniform field."""
    return float((100 * sizes["radius_90"] / sizes["uniform_90"]).where(sizes["depth"] >= 0.5, drop=True).mean())


def largest_growth(sizes: xr.Dataset, window: float = 0.25) -> tuple[float, float]:
    """The largest share of a model's growth that lies in `window` of its depth, and the middle of that window.

    Growth is that of radius_50 from the first layer to its largest, by linear interpolation over depth, so that the
    number of layers does not matter. NaN for a model that has fewer than two layers, or grows by less than a tenth of a
    pixel: rings of pixels around the centre lie about so far apart.
    """
    depth, radius = sizes["depth"].values, sizes["radius_50"].values
    growth = radius.max() - radius[0] if len(radius) > 1 else 0.0
    if not growth >= 0.1:
        return float("nan"), float("nan")
    starts = np.linspace(depth[0], depth[-1] - window, 101)
    shares = (np.interp(starts + window, depth, radius) - np.interp(starts, depth, radius)) / growth
    largest = int(np.argmax(shares))
    return float(shares[largest]), float(starts[largest] + window / 2)


def centre_shift(after: xr.Dataset, before: xr.Dataset) -> float:
    """How much larger the share of the field in the centre is after the addition: median over layers, in points.

    Each layer is compared with itself. A median, as a unit that opens a stage of a CNN has a projected skip.
    """
    return 100 * float((after["centre_mass"] - before["centre_mass"]).median())
