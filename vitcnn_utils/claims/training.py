"""Beyond the paper: what of a training makes heads local, and what goes along with it (chapter 6).

The paper ties local heads to large data, and them to accuracy. Later work ties them to CutMix (arXiv 2605.16390) and to
the start (arXiv 2305.09828). The numbers of a claim are those of two models trained alike but for one thing; all
thresholds are ours. As control stands what another start of the same recipe changes.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import xarray as xr

from vitcnn_utils.claims.ledger import BEYOND, Claim, Estimate, Part, difference_of_shares
from vitcnn_utils.claims.locality import LARGER, LOCAL
from vitcnn_utils.claims.structure import VISIBLE
from vitcnn_utils.measures.attention import near_heads
from vitcnn_utils.measures.cka import best_match
from vitcnn_utils.measures.localization import skill
from vitcnn_utils.measures.receptive_field import early_radius
from vitcnn_utils.measures.training import half_way

NEARER = 5.0
"""Percent of the distance of uniform attention from which on heads are called nearer."""
BETTER = 1.0
"""Percentage points of accuracy: the zoo aims at second starts that differ by less."""
LATER = 10.0
"""Percentage points of the training from which on one thing is said to come after another."""
KEPT = 0.1
"""A difference of how much oftener than by chance tokens are most like their own patch."""

SENTENCES = {
    "cutmix": "With CutMix, heads of the lowest blocks become local; without it they do not.",
    "start": "From a mimetic start, heads are local without CutMix.",
    "when": "Heads turn to what is near late, when most of the accuracy is there.",
    "accuracy": "The model with local heads recognises more.",
    "cause": "A local start without CutMix brings the same gain: being local is why.",
    "cka": "With local heads, the lower half of the ViT is more like the CNN.",
    "field": "With local heads, low layers have smaller receptive fields.",
    "places": "With local heads, tokens of the last block keep their places better.",
}
"""The claims of the chapter."""

_NO_SECOND = "There is no second training from a mimetic start."
_ONE_EACH = "One training each: what another start changes is the control."
Side = Literal["above", "below"]


class Trio(NamedTuple):
    """What was measured of three models: trained without CutMix, with it, and with it from another start.

    second may be None.
    """

    without: Any
    cutmix: Any
    second: Any = None

    def part(
        self, words: str, number: Callable[..., float], side: Side, threshold: float, why: str, unit: str = ""
    ) -> Part:
        """A number of two models: of that with CutMix and that without it."""
        again = None if self.second is None else (self.second, self.without)
        control = None if self.second is None else (self.second, self.cutmix)
        return Part.of(words, number, (self.cutmix, self.without), side, threshold, why, unit, control=control,
                       again=again)  # fmt: skip


def not_asked(why: str) -> list[Claim]:
    """All claims that compare trainings, where the models for them are missing."""
    return [_claim(key, (), missing=why) for key in SENTENCES if key != "when"]


def cutmix_makes_local(heads: Trio) -> Claim:
    """Whether CutMix makes heads of the lowest blocks local. heads: of `head_distances`."""
    without = Part.of(f"{_NEAR}, without CutMix", near_heads, (heads.without,), "above", LOCAL, _AROUND, unit="%")
    parts = (*_local_parts(heads, "with CutMix"), without)
    return _claim("cutmix", parts)


def start_makes_local(mimetic: xr.Dataset, without: xr.Dataset) -> Claim:
    """Whether heads stay local from a mimetic start, both trained without CutMix."""
    return _claim("start", _local_parts(Trio(without, mimetic), "mimetic start"), uncontrolled=_NO_SECOND)


_NEAR = "nearest quarter of the heads of the two lowest blocks, mean, in percent of the distance of uniform attention"
_AROUND = "As in Figure 3: a head that looks at its patch and the eight around it has 25 % on a grid of 8 × 8."


def _local_parts(heads: Trio, what: str) -> tuple[Part, ...]:
    second = None if heads.second is None else (heads.second,)
    return (
        heads.part(f"{_NEAR}, {what} − without", lambda a, b: near_heads(a) - near_heads(b), "below", -NEARER,
                   "Smaller differences cannot be seen in Figure 3.", "%"),
        Part.of(f"{_NEAR}, {what}", near_heads, (heads.cutmix,), "below", LOCAL, _AROUND, unit="%", again=second),
    )  # fmt: skip


def local_late(course: xr.Dataset | None, second: xr.Dataset | None) -> Claim:
    """Whether heads become local after the model has learned most of what it knows.

    course: of `measures.training.courses`, None where there is none. second: that of a second training.
    """
    if course is None:
        return _claim("when", (), missing="the log of this model's training does not have the distances of its heads")

    def lag(one: xr.Dataset) -> float:
        return half_way(one["distance"]) - half_way(one["accuracy"])

    nearer = float(course["distance"][0] - course["distance"][-1])
    part = Part(
        "part of the training after which distances have made half of their fall, minus the same of accuracy",
        Estimate(lag(course)), "above", LATER, "Both are known after each pass only.", unit="points",
        again=None if second is None else Estimate(lag(second)),
    )  # fmt: skip
    missing = "" if nearer > NEARER else f"distances fell by {nearer:.1f} % of the distance of uniform attention only"
    return _claim("when", (part,), missing=missing, uncontrolled="A model that is not trained has no course.")


def local_heads_score_better(accuracies: Trio, n: int, missing: str) -> Claim:
    """Whether the model with CutMix recognises more of n images. accuracies: from 0 to 1.

    missing: of `no_local_heads`.
    """
    return _claim("accuracy", (_gain(accuracies, n, "with CutMix"),), missing=missing)


def local_start_scores_better(mimetic: float, without: float, n: int, missing: str) -> Claim:
    """Whether a mimetic start without CutMix gains as well. missing: of `no_local_heads`."""
    parts = (_gain(Trio(without, mimetic), n, "mimetic start"),)
    return _claim("cause", parts, missing=missing, uncontrolled=_NO_SECOND)


def _gain(accuracies: Trio, n: int, what: str) -> Part:
    def gain(a: float | None, b: float) -> Estimate | None:
        return None if a is None else difference_of_shares(a, b, n)

    own = gain(accuracies.cutmix, accuracies.without)
    assert own is not None
    return Part(f"accuracy {what} − without, on {n:,} images", own, "above", BETTER,
                "The zoo aims at second starts of one recipe that differ by less.", unit="points",
                control=gain(accuracies.second, accuracies.cutmix), again=gain(accuracies.second, accuracies.without),
                )  # fmt: skip


def moves_along(similarities: Trio, sizes: Trio, tokens: Trio, missing: str) -> list[Claim]:
    """Whether other measures differ between a model with local heads and one without.

    similarities: of `cka.layer_similarity` with one CNN. sizes: of `receptive_field.summarize`, attention sub-layers.
    tokens: of `localization.token_patch_similarity`. missing: of `no_local_heads`.
    """
    parts = {
        "cka": similarities.part(
            "mean best CKA of the layers of the ViT's lower half with any layer of the CNN, with CutMix − without",
            lambda a, b: _like_cnn(a) - _like_cnn(b), "above", VISIBLE,
            "Smaller differences of mean CKA cannot be seen in a map."),
        "field": sizes.part(
            "radius that holds 50 % of the field, mean of the lowest third of depth, with CutMix / without",
            lambda a, b: early_radius(a, "radius_50") / early_radius(b, "radius_50"), "below", 1 / LARGER,
            "Smaller ratios cannot be seen in Figure 6.", unit="times"),
        "places": tokens.part(
            "how much oftener than by chance a token is most like its own patch, from 0 to 1, with CutMix − without",
            lambda a, b: skill(a) - skill(b), "above", KEPT, "On an 8 × 8 grid, that is six tokens."),
    }  # fmt: skip
    return [_claim(key, (part,), missing=missing) for key, part in parts.items()]


def _like_cnn(similarity: xr.DataArray) -> float:
    return float(best_match(similarity).where(similarity["depth_a"] <= 0.5).mean())


def no_local_heads(*heads: xr.Dataset) -> str:
    """Why nothing can be asked of local heads: no model has nearer ones than another; '' where one has."""
    near = {one.attrs["model"]: near_heads(one) for one in heads}
    if max(near.values()) - min(near.values()) > NEARER:
        return ""
    found = ", ".join(f"{model} {value:.0f} %" for model, value in near.items())
    return f"the models do not differ in local heads; {_NEAR}: {found}"


def _claim(key: str, parts: tuple[Part, ...], missing: str = "", uncontrolled: str = "") -> Claim:
    return Claim(
        id=f"heads-{key}", figure=BEYOND, section="chapter 6", paper=SENTENCES[key], parts=parts, caveat=_ONE_EACH,
        control="another start with CutMix", second="the second start with CutMix", missing=missing,
        uncontrolled=uncontrolled or "There is no second training with CutMix here.",
    )  # fmt: skip
