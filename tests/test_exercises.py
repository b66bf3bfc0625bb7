"""References of the exercises beside independent answers, and slips that the cases must tell from the right answer."""

import importlib
from pathlib import Path

import course
import notebook
import pytest

from ddpm_edu import checks, exercises

ANSWERS = [
    importlib.import_module(f"answers.{path.stem}") for path in sorted((Path(__file__).parent / "answers").glob("*.py"))
]
RIGHT = {number: answer for module in ANSWERS for number, answer in module.RIGHT.items()}
SLIPS = {number: slips for module in ANSWERS for number, slips in module.SLIPS.items()}


def test_every_exercise_has_an_independent_answer_and_named_slips():
    assert set(RIGHT) == set(SLIPS) == set(exercises.EXERCISES)
    for number, item in exercises.EXERCISES.items():
        assert len(SLIPS[number]) >= 3 and len(item.cases) >= 3 and len(item.hint) > 20 and item.tol <= 1e-6, number


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
