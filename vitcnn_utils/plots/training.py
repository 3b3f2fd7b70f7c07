"""How the zoo's models learned: accuracy, and how far heads look, after each pass over the training images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import MaxNLocator

from vitcnn_utils.plots.style import BLUE, Figure, figure, panels, styled
from vitcnn_utils.provenance import Provenance

Log = Sequence[Mapping[str, Any]]


def learning_curves(groups: Mapping[str, Mapping[str, Log]], provenance: Provenance) -> Figure:
    """Accuracy of models over their training, a panel a group; held-out accuracy where a log has it.

    groups: the logs of `zoo.log` by model, by title of the panel.
    """
    logs = {name: log for group in groups.values() for name, log in group.items()}
    ends = ", ".join(f"{name} {_ends(log)}" for name, log in logs.items())
    caption = (
        "Share of images that are named rightly, by pass. Solid: held-out images after it, where the log has that; "
        "dotted: the augmented training images during it, mixed ones by the class of the image that was pasted into."
    )
    alt = f"Panels of curves that rise with the steps of training. At the end, training accuracy: {ends}."
    return figure(_draw_curves(groups), [], alt, caption, provenance, key="learning")


def _ends(log: Log) -> str:
    held_out = f", held-out {log[-1]['held_out_accuracy']:.2f}" if "held_out_accuracy" in log[-1] else ""
    return f"{log[-1]['train_accuracy']:.2f}{held_out}"


@styled
def _draw_curves(groups: Mapping[str, Mapping[str, Log]]) -> MplFigure:
    columns = 2
    rows = -(-len(groups) // columns)
    drawing, axes = panels(rows, columns, height=2.6 * rows, sharey=True)
    for ax, (title, logs) in zip(axes.flat, groups.items(), strict=False):
        for name, log in logs.items():
            steps = [row["step"] for row in log]
            (line,) = ax.plot(steps, [row["train_accuracy"] for row in log], ":", linewidth=1)
            held_out = [row.get("held_out_accuracy", np.nan) for row in log]
            ax.plot(steps, held_out, color=line.get_color(), label=name.removeprefix("zoo/"))
        ax.set(title=title, xlabel="steps", ylim=(0, 1))
        ax.legend(fontsize=6.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy")
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    return drawing


def distances_over_training(name: str, log: Log, provenance: Provenance) -> Figure:
    """The mean attention distance of each head after each pass, a panel a block.

    log: of `zoo.log`, with head_distances, pixels, by block and head.
    """
    distances = np.array([row["head_distances"] for row in log])  # (passes, L, H)
    nearest = distances.min(2)
    alt = f"A panel for each block of {name}, a line a head. Its nearest head after the first and the last pass: " + (
        ", ".join(f"block {i} {first:.1f} and {last:.1f} px" for i, (first, last) in enumerate(nearest[[0, -1]].T))
    )
    caption = (
        f"Mean attention distance of each head of <code>{name}</code> in pixels, on 256 held-out images, after each "
        "pass over the training images."
    )
    return figure(_draw_distances(distances), [], f"{alt}.", caption, provenance, key="distances")


@styled
def _draw_distances(distances: np.ndarray) -> MplFigure:
    passes, L, _ = distances.shape
    columns = L // 2
    drawing, axes = panels(2, columns, height=3.6, sharex=True, sharey=True)
    for block, ax in enumerate(axes.flat):
        ax.plot(range(1, passes + 1), distances[:, block], color=BLUE, linewidth=1)
        ax.set(title=f"block {block}")
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    for ax in axes[-1]:
        ax.set_xlabel("pass")
    for ax in axes[:, 0]:
        ax.set_ylabel("distance in px")
    return drawing
