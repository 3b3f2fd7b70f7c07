"""Whatever a name, a folder, a table or an image holds, `load_images` gives images or one line, and asks no host.

The tests take a few seconds; FUZZ=5000 in the environment makes them try more.
"""

import io
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images, load_images

many = settings(
    max_examples=int(os.environ.get("FUZZ", "80")), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LOOKED_UP: list[object] = []
sys.addaudithook(
    lambda event, values: LOOKED_UP.append(values) if event in ("socket.getaddrinfo", "socket.connect") else None
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No hub, no cache, and at the end no host asked and no 2 GB taken more than before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    LOOKED_UP.clear()
    yield
    assert LOOKED_UP == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (2 << 20)  # KB


def attempt(name: str, **arguments: object) -> Images | None:
    """The images, None where one line refuses them; any other end is a failure."""
    images, line = None, "-"
    try:
        images = load_images(name, **arguments)  # type: ignore[arg-type]
    except VitcnnError as error:
        line = str(error)
    assert line and line.isprintable()
    if images is not None:
        assert len(images) > 0
        if images.labels is not None and images.classes is not None:
            assert set(images.labels) <= set(range(len(images.classes)))
    return images


ODD = ["~", "~x", "/", "..", "http://", "hf://", "zip://", "::", "@", ":", "\0", "\n", "*", "[", "a.parquet", " ",
       "\ud800", "x" * 999]  # fmt: skip


@many
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(ODD), max_size=6).map("".join)), st.integers())
@example("http://localhost:1/a.parquet", 0)
@example("file:///etc/hostname", 0)
@example("~\0", 0)
def test_names(name: str, seed: int) -> None:
    attempt(name, n=2, seed=seed)


def encoded(form: str, side: int = 8) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


FILES = {form: encoded(form) for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")}


@many
@given(st.binary(min_size=1, max_size=250), st.sampled_from(["", "cat/", "cat/deeper/"]))
def test_file_names(name: bytes, below: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, below, os.fsdecode(name.replace(b"/", b"").replace(b"\0", b"")) + ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES["PNG"])
        images = attempt(root)
        assert (images is None) == path.name.startswith(".")
        path.write_text("not a picture")
        assert attempt(root) is None


@many
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.integers(0, 99), st.binary(min_size=1, max_size=8)), max_size=3),
    st.integers(1, 2000),
    st.sampled_from([None, 1, 16, 224, 10_000, 10**9]),
)
@example("PNG", [(16, b"\x7f\xff\xff\xff\x00\x00\x00\x01")], 2000, 224)
@example("PPM", [(0, b"P6 1 9" + b"9" * 7)], 2000, 224)
def test_image_headers(form: str, changes: list[tuple[int, bytes]], kept: int, size: int | None) -> None:
    content = bytearray(FILES[form][:kept])
    for place, other in changes:
        content[place : place + len(other)] = other
    with tempfile.TemporaryDirectory() as root:
        Path(root, "a.png").write_bytes(content)
        attempt(root, size=size)


cell = st.one_of(
    st.none(),
    st.sampled_from(sorted(FILES)).map(lambda form: {"bytes": FILES[form], "path": None}),
    st.sampled_from(["/etc/hostname", "http://localhost:1/a.png", "hf://datasets/a/b@c/d.png", "zip://x::/a.zip"]).map(
        lambda path: {"bytes": None, "path": path}
    ),
    st.binary(max_size=20).map(lambda content: {"bytes": content, "path": "a.png"}),
)
labels = st.one_of(st.none(), st.integers(-2, 3), st.sampled_from([2**63 - 1, -(2**63)]))
words = st.one_of(st.none(), st.text(max_size=5))
odd_json = st.recursive(
    st.none() | st.integers() | st.sampled_from(["Image", "ClassLabel", "Value", "int64", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["_type", "names", "dtype", "info", "features", "image", "label"]), inner)
    ),
)
metadata = st.one_of(
    st.none(),
    st.just({"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}),
    odd_json,
).map(lambda features: json.dumps({"info": {"features": features}}))


@many
@given(st.data(), st.integers(0, 4), st.one_of(metadata, st.text(max_size=9)), st.sampled_from([None, 1, 3]))
def test_parquet_rows(data: st.DataObject, rows: int, described: str, n: int | None) -> None:
    column = data.draw(st.sampled_from([labels, words]))
    columns = {
        "image": pa.array(
            data.draw(st.lists(cell, min_size=rows, max_size=rows)),
            pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        ),
        "label": pa.array(data.draw(st.lists(column, min_size=rows, max_size=rows))),
    }
    with tempfile.TemporaryDirectory() as root:
        table = pa.table(columns).replace_schema_metadata({"huggingface": described.encode("utf-8", "replace")})
        pq.write_table(table, Path(root, "a.parquet"))
        content = Path(root, "a.parquet").read_bytes()
        attempt(root, n=n, size=4)
        cut = data.draw(st.integers(0, len(content) - 1))
        Path(root, "a.parquet").write_bytes(content[:cut] + data.draw(st.binary(max_size=4)) + content[cut + 4 :])
        attempt(f"{root}/a.parquet", n=n, size=4, seed=1)
