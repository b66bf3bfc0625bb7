"""Running the chain backwards: ancestral sampling (Ho et al. 2020, Algorithm 2), DDIM (Song et al. 2021) and Langevin.

A sampler is a generator: it yields every step, errors come with the first, and the caller draws, saves or stops.
Variances are tables of shape (T + 1,) by t: ``s.beta``, `beta_tilde`, `optimal_var` or any other go in the same way.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_edu.gaussian import eps_from_x0, posterior_mean_var, x0_from_eps
from ddpm_edu.schedules import Schedule, at

EpsModel = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[Tensor], Tensor]


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


def optimal_var(s: Schedule, eps_mse: Tensor) -> Tensor:
    """The best variances for p(x_{t-1} | x_t) = N(mean, var_t I) with the exact mean (Bao et al. 2022), table (T + 1,).

    var_t = beta_tilde_t + beta_t^2 / (alpha_t (1 - alpha_bar_t)) eps_mse_t, eps_mse_t = E||eps - E[eps | x_t]||^2 / D:
    the variance of q(x_{t-1} | x_t), averaged over x_t and the D dimensions. It lies between beta_tilde_t, where x_t
    tells eps exactly, and beta_t / alpha_t, where it tells nothing (eps_mse_t = 1). ``eps_mse`` is a table (T + 1,)
    whose index 0 is ignored. ValueError for another shape and for an entry that is negative or NaN.
    """
    if eps_mse.shape != s.beta.shape:
        raise ValueError(f"eps_mse: expected a table of T + 1 = {s.T + 1} numbers, got shape {tuple(eps_mse.shape)}")
    if not (eps_mse[1:] >= 0).all():
        raise ValueError(f"eps_mse: expected numbers >= 0, got a minimum of {eps_mse[1:].min().item():g}")
    table = beta_tilde(s)
    table[1:] += s.beta[1:] ** 2 / (s.alpha[1:] * (1 - s.alpha_bar[1:])) * eps_mse[1:].to(table)
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
    xT: Tensor | None = None,
) -> Iterator[Step]:
    """Algorithm 2: yields `Step` for t = T..1, each with its x_t and x0_hat, and last the sample as t = 0.

    ``eps_model(xt, t)`` gets t as int64 (B,). ``var`` is the table of sampling variances, by default ``s.beta``.
    ``clip_x0`` clips x0_hat to [-1, 1] before the mean is formed, as the original implementation does for images.
    The noise comes from ``generator``, on its device. ``xT`` of that shape stands for the first draw and is cast to
    ``dtype``; the noise of the steps is the same with and without it. ValueError for an xT of another shape.
    """
    var = s.beta if var is None else var
    x = _xT_or(xT, torch.randn(shape, generator=generator, device=generator.device, dtype=dtype))
    times = list(range(s.T, 0, -1))
    for_x0 = _coefficients(lambda t, x, eps: x0_from_eps(s, x, t, eps), times, 2)
    for_x_prev = _coefficients(lambda t, x, x0, z: p_step(s, x, t, x0, var, z), times, 3)
    for t, x_eps, (on_x, on_x0, on_z) in zip(times, for_x0, for_x_prev, strict=True):
        x0_hat = _predict_x0(eps_model, x, t, x_eps, clip_x0)
        yield Step(t, x, x0_hat)
        z = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
        x = on_x0 * x0_hat + on_x * x + on_z * z
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
    xT: Tensor | None = None,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021, Eq. 12) on an even grid of ``steps`` times: yields `Step` like `sample`.

    From t to the next time r < t: x_r = sqrt(alpha_bar_r) x0_hat + sqrt(1 - alpha_bar_r - var) eps_hat + sqrt(var) z
    with var = eta^2 (1 - alpha_bar_r) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_r), where eps_hat belongs to the
    x0_hat in use, clipped or not. eta = 0 is deterministic given x_T; eta = 1 with steps = T is `sample` with
    var = `beta_tilde`. ``xT`` as there. ValueError unless 1 <= steps <= T, 0 <= eta <= 1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number from 0 to 1, got {eta}")
    times = even_grid(s.T, steps)
    abar_t, abar_r = s.alpha_bar[times], s.alpha_bar[[*times[1:], 0]]
    var = eta**2 * (1 - abar_r) / (1 - abar_t) * (1 - abar_t / abar_r)
    for_x0 = _coefficients(lambda t, x, eps: x0_from_eps(s, x, t, eps), times, 2)
    for_eps = _coefficients(lambda t, x, x0: eps_from_x0(s, x, t, x0), times, 2)
    for_xr = torch.stack([abar_r.sqrt(), (1 - abar_r - var).clamp(min=0).sqrt(), var.sqrt()], 1).tolist()
    x = _xT_or(xT, torch.randn(shape, generator=generator, device=generator.device, dtype=dtype))
    for t, x_eps, x_x0, (on_x0, on_eps, on_z) in zip(times, for_x0, for_eps, for_xr, strict=True):
        x0_hat = _predict_x0(eps_model, x, t, x_eps, clip_x0)
        yield Step(t, x, x0_hat)
        eps_hat = x_x0[0] * x + x_x0[1] * x0_hat
        z = torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
        x = on_x0 * x0_hat + on_eps * eps_hat + on_z * z
    yield Step(0, x, x)


def even_grid(T: int, steps: int) -> list[int]:
    """``steps`` times from T down, evenly spaced, the last jump, to 0, included. ValueError unless 1 <= steps <= T."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= T:
        raise ValueError(f"steps: expected a whole number from 1 to T = {T}, got {steps!r}")
    return [round(T * k / steps) for k in range(steps, 0, -1)]


def langevin(
    score: Score, x: Tensor, *, step_size: float, steps: int, generator: torch.Generator, temperature: float = 1.0
) -> Iterator[Tensor]:
    """Unadjusted Langevin dynamics (Song & Ermon 2019): yields x of any shape after each of ``steps`` steps.

    x <- x + step_size score(x) + sqrt(2 step_size temperature) z with z standard normal from ``generator``: where score
    is the gradient of log p, the law of x tends to p^(1 / temperature), normalised, with a bias of the order of
    step_size. temperature = 0 climbs log p without noise. Written with epsilon / 2 for step_size, the noise is
    sqrt(epsilon) z. A step has no graph. ValueError unless step_size > 0, steps >= 1, temperature >= 0.
    """
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: expected a number > 0, got {step_size}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected a whole number >= 1, got {steps!r}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature: expected a number >= 0, got {temperature}")
    for _ in range(steps):
        drift = score(x).detach()
        if drift.shape != x.shape:
            raise ValueError(f"score: expected an output of shape {tuple(x.shape)}, got {tuple(drift.shape)}")
        z = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
        x = x.detach() + step_size * drift + math.sqrt(2 * step_size * temperature) * z
        yield x


def _xT_or(xT: Tensor | None, draw: Tensor) -> Tensor:
    if xT is None:
        return draw
    if (got := tuple(xT.shape)) != (want := tuple(draw.shape)) or not xT.is_floating_point():
        raise ValueError(f"xT: expected floating-point data of shape {want}, got {xT.dtype} of shape {got}")
    return xT.detach().to(draw)


def _coefficients(f: Callable[..., Tensor], times: list[int], inputs: int) -> list[list[float]]:
    """For each t the numbers a, b, ... with f(t, x, y, ...) = a x + b y + ..., in float64: f at the unit vectors.

    All times at once: a step of the loop is then a few products, each of which casts its number to the data's dtype.
    """
    units = torch.eye(inputs, dtype=torch.float64)[:, :, None].expand(-1, -1, len(times))
    return torch.stack([f(torch.tensor(times), *unit) for unit in units], 1).tolist()


def _predict_x0(eps_model: EpsModel, x: Tensor, t: int, x_eps: list[float], clip_x0: bool) -> Tensor:
    eps_hat = eps_model(x, torch.full((len(x),), t, device=x.device))
    if eps_hat.shape != x.shape:
        raise ValueError(f"eps_model: expected an output of shape {tuple(x.shape)}, got {tuple(eps_hat.shape)}")
    x0_hat = x_eps[0] * x + x_eps[1] * eps_hat
    return x0_hat.clamp(-1, 1) if clip_x0 else x0_hat
