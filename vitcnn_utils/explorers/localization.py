"""The explorer of Figures 9 and 10: does a token still know its place?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import traitlets
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.patches import Circle, Rectangle

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import compare
from vitcnn_utils.explorers.base import Explorer, Quantized, quantize
from vitcnn_utils.images import Images
from vitcnn_utils.measures.localization import DIMS, contrast, layer_patch_similarity, localization_rate
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.plots import style

MOST = 4  # models side by side
CURVES = {
    "token": "contrast of this token",
    "mean": "mean contrast of all tokens",
    "found": "share of tokens that find their patch",
}
_SCALES = {"own": "each map its own scale", "common": "one scale for all"}
_PIXELS = "pixels"  # the layer of a map that has none: the input itself
_NONE = 255


def explore_localization(
    models: Mapping[str, xr.DataArray | Model], images: Images | None = None, name: str | None = None
) -> "LocalizationExplorer":
    """CKA of one token, chosen on the grid, with every patch of the input, by depth, for one to four models.

    models: by label, `localization.layer_patch_similarity` results (their grids may differ), or models, which are then
    measured on `images` (square, of a size that all the models take): the blocks of the last block's grid. A map
    without layers, as `localization.patch_patch_similarity`, the baseline, stands at depth 0 beside the rest.
    name: tells apart two of these on one page. Raises VitcnnError for no model, more than four, or no images for one.
    """
    compare.require_some(list(models), "explore_localization", MOST)
    return LocalizationExplorer({label: _similarity(model, images) for label, model in models.items()}, name)


class LocalizationExplorer(Explorer):
    """See `explore_localization`. Its state: a stop in depth, a token, what the lines are, and how colours run."""

    kind = "localization"

    layer = traitlets.Int(0).tag(sync=True, state=True)  # which of header['steps']: by depth, over all models
    row = traitlets.Int(0).tag(sync=True, state=True)  # of the token, from the top of the finest grid
    column = traitlets.Int(0).tag(sync=True, state=True)
    curve = traitlets.Unicode("token").tag(sync=True, state=True)  # see CURVES
    scale = traitlets.Unicode("own").tag(sync=True, state=True)  # of colours: each map its 'own', or 'common' to all

    def __init__(self, similarities: Mapping[str, xr.DataArray], name: str | None = None) -> None:
        self._models = [_measured(label, similarity) for label, similarity in similarities.items()]
        steps = compare.steps([m.depths for m in self._models])
        rows, columns = compare.finest([m.grid for m in self._models])
        stored = {f"{key}{i}": array for i, m in enumerate(self._models) for key, array in m.arrays().items()}
        # Pixels are as like themselves as can be: on their scale no model's map would show anything.
        scaled = [m for m in self._models if m.layers != [_PIXELS]] or self._models
        super().__init__(
            stored,
            choices={
                "layer": len(steps), "row": rows, "column": columns, "curve": list(CURVES), "scale": list(_SCALES),
            },
            start={"layer": len(steps) - 1, "row": rows // 2, "column": columns // 3},
            name=name,
            labels=[m.label for m in self._models],
            layers=[m.layers for m in self._models],
            depths=[m.depths for m in self._models],
            grids=[m.grid for m in self._models],
            chances=[m.chance for m in self._models],
            steps=steps,
            curves=CURVES,
            scales=_SCALES,
            limits=_limits([m.maps.values for m in scaled]),
            ranges={
                "token": _from_zero([m.own.values - m.others.values for m in self._models]),
                "mean": _from_zero([m.mean for m in self._models]),
                "found": (0.0, 1.0),
            },
            error=max(m.maps.error for m in self._models),
        )  # fmt: skip

    def sentence(self) -> str:
        step = self.header["steps"][self.layer]
        grid = compare.finest([m.grid for m in self._models])
        parts = [self._part(m, layer, grid) for m, layer in zip(self._models, step["shown"], strict=True)]
        return (
            f"{_token((self.row, self.column), grid)}, near depth {style.number(step['depth'])}. {' '.join(parts)} "
            f"Line plot: {CURVES[self.curve]}. Colours: {_SCALES[self.scale]}."
        )

    def _part(self, m: "_Measured", layer: int, grid: tuple[int, int]) -> str:
        """What is seen of one model."""
        at = self._at(m)
        place = "" if m.grid == grid else f", {_token(at, m.grid).lower()}"
        return f"{m.label} ({m.layers[layer]}{place}): {m.found_in_words(layer, at)}."

    def _at(self, m: "_Measured") -> tuple[int, int]:
        """The token of a model's own grid at the chosen place."""
        rows, columns = compare.finest([one.grid for one in self._models])
        return compare.place(self.row, rows, m.grid[0]), compare.place(self.column, columns, m.grid[1])

    def still(self) -> MplFigure:
        return _draw(
            self._models,
            self.header["steps"][self.layer]["shown"],
            [self._at(m) for m in self._models],
            self.curve,
            self.header["limits"] if self.scale == "common" else None,
        )


@dataclass(frozen=True)
class _Measured:
    """One model: CKA of its tokens with patches, and what follows from it."""

    label: str
    layers: list[str]
    depths: list[float]
    maps: Quantized  # (layer, row, col, patch_row, patch_col)
    own: Quantized  # (layer, row, col): CKA with the own patch
    others: Quantized  # (layer, row, col): mean CKA with the other patches
    peak: np.ndarray  # (layer, row, col, 2), uint8: row and column of the most similar patch; 255: there is none
    mean: np.ndarray  # (layer,): contrast, mean over tokens
    found: np.ndarray  # (layer,): share of tokens most similar to their own patch
    chance: float  # the same for a patch drawn at random

    @property
    def grid(self) -> tuple[int, int]:
        return self.own.codes.shape[1], self.own.codes.shape[2]

    def arrays(self) -> dict[str, np.ndarray | Quantized]:
        return {
            "map": self.maps, "own": self.own, "others": self.others, "peak": self.peak, "mean": self.mean,
            "found": self.found,
        }  # fmt: skip

    def contrast(self, layer: int, at: tuple[int, int]) -> float:
        return float(self.own.values[layer, *at] - self.others.values[layer, *at])

    def found_in_words(self, layer: int, at: tuple[int, int]) -> str:
        row, column = (int(one) for one in self.peak[layer, *at])
        if row == _NONE:
            return "no values, as nothing here differs between the images"
        steps = max(abs(row - at[0]), abs(column - at[1]))
        away = f"patch ({row}, {column}), {steps} {'patch' if steps == 1 else 'patches'} away"
        where = away if steps else "its own patch"
        return f"most similar to {where}, contrast {style.number(self.contrast(layer, at), 3)}"

    def curve(self, name: str, at: tuple[int, int]) -> np.ndarray:
        """The line over depth, (layer,); see CURVES."""
        if name == "token":
            return np.array([self.contrast(layer, at) for layer in range(len(self.layers))])
        return self.mean if name == "mean" else self.found


def _similarity(model: xr.DataArray | Model, images: Images | None) -> xr.DataArray:
    if isinstance(model, xr.DataArray):
        return model
    if images is None:
        raise VitcnnError("models need images to be measured on: explore_localization({'ViT': vit}, images)")
    return layer_patch_similarity(model, images, _last_grid(model, images))


def _last_grid(model: Model, images: Images) -> list[Layer]:
    """The blocks whose grid is that of the last: all of a ViT's, those of a CNN's last stage."""
    blocks = model.blocks or model.layers[-1:]
    pixels = model.prepare(torch.from_numpy(images.pixels[[0]]))
    grids = model.reduce(pixels, blocks, lambda _, activation: tuple(model.spatial(activation).shape[1:3]))
    return [block for block in blocks if grids[block.name] == grids[blocks[-1].name]]


def _measured(label: str, similarity: xr.DataArray) -> _Measured:
    if similarity.dims[-4:] != DIMS:
        raise VitcnnError(f"{label} is {similarity.dims}, not a `localization.layer_patch_similarity`")
    if "layer" not in similarity.dims:
        similarity = similarity.assign_coords({"layer": _PIXELS, "depth": 0.0} | dict(similarity.coords))
        similarity = similarity.expand_dims("layer").assign_coords(depth=("layer", [float(similarity["depth"])]))
    summary, rate = contrast(similarity), localization_rate(similarity).sel(region="all")
    return _Measured(
        label,
        [str(layer) for layer in similarity["layer"].values],
        [round(float(depth), 4) for depth in similarity["depth"].values],
        quantize(similarity.values),
        quantize(summary["own"].values, bits=16),
        quantize(summary["others"].values, bits=16),
        _peak(similarity.values),
        summary["difference"].mean(["row", "col"]).values,
        rate["top1"].values,
        float(np.ravel(rate["chance_top1"])[0]),
    )


def _peak(values: np.ndarray) -> np.ndarray:
    """The most similar patch of each token, the nearest one among equals: (layer, row, col, 2), uint8, 255 for none."""
    layers, rows, columns = values.shape[:3]
    row, column, patch_row, patch_column = np.indices((rows, columns, rows, columns))
    distance = np.maximum(abs(row - patch_row), abs(column - patch_column))
    known = np.where(np.isnan(values), -np.inf, values)
    highest = known.max(axis=(-2, -1), keepdims=True)
    nearest = np.where(known == highest, distance, rows + columns).reshape(layers, rows, columns, -1).argmin(axis=-1)
    peak = np.stack(np.divmod(nearest, columns), axis=-1)
    return np.where(np.isfinite(highest[..., 0]), peak, _NONE).astype(np.uint8)


def _limits(arrays: list[np.ndarray]) -> tuple[float, float]:
    """The lowest and the highest value of all, 0 and 1 where there is none."""
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def _from_zero(arrays: list[np.ndarray]) -> tuple[float, float]:
    """Ends of an axis that has all values and zero."""
    low, high = _limits(arrays)
    return min(low, 0.0), max(high, 0.0)


def _token(at: tuple[int, int], grid: tuple[int, int]) -> str:
    return f"Token ({at[0]}, {at[1]}) of {grid[0]} × {grid[1]}"


@style.styled
def _draw(
    models: list[_Measured],
    shown: list[int],
    at: list[tuple[int, int]],
    curve: str,
    limits: tuple[float, float] | None,
) -> MplFigure:
    drawing = MplFigure(figsize=(7.2, 5.2))
    axes = drawing.subplot_mosaic([list(range(len(models))), ["lines"] * len(models)])
    maps, lines = [axes[i] for i in range(len(models))], axes["lines"]
    lines.axhline(0, color=style.GREY, linewidth=0.8)
    for ax, colour, m, layer, token in zip(maps, style.CYCLE, models, shown, at, strict=False):
        _draw_map(drawing, ax, m, layer, token, limits)
        values = m.curve(curve, token)
        lines.plot(m.depths, values, color=colour, label=m.label)
        lines.plot(m.depths[layer], values[layer], "o", color=colour)
    lines.set(title=CURVES[curve], xlabel="depth of the layer, 0 to 1", xlim=(0, 1.03))
    drawing.legend(*lines.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawing


def _draw_map(
    drawing: MplFigure, ax: Axes, m: _Measured, layer: int, at: tuple[int, int], limits: tuple[float, float] | None
) -> None:
    values = m.maps.values[layer, *at]
    low, high = limits or _limits([values])
    image = style.heat_map(ax, values, vmin=low, vmax=high)
    ax.invert_yaxis()  # rows of the image run downwards
    ax.set(aspect="equal", xticks=[], yticks=[], title=f"{m.label}\n{m.layers[layer]}")
    for colour, width in (("black", 2.6), ("white", 1.3)):
        line: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": width, "clip_on": False}
        ax.add_patch(Rectangle((at[1] - 0.5, at[0] - 0.5), 1, 1, **line))
        row, column = (int(one) for one in m.peak[layer, *at])
        if row != _NONE:
            ax.add_patch(Circle((column, row), 0.25, **line))
    drawing.colorbar(image, ax=ax, label="CKA", orientation="horizontal", aspect=14, pad=0.03)
