"""How every zoo model is trained: one table.

    vitcnn train zoo/vit-cls            # one model
    vitcnn train --all                  # all of them, one after the other

Reproduces the shipped weights. Minutes, device and test accuracy of each run are in its card
(`vitcnn_utils/zoo/weights/*.json`) and on the book's zoo page, which is made from the cards.

Every model sees the same kind of images (CIFAR-10, 32 x 32) for `epochs * 50_000` images,
whatever part of the training set it may use: a model that is trained on 3 % of the images takes
as many steps as one that is trained on all of them, and sees each image 33 times as often.

The schedule is short, for a CPU: 10 passes for the three main models and 2 for the others.
Models that are compared for what they learn (`vit-cls-seed-2`, the models without a skip, the
data series) share one length, so `vit-cls-seed-2` is their intact, full-data twin.
"""

from dataclasses import dataclass, replace


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

    @property
    def steps(self) -> int:
        return self.epochs * TRAINING_IMAGES // self.batch_size


TRAINING_IMAGES = 50_000

_VIT = Recipe(family="vit", epochs=2)
_SMALL = Recipe(family="vit-small", epochs=2)
_RESNET = Recipe(family="resnet", epochs=10, optimizer="sgd", learning_rate=0.05, weight_decay=5e-4)

# In the order of training: should a session end early, the models that most figures need exist.
RECIPES: dict[str, Recipe] = {
    "zoo/vit-cls": replace(_VIT, epochs=10),
    "zoo/resnet": _RESNET,
    "zoo/vit-gap": replace(_VIT, epochs=10, readout="avg"),
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
    "zoo/resnet-data-10": replace(_RESNET, epochs=2, data_fraction=0.10),
}
