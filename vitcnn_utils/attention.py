"""Where the heads of a transformer look: mean attention distance (paper, section 5; Figs 3 to 5, C.5, C.6)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from vitcnn_utils.cka import HsicSums, centred_gram, image_attrs, minibatches
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.models import Layer, Model

if TYPE_CHECKING:
    from vitcnn_utils.data import Images

Array = TypeVar("Array", np.ndarray, Tensor)


def patch_distances(grid: tuple[int, int], patch_size: float) -> Tensor:
    """Euclidean distance in pixels between the centres of any two patches, row by row: (S, S)."""
    rows, columns = grid
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    # Not torch.cdist: above 25 rows it takes a short cut through products that loses digits.
    return (place[:, None] - place[None]).square().sum(-1).sqrt() * patch_size


def uniform_distance(grid: tuple[int, int], patch_size: float) -> float:
    """Mean distance in pixels of a head that looks everywhere alike: the mark of a global head.

    >>> round(uniform_distance((14, 14), 16), 1)
    116.5
    """
    return patch_distances(grid, patch_size).mean().item()


def mean_distance(
    weights: Array, grid: tuple[int, int], patch_size: float, prefix_tokens: int = 0, renormalize: bool = False
) -> Array:
    """Mean attention distance in pixels, (..., H), of attention weights (..., H, T, T), queries before keys.

    The mean over all spatial queries i of sum_j A[i, j] * distance(i, j), i = j included. Rows and columns of prefix
    tokens are dropped, as in the public code that the paper's authors credit (PAPER.md, Fig 3). That leaves the mass on
    prefix tokens counted as distance 0: a head that puts a share a there seems (1 - a) times as far-sighted.
    renormalize=True divides each query's weights by their spatial sum instead.

    T must be prefix_tokens + rows * columns of `grid`, VitcnnError otherwise. Gives what it takes, numpy or torch.
    """
    A = torch.as_tensor(weights)
    rows, columns = grid
    T = prefix_tokens + rows * columns
    if A.ndim < 2 or A.shape[-2:] != (T, T):
        raise VitcnnError(
            f"attention weights of shape {tuple(A.shape)} do not fit a {rows} x {columns} grid with {prefix_tokens} "
            f"prefix tokens: the last two dimensions must be {T} x {T}"
        )
    A = A[..., prefix_tokens:, prefix_tokens:]
    far = patch_distances(grid, patch_size).to(A.dtype).to(A.device)
    per_query = torch.einsum("...ij,ij->...i", A, far)
    if renormalize:
        # A query with all its mass on prefix tokens has no distance of its own; it counts as 0.
        per_query = per_query / A.sum(-1).clamp_min(torch.finfo(A.dtype).tiny)
    result = per_query.mean(-1)
    return result if isinstance(weights, Tensor) else result.numpy()


def attention_weights(model: Model, x: Tensor, block: int) -> Tensor:
    """The weights of one block's heads, (B, H, T, T), for prepared images (B, 3, H, W)."""
    model.require("attention", "attention weights")
    found: list[Tensor] = []
    watch_attention(model, x, lambda _, weights, values: found.append(weights), [_layer_of(model, block)])
    return found[0]


def head_outputs(model: Model, images: "Images", block: int, batch_size: int = 64) -> Iterator[Tensor]:
    """What each head of a block gives, A_h V_h before the output projection: (B, H, T, d), batch by batch."""
    model.require("attention", "head outputs")
    layer = _layer_of(model, block)
    found: list[Tensor] = []
    for pixels in images.batches(batch_size):
        x = model.prepare(pixels)
        watch_attention(model, x, lambda _, weights, values: found.append(weights @ values), [layer])
        yield found.pop()


def attention_maps(model: Model, images: "Images", batch_size: int = 8) -> xr.DataArray:
    """Every attention weight of a few images: float32 (image, block, head, query, key), each query's sum to 1.

    Queries and keys are all tokens, prefix tokens first, then the patches row by row. All maps are kept: blocks x heads
    x T^2 x 4 bytes an image, which is 1 MiB for `zoo/vit-cls` and 21 MiB for ViT-B/16 at 224 pixels.
    attrs: model, images, grid, patch_size (pixels), prefix (what each prefix token is called, as 'CLS').
    """
    model.require("attention", "attention maps")
    layers = _attention_layers(model)
    parts: list[list[Tensor]] = [[] for _ in layers]
    for pixels in images.batches(batch_size):
        x = model.prepare(pixels)
        watch_attention(model, x, lambda i, weights, values: parts[i].append(weights.float().cpu()), layers)
    weights = torch.stack([torch.cat(part) for part in parts], dim=1)  # (N, L, H, T, T)
    return xr.DataArray(
        weights.numpy(),
        dims=("image", "block", "head", "query", "key"),
        coords={"block": [layer.block for layer in layers], "head": np.arange(weights.shape[2])},
        attrs={"model": model.name, "images": images.name, "grid": model.grid, "patch_size": model.patch_size,
               "prefix": _prefix_names(model)},
    )  # fmt: skip


def _prefix_names(model: Model) -> list[str]:
    """What the tokens before the patches are called, in timm's order."""
    names = ["CLS"] if getattr(model.module, "cls_token", None) is not None else []
    names += ["distillation"] if getattr(model.module, "dist_token", None) is not None else []
    return [*names, *(f"register {i}" for i in range(model.prefix_tokens))][: model.prefix_tokens]


def head_distances(model: Model, images: "Images", batch_size: int = 64) -> xr.Dataset:
    """How far each head looks (Figs 3 and 4), over (block, head), as the mean over all spatial queries and images.

    distance, distance_renormalized: pixels, see `mean_distance`.
    distance_std: standard deviation of `distance` over the images, pixels.
    prefix_mass: share of the spatial queries' attention that goes to prefix tokens.
    entropy: that of the spatial queries' attention, as a share of log T; 1 for uniform attention. A head that is far
    because it is uniform has a high entropy, one that looks at a far place a low one.
    attrs: uniform_distance (pixels) of this grid. No attention map is kept: each is reduced when its block has run.
    """
    model.require("attention", "attention distance")
    layers = _attention_layers(model)
    parts: list[list[Tensor]] = [[] for _ in layers]
    for pixels in tqdm(images.batches(batch_size), total=-(-len(images) // batch_size), desc=model.name,
                       leave=False, disable=None):  # fmt: skip
        watch_attention(
            model, model.prepare(pixels), lambda i, weights, values: parts[i].append(_reduce(model, weights)), layers
        )
    values = torch.stack([torch.cat(part, dim=1) for part in parts])  # (L, 4, N, H)
    mean, std = values.mean(2), values[:, 0].std(1, correction=0)
    names = ["distance", "distance_renormalized", "prefix_mass", "entropy"]
    units = ["px", "px", "share of attention", "share of log T"]
    variables = {
        name: (("block", "head"), mean[:, i].numpy(), {"units": unit})
        for i, (name, unit) in enumerate(zip(names, units, strict=True))
    }
    variables["distance_std"] = (("block", "head"), std.numpy(), {"units": "px"})
    assert model.grid is not None and model.patch_size is not None
    return xr.Dataset(
        variables,
        coords={"block": [layer.block for layer in layers], "head": np.arange(values.shape[-1]),
                "layer": ("block", [layer.name for layer in layers]),
                "depth": ("block", [layer.depth for layer in layers])},
        attrs={"model": model.name, "images": images.name, "n_images": len(images), "grid": model.grid,
               "patch_size": model.patch_size, "uniform_distance": uniform_distance(model.grid, model.patch_size)},
    )  # fmt: skip


def head_subset_similarity(
    vit: Model,
    cnn: Model,
    images: "Images",
    block: int = 0,
    size: int = 4,
    cnn_layers: Sequence[Layer] | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> xr.Dataset:
    """CKA between groups of a block's heads, from the most local to the most global, and layers of a CNN (Fig 5).

    Heads are sorted by mean distance; a group is `size` neighbours in that order (a sliding window, as all groups must
    have the same number of heads to be compared), its features the outputs A_h V_h of its heads, before the output
    projection, put side by side. The paper states neither; these choices are ours (PAPER.md, Fig 5).

    cnn_layers: None for the first five units, those of the paper's figure.
    Returns over (subset, layer): cka, of all tokens flattened; cka_pooled, of the mean over tokens, a control: what is
    left of the similarity where no place is told from another. Coordinates: distance (subset), the mean over its heads,
    px; heads (subset, member); depth (layer). Minibatches and their order as in `cka.layer_similarity`.
    """
    vit.require("attention", "the similarity of head subsets")
    layer = _layer_of(vit, block)
    cnn_layers = cnn.blocks[:5] if cnn_layers is None else cnn_layers
    if not cnn_layers:
        raise VitcnnError(f"{cnn.name} has no residual units: name its layers with cnn_layers")
    sums: dict[str, tuple[HsicSums, HsicSums]] = {}
    distances = []
    for pixels in minibatches(images, batch_size, seed, f"head subsets, {vit.name} and {cnn.name}"):
        grams, distance = _head_grams(vit, pixels, layer)
        H = distance.shape[1]
        if not 1 <= size <= H:
            raise VitcnnError(f"{vit.name} has {H} heads a block: give a size from 1 to {H}, not {size}")
        distances.append(distance)
        other = cnn.reduce(cnn.prepare(pixels), cnn_layers, lambda name, z: centred_gram(z, f"{name} of {cnn.name}"))
        stacked = torch.stack([other[x.name] for x in cnn_layers])
        for name, heads in grams.items():
            new = HsicSums.of_grams(heads, heads), HsicSums.of_grams(heads, stacked)
            sums[name] = (sums[name][0] + new[0], sums[name][1] + new[1]) if name in sums else new
    per_head = torch.cat(distances).mean(0).numpy()
    members = np.lib.stride_tricks.sliding_window_view(np.argsort(per_head), size)  # (H - size + 1, size)
    return xr.Dataset(
        {name: (("subset", "layer"), _subset_cka(*pair, members), {"units": "1"}) for name, pair in sums.items()},
        coords={"distance": ("subset", per_head[members].mean(1), {"units": "px"}),
                "heads": (("subset", "member"), members),
                "layer": [x.name for x in cnn_layers], "depth": ("layer", [x.depth for x in cnn_layers])},
        attrs={"model": vit.name, "cnn": cnn.name, "block": block, "size": size,
               **image_attrs(images, batch_size, seed)},
    )  # fmt: skip


def _head_grams(model: Model, pixels: Tensor, layer: Layer) -> tuple[dict[str, Tensor], Tensor]:
    """Of a minibatch: each head's centred Gram (H, m), over all tokens and pooled, and its distances (B, H)."""
    outputs, distances = [], []

    def keep(_: int, weights: Tensor, values: Tensor) -> None:
        outputs.append((weights @ values).transpose(0, 1))
        distances.append(_reduce(model, weights)[0])

    for part in pixels.split(64):  # a batch of CKA is large, and so is an attention map
        watch_attention(model, model.prepare(part), keep, [layer])
    heads = torch.cat(outputs, dim=1)  # (H, B, T, d)
    grams = {
        name: torch.stack([centred_gram(x, f"head {h} of {layer.name}") for h, x in enumerate(features)])
        for name, features in (("cka", heads), ("cka_pooled", heads.mean(2)))
    }
    return grams, torch.cat(distances)


def _subset_cka(heads: HsicSums, both: HsicSums, members: np.ndarray) -> np.ndarray:
    """CKA of groups of heads, (subset, layer), from the HSIC of single heads with each other and with the layers.

    The Gram matrix of features put side by side is the sum of their Gram matrices, and HSIC is linear in both.
    """
    chosen = np.zeros((len(members), len(heads.between)))
    np.put_along_axis(chosen, members, 1, axis=1)
    within = np.einsum("sh,hk,sk->s", chosen, heads.between, chosen)
    return HsicSums(chosen @ both.between, within, both.within_b).cka()


def _reduce(model: Model, weights: Tensor) -> Tensor:
    """(B, H, T, T) weights to the four numbers of an image and head: (4, B, H), on the CPU."""
    assert model.grid is not None and model.patch_size is not None
    P = model.prefix_tokens
    distance, renormalized = (
        mean_distance(weights, model.grid, model.patch_size, P, renormalize) for renormalize in (False, True)
    )
    spatial = weights[:, :, P:]
    mass = spatial[..., :P].sum(-1).mean(-1)
    entropy = torch.special.entr(spatial).sum(-1).mean(-1) / np.log(weights.shape[-1])
    return torch.stack([distance, renormalized, mass, entropy]).cpu().double()


def _attention_layers(model: Model) -> list[Layer]:
    return [layer for layer in model.layers if layer.kind == "attention"]


def _layer_of(model: Model, block: int) -> Layer:
    for layer in _attention_layers(model):
        if layer.block == block:
            return layer
    there = [layer.block for layer in _attention_layers(model)]
    raise VitcnnError(f"{model.name} has no attention in block {block}: there is some in {there[0]} to {there[-1]}")


Visit = Callable[[int, Tensor, Tensor], Any]


def watch_attention(model: Model, x: Tensor, visit: Visit, blocks: Sequence[Layer]) -> None:
    """One forward pass, without gradients, that shows each attention of `blocks` as it is computed.

    Calls visit(index in `blocks`, weights (B, H, T, T), values (B, H, T, d)). Whatever the module does before the
    softmax (norms of queries and keys, rotary positions, biases) is in the weights, for they are formed from what the
    module hands to the attention kernel, fused or not. VitcnnError where a module is no plain softmax attention over
    all tokens (talking heads, differential, windowed or cross-covariance attention).
    """
    watch = _Watch(model, x.shape[0], visit)
    with torch.no_grad(), ExitStack() as stack:
        for index, layer in enumerate(blocks):
            module = layer.tap.module
            stack.callback(module.register_forward_pre_hook(lambda m, args, i=index: watch.enter(i)).remove)
            stack.callback(module.register_forward_hook(lambda m, args, out: watch.leave(m)).remove)
        stack.enter_context(watch)
        model.module(x)


class _Watch(TorchFunctionMode):
    """Sees the calls of torch functions that a forward pass makes, and among them its attention."""

    def __init__(self, model: Model, batch: int, visit: Visit) -> None:
        super().__init__()
        self.model, self.batch, self.visit = model, batch, visit
        self.index: int | None = None
        self.found: list[tuple[Tensor, Tensor]] = []
        self.softmax: Any = None

    def enter(self, index: int) -> None:
        self.index, self.found, self.softmax = index, [], None

    def leave(self, module: nn.Module) -> None:
        index, found = self.index, self.found
        self.index, self.found, self.softmax = None, [], None
        assert index is not None and self.model.grid is not None
        T = self.model.prefix_tokens + self.model.grid[0] * self.model.grid[1]
        weights, values = found[0] if len(found) == 1 else (None, None)
        if weights is None or values is None or weights.shape[::2] != (self.batch, T) or weights.shape[-1] != T:
            missing = f"plain softmax attention over all its {T} tokens ({type(module).__name__} is none)"
            raise self.model.refusal(missing, "any measure of attention", of_attention=True)
        self.visit(index, weights, values)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.index is None:
            return out
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            self.found.append((_weights(*args, **kwargs), args[2]))
        elif name == "softmax":
            self.softmax = out
        # The product that applies the weights; in eval mode dropout has given the softmax back as it is.
        elif name in ("matmul", "__matmul__") and self.softmax is not None and args[0] is self.softmax:
            self.found.append((args[0], args[1]))
        return out


def _weights(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
             is_causal: bool = False, scale: float | None = None) -> Tensor:  # fmt: skip
    """The softmax that torch's fused kernel applies without forming it; (B, H, T, T)."""
    if is_causal:
        raise VitcnnError("causal attention has no distances in two dimensions: choose a vision transformer")
    logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -torch.inf) if masked else logits + attn_mask
    return logits.softmax(-1)
