"""Explorers of executed notebooks become figures and files."""

import base64
import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from explorer_pages import notebook
from nbclient import NotebookClient
from similarity_maps import staged

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import SimilarityExplorer, explore_similarity, static

STATE = "application/vnd.jupyter.widget-state+json"
MAP = staged(0.9, 0.25)
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
    assert explorer.fallback() in html  # the picture and the sentence
    assert f'<script src="../explorers/{static._runtime_name()}" defer></script>' in html
    # Nothing is left that would make the page load a widget manager.
    assert "widget" not in json.dumps(page)


def test_the_files_hold_all_that_the_widget_is(explorer: SimilarityExplorer) -> None:
    explorer.row = 2
    _, (found,) = static.take_out(notebook(explorer), PLACE)
    traits, data = unpacked(found.payload)
    assert data == explorer.data
    assert traits == {
        "name": "mine", "state_names": explorer.state_names, "header": explorer.header, "pair": 0, "layers": "all",
        "axes": "number", "row": 2, "column": explorer.column,
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


def test_equal_widgets_give_equal_pages() -> None:
    """Whatever their ids in the kernel were."""
    pages = []
    for _ in range(2):
        explorer = explore_similarity({"a map": MAP})
        page, found = static.take_out(notebook(explorer), PLACE)
        pages.append((figures(page), [one.files() for one in found]))
    assert pages[0] == pages[1]


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
    """A notebook as papermill leaves it: each cell after the first shows a widget."""
    cells = [
        "import ipywidgets\nfrom similarity_maps import staged\nfrom vitcnn_utils.explorers import explore_similarity",
        "explorer = explore_similarity({'a map': staged(0.9, 0.25)})\nexplorer.row = 3\nexplorer",
        "ipywidgets.IntSlider()",
        "ipywidgets.HBox([explorer])",
        "explorer",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(Path(__file__).parent)}}).execute()
    return json.loads(nbformat.writes(book))


def test_a_notebook_that_was_executed(executed: dict[str, Any]) -> None:
    page, (found,) = static.take_out({**executed, "cells": executed["cells"][:2]}, PLACE)
    traits, data = unpacked(found.payload)
    assert traits["row"] == 3
    place = traits["header"]["arrays"]["map0"]
    codes = np.frombuffer(data, np.uint8)[: MAP.size].reshape(place["shape"])
    assert np.abs(place["low"] + place["step"] * codes - MAP.values).max() <= place["step"] / 2 + 1e-12
    assert figures(page).startswith('<figure class="vx-static" id="explore-similarity"')
    assert "widget" not in json.dumps(page["cells"][1]) and "widgets" not in page["metadata"]


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ([2], f"{PLACE} shows IntSlider, which would be dead in the static book"),
        ([1, 3], f"{PLACE} shows HBox, which would be dead"),
        ([1, 4], f"{PLACE} shows two explorers named 'similarity': give one of them another name="),
    ],
)
def test_what_would_be_dead_or_taken_for_another_is_refused(
    executed: dict[str, Any], shown: list[int], message: str
) -> None:
    with pytest.raises(VitcnnError, match=re.escape(message)) as error:
        static.take_out({**executed, "cells": [executed["cells"][i] for i in shown]}, PLACE)
    assert "\n" not in str(error.value)


def test_a_link_between_widgets_is_refused(explorer: SimilarityExplorer) -> None:
    book = notebook(explorer)
    book["metadata"]["widgets"][STATE]["state"]["x"] = {"model_name": "DirectionalLinkModel", "state": {}}
    with pytest.raises(VitcnnError, match=f"{PLACE} links widgets by jslink, which is lost"):
        static.take_out(book, PLACE)


def test_widgets_that_are_not_shown_are_dropped(executed: dict[str, Any]) -> None:
    page, found = static.take_out({**executed, "cells": executed["cells"][:1]}, PLACE)
    assert (page["metadata"].keys(), found) == (executed["metadata"].keys() - {"widgets"}, [])
