"""Equation coverage: every displayed equation of every chapter, and the executed check that holds it.

    python tools/equations.py           # write notebooks/equations.md
    python tools/equations.py --check   # exit status 1 where it is not current

A displayed equation carries ``\\tag{chapter.number}`` or ``\\tag*{(definition)}``. For each tag, a check in the
chapter's stored outputs must name it, and tests/equations/NN.toml must say which package function states it and which
test holds that.
"""

import argparse
import ast
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import course
from nbformat import NotebookNode

DEFINITION = r"\tag*{(definition)}"
DISPLAYED = re.compile(r"\$\$(.*?)\$\$", re.DOTALL)
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)
OTHER_DISPLAY = re.compile(r"\\begin\{(?:equation|align|gather|multline)\*?\}|\\\\\[|^\s*\\\[", re.MULTILINE)
TAG = re.compile(r"\\tag\{(\d+)\.(\d+)\}")
# The line that ddpm_edu.checks prints: status, equation, then "error <= tolerance" or "mean, want ...".
RESULT = r" +(?=\S+ <= |\S+, want )"
PASSED = re.compile(rf"^ok   \((\d+\.\d+)\) +(.*?){RESULT}", re.MULTILINE)
ALIGNED = re.compile(r"\\(?:begin|end)\{(?:aligned|split|gathered)\}")
LINE_BREAK = re.compile(r"\\\\(?:\[[^\]]*\])?")


@dataclass(frozen=True)
class Equation:
    """A tagged result: where it stands, what it says, which passed checks name it, its entry in tests/equations."""

    tag: str
    chapter: str
    statement: str
    checks: tuple[str, ...]
    function: str
    test: str


def displayed(notebook: NotebookNode) -> list[str]:
    """LaTeX of every displayed equation of a notebook, in order."""
    return [latex.strip() for text in _prose(notebook) for latex in DISPLAYED.findall(text)]


def _prose(notebook: NotebookNode) -> list[str]:
    return [CODE.sub("", cell.source) for cell in notebook.cells if cell.cell_type == "markdown"]


def tag_of(latex: str) -> str | None:
    """ "3.4" from an equation with one ``\\tag{3.4}``, else None."""
    tags = TAG.findall(latex)
    return ".".join(tags[0]) if len(tags) == 1 and latex.count(r"\tag") == 1 else None


def passed_checks(notebook: NotebookNode) -> dict[str, list[str]]:
    """Tag -> names of the checks in the stored outputs that passed."""
    found: dict[str, list[str]] = {}
    for cell in course.code_cells(notebook):
        for tag, name in PASSED.findall(course.printed(cell)):
            found.setdefault(tag, []).append(name)
    return found


def entries(root: Path) -> dict[str, dict]:
    """tests/equations/NN.toml, one for each chapter: tag -> function, test and, for most, corrupt."""
    found: dict[str, dict] = {}
    for path in sorted((root / "tests" / "equations").glob("*.toml")):
        found |= tomllib.loads(path.read_text(encoding="utf-8"))
    return found


def collect(root: Path = course.ROOT) -> tuple[list[Equation], list[str]]:
    """The tagged equations of all chapters, and every fault of the coverage, one line each."""
    equations, faults, listed = [], [], entries(root)
    for path in course.chapters(root):
        notebook, chapter = course.read(path), int(path.name[:2])
        faults += [
            f"{path.name}: displayed without $$, so not covered: {found}"
            for text in _prose(notebook)
            for found in OTHER_DISPLAY.findall(DISPLAYED.sub("", text))
        ]
        checks, last = passed_checks(notebook), 0
        for latex in displayed(notebook):
            if DEFINITION in latex and latex.count(r"\tag") == 1:
                continue
            tag = tag_of(latex)
            if tag is None:
                faults.append(
                    f"{path.name}: expected one \\tag{{{chapter}.N}} or {DEFINITION}: {_one_line(latex)[:80]}"
                )
                continue
            number = int(tag.split(".")[1])
            if tag != f"{chapter}.{number}" or number <= last:
                faults.append(f"{path.name}: ({tag}) comes after ({chapter}.{last})")
            last = number
            if tag not in checks:
                faults.append(f"{path.name}: ({tag}) has no executed check that passed")
            entry = listed.get(tag, {})
            faults += _entry_faults(root, tag, entry)
            equations.append(
                Equation(
                    tag,
                    path.name,
                    statement(latex),
                    tuple(checks.get(tag, [])),
                    entry.get("function", ""),
                    entry.get("test", ""),
                )
            )
        tags = {equation.tag for equation in equations}
        faults += [
            f"{path.name}: a check names ({tag}), which no equation carries"
            for tag in checks
            if tag.startswith(f"{chapter}.") and tag not in tags
        ]
    tags = {equation.tag for equation in equations}
    faults += [f"tests/equations: [{tag}] names no equation" for tag in listed if tag not in tags]
    return equations, faults


def _entry_faults(root: Path, tag: str, entry: dict) -> list[str]:
    if not {"function", "test"} <= entry.keys() <= {"function", "test", "corrupt"}:
        got = ", ".join(entry) or "nothing"
        return [f'tests/equations: ["{tag}"]: expected function, test and possibly corrupt, got {got}']
    module, _, function = entry["function"].partition(".")
    file, _, test = entry["test"].partition("::")
    places = [(root / "ddpm_edu" / f"{module}.py", function.split(".")), (root / "tests" / file, test.split("::"))]
    return [
        f'tests/equations: ["{tag}"]: no {".".join(names)} in {path.name}'
        for path, names in places
        if not (path.is_file() and _defines(ast.parse(path.read_text(encoding="utf-8")), names))
    ]


def _defines(tree: ast.Module | ast.ClassDef, names: list[str]) -> bool:
    """Whether a function or class, or one inside a class, of that name stands in the parsed file."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == names[0]:
            return len(names) == 1 or (isinstance(node, ast.ClassDef) and _defines(node, names[1:]))
    return False


def statement(latex: str) -> str:
    """An equation as inline maths for a cell of a markdown table: one line, no tag, no bare |."""
    text = TAG.sub("", latex)
    if "\\begin" not in ALIGNED.sub("", text):  # a matrix or a case keeps its columns
        text = LINE_BREAK.sub(r"\\;", ALIGNED.sub("", text)).replace("&", "")
    text = text.replace(r"\|", r"\Vert ").replace("|", r"\vert ")
    return f"${_one_line(text).rstrip('., ')}$"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def render(equations: list[Equation]) -> str:
    """notebooks/equations.md."""
    lines = [
        "# Equations and the checks that hold them",
        "",
        "Every displayed result of the course, the check in its chapter that could have failed and passed, the package",
        "function that states it, and the test of that function. Written by `python tools/equations.py`; do not edit.",
        "",
        "| equation | statement | check | function | test |",
        "|---|---|---|---|---|",
    ]
    for equation in equations:
        module = equation.function.partition(".")[0]
        file, _, test = equation.test.partition("::")
        cells = [
            f"[({equation.tag})]({equation.chapter})",
            equation.statement,
            "; ".join(equation.checks).replace("|", r"\|"),
            f"[`{equation.function}`](../ddpm_edu/{module}.py)",
            f"[`{test}`](../tests/{file})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write notebooks/equations.md, the map from equations to checks.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where it is not current")
    check = parser.parse_args().check
    equations, faults = collect()
    page, text = course.ROOT / "notebooks" / "equations.md", render(equations)
    if check and not (page.exists() and page.read_text(encoding="utf-8") == text):
        faults.append("notebooks/equations.md is not current: run python tools/equations.py")
    for fault in faults:
        print(fault, file=sys.stderr)
    if not (check or faults):
        page.write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(equations)} tagged equations, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
