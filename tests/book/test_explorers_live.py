"""An explorer in JupyterLab with a running kernel: what Python sets is seen, and what the reader chooses is set."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser
import nbformat
import pytest

TESTS = Path(__file__).parents[1]
CELLS = [
    f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom explorer_samples import SAMPLES\n"
    "explorer, _ = SAMPLES['similarity']()\nexplorer",
    "seen = []\nexplorer.observe(lambda event: seen.append(event.new), 'layers')\nexplorer.pair, explorer.row = 1, 2",
    "print(explorer.row, explorer.column, explorer.layers, seen)",
]
OPTIONS = ["--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", "--IdentityProvider.token=sesame"]
# JupyterLab is to ask no other host.
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"}}
PATIENCE = 180  # seconds for the server, and for the kernel to import torch on a busy machine


@contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves the folder, and knows nothing of the user's own settings."""
    places = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    (folder / "config" / "labconfig").mkdir(parents=True)
    (folder / "config" / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, f"--ServerApp.root_dir={folder}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | places, stdout=log, stderr=log, cwd=folder)
    try:
        yield _address(server, folder)
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _address(server: subprocess.Popen[bytes], folder: Path) -> str:
    """Where the server answers, once it does."""
    told = folder / "runtime" / f"jpserver-{server.pid}.json"
    for _ in range(10 * PATIENCE):
        if told.exists() and told.stat().st_size:
            return json.loads(told.read_text())["url"]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{(folder / 'log').read_text()[-2000:]}", pytrace=False)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened in the notebook, step by step."""
    folder = tmp_path_factory.mktemp("lab")
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "live.ipynb")
    with jupyter_lab(folder) as url, browser.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1400, "height": 1400})
        page.set_default_timeout(1000 * PATIENCE)
        page.add_init_script(path=Path(__file__).with_name("explore.js"))
        page.goto(f"{url}lab/tree/live.ipynb?token=sesame")
        return _play(page)


def _play(page: Any) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    # A cell that is run before the kernel is there makes JupyterLab ask for one.
    page.locator(".jp-KernelName", has_text="Python 3").wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(state="attached")
    _run(page, 0)
    page.locator(".vx").wait_for()
    steps["shown"] = page.evaluate("explore.seenIn(document)")
    _run(page, 1)
    page.wait_for_function("document.querySelector('.vx').vitcnn.state().row === 2")
    steps["moved"] = page.evaluate("explore.seenIn(document)")

    # By mouse, by a list or buttons, and by keys that JupyterLab itself would use to go from cell to cell.
    page.locator(".vx .vx-picker").click(position={"x": 10, "y": 10})
    page.locator(".vx label", has_text="mlp").click()
    page.locator(".vx .vx-picker").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    steps["chosen"] = page.evaluate("explore.seenIn(document)")
    steps["python"] = _run(page, 2)
    return steps


def _run(page: Any, cell: int) -> str:
    """Run a cell; gives what it printed, once the kernel has done with it."""
    box = page.locator(".jp-CodeCell").nth(cell)
    box.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    prompt = "document.querySelectorAll('.jp-CodeCell')[i].querySelector('.jp-InputPrompt')"
    page.wait_for_function(f"i => /[0-9]/.test({prompt}.innerText)", arg=cell)  # [*] while it runs
    return "\n".join(box.locator(".jp-OutputArea-output pre").all_inner_texts())


def test_it_appears(session: dict[str, Any]) -> None:
    assert session["shown"]["pictures"] >= 2 and session["shown"]["blank"] == 0
    assert "Copy link" not in session["shown"]["text"]  # a notebook has no address to give


def test_what_python_sets_is_shown(session: dict[str, Any]) -> None:
    before, after = session["shown"], session["moved"]
    assert (after["state"]["pair"], after["state"]["row"]) == (1, 2)
    assert before["painted"] != after["painted"]
    assert after["sentence"] != before["sentence"] and after["sentence"].startswith("CKA of layer 2 of")


def test_what_the_reader_chooses_is_set_in_python(session: dict[str, Any]) -> None:
    chosen = session["chosen"]
    assert chosen["state"]["layers"] == "mlp"
    assert chosen["state"]["row"] != session["moved"]["state"]["row"]
    assert session["python"].strip() == "{row} {column} {layers} ['mlp']".format(**chosen["state"])
