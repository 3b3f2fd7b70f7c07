"""The explorer of Figures 3 and 4: where a head looks, query by query, and how far it looks among all heads."""

import gzip
from bisect import bisect_left
from typing import Unpack

import numpy as np
import xarray as xr
from PIL import Image

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Page, Quantized, number, quantize, word
from vitcnn_utils.images import Images
from vitcnn_utils.measures.attention import attention_maps, head_distances, query_distance
from vitcnn_utils.models.facts import Model

Measured = tuple[xr.Dataset, xr.DataArray]  # by `head_distances` and `attention_maps`
_SHOWN = 4  # images
_OF_HEADS = ("distance", "distance_renormalized", "prefix_mass")
# How finely weights are stored, in steps from 0 to the largest weight of a query: as finely as the room allows.
_STEPS = (254, 127, 63, 40, 31, 27, 24, 21, 18, 15)
_ROOM = 950_000  # bytes of an explorer's arrays after gzip
_PICTURE_ROOM = 160_000  # bytes of all pictures


class AttentionExplorer(Explorer):
    """See `explore_attention`."""

    kind, title = "attention", "Where does a head look?"

    model = number()  # 0; 1: the other one
    image = number()
    block = number()  # counted among the blocks that were measured
    head = number()
    token = number()  # the query: prefix tokens first, then patches row by row
    view = word("overlay", "attention", "picture")
    scale = word("same", "own")  # of the colours: one for all heads, or each its own


def explore_attention(
    vit: Model | Measured,
    images: Images,
    other: Model | Measured | None = None,
    **page: Unpack[Page],
) -> AttentionExplorer:
    """Where each head looks from each token of a picture, beside how far all heads look (Figs 3 and 4).

    vit: a model, whose heads' distances are then measured on all `images` and whose attention on the first four;
    or both already measured: `(head_distances(model, images), attention_maps(model, images[:4]))`. Some blocks only:
    `isel(block=[0, 1, -2, -1])` of both, those of the paper's figures.
    other: the same for a model of the same shape that was trained in another way. page: see `explorers.base.Page`.

    An image takes blocks x heads x T^2 bytes for each model before compression: 1/4 MiB for `zoo/vit-cls`, which fits
    the book's budget of 1 MB with four images; 5.4 MiB for ViT-B/16 at 224 pixels, which does not with any.
    """
    models = [_measured(one, images) for one in (vit, other) if one is not None]
    maps = [one for _, one in models]
    _require_alike(maps, images)
    distances, (rows, columns), prefix = models[0][0], maps[0].attrs["grid"], maps[0].attrs["prefix"]
    n, L, H, T = maps[0].shape[:4]
    pictures = _pictures(images.pixels[:n])
    stored = _stored(maps, _ROOM - pictures.nbytes)
    heads = {key: np.stack([one[key].values for one, _ in models]).astype(np.float32) for key in _OF_HEADS}
    nearest = np.unravel_index(heads["distance"][0].argmin(), (L, H))
    return AttentionExplorer(
        {"pixels": pictures, **stored, **heads},
        {"model": len(models), "image": n, "block": L, "head": H, "token": T},
        # The head that looks nearest, from the middle of the picture.
        {"block": nearest[0], "head": nearest[1], "token": len(prefix) + rows // 2 * columns + columns // 2},
        page, models=[str(one.attrs["model"]) for one, _ in models], blocks=distances["block"].values.tolist(),
        heads=distances["head"].values.tolist(), grid=[rows, columns], prefix=list(prefix),
        pictures=[f"image {i}{_class_of(images, i)}" for i in range(n)],
        n_images=distances.attrs["n_images"], uniform=distances.attrs["uniform_distance"],
        errors={"weight": stored["relative"].error, "distance": stored["query_distance"].error},
    )  # fmt: skip


def _measured(model: Model | Measured, images: Images) -> Measured:
    if isinstance(model, Model):
        return head_distances(model, images), attention_maps(model, images[:_SHOWN])
    kinds = [type(one) for one in model] if isinstance(model, tuple) else None
    if kinds != [xr.Dataset, xr.DataArray] or not set(_OF_HEADS) <= set(model[0]):
        raise VitcnnError("give a model, or (head_distances(model, images), attention_maps(model, images[:4]))")
    return model[0], model[1].isel(image=slice(_SHOWN))


def _require_alike(maps: list[xr.DataArray], images: Images) -> None:
    shapes = [(tuple(one.attrs["grid"]), one.shape) for one in maps]
    if len(set(shapes)) > 1:
        raise VitcnnError(f"the models differ in their grid, blocks, heads or tokens ({shapes}): give two of one shape")
    if len(images) < len(maps[0]):
        raise VitcnnError(f"attention was measured on {len(maps[0])} images, not {len(images)}: give those")


def _stored(maps: list[xr.DataArray], room: int) -> dict[str, Quantized]:
    """Attention as the explorer keeps it, by (model, image, block, head, query).

    relative (…, patch): a weight as a share of `peak`, the query's largest weight on a patch. prefix (…, prefix token):
    weights on tokens without a place. query_distance (patches as queries only): pixels, of the attention to patches
    scaled to sum to 1.
    """
    P = len(maps[0].attrs["prefix"])
    weights = np.stack([one.values for one in maps])
    on_patches = weights[..., P:]
    peak = on_patches.max(-1)
    distance = query_distance(weights, maps[0].attrs["grid"], maps[0].attrs["patch_size"], P, renormalize=True)
    distance = np.where(peak[..., P:] > 0, distance, np.nan)  # no attention to patches at all: no distance, no shares
    with np.errstate(invalid="ignore"):
        relative = np.nan_to_num(on_patches / peak[..., None])
    small = {
        "peak": quantize(peak, 0, 1, bits=16),
        "prefix": quantize(weights[..., :P], 0, 1, bits=16),
        "query_distance": quantize(distance, 0),
    }
    room -= sum(_zipped(one.codes) for one in small.values())
    return {"relative": _as_fine_as_fits(relative, room), **small}


def _as_fine_as_fits(relative: np.ndarray, room: int) -> Quantized:
    """Values from 0 to 1 in as many steps as fit `room` bytes after gzip, and no fewer than the last of _STEPS."""

    def codes(steps: int) -> np.ndarray:
        return np.rint(relative * steps).astype(np.uint8)

    steps = _STEPS[bisect_left(_STEPS[:-1], True, key=lambda steps: _zipped(codes(steps)) <= room)]
    return Quantized(codes(steps), 0.0, 1 / steps)


def _zipped(codes: np.ndarray) -> int:
    return len(gzip.compress(codes.tobytes(), 6))


def _pictures(pixels: np.ndarray) -> np.ndarray:
    """uint8 (n, h, w, 3), made smaller together if they take too much room."""
    H, W = pixels.shape[1:3]
    scale = min(1.0, (_PICTURE_ROOM / pixels.size) ** 0.5)
    size = max(1, int(W * scale)), max(1, int(H * scale))
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX)) for one in pixels])


def _class_of(images: Images, i: int) -> str:
    return "" if images.labels is None or images.classes is None else f" ({images.classes[images.labels[i]]})"
