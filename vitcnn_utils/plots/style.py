"""How every figure looks, and how it reaches the page: inline SVG in the page's own text colour."""

import html
import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
import xarray as xr
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

# Told apart by readers with any colour vision, and at least 3:1 against white and against the dark theme's ground.
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#2f7fc1", "#d2691e", "#1d9a6c", "#a866b8", "#d04a4a", "#808080"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
LIGHT = "#35d0ff"
"""Lines and outlines on a heat map: stands out on every part of the colour maps."""
# Perceptually even: for similarity (0 dark, 1 light), and for everything else.
SIMILARITY, SEQUENTIAL = "magma", "viridis"

# One colour a model and one line a way of training, in the whole book; the explorers' kit.js has the same.
MODELS = {"ViT": (BLUE, "o"), "CNN": (ORANGE, "^"), "ViT-GAP": (GREEN, "s"), "small ViT": (PURPLE, "D")}
VARIANTS = {"": "-", "small data": "--", "second seed": "-.", "untrained": ":"}

# Text and axes are drawn in this colour, which the page's own text colour then replaces.
_INK = "#010203"
_RC: dict[Any, Any] = {
    "axes.edgecolor": _INK, "axes.labelcolor": _INK, "axes.titlecolor": _INK, "text.color": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "legend.labelcolor": _INK, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.labelsize": 9.5, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5, "font.size": 9.5,
    "axes.prop_cycle": cycler(color=CYCLE), "axes.facecolor": "none", "figure.facecolor": "none",
    "savefig.facecolor": "none", "image.interpolation": "nearest", "svg.fonttype": "none", "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"], "svg.hashsalt": "vitcnn_utils",
    "lines.linewidth": 1.8, "lines.markersize": 4, "figure.constrained_layout.use": True,
}  # fmt: skip

# Every function that draws stands under `@styled`: matplotlib reads the style whenever an artist is made.
styled = mpl.rc_context(_RC)


def panels(
    rows: int = 1, columns: int = 1, width: float = 7.2, height: float = 2.8, **kwargs: Any
) -> tuple[MplFigure, Any]:
    """A figure of the book's style and its axes, (rows, columns) as an array; sizes in inches, 7.2 fills the page.

    kwargs go to `matplotlib.figure.Figure.subplots` (sharex, sharey, width_ratios, …).
    """
    figure = MplFigure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def heat_map(axes: Axes, values: Any, *, upward: bool = False, cmap: str = SIMILARITY, **kwargs: Any) -> Any:
    """A heat map without ticks, grey where there is no value; gives the mesh, for a colour bar.

    Cell i spans i to i + 1. upward: row 0 lies at the bottom, as in the paper's maps of layers; else at the top, as in
    an image. kwargs go to `seaborn.heatmap` (vmin, vmax, norm, …).
    """
    colours = mpl.colormaps[cmap].with_extremes(bad=GREY)
    # As an image: a path for each cell would be 30 times as large.
    sns.heatmap(np.asarray(values), ax=axes, cmap=colours, cbar=False, rasterized=True, xticklabels=False,
                yticklabels=False, **kwargs)  # fmt: skip
    if upward:
        axes.invert_yaxis()
    return axes.collections[-1]


def colour_bar(drawing: MplFigure, mesh: Any, axes: Any, label: str = "", **kwargs: Any) -> None:
    """A colour bar without a frame beside the axes."""
    kwargs = {"shrink": 0.7, "aspect": 20, "pad": 0.02} | kwargs
    drawing.colorbar(mesh, ax=axes, label=label, **kwargs).outline.set_visible(False)


def model_style(label: str) -> dict[str, Any]:
    """Colour, marker and line of a model by its label, 'MODEL' or 'MODEL, HOW IT WAS TRAINED'."""
    model, _, variant = label.partition(", ")
    colour, marker = MODELS.get(model, (RED, "v"))
    linestyle = next(line for way, line in reversed(VARIANTS.items()) if variant.startswith(way))
    return {"color": colour, "marker": "" if variant else marker, "linestyle": linestyle}


def probe_curve(axes: Axes, accuracy: xr.DataArray, label: str, **style: Any) -> None:
    """Accuracy (layer, draw) of probes in percent against depth: the mean, and a band of one standard deviation."""
    table = (100 * accuracy).to_dataframe("accuracy").reset_index()
    sns.lineplot(table, x="depth", y="accuracy", errorbar="sd", label=label, legend=False, markeredgewidth=0,
                 err_kws={"linewidth": 0}, ax=axes, **style)  # fmt: skip


def level(axes: Axes, value: float, label: str = "", **style: Any) -> None:
    """A thin grey line at one value, for what the curves are held against; dashed, and in the legend, with a label."""
    look = {"linewidth": 1.2, "linestyle": "--", "label": label} if label else {"linewidth": 0.8}
    axes.axhline(value, **{"color": GREY, **look, **style})


def from_to(values: Any, digits: int = 2) -> str:
    """The first and the last of values, in words for an alt text."""
    return "from {:.{d}f} to {:.{d}f}".format(*np.ravel(values)[[0, -1]], d=digits)


def span(values: Any, digits: int = 2) -> str:
    """The lowest and the highest of values, in words for an alt text."""
    return from_to([np.nanmin(values), np.nanmax(values)], digits)


def legend_below(drawing: MplFigure, axes: Any, columns: int = 4) -> None:
    """One legend under all panels, each label once."""
    handles: dict[str, Any] = {}
    for ax in np.ravel(axes):
        handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    drawing.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


@dataclass(frozen=True)
class Figure:
    """A figure as the page shows it: inline SVG with alt text, caption, and where it comes from."""

    drawing: MplFigure
    svg: str
    id: str
    alt: str
    caption: str
    provenance: str

    def _repr_html_(self) -> str:
        label = f"<strong>Figure {self.id.removeprefix('fig-')}.</strong> " if self.id else ""
        anchor = f' id="{self.id}"' if self.id else ""
        return (
            f'<figure class="vitcnn-figure"{anchor} style="margin:0"><div style="overflow-x:auto" tabindex="0">'
            f"{self.svg}</div><figcaption>{label}{html.escape(self.caption)}<br>"
            f'<small class="vitcnn-provenance">{html.escape(self.provenance)}</small></figcaption></figure>'
        )

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"


def figure(drawing: MplFigure, name: str, alt: str, caption: str, provenance: str, key: str = "") -> Figure:
    """A drawing made ready for the page.

    name: the paper's figure that it stands for, as 'fig-3', or ''. alt: what it shows, for readers who cannot see it.
    provenance: what made it, from `provenance.line`. key: tells apart several drawings of the same figure on one page,
    of which the first, without a key, has the name as its id.
    """
    prefix = f"{name or 'drawing'}-{key}".removesuffix("-")
    return Figure(drawing, inline_svg(drawing, prefix, alt), "" if key else name, alt, caption, provenance)


def inline_svg(drawing: MplFigure, prefix: str, alt: str) -> str:
    """The drawing as an <svg> element without a ground, in the colour of the text around it."""
    buffer = io.StringIO()
    with mpl.rc_context(_RC):
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Metadata says nothing to a reader, and the style sheet of an inline SVG would hold for the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", text, flags=re.S)
    # Nothing refers to an image's id, and two equal images (colour bars) would share it.
    text = re.sub(r'(<image [^>]*?)\s+id="[^"]*"', r"\1", text)
    # Ids must be the page's own: two figures of one page would share matplotlib's.
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", text)
    width = round(drawing.get_figwidth() * 96)
    style = f"width:100%;max-width:{width}px;min-width:min({width}px,36rem);height:auto;display:block"
    attributes = f'role="img" aria-label="{html.escape(alt, quote=True)}" style="{style}"'
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', lambda m: f"<svg {attributes} {m[1]}", text, count=1)
