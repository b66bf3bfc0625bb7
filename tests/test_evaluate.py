"""Tests of ddpm_edu.evaluate: the bound against integrals for one-pixel images, the judge and its parts by hand."""

import math

import numpy as np
import pytest
import torch

from ddpm_edu import gaussian, schedules
from ddpm_edu.data import Images, load, to_float
from ddpm_edu.evaluate import GREY_LEVELS, bound, frechet, judge, nearest, on_levels

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
