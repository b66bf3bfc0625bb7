"""Switching a bug on: one text in a function's source is replaced, and the function runs the result for a while.

The function object stays the same and only its code is exchanged, so that every name which refers to it, in whichever
module, sees the bug. Afterwards the code is put back, whatever happened.
"""

import difflib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Bug:
    """A wrong version of one function: ``old``, which occurs once in its source, replaced by ``new``.

    ``where`` is "module.function" or "module.Class.method" of the package, or "learner.function" for the code of the
    gallery that stands for a reader's own. Whoever tries a patch of their own needs the first four fields only.
    """

    name: str
    where: str
    old: str
    new: str
    symptom: str = ""  # what the user sees
    check: str = ""  # the name of a check that goes red
    source: str = ""  # where the slip was seen


def function(where: str) -> FunctionType:
    """The function that ``where`` names, without its decorators. ValueError if there is none."""
    module, *path = where.split(".")
    package = "ddpm_edu.bugs" if module == "learner" else "ddpm_edu"
    try:
        found: Any = importlib.import_module(f"{package}.{module}")
        for name in path:
            found = inspect.getattr_static(found, name)
    except (ImportError, AttributeError):
        found = None
    if isinstance(found, property):
        found = found.fget
    found = inspect.unwrap(getattr(found, "__func__", found)) if found else None  # class methods hide their function
    if not isinstance(found, FunctionType) or not found.__module__.startswith("ddpm_edu."):
        raise ValueError(f"where: expected a function such as 'gaussian.q_sample', got {where!r}")
    return found


_on: list[str] = []


@contextmanager
def broken(bug: Bug) -> Iterator[None]:
    """Switch ``bug`` on for the body of a with statement.

    A generator runs the code that was in force when it was called: draw it to its end inside of the body. One bug at a
    time. ValueError in one line where another is on, and where the patch does not fit.
    """
    if _on:
        raise ValueError(f"broken: {_on[0]!r} is on already, one bug at a time")
    target, code = function(bug.where), _patched(bug)
    right = target.__code__
    try:
        _on.append(bug.name)
        target.__code__ = code
        yield
    finally:
        target.__code__ = right
        _on.clear()


def diff(bug: Bug) -> str:
    """The patch as a unified diff of the function's source. ValueError where it does not fit."""
    before, after = (textwrap.dedent(text).splitlines() for text in _sources(bug))
    lines = difflib.unified_diff(before, after, bug.where, f"{bug.where}: {bug.name}", lineterm="", n=1)
    return "\n".join(line for line in lines if not line.startswith("@@"))


def _sources(bug: Bug) -> tuple[str, str]:
    """Source of the function, right and wrong."""
    right = inspect.getsource(function(bug.where))
    if (count := right.count(bug.old)) != 1:
        raise ValueError(f"old: expected {bug.old!r} exactly once in {bug.where}, found it {count} times")
    return right, right.replace(bug.old, bug.new)


def _patched(bug: Bug) -> CodeType:
    """The code of the wrong function, compiled where the right one stands in its module."""
    target = function(bug.where)
    _, wrong = _sources(bug)
    lines, first = inspect.getsourcelines(target)
    module = inspect.getsource(sys.modules[target.__module__]).splitlines(keepends=True)
    text = "".join([*module[: first - 1], wrong, *module[first - 1 + len(lines) :]])
    try:
        code = _find(compile(text, target.__code__.co_filename, "exec"), target.__qualname__)
    except SyntaxError as error:
        raise ValueError(f"new: {bug.new!r} gives no valid Python: {error.msg}") from None
    if code is None or code.co_freevars != target.__code__.co_freevars:
        raise ValueError(f"new: {bug.new!r} leaves no {bug.where} that fits in its place")
    if code == target.__code__:
        raise ValueError(f"new: {bug.new!r} changes nothing that {bug.where} runs: patch its body, not its signature")
    return code


def _find(code: CodeType, qualname: str) -> CodeType | None:
    """The code object of that qualified name inside of a module's."""
    if code.co_qualname == qualname:
        return code
    inner = (_find(const, qualname) for const in code.co_consts if isinstance(const, CodeType))
    return next((found for found in inner if found is not None), None)
