"""The checks of the gallery: most compare one piece of the package with a second route that shares no code with it.

The routes: formulas written out by hand, Bayes' rule on a grid, quadrature, sums of Gaussians, and seeded draws that
are shown to reject named wrong answers. Some ask for a property instead: the same picture whatever the noise, an output
that depends on t. The chain is short with large steps, since on a long one with small steps a slip of one step moves
every number too little to be seen. `CHECKS` maps a name to the function that runs the check.
"""

import contextlib
import io
import itertools
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_edu import checks, data, elbo, evaluate, flow, gaussian, guidance, mlp, sampling, schedules, training, unet
from ddpm_edu.bugs import learner
from ddpm_edu.checks import CheckFailed, Result, check_close, check_mean
from ddpm_edu.exact import Mixture
from ddpm_edu.schedules import Schedule

Check = Callable[[str], None]
CHECKS: dict[str, Check] = {}


def examine(names: Iterable[str] | None = None, show: bool = False) -> list[Result]:
    """Run checks, all by default; one that raises anything is red. With ``show`` their lines are printed."""
    _run.cache_clear()  # they ran the code of another moment
    _by_autograd.cache_clear()
    before, found = len(checks.results), []
    for name in CHECKS if names is None else names:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                CHECKS[name](name)
            except CheckFailed as error:
                found.append(Result(name, False, str(error)))
            except Exception as error:  # a bug may break the code that it stands in
                found.append(Result(name, False, f"FAIL {name:<46} did not run: {type(error).__name__}: {error}"))
            else:
                found.append(Result(name, True, checks.results[-1].line))
        if show:
            print(found[-1].line)
    del checks.results[before:]  # what was broken on purpose is no result of the session
    return found


def functions(name: str) -> list[str]:
    """The functions of the package that a check runs, in alphabetical order and named as in `Bug.where`."""
    found, package = set(), Path(checks.__file__).parent
    not_examined = {Path(__file__), Path(checks.__file__)}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path, inside = Path(frame.f_code.co_filename), frame.f_code.co_qualname
        if event == "call" and package in path.parents and path not in not_examined and "<" not in inside:
            found.add(f"{path.stem}.{inside}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        examine([name])
    finally:
        sys.setprofile(before)
    return sorted(found)


def _check(name: str) -> Callable[[Check], Check]:
    def register(run: Check) -> Check:
        CHECKS[name] = run
        return run

    return register


# A chain of ten steps, written down by hand. Index 0 is clean data.
T = 10
BETA = [0.0, 0.02, 0.07, 0.12, 0.16, 0.2, 0.27, 0.33, 0.4, 0.5, 0.6]
ALPHA = [1 - beta for beta in BETA]
ABAR = [math.prod(ALPHA[: t + 1]) for t in range(T + 1)]
TIMES = range(1, T + 1)
S = Schedule.from_betas(BETA[1:])
NO_NOISE = torch.zeros(6, 2, dtype=torch.float64)


def _posterior(t: int) -> tuple[float, float, float]:
    """Factors on x_0 and x_t and the variance of q(x_{t-1} | x_t, x_0): for Gaussians the precisions add."""
    if t == 1:
        return 1.0, 0.0, 0.0
    from_step, from_start = ALPHA[t] / BETA[t], 1 / (1 - ABAR[t - 1])
    var = 1 / (from_step + from_start)
    return var * math.sqrt(ABAR[t - 1]) * from_start, var * math.sqrt(ALPHA[t]) / BETA[t], var


def _log_normal(x: Tensor, mean: float, var: float) -> Tensor:
    return -0.5 * ((x - mean) ** 2 / var + math.log(2 * math.pi * var))


def _float64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check_noise(name: str, z: Tensor) -> None:
    """``z`` (times, examples, pixels) is standard normal, each number drawn by itself."""
    for axis, what in ((1, "example"), (2, "pixel"), (0, "time")):
        one, pairs = (z - z.mean()).transpose(0, axis), z.shape[axis] // 2
        if pairs:
            products = one[0 : 2 * pairs : 2] * one[1 : 2 * pairs : 2]
            check_mean(name, products.flatten(), 0.0, {f"one noise for every {what}": 1.0})
    check_mean(name, z.flatten(), 0.0, {"between 0 and 1": 0.5})
    check_mean(name, z.flatten() ** 2, 1.0, {"half as large": 0.25, "a fifth too large": 1.44})
    beyond = (z.flatten().abs() > math.sqrt(3)).double()
    check_mean(name, beyond, math.erfc(math.sqrt(1.5)), {"uniform, of the same variance": 0.0})


def _check_times(name: str, seen: list[float]) -> None:
    """Each t from T to 1 once, in this order; where the first comparison fails, its index is the t."""
    check_close(name, [seen.count(t) for t in range(T + 2)], [0, *[1] * T, 0])
    check_close(name, seen, [float(t) for t in reversed(TIMES)])


def _ones(x: Tensor, t: Tensor) -> Tensor:
    return torch.ones_like(x)


# -- schedules ---------------------------------------------------------------------------------------------------------


@_check("linear schedule: betas evenly spaced")
def _(name: str) -> None:
    check_close(name, schedules.linear(5, 0.1, 0.3).beta, [0, 0.1, 0.15, 0.2, 0.25, 0.3])


@_check("scaled linear: roots of beta evenly spaced")
def _(name: str) -> None:
    check_close(name, schedules.scaled_linear(3, 0.01, 0.25).beta, [0, 0.01, 0.09, 0.25])


@_check("cosine: alpha_bar follows its formula")
def _(name: str) -> None:
    f = [math.cos((t / 20 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(20)]
    check_close(name, schedules.cosine(20).alpha_bar[:20], [f_t / f[0] for f_t in f])


@_check("cosine: the last beta is 0.999")
def _(name: str) -> None:
    check_close(name, schedules.cosine(20).beta[-1], 0.999)


@_check("alpha_bar: product of the alphas from 1 on")
def _(name: str) -> None:
    check_close(name, learner.alpha_bar_table(BETA[1:]), ABAR)
    check_close(name, Schedule.from_betas(BETA[1:]).alpha_bar, ABAR)


@_check("SNR: ratio of the two variances")
def _(name: str) -> None:
    check_close(name, S.snr[1:], [ABAR[t] / (1 - ABAR[t]) for t in TIMES])


@_check("a batch of times: each gets its own t")
def _(name: str) -> None:
    got = gaussian.q_sample(
        S, torch.ones(T, 1, dtype=torch.float64), torch.tensor(TIMES), NO_NOISE[:1, :1].expand(T, 1)
    )
    check_close(name, got.flatten(), [math.sqrt(ABAR[t]) for t in TIMES])


# -- the forward process and its posterior -----------------------------------------------------------------------------


@_check("one forward step: both factors at every t")
def _(name: str) -> None:
    one, zero = _float64([1.0]), _float64([0.0])
    got = [[gaussian.q_step(S, one, t, zero).item(), gaussian.q_step(S, zero, t, one).item()] for t in TIMES]
    check_close(name, got, [[math.sqrt(ALPHA[t]), math.sqrt(BETA[t])] for t in TIMES])


@_check("two forward steps: variance of x_2")
def _(name: str) -> None:
    x2 = learner.two_steps(torch.full((20_000,), 2.0, dtype=torch.float64), 0.36, 0.19, _generator())
    want, shared = 0.81 * 0.36 + 0.19, (0.9 * 0.6 + math.sqrt(0.19)) ** 2
    check_mean(name, (x2 - 2 * 0.9 * 0.8) ** 2, want, {"one noise for both steps": shared, "step 2 alone": 0.19})


@_check("jump to x_t: law of t single steps")
def _(name: str) -> None:
    one, zero, got, want = _float64([1.0]), _float64([0.0]), [], []
    mean, var = 1.0, 0.0
    for t in TIMES:
        mean, var = math.sqrt(1 - BETA[t]) * mean, (1 - BETA[t]) * var + BETA[t]
        want.append([mean, var, mean, math.sqrt(var)])
        factors = gaussian.q_sample(S, one, t, zero), gaussian.q_sample(S, zero, t, one)
        got.append([x.item() for x in (*gaussian.q_mean_var(S, one, t), *factors)])
    check_close(name, got, want)


@_check("film of the chain: its frames differ")
def _(name: str) -> None:
    film = learner.noising_film(_float64([1.0]), BETA[1:], _generator())
    noise = _generator()
    x, want = 1.0, []
    for t in TIMES:
        x = (
            math.sqrt(1 - BETA[t]) * x
            + math.sqrt(BETA[t]) * torch.randn(1, generator=noise, dtype=torch.float64).item()
        )
        want.append(x)
    check_close(name, torch.cat(film), want)


@_check("float32: 1 - alpha_bar keeps its digits")
def _(name: str) -> None:
    _, var = gaussian.q_mean_var(schedules.linear(), torch.zeros(1), 1)
    check_close(name, var, 1e-4, tol=1e-6)


@_check("posterior: Bayes' rule at every t > 1")
def _(name: str) -> None:
    x0, xt, got, want = _float64([0.7]), _float64([-0.4]), [], []
    for t in TIMES[1:]:
        mean, var = gaussian.posterior_mean_var(S, x0, xt, t)
        on_x0, on_xt, v = _posterior(t)
        got.append([mean.item(), var.item()])
        want.append([on_x0 * 0.7 - on_xt * 0.4, v])
    check_close(name, got, want)


@_check("posterior at t = 1: the point x_0")
def _(name: str) -> None:
    mean, var = gaussian.posterior_mean_var(S, _float64([0.7]), _float64([-0.4]), 1)
    check_close(name, [mean.item(), var.item()], [0.7, 0.0], tol=1e-12)


@_check("neighbours: joint law of x_{t-1} and x_t")
def _(name: str) -> None:
    """Given x_0 = 1: forwards x_t is made from x_{t-1}, backwards x_{t-1} from x_t. Both ways one joint law."""
    one, zero, got, want = _float64([1.0]), _float64([0.0]), [], []
    for t in TIMES:
        on_x0, var = gaussian.posterior_mean_var(S, one, zero, t)
        on_xt, _ = gaussian.posterior_mean_var(S, zero, one, t)
        v_t = 1 - ABAR[t]
        got.append([(on_x0 + on_xt * math.sqrt(ABAR[t])).item(), (on_xt**2 * v_t + var).item(), (on_xt * v_t).item()])
        want.append([math.sqrt(ABAR[t - 1]), 1 - ABAR[t - 1], math.sqrt(ALPHA[t]) * (1 - ABAR[t - 1])])
    check_close(name, got, want)


@_check("Eq. 11: posterior mean at x0_hat, every t")
def _(name: str) -> None:
    got, want = [], []
    for t in TIMES:
        got.append(gaussian.mu_from_eps(S, _float64([0.3]), t, _float64([0.8])).item())
        x0_hat = (0.3 - math.sqrt(1 - ABAR[t]) * 0.8) / math.sqrt(ABAR[t])
        on_x0, on_xt, _ = _posterior(t)
        want.append(on_x0 * x0_hat + on_xt * 0.3)
    check_close(name, got, want)


@_check("x_0, eps and v: definitions at every t")
def _(name: str) -> None:
    x0, eps, got, want = 0.7, -1.2, [], []
    for t in TIMES:
        xt, e = _float64([math.sqrt(ABAR[t]) * x0 + math.sqrt(1 - ABAR[t]) * eps]), _float64([eps])
        v = math.sqrt(ABAR[t]) * eps - math.sqrt(1 - ABAR[t]) * x0
        got += [gaussian.x0_from_eps(S, xt, t, e), gaussian.eps_from_x0(S, xt, t, _float64([x0]))]
        got += [gaussian.v_from_eps(S, xt, t, e), gaussian.eps_from_v(S, xt, t, _float64([v]))]
        want += [x0, eps, v, eps]
    check_close(name, torch.cat(got), want)


@_check("score of q(x_t | x_0): gradient of log q")
def _(name: str) -> None:
    got, want = [], []
    for t in TIMES:
        xt = _float64([0.4]).requires_grad_()
        log_q = _log_normal(xt, math.sqrt(ABAR[t]) * 0.7, 1 - ABAR[t])
        want.append(torch.autograd.grad(log_q.sum(), xt)[0].item())
        eps = _float64([(0.4 - math.sqrt(ABAR[t]) * 0.7) / math.sqrt(1 - ABAR[t])])
        got.append(gaussian.score_from_eps(S, _float64([0.4]), t, eps).item())
    check_close(name, got, want)


@_check("Gaussian KL: quadrature, both directions")
def _(name: str) -> None:
    u = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    p, q = _log_normal(u, 0.3, 0.5), _log_normal(u, -0.6, 2.0)
    want = [((a.exp() * (a - b)).sum() * 28 / 20_000).item() for a, b in ((p, q), (q, p))]
    first, second = (_float64(0.3), _float64(0.5)), (_float64(-0.6), _float64(2.0))
    check_close(name, [gaussian.normal_kl(*first, *second), gaussian.normal_kl(*second, *first)], want)


@_check("normal density: integrates to 1")
def _(name: str) -> None:
    u = torch.linspace(-14, 14, 20_001, dtype=torch.float64)
    masses = [gaussian.normal_log_prob(u, _float64(0.4), _float64(v)).exp().sum() * 28 / 20_000 for v in (0.3, 1.7)]
    check_close(name, masses, [1.0, 1.0])


# -- mixtures ----------------------------------------------------------------------------------------------------------

WEIGHTS, MEANS, VARS = [0.3, 0.7], [-1.0, 0.8], [0.04, 0.09]
LINE = Mixture(WEIGHTS, [[m] for m in MEANS], [[[v]] for v in VARS])
GRID = torch.linspace(-9, 9, 6001, dtype=torch.float64)
POINTS = _float64([[-1.1], [-0.2], [0.5], [1.4]])


def _density(t: int, x: Tensor) -> Tensor:
    """q(x_t) of the mixture, written out."""
    total = torch.zeros_like(x)
    for w, m, v in zip(WEIGHTS, MEANS, VARS, strict=True):
        var = ABAR[t] * v + 1 - ABAR[t]
        total = total + w / math.sqrt(2 * math.pi * var) * (-((x - math.sqrt(ABAR[t]) * m) ** 2) / (2 * var)).exp()
    return total


def _score(t: int) -> Tensor:
    x = POINTS.clone().requires_grad_()
    return torch.autograd.grad(_density(t, x).log().sum(), x)[0]


def _bayes(t: int, r: int) -> Tensor:
    """q(x_r | x_t) for r < t on the grid, one row for each of POINTS, each with sum 1."""
    kept = ABAR[t] / ABAR[r]
    p = _density(r, GRID) * (-((POINTS - math.sqrt(kept) * GRID) ** 2) / (2 * (1 - kept))).exp()
    return p / p.sum(1, keepdim=True)


@_check("mixture: log q(x_t) written out")
def _(name: str) -> None:
    got = torch.stack([LINE.log_prob(S, POINTS, t) for t in (0, 1, 5, 10)])
    check_close(name, got, torch.stack([_density(t, POINTS[:, 0]).log() for t in (0, 1, 5, 10)]))


@_check("mixture: score is the gradient of log q")
def _(name: str) -> None:
    got, want = [], []
    for t in (1, 5, 10):
        want.append(_score(t))
        got.append(LINE.score(S, POINTS, t))
    check_close(name, torch.cat(got), torch.cat(want))


@_check("mixture: E and Var of x_0 given x_t by Bayes")
def _(name: str) -> None:
    got, want = [], []
    for t in (1, 3, 6, 10):
        p = _bayes(t, 0)
        mean = p @ GRID
        want += [mean, (p * (GRID - mean[:, None]) ** 2).sum(1)]
        got += [LINE.x0(S, POINTS, t)[:, 0], LINE.x0_cov(S, POINTS, t)[:, 0, 0]]
    check_close(name, torch.cat(got), torch.cat(want))


@_check("mixture: reverse kernel by Bayes, t = 1 to T")
def _(name: str) -> None:
    got, want = [], []
    for t in TIMES:
        p = _bayes(t, t - 1)
        mean = p @ GRID
        want += [mean, (p * (GRID - mean[:, None]) ** 2).sum(1)]
        w, means, covs = LINE.reverse(S, POINTS, t)
        mean = (w * means[..., 0]).sum(1)
        got += [mean, (w * (covs[..., 0, 0] + (means[..., 0] - mean[:, None]) ** 2)).sum(1)]
    check_close(name, torch.cat(got), torch.cat(want))


@_check("mixture: covariance of the samples")
def _(name: str) -> None:
    plane = Mixture([1.0], [[0.0, 0.0]], [[[0.5, 0.2], [0.2, 0.3]]])
    x = plane.sample(20_000, _generator())
    check_mean(name, x[:, 0] * x[:, 1], 0.2, {"covariance for its root": 0.5 * 0.2 + 0.2 * 0.3, "uncorrelated": 0.0})


@_check("score from x0_hat: gradient of log q")
def _(name: str) -> None:
    got = [learner.denoiser_score(S, POINTS, t, (_bayes(t, 0) @ GRID)[:, None]) for t in (1, 5, 10)]
    check_close(name, torch.cat(got), torch.cat([_score(t) for t in (1, 5, 10)]))


# -- the bound ---------------------------------------------------------------------------------------------------------


@_check("L_T: KL to the prior, summed over dimensions")
def _(name: str) -> None:
    x0 = [[0.5, -1.0, 0.2]]
    want = sum(0.5 * (ABAR[T] * x**2 + (1 - ABAR[T]) - 1 - math.log(1 - ABAR[T])) for x in x0[0])
    check_close(name, elbo.L_T(S, _float64(x0)), [want])


@_check("L_{t-1}: KL from Bayes' rule at every t > 1")
def _(name: str) -> None:
    got, want = [], []
    for t in TIMES[1:]:
        on_x0, on_xt, var = _posterior(t)
        got.append(elbo.L_t(S, _float64([[0.7]]), _float64([[-0.4]]), t, _float64([[0.1]]), S.beta[t]).item())
        gap = on_x0 * 0.7 - on_xt * 0.4 - 0.1
        want.append(0.5 * (var / BETA[t] - 1 - math.log(var / BETA[t]) + gap**2 / BETA[t]))
    check_close(name, got, want)


@_check("loss weights: L_{t-1} from the error in eps")
def _(name: str) -> None:
    """With the posterior variance only the means differ: L_{t-1} is the weight times the squared error in eps."""
    var, want = S.beta.clone(), []
    for t in TIMES[1:]:
        on_x0, _, var[t] = _posterior(t)
        shift = on_x0 * math.sqrt((1 - ABAR[t]) / ABAR[t])  # of the mean, for an error of 1 in eps
        want.append(shift**2 / (2 * var[t].item()))
    check_close(name, elbo.loss_weight(S, var)[2:], want)


@_check("L_simple: mean squared error of eps")
def _(name: str) -> None:
    x0, eps, t = _randn(T, 2), _randn(T, 2, seed=1), torch.tensor(TIMES)
    got = elbo.loss_simple(S, lambda xt, t: 0.5 * xt, x0, t, eps)
    rows = [eps[i] - 0.5 * (math.sqrt(ABAR[i + 1]) * x0[i] + math.sqrt(1 - ABAR[i + 1]) * eps[i]) for i in range(T)]
    check_close(name, got, [(row**2).sum().item() / 2 for row in rows])


GREY = 2 * torch.arange(256, dtype=torch.float64)[:, None] / 255 - 1


def _cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@_check("decoder: the masses of 256 bins sum to 1")
def _(name: str) -> None:
    masses = [
        (-elbo.L_0_discrete(GREY, torch.full_like(GREY, mu), _float64(v))).exp().sum()
        for mu, v in ((0.3, 0.01), (0.9, 0.09))
    ]
    check_close(name, masses, [1.0, 1.0])


@_check("decoder: a bin's mass is a difference of CDFs")
def _(name: str) -> None:
    cases, std = [(0, -0.99), (100, -0.2), (255, 0.97)], 0.02
    got = [elbo.L_0_discrete(GREY[level, None], _float64([[mu]]), _float64(std**2)).item() for level, mu in cases]
    want = []
    for level, mu in cases:
        x = 2 * level / 255 - 1
        low = 0.0 if level == 0 else _cdf((x - 1 / 255 - mu) / std)
        high = 1.0 if level == 255 else _cdf((x + 1 / 255 - mu) / std)
        want.append(-math.log(high - low))
    check_close(name, got, want)


@_check("decoder: far tails alike on both sides")
def _(name: str) -> None:
    x0, mu, var = GREY[40, None], GREY[240, None], _float64(1e-3)
    check_close(name, elbo.L_0_discrete(x0, mu, var), elbo.L_0_discrete(-x0, -mu, var))


@_check("bits per dimension: 8 bits are 8 bits")
def _(name: str) -> None:
    check_close(name, elbo.bits_per_dim(_float64(12 * math.log(256)), 12), 8.0)


@_check("L_0 at t = 1: the target is x_0")
def _(name: str) -> None:
    """Told the true noise, the mean of p hits x_0, and what is left is the entropy of the decoder."""
    x0, eps = _randn(2, 3), _randn(2, 3, seed=1)
    got = learner.reconstruction_loss(S, lambda x, t: eps, x0, eps)
    check_close(name, got, [1.5 * math.log(2 * math.pi * BETA[1])] * 2)


@_check("whole bound: entropy of Gaussian data + gap")
def _(name: str) -> None:
    """x_0 ~ N(0.3, 0.25), exact eps and optimal variances: the gap is KL(q(x_T) || N(0, 1)) and nothing else."""
    nodes = _float64([-math.sqrt(3), 0.0, math.sqrt(3)])  # three nodes integrate a parabola against N(0, 1)
    w = _float64([1 / 6, 2 / 3, 1 / 6])
    weight = (w[:, None] * w).flatten()
    x0, eps = 0.3 + 0.5 * nodes.repeat_interleave(3)[:, None], nodes.repeat(3)[:, None]
    v = [ABAR[t] * 0.25 + 1 - ABAR[t] for t in range(T + 1)]
    total = (weight * elbo.L_T(S, x0)).sum()
    for t in TIMES:
        xt = math.sqrt(ABAR[t]) * x0 + math.sqrt(1 - ABAR[t]) * eps
        mu = gaussian.mu_from_eps(S, xt, t, math.sqrt(1 - ABAR[t]) * (xt - math.sqrt(ABAR[t]) * 0.3) / v[t])
        var = _float64(BETA[t] * v[t - 1] / v[t])
        loss = elbo.L_0_gaussian(x0, mu, var) if t == 1 else elbo.L_t(S, x0, xt, t, mu, var)
        total = total + (weight * loss).sum()
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    check_close(name, total, entropy + 0.5 * (v[T] + ABAR[T] * 0.09 - 1 - math.log(v[T])))


@_check("bits/dim: the network sees 2..T once, and 1")
def _(name: str) -> None:
    seen: list[int] = []

    def model(xt: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return torch.zeros_like(xt)

    evaluate.bounds(S, model, GREY[:2, None, None], generator=_generator(), draws=T - 1, var={"beta": S.beta})
    check_close(name, [float(t) for t in sorted(seen)], [float(t) for t in TIMES])


@_check("bits/dim of a known picture, by hand")
def _(name: str) -> None:
    """A network that knows the one picture: every mean is right, and only variances and the bin are left to pay."""
    level = 2 * 150 / 255 - 1

    def model(xt: Tensor, t: Tensor) -> Tensor:
        abar = S.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (xt - abar.sqrt() * level) / (1 - abar).sqrt()

    x0 = torch.full((2, 1, 3, 3), level, dtype=torch.float64)
    got = evaluate.bounds(S, model, x0, generator=_generator(), draws=T - 1, var={"beta": S.beta})["beta"]
    L_T = 0.5 * (ABAR[T] * level**2 + (1 - ABAR[T]) - 1 - math.log(1 - ABAR[T]))
    ratios = [_posterior(t)[2] / BETA[t] for t in TIMES[1:]]
    L_t = sum(0.5 * (r - 1 - math.log(r)) for r in ratios)
    L_0 = -math.log(1 - 2 * _cdf(-1 / 255 / math.sqrt(BETA[1])))
    check_close(name, [got.L_T, got.L_t, got.L_0], [x / math.log(2) for x in (L_T, L_t, L_0)])


@_check("bits/dim: var and clip_x0 as asked, by hand")
def _(name: str) -> None:
    """A network whose x0_hat is 1.3 everywhere: what it pays does not depend on the noise."""
    level = 2 * 150 / 255 - 1

    def model(xt: Tensor, t: Tensor) -> Tensor:
        abar = S.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (xt - abar.sqrt() * 1.3) / (1 - abar).sqrt()

    x0 = torch.full((2, 1, 3, 3), level, dtype=torch.float64)
    got, want = [], []
    for clip, x0_hat in ((False, 1.3), (True, 1.0)):
        var = {"beta": S.beta, "half": 0.5 * S.beta}
        found = evaluate.bounds(S, model, x0, generator=_generator(), draws=T - 1, var=var, clip_x0=clip)["half"]
        got.append([found.L_t, found.L_0, *found.by_t])
        by_t = [0.0] * 10
        for t in TIMES[1:]:
            on_x0, _, posterior_var = _posterior(t)
            ratio, gap = 2 * posterior_var / BETA[t], on_x0 * (level - x0_hat)
            by_t[10 * (t - 1) // T] += (0.5 * (ratio - 1 - math.log(ratio)) + gap**2 / BETA[t]) / math.log(2)
        z = [(level + edge / 255 - x0_hat) / math.sqrt(0.5 * BETA[1]) for edge in (-1, 1)]
        L_t, L_0 = sum(by_t), -math.log2(_cdf(z[1]) - _cdf(z[0]))
        want.append([L_t, L_0, by_t[0] + L_0, *by_t[1:]])
    check_close(name, got, want, tol=1e-9)


@_check("bits/dim: law of its noise")
def _(name: str) -> None:
    """The picture is known and the network notes x_t, so the noise is known."""
    level, noises = 2 * 150 / 255 - 1, []

    def model(xt: Tensor, t: Tensor) -> Tensor:
        abar = S.alpha_bar[t].reshape(-1, 1, 1, 1)
        noises.append((xt - abar.sqrt() * level) / (1 - abar).sqrt())
        return torch.zeros_like(xt)

    x0 = torch.full((200, 1, 2, 2), level, dtype=torch.float64)
    evaluate.bounds(S, model, x0, generator=_generator(), draws=T - 1, var={"beta": S.beta})
    _check_noise(name, torch.stack(noises).flatten(2))


@_check("bits/dim: standard error of two pictures")
def _(name: str) -> None:
    """Two pictures that differ in L_T alone: the mean of two numbers is known to half their difference."""
    levels = GREY[[60, 150], None, None]

    def model(xt: Tensor, t: Tensor) -> Tensor:
        abar = S.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (xt - abar.sqrt() * levels) / (1 - abar).sqrt()

    got = evaluate.bounds(S, model, levels, generator=_generator(), draws=T - 1, var={"beta": S.beta})["beta"]
    a, b = (2 * level / 255 - 1 for level in (60, 150))
    check_close(name, got.std_error, abs(0.5 * ABAR[T] * (a**2 - b**2)) / math.log(2) / 2, tol=1e-8)


@_check("mean squared error of eps, t by t")
def _(name: str) -> None:
    """A network that knows the one picture and adds t / 10 to the noise."""
    level = 2 * 150 / 255 - 1

    def model(xt: Tensor, t: Tensor) -> Tensor:
        abar = S.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (xt - abar.sqrt() * level) / (1 - abar).sqrt() + t.double().reshape(-1, 1, 1, 1) / 10

    x0 = torch.full((2 * T, 1, 2, 2), level, dtype=torch.float64)
    got = evaluate.eps_mse(S, model, x0, generator=_generator(), draws=T)
    check_close(name, got[1:], [t**2 / 100 for t in TIMES])


@_check("precision and recall on a line, by hand")
def _(name: str) -> None:
    """With k = 1 the balls of the real points have radius 1, those of the samples 0.3, 0.1, 0.1, 0.5 and 0.5."""
    real, samples = _float64([0.0, 1.0, 2.0, 3.0, 4.0])[:, None], _float64([0.1, 0.4, 0.5, 10.0, 10.5])[:, None]
    check_close(name, _float64(evaluate.precision_recall(real, samples, k=1)), [3 / 5, 1 / 5])


@_check("memorisation: a mirrored copy is a copy")
def _(name: str) -> None:
    """One row of two pixels: the sample is the first training image in a mirror, the test image 10 grey levels off."""
    train, sample, test = (
        torch.tensor(rows, dtype=torch.uint8).reshape(-1, 1, 1, 2)
        for rows in ([[0, 100], [200, 220]], [[100, 0]], [[10, 100]])
    )
    found = evaluate.memorisation(sample, train, test)
    check_close(name, [found.to_train, found.test_to_train], [0.0, 10 / 127.5])


# -- sampling ----------------------------------------------------------------------------------------------------------


@_check("beta_tilde: reciprocal of precisions, every t")
def _(name: str) -> None:
    check_close(name, sampling.beta_tilde(S)[1:], [_posterior(t)[2] for t in TIMES])


@_check("p_step: mean and standard deviation, t > 1")
def _(name: str) -> None:
    got, want = [], []
    for t in TIMES[1:]:
        step = sampling.p_step(S, _float64([0.4, 0.4]), t, _float64([0.7, 0.7]), S.beta, _float64([0.0, 1.0]))
        on_x0, on_xt, _ = _posterior(t)
        got.append([step[0].item(), (step[1] - step[0]).item()])
        want.append([on_x0 * 0.7 + on_xt * 0.4, math.sqrt(BETA[t])])
    check_close(name, got, want)


@_check("sampler: the network sees T..1, once each")
def _(name: str) -> None:
    for run in (_own_sampler, _sampler):
        seen: list[float] = []

        def model(xt: Tensor, t: Tensor, seen: list[float] = seen) -> Tensor:
            seen.append(float(t[0]))
            return 0.3 * xt

        run(model)
        _check_times(name, seen)


def _sampler(model: sampling.EpsModel) -> Tensor:
    *_, last = sampling.sample(S, model, (4, 1), generator=_generator(), dtype=torch.float64)
    return last.x


def _own_sampler(model: sampling.EpsModel) -> Tensor:
    return learner.ancestral(S, model, _randn(4, 1), _generator(1))


@_check("samplers: x_T is standard normal")
def _(name: str) -> None:
    first = next(sampling.sample(S, _ones, (5000, 2), generator=_generator()))
    other = next(sampling.ddim(S, _ones, (5000, 2), steps=5, generator=_generator()))
    for run in (flow.euler, flow.heun):
        start = next(run(_velocity, (5000, 2), steps=2, generator=_generator()))
        _check_noise(name, start.x.double()[None])
    for step in (first, other):
        _check_noise(name, step.x.double()[None])


@_check("sampler: the last step adds no noise")
def _(name: str) -> None:
    """What comes out is the prediction made at t = 1, whatever the noise."""
    *_, before, last = sampling.sample(S, _ones, (50, 1), generator=_generator(), dtype=torch.float64)
    check_close(name, last.x, (before.x - math.sqrt(BETA[1])) / math.sqrt(ALPHA[1]))
    one = Schedule.from_betas([0.5])
    a, b = (learner.ancestral(one, _ones, _float64([[0.4]]), _generator(seed)) for seed in (1, 2))
    check_close(name, a, b)


SHORT = Schedule.from_betas([0.1, 0.3, 0.5, 0.8])


def _noises() -> dict[int, Tensor]:
    """t -> the noise that the sampler adds on the way from t to t - 1, where the network says eps = 0.5 x_t."""
    model: sampling.EpsModel = lambda x, t: 0.5 * x  # noqa: E731
    steps = list(sampling.sample(SHORT, model, (10_000, 2), generator=_generator(), dtype=torch.float64))
    found = {}
    for t in (4, 3, 2):
        beta, abar = SHORT.beta[t].item(), SHORT.alpha_bar[t].item()
        mean = (1 - 0.5 * beta / math.sqrt(1 - abar)) / math.sqrt(1 - beta) * steps[-t - 1].x
        found[t] = steps[-t].x - mean
    return found


@_check("sampler: variance of every single step")
def _(name: str) -> None:
    noises = _noises()
    for t, beta, other in ((4, 0.8, 0.5), (3, 0.5, 0.3), (2, 0.3, 0.1)):
        wrong = {"beta of the step below": other, "beta as a standard deviation": beta**2, "its root": math.sqrt(beta)}
        check_mean(name, noises[t].flatten() ** 2, beta, wrong)


@_check("sampler: new noise in every step")
def _(name: str) -> None:
    _check_noise(name, torch.stack([noise / SHORT.beta[t].sqrt() for t, noise in _noises().items()]))


@_check("sampler by hand: law of the sample")
def _(name: str) -> None:
    """Algorithm 2 with the exact eps of x_0 ~ N(0.3, 0.25): an affine map and a noise, four times."""
    betas = [0.15, 0.3, 0.4, 0.6]
    alpha_bar = [math.prod(1 - beta for beta in betas[:t]) for t in range(5)]
    short = Schedule.from_betas(betas)

    def model(x: Tensor, t: Tensor) -> Tensor:
        abar = alpha_bar[int(t[0])]
        return math.sqrt(1 - abar) * (x - math.sqrt(abar) * 0.3) / (abar * 0.25 + 1 - abar)

    x = learner.ancestral(short, model, _randn(20_000, 1), _generator(1)).flatten()
    mean, var = 0.0, 1.0
    for t in (4, 3, 2, 1):
        beta, v = betas[t - 1], alpha_bar[t] * 0.25 + 1 - alpha_bar[t]
        slope = (1 - beta / v) / math.sqrt(1 - beta)
        mean = slope * mean + beta * math.sqrt(alpha_bar[t]) * 0.3 / (v * math.sqrt(1 - beta))
        var = slope**2 * var + (beta if t > 1 else 0)
    check_mean(name, x, mean, {"the prior": 0.0})
    check_mean(name, (x - mean) ** 2, var, {"noise on the last step": var + betas[0]})


@_check("sampler: the clip acts on the mean")
def _(name: str) -> None:
    """A network so wrong that every x0_hat is clipped to -1: the chain is then driven by -1 alone."""
    wild: sampling.EpsModel = lambda x, t: 50 * torch.ones_like(x)  # noqa: E731
    steps = list(
        sampling.sample(S, wild, (3, 1), generator=_generator(), clip_x0=True, var=0 * S.beta, dtype=torch.float64)
    )
    x, want = steps[0].x, []
    for t in reversed(TIMES):
        on_x0, on_xt, _ = _posterior(t)
        x = -on_x0 + on_xt * x
        want.append(x)
    check_close(name, torch.cat([step.x for step in steps[1:]]), torch.cat(want))


@_check("interpolation: taken back from t to 1")
def _(name: str) -> None:
    seen: list[float] = []

    def model(xt: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return xt

    learner.interpolate(S, model, NO_NOISE, NO_NOISE + 1, 6, _generator())
    check_close(name, seen, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])


@_check("believed pictures: t belongs to x_t")
def _(name: str) -> None:
    """Along a chain made with one known noise, a network that answers with that noise always finds x_0."""
    chain = [math.sqrt(ABAR[t]) * _float64([[0.7]]) + math.sqrt(1 - ABAR[t]) for t in reversed(TIMES)]
    found = learner.believed_pictures(S, _ones, chain, every=4)
    check_close(name, [[float(t), x.item()] for t, x in found], [[10.0, 0.7], [6.0, 0.7], [2.0, 0.7]])


@_check("film of predictions: bytes of what is shown")
def _(name: str) -> None:
    """Grey stays grey, and what lies beyond black and white is black and white."""
    got = [learner.film_bytes(_float64(values)) for values in ([-1.2, -1.0, 0.6], [0.0, 0.2, 1.3])]
    check_close(name, torch.cat(got), [0, 0, 204, 128, 153, 255])


@_check("DDIM: the grid starts at T and is even")
def _(name: str) -> None:
    check_close(name, sampling.even_grid(10, 5), [10, 8, 6, 4, 2])


@_check("DDIM: every jump by hand, eta = 0")
def _(name: str) -> None:
    steps = list(sampling.ddim(S, lambda x, t: 0.2 * x, (3, 1), steps=5, generator=_generator(), dtype=torch.float64))
    x, want = steps[0].x, []
    for t, r in ((10, 8), (8, 6), (6, 4), (4, 2), (2, 0)):
        x0_hat = (x - math.sqrt(1 - ABAR[t]) * 0.2 * x) / math.sqrt(ABAR[t])
        x = math.sqrt(ABAR[r]) * x0_hat + math.sqrt(1 - ABAR[r]) * 0.2 * x
        want.append(x)
    check_close(name, torch.cat([step.x for step in steps[1:]]), torch.cat(want))


def _half_way() -> tuple[Tensor, float, float]:
    """Jump from t = 2 to 1 of a chain of two steps, with eta = 1/2 and eps_hat = 1: what comes on top of x0_hat's part,
    and its mean and variance; the variance at eta = 1 is four times that."""
    a1, a2 = 0.7, 0.7 * 0.6
    two = Schedule.from_betas([0.3, 0.4])
    first, second, _ = sampling.ddim(
        two, _ones, (20_000, 1), steps=2, eta=0.5, generator=_generator(), dtype=torch.float64
    )
    var = (1 - a1) / (1 - a2) * (1 - a2 / a1) / 4
    rest = second.x - math.sqrt(a1 / a2) * (first.x - math.sqrt(1 - a2))
    return rest.flatten(), math.sqrt(1 - a1 - var), var


@_check("DDIM: variance of a jump, eta = 1/2")
def _(name: str) -> None:
    rest, _, var = _half_way()
    check_mean(name, (rest - rest.mean()) ** 2, var, {"eta not squared": 2 * var, "eta = 0": 0.0, "eta = 1": 4 * var})


@_check("DDIM: mean of a jump, eta = 1/2")
def _(name: str) -> None:
    rest, mean, var = _half_way()
    check_mean(name, rest, mean, {"direction keeps all the noise": math.sqrt(mean**2 + var)})


@_check("DDIM: new noise in every jump")
def _(name: str) -> None:
    """From t = 4 to 3 to 2 to 1, with eps_hat = 0 and eta = 1."""
    model: sampling.EpsModel = lambda x, t: 0 * x  # noqa: E731
    run = sampling.ddim(SHORT, model, (10_000, 2), steps=4, eta=1.0, generator=_generator(), dtype=torch.float64)
    noises = []
    for now, then in itertools.pairwise(list(run)[:-1]):
        a, b = SHORT.alpha_bar[now.t].item(), SHORT.alpha_bar[then.t].item()
        std = math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        noises.append((then.x - math.sqrt(b / a) * now.x) / std)
    _check_noise(name, torch.stack(noises))


@_check("DDIM: variance of a jump over two steps")
def _(name: str) -> None:
    """From t = 4 to 2, with eps_hat = 0 and eta = 1."""
    before, now = 0.9 * 0.7, 0.9 * 0.7 * 0.5 * 0.2
    four = Schedule.from_betas([0.1, 0.3, 0.5, 0.8])
    first, second, _ = sampling.ddim(
        four, lambda x, t: 0 * x, (20_000, 1), steps=2, eta=1.0, generator=_generator(), dtype=torch.float64
    )
    rest = (second.x - math.sqrt(before / now) * first.x).flatten()
    scale = (1 - before) / (1 - now)
    check_mean(name, rest**2, scale * (1 - now / before), {"beta of one step": scale * 0.8, "no noise": 0.0})


@_check("DDIM: eps belongs to the clipped x_0")
def _(name: str) -> None:
    wild: sampling.EpsModel = lambda x, t: 9 * torch.ones_like(x)  # noqa: E731
    steps = list(sampling.ddim(S, wild, (3, 1), steps=5, generator=_generator(), clip_x0=True, dtype=torch.float64))
    x, want = steps[0].x, []
    for t, r in ((10, 8), (8, 6), (6, 4), (4, 2), (2, 0)):
        eps_hat = (x + math.sqrt(ABAR[t])) / math.sqrt(1 - ABAR[t])
        x = -math.sqrt(ABAR[r]) + math.sqrt(1 - ABAR[r]) * eps_hat
        want.append(x)
    check_close(name, torch.cat([step.x for step in steps[1:]]), torch.cat(want))


@_check("optimal variance: normal data, every t")
def _(name: str) -> None:
    """For x_0 ~ N(m, 0.25) the variance of q(x_{t-1} | x_t) is beta_t v_{t-1} / v_t, v_t that of x_t (Bayes' rule)."""
    v = [abar * 0.25 + 1 - abar for abar in ABAR]
    eps_mse = _float64([abar * 0.25 / v[t] for t, abar in enumerate(ABAR)])
    want = [BETA[t] * v[t - 1] / v[t] for t in TIMES]
    check_close(name, sampling.optimal_var(S, eps_mse)[1:], want)


# -- score, guidance and flow ------------------------------------------------------------------------------------------


def _settled(temperature: float) -> Tensor:
    """Langevin with the score of N(1, 1) and step 0.2: x - 1 is multiplied by 0.8 and gains 0.4 temperature."""
    start = 1 + math.sqrt(temperature) * _randn(20_000)
    *_, x = sampling.langevin(
        lambda x: 1 - x, start, step_size=0.2, steps=40, generator=_generator(1), temperature=temperature
    )
    return x


@_check("Langevin: mean and variance it settles to")
def _(name: str) -> None:
    x = _settled(1.0)
    check_mean(name, x, 1.0, {"score ignored": 0.0})
    wrong = {"noise of variance step": 0.2 / 0.36, "no root": 0.16 / 0.36, "score ignored": 1 + 40 * 0.4}
    check_mean(name, (x - 1) ** 2, 0.4 / 0.36, wrong)


@_check("Langevin: new noise in every step")
def _(name: str) -> None:
    """Where the score is zero, a step is its noise."""
    run = sampling.langevin(
        lambda x: 0 * x, _randn(5000, 2), step_size=0.3, steps=4, generator=_generator(1), temperature=2.0
    )
    noises = [(then - now) / math.sqrt(2 * 0.3 * 2.0) for now, then in itertools.pairwise(run)]
    _check_noise(name, torch.stack(noises))


@_check("Langevin: the temperature scales the variance")
def _(name: str) -> None:
    wrong = {"as at temperature 1": 0.4 / 0.36, "on the drift": 0.4 / (1 - 0.4**2)}
    check_mean(name, (_settled(3.0) - 1) ** 2, 3 * 0.4 / 0.36, wrong)


@_check("guidance: scale 0, 1 and 3")
def _(name: str) -> None:
    """A network that says 0.9 for the class asked for (1), 0.4 without a label (2) and something else for class 0."""
    said = _float64([7.0, 0.9, 0.4])
    model: guidance.LabelledModel = lambda xt, t, y: said[y][:, None].expand_as(xt)  # noqa: E731
    y, xt, t = torch.tensor([1]), _float64([[0.3]]), torch.tensor([5])
    got = [guidance.classifier_free(model, y, scale, 2)(xt, t).item() for scale in (0.0, 1.0, 3.0)]
    check_close(name, got, [0.4, 0.9, 1.9])


@_check("guidance: the two weights have sum 1")
def _(name: str) -> None:
    """Where the label makes no difference, neither does the scale."""
    xt = _randn(3, 2)
    y, t = torch.tensor([0, 1, 1]), torch.tensor([1, 5, 10])
    for scale in (0.0, 1.0, 4.0):
        check_close(name, guidance.classifier_free(lambda xt, t, y: 0.3 * xt, y, scale, 2)(xt, t), 0.3 * xt)


@_check("classifier guidance: Bayes' rule at scale 1")
def _(name: str) -> None:
    """Classes N(-0.8, 0.09) and N(0.8, 0.25): guided by the exact classifier, the eps of all becomes that of one."""
    weights, means, variances = (0.3, 0.7), (-0.8, 0.8), (0.09, 0.25)

    def laws(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """log of weight times density, and eps, of each class: (B, 2) both."""
        logs, noises = [], []
        for w, m, v in zip(weights, means, variances, strict=True):
            mean, var = math.sqrt(ABAR[t]) * m, ABAR[t] * v + 1 - ABAR[t]
            logs.append(math.log(w) + _log_normal(x[:, 0], mean, var))
            noises.append(math.sqrt(1 - ABAR[t]) * (x[:, 0] - mean) / var)
        return torch.stack(logs, 1), torch.stack(noises, 1)

    def eps_model(x: Tensor, t: Tensor) -> Tensor:
        logs, noises = laws(x, int(t[0]))
        return (torch.softmax(logs, 1) * noises).sum(1, keepdim=True)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return torch.log_softmax(laws(x, int(t[0]))[0], 1)[:, 1]

    x, got, want = _float64([[-0.9], [0.2], [1.1]]), [], []
    for t in TIMES:
        got.append(guidance.classifier(S, eps_model, log_prob, 1.0)(x, torch.full((3,), t))[:, 0])
        want.append(laws(x, t)[1][:, 1])
    check_close(name, torch.cat(got), torch.cat(want))


@_check("flow: the loss of one example by hand")
def _(name: str) -> None:
    """x_0 = 0.6 and eps = -0.4 at tau = 0.3: x_tau = 0.3, and the velocity is -1; the network says x / 2 + tau."""
    x0, eps, tau = _float64([[0.6]]), _float64([[-0.4]]), _float64([0.3])
    got = flow.loss(lambda x, tau: x / 2 + tau[:, None], x0, tau, eps)
    check_close(name, got, [(0.3 / 2 + 0.3 + 1) ** 2])


def _velocity(x: Tensor, tau: Tensor) -> Tensor:
    return 0.6 * x + tau[:, None]


@_check("flow: Euler's steps by hand")
def _(name: str) -> None:
    run = list(flow.euler(_velocity, (3, 1), steps=4, generator=_generator(), dtype=torch.float64))
    x, want = run[0].x, []
    for tau in (1.0, 0.75, 0.5, 0.25):
        x = x - 0.25 * (0.6 * x + tau)
        want.append(x)
    check_close(name, torch.cat([point.x for point in run[1:]]), torch.cat(want))


@_check("flow: Heun's steps by hand")
def _(name: str) -> None:
    """Two slopes, at the old point and at Euler's new one, each with its own time; only one in the last step."""
    run = list(flow.heun(_velocity, (3, 1), steps=4, generator=_generator(), dtype=torch.float64))
    x, want = run[0].x, []
    for tau in (1.0, 0.75, 0.5, 0.25):
        slope = 0.6 * x + tau
        if tau > 0.25:
            slope = (slope + 0.6 * (x - 0.25 * slope) + tau - 0.25) / 2
        x = x - 0.25 * slope
        want.append(x)
    check_close(name, torch.cat([point.x for point in run[1:]]), torch.cat(want))


@_check("flow: tau in thousandths, at least 1")
def _(name: str) -> None:
    """In float32, where 1000 times 0.009 is a little less than 9."""
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x

    flow.velocity(network)(torch.zeros(1001, 1), torch.arange(1001) / 1000)
    check_close(name, seen[0], [1.0, *(float(k) for k in range(1, 1001))])


# -- training ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """Three steps of training: what came out, and what the network was given and in which mode it was."""

    model: unet.UNet
    records: list[training.Record]
    seen: list[tuple[Tensor, Tensor]]  # x_t, t
    training: list[bool]
    weights: list[list[Tensor]]  # at the start and after each step
    averages: list[list[Tensor]]  # the same of the EMA
    clipped: list[list[Tensor]]  # the gradients of which each step was made

    def noise(self, i: int) -> Tensor:
        """The picture is known and x_t was noted, so the noise is known."""
        xt, t = self.seen[i]
        abar = torch.tensor([1, 0.9, 0.9 * 0.7, 0.9 * 0.7 * 0.5, 0.9 * 0.7 * 0.5 * 0.2])[t].reshape(-1, 1, 1, 1)
        return (xt - abar.sqrt() * (PICTURE / 127.5 - 1)) / (1 - abar).sqrt()


RATES, CLIP = [0.005, 0.01, 0.01], 0.1
NETWORK: dict[str, Any] = dict(
    image_size=4, channels=1, width=4, width_mults=(1,), res_blocks=1, attention_at=(), dropout=0.0, classes=None
)


def _config() -> training.Config:
    return training.Config(
        preset="", data="digits", network=NETWORK, schedule=SHORT, steps=3,
        batch=48, lr=RATES[-1], warmup=2, lr_decay=False, clip=CLIP, ema_decay=0.9, flip=False, seed=0,
    )  # fmt: skip


@cache  # nine checks read it; `examine` empties it first
def _run() -> _Run:
    """A U-Net small enough for a few milliseconds, on one picture."""
    state = training.State(_config())
    state.model.eval()  # as somebody would leave it who draws pictures between two steps
    run = _Run(state.model, [], [], [], [], [], [])

    def note(model: nn.Module, args: tuple[Tensor, Tensor]) -> None:
        run.seen.append(args)
        run.training.append(model.training)

    def copy_weights() -> None:
        run.weights.append([parameter.detach().clone() for parameter in state.model.parameters()])
        run.averages.append([parameter.clone() for parameter in state.ema.model.parameters()])

    hook = state.model.register_forward_pre_hook(note)
    copy_weights()
    for record in itertools.islice(training.train(state, data.Images(PICTURE, LABEL, "one", ("0",))), 3):
        run.records.append(record)
        copy_weights()
        run.clipped.append(
            [parameter.grad.clone() for parameter in state.model.parameters() if parameter.grad is not None]
        )
    hook.remove()
    return run


@cache
def _by_autograd() -> list[tuple[float, Tensor]]:
    """Loss and gradient, not clipped, of the batch of each step."""
    run, found = _run(), []
    parameters = list(run.model.parameters())
    for i in range(3):
        with torch.no_grad():
            for parameter, weight in zip(parameters, run.weights[i], strict=True):
                parameter.copy_(weight)
        loss = ((run.model(*run.seen[i]) - run.noise(i)) ** 2).mean()
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        found.append((loss.item(), _flat(list(gradients))))
    return found


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


PICTURE = torch.arange(0, 256, 16, dtype=torch.uint8).reshape(1, 1, 4, 4)
LABEL = torch.zeros(1, dtype=torch.int64)


@_check("training: every t from 1 to T is drawn")
def _(name: str) -> None:
    """Index 0 to 5 is t: neither 0 nor T + 1 may come."""
    drawn = torch.cat([record.t for record in _run().records]).tolist()
    check_close(name, [float(t in drawn) for t in range(6)], [0, 1, 1, 1, 1, 0])


@_check("training: each picture has its own t")
def _(name: str) -> None:
    check_close(name, [float(len(torch.unique(record.t)) > 1) for record in _run().records], [1.0, 1.0, 1.0])


@_check("training: law of the noise")
def _(name: str) -> None:
    _check_noise(name, torch.stack([_run().noise(i) for i in range(3)]).double().flatten(2))


@_check("training: labels are dropped")
def _(name: str) -> None:
    """Every picture is of class 0, and 1 stands for "no label": half of the labels that the network sees are 1."""
    config = replace(_config(), network=NETWORK | {"classes": 2}, label_drop=0.5, batch=120)
    state, seen = training.State(config), []
    hook = state.model.register_forward_pre_hook(lambda model, args: seen.append(args[2].double()))
    list(itertools.islice(training.train(state, data.Images(PICTURE, LABEL, "one", ("0",))), 3))
    hook.remove()
    y = torch.stack(seen)
    check_mean(name, y.flatten(), 0.5, {"never": 0.0, "always": 1.0})
    check_mean(name, ((y[:, ::2] - 0.5) * (y[:, 1::2] - 0.5)).flatten(), 0.0, {"the whole batch at once": 0.25})


@_check("training: loss and gradient by autograd")
def _(name: str) -> None:
    run, got, want = _run(), [], []
    for record, (loss, gradient) in zip(run.records, _by_autograd(), strict=True):
        got += [record.loss.mean().item(), record.grad_norm.item()]
        want += [loss, gradient.norm().item()]
    check_close(name, got, want, tol=1e-4)


@_check("training: long gradients are clipped")
def _(name: str) -> None:
    check_close(name, [_flat(gradients).norm() for gradients in _run().clipped], [CLIP] * 3, tol=1e-4)


@_check("training: three steps of Adam by hand")
def _(name: str) -> None:
    run = _run()
    m, v = torch.zeros(()), torch.zeros(())
    for k, rate in enumerate(RATES, 1):
        g = _by_autograd()[k - 1][1]
        g = g * min(1.0, CLIP / g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = -rate * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
        sure = v.sqrt() > 1e-6  # Adam makes a whole step even of a gradient that is zero but for rounding
        check_close(name, (_flat(run.weights[k]) - _flat(run.weights[k - 1]))[sure], step[sure], tol=1e-3)


@_check("training: EMA of the weights after each step")
def _(name: str) -> None:
    run, got, want = _run(), [], []
    average = _flat(run.weights[0])
    for k, decay in enumerate((1 / 10, 2 / 11, 3 / 12), 1):
        average = decay * average + (1 - decay) * _flat(run.weights[k])
        got.append(_flat(run.averages[k]))
        want.append(average)
    check_close(name, torch.cat(got), torch.cat(want), tol=1e-5)


@_check("training: warm-up of the learning rate")
def _(name: str) -> None:
    check_close(name, [record.lr for record in _run().records], RATES)


@_check("training: dropout is on")
def _(name: str) -> None:
    check_close(name, [float(mode) for mode in _run().training], [1.0, 1.0, 1.0])


@_check("held-out loss: dropout is off")
def _(name: str) -> None:
    x = _randn(500, 1)
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
    check_close(name, learner.held_out_loss(model, x, 2 * x), (x**2).mean())


@_check("EMA: three updates by hand")
def _(name: str) -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(4.0)
    ema, got, want, average = training.EMA(model, 0.95), [], [], 4.0
    for value, decay in ((1.0, 1 / 10), (2.0, 2 / 11), (5.0, 3 / 12)):
        model.weight.data.fill_(value)
        ema.update(model)
        average = decay * average + (1 - decay) * value
        got.append(ema.model.weight.item())
        want.append(average)
    check_close(name, got, want, tol=1e-6)


# -- data and networks -------------------------------------------------------------------------------------------------


@_check("bytes: 0 to 255 survive the round trip")
def _(name: str) -> None:
    u8 = torch.arange(256, dtype=torch.uint8)
    check_close(name, data.to_uint8(data.to_float(u8)), u8)


@_check("bytes: what is out of range is clipped")
def _(name: str) -> None:
    check_close(name, data.to_uint8(_float64([-1.5, -1.01, 1.01, 1.5])), [0, 0, 255, 255])


@_check("pixels: black is -1 and white is 1")
def _(name: str) -> None:
    check_close(name, data.to_float(torch.tensor([0, 255], dtype=torch.uint8)), [-1.0, 1.0], tol=1e-6)


@_check("flip: left to right, half of the pictures")
def _(name: str) -> None:
    u8 = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    images = data.Images(u8, torch.zeros(1, dtype=torch.int64), "one", ("0",))
    batch, _labels = next(data.batches(images, 400, _generator(), flip=True))
    plain, mirrored = _float64([[[-1, 1], [-0.6, -0.2]]]), _float64([[[1, -1], [-0.2, -0.6]]])
    is_plain = batch[:, :, 0, 0] < 0
    want = torch.where(is_plain[..., None, None], plain, mirrored)
    check_close(name, batch, want, tol=1e-6)
    check_mean(name, is_plain[:, 0].double(), 0.5, {"always": 0.0, "never": 1.0})


@_check("time embedding: sines and cosines by hand")
def _(name: str) -> None:
    frequencies = [10_000 ** (-i / 3) for i in range(4)]
    times = (1, 2, 700)
    want = [[f((t - 1) * w) for f in (math.sin, math.cos) for w in frequencies] for t in times]
    check_close(name, unet.time_embedding(torch.tensor(times), 8), want, tol=1e-4)


@_check("MLP: forward pass by hand, t included")
def _(name: str) -> None:
    torch.manual_seed(0)
    net = mlp.MLP(2, width=8, depth=2).double()
    nn.init.normal_(net.last.weight)
    xt, t = _randn(3, 2), torch.tensor([1, 2, 9])
    emb = torch.stack(
        [
            torch.tensor([f((r - 1) * 10_000 ** (-i / 3)) for f in (math.sin, math.cos) for i in range(4)])
            for r in (1, 2, 9)
        ]
    ).double()
    h = xt
    for i in range(2):
        hidden, time = net.hidden[i], net.time[i]
        z = h @ hidden.weight.T + hidden.bias + emb @ time.weight.T + time.bias  # type: ignore[operator]
        h = z / (1 + (-z).exp())
    check_close(name, net(xt, t), h @ net.last.weight.T + net.last.bias, tol=1e-5)


@_check("U-Net: a block hears the time")
def _(name: str) -> None:
    """The block's output must depend on the embedding by more than rounding."""
    torch.manual_seed(0)
    block = unet.ResBlock(8, 8, 16, dropout=0.0)
    nn.init.normal_(block.conv2.weight)
    h = torch.randn(1, 8, 4, 4)
    difference = (block(h, torch.ones(1, 16)) - block(h, -torch.ones(1, 16))).abs().max().item()
    check_close(name, float(difference > 1e-2), 1.0)
