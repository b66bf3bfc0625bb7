"""Open the course in JupyterLab: as root too, and where there is no browser by printing the address.

python tools/lab.py                # at chapter 00
python tools/lab.py --lecture 04   # at chapter 04, ready to present with jupyterlab-rise
python tools/lab.py --demo         # the schedule laboratory as a page of its own, by Voila
"""

import argparse
import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import course

ROOT = Path(__file__).resolve().parents[1]
FIRST = "notebooks/00_start_here.ipynb"
LABORATORY = "notebooks/explore_schedules.ipynb"
# jupyterlab-rise 0.43 shows no widget of ipywidgets 8 (its issue 119)
HINT = """Run all cells first (menu Run). Alt+R then opens the slides; the button above them shows them in full screen.
The sliders move in the notebook, not in its slides. Slides that need no JupyterLab: make slides."""


def graphical_browser() -> bool:
    """Whether a browser window can open; a text browser, which webbrowser also finds, would take over the terminal."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def command(notebook: str = FIRST) -> list[str]:
    """The JupyterLab command line for this computer, which opens a notebook of the course."""
    flags = [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url=/lab/tree/{notebook}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--allow-root")
    if not graphical_browser():
        flags.append("--no-browser")
        print("No browser found here. Open one of the addresses that JupyterLab prints below.", flush=True)
    return [sys.executable, "-m", "jupyterlab", *flags]


def lecture(chapter: str) -> list[str]:
    """The command that opens a chapter ready to present; one line to stderr and the end if there is no such chapter."""
    path = course.chosen(chapter, course.lectures())
    print(HINT, flush=True)
    return command(path.relative_to(ROOT).as_posix())


def demo() -> list[str]:
    """The command that shows the schedule laboratory as a page without code."""
    flags = [] if graphical_browser() else ["--no-browser"]
    if flags:
        print("No browser found here. Open the address that Voila prints below.", flush=True)
    return [sys.executable, "-m", "voila", *flags, LABORATORY]


def main() -> int:
    parser = argparse.ArgumentParser(description="Open the course in JupyterLab.")
    parser.add_argument("--lecture", metavar="CHAPTER", help="a chapter to present: 04, or break_it")
    parser.add_argument("--demo", action="store_true", help="the schedule laboratory as a page of its own")
    arguments = parser.parse_args()
    line = demo() if arguments.demo else command() if arguments.lecture is None else lecture(arguments.lecture)
    try:
        return subprocess.run(line, cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:
        return 0  # Ctrl-C is the usual way to close the lab


if __name__ == "__main__":
    sys.exit(main())
