"""The mixture oracle against numpy densities, autograd, quadrature and Bayes on a grid."""

import math

import numpy as np
import pytest
import torch

from ddpm_edu import gaussian, schedules
from ddpm_edu.exact import Mixture

S = schedules.linear(20, 0.01, 0.4)
W, M, V = np.array([0.3, 0.7]), np.array([-1.0, 0.8]), np.array([0.04, 0.09])
LINE = Mixture(W.tolist(), M[:, None].tolist(), V[:, None, None].tolist())
W2 = np.array([0.2, 0.5, 0.3])
M2 = np.array([[2.0, 0.5], [-0.5, -1.5], [0.4, 1.0]])
C2 = np.array([[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.4]], [[0.3, 0.0], [0.0, 0.1]]])
PLANE = Mixture(W2, M2, C2)


def density(x, t, weights=W2, means=M2, covs=C2):
    """q(x_t) with numpy's matrix inverse, one x at a time."""
    abar, d = S.alpha_bar[t].item(), means.shape[1]
    total = 0.0
    for w, m, c in zip(weights, means, covs, strict=True):
        cov = abar * c + (1 - abar) * np.eye(d)
        diff = x - math.sqrt(abar) * m
        norm = math.sqrt((2 * math.pi) ** d * np.linalg.det(cov))
        total += w * math.exp(-0.5 * diff @ np.linalg.inv(cov) @ diff) / norm
    return total


def points(n, d=2, seed=0):
    return 1.5 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("t", [0, 1, 7, 20])
def test_log_prob_is_the_mixture_density(t):
    x = points(5)
    want = [math.log(density(xi.numpy(), t)) for xi in x]
    np.testing.assert_allclose(PLANE.log_prob(S, x, t), want, rtol=1e-10)


def test_log_prob_integrates_to_one():
    u = torch.linspace(-8, 8, 8001, dtype=torch.float64)[:, None]
    for t in (0, 1, 10, 20):
        assert LINE.log_prob(S, u, t).exp().sum().item() * 0.002 == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize("t", [0, 1, 7, 20])
def test_score_is_the_gradient_of_log_prob(t):
    x = points(6).requires_grad_()
    (grad,) = torch.autograd.grad(PLANE.log_prob(S, x, t).sum(), x)
    torch.testing.assert_close(PLANE.score(S, x.detach(), t), grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("t", [1, 3, 12, 20])
def test_x0_and_its_variance_by_bayes_on_a_grid(t):
    u = np.linspace(-4, 4, 200_001)
    prior = sum(
        w / math.sqrt(2 * math.pi * v) * np.exp(-((u - m) ** 2) / (2 * v)) for w, m, v in zip(W, M, V, strict=True)
    )
    abar = S.alpha_bar[t].item()
    for xt in (-1.3, -0.2, 0.4):
        p = prior * np.exp(-((xt - math.sqrt(abar) * u) ** 2) / (2 * (1 - abar)))
        p /= p.sum()
        mean = (p * u).sum()
        x = torch.tensor([[xt]], dtype=torch.float64)
        assert LINE.x0(S, x, t).item() == pytest.approx(mean, rel=1e-9)
        assert LINE.x0_cov(S, x, t).item() == pytest.approx((p * (u - mean) ** 2).sum(), rel=1e-8)


def test_x0_in_two_dimensions_by_tweedie():
    """E[x_0 | x_t] = (x_t + (1 - abar) score) / sqrt(abar), the score by finite differences of the numpy density."""
    t, h = 7, 1e-5
    abar = S.alpha_bar[t].item()
    for x in points(4):
        xn = x.numpy()
        score = [(math.log(density(xn + h * e, t)) - math.log(density(xn - h * e, t))) / (2 * h) for e in np.eye(2)]
        want = (xn + (1 - abar) * np.array(score)) / math.sqrt(abar)
        np.testing.assert_allclose(PLANE.x0(S, x[None], t)[0], want, rtol=1e-6)


def test_x0_cov_is_the_derivative_of_x0():
    """Cov[x_0 | x_t] = (1 - abar) / sqrt(abar) d E[x_0 | x_t] / d x_t."""
    t = 7
    abar = S.alpha_bar[t].item()
    for x in points(3):
        jacobian = torch.autograd.functional.jacobian(lambda z: PLANE.x0(S, z[None], t)[0], x)
        want = (1 - abar) / math.sqrt(abar) * jacobian
        torch.testing.assert_close(PLANE.x0_cov(S, x[None], t)[0], want, rtol=1e-9, atol=1e-12)


def test_eps_is_the_mean_noise():
    """E[eps | x_t] = (x_t - sqrt(abar) E[x_0 | x_t]) / sqrt(1 - abar)."""
    x = points(5)
    for t in (1, 7, 20):
        torch.testing.assert_close(
            PLANE.eps(S, x, t), gaussian.eps_from_x0(S, x, t, PLANE.x0(S, x, t)), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("t", [2, 9, 20])
def test_reverse_kernel_by_bayes_on_a_grid(t):
    u = np.linspace(-7, 7, 20_001)
    du = u[1] - u[0]
    before, beta = S.alpha_bar[t - 1].item(), S.beta[t].item()
    q_before = np.zeros_like(u)
    for w, m, v in zip(W, M, V, strict=True):
        var = before * v + 1 - before
        q_before += w / math.sqrt(2 * math.pi * var) * np.exp(-((u - math.sqrt(before) * m) ** 2) / (2 * var))
    for xt in (-1.0, 0.3):
        p = q_before * np.exp(-((xt - math.sqrt(1 - beta) * u) ** 2) / (2 * beta))
        p /= p.sum() * du
        weights, means, covs = LINE.reverse(S, torch.tensor([[xt]], dtype=torch.float64), t)
        got = np.zeros_like(u)
        for k in range(2):
            var = covs[0, k].item()
            got += (
                weights[0, k].item()
                / math.sqrt(2 * math.pi * var)
                * np.exp(-((u - means[0, k].item()) ** 2) / (2 * var))
            )
        np.testing.assert_allclose(got, p, atol=1e-10 * p.max())


def test_reverse_kernel_in_two_dimensions_has_the_right_moments():
    """Total expectation over q(x_{t-1} | x_t, x_0): mean c1 E[x_0] + c2 x_t, cov beta_tilde I + c1^2 Cov[x_0]."""
    t, x = 9, points(4)
    weights, means, covs = PLANE.reverse(S, x, t)
    mean = torch.einsum("bk,bkd->bd", weights, means)
    centred = means - mean[:, None]
    cov = torch.einsum("bk,bkij->bij", weights, covs.expand(4, 3, 2, 2)) + torch.einsum(
        "bk,bki,bkj->bij", weights, centred, centred
    )
    want_mean, beta_tilde = gaussian.posterior_mean_var(S, PLANE.x0(S, x, t), x, t)
    abar, before, beta = S.alpha_bar[t].item(), S.alpha_bar[t - 1].item(), S.beta[t].item()
    c1 = math.sqrt(before) * beta / (1 - abar)
    torch.testing.assert_close(mean, want_mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        cov, beta_tilde * torch.eye(2, dtype=torch.float64) + c1**2 * PLANE.x0_cov(S, x, t), rtol=1e-9, atol=1e-12
    )


def test_reverse_kernel_at_t_1_gives_the_law_of_the_data_back():
    """Averaged over q(x_1), the kernel's mean is the data mean."""
    x0 = PLANE.sample(200_000, torch.Generator().manual_seed(0))
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights, means, _ = PLANE.reverse(S, gaussian.q_sample(S, x0, 1, eps), 1)
    residual = torch.einsum("bk,bkd->bd", weights, means) - x0
    assert (residual.mean(0).abs() < 4 * residual.std(0) / math.sqrt(len(x0))).all()


def test_sample_has_the_moments_of_the_mixture():
    n = 200_000
    x = PLANE.sample(n, torch.Generator().manual_seed(0)).numpy()
    assert x.shape == (n, 2) and x.dtype == np.float64
    mean = (W2[:, None] * M2).sum(0)
    cov = sum(w * (c + np.outer(m - mean, m - mean)) for w, m, c in zip(W2, M2, C2, strict=True))
    assert (np.abs(x.mean(0) - mean) < 4 * np.sqrt(np.diag(cov) / n)).all()
    product = (x[:, 0] - mean[0]) * (x[:, 1] - mean[1])
    assert abs(product.mean() - cov[0, 1]) < 4 * product.std() / math.sqrt(n)
    assert abs(product.mean() + cov[0, 1]) > 8 * product.std() / math.sqrt(n)
    again = PLANE.sample(n, torch.Generator().manual_seed(0)).numpy()
    assert (x == again).all()


def test_a_batch_of_times_is_the_times_one_by_one():
    x, t = points(4), torch.tensor([1, 5, 12, 20])
    for method in ("log_prob", "score", "x0", "x0_cov", "eps"):
        f = getattr(PLANE, method)
        together = f(S, x, t)
        for i in range(4):
            torch.testing.assert_close(together[i], f(S, x[i : i + 1], int(t[i]))[0], rtol=1e-10, atol=1e-12)
    for together, one in zip(PLANE.reverse(S, x, t), PLANE.reverse(S, x[2:3], 12), strict=True):
        torch.testing.assert_close(together[2], one[0], rtol=1e-10, atol=1e-12)


def test_result_has_the_dtype_of_xt():
    x = points(3).float()
    for method in ("log_prob", "score", "x0", "x0_cov", "eps"):
        assert getattr(PLANE, method)(S, x, 4).dtype == torch.float32


@pytest.mark.parametrize(
    "weights, means, covs, message",
    [
        ([0.5, 0.6], M[:, None], V[:, None, None], "weights: expected K positive numbers with sum 1"),
        ([-0.5, 1.5], M[:, None], V[:, None, None], "weights: expected"),
        ([0.3, 0.7], [[0.0]], V[:, None, None], r"means: expected shape \(K, d\) with K = 2, got \(1, 1\)"),
        ([0.3, 0.7], M, V[:, None, None], r"means: expected shape \(K, d\) with K = 2, got \(2,\)"),
        ([0.3, 0.7], M[:, None], V, r"covs: expected shape \(K, d, d\) = \(2, 1, 1\), got \(2,\)"),
        ([0.3, 0.7], M[:, None], -V[:, None, None], "covs: expected symmetric positive definite"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.2, 1.0]]], "covs: expected symmetric positive definite"),
    ],
)
def test_bad_mixtures(weights, means, covs, message):
    with pytest.raises(ValueError, match=message):
        Mixture(weights, means, covs)


def test_bad_calls():
    with pytest.raises(ValueError, match=r"xt: expected shape \(B, 2\), got \(3, 1\)"):
        PLANE.score(S, points(3, 1), 4)
    with pytest.raises(ValueError, match=r"t: expected 0\.\.20, got 21"):
        PLANE.log_prob(S, points(3), 21)
    for method in ("x0", "x0_cov", "eps", "reverse"):
        with pytest.raises(ValueError, match=r"t: expected 1\.\.20, got 0"):
            getattr(PLANE, method)(S, points(3), 0)


def test_result_is_the_float64_result_rounded_to_the_dtype_of_xt():
    x = points(200).float()
    for method in ("log_prob", "score", "x0", "x0_cov", "eps"):
        f = getattr(PLANE, method)
        for t in (1, 4, 20):
            got = f(S, x, t)
            assert got.dtype == torch.float32 and torch.equal(got, f(S, x.double(), t).float()), method
    for got, want in zip(PLANE.reverse(S, x, 4), PLANE.reverse(S, x.double(), 4), strict=True):
        assert got.dtype == torch.float64 and torch.equal(got, want)


def test_far_from_the_data_the_nearest_component_is_left():
    """Where every density underflows: log q and the score are those of the component that decays slowest."""
    x, abar = torch.tensor([[100.0]], dtype=torch.float64), S.alpha_bar[3].item()
    var, diff = abar * 0.09 + 1 - abar, 100 - math.sqrt(abar) * 0.8
    log_p = math.log(0.7) - 0.5 * (diff**2 / var + math.log(2 * math.pi * var))
    assert LINE.log_prob(S, x, 3).item() == pytest.approx(log_p, rel=1e-12)
    assert LINE.score(S, x, 3).item() == pytest.approx(-diff / var, rel=1e-12)
    assert math.isfinite(LINE.x0(S, x, 3).item()) and LINE.reverse(S, x, 3)[0][0, 1] == 1


def test_samples_are_drawn_in_float64():
    x = Mixture([1.0], [[0.0]], [[[1.0]]]).sample(10, torch.Generator().manual_seed(0))
    assert not torch.equal(x, x.float().double())


@pytest.mark.parametrize(
    "weights, means, covs, message",
    [
        ([0.5, 0.5001], M[:, None], V[:, None, None], "weights: expected"),
        ([0.0, 1.0], M[:, None], V[:, None, None], "weights: expected"),
        ([0.3, 0.7], M[:, None], V[:1, None, None], r"covs: expected shape \(K, d, d\) = \(2, 1, 1\), got \(1, 1, 1\)"),
        ([1.0], [[0.0]], [[[0.0]]], "covs: expected symmetric positive definite"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.45, 1.0]]], "covs: expected symmetric positive definite"),
    ],
)
def test_more_bad_mixtures(weights, means, covs, message):
    with pytest.raises(ValueError, match=message):
        Mixture(weights, means, covs)


def test_xt_without_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"xt: expected shape \(B, 2\), got \(2,\)"):
        PLANE.score(S, torch.zeros(2), 4)


@pytest.mark.parametrize("t", [1, 2])
def test_the_first_reverse_kernels_by_bayes_on_a_grid(t):
    """At t = 1 the kernel is q(x_0 | x_1), a mixture and not a point: mean and variance against Bayes' rule."""
    u = np.linspace(-7, 7, 40_001)
    before, beta = S.alpha_bar[t - 1].item(), S.beta[t].item()
    prior = np.zeros_like(u)
    for w, m, v in zip(W, M, V, strict=True):
        var = before * v + 1 - before
        prior += w / math.sqrt(var) * np.exp(-((u - math.sqrt(before) * m) ** 2) / (2 * var))
    for xt in (-1.0, -0.05, 0.3):
        p = prior * np.exp(-((xt - math.sqrt(1 - beta) * u) ** 2) / (2 * beta))
        p /= p.sum()
        mean = (p * u).sum()
        weights, means, covs = (
            a.flatten().numpy() for a in LINE.reverse(S, torch.tensor([[xt]], dtype=torch.float64), t)
        )
        assert (weights * means).sum() == pytest.approx(mean, rel=1e-9)
        spread = (weights * (covs + (means - mean) ** 2)).sum()
        assert spread == pytest.approx((p * (u - mean) ** 2).sum(), rel=1e-9)


def test_reverse_kernel_at_t_1_is_the_law_of_x0_given_x1():
    x = points(5)
    weights, means, covs = PLANE.reverse(S, x, 1)
    mean = torch.einsum("bk,bkd->bd", weights, means)
    torch.testing.assert_close(mean, PLANE.x0(S, x, 1), rtol=1e-10, atol=1e-12)
    centred = means - mean[:, None]
    cov = torch.einsum("bk,bkij->bij", weights, covs.expand(5, 3, 2, 2))
    cov = cov + torch.einsum("bk,bki,bkj->bij", weights, centred, centred)
    torch.testing.assert_close(cov, PLANE.x0_cov(S, x, 1), rtol=1e-9, atol=1e-12)


def test_each_component_of_the_samples_has_its_covariance():
    """One component at a time, with unequal variances: L L^T and not L^T L, and two noises and not one."""
    n = 200_000
    for k, (m, c) in enumerate(zip(M2, C2, strict=True)):
        x = Mixture([1.0], m[None], c[None]).sample(n, torch.Generator().manual_seed(k)).numpy() - m
        for i, j in ((0, 0), (0, 1), (1, 1)):
            product = x[:, i] * x[:, j]
            assert abs(product.mean() - c[i, j]) < 4 * product.std() / math.sqrt(n)
    root = np.linalg.cholesky(C2[0])
    assert np.abs(root.T @ root - C2[0]).max() > 0.05  # the wrong order is far away


def test_chapman_kolmogorov_the_kernel_carries_q_t_to_q_of_the_step_before():
    """The integral of q(x_{t-1} | x_t) q(x_t) over x_t is q(x_{t-1}), at every t."""
    u = torch.linspace(-9, 9, 3001, dtype=torch.float64)[:, None]
    at_points = torch.tensor([-1.2, -0.3, 0.8], dtype=torch.float64)
    for t in range(1, S.T + 1):
        q_t = LINE.log_prob(S, u, t).exp()
        weights, means, covs = LINE.reverse(S, u, t)
        var = covs[..., 0, 0]
        for x in at_points:
            kernel = (weights * (-0.5 * (x - means[..., 0]) ** 2 / var).exp() / (2 * math.pi * var).sqrt()).sum(1)
            got = (kernel * q_t).sum().item() * 0.006
            assert got == pytest.approx(math.exp(LINE.log_prob(S, x.reshape(1, 1), t - 1).item()), rel=1e-9)
