"""Images: what every measure is computed on, and where they come from."""

import hashlib
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vitcnn_utils import hub
from vitcnn_utils.errors import LARGEST, VitcnnError, whole_number
from vitcnn_utils.files import replacing

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from PIL import Image

SAMPLES = {name: Path(__file__).parent / "samples" / f"{name}.parquet" for name in ("cifar10", "fashion-mnist")}

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Of the files in a folder that are pictures."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow may open. Others can do more than hold pixels: for EPS it runs Ghostscript."""

SPLITS = ("test", "validation", "val", "valid", "train")
"""Names of splits, best first: images that no model was trained on."""

POOL = 1000
"""The fewest images of a hub data set that a subset is drawn from."""

MOST_ROWS = 10_000_000
"""Rows of a table: a small file can claim any number of them."""

MOST_NAMED = 200
"""Files or rows that one error names."""

DOWNLOAD = "download it and pass a folder or a .parquet file"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size: the crops that every model of a comparison sees.

    `pixels` is uint8 (N, H, W, 3); `labels`, if known, int64 (N,); `classes`, if known, the names that the labels
    number; `name` is for captions: a sample's name, a hub id or a path; `seed` is the one that `load_images` drew
    their order with, None where they were not drawn.
    """

    name: str
    pixels: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[-1] != 3:
            found = f"{self.pixels.dtype} {self.pixels.shape}"
            raise VitcnnError(f"the pixels of {self.name} are {found}: they must be uint8 (N, H, W, 3)")
        if self.labels is not None and self.labels.shape != self.pixels.shape[:1]:
            raise VitcnnError(f"{self.name} has labels {self.labels.shape} for {len(self)} images: give one an image")

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice | np.ndarray) -> "Images":
        """Some of the images, in the order of `index` (a slice, indices or a mask)."""
        labels = None if self.labels is None else self.labels[index]
        return Images(self.name, self.pixels[index], labels, self.classes, self.seed)


def load_images(
    name: str | Path = "cifar10",
    n: int | None = None,
    size: int | None = None,
    seed: int = 0,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Images:
    """`n` images (None: all), in an order drawn with `seed` in which the classes take turns.

    So every subset, and every batch, is class-balanced as far as the classes go (counts differ by at most 1 until a
    class runs out), and fewer images with the same seed are the first of more images.

    Args:
        name: `cifar10` (2,500 test images) or `fashion-mnist` (1,500 test images), which ship with the package; a
            folder of pictures, whose sub-folders, if any, are the classes; a `.parquet` file, or a folder of them;
            anything else is a data set on the Hugging Face hub, `OWNER/NAME`, with `:CONFIG` if it has several
            configurations and `@REVISION` if it must be that one. Of one on the hub, `n` images are drawn from the
            first `max(2 n, 1000)` that a shuffled stream gives, so that a large data set is not downloaded whole. What
            was drawn is kept, in `vitcnn_utils` in the assets of the hub's cache (`HF_ASSETS_CACHE`), and used from
            then on, offline too; delete the file there, or give a revision, to draw again.
        n: how many images.
        size: the side in pixels of the square that each image is made: its shorter side resized to it (bicubic,
            antialiased), then cropped in the centre, with no margin cut off. None leaves the images as they are.
        seed: draws the order.
        split: of a hub data set, or the sub-folder with that name of a folder, or its parquet files that begin with
            that name; None takes the test split if there is one, else validation, else train.
        image_column: of a parquet file or hub data set; None takes the only one that holds images.
        label_column: likewise; None takes the only column of classes (or of integers), or the one called `label`; where
            there is none, the images have no labels. Strings are numbered in alphabetic order. Labels that are all
            negative, which is how the hub hides those of a test split, are none.

    Grey, palette and transparent images become RGB (transparency is dropped), upright as their EXIF data say.

    Raises:
        VitcnnError: a name of another kind, a hub that does not answer, too few images, files that are not
            images (all are named), a column that cannot be guessed, images of several sizes where `size` is None, more
            pixels than memory has room for.
    """
    name = str(name)
    for what, number in (("n", n), ("size", size)):
        if number is not None:
            whole_number(what, number)
    whole_number("seed", seed, 0, LARGEST)
    source = find_images(name, Request(n, seed, split, image_column, label_column))
    pixels = _decode(name, source, size)
    if source.keep_at is not None:
        _keep(source, source.keep_at)
    return Images(name, pixels, source.labels, source.classes, seed)


def read_parquet(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 (N, H, W, 3), and labels, int64 (N,), of a parquet file in the order of its rows."""
    source = _source(_parquet([path]), str(path))
    if source.labels is None:
        raise VitcnnError(f"{path} has no labels: give a file with a column of classes")
    return _decode(str(path), source, size=None), source.labels


def balanced_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of the N `labels` in which the classes take turns, so that every first part of it is balanced."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = np.argsort(labels[shuffled], kind="stable")
    _, starts, counts = np.unique(labels[shuffled][by_class], return_index=True, return_counts=True)
    turn = np.empty(len(labels), dtype=np.int64)  # an image's place within its class
    turn[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return shuffled[np.argsort(turn, kind="stable")]


class Request(NamedTuple):
    """The arguments of `load_images` that choose among images."""

    n: int | None = None
    seed: int = 0
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None

    def refuse(self, name: str, *arguments: str) -> None:
        for argument in arguments:
            if getattr(self, argument) is not None:
                raise VitcnnError(f"{argument}={getattr(self, argument)!r} means nothing for {name}: leave it out")

    def order(self, labels: np.ndarray, name: str) -> np.ndarray:
        """The images to take, (n,); labels: of all there are, (N,), the same for all where none are known."""
        if self.n is not None and self.n > len(labels):
            raise VitcnnError(f"n={self.n}: {name} has only {len(labels)} images: ask for at most so many")
        return balanced_order(labels, self.seed)[: self.n]


class Picture(NamedTuple):
    """An encoded image: its bytes, or the file that has them; `where` names it in errors."""

    where: str
    data: bytes | Path | None


class Source(NamedTuple):
    """The images that were asked for, in order, before they are decoded.

    pictures: of each image, in any order, its place and what is to be decoded. keep_at: where to keep them.
    """

    n: int
    pictures: Iterable[tuple[int, Picture]]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    keep_at: Path | None = None


def find_images(name: str, request: Request) -> Source:
    """What `load_images` will decode; raises the VitcnnError that it would raise."""
    with _one_line(f"{name} cannot be read"):
        return _find(name, request)


def _find(name: str, request: Request) -> Source:
    if name in SAMPLES:
        request.refuse(f"the sample {name}", "split", "image_column", "label_column")
        return _source(_parquet([SAMPLES[name]]), name, request)
    if not name.strip():
        raise VitcnnError("the name of the images is empty: pass a folder, a .parquet file, a hub id or 'cifar10'")
    path = Path(os.path.expanduser(name))  # Path.expanduser has an error of its own for ~nobody
    if path.is_dir() and (files := _tables_in(path)):
        return _source(_parquet(_of_split(files, request.split, name)), path.name, request)
    if path.is_dir():
        request.refuse(f"the folder {name}", "image_column", "label_column")
        return _folder(path, request)
    if path.suffix == ".parquet":
        request.refuse(f"the file {name}", "split")
        return _source(_parquet([path]), path.name, request)
    if path.exists():
        raise VitcnnError(f"{name} is neither a folder of pictures nor a .parquet file: give one of these")
    return _hub(name, request)


@contextmanager
def _one_line(problem: str, advice: str = "mend it or take another") -> Iterator[None]:
    try:
        yield
    except VitcnnError:
        raise
    except Exception as error:  # file system, format, network and data set each bring exceptions of their own
        raise VitcnnError(f"{problem} ({hub.reason(error)}): {advice}") from error


# Folders. The imagefolder of `datasets` loses pictures without a word: where one is called train_1.png it leaves out
# all that are not called so, and it loses a class that is the only one, linked folders, and paths with brackets.


def _folder(root: Path, request: Request) -> Source:
    folders = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if request.split is not None or (folders and folders.issubset(SPLITS)):
        root = root / _choose_split(request.split, folders, str(root))
    paths = sorted(_pictures_below(root))
    classes = sorted({path.relative_to(root).parts[0] for path in paths if path.parent != root})
    loose = [path for path in paths if path.parent == root]
    if not paths:
        raise VitcnnError(f"no pictures in {root}: they must end in {', '.join(SUFFIXES)}")
    if classes and loose:
        beside = f"{root} has pictures both in sub-folders and beside them ({loose[0].name})"
        raise VitcnnError(f"{beside}: put each into the folder of its class")
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number.get(path.relative_to(root).parts[0], 0) for path in paths], dtype=np.int64)
    order = request.order(labels, str(root))
    pictures = [(place, Picture(str(paths[i].relative_to(root)), paths[i])) for place, i in enumerate(order)]
    return Source(len(order), pictures, labels[order] if classes else None, tuple(classes) or None)


def _pictures_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Pictures at any depth, behind links too, but not behind one that leads back to where it lies.

    Hidden files, such as macOS's `._cat.jpg`, are left out.
    """
    above = (*above, folder.resolve())
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and entry.resolve() not in above:
            yield from _pictures_below(entry, above)
        elif entry.suffix.lower() in SUFFIXES and entry.is_file():
            yield entry


# Tables: parquet files, and what the hub's streams consist of


class Table(NamedTuple):
    """A table of which one column at a time is read, in small pieces."""

    rows: int
    schema: "pa.Schema"
    read: Callable[[str], Iterator["pa.Array"]]


def _tables_in(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.parquet") if not path.name.startswith("."))


def _of_split(files: list[Path], wanted: str | None, name: str) -> list[Path]:
    """The files of one split: a file's name begins with its split, if there are several, as on the hub."""
    splits = {path.stem.partition("-")[0] for path in files}
    if wanted is None and not splits.issubset(SPLITS):
        return files
    split = _choose_split(wanted, splits, name)
    return [path for path in files if path.stem.partition("-")[0] == split]


def _choose_split(wanted: str | None, splits: Collection[str], name: str) -> str:
    if wanted is None:
        return next((known for known in SPLITS if known in splits), next(iter(splits)))
    if wanted not in splits:
        raise VitcnnError(f"split={wanted!r}: {name} has no such split: it has {_listed(splits)}")
    return wanted


def _parquet(paths: list[Path]) -> Table:
    import pyarrow.parquet as pq

    files = []
    for path in paths:
        if not path.exists():
            raise VitcnnError(f"no file {path}: check the path")
        with _one_line(f"{path} cannot be read as parquet"):
            files.append(pq.ParquetFile(path, page_checksum_verification=True))
    schema = files[0].schema_arrow
    for path, file in zip(paths, files, strict=True):
        if not file.schema_arrow.equals(schema):
            raise VitcnnError(f"the files in {path.parent} are not parts of one table: {path.name} has other columns")

    def read(column: str) -> Iterator["pa.Array"]:
        for path, file in zip(paths, files, strict=True):
            with _one_line(f"{path} cannot be read as parquet"):
                yield from (batch.column(0) for batch in file.iter_batches(batch_size=64, columns=[column]))

    count = sum(file.metadata.num_rows for file in files)
    if count > MOST_ROWS:
        raise VitcnnError(f"{paths[0]} has {count:,} rows: take a part of them, at most {MOST_ROWS:,}")
    return Table(count, schema, read)


def _source(table: Table, name: str, request: Request | None = None, home: str | None = None) -> Source:
    """The images of a table that are asked for; without a request all, in the order of its rows.

    home: as for `_pictures`.
    """
    import datasets

    with _one_line(f"the columns of {name} cannot be understood", "write the file again"):
        features = datasets.Features.from_arrow_schema(table.schema)
    image_column = _column("image", features, request and request.image_column, name)
    label_column = _column("label", features, request and request.label_column, name)
    if image_column is None:
        raise VitcnnError(f"no column of {name} holds encoded images: it has {_listed(features)}")
    labels, classes = None, None
    if label_column is not None:
        labels, classes = _labels(table, features[label_column], name, label_column)
    order = np.arange(table.rows)
    if request is not None:
        order = request.order(np.zeros(table.rows) if labels is None else labels, name)
    pictures = _pictures(table, image_column, order, home)
    return Source(len(order), pictures, None if labels is None else labels[order], classes)


def _kind(feature: Any) -> str:
    """What a column holds: 'image', 'integer', 'string' or the name of another type."""
    import datasets

    dtype = str(getattr(feature, "dtype", "struct"))
    if isinstance(feature, datasets.Image) or "binary" in dtype or (isinstance(feature, dict) and "bytes" in feature):
        return "image"
    return "integer" if "int" in dtype else dtype.removeprefix("large_")


def _column(what: str, features: "datasets.Features", wanted: str | None, name: str) -> str | None:
    """The column of 'image' or 'label': the one that is wanted, or else the only candidate; None without any."""
    import datasets

    kinds = {column: _kind(feature) for column, feature in features.items()}
    fit = ("image",) if what == "image" else ("integer", "string")
    able = [column for column, kind in kinds.items() if kind in fit]
    if wanted is not None:
        if wanted not in kinds:
            raise VitcnnError(f"{what}_column={wanted!r}: {name} has no such column: it has {_listed(kinds)}")
        if wanted not in able:
            holds = f"this column of {name} holds {kinds[wanted]}"
            raise VitcnnError(f"{what}_column={wanted!r}: {holds}: pass one of {_listed(able)}")
        return wanted
    declared = [column for column in able if isinstance(features[column], datasets.Image | datasets.ClassLabel)]
    candidates = declared or [column for column in able if column == "label" or kinds[column] != "string"]
    if "label" in candidates:
        return "label"
    if len(candidates) > 1:
        several = f"{name} has several columns that may be the {what}"
        raise VitcnnError(f"{several}: pass {what}_column, one of {_listed(candidates)}")
    return candidates[0] if candidates else None


def _labels(table: Table, feature: Any, name: str, column: str) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """The number of each row's class, (N,), and the names of the classes; None for what is not known."""
    values = [value for piece in table.read(column) for value in piece.to_pylist()]
    advice = "remove them, or pass label_column"
    if None in values:
        raise VitcnnError(f"{values.count(None)} rows of {name} have no {column}: {advice}")
    if _kind(feature) == "string":
        classes, labels = np.unique(np.array(values, dtype=object), return_inverse=True)
        return labels.astype(np.int64), tuple(classes.tolist())
    names = tuple(map(str, getattr(feature, "names", None) or ())) or None
    hidden = sum(value < 0 for value in values)
    if hidden == len(values):  # so the hub hides the labels of a test split
        return None, None
    if hidden:
        raise VitcnnError(f"{hidden} rows of {name} have a negative {column}, which stands for none: {advice}")
    if max(values) >= (len(names) if names else 2**63):
        known = f"its classes have {len(names)} names" if names else "that is not a class"
        raise VitcnnError(f"a row of {name} has the {column} {max(values)}, but {known}: mend the file")
    return np.array(values, dtype=np.int64), names


def _pictures(table: Table, column: str, order: np.ndarray, home: str | None) -> Iterator[tuple[int, Picture]]:
    """The pictures of the rows in `order`, each with its place there.

    home: what the path of a row without bytes must begin with to be read. Of a parquet file, which may come from
    anywhere, no path is read: it could name any file of this machine or of others.
    """
    place = np.full(table.rows, -1)
    place[order] = np.arange(len(order))
    row = 0
    for piece in table.read(column):
        for cell in piece:
            if place[row] >= 0:
                yield int(place[row]), _picture(row, cell.as_py(), home)
            row += 1


def _picture(row: int, cell: Any, home: str | None) -> Picture:
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if data is None and path and home is not None and _lies_in(path, home):
        import fsspec

        with fsspec.open(path, "rb") as file:
            data = file.read()
    return Picture(f"row {row} ({path})" if path else f"row {row}", data)


def _lies_in(path: str, home: str) -> bool:
    """Whether a path of the hub, perhaps of a file in a zip archive there, is of the data set `home`."""
    inner, _, archive = path.rpartition("::")
    in_archive = inner == "" or re.fullmatch("zip://[^:]*", inner) is not None
    return in_archive and archive.startswith(home) and ".." not in archive


# The hub


class Address(NamedTuple):
    """A data set on the hub."""

    id: str
    config: str | None
    revision: str | None


def _address(name: str) -> Address:
    parts = re.fullmatch(r"(?P<id>[^:@]*)(:(?P<config>[^@]+))?(@(?P<revision>.+))?", name)
    return Address(parts["id"], parts["config"], parts["revision"]) if parts else Address(name, None, None)


def _hub(name: str, request: Request) -> Source:
    path = _kept(name, request)
    source = _drawn_before(name, path)
    if source is None:
        address = _ask_hub(name)
        with _one_line(f"{name} cannot be read from the hub", DOWNLOAD), _bounded():
            stream = _split(address, request.split, name)
            if request.n is not None:
                pool = max(2 * request.n, POOL)
                stream = stream.shuffle(seed=request.seed, buffer_size=pool).take(pool)
            source = _source(_streamed(stream, name), name, request, f"hf://datasets/{address.id}@{address.revision}/")
            # read once: a row may have its picture in a file of its own, which is still to be fetched
            source = source._replace(pictures=list(source.pictures), keep_at=path)
    if request.n is not None and source.classes is not None and source.labels is not None:
        met, expected = len(np.unique(source.labels)), min(request.n, len(source.classes))
        if 2 * met < expected:
            found = f"{met} of {len(source.classes)} classes among the images drawn from {name}"
            warnings.warn(f"{found}: it seems to be sorted by class: {DOWNLOAD}", stacklevel=5)
    return source


def _streamed(stream: "datasets.IterableDataset", name: str) -> Table:
    import pyarrow as pa
    import torch

    from vitcnn_utils.run import room

    pieces: list[pa.Table] = []
    for piece in stream.with_format("arrow").iter(batch_size=100):
        pieces.append(piece)
        if sum(piece.nbytes for piece in pieces) > room(torch.device("cpu")):
            raise VitcnnError(f"the images of {name} do not fit in memory: ask for fewer, or {DOWNLOAD}")
    table = pa.concat_tables(pieces)
    return Table(len(table), table.schema, lambda column: iter(table[column].chunks))


def _ask_hub(name: str) -> Address:
    """The data set with the commit that its revision is now.

    Asked before `datasets` is, which retries for half a minute where no hub answers.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    near = get_close_matches(name.lower(), SAMPLES, n=1, cutoff=0.8)
    hint = f"did you mean {near[0]!r}?" if near else "pass a folder, a .parquet file, a hub id or 'cifar10'"
    id, config, revision = _address(name)
    if Path(id).exists():
        raise VitcnnError(f"{name}: {id} is a file or folder here, which has no configurations or revisions: {hint}")
    try:
        info = hub.patiently(lambda: HfApi().dataset_info(id, revision=revision, timeout=10), name)
    except HFValidationError:
        raise VitcnnError(f"no folder or file {name}, and no hub id has this form: {hint}") from None
    except Exception as error:  # which exceptions say so depends on the version of the HTTP client
        if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
            raise VitcnnError(f"no folder, file or public data set on the hub is called {id}: {hint}") from None
        problem = f"{name} is not a folder or file, and could not be fetched from the hub ({hub.reason(error)})"
        otherwise = "otherwise, pass a folder of pictures, a .parquet file or 'cifar10'"
        raise VitcnnError(f"{problem}: {hint if near else otherwise}") from None
    return Address(id, config, info.sha)


def _split(address: Address, wanted: str | None, name: str) -> "datasets.IterableDataset":
    import datasets

    id, config, revision = address
    _stay_on_the_hub(address)
    try:
        splits = hub.patiently(lambda: datasets.load_dataset(id, config, revision=revision, streaming=True), name)
    except ValueError:
        configs = datasets.get_dataset_config_names(id, revision=revision)
        if config in configs or (config is None and len(configs) == 1):
            raise
        there = ", ".join(f"{id}:{known}" for known in configs)
        wrong = "has several configurations" if config is None else f"has no configuration {config}"
        raise VitcnnError(f"{id} {wrong}: pass one of {there}") from None
    return splits[_choose_split(wanted, splits, name)]


def _stay_on_the_hub(address: Address) -> None:
    """VitcnnError where a data set's card names files of this machine or of other hosts as its own."""
    import yaml
    from huggingface_hub import metadata_load
    from huggingface_hub.errors import EntryNotFoundError

    for file in ("README.md", ".huggingface.yaml"):
        try:
            path = hub.fetch(address.id, file, address.revision, "dataset")
        except EntryNotFoundError:
            continue
        card = metadata_load(path) if file == "README.md" else yaml.safe_load(path.read_text(encoding="utf-8"))
        for text in _strings((card or {}).get("configs")):
            if "::" in text or "://" in text or ".." in text or text.startswith(("/", "\\", "~")):
                raise VitcnnError(f"{address.id} wants to read {text}, which is not in it: take another data set")


def _strings(root: Any) -> Iterator[str]:
    """All strings in what YAML holds; each list and dict once, as YAML can repeat them without end."""
    todo, seen = [root], set()
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict) and id(value) not in seen:
            seen.add(id(value))
            todo += value if isinstance(value, list) else value.values()


@contextmanager
def _bounded() -> Iterator[None]:
    """Make `datasets` quiet, and brief: after a fault it reads again 3 times, not 20 times, which takes 20 minutes.

    It would also tell another host which data set is loaded, and show bars that no built page can hold.
    """
    import datasets

    settings = {"STREAMING_READ_MAX_RETRIES": 3, "HF_UPDATE_DOWNLOAD_COUNTS": False}
    before = {key: getattr(datasets.config, key) for key in settings}
    bars = datasets.is_progress_bar_enabled()
    vars(datasets.config).update(settings)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        vars(datasets.config).update(before)
        if bars:
            datasets.enable_progress_bars()


# What was drawn from the hub, on this machine


def _kept(name: str, request: Request) -> Path:
    """Where images drawn with this request are kept: a parquet file of them in order, encoded as the hub has them."""
    from huggingface_hub import constants

    key = hashlib.sha256(json.dumps([name, *request]).encode()).hexdigest()[:12]
    some = "all" if request.n is None else request.n
    folder = Path(constants.HF_ASSETS_CACHE) / "vitcnn_utils" / _address(name).id.replace("/", "--")
    return folder / f"{request.split or 'split'}-{some}-seed{request.seed}-{key}.parquet"


def _drawn_before(name: str, path: Path) -> Source | None:
    if not path.exists():
        return None
    try:
        source = _source(_parquet([path]), path.name)
        source = source._replace(pictures=list(source.pictures))
    except VitcnnError as error:
        _logger.warning("%s; it is drawn again", error)
        return None
    _logger.info("%s: %d images drawn before, from %s", name, source.n, path)
    return source


def _keep(source: Source, path: Path) -> None:
    """Writes images, all or nothing; a place that cannot be written to costs only that they are not kept."""
    try:
        with replacing(path) as partial:
            _write(source, partial)
    except OSError as error:
        _logger.warning("the images are not kept for later in %s: %s", path, error)


def _write(source: Source, path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded = [{"bytes": picture.data} for _, picture in sorted(source.pictures)]
    columns: dict[str, Any] = {"image": pa.array(encoded, pa.struct([("bytes", pa.large_binary())]))}
    features = datasets.Features()
    if source.labels is not None:
        columns["label"] = source.labels
        features["label"] = (
            datasets.ClassLabel(names=list(source.classes)) if source.classes else datasets.Value("int64")
        )
    table = pa.table(columns).replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(table, path, write_page_checksum=True)


# Decoding


def _decode(name: str, source: Source, size: int | None) -> np.ndarray:
    """uint8 (N, H, W, 3); size: as for `load_images`. VitcnnError names all that are not images, or differ in size."""
    from tqdm import tqdm

    if not source.n:
        raise VitcnnError(f"{name} has no images: give a source that has some")
    if size is not None:
        _check_room(source.n, size, size)
    pixels: np.ndarray | None = None
    sizes: dict[tuple[int, int], str] = {}
    bad = []
    waiting = tqdm(source.pictures, desc=f"reading {name}", total=source.n, disable=None, delay=1, leave=False)
    for place, picture in waiting:
        try:
            array = _pixels(picture, size)
        except Exception as error:  # Pillow's decoders raise errors of many kinds
            reason = str(error) if isinstance(error, VitcnnError) else type(error).__name__
            bad.append(f"{picture.where} ({reason})")
            continue
        height, width = array.shape[:2]
        sizes.setdefault((height, width), f"{picture.where} is {width} x {height}")
        if pixels is None:
            _check_room(source.n, height, width)
            pixels = np.empty((source.n, height, width, 3), np.uint8)
        if len(sizes) == 1:
            pixels[place] = array
    if bad or pixels is None:
        more = f" and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
        many = f"{len(bad)} images of {name} cannot be read"
        raise VitcnnError(f"{many}: mend, remove or download again {', '.join(bad[:MOST_NAMED])}{more}")
    if len(sizes) > 1:
        two = " and ".join(list(sizes.values())[:2])
        raise VitcnnError(f"the images of {name} differ in size ({two}): pass size, the side to resize them to")
    return pixels


def _check_room(count: int, height: int, width: int) -> None:
    import torch

    from vitcnn_utils.run import room

    wanted, free = count * height * width * 3, room(torch.device("cpu"))
    if wanted > free:
        images = f"{count:,} images of {width} x {height} pixels take {wanted / 1e9:,.1f} GB"
        raise VitcnnError(f"{images}, and {free / 1e9:,.1f} GB are free: take fewer or smaller images")


def _pixels(picture: Picture, size: int | None) -> np.ndarray:
    """uint8 (H, W, 3)"""
    from PIL import Image

    if picture.data is None:
        raise VitcnnError("no image in it")
    file = picture.data if isinstance(picture.data, Path) else io.BytesIO(picture.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that are odd
        with Image.open(file, formats=FORMATS) as image:
            _check_pixels(*image.size)
            upright = _rgb(image)
    return np.asarray(upright if size is None else _square(upright, size))


def _check_pixels(width: int, height: int) -> None:
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise VitcnnError(f"{width} x {height} pixels are more than {Image.MAX_IMAGE_PIXELS:,}")


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would clip the values at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise VitcnnError("its values have no known range")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # a palette with transparency has no direct way to RGB
    return image.convert("RGB")


def _square(image: "Image.Image", size: int) -> "Image.Image":
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import center_crop, resize

    shorter, longer = sorted(image.size)
    _check_pixels(size, size * longer // shorter)
    return center_crop(resize(image, [size], InterpolationMode.BICUBIC, antialias=True), [size, size])


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, names)))
