"""Claims of chapter 5, on curves whose answer is known."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from similarity_maps import curves, probes, similarity_to

from vitcnn_utils.claims import scale
from vitcnn_utils.claims.scale import CEILING, FLOOR

PAPER = {"3 %": (0.95, 0.35), "10 %": (0.95, 0.5), "30 %": (0.95, 0.65), CEILING: (0.97, 0.9), FLOOR: (0.4, 0.1)}


def test_same_blocks_takes_the_diagonal() -> None:
    values = np.linspace(0.9, 0.1, 5)
    result = scale.same_blocks({"3 %": similarity_to("ref", values), FLOOR: similarity_to("ref", values / 2)})
    assert result.dims == ("model", "block")
    assert np.allclose(result.sel(model="3 %"), values)
    assert np.allclose(result.sel(model=FLOOR), values / 2)
    assert result.depth.values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert result.attrs["reference"] == "ref"


def test_controls_are_no_parts_of_the_data() -> None:
    assert scale.subsets(curves(PAPER)) == ["3 %", "10 %", "30 %"]


def test_low_and_high_do_not_overlap() -> None:
    values = np.array([1.0, 1, 1, 0.5, 0, 0, 0, 0])
    result = scale.same_blocks({"3 %": similarity_to("ref", values)})
    assert float(scale.low(result)[0]) == 1
    assert float(scale.high(result)[0]) == 0


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


def card(steps: int, training_images: int = 5000, seed: int = 1) -> dict[str, Any]:
    return {
        "steps": steps, "training_images": training_images, "test_accuracy": 0.5123,
        "recipe": {"batch_size": 50, "seed": seed},
    }  # fmt: skip


def test_the_training_table_counts_how_often_an_image_was_seen() -> None:
    table = scale.training_table({"zoo/x": card(2000)})
    assert table.rows["zoo/x"] == {
        "training images": "5,000", "steps": "2,000", "each image seen (times)": "20", "seed": "1",
        "test accuracy (%)": "51.2",
    }  # fmt: skip
    assert "<td>zoo/x</td>" in table._repr_html_()


@pytest.mark.parametrize(
    ("reference", "others", "said"),
    [
        (2000, (2000, 2000), "as many steps as it, 2,000"),
        (6000, (2000, 2000), "trained longer than the models it is compared with: 6,000 steps, they 2,000"),
        (1000, (2000, 2000), "trained shorter"),
        (2000, (2000, 3000), "different numbers of steps (full: 2,000; the others: 2,000, 3,000)"),
    ],
)
def test_the_note_on_training_follows_the_cards(reference: int, others: tuple[int, int], said: str) -> None:
    cards = {"full": card(reference), "part": card(others[0]), "other": card(others[1], seed=2)}
    note = scale.training_note("full", cards)
    assert said in note
    assert "part started from the same random weights as full (seed 1). other did not" in note
    assert scale.equal_steps(cards) is (len({reference, *others}) == 1)


def test_no_word_on_shared_starts_where_there_are_none() -> None:
    assert "random weights" not in scale.training_note("full", {"full": card(10), "other": card(10, seed=2)})


def test_steps_are_told_where_cards_are_known() -> None:
    cards = {"a": card(7812), "b": card(2343)}
    assert scale.steps_beside(cards, "a", "b") == ", 7,812 steps against 2,343"
    assert scale.steps_beside(cards, "a", "some timm model") == ""


# --- Figure 13


def test_accuracy_at_a_depth_is_interpolated_in_percent() -> None:
    assert scale.at_depth(probes(0.2, 0.6), 0.5) == pytest.approx(40)
    assert scale.at_depth(probes(0.2, 0.6), 1) == pytest.approx(60)


def test_the_average_does_not_depend_on_where_layers_lie() -> None:
    even, uneven = probes(0.2, 0.6), probes(0.2, 0.6, depths=(0, 0.01, 0.02, 0.03, 1))
    assert scale.average(even) == pytest.approx(40)
    assert scale.average(uneven) == pytest.approx(40, abs=0.5)


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
