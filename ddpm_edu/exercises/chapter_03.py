"""Chapter 03: the jump between two times, a missing root, the factor without its root."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _jump(alpha_bar_r: float, alpha_bar_t: float) -> tuple[float, float]:
    return math.sqrt(alpha_bar_t / alpha_bar_r), 1 - alpha_bar_t / alpha_bar_r


def _noisy(x0: float, alpha_bar_t: float, eps: float) -> float:
    return math.sqrt(alpha_bar_t) * x0 + math.sqrt(1 - alpha_bar_t) * eps


def _var_without_root(beta: float, T: int) -> float:
    var = 1.0
    for _ in range(T):
        var = (1 - beta) ** 2 * var + beta
    return var


EXERCISES = {
    "03.1": Exercise(
        _jump,
        [
            {"alpha_bar_r": 1.0, "alpha_bar_t": 0.64},
            {"alpha_bar_r": 0.8, "alpha_bar_t": 0.2},
            {"alpha_bar_r": 0.5, "alpha_bar_t": 0.49},
        ],
        hint="the steps r + 1 to t multiply to alpha_bar_t / alpha_bar_r: put that into (3.9)",
    ),
    "03.2": Exercise(
        _noisy,
        [
            {"x0": 1.0, "alpha_bar_t": 0.36, "eps": 0.0},
            {"x0": 0.0, "alpha_bar_t": 0.36, "eps": 1.0},
            {"x0": 0.5, "alpha_bar_t": 0.9, "eps": -2.0},
        ],
        hint="1 - alpha_bar_t is a variance; what multiplies the noise is a standard deviation",
    ),
    "03.3": Exercise(
        _var_without_root,
        [{"beta": 0.5, "T": 1}, {"beta": 0.5, "T": 2}, {"beta": 0.02, "T": 1000}, {"beta": 0.02, "T": 0}],
        hint="one step turns the variance v into (1 - beta)^2 v + beta; start at 1 and repeat T times",
    ),
}
