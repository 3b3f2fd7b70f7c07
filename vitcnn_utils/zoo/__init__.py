"""Small models that the project trains itself and ships: recipes, trainer, weights, cards."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from vitcnn_utils.errors import VitcnnError

if TYPE_CHECKING:
    from vitcnn_utils.zoo.recipes import Recipe

FOLDER = Path(__file__).parent / "weights"


def names() -> list[str]:
    """The zoo models whose weights are here, in the order of the recipes."""
    from vitcnn_utils.zoo.recipes import RECIPES

    return [name for name in RECIPES if _path(name, ".json").exists()]


def card(name: str) -> dict[str, Any]:
    """How a zoo model was made: recipe, command, steps, seed, device, minutes, test accuracy, sha256."""
    from vitcnn_utils.zoo.recipes import find_recipe

    path = _path(name, ".json")
    if not path.exists():
        find_recipe(name)  # an unknown model cannot be trained either
        raise VitcnnError(f"{name} is not trained yet: run `vitcnn train {name}`; there are: {', '.join(names())}")
    return json.loads(path.read_text())


def shape(name: str) -> "Recipe":
    """The recipe that a zoo model is built by: the shape is that of its card, the rest that of the table.

    Weights are kept when the table changes. Where there is no card, the table has it.
    """
    from vitcnn_utils.zoo.recipes import find_recipe

    recipe, trained = find_recipe(name), card(name)["recipe"] if name in names() else {}
    words = ("family", "readout", "heads", "skipless_block", "mimetic")
    return replace(recipe, **{word: trained[word] for word in words if word in trained})


def trainings() -> dict[str, str]:
    """By model, a letter and its passes: models of one letter were trained alike and can be compared.

    They may differ in what they are, in their images and start, and in CutMix.
    """
    apart = {"family", "readout", "heads", "skipless_block", "mimetic", "cutmix", "data_fraction", "seed"}
    recipes = {name: card(name)["recipe"] for name in names()}
    alike = {name: str({key: recipe[key] for key in recipe if key not in apart}) for name, recipe in recipes.items()}
    letters = dict(zip(dict.fromkeys(alike.values()), ascii_uppercase, strict=False))
    return {name: f"{letters[alike[name]]}, {recipes[name]['epochs']} passes" for name in recipes}


def log(name: str) -> list[dict[str, Any]]:
    """The training log, a row an epoch: epoch, step, loss, train_accuracy, held_out_accuracy, seconds, cpu_seconds.

    Of a ViT also head_distances, the mean attention distance of each head in pixels, a list a block.
    """
    return [json.loads(line) for line in _path(name, ".log.jsonl").read_text().splitlines()]


def weights_path(name: str) -> Path:
    """The fp16 safetensors of a zoo model, after its sha256 was found to be the card's."""
    path = _path(name, ".safetensors")
    expected = card(name)["sha256"]
    mend = f"restore it or run `vitcnn train {name}`"
    if not path.exists():
        raise VitcnnError(f"{path} is missing, though its card is there: {mend}")
    if sha256(path.read_bytes()).hexdigest() != expected:
        raise VitcnnError(f"{path} is damaged: its sha256 is not that of its card; {mend}")
    return path


def _path(name: str, suffix: str) -> Path:
    return FOLDER / (name.removeprefix("zoo/") + suffix)
