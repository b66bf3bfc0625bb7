"""Processes as torchrun starts them, forked from this one: a fresh process takes seconds to import torch."""

import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # DistributedDataParallel imports it: once here, not in every child


def fork(work: Callable[[], int | None], folder: Path, name: object = "child", **environment: object) -> int:
    """Start a process that does ``work`` and ends with its status; what it says goes to folder/name.out and .err."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status: int | None = 70
    try:
        for descriptor, suffix in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{name}.{suffix}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
        os.environ.update({key: str(value) for key, value in environment.items()})
        torch.set_num_threads(1)
        faulthandler.dump_traceback_later(100, exit=True, file=sys.stderr)
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def start(size: int, work: Callable[[int], int | None], folder: Path) -> list[int]:
    """``size`` ranks, each of which does work(its rank); the process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        fork(
            lambda rank=rank: work(rank), folder, rank,
            RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size, MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(size)
    ]  # fmt: skip


def finish(children: list[int], timeout: float = 120) -> list[int]:
    """Their exit statuses, -9 for one that was killed; whoever is not done in time is killed."""
    statuses: dict[int, int] = {}
    end = time.monotonic() + timeout
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    statuses[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return [statuses[child] for child in children]
