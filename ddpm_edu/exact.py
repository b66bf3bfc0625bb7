"""Gaussian-mixture data, for which every quantity of the diffusion is known in closed form.

If x_0 ~ sum_k w_k N(m_k, C_k) then x_t is a mixture as well, with means sqrt(alpha_bar_t) m_k and covariances
alpha_bar_t C_k + (1 - alpha_bar_t) I. From that follow the score, E[x_0 | x_t], the ideal noise prediction and the
exact reverse kernel: the oracles of the course. Everything is computed in float64 and cast to the dtype of ``xt`` last.
"""

import math

import torch
from torch import Tensor

from ddpm_edu.schedules import Schedule, at


class Mixture:
    """The law of the data: sum_k w_k N(m_k, C_k) in d dimensions, full covariances.

    ``weights`` (K,) positive with sum 1, ``means`` (K, d), ``covs`` (K, d, d) symmetric positive definite; lists will
    do. Methods take ``xt`` of shape (B, d) and ``t``, an int or int64 (B,), all on the CPU. ValueError on wrong shapes
    or values.
    """

    def __init__(self, weights: object, means: object, covs: object) -> None:
        self.weights, self.means, self.covs = (torch.as_tensor(a, dtype=torch.float64) for a in (weights, means, covs))
        if self.weights.ndim != 1 or not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-9:
            raise ValueError(f"weights: expected K positive numbers with sum 1, got {self.weights.tolist()}")
        K = len(self.weights)
        if self.means.ndim != 2 or len(self.means) != K:
            raise ValueError(f"means: expected shape (K, d) with K = {K}, got {tuple(self.means.shape)}")
        d = self.means.shape[1]
        if self.covs.shape != (K, d, d):
            raise ValueError(f"covs: expected shape (K, d, d) = {(K, d, d)}, got {tuple(self.covs.shape)}")
        if not torch.allclose(self.covs, self.covs.mT) or not (torch.linalg.eigvalsh(self.covs) > 0).all():
            raise ValueError("covs: expected symmetric positive definite matrices")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of x_0, shape (n, d), float64."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        root: Tensor = torch.linalg.cholesky(self.covs)
        return self.means[k] + torch.einsum("nij,nj->ni", root[k], z)

    def log_prob(self, s: Schedule, xt: Tensor, t: int | Tensor) -> Tensor:
        """log q(x_t) in nats, shape (B,); t = 0..T, where t = 0 is the density of the data."""
        return torch.logsumexp(self._log_joint(s, xt, t), 1).to(xt.dtype)

    def score(self, s: Schedule, xt: Tensor, t: int | Tensor) -> Tensor:
        """The gradient of log q(x_t) with respect to x_t, shape (B, d); t = 0..T."""
        r = torch.softmax(self._log_joint(s, xt, t), 1)
        return -torch.einsum("bk,bkd->bd", r, self._whitened(s, xt, t)).to(xt.dtype)

    def x0(self, s: Schedule, xt: Tensor, t: int | Tensor) -> Tensor:
        """E[x_0 | x_t], shape (B, d); t = 1..T."""
        r, means, _ = self._x0_given_xt(s, xt, t)
        return torch.einsum("bk,bkd->bd", r, means).to(xt.dtype)

    def x0_cov(self, s: Schedule, xt: Tensor, t: int | Tensor) -> Tensor:
        """Cov[x_0 | x_t], shape (B, d, d); t = 1..T."""
        r, means, covs = self._x0_given_xt(s, xt, t)
        centred = means - torch.einsum("bk,bkd->bd", r, means)[:, None]
        within = torch.einsum("bk,bkij->bij", r, covs.expand(*means.shape, -1))
        return (within + torch.einsum("bk,bki,bkj->bij", r, centred, centred)).to(xt.dtype)

    def eps(self, s: Schedule, xt: Tensor, t: int | Tensor) -> Tensor:
        """E[eps | x_t] = -sqrt(1 - alpha_bar_t) score, the ideal noise prediction, shape (B, d); t = 1..T."""
        alpha_bar = at(s.alpha_bar, t, xt, first=1)
        return (-(1 - alpha_bar).sqrt() * self.score(s, xt.double(), t)).to(xt.dtype)

    def reverse(self, s: Schedule, xt: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The exact q(x_{t-1} | x_t), a mixture for each x_t: weights (B, K), means (B, K, d), covs (B or 1, K, d, d).

        With C_k = Cov(x_{t-1} | k) and S_k = Cov(x_t | k) the gain is G_k = sqrt(alpha_t) C_k S_k^-1. Component k has
        mean sqrt(alpha_bar_{t-1}) m_k + G_k (x_t - sqrt(alpha_bar_t) m_k) and covariance C_k - sqrt(alpha_t) G_k C_k.
        t = 1..T; the results are float64.
        """
        alpha = at(s.alpha, t, xt, first=1).reshape(-1, 1, 1, 1)
        before, covs_before = self._moments(s, xt, t - 1)
        means, covs = self._moments(s, xt, t)
        gain = alpha.sqrt() * torch.linalg.solve(covs, covs_before).mT
        shift = (gain @ (xt.double()[:, None] - means)[..., None])[..., 0]
        return (
            torch.softmax(self._log_joint(s, xt, t), 1),
            before + shift,
            covs_before - alpha.sqrt() * gain @ covs_before,
        )

    def _moments(self, s: Schedule, xt: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """Means (B or 1, K, d) and covariances (B or 1, K, d, d) of the components of q(x_t)."""
        if xt.ndim != 2 or xt.shape[1] != self.means.shape[1]:
            raise ValueError(f"xt: expected shape (B, {self.means.shape[1]}), got {tuple(xt.shape)}")
        alpha_bar = at(s.alpha_bar, t, xt).reshape(-1, 1, 1)
        identity = torch.eye(xt.shape[1], dtype=torch.float64)
        return alpha_bar.sqrt() * self.means, alpha_bar[..., None] * self.covs + (1 - alpha_bar[..., None]) * identity

    def _whitened(self, s: Schedule, xt: Tensor, t: int | Tensor) -> Tensor:
        """S_k^-1 (x_t - sqrt(alpha_bar_t) m_k), shape (B, K, d)."""
        means, covs = self._moments(s, xt, t)
        whitened: Tensor = torch.linalg.solve(covs, (xt.double()[:, None] - means)[..., None])[..., 0]
        return whitened

    def _log_joint(self, s: Schedule, xt: Tensor, t: int | Tensor) -> Tensor:
        """log w_k + log N(x_t; k), shape (B, K)."""
        means, covs = self._moments(s, xt, t)
        distance = ((xt.double()[:, None] - means) * self._whitened(s, xt, t)).sum(-1)
        return self.weights.log() - 0.5 * (distance + torch.logdet(2 * math.pi * covs))

    def _x0_given_xt(self, s: Schedule, xt: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (B, K) of the components given x_t; means (B, K, d), covs (B or 1, K, d, d) of x_0 given x_t, k."""
        alpha_bar = at(s.alpha_bar, t, xt, first=1).reshape(-1, 1, 1)
        means = self.means + alpha_bar.sqrt() * torch.einsum("kij,bkj->bki", self.covs, self._whitened(s, xt, t))
        _, covs_t = self._moments(s, xt, t)
        covs = self.covs - alpha_bar[..., None] * self.covs @ torch.linalg.solve(covs_t, self.covs.expand_as(covs_t))
        return torch.softmax(self._log_joint(s, xt, t), 1), means, covs
