"""What claims of chapter 4 quote, what they are held against, and the sentences under its figures."""

import pytest
from claim_cases import CASES, ELSEWHERE, OWN, mixed, one_token, stage, tokens
from made import probe_curves, scattered, token_map

from vitcnn_utils.claims import localization as claims
from vitcnn_utils.claims.ledger import CLOSE


def test_interior_tokens_are_counted() -> None:
    claim = claims.interior_tokens(OWN, {})
    assert "100% of 9 tokens" in claim.note
    assert claim.parts[0].estimate.value == pytest.approx(100)


def test_the_lead_of_a_readout_is_told_block_by_block() -> None:
    claim = claims.readout_matters(stage(5, 5), stage(5, 1), (OWN, OWN), {})
    assert "by block: +0, " in claim.note and claim.parts[0].control is not None


def test_single_tokens_without_a_twin_have_no_control() -> None:
    cls, gap = tokens(0.2, 0.5)
    claim = claims.single_tokens(cls, {"ViT-GAP": gap}, {"ViT": gap}, {"second": gap})
    assert claim.parts[0].control is None and "second 50.0 %; chance 10%" in claim.note


def test_probes_that_scatter_over_draws_are_too_close_to_call() -> None:
    (gap,) = one_token(0.5, 0.51)
    claim = claims.one_token_is_all(scattered(gap, 0.05, "token"), gap)
    assert claim.verdict == CLOSE and "4 draws would show" in claim.reason
    assert CASES["fig-11-one-token"].claim((gap,), {"untrained": (gap,)}).parts[0].estimate.value == pytest.approx(1)


# Sentences


def test_sentences_on_figure_9() -> None:
    (vit,) = mixed((OWN,), (OWN,))
    text = claims.place_words(vit, OWN, {"CNN, last unit": ELSEWHERE}, token_map(1.0, 0.3))
    assert text.startswith("100 % of the tokens of the ViT's last block")
    assert "Training has not moved tokens off their places: before it, 100 %" in text
    assert "4 % of those of the CNN, last unit" in text and "0.10 on average, where raw patches have 0.30" in text
    assert "Training has moved" in claims.place_words(ELSEWHERE, OWN, {}, OWN)


def test_sentences_on_figure_10() -> None:
    text = claims.readout_words(stage(5, 5, 5), stage(4, 4, 1))
    assert "last block 100 % of" in text and "CLS is +20 points; it changes most with block 2, where" in text


def test_sentences_on_figure_11() -> None:
    vit = probe_curves(token=[0.1, 0.3], mean=[0.1, 0.7], cls=[0.1, 0.85])
    gap = probe_curves(token=[0.1, 0.6], mean=[0.1, 0.65])
    text = claims.token_words({"ViT": vit, "ViT-GAP": gap, "CNN": gap})
    assert "CLS token gives 85 % and all patches pooled 70 %: the patches pull the average down" in text
    assert "the ViT gives 30 %, the ViT-GAP 60 %, the CNN 60 %" in text and "CLS 40 points and the one" in text
    assert claims.token_words({"ViT": vit}).endswith("the ViT gives 30 %.")
