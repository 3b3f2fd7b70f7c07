"""The explorer of Figures 11 and 13: how well linear probes tell classes apart, by depth and read-out."""

from collections.abc import Mapping
from typing import Unpack

import numpy as np
import xarray as xr

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import base
from vitcnn_utils.explorers.base import Explorer, Page, Quantized, depths_of, number, quantize, word
from vitcnn_utils.images import Images
from vitcnn_utils.measures.probes import layer_probes
from vitcnn_utils.models.facts import Model

# What `layer_probes` names; and one token, chosen on the map, of those that were probed one by one.
_READOUTS = ["cls", "mean", "mean with cls", "first token", "token", "chosen"]


class ProbesExplorer(Explorer):
    """See `explore_probes`."""

    kind, title = "probes", "What does a layer know of the class?"

    readout = word("mean")  # see _READOUTS
    layer = number()  # which of header['stops']: by depth, over all models
    shown = number()  # sum of 2**i of the models i whose lines are shown
    model = number()  # which one's read-outs and map are beside the lines
    row = number()  # of the token, from the top of the finest grid
    column = number()
    scale = word("own", "common")  # of the colours: each map its own, or one for all


def explore_probes(
    models: Mapping[str, xr.Dataset | Model], images: Images | None = None, **page: Unpack[Page]
) -> ProbesExplorer:
    """Accuracy of linear probes by depth: several models at one read-out, one model at all, and token by token.

    models: by label, `layer_probes` results on the same images (read-outs and layers may differ), or models, which are
    then probed on labelled `images` at all block outputs and read-outs. page: see `explorers.base.Page`.
    """
    probes = base.measured(models, images, layer_probes, lambda one: "accuracy" in one, "what `layer_probes` returns")
    chances = {round(float(one.attrs["chance"]), 6): label for label, one in probes.items()}
    if len(chances) > 1:
        each = ", ".join(f"{label} {100 * chance:.1f} %" for chance, label in chances.items())
        raise VitcnnError(f"the probes differ in chance ({each}): compare models on the same images")
    readouts = [_readouts(one) + ["chosen"] * ("token_accuracy" in one) for one in probes.values()]
    arrays = [_arrays(one) for one in probes.values()]
    grids = [[max(side, 1) for side in one["by_token"].codes.shape[1:]] for one in arrays]
    depths = [depths_of(one) for one in probes.values()]
    slider, order = base.stops(depths), [key for key in _READOUTS if any(key in own for own in readouts)]
    rows, columns = np.max(grids, axis=0)
    return ProbesExplorer(
        base.numbered(arrays),
        {"readout": order, "layer": len(slider), "shown": 2 ** len(probes), "model": len(probes), "row": rows,
         "column": columns},
        {"readout": max(order, key=lambda key: sum(key in own for own in readouts)), "layer": len(slider) - 1,
         "shown": 2 ** len(probes) - 1, "row": rows // 2, "column": columns // 3},
        page, labels=list(probes), layers=[one["layer"].values.tolist() for one in probes.values()], depths=depths,
        stops=slider, grids=grids, readouts=readouts, chance=next(iter(chances)),
        draws=max(one.sizes["draw"] for one in probes.values()), error=arrays[0]["accuracy"].error,
    )  # fmt: skip


def _readouts(probes: xr.Dataset) -> list[str]:
    return [key for key in _READOUTS if key in probes["readout"].values]


def _arrays(probes: xr.Dataset) -> dict[str, Quantized]:
    """Means over draws and standard deviations, NaN for one draw: accuracy and spread (readout, layer), by_token and
    token_spread (layer, row, col); these without rows where single tokens were not probed.
    """
    accuracy = probes["accuracy"].sel(readout=_readouts(probes)).transpose("readout", "layer", "draw")
    none = xr.DataArray(np.zeros((probes.sizes["layer"], 0, 0, 1)), dims=("layer", "row", "col", "draw"))
    tokens = probes.get("token_accuracy", none).transpose("layer", "row", "col", "draw")
    found = {
        "accuracy": accuracy.mean("draw"), "spread": _spread(accuracy), "by_token": tokens.mean("draw"),
        "token_spread": _spread(tokens),
    }  # fmt: skip
    return {name: quantize(values, 0, 1, bits=16) for name, values in found.items()}


def _spread(accuracy: xr.DataArray) -> xr.DataArray:
    return accuracy.std("draw", ddof=1) if accuracy.sizes["draw"] > 1 else accuracy.isel(draw=0) * np.nan
