"""What the tests that look at pages share: a Chromium, or what to do without one, and pictures of the pages."""

import os
from pathlib import Path

import chromium
import course
import pytest

PICTURES = course.ROOT / "tests" / "browser-output"
taken: list[Path] = []  # pictures of this run


def executable() -> str:
    """Path of a Chromium; skips the test where there is none, fails in CI, which installs one."""
    if (found := chromium.find()) is None:
        missing(f"no browser: none of {', '.join(chromium.NAMES)} is installed")
    return found


def missing(reason: str) -> None:
    """Skip with the reason; in CI nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    print(reason)
    pytest.skip(reason)


def take_picture(page, name: str) -> None:
    """Keep what the window shows, to be looked at."""
    keep(page.screenshot(), name)


def keep(png: bytes, name: str) -> None:
    """Keep a picture, to be looked at."""
    PICTURES.mkdir(exist_ok=True)
    taken.append(PICTURES / f"{name}.png")
    taken[-1].write_bytes(png)
