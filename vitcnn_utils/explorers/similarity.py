"""The explorer of Figures 1, 2 and 8: how alike any two layers are."""

from collections.abc import Mapping
from typing import Any, Unpack

import xarray as xr

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, Page, depths_of, number, quantize, word
from vitcnn_utils.images import Images
from vitcnn_utils.measures.cka import layer_similarity
from vitcnn_utils.measures.intervals import whole
from vitcnn_utils.models.facts import Model


class SimilarityExplorer(Explorer):
    """See `explore_similarity`."""

    kind, title, color_map = "similarity", "Which layers are alike?", "magma"

    pair = number()  # which of the maps
    layers = word("all")  # or one kind of layer
    axes = word("number", "depth")  # what places a layer on its axis
    row = number()  # the layer on the upright axis, counted from the input
    column = number()


def explore_similarity(
    maps: Mapping[str, xr.DataArray] | tuple[Model, Model], images: Images | None = None, **page: Unpack[Page]
) -> SimilarityExplorer:
    """Heat maps of CKA between layers, one row at a time beside them.

    maps: `layer_similarity` results by the title under which each is chosen; or two models, a and b, which are then
    measured on `images`: a with itself, b with itself, a with b. page: see `explorers.base.Page`.
    """
    if isinstance(maps, tuple):
        if images is None:
            raise VitcnnError("two models need images to compare them on: explore_similarity((vit, cnn), images)")
        a, b = maps
        pairs = {f"{a.name} with itself": (a, a), f"{b.name} with itself": (b, b), f"{a.name} with {b.name}": (a, b)}
        maps = {title: layer_similarity(*pair, images) for title, pair in pairs.items()}
    if not maps:
        raise VitcnnError("there is nothing to explore: give at least one `layer_similarity`")
    maps = {title: whole(one) for title, one in maps.items()}
    stored = {f"map{i}": quantize(one.values, 0, 1) for i, one in enumerate(maps.values())}
    sides = [[_side(one, "a"), _side(one, "b")] for one in maps.values()]
    kinds = dict.fromkeys(kind for pair in sides for side in pair for kind in side["kinds"])
    rows, columns = zip(*[one.shape for one in maps.values()], strict=True)
    return SimilarityExplorer(
        stored,
        {"pair": len(maps), "layers": ["all", *kinds], "row": max(rows), "column": max(columns)},
        {"row": rows[0] // 2, "column": columns[0] // 4},
        page, titles=[str(title) for title in maps], sides=sides, error=max(one.error for one in stored.values()),
    )  # fmt: skip


def _side(similarity: xr.DataArray, side: str) -> dict[str, Any]:
    """What the axis of a map is: the model, and names, kinds and depths of its layers."""
    return {
        "model": similarity.attrs["model" if side == "a" else "model_b"],
        "names": [str(one) for one in similarity[f"layer_{side}"].values],
        "kinds": [str(one) for one in similarity[f"kind_{side}"].values],
        "depths": depths_of(similarity, f"depth_{side}"),
    }
