"""The slides of the session: `book/course/slides.md` as a page of reveal.js with the explorers live inside, and as PDF.

Slides are separated by a line `---`, notes of the speaker begin with `Note:`, and a line `{explorer} KIND` is replaced
by that explorer. reveal.js comes from the package sphinx-revealjs, so the page asks no other host for anything.
"""

import html
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from vitcnn_utils.errors import VitcnnError

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# Without these Chromium asks its maker's hosts for news; as root it has to do without its sandbox.
BROWSER_ARGUMENTS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
if hasattr(os, "getuid") and os.getuid() == 0:
    BROWSER_ARGUMENTS.append("--no-sandbox")

_PARTS = ("dist/reset.css", "dist/reveal.css", "dist/theme/white.css", "dist/theme/black.css", "dist/reveal.js",
          "plugin/notes/notes.js")  # fmt: skip

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="canonical" href="{address}">
<link rel="icon" href="_static/logo.svg">
<link rel="stylesheet" href="reveal/reset.css">
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="reveal/white.css" media="(prefers-color-scheme: light)">
<link rel="stylesheet" href="reveal/black.css" media="(prefers-color-scheme: dark)">
<style>
:root {{
  color-scheme: light dark;
  --r-main-font: system-ui, sans-serif; --r-heading-font: system-ui, sans-serif; --r-heading-text-transform: none;
  /* What the explorers take from the book's theme. */
  --pst-color-text-base: #222; --pst-color-text-muted: #555; --pst-color-background: #fff; --pst-color-surface: #f1f2f4;
  --pst-color-border: #c9ccd1; --pst-color-primary: #0b6e8f;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --pst-color-text-base: #eee; --pst-color-text-muted: #aaa; --pst-color-background: #191919;
    --pst-color-surface: #2a2a2d; --pst-color-border: #555; --pst-color-primary: #5fc3e4;
  }}
}}
.reveal {{ font-size: clamp(18px, 2.2vw, 32px); }}
.reveal h1 {{ font-size: 2em; }} .reveal h2 {{ font-size: 1.5em; }}
.reveal .slides > section {{ padding: 0 4vw; box-sizing: border-box; }}
.reveal img {{ max-height: 52vh; }}
/* An explorer measures in rem, and is to fit a slide without scrolling. */
html {{ font-size: clamp(10px, 1.75vh, 16px); }}
.reveal .vx-static {{ font-size: 1rem; text-align: left; max-width: 72rem; margin: 0 auto; }}
.reveal .vx-static {{ max-height: 88vh; overflow: auto; }}
.reveal .vx {{ margin: 0; padding: 0.5rem 0.75rem; }}
.reveal .vx-static .vx-tiles ~ .vx-picker {{ max-width: 20rem; }}
.reveal .vx-static .vx-token-map .vx-picker {{ max-width: 16rem; }}
.reveal .vx .vx-wide {{ max-width: 50rem; }}
.reveal .vx .vx-tiles > div {{ grid-template-columns: repeat(auto-fill, minmax(3.8rem, 1fr)); max-width: none; }}
.reveal section:has(.vx-static) {{ top: 1vh !important; }}
.reveal section:has(.vx-static) h2 {{ font-size: 1em; margin: 0 0 0.3em; }}
/* On paper the picture of an explorer has to fit, and its line says nothing. */
.print-pdf .vx-static {{ overflow: hidden; }}
.print-pdf .vx-fallback svg {{
  width: auto !important; min-width: 0 !important; max-width: 100% !important; height: 80vh !important; margin: auto;
}}
.print-pdf .vx-fallback p {{ display: none; }}
</style>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="reveal/reveal.js"></script>
<script src="reveal/notes.js"></script>
<script>
Reveal.initialize({{
  plugins: [RevealNotes], hash: true, width: "100%", height: "100%", margin: 0, minScale: 1, maxScale: 1,
  // Keys that are meant for an explorer do not turn the page …
  keyboardCondition: () => !document.activeElement.closest(".vx-static"),
}}).then(() => {{
  for (const src of {runtimes}) document.body.append(Object.assign(document.createElement("script"), {{ src }}));
}});
// … but for those of a presenter's remote, wherever the last click was.
addEventListener("keydown", (event) => {{
  const turn = {{ PageDown: "next", PageUp: "prev" }}[event.key];
  if (!turn || !document.activeElement.closest(".vx-static")) return;
  event.preventDefault();
  event.stopPropagation();
  document.activeElement.blur();
  Reveal[turn]();
}}, true);
</script>
</body>
</html>
"""


def write(source: Path, explorers: Mapping[str, str], folder: Path, site: str) -> None:
    """Write slides.html and reveal/ into `folder`, the top of the book.

    explorers: kind -> HTML of its placeholder, of a page at the top of the book; VitcnnError where the slides name
    another kind. site: where the book is published; a link to an explorer leads there from a copy on a stick.
    """
    from markdown_it import MarkdownIt

    text = source.read_text(encoding="utf-8")
    markdown = MarkdownIt("commonmark", {"html": False})
    runtimes: list[str] = []

    def figure(kind: str) -> str:
        """An explorer's placeholder without its script, which the page loads once reveal.js has laid out the slides."""
        if kind not in explorers:
            raise VitcnnError(f"{source.name} shows the explorer {kind!r}; there are: {', '.join(sorted(explorers))}")
        runtimes.extend(src for src in re.findall(r'<script src="([^"]+)"', explorers[kind]) if src not in runtimes)
        return re.sub(r"<script.*?</script>", "", explorers[kind], flags=re.DOTALL)

    slides = []
    for slide in re.split(r"^---$", text, flags=re.MULTILINE):
        shown, _, notes = slide.partition("\nNote:\n")
        explorer = re.search(r"^\{explorer\} (\w+)$", shown, flags=re.MULTILINE)
        body = markdown.render(shown.replace(explorer[0], "") if explorer else shown)
        body += figure(explorer[1]) if explorer else ""
        slides.append(f'<section>{body}<aside class="notes">{markdown.render(notes)}</aside></section>')
    title = next((line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")), "Slides")
    page = _PAGE.format(title=html.escape(title), slides="\n".join(slides), runtimes=runtimes,
                        address=html.escape(f"{site}slides.html"))  # fmt: skip
    (folder / "slides.html").write_text(page, encoding="utf-8")
    (folder / "reveal").mkdir(exist_ok=True)
    reveal = files("sphinx_revealjs") / "_static" / "revealjs"
    for part in (*_PARTS, "LICENSE"):
        # The themes ask for fonts that would weigh more than all the rest; the page names the system's.
        content = re.sub(r"@import url\([^)]*\);?", "", (reveal / part).read_text(encoding="utf-8"))
        (folder / "reveal" / Path(part).name).write_text(content, encoding="utf-8")


def find_browser() -> str | None:
    """The executable of the system's Chromium or Chrome."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    return found or (str(_MAC) if _MAC.exists() else None)


def print_pdf(page: Path, target: Path, browser: str) -> None:
    """Print slides.html, a page each; VitcnnError where the browser cannot."""
    wanted = page.read_text(encoding="utf-8").count("<section>")
    # Now and then Chromium prints before reveal.js has laid out the pages: all is then on one.
    for _ in range(5):
        _print(page, target, browser)
        if len(re.findall(rb"/Type /Page\b", target.read_bytes())) == wanted:
            return
    target.unlink()
    raise VitcnnError(f"{browser} printed another number of pages than there are slides ({wanted}): try again")


def _print(page: Path, target: Path, browser: str) -> None:
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", *BROWSER_ARGUMENTS, f"--user-data-dir={profile}", "--window-size=1280,720",
                   "--virtual-time-budget=30000", "--no-pdf-header-footer", f"--print-to-pdf={target}",
                   f"{page.absolute().as_uri()}?print-pdf&width=1280&height=720"]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode or not target.exists():
        raise VitcnnError(f"{browser} could not print the slides: {' '.join(result.stderr.split())[-300:]}")
