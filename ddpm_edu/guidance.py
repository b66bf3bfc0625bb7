"""Guidance: a noise prediction bent towards a class, by a network that knows the class or by a classifier.

Both functions return an ``eps_model(xt, t)`` that `sampling.sample` and `sampling.ddim` take as any other. With
p(x_t | y) proportional to p(x_t) p(y | x_t), the scores differ by the gradient of log p(y | x_t), and
eps = -sqrt(1 - alpha_bar_t) score turns a difference of scores into a difference of noises. For a scale other than 0
and 1 the guided eps is the score of p(x_t) p(y | x_t)^scale at each t by itself: in general, these densities are
not the noised versions of one density of x_0, so that the sampler does not draw from p(x_0) p(y | x_0)^scale.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddpm_edu.sampling import EpsModel
from ddpm_edu.schedules import Schedule, at

LabelledModel = Callable[[Tensor, Tensor, Tensor], Tensor]
LogProb = Callable[[Tensor, Tensor], Tensor]


def classifier_free(eps_model: LabelledModel, y: Tensor, scale: float, null: int) -> EpsModel:
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6): eps(xt,t,null) + scale (eps(xt,t,y) - eps(xt,t,null)).

    scale = 0 is unconditional, 1 conditional, more than 1 exaggerates the class; the weights 1 - scale and scale have
    sum 1 and the first is negative beyond 1: an affine combination, not a mean. In the paper's w the scale is 1 + w.
    ``eps_model(xt, t, y)`` gets ``null``, the index of "no label", for all, and then the labels ``y``, int64 (B,).
    ValueError for labels of another dtype or shape, a null that is no index and a scale that is not finite.
    """
    if y.dtype != torch.int64 or y.ndim != 1:
        raise ValueError(f"y: expected int64 labels of shape (B,), got {y.dtype} of shape {tuple(y.shape)}")
    if isinstance(null, bool) or not isinstance(null, int) or null < 0:
        raise ValueError(f"null: expected the index of the label 'none', a whole number >= 0, got {null!r}")
    _finite(scale)

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        if len(y) != len(xt):
            raise ValueError(f"y: expected one label for each of the {len(xt)} examples, got {len(y)}")
        without = eps_model(xt, t, torch.full_like(y, null))
        return without + scale * (eps_model(xt, t, y) - without)

    return guided


def classifier(s: Schedule, eps_model: EpsModel, log_prob: LogProb, scale: float) -> EpsModel:
    """Classifier guidance (Dhariwal & Nichol 2021, Eq. 14): eps - scale sqrt(1 - alpha_bar_t) grad_x log p(y | x_t).

    ``log_prob(xt, t)`` gives log p(y | x_t) of the wanted class, shape (B,), from a classifier that was trained on
    noisy x_t and treats each example by itself (no batch statistics). Its gradient is taken at x_t by autograd, also
    where the sampler has switched graphs off, and the result carries no graph of it. scale = 0 is unconditional, 1 is
    Bayes' rule. t = 1..T, an int or int64 (B,). ValueError for a log_prob of another shape or without a gradient, and
    a scale that is not finite.
    """
    _finite(scale)

    def guided(xt: Tensor, t: Tensor) -> Tensor:
        std = (1 - at(s.alpha_bar, t, xt, first=1)).sqrt()
        with torch.enable_grad():
            x = xt.detach().requires_grad_()
            log_p = log_prob(x, t)
            if log_p.shape != xt.shape[:1]:
                raise ValueError(f"log_prob: expected shape {tuple(xt.shape[:1])}, got {tuple(log_p.shape)}")
            if not log_p.requires_grad:
                raise ValueError("log_prob: expected a result that autograd can follow back to xt, got a constant")
            (gradient,) = torch.autograd.grad(log_p.sum(), x)
        return eps_model(xt, t) - (scale * std).to(xt.dtype) * gradient

    return guided


def _finite(scale: float) -> None:
    if not math.isfinite(scale):
        raise ValueError(f"scale: expected a finite number, got {scale}")
