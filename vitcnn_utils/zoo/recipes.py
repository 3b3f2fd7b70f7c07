"""How every zoo model is trained: one table.

    vitcnn train --all                  # all of them at full strength, one after the other; for a GPU
    vitcnn train --all --short          # the recipes of the weights that ship; for a CPU
    vitcnn train zoo/vit-cls --short    # one model

At full strength (`RECIPES`): 200 passes over the training images, strong augmentation. Expected from published
results of models of this size: about 90 % of the test images right for a ViT, 94 % for the ResNet. These
recipes have NOT been run to their end yet, as no GPU was at hand; no number in the book comes from them.

Short (`SHORT`): what two CPU cores do in a few hours. Minutes, device and test accuracy of each of these runs are
in its card (`vitcnn_utils/zoo/weights/*.json`) and on the book's zoo page, which is made from the cards.

Every model sees the same kind of images (CIFAR-10, 32 x 32) for `epochs * 50_000` images, whatever part of the
training set it may use: a model that is trained on 3 % of the images takes as many steps as one that is trained on
all of them, and sees each image 33 times as often. Models that are compared for what they learn
(`vit-cls-seed-2`, the models without a skip, the data series) share one length, so that `vit-cls-seed-2` is
their intact, full-data twin; at full strength `vit-cls` has that length too.

Choices were made on 5,000 held-out training images with `vitcnn tune`, which writes down what it measured.
"""

from dataclasses import dataclass, replace

from vitcnn_utils.errors import VitcnnError, near


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run, the hardware aside."""

    family: str  # 'vit', 'vit-small' or 'resnet': the shape, see `architectures.build`
    epochs: int  # passes over 50,000 images
    readout: str = "token"  # ViT only: 'token' reads the CLS token, 'avg' the mean of all tokens
    skipless_block: int | None = None  # ViT only: this block is built without its two skips
    data_fraction: float = 1.0  # of the training images, class-balanced
    seed: int = 1
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1  # of all steps, linear; cosine to zero after it
    label_smoothing: float = 0.1
    clip_grad_norm: float = 1.0
    crop_padding: int = 4  # random crop after padding by so many pixels, and a random flip
    three_augment: bool = False  # grey, solarised, blurred or unchanged, each for a quarter of the images
    mixup: float = 0.0  # alpha of mixup and of cutmix, each for half of the batches
    cutmix: float = 0.0
    drop_path: float = 0.0  # stochastic depth: the rate at the last block, rising linearly from 0
    ema_decay: float = 0.0  # the model is the moving average of its weights over the steps

    @property
    def steps(self) -> int:
        return self.epochs * TRAINING_IMAGES // self.batch_size


TRAINING_IMAGES = 50_000

_VIT = Recipe(
    family="vit", epochs=200, batch_size=256, optimizer="muon", learning_rate=4e-3, three_augment=True,
    mixup=0.8, cutmix=1.0, drop_path=0.1, ema_decay=0.999,
)  # fmt: skip
_SMALL = replace(_VIT, family="vit-small", drop_path=0.0)
_RESNET = replace(_VIT, family="resnet", weight_decay=5e-4, three_augment=False, mixup=0.2, drop_path=0.0)

# In the order of training: should a session end early, the models that most figures need exist.
RECIPES: dict[str, Recipe] = {
    "zoo/vit-cls": _VIT,
    "zoo/resnet": _RESNET,
    "zoo/vit-gap": replace(_VIT, readout="avg"),
    "zoo/vit-cls-seed-2": replace(_VIT, seed=2),
    "zoo/vit-cls-noskip-middle": replace(_VIT, skipless_block=4),
    "zoo/vit-cls-noskip-early": replace(_VIT, skipless_block=1),
    "zoo/vit-cls-noskip-late": replace(_VIT, skipless_block=6),
    "zoo/vit-cls-data-10": replace(_VIT, data_fraction=0.10),
    "zoo/vit-small-data-100": _SMALL,
    "zoo/vit-cls-data-3": replace(_VIT, data_fraction=0.03),
    "zoo/vit-small-data-10": replace(_SMALL, data_fraction=0.10),
    "zoo/vit-cls-data-30": replace(_VIT, data_fraction=0.30),
    "zoo/vit-small-data-3": replace(_SMALL, data_fraction=0.03),
    "zoo/vit-small-data-30": replace(_SMALL, data_fraction=0.30),
    "zoo/resnet-data-10": replace(_RESNET, data_fraction=0.10),
}


def _short(name: str, recipe: Recipe) -> Recipe:
    """The same model in a training that a CPU can do, so short that regularisation but the lightest costs accuracy."""
    return replace(
        recipe, epochs=15 if name in MAIN else 2, batch_size=64, three_augment=False, mixup=0.0, cutmix=0.0,
        drop_path=0.0, ema_decay=0.0,
    )  # fmt: skip


MAIN = ("zoo/vit-cls", "zoo/vit-gap", "zoo/resnet")  # most figures are made from these
SHORT: dict[str, Recipe] = {name: _short(name, recipe) for name, recipe in RECIPES.items()}


def find_recipe(name: str, short: bool = False) -> Recipe:
    """How a model of the zoo is trained, in full or in short; VitcnnError, with near names, if there is none."""
    if name not in RECIPES:
        raise VitcnnError(f"no zoo model {name!r}{near(name, list(RECIPES))}")
    return (SHORT if short else RECIPES)[name]
