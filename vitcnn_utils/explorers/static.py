"""Explorers of executed notebooks, made ready for pages without a kernel.

The output of an explorer holds its script and arrays (`base.Explorer.for_page`). Here they move into files, and a
figure takes the place of the output; runtime.js loads the files when a reader comes near it. A file is named by the
hash of what is in it, so it can be shared and never goes stale.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers.base import MIME

FOLDER = "explorers"  # of the book, where the files lie
_VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
_RUNTIME = Path(__file__).with_name("runtime.js")


@dataclass(frozen=True)
class StaticExplorer:
    """An explorer as a page takes it."""

    kind: str  # 'similarity', …
    name: str  # its own on a page
    script: str  # JSON: {"esm": …, "css": …}
    payload: bytes
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
            f'<figure class="vx-static" id="explore-{self.name}" data-kind="{self.kind}" '
            f'data-script="{_hash(self.script)}" data-payload="{_hash(self.payload)}">{self.fallback}</figure>'
            f'<script src="{root}{FOLDER}/{_runtime_name()}" defer></script>'
        )

    def entry(self) -> dict[str, str]:
        """What a page at the top of the book needs to show it once more, and to lead to where it is used."""
        link = f"{self.place.removesuffix('.ipynb')}.html#explore-{self.name}"
        return {"html": self.placeholder(""), "chapter": self.chapter, "link": link}


def take_out(notebook: dict[str, Any], place: str) -> tuple[dict[str, Any], list[StaticExplorer]]:
    """The notebook with figures in the place of explorers and no widgets, and the explorers in their order.

    place: where it lies in the book, as 'notebooks/4_localization.ipynb'. Of widgets that are not explorers, the text
    is left. Raises VitcnnError where widgets are linked to an explorer, and where two explorers share a name.
    """
    metadata = dict(notebook["metadata"])
    _refuse_links(metadata.pop("widgets", {}).get(_STATE, {}).get("state", {}), place)
    title = _title(notebook)
    explorers: dict[str, StaticExplorer] = {}

    def still(output: dict[str, Any]) -> dict[str, Any] | None:
        """An output without widgets; None: nothing is left."""
        if "data" not in output:
            return output
        data = {key: value for key, value in output["data"].items() if key != _VIEW}
        if MIME in data:
            found = data[MIME]
            payload = base64.b64decode(found["payload"])
            fallback = "".join(data["text/html"])
            explorer = StaticExplorer(found["kind"], found["name"], found["script"], payload, fallback, place, title)
            if explorer.name in explorers:
                raise VitcnnError(f"{place} shows two explorers named {explorer.name!r}: give one another name=")
            explorers[explorer.name] = explorer
            data = {"text/html": explorer.placeholder("../" * place.count("/"))}
        return {**output, "data": data} if data else None

    cells = [
        {**cell, "outputs": [one for one in map(still, cell["outputs"]) if one]} if "outputs" in cell else cell
        for cell in notebook["cells"]
    ]
    return {**notebook, "metadata": metadata, "cells": cells}, list(explorers.values())


def write(explorers: Iterable[StaticExplorer], folder: Path) -> None:
    """Put the files of the explorers, and the script that loads them, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {_runtime_name(): _RUNTIME.read_text(encoding="utf-8")}
    for explorer in explorers:
        files |= explorer.files()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _refuse_links(widgets: dict[str, Any], place: str) -> None:
    """Widgets that libraries show may be linked among themselves; a link to an explorer is the author's."""
    own = {f"IPY_MODEL_{key}" for key, one in widgets.items()
           if one["state"].get("_anywidget_id", "").startswith(__package__)}  # fmt: skip
    for one in widgets.values():
        ends = [one["state"].get(end, [None])[0] for end in ("source", "target")]
        if one["model_name"].endswith("LinkModel") and own.intersection(ends):
            raise VitcnnError(f"{place} links a widget to an explorer, which is lost in the book: leave the link out")


def _title(notebook: dict[str, Any]) -> str:
    """The first heading of a notebook."""
    lines = [line for cell in notebook["cells"] for line in "".join(cell["source"]).splitlines()]
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")


def _runtime_name() -> str:
    return f"runtime-{_hash(_RUNTIME.read_bytes())}.js"


def _hash(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
