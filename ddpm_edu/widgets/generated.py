"""The density that a schedule generates, without drawing a sample: Algorithm 2 with the ideal eps on a 1-D mixture.

A reverse step from t to r is a smooth map and then normal noise, x_r = m(x_t) + sqrt(v) z. So the characteristic
function of x_r is E[exp(-i k m(x_t))] exp(-k^2 v / 2): an integral over the density of x_t, which one Fourier
transform recovers from its own characteristic function. On an even grid such integrals of smooth functions are exact to
a tolerance, and there is no other error. The last step, to r = 0, adds no noise and is a change of variables.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpm_edu import sampling
from ddpm_edu.schedules import Schedule

Array = np.ndarray[Any, np.dtype[np.float64]]
Spectrum = np.ndarray[Any, np.dtype[np.complex128]]

WEIGHTS = np.array([0.3, 0.5, 0.2])  # the data: a dark, a middle and a bright grey, E[x_0^2] about 1/3 like pixels
MEANS = np.array([-0.75, 0.1, 0.8])
VARS = np.array([0.1, 0.2, 0.12]) ** 2
HALF = 6.0  # everything happens in [-HALF, HALF]
LONG, TOLERANCES = 100, (1e-10, 1e-6)  # of the characteristic function, in chains up to LONG steps and in longer ones
FEW, MANY = 64, 1024  # how many frequencies it is kept at, as its width asks
FLOOR = 1e-14  # densities below are rounding
EDGES = np.linspace(-1.5, 1.5, 152)  # of the cells in which a density is drawn
X = (EDGES[1:] + EDGES[:-1]) / 2
VARIANCES = {"β̃": 1.0, "√(ββ̃)": 0.5, "β": 0.0}  # the power of β̃ / β in each


@dataclass(frozen=True)
class Generated:
    """The generated density in the cells around `X`, and KL(data || generated) in nats.

    In the KL a generated density below FLOOR counts as FLOOR.
    """

    density: Array
    kl: float


def data_density(x: Array) -> Array:
    """The density of the data at ``x``."""
    return _sum(WEIGHTS[:, None] * _normal(x, MEANS[:, None], VARS[:, None]))


@functools.lru_cache(32)
def generated(s: Schedule, steps: int, variance: str) -> Generated:
    """What ``steps`` steps of the ancestral sampler make of x_T ~ N(0, 1), their times evenly spaced.

    ``variance`` is one of VARIANCES, those of each jump from t to r, whose beta is 1 - alpha_bar_t / alpha_bar_r. No
    noise is added in the last jump, to 0. ValueError for another variance, and as `sampling.even_grid` for steps.
    """
    if variance not in VARIANCES:
        raise ValueError(f"variance: expected one of {', '.join(VARIANCES)}, got {variance!r}")
    times = sampling.even_grid(s.T, steps)
    alpha_bar = s.alpha_bar.tolist()
    phi: Spectrum = np.exp(-(_frequencies(FEW) ** 2) / 2).astype(np.complex128)
    for t, r in itertools.pairwise(times):
        phi = _step(phi, alpha_bar[t], alpha_bar[r], variance, TOLERANCES[steps > LONG])
    return _last_step(phi, alpha_bar[times[-1]])


def _step(phi: Spectrum, now: float, before: float, variance: str, tolerance: float) -> Spectrum:
    """The characteristic function after the step from alpha_bar = now to before."""
    beta = 1 - now / before
    on_x0, on_xt = math.sqrt(before) * beta / (1 - now), math.sqrt(now / before) * (1 - before) / (1 - now)
    var = beta * ((1 - before) / (1 - now)) ** VARIANCES[variance]
    count = len(phi)
    while True:
        x, p = _density(phi, count)
        m = on_x0 * _x0_given_xt(x, now)[0] + on_xt * x
        new: Spectrum = _transform(p, m, count) * np.exp(-(_frequencies(count) ** 2) * var / 2)
        if count == MANY or abs(new[-count // 8 :]).max() < tolerance:
            break
        count *= 2  # the new density has finer detail than so many frequencies can hold
    while count > FEW and abs(new[count * 3 // 8 :]).max() < tolerance:
        count //= 2
    return new[:count]


def _last_step(phi: Spectrum, now: float) -> Generated:
    """x_0 = E[x_0 | x_t]: a rising map, so the density is divided by its slope, and intervals keep their mass."""
    x, p = _density(phi, 2 * MANY)
    p, width = np.maximum(p, FLOOR), x[1] - x[0]
    y, share, means = _x0_given_xt(x, now)
    within = VARS[:, None] / (now * VARS + 1 - now)[:, None]  # Var[x_0 | x_t] is 1 - now times this, and between them:
    slope = math.sqrt(now) * _sum(share * (within + (means - y) ** 2 / (1 - now)))
    kl = _cross(data_density(y), p / slope) @ slope * width
    far = np.arange(-HALF, HALF, width)
    far = far[(far < y[0]) | (far > y[-1])]  # where the sampler does not get to
    kl += _cross(data_density(far), np.full_like(far, FLOOR)).sum() * width
    below = np.interp(EDGES, y, (np.cumsum(p) - p / 2) * width)
    return Generated(np.diff(below) / np.diff(EDGES), max(float(kl), 0.0))


def _cross(q: Array, g: Array) -> Array:
    """q log(q / g), 0 where q is 0."""
    integrand: Array = q * np.log(np.maximum(q, 1e-300) / g)
    return integrand


def _x0_given_xt(x: Array, alpha_bar: float) -> tuple[Array, Array, Array]:
    """E[x_0 | x_t = x] of the mixture; the weights and the means of its components given x_t, (3, N) each."""
    var = (alpha_bar * VARS + 1 - alpha_bar)[:, None]
    off = (x - math.sqrt(alpha_bar) * MEANS[:, None]) / var
    share = np.exp(np.log(WEIGHTS)[:, None] - 0.5 * np.log(var) - 0.5 * var * off**2)
    share /= np.maximum(_sum(share), 1e-300)
    means = MEANS[:, None] + math.sqrt(alpha_bar) * VARS[:, None] * off
    mean: Array = _sum(share * means)
    return mean, share, means


def _density(phi: Spectrum, count: int) -> tuple[Array, Array]:
    """2 count points in [-HALF, HALF) and the density there whose characteristic function is ``phi``."""
    x: Array = np.arange(-count, count, dtype=np.float64) * (HALF / count)
    padded = np.zeros(count + 1, np.complex128)
    padded[: len(phi)] = phi
    padded[1::2] *= -1  # the points begin at -HALF, not at 0
    p: Array = np.fft.irfft(padded) * (count / HALF)
    return x, p


def _transform(p: Array, m: Array, count: int) -> Spectrum:
    """The integral of p(x) exp(-i k m(x)) at the first ``count`` frequencies: powers of one array, by a product."""
    low = 1 << (count.bit_length() - 1) // 2
    base = np.exp(-1j * math.pi / HALF * m)
    small, large = np.ones((low, len(m)), np.complex128), np.empty((count // low, len(m)), np.complex128)
    for j in range(1, low):
        np.multiply(small[j - 1], base, out=small[j])
    large[0], stride = p * (HALF / (len(p) // 2)), small[-1] * base
    for j in range(1, count // low):
        np.multiply(large[j - 1], stride, out=large[j])
    result: Spectrum = (large @ small.T).ravel()
    return result


def _frequencies(count: int) -> Array:
    k: Array = np.arange(count, dtype=np.float64) * (math.pi / HALF)
    return k


def _normal(x: Array, mean: Array, var: Array) -> Array:
    density: Array = np.exp(-((x - mean) ** 2) / (2 * var)) / np.sqrt(2 * math.pi * var)
    return density


def _sum(rows: Array) -> Array:
    total: Array = rows[0] + rows[1] + rows[2]  # three additions: faster than a reduction over an axis of three
    return total
