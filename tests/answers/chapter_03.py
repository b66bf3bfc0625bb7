"""Independent answers to the exercises of chapter 03, and slips that the cases must refuse."""

import math

RIGHT = {
    "03.1": lambda alpha_bar_r, alpha_bar_t: (
        math.exp((math.log(alpha_bar_t) - math.log(alpha_bar_r)) / 2), (alpha_bar_r - alpha_bar_t) / alpha_bar_r
    ),
    "03.2": lambda x0, alpha_bar_t, eps: alpha_bar_t**0.5 * x0 + (1 - alpha_bar_t) ** 0.5 * eps,
    "03.3": lambda beta, T: (1 - beta) ** (2 * T) * (1 - 1 / (2 - beta)) + 1 / (2 - beta),  # around the fixed point
}  # fmt: skip
SLIPS = {
    "03.1": [
        lambda alpha_bar_r, alpha_bar_t: (alpha_bar_t / alpha_bar_r, 1 - alpha_bar_t / alpha_bar_r),
        lambda alpha_bar_r, alpha_bar_t: (math.sqrt(alpha_bar_t), 1 - alpha_bar_t),  # as if r were 0
        lambda alpha_bar_r, alpha_bar_t: ((alpha_bar_t / alpha_bar_r) ** 0.5, (1 - alpha_bar_t / alpha_bar_r) ** 0.5),
        lambda alpha_bar_r, alpha_bar_t: (math.sqrt(alpha_bar_t / alpha_bar_r), alpha_bar_r - alpha_bar_t),
    ],
    "03.2": [
        lambda x0, alpha_bar_t, eps: alpha_bar_t**0.5 * x0 + (1 - alpha_bar_t) * eps,  # the bug to find
        lambda x0, alpha_bar_t, eps: alpha_bar_t * x0 + (1 - alpha_bar_t) ** 0.5 * eps,
        lambda x0, alpha_bar_t, eps: alpha_bar_t**0.5 * x0 - (1 - alpha_bar_t) ** 0.5 * eps,
    ],
    "03.3": [
        lambda beta, T: 1.0,  # with the root
        lambda beta, T: 1 / (2 - beta),  # the limit, whatever T
        lambda beta, T: (1 - beta) ** (2 * (T + 1)) * (1 - 1 / (2 - beta)) + 1 / (2 - beta),  # one step too many
        lambda beta, T: 1 / (2 - beta) - (1 - beta) ** (2 * T) / (2 - beta),  # starts from variance 0
    ],
}  # fmt: skip
