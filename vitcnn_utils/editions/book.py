"""The static book: the pages of book/ and all executed notebooks, in _build/html/.

The new book takes the place of the old one in one step, and is built only if anything has changed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vitcnn_utils.claims.cards import MIME, SCHEMA
from vitcnn_utils.editions import fingerprint, stability
from vitcnn_utils.editions.chapters import MAIN_EDITION, executed_folder, find_root, place_in_book, sources
from vitcnn_utils.editions.ledger import claims_in, complete_cards, page_in_book
from vitcnn_utils.editions.parameters import edition_file, edition_title, editions, read_edition
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import alone


def build_book(root: Path | None = None, report: Callable[[str], None] = print) -> Path:
    """Build the static book from book/ and the executed notebooks, if any of them has changed; gives its first page.

    Raises VitcnnError where a notebook of the main edition was never executed, where Jupyter Book warns, and where
    another build is at work.
    """
    root = root or find_root()
    with alone(root / "_build" / "html.lock", "another `vitcnn book` is at work here"):
        return _build(root, report)


def _build(root: Path, report: Callable[[str], None]) -> Path:
    build = root / "_build"
    index = build / "html" / "index.html"
    stamp = build / "html.inputs"
    executed = _executed(root)
    own = [edition_file(root, edition) for edition in sorted({path.parent.name for path in executed})]
    folders = [root / "book", root / "notebooks" / "course"]
    made_of = [
        *(f for folder in folders for f in fingerprint.files(folder)),
        *executed,
        *own,
        root / "requirements.lock",
    ]
    inputs = fingerprint.of_files(made_of, root, fingerprint.of_package())
    if index.exists() and stamp.exists() and stamp.read_text() == inputs:
        report("the book is up to date")
        return index

    report(f"building the book from {len(executed)} executed notebooks …")
    with tempfile.TemporaryDirectory(dir=build) as aside:
        staging = Path(aside) / "book"
        _stage(root, executed, staging)
        pages = _jupyter_book(staging, Path(aside), _date(root))
        stamp.unlink(missing_ok=True)
        if index.parent.exists():
            index.parent.replace(Path(aside) / "old")
        pages.replace(index.parent)
    stamp.write_text(inputs)
    return index


def _executed(root: Path) -> list[Path]:
    """All executed notebooks that still have a source and an edition, by edition and name."""
    names = [source.name for source in sources(root)]
    for name in names:
        if not (executed_folder(root, MAIN_EDITION) / name).exists():
            raise VitcnnError(f"{name} was not executed yet: run `vitcnn run {MAIN_EDITION}`")
    paths = [path for edition in editions(root) for path in executed_folder(root, edition).glob("*.ipynb")]
    return sorted(path for path in paths if path.name in names)


def _stage(root: Path, executed: list[Path], staging: Path) -> None:
    """Lay out the book as Jupyter Book takes it: pages, executed notebooks, and a part for each further edition.

    The main edition's notebooks lie at the path of their sources, so that the launch buttons open those. Explorers move
    from the notebooks into _extra/, whose files go into the book as they are.
    """
    from vitcnn_utils.course import slides
    from vitcnn_utils.explorers import static

    _copy(root / "book", staging)
    # As they are: students run them, the book shows them.
    _copy(root / "notebooks" / "course", staging / "notebooks" / "course")
    explorers, claims = [], []
    for path in executed:
        place = place_in_book(path)
        rows = claims_in(_read(path), path.parent.name, page_in_book(path))
        notebook, found = static.take_out(_for_page(_read(path)), place)
        stability.mark(rows, stability.read(root / "book"))
        complete_cards(notebook, rows, {explorer.name for explorer in found})
        claims += rows
        explorers += found
        _write(staging / place, json.dumps(notebook, indent=1))
    static.write(explorers, staging / "_extra" / static.FOLDER)
    # For the directive `explorer`, which shows the first of each kind.
    own = {e.kind: e.entry() for e in reversed(explorers) if e.place.startswith("notebooks/")}
    _write(staging / "_explorers.json", json.dumps(own))
    # For the directive `ledger`, and for machines.
    _write(staging / "_extra" / "claims.json", json.dumps({"schema": SCHEMA, "claims": claims}, indent=1))
    site = yaml.safe_load((staging / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]["html_baseurl"]
    placeholders = {kind: entry["html"] for kind, entry in own.items()}
    slides.write(root / "book" / "course" / "slides.md", placeholders, staging / "_extra", site)
    toc = yaml.safe_load((staging / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"][1:1] = [
        _edition_part(root, edition, [path for path in executed if path.parent.name == edition], staging)
        for edition in sorted({path.parent.name for path in executed} - {MAIN_EDITION})
    ]
    _write(staging / "_toc.yml", yaml.safe_dump(toc, sort_keys=False))


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    except shutil.Error as error:  # it gathers what failed, and does not tell why in a form of its own
        path, _, why = error.args[0][0]
        raise VitcnnError(f"{path} cannot be copied: {why}") from None


def _edition_part(root: Path, edition: str, executed: list[Path], staging: Path) -> dict[str, Any]:
    """The part of an edition in the table of contents; writes its first page, which says what the edition is."""
    title = edition_title(root, edition)
    first = f"editions/{edition}/edition.md"
    _write(staging / first, _edition_page(root, edition, title, executed))
    return {"caption": title, "chapters": [{"file": file} for file in (first, *map(place_in_book, executed))]}


def _edition_page(root: Path, edition: str, title: str, executed: list[Path]) -> str:
    """Markdown: the edition's file, what its notebooks were given besides, and which chapters there are."""
    said = {"edition": edition} | read_edition(root, edition)
    file = edition_file(root, edition)
    given: dict[str, Any] = {}
    for path in executed:
        given |= _read(path)["metadata"]["papermill"]["parameters"]
    # Through JSON, as papermill hands them on: the numbers of a mapping become text.
    other = {name: value for name, value in given.items() if _plain(said.get(name)) != _plain(value)}
    missing = [source.stem for source in sources(root) if source.name not in [path.name for path in executed]]
    text = [
        "# Models and images",
        f"This part is *{_literal(title)}*: the chapters of the book, run on other models or images. What their "
        f"text says of the default edition, `{MAIN_EDITION}`, need not hold here. The parameters, from "
        f"`{file.relative_to(root).as_posix()}`:",
        _code(file.read_text(encoding="utf-8")),
    ]
    if other:
        text += ["These values were others when the chapters were run:", _code(yaml.safe_dump(other, sort_keys=False))]
    if missing:
        text.append(f"Not run: {', '.join(f'`{name}`' for name in missing)}.")
    return "\n\n".join(text) + "\n"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _literal(text: str) -> str:
    """Markdown that shows a text as it is, whatever marks of Markdown, HTML or TeX are in it.

    As entities: MyST's extensions find their marks, such as `$` and `{{`, behind a backslash too.
    """
    return re.sub(r"[!-/:-@[-`{-~]", lambda mark: f"&#{ord(mark[0])};", " ".join(text.split()))


def _code(text: str) -> str:
    """Markdown for YAML; with `force`, text that the highlighter does not understand is not a warning."""
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}{{code-block}} yaml\n:force:\n\n{text.rstrip()}\n{fence}"


def _read(notebook: Path) -> dict[str, Any]:
    return json.loads(notebook.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _for_page(notebook: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook without what differs from run to run, and without cells that a reader has no use for."""
    for key in ("papermill", "vitcnn"):
        notebook["metadata"].pop(key, None)
    for index, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{index}"  # papermill draws that of the cell which it adds
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(MIME, None)  # they are in claims.json
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags or "install" in tags:
            tags = [*tags, "remove-cell"]
        cell["metadata"] = {
            key: value for key, value in cell["metadata"].items() if key not in ("papermill", "execution")
        }
        cell["metadata"]["tags"] = tags
    return notebook


def _jupyter_book(staging: Path, output: Path, date: str) -> Path:
    """Run Jupyter Book, every warning an error; gives the folder of the pages."""
    program = Path(sys.executable).with_name("jupyter-book")
    if shutil.which(program) is None:
        raise VitcnnError(f"no {program}: in a clone of the repository, pip install -e '.[book]'")
    command = [str(program), "build", str(staging), "--path-output", str(output)]
    options = ["-W", "--keep-going", "--nitpick", "--quiet"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": date, "PYTHONHASHSEED": "0"}
    result = subprocess.run([*command, *options], env=environment, capture_output=True, encoding="utf-8")
    if result.returncode:
        # The log names files of the staging copy; their sources lie at the same place under book/ or notebooks/.
        log = (result.stderr.strip() or result.stdout.strip()).replace(f"{staging}{os.sep}", "")
        if full := re.search(r"\[Errno \d+\] (No space left on device|Disk quota exceeded).*", log):
            raise VitcnnError(f"the book was not built: {full[0]}: make room, and the same command goes on")
        print(log, file=sys.stderr)
        raise VitcnnError("the book was not built: Jupyter Book found the faults above")
    return output / "_build" / "html"


def _date(root: Path) -> str:
    """The date that the pages show, the same in every build of one commit: when it was made; in seconds since 1970."""
    command = ["git", "-C", str(root), "show", "--no-patch", "--format=%ct", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return str(int((root / "requirements.lock").stat().st_mtime))
