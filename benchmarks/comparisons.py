"""What the benchmark compares: each measure of the book, other ways to the same numbers, and the bare passes it needs.

A route that is timed gives values too, and where exact ones can be had, in float64, its error against them is known.
Where a forward pass would be the same for all routes, activations are recorded once and played back.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vitcnn_utils.attention import head_distances, mean_distance
from vitcnn_utils.cka import layer_similarity
from vitcnn_utils.data import Images, load_images
from vitcnn_utils.localization import token_patch_similarity
from vitcnn_utils.models import Layer, Model, load_model
from vitcnn_utils.probes import STRENGTHS, _labels, _split, layer_probes
from vitcnn_utils.receptive_field import effective_receptive_fields, frozen
from vitcnn_utils.residual import skip_ratios
from vitcnn_utils.tracing import Tap

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

    def error(self, route: Route, values: Any) -> float | None:
        """Largest difference of any value from the exact one; None where the route has none to be compared."""
        given = values if route.values is None else route.values()
        if self.exact is None or route.kind == PASS or given is None:
            return None
        return float(np.abs(np.asarray(given, dtype=np.float64) - self.exact()).max())


def forward_pass(model: Model, images: Images, batch_size: int = 256, aim: float | None = None) -> Route:
    """The model over all images, without gradients, and nothing else."""

    def run() -> None:
        with torch.no_grad():
            for pixels in images.batches(batch_size):
                model.module(model.prepare(pixels))
        _wait(model)

    return Route("forward pass", PASS, run, aim=aim)


def _wait(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


# Played-back activations


class Playback(nn.Module):
    """Parts that give recorded activations of N images in turn, whatever (up to N) images the module is given."""

    def __init__(self, activations: Sequence[Tensor]) -> None:
        super().__init__()
        self.activations = activations
        self.parts = nn.ModuleList(nn.Identity() for _ in activations)

    def forward(self, x: Tensor) -> Tensor:
        for part, activation in zip(self.parts, self.activations, strict=True):
            out = part(activation[: len(x)])
        return out


def played_back(model: Model, images: Images, layers: Sequence[Layer]) -> Model:
    """The model with nothing in it but what these layers gave for these images."""
    found = model.record(model.prepare(torch.from_numpy(images.pixels)), layers)
    module = Playback([found[layer.name] for layer in layers])
    same = [
        replace(layer, name=f"parts.{i}", tap=Tap(part))
        for i, (layer, part) in enumerate(zip(layers, module.parts, strict=True))
    ]
    return replace(model, name=f"{model.name}, recorded", module=module, layers=same, _overwritten={})


# CKA


def cka_of_recorded(model: Model, images: Images) -> Comparison:
    """All pairs of layers, from activations that are there already."""
    recorded = played_back(model, images, hookable(model))
    activations = recorded.module.activations
    return Comparison(
        "CKA",
        f"every pair of {len(activations)} layers of {model.name}, {len(images)} images, activations given",
        (
            Route("vitcnn_utils", OURS, lambda: layer_similarity(recorded, recorded, images, len(images)).values),
            Route("pytorch-cka", OTHER, lambda: pytorch_cka(recorded, images), aim=1.5, package="cka"),
            Route("torch_cka", OTHER, lambda: torch_cka(recorded, images), aim=15, package="torch_cka"),
        ),
        exact=lambda: textbook_cka(activations),
    )


def cka_with_forward(model: Model, images: Images) -> Comparison:
    """All pairs of layers of a model, its forward pass included."""
    layers = hookable(model)
    named = replace(model, layers=layers)
    return Comparison(
        "CKA, forward pass included",
        f"every pair of {len(layers)} layers of {model.name}, {len(images)} images",
        (
            Route("vitcnn_utils", OURS, lambda: layer_similarity(named, named, images, len(images)).values),
            Route("pytorch-cka", OTHER, lambda: pytorch_cka(named, images), package="cka"),
            forward_pass(model, images, len(images)),
        ),
    )


def hookable(model: Model) -> list[Layer]:
    """The layers that are what a module gives, under its name: those that other libraries can reach too."""
    modules = dict(model.module.named_modules())
    return [x for x in model.layers if x.tap.side == "output" and modules.get(x.name) is x.tap.module]


def textbook_cka(activations: Sequence[Tensor]) -> np.ndarray:
    """Unbiased CKA of every pair, in float64, by equation 5 of Song et al. (2012)."""
    n = len(activations[0])
    grams = torch.stack([x.flatten(1).double() @ x.flatten(1).double().T for x in activations])
    grams.diagonal(dim1=1, dim2=2).zero_()
    rows, total = grams.sum(2), grams.sum((1, 2))
    flat = grams.flatten(1)
    hsic = flat @ flat.T + torch.outer(total, total) / ((n - 1) * (n - 2)) - rows @ rows.T * (2 / (n - 2))
    own = hsic.diagonal()
    return (hsic / torch.outer(own, own).sqrt()).numpy()


def pytorch_cka(model: Model, images: Images) -> np.ndarray:
    from cka import compute_cka

    names = [layer.name for layer in model.layers]
    module = model.module
    return compute_cka(module, module, _loader(model, images), layers=names, device="cpu", progress=False)[0].numpy()


def torch_cka(model: Model, images: Images) -> np.ndarray:
    """Of recorded activations: it runs a model twice, keeps its graph, and leaves its hooks in it."""
    from torch_cka import CKA

    names = [layer.name for layer in model.layers]
    module = Playback(model.module.activations)
    loader = _loader(model, images)
    comparison = CKA(module, module, "a", "b", names, names, device="cpu")
    comparison.compare(loader, loader)
    return comparison.export()["CKA"].numpy()


def _loader(model: Model, images: Images) -> Any:
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(model.prepare(torch.from_numpy(images.pixels))), batch_size=len(images))


# Attention distance


def attention_distance(model: Model, images: Images) -> Comparison:
    """All heads of all blocks."""
    return Comparison(
        "Attention distance",
        f"every head of {model.name}, {len(images)} images of {images.pixels.shape[1]} pixels",
        (
            Route("vitcnn_utils", OURS, lambda: head_distances(model, images).distance.values),
            Route("timm, all maps kept", OTHER, all_maps_kept(model, images, torch.float32)),
            forward_pass(model, images, 64, aim=1.6),
        ),
        exact=all_maps_kept(model, images, torch.float64),
    )


def all_maps_kept(model: Model, images: Images, dtype: torch.dtype) -> Callable[[], np.ndarray]:
    """timm's own extraction, which needs attention without the fused kernel, then the mean distance: (block, head)."""
    from timm.utils import AttentionExtract

    module = copy.deepcopy(model.module).to(dtype)
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
    extract = AttentionExtract(module, method="hook")

    def run() -> np.ndarray:
        with torch.no_grad():
            maps = extract(model.prepare(torch.from_numpy(images.pixels)).to(dtype))
            distances = [mean_distance(A, model.grid, model.patch_size, model.prefix_tokens) for A in maps.values()]
        return torch.stack([distance.mean(0) for distance in distances]).numpy()

    return run


# Effective receptive fields


def receptive_field(model: Model, images: Images, layers: Sequence[str], folder: Path) -> Comparison:
    """By one backward pass a layer: one channel of each image here, the mean over all channels in openerf.

    So the two estimate different things. They agree where no gradient is negative, and are held against the exact field
    of a network of that kind.
    """
    pictures = save(images, folder / "images")
    positive, small = positive_network(), Images("noise", noise(4, 9))
    small_pictures = save(small, folder / "small")
    one = layers[-1] if len(layers) == 1 else f"{len(layers)} layers"
    return Comparison(
        "Receptive field" if len(layers) == 1 else "Receptive fields",
        f"{one} of {model.name}, one backward pass a layer, {len(images)} images of {images.pixels.shape[1]} pixels",
        (
            Route(
                "vitcnn_utils",
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
            *([forward_and_backward(model, images)] if len(layers) == 1 else []),
        ),
        exact=lambda: shares(response_of_the_centre(positive, small)),
    )


def forward_and_backward(model: Model, images: Images) -> Route:
    """To the image, weights frozen."""

    def run() -> None:
        x = model.prepare(torch.from_numpy(images.pixels)).requires_grad_()
        with frozen(model.module):
            torch.autograd.grad(model.module(x).sum(), x)

    return Route("forward and backward pass", PASS, run, aim=1.3)


def openerf(model: Model, pictures: Path, layer: str) -> np.ndarray:
    from openerf import compute_erf

    # What timm reads to prepare images: it would cut a margin off.
    model.module.pretrained_cfg = {"input_size": (3, *model.image_size), "mean": model.mean, "std": model.std,
                                   "crop_pct": 1.0, "interpolation": "bicubic"}  # fmt: skip
    return compute_erf(model.module, None, pictures, None, layer, device="cpu", show_progress=False).erf_map


def save(images: Images, folder: Path) -> Path:
    """The images as files, which is how openerf takes them."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for i, pixels in enumerate(images.pixels):
        Image.fromarray(pixels).save(folder / f"{i:04}.png")
    return folder


def positive_network() -> Model:
    """Two convolutions without a negative weight, 9 x 9 images."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False))
    for weight in module.parameters():
        nn.init.uniform_(weight)
    half = (0.5, 0.5, 0.5)
    model = Model("positive", module.eval(), torch.device("cpu"), (9, 9), half, half, 10)
    model.layers = [Layer(str(i), "conv", None, float(i), Tap(part)) for i, part in enumerate(module)]
    return model


def response_of_the_centre(model: Model, images: Images) -> np.ndarray:
    """Of a linear model, pixel by pixel: what the centre gives for an image that is 1 there and 0 elsewhere, (H, W)."""
    H, W = images.pixels.shape[1:3]
    pixels = torch.eye(3 * H * W, dtype=torch.float64).reshape(-1, 3, H, W)
    with torch.no_grad():
        responses = copy.deepcopy(model.module).double()(pixels)[:, :, H // 2, W // 2]
    return responses.mean(1).reshape(3, H, W).mean(0).numpy()


def shares(field: np.ndarray) -> np.ndarray:
    return field / field.sum()


# Probes


def token_probes(model: Model, images: Images, layer: Layer, shots: int = 10) -> Comparison:
    """A probe for each token of a layer, from activations that are there already."""
    recorded = played_back(model, images, [layer])

    def ours() -> np.ndarray:
        result = layer_probes(recorded, images, None, ["token"], shots, draws=1, batch_size=len(images))
        return result.token_accuracy.values.ravel()

    work = ProbeWork.of(recorded, images, shots)
    grid, leave_one_out = lambda: ridge_classifiers(work), lambda: ridge_classifiers_cv(work)
    return Comparison(
        "Linear probes",
        f"one for each of {work.features.shape[0]} tokens of {layer.name} of {model.name}, {len(STRENGTHS)} strengths, "
        f"{len(work.train)} training images, activations given",
        (
            Route("vitcnn_utils", OURS, ours),
            Route("scikit-learn, RidgeClassifier", OTHER, grid, package="sklearn"),
            Route("scikit-learn, RidgeClassifierCV", OTHER, leave_one_out, lambda: None, package="sklearn"),
        ),
        exact=grid,
    )


@dataclass(frozen=True)
class ProbeWork:
    """features: (tokens, images, channels), float64; labels; and which images are for what."""

    features: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @classmethod
    def of(cls, recorded: Model, images: Images, shots: int) -> "ProbeWork":
        tokens = recorded.spatial(recorded.module.activations[0]).flatten(1, 2).transpose(0, 1).double().numpy()
        split = _split(images, shots, 1, 0)
        return cls(tokens, _labels(images), split.draws[0], split.validation, split.test)


def ridge_classifiers(work: ProbeWork) -> np.ndarray:
    """Each token's test accuracy, with the strength that is best on the validation images on average over tokens."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    y = work.labels
    validation, test = (np.empty((len(STRENGTHS), len(work.features))) for _ in range(2))
    for t, x in enumerate(work.features):
        scaler = StandardScaler().fit(x[work.train])
        train, held_out, unseen = (scaler.transform(x[part]) for part in (work.train, work.validation, work.test))
        for s, strength in enumerate(STRENGTHS):
            probe = RidgeClassifier(strength * x.shape[1]).fit(train, y[work.train])
            validation[s, t] = probe.score(held_out, y[work.validation])
            test[s, t] = probe.score(unseen, y[work.test])
    means = validation.mean(1)
    return test[max(range(len(STRENGTHS)), key=lambda s: (means[s], s))]


def ridge_classifiers_cv(work: ProbeWork) -> np.ndarray:
    """Each token's test accuracy, with a strength of its own, chosen by leaving one training image out."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = work.labels
    alphas = np.array(STRENGTHS) * work.features.shape[2]
    return np.array([
        make_pipeline(StandardScaler(), RidgeClassifierCV(alphas))
        .fit(x[work.train], y[work.train])
        .score(x[work.test], y[work.test])
        for x in work.features
    ])  # fmt: skip


# Against the forward pass


def against_forward(measure: str, work: str, model: Model, images: Images, call: Call) -> Comparison:
    """A measure as the book calls it, beside the forward pass that it needs."""
    routes = Route("vitcnn_utils", OURS, lambda: call(model, images)), forward_pass(model, images)
    return Comparison(measure, f"{work} of {model.name}, {len(images)} images", routes)


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
        f"{work} of {name} in bfloat16, {len(images)} images of {images.pixels.shape[1]} pixels",
        (Route("vitcnn_utils", OURS, run), forward_pass(model, images, aim=1.3)),
        exact=lambda: call(full, images),
        device="cuda",
    )


def all_pairs(model: Model, images: Images) -> np.ndarray:
    return layer_similarity(model, model, images).values


def all_heads(model: Model, images: Images) -> np.ndarray:
    return head_distances(model, images, 256).distance.values


def noise(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


# What is measured

LARGE = "vit_large_patch16_224"


def _zoo(n: int) -> tuple[Model, Images]:
    return load_model("zoo/vit-cls", device="cpu"), load_images("cifar10", n=n)


def _untrained(name: str, n: int) -> tuple[Model, Images]:
    return load_model(name, weights="untrained", device="cpu"), Images("noise", noise(n, 224))


def _blocks(folder: Path, last_only: bool) -> Comparison:
    model, images = _untrained("vit_tiny_patch16_224", 8)
    names = [layer.name for layer in model.blocks]
    return receptive_field(model, images, names[-1:] if last_only else names, folder)


def _probes() -> Comparison:
    model, images = _zoo(500)
    return token_probes(model, images, model.blocks[-1])


class Planned(NamedTuple):
    """A comparison to be made, and how often each of its routes, by name, is timed."""

    make: Callable[[Path], Comparison]
    rounds: dict[str, int]
    on_gpu: bool = False


O, F = "vitcnn_utils", "forward pass"
PLAN = {
    "cka": Planned(lambda _: cka_of_recorded(*_zoo(256)), {O: 5, "pytorch-cka": 5, "torch_cka": 3}),
    "cka-model": Planned(lambda _: cka_with_forward(*_zoo(256)), {O: 5, "pytorch-cka": 5, F: 5}),
    "attention": Planned(
        lambda _: attention_distance(*_untrained("vit_small_patch16_224", 16)), {O: 5, "timm, all maps kept": 5, F: 5}
    ),
    "erf-layer": Planned(
        lambda folder: _blocks(folder, last_only=True), {O: 5, "openerf": 5, "forward and backward pass": 5}
    ),
    "erf-layers": Planned(lambda folder: _blocks(folder, last_only=False), {O: 3, "openerf": 3}),
    "probes": Planned(
        lambda _: _probes(), {O: 5, "scikit-learn, RidgeClassifier": 3, "scikit-learn, RidgeClassifierCV": 3}
    ),
    "probes-model": Planned(
        lambda _: against_forward("Linear probes", "every block and read-out", *_zoo(500), layer_probes), {O: 3, F: 3}
    ),
    "skips": Planned(
        lambda _: against_forward("Skip ratios", "every branch and token", *_zoo(256), skip_ratios), {O: 5, F: 5}
    ),
    "places": Planned(
        lambda _: against_forward("Token-patch similarity", "the last block", *_zoo(256), token_patch_similarity),
        {O: 5, F: 5},
    ),
    "cka-gpu": Planned(lambda _: in_bfloat16("CKA", "every pair of layers", LARGE, all_pairs), {O: 5, F: 5}, True),
    "attention-gpu": Planned(
        lambda _: in_bfloat16("Attention distance", "every head", LARGE, all_heads), {O: 5, F: 5}, True
    ),
}
