"""Schedules against golden values, closed forms and a second library; bad input gets one line that names it."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from ddpm_edu import schedules, tables
from ddpm_edu.elbo import loss_weight
from ddpm_edu.schedules import Schedule, at

# Golden numbers, computed once in float64 and confirmed with 50-digit arithmetic: t -> (alpha_bar, SNR, beta).
GOLDEN = {
    "linear": {
        1: (0.9999, 9999.0000000011, 1e-4),
        2: (0.9997800920720721, 4546.357657463682, 0.00011991991991991993),
        250: (0.5240853738253606, 1.101217203677713, 0.00506006006006006),
        500: (0.07858724288177824, 0.08528994446263685, 0.010040040040040039),
        750: (0.0033505504389367744, 0.0033618143675415648, 0.015020020020020019),
        999: (4.118193638138445e-05, 4.118363240311403e-05, 0.01998008008008008),
        1000: (4.035829765375676e-05, 4.0359926511684205e-05, 0.02),
    },
    "cosine": {
        1: (0.999958715775178, 24221.32715552543, 4.128422482196914e-05),
        2: (0.9999125759273678, 11437.497085434357, 4.614175273665033e-05),
        250: (0.8470121613269047, 5.536467268727169, 0.0013214966366291714),
        500: (0.49384359044063775, 0.9756738848186404, 0.0031458862304780677),
        750: (0.1442721023857358, 0.16859576833706225, 0.007545707742043772),
        999: (2.428766907034852e-06, 2.4287728059578675e-06, 0.7499993929011166),
        1000: (2.4287669070348542e-09, 2.428766912933763e-09, 0.999),
    },
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name):
    s = getattr(schedules, name)()
    assert s.T == 1000 and len(s.beta) == 1001
    for t, (alpha_bar, snr, beta) in GOLDEN[name].items():
        assert s.alpha_bar[t].item() == pytest.approx(alpha_bar, rel=1e-10, abs=0)
        assert s.snr[t].item() == pytest.approx(snr, rel=1e-10, abs=0)
        assert s.beta[t].item() == pytest.approx(beta, rel=1e-10)
        assert s.alpha[t].item() == pytest.approx(1 - beta, rel=1e-12)


@pytest.mark.parametrize("name, first", [("linear", 260), ("cosine", 497)])
def test_first_time_with_more_noise_than_signal(name, first):
    assert int((getattr(schedules, name)().snr < 1).nonzero()[0]) == first


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine, schedules.scaled_linear, schedules.sigmoid])
@pytest.mark.parametrize("T", [1, 2, 10, 1000])
def test_tables_start_at_clean_data_and_are_float64(make, T):
    s = make(T)
    assert s.T == T
    for table in (s.beta, s.alpha, s.alpha_bar):
        assert table.dtype == torch.float64 and table.shape == (T + 1,)
    assert s.beta[0] == 0 and s.alpha[0] == 1 and s.alpha_bar[0] == 1 and s.snr[0] == math.inf
    product = 1.0
    for t in range(1, T + 1):
        product *= 1 - s.beta[t].item()
        assert s.alpha_bar[t].item() == pytest.approx(product, rel=1e-10)


def test_linear_is_evenly_spaced():
    beta = schedules.linear(5, 0.1, 0.3).beta
    torch.testing.assert_close(
        beta, torch.tensor([0, 0.1, 0.15, 0.2, 0.25, 0.3], dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_scaled_linear_is_evenly_spaced_in_the_square_root():
    beta = schedules.scaled_linear(3, 0.01, 0.25).beta
    torch.testing.assert_close(beta, torch.tensor([0, 0.01, 0.09, 0.25], dtype=torch.float64), rtol=1e-12, atol=0)
    defaults = schedules.scaled_linear().beta
    assert defaults[1].item() == pytest.approx(0.00085, rel=1e-12)
    assert defaults[1000].item() == pytest.approx(0.012, rel=1e-12)


def test_constant_has_a_power_for_alpha_bar():
    s = schedules.constant(1000)
    assert s.alpha_bar[1000].item() == pytest.approx(0.99**1000, rel=1e-10)
    assert s.alpha_bar[1000].item() == pytest.approx(4.317e-5, rel=1e-3)


def test_cosine_follows_its_formula_until_the_clip():
    T, s = 50, 0.02
    made = schedules.cosine(T, s=s, max_beta=0.9)
    for t in range(1, T + 1):
        f_t = math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2
        f_0 = math.cos(s / (1 + s) * math.pi / 2) ** 2
        if t < T:
            assert made.alpha_bar[t].item() == pytest.approx(f_t / f_0, rel=1e-10)
    assert made.beta[T] == 0.9
    assert (made.beta[1:T] < 0.9).all()


def test_sigmoid_follows_its_formula_until_the_clip():
    T, start, end, tau = 40, -2.0, 4.0, 0.7

    def g(u):
        return 1 / (1 + math.exp(-(start + (end - start) * u) / tau))

    made = schedules.sigmoid(T, start, end, tau, max_beta=0.99)
    for t in range(1, T):
        assert made.alpha_bar[t].item() == pytest.approx((g(1) - g(t / T)) / (g(1) - g(0)), rel=1e-10)
    assert made.beta[T] == 0.99


def test_sigmoid_defaults_are_symmetric_about_the_middle():
    s = schedules.sigmoid()
    assert s.alpha_bar[500].item() == pytest.approx(0.5, rel=1e-10)
    torch.testing.assert_close(s.alpha_bar[1:1000] + s.alpha_bar[1:1000].flip(0), torch.ones(999, dtype=torch.float64))


@pytest.mark.parametrize(("T", "first", "last"), [(2, 4.0, -1.0), (5, 3.0, -2.5), (1000, 13.3, -5.0), (50, -1.0, -9.0)])
def test_log_snr_falls_in_equal_steps(T, first, last):
    """From what SNR means, and with every beta_t from two neighbouring alpha_bar of that formula, in numpy."""
    s = schedules.log_snr_linear(T, first, last)
    want = first + (last - first) * np.arange(T) / (T - 1)
    alpha_bar = np.concatenate([[1.0], np.exp(want) / (1 + np.exp(want))])
    np.testing.assert_allclose(s.snr[1:].log().numpy(), want, rtol=0, atol=1e-9)
    np.testing.assert_allclose(s.alpha_bar.numpy(), alpha_bar, rtol=1e-10)
    np.testing.assert_allclose(s.beta[1:].numpy(), 1 - alpha_bar[1:] / alpha_bar[:-1], rtol=1e-8)
    assert s.T == T and s.beta[1].item() == pytest.approx(1 / (1 + math.exp(first)), rel=1e-12)


def test_the_bound_weighs_all_steps_alike_where_log_snr_is_linear():
    """The weight of ||eps - eps_hat||^2 in KL(q || p) from two means, for t = 2..T; and only here.

    Both Gaussians have the variance beta_tilde, their means differ by beta / sqrt(alpha (1 - alpha_bar)) times the
    error in eps (Ho et al., Eq. 11), and the KL is the squared distance over twice the variance.
    """
    for s, alike in ((schedules.log_snr_linear(), True), (schedules.linear(), False), (schedules.cosine(), False)):
        beta, abar = s.beta.numpy(), s.alpha_bar.numpy()
        beta_tilde = (1 - abar[1:-1]) / (1 - abar[2:]) * beta[2:]
        weight = (beta[2:] / np.sqrt((1 - beta[2:]) * (1 - abar[2:]))) ** 2 / (2 * beta_tilde)
        assert (np.ptp(weight) < 1e-8 * weight[0]) == alike
        np.testing.assert_allclose(
            loss_weight(s, torch.from_numpy(np.append([1, 1], beta_tilde)))[2:], weight, rtol=1e-9
        )
        if alike:
            np.testing.assert_allclose(weight, (math.exp(18.3 / 999) - 1) / 2, rtol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"T": 1}, r"^T, log_snr_1, log_snr_T: expected T >= 2 and finite .* got 1, 13.3, -5.0$"),
        ({"T": 0}, r"^T: expected a whole number of steps >= 1, got 0$"),
        ({"T": 2.5}, r"^T: expected a whole number"),
        ({"log_snr_1": -5.0}, r"expected .* log_snr_1 > log_snr_T, got 1000, -5.0, -5.0$"),
        ({"log_snr_T": 14}, r"expected .* log_snr_1 > log_snr_T, got 1000, 13.3, 14$"),
        ({"log_snr_1": math.inf}, r"finite numbers .* got 1000, inf, -5.0$"),
        ({"log_snr_T": -math.inf}, r"finite numbers .* got 1000, 13.3, -inf$"),
        ({"log_snr_1": math.nan}, r"finite numbers .* got 1000, nan, -5.0$"),
        ({"log_snr_T": math.nan}, r"finite numbers .* got 1000, 13.3, nan$"),
        ({"log_snr_1": 60.0}, r"^alpha_bar: expected to fall at every step"),
        ({"log_snr_1": 900.0}, r"^betas: expected numbers strictly between 0 and 1, got beta_1 = 0$"),
    ],
)
def test_a_log_snr_that_does_not_fall_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedules.log_snr_linear(**arguments)


def test_a_product_of_factors_below_1_need_not_vanish():
    """beta_t = 1 / (t + 1)^2 telescopes: alpha_bar_T = (T + 2) / (2 (T + 1)), which tends to one half."""
    s = Schedule.from_betas([1 / (t + 1) ** 2 for t in range(1, 10_001)])
    for T in (1, 2, 100, 10_000):
        assert s.alpha_bar[T].item() == pytest.approx((T + 2) / (2 * (T + 1)), rel=1e-10)


def test_from_betas_takes_lists_without_a_float32_detour():
    s = Schedule.from_betas([0.1, 0.2, 0.3])
    assert s.beta.tolist() == [0, 0.1, 0.2, 0.3]
    assert s.alpha_bar[3].item() == pytest.approx(0.9 * 0.8 * 0.7, rel=1e-15)
    assert torch.equal(Schedule.from_betas(torch.tensor([0.5, 0.25])).beta, torch.tensor([0, 0.5, 0.25]).double())


@pytest.mark.parametrize(
    "betas, message",
    [
        ([0.1, 1.0], "betas.*strictly between 0 and 1.*beta_2 = 1"),
        ([0.0, 0.1], "betas.*beta_1 = 0"),
        ([0.1, -0.2], "betas.*beta_2 = -0.2"),
        ([0.1, math.nan], "betas.*beta_2 = nan"),
        ([0.1, math.inf], "betas.*beta_2 = inf"),
        ([], "betas: expected a list"),
        ([[0.1]], "betas: expected a list"),
        (["a"], "betas: expected numbers"),
        ([10**400], "betas: expected numbers"),
        (0.1, "betas: expected a list"),
        ([0.999] * 200, "alpha_bar: expected to fall at every step.*t = 109"),
    ],
)
def test_bad_betas(betas, message):
    with pytest.raises(ValueError, match=message) as caught:
        Schedule.from_betas(betas)
    assert "\n" not in str(caught.value)


def test_bad_tables():
    s = schedules.linear(3, 0.1, 0.3)
    with pytest.raises(ValueError, match=r"beta: expected a float64 tensor.*float32"):
        Schedule(s.beta.float(), s.alpha, s.alpha_bar)
    with pytest.raises(ValueError, match="alpha: expected T \\+ 1 = 4 entries.*got 3"):
        Schedule(s.beta, s.alpha[1:], s.alpha_bar)
    with pytest.raises(ValueError, match="alpha_bar: expected to fall.*t = 3"):
        Schedule(s.beta, s.alpha, s.alpha_bar[[0, 1, 3, 2]])
    with pytest.raises(ValueError, match="alpha, alpha_bar: expected 1 - beta"):
        Schedule(s.beta, s.alpha, s.alpha_bar**2)
    with pytest.raises(ValueError, match="alpha, alpha_bar: expected 1 - beta"):
        Schedule(s.beta, s.alpha.sqrt(), s.alpha_bar)
    with pytest.raises(ValueError, match="index 0 is clean data"):
        Schedule(s.beta + 0.1, s.alpha - 0.1, torch.cumprod(s.alpha - 0.1, 0))


@pytest.mark.parametrize("T", [0, -1, 2.5, True, "10"])
@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine, schedules.constant, schedules.sigmoid])
def test_bad_T(make, T):
    with pytest.raises(ValueError, match="T: expected a whole number of steps >= 1"):
        make(T)


def test_bad_parameters():
    with pytest.raises(ValueError, match="max_beta: expected.*got 1"):
        schedules.cosine(max_beta=1.0)
    with pytest.raises(ValueError, match=r"s: expected a number >= 0, got -0\.1"):
        schedules.cosine(s=-0.1)
    with pytest.raises(ValueError, match="start, end, tau"):
        schedules.sigmoid(start=3, end=-3)
    with pytest.raises(ValueError, match="beta_1, beta_T"):
        schedules.scaled_linear(beta_1=-0.1)
    with pytest.raises(ValueError, match="betas.*beta_1 = 0"):
        schedules.linear(beta_1=0)


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine])
def test_json_round_trip_is_exact(make):
    s = make(100)
    text = schedules.to_json(s)
    assert set(json.loads(text)) == {"format", "T", "betas"}
    assert torch.equal(schedules.from_json(text).beta, s.beta)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: f.pop("T"), r"missing \['T'\]"),
        (lambda f: f.update(name="x"), r"unknown \['name'\]"),
        (lambda f: f.update(T=4), "T: expected the number of betas, 3, got 4"),
        (lambda f: f.update(T=3.0), "T: expected"),
        (lambda f: f.update(format="other"), "format: expected 'ddpm_edu.schedule/1', got 'other'"),
        (lambda f: f.update(betas="0.1"), "betas: expected a list of numbers"),
        (lambda f: f.update(betas=[0.1, True, 0.3]), "betas: expected a list of numbers"),
        (lambda f: f.update(betas=[0.1, 2, 0.3]), "betas: .*beta_2 = 2"),
    ],
)
def test_bad_json_fields(change, message):
    fields = json.loads(schedules.to_json(Schedule.from_betas([0.1, 0.2, 0.3])))
    change(fields)
    with pytest.raises(ValueError, match=message) as caught:
        schedules.from_json(json.dumps(fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not valid JSON"),
        ("[1]", "missing"),
        ("NaN", "missing"),
        ("[" * 100_000, "not valid JSON"),
        ("1" * 5000, "not valid JSON"),
    ],
)
def test_foreign_json(text, message):
    with pytest.raises(ValueError, match=f"schedule JSON: {message}"):
        schedules.from_json(text)


def test_at_is_found_beside_the_tables():
    assert schedules.at is tables.at


def test_at_gathers_and_broadcasts():
    table = torch.tensor([0.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    x = torch.zeros(2, 3, 4, 4)
    got = at(table, torch.tensor([3, 1]), x)
    assert got.shape == (2, 1, 1, 1) and got.dtype == torch.float64
    assert got.flatten().tolist() == [30, 10]
    assert at(table, torch.tensor([2, 0]), torch.zeros(2)).tolist() == [20, 0]
    assert at(table, 2, x).shape == () and at(table, 2, x) == 20
    assert at(table, 0, x) == 0


def test_a_t_on_the_cpu_serves_data_on_any_device():
    table, x = schedules.linear().beta, torch.zeros(2, 3, 4, 4, device="meta")
    assert at(table, torch.tensor([3, 1]), x).device == x.device
    with pytest.raises(ValueError, match="t: expected 0..1000, got values from 1 to 1001"):
        at(table, torch.tensor([1001, 1]), x)


@pytest.mark.parametrize(
    "t, first, message",
    [
        (-1, 0, r"t: expected 0\.\.3, got -1"),
        (4, 0, r"t: expected 0\.\.3, got 4"),
        (0, 1, r"t: expected 1\.\.3, got 0"),
        (1.0, 0, "t: expected an int"),
        (True, 0, "t: expected an int"),
        (torch.tensor([0, 4]), 0, r"t: expected 0\.\.3, got values from 0 to 4"),
        (torch.tensor([-1, 3]), 0, r"t: expected 0\.\.3, got values from -1 to 3"),
        (torch.tensor([0, 3]), 1, r"t: expected 1\.\.3, got values from 0 to 3"),
        (torch.tensor([1.0, 2.0]), 0, "t: expected an int or an int64 tensor.*float32"),
        (torch.tensor([1, 2], dtype=torch.int32), 0, "t: expected an int or an int64 tensor.*int32"),
        (torch.tensor([1, 2, 3]), 0, r"t: expected an int or an int64 tensor of shape \(2,\).*shape \(3,\)"),
        (torch.tensor([[1, 2]]), 0, "t: expected an int or an int64 tensor"),
        (torch.tensor(1), 0, "t: expected an int or an int64 tensor"),
    ],
)
def test_bad_t(t, first, message):
    with pytest.raises(ValueError, match=message) as caught:
        at(torch.arange(4.0), t, torch.zeros(2, 3), first=first)
    assert "\n" not in str(caught.value)


def test_agrees_with_a_second_library(diffusers):
    for ours, theirs in [
        (schedules.linear(), dict(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)),
        (schedules.scaled_linear(), dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)),
        (schedules.cosine(), dict(beta_schedule="squaredcos_cap_v2")),
    ]:
        other = diffusers.DDPMScheduler(num_train_timesteps=1000, **theirs)
        # Their tables are float32 and count from 0: index t - 1. That costs 1.4e-3 in the smallest cosine betas.
        torch.testing.assert_close(ours.alpha_bar[1:], other.alphas_cumprod.double(), rtol=2e-4, atol=1e-9)
        torch.testing.assert_close(ours.beta[1:], other.betas.double(), rtol=2e-3, atol=0)


def test_defaults_of_sigmoid_and_constant():
    s = schedules.sigmoid()
    assert s.T == 1000 and s.beta[1000] == 0.999
    g = [1 / (1 + math.exp(-u)) for u in (-3.0, -1.5, 3.0)]
    assert s.alpha_bar[250].item() == pytest.approx((g[2] - g[1]) / (g[2] - g[0]), rel=1e-10)
    assert schedules.constant().T == 1000 and schedules.constant().beta[1] == 0.01


def test_tables_that_contradict_each_other_or_hold_nan_are_refused():
    s = schedules.linear(3, 0.1, 0.3)
    nan_alpha = s.alpha.clone()
    nan_alpha[2] = math.nan
    slightly = s.alpha_bar * torch.tensor([1, 1, 1, 1 - 1e-6], dtype=torch.float64)
    for alpha, alpha_bar in [(nan_alpha, s.alpha_bar), (s.alpha, slightly), (s.alpha.sqrt(), s.alpha_bar.sqrt())]:
        with pytest.raises(ValueError, match="alpha, alpha_bar: expected 1 - beta"):
            Schedule(s.beta, alpha, alpha_bar)
    beta = torch.tensor([0, 0.1, 1.5], dtype=torch.float64)
    with pytest.raises(ValueError, match="betas: expected numbers strictly between 0 and 1"):
        Schedule(beta, 1 - beta, torch.cumprod(1 - beta, 0))
    with pytest.raises(ValueError, match="beta: expected a float64 tensor of shape"):
        Schedule(s.beta[:1], s.alpha[:1], s.alpha_bar[:1])
    with pytest.raises(ValueError, match="beta: expected a float64 tensor of shape"):
        Schedule(s.beta[:, None], s.alpha[:, None], s.alpha_bar[:, None])


def test_a_schedule_is_a_frozen_value_without_a_graph():
    s = Schedule.from_betas(torch.tensor([0.1, 0.2], requires_grad=True))
    assert not s.beta.requires_grad and not s.alpha_bar.requires_grad
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.beta = s.alpha
    assert (s == Schedule.from_betas([0.1, 0.2])) is False and len({s, s}) == 1  # compared by identity


def test_cosine_without_offset_starts_with_tiny_betas():
    beta = schedules.cosine(100_000, s=0.0).beta[1].item()
    assert beta == pytest.approx(math.sin(math.pi / 2 / 100_000) ** 2, rel=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: schedules.cosine(max_beta=0.0), "max_beta: expected"),
        (lambda: schedules.sigmoid(tau=-1.0), "start, end, tau: expected"),
        (lambda: schedules.sigmoid(start=3.0, end=3.0), "start, end, tau: expected"),
        (lambda: schedules.scaled_linear(beta_T=1.5), "beta_1, beta_T: expected"),
        (lambda: Schedule.from_betas(None), "betas: expected .*got None"),
        (lambda: Schedule.from_betas([None]), r"betas: expected .*got \[None\]"),
        (lambda: at(torch.arange(4.0), torch.tensor([1]), torch.tensor(1.0)), "t: expected an int or an int64 tensor"),
    ],
)
def test_more_bad_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numpy_integers_empty_batches_and_the_place_of_the_result():
    assert schedules.linear(np.int64(3), 0.1, 0.3).T == 3
    table = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    assert at(table, np.int64(2), torch.zeros(2)).item() == 0.2
    assert at(table, torch.tensor([3, 1]), torch.zeros(2)).tolist() == [0.3, 0.1]  # every digit of float64
    assert at(table, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, 4)).shape == (0, 1, 1)
    assert at(table, 2, torch.zeros(2, device="meta")).device.type == "meta"


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine, schedules.scaled_linear, schedules.sigmoid])
def test_each_step_multiplies_by_one_alpha_and_int_and_tensor_times_agree(make):
    s = make(20)
    x, t = torch.zeros(20, 1), torch.arange(1, 21)
    before, now, alpha = at(s.alpha_bar, t - 1, x), at(s.alpha_bar, t, x), at(s.alpha, t, x)
    torch.testing.assert_close(before * alpha, now, rtol=1e-12, atol=0)
    assert before[0] == 1  # t = 1 starts from clean data
    for table in (s.beta, s.alpha, s.alpha_bar):
        assert at(table, t, x).flatten().tolist() == [at(table, r, x).item() for r in range(1, 21)]
        assert at(table, torch.tensor([0]), x[:1]).item() == at(table, 0, x).item() == table[0]


def test_linear_reaches_beta_T_and_cosine_its_clip_however_short():
    for T in (2, 3, 10):
        assert schedules.linear(T, 0.1, 0.3).beta[[1, -1]].tolist() == pytest.approx([0.1, 0.3], rel=1e-12)
        assert schedules.cosine(T).beta[-1] == 0.999
        assert (schedules.cosine(T).beta[1:-1] < 0.999).all()
    one = schedules.cosine(1)
    assert one.beta[1] == 0.999 and one.alpha_bar[1].item() == pytest.approx(0.001, rel=1e-12)
