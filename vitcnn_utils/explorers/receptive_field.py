"""The explorer of Figure 6: how much of the image does one place depend on?"""

from collections.abc import Mapping
from functools import partial
from math import ceil
from typing import Any, Unpack

import numpy as np
import xarray as xr

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Page, Quantized, depths_of, measured, number, quantize, stops, word
from vitcnn_utils.images import Images
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.measures.receptive_field import effective_receptive_fields, radius_of_mass
from vitcnn_utils.models.facts import Model

_DARKEST = 1e-3  # share of a map's largest value below which the logarithmic scale ends, as in the figure
_CHANNELS = 8  # that are measured of each layer and image
_BYTES = 800_000  # of all maps together, a byte for each of their cells


class ReceptiveFieldExplorer(Explorer):
    """See `explore_receptive_field`."""

    kind, title, color_map = "receptive_field", "How much of the image does one place depend on?", "inferno"

    layer = number()  # which of header['stops']: by depth, over all models
    addition = word("after")  # or 'before': which side of the residual addition
    scale = word("log", "linear")  # of the colours and the profile


def explore_receptive_field(
    fields: Mapping[str, xr.DataArray | Model],
    images: Images | None = None,
    before: Mapping[str, xr.DataArray] | None = None,
    **page: Unpack[Page],
) -> ReceptiveFieldExplorer:
    """Effective receptive fields of one to four models side by side, by depth (Figs 6 and C.4).

    fields: by label, `effective_receptive_fields` after the residual addition; or models, which are then measured on
    `images`, after and before it, by 8 channels an image (see there).
    before: by the same labels, the fields before the addition; None: only those after it are shown.
    page: see `explorers.base.Page`.
    """
    models = [label for label, one in fields.items() if isinstance(one, Model)]
    if models and (len(models) < len(fields) or before is not None):
        raise VitcnnError("give models and images, or arrays that are already measured, not both")
    sides = {}
    for side, given in {"after": fields, "before": fields if models else before}.items():
        if given is not None:
            measure = partial(effective_receptive_fields, channels=_CHANNELS, before_addition=side == "before")
            form = "what `effective_receptive_fields` returns"
            fields_of = measured(given, images, measure, _is_field, form, most=4)
            sides[side] = {label: whole(field) for label, field in fields_of.items()}
    after = sides["after"]
    if any(set(side) != set(after) for side in sides.values()):
        raise VitcnnError(f"fields and before must have the same labels, not {[*after]} and {[*sides['before']]}")
    layers = {side: [_layers(of_side[label]) for label in after] for side, of_side in sides.items()}
    slider = stops([one["depths"] for of_side in layers.values() for one in of_side])
    maps = sum(field.sizes["layer"] for side in sides.values() for field in side.values())
    sizes = [(field.sizes["y"], field.sizes["x"]) for field in after.values()]
    cells = [ceil(max(size) / (_BYTES / maps) ** 0.5) for size in sizes]
    arrays = {
        f"{key}_{side}{i}": array for side, of_side in sides.items() for i, label in enumerate(after)
        for key, array in _arrays(of_side[label].transpose("layer", "y", "x"), cells[i]).items()
    }  # fmt: skip
    return ReceptiveFieldExplorer(
        arrays,
        {"layer": len(slider), "addition": list(sides)},
        {"layer": _start(slider, layers["after"][0])},
        page, labels=list(after), stops=slider, layers=layers, sizes=sizes, cells=cells, darkest=_DARKEST,
        uniform=[float(radius_of_mass(xr.ones_like(field[-1:]), 0.5)[0]) for field in after.values()],
        error=10 ** max(one.error for one in arrays.values() if isinstance(one, Quantized)) - 1,
    )  # fmt: skip


def _is_field(field: Any) -> bool:
    return (
        isinstance(field, xr.DataArray)
        and {*field.dims} - {"left_out"} == {"layer", "y", "x"}
        and "centre_y" in field.coords
    )


def _arrays(field: xr.DataArray, cell: int) -> dict[str, np.ndarray | Quantized]:
    """map: log10 of the share of the largest value, means over cell x cell pixels; radius: of the disc that holds half
    of the field, px; centre: (layer, 2), row and column in px.
    """
    share = field / field.max(("y", "x"))  # NaN where the field is 0 everywhere
    means = share.coarsen(y=cell, x=cell, boundary="pad").mean()
    return {
        "map": quantize(np.log10(np.maximum(means.values, _DARKEST)), np.log10(_DARKEST), 0),
        "radius": radius_of_mass(field, 0.5).values,
        "centre": np.stack([field["centre_y"].values, field["centre_x"].values], axis=1),
    }


def _layers(field: xr.DataArray) -> dict[str, Any]:
    kinds, blocks, names = (field[key].values.tolist() for key in ("kind", "block", "layer"))
    return {"depths": depths_of(field), "kinds": kinds, "blocks": blocks, "names": names}


def _start(slider: list[float], layers: Mapping[str, Any]) -> int:
    """The stop at the attention nearest to half of the depth, or at any layer, where there is no attention."""
    depths, kinds = layers["depths"], layers["kinds"]
    attention = [depth for depth, kind in zip(depths, kinds, strict=True) if kind == "attention"] or depths
    middle = min(attention, key=lambda depth: abs(depth - 0.5))
    return int(np.argmin(np.abs(np.asarray(slider) - middle)))
