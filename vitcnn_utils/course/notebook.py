"""One source, two notebooks: `notebooks/course/solutions.ipynb`, and `exercises.ipynb` beside it, made from it.

python -m vitcnn_utils.course.notebook    # after a change of the solutions
"""

import copy
import json
import re
from pathlib import Path
from typing import Any

_SOLUTION = re.compile(r"^### BEGIN SOLUTION\n.*?^### END SOLUTION\n?", re.DOTALL | re.MULTILINE)


def exercises(solutions: dict[str, Any]) -> dict[str, Any]:
    """The notebook (nbformat's JSON) without the lines from `### BEGIN SOLUTION` to `### END SOLUTION`."""
    notebook = copy.deepcopy(solutions)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            code = re.sub(r"\n{3,}", "\n\n\n", _SOLUTION.sub("", "".join(cell["source"])))
            cell["source"] = code.rstrip("\n").splitlines(keepends=True)
    return notebook


def main(folder: Path = Path("notebooks/course")) -> None:
    source = json.loads((folder / "solutions.ipynb").read_text(encoding="utf-8"))
    text = json.dumps(exercises(source), indent=1, ensure_ascii=False) + "\n"
    (folder / "exercises.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
