"""Reference answers and cases of the exercises, by chapter, out of the reader's sight. Spoilers inside."""

import importlib
import pkgutil

from ddpm_edu.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
for module in sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name.startswith("chapter_")):
    EXERCISES |= importlib.import_module(f"{__name__}.{module}").EXERCISES

__all__ = ["EXERCISES", "Exercise"]
