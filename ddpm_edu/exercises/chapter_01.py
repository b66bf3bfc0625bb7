"""Chapter 01: the best variance for a wrong mean, a variance squared, a change of scale."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _best_variance(m1: float, v1: float, m2: float) -> tuple[float, float]:
    v2 = v1 + (m1 - m2) ** 2
    return v2, 0.5 * math.log(v2 / v1)


def _kl_to_standard(mean: float, log_var: float) -> float:
    return 0.5 * (mean**2 + math.exp(log_var) - 1 - log_var)


def _rescaled(bits_per_dim: float, kl_nats: float, a: float) -> tuple[float, float]:
    return bits_per_dim + math.log2(abs(a)), kl_nats


EXERCISES = {
    "01.1": Exercise(
        _best_variance,
        [
            {"m1": 0.0, "v1": 1.0, "m2": 0.0},
            {"m1": 0.0, "v1": 1.0, "m2": 2.0},
            {"m1": -0.3, "v1": 0.25, "m2": 0.5},
            {"m1": 1.0, "v1": 4.0, "m2": 0.0},
        ],
        hint="collect what depends on v2 in (1.11): (v1 + (m1 - m2)^2) / v2 + ln v2; set its derivative to zero",
    ),
    "01.2": Exercise(
        _kl_to_standard,
        [
            {"mean": 0.0, "log_var": -0.2},
            {"mean": 1.5, "log_var": 0.0},
            {"mean": -0.5, "log_var": 1.0},
            {"mean": 0.0, "log_var": -8.0},
        ],
        hint="put m1 = mean, v1 = exp(log_var), m2 = 0, v2 = 1 into (1.11); a KL is never negative: try log_var = -0.2",
    ),
    "01.3": Exercise(
        _rescaled,
        [
            {"bits_per_dim": 1.0, "kl_nats": 0.5, "a": 2.0},
            {"bits_per_dim": -2.0, "kl_nats": 30.0, "a": 127.5},
            {"bits_per_dim": 3.0, "kl_nats": 0.0, "a": -0.5},
        ],
        hint="by (1.18) each dimension loses ln|a| nats of log density; bits/dim have a minus sign; the KL has no unit",
    ),
}
