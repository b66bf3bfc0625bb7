"""States that the browser has before it needs them, so that a slider redraws within a frame.

The browser keeps the states of a drawing by the places of its controls (prefetch.js). It asks the kernel for a state
that it misses and, while nothing moves, for more: those that one move of one control leads to, nearest first. The maths
stays in the state function. Whoever waits is answered with one state, and more take SLICE seconds at a time, so that
the kernel is soon free for the next question.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

SLICE = 0.01  # seconds: an answer holds as many states as are ready by then, and at least one
REACH = 200  # states around one place, of which a panel with many controls has more than anybody looks at
JUMP = 2  # the keys Home and End lead to the ends of a line, which count as this many steps away
LIKELY = 4  # the control that moved last is likely to move on: its places count as so many times nearer

Place = tuple[Any, ...]  # where each of the controls stands: the index of a choice, the value of anything else


def is_choice(control: Any) -> bool:
    """Does this control choose among options?"""
    return hasattr(control, "index") and hasattr(control, "options")


def line(control: Any) -> list[Any]:
    """The places that a control can take, in order; none where they cannot be listed, as for text."""
    if is_choice(control):
        return list(range(len(control.options)))
    if isinstance(control.value, bool):
        return [False, True]
    if not all(hasattr(control, name) for name in ("min", "max", "step")):
        return []
    steps = int((control.max - control.min) / control.step + 1e-9)
    return [round(control.min + k * control.step, 10) for k in range(steps + 1)]


def value_at(control: Any, place: Any) -> Any:
    """The value of a control that stands at this place, as its own type: a browser sends 1 for 1.0."""
    return control._options_values[place] if is_choice(control) else type(control.value)(place)


def cross(lines: Sequence[Sequence[Any]], at: Place, moved: int | None = None) -> list[Place]:
    """The places that one move of one control leads to from ``at``, the nearest first.

    ``lines`` are the places of each control, ``moved`` is the number of the control that moved last, if any.
    """
    found: list[tuple[float, Place]] = []
    for axis, places in enumerate(lines):
        here = min(range(len(places)), key=lambda k: abs(places[k] - at[axis]), default=0)
        for k, place in enumerate(places):
            steps = abs(k - here) if k not in (0, len(places) - 1) else min(abs(k - here), JUMP)
            distance = steps / LIKELY if axis == moved else steps
            found.append((distance, (*at[:axis], place, *at[axis + 1 :])))
    return [place for _, place in sorted(found, key=lambda one: one[0]) if name(place) != name(at)]


def name(place: Place) -> Place:
    """A place as a key of a table: the last digits of a number are not the same in a browser."""
    return tuple(round(one, 9) if isinstance(one, float) else one for one in place)


def short(state: Any) -> Any:
    """A state with five digits of each float, more than a drawing shows: half as much to send and to read."""
    if isinstance(state, float):
        return float(f"{state:.5g}")
    if isinstance(state, dict):
        return {key: short(value) for key, value in state.items()}
    return [short(one) for one in state] if isinstance(state, list | tuple) else state


class Prefetch(anywidget.AnyWidget):
    """Sets ``trait`` of a drawing to ``state(**values)`` of its controls in the browser, which asks here for states.

    Nothing to look at. ``listening`` is True from the first question on: before it, and where no browser asks, the
    kernel redraws.
    """

    _esm = Path(__file__).parent / "prefetch.js"
    view = traitlets.Unicode().tag(sync=True)
    trait = traitlets.Unicode().tag(sync=True)
    controls = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, view: Any, trait: str, state: Callable[..., Any], controls: dict[str, Any]) -> None:
        super().__init__(view=view.model_id, trait=trait, controls=[control.model_id for control in controls.values()])
        self.listening = False
        self._state, self._controls = state, controls
        self._sent: set[Place] = set()
        self.on_msg(self._answer)

    def states(self, at: Place, missing: bool, moved: int | None = None) -> Iterator[tuple[Place, Any]]:
        """The state at ``at`` if it is missing, else those around it that have not been sent; each is computed in turn.

        Where a state cannot be had, the error is the reader's only if it is ``at``: nobody has asked for the others.
        """
        if missing:
            self._sent.add(name(at))
            yield at, self.at(at)
            return
        for place in cross([line(control) for control in self._controls.values()], at, moved)[:REACH]:
            if name(place) in self._sent:
                continue
            self._sent.add(name(place))
            try:
                state = self.at(place)
            except ValueError:
                continue
            yield place, state

    def at(self, place: Place) -> Any:
        """The state at a place."""
        settings = zip(self._controls.items(), place, strict=True)
        return self._state(**{key: value_at(control, one) for (key, control), one in settings})

    def _answer(self, _: Any, question: dict[str, Any], __: Any) -> None:
        """A question is {at, missing, moved, fresh}; ``fresh`` is a browser that has forgotten, or never knew."""
        self.listening = True
        if question["fresh"]:
            self._sent.clear()
        answer, started = [], time.perf_counter()
        try:
            for place, state in self.states(tuple(question["at"]), question["missing"], question["moved"]):
                answer.append((place, short(state)))
                if time.perf_counter() - started > SLICE:
                    break
        finally:  # whoever has asked is waiting
            self.send({"states": answer})
