"""Shapes what pytest-benchmark writes: see `results`."""

from typing import Any

import pytest
from results import folded, machine


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info |= machine()


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    result = folded(output_json)
    output_json.clear()
    output_json |= result
