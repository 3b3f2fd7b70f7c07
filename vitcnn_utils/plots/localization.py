"""Figures 9, 10 and 11: how well tokens and places keep track of where they come from."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

from vitcnn_utils.measures.localization import contrast, localization_rate
from vitcnn_utils.plots.style import CYCLE, SEQUENTIAL, SIMILARITY, Figure, figure, heat_map, panels, styled
from vitcnn_utils.provenance import Provenance

# The paper's (0, 0), (2, 1) and (4, 4) of a 7 x 7 grid, as shares of the grid; its fourth, (4, 2), is moved to the
# edge, for what the paper says of border tokens.
PLACES = {"corner": (0.0, 0.0), "border": (4 / 6, 0.0), "near border": (2 / 6, 1 / 6), "interior": (4 / 6, 4 / 6)}
_OWN = "#35d0ff"  # outlines a token's own patch; stands out on every part of the colour map

# Figures 9 and 10: token x patch similarity


def positions(grid: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The (row, column) of the four tokens of Figures 9 and 10, on a grid of any size."""
    rows, columns = grid
    return {name: (round(r * (rows - 1)), round(c * (columns - 1))) for name, (r, c) in PLACES.items()}


@styled
def token_maps(maps: Mapping[str, xr.DataArray], ids: tuple[str, ...], provenance: Provenance, key: str = "") -> Figure:
    """Figures 9 and 10: CKA of four tokens with every patch of the input, one row of maps for each of `maps`.

    maps: title of the row -> (row, col, patch_row, patch_col), as `localization.token_patch_similarity` gives.
    The four tokens are at the same places of the image in every row; each row has a colour scale of its own.
    """
    drawing, axes = panels(len(maps), len(PLACES), height=0.3 + 1.7 * len(maps))
    for row, (name, similarity) in zip(axes, maps.items(), strict=True):
        _row_of_maps(drawing, row, name, similarity)
    caption = (
        f"CKA of the activations of one token (outlined) with the pixels of each patch of the input, over the images: "
        f"{', '.join(maps)}. Above each map, the token's row and column. Each row has its own colour scale. "
        "1 = the same up to rotation and scale, 0 = unrelated."
    )
    rates = "; ".join(f"{name}, {_rates_in_words(similarity)}" for name, similarity in maps.items())
    alt = (
        f"{len(maps)} rows of {len(PLACES)} heat maps over the patches of the image, for tokens at "
        f"{', '.join(PLACES)}. "
        f"Share of all tokens whose most similar patch is their own: {rates}."
    )
    return figure(drawing, ids, alt, caption, provenance, key)


def _row_of_maps(drawing: Drawing, row: np.ndarray, name: str, similarity: xr.DataArray) -> None:
    places = positions((similarity.sizes["row"], similarity.sizes["col"]))
    shown = [similarity.values[at] for at in places.values()]
    low, high = (float(limit(np.stack(shown))) for limit in (np.nanmin, np.nanmax))
    for ax, (place, (r, c)), values in zip(row, places.items(), shown, strict=True):
        image = heat_map(ax, values, cmap=SIMILARITY, vmin=low, vmax=high)
        ax.invert_yaxis()  # rows of the image run downwards
        ax.set(aspect="equal", xticks=[0, values.shape[1] - 1], yticks=[0, values.shape[0] - 1])
        ax.set_title(f"{place} ({r}, {c})", fontsize=8.5)
        ax.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, fill=False, edgecolor=_OWN, linewidth=1.6, clip_on=False))
    row[0].set_ylabel(f"{name}\npatch row", fontsize=8.5)
    row[0].set_xlabel("patch column", fontsize=8.5)
    drawing.colorbar(image, ax=list(row), label="CKA", aspect=14, pad=0.015)


def _rates_in_words(similarity: xr.DataArray) -> str:
    return f"{float(localization_rate(similarity)['top1'].sel(region='all')):.0%}"


@styled
def by_layer(layers: Mapping[str, xr.DataArray], provenance: Provenance, key: str = "layers") -> Figure:
    """How well tokens localise, layer by layer: share that find their own patch, and how far it stands out.

    layers: model -> (layer, row, col, patch_row, patch_col) with coordinate depth.
    """
    drawing, axes = panels(1, 2, height=3.0)
    ends = []
    for colour, (name, similarity) in zip(CYCLE, layers.items(), strict=False):
        rate = localization_rate(similarity)["top1"].sel(region="all")
        excess = contrast(similarity)["difference"].mean(["row", "col"])
        for ax, values in zip(axes[0], (rate, excess), strict=True):
            ax.plot(similarity["depth"], values, "o-", color=colour, label=name)
        chance = float(localization_rate(similarity)["chance_top1"].sel(region="all").isel(layer=0))
        axes[0, 0].axhline(chance, color=colour, linewidth=0.8, linestyle=":")
        ends.append(f"{name} {float(rate[0]):.0%} in the first and {float(rate[-1]):.0%} in the last block shown")
    axes[0, 0].set(
        title="finds its own patch", ylabel="share of tokens", xlabel="depth of the layer, 0 to 1", ylim=(0, 1.02)
    )
    axes[0, 1].set(
        title="stands out for its own patch", ylabel="CKA, own − others", xlabel="depth of the layer, 0 to 1"
    )
    axes[0, 1].axhline(0, color="#808080", linewidth=0.8)
    drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    alt = (
        "Two line plots by depth: the share of tokens whose most similar patch is their own, and by how much the CKA "
        f"with the own patch exceeds that with others. Share: {'; '.join(ends)}."
    )
    caption = (
        "Left: share of spatial tokens whose most similar patch of the input is their own (dotted: a patch drawn at "
        "random). Right: CKA with the own patch less the mean over all other patches, mean over tokens."
    )
    return figure(drawing, ("fig-9",), alt, caption, provenance, key)


# Figure 11: linear probes


@styled
def probes(
    models: Mapping[str, xr.Dataset], curves: Mapping[str, tuple[xr.Dataset, str]], provenance: Provenance
) -> Figure:
    """Figure 11: left, probes on single tokens, averaged over tokens, by model; right, read-outs of two ViTs.

    models: name -> `probes.layer_probes` with read-out 'token'; curves: name -> the same and the read-out.
    """
    drawing, axes = panels(1, 2, height=3.9, sharey=True)
    left = {name: dataset["accuracy"].sel(readout="token") for name, dataset in models.items()}
    right = {name: dataset["accuracy"].sel(readout=readout) for name, (dataset, readout) in curves.items()}
    chance = 100 * next(iter(models.values())).attrs["chance"]
    for ax, title, lines in zip(
        axes[0], ("single token or place", "trained with; probed at"), (left, right), strict=True
    ):
        for colour, style, (name, accuracy) in zip(CYCLE, _STYLES, lines.items(), strict=False):
            _curve(ax, accuracy, name, colour, style)
        ax.axhline(chance, color="#808080", linewidth=0.8, linestyle=":")
        ax.set(title=title, xlabel="depth of the layer, 0 to 1", xlim=(0, 1.02))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8)
    axes[0, 0].set_ylabel("test accuracy, %")
    axes[0, 0].set_ylim(bottom=0)
    shots = next(iter(models.values())).attrs["shots"]
    caption = (
        f"Accuracy of linear probes from {shots} labelled images a class, by depth; bands: one standard deviation over "
        f"draws of these images; dotted: chance. Left: one probe for each token (CLS left out) or place, averaged over "
        "them. Right: for two ViTs, what they were trained with; where they are probed."
    )
    ends = "; ".join(f"{name} {_at(a, 0)} to {_at(a, -1)}" for name, a in {**left, **right}.items())
    alt = f"Two line plots of probe accuracy by depth. First to last layer: {ends}."
    return figure(drawing, ("fig-11",), alt, caption, provenance)


_STYLES = ("o-", "s-", "D-", "^--", "v--")


def _curve(ax: Axes, accuracy: xr.DataArray, name: str, colour: str, style: str) -> None:
    mean, deviation = 100 * accuracy.mean("draw"), 100 * accuracy.std("draw", ddof=1)
    ax.plot(accuracy["depth"], mean, style, color=colour, label=name)
    ax.fill_between(accuracy["depth"], mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)


def _at(accuracy: xr.DataArray, layer: int) -> str:
    return f"{100 * float(accuracy.isel(layer=layer).mean()):.0f} %"


@styled
def token_accuracies(models: Mapping[str, xr.Dataset], layers: int, provenance: Provenance) -> Figure:
    """D.4: accuracy of a probe on each token, at its place in the image, in the last `layers` layers of each model."""
    drawing, axes = panels(len(models), layers, height=0.3 + 1.75 * len(models))
    spans = []
    for row, (name, dataset) in zip(axes, models.items(), strict=True):
        accuracy = 100 * dataset["token_accuracy"].isel(layer=slice(-layers, None)).mean("draw")
        for ax, values in zip(row, accuracy, strict=True):
            image = heat_map(ax, values, cmap=SEQUENTIAL)
            ax.invert_yaxis()  # rows of the image run downwards
            ax.set(aspect="equal", xticks=[], yticks=[])
            ax.set_title(str(values["layer"].item()), fontsize=8.5)
            drawing.colorbar(image, ax=ax, aspect=14, pad=0.03)
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
    return figure(drawing, ("fig-11",), alt, caption, provenance, key="tokens")
