"""The slider of chapter 05 without a browser: its bars against KLs of normal densities, swept over each control."""

import itertools
import math
import re
import time

import ipywidgets
import numpy as np
import pytest

from ddpm_edu import plotting, widgets
from ddpm_edu.widgets import bound

MEAN, VAR = 0.3, 0.25
ENTROPY = 0.5 * math.log(2 * math.pi * math.e * VAR)
CHOICES = list(itertools.product(["linear", "cosine", "linear, short"], ["best", "β", "β̃"]))


def betas(T, schedule):
    """beta_1..beta_T from the definitions alone."""
    u = np.arange(T + 1) / T
    if schedule == "linear, short":
        return 1e-4 + (0.02 - 1e-4) * np.arange(T) / (T - 1)
    kept = {"linear": np.exp(-0.1 * u - 9.95 * u**2), "cosine": np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2}[
        schedule
    ]
    return np.minimum(1 - kept[1:] / kept[:-1], 0.999)


def kl(mean_q, var_q, mean_p, var_p):
    return 0.5 * (var_q / var_p - 1 - math.log(var_q / var_p) + (mean_q - mean_p) ** 2 / var_p)


def by_hand(T, schedule, variance):
    """L_T, [L_1, ..., L_{T-1}], L_0 and the gap, one t after the other, by conditioning normal variables.

    The means of squares are taken over x_0 and x_t by three Gauss-Hermite nodes each, exact for squares.
    """
    beta = betas(T, schedule)
    kept = np.concatenate([[1.0], np.cumprod(1 - beta)])
    nodes, shares = [-math.sqrt(3), 0.0, math.sqrt(3)], [1 / 6, 2 / 3, 1 / 6]
    terms, gap = {}, 0.0
    for t in range(T, 0, -1):
        b, a, now, before = beta[t - 1], 1 - beta[t - 1], kept[t], kept[t - 1]
        v_now, v_before = now * VAR + 1 - now, before * VAR + 1 - before
        k = math.sqrt(a) * v_before / v_now  # x_{t-1} given x_t: the covariance is sqrt(a) v_before
        exact = v_before - k * math.sqrt(a) * v_before
        tilde = 1 / (a / b + 1 / (1 - before)) if t > 1 else 0.0
        var = {"best": exact, "β": b, "β̃": tilde if t > 1 else b}[variance]
        gap += kl(0, exact, 0, var)
        mean = 0.0
        for (z0, w0), (z1, w1) in itertools.product(zip(nodes, shares, strict=True), repeat=2):
            x0 = MEAN + math.sqrt(VAR) * z0
            xt = math.sqrt(now) * x0 + math.sqrt(1 - now) * z1
            mu = math.sqrt(before) * MEAN + k * (xt - math.sqrt(now) * MEAN)
            if t > 1:
                mu_tilde = tilde * (math.sqrt(a) / b * xt + math.sqrt(before) / (1 - before) * x0)
                mean += w0 * w1 * kl(mu_tilde, tilde, mu, var)
            else:
                mean += w0 * w1 * 0.5 * (math.log(2 * math.pi * var) + (x0 - mu) ** 2 / var)
        terms[t] = mean
    L_T = sum(
        w * kl(math.sqrt(kept[-1]) * (MEAN + math.sqrt(VAR) * z), 1 - kept[-1], 0, 1)
        for z, w in zip(nodes, shares, strict=True)
    )
    gap += kl(math.sqrt(kept[-1]) * MEAN, kept[-1] * VAR + 1 - kept[-1], 0, 1)
    return L_T, [terms[t] for t in range(2, T + 1)], terms[1], gap


@pytest.mark.parametrize("T", [10, 50, 1000])
@pytest.mark.parametrize(("schedule", "variance"), CHOICES)
def test_bars_are_the_terms_of_the_bound(T, schedule, variance):
    data = widgets.bound_curves(T, schedule, variance)
    L_T, L_t, L_0, gap = by_hand(T, schedule, variance)
    first, middle, last, right = (one["y"] for one in data["series"])
    np.testing.assert_allclose([*first, *last, *right], [L_T, L_0, gap], rtol=1e-6, atol=1e-9)
    parts = [math.fsum(L for k, L in enumerate(L_t, 1) if j * (T - 1) < 9 * k <= (j + 1) * (T - 1)) for j in range(9)]
    np.testing.assert_allclose(middle, parts[::-1], rtol=1e-7, atol=1e-10)
    assert L_T + math.fsum(L_t) + L_0 - ENTROPY == pytest.approx(gap, abs=1e-9)  # two routes, before any is trusted
    text = data["readout"].replace("− ", "−")  # the sign of L_0 stands apart
    shown = [float(number.replace("−", "-")) for number in re.findall(r"−?\d+\.\d+", text)]
    total = L_T + sum(L_t) + L_0
    np.testing.assert_allclose(shown[:3], [L_T, sum(L_t), L_0], atol=5.1e-5)
    np.testing.assert_allclose(shown[3:6], [total, total / math.log(2), ENTROPY], atol=5.1e-4)
    assert data["readout"].startswith(f"T = {T}: ")
    assert data["readout"].endswith(f"gap {gap:.2g}".replace("-", "−"))
    tight = bool(gap < 0.01)
    assert data["verdict"]["good"] is tight and ("tight" if tight else "loose") in data["verdict"]["text"]
    assert data["verdict"]["colour"] == plotting.COLOURS["posterior" if tight else "x0_hat"]


@pytest.mark.parametrize("T", [10, 25, 50, 100, 250, 1000])
@pytest.mark.parametrize(("schedule", "variance"), CHOICES)
def test_every_bar_stands_on_the_page_and_apart_from_the_others(T, schedule, variance):
    data = widgets.bound_curves(T, schedule, variance)
    drawn = [
        (x + (i - 1.5) * 0.2, y)  # where the view puts the bars of series i of four
        for i, one in enumerate(data["series"])
        for x, y in zip(one["x"], one["y"], strict=True)
    ]
    places = [x for x, _ in drawn]
    np.testing.assert_allclose(places, [0.25 * slot for slot in [*range(11), 12]], atol=1e-12)
    assert data["xlim"][0] < places[0] - 0.1 and places[-1] + 0.1 < data["xlim"][1]
    (low, high), heights = data["ylim"], [y for _, y in drawn]
    assert low < min(heights) and max(heights) < high  # and the axis is not much longer than the bars
    assert high <= max(0.25, 2.2 * max(heights)) and low >= min(-0.25, 2.2 * min(heights))
    assert (data["yticks"][0], data["yticks"][2], data["yticks"][-1]) == (low, 0, high)
    np.testing.assert_allclose(data["xticks"], [places[0], (places[0] + places[10]) / 2, places[10], places[11]])
    assert len(data["xlabels"]) == len(data["xticks"])


def test_bound_curves_say_what_they_draw():
    data = widgets.bound_curves(100, "linear", "β")
    assert [one["label"] for one in data["series"]] == ["L_T", "L_t−1", "L_0", "gap"]
    assert [one["colour"] for one in data["series"]] == [
        plotting.COLOURS[key] for key in ("prior", "posterior", "model", "exact")
    ]
    assert {one["kind"] for one in data["series"]} == {"bar"}
    assert (data["ylabel"], len(data["series"][1]["y"])) == ("nats", 9)


def test_golden_gaps():
    """x_0 ~ N(0.3, 0.25) on the linear path, in nats (sigma_1^2 = beta_1)."""
    want = {"best": 1.944e-6, "β": 1.0925e-3, "β̃": 0.443217}
    for variance, gap in want.items():
        assert widgets.bound_curves(1000, "linear", variance)["series"][3]["y"][0] == pytest.approx(gap, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "linear", "β"), "T: expected at least 2 steps, got 1"),
        ((10, "Linear", "β"), "schedule: expected one of linear, cosine, linear, short, got 'Linear'"),
        ((10, "linear", "beta"), "variance: expected one of best, β, β̃, got 'beta'"),
    ],
)
def test_bound_curves_refuse_what_is_no_choice(arguments, message):
    with pytest.raises(ValueError, match=message):
        widgets.bound_curves(*arguments)


def test_bound_curves_change_no_schedule():
    s = bound.FAMILIES["linear"](10)
    beta = s.beta.clone()
    widgets.bound_curves(10, "linear", "β̃")
    assert s.beta.equal(beta)


def test_bound_slider_draws_what_its_controls_say():
    panel = widgets.bound_slider()
    *sliders, view = panel.children
    assert [type(one) for one in sliders] == [ipywidgets.SelectionSlider] * 3
    assert [one.value for one in sliders] == [1000, "linear", "best"]
    assert view.data == widgets.bound_curves(1000, "linear", "best")
    sliders[0].value, sliders[2].value = 25, "β̃"
    assert view.data == widgets.bound_curves(25, "linear", "β̃")
    sliders[1].value = "cosine"
    assert view.data == widgets.bound_curves(25, "cosine", "β̃")
    assert panel.static.startswith(b"\x89PNG") and "gap" in panel.alt


def test_bound_curves_are_fast():
    times = []
    for _ in range(10):
        start = time.perf_counter()
        widgets.bound_curves(1000, "cosine", "best")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005
