"""How often a classifier is right."""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from vitcnn_utils.errors import VitcnnError, not_finite
from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Model
from vitcnn_utils.run import each_batch


def accuracy(model: Model, images: Images, batch_size: int | None = None) -> float:
    """Share of images whose label is the largest of the model's logits, from 0 to 1.

    batch_size: images at once; None for as many as fit in memory.
    Raises VitcnnError where the images have no labels, or not the model's classes, as far as their number tells, and
    for NaN or Inf in the logits.
    """
    if images.labels is None:
        raise VitcnnError(f"{images.name} has no labels, which accuracy needs: name its column with label_column")
    if not knows_classes(model, images):
        theirs = f"labels up to {images.labels.max()}" if images.classes is None else f"{len(images.classes)}"
        raise VitcnnError(
            f"{model.name} has {model.num_classes} classes and {images.name} has {theirs}: "
            "accuracy needs the classes that the model was trained on"
        )

    def guesses(x: Tensor) -> np.ndarray:
        with torch.no_grad():
            logits = model.module(x)
        if not torch.isfinite(logits).all():
            raise not_finite(f"the logits of {model.name}")
        return logits.argmax(-1).cpu().numpy()

    return float((np.concatenate(list(each_batch(model, images, batch_size, guesses))) == images.labels).mean())


def knows_classes(model: Model, images: Images) -> bool:
    """Whether the images have labels that can be the model's classes: as many, or none beyond, as far as is known."""
    if images.labels is None:
        return False
    if images.classes is not None:
        return len(images.classes) == model.num_classes
    return bool(images.labels.max() < model.num_classes)


def accuracies(intact: float, trained: Mapping[int, float], cut: Mapping[int, float]) -> xr.DataArray:
    """Accuracy in percent of the intact model and of those without a block's skips: (skips, experiment).

    All given from 0 to 1. trained: block -> of the model that was trained without, as far as there is one (else NaN);
    cut: block -> of the intact model that was run without.
    """
    rows = {"all there": [intact, intact]} | {f"none in block {b}": [trained.get(b, np.nan), cut[b]] for b in cut}
    coords = {"skips": list(rows), "experiment": ["trained without", "cut after training"]}
    return xr.DataArray(100 * np.array(list(rows.values())), coords, ("skips", "experiment"), attrs={"units": "%"})
