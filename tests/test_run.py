"""Images through a model: batches that fit in memory, what happens where they do not, and minibatches."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from textbook import noise_images
from torch import nn

from vitcnn_utils import run
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.run import (
    Pace,
    attempt,
    each_batch,
    free_memory,
    is_out_of_memory,
    minibatches,
    peak_bytes,
    reduce_whole,
)


def fits(most):
    """A step that has memory for so many only, and gives what it worked on."""

    def step(part):
        if part.stop - part.start > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return list(range(part.start, part.stop))

    return step


# Halves


@given(count=st.integers(0, 60), size=st.integers(1, 70), most=st.integers(1, 70))
def test_everything_once_in_order_in_parts_that_fit(count, size, most):
    parts = list(Pace(size, "things").over(count, fits(most)))
    assert [i for part in parts for i in part] == list(range(count))
    assert all(len(part) <= min(size, most) for part in parts)


def test_what_is_done_is_not_done_again_and_smaller_parts_stay():
    calls = []
    room = iter([8, 8, 3, 3, 3, 3, 3, 3])

    def step(part):
        calls.append((part.start, part.stop))
        return fits(next(room))(part)

    pace = Pace(8, "things")
    assert [len(part) for part in pace.over(20, step)] == [8, 8, 2, 2]
    # The third part has 4, which do not fit, and is begun again in halves.
    assert calls == [(0, 8), (8, 16), (16, 20), (16, 18), (18, 20)]
    assert pace.size == 2


def test_not_even_one_fits(vit, noise):
    with pytest.raises(VitcnnError, match="no memory for even one of the things: take smaller images or models"):
        list(Pace(8, "things").over(8, fits(0)))

    def no_memory(x):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(VitcnnError, match="even one of the images through small ViT on cpu"):
        list(each_batch(vit, noise, None, no_memory))


@pytest.mark.parametrize("error", [
    torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError("CUDA error: out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"), MemoryError(),
])  # fmt: skip
def test_errors_that_say_that_memory_ran_out(error):
    assert is_out_of_memory(error)
    assert attempt(lambda: torch.empty(1 << 50)) == []  # really more than the host has


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), VitcnnError("x")])
def test_other_errors_pass(error):
    def step(part):
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error)):
        list(Pace(8, "things").over(8, step))


def test_what_a_failed_step_had_made_is_free_when_it_is_begun_again():
    made = []

    def step(part):
        assert [ref() for ref in made] == [None] * len(made)
        tensor = torch.zeros(3)
        made.append(weakref.ref(tensor))
        return fits(2)(part)

    assert len(list(Pace(8, "things").over(8, step))) == 4
    assert len(made) == 6


# As many as fit


@pytest.mark.parametrize(("room", "expected"), [(10, 5), (1000, 64), (1, 1)])
def test_as_many_as_half_of_the_memory_holds(vit, monkeypatch, room, expected):
    images = noise_images(70)
    image = 3 * 32 * 32 * 4
    monkeypatch.setattr(run, "peak_bytes", lambda probe: probe() and image)
    monkeypatch.setattr(run, "free_memory", lambda device: room * image)
    sizes = list(each_batch(vit, images, None, len))
    assert sizes[0] == expected
    assert sum(sizes) == 70


def test_batches_are_prepared_and_in_order(vit):
    images = noise_images(9)
    found = list(each_batch(vit, images, 4, lambda x: x))
    assert [len(x) for x in found] == [4, 4, 1]
    assert torch.equal(torch.cat(found), vit.prepare(torch.from_numpy(images.pixels)))
    for size in (0, -3):
        with pytest.raises(VitcnnError, match=f"batch_size={size}: give 1 or more, or None"):
            list(each_batch(vit, images, size, len))


# Memory that can be counted


def test_peak_of_a_chain_is_what_lives_at_once():
    weight = torch.ones(1 << 10)

    def chain():
        x = weight + 1  # 4 KiB
        for _ in range(5):
            x = x.view(2, -1).flatten() * 2  # the old one dies when the new one is there; views are no memory
        return (x + weight[:512].repeat(2)).sum()  # 12 KiB: x, the repetition, their sum

    assert peak_bytes(chain) == 3 * 4096


def test_weights_are_not_counted_and_graphs_are():
    linear = nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)])
    x = torch.zeros(16, 64)
    one = x.nbytes

    def forward():
        linear(x)

    with torch.no_grad():
        assert peak_bytes(forward) == 2 * one
    held = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(8)])
    assert peak_bytes(lambda: held(x)) >= 8 * one


def test_a_container_has_what_its_limit_leaves(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    assert 1 << 24 < free_memory(cpu) < 1 << 44
    monkeypatch.setattr(run, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=60 << 10))
    assert free_memory(cpu) == 60 << 10
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.stat").write_text("anon 10000\nfile 30000\n")
    assert free_memory(cpu) == 60 << 10
    (group / "memory.max").write_text("50000\n")
    assert free_memory(cpu) == 40000


# Minibatches


@pytest.mark.parametrize(("n", "size", "expected"), [(10, 10, [10]), (11, 10, [6, 5]), (257, 256, [129, 128]),
                                                     (9, 4, [5, 4]), (7, 4, [7])])  # fmt: skip
def test_every_image_once_in_batches_of_nearly_one_size(n, size, expected):
    images = noise_images(n, size=2)
    batches, again, other = (list(minibatches(images, size, seed, "")) for seed in (0, 0, 1))
    assert [len(b) for b in batches] == expected
    seen = np.concatenate([b.numpy() for b in batches])
    assert sorted(map(bytes, seen)) == sorted(map(bytes, images.pixels))
    assert torch.equal(torch.cat(batches), torch.cat(again))
    assert not torch.equal(torch.cat(batches), torch.cat(other))


# Minibatches that are seen as a whole


def copy(name, activation):
    return activation.clone()


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("size", [1, 4, 9, 10])
def test_parts_are_put_together(name, size, request):
    model = request.getfixturevalue(name)
    pixels = torch.from_numpy(noise_images(10).pixels)
    expected = model.reduce(model.prepare(pixels), model.layers, copy)
    found = reduce_whole(model, pixels, model.layers, copy, Pace(size, "images"))
    assert list(found) == list(expected)
    for layer, activation in found.items():
        torch.testing.assert_close(activation, expected[layer], rtol=1e-3, atol=1e-4)


def test_layers_share_a_run_as_far_as_there_is_room(vit, monkeypatch):
    pixels = torch.from_numpy(noise_images(10).pixels)
    block = 10 * 17 * 24 * 4  # bytes of the activation of a block
    runs = []  # how many images go through the model, run by run
    vit.module.register_forward_pre_hook(lambda module, args: runs.append(len(args[0])))
    for room, groups in ((3, 1), (2, 2), (1, 3), (0.1, 3)):
        monkeypatch.setattr(run, "free_memory", lambda device, room=room: 4 * room * block)
        reduce_whole(vit, pixels, vit.blocks, copy, Pace(5, "images"))
        assert runs == [1, *[5, 5] * groups]
        runs.clear()
    reduce_whole(vit, pixels, vit.blocks, copy, Pace(10, "images"))
    assert runs == [10]  # the whole fits


def test_a_minibatch_that_turns_out_not_to_fit_goes_in_halves(vit):
    def no_more_than(module, args):
        if len(args[0]) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    pixels = torch.from_numpy(noise_images(10).pixels)
    expected = vit.reduce(vit.prepare(pixels), vit.blocks, copy)
    vit.module.register_forward_pre_hook(no_more_than)
    pace = Pace(10, "images")
    found = reduce_whole(vit, pixels, vit.blocks, copy, pace)
    assert pace.size == 2
    for name, activation in expected.items():
        torch.testing.assert_close(found[name], activation)


def test_a_layer_that_has_no_room_as_a_whole(vit, noise, monkeypatch):
    empty = torch.empty

    def no_more_than(*size, **options):
        if size[0] == 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", no_more_than)
    with pytest.raises(VitcnnError, match=r"blocks\.0 of small ViT does not fit.*minibatch of 10.*smaller batch_size"):
        reduce_whole(vit, torch.from_numpy(noise.pixels), vit.blocks, copy, Pace(5, "images"))
