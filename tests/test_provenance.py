"""Every array says what made it, and a caption reads it there: no figure can name what its measure was not given."""

import re
import subprocess

import pytest
from small_models import described, small_resnet, small_vit
from textbook import noise_images

import vitcnn_utils as vu
from vitcnn_utils import provenance
from vitcnn_utils.images import Images
from vitcnn_utils.measures.localization import patch_patch_similarity

VIT, CNN = described(small_vit(), "small ViT"), described(small_resnet(), "small ResNet")
NOISE = noise_images(24, classes=2)
IMAGES = Images("noise", NOISE.pixels, NOISE.labels, seed=5)

DRAWN = {
    "layer similarity": lambda seed: vu.layer_similarity(VIT, CNN, IMAGES, layers_a=VIT.blocks, seed=seed),
    "head subsets": lambda seed: vu.head_subset_similarity(VIT, CNN, IMAGES, seed=seed)[4],
    "token-patch similarity": lambda seed: vu.layer_patch_similarity(VIT, IMAGES, seed=seed),
    "patch-patch similarity": lambda seed: patch_patch_similarity(IMAGES, (4, 4), seed=seed),
    "probes": lambda seed: vu.layer_probes(VIT, IMAGES, shots=2, draws=1, seed=seed),
    "receptive fields": lambda seed: vu.effective_receptive_fields(VIT, IMAGES, ["stem"], channels=2, seed=seed),
}
PLAIN = {
    "attention maps": lambda: vu.attention_maps(VIT, IMAGES),
    "head distances": lambda: vu.head_distances(VIT, IMAGES),
    "skip ratios": lambda: vu.skip_ratios(CNN, IMAGES),
    "receptive fields, exact": lambda: vu.effective_receptive_fields(VIT, IMAGES, ["stem"]),
}
MODELS = {"skip ratios": {"small ResNet"}, "patch-patch similarity": set(),
          "layer similarity": {"small ViT", "small ResNet"}, "head subsets": {"small ViT", "small ResNet"}}  # fmt: skip


def check(name, attrs):
    models = {attrs[role] for role in provenance.ROLES if role in attrs}
    assert models == MODELS.get(name, {"small ViT"})
    assert all(attrs[weights] == "unknown" for role, weights in provenance.ROLES.items() if role in attrs)
    assert (attrs["images"], attrs["n_images"], attrs["images_seed"], attrs["device"]) == ("noise", 24, 5, "cpu")
    assert attrs["commit"] == provenance.commit()


@pytest.mark.parametrize("name", DRAWN)
def test_the_seed_in_the_line_is_the_one_that_the_measure_was_given(name):
    first, second = (DRAWN[name](seed) for seed in (5, 6))
    check(name, first.attrs)
    assert (first.attrs["seed"], second.attrs["seed"]) == (5, 6)
    assert " · seed 5 · " in provenance.line(first)
    assert " · seed 5 for the images, 6 for the measure · " in provenance.line(second)


@pytest.mark.parametrize("name", PLAIN)
def test_a_measure_that_draws_nothing_has_no_seed_of_its_own(name):
    result = PLAIN[name]()
    check(name, result.attrs)
    assert "seed" not in result.attrs


def test_a_line_names_each_thing_once():
    attrs = {"model": "a", "weights": "1f", "images": "cats", "n_images": 1000, "seed": 0, "device": "cpu",
             "commit": "c0ffee"}  # fmt: skip
    first = PLAIN["head distances"]().assign_attrs(attrs)
    second = first.assign_attrs(model="b (untrained)", weights="untrained, seed 3", n_images=20)
    expected = "a (1f), b (untrained, seed 3) · 1,000 images of cats, 20 images of cats · seed 5 for the images, "
    assert provenance.line(first, first, second) == expected + "0 for the measure · cpu · commit c0ffee"


def test_the_commit_is_that_of_the_checkout_and_marks_changes(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    source = package / "provenance.py"
    source.write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    monkeypatch.setattr(provenance, "__file__", str(source))

    def commit():
        provenance.commit.cache_clear()
        return provenance.commit()

    assert commit() == "unknown"
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    clean = commit()
    assert re.fullmatch("[0-9a-f]{9}", clean)
    source.write_text("2")
    assert commit() == clean + "+"
    provenance.commit.cache_clear()
