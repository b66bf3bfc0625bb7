"""The schedule laboratory in a real browser: its parameters, its knots, its JSON, its buttons and its density.

What is drawn and said is compared with the schedules that the package makes of what the controls show. The sliders that
every panel has are in test_browser.py. Latencies are printed, never asserted.
"""

import functools
import statistics
import time
from collections.abc import Callable
from functools import partial

import course
import headless
import numpy as np
import pytest
import torch
from cells import has_slider
from PIL import Image, ImageColor
from sliders import (
    DARK,
    LAST,
    LIGHT,
    PATIENCE,
    RUN_CELLS,
    SECOND,
    Slider,
    check_contrast,
    complaints,
    expect,
    number,
    opened,
    use_theme,
)

from ddpm_edu import elbo, plotting, schedules, widgets
from ddpm_edu.schedules import Schedule
from ddpm_edu.widgets import comparison, families, generated

CHAPTER = course.ROOT / "notebooks" / "explore_schedules.ipynb"
[CELL] = [place for place, cell in enumerate(course.read(CHAPTER).cells) if has_slider(cell)]
# the families in the order of their slider, with the parameters that their sliders are labelled by
FAMILIES = {
    "linear": {"β₁": "beta_1", "β_T": "beta_T"},
    "scaled linear": {"β₁": "beta_1", "β_T": "beta_T"},
    "cosine": {"s": "s", "max β": "max_beta"},
    "sigmoid": {"start": "start", "end": "end", "max β": "max_beta"},
    "log-SNR linear": {"ln SNR₁": "log_snr_1", "ln SNR_T": "log_snr_T"},
    "constant": {"β": "beta"},
    "drawn by hand": {},
    "from JSON": {},
}
MAKERS = {
    "linear": schedules.linear,
    "scaled linear": schedules.scaled_linear,
    "cosine": schedules.cosine,
    "sigmoid": schedules.sigmoid,
    "log-SNR linear": schedules.log_snr_linear,
    "constant": schedules.constant,
}
PARAMETERS = [(family, label) for family, labels in FAMILIES.items() for label in labels]
# by how many dB a key moves a knot, where its neighbours let it
KEYS = {
    "ArrowDown": -1,
    "PageDown": -10,
    "Home": -999,
    "End": 999,
    "ArrowLeft": -1,
    "PageUp": 10,
    "ArrowRight": 1,
    "ArrowUp": 1,
}
PRESSES, PAUSES = 10, range(60, 420, 40)  # the pauses in milliseconds, as is the nap
NAP = 50
TEXT, VIEW = ".ddpm-text-laboratory", ".ddpm-view-laboratory"
DENSITY = f'{VIEW} svg[aria-label^="generated density"]'
ROWS = ("A", "B", "sampler")
READY = f"""() => {{
  const texts = document.querySelectorAll('{TEXT}'), curves = [...document.querySelectorAll('{VIEW} polyline')];
  return texts.length === 1 && curves.length > 0 && curves.every(one => one.getAttribute('points'));
}}"""
CONTROLS = """() => [...document.querySelectorAll('.ddpm-control-laboratory')].map(
  one => ['.widget-label', '.widget-readout'].map(part => one.querySelector(part).textContent))"""
# The points of a curve and the grid around it, as they stand in a drawing
CURVE = f"""([title, place]) => {{
  const svg = document.querySelector(`{VIEW} svg[aria-label^="${{title}}"]`);
  const at = (line, key) => Number(line.getAttribute(key)), grid = [...svg.querySelectorAll(':scope > line')];
  return {{
    points: (svg.querySelectorAll('polyline')[place].getAttribute('points').match(/[-.\\d]+/g) ?? []).map(Number),
    x: grid.filter(line => at(line, 'x1') === at(line, 'x2')).map(line => at(line, 'x1')),
    y: grid.filter(line => at(line, 'y1') === at(line, 'y2')).map(line => at(line, 'y1')),
  }};
}}"""


@pytest.fixture(scope="module")
def notebook_page(lab, browser):
    """The notebook after Run All; ``drawn`` are the milliseconds that this took until the laboratory was drawn."""
    with opened(browser, lab, CHAPTER.name) as page:
        page.set_viewport_size({"width": 1280, "height": 1250})  # room for all of it
        start = page.evaluate("performance.now()")
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        page.wait_for_function(READY, timeout=2 * PATIENCE)
        page.drawn = page.evaluate("performance.now()") - start
        yield page


@pytest.fixture
def page(notebook_page):
    """The laboratory as it starts; at the end nobody has complained."""
    notebook_page.evaluate(RUN_CELLS, [CELL])
    notebook_page.wait_for_function(READY, timeout=PATIENCE)
    # in which the keys of the notebook are its shortcuts, and must not be those of the laboratory
    notebook_page.evaluate("window.jupyterapp.commands.execute('notebook:enter-command-mode')")
    yield notebook_page
    assert complaints(notebook_page) == []


class Control(Slider):
    """A slider by its label: one of schedule A or B, or of the sampler."""

    presses = 5

    def __init__(self, page, label: str) -> None:
        exactly = page.get_by_text(label, exact=True)
        super().__init__(page, "laboratory", page.locator(".ddpm-control-laboratory", has=exactly))

    def check(self) -> None:
        which, _, name = self.label.partition(": ")
        check(self.page, which) if name else check_density(self.page)

    def other(self) -> Slider:
        which, _, name = self.label.partition(": ")
        if not name:
            return Control(self.page, "variance" if self.label == "steps" else "steps")
        if name != "T":
            return Control(self.page, f"{which}: T")
        return Control(self.page, f"{which}: {next(iter(FAMILIES[controls(self.page)[f'{which}: schedule']]))}")


def controls(page) -> dict[str, float | str]:
    """What the sliders show, by their labels."""
    return {label: number(shown) for label, shown in page.evaluate(CONTROLS)}


def shown(page, which: str) -> tuple[str, Callable[[], Schedule]]:
    """The family that the controls of a schedule show, and what makes the schedule of the values that they show."""
    values = {label[3:]: value for label, value in controls(page).items() if label.startswith(f"{which}: ")}
    family, T = values.pop("schedule"), int(values.pop("T"))
    if family == "drawn by hand":
        return family, partial(widgets.drawn_schedule, T, knots(page, which))
    if family == "from JSON":
        return family, partial(schedules.from_json, page.locator("textarea").input_value())
    rounded = {"1 − 10⁻⁹": 1 - 1e-9}
    named = {FAMILIES[family][label]: rounded.get(value, value) for label, value in values.items()}
    return family, partial(MAKERS[family], T, **named)


def handles(page, which: str) -> list:
    """The knots of a schedule that is drawn by hand."""
    return page.locator(f".ddpm-knot-laboratory-{which}").all()


def knots(page, which: str) -> list[int]:
    """Where they stand, in dB."""
    return [int(handle.get_attribute("aria-valuenow")) for handle in handles(page, which)]


def choose(page, which: str, family: str) -> None:
    """Choose a family by keyboard."""
    Control(page, f"{which}: schedule").press("Home", *["ArrowRight"] * list(FAMILIES).index(family))
    has_controls_of(page, which, family)
    assert controls(page)[f"{which}: schedule"] == family


def has_controls_of(page, which: str, family: str) -> None:
    """Wait until the sliders are those of a family."""
    labels = page.locator(".ddpm-control-laboratory .widget-label", has_text=f"{which}: ")
    expect(labels).to_have_text([f"{which}: {one}" for one in ("schedule", "T", *FAMILIES[family])], timeout=PATIENCE)


def button(page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def press(page, name: str) -> None:
    """Press a button by keyboard."""
    button(page, name).focus()
    page.keyboard.press("Enter")


def is_focused(element) -> bool:
    return element.evaluate("one => one === document.activeElement")


def patiently(check: Callable) -> Callable:
    """A check that is made again until it holds, for as long as PATIENCE lasts: a drawing may be on its way."""

    @functools.wraps(check)
    def checked(page, *arguments):
        end = time.monotonic() + PATIENCE / SECOND
        while time.monotonic() < end:
            try:
                return check(page, *arguments)
            except AssertionError:
                page.wait_for_timeout(NAP)
        return check(page, *arguments)

    return checked


@patiently
def check(page, which: str) -> Schedule | None:
    """Line and curves are those of the schedule that the controls show. None where that is none, and it says why."""
    family, make = shown(page, which)
    try:
        s = make()
    except ValueError as error:
        assert row(page, which) == f"{which} ✗ {error}"
        assert page.evaluate(CURVE, ["ᾱₜ", ROWS.index(which)])["points"] == []
        return None
    found, decibels = elbo.validity(s.beta[1:]), 10 * s.snr.log10()
    first, last = (f"{one:.1f}".replace("-", "−") for one in decibels[[1, -1]])
    assert row(page, which) == (
        f"{which} {family}, T = {s.T}: ᾱ_T = {found.alpha_bar_T:.2g}, SNR from {first} to {last} dB, "
        f"L_T = {found.prior_bits:.2g} bits/dim {'✓ x_T is noise' if found.x_T_is_noise else '✗ x_T is not noise'}"
    )
    for title, wanted, ends in (("ᾱₜ", s.alpha_bar, (0, 1)), ("SNR in dB", decibels, (-80, 40))):
        x, y, unit = curve(page, which, title, (0, 1), ends)
        t = np.linspace(1, s.T, len(x)).round().astype(int)
        np.testing.assert_allclose(x, t / s.T, atol=0.001, err_msg=title)
        near = {"min": -200, "max": 100}  # farther outside a curve is cut off
        np.testing.assert_allclose(y.clip(**near), wanted.clip(**near)[t], atol=unit / 10, err_msg=title)
    return s


@patiently
def check_density(page) -> None:
    """The generated densities and their KL are those of what the controls show."""
    steps, variance = (controls(page)[label] for label in ("steps", "variance"))
    found, kls = {}, []
    for which in "AB":
        s = shown(page, which)[1]()
        taken = s.T if steps == "T" else min(int(steps), s.T)
        found[which] = generated.generated(s, taken, variance)
        kl = found[which].kl
        told = "below 0.0001" if kl < 1e-4 else "above 10" if kl > 10 else f"{kl:.2g}"
        kls.append(f"{which}: KL {told} nats in {taken} steps")
    said = f"Sampler: {'as many as T' if steps == 'T' else f'{steps:.0f}'} steps, variance {variance}."
    assert row(page, "sampler") == " ".join([said, *(f"{kl}." for kl in kls)])
    assert page.locator(f"{DENSITY} > text", has_text=": KL ").all_text_contents() == kls
    for which, one in found.items():
        x, y, unit = curve(page, which, "generated density", (-1, 1), (0, 2))
        np.testing.assert_allclose(x, generated.X, atol=0.005)
        high = 3  # above the drawing a curve is cut off
        np.testing.assert_allclose(y.clip(max=high), one.density.clip(max=high), atol=unit / 10)


def row(page, name: str) -> str:
    """The readout has a row for each schedule and one for the sampler."""
    return page.locator(f"{TEXT} > div").nth(ROWS.index(name)).text_content()


def curve(page, which: str, title: str, x_ends: tuple[float, float], y_ends: tuple[float, float]):
    """x and y of a curve as its grid, with these ends, has them; and how much of y a unit of the SVG is."""
    drawn = page.evaluate(CURVE, [title, ROWS.index(which)])
    x, y = np.array(drawn["points"]).reshape(-1, 2).T
    per_x, per_y = (
        (high - low) / (drawn[axis][-1] - drawn[axis][0]) for axis, (low, high) in (("x", x_ends), ("y", y_ends))
    )
    return x_ends[0] + (x - drawn["x"][0]) * per_x, y_ends[0] + (y - drawn["y"][0]) * per_y, abs(per_y)


def take_pictures(page, name: str) -> None:
    """Of the laboratory, light and dark; in the dark each line stands out."""
    page.locator(".jp-Cell").nth(CELL).evaluate("cell => cell.scrollIntoView()")
    headless.take_picture(page, f"laboratory-{name}")
    use_theme(page, DARK)
    headless.take_picture(page, f"laboratory-{name}-dark")
    check_contrast(page, "laboratory")
    use_theme(page, LIGHT)


def test_the_laboratory_is_drawn_soon_after_run_all(notebook_page, capsys):
    with capsys.disabled():
        print(f"\nlaboratory: drawn {notebook_page.drawn / 1000:.1f} s after Run All", end="")
    check(notebook_page, "A")
    check(notebook_page, "B")
    check_density(notebook_page)
    headless.take_picture(notebook_page, "laboratory-run-all")


# Sliders


@pytest.mark.parametrize("label", ["A: schedule", "A: T", "B: schedule", "B: T", "steps", "variance"])
def test_a_slider_moves_its_text_and_its_picture(page, capsys, label):
    latency = Control(page, label).sweep()
    with capsys.disabled():
        print(f"\n{latency}", end="")


def test_values_that_python_sets_are_drawn(page):
    for label in ("A: T", "steps"):
        Control(page, label).check_python()


@pytest.mark.parametrize(("family", "label"), PARAMETERS)
def test_a_parameter_of_A_moves_its_text_and_its_picture(page, capsys, family, label):
    choose(page, "A", family)
    latency = Control(page, f"A: {label}").sweep()
    with capsys.disabled():
        print(f"\n{family}: {latency}", end="")


def test_a_parameter_of_B_moves_B(page):
    """One is enough: the code is that of A."""
    before = shown(page, "A")[1]().beta
    Control(page, "B: max β").sweep()
    assert torch.equal(check(page, "A").beta, before)


def test_a_value_that_gives_no_schedule_is_told_in_one_line(page):
    choose(page, "A", "constant")
    beta = Control(page, "A: β")
    beta.press("End")
    assert check(page, "A") is None
    assert check(page, "B") is not None
    assert [can_be_taken(page, which) for which in "AB"] == [False, True]
    take_pictures(page, "no-schedule")
    beta.press("Home")
    assert check(page, "A") is not None
    assert can_be_taken(page, "A")


def can_be_taken(page, which: str) -> bool:
    copy, export = (button(page, name).is_enabled() for name in (f"Copy {which} as Python", f"Export {which} as JSON"))
    assert copy == export
    return copy


# Drawn by hand


def test_a_knot_is_moved_by_keyboard_and_never_past_its_neighbour(page):
    choose(page, "A", "drawn by hand")
    check(page, "A")
    assert len(handles(page, "A")) == 7
    for place, handle in enumerate(handles(page, "A")):
        handle.focus() if place == 0 else page.keyboard.press("Tab")
        assert is_focused(handle)
        assert handle.get_attribute("role") == "slider"
        assert handle.get_attribute("aria-label") == f"Schedule A: SNR in dB at knot {place + 1} of 7"
        for key, step in KEYS.items():
            db = knots(page, "A")
            page.keyboard.press(key)
            db[place] = within(db, place, db[place] + step)
            assert knots(page, "A") == db, f"knot {place + 1}: {key}"
            assert handle.get_attribute("aria-valuetext") == f"{db[place]} dB".replace("-", "−")
            check(page, "A")
    db = knots(page, "A")
    for _ in range(PRESSES):  # faster than the kernel draws
        page.keyboard.press("ArrowDown")
    assert knots(page, "A") == [*db[:-1], db[-1] - PRESSES]
    check(page, "A")
    assert knots(page, "A") == [*db[:-1], db[-1] - PRESSES]
    check_density(page)
    assert page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex") == CELL
    take_pictures(page, "drawn-by-hand")


def test_a_knot_is_moved_by_mouse_and_never_past_its_neighbour(page):
    """Of B: the code is that of A."""
    choose(page, "B", "drawn by hand")
    handles(page, "B")[0].scroll_into_view_if_needed()
    for place, to in ((2, 7), (2, 60), (5, -80), (6, -70), (0, 33)):
        db, spots = knots(page, "B"), [middle(handle) for handle in handles(page, "B")]
        per_decibel = (spots[-1][1] - spots[0][1]) / (db[-1] - db[0])
        x, y = spots[place]
        drag(page, spots[place], (x, y + (to - db[place]) * per_decibel))
        page.mouse.up()
        db[place] = within(db, place, to)
        assert knots(page, "B") == db, f"knot {place + 1} to {to} dB"
        check(page, "B")
    check_density(page)


def within(db: list[int], place: int, to: int) -> int:
    """Where a knot stops on its way: 1 dB from its neighbours, or where the drawing ends."""
    highest = db[place - 1] - 1 if place else 60
    lowest = db[place + 1] + 1 if place + 1 < len(db) else -80
    return min(max(to, lowest), highest)


def middle(element) -> tuple[float, float]:
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """With the mouse, whose button stays down."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=5)


# From JSON


def test_json_that_is_typed_is_read_or_its_problem_told_in_one_line(page):
    choose(page, "A", "from JSON")
    assert check(page, "A") is not None
    field = page.locator("textarea")
    for text, good in (
        ("rubbish", False),
        (schedules.to_json(schedules.cosine(12)), True),
        ('{"format": "ddpm_edu.schedule/1", "T": 2, "betas": [0.5, 1.5]}', False),
        (schedules.to_json(schedules.sigmoid(30)), True),
        ("", False),
    ):
        field.focus()
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.insert_text(text)
        assert field.input_value() == text
        assert (check(page, "A") is not None) == good
        assert can_be_taken(page, "A") == good
    take_pictures(page, "no-JSON")


def test_json_is_loaded_from_a_file_and_the_same_file_again(page, tmp_path):
    choose(page, "A", "from JSON")
    path = tmp_path / "schedule.json"
    page.on("filechooser", lambda chooser: chooser.set_files(path))
    field, upload = page.locator("textarea"), page.locator(".widget-upload")
    for content in (schedules.to_json(schedules.cosine(12)), "rubbish", schedules.to_json(schedules.constant(9, 0.5))):
        path.write_text(content)
        for _ in range(2):
            field.fill("overwritten")
            check(page, "A")
            upload.focus()
            page.keyboard.press("Enter")
            expect(field).to_have_value(content, timeout=PATIENCE)
            check(page, "A")


# Buttons


def test_the_tour_sets_the_controls_and_tells_its_story(page):
    buttons = [button(page, f"{place}. {stop.name}") for place, stop in enumerate(comparison.TOUR, 1)]
    buttons[0].focus()
    for place, (here, stop) in enumerate(zip(buttons, comparison.TOUR, strict=True), 1):
        assert is_focused(here)
        page.keyboard.press("Enter")
        expect(page.locator(".widget-html", has_text=stop.text)).to_be_visible(timeout=PATIENCE)
        for which, chosen in (("A", stop.A), ("B", stop.B)):
            has_controls_of(page, which, families.NAMES.get(chosen.family, chosen.family))
            assert torch.equal(check(page, which).beta, families.schedule(chosen).beta)
        assert (controls(page)["steps"], controls(page)["variance"]) == (stop.steps, "β̃")
        check_density(page)
        take_pictures(page, f"tour-{place}")
        page.keyboard.press("Tab")
    assert is_focused(button(page, "Reset"))


def test_reset_goes_back_to_the_start(page):
    check_density(page)
    start = controls(page), page.locator(TEXT).text_content(), page.locator(VIEW).inner_html()
    press(page, "5. same ends")
    expect(page.locator(".widget-html", has_text="same ends")).to_be_visible(timeout=PATIENCE)
    Control(page, "A: β_T").press("End")
    Control(page, "A: T").press("Home")
    choose(page, "A", "drawn by hand")
    choose(page, "B", "cosine")
    Control(page, "B: max β").press("End")
    choose(page, "B", "from JSON")
    page.locator("textarea").fill("rubbish")
    Control(page, "steps").press("Home")
    Control(page, "variance").press("End")
    press(page, "Reset")
    expect(page.locator(".widget-html", has_text="take a tour")).to_be_visible(timeout=PATIENCE)
    has_controls_of(page, "A", "linear")
    has_controls_of(page, "B", "cosine")
    check_density(page)
    assert (controls(page), page.locator(TEXT).text_content(), page.locator(VIEW).inner_html()) == start


@pytest.fixture(params=["parameter", "knot", "JSON"])
def moved(page, request) -> Schedule:
    """Schedule A, no longer the one that it was at the start."""
    if request.param == "parameter":
        choose(page, "A", "cosine")
        Control(page, "A: max β").press("End")
    elif request.param == "knot":
        choose(page, "A", "drawn by hand")
        handles(page, "A")[3].press("PageUp")
    else:
        choose(page, "A", "from JSON")
        page.locator("textarea").fill(schedules.to_json(schedules.sigmoid(30)))
    return check(page, "A")


def test_a_schedule_is_rebuilt_by_the_python_that_is_copied(page, moved):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press(page, "Copy A as Python")
    line = page.locator(f"{VIEW} code").text_content()
    assert page.evaluate("navigator.clipboard.readText()") == line
    namespace = {}
    exec(line, namespace)
    assert torch.equal(namespace["s"].beta, moved.beta)


def test_a_schedule_is_exported_as_json(page, moved):
    with page.expect_download() as download:
        press(page, "Export A as JSON")
    assert download.value.suggested_filename == "schedule_A.json"
    assert torch.equal(schedules.from_json(download.value.path().read_text()).beta, moved.beta)
    told = "python -m ddpm_edu train --schedule schedule_A.json"
    expect(page.locator(f"{VIEW} code")).to_have_text(told)


def test_the_picture_is_saved(page):
    with page.expect_download() as download:
        press(page, "Save picture")
    assert download.value.suggested_filename == "schedules.png"
    headless.keep(download.value.path().read_bytes(), "laboratory-saved")
    picture = Image.open(download.value.path()).convert("RGB")
    width, height = picture.size
    assert (width, height) > (1000, 1000)
    found = {colour: count for count, colour in picture.getcolors(width * height)}
    for name in ("data", "x0_hat"):
        assert found.get(ImageColor.getrgb(plotting.COLOURS[name]), 0) > 1000, f"no curve in the colour of {name}"
    assert len(found) > 10_000, "no flower"


# The generated density


def test_the_density_follows_a_burst_of_presses(page, capsys):
    slider, times, keys = Control(page, "A: β_T"), [], ["ArrowRight", "ArrowLeft"]
    check_density(page)
    page.evaluate(LAST, [DENSITY, None])
    slider.handle.focus()
    for pause in PAUSES:  # and one press more, in one of the cases while the answer is on its way
        for k in range(PRESSES):
            page.keyboard.press(keys[k % 4 == 3])
        page.wait_for_timeout(pause)
        page.keyboard.press(keys[0])
        keys.reverse()
        slider.settle()
        check_density(page)
        times.append(page.evaluate("() => window.last.drawn - window.last.pressed"))
    with capsys.disabled():
        told = f"{statistics.median(times):.0f} ms (at most {max(times):.0f})"
        print(f"\nlaboratory density: drawn {told} after the last press", end="")


def test_the_density_waits_until_the_mouse_is_released(page, capsys):
    slider = Control(page, "A: β_T")
    slider.handle.scroll_into_view_if_needed()
    check_density(page)
    before = curve(page, "A", "generated density", (-1, 1), (0, 2))[1]
    x, y = middle(slider.handle)
    drag(page, (x, y), (x + 25, y))
    slider.settle()
    check(page, "A")
    assert (curve(page, "A", "generated density", (-1, 1), (0, 2))[1] == before).all()
    page.evaluate(LAST, [DENSITY, None])
    page.evaluate("() => document.addEventListener('mouseup', event => { window.last.pressed = event.timeStamp; })")
    page.mouse.up()
    slider.settle()
    check_density(page)
    assert (curve(page, "A", "generated density", (-1, 1), (0, 2))[1] != before).any()
    with capsys.disabled():
        took = page.evaluate("() => window.last.drawn - window.last.pressed")
        print(f"\nlaboratory density: drawn {took:.0f} ms after the release of the mouse", end="")
