"""How often a classifier is right."""

import numpy as np
import torch

from vitcnn_utils.data import Images
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.models import Model


def accuracy(model: Model, images: Images, batch_size: int = 256) -> float:
    """Share of images whose label is the largest of the model's logits, from 0 to 1.

    Raises VitcnnError where the images have no labels, or not the model's classes, as far as their number tells.
    """
    if images.labels is None:
        raise VitcnnError(f"{images.name} has no labels, which accuracy needs: name its column with label_column")
    if not knows_classes(model, images):
        theirs = f"labels up to {images.labels.max()}" if images.classes is None else f"{len(images.classes)}"
        raise VitcnnError(
            f"{model.name} has {model.num_classes} classes and {images.name} has {theirs}: "
            "accuracy needs the classes that the model was trained on"
        )
    guesses = []
    for pixels in images.batches(batch_size):
        with torch.no_grad():
            guesses.append(model.module(model.prepare(pixels)).argmax(-1).cpu().numpy())
    return float((np.concatenate(guesses) == images.labels).mean())


def knows_classes(model: Model, images: Images) -> bool:
    """Whether the images have labels that can be the model's classes: as many, or none beyond, as far as is known."""
    if images.labels is None:
        return False
    if images.classes is not None:
        return len(images.classes) == model.num_classes
    return bool(images.labels.max() < model.num_classes)
