"""Explorers of executed notebooks become figures and files."""

import base64
import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from explorer_pages import notebook
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from similarity_maps import staged

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import explore_similarity, static
from vitcnn_utils.explorers.base import MIME
from vitcnn_utils.explorers.similarity import SimilarityExplorer

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
MAP = staged(0.9, 0.25)
SVG = '<svg id="drawn"></svg>'
PLACE = "notebooks/1_chapter.ipynb"
RUNTIME = Path(static.__file__).with_name("runtime.js")


@pytest.fixture
def explorer() -> SimilarityExplorer:
    return explore_similarity({"a map": MAP}, name="mine")


def unpacked(payload: bytes) -> tuple[dict[str, Any], bytes]:
    raw = gzip.decompress(payload)
    end = 4 + int.from_bytes(raw[:4], "little")
    return json.loads(raw[4:end]), raw[end:]


def figures(page: dict[str, Any]) -> str:
    return "".join(output["data"]["text/html"] for cell in page["cells"] for output in cell.get("outputs", []))


def test_a_figure_stands_where_the_widget_was(explorer: SimilarityExplorer) -> None:
    page, (found,) = static.take_out(notebook(explorer), PLACE)
    assert (found.kind, found.name, found.place) == ("similarity", "mine", PLACE)
    html = figures(page)
    assert html == found.placeholder("../")
    assert 'id="explore-mine"' in html and 'data-kind="similarity"' in html
    assert explorer.fallback() in html
    assert f'<script src="../explorers/{static._runtime_name()}" defer></script>' in html
    # Nothing is left that would make the page load a widget manager, nor any data.
    assert "widget" not in json.dumps(page) and MIME not in json.dumps(page)


def test_the_files_hold_all_that_the_widget_is(explorer: SimilarityExplorer) -> None:
    explorer.row = 2
    _, (found,) = static.take_out(notebook(explorer), PLACE)
    traits, data = unpacked(found.payload)
    assert data == explorer.data
    assert traits == {
        "name": "mine", "state_names": explorer.state_names, "pair": 0, "layers": "all", "axes": "number", "row": 2,
        "column": explorer.column, "header": {**explorer.header, "start": {**explorer.header["start"], "row": 2}},
    }  # fmt: skip
    assert json.loads(found.script) == {"esm": explorer._esm, "css": explorer._css}


def test_files_call_the_runtime_and_are_named_by_what_is_in_them(explorer: SimilarityExplorer, tmp_path: Path) -> None:
    page, found = static.take_out(notebook(explorer), PLACE)
    static.write(found, tmp_path / "explorers")
    texts = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "explorers").iterdir()}
    assert texts.pop(static._runtime_name()) == RUNTIME.read_text(encoding="utf-8")
    script, payload = re.findall(r'data-(?:script|payload)="(\w+)"', figures(page))
    assert texts[f"{script}.js"] == f'vitcnnExplorers.script("{script}", {found[0].script});\n'
    assert texts[f"{payload}.js"].startswith(f'vitcnnExplorers.payload("{payload}", "')
    assert base64.b64decode(texts.pop(f"{payload}.js").split('"')[3]) == found[0].payload
    assert len(texts) == 1

    explorer.row = 1
    _, (other,) = static.take_out(notebook(explorer), PLACE)
    assert set(other.files()) & set(found[0].files()) == {f"{script}.js"}


def test_what_is_no_widget_stays_as_it_is(explorer: SimilarityExplorer) -> None:
    book = notebook(explorer)
    book["metadata"]["kernelspec"] = {"name": "python3"}
    output = {"output_type": "stream", "name": "stdout", "text": "said"}
    book["cells"][0]["outputs"].insert(0, output)
    book["cells"].append({"cell_type": "markdown", "metadata": {}, "source": ["# A title\n", "text"]})
    before = copy.deepcopy(book)
    page, (found,) = static.take_out(book, PLACE)
    assert book == before
    assert page["cells"][0]["outputs"][0] == output
    assert page["metadata"] == {"kernelspec": {"name": "python3"}}
    assert found.chapter == "A title"
    assert found.entry()["link"] == "notebooks/1_chapter.html#explore-mine"
    assert static.take_out(page, PLACE) == (page, [])


@pytest.fixture(scope="module")
def executed() -> dict[str, Any]:
    """A notebook as papermill leaves it: cells with explorers, and with widgets as libraries show them."""
    cells = [
        "import ipywidgets\nfrom types import SimpleNamespace\nfrom similarity_maps import staged\n"
        "from vitcnn_utils.explorers import explore_similarity\nmaps = {'a map': staged(0.9, 0.25)}",
        f"explorer = explore_similarity(maps, still=SimpleNamespace(svg={SVG!r}))\nexplorer",
        # What huggingface_hub shows of a download.
        "bar = ipywidgets.FloatProgress(max=2)\nipywidgets.HBox([ipywidgets.HTML('fetching'), bar])",
        "ipywidgets.jslink((ipywidgets.IntSlider(), 'value'), (bar, 'value'))\nprint('said')",
        "explorer",
        "linked = explore_similarity(maps, name='linked')\nslider = ipywidgets.IntSlider()\n"
        "ipywidgets.jslink((slider, 'value'), (linked, 'row'))\nipywidgets.HBox([linked])",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(Path(__file__).parent)}}).execute()
    return json.loads(nbformat.writes(book))


def chosen(executed: dict[str, Any], *cells: int, **metadata: Any) -> dict[str, Any]:
    return {**executed, "cells": [executed["cells"][i] for i in cells], "metadata": metadata}


def ours(executed: dict[str, Any]) -> set[str]:
    """The explorers among the widgets that a notebook keeps."""
    widgets = executed["metadata"]["widgets"][STATE]["state"]
    return {key for key, one in widgets.items() if one["model_module"] == "anywidget"}


def test_every_process_leaves_the_same_outputs_and_no_widgets(executed: dict[str, Any]) -> None:
    """So a page of an exported notebook needs nothing of another host."""
    (output,) = executed["cells"][1]["outputs"]
    assert output["data"][MIME] == explore_similarity({"a map": MAP})._repr_mimebundle_()[0][MIME]
    assert VIEW not in output["data"]  # papermill has no front end that could show a widget
    assert len(ours(executed)) == 1  # the one that a widget is linked to


def test_nothing_that_a_library_shows_blocks_the_book(executed: dict[str, Any]) -> None:
    state = executed["metadata"]["widgets"][STATE]["state"]
    others = {key: one for key, one in state.items() if key not in ours(executed)}
    page, found = static.take_out(chosen(executed, 1, 2, 3, widgets={STATE: {"state": others}}), PLACE)
    assert len(found) == 1 and "widgets" not in page["metadata"]
    (bar,), (said,) = (cell["outputs"] for cell in page["cells"][1:])
    assert list(bar["data"]) == ["text/plain"] and said["text"] == ["said\n"]
    nothing_left = {"cells": [{"outputs": [{"data": {VIEW: {}}}], "source": ""}], "metadata": {}}
    assert static.take_out(nothing_left, PLACE)[0]["cells"][0]["outputs"] == []


def test_a_widget_that_is_linked_to_an_explorer_is_refused(executed: dict[str, Any]) -> None:
    with pytest.raises(VitcnnError, match=f"{PLACE} links a widget to an explorer, which is lost"):
        static.take_out(executed, PLACE)


def test_two_explorers_of_one_name_are_refused(executed: dict[str, Any]) -> None:
    with pytest.raises(VitcnnError, match=f"{PLACE} shows two explorers named 'similarity'"):
        static.take_out(chosen(executed, 1, 4), PLACE)


def test_an_exported_notebook_shows_the_still(executed: dict[str, Any]) -> None:
    """As `jupyter nbconvert --to html` makes it, which prefers widgets, and finds the text without them."""
    html, _ = HTMLExporter().from_notebook_node(nbformat.reads(json.dumps(chosen(executed, 1)), 4))
    assert '<div class="vx-fallback"><svg id="similarity-drawn"></svg><p><strong>Which layers are alike?' in html
    assert "widget-view" not in html and "html-manager" not in html
