"""Independent answers to the exercises of chapter 08, and slips that the cases must refuse."""

import math

import numpy as np


def _share_kept(alpha_bar_t, alpha_bar_r, var_0):
    """The cosine of the angle between the parts (of the data, of the noise) that x_t and x_r are made of."""
    angles = [math.atan2(math.sqrt(1 - a), math.sqrt(a * var_0)) for a in (alpha_bar_t, alpha_bar_r)]
    return math.cos(angles[0] - angles[1])


def _factor(alpha_bar_t, alpha_bar_r, var_0):
    """By regression: cov(x_0, x_t) and cov(eps, x_t) over var(x_t), x_t = A (x_0, eps)."""
    a = np.array([math.sqrt(alpha_bar_t), math.sqrt(1 - alpha_bar_t)])
    covariance = np.diag([var_0, 1.0])
    guess = covariance @ a / (a @ covariance @ a)  # of x_0 and of eps, per unit of x_t
    return float(np.array([math.sqrt(alpha_bar_r), math.sqrt(1 - alpha_bar_r)]) @ guess)


def _scaled(c, betas):
    """In closed form: what is left of the start, and c^2 times what the noise would have filled in."""
    kept = math.exp(sum(math.log(1 - beta) for beta in betas))
    return kept + c**2 * (1 - kept)


RIGHT = {
    "08.1": _share_kept,
    "08.2": lambda alpha_bar_t, alpha_bar_r, eta: (
        eta * ((1 - alpha_bar_r) * (alpha_bar_r - alpha_bar_t) / (alpha_bar_r * (1 - alpha_bar_t))) ** 0.5
    ),
    "08.3": _scaled,
}
SLIPS = {
    "08.1": [
        _factor,  # not compared with the right one
        lambda alpha_bar_t, alpha_bar_r, var_0: 1.0,  # the limit of many small steps
        lambda alpha_bar_t, alpha_bar_r, var_0: (
            _factor(alpha_bar_t, alpha_bar_r, var_0)
            * (alpha_bar_t * var_0 + 1 - alpha_bar_t)
            / (alpha_bar_r * var_0 + 1 - alpha_bar_r)
        ),  # compared with the ratio of the variances
        lambda alpha_bar_t, alpha_bar_r, var_0: _share_kept(alpha_bar_t, alpha_bar_r, var_0) ** 2,  # of the variance
    ],
    "08.2": [
        lambda alpha_bar_t, alpha_bar_r, eta: (
            eta * abs((1 - alpha_bar_r) / (1 - alpha_bar_t) * 1 - alpha_bar_t / alpha_bar_r) ** 0.5
        ),  # the bug to find
        lambda alpha_bar_t, alpha_bar_r, eta: (
            eta * (1 - alpha_bar_r) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_r)
        ),  # the root forgotten
        lambda alpha_bar_t, alpha_bar_r, eta: (
            eta**2 * ((1 - alpha_bar_r) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_r)) ** 0.5
        ),
        lambda alpha_bar_t, alpha_bar_r, eta: eta * (1 - alpha_bar_t / alpha_bar_r) ** 0.5,  # beta for beta_tilde
    ],
    "08.3": [
        lambda c, betas: 1.0,  # nothing happens
        lambda c, betas: math.prod(1 - beta for beta in betas) + c * (1 - math.prod(1 - beta for beta in betas)),
        lambda c, betas: c**2,  # the limit, whatever the chain
        lambda c, betas: c**2 * math.prod(1 - beta for beta in betas),  # the start scaled, no noise
    ],
}
