"""Hashes that tell versions of files apart: what was made from the same need not be made again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
_NOT_SEEN_BY_NOTEBOOKS = {
    "book.py", "cli.py", "execute.py", "fingerprint.py", "static.py",
    "runtime.js",
}  # fmt: skip


def of_package() -> str:
    """Tells versions of the package apart, with its weights, as far as notebooks see them."""
    return of_files([path for path in files(PACKAGE) if path.name not in _NOT_SEEN_BY_NOTEBOOKS], PACKAGE)


def files(folder: Path) -> list[Path]:
    """All files at any depth, but compiled ones."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def of_files(paths: Sequence[Path], root: Path, text: str = "") -> str:
    """Of the content of files, their places below `root`, and a text."""
    digest = hashlib.sha256(text.encode())
    for path in paths:
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
