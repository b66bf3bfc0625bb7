"""The slider of chapter 10 without a browser: which digits a frame shows, and what it says of them."""

import io
import re
import time

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_edu import plotting, widgets

SCALES = [0.0, 0.5, 1.5, 3.0, 5.0]
ASKED = torch.arange(200) % 10


@pytest.fixture(scope="module")
def drawn():
    generator = torch.Generator().manual_seed(0)
    return {scale: torch.rand(200, 1, 8, 8, generator=generator) * 2 - 1 for scale in SCALES}


@pytest.fixture(scope="module")
def read():
    """At scale 0 nothing is read as asked, at 5 everything, between them the first ones of each class."""
    return {scale: torch.where(torch.arange(200) < 40 * scale, ASKED, (ASKED + 1) % 10) for scale in SCALES}


@pytest.mark.parametrize("y", [0, 4, 9])
@pytest.mark.parametrize("scale", SCALES)
def test_a_frame_shows_the_first_sixteen_of_its_class_and_counts_them(drawn, read, y, scale):
    picture, text = widgets.guided_digits(drawn, ASKED, read, y, scale)
    assert picture.shape == (1, 40, 40)
    images = [drawn[scale][y + 10 * k, 0].numpy().astype(float) for k in range(16)]
    for k, image in enumerate(images):
        top, left = 10 * (k // 4), 10 * (k % 4)
        framed = picture[0, top : top + 10, left : left + 10].numpy()
        np.testing.assert_array_equal(framed[1:-1, 1:-1], image.astype(np.float32))
        assert (framed[[0, -1]] == -1).all() and (framed[:, [0, -1]] == -1).all()
    hits = sum(y + 10 * k < 40 * scale for k in range(16))
    assert text.startswith(f"asked for a {y}, scale {scale:g}: {hits} of 16 are read as a {y}; ")
    distances = [np.sqrt(((a - b) ** 2).sum()) for i, a in enumerate(images) for b in images[:i]]
    assert float(re.search(r"mean distance of two (\d+\.\d+)$", text)[1]) == pytest.approx(np.mean(distances), abs=6e-3)


def test_bad_states(drawn, read):
    with pytest.raises(ValueError, match=r"scale: expected one of 0, 0\.5, 1\.5, 3, 5, got '2'"):
        widgets.guided_digits(drawn, ASKED, read, 7, 2.0)
    with pytest.raises(ValueError, match="y: expected a class that was asked for 16 times or more, got 10"):
        widgets.guided_digits(drawn, ASKED, read, 10, 0.0)


def test_guidance_slider_redraws_at_minimum_middle_and_maximum(drawn, read):
    y, scale, view = widgets.guidance_slider(drawn, ASKED, read).children
    assert (view.name, y.description, scale.description) == ("guidance", "digit", "scale S")
    assert isinstance(y, ipywidgets.IntSlider) and (y.min, y.max, y.value) == (0, 9, 7)
    assert isinstance(scale, ipywidgets.SelectionSlider) and list(scale.options) == SCALES
    for digit in (0, 5, 9):
        for value in SCALES:
            y.value, scale.value = digit, value
            picture, text = widgets.guided_digits(drawn, ASKED, read, digit, value)
            at = view.values.index(view.value)
            assert view.readouts[at] == text
            pixels = np.asarray(Image.open(io.BytesIO(view.frames[at])))
            np.testing.assert_allclose(pixels, (picture[0].numpy() + 1) * 127.5, atol=0.51)
    assert all("ddpm-slider-guidance" in control._dom_classes for control in (y, scale))


def test_guidance_slider_falls_back_to_a_picture_of_three_scales(drawn, read, monkeypatch):
    drawings = []
    original = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawings.extend(axes.flat) or original(axes))
    data, metadata = widgets.guidance_slider(drawn, ASKED, read)._repr_mimebundle_()
    shown = [widgets.guided_digits(drawn, ASKED, read, 7, scale)[1] for scale in (0.0, 0.5, 5.0)]
    assert [re.split(": |; ", text) for text in shown] == [ax.get_title().split("\n") for ax in drawings]
    assert metadata["image/png"]["alt"] == data["text/plain"] != ""


def test_a_state_is_fast(drawn, read):
    widgets.guided_digits(drawn, ASKED, read, 7, 1.5)
    start = time.perf_counter()
    for _ in range(20):
        widgets.guided_digits(drawn, ASKED, read, 7, 1.5)
    assert (time.perf_counter() - start) / 20 < 0.02  # under 1 ms; the margin is for a busy machine
