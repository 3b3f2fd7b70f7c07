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
RESNET = {"layers": (2, 1, 1, 1)}
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
    Family("NaFlexViT", "naflexvit_base_patch16_gap", 64, TINY, 4, (4, 4)),
    Family("ConViT", "convit_tiny", 64, {"depth": 3, "local_up_to_layer": 2}),
    Family("CaiT", "cait_xxs24_224", 64, TINY, 0, (4, 4)),
    Family("XCiT", "xcit_nano_12_p16_224", 64, {"depth": 2}, 0, (4, 4)),
    Family("Swin", "swin_tiny_patch4_window7_224", 112, SWIN),
    Family("Swin v2", "swinv2_tiny_window8_256", 128, SWIN),
    Family("PVT v2", "pvt_v2_b0", 64, {"depths": (1, 1, 1, 1)}),
    Family("DaViT", "davit_tiny", 64, {"depths": (1, 1), "embed_dims": (24, 48), "num_heads": (2, 4)}),
    Family("MobileViT", "mobilevit_xxs", 64),
    Family("PoolFormer", "poolformer_s12", 64),
    Family("MLP-Mixer", "mixer_s32_224", 64, {}, 0, (2, 2)),
    Family("ResMLP", "resmlp_12_224", 64, {}, 0, (4, 4)),
    Family("ConvNeXt", "convnext_atto"),
    Family("ConvNeXt v2", "convnextv2_atto"),
    Family("ResNet", "resnet18", 64, RESNET),
    Family("ResNet, bottlenecks", "resnet26d", 64, RESNET),
    Family("ResNet v2 (BiT)", "resnetv2_50x1_bit"),
    Family("ResNeXt", "resnext50_32x4d", 64, RESNET),
    Family("SE-ResNet", "seresnet18", 64, RESNET),
    Family("EfficientNet", "efficientnet_b0"),
    Family("MobileNet v3", "mobilenetv3_small_050"),
    Family("RegNet", "regnety_002"),
    Family("NFNet", "test_nfnet"),
    Family("DenseNet", "densenet121"),
    Family("VGG", "vgg11_bn", 64, {"mlp_ratio": 0.01}),
]

OUTSIDE = "parts outside its blocks add or attend"
UNTOLD = "the forward pass does not tell where its tokens lie"
NO_STREAM = "no residual additions that can be read in its blocks"
WINDOWS = "attention looks at windows, each over a grid of its own"
SCALED = "branches are scaled on the way to the addition, where no module gives them"
SUMMED = "the branch is a sum of two parts, which no module gives"
UNSUPPORTED = {
    ("attention distance", "ViT, attention beside MLP"): "attention is no module of its own",
    ("attention distance", "ViT, parts in pairs"): "a block has two attentions",
    ("attention distance", "Swin"): WINDOWS,
    ("attention distance", "Swin v2"): WINDOWS,
    ("attention distance", "CaiT"): "heads are mixed after the softmax (talking heads)",
    ("attention distance", "ConViT"): "the CLS token enters between the blocks",
    ("attention distance", "PVT v2"): "there are fewer keys than queries",
    ("attention distance", "DaViT"): OUTSIDE,
    ("skip ratios", "DaViT"): OUTSIDE,
    ("removal of a skip", "DaViT"): OUTSIDE,
    ("attention distance", "MobileViT"): OUTSIDE,
    ("skip ratios", "MobileViT"): OUTSIDE,
    ("removal of a skip", "MobileViT"): OUTSIDE,
    ("attention distance", "XCiT"): "attention is between channels, not tokens",
    ("skip ratios", "NFNet"): SCALED,
    ("removal of a skip", "NFNet"): SCALED,
    ("skip ratios", "ViT, parts in pairs"): SUMMED,
    ("removal of a skip", "ViT, parts in pairs"): SUMMED,
}
"""What would make sense, but is not there: (measure, family) and why."""


FURTHER = {
    "vit_betwixt_patch16_rope_reg4_gap_256": (32, ""),
    "visformer_tiny": (224, ""), "efficientformer_l1": (224, ""), "efficientformerv2_s0": (224, ""),
    "edgenext_xx_small": (64, ""), "focalnet_tiny_srf": (64, ""), "gmixer_12_224": (64, ""), "gmlp_s16_224": (64, ""),
    "pit_ti_224": (224, ""), "sequencer2d_s": (64, ""), "convmixer_768_32": (56, ""), "efficientvit_b0": (64, ""),
    "efficientvit_m0": (224, ""), "inception_next_tiny": (64, ""), "vitamin_small_224": (64, ""),
    "starnet_s1": (64, ""), "mobilenetv4_conv_small": (64, ""), "mobilenetv2_050": (64, ""), "ghostnet_050": (64, ""),
    "mnasnet_050": (64, ""),
    "res2net50_26w_4s": (64, ""), "resnest14d": (64, ""), "skresnet18": (64, ""), "tresnet_m": (64, ""),
    "cspresnet50": (64, ""), "xception41": (64, ""), "repghostnet_050": (64, ""), "repvgg_a0": (64, ""),
    "botnet26t_256": (256, ""), "caformer_s18": (64, ""), "mambaout_femto": (64, ""), "shvit_s1": (64, ""),
    "fasternet_t0": (64, ""), "gcresnet33ts": (64, ""), "gernet_s": (64, ""), "lcnet_050": (64, NO_STREAM),
    "tiny_vit_5m_224": (224, OUTSIDE), "coat_lite_tiny": (64, OUTSIDE), "twins_svt_small": (64, OUTSIDE),
    "levit_128s": (224, OUTSIDE), "fastvit_t8": (64, OUTSIDE), "repvit_m0_9": (64, OUTSIDE),
    "nextvit_small": (64, OUTSIDE), "swiftformer_xs": (64, OUTSIDE),
    "crossvit_9_240": (240, UNTOLD), "mobilevitv2_050": (64, UNTOLD), "nest_tiny_jx": (224, UNTOLD),
    "hiera_tiny_224": (224, NO_STREAM), "tnt_s_patch16_224": (224, NO_STREAM), "csatv2": (64, NO_STREAM),
    "samvit_base_patch16": (64, NO_STREAM), "rdnet_tiny": (64, NO_STREAM),
    "dpn48b": (64, NO_STREAM), "hrnet_w18_small": (64, NO_STREAM),
    "vovnet39a": (64, NO_STREAM), "rexnet_100": (64, NO_STREAM), "nf_resnet50": (64, NO_STREAM),
    "mvitv2_tiny": (224, NO_STREAM),
}  # fmt: skip
"""Models of other families: the size of their images, and why the measures of blocks and skips are refused, if so."""


def fields(model: Model, images: Images) -> Any:
    with_places = [layer.name for layer in model.layers if layer.grid]
    layers = None if model.has("residual stream") else with_places[-1:]
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
    "token-patch similarity": lambda m, images: localization.layer_patch_similarity(m, images[:6]),
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


def why_not(model: Model) -> str:
    """Why the measures of blocks and skips are refused; '' where they are not."""
    if model.outside:
        return OUTSIDE
    if not model.branches:
        return NO_STREAM
    return "" if model.has("residual stream") else UNTOLD


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
