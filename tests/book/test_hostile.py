"""A book in which every text that a user can give is hostile: a browser runs nothing of it and asks no other host."""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import browser
import nbformat
import numpy as np
import papermill
import pytest
import yaml
from conftest import serve
from explorer_samples import STILL, heads, layer_map
from PIL import Image

from vitcnn_utils import explorers
from vitcnn_utils.editions import book
from vitcnn_utils.images import Images
from vitcnn_utils.tables import number_table

ROOT = Path(__file__).parents[2]
CHAPTER = "1_representation_structure.ipynb"
FEW = {"n_images": 16, "n_control_images": 16, "cka_batch_size": 8, "device": "cpu"}
RUN = "document.documentElement.dataset.ran=1"
NAME = f"\"'><svg onload={RUN}><img src=x onerror={RUN}>``` [x](javascript:{RUN}) $\\unsafe$ {{{{x}}}} & é"  # of a file
TITLE = (
    f"{NAME}</title></script><script>{RUN}</script>``````````\n```{{raw}} html\n<b onclick={RUN}>\n``` "
    f"![x](http://127.0.0.1:9/y) <img src=http://127.0.0.1:9/z> {{% z %}} <!-- ]]>"
)


def given(folder: Path) -> dict[str, Any]:
    """An edition's values: images in a folder, and classes, with names that break out of wherever they stand."""
    for i in range(16):
        picture = folder / NAME / f"{i % 2} {NAME}" / f"{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(picture)
    return FEW | {"title": TITLE, "images": str(folder / NAME)}


def shown() -> list[Any]:
    """Outputs in which models have such names too."""
    images = Images(NAME, np.zeros((2, 16, 16, 3), np.uint8), np.zeros(2, int), (NAME,))
    distances, maps = heads()
    similarity = layer_map(np.eye(6)).assign_attrs(model=NAME, model_b=NAME)
    views = [
        explorers.explore_similarity({NAME: similarity}, still=STILL, name="second"),
        explorers.explore_attention((distances.assign_attrs(model=NAME), maps), images, still=STILL, name="third"),
    ]
    table = {"text/html": number_table({NAME: {NAME: 1.5}}, NAME)._repr_html_()}
    bundles = [table, *(view._repr_mimebundle_()[0] for view in views)]
    return [nbformat.v4.new_output("display_data", bundle) for bundle in bundles]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a book with one chapter, in two editions, of which one has a title and a file of its own."""
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("*.md", "*.rst", "__pycache__"))
    toc = {"format": "jb-book", "root": "intro", "parts": [{"caption": "One", "chapters": [{"glob": "notebooks/*"}]}]}
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
    (root / "book" / "intro.md").write_text("# Title\n\n```{bibliography}\n```\n")
    (root / "book" / "course").mkdir(exist_ok=True)
    (root / "book" / "course" / "slides.md").write_text("# Slides\n")
    (root / "requirements.lock").write_text("")
    for folder in ("editions", "course"):
        (root / "notebooks" / folder).mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / CHAPTER, root / "notebooks")
    parameters = given(root / "pictures")
    title = parameters.pop("title")
    for edition in ("zoo", "mine"):
        content = yaml.safe_dump({"title": title, **parameters}) + f"# {NAME}\n"
        (root / "notebooks" / "editions" / f"{edition}.yml").write_text(content)
        (root / "_build" / "executed" / edition).mkdir(parents=True)
    executed = root / "_build" / "executed" / "zoo" / CHAPTER
    papermill.execute_notebook(str(ROOT / "notebooks" / CHAPTER), str(executed), parameters, progress_bar=False)
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("views", outputs=shown()))
    nbformat.write(notebook, executed)
    shutil.copy(executed, root / "_build" / "executed" / "mine")
    return book.build_book(root, print).parent


def test_nothing_of_it_runs_and_no_other_host_is_asked(hostile: Path) -> None:
    ran, foreign, links = [], [], []
    with browser.chromium() as chromium, serve(hostile) as site:
        for path in sorted(hostile.rglob("*.html")):
            if "_static" in path.parts:
                continue
            page = chromium.new_page()
            page.on("request", lambda event: foreign.append(event.url))
            page.goto(f"{site}/{path.relative_to(hostile)}")
            for figure in page.locator("figure.vx-static").all():
                figure.scroll_into_view_if_needed()
                figure.locator(".vx, .vx-failed").wait_for()
            page.wait_for_load_state("networkidle")
            ran += [path.name] * bool(page.evaluate("document.documentElement.dataset.ran ?? ''"))
            links += page.evaluate("[...document.querySelectorAll('[href^=\"javascript:\"]')].map((a) => a.outerHTML)")
            page.close()
    home = urlsplit(site).netloc
    foreign = [url for url in foreign if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != home]
    assert (ran, foreign, links) == ([], [], [])


def test_it_stands_there_as_it_was_given(hostile: Path) -> None:
    """Escaped, not removed: a reader sees the name of the folder under the figures, and the title."""
    import html

    chapter = html.unescape((hostile / "notebooks" / CHAPTER).with_suffix(".html").read_text(encoding="utf-8"))
    assert chapter.count(NAME) > 2
    first = html.unescape((hostile / "editions" / "mine" / "edition.html").read_text(encoding="utf-8"))
    assert "[x](javascript:" in first and "![x](http://127.0.0.1:9/y)" in first
