"""Checks: the executable half of each derivation.

`check_close` compares two routes to one quantity, `check_mean` compares samples with an expected value and first proves
that it could tell the right value from named wrong ones, `exercise` marks a reader's solution. Each prints one line and
raises `CheckFailed` when it fails; `results` keeps what ran, in order.
"""

import copy
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_edu import exercises

AGREE = 4.0  # standard errors within which a sample mean agrees with `want`
ALIGNED = f"\n{'':52}"  # starts a further line below the text of a check
REJECT = 8.0  # standard errors by which a sample mean must miss each named wrong value


class CheckFailed(AssertionError):
    """A check that did not hold; ``eq`` names the equation."""

    def __init__(self, eq: str, line: str) -> None:
        super().__init__(line)
        self.eq = eq


@dataclass(frozen=True)
class Result:
    """One executed check: the equation it names, whether it held, the line it printed."""

    eq: str
    ok: bool
    line: str


results: list[Result] = []


def check_close(
    eq: str, got: Any, want: Any, tol: float = 1e-10, slip: str = "", wrong: dict[str, Any] | None = None
) -> None:
    """Two routes to one quantity: passes if max|got - want| <= tol * max|want|.

    ``got`` and ``want`` are numbers, lists, arrays or tensors of the same shape (nothing is broadcast), not empty,
    without NaN or infinity. Where ``want`` is zero everywhere the error is absolute. ``wrong`` names what likely
    mistakes would give, each of the shape of ``want``: the check fails unless it misses ``got`` by more than 10 ``tol``
    and by more than one in a million, and each one rejected gets a line below the first. ``slip`` says what usually
    causes a disagreement and is shown on failure. Raises CheckFailed; ValueError unless 0 <= tol < 1.
    """
    if not 0 <= tol < 1:
        raise ValueError(f"tol: expected a relative error in [0, 1), got {tol}")
    a, b = _array(got), _array(want)
    problem = _problem(a, b)
    if problem:
        _record(eq, False, problem, slip)
    scale = float(np.abs(b).max()) or 1.0
    difference = np.abs(a - b)
    error = float(difference.max()) / scale
    if error > tol:
        worst = np.unravel_index(int(difference.argmax()), difference.shape)
        _record(eq, False, f"{error:.1e} > {tol:.0e}: got {a[worst]:.6g}, want {b[worst]:.6g}{_where(worst)}", slip)
    lines = [f"{error:.1e} <= {tol:.0e}"]
    for name, value in (wrong or {}).items():
        c = _array(value)
        if c.shape != b.shape:
            _record(eq, False, f"wrong answer {name!r}: shapes differ: got {c.shape}, want {b.shape}")
        # NaN is how some mistakes end: it is no answer at all, and rejected
        miss = float(np.abs(a - c).max()) / scale if not np.isnan(c).any() else math.inf
        if miss <= max(10 * tol, 1e-6):
            _record(eq, False, f"no power: {name!r} misses by {miss:.1e} only")
        lines.append(f"rejects an error of {miss:.1e}: {name}")
    _record(eq, True, ALIGNED.join(lines))


def check_mean(eq: str, samples: Any, want: float, wrong: dict[str, float]) -> None:
    """A Monte Carlo check with proven power: passes if the mean of ``samples`` is within 4 standard errors of ``want``.

    ``samples`` are independent draws (1-D, at least 100, not all equal). ``wrong`` names at least one value that a
    likely mistake would give; the check fails if the sample mean is nearer than 8 standard errors to any of them, so
    that a check without power cannot pass. Each one rejected gets a line below the first. Raises CheckFailed;
    ValueError where ``wrong`` is empty.
    """
    if not wrong:
        raise ValueError("wrong: expected at least one named wrong value, for example {'variance not halved': 2.0}")
    x = _array(samples)
    if x.ndim != 1 or len(x) < 100 or not np.isfinite(x).all() or not x.std() > 0:
        _record(eq, False, f"expected at least 100 finite, differing samples in one dimension, got shape {x.shape}")
    mean, se = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x))
    z = (mean - want) / se
    away = {name: abs(mean - value) / se for name, value in wrong.items()}
    weakest = min(away, key=lambda name: away[name])
    text = f"{mean:.4f}, want {want:.4f}, {z:+.1f} s.e."
    if not abs(z) <= AGREE:
        nearest = f"; {wrong[weakest]:.4f} ({weakest}) is nearer" if away[weakest] < abs(z) else ""
        _record(eq, False, f"{text}, more than {AGREE:.0f}{nearest}")
    elif not away[weakest] >= REJECT:
        _record(eq, False, f"no power: cannot tell {want:.4f} from {wrong[weakest]:.4f} ({weakest}), take more samples")
    else:
        rejected = [f"rejects {wrong[name]:.4f}, {away[name]:.0f} s.e. away: {name}" for name in wrong]
        _record(eq, True, ALIGNED.join([text, *rejected]))


def exercise(number: str, student: Callable[..., Any], strict: bool = False) -> None:
    """Mark a reader's solution of exercise ``number``, such as "03.2", against the reference on every case.

    Prints "not attempted" while the function raises NotImplementedError, "ok", or the first case that differs with a
    hint. What is solved is recorded (see `progress`). With ``strict``, as in the shipped solutions, anything but "ok"
    raises CheckFailed and nothing is recorded. ValueError for an unknown number.
    """
    if number not in exercises.EXERCISES:
        raise ValueError(f"number: expected one of {', '.join(sorted(exercises.EXERCISES))}, got {number!r}")
    problem = _mark(exercises.EXERCISES[number], student)
    if problem is None:
        _print_line("ok", number, f"all {len(exercises.EXERCISES[number].cases)} cases agree")
        if not strict:
            _remember(number)
        return
    line = _print_line("    " if problem == NOT_ATTEMPTED else "FAIL", number, problem)
    if strict:
        raise CheckFailed(number, line)


def progress() -> list[str]:
    """Numbers of the exercises solved so far on this computer, from progress.json in the folder DDPM_EDU_HOME,
    by default ``.ddpm_edu`` in the user's home. ValueError where that file holds something else."""
    path = _progress_file()
    if not path.exists():
        return []
    try:
        solved = json.loads(path.read_text())
    except json.JSONDecodeError:
        solved = None
    if not isinstance(solved, list):
        raise ValueError(f"{path}: expected a list of exercise numbers in JSON; move the file away to start afresh")
    return sorted(str(number) for number in solved)


NOT_ATTEMPTED = "not attempted"


def _mark(item: exercises.Exercise, student: Callable[..., Any]) -> str | None:
    """None if the solution agrees with the reference on every case, else what to tell the reader."""
    for case in item.cases:
        shown = ", ".join(f"{name} = {_short(value)}" for name, value in case.items())
        try:
            answer = student(**copy.deepcopy(case))  # a solution that works in place must not spoil the reference
        except NotImplementedError:
            return NOT_ATTEMPTED
        except Exception as error:
            return f"at {shown}: {type(error).__name__}: {error}. Hint: {item.hint}"
        want = _array(item.reference(**case))
        try:
            got = _array(answer)
        except (TypeError, ValueError):
            return f"at {shown}: expected numbers, got {_short(answer)}. Hint: {item.hint}"
        if _problem(got, want) or np.abs(got - want).max() > item.tol * (np.abs(want).max() or 1.0):
            return f"at {shown}: got {_short(answer)}, want {_short(want)}. Hint: {item.hint}"
    return None


def _remember(number: str) -> None:
    path = _progress_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(sorted({*progress(), number})))
        os.replace(temporary, path)
    except OSError as error:
        print(f"     (progress not recorded: {error})")


def _progress_file() -> Path:
    return Path(os.environ.get("DDPM_EDU_HOME", Path.home() / ".ddpm_edu")) / "progress.json"


def _array(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value, dtype=np.float64)


def _problem(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> str:
    if got.shape != want.shape:
        return f"shapes differ: got {got.shape}, want {want.shape}"
    if got.size == 0:
        return "nothing to compare: both are empty"
    for name, array in (("got", got), ("want", want)):
        if not np.isfinite(array).all():
            return f"{name} holds NaN or infinity"
    return ""


def _where(index: tuple[Any, ...]) -> str:
    return f" at index {tuple(int(i) for i in index)}" if index else ""


def _short(value: Any) -> str:
    with np.printoptions(precision=6, threshold=6, edgeitems=2):
        return str(_array(value)) if hasattr(value, "detach") or isinstance(value, np.ndarray) else repr(value)


def _print_line(status: str, eq: str, text: str) -> str:
    line = f"{status:<4} {eq:<46} {text}"
    print(line)
    return line


def _record(eq: str, ok: bool, text: str, slip: str = "") -> None:
    line = _print_line("ok" if ok else "FAIL", eq, text + (f". Likely slip: {slip}" if slip and not ok else ""))
    results.append(Result(eq, ok, line))
    if not ok:
        raise CheckFailed(eq, line)
