"""The picture of the front page and the README: what one place sees, layer by layer, in a transformer and in a CNN.

    python scripts/front.py OUT.svg

Measured, not painted: the effective receptive fields of `zoo/vit-cls` and `zoo/resnet` (Fig 6), five depths each, as
glowing sheets stacked from the image upwards.
"""

import base64
import io
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from PIL import Image

from vitcnn_utils.images import load_images
from vitcnn_utils.measures.receptive_field import effective_receptive_fields
from vitcnn_utils.models.load import load_model

SHEETS = 5
_WIDTH, _HEIGHT = 720, 580
_DARKEST = 2e-3
"""The share of a field's largest value from which on down nothing glows."""
# A sheet lies flat and is seen from above at an angle: x goes right and down, y left and down.
_X, _Y, _STEP = (146, 49), (-146, 49), 82
_PIXELS = 160  # a side of a sheet's picture, so that the glow has soft edges at any size


def front_picture(path: str | Path, n_images: int = 16, channels: int = 4, seed: int = 0) -> None:
    """Writes the picture as an SVG that stands alone, with its own dark ground: it suits light and dark pages alike."""
    images = load_images("cifar10", n=n_images, size=32, seed=seed)
    fields = []
    for name, kind in (("zoo/resnet", "residual"), ("zoo/vit-cls", "attention")):
        model = load_model(name, device="cpu")
        places = [branch.name for branch in model.branches if branch.kind == kind]
        chosen = [places[i] for i in np.linspace(0, len(places) - 1, SHEETS).round().astype(int)]
        fields.append(effective_receptive_fields(model, images, chosen, channels=channels, seed=seed))
    Path(path).write_text(compose(*fields), encoding="utf-8")


def compose(cnn: xr.DataArray, vit: xr.DataArray) -> str:
    """The SVG of two stacks of receptive fields (layer, y, x), lowest layer first."""
    title = (
        "Effective receptive fields of a convolutional network and of a vision transformer, five sheets each, stacked "
        "from the first layer to the last: bright where a pixel matters for the place at the centre."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
        f"<title>{title}</title>"
        '<defs><radialGradient id="front-ground" cx="50%" cy="45%" r="75%"><stop offset="0" stop-color="#1b1430"/>'
        '<stop offset="1" stop-color="#07060d"/></radialGradient></defs>'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="18" fill="url(#front-ground)"/>'
        f"{_stack(cnn, 178, 'CNN')}{_stack(vit, 542, 'Transformer')}{_axis()}</svg>\n"
    )


def _stack(fields: xr.DataArray, x: float, label: str) -> str:
    sheets = "".join(_sheet(field, x, _HEIGHT - 176 - i * _STEP) for i, field in enumerate(fields.values))
    return sheets + _text(x, _HEIGHT - 34, label, 34, "middle")


def _sheet(field: np.ndarray, x: float, y: float) -> str:
    """A field as a slanted picture whose upper corner is at (x, y)."""
    matrix = " ".join(f"{v / _PIXELS:.4f}" for v in (*_X, *_Y)) + f" {x} {y}"
    frame = f'<rect width="{_PIXELS}" height="{_PIXELS}" fill="#0b0817" fill-opacity="0.55" stroke="#7a6aa8"'
    return (
        f'<g transform="matrix({matrix})">{frame} stroke-opacity="0.55" stroke-width="1.2"/>'
        f'<image width="{_PIXELS}" height="{_PIXELS}" href="data:image/png;base64,{_glow(field)}"/></g>'
    )


def _glow(field: np.ndarray) -> str:
    """The field in log colour as a PNG, base64: dark is transparent, so that sheets shine through one another."""
    level = np.log10(np.maximum(field / field.max(), _DARKEST)) / -np.log10(_DARKEST) + 1  # 0 to 1
    smooth = np.asarray(Image.fromarray(level.astype(np.float32)).resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC))
    smooth = smooth.clip(0, 1)
    rgba = mpl.colormaps["inferno"](0.15 + 0.85 * smooth)
    rgba[..., 3] = smooth**0.7
    buffer = io.BytesIO()
    Image.fromarray((rgba * 255).round().astype(np.uint8)).save(buffer, format="png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _axis() -> str:
    low, high = _HEIGHT - 120, 96
    arrow = f"M{_WIDTH / 2} {low}V{high}m-7 12l7 -12l7 12"
    return (
        f'<path d="{arrow}" fill="none" stroke="#b9aee0" stroke-width="2.2" stroke-linecap="round"/>'
        + _text(_WIDTH / 2, low + 28, "first layer", 26, "middle")
        + _text(_WIDTH / 2, high - 16, "last layer", 26, "middle")
    )


def _text(x: float, y: float, text: str, size: int, anchor: str) -> str:
    style = f'font-family="system-ui, sans-serif" font-size="{size}" text-anchor="{anchor}" fill="#efeafc"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{text}</text>'


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/front.py OUT.svg")
    front_picture(sys.argv[1])
