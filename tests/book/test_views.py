"""The links from claims, and from the plan of the session, to explorers: what they state is what a reader sees."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import browser
import pytest

from vitcnn_utils.claims.ledger import BEYOND
from vitcnn_utils.claims.views import LAST


def asked(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


def links_of(page: Path) -> list[str]:
    """All links of a page, in their order."""
    return [unescape(link) for link in re.findall(r'<a\b[^>]*? href="([^"]*)"', page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def links(html: Path) -> list[str]:
    """All links to a state of an explorer, from the top of the book, each once."""
    claims = json.loads((html / "claims.json").read_text(encoding="utf-8"))["claims"]
    plan = links_of(html / "course" / "plan.html")
    taught = [link.removeprefix("../") for link in plan if "?explorer=" in link]
    assert len(taught) >= 10
    return list(dict.fromkeys([row["see"] for row in claims if "see" in row] + taught))


def test_every_claim_of_the_zoo_can_be_seen(html: Path) -> None:
    rows = json.loads((html / "claims.json").read_text(encoding="utf-8"))["claims"]
    main = [row for row in rows if row["page"].startswith("notebooks/")]
    assert [row["id"] for row in main if "see" not in row and row["figure"] != BEYOND] == []
    assert {row["see"] for row in main if "see" in row} <= set(links_of(html / "ledger.html"))
    chapters = sorted((html / "notebooks").glob("*.html"))
    assert len(chapters) >= 6
    for page in chapters:
        own = f"notebooks/{page.name}"
        cards = [row["see"].partition("?")[2] for row in main if row["page"].startswith(own) and "see" in row]
        assert cards == [link[1:] for link in links_of(page) if link.startswith("?explorer=")], own


def test_a_link_shows_the_state_that_it_states(links: list[str], site: str) -> None:
    """One link of each explorer; what is not stated stays as it starts."""
    by_explorer = {(urlsplit(link).path, asked(link)["explorer"]): link for link in links}
    assert len(by_explorer) >= 9
    seen: dict[str, Any] = {}
    with browser.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        for link in by_explorer.values():
            page.goto(f"{site}/{link}")
            figure = page.locator(f"#explore-{asked(link)['explorer']}")
            figure.locator(".vx .vx-sentence").wait_for()
            page.wait_for_function("id => Math.abs(document.getElementById(id).getBoundingClientRect().top) < 250",
                                   arg=f"explore-{asked(link)['explorer']}")  # fmt: skip
            seen[link] = figure.locator(".vx").evaluate("section => section.vitcnn.state()")
    for link, state in seen.items():
        for name, value in asked(link).items():
            if name != "explorer" and value != str(LAST):
                assert str(state[name]) == value, link
    assert any(str(LAST) in asked(link).values() for link in seen)


def test_all_links_state_what_their_explorer_can_show(links: list[str], html: Path) -> None:
    import base64
    import gzip

    for link in links:
        stated = asked(link)
        text = (html / urlsplit(link).path).read_text(encoding="utf-8")
        found = re.search(rf'id="explore-{stated.pop("explorer")}"[^>]* data-payload="([^"]+)"', text)
        assert found, link
        payload = (html / "explorers" / f"{found[1]}.js").read_text(encoding="utf-8").split('"')[3]
        packed = gzip.decompress(base64.b64decode(payload))
        choices = json.loads(packed[4 : 4 + int.from_bytes(packed[:4], "little")])["header"]["choices"]
        for name, value in stated.items():
            allowed = choices[name]
            assert value in ([*map(str, range(allowed)), str(LAST)] if isinstance(allowed, int) else allowed), link
