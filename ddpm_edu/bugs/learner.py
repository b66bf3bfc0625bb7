"""Code as a reader of the course would write it in an afternoon: right here, and broken by the gallery.

Nothing else uses these functions. They are short, they take plain arguments, and each has one job.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddpm_edu import elbo, gaussian, sampling
from ddpm_edu.schedules import Schedule, at


def alpha_bar_table(betas: Sequence[float]) -> list[float]:
    """alpha_bar_0..alpha_bar_T from beta_1..beta_T."""
    alpha_bar = [1.0]
    for beta in betas:
        alpha_bar.append(alpha_bar[-1] * (1 - beta))
    return alpha_bar


def two_steps(x0: Tensor, beta_1: float, beta_2: float, generator: torch.Generator) -> Tensor:
    """x_2 by two steps of the forward process."""
    first = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    second = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    x1 = math.sqrt(1 - beta_1) * x0 + math.sqrt(beta_1) * first
    return math.sqrt(1 - beta_2) * x1 + math.sqrt(beta_2) * second


def noising_film(x0: Tensor, betas: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    """The pictures x_1..x_T of one forward chain, to be shown as a film; works in place to save memory."""
    x, film = x0.clone(), []
    for beta in betas:
        x.mul_(math.sqrt(1 - beta)).add_(math.sqrt(beta) * torch.randn(x.shape, generator=generator, dtype=x.dtype))
        film.append(x.clone())
    return film


def ancestral(s: Schedule, eps_model: sampling.EpsModel, x: Tensor, generator: torch.Generator) -> Tensor:
    """Algorithm 2, line by line: from x_T to x_0 with variances beta_t."""
    for t in range(s.T, 0, -1):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype) if t > 1 else torch.zeros_like(x)
        alpha, alpha_bar, log_var = s.alpha[t], s.alpha_bar[t], s.beta[t].log()
        eps_hat = eps_model(x, torch.full((len(x),), t))
        mean = (x - (1 - alpha) / (1 - alpha_bar).sqrt() * eps_hat) / alpha.sqrt()
        x = mean + (0.5 * log_var).exp() * z
    return x


def interpolate(
    s: Schedule, eps_model: sampling.EpsModel, a: Tensor, b: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    """Half way between two pictures: both taken to time t with the same noise, mixed, and taken back."""
    eps = torch.randn(a.shape, generator=generator, dtype=a.dtype)
    x = 0.5 * gaussian.q_sample(s, a, t, eps) + 0.5 * gaussian.q_sample(s, b, t, eps)
    for r in range(t, 0, -1):
        x0_hat = gaussian.x0_from_eps(s, x, r, eps_model(x, torch.full((len(x),), r)))
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = sampling.p_step(s, x, r, x0_hat, s.beta, z)
    return x


def believed_pictures(
    s: Schedule, eps_model: sampling.EpsModel, chain: Sequence[Tensor], every: int
) -> list[tuple[int, Tensor]]:
    """What the network believes x_0 to be along a chain x_T, ..., x_1, every so many steps: pairs (t, x0_hat)."""
    found = []
    for i in range(0, s.T, every):
        t = s.T - i
        found.append((t, gaussian.x0_from_eps(s, chain[i], t, eps_model(chain[i], torch.full((len(chain[i]),), t)))))
    return found


def film_bytes(x: Tensor) -> Tensor:
    """Predicted pictures as bytes 0..255, grey where x is 0: what a film of them shows."""
    grey = ((x.clamp(-1, 1) + 1) * 127.5).round().long()
    return grey.to(torch.uint8)


def reconstruction_loss(s: Schedule, eps_model: sampling.EpsModel, x0: Tensor, eps: Tensor) -> Tensor:
    """L_0 with the Gaussian decoder: how badly x_0 is hit from x_1, in nats."""
    x1 = gaussian.q_sample(s, x0, 1, eps)
    mu = gaussian.mu_from_eps(s, x1, 1, eps_model(x1, torch.ones(len(x1), dtype=torch.int64)))
    return elbo.L_0_gaussian(x0, mu, s.beta[1])


def held_out_loss(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of a trained network on data that it has not seen."""
    model.eval()
    with torch.no_grad():
        loss: Tensor = ((model(x) - target) ** 2).mean()
    return loss


def denoiser_score(s: Schedule, xt: Tensor, t: int, x0_hat: Tensor) -> Tensor:
    """The score of q(x_t) from a network that predicts x_0 (Tweedie's formula)."""
    alpha_bar = at(s.alpha_bar, t, xt)
    return (alpha_bar.sqrt() * x0_hat - xt) / (1 - alpha_bar)
