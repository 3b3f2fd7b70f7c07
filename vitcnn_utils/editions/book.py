"""From editions to executed notebooks to the static book.

    notebooks/editions/EDITION.yml    parameters: which models, which images
    _build/executed/EDITION/*.ipynb   `run_editions`: each carries the hash of all that it was made from
    _build/html/                      `build_book`: the pages of book/ and whatever has been executed

Both replace what was there in one step when the new is complete, so they can be interrupted at any time,
and both do only what has to be done again.
"""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vitcnn_utils.editions import fingerprint
from vitcnn_utils.editions.execute import Outcome, Task, execute, on_cluster
from vitcnn_utils.errors import VitcnnError, near
from vitcnn_utils.files import alone, replace_text

MAIN_EDITION = "zoo"  # its chapters stand at notebooks/ in the book; those of others at editions/NAME/


def find_root() -> Path:
    """The checkout that holds notebooks/ and book/: the one this package lies in, or the current folder."""
    for root in (fingerprint.PACKAGE.parent, Path.cwd()):
        if (root / "notebooks").is_dir() and (root / "book").is_dir():
            return root
    raise VitcnnError("no notebooks/ and book/ here: run this in a clone of the repository")


# --- editions -----------------------------------------------------------------------------------------------


def run_editions(
    editions: Sequence[str] = (MAIN_EDITION,),
    notebooks: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    scheduler: str | None = None,
    root: Path | None = None,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Execute the notebooks of editions whose inputs have changed; gives the paths of all of them.

    The inputs are the notebook, its parameters (with the files that they name), the package with its weights,
    and the lock file. A notebook gets the parameters that its own `parameters` cell has. One edition is run here;
    several, or with a scheduler, on Dask workers, with the same results.

    notebooks: numbers ('2') or names ('2_local_and_global'); none: all.
    overrides: values that replace the editions'.
    scheduler: address of a Dask scheduler; None starts one with one worker if there are several editions.
    Raises VitcnnError, before anything is run, where an edition, notebook or parameter does not exist or another run is
    at work on an edition; and at the end, a line a failure, where notebooks failed. What these wrote so far is then
    kept as _build/executed/EDITION/failed/NAME.ipynb, and all others have been run.
    """
    root = root or find_root()
    package = fingerprint.of_package()
    jobs = [job for edition in dict.fromkeys(editions) for job in _jobs(root, edition, notebooks, overrides, package)]
    with ExitStack() as locks:
        for edition in dict.fromkeys(editions):
            lock = _executed_folder(root, edition).with_name(f"{edition}.lock")
            locks.enter_context(alone(lock, f"another `vitcnn run` is at work on edition {edition}"))
        due = []
        for job in jobs:
            if _inputs_of(job.target) == job.inputs:
                report(f"{job.title}: up to date")
            else:
                due.append(job)
        failures = _run(due, len(set(editions)) > 1 or scheduler is not None, scheduler, report)
    if failures:
        raise VitcnnError("\n".join(failures))
    return [job.target for job in jobs]


class _Job(NamedTuple):
    """A notebook of an edition: what to execute, and where to put it with the hash of what it was made from."""

    title: str
    task: Task
    target: Path
    inputs: str


def _jobs(
    root: Path, edition: str, notebooks: Sequence[str], overrides: dict[str, Any] | None, package: str
) -> list[_Job]:
    parameters = read_edition(root, edition) | (overrides or {})
    sources = {path: default_parameters(path) for path in _sources(root)}
    if problems := list(unfit(parameters, list(sources))):
        raise VitcnnError("\n".join(problems))
    parameters = {"edition": edition} | parameters
    jobs = []
    for source in _choose(list(sources), notebooks):
        own = {name: value for name, value in parameters.items() if name in sources[source]}
        task = Task(edition, source.name, source.read_text(encoding="utf-8"), own, str(Path.cwd()), package)
        target = _executed_folder(root, edition) / source.name
        jobs.append(_Job(f"{edition}: {source.stem}", task, target, _hash_inputs(root, source, own, package)))
    return jobs


def _run(jobs: Sequence[_Job], with_dask: bool, scheduler: str | None, report: Callable[[str], None]) -> list[str]:
    """Execute notebooks and put each in its place as soon as it is done; gives a line for each that failed."""
    failures = []
    for count, (job, outcome) in enumerate(_outcomes(jobs, with_dask, scheduler, report), 1):
        line = f"[{count}/{len(jobs)}] {job.title}"
        if outcome.failure:
            failures.append(f"{job.title} {_keep_failed(job, outcome)}")
            report(f"{line}: failed")
        else:
            _keep(job, outcome)
            report(f"{line}: done in {outcome.seconds:.0f} s")
    return failures


def _outcomes(
    jobs: Sequence[_Job], with_dask: bool, scheduler: str | None, report: Callable[[str], None]
) -> Iterator[tuple[_Job, Outcome]]:
    if not with_dask:
        for index, job in enumerate(jobs, 1):
            report(f"[{index}/{len(jobs)}] {job.title} …")
            yield job, execute(job.task)
    elif jobs:
        of_task = {(job.task.edition, job.task.name): job for job in jobs}
        report(f"notebooks to run: {len(jobs)}, on {scheduler or 'one Dask worker of this machine'} …")
        for task, outcome in on_cluster([job.task for job in jobs], scheduler):
            yield of_task[task.edition, task.name], outcome


def _keep(job: _Job, outcome: Outcome) -> None:
    """Put an executed notebook in the place of the old one, with the hash of its inputs in it."""
    notebook = json.loads(outcome.notebook)
    notebook["metadata"]["vitcnn"] = {"inputs": job.inputs}
    replace_text(job.target, json.dumps(notebook))
    failed = _failed(job.target)
    failed.unlink(missing_ok=True)
    if failed.parent.exists() and not any(failed.parent.iterdir()):
        failed.parent.rmdir()


def _keep_failed(job: _Job, outcome: Outcome) -> str:
    """Keep what a notebook wrote before it failed, beside the old one; gives why it failed, and where to look."""
    failed = _failed(job.target)
    if not outcome.notebook:
        failed.unlink(missing_ok=True)
        return outcome.failure
    replace_text(failed, outcome.notebook)
    return f"{outcome.failure}; see {failed}"


def _failed(target: Path) -> Path:
    return target.parent / "failed" / target.name


def _executed_folder(root: Path, edition: str) -> Path:
    return root / "_build" / "executed" / edition


def read_edition(root: Path, edition: str) -> dict[str, Any]:
    """The parameters in notebooks/editions/EDITION.yml."""
    return {name: value for name, value in _read_yaml(root, edition).items() if name != "title"}


def edition_title(root: Path, edition: str) -> str:
    """What stands over an edition's part of the book: `title` in its file, else its name."""
    return str(_read_yaml(root, edition).get("title") or f"Edition {edition}")


def _read_yaml(root: Path, edition: str) -> dict[str, Any]:
    path = _edition_file(root, edition)
    names = _editions(root)
    if edition not in names:
        misnamed = root / "notebooks" / "editions" / f"{edition}.yaml"
        there = f"; rename {misnamed} to {path.name}" if misnamed.exists() else near(edition, names)
        raise VitcnnError(f"no edition {edition!r}{there}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", edition):
        raise VitcnnError(f"{path.name} cannot name an edition: use letters, digits, '-', '_' and '.' only")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise VitcnnError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VitcnnError(f"{path} cannot be read as text in UTF-8: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise VitcnnError(f"{path} must hold lines of the form `name: value`")
    return content


def _editions(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "notebooks" / "editions").glob("*.yml"))


def _edition_file(root: Path, edition: str) -> Path:
    return root / "notebooks" / "editions" / f"{edition}.yml"


def default_parameters(notebook: Path) -> dict[str, Any]:
    """The names and values of the cell tagged `parameters`."""
    cells = [c for c in _read(notebook)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise VitcnnError(f"{notebook.name} must have one cell tagged `parameters`, it has {len(cells)}")
    names: dict[str, Any] = {}
    exec("".join(cells[0]["source"]), {}, names)
    return {name: value for name, value in names.items() if not name.startswith("__")}


def unfit(parameters: dict[str, Any], notebooks: Sequence[Path]) -> Iterator[str]:
    """A line for each parameter that no notebook has, or whose value is of another kind than the default one."""
    defaults: dict[str, Any] = {}
    for notebook in notebooks:
        defaults |= default_parameters(notebook)
    for name, value in parameters.items():
        if name not in defaults:
            yield f"no notebook has a parameter {name!r}{near(name, sorted(defaults))}"
        elif not _of_one_kind(value, defaults[name]):
            kind = _KINDS[type(defaults[name])]
            yield f"{name} must be {kind}, such as {json.dumps(defaults[name])}, not {json.dumps(value, default=str)}"


_KINDS = {int: "a whole number", str: "a text", list: "a list", dict: "a mapping"}


def _of_one_kind(value: Any, default: Any) -> bool:
    """Whether a value can stand where the default is. None can: whoever does without it says so."""
    if value is None or type(default) not in _KINDS:
        return True
    return type(value) is type(default) and not (isinstance(value, int) and value < min(1, default))


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


# --- what a thing was made from ------------------------------------------------------------------------------


def _hash_inputs(root: Path, source: Path, parameters: dict[str, Any], package: str) -> str:
    texts = [Path(os.path.expanduser(value)) for value in parameters.values() if isinstance(value, str)]
    named = [path for path in texts if path.exists()]
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    stamps = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    text = json.dumps([source.name, parameters, package, stamps], sort_keys=True, default=str)
    return fingerprint.of_files([source, root / "requirements.lock"], root, text)


def _inputs_of(executed: Path) -> str | None:
    return _read(executed)["metadata"]["vitcnn"]["inputs"] if executed.exists() else None


def _read(notebook: Path) -> dict[str, Any]:
    return json.loads(notebook.read_text(encoding="utf-8"))


# --- the book -----------------------------------------------------------------------------------------------


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
    own = [_edition_file(root, edition) for edition in _editions(root)]
    sources = [*fingerprint.files(root / "book"), *executed, *own, root / "requirements.lock"]
    package = fingerprint.PACKAGE
    inputs = fingerprint.of_files(fingerprint.files(package), package, fingerprint.of_files(sources, root))
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
    names = [source.name for source in _sources(root)]
    for name in names:
        if not (_executed_folder(root, MAIN_EDITION) / name).exists():
            raise VitcnnError(f"{name} was not executed yet: run `vitcnn run {MAIN_EDITION}`")
    paths = [path for edition in _editions(root) for path in _executed_folder(root, edition).glob("*.ipynb")]
    return sorted(path for path in paths if path.name in names)


def _stage(root: Path, executed: list[Path], staging: Path) -> None:
    """Lay out the book as Jupyter Book takes it: pages, executed notebooks, and a part for each further edition.

    The main edition's notebooks lie at the path of their sources, so that the launch buttons open those. Explorers move
    from the notebooks into _extra/, whose files go into the book as they are.
    """
    from vitcnn_utils.course import slides
    from vitcnn_utils.explorers import static

    shutil.copytree(root / "book", staging, ignore=shutil.ignore_patterns("__pycache__"))
    # As they are: students run them, the book shows them.
    shutil.copytree(root / "notebooks" / "course", staging / "notebooks" / "course", dirs_exist_ok=True)
    explorers = []
    for path in executed:
        place = _place(path)
        notebook, found = static.take_out(_for_page(_read(path)), place)
        explorers += found
        _write(staging / place, json.dumps(notebook, indent=1))
    static.write(explorers, staging / "_extra" / static.FOLDER)
    # For the directive `explorer`, which shows the first of each kind.
    own = {e.kind: e.entry() for e in reversed(explorers) if e.place.startswith("notebooks/")}
    _write(staging / "_explorers.json", json.dumps(own))
    slides.write(root / "book" / "course" / "slides.md", {k: e["html"] for k, e in own.items()}, staging / "_extra")
    toc = yaml.safe_load((staging / "_toc.yml").read_text(encoding="utf-8"))
    toc["parts"][1:1] = [
        _edition_part(root, edition, [path for path in executed if path.parent.name == edition], staging)
        for edition in sorted({path.parent.name for path in executed} - {MAIN_EDITION})
    ]
    _write(staging / "_toc.yml", yaml.safe_dump(toc, sort_keys=False))


def _place(executed: Path) -> str:
    """Where an executed notebook lies in the book."""
    edition = executed.parent.name
    return f"{'notebooks' if edition == MAIN_EDITION else f'editions/{edition}'}/{executed.name}"


def _edition_part(root: Path, edition: str, executed: list[Path], staging: Path) -> dict[str, Any]:
    """The part of an edition in the table of contents; writes its first page, which says what the edition is."""
    title = edition_title(root, edition)
    first = f"editions/{edition}/edition.md"
    _write(staging / first, _edition_page(root, edition, title, executed))
    return {"caption": title, "chapters": [{"file": file} for file in (first, *map(_place, executed))]}


def _edition_page(root: Path, edition: str, title: str, executed: list[Path]) -> str:
    """Markdown: the edition's file, what its notebooks were given besides, and which chapters there are."""
    said = {"edition": edition} | read_edition(root, edition)
    file = _edition_file(root, edition)
    given: dict[str, Any] = {}
    for path in executed:
        given |= _read(path)["metadata"]["papermill"]["parameters"]
    # Through JSON, as papermill hands them on: the numbers of a mapping become text.
    other = {name: value for name, value in given.items() if _plain(said.get(name)) != _plain(value)}
    missing = [source.stem for source in _sources(root) if source.name not in [path.name for path in executed]]
    text = [
        "# Models and images",
        f"This part is *{html.escape(title)}*: the chapters of the book, run on other models or images. What their "
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


def _code(text: str) -> str:
    """Markdown for YAML; `force`: what the highlighter makes of it is no fault of the book's."""
    return f"`````````{{code-block}} yaml\n:force:\n\n{text.rstrip()}\n`````````"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


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
