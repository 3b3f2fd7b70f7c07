"""What all explorers share: packed arrays, checked state, and what is there without scripts and without a front end."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import traitlets
from explorer_pages import unpacked
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import base
from vitcnn_utils.explorers.base import Explorer, Quantized, quantize
from vitcnn_utils.plots import style

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def values_of(stored: Quantized) -> np.ndarray:
    """What the codes stand for, as the script reads them."""
    none = np.iinfo(stored.codes.dtype).max
    return np.where(stored.codes == none, np.nan, stored.low + stored.step * stored.codes.astype(np.float64))


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=NUMBERS), st.sampled_from([8, 16]))
def test_a_quantized_value_is_within_half_a_step(values, bits):
    stored = quantize(values, bits=bits)
    assert stored.codes.shape == values.shape
    assert np.abs(values_of(stored) - values).max() <= stored.error * (1 + 1e-6) + 1e-9
    assert values_of(stored).min() == pytest.approx(values.min(), abs=1e-6)


def test_what_has_no_value_stays_without_one():
    stored = quantize([0.0, np.nan, 1.0, np.inf, -np.inf])
    np.testing.assert_array_equal(np.isnan(values_of(stored)), [False, True, False, True, True])
    assert np.isnan(values_of(quantize([np.nan, np.nan]))).all()


def test_values_beyond_the_ends_become_the_ends():
    np.testing.assert_allclose(values_of(quantize([-1, 0.5, 2], 0, 1)), [0, 0.5, 1], atol=1 / 508)


def test_packed_arrays_come_back():
    rng = np.random.default_rng(0)
    arrays = {
        "picture": rng.integers(0, 256, (3, 5), dtype=np.uint8),
        "map": quantize(rng.random((2, 3, 4)), 0, 1),
        "fine": quantize(rng.random(7), 0, 1, bits=16),
        "plain": rng.random((2, 2)),
    }
    toy = Toy(arrays)
    assert all(place["offset"] % 4 == 0 for place in toy.header["arrays"].values())
    np.testing.assert_array_equal(unpacked(toy, "picture"), arrays["picture"])
    np.testing.assert_array_equal(unpacked(toy, "map"), values_of(arrays["map"]))
    np.testing.assert_array_equal(unpacked(toy, "fine"), values_of(arrays["fine"]))
    np.testing.assert_array_equal(unpacked(toy, "plain"), arrays["plain"].astype(np.float32))


class Toy(Explorer):
    """One number, one word."""

    kind, title, color_map = "similarity", "Is a <b> bold?", "magma"  # any script will do
    row = traitlets.Int(0).tag(sync=True, state=True)
    mode = traitlets.Unicode("a").tag(sync=True, state=True)

    def __init__(self, arrays=None, name=None, still=None):
        arrays = {"x": np.zeros(2)} if arrays is None else arrays
        super().__init__(arrays, {"row": np.int64(3), "mode": ["a", "b"]}, {"row": np.int64(1)}, name, still)


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


def test_without_scripts_there_are_the_figure_and_a_line():
    """With ids of its own, as the figure stands on the same page."""
    figure = SimpleNamespace(svg='<svg id="fig-1-a"><use href="#fig-1-a"/><g clip-path="url(#fig-1-a)"/></svg>')
    data, _ = Toy(name="toy", still=figure)._repr_mimebundle_()
    ours = '<svg id="toy-fig-1-a"><use href="#toy-fig-1-a"/><g clip-path="url(#toy-fig-1-a)"/></svg>'
    assert data["text/html"].startswith(f'<div class="vx-fallback">{ours}<p><strong>Is a &lt;b&gt; bold?</strong>')
    assert "svg" not in Toy()._repr_mimebundle_()[0]["text/html"]


@pytest.mark.parametrize("name", ['"><script>', "two words", "", "é"])
def test_a_name_that_cannot_stand_in_an_address_is_refused(name):
    with pytest.raises(VitcnnError, match="name an explorer by letters, digits"):
        Toy(name=name)


def test_colours_are_those_of_the_figures():
    from matplotlib import colormaps

    colors = Toy().header["colors"]
    first = tuple(int(colors[i : i + 2], 16) for i in (0, 2, 4))
    assert first == tuple(int(c) for c in colormaps["magma"](0, bytes=True)[:3])


def test_lines_are_those_of_the_figures():
    script = (base._FOLDER / "kit.js").read_text(encoding="utf-8")
    assert "LINES = [" + ", ".join(f'"{c}"' for c in style.CYCLE) + "]" in script
    models = [f'["{name}", LINES[{style.CYCLE.index(color)}]]' for name, (color, _) in style.MODELS.items()]
    assert f"MODELS = new Map([{', '.join(models)}])" in script
    dashes = {"--": "DASHED", "-.": "DASH_DOT", ":": "DOTTED"}
    variants = [f'["{name}", {dashes[line]}]' for name, line in style.VARIANTS.items() if name]
    assert f"VARIANTS = [{', '.join(variants)}]" in script


def test_importing_the_package_does_not_load_widgets():
    code = "import sys, vitcnn_utils, vitcnn_utils.measures.cka; sys.exit('anywidget' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_explorers_import_neither_figures_nor_claims():
    sources = "".join(file.read_text(encoding="utf-8") for file in base._FOLDER.glob("*.py"))
    assert "vitcnn_utils.plots" not in sources.replace("`vitcnn_utils.plots`", "") and "claims" not in sources
