"""Film the schedule laboratory: in JupyterLab, in a Chromium without a window, while keys move its sliders.

python tools/make_images.py laboratory, about a minute on two CPU cores. Needs what `make test` installs, and Chromium.
"""

import io
import shutil
import tempfile
from pathlib import Path

import chromium
import course
import PIL.Image

try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:
    sync_playwright = None

NOTEBOOK = course.ROOT / "notebooks" / "explore_schedules.ipynb"
# slider, key, how often; then it rests until the generated density has followed
SCRIPT = [
    ("A: β_T", "ArrowLeft", 10),
    ("A: β_T", "ArrowRight", 10),
    ("B: T", "ArrowLeft", 5),
    ("B: schedule", "ArrowRight", 2),
    ("B: T", "ArrowRight", 5),
    ("steps", "ArrowLeft", 5),
]
PRESS, REST = 180, 1600  # milliseconds that a frame is shown
PATIENCE = 120_000  # milliseconds: a kernel that imports torch
WIDTH = 900
IDLE = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.sessionContext?.session?.kernel?.status === 'idle';
}"""
# From the headings of the controls to the strips of pictures, in pixels of the window
FRAME = """() => {
  const view = document.querySelector('.ddpm-view-laboratory').getBoundingClientRect();
  const controls = document.querySelector('.ddpm-slider-laboratory').parentElement.getBoundingClientRect();
  const bottom = [...document.querySelectorAll('.ddpm-view-laboratory canvas')].at(-1).getBoundingClientRect().bottom;
  const room = 58;  // for the times below the strips, and for a family with one slider more
  return {x: view.left - 15, y: controls.top, width: view.width + 25, height: bottom + room - controls.top};
}"""


class NoBrowser(Exception):
    """There is nothing to film with."""


def shoot(path: Path) -> None:
    """Write the film as an animated WebP. NoBrowser without Chromium or playwright."""
    executable = chromium.find()
    if executable is None or sync_playwright is None:
        raise NoBrowser("no Chromium, or no playwright (pip install -e .[test])")
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "course").mkdir()
        shutil.copy(NOTEBOOK, Path(home) / "course")
        with chromium.jupyterlab(Path(home)) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=chromium.FLAGS)
            frames = film(browser, address)
            browser.close()
    write(path, frames)


def film(browser: "Browser", address: str) -> list[tuple[PIL.Image.Image, int]]:
    """Open the laboratory and `record` it."""
    page = browser.new_page(viewport={"width": 1240, "height": 1000})
    page.goto(f"{address}/doc/tree/{NOTEBOOK.name}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=PATIENCE)
    page.wait_for_function(IDLE, timeout=PATIENCE)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector(".ddpm-view-laboratory canvas", timeout=PATIENCE)
    return record(page)


def record(page: "Page") -> list[tuple[PIL.Image.Image, int]]:
    """Play SCRIPT: pictures, and how many milliseconds each is shown."""
    page.evaluate("() => document.querySelector('.ddpm-slider-laboratory').parentElement.scrollIntoView()")
    rest(page)
    clip = page.evaluate(FRAME)
    frames = []

    def take(milliseconds: int) -> None:
        picture = PIL.Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
        height = round(picture.height * WIDTH / picture.width)
        frames.append((picture.resize((WIDTH, height), PIL.Image.Resampling.LANCZOS), milliseconds))

    take(REST)
    for slider, key, times in SCRIPT:
        page.locator(f'.noUi-handle[aria-label="{slider}"]').focus()
        for _ in range(times):
            page.keyboard.press(key)
            page.wait_for_timeout(100)
            take(PRESS)
        rest(page)
        take(REST)
    return frames


def rest(page: "Page") -> None:
    """Wait until the density has followed."""
    page.wait_for_timeout(1000)
    page.wait_for_function(IDLE, timeout=PATIENCE)
    page.wait_for_timeout(500)


def write(path: Path, frames: list[tuple[PIL.Image.Image, int]]) -> None:
    """The frames as an animated WebP that repeats."""
    (first, *others), durations = map(list, zip(*frames, strict=True))
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, quality=60, method=4)
