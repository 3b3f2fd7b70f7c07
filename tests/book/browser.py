"""Which Chromium the tests of the built book use. As a script: print it, or say how to get one."""

import sys
from pathlib import Path

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


if __name__ == "__main__":
    sys.exit(0 if find() else MISSING)
