"""Whether verdicts stay from run to run: which runs there are, what is written, what is not run twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkouts import write_notebook

from vitcnn_utils.claims import table
from vitcnn_utils.claims.ledger import FAILS, HOLDS, Claim, Estimate, Part
from vitcnn_utils.editions import chapters, fingerprint, stability
from vitcnn_utils.editions.execute import Outcome, Task
from vitcnn_utils.editions.ledger import edition_claims


def execute(task: Task) -> Outcome:
    """A chapter with two claims, one of which turns with another ViT and with the images of seed 2."""
    vit, seed = task.parameters["vit"], task.parameters["seed"]
    made = ({"model": vit, "weights": f"w{vit[-1]}", "images": "cats", "n_images": 9},)
    turning = Estimate(1.0 if vit == "zoo/a" and seed < 2 else -1.0)
    parts = {"turns": Part("a", turning, "above", 0, "So.", made_of=made),
             "stays": Part("b", Estimate(1.0), "above", 0, "So.")}  # fmt: skip
    claims = table([Claim(name, "1", "4", "It is so.", (part,), "Never.") for name, part in parts.items()])
    outputs = [{"output_type": "display_data", "data": claims._repr_mimebundle_()}]
    cell = {"cell_type": "code", "source": "", "metadata": {}, "outputs": outputs}
    return Outcome(json.dumps({"metadata": {}, "cells": [cell]}))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "book").mkdir()
    editions = tmp_path / "notebooks" / "editions"
    editions.mkdir(parents=True)
    (editions / "zoo.yml").write_text("edition: zoo\nseed: 0\nvit: zoo/a\nvit_seed_2: zoo/b\n")
    write_notebook(
        tmp_path / "notebooks" / "1_one.ipynb", 'edition = ""\nseed = 0\nvit = ""\nvit_seed_2 = ""\nn_images = 9'
    )
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(chapters, "execute", execute)
    return tmp_path


def test_runs_with_other_images_and_the_second_training(root: Path) -> None:
    said: list[str] = []
    path = stability.run_again("zoo", {}, root, said.append)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert path == root / "book" / "stability.json" and stability.read(root / "book") == found
    assert [run["parameters"] for run in found["runs"]] == [
        {}, {"seed": 1}, {"seed": 2}, {"vit": "zoo/b", "vit_seed_2": "zoo/a"}
    ]  # fmt: skip
    assert found["claims"] == {"turns": [HOLDS, HOLDS, FAILS, FAILS], "stays": [HOLDS] * 4}
    assert found["models"] == {"zoo/a": "wa", "zoo/b": "wb"} and found["command"] == "vitcnn claims zoo --stability"
    rows = edition_claims("zoo", root)["claims"]
    stability.mark(rows, found)
    assert "was run 4 times" in stability.summary(found, rows)
    assert "Of 2 verdicts, 1 changed between the runs; they are marked." in stability.summary(found, rows)
    assert "run 4 of 4: as the ViT its second seed" in said
    assert (root / "_build" / "executed" / "zoo" / "1_one.ipynb").exists()

    said.clear()
    stability.run_again("zoo", {}, root, said.append)
    assert sum(line.endswith("up to date") for line in said) == 4


def test_a_trial_does_not_touch_the_book(root: Path) -> None:
    path = stability.run_again("zoo", {"n_images": 3}, root, lambda line: None)
    assert path == root / "_build" / "stability" / "stability.json"
    assert not (root / "_build" / "executed").exists() and stability.read(root / "book") is None
    assert json.loads(path.read_text(encoding="utf-8"))["parameters"] == {"n_images": 3}


def test_an_edition_without_a_second_training_has_other_images_only() -> None:
    assert list(stability.variants({"seed": 4, "vit": "a"}).values()) == [{}, {"seed": 5}, {"seed": 6}]
