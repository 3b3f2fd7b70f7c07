"""Figures 12 and 13: what more training data and larger models change."""

from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import MaxNLocator

from vitcnn_utils.measures.cka import CEILING, FLOOR, lower_third, subsets, upper_half
from vitcnn_utils.measures.probes import at_depth, curve
from vitcnn_utils.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Figure, figure, panels, styled
from vitcnn_utils.provenance import Provenance

# Parts of the data and models are told apart by shape as well as by colour.
_STYLES = ((ORANGE, "^"), (BLUE, "s"), (GREEN, "o"), (PURPLE, "D"), (RED, "v"))
_LINES = {"": "-", "small data": "--", CEILING: "-.", FLOOR: ":"}
_CONTROLS = {CEILING: ("--", "second seed, all data"), FLOOR: (":", "untrained")}


# --- Figure 12 ----------------------------------------------------------------------------------------------


def similarity_by_data(series: Sequence[xr.DataArray], provenance: Provenance) -> Figure:
    """Fig 12: CKA of block i of models that saw part of the data with block i of the one that saw all.

    series: of `cka.same_blocks`, a panel each.
    """
    alt = "Line plots of CKA with the model trained on all data, against block number. " + " ".join(map(_alt, series))
    caption = (
        "CKA between a block of a model that was trained on part of the data and the same block of the one that was "
        f"trained on all of it: {', '.join(curves.attrs['reference'] for curves in series)}. Dashed: another start "
        "with all data; dotted: no training at all."
    )
    return figure(_draw_series(series), ["fig-12"], alt, caption, provenance)


def _alt(curves: xr.DataArray) -> str:
    bottom, top = lower_third(curves), upper_half(curves)
    parts = (f"{label} {float(bottom.sel(model=label)):.2f} and {float(top.sel(model=label)):.2f}"
             for label in curves["model"].values)  # fmt: skip
    return f"{curves.attrs['reference']}, means of the lower third and of the upper half: {', '.join(parts)}."


@styled
def _draw_series(series: Sequence[xr.DataArray]) -> MplFigure:
    drawing, axes = panels(1, len(series), width=3.6 * len(series), height=3.2, sharey=True)
    for ax, curves in zip(axes[0], series, strict=True):
        for label, (colour, marker) in zip(subsets(curves), _STYLES, strict=False):
            ax.plot(curves.block, curves.sel(model=label), color=colour, marker=marker, label=f"{label} of the data")
        for label, (line, text) in _CONTROLS.items():
            if label in curves["model"]:
                ax.plot(curves.block, curves.sel(model=label), color=GREY, linestyle=line, label=text)
        ax.set(title=curves.attrs["reference"], xlabel="block")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes[0, 0].set(ylabel="CKA with the model of all data", ylim=(0, 1.02))
    _legend_below(drawing, axes[0])
    return drawing


# --- Figure 13 ----------------------------------------------------------------------------------------------


def probes_over_depth(
    panels_of: Mapping[str, Mapping[str, xr.Dataset]], provenance: Provenance, key: str = ""
) -> Figure:
    """Fig 13: accuracy of linear probes on token-averaged features over depth, mean and spread over draws.

    panels_of: title of the panel -> label -> `probes.layer_probes`. What a label says before a comma gives the colour,
    what it says after it the line: see `_LINES`.
    """
    datasets = [probes for curves in panels_of.values() for probes in curves.values()]
    attrs = datasets[0].attrs
    alt = f"Line plots of the accuracy of linear probes on {attrs['images']} in percent, against depth. " + " ".join(
        f"{title}: " + ", ".join(f"{label} {at_depth(p, 0.5):.0f} at depth ½ and {at_depth(p, 1):.0f} at the end"
                                 for label, p in curves.items()) + "."
        for title, curves in panels_of.items()
    )  # fmt: skip
    caption = (
        f"Accuracy of {attrs['shots']}-shot linear probes on {attrs['images']} at every block output, averaged over "
        "tokens or places, against depth (0: input, 1: last layer): mean and spread of "
        f"{datasets[0].sizes['draw']} draws of the shots, {attrs['n_test']:,} test images. The grey line is chance."
    )
    return figure(_draw_probes(panels_of, 100 * attrs["chance"]), ["fig-13"], alt, caption, provenance, key)


@styled
def _draw_probes(panels_of: Mapping[str, Mapping[str, xr.Dataset]], chance: float) -> MplFigure:
    drawing, axes = panels(1, len(panels_of), width=3.6 * len(panels_of), height=3.6, sharey=True)
    names = list(dict.fromkeys(_family(label) for curves in panels_of.values() for label in curves))
    for ax, (title, curves) in zip(axes[0], panels_of.items(), strict=True):
        ax.axhline(chance, color=GREY, linewidth=0.8)
        for label, probes in curves.items():
            colour, marker = _STYLES[names.index(_family(label)) % len(_STYLES)]
            _probe_line(ax, probes, label, colour, marker)
        ax.set(title=title, xlabel="depth", xlim=(0, 1.03))
    axes[0, 0].set(ylabel="probe accuracy (%)", ylim=(0, None))
    _legend_below(drawing, axes[0])
    return drawing


def _probe_line(ax: Axes, probes: xr.Dataset, label: str, colour: str, marker: str) -> None:
    values = curve(probes)
    mean, spread = values.mean("draw"), values.std("draw")
    _, _, variant = label.partition(", ")
    ax.plot(mean.depth, mean, color=colour, linestyle=_LINES[variant], marker="" if variant else marker, label=label)
    ax.fill_between(mean.depth, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)


def _family(label: str) -> str:
    return label.partition(",")[0]


def _legend_below(drawing: MplFigure, axes: Sequence[Axes]) -> None:
    """One legend under all panels, without repetitions."""
    handles = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    drawing.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
