"""What all explorers share: packed arrays, checked state, and what is there without scripts."""

import json
import subprocess
import sys

import numpy as np
import pytest
import traitlets
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import base
from vitcnn_utils.explorers.base import Explorer, pack, quantize
from vitcnn_utils.plots import style

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def unpack(header, data):
    """What `arrays(model)` of kit.js does."""
    found = {}
    for name, place in header.items():
        count = int(np.prod(place["shape"]))
        codes = np.frombuffer(data, "<" + place["type"], count, place["offset"]).reshape(place["shape"])
        if "step" in place:
            none = np.iinfo(codes.dtype).max
            codes = np.where(codes == none, np.nan, place["low"] + place["step"] * codes.astype(np.float64))
        found[name] = codes
    return found


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=NUMBERS), st.sampled_from([8, 16]))
def test_a_quantized_value_is_within_half_a_step(values, bits):
    stored = quantize(values, bits=bits)
    assert stored.codes.shape == values.shape
    assert np.abs(stored.values - values).max() <= stored.error * (1 + 1e-6) + 1e-9
    assert stored.values.min() == pytest.approx(values.min(), abs=1e-6)


def test_what_has_no_value_stays_without_one():
    stored = quantize([0.0, np.nan, 1.0, np.inf, -np.inf])
    np.testing.assert_array_equal(np.isnan(stored.values), [False, True, False, True, True])
    assert np.isnan(quantize([np.nan, np.nan]).values).all()


def test_values_beyond_the_ends_become_the_ends():
    np.testing.assert_allclose(quantize([-1, 0.5, 2], 0, 1).values, [0, 0.5, 1], atol=1 / 508)


def test_packed_arrays_come_back():
    rng = np.random.default_rng(0)
    arrays = {
        "picture": rng.integers(0, 256, (3, 5), dtype=np.uint8),
        "map": quantize(rng.random((2, 3, 4)), 0, 1),
        "fine": quantize(rng.random(7), 0, 1, bits=16),
        "plain": rng.random((2, 2)),
    }
    header, data = pack(arrays)
    assert all(place["offset"] % 4 == 0 for place in header.values())
    found = unpack(json.loads(json.dumps(header)), data)
    np.testing.assert_array_equal(found["picture"], arrays["picture"])
    np.testing.assert_array_equal(found["map"], arrays["map"].values)
    np.testing.assert_array_equal(found["fine"], arrays["fine"].values)
    np.testing.assert_array_equal(found["plain"], arrays["plain"].astype(np.float32))


class Toy(Explorer):
    """One number, one word."""

    kind = "similarity"  # any script will do
    row = traitlets.Int(0).tag(sync=True, state=True)
    mode = traitlets.Unicode("a").tag(sync=True, state=True)

    def __init__(self):
        super().__init__({"x": np.zeros(2)}, {"row": np.int64(3), "mode": ["a", "b"]}, {"row": 1})

    def sentence(self):
        return f"Row {self.row} & mode <{self.mode}>"

    @style.styled
    def still(self):
        drawing, axes = style.panels(1, 1)
        axes[0, 0].plot([0, self.row])
        return drawing


def test_state_is_checked():
    toy = Toy()
    assert (toy.row, toy.mode, sorted(toy.state_names)) == (1, "a", ["mode", "row"])
    seen = []
    toy.observe(lambda event: seen.append(event.new), "row")
    toy.row = 2
    with pytest.raises(VitcnnError, match="row must be from 0 to 2, not 3"):
        toy.row = 3
    with pytest.raises(VitcnnError, match="mode must be one of a, b, not 'c'"):
        toy.mode = "c"
    with pytest.raises(traitlets.TraitError):
        toy.row = "first"
    assert (toy.row, toy.mode, seen) == (2, "a", [2])


def test_two_explorers_keep_their_state_apart():
    one, other = Toy(), Toy()
    link = traitlets.link((one, "row"), (other, "row"))
    one.row = 0
    assert other.row == 0
    link.unlink()
    one.row = 2
    assert other.row == 0


def test_without_scripts_there_is_a_picture_and_the_sentence():
    data, _ = Toy()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "<p>Row 1 &amp; mode &lt;a&gt;</p>" in data["text/html"]
    assert data["text/html"].count("<svg role=") == 1


def test_colours_are_those_of_the_figures():
    from matplotlib import colormaps

    colors = Toy().header["colors"]
    assert set(colors) == {"magma", "viridis"}
    first = tuple(int(colors["magma"][i : i + 2], 16) for i in (0, 2, 4))
    assert first == tuple(int(c) for c in colormaps["magma"](0, bytes=True)[:3])


def test_line_colours_are_those_of_the_figures():
    script = (base._FOLDER / "kit.js").read_text(encoding="utf-8")
    assert "LINES = [" + ", ".join(f'"{c}"' for c in style.CYCLE) + "]" in script


def test_importing_the_package_does_not_load_widgets():
    code = "import sys, vitcnn_utils, vitcnn_utils.cka; sys.exit('anywidget' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
