"""References of the exercises beside independent answers, and slips that the cases must tell from the right answer."""

import math

import course
import notebook
import pytest

from ddpm_edu import checks, exercises

RIGHT = {
    "03.1": lambda alpha_bar_r, alpha_bar_t: (
        math.exp((math.log(alpha_bar_t) - math.log(alpha_bar_r)) / 2), (alpha_bar_r - alpha_bar_t) / alpha_bar_r
    ),
    "03.2": lambda x0, alpha_bar_t, eps: alpha_bar_t**0.5 * x0 + (1 - alpha_bar_t) ** 0.5 * eps,
    "03.3": lambda beta, T: (1 - beta) ** (2 * T) * (1 - 1 / (2 - beta)) + 1 / (2 - beta),  # around the fixed point
}  # fmt: skip
SLIPS = {
    "03.1": [
        lambda alpha_bar_r, alpha_bar_t: (alpha_bar_t / alpha_bar_r, 1 - alpha_bar_t / alpha_bar_r),
        lambda alpha_bar_r, alpha_bar_t: (math.sqrt(alpha_bar_t), 1 - alpha_bar_t),  # as if r were 0
        lambda alpha_bar_r, alpha_bar_t: ((alpha_bar_t / alpha_bar_r) ** 0.5, (1 - alpha_bar_t / alpha_bar_r) ** 0.5),
        lambda alpha_bar_r, alpha_bar_t: (math.sqrt(alpha_bar_t / alpha_bar_r), alpha_bar_r - alpha_bar_t),
    ],
    "03.2": [
        lambda x0, alpha_bar_t, eps: alpha_bar_t**0.5 * x0 + (1 - alpha_bar_t) * eps,  # the bug to find
        lambda x0, alpha_bar_t, eps: alpha_bar_t * x0 + (1 - alpha_bar_t) ** 0.5 * eps,
        lambda x0, alpha_bar_t, eps: alpha_bar_t**0.5 * x0 - (1 - alpha_bar_t) ** 0.5 * eps,
    ],
    "03.3": [
        lambda beta, T: 1.0,  # with the root
        lambda beta, T: 1 / (2 - beta),  # the limit, whatever T
        lambda beta, T: (1 - beta) ** (2 * (T + 1)) * (1 - 1 / (2 - beta)) + 1 / (2 - beta),  # one step too many
        lambda beta, T: 1 / (2 - beta) - (1 - beta) ** (2 * T) / (2 - beta),  # starts from variance 0
    ],
}  # fmt: skip


def test_every_exercise_has_an_independent_answer_and_named_slips():
    assert set(RIGHT) == set(SLIPS) == set(exercises.EXERCISES)
    for number, item in exercises.EXERCISES.items():
        assert len(item.cases) >= 3 and len(item.hint) > 20 and item.tol <= 1e-6, number


@pytest.mark.parametrize("number", exercises.EXERCISES)
def test_the_reference_accepts_another_route_to_the_answer_and_refuses_the_slips(number):
    checks.exercise(number, RIGHT[number], strict=True)
    for slip in SLIPS[number]:
        with pytest.raises(checks.CheckFailed):
            checks.exercise(number, slip, strict=True)


@pytest.mark.parametrize("path", [p for p in course.notebooks() if p.parent.name == "solutions"], ids=lambda p: p.stem)
def test_the_shipped_solutions_agree_with_the_references(path):
    """strict=True raises in the cell, which `notebook.run` lets through."""
    assert notebook.red(notebook.run(path, notebook.code(path, skip=set()))) == set()
