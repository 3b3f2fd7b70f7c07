"""The zoo: recipes, trainer, and the weights that ship."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import asdict, replace
from pathlib import Path

import hub_server
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from vitcnn_utils import zoo
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.files import alone
from vitcnn_utils.images import Images, load_images
from vitcnn_utils.measures.accuracy import accuracy
from vitcnn_utils.measures.attention import head_distances
from vitcnn_utils.models.load import load_model
from vitcnn_utils.zoo import queue, recipes, trainer
from vitcnn_utils.zoo.architectures import build, near_identity
from vitcnn_utils.zoo.recipes import RECIPES, Recipe

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


TINY = Recipe(family="vit-small", epochs=3, batch_size=50, data_fraction=0.5, heads=4)
SHORT = replace(TINY, epochs=1)
# Everything that recipes may ask for.
FULL = replace(TINY, cutmix=0.5, patch_drop=0.5, mimetic=True)
CNN = replace(TINY, family="resnet", small_size=16)


def train(recipe, data, tmp_path):
    return trainer.train("zoo/tiny", recipe, data, tmp_path / "out", tmp_path / "runs")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_writes_weights_card_and_log(small_cifar, tmp_path):
    path = train(TINY, small_cifar, tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["passes"], card["steps"], card["training_images"]) == (3, 12, 100)
    assert card["command"] == "vitcnn train zoo/tiny"
    assert card["recipe"] == asdict(TINY)
    low, high = card["test_accuracy_interval"]
    assert low < card["test_accuracy"] < high
    log = [json.loads(line) for line in path.with_suffix(".log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [4, 8, 12]
    model = load_model("zoo/vit-small-data-3", weights=path, device="cpu")
    pixels, labels = (x.numpy() for x in trainer.read_cifar10(small_cifar, "test"))
    test = Images("test", pixels, labels)
    assert accuracy(model, test) == card["test_accuracy"]
    assert contents(tmp_path / "out").keys() == {"tiny.json", "tiny.log.jsonl", "tiny.safetensors"}
    assert [name for name in contents(tmp_path / "runs") if not name.endswith(".lock")] == []
    # The last row is of the weights that ship, half precision aside: (6 blocks, 4 heads), in pixels.
    distances = np.array(log[-1]["head_distances"])
    assert distances.shape == (6, 4)
    np.testing.assert_allclose(distances, head_distances(model, test)["distance"], atol=0.02)
    assert log[-1]["held_out_accuracy"] == pytest.approx(card["test_accuracy"], abs=0.03)


def train_two_epochs(recipe, data, tmp_path, monkeypatch):
    """Train, but for an interrupt in the last epoch."""
    augment, calls = trainer.augment, []

    def interrupt(images, padding):
        calls.append(1)
        if len(calls) > 2 * recipe.steps // recipe.epochs:
            raise KeyboardInterrupt
        return augment(images, padding)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "augment", interrupt)
        train(recipe, data, tmp_path)


@pytest.mark.parametrize("recipe", [FULL, CNN], ids=["vit", "cnn"])
def test_an_interrupted_run_ends_with_the_same_weights(recipe, small_cifar, tmp_path, monkeypatch):
    whole = load_file(train(recipe, small_cifar, tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train_two_epochs(recipe, small_cifar, tmp_path / "parts", monkeypatch)
    assert not (tmp_path / "parts" / "out").exists()
    resumed = load_file(train(recipe, small_cifar, tmp_path / "parts"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    logs = [(tmp_path / part / "out" / "tiny.log.jsonl").read_text().splitlines() for part in ("whole", "parts")]
    rows = [[json.loads(line) for line in log] for log in logs]
    for row in [*rows[0], *rows[1]]:
        del row["seconds"], row["cpu_seconds"]
    assert rows[0] == rows[1]


def test_an_interrupted_training_leaves_shipped_files_and_other_recipes_alone(small_cifar, tmp_path, monkeypatch):
    train(TINY, small_cifar, tmp_path)
    shipped = contents(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "augment", lambda *_: pytest.fail("trained again"))
        train(TINY, small_cifar, tmp_path)
    other = replace(TINY, seed=2)
    with pytest.raises(KeyboardInterrupt):
        train_two_epochs(other, small_cifar, tmp_path, monkeypatch)
    assert contents(tmp_path / "out") == shipped
    left = {name: content for name, content in contents(tmp_path / "runs").items() if not name.endswith(".lock")}
    assert [name.partition(".")[2] for name in sorted(left)] == ["checkpoint.safetensors", "log.jsonl"]
    path = train(replace(TINY, learning_rate=1e-4), small_cifar, tmp_path)
    assert json.loads(path.with_suffix(".json").read_text())["recipe"]["learning_rate"] == 1e-4
    after = contents(tmp_path / "out")
    assert after.keys() == shipped.keys() and all(after[name] != shipped[name] for name in shipped)
    assert {name: contents(tmp_path / "runs")[name] for name in left} == left
    train(other, small_cifar, tmp_path)
    assert {name.partition(".")[2] for name in contents(tmp_path / "runs")} == {"lock"}


def test_one_model_is_trained_by_one_process(small_cifar, tmp_path, monkeypatch):
    augment = trainer.augment

    def meanwhile(*arguments):
        monkeypatch.setattr(trainer, "augment", augment)
        with pytest.raises(VitcnnError, match="another `vitcnn train` is at work on zoo/tiny"):
            train(SHORT, small_cifar, tmp_path)
        trainer.train("zoo/other", SHORT, small_cifar, tmp_path, tmp_path / "runs")
        return augment(*arguments)

    monkeypatch.setattr(trainer, "augment", meanwhile)
    assert train(SHORT, small_cifar, tmp_path).exists()


def test_training_needs_no_package_that_only_the_book_needs():
    blocked = ["datasets", "huggingface_hub", "anywidget", "papermill", "distributed", "matplotlib"]
    # timm itself imports huggingface_hub, if it is there.
    code = f"import sys, timm; sys.modules |= dict.fromkeys({blocked}); import vitcnn_utils.zoo.trainer"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_data(tmp_path):
    with pytest.raises(VitcnnError, match=r"no train-\*.parquet"):
        trainer.train("zoo/vit-cls", TINY, tmp_path, tmp_path / "out", tmp_path / "runs")


def test_tuning_sees_no_test_image_and_writes_down_what_it_measured(small_cifar, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(trainer, "read_cifar10", lambda folder, split: read.append(split) or original(folder, split))
    record = tmp_path / "runs" / "tuning.jsonl"
    results = [trainer.tune("zoo/tiny", recipe, small_cifar, record) for recipe in (TINY, FULL)]
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert [row["held_out_accuracy"] for row in rows] == results
    assert [Recipe(**row["recipe"]) for row in rows] == [TINY, FULL]
    assert set(read) == {"train"}
    assert {round(result * 20, 6) % 1 for result in results} == {0}  # shares of the 20 images held out
    assert list(tmp_path.glob("*.safetensors")) == []


original = trainer.read_cifar10


def test_cifar10_comes_from_a_folder_or_from_the_hub(small_cifar, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    hub_server.redirect(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("VITCNN_DATA", str(small_cifar))
    assert trainer.find_cifar10() == small_cifar
    monkeypatch.delenv("VITCNN_DATA")
    with pytest.raises(
        VitcnnError,
        match=r"^no CIFAR-10: not in data/cifar10, and the hub's .* fetched \(ConnectError: .*--data",
    ):
        trainer.find_cifar10()
    shutil.copytree(small_cifar, tmp_path / "hub" / "uoft-cs" / "cifar10" / "plain_text")
    with hub_server.serve(tmp_path / "hub", [hub_server.Fault("cifar10", 1, 503)]) as endpoint:
        hub_server.redirect(monkeypatch, endpoint)
        images, _ = trainer.read_cifar10(trainer.find_cifar10(), "train")
    assert len(images) == 200
    assert "the hub answers 503; asking again in 1 s" in caplog.text
    hub_server.redirect(monkeypatch, "http://127.0.0.1:9")
    assert trainer.find_cifar10().parts[-1] == "plain_text"  # from the cache


def test_augmentation_only_shifts_and_flips():
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    torch.manual_seed(0)
    augmented = trainer.augment(images, 4)
    plain = trainer.normalize(images)
    padded = torch.nn.functional.pad(plain, [4] * 4)
    for i in range(8):
        windows = [padded[i, :, dy : dy + 32, dx : dx + 32] for dy in range(9) for dx in range(9)]
        assert any(torch.equal(augmented[i], view) for one in windows for view in (one, one.flip(-1)))


def test_patches_and_pixels_are_left_out_until_the_recipe_says(tmp_path):
    x = torch.randn(4, 3, 32, 32)
    recipe = replace(RECIPES["zoo/vit-cls"], patch_drop=0.5, cheap_until=0.75)
    run = trainer.Run("tiny", recipe, tmp_path / "run", "cpu")
    tokens = []
    run.model.blocks[0].register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[1]))
    for share in (0.0, 0.74, 0.76, 1.0):
        run.step = round(share * recipe.steps)
        run.model.train()(run.cheapen(x, recipe.is_cheap(run.step)))
    assert tokens == [33, 33, 65, 65]  # CLS and 32, or all 64, patches
    run.step = 0
    run.cheapen(x, recipe.is_cheap(run.step))
    run.model.eval()(x)  # measures see all patches at any time
    assert tokens[-1] == 65

    recipe = replace(RECIPES["zoo/resnet"], small_size=16, cheap_until=0.75)
    run = trainer.Run("tiny", recipe, tmp_path / "run", "cpu")
    sides = []
    for share in (0.0, 0.74, 0.76, 1.0):
        run.step = round(share * recipe.steps)
        sides.append(run.cheapen(x, recipe.is_cheap(run.step)).shape[-1])
    assert sides == [16, 16, 32, 32]


def test_a_share_of_the_batches_is_mixed_and_targets_are_by_area(tmp_path):
    images = torch.zeros(2, 3, 32, 32)
    images[1] = 1
    run = trainer.Run("tiny", replace(TINY, cutmix=0.5, label_smoothing=0.0), tmp_path / "run", "cpu")
    np.random.seed(0)
    mixed = 0
    for _ in range(400):
        x, target = run.mix(images.clone(), torch.tensor([0, 1]))
        torch.testing.assert_close(target[0, 1], x[0].mean())  # what came from the other image
        mixed += 0 < float(target[0, 1]) < 1
    assert 160 < mixed < 240


def test_the_factors_near_identity_have_the_product_that_was_asked_for():
    torch.manual_seed(0)
    left, right = near_identity(64, 64, noise=0.4, identity=-0.4)
    rest = left @ right.T + 0.4 * torch.eye(64)
    assert abs(float(rest.diagonal().mean())) < 0.02  # 3 standard errors: 0.4 / sqrt(64) / sqrt(64), three times
    assert float(rest.std()) == pytest.approx(0.4 / 8, rel=0.05)
    # Without noise all directions count alike, and of lower rank it is a projection.
    left, right = near_identity(64, 16, noise=0.0, identity=0.7)
    product = left @ right.T
    torch.testing.assert_close(product @ product, 0.7 * product)
    assert float(product.trace()) == pytest.approx(0.7 * 16, rel=1e-4)


def test_a_mimetic_start_makes_attention_look_near(tmp_path):
    torch.manual_seed(0)
    model = build(Recipe(family="vit-small", epochs=1, heads=1, mimetic=True))
    for block in model.blocks:
        query, key, value = block.attn.qkv.weight.detach().view(3, 64, 64)
        products = query.T @ key, block.attn.proj.weight.detach() @ value
        means = [float(product.diagonal().mean()) for product in products]
        # Standard errors of the means: 0.7 / 64 and 0.4 / 64.
        assert means == [pytest.approx(0.7, abs=0.04), pytest.approx(-0.4, abs=0.02)]
        assert all(abs(float((p - p.diagonal().diag()).mean())) < 0.005 for p in products)  # 3 of 0.7 / 8 / 64
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    distances = []
    for mimetic in (True, False):
        recipe = replace(RECIPES["zoo/vit-cls"], mimetic=mimetic)
        save_file(build(recipe).state_dict(), tmp_path / "start.safetensors")
        model = load_model("zoo/vit-cls", tmp_path / "start.safetensors", "cpu")
        distances.append(head_distances(model, Images("noise", pixels))["distance"])
    local, far = distances
    assert float(local.max()) < float(far.min())


@given(st.sampled_from([(0.03, 0.1), (0.1, 0.3), (0.3, 1.0)]), st.integers(0, 5))
def test_smaller_parts_of_the_training_set_are_balanced_and_lie_in_larger_ones(fractions, seed):
    labels = torch.arange(1000) % 10
    small, large = (trainer.balanced_subset(labels, fraction, seed) for fraction in fractions)
    assert set(small.tolist()) <= set(large.tolist())
    assert labels[small].bincount().tolist() == [round(fractions[0] * 100)] * 10


def test_models_that_are_compared_differ_in_one_thing_alone():
    vit, small, cnn = (RECIPES[f"zoo/{name}"] for name in ("vit-cls", "vit-small-data-100", "resnet"))
    for fraction in (3, 10, 30):
        for name, whole in (("vit-cls", vit), ("vit-small", small)):
            assert RECIPES[f"zoo/{name}-data-{fraction}"] == replace(whole, data_fraction=fraction / 100)
    assert RECIPES["zoo/resnet-data-10"] == replace(cnn, data_fraction=0.1)
    for place in ("early", "middle", "late"):
        assert replace(RECIPES[f"zoo/vit-cls-noskip-{place}"], skipless_block=None) == vit
    for name, changes in {
        "vit-gap": {"readout": "avg"}, "vit-cls-seed-2": {"seed": 2}, "vit-cls-nocutmix": {"cutmix": 0.0},
        "vit-cls-mimetic": {"cutmix": 0.0, "mimetic": True},
    }.items():  # fmt: skip
        assert RECIPES[f"zoo/{name}"] == replace(vit, **changes)
    assert RECIPES["zoo/vit-small-data-100-seed-2"] == replace(small, seed=2)
    assert small == replace(vit, family="vit-small", heads=small.heads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "vgg"}, "family must be one of vit, vit-small, resnet, not 'vgg'"),
        ({"readout": "map"}, "readout must be one of token, avg, not 'map'"),
        ({"batch_size": 0}, "batch_size=0: give 1 or more, at most 50,000 a batch"),
        ({"batch_size": 60_000}, "batch_size=60000: give 1 or more, at most 50,000 a batch"),
        ({"epochs": 0}, "epochs=0"),
        ({"data_fraction": 0}, "data_fraction=0: give 0.001, which is 5 images of a class, to 1"),
        ({"data_fraction": 1.5}, "data_fraction=1.5"),
    ],
)
def test_recipes_that_cannot_be_trained(change, message):
    with pytest.raises(VitcnnError, match=message):
        replace(RECIPES["zoo/vit-cls"], **change)


def test_a_skipless_block_is_the_block_minus_its_two_skips():
    torch.manual_seed(0)
    model = build(Recipe(family="vit-small", epochs=1, heads=4, skipless_block=2)).eval()
    torch.manual_seed(0)
    intact = build(Recipe(family="vit-small", epochs=1, heads=4)).eval()
    x = torch.randn(2, 65, 64)
    block = intact.blocks[2]
    y = block.attn(block.norm1(x))
    assert torch.equal(model.blocks[2](x), block.mlp(block.norm2(y)))
    assert torch.equal(model.blocks[1](x), intact.blocks[1](x))
    # An older timm has other masks, and gives its blocks no others.
    attention = model.blocks[2].attn.forward
    model.blocks[2].attn.forward = lambda x, attn_mask=None: attention(x, attn_mask)
    assert torch.equal(model.blocks[2](x, attn_mask=None), block.mlp(block.norm2(y)))


def test_the_weights_are_those_of_the_recipes_within_the_limits():
    assert zoo.names() == [name for name in RECIPES if name in zoo.names()]
    there = {path.name.partition(".")[0] for path in zoo.FOLDER.iterdir()}
    assert {f"zoo/{name}" for name in there} == set(zoo.names())
    files = [zoo.weights_path(name) for name in zoo.names()]  # each checked against its sha256
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert all(zoo.card(name)["parameters"] <= 2_000_000 for name in zoo.names() if "vit" in name)


def test_models_of_one_letter_were_trained_alike(tmp_path, monkeypatch):
    old = {"family": "vit", "epochs": 15, "cutmix": 0.0, "ema_decay": 0.0}  # a recipe of fewer, and of other, words
    vit, small = RECIPES["zoo/vit-cls"], RECIPES["zoo/vit-small-data-3"]
    made = {"vit-cls": old, "vit-gap": {**old, "epochs": 2}, "vit-cls-seed-2": {**old, "seed": 2}}
    made |= {"vit-cls-nocutmix": asdict(replace(vit, cutmix=0.0)), "vit-small-data-3": asdict(small)}
    for name, recipe in made.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"recipe": recipe}))
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    assert zoo.trainings() == {
        "zoo/vit-cls": "A, 15 passes", "zoo/vit-gap": "B, 2 passes", "zoo/vit-cls-seed-2": "A, 15 passes",
        "zoo/vit-small-data-3": f"C, {vit.epochs} passes", "zoo/vit-cls-nocutmix": f"C, {vit.epochs} passes",
    }  # fmt: skip


@pytest.mark.parametrize("name", zoo.names())
def test_a_card_describes_the_weights_beside_it(name):
    card = zoo.card(name)
    assert card["name"] == name
    assert card["steps"] == card["recipe"]["epochs"] * 50_000 // card["recipe"]["batch_size"]
    assert zoo.log(name)[-1]["step"] == card["steps"]
    # What tells the models apart is the same in cards of older recipes.
    recipe = asdict(RECIPES[name])
    for key in ("family", "readout", "skipless_block", "data_fraction", "seed"):
        assert card["recipe"][key] == recipe[key]
    if trainer.is_trained(name, RECIPES[name], zoo.FOLDER):
        assert card["recipe"] == recipe and card["commit"] != "unknown"
        assert card["test_accuracy_interval"] == pytest.approx(trainer.wilson_interval(card["test_accuracy"], 10_000))
    state = load_file(zoo.weights_path(name))
    assert {str(t.dtype) for t in state.values()} <= {"torch.float16", "torch.int64"}
    assert sum(p.numel() for p in build(RECIPES[name]).parameters()) == card["parameters"]


@pytest.mark.parametrize(
    ("hits", "images", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, 857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_that_of_the_textbook(hits, images, low, high):
    assert trainer.wilson_interval(hits / images, images) == pytest.approx((low, high), abs=5e-5)


def test_the_queue_takes_what_has_no_card_of_its_recipe_in_order(tmp_path, monkeypatch, capfd):
    """Trainings are stood in for by processes that note their name; one fails, and the others go on."""
    out = tmp_path / "out"
    out.mkdir()
    first, second, third, *rest = RECIPES
    for name in (second, *rest[1:]):
        (out / f"{name.removeprefix('zoo/')}.json").write_text(json.dumps({"recipe": asdict(RECIPES[name])}))
    (out / f"{third.removeprefix('zoo/')}.json").write_text(json.dumps({"recipe": {"family": "an older one"}}))
    started = tmp_path / "started"

    def start(name, *_):
        code = f"open({str(started)!r}, 'a').write({name!r} + ' ')" + ("; 1 / 0" if name == third else "")
        return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)

    monkeypatch.setattr(queue, "_start", start)
    monkeypatch.setattr(queue, "lowest_priority", lambda: None)
    with pytest.raises(VitcnnError, match=f"not trained, see above: {third}$"):
        queue.train_all(tmp_path, out, tmp_path / "runs", "cpu")
    assert started.read_text().split() == [first, third, rest[0]]


@pytest.mark.skipif(sys.platform == "win32", reason="an interrupt cannot be sent to one process there")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_queue_that_is_stopped_stops_its_trainings(sent, small_cifar, tmp_path, monkeypatch):
    """The queue runs in this process. The first that it starts is a training, the second is stood in for."""
    out, runs = tmp_path / "out", tmp_path / "runs"
    original_start, started, slowed = queue._start, [], []

    def start(name, *arguments):
        idle = [sys.executable, "-c", "import time; time.sleep(60)"]
        real = not started and sent == signal.SIGTERM
        started.append(original_start(name, *arguments) if real else subprocess.Popen(idle))
        if sent == signal.SIGINT and len(started) == 2:
            signal.raise_signal(sent)  # before the queue has noted the training
        return started[-1]

    def stop_when_both_are_at_work(seconds):
        if sent == signal.SIGTERM and list(runs.glob("*.lock")):
            signal.raise_signal(sent)
        time.sleep(0.1)

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(queue, "_start", start)
    monkeypatch.setattr(queue, "time", types.SimpleNamespace(sleep=stop_when_both_are_at_work))
    monkeypatch.setattr(queue, "lowest_priority", lambda: slowed.append(1))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            queue.train_all(small_cifar, out, runs, "cpu", jobs=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert slowed and len(started) == 2
    assert all(process.poll() is not None for process in started)
    for lock in runs.glob("*.lock"):
        with alone(lock, "still at work"):
            pass
    assert not out.exists() or list(out.iterdir()) == []


def test_the_queue_lets_all_others_go_first(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "nice", asked.append, raising=False)
    monkeypatch.setattr(queue, "Path", lambda _: tmp_path / "autogroup")
    queue.lowest_priority()
    assert (asked, (tmp_path / "autogroup").read_text()) == ([19], "19")


@pytest.mark.parametrize("name", ["zoo/vit-cls", "zoo/resnet"])
def test_the_shipped_weights_are_as_accurate_as_their_cards_say(name):
    images = load_images("cifar10", n=600)
    model = load_model(name, device="cpu")
    measured = accuracy(model, images)
    expected = zoo.card(name)["test_accuracy"]
    # Three standard errors of a share of so many images.
    assert abs(measured - expected) < 3 * (expected * (1 - expected) / len(images)) ** 0.5
