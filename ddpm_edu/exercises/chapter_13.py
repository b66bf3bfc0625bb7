"""Chapter 13: when a pattern is known, which time a stored picture has, two samplers that part on the way."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _alpha_bar_when_known(lam: float, g: float) -> float:
    snr = g / (lam * (1 - g))
    return snr / (1 + snr)


def _index_of(k: int, every: int, T: int) -> int:
    return T - 2 - every * k


def _correlation_of_ends(alpha_bar_t: float, var_0: float) -> float:
    return math.sqrt(alpha_bar_t * var_0 / (alpha_bar_t * var_0 + 1 - alpha_bar_t))


EXERCISES = {
    "13.1": Exercise(
        _alpha_bar_when_known,
        [{"lam": 1.0, "g": 0.5}, {"lam": 100.0, "g": 0.5}, {"lam": 0.25, "g": 0.9}, {"lam": 4.0, "g": 0.2}],
        hint="solve (13.7) for the SNR, then alpha_bar = SNR / (1 + SNR)",
    ),
    "13.2": Exercise(
        _index_of,
        [
            {"k": 0, "every": 15, "T": 1000},
            {"k": 66, "every": 15, "T": 1000},
            {"k": 3, "every": 1, "T": 10},
            {"k": 2, "every": 4, "T": 50},
        ],
        hint="images[n] is x_(T-1-n) by (13.1); an index that counts from 0 is one less than the time",
    ),
    "13.3": Exercise(
        _correlation_of_ends,
        [
            {"alpha_bar_t": 0.5, "var_0": 1.0},
            {"alpha_bar_t": 0.9, "var_0": 0.25},
            {"alpha_bar_t": 4e-5, "var_0": 0.25},
        ],
        hint="DDIM's x_0 is x_t times a number; DDPM's (x_0, x_t) has the law of the forward process",
    ),
}
