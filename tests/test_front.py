"""The picture of the front page: it stands alone, can be read on a phone, and glows where a pixel matters."""

import base64
import io
from xml.etree import ElementTree

import front
import numpy as np
import xarray as xr
from PIL import Image

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_stands_alone_and_can_be_read_on_a_phone():
    fields = xr.DataArray(np.random.default_rng(0).uniform(0.1, 1, (front.SHEETS, 8, 8)), dims=("layer", "y", "x"))
    picture = ElementTree.fromstring(front.compose(fields, fields))
    links = [image.attrib["href"] for image in picture.iter(f"{SVG}image")]
    assert [link.startswith("data:image/png;base64,") for link in links] == [True] * 2 * front.SHEETS
    assert picture.attrib["aria-label"] == picture.find(f"{SVG}title").text
    sizes = [float(text.attrib["font-size"]) for text in picture.iter(f"{SVG}text")]
    assert min(sizes) * 360 / float(picture.attrib["viewBox"].split()[2]) >= 12


def test_what_matters_most_glows_brightest():
    field = np.full((32, 32), 1e-9)
    field[8, 24] = 1
    opacity = np.asarray(Image.open(io.BytesIO(base64.b64decode(front._glow(field)))))[..., 3]
    place = np.array(np.unravel_index(opacity.argmax(), opacity.shape)) // (len(opacity) // 32)
    assert place.tolist() == [8, 24] and opacity[0, 0] == 0
