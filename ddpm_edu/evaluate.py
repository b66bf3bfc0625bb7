"""How good a trained model is: the variational bound of a set of images, in bits/dim."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_edu import elbo
from ddpm_edu.data import check_images
from ddpm_edu.gaussian import posterior_mean_var, q_sample, x0_from_eps
from ddpm_edu.sampling import EpsModel
from ddpm_edu.schedules import Schedule, at

GREY_LEVELS = {"digits": 17, "cifar10": 256}


@dataclass(frozen=True)
class Bound:
    """The bound of Eq. 5 (Ho et al. 2020) averaged over ``n`` images, every number in bits/dim."""

    L_T: float  # the prior term
    L_t: float  # the sum of L_{t-1} over t = 2..T
    L_0: float  # the discretised decoder
    total: float
    std_error: float  # of the total, from its spread over the images
    n: int


def on_levels(u8: Tensor, levels: int) -> Tensor:
    """Bytes that stand for ``levels`` evenly spaced grey levels, as float32 exactly on those levels in [-1, 1].

    With 256 this is `data.to_float`. The digits have 17, and their bytes are the rounded ones: a decoder with 256 bins
    would charge them for 239 values that no pixel ever takes, with 17 the bits/dim say what the digits cost.
    """
    return (u8.double() * (levels - 1) / 255).round().mul(2 / (levels - 1)).sub(1).float()


@torch.no_grad()
def bound(
    s: Schedule,
    eps_model: EpsModel,
    x0: Tensor,
    *,
    generator: torch.Generator,
    draws: int,
    var: Tensor | None = None,
    bins: int = 256,
    clip_x0: bool = False,
    batch: int = 256,
) -> Bound:
    """An unbiased estimate of E_q[L_T + sum_{t=2..T} L_{t-1} + L_0] for images ``x0`` (N, C, H, W), N >= 2 (Eq. 5).

    L_T is exact. L_0 uses one draw of x_1 for each image and sigma_1^2 = beta_1, whatever ``var`` says (the posterior
    variance is 0 at t = 1). The sum is T - 1 times the mean over ``draws`` values of t, one from each of ``draws``
    equal parts of 2..T, each with noise of its own: draws = T - 1 takes every t once. ``var`` is the table (T + 1,) of
    sampling variances, by default ``s.beta``. ``bins`` is the number of grey levels that x0 has, evenly spaced over
    [-1, 1] (see `on_levels`); bits/dim of images with different numbers of levels cannot be compared. ``clip_x0`` clips
    x0_hat before the mean of p is formed, as `sampling.sample` does: then it is the bound of that sampler. ``batch`` is
    the number of images that the network sees at once. ValueError for N < 2, draws < 1 and x0 off its levels.
    """
    if len(x0) < 2 or draws < 1:
        raise ValueError(f"x0, draws: expected at least 2 images and 1 draw, got {len(x0)} and {draws}")
    var = s.beta if var is None else var
    if var.shape != s.beta.shape or batch < 1:
        raise ValueError(
            f"var, batch: expected T + 1 = {s.T + 1} variances, batch >= 1, got {tuple(var.shape)}, {batch}"
        )
    check_images(x0, x0.shape[1])

    def noisy_and_mu(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        xt = q_sample(s, x, t, eps)
        x0_hat = x0_from_eps(s, xt, t, eps_model(xt, t))
        return xt, posterior_mean_var(s, x0_hat.clamp(-1, 1) if clip_x0 else x0_hat, xt, t)[0]

    terms = []
    for x in torch.split(x0, batch):
        t = torch.ones(len(x), dtype=torch.int64, device=x.device)
        L_0 = elbo.L_0_discrete(x, noisy_and_mu(x, t)[1], at(s.beta, t, x).to(x.dtype), bins)
        L_t = torch.zeros_like(L_0)
        for k in range(draws if s.T > 1 else 0):
            u = torch.rand(len(x), generator=generator, device=x.device, dtype=torch.float64)
            t = 2 + ((s.T - 1) * (k + u) / draws).long()
            xt, mu = noisy_and_mu(x, t)
            L_t += elbo.L_t(s, x, xt, t, mu, at(var, t, x).to(x.dtype)) * (s.T - 1) / draws
        terms.append(torch.stack([elbo.L_T(s, x), L_t, L_0]).double())
    bits = elbo.bits_per_dim(torch.cat(terms, dim=1), x0[0].numel())  # (3, N)
    total = bits.sum(0)
    L_T, L_t_sum, L_0_mean = bits.mean(1).tolist()
    return Bound(L_T, L_t_sum, L_0_mean, total.mean().item(), (total.std() / len(x0) ** 0.5).item(), len(x0))
