"""The exercises of the session: right answers pass, and each typical wrong one gets a message of its own."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from checkouts import outputs
from made import probe_curves

from vitcnn_utils.claims.ledger import Claim, Part
from vitcnn_utils.course import check, handout, slides, twins
from vitcnn_utils.course.notebook import exercises
from vitcnn_utils.errors import VitcnnError

COURSE = Path(__file__).parents[1] / "notebooks" / "course"


def refused(capsys: pytest.CaptureFixture[str], answers: list[Any], check_answer: Any) -> None:
    """Each wrong answer is refused, with a message that no other of them gets."""
    capsys.readouterr()  # what right answers printed
    messages = []
    for answer in answers:
        assert check_answer(answer) is False
        printed = capsys.readouterr().out
        assert printed.startswith("✗ ") and printed.count("\n") == 1
        messages.append(printed)
    assert len(messages) >= 5
    assert len(set(messages)) == len(messages), messages


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the last of the right answers printed."""
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("✓ ")
    return line


def gram_ratio(x: np.ndarray, y: np.ndarray) -> float:
    K, L = x @ x.T, y @ y.T
    return (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def test_cka_by_hand(capsys):
    def by_features(x: np.ndarray, y: np.ndarray) -> float:  # the same number from the other side
        x, y = centred(x), centred(y)
        return np.linalg.norm(x.T @ y) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)

    assert check.cka_by_hand(lambda x, y: gram_ratio(centred(x), centred(y)))
    assert check.cka_by_hand(by_features)
    wrong = [
        lambda x, y: ...,
        gram_ratio,
        lambda x, y: gram_ratio(x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)),
        lambda x, y: gram_ratio(centred(x), centred(y)) ** 2,
        lambda x, y: (centred(x) @ centred(x).T * (centred(y) @ centred(y).T)).sum(),
        lambda x, y: centred(x).T @ centred(y),
        lambda x, y: 0.5,
        lambda x, y: x @ y,
    ]
    refused(capsys, wrong, check.cka_by_hand)


def test_cka_breaks(capsys):
    from vitcnn_utils.measures.cka import linear_cka

    a, b = np.random.default_rng(0).normal(size=(2, 32, 2000))
    biased, unbiased = gram_ratio(centred(a), centred(b)), linear_cka(a, b)
    assert check.cka_breaks(biased, unbiased, 1, noise=(a, b))
    assert check.cka_breaks(round(biased, 2), round(unbiased, 2), 1, noise=(a, b))
    assert f"({biased:.2f})" in (praise := said(capsys)) and f"({unbiased:.2f})" in praise
    wrong = [(unbiased, biased, 1), (1.0, unbiased, 1), (0.3, unbiased, 1), (biased, biased, 1), (biased, 0.5, 1),
             (biased, unbiased, 0.2), (biased, unbiased, biased), ("much", unbiased, 1), (biased, ..., 1)]  # fmt: skip
    refused(capsys, wrong, lambda answer: check.cka_breaks(*answer, noise=(a, b)))


def heads(distances: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"distance": (("block", "head"), distances)}, attrs={"uniform_distance": 16.5})


def test_most_local_head(capsys):
    distances = np.random.default_rng(0).uniform(10, 16, (6, 4))
    distances[2, 3], distances[5, 1] = 5, 20
    of = heads(distances)
    assert check.most_local_head((2, 3), heads=of)
    assert check.most_local_head(np.unravel_index(distances.argmin(), distances.shape), heads=of)
    assert "block 2, head 3 looks 5.0 px far on average, attention that is spread evenly 16.5 px. Now" in said(capsys)
    wrong = [11, 3, (5, 1), (3, 4), (3, 2), (2, 0), (5, 9), (0, 1), (4, 2), "blocks", ...]
    refused(capsys, wrong, lambda answer: check.most_local_head(answer, heads=of))
    distances[1, 0], distances[4, 2] = 5.08, 5.2
    assert check.most_local_head((1, 0), heads=of)
    assert "looks 5.1 px" in (praise := said(capsys)) and "As right, within 0.1 px of the nearest: (2, 3)." in praise
    assert check.most_local_head((2, 3), heads=of) and not check.most_local_head((4, 2), heads=of)


def test_missing_skip(capsys):
    random = np.random.default_rng(0)
    maps = [xr.DataArray(random.uniform(0.2, 1, (6, 6)), dims=("layer_a", "layer_b")) for _ in range(2)]
    first, second = (m.values for m in maps)
    right = first[:3, 3:].mean(), second[:3, 3:].mean()
    assert check.missing_skip("lower", *right, maps=maps, block=3)
    assert check.missing_skip("the same", *right, maps=maps, block=3), "a prediction may be wrong"
    outcome = "higher" if right[1] > right[0] else "lower"
    assert f"intact {right[0]:.2f}, without the skips {right[1]:.2f}: {outcome}; you predicted the same." in said(
        capsys
    )
    assert check.missing_skip("higher", 0.5, 0.5, maps=[xr.full_like(maps[0], 0.5)] * 2, block=3)
    assert ": the same; you predicted higher." in said(capsys)
    parts = [lambda v: v.mean(), lambda v: v[:3, :3].mean(), lambda v: v[3:, 3:].mean(),
             lambda v: v[:4, 4:].mean(), lambda v: v[2, 3], lambda v: 7.0]  # fmt: skip
    wrong = [("lower", part(first), part(second)) for part in parts]
    wrong += [("lower", *right[::-1]), ("no idea", *right), ("lower", ..., right[1])]
    refused(capsys, wrong, lambda answer: check.missing_skip(*answer, maps=maps, block=3))


def test_choices(capsys):
    assert check.what_a_distance_says("c")
    refused(capsys, ["A", "B", "D", "E", "F", ...], check.what_a_distance_says)
    assert check.places("b", (0, 0), grid=(8, 8))
    wrong = [("A", (0, 0)), ("C", (0, 0)), ("D", (0, 0)), ("B", (4, 4)), ("B", (7, 0)), ("B", (0, 1)), ("B", (1, 1)),
             ("B", (3, 2)), ("B", "corner"), ("B", ...)]  # fmt: skip
    refused(capsys, wrong, lambda answer: check.places(*answer, grid=(8, 8)))


def test_token_or_mean(capsys):
    both = probe_curves(mean=[0.7], token=[0.4], cls=[0.85]), probe_curves(mean=[0.8], token=[0.76])
    assert check.token_or_mean(30, 4, probes=both)
    assert check.token_or_mean(30.2, 3.9, probes=both)
    assert "+30.0 points where CLS was trained (70 % by the mean, 40 % by a token), +4.0 where the mean" in said(capsys)
    wrong = [(0.30, 0.04), (-30, -4), (4, 30), (75, 100 * 0.04 / 0.76), (70, 80), (40, 76), (12, 12), ("a", 4)]
    refused(capsys, wrong, lambda answer: check.token_or_mean(*answer, probes=both))


def test_against_the_ceiling(capsys):
    random = np.random.default_rng(0)
    little, ceiling = (xr.DataArray(random.uniform(0.3, 1, (4, 4))) for _ in range(2))
    a, c = np.diagonal(little.values), np.diagonal(ceiling.values)
    assert check.against_the_ceiling(a / c, little=little, ceiling=ceiling)
    assert check.against_the_ceiling(list(np.round(a / c, 2)), little=little, ceiling=ceiling)
    least, most = np.argsort(a / c)[[0, -1]]
    assert f"smallest in block {least}, {(a / c)[least]:.2f} ({a[least]:.2f} of {c[least]:.2f})" in (
        praise := said(capsys)
    )
    assert f"largest in block {most}, {(a / c)[most]:.2f}" in praise and "missing data" in praise
    whole, mean = little.values / ceiling.values, (a / c).mean()
    wrong = [c - a, c / a, a, 100 * a / c, whole, mean, little.values, 0.5, (a / c)[:2], np.zeros(4), "all"]
    refused(capsys, wrong, lambda answer: check.against_the_ceiling(answer, little=little, ceiling=ceiling))


def test_what_makes_heads_local(capsys):
    random = np.random.default_rng(0)
    of = {name: heads(random.uniform(10, 16, (5, 8))) for name in "abcd"}
    for d, nearest in zip(of.values(), (6.0, 4.0, 5.5, 7.0), strict=True):
        d.distance.values[[0, 1, 4], [3, 4, 6]] = nearest + 1, nearest, 2
    twins = {"data": ("a", "b"), "mix": ("a", "d"), "start": ("a", "c")}
    right = {"data": -2, "mix": 1, "start": -0.5}
    follows = {"data": "more local", "mix": "less local", "start": "cannot be told"}

    def answer(given: tuple[Any, Any], chance: str = "start") -> bool:
        return check.what_makes_heads_local(*given, twins=twins, heads=of, chance=chance)

    assert answer((right, follows))
    each = "data -2.0 px: more local; mix +1.0 px: less local; start -0.5 px: cannot be told."
    assert each in said(capsys)
    assert answer((right, dict.fromkeys(twins, "cannot be told")), chance="there is none")

    def shifts(part: Any) -> dict[str, float]:
        values = {name: part(d.distance.values) for name, d in of.items()}
        return {what: values[b] - values[a] for what, (a, b) in twins.items()}

    parts = [lambda d: d[:2].mean(), lambda d: d.min(), lambda d: d[0].min(), lambda d: d[:2].max(),
             lambda d: -d[:2].min(), lambda d: 99 * d.mean()]  # fmt: skip
    of["b"].distance.values[0, 3] += 0.5  # so that block 0 alone says something else
    wrong: list[Any] = [(shifts(part), follows) for part in parts]
    wrong += [([1, 2], follows), (right, ["more local"]), ({**right, "data": ...}, follows)]
    verdicts = {"data": "no", "start": "more local", "mix": "more local"}
    wrong += [(right, {**follows, what: other}) for what, other in verdicts.items()]
    refused(capsys, wrong, answer)
    assert not answer((right, follows), chance="there is none")
    assert "no pair that differs in its start alone" in capsys.readouterr().out


def test_twins_differ_in_one_thing_and_answer_as_many_questions_as_there_are_models():
    vit = {"family": "vit", "epochs": 2, "data_fraction": 1.0, "cutmix": 0.5, "mimetic": False, "seed": 1}
    models = {"a": vit, "cnn": {**vit, "family": "resnet", "seed": 2}, "third": {**vit, "data_fraction": 0.3},
              "tenth": {**vit, "data_fraction": 0.1}, "both": {**vit, "data_fraction": 0.03, "seed": 2},
              "plain": {**vit, "cutmix": 0.0}, "longer": {**vit, "epochs": 9}}  # fmt: skip
    assert twins.most_pairs(models) == {"less data": ("a", "tenth"), "without CutMix": ("a", "plain")}
    models |= {"again": {**vit, "seed": 2}, "local": {**vit, "cutmix": 0.0, "mimetic": True}}
    found = twins.most_pairs(models)
    assert found["mimetic start"] == ("plain", "local") and found["another start"] == ("a", "again")
    del models["a"], models["again"], models["plain"], models["tenth"], models["both"], models["local"]
    assert twins.most_pairs(models) == {}


def test_every_question_has_twins_among_the_models_that_ship(capsys):
    found = twins.pairs()
    assert list(found) == list(twins.SETTINGS)
    assert found["less data"] == ("zoo/vit-cls", "zoo/vit-cls-data-3")
    assert found["another start"] == ("zoo/vit-cls", "zoo/vit-cls-seed-2")
    assert "mimetic start: zoo/vit-cls-nocutmix → zoo/vit-cls-mimetic\n" in capsys.readouterr().out


def test_own_claim(capsys):
    random = np.random.default_rng(0)
    by_image = (xr.DataArray(random.uniform(size=(8, 4)) + i, dims=("sample", "head")) for i in (0, 1))
    own, control = (xr.Dataset({"near_by_image": near, "near": near.mean("sample")}) for near in by_image)

    def claim(**changed: Any) -> Claim:
        one = {"words": "mean of near", "number": lambda d: float(d.near.mean()), "threshold": 0.9,
               "why": "So the paper says.", "control": (control,), "paper": "Heads look near by.",
               "caveat": "Where near is far."} | changed  # fmt: skip
        part = Part.of(one["words"], one["number"], (own,), "below", one["threshold"], one["why"],
                       control=one["control"])  # fmt: skip
        return Claim("mine", "3", "5", one["paper"], (part,), one["caveat"])

    example = claim(words="an example", paper="This is an example.")
    assert check.own_claim(claim(), example=example)
    assert check.own_claim(claim(threshold=-5), example=example), "a claim may fail"
    value = claim().parts[0].estimate.value
    wrong = [..., "Heads look near by.", claim(paper="Do heads look near by?"), example, claim(words="an example"),
             claim(number=lambda d: 0.3), claim(control=None), claim(control=(own,)), claim(threshold=round(value, 4)),
             claim(why="1"), claim(caveat="none")]  # fmt: skip
    refused(capsys, wrong, lambda answer: check.own_claim(answer, example=example))


def read(name: str) -> dict[str, Any]:
    return json.loads((COURSE / f"{name}.ipynb").read_text(encoding="utf-8"))


def test_the_exercises_are_the_solutions_without_the_answers():
    solutions, students = map(read, ("solutions", "exercises"))
    assert exercises(solutions) == students, "run python -m vitcnn_utils.course.notebook"
    assert "SOLUTION" not in json.dumps(students)


def test_the_empty_notebook_fails_every_check_and_the_solutions_pass_each(tmp_path: Path):
    """In one run: all cells of the students' notebook, then the answered ones of the solutions."""
    from papermill import execute_notebook

    solutions, notebook = map(read, ("solutions", "exercises"))
    answered = [cell for cell in solutions["cells"] if "### BEGIN SOLUTION" in "".join(cell["source"])]
    notebook["cells"] += [{**cell, "id": f"{cell['id']}-answered"} for cell in answered]
    source, target = tmp_path / "both.ipynb", tmp_path / "out.ipynb"
    text = json.dumps(notebook)
    for images, fewer in (("n=500", "n=260"), ("[:256]", "[:96]")):  # the checks hold for any images
        assert text.count(images) == 1
        text = text.replace(images, fewer)
    source.write_text(text, encoding="utf-8")
    execute_notebook(source, target, progress_bar=False, kernel_name="python3", cwd=tmp_path)
    lines = [line for line in outputs(target).splitlines() if line[:1] in ("✓", "✗")]
    assert [line[0] for line in lines] == ["✗"] * 10 + ["✓"] * 10, "\n".join(lines)
    assert all("Not answered" in line or "three dots" in line for line in lines[:10])


def test_slides_have_their_notes_and_their_explorers(tmp_path: Path):
    source = tmp_path / "slides.md"
    source.write_text(
        "# A & B\n\n<b>raw</b>\n\n---\n\n## Two\n\n{explorer} probes\n\nNote:\nSay *this*.\n", encoding="utf-8"
    )
    figure = '<figure class="vx-static" id="explore-probes">still</figure><script src="_x/run.js" defer></script>'
    slides.write(source, {"probes": figure}, tmp_path, "https://our.book/")
    page = (tmp_path / "slides.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 2
    assert "<title>A &amp; B</title>" in page and "<b>raw</b>" not in page
    assert '<aside class="notes"><p>Say <em>this</em>.</p>' in page
    assert page.count('id="explore-probes"') == 1 and '<script src="_x/run.js"' not in page and "['_x/run.js']" in page
    assert re.findall(r'\S*http[^"]*', page) == ['href="https://our.book/slides.html']
    for name in ("reveal.js", "reveal.css", "notes.js", "LICENSE"):
        assert (tmp_path / "reveal" / name).stat().st_size > 500
    with pytest.raises(VitcnnError, match="probes"):
        slides.write(source, {"attention": figure}, tmp_path, "")


def test_the_handout_has_the_book_the_exercises_and_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(handout.slides, "print_pdf", lambda page, target, browser: target.write_bytes(b"%PDF"))
    monkeypatch.setattr(handout.slides, "find_browser", lambda: "a browser")
    root = tmp_path / "clone"
    pages, course = root / "_build" / "html", root / "notebooks" / "course"
    with pytest.raises(VitcnnError, match="vitcnn run zoo && vitcnn book"):
        handout.make(root, tmp_path / "handout.zip")
    for folder in (pages, course, root / "vitcnn_utils"):
        folder.mkdir(parents=True)
    (pages / "index.html").write_text("book")
    for name in ("exercises.ipynb", "solutions.ipynb"):
        (course / name).write_text("{}")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (root / name).write_bytes((COURSE.parents[1] / name).read_bytes())
    (root / "vitcnn_utils" / "__init__.py").write_text("")
    with zipfile.ZipFile(handout.make(root, tmp_path / "handout.zip")) as made:
        names = set(made.namelist())
        (wheel,) = (name for name in names if name.endswith(".whl"))
        made.extract(wheel, tmp_path)
        readme = made.read("README.txt").decode()
    assert {"README.txt", "exercises.ipynb", "solutions.ipynb", "slides.pdf", "book/index.html"} < names
    assert wheel in readme and readme.count("\n") <= 12
    assert not (root / "build").exists()
    monkeypatch.setattr(handout.slides, "find_browser", lambda: None)
    monkeypatch.setattr(handout, "_wheel", lambda *_: tmp_path / wheel)  # to build it takes seconds
    said: list[str] = []
    with zipfile.ZipFile(handout.make(root, tmp_path / "handout.zip", said.append)) as made:
        assert "slides.pdf" not in made.namelist()
    assert "no Chromium or Chrome" in said[0]


def test_a_machine_that_lacks_a_package_is_not_ready(monkeypatch, capsys):
    monkeypatch.setattr(handout.metadata, "requires", lambda name: ["numpy>=1", "no-such-package>=2", "torch>=999"])
    assert not handout.check()
    assert '✗ packages missing: pip install "no-such-package>=2" "torch>=999"' in capsys.readouterr().out
    needs = {"vitcnn-utils": ["numpy>=1", "pandas[excel]"], "pandas": ["x>=1; extra == 'excel'", "y; extra == 'test'"]}
    monkeypatch.setattr(handout.metadata, "requires", needs.get)
    assert not handout.check() and 'pip install "x>=1"\n' in capsys.readouterr().out
    monkeypatch.setattr(handout.metadata, "requires", lambda name: ["numpy>=1", "later>=1; extra == 'test'"])
    assert handout.check()


def test_a_machine_with_python_alone_is_told_what_to_install():
    """`vitcnn handout --check` in a new process in which these packages cannot be found."""
    gone = ["lazy_loader", "numpy", "packaging", "xarray", "yaml"]
    code = f"""
import importlib.abc, importlib.metadata as metadata, sys

class Gone(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {gone}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def version(name, known=metadata.version):
    if name in {gone}:
        raise metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path.insert(0, Gone())
metadata.version = version
from vitcnn_utils.cli import main
status = main(["handout", "--check"])
import vitcnn_utils
print(getattr(vitcnn_utils, "load_model", None))
sys.exit(status)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr == "vitcnn: this machine is not ready for the exercises: see above\n"
    assert re.search('✗ packages missing: pip install .*"numpy>=.*" "xarray>=', ran.stdout)
    assert ran.stdout.endswith("None\n")
