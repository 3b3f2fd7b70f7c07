"""One file for a class without network: the built book, the exercises, the package with its models."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from vitcnn_utils.course import slides
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import replacing

README = """\
Do vision transformers see like CNNs? - handout for a class
1. Unpack this file into a folder. Nothing in it needs a network.
2. To read and explore: open book/index.html in a browser.
3. To do the exercises you need Python 3.11 or newer. Where there is a network, this installs all that they need,
   PyTorch too (2 GB and more): pip install "{wheel}[notebooks]" jupyterlab
4. Without a network, only where that was done before, with this file or an older one:
   pip install --no-deps --no-index {wheel}
5. Is this laptop ready? vitcnn handout --check    (one minute; names what is missing)
6. Then: jupyter lab exercises.ipynb
7. For teachers: solutions.ipynb, the plan (book/course/plan.html), the slides (book/slides.html, slides.pdf).
8. The models (CIFAR-10, 32 x 32 pixels) lie in the package. Licence: MIT.
"""


def make(root: Path, target: Path, report: Callable[[str], None] = print) -> Path:
    """Write the handout, a zip, to `target`; VitcnnError where the book is not built yet.

    The slides are printed to it where there is a Chromium or Chrome.
    """
    pages = root / "_build" / "html"
    if not (pages / "index.html").exists():
        raise VitcnnError("the book is not built yet: run `vitcnn run zoo && vitcnn book`")
    with tempfile.TemporaryDirectory() as aside, replacing(target) as partial:
        wheel = _wheel(root, Path(aside))
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as handout:
            handout.writestr("README.txt", README.format(wheel=wheel.name))
            handout.write(wheel, wheel.name)
            for name in ("exercises.ipynb", "solutions.ipynb"):
                handout.write(root / "notebooks" / "course" / name, name)
            if browser := slides.find_browser():
                slides.print_pdf(pages / "slides.html", Path(aside) / "slides.pdf", browser)
                handout.write(Path(aside) / "slides.pdf", "slides.pdf")
            else:
                report("slides.pdf is left out: there is no Chromium or Chrome to print it with")
            for path in sorted(pages.rglob("*")):
                if path.is_file():
                    handout.write(path, Path("book") / path.relative_to(pages))
    return target


def _wheel(root: Path, aside: Path) -> Path:
    """Build the package from a copy, so that no build folder is left in the checkout."""
    copy = aside / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    shutil.copytree(root / "vitcnn_utils", copy / "vitcnn_utils", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command += ["--disable-pip-version-check", "--wheel-dir", str(aside), str(copy)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        problem = " ".join(result.stderr.split())[-300:]
        raise VitcnnError(f"the wheel could not be built (pip install setuptools wheel): {problem}")
    (wheel,) = aside.glob("*.whl")
    return wheel


def check() -> bool:
    """Print what this machine lacks for the exercises, one line each; True if it lacks nothing."""
    ready = True
    for fine, line in _findings():
        print(("✓ " if fine else "✗ ") + line, flush=True)
        ready &= fine
    return ready


def _findings() -> Iterator[tuple[bool, str]]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield sys.version_info >= (3, 11), f"Python {version} (3.11 or newer is needed)"
    missing = list(_missing())
    yield not missing, f"packages missing: pip install {' '.join(missing)}" if missing else "all packages are there"
    jupyter = importlib.util.find_spec("jupyterlab") or importlib.util.find_spec("notebook")
    yield jupyter is not None, "Jupyter" + ("" if jupyter else " is missing: pip install jupyterlab")
    free = shutil.disk_usage(tempfile.gettempdir()).free
    yield free > 200e6, f"{free / 1e9:.1f} GB free on the disk (0.2 GB are needed)"
    if not missing:
        yield _measures()


def _missing(package: str = "vitcnn-utils", extras: Iterable[str] = ("notebooks",)) -> Iterator[str]:
    """What a package with these extras needs and this Python lacks or has too old, as pip takes it."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:  # pip has a copy, and has installed this package
        from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]

    for line in metadata.requires(package) or []:
        need = Requirement(line)
        if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            fits = need.specifier.contains(metadata.version(need.name), prereleases=True)
        except metadata.PackageNotFoundError:
            fits = False
        if not fits:
            yield f'"{need.name}{need.specifier}"'
        elif need.extras:
            yield from _missing(need.name, need.extras)


def _measures() -> tuple[bool, str]:
    """Load a model of the zoo, measure it and make an explorer, as the exercises do."""
    import vitcnn_utils as vu

    start = time.monotonic()
    try:
        heads = vu.head_distances(vu.load_model("zoo/vit-cls"), vu.load_images("cifar10", n=64, seed=0))
        vu.explore_attention(vu.load_model("zoo/vit-cls"), vu.load_images("cifar10", n=1, seed=0))
    except Exception as error:
        return False, f"a measure fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    far, uniform = float(heads.distance.max()), heads.attrs["uniform_distance"]
    return 0 < far < 2 * uniform, f"a model was loaded and measured in {time.monotonic() - start:.0f} s"
