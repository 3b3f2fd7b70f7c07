"""Images: the shipped samples, the four kinds of source, the order of a subset, and each error a user can cause."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Fault, serve
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.hub_data import address
from vitcnn_utils.images import SAMPLES, Images, balanced_order, load_images, read_parquet

TEST_SETS = {
    "cifar10": Path(os.environ.get("VITCNN_DATA", "data/cifar10")) / "test-00000-of-00001.parquet",
    "fashion-mnist": Path("/usr/share/datasets/fashion-mnist"),  # Debian's dataset-fashion-mnist
}
CLASSES = ["cat", "dog", "owl"]
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": CLASSES}}


def picture(seed: int, width: int = 6, height: int = 5) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **options})
    return file.getvalue()


def write_table(path: Path, columns: dict[str, object], features: dict[str, object] | None = None) -> Path:
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def cells(count: int, first: int = 0) -> list[dict[str, object]]:
    return [{"bytes": encoded(picture(i)), "path": None} for i in range(first, first + count)]


def publish(path: Path, count: int = 30, first: int = 0) -> None:
    """A table of pictures, of which number i has the class i % 3."""
    labels = [i % 3 for i in range(first, first + count)]
    write_table(path, {"image": cells(count, first), "label": labels}, FEATURES)


def assert_labelled(images: Images, count: int) -> None:
    """Each of `count` pictures is there once, with its class."""
    number = {np.asarray(picture(i)).tobytes(): i for i in range(count)}
    found = [number[image.tobytes()] for image in images.pixels]
    assert sorted(found) == list(range(count))
    assert images.classes == tuple(CLASSES)
    assert images.labels is not None
    assert images.labels.tolist() == [i % 3 for i in found]


def assert_same(one: Images, other: Images) -> None:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.name, one.classes) == (other.name, other.classes)


def refusal(*arguments: object, **keywords: object) -> str:
    """The message with which `load_images` refuses; it must be one line."""
    with pytest.raises(VitcnnError) as caught:
        load_images(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The samples that ship


@pytest.mark.parametrize(
    ("name", "count", "side", "megabytes"), [("cifar10", 2500, 32, 6), ("fashion-mnist", 1500, 28, 1)]
)
def test_sample_is_balanced_and_small(name: str, count: int, side: int, megabytes: int) -> None:
    images = load_images(name)
    assert images.pixels.shape == (count, side, side, 3)
    assert images.labels is not None and images.labels.dtype == np.int64
    assert np.bincount(images.labels).tolist() == [count // 10] * 10
    assert images.classes is not None and len(images.classes) == 10
    assert SAMPLES[name].stat().st_size <= megabytes * 1e6


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_has_the_pixels_and_names_of_the_test_set(name: str) -> None:
    if not TEST_SETS[name].exists():
        pytest.skip(f"the whole test set, {TEST_SETS[name]}, is not on this machine")
    from make_samples import read_idx

    pixels, labels = (read_parquet if name == "cifar10" else read_idx)(TEST_SETS[name])
    paths = [cell["path"] for cell in pq.read_table(SAMPLES[name])["img"].to_pylist()]
    indices = [int(path.removeprefix("test-").removesuffix(".webp")) for path in paths]
    assert len(set(indices)) == len(indices)
    sample_pixels, sample_labels = read_parquet(SAMPLES[name])
    grey = pixels.ndim == 3
    np.testing.assert_array_equal(sample_pixels, np.stack([pixels[indices]] * 3, -1) if grey else pixels[indices])
    np.testing.assert_array_equal(sample_labels, labels[indices])
    if name == "cifar10":
        described = json.loads(pq.read_schema(TEST_SETS[name]).metadata[b"huggingface"])
        assert load_images(n=1).classes == tuple(described["info"]["features"]["label"]["names"])


def test_import_is_light() -> None:
    heavy = "{'torch', 'datasets', 'pyarrow', 'PIL'}"
    subprocess.run(
        [sys.executable, "-c", f"import sys, vitcnn_utils.images; assert not {heavy} & set(sys.modules)"], check=True
    )


# The order of images


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 5), st.data())
def test_classes_take_turns(labels: list[int], seed: int, data: st.DataObject) -> None:
    order = balanced_order(np.array(labels), seed)
    assert sorted(order) == list(range(len(labels)))
    n = data.draw(st.integers(1, len(labels)))
    taken, available = (np.bincount(part, minlength=5) for part in (np.array(labels)[order[:n]], np.array(labels)))
    unfinished = taken < available
    if unfinished.any():  # no class is ahead by more than 1 of one that could still give
        assert taken.max() - taken[unfinished].min() <= 1


def test_subset_depends_on_the_seed_alone_and_smaller_ones_lie_in_larger_ones() -> None:
    small, large, other = (load_images(n=n, seed=seed) for n, seed in ((np.int64(30), 1), (95, 1), (95, np.int32(2))))
    np.testing.assert_array_equal(small.pixels, large.pixels[:30])
    np.testing.assert_array_equal(small.labels, large.labels[:30])
    assert (small.seed, other.seed, Images("mine", small.pixels).seed) == (1, 2, None)
    assert_same(load_images(n=95, seed=1), large)
    assert (other.pixels != large.pixels).any()
    assert np.bincount(small.labels).tolist() == [3] * 10


# Images


@pytest.mark.parametrize("index", [slice(1, 3), np.array([4, 0]), np.array([True, False, True, False, False])])
def test_part_of_images(index: slice | np.ndarray) -> None:
    pixels = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    part = Images("some", pixels, np.arange(5), ("a", "b", "c", "d", "e"), seed=7)[index]
    assert (part.name, part.classes, part.seed) == ("some", ("a", "b", "c", "d", "e"), 7)
    np.testing.assert_array_equal(part.pixels, pixels[index])
    np.testing.assert_array_equal(part.labels, np.arange(5)[index])


def test_images_that_do_not_fit_together() -> None:
    for pixels in (np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(VitcnnError, match="must be uint8"):
            Images("mine", pixels)
    with pytest.raises(VitcnnError, match=r"labels \(3,\) for 2 images"):
        Images("mine", np.zeros((2, 4, 4, 3), np.uint8), np.arange(3))


# Pictures to pixels


@pytest.mark.parametrize("shape", [(50, 37), (37, 50), (16, 40), (9, 9)])
def test_resize_is_that_of_torchvision(tmp_path: Path, shape: tuple[int, int]) -> None:
    from torchvision import transforms

    image = picture(0, *shape)
    image.save(tmp_path / "a.png")
    resize = transforms.Resize(16, transforms.InterpolationMode.BICUBIC, antialias=True)
    expected = transforms.CenterCrop(16)(resize(image))
    np.testing.assert_array_equal(load_images(tmp_path, size=16).pixels[0], np.asarray(expected))


TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be shown turned clockwise
GREYS = np.arange(30, dtype=np.uint16).reshape(5, 6) * 2000
MODES = {
    "grey": (encoded(picture(0).convert("L")), picture(0).convert("L").convert("RGB")),
    "palette": (encoded(picture(0).quantize(8), transparency=bytes(8)), picture(0).quantize(8).convert("RGB")),
    "transparent": (encoded(picture(0).convert("RGBA")), picture(0)),
    "16 bits": (encoded(Image.fromarray(GREYS)), Image.fromarray((GREYS // 256).astype(np.uint8)).convert("RGB")),
    "turned": (encoded(picture(0), exif=TURNED), np.rot90(np.asarray(picture(0)), -1)),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_other_modes_become_rgb_and_upright(tmp_path: Path, mode: str) -> None:
    content, expected = MODES[mode]
    (tmp_path / "a.png").write_bytes(content)
    np.testing.assert_array_equal(load_images(tmp_path).pixels[0], np.asarray(expected))


# Folders


def test_folder_without_classes(tmp_path: Path) -> None:
    for i, suffix in enumerate(("png", "bmp", "webp", "PPM", "tiff")):
        picture(i).save(tmp_path / f"{i}.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "._0.png").write_text("a hidden file of macOS")
    images = load_images(tmp_path)
    assert (len(images), images.labels, images.classes, images.name) == (5, None, None, str(tmp_path))
    assert {i.tobytes() for i in images.pixels} == {np.asarray(picture(i)).tobytes() for i in range(5)}


def class_folders(root: Path) -> None:
    for i, name in enumerate(CLASSES):
        (root / name / "deeper").mkdir(parents=True)
        picture(i).save(root / name / "a.png")
        picture(3 + i).save(root / name / "deeper" / "b.png")


def test_sub_folders_are_classes_or_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "train")
    assert_labelled(load_images(tmp_path / "train"), 6)
    (tmp_path / "val" / "owl").mkdir(parents=True)
    picture(7).save(tmp_path / "val" / "owl" / "a.png")
    assert (load_images(tmp_path).classes, load_images(tmp_path).name) == (("owl",), str(tmp_path))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    class_folders(tmp_path / "all")
    for link, target in (("owl/again", "."), ("cat/dogs", "dog"), ("dog/cats", "cat")):
        (tmp_path / "all" / link).symlink_to(tmp_path / "all" / target)
    images = load_images(tmp_path / "all")
    assert len({image.tobytes() for image in images.pixels}) == 6
    assert images.classes == tuple(CLASSES)
    assert len(images) < 20
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "owl").symlink_to(tmp_path / "all" / "owl")
    assert load_images(tmp_path / "few").classes == ("owl",)


WHOLE = encoded(picture(0, 60, 60))
GHOST = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
FLOATS = encoded(Image.fromarray(np.ones((4, 4), np.float32)), format="TIFF")
FOLDERS: dict[str, tuple[dict[str, bytes], list[str]]] = {
    "every bad file is named": (
        {"a.png": WHOLE, "cut.png": WHOLE[:900], "empty.jpg": b"", "text.webp": b"hello"},
        ["3 images of ", "cut.png (", "empty.jpg (UnidentifiedImageError)", "text.webp (UnidentifiedImageError)"],
    ),
    "or counted": ({f"{i:03}.png": b"" for i in range(201)}, ["201 images of ", " and 1 more"]),
    "names that would break the line": (
        {"a\n\x1b[31mb.png": b"no picture"},
        ["a\\n\\x1b[31mb.png (UnidentifiedImageError)"],
    ),
    "formats that hold more than pixels": ({"a.png": GHOST}, ["a.png (UnidentifiedImageError)"]),
    "values without a range": ({"a.tiff": FLOATS}, ["a.tiff (its values have no known range)"]),
    "no pictures": ({"notes.txt": b"x"}, ["no pictures in "]),
    "pictures beside classes": ({"cat/a.png": WHOLE, "loose.png": WHOLE}, ["beside them (loose.png)"]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folder_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    files, said = FOLDERS[kind]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, size=224)
    assert all(words in message for words in said)


def test_images_that_would_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name, width in (("bomb", 60), ("large", 30), ("narrow", 1)):
        picture(0, width, 60).save(tmp_path / f"{name}.png")
    message = refusal(tmp_path, size=16)
    assert "bomb.png (DecompressionBombError), large.png (DecompressionBombWarning)" in message
    assert "narrow.png (16 x 960 pixels are more than 1,000)" in message


def test_several_sizes(tmp_path: Path) -> None:
    picture(0, 6, 5).save(tmp_path / "a.png")
    picture(1, 7, 9).save(tmp_path / "b.png")
    assert "differ in size (a.png is 6 x 5 and b.png is 7 x 9): pass size" in refusal(tmp_path)
    assert load_images(tmp_path, size=5).pixels.shape == (2, 5, 5, 3)


# Parquet files

TWO = {"img": cells(2)}


def test_one_parquet_file_or_a_folder_of_them(tmp_path: Path) -> None:
    publish(tmp_path / "one.parquet", 7)
    images = load_images(tmp_path / "one.parquet")
    assert_labelled(images, 7)
    assert images.name == str(tmp_path / "one.parquet")
    pixels, labels = read_parquet(tmp_path / "one.parquet")
    np.testing.assert_array_equal(pixels, [np.asarray(picture(i)) for i in range(7)])
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    publish(tmp_path / "many" / "b-00000-of-00002.parquet", 3)
    publish(tmp_path / "many" / "b-00001-of-00002.parquet", 4, first=3)
    (tmp_path / "many" / "._b-00000-of-00002.parquet").write_text("a hidden file of macOS")
    assert_labelled(load_images(tmp_path / "many"), 7)


def test_splits_of_a_folder_of_parquet_files(tmp_path: Path) -> None:
    for name, count in (("train-00000-of-00001", 5), ("test-00000-of-00002", 2), ("test-00001-of-00002", 1)):
        publish(tmp_path / f"{name}.parquet", count)
    assert len(load_images(tmp_path)) == 3
    write_table(tmp_path / "test-x.parquet", {"img": cells(1)})
    assert "are not parts of one table: test-x.parquet has other columns" in refusal(tmp_path)


def test_parquet_with_bare_bytes_and_words_for_labels(tmp_path: Path) -> None:
    columns: dict[str, object] = {"jpg": [encoded(picture(i)) for i in range(3)], "kind": ["owl", "cat", "owl"]}
    path = write_table(tmp_path / "a.parquet", columns)
    assert load_images(path).labels is None
    images = load_images(write_table(path, columns | {"label": columns["kind"]}))
    assert images.classes == ("cat", "owl")
    assert images.labels is not None
    assert sorted(images.labels) == [0, 1, 1]


COLUMNS = {
    "declared": (
        {"raw": [b"", b""], "img": [cell | {"path": "a.png"} for cell in cells(2)], "y": [1, 0], "index": [7, 8]},
        {"img": {"_type": "Image"}, "y": {"_type": "ClassLabel", "names": ["cat", "owl"]},
         "index": {"_type": "Value", "dtype": "int64"}},
        ("cat", "owl"),
    ),
    "the first of classes": (
        TWO | {"coarse": [0, 0], "fine": [1, 0]},
        {"img": {"_type": "Image"}, "coarse": {"_type": "ClassLabel", "names": ["animal", "vehicle"]},
         "fine": {"_type": "ClassLabel", "names": ["cat", "owl"]}},
        ("animal", "vehicle"),
    ),
    "called label": (TWO | {"label": ["owl", "cat"], "index": [7, 8]}, None, ("cat", "owl")),
    "called image, beside masks": ({"image": cells(2), "label": cells(2)}, None, None),
    "hidden, as of a test split": (TWO | {"label": [-1, -1]}, None, None),
}  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_are_found(tmp_path: Path, case: str) -> None:
    columns, features, classes = COLUMNS[case]
    path = write_table(tmp_path / "a.parquet", columns, features)
    images = load_images(path)
    assert (images.classes, images.labels is None) == (classes, classes is None)
    if classes is None:
        with pytest.raises(VitcnnError, match="has no labels"):
            read_parquet(path)


TABLES = [
    ({"label": [0, 1]}, None, {}, "no column of a.parquet holds encoded images: it has label"),
    (TWO | {"mask": cells(2)}, None, {}, "rename one of img, mask to image"),
    (TWO | {"fine": [0, 1], "coarse": [0, 0]}, None, {}, "rename one of coarse, fine to label"),
    (TWO | {"y": [0, None]}, None, {}, "1 rows of a.parquet have no y"),
    (TWO | {"y": [-1, 1]}, None, {}, "1 rows of a.parquet have no y"),
    (TWO | {"y": [7, 1]}, {"y": {"_type": "ClassLabel", "names": ["no"]}}, {}, "has the y 7, but its classes have 1"),
    (TWO | {"y": np.array([2**63, 1], np.uint64)}, None, {}, f"has the y {2**63}, but that is not a class"),
    (TWO, None, {"n": 3}, "n=3: a.parquet has only 2 images"),
    ({"image": pa.array([], pa.binary())}, None, {}, "a.parquet has no images"),
    # Each bad row is named, and no path in a row is opened.
    ({"img": [*cells(1), {"bytes": b"x", "path": "cat.png"}, {"bytes": None, "path": "/etc/hostname"}, None]}, None, {},
     "3 images of a.parquet cannot be read: mend, remove or download again row 1 (cat.png) (UnidentifiedImageError), "
     "row 2 (/etc/hostname) (no image in it), row 3 (no image in it)"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "features", "keywords", "message"), TABLES)
def test_table_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict, features: dict | None, keywords: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "a.parquet", columns, features)
    assert message in refusal("a.parquet", **keywords)


BROKEN_METADATA = [
    "{",
    '{"info": 5}',
    '{"info": {"features": 5}}',
    '{"info": {"features": {"img": 5}}}',
    '{"info": {"features": {"img": {"_type": "Nothing"}}}}',
    '{"info": {"features": {"img": {"_type": "Image"}, "y": {"_type": "ClassLabel", "names": 7}}}}',
    "[" * 100_000,
]


@pytest.mark.parametrize("metadata", BROKEN_METADATA)
def test_broken_metadata(tmp_path: Path, metadata: str) -> None:
    table = pa.table(TWO | {"y": [0, 1]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet cannot be understood (" in refusal(tmp_path / "a.parquet")


def test_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("nothing of the kind")
    assert "cannot be read as parquet" in refusal(tmp_path / "a.parquet")
    assert "no file" in refusal(tmp_path / "b.parquet")
    (tmp_path / "a.csv").write_text("x")
    assert "neither a folder of pictures nor a .parquet file" in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"n": 0}, "n=0: it must be a whole number, 1 or more"),
        ({"n": 1000.0}, "n=1000.0: it must be"),  # papermill's reading of 1e3
        ({"n": "1e3"}, "n='1e3': it must be"),  # YAML's
        ({"size": (32, 32)}, "size=(32, 32): it must be"),
        ({"seed": -1}, "seed=-1: it must be a whole number, 0 to 4294967295"),
        ({"seed": 10**5000}, "seed=a huge number: it must be a whole number, 0 to 4294967295"),
        ({"n": 2501}, "n=2501: cifar10 has only 2500 images"),
        ({"size": 10**6}, "2,500 images of 1000000 x 1000000 pixels take 7,500,000.0 GB"),
        ({"name": ""}, "the name of the images is empty"),
        ({"name": "~nobody-of-this-name/x"}, "no folder or file ~nobody-of-this-name/x"),
        ({"name": "x" * 5000 + ".parquet"}, "cannot be read (OSError: [Errno 36] File name too long"),
    ],
)
def test_arguments_that_mean_nothing(keywords: dict[str, object], said: str) -> None:
    assert said in refusal(**keywords)


# The hub


HUB = """
import json, sys, time, warnings
import datasets
waits = []
time.sleep = waits.append
from vitcnn_utils.images import load_images
from vitcnn_utils.errors import VitcnnError
def watch(event, args):
    if event == "socket.getaddrinfo" and args[0] not in ("127.0.0.1", "localhost"):
        hosts.append(args[0])
hosts = []
sys.addaudithook(watch)
results = []
for arguments in json.loads(sys.argv[1]):
    waits.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            images = load_images(**arguments)
            labels = None if images.labels is None else images.labels.tolist()
            result = {"shape": images.pixels.shape, "labels": labels, "classes": images.classes,
                      "sum": int(images.pixels.sum())}
        except VitcnnError as error:
            result = {"error": str(error)}
    result["warnings"] = [str(w.message) for w in caught if "classes among" in str(w.message)]
    result["waits"] = sum(waits)
    results.append(result)
assert hosts == [], hosts
print("RESULTS" + json.dumps(results))
"""


def on_hub(endpoint: str, home: Path, requests: list[dict[str, object]], **environment: str) -> list[dict]:
    """What `load_images` gives for each of the requests in a process of its own, whose hub is at `endpoint`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    process = subprocess.run(
        [sys.executable, "-c", HUB, json.dumps(requests)],
        env=clean | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.rpartition("RESULTS")[2])


def test_data_sets_of_a_hub(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for name, splits in {"me/pics": ("train", "validation", "test"), "me/odd": ("train", "extra")}.items():
        for i, split in enumerate(splits):
            publish(hub / name / "data" / f"{split}-00000-of-00001.parquet", 30 + i)
    columns = {"image": cells(1) * 2600, "label": [i // 2500 for i in range(2600)]}
    many = FEATURES | {"label": {"_type": "ClassLabel", "names": [f"class {i}" for i in range(50)]}}
    write_table(hub / "me/sorted" / "test.parquet", columns, many)
    for i, kind in enumerate(CLASSES):
        (hub / "me/loose/test" / kind).mkdir(parents=True)
        picture(i).save(hub / "me/loose/test" / kind / "a.png")
    (hub / "me/broken").mkdir()
    (hub / "me/broken" / "test.parquet").write_text("nothing of the kind")
    requests: list[dict[str, object]] = [
        {"name": "me/pics"},
        {"name": "me/pics", "n": 9, "seed": 1},
        {"name": "me/pics", "n": 9, "seed": 1},
        {"name": "me/pics", "n": 9, "seed": 2},
        {"name": "me/odd"},
        {"name": "me/pics", "n": 33},
        {"name": "me/sorted", "n": 40},
        {"name": "me/loose"},
        {"name": "me/broken"},
        {"name": "me/nothing"},
        {"name": "./no/such/folder"},
    ]
    with serve(hub) as endpoint:
        results = iter(on_hub(endpoint, tmp_path / "home", requests))
    whole = next(results)
    expected = sum(int(np.asarray(picture(i)).sum(dtype=np.int64)) for i in range(32))
    assert (whole["shape"], whole["classes"], whole["sum"]) == ([32, 5, 6, 3], CLASSES, expected)
    first, again, other = ({**next(results), "waits": None} for _ in range(3))
    assert np.bincount(first["labels"]).tolist() == [3, 3, 3]
    assert first == again != other
    assert next(results)["shape"] == [30, 5, 6, 3]  # train, where there is neither test nor validation
    assert "me/pics has only 32 images" in next(results)["error"]
    assert "1 of 50 classes among the images drawn from me/sorted" in next(results)["warnings"][0]
    loose = next(results)  # each picture is a file
    assert (loose["shape"], loose["classes"], sorted(loose["labels"])) == ([3, 5, 6, 3], CLASSES, [0, 1, 2])
    errors = [result["error"] for result in results]
    assert not any("\n" in error for error in errors)
    assert "me/broken cannot be read from the hub" in errors[0]
    assert "is called me/nothing: pass a folder of pictures, a .parquet file" in errors[1]
    assert "no folder or file ./no/such/folder" in errors[2]


def test_hub_that_does_not_answer(tmp_path: Path) -> None:
    (refused,) = on_hub("http://127.0.0.1:9", tmp_path, [{"name": "uoft-cs/cifar10"}])
    assert "could not be fetched from the hub (ConnectError: " in refused["error"] and "\n" not in refused["error"]
    assert "pass a folder of pictures, a .parquet file, a hub id or 'cifar10'" in refused["error"]


HUB_FAULTS: dict[str, tuple[Fault, str | None]] = {
    "me/busy": (Fault("/api/datasets/me/busy", 1, 429, {"Retry-After": "7"}), None),
    "me/closed": (Fault("/api/datasets/me/closed", status=503), "be fetched from the hub (the hub answers 503)"),
    "me/full": (Fault("me/full", status=429, headers={"Retry-After": "3600"}), "the hub asks to wait 3600 s, less for"),
    "me/gated": (Fault("me/gated", status=401, headers={"X-Error-Code": "GatedRepo"}), "(gated: accept its conditions"),
    "me/half-gated": (Fault("GET /content/me/half-gated", status=403), "be read from the hub (the hub refuses access)"),
    "me/late": (Fault("GET /content/me/late", 2, 503), None),
    "me/down": (Fault("GET /content/me/down", status=503), "cannot be read from the hub (the hub answers 503)"),
    "me/cut": (Fault("GET /content/me/cut/", 2, cut=100), None),
    "me/cut-off": (Fault("GET /content/me/cut-off", cut=100), "cannot be read from the hub ("),
    "me/flipped": (Fault("GET /content/me/flipped", flip=True), "me/flipped"),
}  # fmt: skip


def test_faults_of_a_hub(tmp_path: Path) -> None:
    for name in HUB_FAULTS:
        publish(tmp_path / "hub" / name / "data" / "test.parquet")
    requests: list[dict[str, object]] = [{"name": name, "n": 20} for name in HUB_FAULTS]
    with serve(tmp_path / "hub", [replace(fault) for fault, _ in HUB_FAULTS.values()]) as endpoint:
        faulty = dict(zip(HUB_FAULTS, on_hub(endpoint, tmp_path / "home", requests), strict=True))
    kept = {path.parent.name.replace("--", "/") for path in (tmp_path / "home").rglob("*.parquet")}
    assert kept == {name for name, (_, message) in HUB_FAULTS.items() if message is None}
    with serve(tmp_path / "hub") as endpoint:
        healthy = dict(zip(HUB_FAULTS, on_hub(endpoint, tmp_path / "home", requests), strict=True))
    expected = {"shape": [20, 5, 6, 3], "classes": CLASSES, "labels": healthy["me/busy"]["labels"]}
    assert np.ptp(np.bincount(healthy["me/busy"]["labels"])) <= 1
    for name, (_, message) in HUB_FAULTS.items():
        assert healthy[name].items() >= expected.items(), name
        assert healthy[name]["sum"] == healthy["me/busy"]["sum"]
        if message is None:
            assert faulty[name].items() >= (expected | {"sum": healthy[name]["sum"]}).items(), name
            assert 0 < faulty[name]["waits"] < 30
            assert healthy[name]["waits"] == 0  # kept
        else:
            assert message in faulty[name]["error"]
            assert "\n" not in faulty[name]["error"]
            assert faulty[name]["waits"] < 200


CONFIGS = """---
configs:
- config_name: cats
  data_files: cats/*.parquet
- config_name: dogs
  data_files: dogs/*.parquet
---
"""


FOREIGN = ["http://localhost:{port}/elsewhere.parquet", "/etc/*.parquet", "../other/*.parquet", "zip://x::/a.zip"]


def test_configurations_revisions_cards_and_one_run_offline(tmp_path: Path) -> None:
    """Neither a host nor a file that a data set's card names is read, and `datasets` tells no host what is loaded."""
    hub = tmp_path / "hub"
    publish(hub / "me/pets/cats/test.parquet", 6)
    publish(hub / "me/pets/dogs/test.parquet", 9)
    (hub / "me/pets/README.md").write_text(CONFIGS)
    publish(hub / "me/one/test.parquet")
    requests: list[dict[str, object]] = [
        {"name": "me/pets:cats"},
        {"name": "me/pets:dogs", "n": 9, "seed": 1},
        {"name": "me/one@main", "n": 5, "size": 4},
        {"name": "me/pets"},
        {"name": "me/pets:owls@main"},
        {"name": "me/one@v2"},
        *({"name": f"me/odd{i}"} for i in range(len(FOREIGN))),
    ]
    asked: list[str] = []
    with serve(tmp_path / "other", log=asked) as other, serve(hub) as endpoint:
        for i, foreign in enumerate(FOREIGN):
            publish(hub / f"me/odd{i}/data/test.parquet", 3)
            files = foreign.format(port=other.rpartition(":")[2])
            card = f"---\nconfigs:\n- config_name: default\n  data_files: [{{split: test, path: '{files}'}}]\n---\n"
            (hub / f"me/odd{i}/README.md").write_text(card)
        online = on_hub(endpoint, tmp_path / "home", requests)
    assert [result["shape"] for result in online[:3]] == [[6, 5, 6, 3], [9, 5, 6, 3], [5, 4, 4, 3]]
    assert "me/pets has several configurations: pass one of me/pets:cats, me/pets:dogs" in online[3]["error"]
    assert "me/pets has no configuration owls: pass one of me/pets:cats" in online[4]["error"]
    assert "me/one@v2 is not a folder or file" in online[5]["error"] and "(no such revision)" in online[5]["error"]
    for i, result in enumerate(online[6:]):
        assert f"me/odd{i} wants to read " in result["error"]
    assert asked == []
    kept = [*requests[:3], {"name": "me/one@main", "n": 5, "size": 8}, {"name": "me/one@main", "n": 5, "seed": 1}]
    offline = on_hub("http://127.0.0.1:9", tmp_path / "home", kept, HF_HUB_OFFLINE="1")
    assert offline[:3] == [{**result, "waits": 0} for result in online[:3]]
    assert offline[3]["labels"] == online[2]["labels"]
    assert "not on this machine, and HF_HUB_OFFLINE forbids to ask" in offline[4]["error"]


def test_name_of_a_hub_data_set() -> None:
    known = {
        "me/pets": ("me/pets", None, None),
        "me/pets:dogs": ("me/pets", "dogs", None),
        "me/pets@v1.0": ("me/pets", None, "v1.0"),
        "me/pets:dogs@refs/convert/parquet": ("me/pets", "dogs", "refs/convert/parquet"),
        "C:": ("C:", None, None),
    }
    assert {name: address(name) for name in known} == known


# What was drawn from the hub is kept

HOME = "hf://datasets/me/pics@main/"


class SmallHub:
    """A hub that gives 12 pictures, 4 of each class, and knows how often it was asked; its cache."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.asked = 0
        self.holds(
            [cell | {"path": f"{i}.png"} for i, cell in enumerate(cells(12))], [CLASSES[i % 3] for i in range(12)]
        )

    def holds(self, pictures: list[object], labels: list[object] | None = None) -> None:
        table = datasets.Dataset.from_dict({"image": pictures} | ({"label": labels} if labels else {}))
        self.stream = table.cast_column("image", datasets.Image()).to_iterable_dataset()

    def ask(self, name: str) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(id="me/pics", sha="main")

    def kept(self) -> list[Path]:
        return [path for path in self.cache.rglob("*") if path.is_file()]


@pytest.fixture
def small_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallHub:
    hub = SmallHub(tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(hub.cache))
    monkeypatch.setattr("vitcnn_utils.hub_data.ask", hub.ask)
    monkeypatch.setattr("vitcnn_utils.hub_data._stream", lambda *_: hub.stream)
    return hub


def test_what_was_drawn_is_used_again(small_hub: SmallHub) -> None:
    first = load_images("me/pics", n=7, seed=3)
    assert_same(load_images("me/pics", n=np.int64(7), seed=3), first)
    assert load_images("me/pics", n=7, seed=3, size=4).pixels.shape == (7, 4, 4, 3)
    np.testing.assert_array_equal(load_images("me/pics", n=6, seed=3).pixels, first.pixels[:6])
    assert small_hub.asked == 1
    (path,) = small_hub.kept()
    assert path.match("vitcnn_utils/me--pics/1000-seed3-*.parquet")
    other: list[dict[str, object]] = [{"n": None}, {"seed": 4}, {"name": "me/pics@v1"}]
    for times, change in enumerate(other, 2):
        load_images(**({"name": "me/pics", "n": 7, "seed": 3} | change))
        assert small_hub.asked == times


def test_deleted_it_is_drawn_again_and_damaged_it_is_to_be_deleted(small_hub: SmallHub) -> None:
    first = load_images("me/pics", n=7)
    (path,) = small_hub.kept()
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(b"PNG")] ^= 1
    for damaged in (content[: len(content) // 2], bytes(flipped), b""):
        path.write_bytes(damaged)
        message = refusal("me/pics", n=7)
        assert f"{path} cannot be read as parquet" in message and "delete it if it was drawn" in message
    path.unlink()
    assert_same(load_images("me/pics", n=7), first)
    assert small_hub.asked == 2


def test_half_written_or_unreadable_it_is_not_kept(small_hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(BaseException):
        """As by Ctrl-C."""

    def stop(source: object, home: str, path: Path) -> None:
        path.write_bytes(b"PAR1 and no more")
        raise Stopped

    small_hub.holds([{"bytes": b"nothing of the kind", "path": None}])
    assert "download again row 0 (UnidentifiedImageError)" in refusal("me/pics")
    monkeypatch.setattr("vitcnn_utils.hub_data._write", stop)
    with pytest.raises(Stopped):
        load_images("me/pics", n=7)
    assert small_hub.kept() == []


def test_a_cache_that_cannot_be_written(small_hub: SmallHub) -> None:
    small_hub.cache.write_text("in the way")
    assert "me/pics cannot be read from the hub (NotADirectoryError: " in refusal("me/pics", n=7)


def test_images_without_labels_or_with_numbers_for_labels_are_kept(small_hub: SmallHub) -> None:
    for labels in (None, [5, 7]):
        small_hub.holds(cells(2), labels)  # type: ignore[arg-type]
        first = load_images("me/pics", seed=len(labels or ""))
        assert_same(load_images("me/pics", seed=len(labels or "")), first)
        assert (first.labels if labels is None else sorted(first.labels)) == labels  # type: ignore[arg-type]
        assert first.classes is None


OWN = [f"{HOME}a.png", f"zip://a.png::{HOME}a.zip"]
OTHERS = [
    "/etc/hostname",
    "http://127.0.0.1/a.png",
    "hf://datasets/me/other@main/a.png",
    f"{HOME}../../other@main/a.png",
    f"http://127.0.0.1/a.png::{HOME}a.zip",
    f"zip://a.png::http://127.0.0.1/x::{HOME}a.zip",
    f"{HOME}a.zip::/etc/hostname",
]


def test_a_hub_data_set_reads_its_own_files_only(small_hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("fsspec.open", lambda url, mode: opened.append(url) or io.BytesIO(encoded(picture(0))))
    small_hub.holds([{"bytes": None, "path": path} for path in OWN + OTHERS])
    message = refusal("me/pics")
    assert sorted(opened) == sorted(OWN)
    for row, path in enumerate(OTHERS, len(OWN)):
        assert f"row {row} ({path}) (no image in it)" in message
    small_hub.holds([{"bytes": None, "path": path} for path in OWN])
    first = load_images("me/pics")
    assert_same(load_images("me/pics"), first)
    assert sorted(opened) == sorted(OWN * 2)  # once they are kept, they are not fetched again
