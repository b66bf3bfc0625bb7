"""Execute the course: every chapter and every solution, each top to bottom in a fresh kernel.

    python tools/course.py           # a table: chapter, seconds, checks passed; changes no file
    python tools/course.py --write   # the same, then store the cleaned outputs in the notebooks
    python tools/course.py --write notebooks/04_posterior.ipynb   # only this one

A stored notebook holds nothing that differs between two runs, so a second ``--write`` changes no byte.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds a cell may take
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_METADATA = {"slideshow", "tags", "jupyter"}
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")
LAST_LINE_WIDTH = 200


def chapters(root: Path = ROOT) -> list[Path]:
    """The numbered chapters, in order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the course: chapters, unnumbered notebooks, solutions."""
    folder = root / "notebooks"
    return sorted(folder.glob("*.ipynb")) + sorted((folder / "solutions").glob("*.ipynb"))


def lectures() -> list[Path]:
    """The notebooks with slides: all but the solutions."""
    return [path for path in notebooks() if path.parent.name == "notebooks"]


def chosen(chapter: str, paths: list[Path]) -> Path:
    """The notebook with a number ("04") or a name ("break_it"); one line to stderr and the end where there is none."""
    found = [path for path in paths if chapter in {path.stem, number(path)}]
    if len(found) != 1:
        sys.exit(f"CHAPTER: expected one of {', '.join(map(number, paths))}, got {chapter!r}")
    return found[0]


def number(path: Path) -> str:
    """ "04", or the name of a notebook without a number."""
    return path.stem.split("_")[0] if path.stem[0].isdigit() else path.stem


def read(path: Path) -> NotebookNode:
    """The stored notebook."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: NotebookNode, stream: str = "stdout") -> str:
    """What a code cell printed to stdout (or stderr)."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == stream)


def checks_passed(notebook: NotebookNode) -> int:
    """Number of checks that printed ok."""
    lines = [line for cell in code_cells(notebook) for line in printed(cell).splitlines()]
    return sum(line.startswith("ok   ") for line in lines)


def execute(path: Path) -> NotebookNode:
    """Run a notebook in its own folder in a fresh kernel of the running Python; raises what nbclient raises."""
    notebook = read(path)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # the kernel warns that it talks over the loopback interface
        resources={"metadata": {"path": str(path.parent)}},
    )
    with tempfile.TemporaryDirectory() as empty:  # what its reader has solved is no part of a chapter
        client.execute(env={**os.environ, "DDPM_EDU_HOME": empty})
    return notebook


def clean(notebook: NotebookNode) -> NotebookNode:
    """Leave only what is the same in every run and what a repository viewer can show."""
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(kernel), language_info=NotebookNode(name="python"))
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key in CELL_METADATA})
    for cell in code_cells(notebook):
        cell.outputs = [out for out in cell.outputs if not _only_a_widget(out)]
        for out in cell.outputs:
            out.get("data", {}).pop(WIDGET_VIEW, None)
    return notebook


def _only_a_widget(out: NotebookNode) -> bool:
    """A live widget without a picture: a progress bar, or a slider's control. Its text is no use to a reader."""
    data = out.get("data", {})
    return WIDGET_VIEW in data and not any(kind.startswith("image/") for kind in data)


def faults(notebook: NotebookNode) -> list[str]:
    """Why these outputs must not be stored, one line each."""
    found = []
    for number, cell in enumerate(code_cells(notebook), 1):
        if printed(cell, "stderr"):
            found.append(f"code cell {number} printed to stderr: {_last_line(printed(cell, 'stderr'))}")
        for out in cell.outputs:
            if out.output_type == "error":
                found.append(f"code cell {number} raised {out.ename}: {_last_line(out.evalue)}")
            address = ADDRESS.search(out.get("text", "") + out.get("data", {}).get("text/plain", ""))
            if address:
                found.append(f"code cell {number} shows an object's address, {address[0]}: end its last line with ;")
    return found


def write(path: Path, notebook: NotebookNode) -> None:
    """Store a notebook: all of it or nothing, and only where a byte differs."""
    text = nbformat.writes(notebook) + "\n"
    if text == path.read_text(encoding="utf-8"):
        return
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def run(paths: list[Path], store: bool) -> int:
    """Execute the notebooks, print the table, return the exit status."""
    rows, failures = [], []
    for path in tqdm(paths, unit="notebook"):
        name = f"solutions/{path.stem}" if path.parent.name == "solutions" else path.stem
        started = time.perf_counter()
        passed, problems = "-", []
        try:
            notebook = execute(path)
        except CellExecutionError as error:
            problems = [f"{error.ename}: {_last_line(error.evalue)}"]
        except (CellTimeoutError, DeadKernelError) as error:
            problems = [_last_line(str(error))]
        else:
            passed = str(checks_passed(notebook))
            if store:
                problems = faults(clean(notebook))
                if not problems:
                    write(path, notebook)
        rows.append((name, f"{time.perf_counter() - started:.1f}", passed, "FAILED" if problems else ""))
        failures += [f"{name}: {problem}" for problem in problems]
    print(table(rows))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures or not rows else 0


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """Aligned columns: chapter, seconds, checks passed."""
    header = ("chapter", "seconds", "checks passed", "")
    width = max(len(row[0]) for row in [header, *rows])
    return "\n".join(f"{a:<{width}}  {b:>7}  {c:>13}  {d}".rstrip() for a, b, c, d in [header, *rows])


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:LAST_LINE_WIDTH] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute every notebook of the course in a fresh kernel.")
    parser.add_argument("--write", action="store_true", help="store the cleaned outputs in the notebooks")
    parser.add_argument("notebooks", nargs="*", type=Path, help="these only; all of them if none is named")
    arguments = parser.parse_args()
    return run([path.resolve() for path in arguments.notebooks] or notebooks(), store=arguments.write)


if __name__ == "__main__":
    sys.exit(main())
