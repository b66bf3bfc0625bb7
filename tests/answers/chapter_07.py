"""Independent answers to the exercises of chapter 07, and slips that the cases must refuse."""

import cmath
import math


def _rotation(omega, k):
    """By complex numbers: the pair at t is z = exp(i angle), and k steps later z is multiplied by exp(i omega k)."""
    turned = [cmath.exp(1j * omega * k) * start for start in (1j, 1)]  # started from (sin, cos) = (1, 0) and (0, 1)
    return turned[0].imag, turned[1].imag, turned[0].real, turned[1].real


def _pairs_alone(eps, eps_hat):
    return sum((a[0] - b) ** 2 for a, b in zip(eps.tolist(), eps_hat.tolist(), strict=True)) / len(eps)


def _carried(decay):
    """The share of the start carried from update to update, in both averages at once."""
    shares, numbers, n = [1.0, 1.0], [0, 0], 0
    while max(shares) >= 0.01:
        factors = (decay, decay if (1 + n) / (10 + n) > decay else (1 + n) / (10 + n))
        n += 1
        for i, d in enumerate(factors):
            numbers[i] += shares[i] >= 0.01
            shares[i] *= d
    return tuple(numbers)


RIGHT = {"07.1": _rotation, "07.2": _pairs_alone, "07.3": _carried}
SLIPS = {
    "07.1": [
        lambda omega, k: (math.cos(omega * k), -math.sin(omega * k), math.sin(omega * k), math.cos(omega * k)),  # back
        lambda omega, k: (math.sin(omega * k), math.cos(omega * k), math.cos(omega * k), -math.sin(omega * k)),
        lambda omega, k: (math.cos(omega), math.sin(omega), -math.sin(omega), math.cos(omega)),  # one step only
        lambda omega, k: (math.cos(omega * (k - 1)), math.sin(omega * (k - 1)),
                          -math.sin(omega * (k - 1)), math.cos(omega * (k - 1))),  # the t - 1 taken twice
    ],
    "07.2": [
        lambda eps, eps_hat: ((eps - eps_hat) ** 2).mean(),  # the bug to find
        lambda eps, eps_hat: ((eps[:, 0] - eps_hat) ** 2).sum(),
        lambda eps, eps_hat: (eps[:, 0] - eps_hat).mean() ** 2,
    ],
    "07.3": [
        lambda decay: (_carried(decay)[0],) * 2,  # no warm-up
        lambda decay: tuple(n - 1 for n in _carried(decay)),  # the last update before it
        lambda decay: (math.log(0.01) / math.log(decay), _carried(decay)[1]),  # no whole number
        lambda decay: (1 / (1 - decay), _carried(decay)[1]),  # the age of the average
        lambda decay: (_carried(decay)[0], 3),  # the warm-up whatever the decay
    ],
}  # fmt: skip
