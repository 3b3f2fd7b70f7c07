"""From editions to executed notebooks.

    notebooks/editions/EDITION.yml    parameters: which models, which images
    _build/executed/EDITION/*.ipynb   `run_editions`: each carries the hash of all that it was made from
    _build/quick/EDITION/*.ipynb      the same on few images, which the book does not show
    _build/stability/N/EDITION/*      the same on other images, see `stability`

A notebook takes the place of the old one in one step when it is complete, so a run can be interrupted at any time.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from vitcnn_utils.editions import fingerprint
from vitcnn_utils.editions.execute import Outcome, Task, execute, on_cluster
from vitcnn_utils.editions.parameters import default_parameters, read_edition, unfit
from vitcnn_utils.errors import VitcnnError, near
from vitcnn_utils.files import alone, replace_text

MAIN_EDITION = "zoo"  # its chapters stand at notebooks/ in the book; those of others at editions/NAME/

QUICK = 250
"""Images of a quick run: with fewer, the linear probes of ten classes have too few."""


def find_root() -> Path:
    """The checkout that holds notebooks/ and book/: the one this package lies in, or the current folder."""
    for root in (fingerprint.PACKAGE.parent, Path.cwd()):
        if (root / "notebooks").is_dir() and (root / "book").is_dir():
            return root
    raise VitcnnError("no notebooks/ and book/ here: run this in a clone of the repository")


def place_in_book(executed: Path) -> str:
    """Where an executed notebook lies in the book."""
    edition = executed.parent.name
    return f"{'notebooks' if edition == MAIN_EDITION else f'editions/{edition}'}/{executed.name}"


def sources(root: Path) -> list[Path]:
    """All notebooks, as they are before they are executed."""
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    if not paths:
        raise VitcnnError(f"no notebooks in {root / 'notebooks'}")
    return paths


def executed_folder(root: Path, edition: str, where: str = "executed") -> Path:
    return root / "_build" / where / edition


def run_editions(
    editions: Sequence[str] = (MAIN_EDITION,),
    notebooks: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    scheduler: str | None = None,
    quick: bool = False,
    root: Path | None = None,
    report: Callable[[str], None] = print,
    where: str = "",
) -> list[Path]:
    """Execute the notebooks of editions of which anything that they use has changed; gives the paths of all of them.

    A notebook gets the parameters that its own `parameters` cell has. One edition is run here; several, or with a
    scheduler, on Dask workers, with the same results.

    notebooks: numbers ('2') or names ('2_local_and_global'); none: all.
    overrides: values that replace the editions'.
    scheduler: address of a Dask scheduler; None starts one with one worker if there are several editions.
    quick: take few images, in any case run all, and report how long the whole would take.
    where: the folder of _build for the notebooks; '' for executed, or quick.
    Raises VitcnnError, before anything is run, where an edition, notebook or parameter does not exist or another run is
    at work on an edition; and at the end, a line a failure, where notebooks failed. What these wrote so far is then
    kept in failed/NAME.ipynb beside the others, and all others have been run.
    """
    root, where = root or find_root(), where or ("quick" if quick else "executed")
    editions = list(dict.fromkeys(editions))
    jobs = [job for edition in editions for job in _jobs(root, edition, notebooks, overrides or {}, quick, where)]
    with ExitStack() as locks:
        for edition in editions:
            lock = executed_folder(root, edition, where).with_name(f"{edition}.lock")
            locks.enter_context(alone(lock, f"another `vitcnn run` is at work on edition {edition}"))
        due = [job for job in jobs if quick or not _is_done(job)]
        for job in jobs:
            if job not in due:
                report(f"{job.title}: up to date")
        failures = _run(due, len(editions) > 1 or scheduler is not None, scheduler, report)
    if failures:
        raise VitcnnError(*failures)
    return [job.target for job in jobs]


class _Job(NamedTuple):
    """A notebook of an edition, and where to put it. fraction: of the edition's images, how many it takes."""

    title: str
    task: Task
    target: Path
    fraction: float | None


def _jobs(
    root: Path, edition: str, notebooks: Sequence[str], overrides: dict[str, Any], quick: bool, where: str
) -> list[_Job]:
    defaults = {source: default_parameters(source) for source in sources(root)}
    given = read_edition(root, edition)
    parameters, fraction = {"edition": edition} | given | overrides, None
    if problems := unfit(given | overrides, list(defaults)):
        raise VitcnnError(*problems)
    if quick:
        all_given = {name: value for own in defaults.values() for name, value in own.items()} | given
        few, fraction = _few_images(all_given, overrides)
        parameters |= few
    package = fingerprint.of_package()
    jobs = []
    for source in _choose(list(defaults), notebooks):
        own = {name: value for name, value in parameters.items() if name in defaults[source]}
        task = Task(edition, source.name, source.read_text(encoding="utf-8"), own, str(Path.cwd()), package)
        target = executed_folder(root, edition, where) / source.name
        jobs.append(_Job(f"{edition}: {source.stem}", task, target, fraction))
    return jobs


def _few_images(parameters: dict[str, Any], overrides: dict[str, Any]) -> tuple[dict[str, int], float | None]:
    """The parameters that count images, made smaller in one proportion, and this; None where `n_images` is all.

    Images of another set, `n_transfer_images`, are probed as those of the first are, and need to be as many.
    parameters: the edition's own; overrides: those that hold as they are, also in the proportion.
    """
    counts = {name: value for name, value in parameters.items() if name.startswith("n_") and name.endswith("images")}
    whole = counts["n_images"]
    taken = overrides.get("n_images", min(QUICK, whole or QUICK))
    fraction = taken / whole if taken and whole else None
    few = {name: QUICK if n is None else math.ceil(n * min(1, fraction or 1)) for name, n in counts.items()}
    if "n_transfer_images" in counts:
        few["n_transfer_images"] = counts["n_transfer_images"] or QUICK
    return {name: min(n, QUICK) for name, n in few.items()} | overrides, fraction


def _choose(all_sources: list[Path], wanted: Sequence[str]) -> list[Path]:
    chosen = []
    for name in wanted:
        found = [s for s in all_sources if name in (s.stem, s.name, s.stem.partition("_")[0])]
        if not found:
            raise VitcnnError(f"no notebook {name!r}{near(name, [s.stem for s in all_sources])}")
        chosen += found
    return chosen or all_sources


def _is_done(job: _Job) -> bool:
    """Whether a notebook was executed, and nothing that it used has changed since."""
    if not job.target.exists():
        return False
    notebook = json.loads(job.target.read_text(encoding="utf-8"))
    made = notebook["metadata"].get("vitcnn", {})
    return "uses" in made and made["inputs"] == _inputs(job.task, made["uses"])


def _inputs(task: Task, uses: dict[str, Any]) -> str:
    return fingerprint.of_chapter(task.name + task.source, task.parameters, uses)


def _fault(notebook: str, job: _Job) -> str:
    """Why a page could not show an executed notebook, its JSON; '' if it can."""
    if '"application/vnd.' not in notebook:  # neither explorers nor widgets: what follows takes seconds to load
        return ""
    from vitcnn_utils.explorers import static

    try:
        static.take_out(json.loads(notebook), f"notebooks/{job.target.name}")
    except VitcnnError as error:
        return str(error)
    return ""


def _run(jobs: Sequence[_Job], with_dask: bool, scheduler: str | None, report: Callable[[str], None]) -> list[str]:
    """Execute notebooks and put each in its place as soon as it is done; gives a line for each that failed."""
    failures = []
    full = 0.0
    for count, (job, outcome) in enumerate(_outcomes(jobs, with_dask, scheduler, report), 1):
        line = f"[{count}/{len(jobs)}] {job.title}"
        failure = _keep(job, outcome)
        if failure:
            failures.append(f"{job.title} {failure}")
            report(f"{line}: failed")
        else:
            report(f"{line}: done in {outcome.seconds:.0f} s, with {outcome.uses['memory'] / 1e9:.1f} GB of memory")
        if job.fraction:
            full += outcome.seconds + outcome.measuring * (1 / job.fraction - 1)
    if full and not failures:
        report(f"on all images: roughly {full / 60:.0f} minutes, in proportion to the images, and more memory")
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


def _keep(job: _Job, outcome: Outcome) -> str:
    """Put an executed notebook in the place of the old one, or one that failed beside it; gives why it failed."""
    failed = job.target.parent / "failed" / job.target.name
    failed.unlink(missing_ok=True)
    if not outcome.notebook:
        return outcome.failure
    failure = outcome.failure or _fault(outcome.notebook, job)
    if failure:
        replace_text(failed, outcome.notebook)
        return f"{failure}; see {failed}"
    notebook = json.loads(outcome.notebook)
    unchanged = fingerprint.of_package() == job.task.package  # else the version that it has used is not known
    inputs = _inputs(job.task, outcome.uses) if unchanged else ""
    notebook["metadata"]["vitcnn"] = {"inputs": inputs, "uses": outcome.uses}
    replace_text(job.target, json.dumps(notebook))
    if failed.parent.exists() and not any(failed.parent.iterdir()):
        failed.parent.rmdir()
    return ""
