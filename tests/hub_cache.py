"""Small models with random weights in a cache of the hub, where `load_model("hf-hub:…")` finds them without network."""

import json
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from small_models import stir

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZE = 64
VIT = {"img_size": SIZE, "depth": 4, "embed_dim": 48, "num_heads": 6}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "small/vit": ("vit_base_patch16_224", VIT),
    "small/vit-little": ("vit_base_patch16_224", VIT),
    "small/vit-gap": ("vit_relpos_medium_patch16_224", VIT),
    "small/vit-cls": ("vit_relpos_medium_patch16_cls_224", VIT),
    "small/cnn": ("resnetv2_50x1_bit", {"channels": [128, 128, 128, 256], "stem_chs": 32}),
    "small/convnext": ("convnext_tiny", {"depths": [2, 2, 2, 2], "dims": [16, 24, 32, 40]}),
}


def fill(
    home: Path, models: dict[str, tuple[str, dict[str, Any]]] = MODELS, size: int = SIZE, classes: int = 20
) -> None:
    """Put models into `home`, a value for HF_HOME, as if they had been fetched from the hub.

    models: of each the architecture and its options; size: side of the images that they take, in pixels.
    """
    for seed, (name, (architecture, options)) in enumerate(models.items()):
        repository = home / "hub" / f"models--{name.replace('/', '--')}"
        folder = repository / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        module = stir(timm.create_model(architecture, num_classes=classes, **options), seed)
        save_file({key: value.contiguous() for key, value in module.state_dict().items()}, folder / "model.safetensors")
        facts = module.pretrained_cfg | {"input_size": (3, size, size), "num_classes": classes}
        facts = {key: facts[key] for key in ("input_size", "num_classes", "mean", "std", "first_conv", "classifier")}
        config = {"architecture": architecture, "num_classes": classes, "model_args": options, "pretrained_cfg": facts}
        (folder / "config.json").write_text(json.dumps(config))
