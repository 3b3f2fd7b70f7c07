"""How far a layer sees in the image: effective receptive fields (paper, section 5; Figs 6, C.1 to C.4)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.models import Branch, Model
from vitcnn_utils.tracing import Layout, Tap

if TYPE_CHECKING:
    from vitcnn_utils.data import Images


def effective_receptive_fields(
    model: Model,
    images: "Images",
    layers: Sequence[str] | None = None,
    before_addition: bool = False,
    channels: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> xr.DataArray:
    """How strongly the centre of each layer depends on each pixel: (layer, y, x), Figs 6 and C.1 to C.3.

    The mean over images, channels c and colours of |d z[c, centre] / d pixel|, pixels on a scale of 0 to 1: absolute
    values are taken channel by channel, before any mean, as a sum over channels would let them cancel (it is zero at a
    layer norm). Silent points of the paper, chosen here: the centre of a map with an even number of rows or columns is
    the place with index n // 2; colours are averaged; nothing is scaled or smoothed.

    layers: names from `model.branches`, for z after the residual addition, 'stem', or other names from `model.layers`.
    None: 'stem' and every branch.
    before_addition: z is what the branch adds, without the shortcut (C.4); there is no 'stem' then.
    channels: for each image, at most so many channels, drawn with `seed` anew for each: an unbiased estimate of the
    same mean at a fraction of the cost, which is one backward pass a channel. None: all, which is exact.
    attrs['channels'] says what was done.

    Coordinates over layer: kind, depth, block (-1 outside blocks), n_channels, and centre_y, centre_x, where in the
    image the place lies, in pixels from the corner: where the convolutions and poolings up to there are centred (for
    tokens, the middle of the patch; in a ResNet, whose kernels are odd, index * stride + 0.5). A map that was made
    smaller in another way, such as by merging patches, counts as one of square cells.
    """
    if channels is not None and channels < 1:
        raise VitcnnError(f"channels={channels} of each layer: give 1 or more, or None for all")
    places = _places(model, layers, before_addition)
    rng = np.random.default_rng(seed)
    H, W = images.pixels.shape[1:3]
    total = torch.zeros(len(places), 3, H, W, dtype=torch.float64)
    facts: list[tuple[int, float, float]] = []
    with frozen(model.module), torch.enable_grad():
        for pixels in tqdm(images.batches(batch_size), total=-(-len(images) // batch_size), desc=model.name,
                           leave=False, disable=None):  # fmt: skip
            x = model.prepare(pixels).requires_grad_()
            with model.reading([tap for *_, tap in places]) as values:
                model.module(x)
            for i, (z, (*_, tap)) in enumerate(zip(values, places, strict=True)):
                grid = model.spatial(z)
                centre = grid[:, grid.shape[1] // 2, grid.shape[2] // 2]  # (B, C)
                total[i] += _absolute_gradients(centre, x, channels, rng) * len(pixels)
                if len(facts) < len(places):
                    facts.append((centre.shape[1], *_centre(tap, grid, (H, W))))
    # x = (pixel - mean) / std, so d z / d pixel = d z / d x / std.
    fields = (total / torch.tensor(model.std, dtype=torch.float64).view(3, 1, 1)).mean(1) / len(images)
    names, kinds, blocks, depths, _ = zip(*places, strict=True)
    n_channels, centre_y, centre_x = zip(*facts, strict=True)
    over = {"kind": kinds, "block": blocks, "depth": depths, "n_channels": n_channels, "centre_y": centre_y,
            "centre_x": centre_x}  # fmt: skip
    return xr.DataArray(
        fields.numpy(),
        dims=("layer", "y", "x"),
        coords={"layer": list(names), "y": np.arange(H) + 0.5, "x": np.arange(W) + 0.5}
        | {name: ("layer", list(value)) for name, value in over.items()},
        name="effective receptive field",
        attrs={"units": "mean |gradient| per unit of pixel value", "model": model.name, "images": images.name,
               "n_images": len(images), "before_addition": int(before_addition),
               "channels": "all" if channels is None else f"{channels} of each image, drawn with seed {seed}"},
    )  # fmt: skip


Place = tuple[str, str, int, float, Tap]


def _places(model: Model, names: Sequence[str] | None, before_addition: bool) -> list[Place]:
    """Name, kind, block (-1 outside), depth and tap of what is to be measured."""
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
            raise VitcnnError(f"{name!r} is no branch of {model.name}, so there is no addition: {', '.join(branches)}")
        else:
            layer = model.layer(name)
            places.append((name, layer.kind, -1 if layer.block is None else layer.block, layer.depth, layer.tap))
    return places


def _depth(model: Model, branch: Branch) -> float:
    """That of the layer a branch's sum comes right after, or is."""
    of_block = [layer for layer in model.layers if layer.block == branch.block]
    is_last = branch is [b for b in model.branches if b.block == branch.block][-1]
    return next((x.depth for x in of_block if x.name == branch.name and not is_last), of_block[-1].depth)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """While open, no parameter asks for gradients: a backward pass to the input then costs about half."""
    before = [(p, p.requires_grad) for p in module.parameters()]
    try:
        for p, _ in before:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)


def _absolute_gradients(centre: Tensor, x: Tensor, channels: int | None, rng: np.random.Generator) -> Tensor:
    """|d centre[b, c] / d x[b]|, averaged over images b and channels c: (3, H, W), float64 on the CPU.

    centre: (B, C), each row a function of one image of x (B, 3, H, W) only: one backward pass does B images at once.
    """
    B, C = centre.shape
    K = C if channels is None else min(channels, C)
    all_channels = np.tile(np.arange(C), (B, 1))
    drawn = torch.from_numpy(all_channels if K == C else rng.permuted(all_channels, axis=1)[:, :K]).to(x.device)
    total = torch.zeros_like(x)
    for k in range(K):
        chosen = torch.zeros_like(centre).scatter_(1, drawn[:, k : k + 1], 1)
        (gradient,) = torch.autograd.grad(centre, x, chosen, retain_graph=True)
        total += gradient.abs_()
    return (total / K).mean(0).cpu().double()


def _centre(tap: Tap, grid: Tensor, image: tuple[int, int]) -> tuple[float, float]:
    """Row and column, in pixels, where the middle place (index n // 2) of a grid (B, rows, columns, C) lies."""
    y, x = (_middle(tap.layout, side, places) for side, places in zip(image, grid.shape[1:3], strict=True))
    return y, x


def _middle(layout: Layout, side: int, places: int) -> float:
    offset, step = layout.offset, layout.step
    if not 2 / 3 < side / places / step < 3 / 2:  # not convolutions alone have made the map smaller
        offset, step = side / places / 2, side / places
    return offset + places // 2 * step


def summarize(fields: xr.DataArray, side: float) -> xr.Dataset:
    """The size of each receptive field, over layer; `fields` (layer, y, x) from `effective_receptive_fields`.

    side: of the square around the centre, pixels; the patch size of the transformer, for all models of a comparison.
    radius_50, radius_90: of the discs around the centre that hold 50 and 90 % of the field, pixels.
    centre_mass: share of the field in the square; of a square that lies half outside the image, its half.
    centre_ratio: centre_mass by the square's share of the image; 1 if the field is uniform.
    participation: (sum m)^2 / sum m^2 over all pixels, as a share of their number: 1 for a uniform field, 1 / (H W) for
    a single pixel.
    A field that is zero everywhere gives NaN.
    """
    mass = (fields / fields.sum(("y", "x"))).where(fields.sum(("y", "x")) > 0)
    inside = _overlap(fields.y, fields.centre_y, side) * _overlap(fields.x, fields.centre_x, side)
    centre_mass = (mass * inside).sum(("y", "x"), skipna=False)
    participation = 1 / (mass**2).sum(("y", "x"), skipna=False) / (fields.sizes["y"] * fields.sizes["x"])
    result = xr.Dataset(
        {
            "radius_50": radius_of_mass(fields, 0.5),
            "radius_90": radius_of_mass(fields, 0.9),
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
    """Share of each pixel of a row (or column), given by its middle, that lies within side / 2 of the centre."""
    # (1 + side) / 2 apart they do not touch; closer, they share what is missing to that, up to the smaller of the two.
    return ((1 + side) / 2 - abs(middle - centre)).clip(0, min(1, side))


def radius_of_mass(fields: xr.DataArray, share: float) -> xr.DataArray:
    """Radius in pixels of the smallest disc around the centre that holds `share` of each field: (layer,).

    Pixels count as a whole, at their middle; a field that is zero everywhere gives NaN.
    """
    if not 0 < share <= 1:
        raise VitcnnError(f"share={share} of a receptive field: give more than 0 and at most 1")
    distance = np.hypot(fields.y - fields.centre_y, fields.x - fields.centre_x)
    far, mass = (a.transpose("layer", "y", "x").values.reshape(fields.sizes["layer"], -1) for a in (distance, fields))
    order = np.argsort(far, axis=1, kind="stable")
    far, mass = (np.take_along_axis(a, order, axis=1) for a in (far, mass))
    held = np.cumsum(mass, axis=1)
    total = held[:, -1:]
    # The last pixel holds everything; rounding must not put the share out of reach.
    first = np.argmax(held >= np.minimum(share * total, total), axis=1)
    radius = np.where(total[:, 0] > 0, far[np.arange(len(far)), first], np.nan)
    over_layer = {name: value for name, value in fields.coords.items() if value.dims == ("layer",)}
    return xr.DataArray(radius, dims="layer", coords=over_layer, name="radius", attrs={"units": "px"})
