"""Checks for the exercises of the session: each says what is wrong with an answer, and not only that it is.

    from vitcnn_utils.course import check

    check.cka_by_hand(my_cka)

A check prints one line and gives True or False. It computes what is right from the arrays that the student measured,
so it holds for any models and images.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.measures.cka import linear_cka

TOLERANCE = 5e-3  # of an answer that may have been rounded to two digits


class _Wrong(Exception):
    """An answer is wrong; the message says in which way."""


def _exercise(praise: str) -> Callable[[Callable[..., None]], Callable[..., bool]]:
    """Make a check of a function that raises `_Wrong`: it prints the line, and nothing a student gives can break it."""

    def decorate(function: Callable[..., None]) -> Callable[..., bool]:
        @functools.wraps(function)
        def checked(*answers: Any, **measured: Any) -> bool:
            try:
                if any(answer is ... for answer in answers):
                    raise _Wrong("Not answered yet: put your answer in place of the three dots.")
                function(*answers, **measured)
            except _Wrong as wrong:
                print(f"✗ {wrong}")
                return False
            except Exception as error:
                print(
                    f"✗ Your answer cannot be read ({type(error).__name__}: {error}). Compare its form with the task."
                )
                return False
            print(f"✓ {praise}")
            return True

        return checked

    return decorate


def _number(name: str, value: Any) -> float:
    if value is ...:
        raise _Wrong(f"`{name}` is not answered yet: put a number in place of the three dots.")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _Wrong(f"`{name}` must be one number, not {type(value).__name__}.") from None


def _close(a: float, b: float, tolerance: float = TOLERANCE) -> bool:
    return abs(a - b) <= tolerance


# 1: CKA by hand


@_exercise("Right: 1 for the same features, however rotated, scaled or moved, and the textbook's number for others.")
def cka_by_hand(my_cka: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """Biased linear CKA of two (images, features) arrays (Kornblith et al. 2019)."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6)) + 2, random.normal(size=(40, 5)) - 1
    y[:, :3] += x[:, :3]
    wanted, value = _biased_cka(x, y), my_cka(x, y)
    if value is ...:
        raise _Wrong("`my_cka` still returns the three dots: return the number instead.")
    if np.ndim(value) > 0:
        raise _Wrong(f"`my_cka` returns an array of shape {np.shape(value)}: CKA of two layers is one number.")
    value = _number("my_cka(x, y)", value)
    centred = [v - v.mean(0) for v in (x, y)]
    grams = [v @ v.T for v in centred]
    if _close(value, wanted, 1e-6):
        turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
        if not _close(my_cka(x @ turn * 3 + 1, x), 1, 1e-6):
            raise _Wrong("The number is right here, but turning, scaling and moving the features must not change it.")
        return
    if _close(value, wanted**2, 1e-6):
        raise _Wrong("This is the square of CKA: divide by the root of the product of both norms, not by the product.")
    if _close(value, _ratio(*(v @ v.T for v in (x, y))), 1e-6):
        raise _Wrong("The features are not centred: subtract from each feature its mean over the images.")
    if _close(
        value, _ratio(*((v - v.mean(1, keepdims=True)) @ (v - v.mean(1, keepdims=True)).T for v in (x, y))), 1e-6
    ):
        raise _Wrong("You centred each image over its features: centre each feature over the images (axis 0).")
    if _close(value, float((grams[0] * grams[1]).sum()), 1e-3):
        raise _Wrong("This is only the numerator: divide by the norms of both Gram matrices.")
    if value > 1 + 1e-9 or value < 0:
        raise _Wrong(f"CKA lies between 0 and 1, and yours is {value:.3g}: which norms do you divide by?")
    raise _Wrong(f"`my_cka` gives {value:.3f} where {wanted:.3f} is right: check the centring, then the denominator.")


def _ratio(K: np.ndarray, L: np.ndarray) -> float:
    return float((K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum()))


def _biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = (v - v.mean(0) for v in (x, y))
    return _ratio(x @ x.T, y @ y.T)


# 2: Break it


@_exercise("Right. With more features than images the biased estimate calls noise alike; the unbiased one does not.")
def cka_breaks(biased: Any, unbiased: Any, moved: Any, *, noise: Sequence[np.ndarray]) -> None:
    """The same two arrays of noise by both estimators, and the first against itself moved by a constant."""
    biased, unbiased, moved = (
        _number(name, value) for name, value in (("biased", biased), ("unbiased", unbiased), ("moved", moved))
    )
    a, b = noise
    right_biased, right_unbiased = _biased_cka(a, b), linear_cka(a, b)
    if _close(biased, right_unbiased) and _close(unbiased, right_biased):
        raise _Wrong("`biased` and `unbiased` are swapped: `my_cka` is the biased one, `vu.linear_cka` the unbiased.")
    if _close(biased, 1, 1e-9):
        raise _Wrong("`biased` is exactly 1: you compared one array with itself. Compare the first with the second.")
    if not _close(biased, right_biased):
        raise _Wrong(f"`biased` should be `my_cka` of the two arrays of noise, about {right_biased:.2f}.")
    if _close(unbiased, right_biased):
        raise _Wrong("`unbiased` is the biased number again: call `vu.linear_cka` for it.")
    if not _close(unbiased, right_unbiased):
        raise _Wrong("`unbiased` should be `vu.linear_cka` of the same two arrays; negative values are allowed.")
    if not _close(moved, 1):
        raise _Wrong(
            "`moved` should be 1: CKA centres each feature, so adding a constant changes nothing. Is yours centred?"
        )


# 3: The most local head


@_exercise("Right. Now open the attention explorer at this head, and look at where it looks.")
def most_local_head(answer: Any, *, heads: xr.Dataset) -> None:
    """(block, head) of the head with the smallest mean distance, both counted from 0."""
    distances = heads.distance.values
    shape, right = distances.shape, np.unravel_index(distances.argmin(), distances.shape)
    if np.ndim(answer) == 0:
        if int(answer) == int(distances.argmin()):
            raise _Wrong("This counts through all heads of all blocks: `np.unravel_index` turns it into (block, head).")
        raise _Wrong("Give two numbers, (block, head).")
    block, head = (int(i) for i in answer)
    if (block, head) == right:
        return
    if (block, head) == np.unravel_index(distances.argmax(), shape):
        raise _Wrong("That is the head that looks farthest: take the smallest distance, not the largest.")
    if (block, head) == (right[0] + 1, right[1] + 1):
        raise _Wrong("Blocks and heads count from 0 in this book, and yours from 1.")
    if (head, block) == right:
        raise _Wrong("Block first, then head: yours are swapped.")
    if head == 0 and block == right[0]:
        raise _Wrong("The block is right. Figure 3 sorts the heads, so its first marker is not head 0: ask the array.")
    if not (0 <= block < shape[0] and 0 <= head < shape[1]):
        raise _Wrong(f"There are {shape[0]} blocks of {shape[1]} heads, and {(block, head)} is not one of them.")
    if block == 0:
        raise _Wrong("You looked in block 0 only: search all blocks.")
    raise _Wrong(
        f"Head {head} of block {block} looks {distances[block, head]:.1f} px far; there is one that looks nearer."
    )


# 4 and 6: without code


def _letter(answer: Any, right: str, wrong: dict[str, str]) -> None:
    letter = str(answer).strip().upper()
    if letter == right:
        return
    if letter not in wrong:
        raise _Wrong(f"Answer with one letter, {', '.join(sorted([right, *wrong]))}.")
    raise _Wrong(wrong[letter])


@_exercise("Right: a distance tells how far, never what for. Uniform attention is far, and looks for nothing.")
def what_a_distance_says(answer: Any) -> None:
    """What can be concluded from a head whose mean distance is that of uniform attention?"""
    _letter(answer, "C", {
        "A": "A mean distance says nothing of the object: the head may look everywhere alike, sky included.",
        "B": "Local would be a small distance; uniform attention has about the largest mean that a head can have.",
        "D": "An untrained head is near uniform, but so may a trained one be: compare with the untrained twin.",
    })  # fmt: skip


@_exercise("Right: CLS is a token without a place, so the spatial tokens start behind it, at the upper left.")
def places(cls: Any, first_token: Any, *, grid: tuple[int, int]) -> None:
    """The letter for what CLS is, and (row, column) of the patch of the first spatial token."""
    if cls is ... or first_token is ...:
        raise _Wrong("Not answered yet: two answers are asked, a letter and a place.")
    _letter(cls, "B", {
        "A": "The patches are cut without gaps, and none is left for CLS: count them.",
        "C": "An average over tokens is the other read-out, GAP. CLS is a token of its own, learned like a weight.",
        "D": "CLS is there from the first block on, and every block lets it look at all patches.",
    })  # fmt: skip
    place = tuple(int(i) for i in first_token)
    rows, columns = grid
    if place == (0, 0):
        return
    if place == (rows // 2, columns // 2):
        raise _Wrong(
            "The middle has the index S // 2 + columns // 2. Tokens are counted row by row: where does one begin?"
        )
    if place == (rows - 1, 0):
        raise _Wrong("The first row is at the top here, as in the image; heat maps of layers begin at the bottom.")
    if place == (0, 1):
        raise _Wrong("You counted CLS as a place: without it the first spatial token is at the very corner.")
    raise _Wrong("Tokens are counted row by row from the upper left: give (row, column) of the first, from 0.")


# 5: A missing skip


@_exercise(
    "Right. Without the skip, what comes after the block is a new representation; the old one cannot get around."
)
def missing_skip(prediction: Any, intact: Any, without: Any, *, maps: Sequence[xr.DataArray], block: int) -> None:
    """Mean CKA between the blocks before `block` and those from it on, of the intact twin and of the cut model."""
    word = str(prediction).strip().lower()
    if word not in ("higher", "lower", "the same"):
        raise _Wrong("Predict before you measure: 'higher', 'lower' or 'the same'.")
    values = [m.values for m in maps]
    right = [float(v[:block, block:].mean()) for v in values]
    answers = [_number("intact", intact), _number("without", without)]
    if all(map(_close, answers, right)):
        return
    if all(map(_close, answers, right[::-1])):
        raise _Wrong("Both numbers are right, but swapped: the first is that of the intact model.")
    others = {
        "You averaged the whole map: take the part of it that compares one side with the other.": lambda v: v.mean(),
        "This is the mean before the block, within one side: take rows before it and columns from it on.":
            lambda v: v[:block, :block].mean(),
        "This is the mean after the block, within one side: take rows before it and columns from it on.":
            lambda v: v[block:, block:].mean(),
        f"Your cut lies one block late: block {block} itself belongs to the second part.":
            lambda v: v[: block + 1, block + 1 :].mean(),
        "This is the one pair of neighbours at the cut: average over all pairs across it.":
            lambda v: v[block - 1, block],
    }  # fmt: skip
    for message, part in others.items():
        if _close(answers[1], float(part(values[1]))):
            raise _Wrong(message)
    raise _Wrong(
        f"For the intact model {right[0]:.2f} is right: use `map.values[:{block}, {block}:].mean()` of each map."
    )


# 7: One token or the mean


@_exercise("Right. Trained through CLS, single tokens know little of the class; trained through the mean, each does.")
def token_or_mean(cls_model: Any, gap_model: Any, *, probes: Sequence[xr.Dataset]) -> None:
    """How many points the mean of the tokens is ahead of a single token, in the last layer of both models."""
    answers = [_number("cls_model", cls_model), _number("gap_model", gap_model)]
    accuracy = [p.accuracy.isel(layer=-1).mean("draw") for p in probes]
    right = [100 * float(a.sel(readout="mean") - a.sel(readout="token")) for a in accuracy]
    if all(_close(a, b, 0.6) for a, b in zip(answers, right, strict=True)):
        return
    if all(_close(a, b / 100, 0.006) for a, b in zip(answers, right, strict=True)):
        raise _Wrong("These are shares: give percentage points, that is, times 100.")
    if all(_close(a, -b, 0.6) for a, b in zip(answers, right, strict=True)):
        raise _Wrong("The sign is reversed: how far is the mean *ahead of* the single token?")
    if all(_close(a, b, 0.6) for a, b in zip(answers, right[::-1], strict=True)):
        raise _Wrong("The two models are swapped.")
    if "cls" in accuracy[0].readout and _close(
        answers[0], 100 * float(accuracy[0].sel(readout="cls") - accuracy[0].sel(readout="token")), 0.6
    ):
        raise _Wrong("For the first model you took the CLS token: take the mean of the spatial tokens, 'mean'.")
    if _close(answers[0], 100 * float(accuracy[0].sel(readout="mean")), 0.6):
        raise _Wrong("This is the accuracy of the mean alone: subtract that of the single token.")
    raise _Wrong("Average `accuracy` over the draws, then subtract the read-out 'token' from 'mean', times 100.")


# 8: Figure 12 against its ceiling


@_exercise("Right. Two trainings on all data differ too: only what lies below *that* is owed to the missing data.")
def against_the_ceiling(share: Any, *, little: xr.DataArray, ceiling: xr.DataArray) -> None:
    """Of each block: CKA of the model with little data, as a share of what a second full training reaches."""
    answer = np.asarray(share, dtype=float)
    a, c = (np.diagonal(v.values) for v in (little, ceiling))
    right = a / c
    if answer.ndim == 2:
        raise _Wrong("Compare each block with the same block: take the diagonal of the map, `np.diagonal`.")
    if answer.ndim == 0:
        raise _Wrong(f"One number for each of the {len(right)} blocks is asked, not one in all.")
    if answer.shape != right.shape:
        raise _Wrong(f"There are {len(right)} blocks, and you gave {answer.size} numbers.")
    if np.allclose(answer, right, atol=TOLERANCE):
        return
    if np.allclose(answer, c - a, atol=TOLERANCE) or np.allclose(answer, a - c, atol=TOLERANCE):
        raise _Wrong("This is the difference to the ceiling: the share of it is asked, so divide.")
    if np.allclose(answer, 1 / right, atol=TOLERANCE):
        raise _Wrong("Upside down: the model with little data above, the ceiling below.")
    if np.allclose(answer, a, atol=TOLERANCE):
        raise _Wrong("This is CKA itself: two full trainings do not reach 1 either. Divide by what they reach.")
    if np.allclose(answer, 100 * right, atol=100 * TOLERANCE):
        raise _Wrong("These are percent: give shares between 0 and 1.")
    raise _Wrong(
        "Divide the diagonal of the map with little data by the diagonal of the map of the second full training."
    )


# 9: What makes heads local?


@_exercise("Right. Whether the difference is more than chance, two models cannot tell: look at a second seed.")
def what_makes_heads_local(nearest: Any, *, heads: dict[str, xr.Dataset]) -> None:
    """Of each model, the smallest mean distance of a head in the two lowest blocks, in pixels."""
    if not isinstance(nearest, dict) or set(nearest) != set(heads):
        raise _Wrong(f"Give a dict with one number for each of {', '.join(heads)}.")
    right = {name: float(h.distance.values[:2].min()) for name, h in heads.items()}
    answers = {name: _number(name, value) for name, value in nearest.items()}
    if all(_close(answers[name], right[name], 0.06) for name in right):
        return
    others: dict[str, Callable[[np.ndarray], float]] = {
        "These are means over heads: the nearest head of the two blocks is asked, so take the smallest.":
            lambda d: d[:2].mean(),
        "You searched all blocks: only the two lowest are asked, `distance[:2]`.": lambda d: d.min(),
        "You looked in block 0 only: `distance[:2]` has blocks 0 and 1.": lambda d: d[0].min(),
        "These are the farthest heads: take the smallest distance.": lambda d: d[:2].max(),
        "You left block 0 out: `distance[:2]` has blocks 0 and 1.": lambda d: d[1:3].min(),
    }  # fmt: skip
    for message, part in others.items():
        if all(_close(answers[name], float(part(h.distance.values)), 0.06) for name, h in heads.items()):
            raise _Wrong(message)
    name = next(name for name in right if not _close(answers[name], right[name], 0.06))
    raise _Wrong(
        f"For {name} the nearest head of blocks 0 and 1 looks {right[name]:.1f} px far, not {answers[name]:.1f}."
    )
