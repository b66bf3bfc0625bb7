"""Chapter 09: the law after k Langevin steps, a step of two conventions, a score that is too small."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _law_after(start: float, eta: float, tau: float, target_var: float, k: int) -> tuple[float, float]:
    mean, var = start, 0.0
    for _ in range(k):
        mean = (1 - eta / target_var) * mean
        var = (1 - eta / target_var) ** 2 * var + 2 * eta * tau
    return mean, var


def _langevin(x: float, score: float, alpha: float, z: float) -> float:
    return x + alpha / 2 * score + math.sqrt(alpha) * z


def _var_with_scaled_score(scale: float, eta: float, target_var: float) -> float:
    return target_var / scale / (1 - scale * eta / (2 * target_var))


EXERCISES = {
    "09.1": Exercise(
        _law_after,
        [
            {"start": 2.0, "eta": 0.3, "tau": 1.0, "target_var": 1.0, "k": 1},
            {"start": 2.0, "eta": 0.3, "tau": 0.5, "target_var": 2.0, "k": 2},
            {"start": -1.0, "eta": 0.1, "tau": 3.0, "target_var": 0.25, "k": 40},
        ],
        hint="a step is x -> a x + sqrt(2 eta tau) z, a = 1 - eta / target_var; the variances 1, a^2, a^4, ... add",
    ),
    "09.2": Exercise(
        _langevin,
        [
            {"x": 1.0, "score": 0.0, "alpha": 0.25, "z": 1.0},
            {"x": 0.0, "score": 2.0, "alpha": 0.25, "z": 0.0},
            {"x": 0.5, "score": -1.5, "alpha": 0.09, "z": -2.0},
        ],
        hint="alpha stands for 2 eta: the kick is sqrt(alpha) z, and the push is eta times the score",
    ),
    "09.3": Exercise(
        _var_with_scaled_score,
        [
            {"scale": 1.0, "eta": 0.5, "target_var": 1.0},
            {"scale": 0.8, "eta": 0.1, "target_var": 1.0},
            {"scale": 0.8, "eta": 0.3, "target_var": 2.0},
            {"scale": 1.5, "eta": 0.2, "target_var": 0.5},
        ],
        hint="put scale times the score into (9.5) and look for the variance that does not change any more",
    ),
}
