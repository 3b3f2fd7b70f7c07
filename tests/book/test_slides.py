"""The slides of the course in a browser: from the disk, with their explorers live, and printed to a PDF."""

import re
from pathlib import Path
from typing import Any

import browser

from vitcnn_utils.course import slides

DRAWN = "section.present .vx svg, section.present .vx canvas, section.present .vx img"


def test_each_slide_shows_and_each_explorer_lives(html: Path, tmp_path: Path) -> None:
    faults: list[str] = []
    with browser.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 720})
        page.on("console", lambda event: faults.append(event.text) if event.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda event: faults.append(event.url))
        page.on("request", lambda event: faults.append(event.url) if event.url.startswith("http") else None)
        page.goto((html / "slides.html").as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        explorers = _each_slide(page)
        _explorers_keep_their_keys(page)
        _a_remote_turns_the_page(page)
        _a_link_leads_to_the_slide(page, html)
        count = page.evaluate("Reveal.getTotalSlides()")
    slides.print_pdf(html / "slides.html", tmp_path / "slides.pdf", browser.find())
    printed = len(re.findall(rb"/Type /Page\b", (tmp_path / "slides.pdf").read_bytes()))
    assert faults == []
    assert explorers == ["similarity", "attention", "skip_ratios", "probes"]
    assert printed == count >= 10


def _each_slide(page: Any) -> list[str]:
    """Show all slides one by one; gives the kinds of the explorers that came alive."""
    kinds = []
    for index in range(page.evaluate("Reveal.getTotalSlides()")):
        page.evaluate(f"Reveal.slide({index})")
        figure = page.locator("section.present figure.vx-static")
        if figure.count():
            page.locator(DRAWN).first.wait_for()
            kinds.append(figure.get_attribute("data-kind"))
            assert figure.evaluate("f => f.scrollHeight <= f.clientHeight"), f"{kinds[-1]} is higher than its slide"
        shown = page.locator("section.present")
        assert shown.locator("img").evaluate_all("images => images.every(i => i.naturalWidth > 0)")
        assert page.evaluate("Reveal.getSlideNotes()")
    return kinds


def _explorers_keep_their_keys(page: Any) -> None:
    """An arrow key in an explorer's control changes the control and not the slide."""
    page.evaluate("Reveal.slide(3)")
    page.locator("section.present select").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices().h") == 3


def _a_remote_turns_the_page(page: Any) -> None:
    """PageDown turns the page after a click in an explorer, and changes nothing there."""
    picker = page.locator("section.present .vx-picker").first
    picker.click()
    chosen = picker.get_attribute("aria-valuenow")
    page.keyboard.press("PageDown")
    assert page.evaluate("Reveal.getIndices().h") == 4
    page.keyboard.press("PageUp")
    assert page.evaluate("Reveal.getIndices().h") == 3 and picker.get_attribute("aria-valuenow") == chosen


def _a_link_leads_to_the_slide(page: Any, html: Path) -> None:
    """What "Copy link" gives on a stick is the published page, and opens the explorer's slide in its state."""
    assert page.locator("link[rel=canonical]").get_attribute("href").endswith("github.io/vitcnn_utils/slides.html")
    page.goto((html / "slides.html").as_uri() + "?explorer=attention&block=3#explore-attention")
    page.locator(DRAWN).first.wait_for()
    assert page.evaluate("Reveal.getIndices().h") == 5
    assert "block 3" in page.locator("section.present .vx-sentence").inner_text()
