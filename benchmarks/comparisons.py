"""What the benchmark compares: each measure of the book, other ways to the same numbers, and the bare passes it needs.

A route that is timed gives values too, and where exact ones can be had, in float64, its error against them is known.
Where a forward pass would be the same for all routes, activations are recorded once and played back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from others import (
    ProbeWork,
    all_maps_kept,
    noise,
    openerf,
    played_back,
    positive_network,
    pytorch_cka,
    response_of_the_centre,
    ridge_classifiers,
    ridge_classifiers_cv,
    save,
    shares,
    textbook_cka,
    torch_cka,
)

from vitcnn_utils.images import Images
from vitcnn_utils.measures.attention import head_distances
from vitcnn_utils.measures.cka import layer_similarity
from vitcnn_utils.measures.probes import STRENGTHS, layer_probes
from vitcnn_utils.measures.receptive_field import effective_receptive_fields, frozen
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.models.load import load_model

THIS, FORWARD, BOTH_WAYS = "vitcnn_utils", "forward pass", "forward and backward pass"
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
    routes = {
        "pytorch-cka": Route("pytorch-cka", OTHER, lambda: pytorch_cka(recorded, numbers), aim=1.5, package="cka"),
        "torch_cka": Route("torch_cka", OTHER, lambda: torch_cka(recorded, numbers), aim=15, package="torch_cka"),
    }
    ours = Route(THIS, OURS, lambda: layer_similarity(recorded, recorded, numbers, len(images)).values)
    return Comparison(
        f"CKA alone, {images.pixels.shape[1]} px",
        f"{len(layers)} layers of {model.name}, {len(images)} images, {activations[-1][0].numel():,} numbers each",
        (ours, *(routes[name] for name in names)),
        exact=lambda: textbook_cka(activations),
    )


def cka_with_forward(model: Model, images: Images) -> Comparison:
    """All pairs of layers of a model, its forward pass included."""
    layers = hookable(model)
    named = replace(model, layers=layers)
    return Comparison(
        "CKA, with the model",
        f"{len(layers)} layers of {model.name}, {_said(images)}",
        (
            Route(THIS, OURS, lambda: layer_similarity(named, named, images, len(images)).values),
            Route("pytorch-cka", OTHER, lambda: pytorch_cka(named, images), package="cka"),
            forward_pass(model, images, len(images)),
        ),
    )


def hookable(model: Model) -> list[Layer]:
    """The layers that are what a module gives, under its name: those that other libraries can reach too."""
    modules = dict(model.module.named_modules())
    return [x for x in model.layers if x.tap.side == "output" and modules.get(x.name) is x.tap.module]


# Attention distance


def attention_distance(model: Model, images: Images) -> Comparison:
    """All heads of all blocks."""
    return Comparison(
        "Attention distance",
        f"all heads of {model.name}, {_said(images)}",
        (
            Route(THIS, OURS, lambda: head_distances(model, images).distance.values),
            Route("timm, all maps kept", OTHER, all_maps_kept(model, images, torch.float32)),
            forward_pass(model, images, 64, aim=1.6),
        ),
        exact=all_maps_kept(model, images, torch.float64),
    )


# Effective receptive fields


def receptive_field(model: Model, images: Images, layers: Sequence[str], folder: Path) -> Comparison:
    """By one backward pass a layer: one channel of each image here, the mean over all channels in openerf.

    So the two estimate different things. They agree where no gradient is negative, and are held against the exact field
    of a network of that kind.
    """
    pictures = save(images, folder / "images")
    positive, small = positive_network(), Images("noise", noise(4, 9))
    small_pictures = save(small, folder / "small")
    return Comparison(
        f"Receptive fields, {len(layers)} layer{'s' if len(layers) > 1 else ''}",
        f"{layers[0] if len(layers) == 1 else 'all blocks'} of {model.name}, {_said(images)}",
        (
            Route(
                THIS,
                OURS,
                lambda: effective_receptive_fields(model, images, layers, channels=1),
                values=lambda: shares(effective_receptive_fields(positive, small, ["1"])[0].values),
            ),
            Route(
                "openerf",
                OTHER,
                lambda: [openerf(model, pictures, layer) for layer in layers],
                values=lambda: openerf(positive, small_pictures, "1"),
                package="openerf",
            ),
            *([forward_and_backward(model, images, aim=1.3)] if len(layers) == 1 else []),
        ),
        exact=lambda: shares(response_of_the_centre(positive, small)),
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

    work = ProbeWork.of(recorded, images, shots)
    grid, leave_one_out = lambda: ridge_classifiers(work), lambda: ridge_classifiers_cv(work)
    return Comparison(
        "Linear probes",
        f"{len(work.features)} tokens of {layer.name} of {model.name}, {len(STRENGTHS)} strengths, {shots} shots",
        (
            Route(THIS, OURS, ours),
            Route("scikit-learn, RidgeClassifier", OTHER, grid, package="sklearn"),
            Route("scikit-learn, RidgeClassifierCV", OTHER, leave_one_out, lambda: None, package="sklearn"),
        ),
        exact=grid,
    )


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

    return Comparison(
        measure,
        f"{work} of {name} in bfloat16, {_said(images)}",
        (Route(THIS, OURS, run), forward_pass(model, images, aim=1.3)),
        exact=lambda: call(full, images),
        device="cuda",
    )


def all_pairs(model: Model, images: Images) -> np.ndarray:
    return layer_similarity(model, model, images).values


def all_heads(model: Model, images: Images) -> np.ndarray:
    return head_distances(model, images, 256).distance.values
