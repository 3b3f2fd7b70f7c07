"""Figures 1 and 2: how the layers of one model, and of a ViT and a CNN, resemble each other (paper, section 4).

All functions take what `cka.layer_similarity` gives. The paper states no CKA value, so every margin is this project's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim, NumberTable, decide
from vitcnn_utils.models.facts import Model

MARGIN = 0.05
"""Mean CKAs of two models that differ by less are called undecided."""
FINE_MARGIN = 0.02
"""The same for differences within one map, where the same images enter both sides: spread and grid."""


def block_outputs(similarity: xr.DataArray) -> xr.DataArray:
    """The part of a map (layer_a, layer_b) that compares block outputs only."""
    return similarity[(similarity.kind_a == "block").values, (similarity.kind_b == "block").values]


def stage_starts(model: Model) -> list[float]:
    """The depths (0 to 1) at which a CNN's stages begin, the first stage left out.

    A stage begins where a residual unit changes the shape, so that its skip needs a projection. Empty where no unit
    does, as in a ViT.
    """
    opens = {b.block for b in model.branches if b.kind == "residual" and b.block > 0 and b.shortcut != b.skip}
    return [next(layer.depth for layer in model.layers if layer.block == block) for block in sorted(opens)]


# Figure 1


def low_high(similarity: xr.DataArray) -> float:
    """Mean CKA between layers of the first and of the last third of depth."""
    first, last = similarity.depth_a.values <= 1 / 3, similarity.depth_b.values >= 2 / 3
    return float(similarity[first, last].mean())


def spread(similarity: xr.DataArray) -> float:
    """Standard deviation of CKA over all pairs of two different layers."""
    return float(np.nanstd(_pairs(similarity)[1]))


def decay(similarity: xr.DataArray) -> float:
    """Slope of CKA against the distance in depth of two different layers, by least squares: CKA per whole depth."""
    distance, cka = _pairs(similarity)
    known = np.isfinite(cka)
    return float(np.polyfit(distance[known], cka[known], 1)[0]) if np.ptp(distance[known]) > 0 else float("nan")


def stage_contrast(similarity: xr.DataArray, starts: Sequence[float]) -> float:
    """Mean CKA of different layers of one stage minus that of layers of two stages; NaN without a second stage.

    starts: depths at which stages begin, from `stage_starts`; for a ViT, those of the CNN beside it.
    """
    # A depth fraction of one model, written as a float, may miss the layer it names in the other by rounding.
    stage = np.searchsorted(np.asarray(starts) - 1e-9, similarity.depth_a.values, side="right")
    row, column = np.triu_indices(len(stage), 1)
    return _contrast(similarity.values[row, column], stage[row] == stage[column])


def grid_contrast(similarity: xr.DataArray) -> float:
    """Mean CKA of layers of one kind in two different blocks, minus that of layers of two kinds in two blocks.

    Above zero the map looks like a grid: an attention output resembles other attention outputs, and so on. Both means
    run over the same pairs of blocks, so distance in depth plays no part. NaN for a map of block outputs only.
    """
    inside = similarity.block_a.values >= 0
    inner = similarity[inside, inside]
    block, kind = inner.block_a.values, inner.kind_a.values
    row, column = np.triu_indices(len(block), 1)
    apart = block[row] != block[column]
    row, column = row[apart], column[apart]
    return _contrast(inner.values[row, column], kind[row] == kind[column])


def _pairs(similarity: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in depth and CKA of all pairs of two different layers of one model."""
    row, column = np.triu_indices(len(similarity), 1)
    depth = similarity.depth_a.values
    return depth[column] - depth[row], similarity.values[row, column]


def _contrast(values: np.ndarray, same: np.ndarray) -> float:
    known = np.isfinite(values)
    if not (known & same).any() or not (known & ~same).any():
        return float("nan")
    return float(values[known & same].mean() - values[known & ~same].mean())


def within_claims(
    vit: xr.DataArray,
    cnn: xr.DataArray,
    untrained_vit: xr.DataArray,
    untrained_cnn: xr.DataArray,
    starts: Sequence[float],
) -> list[Claim]:
    """The claims of Fig 1, from the map of each model with itself and those of the untrained twins.

    starts: of the CNN's stages, from `stage_starts`.
    """

    def row(paper: str, measure: Any, test: str, sign: int, margin: float) -> Claim:
        pair, twins = (measure(vit), measure(cnn)), (measure(untrained_vit), measure(untrained_cnn))
        return Claim(
            paper, _both(*pair), decide(sign * (pair[0] - pair[1]), margin), test, "untrained: " + _both(*twins)
        )

    grid, untrained_grid = grid_contrast(vit), grid_contrast(untrained_vit)
    return [
        row(
            "Low and high layers are far more alike in the ViT than in the CNN.", low_high,
            f"mean CKA of first and last third of depth: ViT above CNN by more than {MARGIN}", 1, MARGIN,
        ),
        row(
            "The ViT's map is much more uniform.", spread,
            f"standard deviation of CKA over pairs of layers: ViT below CNN by more than {FINE_MARGIN}",
            -1, FINE_MARGIN,
        ),
        row(
            "The CNN falls into stages, more than the ViT does.", lambda s: stage_contrast(s, starts),
            f"mean CKA within minus between stages (ViT cut at the CNN's depths): CNN above ViT by more than {MARGIN}",
            -1, MARGIN,
        ),
        Claim(
            "The ViT's map looks like a grid: sub-layers of one kind resemble each other across blocks.",
            f"same kind minus different kind, ViT: {grid:+.2f}", decide(grid, FINE_MARGIN),
            f"mean CKA of pairs in different blocks, same kind above different kinds by more than {FINE_MARGIN}",
            f"untrained: {untrained_grid:+.2f}",
        ),
    ]  # fmt: skip


def within_table(rows: Mapping[str, tuple[xr.DataArray, xr.DataArray]], starts: Sequence[float]) -> NumberTable:
    """The numbers behind the claims of Fig 1 for several ways to measure: a row each, from (ViT map, CNN map)."""
    columns = {
        "low–high CKA": low_high, "spread": spread, "CKA per depth": decay,
        "stage contrast": lambda s: stage_contrast(s, starts),
    }  # fmt: skip
    table: dict[str, dict[str, float]] = {way: {} for way in rows}
    for way, (vit, cnn) in rows.items():
        for name, measure in columns.items():
            table[way] |= {f"{name}, ViT": measure(vit), f"{name}, CNN": measure(cnn)}
    return NumberTable(table)


def _both(vit: float, cnn: float) -> str:
    if np.isnan([vit, cnn]).any():
        return "not defined for these models"
    return f"ViT {vit:.2f}, CNN {cnn:.2f}"


# Figure 2


def matched_depth(similarity: xr.DataArray) -> xr.Dataset:
    """Where in the ViT (layer_a) each CNN layer (layer_b) finds its like.

    Returns over layer_b: `argmax`, the depth of the most similar ViT layer; `centroid`, the mean depth of all ViT
    layers, weighted by how far their CKA lies above the lowest of that column (a soft ridge makes the argmax jump; what
    all layers share would pull every centroid to the middle); and `best`, the highest CKA. NaN for a constant layer.
    """
    depth = similarity.depth_a.values[:, None]  # (La, 1)
    cka = similarity.values  # (La, Lb)
    known = np.isfinite(cka).any(axis=0)
    filled = np.where(np.isfinite(cka), cka, -np.inf)
    weight = np.where(np.isfinite(cka), cka - np.where(np.isfinite(cka), cka, np.inf).min(axis=0), 0)
    total = weight.sum(axis=0)
    found = {
        "argmax": np.where(known, depth[filled.argmax(axis=0), 0], np.nan),
        "centroid": np.divide((weight * depth).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0),
        "best": np.where(known, filled.max(axis=0), np.nan),
    }
    coords = {name: ("layer_b", similarity[name].values) for name in ("layer_b", "kind_b", "depth_b", "block_b")}
    return xr.Dataset({name: ("layer_b", values) for name, values in found.items()}, coords, attrs=similarity.attrs)


def best_match(similarity: xr.DataArray) -> xr.DataArray:
    """For each ViT layer (layer_a), its highest CKA with any CNN layer."""
    return similarity.max("layer_b")


def halfway(starts: Sequence[float]) -> float:
    """The depth of a CNN that the paper's 'lower half' ends at: where stage 3 begins, or 0.5 without stages.

    The 'about 60 layers' of the paper's ResNet50 are half of its indexed entries and end just behind stage 2.
    """
    return starts[1] if len(starts) > 1 else 0.5


def cross_claims(
    similarity: xr.DataArray, untrained: xr.DataArray, spatial: xr.DataArray, starts: Sequence[float]
) -> list[Claim]:
    """The claims of Fig 2, from the map (ViT, CNN), that of the untrained twins, and that without the CLS token."""
    half = halfway(starts)
    trained, control = _cross_numbers(similarity, half), _cross_numbers(untrained, half)
    without_cls = _cross_numbers(spatial, half)
    lower, upper = trained["lower half"], trained["upper half"]
    return [
        Claim(
            "The lower half of the CNN resembles the lowest quarter of the ViT's layers.",
            f"median depth of the most similar ViT layer {lower:.2f} (centroid {trained['lower half, centroid']:.2f})",
            None if np.isnan(lower) else lower <= 1 / 3,
            f"CNN layers below depth {half:.2f}: median of the most similar ViT layer's depth at most 1/3",
            f"untrained: {control['lower half']:.2f}",
        ),
        Claim(
            "The upper half of the CNN resembles the next third of the ViT's layers.",
            f"median depth of the most similar ViT layer {upper:.2f} (centroid {trained['upper half, centroid']:.2f})",
            None if np.isnan(upper) else bool(0.25 < upper <= 0.6 and upper > lower),
            "the same for the CNN's other layers: above 0.25, at most 0.6, and deeper than for the lower half",
            f"untrained: {control['upper half']:.2f}",
        ),
        Claim(
            "The CNN needs more of its layers for what the ViT computes in few of its own.",
            f"{trained['ahead']:.0%} of the CNN's layers lie deeper than their match",
            decide(trained["ahead"] - 0.5, 0.1),
            "share of CNN layers that lie deeper than their most similar ViT layer: above 60 % (undecided from 40 %)",
            f"untrained: {control['ahead']:.0%}",
        ),
        Claim(
            "The last third of the ViT is unlike every layer of the CNN (the paper: it works on the CLS token).",
            f"best CKA with any CNN layer: last third {trained['last third']:.2f}, "
            f"before {trained['first two thirds']:.2f}",
            decide(trained["first two thirds"] - trained["last third"], MARGIN),
            f"mean over ViT layers of the best CKA: lower in the last third by more than {MARGIN}",
            f"untrained: {control['last third']:.2f} and {control['first two thirds']:.2f}; without the CLS token: "
            f"{without_cls['last third']:.2f} and {without_cls['first two thirds']:.2f}",
        ),
    ]


def cross_table(rows: Mapping[str, xr.DataArray], starts: Sequence[float]) -> NumberTable:
    """The numbers behind the claims of Fig 2 for several ways to measure: a row each."""
    half = halfway(starts)
    names = {
        "lower half": "matched depth, lower half of CNN", "upper half": "matched depth, upper half of CNN",
        "ahead": "share of CNN layers deeper than their match", "first two thirds": "best CKA, ViT's first two thirds",
        "last third": "best CKA, ViT's last third",
    }  # fmt: skip
    numbers = {way: _cross_numbers(similarity, half) for way, similarity in rows.items()}
    return NumberTable({way: {names[name]: row[name] for name in names} for way, row in numbers.items()})


def _cross_numbers(similarity: xr.DataArray, half: float) -> dict[str, float]:
    matched = matched_depth(similarity)
    lower = matched.depth_b.values < half
    best = best_match(similarity)
    last = best.depth_a.values >= 2 / 3
    found = matched.dropna("layer_b")
    return {
        "lower half": float(matched["argmax"][lower].median()),
        "upper half": float(matched["argmax"][~lower].median()),
        "lower half, centroid": float(matched["centroid"][lower].median()),
        "upper half, centroid": float(matched["centroid"][~lower].median()),
        "ahead": float((found.depth_b > found["argmax"]).mean()),
        "first two thirds": float(best[~last].mean()),
        "last third": float(best[last].mean()),
    }
