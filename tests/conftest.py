"""Fixtures shared by the tests."""

import os
import shutil

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: what the tests expect is a CPU

import chromium
import course
import headless
import pytest


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
    executable = headless.executable()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        headless.missing("no playwright: pip install -e .[test]")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=chromium.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab over a copy of the notebooks, with settings of its own."""
    tmp_path = tmp_path_factory.mktemp("lab")
    for folder in ("notebooks", "images"):
        shutil.copytree(course.ROOT / folder, tmp_path / "course" / folder)
    with chromium.jupyterlab(tmp_path) as address:
        yield address


def pytest_terminal_summary(terminalreporter):
    """Say where the pictures of the browser tests are."""
    if headless.taken:
        terminalreporter.write_line(f"{len(headless.taken)} pictures of the pages are in {headless.PICTURES}")
