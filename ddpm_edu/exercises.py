"""Reference answers and cases of the exercises, by chapter, out of the reader's sight. Spoilers below."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exercise:
    """A reference solution, the keyword arguments of each case, a hint, and the relative tolerance."""

    reference: Callable[..., Any]
    cases: list[dict[str, Any]]
    hint: str
    tol: float = 1e-9


EXERCISES: dict[str, Exercise] = {}
