"""Executed notebooks to pages: what the book shows, that it is built once, and what is said when it fails."""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import Runs, fill

from vitcnn_utils.editions import book, fingerprint
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import alone

ROOT = Path(__file__).parent.parent


TITLE = "On <my> `models` [x](javascript:alert(1)) $\\unsafe$"
FENCE = "`" * 10


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A checkout with executed notebooks and a small book in the real book's dress."""
    root = tmp_path_factory.mktemp("executed")
    fill(root)
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("*.md", "*.rst", "__pycache__"))
    toc = {"format": "jb-book", "root": "intro", "parts": [{"caption": "One", "chapters": [{"glob": "notebooks/*"}]}]}
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
    (root / "book" / "intro.md").write_text(
        "# Title\n\nThe norm $\\lVert x \\rVert$ of {cite:t}`raghu2021vision`.\n\n```{bibliography}\n```\n"
    )
    (root / "book" / "course").mkdir(exist_ok=True)
    (root / "book" / "course" / "slides.md").write_text("# A session")
    (root / "notebooks" / "course").mkdir()
    (root / "notebooks" / "editions" / "mine.yml").write_text(f"title: {TITLE}\nsize: 3  # how *many* {FENCE}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "PACKAGE", root / "package")
        Runs(root)()
        Runs(root)("1", edition="mine", size=7)
    (root / "notebooks" / "editions" / "never-run.yml").write_text("size: 9\n")
    return root


@pytest.fixture
def pages(executed, tmp_path, monkeypatch):
    """A copy of it for each test."""
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "pages" / "package")
    return shutil.copytree(executed, tmp_path / "pages")


def digests(folder: Path) -> dict[str, str]:
    # Pickled state of Sphinx is no part of the book and not the same twice.
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".doctree", ".pickle")
    }


def test_ids_of_cells_do_not_differ_from_run_to_run():
    runs = [{"metadata": {}, "cells": [{"id": drawn, "metadata": {}} for drawn in ids]} for ids in ("ab", "cd")]
    one, other = map(book._for_page, runs)
    assert one == other


def test_the_book_is_built_once_and_the_same_each_time(executed, pages):
    said: list[str] = []
    index = book.build_book(pages, said.append)
    assert index == pages / "_build" / "html" / "index.html" and index.exists()
    html = index.parent
    chapter = (html / "notebooks" / "1_one.html").read_text(encoding="utf-8")
    assert "zoo 1" in chapter
    assert "installed = True" not in chapter  # the install cell
    assert "# Parameters" not in chapter  # the cell that papermill injects
    # An edition of one's own is a part of its own.
    own = (html / "editions" / "mine" / "1_one.html").read_text(encoding="utf-8")
    assert "mine 7" in own
    # Its buttons open the source, which is the same for all editions.
    assert "main/notebooks/1_one.ipynb" in own and "main/editions" not in own
    assert "_sources/editions/mine/1_one.ipynb" in own  # to be downloaded
    first = (html / "editions" / "mine" / "edition.html").read_text(encoding="utf-8")
    for piece in (f"how *many* {FENCE}", "These values were others when the chapters were run", "2_two"):
        assert piece in re.sub("<[^>]+>", "", first), piece
    intro = (html / "intro.html").read_text(encoding="utf-8")
    for page in (intro, first):
        assert TITLE in unescape(re.sub("<[^>]+>", "", page)) and "<my>" not in page and 'href="javascript' not in page
    assert intro.index("editions/mine/edition.html") < intro.index("editions/mine/1_one.html")
    assert "never-run" not in intro
    assert re.search("<math.*<mi>x</mi>", intro, flags=re.S)
    assert "MathJax" not in intro
    sources = html / "_sources" / "notebooks" / "1_one.ipynb"
    assert str(pages.parent) not in sources.read_text() and str(executed) not in sources.read_text()

    assert book.build_book(pages, said.append) == index
    assert said[-1] == "the book is up to date"
    first = digests(html)
    (pages / "_build" / "html.inputs").unlink()
    book.build_book(pages, said.append)
    assert digests(html) == first
    left = sorted(path.name for path in (pages / "_build").iterdir())
    assert left == ["executed", "html", "html.inputs", "html.lock"]


def test_an_edition_whose_file_is_gone_leaves_the_book(pages: Path):
    assert [path.parent.name for path in book._executed(pages)] == ["mine", "zoo", "zoo"]
    (pages / "notebooks" / "editions" / "mine.yml").unlink()
    assert [path.parent.name for path in book._executed(pages)] == ["zoo", "zoo"]


def test_a_fault_fails_the_build_and_leaves_the_old_book(pages: Path, capsys: pytest.CaptureFixture[str]):
    old = pages / "_build" / "html" / "index.html"
    old.parent.mkdir()
    old.write_text("the old book")
    (pages / "book" / "intro.md").write_text(
        "# Title\n\n[gone](gone.md) and $\\unheard{x}$ and {cite:t}`nobody`\n\n```{explorer} unshown\n```\n"
    )
    with pytest.raises(VitcnnError, match="not built"):
        book.build_book(pages, print)
    log = capsys.readouterr().err
    for fault in ("gone.md", "unheard", "nobody", "no executed notebook shows an explorer 'unshown'"):
        assert fault in log
    assert old.read_text() == "the old book"


def test_a_full_disk_ends_in_one_line(tmp_path, monkeypatch):
    def full(source: Path, target: Path, **options: Any):
        raise shutil.Error([(source / "a.md", target / "a.md", "[Errno 28] No space left on device: 'a.md'")])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(VitcnnError, match=r"a.md cannot be copied: \[Errno 28\] No space"):
        book._copy(tmp_path, tmp_path)
    log = "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device: 'intro.html'"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", log))
    with pytest.raises(VitcnnError, match=r"^the book was not built: \[Errno 28\] No space left on device.*: make"):
        book._jupyter_book(tmp_path, tmp_path, "0")


def test_jupyter_book_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(VitcnnError, match=r"no .*/bin/jupyter-book: in a clone of the repository, pip install"):
        book._jupyter_book(tmp_path, tmp_path, "0")


def test_the_book_is_built_by_one_process(tmp_path):
    busy = "another `vitcnn book` is at work here: wait until it ends"
    with alone(tmp_path / "_build" / "html.lock", "the test"), pytest.raises(VitcnnError, match=busy):
        book.build_book(tmp_path)


# --- the real book ------------------------------------------------------------------------------------------


def test_every_page_of_the_book_is_in_its_contents():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    named = {toc["root"]} | {c["file"] for part in toc["parts"] for c in part["chapters"] if "file" in c}
    written = [path for suffix in ("md", "rst") for path in (ROOT / "book").rglob(f"*.{suffix}")]
    pages = {path.relative_to(ROOT / "book").with_suffix("").as_posix() for path in written}
    # Slides become a page of their own.
    assert {name for name in named if not name.startswith("notebooks/")} == pages - {"course/slides"}


def test_the_picture_of_readme_and_front_page_ships():
    (picture,) = re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert (ROOT / picture).stat().st_size < 500_000
    assert picture.removeprefix("book/") in (ROOT / "book" / "intro.md").read_text(encoding="utf-8")


def test_the_repository_has_one_address():
    config = yaml.safe_load((ROOT / "book" / "_config.yml").read_text(encoding="utf-8"))
    url = config["repository"]["url"]
    owner, name = url.removeprefix("https://github.com/").split("/")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"] == {"Homepage": url, "Book": f"https://{owner}.github.io/{name}/"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["repository-code"], citation["version"]) == (url, project["version"])
    hosts = rf"https://(?:(?:github\.com|raw\.githubusercontent\.com)/([\w.-]+)/{name}\b|([\w-]+)\.github\.io/\w+)"
    for path in [ROOT / "README.md", ROOT / "book" / "rerun.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        text = path.read_text(encoding="utf-8")
        assert {one or other for one, other in re.findall(hosts, text)} <= {owner}, path.name
        assert path.suffix != ".ipynb" or url in text, f"{path.name} does not say where the package comes from"
