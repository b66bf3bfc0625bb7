"""The slider of chapter 09 without a browser: its walkers step by step, its curves against independent formulas."""

import math
import re
import time

import ipywidgets
import numpy as np
import pytest
import torch

from ddpm_edu import plotting, widgets
from ddpm_edu.widgets import langevin

CORNERS = [
    (eta, tau, k, start) for eta in (0.05, 1.05, 2.1) for tau in (0.2, 1.5, 3.0) for k, start in ((1, -4), (50, 4))
]


@pytest.mark.parametrize(
    ("eta", "tau", "k", "start"), [(0.05, 0.1, 1, -4.0), (0.3, 1.5, 37, 0.5), (2.1, 3.0, 100, 4.0)]
)
def test_walkers_go_step_by_step(eta, tau, k, start):
    x = torch.full((4000,), start, dtype=torch.float64)
    for z in langevin._noise()[:k]:
        x = x + eta * -x + math.sqrt(2 * eta * tau) * z
    torch.testing.assert_close(widgets.langevin_walkers(eta, tau, k, start), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("eta", "tau", "k", "start"), CORNERS)
def test_langevin_curves_against_the_recursion(eta, tau, k, start):
    mean, var = start, 0.0
    for _ in range(k):
        mean, var = (1 - eta) * mean, (1 - eta) ** 2 * var + 2 * eta * tau
    walkers, wanted, law, mark = widgets.langevin_curves(eta, tau, k, start)["series"]
    assert mark["x"] == [start, start]
    x = np.array(law["x"])
    np.testing.assert_allclose(law["y"], bell(x, mean, var), atol=1e-9)
    np.testing.assert_allclose(wanted["y"], bell(x, 0, tau), atol=1e-9)
    # the bars hold the share of the walkers that is in view, as the law says
    edges = np.linspace(-6, 6, 61)
    share = np.diff([0.5 * math.erf((edge - mean) / math.sqrt(2 * var)) for edge in edges])
    got = np.array(walkers["y"]) * 0.2
    assert np.abs(got - share).max() < 5 * np.sqrt(share.max() / 4000) + 1e-9
    assert abs(got.sum() - share.sum()) < 5 * 0.5 / math.sqrt(4000)


def bell(x, mean, var):
    return np.exp(-((x - mean) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var)


@pytest.mark.parametrize("eta", [0.05, 0.5, 1.05, 1.95])
@pytest.mark.parametrize("tau", [0.2, 1.0, 3.0])
def test_the_readout_holds_the_exact_limit(eta, tau):
    var = 0.0
    for _ in range(5000):
        var = (1 - eta) ** 2 * var + 2 * eta * tau
    data = widgets.langevin_curves(eta, tau, 100, 3.0)
    shown = [float(number) for number in re.findall(r"\d+\.?\d*", data["readout"])]
    np.testing.assert_allclose(shown[:4], [3.0, eta, tau, 100])
    np.testing.assert_allclose(shown[4], math.sqrt(var), rtol=0.06)  # the walkers
    np.testing.assert_allclose(shown[5:], [math.sqrt(var), math.sqrt(tau)], atol=0.00051)
    wide = math.sqrt(var / tau) - 1
    assert data["verdict"]["good"] == (wide < 0.05)
    assert data["verdict"]["text"] == f"in the limit the sd is too large by {100 * wide:.0f} %"


@pytest.mark.parametrize(("eta", "limit"), [(1.95, "limit 6.325"), (2.0, "no limit"), (2.1, "no limit")])
def test_from_two_on_there_is_no_limit(eta, limit):
    data = widgets.langevin_curves(eta, 1.0, 100, 3.0)
    assert limit in data["readout"]
    assert ("run away" in data["verdict"]["text"]) == (eta >= 2)
    assert not data["verdict"]["good"]


def test_langevin_curves_say_what_they_draw():
    data = widgets.langevin_curves(0.1, 1.0, 20, 3.0)
    assert [one["label"] for one in data["series"]] == ["walkers", "wanted", "law of xₖ", "start"]
    assert [one["colour"] for one in data["series"]] == [
        plotting.COLOURS[key] for key in ("model", "exact", "posterior", "data")
    ]
    assert [one["kind"] for one in data["series"]] == ["area", "line", "line", "line"]
    assert (data["xlim"], data["xlabel"], data["ylabel"]) == ([-6, 6], "x", "density")
    assert max(widgets.langevin_curves(0.1, 0.2, 20, 3.0)["series"][1]["y"]) < data["ylim"][1]
    assert data == widgets.langevin_curves(0.1, 1.0, 20, 3.0)  # the noise is fixed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, r"k: expected 1\.\.100, got 0"),
        ({"k": 101}, r"k: expected 1\.\.100, got 101"),
        ({"eta": 0.0}, r"eta: expected a number > 0, got 0\.0"),
        ({"tau": -1.0}, r"tau: expected a number > 0, got -1\.0"),
        ({"tau": math.nan}, "tau: expected a number > 0, got nan"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        widgets.langevin_curves(**{"eta": 0.1, "tau": 1.0, "k": 20, "start": 3.0, **change})


def test_langevin_slider_redraws_at_minimum_middle_and_maximum():
    eta, tau, k, start, view = widgets.langevin_slider().children
    assert (view.name, [c.description for c in (eta, tau, k, start)]) == ("langevin", ["η", "τ", "steps k", "start"])
    assert isinstance(k, ipywidgets.IntSlider) and (k.min, k.max) == (1, 100)
    assert [(c.min, c.max) for c in (eta, tau, start)] == [(0.05, 2.1), (0.2, 3), (-4, 4)]
    assert view.data == widgets.langevin_curves(0.1, 1.0, 20, 3.0)
    for control, middle in ((eta, 1.0), (tau, 1.5), (k, 50), (start, 0.0)):
        for value in (control.min, middle, control.max):
            control.value = value
            assert view.data == widgets.langevin_curves(eta.value, tau.value, k.value, start.value)
    assert all("ddpm-slider-langevin" in control._dom_classes for control in (eta, tau, k, start))


def test_langevin_slider_falls_back_to_a_picture_of_a_small_and_a_large_step(monkeypatch):
    drawn = []
    original = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawn.extend(axes.flat) or original(axes))
    data, metadata = widgets.langevin_slider()._repr_mimebundle_()
    for ax, state in zip(drawn, ((0.1, 1.0, 20, 3.0), (1.0, 1.0, 100, 3.0)), strict=True):
        settings, found = widgets.langevin_curves(*state)["readout"].split(": ")
        assert ax.get_title().startswith(f"{settings}:\n{found}\n")
    assert metadata["image/png"]["alt"] == data["text/plain"] != ""


def test_langevin_curves_are_fast():
    widgets.langevin_curves(0.1, 1.0, 100, 3.0)
    start = time.perf_counter()
    for _ in range(20):
        widgets.langevin_curves(0.1, 1.0, 100, 3.0)
    assert (time.perf_counter() - start) / 20 < 0.02  # about 1 ms; the margin is for a busy machine
