"""What all explorers share: arrays packed for the browser, state as traits, and what a page is made from."""

import base64
import gzip
import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypedDict

import anywidget
import numpy as np
import traitlets
from IPython import get_ipython
from matplotlib import colormaps

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Model

# What the output of an explorer holds for the static book, see `Explorer.for_page`.
MIME = "application/vnd.vitcnn.explorer+json"
_FOLDER = Path(__file__).parent
_NEEDS = "An interactive view: it needs scripts, and in a notebook a running kernel."


class Still(Protocol):
    """A figure of the same arrays, as `vitcnn_utils.plots` gives it: inline SVG."""

    svg: str


@dataclass(frozen=True)
class Quantized:
    """Values as whole numbers: value = low + step * code; the largest code of the type stands for NaN."""

    codes: np.ndarray  # uint8 or uint16, of the shape of the values
    low: float
    step: float

    @property
    def error(self) -> float:
        """How far a value can be from the one that was measured."""
        return self.step / 2


def quantize(values: Any, low: float | None = None, high: float | None = None, bits: int = 8) -> Quantized:
    """Values of any shape between low and high (their own extremes, if not given) in 2**bits - 1 even steps.

    NaN and infinity get the code for 'no value'; values beyond low or high become low or high.
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

    Plain arrays are uint8 (pixels, codes) or become float32. `arrays(model)` in kit.js reads them back.
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


def measured(
    given: Mapping[str, Any],
    images: Images | None,
    measure: Callable[[Model, Images], Any],
    fits: Callable[[Any], bool],
    form: str,
    most: int | None = None,
) -> dict[str, Any]:
    """Arrays by label: those that were given, and those of models, measured on `images`.

    fits: whether an array is of the form that the explorer shows; form: how an error calls it. VitcnnError where one is
    not, where nothing or more than `most` are given, and for a model without images.
    """
    if not given:
        raise VitcnnError("there is nothing to explore: give at least one labelled model or array")
    if most and len(given) > most:
        raise VitcnnError(f"explorers show up to {most} side by side, not {len(given)}: leave some out")
    arrays = {}
    for label, one in given.items():
        if isinstance(one, Model):
            if images is None:
                raise VitcnnError(f"{label!r} is a model, and models need images to be measured on: give images")
            one = measure(one, images)
        if not fits(one):
            raise VitcnnError(f"{label!r} is not {form}, nor a model: give one of these")
        arrays[str(label)] = one
    return arrays


def numbered(arrays: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The arrays of several models as one mapping: 'map' of the first is 'map0'."""
    return {f"{name}{i}": array for i, one in enumerate(arrays) for name, array in one.items()}


def stops(depths: Sequence[Sequence[float]]) -> list[float]:
    """Depths at which a slider stops: at each, the layers nearest to it differ from those at the stop before.

    depths: of the layers of each model, 0 to 1. Every layer of every model is nearest to one of the stops; a model of
    one layer makes none, unless all are like it.
    """
    several = [model for model in depths if len(model) > 1] or depths
    of_layers: dict[tuple[int, ...], float] = {}
    for depth in sorted({depth for model in several for depth in model}):
        nearest = tuple(int(np.argmin(np.abs(np.asarray(model) - depth))) for model in depths)
        of_layers.setdefault(nearest, depth)
    return list(of_layers.values())


def depths_of(arrays: Any, name: str = "depth") -> list[float]:
    """A coordinate of depths, as exact as an explorer shows it."""
    return [round(float(depth), 4) for depth in arrays[name].values]


def number() -> traitlets.Int:
    """A trait of the state: a whole number from 0; how many there are stands in `choices`."""
    return traitlets.Int(0).tag(sync=True, state=True)


def word(*words: str) -> traitlets.Unicode:
    """A trait of the state: one of these words, unless `choices` has others; the first one at the start."""
    return traitlets.Unicode(words[0]).tag(sync=True, state=True, words=words)


class Page(TypedDict, total=False):
    """What every explorer takes besides its arrays."""

    name: str  # letters, digits, '-' and '_': tells apart several explorers of a kind on one page
    still: Still | None  # the figure of the same arrays, shown where no script runs


class Explorer(anywidget.AnyWidget):
    """An interactive view of measured arrays: an ipywidget in a notebook, and without a kernel in the static book.

    A subclass names its script (`kind`), what it asks (`title`) and its state, traits made by `number` and `word`. The
    script, `kind.js`, follows kit.js.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    color_map: ClassVar[str] = "viridis"  # as in the figures: 'magma' for similarity

    # Which of the traits are the reader's choices: they stand in the page's address.
    state_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    header = traitlets.Dict().tag(sync=True)  # all that the script needs besides the arrays
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
        page: Page,
        **facts: Any,
    ) -> None:
        """Pack what the script needs.

        arrays: for `pack`. choices: what traits of the state may be, a count n for 0 to n - 1, or words. start: the
        state at first, where it is not 0 or the first word. facts: whatever else the script needs, for JSON.
        """
        name = page.get("name", self.kind)
        if not re.fullmatch(r"[\w-]+", name, re.ASCII):
            raise VitcnnError(f"name={name!r}: name an explorer by letters, digits, '-' and '_'")
        places, data = pack(arrays)
        states = {key: trait for key, trait in self.traits(sync=True).items() if trait.metadata.get("state")}
        words = {key: trait.metadata["words"] for key, trait in states.items() if "words" in trait.metadata}
        initial = {key: start.get(key, getattr(self, key)) for key in states}
        header = {"arrays": places, "colors": _colors(self.color_map), "title": self.title,
                  "choices": {**words, **choices}, "start": initial, **facts}  # fmt: skip
        self._still = page.get("still")
        super().__init__(state_names=[*states], name=name, header=_as_json(header), data=data, **_as_json(initial))
        # From now on a value that is not allowed is refused, in Python and from the page.
        self._register_validator(type(self)._check, tuple(states))

    def _check(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        allowed = self.header["choices"][name]
        if isinstance(allowed, int):
            if not 0 <= value < allowed:
                raise VitcnnError(f"{name} must be from 0 to {allowed - 1}, not {value}")
        elif value not in allowed:
            raise VitcnnError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    # --- where it is shown: with a front end it is a widget, without one it is a still and data for the book ----------

    def open(self) -> None:
        """Connect to the front end, if there is one; else a notebook that is executed would keep a dead widget."""
        if _has_front_end():
            super().open()

    @property
    def model_id(self) -> str:
        """The widget's id; a widget that holds this one asks for it, and connects it after all."""
        if self.comm is None:
            super().open()
        return self.comm.comm_id

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"text/plain": self.title, "text/html": self.fallback()}
        widget = super()._repr_mimebundle_(**kwargs) if _has_front_end() else None
        return {**(widget[0] if widget else {MIME: self.for_page()}), **data}, {}

    def fallback(self) -> str:
        """HTML for where no script runs: the still and a line."""
        # Ids of its own, as the figure may stand on the same page.
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", self._still.svg) if self._still else ""
        title = f"<strong>{html.escape(self.title)}</strong>"
        return f'<div class="vx-fallback">{svg}<p>{title} {_NEEDS}</p></div>'

    def for_page(self) -> dict[str, str]:
        """What the static book needs: `payload` is gzip in base64, of the length of a JSON text as 4 bytes
        (little-endian), the text, which holds all traits but `data`, and `data`.
        """
        state = {key: getattr(self, key) for key in self.state_names}
        header = {**self.header, "start": state}
        traits = {"state_names": self.state_names, "name": self.name, "header": header, **state}
        text = json.dumps(traits, sort_keys=True, separators=(",", ":")).encode()
        packed = gzip.compress(len(text).to_bytes(4, "little") + text + self.data, mtime=0)
        script = json.dumps({"esm": self._esm, "css": self._css})
        return {"kind": self.kind, "name": self.name, "script": script, "payload": base64.b64encode(packed).decode()}


def _has_front_end() -> bool:
    """False in a script, and where papermill or nbconvert runs the notebook: there, input cannot be asked for."""
    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {"content": {"allow_stdin": False}}
    return request.get("content", {}).get("allow_stdin", True)


@cache
def _script(kind: str) -> str:
    return "".join((_FOLDER / f"{part}.js").read_text(encoding="utf-8") for part in ("kit", kind))


@cache
def _colors(name: str) -> str:
    """256 colours of a map, 'rrggbb' each: the very ones of the figures."""
    return (colormaps[name](np.arange(256), bytes=True)[:, :3]).astype(np.uint8).tobytes().hex()


def _as_json(value: Any) -> Any:
    """Numbers of numpy as numbers of Python."""
    return json.loads(json.dumps(value, default=lambda one: one.item()))
