"""Section 6 of the paper: what it says of skip connections (Figs 7 and 8), beside what was measured."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim
from vitcnn_utils.measures.cka import split_contrast
from vitcnn_utils.measures.residual import by_part, geometric_mean, halves

TIE = 0.05
"""Two ratios that differ by less than this share are not told apart."""


# Figure 7: norm ratios


def phase_transition(ratios: xr.Dataset, controls: Mapping[str, xr.Dataset]) -> Claim:
    """The CLS token lives on its skips in the first half of the blocks, the spatial tokens in the second."""
    paper = (
        "In the first half of a ViT the CLS token is carried by its skips and spatial tokens are remade by the "
        "branches; in the second half it is the other way round."
    )
    test = (
        "CLS ratio / spatial ratio, both branches, geometric mean: above 1 in the first half of the blocks and "
        f"below 1 in the second; undecided if either is within {TIE:.0%} of 1"
    )
    if "CLS" not in by_part(ratios)["part"]:
        return Claim(paper, "this model has no CLS token", None, test)
    first, second = (geometric_mean(_advantage(ratios)[half]) for half in halves(ratios))
    clear = min(abs(np.log(first)), abs(np.log(second))) > np.log1p(TIE)
    return Claim(
        paper,
        f"CLS/spatial {first:.2f} in the first half, {second:.2f} in the second; {_crossings(ratios)}",
        bool(first > 1 > second) if clear else None,
        test,
        "; ".join(
            "{}: {:.2f} and {:.2f}".format(name, *(geometric_mean(_advantage(c)[half]) for half in halves(c)))
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
        cls = by_part(r).sel(part="CLS")[halves(r)[1]]
        return geometric_mean(cls.sel(branch="attention")), geometric_mean(cls.sel(branch="mlp"))

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

    def both(r: xr.Dataset) -> tuple[float, float]:
        spatial = by_part(r).sel(part="spatial")
        first, second = (geometric_mean(spatial[half]) for half in halves(r))
        return first, second

    first, second = both(ratios)
    return Claim(
        "Spatial tokens change mostly in the early layers (appendix E).",
        f"spatial ratio {first:.2f} in the first half of the blocks, {second:.2f} in the second",
        _below(first, second),
        "spatial ratio, both branches, geometric mean: lower in the first half of the blocks than in the second; "
        f"undecided if they are within {TIE:.0%}",
        "; ".join("{}: {:.2f} and {:.2f}".format(name, *both(c)) for name, c in controls.items()),
    )


def _below(low: float, high: float) -> bool | None:
    return low < high if abs(np.log(low / high)) > np.log1p(TIE) else None


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
