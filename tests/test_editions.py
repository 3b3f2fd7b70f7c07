"""The chapters with models other than the zoo's, and without those that may be missing."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hub_cache
import pytest
import timm
import yaml
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from vitcnn_utils import zoo
from vitcnn_utils.claims import ledger
from vitcnn_utils.editions.parameters import default_parameters
from vitcnn_utils.measures.intervals import left_out

FOLDER = Path(__file__).parent.parent / "notebooks"
SMALL = {
    "n_images": 60, "n_control_images": 20, "n_attention_images": 8, "n_few_images": 20, "n_patch_images": 20,
    "n_erf_images": 2, "erf_channels": 1, "cka_batch_size": 20, "shots": 1, "n_cka_images": 20, "draws": 2,
    "transfer_images": "fashion-mnist", "n_transfer_images": 60, "device": "cpu",
}  # fmt: skip
LIKE_PAPER = {
    "images": "cifar10", "image_size": hub_cache.SIZE, "vit": "hf-hub:small/vit", "cnn": "hf-hub:small/cnn",
    "vit_small_data": "hf-hub:small/vit-little", "vit_gap": "hf-hub:small/vit-gap",
    "vit_gap_twin": "hf-hub:small/vit-cls",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's cache with small models."""
    folder = tmp_path_factory.mktemp("hub")
    hub_cache.fill(folder)
    return folder


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any], str], str]]:
    """Runs a chapter with an edition's values in this process, offline; gives the texts and HTML of its outputs.

    A kernel for each, as `vitcnn run` starts, would load all libraries anew.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # which a shell replaces
    # Claims ask for each number without every part of the images, which is a third of a chapter's time.
    monkeypatch.setattr(ledger, "left_out", partial(left_out, groups=3))
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    formatter = shell.display_formatter
    said: list[str] = []

    def record(value: Any, *arguments: Any, **options: Any) -> Any:
        data, metadata = type(formatter).format(formatter, value, *arguments, **options)
        said.extend(data.get(kind, "") for kind in ("text/markdown", "text/html"))
        return data, metadata

    monkeypatch.setattr(formatter, "format", record)

    def run_chapter(values: dict[str, Any], number: str) -> str:
        path = next(FOLDER.glob(f"{number}_*.ipynb"))
        given = {name: values[name] for name in default_parameters(path) if name in values}
        shell.reset()
        said.clear()
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            tags = cell["metadata"].get("tags", [])
            if cell["cell_type"] != "code" or "install" in tags:
                continue
            shell.run_cell("".join(cell["source"]), store_history=True).raise_error()
            if "parameters" in tags:  # as papermill puts them
                lines = [f"{name} = {value!r}\n" for name, value in given.items()]
                shell.run_cell("# Parameters\n" + "".join(lines), store_history=True).raise_error()
        return "\n".join(said)

    yield run_chapter
    InteractiveShell.clear_instance()


def paper() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "editions" / "paper.yml").read_text(encoding="utf-8"))


def stand_ins(page: str) -> list[str]:
    """The figures of which a page says that models of the zoo stand in."""
    return re.findall(r"<strong>([^<]+)</strong> shows [^\n]+: models of the zoo", page)


pytestmark = pytest.mark.filterwarnings("default")  # a kernel would only print them


def test_the_papers_edition_runs_with_small_models_in_the_place_of_its_own(run: Any) -> None:
    values = paper() | SMALL | LIKE_PAPER
    skips = run(values, "3")
    assert stand_ins(skips) == ["Figure 8"] and "20 images of cifar10" in skips
    pair = run(values, "4")
    assert stand_ins(pair) == []  # it has its own pair
    assert "<code>hf-hub:small/vit-cls</code>, ViT-GAP <code>hf-hub:small/vit-gap</code>" in pair
    assert set(stand_ins(run(values, "5"))) == {"Figure 12"}


def test_the_papers_edition_names_what_there_is() -> None:
    values = paper()
    models = [values[key] for key in ("vit", "cnn", "vit_small_data", "vit_gap", "vit_gap_twin")]
    for name in models:
        assert timm.get_pretrained_cfg(name).hf_hub_id
        assert timm.get_pretrained_cfg(name).input_size == (3, values["image_size"], values["image_size"])
    series = [*values["noskip"], *values["data_series"].values(), *values["small_series"].values()]
    assert set(series) <= set(zoo.names())


def test_a_vit_and_a_cnn_are_enough(run: Any, home: Path) -> None:
    # As in: papermill … -p vit deit3_small_patch16_224.fb_in1k -p cnn convnext_tiny.fb_in1k
    # The ViT with weights in a file, as after fine-tuning it.
    weights = next(home.glob("hub/models--small--vit/snapshots/*/model.safetensors"))
    ours = {"name": "hf-hub:small/vit", "weights": str(weights)}
    values = {"vit": ours, "cnn": "hf-hub:small/convnext", **SMALL}
    assert stand_ins(run(values, "2")) == ["Figure 4", "The next figure"]
    assert stand_ins(run(values, "4")) == ["Figure 10"]


def test_what_there_is_not_is_left_out(run: Any) -> None:
    without = dict.fromkeys(("vit_small_data", "cnn_small_data", "vit_seed_2", "vit_gap"))
    without |= {"small_series": {}, "data_series": {}, "noskip": []}
    values = {"vit": "hf-hub:small/vit", "cnn": "hf-hub:small/cnn", **SMALL, **without}
    pages = {figure: run(values, chapter) for figure, chapter in (("Figure 8", "3"), ("Figure 12", "5"))}
    for figure, page in pages.items():
        assert f"<strong>{figure}</strong> is left out" in page
        assert stand_ins(page) == []
