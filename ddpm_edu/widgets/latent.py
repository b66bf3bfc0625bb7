"""Slider of chapter 02: a normal q over one latent against the posterior, with the bound and what it loses."""

from typing import Any

import ipywidgets
import torch

from ddpm_edu import gaussian
from ddpm_edu.widgets.panels import POINTS, WIDE, Panel, density, live, static_curves, verdict

X, NOISE_VAR = 1.0, 0.25  # one pixel x = z + noise, with z ~ N(0, 1): everything below follows from these two numbers
TIGHT = 0.01  # nats: a gap below this counts as closed
Z = torch.linspace(-2.5, 3.5, POINTS, dtype=torch.float64)


def elbo_curves(mean: float, std: float) -> dict[str, Any]:
    """Prior, posterior and q = N(mean, std^2) over z, with log p(x), the ELBO and the gap between them, in nats.

    The model is p(z) = N(0, 1), p(x | z) = N(z, 0.25), seen at x = 1. Data for `Curves`. ValueError unless std > 0.
    """
    if not std > 0:
        raise ValueError(f"std: expected a number > 0, got {std}")
    x, zero, one, noise_var, m, var = (
        torch.tensor(value, dtype=torch.float64) for value in (X, 0.0, 1.0, NOISE_VAR, mean, std**2)
    )
    posterior = (x / (1 + noise_var), noise_var / (1 + noise_var))
    log_p = gaussian.normal_log_prob(x, zero, 1 + noise_var)
    reconstruction = gaussian.normal_log_prob(x, m, noise_var) - var / (2 * noise_var)  # E_q log p(x | z)
    elbo = reconstruction - gaussian.normal_kl(m, var, zero, one)
    gap = gaussian.normal_kl(m, var, *posterior)
    tight = bool(gap < TIGHT)
    return {
        "series": [
            density("prior p(z)", "prior", Z, zero, one),
            density("posterior p(z|x)", "posterior", Z, *posterior, kind="area"),
            density("q(z)", "x0_hat", Z, m, var, dash="7 4"),
        ],
        "xlabel": "z",
        "ylabel": "density",
        "xlim": [-2.5, 3.5],
        "ylim": [0, 2],
        "xticks": [-2, -1, 0, 1, 2, 3],
        "yticks": [0, 0.5, 1, 1.5, 2],
        "readout": f"log p(x) = {log_p:.4f}, ELBO = {elbo:.4f}, gap {gap:.4f} nats".replace("-", "−"),
        "verdict": verdict(tight, f"gap {'closed: below' if tight else 'open: not below'} {TIGHT:g} nats"),
    }


def elbo_slider(name: str = "elbo") -> Panel:
    """Two sliders, mean and standard deviation of q, over `elbo_curves`; starts with the prior as q."""
    mean = ipywidgets.FloatSlider(
        value=0.0, min=-1, max=2, step=0.05, description="mean", readout_format=".2f", layout=WIDE
    )
    std = ipywidgets.FloatSlider(
        value=1.0, min=0.2, max=1.5, step=0.05, description="std", readout_format=".2f", layout=WIDE
    )
    alt = "Densities over z: the wide prior, the narrow posterior, and q, which the sliders move from one to the other."
    low = {"ylim": [0, 1], "yticks": [0, 0.5, 1]}  # enough for these two
    static = static_curves(*(elbo_curves(*q) | low for q in [(0.0, 1.0), (0.8, 0.45)]))
    return live(name, elbo_curves, {"mean": mean, "std": std}, static, alt)
