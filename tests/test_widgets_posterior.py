"""The slider of chapter 04 without a browser: its curves against Bayes on a grid, swept over each control."""

import math
import re
import time

import ipywidgets
import numpy as np
import pytest

from ddpm_edu import plotting, widgets

BETA = [0.1 + 0.4 * k / 9 for k in range(10)]  # beta_1..beta_10


def bell(x, mean, var):
    return np.exp(-((x - mean) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)


def laws(t, x0, xt):
    """Prior and likelihood at x_{t-1} on a fine grid, from the betas alone."""
    x = np.linspace(-9, 9, 36_001)
    before, beta = math.prod(1 - b for b in BETA[: t - 1]), BETA[t - 1]
    return x, bell(x, math.sqrt(before) * x0, 1 - before), bell(xt, math.sqrt(1 - beta) * x, beta)


@pytest.mark.parametrize("t", [2, 6, 10])
@pytest.mark.parametrize("x0", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("xt", [-2.0, 0.0, 2.0])
def test_posterior_curves_are_bayes_on_a_grid(t, x0, xt):
    data = widgets.posterior_curves(t, x0, xt)
    x, prior, likelihood = laws(t, x0, xt)
    posterior = prior * likelihood
    for one, y in zip(data["series"], (prior, likelihood, posterior), strict=True):
        want = np.interp(one["x"], x, y / (y.sum() * (x[1] - x[0])))
        np.testing.assert_allclose(one["y"], want, atol=1e-5)
    mean = (posterior * x).sum() / posterior.sum()
    var = (posterior * (x - mean) ** 2).sum() / posterior.sum()
    precisions = 1 / (1 - math.prod(1 - b for b in BETA[: t - 1])), (1 - BETA[t - 1]) / BETA[t - 1]
    share = precisions[0] / sum(precisions)
    shown = [float(number.replace("−", "-")) for number in re.findall(r"−?\d+\.\d+", data["readout"])]
    np.testing.assert_allclose(shown[:2], [mean, var], atol=0.00051)
    np.testing.assert_allclose(shown[2:], [share, 1 - share], atol=0.0051)
    assert data["readout"].startswith(f"t = {t}: mean ") and "variance" in data["readout"]


def test_posterior_curves_say_what_they_draw():
    data = widgets.posterior_curves(5, 0.8, -0.6)
    assert [one["label"] for one in data["series"]] == ["forecast", "hindsight", "posterior"]
    colours = [plotting.COLOURS[key] for key in ("prior", "noise", "posterior")]
    assert [one["colour"] for one in data["series"]] == colours
    assert len({one["dash"] for one in data["series"]}) == 3
    assert max(max(one["y"]) for one in widgets.posterior_curves(2, 0.8, -0.6)["series"]) < data["ylim"][1]
    assert (data["xlim"], data["xlabel"], data["ylabel"]) == ([-3.5, 3.5], "xₜ₋₁", "density")


@pytest.mark.parametrize("t", [1, 11, 0, -1])
def test_posterior_curves_refuse_other_times(t):
    with pytest.raises(ValueError, match=rf"t: expected 2\.\.10, got {t}"):
        widgets.posterior_curves(t, 0.0, 0.0)


def test_posterior_slider_redraws_at_minimum_middle_and_maximum():
    t, x0, xt, view = widgets.posterior_slider().children
    assert (view.name, [c.description for c in (t, x0, xt)]) == ("posterior", ["t", "x₀", "xₜ"])
    assert isinstance(t, ipywidgets.IntSlider) and (t.min, t.max) == (2, 10)
    assert (x0.min, x0.max, xt.min, xt.max) == (-1, 1, -2, 2)
    assert view.data == widgets.posterior_curves(5, 0.8, -0.6)
    for control, middle in ((t, 6), (x0, 0.0), (xt, 0.0)):
        for value in (control.min, middle, control.max):
            control.value = value
            assert view.data == widgets.posterior_curves(t.value, x0.value, xt.value)
    assert all("ddpm-slider-posterior" in control._dom_classes for control in (t, x0, xt))


def test_posterior_slider_falls_back_to_a_picture_of_two_times(monkeypatch):
    drawn = []
    original = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawn.extend(axes.flat) or original(axes))
    data, metadata = widgets.posterior_slider()._repr_mimebundle_()
    readouts = [widgets.posterior_curves(t, 0.8, -0.6)["readout"] for t in (2, 5)]
    assert [ax.get_title() for ax in drawn] == [readout.replace("; ", "\n") for readout in readouts]  # on two lines
    assert metadata["image/png"]["alt"] == data["text/plain"] != ""


def test_posterior_curves_are_fast():
    widgets.posterior_curves(5, 0.8, -0.6)
    start = time.perf_counter()
    for _ in range(20):
        widgets.posterior_curves(5, 0.8, -0.6)
    assert (time.perf_counter() - start) / 20 < 0.02  # about 1 ms; the margin is for a busy machine
