"""95 % intervals by the jackknife, over groups of images or minibatches of CKA, and over draws of shots.

A claim needs an interval of any statistic of its arrays; the jackknife asks for the statistic some 20 times, where a
bootstrap asks for it 1,000 times. That it covers the truth as often is simulated in `tests/test_intervals.py`.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import xarray as xr
from scipy.stats import t

from vitcnn_utils.errors import VitcnnError

Measured = TypeVar("Measured", xr.DataArray, xr.Dataset, xr.DataArray | xr.Dataset)


def jackknife(statistic: Callable[..., xr.DataArray | float], *arrays: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """The 95 % interval of a statistic of arrays, from its values without each part of the images: (bound, …).

    arrays: over left_out and anything else, as `layer_similarity(…, left_out=True)` or `left_out(head_distances(…))`;
    several must be of the same images, and one without left_out is the same for all.
    statistic: of the arrays without that dimension, to a number or an array.
    Returns 'low' and 'high' along `bound`, NaN where the statistic is NaN: the statistic of all images, less and plus
    the standard error of Tukey (1958) times Student's t with one degree of freedom less than there are parts.

    >>> similarity = layer_similarity(vit, vit, images, left_out=True)
    >>> low, high = jackknife(lambda cka: cka.mean(), similarity)
    """
    counts = {one.sizes["left_out"] for one in arrays if "left_out" in one.dims}
    if len(counts) != 1 or min(counts) < 3:
        raise VitcnnError(
            "a jackknife needs arrays with left_out, of two or more parts, as many in all: measure the same images"
        )
    every, *without = [
        xr.DataArray(statistic(*(one.isel(left_out=i, drop=True) if "left_out" in one.dims else one for one in arrays)))
        for i in range(counts.pop())
    ]
    B = len(without)
    error = (B - 1) / np.sqrt(B) * np.std([one.values for one in without], axis=0, ddof=1)
    return _bounds(every, t.ppf(0.975, B - 1) * every.copy(data=error))


def draws_and_images(statistic: Callable[..., xr.DataArray | float], *probes: xr.Dataset) -> xr.DataArray:
    """The 95 % interval of a statistic of probes, from how it varies over draws of the shots and over test images.

    probes: over draw, two or more, and, for the test images, over left_out, as `left_out(layer_probes(…))`; all of the
    same draws and images. statistic: of data sets with all draws or one, as for `jackknife`.
    Returns 'low' and 'high' along `bound`. The variances over draws and over images are added, with degrees of freedom
    by Welch (1947); what is peculiar to a draw and an image counts in both, so the interval is a little wide.
    """
    every = [whole(one) for one in probes]
    draws = probes[0].sizes["draw"]
    by_draw = [xr.DataArray(statistic(*(one.isel(draw=[i]) for one in every))) for i in range(draws)]
    spreads = [(xr.concat(by_draw, "draw").var("draw", ddof=1) / draws, draws - 1)]
    parts = max(one.sizes.get("left_out", 0) for one in probes) - 1
    if parts > 0:
        low, high = jackknife(statistic, *probes)
        spreads.append((((high - low) / 2 / t.ppf(0.975, parts - 1)) ** 2, parts - 1))
    variance = xr.concat([variance for variance, _ in spreads], "spread")
    total, counts = variance.sum("spread"), xr.DataArray([count for _, count in spreads], dims="spread")
    freedom = total**2 / (variance**2 / counts).sum("spread").where(total > 0, 1)
    half = total.copy(data=t.ppf(0.975, freedom.where(total > 0, 1)) * np.sqrt(total))
    return _bounds(xr.DataArray(statistic(*every)), half)


def _bounds(middle: xr.DataArray, half: xr.DataArray) -> xr.DataArray:
    """The interval that reaches as far as `half` from the middle: (bound, …)."""
    return (middle + half * xr.DataArray([-1, 1], {"bound": ["low", "high"]}, "bound")).transpose("bound", ...)


def whole(measured: Measured) -> Measured:
    """That of all images, where it is also given with some left out."""
    return measured.isel(left_out=0, drop=True) if "left_out" in measured.dims else measured


def left_out(measured: Measured, groups: int = 20) -> Measured:
    """Means over images without each of some groups of images, along `left_out`, for `jackknife`; -1 is that of all.

    measured: an array over sample; or a data set, as `skip_ratios`, of which every variable that is also there by image
    gets the dimension, and all others stay as they are.
    """
    if isinstance(measured, xr.Dataset):
        names = [str(name) for name in measured if f"{name}_by_image" in measured]
        means = {name: left_out(measured[f"{name}_by_image"], groups) for name in names}
        return measured.drop_vars([f"{name}_by_image" for name in names]).assign(means)
    groups = min(groups, measured.sizes["sample"])
    if groups < 2:
        raise VitcnnError("a jackknife over images needs two images or more")
    group = np.arange(measured.sizes["sample"]) * groups // measured.sizes["sample"]
    without = [
        measured.isel(sample=group != i).mean("sample", dtype=np.float64, skipna=False).astype(measured.dtype)
        for i in range(-1, groups)
    ]
    return xr.concat(without, xr.Variable("left_out", np.arange(-1, groups))).assign_attrs(measured.attrs)
