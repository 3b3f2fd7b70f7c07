"""How fast the measures are, beside other ways to the same numbers, and beside the passes they need.

    pip install -r benchmarks/requirements.txt
    python -m pytest benchmarks --benchmark-json=book/benchmarks.json

The routes of a comparison take turns, round by round, in one process, so that what else the machine does falls on all
of them alike. The first round is preceded by a run that is not timed: it gives the error and the peak memory.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from comparisons import (
    BOTH_WAYS,
    FORWARD,
    THIS,
    Call,
    Comparison,
    all_heads,
    all_pairs,
    attention_distance,
    beside_forward,
    cka_of_recorded,
    cka_with_forward,
    exact_receptive_field,
    hookable,
    in_bfloat16,
    receptive_field,
    token_probes,
)
from others import noise
from results import peak_memory

from vitcnn_utils.images import Images, load_images
from vitcnn_utils.measures.localization import token_patch_similarity
from vitcnn_utils.measures.probes import layer_probes
from vitcnn_utils.measures.residual import skip_ratios
from vitcnn_utils.models.facts import Model
from vitcnn_utils.models.load import load_model

# What is measured


def _zoo(n: int) -> tuple[Model, Images]:
    return load_model("zoo/vit-cls", device="cpu"), load_images("cifar10", n=n)


def _untrained(name: str, n: int) -> tuple[Model, Images]:
    return load_model(name, weights="untrained", device="cpu"), Images("noise", noise(n, 224))


def _cka_small() -> Comparison:
    model, images = _zoo(256)
    return cka_of_recorded(model, images, hookable(model), ["pytorch-cka", "torch_cka"])


def _cka_large() -> Comparison:
    """Without torch_cka, which makes every Gram matrix again for every pair: it is slow enough at the small size."""
    model, images = _untrained("vit_tiny_patch16_224", 256)
    layers = [layer for layer in model.layers if layer.kind in ("attention", "mlp", "block")]
    return cka_of_recorded(model, images, layers, ["pytorch-cka"])


def _receptive_field(folder: Path, count: int) -> Comparison:
    """Of the last blocks, over as many images as in the paper."""
    model, images = _untrained("vit_tiny_patch16_224", 32)
    return receptive_field(model, images, [layer.name for layer in model.blocks[-count:]], folder)


def _probes() -> Comparison:
    model, images = _zoo(500)
    return token_probes(model, images, model.blocks[-1])


def _book(measure: str, work: str, call: Call, n: int = 256) -> Comparison:
    return beside_forward(measure, work, *_zoo(n), call)


class Planned(NamedTuple):
    """A comparison to be made, and how often each of its routes is timed."""

    make: Callable[[Path], Comparison]
    rounds: dict[str, int]
    on_gpu: bool = False


GRID, LEAVE_ONE_OUT = "scikit-learn, RidgeClassifier", "scikit-learn, RidgeClassifierCV"
LARGE = "vit_large_patch16_224"
BOTH = {THIS: 5, FORWARD: 5}
PLAN = {
    "cka-32": Planned(lambda _: _cka_small(), {THIS: 15, "pytorch-cka": 15, "torch_cka": 2}),
    "cka-224": Planned(lambda _: _cka_large(), {THIS: 15, "pytorch-cka": 15}),
    "cka-model": Planned(lambda _: cka_with_forward(*_zoo(256)), {THIS: 15, "pytorch-cka": 15, FORWARD: 15}),
    "attention": Planned(
        lambda _: attention_distance(*_untrained("vit_small_patch16_224", 16)),
        {THIS: 5, "timm, all maps kept": 5, FORWARD: 5},
    ),
    "erf-1": Planned(lambda f: _receptive_field(f, 1), {THIS: 5, "openerf": 3, BOTH_WAYS: 5}),
    "erf-12": Planned(lambda f: _receptive_field(f, 12), {THIS: 3, "openerf": 3}),
    "probes": Planned(lambda _: _probes(), {THIS: 5, GRID: 3, LEAVE_ONE_OUT: 3}),
    "book-erf": Planned(lambda _: exact_receptive_field(*_zoo(8)), {THIS: 3, BOTH_WAYS: 3}),
    "book-probes": Planned(
        lambda _: _book("Linear probes", "all blocks, read-outs and draws", layer_probes, 500), BOTH
    ),
    "book-skips": Planned(lambda _: _book("Skip ratios", "all branches and tokens", skip_ratios), BOTH),
    "book-places": Planned(lambda _: _book("Token-patch similarity", "last block", token_patch_similarity), BOTH),
    "gpu-cka": Planned(lambda _: in_bfloat16("CKA", "all pairs of layers", LARGE, all_pairs), BOTH, True),
    "gpu-attention": Planned(lambda _: in_bfloat16("Attention distance", "all heads", LARGE, all_heads), BOTH, True),
}


# How


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    turns = [
        pytest.param(key, round_, name, id=f"{key}-{round_}-{name}")
        for key, planned in PLAN.items()
        if torch.cuda.is_available() or not planned.on_gpu
        for round_ in range(max(planned.rounds.values()))
        for name, rounds in planned.rounds.items()
        if round_ < rounds
    ]
    metafunc.parametrize(("key", "round_", "name"), turns)


@lru_cache(maxsize=1)
def made(key: str, folder: Path) -> Comparison:
    return PLAN[key].make(folder)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


def test_speed(key: str, round_: int, name: str, folder: Path, benchmark: Any) -> None:
    comparison = made(key, folder)
    route = next(route for route in comparison.routes if route.name == name)
    benchmark.group = key
    benchmark.extra_info |= {
        "measure": comparison.measure, "work": comparison.work, "device": comparison.device, "round": round_,
        "route": name, "kind": route.kind, "aim": route.aim,
    }  # fmt: skip
    if round_ == 0:
        values, peak = peak_memory(route.run, comparison.device)
        benchmark.extra_info |= {"peak": peak, "error": comparison.error(route, values)}
    benchmark.pedantic(route.run)
