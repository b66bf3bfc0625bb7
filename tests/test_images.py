"""images/: the README shows all of it, the small figures are those of the notebooks, and none is too large."""

import io
import re

import course
import film
import make_images
import numpy as np
import PIL.Image
import pytest

from ddpm_edu import widgets

README = (course.ROOT / "README.md").read_text(encoding="utf-8")
LECTURES = [path for path in course.notebooks() if path.parent.name == "notebooks"]
TABLE = [line for line in README.splitlines() if line.startswith("| <img")]
ROWS = {target: row for row in TABLE for target in re.findall(r"\]\((notebooks/\w+\.ipynb)\)", row)}


def pixels(picture):
    return np.asarray(PIL.Image.open(picture).convert("RGB"), dtype=float)


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_the_table_shows_a_figure_of_each_notebook_as_it_is_stored(path):
    row = ROWS[f"notebooks/{path.name}"]
    alt, wanted = make_images.figure(path)
    shown = re.search(r'<img src="(images/chapters/\w+\.png)" width="240" alt="([^"]+)">', row)
    assert alt.startswith(shown[2].rstrip(".")) and len(shown[2]) > 20  # a long one may be cut short here
    stored, made = pixels(course.ROOT / shown[1]), pixels(io.BytesIO(wanted))
    assert stored.shape == made.shape, "another figure than the notebook's: make images"
    assert abs(stored - made).mean() < 4, "another figure than the notebook's: make images"


def test_a_notebook_without_the_figure_is_named(monkeypatch):
    monkeypatch.setitem(make_images.FIGURES, LECTURES[0].stem, "A figure that nobody drew")
    with pytest.raises(ValueError, match=rf"{LECTURES[0].stem}: no figure whose alt text begins 'A figure that"):
        make_images.figure(LECTURES[0])


def test_the_small_figures_are_small():
    sizes = {path: path.stat().st_size for path in (make_images.IMAGES / "chapters").iterdir()}
    assert len(sizes) == len(LECTURES)
    assert sum(sizes.values()) < 1_000_000


def test_the_film_is_small_and_moves():
    path = make_images.IMAGES / "laboratory.webp"
    assert path.stat().st_size <= 3_000_000
    with PIL.Image.open(path) as pictures:
        assert pictures.n_frames > len(film.SCRIPT)
        assert pictures.size[0] == film.WIDTH


def test_the_readme_shows_every_picture():
    names = [path.relative_to(course.ROOT).as_posix() for path in make_images.IMAGES.rglob("*.*")]
    assert [name for name in names if f"({name})" not in README and f'"{name}"' not in README] == []


def test_the_picture_and_the_commands_come_first():
    opening = README.splitlines()[:30]
    picture = next(number for number, line in enumerate(opening) if "images/noise_and_back.png" in line)
    commands = opening.index("## Chapters")
    assert picture < next(number for number, line in enumerate(opening) if line.startswith("make lab")) < commands


def test_every_part_has_its_name_on_the_command_line(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(make_images, "PARTS", {name: lambda name=name: made.append(name) for name in "abc"})
    monkeypatch.setattr("sys.argv", ["make_images.py", "c", "a"])
    make_images.run()
    assert made == ["c", "a"]
    monkeypatch.setattr("sys.argv", ["make_images.py", "d"])
    with pytest.raises(SystemExit):
        make_images.run()
    assert "expected parts of a, b, c, got d" in capsys.readouterr().err


def test_the_script_of_the_film_moves_sliders_that_there_are():
    def descriptions(widget):
        children = [name for child in getattr(widget, "children", ()) for name in descriptions(child)]
        return [getattr(widget, "description", ""), *children]

    assert {slider for slider, _, _ in film.SCRIPT} <= set(descriptions(widgets.schedule_laboratory()))


def test_a_film_is_written_frame_by_frame(tmp_path):
    frames = [(PIL.Image.new("RGB", (40, 30), colour), ms) for colour, ms in [("red", 200), ("blue", 500)]]
    film.write(tmp_path / "film.webp", frames)
    with PIL.Image.open(tmp_path / "film.webp") as written:
        assert (written.n_frames, written.size, written.info["loop"]) == (2, (40, 30), 0)
        for k, (picture, milliseconds) in enumerate(frames):
            written.seek(k)
            written.load()
            assert written.info["duration"] == milliseconds
            assert np.abs(np.asarray(written.convert("RGB"), float) - np.asarray(picture, float)).max() < 16


def test_without_a_browser_there_is_no_film_and_the_stored_one_stays(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(film.shutil, "which", lambda name: None)
    monkeypatch.setattr(make_images, "IMAGES", tmp_path)
    make_images.laboratory()
    assert "the film of the laboratory stays as it is" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
