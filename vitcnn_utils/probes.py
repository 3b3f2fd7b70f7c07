"""Linear probes: how well a layer's features tell the classes apart (section 7, Fig 11; section 8, Fig 13; app. F).

A probe is ridge regression onto targets of ±1, one a class, solved in closed form from a few labelled images a class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from vitcnn_utils.data import Images
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.models import Layer, Model

Readout = Literal["cls", "mean", "mean with cls", "first token", "token"]

STRENGTHS = tuple(float(s) for s in 10 ** np.linspace(-4, 2, 13))
"""The ridge strengths tried, in units of the number of features (the mean squared norm of standardised features)."""


def layer_probes(
    model: Model,
    images: Images,
    layers: Sequence[Layer] | None = None,
    readouts: Sequence[Readout] | None = None,
    shots: int = 10,
    draws: int = 5,
    seed: int = 0,
    batch_size: int = 256,
) -> xr.Dataset:
    """Test accuracy of linear probes on each layer, from `shots` labelled images a class (Figs 11, 13).

    Of each class, 40 % of the images, drawn with `seed`, are the pool from which every draw takes its shots, 20 %
    choose the ridge strength (for each layer, read-out and draw), and 40 % test; all classes count as many as the
    smallest. Features are standardised by mean and deviation of the draw, and the intercept is not penalised.

    layers: None for the block outputs. Features are taken there, with no norm after them.
    readouts: None for all that the model has, of
        'cls'            the CLS token
        'mean'           the mean of all spatial tokens, or of all locations of a map
        'mean with cls'  the mean of all tokens, prefix tokens too
        'first token'    the first spatial token alone, of a model with tokens
        'token'          each spatial token or location by itself, all of a layer with one strength
    A CNN's map that is larger than its last is brought to the last one's grid, as in the paper: cut into small squares
    whose pixels become channels, as long as that makes no more channels than the last map has, then pooled.

    Returns, from 0 to 1, chance in attrs:
        accuracy (layer, readout, draw); of 'token', the mean over tokens
        token_accuracy (layer, row, col, draw), where 'token' is among the read-outs
        strength (layer, readout, draw): the chosen one, in units of the number of features
    Raises VitcnnError for images without labels, of one class or too few of a class, and for NaN or Inf in a layer.
    """
    layers = (model.blocks or model.layers) if layers is None else layers
    readouts = _readouts(model, readouts)
    labels, split = _labels(images), _split(images, shots, draws, seed)
    features, grid = _features(model, images, layers, readouts, batch_size)
    accuracy = np.full((len(layers), len(readouts), draws), np.nan)
    strength = accuracy.copy()
    by_token = np.full((len(layers), *grid, draws), np.nan)
    for i, layer in enumerate(tqdm(layers, desc=f"probes, {model.name}", leave=False, disable=None)):
        for j, readout in enumerate(readouts):
            x = features[layer.name][readout]
            for k, train in enumerate(split.draws):
                strength[i, j, k], values = _probe(x, labels, train, split, _device(model))
                accuracy[i, j, k] = values.mean()
                if readout == "token":
                    by_token[i, ..., k] = values.reshape(grid)
    cube = ("layer", "readout", "draw")
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"accuracy": (cube, accuracy), "strength": (cube, strength)}
    if "token" in readouts:
        data["token_accuracy"] = (("layer", "row", "col", "draw"), by_token)
    coords = {
        "layer": [x.name for x in layers], "depth": ("layer", [x.depth for x in layers]), "readout": list(readouts),
        "draw": np.arange(draws),
    }  # fmt: skip
    attrs = {
        "measure": f"test accuracy of {shots}-shot linear probes", "units": "1", "chance": 1 / (labels.max() + 1),
        "model": model.name, "images": images.name, "n_images": len(images), "n_validation": len(split.validation),
        "n_test": len(split.test), "shots": shots, "seed": seed,
    }  # fmt: skip
    return xr.Dataset(data, coords, attrs)


# Ridge regression


@dataclass(frozen=True)
class Ridge:
    """P ridge regressions at once, for every strength, from one eigendecomposition of each one's smaller Gram matrix.

    With X the standardised features and X Xᵀ = U S Uᵀ (Xᵀ X = V S Vᵀ where features are fewer than images), predictions
    at strength λ are x Xᵀ U (S + λ)⁻¹ Uᵀ (Y - mean) + mean. No batched `torch.linalg.solve`: with two threads it hangs
    on some CPU builds.
    """

    mean: Tensor  # (P, 1, D)
    deviation: Tensor  # (P, 1, D)
    directions: Tensor  # (P, D, r), r = min(n, D)
    eigenvalues: Tensor  # (P, r)
    coefficients: Tensor  # (P, r, C)
    intercept: Tensor  # (C,)

    @classmethod
    def fit(cls, features: Tensor, targets: Tensor) -> "Ridge":
        """features: (P, n, D); targets: (n, C), the same for all P."""
        mean, deviation = features.mean(dim=1, keepdim=True), features.std(dim=1, keepdim=True, correction=0)
        # A feature that is constant but for rounding stays at zero.
        deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1)
        x = (features - mean) / deviation
        intercept = targets.mean(dim=0)
        y = targets - intercept
        _, n, D = x.shape
        gram = x @ x.mT if n <= D else x.mT @ x
        eigenvalues, vectors = (v.to(x.dtype) for v in torch.linalg.eigh(gram.double()))
        directions, coefficients = (x.mT @ vectors, vectors.mT @ y) if n <= D else (vectors, vectors.mT @ (x.mT @ y))
        return cls(mean, deviation, directions, eigenvalues.clamp(min=0), coefficients, intercept)

    def project(self, features: Tensor) -> Tensor:
        """(P, m, D) features on the eigenvectors, (P, m, r): the part of a prediction that no strength changes."""
        return ((features - self.mean) / self.deviation) @ self.directions

    def predict(self, projected: Tensor, strength: float) -> Tensor:
        """(P, m, C) from what `project` gives; `strength` is λ, scikit-learn's alpha."""
        return (projected / (self.eigenvalues[:, None] + strength)) @ self.coefficients + self.intercept


def _probe(
    x: Tensor, labels: np.ndarray, train: np.ndarray, split: "_Split", device: torch.device
) -> tuple[float, np.ndarray]:
    """The strength that is best on the validation images, on average over probes, and each probe's test accuracy, (P,).

    x: (N, P, D).
    """
    target = torch.from_numpy(labels).to(device)

    def of(index: np.ndarray) -> Tensor:
        return x[index].to(device).transpose(0, 1)  # (P, m, D)

    ridge = Ridge.fit(of(train), F.one_hot(target[train]).to(x.dtype) * 2 - 1)
    projected = ridge.project(of(split.validation))
    by_strength = [
        _accuracy(ridge.predict(projected, s * x.shape[-1]), target[split.validation]).mean() for s in STRENGTHS
    ]
    # Among equals the strongest, which generalizes best.
    best = max(range(len(STRENGTHS)), key=lambda i: (by_strength[i], i))
    prediction = ridge.predict(ridge.project(of(split.test)), STRENGTHS[best] * x.shape[-1])
    return STRENGTHS[best], _accuracy(prediction, target[split.test])


def _accuracy(prediction: Tensor, target: Tensor) -> np.ndarray:
    """(P, m, C) and (m,) to (P,)."""
    return (prediction.argmax(dim=-1) == target).double().mean(dim=1).cpu().numpy()


# Images and labels


class _Split(NamedTuple):
    """Indices of images: of each draw, (shots * classes,), for validation and for the test."""

    draws: list[np.ndarray]
    validation: np.ndarray
    test: np.ndarray


def _labels(images: Images) -> np.ndarray:
    """The labels numbered from 0 without gaps, (N,)."""
    if images.labels is None:
        raise VitcnnError(f"{images.name} has no labels, which linear probes need: take labelled images")
    classes, labels = np.unique(images.labels, return_inverse=True)
    if len(classes) < 2:
        raise VitcnnError(
            f"linear probes tell classes apart, and {images.name} has one only: take images of two or more"
        )
    return labels


def _split(images: Images, shots: int, draws: int, seed: int) -> _Split:
    """Divides the images of each class: 40 % pool, 20 % validation, 40 % test; then draws from the pool."""
    labels = _labels(images)
    counts = np.bincount(labels)
    needed = max(-(-5 * shots // 2), 5)
    if shots < 1 or draws < 1:
        raise VitcnnError(f"shots={shots}, draws={draws}: linear probes need 1 or more of each")
    if counts.min() < needed:
        raise VitcnnError(
            f"{shots}-shot probes need {needed} images of each class, and {images.name} has {counts.min()} of one: "
            "take more images or fewer shots"
        )
    size = counts.min()
    pool, validation = 2 * size // 5, size // 5
    rng = np.random.default_rng(seed)
    by_class = np.stack([rng.permutation(np.flatnonzero(labels == c))[:size] for c in range(len(counts))])
    drawn = [rng.permuted(by_class[:, :pool], axis=1)[:, :shots].ravel() for _ in range(draws)]
    return _Split(drawn, by_class[:, pool : pool + validation].ravel(), by_class[:, pool + validation :].ravel())


# From a model to features


def _readouts(model: Model, readouts: Sequence[Readout] | None) -> Sequence[Readout]:
    missing = set() if model.grid is not None else {"first token"}
    missing |= set() if model.prefix_tokens else {"cls", "mean with cls"}
    if readouts is None:
        return [readout for readout in get_args(Readout) if readout not in missing]
    for readout in readouts:
        if readout not in get_args(Readout):
            raise VitcnnError(f"no read-out {readout!r}; there are: {', '.join(get_args(Readout))}")
        if readout in missing:
            raise VitcnnError(f"{model.name} has no {'CLS token' if 'cls' in readout else 'tokens'} to read out")
    return readouts


def _features(
    model: Model, images: Images, layers: Sequence[Layer], readouts: Sequence[Readout], batch_size: int
) -> tuple[dict[str, dict[Readout, Tensor]], tuple[int, int]]:
    """What the probes of each layer and read-out see, float32 (N, P, D) on the CPU, and the grid of 'token'.

    P is 1 but for 'token', where it is rows * cols.
    """
    last = (model.blocks or model.layers)[-1]
    first_image = model.prepare(torch.from_numpy(images.pixels[:1].copy()))
    rows, cols, channels = model.reduce(first_image, [last], lambda _, a: model.spatial(a).shape[1:])[last.name]

    def read(name: str, activation: Tensor) -> dict[Readout, Tensor]:
        cells = _at_grid(model.spatial(activation), rows, cols, channels).flatten(1, 2)
        if not torch.isfinite(cells).all():
            raise VitcnnError(f"there is NaN or Inf in {name} of {model.name}: leave it out, or find what causes it")
        views: dict[Readout, Tensor] = {
            "mean": cells.mean(dim=1, keepdim=True),
            "first token": cells[:, :1],
            "token": cells,
        }
        if model.prefix_tokens:
            views |= {"cls": activation[:, :1], "mean with cls": activation.mean(dim=1, keepdim=True)}
        return {readout: views[readout].float().cpu().clone() for readout in readouts}

    parts: list[dict[str, dict[Readout, Tensor]]] = []
    count = -(-len(images) // batch_size)
    for pixels in tqdm(images.batches(batch_size), total=count, desc=model.name, leave=False, disable=None):
        parts.append(model.reduce(model.prepare(pixels), layers, read))
    features = {
        layer.name: {readout: torch.cat([part[layer.name].pop(readout) for part in parts]) for readout in readouts}
        for layer in layers
    }
    return features, (rows, cols)


def _at_grid(cells: Tensor, rows: int, cols: int, channels: int) -> Tensor:
    """A map (B, H, W, C) brought to (B, rows, cols, D), D as near to `channels` as cutting in squares gets, or C."""
    _, H, W, C = cells.shape
    if rows == H and cols == W:
        return cells
    sides = [
        k for k in range(1, H // rows + 1) if H % k == 0 and W % k == 0 and W // k >= cols and k * k * C <= channels
    ]
    cut = F.pixel_unshuffle(cells.permute(0, 3, 1, 2), max(sides, default=1))
    return F.adaptive_avg_pool2d(cut, (rows, cols)).permute(0, 2, 3, 1)


def _device(model: Model) -> torch.device:
    """Where to solve: with the model, but for MPS, which has no float64."""
    return torch.device("cpu") if model.device.type == "mps" else model.device
