"""From editions to executed notebooks to the static book.

    notebooks/editions/EDITION.yml    parameters: which models, which images
    _build/executed/EDITION/*.ipynb   `run_edition`: each carries the hash of all that it was made from
    _build/html/                      `build_book`: the pages of book/ and whatever has been executed

Both replace what was there in one step when the new is complete, so they can be interrupted at any time,
and both do only what has to be done again.
"""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from vitcnn_utils.errors import VitcnnError, near

MAIN_EDITION = "zoo"  # its chapters stand at notebooks/ in the book; those of others at editions/NAME/
_PACKAGE = Path(__file__).parent
_NOT_SEEN_BY_NOTEBOOKS = {"book.py", "check.py", "cli.py", "estimate.py", "rehearsal.py", "static.py", "runtime.js"}


def find_root() -> Path:
    """The checkout that holds notebooks/ and book/: the one this package lies in, or the current folder."""
    for root in (_PACKAGE.parent, Path.cwd()):
        if (root / "notebooks").is_dir() and (root / "book").is_dir():
            return root
    raise VitcnnError("no notebooks/ and book/ here: run this in a clone of the repository")


# --- editions -----------------------------------------------------------------------------------------------


def run_edition(
    edition: str = MAIN_EDITION,
    notebooks: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    root: Path | None = None,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Execute the notebooks of an edition whose inputs have changed; gives the paths of all of them.

    The inputs are the notebook, its parameters (with the files that they name), the package with its weights,
    and the lock file. A notebook gets the parameters that its own `parameters` cell has.

    notebooks: numbers ('2') or names ('2_local_and_global'); none: all.
    overrides: values that replace the edition's.
    Raises VitcnnError where an edition, notebook or parameter does not exist, and where a cell fails; what that
    notebook wrote so far is then kept as _build/executed/EDITION/failed/NAME.ipynb.
    """
    root = root or find_root()
    parameters = read_edition(root, edition) | (overrides or {})
    sources = {path: parameter_names(path) for path in _sources(root)}
    known = sorted(set().union(*sources.values()))
    for name in parameters:
        if name not in known:
            raise VitcnnError(f"no notebook has a parameter {name!r}{near(name, known)}")
    chosen = _choose(list(sources), notebooks)
    folder = root / "_build" / "executed" / edition
    package = _hash_files(_package_files(), _PACKAGE)
    executed = []
    for index, source in enumerate(chosen, 1):
        own = {name: value for name, value in parameters.items() if name in sources[source]}
        inputs = _hash_inputs(root, source, own, package)
        target = folder / source.name
        line = f"[{index}/{len(chosen)}] {edition}: {source.stem}"
        if _inputs_of(target) == inputs:
            report(f"{line}: up to date")
        else:
            report(f"{line} …")
            start = time.monotonic()
            _execute(source, target, own, inputs)
            report(f"{line}: done in {time.monotonic() - start:.0f} s")
        executed.append(target)
    return executed


def read_edition(root: Path, edition: str) -> dict[str, Any]:
    """The parameters in notebooks/editions/EDITION.yml."""
    folder = root / "notebooks" / "editions"
    path = folder / f"{edition}.yml"
    names = sorted(p.stem for p in folder.glob("*.yml"))
    if edition not in names:
        raise VitcnnError(f"no edition {edition!r}{near(edition, names)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise VitcnnError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise VitcnnError(f"{path} must hold lines of the form `name: value`")
    return content


def parameter_names(notebook: Path) -> set[str]:
    """The names that the cell tagged `parameters` assigns."""
    cells = [c for c in _read(notebook)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise VitcnnError(f"{notebook.name} must have one cell tagged `parameters`, it has {len(cells)}")
    tree = ast.parse("".join(cells[0]["source"]))
    return {
        target.id
        for node in tree.body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    }


def _sources(root: Path) -> list[Path]:
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    if not paths:
        raise VitcnnError(f"no notebooks in {root / 'notebooks'}")
    return paths


def _choose(sources: list[Path], wanted: Sequence[str]) -> list[Path]:
    chosen = []
    for name in wanted:
        found = [s for s in sources if name in (s.stem, s.name, s.stem.partition("_")[0])]
        if not found:
            raise VitcnnError(f"no notebook {name!r}{near(name, [s.stem for s in sources])}")
        chosen += found
    return chosen or sources


def _execute(source: Path, target: Path, parameters: dict[str, Any], inputs: str) -> None:
    """Run a notebook aside, then put it in the place of the old one, with the hash of its inputs in it."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside, _own_kernel():
        partial = Path(aside) / target.name
        try:
            execute_notebook(source, partial, parameters, kernel_name="python3", progress_bar={"disable": None})
        except (PapermillExecutionError, DeadKernelError) as error:
            failed = target.parent / "failed" / target.name
            failed.parent.mkdir(exist_ok=True)
            partial.replace(failed)
            raise VitcnnError(f"{source.stem} {_describe(error)}; see {failed}") from error
        notebook = _read(partial)
        notebook["metadata"]["vitcnn"] = {"inputs": inputs}
        partial.write_text(json.dumps(notebook), encoding="utf-8")
        partial.replace(target)


def _describe(error: Any) -> str:
    """In which cell a notebook failed and how, in one line."""
    if not hasattr(error, "exec_count"):
        return "stopped: its kernel died, most likely for want of memory"
    message = " ".join(error.evalue.split())
    # Errors of users speak for themselves; others need their name.
    what = message if error.ename == VitcnnError.__name__ else f"{error.ename}: {message}"
    return f"failed in cell [{error.exec_count}], {what}"


@contextmanager
def _own_kernel() -> Iterator[None]:
    """Let 'python3' be the interpreter that runs now, whatever kernels the user has under that name."""
    from ipykernel.kernelspec import write_kernel_spec

    old = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        # What fails in a cell is in the notebook; in its log a kernel tells of interrupts, with a traceback, and warns
        # that others could listen, though it talks to this machine alone.
        write_kernel_spec(str(Path(folder) / "kernels" / "python3"), extra_arguments=["--log-level=CRITICAL"])
        os.environ["JUPYTER_PATH"] = folder + (os.pathsep + old if old else "")
        try:
            yield
        finally:
            if old is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = old


# --- what a thing was made from ------------------------------------------------------------------------------


def _hash_inputs(root: Path, source: Path, parameters: dict[str, Any], package: str) -> str:
    named = [Path(value) for value in parameters.values() if isinstance(value, str) and Path(value).exists()]
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    stamps = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    text = json.dumps([source.name, parameters, package, stamps], sort_keys=True, default=str)
    return _hash_files([source, root / "requirements.lock"], root, text)


def _package_files() -> list[Path]:
    return [p for p in _files(_PACKAGE) if p.name not in _NOT_SEEN_BY_NOTEBOOKS]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _hash_files(paths: Sequence[Path], root: Path, text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for path in paths:
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _inputs_of(executed: Path) -> str | None:
    return _read(executed)["metadata"]["vitcnn"]["inputs"] if executed.exists() else None


def _read(notebook: Path) -> dict[str, Any]:
    return json.loads(notebook.read_text(encoding="utf-8"))


# --- the book -----------------------------------------------------------------------------------------------


def build_book(root: Path | None = None, report: Callable[[str], None] = print) -> Path:
    """Build the static book from book/ and the executed notebooks, if any of them has changed; gives its first page.

    Raises VitcnnError where a notebook of the main edition was never executed, and where Jupyter Book warns.
    """
    root = root or find_root()
    build = root / "_build"
    index = build / "html" / "index.html"
    stamp = build / "html.inputs"
    executed = _executed(root)
    inputs = _hash_files([*_files(root / "book"), *executed, root / "requirements.lock"], root)
    inputs = _hash_files(_files(_PACKAGE), _PACKAGE, inputs)
    if index.exists() and stamp.exists() and stamp.read_text() == inputs:
        report("the book is up to date")
        return index

    report(f"building the book from {len(executed)} executed notebooks …")
    with tempfile.TemporaryDirectory(dir=build) as aside:
        staging = Path(aside) / "book"
        _stage(root, executed, staging)
        html = _jupyter_book(staging, Path(aside), _date(root))
        stamp.unlink(missing_ok=True)
        if index.parent.exists():
            index.parent.replace(Path(aside) / "old")
        html.replace(index.parent)
    stamp.write_text(inputs)
    return index


def _executed(root: Path) -> list[Path]:
    """All executed notebooks that still have a source, by edition and name."""
    names = [source.name for source in _sources(root)]
    folder = root / "_build" / "executed"
    for name in names:
        if not (folder / MAIN_EDITION / name).exists():
            raise VitcnnError(f"{name} was not executed yet: run `vitcnn run {MAIN_EDITION}`")
    return sorted(path for path in folder.glob("*/*.ipynb") if path.name in names)


def _stage(root: Path, executed: list[Path], staging: Path) -> None:
    """Lay out the book as Jupyter Book takes it: pages, executed notebooks, and a part for each further edition.

    The main edition's notebooks lie at the path of their sources, so that the launch buttons open those. Explorers move
    from the notebooks into _extra/, whose files go into the book as they are.
    """
    from vitcnn_utils.explorers import static

    shutil.copytree(root / "book", staging, ignore=shutil.ignore_patterns("__pycache__"))
    toc = yaml.safe_load((staging / "_toc.yml").read_text(encoding="utf-8"))
    explorers = []
    for path in executed:
        edition = path.parent.name
        place = f"{'notebooks' if edition == MAIN_EDITION else f'editions/{edition}'}/{path.name}"
        notebook, found = static.take_out(_for_page(_read(path)), place)
        explorers += found
        (staging / place).parent.mkdir(parents=True, exist_ok=True)
        (staging / place).write_text(json.dumps(notebook, indent=1), encoding="utf-8")
    static.write(explorers, staging / "_extra" / static.FOLDER)
    # For the directive `explorer`, which shows the first of each kind.
    own = {e.kind: e.entry() for e in reversed(explorers) if e.place.startswith("notebooks/")}
    (staging / "_explorers.json").write_text(json.dumps(own), encoding="utf-8")
    for edition in sorted({path.parent.name for path in executed} - {MAIN_EDITION}):
        toc["parts"].append({"caption": f"Edition {edition}", "chapters": [{"glob": f"editions/{edition}/*"}]})
    (staging / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")


def _for_page(notebook: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook without what differs from run to run, and without cells that a reader has no use for."""
    for key in ("papermill", "vitcnn"):
        notebook["metadata"].pop(key, None)
    for cell in notebook["cells"]:
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
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(staging), "--path-output", str(output)]
    options = ["-W", "--keep-going", "--nitpick", "--quiet"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": date, "PYTHONHASHSEED": "0"}
    result = subprocess.run([*command, *options], env=environment, capture_output=True, encoding="utf-8")
    if result.returncode:
        # The log names files of the staging copy; their sources lie at the same place under book/ or notebooks/.
        log = (result.stderr.strip() or result.stdout.strip()).replace(f"{staging}{os.sep}", "")
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
