"""Predict, then reveal: the questions of the chapters, by keyboard and without scripts."""

from pathlib import Path
from typing import Any

import browser
import pytest

# Of each question the folded answers: what is offered, what a reader finds behind it, and whether that is open.
QUESTIONS = """() => [...document.querySelectorAll("article p")]
  .filter((p) => p.textContent.startsWith("Predict, then reveal."))
  .map((question) => {
    const answers = [];
    for (let e = question.nextElementSibling; e?.matches("details"); e = e.nextElementSibling) {
      const summary = e.querySelector("summary");
      answers.push({ offered: summary.textContent, open: e.open,
        feedback: e.textContent.slice(summary.textContent.length).trim() });
    }
    return answers;
  })"""


@pytest.fixture(scope="module", params=[True, False], ids=["with scripts", "without"])
def asked(html: Path, request: pytest.FixtureRequest) -> dict[str, list[list[dict[str, Any]]]]:
    """The questions of each chapter, after every answer was opened by keyboard."""
    found = {}
    with browser.chromium() as chromium:
        page = chromium.new_context(java_script_enabled=request.param).new_page()
        for path in sorted((html / "notebooks").glob("[0-9]_*.html")):
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            before = page.evaluate(QUESTIONS)
            assert not any(answer["open"] for question in before for answer in question), path.name
            for answer in page.locator("p:has-text('Predict, then reveal.') ~ details > summary").all():
                answer.focus()
                page.keyboard.press("Enter")
            found[path.name] = page.evaluate(QUESTIONS)
    return found


def test_each_chapter_asks_three_questions_that_open_by_keyboard(asked: dict[str, Any]) -> None:
    assert {name: len(questions) for name, questions in asked.items()} == dict.fromkeys(asked, 3)
    assert len(asked) >= 5
    assert all(answer["open"] for questions in asked.values() for question in questions for answer in question)


def test_each_answer_says_why_it_is_right_or_wrong(asked: dict[str, Any]) -> None:
    for question in (question for questions in asked.values() for question in questions):
        assert len(question) >= 3
        assert sorted(answer["feedback"][0] for answer in question) == ["✓", *["✗"] * (len(question) - 1)], question
        assert len({answer["feedback"] for answer in question}) == len(question)
        assert all(len(answer["feedback"].split()) >= 8 for answer in question), question
