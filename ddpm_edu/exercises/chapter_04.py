"""Chapter 04: the posterior between any two times, a wrong index, the variance beta in the place of beta_tilde."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _between(alpha_bar_r: float, alpha_bar_t: float) -> tuple[float, float, float]:
    alpha = alpha_bar_t / alpha_bar_r
    on_x0 = math.sqrt(alpha_bar_r) * (1 - alpha) / (1 - alpha_bar_t)
    on_xt = math.sqrt(alpha) * (1 - alpha_bar_r) / (1 - alpha_bar_t)
    return on_x0, on_xt, (1 - alpha) * (1 - alpha_bar_r) / (1 - alpha_bar_t)


def _mean(x0: float, xt: float, beta_t: float, alpha_bar_before: float) -> float:
    alpha_bar_t = (1 - beta_t) * alpha_bar_before
    on_x0 = math.sqrt(alpha_bar_before) * beta_t / (1 - alpha_bar_t)
    on_xt = math.sqrt(1 - beta_t) * (1 - alpha_bar_before) / (1 - alpha_bar_t)
    return on_x0 * x0 + on_xt * xt


def _var_of_x1(betas: list[float]) -> float:
    alpha_bar = [1.0]
    for beta in betas:
        alpha_bar.append(alpha_bar[-1] * (1 - beta))
    var = 1 - alpha_bar[-1]
    for t in range(len(betas), 1, -1):
        on_xt = math.sqrt(1 - betas[t - 1]) * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        var = on_xt**2 * var + betas[t - 1]
    return var


EXERCISES = {
    "04.1": Exercise(
        _between,
        [
            {"alpha_bar_r": 0.9, "alpha_bar_t": 0.36},
            {"alpha_bar_r": 0.5, "alpha_bar_t": 0.49},
            {"alpha_bar_r": 1.0, "alpha_bar_t": 0.3},
            {"alpha_bar_r": 0.8, "alpha_bar_t": 0.0001},
        ],
        hint="complete the square with the forecast of x_r and one jump from r to t: alpha = alpha_bar_t / alpha_bar_r",
    ),
    "04.2": Exercise(
        _mean,
        [
            {"x0": 1.0, "xt": 0.0, "beta_t": 0.5, "alpha_bar_before": 0.64},
            {"x0": 0.0, "xt": 1.0, "beta_t": 0.5, "alpha_bar_before": 0.64},
            {"x0": 0.7, "xt": -1.2, "beta_t": 0.1, "alpha_bar_before": 0.3},
            {"x0": 0.7, "xt": -1.2, "beta_t": 0.1, "alpha_bar_before": 1.0},
        ],
        hint="hold it against (4.12): at x_t = sqrt(alpha_bar_t) x_0 the mean must be sqrt(alpha_bar_{t-1}) x_0",
    ),
    "04.3": Exercise(
        _var_of_x1,
        [
            {"betas": [0.1, 0.5]},
            {"betas": [0.3, 0.4, 0.5]},
            {"betas": [0.1 + 0.4 * k / 9 for k in range(10)]},
            {"betas": [0.2]},
        ],
        hint="start from 1 - alpha_bar_T; for t = T, ..., 2 replace the variance V by c_2^2 V + beta_t",
    ),
}
