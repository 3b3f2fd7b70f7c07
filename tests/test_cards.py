"""What is said of the training of zoo models, from made-up cards."""

from typing import Any

import pytest

from vitcnn_utils.zoo import cards


def card(steps: int = 100, training_images: int = 5000, seed: int = 1, name: str = "zoo/x") -> dict[str, Any]:
    return {
        "name": name, "steps": steps, "training_images": training_images, "test_accuracy": 0.5123,
        "recipe": {"batch_size": 50, "seed": seed},
    }  # fmt: skip


def test_the_training_table_counts_how_often_an_image_was_seen() -> None:
    table = cards.training_table({"zoo/x": card(2000)})
    assert table.data.loc["zoo/x"].to_dict() == {
        "training images": "5,000", "steps": "2,000", "each image seen (times)": "20", "seed": "1",
        "test accuracy (%)": "51.2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "others", "said"),
    [
        (2000, (2000, 2000), "as many steps as it, 2,000"),
        (6000, (2000, 2000), "trained longer than the models it is compared with: 6,000 steps, they 2,000"),
        (1000, (2000, 2000), "trained shorter"),
        (2000, (2000, 3000), "different numbers of steps (full: 2,000; the others: 2,000, 3,000)"),
    ],
)
def test_the_note_on_training_follows_the_cards(reference: int, others: tuple[int, int], said: str) -> None:
    of_models = {"full": card(reference), "part": card(others[0]), "other": card(others[1], seed=2)}
    note = cards.training_note("full", of_models)
    assert said in note
    assert "part started from the same random weights as full (seed 1). other did not" in note
    assert cards.equal_steps(of_models) is (len({reference, *others}) == 1)


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert "random weights" not in cards.training_note("full", {"full": card(10), "other": card(10, seed=2)})
    of_models = {"a": card(7812), "b": card(2343)}
    assert cards.steps_beside(of_models, "a", "b") == ", 7,812 steps against 2,343"
    assert cards.steps_beside(of_models, "a", "some timm model") == cards.steps_beside(of_models, "a", "a") == ""


def test_training_says_whether_twins_are_alike() -> None:
    words = cards.twins_note(card(name="twin"), [card(name="a"), card(name="b")])
    assert "twin took 100 steps, as many as each of the others" in words and "same seed" in words
    words = cards.twins_note(card(1000, seed=2, name="twin"), [card(name="a"), card(200, name="b")])
    assert "1,000 steps, the others 100, 200: not a fair pair" in words and "seed 2, the others from 1" in words


def test_models_that_were_not_trained_alike() -> None:
    old = {"steps": 1562, "recipe": {"epochs": 2, "seed": 2, "data_fraction": 0.1, "ema_decay": 0}}
    new = {"steps": 19531, "recipe": {"epochs": 50, "seed": 1, "data_fraction": 1, "patch_drop": 0.5}}
    assert cards.trained_unlike({}) == cards.trained_unlike({"a": old}) == ""
    assert (
        cards.trained_unlike({"a": old, "b": old | {"recipe": old["recipe"] | {"seed": 1, "data_fraction": 1}}}) == ""
    )
    said = "these models were not trained alike (in epochs): a 1,562 steps, b 19,531 steps"
    assert cards.trained_unlike({"a": old, "b": new}) == said, "what an older card does not have is not told"
    other = {"steps": 1562, "recipe": {"epochs": 2, "patch_drop": 0.5}}
    assert "(in ema decay, patch drop)" in cards.trained_unlike({"a": old, "b": other})
