"""The slides of the course in a browser: from the disk, with their explorers live, and printed to a PDF."""

import re
from pathlib import Path
from typing import Any

import browser

from vitcnn_utils.course import slides

DRAWN = "section.present section.vx svg, section.present section.vx canvas, section.present section.vx img"


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
