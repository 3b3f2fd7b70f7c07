"""Explorers keep the arrays that they are given, check their state, and refuse what they cannot show."""

import gzip
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import made
import numpy as np
import pytest
import torch
import traitlets
import xarray as xr
from explorer_pages import unpacked
from explorer_samples import SAMPLES, counted, fields, heads, layer_map, places, probed, ratios, units
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib import colormaps
from similarity_maps import PAPER
from small_models import described, small_vit
from textbook import noise_images

from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.explorers import (
    base,
    explore_attention,
    explore_localization,
    explore_probes,
    explore_receptive_field,
    explore_similarity,
    explore_skip_ratios,
    receptive_field,
)
from vitcnn_utils.explorers.base import Explorer, Quantized, quantize, stops
from vitcnn_utils.images import Images
from vitcnn_utils.measures.attention import attention_maps, head_distances
from vitcnn_utils.measures.cka import layer_similarity
from vitcnn_utils.measures.localization import layer_patch_similarity
from vitcnn_utils.measures.probes import layer_probes
from vitcnn_utils.measures.receptive_field import effective_receptive_fields
from vitcnn_utils.measures.residual import skip_ratios
from vitcnn_utils.models.facts import Model
from vitcnn_utils.plots import style

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)

# What all share


def values_of(stored: Quantized) -> np.ndarray:
    """What the codes stand for, as the script reads them."""
    none = np.iinfo(stored.codes.dtype).max
    return np.where(stored.codes == none, np.nan, stored.low + stored.step * stored.codes.astype(np.float64))


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=NUMBERS), st.sampled_from([8, 16]))
def test_a_quantized_value_is_within_half_a_step(values: np.ndarray, bits: int) -> None:
    stored = quantize(values, bits=bits)
    assert stored.codes.shape == values.shape
    assert np.abs(values_of(stored) - values).max() <= stored.error * (1 + 1e-6) + 1e-9
    assert values_of(stored).min() == pytest.approx(values.min(), abs=1e-6)


def test_what_has_no_value_stays_without_one_and_values_beyond_the_ends_become_the_ends() -> None:
    stored = quantize([0.0, np.nan, 1.0, np.inf, -np.inf])
    np.testing.assert_array_equal(np.isnan(values_of(stored)), [False, True, False, True, True])
    assert np.isnan(values_of(quantize([np.nan, np.nan]))).all()
    np.testing.assert_allclose(values_of(quantize([-1, 0.5, 2], 0, 1)), [0, 0.5, 1], atol=1 / 508)


class Toy(Explorer):
    """One number, one word."""

    kind, title, color_map = "similarity", "Is a <b> bold?", "magma"  # any script will do
    row = base.number()
    mode = base.word("a", "b")

    def __init__(self, arrays: Any = None, **page: Any) -> None:
        super().__init__(arrays or {"x": np.zeros(2)}, {"row": np.int64(3)}, {"row": np.int64(1)}, page)


def test_state_is_checked() -> None:
    toy, other = Toy(), Toy()
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
    assert (toy.row, toy.mode, seen, other.row) == (2, "a", [2], 1)


def test_without_scripts_there_are_the_figure_and_a_line() -> None:
    """With ids of its own, as the figure stands on the same page."""
    figure = SimpleNamespace(svg='<svg id="fig-1-a"><use href="#fig-1-a"/><g clip-path="url(#fig-1-a)"/></svg>')
    data, _ = Toy(name="toy", still=figure)._repr_mimebundle_()
    ours = '<svg id="toy-fig-1-a"><use href="#toy-fig-1-a"/><g clip-path="url(#toy-fig-1-a)"/></svg>'
    assert data["text/html"].startswith(f'<div class="vx-fallback">{ours}<p><strong>Is a &lt;b&gt; bold?</strong>')
    assert "svg" not in Toy()._repr_mimebundle_()[0]["text/html"]


@pytest.mark.parametrize("name", ['"><script>', "two words", "", "é"])
def test_a_name_that_cannot_stand_in_an_address_is_refused(name: str) -> None:
    with pytest.raises(VitcnnError, match="name an explorer by letters, digits"):
        Toy(name=name)


def test_colours_and_lines_are_those_of_the_figures() -> None:
    first = tuple(int(Toy().header["colors"][i : i + 2], 16) for i in (0, 2, 4))
    assert first == tuple(int(c) for c in colormaps["magma"](0, bytes=True)[:3])
    script = (base._FOLDER / "kit.js").read_text(encoding="utf-8")
    assert "LINES = [" + ", ".join(f'"{c}"' for c in style.CYCLE) + "]" in script
    models = [f'["{name}", LINES[{style.CYCLE.index(color)}]]' for name, (color, _) in style.MODELS.items()]
    assert f"MODELS = new Map([{', '.join(models)}])" in script
    dashes = {"--": "DASHED", "-.": "DASH_DOT", ":": "DOTTED"}
    variants = [f'["{name}", {dashes[line]}]' for name, line in style.VARIANTS.items() if name]
    assert f"VARIANTS = [{', '.join(variants)}]" in script


def test_every_layer_of_every_model_is_nearest_to_one_of_the_stops() -> None:
    assert stops([[0.0, 0.5, 1.0], [0.01, 1.0], [0.9]]) == [0.0, 0.5, 1.0]
    assert stops([[0.0]]) == [0.0]


# Of each kind

TWO, TWELVE = noise_images(2), noise_images(12)


@pytest.mark.parametrize(
    ("kind", "name", "value", "problem"),
    [
        ("attention", "token", 17, "token must be from 0 to 16"), ("attention", "image", -1, "must be from 0 to 2"),
        ("localization", "row", 5, "row must be from 0 to 4"), ("probes", "readout", "first token", "one of cls, mean"),
        ("probes", "shown", 4, "from 0 to 3"), ("receptive_field", "layer", "first", "layer"),
        ("receptive_field", "scale", "square", "one of log, linear"), ("similarity", "row", 12, "from 0 to 11, not 12"),
        ("skip_ratios", "block", 4, "from 0 to 3"), ("skip_ratios", "branch", "residual", "one of attention, mlp"),
    ],
)  # fmt: skip
def test_a_state_that_is_not_there_is_refused(kind: str, name: str, value: Any, problem: str) -> None:
    explorer, _ = SAMPLES[kind]()
    before = getattr(explorer, name)
    with pytest.raises((VitcnnError, traitlets.TraitError), match=problem):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


FIELDS = {"ViT": fields(np.ones((2, 9, 9)), [0, 1]), "CNN": fields(np.ones((2, 9, 9)), [0, 1], "residual")}


@pytest.mark.parametrize(
    ("explore", "problem"),
    [
        (lambda vit: explore_similarity({}), "nothing to explore"),
        (lambda vit: explore_similarity((vit, vit)), "need images"),
        (lambda vit: explore_localization({str(i): places(1, 2) for i in range(5)}), "up to 4 side by side, not 5"),
        (lambda vit: explore_localization({"ViT": places(1, 3)[0, 0]}), "'ViT' is not what `layer_patch_similarity`"),
        (lambda vit: explore_probes({"ViT": xr.Dataset({"x": 1})}), "'ViT' is not what `layer_probes` returns"),
        (lambda vit: explore_probes({"a": probed(), "b": probed().assign_attrs(chance=0.5)}),
         r"differ in chance \(a 10.0 %, b 50.0 %\)"),
        (lambda vit: explore_receptive_field({"ViT": vit, "CNN": FIELDS["CNN"]}, TWO), "not both"),
        (lambda vit: explore_receptive_field(FIELDS, before={"ViT": FIELDS["ViT"]}), "same labels"),
        (lambda vit: explore_receptive_field({"ViT": FIELDS["ViT"].values}), "'ViT' is not what `effective_receptive"),
        (lambda vit: explore_skip_ratios({"CNN": units(3, 4)}), "at least one transformer"),
        (lambda vit: explore_skip_ratios({"ViT": counted()["ratio"]}), "'ViT' is not what `skip_ratios` returns"),
        (lambda vit: explore_attention(heads()[0], TWO), "give a model, or"),
        (lambda vit: explore_attention(heads()[::-1], TWO), "give a model, or"),
        (lambda vit: explore_attention(heads(), noise_images(1)), "measured on 2 images, not 1"),
        (lambda vit: explore_attention(heads(), TWO, heads(heads=3)), "models differ"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused(vit: Model, explore: Callable[[Model], Explorer], problem: str) -> None:
    with pytest.raises(VitcnnError, match=problem):
        explore(vit)


def noise_fields(layers: int, kind: str) -> xr.DataArray:
    return fields(np.random.default_rng(0).random((layers, 224, 224)), np.linspace(0, 1, layers), kind)


def large_fields() -> Explorer:
    """ViT-L/16 and ResNet-152 at 224 px."""
    after = {"ViT": noise_fields(49, "attention"), "CNN": noise_fields(51, "residual")}
    explorer = explore_receptive_field(after, before={label: field[1:] for label, field in after.items()})
    assert explorer.header["cells"] == [4, 4]
    return explorer


def large_heads() -> Explorer:
    """Two models of 8 blocks of 8 heads and 64 patches, four images."""
    first, second = (heads(4, 8, 8, (8, 8), seed=seed) for seed in range(2))
    explorer = explore_attention(first, noise_images(4), second)
    assert explorer.header["errors"]["weight"] < 0.04
    return explorer


EVERY = ("cls", "mean", "mean with cls", "first token", "token")


@pytest.mark.parametrize(
    "explore",
    [
        large_heads,
        large_fields,
        lambda: explore_localization({"CLS": places(12, 14, noise=0.01), "GAP": places(12, 14, noise=0.01, seed=1),
                                      "CNN": places(3, 7, noise=0.01)}),
        lambda: explore_probes({str(i): probed(EVERY, 14, 12, 5, seed=i) for i in range(4)}),
        # ViT-L/16 and ResNet-152: 151 and 361 layers.
        lambda: explore_similarity({str(size): layer_map(np.random.default_rng(0).random(size))
                                    for size in ((151, 151), (361, 361), (151, 361))}),
        # Three of the size of ViT-H/14.
        lambda: explore_skip_ratios({str(i): ratios(np.random.default_rng(0).random((32, 2, 257))) for i in range(3)}),
    ],
    ids=["attention", "receptive_field", "localization", "probes", "similarity", "skip_ratios"],
)  # fmt: skip
def test_the_data_of_large_models_are_light_enough(explore: Callable[[], Explorer]) -> None:
    """As noise, which cannot be packed any smaller."""
    assert len(gzip.compress(explore().data)) < 1e6


# Models in the place of arrays

LABELLED = noise_images(60, classes=2)


def similarities(vit: Model, cnn: Model) -> Iterator[Explorer]:
    yield explore_similarity((vit, cnn), TWELVE)
    titles = {f"{vit.name} with itself": (vit, vit), f"{cnn.name} with itself": (cnn, cnn)}
    titles |= {f"{vit.name} with {cnn.name}": (vit, cnn)}
    yield explore_similarity({title: layer_similarity(*pair, TWELVE) for title, pair in titles.items()})


def maps_of_places(vit: Model, cnn: Model) -> Iterator[Explorer]:
    yield explore_localization({"ViT": vit, "CNN": cnn}, TWELVE)
    layers = {"ViT": (vit, vit.blocks), "CNN": (cnn, cnn.blocks[-2:])}  # the last of its four grids
    yield explore_localization({name: layer_patch_similarity(m, TWELVE, of) for name, (m, of) in layers.items()})


def probes(vit: Model, cnn: Model) -> Iterator[Explorer]:
    yield explore_probes({"ViT": vit, "CNN": cnn}, LABELLED)
    yield explore_probes({"ViT": layer_probes(vit, LABELLED), "CNN": layer_probes(cnn, LABELLED)})


def receptive_fields(vit: Model, cnn: Model) -> Iterator[Explorer]:
    models = {"ViT": vit, "CNN": cnn}
    yield explore_receptive_field(models, TWO)
    after, before = (
        {name: effective_receptive_fields(m, TWO, channels=8, before_addition=before) for name, m in models.items()}
        for before in (False, True)
    )
    yield explore_receptive_field(after, before=before)


def ratios_of_skips(vit: Model, cnn: Model) -> Iterator[Explorer]:
    yield explore_skip_ratios({"ViT": vit, "CNN": cnn}, TWO)
    yield explore_skip_ratios({"ViT": skip_ratios(vit, TWO), "CNN": skip_ratios(cnn, TWO)})


def attention(vit: Model, _: Model) -> Iterator[Explorer]:
    little = described(small_vit(), "little data")
    with torch.no_grad():
        little.attentions[0].qkv.weight.neg_()
    yield explore_attention(vit, TWELVE, other=little)
    # Distances of all images, attention of some.
    first, second = ((head_distances(m, TWELVE), attention_maps(m, TWELVE[:4])) for m in (vit, little))
    yield explore_attention(first, TWELVE, second)


@pytest.mark.parametrize(
    "explore", [similarities, maps_of_places, probes, receptive_fields, ratios_of_skips, attention]
)
def test_models_are_measured(explore: Any, vit: Model, resnet: Model) -> None:
    of_models, of_arrays = explore(vit, resnet)
    assert of_models.data == of_arrays.data
    assert of_models.header == of_arrays.header


# What only one kind has


@pytest.mark.parametrize("prefix", [(), ("CLS", "register 0", "register 1")])
def test_it_starts_at_the_head_that_looks_nearest(prefix: tuple[str, ...]) -> None:
    measured = heads(prefix=prefix)
    explorer = explore_attention(measured, TWO)
    distances = measured[0].distance.values
    assert distances[explorer.block, explorer.head] == distances.min()
    assert (explorer.token, explorer.scale) == (len(prefix) + 2 * 5 + 2, "same")
    np.testing.assert_allclose(unpacked(explorer, "prefix")[0], measured[1].values[..., : len(prefix)], atol=1e-5)


def test_some_blocks_keep_their_numbers() -> None:
    distances, maps = (one.isel(block=[0, 1, -2, -1]) for one in heads(blocks=6))
    explorer = explore_attention((distances, maps), TWO)
    assert explorer.header["blocks"] == [0, 1, 4, 5]
    with pytest.raises(VitcnnError, match="block must be from 0 to 3, not 4"):
        explorer.block = 4


def test_large_pictures_become_small_and_keep_their_form() -> None:
    pixels = np.zeros((2, 300, 600, 3), np.uint8)
    pixels[:, :, 300:] = 200
    explorer = explore_attention(heads(), Images("halves", pixels, np.array([0, 1]), ("cat", "dog")))
    kept = unpacked(explorer, "pixels")
    assert kept.nbytes <= 160_000
    assert kept.shape[2] / kept.shape[1] == pytest.approx(2, rel=0.02)
    assert (kept[:, :, 0].max(), kept[:, :, -1].min()) == (0, 200)
    assert explorer.header["pictures"] == ["image 0 (cat)", "image 1 (dog)"]


def test_raw_patches_stand_at_depth_0_and_one_layer_keeps_its_name() -> None:
    vit = made.layers(made.token_map(0.4), made.token_map(0.3))
    explorer = explore_localization({"ViT": vit, "patches": made.token_map(1.0)})
    assert (explorer.header["stops"], explorer.header["depths"]) == ([0, 1], [[0, 1], [0]])
    assert explorer.header["layers"] == [["l0", "l1"], ["pixels"]]
    explorer = explore_localization({"ViT": vit.isel(layer=1)})
    assert (explorer.header["layers"], explorer.header["depths"]) == ([["l1"]], [[1]])


def test_it_starts_with_all_models_and_the_read_out_that_most_have() -> None:
    explorer = explore_probes({"ViT": probed(), "GAP": probed(("mean", "token")), "CNN": probed(("mean",))})
    assert (explorer.readout, explorer.shown) == ("mean", 7)
    assert explorer.header["readouts"] == [["cls", "mean", "token", "chosen"], ["mean", "token", "chosen"], ["mean"]]
    alone = explore_probes({f"m{i}": probed(("mean",), draws=1, seed=i) for i in range(8)})
    assert alone.header["choices"] == {
        "readout": ["mean"], "layer": 3, "shown": 256, "model": 8, "row": 1, "column": 1, "scale": ["own", "common"],
    }  # fmt: skip


def test_large_maps_are_means_over_whole_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receptive_field, "_BYTES", 9)  # 3 x 3 cells
    values = np.arange(1.0, 50).reshape(1, 7, 7)
    explorer = explore_receptive_field({"ViT": fields(values, [0.5])})
    assert explorer.header["cells"] == [3]
    means = 10 ** unpacked(explorer, "map_after0")[0] * 49
    assert means[0, 0] == pytest.approx(values[0, :3, :3].mean(), rel=0.02)
    assert means[2, 2] == pytest.approx(49, rel=0.02)  # what is left at the edge


def test_it_opens_on_the_attention_in_the_middle() -> None:
    cnn = fields(np.ones((3, 9, 9)), [0.1, 0.5, 1], "residual")
    vit = fields(np.ones((8, 9, 9)), np.linspace(0, 1, 8), ["attention", "mlp"] * 4)
    explorer = explore_receptive_field({"ViT": vit, "CNN": cnn})
    assert explorer.header["stops"][explorer.layer] == pytest.approx(4 / 7, abs=1e-4)
    explorer = explore_receptive_field({"CNN": cnn})
    assert explorer.header["stops"][explorer.layer] == 0.5


def test_every_layer_is_at_a_stop_on_both_sides_of_the_addition() -> None:
    after = {"ViT": fields(np.ones((4, 9, 9)), [0, 0.3, 0.6, 0.9]), "CNN": fields(np.ones((3, 9, 9)), [0.1, 0.5, 1])}
    before = {label: field[1:] for label, field in after.items()}
    explorer = explore_receptive_field(after, before=before)
    with pytest.raises(VitcnnError, match="addition must be one of after, not 'before'"):
        explore_receptive_field(after).addition = "before"
    for side, measured in (("after", after), ("before", before)):
        for facts, field in zip(explorer.header["layers"][side], measured.values(), strict=True):
            nearest = {int(np.abs(np.subtract(facts["depths"], stop)).argmin()) for stop in explorer.header["stops"]}
            assert nearest == set(range(field.sizes["layer"]))


def test_labels_may_be_numbers_and_dimensions_in_any_order() -> None:
    numbers = {i: field.transpose("x", "layer", "y") for i, field in enumerate(FIELDS.values())}
    explorer = explore_receptive_field(numbers, before=numbers)
    assert explorer.header["labels"] == ["0", "1"]
    assert explorer.data == explore_receptive_field(FIELDS, before=FIELDS).data


def test_what_is_shown_is_that_of_all_images() -> None:
    def with_parts(measured: xr.DataArray) -> xr.DataArray:
        return xr.concat([measured, 0.5 * measured], xr.Variable("left_out", [-1, 0])).assign_attrs(measured.attrs)

    for explore, measured in ((explore_receptive_field, FIELDS), (explore_similarity, {"a map": PAPER})):
        assert explore({label: with_parts(one) for label, one in measured.items()}).data == explore(measured).data


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_any_number_of_prefix_tokens(prefix: int) -> None:
    explorer = explore_skip_ratios({7: counted(tokens=prefix + 196, prefix=prefix)})
    assert explorer.header["labels"] == ["7"]
    assert explorer.header["grids"] == [[14, 14]] and list(map(len, explorer.header["prefix"])) == [prefix]
    assert explorer.token == prefix + 7 * 14 + 7


def test_only_averages_that_all_have_can_be_chosen() -> None:
    explorer = explore_skip_ratios({"ViT": counted(tokens=5).drop_vars("median"), "CNN": units(3, np.inf, 4)})
    with pytest.raises(VitcnnError, match="average must be one of ratio, ratio_of_means, not 'median'"):
        explorer.average = "median"
    np.testing.assert_array_equal(unpacked(explorer, "unit_ratio0"), [3, np.inf, 4])
