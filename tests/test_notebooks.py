"""What every source notebook owes its reader, whatever chapter it is."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

FOLDER = Path(__file__).parent.parent / "notebooks"
PLOTS = Path(__file__).parent.parent / "vitcnn_utils" / "plots"
NOTEBOOKS = {
    "1_representation_structure": (1, 2),
    "2_local_and_global": (3, 4, 5, 6),
    "3_skip_connections": (7, 8),
    "4_localization": (9, 10, 11),
    "5_scale": (12, 13),
    "6_what_makes_heads_local": (),  # beyond the paper
}
every_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


@cache
def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


@cache
def edition() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "editions" / "zoo.yml").read_text(encoding="utf-8"))


def tagged(name: str, tag: str) -> list[Any]:
    return [cell for cell in read(name).cells if tag in cell.metadata.get("tags", [])]


def code_cells(name: str) -> list[Any]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def parameters(name: str) -> dict[str, Any]:
    """What the parameters cell assigns; fails on anything but a literal."""
    (cell,) = tagged(name, "parameters")
    return {target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body for target in node.targets}


def python(source: str) -> str:
    """The source with its IPython magics made harmless."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)


def test_the_folder_holds_the_chapters_and_nothing_else() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)


@every_notebook
def test_it_is_a_valid_notebook_for_the_plain_python_kernel(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata


@every_notebook
def test_cells_have_names_of_their_own(name: str) -> None:
    ids = [cell.id for cell in read(name).cells]
    assert len(ids) == len(set(ids))
    for cell_id in ids:
        assert not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?", cell_id), f"{cell_id} is random"


@every_notebook
def test_outputs_are_stripped(name: str) -> None:
    for cell in code_cells(name):
        assert cell.outputs == [], cell.id
        assert cell.execution_count is None, cell.id
        assert not {"papermill", "execution"} & set(cell.metadata), cell.id


@every_notebook
def test_title_then_install_then_parameters(name: str) -> None:
    cells = read(name).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    (install,), (assigned,) = tagged(name, "install"), tagged(name, "parameters")
    code = code_cells(name)
    assert [cell.id for cell in code[:2]] == [install.id, assigned.id]
    assert "remove-cell" in install.metadata.tags


@every_notebook
def test_the_install_cell_brings_the_package_but_never_torch_or_numpy(name: str) -> None:
    (cell,) = tagged(name, "install")
    commands = [line.split("%pip install", 1)[1] for line in cell.source.splitlines() if "%pip install" in line]
    assert any("vitcnn_utils" in command and "--no-deps" in command for command in commands)
    for command in commands:
        packages = set(re.findall(r"[A-Za-z][\w-]*", re.sub(r"\S+://\S+|\s--?\w[\w-]*", " ", command)))
        assert not packages & {"torch", "torchvision", "numpy"}, command
        # Whatever depends on the package's pins could move torch, unless dependencies are left out.
        assert "vitcnn_utils" not in packages or "--no-deps" in command
    assert 'find_spec("vitcnn_utils") is None' in cell.source, "it must do nothing where the package is there"


def test_install_cells_are_the_same() -> None:
    assert len({tagged(name, "install")[0].source for name in NOTEBOOKS}) == 1


@every_notebook
def test_parameters_are_literals_and_each_says_what_it_means(name: str) -> None:
    (cell,) = tagged(name, "parameters")
    lines = cell.source.splitlines()
    assert parameters(name)
    for node in ast.parse(cell.source).body:
        end = node.end_lineno or node.lineno
        own = "#" in lines[end - 1].split('"')[-1]
        above = node.lineno >= 2 and lines[node.lineno - 2].lstrip().startswith("#")
        assert own or above, f"{name}: {lines[node.lineno - 1]!r} has no comment"


@every_notebook
def test_defaults_are_those_of_the_default_edition(name: str) -> None:
    for parameter, value in parameters(name).items():
        if parameter in edition():
            assert value == edition()[parameter], parameter


def test_every_parameter_of_the_default_edition_is_known_by_a_notebook() -> None:
    known = set().union(*(parameters(name) for name in NOTEBOOKS))
    assert set(edition()) <= known


def test_a_parameter_means_one_thing_in_all_notebooks() -> None:
    defaults: dict[str, Any] = {}
    for name in NOTEBOOKS:
        for parameter, value in parameters(name).items():
            assert defaults.setdefault(parameter, value) == value, parameter


@every_notebook
def test_every_parameter_is_used(name: str) -> None:
    (cell,) = tagged(name, "parameters")
    others = [c.source for c in code_cells(name) if c.id != cell.id]
    read_names = {
        node.id
        for source in others
        for node in ast.walk(ast.parse(python(source)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert set(parameters(name)) <= read_names


@every_notebook
def test_no_path_of_one_machine(name: str) -> None:
    for cell in read(name).cells:
        found = re.search(r"""(?<![\w.:/)\]])(/(home|work|tmp|root|Users|mnt|opt|usr)/|~/|[A-Z]:\\)""", cell.source)
        assert not found, f"{cell.id}: {found.group() if found else ''}"


def figures_by_function() -> dict[str, set[int]]:
    """Which of the paper's figures each drawing function of the package stands for."""
    found = {}
    for path in PLOTS.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = {int(number) for number in re.findall(r"'fig-(\d+)'", ast.unparse(node))}
    return found


def test_every_figure_of_the_paper_is_drawn_in_its_chapter() -> None:
    drawing = figures_by_function()
    for name, figures in ((name, figures) for name, figures in NOTEBOOKS.items() if figures):
        called = {
            node.func.attr
            for cell in code_cells(name)
            for node in ast.walk(ast.parse(python(cell.source)))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        drawn = set().union(*(drawing.get(function, set()) for function in called))
        # A function that draws more than one figure is told which.
        told = {int(n) for cell in code_cells(name) for n in re.findall(r"""["']fig-(\d+)["']""", cell.source)}
        assert drawn | told == set(figures), name
