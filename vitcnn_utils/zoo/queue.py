"""Train all of the zoo beside other work: one process a model, at the lowest priority."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.zoo.recipes import RECIPES
from vitcnn_utils.zoo.trainer import is_trained


def train_all(data: Path, out: Path, runs: Path, device: str, jobs: int = 1) -> None:
    """Train every zoo model that has no card of its recipe in `out`, in the order of the recipes, `jobs` at a time.

    Each is a process of one thread of its own, at the lowest priority; they share nothing but the data. Interrupted,
    all stop, and the same call goes on. VitcnnError, at the end, that names the models whose training failed.
    """
    if jobs < 1:
        raise VitcnnError(f"jobs={jobs}: give 1 or more")
    lowest_priority()
    # A signal is noted and heeded later: raised at once, it could fall between starting a training and noting it.
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    waiting = [name for name, recipe in RECIPES.items() if not is_trained(name, recipe, out)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    try:
        while (waiting or running) and not received:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                running[name] = _start(name, data, out, runs, device)
            time.sleep(1)
            ended = {name: process.returncode for name, process in running.items() if process.poll() is not None}
            failed += [name for name, status in ended.items() if status]
            running = {name: process for name, process in running.items() if name not in ended}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if received:
        raise KeyboardInterrupt
    if failed:
        raise VitcnnError(f"not trained, see above: {', '.join(failed)}")


def lowest_priority() -> None:
    """Give this process, and all that it starts from now on, the lowest priority of this machine."""
    if hasattr(os, "nice"):
        os.nice(19)
    autogroup = Path("/proc/self/autogroup")  # Linux weighs sessions against one another before processes
    with suppress(OSError):
        autogroup.write_text("19")


def _start(name: str, data: Path, out: Path, runs: Path, device: str) -> "subprocess.Popen[bytes]":
    # Threads of OpenMP that wait for work would take the core of another training.
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
    command = [sys.executable, "-m", "vitcnn_utils.cli", "train", name, "--data", data, "--out", out, "--runs", runs,
               "--device", device]  # fmt: skip
    return subprocess.Popen(list(map(str, command)), env={**os.environ, **one_thread})
