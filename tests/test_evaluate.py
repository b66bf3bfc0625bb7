"""Tests of ddpm_edu.evaluate: the bound against sums and integrals worked out here, for one-pixel images."""

import math

import numpy as np
import pytest
import torch

from ddpm_edu import gaussian, schedules
from ddpm_edu.data import load, to_float
from ddpm_edu.evaluate import GREY_LEVELS, bound, on_levels

BETA = [0.02, 0.1, 0.3, 0.6, 0.9]  # large steps: a slip in t or in a variance moves every term
SLOPE, OFFSET = [0.3, 0.5, 0.9, 0.8, 1.0], [0.1, -0.2, 0.05, 0.3, -0.1]  # eps_hat = SLOPE_t x_t + OFFSET_t
LN2 = math.log(2)


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
    """L_T, the sum over t = 2..T, L_0 in bits for each pixel: x_t is integrated out, no sampling."""
    beta = np.array(betas)
    alpha_bar = np.cumprod(1 - beta)
    T = len(beta)
    mean, var = math.sqrt(alpha_bar[-1]) * x0, 1 - alpha_bar[-1]
    L_T = 0.5 * (mean**2 + var - 1 - math.log(var))

    L_t = np.zeros_like(x0)
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
        L_t += 0.5 * (tilde_var / sigma2[i] - 1 - math.log(tilde_var / sigma2[i]) + square / sigma2[i])

    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    x1 = math.sqrt(1 - beta[0]) * x0[:, None] + math.sqrt(beta[0]) * nodes
    mu = (x1 - math.sqrt(beta[0]) * (SLOPE[0] * x1 + OFFSET[0])) / math.sqrt(1 - beta[0])
    edges = [x0 - 1 / (bins - 1), x0 + 1 / (bins - 1)]
    edges = np.where(x0 < -1 + 1 / bins, -np.inf, edges[0]), np.where(x0 > 1 - 1 / bins, np.inf, edges[1])
    z = [(edge[:, None] - mu) / math.sqrt(2 * beta[0]) for edge in edges]
    L_0 = -np.log(np.vectorize(mass)(*z)) @ weights / weights.sum()
    return np.stack([L_T, L_t, L_0]) / LN2


def posterior_var(betas: list[float]) -> list[float]:
    alpha_bar = np.cumprod(1 - np.array(betas))
    return [0.0] + [betas[i] * (1 - alpha_bar[i - 1]) / (1 - alpha_bar[i]) for i in range(1, len(betas))]


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
    # A slip of 5 % in a term would be seen: 4 standard errors are less than that.
    assert 4 * got.std_error < 0.05 * want[1]
    assert abs(got.L_t - want[1]) < 4 * got.std_error
    assert abs(got.L_0 - want[2]) < 4 * got.std_error
    assert got.total == pytest.approx(got.L_T + got.L_t + got.L_0, rel=1e-12)
    assert got.n == len(x0)


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
    assert got.L_t == 0
    assert abs(got.L_T / want[0] - 1) < 1e-10
    assert abs(got.L_0 - want[2]) < 4 * got.std_error < 0.05 * want[2]


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
    with pytest.raises(ValueError, match=rf"x0, draws: .* got {n} and {draws}$"):
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

    with pytest.raises(ValueError, match=r"var, batch: expected T \+ 1 = 6 variances, batch >= 1, got \(3,\), 256"):
        call(var=s.beta[:3])
    with pytest.raises(ValueError, match="var, batch: .*, 0"):
        call(batch=0)
    with pytest.raises(ValueError, match=r"x: expected images in \[-1, 1\], got values from"):
        call(3 * x0)
    with pytest.raises(ValueError, match="x: expected float images"):
        call((127 * x0).to(torch.uint8))
