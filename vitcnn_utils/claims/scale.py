"""Figures 12 and 13: what more training data and larger models change (paper, section 8)."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import Claim, Estimate, Part, over_draws
from vitcnn_utils.measures.cka import CEILING, FLOOR, lower_third, subsets, upper_half
from vitcnn_utils.measures.probes import at_depth, average

ALIKE = 0.9
"""The mean CKA from which on blocks are called much the same; 1 is the block itself, the ceiling for every series."""
CLEAR = 0.05
"""A difference of mean CKAs that can be seen in the figure."""
STEP = 0.01
"""The same for the next larger part of the data, whose models saw many of the same images."""
AHEAD = 5.0
"""Percentage points of probe accuracy that are worth a statement."""

# Figure 12: similarity to the model that saw all data, (model, block) of `cka.same_blocks`

_SHARED = (
    "The similarity of a block with itself in another model rises with all that both share: the images, the "
    "architecture, the start. Two trainings on all data do not reach 1 either: see the second seed, where there is one."
)


def series_claims(curves: xr.DataArray) -> list[Claim]:
    """The claims of Fig 12 on one series of models, which has `FLOOR` and, where there is one, `CEILING` among them."""
    parts = subsets(curves)
    smallest = curves.sel(model=parts[:1])
    untrained = curves.sel(model=[FLOOR])
    second = curves.sel(model=[CEILING]) if CEILING in curves["model"] else None

    def claim(name: str, paper: str, parts: tuple[Part, ...], **more: Any) -> Claim:
        return Claim(id=f"fig-12-{name}", figure="12", section="8", paper=paper, of=curves.attrs["reference"],
                     parts=parts, caveat=_SHARED, **more)  # fmt: skip

    def rise(smaller: str, larger: str) -> Part:
        return Part.of(f"mean CKA of the upper half, {larger} − {smaller} of the data", lambda b, a: _top(b) - _top(a),
                       (curves.sel(model=[larger]), curves.sel(model=[smaller])), "above", STEP,
                       "Each step to a larger part must bring them nearer.")  # fmt: skip

    return [
        claim(
            "low", "Low blocks are much the same with little data.",
            (Part.of(f"mean CKA of the lower third with the model of all data, {parts[0]} of the data", _bottom,
                     (smallest,), "above", ALIKE, "The paper says 'very similar'.", control=(untrained,)),),
            note="" if second is None else f"second seed with all data: {_bottom(second):.2f}",
        ),
        claim(
            "high", "Higher blocks need much more data.",
            (Part.of(f"mean CKA of the lower third − that of the upper half, {parts[0]} of the data", _fall,
                     (smallest,), "above", CLEAR, "With all data both are 1: the fall is what the missing data leave.",
                     control=None if second is None else (second,)),),
            control="another start with all data",
            note=f"untrained: {_fall(untrained):z.2f}",
        ),
        claim(
            "more-data", "With more data the higher blocks come nearer to those of the model that saw all.",
            tuple(rise(*pair) for pair in pairwise(parts)),
            missing="" if len(parts) > 1 else "this series has one part of the data",
            note=", ".join(f"{label} {value:.2f}" for label, value in
                           zip(curves["model"].values, upper_half(curves).values, strict=True)),
        ),
    ]  # fmt: skip


def size_claim(large: xr.DataArray, small: xr.DataArray, equally_long: bool) -> Claim:
    """The claim of Fig 12 on model size: a larger model needs more data.

    equally_long: whether all models of both series were trained for one number of steps, see `zoo.cards.equal_steps`.
    """
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
        missing="" if equally_long else "the models were not all trained for one number of steps",
    )  # fmt: skip


def _bottom(curve: xr.DataArray) -> float:
    return float(lower_third(curve)[0])


def _top(curve: xr.DataArray) -> float:
    return float(upper_half(curve)[0])


def _fall(curve: xr.DataArray) -> float:
    return _bottom(curve) - _top(curve)


# Figure 13: linear probes over depth. All claims take `probes.layer_probes`; intervals are over draws of the shots.

_LABELS = (
    "A probe on the classes that a model was trained on asks in part how well it does its task. The interval is over "
    "draws of the shots, for one training of each model. Equal fractions of depth are not equal shares of computation."
)


def data_claim(full: xr.Dataset, part: xr.Dataset, untrained: xr.Dataset, who: str) -> Claim:
    """Fig 13, left: by how much a model that saw all data is ahead. who: of what model, for the reader."""
    three = {"untrained": untrained, "part of the data": part, "all data": full}
    return Claim(
        id="fig-13-data",
        figure="13",
        section="8",
        paper="More training data makes features much better, in middle layers already (in the paper, by 30 points).",
        of=f"{who}, {full.attrs['images']}",
        parts=(
            Part("probe accuracy at depth ½, all data − part of them", _lead(full, part, _middle), "above", AHEAD,
                 "The paper's data sets differ by a factor of two hundred: less is expected here.", unit="points"),
        ),
        caveat=_LABELS,
        note="at depth ½ and at the end: " + "; ".join(
            f"{name} {at_depth(p, 0.5):.1f} and {at_depth(p, 1):.1f} %" for name, p in three.items()),
    )  # fmt: skip


def architecture_claims(
    vit: xr.Dataset, cnn: xr.Dataset, untrained_vit: xr.Dataset, untrained_cnn: xr.Dataset,
    gap: xr.Dataset | None = None,
) -> list[Claim]:  # fmt: skip
    """Fig 13, right: whether a ViT's intermediate features are better than a CNN's, a claim for each way to read it.

    The patch means of the ViT, its CLS token where that was probed, and the patch means of a GAP-trained ViT; the CNN
    and the untrained twins by the mean of all places.
    """
    read = {"patch means": (vit, "mean"), "CLS token": (vit, "cls"), "trained with GAP, patch means": (gap, "mean")}
    control = untrained_vit, untrained_cnn
    return [
        _architecture(name, probes, readout, cnn, control)
        for name, (probes, readout) in read.items()
        if probes is not None and readout in probes["readout"]
    ]


def _architecture(
    name: str, vit: xr.Dataset, readout: str, cnn: xr.Dataset, control: tuple[xr.Dataset, xr.Dataset]
) -> Claim:
    there = readout in control[0]["readout"]

    def part(words: str, summary: Summary) -> Part:
        return Part(f"probe accuracy {words}, ViT − CNN", _lead(vit, cnn, summary, readout), "above", AHEAD,
                    "Less is hard to see in the figure.", unit="points",
                    control=_lead(*control, summary, readout) if there else None)  # fmt: skip

    return Claim(
        id=f"fig-13-architecture-{name.split(',')[0].replace(' ', '-').lower()}",
        figure="13",
        section="8",
        paper="Large ViTs have much stronger intermediate features than ResNets.",
        of=f"{name}, {vit.attrs['images']}",
        parts=(part("at depth ½", _middle), part("on average over depth", average)),
        together="agree",
        caveat=_LABELS,
    )


Summary = Callable[[xr.Dataset, str], float]


def _middle(probes: xr.Dataset, readout: str) -> float:
    return at_depth(probes, 0.5, readout)


def _lead(a: xr.Dataset, b: xr.Dataset, summary: Summary, readout: str = "mean") -> Estimate:
    """By how many points `a`, read by `readout`, is ahead of `b`, read by the mean, draw by draw."""
    draws = ((a.isel(draw=[i]), b.isel(draw=[i])) for i in range(a.sizes["draw"]))
    return over_draws(np.array([summary(one, readout) - summary(other, "mean") for one, other in draws]))
