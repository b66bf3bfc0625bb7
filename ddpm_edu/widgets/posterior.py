"""Slider of chapter 04: forecast from x_0 times hindsight from x_t, the posterior of the step between them."""

from typing import Any

import ipywidgets
import torch

from ddpm_edu import gaussian, schedules
from ddpm_edu.widgets.panels import POINTS, WIDE, Panel, density, live, static_curves

LARGE_STEPS = schedules.linear(10, 0.1, 0.5)  # ten large steps, so that the three curves stay apart
X_PREV = torch.linspace(-3.5, 3.5, POINTS, dtype=torch.float64)


def posterior_curves(t: int, x0: float, xt: float) -> dict[str, Any]:
    """Three densities of x_{t-1}: q(x_{t-1} | x_0), q(x_t | x_{t-1}) scaled to area 1, and q(x_{t-1} | x_t, x_0).

    The last is the product of the others, scaled. On `LARGE_STEPS`, t = 2..10 (at t = 1 the first and the last are the
    point x_0). Data for `Curves`, with mean and variance of the posterior and the shares of the two in its mean.
    ValueError for another t.
    """
    s = LARGE_STEPS
    if not 2 <= t <= s.T:
        raise ValueError(f"t: expected 2..{s.T}, got {t}")
    start, end = torch.tensor(x0, dtype=torch.float64), torch.tensor(xt, dtype=torch.float64)
    mean, var = gaussian.posterior_mean_var(s, start, end, t)
    share = float(s.beta[t] / (1 - s.alpha_bar[t]))
    return {
        "series": [
            density("forecast", "prior", X_PREV, *gaussian.q_mean_var(s, start, t - 1), dash="7 4"),
            density("hindsight", "noise", X_PREV, end / s.alpha[t].sqrt(), s.beta[t] / s.alpha[t], dash="2 3"),
            density("posterior", "posterior", X_PREV, mean, var, kind="area"),
        ],
        "xlabel": "xₜ₋₁",
        "ylabel": "density",
        "xlim": [-3.5, 3.5],
        "ylim": [0, 1.7],
        "xticks": [-3, -2, -1, 0, 1, 2, 3],
        "yticks": [0, 0.5, 1, 1.5],
        "readout": f"t = {t}: mean {mean:.3f}, variance {var:.3f}; "
        f"shares: forecast {share:.2f}, hindsight {1 - share:.2f}".replace("-", "−"),
    }


def posterior_slider(name: str = "posterior") -> Panel:
    """Three sliders, t, x_0 and x_t, over `posterior_curves`."""
    t = ipywidgets.IntSlider(5, 2, LARGE_STEPS.T, description="t", layout=WIDE)
    x0 = ipywidgets.FloatSlider(value=0.8, min=-1, max=1, step=0.1, description="x₀", readout_format=".1f", layout=WIDE)
    xt = ipywidgets.FloatSlider(
        value=-0.6, min=-2, max=2, step=0.1, description="xₜ", readout_format=".1f", layout=WIDE
    )
    alt = "Densities of the step before: forecast from x₀, hindsight from xₜ, and between them the narrower posterior."
    states = (posterior_curves(t, 0.8, -0.6) for t in (2, 5))
    static = static_curves(*(state | {"readout": state["readout"].replace("; ", "\n")} for state in states))
    return live(name, posterior_curves, {"t": t, "x0": x0, "xt": xt}, static, alt)
