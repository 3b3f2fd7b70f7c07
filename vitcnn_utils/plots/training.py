"""How the zoo's models learned: accuracy, and how far heads look, after each pass; and what else differs with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from vitcnn_utils.measures.cka import best_match
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.localization import skill
from vitcnn_utils.plots import style
from vitcnn_utils.plots.style import Figure, figure, legend_below, panels, styled
from vitcnn_utils.provenance import commit, line

Log = Sequence[Mapping[str, Any]]


@styled
def learning_curves(groups: Mapping[str, Mapping[str, Log]]) -> Figure:
    """Training and held-out accuracy of models over their training, a panel a group.

    groups: the logs of `zoo.log` by model, by title of the panel.
    """
    rows = -(-len(groups) // 2)
    drawing, axes = panels(rows, 2, height=2.6 * rows, sharey=True)
    for ax, (title, logs) in zip(axes.flat, groups.items(), strict=False):
        for name, log in logs.items():
            steps = [row["step"] for row in log]
            (line,) = ax.plot(steps, [row["train_accuracy"] for row in log], ":", linewidth=1)
            held_out = [row["held_out_accuracy"] for row in log]
            ax.plot(steps, held_out, color=line.get_color(), label=name.removeprefix("zoo/"))
        ax.set(title=title, xlabel="steps", ylim=(0, 1))
        ax.legend(fontsize=6.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy")
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    last = {name: log[-1] for logs in groups.values() for name, log in logs.items()}
    ends = (f"{name} {row['train_accuracy']:.2f} and {row['held_out_accuracy']:.2f}" for name, row in last.items())
    alt = f"Panels of curves that rise with the steps. Training and held-out accuracy at the end: {', '.join(ends)}."
    caption = (
        "Share of images that are named rightly, by pass. Solid: held-out images after it; dotted: "
        "the augmented training images during it, mixed ones by the class of the image that was pasted into."
    )
    return figure(drawing, "", alt, caption, _made(), key="learning")


@styled
def distances_over_training(name: str, log: Log) -> Figure:
    """The mean attention distance of each head after each pass, a panel a block.

    log: of `zoo.log`, with head_distances, pixels, by block and head.
    """
    distances = np.array([row["head_distances"] for row in log])  # (passes, L, H)
    drawing, axes = panels(2, -(-distances.shape[1] // 2), height=3.6, sharex=True, sharey=True)
    for block, (ax, heads) in enumerate(zip(axes.flat, distances.swapaxes(0, 1), strict=False)):
        ax.plot(range(1, len(heads) + 1), heads, color=style.BLUE, linewidth=1)
        ax.set(title=f"block {block}")
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    for ax in axes[-1]:
        ax.set_xlabel("pass")
    for ax in axes[:, 0]:
        ax.set_ylabel("distance in px")
    nearest = distances.min(2)
    ends = (f"block {i} {first:.1f} and {last:.1f} px" for i, (first, last) in enumerate(nearest[[0, -1]].T))
    alt = (
        f"A panel for each block of {name}, a line a head. Its nearest head after the first and the last pass: "
        f"{', '.join(ends)}."
    )
    caption = (
        f"Mean attention distance of each head of {name} in pixels, on 256 held-out images, after each pass over the "
        "training images."
    )
    return figure(drawing, "", alt, caption, _made(), key="distances")


@styled
def courses(models: Mapping[str, xr.Dataset]) -> Figure:
    """How far the near heads look, and how much is recognised, over the training; a line a model.

    models: of `measures.training.courses`, by label.
    """
    drawing, (axes,) = panels(1, 2, height=2.7)
    titles = {"distance": "near heads, % of uniform distance", "accuracy": "held-out accuracy"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for label, course in models.items():
            ax.plot(100 * course["step"] / course["step"][-1], course[name], label=label)
        ax.set(title=title, xlabel="% of the training", ylim=(0, None))
    legend_below(drawing, axes)
    ends = (f"{label} {float(c['distance'][0]):.0f} to {float(c['distance'][-1]):.0f} % and accuracy "
            f"{float(c['accuracy'][0]):.2f} to {float(c['accuracy'][-1]):.2f}"
            for label, c in models.items())  # fmt: skip
    alt = f"Two panels of curves over the training. From the first pass to the last: {'; '.join(ends)}."
    caption = (
        "After each pass over the training images. Left: the nearest quarter of the heads of the two lowest blocks, in "
        "percent of the distance of uniform attention. Right: the share of held-out images that are named rightly."
    )
    return figure(drawing, "", alt, caption, _made(), key="courses")


@styled
def other_measures(
    similarities: Mapping[str, xr.DataArray], sizes: Mapping[str, xr.Dataset], tokens: Mapping[str, xr.DataArray]
) -> Figure:
    """What else may differ with the training of a ViT: likeness to a CNN, receptive fields, places kept; by label.

    similarities: of `layer_similarity` with one CNN. sizes: of `receptive_field.summarize`. tokens: of
    `layer_patch_similarity`, one layer.
    """
    drawing, (axes,) = panels(1, 3, height=2.9)
    numbers = []
    for index, label in enumerate(similarities):
        colour = style.CYCLE[index]
        likest, size = best_match(whole(similarities[label])), whole(sizes[label])
        kept = skill(whole(tokens[label]))
        axes[0].plot(likest["depth_a"], likest, color=colour, label=label)
        axes[1].plot(size["depth"], size["radius_50"], color=colour)
        axes[2].plot(index, kept, "o", color=colour, markersize=7, clip_on=False)
        numbers.append(
            f"{label}: likeness {style.from_to(likest)}, radius {style.from_to(size['radius_50'], 1)} px, "
            f"places {kept:.2f}"
        )
    axes[0].set(title="most like the CNN (CKA)", xlabel="depth", xlim=(0, 1), ylim=(0, 1))
    axes[1].set(title="half of the field within (px)", xlabel="depth", xlim=(0, 1), ylim=(0, None))
    axes[2].set(title="places kept, last block", xlim=(-0.5, len(similarities) - 0.5), ylim=(-0.1, 1), xticks=[])
    style.level(axes[2], 0)
    legend_below(drawing, axes)
    alt = f"Three panels, a colour a model. From the first block to the last, {'; '.join(numbers)}."
    caption = (
        "Left: the highest CKA of each block with any layer of the CNN. Middle: the radius of the disc that holds half "
        "of the effective receptive field, after each attention sub-layer. Right: how much oftener than by chance a "
        "token of the last block is most like its own patch, from 0, the line, to 1."
    )
    made = line(*similarities.values(), *sizes.values(), *tokens.values())
    return figure(drawing, "", alt, caption, made, key="other-measures")


def _made() -> str:
    return f"From the training logs that ship with the package · commit {commit()}"
