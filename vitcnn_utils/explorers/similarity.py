"""The explorer of Figures 1, 2 and 8: how alike any two layers are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets
import xarray as xr
from matplotlib.figure import Figure as MplFigure

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import Explorer, quantize
from vitcnn_utils.images import Images
from vitcnn_utils.measures import cka
from vitcnn_utils.models.facts import Model
from vitcnn_utils.plots import style


def explore_similarity(
    maps: Mapping[str, xr.DataArray] | tuple[Model, Model], images: Images | None = None, name: str | None = None
) -> "SimilarityExplorer":
    """Heat maps of CKA between layers, one row at a time beside them.

    maps: `cka.layer_similarity` results by the title under which each is chosen; or two models, a and b, which are then
    measured on `images`: a with itself, b with itself, a with b. name: tells apart two of these on one page.
    """
    if isinstance(maps, tuple):
        if images is None:
            raise VitcnnError("two models need images to compare them on: explore_similarity((vit, cnn), images)")
        first, second = maps
        pairs = [(first, first), (second, second), (first, second)]
        maps = {_title(a, b): cka.layer_similarity(a, b, images) for a, b in pairs}
    if not maps:
        raise VitcnnError("there is nothing to explore: give at least one `cka.layer_similarity`")
    return SimilarityExplorer(maps, name)


class SimilarityExplorer(Explorer):
    """See `explore_similarity`. Its state: which map, which kind of layer, how the axes run, and one cell."""

    kind = "similarity"

    pair = traitlets.Int(0).tag(sync=True, state=True)  # which of the maps
    layers = traitlets.Unicode("all").tag(sync=True, state=True)  # 'all', or one kind of layer
    axes = traitlets.Unicode("number").tag(sync=True, state=True)  # 'number' of the layer, or 'depth'
    row = traitlets.Int(0).tag(sync=True, state=True)  # the layer on the upright axis, counted from the input
    column = traitlets.Int(0).tag(sync=True, state=True)

    def __init__(self, maps: Mapping[str, xr.DataArray], name: str | None = None) -> None:
        self._maps = list(maps.values())
        self._stored = [quantize(m.values, 0, 1) for m in self._maps]
        kinds = list(dict.fromkeys(kind for m in self._maps for side in "ab" for kind in m[f"kind_{side}"].values))
        sizes = np.array([m.shape for m in self._maps])
        super().__init__(
            {f"map{i}": stored for i, stored in enumerate(self._stored)},
            choices={
                "pair": len(maps), "layers": ["all", *kinds], "axes": ["number", "depth"],
                "row": sizes[:, 0].max(), "column": sizes[:, 1].max(),
            },
            start={"row": sizes[0, 0] // 2, "column": sizes[0, 1] // 4},
            name=name,
            titles=list(maps),
            sides=[[_side(m, "a"), _side(m, "b")] for m in self._maps],
            error=max(stored.error for stored in self._stored),
        )  # fmt: skip

    def sentence(self) -> str:
        a, b = (_side(self._maps[self.pair], side) for side in "ab")
        row, column = self._shown(a, self.row), self._shown(b, self.column)
        value = self._stored[self.pair].values[row, column]
        shown = f"Shown: {self.layers} layers, by {self.axes}."
        return f"CKA of {_words(a, row)} and {_words(b, column)}: {style.number(value)}. {shown}"

    def _shown(self, side: dict[str, Any], index: int) -> int:
        """The layer nearest to the chosen one among those of the kind that is shown."""
        of_kind = [i for i, kind in enumerate(side["kinds"]) if self.layers in ("all", kind)]
        return min(of_kind or range(len(side["kinds"])), key=lambda i: abs(i - index))

    def still(self) -> MplFigure:
        return _draw(self._maps[self.pair], list(self.header["titles"])[self.pair])


@style.styled
def _draw(similarity: xr.DataArray, title: str) -> MplFigure:
    drawing, axes = style.panels(1, 1, width=4.2, height=3.6)
    image = style.heat_map(axes[0, 0], similarity.values, vmin=0, vmax=1)
    axes[0, 0].set(title=title, xlabel="layer", ylabel="layer")
    drawing.colorbar(image, ax=axes[0, 0], label="CKA")
    return drawing


def _side(similarity: xr.DataArray, side: str) -> dict[str, Any]:
    """What the axis of a map is: the model, and names, kinds and depths of its layers."""
    return {
        "model": similarity.attrs[f"model_{side}"],
        "names": [str(one) for one in similarity[f"layer_{side}"].values],
        "kinds": [str(one) for one in similarity[f"kind_{side}"].values],
        "depths": [round(float(one), 4) for one in similarity[f"depth_{side}"].values],
    }


def _words(side: dict[str, Any], index: int) -> str:
    """One layer in words: 'layer 12 of 51 in zoo/vit-cls, blocks.1.attn (attention)'."""
    names, kinds = side["names"], side["kinds"]
    return f"layer {index + 1} of {len(names)} in {side['model']}, {names[index]} ({kinds[index]})"


def _title(a: Model, b: Model) -> str:
    return f"{a.name} with itself" if a is b else f"{a.name} with {b.name}"
