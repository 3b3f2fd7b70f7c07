"""Accuracy, on a classifier whose guesses are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from torch import nn

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images, load_images
from vitcnn_utils.measures.accuracy import accuracy, knows_classes, points_ahead, right_guesses
from vitcnn_utils.models import load
from vitcnn_utils.models.facts import Model
from vitcnn_utils.models.load import load_model
from vitcnn_utils.zoo.architectures import CLASS_NAMES


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
    right = right_guesses(MODEL, images)
    assert right.values.tolist() == [1, 1, 0, 1, 1] and right.attrs["model"] == "red"
    assert points_ahead(right, right[1:4]) == pytest.approx(80 - 200 / 3)
    with pytest.raises(VitcnnError, match="NaN or Inf in the logits of red"):
        accuracy(replace(MODEL, mean=(np.nan,) * 3), images)


@pytest.mark.parametrize(
    ("labels", "classes", "refusal"),
    [
        ([0, 0, 1, 1, 1], None, ""),
        ([0, 0, 1, 1, 1], ("blue", "red"), ""),
        (None, None, "reds has no labels"),
        ([0, 0, 1, 1, 7], None, "has 2 classes and reds has labels up to 7"),
        # Two of a thousand classes in folders are numbered anew, and a head of 21,843 is not that of ImageNet-1k.
        ([0, 0, 1, 1, 1], ("blue", "green", "red"), "has 2 classes and reds has 3, the first of them 'blue': accuracy"),
    ],
)
def test_classes_are_the_models_if_there_are_as_many(
    labels: list[int] | None, classes: tuple[str, ...] | None, refusal: str
) -> None:
    images = Images("reds", PIXELS, None if labels is None else np.array(labels), classes)
    assert knows_classes(MODEL, images) == (not refusal)
    if refusal:
        with pytest.raises(VitcnnError, match=refusal):
            accuracy(MODEL, images)


class Ordered(nn.Module):
    """Class 10 r + g of a first pixel of the colour (r, g)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        number = (x[:, 0, 0, 0] * 2550 + x[:, 1, 0, 0] * 255).round().long()
        return nn.functional.one_hot(number, 1000).float()


def of_classes(numbers: list[int], classes: tuple[str, ...]) -> Images:
    """An image of each of ImageNet's classes of these numbers, with the names that a folder or data set gives them."""
    pixels = np.zeros((len(numbers), 2, 2, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.divmod(numbers, 10)
    return Images("some", pixels, np.arange(len(numbers)), classes)


IMAGENET = replace(MODEL, module=Ordered(), num_classes=1000)
WNIDS = ImageNetInfo("imagenet-1k").label_names()
NAMES = ImageNetInfo("imagenet-1k").label_descriptions()


def test_folders_of_all_of_imagenet_are_matched_by_their_names() -> None:
    by_alphabet = sorted(range(1000), key=lambda number: NAMES[number] + WNIDS[number])
    folders = tuple(f"{NAMES[number].partition(',')[0]} {WNIDS[number]}" for number in by_alphabet)
    assert not knows_classes(IMAGENET, of_classes(by_alphabet, folders))
    assert accuracy(IMAGENET, of_classes(by_alphabet, tuple(WNIDS[number] for number in by_alphabet))) == 1
    unambiguous = [number for number in by_alphabet if NAMES.count(NAMES[number]) == 1]
    assert accuracy(IMAGENET, of_classes(unambiguous, tuple(NAMES[number] for number in unambiguous))) == 1


def test_a_data_set_in_the_order_of_imagenet_may_spell_a_few_names_otherwise() -> None:
    names = tuple("spelt otherwise" if number % 7 == 0 else name for number, name in enumerate(NAMES))
    assert accuracy(IMAGENET, of_classes(list(range(1000)), names)) == 1


def test_ten_classes_of_imagenet() -> None:
    imagenette = {0: "tench", 217: "English_springer", 482: "cassette player", 491: "chain saw", 571: "gas pump"}
    assert accuracy(IMAGENET, of_classes(list(imagenette), tuple(imagenette.values()))) == 1
    with pytest.raises(VitcnnError, match="has 1000 classes and some has 2, the first of them 'tench'"):
        accuracy(IMAGENET, of_classes([0, 1], ("tench", "unicorn")))
    with pytest.raises(VitcnnError, match="accuracy needs the classes"):  # a bird and a machine are called so
        accuracy(IMAGENET, of_classes([0, 134], ("tench", "crane")))


def test_clothes_are_not_classes_of_a_model_of_cifar10(zoo_vit: Model) -> None:
    assert knows_classes(zoo_vit, load_images("cifar10", n=20))
    assert not knows_classes(zoo_vit, load_images("fashion-mnist", n=20))


@pytest.mark.parametrize("name", ["zoo/vit-cls", "hf-hub:small/named"])
def test_weights_of_ones_own_are_of_the_classes_that_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"architecture": "test_vit", "num_classes": 10, "model_args": {"img_size": 32}}
    config["pretrained_cfg"] = {"input_size": [3, 32, 32], "label_names": list(CLASS_NAMES)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(load, "fetch_file", lambda *_: tmp_path / "config.json")
    published = load_model(name, "untrained", "cpu")
    assert knows_classes(published, load_images("cifar10", n=20))
    published.module.reset_classifier(3)
    save_file(published.module.state_dict(), tmp_path / "mine.safetensors")
    model = load_model(name, tmp_path / "mine.safetensors", "cpu")
    pictures = Images("pets", np.zeros((3, 32, 32, 3), np.uint8), np.arange(3), ("cat", "dog", "owl"))
    assert accuracy(model, pictures) == pytest.approx(1 / 3)
