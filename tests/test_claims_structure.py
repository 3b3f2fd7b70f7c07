"""Claims of chapter 1, on maps whose answer is known."""

import numpy as np
import pytest
import xarray as xr
from similarity_maps import PAPER, by_distance, constant, grid, ridge, similarity, staged

from vitcnn_utils.claims import structure
from vitcnn_utils.claims.ledger import CANNOT, FAILS, HOLDS, HOLDS_TOO, Claim

FLAT = by_distance(0)
VIT_LIKE = (grid(0.9, 0.8), staged(0.9, 0.2))
ALIKE = (by_distance(0.5), similarity(by_distance(0.5).values, stages=2))
STAGELESS = similarity(staged(0.9, 0.2).values)


@pytest.mark.parametrize(
    ("maps", "untrained", "verdicts"),
    [
        (VIT_LIKE, ALIKE, [HOLDS] * 4),
        (VIT_LIKE, VIT_LIKE, [HOLDS_TOO] * 4),
        (VIT_LIKE[::-1], ALIKE, [FAILS, FAILS, CANNOT, FAILS]),
        (ALIKE, VIT_LIKE, [FAILS] * 4),
        ((VIT_LIKE[0], STAGELESS), ALIKE, [HOLDS, HOLDS, CANNOT, HOLDS]),
    ],
)
def test_verdicts_of_figure_1(maps: tuple, untrained: tuple, verdicts: list[str]) -> None:
    assert [claim.verdict for claim in structure.within_claims(*maps, *untrained)] == verdicts


def test_figure_1_quotes_its_numbers() -> None:
    claim = structure.within_claims(*VIT_LIKE, FLAT, FLAT)[0]
    assert claim.parts[0].estimate.value == pytest.approx(0.62, abs=0.005)
    assert claim.note == "ViT 0.82, CNN 0.20, untrained ViT 1.00, untrained CNN 1.00"


def test_block_outputs_alone_show_no_grid() -> None:
    blocks = similarity(by_distance(0.5, 8).values, kinds=("block",))
    assert structure.within_claims(blocks, blocks, blocks, blocks)[3].verdict == CANNOT


# Figure 2

REVERSED = ridge(lambda d: 1 - d, constant)
FADING = ridge(lambda d: 0.6 * d, lambda depth: np.where(depth < 2 / 3, 1, 0.3))


def cross(
    trained: xr.DataArray, spatial: xr.DataArray | None = None, untrained: xr.DataArray = REVERSED
) -> list[Claim]:
    return structure.cross_claims(trained, untrained, trained, trained * 0.99 if spatial is None else spatial)


@pytest.mark.parametrize(
    ("claims", "verdicts"),
    [
        (cross(PAPER), [HOLDS, HOLDS, HOLDS, HOLDS, FAILS]),
        (cross(PAPER, untrained=PAPER), [HOLDS_TOO, HOLDS_TOO, HOLDS_TOO, HOLDS_TOO, FAILS]),
        (cross(ridge(lambda d: 0.5 + 0.5 * d, constant)), [FAILS] * 4 + [CANNOT]),
        (cross(FADING, spatial=PAPER * 0 + 0.5), [HOLDS] * 5),
    ],
)
def test_verdicts_of_figure_2(claims: list[Claim], verdicts: list[str]) -> None:
    assert [claim.verdict for claim in claims] == verdicts


def test_a_model_without_cls_cannot_be_asked_for_it() -> None:
    claim = structure.cross_claims(FADING, REVERSED, FADING, FADING)[-1]
    assert claim.verdict == CANNOT
    assert "no token besides the spatial ones" in claim.reason


def test_a_cnn_without_stages_has_no_halves() -> None:
    isotropic = PAPER.assign_coords(stage_b=("layer_b", np.full(PAPER.sizes["layer_b"], -1)))
    assert [claim.verdict for claim in cross(isotropic)][:3] == [CANNOT, CANNOT, HOLDS]


def test_figure_2_cannot_be_asked_without_any_cka() -> None:
    empty = xr.full_like(PAPER, np.nan)
    with np.errstate(all="ignore"):
        claims = structure.cross_claims(empty, empty, empty, empty)
    assert [claim.verdict for claim in claims] == [CANNOT] * 5
