"""The benchmark compares equals, and the book shows what it measured. Nothing here depends on how fast a machine is."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import described, small_vit
from textbook import cka, left_as_it_was, noise_images
from torch import nn

from vitcnn_utils.models.facts import Model

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "book" / "_ext")]

import comparisons  # noqa: E402
import others  # noqa: E402
import results  # noqa: E402
import vitcnn_sphinx  # noqa: E402

COMMITTED = json.loads((ROOT / "book" / "benchmarks.json").read_text(encoding="utf-8"))


# Equal numbers


def small_vit_of_three() -> Model:
    """9 patches: the middle one is the middle for openerf too."""
    return described(small_vit(img_size=24), size=24)


def make(name: str, folder: Path) -> comparisons.Comparison:
    vit, images = small_vit_of_three(), noise_images(60, 24, classes=4)
    layers = [layer.name for layer in vit.blocks]
    return {
        "cka": lambda: comparisons.cka_of_recorded(
            vit, images, comparisons.hookable(vit), ["pytorch-cka", "torch_cka"]
        ),
        "cka with the model": lambda: comparisons.cka_with_forward(vit, images),
        "attention": lambda: comparisons.attention_distance(vit, images),
        "receptive field": lambda: comparisons.receptive_field(vit, images[:3], layers, folder),
        "probes": lambda: comparisons.token_probes(vit, images, vit.blocks[0], shots=4),
    }[name]()


@pytest.mark.parametrize(
    ("name", "index", "tolerance"),
    [
        ("cka", 0, 1e-6), ("cka", 1, 0.03), ("cka", 2, 0.03),  # they do not centre, and these features have large means
        ("attention", 0, 1e-5), ("attention", 1, 1e-5),
        ("receptive field", 0, 1e-6), ("receptive field", 1, 1e-6),
        ("probes", 0, 0), ("probes", 1, 0),
    ],
)  # fmt: skip
def test_every_way_gives_the_true_values(name: str, index: int, tolerance: float, tmp_path: Path) -> None:
    comparison = make(name, tmp_path)
    route = comparison.routes[index]
    if route.package:
        pytest.importorskip(route.package, reason="of benchmarks/requirements.txt")
    error = comparison.error(route, route.run())
    assert error is not None and error <= tolerance
    assert np.ptp(comparison.true_values) > 20 * tolerance


def test_the_exact_ways_are_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 1, (9, 5)), rng.normal(0, 2, (9, 2, 3))
    found = others.textbook_cka([torch.from_numpy(x), torch.from_numpy(y)])
    expected = cka([x], [y.reshape(9, 6)])
    assert found == pytest.approx(np.array([[1, expected], [expected, 1]]))
    network = others.positive_network()
    kernel = torch.arange(1.0, 10).reshape(1, 1, 3, 3).repeat(1, 3, 1, 1)
    network.module = nn.Conv2d(3, 1, 3, padding=1, bias=False)
    network.module.weight.data = kernel
    field = others.response_of_the_centre(network, noise_images(1, 9))
    assert field[3:6, 3:6] == pytest.approx(kernel[0, 0].numpy())
    assert field.sum() == pytest.approx(45)


def test_the_passes_are_of_all_images_and_leave_nothing() -> None:
    vit, images = small_vit_of_three(), noise_images(10, 24)
    seen: list[int] = []
    vit.module.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    with left_as_it_was(vit):
        comparisons.forward_pass(vit, images, batch_size=4).run()
        comparisons.forward_and_backward(vit, images).run()
    assert seen == [4, 4, 2, 10]


def test_an_error_is_the_largest_difference() -> None:
    route = comparisons.Route("a", comparisons.OTHER, lambda: None)
    comparison = comparisons.Comparison("m", "w", (route,), exact=lambda: np.array([1.0, 2.0, 3.0]))
    assert comparison.error(route, np.array([1, 1.5, 3.25])) == 0.5
    bare = comparisons.Route("b", comparisons.PASS, lambda: None)
    assert comparison.error(bare, None) is None


def test_peak_memory_is_what_a_run_takes_at_most() -> None:
    values, peak = results.peak_memory(lambda: float(sum(torch.ones(10_000_000).sum() for _ in range(3))), "cpu")
    assert values == 3e7
    if sys.platform == "linux":
        # One tensor of 40 MB at a time; one that is freed may be held for a moment longer, but never all three.
        assert peak is not None and 36e6 < peak < 110e6


# The file


def entry(group: str, route: str, round_: int, seconds: float, kind: str = "other", **first: Any) -> dict[str, Any]:
    info = {"measure": "M", "work": "W", "device": "cpu", "round": round_, "route": route, "kind": kind, "aim": None}
    return {"group": group, "extra_info": info | first, "stats": {"data": [seconds]}}


def test_rounds_become_one_row_a_route() -> None:
    output = {
        "datetime": "2026-01-02T03:04:05", "machine_info": {"cpu": "C"},
        "benchmarks": [
            entry("m", "a", 0, 0.5, "ours", peak=10, error=1e-7), entry("m", "b", 0, 1, peak=20, error=None),
            entry("m", "a", 1, 0.25, "ours"), entry("m", "b", 1, 2),
        ],
    }  # fmt: skip
    found = results.folded(output)
    assert found["date"] == "2026-01-02" and found["machine"] == {"cpu": "C"}
    assert found["comparisons"]["m"] == {
        "measure": "M", "work": "W", "device": "cpu",
        "routes": {
            "a": {"seconds": [0.5, 0.25], "kind": "ours", "aim": None, "peak": 10, "error": 1e-7},
            "b": {"seconds": [1, 2], "kind": "other", "aim": None, "peak": 20, "error": None},
        },
    }  # fmt: skip
    (pair,) = vitcnn_sphinx.speed_pairs(found, "other")
    assert pair.ratios == [2, 8] and pair.ratio == 5


def test_the_committed_file_is_of_a_whole_run_with_true_numbers() -> None:
    planned = {key: plan.rounds for key, plan in comparisons.PLAN.items() if not plan.on_gpu}
    on_cpu = {key: one["routes"] for key, one in COMMITTED["comparisons"].items() if one["device"] == "cpu"}
    rounds = {key: {name: len(route["seconds"]) for name, route in routes.items()} for key, routes in on_cpu.items()}
    assert rounds == planned
    assert set(COMMITTED["machine"]) == {"cpu", "cores", "threads", "gpu", "system", "python", "packages"}
    errors = {key: routes[comparisons.THIS]["error"] for key, routes in on_cpu.items()}
    assert all(error is None or error < 2e-5 for error in errors.values()), errors


# The page


def cells(table: Any) -> list[list[str]]:
    rows = table.astext().split("<tr>")[2:]
    return [[cell.partition("</td>")[0].replace("&nbsp;", " ") for cell in row.split("<td>")[1:]] for row in rows]


def test_the_tables_show_what_the_file_says() -> None:
    measured = copy.deepcopy(COMMITTED)
    routes = measured["comparisons"]["cka-32"]["routes"]
    routes["vitcnn_utils"] |= {"seconds": [0.25, 0.5, 0.25], "error": 6.3e-9, "peak": 3 * 2**20}
    routes["torch_cka"] |= {"seconds": [10.0, 10.0, 10.0], "error": 0, "peak": None, "aim": 15}
    row = cells(vitcnn_sphinx.others_table(measured))[1]
    assert row[1:3] == ["torch_cka", "40<br><small>aim: ≥ 15</small>"]
    pairs = [("10 s", "0.25 s"), ("0", "6 × 10<sup>−9</sup>"), ("not measured", "3 MiB")]
    assert row[3:] == [f"{there}<br><strong>{here}</strong>" for there, here in pairs]
    routes["torch_cka"]["seconds"] = [2.5, 2.5, 2.5]
    assert "10<br><small>aim: ≥ 15, not reached" in cells(vitcnn_sphinx.others_table(measured))[1][2]
    # Passes are counted the other way round.
    routes = measured["comparisons"]["attention"]["routes"]
    routes["vitcnn_utils"]["seconds"], routes["forward pass"]["seconds"] = [3.0], [2.0]
    rows = {row[0].partition("</strong>")[0]: row for row in cells(vitcnn_sphinx.passes_table(measured))}
    assert rows["<strong>Attention distance"][2] == "1.5<br><small>aim: ≤ 1.6</small>"


def test_the_gpu_is_measured_or_not() -> None:
    measured = copy.deepcopy(COMMITTED)
    measured["comparisons"] = {k: v for k, v in measured["comparisons"].items() if v["device"] == "cpu"}
    assert "Not measured" in vitcnn_sphinx.gpu_table(measured).astext()
    measured["comparisons"]["gpu"] = copy.deepcopy(measured["comparisons"]["book-skips"]) | {"device": "cuda"}
    (row,) = cells(vitcnn_sphinx.gpu_table(measured))
    assert row[0].startswith("<strong>Skip ratios") and len(row) == 6
    assert len(cells(vitcnn_sphinx.passes_table(measured))) == len(vitcnn_sphinx.speed_pairs(measured, "pass")) - 1


def test_the_plot_has_a_line_for_each_other_way() -> None:
    picture = vitcnn_sphinx.speed_plot(COMMITTED).astext()
    pairs = vitcnn_sphinx.speed_pairs(COMMITTED, "other")
    assert len(pairs) == len(cells(vitcnn_sphinx.others_table(COMMITTED))) >= 8
    for pair in pairs:
        assert f"{pair.name}: {pair.measure}" in picture
        assert f"{pair.measure}, {pair.name}: {pair.ratio:.2g}" in picture  # for those who cannot see it
    assert "currentColor" in picture and "#010203" not in picture
