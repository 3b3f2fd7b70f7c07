"""Images: what every measure is computed on, and where they come from."""

import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitcnn_utils import hub_data
from vitcnn_utils.errors import LARGEST, VitcnnError, whole_number
from vitcnn_utils.files import replacing
from vitcnn_utils.hub import one_line
from vitcnn_utils.hub_data import SPLITS, best_split, listed

if TYPE_CHECKING:
    import datasets
    from PIL import Image

SAMPLES = {name: Path(__file__).parent / "samples" / f"{name}.parquet" for name in ("cifar10", "fashion-mnist")}

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Of the files in a folder that are pictures."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow may open. Others can do more than hold pixels: for EPS it runs Ghostscript."""

KINDS = {"image": ("Image", "bytes"), "label": ("ClassLabel", "integer", "string")}
"""What a column of images or of labels can hold, best first."""

POOL = 1000
"""The fewest images of a hub data set that a subset is drawn from."""

MOST_ROWS = 10_000_000
"""Rows of a table: a small file can claim any number of them."""

MEND_TABLE = "write it again, or delete it if it was drawn from the hub"

MOST_NAMED = 200
"""Files or rows that one error names."""

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
) -> Images:
    """`n` images (None: all), in an order drawn with `seed` in which the classes take turns.

    So every subset, and every batch, is class-balanced as far as the classes go (counts differ by at most 1 until a
    class runs out), and fewer images with the same seed are the first of more images.

    Args:
        name: `cifar10` (2,500 test images) or `fashion-mnist` (1,500 test images), which ship with the package; a
            folder of pictures, whose sub-folders, if any, are the classes; a `.parquet` file, or a folder of them;
            anything else is a data set on the Hugging Face hub, `OWNER/NAME`, with `:CONFIG` if it has several
            configurations and `@REVISION` if it must be that one. Of several splits (sub-folders, or files whose names
            begin so), it is the test split, else validation, else train. Of one on the hub, `n` images are chosen from
            the first `max(2 n, 1000)` that a shuffled stream gives. These are kept, in `vitcnn_utils` in the assets of
            the hub's cache (`HF_ASSETS_CACHE`), and used from then on, offline too; delete a file to draw again.
        n: how many images.
        size: the side in pixels of the square that each image is made: its shorter side resized to it (bicubic,
            antialiased), then cropped in the centre, with no margin cut off. None leaves the images as they are.
        seed: draws the order.

    In a table, images are the column called `image`, or the only one of images; labels the column called `label`, or
    the first of classes, or the only one of integers. Without one, the images have no labels; nor have they where all
    are negative, which is how the hub hides those of a test split. Strings are numbered in alphabetic order.

    Grey, palette and transparent images become RGB (transparency is dropped), upright as their EXIF data say.
    Raises a VitcnnError of one line where that cannot be done; it names all files that are not images.
    """
    name = str(name)
    n = None if n is None else whole_number("n", n)
    size = None if size is None else whole_number("size", size)
    seed = whole_number("seed", seed, 0, LARGEST)
    with one_line(f"{name} cannot be read"):
        source = find_images(name)
        if source is not None:
            return _decoded(source, source.order(n, seed), size, seed)
        with _drawn(name, n, seed) as path:
            source = _parquet([path], name)
            images = _decoded(source, source.order(n, seed), size, seed)
    if n is not None and images.labels is not None and images.classes is not None:
        met = len(np.unique(images.labels))
        if 2 * met < min(n, len(images.classes)):
            found = f"{met} of {len(images.classes)} classes among the images drawn from {name}"
            warnings.warn(f"{found}: it seems to be sorted by class: {hub_data.DOWNLOAD}", stacklevel=2)
    return images


def read_parquet(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 (N, H, W, 3), and labels, int64 (N,), of a parquet file in the order of its rows."""
    source = _parquet([path], str(path))
    if source.labels is None:
        raise VitcnnError(f"{path} has no labels: give a file with a column of classes")
    return _decoded(source, np.arange(source.count)).pixels, source.labels


def balanced_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random order of the N `labels` in which the classes take turns, so that every first part of it is balanced."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = np.argsort(labels[shuffled], kind="stable")
    _, starts, counts = np.unique(labels[shuffled][by_class], return_index=True, return_counts=True)
    turn = np.empty(len(labels), dtype=np.int64)  # an image's place within its class
    turn[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return shuffled[np.argsort(turn, kind="stable")]


@dataclass(frozen=True)
class Source:
    """All images of a folder or table, in its own order, before they are decoded.

    cells: of each image, what names it in errors, and its bytes or the file that has them.
    """

    name: str
    count: int
    cells: Iterable[tuple[str, bytes | Path | None]]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None

    def order(self, n: int | None, seed: int) -> np.ndarray:
        """The images to take, (n,), see `load_images`."""
        if n is not None and n > self.count:
            raise VitcnnError(f"n={n}: {self.name} has only {self.count} images: ask for at most so many")
        return balanced_order(np.zeros(self.count) if self.labels is None else self.labels, seed)[:n]


def find_images(name: str) -> Source | None:
    """The images that are on this machine under a name, see `load_images`; None where it can only be a hub id."""
    if not name.strip():
        raise VitcnnError("the name of the images is empty: pass a folder, a .parquet file, a hub id or 'cifar10'")
    path = SAMPLES.get(name) or Path(os.path.expanduser(name))  # Path.expanduser has an error of its own for ~nobody
    tables = sorted(path.glob("[!.]*.parquet")) if path.is_dir() else [path] * (path.suffix == ".parquet")
    if tables:
        return _parquet(_of_split(tables), name)
    if path.is_dir():
        return _folder(path, name)
    if path.exists():
        raise VitcnnError(f"{name} is neither a folder of pictures nor a .parquet file: give one of these")
    return None


def _of_split(files: list[Path]) -> list[Path]:
    """The parquet files of one split: a file's name begins with its split, if there are several, as on the hub."""
    splits = {path.stem.partition("-")[0] for path in files}
    if not splits.issubset(SPLITS):
        return files
    return [path for path in files if path.stem.partition("-")[0] == best_split(splits)]


# Folders. The imagefolder of `datasets` loses pictures without a word: where one is called train_1.png it leaves out
# all that are not called so, and it loses a class that is the only one, linked folders, and paths with brackets.


def _folder(root: Path, name: str) -> Source:
    folders = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if folders and folders.issubset(SPLITS):
        root = root / best_split(folders)
    files = sorted(_pictures_below(root))
    if not files:
        raise VitcnnError(f"no pictures in {root}: they must end in {', '.join(SUFFIXES)}")
    cells = [(str(file.relative_to(root)), file) for file in files]
    loose = [file.name for file in files if file.parent == root]
    if len(loose) == len(files):
        return Source(name, len(files), cells, None, None)
    if loose:
        beside = f"{root} has pictures both in sub-folders and beside them ({loose[0]})"
        raise VitcnnError(f"{beside}: put each into the folder of its class")
    labels, classes = _numbered([file.relative_to(root).parts[0] for file in files])
    return Source(name, len(files), cells, labels, classes)


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


def _numbered(words: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The number of each word among the different words in alphabetic order, int64 (N,), and these."""
    classes, labels = np.unique(np.array(words, dtype=object), return_inverse=True)
    return labels.astype(np.int64), tuple(classes.tolist())


# Tables


def _parquet(paths: list[Path], name: str) -> Source:
    """The images of a table in several files, read in small pieces.

    A path in a row is not opened: a parquet file may come from anywhere and name any file of this machine or of others.
    """
    import datasets
    import pyarrow.parquet as pq

    files = []
    for path in paths:
        if not path.exists():
            raise VitcnnError(f"no file {path}: check the path")
        with one_line(f"{path} cannot be read as parquet", MEND_TABLE):
            files.append(pq.ParquetFile(path, page_checksum_verification=True))
        if not files[-1].schema_arrow.equals(files[0].schema_arrow):
            raise VitcnnError(f"the files in {name} are not parts of one table: {path.name} has other columns")

    def read(column: str) -> Iterator[Any]:
        for path, file in zip(paths, files, strict=True):
            with one_line(f"{path} cannot be read as parquet", MEND_TABLE):
                for batch in file.iter_batches(batch_size=64, columns=[column]):
                    yield from batch.column(0).to_pylist()

    count = sum(file.metadata.num_rows for file in files)
    if count > MOST_ROWS:
        raise VitcnnError(f"{name} has {count:,} rows: take a part of them, at most {MOST_ROWS:,}")
    with one_line(f"the columns of {name} cannot be understood", "write the file again"):
        features = datasets.Features.from_arrow_schema(files[0].schema_arrow)
    image, label = _column("image", features, name), _column("label", features, name)
    if image is None:
        raise VitcnnError(f"no column of {name} holds encoded images: it has {listed(features)}")
    labels, classes = _labels(list(read(label)), features[label], name, label) if label else (None, None)
    return Source(name, count, (_cell(row, value) for row, value in enumerate(read(image))), labels, classes)


def _cell(row: int, value: Any) -> tuple[str, bytes | None]:
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    return f"row {row} ({path})" if path else f"row {row}", data


def _column(what: str, features: "datasets.Features", name: str) -> str | None:
    """The column called `what`, or else the only one of the best kind, of classes the first; None without any."""
    kinds = {column: _kind(feature) for column, feature in features.items()}
    if kinds.get(what) in KINDS[what]:
        return what
    for best in KINDS[what][:2]:  # a column of strings may hold anything
        columns = [column for column, kind in kinds.items() if kind == best]
        if len(columns) > 1 and best != "ClassLabel":
            several = f"{name} has several columns that may be the {what}"
            raise VitcnnError(f"{several}: rename one of {listed(columns)} to {what}")
        if columns:
            return columns[0]
    return None


def _kind(feature: Any) -> str:
    """What a column holds: one of `KINDS`, or the name of another type."""
    import datasets

    dtype = str(getattr(feature, "dtype", "struct"))
    if isinstance(feature, datasets.Image | datasets.ClassLabel):
        return type(feature).__name__
    if "binary" in dtype or (isinstance(feature, dict) and "bytes" in feature):
        return "bytes"
    return "integer" if "int" in dtype else dtype.removeprefix("large_")


def _labels(
    values: list[Any], feature: Any, name: str, column: str
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """The number of each row's class, (N,), and the names of the classes; None for what is not known."""
    missing = sum(value is None or (not isinstance(value, str) and value < 0) for value in values)
    if missing == len(values):  # so the hub hides the labels of a test split
        return None, None
    if missing:
        raise VitcnnError(f"{missing} rows of {name} have no {column}: remove them, or call another column label")
    if _kind(feature) == "string":
        return _numbered(values)
    names = tuple(map(str, getattr(feature, "names", None) or ())) or None
    if max(values) >= (len(names) if names else 2**63):
        known = f"its classes have {len(names)} names" if names else "that is not a class"
        raise VitcnnError(f"a row of {name} has the {column} {max(values)}, but {known}: mend the file")
    return np.array(values, dtype=np.int64), names


# What was drawn from the hub


@contextmanager
def _drawn(name: str, n: int | None, seed: int) -> Iterator[Path]:
    """A parquet file of rows of a hub data set: one kept before, or a new one, kept if its images can be read."""
    from huggingface_hub import constants

    pool = None if n is None else max(2 * n, POOL)
    key = hashlib.sha256(json.dumps([name, pool, seed]).encode()).hexdigest()[:12]
    folder = Path(constants.HF_ASSETS_CACHE) / "vitcnn_utils" / hub_data.address(name)[0].replace("/", "--")
    kept = folder / f"{pool or 'all'}-seed{seed}-{key}.parquet"
    if os.path.exists(kept):
        _logger.info("%s: images drawn before, from %s", name, kept)
        yield kept
        return
    info = hub_data.ask(name)
    with one_line(f"{name} cannot be read from the hub", hub_data.DOWNLOAD), replacing(kept) as partial:
        hub_data.draw(name, info, pool, seed, partial)
        yield partial


# Decoding


def _decoded(source: Source, order: np.ndarray, size: int | None = None, seed: int | None = None) -> Images:
    """The images of a source in this order; VitcnnError names all that are not images, or differ in size."""
    from tqdm import tqdm

    name, n = source.name, len(order)
    if not n:
        raise VitcnnError(f"{name} has no images: give a source that has some")
    if size is not None:
        _check_room(n, size, size)
    place = np.full(source.count, -1)
    place[order] = np.arange(n)
    pixels: np.ndarray | None = None
    sizes: dict[tuple[int, int], str] = {}
    bad = []
    cells = tqdm(source.cells, desc=f"reading {name}", total=source.count, disable=None, delay=1, leave=False)
    for at, (where, data) in zip(place, cells, strict=True):
        if at < 0:
            continue
        try:
            array = _pixels(data, size)
        except Exception as error:  # Pillow's decoders raise errors of many kinds
            bad.append(f"{where} ({error if isinstance(error, VitcnnError) else type(error).__name__})")
            continue
        height, width = array.shape[:2]
        sizes.setdefault((height, width), f"{where} is {width} x {height}")
        if pixels is None:
            _check_room(n, height, width)
            pixels = np.empty((n, height, width, 3), np.uint8)
        if len(sizes) == 1:
            pixels[at] = array
    if bad or pixels is None:
        more = f" and {len(bad) - MOST_NAMED:,} more" if len(bad) > MOST_NAMED else ""
        many = f"{len(bad)} images of {name} cannot be read"
        raise VitcnnError(f"{many}: mend, remove or download again {', '.join(bad[:MOST_NAMED])}{more}")
    if len(sizes) > 1:
        two = " and ".join(list(sizes.values())[:2])
        raise VitcnnError(f"the images of {name} differ in size ({two}): pass size, the side to resize them to")
    return Images(name, pixels, None if source.labels is None else source.labels[order], source.classes, seed)


def _check_room(count: int, height: int, width: int) -> None:
    import torch

    from vitcnn_utils.run import room

    wanted, free = count * height * width * 3, room(torch.device("cpu"))
    if wanted > free:
        images = f"{count:,} images of {width} x {height} pixels take {wanted / 1e9:,.1f} GB"
        raise VitcnnError(f"{images}, and {free / 1e9:,.1f} GB are free: take fewer or smaller images")


def _pixels(data: bytes | Path | None, size: int | None) -> np.ndarray:
    """uint8 (H, W, 3)"""
    from PIL import Image

    if data is None:
        raise VitcnnError("no image in it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that are odd
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(data if isinstance(data, Path) else io.BytesIO(data), formats=FORMATS) as image:
            upright = _rgb(image)
    return np.asarray(upright if size is None else _square(upright, size))


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
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import center_crop, resize

    shorter, longer = sorted(image.size)
    if size * size * longer // shorter > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise VitcnnError(f"{size} x {size * longer // shorter} pixels are more than {Image.MAX_IMAGE_PIXELS:,}")
    return center_crop(resize(image, [size], InterpolationMode.BICUBIC, antialias=True), [size, size])
