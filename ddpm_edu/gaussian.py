"""The Gaussian identities of DDPM: Eq. 2 to 11 of Ho et al. 2020 and the conversions among x0, eps, v, mu and score.

Every function takes the schedule ``s`` first and the time ``t`` = 1..T: an int, or an int64 tensor of shape (B,) for
data of shape (B, ...). Means have the data's shape and dtype; variances have the shape of `schedules.at`, that is
(B, 1, ..., 1) or 0-d, and broadcast against the mean. Coefficients are formed in float64 and cast last. No function
draws noise of its own. ValueError for t outside 1..T, of another dtype or shape, for operands of unequal shape, and for
data that are not floating-point.
"""

import math

import torch
from torch import Tensor

from ddpm_edu.schedules import Schedule, at


def q_step(s: Schedule, x_prev: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """One forward step: x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps, a draw of q(x_t | x_{t-1}) (Eq. 2)."""
    beta = at(s.beta, t, x_prev, first=1)
    return _mix((1 - beta).sqrt(), x_prev, beta.sqrt(), eps)


def q_mean_var(s: Schedule, x0: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I) (Eq. 4)."""
    _floating(x0)
    alpha_bar = at(s.alpha_bar, t, x0, first=1)
    return alpha_bar.sqrt().to(x0.dtype) * x0, (1 - alpha_bar).to(x0.dtype)


def q_sample(s: Schedule, x0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, a draw of q(x_t | x_0) (Eq. 4, reparameterised)."""
    alpha_bar = at(s.alpha_bar, t, x0, first=1)
    return _mix(alpha_bar.sqrt(), x0, (1 - alpha_bar).sqrt(), eps)


def posterior_mean_var(s: Schedule, x0: Tensor, xt: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
    """Mean mu_tilde and variance beta_tilde of q(x_{t-1} | x_t, x_0) (Eq. 6 and 7).

    mu_tilde = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t) x_0
             + sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) x_t,
    beta_tilde = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t. At t = 1 this is the point mass at x_0.
    """
    beta, alpha, alpha_bar = (at(table, t, xt, first=1) for table in (s.beta, s.alpha, s.alpha_bar))
    alpha_bar_before = at(s.alpha_bar, t - 1, xt)
    on_x0 = alpha_bar_before.sqrt() * beta / (1 - alpha_bar)
    on_xt = alpha.sqrt() * (1 - alpha_bar_before) / (1 - alpha_bar)
    beta_tilde = (1 - alpha_bar_before) / (1 - alpha_bar) * beta
    return _mix(on_x0, x0, on_xt, xt), beta_tilde.to(xt.dtype)


# Given x_t and t, each of x0, mu, v and score is an affine function of eps and determines it: eps is the hub below.


def x0_from_eps(s: Schedule, xt: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t) (Eq. 4 solved for x_0)."""
    alpha_bar = at(s.alpha_bar, t, xt, first=1)
    return _mix(1 / alpha_bar.sqrt(), xt, -((1 - alpha_bar) / alpha_bar).sqrt(), eps)


def eps_from_x0(s: Schedule, xt: Tensor, t: int | Tensor, x0: Tensor) -> Tensor:
    """eps = (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t) (Eq. 4 solved for eps)."""
    alpha_bar = at(s.alpha_bar, t, xt, first=1)
    return _mix(1 / (1 - alpha_bar).sqrt(), xt, -(alpha_bar / (1 - alpha_bar)).sqrt(), x0)


def mu_from_eps(s: Schedule, xt: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """mu = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t), the reverse mean (Eq. 11)."""
    beta, alpha, alpha_bar = (at(table, t, xt, first=1) for table in (s.beta, s.alpha, s.alpha_bar))
    return _mix(1 / alpha.sqrt(), xt, -beta / ((1 - alpha_bar) * alpha).sqrt(), eps)


def eps_from_mu(s: Schedule, xt: Tensor, t: int | Tensor, mu: Tensor) -> Tensor:
    """eps = (x_t - sqrt(alpha_t) mu) sqrt(1 - alpha_bar_t) / beta_t (Eq. 11 solved for eps)."""
    beta, alpha, alpha_bar = (at(table, t, xt, first=1) for table in (s.beta, s.alpha, s.alpha_bar))
    scale = (1 - alpha_bar).sqrt() / beta
    return _mix(scale, xt, -alpha.sqrt() * scale, mu)


def v_from_eps(s: Schedule, xt: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 (Salimans & Ho 2022), with x_0 written in x_t and eps."""
    alpha_bar = at(s.alpha_bar, t, xt, first=1)
    return _mix(-((1 - alpha_bar) / alpha_bar).sqrt(), xt, 1 / alpha_bar.sqrt(), eps)


def eps_from_v(s: Schedule, xt: Tensor, t: int | Tensor, v: Tensor) -> Tensor:
    """eps = sqrt(1 - alpha_bar_t) x_t + sqrt(alpha_bar_t) v (Salimans & Ho 2022)."""
    alpha_bar = at(s.alpha_bar, t, xt, first=1)
    return _mix((1 - alpha_bar).sqrt(), xt, alpha_bar.sqrt(), v)


def score_from_eps(s: Schedule, xt: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    """score = -eps / sqrt(1 - alpha_bar_t), the gradient of log q(x_t) where eps = E[eps | x_t] (Song et al. 2021)."""
    alpha_bar = at(s.alpha_bar, t, xt, first=1)
    return _mix(torch.zeros_like(alpha_bar), xt, -1 / (1 - alpha_bar).sqrt(), eps)


def eps_from_score(s: Schedule, xt: Tensor, t: int | Tensor, score: Tensor) -> Tensor:
    """eps = -sqrt(1 - alpha_bar_t) score (Song et al. 2021)."""
    alpha_bar = at(s.alpha_bar, t, xt, first=1)
    return _mix(torch.zeros_like(alpha_bar), xt, -(1 - alpha_bar).sqrt(), score)


def normal_log_prob(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """log N(x; mean, var), elementwise, in nats; the arguments broadcast. ValueError unless var > 0."""
    _positive(var=var)
    return -0.5 * ((x - mean) ** 2 / var + torch.log(2 * math.pi * var))


def normal_kl(mean1: Tensor, var1: Tensor, mean2: Tensor, var2: Tensor) -> Tensor:
    """KL(N(mean1, var1) || N(mean2, var2)), elementwise, in nats (as in Eq. 8); arguments broadcast.

    (var1 / var2 - 1 - ln(var1 / var2) + (mean1 - mean2)^2 / var2) / 2. ValueError unless both variances are > 0.
    """
    _positive(var1=var1, var2=var2)
    ratio = var1 / var2
    return 0.5 * (ratio - 1 - torch.log(ratio) + (mean1 - mean2) ** 2 / var2)


def _mix(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """a x + b y, the float64 coefficients cast to the data's dtype here and nowhere else."""
    if x.shape != y.shape:
        raise ValueError(f"expected two operands of one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    _floating(x)
    _floating(y)
    return a.to(x.dtype) * x + b.to(y.dtype) * y


def _floating(x: Tensor) -> None:
    """Cast to whole numbers, every coefficient below 1 would become 0."""
    if not x.is_floating_point():
        raise ValueError(f"expected floating-point data (for bytes: data.to_float), got {x.dtype}")


def _positive(**variances: Tensor) -> None:
    for name, var in variances.items():
        if not (torch.as_tensor(var) > 0).all():
            raise ValueError(f"{name}: expected variances > 0, got a minimum of {torch.as_tensor(var).min().item():g}")
