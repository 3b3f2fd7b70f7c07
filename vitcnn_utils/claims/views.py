"""Where each claim can be seen: an explorer of its chapter, the state that shows it, and what to look at there."""

from typing import Any, NamedTuple
from urllib.parse import urlencode

LAST = 999
"""The last layer, block or row: an explorer takes the nearest that there is."""


class View(NamedTuple):
    """An explorer's name in the chapter, what to look at in words, and its state."""

    explorer: str
    look: str
    state: dict[str, Any]

    @property
    def address(self) -> str:
        """What stands behind the page's name in a link."""
        return f"?{urlencode({'explorer': self.explorer, **self.state})}#explore-{self.explorer}"


def view_of(claim: str) -> View | None:
    """The view of a claim, by its id, if there is one."""
    alike = (view for start, view in VIEWS.items() if start.endswith("-") and claim.startswith(start))
    return VIEWS.get(claim) or next(alike, None)


def _view(explorer: str, look: str, **state: Any) -> View:
    return View(explorer, look, state)


# By id, or by what ids begin with that end in a number or a read-out.
VIEWS = {
    "fig-1-low-high": _view("similarity", "the ViT's first layer with its last", pair=0, row=LAST, column=0),
    "fig-1-uniform": _view("similarity", "how even the ViT's map is; then choose the CNN's", pair=0, axes="depth"),
    "fig-1-stages": _view("similarity", "whether bright squares lie along the CNN's diagonal", pair=1, axes="depth"),
    "fig-1-grid": _view("similarity", "whether stripes repeat with every block", pair=0, axes="number"),
    "fig-2-lower-half": _view("similarity", "the brightest cell of a low CNN layer", pair=2, axes="depth", column=15),
    "fig-2-upper-half": _view("similarity", "the brightest cell of a high CNN layer", pair=2, axes="depth", column=75),
    "fig-2-ahead": _view("similarity", "whether the ridge lies below the diagonal", pair=2, axes="depth", column=45),
    "fig-2-last-third": _view("similarity", "the row of the ViT's last layer", pair=2, axes="depth", row=LAST),
    "fig-2-cls": _view("similarity", "the row of the ViT's last layer", pair=2, axes="depth", row=LAST),
    "heads-cka": _view("similarity-cutmix", "the ViT's low layers with CutMix, then without it", pair=0, axes="depth",
                       row=2),
    "heads-field": _view("field-cutmix", "the fields of both in a low layer", layer=1, scale="log"),
    "heads-places": _view("places-cutmix", "which patches one token of the last block is like", row=3, column=3,
                          curve="token"),
    "heads-": _view("attention-cutmix", "block 0 of the model with CutMix, then of the one without", model=0, block=0),
    "fig-3-mix": _view("attention", "the heads of block 0, one by one", model=0, block=0),
    "fig-3-global": _view("attention", "the heads of the last block, one by one", model=0, block=LAST),
    "fig-4-little-data": _view("attention", "block 0 after training on little data", model=1, block=0),
    "fig-4-accuracy": _view("attention", "where the model with little data looks", model=1, block=LAST, token=0),
    "fig-4-small-model": _view("attention", "block 0 of the larger model with little data", model=1, block=0),
    "fig-5-groups-of-": _view("attention", "how far the heads of block 0 look, which makes the groups", block=0),
    "fig-6-early": _view("receptive_field", "both fields in a low layer", layer=2, addition="after"),
    "fig-6-midway": _view("receptive_field", "how the ViT's field grows around the middle", layer=8, addition="after"),
    "fig-6-centre": _view("receptive_field", "the ViT's own patch in its last layer", layer=LAST, scale="linear"),
    "fig-c4-attention": _view("receptive_field", "the own patch, before the addition and after", layer=8,
                              addition="before", scale="linear"),
    "fig-c4-others": _view("receptive_field", "the CNN's field, before the addition and after", layer=9,
                           addition="before", scale="linear"),
    "fig-7-transition": _view("skip_ratios", "CLS beside the spatial tokens in block 0", model=0, block=0, token=0),
    "fig-7-vit-above-cnn": _view("skip_ratios", "the ViT's lines beside the CNN's", model=0, branch="attention"),
    "fig-7-late-cls": _view("skip_ratios", "CLS in the last block's MLP", model=0, block=LAST, branch="mlp", token=0),
    "fig-7-early-spatial": _view("skip_ratios", "the line of the spatial tokens over the blocks", model=0, block=0),
    "fig-8-split": _view("similarity-without-skips", "whether it falls into two bright squares", pair=2),
    "fig-8-accuracy": _view("similarity-without-skips", "the map of the model that is tested", pair=2),
    "fig-9-interior-last": _view("localization", "the share of tokens that find their patch", layer=LAST,
                                 curve="found"),
    "fig-9-interior-last-but-one": _view("localization", "the same, one block earlier", layer=7, curve="found"),
    "fig-9-border": _view("localization", "which patches a token of the corner is like", layer=LAST, row=0, column=0),
    "fig-9-vit-above-cnn": _view("localization", "the ViT's line beside the CNN's", layer=LAST, curve="found"),
    "fig-d3-last-stage": _view("localization", "the CNN's line from unit to unit", layer=LAST, curve="found"),
    "fig-10-readout": _view("localization", "the ViT's line beside the ViT-GAP's", layer=LAST, curve="found",
                            scale="common"),
    "fig-11-single-tokens": _view("probes", "all models by single tokens, last layer", readout="token", layer=LAST),
    "fig-11-one-token": _view("probes", "the read-outs of the ViT-GAP, last layer", model=1, readout="token",
                              layer=LAST),
    "fig-11-native": _view("probes", "the ViT by CLS, beside the ViT-GAP by the mean", readout="cls", layer=LAST),
    "fig-11-plateau": _view("probes", "the ViT's CLS token beside its pooled tokens", model=0, readout="mean",
                            layer=LAST),
    "fig-11-first-token": _view("probes", "the ViT-GAP's first token over depth", model=1, readout="first token",
                                layer=2),
    "fig-12-": _view("similarity-by-data", "the diagonal, from the first block to the last", pair=0),
    "fig-13-data-": _view("probes", "ViT and CNN, each with all data and with little", readout="mean", shown=15,
                         layer=5),
    "fig-13-architecture-cls-token": _view("probes", "the ViT by its CLS token", readout="cls", model=0, layer=5),
    "fig-13-architecture-": _view("probes", "ViT, CNN and ViT-GAP by the mean of all places", readout="mean",
                                  shown=35, layer=5),
}  # fmt: skip
