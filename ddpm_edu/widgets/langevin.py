"""Slider of chapter 09: Langevin walkers on a normal density, with any step size and temperature."""

import functools
import math
from typing import Any

import ipywidgets
import torch
from torch import Tensor

from ddpm_edu.widgets.panels import POINTS, WIDE, Panel, density, live, series, static_curves, verdict

WALKERS, STEPS = 4000, 100
X = torch.linspace(-6, 6, POINTS, dtype=torch.float64)
BINS = 60  # over the range of X
UNSTABLE = 2 - 1e-9  # from eta = 2 on there is no limit; a slider may send 2 with its last digit off
BIAS = 0.05  # relative error of the standard deviation up to which the step counts as small


def langevin_walkers(eta: float, tau: float, k: int, start: float) -> Tensor:
    """x_k of 4000 walkers, x_{k+1} = x_k - eta x_k + sqrt(2 eta tau) z_k from x_0 = start, with noise that is fixed.

    The target is N(0, 1), so that x_k is a weighted sum of the noises. ValueError unless k = 1..100, eta, tau > 0.
    """
    _check(eta, tau, k)
    weight = (1 - eta) ** torch.arange(k - 1, -1, -1, dtype=torch.float64)
    return (1 - eta) ** k * start + math.sqrt(2 * eta * tau) * (weight @ _noise()[:k])


def langevin_curves(eta: float, tau: float, k: int, start: float) -> dict[str, Any]:
    """The walkers after k steps, their exact law, and the density p^(1/tau) = N(0, tau) that they should sample.

    Data for `Curves`, with the standard deviations; the limit of many steps is sqrt(tau / (1 - eta / 2)), for eta < 2.
    ValueError as for `langevin_walkers`.
    """
    x = langevin_walkers(eta, tau, k, start)
    width = 12 / BINS
    heights = torch.histc(x, BINS, -6, 6) / (WALKERS * width)
    middles = torch.linspace(-6 + width / 2, 6 - width / 2, BINS, dtype=torch.float64)
    zero, wanted = torch.zeros((), dtype=torch.float64), torch.tensor(tau, dtype=torch.float64)
    var = 2 * eta * tau * ((1 - eta) ** (2 * torch.arange(k, dtype=torch.float64))).sum()
    return {
        "series": [
            series("walkers", "model", middles.tolist(), heights.tolist(), kind="area"),
            density("wanted", "exact", X, zero, wanted),
            density("law of xₖ", "posterior", X, zero + (1 - eta) ** k * start, var, dash="7 4"),
            series("start", "data", [start, start], [0, 0.1]),
        ],
        "xlabel": "x",
        "ylabel": "density",
        "xlim": [-6, 6],
        "ylim": [0, 0.95],
        "xticks": [-6, -4, -2, 0, 2, 4, 6],
        "yticks": [0, 0.25, 0.5, 0.75],
        "readout": f"from {start:g}, η {eta:.2f}, τ {tau:.1f}, k {k}: sd {x.std():.3g}, ".replace("-", "−")
        + (f"limit {math.sqrt(tau / (1 - eta / 2)):.3f}, " if eta < UNSTABLE else "no limit, ")
        + f"wanted {math.sqrt(tau):.3f}",
        "verdict": _verdict(eta),
    }


def langevin_slider(name: str = "langevin") -> Panel:
    """Four sliders, step size, temperature, number of steps and start, over `langevin_curves`."""
    eta = ipywidgets.FloatSlider(value=0.1, min=0.05, max=2.1, step=0.05, description="η", layout=WIDE)
    tau = ipywidgets.FloatSlider(
        value=1.0, min=0.2, max=3, step=0.1, description="τ", readout_format=".1f", layout=WIDE
    )
    k = ipywidgets.IntSlider(20, 1, STEPS, description="steps k", layout=WIDE)
    start = ipywidgets.FloatSlider(
        value=3.0, min=-4, max=4, step=0.5, description="start", readout_format=".1f", layout=WIDE
    )
    alt = "Walkers after k Langevin steps, their exact law, and the density that they should sample."
    states = (langevin_curves(eta, 1.0, k, 3.0) for eta, k in ((0.1, 20), (1.0, 100)))
    static = static_curves(*(state | {"readout": state["readout"].replace(": ", ":\n")} for state in states))
    return live(name, langevin_curves, {"eta": eta, "tau": tau, "k": k, "start": start}, static, alt)


def _check(eta: float, tau: float, k: int) -> None:
    if not 1 <= k <= STEPS:
        raise ValueError(f"k: expected 1..{STEPS}, got {k}")
    for label, value in (("eta", eta), ("tau", tau)):
        if not value > 0:
            raise ValueError(f"{label}: expected a number > 0, got {value}")


def _verdict(eta: float) -> dict[str, Any]:
    if eta >= UNSTABLE:
        return verdict(False, "the walkers run away (η ≥ 2)")
    bias = 1 / math.sqrt(1 - eta / 2) - 1
    return verdict(bias < BIAS, f"in the limit the sd is too large by {100 * bias:.0f} %")


@functools.cache
def _noise() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(STEPS, WALKERS, generator=generator, dtype=torch.float64)
