"""How fast the measures are, beside other ways to the same numbers, and beside the passes they need.

    pip install -r benchmarks/requirements.txt
    python -m pytest benchmarks --benchmark-json=book/benchmarks.json

The routes of a comparison take turns, round by round, in one process, so that what else the machine does falls on all
of them alike. The first round is preceded by a run that is not timed: it gives the error and the peak memory.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from comparisons import PLAN, Comparison
from results import peak_memory


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    turns = [
        pytest.param(key, round_, name, id=f"{key}-{round_}-{name}")
        for key, planned in PLAN.items()
        if torch.cuda.is_available() or not planned.on_gpu
        for round_ in range(max(planned.rounds.values()))
        for name, rounds in planned.rounds.items()
        if round_ < rounds
    ]
    metafunc.parametrize(("key", "round_", "name"), turns)


@lru_cache(maxsize=1)
def made(key: str, folder: Path) -> Comparison:
    return PLAN[key].make(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


def test_speed(key: str, round_: int, name: str, folder: Path, benchmark: Any) -> None:
    comparison = made(key, folder)
    route = next(route for route in comparison.routes if route.name == name)
    benchmark.group = key
    benchmark.extra_info |= {
        "measure": comparison.measure, "work": comparison.work, "device": comparison.device, "round": round_,
        "route": name, "kind": route.kind, "aim": route.aim,
    }  # fmt: skip
    if round_ == 0:
        values, peak = peak_memory(route.run, comparison.device)
        benchmark.extra_info |= {"peak": peak, "error": comparison.error(route, values)}
    benchmark.pedantic(route.run)
