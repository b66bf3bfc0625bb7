"""Lectures: a deck of slides for every notebook, in build/slides, that opens in a browser with no internet connection.

    python tools/slides.py      # all of them
    python tools/slides.py 04   # chapter 04 only

A cell's slide type says where it goes: slide (to the right), subslide (down), fragment (appears on a key press), notes
(the speaker's window, key S), skip (left out). The code that draws a figure or wires a slider is left out, its picture
stays, and a chapter's slider moves (alive.py). What is too tall for a slide is split over several in the browser, by
deck/deck.js.
"""

import argparse
import functools
import html
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import alive
import course
from nbconvert.filters import Highlight2HTML, strip_ansi
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from ddpm_edu.widgets.panels import Panel

DECK = Path(__file__).resolve().parent / "deck"
OUT = course.ROOT / "build" / "slides"
ASSETS = ["deck.css", "deck.js", "panels.js", "vendor"]
ONLY_THE_PICTURE = {"figure", "slider"}  # tags of cells whose code is no part of a lecture
LINE = 106  # characters of code in the width of a slide
MARKER = re.compile(r"^# NBVAL_CHECK_OUTPUT\n")  # speaks to the tests
LINK = re.compile(r'<a href="(?![a-z]+:)([^"]*)"[^>]*>((?:(?!</a>).)*)</a>', re.DOTALL)
ALONE = re.compile(rf"(?: ·|(?<=\.)) {LINK.pattern}(?=</p>)")  # at the end, and no part of a sentence


def slide_type(cell: NotebookNode) -> str:
    """Slide type of a cell; one without goes where the cell before it went."""
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


def deck(path: Path, panels: Mapping[str, Panel] = {}) -> str:
    """The page of a notebook: slides that hold pages (the slide and its subslides), which hold cells.

    ``panels``, by the id of their cell, take the place of its picture.
    """
    notebook = course.read(path)
    slides: list[list[list[str]]] = []
    for cell in notebook.cells:
        kind = slide_type(cell)
        if kind == "skip":
            continue
        if kind == "slide" or not slides:
            slides.append([[]])
        elif kind == "subslide":
            slides[-1].append([])
        slides[-1][-1].append(_place(kind, _panel(cell.id) if cell.id in panels else _cell(cell)))
    body = "\n".join(
        "<section>\n" + "\n".join("<section>\n" + "\n".join(page) + "\n</section>" for page in pages) + "\n</section>"
        for pages in slides
    )
    title = html.escape(re.sub(r"[#$]", "", notebook.cells[0].source.splitlines()[0]).strip())
    page = (DECK / "deck.html").read_text(encoding="utf-8")
    scripts = "\n".join(_script(key, panel) for key, panel in panels.items())
    parts = {"TITLE": title, "PANELS": scripts, "SLIDES": body}
    return re.sub("|".join(parts), lambda match: parts[match[0]], page)


def _place(kind: str, content: str) -> str:
    if kind == "notes":
        return f'<aside class="notes">{content}</aside>'
    return f'<div class="{"cell fragment" if kind == "fragment" else "cell"}">{content}</div>'


def _cell(cell: NotebookNode) -> str:
    if cell.cell_type == "markdown":
        return _markdown(cell.source)
    parts = [_output(out) for out in cell.outputs]
    if not ONLY_THE_PICTURE.intersection(cell.metadata.get("tags", [])):
        parts.insert(0, Highlight2HTML(pygments_lexer="python3")(MARKER.sub("", cell.source)))
    return "\n".join(parts)


def _panel(key: str) -> str:
    return f'<div class="panel" data-cell="{key}" data-prevent-swipe></div>'


def _script(key: str, panel: Panel) -> str:
    """What deck/panels.js needs to fill the place of a panel. A page that lies in a folder can load no modules."""
    module = panel.children[-1]._esm.replace("export default", "return")
    return f'<script>PANELS["{key}"] = {{ view: (() => {{\n{module}}})(), packed: "{alive.pack(panel)}" }};</script>'


def _output(out: NotebookNode) -> str:
    if out.output_type == "stream":
        return _text(out.text)
    if "image/png" in out.data:
        alt = html.escape(out.metadata.get("image/png", {}).get("alt", ""))
        return f'<img src="data:image/png;base64,{"".join(out.data["image/png"].split())}" alt="{alt}">'
    if "text/markdown" in out.data:
        return _markdown(out.data["text/markdown"])
    return _text(out.data["text/plain"])


def _text(text: str) -> str:
    lines = html.escape(narrow(strip_ansi(text).rstrip())).splitlines()
    return f'<pre class="output">{"".join(f"<span>{line}</span>" for line in lines)}</pre>'


def narrow(text: str) -> str:
    """Printed tables; the gaps between the columns of one that is too wide for a slide are closed to two blanks."""
    return "\n\n".join(_narrow(table) for table in text.split("\n\n"))


def _narrow(text: str) -> str:
    lines = text.splitlines()
    width = max(map(len, lines), default=0)
    if width <= LINE:
        return text
    columns = "".join(" " if all(line[at : at + 1] in {"", " "} for line in lines) else "x" for at in range(width))
    for gap in reversed(list(re.finditer(" {4,}", columns))):
        lines = [line[: gap.start() + 2] + line[gap.end() :] for line in lines]
    return "\n".join(lines)


def _markdown(source: str) -> str:
    """HTML with the maths left to MathJax; links to other notebooks lead to their decks, other files are not there."""
    page = re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html_mistune(source))
    page = ALONE.sub(lambda match: match[0] if _deck(match[1]) else "", page)
    return LINK.sub(lambda match: f'<a href="{name}">{match[2]}</a>' if (name := _deck(match[1])) else match[2], page)


def _deck(target: str) -> str:
    """The deck of the notebook that a link leads to; "" for another file."""
    name = Path(target.partition("#")[0])
    return f"{name.stem}.html" if name in _notebooks() else ""


@functools.cache
def _notebooks() -> set[Path]:
    return {Path(path.name) for path in course.lectures()}


def build(paths: list[Path], out: Path = OUT) -> None:
    """Write the decks of some notebooks, a list of all decks, and what they share."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        copy = shutil.copytree if (DECK / name).is_dir() else shutil.copyfile
        copy(DECK / name, out / name, **({"dirs_exist_ok": True} if copy is shutil.copytree else {}))
    (out / "code.css").write_text(HtmlFormatter().get_style_defs(".highlight"), encoding="utf-8")
    for path in paths:
        (out / f"{path.stem}.html").write_text(deck(path, alive.panels(path)), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the slides of every chapter, or of one.")
    parser.add_argument("chapter", nargs="?", help="04, or the name of an unnumbered notebook")
    arguments = parser.parse_args()
    paths = course.lectures() if arguments.chapter is None else [course.chosen(arguments.chapter, course.lectures())]
    build(paths)
    print(f"{len(paths)} deck{'s' if len(paths) > 1 else ''} in {OUT.relative_to(Path.cwd())}:")
    for path in paths:
        print(f"  {path.stem}.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
