"""What a claim is, and the one logic that decides all of them.

A claim of the paper is data: its sentence, one or more parts (a number, a threshold, and on which side of it the claim
is true), and the same numbers of a control. The rule that is printed is made from the part that decides.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from vitcnn_utils.measures.intervals import draws_and_images, jackknife, left_out, whole
from vitcnn_utils.provenance import Facts, distinct, facts

Arrays = tuple[xr.DataArray | xr.Dataset, ...]

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
"""What a number, or several, say of a statement."""

HOLDS_TOO, CLOSE, CANNOT = "holds, untrained too", "too close to call", "cannot be asked here"
"""Further verdicts on a claim: the control meets it as well; the numbers do not decide; there are no numbers."""

VERDICTS = (HOLDS, HOLDS_TOO, FAILS, CLOSE, CANNOT)

NOTHING = "there is nothing to count"

NO_CLASSES = "the images have no labels that these models know"
"""Why a claim on accuracies cannot be asked."""

POWER = 1 + stats.norm.ppf(0.8) / stats.norm.ppf(0.975)
"""An effect of so many half widths of a 95 % interval is shown in 4 of 5 samples."""

BEYOND = "beyond"
"""Stands in the place of a figure in claims that are not the paper's."""


def figure_name(figure: str) -> str:
    """What a figure of a claim is called."""
    return "Beyond the paper" if figure == BEYOND else f"Fig. {figure}"


UNTRAINED = "untrained"
"""The name of the control that every claim should have; a further one is a second training by the same recipe."""


class Controls(NamedTuple):
    """The same arrays of the untrained twin and of a second training, where there are such, and what the second is."""

    untrained: Any
    second: Any
    second_name: str

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> "Controls":
        """From name -> arrays, one of them `UNTRAINED`."""
        second = {name: arrays for name, arrays in named.items() if name != UNTRAINED}
        name = next(iter(second), "")
        return cls(named.get(UNTRAINED), second.get(name), name)

    def with_others(self, *others: Any) -> dict[str, Any]:
        """Both as arguments of `Part.of`, each an array or a tuple, followed by arrays that are the same for all."""
        both = {"control": self.untrained, "again": self.second}
        return {
            what: None if arrays is None else (*(arrays if isinstance(arrays, tuple) else (arrays,)), *others)
            for what, arrays in both.items()
        }


def unless(missing: str, claims: "Iterable[Claim]") -> "list[Claim]":
    """The claims; where there is a reason why none of them can be asked, with that."""
    return [replace(claim, missing=claim.missing or missing) for claim in claims]


def all_of(verdicts: Iterable[str]) -> str:
    """Whether all statements hold: one that does not is enough against them, and one undecided leaves it open."""
    found = set(verdicts)
    return next((v for v in (FAILS, UNDECIDED) if v in found), HOLDS if found else UNDECIDED)


def agreed(verdicts: Iterable[str]) -> str:
    """What several ways to measure one statement say: undecided where they do not agree."""
    found = set(verdicts)
    return found.pop() if len(found) == 1 else UNDECIDED


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; without one (None) the number alone decides.

    over: what the interval is over, as '2,500 images in 20 parts', or why there is none.
    """

    value: float
    interval: tuple[float, float] | None = None
    over: str = ""

    def mirrored(self) -> "Estimate":
        """With the other sign."""
        return replace(self, value=-self.value, interval=self.interval and (-self.interval[1], -self.interval[0]))

    def magnitude(self) -> "Estimate":
        """Of the absolute value."""
        if self.interval is None:
            return replace(self, value=abs(self.value))
        low, high = self.interval
        ends = sorted((abs(low), abs(high)))
        return Estimate(abs(self.value), (0.0 if low <= 0 <= high else ends[0], ends[1]), self.over)


def estimate(statistic: Callable[..., float], *arrays: xr.DataArray | xr.Dataset) -> Estimate:
    """A statistic of arrays; with its interval, where they say how they vary.

    Over the images, where they have `left_out` (see `intervals.jackknife`) or values by image; and
    over draws of the shots, where they have several (see `intervals.draws_and_images`).
    """
    parted = [left_out(a) if a.sizes.get("sample", 0) > 1 else a for a in arrays]
    value = float(statistic(*(whole(one) for one in parted)))
    counts = {a.sizes["left_out"] - 1 for a in parted if "left_out" in a.dims}
    if counts == {0}:
        return Estimate(value, over="there is one minibatch, and none to leave out")
    draws = {a.sizes.get("draw", 1) for a in arrays}
    images = [f"{a.attrs.get('n_test', a.attrs['n_images']):,} {'test ' * ('n_test' in a.attrs)}images in "
              for a in parted if "left_out" in a.dims and "n_images" in a.attrs]  # fmt: skip
    over = "".join(f"{images[0] if images else ''}{count} parts" for count in counts)
    if len(draws) == 1 and max(draws) > 1 and len(counts) < 2:
        low, high = (float(bound) for bound in draws_and_images(statistic, *parted).values)  # type: ignore[arg-type]
        over = " and ".join(filter(None, [f"{max(draws)} draws", over]))
    elif len(counts) == 1:
        low, high = (float(bound) for bound in jackknife(statistic, *parted).values)
    else:
        return Estimate(value, over="not measured without some of the same images")
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-12):  # a staircase, as the depth of the most similar layer
        return Estimate(value, over=f"{over}: the same without any of them")
    return Estimate(value, (low, high), over)


@dataclass(frozen=True)
class Part:
    """One number of a claim, and what it must be for the claim to hold.

    statistic: the number in words. unit: '' or 'CKA', 'points', '%', 'px', 'times'. why: of the threshold, a sentence.
    whose: 'ours', or 'the paper' where it gives the threshold itself.
    control: the same statistic of the claim's control. again: that of a second training by the same recipe.
    chance: the control is what another start changes, so it counts in either direction.
    made_of: what made each array behind these numbers, from `provenance.facts`.
    """

    statistic: str
    estimate: Estimate
    side: Literal["above", "below"]
    threshold: float
    why: str
    unit: str = ""
    whose: Literal["ours", "the paper"] = "ours"
    control: Estimate | None = None
    again: Estimate | None = None
    chance: bool = False
    made_of: tuple[Facts, ...] = ()

    @classmethod
    def of(
        cls, statistic: str, number: Callable[..., float], arrays: Arrays, side: Literal["above", "below"],
        threshold: float, why: str, unit: str = "", whose: Literal["ours", "the paper"] = "ours",
        control: Arrays | None = None, again: Arrays | None = None, chance: bool = False,
    ) -> "Part":  # fmt: skip
        """With one function of arrays that gives the number of the model, of the control and of a second training."""
        all_three = [arrays, control or (), again or ()]
        own, controls, second = (estimate(number, *a) if a else None for a in all_three)
        assert own is not None
        made_of = facts(*itertools.chain(*all_three))
        return cls(statistic, own, side, threshold, why, unit, whose, controls, second, chance, made_of)

    def magnitude(self) -> "Part":
        """The same of absolute values."""
        own, control, again = (e and e.magnitude() for e in (self.estimate, self.control, self.again))
        assert own is not None
        return replace(self, estimate=own, control=control, again=again)

    @property
    def rule(self) -> str:
        """The rule as it is shown, from what decides."""
        either = "; the control counts in either direction" if self.chance and self.control else ""
        return f"{self.statistic}: {self.side} {self.words(self.threshold)}{either}"

    def words(self, value: float) -> str:
        """A value of this statistic as it is shown."""
        if math.isnan(value):
            return "not defined"
        digits = 1 if self.unit in ("points", "px", "%") else 2
        exact = f"{value:z.{digits}f}" if value != self.threshold else f"{value:.6g}"
        space = "" if self.unit == "" else "\N{NO-BREAK SPACE}"
        return f"{exact.replace('-', '−')}{space}{self.unit}"

    def says(self, estimate: Estimate | None) -> str:
        """What an estimate of the statistic says: it must lie beyond the threshold with its whole interval."""
        if estimate is None or not math.isfinite(estimate.value):
            return UNDECIDED
        sign = 1 if self.side == "above" else -1
        ends = [sign * (end - self.threshold) for end in estimate.interval or (estimate.value,)]
        if any(math.isnan(end) for end in ends):
            return UNDECIDED
        return HOLDS if min(ends) > 0 else FAILS if max(ends) <= 0 else UNDECIDED

    def control_says(self) -> str:
        """The same of the control."""
        said = self.says(self.control)
        if self.chance and self.control is not None and said != HOLDS:
            return HOLDS if self.says(self.control.mirrored()) == HOLDS else said
        return said

    @property
    def resolution(self) -> float:
        """How far beyond the threshold an effect must lie for 4 of 5 samples of this size to show it."""
        return POWER * float(np.ptp(self.estimate.interval)) / 2 if self.estimate.interval else float("nan")

    @property
    def power(self) -> str:
        """The same in words."""
        if not math.isfinite(self.resolution):
            return f"it is not defined without some of {self.estimate.over} ({self.statistic})"
        return (
            f"{self.estimate.over or 'this sample'} would show, in 4 of 5 cases, what lies "
            f"{self.words(self.resolution)} {self.side} the threshold ({self.statistic})"
        )


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and what decides it here.

    id: made of figure and subject, the same in all editions. paper: what the paper says, a sentence. of: which models
    here, where a chapter asks a claim of several. parts: see `Part`.
    together: 'all' parts must hold, or they are ways to measure one thing and must 'agree'.
    caveat: when the measure misleads. control, second: what the control and the second training are.
    uncontrolled: why no control can have these numbers, where none has.
    missing: why the claim cannot be asked here, or ''. note: further numbers.
    """

    id: str
    figure: str
    section: str
    paper: str
    parts: tuple[Part, ...]
    caveat: str
    of: str = ""
    together: Literal["all", "agree"] = "all"
    control: str = UNTRAINED
    second: str = ""
    uncontrolled: str = ""
    missing: str = ""
    note: str = ""

    @property
    def place(self) -> str:
        """Where the paper makes the claim, or this book."""
        return f"{figure_name(self.figure)}, {'' if self.figure == BEYOND else 'section '}{self.section}"

    @property
    def verdict(self) -> str:
        return self._verdict(self.parts)

    @property
    def reason(self) -> str:
        """Why there is no answer, or what the answer needs to be said with; '' for a plain verdict."""
        if self.verdict == CANNOT:
            return self.missing or NOTHING
        if self.verdict == HOLDS_TOO:
            why = ": it does not take training" if UNTRAINED in self.control else ""
            return f"the control ({self.control}) meets the rule as well{why}"
        if self.verdict != CLOSE:
            return ""
        if self._turned(self.parts):
            return f"another training says the reverse ({self.second})"
        if UNDECIDED not in (said := [part.says(part.estimate) for part in self.parts]) and len(set(said)) > 1:
            return "the ways to measure it do not agree"
        crossing = [part.power for part in self.parts if part.says(part.estimate) == UNDECIDED]
        return "the interval crosses the threshold: " + "; ".join(crossing)

    def verdict_of(self, part: Part) -> str:
        """The verdict on one part, by the same logic."""
        return self._verdict((part,))

    def _verdict(self, parts: Sequence[Part]) -> str:
        if self.missing:
            return CANNOT
        said = self._combined(parts, "estimate")
        if said != FAILS and not all(math.isfinite(part.estimate.value) for part in parts):
            return CANNOT
        if said == UNDECIDED or self._turned(parts):
            return CLOSE
        of_control = self._combine(part.control_says() for part in parts)
        return HOLDS_TOO if said == of_control == HOLDS else said

    def _turned(self, parts: Sequence[Part]) -> bool:
        """Whether a second training decides the reverse of the first."""
        return {self._combined(parts, "estimate"), self._combined(parts, "again")} == {HOLDS, FAILS}

    def _combined(self, parts: Sequence[Part], what: Literal["estimate", "again"]) -> str:
        return self._combine(part.says(getattr(part, what)) for part in parts)

    def _combine(self, said: Iterable[str]) -> str:
        return all_of(said) if self.together == "all" else agreed(said)

    @property
    def made_of(self) -> tuple[Facts, ...]:
        """What made the arrays of all parts, each once."""
        return distinct(itertools.chain(*(part.made_of for part in self.parts)))

    def as_json(self) -> dict[str, Any]:
        """All of it, for machines, see book/_extra/claims.schema.json; numbers that are missing are None."""
        parts = [asdict(part) | {"rule": part.rule, "verdict": self.verdict_of(part)} for part in self.parts]
        for part in parts:
            del part["made_of"]
        everything = asdict(self) | {"parts": parts, "verdict": self.verdict, "reason": self.reason}
        return _without_nan(everything | {"made_of": self.made_of})


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
