"""The slider of chapter 02 against quadrature over the latent and textbook formulas."""

import math

import numpy as np
import pytest

from ddpm_edu import plotting, widgets

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
WEIGHTS = WEIGHTS / WEIGHTS.sum()  # means over N(0, 1), exact for the quadratics below


def log_normal(x, mean, var):
    return -0.5 * ((x - mean) ** 2 / var + math.log(2 * math.pi * var))


def numbers(mean, std):
    """log p(1), the ELBO by its definition, and their difference."""
    z = mean + std * NODES
    log_w = log_normal(1.0, z, 0.25) + log_normal(z, 0, 1) - log_normal(z, mean, std**2)
    log_p, elbo = log_normal(1.0, 0, 1.25), float(WEIGHTS @ log_w)
    return log_p, elbo, log_p - elbo


@pytest.mark.parametrize("mean", [-1.0, 0.5, 2.0])
@pytest.mark.parametrize("std", [0.2, 0.85, 1.5])
def test_readout_is_log_p_the_bound_and_their_difference(mean, std):
    log_p, elbo, gap = numbers(mean, std)
    data = widgets.elbo_curves(mean, std)
    want = f"log p(x) = {log_p:.4f}, ELBO = {elbo:.4f}, gap {gap:.4f} nats".replace("-", "−")
    assert data["readout"] == want
    assert not data["verdict"]["good"]
    assert data["verdict"]["text"] == "gap open: not below 0.01 nats"
    assert data["verdict"]["colour"] == plotting.COLOURS["x0_hat"]


def test_at_the_posterior_the_bound_is_tight():
    data = widgets.elbo_curves(0.8, math.sqrt(0.2))
    assert data["readout"] == "log p(x) = −1.4305, ELBO = −1.4305, gap 0.0000 nats"
    assert data["verdict"]["good"] and data["verdict"]["text"] == "gap closed: below 0.01 nats"
    assert data["verdict"]["colour"] == plotting.COLOURS["posterior"]


@pytest.mark.parametrize("mean, good", [(0.8 + 0.063, True), (0.8 + 0.0635, False)])
def test_the_limit_is_a_hundredth_of_a_nat(mean, good):
    """The gap of a q of the posterior's width is (m - 0.8)^2 / 0.4, which is 0.01 at m = 0.8 + 0.0632."""
    assert widgets.elbo_curves(mean, math.sqrt(0.2))["verdict"]["good"] == good


@pytest.mark.parametrize("mean, std", [(-1.0, 0.2), (0.5, 0.85), (2.0, 1.5)])
def test_curves_are_prior_posterior_and_q(mean, std):
    series = widgets.elbo_curves(mean, std)["series"]
    assert [line["label"] for line in series] == ["prior p(z)", "posterior p(z|x)", "q(z)"]
    assert [line["colour"] for line in series] == [plotting.COLOURS[key] for key in ("prior", "posterior", "x0_hat")]
    assert [line["kind"] for line in series] == ["line", "area", "line"]
    assert [bool(line["dash"]) for line in series] == [False, False, True]
    z = np.asarray(series[0]["x"])
    assert len(z) == 101 and z[0] == -2.5 and z[-1] == 3.5
    joint = np.exp([log_normal(1.0, value, 0.25) + log_normal(value, 0, 1) for value in z])
    by_bayes = joint / math.exp(log_normal(1.0, 0, 1.25))
    densities = [np.exp(log_normal(z, 0, 1)), by_bayes, np.exp(log_normal(z, mean, std**2))]
    for line, want in zip(series, densities, strict=True):
        np.testing.assert_allclose(line["y"], want, rtol=1e-9)
        assert line["x"] == z.tolist()


def test_axes_hold_every_density_that_the_slider_reaches():
    data = widgets.elbo_curves(0.8, 0.2)
    assert data["xlim"] == [-2.5, 3.5] and data["ylim"] == [0, 2]
    assert max(max(line["y"]) for line in data["series"]) <= 2
    for axis in ("x", "y"):
        ticks, (low, high) = data[f"{axis}ticks"], data[f"{axis}lim"]
        assert data[f"{axis}label"] and low <= min(ticks) and max(ticks) <= high


@pytest.mark.parametrize("std", [0, -0.5, math.nan])
def test_a_standard_deviation_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match="std: expected a number > 0"):
        widgets.elbo_curves(0.0, std)


def test_slider_starts_at_the_prior_and_redraws_at_minimum_middle_and_maximum():
    panel = widgets.elbo_slider()
    mean, std, view = panel.children
    assert (mean.value, std.value, view.name) == (0.0, 1.0, "elbo")
    assert view.data == widgets.elbo_curves(0.0, 1.0)
    for value in (mean.min, 0.5, mean.max):
        mean.value = value
        assert view.data == widgets.elbo_curves(value, std.value)
    for value in (std.min, 0.8, std.max):
        std.value = value
        assert view.data == widgets.elbo_curves(mean.value, value)
    for control in (mean, std):
        assert "ddpm-slider-elbo" in control._dom_classes and control.description and control.continuous_update
    assert (mean.min, mean.max, mean.step) == (-1, 2, 0.05) and (std.min, std.max, std.step) == (0.2, 1.5, 0.05)
    assert panel.alt == view.alt != ""


def test_where_no_kernel_runs_the_prior_and_a_tight_q_are_drawn(monkeypatch):
    states = []
    monkeypatch.setattr("ddpm_edu.widgets.latent.static_curves", lambda *s: states.extend(s) or b"png")
    assert widgets.elbo_slider().static == b"png"
    at = [(0.0, 1.0), (0.8, 0.45)]
    assert [state | {"ylim": [0, 2], "yticks": [0, 0.5, 1, 1.5, 2]} for state in states] == [
        widgets.elbo_curves(*q) for q in at
    ]
    assert [state["verdict"]["good"] for state in states] == [False, True]
    for state in states:
        assert state["ylim"] == [0, 1] and max(max(line["y"]) for line in state["series"]) <= 1
