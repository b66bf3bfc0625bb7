"""Independent answers to the exercises of chapter 09, and slips that the cases must refuse."""

import math


def _fixed_point(scale, eta, target_var):
    var = 1.0
    for _ in range(2000):
        var = (1 - scale * eta / target_var) ** 2 * var + 2 * eta
    return var


def _law_after(start, eta, tau, target_var, k):
    a = 1 - eta / target_var
    return a**k * start, 2 * eta * tau * sum(a ** (2 * j) for j in range(k))


RIGHT = {
    "09.1": _law_after,
    "09.2": lambda x, score, alpha, z: x + (alpha / 2) * score + math.sqrt(2 * (alpha / 2)) * z,
    "09.3": _fixed_point,
}
SLIPS = {
    "09.1": [
        lambda start, eta, tau, target_var, k: _law_after(start, eta, 1.0, target_var, k),  # no temperature
        lambda start, eta, tau, target_var, k: _law_after(start, eta, tau, target_var, k + 1),
        lambda start, eta, tau, target_var, k: (0.0, tau * target_var / (1 - eta / (2 * target_var))),  # the limit
        lambda start, eta, tau, target_var, k: (
            (1 - eta / target_var) ** k * start, 2 * eta * tau * sum((1 - eta / target_var) ** j for j in range(k))
        ),  # factors not squared
        lambda start, eta, tau, target_var, k: _law_after(start, eta, tau, target_var**0.5, k),
    ],
    "09.2": [
        lambda x, score, alpha, z: x + alpha * score + alpha**0.5 * z,  # the bug to find
        lambda x, score, alpha, z: x + alpha * score + (2 * alpha) ** 0.5 * z,  # alpha taken for eta
        lambda x, score, alpha, z: x - alpha / 2 * score + alpha**0.5 * z,
        lambda x, score, alpha, z: x + alpha / 2 * score + alpha * z,
    ],
    "09.3": [
        lambda scale, eta, target_var: target_var / (1 - eta / (2 * target_var)),  # the factor forgotten
        lambda scale, eta, target_var: scale * target_var / (1 - eta / (2 * target_var)),
        lambda scale, eta, target_var: target_var / scale,  # no bias
        lambda scale, eta, target_var: target_var / scale / (1 - eta / (2 * target_var)),
    ],
}  # fmt: skip
