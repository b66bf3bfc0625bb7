"""Chapter 02: the posterior of one latent, a variance drawn as a standard deviation, a KL that counts beta times."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _posterior_1d(x: float, a: float, r: float, w: float, b: float, s: float) -> tuple[float, float]:
    var = 1 / (w**2 / s + 1 / r)
    return var * (w * (x - b) / s + a / r), var


def _draw_z(mean: float, log_var: float, eps: float) -> float:
    return mean + math.exp(log_var / 2) * eps


def _q_with_beta(x: float, w: float, s: float, beta: float) -> tuple[float, float]:
    M = w**2 + beta * s
    return w * x / M, beta * s / M


EXERCISES = {
    "02.1": Exercise(
        _posterior_1d,
        [
            {"x": 1.0, "a": 0.0, "r": 1.0, "w": 1.0, "b": 0.0, "s": 0.25},
            {"x": 1.0, "a": 0.0, "r": 2.0, "w": 1.5, "b": 0.5, "s": 0.25},
            {"x": -0.7, "a": 0.4, "r": 0.5, "w": -2.0, "b": 0.3, "s": 0.8},
        ],
        hint="collect (x - b - w z)^2 / s + (z - a)^2 / r in powers of z; the factor of z^2 is one over the variance",
    ),
    "02.2": Exercise(
        _draw_z,
        [
            {"mean": 0.5, "log_var": 0.0, "eps": 1.0},
            {"mean": 0.0, "log_var": -4.0, "eps": 1.0},
            {"mean": -1.0, "log_var": 1.0, "eps": -2.0},
        ],
        hint="exp(log_var) is a variance; what multiplies eps is a standard deviation",
    ),
    "02.3": Exercise(
        _q_with_beta,
        [
            {"x": 1.0, "w": 1.0, "s": 0.25, "beta": 1.0},
            {"x": 1.0, "w": 1.0, "s": 0.25, "beta": 4.0},
            {"x": -0.6, "w": 2.0, "s": 0.5, "beta": 64.0},
            {"x": 2.0, "w": 0.5, "s": 1.0, "beta": 0.1},
        ],
        hint="divide the objective by beta: the squared error then counts as if the noise variance were beta s",
    ),
}
