"""The explorer of Figure 7: does a token come through the skip, or is it remade by the branch?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import traitlets
import xarray as xr
from matplotlib.figure import Figure as MplFigure

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import compare
from vitcnn_utils.explorers.base import Explorer
from vitcnn_utils.images import Images
from vitcnn_utils.measures.residual import AVERAGES, skip_ratios
from vitcnn_utils.models.facts import Model
from vitcnn_utils.plots import style
from vitcnn_utils.plots.skips import BRANCHES

_CALL = "explore_skip_ratios"
_LABEL = "‖z‖ / ‖f(z)‖"
_OTHERS = (style.GREEN, style.RED, style.GREY)  # models without tokens


def explore_skip_ratios(
    ratios: Mapping[str, xr.Dataset | Model],
    images: Images | None = None,
    grid: tuple[int, int] | None = None,
    name: str | None = None,
) -> "SkipRatiosExplorer":
    """How much of each token comes through the skip, at its place in the image, by block and branch (Figs 7 and E.1).

    ratios: by label, `residual.skip_ratios` results, or models, which are then measured on `images`. One of those with
    tokens (transformers) is shown at a time, at least one is needed; those without (CNNs) are lines beside it.
    grid: rows and columns of the spatial tokens; None: those of the model, or of a result the square that they fill.
    name: tells apart two of these on one page. Raises VitcnnError for no transformer, models without images, tokens
    that do not fill the grid, or anything else than ratios.
    """
    compare.require_some(list(ratios), _CALL)
    measured = {label: _dataset(label, one, images) for label, one in ratios.items()}
    tokens = {label: one for label, one in measured.items() if one.sizes["token"] > 1}
    if not tokens:
        raise VitcnnError(f"none of {', '.join(ratios)} has tokens: give {_CALL} at least one transformer")
    models = []
    for label, one in tokens.items():
        source = ratios[label]
        models.append(_measured(label, one, grid or (source.grid if isinstance(source, Model) else None)))
    lines = {label: one for label, one in measured.items() if label not in tokens}
    return SkipRatiosExplorer(models, lines, name)


class SkipRatiosExplorer(Explorer):
    """See `explore_skip_ratios`. Its state: which model, block, branch, token and average."""

    kind = "skip_ratios"
    color_maps = (style.SEQUENTIAL,)

    model = traitlets.Int(0).tag(sync=True, state=True)  # which of the models with tokens
    block = traitlets.Int(0).tag(sync=True, state=True)  # counted from 0, as in the figures
    branch = traitlets.Unicode("attention").tag(sync=True, state=True)  # 'attention' or 'mlp'
    token = traitlets.Int(0).tag(sync=True, state=True)  # CLS and the like first, then row by row
    average = traitlets.Unicode("ratio").tag(sync=True, state=True)  # over images: see measures.residual.AVERAGES

    def __init__(self, models: list["_Measured"], lines: Mapping[str, xr.Dataset], name: str | None = None) -> None:
        self._models, self._lines = models, lines
        averages = [
            key for key in AVERAGES if all(key in m.values for m in models) and all(key in u for u in lines.values())
        ]
        arrays = {f"{key}{i}": m.values[key] for i, m in enumerate(models) for key in averages}
        arrays |= {f"mean_{key}{i}": m.means[key] for i, m in enumerate(models) for key in averages}
        arrays |= {f"unit_{key}{i}": _units(u, key) for i, u in enumerate(lines.values()) for key in averages}
        first = models[0]
        super().__init__(
            arrays,
            choices={
                "model": len(models), "block": max(len(m.blocks) for m in models), "branch": list(BRANCHES),
                "token": max(m.tokens for m in models), "average": averages,
            },
            start={
                "block": len(first.blocks) // 2,
                "token": len(first.prefix) + first.grid[0] // 2 * first.grid[1] + first.grid[1] // 2,
            },
            name=name,
            labels=[m.label for m in models],
            grids=[m.grid for m in models],
            prefix=[m.prefix for m in models],
            blocks=[m.blocks for m in models],
            limits=[{key: m.limits(key) for key in averages} for m in models],
            units=[
                {"label": label, "blocks": u["block"].values.tolist(), "projected": u["projected"].values.tolist()}
                for label, u in lines.items()
            ],
            branches=BRANCHES,
            averages={key: AVERAGES[key] for key in averages},
            quantity=_LABEL,
        )  # fmt: skip

    def _shown(self) -> tuple["_Measured", int, int, int]:
        """The model, and in its arrays the block, branch and token: the last there is, where a model has fewer."""
        m = self._models[self.model]
        branch = list(BRANCHES).index(self.branch)
        return m, min(self.block, len(m.blocks) - 1), branch, min(self.token, m.tokens - 1)

    def sentence(self) -> str:
        m, block, branch, token = self._shown()
        values, mean = m.values[self.average][block, branch], m.means[self.average][block, branch]
        others = [f"{m.word(0)} {style.number(values[0])}"] if m.prefix and token != 0 else []
        others.append(f"mean of spatial tokens {style.number(mean)}")
        return (
            f"{m.label}, block {m.blocks[block]}, {BRANCHES[self.branch]}: the ratio of skip to branch is "
            f"{style.number(values[token])} for {m.word(token)}; {', '.join(others)} ({AVERAGES[self.average]})."
        )

    def still(self) -> MplFigure:
        return _draw(*self._shown(), self.average, self._lines)


@dataclass(frozen=True)
class _Measured:
    """The ratios of one model with tokens: B blocks, the branches of BRANCHES, T tokens, first the `prefix` ones."""

    label: str
    grid: tuple[int, int]
    prefix: list[str]
    blocks: list[int]
    values: dict[str, np.ndarray]  # by average, (B, 2, T), float32
    means: dict[str, np.ndarray]  # by average, (B, 2), float32: mean over spatial tokens

    @property
    def tokens(self) -> int:
        return len(self.prefix) + self.grid[0] * self.grid[1]

    def limits(self, average: str) -> dict[str, tuple[float, float]]:
        """Ends of the colours by branch, the same for all blocks: the extremes of the spatial tokens."""
        spatial = self.values[average][:, :, len(self.prefix) :]
        return {branch: _ends(spatial[:, i]) for i, branch in enumerate(BRANCHES)}

    def word(self, token: int) -> str:
        """What a token is called."""
        if token < len(self.prefix):
            return self.prefix[token]
        row, column = divmod(token - len(self.prefix), self.grid[1])
        return f"token ({row}, {column}) of {self.grid[0]} × {self.grid[1]}"


def _ends(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _dataset(label: str, one: Any, images: Images | None) -> xr.Dataset:
    if isinstance(one, Model):
        if images is None:
            raise VitcnnError(f"models need images to be measured on: {_CALL}({{{label!r}: model}}, images)")
        return skip_ratios(one, images)
    if not isinstance(one, xr.Dataset) or "ratio" not in one or set(one["ratio"].dims) != {"block", "branch", "token"}:
        raise VitcnnError(f"{label!r} has no skip ratios: give what `residual.skip_ratios` returns, or a model")
    return one


def _measured(label: str, ratios: xr.Dataset, grid: tuple[int, int] | None) -> _Measured:
    ratios = ratios.transpose("block", "branch", "token").reindex(branch=list(BRANCHES))
    spatial = ratios["part"].values == "spatial"
    count = int(spatial.sum())
    rows, columns = grid or (int(count**0.5), int(count**0.5))
    if rows * columns != count:
        raise VitcnnError(f"{label!r} has {count} spatial tokens: give grid=(rows, columns) that they fill")
    values = {key: ratios[key].values.astype(np.float32) for key in AVERAGES if key in ratios}
    means = {key: ratios[key].isel(token=spatial).mean("token").values.astype(np.float32) for key in values}
    prefix = ratios["part"].values[~spatial].tolist()
    return _Measured(label, (rows, columns), prefix, ratios["block"].values.tolist(), values, means)


def _units(ratios: xr.Dataset, average: str) -> np.ndarray:
    """A model without tokens, (block,): its only branch."""
    return ratios[average].isel(branch=0, token=0).values.astype(np.float32)


@style.styled
def _draw(
    m: _Measured, block: int, branch: int, token: int, average: str, lines: Mapping[str, xr.Dataset]
) -> MplFigure:
    drawing, axes = style.panels(1, 2, width=7, height=2.9, width_ratios=(1, 1.5))
    left, right = axes[0]
    kind = list(BRANCHES)[branch]
    low, high = m.limits(average)[kind]
    values = np.where(np.isfinite(m.values[average]), m.values[average], np.nan)
    image = style.heat_map(
        left, values[block, branch, len(m.prefix) :].reshape(m.grid), cmap=style.SEQUENTIAL, vmin=low, vmax=high
    )
    left.invert_yaxis()  # rows of the image run downwards
    left.set(
        title=f"{BRANCHES[kind]}, block {m.blocks[block]}", aspect="equal", xticks=[], yticks=[], facecolor=style.GREY
    )
    drawing.colorbar(image, ax=left, label=_LABEL)
    colour = style.CYCLE[branch]
    if m.prefix:
        right.plot(m.blocks, values[:, branch, 0], "o-", color=colour, label=m.word(0))
    mean = m.means[average][:, branch]
    right.plot(m.blocks, np.where(np.isfinite(mean), mean, np.nan), "s--", color=colour, label="mean of spatial tokens")
    if token or not m.prefix:
        right.plot(m.blocks, values[:, branch, token], "^-", color=style.PURPLE, label=m.word(token))
    for i, (label, ratios) in enumerate(lines.items()):
        units = _units(ratios, average)
        other = _OTHERS[i % len(_OTHERS)]
        right.plot(ratios["block"], np.where(np.isfinite(units), units, np.nan), "D:", color=other, label=label)
    right.axvline(m.blocks[block], color=style.GREY, linewidth=1)
    right.set(xlabel="block or unit", title=f"{m.label}: {AVERAGES[average]}", ylim=(0, None))
    right.legend()
    return drawing
