"""Chapter 12: the mean age of an average, a mean over unequal batches, what wrong shares of the classes cost."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _mean_age(n: int, c: int) -> float:
    return n / (c + 1)


def _mean_of_all(means: list[float], sizes: list[int]) -> float:
    return sum(mean * size for mean, size in zip(means, sizes, strict=True)) / sum(sizes)


def _price_of_shares(data: list[float], model: list[float], D: int) -> float:
    return sum(p * math.log2(p / q) for p, q in zip(data, model, strict=True)) / D


EXERCISES = {
    "12.1": Exercise(
        _mean_age,
        [{"n": 1, "c": 9}, {"n": 20_000, "c": 9}, {"n": 300, "c": 1}, {"n": 7, "c": 4}],
        hint="kappa n = n / (c + n) (kappa (n - 1) + 1): multiply out and compare; at n = 1 it is 1 / (c + 1)",
    ),
    "12.2": Exercise(
        _mean_of_all,
        [
            {"means": [2.0, 3.0, 7.0], "sizes": [128, 128, 80]},
            {"means": [0.5, 0.25], "sizes": [1, 3]},
            {"means": [4.0], "sizes": [10]},
        ],
        hint="every picture counts the same, so the mean of a batch counts as often as it has pictures",
    ),
    "12.3": Exercise(
        _price_of_shares,
        [
            {"data": [0.1] * 10, "model": [0.111] * 9 + [0.001], "D": 3072},
            {"data": [0.5, 0.5], "model": [0.9, 0.1], "D": 64},
            {"data": [0.2, 0.8], "model": [0.2, 0.8], "D": 3072},
        ],
        hint="(12.9): the sum over the classes of pi log(pi / pi'), in bits and divided by D",
    ),
}
