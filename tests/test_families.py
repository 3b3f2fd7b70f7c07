"""Every measure on a model of every family: it works, or is refused by name with the reason (see families.py)."""

import json
import re

import numpy as np
import pytest
import torch
from families import FAMILIES, FURTHER, MEASURES, TABLE, UNSUPPORTED, Family, load, outcomes, row, why_not
from small_models import attention_in
from textbook import left_as_it_was, noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures import residual
from vitcnn_utils.models.facts import Branch, Model
from vitcnn_utils.models.load import load_model

SCALE = re.compile(r"(^|\.)(gamma(_?\d)?|ls\d|layer_scale\d\.scale)$")
SCALED = {"DeiT-III", "BEiT", "NaFlexViT", "DINOv2", "DINOv2, registers", "DINOv3", "CaiT", "XCiT", "PoolFormer",
          "ResMLP", "ConvNeXt", "ViT, relative positions", "ViT, registers", "ViT, attention beside MLP",
          "ViT, parts in pairs"}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.title)
def family(request) -> Family:
    return request.param


@pytest.fixture(scope="module")
def model(family) -> Model:
    return load(family)


@pytest.fixture(scope="module")
def found(model):
    with left_as_it_was(model):
        return outcomes(model)


@pytest.fixture
def x(model) -> torch.Tensor:
    return model.prepare(torch.from_numpy(noise_images(2, model.image_size[0]).pixels))


def read(model: Model, x: torch.Tensor, branches: list[Branch]) -> list[list[torch.Tensor]]:
    """Of each branch, what the skip adds, the branch and their sum, on one shape; all from one pass."""
    taps = [tap for branch in branches for tap in (branch.shortcut, branch.branch, branch.sum)]
    with torch.no_grad(), model.reading(taps) as values:
        model.module(x)
    # In a Swin the stream is now a map, now a row of tokens.
    same = [value if model.grid else model.spatial(value) for value in values]
    return [same[i : i + 3] for i in range(0, len(same), 3)]


def assert_near(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


# The table


def test_the_table_of_the_book_is_what_was_measured(family, model, found):
    rows = {one["family"]: one for one in json.loads(TABLE.read_text(encoding="utf-8"))}
    assert list(rows) == [one.title for one in FAMILIES], "run `python tests/families.py`"
    assert rows[family.title] == row(family, model, found), "run `python tests/families.py`"


def test_what_is_refused_lacks_a_fact_or_is_listed(family, model, found):
    refused = {name for name, outcome in found.items() if outcome.refusal}
    lacks = set() if model.attentions else {"attention distance"}
    lacks |= set() if model.branches else {"skip ratios", "removal of a skip"}
    listed = {measure for measure, title in UNSUPPORTED if title == family.title}
    assert refused == lacks | listed
    works = set(MEASURES) - refused - {"removal of a skip"}
    for name in refused:
        pattern = r".* has no .*, which .* needs; what works with it: (.*)"
        said = re.fullmatch(pattern, found[name].refusal).group(1).replace(" of layers you name", "")
        assert set(said.split(", ")) == works


@pytest.mark.parametrize("name", FURTHER)
def test_further_families_are_supported_or_refused_for_the_reason_that_is_listed(name):
    size, why = FURTHER[name]
    further = load_model(name, "untrained", "cpu", image_size=size)
    assert why_not(further) == why
    if not why:
        return
    refused = r"has no .*, which skip ratios needs; what works with it: (layer sim.*)"
    with pytest.raises(VitcnnError, match=refused) as caught:
        further.require("residual stream", "skip ratios")
    works = re.search(refused, str(caught.value)).group(1)
    last = (further.blocks or further.layers)[-1]
    value = further.record(further.prepare(torch.zeros(1, size, size, 3, dtype=torch.uint8)), [last])[last.name]
    if "linear probes" in works:
        assert further.spatial(value).shape[1:3] == last.grid
    else:
        with pytest.raises(VitcnnError, match=f"has no grid .*{works}"):
            further.spatial(value)


# What the measures give


def test_layer_similarity(model, found):
    maps = found["layer similarity"].value
    names = [layer.name for layer in model.layers]
    assert maps.layer_a.values.tolist() == maps.layer_b.values.tolist() == names
    np.testing.assert_allclose(np.diag(maps), 1, rtol=1e-5)
    assert np.isfinite(maps).all()
    assert len(set(names)) == len(names)


def test_attention_distance(model, found):
    distances = found["attention distance"].value
    if distances is None:
        return
    assert distances.sizes["block"] == len(model.attentions) == len(model.blocks)
    for values in distances.values():
        assert np.isfinite(values).all()
    assert (distances.distance > 0).all()
    assert (distances.distance < model.image_size[0]).all()
    assert ((distances.prefix_mass > 0) == (model.prefix_tokens > 0)).all()


def test_effective_receptive_fields(model, found):
    maps = found["effective receptive fields"].value
    names = ["stem", *(branch.name for branch in model.branches)] if model.branches else [model.layers[-1].name]
    assert maps.layer.values.tolist() == names
    assert maps.shape[1:] == model.image_size
    assert np.isfinite(maps).all()
    # One channel of an image, behind a ReLU, may be at rest.
    assert (maps.sum(("y", "x")) > 0).mean() >= 0.5
    assert (maps.centre_y < model.image_size[0]).all()
    assert (np.diff(maps.depth) > 0).all()


def test_skip_ratios(model, found):
    ratios, moved = found["skip ratios"].value, found["removal of a skip"].value
    assert (ratios is None) == (moved is None)
    if ratios is None:
        return
    tokens = model.prefix_tokens + model.grid[0] * model.grid[1] if model.grid else 1
    assert ratios.sizes["token"] == tokens
    for branch in model.branches:
        for values in ratios.sel(block=branch.block, branch=branch.kind).data_vars.values():
            assert np.isfinite(values).all()
    assert (ratios.part != "spatial").sum() == model.prefix_tokens
    assert np.isfinite(moved).all() and (moved > 0).all()


def test_layer_patch_similarity(model, found):
    maps = found["token-patch similarity"].value
    assert maps.dims == ("layer", "row", "col", "patch_row", "patch_col")
    assert np.isfinite(maps).all()
    assert model.grid in (None, maps.shape[1:3])


def test_linear_probes(model, found):
    accuracy = found["linear probes"].value.accuracy
    expected = {"mean", "token"} | ({"first token"} if model.grid else set())
    expected |= {"cls", "mean with cls"} if "CLS" in model.prefix_names else set()
    assert set(accuracy.readout.values) == expected
    assert ((accuracy >= 0) & (accuracy <= 1)).all()


# The facts that they rest on


def test_each_token_has_its_place(family, model, x):
    # A pixel changed, the stem changes in the token of its patch only.
    assert (model.prefix_tokens, model.grid) == (family.prefix_tokens, family.grid)
    if model.grid is None:
        return
    assert model.patch_size * model.grid[0] == model.image_size[0]
    row, column = model.grid[0] - 1, 1
    changed = x.clone()
    changed[:, :, row * model.patch_size + 3, column * model.patch_size + 5] += 1
    before, after = (model.record(images, model.layers[:1])["stem"] for images in (x, changed))
    assert before.shape[1] == model.prefix_tokens + model.grid[0] * model.grid[1]
    change = (after - before).norm(dim=-1).sum(0)
    assert change.argmax() == model.prefix_tokens + row * model.grid[1] + column
    assert (change > 0).sum() == 1 or family.title == "XCiT"  # whose patches overlap


def test_shortcut_and_branch_make_the_sum(model, x):
    for z, f, total in read(model, x, model.branches):
        after_activation = torch.equal(total, total.relu())
        torch.testing.assert_close(total, (z + f).relu() if after_activation else z + f)
        assert f.abs().max() > 1e-3 * z.abs().max()


def test_without_a_skip_the_branch_is_all(model, x):
    blocks = {branch.block for branch in model.branches}
    for branch in model.branches:
        if branch.block in (min(blocks), max(blocks)):
            with residual.without_skip(model, branch.block, branch.kind):
                ((_, f, total),) = read(model, x, [branch])
            assert_near(total, f.relu() if torch.equal(total, total.relu()) else f)


def test_layer_scale_belongs_to_the_branch(family, model, x):
    scales = {name: p for name, p in model.module.named_parameters() if SCALE.search(name)}
    assert bool(scales) == (family.title in SCALED)
    if not scales:
        return
    before = {name: p.detach().clone() for name, p in scales.items()}
    with torch.no_grad():
        for p in scales.values():
            p.zero_()
        for z, f, total in read(model, x, model.branches):
            assert f.abs().max() == 0
            assert torch.equal(z, total)
        for name, p in scales.items():
            p.copy_(before[name])


def test_weights_are_those_of_attention_that_is_not_fused(model, found, x):
    if found["attention distance"].refusal:
        return
    for block, module in enumerate(model.attentions):
        fused, expected = module.fused_attn, []
        module.fused_attn = False
        handle = module.attn_drop.register_forward_hook(lambda m, args, out, kept=expected: kept.append(out))
        layer = model.layer(f"blocks.{block}.attn")
        output = model.record(x, [layer])[layer.name]
        handle.remove()
        module.fused_attn = fused
        weights, values = attention_in(model, x, block)
        torch.testing.assert_close(weights, expected[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), rtol=1e-4, atol=0)
        assert weights.std() > 1e-3
        heads = (weights @ values).transpose(1, 2).flatten(2)
        with torch.no_grad():
            assert_near(module.proj(module.norm(heads) if hasattr(module, "norm") else heads), output)
