"""TROUBLESHOOTING.md: each entry names a cause and a remedy, its commands exist, its messages are those you see."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import course
import pytest

from ddpm_edu.commands.flags import parser

PAGE = (course.ROOT / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines()]
ENTRIES = re.split(r"^### ", re.split(r"^## Still stuck", PAGE, flags=re.MULTILINE)[0], flags=re.MULTILINE)[1:]
FOREIGN = {"nvidia-smi", "source", "ssh"}  # of the system
SYMPTOMS = [
    "kernel dies",
    "sliders do not show",
    "no gpu is seen",
    "torch._inductor",
    "download",
    "port",
    "python",
    "out of memory",
    "make:",
]
MESSAGES = {
    "Python 3.11 or newer is needed": "Makefile",
    "Not enough memory for this batch at once": "ddpm_edu/commands/train.py",
    "not enough memory": "ddpm_edu/__main__.py",
    "no browser: none of": "tests/headless.py",
    "Kernel died": Path(importlib.util.find_spec("nbclient").origin).with_name("client.py"),
    "Which torch?": "README.md",
    "DDPM_EDU_DATA": "ddpm_edu/data.py",
    "already in use": Path(importlib.util.find_spec("jupyter_server").origin).with_name("serverapp.py"),
    "JUPYTER_PORT": Path(importlib.util.find_spec("jupyter_server").origin).with_name("serverapp.py"),
}


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=course.ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_the_symptom_has_an_entry(symptom):
    assert [title for title in (entry.splitlines()[0].lower() for entry in ENTRIES) if symptom in title]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.splitlines()[0])
def test_an_entry_says_why_and_what_to_do(entry):
    if "**Cause.**" in entry:
        assert entry.index("**Cause.**") < entry.index("**What to do.**")
    else:  # one symptom with several causes
        *causes, _ = bullets = re.findall(r"^- \*\*.*?(?=^- |\Z)", entry, re.MULTILINE | re.DOTALL)
        assert len(bullets) > 2
        assert [cause for cause in causes if "*What to do:*" not in cause] == []


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_a_command_exists(command):
    words = shlex.split(re.sub(r"^[A-Z_]+=\S+ ", "", command))
    program, *arguments = words[0].removeprefix(".venv/bin/"), *words[1:]
    if program == "jupyter":
        *parents, last = [word for word in arguments if word.isalpha()] or arguments
        helps = [run("-m", "jupyter", *parents, *more, "--help") for more in ([], [last])]
        assert helps[0] != helps[1] or (last.startswith("--") and last in helps[0])
    elif program == "make":  # test_project.py knows the targets
        assert arguments[0] in re.search(r"^\.PHONY: (.*)", (course.ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    elif program not in ("python", "python3"):
        assert program in FOREIGN
    elif arguments[:2] == ["-m", "ddpm_edu"]:
        if "--help" in arguments:
            assert "usage" in run(*arguments).lower()
        else:
            parser().parse_args(arguments[2:])
    elif arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1])
    elif arguments[0] in ("-c", "--version"):
        assert run(*arguments)
    else:
        assert [path for path in arguments if not (course.ROOT / path).is_file()] == []


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_quoted_as_it_is_printed(message):
    assert message in PAGE
    assert message in (course.ROOT / MESSAGES[message]).read_text(encoding="utf-8")


def test_the_extensions_that_draw_sliders_are_named_right():
    extensions = Path(sys.prefix, "share", "jupyter", "labextensions")
    for name in ("anywidget", "@jupyter-widgets/jupyterlab-manager"):
        assert f"`{name}`" in PAGE
        assert os.path.isdir(extensions / name)


def test_links_lead_to_headings():
    found = re.findall(r"\]\(([\w.]*)#([\w-]+)\)", PAGE)
    assert found
    for page, anchor in found:
        text = (course.ROOT / (page or "TROUBLESHOOTING.md")).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
