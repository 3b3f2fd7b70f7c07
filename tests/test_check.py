"""`vitcnn check`: the problems of an edition, its figures, and the arithmetic of its estimates."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import kernel_memory
import nbformat
import numpy as np
import pytest
import torch
import yaml
from hub_server import serve
from hypothesis import given
from hypothesis import strategies as st
from small_models import described, small_vit
from textbook import noise_images

import vitcnn_utils
from vitcnn_utils import check, cli, estimate
from vitcnn_utils.cka import layer_similarity
from vitcnn_utils.data import HubDescription
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.estimate import GROWTH, LONG, Bench, predict
from vitcnn_utils.probes import layer_probes
from vitcnn_utils.receptive_field import effective_receptive_fields
from vitcnn_utils.rehearsal import STAND_IN, Chapter, Request, is_measure, rehearse

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ZOO = yaml.safe_load((ROOT / "notebooks/editions/zoo.yml").read_text())

start_once = cache(check._start)


# Rehearsals


def nothing(_: Request) -> None:
    pass


@pytest.fixture(scope="module")
def rehearsed() -> Callable[..., list[Chapter]]:
    """The chapters of the edition zoo, with other parameters if wanted; the models are built once."""
    sources = check.Sources()
    assert sources.find(NOTEBOOKS, ZOO) == []

    def chapters(**overrides: Any) -> list[Chapter]:
        arguments = ZOO | overrides, sources.load_model, sources.load_images
        return [rehearse(notebook, *arguments, nothing) for notebook in NOTEBOOKS]

    return chapters


def drawn(chapters: list[Chapter]) -> set[int]:
    return {figure for chapter in chapters for section in chapter.sections for figure in section.drawn}


def requested(chapter: Chapter) -> list[str]:
    return [request.measure for section in chapter.sections for request in section.requests]


def test_the_edition_zoo_has_all_figures(rehearsed: Callable[..., list[Chapter]]) -> None:
    chapters = rehearsed()
    assert [chapter.error for chapter in chapters] == [""] * 5
    assert drawn(chapters) == set(range(1, 14))
    for chapter in chapters:
        for section in chapter.sections:
            assert section.expected == section.drawn, section.title


def test_the_plan_is_that_of_the_notebooks(rehearsed: Callable[..., list[Chapter]]) -> None:
    first, second, *_ = rehearsed()
    assert requested(first) == ["cka.layer_similarity"] * 13
    # Figures 3 and 4: the model and its untrained twin, little and all data, and four smaller models.
    assert requested(second).count("attention.head_distances") == 8
    assert [a["name"] for a in second.models].count("zoo/vit-cls") == 2
    (fields, *_) = [r for s in second.sections for r in s.requests if r.measure.startswith("receptive_field")]
    assert (len(fields.arguments["images"]), fields.arguments["channels"]) == (ZOO.get("n_erf_images", 32), 8)


def test_every_measure_in_the_notebooks_is_requested_and_has_a_cost(rehearsed: Callable[..., list[Chapter]]) -> None:
    modules = [importlib.import_module(f"vitcnn_utils.{m.name}") for m in pkgutil.iter_modules(vitcnn_utils.__path__)]
    measures = {
        name: f"{value.__module__.partition('.')[2]}.{name}"
        for module in modules
        for name, value in vars(module).items()
        if is_measure(value) and value.__module__ == module.__name__
    }
    assert {"layer_similarity", "head_distances", "layer_probes", "skip_ratios"} <= set(measures)
    named = set()
    for notebook in NOTEBOOKS:
        for cell in nbformat.read(notebook, as_version=4).cells:
            if cell.cell_type == "code" and "install" not in cell.metadata.get("tags", []):
                nodes = list(ast.walk(ast.parse(cell.source)))
                named |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
                named |= {node.id for node in nodes if isinstance(node, ast.Name)}
    called = {measures[name] for name in named & set(measures)}
    assert called <= set(GROWTH), "give it a Growth in vitcnn_utils/estimate.py"
    assert called == {measure for chapter in rehearsed() for measure in requested(chapter)}


def test_figures_that_are_left_out_are_told_with_the_words_of_the_notebook(
    rehearsed: Callable[..., list[Chapter]],
) -> None:
    chapters = rehearsed(vit_small_data=None, small_series=None, noskip=[], data_series=None)
    text = check._figures(chapters)
    assert drawn(chapters) == set(range(1, 14)) - {4, 8, 12}
    for figure, why in ((4, "Figure 4 needs"), (8, "without the skips of a block"), (12, "parts of one data set")):
        (line,) = [line for line in text.splitlines() if line.startswith(f"figure {figure} will not: ")]
        assert why in line and "**" not in line


def test_a_chapter_that_stops_keeps_the_plan_up_to_there_and_says_why(rehearsed: Callable[..., list[Chapter]]) -> None:
    third = rehearsed(vit="zoo/resnet")[2]
    assert "zoo/resnet has no attention" in third.error
    assert drawn([third]) == set() and check._figures([third]).count("zoo/resnet has no attention") == 2


def test_stand_ins_answer_anything() -> None:
    value = STAND_IN.sel(layer=3)["x"] + 1
    assert f"{value:.2f}" == "" and "".join([value]) == "" and list(value) == [] and bool(value)
    with STAND_IN.open() as inner:
        assert (1 - inner) is STAND_IN


# Estimates

prices = st.lists(st.floats(0, 1e-3), min_size=3, max_size=3).filter(lambda price: max(price) > 1e-6)


@given(prices, st.integers(300, 10_000))
def test_a_cost_that_grows_as_it_should_is_found_exactly(price: list[float], n: int) -> None:
    def amounts(n: int) -> tuple[float, ...]:
        return n, 1, n**2

    def cost(n: int) -> float:
        return float(np.dot(price, amounts(n)))

    assert predict([(amounts(k), cost(k)) for k in (4, 16, 64, 256)], amounts(n)) == pytest.approx(cost(n), rel=1e-3)


@given(prices, st.lists(st.floats(0.9, 1.1), min_size=3, max_size=3))
def test_trials_that_are_a_tenth_wrong_leave_it_within_a_factor_of_two(price: list[float], noise: list[float]) -> None:
    """2,500 images in batches of 128, from single batches of 4, 16 and 64."""
    trials = [((k, 1.0, k**2), float(np.dot(price, (k, 1, k**2))) * f) for k, f in zip((4, 16, 64), noise, strict=True)]
    work = (2500, 20, 20 * 125.0**2)
    assert 1 / 2 < predict(trials, work) / np.dot(price, work) < 2


def test_one_trial_is_taken_by_the_first_kind_of_work() -> None:
    assert predict([((4, 1, 16), 8.0)], (100, 10, 1000)) == pytest.approx(200)
    assert predict([((4, 1), 0.0)], (100, 10)) == 0


class World:
    """A measure whose time, by a clock that it moves, is what a test says."""

    def __init__(self, cost: Callable[[dict[str, Any]], float]) -> None:
        self.cost, self.now, self.runs = cost, 0.0, 0
        self.bench = Bench(lambda: self.now)

    def request(self, measure: str, **arguments: Any) -> Request:
        return Request(measure, self.run, arguments)

    def run(self, **arguments: Any) -> None:
        self.now += self.cost(arguments)
        self.runs += 1

    def estimate(self, request: Request) -> float:
        self.bench.measure(request)
        return self.bench.seconds(request)


def similarity(world: World, n: int, batch_size: int = 128) -> Request:
    model = described(small_vit(), "small ViT")
    return world.request("cka.layer_similarity", a=model, b=model, images=noise_images(n), batch_size=batch_size)


def batches(price: tuple[float, float, float]) -> Callable[[dict[str, Any]], float]:
    """Seconds by batch, image, and pair of images of a batch."""

    def cost(a: dict[str, Any]) -> float:
        count = -(-len(a["images"]) // a["batch_size"])
        return count * price[0] + len(a["images"]) * (price[1] + price[2] * len(a["images"]) / count)

    return cost


def test_the_time_of_a_request_is_told_from_trials_in_a_fraction_of_it() -> None:
    world = World(batches((0.01, 2e-3, 1e-5)))
    request = similarity(world, 2500)
    assert world.estimate(request) == pytest.approx(world.cost(request.arguments), rel=1e-6)
    assert world.now < world.cost(request.arguments) / 5


def test_requests_that_differ_in_their_images_alone_share_trials() -> None:
    world = World(batches((0.01, 2e-3, 1e-5)))
    large, small = similarity(world, 2500), similarity(world, 600)
    assert world.estimate(large) > 0
    runs = world.runs
    assert world.estimate(small) == pytest.approx(world.cost(small.arguments), rel=1e-6)
    assert world.runs == runs
    world.estimate(similarity(world, 600, batch_size=64))
    assert world.runs > runs


def test_of_a_slow_model_only_the_smallest_trial_is_run() -> None:
    world = World(batches((0, LONG / 3, 0)))
    assert world.estimate(similarity(world, 2500)) == pytest.approx(2500 * LONG / 3)
    assert world.runs == 2  # the second to see that it was not slow because it was the first


def test_a_trial_that_was_disturbed_is_repeated() -> None:
    quiet = batches((0.01, 2e-3, 1e-5))
    disturbed = iter([30.0, *[0.0] * 5, 30.0])  # the very first, and one with many images
    world = World(lambda a: quiet(a) + next(disturbed, 0.0))
    request = similarity(world, 2500)
    assert world.estimate(request) == pytest.approx(quiet(request.arguments), rel=1e-6)


def test_trials_end_before_one_would_take_too_long() -> None:
    world = World(batches((0, LONG / 33, 0)))
    world.estimate(similarity(world, 2500))
    # Three for the memory; 4 images, twice, as that is short; 16. With 64 it would take almost twice as long as it may.
    assert world.runs == 3 + 2 + 1


def test_receptive_fields_cost_by_place_and_channel() -> None:
    model = described(small_vit(), "small ViT")

    def cost(a: dict[str, Any]) -> float:
        layers = 1 + len(model.branches) if a["layers"] is None else len(a["layers"])
        return len(a["images"]) * (0.01 + 0.02 * layers * (a["channels"] or 24))

    for channels in (8, None):  # all: 24 of each place
        world = World(cost)
        arguments = {"images": noise_images(20), "layers": None, "before_addition": False, "channels": channels}
        request = world.request("receptive_field.effective_receptive_fields", model=model, batch_size=32, **arguments)
        assert world.estimate(request) == pytest.approx(cost(request.arguments), rel=1e-6)
        places = 1 + len(model.branches)
        assert GROWTH[request.measure].passes(request.arguments) == 20 * (1 + places * (channels or 24))


def test_probes_cost_by_image_and_equation() -> None:
    model = described(small_vit(), "small ViT")

    def cost(a: dict[str, Any]) -> float:
        work = GROWTH["probes.layer_probes"].work(a)
        return float(np.dot((1e-3, 1e-9, 1e-3, 0.01), work))

    world = World(cost)
    images = noise_images(1000, classes=10)
    arguments = {"layers": None, "readouts": ["mean", "token"], "shots": 10, "draws": 5, "seed": 0, "batch_size": 256}
    request = world.request("probes.layer_probes", model=model, images=images, **arguments)
    assert world.estimate(request) == pytest.approx(cost(request.arguments), rel=0.05)


def test_memory_is_told_from_trials_with_a_few_images() -> None:
    def allocate(**a: Any) -> None:
        n = len(a["images"])
        torch.zeros(1000 + 50 * n + n * n)

    bench, request = Bench(), similarity(World(batches((0, 1, 0))), 512)
    request = Request(request.measure, allocate, request.arguments)
    bench.measure(request)
    assert bench.bytes(request) == pytest.approx(4 * (1000 + 50 * 128 + 128**2), rel=1e-3)


def test_no_more_memory_is_told_than_a_measure_takes_where_its_batches_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def allocate(**a: Any) -> None:
        torch.zeros(1000 * len(a["images"]))

    arguments = {"model": described(small_vit(), "small ViT"), "images": noise_images(100), "batch_size": None}
    bench, request = Bench(), Request("accuracy.accuracy", allocate, arguments)
    bench.measure(request)
    monkeypatch.setattr(estimate, "room", lambda device: 1e9)
    assert bench.bytes(request) == pytest.approx(4000 * 50, rel=1e-3)  # 64 at most, so 2 batches
    monkeypatch.setattr(estimate, "room", lambda device: 4000 * 10.5)
    assert bench.bytes(request) == pytest.approx(4000 * 10, rel=1e-3)
    fixed = Request("accuracy.accuracy", allocate, arguments | {"batch_size": 25})
    bench.measure(fixed)
    assert bench.bytes(fixed) == pytest.approx(4000 * 25, rel=1e-3)


@pytest.mark.parametrize(
    ("function", "arguments", "said"),
    [
        (layer_similarity, {"a": ..., "b": ..., "images": noise_images(3)}, "needs at least 4 images a batch"),
        (layer_similarity, {"a": ..., "b": ..., "images": noise_images(9, size=24)}, "takes images of 32 x 32 pixels"),
        (layer_probes, {"model": ..., "images": noise_images(9)}, "has no labels"),
        (layer_probes, {"model": ..., "images": noise_images(90, classes=9)}, "10-shot probes need 25 images of each"),
        (effective_receptive_fields, {"model": ..., "images": noise_images(2), "layers": ["x"]}, "has no layer 'x'"),
    ],
)
def test_what_a_measure_refuses_is_refused_in_the_smallest_trial(
    function: Callable[..., Any], arguments: dict[str, Any], said: str
) -> None:
    model = described(small_vit(), "small ViT")
    given_ = {name: model if value is ... else value for name, value in arguments.items()}
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    name = f"{function.__module__.partition('.')[2]}.{function.__name__}"
    with pytest.raises(VitcnnError, match=said):
        Bench().attempt(Request(name, function, defaults | given_))


# Whole editions

CELLS = [
    (
        "parameters",
        'vit = "zoo/vit-small-data-3"\nother = "zoo/vit-small-data-10"\nmore = ["zoo/vit-cls"]\n'
        'images = "cifar10"\nn_images = 40',
    ),
    (
        "",
        "from IPython.display import Markdown\nfrom vitcnn_utils import cka\n"
        "from vitcnn_utils.data import load_images\nfrom vitcnn_utils.models import load_model\n"
        "from vitcnn_utils.plots import structure as plots\n"
        "pictures = load_images(images, n_images, size=32)\nmodel = load_model(vit)",
    ),
    ("", "s = cka.layer_similarity(model, model, pictures)\nplots.within_models([s], [s], [], None)"),
    (
        "",
        "if other:\n    s = cka.layer_similarity(model, load_model(other), pictures)\n"
        "    plots.across_models(s, s, None)\nelse:\n    Markdown('No *other* model: left out.')",
    ),
]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks" / "editions").mkdir(parents=True)
    (tmp_path / "notebooks" / "editions" / "mine.yml").write_text("n_images: 40\n")
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag] * bool(tag)}) for tag, source in CELLS]
    for index, title in ((2, "## Figure 1"), (4, "## Figure 2")):
        cells.insert(index, nbformat.v4.new_markdown_cell(f"{title}\nWords."))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "1_one.ipynb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "find_root", lambda: tmp_path)
    monkeypatch.setattr(check, "_start", lambda: (1.0, 5e8))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert cli.main(["check", "mine", *arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("vitcnn: ") for line in lines)
    return [line.removeprefix("vitcnn: ") for line in lines]


def test_a_good_edition(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "mine", "-p", "other", "null"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows["zoo/vit-small-data-3"][-1] == "here" and "zoo/vit-small-data-10" not in rows
    assert rows["cifar10"] == ["cifar10", "2,500", "40", "10", "here"]
    assert "figures that will be there: 1" in lines and "figure 2 will not: No *other* model: left out." in lines
    assert rows["all"][1] == rows["1_one"][1] == "40"
    assert 0 <= float(rows["all"][2]) < 5
    assert rows["all"][3:] == rows["1_one"][3:] and 500 < float(rows["all"][3]) < 600  # MB, 500 of them at the start
    assert not (checkout / "_build").exists()


MUCH = [
    ("parameters", 'vit = "zoo/resnet"\nimages = "cifar10"'),
    (
        "",
        "from vitcnn_utils import residual\nfrom vitcnn_utils.data import load_images\n"
        "from vitcnn_utils.models import load_model\n"
        'model = load_model(vit, device="cpu")\npictures = load_images(images, 24, size=128)',
    ),
    ("", "ratios = residual.skip_ratios(model, pictures)"),
]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the most memory that was held")
def test_the_memory_that_a_kernel_holds_is_as_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_start", start_once)
    (tmp_path / "notebooks" / "editions").mkdir(parents=True)
    (tmp_path / "notebooks" / "editions" / "mine.yml").write_text("images: cifar10\n")
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag] * bool(tag)}) for tag, source in MUCH]
    cells.insert(2, nbformat.v4.new_markdown_cell("## Much memory"))
    notebook = tmp_path / "notebooks" / "1_one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    forecast, _ = check.check_edition("mine", root=tmp_path, report=lambda line: None)
    *_, peak = kernel_memory.run(notebook, {})
    _, start = start_once()
    # Compared without what every kernel takes, which would hide what is wrong of the rest.
    assert peak - start > start / 2
    assert 1 / 2 < (forecast.bytes - start) / (peak - start) < 2


def test_all_problems_are_told_at_once(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"vit": "vit_bse_patch16_224", "more": "[zoo/vit-clss, test_vit.r160_in1k, 7]", "images": "cifr10"}
    lines = fails([x for item in values.items() for x in ("-p", *item)], capsys)
    assert len(lines) == 5
    for said in (
        "more: 7 is no name",
        "vit: timm has no model 'vit_bse_patch16_224'; did you mean vit_base_patch16_224",
        "more: no zoo model 'zoo/vit-clss'; did you mean zoo/vit-cls",
        "more: the weights of test_vit.r160_in1k could not be had from the hub (timm/test_vit.r160_in1k: ",
        "images: cifr10 is no folder or file",
    ):
        assert any(line.startswith(said) for line in lines), said


def test_unknown_parameters(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(["-p", "n_imges", "3", "-p", "vti", "x"], capsys) == [
        "no notebook has a parameter 'n_imges'; did you mean n_images or images?",
        "no notebook has a parameter 'vti'; did you mean vit?",
    ]


def test_values_of_another_kind(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(["-p", "n_images", "1e3", "-p", "vit", "[zoo/vit-cls]"], capsys) == [
        'n_images must be a whole number, such as 40, not "1e3"',
        'vit must be a text, such as "zoo/vit-small-data-3", not ["zoo/vit-cls"]',
    ]


def test_a_chapter_that_would_stop(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = fails(["-p", "n_images", "3"], capsys)
    assert line.startswith("1_one would stop: CKA needs at least 4 images a batch")
    (line,) = fails(["-p", "vit", "null"], capsys)
    assert line == "1_one would stop: it needs a model where the edition has None: name one"
    (line,) = fails(["-p", "images", "null"], capsys)
    assert line == "1_one would stop: it needs images where the edition has None: name some"
    (line,) = fails(["-p", "n_images", "4000"], capsys)
    assert line == "1_one would stop: n=4000: cifar10 has only 2500 images: ask for at most so many"


def test_a_hub_that_does_not_answer_is_asked_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(url: str, **_: Any) -> None:
        asked.append(url)
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
    names = ["test_vit.r160_in1k", "vit_base_patch16_224.augreg_in21k", "resnetv2_50x1_bit.goog_in21k"]
    problems = check.Sources().find([checkout / "notebooks/1_one.ipynb"], {"other": names})
    assert len(problems) == 3 and len(asked) == 1


def test_the_hub_tells_how_much_is_to_be_fetched(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = SimpleNamespace(size=346_000_000)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, **_: answer)
    # It takes images of 160 pixels, and this notebook has some of 32.
    (line,) = fails(["-p", "vit", "test_vit.r160_in1k"], capsys)
    assert "takes images of 160 x 160 pixels, not 32 x 32" in line
    cli.main(["check", "mine", "-p", "other", "test_resnet.r160_in1k"])
    output = capsys.readouterr().out
    (row,) = [line for line in output.splitlines() if line.startswith("test_resnet.r160_in1k")]
    assert row.endswith("346 MB") and "346 MB of weights to fetch" in output


CARD = """---
dataset_info:
  features: [{name: image, dtype: image}, {name: label, dtype: {class_label: {names: {0: cat, 1: dog}}}}]
  splits: [{name: train, num_bytes: 9, num_examples: 9}, {name: test, num_bytes: 3000, num_examples: 1500}]
configs:
- {config_name: default, data_files: [{split: train, path: data/x*}, {split: test, path: data/test*}]}
---"""


def test_a_data_set_of_the_hub_is_known_from_its_card(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "me" / "pics"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for name in ("test", "x"):  # of which nothing is read
        (folder / "data" / f"{name}.parquet").write_text("no parquet")
    code = "from vitcnn_utils.data import describe_hub; print(describe_hub('me/pics'))"
    with serve(tmp_path / "hub") as endpoint:
        own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        result = subprocess.run([sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True)
    expected = HubDescription(1500, 2.0, labelled=True, classes=("cat", "dog"))
    assert result.stdout == f"{expected}\n", result.stderr


def test_images_of_the_hub_are_stood_in_for_with_their_classes() -> None:
    sources = check.Sources()
    sources._pictures["me/pics"] = check._Pictures(500, np.arange(2), ("cat", "dog"), 2000, 0, (32, 32))
    images = sources.load_images(name="me/pics", n=6, size=16, seed=0)
    assert images.labels is not None and sorted(images.labels) == [0, 0, 0, 1, 1, 1]
    assert (images.pixels.shape, images.classes) == ((6, 16, 16, 3), ("cat", "dog"))
    with pytest.raises(VitcnnError, match="me/pics has only 500 images"):
        sources.load_images(name="me/pics", n=501, size=16, seed=0)


@pytest.mark.parametrize(("count", "n", "size"), [(50_000, 5000, "20 MB"), (50_000, 6, "2 MB"), (600, 6, "1 MB")])
def test_what_is_drawn_of_the_hub_is_fetched(count: int, n: int, size: str) -> None:
    sources = check.Sources()
    sources._pictures["me/pics"] = check._Pictures(count, np.arange(2), ("cat", "dog"), 2000, 0, (32, 32))
    sources.load_images(name="me/pics", n=n, size=16, seed=0)
    assert sources.table().endswith(size)


def test_images_take_memory_of_the_cpu_alone() -> None:
    sources = check.Sources()
    sources._pictures["me/pics"] = check._Pictures(500, None, None, 2000, 0, (32, 32))
    chapter = Chapter("one", images=[{"name": "me/pics", "n": 10, "size": 16, "seed": 0}])
    assert [sources.loading(chapter, torch.device(name))[1] for name in ("cpu", "cuda")] == [10 * 16 * 16 * 3, 0]


def test_what_it_takes_to_start_is_measured() -> None:
    seconds, size = start_once()
    assert 0 < seconds < 300 and 1e8 < size < 1e10  # torch alone is more than 100 MB


def test_models_that_no_parameter_names_are_looked_for_when_they_are_loaded() -> None:
    sources = check.Sources()
    arguments = {"weights": None, "device": "cpu", "seed": 0}
    model = sources.load_model(name="zoo/vit-small-data-3", **arguments)
    assert (model.name, model.trained) == ("zoo/vit-small-data-3", True)
    assert sources.table().splitlines()[1].endswith("here")
    with pytest.raises(VitcnnError, match="no zoo model 'zoo/vit-smal-data-3'"):
        sources.load_model(name="zoo/vit-smal-data-3", **arguments)
