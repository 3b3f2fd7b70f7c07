"""Which Chromium the tests of the built book use. As a script: print it, or say how to get one."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# Without these Chromium asks its maker's hosts for news; as root it has to do without its sandbox.
ARGUMENTS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
if hasattr(os, "getuid") and os.getuid() == 0:
    ARGUMENTS.append("--no-sandbox")
MISSING = (
    "no Chromium for the tests of the book's pages: install one (Debian: apt install chromium; "
    "macOS, Windows: .venv/bin/playwright install chromium), then run the same command again"
)


def find() -> str | None:
    """The executable of the system's Chromium or Chrome, else of Playwright's own."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and MAC.exists():
        found = str(MAC)
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
