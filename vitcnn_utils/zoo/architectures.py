"""The shapes of the zoo, all built from timm's own classes."""

from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vitcnn_utils.zoo.recipes import Recipe

IMAGE_SIZE = 32
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = len(CLASS_NAMES)
# Channel statistics of the CIFAR-10 training images, on a scale of 0 to 1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class SkiplessBlock(Block):
    """A pre-LN transformer block without its two skips: x -> MLP(LN(MSA(LN(x))))."""

    skipless = True  # for `vitcnn_utils.models`: what a block like it with skips has as branches

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        x = self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)))
        return self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def build(recipe: Recipe) -> nn.Module:
    """The untrained model of a recipe; takes (B, 3, 32, 32), gives (B, 10) logits."""
    if recipe.family == "resnet":
        return _build_resnet(recipe.drop_path)
    width, depth, heads = {"vit": (96, 8, 8), "vit-small": (64, 6, 4)}[recipe.family]
    model = VisionTransformer(
        img_size=IMAGE_SIZE, patch_size=4, num_classes=CLASSES,
        embed_dim=width, depth=depth, num_heads=heads, drop_path_rate=recipe.drop_path,
        class_token=recipe.readout == "token", global_pool=recipe.readout,  # type: ignore[arg-type]  # 'token' or 'avg'
        fc_norm=False,  # both read-outs come after the same final norm
    )  # fmt: skip
    if recipe.skipless_block is not None:
        block = SkiplessBlock(width, heads, qkv_bias=True)  # with no stochastic depth: nothing would be left of it
        block.load_state_dict(model.blocks[recipe.skipless_block].state_dict())
        model.blocks[recipe.skipless_block] = block
    return model


def _build_resnet(drop_path: float) -> nn.Module:
    """A bottleneck ResNet in four stages (32, 16, 8, 4 pixels a side) with a CIFAR stem."""
    model: Any = ResNet(
        Bottleneck,  # type: ignore[arg-type]  # timm asks for an instance where it takes the class
        layers=(3, 3, 3, 3),
        channels=(16, 32, 64, 128),
        num_classes=CLASSES,
        drop_path_rate=drop_path,
    )
    # timm's stem halves a 224-pixel image twice; a 32-pixel image keeps its resolution.
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
