"""Section 7 of the paper: what it says of localisation (Figs 9, 10 and 11), beside what was measured."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import Arrays, Claim, Controls, Part, whole
from vitcnn_utils.measures.localization import border_lean, contrast, localization_rate, skill
from vitcnn_utils.measures.probes import last

FEW = 20.0
"""The percentage of tokens up to which they are called a few."""
MOST = 50.0
"""Percent of skill: more than half of the way from chance to all tokens."""
TENTH = 10.0
"""Points of skill from which on one model is said to localise better than another."""
TWICE = 2.0
"""So many times as far above chance counts as well beside badly."""
NEAR = 3.0
"""Percentage points of probe accuracy that count as about equal."""
BEHIND = 5.0
"""Percentage points of probe accuracy that count as far behind."""

Maps = Mapping[str, xr.DataArray]
Probes = Mapping[str, xr.Dataset]

# Figures 9 and 10: CKA of single tokens and single patches, with minibatches left out for the intervals. Every row uses
# one number, the skill.

_SKILL = (
    "Skill is the share of tokens that are most like their own patch, as percent of the way from chance (0) to all "
    "(100, which raw patches reach by definition): it can be compared across grids, layers and models. It says where "
    "the similarity is largest, not by how much. Neighbouring patches are alike in photographs."
)


def interior_tokens(similarity: xr.DataArray, controls: Maps, block: str = "last") -> Claim:
    """The interior tokens of a ViT are most like the patch that they stand on (Fig 9, D.2)."""
    others = Controls.of(controls)
    rate = localization_rate(whole(similarity)).sel(region="interior")
    return Claim(
        id=f"fig-9-interior-{block.replace(' ', '-')}",
        figure="9" if block == "last" else "D.2",
        section="7",
        paper="Tokens in the interior are most similar to the patch of their own position.",
        of=f"{block} block",
        parts=(
            Part.of("skill of the interior tokens", lambda s: 100 * skill(s, "interior"), (similarity,), "above", MOST,
                    "'Most similar' must be true of most of them.", unit="%", **others.with_others()),
        ),
        caveat=_SKILL,
        second=others.second_name,
        missing="" if rate["tokens"] > 0 else "this grid has no interior tokens",
        note=f"{float(rate['top1']):.0%} of {int(rate['tokens'])} tokens are most like their own patch, "
        f"{float(rate['within_one']):.0%} like one at most one patch away; by chance {float(rate['chance_top1']):.0%}"
        if rate["tokens"] > 0 else "",
    )  # fmt: skip


def border_tokens(similarity: xr.DataArray, patches: xr.DataArray, controls: Maps) -> Claim:
    """The border tokens of a ViT are also like other patches of the border, more than the patches are by themselves.

    patches: the same of raw patches with each other, `localization.patch_patch_similarity`.
    """

    def beyond(of_tokens: xr.DataArray, of_patches: xr.DataArray) -> float:
        return border_lean(of_tokens) - border_lean(of_patches)

    others = Controls.of(controls)
    lean = "lean to the border of the border tokens"
    return Claim(
        id="fig-9-border",
        figure="9",
        section="7",
        paper="Tokens at the border are also similar to other positions at the border.",
        parts=(
            Part.of(lean, border_lean, (similarity,), "above", 0, "Above 0 they are more like the border.",
                    **others.with_others()),
            Part.of(f"{lean} − that of raw patches", beyond, (similarity, patches), "above", 0,
                    "Patches of the border may be alike by themselves.", **others.with_others(patches)),
        ),
        second=others.second_name,
        caveat="Lean: (border − interior) / (|border| + |interior|) of the mean CKA with other border patches and with "
        "interior ones, from −1 to 1. Where both are near 0 it is noisy.",
        missing="" if np.isfinite(border_lean(whole(similarity))) else "this grid has no interior",
    )  # fmt: skip


def vit_over_cnn(vit: xr.DataArray, cnn: Maps, untrained_cnn: xr.DataArray, controls: Maps) -> Claim:
    """A ViT's last block localises better than a CNN's last unit. cnn: name -> that of units; the first decides."""
    first, others = next(iter(cnn.values())), Controls.of(controls)
    return Claim(
        id="fig-9-vit-above-cnn",
        figure="9",
        section="7",
        paper="The ResNet localises much less well than the ViT.",
        parts=(
            _ahead(f"the ViT's last block − {next(iter(cnn))}", (vit, first), (others.untrained, untrained_cnn),
                   None if others.second is None else (others.second, first)),
        ),
        second=others.second_name,
        caveat=_SKILL + " The grids of both may differ in size.",
        control="both untrained",
        note="skill: " + ", ".join(f"{name} {100 * skill(whole(s)):.0f} %" for name, s in {"ViT": vit, **cnn}.items()),
    )  # fmt: skip


def last_stage(
    vit: xr.DataArray, units: xr.DataArray, untrained_vit: xr.DataArray, untrained_units: xr.DataArray
) -> Claim:
    """The earlier units of a CNN's last stage localise better than its last unit, and all less well than the ViT (D.3).

    units: (layer, row, col, patch_row, patch_col) of the units of the last stage, in order.
    """

    def best(of_units: xr.DataArray) -> float:
        return max(map(skill, of_units.transpose("layer", ...)))

    each = whole(units).transpose("layer", ...)
    return Claim(
        id="fig-d3-last-stage",
        figure="D.3",
        section="7, D",
        paper="In the ResNet's last stage the first unit localises better than the last, yet less well than the ViT.",
        parts=(
            _ahead("the first unit − the last unit", (units,), (untrained_units,),
                   number=lambda u: skill(u.isel(layer=0)) - skill(u.isel(layer=-1))),
            _ahead("the ViT's last block − the best unit", (vit, units), (untrained_vit, untrained_units),
                   number=lambda v, u: skill(v) - best(u)),
        ),
        caveat=_SKILL + " The grids of both may differ in size.",
        control="both untrained",
        missing="" if len(each) > 1 else "the last stage has one unit",
        note="skill: " + ", ".join(f"{u['layer'].item()} {100 * skill(u):.0f} %" for u in each),
    )  # fmt: skip


def readout_matters(cls: xr.DataArray, gap: xr.DataArray, untrained: Arrays, second: Maps) -> Claim:
    """A ViT trained with global average pooling localises less well in its last block than one trained with CLS.

    cls, gap: (layer, row, col, patch_row, patch_col) of the blocks of both, as many. untrained: the last blocks of both
    before training, which differ in the architecture alone. second: name -> last block of another start with CLS.
    """
    last = cls.isel(layer=-1), gap.isel(layer=-1)
    every = whole(cls), whole(gap)
    by_block = (
        f"{100 * (skill(every[0].isel(layer=i)) - skill(every[1].isel(layer=i))):+.0f}"
        for i in range(cls.sizes["layer"])
    )
    heights = (f"{name} {float(contrast(s.isel(layer=-1))['difference'].mean()):.3f}"
               for name, s in zip(("CLS", "GAP"), every, strict=True))  # fmt: skip
    again = next(iter(second.values()), None)
    return Claim(
        id="fig-10-readout",
        figure="10",
        section="7",
        paper="Trained with global average pooling, a ViT localises much less well in its last block.",
        parts=(
            _ahead("last block, trained with CLS − with GAP", last, untrained,
                   None if again is None else (again, last[1])),
        ),
        control="both untrained",
        second=next(iter(second), ""),
        caveat=_SKILL + " One training each: where there is a second one with CLS, it must agree.",
        note=f"by block: {', '.join(by_block)} points; CKA with the own patch − mean CKA with the others, last block: "
        + ", ".join(heights),
    )  # fmt: skip


def _ahead(
    words: str, pair: Arrays, control: Arrays, again: Arrays | None = None,
    number: Callable[..., float] = lambda a, b: skill(a) - skill(b),
) -> Part:  # fmt: skip
    if any(one is None for one in control):
        control = ()
    return Part.of(f"skill, {words}", lambda *maps: 100 * number(*maps), pair, "above", TENTH,
                   "A tenth of the way from chance to all tokens.", unit="points", control=control,
                   again=again)  # fmt: skip


# Figure 11: linear probes. All claims take `probes.layer_probes`; intervals are over draws of the shots and test
# images. Controls are of the same models before training.

_DRAWS = "The interval is over draws of the shots and over test images, for one training of each model."


def single_tokens(cls: xr.Dataset, others: Probes, untrained: Probes, second: Probes) -> Claim:
    """In the last layer a probe on one token does well for GAP and the CNN, and badly for the CLS-trained ViT.

    All with the read-out 'token'. untrained: of the models of `others`, by name, and of 'ViT'. second: name -> another
    training of the CLS-trained ViT.
    """

    def good(of_other: xr.Dataset, of_cls: xr.Dataset) -> float:
        chance = 100 * of_cls.attrs["chance"]
        return (last(of_other, "token") - chance) - TWICE * (last(of_cls, "token") - chance)

    def part(name: str, other: xr.Dataset) -> Part:
        twins = (untrained[name], untrained["ViT"]) if {name, "ViT"} <= set(untrained) else None
        again = next(iter(second.values()), None)
        return Part.of(f"single tokens in the last layer, {name}: accuracy above chance, minus {TWICE:g} times that of "
                       "CLS", good, (other, cls), "above", 0,
                       "The paper's colour bars give a factor of 5 or more: twice is a low bar.", unit="points",
                       control=twins, again=None if again is None else (other, again))  # fmt: skip

    models = {"ViT": cls, **others} | {f"{name}, untrained": one for name, one in untrained.items()} | dict(second)
    return Claim(
        id="fig-11-single-tokens",
        figure="11",
        section="7",
        paper="In the last layer a probe on a single token does well for the GAP-trained ViT and the ResNet, and badly "
        "for the CLS-trained ViT.",
        parts=tuple(part(name, other) for name, other in others.items()),
        second=next(iter(second), ""),
        caveat=_DRAWS,
        note=", ".join(f"{name} {last(one, 'token'):.1f} %" for name, one in models.items())
        + f"; chance {cls.attrs['chance']:.0%}",
    )


def one_token_is_all(gap: xr.Dataset, untrained: xr.Dataset) -> Claim:
    """In the last layer of a GAP-trained ViT one token tells as much as all of them pooled."""
    by_place = 100 * gap["token_accuracy"].isel(layer=-1).mean("draw")
    return Claim(
        id="fig-11-one-token",
        figure="11",
        section="7",
        paper="In the last layer of the GAP-trained ViT a single token is about as good as all tokens pooled.",
        parts=(
            _near("|single − pooled|, last layer", lambda p: last(p, "token") - last(p, "mean"), (gap,), (untrained,)),
        ),
        caveat=_DRAWS,
        note=f"single {last(gap, 'token'):.1f} %, pooled {last(gap, 'mean'):.1f} %; single tokens from "
        f"{float(by_place.min()):.1f} to {float(by_place.max()):.1f} %",
    )


def native_readouts(cls: xr.Dataset, gap: xr.Dataset, untrained: Arrays, second: Probes) -> Claim:
    """Each read by what it was trained with, the CLS and the GAP model are about as good.

    untrained: both before training. second: name -> another training of the CLS model.
    """
    again = next(iter(second.values()), None)
    return Claim(
        id="fig-11-native",
        figure="11",
        section="7",
        paper="Each probed at the read-out that it was trained with, the CLS and the GAP model do about equally well.",
        parts=(
            _near("|CLS token − GAP|, last layer", lambda a, b: last(a, "cls") - last(b, "mean"), (cls, gap), untrained,
                  None if again is None else (again, gap)),
        ),
        second=next(iter(second), ""),
        caveat=_DRAWS,
        note=f"CLS token {last(cls, 'cls'):.1f} %, GAP {last(gap, 'mean'):.1f} %",
    )  # fmt: skip


def pooled_plateau(cls: xr.Dataset, controls: Probes) -> Claim:
    """In the CLS-trained ViT pooled tokens keep up with the CLS token until the last layers, which help CLS alone."""
    end = cls.sizes["layer"] - 1
    onset = end - max(1, round(cls.sizes["layer"] / 4))

    def behind(probes: xr.Dataset, layer: int) -> float:
        return last(probes.isel(layer=[layer]), "mean") - last(probes.isel(layer=[layer]), "cls")

    others = Controls.of(controls)
    return Claim(
        id="fig-11-plateau",
        figure="11",
        section="7",
        paper="In the CLS-trained ViT the pooled tokens are as good as the CLS token until the last several layers, "
        "then stop improving.",
        parts=(
            Part.of(f"pooled − CLS token at {cls['layer'].values[onset]}, a quarter of the blocks before the end",
                    lambda p: behind(p, onset), (cls,), "above", -NEAR, "A little behind still counts as good as.",
                    unit="points", **others.with_others()),
            Part.of("gain of the CLS token − gain of the pooled tokens, from there to the end",
                    lambda p: behind(p, onset) - behind(p, end), (cls,), "above", 0,
                    "Pooled tokens that stop improving gain less.", unit="points", **others.with_others()),
            Part.of("gain of the pooled tokens, from there to the end",
                    lambda p: last(p, "mean") - last(p.isel(layer=[onset]), "mean"), (cls,), "below", NEAR,
                    "Who stops improving gains a few points at most.", unit="points", **others.with_others()),
        ),
        second=others.second_name,
        caveat=_DRAWS,
        note="from there on " + " and ".join(
            f"{words} {last(cls, read) - last(cls.isel(layer=[onset]), read):+.1f} points"
            for words, read in (("CLS gains", "cls"), ("pooled tokens", "mean"))),
    )  # fmt: skip


def first_token_catches_up(gap: xr.Dataset, untrained: xr.Dataset) -> Claim:
    """In the GAP-trained ViT one token is far behind the pooled ones in early layers, and catches up late."""

    def behind(probes: xr.Dataset) -> xr.DataArray:
        accuracy = 100 * probes["accuracy"].mean("draw")
        return accuracy.sel(readout="mean", drop=True) - accuracy.sel(readout="first token", drop=True)

    def left(probes: xr.Dataset) -> float:
        return float(behind(probes).max() - 2 * behind(probes)[-1])

    every = behind(whole(gap))
    return Claim(
        id="fig-11-first-token",
        figure="11",
        section="7",
        paper="In the GAP-trained ViT the first token alone is poor in early layers and catches up late.",
        parts=(
            Part.of("pooled − first token in the layer where it is largest", lambda p: float(behind(p).max()), (gap,),
                    "above", BEHIND, "Less is within what draws of the shots scatter.", unit="points",
                    control=(untrained,)),
            Part.of("the same − twice what is left of it in the last layer", left, (gap,), "above", 0,
                    "Half of the way is caught up.", unit="points", control=(untrained,)),
        ),
        caveat=f"The layer is the one with the largest difference, which favours the first part a little. {_DRAWS}",
        note=f"largest at {every['layer'].values[every.values.argmax()]}; in the last layer "
        f"{float(every[-1]):.1f} points",
    )  # fmt: skip


def _near(words: str, number: Callable[..., float], arrays: Arrays, control: Any, again: Arrays | None = None) -> Part:
    return Part.of(words, number, arrays, "below", NEAR, "About equal leaves room for a few points.", unit="points",
                   control=control, again=again).magnitude()  # fmt: skip


# What the figures show here, in sentences that follow the numbers


def place_words(vit: xr.DataArray, untrained: xr.DataArray, cnn: Maps, patches: xr.DataArray) -> str:
    """What the rows of Fig 9 say together: the ViT's last block, units of the CNN by name, and raw patches."""
    trained, before = _found(vit), _found(untrained)
    others = "".join(f"; {name}: {_found(maps):.0f} %" for name, maps in cnn.items())
    moved = "not moved" if before - trained < 1 else "moved a few" if before - trained < FEW else "moved many"
    tokens, raw = (float(contrast(whole(one))["others"].mean()) for one in (vit, patches))
    return (
        f"{trained:.0f} % of the tokens of the ViT's last block are most like their own patch{others}. Training has "
        f"{moved} tokens off their places: before it, {before:.0f} % of the ViT's found theirs. With the other patches "
        f"a token has a CKA of {tokens:.2f} on average, where raw patches have {raw:.2f} among themselves."
    )


def readout_words(cls: xr.DataArray, gap: xr.DataArray) -> str:
    """Where along the blocks the two read-outs part."""
    blocks = zip(*(whole(maps).transpose("layer", ...) for maps in (cls, gap)), strict=True)
    found = [(_found(of_cls), _found(of_gap)) for of_cls, of_gap in blocks]
    lead = [of_cls - of_gap for of_cls, of_gap in found]
    step = int(np.argmax(np.abs(np.diff(lead, prepend=0))))
    first = "the two are equal" if abs(lead[0]) < 0.5 else f"CLS leads by {lead[0]:+.0f} points"
    return (
        f"In the last block {found[-1][0]:.0f} % of the tokens of the model trained with CLS find their own patch, and "
        f"{found[-1][1]:.0f} % of those of the model trained with GAP. In the first block {first}; the lead of "
        f"CLS changes most with block {step}, where it becomes {lead[step]:+.0f} points."
    )


def _found(similarity: xr.DataArray) -> float:
    """Percent of tokens that are most like their own patch."""
    return 100 * float(localization_rate(whole(similarity))["top1"].sel(region="all"))


def token_words(probes: Probes) -> str:
    """What one token, all tokens pooled and the CLS token know in the last layer. probes: by label, one is 'ViT'."""
    vit, gap = probes["ViT"], probes.get("ViT-GAP")
    single, pooled, cls = (last(vit, readout) for readout in ("token", "mean", "cls"))
    pull = "what CLS knows is not in their average" if pooled < cls else "the patches together do as well"
    others = "".join(f", the {name} {last(one, 'token'):.0f} %" for name, one in probes.items() if name != "ViT")
    text = (
        f"In the last layer of the ViT the CLS token gives {cls:.0f} % and all patches pooled {pooled:.0f} %: {pull}. "
        f"By a single token or place, the ViT gives {single:.0f} %{others}."
    )
    if gap is None:
        return text
    return (
        f"{text} To read one token in place of all costs the model trained with CLS {pooled - single:.0f} points and "
        f"the one trained with GAP {last(gap, 'mean') - last(gap, 'token'):.0f}."
    )
