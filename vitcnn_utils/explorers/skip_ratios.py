"""The explorer of Figure 7: does a token come through the skip, or is it remade by the branch?"""

from collections.abc import Mapping

import numpy as np
import traitlets
import xarray as xr

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Still, measured
from vitcnn_utils.images import Images
from vitcnn_utils.measures.residual import AVERAGES, skip_ratios
from vitcnn_utils.models.facts import Model

_BRANCHES = ["attention", "mlp"]


class SkipRatiosExplorer(Explorer):
    """See `explore_skip_ratios`. Its state: which model, block, branch, token and average."""

    kind, title = "skip_ratios", "Is a token carried by the skip, or remade by the branch?"

    model = traitlets.Int(0).tag(sync=True, state=True)  # which of the models with tokens
    block = traitlets.Int(0).tag(sync=True, state=True)
    branch = traitlets.Unicode("attention").tag(sync=True, state=True)  # 'attention' or 'mlp'
    token = traitlets.Int(0).tag(sync=True, state=True)  # prefix tokens first, then row by row
    average = traitlets.Unicode("ratio").tag(sync=True, state=True)  # over images: see measures.residual.AVERAGES


def explore_skip_ratios(
    ratios: Mapping[str, xr.Dataset | Model],
    images: Images | None = None,
    grid: tuple[int, int] | None = None,
    name: str | None = None,
    still: Still | None = None,
) -> SkipRatiosExplorer:
    """How much of each token comes through the skip, at its place in the image, by block and branch (Figs 7 and E.1).

    ratios: by label, `skip_ratios` results, or models, which are then measured on `images`. One of those with tokens
    (transformers) is shown at a time, at least one is needed; those without (CNNs) are lines beside it.
    grid: rows and columns of the spatial tokens; None: those of the model, or of a result the square that they fill.
    name: tells apart two of these on one page. still: the figure of the same arrays, shown where no script runs.
    """
    arrays = measured(ratios, images, skip_ratios)
    for label, one in arrays.items():
        if not isinstance(one, xr.Dataset) or "ratio" not in one or set(one.ratio.dims) != {"block", "branch", "token"}:
            raise VitcnnError(f"{label!r} has no skip ratios: give what `skip_ratios` returns, or a model")
    tokens = {label: one for label, one in arrays.items() if one.sizes["token"] > 1}
    units = {label: one for label, one in arrays.items() if label not in tokens}
    if not tokens:
        raise VitcnnError(f"none of {', '.join(arrays)} has tokens: give at least one transformer")
    sources = {str(label): one for label, one in ratios.items()}
    grids = [grid or _grid(label, one, sources[label]) for label, one in tokens.items()]
    averages = [key for key in AVERAGES if all(key in one for one in arrays.values())]
    stored = {
        f"{key}{i}": one[key].transpose("block", "branch", "token").reindex(branch=_BRANCHES).values
        for i, one in enumerate(tokens.values()) for key in averages
    } | {
        f"unit_{key}{i}": one[key].isel(branch=0, token=0).values
        for i, one in enumerate(units.values()) for key in averages
    }  # fmt: skip
    prefix = [one["part"].values[one["part"].values != "spatial"].tolist() for one in tokens.values()]
    rows, columns = grids[0]
    return SkipRatiosExplorer(
        stored,
        {"model": len(tokens), "block": max(one.sizes["block"] for one in tokens.values()), "branch": _BRANCHES,
         "token": max(one.sizes["token"] for one in tokens.values()), "average": averages},
        {"block": stored["ratio0"].shape[0] // 2, "token": len(prefix[0]) + rows // 2 * columns + columns // 2},
        name, still, labels=list(tokens), averages=AVERAGES, grids=grids, prefix=prefix,
        blocks=[one["block"].values.tolist() for one in tokens.values()],
        units=[{"label": label, "blocks": one["block"].values.tolist(), "projected": one["projected"].values.tolist()}
               for label, one in units.items()],
    )  # fmt: skip


def _grid(label: str, ratios: xr.Dataset, source: xr.Dataset | Model) -> tuple[int, int]:
    if isinstance(source, Model) and source.grid:
        return source.grid
    count = int(np.sum(ratios["part"].values == "spatial"))
    side = int(count**0.5)
    if side * side != count:
        raise VitcnnError(f"{label!r} has {count} spatial tokens: give grid=(rows, columns) that they fill")
    return side, side
