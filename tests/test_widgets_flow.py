"""The slider of chapter 11 without a browser: paths against quantiles of the exact law, swept over each control."""

import re
import time

import ipywidgets
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from ddpm_edu import plotting, widgets

LEVELS = (np.arange(14) + 0.5) / 14
NOISE = stats.norm.ppf(LEVELS)
STEPS = [1, 2, 3, 4, 6, 8, 16, 32]


def law(tau):
    """The two parts of the law of x_tau: weight, mean, standard deviation."""
    return [(w, (1 - tau) * m, np.sqrt((1 - tau) ** 2 * v + tau**2)) for w, m, v in ((0.3, -1, 0.04), (0.7, 0.8, 0.09))]


def quantile(level, tau):
    return optimize.brentq(
        lambda x: sum(w * stats.norm.cdf(x, m, s) for w, m, s in law(tau)) - level, -9, 9, xtol=1e-12
    )


def velocity(x, tau):
    """E[eps - x_0 | x_tau = x] with eps = (x - (1 - tau) x_0) / tau, by sums over a grid of x_0."""
    x0 = np.linspace(-3, 3, 6001)
    prior = 0.3 * stats.norm.pdf(x0, -1, 0.2) + 0.7 * stats.norm.pdf(x0, 0.8, 0.3)
    weight = prior * stats.norm.pdf((x - (1 - tau) * x0) / tau)
    return (weight * (x - x0) / tau).sum() / weight.sum()


def strands(one):
    """The paths of a bundle, from the noise down."""
    x, y = np.array(one["x"]), np.array(one["y"])
    starts = np.flatnonzero(x == 1.2)[::2]
    points = (starts[1] - starts[0] - 2) // 2
    return x[1 : points + 1], np.array([y[k + 1 : k + 1 + points] for k in starts])


def number(data):
    return float(re.search(r"(?:error |: )(\d+(?:\.\d+)?)(?: crossings|$)", data["readout"]).group(1))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_exact_paths_are_quantiles_of_the_law(tau):
    times, paths = strands(widgets.flow_paths("ODE", 4, tau)["series"][0])
    assert (times[0], times[-1]) == (1, 0)
    for k in (0, len(times) // 2, -1):
        want = [quantile(level, times[k]) for level in LEVELS]
        np.testing.assert_allclose(paths[:, k], want, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 4, 32])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_euler_follows_the_mean_velocity(steps, tau):
    data = widgets.flow_paths("ODE", steps, tau)
    times, paths = strands(data["series"][1])
    want, now = NOISE, 1.0
    for k in range(steps, 0, -1):
        end = max((k - 1) / steps, tau)
        want = want - (now - end) * np.array([velocity(x, now) for x in want])
        now = end
        if end == tau:
            break
    assert times[-1] == tau
    np.testing.assert_allclose(paths[:, -1], want, atol=2e-4)
    exact = [quantile(level, tau) for level in LEVELS]
    assert number(data) == pytest.approx(np.abs(want - exact).mean(), abs=0.00071)
    assert data["readout"].startswith(f"ODE, K = {steps}, τ = {tau:.2f}: mean error ")
    assert data["verdict"]["good"] == (np.abs(want - exact).mean() < 0.05)


def test_the_reference_agrees_with_an_adaptive_solver():
    _, paths = strands(widgets.flow_paths("ODE", 1, 0.0)["series"][0])
    for k in (2, 9):
        solved = integrate.solve_ivp(lambda tau, x: [velocity(x[0], tau)], (1, 0.02), [NOISE[k]], rtol=1e-8, atol=1e-9)
        assert solved.y[0, -1] == pytest.approx(quantile(LEVELS[k], 0.02), abs=1e-5)
    assert (np.diff(paths, axis=0) > 0).all()  # nobody overtakes


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_lines_of_the_pairs_are_straight_and_cross(tau):
    data = widgets.flow_paths("pairs", 8, tau)
    _, paths = strands(data["series"][1])
    ends = strands(widgets.flow_paths("pairs", 8, 0.0)["series"][1])[1][:, -1]
    np.testing.assert_allclose(sorted(ends), [quantile(level, 0) for level in LEVELS], atol=2e-4)
    np.testing.assert_allclose(paths[:, 0], NOISE, atol=1e-4)
    np.testing.assert_allclose(paths[:, -1], (1 - tau) * ends + tau * NOISE, atol=2e-4)
    here = (1 - tau) * ends + tau * NOISE
    crossed = sum(here[i] > here[j] for i in range(14) for j in range(i + 1, 14))
    assert number(data) == crossed and "verdict" not in data
    assert data["readout"] == f"pairs, τ = {tau:.2f}: {crossed} crossings so far"


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_after_reflow_no_line_crosses_another(tau):
    data = widgets.flow_paths("reflow", 8, tau)
    _, paths = strands(data["series"][1])
    want = (1 - tau) * np.array([quantile(level, 0) for level in LEVELS]) + tau * NOISE
    np.testing.assert_allclose(paths[:, -1], want, atol=2e-4)
    assert data["readout"] == f"reflow, τ = {tau:.2f}: 0 crossings so far"


def test_flow_paths_say_what_they_draw():
    data = widgets.flow_paths("ODE", 8, 0.0)
    assert [one["label"] for one in data["series"]] == ["the ODE, exact", "Euler, K = 8"]
    assert widgets.flow_paths("pairs", 8, 0.0)["series"][1]["label"] == "lines of the pairs"
    assert widgets.flow_paths("reflow", 8, 0.0)["series"][1]["label"] == "lines after reflow"
    assert [one["colour"] for one in data["series"]] == [plotting.COLOURS[key] for key in ("noise", "x0_hat")]
    assert (data["xlim"], data["ylim"], data["xlabel"]) == ([1, 0], [-2.2, 3], "τ, from noise to data")
    assert [data["verdict"]["text"], widgets.flow_paths("ODE", 16, 0.0)["verdict"]["text"]] == [
        "off the curves",
        "on the curves",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"follow": "line"}, "follow: expected one of ODE, pairs, reflow, got 'line'"),
        ({"tau": 1.1}, "tau"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_states(change, message):
    with pytest.raises(ValueError, match=message):
        widgets.flow_paths(**{"follow": "ODE", "steps": 4, "tau": 0.5, **change})


def test_flow_slider_redraws_at_minimum_middle_and_maximum():
    steps, tau, follow, view = widgets.flow_slider().children
    assert (view.name, [c.description for c in (steps, tau, follow)]) == ("flow", ["steps K", "τ", "follow"])
    assert list(steps.options) == STEPS and list(follow.options) == ["ODE", "pairs", "reflow"]
    assert isinstance(tau, ipywidgets.FloatSlider) and (tau.min, tau.max) == (0, 1)
    assert view.data == widgets.flow_paths("ODE", 2, 0.0)
    for control, values in ((steps, (1, 6, 32)), (tau, (0, 0.5, 1)), (follow, ("ODE", "pairs", "reflow"))):
        for value in values:
            control.value = value
            assert view.data == widgets.flow_paths(follow.value, steps.value, tau.value)
    assert all("ddpm-slider-flow" in control._dom_classes for control in (follow, steps, tau))


def test_flow_slider_falls_back_to_a_picture_of_two_states(monkeypatch):
    drawn = []
    original = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawn.extend(axes.flat) or original(axes))
    data, metadata = widgets.flow_slider()._repr_mimebundle_()
    states = [widgets.flow_paths("ODE", steps, 0.0) for steps in (2, 8)]
    assert [ax.get_title() for ax in drawn] == [f"{one['readout']}\n{one['verdict']['text']}" for one in states]
    assert metadata["image/png"]["alt"] == data["text/plain"] != ""


def test_flow_paths_are_fast():
    widgets.flow_paths("ODE", 32, 0.0)
    start = time.perf_counter()
    for _ in range(20):
        widgets.flow_paths("ODE", 32, 0.0)
    assert (time.perf_counter() - start) / 20 < 0.02  # about 1 ms; the margin is for a busy machine
