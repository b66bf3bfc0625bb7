"""The families of schedules in the laboratory: `Choice` holds what the controls of one say, `schedule` builds it."""

import functools
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ddpm_edu import schedules
from ddpm_edu.schedules import Schedule
from ddpm_edu.widgets.panels import choose

LENGTHS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)
KNOTS = 7  # of the schedule drawn by hand, evenly spaced from t = 1 to T
LOWEST, HIGHEST = -80.0, 60.0  # dB, where they may be put
EXAMPLE = schedules.to_json(schedules.linear(8, 0.05, 0.75))  # what JSON shows before it is given any


def _decades(low: float, high: float, *others: float) -> tuple[float, ...]:
    """Ten numbers a decade from low to high, and the others among them."""
    series = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    grid = {float(f"{m * 10.0**e:.2g}") for e in range(-7, 1) for m in series}
    return tuple(sorted({x for x in grid if low <= x <= high} | set(others)))


def _evenly(low: float, high: float, step: float) -> tuple[float, ...]:
    return tuple(round(float(low + k * step), 9) for k in range(round((high - low) / step) + 1))


@dataclass(frozen=True)
class Parameter:
    """One parameter of a family: its name in Python, its label, the values of its slider, and where that starts."""

    name: str
    label: str
    values: tuple[float, ...]
    start: float


CLIP = Parameter("max_beta", "max β", (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999, 1 - 1e-9), 0.999)
FAMILIES: dict[str, tuple[Callable[..., Schedule] | None, tuple[Parameter, ...]]] = {
    "linear": (
        schedules.linear,
        (
            Parameter("beta_1", "β₁", _decades(1e-5, 0.1), 1e-4),
            Parameter("beta_T", "β_T", _decades(1e-3, 0.9), 0.02),
        ),
    ),
    "scaled_linear": (
        schedules.scaled_linear,
        (
            Parameter("beta_1", "β₁", _decades(1e-5, 0.1, 0.00085), 0.00085),
            Parameter("beta_T", "β_T", _decades(1e-3, 0.9), 0.012),
        ),
    ),
    "cosine": (schedules.cosine, (Parameter("s", "s", _evenly(0, 0.1, 0.004), 0.008), CLIP)),
    "sigmoid": (
        schedules.sigmoid,
        (
            Parameter("start", "start", _evenly(-6, 0, 0.5), -3.0),
            Parameter("end", "end", _evenly(0.5, 6, 0.5), 3.0),
            CLIP,
        ),
    ),
    "log_snr_linear": (
        schedules.log_snr_linear,
        (
            Parameter("log_snr_1", "ln SNR₁", _evenly(2.3, 14.3, 1), 13.3),
            Parameter("log_snr_T", "ln SNR_T", _evenly(-20, 2, 1), -5.0),
        ),
    ),
    "constant": (schedules.constant, (Parameter("beta", "β", _decades(1e-4, 0.9), 0.01),)),
    "drawn": (None, ()),
    "JSON": (None, ()),
}
NAMES = {
    "scaled_linear": "scaled linear",
    "log_snr_linear": "log-SNR linear",
    "drawn": "drawn by hand",
    "JSON": "from JSON",
}


@dataclass(frozen=True)
class Choice:
    """What the controls of one schedule say: a family, T, the family's parameters; knots in dB for "drawn"."""

    family: str = "linear"
    T: int = 1000
    values: tuple[float, ...] = (1e-4, 0.02)
    knots: tuple[float, ...] = (40.0, 25.0, 12.0, 0.0, -12.0, -25.0, -40.0)
    text: str = EXAMPLE


def choice(family: str, T: int = 1000, **values: float) -> Choice:
    """The `Choice` of a family whose parameters are named, the others at their start."""
    _, parameters = choose(FAMILIES, "family", family)
    if unknown := set(values) - {parameter.name for parameter in parameters}:
        raise ValueError(f"{family}: has no parameter {', '.join(sorted(unknown))}")
    return Choice(family, T, tuple(values.get(parameter.name, parameter.start) for parameter in parameters))


START = {"A": choice("linear"), "B": choice("cosine")}


def drawn_schedule(T: int, db: Sequence[float]) -> Schedule:
    """The schedule whose SNR in dB runs straight from knot to knot; the knots are evenly spaced from t = 1 to T.

    ValueError unless T >= 2 and there are at least two knots, each below the one before.
    """
    if T < 2 or len(db) < 2:
        raise ValueError(f"T, db: expected T >= 2 and at least two knots, got T = {T} and {len(db)}")
    if not all(later < earlier for earlier, later in itertools.pairwise(db)):
        raise ValueError(f"db: expected numbers that fall, got {', '.join(f'{one:g}' for one in db)}")
    log_snr = np.interp(np.linspace(0, 1, T), np.linspace(0, 1, len(db)), db) * math.log(10) / 10
    beta = 1 / (1 + np.exp(log_snr))  # 1 - alpha_bar_t; the share of it that step t adds:
    beta[1:] *= -np.expm1(np.diff(log_snr))
    return Schedule.from_betas(beta.tolist())


@functools.lru_cache(64)
def schedule(chosen: Choice) -> Schedule:
    """The schedule of a `Choice`. ValueError, one line, where its values give none."""
    make, parameters = choose(FAMILIES, "family", chosen.family)
    if chosen.family == "drawn":
        return drawn_schedule(chosen.T, chosen.knots)
    if chosen.family == "JSON":
        s = schedules.from_json(chosen.text)
        most = LENGTHS[-1]
        if most < s.T:
            raise ValueError(f"schedule JSON: T: the laboratory shows at most {most} steps, got {s.T}")
        return s
    assert make is not None
    made: Schedule = make(chosen.T, **{one.name: value for one, value in zip(parameters, chosen.values, strict=True)})
    return made


def as_python(chosen: Choice) -> str:
    """One line of Python that rebuilds the schedule as ``s``."""
    if chosen.family == "drawn":
        return f"from ddpm_edu import widgets; s = widgets.drawn_schedule({chosen.T}, {list(chosen.knots)})"
    if chosen.family == "JSON":
        return f"from ddpm_edu import schedules; s = schedules.from_json({json.dumps(json.loads(chosen.text))!r})"
    _, parameters = FAMILIES[chosen.family]
    named = [f"{one.name}={value!r}" for one, value in zip(parameters, chosen.values, strict=True)]
    return f"from ddpm_edu import schedules; s = schedules.{chosen.family}({', '.join([f'T={chosen.T}', *named])})"


def knots_of(chosen: Choice) -> tuple[float, ...] | None:
    """Knots on the curve of ``chosen``, in whole dB and falling; None where that is no schedule."""
    try:
        snr = schedule(chosen).snr.numpy()[1:]
    except ValueError:
        return None
    db = np.interp(np.linspace(0, 1, KNOTS), np.linspace(0, 1, len(snr)), 10 * np.log10(snr)).round()
    room = np.arange(KNOTS)  # a knot stands at least 1 dB below the one before and above the one after
    db = np.minimum.accumulate(np.clip(db, LOWEST + room[::-1], HIGHEST - room) + room) - room
    return tuple(db.tolist())
