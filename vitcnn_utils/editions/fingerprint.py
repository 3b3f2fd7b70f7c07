"""What a chapter was made from, as one hash: while that is the same, the chapter need not run again."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent
_OF_PAGES = "runtime.js"  # lies beside the explorers' scripts, and is loaded by pages only


def used() -> dict[str, Any]:
    """In a kernel: which files of this package, and which other packages, it has loaded, and the most bytes it held."""
    modules = dict(sys.modules)
    paths = [Path(file) for module in modules.values() if (file := getattr(module, "__file__", None))]
    own = {path for path in paths if path.is_relative_to(PACKAGE)} - {Path(__file__)}
    beside = {p for path in own for p in path.parent.iterdir() if p.suffix in (".js", ".css") and p.name != _OF_PAGES}
    distributions = metadata.packages_distributions()
    packages = {name for module in modules for name in distributions.get(module, [])}
    files = sorted(path.relative_to(PACKAGE).as_posix() for path in own | beside)
    return {"files": files, "packages": sorted(packages), "memory": _peak_memory()}


def _peak_memory() -> int:
    """In bytes; on systems that do not tell the peak of a process, what it holds now."""
    import psutil

    status = Path("/proc/self/status")
    if status.exists():  # getrusage would give the peak of the process that started this one, if that was higher
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    held = psutil.Process().memory_info()
    return getattr(held, "peak_wset", held.rss)


def of_chapter(source: str, parameters: dict[str, Any], uses: dict[str, Any]) -> str:
    """Of a notebook, its parameters, the files that these name, and what `used` found.

    A change of what the chapter does not use yet, but would, is a change of something that it uses.
    """
    named = [_stamp(path) for path in _paths(parameters)]
    versions = [(name, _version(name)) for name in uses["packages"]]
    text = json.dumps([source, parameters, named, versions], sort_keys=True, default=str)
    code = [PACKAGE / name for name in uses["files"]]
    # Weights are used by name, and what builds models of the zoo knows all names.
    texts = [text, *(p.read_text(encoding="utf-8") for p in code if p.exists() and p.parent.name != "zoo")]
    models = sorted({name for text in texts for name in re.findall(r"\bzoo/([\w-]+)", text)})
    weights = [
        PACKAGE / "zoo" / "weights" / f"{name}{suffix}" for name in models for suffix in (".safetensors", ".json")
    ]
    return of_files([*code, *weights, *files(PACKAGE / "samples")], PACKAGE, text)


def of_package() -> str:
    """Of all files of the package: whether two machines have the same, and whether it changed meanwhile."""
    return of_files(files(PACKAGE), PACKAGE)


def files(folder: Path) -> list[Path]:
    """All files at any depth, but compiled ones."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def of_files(paths: Sequence[Path], root: Path, text: str = "") -> str:
    """Of the content of files, their places below `root`, and a text; a file may be missing."""
    digest = hashlib.sha256(text.encode())
    for path in paths:
        digest.update(str(path.relative_to(root)).encode() + b"\0")
        digest.update(_content(path) if path.is_file() else b"missing")
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _paths(value: Any) -> Iterator[Path]:
    """Files and folders that a parameter names."""
    parts: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _paths(part)
    if isinstance(value, str) and os.path.exists(path := os.path.expanduser(value)):
        yield Path(path)


def _stamp(path: Path) -> list[Any]:
    """Of a file its content; of a folder, which may hold many pictures, sizes and times."""
    if path.is_file():
        return [str(path), _content(path).hex()]
    return [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files(path)]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
