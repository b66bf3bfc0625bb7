"""Independent answers to the exercises of chapter 06, and slips that the cases must refuse."""

import math

import numpy as np


def _mean_factors(alpha_t, alpha_bar_t):
    """By two experiments: v = 0 and x_t = 0, through x_0 and Eq. 7."""
    before = alpha_bar_t / alpha_t
    rotation = np.array([[math.sqrt(alpha_bar_t), -math.sqrt(1 - alpha_bar_t)]])  # x_0 from (x_t, v)
    on_x0 = math.sqrt(before) * (1 - alpha_t) / (1 - alpha_bar_t)
    on_xt = math.sqrt(alpha_t) * (1 - before) / (1 - alpha_bar_t)
    return (on_x0 * rotation + np.array([[on_xt, 0]]))[0]


def _eps_error(x0, x0_hat, alpha_bar_t, xt=0.7):
    noises = [(xt - math.sqrt(alpha_bar_t) * x) / math.sqrt(1 - alpha_bar_t) for x in (x0, x0_hat)]
    return (noises[0] - noises[1]) ** 2


RIGHT = {
    "06.1": _mean_factors,
    "06.2": _eps_error,
    "06.3": lambda b, alpha_bar_t: (
        b / math.tan(math.asin(math.sqrt(alpha_bar_t))), b, b * math.sin(math.acos(math.sqrt(alpha_bar_t)))
    ),
}  # fmt: skip
SLIPS = {
    "06.1": [
        lambda alpha_t, alpha_bar_t: (
            math.sqrt(alpha_t), (1 - alpha_t) * math.sqrt(alpha_bar_t / alpha_t / (1 - alpha_bar_t))
        ),  # the sign
        lambda alpha_t, alpha_bar_t: (
            1 / math.sqrt(alpha_t), -(1 - alpha_t) * math.sqrt(alpha_bar_t / alpha_t / (1 - alpha_bar_t))
        ),  # the share of x_t in the noise forgotten
        lambda alpha_t, alpha_bar_t: (
            math.sqrt(alpha_t), -(1 - alpha_t) * math.sqrt(alpha_bar_t / (1 - alpha_bar_t))
        ),  # alpha_bar_t for alpha_bar_{t-1}
    ],
    "06.2": [
        lambda x0, x0_hat, alpha_bar_t: (1 - alpha_bar_t) / alpha_bar_t * (x0 - x0_hat) ** 2,  # the bug to find
        lambda x0, x0_hat, alpha_bar_t: (x0 - x0_hat) ** 2,  # no weight
        lambda x0, x0_hat, alpha_bar_t: (x0 - x0_hat) ** 2 / (1 - alpha_bar_t),  # that of v
        lambda x0, x0_hat, alpha_bar_t: math.sqrt(alpha_bar_t / (1 - alpha_bar_t)) * (x0 - x0_hat) ** 2,
    ],
    "06.3": [
        lambda b, alpha_bar_t: (b, b, b),
        lambda b, alpha_bar_t: (b * (1 - alpha_bar_t) / alpha_bar_t, b, b * (1 - alpha_bar_t)),  # roots forgotten
        lambda b, alpha_bar_t: (b * math.sqrt(alpha_bar_t / (1 - alpha_bar_t)), b, b * math.sqrt(1 - alpha_bar_t)),
        lambda b, alpha_bar_t: (b * math.sqrt((1 - alpha_bar_t) / alpha_bar_t), b, b * math.sqrt(alpha_bar_t)),
    ],
}  # fmt: skip
