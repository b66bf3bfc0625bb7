"""The variational bound of DDPM term by term (Ho et al. 2020, Eq. 5), the loss that is trained, and bits per dimension.

-log p(x_0) <= E_q[ L_T + L_{T-1} + ... + L_1 + L_0 ]. Every term below is in nats, one number per example: it takes
data of shape (B, ...) and returns shape (B,), summed over the other dimensions. Divide by the number of dimensions
and by ln 2 with `bits_per_dim`, at the very end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_edu.gaussian import normal_kl, normal_log_prob, posterior_mean_var, q_mean_var, q_sample
from ddpm_edu.schedules import Schedule, at

NOISE_BITS = 1e-3  # x_T counts as noise when the prior term costs less than this many bits/dim


def L_T(s: Schedule, x0: Tensor) -> Tensor:
    """The prior term KL(q(x_T | x_0) || N(0, I)): free of parameters, small, not zero (Eq. 5). Shape (B,), nats."""
    mean, var = q_mean_var(s, x0, s.T)
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    return _sum(normal_kl(mean, var, zero, one))


def L_t(s: Schedule, x0: Tensor, xt: Tensor, t: int | Tensor, mu: Tensor, var: Tensor) -> Tensor:
    """KL(q(x_{t-1} | x_t, x_0) || N(mu, var)) for t = 2..T: the term that the paper calls L_{t-1} (Eq. 5 and 8).

    ``mu`` has the shape of ``xt``; ``var`` broadcasts against it. Averaged over q(x_t | x_0) these KLs make up the
    bound. Shape (B,), nats. ValueError for t = 1, where the posterior is a point mass (that term is L_0), for var <= 0
    and for mu of another shape.
    """
    at(s.beta, t, xt, first=2)
    _same_shape(xt, mu)
    mu_tilde, beta_tilde = posterior_mean_var(s, x0, xt, t)
    return _sum(normal_kl(mu_tilde, beta_tilde, mu, torch.as_tensor(var)))


def L_0_gaussian(x0: Tensor, mu: Tensor, var: Tensor) -> Tensor:
    """-log N(x_0; mu, var), mu and var those of p(x_0 | x_1): the last term for continuous data (Eq. 5). (B,), nats.

    ValueError for var <= 0 and for mu of another shape.
    """
    _same_shape(x0, mu)
    return _sum(-normal_log_prob(x0, mu, torch.as_tensor(var)))


def L_0_discrete(x0: Tensor, mu: Tensor, var: Tensor, bins: int = 256) -> Tensor:
    """-log P(x_0 | x_1) of the discretised decoder (Eq. 13): the Gaussian's mass in the bin of each pixel.

    The grey levels are ``bins`` numbers evenly spaced over [-1, 1]; a bin reaches 1 / (bins - 1) to both sides, the two
    outermost ones to infinity, so that the masses sum to 1. ``var`` = sigma_1^2 broadcasts against ``mu``. Shape
    (B,), nats. ValueError where x0 is not on one of the levels, for var <= 0 and for mu of another shape.
    """
    _same_shape(x0, mu)
    if bins < 2 or not (torch.as_tensor(var) > 0).all():
        raise ValueError(f"bins, var: expected at least 2 bins and var > 0, got {bins} and {var}")
    level = (x0 + 1) / 2 * (bins - 1)
    if not (x0.abs() <= 1).all() or not torch.allclose(level, level.round(), rtol=0, atol=1e-2):
        raise ValueError(
            f"x0: expected {bins} grey levels evenly spaced over [-1, 1], got values between them or outside"
        )
    half, std = 1 / (bins - 1), torch.as_tensor(var).sqrt()
    upper = torch.where(level.round() == bins - 1, math.inf, (x0 + half - mu) / std)
    lower = torch.where(level.round() == 0, -math.inf, (x0 - half - mu) / std)
    # In the right tail both CDFs are 1 in floating point: mirror the bin into the left tail, where they are not.
    lower, upper = torch.where(lower > 0, -upper, lower), torch.where(lower > 0, -lower, upper)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return _sum(-(log_upper + torch.log(-torch.expm1(log_lower - log_upper))))


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """nats / (dims ln 2): a total in nats over ``dims`` dimensions as bits per dimension. ValueError for dims < 1."""
    if dims < 1:
        raise ValueError(f"dims: expected a number of dimensions >= 1, got {dims}")
    return nats / (dims * math.log(2))


def loss_weight(s: Schedule, var: Tensor) -> Tensor:
    """The weight of |eps - eps_hat|^2 in L_{t-1}: beta_t^2 / (2 var_t alpha_t (1 - alpha_bar_t)) (Eq. 12).

    ``var`` is a table (T + 1,) of sampling variances such as ``s.beta``. Returns a table (T + 1,); index 0, where there
    is no term, is NaN. With var = beta_tilde the entry at t = 1 is infinite. ValueError for a table of another length.
    """
    if var.shape != s.beta.shape:
        raise ValueError(f"var: expected a table of T + 1 = {s.T + 1} variances, got shape {tuple(var.shape)}")
    return s.beta**2 / (2 * var * s.alpha * (1 - s.alpha_bar))


def loss_simple(
    s: Schedule, eps_model: Callable[[Tensor, Tensor], Tensor], x0: Tensor, t: Tensor, eps: Tensor
) -> Tensor:
    """|eps - eps_model(x_t, t)|^2 averaged over dimensions, x_t = q_sample(x_0, t, eps) (Eq. 14). Shape (B,).

    The mean over a batch with t uniform on 1..T, int64 (B,), estimates L_simple / D. ValueError for t out of range and
    for a network whose output has another shape.
    """
    eps_hat = eps_model(q_sample(s, x0, t, eps), t)
    if eps_hat.shape != eps.shape:
        raise ValueError(f"eps_model: expected an output of shape {tuple(eps.shape)}, got {tuple(eps_hat.shape)}")
    return ((eps - eps_hat) ** 2).flatten(1).mean(1)


@dataclass(frozen=True)
class Validity:
    """What `validity` found; the numbers are NaN where ``problem`` says that the betas form no schedule."""

    problem: str  # "" if beta_1..beta_T are a schedule
    alpha_bar_T: float
    snr_1: float
    snr_T: float
    prior_nats: float  # KL(q(x_T | x_0) || N(0, I)) per dimension
    prior_bits: float  # the same in bits/dim
    x_T_is_noise: bool  # prior_bits < NOISE_BITS


def validity(betas: Sequence[float] | Tensor, second_moment: float = 1 / 3) -> Validity:
    """Is beta_1..beta_T a schedule, and is x_T noise at its end?

    ``second_moment`` is E[x_0^2] per dimension; 1/3 belongs to pixels spread evenly over [-1, 1]. The prior mismatch is
    (alpha_bar_T (E[x_0^2] - 1) - log(1 - alpha_bar_T)) / 2 nats per dimension, L_T averaged over the data. Betas that
    form no schedule are reported, not raised; ValueError for a negative second moment.
    """
    if not second_moment >= 0:
        raise ValueError(f"second_moment: expected E[x_0^2] >= 0, got {second_moment}")
    try:
        s = Schedule.from_betas(betas)
    except ValueError as error:
        nan = math.nan
        return Validity(str(error), nan, nan, nan, nan, nan, False)
    alpha_bar_T = float(s.alpha_bar[-1])
    nats = 0.5 * (alpha_bar_T * (second_moment - 1) - math.log1p(-alpha_bar_T))
    bits = nats / math.log(2)
    return Validity("", alpha_bar_T, float(s.snr[1]), float(s.snr[-1]), nats, bits, bits < NOISE_BITS)


def _same_shape(x: Tensor, mu: Tensor) -> None:
    if mu.shape != x.shape:
        raise ValueError(f"mu: expected the shape of the data, {tuple(x.shape)}, got {tuple(mu.shape)}")


def _sum(per_dimension: Tensor) -> Tensor:
    return per_dimension.flatten(1).sum(1)
