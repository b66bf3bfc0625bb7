"""The break-it gallery: bugs that can be switched on one at a time, and the checks that find them."""

import inspect
import textwrap
from contextlib import AbstractContextManager

from ddpm_edu.bugs import patch
from ddpm_edu.bugs.examination import CHECKS, examine, functions
from ddpm_edu.bugs.gallery import BUGS, find, secret
from ddpm_edu.bugs.patch import Bug, function

__all__ = [
    "BUGS", "CHECKS", "Bug", "broken", "diff", "examine", "find", "function", "functions", "guess", "red", "secret",
    "source",
]  # fmt: skip


def broken(bug: Bug | str | int) -> AbstractContextManager[None]:
    """Switch a bug, given as a Bug or by name or number, on for the body of a with statement (see `patch.broken`)."""
    return patch.broken(find(bug))


def diff(bug: Bug | str | int) -> str:
    """What the bug changes, as a unified diff of the function's source."""
    return patch.diff(find(bug))


def source(where: str) -> str:
    """The source of a function that can be broken, such as "gaussian.q_sample"."""
    return textwrap.dedent(inspect.getsource(function(where)))


def red(bug: Bug | str | int) -> dict[str, str]:
    """The checks that fail while the bug is switched on: name -> the line that the check prints."""
    with broken(bug):
        return {result.eq: result.line for result in examine() if not result.ok}


def guess(hidden: Bug, suspect: str | int) -> str:
    """What to say to a suspect of the hunt: a function such as "gaussian.q_sample", or a bug by name or number.

    A bug that turns the very same checks red counts as found. ValueError where there is no such function or bug.
    """
    if isinstance(suspect, str) and "." in suspect and suspect not in {bug.name for bug in BUGS}:
        function(suspect)
        return "yes, that function; now the slip" if suspect == hidden.where else f"no, not in {suspect}"
    bug = find(suspect)
    if bug.name == hidden.name:
        return "found!"
    got, want = set(red(bug)), set(red(hidden))
    if got == want:
        return f"found, as far as the red checks can tell: they are the same for {hidden.name!r}"
    if bug.where == hidden.where:
        return f"the right function, another slip: {bug.name!r} turns {len(got)} checks red, {len(got & want)} of these"
    return f"no: {bug.name!r} turns {len(got)} checks red, {len(got & want)} of these"
