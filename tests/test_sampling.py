"""Samplers: one step against numpy, whole chains against exact moments, DDIM against its limits."""

import itertools
import math

import numpy as np
import pytest
import torch

from ddpm_edu import gaussian, sampling, schedules
from ddpm_edu.exact import Mixture

SHORT = schedules.linear(10, 0.02, 0.6)
LINE = Mixture([0.3, 0.7], [[-1.0], [0.8]], [[[0.04]], [[0.09]]])
GAUSS = Mixture([1.0], [[0.3]], [[[0.25]]])


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def oracle(mixture, s):
    return lambda xt, t: mixture.eps(s, xt, t)


def test_beta_tilde_table():
    table = sampling.beta_tilde(SHORT)
    assert table[0] == 0 and table[1] == 0 and table.dtype == torch.float64
    for t in range(2, 11):
        beta = [SHORT.beta[r].item() for r in range(t + 1)]
        abar, before = math.prod(1 - b for b in beta[1:]), math.prod(1 - b for b in beta[1:-1])
        assert table[t].item() == pytest.approx((1 - before) / (1 - abar) * beta[-1], rel=1e-12)
    assert sampling.beta_tilde(schedules.linear())[2].item() == pytest.approx(5.4531876613021935e-05, rel=1e-10)


def test_p_step_is_eq_11_plus_noise():
    xt, eps_hat, z = randn(3, 2), randn(3, 2, seed=1), randn(3, 2, seed=2)
    for t in (2, 5, 10):
        beta, abar = SHORT.beta[t].item(), SHORT.alpha_bar[t].item()
        mu = (xt - beta / math.sqrt(1 - abar) * eps_hat) / math.sqrt(1 - beta)
        x0_hat = (xt - math.sqrt(1 - abar) * eps_hat) / math.sqrt(abar)
        got = sampling.p_step(SHORT, xt, t, x0_hat, SHORT.beta, z)
        torch.testing.assert_close(got, mu + math.sqrt(beta) * z, rtol=1e-10, atol=1e-12)


def test_p_step_adds_no_noise_at_t_1_also_in_a_mixed_batch():
    xt, x0_hat = randn(3, 2), randn(3, 2, seed=1)
    one, other = (sampling.p_step(SHORT, xt, 1, x0_hat, SHORT.beta, randn(3, 2, seed=k)) for k in (2, 3))
    assert torch.equal(one, other)
    torch.testing.assert_close(one, x0_hat, rtol=1e-12, atol=1e-12)
    t = torch.tensor([1, 2, 10])
    together = sampling.p_step(SHORT, xt, t, x0_hat, SHORT.beta, randn(3, 2, seed=2))
    for i in range(3):
        alone = sampling.p_step(
            SHORT, xt[i : i + 1], int(t[i]), x0_hat[i : i + 1], SHORT.beta, randn(3, 2, seed=2)[i : i + 1]
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=0)


def test_p_step_bad_input():
    x = randn(2, 3)
    with pytest.raises(ValueError, match="var: expected a table of T \\+ 1 = 11"):
        sampling.p_step(SHORT, x, 3, x, torch.tensor(0.1), x)
    with pytest.raises(ValueError, match="var: expected a table.*>= 0"):
        sampling.p_step(SHORT, x, 3, x, -SHORT.beta, x)
    with pytest.raises(ValueError, match="z: expected the shape of xt"):
        sampling.p_step(SHORT, x, 3, x, SHORT.beta, x[:, :1])
    with pytest.raises(ValueError, match=r"t: expected 1\.\.10, got 0"):
        sampling.p_step(SHORT, x, 0, x, SHORT.beta, x)


@pytest.mark.parametrize("run", ["sample", "ddim"])
def test_steps_count_down_and_line_up_with_what_the_network_saw(run):
    seen = []

    def model(xt, t):
        assert t.dtype == torch.int64 and t.shape == (4,) and (t == t[0]).all()
        seen.append((int(t[0]), xt.clone()))
        return 0.3 * xt

    extra = {"steps": 10} if run == "ddim" else {}
    steps = list(getattr(sampling, run)(SHORT, model, (4, 2), generator=generator(), dtype=torch.float64, **extra))
    assert [step.t for step in steps] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert [t for t, _ in seen] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    for step, (_, xt) in zip(steps, seen, strict=False):
        assert torch.equal(step.x, xt)
        torch.testing.assert_close(step.x0_hat, gaussian.x0_from_eps(SHORT, xt, step.t, 0.3 * xt))
    assert torch.equal(steps[-1].x, steps[-1].x0_hat)
    torch.testing.assert_close(steps[-1].x, steps[-2].x0_hat, rtol=1e-10, atol=1e-12)  # the last step has no noise
    assert steps[0].x.dtype == torch.float64


def law_of_the_chain(s, var, m=0.3, var0=0.25):
    """Mean and variance of the sample for Gaussian data and the exact eps: an affine map pushed through t = T..1."""
    mean, v = 0.0, 1.0
    for t in range(s.T, 0, -1):
        beta, abar = s.beta[t].item(), s.alpha_bar[t].item()
        vt = abar * var0 + 1 - abar
        k = (1 - beta / vt) / math.sqrt(1 - beta)
        d = beta * math.sqrt(abar) * m / (vt * math.sqrt(1 - beta))
        mean, v = k * mean + d, k * k * v + (var[t].item() if t > 1 else 0.0)
    return mean, v


@pytest.mark.parametrize("kind", ["beta", "beta_tilde", "zero"])
def test_ancestral_sampler_has_its_exact_law_on_gaussian_data(kind):
    s = schedules.linear(25, 0.004, 0.4)
    var = {"beta": s.beta, "beta_tilde": sampling.beta_tilde(s), "zero": torch.zeros_like(s.beta)}
    n = 50_000
    *_, last = sampling.sample(s, oracle(GAUSS, s), (n, 1), generator=generator(), var=var[kind], dtype=torch.float64)
    x = last.x.flatten()
    mean, v = law_of_the_chain(s, var[kind])
    assert abs(x.mean().item() - mean) < 4 * math.sqrt(v / n)
    assert abs(x.var().item() - v) < 4 * v * math.sqrt(2 / n)
    for other in var:  # the three laws are told apart: the test has power
        if other != kind:
            assert abs(x.var().item() - law_of_the_chain(s, var[other])[1]) > 8 * v * math.sqrt(2 / n)


def test_default_variance_is_beta():
    s = schedules.linear(5, 0.1, 0.5)
    runs = [
        [step.x for step in sampling.sample(s, oracle(GAUSS, s), (8, 1), generator=generator(), var=var)]
        for var in (None, s.beta)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_mixture_weights_and_means_come_back():
    s = schedules.linear(200, 5e-4, 0.1)
    n = 20_000
    *_, last = sampling.sample(s, oracle(LINE, s), (n, 1), generator=generator(), dtype=torch.float64)
    x = last.x.flatten()
    light = x < -0.3
    assert abs(light.double().mean().item() - 0.3) < 4 * math.sqrt(0.21 / n)
    assert x[light].mean().item() == pytest.approx(-1.0, abs=0.02)
    assert x[~light].mean().item() == pytest.approx(0.8, abs=0.02)
    assert x[~light].std().item() == pytest.approx(0.3, abs=0.015)


def test_clip_bounds_the_prediction_and_changes_the_mean():
    def wild(xt, t):
        return -3 * torch.ones_like(xt)

    clipped = list(sampling.sample(SHORT, wild, (4, 2), generator=generator(), clip_x0=True))
    free = list(sampling.sample(SHORT, wild, (4, 2), generator=generator()))
    assert all(step.x0_hat.abs().max() <= 1 for step in clipped[:-1])
    assert any(step.x0_hat.abs().max() > 1 for step in free[:-1])
    g = generator()
    x = torch.randn(4, 2, generator=g)
    assert torch.equal(x, clipped[0].x)
    z = torch.randn(4, 2, generator=g)
    want = sampling.p_step(SHORT, x, 10, clipped[0].x0_hat, SHORT.beta, z)
    assert torch.equal(clipped[1].x, want)
    assert (clipped[-1].x.abs() <= 1).all()


def test_ddim_at_eta_1_is_the_ancestral_step_with_beta_tilde():
    s = SHORT
    ancestral = sampling.sample(
        s, oracle(LINE, s), (50, 1), generator=generator(), var=sampling.beta_tilde(s), dtype=torch.float64
    )
    other = sampling.ddim(s, oracle(LINE, s), (50, 1), steps=10, eta=1.0, generator=generator(), dtype=torch.float64)
    for a, b in zip(ancestral, other, strict=True):
        assert a.t == b.t
        torch.testing.assert_close(a.x, b.x, rtol=1e-9, atol=1e-11)


def test_ddim_at_eta_0_is_a_function_of_x_T():
    """eps = 0.1 x on the even grid of five jumps, beside the recursion in numpy."""
    start = torch.randn(6, 1, generator=generator(), dtype=torch.float64).numpy()
    steps = list(
        sampling.ddim(SHORT, lambda x, t: 0.1 * x, (6, 1), steps=5, generator=generator(), dtype=torch.float64)
    )
    x = start
    for t, r in [(10, 8), (8, 6), (6, 4), (4, 2), (2, 0)]:
        a, b = SHORT.alpha_bar[t].item(), SHORT.alpha_bar[r].item()
        e = 0.1 * x
        x = math.sqrt(b) * (x - math.sqrt(1 - a) * e) / math.sqrt(a) + math.sqrt(1 - b) * e
    np.testing.assert_allclose(steps[-1].x, x, rtol=1e-10)
    assert [step.t for step in steps] == [10, 8, 6, 4, 2, 0]


def test_ddim_with_intermediate_eta_has_the_stated_variance():
    """The jump from t = 2 to r = 1 with eps_hat = 0: what is not the mean has variance eta^2 beta_tilde."""
    s, n, eta = schedules.Schedule.from_betas([0.3, 0.4]), 200_000, 0.5
    states = list(sampling.ddim(s, lambda x, t: torch.zeros_like(x), (n, 1), steps=2, eta=eta, generator=generator()))
    a, b = s.alpha_bar[2].item(), s.alpha_bar[1].item()
    want = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
    noise = states[1].x - math.sqrt(b / a) * states[0].x
    assert abs(noise.var().item() - want) < 4 * want * math.sqrt(2 / n)
    assert abs(noise.var().item() - want / eta) > 8 * want * math.sqrt(2 / n)


@pytest.mark.parametrize(
    "T, steps, grid",
    [
        (10, 5, [10, 8, 6, 4, 2]),
        (10, 3, [10, 7, 3]),
        (10, 1, [10]),
        (4, 4, [4, 3, 2, 1]),
        (1000, 4, [1000, 750, 500, 250]),
    ],
)
def test_even_grid(T, steps, grid):
    assert sampling.even_grid(T, steps) == grid


@pytest.mark.parametrize("steps", [0, 11, -1, 2.0, True])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="steps: expected a whole number from 1 to T = 10"):
        next(sampling.ddim(SHORT, lambda x, t: x, (1, 1), steps=steps, generator=generator()))


def test_bad_eta_and_bad_models():
    with pytest.raises(ValueError, match="eta: expected a number from 0 to 1, got 1.5"):
        next(sampling.ddim(SHORT, lambda x, t: x, (1, 1), steps=2, eta=1.5, generator=generator()))
    with pytest.raises(ValueError, match="eps_model: expected an output of shape"):
        next(sampling.sample(SHORT, lambda x, t: x[:, :1], (2, 3), generator=generator()))


def test_sampling_leaves_no_graph():
    weight = torch.ones(1, requires_grad=True)
    for step in sampling.sample(SHORT, lambda x, t: weight * x, (2, 1), generator=generator()):
        assert not step.x.requires_grad and not step.x0_hat.requires_grad


def test_p_step_keeps_float32_and_looks_at_every_variance_that_it_uses():
    x, t = randn(3, 2).float(), torch.tensor([1, 2, 10])
    assert sampling.p_step(SHORT, x, t, x, SHORT.beta, x).dtype == torch.float32
    var = SHORT.beta.clone()
    var[0] = math.nan  # there is no step 0
    assert sampling.p_step(SHORT, x, t, x, var, x).isfinite().all()
    var[3] = math.nan
    for bad in (var, SHORT.beta[1:]):
        with pytest.raises(ValueError, match="var: expected a table of T \\+ 1 = 11"):
            sampling.p_step(SHORT, x, 3, x, bad, x)


RUNS = [("sample", {}), ("ddim", {"steps": 5}), ("ddim", {"steps": 5, "eta": 1.0})]


@pytest.mark.parametrize("run, extra", RUNS)
def test_no_sampler_leaves_a_graph_and_the_default_is_float32(run, extra):
    weight = torch.ones(1, requires_grad=True)
    steps = list(getattr(sampling, run)(SHORT, lambda x, t: weight * x, (2, 1), generator=generator(), **extra))
    for step in steps:
        assert not step.x.requires_grad and not step.x0_hat.requires_grad
        assert step.x.dtype == step.x0_hat.dtype == torch.float32


@pytest.mark.parametrize("run, extra", RUNS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_clip_holds_both_bounds_in_both_samplers(run, extra, sign):
    args = (SHORT, lambda xt, t: sign * 9 * torch.ones_like(xt), (4, 2))
    clipped = list(getattr(sampling, run)(*args, generator=generator(), clip_x0=True, **extra))
    free = list(getattr(sampling, run)(*args, generator=generator(), **extra))
    assert (clipped[0].x0_hat == -sign).all() and (free[0].x0_hat * -sign > 1).all()
    assert all(step.x0_hat.abs().max() <= 1 for step in clipped)


def test_ddim_uses_the_noise_that_belongs_to_the_clipped_prediction():
    steps = list(
        sampling.ddim(SHORT, lambda x, t: 9 * torch.ones_like(x), (4, 2), steps=5, generator=generator(), clip_x0=True)
    )
    for now, then in itertools.pairwise(steps):
        a, b = SHORT.alpha_bar[now.t].item(), SHORT.alpha_bar[then.t].item()
        eps_hat = (now.x - math.sqrt(a) * now.x0_hat) / math.sqrt(1 - a)
        torch.testing.assert_close(then.x, math.sqrt(b) * now.x0_hat + math.sqrt(1 - b) * eps_hat, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [-0.5, math.nan])
def test_more_bad_eta(eta):
    with pytest.raises(ValueError, match="eta: expected a number from 0 to 1"):
        next(sampling.ddim(SHORT, lambda x, t: x, (1, 1), steps=2, eta=eta, generator=generator()))


# -- one step at a time: what the moments of the last sample do not show -----------------------------------------------

LARGE = schedules.Schedule.from_betas([0.1, 0.3, 0.5, 0.8])
EVERY_T = [(t, beta) for t, beta in enumerate([0.1, 0.3, 0.5, 0.8], 1)]


def within(x, want, wrong):
    """The mean of x is ``want`` to 4 standard errors, and every wrong value is 8 away."""
    error = x.std().item() / math.sqrt(len(x))
    assert abs(x.mean().item() - want) < 4 * error
    assert all(abs(x.mean().item() - other) > 8 * error for other in wrong)


def noises(n=20_000, c=0.5):
    """t -> the noise that `sample` added on the way from t to t - 1, where the network says eps = c x_t."""
    steps = list(sampling.sample(LARGE, lambda x, t: c * x, (n, 1), generator=generator(), dtype=torch.float64))
    found, abar = {}, 1.0
    for t, beta in EVERY_T:
        abar *= 1 - beta
        mean = (1 - beta / math.sqrt(1 - abar) * c) / math.sqrt(1 - beta) * steps[-t - 1].x
        found[t] = (steps[-t].x - mean).flatten()
    return found


def test_each_step_of_the_sampler_has_its_own_variance_and_the_last_has_none():
    found = noises()
    assert found[1].abs().max() < 1e-12
    for (t, beta), (_, below) in zip(EVERY_T[1:], EVERY_T, strict=False):
        within(found[t], 0.0, [math.sqrt(beta)])
        within(found[t] ** 2, beta, [below, beta**2, math.sqrt(beta)])


def test_the_noises_of_two_steps_and_of_two_examples_are_independent():
    found = noises()
    for a, b in ((4, 3), (4, 2), (3, 2)):
        within(found[a] * found[b], 0.0, [math.sqrt(LARGE.beta[a] * LARGE.beta[b])])
    for t in (4, 3, 2):
        within(found[t][::2] * found[t][1::2], 0.0, [LARGE.beta[t]])


def test_neighbours_in_the_sampler_have_their_joint_law():
    """With the exact eps of normal data the pair (x_t, x_{t-1}) has a covariance that an affine map gives."""
    m, var0, n = 0.3, 0.25, 20_000
    data = Mixture([1.0], [[m]], [[[var0]]])
    steps = list(sampling.sample(LARGE, oracle(data, LARGE), (n, 1), generator=generator(), dtype=torch.float64))
    mean, v = 0.0, 1.0
    for now, then in itertools.pairwise(steps):
        beta, abar = LARGE.beta[now.t].item(), LARGE.alpha_bar[now.t].item()
        vt = abar * var0 + 1 - abar
        k = (1 - beta / vt) / math.sqrt(1 - beta)
        x, y = now.x.flatten() - mean, then.x.flatten()
        mean = k * mean + beta * math.sqrt(abar) * m / (vt * math.sqrt(1 - beta))
        within(x * (y - mean), k * v, [v, 0.0] if abs(k) > 0.1 else [v])
        v = k * k * v + (beta if now.t > 1 else 0.0)
        within((y - mean) ** 2, v, [v + beta] if now.t == 1 else [v - beta])


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_ddim_jump_over_several_steps_has_the_stated_mean_and_variance(eta):
    """From t = 4 to 2, where eps_hat = 1: between neighbours beta_t in the variance would do as well."""
    n, a, b = 50_000, LARGE.alpha_bar[4].item(), LARGE.alpha_bar[2].item()
    first, second, _ = sampling.ddim(
        LARGE, lambda x, t: torch.ones_like(x), (n, 1), steps=2, eta=eta, generator=generator(), dtype=torch.float64
    )
    assert (first.t, second.t) == (4, 2)
    var = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
    rest = (second.x - math.sqrt(b / a) * (first.x - math.sqrt(1 - a))).flatten()
    mean = math.sqrt(1 - b - var)
    within(rest, mean, [math.sqrt(1 - b)])
    by_beta = eta**2 * (1 - b) / (1 - a) * LARGE.beta[4].item()
    within((rest - mean) ** 2, var, [by_beta, sampling.beta_tilde(LARGE)[4].item() * eta**2, 0.0])
    within((rest - mean)[::2] * (rest - mean)[1::2], 0.0, [var])  # no two examples share their noise


def test_the_noises_of_two_ddim_jumps_are_independent():
    steps = list(sampling.ddim(LARGE, lambda x, t: 0 * x, (20_000, 1), steps=4, eta=1.0, generator=generator()))
    rest = []
    for now, then in itertools.pairwise(steps[:-1]):
        a, b = LARGE.alpha_bar[now.t].item(), LARGE.alpha_bar[then.t].item()
        rest.append((then.x - math.sqrt(b / a) * now.x).flatten().double())
    for first, second in itertools.combinations(rest, 2):
        within(first * second, 0.0, [(first.std() * second.std()).item()])


@pytest.mark.parametrize("run, extra", [("sample", {}), ("ddim", {"steps": 4, "eta": 1.0})])
def test_start_and_noise_are_standard_normal_for_each_coordinate_by_itself(run, extra):
    """Where the network says eps = 0; the share beyond sqrt(3) tells normal noise from uniform noise."""
    steps = list(getattr(sampling, run)(LARGE, lambda x, t: 0 * x, (10_000, 2), generator=generator(), **extra))
    found = [steps[0].x.double()]
    for now, then in itertools.pairwise(steps[:-1]):
        a, b = LARGE.alpha_bar[now.t].item(), LARGE.alpha_bar[then.t].item()
        std = math.sqrt(1 - a / b) if run == "sample" else math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        found.append((then.x.double() - math.sqrt(b / a) * now.x.double()) / std)
    for z in found:
        within(z[:, 0] * z[:, 1], 0.0, [1.0])
        within(z.flatten() ** 2, 1.0, [0.8, 1.2])
        within((z.flatten().abs() > math.sqrt(3)).double(), math.erfc(math.sqrt(1.5)), [0.0])


@pytest.mark.parametrize("run, extra", RUNS)
def test_the_clip_bounds_each_value_by_itself_also_at_t_1(run, extra):
    """A prediction of which one coordinate alone is out of range: that one is cut, the other is left as it is."""

    def model(xt, t):
        x0_hat = torch.tensor([0.4, 3.0]).expand_as(xt)
        return gaussian.eps_from_x0(SHORT, xt, t, x0_hat)

    *steps, last = getattr(sampling, run)(SHORT, model, (3, 2), generator=generator(), clip_x0=True, **extra)
    want = torch.tensor([0.4, 1.0]).expand(3, 2)
    for step in steps:
        torch.testing.assert_close(step.x0_hat, want, rtol=0, atol=2e-3)
    torch.testing.assert_close(last.x, want, rtol=0, atol=2e-3)


@pytest.mark.parametrize("run, extra", RUNS)
def test_the_clip_changes_nothing_where_nothing_is_out_of_range(run, extra):
    def model(xt, t):
        return gaussian.eps_from_x0(SHORT, xt, t, 0.9 * torch.tanh(xt))

    one, other = (
        list(
            getattr(sampling, run)(
                SHORT, model, (4, 2), generator=generator(), clip_x0=clip, dtype=torch.float64, **extra
            )
        )
        for clip in (True, False)
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=0)
