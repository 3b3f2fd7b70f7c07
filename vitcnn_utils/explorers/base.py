"""What all explorers share: arrays packed for the browser, state as traits, and what is seen without scripts."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import numpy as np
import traitlets
from matplotlib import colormaps
from matplotlib.figure import Figure as MplFigure

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.plots import style

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Quantized:
    """Values as whole numbers: value = low + step * code; the largest code of the type stands for NaN."""

    codes: np.ndarray  # uint8 or uint16, of the shape of the values
    low: float
    step: float

    @property
    def values(self) -> np.ndarray:
        """What the codes stand for, float64: what the script reads."""
        none = np.iinfo(self.codes.dtype).max
        return np.where(self.codes == none, np.nan, self.low + self.step * self.codes.astype(np.float64))

    @property
    def error(self) -> float:
        """How far a value can be from the one that was measured."""
        return self.step / 2


def quantize(values: Any, low: float | None = None, high: float | None = None, bits: int = 8) -> Quantized:
    """Values of any shape between low and high (their own extremes, if not given) in 2**bits - 1 even steps.

    NaN and infinity have no code but the one for 'no value'; values beyond low or high become low or high.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    ends = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    low, high = (float(end if given is None else given) for given, end in zip((low, high), ends, strict=True))
    none = 2**bits - 1
    step = (high - low) / (none - 1) or 1.0
    codes = np.clip(np.rint((np.where(np.isfinite(values), values, low) - low) / step), 0, none - 1)
    codes[~np.isfinite(values)] = none
    return Quantized(codes.astype({8: np.uint8, 16: np.uint16}[bits]), low, step)


def pack(arrays: Mapping[str, np.ndarray | Quantized]) -> tuple[dict[str, dict[str, Any]], bytes]:
    """All arrays one after the other, each at a multiple of 4 bytes, and where each lies; little-endian.

    Plain arrays must be of uint8 (pixels, codes) or become float32. `arrays(model)` in kit.js reads it back.
    """
    header, parts, offset = {}, [], 0
    for name, array in arrays.items():
        codes = array.codes if isinstance(array, Quantized) else np.asarray(array)
        if codes.dtype not in (np.uint8, np.uint16):
            codes = codes.astype("<f4")
        entry: dict[str, Any] = {"type": codes.dtype.str[1:], "shape": list(codes.shape), "offset": offset}
        if isinstance(array, Quantized):
            entry |= {"low": array.low, "step": array.step}
        header[name] = entry
        raw = np.ascontiguousarray(codes).tobytes()
        parts.append(raw + bytes(-len(raw) % 4))
        offset += len(parts[-1])
    return header, b"".join(parts)


class Explorer(anywidget.AnyWidget):
    """An interactive view of measured arrays: an ipywidget in a notebook, and without a kernel in the static book.

    A subclass names its script (`kind`), its state (traits tagged `sync=True, state=True`, whole numbers and words),
    and what is seen of it without scripts: `still` and `sentence`. The script, `kind.js`, follows kit.js.
    """

    kind: ClassVar[str]
    color_maps: ClassVar[tuple[str, ...]] = (style.SIMILARITY, style.SEQUENTIAL)

    # Which of the traits are the reader's choices: they live in the page's address.
    state_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)  # tells apart several explorers of one kind on a page
    header = traitlets.Dict().tag(sync=True)  # 'arrays': see `pack`; 'colors': by name; and facts of the explorer's own
    data = traitlets.Bytes().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "kind" in vars(cls):  # not the classes that ipywidgets derives when it adds traits
            cls._esm = _script(cls.kind)
            cls._css = (_FOLDER / "kit.css").read_text(encoding="utf-8")
        super().__init_subclass__(**kwargs)

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray | Quantized],
        choices: Mapping[str, int | Sequence[str]],
        start: Mapping[str, int | str],
        name: str | None = None,
        **facts: Any,
    ) -> None:
        """Pack what the script needs.

        arrays: for `pack`. choices: what each trait of the state may be, a count n for 0 to n - 1, or words.
        start: the state at first. name: see the trait; None: the kind. facts: whatever else the script needs, for JSON.
        """
        places, data = pack(arrays)
        colors = {one: _colors(one) for one in self.color_maps}
        header = as_json({"arrays": places, "colors": colors, "choices": choices, **facts})
        names = [key for key, trait in self.traits(sync=True).items() if trait.metadata.get("state")]
        super().__init__(state_names=names, name=name or self.kind, header=header, data=data)
        # From now on a value that is not allowed is refused, in Python and from the page.
        self._register_validator(type(self)._check, tuple(names))
        for key, value in start.items():
            setattr(self, key, value)

    def _check(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        allowed = self.header["choices"][name]
        if isinstance(allowed, int):
            if not 0 <= value < allowed:
                raise VitcnnError(f"{name} must be from 0 to {allowed - 1}, not {value}")
        elif value not in allowed:
            raise VitcnnError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    def sentence(self) -> str:
        """What the explorer shows at its present state: word for word the sentence below the explorer."""
        raise NotImplementedError

    def still(self) -> MplFigure:
        """What the explorer shows at its present state, as a drawing of the book's style."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            raise VitcnnError("ipywidgets cannot show widgets here: run this in a notebook")
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/html": self.fallback()}, metadata

    def fallback(self) -> str:
        """HTML for readers without scripts and for print: the still picture and the sentence."""
        sentence = self.sentence()
        picture = style.inline_svg(self.still(), f"still-{self.name}", sentence)
        return f'<div class="vx-fallback">{picture}<p>{html.escape(sentence)}</p></div>'


@cache
def _script(kind: str) -> str:
    return "".join((_FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in ("kit", kind))


@cache
def _colors(name: str) -> str:
    """256 colours of a map, 'rrggbb' each: the very ones of the figures."""
    return (colormaps[name](np.arange(256), bytes=True)[:, :3]).astype(np.uint8).tobytes().hex()


def as_json(value: Any) -> Any:
    """Numbers of numpy as numbers of Python, for facts that go into the header."""
    return json.loads(json.dumps(value, default=lambda one: one.item()))
