"""Figures 7 and 8: how much of a representation the skip connections carry, and what training without them does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vitcnn_utils.measures.cka import split_contrast
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.residual import by_part
from vitcnn_utils.plots import style
from vitcnn_utils.plots.structure import borders, similarity_map
from vitcnn_utils.plots.style import Figure, figure, heat_map, panels, styled
from vitcnn_utils.provenance import line

BRANCHES = {"attention": "self-attention", "mlp": "MLP"}
_COLOURS = {"attention": style.BLUE, "mlp": style.PURPLE}
_LINES = {"CLS": "o-", "spatial": "s--"}

# Figure 7


@styled
def norm_ratios(vit: xr.Dataset, cnn: xr.Dataset, key: str = "") -> Figure:
    """Figure 7: norm ratios by token and block for both branches, and by block for the CLS token, the others and a CNN.

    vit, cnn: from `skip_ratios`. Nine tokens are shown, from token 0, which is CLS where there is one.
    """
    drawing, (axes,) = panels(1, 3, height=3.3, width_ratios=[1, 1, 1.8])
    shown = vit["ratio"].isel(token=slice(9)).transpose("token", "block", "branch")
    ticks = np.arange(vit.sizes["block"])[:: 1 + vit.sizes["block"] // 6]
    for ax, (branch, name) in zip(axes, BRANCHES.items(), strict=False):
        mesh = heat_map(ax, shown.sel(branch=branch), upward=True, cmap=style.SEQUENTIAL)
        ax.set_xticks(ticks + 0.5, ticks)
        ax.set_yticks(np.arange(shown.sizes["token"]) + 0.5, range(shown.sizes["token"]))
        ax.set(title=name, xlabel="block")
        style.colour_bar(drawing, mesh, ax, aspect=22, pad=0.03, shrink=1)
    has_cls = "CLS" in vit["part"]
    axes[0].set_ylabel("token (0 = CLS)" if has_cls else "token")
    _lines(axes[2], vit, cnn, "ratio")
    axes[2].set(title="‖z‖ / ‖f(z)‖ by block", ylim=(0, None))
    style.legend_below(drawing, axes[2], columns=3)
    parts = by_part(vit)
    ends = "; ".join(
        f"{name} {part} {style.from_to(parts.sel(branch=branch, part=part), 1)}"
        for branch, name in BRANCHES.items()
        for part in parts["part"].values
    )
    alt = (
        "Two heat maps of the ratio of skip norm to branch norm by token and block, for self-attention and MLP, and "
        f"a line plot of the ratio by block. First to last block: {ends}. CNN units {style.span(cnn['ratio'], 1)}."
    )
    caption = (
        "Norm of what the skip carries over norm of what the branch adds, ‖z‖ / ‖f(z)‖, mean over images. "
        f"Left: the first {shown.sizes['token']} tokens of {vit.attrs['model']}, each map with a colour scale of its "
        f"own. Right: {'the CLS token, ' * has_cls}the mean of all spatial tokens, and the units of "
        f"{cnn.attrs['model']} (hollow: units whose skip is a projection)."
    )
    return figure(drawing, "fig-7", alt, caption, line(vit, cnn), key)


def _lines(ax: Axes, vit: xr.Dataset, cnn: xr.Dataset, statistic: str) -> None:
    """One line for each branch and part of the ViT, one for the CNN; infinity leaves a gap."""
    parts = by_part(vit, statistic)
    for branch, name in BRANCHES.items():
        for part in parts["part"].values:
            values = parts.sel(branch=branch, part=part)
            ax.plot(vit["block"], values.where(np.isfinite(values)), _LINES[part], color=_COLOURS[branch],
                    label=f"{name}, {part}")  # fmt: skip
    units = cnn[statistic].isel(branch=0, token=0)
    units = units.where(np.isfinite(units))
    ax.plot(cnn["block"], units, "D:", color=style.ORANGE, label="CNN units")
    ax.plot(cnn["block"], units.where(cnn["projected"]), "D", color=style.ORANGE, markerfacecolor="white")
    ax.set(xlabel="block or unit")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def token_grids(vit: xr.Dataset) -> Figure:
    """Norm ratios of all tokens at their places in the image, one map for each block and branch (compare E.1).

    Of more than eight blocks, eight are shown, evenly spaced.
    """
    grid = vit.attrs["grid"]
    parts = by_part(vit)
    spatial = vit["ratio"].isel(token=(vit["part"] == "spatial").values)
    blocks = vit["block"].values[np.linspace(0, vit.sizes["block"] - 1, min(vit.sizes["block"], 8)).round().astype(int)]
    drawing, axes = panels(len(BRANCHES), len(blocks), height=2.6)
    spans = []
    for row, (branch, name) in zip(axes, BRANCHES.items(), strict=True):
        of_branch = spatial.sel(branch=branch)
        limits: dict[str, Any] = {"vmin": float(of_branch.min()), "vmax": float(of_branch.max())}
        spans.append(f"{style.span(of_branch, 1)} ({name})")
        for ax, block in zip(row, blocks, strict=True):
            values = of_branch.sel(block=block).values.reshape(grid)
            mesh = heat_map(ax, values, cmap=style.SEQUENTIAL, square=True, **limits)
            if "CLS" in parts["part"]:
                ax.set_xlabel(f"CLS {parts.sel(branch=branch, block=block, part='CLS'):.1f}", fontsize=7.5)
        row[0].set_ylabel(name)
        style.colour_bar(drawing, mesh, list(row), aspect=12, pad=0.01, shrink=1)
    for ax, block in zip(axes[0], blocks, strict=True):
        ax.set_title(f"block {block}", fontsize=8.5)
    alt = (
        f"Small maps of the image grid, {grid[0]} by {grid[1]} tokens, coloured by norm ratio: a column for each of "
        f"{len(blocks)} blocks, a row for self-attention and one for the MLP. "
        f"Spatial tokens range {', '.join(spans)}."
    )
    caption = (
        "‖z‖ / ‖f(z)‖ of every spatial token at its place in the image, by block, for self-attention (top) and MLP "
        f"(bottom){'; below each map, the ratio of the CLS token' * ('CLS' in parts['part'])}. Each row has its own "
        "colour scale."
    )
    return figure(drawing, "fig-7", alt, caption, line(vit), key="tokens")


@styled
def cosines(vit: xr.Dataset, cnn: xr.Dataset) -> Figure:
    """E.2: how the branch turns a token: cosine of the skip with the sum, and with the branch, by block."""
    titles = {"cosine_sum": "cos(z, z + f(z))", "cosine_branch": "cos(z, f(z))"}
    drawing, axes = panels(1, 2, height=3.0)
    for ax, (statistic, title) in zip(axes[0], titles.items(), strict=True):
        _lines(ax, vit, cnn, statistic)
        ax.set(title=title, ylabel="cosine")
    style.legend_below(drawing, axes, columns=3)
    with_sum, with_branch = (by_part(vit, statistic) for statistic in titles)
    alt = (
        "Two line plots by block. In the ViT, the cosine of the skip with the sum of skip and branch ranges "
        f"{style.span(with_sum)}, that with the branch {style.span(with_branch)}."
    )
    caption = (
        "Mean cosine, over images, of what the skip carries with what goes on (left) and with what the branch adds "
        "(right); hollow: units of the CNN whose skip is a projection. 1 = same direction, 0 = at right angles."
    )
    return figure(drawing, "fig-7", alt, caption, line(vit, cnn), key="cosine")


# Figure 8


@styled
def split_maps(
    intact: xr.DataArray, changed: Mapping[int, xr.DataArray], how: str = "trained without", key: str = ""
) -> Figure:
    """Figure 8: within-model CKA of an intact model, and of models that lack both skips of one block.

    intact: (layer_a, layer_b) of the intact model; changed: block -> the same of a model without that block's skips.
    how: what became of the skips, as the caption says it: 'trained without' or 'run without'.
    """
    intact, changed = whole(intact), {block: whole(similarity) for block, similarity in changed.items()}
    drawing, (axes,) = panels(1, 1 + len(changed), height=2.55, sharey=True)
    mesh = similarity_map(axes[0], intact, "all skips")
    for ax, (block, similarity) in zip(axes[1:], changed.items(), strict=True):
        mesh = similarity_map(ax, similarity, f"none in block {block}")
        inside = np.flatnonzero(similarity["block_a"].values == block)
        borders(ax, (inside[0], inside[-1] + 1))
        ax.set_ylabel("")
    axes[0].set_ylabel("layer, input to output")
    for ax in axes:
        ax.set_aspect("equal")
        ax.title.set_fontsize(8.5)
    style.colour_bar(drawing, mesh, list(axes), "CKA", aspect=14, ticks=[0, 0.5, 1])
    contrasts = ", ".join(
        f"{split_contrast(m, block):.2f} for block {block} ({split_contrast(intact, block):.2f} with all skips)"
        for block, m in changed.items()
    )
    alt = (
        f"{1 + len(changed)} square heat maps of the CKA of all pairs of layers of one model: first with all skips, "
        f"then {how} the skips of blocks {', '.join(map(str, changed))}. "
        f"Mean CKA on one side of the block less mean CKA across it: {contrasts}."
    )
    caption = (
        f"CKA of all pairs of layers within one model: intact, and {how} both skip connections of one block "
        "(between the thin lines). 1 = the same up to rotation and scale, 0 = unrelated."
    )
    return figure(drawing, "fig-8", alt, caption, line(intact, *changed.values()), key)
