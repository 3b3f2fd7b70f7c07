"""Figures 12 and 13: what more training data and larger models change."""

from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib.ticker import MaxNLocator

from vitcnn_utils.measures.cka import CEILING, FLOOR, lower_third, subsets, upper_half
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.probes import at_depth
from vitcnn_utils.plots import style
from vitcnn_utils.plots.style import Figure, figure, panels, styled
from vitcnn_utils.provenance import line

# Parts of the data are told apart by shape as well as by colour.
_PARTS = ((style.GREEN, "^"), (style.PURPLE, "s"), (style.BLUE, "o"), (style.RED, "D"))
_CONTROLS = {CEILING: ("--", "second seed, all data"), FLOOR: (":", "untrained")}


@styled
def similarity_by_data(series: Sequence[xr.DataArray]) -> Figure:
    """Fig 12: CKA of block i of models that saw part of the data with block i of the one that saw all.

    series: of `same_blocks`, a panel each.
    """
    series = [whole(curves) for curves in series]
    drawing, axes = panels(1, len(series), width=3.6 * len(series), height=3.2, sharey=True)
    for ax, curves in zip(axes[0], series, strict=True):
        for label, (colour, marker) in zip(subsets(curves), _PARTS, strict=False):
            ax.plot(curves.block, curves.sel(model=label), color=colour, marker=marker, label=f"{label} of the data")
        for label, (dash, text) in _CONTROLS.items():
            if label in curves["model"]:
                ax.plot(curves.block, curves.sel(model=label), color=style.GREY, linestyle=dash, label=text)
        ax.set(title=curves.attrs["reference"], xlabel="block")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes[0, 0].set(ylabel="CKA with the model of all data", ylim=(0, 1.02))
    style.legend_below(drawing, axes)
    alt = "Line plots of CKA with the model trained on all data, against block number."
    for curves in series:
        means = zip(curves["model"].values, lower_third(curves).values, upper_half(curves).values, strict=True)
        ends = ", ".join(f"{label} {low:.2f} and {high:.2f}" for label, low, high in means)
        alt += f" {curves.attrs['reference']}, means of the lower third and of the upper half: {ends}."
    caption = (
        "CKA between a block of a model that was trained on part of the data and the same block of the one that was "
        f"trained on all of it: {', '.join(curves.attrs['reference'] for curves in series)}. Dashed: another start "
        "with all data; dotted: no training at all."
    )
    return figure(drawing, "fig-12", alt, caption, line(*series))


@styled
def probes_over_depth(models: Mapping[str, xr.Dataset], key: str = "") -> Figure:
    """Fig 13: accuracy of linear probes on token-averaged features over depth, mean and spread over draws.

    models: label -> `layer_probes`; see `style.model_style` for labels. Left, the ViT and the CNN and those of their
    recipe with less data or from another start; right, all models of all data, and untrained ones.
    """
    panels_of = {
        "more and less data": [m for m in models if m.split(",")[0] in ("ViT", "CNN") and not m.endswith(FLOOR)],
        "across models": [m for m in models if "," not in m or m.endswith(FLOOR)],
    }
    attrs = next(iter(models.values())).attrs
    drawing, axes = panels(1, len(panels_of), width=3.6 * len(panels_of), height=3.6, sharey=True)
    for ax, (title, labels) in zip(axes[0], panels_of.items(), strict=True):
        style.level(ax, 100 * attrs["chance"])
        for label in labels:
            accuracy = models[label]["accuracy"].sel(readout="mean", drop=True)
            style.probe_curve(ax, accuracy, label, **style.model_style(label))
        ax.set(title=title, xlabel="depth", ylabel="probe accuracy (%)", xlim=(0, 1.03))
        ax.set_ylim(bottom=0)
    style.legend_below(drawing, axes)
    alt = f"Line plots of the accuracy of linear probes on {attrs['images']} in percent, against depth."
    for title, labels in panels_of.items():
        ends = (f"{m} {at_depth(models[m], 0.5):.0f} at depth ½ and {at_depth(models[m], 1):.0f} at the end"
                for m in labels)  # fmt: skip
        alt += f" {title}: {', '.join(ends)}."
    caption = (
        f"Accuracy of {attrs['shots']}-shot linear probes on {attrs['images']} at every block output, averaged over "
        "tokens or places, against depth (0: input, 1: last layer): mean and, as a band, standard deviation over draws "
        f"of the shots, {attrs['n_test']:,} test images. The grey line is chance."
    )
    return figure(drawing, "fig-13", alt, caption, line(*models.values()), key)
