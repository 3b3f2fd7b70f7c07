"""Trains models of the zoo side by side on one CUDA GPU: twelve small ViTs in the time of about four.

    python scripts/train_side_by_side.py zoo/vit-gap zoo/vit-cls-data-10 ...

Recipe, shape, optimizer and schedule are those of `vitcnn train`, and so are the checkpoints: what was interrupted goes
on here or there. Such small models keep a GPU waiting for the CPU. So a step is recorded once as a CUDA graph and
replayed, each model in a stream of its own; Muon handles matrices of one shape together; and the random numbers of a
pass (which images, crops, boxes, patches) are drawn before it, by other processes. The log's accuracy and head
distances are measured on the CPU meanwhile, one process a model.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm.optim.muon as timm_muon
import torch
from timm.data.mixup import cutmix_bbox_and_lam
from torch import Tensor, nn
from tqdm import tqdm

from vitcnn_utils import zoo
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images
from vitcnn_utils.zoo import trainer
from vitcnn_utils.zoo.architectures import CLASSES, IMAGE_SIZE, PATCH_SIZE
from vitcnn_utils.zoo.recipes import WATCHED, Recipe, find_recipe

PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2


def muon(params: list[Tensor], grads: list[Tensor], momentum_bufs: list[Tensor], *, lr: Any, **options: Any) -> None:
    """timm's `muon` for 2-D and flattened weights: the matrices of one shape are orthogonalized together."""
    torch._foreach_mul_(params, 1 - lr * options["weight_decay"])
    torch._foreach_lerp_(momentum_bufs, grads, 1 - options["momentum"])
    nesterov = torch._foreach_lerp(grads, momentum_bufs, options["momentum"]) if options["nesterov"] else momentum_bufs
    coefficients = timm_muon.resolve_ns_coefficients(options["ns_coefficients"], timm_muon._COEFFICIENTS)
    members = defaultdict(list)
    for index, update in enumerate(nesterov):
        members[len(update), update[0].numel()].append(index)
    for shape, indices in members.items():
        stack = torch.stack([nesterov[i].reshape(shape) for i in indices])
        stack = timm_muon.zeropower_via_newtonschulz(
            stack, options["ns_steps"], coefficients, eps=options["eps"], safety_factor=options["safety_factor"],
            scale_eps=options["scale_eps"],
        )  # fmt: skip
        scaled = stack.float() * (-lr * timm_muon.get_lr_scale(stack.shape, options["adjust_lr_fn"]))
        updates = [update.reshape(params[i].shape) for i, update in zip(indices, scaled, strict=True)]
        torch._foreach_add_([params[i] for i in indices], updates)


def draw(recipe: Recipe, epoch: int, first: int, count: int, size: int) -> dict[str, np.ndarray]:
    """The random numbers of the `count` steps of a pass, from step `first` on: which images of `size`, and the rest."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed * 10_000 + epoch)
    np.random.seed(recipe.seed * 10_000 + epoch)  # timm's Mixup draws from it
    mix = trainer.mixup(recipe)
    B = recipe.batch_size
    batches = list(trainer.batches(size, count, B, torch.device("cpu")))
    dy, dx = torch.randint(0, 2 * recipe.crop_padding + 1, (2, count, B))
    plan = {"images": torch.stack(batches), "dy": dy, "dx": dx, "mirrored": torch.rand(count, B) < 0.5,
            "box": torch.zeros(count, 4, dtype=torch.long), "share": torch.ones(count)}  # fmt: skip
    for i in range(count):
        small = recipe.family == "resnet" and recipe.is_cheap(first + i)
        side = recipe.small_size if small else IMAGE_SIZE
        share, mixed = mix._params_per_batch()
        if mixed:
            box, share = cutmix_bbox_and_lam((B, 3, side, side), share)
            plan["box"][i], plan["share"][i] = torch.tensor([int(edge) for edge in box]), float(share)
    if recipe.patch_drop:
        kept = max(1, int(PATCHES * (1 - recipe.patch_drop)))
        plan["patches"] = torch.rand(count, B, PATCHES).argsort(-1)[..., :kept].to(torch.int16).contiguous()
    return {key: value.numpy() for key, value in plan.items()}


def watch(name: str, recipe: Recipe, tensors: dict[str, Tensor], watched: Images) -> dict[str, Any]:
    """What the log says of a model after a pass; run in a process of its own."""
    torch.set_num_threads(1)
    run = trainer.Run(name, recipe, Path(os.devnull), "cpu")
    run.model.load_state_dict(tensors)
    return run.watch(watched)


class GivenPatches(nn.Module):
    """timm's PatchDropout, but that the patches to keep are given."""

    def __init__(self, prefix_tokens: int) -> None:
        super().__init__()
        self.prefix_tokens, self.kept = prefix_tokens, torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, self.prefix_tokens :]
        patches = patches.gather(1, self.kept.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        return torch.cat((x[:, : self.prefix_tokens], patches), dim=1)


@dataclass
class Pass:
    """A pass that is queued on the device."""

    row: dict[str, Any]
    steps: int
    loss: Tensor
    hits: Tensor
    tensors: dict[str, Tensor]
    host: dict[str, Tensor]  # what it was given; kept until it has been copied
    end: Any
    seen: "Future[dict[str, Any]] | None" = None


class GraphRun(trainer.Run):
    """A training run whose step is one call, all of it on the device."""

    def __init__(self, name: str, recipe: Recipe, stem: Path, device: str, images: Tensor, labels: Tensor) -> None:
        super().__init__(name, recipe, stem, device)
        self.images, self.labels = images, labels
        self.epoch, self.end = len(self.log), self.step
        self.passes: list[Pass] = []
        self.ordered: list[tuple[int, Future[dict[str, np.ndarray]]]] = []
        self.stream = torch.cuda.Stream() if device == "cuda" else None
        rates = [self.schedule._get_lr(step)[0] for step in range(recipe.steps)]
        self.rates = torch.tensor(rates, dtype=torch.float32, device=device)
        self.rate, self.loss_sum, self.hits = (torch.zeros((), device=device) for _ in range(3))
        self.at, self.total = (torch.zeros(1, dtype=torch.long, device=device) for _ in range(2))
        self.optimizer.defaults["capturable"] = device == "cuda"
        for group in self.optimizer.param_groups:
            group["lr"], group["capturable"] = self.rate, device == "cuda"
        for state in self.optimizer.state.values():  # of a checkpoint; a graph reads nothing from the CPU
            state["use_muon"] = bool(state["use_muon"])
            if "step" in state:
                state["step"] = state["step"].to(device)
        smoothing = recipe.label_smoothing
        self.targets = torch.full((CLASSES, CLASSES), smoothing / CLASSES, device=device)
        self.targets.fill_diagonal_(1 - smoothing + smoothing / CLASSES)
        self.given = GivenPatches(getattr(self.model, "num_prefix_tokens", 0))
        self.forward = self.model  # not compiled: the whole step is recorded
        for module in self.model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # plain products, as on a CPU

    def patch_dropout(self) -> nn.Module:
        """In place of timm's, which draws."""
        return self.given

    def body(self, cheap: bool) -> None:
        """One step, with the random numbers at `at`."""
        self.rate.copy_(self.rates.index_select(0, self.total)[0])
        given = {key: value.index_select(0, self.at)[0] for key, value in self.plan.items()}
        if "patches" in given:
            self.given.kept = given["patches"].long()
        labels, x = self.labels[given["images"]], trainer.normalize(self.images[given["images"]])
        shifts = (given[key][:, None] for key in ("dy", "dx", "mirrored"))
        x = self.cheapen(trainer.shift(x, self.recipe.crop_padding, *shifts), cheap)
        place = torch.arange(x.shape[-1], device=x.device)
        top, bottom, left, right = given["box"].unbind()
        box = ((place >= top) & (place < bottom))[:, None] & ((place >= left) & (place < right))
        x = torch.where(box, x.flip(0), x)
        target = self.targets[labels]
        target = target * given["share"] + target.flip(0) * (1 - given["share"])
        loss, hits = self.learn(x, target, labels)
        self.loss_sum += loss
        self.hits += hits
        self.at += 1
        self.total += 1

    def record(self) -> None:
        """Make the two kinds of step; the steps that this takes leave no trace."""
        before = {key: value.clone() for key, value in self.tensors().items()}
        longest = self.recipe.steps - self.recipe.end(self.recipe.epochs - 2)  # the last pass
        plan = draw(self.recipe, 0, 0, longest, len(self.labels))
        self.plan = {key: torch.from_numpy(value).to(self.device) for key, value in plan.items()}
        self.model.train()
        self.steps = {}
        for cheap in (True, False):
            if self.stream is None:
                self.body(cheap)
                self.steps[cheap] = lambda cheap=cheap: self.body(cheap)
                continue
            torch.cuda.synchronize()
            with torch.cuda.stream(self.stream):
                for _ in range(3):
                    self.body(cheap)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream):
                self.body(cheap)
            self.steps[cheap] = graph.replay
        for key, value in self.tensors().items():
            # What the optimizer had not made yet starts at zero.
            value.copy_(before[key]) if key in before else value.zero_()
        self.total.fill_(self.step)
        if self.stream is not None:
            torch.cuda.synchronize()

    def order(self, pool: ProcessPoolExecutor) -> None:
        """Have the random numbers of the next pass drawn."""
        recipe, epoch = self.recipe, self.epoch + len(self.ordered)
        if epoch < recipe.epochs:
            first, end = recipe.end(epoch - 1), recipe.end(epoch)
            self.ordered.append((end, pool.submit(draw, recipe, epoch, first, end - first, len(self.labels))))

    def begin(self, pool: ProcessPoolExecutor) -> None:
        """Queue the start of a pass: its random numbers, and sums at zero."""
        self.end, drawn = self.ordered.pop(0)
        self.epoch += 1
        self.order(pool)
        self.host = {key: torch.from_numpy(value) for key, value in drawn.result().items()}
        if self.stream is not None:
            self.host = {key: value.pin_memory() for key, value in self.host.items()}
        for key, value in self.host.items():
            self.plan[key][: len(value)].copy_(value, non_blocking=True)
        for sums in (self.at, self.loss_sum, self.hits):
            sums.zero_()

    def queue_step(self) -> None:
        """Queue one step; after the last of a pass, a copy of all that it came to."""
        self.steps[self.recipe.is_cheap(self.step)]()
        self.step += 1
        if self.step == self.end:
            tensors = {key: value.clone() for key, value in self.tensors().items()}
            end = torch.cuda.Event() if self.stream is not None else None
            if end is not None:
                end.record()
            row = {"epoch": self.epoch, "step": self.step}
            sums = self.loss_sum.clone(), self.hits.clone()
            self.passes.append(Pass(row, len(self.host["share"]), *sums, tensors, self.host, end))

    def report(self, pool: ProcessPoolExecutor, watched: Images, seconds: float, cpu_seconds: float) -> None:
        """For passes that have ended: have them watched, then write log and checkpoint."""
        for each in self.passes:
            if each.seen is None and (each.end is None or each.end.query()):
                each.row |= {"loss": round(each.loss.item() / each.steps, 4),
                             "train_accuracy": round(each.hits.item() / each.steps / self.recipe.batch_size, 4),
                             "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}  # fmt: skip
                each.tensors = {key: value.cpu() for key, value in each.tensors.items()}
                model = {key.removeprefix("model."): v for key, v in each.tensors.items() if key.startswith("model.")}
                each.seen = pool.submit(watch, self.name, self.recipe, model, watched)
        while self.passes and self.passes[0].seen is not None and self.passes[0].seen.done():
            first = self.passes.pop(0)
            seen = first.seen.result()  # type: ignore[union-attr]
            order = "epoch", "step", "loss", "train_accuracy", *seen, "seconds", "cpu_seconds"
            self.log.append({key: (first.row | seen)[key] for key in order})
            step, self.step = self.step, first.row["step"]
            self.seconds, self.cpu_seconds = first.row["seconds"], first.row["cpu_seconds"]
            self.keep(first.tensors)
            self.step = step


def train(runs: list[GraphRun], watched: Images) -> None:
    """Train all to their ends, a step of each in turn."""
    context = multiprocessing.get_context("spawn")  # a process with CUDA must not fork
    with (
        ProcessPoolExecutor(2 + len(runs) // 4, context) as drawing,
        ProcessPoolExecutor(len(runs), context) as watching,
    ):
        for run in runs:
            run.order(drawing)
        start, before = time.perf_counter(), {run.name: (run.seconds, run.cpu_seconds) for run in runs}
        bar = tqdm(total=sum(run.recipe.steps - run.step for run in runs), unit="step", mininterval=10)
        fences: list[list[Any]] = []
        while any(run.step < run.recipe.steps or run.passes for run in runs):
            for run in runs:
                seconds, cpu_seconds = before[run.name]
                run.report(watching, watched, seconds + time.perf_counter() - start,
                           cpu_seconds + time.process_time() / len(runs))  # fmt: skip
                if run.step < run.recipe.steps:
                    with nullcontext() if run.stream is None else torch.cuda.stream(run.stream):
                        if run.step == run.end:
                            run.begin(drawing)
                        run.queue_step()
                    bar.update()
            # Never far ahead of the device: a full queue of one model would hold up those of the others.
            fences.append([run.stream.record_event() for run in runs if run.stream is not None])
            if len(fences) > 20:
                for event in fences.pop(0):
                    event.synchronize()
        bar.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="such as zoo/vit-cls")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as parquet files")
    parser.add_argument("--out", type=Path, default=zoo.FOLDER)
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu is for tests")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU here: use `vitcnn train`")
    try:
        train_all(given.names, given.data or trainer.find_cifar10(), given.out, given.runs, given.device)
    except VitcnnError as error:
        sys.exit(str(error))


def train_all(names: list[str], data: Path, out: Path, runs: Path, device: str) -> None:
    """Train those that have no card of their recipe in `out`, then write weights, cards and logs."""
    timm_muon.muon = muon
    recipes = {name: find_recipe(name) for name in names}
    recipes = {name: recipe for name, recipe in recipes.items() if not trainer.is_trained(name, recipe, out)}
    if not recipes:
        return
    images, labels = trainer.read_cifar10(data, "train")
    test = trainer.read_test(data)
    side_by_side = []
    with ExitStack() as locks:
        for name, recipe in recipes.items():
            stem = trainer.run_stem(name, recipe, runs)
            locks.enter_context(trainer.lock(name, stem))
            kept = trainer.balanced_subset(labels, recipe.data_fraction, recipe.seed)
            run = GraphRun(name, recipe, stem, device, images[kept].to(device), labels[kept].to(device))
            run.record()
            side_by_side.append(run)
        train(side_by_side, test[:WATCHED])
        for run in side_by_side:
            command = f"python scripts/train_side_by_side.py {run.name}"
            trainer.finish(run, command, len(run.labels), test, out / run.name.removeprefix("zoo/"))


if __name__ == "__main__":
    main()
