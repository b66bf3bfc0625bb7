"""Slider of chapter 01: two normal densities and both of their divergences."""

from typing import Any

import ipywidgets
import torch

from ddpm_edu.gaussian import normal_kl, normal_log_prob
from ddpm_edu.widgets.panels import POINTS, WIDE, Panel, live, series, static_curves


def kl_curves(mean: float, std_p: float, std_q: float) -> dict[str, Any]:
    """p = N(0, std_p^2), q = N(mean, std_q^2) and the integrands of both divergences; both in nats in the readout.

    Data for `Curves`. The integrand of KL(p || q) is p ln(p/q) - p + q, which is nowhere negative. ValueError unless
    both standard deviations are > 0.
    """
    if not (std_p > 0 and std_q > 0):
        raise ValueError(f"std_p, std_q: expected standard deviations > 0, got {std_p} and {std_q}")
    x = torch.linspace(-8, 8, POINTS, dtype=torch.float64)
    zero, mean_q, var_p, var_q = (torch.tensor(v, dtype=torch.float64) for v in (0.0, mean, std_p**2, std_q**2))
    log_p, log_q = normal_log_prob(x, zero, var_p), normal_log_prob(x, mean_q, var_q)
    p, q = log_p.exp(), log_q.exp()
    forward, reverse = normal_kl(zero, var_p, mean_q, var_q), normal_kl(mean_q, var_q, zero, var_p)
    at = x.tolist()
    return {
        "series": [
            series("KL(p‖q)", "posterior", at, (p * (log_p - log_q) - p + q).tolist(), kind="area"),
            series("KL(q‖p)", "prior", at, (q * (log_q - log_p) - q + p).tolist(), "7 4", "area"),
            series(f"p, std {std_p:.1f}", "data", at, p.tolist()),
            series(f"q, std {std_q:.1f}", "model", at, q.tolist(), dash="7 4"),
        ],
        "xlabel": "x",
        "ylabel": "density, integrand",
        "xlim": [-8, 8],
        "ylim": [0, 1],
        "xticks": [-8, -4, 0, 4, 8],
        "yticks": [0, 0.25, 0.5, 0.75, 1],
        "readout": f"q around {mean:.1f}: KL(p‖q) = {forward:.3f} nats, KL(q‖p) = {reverse:.3f} nats".replace("-", "−"),
    }


def kl_slider(name: str = "kl") -> Panel:
    """Three sliders, the mean of q and both standard deviations, over `kl_curves`."""
    ranges = {"mean": ("mean of q", 1.0, -3.0, 3.0), "std_p": ("std of p", 1.0, 0.5, 2.0)}
    ranges["std_q"] = ("std of q", 2.0, 0.5, 2.0)
    controls = {
        key: ipywidgets.FloatSlider(
            value=value, min=low, max=high, step=0.1, description=text, readout_format=".1f", layout=WIDE
        )
        for key, (text, value, low, high) in ranges.items()
    }
    alt = "Two normal densities p and q, and two shaded integrands whose areas are KL(p‖q) and KL(q‖p)."
    states = [kl_curves(1.0, 1.0, 2.0), kl_curves(0.0, 1.0, 0.5)]
    static = static_curves(*(state | {"readout": state["readout"].replace(": ", ":\n", 1)} for state in states))
    return live(name, kl_curves, controls, static, alt)
