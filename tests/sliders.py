"""A notebook in JupyterLab in a headless Chromium, and its sliders as a reader with a keyboard uses them.

A panel named NAME puts the CSS class ``ddpm-slider-NAME`` on the control, ``ddpm-view-NAME`` on the drawing and
``ddpm-text-NAME`` on the readout. Texts are read as textContent: JupyterLab lays out no cell that is off the screen,
and innerText is empty there. Latencies are counted apart where the browser had the state (a hit) and where it asked
the kernel for it (a miss).
"""

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from readouts import READOUTS

try:
    from playwright.sync_api import TimeoutError, expect
except ImportError:
    TimeoutError = expect = None  # the fixture `browser` says what is missing

SECOND = 1000  # playwright counts milliseconds
PATIENCE = 30 * SECOND  # for one redraw
MISSES = 5  # presses that come too early for the browser to have the state
BURST = 40
DARK, LIGHT = "JupyterLab Dark", "JupyterLab Light"
READABLE = 3  # contrast of a line with its background

IDLE = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.sessionContext?.session?.kernel?.status === 'idle';
}"""
# As in Jupyter Notebook 7: a key is the notebook's before it is the slider's, which has to keep its own to itself
SHORTCUTS_FIRST = """() => document.addEventListener(
  'keydown', event => window.jupyterapp.commands.processKeydownEvent(event), {capture: true})"""
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
# JupyterLab covers the page while it changes, and throws where it is asked for the next theme before the cover has gone
THEMED = """dark => document.body.dataset.jpThemeLight === String(!dark)
  && !document.getElementById('jupyterlab-splash')"""
# Two times from the key press: until the drawing or the readout has changed, and until the frame that shows it is
# painted. A message that is posted from within a frame arrives after its painting.
STOPWATCH = """([selectors, nudged]) => {
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
  const observer = new MutationObserver(() => {
    if (pressed === null || drawn !== null) return;
    drawn = performance.now();
    observer.disconnect();
    inFrame ? finish() : requestAnimationFrame(finish);
  });
  for (const selector of selectors) observer.observe(document.querySelector(selector),
    {subtree: true, childList: true, attributes: true, characterData: true});
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


@contextmanager
def opened(browser, lab: str, notebook: str) -> Iterator:
    """A notebook in JupyterLab, its kernel at rest.

    The page knows its ``errors``, the addresses ``outside`` of this computer that it wanted, and its ``questions`` to
    the kernel for states that it missed.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.errors, page.outside, page.questions = [], [], []
    page.on("pageerror", lambda error: page.errors.append(error.stack or str(error)))
    # JupyterLab catches what a widget's code throws and writes it to the console
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    page.on("request", lambda request: _is_local(request.url, lab) or page.outside.append(request.url))
    page.on(
        "websocket",
        lambda socket: socket.on("framesent", lambda sent: _is_question(sent) and page.questions.append(sent)),
    )
    page.goto(f"{lab}/doc/tree/notebooks/{notebook}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120 * SECOND)
    page.wait_for_function(IDLE, timeout=120 * SECOND)
    page.evaluate(SHORTCUTS_FIRST)
    yield page
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()


def _is_question(sent: str | bytes) -> bool:
    """Is this message to the kernel the question for a state that the browser misses?"""
    return b'"missing":true' in (sent.encode() if isinstance(sent, str) else sent)


def _is_local(url: str, lab: str) -> bool:
    return url.startswith((f"{lab}/", "data:", "blob:"))


def complaints(page) -> list[str]:
    """Everything that went wrong in the page or left this computer."""
    kinds = ", ".join(
        f'.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("stderr", "error")
    )
    return [*page.locator(kinds).all_text_contents(), *page.errors, *page.outside]


def number(shown: str) -> float | str:
    """What a slider shows, as a number if it is one."""
    try:
        return float(shown.replace("−", "-"))
    except ValueError:
        return shown


def use_theme(page, theme: str) -> None:
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_function(THEMED, arg=theme == DARK)


def check_contrast(page, panel: str) -> None:
    """Every line and every text of the drawing stands out from the page."""
    contrast = page.evaluate(CONTRAST, f".ddpm-view-{panel}")
    assert contrast >= READABLE, f"{panel}: a line with a contrast of {contrast:.1f} with the page"


class Slider:
    """A slider with the readout and the drawing of its panel, as a reader with a keyboard uses them."""

    presses = 20  # of which the latency is taken

    def __init__(self, page, panel: str, slider) -> None:
        self.page, self.panel, self.slider = page, panel, slider
        self.handle = slider.locator(".noUi-handle")
        self.view_selector = f".ddpm-view-{panel}"
        self.text_selector = f".ddpm-text-{panel}"
        self.label = slider.locator(".widget-label").text_content()
        self.name = f"{panel} {self.label}"

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
        """What it shows, or where it shows nothing, what it tells screen readers; a number if it is one."""
        readout = self.slider.locator(".widget-readout")
        return number(readout.text_content() if readout.is_visible() else self.handle.get_attribute("aria-valuetext"))

    def position(self) -> str:
        """Where the handle stands, to the pixel."""
        return self.slider.locator(".noUi-origin").get_attribute("style")

    def text(self) -> str:
        return self.page.locator(self.text_selector).text_content()

    def check(self) -> None:
        """Compare the readout with the package."""
        expected = READOUTS[self.panel](*(slider.value() for slider in sliders_of(self.page, self.panel)))
        self.wait_for_text("text.includes(arg)", expected)

    def wait_for_text(self, condition: str, arg: str) -> None:
        """Wait until a JavaScript condition on ``text`` and ``arg`` holds for the readout."""
        javascript = f"""([selector, arg]) => {{
          const text = document.querySelector(selector).textContent;
          return {condition};
        }}"""
        try:
            self.page.wait_for_function(javascript, arg=[self.text_selector, arg], timeout=PATIENCE)
        except TimeoutError as error:
            value, text = self.value(), self.text()
            raise AssertionError(f"{self.name} at {value}: {text!r} fails {condition}, arg = {arg!r}") from error

    def picture(self) -> bytes:
        """The pixels of the drawing."""
        view = self.page.locator(self.view_selector)
        view.scroll_into_view_if_needed()
        return view.screenshot(animations="disabled")

    def sweep(self) -> str:
        """Both ends and a state between: the readout is right, text and picture change. The latency in words."""
        self.settle()  # the slider before may have exchanged this one
        self.press("ArrowRight", "Home")
        assert self.handle.get_attribute("aria-label") == self.label
        assert self.page.locator(self.text_selector).is_visible()
        self.check()
        low, low_text, low_picture = self.value(), self.text(), self.picture()
        self.press("ArrowRight", "ArrowRight", "ArrowRight")
        self.check()
        self.press("End")
        assert self.value() != low, f"{self.name}: the keys Home and End leave it at {low}"
        self.wait_for_text("text !== arg", low_text)
        self.check()
        changed = self.picture() != low_picture
        assert changed, f"{self.name}: the drawing is the same at {low} and {self.value()}"
        measured = self.latencies()
        assert len(measured) >= self.presses // 2
        hits, misses = ([one for one in measured if one.missed == missed] for missed in (False, True))
        return f"{self.name}: {_in_words(hits, 'hits')}; {_in_words(misses, 'misses')}; burst {self.burst():.0f} ms"

    def latencies(self) -> list["Latency"]:
        """Walking up and turning at the ends; then MISSES times just when another slider of the panel has moved."""
        measured, keys = [], ["ArrowRight", "ArrowLeft"]
        self.press("Home")
        for _ in range(self.presses):
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
        shown = [self.view_selector, self.text_selector]
        self.page.evaluate(STOPWATCH, [shown, nudged and nudged.handle.element_handle()])
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
        self.check()
        self.settle()
        self.check()  # nothing that was on its way has drawn over it
        return self.page.evaluate("() => Math.max(0, window.last.drawn - window.last.pressed)")

    def check_python(self) -> None:
        """A value that is set by code, not by hand, redraws as well."""
        self.press("End")
        before = self.text()
        status = self.page.evaluate(
            RUN_CODE,
            "from ipywidgets.widgets import widget\n"
            f"name, label = 'ddpm-slider-{self.panel}', {self.label!r}\n"
            "control = [one for one in widget._instances.values()\n"
            "    if name in getattr(one, '_dom_classes', ()) and one.description == label][-1]\n"
            "if hasattr(control, 'index'):\n    control.index = 0\nelse:\n    control.value = control.min",
        )
        assert status == "ok"
        self.wait_for_text("text !== arg", before)
        self.check()
        low = self.value()
        self.press("Home")
        assert self.value() == low

    def other(self) -> "Slider | None":
        """Another slider of the panel."""
        return next((one for one in sliders_of(self.page, self.panel) if one.label != self.label), None)


def sliders_of(page, panel: str) -> list[Slider]:
    return [Slider(page, panel, slider) for slider in page.locator(f".ddpm-slider-{panel}").all()]


class Latency(NamedTuple):
    """Milliseconds from a key press to the changed drawing and to its painting; did the browser have to ask?"""

    drawn: float
    painted: float
    missed: bool


def _in_words(measured: list[Latency], kind: str) -> str:
    """Medians and 95th percentiles."""
    if not measured:
        return f"no {kind}"
    drawn, painted = (sorted(times) for times in list(zip(*measured, strict=True))[:2])
    last = math.ceil(0.95 * len(measured)) - 1
    return (
        f"{len(measured)} {kind}, drawn after {statistics.median(drawn):.0f} ms (p95 {drawn[last]:.0f}), "
        f"painted {statistics.median(painted):.0f} ms (p95 {painted[last]:.0f})"
    )
