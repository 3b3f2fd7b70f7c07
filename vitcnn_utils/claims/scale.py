"""Figures 12 and 13: what more training data and larger models change (paper, section 8)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import xarray as xr

from vitcnn_utils.claims.ledger import Claim, Part, whole
from vitcnn_utils.measures.cka import CEILING, FLOOR, lower_third, subsets, upper_half
from vitcnn_utils.measures.probes import at_depth, average

ALIKE = 0.9
"""The mean CKA from which on blocks are called much the same; 1 is the block itself, the ceiling for every series."""
CLEAR = 0.05
"""A difference of mean CKAs that can be seen in the figure."""
AHEAD = 5.0
"""Percentage points of probe accuracy that are worth a statement."""

# Figure 12: similarity to the model that saw all data, (model, block) of `cka.same_blocks`, for the intervals with
# minibatches left out

_SHARED = (
    "The similarity of a block with itself in another model rises with all that both share: the images, the "
    "architecture, the start. Two trainings on all data do not reach 1 either: see the second seed, where there is one."
)
_NO_PARTS = "An untrained model has seen no part of the data, and there is one training on each."


def series_claims(curves: xr.DataArray, key: str = "") -> list[Claim]:
    """The claims of Fig 12 on one series of models, which has `FLOOR` and, where there is one, `CEILING` among them.

    key: ends the ids, where there are several series.
    """
    parts = subsets(curves)
    few, most = (curves.sel(model=[label]) for label in (parts[0], parts[-1]))
    one_part = "" if len(parts) > 1 else "this series has one part of the data"

    def claim(name: str, paper: str, parts: tuple[Part, ...], **more: Any) -> Claim:
        return Claim(id=f"fig-12-{name}{key}", figure="12", section="8", paper=paper, of=curves.attrs["reference"],
                     parts=parts, caveat=_SHARED, **more)  # fmt: skip

    def of_series(summary: Callable[[xr.DataArray], float]) -> str:
        return ", ".join(f"{label} {summary(curves.sel(model=[label])):.2f}" for label in curves["model"].values)

    def rise(smaller: str, larger: str) -> Part:
        return Part.of(f"mean CKA of the upper half, {larger} − {smaller} of the data", lambda a, b: _top(a) - _top(b),
                       (curves.sel(model=[larger]), curves.sel(model=[smaller])), "above", 0,
                       "Each step to a larger part must bring them nearer.")  # fmt: skip

    return [
        claim(
            "low", "Low blocks are much the same with little data.",
            (Part.of(f"mean CKA of the lower third with the model of all data, {parts[0]} of the data", _bottom,
                     (few,), "above", ALIKE, "The paper says 'very similar'.",
                     control=(curves.sel(model=[FLOOR]),)),),
            note=of_series(_bottom),
        ),
        claim(
            "high", "Higher blocks need much more data.",
            (Part.of(f"what {parts[-1]} of the data adds to the mean CKA at {parts[0]}, upper half − lower third",
                     lambda a, b: (_top(a) - _top(b)) - (_bottom(a) - _bottom(b)), (most, few), "above", CLEAR,
                     "A fall with depth is a need for data as far as more data takes it away."),),
            missing=one_part, uncontrolled=_NO_PARTS,
            note=f"lower third − upper half: {of_series(lambda c: _bottom(c) - _top(c))}",
        ),
        claim(
            "more-data", "With more data the higher blocks come nearer to those of the model that saw all.",
            tuple(rise(*pair) for pair in pairwise(parts)),
            missing=one_part, uncontrolled=_NO_PARTS, note=of_series(_top),
        ),
    ]  # fmt: skip


def size_claim(large: xr.DataArray, small: xr.DataArray) -> Claim:
    """The claim of Fig 12 on model size: a larger model needs more data."""
    smallest = subsets(large)[0]
    pair, twins = ([curves.sel(model=[label]) for curves in (small, large)] for label in (smallest, FLOOR))
    return Claim(
        id="fig-12-size",
        figure="12",
        section="8",
        paper="A larger model's higher blocks need more data than a smaller one's.",
        of=f"{large.attrs['reference']} against {small.attrs['reference']}",
        parts=(
            Part.of(f"mean CKA of the upper half with the model of all data at {smallest}, smaller − larger model",
                    lambda a, b: _top(a) - _top(b), tuple(pair), "above", CLEAR,
                    "Smaller differences cannot be seen in the figure.", control=tuple(twins)),
        ),
        caveat=_SHARED,
    )  # fmt: skip


def _bottom(curve: xr.DataArray) -> float:
    return float(lower_third(whole(curve))[0])


def _top(curve: xr.DataArray) -> float:
    return float(upper_half(whole(curve))[0])


# Figure 13: linear probes over depth. All claims take `probes.layer_probes`; intervals are over draws of the shots and
# test images.

_LABELS = (
    "A probe on the classes that a model was trained on asks in part how well it does its task. The interval is over "
    "draws of the shots and over test images, for one training of each model. Equal fractions of depth are not equal "
    "shares of computation."
)
ANOTHER = "another start with all data"


PAIRS = {
    "vit": ("ViT", "ViT, small data", "ViT, second seed"),
    "vit-second-seed": ("ViT, second seed", "ViT, small data", "ViT"),
    "cnn": ("CNN", "CNN, small data", None),
}
"""Who is compared: a model of all data, one of part of them, and one of all data from another start."""


def data_claims(probes: Mapping[str, xr.Dataset], unlike: Mapping[str, str], key: str = "") -> list[Claim]:
    """Fig 13, left: by how much models that saw all data are ahead, a claim for each of `PAIRS` that is there.

    probes: by label, as in `PAIRS`. unlike: why the models of a pair cannot be compared, by the label of that of all
    data. key: ends the ids.
    """
    return [
        _more_data(probes, *pair, unlike.get(pair[0], ""), f"{name}{key}")
        for name, pair in PAIRS.items()
        if pair[0] in probes and pair[1] in probes
    ]


def _more_data(
    probes: Mapping[str, xr.Dataset], full: str, part: str, start: str | None, missing: str, key: str
) -> Claim:
    """The lead over another start is the control: one beyond the threshold says that the data are not why."""
    another = probes.get(start or "")
    models = {"untrained": probes.get(f"{full.split(',')[0]}, untrained"), "part of the data": probes[part],
              "all data": probes[full], ANOTHER: another}  # fmt: skip
    return Claim(
        id=f"fig-13-data-{key}",
        figure="13",
        section="8",
        paper="More training data makes features much better, in middle layers already (in the paper, by 30 points).",
        of=f"{full}, {probes[full].attrs['images']}",
        parts=(
            Part.of("probe accuracy at depth ½, all data − part of them", lambda a, b: _middle(a) - _middle(b),
                    (probes[full], probes[part]), "above", AHEAD,
                    "The paper's data sets differ by a factor of two hundred: less is expected here.", unit="points",
                    control=None if another is None else (probes[full], another), chance=True),
        ),
        missing=missing,
        control=ANOTHER,
        uncontrolled="There is no second training on all data.",
        caveat=_LABELS,
        note="at depth ½ and at the end: " + "; ".join(
            f"{name} {at_depth(whole(p), 0.5):.1f} and {at_depth(whole(p), 1):.1f} %"
            for name, p in models.items() if p is not None),
    )  # fmt: skip


def architecture_claims(probes: Mapping[str, xr.Dataset], key: str = "") -> list[Claim]:
    """Fig 13, right: whether a ViT's intermediate features are better than a CNN's, a claim for each way to read it.

    The patch means of the ViT, its CLS token where that was probed, and the patch means of a GAP-trained ViT; the CNN
    by the mean of all places. probes: by label, 'ViT', 'CNN', the same with ', untrained', and, where there are such,
    'ViT-GAP', 'ViT-GAP, untrained' and 'ViT, second seed'. key: ends the ids.
    """
    second = probes.get("ViT, second seed")
    claims = []
    for name, label, readout, again in (
        ("patch means", "ViT", "mean", second), ("CLS token", "ViT", "cls", second),
        ("trained with GAP, patch means", "ViT-GAP", "mean", None),
    ):  # fmt: skip
        if label in probes and readout in probes[label]["readout"]:
            sides = probes[label], probes["CNN"]
            twins = probes[f"{label}, untrained"], probes["CNN, untrained"]
            seconds = again is not None and readout in again["readout"] and (again, probes["CNN"])
            claims.append(_architecture(name, readout, sides, twins, seconds or None, key))
    return claims


Pair = tuple[xr.Dataset, xr.Dataset]


def _architecture(name: str, readout: str, sides: Pair, twins: Pair, seconds: Pair | None, key: str) -> Claim:
    def part(words: str, summary: Callable[[xr.Dataset, str], float]) -> Part:
        return Part.of(f"probe accuracy {words}, ViT − CNN", lambda a, b: summary(a, readout) - summary(b, "mean"),
                       sides, "above", AHEAD, "Less is hard to see in the figure.", unit="points",
                       control=twins if readout in twins[0]["readout"] else None, again=seconds)  # fmt: skip

    return Claim(
        id=f"fig-13-architecture-{name.split(',')[0].replace(' ', '-').lower()}{key}",
        figure="13",
        section="8",
        paper="Large ViTs have much stronger intermediate features than ResNets.",
        of=f"{name}, {sides[0].attrs['images']}",
        parts=(part("at depth ½", _middle), part("on average over depth", average)),
        together="agree",
        control="both untrained",
        second="" if seconds is None else "second seed",
        caveat=_LABELS,
    )


def _middle(probes: xr.Dataset, readout: str = "mean") -> float:
    return at_depth(probes, 0.5, readout)


# What the figures show here, in sentences that follow the numbers


def series_words(series: Sequence[xr.DataArray]) -> str:
    """How near each series comes to its model of all data, beside another start and no training."""
    said = []
    for curves in series:
        low, high = lower_third(whole(curves)), upper_half(whole(curves))
        labels = [label for label in (*subsets(curves), CEILING, FLOOR) if label in curves["model"]]
        each = ", ".join(f"{label} {float(low.sel(model=label)):.2f} and {float(high.sel(model=label)):.2f}"
                         for label in labels)  # fmt: skip
        said.append(f"{curves.attrs['reference']}, mean CKA of the lower third and of the upper half: {each}.")
        if CEILING in labels:
            few, again = (float(high.sel(model=label)) for label in (labels[0], CEILING))
            side = "farther from that model than" if few < again else "as near to that model as"
            said.append(f"In the upper half, the model of {labels[0]} of the data is {side} one of all data from "
                        "another start.")  # fmt: skip
    return " ".join(said)


def depth_words(probes: Mapping[str, xr.Dataset]) -> str:
    """How models and ways to read them compare at half depth. probes: by label, as in `architecture_claims`."""
    ways = {"the ViT's patches": ("ViT", "mean"), "its CLS token": ("ViT", "cls"),
            "the ViT-GAP's patches": ("ViT-GAP", "mean")}  # fmt: skip
    read = {way: _middle(probes[label], readout) for way, (label, readout) in ways.items()
            if label in probes and readout in probes[label]["readout"]}  # fmt: skip
    cnn = _middle(probes["CNN"])
    listed = ", ".join(f"{way} {value:.0f} %" for way, value in read.items())
    text = f"At half depth {listed}, the CNN {cnn:.0f} %."
    leads = sorted(value - cnn for value in read.values())
    if len(leads) > 1:
        other = "how much depends" if leads[0] * leads[-1] > 0 else "the sign depends"
        ahead = average(probes["ViT"], "mean") - average(probes["CNN"], "mean")
        text += (
            f" So there the ViT leads the CNN by {leads[0]:+.0f} to {leads[-1]:+.0f} points: {other} on how it is "
            f"read. On average over all depths the lead of its patches is {ahead:+.0f} points."
        )
    learned = [f"the {name} {_middle(probes[name]) - _middle(probes[f'{name}, untrained']):.0f}"
               for name in ("ViT", "CNN")]  # fmt: skip
    return f"{text} Above what the same model gives before training, {' and '.join(learned)} points are learned."
