"""A Chromium without a window, and servers for it, for the tests that look at pages; and what to do without one."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import course
import pytest

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = course.ROOT / "tests" / "browser-output"
taken: list[Path] = []  # pictures of this run


def chromium() -> str:
    """Path of a Chromium; skips the test where there is none, fails in CI, which installs one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        missing(f"no browser: none of {', '.join(names)} is installed")
    return found


def missing(reason: str) -> None:
    """Skip with the reason; in CI nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    print(reason)
    pytest.skip(reason)


def take_picture(page, name: str) -> None:
    """Keep what the window shows, to be looked at."""
    keep(page.screenshot(), name)


def keep(png: bytes, name: str) -> None:
    """Keep a picture, to be looked at."""
    PICTURES.mkdir(exist_ok=True)
    taken.append(PICTURES / f"{name}.png")
    taken[-1].write_bytes(png)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(port: int, module: str, *flags: str, home: Path, **environment: str) -> Iterator[str]:
    """The address of ``python -m module``, once it listens; ended with the block. It keeps its files in home."""
    kept = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    env = {**os.environ, **{name: str(home / folder) for name, folder in kept.items()}, **environment}
    log = home / "log"
    with log.open("w") as sink:
        command = [sys.executable, "-m", module, *flags]
        server = subprocess.Popen(command, cwd=course.ROOT, env=env, stdout=sink, stderr=subprocess.STDOUT)
        try:
            _wait_for(port, server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, f"{server.args[2]} ended:\n{log.read_text()}"
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"{server.args[2]} did not answer within a minute:\n{log.read_text()}")
