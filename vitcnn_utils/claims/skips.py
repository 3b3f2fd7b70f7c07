"""Section 6 of the paper: what it says of skip connections (Figs 7 and 8), beside what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim
from vitcnn_utils.errors import VitcnnError

TIE = 0.05
"""Two ratios that differ by less than this share are not told apart."""

AVERAGES = {"ratio": "mean of ratios", "ratio_of_means": "ratio of mean norms", "median": "median ratio"}

# Figure 7: norm ratios


def by_part(ratios: xr.Dataset, statistic: str = "ratio") -> xr.DataArray:
    """A statistic of `residual.skip_ratios` over (block, branch, part): 'CLS' and 'spatial'.

    Spatial tokens are averaged. A model without a CLS token has only 'spatial'.
    """
    values, part = ratios[statistic], ratios["part"].values
    means = {"spatial": values.isel(token=part == "spatial").mean("token")}
    if "CLS" in part:
        means = {"CLS": values.isel(token=part.tolist().index("CLS")).reset_coords(drop=True), **means}
    return xr.concat(means.values(), "part", coords="minimal").assign_coords(part=list(means))


def averages(models: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """The three averages that the paper's text allows, in each half of the blocks: (tokens, average).

    tokens: 'model, branch, part'. Within a half, blocks are averaged geometrically: ratios of 4 and 1/4 balance.
    """
    rows: dict[str, list[float]] = {}
    for name, ratios in models.items():
        for branch in ratios["branch"].values:
            for part in by_part(ratios)["part"].values:
                rows[f"{name}, {branch}, {part}"] = [
                    _geometric(by_part(ratios, statistic).sel(branch=branch, part=part)[half])
                    for half in _halves(ratios)
                    for statistic in AVERAGES
                ]
    columns = [f"{half} half: {title}" for half in ("first", "second") for title in AVERAGES.values()]
    return xr.DataArray(list(rows.values()), {"tokens": list(rows), "average": columns}, ("tokens", "average"))


def phase_transition(ratios: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> Claim:
    """The CLS token lives on its skips in the first half of the blocks, the spatial tokens in the second."""
    paper = (
        "In the first half of a ViT the CLS token is carried by its skips and spatial tokens are remade by the "
        "branches; "
        "in the second half it is the other way round."
    )
    test = (
        "CLS ratio / spatial ratio, both branches, geometric mean: above 1 in the first half of the blocks and "
        "below 1 in "
        f"the second; undecided if either is within {TIE:.0%} of 1"
    )
    if "CLS" not in by_part(ratios)["part"]:
        return Claim(paper, "this model has no CLS token", None, test)
    first, second = (_geometric(_advantage(ratios)[half]) for half in _halves(ratios))
    clear = min(abs(np.log(first)), abs(np.log(second))) > np.log1p(TIE)
    return Claim(
        paper,
        f"CLS/spatial {first:.2f} in the first half, {second:.2f} in the second; {_crossings(ratios)}",
        bool(first > 1 > second) if clear else None,
        test,
        "; ".join(
            "{}: {:.2f} and {:.2f}".format(name, *(_geometric(_advantage(c)[half]) for half in _halves(c)))
            for name, c in controls.items()
        ),
    )


def vit_above_cnn(vit: xr.Dataset, cnn: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> Claim:
    """Skips carry more in the ViT than in the CNN at every depth.

    controls: other ViTs, compared with the same CNN.
    """

    def words(factors: np.ndarray) -> str:
        times = np.exp(np.log(factors).mean())
        return f"ViT above at {(factors > 1).sum()} of {factors.size}, {times:.2f} times the CNN's"

    factors = _factors(vit, cnn)
    return Claim(
        "The ratios are much higher in the ViT than in the ResNet, throughout.",
        words(factors) if factors.size else "this CNN's branches give 0: it was not trained",
        bool((factors > 1).all()) if factors.size else None,
        "mean over all tokens, each branch of the ViT interpolated to the depth of each CNN unit whose skip is the "
        "identity: ViT above CNN at all of them",
        "; ".join(f"{name}: {words(_factors(c, cnn))}" for name, c in controls.items()) if factors.size else "",
    )


def late_cls_changes(ratios: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> Claim:
    """Appendix E: late in the network the MLPs change the CLS token, more than attention does."""
    test = (
        "CLS ratio in the second half of the blocks, geometric mean: MLP below attention; "
        f"undecided if they are within {TIE:.0%}"
    )
    paper = "Late in the network the CLS token is changed mostly by the MLPs (appendix E)."
    if "CLS" not in by_part(ratios)["part"]:
        return Claim(paper, "this model has no CLS token", None, test)

    def late(r: xr.Dataset) -> tuple[float, float]:
        cls = by_part(r).sel(part="CLS")[_halves(r)[1]]
        return _geometric(cls.sel(branch="attention")), _geometric(cls.sel(branch="mlp"))

    attention, mlp = late(ratios)
    return Claim(
        paper,
        f"CLS, second half: MLP {mlp:.2f}, attention {attention:.2f}",
        _below(mlp, attention),
        test,
        "; ".join("{0}: MLP {2:.2f}, attention {1:.2f}".format(name, *late(c)) for name, c in controls.items()),
    )


def early_spatial_changes(ratios: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> Claim:
    """Appendix E: spatial tokens change mostly in early blocks."""

    def halves(r: xr.Dataset) -> tuple[float, float]:
        spatial = by_part(r).sel(part="spatial")
        first, second = (_geometric(spatial[half]) for half in _halves(r))
        return first, second

    first, second = halves(ratios)
    return Claim(
        "Spatial tokens change mostly in the early layers (appendix E).",
        f"spatial ratio {first:.2f} in the first half of the blocks, {second:.2f} in the second",
        _below(first, second),
        "spatial ratio, both branches, geometric mean: lower in the first half of the blocks than in the second; "
        f"undecided if they are within {TIE:.0%}",
        "; ".join("{}: {:.2f} and {:.2f}".format(name, *halves(c)) for name, c in controls.items()),
    )


def _below(low: float, high: float) -> bool | None:
    return low < high if abs(np.log(low / high)) > np.log1p(TIE) else None


def _halves(ratios: xr.Dataset) -> tuple[slice, slice]:
    """The first and the second half of the blocks; a middle one counts as second."""
    middle = ratios.sizes["block"] // 2
    return slice(0, middle), slice(middle, None)


def _geometric(ratios: xr.DataArray) -> float:
    """Geometric mean of the finite ratios, NaN if there are none."""
    logs = np.log(ratios.values[np.isfinite(ratios.values)])
    return float(np.exp(logs.mean())) if logs.size else float("nan")


def _advantage(ratios: xr.Dataset) -> xr.DataArray:
    """CLS ratio over spatial ratio, (block, branch)."""
    parts = by_part(ratios)
    return parts.sel(part="CLS") / parts.sel(part="spatial")


def _crossings(ratios: xr.Dataset) -> str:
    """Where the sign of the CLS token's advantage changes, in words."""
    sign = np.sign(np.log(_advantage(ratios).values).mean(axis=1))
    changes = [f"{i - 1} and {i}" for i in range(1, len(sign)) if sign[i] != sign[i - 1]]
    return f"the order changes between blocks {', '.join(changes)}" if changes else "the order never changes"


def _factors(vit: xr.Dataset, cnn: xr.Dataset) -> np.ndarray:
    """ViT over CNN, each branch at the depth of each unit with an identity skip and a finite ratio (flat)."""
    identity = cnn.isel(block=~cnn["projected"].values, branch=0, token=0)
    units = identity.isel(block=np.isfinite(identity["ratio"].values))
    lines = vit["ratio"].mean("token")  # (block, branch)
    at_units = [np.interp(units["depth"], vit["depth"], lines.sel(branch=b)) for b in vit["branch"].values]
    return (np.stack(at_units) / units["ratio"].values).ravel()


# Figure 8: models trained without the skips of one block


def split_contrast(similarity: xr.DataArray, block: int) -> float:
    """How sharply a block divides a model's layers: mean CKA of layers on one side of it less mean CKA across it.

    similarity: (layer_a, layer_b) of one model with itself, from `cka.layer_similarity`. Layers inside the block belong
    to neither side, and no layer is compared with itself. Near 0 for a model that is alike all through, 1 at most.
    Raises VitcnnError if the model has no such block.
    """
    values, blocks = similarity.values, similarity["block_a"].values
    inside = np.flatnonzero(blocks == block)
    if not len(inside):
        raise VitcnnError(
            f"there is no block {block} in {similarity.attrs.get('model_a', 'the model')}: the last is {blocks.max()}"
        )
    before, after = np.arange(inside[0]), np.arange(inside[-1] + 1, len(blocks))
    same = [values[np.ix_(side, side)][np.triu_indices(len(side), 1)] for side in (before, after)]
    return float(np.nanmean(np.concatenate(same)) - np.nanmean(values[np.ix_(before, after)]))


def split(intact: xr.DataArray, changed: Mapping[int, xr.DataArray], control: xr.DataArray) -> Claim:
    """Without the skips of a block, the layers before it and after it have little in common.

    intact, control: (layer_a, layer_b) of the trained and of an untrained model with all skips; changed: block -> the
    same of a model without that block's skips.
    """
    without = {block: split_contrast(similarity, block) for block, similarity in changed.items()}
    with_skips = {block: split_contrast(intact, block) for block in changed}
    verdicts = [without[b] > 0.2 and without[b] > 2 * with_skips[b] for b in changed]
    return Claim(
        "Trained without the skips of one block, a ViT falls into two parts, before and after it, that are hardly "
        "alike.",
        "contrast " + "; ".join(f"block {b}: {without[b]:z.2f}, intact {with_skips[b]:z.2f}" for b in changed),
        all(verdicts),
        "contrast (mean CKA on one side of the block − mean CKA across it) above 0.2, and more than twice that of the "
        "intact model cut at the same block, for every block",
        "untrained, all skips: " + "; ".join(f"block {b}: {split_contrast(control, b):z.2f}" for b in changed),
    )


def accuracy_loss(intact: float, without: Mapping[int, float], n_images: int, of: str) -> Claim:
    """Without the skips of a middle block, accuracy falls by about 4 points.

    intact, without: accuracy from 0 to 1 of the intact twin and, by block, of the models without that block's skips, on
    `n_images` images; `of` says which. Only blocks that are neither the first nor the last of those removed count as
    middle ones, where there are three or more.
    """
    points = {block: 100 * (value - intact) for block, value in without.items()}
    ordered = sorted(points)
    middle = ordered[1:-1] if len(ordered) > 2 else ordered
    # Two proportions near 1/2 on the same number of images, counted as independent: twice their standard error.
    noise = 200 * (0.5 / n_images) ** 0.5
    drops = [-points[block] for block in middle]
    clear = all(abs(drop) > noise for drop in drops)
    return Claim(
        "Without the skips of a middle block, accuracy falls (in the paper by 4 %; of what, and on what, is not said).",
        f"{of}: "
        + ", ".join(f"block {b}: {points[b]:+.1f} points" for b in ordered)
        + f" (intact: {100 * intact:.1f} %)",
        all(drop > 0 for drop in drops) if clear else None,
        f"accuracy falls for the middle block ({', '.join(map(str, middle))}); undecided if the change is within "
        f"{noise:.1f} points, twice the error of a difference on {n_images:,} images; another start may change more",
    )


def training(twin: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What the cards of the zoo say of how fairly the intact twin stands beside the others, in a paragraph.

    twin, others: from `zoo.card`.
    """
    steps = {card["steps"] for card in others}
    length = (
        f"took {twin['steps']:,} steps, as many as each of the others"
        if steps == {twin["steps"]}
        else f"took {twin['steps']:,} steps, the others {', '.join(f'{n:,}' for n in sorted(steps))}: not a fair pair"
    )
    seeds = {card["recipe"]["seed"] for card in others}
    start = (
        "All started from the same seed."
        if seeds == {twin["recipe"]["seed"]}
        else f"It started from seed {twin['recipe']['seed']}, the others from {', '.join(map(str, sorted(seeds)))}: "
        "a part of "
        "any difference is that between two starts of one recipe."
    )
    return f"By the cards of the zoo, the intact twin {twin['name']} {length}. {start}"


def accuracies(intact: float, trained: Mapping[int, float], cut: Mapping[int, float]) -> xr.DataArray:
    """Accuracy in percent of the intact model and of those without a block's skips: (skips, experiment).

    All given from 0 to 1. trained: block -> of the model that was trained without, as far as there is one (else NaN);
    cut: block -> of the intact model that was run without.
    """
    rows = {"all there": [intact, intact]} | {f"none in block {b}": [trained.get(b, np.nan), cut[b]] for b in cut}
    coords = {"skips": list(rows), "experiment": ["trained without", "cut after training"]}
    return xr.DataArray(100 * np.array(list(rows.values())), coords, ("skips", "experiment"), attrs={"units": "%"})
