"""The zoo: recipes, trainer, and the weights that ship."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_server import Fault, serve
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from vitcnn_utils import zoo
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images, load_images
from vitcnn_utils.measures.accuracy import accuracy
from vitcnn_utils.models.load import load_model
from vitcnn_utils.zoo import recipes, trainer
from vitcnn_utils.zoo.architectures import build
from vitcnn_utils.zoo.recipes import RECIPES, SHORT, Recipe

ROOT = Path(zoo.__file__).parents[2]


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """A folder of 200 training and 100 test images in the hub's schema, and a recipe of three short epochs on it."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 200), ("test", 100)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        cells = []
        for image in images:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"img": cells, "label": np.arange(count) % 10})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(recipes, "TRAINING_IMAGES", 200)
    return folder


TINY = Recipe(family="vit-small", epochs=3, batch_size=50, data_fraction=0.5)
# Everything that the full recipes may ask for.
FULL = replace(TINY, optimizer="muon", three_augment=True, mixup=0.8, cutmix=1.0, drop_path=0.1, ema_decay=0.9)


def test_training_writes_weights_card_and_log(small_cifar, tmp_path):
    path = trainer.train("zoo/tiny", TINY, small_cifar, tmp_path / "out")
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["steps"] == 12 and card["training_images"] == 100
    assert card["command"] == "vitcnn train zoo/tiny"
    log = [json.loads(line) for line in (tmp_path / "out" / "tiny.log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [4, 8, 12]
    model = load_model("zoo/vit-small-data-3", weights=path, device="cpu")
    images, labels = trainer.read_cifar10(small_cifar, "test")
    assert accuracy(model, Images("test", images.numpy(), labels.numpy())) == card["test_accuracy"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["tiny.json", "tiny.log.jsonl", "tiny.safetensors"]


@pytest.mark.parametrize(
    "recipe", [TINY, FULL, replace(FULL, family="resnet", batch_size=10)], ids=["tiny", "full", "cnn"]
)
def test_an_interrupted_run_ends_with_the_same_weights(recipe, small_cifar, tmp_path, monkeypatch):
    whole = load_file(trainer.train("zoo/tiny", recipe, small_cifar, tmp_path / "whole"))
    steps = recipe.steps // 3
    calls, augment = [], trainer.augment

    def interrupted(images, recipe):
        calls.append(1)
        if len(calls) == steps + 3:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return augment(images, recipe)

    monkeypatch.setattr(trainer, "augment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train("zoo/tiny", recipe, small_cifar, tmp_path / "parts")
    assert not (tmp_path / "parts" / "tiny.safetensors").exists()
    resumed = load_file(trainer.train("zoo/tiny", recipe, small_cifar, tmp_path / "parts"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert len(calls) == steps + 3 + 2 * steps  # the first epoch was not trained again


def test_a_training_by_another_recipe_is_not_continued(small_cifar, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer._Run, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train("zoo/tiny", TINY, small_cifar, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(recipes, "TRAINING_IMAGES", 200)
    left = tmp_path / "tiny.checkpoint.safetensors"
    before = left.read_bytes()
    with pytest.raises(VitcnnError, match=r"tiny\.checkpoint\.safetensors is of a training by another recipe"):
        trainer.train("zoo/tiny", replace(TINY, learning_rate=1e-4), small_cifar, tmp_path)
    assert left.read_bytes() == before
    trainer.train("zoo/tiny", TINY, small_cifar, tmp_path)
    assert not left.exists()


def test_one_model_is_trained_by_one_process(small_cifar, tmp_path, monkeypatch):
    augment = trainer.augment

    def meanwhile(*arguments):
        monkeypatch.setattr(trainer, "augment", augment)
        with pytest.raises(VitcnnError, match="another `vitcnn train` is at work on zoo/tiny"):
            trainer.train("zoo/tiny", TINY, small_cifar, tmp_path)
        trainer.train("zoo/other", TINY, small_cifar, tmp_path)
        return augment(*arguments)

    monkeypatch.setattr(trainer, "augment", meanwhile)
    assert trainer.train("zoo/tiny", TINY, small_cifar, tmp_path).exists()


def test_training_needs_no_package_that_only_the_book_needs():
    blocked = ["datasets", "xarray", "huggingface_hub", "anywidget", "papermill", "distributed", "matplotlib"]
    # timm itself imports huggingface_hub, if it is there.
    code = f"import sys, timm; sys.modules |= dict.fromkeys({blocked}); import vitcnn_utils.zoo.trainer"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_trained_model_is_not_trained_again(small_cifar, tmp_path, monkeypatch):
    first = trainer.train("zoo/tiny", TINY, small_cifar, tmp_path).read_bytes()
    monkeypatch.setattr(trainer, "augment", lambda *_: pytest.fail("trained again"))
    assert trainer.train("zoo/tiny", TINY, small_cifar, tmp_path).read_bytes() == first


def test_missing_data(tmp_path):
    with pytest.raises(VitcnnError, match=r"no train-\*.parquet"):
        trainer.train("zoo/vit-cls", RECIPES["zoo/vit-cls"], tmp_path, tmp_path / "out")


def test_tuning_sees_no_test_image_and_writes_down_what_it_measured(small_cifar, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(trainer, "read_cifar10", lambda folder, split: read.append(split) or original(folder, split))
    record = tmp_path / "tuning.jsonl"
    results = [trainer.tune("zoo/tiny", recipe, small_cifar, record) for recipe in (TINY, FULL)]
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [row["held_out_accuracy"] for row in rows] == results
    assert [Recipe(**row["recipe"]) for row in rows] == [TINY, FULL]
    assert set(read) == {"train"}
    assert {round(result * 20, 6) % 1 for result in results} == {0}  # shares of the 20 images held out
    assert list(tmp_path.glob("*.safetensors")) == []


original = trainer.read_cifar10


def test_cifar10_comes_from_a_folder_or_from_the_hub(small_cifar, tmp_path):
    """The hub is one on this machine; a process of its own, as the hub's client reads its address when imported."""
    repo = tmp_path / "hub" / "uoft-cs" / "cifar10" / "plain_text"
    repo.mkdir(parents=True)
    for split in ("train", "test"):
        name = f"{split}-00000-of-00001.parquet"
        shutil.copy(small_cifar / name, repo / name)

    def find(**environment):
        code = "from vitcnn_utils.zoo.trainer import *; print(len(read_cifar10(find_cifar10(), 'train')[0]))"
        environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    assert find(VITCNN_DATA=str(small_cifar), HF_ENDPOINT="http://127.0.0.1:9").stdout == "200\n"
    missing = find(HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "no CIFAR-10: not in data/cifar10" in missing.stderr.splitlines()[-1]
    with serve(tmp_path / "hub", [Fault("cifar10", 1, 503)]) as endpoint:
        found = find(HF_ENDPOINT=endpoint)
    assert found.stdout == "200\n" and "the hub answers 503; asking again in 1 s" in found.stderr
    assert find(HF_ENDPOINT="http://127.0.0.1:9").stdout == "200\n"


def test_augmentation_only_shifts_and_flips():
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    torch.manual_seed(0)
    augmented = trainer.augment(images, TINY)
    plain = trainer.normalize(images)
    padded = torch.nn.functional.pad(plain, [4] * 4)
    for i in range(8):
        candidates = [
            view
            for dy in range(9)
            for dx in range(9)
            for window in [padded[i, :, dy : dy + 32, dx : dx + 32]]
            for view in (window, window.flip(-1))
        ]
        assert any(torch.equal(augmented[i], c) for c in candidates)


def test_three_augment_leaves_greys_solarises_or_blurs():
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8)
    torch.manual_seed(0)
    augmented = trainer.three_augment(images)
    assert augmented.shape == images.shape and augmented.dtype == torch.uint8
    same = (augmented == images).flatten(1).all(1)
    grey = (augmented == augmented[..., :1]).flatten(1).all(1)
    solarised = (augmented == torch.where(images >= 128, 255 - images, images)).flatten(1).all(1)
    # A blur of noise lies closer to the mean.
    blurred = augmented.float().flatten(1).std(1) < 0.95 * images.float().flatten(1).std(1)
    kinds = torch.stack([same, grey, solarised, blurred & ~grey & ~solarised])
    assert kinds.sum(0).tolist() == [1] * 64
    assert kinds.sum(1).min() > 4


def test_the_average_of_the_weights_is_what_is_kept(small_cifar, tmp_path):
    run = trainer._Run(FULL, tmp_path / "run", "cpu")
    run.fit("tiny", *trainer.read_cifar10(small_cifar, "train"))
    last, kept = run.model.state_dict(), run.result().state_dict()
    assert kept.keys() == last.keys()
    assert not all(torch.equal(last[key], kept[key]) for key in last)


def test_operations_are_those_of_the_matrix_products():
    # One product of (1, 3072) by (3072, 10) takes 2 * 30,720 operations forward and as many backward for the weights;
    # the images need no gradient.
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    assert trainer.operations(model, torch.zeros(4, 32, 32, 3, dtype=torch.uint8)) == 4 * 30_720
    assert trainer.product_speed("cpu") > 0


@given(st.sampled_from([(0.03, 0.1), (0.1, 0.3), (0.3, 1.0)]), st.integers(0, 5))
def test_smaller_parts_of_the_training_set_are_balanced_and_lie_in_larger_ones(fractions, seed):
    labels = torch.arange(1000) % 10
    small, large = (trainer.balanced_subset(labels, fraction, seed) for fraction in fractions)
    assert set(small.tolist()) <= set(large.tolist())
    assert labels[small].bincount().tolist() == [round(fractions[0] * 100)] * 10


@pytest.mark.parametrize("recipes", [RECIPES, SHORT], ids=["full", "short"])
def test_models_that_are_compared_differ_in_one_thing_alone(recipes):
    twin = recipes["zoo/vit-cls-seed-2"]
    for fraction in (3, 10, 30):
        for name, whole in (("vit-cls", replace(twin, seed=1)), ("vit-small", recipes["zoo/vit-small-data-100"])):
            assert recipes[f"zoo/{name}-data-{fraction}"] == replace(whole, data_fraction=fraction / 100)
    for place in ("early", "middle", "late"):
        assert replace(recipes[f"zoo/vit-cls-noskip-{place}"], skipless_block=None) == replace(twin, seed=1)
    assert replace(recipes["zoo/vit-gap"], readout="token") == recipes["zoo/vit-cls"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "vgg"}, "family must be one of vit, vit-small, resnet, not 'vgg'"),
        ({"readout": "map"}, "readout must be one of token, avg, not 'map'"),
        ({"batch_size": 0}, "batch_size=0: give 1 or more, at most 50,000 a batch"),
        ({"batch_size": 60_000}, "batch_size=60000: give 1 or more, at most 50,000 a batch"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_recipes_that_cannot_be_trained(change, message):
    with pytest.raises(VitcnnError, match=message):
        replace(RECIPES["zoo/vit-cls"], **change)


def test_a_skipless_block_is_never_dropped():
    model = build(RECIPES["zoo/vit-cls-noskip-late"]).train()
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert rates[6] == 0 and rates[7] == pytest.approx(0.1)
    intact = build(RECIPES["zoo/vit-cls"])
    assert intact.blocks[6].drop_path1.drop_prob > 0


def test_a_skipless_block_is_the_block_minus_its_two_skips():
    torch.manual_seed(0)
    model = build(Recipe(family="vit-small", epochs=1, skipless_block=2)).eval()
    torch.manual_seed(0)
    intact = build(Recipe(family="vit-small", epochs=1)).eval()
    x = torch.randn(2, 65, 64)
    block = intact.blocks[2]
    y = block.attn(block.norm1(x))
    assert torch.equal(model.blocks[2](x), block.mlp(block.norm2(y)))
    assert torch.equal(model.blocks[1](x), intact.blocks[1](x))


def test_every_recipe_has_its_weights_within_the_limits():
    assert zoo.names() == list(RECIPES)
    files = [zoo.weights_path(name) for name in zoo.names()]  # each checked against its sha256
    assert sum(path.stat().st_size for path in files) <= 36e6
    assert all(zoo.card(name)["parameters"] <= 2_000_000 for name in zoo.names() if "vit" in name)


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_card_describes_the_weights_beside_it(name):
    card = zoo.card(name)
    recipe = SHORT[name]
    assert Recipe(**card["recipe"]) == recipe
    assert card["command"] == f"vitcnn train {name} --short"
    assert abs(card["test_accuracy"] - card["test_accuracy_before_fp16"]) < 0.001
    if "flops" in card:  # older cards have none
        assert 0 < card["flops"] < card["flops_of_a_product"]
    assert (card["name"], card["steps"]) == (name, recipe.steps)
    assert zoo.log(name)[-1]["step"] == recipe.steps
    state = load_file(zoo.weights_path(name))
    assert {str(t.dtype) for t in state.values()} <= {"torch.float16", "torch.int64"}
    assert sum(p.numel() for p in build(recipe).parameters()) == card["parameters"]


@pytest.mark.parametrize("name", ["zoo/vit-cls", "zoo/resnet"])
def test_the_shipped_weights_are_as_accurate_as_their_cards_say(name):
    images = load_images("cifar10")
    model = load_model(name, device="cpu")
    measured = accuracy(model, images)
    expected = zoo.card(name)["test_accuracy"]
    # The sample holds a quarter of the test images: three standard errors of a share of 2,500.
    assert abs(measured - expected) < 3 * (expected * (1 - expected) / len(images)) ** 0.5


def test_damaged_weights_are_refused(tmp_path, monkeypatch, small_cifar):
    path = trainer.train("zoo/tiny", TINY, small_cifar, tmp_path / "zoo")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    assert zoo.weights_path("zoo/tiny") == path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    zoo.weights_path.cache_clear()
    with pytest.raises(VitcnnError, match="is damaged"):
        zoo.weights_path("zoo/tiny")
    path.unlink()
    with pytest.raises(VitcnnError, match="is missing, though its card is there"):
        zoo.weights_path("zoo/tiny")
    zoo.weights_path.cache_clear()
