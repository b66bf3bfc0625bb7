"""The schedule laboratory without a browser: curves and readouts against formulas written out anew, the generated
density against quadrature on a finer grid and against draws, and every claim of the guided tour."""

import io
import itertools
import json
import math
import threading
import time
from dataclasses import replace
from datetime import datetime

import ipywidgets
import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget
from PIL import Image

from ddpm_edu import __main__ as command_line
from ddpm_edu import commands, plotting, sampling, schedules, widgets
from ddpm_edu.exact import Mixture
from ddpm_edu.widgets import comparison, families, generated, laboratory
from ddpm_edu.widgets.comparison import TOUR
from ddpm_edu.widgets.families import FAMILIES, LENGTHS, START, Choice, choice
from ddpm_edu.widgets.prefetch import Prefetch, short

KNOTS = (40.0, 25.0, 12.0, 0.0, -12.0, -25.0, -40.0)


def betas(family, T, v):
    """beta_1..beta_T from the definitions alone."""
    t = np.arange(1, T + 1)
    share = (t - 1) / (T - 1)
    if family == "linear":
        return v["beta_1"] + (v["beta_T"] - v["beta_1"]) * share
    if family == "scaled_linear":
        return (math.sqrt(v["beta_1"]) + (math.sqrt(v["beta_T"]) - math.sqrt(v["beta_1"])) * share) ** 2
    if family == "constant":
        return np.full(T, v["beta"])
    if family == "log_snr_linear":
        log_snr = v["log_snr_1"] + (v["log_snr_T"] - v["log_snr_1"]) * share
        kept = np.concatenate([[1.0], 1 / (1 + np.exp(-log_snr))])
        return 1 - kept[1:] / kept[:-1]
    u = np.arange(T + 1) / T
    if family == "cosine":
        kept = np.cos((u + v["s"]) / (1 + v["s"]) * math.pi / 2) ** 2
    else:
        kept = 1 / (1 + np.exp(-v["end"])) - 1 / (1 + np.exp(-(v["start"] + (v["end"] - v["start"]) * u)))
    return np.minimum(1 - kept[1:] / kept[:-1], v["max_beta"])


def corners(family):
    """Each parameter at its start, then each in turn at minimum, middle and maximum."""
    _, parameters = FAMILIES[family]
    yield {}
    for one in parameters:
        for value in (one.values[0], one.values[len(one.values) // 2], one.values[-1]):
            yield {one.name: value}


CASES = [
    (family, T, values)
    for family, (make, _) in FAMILIES.items()
    if make
    for T in (LENGTHS[0], 100, 1000)
    for values in corners(family)
]


@pytest.mark.parametrize(("family", "T", "values"), CASES)
def test_curves_are_what_their_titles_say(family, T, values):
    chosen = choice(family, T, **values)
    named = {one.name: value for one, value in zip(FAMILIES[family][1], chosen.values, strict=True)}
    data = comparison.views(chosen)
    beta = betas(family, T, named)
    if np.log1p(-beta).sum() < -700:  # alpha_bar underflows
        assert data["problem"].startswith("alpha_bar: expected to fall at every step")
        return
    at = np.rint(np.asarray(data["x"]) * T).astype(int)
    assert data["problem"] == "" and at[0] == 1 and at[-1] == T and len(at) == min(T, 101)
    alpha_bar = np.cumprod(1 - beta)
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    noise = np.cumsum(np.log1p(-beta))
    noise = -np.expm1(noise)  # 1 - alpha_bar
    noise_before = np.concatenate([[0.0], noise[:-1]])
    weight = beta / (2 * (1 - beta) * noise)
    want = [
        np.log10(beta),
        alpha_bar,
        10 * np.log10(alpha_bar / noise),
        np.log10(np.sqrt(before) * beta / noise),
        np.sqrt(1 - beta) * noise_before / noise,
        noise_before / noise,
        np.log10(weight / weight.mean()),
        alpha_bar / 3 / (alpha_bar / 3 + noise),
    ]
    assert len(want) == len(data["y"]) == len(comparison.VIEWS)
    for view, got, y in zip(comparison.VIEWS, data["y"], want, strict=True):
        np.testing.assert_allclose(got, y[at - 1], rtol=1e-5, atol=2e-4, err_msg=view.title)
    for t, signal, rest in data["strip"]:
        kept = 1.0 if t == 0 else alpha_bar[t - 1]
        assert (signal, rest) == pytest.approx((math.sqrt(kept), math.sqrt(1 - kept)), abs=1e-5)
    assert [t for t, _, _ in data["strip"]] == sorted({round(T * k / 8) for k in range(9)})
    nats = 0.5 * (alpha_bar[-1] * (1 / 3 - 1) - math.log1p(-alpha_bar[-1]))
    assert data["verdict"]["good"] == (nats / math.log(2) < 1e-3)
    assert data["verdict"]["text"] == ("x_T is noise" if data["verdict"]["good"] else "x_T is not noise")
    snr = [10 * math.log10(alpha_bar[k] / noise[k]) for k in (0, -1)]
    text = f"T = {T}: ᾱ_T = {alpha_bar[-1]:.2g}, SNR from {snr[0]:.1f} to {snr[1]:.1f} dB".replace("dB-", "dB−")
    assert text.replace("-", "−") in data["readout"].replace("-", "−")


def test_a_curve_s_values_are_inside_the_drawing_for_the_paper_s_schedule():
    data = comparison.views(choice("linear"))
    for view, y in zip(comparison.VIEWS, data["y"], strict=True):
        assert view.ylim[0] <= min(y) and max(y) <= view.ylim[1], view.title


def test_a_drawn_schedule_goes_through_its_knots_and_straight_between_them():
    s = families.drawn_schedule(601, KNOTS)
    db = 10 * np.log10(s.snr.numpy()[1:])
    np.testing.assert_allclose(db[::100], KNOTS, atol=1e-8)
    np.testing.assert_allclose(np.diff(db[:101]), -15 / 100, atol=1e-8)
    data = comparison.views(replace(Choice(), family="drawn", T=601, knots=KNOTS))
    assert data["knots"] == list(KNOTS) and comparison.views(START["A"])["knots"] is None


@pytest.mark.parametrize("family", FAMILIES)
def test_drawing_goes_on_from_the_curve_that_was_there(family):
    knots = families.knots_of(replace(choice(family), knots=KNOTS))
    db = 10 * np.log10(families.schedule(replace(choice(family), knots=KNOTS)).snr.numpy()[1:])
    assert all(later <= earlier - 1 for earlier, later in itertools.pairwise(knots))
    np.testing.assert_allclose(
        knots, np.interp(np.arange(7) / 6, np.linspace(0, 1, len(db)), db).clip(-80, 60), atol=0.51
    )


def test_knots_of_a_steep_end_stay_apart_and_inside():
    steep = families.knots_of(choice("linear", 1000, beta_T=0.3))
    assert steep[-1] >= -80 and all(a - b >= 1 for a, b in itertools.pairwise(steep))
    assert families.schedule(replace(Choice(), family="drawn", knots=steep)).T == 1000
    assert families.knots_of(replace(Choice(), family="JSON", text="{")) is None


# What can be taken away


@pytest.mark.parametrize("chosen", [choice(family, 100) for family in FAMILIES], ids=lambda one: one.family)
def test_the_line_of_python_and_the_json_rebuild_the_schedule(chosen, tmp_path):
    chosen = replace(chosen, knots=KNOTS)
    want = families.schedule(chosen).beta
    line = comparison.views(chosen)["python"]
    assert "\n" not in line
    names = {}
    exec(line, names)
    assert torch.equal(names["s"].beta, want)
    again = replace(Choice(), family="JSON", text=schedules.to_json(names["s"]))
    assert torch.equal(families.schedule(again).beta, want)
    exec(families.as_python(again), names)
    assert torch.equal(names["s"].beta, want)
    file = tmp_path / "schedule_A.json"
    file.write_text(schedules.to_json(names["s"]), encoding="utf-8")
    assert torch.equal(commands.train.read_schedule(file).beta, want)


def test_the_exported_file_trains(tmp_path):
    _panel, view, controls = laboratory_of()
    sent = []
    view.send = sent.append
    controls["A"]["T"].value = 10
    view._handle_custom_msg({"export": "A"}, [])
    [message] = sent
    assert message["export"] == "A"
    file = tmp_path / "schedule_A.json"
    file.write_text(message["text"], encoding="utf-8")
    run = ["train", "--data", "digits", "--schedule", str(file), "--steps", "1", "--out", str(tmp_path / "run")]
    assert command_line.main(run) == 0


# Bad input


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        (replace(Choice(), family="JSON", text="{"), "schedule JSON: not valid JSON"),
        (replace(Choice(), family="JSON", text='{"T": 1}'), "schedule JSON: missing ['betas', 'format']"),
        (
            replace(Choice(), family="JSON", text='{"format": "ddpm_edu.schedule/1", "T": 2, "betas": [0.1, 1.5]}'),
            "betas: expected numbers strictly between 0 and 1, got beta_2 = 1.5",
        ),
        (
            replace(Choice(), family="JSON", text=schedules.to_json(schedules.constant(4001, 0.01))),
            "schedule JSON: T: the laboratory shows at most 4000 steps, got 4001",
        ),
        (replace(Choice(), family="drawn", knots=(0.0, 1.0)), "db: expected numbers that fall, got 0, 1"),
        (replace(Choice(), family="drawn", knots=(0.0,)), "T, db: expected T >= 2 and at least two knots"),
        (replace(Choice(), family="drawn", T=1, knots=KNOTS), "T, db: expected T >= 2 and at least two knots"),
        (choice("constant", 4000, beta=0.9), "alpha_bar: expected to fall at every step"),
        (choice("linear", 0), "T: expected a whole number of steps >= 1, got 0"),
        (replace(Choice(), family="square"), "family: expected one of linear, scaled_linear, "),
    ],
)
def test_bad_input_is_told_in_one_line(chosen, problem):
    data = comparison.views(chosen)
    assert data["problem"].startswith(problem) and "\n" not in data["problem"]
    assert set(data) == {"problem", "verdict", "knots"} and not data["verdict"]["good"]
    drawn = comparison.densities({"A": chosen, "B": choice("linear", 5)}, "T", "β")
    assert "A" not in drawn and list(drawn["kl"]) == ["B"]


def test_a_choice_with_a_parameter_that_its_family_lacks_is_refused():
    with pytest.raises(ValueError, match="cosine: has no parameter beta_1"):
        choice("cosine", beta_1=0.1)
    with pytest.raises(ValueError, match="family: expected one of linear,"):
        choice("square")


# The generated density

DATA = Mixture([0.3, 0.5, 0.2], [[-0.75], [0.1], [0.8]], [[[0.01]], [[0.04]], [[0.0144]]])
SHARES, MIDDLES, WIDTHS = np.array([0.3, 0.5, 0.2]), np.array([-0.75, 0.1, 0.8]), np.array([0.1, 0.2, 0.12])


def bayes(x, kept):
    """E[x_0 | x_t] by Bayes' rule on a grid of x_0."""
    x0 = np.linspace(-2.2, 2.4, 1201)
    prior = (SHARES * np.exp(-0.5 * ((x0[:, None] - MIDDLES) / WIDTHS) ** 2) / WIDTHS).sum(1)
    log_joint = np.log(prior) - (x[:, None] - math.sqrt(kept) * x0) ** 2 / (2 * (1 - kept))
    joint = np.exp(log_joint - log_joint.max(1, keepdims=True))
    return joint @ x0 / joint.sum(1)


def by_quadrature(s, steps, variance, points=2401):
    """The distribution function of the samples at the points y of the last step, every density on one fine grid."""
    kept = s.alpha_bar.numpy()
    x = np.linspace(-7, 7, points)
    h = x[1] - x[0]
    p = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    times = [round(s.T * k / steps) for k in range(steps, 0, -1)]
    for t, r in itertools.pairwise(times):
        beta = 1 - kept[t] / kept[r]
        tilde = (1 - kept[r]) / (1 - kept[t]) * beta
        var = {"β̃": tilde, "√(ββ̃)": math.sqrt(beta * tilde), "β": beta}[variance]
        eps = (x - math.sqrt(kept[t]) * bayes(x, kept[t])) / math.sqrt(1 - kept[t])
        mean = (x - beta / math.sqrt(1 - kept[t]) * eps) / math.sqrt(1 - beta)
        p = np.exp(-((x[:, None] - mean) ** 2) / (2 * var)) @ p * h / math.sqrt(2 * math.pi * var)
    y = bayes(x, kept[times[-1]])
    return y, np.concatenate([[0.0], np.cumsum((p[1:] + p[:-1]) / 2 * h)])


SHORT = [
    (schedules.linear(), 2, "β̃"),
    (schedules.linear(), 5, "β"),
    (schedules.linear(), 10, "β̃"),
    (schedules.linear(50), 10, "√(ββ̃)"),
    (schedules.cosine(), 4, "β̃"),
    (schedules.cosine(1000, max_beta=1 - 1e-9), 5, "β"),
    (schedules.log_snr_linear(1000, 9.3, -10.0), 6, "β̃"),
    (schedules.constant(12, 0.4), 12, "β"),
]


@pytest.mark.parametrize(("s", "steps", "variance"), SHORT)
def test_generated_density_is_that_of_quadrature(s, steps, variance):
    """Mass of intervals, and the KL, by matrices of transition densities on another grid, E[x_0 | x_t] from Bayes."""
    y, below = by_quadrature(s, steps, variance, points=4001 if steps == 6 else 2401)
    got = generated.generated(s, steps, variance)
    edges = generated.EDGES
    np.testing.assert_allclose(got.density * np.diff(edges), np.diff(np.interp(edges, y, below)), atol=2e-5)
    truth = (SHARES * np.exp(-0.5 * ((y[:, None] - MIDDLES) / WIDTHS) ** 2) / WIDTHS).sum(1) / math.sqrt(2 * math.pi)
    g = np.maximum(np.gradient(below, y), 1e-14)
    kl = np.trapezoid(truth * np.log(np.maximum(truth, 1e-300) / g), y)
    if np.trapezoid(truth, y) > 1 - 1e-6:
        assert got.kl == pytest.approx(kl, rel=0.02, abs=1e-4)
    else:  # the samples do not reach all of the data
        assert got.kl > 1


@pytest.mark.parametrize("variance", ["β̃", "β"])
def test_generated_density_is_that_of_draws_of_the_package_s_sampler(variance):
    """Ten ancestral steps of 200 000 draws: every one of twelve intervals; the other variance is ruled out."""
    s, n = schedules.linear(10, 0.02, 0.7), 200_000
    var = {"β̃": sampling.beta_tilde(s), "β": s.beta}
    generator = torch.Generator().manual_seed(0)
    *_, last = sampling.sample(
        s, lambda x, t: DATA.eps(s, x, int(t[0])), (n, 1), generator=generator, var=var[variance], dtype=torch.float64
    )
    width = np.diff(generated.EDGES)[0]
    edges = np.linspace(-1.1, 1.3, 13)
    counts = np.histogram(last.x.numpy(), edges)[0] / n

    def masses(which):
        below = np.concatenate([[0.0], np.cumsum(generated.generated(s, 10, which).density * width)])
        return np.diff(np.interp(edges, generated.EDGES, below))

    want = masses(variance)
    error = np.sqrt(want * (1 - want) / n)
    assert (np.abs(counts - want) < 4 * error + 2e-5).all()
    other = masses("β" if variance == "β̃" else "β̃")
    assert (np.abs(counts - other) / error).max() > 8


def test_generated_density_of_a_long_chain_is_that_of_draws():
    """T = 1000 with the last step of 20 dB: the bump that it makes is there, by its mass."""
    s, n = schedules.constant(), 20_000
    kept = s.alpha_bar.numpy()
    random = np.random.default_rng(0)
    x = random.standard_normal(n)
    for t in range(1000, 0, -1):
        var = kept[t] * WIDTHS**2 + 1 - kept[t]
        off = x[:, None] - math.sqrt(kept[t]) * MIDDLES
        share = SHARES * np.exp(-(off**2) / (2 * var)) / np.sqrt(var)
        score = -(share * off / var).sum(1) / share.sum(1)
        noise = math.sqrt(0.01 * (1 - kept[t - 1]) / (1 - kept[t])) if t > 1 else 0.0
        x = (x + 0.01 * score) / math.sqrt(0.99) + noise * random.standard_normal(n)
    got = generated.generated(s, 1000, "β̃")
    width = np.diff(generated.EDGES)[0]
    edges = np.array([-0.9, -0.8, -0.7, -0.6, -0.3, 0.0, 0.2, 0.5, 0.7, 0.8, 0.9])
    below = np.interp(edges, generated.EDGES, np.concatenate([[0.0], np.cumsum(got.density * width)]))
    want, counts = np.diff(below), np.histogram(x, edges)[0] / n
    error = np.sqrt(want * (1 - want) / n)
    assert (np.abs(counts - want) < 4 * error).all()
    truth = np.diff(
        generated.data_density(np.linspace(-2, 2, 400_001)).cumsum()[np.rint((edges + 2) * 1e5).astype(int)]
    )
    assert (np.abs(counts - truth * 1e-5) / error).max() > 8  # the data themselves are ruled out


def test_the_data_of_the_density_are_a_mixture_with_the_second_moment_of_pixels():
    x = torch.linspace(-1.5, 1.5, 50, dtype=torch.float64)[:, None]
    want = DATA.log_prob(schedules.linear(), x, 0).exp().numpy()
    np.testing.assert_allclose(generated.data_density(x.numpy()[:, 0]), want, rtol=1e-12)
    assert (SHARES * (MIDDLES**2 + WIDTHS**2)).sum() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("steps", [1, 2, 5, 100, 1000])
def test_a_generated_density_has_mass_one_and_a_KL_that_is_not_negative(steps):
    for family in ("linear", "cosine", "log_snr_linear"):
        got = generated.generated(families.schedule(choice(family)), steps, "β̃")
        assert (got.density * np.diff(generated.EDGES)).sum() == pytest.approx(
            1, abs=2e-3
        ) and got.density.min() > -1e-6
        assert 0 <= got.kl < 33


def test_more_tolerance_or_more_frequencies_change_nothing_that_is_shown(monkeypatch):
    s = schedules.log_snr_linear(1000, 9.3, -10.0)
    for steps in (20, 1000):
        got = generated.generated(s, steps, "β̃")
        with monkeypatch.context() as context:
            context.setattr(generated, "TOLERANCES", (1e-12, 1e-9))
            better = generated.generated.__wrapped__(s, steps, "β̃")
        assert got.kl == pytest.approx(better.kl, rel=1e-3)
        np.testing.assert_allclose(got.density, better.density, atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "variance", "message"),
    [(0, "β", "steps: expected a whole number from 1 to T = 5, got 0"), (6, "β", "steps: "), (5, "b", "variance: ")],
)
def test_generated_refuses_other_steps_and_variances(steps, variance, message):
    with pytest.raises(ValueError, match=message):
        generated.generated(schedules.constant(5, 0.5), steps, variance)


def test_densities_take_at_most_T_steps_and_print_their_KL():
    drawn = comparison.densities({"A": choice("linear", 50), "B": choice("linear", 5)}, 20, "β̃")
    kl = [generated.generated(schedules.linear(T), n, "β̃").kl for T, n in ((50, 20), (5, 5))]
    assert drawn["kl"]["A"] == f"A: KL {kl[0]:.2g} nats in 20 steps"
    assert drawn["kl"]["B"] == f"B: KL {kl[1]:.2g} nats in 5 steps"
    assert len(drawn["x"]) == len(drawn["data"]) == len(drawn["A"]) == len(drawn["B"])


# The guided tour


def stop(name):
    [one] = [one for one in TOUR if one.name == name]
    results = {}
    for which in ("A", "B"):
        s = families.schedule(getattr(one, which))
        steps = s.T if one.steps == "T" else one.steps
        results[which] = (s, generated.generated(s, steps, "β̃").kl, comparison.views(getattr(one, which)))
    return results["A"], results["B"]


def decibels(s, t):
    kept = math.exp(float(torch.log1p(-s.beta[1 : t + 1]).sum()))
    return 10 * math.log10(kept / (1 - kept))


def test_tour_T_50():
    (a, kl_a, view_a), (b, kl_b, view_b) = stop("T = 50")
    assert a.beta[-1] == b.beta[-1] == 0.02 and f"{b.alpha_bar[-1]:.2f}" == "0.60"
    assert view_a["verdict"]["good"] and not view_b["verdict"]["good"] and "L_T = 0.38 bits/dim" in view_b["readout"]
    assert kl_a < kl_b < 0.01  # only a little off
    assert view_b["strip"][-1][1] > 0.75  # the factor of the flower at the right end


def test_tour_cosine_unclipped():
    (a, kl_a, view_a), (b, kl_b, view_b) = stop("cosine, unclipped")
    assert torch.equal(a.beta[:-1], b.beta[:-1]) and a.beta[-1] == 0.999 < b.beta[-1] < 1
    assert kl_a == pytest.approx(kl_b, rel=1e-6)
    weights = [s.beta[1:] / (2 * s.alpha[1:] * (1 - s.alpha_bar[1:])) for s in (a, b)]
    assert f"{100 * weights[0][-1] / weights[0].sum():.0f}" == "97"
    assert 1e7 < weights[1][-1] / weights[1][:-1].sum() < 1e8  # tens of millions
    drawing = comparison.VIEWS[comparison.WEIGHT_VIEW]
    assert max(view_b["y"][comparison.WEIGHT_VIEW][:-1]) < drawing.ylim[0]  # they drop out of the drawing
    assert min(view_a["y"][comparison.WEIGHT_VIEW]) > drawing.ylim[0]


def test_tour_constant():
    (a, kl_a, view_a), (b, kl_b, view_b) = stop("constant")
    assert view_a["verdict"]["good"] and view_b["verdict"]["good"]
    assert b.alpha_bar[-1] / a.alpha_bar[-1] == pytest.approx(1, abs=0.1)
    assert b.beta[1] / a.beta[1] == pytest.approx(100)
    assert (round(decibels(a, 1)), round(decibels(b, 1))) == (40, 20)
    assert 80 < kl_b / kl_a < 200  # a hundred times


def test_tour_snr_to_zero():
    (a, kl_a, view_a), (b, kl_b, view_b) = stop("SNR to zero")
    assert not view_a["verdict"]["good"] and view_b["verdict"]["good"]
    assert round(decibels(b, b.T)) == -87
    assert kl_b > 3 * kl_a
    beyond = sum(decibels(b, t) < decibels(a, a.T) for t in sampling.even_grid(b.T, 20))
    assert 8 <= beyond <= 10  # nearly half of twenty


def test_tour_same_ends():
    (a, kl_a, _), (b, kl_b, _) = stop("same ends")
    for s in (a, b):
        assert decibels(s, 1) == pytest.approx(40, abs=0.5) and decibels(s, s.T) == pytest.approx(-44, abs=0.7)
    assert kl_a > 4 * kl_b
    assert max(generated.generated(s, s.T, "β̃").kl for s in (a, b)) < 1e-3


def test_tour_T_4000():
    (a, kl_a, _), (b, kl_b, _) = stop("T = 4000")
    assert b.T == 4 * a.T and (a.beta[1], a.beta[-1]) == (b.beta[1], b.beta[-1])
    assert kl_b > 3 * kl_a
    assert decibels(b, b.T // 3) < -15  # chapter 03 finds nothing to be seen from t = 600 on, which is here
    assert decibels(a, 600) == pytest.approx(-15.6, abs=0.3)
    assert sum(decibels(b, t) < -15 for t in sampling.even_grid(b.T, 50)) > 30


def test_there_are_six_stops_with_two_or_three_sentences_each():
    assert len(TOUR) == 6
    for one in TOUR:
        assert 2 <= sum(one.text.count(mark) for mark in (". ", "? ", "; ")) + 1 <= 4 and len(one.text) < 420


# The panel


def laboratory_of():
    """A laboratory, its view, and its sliders by schedule and label."""
    panel = widgets.schedule_laboratory()
    *_, row, view = panel.children
    a, b, sampler = row.children
    labelled = {
        name: {child.description.removeprefix(f"{name}: "): child for child in box.children if hasattr(child, "index")}
        for name, box in (("A", a), ("B", b), ("sampler", sampler))
    }
    return panel, view, labelled


def sliders_of(box):
    return [child for child in box.children if isinstance(child, ipywidgets.SelectionSlider)]


def press(panel, label):
    [button] = [one for one in panel.children[0].children if one.description.endswith(label)]
    button.click()


def test_every_slider_redraws_its_schedule_at_minimum_middle_and_maximum():
    panel, view, _ = laboratory_of()
    a, b, _ = panel.children[2].children
    for box, name in ((a, "A"), (b, "B")):
        family = sliders_of(box)[0]
        for label, key in family.options:
            family.value = key
            for slider in sliders_of(box)[1:]:
                start = slider.index
                shown = []
                for index in (0, len(slider.options) // 2, len(slider.options) - 1):
                    slider.index = index
                    shown.append(view.shown(name))
                slider.index = start
                if key == "JSON":
                    assert slider.disabled
                    continue
                assert not slider.disabled and shown[0] != shown[1] != shown[2], (label, slider.description)
            values = tuple(slider.value for slider in sliders_of(box)[2:])
            want = Choice(key, sliders_of(box)[1].value, values, tuple(view.shown(name)["knots"] or KNOTS))
            assert view.shown(name) == comparison.views(want)


def test_only_the_schedule_that_moved_is_drawn_anew():
    _, view, controls = laboratory_of()
    changed = []
    view.observe(lambda change: changed.append(change["name"]))
    controls["A"]["β_T"].index += 1
    assert changed == ["a_linear"]
    controls["sampler"]["steps"].value = 20
    assert changed == ["a_linear", "settings"] and "20 steps" in view.settings["text"]
    controls["sampler"]["variance"].value = "β"
    assert "variance β" in view.settings["text"]


def test_the_browser_gets_states_ahead_and_draws_them_itself():
    _, view, controls = laboratory_of()
    [ahead] = [
        one
        for one in widget._instances.values()
        if isinstance(one, Prefetch) and one.view == view.model_id and one.trait == "a_linear"
    ]
    sent = []
    ahead.send = sent.append
    labels = ["T", "β₁", "β_T"]
    at = [controls["A"][label].index for label in labels]
    at[0] -= 1
    for missing in (True, False):
        ahead._handle_custom_msg({"at": at, "missing": missing, "moved": 0, "fresh": missing}, [])
    assert len(sent[1]["states"]) > 0
    for place, state in sent[0]["states"] + sent[1]["states"]:
        T, beta_1, beta_T = (controls["A"][label].options[k] for label, k in zip(labels, place, strict=True))
        assert state == short(comparison.views(choice("linear", T, beta_1=beta_1[1], beta_T=beta_T[1])))
    assert list(sent[0]["states"][0][0]) == at
    before = view.shown("A")
    controls["A"]["T"].value = 10
    assert view.shown("A") == before  # the kernel leaves it to the browser, but knows the value where it is asked:
    view.asked += 1
    assert view.density["kl"]["A"].endswith("in 10 steps")
    controls["A"]["schedule"].value = "cosine"
    assert view.shown("A") == comparison.views(choice("cosine", 10))


def test_the_density_is_computed_when_the_browser_asks():
    _, view, controls = laboratory_of()
    controls["A"]["T"].value = 10
    controls["sampler"]["steps"].value = 5
    assert view.density == {}
    view.asked += 1
    want = comparison.densities({"A": choice("linear", 10), "B": START["B"]}, 5, "β̃")
    assert view.density == {**want, "asked": 1}
    view.asked += 1
    assert view.density == {**want, "asked": 2}  # the browser waits for an answer, which must not be the same


def test_a_density_says_what_it_belongs_to():
    good, bad = choice("linear", 10), choice("constant", 1000, beta=0.8)
    of = comparison.densities({"A": good, "B": bad}, 5, "β")["of"]
    assert of["A"] == comparison.views(good)["python"] and of["B"] == comparison.views(bad)["problem"]
    assert of["sampler"] == comparison.settings(5, "β")["text"]


def test_controls_are_made_once_though_two_threads_ask_for_them(monkeypatch):
    side = laboratory._Controls("A", laboratory.Laboratory())
    made, slider = [], side._slider

    def slowly(label, *rest):
        time.sleep(0.01)
        made.append(label)
        return slider(label, *rest)

    monkeypatch.setattr(side, "_slider", slowly)
    side._quiet, side.family.value = True, "cosine"
    threads = [threading.Thread(target=side.choice) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["T", "s", "max β"]


def test_knots_that_were_moved_in_the_browser_draw():
    _panel, view, controls = laboratory_of()
    controls["A"]["schedule"].value = "drawn"
    assert view.shown("A")["knots"] == list(families.knots_of(START["A"]))
    moved = [50, 25, 12, 0, -12, -25, -40]
    view.knots_a = moved
    assert view.shown("A") == comparison.views(replace(START["A"], family="drawn", values=(), knots=tuple(moved)))
    view.knots_b = moved  # of a schedule that is not drawn by hand: kept, nothing drawn
    assert view.shown("B") == comparison.views(START["B"])


@pytest.mark.parametrize("one", TOUR, ids=lambda one: one.name)
def test_a_stop_of_the_tour_sets_every_control_and_draws(one):
    panel, view, controls = laboratory_of()
    controls["B"]["schedule"].value = "JSON"
    press(panel, one.name)
    assert (view.shown("A"), view.shown("B")) == (comparison.views(one.A), comparison.views(one.B))
    assert view.density == {**comparison.densities({"A": one.A, "B": one.B}, one.steps, "β̃"), "asked": 0}
    assert one.text in panel.children[1].value
    a, b, sampler = panel.children[2].children
    for box, want in ((a, one.A), (b, one.B)):
        assert [slider.value for slider in sliders_of(box)] == [want.family, want.T, *want.values]
    assert [slider.value for slider in sliders_of(sampler)] == [one.steps, "β̃"]


def test_reset_goes_back_to_the_start():
    panel, view, controls = laboratory_of()
    before = (view.shown("A"), view.shown("B"), view.settings)
    controls["A"]["β_T"].index = 0
    controls["B"]["schedule"].value = "drawn"
    controls["sampler"]["steps"].value = 2
    press(panel, "constant")
    press(panel, "Reset")
    assert (view.shown("A"), view.shown("B"), view.settings) == before
    assert view.density["kl"].keys() == {"A", "B"}
    assert "take a tour" in panel.children[1].value


def test_json_is_read_from_the_text_and_from_a_file():
    panel, view, controls = laboratory_of()
    controls["A"]["schedule"].value = "JSON"
    [text, upload] = panel.children[2].children[0].children[-2:]
    assert view.shown("A")["readout"].startswith("from JSON, T = 8: ")
    text.value = "{"
    assert view.shown("A")["problem"].startswith("schedule JSON: not valid JSON")
    content = schedules.to_json(schedules.cosine(12)).encode()
    file = {"name": "s.json", "type": "", "size": 1, "content": memoryview(content), "last_modified": datetime.now()}
    upload.value = (file,)
    assert upload.value == ()  # or the same file could not be loaded again
    assert view.shown("A")["readout"].startswith("from JSON, T = 12: ")
    sent = []
    view.send = sent.append
    view._handle_custom_msg({"export": "A"}, [])
    assert json.loads(sent[0]["text"]) == json.loads(content)
    text.value = "{"
    view._handle_custom_msg({"export": "A"}, [])  # nothing to export
    view._handle_custom_msg({"export": "C"}, [])
    assert len(sent) == 1


def test_every_control_is_labelled_and_the_view_described():
    panel, view, _ = laboratory_of()
    for box in panel.children[2].children:
        for slider in sliders_of(box):
            assert slider.description and slider.continuous_update
    assert all(button.description for button in panel.children[0].children)
    assert len(view.alt) > 100 and view.name == "laboratory"
    assert [axis["title"] for axis in view.axes[:-1]] == [one.title for one in comparison.VIEWS]
    assert set(view.looks) == {"A", "B"} and view.looks["A"][1] != view.looks["B"][1]
    assert {colour for colour, _ in view.looks.values()} <= set(plotting.COLOURS.values())
    picture = np.frombuffer(view.picture, np.uint8)
    noise = np.frombuffer(view.noise, np.float32)
    assert picture.size == noise.size == 48 * 48 * 3 and abs(noise.std() - 1) < 0.05


def test_the_panel_falls_back_to_a_picture_with_alt_text():
    panel, _, _ = laboratory_of()
    data, metadata = panel._repr_mimebundle_()
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 800
    assert metadata["image/png"]["alt"] == data["text/plain"] == panel.alt
    drawn = [comparison.axes()[k]["says"] for k in laboratory.STILL]
    assert panel.alt == f"Two noise schedules and what follows from each: {'; '.join(drawn)}."


def test_a_state_takes_little_time():
    chosen = [choice("linear", 4000), choice("cosine", 4000), replace(Choice(), family="drawn", T=4000)]
    best = math.inf
    for _ in range(5):
        families.schedule.cache_clear()
        start = time.process_time()
        for one in chosen:
            comparison.views(one)
        best = min(best, (time.process_time() - start) / len(chosen))
    assert best < 0.05
