"""A Chromium without a window, for the tests that look at pages: its path, its flags, and what to do without it."""

import os
import shutil

import pytest

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Path of a Chromium; skips the test where there is none, fails in CI, which installs one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        missing(f"no browser: none of {', '.join(names)} is installed")
    return found


def missing(reason: str) -> None:
    """Skip with the reason; in CI nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    print(reason)
    pytest.skip(reason)
