"""Slow, plain float64 formulas to test the fast ones against, and small models whose answers are known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.models.trace import Tap


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC₁ of Song et al. (2012), equation 5, term by term; x: (n, p), y: (n, q)."""
    n = len(x)
    K, L = x.astype(np.float64) @ x.astype(np.float64).T, y.astype(np.float64) @ y.astype(np.float64).T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    trace = total_k = total_l = cross = 0.0
    for i in range(n):
        for j in range(n):
            trace += K[i, j] * L[j, i]
            total_k += K[i, j]
            total_l += L[i, j]
        cross += K[:, i].sum() * L[i, :].sum()
    return (trace + total_k * total_l / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)) / (n * (n - 3))


def cka(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    """Unbiased CKA of minibatches: each HSIC₁ is summed over them before the ratio."""
    pairs = list(zip(xs, ys, strict=True))
    between, within_x, within_y = (
        sum(hsic(a, b) for a, b in p) for p in (pairs, [(x, x) for x in xs], [(y, y) for y in ys])
    )
    return between / np.sqrt(within_x * within_y)


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.sum((x.T @ y) ** 2) / np.sqrt(np.sum((x.T @ x) ** 2) * np.sum((y.T @ y) ** 2)))


def noise_images(n: int, size: int = 32, classes: int | None = None, seed: int = 0) -> Images:
    """Images whose pixels are all independent; labels, if any, are too, and classes equally large."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    labels = None if classes is None else rng.permutation(np.arange(n) % classes)
    return Images("noise", pixels, labels)


def model_of(module: nn.Module, layers: dict[str, nn.Module], size: int = 32) -> Model:
    """A model whose activations are maps (B, C, H, W); pixels are prepared to -1..1."""
    named = [
        Layer(name, "block", i, i / max(len(layers) - 1, 1), Tap(part)) for i, (name, part) in enumerate(layers.items())
    ]
    half = (0.5, 0.5, 0.5)
    return Model("hand-made", module.eval(), torch.device("cpu"), (size, size), half, half, 10, layers=named)


def patch_copier(patch: int = 4) -> Model:
    """A model whose map has at each location the pixels of the patch there, and nothing else."""
    module = nn.Conv2d(3, 3 * patch**2, patch, patch, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.eye(3 * patch**2).reshape(module.weight.shape))
    return model_of(module, {"copy": module})


@contextmanager
def left_as_it_was(model: Model) -> Iterator[None]:
    """Fails if hooks, mode, gradients, gradient flags, fused-attention flags or weights differ at the end."""
    before = _state(model.module)
    yield
    assert _state(model.module) == before


def _state(module: nn.Module) -> dict[str, Any]:
    parts = {
        name: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), getattr(m, "fused_attn", None))
        for name, m in module.named_modules()
    }
    weights = {
        name: (p.requires_grad, p.grad is None, p._version, float(p.detach().double().nan_to_num().sum()))
        for name, p in module.named_parameters()
    }
    return parts | weights | {"grad enabled": torch.is_grad_enabled()}
