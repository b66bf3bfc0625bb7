"""Fixtures shared by the tests."""

import os

import pytest
from headless import CHROMIUM_FLAGS, chromium, missing


@pytest.fixture(scope="session")
def diffusers():
    """diffusers, the independent implementation: required in CI, elsewhere a skip that says how to get it."""
    if os.environ.get("CI") == "true":
        import diffusers

        return diffusers
    return pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window."""
    executable = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright: pip install -e .[test]")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
