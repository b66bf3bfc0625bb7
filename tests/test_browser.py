"""The chapters in a real browser: JupyterLab in headless Chromium, every slider moved by keyboard to both ends.

Of each chapter only the cells run that its sliders need (`cells.needed`); other tests execute all of it. Latencies
are printed, never asserted: they belong to the machine. The laboratory, whose sliders come and go, has tests of its own
in test_browser_laboratory.py.
"""

import course
import headless
import pytest
from cells import has_slider, needed, needed_by_sliders
from nbformat import NotebookNode
from readouts import READOUTS
from sliders import (
    DARK,
    IDLE,
    LIGHT,
    PATIENCE,
    RUN_CELLS,
    SECOND,
    check_contrast,
    complaints,
    opened,
    sliders_of,
    use_theme,
)

CHAPTERS = [
    path
    for path in course.notebooks()
    if path.parent.name == "notebooks"
    and path.stem != "explore_schedules"
    and any(map(has_slider, course.code_cells(course.read(path))))
]
DRAWN = "cells => document.querySelectorAll('[class*=\"ddpm-view-\"]').length >= cells"
PANELS = """() => {
  const classes = [...document.querySelectorAll('[class*="ddpm-slider-"]')].flatMap(e => [...e.classList]);
  return [...new Set(classes.filter(c => c.startsWith('ddpm-slider-')).map(c => c.slice('ddpm-slider-'.length)))];
}"""


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def page(lab, browser, request):
    """A chapter, opened, its sliders at work."""
    cells = course.read(request.param).cells
    with opened(browser, lab, request.param.name) as page:
        page.evaluate(RUN_CELLS, _needed_by_sliders(cells))
        page.wait_for_function(IDLE, timeout=60 * SECOND)
        page.wait_for_function(DRAWN, arg=sum(map(has_slider, cells)), timeout=PATIENCE)
        yield page


def _needed_by_sliders(cells: list[NotebookNode]) -> list[int]:
    """Numbers of the cells that the sliders of a chapter need."""
    places = [place for place, cell in enumerate(cells) if cell.cell_type == "code"]
    return [places[number] for number in needed_by_sliders([cells[place] for place in places])]


def test_every_slider_of_the_chapter_moves_its_text_and_its_picture(page, capsys):
    assert complaints(page) == []
    panels = page.evaluate(PANELS)
    assert set(panels) <= set(READOUTS), "a panel without an entry in READOUTS"
    for panel in panels:
        for slider in sliders_of(page, panel):
            latency = slider.sweep()
            with capsys.disabled():
                print(f"\n{latency}", end="")
        headless.take_picture(page, panel)
        slider.check_python()
    use_theme(page, DARK)
    for panel in panels:
        page.locator(f".ddpm-view-{panel}").scroll_into_view_if_needed()
        headless.take_picture(page, f"{panel}-dark")
        check_contrast(page, panel)
    use_theme(page, LIGHT)
    assert complaints(page) == []


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
    assert needed(cells, [5]) == [0, 1, 2, 3, 5]
    assert needed(cells, [4, 3]) == [3, 4]
