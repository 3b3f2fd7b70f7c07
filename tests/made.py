"""Arrays as the measures give them, made so that their answer is known."""

from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.measures.localization import DIMS
from vitcnn_utils.measures.residual import AVERAGES

SPATIAL = 4
HIGH_THEN_LOW = [8.0] * 4 + [2.0] * 4
LOW_THEN_HIGH = HIGH_THEN_LOW[::-1]


def vit_ratios(cls: Any, spatial: Any, prefix: int = 1) -> xr.Dataset:
    """As `residual.skip_ratios` gives; cls, spatial: ratio by block, (block,) or (block, branch)."""
    cls, spatial = (np.broadcast_to(np.reshape(v, (len(v), -1)), (len(v), 2)) for v in (cls, spatial))
    values = np.stack([cls] * prefix + [spatial] * SPATIAL, axis=-1)
    return ratios(values, ["attention", "mlp"], prefix, [False] * len(cls))


def cnn_ratios(values: Any, projected: Any) -> xr.Dataset:
    return ratios(np.reshape(values, (-1, 1, 1)), ["residual"], 0, projected)


def ratios(values: np.ndarray, branches: list[str], prefix: int, projected: Any) -> xr.Dataset:
    L, _, T = values.shape
    names = (*AVERAGES, "cosine_branch", "cosine_sum")
    return xr.Dataset(
        {name: (("block", "branch", "token"), values.copy()) for name in names},
        coords={
            "block": np.arange(L), "branch": branches, "token": np.arange(T),
            "part": ("token", ["CLS", "register 0", "register 1"][:prefix] + ["spatial"] * (T - prefix)),
            "depth": ("block", np.linspace(0.1, 1, L)), "projected": ("block", list(projected)),
        },
        attrs={"model": "a model", "weights": "w"},
    )  # fmt: skip


def divided(across: float, within: float = 0.9, block: int = 1) -> xr.DataArray:
    """CKA of four blocks of two layers: `within` on one side of where `block` begins, `across` between the sides.

    Only block outputs have it: the other layers count for nothing.
    """
    blocks = np.array([-1, 0, 0, 1, 1, 2, 2, 3, 3, -1])
    kinds = ["stem", *["mlp", "block"] * 4, "final norm"]
    after = blocks >= block
    values = np.where(after[:, None] == after, within, across)
    others = np.array(kinds) != "block"
    values[others] = values[:, others] = 0.123
    np.fill_diagonal(values, 1)
    coords = {f"{name}_{side}": (f"layer_{side}", value) for side in "ab"
              for name, value in (("block", blocks), ("kind", kinds))}  # fmt: skip
    return xr.DataArray(values, dims=("layer_a", "layer_b"), coords=coords)


def subsets_of(distance: Any, cka: Any, pooled: float = 0.0) -> xr.Dataset:
    """Groups of heads with their CKA (subset, layer), as `attention.head_subset_similarity` gives them.

    pooled: what share of the CKA is left with tokens averaged.
    """
    cka = np.array(cka, dtype=float)
    variables = {"cka": (("subset", "layer"), cka), "cka_pooled": (("subset", "layer"), pooled * cka)}
    coords = {"distance": ("subset", np.array(distance, dtype=float)), "layer": ["a", "b"][: cka.shape[1]]}
    return xr.Dataset(variables, coords, {"size": 4})


def token_map(own: float = 0.5, others: float = 0.1, grid: int = 5, border: float = 0.0) -> xr.DataArray:
    """CKA `own` with the own patch, `others` with the rest, and `border` more between cells of the border."""
    cells = np.arange(grid * grid)
    values = np.where(cells[:, None] == cells, own, others)
    row, col = np.divmod(cells, grid)
    edge = (row % (grid - 1) == 0) | (col % (grid - 1) == 0)
    values = values + border * (edge[:, None] & edge & (cells[:, None] != cells))
    at = np.arange(grid)
    return xr.DataArray(values.reshape([grid] * 4), dims=DIMS, coords=dict.fromkeys(DIMS, at))


def layers(*maps: xr.DataArray) -> xr.DataArray:
    stacked = xr.concat(maps, "layer")
    return stacked.assign_coords(
        layer=[f"l{i}" for i in range(len(maps))], depth=("layer", np.linspace(0, 1, len(maps)))
    )


def scattered(probes: xr.Dataset, by: float = 0.1, readout: str = "") -> xr.Dataset:
    """Probes whose accuracy, of all read-outs or one, is `by` higher or lower by draw, on average the same."""
    draws = by * np.resize([1, -1], probes.sizes["draw"])
    change = xr.DataArray(draws - draws.mean(), dims="draw")
    if readout:
        change = change * (probes["readout"] == readout)
    return probes.assign(accuracy=probes["accuracy"] + change)


def elsewhere() -> xr.DataArray:
    """Every token is most like the first patch."""
    values = token_map()
    values[:, :, 0, 0] = 0.9
    return values


def probe_curves(draws: int = 4, **curves: Any) -> xr.Dataset:
    """As `probes.layer_probes` gives: readout -> accuracy by layer, a hundredth up or down from draw to draw."""
    noise = 0.001 * (-1) ** np.arange(draws)
    accuracy = np.stack([np.asarray(curve)[:, None] + noise for curve in curves.values()], axis=1)
    L = accuracy.shape[0]
    names = [name.replace("_", " ") for name in curves]
    dataset = xr.Dataset(
        {"accuracy": (("layer", "readout", "draw"), accuracy)},
        coords={"layer": [f"l{i}" for i in range(L)], "depth": ("layer", np.linspace(0, 1, L)), "readout": names},
        attrs={"chance": 0.1, "shots": 10},
    )
    if "token" in names:
        dataset["token_accuracy"] = dataset["accuracy"].sel(readout="token", drop=True).expand_dims(row=2, col=2)
        dataset["token_accuracy"] = dataset["token_accuracy"].transpose("layer", "row", "col", "draw")
    return dataset
