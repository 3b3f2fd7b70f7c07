"""Write files atomically; let one process at a time do a piece of work."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitcnn_utils.errors import VitcnnError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: gives a path to write to, and at the end moves what is there to `path`.

    An error or interrupt leaves what was at `path`, and nothing else. Folders are made as needed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as aside:
        partial = Path(aside) / path.name
        yield partial
        partial.replace(path)


def replace_text(path: Path, text: str) -> None:
    """Write a text, UTF-8, see `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def alone(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock; VitcnnError that says `busy` if another process holds it. The lock ends with the process."""
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise VitcnnError(f"{busy}: wait until it ends") from None
    try:
        yield
    finally:
        held.release()
