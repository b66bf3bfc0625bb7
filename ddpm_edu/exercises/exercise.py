"""What an exercise consists of."""

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
