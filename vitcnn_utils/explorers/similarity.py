"""The explorer of Figures 1, 2 and 8: how alike any two layers are."""

from collections.abc import Mapping
from typing import Any

import traitlets
import xarray as xr

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Still, depths_of, quantize
from vitcnn_utils.images import Images
from vitcnn_utils.measures.cka import layer_similarity
from vitcnn_utils.models.facts import Model


class SimilarityExplorer(Explorer):
    """See `explore_similarity`. Its state: which map, which kind of layer, how the axes run, and one cell."""

    kind, title, color_map = "similarity", "Which layers are alike?", "magma"

    pair = traitlets.Int(0).tag(sync=True, state=True)  # which of the maps
    layers = traitlets.Unicode("all").tag(sync=True, state=True)  # 'all', or one kind of layer
    axes = traitlets.Unicode("number").tag(sync=True, state=True)  # 'number' of the layer, or 'depth'
    row = traitlets.Int(0).tag(sync=True, state=True)  # the layer on the upright axis, counted from the input
    column = traitlets.Int(0).tag(sync=True, state=True)


def explore_similarity(
    maps: Mapping[str, xr.DataArray] | tuple[Model, Model],
    images: Images | None = None,
    name: str | None = None,
    still: Still | None = None,
) -> SimilarityExplorer:
    """Heat maps of CKA between layers, one row at a time beside them.

    maps: `layer_similarity` results by the title under which each is chosen; or two models, a and b, which are then
    measured on `images`: a with itself, b with itself, a with b. name: tells apart two of these on one page.
    still: the figure of the same arrays, shown where no script runs.
    """
    if isinstance(maps, tuple):
        if images is None:
            raise VitcnnError("two models need images to compare them on: explore_similarity((vit, cnn), images)")
        a, b = maps
        maps = {
            f"{a.name} with itself": layer_similarity(a, a, images),
            f"{b.name} with itself": layer_similarity(b, b, images),
            f"{a.name} with {b.name}": layer_similarity(a, b, images),
        }
    if not maps:
        raise VitcnnError("there is nothing to explore: give at least one `layer_similarity`")
    stored = {f"map{i}": quantize(one.values, 0, 1) for i, one in enumerate(maps.values())}
    sides = [[_side(one, "a"), _side(one, "b")] for one in maps.values()]
    kinds = dict.fromkeys(kind for pair in sides for side in pair for kind in side["kinds"])
    rows, columns = zip(*[one.shape for one in maps.values()], strict=True)
    choices = {"pair": len(maps), "layers": ["all", *kinds], "axes": ["number", "depth"], "row": max(rows),
               "column": max(columns)}  # fmt: skip
    start = {"row": rows[0] // 2, "column": columns[0] // 4}
    error = max(one.error for one in stored.values())
    return SimilarityExplorer(
        stored, choices, start, name, still, titles=[str(title) for title in maps], sides=sides, error=error
    )


def _side(similarity: xr.DataArray, side: str) -> dict[str, Any]:
    """What the axis of a map is: the model, and names, kinds and depths of its layers."""
    return {
        "model": similarity.attrs["model" if side == "a" else "model_b"],
        "names": [str(one) for one in similarity[f"layer_{side}"].values],
        "kinds": [str(one) for one in similarity[f"kind_{side}"].values],
        "depths": depths_of(similarity.rename({f"depth_{side}": "depth"})),
    }
