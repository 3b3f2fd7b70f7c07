"""What the benchmark compares: each measure of the book, other ways to the same numbers, and the bare passes it needs.

A route that is timed gives values too, and where exact ones can be had, in float64, its error against them is known.
Where a forward pass would be the same for all routes, activations are recorded once and played back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import others
import torch
from others import noise, played_back

from vitcnn_utils.images import Images, load_images
from vitcnn_utils.measures.attention import head_distances
from vitcnn_utils.measures.cka import layer_similarity
from vitcnn_utils.measures.localization import layer_patch_similarity
from vitcnn_utils.measures.probes import STRENGTHS, layer_probes
from vitcnn_utils.measures.receptive_field import effective_receptive_fields, frozen
from vitcnn_utils.measures.residual import skip_ratios
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.models.load import load_model

THIS, FORWARD, BOTH_WAYS = "vitcnn_utils", "forward pass", "forward and backward pass"
GRID, LEAVE_ONE_OUT = "scikit-learn, RidgeClassifier", "scikit-learn, RidgeClassifierCV"
MAPS_KEPT = "timm, all maps kept"
OURS, OTHER, PASS = "ours", "other", "pass"
Call = Callable[[Model, Images], Any]


@dataclass(frozen=True)
class Route:
    """One way to do the work of a comparison.

    kind: ours, another way to the same result, or the bare passes of the model that ours needs.
    values: gives what is held against the exact values; None: what `run` gives.
    aim: of another way, how many times as long it should take as ours; of a pass, how many of it ours may take.
    package: what must be installed for it, as it is imported.
    """

    name: str
    kind: str
    run: Callable[[], Any]
    values: Callable[[], np.ndarray] | None = None
    aim: float | None = None
    package: str = ""


@dataclass(frozen=True)
class Comparison:
    """Routes that do the same work, ours first. exact: the true values, where there are such."""

    measure: str
    work: str
    routes: tuple[Route, ...]
    exact: Callable[[], np.ndarray] | None = None
    device: str = "cpu"

    @cached_property
    def true_values(self) -> np.ndarray | None:
        return None if self.exact is None else self.exact()

    def error(self, route: Route, values: Any) -> float | None:
        """Largest difference of any value from the true one; None where the route has none to be compared."""
        given = values if route.values is None else route.values()
        if self.true_values is None or route.kind == PASS or given is None:
            return None
        return float(np.abs(np.asarray(given, dtype=np.float64) - self.true_values).max())


def forward_pass(model: Model, images: Images, batch_size: int = 256, aim: float | None = None) -> Route:
    """The model over all images, without gradients, and nothing else."""

    def run() -> None:
        with torch.no_grad():
            for pixels in torch.from_numpy(images.pixels).split(batch_size):
                model.module(model.prepare(pixels))
        _wait(model)

    return Route(FORWARD, PASS, run, aim=aim)


def _said(images: Images) -> str:
    return f"{len(images)} images of {images.pixels.shape[1]} px"


def _wait(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


# CKA


def cka_of_recorded(model: Model, images: Images, layers: Sequence[Layer], names: Sequence[str]) -> Comparison:
    """All pairs of layers, from activations that are there already. names: of the other libraries to compare with."""
    recorded, numbers = played_back(model, images, layers)
    activations = recorded.module.activations
    routes = (
        Route(THIS, OURS, lambda: layer_similarity(recorded, recorded, numbers, len(images)).values),
        Route("pytorch-cka", OTHER, lambda: others.pytorch_cka(recorded, numbers), aim=1.5, package="cka"),
        Route("torch_cka", OTHER, lambda: others.torch_cka(recorded, numbers), aim=15, package="torch_cka"),
    )
    measure = f"CKA alone, {images.pixels.shape[1]} px"
    work = f"{len(layers)} layers of {model.name}, {len(images)} images, {activations[-1][0].numel():,} numbers each"
    chosen = tuple(route for route in routes if route.name in (THIS, *names))
    return Comparison(measure, work, chosen, lambda: others.textbook_cka(activations))


def cka_with_forward(model: Model, images: Images) -> Comparison:
    """All pairs of layers of a model, its forward pass included."""
    named = replace(model, layers=hookable(model))
    routes = (
        Route(THIS, OURS, lambda: layer_similarity(named, named, images, len(images)).values),
        Route("pytorch-cka", OTHER, lambda: others.pytorch_cka(named, images), package="cka"),
        forward_pass(model, images, len(images)),
    )
    return Comparison("CKA, with the model", f"{len(named.layers)} layers of {model.name}, {_said(images)}", routes)


def hookable(model: Model) -> list[Layer]:
    """The layers that are what a module gives, under its name: those that other libraries can reach too."""
    modules = dict(model.module.named_modules())
    return [x for x in model.layers if x.tap.side == "output" and modules.get(x.name) is x.tap.module]


# Attention distance


def attention_distance(model: Model, images: Images) -> Comparison:
    """All heads of all blocks."""
    routes = (
        Route(THIS, OURS, lambda: head_distances(model, images).distance.values),
        Route(MAPS_KEPT, OTHER, others.all_maps_kept(model, images, torch.float32)),
        forward_pass(model, images, 64, aim=1.6),
    )
    exact = others.all_maps_kept(model, images, torch.float64)
    return Comparison("Attention distance", f"all heads of {model.name}, {_said(images)}", routes, exact)


# Effective receptive fields


def receptive_field(model: Model, images: Images, layers: Sequence[str], folder: Path) -> Comparison:
    """By one backward pass a layer: one channel of each image here, the mean over all channels in openerf.

    So the two estimate different things. They agree where no gradient is negative, and are held against the exact field
    of a network of that kind.
    """
    pictures = others.save(images, folder / "images")
    positive, small = others.positive_network(), Images("noise", noise(4, 9))
    small_pictures = others.save(small, folder / "small")
    routes = [
        Route(
            THIS, OURS, lambda: effective_receptive_fields(model, images, layers, channels=1),
            values=lambda: others.shares(effective_receptive_fields(positive, small, ["1"])[0].values),
        ),
        Route(
            "openerf", OTHER, lambda: [others.openerf(model, pictures, layer) for layer in layers],
            values=lambda: others.openerf(positive, small_pictures, "1"), package="openerf",
        ),
    ]  # fmt: skip
    if len(layers) == 1:
        routes.append(forward_and_backward(model, images, aim=1.3))
    measure = f"Receptive fields, {len(layers)} layer{'s' if len(layers) > 1 else ''}"
    work = f"{layers[0] if len(layers) == 1 else 'all blocks'} of {model.name}, {_said(images)}"
    return Comparison(
        measure, work, tuple(routes), lambda: others.shares(others.response_of_the_centre(positive, small))
    )


def forward_and_backward(model: Model, images: Images, aim: float | None = None) -> Route:
    """To the image, weights frozen."""

    def run() -> None:
        x = model.prepare(torch.from_numpy(images.pixels)).requires_grad_()
        with frozen(model.module):
            torch.autograd.grad(model.module(x).sum(), x)

    return Route(BOTH_WAYS, PASS, run, aim=aim)


# Probes


def token_probes(model: Model, images: Images, layer: Layer, shots: int = 10) -> Comparison:
    """A probe for each token of a layer, from activations that are there already."""
    recorded, numbers = played_back(model, images, [layer])

    def ours() -> np.ndarray:
        result = layer_probes(recorded, numbers, None, ["token"], shots, draws=1, batch_size=len(numbers))
        return result.token_accuracy.values.ravel()

    work = others.ProbeWork.of(recorded, images, shots)
    grid, leave_one_out = partial(others.ridge_classifiers, work), partial(others.ridge_classifiers_cv, work)
    routes = (
        Route(THIS, OURS, ours),
        Route(GRID, OTHER, grid, package="sklearn"),
        Route(LEAVE_ONE_OUT, OTHER, leave_one_out, lambda: None, package="sklearn"),
    )
    tokens = f"{len(work.features)} tokens of {layer.name} of {model.name}"
    return Comparison("Linear probes", f"{tokens}, {len(STRENGTHS)} strengths, {shots} shots", routes, grid)


# Beside the model alone


def exact_receptive_field(model: Model, images: Images) -> Comparison:
    """Of the last block, as the book calls it: a backward pass for each channel."""
    (last,) = model.blocks[-1:]
    routes = (
        Route(THIS, OURS, lambda: effective_receptive_fields(model, images, [last.name])),
        forward_and_backward(model, images),
    )
    return Comparison("Receptive field, exact", f"{last.name} of {model.name}, {_said(images)}", routes)


def beside_forward(measure: str, work: str, model: Model, images: Images, call: Call) -> Comparison:
    """A measure as the book calls it, beside the forward pass that it needs."""
    routes = Route(THIS, OURS, lambda: call(model, images)), forward_pass(model, images)
    return Comparison(measure, f"{work} of {model.name}, {_said(images)}", routes)


def in_bfloat16(measure: str, work: str, name: str, call: Call) -> Comparison:
    """A measure of a model that runs in bfloat16 on a GPU; the exact values are those of the model in float32."""
    images = Images("noise", noise(256, 224))
    model, full = (load_model(name, weights="untrained", device="cuda") for _ in range(2))
    model.module.to(torch.bfloat16).register_forward_pre_hook(lambda _, args: (args[0].bfloat16(),))

    def run() -> np.ndarray:
        values = call(model, images)
        _wait(model)
        return values

    routes = (Route(THIS, OURS, run), forward_pass(model, images, aim=1.3))
    return Comparison(
        measure, f"{work} of {name} in bfloat16, {_said(images)}", routes, lambda: call(full, images), "cuda"
    )


# All comparisons


def zoo(n: int) -> tuple[Model, Images]:
    return load_model("zoo/vit-cls", device="cpu"), load_images("cifar10", n=n)


def untrained(name: str, n: int) -> tuple[Model, Images]:
    return load_model(name, weights="untrained", device="cpu"), Images("noise", noise(n, 224))


def _cka_small(folder: Path) -> Comparison:
    model, images = zoo(256)
    return cka_of_recorded(model, images, hookable(model), ["pytorch-cka", "torch_cka"])


def _cka_large(folder: Path) -> Comparison:
    """Without torch_cka, which makes every Gram matrix again for every pair: it is slow enough at the small size."""
    model, images = untrained("vit_tiny_patch16_224", 256)
    layers = [layer for layer in model.layers if layer.kind in ("attention", "mlp", "block")]
    return cka_of_recorded(model, images, layers, ["pytorch-cka"])


def _last_fields(folder: Path, count: int) -> Comparison:
    """Of the last blocks, over as many images as in the paper."""
    model, images = untrained("vit_tiny_patch16_224", 32)
    return receptive_field(model, images, [layer.name for layer in model.blocks[-count:]], folder)


def _probes(folder: Path) -> Comparison:
    model, images = zoo(500)
    return token_probes(model, images, model.blocks[-1])


def all_pairs(model: Model, images: Images) -> np.ndarray:
    return layer_similarity(model, model, images).values


def all_heads(model: Model, images: Images) -> np.ndarray:
    return head_distances(model, images, 256).distance.values


class Planned(NamedTuple):
    """A comparison to be made, given a folder for images, and how often each of its routes is timed."""

    make: Callable[[Path], Comparison]
    rounds: dict[str, int]
    on_gpu: bool = False


def _book(measure: str, work: str, call: Call, n: int = 256) -> Planned:
    return Planned(lambda _: beside_forward(measure, work, *zoo(n), call), {THIS: 5, FORWARD: 5})


def _on_gpu(measure: str, work: str, call: Call) -> Planned:
    name = "vit_large_patch16_224"
    return Planned(lambda _: in_bfloat16(measure, work, name, call), {THIS: 5, FORWARD: 5}, on_gpu=True)


PLAN = {
    "cka-32": Planned(_cka_small, {THIS: 15, "pytorch-cka": 15, "torch_cka": 2}),
    "cka-224": Planned(_cka_large, {THIS: 15, "pytorch-cka": 15}),
    "cka-model": Planned(lambda _: cka_with_forward(*zoo(256)), {THIS: 15, "pytorch-cka": 15, FORWARD: 15}),
    "attention": Planned(
        lambda _: attention_distance(*untrained("vit_small_patch16_224", 16)), {THIS: 5, MAPS_KEPT: 5, FORWARD: 5}
    ),
    "erf-1": Planned(lambda folder: _last_fields(folder, 1), {THIS: 5, "openerf": 3, BOTH_WAYS: 5}),
    "erf-12": Planned(lambda folder: _last_fields(folder, 12), {THIS: 3, "openerf": 3}),
    "probes": Planned(_probes, {THIS: 5, GRID: 3, LEAVE_ONE_OUT: 3}),
    "book-erf": Planned(lambda _: exact_receptive_field(*zoo(8)), {THIS: 3, BOTH_WAYS: 3}),
    "book-probes": _book("Linear probes", "all blocks, read-outs and draws", layer_probes, 500),
    "book-skips": _book("Skip ratios", "all branches and tokens", skip_ratios),
    "book-places": _book("Token-patch similarity", "last block", layer_patch_similarity),
    "gpu-cka": _on_gpu("CKA", "all pairs of layers", all_pairs),
    "gpu-attention": _on_gpu("Attention distance", "all heads", all_heads),
}
