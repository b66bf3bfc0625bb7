"""Chapter 07: a later time by a rotation, a loss over all pairs, when an average has forgotten its start."""

import math

import torch
from torch import Tensor

from ddpm_edu.exercises.exercise import Exercise


def _later(omega: float, k: int) -> tuple[float, float, float, float]:
    angle = omega * k
    return math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)


def _batch_loss(eps: Tensor, eps_hat: Tensor) -> Tensor:
    return ((eps[:, 0] - eps_hat) ** 2).mean()


def _updates_to_forget(decay: float) -> tuple[int, int]:
    constant = math.floor(math.log(0.01) / math.log(decay)) + 1
    share, n = 1.0, 0
    while share >= 0.01:
        n += 1
        share *= min(decay, n / (9 + n))
    return constant, n


EXERCISES = {
    "07.1": Exercise(
        _later,
        [{"omega": 1.0, "k": 1}, {"omega": 0.01, "k": 30}, {"omega": 0.3, "k": -2}],
        hint="sin(a + b) = cos(b) sin(a) + sin(b) cos(a), and cos(a + b) = -sin(b) sin(a) + cos(b) cos(a), b = omega k",
    ),
    "07.2": Exercise(
        _batch_loss,
        [
            {"eps": torch.tensor([[1.0], [-2.0], [0.5]]), "eps_hat": torch.tensor([1.0, -2.0, 0.5])},
            {"eps": torch.tensor([[1.0], [-2.0], [0.5]]), "eps_hat": torch.tensor([0.5, -1.0, 0.0])},
            {"eps": torch.tensor([[3.0]]), "eps_hat": torch.tensor([1.0])},
        ],
        hint="(B, 1) minus (B,) is a table of B x B differences; bring both to one shape before you subtract",
    ),
    "07.3": Exercise(
        _updates_to_forget,
        [{"decay": 0.9999}, {"decay": 0.99}, {"decay": 0.15}, {"decay": 0.05}],
        hint="each update multiplies the share of the start by its d: count updates until the product is below 0.01",
    ),
}
