"""Independent answers to the exercises of chapter 05, and slips that the cases must refuse."""

import math
from statistics import NormalDist


def bits(x0, mu, std, half=1 / 255, log=math.log2):
    """-log of the mass of a bin that reaches ``half`` to both sides, the outermost ones to infinity."""
    below = NormalDist(mu, std).cdf
    return -log(below(x0 + half if x0 < 1 else 99) - below(x0 - half if x0 > -1 else -99))


RIGHT = {
    "05.1": lambda beta_tilde, S: (
        beta_tilde + S,
        0.5 * (-S / (beta_tilde + S) - math.log(beta_tilde / (beta_tilde + S))) + S / (2 * (beta_tilde + S)),
    ),  # the value of (5.7) at the best variance, term by term
    "05.2": bits,
    "05.3": lambda factor, T: sum(0.5 * (math.log(factor) + 1 / factor - 1) for _ in range(T)),
}  # fmt: skip
SLIPS = {
    "05.1": [
        lambda beta_tilde, S: (beta_tilde, S / (2 * beta_tilde)),  # the posterior's variance
        lambda beta_tilde, S: (beta_tilde + S, math.log(1 + S / beta_tilde)),  # not halved
        lambda beta_tilde, S: (S, 0.5 * math.log(1 + S / beta_tilde)),
        lambda beta_tilde, S: (math.sqrt(beta_tilde + S), 0.5 * math.log(1 + S / beta_tilde)),  # standard deviation
    ],
    "05.2": [
        lambda x0, mu, std: bits(x0, mu, std, half=2 / 255),  # the bug to find
        lambda x0, mu, std: -math.log2(
            NormalDist(mu, std).cdf(x0 + 1 / 255) - NormalDist(mu, std).cdf(x0 - 1 / 255)
        ),  # outermost bins as narrow as the others
        lambda x0, mu, std: -math.log2(2 / 255 * NormalDist(mu, std).pdf(x0)),  # density times width
        lambda x0, mu, std: bits(x0, mu, std, log=math.log),  # nats
        lambda x0, mu, std: bits(x0, mu, std, half=1 / 256),  # bins too narrow
    ],
    "05.3": [
        lambda factor, T: T / 2 * (factor - 1 - math.log(factor)),  # the ratio upside down
        lambda factor, T: 0.5 * (1 / factor - 1 + math.log(factor)),  # one step only
        lambda factor, T: T * (1 / factor - 1 + math.log(factor)),  # not halved
        lambda factor, T: T / 2 * (1 / factor**2 - 1 + 2 * math.log(factor)),  # factor taken as a standard deviation
    ],
}  # fmt: skip
