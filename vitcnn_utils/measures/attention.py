"""Where the heads of a transformer look: mean attention distance (paper, section 5; Figs 3 to 5, C.5, C.6)."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitcnn_utils import provenance
from vitcnn_utils.errors import VitcnnError, check_finite
from vitcnn_utils.measures.cka import Hsic, centred_gram, hsic, labelled_cka
from vitcnn_utils.models.facts import Layer, Model
from vitcnn_utils.run import Pace, each_batch, minibatches, of_first, prepared, reduce_whole, whole_pace

if TYPE_CHECKING:
    from vitcnn_utils.images import Images

Array = TypeVar("Array", np.ndarray, Tensor)


@lru_cache(maxsize=4)
def patch_distances(grid: tuple[int, int], patch_size: float) -> Tensor:
    """Euclidean distance in pixels between the centres of any two patches, row by row: (S, S)."""
    rows, columns = grid
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    # Not torch.cdist: above 25 rows it goes through products, which loses digits.
    return (place[:, None] - place[None]).square().sum(-1).sqrt() * patch_size


def uniform_distance(grid: tuple[int, int], patch_size: float) -> float:
    """Mean distance in pixels of a head that looks everywhere alike: the mark of a global head.

    >>> round(uniform_distance((14, 14), 16), 1)
    116.5
    """
    return patch_distances(grid, patch_size).mean().item()


def query_distance(
    weights: Array, grid: tuple[int, int], patch_size: float, prefix_tokens: int = 0, renormalize: bool = False
) -> Array:
    """Attention distance of each spatial query in pixels, (..., H, S), of weights (..., H, T, T), queries before keys.

    That of query i is sum_j A[i, j] * distance(i, j) over the spatial keys j, i = j included. The paper does not
    say what becomes of prefix tokens; the public code, which credits one of its authors, drops their rows and columns.
    That counts attention to prefix tokens as distance 0: a head that puts a share a there seems (1 - a) times as
    far-sighted. renormalize=True divides each query's weights by their spatial sum instead; a query without any has
    distance 0.

    T must be prefix_tokens + rows * columns of `grid`, VitcnnError otherwise. Takes and gives numpy or torch.
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
    far = patch_distances((rows, columns), patch_size).to(A.dtype).to(A.device)
    result = (A * far).sum(-1)  # four times faster than einsum
    if renormalize:
        result = result / A.sum(-1).clamp_min(torch.finfo(A.dtype).tiny)
    return result if isinstance(weights, Tensor) else result.numpy()


def attention_maps(model: Model, images: "Images", batch_size: int | None = None) -> xr.DataArray:
    """Every attention weight of a few images: float32 (image, block, head, query, key), each query's sum to 1.

    Queries and keys are all tokens, prefix tokens first, then the patches row by row. All maps are kept: blocks x heads
    x T^2 x 4 bytes an image, which is 1 MiB for `zoo/vit-cls` and 21 MiB for ViT-B/16 at 224 pixels.
    batch_size: images at once; None for as many as fit in memory.
    attrs: model, images, grid, patch_size (pixels), prefix (what each prefix token is called, as 'CLS').
    """
    model.require("attention", "attention maps")
    layers = _attention_layers(model)

    def maps(x: Tensor) -> Tensor:
        found: list[Tensor] = []

        def keep(index: int, weights: Tensor, _: Tensor) -> None:
            check_finite(f"{layers[index].name} of {model.name}", weights)
            found.append(weights.float().cpu())

        watch_attention(model, x, keep, layers)
        return torch.stack(found, dim=1)  # (B, L, H, T, T)

    weights = torch.cat(list(each_batch(model, images, batch_size, maps)))
    return xr.DataArray(
        weights.numpy(),
        dims=("image", "block", "head", "query", "key"),
        coords={"block": [layer.block for layer in layers], "head": np.arange(weights.shape[2])},
        attrs={**provenance.of(model, images), "grid": model.grid, "patch_size": model.patch_size,
               "prefix": model.prefix_names},
    )  # fmt: skip


def head_distances(model: Model, images: "Images", batch_size: int | None = None) -> xr.Dataset:
    """How far each head looks (Figs 3 and 4), over (block, head), as the mean over all spatial queries and images.

    distance, distance_renormalized: pixels, see `query_distance`.
    distance_by_image, distance_renormalized_by_image: of each image, (sample, block, head), float32, for `intervals`.
    prefix_mass: share of the spatial queries' attention that goes to prefix tokens.
    entropy: that of the spatial queries' attention, as a share of log T; 1 for uniform attention. A head that is far
    because it is uniform has a high entropy, one that looks at a far place a low one.
    attrs: uniform_distance (pixels) of this grid. No attention map is kept: each is reduced when its block has run.

    batch_size: images at once; None for as many as fit in memory.
    Raises VitcnnError, with the layer's name, for NaN or Inf.
    """
    model.require("attention", "attention distance")
    layers = _attention_layers(model)
    assert model.grid is not None and model.patch_size is not None

    def numbers(x: Tensor) -> Tensor:
        found: list[Tensor] = []
        watch_attention(model, x, lambda _, weights, values: found.append(_reduce(weights, model)), layers)
        return torch.stack(found).cpu()  # (L, 4, B, H)

    by_image, total = [], np.zeros(())
    for values in each_batch(model, images, batch_size, numbers):
        for layer, of_layer in zip(layers, values, strict=True):
            check_finite(f"{layer.name} of {model.name}", of_layer)
        by_image.append(values[:, :2].permute(1, 2, 0, 3).numpy().copy())  # (2, B, L, H)
        total = total + values.double().sum(2).numpy()
    means = total.swapaxes(0, 1) / len(images)
    units = {"distance": "px", "distance_renormalized": "px", "prefix_mass": "share of attention",
             "entropy": "share of log T"}  # fmt: skip
    over = ("block", "head")
    data: dict[str, tuple] = {
        name: (over, value, {"units": unit}) for (name, unit), value in zip(units.items(), means, strict=True)
    }
    for name, values in zip(units, np.concatenate(by_image, axis=1), strict=False):
        data[f"{name}_by_image"] = (("sample", *over), values, {"units": "px"})
    return xr.Dataset(
        data,
        coords={"block": [x.block for x in layers], "head": np.arange(means.shape[-1]),
                "layer": ("block", [x.name for x in layers]), "depth": ("block", [x.depth for x in layers])},
        attrs={**provenance.of(model, images), "grid": model.grid, "patch_size": model.patch_size,
               "uniform_distance": uniform_distance(model.grid, model.patch_size)},
    )  # fmt: skip


def head_subset_similarity(
    vit: Model,
    cnn: Model,
    images: "Images",
    sizes: Sequence[int] = (4,),
    batch_size: int = 256,
    seed: int = 0,
    left_out: bool = False,
) -> dict[int, xr.Dataset]:
    """CKA of groups of heads of the first block, from the most local to the most global, with units of a CNN (Fig 5).

    Heads are sorted by mean distance; a group is so many neighbours in that order (a sliding window, as all groups must
    have the same number of heads to be compared). Its features are the outputs A_h V_h of its heads, before the output
    projection, side by side. The paper states neither; these choices are ours.

    The units are the CNN's first five, those of the paper's figure.

    sizes: how many heads a group has; one pass through both models does for all.
    Returns for each size, over (subset, layer): cka, of all tokens flattened; cka_pooled, of the mean over tokens, a
    control: what is left of the similarity where no place is told from another. Coordinates: distance (subset), the
    mean over its heads, px; heads (subset, member); depth (layer). Minibatches, `seed` and `left_out` as in
    `cka.layer_similarity`.
    """
    vit.require("attention", "the similarity of head subsets")
    layer, cnn_layers = _attention_layers(vit)[0], cnn.blocks[:5]
    if not cnn_layers:
        raise VitcnnError(f"{cnn.name} has no residual units, which heads are compared with: take a CNN that has some")
    H = of_first(vit, images, lambda x: _heads(vit, x, layer)[1].shape[1])
    if wrong := [size for size in sizes if not 1 <= size <= H]:
        raise VitcnnError(f"{vit.name} has {H} heads a block: give sizes from 1 to {H}, not {wrong[0]}")
    vit_pace = Pace.of(None, vit, lambda: _heads(vit, prepared(vit, images, slice(1)), layer))
    cnn_pace = whole_pace(cnn, images, cnn_layers, batch_size)

    def gram(name: str, activation: Tensor) -> Tensor:
        return centred_gram(activation, f"{name} of {cnn.name}")

    # Of each minibatch, for all tokens and pooled: HSIC of single heads with each other, and with the layers.
    batches: dict[str, list[tuple[Hsic, Hsic]]] = {"cka": [], "cka_pooled": []}
    distances = []
    for pixels in minibatches(images, batch_size, seed, f"head subsets, {vit.name} and {cnn.name}"):
        head_grams, distance = _head_grams(vit, pixels, layer, vit_pace)
        of_cnn = reduce_whole(cnn, pixels, cnn_layers, gram, cnn_pace)
        stacked = torch.stack([of_cnn[x.name] for x in cnn_layers])
        for name, heads in head_grams.items():
            batches[name].append((hsic(heads, heads), hsic(heads, stacked)))
        distances.append(distance.double().numpy())
    per_head = np.concatenate(distances).mean(0)
    attrs = {**provenance.of(vit, images, seed, cnn=cnn), "units": "1", "block": layer.block,
             "batch_size": batch_size}  # fmt: skip
    over_layer = {"layer": [x.name for x in cnn_layers], "depth": ("layer", [x.depth for x in cnn_layers])}

    def of_size(size: int) -> xr.Dataset:
        members = np.lib.stride_tricks.sliding_window_view(np.argsort(per_head), size)  # (subset, member)
        similarity = {
            name: labelled_cka([_of_subsets(*pair, members) for pair in pairs], ("subset", "layer"), left_out)
            for name, pairs in batches.items()
        }
        over_subset = {"distance": ("subset", per_head[members].mean(1), {"units": "px"}),
                       "heads": (("subset", "member"), members)}  # fmt: skip
        return xr.Dataset(similarity, {**over_layer, **over_subset}, {**attrs, "size": size})

    return {size: of_size(size) for size in sizes}


def _head_grams(model: Model, pixels: Tensor, layer: Layer, pace: Pace) -> tuple[dict[str, Tensor], Tensor]:
    """Of a minibatch: each head's centred Gram (H, m), over all tokens and pooled, and its distances (n, H)."""
    parts = list(pace.over(len(pixels), lambda part: _heads(model, model.prepare(pixels[part]), layer)))
    heads = torch.cat([outputs for outputs, _ in parts], dim=1)  # (H, n, T, d)
    grams = {
        name: torch.stack(
            [centred_gram(x, f"head {h} of {layer.name} of {model.name}") for h, x in enumerate(features)]
        )
        for name, features in (("cka", heads), ("cka_pooled", heads.mean(2)))
    }
    return grams, torch.cat([distances for _, distances in parts])


def _heads(model: Model, x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """What the heads of a layer give, (H, B, T, d), and their distances, (B, H), on the CPU."""
    found: list[tuple[Tensor, Tensor]] = []

    def keep(_: int, weights: Tensor, values: Tensor) -> None:
        found.append(((weights @ values).transpose(0, 1), _reduce(weights, model)[0].cpu()))

    watch_attention(model, x, keep, [layer])
    return found[0]


def _of_subsets(heads: Hsic, both: Hsic, members: np.ndarray) -> Hsic:
    """HSIC of groups of heads with the layers, from that of single heads with each other and with the layers.

    The Gram matrix of features put side by side is the sum of their Gram matrices, and HSIC is linear in both.
    """
    chosen = np.zeros((len(members), len(heads.between)))
    np.put_along_axis(chosen, members, 1, axis=1)
    within = np.einsum("sh,hk,sk->s", chosen, heads.between, chosen)
    return Hsic(chosen @ both.between, within, both.within_b)


def _reduce(weights: Tensor, model: Model) -> Tensor:
    """(B, H, T, T) weights to distance, renormalized distance, prefix mass and entropy of image and head: (4, B, H)."""
    assert model.grid is not None and model.patch_size is not None
    P = model.prefix_tokens
    queries = weights[:, :, P:]
    tiny = torch.finfo(weights.dtype).tiny
    distance = query_distance(weights, model.grid, model.patch_size, P)
    mass = queries[..., P:].sum(-1)
    # Not torch.special.entr or xlogy, which take three times as long on a CPU.
    entropy = queries.clamp_min(tiny).log_().mul_(queries).sum(-1) / -np.log(weights.shape[-1])
    numbers = distance, distance / mass.clamp_min(tiny), queries[..., :P].sum(-1), entropy
    return torch.stack([v.mean(-1) for v in numbers])


def _attention_layers(model: Model) -> list[Layer]:
    return [layer for layer in model.layers if layer.kind == "attention"]


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
        name = getattr(func, "__name__", "")
        if self.index is not None and name == "scaled_dot_product_attention":
            weights = _weights(*args, **kwargs)
            self.found.append((weights, args[2]))
            return weights @ args[2]  # instead of the kernel, which would form the weights once more
        out = func(*args, **kwargs)
        if self.index is None:
            return out
        if name == "softmax":
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


# Summaries of groups of heads


def rank_correlations(distance: xr.DataArray, cka: xr.DataArray) -> xr.DataArray:
    """Spearman's rank correlation of distance (subset) and CKA (subset, layer): (layer); NaN where a CKA is.

    Ties are not averaged.
    """

    def ranks(values: xr.DataArray) -> xr.DataArray:
        order = values.argsort(values.get_axis_num("subset")).argsort(values.get_axis_num("subset"))
        return order.drop_vars("distance", errors="ignore")

    return xr.corr(ranks(distance), ranks(cka), "subset").where(cka.notnull().all("subset"))


# Summaries of what `head_distances` gives


def near_heads(heads: xr.Dataset) -> float:
    """Mean distance of the nearest quarter of the heads of the two lowest blocks, in percent of uniform attention's."""
    return nearest_quarter(heads["distance"].transpose("block", "head").values, heads.attrs["uniform_distance"])


def nearest_quarter(distances: np.ndarray, uniform: float) -> float:
    """The same of distances (block, head) and the distance of uniform attention, in one unit."""
    low = np.sort(distances[:2], axis=None)
    return 100 * float(low[: max(1, low.size // 4)].mean()) / uniform
