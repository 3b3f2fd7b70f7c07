"""Explorers of executed notebooks, made ready for pages without a kernel.

An executed notebook holds a widget's whole state, script and arrays included. Here they move into files of their own,
and a figure with the explorer's still picture and sentence takes the place of the widget; runtime.js loads the files
when a reader comes near the figure. What is in a file is its name, so that it can be shared and never goes stale.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcnn_utils.errors import VitcnnError

FOLDER = "explorers"  # of the book, where the files lie
_VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
_RUNTIME = Path(__file__).with_name("runtime.js")
# Traits of all ipywidgets, of no use to an explorer's script; nor are those that begin with _.
_OF_IPYWIDGETS = {"layout", "tabbable", "tooltip"}


@dataclass(frozen=True)
class StaticExplorer:
    """An explorer as a page takes it."""

    kind: str  # 'similarity', …
    name: str  # its own on a page
    script: str  # JSON: {"esm": …, "css": …}
    payload: bytes  # gzip: the length of a JSON text as 4 bytes (little-endian), the text, and the trait `data`
    fallback: str  # HTML
    place: str  # where its notebook lies in the book, as 'notebooks/4_localization.ipynb'
    chapter: str  # the title of that notebook

    def files(self) -> dict[str, str]:
        """The files that the page loads: name and text."""
        script = f'vitcnnExplorers.script("{_hash(self.script)}", {self.script});\n'
        payload = f'vitcnnExplorers.payload("{_hash(self.payload)}", "{base64.b64encode(self.payload).decode()}");\n'
        return {f"{_hash(self.script)}.js": script, f"{_hash(self.payload)}.js": payload}

    def placeholder(self, root: str) -> str:
        """HTML for a page; root: the way from the page to the book's first page, as '../'."""
        return (
            f'<figure class="vx-static" id="explore-{html.escape(self.name)}" data-kind="{self.kind}" '
            f'data-script="{_hash(self.script)}" data-payload="{_hash(self.payload)}">{self.fallback}</figure>'
            f'<script src="{root}{FOLDER}/{_runtime_name()}" defer></script>'
        )

    def entry(self) -> dict[str, str]:
        """What a page at the top of the book needs to show it once more, and to lead to where it is used."""
        link = f"{self.place.removesuffix('.ipynb')}.html#explore-{self.name}"
        return {"html": self.placeholder(""), "chapter": self.chapter, "link": link}


def take_out(notebook: dict[str, Any], place: str) -> tuple[dict[str, Any], list[StaticExplorer]]:
    """The notebook with figures in the place of widgets and without their state, and the explorers in their order.

    place: where it lies in the book, as 'notebooks/4_localization.ipynb'. Raises VitcnnError where the notebook shows
    a widget that would be dead on a page without a kernel, and where two explorers share a name.
    """
    metadata = dict(notebook["metadata"])
    widgets = metadata.pop("widgets", {}).get(_STATE, {}).get("state", {})
    title = _title(notebook)
    explorers: list[StaticExplorer] = []

    def still(output: dict[str, Any]) -> dict[str, Any]:
        data = output.get("data", {})
        if _VIEW not in data:
            return output
        explorer = _explorer(widgets.get(data[_VIEW]["model_id"], {}), data, place, title)
        if explorer.name in [one.name for one in explorers]:
            raise VitcnnError(f"{place} shows two explorers named {explorer.name!r}: give one of them another name=")
        explorers.append(explorer)
        return {**output, "data": {"text/html": explorer.placeholder("../" * place.count("/"))}}

    cells = [
        {**cell, "outputs": [still(output) for output in cell["outputs"]]} if "outputs" in cell else cell
        for cell in notebook["cells"]
    ]
    links = [one["model_name"] for one in widgets.values() if one["model_name"].endswith("LinkModel")]
    if links and explorers:
        raise VitcnnError(f"{place} links widgets by jslink, which is lost in the static book: leave the link out")
    return {**notebook, "metadata": metadata, "cells": cells}, explorers


def write(explorers: Iterable[StaticExplorer], folder: Path) -> None:
    """Put the files of the explorers, and the script that loads them, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {_runtime_name(): _RUNTIME.read_text(encoding="utf-8")}
    for explorer in explorers:
        files |= explorer.files()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _explorer(widget: dict[str, Any], data: dict[str, Any], place: str, title: str) -> StaticExplorer:
    state = widget.get("state", {})
    if widget.get("model_module") != "anywidget" or "state_names" not in state or "text/html" not in data:
        name = widget.get("model_name", "a widget without state").removesuffix("Model")
        raise VitcnnError(
            f"{place} shows {name}, which would be dead in the static book: leave it out, or show an explorer, "
            "which has its controls inside"
        )
    traits = {key: value for key, value in state.items() if not key.startswith("_") and key not in _OF_IPYWIDGETS}
    (buffer,) = [base64.b64decode(b["data"]) for b in widget["buffers"] if b["path"] == ["data"]]
    text = json.dumps(traits, sort_keys=True, separators=(",", ":")).encode()
    packed = gzip.compress(len(text).to_bytes(4, "little") + text + buffer, mtime=0)
    script = json.dumps({"esm": state["_esm"], "css": state["_css"]})
    # An explorer's class lies in the module of its kind.
    kind = state["_anywidget_id"].split(".")[-2]
    return StaticExplorer(kind, state["name"], script, packed, "".join(data["text/html"]), place, title)


def _title(notebook: dict[str, Any]) -> str:
    """The first heading of a notebook."""
    lines = [line for cell in notebook["cells"] for line in "".join(cell["source"]).splitlines()]
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")


def _runtime_name() -> str:
    return f"runtime-{_hash(_RUNTIME.read_bytes())}.js"


def _hash(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
