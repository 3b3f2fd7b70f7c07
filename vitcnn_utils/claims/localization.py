"""Section 7 of the paper: what it says of localisation (Figs 9, 10 and 11), beside what was measured."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from vitcnn_utils.claims import Claim
from vitcnn_utils.measures.localization import border_lean, border_similarity, contrast, localization_rate, skill

MARGIN = 0.10
"""Two measures of localisation that differ by less than this share of the larger are not told apart."""

# Figures 9 and 10: CKA of single tokens and single patches


def interior_tokens(similarity: xr.DataArray, controls: Mapping[str, xr.DataArray], block: str = "final") -> Claim:
    """The interior tokens of a ViT are most like the patch that they stand on (Fig 9, D.2)."""
    rate = localization_rate(similarity).sel(region="interior")
    return Claim(
        f"Tokens in the interior are most similar to the patch of their own position ({block} block).",
        f"{float(rate['top1']):.0%} of {int(rate['tokens'])} interior tokens, {float(rate['within_one']):.0%} within "
        f"one patch; chance {float(rate['chance_top1']):.0%}",
        bool(rate["top1"] > 0.5),
        "the most similar patch is their own for more than half of the interior tokens",
        _rates_in_words(controls, "interior"),
    )


def border_tokens(similarity: xr.DataArray, patches: xr.DataArray, controls: Mapping[str, xr.DataArray]) -> Claim:
    """The border tokens of a ViT are also like other patches of the border, more than the patches are by themselves.

    patches: the same of raw patches with each other, `localization.patch_patch_similarity`.
    """
    lean, lean_of_patches = border_lean(similarity), border_lean(patches)
    means = border_similarity(similarity).sel(token="border")
    others = {"raw patches": patches, **controls}
    return Claim(
        "Tokens at the border are also similar to other positions at the border.",
        f"border tokens: mean CKA {float(means.sel(patch='border')):.3f} with other border patches, "
        f"{float(means.sel(patch='interior')):.3f} with interior ones; lean {lean:+.2f}",
        lean > max(0.0, lean_of_patches),
        "lean = (border − interior) / (|border| + |interior|) above 0, and above that of raw patches, which are "
        "alike by themselves",
        "; ".join(f"{name}: lean {border_lean(s):+.2f}" for name, s in others.items()),
    )


def vit_over_cnn(vit: xr.DataArray, cnn: Mapping[str, xr.DataArray], controls: Mapping[str, xr.DataArray]) -> Claim:
    """A ViT's last block localises better than a CNN's last unit.

    cnn: name -> similarity of the units compared; the first decides.
    """
    return Claim(
        "The ResNet localises much less well than the ViT.",
        f"ViT {skill(vit):.2f}; " + "; ".join(f"{name} {skill(s):.2f}" for name, s in cnn.items()),
        _higher(skill(vit), skill(next(iter(cnn.values())))),
        f"skill (share of tokens that find their own patch, 0 = chance, 1 = all) of the ViT larger than that of "
        f"{next(iter(cnn))}; undecided within {MARGIN:.0%}",
        "; ".join(f"{name}: {skill(s):.2f}" for name, s in controls.items()),
    )


def last_stage(vit: xr.DataArray, units: xr.DataArray) -> Claim:
    """The earlier units of a CNN's last stage localise better than its last unit, and all less well than the ViT (D.3).

    units: (layer, row, col, patch_row, patch_col) of the units of the last stage, in order.
    """
    values = [_contrast(units.isel(layer=i)) for i in range(units.sizes["layer"])]
    return Claim(
        "In the last stage of the ResNet the first unit localises better than the last one, yet less well than the "
        "ViT (D.3).",
        "; ".join(f"{name} {value:.3f}" for name, value in zip(units["layer"].values, values, strict=True))
        + f"; ViT {_contrast(vit):.3f}",
        _all([_higher(values[0], values[-1]), _higher(_contrast(vit), max(values))]),
        "contrast (CKA with the own patch − mean CKA with the others, mean over tokens): first unit above the last, "
        f"ViT above all; undecided within {MARGIN:.0%}; the grids may differ in size",
    )


def readout_matters(cls: xr.DataArray, gap: xr.DataArray, controls: Mapping[str, xr.DataArray]) -> Claim:
    """A ViT trained with global average pooling localises less well in its last block than one trained with CLS.

    cls, gap: (layer, row, col, patch_row, patch_col) of the blocks of both, as many; controls: the same of others.
    """
    ratios = [_contrast(cls.isel(layer=i)) / _contrast(gap.isel(layer=i)) for i in range(cls.sizes["layer"])]
    last_cls, last_gap = cls.isel(layer=-1), gap.isel(layer=-1)
    return Claim(
        "Trained with global average pooling, a ViT localises much less well in its last block.",
        f"last block: contrast CLS {_contrast(last_cls):.3f}, GAP {_contrast(last_gap):.3f}; tokens that find their "
        f"own patch {_found(last_cls):.0%} and {_found(last_gap):.0%}; contrast CLS / GAP by block: "
        + ", ".join(f"{ratio:.2f}" for ratio in ratios),
        _higher(_contrast(last_cls), _contrast(last_gap)),
        "contrast (CKA with the own patch − mean CKA with the others, mean over tokens) in the last block higher "
        f"with CLS; undecided within {MARGIN:.0%}",
        "; ".join(f"{name}: {_contrast(s.isel(layer=-1)):.3f}" for name, s in controls.items()),
    )


def _contrast(similarity: xr.DataArray) -> float:
    return float(contrast(similarity)["difference"].mean())


def _found(similarity: xr.DataArray) -> float:
    return float(localization_rate(similarity)["top1"].sel(region="all"))


def _higher(a: float, b: float) -> bool | None:
    """Whether a > b, undecided if they differ by less than MARGIN of the larger."""
    return None if abs(a - b) < MARGIN * max(abs(a), abs(b)) else a > b


def _rates_in_words(maps: Mapping[str, xr.DataArray], region: str) -> str:
    rates = {name: float(localization_rate(s)["top1"].sel(region=region)) for name, s in maps.items()}
    return "; ".join(f"{name}: {rate:.0%}" for name, rate in rates.items())


# Figure 11: linear probes


def single_tokens(cls: xr.Dataset, others: Mapping[str, xr.Dataset], controls: Mapping[str, xr.Dataset]) -> Claim:
    """In the last layer a probe on one token does well for GAP and the CNN, and badly for the CLS-trained ViT.

    All from `probes.layer_probes` with read-out 'token'.
    """
    chance = cls.attrs["chance"]
    poor = _last(cls, "token") - chance
    excess = [_above(_last(other, "token") - chance, 2 * poor) for other in others.values()]
    return Claim(
        "In the last layer a probe on a single token does well for the GAP-trained ViT and the ResNet, and badly for "
        "the CLS-trained ViT.",
        f"CLS {_percent(_last(cls, 'token'))}; "
        + "; ".join(f"{name} {_percent(_last(other, 'token'))}" for name, other in others.items())
        + f"; chance {chance:.0%}",
        _all(excess),
        "mean accuracy of single tokens, less chance: at least twice the CLS model's for each of the others, by more "
        "than twice the error over draws",
        "; ".join(f"{name}: {_percent(_last(c, 'token'))}" for name, c in controls.items()),
    )


def one_token_is_all(gap: xr.Dataset, points: float = 3.0) -> Claim:
    """In the last layer of a GAP-trained ViT one token tells as much as all of them pooled."""
    single, pooled = _last(gap, "token"), _last(gap, "mean")
    by_place = gap["token_accuracy"].isel(layer=-1).mean("draw")
    return Claim(
        "In the last layer of the GAP-trained ViT a single token is about as good as all tokens pooled.",
        f"single {_percent(single)}, pooled {_percent(pooled)}; single tokens from {100 * float(by_place.min()):.1f} "
        f"to {100 * float(by_place.max()):.1f} %",
        _near(single, pooled, points / 100),
        f"within {points:.0f} points, by twice the error over draws",
    )


def native_readouts(cls: xr.Dataset, gap: xr.Dataset, points: float = 3.0) -> Claim:
    """Each read by what it was trained with, the CLS and the GAP model are about as good."""
    of_cls, of_gap = _last(cls, "cls"), _last(gap, "mean")
    return Claim(
        "Each probed at the read-out that it was trained with, the CLS and the GAP model do about equally well.",
        f"last layer: CLS token {_percent(of_cls)}, GAP {_percent(of_gap)}",
        _near(of_cls, of_gap, points / 100),
        f"within {points:.0f} points, by twice the error over draws",
    )


def pooled_plateau(cls: xr.Dataset) -> Claim:
    """In the CLS-trained ViT pooled tokens keep up with the CLS token until the last layers, which help CLS alone."""
    token, pooled = (cls["accuracy"].sel(readout=r) for r in ("cls", "mean"))
    last = token.sizes["layer"] - 1
    onset = last - max(1, round(token.sizes["layer"] / 4))
    before = pooled.isel(layer=onset) - token.isel(layer=onset)
    gain, pooled_gain = (curve.isel(layer=last) - curve.isel(layer=onset) for curve in (token, pooled))
    return Claim(
        "In the CLS-trained ViT the pooled tokens are as good as the CLS token until the last several layers, then "
        "stop improving.",
        f"at {token['layer'].values[onset]}: pooled − CLS {100 * float(before.mean()):+.1f} points; from there to "
        "the end "
        f"CLS gains {100 * float(gain.mean()):+.1f} points, pooled tokens {100 * float(pooled_gain.mean()):+.1f}",
        _all([_above(before, -0.03), _above(gain, pooled_gain)]),
        "a quarter of the blocks before the end, pooled tokens are no more than 3 points below the CLS token; from "
        "there on the CLS token gains more; both by more than twice the error over draws",
    )


def first_token_catches_up(gap: xr.Dataset) -> Claim:
    """In the GAP-trained ViT one token is far behind the pooled ones in early layers, and catches up late."""
    behind = gap["accuracy"].sel(readout="mean") - gap["accuracy"].sel(readout="first token")
    widest, end = behind.isel(layer=behind.mean("draw").argmax("layer")), behind.isel(layer=-1)
    return Claim(
        "In the GAP-trained ViT the first token alone is poor in early layers and catches up late.",
        f"pooled − first token: at most {100 * float(widest.mean()):.1f} points, at {widest['layer'].item()}; "
        f"{100 * float(end.mean()):.1f} points in the last layer",
        _all([_above(widest, 0.05), _above(widest, 2 * end)]),
        "behind by more than 5 points at its worst, and in the last layer by less than half of that; both by more than "
        "twice the error over draws",
    )


def _last(probes: xr.Dataset, readout: str) -> xr.DataArray:
    """Accuracy in the last layer, (draw)."""
    return probes["accuracy"].sel(readout=readout).isel(layer=-1).reset_coords(drop=True)


def _percent(accuracy: xr.DataArray) -> str:
    """Mean, and standard deviation over draws if there are several, in percent."""
    spread = f" ± {100 * float(accuracy.std(ddof=1)):.1f}" if accuracy.size > 1 else ""
    return f"{100 * float(accuracy.mean()):.1f}{spread} %"


def _paired(a: xr.DataArray, b: xr.DataArray | float) -> tuple[float, float]:
    """Mean difference, and twice its standard error over draws (the same for both); NaN for one draw."""
    difference = a.values - (b if isinstance(b, float) else b.values)
    error = 2 * difference.std(ddof=1) / np.sqrt(difference.size) if difference.size > 1 else np.nan
    return float(difference.mean()), float(error)


def _above(a: xr.DataArray, b: xr.DataArray | float) -> bool | None:
    difference, error = _paired(a, b)
    return difference > 0 if abs(difference) > error else None


def _near(a: xr.DataArray, b: xr.DataArray, margin: float) -> bool | None:
    difference, error = _paired(a, b)
    if abs(difference) + error < margin:
        return True
    return False if abs(difference) - error > margin else None


def _all(verdicts: list[bool | None]) -> bool | None:
    """True if all are; False if one is False; else not decided."""
    return False if False in verdicts else None if None in verdicts else True
