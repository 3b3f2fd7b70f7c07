"""One small model of each family of timm's, with random weights, and what each measure does with it.

`python tests/families.py` writes book/families.json, the table of the book; tests/test_families.py measures it again.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import timm
import torch
from small_models import stir
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images
from vitcnn_utils.measures import attention, cka, localization, probes, receptive_field, residual
from vitcnn_utils.models.facts import Model
from vitcnn_utils.models.load import load_model

TABLE = Path(__file__).parent.parent / "book" / "families.json"


class Family(NamedTuple):
    """A timm model, made smaller by `options`, on images of `size` pixels, and what is known of it."""

    title: str
    model: str
    size: int = 64
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed
    prefix_tokens: int = 0
    grid: tuple[int, int] | None = None


TINY = {"depth": 2, "embed_dim": 48, "num_heads": 3}
SWIN = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
FAMILIES = [
    Family("ViT, CLS token", "vit_tiny_patch16_224", 64, TINY, 1, (4, 4)),
    Family("ViT, average of tokens", "vit_base_patch16_gap_224", 64, TINY, 0, (4, 4)),
    Family("ViT, registers", "vit_little_patch16_reg4_gap_256", 64, TINY, 4, (4, 4)),
    Family("ViT, relative positions", "vit_relpos_small_patch16_224", 64, TINY, 0, (4, 4)),
    Family("ViT, relative positions, norms after", "vit_relpos_medium_patch16_rpn_224", 64, TINY, 0, (4, 4)),
    Family("ViT, attention beside MLP", "vit_pwee_patch16_reg1_gap_256", 64, TINY, 1, (4, 4)),
    Family("ViT, parts in pairs", "vit_small_patch16_18x2_224", 64, {"depth": 2}, 1, (4, 4)),
    Family("DeiT, distilled", "deit_tiny_distilled_patch16_224", 64, TINY, 2, (4, 4)),
    Family("DeiT-III", "deit3_small_patch16_224", 64, TINY, 1, (4, 4)),
    Family("BEiT", "beit_base_patch16_224", 64, TINY, 1, (4, 4)),
    Family("EVA-02", "eva02_tiny_patch14_224", 56, TINY | {"img_size": 56}, 1, (4, 4)),
    Family("DINOv2", "vit_small_patch14_dinov2", 56, TINY, 1, (4, 4)),
    Family("DINOv2, registers", "vit_small_patch14_reg4_dinov2", 56, TINY, 5, (4, 4)),
    Family("DINOv3", "vit_small_patch16_dinov3", 64, TINY, 5, (4, 4)),
    Family("SigLIP", "vit_base_patch16_siglip_224", 64, TINY, 0, (4, 4)),
    Family("FlexiViT", "flexivit_small", 64, TINY, 1, (4, 4)),
    Family("CaiT", "cait_xxs24_224", 64, TINY, 0, (4, 4)),
    Family("XCiT", "xcit_nano_12_p16_224", 64, {"depth": 2}, 0, (4, 4)),
    Family("Swin", "swin_tiny_patch4_window7_224", 112, SWIN),
    Family("Swin v2", "swinv2_tiny_window8_256", 128, SWIN),
    Family("PoolFormer", "poolformer_s12", 64),
    Family("MLP-Mixer", "mixer_s32_224", 64, {}, 0, (2, 2)),
    Family("ResMLP", "resmlp_12_224", 64, {}, 0, (4, 4)),
    Family("ConvNeXt", "convnext_atto"),
    Family("ConvNeXt v2", "convnextv2_atto"),
    Family("ResNet", "resnet18"),
    Family("ResNet, bottlenecks", "resnet26d"),
    Family("ResNet v2 (BiT)", "resnetv2_50x1_bit"),
    Family("ResNeXt", "resnext50_32x4d"),
    Family("SE-ResNet", "seresnet18"),
    Family("EfficientNet", "efficientnet_b0"),
    Family("MobileNet v3", "mobilenetv3_small_050"),
    Family("RegNet", "regnety_002"),
    Family("NFNet", "test_nfnet"),
    Family("DenseNet", "densenet121"),
    Family("VGG", "vgg11_bn", 64, {"mlp_ratio": 0.01}),
]

WINDOWS = "attention looks at windows, each over a grid of its own"
SCALED = "branches are scaled on the way to the addition, where no module gives them"
SUMMED = "the branch is a sum of two parts, which no module gives"
UNSUPPORTED = {
    ("attention distance", "ViT, attention beside MLP"): "attention is no module of its own",
    ("attention distance", "ViT, parts in pairs"): "a block has two attentions",
    ("attention distance", "Swin"): WINDOWS,
    ("attention distance", "Swin v2"): WINDOWS,
    ("attention distance", "CaiT"): "heads are mixed after the softmax (talking heads)",
    ("attention distance", "XCiT"): "attention is between channels, not tokens",
    ("skip ratios", "NFNet"): SCALED,
    ("removal of a skip", "NFNet"): SCALED,
    ("skip ratios", "ViT, parts in pairs"): SUMMED,
    ("removal of a skip", "ViT, parts in pairs"): SUMMED,
}
"""What would make sense, but is not there: (measure, family) and why."""


def fields(model: Model, images: Images) -> Any:
    layers = None if model.branches else [model.layers[-1].name]
    return receptive_field.effective_receptive_fields(model, images[:2], layers, channels=1)


def without_a_skip(model: Model, images: Images) -> np.ndarray:
    """How far the removal of the last block's skips moves the logits of each image."""
    model.require("residual stream", "the removal of a skip")
    x = model.prepare(torch.from_numpy(images.pixels[:3]))
    with torch.no_grad():
        intact = model.module(x)
        with residual.without_skip(model, model.branches[-1].block):
            return (model.module(x) - intact).norm(dim=1).numpy()


MEASURES: dict[str, Callable[[Model, Images], Any]] = {
    "layer similarity": lambda m, images: cka.layer_similarity(m, m, images[:6]),
    "attention distance": lambda m, images: attention.head_distances(m, images[:3]),
    "effective receptive fields": fields,
    "skip ratios": lambda m, images: residual.skip_ratios(m, images[:3]),
    "removal of a skip": without_a_skip,
    "token-patch similarity": lambda m, images: localization.token_patch_similarity(m, images[:6]),
    "linear probes": lambda m, images: probes.layer_probes(m, images, (m.blocks or m.layers)[-4:], shots=1, draws=1),
}


def load(family: Family) -> Model:
    """As `load_model` does it, but the smaller model, and with no weight at rest."""
    overlay = {"input_size": (3, family.size, family.size)}
    smaller = partial(timm.create_model, pretrained_cfg_overlay=overlay, **family.options)
    with patch("timm.create_model", smaller):
        model = load_model(family.model, "untrained", device="cpu")
    stir(model.module)
    return model


class Outcome(NamedTuple):
    """What a measure gives, or the text of the error by which it is refused."""

    value: Any
    refusal: str = ""


def outcomes(model: Model) -> dict[str, Outcome]:
    """Of every measure on a model."""
    images = noise_images(10, model.image_size[0], classes=2)
    found = {}
    for name, measure in MEASURES.items():
        try:
            found[name] = Outcome(measure(model, images))
        except VitcnnError as error:
            found[name] = Outcome(None, str(error))
    return found


def row(family: Family, model: Model, found: dict[str, Outcome]) -> dict[str, Any]:
    """What the table says of a family: of each measure 'yes', 'named layers', or why not."""
    cells = {}
    for name, outcome in found.items():
        missing = re.search(r"has (no (?:attention|residual stream))", outcome.refusal)
        cells[name] = UNSUPPORTED.get((name, family.title)) or (missing.group(1) if missing else "yes")
    if not model.branches:
        cells["effective receptive fields"] = "named layers"
    return {"family": family.title, "model": family.model, **cells}


def main() -> None:
    rows = []
    for family in FAMILIES:
        model = load(family)
        rows.append(row(family, model, outcomes(model)))
        print(*rows[-1].values(), sep=" | ", flush=True)
    TABLE.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
