"""Independent answers to the exercises of chapter 04, and slips that the cases must refuse."""

import math

import numpy as np


def by_regression(alpha_bar_r, alpha_bar_t):
    """x_r on x_t, both given x_0: the covariance is sqrt(alpha) (1 - alpha_bar_r)."""
    cov = math.sqrt(alpha_bar_t / alpha_bar_r) * (1 - alpha_bar_r)
    slope = cov / (1 - alpha_bar_t)
    return math.sqrt(alpha_bar_r) - slope * math.sqrt(alpha_bar_t), slope, 1 - alpha_bar_r - slope * cov


def by_shares(x0, xt, beta_t, alpha_bar_before):
    share = beta_t / (1 - (1 - beta_t) * alpha_bar_before)
    return share * math.sqrt(alpha_bar_before) * x0 + (1 - share) * xt / math.sqrt(1 - beta_t)


def by_sum(betas):
    """Each step's variance, times the squared factors of the steps that come after it on the way back."""
    beta = np.array(betas)
    bar = np.cumprod(1 - beta)
    factors = (1 - beta[1:]) * ((1 - bar[:-1]) / (1 - bar[1:])) ** 2  # of x_t, squared, t = 2..T
    shrink = np.concatenate([[1.0], np.cumprod(factors)])
    return float(shrink[-1] * (1 - bar[-1]) + (shrink[:-1] * beta[1:]).sum())


def backward(betas, variance, last=1):
    """The variance after the steps T, ..., last + 1 with the given noise variance and the right factors."""
    bar = np.cumprod([1.0, *(1 - np.array(betas))])
    var = 1 - bar[-1]
    for t in range(len(betas), last, -1):
        factor = math.sqrt(1 - betas[t - 1]) * (1 - bar[t - 1]) / (1 - bar[t])
        var = factor**2 * var + variance(betas[t - 1], bar[t - 1], bar[t])
    return float(var)


RIGHT = {"04.1": by_regression, "04.2": by_shares, "04.3": by_sum}
SLIPS = {
    "04.1": [
        lambda alpha_bar_r, alpha_bar_t: (  # the variance of the jump
            *by_regression(alpha_bar_r, alpha_bar_t)[:2], 1 - alpha_bar_t / alpha_bar_r
        ),
        lambda alpha_bar_r, alpha_bar_t: (  # the root of alpha_bar_t on x_0
            math.sqrt(alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_r) / (1 - alpha_bar_t),
            *by_regression(alpha_bar_r, alpha_bar_t)[1:],
        ),
        lambda alpha_bar_r, alpha_bar_t: (  # a standard deviation
            *by_regression(alpha_bar_r, alpha_bar_t)[:2], math.sqrt(by_regression(alpha_bar_r, alpha_bar_t)[2])
        ),
        lambda alpha_bar_r, alpha_bar_t: (  # the jump from 0 to t in the place of the jump from r to t
            math.sqrt(alpha_bar_r), math.sqrt(alpha_bar_t) * (1 - alpha_bar_r) / (1 - alpha_bar_t), 1 - alpha_bar_r
        ),
    ],
    "04.2": [
        lambda x0, xt, beta_t, alpha_bar_before: (  # the bug to find
            by_shares(math.sqrt(1 - beta_t) * x0, 0.0, beta_t, alpha_bar_before)
            + by_shares(0.0, xt, beta_t, alpha_bar_before)
        ),
        lambda x0, xt, beta_t, alpha_bar_before: by_shares(xt, x0, beta_t, alpha_bar_before),
        lambda x0, xt, beta_t, alpha_bar_before: math.sqrt(1 - beta_t) * by_shares(x0, xt, beta_t, alpha_bar_before),
        lambda x0, xt, beta_t, alpha_bar_before: (  # the shares of the noisy end, at every time
            beta_t * math.sqrt(alpha_bar_before) * x0 + math.sqrt(1 - beta_t) * xt
        ),
    ],
    "04.3": [
        lambda betas: betas[0],  # what it should be
        lambda betas: backward(betas, lambda beta, before, bar: beta**2),
        lambda betas: backward(betas, lambda beta, before, bar: beta * (1 - before) / (1 - bar)),  # beta_tilde
        lambda betas: backward(betas, lambda beta, before, bar: beta, last=0),  # one step too many
    ],
}  # fmt: skip
