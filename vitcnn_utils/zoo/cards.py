"""What the cards of zoo models say of their training, in tables and sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitcnn_utils.tables import NumberTable, number_table


def training_table(cards: Mapping[str, Mapping[str, Any]]) -> NumberTable:
    """What the cards of zoo models say of their training, a row a model."""
    return number_table({name: _training(card) for name, card in cards.items()}, "How the models were trained")


def _training(card: Mapping[str, Any]) -> dict[str, str | float]:
    seen = card["steps"] * card["recipe"]["batch_size"]
    return {
        "training images": f"{card['training_images']:,}", "steps": f"{card['steps']:,}",
        "each image seen (times)": f"{seen / card['training_images']:.0f}", "seed": str(card["recipe"]["seed"]),
        "test accuracy (%)": f"{100 * card['test_accuracy']:.1f}",
    }  # fmt: skip


def differences(recipe: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """In which values two recipes differ; an older one may lack some."""
    return {name for name in recipe.keys() | other.keys() if recipe.get(name) != other.get(name)}


STUDIED = {"data_fraction", "family", "heads", "readout", "skipless_block", "seed"}
"""In what models that the figures compare may differ: what they are compared for (images, size, read-out, skips), and
the start."""


def trained_unlike(cards: Mapping[str, Mapping[str, Any]]) -> str:
    """Why models cannot be compared, by their cards: in what else than `STUDIED` their training differs; or ''."""
    recipes = [card["recipe"] for card in cards.values()]
    apart = {name for recipe in recipes[1:] for name in differences(recipes[0], recipe)} - STUDIED
    if not apart:
        return ""
    told = sorted(name for name in apart if all(name in recipe for recipe in recipes)) or sorted(apart)
    steps = ", ".join(f"{name} {card['steps']:,} steps" for name, card in cards.items())
    return f"these models were not trained alike (in {', '.join(told).replace('_', ' ')}): {steps}"


def equal_steps(cards: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all models were trained for one number of steps."""
    return len({card["steps"] for card in cards.values()}) == 1


def steps_beside(cards: Mapping[str, Mapping[str, Any]], name: str, other: str) -> str:
    """', 7,812 steps against 2,343' from the cards of two models; '' where they took as many, or one has no card."""
    if not {name, other} <= cards.keys() or equal_steps({one: cards[one] for one in (name, other)}):
        return ""
    return f", {cards[name]['steps']:,} steps against {cards[other]['steps']:,}"


def training_note(reference: str, cards: Mapping[str, Mapping[str, Any]]) -> str:
    """What to keep in mind of the training when a series is compared with `reference`, as sentences."""
    own, others = cards[reference], {name: card for name, card in cards.items() if name != reference}
    steps = sorted({card["steps"] for card in others.values()})
    sentences = []
    if steps == [own["steps"]]:
        sentences.append(f"All models beside {reference} were trained for as many steps as it, {own['steps']:,}.")
    elif len(steps) == 1:
        longer = "longer" if own["steps"] > steps[0] else "shorter"
        sentences.append(
            f"{reference} was trained {longer} than the models it is compared with: {own['steps']:,} steps, they "
            f"{steps[0]:,}. What sets a curve apart from 1 is therefore the data and the length of training; what sets "
            "it apart from another curve is not the length."
        )
    else:
        counts = ", ".join(f"{count:,}" for count in steps)
        sentences.append(
            f"The models were trained for different numbers of steps ({reference}: {own['steps']:,}; the others: "
            f"{counts}), so their curves differ by more than the data."
        )
    seed = own["recipe"]["seed"]
    same = [name for name, card in others.items() if card["recipe"]["seed"] == seed]
    other = [name for name in others if name not in same]
    if same:
        sentences.append(f"{', '.join(same)} started from the same random weights as {reference} (seed {seed}).")
    if same and other:
        sentences.append(f"{', '.join(other)} did not, which can only make it less alike.")
    return " ".join(sentences)


def twins_note(twin: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What the cards of the zoo say of how fairly the intact twin stands beside the others, in a paragraph.

    twin, others: from `zoo.card`.
    """
    steps = {card["steps"] for card in others}
    length = (
        f"took {twin['steps']:,} steps, as many as each of the others"
        if steps == {twin["steps"]}
        else f"took {twin['steps']:,} steps, the others {', '.join(f'{n:,}' for n in sorted(steps))}: not a fair pair"
    )
    seeds = {card["recipe"]["seed"] for card in others}
    start = (
        "All started from the same seed."
        if seeds == {twin["recipe"]["seed"]}
        else f"It started from seed {twin['recipe']['seed']}, the others from {', '.join(map(str, sorted(seeds)))}: "
        "a part of any difference is that between two starts of one recipe."
    )
    return f"By the cards of the zoo, the intact twin {twin['name']} {length}. {start}"
