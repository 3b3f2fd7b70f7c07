"""The shapes of the zoo, all built from timm's own classes."""

from typing import Any

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitcnn_utils.zoo.recipes import Recipe

IMAGE_SIZE, PATCH_SIZE = 32, 4
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = len(CLASS_NAMES)
# Channel statistics of the CIFAR-10 training images, on a scale of 0 to 1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class SkiplessBlock(Block):
    """A pre-LN transformer block without its two skips: x -> MLP(LN(MSA(LN(x))))."""

    skipless = True  # for `vitcnn_utils.models`: what a block like it with skips has as branches

    def forward(self, x: Tensor, **masks: Any) -> Tensor:  # type: ignore[override]
        """masks: those that this version of timm gives its blocks."""
        x = self.drop_path1(self.ls1(self.attn(self.norm1(x), **masks)))
        return self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def build(recipe: Recipe) -> nn.Module:
    """The untrained model of a recipe; takes (B, 3, 32, 32), gives (B, 10) logits."""
    if recipe.family == "resnet":
        return _build_resnet()
    width, depth = {"vit": (96, 8), "vit-small": (64, 6)}[recipe.family]
    model = VisionTransformer(
        img_size=IMAGE_SIZE, patch_size=PATCH_SIZE, num_classes=CLASSES, embed_dim=width, depth=depth,
        num_heads=recipe.heads,
        class_token=recipe.readout == "token", global_pool=recipe.readout,  # type: ignore[arg-type]  # 'token' or 'avg'
        fc_norm=False,  # both read-outs come after the same final norm
    )  # fmt: skip
    if recipe.skipless_block is not None:
        block = SkiplessBlock(width, recipe.heads, qkv_bias=True)
        block.load_state_dict(model.blocks[recipe.skipless_block].state_dict())
        model.blocks[recipe.skipless_block] = block
    if recipe.mimetic:
        start_mimetic(model)
    return model


@torch.no_grad()
def start_mimetic(model: VisionTransformer) -> None:
    """Start attention as trained transformers have it (Trockman and Kolter 2023): heads look nearer.

    In each head the product of query and key weights is near 0.7 I, in each block that of value and projection
    weights near -0.4 I, and the positions are sines and cosines.
    """
    D = model.embed_dim
    for block in model.blocks:
        attention: Any = block.attn
        query, key, value = attention.qkv.weight.view(3, D, D)
        for rows in torch.arange(D).chunk(attention.num_heads):
            left, right = near_identity(D, len(rows), noise=0.7, identity=0.7)
            query[rows], key[rows] = left.T, right.T
        left, right = near_identity(D, D, noise=0.4, identity=-0.4)
        attention.proj.weight.copy_(left)
        value.copy_(right.T)
    positions = build_sincos2d_pos_embed(list(model.patch_embed.grid_size), D)
    model.pos_embed.zero_()  # type: ignore[union-attr]  # CLS has no place
    model.pos_embed[0, model.num_prefix_tokens :] = positions  # type: ignore[index]


def near_identity(D: int, rank: int, noise: float, identity: float) -> tuple[Tensor, Tensor]:
    """Factors (D, rank) and (D, rank) whose product is the nearest of that rank to `noise` Z + `identity` I.

    Z: (D, D), independent normal entries of variance 1 / D.
    """
    left, values, right = torch.linalg.svd(noise * torch.randn(D, D) / D**0.5 + identity * torch.eye(D))
    root = values[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


def _build_resnet() -> nn.Module:
    """A bottleneck ResNet in four stages (32, 16, 8, 4 pixels a side) with a CIFAR stem."""
    model: Any = ResNet(
        Bottleneck,  # type: ignore[arg-type]  # timm asks for an instance where it takes the class
        layers=(3, 3, 3, 3),
        channels=(16, 32, 64, 128),
        num_classes=CLASSES,
    )
    # timm's stem halves a 224-pixel image twice; a 32-pixel image keeps its resolution.
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
