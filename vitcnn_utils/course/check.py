"""Checks for the exercises of the session: each says what is wrong with an answer, and not only that it is.

    from vitcnn_utils.course import check

    check.cka_by_hand(my_cka)

A check prints one line and gives True or False. It computes what is right, and what typical mistakes give, from the
arrays that the student measured, so it holds for any models and images.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.measures.cka import linear_cka

TOLERANCE = 5e-3  # of an answer that may have been rounded to two digits
AS_NEAR = 0.1  # px; heads that differ by less are nearest in turns, as the images change


class _Wrong(Exception):
    """An answer is wrong; the message says in which way."""


def _exercise(function: Callable[..., str]) -> Callable[..., bool]:
    """Make a check of a function that gives praise with the numbers that decide, or raises `_Wrong`.

    It prints the line, and nothing a student gives can break it.
    """

    @functools.wraps(function)
    def checked(*answers: Any, **measured: Any) -> bool:
        try:
            if any(one is ... for answer in answers for one in _values(answer)):
                raise _Wrong("Not answered yet: put an answer in place of each `...`.")
            praise = function(*answers, **measured)
        except _Wrong as wrong:
            print(f"✗ {wrong}")
            return False
        except Exception as error:
            print(f"✗ Your answer cannot be read ({type(error).__name__}: {error}). Compare its form with the task.")
            return False
        print(f"✓ {praise}")
        return True

    return checked


def _values(answer: Any) -> list[Any]:
    return list(answer.values()) if isinstance(answer, dict) else [answer]


def _judge(answer: Any, right: Any, mistakes: Mapping[str, Any], otherwise: str, tolerance: float = TOLERANCE) -> None:
    """Accept a number, or as many as are right; else say which mistake gives this answer, or what to do.

    mistakes: message -> the answer to which it leads.
    """
    given = np.asarray(answer, dtype=float)
    for message, value in {"": right, **mistakes}.items():
        if given.shape == np.shape(value) and np.allclose(given, value, rtol=0, atol=tolerance):
            if message:
                raise _Wrong(message)
            return
    raise _Wrong(otherwise)


def _letter(answer: Any, right: str, wrong: Mapping[str, str]) -> None:
    letter = str(answer).strip().upper()
    if letter != right:
        raise _Wrong(wrong.get(letter, f"Answer with one letter, {', '.join(sorted([right, *wrong]))}."))


@_exercise
def cka_by_hand(my_cka: Callable[[np.ndarray, np.ndarray], float]) -> str:
    """1. Biased linear CKA of two (images, features) arrays (Kornblith et al. 2019)."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 6)) + 2, random.normal(size=(40, 5)) - 1
    y[:, :3] += x[:, :3]
    value, right = my_cka(x, y), _biased_cka(x, y)
    if value is ...:
        raise _Wrong("`my_cka` still returns the three dots: return the number instead.")
    if np.ndim(value) > 0:
        raise _Wrong(f"`my_cka` returns an array of shape {np.shape(value)}: CKA of two layers is one number.")
    K, L = (v @ v.T for v in map(_centred, (x, y)))
    by_image = _ratio(*(v @ v.T for v in (x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True))))
    _judge(value, right, {
        "This is the square of CKA: divide by the root of the product of both norms, not by the product.": right**2,
        "The features are not centred: subtract from each feature its mean over the images.": _ratio(x @ x.T, y @ y.T),
        "You centred each image over its features: centre each feature over the images (axis 0).": by_image,
        "This is only the numerator: divide by the norms of both Gram matrices.": (K * L).sum(),
        "These are the norms of K and L without what they share: the numerator is the sum of K * L.":
            np.sqrt((K * K).sum() * (L * L).sum()),
    }, f"`my_cka` gives {float(value):.3f} where {right:.3f} is right: check the centring, then the denominator.",
        tolerance=1e-6)  # fmt: skip
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
    _judge(my_cka(x @ turn * 3 + 1, x), 1.0, {},
           "The number is right here, but turning, scaling and moving the features must not change it.")  # fmt: skip
    return "Right: 1 for the same features, however rotated, scaled or moved, and the textbook's number for others."


def _ratio(K: np.ndarray, L: np.ndarray) -> float:
    return float((K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum()))


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=0)


def _biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    return _ratio(*(v @ v.T for v in map(_centred, (x, y))))


@_exercise
def cka_breaks(biased: Any, unbiased: Any, moved: Any, *, noise: Sequence[np.ndarray]) -> str:
    """2. Two arrays of noise by both estimators, and the first against itself moved by a constant."""
    one, other = _biased_cka(*noise), linear_cka(*noise)
    swapped = "`biased` and `unbiased` are swapped: `my_cka` is the biased one, `vu.linear_cka` the unbiased."
    _judge(biased, one, {
        "`biased` is exactly 1: you compared one array with itself. Compare the first with the second.": 1.0,
        swapped: other,
    }, f"`biased` should be `my_cka` of the two arrays of noise, about {one:.2f}.")  # fmt: skip
    _judge(unbiased, other, {"`unbiased` is the biased number again: call `vu.linear_cka` for it.": one},
           "`unbiased` should be `vu.linear_cka` of the same two arrays; negative values are allowed.")  # fmt: skip
    _judge(moved, 1.0, {"`moved` compares two arrays: compare `noise_a + 5` with `noise_a`.": one},
           "`moved` should be 1: CKA centres each feature, so adding a constant changes nothing. Is yours centred?"
           )  # fmt: skip
    return (
        f"Right. With more features than images the biased estimate calls noise alike ({one:.2f}); "
        f"the unbiased one does not ({other:.2f})."
    )


@_exercise
def most_local_head(answer: Any, *, heads: xr.Dataset) -> str:
    """3. (block, head) of the head with the smallest mean distance, both counted from 0.

    A head within `AS_NEAR` of it counts as well: on other images it may be the nearest.
    """
    distances = heads.distance.values
    as_near = np.argwhere(distances <= distances.min() + AS_NEAR).tolist()
    block, head = next(
        (one for one in as_near if np.array_equal(answer, one)), np.unravel_index(distances.argmin(), distances.shape)
    )
    otherwise = "Give two numbers, (block, head)."
    if np.ndim(answer) == 1 and len(answer) == 2:
        if not all(0 <= i < n for i, n in zip(answer, distances.shape, strict=True)):
            blocks, count = distances.shape
            otherwise = f"There are {blocks} blocks of {count} heads, and {tuple(answer)} is not one of them."
        elif answer[0] == 0:
            otherwise = "You looked in block 0 only: search all blocks."
        else:
            otherwise = f"That head looks {distances[tuple(answer)]:.1f} px far; there is one that looks nearer."
    _judge(answer, (block, head), {
        "This counts through all heads of all blocks: `np.unravel_index` turns it into (block, head).":
            distances.argmin(),
        "That is the head that looks farthest: take the smallest distance, not the largest.":
            np.unravel_index(distances.argmax(), distances.shape),
        "Blocks and heads count from 0 in this book, and yours from 1.": (block + 1, head + 1),
        "Block first, then head: yours are swapped.": (head, block),
        "The block is right. Figure 3 sorts the heads, so its first marker is not head 0: ask the array.": (block, 0),
    }, otherwise)  # fmt: skip
    also = ", ".join(f"({b}, {h})" for b, h in as_near if (b, h) != (block, head))
    return (
        f"Right: block {block}, head {head} looks {distances[block, head]:.1f} px far on average, attention that is "
        f"spread evenly {heads.attrs['uniform_distance']:.1f} px."
        + f" As right, within {AS_NEAR} px of the nearest: {also}." * bool(also)
        + " Now open the attention explorer at this head, and look at where it looks."
    )


@_exercise
def what_a_distance_says(answer: Any) -> str:
    """4. What can be concluded from a head whose mean distance is that of uniform attention?"""
    _letter(answer, "C", {
        "A": "A mean distance says nothing of the object: the head may look everywhere alike, sky included.",
        "B": "Local would be a small distance; uniform attention has about the largest mean that a head can have.",
        "D": "An untrained head is near uniform, but so may a trained one be: compare with the untrained twin.",
        "E": "That is what entropy tells. A head that looks at one far place has a large distance as well.",
    })  # fmt: skip
    return "Right: a distance tells how far, never what for. Uniform attention is far, and looks for nothing."


@_exercise
def missing_skip(prediction: Any, intact: Any, without: Any, *, maps: Sequence[xr.DataArray], block: int) -> str:
    """5. Mean CKA between the blocks before `block` and those from it on, of the intact twin and of the cut model."""
    predicted = str(prediction).strip().lower()
    if predicted not in ("higher", "lower", "the same"):
        raise _Wrong("Predict before you measure: 'higher', 'lower' or 'the same'.")
    values = [m.values for m in maps]

    def both(part: Callable[[np.ndarray], Any]) -> list[float]:
        return [float(np.mean(part(v))) for v in values]

    right = both(lambda v: v[:block, block:])
    _judge([intact, without], right, {
        "Both numbers are right, but swapped: the first is that of the intact model.": right[::-1],
        "You averaged the whole map: take the part of it that compares one side with the other.": both(lambda v: v),
        "This is the mean before the block, within one side: take rows before it and columns from it on.":
            both(lambda v: v[:block, :block]),
        "This is the mean after the block, within one side: take rows before it and columns from it on.":
            both(lambda v: v[block:, block:]),
        f"Your cut lies one block late: block {block} itself belongs to the second part.":
            both(lambda v: v[: block + 1, block + 1 :]),
        "This is the one pair of neighbours at the cut: average over all pairs across it.":
            both(lambda v: v[block - 1, block]),
    }, f"For the intact model {right[0]:.2f} is right: use `map.values[:{block}, {block}:].mean()` of each map."
    )  # fmt: skip
    change = round(right[1], 2) - round(right[0], 2)
    outcome = "higher" if change > 0 else "lower" if change < 0 else "the same"
    return (
        f"Right: intact {right[0]:.2f}, without the skips {right[1]:.2f}: {outcome}; you predicted {predicted}. "
        "Nothing gets around a block without skips: what it hands on comes out of its branches."
    )


@_exercise
def places(cls: Any, first_token: Any, *, grid: tuple[int, int]) -> str:
    """6. The letter for what CLS is, and (row, column) of the patch of the first spatial token."""
    _letter(cls, "B", {
        "A": "The patches are cut without gaps, and none is left for CLS: count them.",
        "C": "An average over tokens is the other read-out, GAP. CLS is a token of its own, learned like a weight.",
        "D": "CLS is there from the first block on, and every block lets it look at all patches.",
    })  # fmt: skip
    rows, columns = grid
    _judge(first_token, (0, 0), {
        "The middle has the index S // 2 + columns // 2. Tokens are counted row by row: where does one begin?":
            (rows // 2, columns // 2),
        "The first row is at the top here, as in the image; heat maps of layers begin at the bottom.": (rows - 1, 0),
        "You counted CLS as a place: without it the first spatial token is at the very corner.": (0, 1),
        "Rows and columns count from 0 in this book, and yours from 1.": (1, 1),
    }, "Tokens are counted row by row from the upper left: give (row, column) of the first, from 0.")  # fmt: skip
    return "Right: CLS is a token without a place, so the spatial tokens start behind it, at the upper left."


@_exercise
def token_or_mean(cls_model: Any, gap_model: Any, *, probes: Sequence[xr.Dataset]) -> str:
    """7. How many points the mean of the tokens is ahead of a single token, in the last layer of both models."""
    accuracy = [p.accuracy.isel(layer=-1).mean("draw") for p in probes]
    mean, token = (np.array([float(a.sel(readout=name)) for a in accuracy]) for name in ("mean", "token"))
    right = 100 * (mean - token)
    _judge([cls_model, gap_model], right, {
        "These are shares: give percentage points, that is, times 100.": right / 100,
        "The sign is reversed: how far is the mean *ahead of* the single token?": -right,
        "The two models are swapped.": right[::-1],
        "This is the accuracy of the mean alone: subtract that of the single token.": 100 * mean,
        "This is the accuracy of single tokens alone: subtract it from that of the mean.": 100 * token,
        "This is by how many percent of the single token's accuracy the mean is better: subtract, do not divide.":
            100 * (mean / token - 1),
    }, "Average `accuracy` over the draws, then subtract the read-out 'token' from 'mean', times 100.",
        tolerance=0.6 if right.max() > 1.2 else TOLERANCE)  # fmt: skip
    shown = [f"{100 * m:.0f} % by the mean, {100 * t:.0f} % by a token" for m, t in zip(mean, token, strict=True)]
    return (
        f"Right: {right[0]:+.1f} points where CLS was trained ({shown[0]}), {right[1]:+.1f} where the mean was "
        f"({shown[1]}). What nothing in training asks of a single token, it need not know."
    )


@_exercise
def against_the_ceiling(share: Any, *, little: xr.DataArray, ceiling: xr.DataArray) -> str:
    """8. Of each block: CKA of the model with little data, as a share of what a second full training reaches."""
    a, c = (np.diagonal(v.values) for v in (little, ceiling))
    otherwise = "Divide the diagonal of the map with little data by that of the map of the second full training."
    if np.shape(share) != a.shape:
        otherwise = f"Give one number for each of the {len(a)} blocks, not an array of shape {np.shape(share)}."
    _judge(share, a / c, {
        "These are whole maps: compare each block with the same block, by the diagonal, `np.diagonal`.":
            little.values / ceiling.values,
        "One number for each block is asked, not their mean.": (a / c).mean(),
        "This is the difference to the ceiling: the share of it is asked, so divide.": c - a,
        "Upside down: the model with little data above, the ceiling below.": c / a,
        "This is CKA itself: two full trainings do not reach 1 either. Divide by what they reach.": a,
        "These are percent: give shares between 0 and 1.": 100 * a / c,
    }, otherwise)  # fmt: skip
    least, most = (a / c).argmin(), (a / c).argmax()
    return (
        f"Right: the share is smallest in block {least}, {(a / c)[least]:.2f} ({a[least]:.2f} of {c[least]:.2f}), and "
        f"largest in block {most}, {(a / c)[most]:.2f}. Two trainings on all data differ too: only what lies below "
        "*that* can be owed to the missing data."
    )


@_exercise
def what_makes_heads_local(
    shift: Any, verdict: Any, *, twins: Mapping[str, tuple[str, str]], heads: Mapping[str, xr.Dataset], chance: str
) -> str:
    """9. By how much the nearest head of blocks 0 and 1 is farther in the second of two twins, in px, and what follows.

    chance: which pair differs in its start alone, if there is one.
    """
    for what, answer in (("shift", shift), ("verdict", verdict)):
        if not isinstance(answer, dict) or set(answer) != set(twins):
            raise _Wrong(f"`{what}` should be a dict with one entry for each of: {', '.join(twins)}.")

    def changes(number: Callable[[np.ndarray], float]) -> list[float]:
        return [number(heads[b].distance.values) - number(heads[a].distance.values) for a, b in twins.values()]

    right = changes(lambda d: d[:2].min())
    _judge([shift[what] for what in twins], right, {
        "The sign is reversed: the second model's distance minus the first's.": [-one for one in right],
        "These are means over heads: the nearest head of the two blocks is asked, so take the smallest.":
            changes(lambda d: d[:2].mean()),
        "You searched all blocks: only the two lowest are asked, `distance.values[:2]`.": changes(np.min),
        "You looked in block 0 only: `distance.values[:2]` has blocks 0 and 1.": changes(lambda d: d[0].min()),
        "These are the farthest heads: take the smallest distance.": changes(lambda d: d[:2].max()),
    }, f"For {next(iter(twins))!r} {right[0]:+.1f} px is right: the nearest head of blocks 0 and 1, second model minus "
        "first.", tolerance=0.06)  # fmt: skip
    least = abs(dict(zip(twins, right, strict=True))[chance]) if chance in twins else np.inf
    for (what, said), change in zip(verdict.items(), (shift[what] for what in verdict), strict=True):
        decided = "more local" if change < 0 else "less local"
        if said not in ("more local", "less local", "cannot be told"):
            raise _Wrong(f"{what!r}: answer 'more local', 'less local' or 'cannot be told', not {said!r}.")
        if abs(change) <= least and said != "cannot be told":
            why = (
                "there is no pair that differs in its start alone" if least == np.inf else "another start does as much"
            )
            raise _Wrong(f"{what!r}: {change:+.1f} px cannot be told from chance: {why}.")
        if abs(change) > least and said != decided:
            raise _Wrong(f"{what!r}: {change:+.1f} px is more than the {least:.1f} px of another start: {decided}.")
    found = "; ".join(f"{what} {change:+.1f} px: {verdict[what]}" for what, change in zip(twins, right, strict=True))
    return f"Right. {found}. A difference that another start makes as well is not owed to what was changed."


@_exercise
def own_claim(claim: Any, *, example: Any) -> str:
    """10. A claim of the ledger, made of a sentence, a statistic, a threshold and a control; shows its card."""
    from IPython.display import display

    from vitcnn_utils.claims import table
    from vitcnn_utils.claims.ledger import CANNOT, Claim

    if not isinstance(claim, Claim):
        raise _Wrong(f"Give a `Claim`, as the example is one, not a {type(claim).__name__}.")
    if claim.paper.strip().endswith("?") or len(claim.paper.split()) < 3:
        raise _Wrong("A claim is a sentence that can turn out to be wrong: write one, and no question.")
    if claim.paper == example.paper:
        raise _Wrong("That is still the sentence of the example: claim something else.")
    for part in claim.parts:
        if part.statistic == example.parts[0].statistic:
            raise _Wrong("The statistic is still described as in the example: say in words what yours measures.")
        if part.estimate.interval is None:
            raise _Wrong(
                "Your statistic does not vary over the images: make it of `h.distance`, which is known image by image."
            )
        if part.control is None:
            raise _Wrong("There is no control: without one you cannot say whether training is why.")
        if part.control == part.estimate:
            raise _Wrong("The control is the model itself: give the arrays of its untrained twin.")
        if abs(part.threshold - part.estimate.value) < 1e-3 * abs(part.estimate.value):
            raise _Wrong("The threshold is the number that you measured: fix it before you look, and say why.")
        if len(part.why.split()) < 3:
            raise _Wrong("Say why the threshold is what it is, in a sentence.")
    if len(claim.caveat.split()) < 3:
        raise _Wrong("Say in `caveat` when the measure misleads, in a sentence.")
    if claim.verdict == CANNOT:
        raise _Wrong(f"The claim cannot be asked: {claim.reason}. Is your statistic a finite number?")
    display(table([claim]))
    return "Your claim has all that it needs. Its verdict may be either: what counts is that you fixed the rule first."
