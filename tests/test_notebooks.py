"""What every source notebook owes its reader, whatever chapter it is."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from vitcnn_utils.editions.parameters import default_parameters

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
NOTEBOOKS = {name: nbformat.read(path, as_version=nbformat.NO_CONVERT) for name, path in PATHS.items()}
PARAMETERS = {name: default_parameters(path) for name, path in PATHS.items()}
EDITION = yaml.safe_load((FOLDER / "editions" / "zoo.yml").read_text(encoding="utf-8"))
MACHINES = re.compile(r"""(?<![\w.:/)\]])(/(home|work|tmp|root|Users|mnt|opt|usr)/|~/|[A-Z]:\\)""")
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def code_cells(name: str) -> list[Any]:
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]


def test_there_are_six_chapters() -> None:
    assert [name[:2] for name in NOTEBOOKS] == ["1_", "2_", "3_", "4_", "5_", "6_"]


@every_notebook
def test_it_is_a_valid_notebook_without_outputs_for_the_plain_python_kernel(name: str) -> None:
    notebook = NOTEBOOKS[name]
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.metadata.kernelspec.name) == (4, "python3")
    assert "papermill" not in notebook.metadata
    for cell in code_cells(name):
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id
        assert not {"papermill", "execution"} & set(cell.metadata), cell.id
    assert [cell.id for cell in notebook.cells if MACHINES.search(cell.source)] == []  # no path of one machine


@every_notebook
def test_title_then_install_then_parameters_then_their_check(name: str) -> None:
    title = NOTEBOOKS[name].cells[0]
    assert title.cell_type == "markdown" and title.source.startswith("# ")
    install, parameters, set_up = code_cells(name)[:3]
    assert {"install", "remove-cell"} <= set(install.metadata.tags) and "parameters" in parameters.metadata.tags
    assert set_up.source.index("vu.check_parameters()") < set_up.source.index("vu.load_model")


def test_install_cells_are_the_same_and_bring_the_package_but_never_torch_or_numpy() -> None:
    """Whatever depends on the package's pins could move torch, so dependencies are left out."""
    (source,) = {code_cells(name)[0].source for name in NOTEBOOKS}
    assert 'find_spec("vitcnn_utils") is None' in source, "it must do nothing where the package is there"
    commands = [line for line in source.splitlines() if "%pip install" in line]
    assert [line for line in commands if "vitcnn_utils" in line and "--no-deps" in line]
    assert not [line for line in commands if "--no-deps" not in line and re.search("vitcnn_utils|torch|numpy", line)]


def test_parameters_mean_one_thing_and_are_as_in_the_default_edition() -> None:
    every = {name: value for of_notebook in PARAMETERS.values() for name, value in of_notebook.items()}
    for name, of_notebook in PARAMETERS.items():
        assert of_notebook == {parameter: every[parameter] for parameter in of_notebook}, name
    assert {parameter: every[parameter] for parameter in EDITION} == EDITION


@every_notebook
def test_every_parameter_is_used(name: str) -> None:
    sources = [cell.source for cell in code_cells(name) if "parameters" not in cell.metadata.get("tags", [])]
    python = re.sub(r"^(\s*)[%!].*$", r"\1pass", "\n".join(sources), flags=re.M)  # without IPython's magics
    names = [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Name)]
    assert set(PARAMETERS[name]) <= {node.id for node in names if isinstance(node.ctx, ast.Load)}
