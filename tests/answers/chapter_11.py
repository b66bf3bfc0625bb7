"""Independent answers to the exercises of chapter 11, and slips that the cases must refuse."""

import functools
import math


def _std(s, K):
    """The step written as (11.13): x_r = (1 - r) x0* + r eps*, both linear in x."""

    def factor(k):
        tau, r = k / K, (k - 1) / K
        var = (1 - tau) ** 2 * s * s + tau * tau
        return (1 - r) * (1 - tau) * s * s / var + r * tau / var

    return math.prod(factor(k) for k in range(1, K + 1))


def _early(s, K, first, last):
    """Euler with the velocity at the times first..last in place of K..1."""
    times = (k / K for k in range(first, last - 1, -1))
    return functools.reduce(
        lambda std, t: std * (1 - (t - (1 - t) * s * s) / ((1 - t) ** 2 * s * s + t * t) / K), times, 1.0
    )


RIGHT = {
    "11.1": lambda a, sigma, a_dot, sigma_dot: (a_dot / a, (sigma**2 * a_dot - a * sigma * sigma_dot) / a),
    "11.2": lambda x, x0_hat, tau, h: (1 - h / tau) * x + h / tau * x0_hat,
    "11.3": _std,
}  # fmt: skip
SLIPS = {
    "11.1": [
        lambda a, sigma, a_dot, sigma_dot: (a_dot / a, -sigma * sigma_dot),  # as if x0* were x / a
        lambda a, sigma, a_dot, sigma_dot: (a_dot / a, sigma * (sigma_dot - a_dot * sigma / a)),  # wrong sign
        lambda a, sigma, a_dot, sigma_dot: (a_dot / a, sigma_dot - a_dot * sigma / a),  # factor of eps*
        lambda a, sigma, a_dot, sigma_dot: (a_dot / a, -(sigma_dot - a_dot * sigma / a) / sigma),  # score = -eps* sigma
    ],
    "11.2": [
        lambda x, x0_hat, tau, h: x - h * (x - x0_hat),  # the bug to find
        lambda x, x0_hat, tau, h: x + h * (x - x0_hat) / tau,  # towards the noise
        lambda x, x0_hat, tau, h: x - h * (x - x0_hat) / (1 - tau + h),
        lambda x, x0_hat, tau, h: x0_hat,  # all the way at once
    ],
    "11.3": [
        lambda s, K: s,  # as if Euler were exact
        lambda s, K: _early(s, K, K - 1, 0),  # the velocity at the end of each step
        lambda s, K: (1 - 1 / K) ** K,  # the velocity of tau = 1 throughout
        lambda s, K: _std(s * s, K),  # s taken as a variance
    ],
}  # fmt: skip
