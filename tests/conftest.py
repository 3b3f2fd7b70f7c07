"""What all tests share: one thread, no deadlines, and small models as fixtures."""

import pytest
import torch
from hypothesis import settings
from small_models import described, small_resnet, small_vit
from textbook import noise_images

from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Model

torch.set_num_threads(1)
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def vit() -> Model:
    return described(small_vit(), "small ViT")


@pytest.fixture
def resnet() -> Model:
    return described(small_resnet(), "small ResNet")


@pytest.fixture
def noise() -> Images:
    return noise_images(10)
