"""Chapter 08: the spread that a DDIM jump keeps, a misplaced bracket, noise that is scaled."""

import math
from collections.abc import Sequence

from ddpm_edu.exercises.exercise import Exercise


def _share_kept(alpha_bar_t: float, alpha_bar_r: float, var_0: float) -> float:
    v_t, v_r = (alpha_bar * var_0 + 1 - alpha_bar for alpha_bar in (alpha_bar_t, alpha_bar_r))
    x0_hat, eps_hat = math.sqrt(alpha_bar_t) * var_0 / v_t, math.sqrt(1 - alpha_bar_t) / v_t
    factor = math.sqrt(alpha_bar_r) * x0_hat + math.sqrt(1 - alpha_bar_r) * eps_hat
    return factor * math.sqrt(v_t / v_r)


def _ddim_std(alpha_bar_t: float, alpha_bar_r: float, eta: float) -> float:
    return eta * math.sqrt((1 - alpha_bar_r) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_r))


def _var_with_scaled_noise(c: float, betas: Sequence[float]) -> float:
    var = 1.0
    for beta in betas:
        var = (1 - beta) * var + c**2 * beta
    return var


EXERCISES = {
    "08.1": Exercise(
        _share_kept,
        [
            {"alpha_bar_t": 0.36, "alpha_bar_r": 0.64, "var_0": 0.25},
            {"alpha_bar_t": 0.1, "alpha_bar_r": 1.0, "var_0": 0.25},
            {"alpha_bar_t": 0.5, "alpha_bar_r": 0.8, "var_0": 4.0},
        ],
        hint="put x0_hat and eps_hat as multiples of x_t into (8.14); what is then sqrt(v_t) should be sqrt(v_r)",
    ),
    "08.2": Exercise(
        _ddim_std,
        [
            {"alpha_bar_t": 0.36, "alpha_bar_r": 0.64, "eta": 1.0},
            {"alpha_bar_t": 0.36, "alpha_bar_r": 0.64, "eta": 0.5},
            {"alpha_bar_t": 0.5, "alpha_bar_r": 1.0, "eta": 1.0},
        ],
        hint="the ratio of the two noise variances multiplies the whole bracket (1 - alpha_bar_t / alpha_bar_r)",
    ),
    "08.3": Exercise(
        _var_with_scaled_noise,
        [
            {"c": 0.5, "betas": [0.36]},
            {"c": 0.5, "betas": [0.1, 0.5, 0.3]},
            {"c": 0.0, "betas": [0.2, 0.2]},
            {"c": 1.0, "betas": [0.1, 0.5, 0.3]},
        ],
        hint="one step turns the variance u into (1 - beta) u + c^2 beta; noise scaled by c has c^2 times the variance",
    ),
}
