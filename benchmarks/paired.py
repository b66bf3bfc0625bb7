"""What the benchmarks share: two or more things take turns in one process, and their times are compared in pairs."""

import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path


def take_turns(runs: Sequence[Callable[[], float]], rounds: int) -> list[tuple[float, ...]]:
    """The seconds that each run returns, one tuple a round; every other round goes backwards through them.

    So a change in the machine's load hits all of them. A first round, which allocates, is not counted.
    """
    for run in runs:
        run()
    times = []
    for number in range(rounds):
        forwards = number % 2 == 0
        seconds = [run() for run in (runs if forwards else runs[::-1])]
        times.append(tuple(seconds if forwards else seconds[::-1]))
    return times


def medians(times: list[tuple[float, ...]]) -> list[float]:
    """The median seconds of each."""
    return [statistics.median(column) for column in zip(*times, strict=True)]


def ratio(times: list[tuple[float, ...]], other: int) -> str:
    """Time of the first / time of ``other``: the median over the rounds, with quartiles."""
    low, median, high = statistics.quantiles([round_[0] / round_[other] for round_ in times], n=4)
    return f"median {median:.3f} (quartiles {low:.3f} {high:.3f}, {len(times)} rounds)"


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
