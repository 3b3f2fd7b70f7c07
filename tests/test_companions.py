"""Which models stand side by side, on which images, where an edition mixes its own with those of the zoo."""

import numpy as np
import pytest

from vitcnn_utils import zoo
from vitcnn_utils.editions import companions
from vitcnn_utils.editions.companions import TWIN, WHOLE, Cast, Casting
from vitcnn_utils.errors import VitcnnError
from vitcnn_utils.images import Images, load_images
from vitcnn_utils.zoo.recipes import RECIPES

OURS, THEIRS = "zoo/vit-cls-data-10", "deit3_small_patch16_224.fb_in1k"
LARGE = Images("large", np.zeros((5, 64, 64, 3), np.uint8))
SERIES = {"30": "zoo/vit-cls-data-30", "3": "zoo/vit-cls-data-3", "100": WHOLE}
SMALL = {3: "zoo/vit-small-data-3", 100: "zoo/vit-small-data-100"}


def casting(vit, images=LARGE):
    return Casting(vit, images, device="cpu")


@pytest.mark.parametrize(
    ("name", "to", "expected"), [(OURS, WHOLE, True), (THEIRS, "hf-hub:me/mine", True), (OURS, THEIRS, False)]
)
def test_related(name, to, expected):
    assert companions.related(name, to) == companions.related(to, name) == expected


@pytest.fixture
def cards(monkeypatch):
    """Cards by name, which stand in the place of the zoo's: all by the table of recipes, which a test may change."""
    cards = {name: {"steps": 10, "recipe": dict(vars(recipe))} for name, recipe in RECIPES.items()}
    monkeypatch.setattr(zoo, "names", lambda: list(cards))
    monkeypatch.setattr(zoo, "card", cards.__getitem__)
    return cards


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        (OURS, (WHOLE, TWIN), WHOLE),  # the default edition
        (OURS, (None, TWIN), TWIN),
        (OURS, (None, THEIRS), WHOLE),  # the zoo's stands in: never compared with another's
        (THEIRS, (TWIN, "hf-hub:me/mine"), "hf-hub:me/mine"),
        (THEIRS, (TWIN, WHOLE), None),
        (None, (TWIN, WHOLE), None),
    ],
)
def test_beside(cards, name, candidates, expected):
    assert companions.beside(name, *candidates) == expected


def test_a_companion_is_compared_with_one_that_was_trained_alike(cards):
    pair = {"little data": OURS, "all data": WHOLE}
    assert casting(WHOLE).cast("Figure 4", pair).unlike == ""
    cards[WHOLE]["recipe"]["epochs"] = 15
    assert companions.beside(OURS, WHOLE, TWIN) == TWIN
    unlike = casting(WHOLE).cast("Figure 4", pair).unlike
    assert unlike == f"these models were not trained alike (in epochs): {OURS} 10 steps, {WHOLE} 10 steps"
    cards[TWIN]["recipe"]["batch_size"] = 64
    assert companions.beside(OURS, WHOLE, TWIN) == WHOLE, "none was, so the first"


def test_another_start(cards):
    assert companions.another_start(WHOLE, WHOLE, TWIN) == TWIN and companions.another_start(TWIN, WHOLE, TWIN) == WHOLE
    assert companions.another_start(WHOLE, WHOLE, None) is None
    assert companions.another_start(WHOLE, THEIRS, None) == TWIN
    assert companions.another_start(THEIRS, THEIRS, "hf-hub:me/again") == "hf-hub:me/again"
    assert companions.another_start(THEIRS, THEIRS, TWIN) is None
    assert companions.another_start(SMALL[100], WHOLE, TWIN) == f"{SMALL[100]}-seed-2"
    assert companions.another_start(SMALL[3], WHOLE, TWIN) is None
    cards[TWIN]["recipe"]["epochs"] = 2
    assert companions.another_start(WHOLE, WHOLE, TWIN) is None, "another length is more than another start"


def test_parts_are_ordered_by_the_data_that_they_saw():
    assert companions.parts(SERIES) == {"3 %": SERIES["3"], "30 %": SERIES["30"], "all data": WHOLE}
    assert companions.parts(None) == companions.parts({}) == {}


def test_a_cast_on_images_of_its_own_origin():
    for vit, names in ((WHOLE, {"little data": OURS, "all data": TWIN}), (THEIRS, {"little data": THEIRS})):
        cast = casting(vit).cast("Figure 4", names)
        assert (cast.names, cast.images, cast.stand_in) == (names, LARGE, False)


def test_the_zoos_stand_in_on_the_zoos_images():
    cast = Casting(THEIRS, LARGE, image_size=64, seed=3, device="cpu").cast("Figure 4", {"little data": OURS})
    assert cast.stand_in and cast.images.name == "cifar10"
    np.testing.assert_array_equal(cast.images.pixels, load_images("cifar10", 5, seed=3).pixels)
    assert cast["little data"].image_size == (32, 32), "the edition's image size is not for them"


def test_trainings_are_compared_with_a_second_start_of_the_same_recipe(cards):
    protocols = casting(WHOLE).protocols("zoo/vit-cls-nocutmix", "zoo/vit-cls-mimetic", TWIN, "zoo/resnet")
    assert protocols.names["CutMix, second start"] == TWIN and protocols.names["no CutMix"] == "zoo/vit-cls-nocutmix"
    cards[TWIN]["recipe"]["epochs"] = 2
    protocols = casting(WHOLE).protocols("zoo/vit-cls-nocutmix", "zoo/vit-cls-mimetic", TWIN, "zoo/resnet")
    assert list(protocols) == ["CutMix", "no CutMix", "no CutMix, mimetic start", "CNN"]
    del cards["zoo/vit-cls-mimetic"]
    protocols = casting(WHOLE).protocols("zoo/vit-cls-nocutmix", "zoo/vit-cls-mimetic", TWIN, "zoo/resnet")
    assert list(protocols) == ["CutMix", "no CutMix", "CNN"]
    own = casting(THEIRS).protocols("a.plain", "a.mimetic", "a.again", "resnet18")
    assert own.names["CutMix"] == THEIRS and own.names["CutMix, second start"] == "a.again"
    missing = casting(THEIRS).protocols(None, "a.mimetic", "a.again", "resnet18")
    assert not missing and missing.draw(lambda: 1) is None and casting(WHOLE).cast("", {"a": WHOLE}).draw(str, 1) == "1"


@pytest.mark.parametrize("names", [{"a": None, "b": None}, {"a": OURS, "b": None}, {}])
def test_a_cast_that_lacks_a_model_is_empty_and_says_so(names):
    cast = casting(WHOLE).cast("Figure 4", names)
    assert not cast and list(cast.items()) == []
    assert "<strong>Figure 4</strong> is left out" in cast._repr_html_()


def test_own_leaves_out_what_other_images_were_made_for():
    names = {
        "ViT": THEIRS,
        "ViT, small data": OURS,
        "ViT-GAP": None,
        "CNN": "zoo/resnet",
        "CNN, small data": "resnet18",
    }
    cast = casting(THEIRS).own("Figure 13", names, "zoo/resnet")
    assert cast.names == {"ViT": THEIRS, "CNN": "zoo/resnet"}
    assert cast.images is LARGE


def test_a_model_is_loaded_once_and_untrained_where_its_label_says_so():
    cast = casting(WHOLE).cast("A figure", {"ViT": WHOLE, "ViT, untrained": WHOLE})
    assert cast["ViT"] is cast["ViT"]
    assert (cast["ViT"].name, cast["ViT, untrained"].name) == (WHOLE, f"{WHOLE} (untrained)")
    assert list(cast.cards) == [WHOLE]


def test_controls_say_where_they_were_trained_for_another_time(monkeypatch):
    steps = {TWIN: 1562, WHOLE: 19531}
    monkeypatch.setattr(companions, "cards_of", lambda *names: {name: {"steps": steps[name]} for name in names})
    expected = {"untrained": WHOLE, "second seed, 1,562 steps against 19,531": TWIN}
    assert casting(WHOLE).controls(TWIN).names == expected
    steps[TWIN] = steps[WHOLE]
    assert list(casting(WHOLE).controls(TWIN).names) == ["untrained", "second seed"]
    assert casting(THEIRS).controls(TWIN).names == {"untrained": THEIRS}


def test_series_have_their_controls_and_one_set_of_images(cards):
    del cards[f"{SMALL[100]}-seed-2"]
    first, second = casting(WHOLE).series("Figure 12", SERIES, SMALL, vit_seed_2=TWIN)
    assert list(first) == ["3 %", "30 %", "all data", "second seed", "untrained"]
    assert first.names["second seed"] == TWIN and list(second) == ["3 %", "all data", "untrained"]
    theirs = {10: "a.mine", 100: THEIRS}
    assert [cast.stand_in for cast in casting(THEIRS).series("Figure 12", theirs, SMALL)] == [False]
    assert casting(THEIRS).series("Figure 12", {}, None) == []


def test_what_to_keep_in_mind_of_the_training_of_series(cards):
    series = casting(WHOLE).series("Figure 12", SERIES, SMALL, vit_seed_2=TWIN)
    first, second = companions.series_note(series).split("\n\n")
    assert first.startswith(f"All models beside {WHOLE} were trained") and SMALL[100] in second
    assert companions.trained_unlike(series[0].cards | series[1].cards) == "", "they differ in size"
    del cards[SMALL[3]]
    assert SMALL[100] not in companions.series_note(series) and companions.series_note([]) == ""


def test_accuracies_are_of_trained_models_on_images_that_they_know():
    cast = casting(WHOLE, load_images("cifar10", 50)).cast("A figure", {"ViT": WHOLE, "untrained": WHOLE})
    assert list(cast.guesses) == ["ViT"] and float(cast.guesses["ViT"].mean()) > 0.5
    assert casting(WHOLE).cast("A figure", {"ViT": WHOLE}).guesses == {}


def test_the_block_without_skips_is_found():
    cast = casting(WHOLE).cast("Figure 8", {"middle": "zoo/vit-cls-noskip-middle"})
    recipe = zoo.card("zoo/vit-cls-noskip-middle")["recipe"]
    assert companions.skipless_block(cast["middle"]) == recipe["skipless_block"]
    whole = casting(WHOLE).cast("Figure 8", {"intact": WHOLE})["intact"]
    with pytest.raises(VitcnnError, match=r"^zoo/vit-cls has all its skip connections: `noskip` takes models"):
        companions.skipless_block(whole)


def test_models_of_other_origin_beside_one_of_the_zoo_are_refused():
    with pytest.raises(VitcnnError, match=f"Figure 8: {THEIRS} cannot stand beside {WHOLE}"):
        casting(WHOLE).cast("Figure 8", {"middle": THEIRS})
    with pytest.raises(VitcnnError, match=f"Figure 8: {THEIRS} cannot stand beside {OURS}"):
        casting(THEIRS).cast("Figure 8", {"middle": THEIRS, "late": OURS})


def test_a_checkpoint_of_ones_own_stands_where_a_name_does():
    mine = {"name": "deit_tiny_patch16_224", "weights": "mine.safetensors"}
    assert companions.related(mine, THEIRS) and not companions.related(mine, WHOLE)
    assert casting(mine).own("Figure 13", {"ViT": mine, "ViT, small data": OURS}).names == {"ViT": mine}
    assert companions.beside(mine, WHOLE, THEIRS) == THEIRS and companions.beside(WHOLE, mine, WHOLE) == WHOLE
    assert companions.another_start(mine, mine, THEIRS) == THEIRS
    controls = casting(mine).controls(THEIRS)
    assert controls.names == {"untrained": mine, "second seed": THEIRS} and controls.cards == {}
    shown = Cast("Figure 1", {"ViT": mine}, LARGE)._repr_html_()
    assert "<code>deit_tiny_patch16_224, mine.safetensors</code>" in shown


def test_the_reader_is_told_and_names_cannot_write_the_page():
    text = Cast("Figure 8", {OURS: OURS, "intact": TWIN, "untrained": TWIN}, LARGE, stand_in=True)._repr_html_()
    assert text.startswith(f"<p><strong>Figure 8</strong> shows <code>{OURS}</code>, intact <code>{TWIN}</code>")
    assert "models of the zoo, as this edition has none of its own" in text
    hostile = Images("<svg onload=alert()>", LARGE.pixels)
    text = Cast("<b>", {"<i>": "<script>"}, hostile)._repr_html_()
    assert not any(tag in text for tag in ("<b>", "<i>", "<script>", "<svg"))
