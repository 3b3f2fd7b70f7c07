"""Edition files and parameters: what they may say, and that all else ends in one line."""

import contextlib
import datetime
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import papermill
import pytest
import yaml
from checkouts import write_notebook
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vitcnn_utils.editions import chapters, parameters
from vitcnn_utils.editions.parameters import edition_title, read_edition, read_yaml, unfit
from vitcnn_utils.errors import LARGEST, VitcnnError

DEFAULTS = 'seed = 0\nsize = 3\nname = "a"\nnames = ["a"]\nseries = {1: "a"}\nfree = None'


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "n.ipynb", DEFAULTS)
    return tmp_path / "n.ipynb"


# --- YAML ---------------------------------------------------------------------------------------------------


def test_plain_yaml_is_read() -> None:
    text = "a: 1\nb: [x, null, true]\nc: {3: zoo/vit-cls, 10: 'y'}\nd: 2024-01-01\ne: ~/pictures\n"
    read = read_yaml(text, "here")
    assert read == {
        "a": 1, "b": ["x", None, True], "c": {3: "zoo/vit-cls", 10: "y"}, "d": "2024-01-01", "e": "~/pictures"
    }  # fmt: skip
    assert not isinstance(read["d"], datetime.date)


BILLION_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [*a]", r"an alias \(\*name\) cannot be used here"),
        (BILLION_LAUGHS, r"an alias \(\*name\) cannot be used here"),
        ("a: !!python/object/apply:os.system [ls]", r"a tag \(tag:yaml.org,2002:python/object/apply:os.system\)"),
        ("a: !!binary eA==", r"a tag \(tag:yaml.org,2002:binary\) cannot be used here"),
        ("seed: 1\nseed: 2", "'seed' is given twice"),
        ("a: {1: x, 0x1: y}", "is given twice"),
        ("a: " + "[" * 5000, "cannot be read as YAML"),
        ("a: " + "9" * 5000, "cannot be read as YAML"),
        ("a: 0b_", "cannot be read as YAML"),
        ("a: [", "cannot be read as YAML"),
        ("? [a]\n: b", "unhashable"),
        ("a: \0", "special characters"),
    ],
)
def test_yaml_that_is_refused_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(VitcnnError, match=problem) as error:
        read_yaml(text, "here")
    assert str(error.value).startswith("here cannot be read as YAML") and "\n" not in str(error.value)
    assert len(str(error.value)) < 150


# --- editions -----------------------------------------------------------------------------------------------


@pytest.fixture
def editions(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks" / "editions"
    folder.mkdir(parents=True)
    (folder / "zoo.yml").write_text("size: 1\n")
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "must hold lines"),
        (b"a: [", "cannot be read as YAML"),
        (b"", "must hold lines"),
        (b"no: a\n", "must hold lines"),  # a key that YAML reads as False
        ("title: ä\n".encode("latin-1"), "mine.yml cannot be read as text in UTF-8"),
        ("folder", "mine.yml cannot be read"),
        ("dangling link", "mine.yml cannot be read"),
        ("other suffix", "^no edition 'mine'; rename .*/mine.yaml to mine.yml$"),
    ],
)
def test_an_edition_that_cannot_be_read(editions, content, message):
    path = editions / "mine.yml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content == "dangling link":
        path.symlink_to(editions / "nowhere.yml")
    else:
        path.with_suffix(".yaml").write_text("size: 2\n")
    with pytest.raises(VitcnnError, match=message):
        read_edition(editions.parents[1], "mine")


@pytest.mark.parametrize("name", ["my edition", "-a", "ä", "x" * 5000, "a\0b", "../zoo", ""])
def test_names_of_editions_are_those_of_folders_and_pages(editions, name):
    with contextlib.suppress(OSError, ValueError):  # not all of them can name a file
        (editions / f"{name}.yml").write_text("size: 1\n")
    with pytest.raises(VitcnnError, match=r"cannot name an edition: use letters|no edition") as error:
        read_edition(editions.parents[1], name)
    assert len(str(error.value)) < 150


def test_a_title_is_one_line_of_text(editions: Path) -> None:
    path, root = editions / "mine.yml", editions.parents[1]
    path.write_text("size: 1\n")
    assert edition_title(root, "mine") == "Edition mine"
    path.write_text('title: "one\\ntwo \\0 <b>"\n')
    assert edition_title(root, "mine") == "one two  <b>"
    assert read_edition(root, "mine") == {}
    for bad in ("[a]", "''", "x" * 1001):
        path.write_text(f"title: {bad}\n")
        with pytest.raises(VitcnnError, match=r"the title in mine.yml must be a text of at most 1000 characters"):
            edition_title(root, "mine")


# --- parameters ---------------------------------------------------------------------------------------------


def test_default_parameters(tmp_path: Path) -> None:
    source = '# a comment\nplain = 1\ntyped = 2 * 3\nlong = [\n    "a",  # b = 3\n    {"c": "d = 4"},\n]\n'
    write_notebook(tmp_path / "n.ipynb", source)
    long = ["a", {"c": "d = 4"}]
    assert parameters.default_parameters(tmp_path / "n.ipynb") == {"plain": 1, "typed": 6, "long": long}


@pytest.mark.parametrize(
    ("source", "message"),
    [(None, "must have one cell tagged `parameters`, it has 0"), ("import os", "may do nothing but assign values")],
)
def test_a_notebook_whose_parameters_cannot_be_read(tmp_path: Path, source: str | None, message: str) -> None:
    write_notebook(tmp_path / "n.ipynb", source or "")
    if source is None:
        path = tmp_path / "n.ipynb"
        path.write_text(path.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(VitcnnError, match=message):
        parameters.default_parameters(tmp_path / "n.ipynb")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "1e3"}, 'size must be a whole number up to 4,294,967,295, such as 3, not "1e3"'),  # YAML: 1.0e+3
        ({"size": 2.5}, "size must be a whole number"),
        ({"size": 0}, "size must be a whole number"),
        ({"size": True}, "size must be a whole number"),
        ({"size": [3]}, "size must be a whole number"),
        ({"size": 4}, None),
        ({"size": None}, None),  # which parameter there can be none of, its notebook knows
        ({"seed": 0}, None),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": LARGEST}, None),
        ({"seed": LARGEST + 1}, "seed must be a whole number up to"),
        ({"name": 1}, 'name must be a text, such as "a", not 1'),
        ({"name": ""}, 'name must be a text, such as "a", not ""'),
        ({"name": "x" * 1001}, "name must be a text"),
        ({"name": "a\0b"}, "name must be a text"),
        ({"name": "\ud800"}, "name must be a text"),
        ({"name": {"name": "deit", "weights": "mine.safetensors"}}, None),  # a model with weights of one's own
        ({"name": {"name": "deit", "image_size": 96}}, None),
        ({"name": {"name": "deit", "size": 96}}, "name must be a text"),
        ({"name": {"weights": "mine.safetensors"}}, "name must be a text"),
        ({"name": {"name": "deit", "weights": 5}}, "name must be a text"),
        ({"names": "a"}, 'names must be a list of texts, such as ["a"], not "a"'),
        ({"names": "[a, b]"}, "not \"[a, b]\": with papermill, give it as -y 'names: [a, b]'"),
        ({"names": ["b", {"name": "deit", "weights": "mine.safetensors"}]}, None),
        ({"names": [1]}, "names must be a list of texts"),
        ({"series": ["a"]}, 'series must be a mapping from whole numbers to texts, such as {"1": "a"}, not ["a"]'),
        ({"series": {"10": "a", 30: "b"}}, None),  # through JSON, numbers become texts
        ({"series": {"ten": "a"}}, "series must be a mapping from whole numbers"),
        ({"series": {10: 5}}, "series must be a mapping from whole numbers"),
        ({"free": "b"}, None),
        ({"free": 5}, None),
        ({"free": 2.5}, "free must be a text or a whole number, such as null, not 2.5"),
        ({"nam": 1}, "no notebook has a parameter 'nam'; did you mean name or names?"),
    ],
)
def test_values_of_another_kind_than_the_default(notebook: Path, values: dict[str, Any], message: str | None) -> None:
    said = unfit(values, [notebook])
    assert said == [] if message is None else len(said) == 1 and message in said[0]
    assert all(len(line) < 300 for line in said)


# --- the fuzzer ---------------------------------------------------------------------------------------------

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.binary())
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(SCALARS, inner), max_leaves=6)
NAMES = st.sampled_from(["seed", "size", "name", "names", "series", "free", "title", "size "]) | st.text()
TEXTS = st.text() | st.lists(
    st.sampled_from([*"abc:[]{}&*!?|>-#%@`'\"\n\t ~<=.0_", ": ", "\n  ", "- ", "&a", "*a"])
).map("".join)


def _read_as_run_does(folder: Path, content: bytes) -> list[str]:
    """What `vitcnn run` says of an edition's file before it runs anything; all else than VitcnnError is a fault."""
    (folder / "notebooks" / "editions" / "mine.yml").write_bytes(content)
    try:
        edition_title(folder, "mine")
        given = read_edition(folder, "mine")
    except VitcnnError as error:
        return str(error).splitlines()
    problems = unfit(given, [folder / "n.ipynb"])
    if not problems:
        chapters._few_images({"n_images": 5} | given, {})
    return problems


@pytest.mark.parametrize("kind", ["values", "texts", "bytes"])
def test_any_edition_is_read_or_refused_line_by_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "notebooks" / "editions").mkdir(parents=True)
    write_notebook(tmp_path / "n.ipynb", DEFAULTS)
    contents = {
        "values": st.dictionaries(NAMES, VALUES).map(lambda value: yaml.safe_dump(value).encode("utf-8", "replace")),
        "texts": TEXTS.map(lambda text: text.encode("utf-8", "replace")),
        "bytes": st.binary(),
    }

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(contents[kind])
    @example(b"seed: !!timestamp 2001-99-99")
    def check(content: bytes) -> None:
        for line in _read_as_run_does(tmp_path, content):
            assert line.isprintable() and len(line) < 400, line

    check()


# --- the chapters ---------------------------------------------------------------------------------------------

CHAPTERS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_papermill_has_help_for_every_parameter_of_a_chapter(path: Path) -> None:
    inferred = papermill.inspect_notebook(path)
    assert set(inferred) == set(parameters.default_parameters(path))
    assert [name for name, facts in inferred.items() if len(facts["help"]) < 5] == []


# --- in a notebook ------------------------------------------------------------------------------------------


def test_plain_papermill_stops_where_a_parameter_cannot_be_used(tmp_path: Path) -> None:
    write_notebook(tmp_path / "n.ipynb", CELL, "import vitcnn_utils as vu\nvu.check_parameters()")
    command = [sys.executable, "-m", "papermill", str(tmp_path / "n.ipynb"), str(tmp_path / "out.ipynb")]
    wrong = ["-p", "n_image", "7", "-p", "noskip", "[]"]
    result = subprocess.run([*command, *wrong], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-2:] == [
        "VitcnnError: this notebook has no parameter 'n_image'; did you mean n_images?",
        'noskip must be a list of texts, such as ["a"], not "[]": with papermill, give it as -y \'noskip: []\'',
    ]


CELL = 'noskip = ["a"]  # models\nn_images = 5  # how many\nvit = "zoo/vit-cls"  # a model'


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([CELL, "# Parameters\nn_images = 7\nnoskip = []\n"], None),
        ([CELL, '# Parameters\nvit = {"name": "deit", "weights": "mine.safetensors"}\n'], None),
        ([CELL, "%pip install x", "# Parameters\nn_images = 7.5\n"], "n_images must be a whole number"),
        ([CELL, '# Parameters\nn_images = float("nan")\n'], "n_images must be a whole number"),
        ([CELL, "# Parameters\nn_image = 7\n"], "this notebook has no parameter 'n_image'; did you mean n_images?"),
        ([CELL, "# Parameters\nn_image = 7\n", "# Parameters\nn_images = 7\n"], None),  # the last one holds
    ],
)
def test_what_papermill_injects_is_checked(cells: list[str], problem: str | None, monkeypatch: Any) -> None:
    shell = types.SimpleNamespace(user_ns={"In": ["", "%pip install y", *cells, "vu.check_parameters()"]})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    if problem is None:
        parameters.check_parameters()
    else:
        with pytest.raises(VitcnnError, match=re.escape(problem)):
            parameters.check_parameters()


def test_outside_a_notebook_there_is_nothing_to_check() -> None:
    parameters.check_parameters()
