"""Claims about localisation, on arrays made so that they hold, fail, or cannot be decided."""

import pytest
import xarray as xr
from made import elsewhere, layers
from made import probe_curves as probes
from made import token_map as similarity

from vitcnn_utils.claims import localization as claims

# Figures 9 and 10


def test_interior_tokens_at_their_own_patch() -> None:
    claim = claims.interior_tokens(similarity(), {"untrained": elsewhere()})
    assert claim.holds is True
    assert "100% of 9 interior tokens" in claim.measured
    assert claim.control == "untrained: 0%"


def test_interior_tokens_elsewhere() -> None:
    assert claims.interior_tokens(elsewhere(), {}).holds is False


def test_border_tokens_like_the_border_more_than_raw_patches_do() -> None:
    claim = claims.border_tokens(similarity(border=0.2), similarity(), {})
    assert claim.holds is True
    assert "0.300 with other border patches, 0.100 with interior ones" in claim.measured


@pytest.mark.parametrize(("tokens", "patches"), [(0.2, 0.3), (-0.05, -0.09), (0.0, 0.0)])
def test_border_tokens_no_more_like_the_border_than_raw_patches(tokens: float, patches: float) -> None:
    assert claims.border_tokens(similarity(border=tokens), similarity(border=patches), {}).holds is False


def test_vit_localises_better_than_cnn_on_a_coarser_grid() -> None:
    coarse = elsewhere()[:3, :3, :3, :3]
    claim = claims.vit_over_cnn(similarity(), {"last": coarse, "before": similarity()}, {})
    assert claim.holds is True
    assert claim.measured == "ViT 1.00; last 0.00; before 1.00"


def test_vit_and_cnn_alike_is_undecided_and_the_reverse_does_not_hold() -> None:
    assert claims.vit_over_cnn(similarity(), {"last": similarity(grid=4)}, {}).holds is None
    assert claims.vit_over_cnn(elsewhere(), {"last": similarity()}, {}).holds is False


@pytest.mark.parametrize(
    ("units", "vit", "holds"),
    [
        ((0.4, 0.35, 0.2), 0.6, True),
        ((0.2, 0.3, 0.4), 0.6, False),
        ((0.4, 0.4, 0.4), 0.6, None),
        ((0.4, 0.35, 0.2), 0.3, False),
    ],
)
def test_last_stage(units: tuple[float, ...], vit: float, holds: bool | None) -> None:
    claim = claims.last_stage(similarity(vit), layers(*(similarity(own) for own in units)))
    assert claim.holds is holds
    assert f"l0 {units[0] - 0.1:.3f}" in claim.measured


@pytest.mark.parametrize(("gap", "holds"), [(0.2, True), (0.9, False), (0.5, None)])
def test_the_readout_matters_in_the_last_block(gap: float, holds: bool | None) -> None:
    cls = layers(similarity(0.5), similarity(0.5))
    claim = claims.readout_matters(cls, layers(similarity(0.5), similarity(gap)), {"untrained": cls})
    assert claim.holds is holds
    assert "by block: 1.00" in claim.measured
    assert claim.control == "untrained: 0.400"


# Figure 11


@pytest.mark.parametrize(("gap", "holds"), [(0.50, True), (0.25, False), (0.30, None)])
def test_single_tokens(gap: float, holds: bool | None) -> None:
    cls = probes(token=[0.1, 0.2])
    claim = claims.single_tokens(cls, {"GAP": probes(token=[0.1, gap]), "CNN": probes(token=[0.1, 0.6])}, {"u": cls})
    assert claim.holds is holds
    assert claim.control == "u: 20.0 ± 0.1 %"


@pytest.mark.parametrize(("pooled", "holds"), [(0.51, True), (0.60, False)])
def test_one_token_of_gap_is_as_good_as_all(pooled: float, holds: bool) -> None:
    assert claims.one_token_is_all(probes(token=[0.1, 0.5], mean=[0.1, pooled])).holds is holds


@pytest.mark.parametrize(("gap", "holds"), [(0.51, True), (0.60, False)])
def test_native_readouts(gap: float, holds: bool) -> None:
    assert claims.native_readouts(probes(cls=[0.1, 0.5]), probes(mean=[0.1, gap])).holds is holds


def test_native_readouts_at_the_margin_are_undecided() -> None:
    gap = probes(mean=[0.1, 0.53])
    gap["accuracy"] = gap["accuracy"] + xr.DataArray([0.02, -0.02, -0.02, 0.02], dims="draw")
    assert claims.native_readouts(probes(cls=[0.1, 0.5]), gap).holds is None


@pytest.mark.parametrize(
    ("cls", "mean", "holds"),
    [
        ([0.2, 0.4, 0.5, 0.7], [0.2, 0.4, 0.5, 0.52], True),
        ([0.2, 0.4, 0.5, 0.6], [0.2, 0.4, 0.5, 0.7], False),
        ([0.2, 0.4, 0.5, 0.7], [0.2, 0.3, 0.3, 0.3], False),  # never kept up
    ],
)
def test_pooled_tokens_reach_a_plateau(cls: list[float], mean: list[float], holds: bool) -> None:
    assert claims.pooled_plateau(probes(cls=cls, mean=mean)).holds is holds


@pytest.mark.parametrize(
    ("first", "holds"), [([0.1, 0.2, 0.59], True), ([0.1, 0.2, 0.3], False), ([0.29, 0.39, 0.59], False)]
)
def test_the_first_token_catches_up(first: list[float], holds: bool) -> None:
    claim = claims.first_token_catches_up(probes(mean=[0.3, 0.4, 0.6], first_token=first))
    assert claim.holds is holds


def test_one_draw_decides_nothing() -> None:
    one = probes(draws=1, cls=[0.1, 0.5], mean=[0.1, 0.9], token=[0.1, 0.2])
    assert claims.native_readouts(one, one).holds is None
    assert claims.one_token_is_all(one).holds is None
    assert claims.native_readouts(one, one).measured == "last layer: CLS token 50.1 %, GAP 90.1 %"
