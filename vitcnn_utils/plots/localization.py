"""Figures 9, 10 and 11: how well tokens and places keep track of where they come from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.localization import contrast, localization_rate
from vitcnn_utils.plots import style
from vitcnn_utils.plots.style import Figure, figure, heat_map, panels, styled
from vitcnn_utils.provenance import line

# The paper's (0, 0), (2, 1) and (4, 4) of a 7 x 7 grid, as shares of the grid; its fourth, (4, 2), is moved to the
# edge, for what the paper says of border tokens.
PLACES = {"corner": (0.0, 0.0), "border": (4 / 6, 0.0), "near border": (2 / 6, 1 / 6), "interior": (4 / 6, 4 / 6)}

# Figures 9 and 10: token x patch similarity


def positions(grid: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The (row, column) of the four tokens of Figures 9 and 10, on a grid of any size."""
    rows, columns = grid
    return {name: (round(r * (rows - 1)), round(c * (columns - 1))) for name, (r, c) in PLACES.items()}


@styled
def token_maps(maps: Mapping[str, xr.DataArray], name: str, baseline: xr.DataArray | None = None) -> Figure:
    """Figures 9 and 10: CKA of four tokens with every patch of the input, one row of maps for each of `maps`.

    maps: title of the row -> (row, col, patch_row, patch_col), a layer of `layer_patch_similarity`. The four tokens are
    at the same places of the image in every row. The maps of a column share a colour scale. baseline:
    the same of the raw patches, a last row with a scale of its own. name: 'fig-9' or 'fig-10'.
    """
    maps = {title: whole(similarity) for title, similarity in maps.items()}
    rows = maps if baseline is None else {**maps, "raw patches": whole(baseline)}
    drawing, axes = panels(len(rows), len(PLACES), height=0.7 + 1.6 * len(rows))
    for column, place in zip(axes.T, PLACES, strict=True):
        compared = [_at(similarity, place) for similarity in maps.values()]
        low, high = (limit(np.concatenate([m.ravel() for m in compared])) for limit in (np.nanmin, np.nanmax))
        for ax, values in zip(column, compared, strict=False):
            mesh = _token_map(ax, values, place, vmin=low, vmax=high)
        style.colour_bar(drawing, mesh, list(column[: len(maps)]), location="bottom", aspect=14, shrink=0.8)
    if baseline is not None:
        shown = [_at(rows["raw patches"], place) for place in PLACES]
        for ax, place, values in zip(axes[-1], PLACES, shown, strict=True):
            mesh = _token_map(ax, values, place, vmin=np.nanmin(shown), vmax=1)
        style.colour_bar(drawing, mesh, list(axes[-1]), location="bottom", aspect=40, shrink=0.5)
    for ax, title in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(f"{title}\npatch row", fontsize=8.5)
        ax.set_xlabel("patch column", fontsize=8.5)
    caption = (
        f"CKA of the activations of one token (outlined) with the pixels of each patch of the input, over the images: "
        f"{', '.join(maps)}. Above each map, the token's row and column. The maps of a column share the colour scale "
        f"below them.{' Last row, with a scale of its own: the patches themselves.' * (baseline is not None)} "
        "1 = the same up to rotation and scale, 0 = unrelated."
    )
    rates = "; ".join(f"{title}, {float(localization_rate(similarity)['top1'].sel(region='all')):.0%}"
                      for title, similarity in rows.items())  # fmt: skip
    alt = (
        f"{len(rows)} rows of {len(PLACES)} heat maps over the patches of the image, for tokens at "
        f"{', '.join(PLACES)}. Share of all tokens whose most similar patch is their own: {rates}."
    )
    return figure(drawing, name, alt, caption, line(*rows.values()))


def _at(similarity: xr.DataArray, place: str) -> np.ndarray:
    """The map (patch_row, patch_col) of the token at a place."""
    return similarity.values[positions((similarity.sizes["row"], similarity.sizes["col"]))[place]]


def _token_map(ax: Axes, values: np.ndarray, place: str, **scale: Any) -> Any:
    rows, columns = values.shape
    row, column = positions((rows, columns))[place]
    mesh = heat_map(ax, values, square=True, **scale)
    ax.set_xticks([0.5, columns - 0.5], ["0", str(columns - 1)])
    ax.set_yticks([0.5, rows - 0.5], ["0", str(rows - 1)])
    ax.set_title(f"{place} ({row}, {column})", fontsize=8.5)
    ax.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=style.LIGHT, linewidth=1.6, clip_on=False))
    return mesh


@styled
def by_layer(layers: Mapping[str, xr.DataArray], key: str = "layers") -> Figure:
    """How well tokens localise, layer by layer: share that find their own patch, and how far it stands out.

    layers: label of a model -> (layer, row, col, patch_row, patch_col) with coordinate depth.
    """
    drawing, (axes,) = panels(1, 2, height=3.0)
    ends = []
    for name, similarity in ((name, whole(maps)) for name, maps in layers.items()):
        rates = localization_rate(similarity).sel(region="all")
        excess = contrast(similarity)["difference"].mean(["row", "col"])
        look = style.model_style(name)
        for ax, values in zip(axes, (rates["top1"], excess), strict=True):
            ax.plot(similarity["depth"], values, **look, label=name)
        style.level(axes[0], float(rates["chance_top1"][0]), color=look["color"], linewidth=0.6)
        first, last = (float(rates["top1"][layer]) for layer in (0, -1))
        ends.append(f"{name} {first:.0%} in the first and {last:.0%} in the last block shown")
    axes[0].set(title="finds its own patch", ylabel="share of tokens", ylim=(0, 1.02))
    axes[1].set(title="stands out for its own patch", ylabel="CKA, own − others")
    style.level(axes[1], 0)
    for ax in axes:
        ax.set_xlabel("depth of the layer, 0 to 1")
    style.legend_below(drawing, axes, columns=3)
    alt = (
        "Two line plots by depth: the share of tokens whose most similar patch is their own, and by how much the CKA "
        f"with the own patch exceeds that with others. Share: {'; '.join(ends)}."
    )
    caption = (
        "Left: share of spatial tokens whose most similar patch of the input is their own (thin level lines: a patch "
        "drawn at random). Right: CKA with the own patch less the mean over all other patches, mean over tokens."
    )
    return figure(drawing, "fig-9", alt, caption, line(*layers.values()), key)


# Figure 11: linear probes

# The right panel: label -> model, read-out, marker and line. The colour shows the training, the line what is probed.
_READOUTS = {
    "CLS; CLS token": ("ViT", "cls", "o-"),
    "CLS; mean of tokens, CLS left out": ("ViT", "mean", "s--"),
    "CLS; mean of all tokens": ("ViT", "mean with cls", "v:"),
    "GAP; first token": ("ViT-GAP", "first token", "s--"),
    "GAP; mean of all tokens": ("ViT-GAP", "mean", "o-"),
}


@styled
def probes(models: Mapping[str, xr.Dataset]) -> Figure:
    """Figure 11: left, probes on single tokens, averaged over tokens, by model; right, read-outs of two ViTs.

    models: label -> `layer_probes` with read-out 'token'; 'ViT' and, if it is there, 'ViT-GAP' with the others too.
    """
    drawing, (axes,) = panels(1, 2, height=3.9, sharey=True)
    curves: dict[str, xr.DataArray] = {}
    for label, dataset in models.items():
        curves[label] = dataset["accuracy"].sel(readout="token")
        style.probe_curve(axes[0], curves[label], label, **style.model_style(label))
    for label, (model, readout, look) in _READOUTS.items():
        if model in models:
            curves[label] = models[model]["accuracy"].sel(readout=readout)
            colour = style.model_style(model)["color"]
            style.probe_curve(axes[1], curves[label], label, color=colour, marker=look[0], linestyle=look[1:])
    attrs = next(iter(models.values())).attrs
    for ax, title in zip(axes, ("single token or place", "trained with; probed at"), strict=True):
        style.level(ax, 100 * attrs["chance"], linestyle=":")
        ax.set(title=title, xlabel="depth of the layer, 0 to 1", ylabel="test accuracy, %", xlim=(0, 1.02))
        ax.set_ylim(bottom=0)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)
    caption = (
        f"Accuracy of linear probes from {attrs['shots']} labelled images a class, by depth; bands: one standard "
        "deviation over draws of these images; dotted: chance. Left: one probe for each token (CLS left out) or place, "
        "averaged over them. Right: for two ViTs, what they were trained with; where they are probed."
    )
    ends = "; ".join(
        f"{label} {100 * float(a.isel(layer=0).mean()):.0f} % to {100 * float(a.isel(layer=-1).mean()):.0f} %"
        for label, a in curves.items()
    )
    alt = f"Two line plots of probe accuracy by depth. First to last layer: {ends}."
    return figure(drawing, "fig-11", alt, caption, line(*models.values()))


@styled
def token_accuracies(models: Mapping[str, xr.Dataset], layers: int) -> Figure:
    """D.4: accuracy of a probe on each token, at its place in the image, in the last `layers` layers of each model."""
    drawing, axes = panels(len(models), layers, height=0.3 + 1.75 * len(models))
    spans = []
    for row, (name, dataset) in zip(axes, models.items(), strict=True):
        accuracy = 100 * dataset["token_accuracy"].isel(layer=slice(-layers, None)).mean("draw")
        for ax, values in zip(row, accuracy, strict=True):
            mesh = heat_map(ax, values, cmap=style.SEQUENTIAL, square=True)
            ax.set_title(str(values["layer"].item()), fontsize=8.5)
            style.colour_bar(drawing, mesh, ax, aspect=14, pad=0.03, shrink=1)
        row[0].set_ylabel(name, fontsize=8.5)
        last = accuracy.isel(layer=-1)
        spans.append(f"{name} {float(last.min()):.0f} to {float(last.max()):.0f} %")
    alt = (
        f"{len(models)} rows of {layers} maps: accuracy of a probe on each token, at its place in the image. "
        f"In the last layer: {'; '.join(spans)}."
    )
    caption = (
        f"Test accuracy (%) of a probe on each single token or place, in the last {layers} blocks or units, mean "
        "over draws. Each map has its own colour scale, as in the paper."
    )
    return figure(drawing, "fig-11", alt, caption, line(*models.values()), key="tokens")
