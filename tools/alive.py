"""Sliders that move in a deck, where no kernel runs: every state that they lead to goes into the page, packed.

`panels` runs the cells that a notebook's sliders need; `pack` says of one of its panels all that deck/panels.js must
know: the traits of the drawing, the places of the controls and what each of them sets.
"""

import base64
import gzip
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import course
import ipywidgets
from cells import compiled, has_slider, needed_by_sliders, stage
from ipywidgets.widgets import widget, widget_link

from ddpm_edu.widgets import prefetch
from ddpm_edu.widgets.panels import Panel

MOST = 1200  # states of a panel: more make pages that are slow to open
SLIDERS = (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.SelectionSlider)
OWN = {"comm", "keys", "layout", "tabbable", "tooltip"}  # traits of every widget, which no drawing reads


def panels(path: Path) -> dict[str, Panel]:
    """The panels of a notebook that can move without a kernel, by the id of their cell.

    Cells that no slider needs are not run. So where a slider's cell draws from a generator that others have drawn from
    as well, these are other numbers than in the notebook, though the same in every deck.
    """
    cells = course.code_cells(course.read(path))
    found = {}
    with stage(path) as namespace:
        for number in needed_by_sliders(cells):
            cell, before = cells[number], list(_widgets(Panel))
            exec(compiled(path, cell.source), namespace)
            if has_slider(cell):
                [found[cell.id]] = [panel for panel in _widgets(Panel) if panel not in before]
    return {key: panel for key, panel in found.items() if all(isinstance(one, SLIDERS) for one in panel.children[:-1])}


def pack(panel: Panel) -> str:
    """A panel as JSON, compressed, in letters."""
    *controls, view = panel.children
    ahead = next((one for one in _widgets(prefetch.Prefetch) if one.view == view.model_id), None)
    lines = [prefetch.line(control) for control in controls]
    if ahead is not None:
        lines = thinned(lines, [_place(control) for control in controls], list(map(prefetch.is_choice, controls)))
    traits = {key: value for key, value in view.get_state().items() if key[0] != "_" and key not in OWN}
    known = {
        "traits": traits,
        "pictures": [key for key, value in traits.items() if isinstance(value, list) and bytes in map(type, value)],
        "controls": [
            {
                "label": control.description,
                "at": line.index(_place(control)),
                "shown": [_shown(control, place) for place in line],
                "sets": [
                    {"trait": link.target[1], "values": [_linked(link, place) for place in line]}
                    for link in _widgets(widget_link.Link)
                    if link.source[0] is control
                ],
            }
            for control, line in zip(controls, lines, strict=True)
        ],
        "trait": ahead and ahead.trait,
        "states": ahead and [prefetch.short(ahead.at(place)) for place in itertools.product(*lines)],
    }
    letters = json.dumps(known, default=lambda png: base64.b64encode(png).decode(), ensure_ascii=False)
    return base64.b64encode(gzip.compress(letters.encode(), mtime=0)).decode()


def thinned(lines: list[list[Any]], starts: list[Any], choices: list[bool], most: int = MOST) -> list[list[Any]]:
    """Fewer places for each control, so that all together have at most ``most`` states.

    A choice keeps its options. Elsewhere every 2nd, 3rd, ... place is left, and both ends, so that the start is one.
    ValueError where that does not help.
    """
    strides = [1] * len(lines)

    def left(number: int) -> list[Any]:
        line, stride = lines[number], strides[number]
        kept = {0, len(line) - 1, *range(line.index(starts[number]) % stride, len(line), stride)}
        return [line[k] for k in sorted(kept)]

    while math.prod(len(left(number)) for number in range(len(lines))) > most:
        longest = max((n for n, choice in enumerate(choices) if not choice), key=lambda n: len(left(n)), default=None)
        if longest is None or len(left(longest)) <= 3:
            raise ValueError(f"choices: expected at most {most} states together, or fewer beside the other sliders")
        strides[longest] += 1
    return [left(number) for number in range(len(lines))]


def _widgets(kind: type) -> Iterator[Any]:
    return (one for one in list(widget._instances.values()) if isinstance(one, kind))


def _place(control: Any) -> Any:
    return control.index if prefetch.is_choice(control) else round(control.value, 10)


def _linked(link: Any, place: Any) -> Any:
    """What a link carries to the drawing when its control stands at a place."""
    control, trait = link.source
    return place if trait == "index" else prefetch.value_at(control, place)


def _shown(control: Any, place: Any) -> str:
    """What stands beside a control at a place."""
    if prefetch.is_choice(control):
        return str(control._options_labels[place])
    return format(place, control.readout_format).replace("-", "−")
