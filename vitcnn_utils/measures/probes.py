"""Linear probes: how well a layer's features tell the classes apart (section 7, Fig 11; section 8, Fig 13; app. F).

A probe is ridge regression onto targets of ±1, one a class, solved in closed form from a few labelled images a class.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError, check_finite
from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.run import Pace, of_first, prepared, room

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
    batch_size: int | None = None,
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
        accuracy_by_image (layer, readout, draw, sample): the same of each test image, for intervals
        token_accuracy (layer, row, col, draw), where 'token' is among the read-outs

    batch_size: images at once; None for as many as fit in memory. The features of all images are held for as many
    layers, read-outs and tokens as fit in a quarter of the host's free memory; then the images go through the model
    again for the next. One read-out of one layer takes N x D x 4 bytes, 0.2 GB for 50,000 images and ViT-L/16, and
    'token' as many times that as there are tokens: leave it out where there are many images.
    Raises VitcnnError for images without labels, of one class or too few of a class, and for NaN or Inf in a layer.
    """
    layers = (model.blocks or model.layers) if layers is None else layers
    readouts = readouts_of(model, readouts)
    labels, split = class_numbers(images), split_images(images, shots, draws, seed)
    reader = _Reader.of(model, images)
    found: dict[tuple[str, str], list[Scores]] = {}
    budget = room(torch.device("cpu")) / 2  # the model and what solves the probes need memory too
    for group in _groups(reader.shapes(layers, readouts), len(images), budget):
        solved = (_probe(x, labels, split, model) for x in _features(reader, layers, group, batch_size))
        for piece, scores in zip(group, solved, strict=True):
            found.setdefault((piece.layer, piece.readout), []).append(scores)
    by_cell = [[Scores.of_all(found[layer.name, r]) for r in readouts] for layer in layers]
    attrs = {
        "measure": f"test accuracy of {shots}-shot linear probes", "units": "1", "chance": 1 / (labels.max() + 1),
        **provenance.of(model, images, seed), "n_test": len(split.test), "shots": shots,
    }  # fmt: skip
    return _label(by_cell, layers, readouts, reader.grid).assign_attrs(attrs)


class Scores(NamedTuple):
    """How P probes do with each strength: accuracy on the validation and the test images, (2, strength, draw, P), and
    how many of the probes are right on each test image, (strength, draw, image).
    """

    accuracy: np.ndarray
    by_image: np.ndarray

    @classmethod
    def of_all(cls, pieces: "Sequence[Scores]") -> "Scores":
        return cls(np.concatenate([p.accuracy for p in pieces], axis=-1), np.sum([p.by_image for p in pieces], axis=0))

    def chosen(self) -> "Chosen":
        """Of each draw, with the strength that is best on the validation images, on average over P.

        Among equals it is the strongest, which generalizes best.
        """
        means = self.accuracy[0].mean(-1)
        best, draws = len(STRENGTHS) - 1 - means[::-1].argmax(0), np.arange(means.shape[1])
        by_image = self.by_image[best, draws] / self.accuracy.shape[-1]
        return Chosen(self.accuracy[1][best, draws], by_image)


class Chosen(NamedTuple):
    """Of each draw the test accuracy with the chosen strength, (draw, P) and (draw, image)."""

    by_token: np.ndarray
    by_image: np.ndarray


def _label(
    by_cell: list[list[Scores]], layers: Sequence[Layer], readouts: Sequence[Readout], grid: tuple[int, int]
) -> xr.Dataset:
    """What `layer_probes` returns; by_cell: of each layer and read-out."""
    chosen = [[scores.chosen() for scores in of_layer] for of_layer in by_cell]
    cube = ("layer", "readout", "draw")
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        "accuracy": (cube, np.array([[one.by_token.mean(-1) for one in of_layer] for of_layer in chosen])),
        "accuracy_by_image": ((*cube, "sample"), np.array([[one.by_image for one in of] for of in chosen])),
    }
    if "token" in readouts:
        by_token = np.stack([of_layer[readouts.index("token")].by_token.T.reshape(*grid, -1) for of_layer in chosen])
        data["token_accuracy"] = (("layer", "row", "col", "draw"), by_token)
    coords = {
        "layer": [x.name for x in layers], "depth": ("layer", [x.depth for x in layers]), "readout": list(readouts),
        "draw": np.arange(data["accuracy"][1].shape[-1]),
    }  # fmt: skip
    return xr.Dataset(data, coords)


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
        return projected @ (self.coefficients / (self.eigenvalues[..., None] + strength)) + self.intercept


def _probe(x: Tensor, labels: np.ndarray, split: "Split", model: Model) -> Scores:
    """Of P probes on x, (N, P, D), as many at once as fit in memory."""
    device = _device(model)
    target = torch.from_numpy(labels).to(device)
    # The features, as they are, standardised and projected, and the predictions.
    needed = 4 * max(len(split.test), len(split.draws[0])) * (4 * x.shape[-1] + 2 * int(target.max() + 1))
    pace = Pace(max(1, room(device) // needed), f"linear probes on {model.name}")

    def solve(part: slice) -> Scores:
        def of(index: np.ndarray) -> Tensor:
            return x[torch.from_numpy(index), part].to(device).transpose(0, 1)  # (P, m, D)

        accuracy, by_image = zip(*(_solve(of, target, train, split) for train in split.draws), strict=True)
        return Scores(np.stack(accuracy, axis=2), np.stack(by_image, axis=1))

    return Scores.of_all(list(pace.over(x.shape[1], solve)))


def _solve(of: Callable[[np.ndarray], Tensor], target: Tensor, train: np.ndarray, split: "Split") -> Scores:
    """Of one draw, without the dimension `draw`."""
    x = of(train)
    ridge = Ridge.fit(x, F.one_hot(target[train]).to(x.dtype) * 2 - 1)
    accuracy = []
    for index in (split.validation, split.test):
        projected = ridge.project(of(index))
        predictions = (ridge.predict(projected, s * x.shape[-1]) for s in STRENGTHS)
        right = [prediction.argmax(dim=-1) == target[index] for prediction in predictions]  # (P, m) each
        accuracy.append([one.double().mean(dim=1).cpu().numpy() for one in right])
    return Scores(np.array(accuracy), np.array([one.float().sum(dim=0).cpu().numpy() for one in right]))


# Images and labels


class Split(NamedTuple):
    """Which images are for what, by index: of each draw, (shots * classes,), for validation and for the test.

    Test images take turns by class, so that groups of them, as a jackknife leaves out, hold all classes alike.
    """

    draws: list[np.ndarray]
    validation: np.ndarray
    test: np.ndarray


def class_numbers(images: Images) -> np.ndarray:
    """The labels numbered from 0 without gaps, (N,); VitcnnError where there are none, or one class only."""
    if images.labels is None:
        raise VitcnnError(f"{images.name} has no labels, which linear probes need: take labelled images")
    classes, labels = np.unique(images.labels, return_inverse=True)
    if len(classes) < 2:
        raise VitcnnError(
            f"linear probes tell classes apart, and {images.name} has one only: take images of two or more"
        )
    return labels


def split_images(images: Images, shots: int, draws: int, seed: int) -> Split:
    """Divides the images of each class: 40 % pool, 20 % validation, 40 % test; then draws from the pool.

    VitcnnError where a class has too few images, and where `class_numbers` raises it.
    """
    labels = class_numbers(images)
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
    return Split(drawn, by_class[:, pool : pool + validation].ravel(), by_class[:, pool + validation :].T.ravel())


# From a model to features


def readouts_of(model: Model, readouts: Sequence[Readout] | None) -> Sequence[Readout]:
    """The read-outs that `layer_probes` takes, None for all of the model's; VitcnnError for one that it lacks."""
    missing = set() if model.grid is not None else {"first token"}
    missing |= set() if "CLS" in model.prefix_names else {"cls", "mean with cls"}
    if readouts is None:
        return [readout for readout in get_args(Readout) if readout not in missing]
    for readout in readouts:
        if readout not in get_args(Readout):
            raise VitcnnError(f"no read-out {readout!r}; there are: {', '.join(get_args(Readout))}")
        if readout in missing:
            raise VitcnnError(f"{model.name} has no {'CLS token' if 'cls' in readout else 'tokens'} to read out")
    return readouts


class _Piece(NamedTuple):
    """Some of the cells of a read-out of a layer, of D channels."""

    layer: str
    readout: Readout
    cells: slice
    channels: int


@dataclass(frozen=True)
class _Reader:
    """Reads features off activations; grid and channels are those of the last layer, which is that of 'token'."""

    model: Model
    images: Images
    grid: tuple[int, int]
    channels: int

    @classmethod
    def of(cls, model: Model, images: Images) -> "_Reader":
        last = (model.blocks or model.layers)[-1]
        shapes = of_first(model, images, lambda x: model.reduce(x, [last], lambda _, a: model.spatial(a).shape[1:]))
        rows, cols, channels = shapes[last.name]
        return cls(model, images, (rows, cols), channels)

    def read(self, name: str, activation: Tensor, readouts: Sequence[Readout]) -> dict[Readout, Tensor]:
        """What a probe sees, (B, P, D) each; P is 1 but for 'token', where it is rows * cols."""
        cells = _at_grid(self.model.spatial(activation), *self.grid, self.channels).flatten(1, 2)
        check_finite(f"{name} of {self.model.name}", cells)
        views: dict[Readout, Tensor] = {
            "mean": cells.mean(dim=1, keepdim=True),
            "first token": cells[:, :1],
            "token": cells,
        }
        if "CLS" in self.model.prefix_names:
            views |= {"cls": activation[:, :1], "mean with cls": activation.mean(dim=1, keepdim=True)}
        return {readout: views[readout] for readout in readouts}

    def shapes(
        self, layers: Sequence[Layer], readouts: Sequence[Readout]
    ) -> dict[tuple[str, Readout], tuple[int, int]]:
        """(P, D) of each layer and read-out."""

        def sizes(name: str, activation: Tensor) -> dict[Readout, tuple[int, int]]:
            return {r: (v.shape[1], v.shape[2]) for r, v in self.read(name, activation, readouts).items()}

        of_layers = of_first(self.model, self.images, lambda x: self.model.reduce(x, layers, sizes))
        return {(layer.name, r): of_layers[layer.name][r] for layer in layers for r in readouts}


def _groups(shapes: dict[tuple[str, Readout], tuple[int, int]], count: int, budget: float) -> Iterator[list[_Piece]]:
    """All layers and read-outs, (P, D) each, in groups whose features of `count` images keep to a budget in bytes."""
    group: list[_Piece] = []
    left = budget
    for (layer, readout), (P, D) in shapes.items():
        start = 0
        while start < P:
            fit = int(left // (4 * count * D))
            if fit < 1 and group:
                yield group
                group, left = [], budget
                continue
            stop = min(P, start + max(1, fit))
            group.append(_Piece(layer, readout, slice(start, stop), D))
            left -= 4 * count * D * (stop - start)
            start = stop
    yield group


def _features(
    reader: _Reader, layers: Sequence[Layer], group: list[_Piece], batch_size: int | None
) -> Iterator[Tensor]:
    """What the probes of each piece see of all images: float32 (N, P, D) on the CPU."""
    model, images = reader.model, reader.images
    chosen = [layer for layer in layers if any(piece.layer == layer.name for piece in group)]
    held = [torch.empty(len(images), p.cells.stop - p.cells.start, p.channels) for p in group]

    def fill(part: slice) -> None:
        def read(name: str, activation: Tensor) -> None:
            wanted = [(piece, x) for piece, x in zip(group, held, strict=True) if piece.layer == name]
            views = reader.read(name, activation, [piece.readout for piece, _ in wanted])
            for piece, x in wanted:
                x[part] = views[piece.readout][:, piece.cells]

        model.reduce(prepared(model, images, part), chosen, read)

    pace = Pace.of(batch_size, model, lambda: fill(slice(1)))
    for _ in pace.over(len(images), fill, title=model.name):
        pass
    while held:
        yield held.pop(0)  # so that those that are done with are not held


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


# Summaries of one read-out, in percent


def curve(probes: xr.Dataset, readout: str = "mean") -> xr.DataArray:
    """Accuracy of a read-out: (layer, draw), coordinate `depth`."""
    return 100 * probes["accuracy"].sel(readout=readout, drop=True)


def last(probes: xr.Dataset, readout: str) -> float:
    """Mean accuracy in the last layer."""
    return float(curve(probes.isel(layer=-1), readout).mean())


def at_depth(probes: xr.Dataset, depth: float, readout: str = "mean") -> float:
    """Mean accuracy at a depth (0 to 1), between layers by linear interpolation."""
    mean = curve(probes, readout).mean("draw")
    return float(np.interp(depth, mean.depth, mean))


def average(probes: xr.Dataset, readout: str = "mean") -> float:
    """Mean accuracy over depth: the area under the curve, of the depths that are probed."""
    mean = curve(probes, readout).mean("draw")
    depths = np.linspace(float(mean.depth[0]), float(mean.depth[-1]), 101)
    return float(np.interp(depths, mean.depth, mean).mean())
