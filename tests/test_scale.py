"""All measures: many images in little memory, and no harm where something goes wrong."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from small_models import described, small_resnet, small_vit
from textbook import left_as_it_was, noise_images
from torch import nn

from vitcnn_utils import run
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.measures import probes
from vitcnn_utils.measures.accuracy import accuracy
from vitcnn_utils.measures.attention import attention_maps, head_distances, head_subset_similarity
from vitcnn_utils.measures.cka import layer_similarity
from vitcnn_utils.measures.localization import layer_patch_similarity
from vitcnn_utils.measures.probes import layer_probes
from vitcnn_utils.measures.receptive_field import effective_receptive_fields
from vitcnn_utils.measures.residual import skip_ratios
from vitcnn_utils.run import peak_bytes

LAYERS = ["stem", "blocks.0.attn", "blocks.2.mlp"]

MEASURES = {
    "accuracy": accuracy,
    "attention distance": head_distances,
    "attention maps": attention_maps,
    "head subsets": lambda model, images: head_subset_similarity(model, CNN, images, batch_size=12)[4],
    "layer similarity": lambda model, images: layer_similarity(model, model, images, 12, model.blocks, model.blocks),
    "token-patch similarity": lambda model, images: layer_patch_similarity(
        model, images, model.blocks[1:], batch_size=12
    ),
    "probes": lambda model, images: layer_probes(model, images, None, ["cls", "token"], shots=2, draws=1),
    "receptive fields": lambda model, images: effective_receptive_fields(model, images, LAYERS, channels=2),
    "skip ratios": skip_ratios,
}
"""Every measure that sends images through a model."""

CNN = described(small_resnet(), "small ResNet")
IMAGES = noise_images(24, classes=2)


@pytest.fixture(params=MEASURES)
def measure(request):
    return MEASURES[request.param]


def assert_close(one, other, **tolerance):
    if isinstance(one, xr.DataArray | xr.Dataset):
        xr.testing.assert_allclose(one, other, **tolerance)
        assert one.attrs == other.attrs
    else:
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), **tolerance)


# Memory runs out


def out_of_memory_above(most, seen):
    def check(module, args):
        if len(args[0]) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        seen.append(len(args[0]))

    return check


def test_where_memory_runs_out_batches_are_halved_and_the_numbers_stay(measure, vit):
    expected = measure(vit, IMAGES)
    seen = []
    vit.module.register_forward_pre_hook(out_of_memory_above(5, seen))
    with left_as_it_was(vit), left_as_it_was(CNN):
        found = measure(vit, IMAGES)
    assert max(seen) <= 5
    assert_close(found, expected, rtol=1e-3, atol=1e-5)


# Something goes wrong


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_are_named(measure, bad):
    model = described(small_vit(), "small ViT")
    block = 0 if measure is MEASURES["head subsets"] else 2
    nn.init.constant_(model.module.blocks[block].attn.qkv.bias, bad)
    what = "the logits" if measure is accuracy else rf"(\w+ \d of )?blocks\.{block}"
    with left_as_it_was(model), pytest.raises(VitcnnError, match=f"NaN or Inf in .*{what}.* of small ViT"):
        measure(model, IMAGES)


def test_an_interrupt_leaves_the_model_as_it_was(measure, vit, monkeypatch):
    calls = []
    forward = vit.module.blocks[1].forward

    def interrupted(x, *args, **kwargs):
        calls.append(x)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return forward(x, *args, **kwargs)

    monkeypatch.setattr(run, "MOST", 8)
    monkeypatch.setattr(vit.module.blocks[1], "forward", interrupted)
    with left_as_it_was(vit), left_as_it_was(CNN), pytest.raises(KeyboardInterrupt):
        [measure(vit, IMAGES) for _ in range(4)]


VIT = described(small_vit(), "small ViT")


# Many images, little memory


def peak(run):
    """Bytes of tensors and of numpy arrays that live at once, at most."""
    tracemalloc.start()
    try:
        return peak_bytes(run), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


IN_STREAMS = {
    "layer similarity": lambda images: layer_similarity(VIT, CNN, images, 16, VIT.blocks, CNN.blocks),
    "head subsets": lambda images: head_subset_similarity(VIT, CNN, images, batch_size=12)[4],
    "token-patch similarity": lambda images: layer_patch_similarity(VIT, images, VIT.blocks[:1], 16),
    "receptive fields": lambda images: effective_receptive_fields(VIT, images, ["stem"], channels=1, batch_size=16),
    "accuracy": lambda images: accuracy(VIT, images, batch_size=16),
}


@pytest.mark.parametrize("name", IN_STREAMS)
def test_four_times_as_many_images_take_no_more_memory(name):
    few, many = noise_images(32, classes=2), noise_images(128, classes=2)
    IN_STREAMS[name](few)  # what is made once, such as the notes on what a model overwrites
    (tensors, arrays), (more_tensors, more_arrays) = (peak(lambda i=i: IN_STREAMS[name](i)) for i in (few, many))
    assert more_tensors <= 1.2 * tensors  # one activation more or less, as the allocator has it
    # HSIC of each minibatch is kept, and Python's own objects come and go; the pixels alone would be twice as much.
    assert more_arrays <= arrays + 150 * 1024


@pytest.mark.parametrize(
    ("measure", "numbers", "most"),
    [
        # All ratios twice, as they are put in place, or one of the 6 branches a few times more for its median.
        (skip_ratios, 6 * 17, 0),
        # Two distances for each of the 12 heads.
        (head_distances, 2 * 3 * 4, 64 * 1024),
    ],
)
def test_what_is_kept_by_image_takes_four_bytes_a_number(measure, numbers, most):
    few, many = noise_images(64), noise_images(512)
    measure(VIT, few, 16)
    (tensors, arrays), (more_tensors, more_arrays) = (peak(lambda i=i: measure(VIT, i, 16)) for i in (few, many))
    assert more_tensors <= 1.05 * tensors
    kept = 4 * numbers * (len(many) - len(few))
    assert 0.9 * kept <= more_arrays - arrays <= 2.5 * kept + most


def test_features_of_probes_keep_to_their_share_of_memory(monkeypatch):
    images = noise_images(100, classes=2)
    features = 100 * 24 * 4 * (17 * 3)  # CLS and 16 tokens of 3 layers
    held = []

    def solved(x, labels, split, model):
        held.append(x)
        return probes.Scores(np.zeros((2, 13, 1, x.shape[1])), np.zeros((13, 1, len(split.test))))

    monkeypatch.setattr(probes, "_probe", solved)
    run = partial(layer_probes, VIT, images, None, ["cls", "token"], shots=4, draws=1, batch_size=4)
    all_at_once = peak_bytes(run)
    assert sum(x.nbytes for x in held) == features
    held.clear()
    monkeypatch.setattr(probes, "room", lambda device: features / 2)
    monkeypatch.setattr(probes, "_probe", lambda *args: (solved(*args), held.pop())[0])
    in_groups = peak_bytes(run)
    assert all_at_once > features
    assert in_groups - (all_at_once - features) <= features / 4
