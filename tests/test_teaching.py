"""TEACHING.md says what the chapters say: every section with its minutes, and plans that add up."""

import re

import course
import pytest

PAGE = (course.ROOT / "TEACHING.md").read_text(encoding="utf-8")
NOTE = re.compile(r"^## (?P<title>.+)\n+\*\((?:(?P<minutes>\d+) minutes)?(?P<home>(?:, )?at home)?", re.MULTILINE)
DURATION = 90  # minutes of a session
PICTURE = "A picture first"


def of_notebook(path):
    """(section, its minutes or "home") for the headings that name minutes."""
    prose = [cell.source for cell in course.read(path).cells if cell.cell_type == "markdown"]
    notes = [note for text in prose for note in NOTE.finditer(text) if note["minutes"] or note["home"]]
    return [(note["title"], "home" if note["home"] else note["minutes"]) for note in notes]


def key(path):
    """ "03" or "break_it": how a plan names a notebook."""
    return path.stem[:2] if path.stem[0].isdigit() else path.stem


NOTEBOOKS = {key(path): path for path in course.notebooks() if path.parent.name == "notebooks"}
TAUGHT = {chapter: sections for chapter, path in NOTEBOOKS.items() if (sections := of_notebook(path))}


def rows(text):
    """Cells of the table rows in a piece of the page, without header and rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def part(heading):
    """What stands under a heading of the page, up to the next of its level."""
    return re.search(rf"^## {heading}[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def of_page(chapter):
    """What the page says about a chapter; nothing if it does not have it."""
    pieces = re.split(r"^### ", part("The chapters"), flags=re.MULTILINE)
    return next((piece for piece in pieces if f"(notebooks/{NOTEBOOKS[chapter].name})" in piece), "")


def minutes(chapter):
    return [int(amount) for _, amount in TAUGHT[chapter] if amount != "home"]


def planned(entry):
    """Minutes of "00; 01: picture, 1 to 6": whole chapters, or sections by number or title."""
    total = 0
    for item in entry.split("; "):
        chapter, _, sections = item.partition(": ")
        assert chapter in TAUGHT, f"no chapter {chapter} with minutes in its headings"
        known = {re.sub(r"^(\d+)\. .*", r"\1", title): amount for title, amount in TAUGHT[chapter]}
        wanted = []
        for name in sections.split(", ") if sections else []:
            first, _, last = name.partition(" to ")
            wanted += map(str, range(int(first), int(last) + 1)) if last else [PICTURE if name == "picture" else name]
        total += sum(int(known[name]) for name in wanted) if sections else sum(minutes(chapter))
    return total


def test_no_chapter_is_missing():
    assert [chapter for chapter in TAUGHT if not of_page(chapter)] == [], "chapters that TEACHING.md does not have"
    linked = re.findall(r"\(notebooks/(\w+\.ipynb)\)", PAGE)
    assert [name for name in linked if not (course.ROOT / "notebooks" / name).exists()] == []


@pytest.mark.parametrize("chapter", TAUGHT)
def test_sections_and_minutes_are_those_of_the_chapter(chapter):
    *table, last = rows(of_page(chapter))
    assert [(title, amount) for title, amount, _ in table] == TAUGHT[chapter]
    assert last[:2] == ["in all", str(sum(minutes(chapter)))]


@pytest.mark.parametrize("chapter", TAUGHT)
def test_each_chapter_has_questions_cuts_and_exercises(chapter):
    assert sum(bool(question) for _, _, question in rows(of_page(chapter))) >= 2
    assert re.search(r"\*\*Skip\.\*\* \w.*\*\*Hand out\.\*\* \w", of_page(chapter))


@pytest.mark.parametrize("row", rows(part("A semester")), ids=lambda row: row[0])
def test_a_session_adds_up_and_ends_in_time(row):
    assert int(row[2]) == planned(row[1]) <= DURATION


@pytest.mark.parametrize("row", rows(part("One day")), ids=lambda row: row[0])
def test_a_part_of_the_day_adds_up(row):
    assert int(row[2]) == planned(row[1])


def test_the_day_leaves_time_between_its_parts():
    table = rows(part("One day"))
    starts = [60 * int(clock[:2]) + int(clock[3:]) for clock, *_ in table]
    for (clock, _, amount, _), start, end in zip(table, starts, starts[1:], strict=False):
        assert start + int(amount) <= end, f"what starts at {clock} ends too late"


def test_the_semester_teaches_every_chapter():
    taught = {item.partition(":")[0] for row in rows(part("A semester")) for item in row[1].split("; ")}
    assert set(TAUGHT) - taught == set()


def test_every_exercise_that_is_named_exists():
    named = set(re.findall(r"\b\d\d\.\d\b", PAGE))
    texts = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS.values())
    assert named
    assert [number for number in sorted(named) if f'exercise(\\"{number}' not in texts] == []
