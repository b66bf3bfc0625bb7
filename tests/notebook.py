"""Run the code cells of a notebook without a kernel, as they are or with one piece of code replaced."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import course
import torch
from cells import compiled, stage
from matplotlib import pyplot

from ddpm_edu import checks

NO_CHECKS = {"figure", "slider"}  # cells with these tags take time and check nothing


def code(path: Path, skip: set[str] = NO_CHECKS) -> list[str]:
    """Source of the code cells, without those tagged with one of ``skip``."""
    cells = course.code_cells(course.read(path))
    return [cell.source for cell in cells if not skip.intersection(cell.metadata.get("tags", []))]


def run(path: Path, cells: list[str], until: str | None = None) -> list[checks.Result]:
    """Execute cells in one namespace in the notebook's folder; what the checks said, in order.

    A failed check ends its cell, not the run. What the later cells then raise, for want of the names that the rest of
    that cell would have defined, is a consequence and passed over. With ``until``, the run ends at the first red
    check of that tag.
    """
    checks.results.clear()
    with stage(path) as namespace:
        _execute(path, cells, namespace, until)
    return list(checks.results)


def run_corrupted(path: Path, cells: list[str], corruptions: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    """Tag -> tags of the red checks when its corruption (old, new) is in force, each as by `run` with that tag.

    The cells are executed once. Where a corruption sets in, a forked child goes on with the corrupted code, so that
    what came before is not computed again. What the checks said as the chapter stands is left in `checks.results`.
    """
    found = {}
    torch.set_num_threads(1)  # a child has none of its parent's threads
    places = {tag: _place(cells, old) for tag, (old, _) in corruptions.items()}
    checks.results.clear()
    with stage(path) as namespace:
        for number, cell in enumerate(cells):
            for tag, (old, new) in corruptions.items():
                if places[tag] == number:
                    rest = [cell.replace(old, new), *cells[number + 1 :]]
                    found[tag] = _in_child(functools.partial(_execute, path, rest, namespace, tag))
            _execute(path, [cell], namespace)
    return found


def _place(cells: list[str], old: str) -> int:
    """Number of the cell that holds ``old``; ValueError unless it stands in the chapter's code exactly once."""
    count = sum(cell.count(old) for cell in cells)
    if count != 1:
        raise ValueError(f"corrupt: expected {old!r} exactly once in the chapter's code, found {count} times")
    return next(number for number, cell in enumerate(cells) if old in cell)


def _execute(path: Path, cells: list[str], namespace: dict[str, Any], until: str | None = None) -> None:
    for cell in cells:
        source = compiled(path, cell)
        try:
            exec(source, namespace)
        except Exception:
            if not red(checks.results):
                raise
        finally:
            pyplot.close("all")
        if until in red(checks.results):
            break


def _in_child(work: Callable[[], None]) -> set[str]:
    """Tags of the checks that are red after ``work`` in a forked child, or where it raised, what."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            answer = sorted(red(checks.results))
        except BaseException as error:
            answer = [f"{type(error).__name__}: {error}"]
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = json.loads(pipe.read() or '["the child died"]')
    os.waitpid(child, 0)
    return set(answer)


def red(results: list[checks.Result]) -> set[str]:
    """Tags of the checks that failed."""
    return {tag(result) for result in results if not result.ok}


def green(results: list[checks.Result]) -> set[str]:
    """Tags of the checks that passed."""
    return {tag(result) for result in results if result.ok}


def tag(result: checks.Result) -> str:
    """ "3.4" from a check named "(3.4) closed form = composition"."""
    return result.eq.partition(")")[0].removeprefix("(")
