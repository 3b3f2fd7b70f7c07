"""One notebook executed, on this machine or on a Dask worker: plain data go in and come out, no file is shared."""

import json
import logging
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitcnn_utils.editions import fingerprint
from vitcnn_utils.errors import VitcnnError

_ONE_AT_A_TIME = threading.Lock()  # a Dask worker may have several threads, but memory for one notebook only
_RETRIES = 2  # how often a notebook is tried again whose worker or kernel was lost
_PATIENCE = "30s"  # for a scheduler, and for its first worker


@dataclass(frozen=True)
class Task:
    """A notebook to execute.

    source: its JSON. folder: where to run it, for paths that are not absolute. package: the hash of the package that
    it is to be run with.
    """

    edition: str
    name: str
    source: str
    parameters: dict[str, Any]
    folder: str
    package: str


@dataclass(frozen=True)
class Outcome:
    """An executed notebook's JSON, or what one that failed wrote so far ('' if nothing), and why in one line.

    seconds: how long it ran; of them `measuring` in the cells after the first one, which loads models and images.
    uses: what `fingerprint.used` found in the kernel.
    """

    notebook: str
    failure: str = ""
    seconds: float = 0
    measuring: float = 0
    uses: dict[str, Any] = field(default_factory=lambda: {"files": [], "packages": [], "memory": 0})


def execute(task: Task) -> Outcome:
    """Run a notebook in a kernel of this Python. The outcome tells what stopped it; only an interrupt is raised."""
    from nbclient.exceptions import DeadKernelError

    try:
        return _attempt(task)
    except (DeadKernelError, RuntimeError) as error:
        return Outcome("", _lost(error))


def _attempt(task: Task, aside: str | None = None) -> Outcome:
    """As `execute`, but raises where the kernel is lost, DeadKernelError, or does not come up, RuntimeError.

    aside: a folder for what is written meanwhile, which is removed.
    """
    from papermill import PapermillExecutionError, execute_notebook

    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=aside) as name, _kernels(Path(name)) as kernel:
        source, target = Path(name) / task.name, Path(name) / f"executed-{task.name}"
        source.write_text(json.dumps(_with_report(json.loads(task.source))), encoding="utf-8")
        where = task.folder if Path(task.folder).is_dir() else None
        options = {"kernel_name": "python3", "kernel_manager_class": kernel, "progress_bar": {"disable": None}}
        failure = ""
        try:
            execute_notebook(source, target, task.parameters, cwd=where, **options)
        except PapermillExecutionError as error:
            failure = _describe(error, json.loads(target.read_text(encoding="utf-8")))
        return _outcome(json.loads(target.read_text(encoding="utf-8")), failure, time.monotonic() - start)


_REPORT = """\
import json
from vitcnn_utils.editions import fingerprint
print(json.dumps(fingerprint.used()))
"""
"""Runs in the kernel after a notebook's last cell."""


def _with_report(notebook: dict[str, Any]) -> dict[str, Any]:
    of_code: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cell = of_code | {"id": "report", "source": _REPORT}
    return {**notebook, "cells": [*notebook["cells"], cell]}


def _outcome(notebook: dict[str, Any], failure: str, seconds: float) -> Outcome:
    """Take the report out of an executed notebook; one that failed has none."""
    *cells, report = notebook["cells"]
    notebook["cells"] = cells
    for cell in cells:
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["id"] = "injected-parameters"  # papermill draws one at random
    text = json.dumps(notebook)
    if failure:
        return Outcome(text, failure, seconds)
    code = [cell for cell in cells if cell["cell_type"] == "code" and not _is_preparation(cell)]
    measuring = sum(cell["metadata"]["papermill"]["duration"] for cell in code[1:])
    printed = "".join("".join(o["text"]) for o in report["outputs"] if o.get("name") == "stdout")
    return Outcome(text, "", seconds, measuring, json.loads(printed.splitlines()[-1]))


def _is_preparation(cell: dict[str, Any]) -> bool:
    return not {"install", "parameters", "injected-parameters"}.isdisjoint(cell["metadata"].get("tags", []))


_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
"""In these kernels, progress bars would be widgets, which a page without a kernel cannot show."""


@contextmanager
def _kernels(folder: Path) -> Iterator[type]:
    """Gives a class of kernels of this Python. An interrupt or SIGTERM kills them first, and then ends this process.

    To raise at once, amid what asyncio does, would leave kernels, tracebacks, or a process that waits forever.
    folder: for the file with the kernel's key, so that it is gone with the folder.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from nbclient.exceptions import DeadKernelError

    started: list[Any] = []
    received: list[int] = []

    class Kernel(AsyncKernelManager):
        # The user may have another kernel under the name 'python3'. The log would show interrupts with a traceback, and
        # warn that others could listen, though the kernel talks to this machine alone; errors of cells are elsewhere.
        kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"],
            language="python",
            env=_QUIET,
        )

        def __init__(self, **options: Any) -> None:
            super().__init__(connection_file=str(folder / "kernel.json"), **options)
            started.append(self)

        def start_kernel(self, *arguments: Any, **options: Any) -> Any:
            # What cells write is in the notebook; all else are complaints of a kernel that is being ended.
            return super().start_kernel(*arguments, stderr=subprocess.DEVNULL, **options)

    def kill(number: int, frame: Any) -> None:
        received.append(number)
        processes = [kernel.provisioner.process for kernel in started if kernel.has_kernel]
        for process in processes:
            process.kill()
        if not processes or len(received) > 1:
            _end(number)

    # Only the main thread receives signals. A process that ignores them goes on doing so.
    hears = threading.current_thread() is threading.main_thread()
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if hears else {}
    old = {number: handler for number, handler in old.items() if handler not in (None, signal.SIG_IGN)}
    for number in old:
        signal.signal(number, kill)
    try:
        yield Kernel
    except (DeadKernelError, RuntimeError):
        if not received:
            raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if received:
        _end(received[0])


def _end(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _describe(error: Any, notebook: dict[str, Any]) -> str:
    """In which cell a notebook failed and how, in one line."""
    failed = [
        cell.get("id", "") for cell in notebook["cells"]
        if any(output["output_type"] == "error" for output in cell.get("outputs", []))
    ]  # fmt: skip
    where = f"[{error.exec_count}]" + (f" ({failed[0]})" if failed and failed[0] else "")
    message = " ".join(error.evalue.split())
    # Errors of users speak for themselves; others need their name.
    what = message if error.ename == VitcnnError.__name__ else f"{error.ename}: {message}"
    return f"failed in cell {where}, {what}"


def _lost(error: BaseException) -> str:
    """Why a notebook ended that no cell of it has stopped."""
    name = type(error).__name__
    if name == "DeadKernelError":
        return "stopped: its kernel died, most likely for want of memory"
    if name == "KilledWorker":
        return "stopped: its workers died, most likely for want of memory"
    return f"could not be run, {name}: {' '.join(str(error).split())[:300]}"


# Dask


def on_cluster(tasks: Sequence[Task], scheduler: str | None) -> Iterator[tuple[Task, Outcome]]:
    """Execute notebooks on the workers of a Dask scheduler, one at a time on each; gives them as they are done.

    scheduler: its address, such as tcp://HOST:8786; None starts one worker on this machine. A notebook whose worker or
    kernel was lost is tried again twice; one that failed in a cell is not, since it would fail again.
    Raises VitcnnError where there is no such scheduler, or no worker.
    """
    with _client(scheduler) as client:
        from dask.distributed import as_completed  # once it is known to be there

        futures = {client.submit(_on_worker, task, retries=_RETRIES, pure=False): task for task in tasks}
        try:
            for future in as_completed(list(futures)):
                error = future.exception()
                yield futures[future], future.result() if error is None else Outcome("", _lost(error))
        finally:
            client.cancel(list(futures))


def _on_worker(task: Task) -> Outcome:
    from dask.distributed import get_worker

    if fingerprint.of_package() != task.package:
        return Outcome("", f"was not run: on worker {get_worker().address} the package is another version")
    with _ONE_AT_A_TIME:
        return _attempt(task, get_worker().local_directory)


@contextmanager
def _client(scheduler: str | None) -> Iterator[Any]:
    try:
        import dask
        from dask.distributed import Client, LocalCluster
    except ModuleNotFoundError:
        raise VitcnnError("several editions at once need Dask: pip install distributed, or run one by one") from None
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": _RETRIES}))
        if scheduler is None:
            # No limit on memory: the work is done in the kernel, which Dask does not see. The dashboard has no
            # password, so this machine alone may see it.
            options = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
            where = stack.enter_context(LocalCluster(silence_logs=logging.CRITICAL, **options))
        else:
            where = scheduler
        try:
            client = stack.enter_context(Client(where, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            problem = " ".join(str(error).split())[:200]
            raise VitcnnError(f"no Dask scheduler answers at {scheduler}: {problem}") from None
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise VitcnnError(f"the scheduler at {scheduler} has no workers: run `dask worker {scheduler}`") from None
        yield client
