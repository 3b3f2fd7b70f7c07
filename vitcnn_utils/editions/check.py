"""What an edition needs, told in seconds: names, kinds of models, what fits what, what is still to be fetched."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitcnn_utils.editions.chapters import find_root, sources
from vitcnn_utils.editions.companions import of_zoo, skipless_block, title, waiting
from vitcnn_utils.editions.parameters import default_parameters, read_edition, unfit
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.hub import one_line

if TYPE_CHECKING:
    from vitcnn_utils.models.facts import Model

PATIENCE = 10
"""Seconds that the hub has for an answer."""

NEEDED = {"vit": "a vision transformer", "cnn": "a CNN", "images": "images that both see"}
"""Parameters that no chapter can do without."""

IMAGES = {"images": "n_images", "transfer_images": "n_transfer_images"}
STAND_INS = {"small_series": 4, "vit_small_data": 4, "noskip": 8, "vit_gap": 10, "data_series": 12}
"""Parameters for which models of the zoo may stand in, and the figure that then shows these."""


def check_edition(
    edition: str,
    overrides: dict[str, Any] | None = None,
    root: Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Report what an edition's models and images are, and what of them is still to be fetched; fetch neither.

    overrides: values that replace the edition's.
    Raises VitcnnError with a line for each name, model and image set that cannot be used.
    """
    root = root or find_root()
    notebooks = sources(root)
    given = read_edition(root, edition) | (overrides or {})
    problems = unfit(given, notebooks)
    if not problems:
        parameters = {k: v for notebook in notebooks for k, v in default_parameters(notebook).items()} | given
        models = _models(parameters, problems, report)
        _images(parameters, problems, report)
        problems += _misfits(parameters, models)
        problems += [f"{name}: chapters need {what}: name one" for name, what in NEEDED.items() if not parameters[name]]
        for parameter, figure in STAND_INS.items():
            if _stands_in(parameters, parameter):
                report(f"Figure {figure} ({parameter}) shows models of the zoo, on the zoo's images")
    if problems:
        raise VitcnnError(*dict.fromkeys(problems))
    report("nothing is missing: `vitcnn run` can begin")


def _models(parameters: dict[str, Any], problems: list[str], report: Callable[[str], None]) -> "dict[str, Model]":
    """The models by parameter, untrained and without memory; reports each once, and adds what is wrong with others."""
    models: dict[str, Model] = {}
    told: dict[str, Model] = {}
    to_fetch = 0
    for parameter, name in _named(parameters):
        key = title(name)
        try:
            models[parameter] = model = told.get(key) or _shape(name, parameters)
            if key not in told:
                told[key] = model
                size = _bytes_to_fetch(name)
                to_fetch += size
                count = sum(weight.numel() for weight in model.module.parameters())
                takes = f"{model.image_size[0]} x {model.image_size[1]} pixels" if model.grid else "any size"
                there = "not trained yet: what needs it is left out" if waiting(name) else _to_fetch(size)
                report(f"{key}: {_kind(model)}, {count / 1e6:.1f} M parameters, takes {takes}, {there}")
        except VitcnnError as error:
            problems.append(f"{parameter}: {error}")
    report(f"all models: {_to_fetch(to_fetch)}")
    return models


def _named(parameters: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names of models, by the parameter that has them; those of a list or series with their place in it."""
    for parameter, value in parameters.items():
        if parameter == "noskip":
            yield from ((f"noskip {place}", name) for place, name in enumerate(value or [], 1))
        elif parameter.endswith("_series"):
            yield from ((f"{parameter} {percent}", name) for percent, name in (value or {}).items())
        elif parameter.partition("_")[0] in ("vit", "cnn") and value is not None:
            yield parameter, value


def _shape(name: Any, parameters: dict[str, Any]) -> "Model":
    """A model on the device 'meta', where tensors have shapes and no content."""
    from vitcnn_utils.models.load import load_model

    size = None if of_zoo(name) and not of_zoo(parameters["vit"]) else parameters["image_size"]
    own_weights = not isinstance(name, str) and "weights" in name  # they are read, to see whether they fit
    return load_model(name, None if own_weights else "untrained", "meta", image_size=size)


def _kind(model: "Model") -> str:
    if model.attentions:
        return f"transformer with {len(model.blocks)} blocks"
    return f"{'network on tokens' if model.grid else 'convolutional network'} with {len(model.blocks)} blocks"


def _bytes_to_fetch(name: Any) -> int:
    """Of a model's weights, what the hub's cache on this machine does not have; VitcnnError where the hub has none."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    from vitcnn_utils.models.load import fetch_file, not_from_hub, repository_of

    if not isinstance(name, str):
        return 0 if "weights" in name else _bytes_to_fetch(name["name"])
    if of_zoo(name):
        return 0
    repository, weights = repository_of(name), "model.safetensors"
    if repository is None:
        fetch_file(name, repository, weights)  # says what to do
        return 0
    id, _, revision = repository.partition("@")
    if isinstance(try_to_load_from_cache(id, weights, revision=revision or None), str):
        return 0
    try:
        return get_hf_file_metadata(hf_hub_url(id, weights, revision=revision or None), timeout=PATIENCE).size or 0
    except Exception as error:  # the hub's client raises errors of several libraries
        raise not_from_hub(name, repository, weights, error) from None


def _images(parameters: dict[str, Any], problems: list[str], report: Callable[[str], None]) -> None:
    from vitcnn_utils import hub_data
    from vitcnn_utils.images import find_images

    for parameter, count in IMAGES.items():
        name, n = parameters.get(parameter), parameters.get(count)
        if not name:
            continue
        try:
            with one_line(f"{name} cannot be read"):
                source = find_images(name)
                if source is not None:
                    source.order(n, seed=0)
            where = "on this machine"
            if source is None:
                files = hub_data.ask(name, files_metadata=True).siblings or []
                where = f"on the hub, {_to_fetch(sum(file.size or 0 for file in files))} at most"
            report(f"{name}: {'all' if n is None else f'{n:,}'} images, {where}")
        except VitcnnError as error:
            problems.append(f"{parameter}: {error}")


def _to_fetch(size: int) -> str:
    if not size:
        return "nothing to fetch"
    return f"{size / 1e9:.2f} GB to fetch" if size >= 1e8 else f"{size / 1e6:.0f} MB to fetch"


def _stands_in(parameters: dict[str, Any], parameter: str) -> bool:
    names = [name for label, name in _named(parameters) if label.partition(" ")[0] == parameter]
    return any(map(of_zoo, names)) and not of_zoo(parameters["vit"])


def _misfits(parameters: dict[str, Any], models: "dict[str, Model]") -> Iterator[str]:
    """A line for each model that cannot play its part."""
    for label, model in models.items():
        role = label.partition(" ")[0]
        if not role.startswith("cnn") and not model.attentions:
            yield f"{label}: {model.name} is a {_kind(model)}: name a vision transformer"
        if role == "noskip":
            try:
                skipless_block(model)
            except VitcnnError as error:
                yield f"{label}: {error}"
        like = "cnn" if role == "cnn_small_data" else "vit" if role in ("vit_small_data", "vit_seed_2") else None
        if like in models and not _stands_in(parameters, role) and len(model.blocks) != len(models[like].blocks):
            yield f"{label}: {model.name} is a {_kind(model)}, and {models[like].name} a {_kind(models[like])}"
    vit = models.get("vit")
    for label, model in models.items():
        alike = of_zoo(model.name) == of_zoo(vit.name) if vit else False
        if vit and alike and model.grid and model.image_size != vit.image_size:
            yield f"{label}: {model.name} takes {model.image_size[0]} pixels, {vit.name} {vit.image_size[0]}: no pair"
