"""What a run of the benchmark leaves behind: times by comparison and route, peak memory, and what machine it was."""

import ctypes
import os
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vitcnn_utils.provenance import commit

PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "pytorch-cka", "torch_cka", "openerf", "pytest-benchmark")


def folded(output: dict[str, Any]) -> dict[str, Any]:
    """pytest-benchmark's output, which has an entry for every round, by comparison and route."""
    comparisons: dict[str, Any] = {}
    for entry in output["benchmarks"]:
        info = dict(entry["extra_info"])
        about = {name: info.pop(name) for name in ("measure", "work", "device")}
        comparison = comparisons.setdefault(entry["group"], {**about, "routes": {}})
        round_, name = info.pop("round"), info.pop("route")
        route = comparison["routes"].setdefault(name, {"seconds": []})
        if round_ == 0:
            route |= info
        route["seconds"].append(round(entry["stats"]["data"][0], 6))
    return {
        "date": output["datetime"][:10],
        "commit": commit(),
        "machine": output["machine_info"],
        "comparisons": comparisons,
    }


def machine() -> dict[str, Any]:
    """What a reader must know of the machine to expect the same, and nothing that tells whose it is."""
    from cpuinfo import get_cpu_info

    return {
        "cpu": get_cpu_info()["brand_raw"],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def peak_memory(run: Callable[[], Any], device: str) -> tuple[Any, int | None]:
    """What `run` gives, and by how many bytes the memory in use rose at most meanwhile.

    On the CPU that of the process, as Linux counts it, libraries' own buffers included; None on other systems.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return run(), torch.cuda.max_memory_allocated() - before
    if platform.system() != "Linux":
        return run(), None
    # What is free but still the process's would hide what is taken anew.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use
    before = _kilobytes("VmRSS")
    values = run()
    return values, (_kilobytes("VmHWM") - before) * 1024


def _kilobytes(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+)", status)[0])
