"""Chapter 02: the posterior of one latent, a slope in a log-variance, a KL that counts several times."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _posterior_1d(x: float, a: float, r: float, w: float, b: float, var: float) -> tuple[float, float]:
    posterior_var = 1 / (w**2 / var + 1 / r)
    return posterior_var * (w * (x - b) / var + a / r), posterior_var


def _slopes(mean: float, log_var: float, eps: float) -> tuple[float, float]:
    std = math.exp(log_var / 2)
    z = mean + std * eps
    slope = 4 * (1 - z) - z
    return slope, slope * eps * std / 2


def _q_with_weight(x: float, w: float, var: float, weight: float) -> tuple[float, float]:
    M = w**2 + weight * var
    return w * x / M, weight * var / M


EXERCISES = {
    "02.1": Exercise(
        _posterior_1d,
        [
            {"x": 1.0, "a": 0.0, "r": 1.0, "w": 1.0, "b": 0.0, "var": 0.25},
            {"x": 1.0, "a": 0.0, "r": 2.0, "w": 1.5, "b": 0.5, "var": 0.25},
            {"x": -0.7, "a": 0.4, "r": 0.5, "w": -2.0, "b": 0.3, "var": 0.8},
        ],
        hint="collect (x - b - w z)^2 / var + (z - a)^2 / r in powers of z; the factor of z^2 is one over the variance",
    ),
    "02.2": Exercise(
        _slopes,
        [
            {"mean": 0.5, "log_var": 0.0, "eps": 1.0},
            {"mean": 0.0, "log_var": -4.0, "eps": 1.0},
            {"mean": -1.0, "log_var": 1.0, "eps": -2.0},
        ],
        hint="f'(z) eps is the slope in the standard deviation; how does that move with log_var?",
    ),
    "02.3": Exercise(
        _q_with_weight,
        [
            {"x": 1.0, "w": 1.0, "var": 0.25, "weight": 1.0},
            {"x": 1.0, "w": 1.0, "var": 0.25, "weight": 4.0},
            {"x": -0.6, "w": 2.0, "var": 0.5, "weight": 64.0},
            {"x": 2.0, "w": 0.5, "var": 1.0, "weight": 0.1},
        ],
        hint="divide the objective by weight: the squared error then counts as if the noise variance were weight * var",
    ),
}
