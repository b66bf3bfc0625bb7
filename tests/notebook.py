"""Run the code cells of a notebook in this process, as they are or with one piece of code replaced."""

import contextlib
import io
import warnings
from pathlib import Path

import course
import matplotlib
from IPython.core.inputtransformer2 import TransformerManager
from IPython.display import display

from ddpm_edu import checks

NO_CHECKS = {"figure", "slider"}  # cells with these tags take time and check nothing


def code(path: Path, skip: set[str] = NO_CHECKS) -> list[str]:
    """Source of the code cells, without those tagged with one of ``skip``."""
    cells = course.code_cells(course.read(path))
    return [cell.source for cell in cells if not skip.intersection(cell.metadata.get("tags", []))]


def corrupted(cells: list[str], old: str, new: str) -> list[str]:
    """The cells with the one place that reads ``old`` replaced."""
    count = sum(cell.count(old) for cell in cells)
    if count != 1:
        raise ValueError(f"corrupt: expected {old!r} exactly once in the chapter's code, found {count} times")
    return [cell.replace(old, new) for cell in cells]


def run(path: Path, cells: list[str], until: str | None = None) -> list[checks.Result]:
    """Execute cells in one namespace in the notebook's folder; what the checks said, in order.

    A failed check ends its cell, not the run. What the later cells then raise, for want of the names that the rest of
    that cell would have defined, is a consequence and passed over. With ``until``, the run ends at the first red
    check of that tag.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    namespace = {"__name__": "__main__", "display": display}
    checks.results.clear()
    with contextlib.chdir(path.parent), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for number, cell in enumerate(cells, 1):
            source = compile(TransformerManager().transform_cell(cell), f"{path.name}, code cell {number}", "exec")
            try:
                exec(source, namespace)
            except Exception:
                if not red(checks.results):
                    raise
            finally:
                pyplot.close("all")
            if until in red(checks.results):
                break
    return list(checks.results)


def red(results: list[checks.Result]) -> set[str]:
    """Tags of the checks that failed."""
    return {tag(result) for result in results if not result.ok}


def green(results: list[checks.Result]) -> set[str]:
    """Tags of the checks that passed."""
    return {tag(result) for result in results if result.ok}


def tag(result: checks.Result) -> str:
    """ "3.4" from a check named "(3.4) closed form = composition"."""
    return result.eq.partition(")")[0].removeprefix("(")
