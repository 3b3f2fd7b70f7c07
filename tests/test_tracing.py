from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitcnn_utils.models.trace import trace, units


def traced(module, size=32):
    return trace(module.eval(), torch.zeros(1, 3, size, size))


class Net(nn.Module):
    """Two units of a kind on 8 x 8 places of 6 channels, with `forward` of the unit given."""

    def __init__(self, forward):
        super().__init__()

        class Unit(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
                self.short, self.end = nn.Conv2d(6, 6, 1), nn.Identity()

            def forward(self, x):
                return forward(self, x)

        self.stem, self.first, self.second = nn.Conv2d(3, 6, 4, 4), Unit(), Unit()

    def forward(self, x):
        return self.second(self.first(self.stem(x)))


SKIPS = {
    "a skip": (lambda u, x: x + u.a(x), ["a"]),
    "the other way round": (lambda u, x: u.a(x) + x, ["a"]),
    "in place": (lambda u, x: u.a(x).add_(x), ["a"]),
    "two": (lambda u, x: (y := x + u.a(x)) + u.b(y), ["a", "b"]),
    "two, reshaped between": (lambda u, x: (y := (x + u.a(x)).flatten(2).reshape(x.shape)) + u.b(y), ["a", "b"]),
    "an activation after": (lambda u, x: F.relu(x + u.a(x)), ["a"]),
    "a projection": (lambda u, x: u.short(x) + u.end(u.a(x)).relu(), ["a"]),
    "a projection that runs last": (lambda u, x: u.end(u.a(x)).relu().add_(u.short(x)), ["a"]),
    "a sum inside the branch": (lambda u, x: x + u.end(u.a(x) + u.b(x)), ["a"]),
    "no skip": (lambda u, x: u.b(u.a(x)), []),
    "a bias": (lambda u, x: u.a(x) + torch.ones(1, 6, 8, 8), []),
    "from nowhere near": (lambda u, x: u.b(y := u.a(x)) + y, []),
}


@pytest.mark.parametrize("name", SKIPS)
def test_which_additions_are_skips(name):
    forward, parts = SKIPS[name]
    found = units(traced(Net(forward)))
    names = [[unit.part(skip).name.partition(".")[2] for skip in unit.skips] for unit in found]
    assert names == ([parts] * 2 if parts else [])
    for unit in found:
        assert unit.skips[0].entering is unit.call.taken
        assert (unit.skips[0].shortcut is unit.call.taken) == ("projection" not in name)


def test_in_a_nest_the_outer_unit_counts():
    inner = Net(lambda u, x: x + u.a(x))

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner.first

        def forward(self, x):
            return x + self.inner(x)

    found = units(traced(nn.Sequential(inner.stem, Outer())))
    assert [type(unit.call.module) for unit in found] == [Outer]


@pytest.mark.parametrize(
    ("layers", "offset", "step"),
    [
        ([nn.Conv2d(3, 4, 3, 2, 1)], 0.5, 2),
        ([nn.Conv2d(3, 4, 16, 16)], 8, 16),
        ([nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1)], 0.5, 4),
        ([nn.Conv2d(3, 4, 3, 1, 1), nn.MaxPool2d(2), nn.AvgPool2d(2)], 2, 4),
        ([nn.ZeroPad2d(3), nn.Conv2d(3, 4, 7, 2)], 0.5, 2),
        ([nn.Conv2d(3, 4, 3, 2)], 1.5, 2),
        ([nn.Conv2d(3, 4, 3, padding="same", dilation=2), nn.BatchNorm2d(4), nn.ReLU()], 0.5, 1),
        ([nn.Conv2d(3, 4, 3, padding="valid", dilation=2)], 2.5, 1),
    ],
)
def test_where_places_lie(layers, offset, step):
    assert traced(nn.Sequential(*layers)).given.layout[:3] == (False, offset, step)


def test_channels_last():
    class Permuted(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.LayerNorm(3), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    norm, conv = traced(Permuted()).inner
    assert [value.layout.channels_last for value in (norm.taken, norm.given, conv.taken, conv.given)] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("channels", [6, 2])  # of 2 a convolution of 6 makes a crash
def test_leaves_no_trace(channels):
    module = Net(lambda u, x: u.a(x[:, :channels]))
    with nullcontext() if channels == 6 else pytest.raises(RuntimeError):
        traced(module)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert torch._C._len_torch_function_stack() == 0
