"""Accuracy, on a classifier whose guesses are known."""

import numpy as np
import pytest
import torch
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images
from vitcnn_utils.measures.accuracy import accuracy, knows_classes
from vitcnn_utils.models.facts import Model


class Red(nn.Module):
    """Class 1 where the first pixel is red, else class 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = x[:, 0, 0, 0]
        return torch.stack([0.5 - red, red - 0.5], dim=1)


MODEL = Model("red", Red(), torch.device("cpu"), (2, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), num_classes=2)
PIXELS = np.zeros((5, 2, 2, 3), np.uint8)
PIXELS[3:, ..., 0] = 255


def test_it_is_the_share_of_right_guesses_over_all_batches() -> None:
    images = Images("reds", PIXELS, np.array([0, 0, 1, 1, 1]))
    assert accuracy(MODEL, images, batch_size=2) == pytest.approx(0.8)


def test_without_labels() -> None:
    with pytest.raises(VitcnnError, match="reds has no labels"):
        accuracy(MODEL, Images("reds", PIXELS))


def test_with_classes_that_the_model_does_not_have() -> None:
    with pytest.raises(VitcnnError, match="has 2 classes and reds has labels up to 7"):
        accuracy(MODEL, Images("reds", PIXELS, np.array([0, 0, 1, 1, 7])))


def test_classes_are_the_models_if_there_are_as_many() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    assert not knows_classes(MODEL, Images("reds", PIXELS))
    assert knows_classes(MODEL, Images("reds", PIXELS, labels))
    assert knows_classes(MODEL, Images("reds", PIXELS, labels, ("blue", "red")))
    # Two of a thousand classes in folders are numbered anew, and a head of 21,843 is not that of ImageNet-1k.
    some = Images("reds", PIXELS, labels, ("blue", "green", "red"))
    assert not knows_classes(MODEL, some)
    with pytest.raises(VitcnnError, match="has 2 classes and reds has 3: accuracy needs"):
        accuracy(MODEL, some)
