"""Images: what every measure is computed on, and where they come from."""

import hashlib
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vitcnn_utils import hub
from vitcnn_utils.errors import VitcnnError, whole_number
from vitcnn_utils.files import replacing

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    import torch
    from PIL import Image

SAMPLES = {name: Path(__file__).parent / "samples" / f"{name}.parquet" for name in ("cifar10", "fashion-mnist")}

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

SPLITS = ("test", "validation", "val", "valid", "train")
"""Names of splits, best first: images that no model was trained on."""

POOL = 1000
"""The fewest images of a hub data set that a subset is drawn from."""

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

    def batches(self, size: int) -> Iterator["torch.Tensor"]:
        """All images in order as uint8 (B, H, W, 3), B = `size` but for the last batch, which may be smaller."""
        import torch

        for start in range(0, len(self), size):
            yield torch.from_numpy(self.pixels[start : start + size])


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
        VitcnnError: a name that is nothing of these, a hub that does not answer, too few images, files that are no
            images (all are named), a column that cannot be guessed, images of several sizes where `size` is None.
    """
    name = str(name)
    for what, number in (("n", n), ("size", size)):
        if number is not None:
            whole_number(what, number)
    whole_number("seed", seed, 0)
    source = find_images(name, Request(n, seed, split, image_column, label_column))
    images = Images(name, decode(name, source.pictures, size), source.labels, source.classes, seed)
    if source.keep_at is not None:
        _keep(source, source.keep_at)
    return images


def read_parquet(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 (N, H, W, 3), and labels, int64 (N,), of a parquet file in the order of its rows."""
    source = _parquet_file(path, Request())
    if source.labels is None:
        raise VitcnnError(f"{path} has no labels: give a file with a column of classes")
    return decode(str(path), source.pictures, size=None), source.labels


def balanced_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of the N `labels` in which the classes take turns, so that every first part of it is balanced."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = np.argsort(labels[shuffled], kind="stable")
    _, starts, counts = np.unique(labels[shuffled][by_class], return_index=True, return_counts=True)
    turn = np.empty(len(labels), dtype=np.int64)  # an image's place within its class
    turn[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return shuffled[np.argsort(turn, kind="stable")]


class Picture(NamedTuple):
    """An encoded image: its bytes, or where to read them; `where` names it in errors."""

    where: str
    data: bytes | None
    path: str | None


class Source(NamedTuple):
    """What is known of a set of images before any of them is decoded."""

    pictures: Sequence[Picture]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    keep_at: Path | None = None


class Request(NamedTuple):
    """The arguments of `load_images` that choose among images, as some kinds of source only understand."""

    n: int | None = None
    seed: int = 0
    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None

    def refuse(self, name: str, *arguments: str) -> None:
        for argument in arguments:
            if getattr(self, argument) is not None:
                raise VitcnnError(f"{argument}={getattr(self, argument)!r} means nothing for {name}: leave it out")


def find_images(name: str, request: Request) -> Source:
    """What `load_images` will decode, in order; raises the VitcnnError that it would raise."""
    if name in SAMPLES:
        request.refuse(f"the sample {name}", "split", "image_column", "label_column")
        return _draw(_parquet_file(SAMPLES[name], request), name, request)
    path = Path(name).expanduser()
    if path.is_dir() and _tables_in(path):
        return _draw(_parquet_folder(path, request), name, request)
    if path.is_dir():
        request.refuse(f"the folder {name}", "image_column", "label_column")
        return _draw(_folder(path, request.split), name, request)
    if path.suffix == ".parquet":
        request.refuse(f"the file {name}", "split")
        return _draw(_parquet_file(path, request), name, request)
    if path.exists():
        raise VitcnnError(f"{name} is neither a folder of pictures nor a .parquet file: give one of these")
    return _hub(name, request)


def _draw(source: Source, name: str, request: Request) -> Source:
    n, labels = request.n, source.labels
    if n is not None and n > len(source.pictures):
        raise VitcnnError(f"n={n}: {name} has only {len(source.pictures)} images: ask for at most so many")
    order = balanced_order(np.zeros(len(source.pictures)) if labels is None else labels, request.seed)[:n]
    return Source([source.pictures[i] for i in order], None if labels is None else labels[order], source.classes)


# Folders


def _folder(root: Path, split: str | None) -> Source:
    folders = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if split is not None and split not in folders:
        raise VitcnnError(f"split={split!r}: {root} has no such sub-folder: it has {_listed(folders) or 'none'}")
    if split is None and folders and folders.issubset(SPLITS):
        split = next(known for known in SPLITS if known in folders)
    root = root / (split or "")
    paths = _pictures_below(root)
    classes = sorted({path.relative_to(root).parts[0] for path in paths if path.parent != root})
    loose = [path for path in paths if path.parent == root]
    if not paths:
        raise VitcnnError(f"no pictures in {root}: they must end in {', '.join(PICTURE_SUFFIXES)}")
    if classes and loose:
        beside = f"{root} has pictures both in sub-folders and beside them ({loose[0].name})"
        raise VitcnnError(f"{beside}: put each into the folder of its class")
    pictures = [Picture(str(path.relative_to(root)), None, str(path)) for path in paths]
    if not classes:
        return Source(pictures, None, None)
    labels = [classes.index(path.relative_to(root).parts[0]) for path in paths]
    return Source(pictures, np.array(labels, dtype=np.int64), tuple(classes))


def _pictures_below(root: Path) -> list[Path]:
    """Pictures at any depth, behind links to folders too; but no hidden files, such as macOS's `._cat.jpg`."""
    paths = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [subfolder for subfolder in subfolders if not subfolder.startswith(".")]
        paths += [Path(folder, file) for file in files if not file.startswith(".")]
    return sorted(path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES)


# Tables: parquet files, and what the hub's streams consist of


def _parquet_file(path: Path, request: Request) -> Source:
    return _table(_read(path), path.name, request)


def _tables_in(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*.parquet") if not path.name.startswith("."))


def _parquet_folder(root: Path, request: Request) -> Source:
    """One split, as one table: a file's name begins with its split, if there are several, as on the hub."""
    import pyarrow as pa

    paths = _tables_in(root)
    splits = {path.stem.partition("-")[0] for path in paths}
    if request.split is not None or splits.issubset(SPLITS):
        split = _choose_split(request.split, splits, str(root))
        paths = [path for path in paths if path.stem.partition("-")[0] == split]
    try:
        table = pa.concat_tables([_read(path) for path in paths])
    except pa.ArrowException as error:
        raise VitcnnError(f"the files in {root} are no parts of one table: {_one_line_of(error)}") from None
    return _table(table, root.name, request)


def _choose_split(wanted: str | None, splits: Collection[str], name: str) -> str:
    if wanted is None:
        return next((known for known in SPLITS if known in splits), next(iter(splits)))
    if wanted not in splits:
        raise VitcnnError(f"split={wanted!r}: {name} has no such split: it has {_listed(splits)}")
    return wanted


def _read(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read()
    except FileNotFoundError:
        raise VitcnnError(f"no file {path}: check the path") from None
    except (pa.ArrowException, OSError) as error:
        raise VitcnnError(f"{path} cannot be read as parquet: {_one_line_of(error)}") from None


def _table(table: "pa.Table", name: str, request: Request) -> Source:
    features = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    image_column = _image_column(table.schema, features, name, request.image_column)
    label_column = _label_column(table.schema, features, name, request.label_column)
    pictures = _Cells(table[image_column])
    if label_column is None:
        return Source(pictures, None, None)
    labels, classes = _labels(table[label_column], name, label_column)
    return Source(pictures, labels, classes or tuple(features.get(label_column, {}).get("names", ())) or None)


class _Cells(Sequence[Picture]):
    """A column of images, of which only those that are looked at are copied."""

    def __init__(self, column: "pa.ChunkedArray") -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:
        cell = self.column[int(row)].as_py()
        if isinstance(cell, dict):
            path = cell.get("path")
            return Picture(f"row {row} ({path})" if path else f"row {row}", cell["bytes"], path)
        return Picture(f"row {row}", cell, None)


def _image_column(schema: "pa.Schema", features: dict[str, Any], name: str, wanted: str | None) -> str:
    import pyarrow.types as types

    def holds_images(field: "pa.Field") -> bool:
        if types.is_struct(field.type):
            return field.type.get_field_index("bytes") >= 0
        return types.is_binary(field.type) or types.is_large_binary(field.type)

    able = [field.name for field in schema if holds_images(field)]
    declared = [column for column in able if features.get(column, {}).get("_type") == "Image"]
    if wanted is not None:
        return _checked(wanted, able, schema, name, "image_column")
    candidates = declared or able
    if not candidates:
        raise VitcnnError(f"no column of {name} holds encoded images: it has {_listed(schema.names)}")
    if len(candidates) > 1:
        raise VitcnnError(f"several columns of {name} hold images: pass image_column, one of {_listed(candidates)}")
    return candidates[0]


def _label_column(schema: "pa.Schema", features: dict[str, Any], name: str, wanted: str | None) -> str | None:
    import pyarrow.types as types

    integers = [field.name for field in schema if types.is_integer(field.type)]
    strings = [field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)]
    if wanted is not None:
        return _checked(wanted, integers + strings, schema, name, "label_column")
    candidates = [column for column in integers if features.get(column, {}).get("_type") == "ClassLabel"] or integers
    if "label" in candidates:
        return "label"
    if len(candidates) > 1:
        raise VitcnnError(f"several columns of {name} may be labels: pass label_column, one of {_listed(candidates)}")
    return candidates[0] if candidates else None


def _checked(wanted: str, able: list[str], schema: "pa.Schema", name: str, argument: str) -> str:
    if wanted not in schema.names:
        raise VitcnnError(f"{argument}={wanted!r}: {name} has no such column: it has {_listed(schema.names)}")
    if wanted not in able:
        kind = schema.field(wanted).type
        raise VitcnnError(f"{argument}={wanted!r}: this column of {name} holds {kind}: pass one of {_listed(able)}")
    return wanted


def _labels(column: "pa.ChunkedArray", name: str, title: str) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    if column.null_count:
        raise VitcnnError(f"{column.null_count} rows of {name} have no {title}: remove them, or pass label_column")
    values = column.to_numpy()
    if values.dtype == object:
        classes, labels = np.unique(values.astype(str), return_inverse=True)
        return labels.astype(np.int64), tuple(classes.tolist())
    return (None, None) if (values < 0).all() else (values.astype(np.int64), None)


# The hub


class _Address(NamedTuple):
    """A data set on the hub."""

    id: str
    config: str | None
    revision: str | None


def _address(name: str) -> _Address:
    found = re.fullmatch(r"(?P<id>[^:@]*)(:(?P<config>[^@]+))?(@(?P<revision>.+))?", name)
    return _Address(found["id"], found["config"], found["revision"]) if found else _Address(name, None, None)


def _hub(name: str, request: Request) -> Source:
    path = _kept(name, request)
    source = _drawn_before(name, path)
    if source is None:
        source = _draw(_stream(name, request), name, request)._replace(keep_at=path)
    _warn_if_sorted(source, name, request.n)
    return source


def _stream(name: str, request: Request) -> Source:
    import pyarrow as pa

    address = _ask_hub(name)
    with _one_line(f"{name} cannot be read from the hub"), _bounded_retries():
        splits = hub.patiently(lambda: _splits(address), name)
        stream = splits[_choose_split(request.split, splits, name)]
        if request.n is not None:
            pool = pool_size(request.n)
            stream = stream.shuffle(seed=request.seed, buffer_size=pool).take(pool)
        tables = list(stream.with_format("arrow").iter(batch_size=100))
        return _table(pa.concat_tables(tables), name, request)


def pool_size(n: int) -> int:
    """From how many images of a hub data set `n` are drawn, if it has so many."""
    return max(2 * n, POOL)


@dataclass(frozen=True)
class HubDescription:
    """What a data set of the hub says of the split that is taken; None where it does not say.

    count: of images. bytes: of one image, encoded, on average. labelled: whether there is a column of labels.
    """

    count: int | None
    bytes: float | None
    labelled: bool
    classes: tuple[str, ...] | None


def describe_hub(name: str) -> HubDescription:
    """What is told of a data set on the hub without any of its images; VitcnnError where they could not be loaded."""
    address = _ask_hub(name)
    with _one_line(f"{name} cannot be read from the hub"):
        splits = hub.patiently(lambda: _splits(address), name)
        split = _choose_split(None, splits, name)
        stream = splits[split]
        schema = (stream if stream.features else stream._resolve_features()).features.arrow_schema
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        _image_column(schema, features, name, None)
        label = _label_column(schema, features, name, None)
    classes = None if label is None else tuple(features[label].get("names", ())) or None
    told = (stream.info.splits or {}).get(split)
    if told is None or not told.num_examples:
        return HubDescription(None, None, label is not None, classes)
    return HubDescription(told.num_examples, told.num_bytes / told.num_examples, label is not None, classes)


def _warn_if_sorted(source: Source, name: str, n: int | None) -> None:
    if n is None or source.labels is None or source.classes is None:
        return
    met, expected = len(np.unique(source.labels)), min(n, len(source.classes))
    if 2 * met < expected:
        advice = "it seems to be sorted by class: download it and pass a folder or a .parquet file"
        found = f"{met} of {len(source.classes)} classes among the first {pool_size(n)} images of {name}"
        warnings.warn(f"{found}: {advice}", stacklevel=4)


def _ask_hub(name: str) -> _Address:
    """The data set with the commit that its revision is now.

    A question of our own, because `datasets` takes half a minute of retries to find out that nobody answers.
    """
    try:
        import datasets  # noqa: F401
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
    except ModuleNotFoundError as error:
        raise VitcnnError(f"no folder or file {name}, and the hub needs {error.name}: pip install datasets") from None
    near = get_close_matches(name.lower(), SAMPLES, n=1, cutoff=0.8)
    hint = f"did you mean {near[0]!r}?" if near else "pass a folder, a .parquet file, a hub id or 'cifar10'"
    id, config, revision = _address(name)
    try:
        info = hub.patiently(lambda: HfApi().dataset_info(id, revision=revision, timeout=10), name)
    except HFValidationError:
        raise VitcnnError(f"no folder or file {name}, and no hub id has this form: {hint}") from None
    except Exception as error:  # which exceptions say so depends on the version of the HTTP client
        if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
            raise VitcnnError(f"no folder, file or public data set on the hub is called {id}: {hint}") from None
        problem = f"{name} is no folder or file, and could not be had from the hub ({hub.reason(error)})"
        otherwise = "otherwise, pass a folder of pictures, a .parquet file or 'cifar10'"
        raise VitcnnError(f"{problem}: {hint if near else otherwise}") from None
    return _Address(id, config, info.sha)


def _splits(address: _Address) -> "datasets.IterableDatasetDict":
    import datasets

    id, config, revision = address
    try:
        return datasets.load_dataset(id, config, revision=revision, streaming=True)
    except ValueError:
        configs = datasets.get_dataset_config_names(id, revision=revision)
        if config in configs or (config is None and len(configs) == 1):
            raise
        there = ", ".join(f"{id}:{known}" for known in configs)
        wrong = "has several configurations" if config is None else f"has no configuration {config}"
        raise VitcnnError(f"{id} {wrong}: pass one of {there}") from None


@contextmanager
def _bounded_retries() -> Iterator[None]:
    """While open, `datasets` reads again 3 times after a fault, not 20 times, which would take up to 20 minutes."""
    import datasets

    before = datasets.config.STREAMING_READ_MAX_RETRIES
    datasets.config.STREAMING_READ_MAX_RETRIES = 3
    try:
        yield
    finally:
        datasets.config.STREAMING_READ_MAX_RETRIES = before


@contextmanager
def _one_line(problem: str) -> Iterator[None]:
    try:
        yield
    except VitcnnError:
        raise
    except Exception as error:  # data set, network and format each bring exceptions of their own
        instead = "download it and pass a folder or a .parquet file"
        raise VitcnnError(f"{problem} ({hub.reason(error)}): {instead}") from error


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
        source = _parquet_file(path, Request())
    except VitcnnError as error:
        _logger.warning("%s; it is drawn again", error)
        return None
    _logger.info("%s: %d images drawn before, from %s", name, len(source.pictures), path)
    return source


def _keep(source: Source, path: Path) -> None:
    """Writes images, all or nothing; a place that cannot be written to costs only that they are not kept."""
    try:
        with replacing(path) as partial:
            _write(source, partial)
    except OSError as error:
        _logger.warning("the images are not kept for later in %s: %s", path, error)


def _write(source: Source, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if source.labels is not None:
        fields.append(("label", pa.int64()))
        features["label"] = {"_type": "ClassLabel", "names": list(source.classes)} if source.classes else {}
    schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for start in range(0, len(source.pictures), 500):  # an array of bytes holds 2 GB at most
            pictures = source.pictures[start : start + 500]
            columns: dict[str, Any] = {"image": [{"bytes": _bytes(p), "path": p.path} for p in pictures]}
            if source.labels is not None:
                columns["label"] = source.labels[start : start + 500]
            writer.write_table(pa.table(columns, schema=schema))


# Decoding


def decode(name: str, pictures: Sequence[Picture], size: int | None) -> np.ndarray:
    """uint8 (N, H, W, 3); size: as for `load_images`. VitcnnError names all that are no images, or differ in size."""
    from tqdm import tqdm

    if not len(pictures):
        raise VitcnnError(f"{name} has no images: give a source that has some")
    arrays, bad = [], []
    for picture in tqdm(pictures, desc=f"reading {name}", disable=None, delay=1, leave=False):
        try:
            arrays.append(_pixels(picture, size))
        except Exception as error:  # Pillow's decoders raise whatever their parsers meet
            reason = str(error) if isinstance(error, VitcnnError) else _kind(error)
            bad.append(f"{picture.where} ({reason})")
    if bad:
        raise VitcnnError(
            f"{len(bad)} images of {name} cannot be read: mend, remove or download again {', '.join(bad)}"
        )
    sizes = {array.shape[1::-1]: picture.where for picture, array in zip(pictures, arrays, strict=True)}
    if len(sizes) > 1:
        two = " and ".join(f"{where} is {width} x {height}" for (width, height), where in list(sizes.items())[:2])
        raise VitcnnError(f"the images of {name} differ in size ({two}): pass size, the side to resize them to")
    return np.stack(arrays)


def _pixels(picture: Picture, size: int | None) -> np.ndarray:
    """uint8 (H, W, 3)"""
    from PIL import Image

    with Image.open(io.BytesIO(_bytes(picture))) as image:
        upright = _rgb(image)
    return np.asarray(upright if size is None else _square(upright, size))


def _bytes(picture: Picture) -> bytes:
    if picture.data is not None:
        return picture.data
    if picture.path is None:
        raise VitcnnError("empty")
    import fsspec

    with fsspec.open(picture.path, "rb") as file:  # on the hub a path is hf://…
        return file.read()


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
    from PIL import Image

    shorter = min(image.size)
    width, height = (size * side // shorter for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image if shorter == size else image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


# Words for errors


def _listed(names: Any) -> str:
    return ", ".join(sorted(map(str, names)))


def _kind(error: Exception) -> str:
    return type(error).__name__


def _one_line_of(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or _kind(error)
