"""What an edition's file and a notebook's parameters may say, checked before anything is run."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from vitcnn_utils.errors import LARGEST, VitcnnError, near

LONGEST = 1000
"""Characters that a text may have, such as a path."""


# --- YAML ---------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML without what is not needed here and hides mistakes: aliases, tags, dates, keys given twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            what = "an alias (*name)" if isinstance(event, yaml.AliasEvent) else f"a tag ({event.tag})"
            raise yaml.MarkedYAMLError(problem=f"{what} cannot be used here", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), keys[0])
            raise yaml.MarkedYAMLError(problem=f"{twice!r} is given twice", problem_mark=node.start_mark)
        return mapping


def read_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; VitcnnError, which names the source, where it cannot be read."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the last two: huge numbers, deep nesting
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise VitcnnError(f"{source} cannot be read as YAML{where}: {_short(ascii(problem)[1:-1])}") from None


# --- editions -----------------------------------------------------------------------------------------------


def editions(root: Path) -> list[str]:
    """The names of all editions."""
    return sorted(path.stem for path in (root / "notebooks" / "editions").glob("*.yml"))


def edition_file(root: Path, edition: str) -> Path:
    return root / "notebooks" / "editions" / f"{edition}.yml"


def read_edition(root: Path, edition: str) -> dict[str, Any]:
    """The parameters in notebooks/editions/EDITION.yml."""
    return {name: value for name, value in _read_file(root, edition).items() if name != "title"}


def edition_title(root: Path, edition: str) -> str:
    """The title in an edition's file, else one made of its name; one line."""
    title = _read_file(root, edition).get("title", f"Edition {edition}")
    if not isinstance(title, str) or not title.strip() or len(title) > LONGEST:
        raise VitcnnError(f"the title in {edition}.yml must be a text of at most {LONGEST} characters")
    return "".join(character for character in " ".join(title.split()) if character.isprintable())


def _read_file(root: Path, edition: str) -> dict[str, Any]:
    path = edition_file(root, edition)
    names = editions(root)
    if edition not in names:
        misnamed = [p for p in (root / "notebooks" / "editions").glob("*.yaml") if p.stem == edition]
        there = f"; rename {misnamed[0]} to {path.name}" if misnamed else near(edition, names)
        raise VitcnnError(f"no edition {_short(edition)!r}{there}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", edition):
        raise VitcnnError(f"{path.name} cannot name an edition: use letters, digits, '-', '_' and '.' only")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VitcnnError(f"{path} cannot be read as text in UTF-8: {error}") from None
    content = read_yaml(text, str(path))
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise VitcnnError(f"{path} must hold lines of the form `name: value`")
    return content


# --- parameters ---------------------------------------------------------------------------------------------


def default_parameters(notebook: Path) -> dict[str, Any]:
    """The names and values of the cell tagged `parameters`, which may do nothing but assign values."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise VitcnnError(f"{notebook.name} must have one cell tagged `parameters`, it has {len(tagged)}")
    if not (defaults := _assigned(tagged[0])):
        raise VitcnnError(f"{notebook.name}: the cell tagged `parameters` may do nothing but assign values to names")
    return defaults


def unfit(parameters: dict[str, Any], notebooks: Sequence[Path]) -> list[str]:
    """A line for each parameter that no notebook has, or whose value is of another kind than the default one."""
    defaults: dict[str, Any] = {}
    for notebook in notebooks:
        defaults |= default_parameters(notebook)
    return list(_problems(parameters, defaults, "no notebook has a parameter"))


def check_parameters() -> None:
    """Check, in a notebook, what papermill put below the cell of parameters: names, and kinds of values.

    Without this, a misspelt name would be without effect, and a list given by `-p` would be a text.
    Raises VitcnnError with a line for each that cannot be used. Does nothing where papermill gave none.
    """
    from IPython import get_ipython

    shell = get_ipython()
    cells: list[str] = shell.user_ns["In"] if shell else []
    injected = [index for index, cell in enumerate(cells) if cell.startswith("# Parameters\n")]
    if not injected:
        return
    given = _assigned(cells[injected[-1]])
    # The cell of parameters is the last one above that does nothing but assign values.
    above = [_assigned(cell) for index, cell in enumerate(cells[: injected[-1]]) if index not in injected]
    defaults: dict[str, Any] = next((names for names in reversed(above) if names), {})
    problems = list(_problems(given, defaults, "this notebook has no parameter"))
    if problems:
        raise VitcnnError(*problems)


def _assigned(source: str) -> dict[str, Any]:
    """The names and values of a cell that does nothing but assign values to names; of any other cell, nothing."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # such as %pip
        return {}
    if not all(isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) for node in statements):
        return {}
    names: dict[str, Any] = {}
    exec(source, {}, names)
    return names


def _problems(given: dict[str, Any], defaults: dict[str, Any], unknown: str) -> Iterator[str]:
    for name, value in given.items():
        if name not in defaults:
            yield f"{unknown} {_short(name)!r}{near(name, sorted(defaults))}"
        elif not _fits(value, defaults[name]):
            kind, example = _KINDS[type(defaults[name])], json.dumps(defaults[name])
            found = _short(json.dumps(value, default=str))
            yield f"{name} must be {kind}, such as {_short(example)}, not {found}{_hint(name, value)}"


_KINDS = {
    int: f"a whole number up to {LARGEST:,}", str: "a text", list: "a list of texts",
    dict: "a mapping from whole numbers to texts", type(None): "a text or a whole number",
}  # fmt: skip


def _fits(value: Any, default: Any) -> bool:
    """Whether a value can stand where the default is. None always can: the code that needs a value refuses it."""
    if value is None or type(default) not in _KINDS:
        return True
    if isinstance(default, int):
        return type(value) is int and min(1, default) <= value <= LARGEST
    if isinstance(default, str):
        return _is_text(value) or _is_checkpoint(value)
    if isinstance(default, list):
        return isinstance(value, list) and all(_fits(part, "name") for part in value)
    if isinstance(default, dict):
        # Papermill hands mappings on as JSON, whose keys are texts.
        numbered = isinstance(value, dict) and all(str(key).isdecimal() for key in value)
        return numbered and all(_fits(part, "name") for part in value.values())
    return _fits(value, "name") or _fits(value, 1)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable()


def _is_checkpoint(value: Any) -> bool:
    """Whether it is `{name: …, weights: FILE, image_size: …}`, of which `load_model` makes a model."""
    kinds = {"name": "name", "weights": "file", "image_size": 1}
    if not isinstance(value, dict) or "name" not in value or not value.keys() <= kinds.keys():
        return False
    return all(
        part is not None and type(part) is type(kinds[key]) and _fits(part, kinds[key]) for key, part in value.items()
    )


def _hint(name: str, value: Any) -> str:
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        return f": with papermill, give it as -y '{name}: {_short(value)}'"
    return ""


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}…"
