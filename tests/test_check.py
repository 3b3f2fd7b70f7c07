"""What `vitcnn check` says of editions: models, images, what is to be fetched, what does not fit."""

import shutil
from pathlib import Path
from typing import Any

import hub_cache
import hub_server
import pytest
import yaml
from PIL import Image

from vitcnn_utils import zoo
from vitcnn_utils.editions.check import check_edition
from vitcnn_utils.errors import VitcnnError

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
OURS = {"vit": "hf-hub:small/vit", "cnn": "hf-hub:small/cnn"}
ALONE = {"small_series": {}, "data_series": {}, "noskip": [], "vit_gap": None, "vit_small_data": None,
         "cnn_small_data": None, "vit_seed_2": None}  # fmt: skip


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    hub_cache.fill(folder)
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: Path) -> Path:
    """A checkout with the real notebooks, and a hub's cache with small models; the hub itself cannot be reached."""
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.setenv("HF_HOME", str(cached))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cached / "hub"))
    hub_server.redirect(monkeypatch, "http://127.0.0.1:9")
    return tmp_path


def check(root: Path, **values: Any) -> list[str]:
    """What is reported; raises with the problems."""
    (root / "notebooks" / "editions" / "mine.yml").write_text(yaml.safe_dump(values))
    said: list[str] = []
    check_edition("mine", root=root, report=said.append)
    return said


def problems(root: Path, **values: Any) -> list[str]:
    with pytest.raises(VitcnnError) as error:
        check(root, **values)
    return str(error.value).splitlines()


def test_the_zoo_has_all_that_it_needs_but_what_waits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = [name for name in zoo.names() if name != "zoo/vit-gap"]
    monkeypatch.setattr(zoo, "names", lambda: trained)
    said: list[str] = []
    check_edition("zoo", root=root, report=said.append)
    assert (
        "zoo/resnet: convolutional network with 12 blocks, 1.3 M parameters, takes any size, nothing to fetch" in said
    )
    assert said[-4:] == [
        "all models: nothing to fetch",
        "cifar10: 2,500 images, on this machine",
        "fashion-mnist: 1,500 images, on this machine",
        "nothing is missing: `vitcnn run` can begin",
    ]
    wait = {line.partition(":")[0] for line in said if "not trained yet" in line}
    assert "zoo/vit-gap" in wait and not wait & set(trained)
    assert len(said) == len(set(said))  # a model that has several parts is told once


def test_kinds_of_models_and_where_the_zoo_stands_in(root: Path) -> None:
    said = check(root, **OURS)
    vit = next(line for line in said if line.startswith("hf-hub:small/vit:"))
    assert "transformer with 4 blocks" in vit and "takes 64 x 64 pixels, nothing to fetch" in vit
    stand_ins = [line for line in said if line.startswith("Figure")]
    assert [line.partition(" shows models of the zoo")[0] for line in stand_ins] == [
        "Figure 4 (small_series)", "Figure 4 (vit_small_data)", "Figure 8 (noskip)", "Figure 10 (vit_gap)",
        "Figure 12 (data_series)",
    ]  # fmt: skip


def test_what_is_still_to_be_fetched(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: Path) -> None:
    snapshot = next((cached / "hub" / "models--small--vit" / "snapshots").iterdir())
    shutil.copytree(snapshot, tmp_path / "served" / "small" / "vit")
    (tmp_path / "served" / "pictures" / "many").mkdir(parents=True)
    size = (snapshot / "model.safetensors").stat().st_size
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    log: list[str] = []
    with hub_server.serve(tmp_path / "served", log=log) as address:
        hub_server.redirect(monkeypatch, address)
        said = check(root, **ALONE, vit="hf-hub:small/vit", images="pictures/many")
    assert f"all models: {size / 1e6:.0f} MB to fetch" in said
    assert any(line.startswith("pictures/many: 2,500 images, on the hub") for line in said)
    assert not any(line.startswith("GET") and "model.safetensors" in line for line in log)  # it only asks how large


def test_each_problem_has_its_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "one.png")
    said = problems(
        root, **ALONE | {"vit": "zoo/vit-clss", "cnn": "resnet50000", "vit_gap": "hf-hub:small/gone"},
        images=str(tmp_path / "pictures"), transfer_images="nobody/nothing",
    )  # fmt: skip
    begins = [
        "cnn: timm has no model 'resnet50000'",
        "images: n=2500: ",
        "transfer_images: nobody/nothing is not a folder or file, and could not be fetched from the hub",
        "vit: no zoo model 'zoo/vit-clss'; did you mean zoo/vit-cls",
        "vit_gap: ",
    ]
    assert [line[: len(start)] for line, start in zip(sorted(said), begins, strict=True)] == begins


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"vit": None}, "vit: chapters need a vision transformer: name one"),
        ({"cnn": None}, "cnn: chapters need a CNN: name one"),
        ({"images": None}, "images: chapters need images that both see: name one"),
        ({"vit": "zoo/resnet"}, "vit: zoo/resnet (untrained) is a convolutional network with 12 blocks"),
        ({"noskip": ["zoo/vit-cls"]}, "noskip 1: zoo/vit-cls (untrained) has all its skip connections"),
        ({"vit_seed_2": "zoo/vit-small-data-100"}, "vit_seed_2: zoo/vit-small-data-100 (untrained) is a transformer"),
        (OURS | {"cnn": "deit_tiny_patch16_224.fb_in1k"}, "takes 224 pixels, hf-hub:small/vit (untrained) 64: no pair"),
        (OURS | {"vit": {"name": "hf-hub:small/vit", "weights": "gone.safetensors"}}, "gone.safetensors"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"sead": 1}, "no notebook has a parameter 'sead'; did you mean seed?"),
    ],
)
def test_what_does_not_fit(root: Path, values: dict[str, Any], problem: str) -> None:
    assert any(problem in line for line in problems(root, **ALONE | values))


def test_a_checkpoint_of_ones_own(root: Path, cached: Path) -> None:
    weights = next((cached / "hub" / "models--small--vit" / "snapshots").rglob("model.safetensors"))
    said = check(root, **ALONE | OURS | {"vit": {"name": "hf-hub:small/vit", "weights": str(weights)}})
    assert any(line.startswith(f"hf-hub:small/vit, {weights}: transformer with 4 blocks") for line in said)
