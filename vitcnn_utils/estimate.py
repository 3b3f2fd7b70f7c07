"""How long measures take and how much memory they need, from short runs of them on this device.

What is known beforehand is how the cost of a measure grows: with which amounts of work (images, batches, pairs of
images in a batch, backward passes, equations). What a unit of each costs with these models on this device is measured:
with a few noise images, then with more, until a run is long enough to tell. The cost of the real run is the sum of its
amounts of work, each times its price.
"""

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from vitcnn_utils import batching, probes, receptive_field
from vitcnn_utils.batching import peak_bytes, room
from vitcnn_utils.data import Images
from vitcnn_utils.models import Layer, Model
from vitcnn_utils.rehearsal import Request

Arguments = dict[str, Any]
Amounts = tuple[float, ...]

LONG = 2
"""Seconds. No trial is made that is expected to take longer, but for the first."""

SMALLEST = 4
"""Images: CKA takes no fewer."""

EIGH = 100
"""An eigendecomposition of an (r, r) matrix, in float64, takes so many r³ operations at the pace of a product."""


@dataclass(frozen=True)
class Growth:
    """How the cost of a measure grows with its arguments.

    work: amounts that its time is a sum of, the most telling first; space: the same of its memory.
    timed: arguments of the trials that are timed, from the smallest; weighed: of those whose memory is measured.
    passes: forward and backward passes of single images.
    """

    work: Callable[[Arguments], Amounts]
    space: Callable[[Arguments], Amounts]
    timed: Callable[[Arguments], list[Arguments]]
    weighed: Callable[[Arguments], list[Arguments]]
    passes: Callable[[Arguments], float]


@dataclass
class _Trials:
    """What was measured of one measure with its models: of each trial the amounts, and the seconds or bytes."""

    first: float
    seconds: list[tuple[Amounts, float]] = field(default_factory=list)
    bytes: list[tuple[Amounts, float]] = field(default_factory=list)


class Bench:
    """Runs trials of requests, and estimates from them. Requests that differ in their images alone share trials.

    clock: gives seconds, as `time.perf_counter` does.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._trials: dict[tuple[Any, ...], _Trials] = {}
        self._kinds: dict[nn.Module, str] = {}

    def attempt(self, request: Request) -> None:
        """The smallest trial; it raises the VitcnnError that the measure would raise."""
        a = request.arguments
        if request.measure == "probes.layer_probes":  # whose trials have other numbers of images a class
            probes.split_images(a["images"], a["shots"], a["draws"], a["seed"])
        if self._key(request) not in self._trials:
            trials = _Trials(0)
            trials.first = self._weigh(request, GROWTH[request.measure].weighed(a)[0], trials)
            self._trials[self._key(request)] = trials

    def measure(self, request: Request) -> None:
        """The other trials, if they were not made already."""
        self.attempt(request)
        trials, growth = self._trials[self._key(request)], GROWTH[request.measure]
        if trials.seconds:
            return
        smallest, *larger = growth.weighed(request.arguments)
        if trials.first > LONG:  # or did it take so long because it was the first of all?
            again = self._time(request, smallest)
            if again > LONG:
                trials.seconds.append((growth.work(smallest), min(again, trials.first)))
                return
        for arguments in larger:
            self._weigh(request, arguments, trials)
        for arguments in growth.timed(request.arguments):
            work = growth.work(arguments)
            expected = _expected(trials.seconds[-1], work) if trials.seconds else 0
            if expected > LONG:
                break
            seconds = self._time(request, arguments)
            if not LONG / 8 < seconds < 2 * expected:  # so short, or so long, that something may have disturbed it
                seconds = min(seconds, self._time(request, arguments))
            trials.seconds.append((work, seconds))

    def seconds(self, request: Request) -> float:
        """Of the whole request."""
        return predict(self._trials[self._key(request)].seconds, GROWTH[request.measure].work(request.arguments))

    def bytes(self, request: Request) -> float:
        """The most that tensors take at a time on the device of the models, the models themselves left out."""
        trials, space, a = self._trials[self._key(request)].bytes, GROWTH[request.measure].space, request.arguments
        if a.get("batch_size", 1) is None:  # it will take no more images at once than fit
            one = predict(trials, space(a | {"images": a["images"][:1]}))
            fit = room(_models(a)[0].device) // max(one, 1)
            a = a | {"batch_size": int(min(batching.MOST, max(1, fit)))}
        return predict(trials, space(a))

    def _time(self, request: Request, arguments: Arguments) -> float:
        start = self._clock()
        request.function(**arguments)
        return self._clock() - start

    def _weigh(self, request: Request, arguments: Arguments, trials: _Trials) -> float:
        seconds: list[float] = []
        peak = peak_bytes(lambda: seconds.append(self._time(request, arguments)))
        trials.bytes.append((GROWTH[request.measure].space(arguments), peak))
        return seconds[0]

    def _key(self, request: Request) -> tuple[Any, ...]:
        """What trials of a request depend on; models of one architecture are alike."""

        def name(value: Any) -> Any:
            if isinstance(value, Model):
                if value.module not in self._kinds:
                    shapes = [tuple(p.shape) for p in value.module.parameters()]
                    self._kinds[value.module] = f"{value.module} {shapes}"
                return self._kinds[value.module]
            if isinstance(value, Images):
                return value.pixels.shape[1:], None if value.labels is None else value.labels.max()
            if isinstance(value, list):
                return tuple(x.name if isinstance(x, Layer) else x for x in value)
            return value

        own = (name(value) for key, value in request.arguments.items() if key != "seed")
        return (request.measure, len(set(map(id, _models(request.arguments)))), *own)


def _expected(last: tuple[Amounts, float], work: Amounts) -> float:
    """The seconds of a trial with so much work, from those of the last."""
    amounts, seconds = last
    return seconds * work[0] / amounts[0]


def predict(trials: Sequence[tuple[Amounts, float]], amounts: Amounts) -> float:
    """The cost of so much work, where trials tell what it costs.

    trials: the amounts of work of each, and its cost. Prices are at least 0, and fit the trials best in their relative
    errors. With fewer trials than kinds of work, the first kinds take it all.
    """
    count = min(len(trials), len(amounts))
    work, costs = np.array([row[:count] for row, _ in trials], dtype=float), np.array([cost for _, cost in trials])
    if not costs.any():
        return 0.0
    # In units of the work that is asked for, a price is what its kind adds.
    scale = np.array(amounts[:count], dtype=float)
    table = work / np.maximum(costs, costs.max() * 1e-6)[:, None]
    left = [i for i in range(count) if scale[i] > 0]
    while True:
        shares, *_ = np.linalg.lstsq(table[:, left] / table[:, left].max(axis=0), np.ones(len(table)), rcond=None)
        if shares.min() >= 0 or len(left) == 1:
            return float((shares / table[:, left].max(axis=0)) @ scale[left])
        del left[int(shares.argmin())]


# How each measure's cost grows


def _models(a: Arguments) -> list[Model]:
    return [value for value in a.values() if isinstance(value, Model)]


def _batches(a: Arguments) -> tuple[int, float]:
    """How many batches, and how many images in each."""
    count = -(-len(a["images"]) // _batch_size(a))
    return count, len(a["images"]) / count


def _batch_size(a: Arguments) -> int:
    return a["batch_size"] or batching.MOST  # None leaves it to the measure


def _noise(images: Images, n: int, classes: int | None = None) -> Images:
    """n images of the same size and, if there are any, labels as large, or of so many classes that take turns."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, *images.pixels.shape[1:]), dtype=np.uint8)
    if images.labels is None:
        return Images(images.name, pixels)
    return Images(images.name, pixels, np.arange(n) % classes if classes else np.full(n, images.labels.max()))


def _of_sizes(a: Arguments, sizes: Sequence[int]) -> list[Arguments]:
    """The same with fewer images, in a batch at most."""
    most = min(len(a["images"]), _batch_size(a))
    return [a | {"images": _noise(a["images"], n)} for n in sorted({min(n, most) for n in sizes})]


def _forward(a: Arguments) -> float:
    return len(a["images"]) * len(set(map(id, _models(a))))


def _growth(pairs: bool, kept: bool = False) -> Growth:
    """Of a measure that takes batch by batch. pairs: of images of a batch; kept: what it finds of each image."""

    def work(a: Arguments) -> Amounts:
        count, size = _batches(a)
        return (count * size, count, count * size**2) if pairs else (count * size, count)

    def space(a: Arguments) -> Amounts:
        size = len(a["images"]) if kept else _batches(a)[1]
        return (size, 1, size**2) if pairs else (size, 1)

    return Growth(
        work, space,
        timed=lambda a: _of_sizes(a, [SMALLEST * 4**k for k in range(6)]),
        weighed=lambda a: _of_sizes(a, [SMALLEST, 2 * SMALLEST, 3 * SMALLEST]),
        passes=_forward,
    )  # fmt: skip


def _places(a: Arguments) -> list[Any]:
    return receptive_field.places_of(a["model"], a["layers"], a["before_addition"])


def _backward(a: Arguments) -> float:
    """Backward passes of one image: one for each channel of each place."""
    places = _places(a)
    if a["channels"] is not None:
        return len(places) * a["channels"]
    with torch.no_grad(), a["model"].reading([tap for *_, tap in places]) as values:
        a["model"].module(a["model"].blank())
    return sum(a["model"].spatial(z).shape[-1] for z in values)


def _field_work(a: Arguments) -> Amounts:
    count, size = _batches(a)
    backward = _backward(a)
    return count * size * backward, count * size, count * backward, count


def _field_trials(a: Arguments, sizes: Sequence[tuple[int, int]]) -> list[Arguments]:
    """With so many (images, channels), and the first, middle and last place: what a pass costs grows with depth."""
    names = [name for name, *_ in _places(a)]
    some = [names[i] for i in sorted({0, len(names) // 2, len(names) - 1})]
    return [a | {"layers": some, "channels": k, "images": _noise(a["images"], n)} for n, k in sizes]


_FIELDS = Growth(
    work=_field_work,
    space=lambda a: (_batches(a)[1], 1),
    timed=lambda a: _field_trials(a, [(2, 1), (2, 3), (8, 1), (8, 3), (32, 3)]),
    weighed=lambda a: _field_trials(a, [(1, 1), (2, 1), (3, 1)]),
    passes=lambda a: len(a["images"]) * (1 + _backward(a)),
)

_CELLS: weakref.WeakKeyDictionary[nn.Module, tuple[int, int]] = weakref.WeakKeyDictionary()


def _cells(model: Model) -> tuple[int, int]:
    """Of the last layer that is probed: tokens or places, and channels."""
    if model.module not in _CELLS:
        last = (model.blocks or model.layers)[-1]
        shapes = model.reduce(model.blank(), [last], lambda _, z: model.spatial(z).shape[1:])
        rows, columns, channels = shapes[last.name]
        _CELLS[model.module] = rows * columns, channels
    return _CELLS[model.module]


def _probe_work(a: Arguments) -> Amounts:
    """Images and batches of the forward passes, operations and number of the equations."""
    n, C = len(a["images"]), len(np.unique(a["images"].labels))
    places, D = _cells(a["model"])
    train, validation, test = a["shots"] * C, n / 5, 2 * n / 5
    r = min(train, D)
    regression = 2 * D * r * (2 * train + validation + test) + EIGH * r**3
    prediction = 2 * r * C * (len(probes.STRENGTHS) * validation + test)
    readouts = probes.readouts_of(a["model"], a["readouts"])
    layers = a["model"].blocks or a["model"].layers if a["layers"] is None else a["layers"]
    solved = len(layers) * a["draws"]
    probed = sum(places if readout == "token" else 1 for readout in readouts)
    return n, solved * probed * (regression + prediction), solved * len(readouts), _batches(a)[0]


def _probe_trial(a: Arguments, classes: int, shots: int, draws: int, batch_size: int) -> Arguments:
    """With as few images as so many shots of so many classes take."""
    images = _noise(a["images"], classes * max(-(-5 * shots // 2), 5), classes)
    return a | {"images": images, "shots": shots, "draws": draws, "batch_size": batch_size}


def _probe_trials(a: Arguments) -> list[Arguments]:
    classes, size = min(10, len(np.unique(a["images"].labels))), a["batch_size"]
    few, all_ = min(2, a["shots"]), a["shots"]
    sizes = [(2, 1, 1), (classes, few, 1), (classes, all_, 1), (classes, all_, 3)]
    return [_probe_trial(a, *numbers, size) for numbers in sizes]


_PROBES = Growth(
    work=_probe_work,
    space=lambda a: (len(a["images"]), _batches(a)[1], 1),
    timed=_probe_trials,
    weighed=lambda a: [_probe_trial(a, 2, *numbers) for numbers in ((1, 1, 2), (1, 1, 10), (4, 1, 10))],
    passes=_forward,
)

GROWTH = {
    "accuracy.accuracy": _growth(pairs=False),
    "attention.attention_maps": _growth(pairs=False, kept=True),
    "attention.head_distances": _growth(pairs=False),
    "attention.head_subset_similarity": _growth(pairs=True),
    "cka.layer_similarity": _growth(pairs=True),
    "localization.layer_patch_similarity": _growth(pairs=True),
    "localization.patch_patch_similarity": _growth(pairs=True),
    "localization.token_patch_similarity": _growth(pairs=True),
    "probes.layer_probes": _PROBES,
    "receptive_field.effective_receptive_fields": _FIELDS,
    "residual.skip_ratios": _growth(pairs=False),
}
"""All measures that a notebook may call."""
