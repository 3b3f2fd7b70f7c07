"""scripts/train_side_by_side.py, on the CPU: its steps are those of the trainer."""

import copy
import json
import pickle
import sys
from concurrent.futures import Future
from dataclasses import replace

import pytest
import timm.optim.muon as timm_muon
import torch
from test_zoo import CNN, FULL, ROOT, TINY, small_cifar  # noqa: F401  # a fixture
from timm.data.mixup import mixup_target

from vitcnn_utils.models.load import load_model
from vitcnn_utils.zoo import trainer


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import train_side_by_side

    monkeypatch.setattr(timm_muon, "muon", timm_muon.muon)  # put back what the script replaces
    return train_side_by_side


class Given:
    """In place of timm's Mixup: a box and a share that are given."""

    def __init__(self, box, share, smoothing):
        self.box, self.share, self.smoothing = box, share, smoothing

    def __call__(self, x, labels):
        top, bottom, left, right = self.box
        x[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
        return x, mixup_target(labels, 10, self.share, self.smoothing)


def same_draws(monkeypatch, plan, i):
    """Have the trainer draw the shifts, mirrors and patches of step i of a plan."""
    kept = plan["patches"][i].long() if "patches" in plan else None
    monkeypatch.setattr(torch, "randint", lambda *_: torch.stack([plan["dy"][i], plan["dx"][i]])[..., None])
    monkeypatch.setattr(torch, "rand", lambda *_: 1.0 - plan["mirrored"][i].float()[:, None])
    # timm keeps the patches of the least numbers, in their order.
    order = torch.arange(32.0).expand(50, 32)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.full((50, 64), 99.0).scatter_(1, kept, order))


@pytest.mark.parametrize(
    "recipe", [FULL, CNN, replace(FULL, readout="avg", skipless_block=1)], ids=["vit", "cnn", "gap"]
)
def test_a_step_is_that_of_the_trainer(recipe, script, small_cifar, tmp_path, monkeypatch):  # noqa: F811
    recipe = replace(recipe, cutmix=0.5)
    images, labels = trainer.read_cifar10(small_cifar, "train")
    ours = script.GraphRun("zoo/tiny", recipe, tmp_path / "a", "cpu", images, labels)
    theirs = trainer.Run("zoo/tiny", recipe, tmp_path / "b", "cpu")
    start = copy.deepcopy(theirs.model.state_dict())
    ours.record()
    assert all(torch.equal(value, start[key]) for key, value in ours.model.state_dict().items())
    plan = {key: torch.from_numpy(value) for key, value in script.draw(recipe, 0, 0, 4, len(labels)).items()}
    assert (plan["share"] < 1).any() and (plan["share"] == 1).any()
    ours.plan = plan
    ours.at.zero_()
    theirs.model.train()
    batched = script.muon
    for i in range(4):
        share = float(plan["share"][i])
        theirs.mix = Given(plan["box"][i].tolist(), share, recipe.label_smoothing)
        batch = plan["images"][i]
        with monkeypatch.context() as patch:
            same_draws(patch, plan, i)
            loss, hits = theirs._optimize(trainer.augment(images[batch], recipe.crop_padding), labels[batch])
        ours.loss_sum.zero_()
        ours.hits.zero_()
        with monkeypatch.context() as patch:
            patch.setattr(timm_muon, "muon", batched)
            ours.body(True)
        assert ours.loss_sum.item() == pytest.approx(loss.item(), abs=2e-3) and abs(ours.hits - hits) <= 1
        if i == 0:  # later steps are in bfloat16 of weights that rounding has made others
            for key, value in ours.model.state_dict().items():
                torch.testing.assert_close(value, theirs.model.state_dict()[key], atol=1e-6, rtol=1e-5)
    assert ours.rate.item() == pytest.approx(theirs.optimizer.param_groups[0]["lr"])


class Inline:
    """In place of a pool of processes: whatever is asked is done at once, in this process."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, call, *arguments):
        call, arguments = pickle.loads(pickle.dumps((call, arguments)))  # as on the way to another process
        future = Future()
        future.set_result(call(*arguments))
        return future


def test_models_train_side_by_side_and_go_on_from_a_checkpoint(script, small_cifar, tmp_path, monkeypatch):  # noqa: F811
    recipes = {"zoo/vit-tiny": replace(FULL, mimetic=False), "zoo/vit-other": replace(TINY, seed=2)}
    monkeypatch.setattr(script, "find_recipe", recipes.get)
    keep, kept = script.GraphRun.keep, []

    def interrupt(run, tensors):
        keep(run, tensors)
        kept.append(run.name)
        if len(kept) == 3:
            raise KeyboardInterrupt

    def main(folder):
        options = {"--data": small_cifar, "--device": "cpu", "--out": folder / "out", "--runs": folder / "runs"}
        monkeypatch.setattr(sys, "argv", ["x", *recipes, *(str(one) for pair in options.items() for one in pair)])
        script.main()

    monkeypatch.setattr(script, "ProcessPoolExecutor", Inline)
    main(tmp_path / "whole")
    monkeypatch.setattr(script.GraphRun, "keep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(tmp_path / "parts")
    assert not (tmp_path / "parts" / "out").exists()
    monkeypatch.setattr(script.GraphRun, "keep", keep)
    main(tmp_path / "parts")
    for name in recipes:
        stem = name.removeprefix("zoo/")
        whole, card = (
            json.loads((tmp_path / part / "out" / f"{stem}.json").read_text()) for part in ("whole", "parts")
        )
        assert card["sha256"] == whole["sha256"] and card["steps"] == 12
        assert card["command"] == f"python scripts/train_side_by_side.py {name}"
        log = (tmp_path / "parts" / "out" / f"{stem}.log.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in log]
        assert [row["step"] for row in rows] == [4, 8, 12] and all("head_distances" in row for row in rows)
        weights = tmp_path / "parts" / "out" / f"{stem}.safetensors"
        assert load_model("zoo/vit-small-data-3", weights=weights, device="cpu").blocks
    monkeypatch.setattr(script, "GraphRun", lambda *_: pytest.fail("trained again"))
    main(tmp_path / "parts")


def test_bad_input_gets_one_line(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "zoo/vit-clss", "--data", str(tmp_path), "--device", "cpu"])
    with pytest.raises(SystemExit, match=r"no zoo model 'zoo/vit-clss'.*zoo/vit-cls"):
        script.main()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["x", "zoo/vit-cls", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        script.main()
    assert "there is no CUDA GPU here: use `vitcnn train`" in capsys.readouterr().err
