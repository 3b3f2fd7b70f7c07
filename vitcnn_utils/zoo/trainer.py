"""Trains the zoo: one loop, on the CPU, CUDA or MPS, that stops and resumes at any epoch."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from scipy.stats import binomtest
from timm.data import Mixup
from timm.layers import PatchDropout
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from vitcnn_utils import hub
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import alone, replace_text, replacing
from vitcnn_utils.images import Images, read_parquet
from vitcnn_utils.measures.accuracy import accuracy
from vitcnn_utils.measures.attention import head_distances
from vitcnn_utils.models.facts import Model, describe
from vitcnn_utils.provenance import commit
from vitcnn_utils.zoo.architectures import CLASSES, IMAGE_SIZE, MEAN, STD, build
from vitcnn_utils.zoo.recipes import WATCHED, Recipe


def train(name: str, recipe: Recipe, data: Path, out: Path, runs: Path, device: str = "cpu") -> Path:
    """Train one zoo model, then replace its weights, card and log in `out` together.

    After every epoch it leaves a checkpoint and the log in `runs`, in files that also name the recipe; called again,
    it goes on from there with the random numbers it would have drawn. A model whose card is of this recipe is not
    trained again. VitcnnError where another process trains the same.

    The log's held-out accuracy is that of the first test images; nothing is chosen by it: the last weights are kept.
    data: folder with CIFAR-10 as parquet, `train-*.parquet` and `test-*.parquet`.
    Returns the path of the weights, fp16 safetensors.
    """
    short_name, stem = name.removeprefix("zoo/"), run_stem(name, recipe, runs)
    with lock(name, stem):
        if not is_trained(name, recipe, out):
            _train(name, recipe, data, out / short_name, stem, device)
    return out / f"{short_name}.safetensors"


def run_stem(name: str, recipe: Recipe, runs: Path) -> Path:
    """What the files of a training that has not ended are called, without their suffixes."""
    text = json.dumps(asdict(recipe), sort_keys=True)
    return runs / f"{name.removeprefix('zoo/')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def lock(name: str, stem: Path) -> AbstractContextManager[None]:
    """So that one process alone trains a model; VitcnnError where another does. stem: see `run_stem`."""
    return alone(stem.with_suffix(".lock"), f"another `vitcnn train` is at work on {name} in {stem.parent}")


def is_trained(name: str, recipe: Recipe, out: Path) -> bool:
    """Whether the card of a model in `out` says that it was trained by this recipe."""
    card = out / (name.removeprefix("zoo/") + ".json")
    return card.exists() and json.loads(card.read_text())["recipe"] == asdict(recipe)


def _train(name: str, recipe: Recipe, data: Path, stem: Path, kept: Path, device: str) -> None:
    images, labels = read_cifar10(data, "train")
    keep = balanced_subset(labels, recipe.data_fraction, recipe.seed)
    test = read_test(data)
    run = Run(name, recipe, kept, device)
    run.fit(images[keep].to(device), labels[keep].to(device), test[:WATCHED])
    finish(run, f"vitcnn train {name}", len(keep), test, stem)


def finish(run: "Run", command: str, training_images: int, test: Images, stem: Path) -> None:
    """Write weights, card and log of a run that is at its end, all at once, and remove its checkpoint."""
    recipe, model = run.recipe, run.model
    half = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    half = {key: value.cpu().contiguous() for key, value in half.items()}
    model.load_state_dict(half)
    test_accuracy = accuracy(run.as_model(), test, batch_size=500)
    weights = save(half)
    card = {
        "name": run.name,
        "command": command,
        "recipe": asdict(recipe),
        "training_images": training_images,
        "passes": recipe.epochs,
        "steps": recipe.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "test_accuracy": test_accuracy,
        "test_accuracy_interval": wilson_interval(test_accuracy, len(test)),
        "minutes": round(run.seconds / 60, 1),
        "cpu_minutes": round(run.cpu_seconds / 60, 1),
        "images_per_second": round(recipe.steps * recipe.batch_size / run.seconds),
        "device": describe_device(run.device),
        "commit": commit(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    with (
        replacing(stem.with_suffix(".json")) as new_card,  # last to be put in place: it says that the rest is there
        replacing(stem.with_suffix(".log.jsonl")) as new_log,
        replacing(stem.with_suffix(".safetensors")) as new_weights,
    ):
        new_weights.write_bytes(weights)
        new_log.write_text(lines(run.log))
        new_card.write_text(json.dumps(card, indent=1) + "\n")
    for path in run.files():
        path.unlink()


def tune(name: str, recipe: Recipe, data: Path, record: Path, device: str = "cpu") -> float:
    """Train with a recipe on 45,000 training images; the accuracy on the other 5,000, which is added to `record`.

    For choices between recipes: the test images play no part in it. Not resumable, writes no weights.
    """
    images, labels = read_cifar10(data, "train")
    # The last tenth of each class in a fixed order of its own, whatever the seed of the recipe.
    training = balanced_subset(labels, 0.9, seed=0)
    held_out = torch.ones(len(labels), dtype=torch.bool)
    held_out[training] = False
    training = training[balanced_subset(labels[training], recipe.data_fraction, recipe.seed)]
    # Shuffled, as the training images may lie sorted by class, and the log is of the first ones.
    order = held_out.nonzero().flatten()
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(0))]
    judges = Images("CIFAR-10, held out", images[order].numpy(), labels[order].numpy())
    with tempfile.TemporaryDirectory() as folder:
        run = Run(name, recipe, Path(folder) / "tune", device)
        run.fit(images[training].to(device), labels[training].to(device), judges[:WATCHED])
    result = accuracy(run.as_model(), judges, batch_size=500)
    row = {"name": name, "recipe": asdict(recipe), "held_out_accuracy": result, "minutes": round(run.seconds / 60, 1),
           "cpu_minutes": round(run.cpu_seconds / 60, 1), "device": describe_device(device), "commit": commit(),
           "log": run.log}  # fmt: skip
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a") as file:
        file.write(lines([row]))
    return result


class Run:
    """One training run: what must be kept to go on after an interruption."""

    def __init__(self, name: str, recipe: Recipe, stem: Path, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.name, self.recipe, self.device, self.stem = name, recipe, device, stem
        self.model: Any = build(recipe).to(device)
        if recipe.family == "resnet":
            self.model.to(memory_format=torch.channels_last)
        module: Any
        for module in self.model.modules():
            if hasattr(module, "fused_attn"):
                # The fused kernel is about twice as slow as plain products for 65 tokens on a CPU.
                module.fused_attn = device != "cpu"
        self.optimizer = create_optimizer_v2(
            self.model, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.schedule = CosineLRScheduler(
            self.optimizer, t_initial=recipe.steps, warmup_t=int(recipe.warmup_fraction * recipe.steps),
            warmup_prefix=False, t_in_epochs=False,
        )  # fmt: skip
        self.mix = mixup(recipe)
        # Compiling was measured to slow these small models down on a CPU.
        self.forward = torch.compile(self.model) if device.startswith("cuda") else self.model
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.log: list[dict[str, Any]] = []
        if self.files()[0].exists():
            self._restore()

    def files(self) -> list[Path]:
        """All that a run keeps: the checkpoint, and the log, to be read while it trains."""
        return [self.stem.with_suffix(".checkpoint.safetensors"), self.stem.with_suffix(".log.jsonl")]

    def fit(self, images: Tensor, labels: Tensor, watched: Images) -> None:
        """Train to the end; `watched` are the held-out images of the log."""
        recipe = self.recipe
        bar = tqdm(total=recipe.steps, initial=self.step, desc=self.name, unit="step", mininterval=60)
        while self.step < recipe.steps:
            epoch = len(self.log)
            # All randomness of an epoch follows from its number, so a resumed run draws the same.
            torch.manual_seed(recipe.seed * 10_000 + epoch)
            np.random.seed(recipe.seed * 10_000 + epoch)  # timm's Mixup draws from it
            end = recipe.end(epoch)
            start_time, start_cpu, start = time.perf_counter(), time.process_time(), self.step
            loss_sum, correct = (torch.zeros((), device=self.device) for _ in range(2))
            self.model.train()
            for batch in batches(len(labels), end - self.step, recipe.batch_size, images.device):
                x = augment(images[batch], recipe.crop_padding)
                loss, hits = self._optimize(x, labels[batch])
                # Added up on the device: reading them here would make the CPU wait at every step.
                loss_sum += loss
                correct += hits
                bar.update()
            row = {"epoch": epoch + 1, "step": self.step, "loss": round(loss_sum.item() / (end - start), 4),
                   "train_accuracy": round(correct.item() / (end - start) / recipe.batch_size, 4),
                   **self.watch(watched)}  # fmt: skip
            self.seconds += time.perf_counter() - start_time
            self.cpu_seconds += time.process_time() - start_cpu
            self.log.append({**row, "seconds": round(self.seconds, 1), "cpu_seconds": round(self.cpu_seconds, 1)})
            self.keep(self.tensors())
        bar.close()

    def as_model(self) -> Model:
        """The model as measures take it."""
        size = (IMAGE_SIZE, IMAGE_SIZE)
        model = Model(self.name, self.model.eval(), torch.device(self.device), size, MEAN, STD, CLASSES)
        describe(model)
        return model

    def _optimize(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step; the loss and the number of images that were classified right."""
        self.schedule.step_update(self.step)
        x, target = self.mix(self.cheapen(x, self.recipe.is_cheap(self.step)), labels)
        self.step += 1
        return self.learn(x, target, labels)

    def learn(self, x: Tensor, target: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward and the optimizer; the loss and the number of images that were classified right."""
        # Each weight is used once, so a cache of casts saves nothing, and it would not outlive a CUDA graph.
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            logits = self.forward(x)
        loss = F.cross_entropy(logits.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad_norm)
        self.optimizer.step()
        return loss.detach(), (logits.argmax(-1) == labels).sum()

    def cheapen(self, x: Tensor, cheap: bool) -> Tensor:
        """Leave out what cheap steps leave out: patches inside the ViT, pixels of the ResNet's images."""
        recipe = self.recipe
        if recipe.family != "resnet":
            self.model.patch_drop = self.patch_dropout() if cheap and recipe.patch_drop else nn.Identity()
        elif cheap and recipe.small_size < IMAGE_SIZE:
            x = F.interpolate(x, recipe.small_size, mode="bilinear", antialias=True)
        return x

    def patch_dropout(self) -> nn.Module:
        """What leaves patches out inside the ViT."""
        return PatchDropout(self.recipe.patch_drop, self.model.num_prefix_tokens)

    def watch(self, watched: Images) -> dict[str, Any]:
        """Accuracy on held-out images as they are, and how far each head looks on 256 of them, in pixels, by block."""
        model = self.as_model()
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            row: dict[str, Any] = {"held_out_accuracy": round(accuracy(model, watched, batch_size=128), 4)}
        if self.recipe.family != "resnet":
            distances = head_distances(model, watched[:256], batch_size=64)["distance"]
            row["head_distances"] = distances.values.round(2).tolist()
        return row

    def tensors(self) -> dict[str, Tensor]:
        """All that the model and the optimizer hold."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        return tensors

    def keep(self, tensors: dict[str, Tensor]) -> None:
        """Write the checkpoint and the log."""
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
        tensors["progress"] = torch.tensor([self.step, self.seconds, self.cpu_seconds], dtype=torch.float64)
        checkpoint, log = self.files()
        with replacing(checkpoint) as partial:
            save_file(tensors, partial, {"log": json.dumps(self.log)})
        replace_text(log, lines(self.log))

    def _restore(self) -> None:
        path = self.files()[0]
        with safe_open(path, framework="pt") as checkpoint:
            self.log = json.loads(checkpoint.metadata()["log"])
        tensors = load_file(path)
        step, self.seconds, self.cpu_seconds = tensors.pop("progress").tolist()
        self.step = int(step)
        self.model.load_state_dict(_under("model.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, field = key.split(".", 2)
                state.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def mixup(recipe: Recipe) -> Mixup:
    """CutMix with the probability of a recipe, and its label smoothing."""
    return Mixup(
        mixup_alpha=0.0, cutmix_alpha=1.0, prob=recipe.cutmix, label_smoothing=recipe.label_smoothing,
        num_classes=CLASSES,
    )  # fmt: skip


def batches(size: int, count: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """`count` batches of indices, without replacement until all `size` images have been seen."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(count):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(size)])
        yield order[:batch_size].to(device)
        order = order[batch_size:]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def augment(images: Tensor, padding: int) -> Tensor:
    """Each image shifted by up to `padding` pixels, mirrored or not, and normalised.

    uint8 (B, H, W, 3) to float (B, 3, H, W).
    """
    dy, dx = torch.randint(0, 2 * padding + 1, (2, len(images), 1)).to(images.device)
    mirrored = (torch.rand(len(images), 1) < 0.5).to(images.device)
    return shift(normalize(images), padding, dy, dx, mirrored)


def shift(x: Tensor, padding: int, dy: Tensor, dx: Tensor, mirrored: Tensor) -> Tensor:
    """Each image as if cut out of itself after padding, `dy` below and `dx` right of the corner, mirrored or not.

    x: (B, 3, H, W); dy, dx, mirrored: (B, 1).
    """
    B, C, H, W = x.shape
    images, channels, height, width = (torch.arange(n, device=x.device) for n in (B, C, H, W))
    columns = width + dx
    columns = torch.where(mirrored, columns.flip(1), columns)[:, None, None, :]
    x = F.pad(x, [padding] * 4)
    return x[images[:, None, None, None], channels[:, None, None], (height + dy)[:, None, :, None], columns]


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W), channels at mean 0 and standard deviation 1."""
    mean, std = _statistics(images.device)
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    # Copied to a device once: a copy from the CPU cannot be part of a CUDA graph.
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return mean, std


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was measured on `count` images (Wilson 1927)."""
    interval = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return interval.low, interval.high


def balanced_subset(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Indices of a class-balanced part of the training images; smaller parts lie in larger ones."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for label in range(CLASSES):
        members = (labels == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator)]
        parts.append(shuffled[: round(fraction * len(members))])
    return torch.cat(parts)


def find_cifar10() -> Path:
    """A folder with CIFAR-10 as parquet: $VITCNN_DATA, data/cifar10, else from the hub."""
    folders = [Path("data/cifar10")]
    if "VITCNN_DATA" in os.environ:
        folders.insert(0, Path(os.environ["VITCNN_DATA"]))
    for folder in folders:
        if any(folder.glob("train-*.parquet")):
            return folder
    try:
        for split in ("train", "test"):
            file = f"plain_text/{split}-00000-of-00001.parquet"
            path = hub.fetch("uoft-cs/cifar10", file, repo_type="dataset")
        return path.parent
    except Exception as error:  # the hub's client raises errors of several libraries, httpx and requests among them
        raise VitcnnError(
            f"no CIFAR-10: not in {', '.join(map(str, folders))}, and the hub's uoft-cs/cifar10 could not be fetched "
            f"({hub.reason(error)}): give the folder of its train-*.parquet and test-*.parquet with --data"
        ) from error


def read_test(folder: Path) -> Images:
    """The test images of CIFAR-10."""
    images, labels = (part.numpy() for part in read_cifar10(folder, "test"))
    return Images("CIFAR-10, test", images, labels)


def read_cifar10(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """All images of a split, uint8 (N, 32, 32, 3), and their labels."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise VitcnnError(f"no {split}-*.parquet in {folder}: give the folder of CIFAR-10 in parquet with --data")
    parts = [read_parquet(path) for path in paths]
    return (
        torch.cat([torch.from_numpy(images) for images, _ in parts]),
        torch.cat([torch.from_numpy(labels) for _, labels in parts]),
    )


def describe_device(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores"


def lines(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
