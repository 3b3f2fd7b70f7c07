"""Which Chromium the tests of the built book use. As a script: print it, or say how to get one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitcnn_utils.course import slides

ARGUMENTS = slides.BROWSER_ARGUMENTS
MISSING = (
    "no Chromium for the tests of the book's pages: install one (Debian: apt install chromium; "
    "macOS, Windows: .venv/bin/playwright install chromium), then run the same command again"
)


def find() -> str | None:
    """The executable of the system's Chromium or Chrome, else of Playwright's own."""
    from playwright.sync_api import sync_playwright

    found = slides.find_browser()
    if found is None:
        with sync_playwright() as playwright:
            found = playwright.chromium.executable_path
    return found if Path(found).exists() else None


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Close it before other tests run: Playwright's event loop would keep them from running theirs."""
    import pytest
    from playwright.sync_api import sync_playwright

    executable = find()
    if executable is None:
        pytest.fail(MISSING, pytrace=False)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield launched
        launched.close()


if __name__ == "__main__":
    sys.exit(0 if find() else MISSING)
