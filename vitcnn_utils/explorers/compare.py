"""Models of unlike depth and grid, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitcnn_utils.errors import VitcnnError


def steps(depths: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Stops of a slider over depth: {'depth': 0 to 1, 'shown': of each model the layer nearest to there}.

    depths: of the measured layers, for each model. Every layer of every model is at one of the stops, and no two stops
    after one another show the same. A model of one layer shows it at all stops and makes none, unless all are like it.
    """
    several = [model for model in depths if len(model) > 1] or depths
    found: list[dict[str, Any]] = []
    for depth in sorted({float(depth) for model in several for depth in model}):
        shown = [int(np.argmin(np.abs(np.asarray(model) - depth))) for model in depths]
        if not found or found[-1]["shown"] != shown:
            found.append({"depth": depth, "shown": shown})
    return found


def place(index: int, cells: int, others: int) -> int:
    """Where the middle of cell `index` of `cells` lies among `others` cells over the same image: `cellAt` in kit.js."""
    return (2 * index + 1) * others // (2 * cells)


def finest(grids: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The grid on which a token is chosen: no grid has more rows or columns."""
    rows, columns = zip(*grids, strict=True)
    return max(rows), max(columns)


def require_some(models: Sequence[Any], call: str, most: int | None = None) -> None:
    """VitcnnError unless there is a model, and no more than can be shown."""
    if not models:
        raise VitcnnError(f"there is nothing to explore: give {call} at least one labelled model or array")
    if most and len(models) > most:
        raise VitcnnError(f"{call} shows up to {most} side by side, not {len(models)}: leave some out")
