"""What the laboratory shows of two schedules: the drawings of each, the densities they generate, and a guided tour."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpm_edu import elbo
from ddpm_edu.widgets import generated
from ddpm_edu.widgets.families import HIGHEST, LOWEST, NAMES, Choice, as_python, choice, schedule
from ddpm_edu.widgets.panels import POINTS, verdict

Array = np.ndarray[Any, np.dtype[np.float64]]
PICTURES = 9  # in the strip, at evenly spaced t
SECOND_MOMENT = 1 / 3  # E[x_0^2], as in elbo.validity


def _log10(x: Array) -> Array:
    with np.errstate(divide="ignore"):
        logarithm: Array = np.maximum(np.log10(x), -400)
    return logarithm


@dataclass(frozen=True)
class View:
    """One of the drawings over t / T: what it shows of (beta, alpha_bar_{t-1}, alpha_bar_t), and its axis."""

    title: str
    says: str
    ylim: tuple[float, float]
    ticks: dict[float, str]
    y: Callable[[Array, Array, Array], Array]


def _weight(beta: Array, before: Array, now: Array) -> Array:
    """beta_t / (2 alpha_t (1 - alpha_bar_t)), the weight in the bound where sigma_t^2 = beta_t, over its mean."""
    weight = beta * before / (2 * now * (1 - now))
    return _log10(weight / weight.mean())


UNIT = {0.0: "0", 0.5: "0.5", 1.0: "1"}
POWERS = {-6.0: "10⁻⁶", -4.0: "10⁻⁴", -2.0: "10⁻²", 0.0: "1"}
VIEWS = (
    View("βₜ", "noise variance of step t, logarithmic", (-6, 0.2), POWERS, lambda b, p, n: _log10(b)),
    View("ᾱₜ", "how much of the variance of x₀ is left", (0, 1.03), UNIT, lambda b, p, n: n),
    View(
        "SNR in dB",
        "signal-to-noise ratio ᾱₜ/(1−ᾱₜ) in decibels",
        (LOWEST, HIGHEST),
        {-80.0: "−80", -40.0: "−40", 0.0: "0", 40.0: "40"},
        lambda b, p, n: 10 * _log10(n / (1 - n)),
    ),
    View(
        "weight of x₀ in μ̃ₜ",
        "coefficient of x₀ in the posterior mean, logarithmic",
        (-6, 0.2),
        POWERS,
        lambda b, p, n: _log10(np.sqrt(p) * b / (1 - n)),
    ),
    View(
        "weight of xₜ in μ̃ₜ",
        "coefficient of xₜ in the posterior mean",
        (0, 1.03),
        UNIT,
        lambda b, p, n: np.sqrt(1 - b) * (1 - p) / (1 - n),
    ),
    View("β̃ₜ / βₜ", "posterior variance over βₜ", (0, 1.03), UNIT, lambda b, p, n: (1 - p) / (1 - n)),
    View(
        "weight in the bound",
        "weight of the squared error of ε at t in the bound, over its mean, logarithmic; L_simple weighs each t alike",
        (-3, 3),
        {-2.0: "10⁻²", 0.0: "1", 2.0: "10²"},
        _weight,
    ),
    View(
        "share of signal",
        "share of E[xₜ²] that comes from x₀, for pixels with E[x₀²] = 1/3",
        (0, 1.03),
        UNIT,
        lambda b, p, n: n * SECOND_MOMENT / (n * SECOND_MOMENT + 1 - n),
    ),
)
SNR_VIEW, WEIGHT_VIEW = 2, 6  # the one whose knots are moved, and the one with a line for L_simple


def views(chosen: Choice) -> dict[str, Any]:
    """What the drawings show of one schedule; for a choice that gives none only ``problem``, one line.

    ``x`` are times t / T and ``y`` holds the curve of each of VIEWS there; ``strip`` lists (t, factor of the picture,
    factor of the noise) at evenly spaced t; ``readout`` and ``verdict`` as in `Curves`; ``python`` as `as_python`;
    ``knots`` is None unless the schedule is drawn by hand.
    """
    knots = list(chosen.knots) if chosen.family == "drawn" else None
    try:
        s = schedule(chosen)
    except ValueError as error:
        return {"problem": str(error), "verdict": verdict(False, str(error)), "knots": knots}
    beta, alpha_bar = s.beta.numpy()[1:], s.alpha_bar.numpy()
    curves = [view.y(beta, alpha_bar[:-1], alpha_bar[1:]) for view in VIEWS]
    t = np.unique(np.linspace(1, s.T, min(s.T, POINTS)).round().astype(int))
    times = sorted({round(s.T * k / (PICTURES - 1)) for k in range(PICTURES)})
    report = elbo.validity(s.beta[1:], SECOND_MOMENT)
    first, last = (f"{10 * math.log10(ratio):.1f}".replace("-", "−") for ratio in (report.snr_1, report.snr_T))
    return {
        "problem": "",
        "x": (t / s.T).round(4).tolist(),
        "y": [curve[t - 1].round(4).tolist() for curve in curves],
        "strip": [(k, round(math.sqrt(alpha_bar[k]), 5), round(math.sqrt(1 - alpha_bar[k]), 5)) for k in times],
        "readout": f"{NAMES.get(chosen.family, chosen.family)}, T = {s.T}: ᾱ_T = {report.alpha_bar_T:.2g}, "
        f"SNR from {first} to {last} dB, L_T = {report.prior_bits:.2g} bits/dim",
        "verdict": verdict(report.x_T_is_noise, f"x_T is {'' if report.x_T_is_noise else 'not '}noise"),
        "python": as_python(chosen),
        "knots": knots,
    }


def settings(steps: int | str, variance: str) -> dict[str, Any]:
    """What the sampler does, as text."""
    return {"text": f"Sampler: {'as many as T' if steps == 'T' else steps} steps, variance {variance}."}


def densities(chosen: dict[str, Choice], steps: int | str, variance: str) -> dict[str, Any]:
    """The generated densities of the choices, for the drawing beside the data: ``x``, ``data``, then one for each.

    A schedule with fewer than ``steps`` steps takes them all; "T" means all. ``kl`` has a line of text for each; ``of``
    says what the densities belong to, in the words of `views` and `settings`.
    """
    drawing: dict[str, Any] = {
        "x": generated.X.round(4).tolist(),
        "data": generated.data_density(generated.X).round(4).tolist(),
        "kl": {},
        "of": {"sampler": settings(steps, variance)["text"]},
    }
    for name, one in chosen.items():
        try:
            s = schedule(one)
        except ValueError as error:
            drawing["of"][name] = str(error)
            continue
        drawing["of"][name] = as_python(one)
        taken = s.T if steps == "T" else min(int(steps), s.T)
        result = generated.generated(s, taken, variance)
        drawing[name] = result.density.round(4).tolist()
        drawing["kl"][name] = f"{name}: KL {_short(result.kl)} nats in {taken} steps"
    return drawing


def _short(kl: float) -> str:
    return "above 10" if kl > 10 else f"{kl:.2g}" if kl >= 1e-4 else "below 0.0001"


@dataclass(frozen=True)
class Stop:
    """One stop of the guided tour: a name, two schedules, the sampler's steps, and what to look at."""

    name: str
    A: Choice
    B: Choice
    steps: int | str
    text: str


TOUR = (
    Stop(
        "T = 50",
        choice("linear"),
        choice("linear", 50),
        "T",
        "Both end at β = 0.02, but fifty such steps leave ᾱ_T = 0.60: look at the right end of B's strip, where "
        "the flower is still there, and at L_T, 0.38 bits for every pixel. The generated density is only a little "
        "off, for the ideal ε repairs most of a wrong start; the bound is not repaired.",
    ),
    Stop(
        "cosine, unclipped",
        choice("cosine"),
        choice("cosine", max_beta=1 - 1e-9),
        "T",
        "Lifting the clip of β from 0.999 to almost 1 changes one step of a thousand, and the generated density "
        "not at all. Look at the weight in the bound: in B the last step outweighs all the others by tens of "
        "millions, so that they drop out of the drawing, and already in A it has 97 % of the weight.",
    ),
    Stop(
        "constant",
        choice("linear"),
        choice("constant"),
        "T",
        "Both end in the same noise: look at ᾱ_T and at L_T, which are nearly equal. But B begins with a step a "
        "hundred times larger, at 20 dB instead of 40, and the KL of its generated density is a hundred times "
        "larger as well: the small steps are needed at the clean end.",
    ),
    Stop(
        "SNR to zero",
        choice("log_snr_linear"),
        choice("log_snr_linear", log_snr_T=-20.0),
        20,
        "A does not quite end in noise, so B runs on, down to −87 dB, and its verdict turns green. Look at the "
        "generated densities: with 20 steps of the sampler B is the worse one, for it spends nearly half of them "
        "beyond the point where A ends.",
    ),
    Stop(
        "same ends",
        choice("linear"),
        choice("log_snr_linear", log_snr_1=9.3, log_snr_T=-10.0),
        20,
        "Two roads between the same two noise levels, about 40 and −44 dB. With 20 steps the straight road of B "
        "comes several times closer to the data; then set the sampler to T steps, where both KLs are below 0.001 "
        "nats and the road hardly matters.",
    ),
    Stop(
        "T = 4000",
        choice("linear"),
        choice("linear", 4000),
        50,
        "Four times as many steps with the same β must be better? After a third of B's strip the picture is gone "
        "for good, so of the 50 steps that both samplers take B spends more than thirty on mere noise, and its KL "
        "is several times larger.",
    ),
)


def axes() -> list[dict[str, Any]]:
    """What the browser draws around the curves: title, description, limits and ticks of each drawing."""
    drawn = [
        {
            "title": view.title,
            "says": view.says,
            "ylim": view.ylim,
            "ticks": list(view.ticks),
            "labels": list(view.ticks.values()),
            "level": 0 if k == WEIGHT_VIEW else None,
            "knots": [LOWEST, HIGHEST] if k == SNR_VIEW else None,
        }
        for k, view in enumerate(VIEWS)
    ]
    says = "density that the sampler makes of noise with the ideal ε, beside the density of the data"
    last = {"title": "generated density", "says": says, "ylim": (0, 2), "ticks": [0, 1, 2], "labels": ["0", "1", "2"]}
    return [*drawn, last]
