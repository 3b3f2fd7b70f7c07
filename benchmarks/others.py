"""The other ways to the numbers of this package: other libraries, called as users would, and slow exact formulas."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitcnn_utils.images import Images
from vitcnn_utils.measures.attention import query_distance
from vitcnn_utils.measures.probes import STRENGTHS, class_numbers, split_images
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.models.trace import Tap

# Played-back activations


class Playback(nn.Module):
    """Parts that give in turn what was recorded of N images, for those images whose numbers the pixels hold.

    All N at once come in recorded order: no measure that takes them all asks for another, and it needs no copy.
    """

    def __init__(self, activations: Sequence[Tensor], mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.activations, self.mean, self.std = activations, mean, std
        self.parts = nn.ModuleList(nn.Identity() for _ in activations)

    def forward(self, x: Tensor) -> Tensor:
        high, low = ((x[:, :2, 0, 0] * self.std + self.mean) * 255).round().long().T
        N = len(self.activations[0])
        numbers = (high * 256 + low) % N  # a blank image, by which a model is tried, may be any
        for part, activation in zip(self.parts, self.activations, strict=True):
            out = part(activation if len(x) == N else activation[numbers])
        return out


def played_back(model: Model, images: Images, layers: Sequence[Layer]) -> tuple[Model, Images]:
    """The model with nothing in it but what these layers gave for these images, and images that hold their numbers."""
    found = model.record(model.prepare(torch.from_numpy(images.pixels)), layers)
    module = Playback([found[x.name] for x in layers], torch.tensor(model.mean[:2]), torch.tensor(model.std[:2]))
    same = [
        replace(layer, name=f"parts.{i}", tap=Tap(part))
        for i, (layer, part) in enumerate(zip(layers, module.parts, strict=True))
    ]
    pixels = np.zeros_like(images.pixels)
    pixels[:, 0, 0, :2] = np.stack(np.divmod(np.arange(len(images)), 256), axis=1)
    recorded = replace(model, name=f"{model.name}, recorded", module=module, layers=same)
    return recorded, replace(images, pixels=pixels)


# CKA


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
    module = Playback(model.module.activations, model.module.mean, model.module.std)
    loader = _loader(model, images)
    comparison = CKA(module, module, "a", "b", names, names, device="cpu")
    comparison.compare(loader, loader)
    return comparison.export()["CKA"].numpy()


def _loader(model: Model, images: Images) -> Any:
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(model.prepare(torch.from_numpy(images.pixels))), batch_size=len(images))


# Attention distance


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
            distances = [
                query_distance(A, model.grid, model.patch_size, model.prefix_tokens).mean(-1) for A in maps.values()
            ]
        return torch.stack([distance.mean(0) for distance in distances]).numpy()

    return run


# Effective receptive fields


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
        split = split_images(images, shots, 1, 0)
        return cls(tokens, class_numbers(images), split.draws[0], split.validation, split.test)


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


def noise(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
