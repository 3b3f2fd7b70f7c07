"""The explorer of Figure 6: how much of the image does one place depend on?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import traitlets
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure as MplFigure
from matplotlib.patches import Circle

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import compare
from vitcnn_utils.explorers.base import Explorer, Quantized, quantize
from vitcnn_utils.images import Images
from vitcnn_utils.measures.receptive_field import effective_receptive_fields, radius_of_mass
from vitcnn_utils.models.facts import Model
from vitcnn_utils.plots import style
from vitcnn_utils.plots.locality import DARKEST, FIELD, layer_title

MOST = 4  # models side by side
_BYTES = 800_000  # of all maps together, a byte for each of their cells
_CALL = "explore_receptive_field"
_KINDS = {"mlp": "MLP", "residual": "units"}
_SCALES = {"log": "logarithmic", "linear": "linear"}


def explore_receptive_field(
    fields: Mapping[str, xr.DataArray | Model],
    images: Images | None = None,
    before: Mapping[str, xr.DataArray] | None = None,
    channels: int | None = 8,
    name: str | None = None,
) -> "ReceptiveFieldExplorer":
    """Effective receptive fields of one to four models side by side, by depth (Figs 6 and C.4).

    fields: by label, `receptive_field.effective_receptive_fields` after the residual addition; or models, which are
    then measured on `images`, after and before it, by `channels` channels an image (see there; None is exact and slow).
    before: by the same labels, the fields before the addition; None: only those after it are shown.
    name: tells apart two of these on one page. Raises VitcnnError for no model, more than four, models without images,
    arrays that are no receptive fields, or other labels in `before`.
    """
    compare.require_some(list(fields), _CALL, MOST)
    models = {label: model for label, model in fields.items() if isinstance(model, Model)}
    if not models:
        return ReceptiveFieldExplorer(fields, before, name)
    if images is None:
        raise VitcnnError(f"models need images to be measured on: {_CALL}({{'ViT': vit, 'CNN': cnn}}, images)")
    if len(models) < len(fields) or before is not None:
        raise VitcnnError(f"give {_CALL} models and images, or arrays that are already measured, not both")
    after, added = (
        {
            label: effective_receptive_fields(model, images, channels=channels, before_addition=is_before)
            for label, model in models.items()
        }
        for is_before in (False, True)
    )
    return ReceptiveFieldExplorer(after, added, name)


class ReceptiveFieldExplorer(Explorer):
    """See `explore_receptive_field`. Its state: a stop in depth, which side of the addition, and how colours run."""

    kind = "receptive_field"
    color_maps = (FIELD,)

    layer = traitlets.Int(0).tag(sync=True, state=True)  # which of header['steps']: by depth, over all models
    addition = traitlets.Unicode("after").tag(sync=True, state=True)  # 'after' the residual addition, or 'before'
    scale = traitlets.Unicode("log").tag(sync=True, state=True)  # of the colours and the profile: 'log' or 'linear'

    def __init__(
        self, after: Mapping[str, Any], before: Mapping[str, Any] | None = None, name: str | None = None
    ) -> None:
        if before is not None and set(before) != set(after):
            raise VitcnnError(f"fields and before must have the same labels, not {[*after]} and {[*before]}")
        sides = {"after": after} if before is None else {"after": after, "before": {key: before[key] for key in after}}
        for label, field in [item for side in sides.values() for item in side.items()]:
            _check(label, field)
        most = int((_BYTES / sum(field.sizes["layer"] for side in sides.values() for field in side.values())) ** 0.5)
        self._labels = list(after)
        self._models = {side: [_measured(f, most) for f in fields.values()] for side, fields in sides.items()}
        self._steps = _steps(self._models)
        all_models = [m for side in self._models.values() for m in side]
        super().__init__(
            {f"{key}_{side}{i}": array for side, found in self._models.items() for i, m in enumerate(found)
             for key, array in m.arrays().items()},
            choices={"layer": len(self._steps), "addition": list(self._models), "scale": ["log", "linear"]},
            start={"layer": len(self._steps) // 4},
            name=name,
            labels=self._labels,
            steps=self._steps,
            layers={side: [m.facts() for m in found] for side, found in self._models.items()},
            uniform=[m.uniform for m in self._models["after"]],
            darkest=DARKEST,
            farthest=max(m.profile.shape[1] for m in all_models),
            largest=1.05 * max(m.uniform for m in all_models),
            error=float(10 ** max(m.maps.error for m in all_models) - 1),
            averaged=max(m.size[0] / m.maps.codes.shape[1] for m in all_models),
        )  # fmt: skip

    def _shown(self) -> list[tuple["_Measured", int]]:
        """Of each model, what is shown: the measured fields and which layer of them."""
        shown = self._steps[self.layer]["shown"][self.addition]
        return list(zip(self._models[self.addition], shown, strict=True))

    def sentence(self) -> str:
        parts = [
            f"{label} ({m.words[i]}): {m.reach(i)}." for label, (m, i) in zip(self._labels, self._shown(), strict=True)
        ]
        depth = style.number(self._steps[self.layer]["depth"])
        return f"Near depth {depth}, {self.addition} the addition. {' '.join(parts)} Scale: {_SCALES[self.scale]}."

    def still(self) -> MplFigure:
        return _draw(self._labels, self._shown(), self.scale, self._steps[self.layer]["depth"])


@dataclass(frozen=True)
class _Measured:
    """The receptive fields of one model on one side of the addition, L layers of H x W pixels, and their sizes."""

    maps: Quantized  # (L, h, w): log10 of the share of the largest value, between that of DARKEST and 0
    profile: np.ndarray  # (L, R), float32: mean share of the largest value, of pixels r to r + 1 px from the centre
    radius: np.ndarray  # (L,), float32: of the disc that holds half of the field, px
    uniform: float  # the same radius of a field that is everywhere alike
    size: tuple[int, int]  # H, W
    centre: np.ndarray  # (L, 2), row and column in px
    depths: list[float]
    kinds: list[str]
    words: list[str]  # 'attention 3, blocks.2.attn'

    def arrays(self) -> dict[str, np.ndarray | Quantized]:
        return {"map": self.maps, "profile": self.profile, "radius": self.radius, "centre": self.centre}

    def facts(self) -> dict[str, Any]:
        return {"size": self.size, "depths": self.depths, "kinds": self.kinds, "words": self.words}

    def reach(self, layer: int) -> str:
        """How far the field of a layer reaches, in words."""
        if not np.isfinite(self.radius[layer]):
            return "no field, as nothing here depends on the image"
        radius, uniform = (style.number(value, 1) for value in (self.radius[layer], self.uniform))
        return f"half of the field lies within {radius} px of its centre, of a uniform one within {uniform} px"


def _check(label: str, field: Any) -> None:
    if not isinstance(field, xr.DataArray) or set(field.dims) != {"layer", "y", "x"} or "centre_y" not in field.coords:
        raise VitcnnError(
            f"{label!r} is no receptive field: give what `effective_receptive_fields` returns, or a model"
        )


def _measured(fields: xr.DataArray, most: int) -> _Measured:
    """What is shown of fields (layer, y, x), their maps at most `most` cells a side."""
    fields = fields.transpose("layer", "y", "x")
    largest = fields.values.max((1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):
        share = fields.values / largest  # NaN where the field is 0 everywhere
    rows, columns = (_means(side, _cells(side, most)) for side in share.shape[1:])
    maps = np.log10(np.maximum(rows @ share @ columns.T, DARKEST))
    return _Measured(
        maps=quantize(maps, np.log10(DARKEST), 0),
        profile=_profiles(fields.copy(data=share)),
        radius=radius_of_mass(fields, 0.5).values.astype(np.float32),
        uniform=float(radius_of_mass(xr.ones_like(fields[-1:]), 0.5).astype(np.float32)[0]),
        size=(share.shape[1], share.shape[2]),
        centre=np.stack([fields["centre_y"].values, fields["centre_x"].values], axis=1).astype(np.float32),
        depths=[float(depth) for depth in fields["depth"].values],
        kinds=[_KINDS.get(kind, str(kind)) for kind in fields["kind"].values],
        words=[_words(field) for field in fields],
    )


def _words(field: xr.DataArray) -> str:
    """One layer by the figure's title and by its name, if these differ."""
    title, name = layer_title(field), str(field["layer"].item())
    return title if title == name else f"{title}, {name}"


def _cells(side: int, most: int) -> int:
    """Into how many cells a side of a map is averaged: if it can be, a whole number of pixels each."""
    if side <= most:
        return side
    return next((n for n in range(most, most // 2, -1) if side % n == 0), most)


def _means(side: int, cells: int) -> np.ndarray:
    """(cells, side): which share of each cell each pixel is; its product with a row of pixels is the cells' means."""
    edges = np.linspace(0, side, cells + 1)
    pixels = np.arange(side)
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(inside, 0) * cells / side


def _profiles(share: xr.DataArray) -> np.ndarray:
    """Mean of each field (layer, y, x) over rings 1 px wide around its centre: (layer, ring); NaN: no pixel there."""
    far = np.hypot(share.y - share.centre_y, share.x - share.centre_x).transpose("layer", "y", "x").values
    ring = far.astype(int)
    profiles = np.full((len(ring), ring.max() + 1), np.nan, np.float32)
    for one, rings, values in zip(profiles, ring, share.values, strict=True):
        count = np.bincount(rings.ravel(), minlength=len(one))
        total = np.bincount(rings.ravel(), values.ravel(), minlength=len(one))
        one[count > 0] = total[count > 0] / count[count > 0]
    return profiles


def _steps(models: Mapping[str, Sequence[_Measured]]) -> list[dict[str, Any]]:
    """Stops of the slider: {'depth': 0 to 1, 'shown': side -> of each model the layer nearest to there}."""
    sides = list(models.values())
    together = [sorted({depth for side in sides for depth in side[i].depths}) for i in range(len(sides[0]))]
    return [
        {
            "depth": step["depth"],
            "shown": {
                side: [int(np.argmin(np.abs(np.subtract(m.depths, step["depth"])))) for m in found]
                for side, found in models.items()
            },
        }
        for step in compare.steps(together)
    ]


@style.styled
def _draw(labels: Sequence[str], shown: Sequence[tuple[_Measured, int]], scale: str, depth: float) -> MplFigure:
    n = len(labels)
    drawing, axes = style.panels(1, n + 1, width=2.1 * n + 3.1, height=2.6, width_ratios=[*[2] * n, 2.6])
    norm = LogNorm(DARKEST, 1) if scale == "log" else Normalize(0, 1)
    for ax, label, (m, layer) in zip(axes[0], labels, shown, strict=False):
        image = _draw_map(ax, m, layer, norm)
        ax.set_title(f"{label}: {m.words[layer].partition(',')[0]}", fontsize=9)
    drawing.colorbar(image, ax=list(axes[0, :n]), location="bottom", shrink=0.6, label="share of the largest value")
    for colour, label, (m, _) in zip(style.CYCLE, labels, shown, strict=False):
        axes[0, n].plot(m.depths, m.radius, "o", color=colour, label=label)
    axes[0, n].axvline(depth, color=style.GREY, linewidth=1)
    axes[0, n].set(xlabel="depth", title="radius with half the field (px)", xlim=(-0.03, 1.03), ylim=(0, None))
    axes[0, n].legend()
    return drawing


def _draw_map(ax: Axes, m: _Measured, layer: int, norm: Normalize) -> Any:
    height, width = m.size
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_facecolor(style.GREY)  # where there is no field
    image = ax.imshow(
        10 ** m.maps.values[layer], cmap=FIELD, norm=norm, extent=(0, width, height, 0), interpolation="none"
    )
    y, x = m.centre[layer]
    if np.isfinite(m.radius[layer]):
        ax.add_patch(Circle((x, y), m.radius[layer], fill=False, edgecolor="white", linewidth=1.2))
    return image
