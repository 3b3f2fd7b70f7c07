"""Figures 3 to 6: how far heads look, which of them resemble a CNN, and what part of the image a place depends on."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from vitcnn_utils.measures.attention import rank_correlations
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.receptive_field import of_kind
from vitcnn_utils.plots import style
from vitcnn_utils.plots.style import Figure, figure, heat_map, panels, styled
from vitcnn_utils.provenance import line

# Told apart by shape as well as by colour: the two lowest and the two highest blocks of a ViT; units of a CNN.
_BLOCK_STYLES = ((style.BLUE, "o"), (style.GREEN, "s"), (style.PURPLE, "^"), (style.RED, "D"))
_UNIT_STYLES = ((style.ORANGE, "o"), (style.GREEN, "s"), (style.PURPLE, "^"), (style.RED, "D"), (style.GREY, "v"))
DARKEST = 1e-3
"""The share of a receptive field's largest value from which on down it is drawn in the darkest colour."""

# Figures 3 and 4


def head_distances(heads: xr.Dataset, untrained: xr.Dataset) -> Figure:
    """Fig 3: mean attention distance of each head in the lowest and highest blocks, sorted within its block.

    heads, untrained: of `head_distances`. Panels: prefix tokens counted as distance 0, renormalised, untrained.
    """
    shown = {
        "prefix tokens count as 0": heads["distance"],
        "without prefix tokens": heads["distance_renormalized"],
        "untrained": untrained["distance"],
    }
    caption = (
        f"Mean attention distance of every head of {heads.attrs['model']}, sorted within its block; the dashed line is "
        "uniform attention. Left: attention to prefix tokens (CLS) counts as distance 0, as in public code for this "
        "measure; the paper does not say. Middle: each query's attention to patches is scaled to sum to 1. Right: the "
        "same model before training, counted as on the left."
    )
    return _distances(shown, heads.attrs["uniform_distance"], "fig-3", caption, line(heads, untrained))


def head_distances_by_training(
    models: Mapping[str, xr.Dataset], key: str = "", by: str = "amount of training data"
) -> Figure:
    """Fig 4: the same for models that were trained differently, a panel a model.

    models: title of the panel -> of `head_distances`; all on one grid. by: in what they differ.
    """
    names = ", ".join(f"{title}: {heads.attrs['model']}" for title, heads in models.items())
    caption = f"As Figure 3, counted as on its left, by {by} ({names})."
    shown = {title: heads["distance"] for title, heads in models.items()}
    uniform = next(iter(models.values())).attrs["uniform_distance"]
    return _distances(shown, uniform, "fig-4", caption, line(*models.values()), key)


@styled
def _distances(
    shown: Mapping[str, xr.DataArray], uniform: float, name: str, caption: str, made: str, key: str = ""
) -> Figure:
    drawing, axes = panels(1, len(shown), width=2.4 * len(shown), height=2.9, sharey=True)
    for ax, (title, distances) in zip(axes[0], shown.items(), strict=True):
        style.level(ax, uniform, "uniform")
        ordinal = np.arange(distances.sizes["head"])
        # A line without a spread is matplotlib's: seaborn would want a long table for the same.
        for block, (colour, marker) in zip(_outer_blocks(distances), _BLOCK_STYLES, strict=False):
            row = np.sort(distances.sel(block=block))
            ax.plot(ordinal, row, color=colour, marker=marker, label=f"block {block}")
        ax.set(title=title, xlabel="head, sorted", xticks=ordinal[:: 1 + len(ordinal) // 9])
    highest = max(uniform, *(float(distances.max()) for distances in shown.values()))
    axes[0, 0].set(ylabel="mean attention distance (px)", ylim=(0, 1.08 * highest))
    style.legend_below(drawing, axes, columns=5)
    alt = "Line plots of mean attention distance in pixels against heads sorted by distance. "
    for title, distances in shown.items():
        outer = distances.sel(block=_outer_blocks(distances))
        ends = (f"block {int(row['block'])} {style.span(row, 1)}" for row in outer)
        alt += f"{title}: {', '.join(ends)}. "
    return figure(drawing, name, f"{alt}Uniform attention: {uniform:.1f}.", caption, made, key)


def _outer_blocks(distances: xr.DataArray) -> list[int]:
    """The two lowest and the two highest blocks, as far as there are so many."""
    blocks = distances["block"].values.tolist()
    return sorted({*blocks[:2], *blocks[-2:]})


@styled
def all_head_distances(heads: xr.Dataset, untrained: xr.Dataset) -> Figure:
    """Beside Fig 3: the heads of all blocks, and what their distance leaves out (mass on prefix tokens, entropy)."""
    drawing, (axes,) = panels(1, 2, height=2.7, width_ratios=(3, 2))
    uniform = heads.attrs["uniform_distance"]
    style.level(axes[0], uniform, "uniform")
    frames = {"a head": heads["distance"].to_dataframe(), "untrained": untrained["distance"].to_dataframe()}
    # Side by side and not jittered: the same picture in every run.
    sns.stripplot(
        pd.concat(frames, names=["model"]).reset_index(), x="block", y="distance", hue="model", ax=axes[0],
        dodge=True, jitter=False, palette=[style.BLUE, style.GREY], alpha=0.75, native_scale=True,
    )  # fmt: skip
    highest = max(uniform, float(heads["distance"].max()))
    axes[0].set(ylabel="mean attention distance (px)", ylim=(0, 1.08 * highest))
    axes[1].plot(
        heads["block"], heads["prefix_mass"].mean("head"), "o-", color=style.GREEN, label="share on prefix tokens"
    )
    axes[1].plot(heads["block"], heads["entropy"].mean("head"), "s-", color=style.RED, label="entropy")
    axes[1].set(ylabel="mean over heads", ylim=(0, 1.02))
    for ax in axes:
        ax.set(xlabel="block", xticks=heads["block"][:: 1 + heads.sizes["block"] // 13])
        ax.legend()
    mass, entropy = (heads[name].mean("head") for name in ("prefix_mass", "entropy"))
    alt = (
        "Left: a dot a head, mean attention distance against block, trained and untrained. Right: by block, the share "
        f"of attention on prefix tokens, {style.span(mass)}, and the entropy, {style.span(entropy)}."
    )
    caption = (
        f"All blocks of {heads.attrs['model']}. Left: a dot a head, counted as in Figure 3 on the left. Right: the "
        "share of attention that goes to prefix tokens (CLS), and its entropy (1: everywhere alike)."
    )
    return figure(drawing, "fig-3", alt, caption, line(heads, untrained), "all-blocks")


# Figure 5


@styled
def head_subsets(trained: Mapping[int, xr.Dataset], untrained: Mapping[int, xr.Dataset]) -> Figure:
    """Fig 5: CKA between groups of a block's heads and the lower units of a CNN, by the groups' mean distance.

    trained, untrained: number of heads in a group -> of `head_subset_similarity`, at most five units.
    Rows: sizes. Panels: trained; trained, the mean over tokens; untrained.
    """
    first = next(iter(trained.values()))
    rows = {
        size: {
            "trained": whole(trained[size]["cka"]),
            "trained, tokens averaged": whole(trained[size]["cka_pooled"]),
            "untrained": whole(untrained[size]["cka"]),
        }
        for size in trained
    }
    drawing, axes = panels(len(rows), 3, height=0.7 + 2.2 * len(rows), sharex=True, sharey=True)
    for row, (size, columns) in zip(axes, rows.items(), strict=True):
        for ax, (title, cka) in zip(row, columns.items(), strict=True):
            for (colour, marker), values in zip(_UNIT_STYLES, cka.transpose("layer", "subset"), strict=False):
                ax.plot(cka["distance"], values, color=colour, marker=marker, label=str(values["layer"].item()))
            rho = rank_correlations(cka["distance"], cka)
            ax.set_title(f"{title}\nρ {float(rho.min()):.2f} to {float(rho.max()):.2f}", fontsize=9)
        row[0].set_ylabel(f"CKA, groups of {size}")
    for ax in axes[-1]:
        ax.set_xlabel("mean distance of the group (px)")
    style.legend_below(drawing, axes, columns=5)
    alt = "Line plots of CKA against the mean attention distance of groups of heads, a line for each CNN unit."
    for size, columns in rows.items():
        for title, cka in columns.items():
            alt += (
                f" Groups of {size} heads, {title}: {style.from_to(cka['distance'], 1)} pixels CKA goes "
                f"{style.from_to(cka.mean('layer'))} on average."
            )
    caption = (
        f"CKA of groups of heads of block {first.attrs['block']} of {first.attrs['model']} with the lower units of "
        f"{first.attrs['cnn']}; ρ: Spearman's rank correlation of distance and CKA, lowest and highest of the units. "
        "Controls: middle, the heads' outputs averaged over all tokens; right, the same ViT before training."
    )
    return figure(drawing, "fig-5", alt, caption, line(*trained.values(), *untrained.values()))


# Figures 6 and C.4


@styled
def receptive_fields(vit: xr.DataArray, cnn: xr.DataArray, side: float) -> Figure:
    """Figs 6 and C.4: effective receptive fields of five depths of each model, after or before the residual addition.

    vit, cnn: of `effective_receptive_fields`. Of the ViT, attention sub-layers are shown; of the CNN, the stem, where
    there is one, and units. side: of the square marked at the centre, pixels (the patch of the ViT).
    """
    vit, cnn = whole(vit), whole(cnn)
    before = bool(vit.attrs["before_addition"])
    rows = {"ViT": _spread(of_kind(vit, "attention"), 5), "CNN": _spread(cnn, 5) if before else _with_stem(cnn)}
    drawing, axes = panels(len(rows), 5, height=1.45 * len(rows))
    for row, (name, fields) in zip(axes, rows.items(), strict=True):
        for ax in row[fields.sizes["layer"] :]:
            ax.set_axis_off()
        for ax, field in zip(row, fields, strict=False):
            shown = np.maximum((field / field.max()).fillna(0), DARKEST)  # NaN where nothing matters
            mesh = heat_map(ax, shown, cmap="inferno", norm=LogNorm(DARKEST, 1), square=True)
            corner = (float(field["centre_x"]) - side / 2, float(field["centre_y"]) - side / 2)
            ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=0.7))
            ax.set_title(layer_title(field), fontsize=9, loc="center")
        row[0].set_ylabel(name)
    style.colour_bar(drawing, mesh, axes, "share of the largest value", shrink=0.8)
    names = "; ".join(f"{row}: {', '.join(map(layer_title, fields))}" for row, fields in rows.items())
    alt = f"Maps of effective receptive fields, bright at the centre of the image, from low to high layers. {names}."
    where = "what the branches add, before the addition" if before else "the residual stream after the addition"
    channels = vit.attrs["channels"]
    caption = (
        f"Effective receptive fields of {where}: {vit.attrs['model']}, attention (top), and {cnn.attrs['model']} "
        "(bottom), each map as share of its largest value. Mean over images, "
        f"{'all channels' if channels == 'all' else f'estimated from channels: {channels}'}. Sub-layers and units are "
        "counted from 0 (in the paper, from 1). The white square is one patch of the ViT."
    )
    return figure(drawing, "fig-6", alt, caption, line(vit, cnn), "before" if before else "")


def _spread(fields: xr.DataArray, n: int) -> xr.DataArray:
    """n layers from the first to the last, evenly spread; all of them if there are fewer."""
    last = fields.sizes["layer"] - 1
    return fields.isel(layer=np.unique(np.linspace(0, last, n).round().astype(int)))


def _with_stem(fields: xr.DataArray) -> xr.DataArray:
    """The stem and the units that end each quarter of the depth: of a net with equal stages, each stage's last."""
    units = of_kind(fields, "residual")
    ends = np.unique(np.linspace(0, units.sizes["layer"], 5).round().astype(int)[1:] - 1)
    return xr.concat([of_kind(fields, "stem"), units.isel(layer=ends)], "layer", combine_attrs="override")


def layer_title(field: xr.DataArray) -> str:
    """What a layer of a receptive field is called: 'stem', 'attention 2', 'MLP 2' or 'unit 2', counted from 0."""
    kind, block = str(field["kind"].item()), int(field["block"])
    return {"attention": f"attention {block}", "mlp": f"MLP {block}", "residual": f"unit {block}"}.get(kind, kind)


_CURVES = {
    "radius_50": "radius with half the field (px)",
    "radius_90": "radius with 90 % of the field (px)",
    "centre_mass": "share of the field in one patch",
}


@styled
def receptive_field_curves(sizes: Mapping[str, xr.Dataset], uniform: xr.Dataset) -> Figure:
    """Beside Fig 6: size and centre of the receptive fields against depth.

    sizes: 'ViT', 'CNN', 'ViT, untrained' and 'CNN, untrained' -> of `summarize`. uniform: the same of a uniform field.
    """
    sizes = {name: whole(data) for name, data in sizes.items()}
    drawing, axes = panels(1, len(_CURVES), height=2.9)
    for ax, (key, label) in zip(axes[0], _CURVES.items(), strict=True):
        for name, data in sizes.items():
            ax.plot(data["depth"], data[key], **style.model_style(name), label=name)
        style.level(ax, float(uniform[key][0]), "uniform field")
        ax.set(xlabel="depth", xlim=(0, 1), ylim=(0, None))
        ax.set_title(label, fontsize=9)
    style.legend_below(drawing, axes, columns=5)
    alt = "Line plots against depth, from 0 to 1. " + " ".join(
        f"{label}, {name}: {style.from_to(data[key])}."
        for key, label in _CURVES.items()
        for name, data in sizes.items()
    )
    caption = (
        "The maps of Figure 6 in numbers, at every depth: after the addition of each attention sub-layer of the ViT, "
        "and after the stem and each unit of the CNN. Dotted: the same models before training. Dashed: a uniform field."
    )
    return figure(drawing, "fig-6", alt, caption, line(*sizes.values()), "curves")


@styled
def centre_before_and_after(branches: Mapping[str, tuple[xr.Dataset, xr.Dataset]]) -> Figure:
    """Beside Fig C.4: the centre's share of the receptive field, before and after the residual addition, by block.

    branches: 'attention', 'MLP' and 'CNN unit' -> of `summarize`, a layer a block, after and before the addition.
    """
    after, before = ({name: whole(pair[i]) for name, pair in branches.items()} for i in (0, 1))
    drawing, axes = panels(1, len(after), height=2.6, sharey=True)
    for ax, name in zip(axes[0], after, strict=True):
        for data, colour, marker, label in ((after, style.GREEN, "s", "after"), (before, style.PURPLE, "^", "before")):
            blocks = data[name]["block"]
            ax.plot(blocks, data[name]["centre_mass"], color=colour, marker=marker, label=f"{label} the addition")
        ax.set(title=name, xlabel="block or unit", xticks=blocks[:: 1 + len(blocks) // 9], ylim=(0, 1))
    axes[0, 0].set_ylabel("share in one patch")
    style.legend_below(drawing, axes)
    alt = "Line plots of the centre's share against block. " + " ".join(
        f"{name}: before the addition {float(before[name]['centre_mass'].mean()):.2f} on average, after it "
        f"{float(after[name]['centre_mass'].mean()):.2f}."
        for name in after
    )
    caption = (
        "Share of the receptive field that lies in one patch at the centre, before and after the residual addition, by "
        "block or unit."
    )
    made = line(*after.values(), *before.values())
    return figure(drawing, "fig-6", alt, caption, made, key="centre")
