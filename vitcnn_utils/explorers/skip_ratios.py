"""The explorer of Figure 7: does a token come through the skip, or is it remade by the branch?"""

from collections.abc import Mapping
from typing import Any, Unpack

import xarray as xr

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Page, measured, number, numbered, word
from vitcnn_utils.images import Images
from vitcnn_utils.measures.residual import AVERAGES, skip_ratios
from vitcnn_utils.models.facts import Model


class SkipRatiosExplorer(Explorer):
    """See `explore_skip_ratios`."""

    kind, title = "skip_ratios", "Is a token carried by the skip, or remade by the branch?"

    model = number()  # which of the models with tokens
    block = number()
    branch = word("attention", "mlp")
    token = number()  # prefix tokens first, then row by row
    average = word("ratio")  # over images: see measures.residual.AVERAGES


def explore_skip_ratios(
    ratios: Mapping[str, xr.Dataset | Model], images: Images | None = None, **page: Unpack[Page]
) -> SkipRatiosExplorer:
    """How much of each token comes through the skip, at its place in the image, by block and branch (Figs 7 and E.1).

    ratios: by label, `skip_ratios` results, or models, which are then measured on `images`. One of those with tokens
    (transformers) is shown at a time, at least one is needed; those without (CNNs) are lines beside it.
    page: see `explorers.base.Page`.
    """
    arrays = measured(ratios, images, skip_ratios, _fits, "what `skip_ratios` returns")
    tokens = {label: one for label, one in arrays.items() if one.sizes["token"] > 1}
    units = {label: one for label, one in arrays.items() if label not in tokens}
    if not tokens:
        raise VitcnnError(f"none of {', '.join(arrays)} has tokens: give at least one transformer")
    grids = [one.attrs["grid"] for one in tokens.values()]
    averages = [key for key in AVERAGES if all(key in one for one in arrays.values())]
    prefix = [one["part"].values[one["part"].values != "spatial"].tolist() for one in tokens.values()]
    rows, columns = grids[0]
    blocks, counts = zip(*[(one.sizes["block"], one.sizes["token"]) for one in tokens.values()], strict=True)
    order = [
        one[averages].transpose("block", "branch", "token").reindex(branch=["attention", "mlp"])
        for one in tokens.values()
    ]
    lines = [one.isel(branch=0, token=0) for one in units.values()]
    return SkipRatiosExplorer(
        numbered([{key: one[key].values for key in averages} for one in order])
        | numbered([{f"unit_{key}": one[key].values for key in averages} for one in lines]),
        {"model": len(tokens), "block": max(blocks), "token": max(counts), "average": averages},
        {"block": blocks[0] // 2, "token": len(prefix[0]) + rows // 2 * columns + columns // 2},
        page, labels=list(tokens), averages=AVERAGES, grids=grids, prefix=prefix,
        blocks=[one["block"].values.tolist() for one in tokens.values()],
        units=[{"label": label, "blocks": one["block"].values.tolist(), "projected": one["projected"].values.tolist()}
               for label, one in units.items()],
    )  # fmt: skip


def _fits(ratios: Any) -> bool:
    return isinstance(ratios, xr.Dataset) and "ratio" in ratios and {*ratios.ratio.dims} == {"block", "branch", "token"}
