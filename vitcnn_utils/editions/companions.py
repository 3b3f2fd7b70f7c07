"""Models that stand beside an edition's ViT: another start, less data, another read-out, no skips.

Such trainings are hardly ever published. Where an edition names none of its own, those of the zoo stand in. Beside a
ViT of other origin these are no twins of it: they are compared with a model of the zoo, on the zoo's images.
"""

from collections.abc import Sequence

from vitcnn_utils.images import Images, load_images

WHOLE, TWIN = "zoo/vit-cls", "zoo/vit-cls-seed-2"
"""The zoo's ViT, and the one of the same recipe that was trained for as long as the zoo's other companions."""


def related(name: str | None, to: str) -> str | None:
    """`name`, if it and `to` are both of the zoo, or neither is; else None."""
    return name if name and _of_zoo(name) == _of_zoo(to) else None


def beside(name: str | None, *candidates: str | None) -> str | None:
    """The model that a companion is compared with: the first candidate related to it, the zoo's `TWIN` for the zoo's.

    None where there is no companion, or nothing to compare it with.
    """
    if not name:
        return None
    found = [candidate for candidate in candidates if candidate and related(candidate, name)]
    return next(iter(found), TWIN if _of_zoo(name) else None)


def another_start(name: str, vit: str, vit_seed_2: str | None) -> str | None:
    """The model of the same recipe as `name` from another start: the edition's for its ViT, the zoo's for the zoo's."""
    return related(vit_seed_2, vit) if name == vit else TWIN if name == WHOLE else None


def stand_in(name: str, vit: str) -> bool:
    """Whether a companion is the zoo's, and the edition's ViT is not."""
    return _of_zoo(name) and not _of_zoo(vit)


def images_of(name: str, vit: str, images: Images, seed: int) -> Images:
    """What a companion sees: the edition's images, or, where the zoo's stands in, at most as many of the zoo's."""
    if not stand_in(name, vit):
        return images
    return load_images("cifar10", seed=seed)[: len(images)]


def note(figure: str, names: Sequence[str]) -> str:
    """Markdown that says that models of the zoo stand in."""
    models = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
    return (
        f"**{figure} shows models of the zoo**, {models}, on images of CIFAR-10: this edition has none of its own "
        "that were trained in this way."
    )


def _of_zoo(name: str) -> bool:
    return name.startswith("zoo/")
