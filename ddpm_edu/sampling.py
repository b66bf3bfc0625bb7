"""Running the chain backwards: ancestral sampling (Ho et al. 2020, Algorithm 2) and DDIM (Song et al. 2021).

A sampler is a generator: it yields every step, and the caller draws, saves or stops. Variances are tables of shape
(T + 1,) indexed by t, so that ``s.beta``, `beta_tilde` or any other choice goes in the same way.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_edu.gaussian import eps_from_x0, posterior_mean_var, x0_from_eps
from ddpm_edu.schedules import Schedule, at

EpsModel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One moment of the reverse chain: x is x_t, x0_hat the prediction of x_0 made from this x_t.

    The last one has t = 0: there x is the sample and x0_hat is x itself.
    """

    t: int
    x: Tensor
    x0_hat: Tensor


def beta_tilde(s: Schedule) -> Tensor:
    """The posterior variances (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t (Eq. 7) as a table (T + 1,), 0 at 1."""
    table = torch.zeros_like(s.beta)
    table[1:] = (1 - s.alpha_bar[:-1]) / (1 - s.alpha_bar[1:]) * s.beta[1:]
    return table


def p_step(s: Schedule, xt: Tensor, t: int | Tensor, x0_hat: Tensor, var: Tensor, z: Tensor) -> Tensor:
    """x_{t-1} = mu_tilde(x_t, x0_hat) + sqrt(var_t) z, a draw of p(x_{t-1} | x_t); no noise at t = 1 (Algorithm 2).

    ``var`` is a table (T + 1,), ``z`` standard normal of the shape of ``xt``. With x0_hat = x0_from_eps(eps_hat) the
    mean is Eq. 11; a clipped x0_hat is used as it is. t = 1..T, int or int64 (B,). ValueError for t out of range, for
    another shape of var or z, and for a negative variance.
    """
    if var.shape != s.beta.shape or not (var[1:] >= 0).all():
        raise ValueError(f"var: expected a table of T + 1 = {s.T + 1} variances >= 0, got shape {tuple(var.shape)}")
    if z.shape != xt.shape:
        raise ValueError(f"z: expected the shape of xt, {tuple(xt.shape)}, got {tuple(z.shape)}")
    mean, _ = posterior_mean_var(s, x0_hat, xt, t)
    var_t = at(var, t, xt, first=1)
    noisy = torch.as_tensor(t, device=xt.device) > 1
    std = torch.where(noisy.reshape(var_t.shape), var_t.sqrt(), 0)
    return mean + std.to(xt.dtype) * z


@torch.no_grad()
def sample(
    s: Schedule,
    eps_model: EpsModel,
    shape: tuple[int, ...],
    *,
    generator: torch.Generator,
    var: Tensor | None = None,
    clip_x0: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Step]:
    """Algorithm 2: yields `Step` for t = T..1, each with its x_t and x0_hat, and last the sample as t = 0.

    ``eps_model(xt, t)`` gets t as int64 (B,). ``var`` is the table of sampling variances, by default ``s.beta``.
    ``clip_x0`` clips x0_hat to [-1, 1] before the mean is formed, as the original implementation does for images.
    The noise comes from ``generator``, on its device.
    """
    var = s.beta if var is None else var
    x = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    for t in range(s.T, 0, -1):
        x0_hat = _predict_x0(s, eps_model, x, t, clip_x0)
        yield Step(t, x, x0_hat)
        z = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
        x = p_step(s, x, t, x0_hat, var, z)
    yield Step(0, x, x)


@torch.no_grad()
def ddim(
    s: Schedule,
    eps_model: EpsModel,
    shape: tuple[int, ...],
    *,
    steps: int,
    generator: torch.Generator,
    eta: float = 0.0,
    clip_x0: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021, Eq. 12) on an even grid of ``steps`` times: yields `Step` like `sample`.

    From t to the next time r < t: x_r = sqrt(alpha_bar_r) x0_hat + sqrt(1 - alpha_bar_r - var) eps_hat + sqrt(var) z
    with var = eta^2 (1 - alpha_bar_r) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_r), where eps_hat belongs to the
    x0_hat in use, clipped or not. eta = 0 is deterministic given x_T; eta = 1 with steps = T is `sample` with
    var = `beta_tilde`. ValueError unless 1 <= steps <= T, 0 <= eta <= 1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number from 0 to 1, got {eta}")
    times = even_grid(s.T, steps)
    x = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    for t, r in zip(times, [*times[1:], 0], strict=True):
        x0_hat = _predict_x0(s, eps_model, x, t, clip_x0)
        yield Step(t, x, x0_hat)
        eps_hat = eps_from_x0(s, x, t, x0_hat)
        abar_t, abar_r = at(s.alpha_bar, t, x), at(s.alpha_bar, r, x)
        var = eta**2 * (1 - abar_r) / (1 - abar_t) * (1 - abar_t / abar_r)
        z = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
        x = (
            abar_r.sqrt().to(dtype) * x0_hat
            + (1 - abar_r - var).clamp(min=0).sqrt().to(dtype) * eps_hat
            + var.sqrt().to(dtype) * z
        )
    yield Step(0, x, x)


def even_grid(T: int, steps: int) -> list[int]:
    """``steps`` times from T down, evenly spaced so that the last jump, to 0, is as long as the others.

    ValueError unless 1 <= steps <= T.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= T:
        raise ValueError(f"steps: expected a whole number from 1 to T = {T}, got {steps!r}")
    return [round(T * k / steps) for k in range(steps, 0, -1)]


def _predict_x0(s: Schedule, eps_model: EpsModel, x: Tensor, t: int, clip_x0: bool) -> Tensor:
    eps_hat = eps_model(x, torch.full((len(x),), t, device=x.device))
    if eps_hat.shape != x.shape:
        raise ValueError(f"eps_model: expected an output of shape {tuple(x.shape)}, got {tuple(eps_hat.shape)}")
    x0_hat = x0_from_eps(s, x, t, eps_hat)
    return x0_hat.clamp(-1, 1) if clip_x0 else x0_hat
