"""Independent answers to the exercises of chapter 02, and slips that the cases must refuse."""

import math


def by_gain(x, a, r, w, b, var):
    """The same posterior as a correction of the prior mean, in the way of a Kalman filter."""
    gain = r * w / (w**2 * r + var)
    return a + gain * (x - b - w * a), (1 - gain * w) * r


def f_of(mean, log_var, eps):
    z = mean + math.sqrt(math.exp(log_var)) * eps
    return -2 * (1 - z) ** 2 - z**2 / 2


def by_differences(mean, log_var, eps):
    """Slopes of f by central differences, extrapolated: the error falls with the fourth power of the step."""

    def slope(h, in_mean):
        step = (h, 0) if in_mean else (0, h)
        ahead = f_of(mean + step[0], log_var + step[1], eps)
        return (ahead - f_of(mean - step[0], log_var - step[1], eps)) / (2 * h)

    return tuple((4 * slope(5e-4, which) - slope(1e-3, which)) / 3 for which in (True, False))


def by_fixed_point(x, w, var, weight):
    """Where the slopes of the objective in v and in m vanish: m by halving intervals, v solved for."""
    low, high = -100.0, 100.0
    for _ in range(200):
        m = (low + high) / 2
        slope = w * (x - w * m) / var - weight * m
        low, high = (m, high) if slope > 0 else (low, m)
    return m, weight / (weight + w**2 / var)


def slope_in_mean(mean, log_var, eps):
    z = mean + math.exp(log_var / 2) * eps
    return 4 * (1 - z) - z


RIGHT = {"02.1": by_gain, "02.2": by_differences, "02.3": by_fixed_point}
SLIPS = {
    "02.1": [
        lambda x, a, r, w, b, var: (by_gain(x, a, r, w, b, var)[0], w**2 / var + 1 / r),  # the precision
        lambda x, a, r, w, b, var: by_gain(x, 0.0, r, w, b, var),  # the mean of the prior forgotten
        lambda x, a, r, w, b, var: by_gain(x, a, 1.0, w, b, var),  # the variance of the prior taken as 1
        lambda x, a, r, w, b, var: by_gain(x, a, r, w, 0.0, var),  # the offset forgotten
        lambda x, a, r, w, b, var: ((x - b) / w, var / w**2),  # no prior at all
    ],
    "02.2": [
        lambda mean, log_var, eps: (slope_in_mean(mean, log_var, eps), slope_in_mean(mean, log_var, eps) * eps),
        lambda mean, log_var, eps: (  # the slope in v
            slope_in_mean(mean, log_var, eps),
            slope_in_mean(mean, log_var, eps) * eps / (2 * math.exp(log_var / 2)),
        ),
        lambda mean, log_var, eps: (  # the 1/2 forgotten
            slope_in_mean(mean, log_var, eps),
            slope_in_mean(mean, log_var, eps) * eps * math.exp(log_var / 2),
        ),
        lambda mean, log_var, eps: (  # log_var taken for the logarithm of the standard deviation
            slope_in_mean(mean, 2 * log_var, eps),
            slope_in_mean(mean, 2 * log_var, eps) * eps * math.exp(log_var),
        ),
    ],
    "02.3": [
        lambda x, w, var, weight: by_fixed_point(x, w, var, 1.0),  # weight without effect
        lambda x, w, var, weight: by_fixed_point(x, w, var, 1 / weight),
        lambda x, w, var, weight: (by_fixed_point(x, w, var, weight)[0], var / (w**2 + weight * var)),  # not scaled
        lambda x, w, var, weight: tuple(value / weight for value in by_fixed_point(x, w, var, 1.0)),
    ],
}
