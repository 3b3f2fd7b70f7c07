"""The `vitcnn` command: what it passes on, and how it ends."""

import errno
import functools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from checkouts import write_notebook

from vitcnn_utils import cli, zoo
from vitcnn_utils.editions import book, chapters, check, fingerprint, stability
from vitcnn_utils.zoo import queue, trainer
from vitcnn_utils.zoo.recipes import RECIPES


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr with which the command ends."""
    assert cli.main(arguments) == 1
    output = capsys.readouterr()
    assert output.err.startswith("vitcnn: ") and output.err.count("\n") == 1, output.err
    return output.err


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    editions = tmp_path / "notebooks" / "editions"
    editions.mkdir(parents=True)
    (editions / "zoo.yml").write_text("size: 1\n")
    (tmp_path / "requirements.lock").write_text("")
    code = "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(wait)\nsize"
    write_notebook(tmp_path / "notebooks" / "1_one.ipynb", "size = 0\nwait = 0", code)
    for module in (book, chapters, check):
        monkeypatch.setattr(module, "find_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_is_quick_because_nothing_heavy_is_loaded():
    code = "import sys, vitcnn_utils.cli; print(sorted({'torch', 'timm', 'numpy', 'yaml'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [[], ["run"], ["check"], ["book"], ["train"], ["zoo"]])
def test_every_command_has_a_help(command: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ending:
        cli.main([*command, "--help"])
    assert ending.value.code == 0
    assert "usage: vitcnn" in capsys.readouterr().out


def test_run_reads_values_as_yaml(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr(chapters, "run_editions", lambda *arguments: seen.append(arguments))
    values = ["-p", "size", "3", "-p", "name", "zoo/vit-gap", "-p", "of", "[a, b]", "-p", "none", "null"]
    assert cli.main(["run", "zoo", "--notebook", "1", *values]) == 0
    read = {"size": 3, "name": "zoo/vit-gap", "of": ["a", "b"], "none": None}
    assert cli.main(["run", "zoo", "mine", "--scheduler", "tcp://host:8786", "--quick"]) == 0
    assert seen == [(["zoo"], ["1"], read, None, False), (["zoo", "mine"], [], {}, "tcp://host:8786", True)]


def test_stability_gets_the_values_of_a_trial(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(stability, "run_again", lambda edition, parameters: f"{edition} {parameters}")
    assert cli.main(["claims", "zoo", "--stability", "-p", "n_images", "250"]) == 0
    assert capsys.readouterr().out == "zoo {'n_images': 250}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["claims", "zoo", "-p", "seed", "3"], "claims: -p goes with --stability"),
        (["run", "zooo"], "no edition 'zooo'; did you mean zoo?"),
        (["run", "zoo", "-p", "sizes", "3"], "no notebook has a parameter 'sizes'; did you mean size?"),
        (["run", "zoo", "--notebook", "7"], "no notebook '7'; there are: 1_one"),
        (["run", "zoo", "-p", "size", "[1"], "a value after -p cannot be read as YAML"),
        (["check", "zoo", "-p", "sizes", "3"], "no notebook has a parameter 'sizes'; did you mean size?"),
        (["book"], "1_one.ipynb was not executed yet: run `vitcnn run zoo`"),
    ],
)
def test_what_cannot_be_run_ends_in_one_line(checkout, arguments, said, capsys):
    assert said in fails(arguments, capsys)


def test_outside_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "site-packages" / "vitcnn_utils")
    monkeypatch.chdir(tmp_path)
    assert "clone of the repository" in fails(["run", "zoo"], capsys)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "_build"), "_build: Permission denied: mend this"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk: No space left on device: mend this"),
        (ModuleNotFoundError("No module named 'papermill'", name="papermill"), "this needs papermill: in a clone"),
    ],
)
def test_what_the_machine_lacks_ends_in_one_line(monkeypatch, capsys, error, said):
    monkeypatch.setattr(chapters, "run_editions", Mock(side_effect=error))
    assert said in fails(["run", "zoo"], capsys)


def test_other_errors_of_the_system_are_faults_of_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(book, "build_book", Mock(side_effect=FileNotFoundError(errno.ENOENT, "No such file", "x")))
    with pytest.raises(FileNotFoundError):
        cli.main(["book"])


def test_a_reader_that_has_seen_enough():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vitcnn_utils.cli", "zoo"]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.fixture
def trained(monkeypatch):
    """What is handed to the trainer, or to the queue, in the place of training."""
    calls = []
    monkeypatch.setattr(trainer, "train", lambda *arguments: calls.append(arguments) or Path("weights"))
    monkeypatch.setattr(queue, "train_all", lambda *arguments: calls.append(arguments))
    return calls


def test_train_passes_all_on(trained, tmp_path):
    options = ["--data", str(tmp_path), "--device", "cpu"]
    folders = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert cli.main(["train", "zoo/vit-cls", *options, *folders]) == 0
    assert cli.main(["train", "--all", "--jobs", "2", *options]) == 0
    assert trained == [
        ("zoo/vit-cls", RECIPES["zoo/vit-cls"], tmp_path, tmp_path / "out", tmp_path / "runs", "cpu"),
        (tmp_path, zoo.FOLDER, Path("runs/zoo"), "cpu", 2),
    ]


def test_tune_changes_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    seen: list[Any] = []
    monkeypatch.setattr(trainer, "tune", lambda *arguments: seen.append(arguments) or 0.5)
    changes = ["-p", "learning_rate", "1e-3", "-p", "epochs", "1", "-p", "mimetic", "true"]
    options = ["--data", str(tmp_path), "--device", "cpu"]
    assert cli.main(["tune", "zoo/resnet", *changes, *options]) == 0
    recipe = replace(RECIPES["zoo/resnet"], learning_rate=1e-3, epochs=1, mimetic=True)
    assert seen == [("zoo/resnet", recipe, tmp_path, Path("runs/zoo/tuning.jsonl"), "cpu")]
    assert "50.0% of the 5,000 held-out" in capsys.readouterr().out
    assert "a recipe has no 'rate'" in fails(["tune", "zoo/resnet", "-p", "rate", "1"], capsys)
    assert "epochs must be of the kind int, not 'x'" in fails(["tune", "zoo/resnet", "-p", "epochs", "x"], capsys)


def test_train_finds_the_images(trained, tmp_path, monkeypatch):
    for folder in (tmp_path / "data" / "cifar10", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
        (folder / "train-0.parquet").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITCNN_DATA", raising=False)
    cli.main(["train", "zoo/vit-cls"])
    monkeypatch.setenv("VITCNN_DATA", str(tmp_path / "elsewhere"))
    cli.main(["train", "zoo/vit-cls"])
    assert [call[2] for call in trained] == [Path("data/cifar10"), tmp_path / "elsewhere"]
    assert {call[5] for call in trained} <= {"cpu", "cuda", "mps"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zoo/vit-clss"], "no zoo model 'zoo/vit-clss'; did you mean zoo/vit-cls"),
        (["--all", "--jobs", "0", "--data", "."], "jobs=0: give 1 or more"),
        (["zoo/vit-cls", "--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_what_cannot_be_trained_ends_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITCNN_DATA", raising=False)
    assert said in fails(["train", *arguments], capsys)


def test_zoo_lists_the_models(capsys):
    assert cli.main(["zoo"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == zoo.names()


@pytest.mark.skipif(sys.platform == "win32", reason="an interrupt cannot be sent to one process there")
@pytest.mark.parametrize(
    ("editions", "number", "status"),
    [(["zoo"], signal.SIGINT, 130), (["zoo"], signal.SIGTERM, 143), (["mine", "zoo"], signal.SIGINT, 130)],
    ids=["alone", "terminated", "on Dask"],
)
def test_an_interrupt_keeps_what_is_done_and_nothing_half_done(checkout, tmp_path_factory, editions, number, status):
    (checkout / "notebooks" / "editions" / "mine.yml").write_text("size: 2\n")
    second = (checkout / "notebooks" / "1_one.ipynb").read_text().replace("wait", "pause").replace("started", "second")
    (checkout / "notebooks" / "2_two.ipynb").write_text(second)
    # The package under test, with that folder as its checkout.
    code = "import sys; from pathlib import Path; from vitcnn_utils import cli; from vitcnn_utils.editions import "
    code += "chapters; chapters.find_root = Path.cwd; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", *editions]
    path = os.pathsep.join([str(Path(cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    aside = tmp_path_factory.mktemp("aside")
    own = {"PYTHONPATH": path, "TMPDIR": str(aside), "JUPYTER_RUNTIME_DIR": str(aside), "PYTHONIOENCODING": "ascii"}
    where: dict[str, Any] = {"cwd": checkout, "env": os.environ | own, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A shell lets what it starts in the background, such as these tests, ignore interrupts.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([*command, "-p", "pause", "600"], preexec_fn=heard, **where, **pipes)
    deadline = time.monotonic() + 300
    while not (checkout / "second").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == status
    assert "Traceback" not in err and ("the same command goes on" in err or number == signal.SIGTERM)
    assert not list(aside.rglob("*.json"))  # the kernel's key
    executed = checkout / "_build" / "executed"
    kept = {path.relative_to(executed).as_posix() for path in executed.rglob("*") if path.is_file()}
    assert f"{editions[0]}/1_one.ipynb" in kept
    assert not any("2_two" in name for name in kept)
    if status == 130 and len(editions) == 1:
        again = subprocess.run(command, check=True, stdout=subprocess.PIPE, **where)
        assert "zoo: 1_one: up to date" in again.stdout
        assert (executed / "zoo" / "2_two.ipynb").exists()
