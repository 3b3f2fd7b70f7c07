"""The explorers in a real browser, on pages that are made like the book's but need no built book.

All is looked at once, by `explored`; the tests then judge what was seen. A new kind has to join explorer_samples.py.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import AXE, serve
from explorer_pages import PUBLISHED
from explorer_pages import page as write_page
from explorer_samples import SAMPLES, Given, differs

from vitcnn_utils import explorers
from vitcnn_utils.explorers import static
from vitcnn_utils.explorers.base import Explorer

KINDS = sorted(name.removeprefix("explore_") for name in explorers.__all__)
SCRIPT = Path(__file__).with_name("explore.js")
# Every explorer is a screen away from the next, so that reaching one does not load all.
APART = '<p style="height: 1800px">Text.</p>'
EXPLORER_AXE = {**AXE, "rules": {"target-size": {"enabled": True}}}
# A page of the disk may not use the real one.
CLIPBOARD = """
Object.defineProperty(navigator, "clipboard",
  { configurable: true, value: { writeText: (text) => { window.copied = text; } } });
"""
ADDRESS_MS = 600  # until the state is in the address


@dataclass
class Step:
    """What one control did when it was changed."""

    control: str
    before: dict[str, Any]  # explore.js: seen
    after: dict[str, Any]
    outlined: bool = True  # the focus is seen


@dataclass
class Explored:
    """All that was seen of one explorer."""

    first: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    controls: list[str] = field(default_factory=list)
    keyboard: list[Step] = field(default_factory=list)
    pointer: list[Step] = field(default_factory=list)
    touch: list[Step] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # after all that
    copied: str = ""  # by 'Copy link'
    linked: str = ""  # the address of the page
    restored: dict[str, Any] = field(default_factory=dict)  # what that address opened
    reset: dict[str, Any] = field(default_factory=dict)  # what 'Reset' then brought back
    published: str = ""  # copied where the page was opened from the disk
    nonsense: dict[str, Any] = field(default_factory=dict)  # what an address of nonsense opened
    looks: dict[str, Any] = field(default_factory=dict)  # explore.js: look, by how the page was opened
    axe: dict[str, list[str]] = field(default_factory=dict)  # violations, by how the page was opened
    bare: tuple[bool, str] = (False, "")  # without scripts: is there a picture, and the text


@dataclass
class Seen:
    """All explorers, and what the pages did as a whole."""

    kinds: dict[str, Explored]
    samples: dict[str, tuple[Explorer, Given]]
    at_load: list[str] = field(default_factory=list)  # files that a page asks for before it is scrolled
    foreign: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    failed: str = ""  # what stands where an explorer's data cannot be loaded


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("explorers")
    samples = {kind: make() for kind, make in SAMPLES.items()}
    index = write_page([explorer for explorer, _ in samples.values()], folder, APART)
    seen = Seen({kind: Explored() for kind in samples}, samples)
    with serve(folder) as site, browser.chromium() as chromium:
        visit = Visits(chromium, seen, f"{site}/index.html")
        visit.work()
        visit.follow_links()
        visit.look("dark", color_scheme="dark")
        visit.look("phone", viewport={"width": 360, "height": 740}, has_touch=True)
        visit.look("file", url=index.as_uri())
        visit.without_scripts()
        seen.failed = _broken(visit, index, folder)
    return seen


class Visits:
    """A browser that goes through the page with all explorers and writes down what it sees."""

    def __init__(self, chromium: Any, seen: Seen, url: str) -> None:
        self.chromium, self.seen, self.url = chromium, seen, url

    def work(self) -> None:
        """Every control by keyboard and by mouse; the link; the page in print."""
        page = self.open(permissions=["clipboard-read", "clipboard-write"])
        asked: list[str] = []
        page.on("request", lambda event: asked.append(event.url))
        page.goto(self.url, wait_until="networkidle")
        self.seen.at_load = [url for url in asked if url.startswith("http")]
        for kind, explored in self.mounted(page):
            explored.first = page.evaluate("kind => explore.seen(kind)", kind)
            explored.arrays = page.evaluate("kind => explore.arrays(kind)", kind)
            explored.controls = page.evaluate("kind => explore.controls(kind)", kind)
            explored.keyboard = list(_walk(page, kind))
            explored.pointer = list(_point(page, kind, page.mouse.click))
            explored.last = page.evaluate("kind => explore.seen(kind)", kind)
            page.locator(f"#explore-{kind} button", has_text="Copy link").click()
            page.locator(f"#explore-{kind} button", has_text="Copied").wait_for()
            explored.copied = page.evaluate("navigator.clipboard.readText()")
            page.wait_for_timeout(ADDRESS_MS)
            explored.linked = page.url
            explored.looks["light"] = page.evaluate("kind => explore.look(kind)", kind)
        self.check(page, "light")
        page.emulate_media(media="print")
        for kind, explored in self.seen.kinds.items():
            explored.looks["print"] = page.evaluate("kind => explore.look(kind)", kind)
        page.context.close()

    def follow_links(self) -> None:
        for kind, explored in self.seen.kinds.items():
            names = explored.first["state"]
            nonsense = "&".join([f"explorer={kind}", "unheard=1", *(f"{name}=99999" for name in names)])
            for address, into in ((explored.linked, "restored"), (f"{self.url}?{nonsense}#explore-{kind}", "nonsense")):
                page = self.open()
                page.goto(address)
                page.locator(f"#explore-{kind} .vx").wait_for()
                page.wait_for_timeout(100)
                found = page.evaluate("kind => ({...explore.look(kind), ...explore.seen(kind)})", kind)
                setattr(explored, into, found)
                if into == "restored":
                    page.locator(f"#explore-{kind} button", has_text="Reset").click()
                    explored.reset = page.evaluate("kind => explore.seen(kind)", kind)
                page.context.close()

    def look(self, how: str, url: str | None = None, **options: Any) -> None:
        page = self.open(**options)
        page.goto(url or self.url)
        for kind, explored in self.mounted(page):
            explored.looks[how] = page.evaluate("kind => explore.look(kind)", kind)
            if how == "file":
                page.evaluate(CLIPBOARD)
                page.locator(f"#explore-{kind} button", has_text="Copy link").click()
                explored.published = page.evaluate("window.copied")
            if options.get("has_touch"):
                explored.touch = list(_point(page, kind, page.touchscreen.tap))
        self.check(page, how)
        page.context.close()

    def without_scripts(self) -> None:
        page = self.open(java_script_enabled=False)
        page.goto(self.url)
        for kind, explored in self.seen.kinds.items():
            figure = page.locator(f"#explore-{kind}")
            explored.bare = figure.locator("svg").first.is_visible(), figure.inner_text()
        page.context.close()

    def mounted(self, page: Any) -> Iterator[tuple[str, Explored]]:
        """Scroll to one explorer after the other, as a reader does."""
        for kind, explored in self.seen.kinds.items():
            page.locator(f"#explore-{kind}").scroll_into_view_if_needed()
            page.locator(f"#explore-{kind} .vx").wait_for()
            page.locator(f"#explore-{kind} .vx").scroll_into_view_if_needed()
            yield kind, explored

    def check(self, page: Any, how: str) -> None:
        """What axe-core says of each explorer."""
        for kind, explored in self.seen.kinds.items():
            response = Axe().run(page, f"#explore-{kind}", EXPLORER_AXE).response
            explored.axe[how] = [f"{v['id']}: {n['html'][:200]}" for v in response["violations"] for n in v["nodes"]]

    def open(self, **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options}
        page = self.chromium.new_context(**options).new_page()
        page.add_init_script(path=SCRIPT)
        home = (self.url.rsplit("/", 1)[0], "file:", "data:", "blob:")
        page.on("request", lambda event: event.url.startswith(home) or self.seen.foreign.append(event.url))
        page.on("console", lambda event: self.seen.console.append(event.text) if event.type == "error" else None)
        page.on("pageerror", lambda error: self.seen.console.append(str(error)))
        return page


def _walk(page: Any, kind: str) -> Iterator[Step]:
    """Tab through an explorer; change, by key, whatever has the focus, and change it back."""
    page.evaluate("kind => explore.enter(kind)", kind)
    while True:
        page.keyboard.press("Tab")
        stop = page.evaluate("kind => explore.stop(kind)", kind)
        if stop is None:
            return
        before = after = page.evaluate("kind => explore.seen(kind)", kind)
        for key, back in stop["keys"]:
            page.keyboard.press(key)
            after = page.evaluate("kind => explore.seen(kind)", kind)
            if after["painted"] != before["painted"]:
                if back:
                    page.keyboard.press(back)
                break
        yield Step(stop["control"], before, after, stop["outlined"])


def _point(page: Any, kind: str, click: Any) -> Iterator[Step]:
    """Click at, or tap, every control but lists; buttons are put back, as others may depend on them."""
    for control, count in page.evaluate("kind => explore.targets(kind)", kind):
        before = after = page.evaluate("kind => explore.seen(kind)", kind)
        back = page.evaluate("place => explore.restoring(...place)", [kind, control])
        for index in range(count):
            click(*page.evaluate("place => explore.aim(...place)", [kind, control, index]))
            after = page.evaluate("kind => explore.seen(kind)", kind)
            if after["painted"] != before["painted"]:
                break
        yield Step(control, before, after)
        if back is not None:
            click(*page.evaluate("place => explore.aim(...place)", [kind, control, back]))


def _broken(visit: Visits, index: Path, folder: Path) -> str:
    """What a reader sees of an explorer whose data is not there."""
    copy = shutil.copytree(folder, folder.with_name("broken"))
    figure = index.read_text(encoding="utf-8").split('data-kind="similarity"')[1]
    payload = figure.split('data-payload="')[1].split('"')[0]
    (copy / static.FOLDER / f"{payload}.js").unlink()
    page = visit.chromium.new_page()
    page.goto((copy / index.name).as_uri())
    page.locator("#explore-similarity").scroll_into_view_if_needed()
    page.locator("#explore-similarity").scroll_into_view_if_needed()
    page.locator("#explore-similarity .vx-failed").wait_for()
    text = page.locator("#explore-similarity").inner_text()
    page.close()
    return text


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def one(explored: Seen, kind: str) -> Explored:
    return explored.kinds[kind]


def test_every_kind_is_tried() -> None:
    assert sorted(SAMPLES) == KINDS


# --- it shows what it was given -------------------------------------------------------------------------------


def test_it_paints_the_arrays_that_were_given(explored: Seen, one: Explored, kind: str) -> None:
    assert one.first["pictures"] >= 2 and one.first["blank"] == 0
    assert not one.first["fallback"]
    explorer, given = explored.samples[kind]
    places = explorer.header["arrays"]
    assert set(one.arrays) == set(given)
    found = {n: np.array(a["values"], dtype=float).reshape(a["shape"]) for n, a in one.arrays.items()}
    assert [n for n, values in given.items() if differs(found[n], values, places[n])] == []
    error = explorer.header.get("error", explorer.header.get("errors", {}).get("weight", 0))
    assert error < 0.015  # of the colours of a receptive field; the others are finer


# --- it answers -------------------------------------------------------------------------------------------------


def test_all_is_reached_by_keyboard_and_the_focus_is_seen(one: Explored) -> None:
    assert [step.control for step in one.keyboard] == one.controls
    assert [step.control for step in one.keyboard if not step.outlined] == []


@pytest.mark.parametrize("how", ["keyboard", "pointer", "touch"])
def test_every_control_changes_picture_and_sentence(one: Explored, how: str) -> None:
    steps = [step for step in getattr(one, how) if step.control not in ("button: Copy link", "button: Reset")]
    assert len(steps) >= 2
    for step in steps:
        assert step.after["state"] != step.before["state"], step.control
        assert step.after["painted"] != step.before["painted"], step.control
        assert step.after["sentence"] != step.before["sentence"], step.control


def test_a_link_restores_what_was_seen_and_reset_brings_the_start_back(one: Explored) -> None:
    assert one.last["state"] != one.first["state"]
    assert one.copied == one.linked
    for key in ("state", "sentence", "painted"):
        assert one.restored[key] == one.last[key]
        assert one.reset[key] == one.first[key]
    assert -50 < one.restored["top"] < 200


def test_a_link_from_the_disk_gives_the_published_address(one: Explored, kind: str) -> None:
    assert one.published.startswith(f"{PUBLISHED}?explorer={kind}&") and one.published.endswith(f"#explore-{kind}")


def test_a_link_with_nonsense_shows_what_is_nearest(one: Explored) -> None:
    assert one.nonsense["state"].keys() == one.first["state"].keys()
    assert one.nonsense["blank"] == 0 and one.nonsense["sentence"]


# --- for all readers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["light", "dark", "phone", "file"])
def test_axe_finds_nothing(one: Explored, how: str) -> None:
    assert one.axe[how] == []


def test_it_takes_the_colours_of_dark_mode(one: Explored) -> None:
    light, dark = one.looks["light"], one.looks["dark"]
    assert light["text"] != dark["text"] and light["page"] != dark["page"]
    assert dark["grounds"] == []


def test_it_fits_a_phone_and_works_from_the_disk(one: Explored) -> None:
    assert (one.looks["light"]["overflow"], one.looks["phone"]["overflow"]) == (0, 0)
    assert one.looks["file"]["operable"] == one.controls


def test_without_scripts_there_are_the_still_and_a_line(explored: Seen, one: Explored, kind: str) -> None:
    has_picture, text = one.bare
    assert has_picture
    assert explored.samples[kind][0].title in text and "An interactive view" in text


def test_in_print_there_are_picture_and_sentence_but_no_controls(one: Explored) -> None:
    printed = one.looks["print"]
    assert printed["pictures"] == one.looks["light"]["pictures"]
    assert printed["sentence"] == 1
    assert one.looks["light"]["toWorkWith"] == 3 and printed["toWorkWith"] == 0


# --- the page ---------------------------------------------------------------------------------------------------


def test_data_are_loaded_when_they_are_near(explored: Seen) -> None:
    names = [url.rsplit("/", 1)[1] for url in explored.at_load]
    # The page, the runtime, and script and payload of the first.
    assert len(names) == len(set(names)) == 4


def test_no_other_host_is_asked_and_no_error_is_logged(explored: Seen) -> None:
    assert (explored.foreign, explored.console) == ([], [])


def test_an_explorer_that_fails_says_so_and_leaves_the_picture(explored: Seen) -> None:
    assert "could not be started" in explored.failed
    assert "Which layers are alike?" in explored.failed
