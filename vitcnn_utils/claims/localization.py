"""Section 7 of the paper: what it says of localisation (Figs 9, 10 and 11), beside what was measured."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from vitcnn_utils.claims.ledger import UNTRAINED, Arrays, Claim, Controls, Estimate, Part, over_draws
from vitcnn_utils.measures.localization import border_lean, contrast, localization_rate, skill

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

# Figures 9 and 10: CKA of single tokens and single patches. Every row uses one number, the skill.

_SKILL = (
    "Skill is the share of tokens that are most like their own patch, as percent of the way from chance (0) to all "
    "(100, which raw patches reach by definition): it can be compared across grids, layers and models. It says where "
    "the similarity is largest, not by how much. Neighbouring patches are alike in photographs."
)


def interior_tokens(similarity: xr.DataArray, controls: Maps, block: str = "last") -> Claim:
    """The interior tokens of a ViT are most like the patch that they stand on (Fig 9, D.2)."""
    others = Controls.of(controls)
    rate = localization_rate(similarity).sel(region="interior")
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
        missing="" if np.isfinite(border_lean(similarity)) else "this grid has no interior",
    )  # fmt: skip


def vit_over_cnn(vit: xr.DataArray, cnn: Maps, controls: Maps) -> Claim:
    """A ViT's last block localises better than a CNN's last unit. cnn: name -> that of units; the first decides."""
    first, others = next(iter(cnn.values())), Controls.of(controls)
    words = f"the ViT's last block − {next(iter(cnn))}"
    return Claim(
        id="fig-9-vit-above-cnn",
        figure="9",
        section="7",
        paper="The ResNet localises much less well than the ViT.",
        parts=(_ahead(words, (vit, first), **others.with_others(first)),),
        second=others.second_name,
        caveat=_SKILL + " The grids of both may differ in size.",
        control="untrained ViT beside the trained CNN",
        note="skill: " + ", ".join(f"{name} {100 * skill(s):.0f} %" for name, s in {"ViT": vit, **cnn}.items()),
    )


def last_stage(vit: xr.DataArray, units: xr.DataArray) -> Claim:
    """The earlier units of a CNN's last stage localise better than its last unit, and all less well than the ViT (D.3).

    units: (layer, row, col, patch_row, patch_col) of the units of the last stage, in order.
    """
    each = [units.isel(layer=i) for i in range(units.sizes["layer"])]
    best = max(each, key=skill)
    return Claim(
        id="fig-d3-last-stage",
        figure="D.3",
        section="7, D",
        paper="In the ResNet's last stage the first unit localises better than the last, yet less well than the ViT.",
        parts=(
            _ahead("the first unit − the last unit", (each[0], each[-1])),
            _ahead("the ViT's last block − the best unit", (vit, best)),
        ),
        caveat=_SKILL + " The grids of both may differ in size.",
        missing="" if len(each) > 1 else "the last stage has one unit",
        note="skill: " + ", ".join(f"{u['layer'].item()} {100 * skill(u):.0f} %" for u in each),
    )


def readout_matters(cls: xr.DataArray, gap: xr.DataArray, controls: Maps) -> Claim:
    """A ViT trained with global average pooling localises less well in its last block than one trained with CLS.

    cls, gap: (layer, row, col, patch_row, patch_col) of the blocks of both, as many. controls: of a second model
    trained with CLS. An untrained model has no read-out that it was trained with, and is not a control here.
    """
    second = {name: of.isel(layer=-1) for name, of in controls.items() if name != UNTRAINED}
    others = Controls.of(second)
    last = cls.isel(layer=-1), gap.isel(layer=-1)
    by_block = (
        f"{100 * (skill(cls.isel(layer=i)) - skill(gap.isel(layer=i))):+.0f}" for i in range(cls.sizes["layer"])
    )
    heights = (f"{name} {float(contrast(s)['difference'].mean()):.3f}"
               for name, s in zip(("CLS", "GAP"), last, strict=True))  # fmt: skip
    return Claim(
        id="fig-10-readout",
        figure="10",
        section="7",
        paper="Trained with global average pooling, a ViT localises much less well in its last block.",
        parts=(_ahead("last block, trained with CLS − with GAP", last, **others.with_others(last[1])),),
        second=others.second_name,
        caveat=_SKILL + " One training each: where there is a second one with CLS, it must agree.",
        note=f"by block: {', '.join(by_block)} points; CKA with the own patch − mean CKA with the others, last block: "
        + ", ".join(heights),
    )


def _ahead(words: str, pair: Arrays, control: Arrays | None = None, again: Arrays | None = None) -> Part:
    return Part.of(f"skill, {words}", lambda a, b: 100 * (skill(a) - skill(b)), pair, "above", TENTH,
                   "A tenth of the way from chance to all tokens.", unit="points", control=control,
                   again=again)  # fmt: skip


# Figure 11: linear probes. All claims take `probes.layer_probes`; intervals are over draws of the shots.

_DRAWS = "The interval is over draws of the shots, on one set of test images and for one training of each model."


def single_tokens(cls: xr.Dataset, others: Mapping[str, xr.Dataset], controls: Mapping[str, xr.Dataset]) -> Claim:
    """In the last layer a probe on one token does well for GAP and the CNN, and badly for the CLS-trained ViT.

    All with the read-out 'token'.
    """
    poor = _last(cls, "token") - cls.attrs["chance"]

    def part(name: str, other: xr.Dataset) -> Part:
        good = _last(other, "token") - other.attrs["chance"]
        words = f"single tokens in the last layer, {name}: accuracy above chance, minus {TWICE:g} times that of CLS"
        return Part(words, _points(good - TWICE * poor), "above", 0,
                    "The paper's colour bars give a factor of 5 or more: twice is a low bar.",
                    unit="points")  # fmt: skip

    models = {"CLS": cls, **others, **controls}
    return Claim(
        id="fig-11-single-tokens",
        figure="11",
        section="7",
        paper="In the last layer a probe on a single token does well for the GAP-trained ViT and the ResNet, and badly "
        "for the CLS-trained ViT.",
        parts=tuple(part(name, other) for name, other in others.items()),
        caveat=_DRAWS,
        note="; ".join(f"{name} {_percent(_last(probes, 'token'))}" for name, probes in models.items())
        + f"; chance {cls.attrs['chance']:.0%}",
    )


def one_token_is_all(gap: xr.Dataset) -> Claim:
    """In the last layer of a GAP-trained ViT one token tells as much as all of them pooled."""
    single, pooled = _last(gap, "token"), _last(gap, "mean")
    by_place = 100 * gap["token_accuracy"].isel(layer=-1).mean("draw")
    return Claim(
        id="fig-11-one-token",
        figure="11",
        section="7",
        paper="In the last layer of the GAP-trained ViT a single token is about as good as all tokens pooled.",
        parts=(_near("|single − pooled|, last layer", single, pooled),),
        caveat=_DRAWS,
        note=f"single {_percent(single)}, pooled {_percent(pooled)}; single tokens from {float(by_place.min()):.1f} to "
        f"{float(by_place.max()):.1f} %",
    )


def native_readouts(cls: xr.Dataset, gap: xr.Dataset) -> Claim:
    """Each read by what it was trained with, the CLS and the GAP model are about as good."""
    of_cls, of_gap = _last(cls, "cls"), _last(gap, "mean")
    return Claim(
        id="fig-11-native",
        figure="11",
        section="7",
        paper="Each probed at the read-out that it was trained with, the CLS and the GAP model do about equally well.",
        parts=(_near("|CLS token − GAP|, last layer", of_cls, of_gap),),
        caveat=_DRAWS,
        note=f"CLS token {_percent(of_cls)}, GAP {_percent(of_gap)}",
    )


def pooled_plateau(cls: xr.Dataset) -> Claim:
    """In the CLS-trained ViT pooled tokens keep up with the CLS token until the last layers, which help CLS alone."""
    token, pooled = (cls["accuracy"].sel(readout=r) for r in ("cls", "mean"))
    last = token.sizes["layer"] - 1
    onset = last - max(1, round(token.sizes["layer"] / 4))
    before = pooled.isel(layer=onset) - token.isel(layer=onset)
    gain, pooled_gain = (curve.isel(layer=last) - curve.isel(layer=onset) for curve in (token, pooled))
    return Claim(
        id="fig-11-plateau",
        figure="11",
        section="7",
        paper="In the CLS-trained ViT the pooled tokens are as good as the CLS token until the last several layers, "
        "then stop improving.",
        parts=(
            Part(f"pooled − CLS token at {token['layer'].values[onset]}, a quarter of the blocks before the end",
                 _points(before), "above", -NEAR, "A little behind still counts as good as.", unit="points"),
            Part("gain of the CLS token − gain of the pooled tokens, from there to the end",
                 _points(gain - pooled_gain), "above", 0, "Pooled tokens that stop improving gain less.",
                 unit="points"),
        ),
        caveat=_DRAWS,
        note=f"from there on CLS gains {100 * float(gain.mean()):+.1f} points, pooled tokens "
        f"{100 * float(pooled_gain.mean()):+.1f}",
    )  # fmt: skip


def first_token_catches_up(gap: xr.Dataset) -> Claim:
    """In the GAP-trained ViT one token is far behind the pooled ones in early layers, and catches up late."""
    behind = gap["accuracy"].sel(readout="mean") - gap["accuracy"].sel(readout="first token")
    widest, end = behind.isel(layer=behind.mean("draw").argmax("layer")), behind.isel(layer=-1)
    return Claim(
        id="fig-11-first-token",
        figure="11",
        section="7",
        paper="In the GAP-trained ViT the first token alone is poor in early layers and catches up late.",
        parts=(
            Part(f"pooled − first token at {widest['layer'].item()}, where it is largest", _points(widest), "above",
                 BEHIND, "Less is within what draws of the shots scatter.", unit="points"),
            Part("the same − twice what is left of it in the last layer", _points(widest - 2 * end), "above", 0,
                 "Half of the way is caught up.", unit="points"),
        ),
        caveat=f"The layer is the one with the largest difference, which favours the first part a little. {_DRAWS}",
        note=f"in the last layer {100 * float(end.mean()):.1f} points",
    )  # fmt: skip


def _last(probes: xr.Dataset, readout: str) -> xr.DataArray:
    """Accuracy in the last layer, (draw)."""
    return probes["accuracy"].sel(readout=readout).isel(layer=-1).reset_coords(drop=True)


def _points(differences: xr.DataArray) -> Estimate:
    """In percentage points, over draws that are the same for both sides of a difference."""
    return over_draws(100 * differences)


def _near(words: str, a: xr.DataArray, b: xr.DataArray) -> Part:
    return Part(words, _points(a - b).magnitude(), "below", NEAR, "About equal leaves room for a few points.",
                unit="points")  # fmt: skip


def _percent(accuracy: xr.DataArray) -> str:
    """Mean, and standard deviation over draws if there are several, in percent."""
    spread = f" ± {100 * float(accuracy.std(ddof=1)):.1f}" if accuracy.size > 1 else ""
    return f"{100 * float(accuracy.mean()):.1f}{spread} %"
