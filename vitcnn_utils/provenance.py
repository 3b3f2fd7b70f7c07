"""Which models, weights, images, seeds, device and commit made an array: written into its attrs, read by captions."""

import subprocess
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr

    from vitcnn_utils.images import Images
    from vitcnn_utils.models.facts import Model


ROLES = {"model": "weights", "model_b": "weights_b", "cnn": "weights_cnn"}
"""What attrs call the models of a measure, and the weights of each."""


def of(model: "Model | None", images: "Images", seed: int | None = None, **others: "Model") -> dict[str, str | int]:
    """The attrs that say what made an array; every measure puts them on its result.

    model, weights; images, n_images, and images_seed where their order was drawn; seed, that of the measure, where it
    draws; device; commit. others: a second model by its role, see `ROLES`. Where there is no model, None.
    """
    models = {} if model is None else {"model": model, **others}
    attrs: dict[str, str | int] = {}
    for role, one in models.items():
        attrs |= {role: one.name, ROLES[role]: one.weights}
    attrs |= {"images": images.name, "n_images": len(images)}
    seeds = {"images_seed": images.seed, "seed": seed}
    attrs |= {name: value for name, value in seeds.items() if value is not None}
    return attrs | {"device": "cpu" if model is None else str(model.device), "commit": commit()}


Facts = dict[str, str | int]
"""What `of` says of one array."""

FIELDS = (*chain(*ROLES.items()), "images", "n_images", "images_seed", "seed", "device", "commit")


def facts(*arrays: "xr.DataArray | xr.Dataset") -> tuple[Facts, ...]:
    """What made each of some arrays, from their attrs: the same only once, in their order."""
    found: list[Facts] = [{name: array.attrs[name] for name in FIELDS if name in array.attrs} for array in arrays]
    return distinct(found)


def distinct(made_of: "Iterable[Facts]") -> tuple[Facts, ...]:
    """What is said of several arrays, the same only once."""
    found: list[Facts] = []
    for each in made_of:
        if each and each not in found:
            found.append(each)
    return tuple(found)


def line(*arrays: "xr.DataArray | xr.Dataset") -> str:
    """What made some arrays, as a line for a caption."""
    return words(facts(*arrays))


def words(made_of: "Sequence[Facts]") -> str:
    """What `facts` gives as a line: each thing once."""

    def every(name: str) -> list[str]:
        return list(dict.fromkeys(str(a[name]) for a in made_of if name in a))

    models = [f"{str(a[role]).removesuffix(' (untrained)')} ({a[weights]})"
              for a in made_of for role, weights in ROLES.items() if weights in a]  # fmt: skip
    images = [f"{a['n_images']:,} images of {a['images']}" for a in made_of if "images" in a]
    of_images, of_measures = every("images_seed"), every("seed")
    if of_images and of_measures and of_images != of_measures:
        seeds = [f"{', '.join(of_images)} for the images, {', '.join(of_measures)} for the measure"]
    else:
        seeds = of_images or of_measures
    parts = [("", models), ("", images), ("seed ", seeds), ("", every("device")), ("commit ", every("commit"))]
    return " · ".join(title + ", ".join(dict.fromkeys(found)) for title, found in parts if found)


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
