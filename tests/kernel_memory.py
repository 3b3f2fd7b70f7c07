"""The most memory that the kernel of a notebook ever held, as Linux tells."""

import json
from pathlib import Path
from typing import Any

import nbformat

from vitcnn_utils.book import parameter_names
from vitcnn_utils.execute import Task, execute

PEAK = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) << 10)
"""


def run(notebook: Path, parameters: dict[str, Any]) -> tuple[float, int]:
    """The seconds that a notebook takes with those of the parameters that it has, and its kernel's most bytes."""
    content = nbformat.read(notebook, as_version=4)
    content.cells.append(nbformat.v4.new_code_cell(PEAK))
    own = {name: value for name, value in parameters.items() if name in parameter_names(notebook)}
    outcome = execute(Task("", notebook.name, nbformat.writes(content), own, str(notebook.parent), ""))
    if outcome.failure:
        raise RuntimeError(f"{notebook.stem} {outcome.failure}")
    (output,) = json.loads(outcome.notebook)["cells"][-1]["outputs"]
    return outcome.seconds, int("".join(output["text"]))
