"""The schedule laboratory as a page of its own, through Voilà: an optional extra, so its test is skipped without."""

import socket
import subprocess
import sys
import time

import course
import pytest

pytest.importorskip("voila", reason="voila is not installed: pip install -c constraints.txt -e '.[voila]'")

LABORATORY = course.ROOT / "notebooks" / "explore_schedules.ipynb"
PATIENCE = 120_000  # milliseconds: the server starts a kernel, which imports torch
OWN_ICONS = "fontawesome"  # Voilà's page asks for an icon font, and does without where there is no internet connection


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a Voilà server for the laboratory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("voila") / "voila.log"
    command = [sys.executable, "-m", "voila", "--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}", str(LABORATORY)]
    with log.open("w") as sink:
        server = subprocess.Popen(command, cwd=course.ROOT, stdout=sink, stderr=subprocess.STDOUT)
        try:
            for _ in range(240):
                assert server.poll() is None, f"Voilà ended:\n{log.read_text()}"
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.25)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(60)


def test_the_laboratory_opens_and_a_slider_moves_it(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    errors, outside = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: request.url.startswith((address, "data:", "blob:")) or outside.append(request))
    page.route(lambda url: not url.startswith((address, "data:", "blob:")), lambda route: route.abort())
    page.goto(address, timeout=PATIENCE)
    text = page.locator(".ddpm-text-laboratory").first
    text.wait_for(timeout=PATIENCE)
    before, picture = text.inner_text(), page.locator(".ddpm-view-laboratory").first.screenshot()
    page.locator(".ddpm-slider-laboratory").nth(1).locator(".noUi-handle").focus()  # A: T
    page.keyboard.press("Home")
    page.wait_for_function(
        "before => document.querySelector('.ddpm-text-laboratory').innerText !== before", arg=before, timeout=30_000
    )
    assert page.locator(".ddpm-view-laboratory").first.screenshot() != picture
    assert page.locator(".highlight").count() == 0, "the demo shows code"
    assert errors == []
    assert [request.url for request in outside if OWN_ICONS not in request.url] == []
    page.close()
