"""The weight explorer of chapter 06 against formulas written out anew."""

import math

import ipywidgets
import pytest

from ddpm_edu import plotting, widgets

LABELS = ["bound", "L_simple", "loss on v", "loss on x₀"]


def betas(schedule: str, T: int) -> list[float]:
    if schedule == "linear":
        return [(0.1 + (20 - 0.1) * k / (T - 1)) / T for k in range(T)]
    if schedule == "constant":
        return [10 / T] * T
    if schedule == "cosine":
        kept = [math.cos((k / T + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(T + 1)]
    else:
        sigmoid = [1 / (1 + math.exp(3 - 6 * k / T)) for k in range(T + 1)]
        kept = [sigmoid[-1] - value for value in sigmoid]
    return [min(1 - kept[k + 1] / kept[k], 0.999) for k in range(T)]


def expected(schedule: str, T: int, variance: str, ruler: str) -> list[dict[int, float]]:
    """t -> weight for each loss: what it charges for an error 1 of eps, over that error's square on the ruler."""
    rows: list[dict[int, float]] = [{} for _ in LABELS]
    kept = 1.0
    for t, beta in enumerate(betas(schedule, T), 1):
        before, kept = kept, kept * (1 - beta)
        snr = kept / (1 - kept)
        tilde = beta * (1 - before) / (1 - kept)
        var = {"β": beta, "√(ββ̃)": math.sqrt(beta * tilde), "β̃": tilde}[variance]
        if var == 0:
            continue
        mean_shift = beta / math.sqrt((1 - kept) * (1 - beta))  # of the mean, for an error 1 of eps
        squared = {"ε": 1.0, "x₀": 1 / snr, "v": 1 / kept, "score": 1 / (1 - kept)}[ruler]  # for that error
        on_eps = [mean_shift**2 / (2 * var), 1.0, 1 / kept, 1 / snr]
        for row, weight in zip(rows, on_eps, strict=True):
            row[t] = weight / squared
    return rows


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid", "constant"])
@pytest.mark.parametrize("T", [50, 500, 1000])
@pytest.mark.parametrize("variance", ["β", "√(ββ̃)", "β̃"])
@pytest.mark.parametrize("ruler", ["ε", "x₀", "v", "score"])
def test_weight_curves_are_the_weights(schedule, T, variance, ruler):
    data = widgets.weight_curves(schedule, T, variance, ruler)
    assert [line["label"] for line in data["series"]] == LABELS
    # where the SNR is 1: there the loss on x_0 and the loss on eps weigh the same on every ruler
    simple, _, on_x0 = expected(schedule, T, "β", ruler)[1:]
    first = 1 if variance == "β" else 2
    anchor = min(range(first, T + 1), key=lambda t: abs(simple[t] / on_x0[t] - 1))
    for line, row in zip(data["series"], expected(schedule, T, variance, ruler), strict=True):
        times = [round(u * T) for u in line["x"]]
        assert times[0] == first == min(row) and times[-1] == T and len(times) == len(set(times)) <= 101
        assert line["y"] == pytest.approx([math.log10(row[t] / row[anchor]) for t in times], abs=1e-6)
        share = 100 * sum(weight for t, weight in row.items() if t <= T // 10) / sum(row.values())
        shown = float(data["readout"].split(f"{line['label']} ")[1].split(" %")[0])
        assert shown == pytest.approx(share, abs=0.05 + 1e-6)
    assert f"{schedule}, T = {T}, errors of {ruler}" in data["readout"]


def test_each_loss_is_flat_on_its_own_ruler():
    for ruler, label in (("ε", "L_simple"), ("x₀", "loss on x₀"), ("v", "loss on v")):
        line = widgets.weight_curves("linear", 1000, "β", ruler)["series"][LABELS.index(label)]
        assert line["y"] == pytest.approx([0.0] * 101, abs=1e-12)


def test_golden_shares_of_the_linear_chain():
    assert "bound 37.4 %, L_simple 10.0 %" in widgets.weight_curves("linear", 1000, "β", "ε")["readout"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (("linear", 49, "β", "ε"), "T: expected at least 50 steps, got 49"),
        (("square", 1000, "β", "ε"), "schedule: expected one of linear, cosine, sigmoid, constant, got 'square'"),
        (("linear", 1000, "gamma", "ε"), "variance: expected one of β, √.ββ̃., β̃, got 'gamma'"),
        (("linear", 1000, "β", "mu"), "ruler: expected one of ε, x₀, v, score, got 'mu'"),
    ],
)
def test_bad_states_are_named(state, message):
    with pytest.raises(ValueError, match=message):
        widgets.weight_curves(*state)


def test_the_slider_redraws_from_its_controls():
    panel = widgets.weight_slider()
    *controls, view = panel.children
    schedule, T, variance, ruler = controls
    assert all(isinstance(c, ipywidgets.SelectionSlider) for c in (schedule, variance, ruler))
    assert (T.min, T.max, T.value) == (50, 1000, 1000)
    assert view.data == widgets.weight_curves("linear", 1000, "β", "ε")
    schedule.value, T.value, variance.value, ruler.value = "cosine", 100, "β̃", "v"
    assert view.data == widgets.weight_curves("cosine", 100, "β̃", "v")
    assert panel.static.startswith(b"\x89PNG") and panel.alt


def test_colours_are_those_of_the_figure():
    lines = widgets.weight_curves("linear", 1000, "β", "ε")["series"]
    names = ("posterior", "noise", "model", "x0_hat")
    assert [line["colour"] for line in lines] == [plotting.COLOURS[name] for name in names]
