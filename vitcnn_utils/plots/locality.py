"""Figures 3 to 6: how far heads look, which of them resemble a CNN, and what part of the image a place depends on."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as MplFigure
from matplotlib.patches import Rectangle

from vitcnn_utils.measures.attention import rank_correlations
from vitcnn_utils.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Figure, figure, panels, styled
from vitcnn_utils.provenance import Provenance

# The two lowest and the two highest blocks, told apart by shape as well as by colour.
_BLOCK_STYLES = ((BLUE, "o"), (GREEN, "s"), (ORANGE, "^"), (RED, "D"))
_UNIT_STYLES = (*_BLOCK_STYLES, (PURPLE, "v"))
FIELD = "inferno"
"""The colour map of receptive fields: dark far beyond the field, as in the paper."""
DARKEST = 1e-3
"""The share of a map's largest value from which on down it is drawn in the darkest colour."""


# --- Figs 3 and 4 -------------------------------------------------------------------------------------------


def head_distances(heads: xr.Dataset, untrained: xr.Dataset, provenance: Provenance) -> Figure:
    """Fig 3: mean attention distance of each head in the lowest and highest blocks, sorted within its block.

    heads, untrained: of `attention.head_distances`. Panels: as in the paper, renormalised, untrained.
    """
    shown = {
        "as in the paper": heads["distance"],
        "without the CLS token's share": heads["distance_renormalized"],
        "untrained": untrained["distance"],
    }
    uniform = heads.attrs["uniform_distance"]
    alt = "Line plots of mean attention distance in pixels against heads sorted by distance. " + _alt_of(shown, uniform)
    caption = (
        f"Mean attention distance of every head of {heads.attrs['model']}, sorted within its block; the dashed line is "
        "uniform attention. Left: attention to the CLS token counts as distance 0, as in the paper. Middle: each "
        "query's "
        "attention to patches is scaled to sum to 1. Right: the same model before training, counted as on the left."
    )
    return figure(_draw_head_distances(shown, uniform), ["fig-3"], alt, caption, provenance)


def head_distances_by_data(models: Mapping[str, xr.Dataset], provenance: Provenance, key: str = "") -> Figure:
    """Fig 4: the same for models that were trained on different amounts of data, a panel a model.

    models: title of the panel -> of `attention.head_distances`; all on one grid.
    """
    shown = {title: heads["distance"] for title, heads in models.items()}
    uniform = next(iter(models.values())).attrs["uniform_distance"]
    alt = "Line plots of mean attention distance in pixels against heads sorted by distance. " + _alt_of(shown, uniform)
    names = ", ".join(f"{title}: {heads.attrs['model']}" for title, heads in models.items())
    caption = f"As Figure 3, counted as in the paper, by amount of training data ({names})."
    return figure(_draw_head_distances(shown, uniform), ["fig-4"], alt, caption, provenance, key)


@styled
def _draw_head_distances(shown: Mapping[str, xr.DataArray], uniform: float) -> MplFigure:
    drawing, axes = panels(1, len(shown), width=2.4 * len(shown), height=2.9, sharey=True)
    for ax, (title, distances) in zip(axes[0], shown.items(), strict=True):
        ax.axhline(uniform, color=GREY, linestyle="--", linewidth=1.2, label="uniform")
        ordinal = np.arange(1, distances.sizes["head"] + 1)
        for block, (colour, marker) in zip(_outer_blocks(distances), _BLOCK_STYLES, strict=True):
            row = np.sort(distances.sel(block=block))
            ax.plot(ordinal, row, color=colour, marker=marker, label=f"block {block}")
        ax.set(title=title, xlabel="head, sorted", xticks=ordinal)
    highest = max(uniform, *(float(distances.max()) for distances in shown.values()))
    axes[0, 0].set(ylabel="mean attention distance (px)", ylim=(0, 1.08 * highest))
    _shared_legend(drawing, axes[0, 0])
    return drawing


def _outer_blocks(distances: xr.DataArray) -> list[int]:
    blocks = [int(block) for block in distances["block"]]
    return [*blocks[:2], *blocks[-2:]]


def _alt_of(shown: Mapping[str, xr.DataArray], uniform: float) -> str:
    parts = []
    for title, distances in shown.items():
        rows = (
            f"block {b} from {float(distances.sel(block=b).min()):.1f} to {float(distances.sel(block=b).max()):.1f}"
            for b in _outer_blocks(distances)
        )
        parts.append(f"{title}: {', '.join(rows)}.")
    return " ".join(parts) + f" Uniform attention: {uniform:.1f}."


@styled
def _draw_all_blocks(heads: xr.Dataset, untrained: xr.Dataset) -> MplFigure:
    drawing, axes = panels(1, 2, height=2.7, width_ratios=(3, 2))
    blocks = heads["block"].values
    left, right = axes[0]
    left.axhline(heads.attrs["uniform_distance"], color=GREY, linestyle="--", linewidth=1.2, label="uniform")
    for data, colour, marker, shift in ((heads, BLUE, "o", -0.12), (untrained, ORANGE, "x", 0.12)):
        spots = np.repeat(data["block"].values + shift, data.sizes["head"])
        label = "untrained" if data is untrained else "a head"
        left.plot(spots, data["distance"].values.ravel(), marker, color=colour, alpha=0.75, label=label)
    highest = max(heads.attrs["uniform_distance"], float(heads["distance"].max()))
    left.set(xlabel="block", ylabel="mean attention distance (px)", xticks=blocks, ylim=(0, 1.08 * highest))
    right.plot(blocks, heads["prefix_mass"].mean("head"), "o-", color=GREEN, label="share on CLS")
    right.plot(blocks, heads["entropy"].mean("head"), "s-", color=RED, label="entropy")
    right.set(xlabel="block", ylabel="mean over heads", xticks=blocks, ylim=(0, 1.02))
    for ax in (left, right):
        ax.legend()
    return drawing


def all_head_distances(heads: xr.Dataset, untrained: xr.Dataset, provenance: Provenance) -> Figure:
    """Beside Fig 3: the heads of all blocks, and what their distance leaves out (mass on CLS, entropy)."""
    mass, entropy = (heads[name].mean("head") for name in ("prefix_mass", "entropy"))
    alt = (
        "Left: a dot a head, mean attention distance against block, trained and untrained. Right: by block, the share "
        f"of attention on the CLS token, {float(mass.min()):.2f} to {float(mass.max()):.2f}, and the entropy, "
        f"{float(entropy.min()):.2f} to {float(entropy.max()):.2f}."
    )
    caption = (
        f"All blocks of {heads.attrs['model']}, counted as in the paper. Left: a dot a head. Right: the share of the "
        "patches' attention that goes to the CLS token, and the entropy of their attention (1: everywhere alike)."
    )
    return figure(_draw_all_blocks(heads, untrained), ["fig-3"], alt, caption, provenance, key="all-blocks")


def _shared_legend(drawing: MplFigure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(handles))


# --- Fig 5 --------------------------------------------------------------------------------------------------


def head_subsets(
    trained: Mapping[int, xr.Dataset], untrained: Mapping[int, xr.Dataset], provenance: Provenance
) -> Figure:
    """Fig 5: CKA between groups of a block's heads and the lower units of a CNN, by the groups' mean distance.

    trained, untrained: number of heads in a group -> of `attention.head_subset_similarity`, at most five units.
    Rows: sizes. Panels: trained; trained, the mean over tokens; untrained.
    """
    first = next(iter(trained.values()))
    rows = {size: _columns_of(trained[size], untrained[size]) for size in trained}
    alt = (
        "Line plots of CKA against the mean attention distance of groups of heads, a line for each CNN unit. "
        + " ".join(
            f"Groups of {size} heads, {title}: from {float(distance.min()):.1f} to {float(distance.max()):.1f} pixels "
            "CKA goes "
            f"from {float(cka[0].mean()):.2f} to {float(cka[-1].mean()):.2f} on average."
            for size, columns in rows.items()
            for title, (distance, cka) in columns.items()
        )
    )
    caption = (
        f"CKA between groups of heads of block {first.attrs['block']} of {first.attrs['model']}, from the most local "
        f"group to the most global, and the outputs of the lower units of {first.attrs['cnn']}; ρ: Spearman's rank "
        "correlation of "
        "distance and CKA, lowest and highest of the units. Middle: control, the heads' outputs averaged over all "
        "tokens, so that no place can be told from another. Right: control, the same ViT before training."
    )
    return figure(_draw_head_subsets(rows), ["fig-5"], alt, caption, provenance)


def _columns_of(trained: xr.Dataset, untrained: xr.Dataset) -> dict[str, tuple[xr.DataArray, xr.DataArray]]:
    return {
        "trained": (trained["distance"], trained["cka"]),
        "trained, tokens averaged": (trained["distance"], trained["cka_pooled"]),
        "untrained": (untrained["distance"], untrained["cka"]),
    }


@styled
def _draw_head_subsets(rows: Mapping[int, Mapping[str, tuple[xr.DataArray, xr.DataArray]]]) -> MplFigure:
    drawing, axes = panels(len(rows), 3, height=0.7 + 2.2 * len(rows), sharex=True, sharey=True)
    for row, (size, columns) in zip(axes, rows.items(), strict=True):
        for ax, (title, (distance, cka)) in zip(row, columns.items(), strict=True):
            for (colour, marker), values in zip(_UNIT_STYLES, cka.transpose("layer", "subset"), strict=False):
                ax.plot(distance, values, color=colour, marker=marker, label=str(values["layer"].item()))
            rho = rank_correlations(distance, cka)
            ax.set_title(f"{title}\nρ {float(rho.min()):.2f} to {float(rho.max()):.2f}", fontsize=9)
        row[0].set_ylabel(f"CKA, groups of {size}")
    for ax in axes[-1]:
        ax.set_xlabel("mean distance of the group (px)")
    _shared_legend(drawing, axes[0, 0])
    return drawing


# --- Figs 6 and C.4 -----------------------------------------------------------------------------------------


def receptive_fields(vit: xr.DataArray, cnn: xr.DataArray, side: float, provenance: Provenance) -> Figure:
    """Fig 6: effective receptive fields of five depths of each model, after the residual addition.

    vit, cnn: of `receptive_field.effective_receptive_fields`. Of the ViT, attention sub-layers are shown; of the CNN,
    the stem and units. side: of the square marked at the centre, pixels (the patch of the ViT).
    """
    rows = {"ViT": _spread(of_kind(vit, "attention"), 5), "CNN": _with_stem(cnn)}
    caption = (
        f"Effective receptive fields of {vit.attrs['model']} after the addition of five attention sub-layers (top) "
        f"and of {cnn.attrs['model']} after its stem and the addition of four units (bottom), each map as share of its "
        "largest "
        f"value; the mean over {vit.attrs['n_images']} images, {_channels(vit)}. Sub-layers and units are counted from "
        "1, as in the paper. The white square is one patch of the ViT."
    )
    return figure(_draw_maps(rows, side), ["fig-6"], _alt_of_maps(rows), caption, provenance)


def receptive_fields_before(vit: xr.DataArray, cnn: xr.DataArray, side: float, provenance: Provenance) -> Figure:
    """Fig C.4: the same for what a branch adds, before the addition."""
    rows = {"ViT": _spread(of_kind(vit, "attention"), 5), "CNN": _spread(cnn, 5)}
    caption = (
        "As Figure 6, but of what the branch alone gives, before it is added to the residual stream (Figure C.4 of the "
        f"paper), {_channels(vit)}."
    )
    return figure(_draw_maps(rows, side), ["fig-6"], _alt_of_maps(rows), caption, provenance, key="before")


def of_kind(fields: xr.DataArray, kind: str) -> xr.DataArray:
    """The layers of one kind: 'attention', 'mlp', 'residual' (units of a CNN) or 'stem'."""
    return fields.isel(layer=fields["kind"].values == kind)


def _spread(fields: xr.DataArray, n: int) -> xr.DataArray:
    """n layers from the first to the last, evenly spread; all of them if there are fewer."""
    last = fields.sizes["layer"] - 1
    return fields.isel(layer=np.unique(np.linspace(0, last, n).round().astype(int)))


def _with_stem(fields: xr.DataArray) -> xr.DataArray:
    """The stem and the units that end each quarter of the depth: of a net with equal stages, each stage's last."""
    units = of_kind(fields, "residual")
    ends = np.unique(np.linspace(0, units.sizes["layer"], 5).round().astype(int)[1:] - 1)
    return xr.concat([of_kind(fields, "stem"), units.isel(layer=ends)], "layer")


def _channels(fields: xr.DataArray) -> str:
    """How many channels the field was measured on: all, or, as the measure says, '8 of each image, drawn with …'."""
    channels = fields.attrs["channels"]
    return "all channels" if channels == "all" else f"estimated from channels: {channels}"


def _alt_of_maps(rows: Mapping[str, xr.DataArray]) -> str:
    names = "; ".join(f"{row}: {', '.join(map(layer_title, fields))}" for row, fields in rows.items())
    return f"Maps of effective receptive fields, bright at the centre of the image, from low to high layers. {names}."


def layer_title(field: xr.DataArray) -> str:
    """What a layer of a receptive field is called: 'stem', 'attention 3', 'MLP 3' or 'unit 3', counted from 1."""
    kind, block = str(field["kind"].item()), int(field["block"]) + 1
    return {"attention": f"attention {block}", "mlp": f"MLP {block}", "residual": f"unit {block}"}.get(kind, kind)


@styled
def _draw_maps(rows: Mapping[str, xr.DataArray], side: float) -> MplFigure:
    drawing, axes = panels(len(rows), 5, height=1.45 * len(rows))
    for row, (name, fields) in zip(axes, rows.items(), strict=True):
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(name)
        for ax, field in zip(row, fields, strict=False):
            height, width = field.shape
            shown = np.maximum(field / field.max(), DARKEST)
            image = ax.imshow(
                shown, cmap=FIELD, norm=LogNorm(DARKEST, 1), extent=(0, width, height, 0), interpolation="none"
            )
            corner = (float(field["centre_x"]) - side / 2, float(field["centre_y"]) - side / 2)
            ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=0.7))
            ax.set_title(layer_title(field), fontsize=9, loc="center")
    bar = drawing.colorbar(image, ax=axes, shrink=0.8, pad=0.01)
    bar.set_label("share of the largest value")
    bar.outline.set_visible(False)
    return drawing


_CURVES = {
    "radius_50": "radius with half the field (px)",
    "radius_90": "radius with 90 % of the field (px)",
    "centre_mass": "share of the field in one patch",
}


def receptive_field_curves(
    trained: Mapping[str, xr.Dataset], untrained: Mapping[str, xr.Dataset], uniform: xr.Dataset, provenance: Provenance
) -> Figure:
    """Beside Fig 6: size and centre of the receptive fields against depth.

    trained, untrained: 'ViT' and 'CNN' -> of `receptive_field.summarize`. uniform: the same of a uniform field.
    """
    alt = "Line plots against depth, from 0 to 1. " + " ".join(
        f"{label}, {name}: from {float(data[key][0]):.2f} to {float(data[key][-1]):.2f}."
        for key, label in _CURVES.items()
        for name, data in trained.items()
    )
    caption = (
        "The maps of Figure 6 in numbers, at every depth: after the addition of each attention sub-layer of the ViT, "
        "and after the stem and each unit of the CNN. Dotted: the same models before training. Dashed: a uniform field."
    )
    drawing = _draw_curves(trained, untrained, uniform)
    return figure(drawing, ["fig-6"], alt, caption, provenance, key="curves")


@styled
def _draw_curves(
    trained: Mapping[str, xr.Dataset], untrained: Mapping[str, xr.Dataset], uniform: xr.Dataset
) -> MplFigure:
    drawing, axes = panels(1, len(_CURVES), height=2.9)
    for ax, (key, label) in zip(axes[0], _CURVES.items(), strict=True):
        for (colour, marker), name in zip(_BLOCK_STYLES[::2], trained, strict=True):
            ax.plot(trained[name]["depth"], trained[name][key], color=colour, marker=marker, label=name)
            twin = untrained[name]
            ax.plot(twin["depth"], twin[key], ":", color=colour, label=f"{name}, untrained")
        ax.axhline(float(uniform[key][0]), color=GREY, linestyle="--", linewidth=1.2, label="uniform field")
        ax.set(xlabel="depth", xlim=(0, 1), ylim=(0, None))
        ax.set_title(label, fontsize=9)
    _shared_legend(drawing, axes[0, 0])
    return drawing


def centre_before_and_after(
    after: Mapping[str, xr.Dataset], before: Mapping[str, xr.Dataset], provenance: Provenance
) -> Figure:
    """Beside Fig C.4: the centre's share of the receptive field, before and after the residual addition, by block.

    after, before: 'attention', 'MLP' and 'CNN unit' -> of `receptive_field.summarize`, a layer a block.
    """
    alt = "Line plots of the centre's share against block. " + " ".join(
        f"{name}: before the addition {float(before[name]['centre_mass'].mean()):.2f} on average, after it "
        f"{float(after[name]['centre_mass'].mean()):.2f}."
        for name in after
    )
    caption = (
        "Share of the receptive field that lies in one patch at the centre, before and after the residual addition, by "
        "block or unit, counted from 1 as in Figure 6."
    )
    return figure(_draw_centre(after, before), ["fig-6"], alt, caption, provenance, key="centre")


@styled
def _draw_centre(after: Mapping[str, xr.Dataset], before: Mapping[str, xr.Dataset]) -> MplFigure:
    drawing, axes = panels(1, len(after), height=2.6, sharey=True)
    for ax, name in zip(axes[0], after, strict=True):
        for data, colour, marker, label in ((after, BLUE, "o", "after"), (before, ORANGE, "^", "before")):
            blocks = data[name]["block"] + 1
            ax.plot(blocks, data[name]["centre_mass"], color=colour, marker=marker, label=f"{label} the addition")
        ax.set(title=name, xlabel="block or unit, from 1", xticks=blocks[:: 1 + len(blocks) // 9], ylim=(0, 1))
    axes[0, 0].set_ylabel("share in one patch")
    _shared_legend(drawing, axes[0, 0])
    return drawing
