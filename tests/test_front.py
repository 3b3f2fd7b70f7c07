"""The picture of the front page: it stands alone, can be read on a phone, and glows where a pixel matters."""

import base64
import io
from xml.etree import ElementTree

import front
import numpy as np
import pytest
import xarray as xr
from PIL import Image

SVG = "{http://www.w3.org/2000/svg}"
FIELDS = xr.DataArray(np.random.default_rng(0).uniform(0.1, 1, (front.SHEETS, 8, 8)), dims=("layer", "y", "x"))


@pytest.fixture
def picture():
    return ElementTree.fromstring(front.compose(FIELDS, FIELDS))


def test_it_stands_alone_on_its_own_ground(picture):
    assert len(list(picture.iter(f"{SVG}image"))) == 2 * front.SHEETS
    assert all(image.attrib["href"].startswith("data:image/png;base64,") for image in picture.iter(f"{SVG}image"))
    ground = next(picture.iter(f"{SVG}rect"))
    assert ground.attrib["fill"] == "url(#front-ground)"
    assert picture.attrib["aria-label"] == picture.find(f"{SVG}title").text


def test_it_can_be_read_on_a_phone(picture):
    width = float(picture.attrib["viewBox"].split()[2])
    sizes = [float(text.attrib["font-size"]) for text in picture.iter(f"{SVG}text")]
    assert min(sizes) * 360 / width >= 12


def test_what_matters_most_glows_brightest():
    field = np.full((32, 32), 1e-9)
    field[8, 24] = 1
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(front._glow(field)))))
    scale = len(picture) // 32
    row, column = np.unravel_index(picture[..., 3].argmax(), picture.shape[:2])
    assert (row // scale, column // scale) == (8, 24)
    assert picture[0, 0, 3] == 0
