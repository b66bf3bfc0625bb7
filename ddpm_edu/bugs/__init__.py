"""The break-it gallery: bugs that can be switched on one at a time, and the checks that find them."""

from ddpm_edu.bugs.examination import CHECKS, examine
from ddpm_edu.bugs.gallery import BUGS, find, secret
from ddpm_edu.bugs.patch import Bug, broken, diff, function

__all__ = ["BUGS", "CHECKS", "Bug", "broken", "diff", "examine", "find", "function", "red", "secret"]


def red(bug: Bug) -> dict[str, str]:
    """The checks that fail while ``bug`` is switched on: name -> the line that the check prints."""
    with broken(bug):
        return {result.eq: result.line for result in examine() if not result.ok}
