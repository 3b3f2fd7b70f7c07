"""Plain pages with explorers, made by the code that makes the book's, without Jupyter Book."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitcnn_utils.explorers import static
from vitcnn_utils.explorers.base import Explorer

BOOK_CSS = Path(__file__).parents[1] / "book" / "_static" / "vitcnn.css"

# The theme's colours (pydata-sphinx-theme 0.15.4), as far as an explorer may use them, and how the theme picks a mode.
THEME = """
html { --pst-color-text-base: #222832; --pst-color-text-muted: #48566b; --pst-color-background: #fff;
  --pst-color-on-background: #fff; --pst-color-surface: #f3f4f5; --pst-color-on-surface: #222832;
  --pst-color-border: #d1d5da; --pst-color-primary: #0a7d91; --pst-color-secondary: #8045e5;
  --pst-color-accent: #c132af; --pst-color-link: #0a7d91; color-scheme: light; }
html[data-theme="dark"] { --pst-color-text-base: #ced6dd; --pst-color-text-muted: #9ca4af;
  --pst-color-background: #14181e; --pst-color-on-background: #222832; --pst-color-surface: #29313d;
  --pst-color-on-surface: #f3f4f5; --pst-color-border: #48566b; --pst-color-primary: #3fb1c5;
  --pst-color-secondary: #9c5ffd; --pst-color-accent: #e47fd7; --pst-color-link: #3fb1c5; color-scheme: dark; }
body { background: var(--pst-color-background); color: var(--pst-color-text-base); font: 16px/1.65 sans-serif;
  margin: 0 auto; max-width: 46rem; padding: 1rem; }
"""
PUBLISHED = "https://example.org/book/index.html"
HEAD = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Explorers</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="canonical" href="{PUBLISHED}">
<script>document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"
</script>"""


def unpacked(explorer: Explorer, name: str) -> np.ndarray:
    """An array as the script reads it: what `arrays(model)` of kit.js does."""
    at = explorer.header["arrays"][name]
    dtype, size = np.dtype(f"<{at['type']}"), int(np.prod(at["shape"]))
    codes = np.frombuffer(explorer.data, dtype, size, at["offset"]).reshape(at["shape"])
    if "step" not in at:
        return codes
    return np.where(codes == np.iinfo(dtype).max, np.nan, at["low"] + at["step"] * codes.astype(float))


def notebook(*explorers: Explorer) -> dict[str, Any]:
    """What an executed notebook is that shows these explorers, one a cell."""
    outputs = [{"output_type": "display_data", "metadata": {}, "data": e._repr_mimebundle_()[0]} for e in explorers]
    cells = [{"cell_type": "code", "metadata": {}, "source": "", "outputs": [output]} for output in outputs]
    return {"metadata": {}, "cells": cells}


def page(explorers: Sequence[Explorer], folder: Path, between: str = "") -> Path:
    """Write FOLDER/index.html with these explorers and the files that they need; gives its path.

    between: HTML that stands after each of them.
    """
    static_notebook, found = static.take_out(notebook(*explorers), "index.ipynb")
    static.write(found, folder / static.FOLDER)
    figures = [output["data"]["text/html"] for cell in static_notebook["cells"] for output in cell["outputs"]]
    body = "".join(f'<div class="cell_output"><div class="text_html">{one}</div></div>{between}' for one in figures)
    style = f"<style>{THEME}{BOOK_CSS.read_text(encoding='utf-8')}</style>"
    path = folder / "index.html"
    path.write_text(f"{HEAD}{style}</head><body><main><h1>Explorers</h1>{body}</main></body></html>", encoding="utf-8")
    return path
