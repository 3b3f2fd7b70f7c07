"""Which model is compared with which, on which images, where an edition mixes its own with those of the zoo."""

from dataclasses import replace

import numpy as np
import pytest

from vitcnn_utils.editions import companions
from vitcnn_utils.editions.companions import TWIN, WHOLE
from vitcnn_utils.images import Images, load_images
from vitcnn_utils.zoo.recipes import RECIPES

OURS, THEIRS = "zoo/vit-cls-data-10", "deit3_small_patch16_224.fb_in1k"


@pytest.mark.parametrize(
    ("name", "to", "expected"),
    [(OURS, WHOLE, OURS), (THEIRS, "hf-hub:me/mine", THEIRS), (OURS, THEIRS, None), (THEIRS, WHOLE, None),
     (None, WHOLE, None)],
)  # fmt: skip
def test_related(name: str | None, to: str, expected: str | None) -> None:
    assert companions.related(name, to) == expected


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        (OURS, (TWIN, WHOLE), TWIN),  # the default edition
        (OURS, (None, WHOLE), WHOLE),
        (OURS, (None, THEIRS), TWIN),  # the zoo's stands in: never compared with another's
        (THEIRS, (TWIN, "hf-hub:me/mine"), "hf-hub:me/mine"),
        (THEIRS, (TWIN, WHOLE), None),
        (None, (TWIN, WHOLE), None),
    ],
)
def test_beside(name: str | None, candidates: tuple[str | None, ...], expected: str | None) -> None:
    assert companions.beside(name, *candidates) == expected


def test_another_start() -> None:
    assert companions.another_start(WHOLE, WHOLE, TWIN) == TWIN
    assert companions.another_start(WHOLE, WHOLE, None) is None
    assert companions.another_start(WHOLE, THEIRS, None) == TWIN
    assert companions.another_start(THEIRS, THEIRS, "hf-hub:me/again") == "hf-hub:me/again"
    assert companions.another_start(THEIRS, THEIRS, TWIN) is None
    assert companions.another_start("zoo/vit-small-data-100", WHOLE, TWIN) is None


def test_the_twin_is_one() -> None:
    assert RECIPES[TWIN] == replace(RECIPES[WHOLE], seed=2)


def test_companions_see_the_images_that_they_were_made_for() -> None:
    large = Images("large", np.zeros((5, 64, 64, 3), np.uint8))
    assert companions.images_of(THEIRS, THEIRS, large, seed=3) is large
    assert companions.images_of(OURS, WHOLE, large, seed=3) is large  # a zoo's ViT on whatever one likes
    seen = companions.images_of(OURS, THEIRS, large, seed=3)
    assert seen.name == "cifar10"
    np.testing.assert_array_equal(seen.pixels, load_images("cifar10", 5, seed=3).pixels)


def test_the_reader_is_told() -> None:
    said = companions.note("Figure 8", [OURS, OURS, TWIN])
    assert said.startswith(f"**Figure 8 shows models of the zoo**, `{OURS}`, `{TWIN}`, on images of CIFAR-10")
