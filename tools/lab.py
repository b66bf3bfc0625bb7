"""Open the course in JupyterLab: as root too, and where there is no browser by printing the address."""

import os
import subprocess
import sys
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST = "notebooks/00_start_here.ipynb"


def graphical_browser() -> bool:
    """Whether a browser window can open; a text browser, which webbrowser also finds, would take over the terminal."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def command() -> list[str]:
    """The JupyterLab command line for this computer."""
    flags = [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url=/lab/tree/{FIRST}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--allow-root")
    if not graphical_browser():
        flags.append("--no-browser")
        print("No browser found here. Open one of the addresses that JupyterLab prints below.", flush=True)
    return [sys.executable, "-m", "jupyterlab", *flags]


if __name__ == "__main__":
    try:
        sys.exit(subprocess.run(command(), cwd=ROOT, check=False).returncode)
    except KeyboardInterrupt:
        sys.exit(0)  # Ctrl-C is the usual way to close the lab
