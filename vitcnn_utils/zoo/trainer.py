"""Trains the zoo: one loop, on the CPU, CUDA or MPS, that stops and resumes at any epoch."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import functional as tv
from tqdm import tqdm

from vitcnn_utils import hub
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import alone, replace_text, replacing
from vitcnn_utils.images import Images, read_parquet
from vitcnn_utils.measures.accuracy import accuracy
from vitcnn_utils.models.facts import Model
from vitcnn_utils.zoo.architectures import CLASSES, IMAGE_SIZE, MEAN, STD, build
from vitcnn_utils.zoo.recipes import SHORT, Recipe

CHECKPOINT = ".checkpoint.safetensors"


def train(name: str, recipe: Recipe, data: Path, out: Path, device: str = "cpu") -> Path:
    """Train one zoo model and write its weights, card and log into `out`.

    Interrupted, it leaves `out/NAME.checkpoint.safetensors`; called again, it goes on from there
    with the random numbers it would have drawn. A model whose card is there is not trained again.
    VitcnnError where another process trains it in `out`, or began to by another recipe and did not end.

    data: folder with CIFAR-10 as parquet, `train-*.parquet` and `test-*.parquet`.
    Returns the path of the weights, fp16 safetensors.
    """
    stem = out / name.removeprefix("zoo/")
    lock, card = (stem.with_name(stem.name + suffix) for suffix in (".lock", ".json"))
    with alone(lock, f"another `vitcnn train` is at work on {name} in {out}"):
        if not card.exists() or Recipe(**json.loads(card.read_text())["recipe"]) != recipe:
            replace_text(card, json.dumps(_train(name, recipe, data, stem, device), indent=1) + "\n")
            stem.with_name(stem.name + CHECKPOINT).unlink()
        with suppress(OSError):  # Windows keeps what is open; an empty file is left then
            lock.unlink()
    return stem.with_name(stem.name + ".safetensors")


def _train(name: str, recipe: Recipe, data: Path, stem: Path, device: str) -> dict[str, Any]:
    """Trains a model and writes its weights; gives its card."""
    images, labels = read_cifar10(data, "train")
    keep = balanced_subset(labels, recipe.data_fraction, recipe.seed)
    images, labels = images[keep].to(device), labels[keep].to(device)
    run = _Run(recipe, stem, device)
    run.fit(name, images, labels)
    model = run.result()

    half = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    half = {key: value.cpu().contiguous() for key, value in half.items()}
    test = read_cifar10(data, "test")
    accuracy_fp32 = _accuracy(name, model, *test)
    model.load_state_dict(half)
    accuracy_fp16 = _accuracy(name, model, *test)
    weights_path = stem.with_name(stem.name + ".safetensors")
    _save(half, weights_path)
    seen = recipe.steps * recipe.batch_size
    return {
        "name": name,
        "command": f"vitcnn train {name}" + (" --short" if recipe == SHORT.get(name) else ""),
        "recipe": asdict(recipe),
        "training_images": len(labels),
        "steps": recipe.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "test_accuracy": accuracy_fp16,
        "test_accuracy_before_fp16": accuracy_fp32,
        "minutes": round(run.seconds / 60, 1),
        "images_per_second": round(seen / run.seconds),
        "flops": operations(model, images[: recipe.batch_size]) * seen / run.seconds,
        "flops_of_a_product": product_speed(device),
        "device": describe_device(device),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "sha256": hashlib.sha256(weights_path.read_bytes()).hexdigest(),
    }


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
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(recipe, Path(folder) / "tune", device)
        run.fit(name, images[training].to(device), labels[training].to(device))
    result = _accuracy(name, run.result(), images[held_out], labels[held_out])
    row = {"name": name, "recipe": asdict(recipe), "held_out_accuracy": result, "minutes": round(run.seconds / 60, 1),
           "device": describe_device(device)}  # fmt: skip
    with record.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    return result


class _Run:
    """One training run: what must be kept to go on after an interruption."""

    def __init__(self, recipe: Recipe, stem: Path, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = device
        self.model = build(recipe).to(device)
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
        self.ema = ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        self.mixup = None
        if recipe.mixup or recipe.cutmix:
            self.mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=CLASSES)
        # Compiling was measured to slow these small models down on a CPU.
        self.forward = torch.compile(self.model) if device.startswith("cuda") else self.model
        self.checkpoint_path = stem.with_name(stem.name + CHECKPOINT)
        self.log_path = stem.with_name(stem.name + ".log.jsonl")
        self.step, self.seconds = 0, 0.0
        if self.checkpoint_path.exists():
            self._restore()

    def fit(self, name: str, images: Tensor, labels: Tensor) -> None:
        recipe = self.recipe
        steps_per_epoch = recipe.steps // recipe.epochs
        bar = tqdm(total=recipe.steps, initial=self.step, desc=name, unit="step", mininterval=5)
        while self.step < recipe.steps:
            epoch = self.step // steps_per_epoch
            # All randomness of an epoch follows from its number, so a resumed run draws the same.
            torch.manual_seed(recipe.seed * 10_000 + epoch)
            np.random.seed(recipe.seed * 10_000 + epoch)  # timm's Mixup draws from it
            end = recipe.steps if epoch + 1 >= recipe.epochs else (epoch + 1) * steps_per_epoch
            start_time, start = time.perf_counter(), self.step
            loss_sum, correct = (torch.zeros((), device=self.device) for _ in range(2))
            self.model.train()
            for batch in _batches(len(labels), end - self.step, recipe.batch_size, images.device):
                x = augment(images[batch], recipe)
                loss, hits = self._optimize(x, labels[batch])
                # Added up on the device: reading them here would make the CPU wait at every step.
                loss_sum += loss
                correct += hits
                bar.update()
            seen = (end - start) * recipe.batch_size
            train_loss, train_accuracy = loss_sum.item() / (end - start), correct.item() / seen
            self.seconds += time.perf_counter() - start_time
            self._log(epoch + 1, train_loss, train_accuracy)
            self._checkpoint()
        bar.close()

    def result(self) -> nn.Module:
        """The trained model: the average over the steps, where the recipe asks for one."""
        return self.ema.module if self.ema else self.model

    def _optimize(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step; the loss and the number of images that were classified right."""
        self.schedule.step_update(self.step)
        x, target = self.mixup(x, labels) if self.mixup else (x, labels)
        smoothing = 0.0 if self.mixup else self.recipe.label_smoothing  # Mixup's targets are smooth already
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            logits = self.forward(x)
        loss = F.cross_entropy(logits.float(), target, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad_norm)
        self.optimizer.step()
        self.step += 1
        if self.ema:
            self.ema.update(self.model, step=self.step)
        return loss.detach(), (logits.argmax(-1) == labels).sum()

    def _log(self, epoch: int, loss: float, train_accuracy: float) -> None:
        row = {"epoch": epoch, "step": self.step, "loss": round(loss, 4), "train_accuracy": round(train_accuracy, 4),
               "seconds": round(self.seconds, 1)}  # fmt: skip
        with self.log_path.open("a" if epoch > 1 else "w") as log:
            log.write(json.dumps(row) + "\n")

    def _checkpoint(self) -> None:
        tensors = {f"model.{k}": v.cpu().contiguous() for k, v in self.model.state_dict().items()}
        if self.ema:
            tensors |= {f"ema.{k}": v.cpu().contiguous() for k, v in self.ema.module.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).cpu().contiguous()
        tensors["progress"] = torch.tensor([self.step, self.seconds], dtype=torch.float64)
        _save(tensors, self.checkpoint_path, {"recipe": self._recipe_text()})

    def _recipe_text(self) -> str:
        return json.dumps(asdict(self.recipe), sort_keys=True)

    def _restore(self) -> None:
        with safe_open(self.checkpoint_path, framework="pt") as checkpoint:
            if (checkpoint.metadata() or {}).get("recipe") != self._recipe_text():
                raise VitcnnError(
                    f"{self.checkpoint_path} is of a training by another recipe, which did not end: "
                    "end that one first, or remove the file"
                )
        tensors = load_file(self.checkpoint_path)
        step, self.seconds = tensors.pop("progress").tolist()
        self.step = int(step)
        self.model.load_state_dict(_under("model.", tensors))
        if self.ema:
            self.ema.module.load_state_dict(_under("ema.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, field = key.split(".", 2)
                state.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _batches(size: int, count: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """`count` batches of indices, without replacement until all `size` images have been seen."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(count):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(size)])
        yield order[:batch_size].to(device)
        order = order[batch_size:]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Augmented and normalised images, drawn for each one apart: uint8 (B, H, W, 3) to float (B, 3, H, W)."""
    if recipe.three_augment:
        images = three_augment(images)
    x, padding = normalize(images), recipe.crop_padding
    B, _, H, W = x.shape
    if padding:
        x = F.pad(x, [padding] * 4)
        dy, dx = torch.randint(0, 2 * padding + 1, (2, B, 1)).to(x.device)
        rows = (torch.arange(H, device=x.device) + dy)[:, None, :, None]
        columns = torch.arange(W, device=x.device) + dx
        columns = torch.where((torch.rand(B, 1) < 0.5).to(x.device), columns.flip(1), columns)[:, None, None, :]
        x = x[torch.arange(B, device=x.device)[:, None, None, None],
              torch.arange(3, device=x.device)[None, :, None, None], rows, columns]  # fmt: skip
    return x


def three_augment(images: Tensor) -> Tensor:
    """Each uint8 (B, H, W, 3) image grey, solarised, blurred or as it is (3-Augment, Touvron et al. 2022)."""
    x = images.permute(0, 3, 1, 2)
    sigma = float(torch.empty(()).uniform_(0.1, 2.0))
    views = [
        x,
        tv.rgb_to_grayscale(x, num_output_channels=3),
        tv.solarize(x, threshold=128),
        tv.gaussian_blur(x, [3, 3], [sigma, sigma]),
    ]
    choice = torch.randint(0, len(views), (len(x), 1, 1, 1)).to(x.device)
    for index, view in enumerate(views):
        x = torch.where(choice == index, view, x)
    return x.permute(0, 2, 3, 1)


def normalize(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W), channels at mean 0 and standard deviation 1."""
    x = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def _accuracy(name: str, module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 (N, 32, 32, 3) images that a model of the zoo classifies right, in fp32."""
    device = next(module.parameters()).device
    model = Model(name, module.eval(), device, (IMAGE_SIZE, IMAGE_SIZE), MEAN, STD, CLASSES)
    return accuracy(model, Images("CIFAR-10", images.numpy(), labels.numpy()), batch_size=500)


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
    """A folder with CIFAR-10 as parquet: $VITCNN_DATA, data/cifar10, ../shared/data/cifar10, else from the hub."""
    folders = [Path("data/cifar10"), Path("../shared/data/cifar10")]
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
            f"no CIFAR-10: not in {', '.join(map(str, folders))}, and the hub's uoft-cs/cifar10 could not be had "
            f"({hub.reason(error)}): give the folder of its train-*.parquet and test-*.parquet with --data"
        ) from error


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


def operations(model: nn.Module, images: Tensor) -> float:
    """Floating-point operations of one training step for one image: matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        model(normalize(images)).sum().backward()
    model.zero_grad()
    return counter.get_total_flops() / len(images)


def product_speed(device: str) -> float:
    """Operations a second of one large bf16 matrix product on the device, the best of five: what it could do."""
    size = 8192 if device.startswith("cuda") else 2048
    a = torch.ones(size, size, dtype=torch.bfloat16, device=device)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def describe_device(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores"


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)
