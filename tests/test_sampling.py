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


# -- a given start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run, extra", RUNS)
def test_a_run_from_the_start_of_another_with_its_seed_is_that_run(run, extra):
    """xT stands for the first draw and for nothing else: the noise of the steps stays what it was."""

    def steps(**start):
        args = (SHORT, lambda x, t: 0.3 * x, (4, 2))
        return list(getattr(sampling, run)(*args, generator=generator(), dtype=torch.float64, **extra, **start))

    free = steps()
    again, other = steps(xT=free[0].x), steps(xT=free[0].x + 1)
    assert all(torch.equal(a.x, b.x) for a, b in zip(free, again, strict=True))
    assert torch.equal(other[0].x, free[0].x + 1) and not torch.equal(other[-1].x, free[-1].x)


@pytest.mark.parametrize("run, extra", RUNS)
def test_a_given_start_is_cast_and_left_alone(run, extra):
    start = randn(4, 2).requires_grad_()
    copy = start.detach().clone()
    steps = list(getattr(sampling, run)(SHORT, lambda x, t: x, (4, 2), generator=generator(), xT=start, **extra))
    assert steps[0].x.dtype == torch.float32 and torch.equal(steps[0].x, copy.float())
    assert torch.equal(start, copy) and not any(step.x.requires_grad for step in steps)


@pytest.mark.parametrize("run, extra", RUNS)
@pytest.mark.parametrize(
    "bad, got", [(torch.zeros(4, 1), r"torch.float32 of shape \(4, 1\)"), (torch.zeros(4, 2).long(), "torch.int64")]
)
def test_a_bad_start(run, extra, bad, got):
    with pytest.raises(ValueError, match=rf"xT: expected floating-point data of shape \(4, 2\), got {got}"):
        next(getattr(sampling, run)(SHORT, lambda x, t: x, (4, 2), generator=generator(), xT=bad, **extra))


# -- the best variance -------------------------------------------------------------------------------------------------


def eps_mse_of_normal_data(s, var0):
    """E(eps - E[eps | x_t])^2 for data of variance var0: 1 - (1 - alpha_bar) / v, the normal rule, over one bar."""
    return s.alpha_bar * var0 / (s.alpha_bar * var0 + 1 - s.alpha_bar)


@pytest.mark.parametrize("var0", [1e-6, 0.25, 1.0, 4.0])
def test_the_best_variance_of_normal_data_is_that_of_the_true_reverse_step(var0):
    """q(x_{t-1} | x_t) = beta_t v_{t-1} / v_t, by Bayes' rule for two normal variables, v_t the variance of x_t."""
    got = sampling.optimal_var(SHORT, eps_mse_of_normal_data(SHORT, var0))
    assert got.dtype == torch.float64 and got.shape == SHORT.beta.shape and got[0] == 0
    v = SHORT.alpha_bar * var0 + 1 - SHORT.alpha_bar
    torch.testing.assert_close(got[1:], (SHORT.beta[1:] * v[:-1] / v[1:]), rtol=1e-10, atol=0)


def test_the_best_variance_of_a_mixture_is_the_mean_variance_of_its_reverse_kernel():
    """By quadrature over x_t with `Mixture.reverse`, at each t."""
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    mse, want = torch.zeros_like(SHORT.beta), torch.zeros_like(SHORT.beta)
    for t in range(1, 11):
        p = LINE.log_prob(SHORT, x, t).exp() * 18 / 4000
        abar = SHORT.alpha_bar[t]
        mse[t] = (p * abar / (1 - abar) * LINE.x0_cov(SHORT, x, t)[:, 0, 0]).sum()
        weights, means, covs = LINE.reverse(SHORT, x, t)
        means, second = means[..., 0], (covs[..., 0, 0] + means[..., 0] ** 2)
        want[t] = (p * ((weights * second).sum(1) - (weights * means).sum(1) ** 2)).sum()
    torch.testing.assert_close(sampling.optimal_var(SHORT, mse), want, rtol=1e-9, atol=0)


def test_the_best_variance_lies_between_its_two_ends():
    ones = torch.ones_like(SHORT.beta)
    torch.testing.assert_close(sampling.optimal_var(SHORT, 0 * ones), sampling.beta_tilde(SHORT), rtol=0, atol=0)
    high = sampling.optimal_var(SHORT, ones.float())  # a float32 table is read in float64
    assert high.dtype == torch.float64
    torch.testing.assert_close(high[1:], SHORT.beta[1:] / SHORT.alpha[1:], rtol=1e-12, atol=0)
    ones[0] = math.nan  # there is no step 0
    torch.testing.assert_close(sampling.optimal_var(SHORT, ones), high, rtol=0, atol=0)
    s = schedules.linear()
    assert (sampling.optimal_var(s, torch.zeros_like(s.beta)) == sampling.beta_tilde(s)).all()  # and no table changes


def test_bad_tables_of_errors():
    for bad in (SHORT.beta[1:], torch.tensor(0.5)):
        with pytest.raises(ValueError, match=r"eps_mse: expected a table of T \+ 1 = 11 numbers, got shape"):
            sampling.optimal_var(SHORT, bad)
    for wrong in (-0.25, math.nan):
        table = torch.ones_like(SHORT.beta)
        table[3] = wrong
        with pytest.raises(ValueError, match=rf"eps_mse: expected numbers >= 0, got a minimum of {wrong:g}"):
            sampling.optimal_var(SHORT, table)


def test_the_best_variance_gives_normal_data_back_where_the_others_do_not():
    """Started from the exact law of x_T the chain ends with the variance of the data, at t = 1 short of its noise."""
    s, var0 = SHORT, 0.25
    v = s.alpha_bar * var0 + 1 - s.alpha_bar
    ends = {}
    tables = {
        "optimal": sampling.optimal_var(s, eps_mse_of_normal_data(s, var0)),
        "beta": s.beta,
        "tilde": sampling.beta_tilde(s),
    }
    for name, var in tables.items():
        end = v[10]
        for t in range(10, 1, -1):
            k = (1 - s.beta[t] / v[t]) / s.alpha[t].sqrt()
            end = k**2 * end + var[t]
        ends[name] = end.item()
    assert ends["optimal"] == pytest.approx(v[1].item(), rel=1e-12)
    assert abs(ends["beta"] - v[1].item()) > 0.005 and abs(ends["tilde"] - v[1].item()) > 0.005


# -- Langevin ----------------------------------------------------------------------------------------------------------


def langevin(score, x, **changes):
    arguments = {"step_size": 0.1, "steps": 3, "generator": generator()} | changes
    return list(sampling.langevin(score, x, **arguments))


def test_langevin_without_noise_climbs_to_the_mode():
    start = randn(5, 2)
    for k, x in enumerate(langevin(lambda x: -(x - 3) / 4, start, temperature=0.0, steps=5), 1):
        torch.testing.assert_close(x, 3 + (start - 3) * (1 - 0.1 / 4) ** k, rtol=1e-12, atol=1e-12)


def test_langevin_adds_fresh_noise_of_variance_2_step_size_temperature():
    n, h, temperature = 20_000, 0.1, 3.0
    start = torch.zeros(n, 2, dtype=torch.float64)
    steps = langevin(lambda x: torch.zeros_like(x), start, step_size=h, temperature=temperature, steps=2)
    first, second = steps[0], steps[1] - steps[0]
    want = 2 * h * temperature
    for z in (first, second):
        within(z.flatten(), 0.0, [math.sqrt(want)])
        within(z.flatten() ** 2, want, [h * temperature, want / 2, 2 * h, (2 * h) ** 2 * temperature, want**2])
        within(z[:, 0] * z[:, 1], 0.0, [want])
        within(z[::2, 0] * z[1::2, 0], 0.0, [want])
        within((z.flatten().abs() > math.sqrt(3 * want)).double(), math.erfc(math.sqrt(1.5)), [0.0])
    within((first * second).flatten(), 0.0, [want])


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_langevin_ends_in_the_law_of_the_chain_near_p_to_the_one_over_temperature(temperature):
    """For N(1, v) the chain is an AR(1): its variance is T v / (1 - h / (2 v)), the bias that the step size leaves."""
    n, h, v = 40_000, 0.05, 0.5
    start = 1 + math.sqrt(temperature * v) * torch.randn(n, 1, generator=generator(3), dtype=torch.float64)
    *_, x = langevin(lambda x: -(x - 1) / v, start, step_size=h, steps=100, temperature=temperature)
    want = temperature * v / (1 - h / (2 * v))
    within(x.flatten(), 1.0, [0.0, 1 + math.sqrt(want)])
    within((x.flatten() - 1) ** 2, want, [temperature**2 * v, want / 2] if temperature != 1 else [want / 2, v * 1.15])


def test_langevin_yields_after_each_step_and_keeps_dtype_shape_and_start():
    start = randn(3, 2, 2).float().requires_grad_()
    copy = start.detach().clone()

    def score(x):
        """By autograd, as a reader might have it."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(-(leaf**2).sum() / 2, leaf)
        return gradient

    assert len(langevin(score, start, steps=1)) == 1
    steps = langevin(score, start, steps=4)
    assert len(steps) == 4
    assert all(x.dtype == torch.float32 and x.shape == start.shape and not x.requires_grad for x in steps)
    assert torch.equal(start, copy) and len({x.data_ptr() for x in steps}) == 4
    z = torch.randn(copy.shape, generator=generator())
    torch.testing.assert_close(steps[0], 0.9 * copy + math.sqrt(0.2) * z)


def test_langevin_starts_at_x_and_uses_its_noise_in_order():
    first, second = langevin(lambda x: 0 * x, torch.ones(4, 1), steps=2)
    g = generator()
    torch.testing.assert_close(first, 1 + math.sqrt(0.2) * torch.randn(4, 1, generator=g))
    torch.testing.assert_close(second, first + math.sqrt(0.2) * torch.randn(4, 1, generator=g))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"step_size": 0.0}, "step_size: expected a number > 0, got 0.0"),
        ({"step_size": -1.0}, "step_size: expected a number > 0, got -1.0"),
        ({"step_size": math.nan}, "step_size: expected a number > 0, got nan"),
        ({"step_size": math.inf}, "step_size: expected a number > 0, got inf"),
        ({"steps": 0}, "steps: expected a whole number >= 1, got 0"),
        ({"steps": 2.0}, "steps: expected a whole number >= 1, got 2.0"),
        ({"steps": True}, "steps: expected a whole number >= 1, got True"),
        ({"temperature": -0.5}, "temperature: expected a number >= 0, got -0.5"),
        ({"temperature": math.nan}, "temperature: expected a number >= 0, got nan"),
    ],
)
def test_bad_langevin(change, message):
    with pytest.raises(ValueError, match=message):
        langevin(lambda x: -x, torch.ones(2, 1), **change)


def test_langevin_refuses_a_score_of_another_shape():
    with pytest.raises(ValueError, match=r"score: expected an output of shape \(2, 3\), got \(2,\)"):
        langevin(lambda x: x.sum(1), torch.ones(2, 3))


@pytest.mark.parametrize("clip_x0", [False, True])
@pytest.mark.parametrize("s", [SHORT, schedules.cosine(50), schedules.linear(1000)], ids=["short", "cosine", "linear"])
def test_a_chain_is_its_single_steps_bit_for_bit(s, clip_x0):
    """Coefficients that are formed for all t at once round as those of one t do, in float32."""

    def model(x, t):
        return 0.6 * x + 0.1 * t[:, None] / s.T

    var = sampling.beta_tilde(s)
    steps = sampling.sample(s, model, (3, 4), generator=generator(), var=var, clip_x0=clip_x0)
    noise = generator()
    x = torch.randn(3, 4, generator=noise)
    for t in range(s.T, 0, -1):
        step = next(steps)
        x0_hat = gaussian.x0_from_eps(s, x, t, model(x, torch.full((3,), t)))
        x0_hat = x0_hat.clamp(-1, 1) if clip_x0 else x0_hat
        assert step.t == t and torch.equal(step.x, x) and torch.equal(step.x0_hat, x0_hat)
        x = sampling.p_step(s, x, t, x0_hat, var, torch.randn(3, 4, generator=noise))
    assert torch.equal(next(steps).x, x)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_ddim_chain_is_its_single_jumps_bit_for_bit(eta):
    s, noise = schedules.cosine(40), generator()
    steps = sampling.ddim(s, lambda x, t: 0.6 * x, (3, 4), steps=7, eta=eta, generator=generator(), clip_x0=True)
    x, times = torch.randn(3, 4, generator=noise), sampling.even_grid(40, 7)
    for t, r in zip(times, [*times[1:], 0], strict=True):
        step = next(steps)
        x0_hat = gaussian.x0_from_eps(s, x, t, 0.6 * x).clamp(-1, 1)
        assert step.t == t and torch.equal(step.x, x) and torch.equal(step.x0_hat, x0_hat)
        var = eta**2 * (1 - s.alpha_bar[r]) / (1 - s.alpha_bar[t]) * (1 - s.alpha_bar[t] / s.alpha_bar[r])
        on_eps = (1 - s.alpha_bar[r] - var).clamp(min=0).sqrt()
        eps_hat, z = gaussian.eps_from_x0(s, x, t, x0_hat), torch.randn(3, 4, generator=noise)
        x = s.alpha_bar[r].sqrt().float() * x0_hat + on_eps.float() * eps_hat + var.sqrt().float() * z
    assert torch.equal(next(steps).x, x)
