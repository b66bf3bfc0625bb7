"""The chapters in a real browser: JupyterLab in headless Chromium, every slider moved by keyboard to both ends.

Of each chapter only the cells run that its sliders need (`notebook.needed`); other tests execute all of it. A panel
named NAME puts the CSS class ``ddpm-slider-NAME`` on the control, ``ddpm-view-NAME`` on the drawing and
``ddpm-text-NAME`` on the readout. Latencies are printed, never asserted: they belong to the machine. They are counted
apart where the browser had the state (a hit) and where it asked the kernel for it (a miss).
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
from typing import NamedTuple

import course
import notebook
import pytest
import torch
from nbformat import NotebookNode

from ddpm_edu import checkpoint, elbo, gaussian, schedules, trajectory, widgets

try:
    from playwright.sync_api import TimeoutError
except ImportError:
    TimeoutError = None  # the fixture `browser` says what is missing

CHAPTERS = [
    path
    for path in course.notebooks()
    if path.parent.name == "notebooks" and any(map(notebook.has_slider, course.code_cells(course.read(path))))
]
OUTPUT = course.ROOT / "tests" / "browser-output"
SECOND = 1000  # playwright counts milliseconds
PATIENCE = 30 * SECOND  # for one redraw
PRESSES = 20
MISSES = 5  # presses that come too early for the browser to have the state
BURST = 40
DARK, LIGHT = "JupyterLab Dark", "JupyterLab Light"
READABLE = 3  # contrast of a line with its background


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


def _predicted_text(t: float, sample: float, clamp: str) -> str:
    tr = trajectory.load(checkpoint.SHIPPED / "cifar10.trajectory.npz")
    return widgets.predicted_state(tr, tr.t.tolist().index(int(t)), int(sample), clamp)[1]


SCHEDULES: dict[str, Callable[[int], schedules.Schedule]] = {
    "linear": schedules.linear,
    "scaled linear": schedules.scaled_linear,
    "cosine": schedules.cosine,
    "sigmoid": schedules.sigmoid,
    "log-SNR linear": schedules.log_snr_linear,
    "constant": schedules.constant,
    "from JSON": lambda T: schedules.linear(8, 0.05, 0.75),  # the example that stands there
}


def _laboratory_text(a: str, T_a: float, b: str, T_b: float, steps: float | str, variance: str) -> str:
    sampler = f"Sampler: {'as many as T' if steps == 'T' else f'{steps:.0f}'} steps, variance {variance}."
    if "drawn by hand" in (a, b):  # its knots stand where the curve before was
        return sampler
    lines = []
    for name, family, T in (("A", a, T_a), ("B", b, T_b)):
        s = SCHEDULES[family](int(T))
        found = elbo.validity(s.beta[1:])
        first, last = (f"{10 * math.log10(snr):.1f}" for snr in (found.snr_1, found.snr_T))
        mark = "✓ x_T is noise" if found.x_T_is_noise else "✗ x_T is not noise"
        line = f"{name} {family}, T = {s.T}: ᾱ_T = {found.alpha_bar_T:.2g}, SNR from {first} to {last} dB"
        lines.append(f"{line.replace(' -', ' −')}, L_T = {found.prior_bits:.2g} bits/dim {mark}")
    return "\n".join([*lines, sampler])


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# name of a panel -> values of its sliders -> what its readout must contain, from the package's formulas
READOUTS: dict[str, Callable[..., str]] = {
    "kl": _kl_text,
    "laboratory": _laboratory_text,
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
    "predicted": _predicted_text,
}

IDLE = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.sessionContext?.session?.kernel?.status === 'idle';
}"""
RUN_CELLS = """async numbers => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  for (const number of numbers) {
    notebook.deselectAll();
    notebook.activeCellIndex = number;
    await window.jupyterapp.commands.execute('notebook:run-cell');
  }
}"""
RUN_CODE = """code => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  return kernel.requestExecute({code}).done.then(reply => reply.content.status);
}"""
DRAWN = "cells => document.querySelectorAll('[class*=\"ddpm-view-\"]').length >= cells"
PANELS = """() => {
  const classes = [...document.querySelectorAll('[class*="ddpm-slider-"]')].flatMap(e => [...e.classList]);
  return [...new Set(classes.filter(c => c.startsWith('ddpm-slider-')).map(c => c.slice('ddpm-slider-'.length)))];
}"""
# Two times from the key press: until the drawing has changed, and until the frame that shows it is painted. A message
# that is posted from within a frame arrives after its painting.
STOPWATCH = """([selector, nudged]) => {
  const view = document.querySelector(selector);
  const picture = () => (view.matches('img') ? view : view.querySelector('img'));
  const before = picture()?.src;
  const afterPaint = work => {
    const channel = new MessageChannel();
    channel.port1.onmessage = work;
    channel.port2.postMessage(null);
  };
  nudged?.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
  let pressed = null, drawn = null, inFrame = false;
  window.latency = null;
  const tick = () => {
    if (drawn !== null) return;
    inFrame = true;
    afterPaint(() => { inFrame = false; });
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
  document.addEventListener('keydown', event => { pressed = event.timeStamp; }, {capture: true, once: true});
  const finish = () => afterPaint(() => { window.latency = [drawn - pressed, performance.now() - pressed]; });
  const stop = () => {
    if (pressed === null || drawn !== null) return;
    drawn = performance.now();
    observer.disconnect();
    inFrame ? finish() : requestAnimationFrame(finish);
  };
  const observer = new MutationObserver(() => {
    if (!picture()) stop();
    else if (picture().src !== before) picture().decode().then(stop, () => {});
  });
  observer.observe(view, {subtree: true, childList: true, attributes: true, characterData: true});
}"""
# When a key was last pressed and when the drawing last changed
LAST = """([selector, nudged]) => {
  nudged?.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
  window.last = {pressed: 0, drawn: 0};
  document.addEventListener('keydown', event => { window.last.pressed = event.timeStamp; }, {capture: true});
  new MutationObserver(() => { window.last.drawn = performance.now(); }).observe(
    document.querySelector(selector), {subtree: true, childList: true, attributes: true, characterData: true});
}"""
# The lowest contrast of a line or a text of the drawing with the page, as WCAG 2 defines it; grid and areas are faint
CONTRAST = """selector => {
  const view = document.querySelector(selector), context = new OffscreenCanvas(1, 1).getContext('2d');
  const rgba = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].map(one => one / 255);
  };
  const luminance = rgb => rgb
    .map(one => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, k) => sum + one * [0.2126, 0.7152, 0.0722][k], 0);
  let page = view;
  while (rgba(getComputedStyle(page).backgroundColor)[3] === 0) page = page.parentElement;
  const behind = rgba(getComputedStyle(page).backgroundColor).slice(0, 3);
  const contrasts = [...view.querySelectorAll('line, polyline, path, rect, circle, text')].flatMap(one => {
    const style = getComputedStyle(one);
    if (style.opacity < 0.5 || one.closest('clipPath')) return [];
    return [style.stroke, style.fill].filter(colour => colour !== 'none').map(colour => {
      const [r, g, b, a] = rgba(colour);
      const seen = luminance([r, g, b].map((one, k) => a * one + (1 - a) * behind[k])), around = luminance(behind);
      return (Math.max(seen, around) + 0.05) / (Math.min(seen, around) + 0.05);
    });
  });
  return Math.min(99, ...contrasts);
}"""


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
        self.page, self.panel, self.place = page, panel, place
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
        self.page.wait_for_timeout(100)
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

    def latencies(self) -> list["Latency"]:
        """Walking up and turning at the ends; then MISSES times just when another slider of the panel has moved."""
        measured, keys = [], ["ArrowRight", "ArrowLeft"]
        self.press("Home")
        for _ in range(PRESSES):
            if not (one := self.latency(keys[0])):
                keys.reverse()
            measured.append(one)
        if other := self.other():
            other.press("Home")
            self.handle.focus()
            for _ in range(MISSES):
                measured.append(self.latency(keys[0], other) or self.latency(keys[1], other))
        return [one for one in measured if one]

    def latency(self, key: str, nudged: "Slider | None" = None) -> "Latency | None":
        """What a press of this key takes, after a step of another slider; None if nothing moves, at an end."""
        before, questions = self.position(), len(self.page.questions)
        self.page.evaluate(STOPWATCH, [self.view_selector, nudged and nudged.handle.element_handle()])
        self.page.keyboard.press(key)
        self.page.wait_for_timeout(40)  # nothing is asked of the page while it redraws
        if self.position() == before:
            return None
        self.page.wait_for_function("() => window.latency !== null", timeout=PATIENCE)
        return Latency(*self.page.evaluate("window.latency"), missed=len(self.page.questions) > questions)

    def burst(self) -> float:
        """Milliseconds from the last of 40 presses to the last redraw, on a line that the browser does not have."""
        self.press("Home")
        self.handle.focus()
        other = self.other()
        self.page.evaluate(LAST, [self.view_selector, other and other.handle.element_handle()])
        for k in range(BURST):
            self.page.keyboard.press("ArrowLeft" if k % 4 == 3 else "ArrowRight")
        self.check_text()
        self.settle()
        self.check_text()  # nothing that was on its way has drawn over it
        return self.page.evaluate("() => Math.max(0, window.last.drawn - window.last.pressed)")

    def other(self) -> "Slider | None":
        """Another slider of the panel."""
        return Slider(self.page, self.panel, int(self.place == 0)) if self.all.count() > 1 else None


class Latency(NamedTuple):
    """Milliseconds from a key press to the changed drawing and to its painting; did the browser have to ask?"""

    drawn: float
    painted: float
    missed: bool


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
def page(lab, browser, request):
    """A chapter, opened, its sliders at work, with what the page complained about and where it connected."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.errors, page.outside, page.questions = [], [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    # JupyterLab catches what a widget's code throws and writes it to the console
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.on("request", lambda request: _is_local(request.url, lab) or page.outside.append(request.url))
    page.on(
        "websocket",
        lambda socket: socket.on("framesent", lambda sent: _is_question(sent) and page.questions.append(sent)),
    )
    page.goto(f"{lab}/doc/tree/notebooks/{request.param.name}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120 * SECOND)
    page.wait_for_function(IDLE, timeout=120 * SECOND)
    cells = course.read(request.param).cells
    page.sliders = sum(map(notebook.has_slider, cells))
    page.evaluate(RUN_CELLS, _needed_by_sliders(cells))
    page.wait_for_function(IDLE, timeout=60 * SECOND)
    yield page
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()


def _needed_by_sliders(cells: list[NotebookNode]) -> list[int]:
    """Numbers of the cells that the sliders of a chapter need."""
    places = [place for place, cell in enumerate(cells) if cell.cell_type == "code"]
    wanted = [number for number, place in enumerate(places) if notebook.has_slider(cells[place])]
    return [places[number] for number in notebook.needed([cells[place].source for place in places], wanted)]


def _is_question(sent: str | bytes) -> bool:
    """Is this message to the kernel the question for a state that the browser misses?"""
    return b'"missing":true' in (sent.encode() if isinstance(sent, str) else sent)


def _is_local(url: str, lab: str) -> bool:
    return url.startswith((f"{lab}/", "data:", "blob:"))


def output_texts(page, kind: str) -> list[str]:
    return page.locator(f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]').all_inner_texts()


def test_every_slider_of_the_chapter_moves_its_text_and_its_picture(page, capsys):
    assert output_texts(page, "stderr") == []
    assert output_texts(page, "error") == []
    page.wait_for_function(DRAWN, arg=page.sliders, timeout=PATIENCE)
    panels = page.evaluate(PANELS)
    assert set(panels) <= set(READOUTS), "a panel without an entry in READOUTS"
    OUTPUT.mkdir(exist_ok=True)
    for panel in panels:
        for place in range(page.locator(f".ddpm-slider-{panel}").count()):
            latency = sweep(Slider(page, panel, place))
            with capsys.disabled():
                print(f"\n{latency}", end="")
        page.screenshot(path=OUTPUT / f"{panel}.png")
        follows_python(Slider(page, panel, page.locator(f".ddpm-slider-{panel}").count() - 1))
    is_readable_in_the_dark(page, panels)
    assert output_texts(page, "stderr") == []
    assert output_texts(page, "error") == []
    assert page.errors == []
    assert page.outside == []


def sweep(slider: Slider) -> str:
    """Both ends and a state between: the readout is right, text and picture change. Returns the latency in words."""
    slider.settle()  # the slider before may have exchanged this one
    slider.press("ArrowRight", "Home")
    assert slider.handle.get_attribute("aria-label") == slider.slider.locator(".widget-label").inner_text()
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
    hits, misses = ([one for one in measured if one.missed == missed] for missed in (False, True))
    return f"{slider.name}: {in_words(hits, 'hits')}; {in_words(misses, 'misses')}; burst {slider.burst():.0f} ms"


def in_words(measured: list[Latency], kind: str) -> str:
    """Medians and 95th percentiles."""
    if not measured:
        return f"no {kind}"
    drawn, painted = (sorted(times) for times in list(zip(*measured, strict=True))[:2])
    last = int(0.95 * (len(measured) - 1))
    return (
        f"{len(measured)} {kind}, drawn after {statistics.median(drawn):.0f} ms (p95 {drawn[last]:.0f}), "
        f"painted {statistics.median(painted):.0f} ms (p95 {painted[last]:.0f})"
    )


def follows_python(slider: Slider) -> None:
    """A value that is set by code, not by hand, redraws as well; the slider is the last of its panel."""
    slider.press("End")
    before = slider.text()
    status = slider.page.evaluate(
        RUN_CODE,
        "from ipywidgets.widgets import widget\n"
        f"name = 'ddpm-slider-{slider.panel}'\n"
        f"label = {slider.slider.locator('.widget-label').inner_text()!r}\n"
        "control = [one for one in widget._instances.values()\n"
        "    if name in getattr(one, '_dom_classes', ()) and one.description == label][-1]\n"
        "if hasattr(control, 'index'):\n    control.index = 0\nelse:\n    control.value = control.min",
    )
    assert status == "ok"
    slider.wait_for_text("text !== arg", before)
    slider.check_text()
    low = slider.value()
    slider.press("Home")
    assert slider.value() == low


def is_readable_in_the_dark(page, panels: list[str]) -> None:
    """Every line of every drawing stands out from a dark page."""
    for theme in (DARK, LIGHT):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_function("dark => document.body.dataset.jpThemeLight === String(!dark)", arg=theme == DARK)
        if theme == DARK:
            for panel in panels:
                page.locator(f".ddpm-view-{panel}").scroll_into_view_if_needed()
                page.screenshot(path=OUTPUT / f"{panel}-dark.png")
                contrast = page.evaluate(CONTRAST, f".ddpm-view-{panel}")
                assert contrast >= READABLE, f"{panel}: a line with a contrast of {contrast:.1f} on a dark page"


def test_a_slider_needs_the_cells_that_bind_what_it_reads():
    cells = [
        "import a, b as c\nx = 0",
        "x = a.b",  # the last x before it is read
        "def f(z):\n    return [x + y + z for z in c.d]",
        "y = 2",  # a function may read what is bound after it
        "z = 3",  # another z than that of f
        "f(1)",
        "x = 5",
    ]
    assert notebook.needed(cells, [5]) == [0, 1, 2, 3, 5]
    assert notebook.needed(cells, [4, 3]) == [3, 4]
