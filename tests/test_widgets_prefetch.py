"""The states that the browser is given ahead: which they are, in which order, and that they are right."""

import json
import re

import course
import ipywidgets
import pytest
from ipywidgets.widgets import widget

from ddpm_edu import widgets
from ddpm_edu.widgets import panels, prefetch

SLIDERS = [
    widgets.bound_slider,
    widgets.elbo_slider,
    widgets.ema_slider,
    widgets.flow_slider,
    widgets.kl_slider,
    widgets.langevin_slider,
    widgets.posterior_slider,
    widgets.sampler_slider,
    widgets.schedule_slider,
    widgets.weight_slider,
]


class Clock:
    """Counts seconds only where told to."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Browser:
    """A panel with two controls, whose states cost 4 ms each, and what is sent to the browser."""

    def __init__(self, monkeypatch):
        ipywidgets.Widget.close_all()
        self.clock, self.computed, self.answers = Clock(), [], []
        monkeypatch.setattr(prefetch, "time", self.clock)
        monkeypatch.setattr(prefetch.Prefetch, "send", lambda _, content: self.answers.append(content["states"]))
        self.controls = {"a": ipywidgets.IntSlider(5, 0, 10), "b": ipywidgets.SelectionSlider(options=["x", "y", "z"])}
        self.view = widgets.Curves(name="n", alt="", data={})
        panels.follow(self.view, "data", self.state, self.controls)
        [self.ahead] = [one for one in widget._instances.values() if isinstance(one, prefetch.Prefetch)]

    def state(self, a, b):
        self.clock.now += 0.004
        self.computed.append((a, b))
        return {"is": f"{a} {b}"}

    def ask(self, *at, missing=True, moved=None, fresh=False):
        """The places that the answer holds; each must come with its own state."""
        question = {"at": list(at), "missing": missing, "moved": moved, "fresh": fresh}
        self.ahead._handle_custom_msg(question, [])
        for (a, b), state in self.answers[-1]:
            assert state == {"is": f"{a} {'xyz'[b]}"}
        return [place for place, _ in self.answers[-1]]


@pytest.fixture
def browser(monkeypatch):
    return Browser(monkeypatch)


# Which states


@pytest.mark.parametrize(
    ("control", "places"),
    [
        (ipywidgets.IntSlider(2, 2, 10, step=4), [2, 6, 10]),
        (ipywidgets.IntSlider(2, 2, 9, step=4), [2, 6]),
        (ipywidgets.FloatSlider(value=0, min=-0.1, max=0.3, step=0.1), [-0.1, 0.0, 0.1, 0.2, 0.3]),
        (ipywidgets.FloatSlider(value=0.01, min=0.005, max=0.02, step=0.005), [0.005, 0.01, 0.015, 0.02]),
        (ipywidgets.SelectionSlider(options=[("one", 1), ("ten", 10)]), [0, 1]),
        (ipywidgets.Dropdown(options=["a", "b", "c"]), [0, 1, 2]),
        (ipywidgets.Checkbox(True), [False, True]),
        (ipywidgets.Text("anything"), []),
    ],
)
def test_the_places_of_a_control(control, places):
    assert prefetch.line(control) == places


@pytest.mark.parametrize(
    ("control", "place", "value"),
    [
        (ipywidgets.IntSlider(5), 7, 7),
        (ipywidgets.FloatSlider(value=0.5), 1, 1.0),  # JSON knows one kind of number
        (ipywidgets.SelectionSlider(options=[("one", 1), ("ten", 10)]), 1, 10),
        (ipywidgets.SelectionSlider(options=["β", "β̃"]), 0, "β"),
        (ipywidgets.Checkbox(True), False, False),
        (ipywidgets.Text(""), "word", "word"),
    ],
)
def test_the_value_at_a_place_is_of_the_control_s_type(control, place, value):
    got = prefetch.value_at(control, place)
    assert got == value and type(got) is type(value)


def test_one_move_of_one_control_the_nearest_first_and_the_ends_as_near_as_two_steps():
    got = prefetch.cross([list(range(11)), [0, 1, 2]], (5, 1))
    assert got[:4] == [(4, 1), (6, 1), (5, 0), (5, 2)]
    assert got[4:8] == [(0, 1), (3, 1), (7, 1), (10, 1)]
    assert got[8:] == [(2, 1), (8, 1), (1, 1), (9, 1)]


def test_the_control_that_moved_last_comes_first():
    got = prefetch.cross([list(range(21)), list(range(21))], (10, 10), moved=1)
    assert got[:6] == [(10, 9), (10, 11), (10, 0), (10, 8), (10, 12), (10, 20)]
    assert got.index((10, 13)) < got.index((11, 10)) < got.index((10, 15))


def test_from_between_two_places_the_nearest_counts_as_here():
    got = prefetch.cross([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5]], (0.31,))
    assert got == [(0.3,), (0.2,), (0.4,), (0.0,), (0.1,), (0.5,)]


def test_the_last_digits_of_a_number_do_not_matter():
    assert prefetch.name((0.1 + 0.2, 3, "x")) == prefetch.name((0.3, 3, "x"))
    assert prefetch.name((0.3,)) != prefetch.name((0.3001,))
    assert (0.1 + 0.2,) not in prefetch.cross([[0.1, 0.2, 0.3]], (0.1 + 0.2,))
    assert len(prefetch.cross([[0.1, 0.2, 0.3]], (0.1 + 0.2,))) == 2


def test_a_control_without_places_is_left_where_it_is():
    assert prefetch.cross([[], [0, 1]], ("text", 0)) == [("text", 1)]


# Questions and answers


def test_who_waits_gets_one_state_and_then_neighbours_until_their_time_is_over(browser):
    assert browser.ask(5, 0) == [(5, 0)]
    assert browser.ask(5, 0, missing=False) == [(4, 0), (6, 0), (5, 1)]  # 12 ms, the first number above SLICE
    assert browser.ask(5, 0, missing=False) == [(0, 0), (3, 0), (7, 0)]
    assert browser.computed == [(5, "x"), (4, "x"), (6, "x"), (5, "y"), (0, "x"), (3, "x"), (7, "x")]


def test_nothing_is_sent_twice_and_the_last_answer_is_empty(browser):
    got = browser.ask(5, 0)
    for _ in range(10):
        got += browser.ask(5, 0, missing=False)
    assert sorted(got) == sorted({(a, 0) for a in range(11)} | {(5, b) for b in range(3)})
    assert browser.ask(5, 0, missing=False) == []
    assert (5, 0) not in browser.ask(6, 0, moved=0)


def test_who_moves_on_is_answered_from_there(browser):
    browser.ask(5, 0)
    assert browser.ask(9, 2, moved=0) == [(9, 2)]
    assert browser.ask(9, 2, moved=0, missing=False) == [(8, 2), (10, 2), (0, 2)]
    assert all(b == "z" for _, b in browser.computed[1:])  # nothing more around the old place


def test_an_answer_goes_on_along_the_control_that_moved(browser):
    assert browser.ask(5, 1, moved=1, missing=False) == [(5, 0), (5, 2), (4, 1)]
    assert browser.ask(8, 1, moved=0, missing=False) == [(7, 1), (9, 1), (0, 1)]


def test_what_is_asked_for_is_sent_again(browser):
    assert browser.ask(5, 0) == browser.ask(5, 0) == [(5, 0)]


def test_a_browser_that_knows_nothing_is_told_everything(browser):
    browser.ask(5, 0)
    first = browser.ask(5, 0, missing=False)
    assert browser.ask(5, 0, missing=False) != first
    assert browser.ask(5, 0, missing=False, fresh=True) == first


def test_what_is_sent_has_five_digits(monkeypatch, browser):
    browser.ahead._state = lambda a, b: {"y": [1 / 3, -2e-9 / 3, 123456.7], "n": [1234567, True, None, "1.23456789"]}
    browser.ahead._handle_custom_msg({"at": [5, 0], "missing": True, "moved": None, "fresh": False}, [])
    [(place, sent)] = browser.answers[-1]
    assert place == (5, 0)
    assert sent == {"y": [0.33333, -6.6667e-10, 123460.0], "n": [1234567, True, None, "1.23456789"]}
    assert [type(one) for one in sent["n"]] == [int, bool, type(None), str]


def test_only_so_many_states_around_one_place(monkeypatch, browser):
    monkeypatch.setattr(prefetch, "REACH", 4)
    assert len(browser.ask(5, 0) + browser.ask(5, 0, missing=False) + browser.ask(5, 0, missing=False)) == 1 + 4


def test_a_neighbour_that_has_no_state_is_passed_over(monkeypatch, browser):
    def state(a, b):
        if a == 4:
            raise ValueError("no such state")
        return browser.state(a, b)

    browser.ahead._state = state
    assert browser.ask(5, 0, missing=False) == [(6, 0), (5, 1), (0, 0)]


def test_who_asks_for_what_has_no_state_hears_the_error_and_does_not_wait(browser):
    def state(a, b):
        raise ValueError("no such state")

    browser.ahead._state = state
    with pytest.raises(ValueError, match="no such state"):
        browser.ahead._answer(browser.ahead, {"at": [5, 0], "missing": True, "moved": None, "fresh": True}, [])
    assert browser.answers == [[]]


# With and without a browser


def test_the_kernel_redraws_until_a_browser_asks_and_from_then_on_computes_nothing_unasked(browser):
    browser.controls["a"].value = 7
    assert browser.view.data == {"is": "7 x"} and browser.computed == [(7, "x")]
    browser.ask(7, 0)
    del browser.computed[:]
    browser.controls["a"].value = 8
    browser.controls["b"].value = "z"
    assert browser.computed == [] and browser.view.data == {"is": "7 x"}


def test_the_browser_is_told_which_drawing_and_which_controls(browser):
    assert browser.ahead.view == browser.view.model_id and browser.ahead.trait == "data"
    assert browser.ahead.controls == [control.model_id for control in browser.controls.values()]


@pytest.mark.parametrize("make", SLIDERS, ids=lambda make: make.__name__)
def test_states_that_are_sent_ahead_are_those_that_the_kernel_would_draw(make):
    ipywidgets.Widget.close_all()
    *controls, view = make().children
    [ahead] = [one for one in widget._instances.values() if isinstance(one, prefetch.Prefetch)]
    at = tuple(control.index if prefetch.is_choice(control) else control.value for control in controls)
    states = {**dict(ahead.states(at, missing=True)), **dict(ahead.states(at, missing=False))}
    assert len(states) == 1 + min(prefetch.REACH, sum(len(prefetch.line(control)) - 1 for control in controls))
    ends = [(axis, place) for axis, control in enumerate(controls) for place in prefetch.line(control)[:: max(1, 7)]]
    for axis, place in ends:
        control, before = controls[axis], controls[axis].value
        control.value = prefetch.value_at(control, place)
        where = (*at[:axis], place, *at[axis + 1 :])
        assert view.data == next(state for key, state in states.items() if prefetch.name(key) == prefetch.name(where))
        json.dumps(view.data, allow_nan=False)  # a browser reads no NaN
        control.value = before


# What sliders are not made of


def test_no_output_widget_and_nothing_that_prints_into_one():
    forbidden = re.compile(r"\b(Output\(|interact\(|interactive\(|interactive_output\(|interact_manual\()")
    sources = {path: path.read_text(encoding="utf-8") for path in (course.ROOT / "ddpm_edu").rglob("*.py")}
    for path in course.notebooks():
        sources[path] = "\n".join(cell.source for cell in course.code_cells(course.read(path)))
    assert [path.name for path, text in sources.items() if forbidden.search(text)] == []
    assert forbidden.search("widgets.Output()") and not forbidden.search("out.output_type")
