"""Claims of chapter 5, on curves whose answer is known."""

import numpy as np
import pytest
import xarray as xr
from similarity_maps import curves, probes

from vitcnn_utils.claims import scale
from vitcnn_utils.measures.cka import CEILING, FLOOR

PAPER = {"3 %": (0.95, 0.35), "10 %": (0.95, 0.5), "30 %": (0.95, 0.65), CEILING: (0.97, 0.9), FLOOR: (0.4, 0.1)}


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        ({}, [True, True, True]),
        # Low blocks that need data as well, and all parts alike.
        ({"3 %": (0.5, 0.5), "10 %": (0.5, 0.5), "30 %": (0.5, 0.5), CEILING: (0.9, 0.9)}, [False, None, None]),
        # More data lead away, and it is the low blocks that need them.
        ({"3 %": (0.3, 0.9), "10 %": (0.6, 0.7), "30 %": (0.7, 0.5)}, [False, False, False]),
        # An untrained model does as well in the low blocks.
        ({FLOOR: (0.95, 0.5)}, [None, True, True]),
    ],
)
def test_verdicts_of_figure_12(change: dict[str, tuple[float, float]], verdicts: list[bool | None]) -> None:
    claims = scale.series_claims(curves(PAPER | change))
    assert [claim.holds for claim in claims] == verdicts
    assert all(FLOOR in claim.control and CEILING in claim.control for claim in claims)


def test_without_a_second_seed_the_ceiling_is_one() -> None:
    alone = {label: ends for label, ends in PAPER.items() if label != CEILING}
    claims = scale.series_claims(curves(alone))
    assert CEILING not in claims[0].control
    # 0.95 to 0.35 over eight blocks: blocks 0 to 2 and 4 to 7.
    low, high = (1 - np.linspace(0.95, 0.35, 8)[part].mean() for part in (slice(0, 3), slice(4, 8)))
    assert f"{low:.2f} in the lower third, by {high:.2f} in the upper half" in claims[1].measured


def test_one_part_of_the_data_has_no_order() -> None:
    alone = curves({"10 %": (0.9, 0.3), CEILING: (0.95, 0.9), FLOOR: (0.2, 0.1)})
    assert scale.series_claims(alone)[2].holds is None


@pytest.mark.parametrize(
    ("small_end", "equally_long", "verdict"),
    [(0.8, True, True), (0.0, True, False), (0.2, True, None), (0.8, False, None)],
)
def test_the_claim_on_size_needs_models_of_equal_training(
    small_end: float, equally_long: bool, verdict: bool | None
) -> None:
    small = curves({"3 %": (0.95, small_end), FLOOR: (0.4, 0.1)}, count=6)
    large = curves({"3 %": (0.95, 0.2), FLOOR: (0.4, 0.1)}, count=6)
    assert scale.size_claim(large, small, equally_long).holds is verdict


# --- Cards


# --- Figure 13


@pytest.mark.parametrize(("end", "verdict"), [(0.8, True), (0.3, None), (0.05, False)])
def test_verdicts_on_more_data(end: float, verdict: bool | None) -> None:
    claim = scale.data_claim(probes(0.2, end), probes(0.2, 0.3), probes(0.2, 0.1), "ViT")
    assert claim.holds is verdict
    assert "(in the paper, by 30 points; ViT)" in claim.paper
    assert "untrained at depth ½: 15.0 %" in claim.control


def test_more_data_are_quoted_with_sign_and_scatter() -> None:
    full = probes(0.2, 0.6)
    full["accuracy"] = full["accuracy"] + 0.02 * xr.DataArray([-1, 0, 1], dims="draw")
    measured = scale.data_claim(full, probes(0.2, 0.4), full, "CNN").measured
    assert measured == "all data ahead by +10.0 points at depth ½ (± 2.0 between draws) and +20.0 at the end"


@pytest.mark.parametrize(
    ("vit", "cnn", "verdict"),
    [
        ((0.2, 0.6), (0.1, 0.3), True),
        ((0.1, 0.3), (0.2, 0.6), False),
        ((0.2, 0.6), (0.2, 0.6), None),
    ],
)
def test_verdicts_on_architecture(vit: tuple[float, float], cnn: tuple[float, float], verdict: bool | None) -> None:
    flat = probes(0.2, 0.2)
    assert scale.architecture_claim(probes(*vit), probes(*cnn), flat, flat).holds is verdict


def test_a_lead_at_one_depth_only_is_undecided() -> None:
    level = probes(0.3, 0.3)
    peaked = probes(0.3, 0.3, depths=(0, 0.49, 0.5, 0.51, 1))
    peaked["accuracy"][2] = 0.5
    assert scale.architecture_claim(peaked, level, level, level).holds is None
