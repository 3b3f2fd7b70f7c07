"""What explorers say of arrays whose values are known: the sentence, which only the script makes."""

import base64
import json
from collections.abc import Callable
from typing import Any

import browser
import numpy as np
import pytest
import xarray as xr
from explorer_samples import counted, fields, heads, layer_map, places, probed, ratios, units
from made import elsewhere, layers
from made import token_map as similarity
from textbook import noise_images

from vitcnn_utils import explorers
from vitcnn_utils.explorers.base import Explorer
from vitcnn_utils.images import Images
from vitcnn_utils.measures.attention import patch_distances
from vitcnn_utils.measures.receptive_field import radius_of_mass
from vitcnn_utils.plots import style

# Runs an explorer's script as anywidget does, without a page around it; gives what is to be seen.
RENDER = """
async ({ esm, traits, data }) => {
  const script = (await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })))).default;
  const values = { ...traits, data: new DataView(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer) };
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  script.render({ el, model: { get: (name) => values[name], set() {}, save_changes() {}, on() {}, off() {} } });
  await new Promise((resolve) => setTimeout(resolve, 20));
  const line = (label) => [label.textContent,
    ...["stroke", "stroke-dasharray"].map((name) => label.querySelector("path").getAttribute(name))];
  return {
    sentence: el.querySelector(".vx-sentence").textContent, text: el.textContent, ran: window.ran ?? null,
    foreign: el.querySelectorAll("img, script, b").length,
    lines: [...el.querySelectorAll(".vx-plot figcaption span")].map((label) => line(label)),
    heads: [...el.querySelectorAll(".vx-tiles")].at(-1)?.querySelectorAll("canvas").values().map(green).toArray(),
  };
  // Of the first patch; 'viridis' rises in green.
  function green(canvas) { return canvas.getContext("2d").getImageData(1, 1, 1, 1).data[1]; }
}
"""
EVIL = '"><img src=x onerror="window.ran=1"><svg onload="window.ran=1"><b>${1}`</script>'
Seen = dict[str, dict[str, tuple[str, dict[str, Any]]]]  # by kind and case: the expected sentence, and what is seen


def percent(values: xr.DataArray) -> str:
    return f"{100 * float(values.mean()):.1f} ± {100 * float(values.std(ddof=1)):.1f} %"


# --- what is shown, and what is to be said of it: explorer, state, sentence (… for any text) ----------------------


def attention_cases() -> dict[str, Any]:
    given = heads(2, prefix=("CLS", "register 0"))
    row = given[1].values[1, 2, 3, 18].astype(np.float64)
    most = row[2:].argmax()
    head, far = given[0].isel(block=2, head=3), patch_distances((4, 5), 8).numpy()
    said = (
        f"made up, block 2, head 3: from token (3, 1) of image 1, the patch that gets most is token ({most // 5}, "
        f"{most % 5}), {100 * row[2:].max():.1f} % of the attention; CLS gets {100 * row[0]:.1f} %; register 0 gets "
        f"{100 * row[1]:.1f} %. This query's mean distance is {row[2:] @ far[16]:.1f} px. "
        f"The head's mean distance is {head.distance:.1f} px ({head.distance_renormalized:.1f} px without the share of "
        f"CLS and 1 more token, which is {100 * head.prefix_mass:.1f} %), over 2 images. Colours: same scale "
        "for all heads."
    )
    state = {"image": 1, "block": 2, "head": 3, "token": 2 + 3 * 5 + 1}
    blind = heads(1)
    blind[1][0, 1, 2, 3] = np.eye(21)[0]
    explorer, images = explorers.explore_attention(given, noise_images(2)), noise_images(1)
    return {
        "where a query looks": (explorer, state, said),
        "what is left out": (explorer, {**state, "view": "picture", "scale": "own"},
                             "… Shown: the picture without the attention. Colours: each head its own scale."),
        "a query without a place": (explorer, {"token": 0}, "… from CLS of image 0, …images. Colours…"),
        "no prefix tokens": (explorers.explore_attention(heads(prefix=()), noise_images(2)), {},
                             "… of the attention. This query's … px, over 2 images. …"),
        "a query that sees no patch": (explorers.explore_attention(blind, images), {"block": 1, "head": 2, "token": 3},
                                       "… CLS gets 100.0 %. This query's mean distance is none px. …"),
    }  # fmt: skip


def localization_cases() -> dict[str, Any]:
    vit, coarse = layers(similarity(), elsewhere()), layers(similarity(0.4, 0.2, grid=2))
    explorer = explorers.explore_localization({"CLS": vit, "CNN": coarse})
    blank = similarity()
    blank[0, 0] = np.nan  # a token that is constant
    raw = explorers.explore_localization({"ViT": layers(similarity(0.4), similarity(0.3)), "patches": similarity(1.0)})
    late = {"ViT": places(5, 4), "CNN": places(2, 4).assign_coords(depth=("layer", [0.84, 1.0]))}
    return {
        "where the maximum is": (explorer, {"row": 4, "column": 1}, (
            "Token (4, 1) of 5 × 5. CLS (l1, depth 1.00): most similar to patch (0, 0), 4 patches away, contrast "
            "0.367. CNN (l0, depth 0.00; token (1, 0) of 2 × 2): most similar to its own patch, contrast 0.200. "
            "Line plot: contrast of this token. Colours: each map its own scale.")),
        "another layer": (explorer, {"layer": 0, "scale": "common", "curve": "found", "row": 4, "column": 1},
                          "… CLS (l0, depth 0.00): most similar to its own patch, contrast 0.400. … "
                          "share of tokens that find their patch. Colours: one scale for all."),
        "one patch away": (explorer, {"row": 0, "column": 1, "layer": 1}, "…patch (0, 0), 1 patch away…"),
        "equals": (explorers.explore_localization({"flat": layers(similarity(0.3, 0.3))}), {},
                   "…most similar to its own patch, contrast 0.000…"),
        "no values": (explorers.explore_localization({"ViT": layers(blank)}), {"row": 0, "column": 0},
                      "… ViT (l0, depth 0.00): no values, as nothing here differs between the images. …"),
        "raw patches": (raw, {}, "… patches (pixels, depth 0.00): most similar to its own patch, contrast 0.900. …"),
        # Each layer's own depth, however far from the slider's.
        "a model that begins late": (explorers.explore_localization(late), {"layer": 0},
                                     "… ViT (b0, depth 0.10): … CNN (b0, depth 0.84): …"),
    }  # fmt: skip


def probes_cases() -> dict[str, Any]:
    vit, cnn = probed(), probed(("mean", "token"), grid=2, seed=1)
    explorer = explorers.explore_probes({"ViT": vit, "CNN": cnn})
    one_draw = probed(("mean",), draws=1)
    tokens = 100 * vit["token_accuracy"].mean("draw")[1]
    some = explorers.explore_probes({"ViT": vit, "GAP": probed(("mean", "token")), "CNN": probed(("mean",))})
    state = {"readout": "mean", "layer": 1, "row": 3, "column": 0}
    return {
        "all models and a token": (explorer, state, (
            f"Mean of tokens: ViT (b1, depth 0.60) {percent(vit['accuracy'].sel(readout='mean')[1])}; "
            f"CNN (b1, depth 0.60) {percent(cnn['accuracy'].sel(readout='mean')[1])}. Chance: 10.0 %. "
            f"Beside: ViT (b1), token (3, 0) of 4 × 4: {percent(vit['token_accuracy'][1, 3, 0])}, "
            f"all tokens {float(tokens.min()):.1f} to {float(tokens.max()):.1f} %; each map its own scale.")),
        "another model beside": (explorer, {**state, "model": 1},
                                 f"… CNN (b1), token (1, 0) of 2 × 2: {percent(cnn['token_accuracy'][1, 1, 0])}, …"),
        "a token as read-out": (explorer, {"readout": "chosen", "row": 0, "column": 3}, (
            f"Token chosen on the map (0, 3) of 4 × 4: ViT (b2, depth 1.00) {percent(vit['token_accuracy'][2, 0, 3])}; "
            f"CNN (b2, depth 1.00) {percent(cnn['token_accuracy'][2, 0, 1])}. …")),
        "what a model lacks": (some, {"readout": "cls"}, "…; GAP not measured; CNN not measured. Chance…"),
        "models that are hidden": (some, {"readout": "cls", "shown": 0}, "CLS token: no model is shown. Chance…"),
        "no single tokens": (some, {"model": 2}, "… Beside: CNN, single tokens not measured."),
        "one draw": (explorers.explore_probes({"ViT": one_draw}), {},
                     f"Mean of tokens: ViT (b2, depth 1.00) {100 * one_draw['accuracy'][2].item():.1f} %. Chance…"),
    }  # fmt: skip


def receptive_field_cases() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pair = {"ViT": fields(rng.random((4, 9, 9)), [0, 0.3, 0.6, 0.9]),
            "CNN": fields(rng.random((3, 9, 9)), [0.1, 0.5, 1], "residual")}  # fmt: skip
    before = {label: fields[1:] for label, fields in pair.items()}
    radius, uniform = (float(radius_of_mass(f[:1], 0.5)[0]) for f in (before["ViT"], xr.ones_like(before["ViT"])))
    spot = np.zeros((1, 9, 9))
    spot[0, 4, 4] = 3
    y, x = np.mgrid[:9, :9] - 4
    ring = np.where(y**2 + x**2 == 9, 1.0, 0)[None]  # half of it lies half way from the distance before, √8
    both = explorers.explore_receptive_field({"spot": fields(spot, [0.5]), "ring": fields(ring, [0.5])})
    nothing = explorers.explore_receptive_field({"CNN": fields(np.zeros((1, 5, 5)), [0.5])})
    return {
        "before the addition": (
            explorers.explore_receptive_field(pair, before=before),
            {"layer": 0, "addition": "before", "scale": "linear"},
            "Before the addition. ViT (attention 1, attention.1, depth 0.30): half of the field lies within "
            f"{radius:.1f} px of its centre, of a uniform one within {uniform:.1f} px. CNN (unit 1, residual.1, depth "
            "0.50): … Scale: linear."),
        "sizes": (both, {}, "After the addition. spot (attention 0, attention.0, depth 0.50): half of the field lies "
                  "within 0.0 px … ring (attention 0, attention.0, depth 0.50): half of the field lies within 2.9 px…"),
        "nothing": (nothing, {}, "…: no field, as nothing here depends on the image. …"),
    }  # fmt: skip


def similarity_cases() -> dict[str, Any]:
    values = np.zeros((12, 7))
    values[4, 2] = 1
    pair = explorers.explore_similarity({"pair": layer_map(values)})
    two = explorers.explore_similarity({"large": layer_map(np.eye(12)), "small": layer_map(np.eye(3))})
    state = {"row": 4, "column": 2}
    return {
        "both layers": (pair, state, "CKA of layer 4 of 0 to 11 in a, a4 (mlp) and layer 2 of 0 to 6 in b, b2 "
                        "(norm): 1.00. Shown: all layers, by number."),
        "the nearest of a kind": (pair, {**state, "layers": "block"}, "CKA of layer 5 of 0 to 11 in a, a5 (block) "
                                  "and layer 5 of 0 to 6 in b, b5 (block): 0.00. Shown: block layers, by number."),
        "a constant layer": (explorers.explore_similarity({"x": layer_map(np.full((6, 6), np.nan))}), {},
                             "…: none. Shown…"),
        "a smaller map": (two, {"row": 11, "pair": 1}, "CKA of layer 2 of 0 to 2 …"),
    }  # fmt: skip


def skip_ratios_cases() -> dict[str, Any]:
    cnn = units(3, np.inf, 4)
    explorer = explorers.explore_skip_ratios({"ViT": counted(columns=3), "CNN": cnn})
    values = np.ones((2, 2, 5))
    values[0, 0], values[1, 0, 2] = np.nan, np.inf  # an attention without a skip; a branch that gives 0
    holes = explorers.explore_skip_ratios({"ViT": ratios(values)})
    sizes = explorers.explore_skip_ratios({"large": counted(4, 10), "small": counted(2, 5)})
    many = explorers.explore_skip_ratios({"ViT": counted(tokens=3 + 196, prefix=3)})
    return {
        # Block 1, MLP holds 21 to 27; token 5 is the spatial token 4: row 1, column 1.
        "a token": (explorer, {"block": 1, "branch": "mlp", "token": 5},
                    "ViT, block 1, MLP: the ratio of skip to branch is 26.00 for token (1, 1) of 2 × 3; CLS 21.00, "
                    "mean of spatial tokens 24.50 (mean of ratios)."),
        "CLS, another average": (explorer, {"block": 1, "branch": "mlp", "token": 0, "average": "median"},
                                 "ViT, block 1, MLP: the ratio of skip to branch is 42.00 for CLS; mean of spatial "
                                 "tokens 49.00 (median ratio)."),
        "no ratio": (holes, {"block": 0, "token": 1}, "ViT, block 0, self-attention: the ratio of skip to branch is "
                     "none for token (0, 0) of 2 × 2; CLS none, mean of spatial tokens none (mean of ratios)."),
        "a branch that adds nothing": (holes, {"block": 1, "token": 2}, "… is none for token (0, 1) … CLS 1.00…"),
        "a smaller model": (sizes, {"block": 3, "token": 9, "model": 1}, "small, block 1…token (1, 1) of 2 × 2…"),
        "registers": (many, {"token": 2}, "…for register 1;…"),
    }  # fmt: skip


def hostile() -> dict[str, Explorer]:
    """Every name that a user gives is a script."""
    named = similarity().assign_coords(layer=EVIL, depth=1.0)
    field = fields(np.ones((1, 9, 9)), [0.5], EVIL)
    images = Images(EVIL, noise_images(1).pixels, np.array([0]), (EVIL,))
    ratios = counted(tokens=5).assign_coords(part=("token", [EVIL, *["spatial"] * 4]))
    names = {"layer_a": [EVIL, "b", "c"], "kind_a": ("layer_a", [EVIL] * 3)}
    maps = {EVIL: layer_map(np.eye(3)).assign_coords(names).assign_attrs(model=EVIL, model_b=EVIL)}
    distances, weights = heads(1, prefix=(EVIL,))
    return {
        "attention": explorers.explore_attention((distances.assign_attrs(model=EVIL), weights), images),
        "localization": explorers.explore_localization({EVIL: named}),
        "probes": explorers.explore_probes({EVIL: probed().assign_coords(layer=[EVIL, "b", "c"])}),
        "receptive_field": explorers.explore_receptive_field({EVIL: field}),
        "similarity": explorers.explore_similarity(maps),
        "skip_ratios": explorers.explore_skip_ratios({EVIL: ratios}),
    }


def models() -> dict[str, Explorer]:
    """Models in an order in which colours by number would be wrong."""
    labels = ["CNN", "ViT, untrained", "other", "ViT", "ViT, small data"]
    rng = np.random.default_rng(0)
    return {
        "probes": explorers.explore_probes({label: probed(("mean",)) for label in labels}),
        "localization": explorers.explore_localization({label: places(2, 3) for label in labels[:4]}),
        "receptive_field": explorers.explore_receptive_field(
            {label: fields(rng.random((2, 9, 9)), [0, 1]) for label in labels[:4]}
        ),
    }


def one_head_that_is_peaked() -> tuple[xr.Dataset, xr.DataArray]:
    """Of two heads, one looks at one patch only, the other at all alike."""
    given = heads(1, blocks=1, heads=2, prefix=())
    given[1][0, 0, 0] = np.eye(20)
    given[1][0, 0, 1] = 1 / 20
    return given


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "attention": attention_cases, "localization": localization_cases, "probes": probes_cases,
    "receptive_field": receptive_field_cases, "similarity": similarity_cases, "skip_ratios": skip_ratios_cases,
}  # fmt: skip


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    page_file = tmp_path_factory.mktemp("words") / "page.html"
    page_file.write_text("<!doctype html><title>Words</title>", encoding="utf-8")
    every = {kind: cases() for kind, cases in CASES.items()}
    every["hostile"] = {kind: (explorer, {}, "") for kind, explorer in hostile().items()}
    every["colours"] = {kind: (explorer, {}, "") for kind, explorer in models().items()}
    pair = explorers.explore_attention(one_head_that_is_peaked(), noise_images(1))
    every["heads"] = {scale: (pair, {"scale": scale, "view": "attention"}, "") for scale in ("same", "own")}
    with browser.chromium() as chromium:
        page = chromium.new_page()
        page.goto(page_file.as_uri())
        found: Seen = {}
        for kind, cases in every.items():
            found[kind] = {case: (expected, page.evaluate(RENDER, _input(explorer, state)))
                           for case, (explorer, state, expected) in cases.items()}  # fmt: skip
    return found


def _input(explorer: Explorer, state: dict[str, Any]) -> dict[str, Any]:
    for name, value in state.items():
        setattr(explorer, name, value)
    traits = {name: getattr(explorer, name) for name in [*explorer.state_names, "state_names", "name", "header"]}
    for name in state:
        setattr(explorer, name, explorer.header["start"][name])
    return json.loads(json.dumps({"esm": explorer._esm, "traits": traits})) | {
        "data": base64.b64encode(explorer.data).decode()
    }


@pytest.mark.parametrize("kind", CASES)
def test_the_sentence_is_right(seen: Seen, kind: str) -> None:
    for case, (expected, found) in seen[kind].items():
        sentence = found["sentence"]
        place = 0
        for part in expected.split("…"):
            assert part in sentence[place:], (case, part, sentence)
            place = sentence.index(part, place) + len(part)
        assert sentence.startswith(expected.split("…")[0]) and sentence.endswith(expected.split("…")[-1]), case


@pytest.mark.parametrize("kind", CASES)
def test_names_are_text(seen: Seen, kind: str) -> None:
    _, found = seen["hostile"][kind]
    assert EVIL in found["sentence"] and EVIL in found["text"]
    assert (found["ran"], found["foreign"]) == (None, 0)


def test_a_model_has_its_colour_whatever_stands_beside_it(seen: Seen) -> None:
    expected = {
        "CNN": [style.ORANGE, None], "ViT, untrained": [style.BLUE, "1 3"], "other": [style.GREEN, None],
        "ViT": [style.BLUE, None], "ViT, small data": [style.BLUE, "4 3"],
    }  # fmt: skip
    for kind in models():
        lines = {label: look for label, *look in seen["colours"][kind][1]["lines"]}
        assert {label: look for label, look in lines.items() if label in expected} == {
            label: look for label, look in expected.items() if label in lines
        }
        assert {"CNN", "ViT"} <= set(lines), kind


def test_a_flat_head_looks_flat_beside_a_peaked_one(seen: Seen) -> None:
    dark, flat = seen["heads"]["same"][1]["heads"]
    assert dark < flat < 50
    assert seen["heads"]["own"][1]["heads"][1] > 200
