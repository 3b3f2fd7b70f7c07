"""The files that say what must be installed agree with each other."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(text) for group in (PROJECT["dependencies"], *EXTRAS.values()) for text in group]
LOCK = [
    line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
PINNED = {canonicalize_name(Requirement(line).name): Requirement(line) for line in LOCK}
# torch pins these itself, and they exist for Linux only.
OF_TORCH = re.compile(r"(nvidia|cuda|triton)\b")


def test_waiting_threads_spin_shortly_unless_the_user_says_otherwise() -> None:
    code = (
        "import os, sys, vitcnn_utils; assert not {'torch', 'anywidget'} & set(sys.modules); "
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    for given, expected in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | given
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected


def version(name: str) -> str:
    (specifier,) = PINNED[canonicalize_name(name)].specifier
    assert specifier.operator == "=="
    return specifier.version


def test_lock_holds_names_and_versions_only_and_leaves_what_only_linux_has_to_torch() -> None:
    pin = re.compile(r'[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*( ; sys_platform != "win32")?')
    assert [line for line in LOCK if not pin.fullmatch(line)] == []
    assert len(PINNED) == len(LOCK)
    assert [name for name in PINNED if OF_TORCH.match(name)] == []


def test_lock_has_each_direct_dependency_within_its_range() -> None:
    # `make` installs the package without isolation, so the build backend too comes from the lock file.
    for requirement in [*DIRECT, *map(Requirement, PYPROJECT["build-system"]["requires"])]:
        assert requirement.specifier.contains(version(requirement.name)), str(requirement)


def test_lock_has_all_that_these_need_in_turn() -> None:
    """Followed through what is installed here; what no one has installed, no one needs on this platform."""
    seen: set[tuple[str, str]] = set()
    todo = [(requirement, "") for requirement in DIRECT]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            further = [Requirement(text) for text in distribution(name).requires or []]
        except PackageNotFoundError:
            continue
        assert name in PINNED or OF_TORCH.match(name), f"{name} is not in requirements.lock"
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(r, wanted) for r in further]
    assert len(seen) > len(DIRECT)


def test_conda_environment_is_in_step() -> None:
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = content["dependencies"]
    # All else comes from pyproject.toml, through the package and its extras.
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip"
    (line,) = packages["pip"]
    found = re.fullmatch(r"--editable \.\[(.+)\]", line)
    assert found
    assert set(found[1].split(",")) == set(EXTRAS) - {"dev"}


def test_binder_takes_the_locked_cpu_build_of_torch_and_what_notebooks_need() -> None:
    lines = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [f"{name}=={version(name)}+cpu" for name in ("torch", "torchvision")] == lines[3:5]
    assert lines[1].endswith("/whl/cpu") and lines[2] == "--constraint ../requirements.lock"
    assert lines[5:] == [".[notebooks]"]


def test_github_actions_are_pinned_by_commit() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    actions = re.findall(r"uses: (.+)", workflow)
    assert len(actions) == 4
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+", action) for action in actions)


def test_the_install_cell_of_notebooks_states_the_minimums() -> None:
    """It leaves torch and numpy alone, which hosted notebooks have, and brings what the explorers need."""
    kept = {"torch", "torchvision", "numpy"}
    needed = {text for text in PROJECT["dependencies"] if Requirement(text).name not in kept}
    needed |= {text for text in EXTRAS["notebooks"] if Requirement(text).name in ("anywidget", "ipywidgets")}
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        (cell,) = ["".join(c["source"]) for c in cells if "install" in c["metadata"].get("tags", [])]
        assert set(re.findall(r'"([\w\[\]-]+>=[\d.]+)"', cell)) == needed, path.name
        first = cell.index("vitcnn_utils")
        assert "import" not in cell[cell.index("%pip") :] and "-q" in cell[first:]  # all before anything is imported
