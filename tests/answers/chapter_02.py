"""Independent answers to the exercises of chapter 02, and slips that the cases must refuse."""

import math


def by_gain(x, a, r, w, b, s):
    """The same posterior as a correction of the prior mean, in the way of a Kalman filter."""
    gain = r * w / (w**2 * r + s)
    return a + gain * (x - b - w * a), (1 - gain * w) * r


def by_fixed_point(x, w, s, beta):
    """Where the slopes of the objective in v and in m vanish: m by halving intervals, v solved for."""
    low, high = -100.0, 100.0
    for _ in range(200):
        m = (low + high) / 2
        slope = w * (x - w * m) / s - beta * m
        low, high = (m, high) if slope > 0 else (low, m)
    return m, beta / (beta + w**2 / s)


RIGHT = {
    "02.1": by_gain,
    "02.2": lambda mean, log_var, eps: mean + math.sqrt(math.exp(log_var)) * eps,
    "02.3": by_fixed_point,
}
SLIPS = {
    "02.1": [
        lambda x, a, r, w, b, s: (by_gain(x, a, r, w, b, s)[0], w**2 / s + 1 / r),  # the precision
        lambda x, a, r, w, b, s: by_gain(x, 0.0, r, w, b, s),  # the mean of the prior forgotten
        lambda x, a, r, w, b, s: by_gain(x, a, 1.0, w, b, s),  # the variance of the prior taken as 1
        lambda x, a, r, w, b, s: by_gain(x, a, r, w, 0.0, s),  # the offset forgotten
        lambda x, a, r, w, b, s: ((x - b) / w, s / w**2),  # no prior at all
    ],
    "02.2": [
        lambda mean, log_var, eps: mean + math.exp(log_var) * eps,  # the bug to find
        lambda mean, log_var, eps: mean + math.sqrt(abs(log_var)) * eps,
        lambda mean, log_var, eps: mean + math.exp(-log_var / 2) * eps,
        lambda mean, log_var, eps: mean + eps,
    ],
    "02.3": [
        lambda x, w, s, beta: by_fixed_point(x, w, s, 1.0),  # beta without effect
        lambda x, w, s, beta: by_fixed_point(x, w, s, 1 / beta),
        lambda x, w, s, beta: (by_fixed_point(x, w, s, beta)[0], s / (w**2 + beta * s)),  # variance not scaled
        lambda x, w, s, beta: tuple(value / beta for value in by_fixed_point(x, w, s, 1.0)),
    ],
}
