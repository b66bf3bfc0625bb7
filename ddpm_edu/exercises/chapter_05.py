"""Chapter 05: the best variance of a step with an imperfect mean, the mass of a bin, half the best variance."""

import math

from ddpm_edu.exercises.exercise import Exercise


def _best_step(beta_tilde: float, S: float) -> tuple[float, float]:
    return beta_tilde + S, 0.5 * math.log1p(S / beta_tilde)


def _pixel_bits(x0: float, mu: float, std: float) -> float:
    def below(edge: float) -> float:
        return 0.5 * math.erfc((mu - edge) / (std * math.sqrt(2)))

    upper = 1.0 if x0 == 1 else below(x0 + 1 / 255)
    lower = 0.0 if x0 == -1 else below(x0 - 1 / 255)
    return -math.log2(upper - lower)


def _price_of(factor: float, T: int) -> float:
    return T / 2 * (1 / factor - 1 + math.log(factor))


EXERCISES = {
    "05.1": Exercise(
        _best_step,
        [
            {"beta_tilde": 1.0, "S": 1.0},
            {"beta_tilde": 0.02, "S": 0.005},
            {"beta_tilde": 0.5, "S": 0.0},
            {"beta_tilde": 0.01, "S": 0.3},
        ],
        hint="the derivative with respect to sigma^2 vanishes where sigma^2 = beta_tilde + S; put that into (5.7)",
    ),
    "05.2": Exercise(
        _pixel_bits,
        [
            {"x0": 33 / 255, "mu": 0.1, "std": 0.05},
            {"x0": 1.0, "mu": 0.97, "std": 0.1},
            {"x0": -1.0, "mu": -0.99, "std": 0.01},
            {"x0": -251 / 255, "mu": -0.9, "std": 0.2},
        ],
        hint="a bin ends halfway to the next level; the outermost two reach to infinity",
    ),
    "05.3": Exercise(
        _price_of,
        [
            {"factor": 0.5, "T": 1000},
            {"factor": 1.0, "T": 1000},
            {"factor": 2.0, "T": 10},
            {"factor": 0.1, "T": 1},
        ],
        hint="(5.18) with r_t = 1 / factor in each of the T steps",
    ),
}
