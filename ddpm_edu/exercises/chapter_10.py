"""Chapter 10: two conditions at once, guidance with two slips, guidance at the beginning only."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _ask_for_two(eps_none: float, eps_a: float, eps_b: float, scale_a: float, scale_b: float) -> float:
    return eps_none + scale_a * (eps_a - eps_none) + scale_b * (eps_b - eps_none)


def _guide(eps: float, grad_log_p: float, alpha_bar_t: float, scale: float) -> float:
    return eps - scale * math.sqrt(1 - alpha_bar_t) * grad_log_p


def _early_guidance_std(std_class: float, std_all: float, scale: float, sigma_off: float) -> float:
    narrowed = (std_class**2 + sigma_off**2) / (std_all**2 + sigma_off**2)
    return std_class * math.pow(narrowed, (scale - 1) / 2)


EXERCISES = {
    "10.1": Exercise(
        _ask_for_two,
        [
            {"eps_none": 0.2, "eps_a": 1.0, "eps_b": -0.5, "scale_a": 1.0, "scale_b": 0.0},
            {"eps_none": 0.2, "eps_a": 1.0, "eps_b": -0.5, "scale_a": 1.0, "scale_b": 1.0},
            {"eps_none": -0.3, "eps_a": 0.4, "eps_b": 0.9, "scale_a": 2.0, "scale_b": 3.0},
        ],
        hint="the two classifiers' gradients add up; each of them is (10.5), and each has its scale",
    ),
    "10.2": Exercise(
        _guide,
        [
            {"eps": 0.5, "grad_log_p": 0.0, "alpha_bar_t": 0.64, "scale": 2.0},
            {"eps": 0.0, "grad_log_p": 1.0, "alpha_bar_t": 0.64, "scale": 1.0},
            {"eps": 0.5, "grad_log_p": -2.0, "alpha_bar_t": 0.99, "scale": 3.0},
        ],
        hint="the score is -eps / sqrt(1 - alpha_bar_t): look at the sign and at the root in (10.3)",
    ),
    "10.3": Exercise(
        _early_guidance_std,
        [
            {"std_class": 0.5, "std_all": 1.0, "scale": 1.0, "sigma_off": 1.0},
            {"std_class": 0.5, "std_all": 1.0, "scale": 3.0, "sigma_off": 0.0},
            {"std_class": 0.5, "std_all": 1.0, "scale": 3.0, "sigma_off": 1.0},
            {"std_class": 0.3, "std_all": 2.0, "scale": 2.0, "sigma_off": 0.7},
        ],
        hint="v / [(s_c^2 + sigma^2)^(S/2) (s_all^2 + sigma^2)^((1-S)/2)] is constant on each part: match at sigma_off",
    ),
}
