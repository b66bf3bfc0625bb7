"""How good a trained model is: the bound of a set of images in bits/dim, and what a classifier says of its samples.

For a small data set, the digits, `judge` takes many samples and draws from them again and again. For a large one,
CIFAR-10, `compare` sets as many samples beside as many real images, once.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ddpm_edu import elbo
from ddpm_edu.classifier import PART, Classifier, accuracy
from ddpm_edu.data import Images, check_images, to_float, to_uint8
from ddpm_edu.gaussian import eps_from_x0, posterior_mean_var, q_sample, x0_from_eps
from ddpm_edu.sampling import EpsModel, beta_tilde, optimal_var
from ddpm_edu.schedules import Schedule, at
from ddpm_edu.tables import describe

GREY_LEVELS = {"digits": 17, "cifar10": 256}
CONFIDENT = 0.8  # a class is sure if its probability is larger
RESAMPLES = 20
PARTS_OF_T = 10  # as in the training log


@dataclass(frozen=True)
class Bound:
    """The bound of Eq. 5 (Ho et al. 2020) averaged over ``n`` images, every number in bits/dim."""

    L_T: float  # the prior term
    L_t: float  # the sum of L_{t-1} over t = 2..T
    L_0: float  # the discretised decoder
    total: float
    std_error: float  # of the total, from its spread over the images
    n: int
    by_t: tuple[float, ...]  # L_t + L_0 split over ten equal parts of t = 1..T, the first of which holds L_0


def on_levels(u8: Tensor, levels: int) -> Tensor:
    """Bytes that stand for ``levels`` evenly spaced grey levels, as float32 exactly on those levels in [-1, 1].

    With 256 this is `data.to_float` up to rounding. The digits have 17, and their bytes are the rounded ones: a decoder
    with 256 bins would charge them for 239 values that no pixel ever takes, with 17 the bits/dim say what they cost.
    """
    return (u8.double() * (levels - 1) / 255).round().mul(2 / (levels - 1)).sub(1).float()


@torch.no_grad()
def bounds(
    s: Schedule,
    eps_model: EpsModel,
    x0: Tensor,
    *,
    generator: torch.Generator,
    draws: int,
    var: dict[str, Tensor],
    bins: int = 256,
    clip_x0: bool = False,
    batch: int = 256,
) -> dict[str, Bound]:
    """Unbiased estimates of E_q[L_T + sum_{t=2..T} L_{t-1} + L_0] for images ``x0`` (N, C, H, W), N >= 2 (Eq. 5).

    One for each table (T + 1,) of sampling variances in ``var``, under its name, all from the same calls of the network
    (see `variances`). L_T is exact. L_0 uses one draw of x_1 for each image and sigma_1^2 = var_1. The sum is T - 1
    times the mean over ``draws`` values of t, one from each of ``draws`` equal parts of 2..T, each with noise of its
    own: draws = T - 1 takes every t once. ``bins`` is the number of grey levels that x0 has, evenly spaced over [-1, 1]
    (see `on_levels`); bits/dim of images with different numbers of levels cannot be compared. ``clip_x0`` clips x0_hat
    before the mean of p is formed, as `sampling.sample` does: then it is the bound of that sampler. ``batch`` is the
    number of images that the network sees at once. ValueError for N < 2, draws < 1, batch < 1, x0 off its levels, and
    unless each table has T + 1 entries that are > 0 from t = 1 on.
    """
    if len(x0) < 2 or draws < 1 or batch < 1:
        got = f"{len(x0)}, {draws} and {batch}"
        raise ValueError(f"x0, draws, batch: expected at least 2 images, 1 draw and 1 image at once, got {got}")
    _check_tables(s, var)
    check_images(x0)

    def noisy_and_mu(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        xt = q_sample(s, x, t, eps)
        x0_hat = x0_from_eps(s, xt, t, eps_model(xt, t))
        return xt, posterior_mean_var(s, x0_hat.clamp(-1, 1) if clip_x0 else x0_hat, xt, t)[0]

    nats: dict[str, list[Tensor]] = {name: [] for name in var}  # of each batch: L_T, L_0, then L_t by t
    for x in torch.split(x0, batch):
        one = torch.ones(len(x), dtype=torch.int64, device=x.device)
        _, mu = noisy_and_mu(x, one)
        for name, table in var.items():
            terms = torch.zeros(2 + PARTS_OF_T, len(x), dtype=torch.float64, device=x.device)
            terms[0] = elbo.L_T(s, x)
            terms[1] = elbo.L_0_discrete(x, mu, at(table, one, x).to(x.dtype), bins)
            nats[name].append(terms)
        for k in range(draws if s.T > 1 else 0):
            u = torch.rand(len(x), generator=generator, device=x.device, dtype=torch.float64)
            t = 2 + ((s.T - 1) * (k + u) / draws).long()
            xt, mu = noisy_and_mu(x, t)
            row = 2 + (t - 1) * PARTS_OF_T // s.T
            for name, table in var.items():
                L_t = elbo.L_t(s, x, xt, t, mu, at(table, t, x).to(x.dtype)).double() * (s.T - 1) / draws
                nats[name][-1].scatter_add_(0, row[None], L_t[None])
    return {name: _average(torch.cat(parts, dim=1), x0[0].numel()) for name, parts in nats.items()}


def _average(nats: Tensor, dims: int) -> Bound:
    """The rows of ``nats`` (2 + PARTS_OF_T, N) are L_T, L_0 and the sum of the L_t in each part of 2..T."""
    bits = elbo.bits_per_dim(nats, dims)
    total, mean = bits.sum(0), bits.mean(1)
    L_T, L_0, by_t = mean[0].item(), mean[1].item(), mean[2:].clone()
    L_t = by_t.sum().item()
    by_t[0] += L_0
    std_error = total.std() / len(total) ** 0.5
    return Bound(L_T, L_t, L_0, total.mean().item(), std_error.item(), len(total), tuple(by_t.tolist()))


def _check_tables(s: Schedule, var: dict[str, Tensor]) -> None:
    for name, table in var.items():
        if table.shape != s.beta.shape or not (table[1:] > 0).all():
            got = f"shape {tuple(table.shape)}, minimum {table[1:].min().item() if len(table) > 1 else math.nan:g}"
            raise ValueError(f"var: expected tables of T + 1 = {s.T + 1} variances > 0, got {name!r}: {got}")


@torch.no_grad()
def eps_mse(
    s: Schedule,
    eps_model: EpsModel,
    x0: Tensor,
    *,
    generator: torch.Generator,
    draws: int,
    clip_x0: bool = False,
    batch: int = 256,
) -> Tensor:
    """E||eps - eps_hat||^2 / D for each t, measured on images ``x0`` (N, C, H, W): (T + 1,), NaN at 0.

    eps_hat is eps_model(x_t, t), or with ``clip_x0`` the one that belongs to the clipped x0_hat. For the exact
    prediction E[eps | x_t] it is 1 - E||E[eps | x_t]||^2 / D. Each image is seen at ``draws`` values of t,
    evenly spaced in ln t: most of them early, where the error decides on the optimal variance and differs most from
    image to image. ``batch`` images go through the network at once. ValueError where N draws, which should be some
    T ln T, are so few that some t is not seen at all.
    """
    if draws < 1 or batch < 1:
        raise ValueError(f"draws, batch: expected at least 1, got {draws} and {batch}")
    check_images(x0)
    image, draw = torch.arange(len(x0))[:, None], torch.arange(draws)
    every_t = torch.pow(s.T + 1.0, (draw + (image + 0.5).double() / len(x0)) / draws).long().to(x0.device)  # (N, draws)
    count = every_t.flatten().bincount(minlength=s.T + 1)
    if not count[1:].all():
        got = f"{len(x0)} images and {draws} draws"
        raise ValueError(f"x0, draws: expected enough of both to see every t = 1..{s.T}, got {got}")

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        eps_hat = eps_model(xt, t)
        return eps_from_x0(s, xt, t, x0_from_eps(s, xt, t, eps_hat).clamp(-1, 1)) if clip_x0 else eps_hat

    total = torch.zeros(s.T + 1, dtype=torch.float64, device=x0.device)
    for x, times in zip(torch.split(x0, batch), torch.split(every_t, batch), strict=True):
        for t in times.T:
            eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            total.index_add_(0, t, elbo.loss_simple(s, predict, x, t, eps).double())
    mean: Tensor = total / count
    return mean.cpu()


def variances(s: Schedule, mse: Tensor) -> dict[str, Tensor]:
    """Tables (T + 1,) of sampling variances by name: "beta", "beta_tilde", and "optimal" for a network's `eps_mse`.

    beta_tilde_1 is 0, a decoder that must not err: as in the original code, beta_tilde_2 stands there instead.
    "optimal" is `sampling.optimal_var`: with mse_t = E||eps - eps_hat||^2 / D it minimises the mean of each L_t, be
    eps_hat exact or not; a bound with a clipped x0_hat needs the mse of that one. ValueError for T = 1, and for mse as
    there.
    """
    if s.T < 2:
        raise ValueError("s: expected a schedule with T >= 2, got T = 1")
    tilde = beta_tilde(s)
    tilde[1] = tilde[2]
    return {"beta": s.beta, "beta_tilde": tilde, "optimal": optimal_var(s, mse)}


def lossless_bits(u8: Tensor) -> dict[str, float]:
    """Bits per dimension of uint8 (N, C, H, W), C = 1 or 3, as PNG and as lossless WebP, a file for each image."""
    settings: dict[str, dict[str, Any]] = {"PNG": {"optimize": True}, "WebP": {"lossless": True, "quality": 100}}
    return {
        codec: 8 * sum(len(_file(image, codec, **how)) for image in u8) / u8.numel() for codec, how in settings.items()
    }


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
    images, and for another number of classes.
    """
    m = len(test.images)
    if y is not None and y.shape != x.shape[:1]:
        raise ValueError(f"y: expected a class for each of {len(x)} samples, got {describe(y)}")
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


@torch.no_grad()
def precision_recall(real: Tensor, samples: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of ``samples`` (m, d) against ``real`` features (n, d) (Kynkäänniemi et al. 2019, Eq. 1, 2).

    Around each point lies a ball that reaches to its k-th nearest neighbour in its own set. Precision is the share of
    the samples that some ball of a real one holds, recall the share of the real ones that some ball of a sample holds.
    Both depend on n and m. ValueError unless both sets have more than k >= 1 rows of the same length.
    """
    if (
        real.ndim != 2
        or samples.ndim != 2
        or real.shape[1] != samples.shape[1]
        or not 1 <= k < min(map(len, (real, samples)))
    ):
        got = f"{tuple(real.shape)}, {tuple(samples.shape)}, {k}"
        raise ValueError(f"real, samples, k: expected features (n, d), (m, d) with n, m > k >= 1, got {got}")

    def distances(part: Tensor, points: Tensor) -> Tensor:
        return torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist")

    def held(points: Tensor, centres: Tensor) -> float:
        """The share of ``points`` inside a ball around one of ``centres``, which are 0 away from themselves."""
        own = [distances(part, centres).topk(k + 1, largest=False).values[:, -1] for part in torch.split(centres, PART)]
        radii = torch.cat(own)
        return _share(torch.cat([(distances(part, centres) <= radii).any(1) for part in torch.split(points, PART)]))

    real, samples = real.double(), samples.double()
    return held(samples, real), held(real, samples)


@dataclass(frozen=True)
class Memorisation:
    """Are samples nearer to what was trained on than unseen images are? Distances of pixels scaled to [-1, 1]."""

    ratio: float  # of the next two: 0 for copies, about 1 for new images; blurred ones are nearer to everything
    to_train: float  # median distance of a sample from the nearest training image, mirror images included
    test_to_train: float  # the same of the test images
    closest: tuple[tuple[int, int, float], ...]  # the closest pairs: sample, training image, distance


def memorisation(samples: Tensor, train: Tensor, test: Tensor, pairs: int = 8) -> Memorisation:
    """Distances in pixel space, all images uint8 (n, C, H, W); see `Memorisation`. Medians as numpy takes them.

    ValueError for images of different shapes, and where half of the test images are training images.
    """
    for name, images in (("train", train), ("test", test)):
        if images.shape[1:] != samples.shape[1:] or len(images) == 0:
            raise ValueError(f"{name}: expected images of shape {tuple(samples.shape[1:])}, got {tuple(images.shape)}")
    to_train, index = _nearest_or_mirrored(samples, train)
    test_to_train = _nearest_or_mirrored(test, train)[0]
    median, median_test = (float(np.median(distances.numpy())) for distances in (to_train, test_to_train))
    if median_test == 0:
        raise ValueError("test: expected images that are not in train, got half of them from there")
    closest = to_train.argsort(stable=True)[:pairs].tolist()
    return Memorisation(
        ratio=median / median_test,
        to_train=median,
        test_to_train=median_test,
        closest=tuple((i, int(index[i]), to_train[i].item()) for i in closest),
    )


def _nearest_or_mirrored(u8: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """As `nearest`, mirror images of the reference included. Exact: the products of bytes are whole numbers."""
    n = len(u8)
    x = torch.cat([u8, u8.flip(-1)]).flatten(1).double()  # mirroring one of a pair is mirroring the other
    best, index = torch.full((n,), math.inf, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    for start in range(0, len(reference), PART):
        y = reference[start : start + PART].flatten(1).double()
        squared = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
        least, place = torch.minimum(squared[:n], squared[n:]).min(1)
        index[least < best] = start + place[least < best]
        best = torch.minimum(best, least)
    return best.sqrt() / 127.5, index


@dataclass(frozen=True)
class Comparison:
    """What a classifier and pixels say of ``n`` samples beside ``n`` test images; see `compare`.

    What ends in "_test" is what real images reach: the test images, or n training images in the samples' place.
    """

    n: int
    frechet: float  # FD-C: the Fréchet distance of the samples from the test images
    frechet_test: float  # of the training images from the test images: the floor
    controls: dict[str, float]  # of these training images made worse, from the test images
    confident: float  # share of the samples whose class is sure
    confident_test: float  # the same of the test images
    accuracy_test: float  # the classifier's, on the test images
    histogram: tuple[int, ...]  # samples of each class
    precision: float
    recall: float
    precision_test: float  # of the training images
    recall_test: float
    memorisation: Memorisation


@torch.no_grad()
def compare(x: Tensor, classifier: Classifier, train: Images, test: Images, seed: int = 0) -> Comparison:
    """Compare samples ``x`` (n, C, H, W) with n test images, and n training images with the same, drawn with ``seed``.

    The samples are clamped and rounded to bytes, as the real ones are. FD-C is `frechet` in the features of our own
    classifier: it is not FID, which asks another network, and it falls with n, so that only distances with equal n can
    be compared. Its floor is that of the training images; its controls are these with noise (standard deviation 0.1),
    blurred (Gaussian, 1 pixel) and after JPEG (quality 10). A class is sure with probability > 0.8. `precision_recall`
    uses the same features, `memorisation` all training images. ValueError unless 3 < n <= the images of either set.
    """
    n, most = len(x), min(len(train.images), len(test.images))
    if not 3 < n <= most:
        raise ValueError(f"x: expected 4..{most} samples, at most as many as there are test images, got {n}")
    rng = np.random.RandomState(seed)  # numpy promises never to change its stream
    u8, (some, real) = to_uint8(x), (torch.from_numpy(rng.permutation(len(s.images))[:n]) for s in (test, train))
    held_out = Images(test.images[some], test.labels[some], test.name, test.classes)
    trained_on = train.images[real]

    def features(images: Tensor) -> Tensor:
        return torch.cat([classifier.features(to_float(part)) for part in torch.split(images, PART)])

    def probabilities(images: Tensor) -> Tensor:
        return torch.cat([classifier(to_float(part)) for part in torch.split(images, PART)]).softmax(1)

    p, p_test = probabilities(u8), probabilities(held_out.images)
    f, f_test, f_real = features(u8), features(held_out.images), features(trained_on)
    precision, recall = precision_recall(f_test, f)
    precision_test, recall_test = precision_recall(f_test, f_real)
    return Comparison(
        n=n,
        frechet=frechet(f, f_test),
        frechet_test=frechet(f_real, f_test),
        controls={how: frechet(features(worse), f_test) for how, worse in _made_worse(trained_on, seed).items()},
        confident=_share(p.max(1).values > CONFIDENT),
        confident_test=_share(p_test.max(1).values > CONFIDENT),
        accuracy_test=accuracy(classifier, held_out),
        histogram=tuple(p.argmax(1).bincount(minlength=p.shape[1]).tolist()),
        precision=precision,
        recall=recall,
        precision_test=precision_test,
        recall_test=recall_test,
        memorisation=memorisation(u8, train.images, held_out.images),
    )


def _made_worse(u8: Tensor, seed: int) -> dict[str, Tensor]:
    noise = torch.randn(u8.shape, generator=torch.Generator().manual_seed(seed))
    blurred = [np.asarray(_picture(image).filter(ImageFilter.GaussianBlur(1))) for image in u8]
    coarse = [np.asarray(Image.open(io.BytesIO(_file(image, "JPEG", quality=10)))) for image in u8]
    return {
        "noise": to_uint8(to_float(u8) + 0.1 * noise),
        "blur": _from_pictures(blurred).reshape(u8.shape),
        "jpeg": _from_pictures(coarse).reshape(u8.shape),
    }


def _file(image: Tensor, codec: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    _picture(image).save(buffer, codec, **settings)
    return buffer.getvalue()


def _picture(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) with one channel or three."""
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())


def _from_pictures(pictures: list[np.ndarray]) -> Tensor:
    stacked = torch.from_numpy(np.stack(pictures))
    return stacked.permute(0, 3, 1, 2) if stacked.ndim == 4 else stacked


def _share(yes: Tensor) -> float:
    return yes.double().mean().item()
