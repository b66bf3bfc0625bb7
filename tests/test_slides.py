"""The lecture: a deck for each notebook, complete, readable on a projector, and nothing in it asks for the internet."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import course
import headless
import lab
import nbformat
import pytest
import sliders
import slides
from cells import has_slider
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from readouts import READOUTS

import ddpm_edu
from ddpm_edu import plotting

LECTURES = course.lectures()
SMALLEST = 14 * 96 / 72  # 14 pt in pixels of a slide
FIGURE_TEXT = 11  # pt, at the resolution below: plotting.STYLE
IN_A_FIGURE = FIGURE_TEXT * plotting.STYLE["figure.dpi"] / 72  # its height in the pixels of the picture
VENDOR = slides.DECK / "vendor"
LABORATORY = "explore_schedules"  # its views ask the kernel for more than a page can hold


def cell(make, source, slide, tags=(), **fields):
    return make(source, metadata={"slideshow": {"slide_type": slide}, "tags": list(tags)}, **fields)


def deck_of(tmp_path, *cells):
    path = tmp_path / "small.ipynb"
    nbformat.write(new_notebook(cells=[cell(new_markdown_cell, "# 1 Title", "slide"), *cells]), path)
    return slides.deck(path)


def expected(path):
    """Slides, and pages (slides and subslides), by the tags of the notebook."""
    kinds = [slides.slide_type(cell) for cell in course.read(path).cells]
    return kinds.count("slide"), kinds.count("slide") + kinds.count("subslide")


# What goes into a deck


def test_slide_types_say_where_a_cell_goes(tmp_path):
    page = deck_of(
        tmp_path,
        cell(new_markdown_cell, "more", "-"),
        cell(new_markdown_cell, "below", "subslide"),
        cell(new_markdown_cell, "appears", "fragment"),
        cell(new_markdown_cell, "whispered", "notes"),
        cell(new_markdown_cell, "left out", "skip"),
        cell(new_markdown_cell, "to the right", "slide"),
    )
    body = re.sub(r"\s+", "", page[page.index("<section>") : page.rindex("</section>") + len("</section>")])
    assert body == re.sub(
        r"\s+",
        "",
        """<section>
             <section><div class="cell"><h1 id="1-Title">1 Title</h1></div><div class="cell"><p>more</p></div></section>
             <section><div class="cell"><p>below</p></div>
                      <div class="cell fragment"><p>appears</p></div>
                      <aside class="notes"><p>whispered</p></aside></section>
           </section>
           <section><section><div class="cell"><p>to the right</p></div></section></section>""",
    )
    assert "<title>1 Title</title>" in page


def test_a_figure_shows_its_picture_with_alt_text_and_not_its_code(tmp_path):
    png = new_output("display_data", data={"image/png": "AAAA\n"}, metadata={"image/png": {"alt": 'a "b" < c'}})
    for tag in ("figure", "slider"):
        page = deck_of(tmp_path, cell(new_code_cell, "draw()", "fragment", [tag], outputs=[png]))
        assert '<img src="data:image/png;base64,AAAA" alt="a &quot;b&quot; &lt; c">' in page
        assert "draw" not in page
    assert "draw" in deck_of(tmp_path, cell(new_code_cell, "draw()", "fragment", outputs=[png]))


def test_code_keeps_its_output_and_loses_the_line_for_the_tests(tmp_path):
    out = new_output("stream", name="stdout", text="a < b\nok\n")
    page = deck_of(tmp_path, cell(new_code_cell, "# NBVAL_CHECK_OUTPUT\nprint(a)", "slide", outputs=[out]))
    assert '<pre class="output"><span>a &lt; b</span><span>ok</span></pre>' in page
    assert "NBVAL" not in page


def test_links_lead_to_decks_and_to_the_web_only(tmp_path):
    text = "[a](04_posterior.ipynb#The-map) [b](equations.md) [c](https://example.org/x) [d](no.ipynb)"
    page = deck_of(tmp_path, cell(new_markdown_cell, text, "slide"))
    assert '<p><a href="04_posterior.html">a</a> b <a href="https://example.org/x">c</a> d</p>' in page


def test_a_link_to_a_file_that_is_no_deck_leaves_no_stray_word(tmp_path):
    deck, other = "[a](04_posterior.ipynb)", "[b](equations.md)"
    texts = [f"One. {other}", f"{deck} · {deck} · {other}", f"See {other}", f"Two. {deck}"]
    page = deck_of(tmp_path, cell(new_markdown_cell, "\n\n".join(texts), "slide"))
    link = '<a href="04_posterior.html">a</a>'
    assert re.findall("<p>(.*)</p>", page) == ["One.", f"{link} · {link}", "See b", f"Two. {link}"]


def test_a_wide_table_is_closed_up():
    wide = "ok   one" + " " * 40 + "0.1, " + "x" * 60 + "\n" + " " * 48 + "rejects"
    assert slides.narrow(wide) == "ok   one  0.1, " + "x" * 60 + "\n          rejects"
    assert slides.narrow("a" + " " * 40 + "b") == "a" + " " * 40 + "b"
    assert slides.narrow(f"x{' ' * 9}y\n\n{wide}") == f"x{' ' * 9}y\n\n{slides.narrow(wide)}"


def test_a_bad_chapter_gets_one_clear_line():
    done = subprocess.run(
        [sys.executable, "tools/slides.py", "99"], cwd=course.ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"CHAPTER: expected one of 00, 01, .*break_it.*, got '99'\n", done.stderr)


@pytest.mark.parametrize("chapter", ["", "0", "3", "03_forward", "solutions"])
def test_a_part_of_a_name_is_no_chapter(chapter):
    with pytest.raises(SystemExit, match="^CHAPTER: expected one of"):
        course.chosen(chapter, LECTURES)


def test_a_chapter_is_chosen_by_number_or_name():
    assert course.chosen("03", LECTURES).name == "03_forward_process.ipynb"
    assert course.chosen("03_forward_process", LECTURES).name == "03_forward_process.ipynb"
    assert course.chosen("break_it", LECTURES).name == "break_it.ipynb"


def test_what_is_vendored_has_its_licence_beside_it_and_is_small():
    for folder, licence in {"reveal.js": "Permission is hereby granted", "mathjax": "Apache License"}.items():
        assert licence in (VENDOR / folder / "LICENSE").read_text(encoding="utf-8")
    for used in ("core-js", "marked"):
        text = (VENDOR / "reveal.js" / f"LICENSE-{used}").read_text(encoding="utf-8")
        assert "Permission is hereby granted" in text
    assert sum(path.stat().st_size for path in VENDOR.rglob("*")) < 3_000_000


# Text in figures


def small_text(source):
    """What the calls in a piece of code set as the size of text, where that is below a figure's or not a number."""
    given = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        given += [word.value for word in call.keywords if word.arg and word.arg.endswith(("fontsize", "labelsize"))]
        given += call.args if ast.unparse(call.func).endswith(("set_fontsize", "set_size")) else []
    enough = [isinstance(size, ast.Constant) and size.value in range(FIGURE_TEXT, 100) for size in given]
    return [ast.unparse(size) for size, is_enough in zip(given, enough, strict=True) if not is_enough]


def test_small_text_is_found():
    assert small_text("ax.legend(fontsize=9); ax.title.set_fontsize(8)") == ["9", "8"]
    assert small_text("ax.tick_params('x', labelsize=10.5); ax.text(0, 0, 'a', fontsize='small')") == [
        "10.5",
        "'small'",
    ]
    assert small_text("ax.legend(title_fontsize=10, fontsize=11); ax.set_xlabel('t', fontsize=13)") == ["10"]


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_no_cell_makes_the_text_of_a_figure_smaller(path):
    assert [size for cell in course.code_cells(course.read(path)) for size in small_text(cell.source)] == []


def test_no_module_makes_the_text_of_a_figure_smaller():
    assert plotting.STYLE["font.size"] == plotting.STYLE["axes.titlesize"] == FIGURE_TEXT
    modules = Path(ddpm_edu.__file__).parent.rglob("*.py")
    assert [(path.name, size) for path in modules for size in small_text(path.read_text(encoding="utf-8"))] == []


# The decks in a browser

LAID_OUT = "() => window.Reveal && Reveal.isReady() && document.querySelector('.reveal.ready')"
FACTS = """() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const own = all('section.page:not(.continued)');
  const style = document.createElement('style'); // all slides at once, each as large as when it is shown
  style.textContent = '.reveal .slides section { display: block !important; }';
  document.head.append(style);
  const texts = [], walker = document.createTreeWalker(document.querySelector('.reveal'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && !parent.closest('mjx-container, aside, .aria-status')) {
      const turned = parent.ownerSVGElement && parent.getScreenCTM();
      const scale = turned ? Math.hypot(turned.b, turned.d) : parent.currentCSSZoom;
      const size = scale * parseFloat(getComputedStyle(parent).fontSize);
      texts.push([walker.currentNode.data, size, !parent.closest('pre, code')]);
    }
  }
  const over = all('section.page').map((page, number) => {
    const tall = page.scrollHeight - page.clientHeight, edge = page.getBoundingClientRect().right;
    const wide = Math.max(...all('.cell *', page).map((part) => part.getBoundingClientRect().right)) - edge;
    return [number + 1, tall, wide];
  }).filter(([, tall, wide]) => tall > 0 || wide > 0);
  const lonely = all('section.page:not(:has(img, .panel, table, .highlight, pre, h1, h2, h3))').map((page) => {
    const cells = all('.cell', page).map((cell) => cell.getBoundingClientRect());
    return [page.textContent.trim().slice(0, 40), cells.at(-1).bottom - cells[0].top];
  }).filter(([, height]) => height < THREE_LINES);
  const pictures = all('img').map((image) => [image.naturalWidth, image.alt, image.getBoundingClientRect().width]);
  style.remove();
  return {
    slides: all('.slides > section').length,
    pages: own.length,
    empty: all('section.page').filter((page) => !page.querySelector('.cell')).length,
    over,
    lonely,
    cut: all('section.page.continued').filter((page) => page.querySelector('.cell > :first-child').matches('.output'))
      .map((page) => page.textContent.trim().slice(0, 40)),
    small: texts.filter(([, size]) => size < SMALLEST).map(([text]) => text),
    dollars: texts.filter(([text, , prose]) => prose && text.includes('$')).map(([text]) => text),
    formulas: all('mjx-container').length,
    unspoken: all('mjx-container').filter((formula) => !formula.querySelector('mjx-assistive-mml math')).length,
    wrong: all('[data-mjx-error], mjx-merror').length,
    pictures,
    notes: all('aside.notes').length,
    drawings: all('.drawing-of-panel [role=img]').map((view) => view.ariaLabel),
    parts: ['p:not(.panel p)', 'li', 'div.highlight', 'pre.output span'].map((part) => all(`.slides ${part}`).length),
  };
}""".replace("SMALLEST", str(SMALLEST)).replace("THREE_LINES", str(3 * 1.35 * 24))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All decks, built once."""
    out = tmp_path_factory.mktemp("slides")
    slides.build(LECTURES, out)
    return out


@pytest.fixture
def page(browser, folder):
    """A page without an internet connection, on a projector of 1280 x 720, which keeps what it asked for in vain."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, offline=True)
    page = context.new_page()
    page.errors, page.outside = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.errors.append(message.text))
    home = folder.as_uri()
    page.on(
        "request", lambda request: request.url.startswith((home, "data:", "blob:")) or page.outside.append(request.url)
    )
    yield page
    context.close()


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_a_deck_opens_complete_with_no_connection(page, folder, path):
    page.goto((folder / f"{path.stem}.html").as_uri())
    page.wait_for_function(LAID_OUT, timeout=120_000)
    facts = page.evaluate(FACTS)
    notebook = course.read(path)
    assert (facts["slides"], facts["pages"]) == expected(path)
    assert facts["empty"] == 0
    assert facts["over"] == [], "page, pixels too tall, pixels too wide"
    assert facts["lonely"] == [], "less than three lines on a page of their own"
    assert facts["cut"] == [], "output cut from its code"
    assert facts["small"] == [], "text below 14 pt"
    assert facts["dollars"] == [], "maths that was not typeset"
    assert facts["formulas"] > 0 or "$" not in json.dumps(notebook)
    assert (facts["wrong"], facts["unspoken"]) == (0, 0)
    assert [picture for picture in facts["pictures"] if not (picture[0] and picture[1].strip())] == []
    shown = [cell for cell in course.code_cells(notebook) if slides.slide_type(cell) not in {"skip", "notes"}]
    source = (folder / f"{path.stem}.html").read_text(encoding="utf-8")
    moving = {c.id for c in shown if f'data-cell="{c.id}"' in source}
    assert moving == {c.id for c in shown if has_slider(c) and path.stem != LABORATORY}
    alts = {True: [], False: []}
    for c in shown:
        pictures = (out for out in c.outputs if "image/png" in out.get("data", {}))
        alts[c.id in moving] += [out.metadata["image/png"]["alt"] for out in pictures]
    assert [alt for _, alt, _ in facts["pictures"]] == alts[False]
    assert len(facts["drawings"]) == len(alts[True])
    assert [drawn for drawn, alt in zip(facts["drawings"], alts[True], strict=True) if not drawn.startswith(alt)] == []
    small = [alt for natural, alt, width in facts["pictures"] if IN_A_FIGURE * (width + 1) / natural < SMALLEST]
    assert small == [], "figures whose text is below 14 pt, by more than the rounding of a pixel"
    code = len(re.findall(r'<div class="\s*highlight', source))
    lines = sum(block.count("<span>") for block in re.findall(r'<pre class="output">.*?</pre>', source))
    assert facts["parts"] == [source.count("<p>"), source.count("<li>"), code, lines], "lost on the way to its slide"
    assert facts["notes"] == [slides.slide_type(cell) for cell in notebook.cells].count("notes")
    assert page.errors == []
    assert page.outside == []


def test_a_line_that_is_left_over_takes_the_part_before_it_along(page, folder, tmp_path):
    short, long = "x = 1\n" * 11, "x = 1\n" * 16
    cells = [cell(new_code_cell, short, "subslide"), cell(new_code_cell, long, "-"), cell(new_markdown_cell, "y", "-")]
    (folder / "small.html").write_text(deck_of(tmp_path, *cells), encoding="utf-8")
    page.goto((folder / "small.html").as_uri())
    page.wait_for_function(LAID_OUT, timeout=120_000)
    on = "() => [...document.querySelectorAll('section.page')].map((page) => page.querySelectorAll('.cell').length)"
    assert page.evaluate(on) == [1, 1, 2]


def test_no_line_ends_between_a_formula_and_its_bracket_or_comma(page, folder, tmp_path):
    texts = ["a " * words + "($x_t$, $\\varepsilon$); b" for words in range(20, 120)]
    (folder / "small.html").write_text(
        deck_of(tmp_path, *(cell(new_markdown_cell, text, "subslide") for text in texts)), encoding="utf-8"
    )
    page.goto((folder / "small.html").as_uri())
    page.wait_for_function(LAID_OUT, timeout=120_000)
    page.add_style_tag(content=".reveal .slides section { display: block !important; }")
    held = page.evaluate("() => [...document.querySelectorAll('.held')].map((span) => span.getClientRects().length)")
    assert held == [1] * 2 * len(texts)


def test_the_space_bar_leads_through_all_pages(page, folder):
    page.goto((folder / "00_start_here.html").as_uri())
    page.wait_for_function(LAID_OUT, timeout=120_000)
    steps = page.evaluate("() => document.querySelectorAll('section.page, .fragment').length")
    seen = set()
    for _ in range(steps):
        seen.add(page.evaluate("() => Reveal.getSlidePastCount()"))
        page.keyboard.press("Space")
    assert page.evaluate("() => Reveal.isLastSlide() && !Reveal.availableFragments().next")
    assert len(seen) == page.evaluate("() => document.querySelectorAll('section.page').length")


def test_a_printed_deck_shows_all_pages_within_their_margins(page, folder):
    page.emulate_media(media="print")
    page.goto((folder / "04_posterior.html").as_uri() + "?print-pdf")
    page.wait_for_function(LAID_OUT, timeout=120_000)
    page.wait_for_selector("html.reveal-print .pdf-page")
    pages = page.evaluate("""() => [...document.querySelectorAll('section.page')].map((page) => {
      const { visibility, paddingLeft, paddingTop } = getComputedStyle(page);
      return [visibility, paddingLeft, paddingTop, page.scrollHeight - page.clientHeight];
    })""")
    assert len(pages) > len(course.read(course.chosen("04", LECTURES)).cells) / 4
    assert {tuple(one) for one in pages} == {("visible", "20px", "16px", 0)}


# Sliders in the decks


class Panel:
    """A panel in a deck, with its sliders."""

    def __init__(self, page, place):
        self.page, self.place = page, place
        self.name = place.locator("[class^=ddpm-view-]").get_attribute("class").removeprefix("ddpm-view-")
        self.sliders, self.said = place.locator("input").all(), place.locator(f".ddpm-text-{self.name}")

    def show(self):
        go = "part => { const at = Reveal.getIndices(part.closest('.page')); Reveal.slide(at.h, at.v, 99); }"
        self.place.evaluate(go)
        self.sliders[0].wait_for(state="visible")

    def shown(self):
        return [slider.get_attribute("aria-valuetext") for slider in self.sliders]

    def values(self):
        return [sliders.number(text) for text in self.shown()]

    def picture(self):
        return self.place.locator("[role=img]").screenshot()

    def press(self, slider, key):
        slider.press(key)
        self.page.wait_for_timeout(50)

    def check(self):
        expected = READOUTS[self.name](*self.values())
        assert expected in " ".join(self.said.inner_text().split()), f"{self.name} at {self.values()}"


def panels_of(page, folder, path):
    page.goto((folder / f"{path.stem}.html").as_uri())
    page.wait_for_function(LAID_OUT, timeout=120_000)
    return [Panel(page, place) for place in page.locator(".panel").all()]


WITH_PANELS = [
    path for path in LECTURES if path.stem != LABORATORY and any(map(has_slider, course.code_cells(course.read(path))))
]


FREE = "() => document.activeElement === document.body"


@pytest.mark.parametrize("path", WITH_PANELS, ids=lambda path: path.stem)
def test_every_slider_of_a_deck_moves_its_text_and_its_picture(page, folder, path):
    panels = panels_of(page, folder, path)
    assert panels
    for panel in panels:
        panel.show()
        panel.check()
        for k, slider in enumerate(panel.sliders):
            label = slider.get_attribute("aria-label")
            assert panel.place.get_by_role("slider", name=label, exact=True).count() == 1
            panel.press(slider, "Home")
            panel.check()
            low, picture = panel.values(), panel.picture()
            panel.press(slider, "ArrowRight")
            panel.check()
            assert panel.values() != low, label
            panel.press(slider, "End")
            panel.check()
            assert panel.picture() != picture, label
            beside = panel.place.locator("label").nth(k).inner_text().split("\n")
            assert beside == [label, panel.shown()[k]]
        headless.take_picture(page, f"deck-{panel.name}")
    assert page.errors == []
    assert page.outside == []


def test_the_keys_go_back_to_the_slides_when_the_hand_lets_go_or_at_escape(page, folder):
    [panel] = panels_of(page, folder, course.chosen("04", LECTURES))
    panel.show()
    at = page.evaluate("() => Reveal.getSlidePastCount()")
    box = panel.sliders[0].bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    before = panel.values()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.keyboard.press("ArrowRight")  # the slider's, as long as the hand is on it
    page.mouse.up()
    assert page.evaluate(FREE), "the slider keeps the keys"
    assert panel.values() != before
    panel.check()
    for key in ("Enter", "Escape"):
        panel.press(panel.sliders[1], key)
        assert page.evaluate(FREE), f"the slider keeps the keys after {key}"
    assert page.evaluate("() => Reveal.getSlidePastCount()") == at
    assert not page.evaluate("() => Reveal.isOverview()")
    page.keyboard.press("Home")
    assert page.evaluate("() => Reveal.isFirstSlide()")


def test_the_tab_key_leads_to_no_slider_of_another_slide(page, folder):
    [panel] = panels_of(page, folder, course.chosen("05", LECTURES))
    panel.show()
    page.evaluate("() => Reveal.prev()")
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.localName") != "input"


# Presenting in JupyterLab


@pytest.mark.parametrize(("chapter", "notebook"), [("04", "04_posterior"), ("break_it", "break_it")])
def test_a_lecture_opens_the_lab_at_its_chapter(capsys, chapter, notebook):
    command = lab.lecture(chapter)
    assert f"--LabApp.default_url=/lab/tree/notebooks/{notebook}.ipynb" in command
    assert command[1:3] == ["-m", "jupyterlab"]
    assert "Alt+R" in capsys.readouterr().out


@pytest.mark.parametrize("chapter", ["", "4", "99"])
def test_a_lecture_on_no_chapter_gets_one_clear_line(chapter):
    with pytest.raises(SystemExit, match=r"^CHAPTER: expected one of 00, 01, .*, got '"):
        lab.lecture(chapter)


def test_the_makefile_hands_the_chapter_on():
    said = subprocess.run(
        ["make", "-n", "lecture", "CHAPTER=04"], cwd=course.ROOT, capture_output=True, text=True, timeout=60
    )
    assert 'tools/lab.py --lecture "04"' in said.stdout


@pytest.mark.parametrize("extra", ["lecture", "voila"])
def test_what_an_extra_installs_is_pinned(extra):
    project = tomllib.loads((course.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.match(r"[\w-]+", line)[0] for line in project["optional-dependencies"][extra]}
    pinned = (course.ROOT / "constraints.txt").read_text(encoding="utf-8").replace("_", "-")
    assert [name for name in names if f"\n{name}==" not in pinned] == []
