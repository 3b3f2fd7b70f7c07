"""Figures 12 and 13: what more training data and larger models change (paper, section 8).

Fig 12 takes similarities (model, block) from `same_blocks`; Fig 13 takes `probes.layer_probes` with the read-out
'mean'. Margins are this project's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim, NumberTable, decide

CEILING, FLOOR = "second seed", "untrained"
"""Names of the controls among the models of a series: the same recipe from another start, and no training."""
MARGIN = 0.05
"""Mean CKAs that differ by less are called undecided."""
STEP = 0.01
"""The same for the next larger part of the data, whose models saw many of the same images."""
POINTS = 5.0
"""Percentage points of probe accuracy that are worth a statement; draws of the shots scatter by one or two."""


# --- Figure 12: similarity to the model that saw all data ---------------------------------------------------


def same_blocks(similarities: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """CKA of block i of each model with block i of the reference: (model, block), coordinate `depth` from 0 to 1.

    similarities: label -> `cka.layer_similarity` of the block outputs of a model (layer_a) with those of the reference
    (layer_b): as many blocks, in the same order. Labels are parts of the data, smallest first, `CEILING` and `FLOOR`.
    """
    first = next(iter(similarities.values()))
    values = np.stack([np.diagonal(similarity.values) for similarity in similarities.values()])
    blocks = np.arange(values.shape[1])
    coords = {
        "model": list(similarities), "block": blocks, "depth": ("block", blocks / max(len(blocks) - 1, 1)),
    }  # fmt: skip
    attrs = first.attrs | {"reference": first.attrs["model_b"]}
    return xr.DataArray(values, dims=("model", "block"), coords=coords, name="cka", attrs=attrs)


def subsets(curves: xr.DataArray) -> list[str]:
    """The labels of the models that were trained on a part of the data, smallest part first."""
    return [label for label in curves["model"].values.tolist() if label not in (CEILING, FLOOR)]


def low(curves: xr.DataArray) -> xr.DataArray:
    """Mean over the blocks of the lower third, (model,)."""
    return curves.sel(block=(curves.depth <= 1 / 3).values).mean("block")


def high(curves: xr.DataArray) -> xr.DataArray:
    """Mean over the blocks of the upper half, (model,)."""
    return curves.sel(block=(curves.depth > 1 / 2).values).mean("block")


def series_claims(curves: xr.DataArray) -> list[Claim]:
    """The claims of Fig 12 on one series of models, from `same_blocks`.

    curves: with `FLOOR` and, where there is one, `CEILING` among the models.
    """
    smallest = subsets(curves)[0]
    bottom, top = low(curves), high(curves)
    missing_low, missing_high = _ceiling(bottom) - bottom, _ceiling(top) - top
    rise = np.diff(top.sel(model=subsets(curves)).values)
    name, control = curves.attrs["reference"], [label for label in (CEILING, FLOOR) if label in curves["model"]]
    return [
        Claim(
            f"Low blocks are much the same with little data ({name}).",
            f"with {smallest} of the data, mean CKA {_at(bottom, smallest):.2f}",
            _at(missing_low, smallest) <= 2 * MARGIN if _at(missing_low, FLOOR) > 2 * MARGIN else None,
            f"mean CKA of the lower third at most {2 * MARGIN} below the second seed's (or 1 where there is none); "
            "undecided if an untrained model passes too",
            _numbers(bottom, control),
        ),
        Claim(
            f"Higher blocks need much more data ({name}).",
            f"with {smallest} of the data, CKA falls short by {_at(missing_low, smallest):z.2f} in the lower third, "
            f"by {_at(missing_high, smallest):z.2f} in the upper half",
            decide(_at(missing_high, smallest) - _at(missing_low, smallest), MARGIN),
            f"shortfall from the second seed (or from 1) larger in the upper half by more than {MARGIN}",
            _numbers(top, control),
        ),
        Claim(
            f"With more data the higher blocks come nearer to those of the model that saw all ({name}).",
            _numbers(top, subsets(curves)),
            decide(float(rise.min()), STEP) if len(rise) else None,
            f"mean CKA of the upper half rises by more than {STEP} at every step to a larger part",
            _numbers(top, control),
        ),
    ]


def size_claim(large: xr.DataArray, small: xr.DataArray, equally_long: bool) -> Claim:
    """The claim of Fig 12 on model size: a larger model needs more data.

    equally_long: whether all models of both series were trained for one number of steps, see `equal_steps`.
    """
    tops = [high(curves) for curves in (large, small)]
    smallest = [subsets(curves)[0] for curves in (large, small)]
    values = [_at(top, label) for top, label in zip(tops, smallest, strict=True)]
    floors = [_at(top, FLOOR) for top in tops]
    return Claim(
        "A larger model's higher blocks need more data than a smaller one's.",
        f"upper half at {smallest[0]} of the data: larger {values[0]:.2f}, smaller {values[1]:.2f}",
        decide(values[1] - values[0], MARGIN) if equally_long else None,
        f"mean CKA with the model that saw all data lower in the larger model by more than {MARGIN}; undecided where "
        "the models compared were not all trained for one number of steps",
        f"untrained: larger {floors[0]:.2f}, smaller {floors[1]:.2f}",
    )


def _ceiling(curves: xr.DataArray) -> Any:
    """The curve of the second seed; 1 for a series that has none."""
    return curves.sel(model=CEILING, drop=True) if CEILING in curves["model"] else 1.0


def _at(values: xr.DataArray, label: str) -> float:
    return float(values.sel(model=label))


def _numbers(values: xr.DataArray, labels: Sequence[str]) -> str:
    return ", ".join(f"{label}: {_at(values, label):.2f}" for label in labels)


# --- How long the models of a series were trained -----------------------------------------------------------


def training_table(cards: Mapping[str, Mapping[str, Any]]) -> NumberTable:
    """What the cards of zoo models say of their training, a row a model."""
    return NumberTable({name: _training(card) for name, card in cards.items()})


def _training(card: Mapping[str, Any]) -> dict[str, str | float]:
    seen = card["steps"] * card["recipe"]["batch_size"]
    return {
        "training images": f"{card['training_images']:,}", "steps": f"{card['steps']:,}",
        "each image seen (times)": f"{seen / card['training_images']:.0f}", "seed": str(card["recipe"]["seed"]),
        "test accuracy (%)": f"{100 * card['test_accuracy']:.1f}",
    }  # fmt: skip


def equal_steps(cards: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all models were trained for one number of steps."""
    return len({card["steps"] for card in cards.values()}) == 1


def steps_beside(cards: Mapping[str, Mapping[str, Any]], name: str, other: str) -> str:
    """', 7,812 steps against 2,343' from the cards of two models; '' where one has none."""
    known = name in cards and other in cards
    return f", {cards[name]['steps']:,} steps against {cards[other]['steps']:,}" if known else ""


def training_note(reference: str, cards: Mapping[str, Mapping[str, Any]]) -> str:
    """What to keep in mind of the training when a series is compared with `reference`, as sentences."""
    own, others = cards[reference], {name: card for name, card in cards.items() if name != reference}
    steps = sorted({card["steps"] for card in others.values()})
    sentences = []
    if steps == [own["steps"]]:
        sentences.append(f"All models beside {reference} were trained for as many steps as it, {own['steps']:,}.")
    elif len(steps) == 1:
        longer = "longer" if own["steps"] > steps[0] else "shorter"
        sentences.append(
            f"{reference} was trained {longer} than the models it is compared with: {own['steps']:,} steps, they "
            f"{steps[0]:,}. What sets a curve apart from 1 is therefore the data and the length of training; what sets "
            "it apart from another curve is not the length."
        )
    else:
        counts = ", ".join(f"{count:,}" for count in steps)
        sentences.append(
            f"The models were trained for different numbers of steps ({reference}: {own['steps']:,}; the others: "
            f"{counts}), so their curves differ by more than the data."
        )
    seed = own["recipe"]["seed"]
    same = [name for name, card in others.items() if card["recipe"]["seed"] == seed]
    other = [name for name in others if name not in same]
    if same:
        sentences.append(f"{', '.join(same)} started from the same random weights as {reference} (seed {seed}).")
    if same and other:
        sentences.append(f"{', '.join(other)} did not, and may lie lower for that reason alone.")
    return " ".join(sentences)


# --- Figure 13: linear probes over depth --------------------------------------------------------------------


def curve(probes: xr.Dataset) -> xr.DataArray:
    """Accuracy in percent of probes on token-averaged features: (layer, draw), coordinate `depth`."""
    return 100 * probes["accuracy"].sel(readout="mean", drop=True)


def at_depth(probes: xr.Dataset, depth: float) -> float:
    """Mean accuracy in percent at a depth (0 to 1), between layers by linear interpolation."""
    mean = curve(probes).mean("draw")
    return float(np.interp(depth, mean.depth, mean))


def average(probes: xr.Dataset) -> float:
    """Mean accuracy in percent over depth: the area under the curve, of the depths that are probed."""
    depths = np.linspace(float(probes.depth[0]), float(probes.depth[-1]), 101)
    return float(np.mean([at_depth(probes, depth) for depth in depths]))


def data_claim(full: xr.Dataset, part: xr.Dataset, untrained: xr.Dataset, who: str) -> Claim:
    """Fig 13, left: by how much a model that saw all data is ahead. who: of what model, for the reader."""
    middle, end = (at_depth(full, depth) - at_depth(part, depth) for depth in (0.5, 1.0))
    return Claim(
        f"More training data makes features much better, in middle layers already (in the paper, by 30 points; {who}).",
        f"all data ahead by {middle:+.1f} points at depth ½ ({_spread(full)}) and {end:+.1f} at the end",
        decide(middle, POINTS),
        f"at depth ½ ahead by more than {POINTS:.0f} percentage points",
        f"untrained at depth ½: {at_depth(untrained, 0.5):.1f} %, with all data {at_depth(full, 0.5):.1f} %",
    )


def architecture_claim(vit: xr.Dataset, cnn: xr.Dataset, untrained_vit: xr.Dataset, untrained_cnn: xr.Dataset) -> Claim:
    """Fig 13, right: whether a ViT's intermediate features are better than a CNN's."""
    middle, whole = at_depth(vit, 0.5) - at_depth(cnn, 0.5), average(vit) - average(cnn)
    verdicts = {decide(middle, POINTS), decide(whole, POINTS)}
    return Claim(
        "Large ViTs have much stronger intermediate features than ResNets.",
        f"ViT minus CNN: {middle:+.1f} points at depth ½, {whole:+.1f} on average over depth",
        verdicts.pop() if len(verdicts) == 1 else None,
        f"both above {POINTS:.0f} percentage points; undecided if only one is",
        f"untrained: {at_depth(untrained_vit, 0.5) - at_depth(untrained_cnn, 0.5):+.1f} and "
        f"{average(untrained_vit) - average(untrained_cnn):+.1f}",
    )


def _spread(probes: xr.Dataset) -> str:
    """The scatter between draws of the shots."""
    return f"± {float(curve(probes).std('draw', ddof=1).mean()):.1f} between draws"
