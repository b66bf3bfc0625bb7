"""How good a trained model is: the bound of a set of images in bits/dim, and what a classifier says of its samples."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm_edu import elbo
from ddpm_edu.classifier import Classifier, accuracy
from ddpm_edu.data import Images, check_images, to_float, to_uint8
from ddpm_edu.gaussian import posterior_mean_var, q_sample, x0_from_eps
from ddpm_edu.sampling import EpsModel
from ddpm_edu.schedules import Schedule, at

GREY_LEVELS = {"digits": 17, "cifar10": 256}
CONFIDENT = 0.8  # a class is sure if its probability is larger
RESAMPLES = 20


@dataclass(frozen=True)
class Bound:
    """The bound of Eq. 5 (Ho et al. 2020) averaged over ``n`` images, every number in bits/dim."""

    L_T: float  # the prior term
    L_t: float  # the sum of L_{t-1} over t = 2..T
    L_0: float  # the discretised decoder
    total: float
    std_error: float  # of the total, from its spread over the images
    n: int


def on_levels(u8: Tensor, levels: int) -> Tensor:
    """Bytes that stand for ``levels`` evenly spaced grey levels, as float32 exactly on those levels in [-1, 1].

    With 256 this is `data.to_float`. The digits have 17, and their bytes are the rounded ones: a decoder with 256 bins
    would charge them for 239 values that no pixel ever takes, with 17 the bits/dim say what the digits cost.
    """
    return (u8.double() * (levels - 1) / 255).round().mul(2 / (levels - 1)).sub(1).float()


@torch.no_grad()
def bound(
    s: Schedule,
    eps_model: EpsModel,
    x0: Tensor,
    *,
    generator: torch.Generator,
    draws: int,
    var: Tensor | None = None,
    bins: int = 256,
    clip_x0: bool = False,
    batch: int = 256,
) -> Bound:
    """An unbiased estimate of E_q[L_T + sum_{t=2..T} L_{t-1} + L_0] for images ``x0`` (N, C, H, W), N >= 2 (Eq. 5).

    L_T is exact. L_0 uses one draw of x_1 for each image and sigma_1^2 = beta_1, whatever ``var`` says (the posterior
    variance is 0 at t = 1). The sum is T - 1 times the mean over ``draws`` values of t, one from each of ``draws``
    equal parts of 2..T, each with noise of its own: draws = T - 1 takes every t once. ``var`` is the table (T + 1,) of
    sampling variances, by default ``s.beta``. ``bins`` is the number of grey levels that x0 has, evenly spaced over
    [-1, 1] (see `on_levels`); bits/dim of images with different numbers of levels cannot be compared. ``clip_x0`` clips
    x0_hat before the mean of p is formed, as `sampling.sample` does: then it is the bound of that sampler. ``batch`` is
    the number of images that the network sees at once. ValueError for N < 2, draws < 1 and x0 off its levels.
    """
    if len(x0) < 2 or draws < 1:
        raise ValueError(f"x0, draws: expected at least 2 images and 1 draw, got {len(x0)} and {draws}")
    var = s.beta if var is None else var
    if var.shape != s.beta.shape or batch < 1:
        raise ValueError(
            f"var, batch: expected T + 1 = {s.T + 1} variances, batch >= 1, got {tuple(var.shape)}, {batch}"
        )
    check_images(x0, x0.shape[1])

    def noisy_and_mu(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        xt = q_sample(s, x, t, eps)
        x0_hat = x0_from_eps(s, xt, t, eps_model(xt, t))
        return xt, posterior_mean_var(s, x0_hat.clamp(-1, 1) if clip_x0 else x0_hat, xt, t)[0]

    terms = []
    for x in torch.split(x0, batch):
        t = torch.ones(len(x), dtype=torch.int64, device=x.device)
        L_0 = elbo.L_0_discrete(x, noisy_and_mu(x, t)[1], at(s.beta, t, x).to(x.dtype), bins)
        L_t = torch.zeros_like(L_0)
        for k in range(draws if s.T > 1 else 0):
            u = torch.rand(len(x), generator=generator, device=x.device, dtype=torch.float64)
            t = 2 + ((s.T - 1) * (k + u) / draws).long()
            xt, mu = noisy_and_mu(x, t)
            L_t += elbo.L_t(s, x, xt, t, mu, at(var, t, x).to(x.dtype)) * (s.T - 1) / draws
        terms.append(torch.stack([elbo.L_T(s, x), L_t, L_0]).double())
    bits = elbo.bits_per_dim(torch.cat(terms, dim=1), x0[0].numel())  # (3, N)
    total = bits.sum(0)
    L_T, L_t_sum, L_0_mean = bits.mean(1).tolist()
    return Bound(L_T, L_t_sum, L_0_mean, total.mean().item(), (total.std() / len(x0) ** 0.5).item(), len(x0))


def frechet(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two clouds of features (n, d), (m, d), as if both were Gaussian (Heusel et al. 2017).

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) with the covariances A and B: the squared Wasserstein-2 distance of
    the Gaussians with these moments. tr (A B)^(1/2) is the sum of the square roots of the eigenvalues of
    A^(1/2) B A^(1/2), which is symmetric. In float64. With few rows it is too large: two samples of the same law are
    not at 0, so compare equal numbers of rows. ValueError unless both have at least 2 rows and the same d.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"a, b: expected features (n, d), (m, d), n, m > 1, got {tuple(a.shape)}, {tuple(b.shape)}")
    a, b = a.double(), b.double()
    A, B = (x.T.cov().reshape(a.shape[1], -1) for x in (a, b))  # of one feature, cov is a number
    eigenvalues, vectors = torch.linalg.eigh(A)
    root = vectors * eigenvalues.clamp(min=0).sqrt() @ vectors.T  # A^(1/2); rounding can make an eigenvalue negative
    overlap = torch.linalg.eigvalsh(root @ B @ root).clamp(min=0).sqrt().sum()
    squared: Tensor = (a.mean(0) - b.mean(0)).square().sum() + A.trace() + B.trace() - 2 * overlap
    return squared.item()


def nearest(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``x`` (n, ...) the Euclidean distance to the nearest of ``reference`` (m, ...), and its index, (n,).

    In float64, from differences (and not from |x|^2 + |y|^2 - 2 x y, whose rounding turns a copy into a near miss).
    ValueError for other shapes and an empty reference.
    """
    if x.shape[1:] != reference.shape[1:] or len(reference) == 0:
        raise ValueError(f"reference: expected (m, {', '.join(map(str, x.shape[1:]))}), got {tuple(reference.shape)}")
    rows, columns = x.double().flatten(1), reference.double().flatten(1)
    distances, indices = torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    return distances, indices


@dataclass(frozen=True)
class Judgement:
    """What a classifier and the real images say of ``n`` samples; see `judge`."""

    n: int
    confident: float  # share of the samples whose class is sure
    confident_test: float  # the same of the test images
    accuracy_test: float  # the classifier's, on the test images
    histogram: tuple[int, ...]  # samples of each class
    frechet: float  # of the samples from the test images
    frechet_test: float  # of the training images from the test images: what real images reach
    nearer_to_train: float  # share of the samples nearer to a training image than to a test image; 1/2: no preference
    hit: float | None  # share of the samples that are of the class asked for


@torch.no_grad()
def judge(
    x: Tensor, classifier: Classifier, train: Images, test: Images, y: Tensor | None = None, seed: int = 0
) -> Judgement:
    """Compare samples ``x`` (n, C, H, W) with real images: those that were trained on, and as many as ``test`` others.

    The samples are clamped and rounded to bytes, as the real ones are. A class is sure with probability > 0.8.
    Both Fréchet distances are medians over 20 resamples: each draws len(test) features, without replacement, out of
    those of the samples (of the training images) and compares them with those of all test images. For
    ``nearer_to_train`` each resample draws len(test) training images, so that both sides offer equally many; it is the
    mean share, and would be about 1/2 + len(test) / (2 len(train)) if every sample were a copy of a training image.
    ``y``: the classes that were asked for, int64 (n,). ValueError for fewer samples, or training images, than test
    images.
    """
    m = len(test.images)
    for name, images, what in (("x", x, "samples"), ("train", train.images, "images")):
        if len(images) < m:
            raise ValueError(f"{name}: expected at least {m} {what}, as many as test images, got {len(images)}")
    x, real, held_out = to_float(to_uint8(x)), to_float(train.images), to_float(test.images)
    p, p_test = classifier(x).softmax(1), classifier(held_out).softmax(1)
    f, f_real, f_test = classifier.features(x), classifier.features(real), classifier.features(held_out)
    to_test, near = nearest(x, held_out)[0], []
    distances, distances_real = [], []
    # Two streams, so that what real images reach does not depend on n; numpy promises never to change them.
    rng, rng_real = np.random.RandomState(seed), np.random.RandomState(seed)
    for _ in range(RESAMPLES):
        some, some_real = (torch.from_numpy(g.permutation(len(z))[:m]) for g, z in ((rng, x), (rng_real, real)))
        distances.append(frechet(f[some], f_test))
        distances_real.append(frechet(f_real[some_real], f_test))
        near.append((nearest(x, real[some_real])[0] < to_test).double().mean().item())
    return Judgement(
        n=len(x),
        confident=_share(p.max(1).values > CONFIDENT),
        confident_test=_share(p_test.max(1).values > CONFIDENT),
        accuracy_test=accuracy(classifier, test),
        histogram=tuple(p.argmax(1).bincount(minlength=p.shape[1]).tolist()),
        frechet=float(np.median(distances)),
        frechet_test=float(np.median(distances_real)),
        nearer_to_train=float(np.mean(near)),
        hit=None if y is None else _share(p.argmax(1) == y),
    )


def _share(yes: Tensor) -> float:
    return yes.double().mean().item()
