"""Code cells of a notebook, run without a kernel: which of them its sliders need, and a stage to run them on."""

import contextlib
import io
import symtable
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import matplotlib
from IPython.core.inputtransformer2 import TransformerManager
from IPython.display import display
from nbformat import NotebookNode


@contextlib.contextmanager
def stage(path: Path) -> Iterator[dict[str, Any]]:
    """An empty namespace in the notebook's folder, with no window, no output and no warning."""
    matplotlib.use("Agg")
    with contextlib.chdir(path.parent), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield {"__name__": "__main__", "display": display}


def compiled(path: Path, source: str) -> CodeType:
    """The source of a cell, to be executed; a traceback names the notebook and how the cell begins."""
    return compile(TransformerManager().transform_cell(source), f"{path.name}: {source[:40]!r}", "exec")


def has_slider(cell: NotebookNode) -> bool:
    """Is this a cell with a slider?"""
    return "slider" in cell.metadata.get("tags", [])


def needed_by_sliders(cells: list[NotebookNode]) -> list[int]:
    """`needed` for the cells with a slider, out of all code cells."""
    return needed([cell.source for cell in cells], [number for number, cell in enumerate(cells) if has_slider(cell)])


def needed(cells: list[str], wanted: list[int]) -> list[int]:
    """Numbers of the wanted cells and of those that bind what they read, and what those read, and so on, in order.

    Where several cells bind a name, it is the last of them before the cell that reads it.
    """
    names = [_names(cell) for cell in cells]
    found: set[int] = set()
    left = list(wanted)
    while left:
        reader = left.pop()
        if reader not in found:
            found.add(reader)
            for name in names[reader][1]:
                binders = [number for number, (bound, _) in enumerate(names) if name in bound]
                before = [number for number in binders if number < reader]
                left += before[-1:] or binders[:1]  # a function may read what is bound after it
    return sorted(found)


def _names(cell: str) -> tuple[set[str], set[str]]:
    """The global names that a cell binds, and those that it reads and does not bind."""

    def read(scope: symtable.SymbolTable) -> set[str]:
        here = {
            one.get_name() for one in scope.get_symbols() if one.is_referenced() and (one.is_global() or top is scope)
        }
        return here.union(*map(read, scope.get_children()))

    top = symtable.symtable(TransformerManager().transform_cell(cell), "cell", "exec")
    bound = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    return bound, read(top) - bound
