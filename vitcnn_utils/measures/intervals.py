"""95 % intervals: over images by the bootstrap, over the minibatches of CKA by the jackknife."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy.stats import norm, t

from vitcnn_utils.errors import VitcnnError

Statistic = Callable[[xr.DataArray], xr.DataArray]
"""Reduces dimensions by name, and so keeps others: it is given many arrays at once, along one dimension more."""

AT_ONCE = 1 << 23
"""How many numbers the means of some resamples may be at a time (64 MiB)."""


def bootstrap(
    by_image: xr.DataArray, statistic: Statistic = lambda mean: mean, resamples: int = 1000, seed: int = 0
) -> xr.DataArray:
    """The 95 % interval of a statistic of the mean over images, from images drawn with replacement: (bound, …).

    by_image: over image and anything else, as `head_distances(…).distance_by_image`; 2 images or more.
    statistic: of the mean over images; none is needed for an interval of the mean itself.
    Returns 'low' and 'high' along `bound`, NaN where the statistic is NaN. Percentiles of few images are too narrow:
    they are widened as in Hesterberg (2015).

    >>> heads = head_distances(model, images)
    >>> low, high = bootstrap(heads.distance_by_image, lambda distance: distance.min("head").mean("block"))
    """
    N = by_image.sizes["image"]
    if N < 2:
        raise VitcnnError("a bootstrap over images needs two images or more")
    values = by_image.transpose("image", ...)
    flat = values.values.reshape(N, -1).astype(np.float64)
    weights = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), size=resamples) / N
    parts = np.array_split(weights, -(-resamples * flat.shape[1] // AT_ONCE))
    dims = ("resample", *values.dims[1:])
    coords = {name: coord for name, coord in values.coords.items() if "image" not in coord.dims}
    means = (xr.DataArray((part @ flat).reshape(-1, *values.shape[1:]), coords, dims) for part in parts if len(part))
    found = xr.concat([statistic(mean) for mean in means], "resample")
    tail = norm.cdf(-np.sqrt(N / (N - 1)) * t.ppf(0.975, N - 1))
    bounds = found.quantile([tail, 1 - tail], "resample", skipna=False)
    return bounds.rename(quantile="bound").assign_coords(bound=["low", "high"])


def jackknife(similarity: xr.DataArray, statistic: Statistic = lambda similarity: similarity) -> xr.DataArray:
    """The 95 % interval of a statistic of CKA over minibatches of images, by the jackknife: (bound, …).

    similarity: over left_out and anything else, as `layer_similarity(…, left_out=True)`.
    statistic: of the CKA; none is needed for an interval of CKA itself.
    Returns 'low' and 'high' along `bound`, NaN where the statistic is NaN: the statistic of all minibatches, less and
    plus the standard error of Tukey (1958) times Student's t with one degree of freedom less than minibatches.

    >>> similarity = layer_similarity(vit, vit, images, left_out=True)
    >>> low, high = jackknife(similarity, lambda cka: cka.mean(("layer_a", "layer_b")))
    """
    values = statistic(similarity)
    every, without = values.sel(left_out=-1, drop=True), values.drop_sel(left_out=-1)
    B = without.sizes["left_out"]
    error = (B - 1) / np.sqrt(B) * without.std("left_out", ddof=1, skipna=False)
    half = t.ppf(0.975, B - 1) * error * xr.DataArray([-1, 1], {"bound": ["low", "high"]}, "bound")
    return (every + half).transpose("bound", ...)
