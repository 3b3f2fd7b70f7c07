"""What pages of the built book weigh over a network whose servers compress, as nearly all do."""

import gzip
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit


@cache
def zipped(file: Path) -> int:
    """Bytes of a file after gzip, or of the file itself where that does not make it smaller (pictures, fonts)."""
    raw = file.read_bytes()
    return min(len(raw), len(gzip.compress(raw, 6)))


def requested(html: Path, urls: list[str]) -> int:
    """Bytes of all that was asked for from the server of the book in `html`; each file once."""
    files = {html / unquote(urlsplit(url).path).lstrip("/") for url in urls if url.startswith("http")}
    return sum(zipped(file) for file in files if file.is_file())
