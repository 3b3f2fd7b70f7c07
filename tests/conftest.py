"""What all tests share: one thread, no deadlines, and small models as fixtures."""

import os

import pytest
import torch
from hypothesis import settings
from small_models import described, small_resnet, small_vit
from textbook import noise_images

from vitcnn_utils.images import Images
from vitcnn_utils.models.facts import Model
from vitcnn_utils.models.load import load_model

# Also in the processes that tests start, and in those that share the tests (pytest-xdist).
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# They begin first, so that the two processes of `make test`, which share files, end together.
SLOWEST = [
    "test_editions",
    "test_zoo",
    "test_pages",
    "test_explorers_browser",
    "test_course",
    "test_chapters",
    "test_cli",
]
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))


@pytest.fixture
def vit() -> Model:
    return described(small_vit(), "small ViT")


@pytest.fixture
def resnet() -> Model:
    return described(small_resnet(), "small ResNet")


@pytest.fixture(scope="session")
def zoo_vit() -> Model:
    """Not trained. No test changes it."""
    return load_model("zoo/vit-cls", "untrained", device="cpu")


@pytest.fixture(scope="session")
def zoo_resnet() -> Model:
    """Not trained, but no unit is an identity, as timm starts them. No test changes it."""
    model = load_model("zoo/resnet", "untrained", device="cpu")
    for name, parameter in model.module.named_parameters():
        if name.endswith("bn3.weight"):
            torch.nn.init.ones_(parameter)
    return model


@pytest.fixture
def noise() -> Images:
    return noise_images(10)
