"""Pairs of zoo models that differ in one thing, by their cards: what a comparison of two models needs."""

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

from vitcnn_utils import zoo
from vitcnn_utils.zoo.cards import differences

# question -> the one setting of the recipe that differs, and whether it is larger in the first model.
SETTINGS = {
    "less data": ("data_fraction", True),
    "without CutMix": ("cutmix", True),
    "mimetic start": ("mimetic", False),
    "another start": ("seed", False),
}

Pairs = dict[str, tuple[str, str]]


def pairs() -> Pairs:
    """Of each question two ViTs that ship with weights; prints a line for each."""
    found = most_pairs({name: zoo.card(name)["recipe"] for name in zoo.names()})
    for question, pair in found.items():
        print(f"{question}: {' → '.join(pair)}")
    return found


def most_pairs(recipes: Mapping[str, Mapping[str, Any]]) -> Pairs:
    """Question -> two models, of those ViTs that are trained alike but for the settings and answer most questions."""
    ours = {setting for setting, _ in SETTINGS.values()}
    alike: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        if recipe["family"] != "resnet":
            rest = sorted((key, value) for key, value in recipe.items() if key not in ours)
            alike.setdefault(str(rest), []).append(name)
    return max((dict(_pairs({name: recipes[name] for name in names})) for names in alike.values()), key=len)


def _pairs(recipes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, str]]]:
    for question, (setting, descending) in SETTINGS.items():
        steps = {
            (a, b): (recipes[b].get(setting) or 0) - (recipes[a].get(setting) or 0)
            for a, b in permutations(recipes, 2)
            if differences(recipes[a], recipes[b]) == {setting}
        }
        ordered = {pair: abs(step) for pair, step in steps.items() if (step < 0) == descending}
        if ordered:
            yield question, max(ordered, key=lambda pair: ordered[pair])
