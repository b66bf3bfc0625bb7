"""The Gaussian identities against oracles that share no code: grids, composition of steps, autograd, quadrature."""

import math

import numpy as np
import pytest
import torch

from ddpm_edu import gaussian, schedules

LINEAR, COSINE, SHORT = schedules.linear(), schedules.cosine(), schedules.linear(10, 0.02, 0.6)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def close(got, want, rtol=1e-10):
    """Largest error over largest value, in float64."""
    got, want = np.asarray(got, dtype=float), np.asarray(want, dtype=float)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= rtol * np.abs(want).max()


# -- q(x_t | x_{t-1}) and q(x_t | x_0) ---------------------------------------------------------------------------------


def test_q_step_is_eq_2():
    x, eps = randn(3, 2), randn(3, 2, seed=1)
    for t in (1, 4, 10):
        beta = SHORT.beta[t].item()
        close(gaussian.q_step(SHORT, x, t, eps), math.sqrt(1 - beta) * x + math.sqrt(beta) * eps)


@pytest.mark.parametrize("s", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_closed_form_is_the_composition_of_single_steps(s):
    """Mean and variance carried one step at a time by the rules for scaled sums of independent variables."""
    x0 = randn(4)
    mean, var = x0.numpy().copy(), 0.0
    for t in range(1, s.T + 1):
        beta = s.beta[t].item()
        mean, var = math.sqrt(1 - beta) * mean, (1 - beta) * var + beta
        if t in (1, 2, 10, 500, 1000):
            got_mean, got_var = gaussian.q_mean_var(s, x0, t)
            close(got_mean, mean)
            close(got_var, var)


def test_q_sample_is_mean_plus_std_times_eps():
    x0, eps = randn(5, 3, 2, 2), randn(5, 3, 2, 2, seed=1)
    t = torch.tensor([1, 2, 5, 9, 10])
    got = gaussian.q_sample(SHORT, x0, t, eps)
    for i, ti in enumerate(t.tolist()):
        abar = math.prod(1 - SHORT.beta[r].item() for r in range(1, ti + 1))
        close(got[i], math.sqrt(abar) * x0[i] + math.sqrt(1 - abar) * eps[i])
    mean, var = gaussian.q_mean_var(SHORT, x0, t)
    assert var.shape == (5, 1, 1, 1)
    close(got, mean + var.sqrt() * eps)


def test_steps_and_jump_have_the_same_law():
    """Seeded Monte Carlo on a short chain: mean and variance of x_5 from five single steps, in standard errors."""
    n, g = 200_000, torch.Generator().manual_seed(0)
    x = torch.full((n,), 1.5, dtype=torch.float64)
    for t in range(1, 6):
        x = gaussian.q_step(SHORT, x, t, torch.randn(n, generator=g, dtype=torch.float64))
    mean, var = (v.item() for v in gaussian.q_mean_var(SHORT, float64(1.5), 5))
    assert abs(x.mean().item() - mean) < 4 * math.sqrt(var / n)
    assert abs(x.var().item() - var) < 4 * var * math.sqrt(2 / n)
    _, var_off_by_one = gaussian.q_mean_var(SHORT, float64(1.5), 4)
    assert abs(x.var().item() - var_off_by_one.item()) > 8 * var * math.sqrt(2 / n)  # the test has power


# -- q(x_{t-1} | x_t, x_0) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("s, t", [(SHORT, 2), (SHORT, 5), (SHORT, 10), (LINEAR, 2), (LINEAR, 500), (COSINE, 999)])
def test_posterior_is_bayes_on_a_grid(s, t):
    """q(x_{t-1} | x_t, x_0) is proportional to q(x_t | x_{t-1}) q(x_{t-1} | x_0), normalised by quadrature."""
    x0, xt = 0.7, -0.4
    beta, before = s.beta[t].item(), s.alpha_bar[t - 1].item()
    centre = (math.sqrt(before) * x0, math.sqrt(1 - before))
    likely = (xt / math.sqrt(1 - beta), math.sqrt(beta / (1 - beta)))
    low = min(m - 12 * sd for m, sd in (centre, likely))
    high = max(m + 12 * sd for m, sd in (centre, likely))
    u = np.linspace(low, high, 400_001)
    log_p = -((xt - math.sqrt(1 - beta) * u) ** 2) / (2 * beta) - (u - math.sqrt(before) * x0) ** 2 / (2 * (1 - before))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    grid_mean = (p * u).sum()
    grid_var = (p * (u - grid_mean) ** 2).sum()
    mean, var = gaussian.posterior_mean_var(s, float64([x0]), float64([xt]), t)
    close(mean, [grid_mean], 1e-9)
    close(var, grid_var, 1e-9)


def test_posterior_at_t_1_is_the_point_x0():
    x0, xt = randn(4), randn(4, seed=1)
    mean, var = gaussian.posterior_mean_var(LINEAR, x0, xt, 1)
    close(mean, x0, 1e-12)
    assert var == 0


def test_posterior_golden_variances():
    x = randn(1)
    golden = {2: 5.4531876613021935e-05, 500: 0.010031355414613688, 1000: 0.01999998352656061}
    for t, want in golden.items():
        close(gaussian.posterior_mean_var(LINEAR, x, x, t)[1], want)
    close(gaussian.posterior_mean_var(COSINE, x, x, 2)[1], 2.178949614569182e-05)


def test_posterior_takes_a_batch_of_times():
    x0, xt, t = randn(3, 2), randn(3, 2, seed=1), torch.tensor([1, 4, 10])
    mean, var = gaussian.posterior_mean_var(SHORT, x0, xt, t)
    assert var.shape == (3, 1)
    for i in range(3):
        one_mean, one_var = gaussian.posterior_mean_var(SHORT, x0[i], xt[i], int(t[i]))
        close(mean[i], one_mean)
        assert var[i].item() == one_var.item()


# -- conversions -------------------------------------------------------------------------------------------------------

HUB = ["x0", "mu", "v", "score"]


@pytest.mark.parametrize("name", HUB)
@pytest.mark.parametrize("s", [LINEAR, COSINE, SHORT], ids=["linear", "cosine", "short"])
def test_each_conversion_is_a_bijection(s, name):
    xt, eps = randn(6, 3), randn(6, 3, seed=1)
    t = torch.tensor([1, 2, s.T // 2, s.T // 2, s.T - 1, s.T])
    there, back = getattr(gaussian, f"{name}_from_eps"), getattr(gaussian, f"eps_from_{name}")
    close(back(s, xt, t, there(s, xt, t, eps)), eps, 1e-9)
    close(there(s, xt, t, back(s, xt, t, eps)), eps, 1e-9)


def test_x0_and_eps_solve_the_forward_equation():
    x0, eps = randn(4, 2), randn(4, 2, seed=1)
    t = torch.tensor([1, 3, 7, 10])
    xt = gaussian.q_sample(SHORT, x0, t, eps)
    close(gaussian.x0_from_eps(SHORT, xt, t, eps), x0)
    close(gaussian.eps_from_x0(SHORT, xt, t, x0), eps)


def test_eq_11_is_the_posterior_mean_at_the_predicted_x0():
    xt, eps = randn(5, 2), randn(5, 2, seed=1)
    t = torch.tensor([1, 2, 100, 500, 1000])
    x0_hat = gaussian.x0_from_eps(LINEAR, xt, t, eps)
    mean, _ = gaussian.posterior_mean_var(LINEAR, x0_hat, xt, t)
    close(gaussian.mu_from_eps(LINEAR, xt, t, eps), mean, 1e-12)


def test_v_is_its_definition():
    x0, eps = randn(4, 2), randn(4, 2, seed=1)
    for t in (1, 5, 10):
        abar = SHORT.alpha_bar[t].item()
        xt = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps
        close(gaussian.v_from_eps(SHORT, xt, t, eps), math.sqrt(abar) * eps - math.sqrt(1 - abar) * x0)


def test_score_is_the_gradient_of_the_log_density():
    """For one known x_0 the noise is known, and the score is the gradient of log N(x_t; sqrt(abar) x_0, 1 - abar)."""
    x0, eps = randn(4), randn(4, seed=1)
    for t in (1, 5, 10):
        abar = SHORT.alpha_bar[t].item()
        xt = (math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps).requires_grad_()
        law = torch.distributions.Normal(math.sqrt(abar) * x0, math.sqrt(1 - abar))
        (grad,) = torch.autograd.grad(law.log_prob(xt).sum(), xt)
        close(gaussian.score_from_eps(SHORT, xt.detach(), t, eps), grad)


# -- densities ---------------------------------------------------------------------------------------------------------


def test_normal_log_prob_against_torch():
    x, mean, var = randn(5), randn(5, seed=1), randn(5, seed=2) ** 2 + 0.1
    want = torch.distributions.Normal(mean, var.sqrt()).log_prob(x)
    close(gaussian.normal_log_prob(x, mean, var), want)


def test_normal_kl_by_quadrature():
    mean1, var1, mean2, var2 = 0.3, 0.5, -0.6, 2.0
    u = np.linspace(-12, 12, 200_001)
    log_p = -((u - mean1) ** 2) / (2 * var1) - 0.5 * math.log(2 * math.pi * var1)
    log_q = -((u - mean2) ** 2) / (2 * var2) - 0.5 * math.log(2 * math.pi * var2)
    want = (np.exp(log_p) * (log_p - log_q)).sum() * (u[1] - u[0])
    args = [float64(v) for v in (mean1, var1, mean2, var2)]
    close(gaussian.normal_kl(*args), want)
    assert gaussian.normal_kl(args[0], args[1], args[0], args[1]) == 0


def test_normal_kl_three_dimensions_adds_up():
    mean1, mean2 = randn(3), randn(3, seed=1)
    var1, var2 = randn(3, seed=2) ** 2 + 0.1, randn(3, seed=3) ** 2 + 0.1
    p = torch.distributions.MultivariateNormal(mean1, torch.diag(var1))
    q = torch.distributions.MultivariateNormal(mean2, torch.diag(var2))
    close(gaussian.normal_kl(mean1, var1, mean2, var2).sum(), torch.distributions.kl_divergence(p, q))


# -- dtypes, bad input, a second library -------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, torch.tensor([1, 700])])
def test_float32_data_stay_float32_and_keep_their_digits(t):
    x0, eps = randn(2, 3, dtype=torch.float32), randn(2, 3, seed=1, dtype=torch.float32)
    for f in (gaussian.q_step, gaussian.q_sample):
        assert f(LINEAR, x0, t, eps).dtype == torch.float32
    mean, var = gaussian.posterior_mean_var(LINEAR, x0, eps, t)
    assert mean.dtype == var.dtype == torch.float32
    mean, var = gaussian.q_mean_var(LINEAR, x0, 1)
    assert mean.dtype == var.dtype == torch.float32
    # Formed in float32, 1 - alpha_bar_1 would be 1.00016e-4: the coefficient is cast after it was formed.
    assert var.item() == pytest.approx(1e-4, rel=1e-6)
    for name in HUB:
        assert getattr(gaussian, f"{name}_from_eps")(LINEAR, x0, t, eps).dtype == torch.float32
        assert getattr(gaussian, f"eps_from_{name}")(LINEAR, x0, t, eps).dtype == torch.float32


@pytest.mark.parametrize("t", [0, 11, -1, 2.0, torch.tensor([0, 1]), torch.tensor([1, 11]), torch.tensor([1.0, 2.0])])
def test_bad_t_is_refused_everywhere(t):
    x, y = randn(2, 3), randn(2, 3, seed=1)
    calls = [gaussian.q_step, gaussian.q_sample]
    calls += [getattr(gaussian, f"{name}_from_eps") for name in HUB]
    calls += [getattr(gaussian, f"eps_from_{name}") for name in HUB]
    for f in calls:
        args = (SHORT, x, t, y)
        with pytest.raises(ValueError, match="t: expected"):
            f(*args)
    with pytest.raises(ValueError, match="t: expected"):
        gaussian.q_mean_var(SHORT, x, t)
    with pytest.raises(ValueError, match="t: expected"):
        gaussian.posterior_mean_var(SHORT, x, y, t)


def test_operands_of_unequal_shape_are_refused():
    x, y = randn(2, 3), randn(2, 1)
    for f in (gaussian.q_step, gaussian.q_sample, gaussian.x0_from_eps, gaussian.eps_from_mu, gaussian.score_from_eps):
        with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(2, 1\)"):
            f(SHORT, x, 1, y)
    with pytest.raises(ValueError, match="one shape"):
        gaussian.posterior_mean_var(SHORT, x, y, 1)


@pytest.mark.parametrize("var", [0.0, -1.0, math.nan])
def test_bad_variances_are_refused(var):
    zero, one, bad = (torch.tensor(v) for v in (0.0, 1.0, var))
    with pytest.raises(ValueError, match="var: expected variances > 0"):
        gaussian.normal_log_prob(zero, zero, bad)
    with pytest.raises(ValueError, match="var1: expected variances > 0"):
        gaussian.normal_kl(zero, bad, zero, one)
    with pytest.raises(ValueError, match="var2: expected variances > 0"):
        gaussian.normal_kl(zero, one, zero, bad)


@pytest.mark.parametrize("kind, s", [("linear", LINEAR), ("squaredcos_cap_v2", COSINE)])
def test_agrees_with_a_second_library(diffusers, kind, s):
    """Against diffusers' DDPM scheduler: its t is ours minus 1, its tables are float32."""
    other = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule=kind, clip_sample=False)
    x0, eps = randn(2, 3, 4, 4), randn(2, 3, 4, 4, seed=1)
    for t in (2, 10, 300, 700, 1000):
        xt = gaussian.q_sample(s, x0, t, eps)
        theirs = other.add_noise(x0, eps, torch.tensor([t - 1, t - 1]))
        close(xt, theirs, 2e-4)
        _, var = gaussian.posterior_mean_var(s, x0, xt, t)
        close(var, other._get_variance(t - 1).double(), 2e-3 if kind != "linear" else 2e-4)
        step = other.step(eps, t - 1, xt, generator=torch.Generator().manual_seed(0))
        close(gaussian.x0_from_eps(s, xt, t, eps), step.pred_original_sample, 2e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_refused(dtype):
    """Cast to the data's dtype, every coefficient below 1 would be 0, and a photograph of bytes would turn black."""
    x = torch.ones(2, 3, dtype=dtype)
    for f in (gaussian.q_step, gaussian.q_sample, gaussian.x0_from_eps):
        with pytest.raises(ValueError, match="expected floating-point data"):
            f(SHORT, x, 1, x)
    with pytest.raises(ValueError, match="expected floating-point data"):
        gaussian.q_mean_var(SHORT, x, 1)
    with pytest.raises(ValueError, match="expected floating-point data"):
        gaussian.q_sample(SHORT, randn(2, 3), 1, x)


LINEAR = schedules.linear()
TWO = [
    "q_step",
    "q_sample",
    *(f"{a}_from_{b}" for k in ("x0", "mu", "v", "score") for a, b in ((k, "eps"), ("eps", k))),
]


@pytest.mark.parametrize("t", [1, 2, torch.tensor([1, 2, 3])])
def test_each_coefficient_is_formed_in_float64_and_cast_last(t):
    """One operand at a time, so that each coefficient shows: float32 data give the float64 result rounded."""
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    for a, b in ((x, 0 * x), (0 * x, x)):
        for name in TWO:
            f = getattr(gaussian, name)
            torch.testing.assert_close(
                f(LINEAR, a, t, b).double(), f(LINEAR, a.double(), t, b.double()), rtol=3e-7, atol=0
            )
        for got, want in zip(
            gaussian.posterior_mean_var(LINEAR, a, b, t),
            gaussian.posterior_mean_var(LINEAR, a.double(), b.double(), t),
            strict=True,
        ):
            torch.testing.assert_close(got.double(), want, rtol=3e-7, atol=0)
    for got, want in zip(gaussian.q_mean_var(LINEAR, x, t), gaussian.q_mean_var(LINEAR, x.double(), t), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=3e-7, atol=0)


def test_one_bad_variance_among_good_ones_is_refused():
    zero, mixed = torch.zeros(2), torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="var: expected variances > 0"):
        gaussian.normal_log_prob(zero, zero, mixed)


# -- every step by itself ----------------------------------------------------------------------------------------------

SCHEDULES = pytest.mark.parametrize("s", [SHORT, LINEAR, COSINE], ids=["short", "linear", "cosine"])


def tables(s):
    """beta, alpha_bar_{t-1} and alpha_bar_t for t = 1..T, the products taken here."""
    beta = s.beta[1:].numpy()
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - beta)])
    return beta, alpha_bar[:-1], alpha_bar[1:]


def per_t(s, x):
    """A constant for every t = 1..T, and those t."""
    return torch.full((s.T,), x, dtype=torch.float64), torch.arange(1, s.T + 1)


@SCHEDULES
def test_the_posterior_adds_precisions_at_every_t(s):
    beta, before, _ = tables(s)
    (x0, t), (xt, _) = per_t(s, 0.7), per_t(s, -0.4)
    mean, var = gaussian.posterior_mean_var(s, x0, xt, t)
    assert mean[0].item() == pytest.approx(0.7, rel=1e-10) and var[0] == 0
    precision = (1 - beta[1:]) / beta[1:] + 1 / (1 - before[1:])
    want = (np.sqrt(1 - beta[1:]) / beta[1:] * -0.4 + np.sqrt(before[1:]) / (1 - before[1:]) * 0.7) / precision
    np.testing.assert_allclose(var[1:], 1 / precision, rtol=1e-9)
    np.testing.assert_allclose(mean[1:], want, rtol=1e-9)


@SCHEDULES
def test_neighbours_have_one_joint_law_forwards_and_backwards(s):
    """Mean and covariance of (x_{t-1}, x_t) given x_0 = 1: by a step forwards from q(x_{t-1}), and by the posterior."""
    _, before, _ = tables(s)
    (one, t), (zero, _) = per_t(s, 1.0), per_t(s, 0.0)
    on_x0, var = gaussian.posterior_mean_var(s, one, zero, t)
    on_xt, _ = gaussian.posterior_mean_var(s, zero, one, t)
    mean_t, var_t = gaussian.q_mean_var(s, one, t)
    on_x_prev, noise = gaussian.q_step(s, one, t, zero), gaussian.q_step(s, zero, t, one)
    v = 1 - before  # of x_{t-1}
    for got, want in [
        (on_x0 + on_xt * mean_t, np.sqrt(before)),
        (on_xt**2 * var_t + var, v),
        (on_xt * var_t, on_x_prev.numpy() * v),
        (mean_t, on_x_prev.numpy() * np.sqrt(before)),
        (var_t, on_x_prev.numpy() ** 2 * v + noise.numpy() ** 2),
    ]:
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(on_x_prev**2 + noise**2, np.ones(s.T), rtol=1e-12)


@SCHEDULES
def test_every_conversion_is_its_definition_at_every_t(s):
    beta, _, now = tables(s)
    (x0, t), (eps, _) = per_t(s, 0.7), per_t(s, -1.2)
    xt = torch.from_numpy(np.sqrt(now) * 0.7 - np.sqrt(1 - now) * 1.2)
    want = {
        "x0": np.full(s.T, 0.7),
        "mu": (xt.numpy() + beta / np.sqrt(1 - now) * 1.2) / np.sqrt(1 - beta),
        "v": -np.sqrt(now) * 1.2 - np.sqrt(1 - now) * 0.7,
        "score": -(xt.numpy() - np.sqrt(now) * 0.7) / (1 - now),
    }
    # The cosine schedule ends with alpha_bar_T = 2e-9: what is divided by its root loses digits there.
    for name, value in want.items():
        got = getattr(gaussian, f"{name}_from_eps")(s, xt, t, eps)
        np.testing.assert_allclose(got, value, rtol=1e-7, err_msg=name)
        back = getattr(gaussian, f"eps_from_{name}")(s, xt, t, torch.from_numpy(value))
        np.testing.assert_allclose(back, eps, rtol=1e-7, err_msg=name)
    np.testing.assert_allclose(gaussian.q_sample(s, x0, t, eps), xt, rtol=1e-12)


@pytest.mark.parametrize("var1, var2", [(0.5, 2.0), (2.0, 0.5)])
def test_normal_kl_has_a_direction(var1, var2):
    """Against torch.distributions, both ways round, with means that differ."""
    p = torch.distributions.Normal(float64(0.3), float64(var1).sqrt())
    q = torch.distributions.Normal(float64(-0.6), float64(var2).sqrt())
    got = gaussian.normal_kl(float64(0.3), float64(var1), float64(-0.6), float64(var2))
    assert got.item() == pytest.approx(torch.distributions.kl_divergence(p, q).item(), rel=1e-12)
