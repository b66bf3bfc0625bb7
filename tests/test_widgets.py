"""Sliders without a browser: each state function against the maths, swept at minimum, middle and maximum."""

import io
import math

import ipywidgets
import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget, widget_link
from PIL import Image

from ddpm_edu import plotting, schedules, widgets
from ddpm_edu.widgets import panels

LINEAR = schedules.linear()
PICTURE = torch.linspace(-1, 1, 3 * 8 * 8, dtype=torch.float64).reshape(3, 8, 8)
NOISE = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("t", [1, 500, 1000])
def test_noised_is_the_closed_form(t):
    xt, text = widgets.noised(LINEAR, PICTURE, NOISE, t)
    alpha_bar = math.prod(1 - LINEAR.beta[k].item() for k in range(1, t + 1))
    want = math.sqrt(alpha_bar) * PICTURE + math.sqrt(1 - alpha_bar) * NOISE
    torch.testing.assert_close(xt, want, rtol=1e-10, atol=1e-12)
    db = 10 * math.log10(alpha_bar / (1 - alpha_bar))
    assert f"t = {t}:" in text and f"{math.sqrt(alpha_bar):.3f} × picture" in text
    assert f"{math.sqrt(1 - alpha_bar):.3f} × noise" in text and f"{db:.1f} dB".replace("-", "−") in text


def test_noised_at_0_is_the_picture():
    xt, text = widgets.noised(LINEAR, PICTURE, NOISE, 0)
    assert torch.equal(xt, PICTURE) and "the picture itself" in text


@pytest.mark.parametrize("t", [-1, 1001])
def test_noised_refuses_other_times(t):
    with pytest.raises(ValueError, match=r"t: expected 0\.\.1000"):
        widgets.noised(LINEAR, PICTURE, NOISE, t)


def test_noise_slider_holds_one_frame_for_every_position():
    panel = widgets.noise_slider(LINEAR, PICTURE, NOISE)
    slider, view = panel.children
    positions = list(range(slider.min, slider.max + 1, slider.step))
    assert view.values == positions and positions[0] == 0 and positions[-1] == 1000
    assert len(view.frames) == len(view.readouts) == len(positions)
    for k in (0, len(positions) // 2, len(positions) - 1):
        xt, text = widgets.noised(LINEAR, PICTURE, NOISE, positions[k])
        assert view.readouts[k] == text
        shown = np.asarray(Image.open(io.BytesIO(view.frames[k])), dtype=float)
        want = (xt.clamp(-1, 1).permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.abs(shown - want).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("T", [10, 500, 1000])
@pytest.mark.parametrize("beta_T", [0.005, 0.15, 0.3])
def test_schedule_curves_are_the_shares_of_signal_and_noise(T, beta_T):
    data = widgets.schedule_curves(T, beta_T)
    signal, noise = data["series"]
    alpha_bar, at_time = 1.0, {0: 1.0}
    for t in range(1, T + 1):
        alpha_bar *= 1 - (1e-4 + (beta_T - 1e-4) * (t - 1) / (T - 1))
        at_time[t] = alpha_bar
    for x, y_signal, y_noise in zip(signal["x"], signal["y"], noise["y"], strict=True):
        want = at_time[round(x * T)]
        assert y_signal == pytest.approx(math.sqrt(want), rel=1e-9)
        assert y_noise == pytest.approx(math.sqrt(1 - want), rel=1e-9, abs=1e-12)
    assert signal["x"][0] == 0 and signal["x"][-1] == 1
    nats = 0.5 * (alpha_bar * (1 / 3 - 1) - math.log1p(-alpha_bar))
    assert data["verdict"]["good"] == (nats / math.log(2) < 1e-3)
    assert ("x_T is not noise" in data["verdict"]["text"]) != data["verdict"]["good"]
    assert f"ᾱ_T = {alpha_bar:.2g}" in data["readout"] and f"{nats / math.log(2):.2g} bits/dim" in data["readout"]


def test_schedule_slider_redraws_at_minimum_middle_and_maximum():
    panel = widgets.schedule_slider()
    T, beta_T, view = panel.children
    assert view.data == widgets.schedule_curves(1000, 0.02)
    for value in (T.min, 500, T.max):
        T.value = value
        assert view.data == widgets.schedule_curves(value, beta_T.value)
    T.value = 50
    for value in (beta_T.min, 0.15, beta_T.max):
        beta_T.value = value
        assert view.data == widgets.schedule_curves(50, value)


@pytest.mark.parametrize("make", [widgets.schedule_slider, lambda: widgets.noise_slider(LINEAR, PICTURE, NOISE)])
def test_panels_fall_back_to_a_picture_with_alt_text(make):
    panel = make()
    data, metadata = panel._repr_mimebundle_()
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 200
    assert metadata["image/png"]["alt"] == data["text/plain"] != ""
    assert "application/vnd.jupyter.widget-view+json" in data


@pytest.mark.parametrize("make", [widgets.schedule_slider, lambda: widgets.noise_slider(LINEAR, PICTURE, NOISE)])
def test_controls_and_views_carry_the_classes_that_the_browser_test_looks_for(make):
    *controls, view = make().children
    for control in controls:
        assert f"ddpm-slider-{view.name}" in control._dom_classes
        assert control.description and control.continuous_update


@pytest.mark.parametrize("T", [10, 130])
def test_noise_slider_refuses_frames_that_do_not_divide_T(T):
    with pytest.raises(ValueError, match=f"frames: expected a divisor of T = {T}, got 50"):
        widgets.noise_slider(schedules.linear(T, 0.01, 0.3), PICTURE, NOISE)


def test_verdict_has_the_palette_s_colours():
    good, bad = (widgets.schedule_curves(T, 0.02)["verdict"] for T in (1000, 50))
    assert good["good"] and good["colour"] == plotting.COLOURS["posterior"]
    assert not bad["good"] and bad["colour"] == plotting.COLOURS["x0_hat"]


def test_noise_slider_is_linked_starts_at_the_clean_picture_and_has_51_positions(monkeypatch):
    strips = []
    real = plotting.image_strip
    monkeypatch.setattr(plotting, "image_strip", lambda *a, **k: strips.append((a, k)) or real(*a, **k))
    ipywidgets.Widget.close_all()
    panel = widgets.noise_slider(LINEAR, PICTURE, NOISE)
    slider, view = panel.children
    assert slider.value == view.value == 0 and len(view.values) == 51 and view.name == "noise"
    [link] = [one for one in widget._instances.values() if isinstance(one, widget_link.Link)]
    assert link.source == (slider, "value") and link.target == (view, "value")
    assert view.alt == panel.alt != ""
    [(([rows], titles), _)] = strips
    times = [0, 200, 400, 600, 800, 1000]
    for picture, title, t in zip(rows, titles, times, strict=True):
        xt, text = widgets.noised(LINEAR, PICTURE, NOISE, t)
        assert torch.equal(picture, xt) and title.startswith(f"t = {t}\n")
        assert title.endswith("clean" if t == 0 else text.rpartition("SNR ")[2])


@pytest.mark.parametrize("T, points", [(10, 11), (100, 101), (1000, 101)])
def test_schedule_curves_say_what_they_draw(T, points):
    data = widgets.schedule_curves(T, 0.015)
    picture, noise = data["series"]
    assert len(picture["x"]) == len(noise["x"]) == points
    assert (picture["label"], noise["label"]) == ("picture √ᾱₜ", "noise √(1−ᾱₜ)")
    assert (picture["colour"], noise["colour"]) == (plotting.COLOURS["data"], plotting.COLOURS["noise"])
    assert picture["dash"] == "" and noise["dash"] != ""
    assert data["xlim"] == [0, 1] and data["ylim"][0] == 0 and data["ylim"][1] >= 1
    assert data["readout"].startswith(f"T = {T}, β_T = 0.015: ")
    assert data["verdict"]["text"].endswith("(limit 0.001 bits/dim)")


def test_schedule_slider_draws_a_good_and_a_bad_schedule_where_no_kernel_runs(monkeypatch):
    drawn = []
    real = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawn.append(axes) or real(axes))
    panel = widgets.schedule_slider()
    T, beta_T, view = panel.children
    assert view.name == "schedule" and view.alt == panel.alt != ""
    assert (T.min, T.max, T.step) == (10, 1000, 10) and (beta_T.min, beta_T.max, beta_T.step) == (0.005, 0.3, 0.005)
    [axes] = drawn
    for ax, steps in zip(np.ravel(axes), (1000, 50), strict=True):
        data = widgets.schedule_curves(steps, 0.02)
        assert ax.get_title() == f"{data['readout']}\n{data['verdict']['text']}"
        for line, series in zip(ax.lines, data["series"], strict=True):
            assert line.get_ydata() == pytest.approx(series["y"]) and line.get_color() == series["colour"]
            assert line.get_linestyle() == ("--" if series["dash"] else "-") and line.get_label() == series["label"]


BARS = {
    "series": [
        {"label": "one", "colour": "#0072B2", "dash": "", "kind": "bar", "x": [0, 1], "y": [2.0, 3.0]},
        {"label": "two", "colour": "#D55E00", "dash": "", "kind": "bar", "x": [0, 1], "y": [1.0, -1.0]},
        {"label": "area", "colour": "#009E73", "dash": "7 4", "kind": "area", "x": [0, 1], "y": [0.5, 1.5]},
    ],
    "xlabel": "term", "ylabel": "nats", "xlim": [-0.5, 1.5], "ylim": [-2, 4], "xticks": [0, 1], "yticks": [-1, 0, 3],
    "xlabels": ["L_T", "L_0"], "ylabels": ["low", "zero", "high"], "readout": "two terms",
}  # fmt: skip


def test_static_bars_stand_side_by_side_and_an_area_is_filled_to_zero(monkeypatch):
    drawn = []
    real = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawn.append(axes) or real(axes))
    assert Image.open(io.BytesIO(panels.static_curves(BARS))).size[0] > 200
    [[[ax]]] = drawn
    lefts = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in ax.patches]
    want = [(-0.4, 0.4, 2.0), (0.6, 0.4, 3.0), (0.0, 0.4, 1.0), (1.0, 0.4, -1.0)]
    assert lefts == [pytest.approx(bar, abs=1e-12) for bar in want]
    [line], [area] = ax.lines, ax.collections
    assert line.get_ydata() == pytest.approx([0.5, 1.5]) and line.get_linestyle() == "--"
    assert area.get_paths()[0].vertices[:, 1].min() == 0 and area.get_paths()[0].vertices[:, 1].max() == 1.5
    assert [label.get_text() for label in ax.get_xticklabels()] == ["L_T", "L_0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["low", "zero", "high"]
    assert ax.get_title() == "two terms"
