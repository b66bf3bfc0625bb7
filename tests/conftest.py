"""Fixtures shared by the tests."""

import os
import shutil

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
    executable = headless.chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        headless.missing("no playwright: pip install -e .[test]")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=headless.CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab over a copy of the notebooks, with settings of its own."""
    tmp_path = tmp_path_factory.mktemp("lab")
    for folder in ("notebooks", "images"):
        shutil.copytree(course.ROOT / folder, tmp_path / "course" / folder)
    settings = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    port = headless.free_port()
    flags = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={tmp_path / 'course'}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--expose-app-in-browser",
    ]
    environment = {
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    with headless.serving(port, "jupyterlab", *flags, home=tmp_path, **environment) as address:
        yield address


def pytest_terminal_summary(terminalreporter):
    """Say where the pictures of the browser tests are."""
    if headless.taken:
        terminalreporter.write_line(f"{len(headless.taken)} pictures of the pages are in {headless.PICTURES}")
