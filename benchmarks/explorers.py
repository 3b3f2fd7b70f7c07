"""How fast and how heavy the explorers of the built book are: prints the tables of CONTRIBUTING.md.

    python benchmarks/explorers.py [--rounds 20] [--html _build/html]

Needs a built book and a Chromium, and a machine that does nothing else. Times are of a local server.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "book"))

import browser  # noqa: E402
import weight  # noqa: E402
from conftest import serve  # noqa: E402

# When the explorer of the address was first painted, in ms after the navigation began: two frames after it is there.
FIRST = """
window.firstPicture = new Promise((resolve) => {
  const look = () => document.querySelector("figure.vx-static:target .vx .vx-sentence")?.textContent
    ? requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now()))) : setTimeout(look, 1);
  look();
});
"""
# For every control of an explorer, many changes: ms of script, style and layout from the event on, and ms until the
# frame that shows the change has been handed over.
CHANGES = """
async ([name, rounds]) => {
  const root = document.querySelector(`#explore-${name} .vx`);
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  const found = [...root.querySelectorAll("input, select, [role=slider]")].filter((e) => e.checkVisibility());
  const work = [], shown = [];
  for (const element of found) {
    for (let i = 0; i < rounds; i += 1) {
      await frame();
      const start = performance.now();
      change(element, i);
      root.getBoundingClientRect();
      work.push(performance.now() - start);
      await frame();
      shown.push(performance.now() - start);
    }
  }
  return { work, shown };

  function change(element, i) {
    if (element.type === "range") {
      element.value = (Number(element.value) + 1) % (Number(element.max) + 1);
      element.dispatchEvent(new Event("input", { bubbles: true }));
    } else if (element.type === "radio" || element.type === "checkbox") element.click();
    else if (element.tagName === "SELECT") {
      element.selectedIndex = (element.selectedIndex + 1) % element.options.length;
      element.dispatchEvent(new Event("change", { bubbles: true }));
    } else {
      const key = ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"][Math.floor(i / 3) % 4];
      element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    }
  }
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="changes of each control, and loads of each page")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="the built book")
    arguments = parser.parse_args()
    html = arguments.html.resolve()
    with serve(html) as site, browser.chromium() as chromium:
        print_explorers(chromium, site, html, arguments.rounds)
        print_pages(chromium, site, html)


def print_explorers(chromium: Any, site: str, html: Path, rounds: int) -> None:
    print("| Explorer | Data, gzip | Script, gzip | First picture | Change, script and layout | Change until shown |")
    print("|---|---|---|---|---|---|")
    page = chromium.new_page()
    page.goto(f"{site}/explorers.html")
    figures = page.locator("figure.vx-static").evaluate_all("all => all.map((one) => [one.id, {...one.dataset}])")
    page.close()
    for name, data in [(i.removeprefix("explore-"), data) for i, data in figures]:
        firsts, times = measure(chromium, f"{site}/explorers.html?explorer={name}#explore-{name}", name, rounds)
        files = [html / "explorers" / f"{data[key]}.js" for key in ("payload", "script")]
        cells = [data["kind"], *(f"{weight.zipped(file) / 1000:.0f} KB" for file in files)]
        print("|", " | ".join([*cells, ms(firsts), ms(times["work"]), ms(times["shown"])]), "|")


def measure(chromium: Any, url: str, name: str, rounds: int) -> tuple[list[float], dict[str, list[float]]]:
    """Times until the first picture, each with an empty cache, and times of changes, in ms."""
    firsts: list[float] = []
    times: dict[str, list[float]] = {}
    for _ in range(max(rounds // 4, 3)):
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.add_init_script(FIRST)
        page.goto(url)
        firsts.append(page.evaluate("window.firstPicture"))
        times = times or page.evaluate(CHANGES, [name, rounds])
        context.close()
    return firsts, times


def print_pages(chromium: Any, site: str, html: Path) -> None:
    print("\n| Page | At load, gzip |\n|---|---|")
    for path in sorted(p for p in html.rglob("*.html") if "_static" not in p.parts):
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        urls: list[str] = []
        page.on("request", lambda event, urls=urls: urls.append(event.url))
        page.goto(f"{site}/{path.relative_to(html).as_posix()}", wait_until="networkidle")
        print(f"| {path.relative_to(html).as_posix()} | {weight.requested(html, urls) / 1000:.0f} KB |")
        page.close()


def ms(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} ms (at most {max(times):.1f})"


if __name__ == "__main__":
    main()
