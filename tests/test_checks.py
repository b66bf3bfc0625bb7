"""Each kind of check passes when it should, fails when it should, and says why in one line."""

import json
import math
import re

import numpy as np
import pytest
import torch

from ddpm_edu import checks, exercises
from ddpm_edu.checks import CheckFailed, check_close, check_mean, exercise, progress


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "results", [])
    monkeypatch.setenv("DDPM_EDU_HOME", str(tmp_path))


def normal(n=10_000, mean=0.0, seed=0):
    return mean + np.random.default_rng(seed).standard_normal(n)


# -- check_close -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "got, want",
    [
        (1.0, 1.0),
        ([1.0, 2.0], (1.0, 2.0)),
        (torch.tensor([1.0, 2.0], requires_grad=True), np.array([1.0, 2.0])),
        (np.ones((2, 3)), np.ones((2, 3)) * (1 + 1e-12)),
        (0.0, 0.0),
    ],
)
def test_close_passes_and_prints_one_line(got, want, capsys):
    check_close("(3.4) two routes", got, want)
    out = capsys.readouterr().out
    assert out.startswith("ok   (3.4) two routes ") and out.count("\n") == 1
    assert [(r.eq, r.ok) for r in checks.results] == [("(3.4) two routes", True)]
    assert checks.results[0].line == out.rstrip("\n")


@pytest.mark.parametrize(
    "got, want, says",
    [
        (1.0, 1.1, "got 1, want 1.1"),
        (1.0, -1.0, "got 1, want -1"),
        ([1.0, 2.0], [1.0, 2.5], r"got 2, want 2.5 at index \(1,\)"),
        (np.ones(3), np.ones((3, 1)), r"shapes differ: got \(3,\), want \(3, 1\)"),
        (1.0, np.ones(1), "shapes differ"),
        ([], [], "both are empty"),
        (math.nan, math.nan, "got holds NaN or infinity"),
        (1.0, math.inf, "want holds NaN or infinity"),
        (1e-9, 0.0, "got 1e-09, want 0"),
        (1 + 1e-9, 1.0, "1.0e-09 > 1e-10"),
    ],
)
def test_close_fails(got, want, says, capsys):
    with pytest.raises(CheckFailed, match=says) as caught:
        check_close("(3.4) two routes", got, want, slip="a missing square root")
    assert caught.value.eq == "(3.4) two routes"
    out = capsys.readouterr().out
    assert out.startswith("FAIL (3.4) two routes ") and "Likely slip: a missing square root" in out
    assert [r.ok for r in checks.results] == [False]


def test_close_error_is_relative_to_the_largest_value():
    check_close("(1.1)", [1000.0, 1e-9], [1000.0, 0.0], tol=1e-10)
    with pytest.raises(CheckFailed):
        check_close("(1.1)", [1000.0, 1e-6], [1000.0, 0.0], tol=1e-10)
    check_close("(1.1)", 1.0005, 1.0, tol=1e-3)
    with pytest.raises(CheckFailed):
        check_close("(1.1)", 1.002, 1.0, tol=1e-3)


@pytest.mark.parametrize("tol", [-1.0, 1.0, math.nan])
def test_close_refuses_a_tolerance_that_cannot_fail(tol):
    with pytest.raises(ValueError, match="tol: expected"):
        check_close("(1.1)", 1.0, 1.0, tol=tol)


# -- check_mean --------------------------------------------------------------------------------------------------------


def test_mean_passes_and_says_what_it_rejects(capsys):
    check_mean("(3.5) mean", normal(), want=0.0, wrong={"off by one": 0.5, "sign": -2.0})
    out = capsys.readouterr().out
    first, *rejected = out.splitlines()
    assert first.startswith("ok   (3.5) mean ") and first.endswith(" s.e.") and ", want 0.0000, " in first
    assert [line.strip().split(",")[0] for line in rejected] == ["rejects 0.5000", "rejects -2.0000"]
    assert rejected[0].endswith("s.e. away: off by one") and rejected[1].endswith("s.e. away: sign")
    distance = float(rejected[0].split()[2])
    assert distance == pytest.approx(0.5 / 0.01, rel=0.05)  # 0.5 in units of 1 / sqrt(10 000)
    assert checks.results[-1].ok


def test_mean_fails_more_than_4_standard_errors_away():
    with pytest.raises(CheckFailed, match="more than 4"):
        check_mean("(3.5)", normal(mean=0.06), want=0.0, wrong={"far": 5.0})
    check_mean("(3.5)", normal(mean=0.02), want=0.0, wrong={"far": 5.0})  # about 2 standard errors
    with pytest.raises(CheckFailed, match="0.5000 \\(slip\\) is nearer"):
        check_mean("(3.5)", normal(mean=0.5), want=0.0, wrong={"slip": 0.5})
    assert [r.ok for r in checks.results] == [False, True, False]


def test_mean_fails_without_power():
    """A named wrong answer nearer than 8 standard errors: the check could not tell, so it may not pass."""
    with pytest.raises(CheckFailed, match="no power: cannot tell 0.0000 from 0.0600"):
        check_mean("(3.5)", normal(), want=0.0, wrong={"close": 0.06, "far": 5.0})
    check_mean("(3.5)", normal(), want=0.0, wrong={"close": 0.12, "far": 5.0})
    with pytest.raises(CheckFailed, match="no power"):
        check_mean("(3.5)", normal(), want=0.0, wrong={"the right value itself": 0.0})


@pytest.mark.parametrize(
    "samples", [np.ones(1000), normal(99), normal(1000).reshape(10, 100), np.append(normal(1000), np.nan), []]
)
def test_mean_fails_on_samples_that_prove_nothing(samples):
    with pytest.raises(CheckFailed, match="expected at least 100 finite, differing samples"):
        check_mean("(3.5)", samples, want=1.0, wrong={"far": 50.0})


def test_mean_fails_on_a_want_that_is_nan():
    with pytest.raises(CheckFailed):
        check_mean("(3.5)", normal(), want=math.nan, wrong={"far": 5.0})
    with pytest.raises(CheckFailed):
        check_mean("(3.5)", normal(), want=0.0, wrong={"undefined": math.nan})


def test_mean_needs_a_named_wrong_answer():
    with pytest.raises(ValueError, match="wrong: expected at least one"):
        check_mean("(3.5)", normal(), want=0.0, wrong={})


# -- exercise ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def doubling(monkeypatch):
    item = exercises.Exercise(
        lambda x: 2 * x, [{"x": 1.0}, {"x": torch.tensor([3.0, -2.0])}], hint="twice means times two"
    )
    monkeypatch.setattr(exercises, "EXERCISES", {"09.1": item})


def unattempted(x):
    raise NotImplementedError


def test_exercise_solved_is_recorded(doubling, capsys, tmp_path):
    assert progress() == []
    exercise("09.1", lambda x: x + x)
    assert capsys.readouterr().out.startswith("ok   09.1 ")
    assert progress() == ["09.1"]
    assert json.loads((tmp_path / "progress.json").read_text()) == ["09.1"]


def test_exercise_not_attempted(doubling, capsys):
    exercise("09.1", unattempted)
    out = capsys.readouterr().out
    assert "not attempted" in out and not out.startswith("ok")
    assert progress() == []
    with pytest.raises(CheckFailed, match="not attempted"):
        exercise("09.1", unattempted, strict=True)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda x: x, "at x = 1.0: got 1.0, want 2.0"),
        (lambda x: 2 * abs(x), r"at x = .*3.*-2.*got.*4"),
        (lambda x: "two", "got 'two'"),
        (lambda x: None, "at x = 1.0"),
        (lambda x: np.ones(3), "at x = 1.0"),
        (lambda x: math.nan, "at x = 1.0: got nan"),
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: 3, "TypeError"),
    ],
)
def test_exercise_shows_the_first_case_that_differs(doubling, wrong, says, capsys):
    import re

    exercise("09.1", wrong)
    out = capsys.readouterr().out
    assert out.startswith("FAIL 09.1 ") and re.search(says, out) and "Hint: twice means times two" in out
    assert progress() == []
    with pytest.raises(CheckFailed):
        exercise("09.1", wrong, strict=True)


def test_strict_does_not_record(doubling):
    exercise("09.1", lambda x: 2 * x, strict=True)
    assert progress() == []


def test_unknown_exercise(doubling):
    with pytest.raises(ValueError, match=r"number: expected one of 09\.1, got '09\.7'"):
        exercise("09.7", lambda x: x)


def test_progress_that_cannot_be_written_does_not_hide_the_answer(doubling, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DDPM_EDU_HOME", str(tmp_path / "file"))
    exercise("09.1", lambda x: 2 * x)
    out = capsys.readouterr().out
    assert out.startswith("ok   09.1 ") and "progress not recorded" in out


def test_foreign_progress_file(tmp_path):
    (tmp_path / "progress.json").write_text("{}")
    with pytest.raises(ValueError, match=r"progress\.json: expected a list"):
        progress()
    (tmp_path / "progress.json").write_text("{")
    with pytest.raises(ValueError, match=r"progress\.json: expected a list"):
        progress()


def plus_minus(n):
    """Mean 0 and, with n - 1 in the denominator, standard error exactly 1 / sqrt(n - 1)."""
    return np.resize([1.0, -1.0], n)


@pytest.mark.parametrize("n", [100, 10_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_mean_limits_are_4_and_8_standard_errors_on_both_sides(n, sign):
    se = sign / math.sqrt(n - 1)
    check_mean("(3.5)", plus_minus(n), want=3.99 * se, wrong={"far": 99 * se, "near": 8.01 * se})
    check_mean("(3.5)", plus_minus(n), want=0.0, wrong={"far": -99 * se, "near": -8.01 * se})
    with pytest.raises(CheckFailed, match="more than 4$"):  # and no word of a nearer value
        check_mean("(3.5)", plus_minus(n), want=4.01 * se, wrong={"far": 99 * se})
    # 7.99 from the mean of the samples, more than 8 from `want`: what counts is the mean of the samples.
    with pytest.raises(CheckFailed, match="no power"):
        check_mean("(3.5)", plus_minus(n), want=-3 * se, wrong={"far": 99 * se, "near": 7.99 * se})
    assert (checks.AGREE, checks.REJECT) == (4.0, 8.0)


def test_close_measures_the_largest_error_against_the_largest_wanted_value():
    check_close("(1.1)", 1.0, 1.0, tol=0.0)
    check_close("(1.1)", 1 + 0.9e-10, 1.0)  # the default tolerance, from both sides
    for got, want, tol in [
        (1 + 1.1e-10, 1.0, 1e-10),
        (2.0, 1.0, 0.6),
        (2e-6, 1e-6, 1e-3),
        ([1, 1, 1, 2], [1, 1, 1, 1], 0.5),
    ]:
        with pytest.raises(CheckFailed):
            check_close("(1.1)", got, want, tol=tol)
    assert CheckFailed.__mro__[1] is AssertionError


def test_exercise_tolerance_is_1e_9_of_the_largest_value(monkeypatch, capsys):
    cases = [{"x": 1.0}, {"x": 0.0}, {"x": 1e-6}]
    monkeypatch.setattr(exercises, "EXERCISES", {"09.1": exercises.Exercise(lambda x: 2 * x, cases, hint="")})
    exercise("09.1", lambda x: 2 * x * (1 + 0.9e-9) + (1e-10 if x == 0 else 0), strict=True)
    for wrong in (
        lambda x: 2 * x * (1 + 1.1e-9),
        lambda x: 2 * x + (1e-8 if x == 0 else 0),
        lambda x: 2 * x + (1e-14 if x == 1e-6 else 0),
    ):
        with pytest.raises(CheckFailed):
            exercise("09.1", wrong, strict=True)


def test_exercise_that_spoils_its_argument_or_breaks_on_its_own_is_marked_wrong(doubling, capsys):
    exercise("09.1", lambda x: x.zero_() if isinstance(x, torch.Tensor) else 2 * x)
    exercise("09.1", lambda x: x.nothing)
    out = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in out] == ["FAIL", "FAIL"] and "AttributeError" in out[1]
    exercise("09.1", lambda x: x.mul_(2) if isinstance(x, torch.Tensor) else 2 * x, strict=True)


def test_progress_keeps_every_solved_exercise_once_and_in_order(monkeypatch, tmp_path):
    item = exercises.Exercise(lambda x: 2 * x, [{"x": 1.0}], hint="")
    monkeypatch.setattr(exercises, "EXERCISES", {"09.1": item, "09.2": item})
    monkeypatch.setenv("DDPM_EDU_HOME", str(tmp_path / "not" / "yet"))
    for number in ("09.2", "09.1", "09.2"):
        exercise(number, lambda x: x + x)
    path = tmp_path / "not" / "yet" / "progress.json"
    assert json.loads(path.read_text()) == progress() == ["09.1", "09.2"]
    assert [p.name for p in path.parent.iterdir()] == ["progress.json"]
    path.write_text('["09.2", "09.1"]')
    assert progress() == ["09.1", "09.2"]


def test_progress_is_kept_below_home_by_default(doubling, monkeypatch, tmp_path):
    monkeypatch.delenv("DDPM_EDU_HOME")
    monkeypatch.setattr(checks.Path, "home", lambda: tmp_path)
    exercise("09.1", lambda x: x + x)
    assert (tmp_path / ".ddpm_edu" / "progress.json").exists()


def test_progress_survives_a_write_that_fails(doubling, monkeypatch, tmp_path):
    (tmp_path / "progress.json").write_text('["08.1"]')

    def no_space(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(checks.os, "replace", no_space)
    exercise("09.1", lambda x: x + x)
    assert progress() == ["08.1"]


def test_a_strict_failure_names_the_exercise(doubling):
    with pytest.raises(CheckFailed) as caught:
        exercise("09.1", lambda x: x, strict=True)
    assert caught.value.eq == "09.1"


def test_check_close_rejects_the_named_wrong_answers(capsys):
    checks.check_close(
        "(3.4) variance", [0.25, 1.0], [0.25, 1.0], wrong={"its root": [0.5, 1.0], "nan": [math.nan, 1.0]}
    )
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("ok   (3.4) variance") and first.endswith("0.0e+00 <= 1e-10")
    assert [line.strip() for line in rest] == ["rejects an error of 2.5e-01: its root", "rejects an error of inf: nan"]


@pytest.mark.parametrize(
    ("tol", "wrong", "message"),
    [
        (1e-10, 1 + 9e-7, "no power: 'slip' misses by 9.0e-07 only"),
        (1e-3, 1.009, "no power: 'slip' misses by 9.0e-03 only"),
        (1e-10, 1.0, "no power: 'slip' misses by 0.0e+00 only"),
        (1e-10, [2.0], "wrong answer 'slip': shapes differ: got (1,), want ()"),
    ],
)
def test_check_close_fails_when_it_cannot_tell_a_wrong_answer(tol, wrong, message):
    with pytest.raises(checks.CheckFailed, match=re.escape(message)):
        checks.check_close("(3.4) power", 1.0, 1.0, tol, wrong={"slip": wrong})


@pytest.mark.parametrize(("tol", "wrong"), [(1e-10, 1 + 2e-6), (1e-3, 1.011)])
def test_check_close_needs_no_more_distance_than_it_says(tol, wrong):
    checks.check_close("(3.4) power", 1.0, 1.0, tol, wrong={"slip": wrong})


def test_check_close_measures_a_wrong_answer_from_the_scale_of_the_right_one():
    with pytest.raises(checks.CheckFailed, match="no power"):
        checks.check_close("(3.4) scale", [1e6, 1.0], [1e6, 1.0], wrong={"small entry": [1e6, 1.5]})
