"""How every zoo model is trained: one table.

    vitcnn train --all --jobs 1     # every model that has no weights by its recipe here, one after another
    vitcnn train zoo/vit-cls        # one model

All models see CIFAR-10 (32 x 32) for `epochs * 50_000` images, whatever part of the training set they may use: a
model that is trained on 3 % of the images takes as many steps as one that is trained on all of them, and sees each
image 33 times as often. All ViTs share steps, batch size and schedule, so any two of them can be compared.

All have about the length that one core does in two hours: 50 passes of the ViT (measured: 0.33 s a step of half the
patches, 0.63 s of all), 30 of the ResNet. Aimed at were 87 % of the test images for the ViTs of all data, which
`zoo/vit-cls` and `zoo/vit-gap` reach, and 93 % for the ResNet, which names 91.5 % rightly.

Choices were made on 5,000 held-out training images with `vitcnn tune`. What it measured is in book/tuning.jsonl, what
was chosen by it on the book's zoo page.
"""

from dataclasses import dataclass, replace

from vitcnn_utils.errors import VitcnnError, near

TRAINING_IMAGES = 50_000
WATCHED = 2500
"""How many held-out images the log's accuracy is of; all 5,000 would make a pass several per cent longer."""
FAMILIES = ("vit", "vit-small", "resnet")
READOUTS = ("token", "avg")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run, the hardware aside."""

    family: str  # one of `FAMILIES`: the shape, see `architectures.build`
    epochs: int  # passes over 50,000 images
    readout: str = "token"  # ViT only: 'token' reads the CLS token, 'avg' the mean of all tokens
    heads: int = 8  # ViT only
    skipless_block: int | None = None  # ViT only: this block is built without its two skips
    mimetic: bool = False  # ViT only: a start at which heads are local, see `architectures.start_mimetic`
    data_fraction: float = 1.0  # of the training images, class-balanced
    seed: int = 1
    batch_size: int = 128
    optimizer: str = "muon"
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05  # of all steps, linear; cosine to zero after it
    label_smoothing: float = 0.1
    clip_grad_norm: float = 1.0
    crop_padding: int = 4  # random crop after padding by so many pixels, and a random flip
    cutmix: float = 0.5  # probability that a batch is mixed
    patch_drop: float = 0.0  # ViT only: share of the patches that is left out of a step ...
    small_size: int = 32  # ResNet only: side in pixels of the images of a step ...
    cheap_until: float = 0.8  # ... during this share of the steps; from then on all patches, all pixels

    def __post_init__(self) -> None:
        for name, known in (("family", FAMILIES), ("readout", READOUTS)):
            if getattr(self, name) not in known:
                raise VitcnnError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.epochs < 1 or not 1 <= self.batch_size <= TRAINING_IMAGES:
            given = f"epochs={self.epochs}, batch_size={self.batch_size}"
            raise VitcnnError(f"{given}: give 1 or more, at most {TRAINING_IMAGES:,} a batch")
        if not 0.001 <= self.data_fraction <= 1:
            raise VitcnnError(f"data_fraction={self.data_fraction}: give 0.001, which is 5 images of a class, to 1")

    @property
    def steps(self) -> int:
        return self.epochs * TRAINING_IMAGES // self.batch_size

    def end(self, epoch: int) -> int:
        """How many steps lie before the end of an epoch, counted from 0; the last one has what does not divide."""
        return self.steps if epoch + 1 >= self.epochs else (epoch + 1) * (self.steps // self.epochs)

    def is_cheap(self, step: int) -> bool:
        """Whether a step leaves out patches or pixels."""
        return step < self.cheap_until * self.steps


_VIT = Recipe(family="vit", epochs=50, patch_drop=0.5)
_SMALL = replace(_VIT, family="vit-small", heads=4)
_RESNET = Recipe(family="resnet", epochs=30, small_size=24, cheap_until=0.7)

# In the order of training: should it end early, the models that most figures need exist.
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
    "zoo/vit-small-data-100-seed-2": replace(_SMALL, seed=2),
    "zoo/vit-cls-data-30": replace(_VIT, data_fraction=0.30),
    "zoo/vit-small-data-3": replace(_SMALL, data_fraction=0.03),
    "zoo/vit-small-data-30": replace(_SMALL, data_fraction=0.30),
    "zoo/resnet-data-10": replace(_RESNET, data_fraction=0.10),
    "zoo/vit-cls-nocutmix": replace(_VIT, cutmix=0.0),
    "zoo/vit-cls-mimetic": replace(_VIT, cutmix=0.0, mimetic=True),
}


def find_recipe(name: str) -> Recipe:
    """How a model of the zoo is trained; VitcnnError, with near names, if there is none."""
    if name not in RECIPES:
        raise VitcnnError(f"no zoo model {name!r}{near(name, list(RECIPES))}")
    return RECIPES[name]
