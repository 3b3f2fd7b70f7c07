"""What the kernel of a notebook takes: time, and the most memory that it ever held, as Linux tells."""

import json
from pathlib import Path
from typing import Any

import nbformat

from vitcnn_utils.editions.book import default_parameters
from vitcnn_utils.editions.execute import Task, execute

USAGE = """
import time
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(time.process_time(), int(status["VmHWM"].split()[0]) << 10)
"""


def run(notebook: Path, parameters: dict[str, Any]) -> tuple[float, float, int]:
    """A notebook run with those of the parameters that it has: its seconds, and its kernel's processor time and peak.

    Seconds by the clock, seconds that all its threads computed, and the most bytes held at a time.
    """
    content = nbformat.read(notebook, as_version=4)
    content.cells.append(nbformat.v4.new_code_cell(USAGE))
    own = {name: value for name, value in parameters.items() if name in default_parameters(notebook)}
    outcome = execute(Task("", notebook.name, nbformat.writes(content), own, str(notebook.parent), ""))
    if outcome.failure:
        raise RuntimeError(f"{notebook.stem} {outcome.failure}")
    (output,) = json.loads(outcome.notebook)["cells"][-1]["outputs"]
    computed, peak = "".join(output["text"]).split()
    return outcome.seconds, float(computed), int(peak)
