"""Small models with random weights and no layer at rest."""

from typing import Any

import timm.models.resnet
import timm.models.vision_transformer
import torch
from torch import Tensor, nn

from vitcnn_utils.measures.attention import watch_attention
from vitcnn_utils.models.facts import Model, describe


def described(module: nn.Module, name: str = "small", size: int = 32) -> Model:
    """A timm module of our own making as `load_model` would describe it; pixels are prepared with unequal colours."""
    model = Model(name, module.eval(), torch.device("cpu"), (size, size), (0.5, 0.4, 0.3), (0.2, 0.25, 0.4), 10)
    describe(model)
    return model


def attention_in(model: Model, x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The weights (B, H, T, T) and values (B, H, T, d) of a block's attention."""
    (layer,) = [layer for layer in model.layers if layer.kind == "attention" and layer.block == block]
    found: list[tuple[Tensor, Tensor]] = []
    watch_attention(model, x, lambda _, *of_block: found.append(of_block), [layer])
    return found[0]


def stir(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draws every parameter anew and well away from its start, so that no part is an identity or adds nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.5 / parameter[0].numel() ** 0.5
            offset = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(offset + scale * torch.randn(parameter.shape, generator=generator))
    return module


def small_vit(**changes: Any) -> nn.Module:
    """16 patches of 8 x 8 pixels, 3 blocks, 4 heads of 6 channels, layer scale; a CLS token unless changed."""
    shape = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 24, "depth": 3, "num_heads": 4}
    return stir(timm.models.vision_transformer.VisionTransformer(**{**shape, "init_values": 0.5, **changes}))


def small_resnet() -> nn.Module:
    """Four stages of two bottleneck units each on maps of 32, 16, 8 and 4 pixels a side."""
    bottleneck = timm.models.resnet.Bottleneck
    module = timm.models.resnet.ResNet(bottleneck, layers=(2, 2, 2, 2), channels=(4, 8, 8, 8), num_classes=10)
    module.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    module.maxpool = nn.Identity()
    return stir(module)
