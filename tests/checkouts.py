"""Small checkouts with notebooks of a few lines, to be executed and made into books."""

import json
from pathlib import Path
from typing import Any

import nbformat

from vitcnn_utils.editions import chapters

KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}


def write_notebook(path: Path, parameters: str, *code: str, text: str = "# A chapter") -> None:
    """A notebook with the cells that each chapter has, then those with `code`."""
    cells = [
        nbformat.v4.new_markdown_cell(text),
        nbformat.v4.new_code_cell("installed = True", metadata={"tags": ["install"]}),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(nbformat.v4.new_code_cell, code),
    ]
    for index, cell in enumerate(cells):
        cell.id = f"cell-{index}"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)


def fill(root: Path) -> None:
    """Two small notebooks, their edition `zoo`, and a package of one file for the place of the real one."""
    (root / "package").mkdir()
    (root / "package" / "module.py").write_text("")
    editions = root / "notebooks" / "editions"
    editions.mkdir(parents=True)
    (editions / "zoo.yml").write_text("edition: zoo\nsize: 1\n")
    (root / "requirements.lock").write_text("")
    write_notebook(root / "notebooks" / "1_one.ipynb", 'edition = ""\nsize = 0', "print(edition, size)")
    write_notebook(root / "notebooks" / "2_two.ipynb", 'edition = ""\nother = 5', "print(edition, other)")


def outputs(executed: Path) -> str:
    """What an executed notebook printed."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    return "".join(text for cell in cells for out in cell.get("outputs", []) for text in out.get("text", []))


class Runs:
    """Calls run_editions for one edition and tells which notebooks were executed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *notebooks: str, edition: str = "zoo", quick: bool = False, **overrides: Any) -> list[str]:
        said: list[str] = []
        chapters.run_editions([edition], notebooks, overrides, None, quick, self.root, said.append)
        self.said = said
        return [line.split(": ")[1] for line in said if ": done in" in line]
