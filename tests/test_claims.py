"""The syllabus: each statement that the course judges, and the executed check that settles it.

tests/claims/NN.toml lists the statements of chapter NN: the verdict, the statement in our own words, the notebook and
cell where it is settled, the check there, and, unless it is right, the name under which the check rejects it.
"""

import functools
import re
import tomllib
from pathlib import Path

import course
import equations
import pytest

THEORY = [
    *range(1, 8), *range(10, 15), *range(20, 26), *range(30, 34), *range(40, 49), *range(50, 56), *range(60, 64),
    *range(70, 80), *range(80, 83), *range(90, 102), *range(110, 119), *range(120, 127), 128, *range(130, 135), 147,
    *range(160, 166),
]  # fmt: skip
LEARNING = [127, *range(140, 147), *range(148, 153), *range(166, 176), *range(180, 199)]
SYLLABUS = [f"L{number:03d}" for number in THEORY + LEARNING]
FOLDER = Path(__file__).parent / "claims"
KEYS = {"verdict", "statement", "notebook", "cell", "check"}


def read() -> list[tuple[str, dict]]:
    """(id, row) of every row, in order of the files; an id may come twice, since a file does not see the others."""
    rows = []
    for path in sorted(FOLDER.glob("*.toml")):
        rows += tomllib.loads(path.read_text(encoding="utf-8")).items()
    return rows


ROWS = read()


@functools.cache
def cells(name: str) -> dict[str, tuple[str, str]]:
    """id -> source and stored output of the code cells of a notebook."""
    stored = course.read(course.ROOT / "notebooks" / f"{name}.ipynb")
    return {cell.id: (cell.source, course.printed(cell)) for cell in course.code_cells(stored)}


def lines_of(check: str, output: str) -> list[str]:
    """The line that a check printed when it passed, with the lines below it that belong to it."""
    lines = output.splitlines()
    for place, line in enumerate(lines):
        if re.match(rf"ok   {re.escape(check)}{equations.RESULT}", line):
            after = [text.startswith(" ") for text in lines[place + 1 :]]
            return lines[place : place + 1 + (after.index(False) if False in after else len(after))]
    return []


def test_every_statement_of_the_syllabus_is_settled_once():
    ids = [number for number, _ in ROWS]
    assert sorted(ids) == sorted(SYLLABUS)


@pytest.mark.parametrize(("number", "row"), ROWS, ids=[number for number, _ in ROWS])
def test_a_statement_is_settled_by_an_executed_check(number, row):
    assert row["verdict"] in ("right", "imprecise", "wrong")
    assert set(row) == KEYS | (set() if row["verdict"] == "right" else {"wrong"})
    assert len(row["statement"]) > 20
    source, output = cells(row["notebook"])[row["cell"]]
    found = lines_of(row["check"], output)
    assert found, f"{row['check']!r} did not pass in cell {row['cell']} of {row['notebook']}"
    assert not source.startswith("%"), "a cell that a magic runs may not run at all"
    if row["verdict"] != "right":
        assert any(re.search(rf"^ +rejects .*: {re.escape(row['wrong'])}$", line) for line in found), found
        assert f'"{row["wrong"]}":' in source, "the rejected name does not stand in the cell"


PASSED = (
    "ok   (3.2) variance   0.2500, want 0.2500, +0.1 s.e.\n" + " " * 52 + "rejects 0.5000, 90 s.e. away: its root\n"
)


def test_the_lines_of_a_check_end_where_the_next_begins():
    output = PASSED + "ok   (3.2) variance of it   1.0e-16 <= 1e-10\nprinted\n"
    assert len(lines_of("(3.2) variance", output)) == 2
    assert len(lines_of("(3.2) variance of it", output)) == 1
    assert lines_of("(3.2)", output) == []
    assert lines_of("(3.2) variance", PASSED.replace("ok  ", "FAIL")) == []


def test_enough_of_the_theory_is_executed_and_exact():
    """At least 120 checks over chapters 01 to 06, at least 80 of them identities or quadrature at 1e-10 or better."""
    outputs = [
        output for path in course.chapters() if "01" <= path.name[:2] <= "06" for _, output in cells(path.stem).values()
    ]
    passed = [line for output in outputs for line in output.splitlines() if line.startswith("ok   ")]
    exact = [line for line in passed if (tol := re.search(r" <= (\S+)$", line)) and float(tol[1]) <= 1e-10]
    assert len(passed) >= 120
    assert len(exact) >= 80
