"""Claims of chapter 1, on maps whose answer is known."""

import numpy as np
import pytest
import xarray as xr
from similarity_maps import DIAGONAL, PAPER, by_distance, constant, grid, ridge, staged

from vitcnn_utils.claims import decide, structure
from vitcnn_utils.models.load import load_model


@pytest.mark.parametrize(
    ("difference", "verdict"), [(0.06, True), (0.05, None), (-0.05, None), (-0.06, False), (float("nan"), None)]
)
def test_a_difference_within_the_margin_decides_nothing(difference: float, verdict: bool | None) -> None:
    assert decide(difference, 0.05) is verdict


VIT_LIKE = (grid(0.9, 0.8), staged(0.9, 0.2))


@pytest.mark.parametrize(
    ("maps", "verdicts"),
    [
        (VIT_LIKE, [True, True, True, True]),
        (VIT_LIKE[::-1], [False, False, False, False]),
        ((by_distance(0.5), by_distance(0.5)), [None, None, None, None]),
    ],
)
def test_verdicts_of_figure_1(maps: tuple[xr.DataArray, xr.DataArray], verdicts: list[bool | None]) -> None:
    claims = structure.within_claims(*maps, by_distance(0.1), by_distance(0.2), [0.5])
    # The fourth is about the ViT alone: a map in two stages has pairs of one kind as often within as across.
    assert [claim.holds for claim in claims][:3] == verdicts[:3]
    assert claims[3].holds is (True if maps is VIT_LIKE else None)
    assert all("untrained" in claim.control for claim in claims)


def test_figure_1_quotes_its_numbers() -> None:
    claims = structure.within_claims(*VIT_LIKE, by_distance(0), by_distance(0), [0.5])
    assert claims[0].measured == "ViT 0.82, CNN 0.20"
    assert claims[0].control == "untrained: ViT 1.00, CNN 1.00"


def test_a_cnn_without_stages_leaves_the_claim_on_stages_undecided() -> None:
    claim = structure.within_claims(*VIT_LIKE, *VIT_LIKE, [])[2]
    assert claim.holds is None
    assert claim.measured == "not defined for these models"


def test_stages_start_where_the_skip_is_projected() -> None:
    cnn = load_model("zoo/resnet", weights="untrained", device="cpu")
    starts = structure.stage_starts(cnn)
    named = [next(layer.name for layer in cnn.layers if layer.depth == start) for start in starts]
    assert named == ["layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"]
    assert structure.stage_starts(load_model("zoo/vit-cls", weights="untrained", device="cpu")) == []


# --- Figure 2


@pytest.mark.parametrize(
    ("trained", "verdicts"),
    [
        (PAPER, [True, True, True, True]),
        (ridge(lambda d: 0.5 + 0.5 * d, constant), [False, False, False, False]),
        (ridge(lambda d: 1 - d, constant), [False, False, None, None]),
    ],
)
def test_verdicts_of_figure_2(trained: xr.DataArray, verdicts: list[bool | None]) -> None:
    claims = structure.cross_claims(trained, DIAGONAL, trained, [0.25, 0.5, 0.75])
    assert [claim.holds for claim in claims] == verdicts


def test_figure_2_cannot_be_decided_without_any_cka() -> None:
    empty = xr.full_like(PAPER, np.nan)
    with np.errstate(all="ignore"):
        claims = structure.cross_claims(empty, empty, empty, [])
    assert [claim.holds for claim in claims] == [None] * 4
