"""Independent answers to the exercises of chapter 10, and slips that the cases must refuse."""

import math


def by_steps(std_class, std_all, scale, sigma_off, per_unit=16_000):
    """The equation for the spread, in log sigma, by the trapezoidal rule from far outside to the inside."""

    def integral(scale, low, high):
        n = max(2, int((high - low) * per_unit))
        step, total = (high - low) / n, 0.0
        for k in range(n + 1):
            sigma2 = math.exp(2 * (low + k * step))
            slope = sigma2 * (scale / (std_class**2 + sigma2) + (1 - scale) / (std_all**2 + sigma2))
            total += slope * (0.5 if k in (0, n) else 1.0)
        return total * step

    off = math.log(sigma_off) if sigma_off else -12.0
    return math.exp(12 - integral(scale, off, 12.0) - integral(1.0, -12.0, off))


RIGHT = {
    "10.1": lambda eps_none, eps_a, eps_b, scale_a, scale_b: (
        (1 - scale_a - scale_b) * eps_none + scale_a * eps_a + scale_b * eps_b
    ),
    "10.2": lambda eps, grad_log_p, alpha_bar_t, scale: -(1 - alpha_bar_t) ** 0.5 * (
        -eps / (1 - alpha_bar_t) ** 0.5 + scale * grad_log_p
    ),
    "10.3": by_steps,
}  # fmt: skip
SLIPS = {
    "10.1": [
        lambda eps_none, eps_a, eps_b, scale_a, scale_b: scale_a * eps_a + scale_b * eps_b,  # nothing taken away
        lambda eps_none, eps_a, eps_b, scale_a, scale_b: scale_a * eps_a + scale_b * eps_b - eps_none,
        lambda eps_none, eps_a, eps_b, scale_a, scale_b: (
            eps_none + (scale_a * (eps_a - eps_none) + scale_b * (eps_b - eps_none)) / 2
        ),
        lambda eps_none, eps_a, eps_b, scale_a, scale_b: (
            eps_none + scale_a * (eps_a - eps_none) + scale_b * (eps_b - eps_a)  # one pushed away from the other
        ),
    ],
    "10.2": [
        lambda eps, grad_log_p, alpha_bar_t, scale: eps + scale * (1 - alpha_bar_t) * grad_log_p,  # the bugs to find
        lambda eps, grad_log_p, alpha_bar_t, scale: eps - scale * (1 - alpha_bar_t) * grad_log_p,
        lambda eps, grad_log_p, alpha_bar_t, scale: eps + scale * (1 - alpha_bar_t) ** 0.5 * grad_log_p,
        lambda eps, grad_log_p, alpha_bar_t, scale: eps - scale * grad_log_p,
    ],
    "10.3": [
        lambda std_class, std_all, scale, sigma_off: std_class,  # as if the beginning did not matter
        lambda std_class, std_all, scale, sigma_off: std_class * (std_class / std_all) ** (scale - 1),  # all the way
        lambda std_class, std_all, scale, sigma_off: (  # guided at the end, not at the beginning
            std_class
            * ((std_class / std_all) ** 2 * (std_all**2 + sigma_off**2) / (std_class**2 + sigma_off**2))
            ** ((scale - 1) / 2)
        ),
        lambda std_class, std_all, scale, sigma_off: (
            std_class * ((std_class**2 + sigma_off**2) / (std_all**2 + sigma_off**2)) ** (scale - 1)  # no root
        ),
    ],
}  # fmt: skip
