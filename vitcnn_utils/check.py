"""What an edition needs, told before it is run: what is missing, what is to be fetched, which figures, how long."""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vitcnn_utils import data, models, zoo
from vitcnn_utils.batching import free_memory
from vitcnn_utils.book import default_parameters, find_root, read_edition, unfit
from vitcnn_utils.data import Images
from vitcnn_utils.errors import VitcnnError, whole_number
from vitcnn_utils.estimate import GROWTH, Bench
from vitcnn_utils.models import Model, find_device
from vitcnn_utils.rehearsal import Chapter, rehearse

PATIENCE = 10
"""Seconds that the hub has for an answer."""

DECODED = 32
"""So many images are decoded, to see that they can be, and how long it takes."""


def check_edition(
    edition: str,
    overrides: dict[str, Any] | None = None,
    root: Path | None = None,
    report: Callable[[str], None] = print,
    clock: Callable[[], float] = time.perf_counter,
) -> "list[Cost]":
    """Report whether an edition can be run, and what that takes on this device; nothing is run, no weights are fetched.

    overrides: values that replace the edition's. clock: times the trials of measures, in seconds.
    Gives the cost of each chapter, followed by those of its sections.
    Raises VitcnnError with a line for each problem: unknown names, models or images that cannot be had, and, if there
    are none of these, a chapter that would stop and why.
    """
    root = root or find_root()
    parameters = read_edition(root, edition) | (overrides or {})
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    _raise(unfit(parameters, notebooks))
    sources = Sources()
    _raise(sources.find(notebooks, parameters))
    device = find_device(parameters.get("device", "auto"))
    free, bench = free_memory(device), Bench(clock)
    chapters = [
        rehearse(notebook, parameters, sources.load_model, sources.load_images, bench.attempt)
        for notebook in tqdm(notebooks, desc="reading the notebooks", leave=False, disable=None)
    ]
    report(sources.table())
    report(_figures(chapters))
    requests = [request for chapter in chapters for section in chapter.sections for request in section.requests]
    for request in tqdm(requests, desc="trying the measures", leave=False, disable=None):
        bench.measure(request)
    costs = _costs(chapters, bench, sources, device)
    report(_cost_table(costs, device, free))
    _raise(f"{chapter.name} would stop: {chapter.error}" for chapter in chapters if chapter.error)
    most = max(cost.bytes for cost in costs)
    if most > free:
        raise VitcnnError(f"memory: {_size(most)} are needed and {_size(free)} are free: take smaller models or images")
    return costs


def _raise(problems: Iterable[str]) -> None:
    found = list(dict.fromkeys(problems))
    if found:
        raise VitcnnError("\n".join(found))


# --- models and images ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pictures:
    """What is known of a set of images. count: None if nobody says; bytes, seconds: to fetch and decode one of them."""

    count: int | None
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    bytes: float | None
    seconds: float
    size: tuple[int, int]


class Sources:
    """The models and images of an edition: where they are, and stand-ins for them."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}
        self._pictures: dict[str, _Pictures] = {}
        self._models: dict[str, Model] = {}
        self._seconds: dict[str, float] = {}
        self._drawn: dict[str, int] = {}
        self._silent: Exception | None = None

    def find(self, notebooks: Sequence[Path], parameters: dict[str, Any]) -> list[str]:
        """See that all models and images that the parameters name can be had; gives a line for each that cannot.

        A parameter names models if by default it names those of the zoo, or has None beside such ones (`vit_…`), and
        images if by default it names a sample.
        """
        wanted: dict[tuple[str, Callable[[str], None]], str] = {}
        problems = []
        for notebook in notebooks:
            defaults = default_parameters(notebook)
            for name, find in self._finders(defaults).items():
                for value in _leaves(parameters.get(name, defaults[name])):
                    if isinstance(value, str):
                        wanted.setdefault((value, find), name)
                    else:
                        problems.append(f"{name}: {value!r} is no name")
        for (name, find), parameter in wanted.items():
            try:
                find(name)
            except VitcnnError as error:
                problems.append(f"{parameter}: {error}")
        return problems

    def _finders(self, defaults: dict[str, Any]) -> dict[str, Callable[[str], None]]:
        """The parameters that name models or images, and what finds these."""
        of_models = {name for name, value in defaults.items() if any(str(x).startswith("zoo/") for x in _leaves(value))}
        kinds = {name.partition("_")[0] for name in of_models}
        of_models |= {name for name, value in defaults.items() if value is None and name.partition("_")[0] in kinds}
        of_images = {name for name, value in defaults.items() if isinstance(value, str) and value in data.SAMPLES}
        found: dict[str, Callable[[str], None]] = dict.fromkeys(of_models, self._find_model)
        return found | dict.fromkeys(of_images, self._find_images)

    def _find_model(self, name: str) -> None:
        if name.startswith("zoo/"):
            zoo.weights_path(name)
            self._bytes[name] = 0
            return
        repository = models.repository_of(name)
        if repository is None or name.startswith("hf-hub:"):
            models.fetch_file(name, repository, "config.json")
        assert repository is not None
        self._bytes[name] = self._bytes_to_come(name, repository)

    def _bytes_to_come(self, name: str, repository: str) -> int:
        """What is still to be fetched of a model's weights: nothing if the hub's cache on this machine has them."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import LocalEntryNotFoundError

        owner_and_name, _, revision = repository.partition("@")
        file: dict[str, Any] = {"filename": "model.safetensors", "revision": revision or None}
        try:
            hf_hub_download(owner_and_name, **file, local_files_only=True)
            return 0
        except LocalEntryNotFoundError:
            pass
        try:
            if self._silent:
                raise self._silent
            return get_hf_file_metadata(hf_hub_url(owner_and_name, **file), timeout=PATIENCE).size or 0
        except Exception as error:  # the hub's client raises errors of several libraries
            if not hasattr(error, "response"):
                self._silent = error  # nobody answers; to ask for each model would take long
            raise models.not_from_hub(name, repository, "model.safetensors", error) from None

    def _find_images(self, name: str) -> None:
        path = Path(name).expanduser()
        if name not in data.SAMPLES and not path.exists() and path.suffix != ".parquet":
            self._pictures[name] = _of_hub(name)
            return
        source = data.find_images(name, data.Request())
        start = time.perf_counter()
        pictures = data.decode(name, source.pictures[:DECODED], 32)
        seconds = (time.perf_counter() - start) / len(pictures)
        self._pictures[name] = _Pictures(len(source.pictures), source.labels, source.classes, 0, seconds, (32, 32))

    def load_model(self, **arguments: Any) -> Model:
        """The model of that name, untrained; what goes for `models.load_model`."""
        name, trained = arguments["name"], arguments["weights"] != "untrained"
        if not isinstance(name, str):
            raise VitcnnError(f"it needs a model where the edition has {name!r}: name one")
        if name not in self._bytes:  # named in no parameter
            self._find_model(name)
        key = json.dumps({k: v for k, v in arguments.items() if k not in ("weights", "seed")}, default=str)
        start = time.perf_counter()
        if key not in self._models:
            self._models[key] = models.load_model(**arguments | {"weights": "untrained"})
            self._seconds[name] = time.perf_counter() - start
        model = copy.copy(self._models[key])
        model.name, model.trained = name if trained else model.name, trained
        return model

    def load_images(self, **arguments: Any) -> Images:
        """Blank images with the labels of those of that name; what goes for `data.load_images`."""
        name, n, size, seed = (arguments[key] for key in ("name", "n", "size", "seed"))
        if str(name) not in self._pictures:
            raise VitcnnError(f"it needs images where the edition has {name!r}: name some")
        found = self._pictures[str(name)]
        count = found.count if n is None else whole_number("n", n)
        if count is None:
            raise VitcnnError(f"{name} does not say how many images it has: give n_images")
        if found.count is not None and count > found.count:
            raise VitcnnError(f"n={n}: {name} has only {found.count} images: ask for at most so many")
        self._drawn[name] = max(count, self._drawn.get(name, 0))
        H, W = found.size if size is None else (whole_number("size", size),) * 2
        labels = None
        if found.labels is not None:
            labels = found.labels[data.balanced_order(found.labels, seed)][:count]
            labels = np.resize(labels, count)
        return Images(str(name), np.broadcast_to(np.uint8(0), (count, H, W, 3)), labels, found.classes)

    def table(self) -> str:
        """The models and images, and what of them is still to be fetched."""
        rows = [("model", "parameters", "takes", "tokens", "to fetch")]
        built = {json.loads(key)["name"]: model for key, model in self._models.items()}
        for name, model in built.items():
            count = sum(p.numel() for p in model.module.parameters())
            H, W = model.image_size
            takes = f"{H} x {W}" if model.grid else "any size"
            grid = "{} x {} + {}".format(*model.grid, model.prefix_tokens) if model.grid else ""
            rows.append((name, f"{count / 1e6:.1f} M", takes, grid, _to_fetch(self._bytes[name])))
        rows.append(("images", "there", "used", "classes", "to fetch"))
        for name, n in self._drawn.items():
            found = self._pictures[name]
            classes = "none" if found.labels is None else str(len(np.unique(found.labels)))
            there = "?" if found.count is None else f"{found.count:,}"
            # Of more than are used, images are drawn; no data set has more than all.
            bytes = None if found.bytes is None else found.bytes * min(data.pool_size(n), found.count or n)
            rows.append((name, there, f"{n:,}", classes, _to_fetch(bytes)))
        total = sum(self._bytes[name] for name in built)
        return _table(rows) + f"\n{_size(total)} of weights to fetch" * (total > 0)

    def loading(self, chapter: Chapter, device: torch.device) -> tuple[float, float]:
        """The seconds that a chapter's models and images take to load, and the bytes there; images stay on the CPU."""
        seconds = sum(self._seconds[a["name"]] for a in chapter.models)
        modules = [self.load_model(**a).module for a in chapter.models]
        bytes = sum(t.nbytes for module in modules for t in (*module.parameters(), *module.buffers()))
        for arguments in chapter.images:
            pictures = self.load_images(**arguments)
            seconds += len(pictures) * self._pictures[str(arguments["name"])].seconds
            bytes += pictures.pixels.nbytes if device.type == "cpu" else 0
        return seconds, bytes


def _leaves(value: Any) -> Iterator[Any]:
    """The names in a parameter: itself, or those in a list or mapping; None names nothing."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is not None:
        for part in inner:
            yield from _leaves(part)
    elif value is not None:
        yield value


def _of_hub(name: str) -> _Pictures:
    """A data set of the hub, as its description tells; none of its images is fetched."""
    told = data.describe_hub(name)
    # Of whole numbers nobody says how many there are: ten, as likely as any.
    labels = np.arange(len(told.classes or "0123456789")) if told.labelled else None
    return _Pictures(told.count, labels, told.classes, told.bytes, 0, (32, 32))


# --- figures and costs ----------------------------------------------------------------------------------------


def _figures(chapters: Sequence[Chapter]) -> str:
    """Which of the paper's figures the edition has, and why it lacks the others."""
    sections = [(chapter, section) for chapter in chapters for section in chapter.sections]
    drawn = set().union(*(section.drawn for _, section in sections))
    expected = set().union(*(section.expected for _, section in sections))
    lines = [f"figures that will be there: {', '.join(map(str, sorted(drawn))) or 'none'}"]
    for figure in sorted(expected - drawn):
        chapter, section = next((c, s) for c, s in sections if figure in s.expected)
        why = " ".join(section.reasons) or chapter.error or "the notebook leaves it out"
        lines.append(f"figure {figure} will not: {why}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Cost:
    """Of a chapter or section: passes of single images through models, seconds, and bytes at a time.

    title: of a chapter its name, of a section words that begin with two blanks.
    """

    title: str
    passes: float
    seconds: float
    bytes: float


def _costs(chapters: Sequence[Chapter], bench: Bench, sources: Sources, device: torch.device) -> list[Cost]:
    """A chapter's cost, followed by those of its sections (their titles are indented), for all chapters."""
    seconds_to_start, bytes_of_process = _start()
    costs = []
    for chapter in chapters:
        sections = [
            Cost(
                "  " + _title(section.title, section.drawn),
                sum(GROWTH[r.measure].passes(r.arguments) for r in section.requests),
                sum(map(bench.seconds, section.requests)),
                max(map(bench.bytes, section.requests)),
            )
            for section in chapter.sections
            if section.requests
        ]
        seconds, bytes = sources.loading(chapter, device)
        bytes += bytes_of_process if device.type == "cpu" else 0
        sections = [Cost(s.title, s.passes, s.seconds, s.bytes + bytes) for s in sections]
        whole = sum(s.seconds for s in sections) + seconds + seconds_to_start
        most = max((s.bytes for s in sections), default=bytes)
        costs += [Cost(chapter.name, sum(s.passes for s in sections), whole, most), *sections]
    return costs


def _title(heading: str, figures: set[int]) -> str:
    if not figures:
        return heading
    return f"figure{'s' * (len(figures) > 1)} {', '.join(map(str, sorted(figures)))}"


def _start() -> tuple[float, float]:
    """The seconds and bytes that it takes a kernel to import what a notebook imports, and what its first calls load.

    Much is imported where it is first used, such as timm for a model: so a small one is loaded, and shown an image.
    """
    own = sorted(name for name in sys.modules if name.startswith("vitcnn_utils."))
    code = (
        f"import ipykernel.kernelapp, psutil, timm, {', '.join(own)}; from vitcnn_utils import accuracy, data, models;"
        "accuracy.accuracy(models.load_model('zoo/vit-small-data-3', device='cpu'), data.load_images('cifar10', 1));"
        "print(psutil.Process().memory_info().rss)"
    )
    start = time.perf_counter()
    # From where this package lies, which need not be installed.
    package = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(done.stdout)


def _cost_table(costs: Sequence[Cost], device: torch.device, free: float) -> str:
    rows = [("chapter", "passes", "minutes", "memory")]
    rows += [(c.title, f"{c.passes:,.0f}", f"{c.seconds / 60:.1f}", _size(c.bytes)) for c in costs]
    chapters = [cost for cost in costs if not cost.title.startswith(" ")]
    passes, seconds = (sum(getattr(cost, name) for cost in chapters) for name in ("passes", "seconds"))
    most = max(cost.bytes for cost in chapters)
    rows.append(("all", f"{passes:,.0f}", f"{seconds / 60:.1f}", _size(most)))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f" with {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    where = f"on {name}{threads}, {_size(free)} free; estimated from short trials, to within a factor of 2"
    return f"{_table(rows)}\n{where}; a pass: one image through one model, forward or backward"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _size(bytes: float) -> str:
    return f"{bytes / 1e9:.1f} GB" if bytes >= 1e9 else f"{bytes / 1e6:.0f} MB"


def _to_fetch(bytes: float | None) -> str:
    return "?" if bytes is None else _size(bytes) if bytes else "here"
