"""The explorer of Figures 11 and 13: how well linear probes tell classes apart, by depth and read-out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import traitlets
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.patches import Rectangle

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import compare
from vitcnn_utils.explorers.base import Explorer, Quantized, quantize
from vitcnn_utils.images import Images
from vitcnn_utils.measures.probes import layer_probes
from vitcnn_utils.models.facts import Model
from vitcnn_utils.plots import style

READOUTS = {
    "cls": "CLS token",
    "mean": "mean of tokens",
    "mean with cls": "mean of tokens and CLS",
    "first token": "first token",
    "token": "single tokens, averaged",
    "chosen": "token chosen on the map",
}
"""What `probes.layer_probes` names, in words; and one token of those that were probed one by one."""
_SCALES = {"own": "each map its own scale", "common": "one scale for all"}


def explore_probes(
    models: Mapping[str, xr.Dataset | Model], images: Images | None = None, name: str | None = None
) -> "ProbesExplorer":
    """Accuracy of linear probes by depth: several models at one read-out, one model at all, and token by token.

    models: by label, `probes.layer_probes` results on the same images (read-outs and layers may differ), or models,
    which are then probed on labelled `images` at all block outputs and read-outs. name: tells apart two of these on
    one page. Raises VitcnnError for no model, models without images, or probes of unlike numbers of classes.
    """
    compare.require_some(list(models), "explore_probes")
    return ProbesExplorer({label: _probes(model, images) for label, model in models.items()}, name)


class ProbesExplorer(Explorer):
    """See `explore_probes`. Its state: a read-out, a stop in depth, the models shown, and a token on a model's map."""

    kind = "probes"

    readout = traitlets.Unicode("mean").tag(sync=True, state=True)  # see READOUTS
    layer = traitlets.Int(0).tag(sync=True, state=True)  # which of header['steps']: by depth, over all models
    shown = traitlets.Int(0).tag(sync=True, state=True)  # sum of 2**i of the models i whose lines are shown
    model = traitlets.Int(0).tag(sync=True, state=True)  # which one's read-outs and map are beside the lines
    row = traitlets.Int(0).tag(sync=True, state=True)  # of the token, from the top of the finest grid
    column = traitlets.Int(0).tag(sync=True, state=True)
    scale = traitlets.Unicode("own").tag(sync=True, state=True)  # of the map's colours: 'own', or 'common' to all maps

    def __init__(self, probes: Mapping[str, xr.Dataset], name: str | None = None) -> None:
        self._models = [_measured(label, dataset) for label, dataset in probes.items()]
        _same_chance(self._models)
        steps = compare.steps([m.depths for m in self._models])
        rows, columns = compare.finest([m.grid for m in self._models])
        count = len(self._models)
        readouts = [one for one in READOUTS if any(m.has(one) for m in self._models)]
        super().__init__(
            {f"{key}{i}": array for i, m in enumerate(self._models) for key, array in m.arrays().items()},
            choices={
                "readout": readouts, "layer": len(steps), "shown": 2**count, "model": count, "row": rows,
                "column": columns, "scale": list(_SCALES),
            },
            start={
                "readout": max(readouts, key=lambda one: sum(m.has(one) for m in self._models)),
                "layer": len(steps) - 1, "shown": 2**count - 1, "row": rows // 2, "column": columns // 3,
            },
            name=name,
            labels=[m.label for m in self._models],
            layers=[m.layers for m in self._models],
            depths=[m.depths for m in self._models],
            grids=[m.grid for m in self._models],
            readouts=[m.readouts for m in self._models],
            words={one: READOUTS[one] for one in readouts},
            steps=steps,
            scales=_SCALES,
            chance=self._models[0].chance,
            limits=_limits([m.by_token.values for m in self._models]),
            top=_top(self._models),
            draws=max(m.draws for m in self._models),
            error=max(m.accuracy.error for m in self._models),
        )  # fmt: skip

    def sentence(self) -> str:
        step = self.header["steps"][self.layer]
        chosen = [i for i in range(len(self._models)) if self.shown >> i & 1]
        parts = [self._value(self._models[i], step["shown"][i]) for i in chosen]
        chance = style.number(100 * self.header["chance"], 1)
        return (
            f"{self._readout_in_words()}, near depth {style.number(step['depth'])}: "
            f"{'; '.join(parts) or 'no model is shown'}. Chance: {chance} %.{self._beside()}"
        )

    def _readout_in_words(self) -> str:
        words = READOUTS[self.readout]
        return f"{words[0].upper()}{words[1:]}{self._token() if self.readout == 'chosen' else ''}"

    def _token(self) -> str:
        rows, columns = compare.finest([m.grid for m in self._models])
        return f" ({self.row}, {self.column}) of {rows} × {columns}"

    def _value(self, m: "_Measured", layer: int) -> str:
        """One model at the chosen read-out and depth."""
        if not m.has(self.readout):
            return f"{m.label} not measured"
        return f"{m.label} ({m.layers[layer]}) {m.percent(self.readout, layer, self._at(m))}"

    def _beside(self) -> str:
        """What is seen of one model by itself, where there is more of any than one line."""
        if all(len(m.readouts) == 1 for m in self._models):
            return ""
        m, layer = self._models[self.model], self.header["steps"][self.layer]["shown"][self.model]
        if not m.has("chosen"):
            return f" Beside: {m.label}, single tokens not measured."
        at, (rows, columns) = self._at(m), m.grid
        low, high = (style.number(100 * end, 1) for end in _limits([m.by_token.values[layer]]))
        return (
            f" Beside: {m.label} ({m.layers[layer]}), token ({at[0]}, {at[1]}) of {rows} × {columns}: "
            f"{m.percent('chosen', layer, at)}, all tokens {low} to {high} %; {_SCALES[self.scale]}."
        )

    def _at(self, m: "_Measured") -> tuple[int, int]:
        """The token of a model's own grid at the chosen place."""
        rows, columns = compare.finest([one.grid for one in self._models])
        return compare.place(self.row, rows, m.grid[0]), compare.place(self.column, columns, m.grid[1])

    def still(self) -> MplFigure:
        layers = self.header["steps"][self.layer]["shown"]
        lines = [(i, m) for i, m in enumerate(self._models) if self.shown >> i & 1 and m.has(self.readout)]
        curves = [(i, m.label, m, self.readout, layers[i], self._at(m)) for i, m in lines]
        m = self._models[self.model]
        return _draw(
            self._readout_in_words(), curves, self.header["chance"], self.header["top"],
            (m, layers[self.model], self._at(m)) if m.has("chosen") else None,
            None if self.scale == "own" else self.header["limits"],
        )  # fmt: skip


@dataclass(frozen=True)
class _Measured:
    """The probes of one model. Mean and standard deviation (NaN for one) are those over draws of the shots."""

    label: str
    layers: list[str]
    depths: list[float]
    readouts: list[str]  # in the order of READOUTS
    accuracy: Quantized  # (readout, layer), mean
    spread: Quantized  # (readout, layer), standard deviation
    by_token: Quantized  # (layer, row, col), mean; without rows where single tokens were not probed
    token_spread: Quantized  # (layer, row, col), standard deviation
    chance: float
    draws: int

    @property
    def grid(self) -> tuple[int, int]:
        """Of the tokens; one cell where single tokens were not probed."""
        rows, columns = self.by_token.codes.shape[1:]
        return max(rows, 1), max(columns, 1)

    def has(self, readout: str) -> bool:
        return readout in self.readouts

    def arrays(self) -> dict[str, np.ndarray | Quantized]:
        return {
            "accuracy": self.accuracy, "spread": self.spread, "by_token": self.by_token,
            "token_spread": self.token_spread,
        }  # fmt: skip

    def line(self, readout: str, at: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy by layer and its standard deviation, 0 to 1, of a read-out or of the token `at`."""
        if readout == "chosen":
            return self.by_token.values[:, *at], self.token_spread.values[:, *at]
        index = self.readouts.index(readout)
        return self.accuracy.values[index], self.spread.values[index]

    def percent(self, readout: str, layer: int, at: tuple[int, int]) -> str:
        """In words: '61.2 ± 1.0 %'."""
        mean, spread = (100 * values[layer] for values in self.line(readout, at))
        return f"{style.number(mean, 1)}{f' ± {style.number(spread, 1)}' if np.isfinite(spread) else ''} %"


def _probes(model: xr.Dataset | Model, images: Images | None) -> xr.Dataset:
    if isinstance(model, xr.Dataset):
        return model
    if images is None:
        raise VitcnnError("models need labelled images to be probed on: explore_probes({'ViT': vit}, images)")
    return layer_probes(model, images)


def _measured(label: str, probes: xr.Dataset) -> _Measured:
    if "accuracy" not in probes:
        raise VitcnnError(
            f"{label} has {', '.join(map(str, probes)) or 'no values'}, not those of `probes.layer_probes`"
        )
    by_token = probes.get("token_accuracy")
    measured = [str(one) for one in probes["readout"].values]
    readouts = [one for one in READOUTS if one in measured]
    accuracy = probes["accuracy"].sel(readout=readouts).transpose("readout", "layer", "draw").values
    tokens = (
        np.zeros((probes.sizes["layer"], 0, 0, 1))
        if by_token is None
        else by_token.transpose("layer", "row", "col", "draw").values
    )
    return _Measured(
        label,
        [str(layer) for layer in probes["layer"].values],
        [round(float(depth), 4) for depth in probes["depth"].values],
        readouts if by_token is None else [*readouts, "chosen"],
        *_over_draws(accuracy),
        *_over_draws(tokens),
        chance=float(probes.attrs["chance"]),
        draws=probes.sizes["draw"],
    )


def _over_draws(accuracy: np.ndarray) -> tuple[Quantized, Quantized]:
    """Mean and standard deviation over the last axis, NaN for one draw."""
    draws = accuracy.shape[-1]
    spread = accuracy.std(axis=-1, ddof=1) if draws > 1 else np.full(accuracy.shape[:-1], np.nan)
    return quantize(accuracy.mean(axis=-1), 0, 1, bits=16), quantize(spread, 0, 1, bits=16)


def _same_chance(models: list[_Measured]) -> None:
    chances = {round(m.chance, 6): m.label for m in models}
    if len(chances) > 1:
        found = ", ".join(f"{label} {100 * chance:.1f} %" for chance, label in chances.items())
        raise VitcnnError(f"the probes differ in chance ({found}): compare models on the same images")


def _limits(arrays: list[np.ndarray]) -> tuple[float, float]:
    """The lowest and the highest value of all, 0 and 1 where there is none."""
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def _top(models: list[_Measured]) -> float:
    """The upper end of the axis of accuracy: room for every line and its band, in steps of a tenth, up to 1."""
    pairs = [pair for m in models for pair in ((m.accuracy, m.spread), (m.by_token, m.token_spread))]
    ends = [mean.values + np.nan_to_num(spread.values) for mean, spread in pairs]
    return min(1.0, float(np.ceil(10 * _limits(ends)[1] + 1e-9)) / 10)


@style.styled
def _draw(
    title: str,
    curves: list[tuple[int, str, _Measured, str, int, tuple[int, int]]],
    chance: float,
    top: float,
    shown: tuple[_Measured, int, tuple[int, int]] | None,
    limits: tuple[float, float] | None,
) -> MplFigure:
    drawing, axes = style.panels(1, 2 if shown else 1, width=7.2 if shown else 4.6, height=3.2)
    lines = axes[0, 0]
    lines.axhline(100 * chance, color=style.GREY, linewidth=0.8, linestyle=":")
    for i, label, m, readout, layer, at in curves:
        mean, spread = (100 * values for values in m.line(readout, at))
        colour, dash = style.CYCLE[i % 5], "--" if i >= 5 else "-"
        lines.plot(m.depths, mean, dash, color=colour, label=label)
        lines.plot(m.depths[layer], mean[layer], "o", color=colour)
        lines.fill_between(m.depths, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    lines.set(title=title, xlabel="depth of the layer, 0 to 1", ylabel="test accuracy, %", xlim=(0, 1.03))
    lines.set_ylim(0, 100 * top)
    drawing.legend(*lines.get_legend_handles_labels(), loc="outside lower center", ncols=4 if shown else 2)
    if shown:
        _draw_map(drawing, axes[0, 1], *shown, limits)
    return drawing


def _draw_map(
    drawing: MplFigure, ax: Axes, m: _Measured, layer: int, at: tuple[int, int], limits: tuple[float, float] | None
) -> None:
    values = 100 * m.by_token.values[layer]
    low, high = (100 * end for end in limits) if limits else (None, None)
    image = style.heat_map(ax, values, cmap=style.SEQUENTIAL, vmin=low, vmax=high)
    ax.invert_yaxis()  # rows of the image run downwards
    ax.set(aspect="equal", xticks=[], yticks=[], title=f"{m.label}, {m.layers[layer]}: single tokens")
    for colour, width in (("black", 2.6), ("white", 1.3)):
        line: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": width, "clip_on": False}
        ax.add_patch(Rectangle((at[1] - 0.5, at[0] - 0.5), 1, 1, **line))
    drawing.colorbar(image, ax=ax, label="test accuracy, %", aspect=14, pad=0.03)
