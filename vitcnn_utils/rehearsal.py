"""What a notebook would do, found out without doing it.

Its own cells are run, from top to bottom, with the parameters of an edition; but models are untrained, images are
blank, measures only note what they are asked for, and what they would give is a stand-in, as is all that is computed
from it: claims, plots, explorers. So the plan of an edition is written down nowhere but in the notebooks, and cannot go
stale.
"""

import ast
import builtins
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from vitcnn_utils.book import default_parameters
from vitcnn_utils.data import Images
from vitcnn_utils.errors import VitcnnError

_PACKAGE = __name__.partition(".")[0]
_FIGURE = re.compile(r"fig-(\d+)")


@dataclass(frozen=True, eq=False)
class Request:
    """One call of a measure: its name, such as 'cka.layer_similarity', and all its arguments, defaults too."""

    measure: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


@dataclass
class Section:
    """What stands under one heading of a notebook.

    expected: the numbers of the figures that its cells can draw; drawn: of those that they do draw here.
    reasons: what the notebook says where it leaves something out, or why it stops.
    """

    title: str
    expected: set[int] = field(default_factory=set)
    drawn: set[int] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


@dataclass
class Chapter:
    """A notebook's sections, what it loads, and the error at which it stops, if it does.

    models, images: the arguments of each call of `load_model` and `load_images`.
    """

    name: str
    sections: list[Section] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


def rehearse(
    notebook: Path,
    parameters: dict[str, Any],
    load_model: Callable[..., Any],
    load_images: Callable[..., Any],
    attempt: Callable[[Request], None],
) -> Chapter:
    """What the notebook would do with these parameters, of which it takes those it has.

    load_model, load_images: called in place of the package's, with the same arguments.
    attempt: called with each request, to raise the VitcnnError that the measure would raise.
    """
    stage = _Stage(Chapter(notebook.stem), {"load_model": load_model, "load_images": load_images}, attempt)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    own = {name: value for name, value in parameters.items() if name in default_parameters(notebook)}
    for cell in cells:
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if cell["cell_type"] == "markdown":
            stage.head(source)
        elif cell["cell_type"] == "code" and "install" not in tags:
            stage.run(source, f"{notebook.stem}, cell {cell.get('id', '')}")
            if "parameters" in tags:
                # As papermill hands them over, for which the keys of a mapping are text.
                stage.names |= json.loads(json.dumps(own))
    return stage.chapter


class StandIn(str):
    """What takes the place of a value that was not computed: asked for anything, it gives itself; a loop is empty.

    It is an empty text too, for values that are put together to one.
    """

    def __getattr__(self, name: str) -> "StandIn":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> "StandIn":
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __exit__(self, *_: Any) -> None:
        pass

    def __bool__(self) -> bool:
        return True

    def __format__(self, _: str) -> str:
        return ""

    def __hash__(self) -> int:
        return id(self)

    __getitem__ = __enter__ = __call__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __call__
    __or__ = __ror__ = __and__ = __rand__ = __neg__ = __call__


STAND_IN = StandIn()


class _Stage:
    """Where the cells of a notebook are run; its `import` brings stand-ins."""

    def __init__(
        self, chapter: Chapter, loaders: dict[str, Callable[..., Any]], attempt: Callable[[Request], None]
    ) -> None:
        self.chapter, self.loaders, self.attempt = chapter, loaders, attempt
        self.section = Section("")
        chapter.sections.append(self.section)
        self.names: dict[str, Any] = {"__builtins__": vars(builtins) | {"__import__": self.bring}}

    def head(self, text: str) -> None:
        """Begin a section for each heading of second rank in a cell of prose."""
        for title in re.findall(r"^## (.+)$", text, flags=re.M):
            self.section = Section(title)
            self.chapter.sections.append(self.section)

    def run(self, source: str, title: str) -> None:
        """Run a cell; after an error only see what it would have drawn."""
        expected = self.can_draw(source)
        self.section.expected |= expected
        if self.chapter.error:
            return
        said = len(self.section.reasons)
        try:
            exec(compile(source, title, "exec"), self.names)
        except VitcnnError as error:
            self.chapter.error = str(error)
        except Exception as error:  # what a notebook makes of parameters that nobody has thought of
            self.chapter.error = f"{type(error).__name__}: {error}"
        if expected <= self.section.drawn:
            del self.section.reasons[said:]  # other prose

    def bring(self, name: str, *arguments: Any) -> Any:
        """`import`: the standard library as it is, of this package what is described above, all else stand-ins."""
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return builtins.__import__(name, *arguments)
        if name == "IPython.display":
            display = _Display()
            display.stage = self
            return display
        if top != _PACKAGE:
            return STAND_IN
        for part in (arguments[2] if len(arguments) > 2 else None) or ():
            with suppress(ModuleNotFoundError):  # not all parts are modules
                importlib.import_module(f"{name}.{part}")
        return _Hollow(importlib.import_module(name), self)

    def measure(self, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        """Note what a measure is asked for; the error that it would raise, if any."""
        bound = inspect.signature(function).bind(*positional, **named)
        bound.apply_defaults()
        request = Request(f"{function.__module__.partition('.')[2]}.{function.__name__}", function, bound.arguments)
        self.attempt(request)
        self.section.requests.append(request)
        return STAND_IN

    def load(self, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        """Note which model or images are loaded; gives what the loader in the place of the package's gives."""
        bound = inspect.signature(function).bind(*positional, **named)
        bound.apply_defaults()
        loaded = self.loaders[function.__name__](**bound.arguments)
        loads = self.chapter.models if function.__name__ == "load_model" else self.chapter.images
        loads.append(bound.arguments)
        return loaded

    def plot(self, function: Callable[..., Any], *positional: Any, **named: Any) -> Any:
        """Note the figures that a plot draws."""
        bound = inspect.signature(function).bind(*positional, **named)
        bound.apply_defaults()
        self.section.drawn |= _figures(function, bound.arguments.get("key", ""), *positional)
        return STAND_IN

    def can_draw(self, source: str) -> set[int]:
        """The numbers of the figures that a cell draws if none of its plots is left out."""
        found: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call) or not (plot := re.fullmatch(r"plots\.(\w+)", ast.unparse(node.func))):
                continue
            function = getattr(self.names["plots"]._module, plot[1])
            default = getattr(inspect.signature(function).parameters.get("key"), "default", "")
            keys = [ast.literal_eval(named.value) for named in node.keywords if named.arg == "key"]
            ids = [ast.literal_eval(value) for value in node.args if isinstance(value, ast.Tuple)]
            found |= _figures(function, *(keys or [default]), *ids)
        return found


class _Display(StandIn):
    """IPython.display, whose Markdown is noted: so a notebook says what it leaves out and why."""

    stage: _Stage

    def Markdown(self, text: str) -> StandIn:
        if text:
            self.stage.section.reasons.append(" ".join(text.replace("**", "").split()))
        return STAND_IN


class _Hollow:
    """A module of this package whose measures, plots and loaders are noted; what is given a stand-in gives one."""

    def __init__(self, module: ModuleType, stage: _Stage) -> None:
        self._module, self._stage = module, stage

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, ModuleType):
            return _Hollow(value, self._stage)
        if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
            return value
        if name in self._stage.loaders:
            return lambda *a, **k: self._stage.load(value, *a, **k)
        if is_measure(value):
            return lambda *a, **k: self._stage.measure(value, *a, **k)
        if self._module.__name__.startswith(f"{_PACKAGE}.plots."):
            return lambda *a, **k: self._stage.plot(value, *a, **k)
        return lambda *a, **k: STAND_IN if _stands_in([a, k]) else value(*a, **k)


def _stands_in(value: Any) -> bool:
    """Whether it is a stand-in, or there is one in it."""
    if isinstance(value, dict):
        return any(map(_stands_in, value.values()))
    return isinstance(value, StandIn) or (isinstance(value, list | tuple | set) and any(map(_stands_in, value)))


def is_measure(value: Any) -> bool:
    """Whether this is a measure: a public function of a module right in the package that makes numbers of images."""
    if not inspect.isfunction(value) or not re.fullmatch(rf"{_PACKAGE}\.\w+", value.__module__):
        return False
    signature = inspect.signature(value)
    of_other_kind = str(signature.return_annotation).strip("'\"") in ("bool", "Images", str(bool), str(Images))
    return "images" in signature.parameters and not value.__name__.startswith("_") and not of_other_kind


def _figures(call: Callable[..., Any], key: str, *values: Any) -> set[int]:
    """The numbers of the paper's figures that a plot draws: those in `values`, such as ('fig-9',), or in its source.

    A drawing that has a key stands beside the one that has the figure's number.
    """
    if key:
        return set()
    given = [text for value in values if isinstance(value, tuple) for text in value if isinstance(text, str)]
    found = _FIGURE.findall(" ".join(given)) or _FIGURE.findall(inspect.getsource(call))
    return {int(number) for number in found}
