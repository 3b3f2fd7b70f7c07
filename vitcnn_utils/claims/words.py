"""Sentences that connect the claims under a figure: computed from the claims, so that they fit every edition."""

import math
from collections.abc import Mapping

from vitcnn_utils.claims.ledger import CANNOT, CLOSE, FAILS, HOLDS, HOLDS_TOO, UNTRAINED, Claim, Estimate, Part


def direction(estimate: Estimate, above: str, below: str, neither: str) -> str:
    """Words for a number above 0, for one below 0, and for one whose interval does not say."""
    low, high = estimate.interval or (estimate.value, estimate.value)
    return above if low > 0 else below if high < 0 else neither


def moves(part: Part) -> str:
    """That a number falls, where it is how much something falls."""
    by = part.words(abs(part.estimate.value))
    return direction(part.estimate, f"falls by {by}", f"rises by {by}", f"does not clearly change ({shown(part)})")


def minus(a: Estimate, b: Estimate) -> Estimate:
    """a − b of different models, whose errors are taken to be independent."""
    halves = [(e.interval[1] - e.interval[0]) / 2 if e.interval else 0.0 for e in (a, b)]
    value, half = a.value - b.value, math.hypot(*halves)
    return Estimate(value, (value - half, value + half))


def shown(part: Part) -> str:
    """The number of a part as it is shown."""
    return part.words(part.estimate.value)


def signed(part: Part, estimate: Estimate) -> str:
    """A value of a part's statistic with its sign."""
    return f"{'+' * (estimate.value > 0)}{part.words(estimate.value)}"


def effect_of_training(part: Part) -> str:
    """What the number was before training, and whether training moved it; '' where that is not known."""
    if part.control is None or not math.isfinite(part.control.value):
        return ""
    change = minus(part.estimate, part.control)
    moved = direction(change, "training raised it", "training lowered it", "training did not clearly change it")
    return f"; before training this number was {part.words(part.control.value)}: {moved}"


def cause(rows: Mapping[str, Claim]) -> str:
    """Which of the named findings training made, which were there before, and which are not there."""
    said: dict[str, list[str]] = {}
    for name, claim in rows.items():
        too = "Before training too" if claim.control == UNTRAINED else f"As much with {claim.control}"
        controls = [part.says(part.control) for part in claim.parts if part.control]
        learned = "Made by training" if FAILS in controls else "Clear only after training" if controls else "Seen here"
        titles = {HOLDS: learned, HOLDS_TOO: too, FAILS: "Not as the rule asks", CLOSE: "Too close to call"}
        if claim.verdict != CANNOT:
            said.setdefault(titles[claim.verdict], []).append(name)
    return " ".join(f"{title}: {', '.join(names)}." for title, names in said.items())
