"""The schedule laboratory as a page of its own, by Voila: an optional extra, skipped where it is not installed."""

import importlib.util
import subprocess

import chromium
import course
import headless
import lab
import pytest

from ddpm_edu.widgets import comparison, families

PATIENCE = 120_000  # milliseconds: the server starts a kernel, which imports torch
OWN_ICONS = "fontawesome"  # Voila's page asks for an icon font, and does without where there is no internet connection
TEXT, VIEW = ".ddpm-text-laboratory", ".ddpm-view-laboratory"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where Voila shows the laboratory."""
    if importlib.util.find_spec("voila") is None:
        headless.missing("no voila: pip install -c constraints.txt -e '.[voila]'")
    port = chromium.free_port()
    flags = ["--no-browser", "--Voila.ip=127.0.0.1", f"--port={port}", lab.LABORATORY]
    with chromium.serving(port, "voila", *flags, home=tmp_path_factory.mktemp("voila")) as address:
        yield f"{address}/"


@pytest.fixture
def page(browser, address):
    """The laboratory; at the end nobody has complained, and nothing was asked of another computer."""
    page = browser.new_page(viewport={"width": 1280, "height": 1250})
    errors, outside = [], []
    page.on("pageerror", lambda error: errors.append(error.stack or str(error)))
    page.on("request", lambda request: is_local(request.url, address) or outside.append(request.url))
    page.route(lambda url: not is_local(url, address), lambda route: route.abort())
    page.goto(address, timeout=PATIENCE)
    page.locator(TEXT).wait_for(timeout=PATIENCE)
    yield page
    assert errors == []
    assert [url for url in outside if OWN_ICONS not in url] == []
    page.close()


def is_local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def wait_for_text(page, *wanted: str) -> None:
    """Wait until the readout has all of this."""
    for text in wanted:
        page.locator(TEXT, has_text=text).wait_for(timeout=PATIENCE)


def kl(chosen: dict[str, families.Choice], steps: int | str) -> str:
    """What the package says of the generated densities."""
    return ". ".join(comparison.densities(chosen, steps, "β̃")["kl"].values())


def test_the_laboratory_opens_without_code_and_a_key_moves_it(page):
    start = families.START
    wait_for_text(page, comparison.views(start["A"])["readout"], kl(start, "T"))
    assert page.locator(".jp-CodeCell .highlight").count() == 0
    assert "schedule_laboratory" not in page.locator("body").inner_text()
    picture = page.locator(VIEW).screenshot()
    page.locator(".ddpm-slider-laboratory").nth(1).locator(".noUi-handle").focus()
    page.keyboard.press("Home")
    short = families.choice("linear", families.LENGTHS[0])
    wait_for_text(page, comparison.views(short)["readout"], kl({**start, "A": short}, "T"))
    assert page.locator(VIEW).screenshot() != picture


def test_a_button_of_the_tour_sets_both_schedules_and_generates_their_densities(page):
    stop = comparison.TOUR[4]
    page.get_by_role("button", name=f"5. {stop.name}", exact=True).click()
    page.locator(".widget-html", has_text=stop.text).wait_for(timeout=PATIENCE)
    both = {"A": stop.A, "B": stop.B}
    wait_for_text(page, *(comparison.views(one)["readout"] for one in both.values()), kl(both, stop.steps))
    headless.take_picture(page, "laboratory-voila")


@pytest.mark.parametrize("found", [True, False])
def test_the_demo_opens_a_browser_or_says_to_open_its_address(monkeypatch, capsys, found):
    monkeypatch.setattr(lab, "graphical_browser", lambda: found)
    command = lab.demo()
    assert command[1:3] == ["-m", "voila"] and command[-1] == lab.LABORATORY
    assert (course.ROOT / lab.LABORATORY).is_file()
    assert ("--no-browser" in command) != found
    assert ("Open the address" in capsys.readouterr().out) != found


def test_the_makefile_has_the_demo():
    said = subprocess.run(["make", "-n", "demo"], cwd=course.ROOT, capture_output=True, text=True, timeout=60)
    assert "tools/lab.py --demo" in said.stdout
