"""The ledger: claims read back from executed notebooks, for machines and for the page."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vitcnn_utils.claims.cards import MIME, SCHEMA, Cards
from vitcnn_utils.claims.ledger import CANNOT, FAILS, HOLDS, VERDICTS, Claim, Estimate, Part
from vitcnn_utils.editions import chapters, ledger, stability
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.provenance import FIELDS, Facts


def claim(name: str, value: float, paper: str = "It is so.", of: str = "", made_of: tuple[Facts, ...] = ()) -> Claim:
    interval = value - 0.1, value + 0.1
    part = Part("the number", Estimate(value, interval), "above", 0.5, "Half.", "CKA", made_of=made_of)
    return Claim(name, "3", "5", paper, (part,), "Never.", of=of)


def executed(*claims: Claim) -> dict[str, Any]:
    """An executed notebook as far as the ledger reads it, through JSON as nbformat keeps it."""
    data = Cards(claims)._repr_mimebundle_()
    outputs = [{"output_type": "stream", "text": "x"}, {"output_type": "display_data", "data": data}]
    cells = [{"cell_type": "markdown", "source": "a"}, {"cell_type": "code", "outputs": outputs}]
    return json.loads(json.dumps({"cells": cells}))


def test_claims_come_back_with_their_verdict_and_their_place() -> None:
    rows = ledger.claims_in(executed(claim("a", 0.9), claim("b", 0.1), claim("c", float("nan"))), "zoo", "x/1.html")
    assert [(row["id"], row["verdict"]) for row in rows] == [("a", HOLDS), ("b", FAILS), ("c", CANNOT)]
    assert rows[0]["page"] == "x/1.html#claim-a" and rows[0]["edition"] == "zoo"
    assert rows[0]["parts"][0]["estimate"] == {"value": 0.9, "interval": [0.8, 1.0], "over": ""}
    assert rows[2]["parts"][0]["estimate"]["value"] is None
    assert ledger.claims_in({"cells": [{"cell_type": "code", "outputs": []}]}, "zoo", "x") == []


def test_claims_json_is_as_its_schema_says() -> None:
    schema = json.loads((chapters.find_root() / "book" / "_extra" / "claims.schema.json").read_text(encoding="utf-8"))
    made = {"model": "a", "weights": "w", "images": "cats", "n_images": 9, "device": "cpu", "commit": "c0ffee"}
    asked = claim("fig-3-mix", 0.9)
    whole = replace(asked, parts=(replace(asked.parts[0], control=Estimate(0.2), made_of=(made,)),))
    notebook = executed(whole, claim("b", float("nan")))
    rows = ledger.claims_in(notebook, "zoo", "x/1.html")
    found = {"edition": "zoo", "runs": [{"name": "a"}, {"name": "b"}], "models": {"a": "w"}}
    stability.mark(rows, found | {"claims": {"fig-3-mix": [HOLDS, FAILS], "b": [HOLDS, FAILS]}})
    assert rows[0]["changes"] and rows[1]["not_rerun"]
    ledger.complete_cards(notebook, rows, {"attention"})
    jsonschema.validate({"schema": SCHEMA, "claims": rows}, schema)
    assert schema["$defs"]["verdict"]["enum"] == list(VERDICTS)
    assert list(schema["$defs"]["made_of"]["properties"]) == list(FIELDS)
    for wrong in ({"verdict": "perhaps"}, {"unheard of": 1}, {"made_of": [{"images": "cats"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"schema": SCHEMA, "claims": [rows[0] | wrong]}, schema)


def test_the_page_counts_maps_and_lists_every_claim() -> None:
    rows = ledger.claims_in(executed(claim("a", 0.9), claim("b", 0.9), claim("c", 0.1)), "zoo", "x/1.html")
    words = re.sub("<[^>]+>", "", ledger.counts(rows))
    assert "3 claims" in words and "2 holds" in words and "1 does not hold" in words
    assert ledger.small_map(rows).count("<a ") == 3
    table = ledger.table(rows)
    assert table.count("<tr data-verdict") == 3 and "0.9 CKA [0.8, 1]" in table and "zoo" not in table
    assert ledger.counts([]) == ""
    both = ledger.table(rows + ledger.claims_in(executed(claim("a", 0.9)), "mine", "y.html"))
    assert both.count('class="edition">zoo') == 3 and both.count('class="edition">mine') == 1


def test_a_claim_links_the_explorer_that_shows_it_where_the_page_has_that() -> None:
    notebook = executed(claim("fig-3-mix", 0.9), claim("fig-7-transition", 0.9), claim("of a reader", 0.9))
    rows = ledger.claims_in(notebook, "zoo", "x/2.html")
    ledger.complete_cards(notebook, rows, {"attention"})
    assert [row.get("see") for row in rows] == [
        "x/2.html?explorer=attention&model=0&block=0#explore-attention",
        None,
        None,
    ]
    (card,) = re.findall('<p class="see">.*?</p>', notebook["cells"][1]["outputs"][1]["data"]["text/html"])
    assert 'href="?explorer=attention&amp;model=0&amp;block=0#explore-attention"' in card and "block 0" in card
    assert "<!--" not in notebook["cells"][1]["outputs"][1]["data"]["text/html"]
    assert ledger.table(rows).count(">See it: ") == 1


def test_a_verdict_that_changes_is_marked_on_the_page_and_on_its_card() -> None:
    notebook = executed(claim("a", 0.9), claim("b", 0.9))
    rows = ledger.claims_in(notebook, "zoo", "x/1.html")
    runs = [{"name": "as in the book"}, {"name": "other <images>"}, {"name": "second training"}]
    found = {"edition": "zoo", "date": "2026-11-26", "commit": "abc", "runs": runs, "models": {},
             "claims": {"a": [HOLDS, FAILS, None], "b": [HOLDS, HOLDS, None]}}  # fmt: skip
    stability.mark(rows, found)
    assert [row.get("changes") for row in rows] == [{"other <images>": FAILS}, None]
    assert "Of 2 verdicts, 1 changed" in stability.summary(found, rows)
    ledger.complete_cards(notebook, rows, set())
    card = notebook["cells"][1]["outputs"][1]["data"]["text/html"]
    for page in (card, ledger.table(rows)):
        assert page.count("Changes from run to run.") == 1
        assert "run.</strong> other &lt;images&gt;: does not hold" in page and "as in the book" not in page
    stability.mark(others := ledger.claims_in(notebook, "mine", "x/1.html"), found)
    stability.mark(rows[1:], None)
    assert not any("changes" in row for row in others)


def test_what_is_another_claim_since_the_runs_is_not_marked() -> None:
    """Its models were trained since, its verdict is not what it was, or there was no such claim."""
    made = ({"model": "zoo/a", "weights": "now", "images": "cats", "n_images": 9},)
    notebook = executed(claim("models", 0.9, made_of=made), claim("verdict", 0.9), claim("new", 0.9))
    rows = ledger.claims_in(notebook, "zoo", "x/1.html")
    found = {"edition": "zoo", "date": "2026-11-26", "commit": "abc", "runs": [{"name": "own"}, {"name": "other"}],
             "models": {"zoo/a": "then"}, "claims": {"models": [HOLDS, FAILS], "verdict": [FAILS, HOLDS]}}  # fmt: skip
    stability.mark(rows, found)
    assert [(row.get("not_rerun"), "changes" in row) for row in rows] == [(True, False)] * 3
    assert "Of 0 verdicts, 0 changed between the runs; they are marked. 3 other claims" in stability.summary(
        found, rows
    )
    found["models"] = {"zoo/a": "now"}
    stability.mark(again := ledger.claims_in(notebook, "zoo", "x/1.html"), found)
    assert again[0]["changes"] == {"other": FAILS}


def test_names_are_text() -> None:
    hostile = '"><script>alert(1)</script>'
    rows = ledger.claims_in(executed(claim("a", 0.9, hostile, hostile)), hostile, "x.html")
    for shown in (ledger.table([*rows, {**rows[0], "edition": "b"}]), ledger.small_map(rows), ledger.counts(rows)):
        assert "<script" not in shown


def test_an_edition_that_has_not_been_run_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notebooks" / "editions").mkdir(parents=True)
    (tmp_path / "notebooks" / "editions" / "mine.yml").write_text("seed: 1\n")
    (tmp_path / "notebooks" / "1_one.ipynb").write_text("{}")
    with pytest.raises(VitcnnError, match=r"mine has not been run whole \(1_one\): run `vitcnn run mine`"):
        ledger.edition_claims("mine", tmp_path)
    folder = tmp_path / "_build" / "executed" / "mine"
    folder.mkdir(parents=True)
    (folder / "1_one.ipynb").write_text(json.dumps(executed(claim("a", 0.9))))
    found = ledger.edition_claims("mine", tmp_path)
    assert found["schema"] == SCHEMA and [row["id"] for row in found["claims"]] == ["a"]
    assert MIME not in json.dumps(found)
    with pytest.raises(VitcnnError, match="no edition 'other'"):
        ledger.edition_claims("other", tmp_path)
