"""What holds the project together: its dependencies said once, its modules' arrows, its two commands."""

import ast
import re
import subprocess
import sys
import tomllib

import course
import lab
import pytest
import yaml

ROOT = course.ROOT
PACKAGE = ROOT / "ddpm_edu"
FILES = {path.stem: [path] for path in sorted(PACKAGE.glob("*.py"))}
FILES |= {path.parent.name: sorted(path.parent.glob("*.py")) for path in PACKAGE.glob("*/__init__.py")}
MODULES = {
    module: ast.parse("\n".join(path.read_text(encoding="utf-8") for path in paths)) for module, paths in FILES.items()
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch"}

MATHS = {"tables", "schedules", "gaussian", "exact", "elbo", "sampling", "guidance", "flow"}
# module -> our modules that it may import, besides what those may import
ARROWS = {
    "tables": set(),
    "schedules": {"tables"},
    "gaussian": {"schedules"},
    "exact": {"gaussian"},
    "elbo": {"gaussian"},
    "sampling": {"gaussian"},
    "guidance": {"sampling"},
    "flow": set(),
    "mlp": {"unet"},
    "unet": set(),
    "distributed": set(),
    "training": {"data", "distributed", "elbo", "flow", "unet"},
    "checkpoint": {"training"},
    "interchange": {"checkpoint"},
    "classifier": {"checkpoint", "data"},
    "metrics": {"training"},
    "data": set(),
    "evaluate": {"classifier", "data", "elbo", "sampling"},
    "plotting": set(),
    "trajectory": {"checkpoint", "data", "sampling"},
    "widgets": {"plotting", "trajectory", *MATHS},
    "exercises": MATHS,
    "checks": {"exercises"},
    "bugs": {"checks", "evaluate", "exact", "guidance", "mlp", "training"},
    "presets": {"training"},
    "commands": {"evaluate", "guidance", "interchange", "metrics", "plotting", "presets", "trajectory"},
}
EVERYTHING = {"__init__": set(), "__main__": set(ARROWS)}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements}


# Dependencies


def test_environment_yml_lists_what_pyproject_lists():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    expected = [f"python{PROJECT['requires-python']}"]
    for requirement in PROJECT["dependencies"]:
        name = re.match(r"[\w-]+", requirement)[0]
        expected.append(requirement.replace(name, CONDA_NAMES.get(name, name), 1))
    assert environment["dependencies"] == [*expected, "pip", {"pip": ["-e ."]}]
    assert environment["channels"] == ["conda-forge"]
    assert environment["name"] == PROJECT["name"]


def test_constraints_pin_each_direct_dependency_to_one_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert [line for line in lines if not re.fullmatch(r"[\w-]+==\d[\w.]*", line)] == []
    direct = names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["test"])
    assert direct - names(lines) == set()


def test_python_is_3_11_or_newer():
    assert PROJECT["requires-python"] == ">=3.11"


def test_an_installed_package_holds_every_folder_and_the_files_that_it_reads():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = ["ddpm_edu", *(f"ddpm_edu.{path.parent.name}" for path in sorted(PACKAGE.glob("*/__init__.py")))]
    assert setuptools["packages"] == folders
    data = setuptools["package-data"]
    packed = {file for name in data for pattern in data[name] for file in (ROOT / name.replace(".", "/")).glob(pattern)}
    there = {file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert packed == {file for file in there if file.suffix != ".py"}


# Modules


def imports_of(tree: ast.Module) -> set[str]:
    """Our modules that a module imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ddpm_edu.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "ddpm_edu":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddpm_edu."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"a relative import at line {node.lineno}: write from ddpm_edu import ...")
    return found & set(MODULES)


def reachable(module: str) -> set[str]:
    """All modules that the arrows lead to; a cycle in them is an error."""

    def walk(at: str, trail: tuple[str, ...]) -> set[str]:
        assert at not in trail, f"cycle: {' -> '.join([*trail, at])}"
        direct = (ARROWS | EVERYTHING)[at]
        return direct.union(*(walk(target, (*trail, at)) for target in direct))

    return walk(module, ())


def test_every_module_has_its_arrows():
    assert sorted(MODULES) == sorted(ARROWS | EVERYTHING)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module):
    assert imports_of(MODULES[module]) - reachable(module) - {module} == set()


def test_an_import_inside_a_function_is_seen():
    tree = ast.parse(
        "import os\ndef f():\n    from ddpm_edu.elbo import L_t\nfrom ddpm_edu import gaussian, __version__"
    )
    assert imports_of(tree) == {"elbo", "gaussian"}


@pytest.mark.parametrize("module", sorted(MATHS))
def test_a_maths_module_is_read_in_one_sitting(module):
    assert len((PACKAGE / f"{module}.py").read_text(encoding="utf-8").splitlines()) < 200


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods of a module without a docstring, and the module itself.

    A network's ``forward`` is described by its class.
    """
    found = [] if ast.get_docstring(tree) else ["the module"]

    def visit(body, prefix):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node) and node.name != "forward":
                    found.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")

    visit(tree.body, "")
    return found


# Of the command line --help is the documentation
@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__main__", "commands"}))
def test_what_is_public_has_a_docstring(module):
    assert undocumented(MODULES[module]) == []


def test_a_missing_docstring_is_seen():
    source = '"""m"""\ndef _a(): pass\ndef b(): pass\nclass C:\n    "c"\n    def d(self): pass'
    assert undocumented(ast.parse(source)) == ["b", "C.d"]


# Commands


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return {name for line in re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE) for name in line.split()}


def test_the_readme_opens_with_the_two_commands():
    opening = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:30])
    assert re.search(r"^make lab\b", opening, re.MULTILINE)
    assert re.search(r"^make test\b", opening, re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "TEACHING.md", "TROUBLESHOOTING.md"])
def test_make_targets_that_are_named_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert named, "no make command named"
    assert named <= targets()


def test_an_old_python_gets_one_clear_line(tmp_path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    old = tmp_path / "python3.9"
    pretend = "import sys; sys.version_info = (3, 9); sys.version = '3.9.2 (main)'; $2"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}"\n')
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text(makefile)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    done = subprocess.run(["make", "lab", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Python 3.11 or newer is needed, {old} is 3.9.2. Try: make lab PYTHON=")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_the_lab_runs_as_root_only_where_it_must(monkeypatch, user, allowed):
    monkeypatch.setattr(lab.os, "geteuid", lambda: user, raising=False)
    assert ("--allow-root" in lab.command()) == allowed


def browser_found():
    return None


def browser_missing():
    raise lab.webbrowser.Error("no runnable browser")


@pytest.mark.parametrize(
    ("platform", "display", "get", "opens"),
    [
        ("linux", ":0", browser_found, True),
        ("linux", "", browser_found, False),  # a text browser would take over the terminal
        ("linux", ":0", browser_missing, False),
        ("darwin", "", browser_found, True),
    ],
)
def test_without_a_browser_the_lab_says_to_open_its_address(monkeypatch, capsys, platform, display, get, opens):
    monkeypatch.setattr(lab.sys, "platform", platform)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(lab.webbrowser, "get", get)
    command = lab.command()
    assert f"--LabApp.default_url=/lab/tree/{lab.FIRST}" in command
    assert ("--no-browser" in command) != opens
    assert ("Open one of the addresses" in capsys.readouterr().out) != opens
