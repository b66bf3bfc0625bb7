"""Flow matching on the straight path (Lipman et al. 2023, Eq. 22 with sigma_min = 0; Liu et al. 2023, rectified flow).

Time is tau in [0, 1] and runs like t: tau = 0 is data, tau = 1 is noise (both papers count the other way, t = 1 - tau).
Along x_tau = (1 - tau) x_0 + tau eps the velocity is dx/dtau = eps - x_0; a network learns its mean given x_tau, and
the differential equation dx/dtau = v(x, tau), solved from tau = 1 down to 0, turns noise into data. The solvers are
generators: what is wrong with their arguments is said with the first point.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

VelocityModel = Callable[[Tensor, Tensor], Tensor]

T = 1000  # a network that was made for whole times t = 1..T sees tau as round(T tau)


@dataclass(frozen=True)
class Point:
    """One moment of the way down: x is x_tau, x0_hat = x - tau v(x, tau) the end of the straight line from here.

    The last one has tau = 0: there x is the sample and x0_hat is x itself.
    """

    tau: float
    x: Tensor
    x0_hat: Tensor


def path(x0: Tensor, eps: Tensor, tau: float | Tensor) -> Tensor:
    """x_tau = (1 - tau) x_0 + tau eps, the straight path from data to noise, of the shape and dtype of x0 (B, ...).

    ``tau`` is a float or a floating-point tensor (B,) within [0, 1]. ValueError for another shape or range.
    """
    if x0.shape != eps.shape:
        raise ValueError(f"eps: expected the shape of x0, {tuple(x0.shape)}, got {tuple(eps.shape)}")
    weight = _check_tau(tau, x0).double().reshape(-1, *(1,) * (x0.ndim - 1))
    weight = weight.to(x0.device, non_blocking=not weight.is_cuda)  # so that training never waits for a GPU
    return (1 - weight).to(x0.dtype) * x0 + weight.to(x0.dtype) * eps


def loss(velocity_model: VelocityModel, x0: Tensor, tau: Tensor, eps: Tensor) -> Tensor:
    """The flow matching loss of each example (Lipman et al. 2023, Eq. 23): mean square of v(x_tau, tau) - (eps - x_0).

    The result has shape (B,); what minimises its mean is v(x, tau) = E[eps - x_0 | x_tau = x]. ``tau`` is a
    floating-point tensor (B,) within [0, 1], given to ``velocity_model(x_tau, tau)`` as it is. ValueError as for
    `path`, and for an output of another shape.
    """
    if not isinstance(tau, Tensor):
        raise ValueError(f"tau: expected a tensor of shape (B,), got {tau!r}")
    v = _velocity(velocity_model, path(x0, eps, tau), tau)
    return ((v - (eps - x0)) ** 2).flatten(1).mean(1)


@torch.no_grad()
def euler(
    velocity_model: VelocityModel,
    shape: tuple[int, ...],
    *,
    steps: int,
    generator: torch.Generator,
    x1: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Point]:
    """Euler's method for dx/dtau = v from tau = 1 to 0 in ``steps`` equal steps: yields `Point`, the sample last.

    x_r = x_tau + (r - tau) v(x_tau, tau) with r = tau - 1/steps; the error of the sample is of the order of 1/steps.
    ``velocity_model(x, tau)`` gets tau as a tensor (B,) of ``dtype``. The noise at tau = 1 comes from ``generator``,
    on its device, or is ``x1``, cast to ``dtype``. ValueError unless steps >= 1 and for an x1 of another shape.
    """
    x = _start(shape, generator, x1, dtype)
    for tau, r in itertools.pairwise(_grid(steps)):
        v = _velocity(velocity_model, x, tau)
        yield Point(tau, x, x - tau * v)
        x = x + (r - tau) * v
    yield Point(0.0, x, x)


@torch.no_grad()
def heun(
    velocity_model: VelocityModel,
    shape: tuple[int, ...],
    *,
    steps: int,
    generator: torch.Generator,
    x1: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Point]:
    """Heun's method for dx/dtau = v from tau = 1 to 0 in ``steps`` equal steps: yields `Point`, the sample last.

    Euler's step to r = tau - 1/steps is taken on trial, and the mean of the velocities at both ends is used instead:
    the error of the sample is of the order of 1/steps^2. The last step, to tau = 0, is Euler's, for which v is not
    asked at tau = 0: 2 steps - 1 evaluations in all. Arguments and errors as for `euler`.
    """
    x = _start(shape, generator, x1, dtype)
    for tau, r in itertools.pairwise(_grid(steps)):
        v = _velocity(velocity_model, x, tau)
        yield Point(tau, x, x - tau * v)
        if r > 0:
            v = (v + _velocity(velocity_model, x + (r - tau) * v, r)) / 2
        x = x + (r - tau) * v
    yield Point(0.0, x, x)


def velocity(network: Callable[[Tensor, Tensor], Tensor]) -> VelocityModel:
    """velocity_model(x, tau) from a network of (xt, t): t = round(1000 tau), int64 (B,), and at least 1.

    ValueError where tau is not a floating-point tensor (B,) within [0, 1].
    """

    def velocity_model(x: Tensor, tau: Tensor) -> Tensor:
        t = (T * _check_tau(tau, x).double()).round().clamp(min=1).long()
        return network(x, t)

    return velocity_model


def _check_tau(tau: float | Tensor, x: Tensor) -> Tensor:
    """tau as a tensor: 0-d where it was a number."""
    if isinstance(tau, Tensor):
        if not tau.is_floating_point() or tau.shape != x.shape[:1]:
            raise ValueError(
                f"tau: expected a number or a floating-point tensor of shape {tuple(x.shape[:1])}, "
                f"got {tau.dtype} of shape {tuple(tau.shape)}"
            )
    else:
        tau = torch.tensor(tau, dtype=torch.float64)
    if not ((tau >= 0) & (tau <= 1)).all():
        raise ValueError(f"tau: expected 0..1, got values from {tau.min().item():g} to {tau.max().item():g}")
    return tau


def _velocity(velocity_model: VelocityModel, x: Tensor, tau: float | Tensor) -> Tensor:
    tau = tau if isinstance(tau, Tensor) else torch.full((len(x),), tau, dtype=x.dtype, device=x.device)
    v = velocity_model(x, tau)
    if v.shape != x.shape:
        raise ValueError(f"velocity_model: expected an output of shape {tuple(x.shape)}, got {tuple(v.shape)}")
    return v


def _grid(steps: int) -> list[float]:
    """tau = 1, ..., 0 in equal steps."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected a whole number >= 1, got {steps!r}")
    return [k / steps for k in range(steps, -1, -1)]


def _start(shape: tuple[int, ...], generator: torch.Generator, x1: Tensor | None, dtype: torch.dtype) -> Tensor:
    if x1 is None:
        return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)
    if x1.shape != tuple(shape) or not x1.is_floating_point():
        raise ValueError(
            f"x1: expected floating-point data of shape {tuple(shape)}, got {x1.dtype} of shape {tuple(x1.shape)}"
        )
    return x1.detach().to(generator.device, dtype)
