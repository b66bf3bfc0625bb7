"""Guidance against Bayes' rule on a mixture whose classes are its components."""

import math

import pytest
import torch

from ddpm_edu import guidance, sampling, schedules
from ddpm_edu.exact import Mixture

S = schedules.linear(10, 0.02, 0.6)
WEIGHTS, MEANS = [0.2, 0.3, 0.5], [[-1.0, 0.5], [0.8, 1.0], [0.3, -1.2]]
COVS = [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.05], [-0.05, 0.1]]]
ALL = Mixture(WEIGHTS, MEANS, COVS)
CLASSES = [Mixture([1.0], [mean], [cov]) for mean, cov in zip(MEANS, COVS, strict=True)]
NULL = 3
T_EACH = torch.tensor([1, 2, 4, 7, 10])


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labelled(xt, t, y):
    """The exact eps of each row's class, of the whole mixture where there is no label."""
    rows = [(ALL if int(k) == NULL else CLASSES[int(k)]).eps(S, xt, t)[i] for i, k in enumerate(y)]
    return torch.stack(rows)


def unlabelled(xt, t):
    return ALL.eps(S, xt, t)


def class_log_probs(xt, t):
    """log p(y | x_t) of the three classes (B, 3), by Bayes' rule, each density written out for itself."""
    abar = S.alpha_bar[t]
    rows = []
    for weight, mean, cov in zip(WEIGHTS, MEANS, COVS, strict=True):
        centre = abar.sqrt()[:, None] * torch.tensor(mean, dtype=torch.float64)
        spread = abar[:, None, None] * torch.tensor(cov, dtype=torch.float64)
        spread = spread + (1 - abar)[:, None, None] * torch.eye(2, dtype=torch.float64)
        law = torch.distributions.MultivariateNormal(centre, spread)
        rows.append(math.log(weight) + law.log_prob(xt))
    return torch.log_softmax(torch.stack(rows, 1), 1)


def log_prob_of(y):
    return lambda xt, t: class_log_probs(xt, t)[torch.arange(len(y)), y]


# Classifier-free


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 2.0, 7.5])
def test_classifier_free_is_affine_in_the_two_predictions(scale):
    xt, y = randn(5, 2), torch.tensor([0, 1, 2, 0, 2])
    got = guidance.classifier_free(labelled, y, scale, NULL)(xt, T_EACH)
    without, with_class = unlabelled(xt, T_EACH), labelled(xt, T_EACH, y)
    torch.testing.assert_close(got, (1 - scale) * without + scale * with_class, rtol=1e-12, atol=1e-12)
    end = {0.0: without, 1.0: with_class}.get(scale)
    if end is not None:
        torch.testing.assert_close(got, end, rtol=1e-12, atol=1e-12)


def test_the_two_weights_have_sum_1_and_the_network_s_mean_passes_through():
    """Where label and no label give the same, no scale changes it: 1 + scale in front would."""
    y = torch.tensor([0, 1])
    got = guidance.classifier_free(lambda xt, t, y: 0.3 * xt, y, 5.0, NULL)(randn(2, 2), torch.tensor([3, 3]))
    torch.testing.assert_close(got, 0.3 * randn(2, 2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_classifier_free_with_exact_predictions_is_the_score_of_p_times_the_class_probability_to_the_scale(scale):
    xt, y = randn(5, 2, seed=1), torch.tensor([2, 1, 0, 1, 2])
    x = xt.clone().requires_grad_()
    tilted = ALL.log_prob(S, x, T_EACH) + scale * log_prob_of(y)(x, T_EACH)
    (score,) = torch.autograd.grad(tilted.sum(), x)
    want = -(1 - S.alpha_bar[T_EACH]).sqrt()[:, None] * score
    got = guidance.classifier_free(labelled, y, scale, NULL)(xt, T_EACH)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("null", [0, 10])
def test_classifier_free_hands_on_what_it_was_given(null):
    seen = []

    def model(xt, t, y):
        seen.append((xt, t, y.tolist(), y.dtype))
        return torch.zeros_like(xt)

    xt, t, y = randn(3, 2), torch.tensor([4, 5, 6]), torch.tensor([0, 3, 1])
    guidance.classifier_free(model, y, 2.0, null)(xt, t)
    assert [labels for _, _, labels, _ in seen] == [[null] * 3, [0, 3, 1]]
    assert all(torch.equal(a, xt) and torch.equal(b, t) and dtype == torch.int64 for a, b, _, dtype in seen)
    assert y.tolist() == [0, 3, 1]


@pytest.mark.parametrize(
    "y, scale, null, message",
    [
        (torch.tensor([0.0, 1.0]), 1.0, 3, r"y: expected int64 labels of shape \(B,\), got torch.float32"),
        (torch.tensor([0, 1], dtype=torch.int32), 1.0, 3, "y: expected int64 labels .*, got torch.int32"),
        (torch.tensor(1), 1.0, 3, r"y: expected int64 labels of shape \(B,\), got torch.int64 of shape \(\)"),
        (torch.tensor([0, 1]), math.nan, 3, "scale: expected a finite number, got nan"),
        (torch.tensor([0, 1]), math.inf, 3, "scale: expected a finite number, got inf"),
        (torch.tensor([0, 1]), 1.0, -1, "null: expected the index of the label 'none', .*, got -1"),
        (torch.tensor([0, 1]), 1.0, None, "null: expected the index of the label 'none', .*, got None"),
        (torch.tensor([0, 1]), 1.0, True, "null: expected the index of the label 'none', .*, got True"),
    ],
)
def test_bad_classifier_free(y, scale, null, message):
    with pytest.raises(ValueError, match=message):
        guidance.classifier_free(labelled, y, scale, null)


def test_as_many_labels_as_examples():
    guided = guidance.classifier_free(labelled, torch.tensor([0]), 1.0, NULL)
    with pytest.raises(ValueError, match="y: expected one label for each of the 5 examples, got 1"):
        guided(randn(5, 2), T_EACH)


# Classifier


def test_classifier_guidance_at_scale_1_with_the_exact_classifier_is_the_conditional_prediction():
    xt, y = randn(5, 2, seed=2), torch.tensor([0, 1, 2, 1, 0])
    got = guidance.classifier(S, unlabelled, log_prob_of(y), 1.0)(xt, T_EACH)
    torch.testing.assert_close(got, labelled(xt, T_EACH, y), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 4.0])
def test_both_guidances_agree_where_classifier_and_network_are_exact(scale):
    xt, y = randn(5, 2, seed=3), torch.tensor([2, 2, 0, 1, 1])
    one = guidance.classifier(S, unlabelled, log_prob_of(y), scale)(xt, T_EACH)
    other = guidance.classifier_free(labelled, y, scale, NULL)(xt, T_EACH)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("t", [1, 6, 10])
def test_the_gradient_is_taken_at_x_t_and_its_factor_is_the_std_of_the_noise(t):
    """log p = -|x_t - a|^2 / 2, whose gradient a - x_t tells x_t from the prediction of x_0."""
    a, xt = torch.tensor([2.0, -1.0], dtype=torch.float64), randn(4, 2)
    guided = guidance.classifier(S, lambda xt, t: 0.3 * xt, lambda xt, t: -((xt - a) ** 2).sum(1) / 2, 2.5)
    abar = math.prod(1 - beta for beta in S.beta[1 : t + 1].tolist())
    want = 0.3 * xt - 2.5 * math.sqrt(1 - abar) * (a - xt)
    for time in (t, torch.full((4,), t)):
        torch.testing.assert_close(guided(xt, time), want, rtol=1e-12, atol=1e-12)


def test_classifier_guidance_works_inside_a_sampler_and_leaves_no_graph():
    y = torch.zeros(6, dtype=torch.int64)
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    guided = guidance.classifier(S, unlabelled, lambda xt, t: weight * log_prob_of(y)(xt, t), 1.0)
    g = torch.Generator().manual_seed(0)
    steps = list(sampling.sample(S, guided, (6, 2), generator=g, dtype=torch.float64))
    assert not any(step.x.requires_grad for step in steps) and weight.grad is None
    conditional = sampling.sample(
        S,
        lambda xt, t: labelled(xt, t, y),
        (6, 2),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.float64,
    )
    for a, b in zip(steps, conditional, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-8, atol=1e-9)


def test_classifier_guidance_keeps_float32_and_leaves_x_t_alone():
    xt = randn(4, 2).float()
    copy = xt.clone()
    guided = guidance.classifier(S, lambda xt, t: xt, lambda xt, t: -(xt**2).sum(1), 1.0)
    got = guided(xt, torch.tensor([1, 2, 3, 4]))
    assert got.dtype == torch.float32 and not got.requires_grad
    assert torch.equal(xt, copy) and not xt.requires_grad


def test_bad_classifiers():
    xt, t = randn(4, 2), torch.tensor([1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"log_prob: expected shape \(4,\), got \(4, 2\)"):
        guidance.classifier(S, unlabelled, lambda xt, t: xt, 1.0)(xt, t)
    with pytest.raises(ValueError, match="log_prob: expected a result that autograd can follow back to xt"):
        guidance.classifier(S, unlabelled, lambda xt, t: xt.detach().sum(1), 1.0)(xt, t)
    with pytest.raises(ValueError, match="scale: expected a finite number, got nan"):
        guidance.classifier(S, unlabelled, lambda xt, t: xt.sum(1), math.nan)
    with pytest.raises(ValueError, match=r"t: expected 1\.\.10, got 0"):
        guidance.classifier(S, lambda xt, t: xt, lambda xt, t: xt.sum(1), 1.0)(xt, 0)
