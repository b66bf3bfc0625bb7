"""The chapters in a real browser: JupyterLab in headless Chromium, every slider moved by keyboard to both ends.

A panel named NAME puts the CSS class ``ddpm-slider-NAME`` on the control, ``ddpm-view-NAME`` on the drawing and
``ddpm-text-NAME`` on the readout. Latencies are printed, never asserted: they belong to the machine.
"""

import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import course
import notebook
import pytest
import torch

from ddpm_edu import elbo, gaussian, schedules, widgets

try:
    from playwright.sync_api import TimeoutError, sync_playwright
except ImportError:
    sync_playwright = None

CHAPTERS = [path for path in course.chapters() if any(map(notebook.has_slider, course.code_cells(course.read(path))))]
OUTPUT = course.ROOT / "tests" / "browser-output"
SECOND = 1000  # playwright counts milliseconds
PATIENCE = 30 * SECOND  # for one redraw
PRESSES = 20
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _noise_text(t: float) -> str:
    alpha_bar = schedules.linear().alpha_bar[int(t)]
    return f"t = {t:.0f}: {alpha_bar.sqrt():.3f} × picture + {(1 - alpha_bar).sqrt():.3f} × noise" if t else "t = 0:"


def _schedule_text(T: float, beta_T: float) -> str:
    alpha_bar_T = schedules.linear(int(T), 1e-4, beta_T).alpha_bar[-1]
    return f"T = {T:.0f}, β_T = {beta_T:.3f}: ᾱ_T = {alpha_bar_T:.2g}"


def _kl_text(mean: float, std_p: float, std_q: float) -> str:
    zero, var_p, mean_q, var_q = f64(0, std_p**2, mean, std_q**2)
    forward, reverse = (
        gaussian.normal_kl(zero, var_p, mean_q, var_q), gaussian.normal_kl(mean_q, var_q, zero, var_p)
    )  # fmt: skip
    return f"KL(p‖q) = {forward:.3f} nats, KL(q‖p) = {reverse:.3f} nats"


def _elbo_text(mean: float, std: float) -> str:
    return f"gap {gaussian.normal_kl(*f64(mean, std**2, 0.8, 0.2)):.4f} nats"  # the posterior of x = 1 is N(0.8, 0.2)


def _posterior_text(t: float, x0: float, xt: float) -> str:
    mean, var = gaussian.posterior_mean_var(schedules.linear(10, 0.1, 0.5), *f64(x0, xt), int(t))
    return f"t = {t:.0f}: mean {mean:.3f}, variance {var:.3f}".replace("-", "−")


def _bound_text(T: float, schedule: str, variance: str) -> str:
    x0 = f64(0.25 + 0.09).sqrt()[None]  # L_T sees x_0 through its square only, whose mean this is
    return f"T = {T:.0f}: {elbo.L_T(widgets.bound.FAMILIES[schedule](int(T)), x0).item():.4f} + "


def _weights_text(schedule: str, T: float, variance: str, ruler: str) -> str:
    s = widgets.weights.FAMILIES[schedule](int(T))
    first = 1 if variance == "β" else 2
    weight = elbo.loss_weight(s, widgets.weights.VARIANCES[variance](s)) * widgets.weights.RULERS[ruler](s)
    return f"bound {100 * weight[first : int(T) // 10 + 1].sum() / weight[first:].sum():.1f} %"


def _ema_text(decay: float, steps: float) -> str:
    return f"decay {decay:g}, {steps:.0f} steps: start {decay**steps:.3f}, "


def _sampler_text(steps: float, eta: float, noise: str) -> str:
    return widgets.sampler_points(int(steps), eta, noise)["readout"]


def _chain_text(k: float) -> str:
    return f"t = {200 - 4 * k:.0f}: "


def _langevin_text(step_size: float, temperature: float, k: float, start: float) -> str:
    wanted = math.sqrt(temperature)
    limit = f"limit {wanted / math.sqrt(1 - step_size / 2):.3f}" if step_size < 1.999 else "no limit"
    return f"{limit}, wanted {wanted:.3f}"


def _guidance_text(y: float, scale: float) -> str:
    return f"asked for a {y:.0f}, scale {scale:g}: "


def _flow_text(steps: float, tau: float, follow: str) -> str:
    return widgets.flow_paths(follow, int(steps), tau)["readout"]


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# name of a panel -> values of its sliders -> what its readout must contain, from the package's formulas
READOUTS: dict[str, Callable[..., str]] = {
    "kl": _kl_text,
    "elbo": _elbo_text,
    "noise": _noise_text,
    "schedule": _schedule_text,
    "posterior": _posterior_text,
    "bound": _bound_text,
    "weights": _weights_text,
    "ema": _ema_text,
    "sampler": _sampler_text,
    "chain": _chain_text,
    "langevin": _langevin_text,
    "guidance": _guidance_text,
    "flow": _flow_text,
}

IDLE = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.sessionContext?.session?.kernel?.status === 'idle';
}"""
ALL_CELLS_RAN = """() =>
  [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(e => /\\[\\d+\\]/.test(e.textContent))"""
PANELS = """() => {
  const classes = [...document.querySelectorAll('[class*="ddpm-slider-"]')].flatMap(e => [...e.classList]);
  return [...new Set(classes.filter(c => c.startsWith('ddpm-slider-')).map(c => c.slice('ddpm-slider-'.length)))];
}"""
# Two times from the key press: to the callback of the frame that shows the changed drawing, which runs before that
# frame is painted, and to a message posted from it, which arrives after.
STOPWATCH = """selector => {
  const view = document.querySelector(selector);
  const source = () => (view.matches('img') ? view : view.querySelector('img'))?.src;
  const before = source();
  let pressed = 0, stopped = false;
  window.latency = null;
  document.addEventListener('keydown', event => { pressed = event.timeStamp; }, {capture: true, once: true});
  const stop = () => {
    if (stopped) return;
    stopped = true;
    observer.disconnect();
    requestAnimationFrame(() => {
      const drawn = performance.now() - pressed;
      const channel = new MessageChannel();
      channel.port1.onmessage = () => { window.latency = [drawn, performance.now() - pressed]; };
      channel.port2.postMessage(null);
    });
  };
  const observer = new MutationObserver(() => {
    const picture = view.matches('img') ? view : view.querySelector('img');
    if (!picture) stop();
    else if (picture.src !== before) picture.decode().then(stop, () => {});
  });
  observer.observe(view, {subtree: true, childList: true, attributes: true, characterData: true});
}"""


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


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab over a copy of the notebooks, with settings of its own."""
    tmp_path = tmp_path_factory.mktemp("lab")
    for folder in ("notebooks", "images"):
        shutil.copytree(course.ROOT / folder, tmp_path / "course" / folder)
    settings = tmp_path / "settings" / "@jupyterlab"
    for extension, name, values in [
        ("apputils-extension", "notification", {"fetchNews": "false", "checkForUpdates": False}),
        # cells that are scrolled out of sight stay in the page
        ("notebook-extension", "tracker", {"windowingMode": "none"}),
    ]:
        (settings / extension).mkdir(parents=True)
        (settings / extension / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
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
    log = tmp_path / "lab.log"
    with log.open("w") as sink:
        command = [sys.executable, "-m", "jupyterlab", *flags]
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
        try:
            wait_for(address, server, log)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Return once the server answers."""
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
            return
        except urllib.error.URLError:
            assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()}"
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not answer within a minute:\n{log.read_text()}")


class Slider:
    """A slider with the readout and the drawing of its panel, as a reader with a keyboard uses them."""

    def __init__(self, page, panel: str, place: int) -> None:
        self.page, self.panel = page, panel
        self.all = page.locator(f".ddpm-slider-{panel}")
        self.slider = self.all.nth(place)
        self.handle = self.slider.locator(".noUi-handle")
        self.view_selector = f".ddpm-view-{panel}"
        self.view = page.locator(self.view_selector)
        self.text_selector = f".ddpm-text-{panel}"
        self.name = " ".join([panel, self.slider.locator(".widget-label").inner_text()])

    def press(self, *keys: str) -> None:
        self.handle.focus()
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def settle(self) -> None:
        """Wait until the kernel has nothing to do and two frames have passed."""
        self.page.wait_for_function(IDLE, timeout=PATIENCE)
        self.page.wait_for_timeout(150)
        self.page.wait_for_function(IDLE, timeout=PATIENCE)

    def value(self) -> float | str:
        return _value(self.slider)

    def position(self) -> str:
        """Where the handle stands, to the pixel."""
        return self.slider.locator(".noUi-origin").get_attribute("style")

    def text(self) -> str:
        return self.page.locator(self.text_selector).inner_text()

    def check_text(self) -> None:
        """Compare the readout with the package."""
        expected = READOUTS[self.panel](*(_value(slider) for slider in self.all.all()))
        self.wait_for_text("text.includes(arg)", expected)

    def wait_for_text(self, condition: str, arg: str) -> None:
        """Wait until a JavaScript condition on ``text`` and ``arg`` holds for the readout."""
        javascript = f"""([selector, arg]) => {{
          const text = document.querySelector(selector).innerText;
          return {condition};
        }}"""
        try:
            self.page.wait_for_function(javascript, arg=[self.text_selector, arg], timeout=PATIENCE)
        except TimeoutError as error:
            value, text = self.value(), self.text()
            raise AssertionError(f"{self.name} at {value}: {text!r} fails {condition}, arg = {arg!r}") from error

    def picture(self) -> bytes:
        """The pixels of the drawing."""
        self.view.scroll_into_view_if_needed()
        return self.view.screenshot(animations="disabled")

    def latencies(self) -> list[tuple[float, float]]:
        """Milliseconds from key press to the frame and to its paint, walking up and turning at the ends."""
        measured, key, opposite = [], "ArrowRight", "ArrowLeft"
        self.press("Home")
        for _ in range(PRESSES):
            before = self.position()
            self.page.evaluate(STOPWATCH, self.view_selector)
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(120)  # nothing is asked of the page while it redraws
            if self.position() == before:  # at an end, nothing moved
                key, opposite = opposite, key
                continue
            self.page.wait_for_function("() => window.latency !== null", timeout=PATIENCE)
            measured.append(tuple(self.page.evaluate("window.latency")))
        return measured


def _value(slider) -> float | str:
    """What a slider shows, or where it shows nothing, what it tells screen readers; a number if it is one."""
    readout = slider.locator(".widget-readout")
    shown = (
        readout.inner_text() if readout.is_visible() else slider.locator(".noUi-handle").get_attribute("aria-valuetext")
    )
    try:
        return float(shown.replace("−", "-"))
    except ValueError:
        return shown


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def page(lab, request):
    """A chapter, opened and run from top to bottom, with what the page complained about and where it connected."""
    executable = chromium()
    if sync_playwright is None:
        missing("no playwright: pip install -e .[test]")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.errors, page.outside = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        # JupyterLab catches what a widget's code throws and writes it to the console
        page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
        page.on("request", lambda request: _is_local(request.url, lab) or page.outside.append(request.url))
        page.goto(f"{lab}/doc/tree/notebooks/{request.param.name}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120 * SECOND)
        page.wait_for_function(IDLE, timeout=120 * SECOND)
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_function(ALL_CELLS_RAN, timeout=300 * SECOND)
        page.wait_for_function(IDLE, timeout=60 * SECOND)
        yield page
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        browser.close()


def _is_local(url: str, lab: str) -> bool:
    return url.startswith((f"{lab}/", "data:", "blob:"))


def output_texts(page, kind: str) -> list[str]:
    return page.locator(f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]').all_inner_texts()


def test_every_slider_of_the_chapter_moves_its_text_and_its_picture(page, capsys):
    assert output_texts(page, "stderr") == []
    assert output_texts(page, "error") == []
    panels = page.evaluate(PANELS)
    assert panels, "no slider with a class ddpm-slider-NAME in the page"
    assert set(panels) <= set(READOUTS), "a panel without an entry in READOUTS"
    OUTPUT.mkdir(exist_ok=True)
    for panel in panels:
        for place in range(page.locator(f".ddpm-slider-{panel}").count()):
            latency = sweep(Slider(page, panel, place))
            with capsys.disabled():
                print(f"\n{latency}", end="")
        page.screenshot(path=OUTPUT / f"{panel}.png")
    assert output_texts(page, "stderr") == []
    assert output_texts(page, "error") == []
    assert page.errors == []
    assert page.outside == []


def sweep(slider: Slider) -> str:
    """Both ends and a state between: the readout is right, text and picture change. Returns the latency in words."""
    slider.press("ArrowRight", "Home")
    slider.check_text()
    low, low_text, low_picture = slider.value(), slider.text(), slider.picture()
    slider.press("ArrowRight", "ArrowRight", "ArrowRight")
    slider.check_text()
    slider.press("End")
    assert slider.value() != low, f"{slider.name}: the keys Home and End leave it at {low}"
    slider.wait_for_text("text !== arg", low_text)
    slider.check_text()
    changed = slider.picture() != low_picture
    assert changed, f"{slider.name}: the drawing is the same at {low} and {slider.value()}"
    measured = slider.latencies()
    assert len(measured) >= PRESSES // 2
    drawn, painted = (sorted(times) for times in zip(*measured, strict=True))
    last = int(0.95 * (len(measured) - 1))
    return (
        f"{slider.name}: from key press to frame {statistics.median(drawn):.0f} ms (p95 {drawn[last]:.0f}), "
        f"to its paint {statistics.median(painted):.0f} ms (p95 {painted[last]:.0f})"
    )
