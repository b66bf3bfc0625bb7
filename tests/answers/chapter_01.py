"""Independent answers to the exercises of chapter 01, and slips that the cases must refuse."""

import math

import numpy as np


def best_variance(m1, v1, m2):
    """Where the slope of a KL by quadrature is zero, found by halving, and the KL there."""
    x = m1 + math.sqrt(v1) * np.linspace(-12, 12, 4801)
    p = np.exp(-((x - m1) ** 2) / (2 * v1)) / math.sqrt(2 * math.pi * v1)
    dx = x[1] - x[0]

    def kl(v2):
        log_ratio = 0.5 * (math.log(v2 / v1) + (x - m2) ** 2 / v2 - (x - m1) ** 2 / v1)
        return float((p * log_ratio).sum() * dx)

    def slope(v2):  # of the KL with respect to v2
        return float((p * (1 / v2 - (x - m2) ** 2 / v2**2)).sum() * dx)

    low, high = 1e-3, 1e3
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low, kl(low)


def kl_to_standard(mean, log_var):
    """By quadrature, over twelve standard deviations of the first density."""
    std = math.exp(log_var / 2)
    u = np.linspace(-12, 12, 4801)
    weight = np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi) * (u[1] - u[0])
    return float((weight * ((mean + std * u) ** 2 / 2 - u**2 / 2)).sum() - log_var / 2)


RIGHT = {
    "01.1": best_variance,
    "01.2": kl_to_standard,
    "01.3": lambda bits_per_dim, kl_nats, a: (-math.log2(2**-bits_per_dim / abs(a)), kl_nats),
}
SLIPS = {
    "01.1": [
        lambda m1, v1, m2: (v1, 0.5 * (m1 - m2) ** 2 / v1),  # the variance of p, whatever the means
        lambda m1, v1, m2: (v1 + abs(m1 - m2), 0.5 * math.log((v1 + abs(m1 - m2)) / v1)),
        lambda m1, v1, m2: (v1 + (m1 - m2) ** 2, math.log((v1 + (m1 - m2) ** 2) / v1)),  # the half forgotten
        lambda m1, v1, m2: (math.sqrt(v1 + (m1 - m2) ** 2), 0.5 * math.log((v1 + (m1 - m2) ** 2) / v1)),  # a std
    ],
    "01.2": [
        lambda mean, log_var: 0.5 * (mean**2 + math.exp(log_var) ** 2 - 1 - log_var),  # the bug to find
        lambda mean, log_var: 0.5 * (mean**2 + math.exp(log_var) ** 2 - 1 - 2 * log_var),  # taken for ln std
        lambda mean, log_var: 0.5 * (mean**2 * math.exp(-log_var) + math.exp(-log_var) - 1 + log_var),  # reversed
        lambda mean, log_var: mean**2 + math.exp(log_var) - 1 - log_var,
    ],
    "01.3": [
        lambda bits_per_dim, kl_nats, a: (bits_per_dim, kl_nats),
        lambda bits_per_dim, kl_nats, a: (bits_per_dim - math.log2(abs(a)), kl_nats),
        lambda bits_per_dim, kl_nats, a: (bits_per_dim + math.log(abs(a)), kl_nats),  # nats
        lambda bits_per_dim, kl_nats, a: (bits_per_dim + math.log2(abs(a)), kl_nats / abs(a)),
    ],
}
