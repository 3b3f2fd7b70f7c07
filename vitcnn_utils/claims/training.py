"""Beyond the paper: what of a training makes heads local, and what goes along with it (chapter 6).

The paper ties local heads to large data, and them to accuracy. Later work ties them to CutMix (arXiv 2605.16390) and to
the start (arXiv 2305.09828). The numbers of a claim are those of two models trained alike but for one thing; all
thresholds are ours. As control stands what another start of the same recipe changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import xarray as xr

from vitcnn_utils.claims.ledger import BEYOND, Claim, Estimate, Part
from vitcnn_utils.claims.locality import LARGER, LOCAL
from vitcnn_utils.claims.structure import VISIBLE
from vitcnn_utils.claims.words import shown, signed
from vitcnn_utils.measures.accuracy import points_ahead
from vitcnn_utils.measures.attention import near_heads
from vitcnn_utils.measures.cka import best_match
from vitcnn_utils.measures.localization import skill
from vitcnn_utils.measures.receptive_field import early_radius
from vitcnn_utils.measures.training import half_way
from vitcnn_utils.provenance import facts

NEARER = 5.0
"""Percent of the distance of uniform attention from which on heads are called nearer."""
BETTER = 1.0
"""Percentage points of accuracy: the zoo aims at second starts that differ by less."""
LATER = 10.0
"""Percentage points of the training from which on one thing is said to come after another."""
KEPT = 0.1
"""A difference of how much oftener than by chance tokens are most like their own patch."""

CUTMIX, PLAIN, MIMETIC, AGAIN = "CutMix", "no CutMix", "no CutMix, mimetic start", "CutMix, second start"
"""Labels of the models that are compared. There may be none from a mimetic start, and no second start."""

SENTENCES = {
    "cutmix": "With CutMix, heads of the lowest blocks become local; without it they do not.",
    "start": "From a mimetic start, heads are local without CutMix.",
    "when": "Heads turn to what is near later than the model learns to recognise.",
    "accuracy": "The model whose heads look nearer recognises more.",
    "cause": "From a mimetic start, a model trained without CutMix gains as much as one trained with it.",
    "cka": "Where heads look nearer, the lower half of the ViT is more like the CNN.",
    "field": "Where heads look nearer, low layers have smaller receptive fields.",
    "places": "Where heads look nearer, tokens of the last block keep their places better.",
}
"""The claims of the chapter."""

_A_START = "a model that was trained without CutMix from a mimetic start"
_NO_SECOND = "There is no second training from a mimetic start."
_ONE_EACH = "One training each: what another start changes is the control."
_NOT_OF_LOCALITY = "It is a question of locality only where the start's heads stay nearer to the end."
Side = Literal["above", "below"]


class Trio(NamedTuple):
    """What was measured of three models: trained without CutMix, with it, and with it from another start.

    second may be None. The control of a claim on two of them is the same claim with `second` in the place of `cutmix`,
    and `cutmix` in that of `without`.
    """

    without: Any
    cutmix: Any
    second: Any = None

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> "Trio":
        """From what was measured of models by label."""
        return cls(measured[PLAIN], measured[CUTMIX], measured.get(AGAIN))

    def part(
        self, words: str, number: Callable[..., float], side: Side, threshold: float, why: str, unit: str = ""
    ) -> Part:
        """A number of two models: of that with CutMix and that without it."""
        again = None if self.second is None else (self.second, self.without)
        control = None if self.second is None else (self.second, self.cutmix)
        return Part.of(words, number, (self.cutmix, self.without), side, threshold, why, unit, control=control,
                       again=again, chance=True)  # fmt: skip


def local_claims(heads: Mapping[str, xr.Dataset], lacks: str = "") -> list[Claim]:
    """Whether CutMix, and a mimetic start without it, make heads of the lowest blocks local.

    heads: of `head_distances`, by label; empty where there are no such models, and `lacks` then says which they are.
    """
    if not heads:
        return _not_asked(lacks, "cutmix", "start")
    plain, again = (heads[PLAIN],), AGAIN in heads
    without = Part.of(f"{_NEAR}, without CutMix", near_heads, plain, "above", LOCAL, _AROUND, unit="%",
                      control=(heads[CUTMIX],) if again else None, again=plain if again else None)  # fmt: skip
    cutmix = _claim("cutmix", (*_local_parts(Trio.of(heads), "with CutMix"), without))
    if MIMETIC not in heads:
        return [cutmix, *_not_asked(_A_START, "start")]
    of_start = _local_parts(Trio(heads[PLAIN], heads[MIMETIC]), "mimetic start")
    return [cutmix, _claim("start", of_start, uncontrolled=_NO_SECOND)]


_NEAR = "nearest quarter of the heads of the two lowest blocks, mean, in percent of the distance of uniform attention"
_AROUND = "As in Figure 3: a head that looks at its patch and the eight around it has 25 % on a grid of 8 × 8."


def local_words(claims: Sequence[Claim]) -> str:
    """What the models show, from `local_claims`, in sentences; '' where nothing was asked."""
    cutmix, start = claims
    if not cutmix.parts:
        return ""
    moved, with_it, without = cutmix.parts
    mimetic = f", and {shown(start.parts[1])} without it from a mimetic start" if start.parts else ""
    said = (
        "The nearest quarter of the heads of the two lowest blocks has, of the distance of uniform attention, "
        f"{shown(with_it)} with CutMix, {shown(without)} without it{mimetic}. With CutMix they look "
        f"{_by(moved, moved.estimate)} than without it."
    )
    if moved.control is None:
        return said
    more = "more" if abs(moved.control.value) >= abs(moved.estimate.value) else "less"
    return (
        f"{said} Another start with CutMix looks {_by(moved, moved.control)}: chance alone moves them {more} than that."
    )


def _by(part: Part, estimate: Estimate) -> str:
    """'nearer by 3.2 %' or 'farther by 3.2 %'."""
    return f"{'nearer' if estimate.value < 0 else 'farther'} by {part.words(abs(estimate.value))}"


def _local_parts(heads: Trio, what: str) -> tuple[Part, ...]:
    second = None if heads.second is None else (heads.second,)
    return (
        heads.part(f"{_NEAR}, {what} − without", lambda a, b: near_heads(a) - near_heads(b), "below", -NEARER,
                   "Smaller differences cannot be seen in Figure 3.", "%"),
        Part.of(f"{_NEAR}, {what}", near_heads, (heads.cutmix,), "below", LOCAL, _AROUND, unit="%", control=second,
                again=second),
    )  # fmt: skip


def local_late(courses: Mapping[str, xr.Dataset]) -> Claim:
    """Whether heads turn to what is near after the model has learned to recognise.

    courses: of `measures.training.courses`, by label.
    """
    course, second = courses.get(CUTMIX), courses.get(AGAIN)
    if course is None:
        return _claim("when", (), missing="the log of this model's training does not have the distances of its heads")

    def lag(one: xr.Dataset) -> float:
        return half_way(one["distance"]) - half_way(one["accuracy"])

    nearer = float(course["distance"][0] - course["distance"][-1])
    part = Part(
        "part of the training after which distances have made half of their fall, minus the same of accuracy",
        Estimate(lag(course)), "above", LATER, "Less cannot be seen in the figure.", unit="points",
        again=None if second is None else Estimate(lag(second)),
        made_of=facts(*(one for one in (course, second) if one is not None)),
    )  # fmt: skip
    missing = "" if nearer > NEARER else f"distances fell by {nearer:.1f} % of the distance of uniform attention only"
    return _claim("when", (part,), missing=missing, uncontrolled="A model that is not trained has no course.")


def accuracy_claims(
    guesses: Mapping[str, xr.DataArray], heads: Mapping[str, xr.Dataset], lacks: str = ""
) -> list[Claim]:
    """Whether the model with CutMix recognises more, and whether a mimetic start without CutMix gains as much.

    guesses: of `accuracy.right_guesses`, by label; empty where the images have no labels that the models know. heads,
    lacks: as for `local_claims`.
    """
    if not guesses or not heads:
        return _not_asked(lacks or "images with labels that the models know", "accuracy", "cause")
    of_cutmix = _claim("accuracy", (_gain(Trio.of(guesses), "with CutMix"),),
                       missing=_no_local_heads(heads, CUTMIX, PLAIN))  # fmt: skip
    if MIMETIC not in heads:
        return [of_cutmix, *_not_asked(_A_START, "cause")]
    from_start = _gain(Trio(guesses[PLAIN], guesses[MIMETIC]), "mimetic start")
    beside = Part.of("accuracy mimetic start without CutMix − with CutMix", points_ahead,
                     (guesses[MIMETIC], guesses[CUTMIX]), "above", -BETTER, "Less behind still counts as as much.",
                     "points")  # fmt: skip
    of_start = _claim("cause", (from_start, beside), uncontrolled=_NO_SECOND)
    return [of_cutmix, replace(of_start, caveat=f"{_ONE_EACH} {_NOT_OF_LOCALITY}")]


def accuracy_words(claims: Sequence[Claim]) -> str:
    """What CutMix and a mimetic start bring, from `accuracy_claims`, in sentences; '' where nothing was asked."""
    if not claims[0].parts:
        return ""
    cutmix, mimetic = claims[0].parts[0], claims[1].parts[:1]
    chance = "" if cutmix.control is None else f" (another start with CutMix: {signed(cutmix, cutmix.control)})"
    of_start = "".join(f", a mimetic start without it by {signed(one, one.estimate)}" for one in mimetic)
    return f"CutMix changes accuracy by {signed(cutmix, cutmix.estimate)}{chance}{of_start}."


def _gain(guesses: Trio, what: str) -> Part:
    return guesses.part(f"accuracy {what} − without", points_ahead, "above", BETTER,
                        "The zoo aims at second starts of one recipe that differ by less.", "points")  # fmt: skip


def companion_claims(
    similarities: Mapping[str, xr.DataArray],
    sizes: Mapping[str, xr.Dataset],
    tokens: Mapping[str, xr.DataArray],
    heads: Mapping[str, xr.Dataset],
    lacks: str = "",
) -> list[Claim]:
    """Whether other measures differ between a model whose heads look nearer and one whose heads do not.

    similarities: of `cka.layer_similarity` with one CNN. sizes: of `receptive_field.summarize`, attention sub-layers.
    tokens: of `localization.layer_patch_similarity`. heads, lacks: as for `local_claims`. All by label.
    """
    if not heads:
        return _not_asked(lacks, "cka", "field", "places")
    parts = {
        "cka": Trio.of(similarities).part(
            "mean best CKA of the layers of the ViT's lower half with any layer of the CNN, with CutMix − without",
            lambda a, b: _like_cnn(a) - _like_cnn(b), "above", VISIBLE,
            "Smaller differences of mean CKA cannot be seen in a map."),
        "field": Trio.of(sizes).part(
            "radius that holds 50 % of the field, mean of the lowest third of depth, with CutMix / without",
            lambda a, b: early_radius(a, "radius_50") / early_radius(b, "radius_50"), "below", 1 / LARGER,
            "Smaller ratios cannot be seen in Figure 6.", unit="times"),
        "places": Trio.of(tokens).part(
            "how much oftener than by chance a token is most like its own patch, from 0 to 1, with CutMix − without",
            lambda a, b: skill(a) - skill(b), "above", KEPT, "On an 8 × 8 grid, that is six tokens."),
    }  # fmt: skip
    missing = _no_local_heads(heads, CUTMIX, PLAIN)
    return [_claim(key, (part,), missing=missing) for key, part in parts.items()]


def _like_cnn(similarity: xr.DataArray) -> float:
    return float(best_match(similarity).where(similarity["depth_a"] <= 0.5).mean())


def _no_local_heads(heads: Mapping[str, xr.Dataset], nearer: str, farther: str) -> str:
    """Why nothing can be asked of local heads: those of the first model are not nearer than the second's; else ''."""
    near = {label: near_heads(heads[label]) for label in (nearer, farther)}
    if near[farther] - near[nearer] > NEARER:
        return ""
    found = ", ".join(f"{label} {value:.0f} %" for label, value in near.items())
    return f"the heads of the first model are not nearer by {NEARER:g} % than those of the other; {_NEAR}: {found}"


def _not_asked(lacks: str, *keys: str) -> list[Claim]:
    return [_claim(key, (), missing=f"it needs {lacks}") for key in keys]


def _claim(key: str, parts: tuple[Part, ...], missing: str = "", uncontrolled: str = "") -> Claim:
    return Claim(
        id=f"heads-{key}", figure=BEYOND, section="chapter 6", paper=SENTENCES[key], parts=parts, caveat=_ONE_EACH,
        control="two starts with CutMix in their place", second="with the second start in its place", missing=missing,
        uncontrolled=uncontrolled or "There is no second training with CutMix here.",
    )  # fmt: skip
