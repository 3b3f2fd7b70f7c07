"""The explorer of Figures 3 and 4: where a head looks, query by query, and how far it looks among all heads."""

import gzip
from itertools import takewhile
from typing import Any

import numpy as np
import traitlets
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.patches import Rectangle
from PIL import Image

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Quantized, quantize
from vitcnn_utils.images import Images
from vitcnn_utils.measures.attention import attention_maps, head_distances, patch_distances
from vitcnn_utils.models.facts import Model
from vitcnn_utils.plots import style

# What may be shown, and what the sentence adds where it is not both.
_VIEWS = {
    "overlay": "",
    "attention": " Shown: the attention without the picture.",
    "picture": " Shown: the picture without the attention.",
}
_OF_HEADS = ("distance", "distance_renormalized", "prefix_mass")
# How finely weights are stored, in steps from 0 to the largest weight of a query: as finely as the room allows.
_STEPS = (15, 18, 21, 24, 27, 31, 40, 63, 127, 254)
_ROOM = 950_000  # bytes of an explorer's arrays after gzip
_PICTURE_ROOM = 160_000  # bytes of all pictures


def explore_attention(
    vit: Model | xr.Dataset,
    images: Images,
    small_data: Model | xr.Dataset | None = None,
    n_images: int = 4,
    name: str | None = None,
) -> "AttentionExplorer":
    """Where each head looks from each token of a picture, beside how far all heads look (Figs 3 and 4).

    vit: a model, whose heads' distances are then measured on all `images` and whose attention on the first `n_images`;
    or arrays already measured: `head_distances(model, images).assign(attention=attention_maps(model, few))`, with `few`
    the first of `images`. Some blocks only: `measured.isel(block=[0, 1, -2, -1])`, those of the paper's figures.
    small_data: the like of a model trained on less data, of the same shape. name: tells apart two of these on one page.

    An image takes blocks x heads x T^2 bytes for each model before compression: 1/4 MiB for `zoo/vit-cls`, which fits
    the book's budget of 1 MB with four images; 5.4 MiB for ViT-B/16 at 224 pixels, which does not with any.
    """
    if n_images < 1:
        raise VitcnnError(f"n_images={n_images}: an explorer needs at least one image")
    models = [vit] if small_data is None else [vit, small_data]
    return AttentionExplorer([_measured(one, images, n_images) for one in models], images, name)


def _measured(model: Model | xr.Dataset, images: Images, n: int) -> xr.Dataset:
    if isinstance(model, Model):
        return head_distances(model, images).assign(attention=attention_maps(model, images[:n]))
    missing = {"attention", *_OF_HEADS} - set(model)
    if missing:
        raise VitcnnError(
            f"the measured arrays lack {', '.join(sorted(missing))}: give "
            "head_distances(model, images).assign(attention=attention_maps(model, images[:4]))"
        )
    return model.isel(image=slice(n))


class AttentionExplorer(Explorer):
    """See `explore_attention`. Its state: model, picture, head and query."""

    kind = "attention"
    color_maps = (style.SEQUENTIAL,)

    model = traitlets.Int(0).tag(sync=True, state=True)  # 0; 1: the one trained on little data
    image = traitlets.Int(0).tag(sync=True, state=True)
    block = traitlets.Int(0).tag(sync=True, state=True)  # counted among the blocks that were measured
    head = traitlets.Int(0).tag(sync=True, state=True)
    token = traitlets.Int(0).tag(sync=True, state=True)  # the query: prefix tokens first, then patches row by row
    view = traitlets.Unicode("overlay").tag(sync=True, state=True)  # 'overlay', 'attention' or 'picture'

    def __init__(self, measured: list[xr.Dataset], images: Images, name: str | None = None) -> None:
        first = _alike(measured, images)
        n, L, H, T = first.attention.shape[:4]
        rows, columns = first.attrs["grid"]
        self._measured, self._prefix = measured, list(first.attention.attrs["prefix"])
        self._labels = {"block": first.block.values.tolist(), "head": first["head"].values.tolist()}
        self._pictures = _pictures(images.pixels[:n])
        self._picture_names = [f"image {i}{_class_of(images, i)}" for i in range(n)]
        self._stored = _store(measured, _ROOM - self._pictures.nbytes)
        # As exact as the script has them, so that both round alike.
        self._heads = {key: np.stack([one[key].values for one in measured]).astype(np.float32) for key in _OF_HEADS}
        nearest = [int(i) for i in np.unravel_index(self._heads["distance"][0].argmin(), (L, H))]
        super().__init__(
            {"pixels": self._pictures, **self._stored, **self._heads},
            choices={"model": len(measured), "image": n, "block": L, "head": H, "token": T,
                     "view": list(_VIEWS)},
            # The head that looks nearest, from the middle of the picture.
            start={"block": nearest[0], "head": nearest[1],
                   "token": len(self._prefix) + rows // 2 * columns + columns // 2},
            name=name,
            models=[str(one.attrs["model"]) for one in measured],
            blocks=self._labels["block"], heads=self._labels["head"], grid=[rows, columns], prefix=self._prefix,
            prefix_words=_words_for(self._prefix), pictures=self._picture_names,
            views=_VIEWS, over=_count(int(first.attrs["n_images"])), uniform=first.attrs["uniform_distance"],
            errors={"weight": self._stored["relative"].error, "distance": self._stored["query_distance"].error},
        )  # fmt: skip

    def sentence(self) -> str:
        P, here = len(self._prefix), (self.image, self.block, self.head, self.token)
        relative, peak, on_prefix = (self._at(key, here) for key in ("relative", "peak", "prefix"))
        most = int(relative.argmax())
        parts = [
            f"{self._head_words()}: from {self._token_words(self.token)} of {self._picture_names[self.image]}, the "
            f"patch that gets most is {self._token_words(P + most)}, {_percent(relative[most] * peak)} of the attention"
        ]
        parts += [f"{name} gets {_percent(share)}" for share, name in zip(on_prefix, self._prefix, strict=True)]
        text = f"{'; '.join(parts)}."
        if self.token >= P:
            distance = self._at("query_distance", (*here[:-1], self.token - P)) * (1 - sum(on_prefix))
            text += f" This query's mean distance is {style.number(distance, 1)} px."
        return f"{text} {self._head_sentence()}{self.header['views'][self.view]}"

    def _head_sentence(self) -> str:
        """What holds for the head over all queries and images: the numbers of Figures 3 and 4."""
        distance, without, share = (float(self._heads[key][self.model, self.block, self.head]) for key in _OF_HEADS)
        text = f"The head's mean distance is {style.number(distance, 1)} px"
        if self._prefix:
            words = self.header["prefix_words"]
            text += f" ({style.number(without, 1)} px without the share of {words}, which is {_percent(share)})"
        return f"{text}, over {self.header['over']}."

    def _at(self, key: str, index: tuple[int, ...]) -> np.ndarray:
        """Of the model shown, what the script reads there; without turning all codes into numbers."""
        stored = self._stored[key]
        return Quantized(stored.codes[(self.model, *index)], stored.low, stored.step).values

    def _head_words(self) -> str:
        block, head = self._labels["block"][self.block], self._labels["head"][self.head]
        return f"{self.header['models'][self.model]}, block {block}, head {head}"

    def _token_words(self, token: int) -> str:
        P, columns = len(self._prefix), self.header["grid"][1]
        if token < P:
            return self._prefix[token]
        row, column = divmod(token - P, columns)
        return f"token ({row}, {column})"

    def still(self) -> MplFigure:
        here, P = (self.image, self.block, self.head, self.token), len(self._prefix)
        weights = (self._at("relative", here) * self._at("peak", here)).reshape(self.header["grid"])
        query = divmod(self.token - P, weights.shape[1]) if self.token >= P else None
        heads, chosen = self._measured[self.model], (self.block, self.head)
        return _draw(self._pictures[self.image], weights, query, heads, chosen, self._head_words())


@style.styled
def _draw(
    picture: np.ndarray,
    weights: np.ndarray,
    query: tuple[int, int] | None,
    heads: xr.Dataset,
    chosen: tuple[int, int],
    title: str,
) -> MplFigure:
    """picture (h, w, 3), weights (rows, columns), heads over (block, head), chosen: one of them, by position."""
    drawing, axes = style.panels(1, 3, height=2.6, width_ratios=(1, 1.2, 1.6))
    rows, columns = weights.shape
    axes[0, 0].imshow(picture, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
    shown = axes[0, 1].imshow(100 * weights, cmap=style.SEQUENTIAL, vmin=0)
    drawing.colorbar(shown, ax=axes[0, 1], label="% of the attention", shrink=0.7)
    for ax in axes[0, :2]:
        ax.set(xticks=[], yticks=[])
        if query:
            row, column = query
            for color, width in (("black", 3), ("white", 1.5)):
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color=color, linewidth=width))
    axes[0, 0].set_title(title, fontsize=8.5)
    _draw_heads(axes[0, 2], heads, chosen)
    return drawing


def _draw_heads(axes: Axes, heads: xr.Dataset, chosen: tuple[int, int]) -> None:
    """Distances of all heads, sorted within each block, which is the explorer's chart."""
    L, H = heads.distance.shape
    uniform = heads.attrs["uniform_distance"]
    axes.axhline(uniform, color=style.GREY, linestyle="--", linewidth=1.2)
    shift = 0.8 * (np.arange(H) - (H - 1) / 2) / H
    for block, distances in enumerate(heads.distance.values):
        axes.plot(block + shift, np.sort(distances), "o-", color=style.BLUE, markersize=2.5, linewidth=1)
        if block == chosen[0]:
            rank = int(np.flatnonzero(np.argsort(distances, kind="stable") == chosen[1])[0])
            axes.plot(block + shift[rank], distances[chosen[1]], "o", color=style.ORANGE, markersize=7)
    axes.set(xlabel="block; heads sorted", ylabel="mean distance (px)", xticks=range(L), xticklabels=heads.block.values,
             ylim=(0, 1.08 * max(uniform, float(heads.distance.max()))))  # fmt: skip


def _alike(measured: list[xr.Dataset], images: Images) -> xr.Dataset:
    """The first of the measured, after a look whether all fit together."""
    shapes = [(tuple(one.attrs["grid"]), one.attention.shape) for one in measured]
    if len(set(shapes)) > 1:
        raise VitcnnError(f"the models differ in their grid, blocks, heads or tokens ({shapes}): give two of one shape")
    (rows, columns), (n, _, _, T, keys) = shapes[0]
    prefix = measured[0].attention.attrs.get("prefix")
    if prefix is None or len(prefix) + rows * columns != T or keys != T:
        raise VitcnnError(
            f"attention of {T} x {keys} tokens, of which attrs['prefix'] names {prefix}, does not fit a {rows} x "
            f"{columns} grid: give it as `attention_maps` does"
        )
    if len(images) < n:
        raise VitcnnError(
            f"attention was measured on {n} images, not {len(images)}: give the images it was measured on"
        )
    return measured[0]


def _store(measured: list[xr.Dataset], room: int) -> dict[str, Quantized]:
    """Attention as the explorer keeps it, by (model, image, block, head, query).

    relative (…, patch): a weight as a share of `peak`, the query's largest weight on a patch, which is what the colours
    show. prefix (…, prefix token): weights on tokens without a place. query_distance (patches as queries only): pixels,
    of the attention to patches scaled to sum to 1.
    """
    P = len(measured[0].attention.attrs["prefix"])
    weights = np.stack([one.attention.values for one in measured])
    on_patches = weights[..., P:]
    peak = on_patches.max(-1)
    far = patch_distances(tuple(measured[0].attrs["grid"]), measured[0].attrs["patch_size"]).numpy()
    with np.errstate(invalid="ignore"):  # no attention to patches at all: no distance, no shares
        distance = np.einsum("...ij,ij->...i", on_patches[..., P:, :], far) / on_patches[..., P:, :].sum(-1)
        relative = np.nan_to_num(on_patches / peak[..., None])
    small = {
        "peak": quantize(peak, 0, 1, bits=16),
        "prefix": quantize(weights[..., :P], 0, 1, bits=16),
        "query_distance": quantize(distance, 0),
    }
    room -= sum(_zipped(one.codes) for one in small.values())
    return {"relative": _as_fine_as_fits(relative, room), **small}


def _as_fine_as_fits(relative: np.ndarray, room: int) -> Quantized:
    """Values from 0 to 1 in as many steps as fit `room` bytes after gzip, and no fewer than the first of _STEPS."""

    def codes(steps: int) -> np.ndarray:
        return np.rint(relative * steps).astype(np.uint8)

    fitting = list(takewhile(lambda steps: _zipped(codes(steps)) <= room, _STEPS))
    steps = fitting[-1] if fitting else _STEPS[0]
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


def _words_for(prefix: list[str]) -> str:
    """All tokens without a place, in words: 'CLS', or 'CLS and 4 more tokens'."""
    more = len(prefix) - 1
    return "" if not prefix else prefix[0] if not more else f"{prefix[0]} and {more} more token{'s' * (more > 1)}"


def _count(images: int) -> str:
    return f"{images} image{'s' * (images != 1)}"


def _percent(share: Any) -> str:
    return f"{style.number(100 * float(share), 1)} %"
