"""Editions to executed notebooks to pages: what is done, what is not done twice, and what is said when it fails."""

import hashlib
import json
import logging
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from dask.distributed import LocalCluster

from vitcnn_utils.editions import book, execute, fingerprint
from vitcnn_utils.editions.execute import Outcome, Task, _describe
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import alone

ROOT = Path(__file__).parent.parent
KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}


def write_notebook(path: Path, parameters: str, *code: str, text: str = "# A chapter") -> None:
    cells = [
        nbformat.v4.new_markdown_cell(text),
        nbformat.v4.new_code_cell("installed = True", metadata={"tags": ["install"]}),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(nbformat.v4.new_code_cell, code),
    ]
    for index, cell in enumerate(cells):
        cell.id = f"cell-{index}"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)


def outputs(executed: Path) -> str:
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    return "".join(text for cell in cells for out in cell.get("outputs", []) for text in out.get("text", []))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two small notebooks, and a package of one file in the place of the real one."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("")
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "package")
    editions = tmp_path / "notebooks" / "editions"
    editions.mkdir(parents=True)
    (editions / "zoo.yml").write_text("edition: zoo\nsize: 1\n")
    (tmp_path / "requirements.lock").write_text("")
    write_notebook(tmp_path / "notebooks" / "1_one.ipynb", 'edition = ""\nsize = 0', "print(edition, size)")
    write_notebook(tmp_path / "notebooks" / "2_two.ipynb", 'edition = ""\nother = 5', "print(edition, other)")
    return tmp_path


class Runs:
    """Calls run_editions for one edition and tells which notebooks were executed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *notebooks: str, edition: str = "zoo", **overrides: Any) -> list[str]:
        said: list[str] = []
        book.run_editions([edition], notebooks, overrides, None, self.root, said.append)
        return [line.split(": ")[1] for line in said if ": done in" in line]


def test_default_parameters(tmp_path: Path) -> None:
    source = '# a comment\nplain = 1\ntyped: int | None = None\nlong = [\n    "a",  # b = 3\n    {"c": "d = 4"},\n]\n'
    write_notebook(tmp_path / "n.ipynb", source)
    long = ["a", {"c": "d = 4"}]
    assert book.default_parameters(tmp_path / "n.ipynb") == {"plain": 1, "typed": None, "long": long}


def test_a_notebook_without_parameters_cell_is_named(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "n.ipynb")
    with pytest.raises(VitcnnError, match=r"n.ipynb must have one cell tagged `parameters`, it has 0"):
        book.default_parameters(tmp_path / "n.ipynb")


def test_only_what_has_changed_runs_again(root: Path) -> None:
    run = Runs(root)
    folder = root / "_build" / "executed" / "zoo"
    assert run() == ["1_one", "2_two"]
    # Each notebook gets the edition's values for its own parameters, and keeps its own for others.
    assert outputs(folder / "1_one.ipynb") == "zoo 1\n"
    assert outputs(folder / "2_two.ipynb") == "zoo 5\n"
    assert sorted(path.name for path in folder.iterdir()) == ["1_one.ipynb", "2_two.ipynb"]
    assert run() == []

    assert run(size=2) == ["1_one"]
    assert outputs(folder / "1_one.ipynb") == "zoo 2\n"
    write_notebook(root / "notebooks" / "2_two.ipynb", 'edition = ""\nother = 6', "print(other)")
    assert run(size=2) == ["2_two"]


def test_all_that_a_notebook_depends_on_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "execute", pretend)
    write_notebook(root / "notebooks" / "1_one.ipynb", 'edition = ""\nsize = None', "print(edition, size)")
    run = Runs(root)
    pictures = root / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_text("a")
    assert run("1") == ["1_one"]
    assert run(size=str(pictures)) == ["1_one", "2_two"]
    (pictures / "b.png").write_text("b")
    assert run(size=str(pictures)) == ["1_one"]
    (root / "package" / "weights.safetensors").write_text("w")
    assert run(size=str(pictures)) == ["1_one", "2_two"]
    (root / "requirements.lock").write_text("torch==9")
    assert run(size=str(pictures)) == ["1_one", "2_two"]
    (root / "package" / "book.py").write_text("no notebook sees this")
    assert run(size=str(pictures)) == []


def pretend(task: Task) -> Outcome:
    return Outcome(json.dumps({"metadata": {}, "parameters": task.parameters}), 0)


@pytest.mark.parametrize("wanted", ["2", "2_two", "2_two.ipynb"])
def test_one_notebook_alone(root: Path, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "execute", pretend)
    assert Runs(root)(wanted) == ["2_two"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edition": "zo"}, "no edition 'zo'; did you mean zoo?"),
        ({"edition": "paper"}, "no edition 'paper'; there are: zoo"),
        ({"edition": "../zoo"}, r"no edition '../zoo'"),
        ({"sise": 3}, "no notebook has a parameter 'sise'; did you mean size?"),
    ],
)
def test_unknown_names(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(VitcnnError, match=re.escape(message)):
        Runs(root)(**arguments)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e3", 'size must be a whole number, such as 3, not "1e3"'),  # YAML 1.1 wants 1.0e+3
        (2.5, "size must be a whole number, such as 3, not 2.5"),
        (0, "size must be a whole number"),
        (True, "size must be a whole number"),
        ([3], "size must be a whole number"),
        (4, None),
        (None, None),  # which parameter there can be none of, its notebook knows
    ],
)
def test_values_of_another_kind_than_the_default(tmp_path: Path, value: Any, message: str | None) -> None:
    write_notebook(
        tmp_path / "n.ipynb", 'seed = 0\nsize = 3\nname = "a"\nnames = ["a"]\nseries = {1: "a"}\nfree = None'
    )
    said = list(book.unfit({"size": value}, [tmp_path / "n.ipynb"]))
    assert message is None if not said else len(said) == 1 and message in said[0]
    others = {"seed": 0, "name": 1, "names": "a", "series": ["a"], "free": "b", "nam": 1}
    assert list(book.unfit(others, [tmp_path / "n.ipynb"])) == [
        'name must be a text, such as "a", not 1',
        'names must be a list, such as ["a"], not "a"',
        'series must be a mapping, such as {"1": "a"}, not ["a"]',
        "no notebook has a parameter 'nam'; did you mean name or names?",
    ]


def test_a_value_of_another_kind_runs_nothing(root: Path) -> None:
    with pytest.raises(VitcnnError, match="size must be a whole number"):
        Runs(root)(size="many")
    assert not (root / "_build").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "must hold lines"),
        (b"a: [", "is no YAML"),
        (b"", "must hold lines"),
        (b"1: a\n", "must hold lines"),
        (b"no: a\n", "must hold lines"),  # a key that YAML reads as False
        ("title: ä\n".encode("latin-1"), "mine.yml cannot be read as text in UTF-8"),
        (None, "mine.yml cannot be read"),
    ],
)
def test_an_edition_that_cannot_be_read(root: Path, content: bytes | None, message: str) -> None:
    path = root / "notebooks" / "editions" / "mine.yml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(VitcnnError, match=message):
        Runs(root)(edition="mine")


def test_an_edition_of_another_suffix(root: Path) -> None:
    (root / "notebooks" / "editions" / "mine.yaml").write_text("size: 2\n")
    with pytest.raises(VitcnnError, match=r"^no edition 'mine'; rename .*/mine.yaml to mine.yml$"):
        Runs(root)(edition="mine")


def test_a_failing_cell_is_named_and_its_output_kept(root: Path) -> None:
    run = Runs(root)
    run("1")
    before = (root / "_build" / "executed" / "zoo" / "1_one.ipynb").read_text()
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", "print('so far')", "1 / (size - size)")
    where = r"zoo: 1_one failed in cell \[\d\] \(cell-4\), ZeroDivisionError: .*; see (.+)"
    with pytest.raises(VitcnnError, match=where) as error:
        run()
    failed = Path(re.findall("; see (.+)", str(error.value))[0])
    assert outputs(failed).startswith("so far\n")
    folder = root / "_build" / "executed" / "zoo"
    assert (folder / "1_one.ipynb").read_text() == before
    assert (folder / "2_two.ipynb").exists()  # the others go on
    # What failed once and then runs leaves nothing behind.
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", "print(size)")
    assert run() == ["1_one"]
    assert sorted(path.name for path in folder.iterdir()) == ["1_one.ipynb", "2_two.ipynb"]


def test_one_line_for_each_failure_of_each_edition(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some_fail(task: Task) -> Outcome:
        failure = "failed in cell [1], no" if task.parameters.get("size") == 1 or task.name == "2_two.ipynb" else ""
        return Outcome("" if failure else '{"metadata": {}}', 0, failure)

    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")
    monkeypatch.setattr(book, "on_cluster", lambda tasks, scheduler: ((task, some_fail(task)) for task in tasks))
    said: list[str] = []
    with pytest.raises(VitcnnError) as error:
        book.run_editions(["zoo", "mine", "zoo"], root=root, report=said.append)
    assert str(error.value).splitlines() == [
        "zoo: 1_one failed in cell [1], no",
        "zoo: 2_two failed in cell [1], no",
        "mine: 2_two failed in cell [1], no",
    ]
    executed = root / "_build" / "executed"
    assert [path.relative_to(executed).as_posix() for path in executed.glob("*/*")] == ["mine/1_one.ipynb"]
    assert said[-2] == "[3/4] mine: 1_one: done in 0 s"


def test_nothing_runs_where_one_of_the_editions_cannot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "execute", pretend)
    (root / "notebooks" / "editions" / "mine.yml").write_text("sise: 2\n")
    with pytest.raises(VitcnnError, match="did you mean size"):
        book.run_editions(["zoo", "mine"], root=root)
    assert not (root / "_build").exists()


def test_an_error_of_the_user_speaks_for_itself() -> None:
    class Failure:
        exec_count, ename, evalue = 3, "VitcnnError", "no model 'vitt';\n did you mean vit?"

    assert _describe(Failure(), {"cells": []}) == "failed in cell [3], no model 'vitt'; did you mean vit?"


def test_a_kernel_that_dies_is_told_and_the_others_run(root: Path) -> None:
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", "import os\nos._exit(1)")
    with pytest.raises(VitcnnError, match=r"^zoo: 1_one stopped: its kernel died, most likely for want of memory$"):
        Runs(root)()
    assert [path.name for path in (root / "_build" / "executed" / "zoo").iterdir()] == ["2_two.ipynb"]


def test_two_runs_of_one_edition_do_not_mix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runs(root)
    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")

    def meanwhile(task: Task) -> Outcome:
        monkeypatch.setattr(book, "execute", pretend)
        with pytest.raises(VitcnnError, match="another `vitcnn run` is at work on edition zoo"):
            run()
        assert run(edition="mine") == ["1_one", "2_two"]
        return pretend(task)

    monkeypatch.setattr(book, "execute", meanwhile)
    assert run("1") == ["1_one"]
    assert run() == ["2_two"]  # the lock is gone


def test_an_edition_need_not_say_its_own_name(root: Path) -> None:
    (root / "notebooks" / "editions" / "mine.yml").write_text("title: With my models\nsize: 2\n")
    assert Runs(root)("1", edition="mine") == ["1_one"]
    assert outputs(root / "_build" / "executed" / "mine" / "1_one.ipynb") == "mine 2\n"
    assert book.read_edition(root, "mine") == {"size": 2}


def test_several_editions_on_dask_are_as_those_run_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The worker is another process, which knows only the real package.
    monkeypatch.setattr(fingerprint, "PACKAGE", Path(book.__file__).parent)
    write_notebook(root / "notebooks" / "2_two.ipynb", "size = 1", "print(1 / (size - 1))")
    write_notebook(root / "notebooks" / "3_three.ipynb", "size = 1", "import os\nprint(os.getcwd())\nos._exit(size)")
    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")
    folder = root / "_build" / "executed"
    results = []
    for together in (False, True):
        shutil.rmtree(folder, ignore_errors=True)
        failures = []
        for editions in [["zoo", "mine"]] if together else [["zoo"], ["mine"]]:
            with pytest.raises(VitcnnError) as error:
                book.run_editions(editions, root=root)
            failures += str(error.value).splitlines()
        files = {path.relative_to(folder): path for path in folder.rglob("*.ipynb")}
        results.append((sorted(failures), {place: cells_of(path) for place, path in files.items()}))
    assert results[0] == results[1]
    failures, cells = results[0]
    assert len(failures) == 3 and all("1_one" not in line for line in failures)
    assert {str(place) for place in cells} == {
        "zoo/1_one.ipynb", "mine/1_one.ipynb", "zoo/failed/2_two.ipynb", "mine/2_two.ipynb"
    }  # fmt: skip


def cells_of(executed: Path) -> list[Any]:
    """Sources and outputs, without the times that papermill writes beside them, and names that it draws."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    traceback = re.compile(r"ipykernel_\d+|\x1b\[[\d;]*m")
    return [[cell["source"], traceback.sub("", json.dumps(cell.get("outputs", [])))] for cell in cells]


def test_dask_is_needed_for_several_editions_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")
    assert Runs(root)("1") == ["1_one"]
    with pytest.raises(VitcnnError, match="several editions at once need Dask: pip install distributed"):
        book.run_editions(["zoo", "mine"], root=root)


def test_a_scheduler_that_is_not_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_PATIENCE", "1s")
    with pytest.raises(VitcnnError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9: "):
        book.run_editions(["zoo"], scheduler="tcp://127.0.0.1:9", root=root)


@pytest.mark.skipif(sys.platform == "win32", reason="a process has no parent to kill there")
def test_a_lost_worker_is_replaced_and_its_notebook_run_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        # A scheduler's workers have the real package; here it is one file of the test's.
        with pytest.raises(VitcnnError, match=r"zoo: 1_one was not run: on worker tcp://\S+ the package is another"):
            book.run_editions(["zoo"], ["1"], scheduler=cluster.scheduler_address, root=root)
        monkeypatch.setattr(fingerprint, "PACKAGE", Path(book.__file__).parent)
        once = "import os, pathlib, signal\nonce = pathlib.Path(mark)\n"
        once += "if not once.exists():\n    once.touch()\n    os.kill(os.getppid(), signal.SIGKILL)\nprint('again')"
        write_notebook(root / "notebooks" / "1_one.ipynb", f"size = 1\nmark = {str(root / 'mark')!r}", once)
        book.run_editions(["zoo"], ["1"], scheduler=cluster.scheduler_address, root=root)
    assert outputs(root / "_build" / "executed" / "zoo" / "1_one.ipynb") == "again\n"


def test_the_kernel_is_the_python_that_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "x", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", "import sys\nprint(sys.executable)")
    (root / "notebooks" / "editions" / "zoo.yml").write_text("size: 1\n")
    Runs(root)("1")
    assert outputs(root / "_build" / "executed" / "zoo" / "1_one.ipynb").strip() == sys.executable


@pytest.fixture
def pages(root: Path) -> Path:
    """The checkout with executed notebooks and a small book in the real book's dress."""
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("*.md", "*.rst", "__pycache__"))
    toc = {"format": "jb-book", "root": "intro", "parts": [{"caption": "One", "chapters": [{"glob": "notebooks/*"}]}]}
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
    (root / "book" / "intro.md").write_text(
        "# Title\n\nThe norm $\\lVert x \\rVert$ of {cite:t}`raghu2021vision`.\n\n```{bibliography}\n```\n"
    )
    (root / "notebooks" / "editions" / "mine.yml").write_text("title: On <my> `models`\nsize: 3  # how *many*\n")
    Runs(root)()
    Runs(root)("1", edition="mine", size=7)
    (root / "notebooks" / "editions" / "never-run.yml").write_text("size: 9\n")
    return root


def digests(folder: Path) -> dict[str, str]:
    # Pickled state of Sphinx is no part of the book and not the same twice.
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".doctree", ".pickle")
    }


def test_the_book_is_built_once_and_the_same_each_time(pages: Path) -> None:
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
    for piece in ("how *many*", "These values were others when the chapters were run", "2_two"):
        assert piece in re.sub("<[^>]+>", "", first), piece
    intro = (html / "intro.html").read_text(encoding="utf-8")
    assert re.search(r"On &lt;my&gt; .?models", intro) and "On &lt;my&gt;" in first
    assert intro.index("editions/mine/edition.html") < intro.index("editions/mine/1_one.html")
    assert "never-run" not in intro
    assert re.search("<math.*<mi>x</mi>", intro, flags=re.S)
    assert "MathJax" not in intro
    sources = html / "_sources" / "notebooks" / "1_one.ipynb"
    assert str(pages) not in sources.read_text()

    assert book.build_book(pages, said.append) == index
    assert said[-1] == "the book is up to date"
    first = digests(html)
    (pages / "_build" / "html.inputs").unlink()
    book.build_book(pages, said.append)
    assert digests(html) == first
    left = sorted(path.name for path in (pages / "_build").iterdir())
    assert left == ["executed", "html", "html.inputs", "html.lock"]


def test_an_edition_whose_file_is_gone_leaves_the_book(pages: Path) -> None:
    assert [path.parent.name for path in book._executed(pages)] == ["mine", "zoo", "zoo"]
    (pages / "notebooks" / "editions" / "mine.yml").unlink()
    assert [path.parent.name for path in book._executed(pages)] == ["zoo", "zoo"]


@pytest.mark.parametrize("name", ["my edition", "[a]", "-a", "ä"])
def test_names_of_editions_are_those_of_folders_and_pages(root: Path, name: str) -> None:
    (root / "notebooks" / "editions" / f"{name}.yml").write_text("size: 1\n")
    with pytest.raises(VitcnnError, match="cannot name an edition: use letters"):
        book.read_edition(root, name)


def test_a_fault_fails_the_build_and_leaves_the_old_book(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_jupyter_book_is_needed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(root / "bin" / "python"))
    with pytest.raises(VitcnnError, match=r"no .*/bin/jupyter-book: in a clone of the repository, pip install"):
        book._jupyter_book(root, root, "0")


def test_a_book_of_notebooks_never_executed(root: Path) -> None:
    (root / "book").mkdir()
    with pytest.raises(VitcnnError, match=r"1_one.ipynb was not executed yet: run `vitcnn run zoo`"):
        book.build_book(root)


# --- the real book ------------------------------------------------------------------------------------------

CONFIG = yaml.safe_load((ROOT / "book" / "_config.yml").read_text(encoding="utf-8"))


def test_every_page_of_the_book_is_in_its_contents() -> None:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    named = {toc["root"]} | {c["file"] for part in toc["parts"] for c in part["chapters"] if "file" in c}
    written = {p.relative_to(ROOT / "book").with_suffix("").as_posix() for p in (ROOT / "book").rglob("*.md")}
    written |= {p.relative_to(ROOT / "book").with_suffix("").as_posix() for p in (ROOT / "book").rglob("*.rst")}
    assert named == written


def test_what_is_cited_is_in_the_references() -> None:
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), flags=re.M)
    assert len(keys) == len(set(keys)) >= 15
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    for page in pages:
        for group in re.findall(r"\{cite(?::\w)?\}`([^`]+)`", page.read_text(encoding="utf-8")):
            assert set(group.split(",")) <= set(keys), page.name


def test_the_picture_of_readme_and_front_page_ships() -> None:
    (picture,) = re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert (ROOT / picture).stat().st_size < 500_000
    assert Path(picture).relative_to("book").as_posix() in (ROOT / "book" / "intro.md").read_text(encoding="utf-8")


def test_the_repository_has_one_address() -> None:
    url = CONFIG["repository"]["url"]
    owner, name = url.removeprefix("https://github.com/").split("/")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"] == {"Homepage": url, "Book": f"https://{owner}.github.io/{name}/"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["repository-code"], citation["version"]) == (url, project["version"])
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in [ROOT / "README.md", ROOT / "book" / "rerun.md", *notebooks]:
        text = path.read_text(encoding="utf-8")
        ours = re.findall(rf"https://(?:github\.com|raw\.githubusercontent\.com)/[\w.-]+/{name}\b", text)
        ours += re.findall(r"https://[\w-]+\.github\.io/\w+/?", text)
        assert all(f"{owner}/" in one or f"{owner}.github.io" in one for one in ours), (path.name, ours)
        assert path.suffix != ".ipynb" or url in text, f"{path.name} does not say where the package comes from"


def test_the_book_is_built_by_one_process(root: Path) -> None:
    busy = "another `vitcnn book` is at work here: wait until it ends"
    with alone(root / "_build" / "html.lock", "the test"), pytest.raises(VitcnnError, match=busy):
        book.build_book(root)
