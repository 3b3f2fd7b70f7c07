"""The built book, looked at once in a real browser; the tests then judge what was seen."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import browser
import pytest
from axe_playwright_python.sync_playwright import Axe

HTML = Path(__file__).parents[2] / "_build" / "html"
LOOK = (Path(__file__).parent / "look.js").read_text(encoding="utf-8")
# Errors were seen to come this long after the network had gone quiet.
SETTLE_MS = 1500
AT_ONCE = 5  # pages
# Without `preload`: axe-core would ask for the style sheets again, and not find those that they import.
AXE = {"resultTypes": ["violations"], "preload": False}


@dataclass
class Visit:
    """What one page did and showed."""

    name: str
    foreign: list[str] = field(default_factory=list)  # requests to other hosts
    console: list[str] = field(default_factory=list)  # errors
    failed: list[str] = field(default_factory=list)  # requests without an answer, or with one of 400 and more
    asked: list[str] = field(default_factory=list)  # all requests
    at_load: list[str] = field(default_factory=list)  # those before anything was scrolled
    barriers: list[str] = field(default_factory=list)  # what axe-core finds
    seen: dict[str, Any] = field(default_factory=dict)  # see look.js
    phone: dict[str, Any] = field(default_factory=dict)  # the same at a width of 360 pixels


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def html() -> Path:
    if not (HTML / "index.html").exists():
        pytest.fail("there is no built book to test: run `make book` first", pytrace=False)
    return HTML


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    with serve(html) as address:
        yield address


@pytest.fixture(scope="session")
def crawl(html: Path, site: str) -> tuple[list[Visit], list[Visit]]:
    """Every page over http, and the first page of each part from the disk."""
    pages = [p.relative_to(html) for p in html.rglob("*.html") if "_static" not in p.parts]
    names = sorted(page.as_posix() for page in pages if page.name != "slides.html")  # its explorers lie on later slides
    with browser.chromium() as chromium:
        served = _visit(chromium, {name: f"{site}/{name}" for name in names})
        intro = next(v for v in served if v.name == "intro.html")
        firsts = ["intro.html", *intro.seen["firstPages"]]
        local = _visit(chromium, {name: (html / name).as_uri() for name in firsts}, closely=False)
    return served, local


@pytest.fixture(scope="session")
def served(crawl: tuple[list[Visit], list[Visit]]) -> list[Visit]:
    return crawl[0]


@pytest.fixture(scope="session")
def local(crawl: tuple[list[Visit], list[Visit]]) -> list[Visit]:
    return crawl[1]


def _visit(chromium: Any, urls: dict[str, str], closely: bool = True) -> list[Visit]:
    """All pages, a few at a time: most of a visit is waiting. closely: look for barriers, and as on a phone, too."""
    visits = []
    for start in range(0, len(urls), AT_ONCE):
        opened = [_open(chromium, *item) for item in list(urls.items())[start : start + AT_ONCE]]
        for _, page in opened:
            page.wait_for_load_state("networkidle")
        opened[0][1].wait_for_timeout(SETTLE_MS)
        for visit, page in opened:
            visit.at_load = list(visit.asked)
            _load_explorers(page)
            visit.seen = page.evaluate(LOOK)
            if closely:
                visit.barriers = _barriers(page)
                page.set_viewport_size({"width": 360, "height": 740})
                page.wait_for_timeout(200)
                visit.phone = page.evaluate(LOOK)
            page.context.close()
            visits.append(visit)
    return visits


def _load_explorers(page: Any) -> None:
    """Scroll to one after the other, as a reader does."""
    for figure in page.locator("figure.vx-static").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".vx, .vx-failed").wait_for()


def _barriers(page: Any) -> list[str]:
    """What axe-core finds in dark mode, and which colours it cannot tell apart in light mode."""
    page.add_style_tag(content="* { transition: none !important }")  # else colours change slowly
    found = Axe().run(page, options=AXE).response["violations"]
    page.emulate_media(color_scheme="light")
    page.wait_for_function("document.documentElement.dataset.theme !== 'dark'")
    found += Axe().run(page, options={**AXE, "runOnly": ["color-contrast"]}).response["violations"]
    page.emulate_media(color_scheme="dark")
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def _open(chromium: Any, name: str, url: str) -> tuple[Visit, Any]:
    """A page in a window of its own, in dark mode, and the record of what it does from the first request on."""
    visit = Visit(name)
    home = urlsplit(url).netloc
    page = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark").new_page()

    def request(event: Any) -> None:
        visit.asked.append(event.url)
        parts = urlsplit(event.url)
        if parts.scheme not in ("data", "blob", "file") and parts.netloc != home:
            visit.foreign.append(event.url)

    def logged(event: Any) -> None:
        # The page that only leads on to the first names no icon, and a slow browser asks for one before it goes on.
        if event.type == "error" and not event.location["url"].endswith("/favicon.ico"):
            visit.console.append(event.text)

    page.on("request", request)
    page.on("requestfailed", lambda event: visit.failed.append(event.url))
    page.on("response", lambda event: visit.failed.append(event.url) if event.status >= 400 else None)
    page.on("console", logged)
    page.on("pageerror", lambda error: visit.console.append(str(error)))
    page.goto(url, wait_until="commit")
    return visit, page
