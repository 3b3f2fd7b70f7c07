"""Every page of the built book, as a reader's browser sees it."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import Visit
from weight import requested, zipped

# The pages of the chapters of the main edition begin with their number.
CHAPTER = re.compile(r"notebooks/(\d)_")

CHAPTERS = {1: {1, 2}, 2: {3, 4, 5, 6}, 3: {7, 8}, 4: {9, 10, 11}, 5: {12, 13}, 6: set()}


@pytest.fixture(params=["http", "file"])
def visits(request: pytest.FixtureRequest, served: list[Visit], local: list[Visit]) -> list[Visit]:
    return served if request.param == "http" else local


def test_all_pages_are_there(served: list[Visit], local: list[Visit]) -> None:
    names = {visit.name for visit in served}
    assert {"index.html", "intro.html", "zoo.html", "rerun.html", "api.html", "references.html"} <= names
    assert sum(bool(CHAPTER.match(name)) for name in names) == len(CHAPTERS)
    assert {"course/plan.html", "course/week.html", "notebooks/course/exercises.html"} <= names
    assert len(local) >= 3  # the front page and the first of each part


def test_no_page_asks_another_host(visits: list[Visit]) -> None:
    assert [(v.name, v.foreign) for v in visits if v.foreign] == []


def test_no_console_error(visits: list[Visit]) -> None:
    assert [(v.name, v.console) for v in visits if v.console] == []


def test_nothing_is_missing(visits: list[Visit]) -> None:
    assert [(v.name, v.failed) for v in visits if v.failed] == []
    images = [(v.name, i["source"], i["loaded"], i["alt"]) for v in visits for i in v.seen["images"]]
    assert [image for image in images if not all(image)] == []  # each is loaded, and has a text


def test_no_raw_tex(visits: list[Visit]) -> None:
    raw = re.compile(r"\\[A-Za-z]{2,}|\$[^$\n]{1,200}\$")
    assert [(v.name, raw.findall(v.seen["prose"])) for v in visits if raw.search(v.seen["prose"])] == []


def test_no_traceback_warning_or_stderr(visits: list[Visit]) -> None:
    assert [(v.name, v.seen["faults"]) for v in visits if v.seen["faults"]] == []
    words = ("Traceback (most recent call last)", "Warning: ", "papermill-error-cell")
    assert [(v.name, word) for v in visits for word in words if word in v.seen["text"]] == []


def test_all_13_figures_are_in_their_chapters(served: list[Visit]) -> None:
    found = {
        int(v.name[10]): {int(i.removeprefix("fig-")) for figure in v.seen["figures"] for i in figure["ids"]}
        for v in served
        if CHAPTER.match(v.name)
    }
    assert found == CHAPTERS


def test_figures_have_alt_text_caption_and_origin(served: list[Visit]) -> None:
    for visit in served:
        for figure in visit.seen["figures"]:
            assert len(figure["alt"]) > 5, (visit.name, figure)
            assert len(figure["caption"]) > len(figure["provenance"]) > 0, (visit.name, figure)
            assert "commit" in figure["provenance"], (visit.name, figure)


def test_outputs_lie_on_the_pages_ground_in_dark_mode(served: list[Visit]) -> None:
    assert {v.seen["theme"] for v in served if v.name != "index.html"} == {"dark"}
    assert sum(len(v.seen["outputs"]) for v in served) > 50
    for kind in ("figures", "outputs", "explorers"):
        assert [(v.name, one) for v in served for one in v.seen[kind] if one["grounds"]] == []


# --- explorers ---------------------------------------------------------------------------------------------------

EXPLORERS = {  # chapter 6 shows one where its models are trained
    1: {"similarity"}, 2: {"attention", "receptive_field"}, 3: {"skip_ratios", "similarity"},
    4: {"localization", "probes"}, 5: {"similarity", "probes"},
}  # fmt: skip


def test_explorers_are_in_their_chapters_and_all_in_the_gallery(served: list[Visit]) -> None:
    kinds = {v.name: [explorer["kind"] for explorer in v.seen["explorers"]] for v in served}
    found = {int(n[10]): set(kinds[n]) for n in kinds if CHAPTER.match(n)}
    assert {number: found[number] for number in EXPLORERS} == EXPLORERS
    assert sorted(kinds["explorers.html"]) == sorted(set.union(*EXPLORERS.values()))


def test_explorers_work_in_the_book(visits: list[Visit]) -> None:
    assert [(v.name, e["kind"]) for v in visits for e in v.seen["explorers"] if not e["sentence"]] == []


def test_a_page_is_light_and_so_are_the_explorers(served: list[Visit], html: Path) -> None:
    pages = {v.name: requested(html, v.at_load) for v in served}
    assert min(pages[name] for name in pages if name != "index.html") > 50_000  # the theme alone weighs more
    assert {name: size for name, size in pages.items() if size > 1_500_000} == {}
    files = {file.name: zipped(file) for file in (html / "explorers").iterdir()}
    assert {name: size for name, size in files.items() if size > 1_000_000} == {}


# --- for all readers ----------------------------------------------------------------------------------------------


def test_axe_finds_no_barrier(served: list[Visit]) -> None:
    assert [(v.name, v.barriers) for v in served if v.barriers] == []


def test_ids_are_unique(served: list[Visit]) -> None:
    twice = {v.name: [i for i, n in Counter(v.seen["ids"]).items() if n > 1 and i.startswith("fig-")] for v in served}
    assert {name: ids for name, ids in twice.items() if ids} == {}


def test_pages_fit_a_phone(served: list[Visit]) -> None:
    """No word is broken, and what is cut off has a cue."""
    assert [(v.name, v.phone["wide"]) for v in served if v.phone["overflow"] > 0] == []
    for fault in ("brokenWords", "scrollersWithoutCue"):
        assert [(v.name, v.phone[fault]) for v in served if v.phone[fault]] == []


def test_formulas_have_a_math_font(visits: list[Visit]) -> None:
    """Without one subscripts stand on the line; the bars of a norm are not to grow beyond what they enclose."""
    with_formulas = [v for v in visits if v.seen["formulas"]]
    assert with_formulas
    assert [v.name for v in with_formulas if not v.seen["mathFont"]] == []
    assert [(v.name, v.seen["levelSubscripts"]) for v in with_formulas if v.seen["levelSubscripts"]] == []
    assert [(v.name, v.seen["tallBars"]) for v in with_formulas if v.seen["tallBars"]] == []


def test_links_within_the_book_lead_somewhere(served: list[Visit], html: Path) -> None:
    ids = {v.name: {*v.seen["ids"], "", "top"} for v in served}
    broken = []
    for visit in served:
        for link in visit.seen["links"]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (html / visit.name).parent / unquote(parts.path) if parts.path else html / visit.name
            name = target.resolve().relative_to(html.resolve()).as_posix()
            if not target.exists() or (name in ids and unquote(parts.fragment) not in ids[name]):
                broken.append((visit.name, link))
    assert broken == []


def test_chapters_open_their_source_notebook(served: list[Visit]) -> None:
    for visit in served:
        if visit.name.startswith("notebooks/"):
            source = visit.name.replace(".html", ".ipynb")
            for host in ("colab.research.google.com", "mybinder.org"):
                opened = [unquote(link) for link in visit.seen["links"] if host in link]
                assert [link for link in opened if source in link], (visit.name, opened)
