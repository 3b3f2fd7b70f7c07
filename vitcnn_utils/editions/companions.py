"""The models that stand side by side in a figure, and the images that all of them see.

Beside an edition's ViT stand models that are rarely published: another start, less data, another read-out, no skips.
Where an edition names none of its own, those of the zoo stand in. They differ in more than one thing from a ViT of
other origin, so they are compared with a model of the zoo, on the zoo's images.
"""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import xarray as xr

from vitcnn_utils import zoo
from vitcnn_utils.claims.training import AGAIN, CUTMIX, MIMETIC, PLAIN
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images, load_images
from vitcnn_utils.measures.accuracy import knows_classes, right_guesses
from vitcnn_utils.models.facts import Model
from vitcnn_utils.models.load import load_model
from vitcnn_utils.zoo.cards import differences, steps_beside, trained_unlike, training_note

WHOLE, TWIN = "zoo/vit-cls", "zoo/vit-cls-seed-2"
"""The zoo's ViT, and the one of the same recipe from another start."""
Name = str | Mapping[str, Any]
"""Of a model, as an edition gives it: a name, or a mapping with `name`, `weights` and `image_size`."""
ALL, SECOND, UNTRAINED = "all data", "second seed", "untrained"


class Cast(Mapping[str, Model]):
    """The models of a figure by label, each loaded when first asked for; empty where the edition lacks one.

    A label that ends in 'untrained' stands for the model before training. images: what all of them see. stand_in:
    whether they are the zoo's, beside a ViT that is not. lacks: what an empty cast needs. Shown in a notebook, it says
    which models these are, or that there are none.
    """

    def __init__(
        self, figure: str, names: Mapping[str, Name], images: Images, stand_in: bool = False, lacks: str = "",
        **options: Any,
    ) -> None:  # fmt: skip
        self.figure, self.names, self.images, self.stand_in = figure, dict(names), images, stand_in
        self.lacks = lacks or ("" if names else "models that this edition does not name")
        self._options = options
        self._loaded: dict[str, Model] = {}

    def __getitem__(self, label: str) -> Model:
        if label not in self._loaded:
            weights = UNTRAINED if label.endswith(UNTRAINED) else None
            self._loaded[label] = load_model(self.names[label], weights, **self._options)
        return self._loaded[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def cards(self) -> dict[str, dict[str, Any]]:
        """The cards of those models that are of the zoo, by name."""
        return cards_of(*self.names.values())

    @property
    def unlike(self) -> str:
        """Why its models cannot be compared, as far as cards of the zoo tell, see `zoo.cards.trained_unlike`; or ''."""
        return trained_unlike(self.cards)

    @cached_property
    def guesses(self) -> dict[str, xr.DataArray]:
        """Of each trained model `right_guesses`; none where the images are not labelled with a model's classes."""
        trained = {label: model for label, model in self.items() if not label.endswith(UNTRAINED)}
        if not all(knows_classes(model, self.images) for model in trained.values()):
            return {}
        return {label: right_guesses(model, self.images) for label, model in trained.items()}

    def draw(self, figure: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        """A figure or an explorer of arrays that were measured on these models; None where there are no models."""
        return figure(*arrays, **options) if self.names else None

    def _repr_html_(self) -> str:
        figure = f"<strong>{html.escape(self.figure)}</strong>"
        if not self.names:
            return f"<p>{figure} is left out: it needs {html.escape(self.lacks)}.</p>"
        trained = [(label, name) for label, name in self.names.items() if not label.endswith(UNTRAINED)]
        shown = ", ".join(
            f"{'' if label == title(name) else html.escape(label)} <code>{html.escape(title(name))}</code>".lstrip()
            for label, name in trained
        )
        why = ": models of the zoo, as this edition has none of its own that were trained in this way" * self.stand_in
        return f"<p>{figure} shows {shown}, on images of {html.escape(self.images.name)}{why}.</p>"


class Casting:
    """Chooses the models of figures for the ViT of an edition, `vit`, and its images."""

    def __init__(
        self, vit: Name, images: Images, image_size: int | None = None, seed: int = 0, device: str = "auto"
    ) -> None:
        self.vit, self.images, self.seed = vit, images, seed
        self.options: dict[str, Any] = {"device": device, "seed": seed}
        self.own_options = self.options | {"image_size": image_size}

    def cast(self, figure: str, names: Mapping[str, Name | None]) -> Cast:
        """The models of `names`, all of one origin; an empty cast if one of them is missing (None).

        If they are of the zoo and the edition's ViT is not, they see as many of the zoo's images, at most. VitcnnError
        if the ViT is of the zoo and they are not.
        """
        present = {label: name for label, name in names.items() if name}
        if not present or len(present) < len(names):
            return Cast(figure, {}, self.images)
        if missing := [title(name) for name in present.values() if waiting(name)]:
            return Cast(figure, {}, self.images, lacks=f"{', '.join(missing)}, which are not trained yet")
        if all(related(name, self.vit) for name in present.values()):
            return Cast(figure, present, self.images, **self.own_options)
        foreign = [title(name) for name in present.values() if not of_zoo(name)]
        if foreign:
            other = next(filter(of_zoo, present.values()), self.vit)
            raise VitcnnError(f"{figure}: {foreign[0]} cannot stand beside {title(other)}: name models of one origin")
        pictures = load_images("cifar10", seed=self.seed)[: len(self.images)]
        return Cast(figure, present, pictures, stand_in=True, **self.options)

    def own(self, figure: str, names: Mapping[str, Name | None], cnn: Name | None = None) -> Cast:
        """Those of `names` that can be shown beside the edition's ViT, and its CNN (labels 'CNN…'), on its images."""
        bases = {label: cnn if cnn and label.startswith("CNN") else self.vit for label in names}
        kept = {label: name for label, name in names.items() if name and related(name, bases[label])}
        return Cast(figure, kept, self.images, **self.own_options)

    def controls(self, vit_seed_2: Name | None) -> Cast:
        """What claims on the edition's ViT are held against: the ViT before training, and one from another start.

        The label of the latter says how long both were trained, if the zoo's cards say that this differs.
        """
        names: dict[str, Name] = {UNTRAINED: self.vit}
        if vit_seed_2 and related(vit_seed_2, self.vit):
            names[second_seed(vit_seed_2, self.vit)] = vit_seed_2
        return Cast("The control", names, self.images, **self.own_options)

    def protocols(
        self, vit_no_cutmix: Name | None, vit_mimetic: Name | None, vit_seed_2: Name | None, cnn: Name
    ) -> Cast:
        """Models trained with CutMix and without it, and a CNN.

        Beside them, where there are such, one without CutMix from a mimetic start, and one with CutMix from another
        start, if that is all in which its training differs.
        """
        own = vit_no_cutmix is None or related(vit_no_cutmix, self.vit)
        cutmix, again, cnn = (self.vit, vit_seed_2, cnn) if own else (WHOLE, TWIN, "zoo/resnet")
        names: dict[str, Name | None] = {CUTMIX: cutmix, PLAIN: vit_no_cutmix}
        if vit_mimetic and not waiting(vit_mimetic):
            names[MIMETIC] = vit_mimetic
        if again and differ_in_start(cutmix, again):
            names[AGAIN] = again
        return self.cast("The comparison of trainings", names | {"CNN": cnn})

    def series(self, figure: str, *series: Mapping[Any, Name] | None, vit_seed_2: Name | None = None) -> list[Cast]:
        """Models by the part of the data that they saw, one cast a series, all on the same images.

        series: see `parts`. Then the controls: 'second seed', see `another_start`, where there is one, and 'untrained'.
        """
        casts = []
        for names in map(parts, filter(None, series)):
            second = another_start(names[ALL], self.vit, vit_seed_2)
            controls = ({SECOND: second} if second else {}) | {UNTRAINED: names[ALL]}
            casts.append(self.cast(figure, names | controls))
        return [cast for cast in casts if cast.stand_in == casts[0].stand_in]


def parts(series: Mapping[Any, Name] | None) -> dict[str, Name]:
    """Models by the part of the data that they saw, smallest part first: '3 %', … and 'all data' for the largest.

    series: percent of the training images -> model; keys may be text, as papermill hands them over.
    """
    if not series:
        return {}
    *less, (_, whole) = sorted((float(percent), name) for percent, name in series.items())
    return {f"{percent:g} %": name for percent, name in less} | {ALL: whole}


def series_note(series: Sequence[Cast]) -> str:
    """What to keep in mind of the training of each series of `Casting.series`, a paragraph each, from the zoo's cards.

    Nothing is said of a series with a model that has no card.
    """
    known = [cast for cast in series if len(cast.cards) == len(set(map(title, cast.names.values())))]
    return "\n\n".join(training_note(title(cast.names[ALL]), cast.cards) for cast in known)


def of_zoo(name: Name) -> bool:
    """Whether a model is the zoo's, with the weights that ship."""
    return isinstance(name, str) and name.startswith("zoo/")


def cards_of(*names: Name) -> dict[str, dict[str, Any]]:
    """The cards of those models that are of the zoo, by name."""
    there = zoo.names()
    return {name: zoo.card(name) for name in names if isinstance(name, str) and name in there}


def waiting(name: Name) -> bool:
    """Whether a model is of the zoo and not trained yet."""
    return of_zoo(name) and name not in zoo.names()


def title(name: Name) -> str:
    """What a model is called where it is shown."""
    return name if isinstance(name, str) else ", ".join(map(str, name.values()))


def related(name: Name, to: Name) -> bool:
    """Whether two models are both of the zoo, or neither is."""
    return of_zoo(name) == of_zoo(to)


def beside(name: Name | None, *candidates: Name | None) -> Name | None:
    """The model that a companion is compared with: the first candidate related to it that was trained alike.

    For a companion of the zoo, the zoo's ViTs are candidates too. If none was trained alike, the first; None where
    there is no companion, or nothing to compare it with.
    """
    if not name:
        return None
    found = [one for one in (*candidates, *[WHOLE, TWIN] * of_zoo(name)) if one and related(one, name)]
    alike = [one for one in found if not trained_unlike(cards_of(name, one))]
    return next(iter(alike or found), None)


def another_start(name: Name, vit: Name, vit_seed_2: Name | None) -> Name | None:
    """A model trained as `name` from another start: of the edition's two ViTs the other, or the zoo's second seed.

    None where there is none, or cards of the zoo say that it was trained in another way.
    """
    if name in (vit, vit_seed_2):
        other = vit_seed_2 if name == vit else vit
    else:
        other = f"{name}-seed-2" if of_zoo(name) else None
    return other if other and differ_in_start(name, other) else None


def second_seed(vit_seed_2: Name, vit: Name) -> str:
    """What a second training is called: with how long both were trained, where cards say that it is not as long."""
    return SECOND + steps_beside(cards_of(vit, vit_seed_2), title(vit_seed_2), title(vit))


def differ_in_start(name: Name, other: Name) -> bool:
    """Whether two models were trained alike but for their start, as far as cards of the zoo tell."""
    recipes = [card["recipe"] for card in cards_of(name, other).values()]
    if len(recipes) < 2:
        return not of_zoo(name) and not of_zoo(other)
    return differences(*recipes) == {"seed"}


def skipless_block(model: Model) -> int:
    """The number of the one block that has no skip connections; VitcnnError where none has, or several have."""
    blocks = sorted({branch.block for branch in model.branches if not branch.has_skip})
    if len(blocks) != 1:
        has = f"blocks {blocks} without skip connections" if blocks else "all its skip connections"
        raise VitcnnError(f"{model.name} has {has}: `noskip` takes models trained without those of one block")
    return blocks[0]
