"""Slider of chapter 06: the weight that each loss gives to each t, on four rulers."""

from collections.abc import Callable
from typing import Any

import ipywidgets
import torch
from torch import Tensor

from ddpm_edu import elbo, sampling, schedules
from ddpm_edu.schedules import Schedule
from ddpm_edu.widgets.panels import POINTS, WIDE, Panel, choose, live, selection, series, static_curves

# The betas of the shorter chains are larger in proportion, so that each chain ends in noise.
FAMILIES: dict[str, Callable[[int], Schedule]] = {
    "linear": lambda T: schedules.linear(T, 0.1 / T, 20 / T),
    "cosine": schedules.cosine,
    "sigmoid": schedules.sigmoid,
    "constant": lambda T: schedules.constant(T, 10 / T),
}
# On each ruler, the factor that turns the weight of a squared error of eps into the weight of one there.
RULERS: dict[str, Callable[[Schedule], Tensor]] = {
    "ε": lambda s: torch.ones_like(s.beta),
    "x₀": lambda s: s.snr,
    "v": lambda s: s.alpha_bar,
    "score": lambda s: 1 - s.alpha_bar,
}
VARIANCES: dict[str, Callable[[Schedule], Tensor]] = {
    "β": lambda s: s.beta,
    "√(ββ̃)": lambda s: (s.beta * sampling.beta_tilde(s)).sqrt(),
    "β̃": sampling.beta_tilde,
}
LOOKS = {  # colours as in the figure of the chapter
    "bound": ("posterior", ""),
    "L_simple": ("noise", "9 3 2 3"),
    "loss on v": ("model", "7 4"),
    "loss on x₀": ("x0_hat", "2 3"),
}


def weight_curves(schedule: str, T: int, variance: str, ruler: str) -> dict[str, Any]:
    """Weight of a squared error at time t, measured on ``ruler``, under four losses, each over its value at SNR 1.

    ``schedule`` is a key of FAMILIES, ``variance`` (sigma_t^2 in the bound) of VARIANCES, ``ruler`` of RULERS. Data for
    `Curves`, as logarithms to base 10. Where the variance is 0 at t = 1 (all but beta), the bound's weight there is
    infinite, and everything starts at t = 2. ValueError for T < 50 and for another key.
    """
    if T < 50:
        raise ValueError(f"T: expected at least 50 steps, got {T}")
    s = choose(FAMILIES, "schedule", schedule)(T)
    var = choose(VARIANCES, "variance", variance)(s)
    factor = choose(RULERS, "ruler", ruler)(s)
    first = 1 if variance == "β" else 2
    on_eps = {
        "bound": elbo.loss_weight(s, var),
        "L_simple": torch.ones_like(s.beta),
        "loss on v": 1 / s.alpha_bar,
        "loss on x₀": 1 / s.snr,
    }
    anchor = (s.snr[first:] - 1).abs().argmin()
    t = torch.linspace(first, T, min(T + 1 - first, POINTS)).round().long()
    drawn, shares = [], []
    for label, weight in on_eps.items():
        on_ruler = (weight * factor)[first:]
        colour, dash = LOOKS[label]
        y = torch.log10(on_ruler / on_ruler[anchor])[t - first].tolist()
        drawn.append(series(label, colour, (t / T).tolist(), y, dash))
        shares.append(f"{label} {100 * on_ruler[: T // 10 + 1 - first].sum() / on_ruler.sum():.1f} %")
    return {
        "series": drawn,
        "xlabel": "t / T",
        "ylabel": "relative weight (1 where SNR = 1)",
        "xlim": [0, 1],
        "ylim": [-4, 4],
        "xticks": [0, 0.25, 0.5, 0.75, 1],
        "yticks": [-4, -2, 0, 2, 4],
        "ylabels": ["10⁻⁴", "10⁻²", "1", "10²", "10⁴"],
        "readout": f"{schedule}, T = {T}, errors of {ruler}\n"
        f"share on t ≤ T/10: {shares[0]}, {shares[1]},\n{shares[2]}, {shares[3]}",
    }


def weight_slider(name: str = "weights") -> Panel:
    """Schedule, T, variance and ruler over `weight_curves`."""
    controls = {
        "schedule": selection(FAMILIES, "schedule"),
        "T": ipywidgets.IntSlider(1000, 50, 1000, step=50, description="T", layout=WIDE),
        "variance": selection(VARIANCES, "σₜ² is"),
        "ruler": selection(RULERS, "errors of"),
    }
    alt = "The weight of four losses over t, on a logarithmic scale, and their share on the first tenth of the times."
    static = static_curves(weight_curves("linear", 1000, "β", "ε"), weight_curves("linear", 1000, "β", "x₀"))
    return live(name, weight_curves, controls, static, alt)
