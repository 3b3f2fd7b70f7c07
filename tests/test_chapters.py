"""Editions to executed notebooks: what is done, what is not done twice, and what is said when it fails."""

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkouts import Runs, fill, outputs, write_notebook
from dask.distributed import LocalCluster

from vitcnn_utils.editions import chapters, execute, fingerprint
from vitcnn_utils.editions.execute import Outcome, Task, _describe
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import static


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fill(tmp_path)
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "package")
    return tmp_path


def test_only_what_has_changed_runs_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runs(root)
    folder = root / "_build" / "executed" / "zoo"
    assert run() == ["1_one", "2_two"]
    # Each notebook gets the edition's values for its own parameters, and keeps its own for others.
    assert outputs(folder / "1_one.ipynb") == "zoo 1\n"
    assert outputs(folder / "2_two.ipynb") == "zoo 5\n"
    assert sorted(path.name for path in folder.iterdir()) == ["1_one.ipynb", "2_two.ipynb"]
    assert run() == []

    monkeypatch.setattr(chapters, "execute", pretend)
    assert run(size=2) == ["1_one"]
    assert parameters_of(folder / "1_one.ipynb") == {"edition": "zoo", "size": 2}
    write_notebook(root / "notebooks" / "2_two.ipynb", 'edition = ""\nother = 6', "print(other)")
    assert run(size=2) == ["2_two"]


def pretend(task: Task) -> Outcome:
    """In the place of `execute`: a notebook that keeps its parameters, without a kernel."""
    return Outcome(json.dumps({"metadata": {}, "cells": [], "parameters": task.parameters}))


def only(name: str) -> Callable[[Task], Outcome]:
    """In the place of `execute`: a kernel for one notebook, `pretend` for all others."""
    return lambda task: execute.execute(task) if task.name == name else pretend(task)


def parameters_of(executed: Path) -> dict[str, Any]:
    """What a notebook was given that `pretend` has made."""
    return json.loads(executed.read_text(encoding="utf-8"))["parameters"]


def test_all_that_a_notebook_uses_counts_and_nothing_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uses = {"files": ["used.py", "gone.py"], "packages": ["numpy", "never-installed"], "memory": 1}
    monkeypatch.setattr(chapters, "execute", lambda task: replace(pretend(task), uses=uses))
    write_notebook(root / "notebooks" / "1_one.ipynb", 'edition = ""\nsize = None\nvit = ""', "print(edition, size)")
    run = Runs(root)
    package, pictures = root / "package", root / "pictures"
    weights = package / "zoo" / "weights"
    for folder in (pictures, weights):
        folder.mkdir(parents=True)
    (pictures / "a.png").write_text("a")
    (package / "used.py").write_text("")
    (package / "trainer.py").write_text("")
    (root / "mine.safetensors").write_text("1")
    values = {"size": str(pictures), "vit": {"name": "deit", "weights": str(root / "mine.safetensors")}}
    assert run("1") == ["1_one"]
    assert run("1", **values) == ["1_one"]

    # What it uses: its images, weights, files of the package, versions of others.
    (pictures / "b.png").write_text("b")
    assert run("1", **values) == ["1_one"]
    (root / "mine.safetensors").write_text("2")
    assert run("1", **values) == ["1_one"]
    (package / "used.py").write_text("TWIN = 'zoo/twin'")
    assert run("1", **values) == ["1_one"]
    (weights / "twin.safetensors").write_text("w")
    assert run("1", **values) == ["1_one"]
    monkeypatch.setattr(fingerprint, "_version", lambda name: "9")
    assert run("1", **values) == ["1_one"]

    # What it does not: the lock file, other files of the package, logs, models that it does not name.
    (root / "requirements.lock").write_text("torch==9")
    (package / "trainer.py").write_text("new")
    (weights / "tuning.jsonl").write_text("{}")
    (weights / "other.safetensors").write_text("w")
    assert run("1", **values) == []


def test_a_chapter_is_not_done_if_the_package_changed_while_it_ran(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edited_meanwhile(task: Task) -> Outcome:
        (root / "package" / "module.py").write_text("new")
        return pretend(task)

    monkeypatch.setattr(chapters, "execute", edited_meanwhile)
    assert Runs(root)("1") == ["1_one"]
    monkeypatch.setattr(chapters, "execute", pretend)
    assert Runs(root)("1") == ["1_one"]
    assert Runs(root)("1") == []


def test_the_kernel_is_the_python_that_runs_quiet_and_tells_what_it_has_used(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "jupyter" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "x", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    code = "import os, sys, vitcnn_utils.files, yaml\nfrom tqdm import tqdm\n"
    code += "from huggingface_hub.utils import tqdm as hub_tqdm\nlist(tqdm(range(3))), list(hub_tqdm(range(3)));\n"
    code += "print(sys.executable, os.environ['GOMP_SPINCOUNT'], os.environ['KMP_BLOCKTIME'])"
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", code)
    assert Runs(root)("1") == ["1_one"]
    executed = root / "_build" / "executed" / "zoo" / "1_one.ipynb"
    assert outputs(executed) == f"{sys.executable} {os.environ['GOMP_SPINCOUNT']} {os.environ['KMP_BLOCKTIME']}\n"
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    assert "widgets" not in notebook["metadata"]  # of bars
    uses = notebook["metadata"]["vitcnn"]["uses"]
    assert {"__init__.py", "errors.py", "files.py"} <= set(uses["files"])
    assert not {"cli.py", "zoo/trainer.py", "editions/fingerprint.py"} & set(uses["files"])
    assert "PyYAML" in uses["packages"] and "torch" not in uses["packages"]
    assert 2e7 < uses["memory"] < 2e9
    assert "fingerprint" not in json.dumps(notebook["cells"])  # what asked for this is gone


def test_a_chapter_that_cannot_be_shown_is_not_done(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"outputs": [{"data": {"application/vnd.jupyter.widget-view+json": {}}}], "metadata": {}}
    notebook = json.dumps({"metadata": {}, "cells": [shown]})
    monkeypatch.setattr(chapters, "execute", lambda task: Outcome(notebook))

    def refuse(notebook: Any, place: str) -> None:
        raise VitcnnError(f"{place} links widgets")

    failed = root / "_build" / "executed" / "zoo" / "failed" / "1_one.ipynb"
    with monkeypatch.context() as patch:
        patch.setattr(static, "take_out", refuse)
        for _ in range(2):  # it is not up to date
            with pytest.raises(VitcnnError, match=rf"^zoo: 1_one notebooks/1_one.ipynb links widgets; see {failed}$"):
                Runs(root)("1")
    assert [path.name for path in failed.parents[1].iterdir()] == ["failed"]
    monkeypatch.setattr(static, "take_out", lambda notebook, place: notebook)
    assert Runs(root)("1") == ["1_one"]
    assert not failed.parent.exists()


def test_a_quick_run_takes_few_images_and_tells_what_the_whole_would_take(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = "n_images = 2500\nn_control_images = 500\nn_erf_images = 32\nn_transfer_images = 1500\nshots = 10"
    shown = "print(n_images, n_control_images, n_erf_images, n_transfer_images, shots)"
    code = ["'loads the models'", shown]
    write_notebook(root / "notebooks" / "1_one.ipynb", parameters, *code)
    (root / "notebooks" / "editions" / "zoo.yml").write_text("shots: 5\n")
    run = Runs(root)
    assert run("1", quick=True) == ["1_one"]
    assert outputs(root / "_build" / "quick" / "zoo" / "1_one.ipynb") == "250 50 4 250 5\n"
    assert not (root / "_build" / "executed").exists() or not list((root / "_build" / "executed").rglob("*.ipynb"))
    assert re.fullmatch(r"\[1/1\] zoo: 1_one: done in \d+ s, with 0\.\d GB of memory", run.said[1])
    assert re.fullmatch(r"on all images: roughly 0 minutes, in proportion to the images, and more memory", run.said[2])
    # In any case it runs, and a value that is asked for holds.
    monkeypatch.setattr(chapters, "execute", pretend)
    assert run("1", quick=True, n_control_images=400) == ["1_one"]
    assert parameters_of(root / "_build" / "quick" / "zoo" / "1_one.ipynb")["n_control_images"] == 400


def test_the_whole_is_told_in_proportion_to_the_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(root / "notebooks" / "1_one.ipynb", "n_images = 2500")
    done = Outcome(json.dumps({"metadata": {}, "cells": []}), seconds=70, measuring=60)
    monkeypatch.setattr(chapters, "execute", lambda task: done)
    (root / "notebooks" / "editions" / "zoo.yml").write_text("n_images: 5000\n")
    run = Runs(root)
    run("1", quick=True)
    assert run.said[-1].startswith("on all images: roughly 20 minutes")  # 10 s + 20 * 60 s
    run("1", quick=True, n_images=2500)
    assert run.said[-1].startswith("on all images: roughly 2 minutes")  # 10 s + 2 * 60 s
    (root / "notebooks" / "editions" / "zoo.yml").write_text("n_images: null\n")
    run("1", quick=True)
    assert ": done in 70 s" in run.said[-1]  # of how many, nobody says


def test_one_notebook_alone(root, monkeypatch):
    monkeypatch.setattr(chapters, "execute", pretend)
    for wanted in ("2", "2_two", "2_two.ipynb"):
        assert Runs(root)(wanted, other=len(wanted)) == ["2_two"]


def test_what_cannot_be_run_runs_nothing(root):
    with pytest.raises(VitcnnError, match="no edition 'paper'; there are: zoo"):
        Runs(root)(edition="paper")
    with pytest.raises(VitcnnError, match="size must be a whole number"):
        Runs(root)(size="many")
    assert not (root / "_build").exists()


def test_a_failing_cell_is_named_and_its_output_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folder = Runs(root), root / "_build" / "executed" / "zoo"
    monkeypatch.setattr(chapters, "execute", only("1_one.ipynb"))
    folder.mkdir(parents=True)
    (folder / "1_one.ipynb").write_text('{"metadata": {}, "cells": "of before"}')
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", "print('so far')", "1 / (size - size)")
    where = r"zoo: 1_one failed in cell \[\d\] \(cell-4\), ZeroDivisionError: .*; see (.+)"
    with pytest.raises(VitcnnError, match=where) as error:
        run()
    failed = Path(re.findall("; see (.+)", str(error.value))[0])
    assert outputs(failed).startswith("so far\n")
    assert "of before" in (folder / "1_one.ipynb").read_text()
    assert (folder / "2_two.ipynb").exists()  # the others go on
    # What failed once and then runs leaves nothing behind.
    monkeypatch.setattr(chapters, "execute", pretend)
    assert run() == ["1_one"]
    assert sorted(path.name for path in folder.iterdir()) == ["1_one.ipynb", "2_two.ipynb"]


def test_one_line_for_each_failure_of_each_edition(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some_fail(task: Task) -> Outcome:
        failure = "failed in cell [1], no" if task.parameters.get("size") == 1 or task.name == "2_two.ipynb" else ""
        return Outcome("" if failure else '{"metadata": {}, "cells": []}', failure)

    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")
    monkeypatch.setattr(chapters, "on_cluster", lambda tasks, scheduler: ((task, some_fail(task)) for task in tasks))
    said: list[str] = []
    with pytest.raises(VitcnnError) as error:
        chapters.run_editions(["zoo", "mine", "zoo"], root=root, report=said.append)
    assert str(error.value).splitlines() == [
        "zoo: 1_one failed in cell [1], no",
        "zoo: 2_two failed in cell [1], no",
        "mine: 2_two failed in cell [1], no",
    ]
    executed = root / "_build" / "executed"
    assert [path.relative_to(executed).as_posix() for path in executed.glob("*/*")] == ["mine/1_one.ipynb"]
    assert said[-2].startswith("[3/4] mine: 1_one: done in 0 s")


def test_nothing_runs_where_one_of_the_editions_cannot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "execute", pretend)
    (root / "notebooks" / "editions" / "mine.yml").write_text("sise: 2\n")
    with pytest.raises(VitcnnError, match="did you mean size"):
        chapters.run_editions(["zoo", "mine"], root=root)
    assert not (root / "_build").exists()


def test_an_error_of_the_user_speaks_for_itself() -> None:
    class Failure:
        exec_count, ename, evalue = 3, "VitcnnError", "no model 'vitt';\n did you mean vit?"

    assert _describe(Failure(), {"cells": []}) == "failed in cell [3], no model 'vitt'; did you mean vit?"


def test_a_kernel_that_dies_is_told_and_the_others_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "execute", only("1_one.ipynb"))
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", "import os\nos._exit(1)")
    with pytest.raises(VitcnnError, match=r"^zoo: 1_one stopped: its kernel died, most likely for want of memory$"):
        Runs(root)()
    assert [path.name for path in (root / "_build" / "executed" / "zoo").iterdir()] == ["2_two.ipynb"]


def test_two_runs_of_one_edition_do_not_mix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runs(root)
    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")

    def meanwhile(task: Task) -> Outcome:
        monkeypatch.setattr(chapters, "execute", pretend)
        with pytest.raises(VitcnnError, match="another `vitcnn run` is at work on edition zoo"):
            run()
        assert run(edition="mine") == ["1_one", "2_two"]
        return pretend(task)

    monkeypatch.setattr(chapters, "execute", meanwhile)
    assert run("1") == ["1_one"]
    assert run() == ["2_two"]  # the lock is gone


def test_an_edition_need_not_say_its_own_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "execute", pretend)
    (root / "notebooks" / "editions" / "mine.yml").write_text("title: With my models\nsize: 2\n")
    assert Runs(root)("1", edition="mine") == ["1_one"]
    assert parameters_of(root / "_build" / "executed" / "mine" / "1_one.ipynb") == {"edition": "mine", "size": 2}


def test_several_editions_on_dask_are_as_those_run_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The worker is another process, which knows only the real package.
    monkeypatch.setattr(fingerprint, "PACKAGE", Path(chapters.__file__).parents[1])
    write_notebook(root / "notebooks" / "1_one.ipynb", "size = 1", "import os", "print(os.getcwd(), 1 / (size - 1))")
    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")
    folder, listening = root / "_build" / "executed", set()

    def listen(line: str) -> None:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [c for process in processes for c in process.net_connections("inet")]
        listening.update(c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN)

    results = []
    for runs in ([["zoo"], ["mine"]], [["zoo", "mine"]]):
        shutil.rmtree(folder, ignore_errors=True)
        failures = []
        for editions in runs:
            try:
                chapters.run_editions(editions, ["1"], root=root, report=listen)
            except VitcnnError as error:
                failures += str(error).splitlines()
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.ipynb")}
        results.append((failures, {place: cells_of(path) for place, path in files.items()}))
    assert results[0] == results[1]
    (failure,), cells = results[0]
    assert "zoo: 1_one failed in cell" in failure
    assert cells.keys() == {"zoo/failed/1_one.ipynb", "mine/1_one.ipynb"}
    assert "127.0.0.1" in listening and listening <= {"127.0.0.1", "::1"}  # nobody else sees what Dask does


def cells_of(executed: Path) -> list[Any]:
    """Sources and outputs, without the times that papermill writes beside them, and names that it draws."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    traceback = re.compile(r"ipykernel_\d+|\x1b\[[\d;]*m")
    return [[cell["source"], traceback.sub("", json.dumps(cell.get("outputs", [])))] for cell in cells]


def test_dask_is_needed_for_several_editions_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setattr(chapters, "execute", pretend)
    (root / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")
    assert Runs(root)("1") == ["1_one"]
    with pytest.raises(VitcnnError, match="several editions at once need Dask: pip install distributed"):
        chapters.run_editions(["zoo", "mine"], root=root)


def test_a_scheduler_that_is_not_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_PATIENCE", "1s")
    with pytest.raises(VitcnnError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9: "):
        chapters.run_editions(["zoo"], scheduler="tcp://127.0.0.1:9", root=root)


@pytest.mark.skipif(sys.platform == "win32", reason="a process has no parent to kill there")
def test_a_lost_worker_is_replaced_and_its_notebook_run_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        # A scheduler's workers have the real package; here it is one file of the test's.
        with pytest.raises(VitcnnError, match=r"zoo: 1_one was not run: on worker tcp://\S+ the package is another"):
            chapters.run_editions(["zoo"], ["1"], scheduler=cluster.scheduler_address, root=root)
        monkeypatch.setattr(fingerprint, "PACKAGE", Path(chapters.__file__).parents[1])
        once = "import os, pathlib, signal\nonce = pathlib.Path(mark)\n"
        once += "if not once.exists():\n    once.touch()\n    os.kill(os.getppid(), signal.SIGKILL)\nprint('again')"
        write_notebook(root / "notebooks" / "1_one.ipynb", f"size = 1\nmark = {str(root / 'mark')!r}", once)
        chapters.run_editions(["zoo"], ["1"], scheduler=cluster.scheduler_address, root=root)
    assert outputs(root / "_build" / "executed" / "zoo" / "1_one.ipynb") == "again\n"
