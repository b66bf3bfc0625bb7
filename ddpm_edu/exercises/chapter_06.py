"""Chapter 06: the mean in terms of v, a weight upside down, errors of three networks."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _mean_factors_of_v(alpha_t: float, alpha_bar_t: float) -> tuple[float, float]:
    return math.sqrt(alpha_t), -(1 - alpha_t) * math.sqrt(alpha_bar_t / (alpha_t * (1 - alpha_bar_t)))


def _loss_simple_from_x0(x0: float, x0_hat: float, alpha_bar_t: float) -> float:
    return alpha_bar_t / (1 - alpha_bar_t) * (x0 - x0_hat) ** 2


def _x0_errors(b: float, alpha_bar_t: float) -> tuple[float, float, float]:
    return b * math.sqrt((1 - alpha_bar_t) / alpha_bar_t), b, b * math.sqrt(1 - alpha_bar_t)


EXERCISES = {
    "06.1": Exercise(
        _mean_factors_of_v,
        [
            {"alpha_t": 0.64, "alpha_bar_t": 0.64},
            {"alpha_t": 0.9, "alpha_bar_t": 0.5},
            {"alpha_t": 0.98, "alpha_bar_t": 0.01},
        ],
        hint="put eps = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v into (6.4), with beta = 1 - alpha, and collect",
    ),
    "06.2": Exercise(
        _loss_simple_from_x0,
        [
            {"x0": 0.5, "x0_hat": 0.2, "alpha_bar_t": 0.9},
            {"x0": -1.0, "x0_hat": 0.5, "alpha_bar_t": 0.5},
            {"x0": 0.0, "x0_hat": 1.0, "alpha_bar_t": 0.01},
        ],
        hint="by (6.7) a squared error of the noise is the SNR times the squared error of the picture",
    ),
    "06.3": Exercise(
        _x0_errors,
        [
            {"b": 0.01, "alpha_bar_t": 0.9999},
            {"b": 0.01, "alpha_bar_t": 0.36},
            {"b": 0.5, "alpha_bar_t": 0.00004},
        ],
        hint="the factors of the noise in (6.3) and of v in (6.5), without their signs; x_0 itself has the factor 1",
    ),
}
