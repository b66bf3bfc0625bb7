"""What every stored notebook keeps to, how the notebooks are executed, and that nothing in them needs a network."""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import course
import ipywidgets
import nbformat
import notebook
import pytest
from cells import has_slider, needed_by_sliders
from ipywidgets.widgets import widget, widget_link
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = course.ROOT
CHAPTERS = course.chapters()
NOTEBOOKS = course.notebooks()
LECTURES = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
PAGES = [*NOTEBOOKS, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "TEACHING.md", "TROUBLESHOOTING.md"))]
HEADINGS = [
    "You will be able to",
    "You need",
    "Notation used here",
    "Slips you will meet",
    "Exercises",
    "Summary",
    "Where this departs from the paper",
    "References",
]
SLIDE_TYPES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
MAX_BYTES = 500_000
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|var|mnt|Users|content)/|\b[A-Z]:\\+\w")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)[^)]*\)")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def read(path: Path) -> nbformat.NotebookNode:
    return course.read(path)


def prose(path: Path) -> str:
    """The markdown of a notebook or a page, without its code."""
    if path.suffix == ".ipynb":
        text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def outputs(path: Path) -> list[nbformat.NotebookNode]:
    return [out for cell in course.code_cells(read(path)) for out in cell.outputs]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=name)


def test_there_are_chapters_and_solutions():
    assert CHAPTERS
    assert [path for path in NOTEBOOKS if path.parent.name == "solutions"]


# Stored form


@each(NOTEBOOKS)
def test_is_a_valid_notebook_under_500_kb(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < MAX_BYTES


@each(NOTEBOOKS)
def test_was_executed_once_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in course.code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1))


@each(NOTEBOOKS)
def test_outputs_hold_no_error_no_stderr_and_no_address(path):
    assert course.faults(read(path)) == []


@each(NOTEBOOKS)
def test_is_stored_as_make_notebooks_stores_it(path):
    text = path.read_text(encoding="utf-8")
    assert text == nbformat.writes(course.clean(course.read(path))) + "\n"
    assert course.WIDGET_VIEW not in text
    assert "application/vnd.jupyter.widget-state" not in text


@each(NOTEBOOKS)
def test_names_no_absolute_path(path):
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    texts = [cell.source for cell in read(path).cells]
    texts += [out.get("text", "") + out.get("data", {}).get("text/plain", "") for out in outputs(path)]
    assert [found[0] for text in texts for found in ABSOLUTE_PATH.finditer(text)] == []


@each(NOTEBOOKS)
def test_every_picture_in_the_outputs_has_alt_text(path):
    for out in outputs(path):
        for kind in out.get("data", {}):
            if kind.startswith("image/"):
                assert out.metadata.get(kind, {}).get("alt", "").strip(), f"a {kind} output without alt text"


@each(PAGES)
def test_every_picture_in_the_prose_has_alt_text(path):
    for mark, text, target in LINK.findall(prose(path)):
        assert not mark or text.strip(), f"![]({target}) without alt text"
    for image in HTML_IMAGE.findall(prose(path)):
        assert re.search(r'\balt="[^"]*\w', image), f"{image} without alt text"


@each(PAGES)
def test_relative_links_resolve(path):
    targets = [target.partition("#")[0] for _, _, target in LINK.findall(prose(path))]
    targets += re.findall(r'\bsrc="([^"]+)"', prose(path))
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (path.parent / target).exists()] == []


# The template


@each(LECTURES)
def test_every_cell_has_a_place_in_the_slides(path):
    for number, cell in enumerate(read(path).cells, 1):
        slide = cell.metadata.get("slideshow", {}).get("slide_type")
        assert slide in SLIDE_TYPES, f"cell {number}: slide_type is {slide!r}"


@each(CHAPTERS)
def test_opens_with_title_neighbours_and_time_to_run(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {path.name[:2]} ")
    assert re.search(r"(?i)\btime to run\b[^\n]*\d", first.source)
    place = CHAPTERS.index(path)
    neighbours = [chapter.name for chapter in CHAPTERS[max(place - 1, 0) : place + 2] if chapter != path]
    linked = {target for _, _, target in LINK.findall(first.source)}
    assert set(neighbours) <= linked


@each([path for path in CHAPTERS if path.name >= "01"])
def test_has_the_headings_of_the_template_in_order(path):
    headings = re.findall(r"^## (.+?)\s*$", prose(path), re.MULTILINE)
    assert [heading for heading in headings if heading in HEADINGS] == HEADINGS


@each(LECTURES)
def test_set_up_is_short(path):
    assert len(course.code_cells(read(path))[0].source.splitlines()) <= 10


@each(CHAPTERS)
def test_numbers_that_the_prose_quotes_are_compared(path):
    marked = [cell for cell in course.code_cells(read(path)) if cell.source.startswith("# NBVAL_CHECK_OUTPUT")]
    assert marked, "nbval compares no output of this chapter"
    for cell in marked:
        assert course.printed(cell).strip(), "a compared cell prints nothing"


# Sliders


def settings(slider: ipywidgets.Widget) -> list:
    """Minimum, middle and maximum of a slider."""
    if isinstance(slider, ipywidgets.SelectionSlider):
        options = [value for _, value in slider._options_full]
        return [options[0], options[len(options) // 2], options[-1]]
    low, high = slider.min, slider.max
    middle = low + (high - low) // 2 if isinstance(slider, ipywidgets.IntSlider) else (low + high) / 2
    if isinstance(slider, ipywidgets.FloatLogSlider):
        return [slider.base**exponent for exponent in (low, middle, high)]
    return [low, middle, high]


def state(one: ipywidgets.Widget) -> dict[str, bytes | str]:
    """What the browser would draw."""
    return {key: bytes(v) if isinstance(v, memoryview) else repr(v) for key, v in one.get_state().items()}


SLIDERS = (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.FloatLogSlider, ipywidgets.SelectionSlider)


def sliders_without_effect(path: Path) -> tuple[int, list[str]]:
    """Move each slider of a notebook to minimum, middle and maximum: how many there are, and which changed nothing.

    An exception in a callback propagates. A slider that is linked in the browser changes nothing here; the browser
    test moves it. Only the cells run that the sliders need.
    """
    ipywidgets.Widget.close_all()
    cells = course.code_cells(read(path))
    notebook.run(path, [cells[number].source for number in needed_by_sliders(cells)])
    widgets = list(widget._instances.values())
    linked = {id(one.source[0]) for one in widgets if isinstance(one, widget_link.Link)}
    sliders, idle = [one for one in widgets if isinstance(one, SLIDERS)], []
    for slider in sliders:
        others, shown, start = [one for one in widgets if one is not slider], [], slider.value
        for value in settings(slider):
            slider.value = value
            shown.append([state(one) for one in others])
        slider.value = start
        if id(slider) not in linked and (shown[0] == shown[1] or shown[1] == shown[2]):
            idle.append(slider.description or type(slider).__name__)
    return len(sliders), idle


@each([path for path in LECTURES if any(map(has_slider, course.code_cells(read(path))))])
def test_every_slider_redraws_at_minimum_middle_and_maximum(path):
    count, idle = sliders_without_effect(path)
    assert count
    assert idle == []


@each(NOTEBOOKS)
def test_a_cell_with_a_slider_carries_the_tag_slider(path):
    for cell in course.code_cells(read(path)):
        assert has_slider(cell) or not re.search(r"(?i)slider\(|\binteract\(", cell.source)


def test_a_slider_that_changes_nothing_is_found(tmp_path):
    source = "import ipywidgets as w\na, b, c = w.IntSlider(description='idle'), w.FloatSlider(max=1), w.Text()\n"
    source += "b.observe(lambda _: setattr(c, 'value', str(b.value)), 'value')"
    assert sliders_without_effect(toy_course(tmp_path, source, tags=["slider"])) == (2, ["idle"])


# No network


def probe(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "no_network")}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('192.0.2.1', 80), timeout=5)",
        "socket.create_connection(('example.org', 80), timeout=5)",
        "socket.socket().connect_ex(('192.0.2.1', 80))",
        "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))",
        "socket.getaddrinfo('example.org', 80)",
    ],
)
def test_the_block_stops_what_leaves_the_computer(code):
    done = probe(f"import socket; {code}")
    assert done.returncode == 1
    assert "NetworkBlocked: network blocked in this test" in done.stderr


def test_the_block_lets_the_loopback_through():
    done = probe(
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(('localhost', server.getsockname()[1]), timeout=5)\n"
        "client.sendall(b'ok'); print(server.accept()[0].recv(2).decode())"
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


# tools/course.py

TOY = """import warnings
from IPython.display import display
from ipywidgets import IntSlider
from tqdm.auto import tqdm
for _ in tqdm(range(2)): pass
print("ok   (9.1) toy   0.0e+00 <= 1e-12")
print("FAIL (9.2) shown on purpose")
IntSlider()"""


def toy_course(root: Path, *sources: str, tags: Sequence[str] = ()) -> Path:
    path = root / "notebooks" / "09_toy.ipynb"
    path.parent.mkdir()
    cells = [new_markdown_cell("# 09 Toy", id="title")]
    metadata = {"tags": list(tags)}
    cells += [new_code_cell(source, id=f"c{number}", metadata=metadata) for number, source in enumerate(sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_writing_twice_changes_nothing_and_keeps_no_widget(tmp_path, capsys):
    path = toy_course(tmp_path, TOY)
    unwritten = path.read_bytes()
    assert course.run([path], store=False) == 0
    assert path.read_bytes() == unwritten
    assert course.run([path], store=True) == 0
    first = path.read_bytes()
    assert course.run([path], store=True) == 0
    assert path.read_bytes() == first
    [out] = outputs(path)
    assert out.text.startswith("ok   (9.1) toy") and out.text.endswith("on purpose\n")
    assert [cell.id for cell in read(path).cells] == ["title", "c0"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["chapter", "seconds", "checks", "passed"]
    assert [(row[0], row[2]) for row in rows[1::2]] == [("09_toy", "1")] * 3


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("first = 1\nraise ValueError('one\\nlast line')", "09_toy: ValueError: last line"),
        ("import sys; print('careful', file=sys.stderr)", "09_toy: code cell 2 printed to stderr: careful"),
        ("object()", "09_toy: code cell 2 shows an object's address, 0x"),
    ],
)
def test_a_notebook_with_a_fault_is_reported_and_not_written(tmp_path, capsys, source, fault):
    path = toy_course(tmp_path, "1", source)
    before = path.read_bytes()
    assert course.run([path], store=True) == 1
    assert path.read_bytes() == before
    captured = capsys.readouterr()
    assert "FAILED" in captured.out
    assert fault in captured.err
