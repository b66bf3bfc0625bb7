"""The bound term by term: golden values, quadrature, and the exact bound of Gaussian data."""

import math

import numpy as np
import pytest
import torch

from ddpm_edu import elbo, gaussian, schedules
from ddpm_edu.sampling import beta_tilde

LINEAR, COSINE, SHORT = schedules.linear(), schedules.cosine(), schedules.linear(10, 0.02, 0.6)


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the three terms ---------------------------------------------------------------------------------------------------

PRIOR_NATS = {  # per dimension: schedule -> (x_0 = 0, |x_0| = 1)
    "linear": (LINEAR, 4.072090035874248e-10, 2.0179556035881968e-05),
    "cosine": (COSINE, 1.4747271677664365e-18, 1.2143834549921543e-09),
}


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_L_T_golden(name):
    s, at_0, at_1 = PRIOR_NATS[name]
    # log(1 - alpha_bar_T) cancels against alpha_bar_T: 1e-16 absolute is what float64 leaves of the value at x_0 = 0.
    assert elbo.L_T(s, float64([[0.0]])).item() == pytest.approx(at_0, rel=1e-6, abs=1e-16)
    assert elbo.L_T(s, float64([[1.0]])).item() == pytest.approx(at_1, rel=1e-6, abs=0)
    assert elbo.L_T(s, float64([[-1.0]])).item() == pytest.approx(at_1, rel=1e-6, abs=0)


def test_terms_are_sums_over_dimensions_one_number_per_example():
    x0, xt, mu = randn(4, 3, 2, 2), randn(4, 3, 2, 2, seed=1), randn(4, 3, 2, 2, seed=2)
    var = float64(0.3)
    for whole, per_dimension in [
        (elbo.L_T(SHORT, x0), lambda x, _xt, _mu: elbo.L_T(SHORT, x)),
        (elbo.L_t(SHORT, x0, xt, 4, mu, var), lambda x, z, m: elbo.L_t(SHORT, x, z, 4, m, var)),
        (elbo.L_0_gaussian(x0, mu, var), lambda x, _xt, m: elbo.L_0_gaussian(x, m, var)),
    ]:
        assert whole.shape == (4,)
        parts = per_dimension(*(a.reshape(-1, 1) for a in (x0, xt, mu)))
        torch.testing.assert_close(whole, parts.reshape(4, 12).sum(1), rtol=1e-12, atol=0)


def test_L_t_by_quadrature():
    """KL(q(x_{t-1} | x_t, x_0) || N(mu, var)), the posterior normalised on a grid from Bayes' rule."""
    s, t, x0, xt, mu, var = SHORT, 6, 0.8, -0.3, 0.2, 0.4
    u = np.linspace(-8, 8, 400_001)
    du = u[1] - u[0]
    beta, before = s.beta[t].item(), s.alpha_bar[t - 1].item()
    log_p = -((xt - math.sqrt(1 - beta) * u) ** 2) / (2 * beta) - (u - math.sqrt(before) * x0) ** 2 / (2 * (1 - before))
    log_p -= math.log(np.exp(log_p).sum() * du)
    log_model = -((u - mu) ** 2) / (2 * var) - 0.5 * math.log(2 * math.pi * var)
    want = (np.exp(log_p) * (log_p - log_model)).sum() * du
    got = elbo.L_t(s, float64([[x0]]), float64([[xt]]), t, float64([[mu]]), float64(var))
    assert got.item() == pytest.approx(want, rel=1e-9)


def test_L_0_gaussian_against_torch():
    x0, mu = randn(5, 3), randn(5, 3, seed=1)
    want = -torch.distributions.Normal(mu, 0.3).log_prob(x0).sum(1)
    torch.testing.assert_close(elbo.L_0_gaussian(x0, mu, float64(0.09)), want)


def gauss_hermite(n):
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def expected_bound(s, m, var0, var):
    """E over x_0 ~ N(m, var0) of the bound with the exact eps; 3 x 3 nodes integrate these quadratics without error."""
    nodes, weights = gauss_hermite(3)
    x0 = (m + math.sqrt(var0) * nodes).repeat_interleave(3)[:, None]
    eps = nodes.repeat(3)[:, None]
    w = (weights[:, None] * weights).flatten()
    total = (w * elbo.L_T(s, x0)).sum()
    for t in range(1, s.T + 1):
        abar = s.alpha_bar[t].item()
        xt = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps
        eps_hat = math.sqrt(1 - abar) * (xt - math.sqrt(abar) * m) / (abar * var0 + 1 - abar)
        mu = gaussian.mu_from_eps(s, xt, t, eps_hat)
        loss = elbo.L_0_gaussian(x0, mu, var[1]) if t == 1 else elbo.L_t(s, x0, xt, t, mu, var[t])
        total = total + (w * loss).sum()
    return total.item()


def test_exact_bound_of_gaussian_data():
    """Linear schedule, T = 1000, x_0 ~ N(0.3, 0.25): golden bounds in nats for each choice of variance."""
    m, var0 = 0.3, 0.25
    entropy = 0.5 * math.log(2 * math.pi * math.e * var0)
    tilde_1, tilde_2 = beta_tilde(LINEAR), beta_tilde(LINEAR)
    tilde_1[1], tilde_2[1] = LINEAR.beta[1], tilde_2[2]
    v = LINEAR.alpha_bar * var0 + 1 - LINEAR.alpha_bar
    optimal = LINEAR.beta.clone()
    optimal[1:] = LINEAR.beta[1:] * v[:-1] / v[1:]
    assert expected_bound(LINEAR, m, var0, LINEAR.beta) - entropy == pytest.approx(1.094071e-3, rel=1e-6)
    assert expected_bound(LINEAR, m, var0, tilde_1) - entropy == pytest.approx(0.456350, abs=1e-6)
    assert expected_bound(LINEAR, m, var0, tilde_2) - entropy == pytest.approx(0.569928, abs=1e-6)
    # With the optimal variance only the marginal prior term is left.
    prior = 0.5 * (v[-1] - 1 - torch.log(v[-1]) + LINEAR.alpha_bar[-1] * m**2).item()
    assert expected_bound(LINEAR, m, var0, optimal) - entropy == pytest.approx(prior, abs=1e-10)
    assert prior == pytest.approx(1.816352e-6, rel=1e-5)


def test_L_t_needs_t_of_at_least_2():
    x = randn(2, 3)
    for t in (1, 0, 11, torch.tensor([1, 4])):
        with pytest.raises(ValueError, match=r"t: expected 2\.\.10"):
            elbo.L_t(SHORT, x, x, t, x, float64(0.1))
    with pytest.raises(ValueError, match="var2: expected variances > 0"):
        elbo.L_t(SHORT, x, x, 3, x, float64(0.0))


# -- the discretised decoder -------------------------------------------------------------------------------------------


def grey(level):
    return level / 127.5 - 1


def cdf(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize("mu, std", [(0.0, 0.01), (0.3137, 0.01), (-1.0, 0.01), (1.4, 0.3), (0.0, 5.0)])
def test_256_bins_sum_to_one(mu, std):
    x0 = grey(torch.arange(256, dtype=torch.float64))[:, None]
    masses = torch.exp(-elbo.L_0_discrete(x0, torch.full_like(x0, mu), float64(std**2)))
    assert masses.sum().item() == pytest.approx(1, abs=1e-12)


def test_bin_masses_are_differences_of_the_cdf():
    std = 0.02
    for level, mu in [
        (0, -0.99),
        (255, 0.97),
        (0, -1.02),
        (255, 1.01),
        (128, grey(128)),
        (128, grey(130)),
        (100, grey(97)),
    ]:
        upper = math.inf if level == 255 else (grey(level) + 1 / 255 - mu) / std
        lower = -math.inf if level == 0 else (grey(level) - 1 / 255 - mu) / std
        got = elbo.L_0_discrete(float64([[grey(level)]]), float64([[mu]]), float64(std**2)).item()
        assert got == pytest.approx(-math.log(cdf(upper) - cdf(lower)), rel=1e-9)


def test_centre_mass_golden():
    """sigma_1 = 0.01 (sigma_1^2 = beta_1 = 1e-4), mean on the pixel: 1.712846 bits; pdf times width is not the mass."""
    x0 = float64([[grey(100)]])
    nats = elbo.L_0_discrete(x0, x0, float64(1e-4))
    assert math.exp(-nats.item()) == pytest.approx(0.305058, abs=1e-6)
    assert elbo.bits_per_dim(nats, 1).item() == pytest.approx(1.712846, abs=1e-6)


def test_far_tails_stay_finite_and_symmetric():
    x0, mu = float64([[grey(40)]]), float64([[grey(240)]])
    left = elbo.L_0_discrete(x0, mu, float64(1e-4)).item()
    right = elbo.L_0_discrete(-x0, -mu, float64(1e-4)).item()
    assert math.isfinite(left) and left == pytest.approx(right, rel=1e-10)
    # Nearest edge of the bin at z standard deviations: the log mass is dominated by -z^2 / 2.
    z = (grey(240) - grey(40) - 1 / 255) / 0.01
    assert left == pytest.approx(z**2 / 2, rel=1e-2)


def test_discrete_takes_other_level_counts_and_batches():
    levels = torch.linspace(-1, 1, 17, dtype=torch.float64)[:, None]
    masses = torch.exp(-elbo.L_0_discrete(levels, torch.full_like(levels, 0.2), float64(0.01), bins=17))
    assert masses.sum().item() == pytest.approx(1, abs=1e-12)
    x0 = grey(torch.arange(24, dtype=torch.float64)).reshape(2, 3, 2, 2)
    assert elbo.L_0_discrete(x0, x0, float64(1e-4)).shape == (2,)


@pytest.mark.parametrize("value", [0.5, 1.2, -1.01, math.nan])
def test_discrete_refuses_values_off_the_grid(value):
    with pytest.raises(ValueError, match="x0: expected 256 grey levels"):
        elbo.L_0_discrete(float64([[value]]), float64([[0.0]]), float64(1e-4))


# -- weights, losses, units --------------------------------------------------------------------------------------------


def test_loss_weights_need_a_whole_table():
    with pytest.raises(ValueError, match=r"var: expected a table of T \+ 1 = 1001 variances, got shape \(1000,\)"):
        elbo.loss_weight(LINEAR, LINEAR.beta[1:])


def test_loss_weights_golden():
    w = elbo.loss_weight(LINEAR, LINEAR.beta)
    for t, want in {
        1: 0.5000500050005551,
        2: 0.2726920842780491,
        10: 0.0737170159328125,
        1000: 0.010204493468637875,
    }.items():
        assert w[t].item() == pytest.approx(want, rel=1e-9)
    assert int(w[1:].argmin()) + 1 == 349 and w[1:].sum().item() == pytest.approx(9.861046987762153, rel=1e-10)
    w = elbo.loss_weight(COSINE, COSINE.beta)
    assert w[1].item() == pytest.approx(0.5000206429646398, rel=1e-9)
    assert w[1000].item() == pytest.approx(499.50000121316856, rel=1e-9)
    w = elbo.loss_weight(LINEAR, beta_tilde(LINEAR))
    assert w[2].item() == pytest.approx(0.5996715121593821, rel=1e-9) and w[1] == math.inf
    assert w[2:].sum().item() == pytest.approx(10.170492873788987, rel=1e-10)
    assert w[0].isnan()


def test_loss_weight_turns_the_eps_error_into_the_KL():
    """With var = beta_tilde the variances cancel and L_{t-1} is weight times |eps - eps_hat|^2."""
    x0, eps, eps_hat = randn(1, 3), randn(1, 3, seed=1), randn(1, 3, seed=2)
    for t in (2, 5, 10):
        xt = gaussian.q_sample(SHORT, x0, t, eps)
        var = beta_tilde(SHORT)
        kl = elbo.L_t(SHORT, x0, xt, t, gaussian.mu_from_eps(SHORT, xt, t, eps_hat), var[t])
        weight = elbo.loss_weight(SHORT, var)[t]
        assert kl.item() == pytest.approx((weight * ((eps - eps_hat) ** 2).sum()).item(), rel=1e-10)


def test_loss_simple_is_the_mean_squared_error_of_eps():
    x0, eps, t = randn(3, 1, 2, 2), randn(3, 1, 2, 2, seed=1), torch.tensor([1, 4, 10])

    def model(xt, t_seen):
        assert torch.equal(t_seen, t)
        return 2 * xt

    got = elbo.loss_simple(SHORT, model, x0, t, eps)
    for i in range(3):
        abar = SHORT.alpha_bar[int(t[i])].item()
        xt = math.sqrt(abar) * x0[i] + math.sqrt(1 - abar) * eps[i]
        assert got[i].item() == pytest.approx(((eps[i] - 2 * xt) ** 2).mean().item(), rel=1e-12)
    zero = elbo.loss_simple(SHORT, lambda xt, t: torch.zeros_like(xt), x0, t, eps)
    torch.testing.assert_close(zero, (eps**2).mean((1, 2, 3)))
    with pytest.raises(ValueError, match=r"eps_model: expected an output of shape \(3, 1, 2, 2\), got \(3, 1, 2, 1\)"):
        elbo.loss_simple(SHORT, lambda xt, t: xt[..., :1], x0, t, eps)


def test_bits_per_dim():
    assert elbo.bits_per_dim(float64(math.log(2) * 12), 4).item() == pytest.approx(3, rel=1e-15)
    with pytest.raises(ValueError, match="dims: expected.*got 0"):
        elbo.bits_per_dim(float64(1.0), 0)


# -- is this a schedule? -----------------------------------------------------------------------------------------------


def test_validity_of_the_linear_schedule():
    v = elbo.validity(LINEAR.beta[1:])
    assert v.problem == "" and v.x_T_is_noise
    assert v.alpha_bar_T == pytest.approx(4.035829765375676e-05, rel=1e-10)
    assert v.snr_1 == pytest.approx(9999, rel=1e-9) and v.snr_T == pytest.approx(4.0359926511684205e-05, rel=1e-9)
    assert v.prior_nats == pytest.approx(6.726790151296379e-06, rel=1e-9, abs=0)
    assert v.prior_bits == pytest.approx(9.704706792376005e-06, rel=1e-9)
    assert elbo.validity(LINEAR.beta[1:], 1.0).prior_nats == pytest.approx(2.0179556035881968e-05, rel=1e-9, abs=0)
    assert elbo.validity(COSINE.beta[1:]).prior_nats == pytest.approx(4.047944859805361e-10, rel=1e-6, abs=0)


def test_validity_agrees_with_L_T():
    x0 = randn(50_000, 1) * 0.7
    v = elbo.validity(SHORT.beta[1:], second_moment=(x0**2).mean().item())
    assert v.prior_nats == pytest.approx(elbo.L_T(SHORT, x0).mean().item(), rel=1e-10)


def test_a_short_chain_with_small_betas_does_not_end_in_noise():
    v = elbo.validity(schedules.linear(50).beta[1:])
    assert v.problem == "" and not v.x_T_is_noise
    assert v.alpha_bar_T == pytest.approx(0.60, abs=0.005)


@pytest.mark.parametrize(
    "betas, problem", [([0.1, 1.0], "beta_2 = 1"), ([0.1, math.nan], "beta_2 = nan"), ([], "betas")]
)
def test_validity_reports_what_is_wrong(betas, problem):
    v = elbo.validity(betas)
    assert problem in v.problem and not v.x_T_is_noise
    assert all(math.isnan(x) for x in (v.alpha_bar_T, v.snr_1, v.snr_T, v.prior_nats, v.prior_bits))


def test_validity_refuses_a_negative_second_moment():
    with pytest.raises(ValueError, match="second_moment"):
        elbo.validity([0.1], -1.0)


def test_means_of_another_shape_are_refused():
    x0, xt, mu = randn(4, 3), randn(4, 3, seed=1), randn(1, 3, seed=2)
    for call in (
        lambda: elbo.L_t(SHORT, x0, xt, 4, mu, float64(0.3)),
        lambda: elbo.L_0_gaussian(x0, mu, float64(0.3)),
        lambda: elbo.L_0_discrete(x0, mu, float64(0.3)),
    ):
        with pytest.raises(ValueError, match=r"mu: expected the shape of the data, \(4, 3\), got \(1, 3\)"):
            call()


@pytest.mark.parametrize("var, bins", [(0.0, 256), (-1.0, 256), (math.nan, 256), (0.1, 1)])
def test_discrete_refuses_what_is_no_variance(var, bins):
    x0 = float64([[grey(100)]])
    with pytest.raises(ValueError, match="bins, var: expected at least 2 bins and var > 0"):
        elbo.L_0_discrete(x0, x0, float64(var), bins=bins)


@pytest.mark.parametrize("level", [-1, 256])
def test_discrete_refuses_levels_beyond_the_ends(level):
    with pytest.raises(ValueError, match="x0: expected 256 grey levels"):
        elbo.L_0_discrete(float64([[grey(level)]]), float64([[0.0]]), float64(1e-4))


def test_discrete_takes_float32_pictures():
    """A level of a float32 picture is off by rounding: it is accepted, and the edges are still open."""
    x0 = grey(torch.arange(256, dtype=torch.float64))[:, None]
    mu = x0 + 0.003
    got, want = elbo.L_0_discrete(x0.float(), mu.float(), torch.tensor(1e-4)), elbo.L_0_discrete(x0, mu, float64(1e-4))
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-6)
    for sign in (1, -1):  # a little inside of the outermost level
        x0, mu = sign * float64([[1 - 3e-5]]), sign * float64([[1.02]])
        want = -math.log(cdf((1.02 - (1 - 3e-5 - 1 / 255)) / 0.01))
        assert elbo.L_0_discrete(x0, mu, float64(1e-4)).item() == pytest.approx(want, rel=1e-9)


def test_loss_simple_refuses_an_output_that_would_broadcast():
    x0, t = randn(3, 1, 2, 2), torch.tensor([1, 4, 10])
    with pytest.raises(ValueError, match="eps_model: expected an output of shape"):
        elbo.loss_simple(SHORT, lambda xt, t: xt.reshape(3, 2, 1, 2), x0, t, x0)


def test_x_T_is_noise_below_a_thousandth_of_a_bit():
    """One step with alpha_bar = a costs about a / 6 nats = 0.24 a bits per dimension: the limit is at a = 0.00414."""
    for a, noise in ((0.0038, True), (0.0045, False)):
        v = elbo.validity([1 - a])
        assert v.x_T_is_noise is noise
        assert v.prior_bits == pytest.approx(v.prior_nats / math.log(2), rel=1e-12)
    assert elbo.NOISE_BITS == 1e-3


def test_prior_mismatch_keeps_its_digits_where_alpha_bar_T_is_tiny():
    a = COSINE.alpha_bar[-1].item()
    want = 0.5 * (a * (1 / 3 - 1) + a + a**2 / 2 + a**3 / 3)  # -log(1 - a) by its series
    # abs=0, because approx allows 1e-12 otherwise, which is 0.25 % of this number.
    assert elbo.validity(COSINE.beta[1:]).prior_nats == pytest.approx(want, rel=1e-10, abs=0)


def test_second_moment_zero_is_allowed_and_nan_is_not():
    assert elbo.validity([0.1], 0.0).problem == ""
    with pytest.raises(ValueError, match="second_moment"):
        elbo.validity([0.1], math.nan)


# -- every step, every example -----------------------------------------------------------------------------------------


def test_L_t_at_every_t_adds_precisions():
    beta = SHORT.beta[1:].numpy()
    alpha_bar = np.cumprod(1 - beta)
    for t in range(2, SHORT.T + 1):
        b, before = beta[t - 1], alpha_bar[t - 2]
        var = 1 / ((1 - b) / b + 1 / (1 - before))
        mean = var * (math.sqrt(1 - b) / b * -0.4 + math.sqrt(before) / (1 - before) * 0.7)
        want = 0.5 * (var / 0.3 - 1 - math.log(var / 0.3) + (mean - 0.1) ** 2 / 0.3)
        got = elbo.L_t(SHORT, float64([[0.7]]), float64([[-0.4]]), t, float64([[0.1]]), float64(0.3))
        assert got.item() == pytest.approx(want, rel=1e-10)


def test_every_example_has_its_own_t_and_its_own_variance():
    x0, xt, mu = randn(3, 2), randn(3, 2, seed=1), randn(3, 2, seed=2)
    t, var = torch.tensor([2, 5, 10]), float64([[0.1], [0.4], [0.9]])
    grid = grey(torch.tensor([[3.0, 100.0], [0.0, 255.0], [40.0, 41.0]], dtype=torch.float64))
    L_t, L_0 = elbo.L_t(SHORT, x0, xt, t, mu, var), elbo.L_0_gaussian(x0, mu, var)
    discrete = elbo.L_0_discrete(grid, 0.5 * mu, var)
    for i in range(3):
        one = slice(i, i + 1)
        assert L_t[i] == elbo.L_t(SHORT, x0[one], xt[one], int(t[i]), mu[one], var[i])[0]
        assert L_0[i] == elbo.L_0_gaussian(x0[one], mu[one], var[i])[0]
        assert discrete[i] == elbo.L_0_discrete(grid[one], 0.5 * mu[one], var[i])[0]


def test_L_T_belongs_to_T_and_to_this_direction():
    """On a short chain T and T - 1, and the two directions of the KL, are far apart."""
    abar = math.prod(1 - b for b in SHORT.beta[1:].tolist())
    want = 0.5 * (abar * 0.25 + (1 - abar) - 1 - math.log(1 - abar))
    assert elbo.L_T(SHORT, float64([[0.5]])).item() == pytest.approx(want, rel=1e-9)
    two = schedules.Schedule.from_betas([0.3, 0.4])
    want = 0.5 * (0.42 * 0.25 + 0.58 - 1 - math.log(0.58))
    assert elbo.L_T(two, float64([[0.5]])).item() == pytest.approx(want, rel=1e-12)


def test_loss_weights_by_hand_at_every_t():
    beta = SHORT.beta[1:].numpy()
    abar = np.cumprod(1 - beta)
    got = elbo.loss_weight(SHORT, 0.5 * SHORT.beta)[1:]
    np.testing.assert_allclose(got, beta**2 / (2 * 0.5 * beta * (1 - beta) * (1 - abar)), rtol=1e-12)


@pytest.mark.parametrize("level", [0, 1, 100, 254, 255])
@pytest.mark.parametrize("z", [-3.0, -0.4, 0.0, 0.4, 3.0])
def test_the_mass_of_a_bin_by_the_cdf_on_both_sides(level, z):
    std = 0.015
    mu = grey(level) + z * std
    low = -math.inf if level == 0 else (grey(level) - 1 / 255 - mu) / std
    high = math.inf if level == 255 else (grey(level) + 1 / 255 - mu) / std
    got = elbo.L_0_discrete(float64([[grey(level)]]), float64([[mu]]), float64(std**2)).item()
    assert got == pytest.approx(-math.log(cdf(high) - cdf(low)), rel=1e-9)
