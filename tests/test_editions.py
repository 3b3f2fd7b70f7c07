"""Notebooks run with models other than the zoo's, as `vitcnn run` runs them: those with parts that may be missing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import hub_cache
import pytest
import timm
import yaml

from vitcnn_utils import zoo
from vitcnn_utils.editions import chapters

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
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the real notebooks, and a hub's cache with small models."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "book").mkdir()
    shutil.copytree(FOLDER, folder / "notebooks")
    (folder / "requirements.lock").touch()
    hub_cache.fill(folder / "hub")
    return folder


@pytest.fixture(autouse=True)
def offline(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(root / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def run(root: Path, edition: str, values: dict[str, Any], notebooks: list[str]) -> dict[str, str]:
    """What the pages of an edition say, by notebook: texts and HTML of all outputs."""
    (root / "notebooks" / "editions" / f"{edition}.yml").write_text(yaml.safe_dump(values))
    paths = chapters.run_editions([edition], notebooks, root=root, report=lambda line: None)
    return {path.stem: said(path) for path in paths}


def said(executed: Path) -> str:
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return "\n".join("".join(data.get(kind, "")) for data in outputs for kind in ("text/markdown", "text/html"))


def paper() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "editions" / "paper.yml").read_text(encoding="utf-8"))


def stand_ins(page: str) -> list[str]:
    """The figures of which a page says that models of the zoo stand in."""
    return re.findall(r"<strong>([^<]+)</strong> shows [^\n]+: models of the zoo", page)


def test_the_papers_edition_runs_with_small_models_in_the_place_of_its_own(root: Path) -> None:
    pages = run(root, "like-paper", paper() | SMALL | LIKE_PAPER, ["3", "4", "5"])
    assert "Figure 8" in stand_ins(pages["3_skip_connections"])
    assert set(stand_ins(pages["5_scale"])) == {"Figure 12"}
    assert "20 images of cifar10" in pages["3_skip_connections"]
    assert stand_ins(pages["4_localization"]) == []  # it has its own pair
    assert "<code>hf-hub:small/vit-cls</code>, ViT-GAP <code>hf-hub:small/vit-gap</code>" in pages["4_localization"]


def test_the_papers_edition_names_what_there_is() -> None:
    values = paper()
    models = [values[key] for key in ("vit", "cnn", "vit_small_data", "vit_gap", "vit_gap_twin")]
    for name in models:
        assert timm.get_pretrained_cfg(name).hf_hub_id
        assert timm.get_pretrained_cfg(name).input_size == (3, values["image_size"], values["image_size"])
    series = [*values["noskip"], *values["data_series"].values(), *values["small_series"].values()]
    assert set(series) <= set(zoo.names())


def test_a_vit_and_a_cnn_are_enough(root: Path) -> None:
    # As in: papermill … -p vit deit3_small_patch16_224.fb_in1k -p cnn convnext_tiny.fb_in1k
    # The ViT with weights in a file, as after fine-tuning it.
    weights = next((root / "hub").glob("hub/models--small--vit/snapshots/*/model.safetensors"))
    ours = {"name": "hf-hub:small/vit", "weights": str(weights)}
    values = {"vit": ours, "cnn": "hf-hub:small/convnext", **SMALL}
    pages = run(root, "two", values, ["2", "4"])
    assert stand_ins(pages["2_local_and_global"]) == ["Figure 4", "The next figure"]
    assert stand_ins(pages["4_localization"]) == ["Figure 10"]


def test_what_there_is_not_is_left_out(root: Path) -> None:
    without = dict.fromkeys(("vit_small_data", "cnn_small_data", "vit_seed_2", "vit_gap"))
    without |= {"small_series": {}, "data_series": {}, "noskip": []}
    values = {"vit": "hf-hub:small/vit", "cnn": "hf-hub:small/cnn", **SMALL, **without}
    pages = run(root, "least", values, ["3", "5"])
    assert "<strong>Figure 8</strong> is left out" in pages["3_skip_connections"]
    assert "<strong>Figure 12</strong> is left out" in pages["5_scale"]
    assert not any(stand_ins(page) for page in pages.values())
