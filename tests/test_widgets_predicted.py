"""The slider of chapter 13 without a browser: what is shown of a recorded chain, what the line says, what is sent."""

import dataclasses
import io
import math

import ipywidgets
import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget, widget_link
from PIL import Image

from ddpm_edu import plotting, schedules, trajectory, widgets

S = schedules.cosine(150)
TIMES = list(range(150, 0, -15))


def recorded(channels=3):
    def model(xt, t):
        return 0.6 * xt + 0.3 * torch.sin(3 * xt + t.reshape(-1, 1, 1, 1) / 20)

    return trajectory.record(S, model, (channels, 4, 5), seed=2)


@pytest.fixture(scope="module")
def tr():
    return recorded()


def minus(text):
    return text.replace("-", "−")


@pytest.mark.parametrize("sample", [1, 4, 8])
@pytest.mark.parametrize("k", [0, 5, 9])
def test_the_clamp_cuts_the_prediction_and_the_noise_goes_with_it(tr, k, sample):
    t, abar = TIMES[k], float(S.alpha_bar[TIMES[k]])
    xt, x0_hat = (tensor[sample - 1, k].double().numpy() for tensor in (tr.xt, tr.x0_hat))
    low, high = x0_hat.min(), x0_hat.max()
    own = -1 + 2 * (x0_hat - low) / (high - low)
    for clamp, used, shown in (("on", x0_hat.clip(-1, 1), x0_hat.clip(-1, 1)), ("off", x0_hat, own)):
        pictures, text = widgets.predicted_state(tr, k, sample, clamp)
        assert pictures.shape == (3, 3, 4, 5)
        eps_hat = (xt - math.sqrt(abar) * used) / math.sqrt(1 - abar)
        np.testing.assert_allclose(pictures[0], xt.clip(-1, 1), atol=1e-6)
        np.testing.assert_allclose(pictures[1], shown, atol=1e-5)
        np.testing.assert_allclose(pictures[2], eps_hat.clip(-1, 1), atol=1e-4)
        assert text.startswith(f"t = {t}: ᾱₜ = ")
        outside = 100 * np.mean((x0_hat < -1) | (x0_hat > 1))
        assert f" {outside:.1f} % of x̂₀ is outside [−1, 1], " in text
        assert text.endswith("and cut off.") == (clamp == "on")
    numbers = [f"{one:.0f}" if abs(one) >= 100 else f"{one:.3g}" for one in (low, high)]
    assert text.endswith(minus(f"shown from {numbers[0]} to {numbers[1]}."))


def test_the_line_says_how_errors_grow(tr):
    for k, want in ((0, "ᾱₜ = 1.08e−07, √(1−ᾱₜ)/√ᾱₜ = 3044."), (5, "ᾱₜ = 0.494, √(1−ᾱₜ)/√ᾱₜ = 1.01.")):
        abar = S.alpha_bar[TIMES[k]].item()
        assert math.sqrt((1 - abar) / abar) == pytest.approx(float(want.split()[-1][:-1]), rel=5e-3)
        assert abar == pytest.approx(float(want.split()[2][:-1].replace("−", "-")), rel=5e-3)
        assert f"t = {TIMES[k]}: {want} " in widgets.predicted_state(tr, k, 1, "on")[1]


def test_a_flat_prediction_is_shown_without_dividing_by_nothing(tr):
    flat = dataclasses.replace(tr, x0_hat=torch.full_like(tr.x0_hat, 0.3))
    pictures, text = widgets.predicted_state(flat, 3, 1, "off")
    assert pictures.isfinite().all() and text.endswith("shown from 0.3 to 0.3.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 1, "on"), "t_index: expected 0..9, got 10"),
        ((-1, 1, "on"), "t_index: expected 0..9, got -1"),
        ((0, 0, "on"), "sample: expected 1..8, got 0"),
        ((0, 9, "on"), "sample: expected 1..8, got 9"),
        ((0, 1, "maybe"), "clamp: expected one of on, off, got 'maybe'"),
    ],
)
def test_bad_states(tr, arguments, message):
    with pytest.raises(ValueError, match=message):
        widgets.predicted_state(tr, *arguments)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_state_is_sent_where_the_browser_looks_for_it(tr, channels):
    tr = tr if channels == 3 else recorded(1)
    *_, view = widgets.predicted_slider(tr).children
    sheets = [np.asarray(Image.open(io.BytesIO(sheet))).astype(float) for sheet in view.sheets]
    assert [sheet.shape[:2] for sheet in sheets] == [(40, 40), (40, 80), (40, 80)] and view.columns == [8, 16, 16]
    assert len(view.readouts) == 160 and view.samples == 8 and len(view.labels) == 3
    for setting, clamp in enumerate(("on", "off")):
        for sample in (1, 5, 8):
            for frame in (0, 4, 9):
                column = setting * 8 + sample - 1  # as predicted.js computes it
                pictures, text = widgets.predicted_state(tr, frame, sample, clamp)
                assert view.readouts[column * 10 + frame] == text
                for sheet, columns, picture in zip(sheets, view.columns, pictures, strict=True):
                    left = 5 * (column % columns)
                    got = sheet[4 * frame : 4 * frame + 4, left : left + 5]
                    want = (picture.permute(1, 2, 0).squeeze(2).numpy() + 1) / 2 * 255
                    np.testing.assert_allclose(got, want, atol=255 / 63 / 2 + 0.51)


def test_the_controls_choose_in_the_browser(tr):
    before = set(widget._instances)
    panel = widgets.predicted_slider(tr)
    t, sample, clamp, view = panel.children
    assert isinstance(t, ipywidgets.SelectionSlider) and list(t.options) == TIMES and t.index == 0
    assert isinstance(sample, ipywidgets.IntSlider) and (sample.min, sample.max, sample.value) == (1, 8, 1)
    assert isinstance(clamp, ipywidgets.SelectionSlider) and list(clamp.options) == ["on", "off"] and clamp.index == 0
    assert (view.name, view.frame, view.sample, view.setting) == ("predicted", 0, 1, 0)
    for control, label in ((t, "t"), (sample, "sample"), (clamp, "clamp")):
        assert control.description == label and "ddpm-slider-predicted" in control._dom_classes
    new = [one for key, one in widget._instances.items() if key not in before]
    links = {one.source: one.target for one in new if isinstance(one, widget_link.Link)}
    assert links == {
        (t, "index"): (view, "frame"),
        (sample, "value"): (view, "sample"),
        (clamp, "index"): (view, "setting"),
    }


def test_without_a_kernel_there_is_a_picture_of_the_first_chain(tr, monkeypatch):
    drawn = []
    original = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawn.append(axes) or original(axes))
    data, metadata = widgets.predicted_slider(tr)._repr_mimebundle_()
    [axes] = drawn
    shown = [0, 1, 3, 4, 5, 6, 8, 9]
    assert [ax.get_title() for ax in axes[0]] == [f"t = {TIMES[k]}" for k in shown]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["$x_t$", r"$\hat x_0$", r"$\hat\epsilon$"]
    for column, k in enumerate(shown):
        pictures, _ = widgets.predicted_state(tr, k, 1, "on")
        for row in range(3):
            want = (pictures[row].permute(1, 2, 0) + 1) / 2
            np.testing.assert_allclose(axes[row, column].images[0].get_array(), want, atol=1e-6)
    assert metadata["image/png"]["alt"] == data["text/plain"] != "" and data["image/png"]
