"""Which code, seed, images and device made a figure."""

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """What a reader needs to make a figure again; `line` stands under every figure of the book."""

    edition: str
    images: str
    n_images: int
    seed: int
    device: str

    @property
    def line(self) -> str:
        return (
            f"Edition {self.edition} · {self.n_images:,} images of {self.images} · seed {self.seed} · "
            f"{self.device} · commit {commit()}"
        )


@cache
def commit() -> str:
    """The short commit of the source that runs, '+' after it if files were changed since; 'unknown' outside git."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # A package installed under some other project's checkout is not of that project's commit.
        git("ls-files", "--error-unmatch", __file__)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=9", "HEAD") + ("+" if changed else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"
