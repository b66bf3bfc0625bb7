"""Tests of ddpm_edu.evaluate: bounds against integrals and closed forms, the judges and their parts by hand."""

import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from ddpm_edu import data, exact, gaussian, schedules
from ddpm_edu.data import Images, load, to_float
from ddpm_edu.evaluate import (
    GREY_LEVELS,
    bounds,
    compare,
    eps_mse,
    frechet,
    judge,
    lossless_bits,
    memorisation,
    nearest,
    on_levels,
    precision_recall,
    variances,
)

BETA = [0.02, 0.1, 0.3, 0.6, 0.9]  # large steps: a slip in t or in a variance moves every term
SLOPE, OFFSET = [0.3, 0.5, 0.9, 0.8, 1.0], [0.1, -0.2, 0.05, 0.3, -0.1]  # eps_hat = SLOPE_t x_t + OFFSET_t
LN2 = math.log(2)


def bound(s, eps_model, x0, *, var=None, **settings):
    """The only one of the bounds with these variances, by default beta."""
    return bounds(s, eps_model, x0, var={"this": s.beta if var is None else var}, **settings)["this"]


def eps_model(xt: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    slope, offset = (torch.tensor(v, dtype=xt.dtype)[t - 1].reshape(-1, 1, 1, 1) for v in (SLOPE, OFFSET))
    return slope * xt + offset


def pixels(bins: int, n: int) -> torch.Tensor:
    """(n, 1, 2, 1) float64: every level in turn."""
    level = torch.arange(2 * n) % bins
    return (2 * level.double() / (bins - 1) - 1).reshape(n, 1, 2, 1)


def mass(low: float, high: float) -> float:
    """0.5 (erf(high) - erf(low)), from whichever tail keeps digits."""
    return 0.5 * (math.erfc(low) - math.erfc(high) if low > 0 else math.erfc(-high) - math.erfc(-low))


def expected_terms(x0: np.ndarray, betas: list[float], sigma2: list[float], bins: int) -> np.ndarray:
    """L_T, L_0, L_1, ..., L_{T-1} in bits for each pixel: x_t is integrated out, no sampling."""
    beta = np.array(betas)
    alpha_bar = np.cumprod(1 - beta)
    T = len(beta)
    mean, var = math.sqrt(alpha_bar[-1]) * x0, 1 - alpha_bar[-1]
    L_T = 0.5 * (mean**2 + var - 1 - math.log(var))

    L_t = []
    for i in range(1, T):  # t = i + 1
        before, now = alpha_bar[i - 1], alpha_bar[i]
        tilde_var = 1 / ((1 - beta[i]) / beta[i] + 1 / (1 - before))  # precisions of a product of Gaussians add
        on_xt = tilde_var * math.sqrt(1 - beta[i]) / beta[i]
        on_x0 = tilde_var * math.sqrt(before) / (1 - before)
        c = beta[i] / math.sqrt(1 - now)
        # mu_tilde - mu = a x_t + b, and x_t is Gaussian given x_0
        a = on_xt - (1 - c * SLOPE[i]) / math.sqrt(1 - beta[i])
        b = on_x0 * x0 + c * OFFSET[i] / math.sqrt(1 - beta[i])
        square = (a * math.sqrt(now) * x0 + b) ** 2 + a**2 * (1 - now)
        L_t.append(0.5 * (tilde_var / sigma2[i] - 1 - math.log(tilde_var / sigma2[i]) + square / sigma2[i]))

    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    x1 = math.sqrt(1 - beta[0]) * x0[:, None] + math.sqrt(beta[0]) * nodes
    mu = (x1 - math.sqrt(beta[0]) * (SLOPE[0] * x1 + OFFSET[0])) / math.sqrt(1 - beta[0])
    edges = [x0 - 1 / (bins - 1), x0 + 1 / (bins - 1)]
    edges = np.where(x0 < -1 + 1 / bins, -np.inf, edges[0]), np.where(x0 > 1 - 1 / bins, np.inf, edges[1])
    z = [(edge[:, None] - mu) / math.sqrt(2 * sigma2[0]) for edge in edges]
    L_0 = -np.log(np.vectorize(mass)(*z)) @ weights / weights.sum()
    return np.stack([L_T, L_0, *L_t]) / LN2


def posterior_var(betas: list[float]) -> list[float]:
    alpha_bar = np.cumprod(1 - np.array(betas))
    """beta_tilde, and at t = 1, where it is 0, some number."""
    return [0.01] + [betas[i] * (1 - alpha_bar[i - 1]) / (1 - alpha_bar[i]) for i in range(1, len(betas))]


@pytest.mark.parametrize("bins", [17, 256])
@pytest.mark.parametrize("which", ["beta", "beta_tilde"])
@pytest.mark.parametrize("draws", [1, 4, 7])  # fewer than, as many as and more than the times 2..T
def test_every_term_equals_its_integral(bins, which, draws):
    s = schedules.Schedule.from_betas(BETA)
    sigma2 = BETA if which == "beta" else posterior_var(BETA)
    var = None if which == "beta" else torch.tensor([0.0, *sigma2], dtype=torch.float64)
    x0 = pixels(bins, 17 * 2048)
    generator = torch.Generator().manual_seed(1)
    got = bound(s, eps_model, x0, generator=generator, draws=draws, var=var, bins=bins, batch=3000)
    want = expected_terms(pixels(bins, bins).flatten().numpy(), BETA, sigma2, bins).mean(1)
    assert abs(got.L_T / want[0] - 1) < 1e-10
    # A slip of 5 % in the sum would be seen: 4 standard errors are less than that.
    assert 4 * got.std_error < 0.05 * want[2:].sum()
    assert abs(got.L_t - want[2:].sum()) < 4 * got.std_error
    assert abs(got.L_0 - want[1]) < 4 * got.std_error
    assert got.total == pytest.approx(got.L_T + got.L_t + got.L_0, rel=1e-12)
    assert got.n == len(x0)
    # t = 1..5 falls into ten parts: every other one is empty.
    assert len(got.by_t) == 10 and got.by_t[1::2] == (0, 0, 0, 0, 0)
    assert np.abs(np.array(got.by_t[::2]) - [want[1], *want[2:]]).max() < 4 * got.std_error
    assert sum(got.by_t) == pytest.approx(got.L_t + got.L_0, rel=1e-12)


def test_several_variances_cost_no_more_calls_and_give_what_each_gives_alone():
    s, x0, calls = schedules.Schedule.from_betas(BETA), pixels(256, 40), []

    def counted(xt, t):
        calls.append(len(xt))
        return eps_model(xt, t)

    def run(var):
        return bounds(s, counted, x0, generator=torch.Generator().manual_seed(1), draws=3, var=var, batch=15)

    both = run({"beta": s.beta, "twice": 2 * s.beta})
    assert list(both) == ["beta", "twice"] and calls == [15] * 4 + [15] * 4 + [10] * 4
    assert both["beta"] == run({"beta": s.beta})["beta"] != both["twice"] == run({"one": 2 * s.beta})["one"]
    assert both["beta"].L_T == both["twice"].L_T and both["beta"].L_0 != both["twice"].L_0
    assert run({}) == {}


@pytest.mark.parametrize(("draws", "parts"), [(24, [2, 2, 3, 2, 3, 2, 3, 2, 3, 2]), (5, None), (1, None), (60, None)])
def test_a_sum_of_equal_terms_is_exact_for_any_draws(draws, parts):
    """Told x_0, with variances twice beta_tilde, every KL is (ln 2 - 1/2) / 2 for each pixel, whatever the noise."""
    s = schedules.linear(25, 0.01, 0.3)
    abar = np.cumprod(1 - s.beta[1:].numpy())
    var = s.beta.clone()
    var[2:] = torch.from_numpy(2 * s.beta[2:].numpy() * (1 - abar[:-1]) / (1 - abar[1:]))
    x0 = pixels(256, 30)

    def oracle(xt, t):
        return gaussian.eps_from_x0(s, xt, t, x0)

    got = bound(s, oracle, x0, generator=torch.Generator().manual_seed(0), draws=draws, var=var)
    each = 0.5 * (LN2 - 0.5) / LN2
    assert got.L_t == pytest.approx(24 * each, rel=1e-9)
    if parts:  # every t once: t = 1..25 falls into parts of 3, 2, 3, 2 ... times, t = 1 is L_0
        assert np.array(got.by_t) - [got.L_0, *[0] * 9] == pytest.approx(np.array(parts) * each, rel=1e-9)


# --- linear-Gaussian data: every term in closed form ------------------------------------------------------------------


class Linear:
    """The best linear prediction of eps for data of mean m and covariance C, exact if they are Gaussian; in numpy."""

    def __init__(self, betas: np.ndarray, m: np.ndarray, C: np.ndarray) -> None:
        self.beta, self.m, self.C, self.D = betas, m, C, len(m)
        self.abar = np.cumprod(1 - betas)
        eye = np.eye(self.D)
        self.inverse = np.stack([np.linalg.inv(a * C + (1 - a) * eye) for a in self.abar])
        before = np.concatenate([[1.0], self.abar[:-1]])
        self.beta_tilde = betas * (1 - before) / (1 - self.abar)
        # Var(eps - eps_hat) = 1 - (1 - abar) S^-1, S = Cov(x_t); and what an error in eps does to the mean
        self.mse = np.array([1 - (1 - a) * np.trace(i) / self.D for a, i in zip(self.abar, self.inverse, strict=True)])
        self.on_eps2 = betas**2 / ((1 - betas) * (1 - self.abar))

    def __call__(self, xt: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = torch.from_numpy(self.abar)[t - 1][:, None]
        centred = xt.flatten(1) - abar.sqrt() * torch.from_numpy(self.m)
        return ((1 - abar).sqrt() * torch.einsum("bij,bj->bi", torch.from_numpy(self.inverse)[t - 1], centred)).reshape(
            xt.shape
        )

    def L_T(self) -> float:
        """In nats for all D pixels, as everything here."""
        square, a = np.trace(self.C) + self.m @ self.m, self.abar[-1]
        return 0.5 * (a * square - self.D * a - self.D * math.log(1 - a))

    def L_t(self, var: np.ndarray) -> np.ndarray:
        """The terms of t = 2..T with sampling variances ``var`` at t = 1..T."""
        ratio = self.beta_tilde[1:] / var[1:]
        return 0.5 * self.D * (ratio - 1 - np.log(ratio) + self.on_eps2[1:] * self.mse[1:] / var[1:])

    def L_0(self, x0: np.ndarray, var: float, bins: int) -> float:
        """The discretised decoder, averaged over the rows of x0 (n, D): each pixel of mu is normal given x_0."""
        b = self.beta[0]
        to_mu = (np.eye(self.D) - b * self.inverse[0]) / math.sqrt(
            1 - b
        )  # mu = to_mu x_1 + shift, since 1 - abar_1 = b
        shift = b * self.inverse[0] @ (math.sqrt(1 - b) * self.m) / math.sqrt(1 - b)
        centre, spread = math.sqrt(1 - b) * x0 @ to_mu.T + shift, math.sqrt(b) * np.linalg.norm(to_mu, axis=1)
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        mu = centre[..., None] + spread[:, None] * nodes
        half = 1 / (bins - 1)
        low = np.where(x0 < -1 + half, -np.inf, x0 - half)[..., None]
        high = np.where(x0 > 1 - half, np.inf, x0 + half)[..., None]
        masses = np.vectorize(mass)((low - mu) / math.sqrt(2 * var), (high - mu) / math.sqrt(2 * var))
        return float((-np.log(masses) @ weights / weights.sum()).sum(1).mean())


def test_every_term_of_linear_gaussian_data_in_closed_form():
    """Two pixels that go together. Rounded to grey levels, yet L_T and L_t ask for mean and covariance only."""
    rng = np.random.RandomState(0)
    root = np.array([[0.30, 0.0], [0.24, 0.10]])
    level = np.rint(((0.1, -0.2) + rng.normal(size=(1000, 2)) @ root.T + 1) * 127.5).clip(0, 255)
    rows = 2 * level / 255 - 1
    oracle = Linear(np.array(BETA), rows.mean(0), np.cov(rows.T, bias=True))
    s = schedules.Schedule.from_betas(BETA)
    x0 = torch.from_numpy(rows).reshape(-1, 1, 2, 1).repeat(60, 1, 1, 1)

    def generator():
        return torch.Generator().manual_seed(3)

    mse = eps_mse(s, oracle, x0, generator=generator(), draws=2, batch=7000)
    assert mse.dtype == torch.float64 and mse.shape == (6,) and mse[0].isnan()
    # The relative spread of a mean of squares of D = 2 numbers is at most 1 for each pair of an image and a time, and
    # of these there are 120 000 times the share of t, which is least for t = T.
    error = 1 / math.sqrt(120_000 * math.log(6 / 5) / math.log(6))
    assert np.abs(mse[1:].numpy() / oracle.mse - 1).max() < 4 * error < 0.05
    assert np.abs(oracle.mse[1:] / oracle.mse[:-1] - 1).min() > 8 * error, "a t that is one off would be seen"

    tables = variances(s, torch.from_numpy(np.concatenate([[math.nan], oracle.mse])))
    tilde = oracle.beta_tilde.copy()
    tilde[0] = tilde[1]
    var = {"beta": np.array(BETA), "beta_tilde": tilde, "optimal": oracle.beta_tilde + oracle.on_eps2 * oracle.mse}
    assert list(tables) == list(var)
    got = bounds(s, oracle, x0, generator=generator(), draws=4, var=tables)
    for name, table in var.items():
        assert np.abs(tables[name][1:].numpy() / table - 1).max() < 1e-12
        found, L_t, L_0 = got[name], oracle.L_t(table), oracle.L_0(rows, table[0], 256)
        assert abs(found.L_T * 2 * LN2 / oracle.L_T() - 1) < 1e-10
        assert abs(found.L_t - L_t.sum() / 2 / LN2) < 4 * found.std_error < 0.03 * L_t.sum() / 2 / LN2
        assert abs(found.L_0 - L_0 / 2 / LN2) < 4 * found.std_error
        assert abs(found.total - (oracle.L_T() + L_t.sum() + L_0) / 2 / LN2) < 4 * found.std_error
        assert np.abs(np.array(found.by_t[2::2]) - L_t / 2 / LN2).max() < 4 * found.std_error
    best, *others = sorted(got.values(), key=lambda b: b.total)
    assert best is got["optimal"] and all(other.total - best.total > 8 * other.std_error for other in others)


@pytest.mark.parametrize(("name", "gap"), [("beta", 1.094071e-3), ("beta_tilde", 0.569928), ("optimal", 1.816352e-6)])
def test_the_numbers_of_chapter_05(name, gap):
    """x_0 ~ N(0.3, 0.25), linear, T = 1000: the bound of chapter 05 lies this gap above the entropy.

    L_T and L_t ask for mean and variance only: pixels -0.2 and 0.8 in equal shares have the same ones. The Gaussian
    decoder of chapter 05 is put in the place of L_0, in closed form.
    """
    s, oracle = schedules.linear(), Linear(np.linspace(1e-4, 0.02, 1000), np.array([0.3]), np.array([[0.25]]))
    table = variances(s, torch.from_numpy(np.concatenate([[math.nan], oracle.mse])))[name]
    x0 = torch.tensor([-0.2, 0.8], dtype=torch.float64).repeat(10_000).reshape(20, 1, 20, 50)

    def model(xt, t):
        return oracle(xt.reshape(-1, 1), t.repeat_interleave(1000)).reshape(xt.shape)

    got = bound(s, model, x0, generator=torch.Generator().manual_seed(0), draws=999, var=table, bins=11)
    L_0 = 0.5 * (math.log(2 * math.pi * table[1].item()) + oracle.on_eps2[0] * oracle.mse[0] / table[1].item())
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert abs(got.L_T * LN2 / oracle.L_T() - 1) < 1e-6
    assert abs((got.L_T + got.L_t) * LN2 + L_0 - entropy - gap) < 4 * got.std_error * LN2 < 0.01 * got.L_t


@pytest.mark.parametrize("toy", [data.two_modes, data.two_moons])
def test_the_optimal_variances_give_the_least_bound(toy):
    """The network is the exact prediction for a mixture of small Gaussians about 60 points of the toy."""
    s, g = schedules.linear(10, 0.02, 0.5), torch.Generator().manual_seed(0)
    points = toy(4060, g).double() / 2.5
    rows = ((points.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    d, centres = rows.shape[1], rows[:60]
    mixture = exact.Mixture([1 / 60] * 60, centres, 0.002 * torch.eye(d).expand(60, d, d))

    def network(xt, t):
        return mixture.eps(s, xt.flatten(1), t).reshape(xt.shape)

    def images(part):
        return rows[part].reshape(-1, 1, 1, d)

    mse = eps_mse(s, network, images(slice(60, 2060)), generator=g, draws=3)
    got = bounds(s, network, images(slice(2060, None)), generator=g, draws=9, var=variances(s, mse))
    assert got["optimal"].total < min(got["beta"].total, got["beta_tilde"].total)
    assert got["optimal"].L_t < min(got["beta"].L_t, got["beta_tilde"].L_t)


# --- mean squared error of eps, variances, codecs ---------------------------------------------------------------------


def test_of_the_exact_prediction_the_error_is_1_less_the_square_of_the_prediction():
    """Two modes on a line: no linear prediction will do. On one line 1 - E[eps_hat^2] by quadrature over x_t."""
    s, g = schedules.Schedule.from_betas(BETA), torch.Generator().manual_seed(1)
    mixture = exact.Mixture([0.3, 0.7], [[-0.6], [0.5]], [[[0.01]], [[0.02]]])
    x0 = mixture.sample(40_000, g).clamp(-1, 1).reshape(-1, 1, 1, 1)

    def model(xt, t):
        return mixture.eps(s, xt.flatten(1), t).reshape(xt.shape)

    got = eps_mse(s, model, x0, generator=g, draws=4)
    x = np.linspace(-6, 6, 20_001)
    for t, abar in enumerate(np.cumprod(1 - np.array(BETA)), start=1):
        weights, centres = np.array([0.3, 0.7]), math.sqrt(abar) * np.array([-0.6, 0.5])
        var = abar * np.array([0.01, 0.02]) + 1 - abar
        parts = weights * np.exp(-((x[:, None] - centres) ** 2) / 2 / var) / np.sqrt(2 * math.pi * var)
        slope = (parts * (centres - x[:, None]) / var).sum(1)
        prediction = -math.sqrt(1 - abar) * slope / parts.sum(1)  # -sqrt(1 - abar) times the score
        want = 1 - (prediction**2 * parts.sum(1)).sum() * (x[1] - x[0])
        assert got[t].item() == pytest.approx(want, rel=0.05) and want < 0.9


@pytest.mark.parametrize(("clip", "x0_hat"), [(False, 1.7), (True, 1.0)])
def test_the_error_of_a_clipped_prediction(clip, x0_hat):
    """A network whose x0_hat is 1.7 everywhere: eps is off by sqrt(SNR) times what x0_hat is off by."""
    s, x0 = schedules.Schedule.from_betas(BETA), pixels(256, 64)

    def network(xt, t):
        return gaussian.eps_from_x0(s, xt, t, torch.full_like(xt, 1.7))

    black = -torch.ones_like(x0)
    got = eps_mse(s, network, black, generator=torch.Generator().manual_seed(0), draws=3, clip_x0=clip)
    abar = np.cumprod(1 - np.array(BETA))
    assert got[1:].tolist() == pytest.approx((abar / (1 - abar) * (1 + x0_hat) ** 2).tolist(), rel=1e-9)


def test_the_optimal_variances_of_a_clipped_prediction_need_its_own_error():
    """A cosine schedule ends with steps that multiply an error of eps by 1000: clipped, it does no harm.

    With the error of the unclipped prediction the variances are far too large, and dearer than those of any rule.
    """
    s, x0 = schedules.cosine(10), pixels(256, 4096)

    def network(xt, t):
        abar = s.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (1 - abar).sqrt() * xt / (abar / 3 + 1 - abar) + 0.2  # the best linear one, and an error

    got = {}
    for clip in (False, True):
        g = torch.Generator().manual_seed(0)
        var = variances(s, eps_mse(s, network, x0, generator=g, draws=8, clip_x0=clip))
        got[clip] = bounds(s, network, x0, generator=g, draws=9, var=var, clip_x0=True)
    best, wrong = got[True]["optimal"], got[False]["optimal"]
    rules = [got[True][name].L_t for name in ("beta", "beta_tilde")]
    assert best.L_t < min(rules) and wrong.L_t > min(rules)
    assert wrong.total - best.total > 8 * (wrong.std_error + best.std_error)


def test_every_t_is_seen_and_early_ones_more_often():
    seen = []

    def recorder(xt, t):
        seen.append(t)
        return torch.zeros_like(xt)

    s, x0 = schedules.linear(50), pixels(256, 40)
    got = eps_mse(s, recorder, x0, generator=torch.Generator().manual_seed(0), draws=12, batch=16)
    count = torch.cat(seen).bincount(minlength=51)
    want = 480 * np.log(1 + 1 / np.arange(1, 51)) / math.log(51)
    assert [len(t) for t in seen] == [16] * 12 + [16] * 12 + [8] * 12
    assert count[0] == 0 and len(count) == 51 and np.abs(count[1:].numpy() - want).max() <= 1
    per_image = torch.cat([torch.stack(seen[i : i + 12], 1) for i in (0, 12, 24)])
    assert (per_image[:, 1:] > per_image[:, :-1]).double().mean() > 0.7, "each image is seen all along the chain"
    assert per_image[:, 0].max() == 1 and per_image[:, -1].min() > 30
    assert abs(got[1:].mean().item() - 1) < 4 * math.sqrt(2 / 2 / 50), "E eps^2 = 1"
    again, other = (
        eps_mse(s, recorder, x0, generator=torch.Generator().manual_seed(seed), draws=12, batch=16) for seed in (0, 1)
    )
    assert torch.equal(again[1:], got[1:]) and not torch.equal(other[1:], got[1:])


def test_too_few_draws_for_every_t_are_refused():
    s, x0 = schedules.linear(50), pixels(256, 5)

    def call(x=x0, draws=10, **how):
        return eps_mse(s, eps_model, x, generator=torch.Generator(), draws=draws, **how)

    with pytest.raises(ValueError, match=r"x0, draws: .* every t = 1\.\.50, got 5 images and 10 draws"):
        call()
    with pytest.raises(ValueError, match="draws, batch: expected at least 1, got 0 and 256"):
        call(draws=0)
    with pytest.raises(ValueError, match="draws, batch: expected at least 1, got 99 and 0"):
        call(draws=99, batch=0)
    with pytest.raises(ValueError, match="x: expected images in"):
        call(3 * x0, draws=99)
    with pytest.raises(ValueError, match="x: expected float images"):
        call(x0.flatten(), draws=99)


def test_no_time_is_rounded_beyond_T():
    """Of 20,000 images the last time of the last one lies within 1e-7 of T + 1: float32 takes it for T + 1."""
    s, x0 = schedules.linear(3), torch.zeros(20_000, 1, 1, 1)
    mse = eps_mse(s, lambda xt, t: 0 * xt, x0, generator=torch.Generator().manual_seed(0), draws=999, batch=20_000)
    assert mse.shape == (4,)


def test_variances_by_hand():
    s, mse = (
        schedules.Schedule.from_betas([0.1, 0.2, 0.4]),
        torch.tensor([math.nan, 0.9, 0.5, 0.25], dtype=torch.float64),
    )
    got = variances(s, mse)
    abar = [1, 0.9, 0.72, 0.432]
    tilde = [b * (1 - abar[i]) / (1 - abar[i + 1]) for i, b in enumerate([0.1, 0.2, 0.4])]
    extra = [b**2 / ((1 - b) * (1 - abar[i + 1])) for i, b in enumerate([0.1, 0.2, 0.4])]
    assert got["beta"][1:].tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert got["beta_tilde"][1:].tolist() == pytest.approx([tilde[1], tilde[1], tilde[2]], rel=1e-12)
    want = [t + e * m for t, e, m in zip(tilde, extra, [0.9, 0.5, 0.25], strict=True)]
    assert got["optimal"][1:].tolist() == pytest.approx(want, rel=1e-12)
    with pytest.raises(ValueError, match="s: expected a schedule with T >= 2, got T = 1"):
        variances(schedules.Schedule.from_betas([0.5]), mse[:2])
    with pytest.raises(ValueError, match="eps_mse: expected a table"):
        variances(s, mse[1:])


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_codecs_cost_what_their_files_weigh(channels):
    noise = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (4, channels, 24, 16)).astype(np.uint8))
    flat = torch.full_like(noise, 7)
    dear, cheap, both = lossless_bits(noise), lossless_bits(flat), lossless_bits(torch.cat([noise, flat]))
    assert list(dear) == ["PNG", "WebP"]
    for codec in dear:
        assert 8 < dear[codec] < 8 + 8 * 100 / (24 * 16 * channels) + 1, "noise cannot be packed"
        assert cheap[codec] < 8 * 100 / (24 * 16 * channels)
        assert both[codec] == pytest.approx((dear[codec] + cheap[codec]) / 2, rel=1e-12)
    files = []
    for image in noise:
        pixels_of = image[0].numpy() if channels == 1 else np.moveaxis(image.numpy(), 0, 2)
        Image.fromarray(pixels_of).save(file := io.BytesIO(), "PNG", optimize=True)
        assert (np.asarray(Image.open(file)) == pixels_of).all()
        files.append(len(file.getvalue()))
    assert dear["PNG"] == pytest.approx(8 * sum(files) / noise.numel(), rel=1e-12)


def test_the_standard_error_is_the_spread_over_repetitions():
    s = schedules.Schedule.from_betas(BETA)
    x0 = torch.full((50, 1, 2, 1), 1 / 255, dtype=torch.float64)  # equal images: only the noise differs
    generator = torch.Generator().manual_seed(2)
    results = [bound(s, eps_model, x0, generator=generator, draws=4) for _ in range(200)]
    spread = np.std([r.total for r in results], ddof=1)
    assert np.mean([r.std_error for r in results]) == pytest.approx(spread, rel=0.2)


def test_the_standard_error_of_two_images_is_half_their_difference():
    s = schedules.Schedule.from_betas(BETA)

    def total(*values):
        x0 = to_float(torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1)).double()

        def oracle(xt, t):  # knows x_0, so that no draw of the noise makes a difference
            return gaussian.eps_from_x0(s, xt, t, x0)

        return bound(s, oracle, x0, generator=torch.Generator().manual_seed(0), draws=4)

    black, grey, both = total(0, 0), total(100, 100), total(0, 100)
    assert black.std_error == pytest.approx(0, abs=1e-9) and abs(black.total - grey.total) > 0.1
    assert both.total == pytest.approx((black.total + grey.total) / 2, rel=1e-9)
    assert both.std_error == pytest.approx(abs(black.total - grey.total) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("draws", "strata"),
    [
        (6, [{2}, {3}, {4}, {5}, {6}, {7}]),
        (2, [{2, 3, 4}, {5, 6, 7}]),
        (1, [{2, 3, 4, 5, 6, 7}]),
        (4, [{2, 3}, {3, 4}, {5, 6}, {6, 7}]),
    ],
)
def test_t_is_stratified_over_2_to_T_and_1_is_always_there(draws, strata):
    seen = []

    def recorder(xt, t):
        seen.append(t)
        return torch.zeros_like(xt)

    bound(schedules.linear(7, 0.1, 0.3), recorder, pixels(256, 400), generator=torch.Generator(), draws=draws)
    ones, times = [t for t in seen if (t == 1).all()], [t for t in seen if not (t == 1).any()]
    assert sum(map(len, ones)) == 400 and len(seen) == len(ones) + len(times)
    per_image = torch.stack([torch.cat(times[k::draws]) for k in range(draws)])  # (draws, images)
    assert per_image.shape == (draws, 400)
    assert [set(row.tolist()) for row in per_image] == strata
    counts = torch.bincount(per_image.flatten(), minlength=8)[2:] / (400 * draws)
    assert (counts - 1 / 6).abs().max() < 4 * math.sqrt(1 / 6 * 5 / 6 / 400)


def test_every_noise_is_standard_normal_and_drawn_by_itself():
    """Of black images x_t tells the noise. The share beyond sqrt(3) tells normal noise from uniform noise."""
    s, noises = schedules.Schedule.from_betas(BETA), []

    def recorder(xt, t):
        noises.append(gaussian.eps_from_x0(s, xt, t, -torch.ones_like(xt)))
        return torch.zeros_like(xt)

    bound(
        s, recorder, -torch.ones(5000, 1, 2, 1, dtype=torch.float64), generator=torch.Generator(), draws=4, batch=5000
    )
    z = torch.stack(noises).reshape(5, 5000, 2)

    def near(x, want, wrong):
        error = x.std().item() / math.sqrt(x.numel())
        assert abs(x.mean().item() - want) < 4 * error and abs(x.mean().item() - wrong) > 8 * error

    near(z[..., 0] * z[..., 1], 0.0, 1.0)
    near(z[:, ::2] * z[:, 1::2], 0.0, 1.0)
    near(z[0:4:2] * z[1:4:2], 0.0, 1.0)
    near(z**2, 1.0, 0.9)
    near((z.abs() > math.sqrt(3)).double(), math.erfc(math.sqrt(1.5)), 0.0)


def test_one_step_has_no_terms_in_between():
    s = schedules.Schedule.from_betas([0.5])
    x0 = pixels(256, 256 * 64)
    got = bound(s, eps_model, x0, generator=torch.Generator().manual_seed(0), draws=3)
    want = expected_terms(pixels(256, 256).flatten().numpy(), [0.5], [0.5], 256).mean(1)
    assert got.L_t == 0 and got.by_t == (got.L_0, *[0] * 9)
    assert abs(got.L_T / want[0] - 1) < 1e-10
    assert abs(got.L_0 - want[1]) < 4 * got.std_error < 0.05 * want[1]


def test_clipping_is_the_bound_of_a_model_whose_x0_hat_stays_in_range():
    s = schedules.Schedule.from_betas(BETA)
    x0 = pixels(256, 512)

    def wild(xt, t):
        return gaussian.eps_from_x0(s, xt, t, torch.where(xt > 0, 7.0, -3.0).double())

    def tame(xt, t):
        return gaussian.eps_from_x0(s, xt, t, torch.where(xt > 0, 1.0, -1.0).double())

    clipped, free, want = (
        bound(s, model, x0, generator=torch.Generator().manual_seed(0), draws=4, clip_x0=clip)
        for model, clip in ((wild, True), (wild, False), (tame, False))
    )
    assert clipped.total == pytest.approx(want.total, rel=1e-9)
    assert free.total > 2 * want.total


def test_float32_images_give_the_same_numbers():
    s = schedules.Schedule.from_betas(BETA)
    x0 = pixels(256, 4000)
    double, single = (
        bound(s, eps_model, x, generator=torch.Generator().manual_seed(3), draws=4) for x in (x0, x0.float())
    )
    assert abs(single.L_T / double.L_T - 1) < 1e-5
    assert single.total == pytest.approx(double.total, rel=0.05)  # torch draws other numbers in float32


@pytest.mark.parametrize(("n", "draws"), [(0, 4), (1, 4), (5, 0), (5, -1)])
def test_too_few_images_or_draws_are_refused(n, draws):
    x0 = pixels(256, 5)[:n]
    with pytest.raises(ValueError, match=rf"x0, draws, batch: .* got {n}, {draws} and 256$"):
        bound(schedules.linear(3), eps_model, x0, generator=torch.Generator(), draws=draws)


def test_bytes_land_on_their_levels():
    u8 = torch.arange(256, dtype=torch.uint8)
    assert torch.allclose(on_levels(u8, 256), to_float(u8), rtol=0, atol=1e-7)
    sixteenths = np.rint(np.arange(17) * 255 / 16).astype(np.uint8)
    want = torch.arange(17) / 8 - 1
    got = on_levels(torch.from_numpy(sixteenths), 17)
    assert got.dtype == torch.float32 and torch.equal(got, want)


def test_the_stated_number_of_grey_levels_is_that_of_the_digits():
    u8 = load("digits", "test").images
    assert len(u8.unique()) == GREY_LEVELS["digits"] == 17
    assert (on_levels(u8, 17) - to_float(u8)).abs().max() < 0.5 / 127
    assert GREY_LEVELS["cifar10"] == 256


def test_bad_variances_batches_and_images_are_refused():
    s, x0 = schedules.Schedule.from_betas(BETA), pixels(256, 8)

    def call(x=x0, **changes):
        bound(s, eps_model, x, generator=torch.Generator().manual_seed(0), draws=1, **changes)

    with pytest.raises(ValueError, match=r"var: expected tables of T \+ 1 = 6 variances > 0, got 'this': shape \(3,\)"):
        call(var=s.beta[:3])
    for t in (1, 3, 5):
        bad = s.beta.clone()
        bad[t] = 0.0
        with pytest.raises(ValueError, match=r"var: .* got 'this': shape \(6,\), minimum 0$"):
            call(var=bad)
    with pytest.raises(ValueError, match="x0, draws, batch: .* got 8, 1 and 0$"):
        call(batch=0)
    with pytest.raises(ValueError, match=r"x: expected images in \[-1, 1\], got values from"):
        call(3 * x0)
    with pytest.raises(ValueError, match="x: expected float images"):
        call((127 * x0).to(torch.uint8))
    with pytest.raises(ValueError, match="x: expected float images"):
        call(x0.flatten())


# --- Fréchet distance -------------------------------------------------------------------------------------------------


def with_moments(n: int, mean: np.ndarray, cov: np.ndarray, seed: int) -> torch.Tensor:
    """(n, d) whose sample mean and (unbiased) sample covariance are exactly these."""
    z = np.random.RandomState(seed).normal(size=(n, len(mean)))
    z -= z.mean(0)
    white = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T
    return torch.from_numpy(white @ np.linalg.cholesky(cov).T + mean)


def test_frechet_of_axis_aligned_gaussians_is_a_sum_over_the_axes():
    """W2^2 of N(m, s^2) and N(n, r^2) is (m - n)^2 + (s - r)^2 on a line, and axes add."""
    a = with_moments(50, np.array([1.0, -2, 0]), np.diag([4.0, 1, 9]), 0)
    b = with_moments(80, np.array([0.0, 1, 0]), np.diag([1.0, 0.25, 16]), 1)
    assert frechet(a, b) == pytest.approx((1 + 9 + 0) + (1 + 0.25 + 1), rel=1e-10)
    assert frechet(a.float(), b.float()) == pytest.approx(12.25, rel=1e-5)
    assert frechet(a[:, :1], b[:, :1]) == pytest.approx(1 + 1, rel=1e-10)


def test_frechet_of_turned_gaussians_by_another_square_root():
    """tr (A B)^(1/2) from the eigenvalues of A B itself, and in the plane from its trace and determinant."""
    rng = np.random.RandomState(2)
    for d in (2, 5):
        A, B = (m @ m.T + 0.1 * np.eye(d) for m in rng.normal(size=(2, d, d)))
        mean_a, mean_b = rng.normal(size=(2, d))
        roots = np.sqrt(np.linalg.eigvals(A @ B).real).sum()
        if d == 2:
            assert roots == pytest.approx(math.sqrt(np.trace(A @ B) + 2 * math.sqrt(np.linalg.det(A @ B))), rel=1e-10)
        want = ((mean_a - mean_b) ** 2).sum() + np.trace(A) + np.trace(B) - 2 * roots
        a, b = with_moments(40, mean_a, A, 3), with_moments(60, mean_b, B, 4)
        assert frechet(a, b) == pytest.approx(want, rel=1e-9)
        assert frechet(b, a) == pytest.approx(want, rel=1e-9)
        apart = np.trace(A) + np.trace(B) - 2 * np.trace(np.linalg.cholesky(A) @ np.linalg.cholesky(B).T)
        assert abs(apart + ((mean_a - mean_b) ** 2).sum() - want) > 0.1, "A and B do not commute: the test has power"


def test_frechet_of_a_cloud_with_itself_is_0_and_dead_features_do_no_harm():
    a = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    a[:, 2], a[:, 3] = 0.0, 2 * a[:, 0]
    assert frechet(a, a) == pytest.approx(0, abs=1e-7)  # half of the digits: the root of a zero eigenvalue
    assert frechet(a, a + torch.tensor([0, 0, 3.0, 0])) == pytest.approx(9, rel=1e-7)
    few, many = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (20, 20_000))
    other = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(1))
    assert frechet(few, other) > 100 * frechet(many, other) > 0, "few rows make it larger, as the docstring says"


@pytest.mark.parametrize("shapes", [((5, 3), (5, 4)), ((1, 3), (5, 3)), ((5, 3), (0, 3)), ((5,), (5,))])
def test_frechet_refuses_what_has_no_covariance(shapes):
    with pytest.raises(ValueError, match="a, b: expected features"):
        frechet(*map(torch.zeros, shapes))


# --- nearest neighbours -----------------------------------------------------------------------------------------------


def test_nearest_by_two_loops():
    g = torch.Generator().manual_seed(0)
    x, reference = torch.randn(7, 1, 2, 3, generator=g), torch.randn(11, 1, 2, 3, generator=g)
    distances, indices = nearest(x, reference)
    assert distances.shape == indices.shape == (7,) and distances.dtype == torch.float64
    for i in range(7):
        by_hand = [math.dist(x[i].flatten().tolist(), row.flatten().tolist()) for row in reference]
        assert indices[i] == int(np.argmin(by_hand))
        assert distances[i].item() == pytest.approx(min(by_hand), rel=1e-12)


def test_a_copy_is_at_distance_0_however_large_the_numbers():
    x = 1e4 + torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    x = x.double()
    distances, indices = nearest(x[:30], x)
    assert (distances == 0).all() and indices.tolist() == list(range(30))
    distances, _ = nearest(x[:30] + 2**-17, x)  # 8 times as far, in 64 dimensions
    assert torch.allclose(distances, torch.tensor(2**-14, dtype=torch.float64), rtol=1e-4, atol=0)


def test_nearest_refuses_other_shapes_and_nothing_to_compare_with():
    for reference in (torch.zeros(3, 1, 2, 4), torch.zeros(0, 1, 2, 3)):
        with pytest.raises(ValueError, match=r"reference: expected \(m, 1, 2, 3\), got"):
            nearest(torch.zeros(2, 1, 2, 3), reference)


# --- the judge --------------------------------------------------------------------------------------------------------


class Ruler(torch.nn.Module):
    """A classifier that can be worked out by hand: the features are the first two pixels, the logits three of them."""

    def features(self, x):
        return x.flatten(1)[:, :2]

    def forward(self, x):
        f = self.features(x)
        return torch.stack([4 * f[:, 0], 4 * f[:, 1], torch.zeros(len(f))], 1)


def some_images(n: int, seed: int, size: int = 2) -> Images:
    rng = np.random.RandomState(seed)
    u8 = torch.from_numpy(rng.randint(0, 256, (n, 1, size, size)).astype(np.uint8))
    return Images(u8, torch.from_numpy(rng.randint(0, 3, n)), "random", ("a", "b", "c"))


def test_the_judge_by_hand():
    train, test = some_images(60, 0), some_images(20, 1)
    g = torch.Generator().manual_seed(2)
    x, y = 2.4 * torch.rand(50, 1, 2, 2, generator=g) - 1.2, torch.randint(3, (50,), generator=g)
    got = judge(x, Ruler(), train, test, y, seed=5)

    def as_seen(u8):
        return u8.reshape(len(u8), 4).astype(np.float64) / 127.5 - 1

    samples = as_seen(np.rint((np.clip(x.numpy().astype(np.float64), -1, 1) + 1) * 127.5))
    real, held_out = as_seen(train.images.numpy()), as_seen(test.images.numpy())

    def probabilities(rows):
        e = np.exp(np.stack([4 * rows[:, 0], 4 * rows[:, 1], 0 * rows[:, 0]], 1))
        return e / e.sum(1, keepdims=True)

    p, p_test = probabilities(samples), probabilities(held_out)
    assert got.n == 50
    assert got.confident == pytest.approx((p.max(1) > 0.8).mean()) and 0.2 < got.confident < 0.8
    assert got.confident_test == pytest.approx((p_test.max(1) > 0.8).mean())
    assert got.accuracy_test == pytest.approx((p_test.argmax(1) == test.labels.numpy()).mean())
    assert got.histogram == tuple(int((p.argmax(1) == k).sum()) for k in range(3)) and sum(got.histogram) == 50
    assert got.hit == pytest.approx((p.argmax(1) == y.numpy()).mean())

    rng, rng_real = np.random.RandomState(5), np.random.RandomState(5)
    distances, distances_real, near = [], [], []
    for _ in range(20):
        some, some_real = samples[rng.permutation(50)[:20]], real[rng_real.permutation(60)[:20]]
        distances.append(frechet(*(torch.from_numpy(rows[:, :2]) for rows in (some, held_out))))
        distances_real.append(frechet(*(torch.from_numpy(rows[:, :2]) for rows in (some_real, held_out))))
        to_train, to_test = (
            np.sqrt(((samples[:, None] - rows[None]) ** 2).sum(2)).min(1) for rows in (some_real, held_out)
        )
        near.append((to_train < to_test).mean())
    assert got.frechet == pytest.approx(np.median(distances), rel=1e-4)
    assert got.frechet_test == pytest.approx(np.median(distances_real), rel=1e-4)
    assert got.nearer_to_train == pytest.approx(np.mean(near))
    assert judge(x, Ruler(), train, test).hit is None
    fewer = judge(x[:30], Ruler(), train, test, seed=5)
    assert fewer.frechet_test == got.frechet_test, "what real images reach does not depend on the samples"


def test_the_judge_sees_what_is_wrong():
    """Copies of the training set, one class only, and grey: each shows in the number that is meant to show it."""
    train, test = some_images(400, 0, size=4), some_images(200, 1, size=4)
    fair = judge(to_float(some_images(400, 2, size=4).images), Ruler(), train, test)
    assert abs(fair.nearer_to_train - 0.5) < 4 * math.sqrt(0.25 / 400) < 0.11
    copies = judge(to_float(train.images), Ruler(), train, test)
    assert abs(copies.nearer_to_train - 0.75) < 4 * math.sqrt(0.25 / 400), "1/2 + 200 / (2 * 400), as documented"
    assert copies.frechet == pytest.approx(copies.frechet_test, rel=0.5)
    one = judge(to_float(train.images[:1]).repeat(200, 1, 1, 1), Ruler(), train, test)
    assert sorted(one.histogram) == [0, 0, 200] and one.frechet > 3 * one.frechet_test
    grey = judge(torch.zeros(200, 1, 4, 4), Ruler(), train, test)
    assert grey.confident == 0 < fair.confident


def test_the_judge_wants_as_many_samples_as_test_images():
    with pytest.raises(ValueError, match="x: expected at least 20 samples, as many as test images, got 19"):
        judge(torch.zeros(19, 1, 2, 2), Ruler(), some_images(60, 0), some_images(20, 1))
    with pytest.raises(ValueError, match="train: expected at least 20 images, as many as test images, got 19"):
        judge(torch.zeros(20, 1, 2, 2), Ruler(), some_images(19, 0), some_images(20, 1))
    with pytest.raises(ValueError, match=r"y: expected a class for each of 20 samples, got a torch.int64 .* \(19,\)"):
        judge(torch.zeros(20, 1, 2, 2), Ruler(), some_images(60, 0), some_images(20, 1), torch.arange(19))


# --- precision and recall, memorisation, the comparison ---------------------------------------------------------------


def test_precision_and_recall_by_loops():
    rng = np.random.RandomState(0)
    real, samples = rng.normal(size=(30, 3)), 0.9 * rng.normal(size=(40, 3)) + 1

    def held(points, centres, k):
        radii = [sorted(math.dist(c, other) for other in centres)[k] for c in centres]  # [0] is c itself
        return np.mean([any(math.dist(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points])

    found = {}
    for k in (1, 3, 5):
        found[k] = precision_recall(torch.from_numpy(real), torch.from_numpy(samples), k)
        assert found[k] == pytest.approx((held(samples, real, k), held(real, samples, k)))
    assert precision_recall(torch.from_numpy(real), torch.from_numpy(samples)) == found[3]
    assert found[1][0] < found[3][0] < 1 and found[1][1] < found[3][1] < 1 and found[3][0] != found[3][1]


def test_precision_and_recall_tell_missing_variety_from_missing_quality():
    g = torch.Generator().manual_seed(0)
    real = torch.randn(1200, 2, generator=g)  # more than go through at once
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    precision, recall = precision_recall(real, real[real[:, 0] > 0])
    assert precision == 1 and 0.4 < recall < 0.65, "half of it"
    precision, recall = precision_recall(real[real[:, 0] > 0], real)
    assert 0.4 < precision < 0.65 and recall == 1, "and twice as much as there is"


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((3, 2), (9, 2)), ((9, 2), (3, 2)), ((9,), (9,))])
def test_precision_and_recall_refuse_too_few_points(shapes):
    with pytest.raises(ValueError, match="real, samples, k: expected features"):
        precision_recall(*map(torch.zeros, shapes))
    with pytest.raises(ValueError, match="real, samples, k: .*, 0$"):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 2), k=0)


def photographs(n: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randint(0, 256, (n, 3, 4, 4)).astype(np.uint8))


def test_memorisation_by_loops():
    samples, train, test = photographs(12, 0), photographs(700, 1), photographs(9, 2)
    samples[4] = train[650].flip(-1)  # a mirrored copy, beyond what is compared at once
    samples[7] = train[3] // 2 + 64

    def nearest_of(u8):
        def distance(a, b):
            return math.sqrt(sum((float(p) - float(q)) ** 2 for p, q in zip(a.flatten(), b.flatten(), strict=True)))

        both = [
            [min(distance(x, y), distance(x, y.flip(-1))) / 127.5 for y in train[:: 50 if len(u8) > 12 else 1]]
            for x in u8
        ]
        return [(min(row), int(np.argmin(row))) for row in both]

    found = memorisation(samples, train, test)
    want, want_test = nearest_of(samples), nearest_of(test)
    assert found.to_train == pytest.approx(np.median([d for d, _ in want]), rel=1e-12)
    assert found.test_to_train == pytest.approx(np.median([d for d, _ in want_test]), rel=1e-12)
    assert found.ratio == found.to_train / found.test_to_train
    order = sorted(range(12), key=lambda i: want[i][0])[:8]
    assert [pair[:2] for pair in found.closest] == [(i, want[i][1]) for i in order]
    assert [pair[2] for pair in found.closest] == pytest.approx([want[i][0] for i in order], rel=1e-12)
    assert found.closest[0] == (4, 650, 0.0)
    assert memorisation(train[:5], train, test).ratio == 0
    assert len(memorisation(samples[:5], train, test).closest) == 5
    assert memorisation(samples, train, test, pairs=2).closest == found.closest[:2]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            (photographs(9, 0), photographs(9, 1)[..., :3], photographs(9, 2)),
            "train: expected images of shape (3, 4, 4)",
        ),
        ((photographs(9, 0), photographs(9, 1), photographs(0, 2)), "test: expected images of shape (3, 4, 4)"),
        ((photographs(9, 0), photographs(9, 1), photographs(9, 1)), "test: expected images that are not in train"),
    ],
)
def test_memorisation_refuses(sets, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        memorisation(*sets)


def test_the_comparison_by_hand():
    rng = np.random.RandomState(0)
    u8 = [torch.from_numpy(rng.randint(0, 256, (n, 3, 8, 8)).astype(np.uint8)) for n in (70, 40)]
    train, test = (Images(x, torch.from_numpy(rng.randint(0, 3, len(x))), "random", ("a", "b", "c")) for x in u8)
    x = 2.4 * torch.rand(25, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - 1.2
    found = compare(x, Ruler(), train, test, seed=6)

    order = np.random.RandomState(6)
    some, real = order.permutation(40)[:25], order.permutation(70)[:25]
    samples, held_out, trained_on = ((x.clamp(-1, 1) + 1) * 127.5).round().byte(), u8[1][some], u8[0][real]

    def features(images):
        return images.reshape(-1, 192)[:, :2].double() / 127.5 - 1

    def probabilities(images):
        f = 4 * features(images).numpy()
        e = np.exp(np.column_stack([f, np.zeros(len(f))]))
        return e / e.sum(1, keepdims=True)

    p, p_test, held_out_f = probabilities(samples), probabilities(held_out), features(held_out)
    assert found.n == 25 == sum(found.histogram)
    assert found.frechet == pytest.approx(frechet(features(samples), held_out_f), rel=1e-4)
    assert found.frechet_test == pytest.approx(frechet(features(trained_on), held_out_f), rel=1e-4)
    assert found.confident == pytest.approx((p.max(1) > 0.8).mean()) != (p_test.max(1) > 0.8).mean()
    assert found.confident_test == pytest.approx((p_test.max(1) > 0.8).mean())
    assert found.accuracy_test == pytest.approx((p_test.argmax(1) == test.labels.numpy()[some]).mean())
    assert found.histogram == tuple(int((p.argmax(1) == k).sum()) for k in range(3))
    assert (found.precision, found.recall) == precision_recall(held_out_f, features(samples))
    assert (found.precision_test, found.recall_test) == precision_recall(held_out_f, features(trained_on))
    assert len({found.precision, found.recall, found.precision_test}) == 3, "so that none can be mixed up"
    assert found.memorisation == memorisation(samples, train.images, held_out)

    blurred, coarse = [], []
    for image in np.moveaxis(trained_on.numpy(), 1, 3):
        blurred.append(np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1))))
        Image.fromarray(image).save(file := io.BytesIO(), "JPEG", quality=10)
        coarse.append(np.asarray(Image.open(file)))
    z = torch.randn(25, 3, 8, 8, generator=torch.Generator().manual_seed(6)).numpy()
    noisy = np.rint((trained_on.numpy() / 127.5 + 0.1 * z).clip(0, 2) * 127.5)
    worse = {"noise": noisy, "blur": np.moveaxis(blurred, 3, 1), "jpeg": np.moveaxis(coarse, 3, 1)}
    assert list(found.controls) == list(worse)
    for how, images in worse.items():
        want = frechet(features(torch.from_numpy(images.astype(np.float64))), held_out_f)
        assert found.controls[how] == pytest.approx(want, rel=1e-4) != found.frechet_test
    assert compare(x, Ruler(), train, test) != found, "seed 0"


def test_the_comparison_of_images_with_one_channel_and_its_seed():
    train, test = some_images(30, 0, size=4), some_images(20, 1, size=4)
    x = to_float(some_images(20, 2, size=4).images)
    found = compare(x, Ruler(), train, test)
    assert found == compare(x, Ruler(), train, test, seed=0) and found.controls.keys() == {"noise", "blur", "jpeg"}
    copies = compare(to_float(train.images[:20]), Ruler(), train, test)
    assert copies.memorisation.ratio == 0 < found.memorisation.ratio


@pytest.mark.parametrize(("n", "n_train", "most"), [(3, 30, 20), (21, 30, 20), (20, 19, 19), (0, 30, 20)])
def test_the_comparison_wants_equal_numbers(n, n_train, most):
    with pytest.raises(ValueError, match=rf"x: expected 4\.\.{most} samples, .* test images, got {n}$"):
        compare(torch.zeros(n, 1, 2, 2), Ruler(), some_images(n_train, 0), some_images(20, 1))
