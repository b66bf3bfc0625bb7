"""Every displayed equation has a check that could have failed: corrupting the code that states it turns it red."""

import functools
from pathlib import Path

import course
import equations
import nbformat
import notebook
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHAPTERS = {int(path.name[:2]): path for path in course.chapters()}
ENTRIES = equations.entries(course.ROOT)
CORRUPTIONS = {tag: entry["corrupt"] for tag, entry in ENTRIES.items() if "corrupt" in entry}


def test_every_equation_is_covered_and_the_map_is_current():
    found, faults = equations.collect()
    assert faults == []
    assert found, "no tagged equation in any chapter"
    page = course.ROOT / "notebooks" / "equations.md"
    assert page.read_text(encoding="utf-8") == equations.render(found), "run python tools/equations.py"


@functools.cache
def tags(chapter: int) -> list[str]:
    displayed = equations.displayed(course.read(CHAPTERS[chapter]))
    return [tag for tag in map(equations.tag_of, displayed) if tag]


@pytest.mark.parametrize("chapter", [number for number in CHAPTERS if tags(number)])
def test_every_equation_of_a_chapter_is_corrupted(chapter):
    assert [tag for tag in tags(chapter) if tag not in CORRUPTIONS] == []


@functools.cache
def runs(chapter: int) -> tuple[set[str], dict[str, set[str]]]:
    """Tags that are green as the chapter stands, and for each corruption those that it turns red."""
    path = CHAPTERS[chapter]
    mine = {tag: change for tag, change in CORRUPTIONS.items() if int(tag.split(".")[0]) == chapter}
    corrupted = notebook.run_corrupted(path, notebook.code(path), mine)
    assert notebook.red(notebook.checks.results) == set()
    return notebook.green(notebook.checks.results), corrupted


@pytest.mark.parametrize("tag", CORRUPTIONS)
def test_corrupting_the_code_turns_the_check_of_its_equation_red(tag):
    green, corrupted = runs(int(tag.split(".")[0]))
    assert tag in green
    assert tag in corrupted[tag]


# The coverage itself must be able to fail: toy courses with one fault each.

CHECK = "ok   (3.1) closed form = composition                    1.1e-16 <= 1e-12\n"
ENTRY = '["3.1"]\nfunction = "gaussian.q_mean_var"\ntest = "test_gaussian.py::test_closed_form"\n'


def toy_course(root: Path, markdown: str, stdout: str = CHECK, toml: str = ENTRY) -> Path:
    for folder in ("notebooks", "tests/equations", "ddpm_edu"):
        (root / folder).mkdir(parents=True)
    cell = new_code_cell("...", outputs=[new_output("stream", name="stdout", text=stdout)])
    nbformat.write(
        new_notebook(cells=[new_markdown_cell(markdown), cell]), root / "notebooks" / "03_forward_process.ipynb"
    )
    (root / "tests" / "equations" / "03.toml").write_text(toml)
    (root / "tests" / "test_gaussian.py").write_text("def test_closed_form():\n    pass\n")
    (root / "ddpm_edu" / "gaussian.py").write_text("def q_mean_var():\n    pass\n")
    return root


def test_a_covered_toy_course_has_no_fault(tmp_path):
    root = toy_course(tmp_path, "$$a = |b|.\n\\tag{3.1}$$ and $$c = d \\tag*{(definition)}$$ and `$$ code $$`")
    found, faults = equations.collect(root)
    assert faults == []
    assert equations.render(found).splitlines()[-1] == (
        r"| [(3.1)](03_forward_process.ipynb) | $a = \vert b\vert$ | closed form = composition"
        r" | [`gaussian.q_mean_var`](../ddpm_edu/gaussian.py) | [`test_closed_form`](../tests/test_gaussian.py) |"
    )


@pytest.mark.parametrize(
    ("markdown", "changed", "fault"),
    [
        (r"$$a = b \tag{3.1}$$", {"stdout": ""}, "(3.1) has no executed check that passed"),
        (r"$$a = b \tag{3.1}$$", {"stdout": CHECK.replace("ok  ", "FAIL")}, "(3.1) has no executed check that passed"),
        (r"$$a = b$$ $$a = b \tag{3.1}$$", {}, r"expected one \tag{3.N} or \tag*{(definition)}: a = b"),
        (r"$$a \tag{3.1}$$ $$b \tag{3.1}$$", {}, "(3.1) comes after (3.1)"),
        (r"$$a \tag{3.2}$$ $$b \tag{3.1}$$", {}, "(3.1) comes after (3.2)"),
        (r"$$a \tag{4.1}$$", {}, "(4.1) comes after (3.0)"),
        (r"$$a \tag{3.1} \\ b \tag{3.2}$$", {}, "expected one"),
        ("$$a \\tag{3.1}$$\n\\begin{align} b \\end{align}", {}, "displayed without $$"),
        (r"$$a \tag*{(definition)}$$", {}, "a check names (3.1), which no equation carries"),
        (r"$$a \tag{3.1}$$", {"toml": ""}, 'tests/equations: ["3.1"]: expected function, test'),
        (r"$$a \tag{3.1}$$", {"toml": ENTRY + '["3.2"]\n'}, "tests/equations: [3.2] names no equation"),
        (r"$$a \tag{3.1}$$", {"toml": ENTRY.replace("q_mean", "p_mean")}, "no p_mean_var in gaussian.py"),
        (r"$$a \tag{3.1}$$", {"toml": ENTRY.replace("test_closed", "test_open")}, "no test_open_form in test_gaussian"),
        (r"$$a \tag{3.1}$$", {"toml": ENTRY.replace("test_g", "test_h")}, "no test_closed_form in test_haussian"),
    ],
)
def test_a_gap_in_the_coverage_is_reported(tmp_path, markdown, changed, fault):
    _, faults = equations.collect(toy_course(tmp_path, markdown, **changed))
    assert any(fault in line for line in faults), faults


def test_a_statement_becomes_one_line_of_inline_maths():
    aligned = "\\begin{aligned}\n a &= b \\\\[4pt]\n &= \\|c\\|, \n\\end{aligned} \\tag{3.1}"
    assert equations.statement(aligned) == r"$a = b \; = \Vert c\Vert$"
    assert equations.statement(r"\begin{cases} a & b \\ c & d \end{cases} \tag{3.1}") == (
        r"$\begin{cases} a & b \\ c & d \end{cases}$"
    )


# The runner must be able to see red.

TOY = "from ddpm_edu.checks import check_close\na = 2.0"
TOY_CHECK = 'check_close("(3.1) twice", 2 * a, 4.0)\nb = a'


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "03_toy.ipynb"
    later = 'check_close("(3.2) b is a", b, a)'
    slider = new_code_cell("raise RuntimeError", metadata={"tags": ["slider"]})
    cells = [new_code_cell(TOY), new_code_cell(TOY_CHECK), slider, new_code_cell(later)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_the_runner_reports_green_and_red(toy):
    cells = notebook.code(toy)
    assert notebook.green(notebook.run(toy, cells)) == {"3.1", "3.2"}
    results = notebook.run(toy, [cell.replace("a = 2.0", "a = 3.0") for cell in cells])
    assert notebook.red(results) == {"3.1"}
    assert notebook.green(results) == set()


def test_each_corruption_acts_alone_and_leaves_the_run_as_it_was(toy):
    cells = notebook.code(toy)
    corruptions = {"3.1": ("2 * a", "a + a + 1"), "3.2": ("b = a", "b = a + 1")}
    assert notebook.run_corrupted(toy, cells, corruptions) == {"3.1": {"3.1"}, "3.2": {"3.2"}}
    assert notebook.green(notebook.checks.results) == {"3.1", "3.2"}
    assert notebook.run_corrupted(toy, cells, {"3.2": ("2 * a, 4.0", "4.0, 2 * a")}) == {"3.2": set()}


def test_the_runner_does_not_hide_an_error_that_no_check_explains(toy):
    cells = notebook.code(toy)
    with pytest.raises(NameError, match="oops"):
        notebook.run(toy, [cell.replace("a = 2.0", "a = oops") for cell in cells])
    assert notebook.run_corrupted(toy, cells, {"3.1": ("a = 2.0", "a = oops")}) == {
        "3.1": {"NameError: name 'oops' is not defined"}
    }


def test_a_corruption_that_is_not_found_once_is_refused(toy):
    with pytest.raises(ValueError, match="'a' exactly once"):
        notebook.run_corrupted(toy, notebook.code(toy), {"3.1": ("a", "b")})
