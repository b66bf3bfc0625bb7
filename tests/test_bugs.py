"""The gallery of bugs: each is caught by the check named for it, none is red when off, and the code comes back."""

import contextlib
import functools
import inspect
import io
import re

import pytest
import torch

from ddpm_edu import bugs, checks, gaussian, sampling, schedules
from ddpm_edu.bugs import Bug, broken, gallery, learner

S = schedules.linear(10, 0.02, 0.6)
ROOT = bugs.find("variance for standard deviation")
IDS = [f"{number}-{bug.name}" for number, bug in enumerate(bugs.BUGS, 1)]


red_checks = functools.cache(bugs.red)


def noise_factor():
    return gaussian.q_sample(S, torch.zeros(1), 3, torch.ones(1)).item()


def test_the_gallery_is_large_and_every_bug_has_a_name_of_its_own():
    assert len(bugs.BUGS) >= 24
    assert len({bug.name for bug in bugs.BUGS}) == len(bugs.BUGS)
    assert len({(bug.where, bug.old, bug.new) for bug in bugs.BUGS}) == len(bugs.BUGS)


def test_more_than_24_bugs_were_met_outside_and_few_are_flips_of_a_sign():
    assert sum(bug.source not in (gallery.MADE, gallery.HOLE) for bug in bugs.BUGS) >= 24
    flips = [bug for bug in bugs.BUGS if bug.old.replace("+", "-") == bug.new.replace("+", "-")]
    assert len(flips) <= 4


def test_nothing_is_red_when_nothing_is_broken():
    assert [result.line for result in bugs.examine() if not result.ok] == []


@pytest.mark.parametrize("bug", bugs.BUGS, ids=IDS)
def test_the_named_check_goes_red_by_its_own_verdict_and_the_code_comes_back(bug):
    target = bugs.function(bug.where)
    code = target.__code__
    red = red_checks(bug)
    assert bug.check in red, f"{bug.name}: {bug.check} stays green, red are {list(red)}"
    assert red[bug.check].startswith("FAIL ") and "did not run" not in red[bug.check]  # compared, not merely crashed
    assert target.__code__ is code
    [again] = bugs.examine([bug.check])
    assert again.ok


@pytest.mark.parametrize("bug", bugs.BUGS, ids=IDS)
def test_a_bug_is_described(bug):
    assert inspect.getsource(bugs.function(bug.where)).count(bug.old) == 1
    lines = bugs.diff(bug).splitlines()
    assert lines[0] == f"--- {bug.where}" and lines[1] == f"+++ {bug.where}: {bug.name}"
    assert any(line[0] in "-+" for line in lines[2:])
    assert bug.check in bugs.CHECKS
    assert bug.symptom.endswith(".") and "\n" not in bug.symptom
    assert bug.source


def test_every_check_goes_red_for_some_bug():
    """A check that no bug turns red has not been shown to work."""
    red = set().union(*(red_checks(bug) for bug in bugs.BUGS))
    assert set(bugs.CHECKS) - red == set()


def test_the_reader_s_own_code_is_right():
    """The learner's functions against the package, where it has the same: the checks hold them to formulas."""
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(xt, t):
        return 0.3 * xt

    *_, last = sampling.sample(S, model, (5, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    start = torch.randn(5, 2, generator=g, dtype=torch.float64)
    torch.testing.assert_close(learner.ancestral(S, model, start, g), last.x, rtol=1e-10, atol=1e-12)
    t = torch.full((5,), 4)
    x0_hat = gaussian.x0_from_eps(S, x, 4, model(x, t))
    score = gaussian.score_from_eps(S, x, 4, model(x, t))
    torch.testing.assert_close(learner.denoiser_score(S, x, 4, x0_hat), score, rtol=1e-10, atol=1e-12)


# Switching on and off


def test_a_bug_reaches_names_imported_elsewhere_and_ends_with_the_block():
    from ddpm_edu.gaussian import q_sample

    right = noise_factor()
    with broken(ROOT):
        assert q_sample(S, torch.zeros(1), 3, torch.ones(1)).item() == noise_factor()
        assert noise_factor() == pytest.approx(right**2)
    assert noise_factor() == right


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_inside_the_block_switches_the_bug_off(error):
    right = noise_factor()
    with pytest.raises(error), broken(ROOT):
        raise error("inside")
    assert noise_factor() == right
    with broken(ROOT):  # and nothing believes it to be on still
        assert noise_factor() != right


def test_one_bug_at_a_time():
    with broken(ROOT):
        other = broken(bugs.find("t for t - 1"))
        with pytest.raises(ValueError, match="broken: 'variance for standard deviation' is on already, one bug"), other:
            pytest.fail("the block must not run")
        assert noise_factor() == pytest.approx((1 - S.alpha_bar[3]).item())  # the first one is still on
    assert bugs.examine(["jump to x_t: law of t single steps"])[0].ok


def test_generators_methods_properties_and_class_methods_can_be_broken():
    for where, old, new in [
        ("sampling.sample", "yield Step(0, x, x)", "yield Step(0, 0 * x, x)"),
        ("exact.Mixture.score", "return -torch", "return torch"),
        ("schedules.Schedule.snr", "(1 - self.alpha_bar)", "(2 - self.alpha_bar)"),
        (
            "schedules.Schedule.from_betas",
            "1 - beta, torch.cumprod(1 - beta, 0)",
            "1 - beta, torch.cumprod(1 - beta, 0)**2",
        ),
        ("unet.ResBlock.__init__", "self.norm1 = _norm(c_in, groups)", "self.norm1 = nn.Identity()"),
    ]:
        bug = Bug("mine", where, old, new)
        code = bugs.function(where).__code__
        with broken(bug):
            assert bugs.function(where).__code__ != code
        assert bugs.function(where).__code__ is code
    *_, last = sampling.sample(S, lambda x, t: x, (2, 1), generator=torch.Generator().manual_seed(0))
    assert last.x.abs().min() > 0


@pytest.mark.parametrize(
    "where",
    [
        "gaussian.nothing",
        "nothing.q_sample",
        "gaussian",
        "gaussian.math",
        "gaussian.torch.randn",
        "schedules.Schedule",
        "",
    ],
)
def test_an_unknown_function_is_named_in_one_line(where):
    with pytest.raises(ValueError, match="where: expected a function such as 'gaussian.q_sample', got") as caught:
        bugs.function(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("no such text", "x", "old: expected 'no such text' exactly once in gaussian.q_sample, found it 0 times"),
        ("alpha_bar", "x", "old: expected 'alpha_bar' exactly once in gaussian.q_sample, found it [3-9] times"),
        ("(1 - alpha_bar).sqrt(), eps", "(1 - alpha_bar.sqrt(, eps", "new: .* gives no valid Python"),
        ("def q_sample(", "def q_other(", "new: .* leaves no gaussian.q_sample that fits in its place"),
        ("eps: Tensor) -> Tensor", "eps: Tensor) -> None", "new: .* changes nothing that gaussian.q_sample runs"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_in_one_line_and_changes_nothing(old, new, message):
    code = gaussian.q_sample.__code__
    with pytest.raises(ValueError, match=message) as caught, broken(Bug("mine", "gaussian.q_sample", old, new)):
        pytest.fail("the block must not run")
    assert "\n" not in str(caught.value)
    assert gaussian.q_sample.__code__ is code
    with broken(ROOT):  # nothing is left on
        pass


def test_find_takes_names_and_numbers():
    assert bugs.find(1) is bugs.BUGS[0] and bugs.find(len(bugs.BUGS)) is bugs.BUGS[-1]
    assert bugs.find(bugs.BUGS[4].name) is bugs.BUGS[4]
    with pytest.raises(ValueError, match="name: expected the name of a bug, such as .*, got 'no such bug'"):
        bugs.find("no such bug")
    for number in (0, -1, len(bugs.BUGS) + 1, True, 2.0, None):
        with pytest.raises(ValueError, match=f"number: expected 1..{len(bugs.BUGS)}, got {number}"):
            bugs.find(number)


def test_a_bug_can_be_given_by_name_by_number_or_as_it_is():
    bug = bugs.find("eta not squared")
    number = bugs.BUGS.index(bug) + 1
    assert bugs.find(bug) is bug
    assert bugs.diff(bug) == bugs.diff(bug.name) == bugs.diff(number)
    assert bugs.red(bug.name) == bugs.red(number) == red_checks(bug)
    right = noise_factor()
    with bugs.broken(ROOT.name):
        assert noise_factor() != right


def test_the_hunt_has_every_bug_once_in_another_order():
    secrets = [bugs.secret(number) for number in range(1, len(bugs.BUGS) + 1)]
    assert {bug.name for bug in secrets} == {bug.name for bug in bugs.BUGS}
    assert sum(a is b for a, b in zip(secrets, bugs.BUGS, strict=True)) < 5
    for number in (0, 1.5, None, True):
        with pytest.raises(ValueError, match="number: expected 1"):
            bugs.secret(number)
    assert repr(secrets[0]) == "Secret(?)"


@pytest.mark.parametrize(
    "suspect, answer",
    [
        ("eta not squared", "found!"),
        ("sampling.ddim", "yes, that function; now the slip"),
        ("sampling.sample", "no, not in sampling.sample"),
        ("bracket of sigma", "the right function, another slip: 'bracket of sigma' turns [0-9]+ checks red"),
        ("film of one frame", "no: 'film of one frame' turns 1 checks red, 0 of these"),
    ],
)
def test_a_guess_is_answered(suspect, answer):
    assert re.match(answer, bugs.guess(bugs.find("eta not squared"), suspect))


def test_a_guess_that_no_check_can_tell_from_the_secret_counts_as_found():
    pair = bugs.find("DDIM seeded inside the loop"), bugs.find("one noise for all pixels")
    assert red_checks(pair[0]).keys() == red_checks(pair[1]).keys()
    assert bugs.guess(pair[0], pair[1].name).startswith("found, as far as the red checks can tell")


@pytest.mark.parametrize("suspect", ["no such bug", "sampling.dim", 0])
def test_a_guess_that_names_nothing_is_an_error(suspect):
    with pytest.raises(ValueError, match="expected"):
        bugs.guess(ROOT, suspect)


def test_functions_of_a_check_hold_every_broken_one():
    """What a check runs is where the bugs that turn it red can be, or in code that ran when a network was built."""
    found = bugs.functions("sampler by hand: law of the sample")
    assert "learner.ancestral" in found and "sampling.sample" not in found
    assert not any("examination" in name or name.startswith("checks.") for name in found)
    for bug in bugs.BUGS[::6]:
        assert bug.where in bugs.functions(bug.check)


def test_source_is_that_of_the_function():
    assert bugs.source("gaussian.q_step").startswith("def q_step(")
    assert bugs.source("exact.Mixture.score").startswith("def score(")


@pytest.mark.parametrize(
    "where, old, new",
    [
        ("training.train", "eps = torch.randn(", "eps = 0.5 * torch.randn("),
        ("sampling.ddim", "x = _xT_or(xT, torch.randn(", "x = _xT_or(xT, 1.2 * torch.randn("),
        ("evaluate.bounds", "eps = torch.randn(", "generator.manual_seed(0)\n        eps = torch.randn("),
        ("evaluate.bounds", "        xt = q_sample(", "        eps = eps[:1].expand_as(eps)\n        xt = q_sample("),
        (
            "evaluate.bounds",
            "        xt = q_sample(",
            "        eps = eps[..., :1].expand_as(eps)\n        xt = q_sample(",
        ),
        (
            "evaluate.bounds",
            "        xt = q_sample(",
            "        eps = (eps / 2**0.5).erf() * 3**0.5\n        xt = q_sample(",
        ),
        ("sampling.sample", "        x = on_x0 * ", "        z = z[:, :1].expand(shape)\n        x = on_x0 * "),
        ("sampling.sample", "        x = on_x0 * ", "        z = (z / 2**0.5).erf() * 3**0.5\n        x = on_x0 * "),
        ("sampling.ddim", "        x = on_x0 * ", "        z = (z / 2**0.5).erf() * 3**0.5\n        x = on_x0 * "),
        ("sampling.ddim", "        x = on_x0 * ", "        z = z[:1].expand(shape)\n        x = on_x0 * "),
        ("sampling.langevin", "        x = x.", "        generator.manual_seed(0)\n        x = x."),
        ("sampling.langevin", "        x = x.", "        z = z[..., :1].expand_as(z)\n        x = x."),
        ("sampling.langevin", "        x = x.", "        z = z[:1].expand_as(z)\n        x = x."),
        ("sampling.langevin", "        x = x.", "        z = (z / 2**0.5).erf() * 3**0.5\n        x = x."),
        ("flow._start", "return torch.randn(", "return 1.2 * torch.randn("),
        ("flow._start", "return torch.randn(", "return 12**0.5 * torch.rand("),
    ],
)
def test_further_patches_of_the_noise_are_caught(where, old, new):
    """Not in the gallery: sqrt(3) erf(z / sqrt(2)) is uniform and has the variance of z."""
    assert bugs.red(Bug("mine", where, old, new))


# Examining


def test_examine_prints_only_when_asked_and_leaves_the_session_s_results_alone():
    name, before = "SNR: ratio of the two variances", list(checks.results)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), broken(bugs.find("SNR of amplitudes")):
        [quiet], [shown] = bugs.examine([name]), bugs.examine([name], show=True)
    assert out.getvalue().rstrip("\n") == quiet.line == shown.line
    assert not quiet.ok and quiet.line.startswith(f"FAIL {name}")
    assert checks.results == before


def test_a_check_that_crashes_is_red():
    with broken(Bug("mine", "gaussian.q_step", "    beta = at(", "    raise RuntimeError('gone')\n    beta = at(")):
        [result] = bugs.examine(["one forward step: both factors at every t"])
    assert not result.ok and result.line.endswith("RuntimeError: gone")
