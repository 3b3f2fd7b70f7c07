"""Figures 1 and 2: which layers resemble each other, within a model and between a ViT and a CNN."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vitcnn_utils.measures.cka import best_match, low_high, matched_depth, stage_starts
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.plots import style
from vitcnn_utils.plots.style import Figure, figure, heat_map, panels, styled
from vitcnn_utils.provenance import line

_DEPTHS = {0.0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1.0: "1"}


@styled
def within_models(
    trained: Sequence[xr.DataArray], untrained: Sequence[xr.DataArray], entries: str = "all sub-layers", key: str = ""
) -> Figure:
    """Fig 1: CKA of every pair of layers of a ViT and of a CNN, trained above, untrained below.

    trained, untrained: (ViT, CNN), each `layer_similarity` of a model with itself. entries: which layers are shown,
    for the caption.
    """
    maps = [whole(similarity) for similarity in (*trained, *untrained)]
    drawing, axes = panels(2, 2, width=7.2, height=6.4)
    for ax, similarity in zip(axes.flat, maps, strict=True):
        mesh = similarity_map(ax, similarity, similarity.attrs["model"])
        borders(ax, np.searchsorted(similarity.depth_a, stage_starts(similarity)))
    style.colour_bar(drawing, mesh, axes, "CKA")
    numbers = ", ".join(f"{s.attrs['model']} {low_high(s):.2f}" for s in maps)
    alt = (
        f"Four square heat maps of CKA between pairs of layers ({entries}), the ViT left and the CNN right, trained "
        f"above and untrained below. Mean CKA between the first and the last third of depth: {numbers}."
    )
    caption = (
        f"CKA of every layer with every layer of the same model, {entries}: {maps[0].attrs['model']} and "
        f"{maps[1].attrs['model']}, above as trained, below before training (on {maps[2].attrs['n_images']:,} "
        "images). Layers are numbered from the input; above each map, their depth from 0 to 1."
        + " Blue lines: where the maps of the CNN become smaller, a new stage." * any(map(stage_starts, maps))
        + _note_on_constants(maps)
    )
    return figure(drawing, "fig-1", alt, caption, line(*maps), key)


@styled
def across_models(trained: xr.DataArray, untrained: xr.DataArray) -> Figure:
    """Fig 2: CKA of every ViT layer (y) with every CNN layer (x), and where each finds its like.

    trained, untrained: `layer_similarity` of (ViT, CNN).
    """
    trained, untrained = whole(trained), whole(untrained)
    drawing, axes = panels(2, 2, width=7.2, height=6.0, height_ratios=(1.15, 1))
    for ax, similarity, title in zip(axes[0], (trained, untrained), ("trained", "untrained"), strict=True):
        mesh = similarity_map(ax, similarity, title)
        ridge = _positions(similarity.depth_a.values, matched_depth(similarity)["argmax"].values)
        ax.plot(np.arange(len(ridge)) + 0.5, ridge, "o", color="white", markersize=2, markeredgecolor="black",
                markeredgewidth=0.3)  # fmt: skip
        ax.set(xlabel="CNN layer", ylabel="ViT layer")
    style.colour_bar(drawing, mesh, axes[0], "CKA")
    _draw_matches(axes[1, 0], matched_depth(trained), matched_depth(untrained))
    _draw_best(axes[1, 1], trained, untrained)
    vit, cnn = trained.attrs["model"], trained.attrs["model_b"]
    centroid, best = matched_depth(trained)["centroid"].values, best_match(trained)
    last = best.depth_a >= 2 / 3
    alt = (
        f"Heat maps of CKA between layers of {vit} and of {cnn}, trained and untrained, and two line plots. The depth "
        f"in the ViT that matches a CNN layer, as a weighted mean, is {centroid[0]:.2f} for the CNN's first layer and "
        f"{centroid[-1]:.2f} for its last. The best CKA of a ViT layer with any CNN layer is "
        f"{float(best[~last].mean()):.2f} on average in the first two thirds of the ViT and "
        f"{float(best[last].mean()):.2f} in the last."
    )
    caption = (
        f"Above: CKA of every layer of {vit} with every layer of {cnn}; dots mark the ViT layer most like each CNN "
        "layer. Below left: the depth of that ViT layer, and the mean depth weighted by similarity. Below right: the "
        "highest CKA of each ViT layer with any CNN layer (dots: block outputs), the last third of the ViT shaded."
    ) + _note_on_constants([trained, untrained])
    return figure(drawing, "fig-2", alt, caption, line(trained, untrained))


def _draw_matches(ax: Axes, matched: xr.Dataset, untrained: xr.Dataset) -> None:
    ax.plot([0, 1], [0, 1], color=style.GREY, linestyle="--", linewidth=1)
    ax.plot(untrained.depth_b, untrained["centroid"], color=style.GREY, label="untrained")
    ax.plot(matched.depth_b, matched["argmax"], ".", color=style.GREEN, markersize=5, label="most similar")
    ax.plot(matched.depth_b, matched["centroid"], color=style.BLUE, label="weighted mean")
    ax.set(xlabel="depth in the CNN", ylabel="matching depth in the ViT", xlim=(0, 1), ylim=(-0.02, 1.02))
    ax.legend(loc="best")


def _draw_best(ax: Axes, trained: xr.DataArray, untrained: xr.DataArray) -> None:
    ax.axvspan(2 / 3, 1, color=style.GREY, alpha=0.15, linewidth=0)
    for similarity, colour, label in ((untrained, style.GREY, "untrained"), (trained, style.BLUE, "trained")):
        best = best_match(similarity)
        ax.plot(best.depth_a, best, color=colour, linewidth=1)
        blocks = best[(best.kind_a == "block").values]
        ax.plot(blocks.depth_a, blocks, "o", color=colour, label=f"{label}, block outputs")
    ax.set(xlabel="depth in the ViT", ylabel="best CKA with a CNN layer", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="lower left")


def similarity_map(ax: Axes, similarity: xr.DataArray, title: str) -> Any:
    """A map (layer_a, layer_b) with the layers' numbers below and on the left, their depths above; gives the mesh.

    A layer without a CKA, the same for all images, is grey.
    """
    mesh = heat_map(ax, similarity, upward=True, vmin=0, vmax=1)
    for axis, count in zip((ax.yaxis, ax.xaxis), similarity.shape, strict=True):
        numbers = [int(i) for i in MaxNLocator(5, integer=True).tick_values(0, count - 1) if 0 <= i < count]
        axis.set_ticks([i + 0.5 for i in numbers], labels=map(str, numbers))
    depth = similarity.depth_b.values
    shown = [d for d in _DEPTHS if depth[0] <= d <= depth[-1]]
    top = ax.secondary_xaxis("top")
    top.set_ticks(_positions(depth, shown), labels=[_DEPTHS[d] for d in shown])
    top.spines["top"].set_visible(False)
    ax.set(title=title, xlabel="layer", ylabel="layer")
    return mesh


def borders(ax: Axes, layers: Iterable[int]) -> None:
    """Lines on a model's map with itself, before each of these layers."""
    for layer in layers:
        ax.axhline(layer, color=style.LIGHT, linewidth=0.8)
        ax.axvline(layer, color=style.LIGHT, linewidth=0.8)


def _positions(depth: np.ndarray, wanted: Sequence[float] | np.ndarray) -> np.ndarray:
    """Where on an axis of layers the wanted depths lie; the middle of layer i is at i + ½."""
    return np.asarray(np.interp(wanted, depth, np.arange(len(depth)) + 0.5))


def _note_on_constants(maps: Sequence[xr.DataArray]) -> str:
    """What the grey in a map is, if there is any: layers without a CKA."""
    if not any(similarity.isnull().any() for similarity in maps):
        return ""
    return (
        " Grey: layers that are the same for all images, which have no CKA (before training, the last normalisation of "
        "each residual branch of a CNN is commonly set to zero)."
    )
