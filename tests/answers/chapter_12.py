"""Independent answers to the exercises of chapter 12, and slips that the cases must refuse."""

import math


def _age_by_updates(n, c):
    """The average as a list of (share, age), update after update, by its definition."""
    age = 0.0
    for i in range(1, n + 1):
        age = (age + 1) * i / (c + i) + 0 * c / (c + i)
    return age


def _each_picture_counted(means, sizes):
    losses = [mean for mean, size in zip(means, sizes, strict=True) for _ in range(size)]
    return sum(losses) / len(losses)


def _code_lengths(data, model, D):
    """Bits of the class by the model's code, minus those by the best code."""
    return (sum(-p * math.log(q) for p, q in zip(data, model, strict=True))
            - sum(-p * math.log(p) for p in data)) / math.log(2) / D  # fmt: skip


RIGHT = {"12.1": _age_by_updates, "12.2": _each_picture_counted, "12.3": _code_lengths}
SLIPS = {
    "12.1": [
        lambda n, c: n / c,
        lambda n, c: c * n / (c + 1),  # the mean step, not its age
        lambda n, c: n / 10,  # the package's c, whatever c is
        lambda n, c: n / (c + n),  # the decay
    ],
    "12.2": [
        lambda means, sizes: sum(means) / len(means),  # the bug to find
        lambda means, sizes: sum(m * s for m, s in zip(means, sizes, strict=True)) / len(means),
        lambda means, sizes: sum(m * s for m, s in zip(means, sizes, strict=True)) / (len(sizes) * sizes[0]),
        lambda means, sizes: sum(m / s for m, s in zip(means, sizes, strict=True)) * len(means) / sum(sizes),
    ],
    "12.3": [
        lambda data, model, D: _code_lengths(data, model, D) * math.log(2),  # nats
        lambda data, model, D: _code_lengths(data, model, 1),  # bits a picture
        lambda data, model, D: _code_lengths(model, data, D),  # the other direction
        lambda data, model, D: sum(abs(math.log2(p / q)) for p, q in zip(data, model, strict=True)) / D,
    ],
}
