"""The schedule laboratory: two schedules, A and B, side by side, and everything that follows from their betas.

`Choice` holds what the controls of one schedule say, `schedule` builds it, `views` is what its drawings show;
`generated.generated` is the density that it generates. The rest is the panel.
"""

import functools
import itertools
import json
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets

from ddpm_edu import data, elbo, plotting, schedules
from ddpm_edu.schedules import Schedule
from ddpm_edu.widgets import generated
from ddpm_edu.widgets.panels import DASHES, POINTS, Panel, choose, follow, script, verdict
from ddpm_edu.widgets.prefetch import Prefetch

Array = np.ndarray[Any, np.dtype[np.float64]]

LOOKS = {"A": ("data", "", "solid"), "B": ("x0_hat", "7 4", "dashed")}  # the same in each view
LENGTHS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)
KNOTS = 7  # of the schedule drawn by hand, evenly spaced from t = 1 to T
LOWEST, HIGHEST = -80.0, 60.0  # dB, where they may be put
PICTURES = 9  # in the strip, at evenly spaced t
SIDE = 48  # pixels of one
CONTROL = {"width": "350px"}
VARIANCES = tuple(generated.VARIANCES)
WELCOME = "Move a slider, or take a tour: each button sets the controls and says what to look at."
DRAW = "Move the seven knots in the drawing of the SNR: with the mouse, or with Tab and the arrow keys."
STEPS = (2, 5, 10, 20, 50, 100, 200, 500, "T")  # of the sampler
SECOND_MOMENT = 1 / 3  # E[x_0^2], as in elbo.validity
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
STILL = (0, 1, SNR_VIEW, 5, WEIGHT_VIEW, len(VIEWS))  # the drawings that the still picture has room for


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


class Laboratory(anywidget.AnyWidget):
    """The drawings of both schedules, which send back where a knot was put and when the controls have come to rest.

    The `views` of schedule A, were its family the one called FAMILY, are the trait ``a_FAMILY``; ``families`` says
    which of them is drawn. ``density`` is `densities`, ``settings`` says what the sampler does, ``axes`` describes the
    drawings. ``asked`` counts how often the browser has asked for the densities; ``knots_a``, ``knots_b`` are set by
    moving a knot. The message {"export": "A"} is answered by the JSON of schedule A.
    """

    _esm = script("laboratory.js")
    name = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    axes: Any = traitlets.List().tag(sync=True)
    looks = traitlets.Dict().tag(sync=True)
    side = traitlets.Int(SIDE).tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)
    noise = traitlets.Bytes().tag(sync=True)
    known = traitlets.List(list(FAMILIES)).tag(sync=True)
    families = traitlets.Dict().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)
    density = traitlets.Dict().tag(sync=True)
    asked = traitlets.Int(0).tag(sync=True)
    knots_a: Any = traitlets.List().tag(sync=True)
    knots_b: Any = traitlets.List().tag(sync=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.add_traits(
            **{_trait(name, family): traitlets.Dict().tag(sync=True) for name in LOOKS for family in FAMILIES}
        )

    def shown(self, name: str) -> dict[str, Any]:
        """The `views` that are drawn of schedule ``name``, as far as the kernel knows."""
        state: dict[str, Any] = getattr(self, _trait(name, self.families[name]))
        return state


def _trait(name: str, family: str) -> str:
    return f"{name.lower()}_{family}"


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


_lock = threading.RLock()


def _alone(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let one thread run at a time: JupyterLab has the kernel handle the messages of its page in two."""

    @functools.wraps(method)
    def locked(*arguments: Any) -> Any:
        with _lock:
            return method(*arguments)

    return locked


class _Controls:
    """The controls of one schedule. Each family has its own, made when it is first chosen, and its own states ahead."""

    def __init__(self, name: str, view: Laboratory) -> None:
        self._name, self._view, self._quiet = name, view, False
        self._sliders: dict[str, tuple[Any, ...]] = {}
        self._ahead: dict[str, Prefetch] = {}
        start = START[name]
        self.knots = start.knots
        self._hint = ipywidgets.HTML(DRAW, layout=CONTROL)
        self._from_json = _text_and_upload(name, start.text)
        self._from_json[0].observe(self._on_change, "value")
        families = [(NAMES.get(family, family), family) for family in FAMILIES]
        self.family = self._slider("schedule", families, start.family)
        self.family.add_class(f"ddpm-slider-{view.name}")
        colour, dash, line = LOOKS[name]
        sample = f'<span style="color: {plotting.COLOURS[colour]}">{"━ ━" if dash else "━━━"}</span>'
        self._heading = ipywidgets.HTML(f"{sample} <b>Schedule {name}</b>, {line}")
        self.box = ipywidgets.VBox(layout={"margin": "0 14px 0 0"})  # the values shown stand apart from the next labels
        self.redraw()

    @_alone
    def choice(self) -> Choice:
        """What the controls say."""
        T, *others = self._of(self.family.value)
        values = tuple(control.value for control in others)
        return Choice(self.family.value, T.value, values, self.knots, self._from_json[0].value)

    @_alone
    def set(self, chosen: Choice) -> None:
        """Move every control to ``chosen`` and draw it."""
        self._quiet = True
        self.family.value, self.knots, self._from_json[0].value = chosen.family, chosen.knots, chosen.text
        for control, value in zip(self._of(chosen.family), (chosen.T, *chosen.values), strict=True):
            control.value = value
        self._quiet = False
        self.redraw()

    @_alone
    def reset(self) -> None:
        """Every control to its start, those of the other families as well."""
        for family in self._sliders:
            self.set(replace(choice(family), knots=START[self._name].knots))
        self.set(START[self._name])

    @_alone
    def redraw(self) -> None:
        """Show the controls of the family and draw what they say."""
        family = self.family.value
        T, *others = self._of(family)
        T.disabled = family == "JSON"
        more = {"JSON": self._from_json, "drawn": (self._hint,)}.get(family, others)
        self.box.children = (self._heading, self.family, T, *more)
        setattr(self._view, _trait(self._name, family), views(self.choice()))
        self._view.families = {**self._view.families, self._name: family}

    def _of(self, family: str) -> tuple[Any, ...]:
        """The sliders of a family: T, then its parameters."""
        if family not in self._sliders:
            make, parameters = FAMILIES[family]
            T = self._slider("T", LENGTHS, START[self._name].T)
            T.add_class(f"ddpm-slider-{self._view.name}")
            named = {
                one.name: self._slider(one.label, [(_tell(value), value) for value in one.values], one.start)
                for one in parameters
            }
            self._sliders[family] = (T, *named.values())
            if make:
                state = functools.partial(_ahead, family)
                self._ahead[family] = Prefetch(self._view, _trait(self._name, family), state, {"T": T, **named})
        return self._sliders[family]

    def _slider(self, label: str, options: Sequence[Any], value: Any) -> Any:
        slider = ipywidgets.SelectionSlider(
            options=options, value=value, description=f"{self._name}: {label}", layout=CONTROL
        )
        slider.add_class(f"ddpm-control-{self._view.name}")
        slider.observe(self._on_change, "value")
        return slider

    @_alone
    def _on_change(self, change: Any) -> None:
        if self._quiet:
            return
        family = self.family.value
        if change["owner"] is self.family:
            T, *others = self._of(change["old"])
            if family == "drawn":  # drawing goes on from the curve that was there
                values = tuple(control.value for control in others)
                self.knots = (
                    knots_of(replace(self.choice(), family=change["old"], T=T.value, values=values)) or self.knots
                )
            self._quiet = True
            self._of(family)[0].value = T.value
            self._quiet = False
        elif family in self._ahead and self._ahead[family].listening:
            return  # the browser draws this
        self.redraw()


def _ahead(family: str, T: int, **values: float) -> dict[str, Any]:
    return views(choice(family, T, **values))


def _text_and_upload(name: str, text: str) -> tuple[Any, Any]:
    """A text field, and a button that loads a file into it."""
    field = ipywidgets.Textarea(value=text, description="JSON", layout=CONTROL, rows=3)
    upload = ipywidgets.FileUpload(accept=".json", description=f"schedule {name} from a JSON file")
    upload.layout = {"width": "auto", "margin": "2px 2px 2px 90px"}

    def load(change: Any) -> None:
        if change["new"]:
            field.value = bytes(change["new"][0]["content"]).decode("utf-8", "replace")
            upload.value = ()  # or the same file could not be loaded again

    upload.observe(load, "value")
    return field, upload


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


def _tell(value: float) -> str:
    return "1 − 10⁻⁹" if value == 1 - 1e-9 else f"{value:g}".replace("-", "−")


def schedule_laboratory(name: str = "laboratory") -> Panel:
    """Two schedules side by side with everything that follows from them, a guided tour above and the sampler below."""
    x0 = data.photo("flower", SIDE).permute(1, 2, 0).contiguous()
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    view = Laboratory(
        name=name,
        alt=_alt(range(len(VIEWS) + 1)),
        axes=axes(),
        looks={key: [plotting.COLOURS[colour], dash] for key, (colour, dash, _) in LOOKS.items()},
        picture=x0.numpy().tobytes(),
        noise=eps.numpy().tobytes(),
    )

    sides = {which: _Controls(which, view) for which in START}

    def generate(_: Any = None) -> None:
        chosen = {which: side.choice() for which, side in sides.items()}
        drawing = densities(chosen, steps.value, variance.value)
        view.density = {**drawing, "asked": view.asked}  # an answer even where nothing changed that can be seen

    def put_knots(which: str, change: Any) -> None:
        sides[which].knots = tuple(change["new"])
        sides[which].redraw()

    def export(_: Any, content: Any, __: Any) -> None:
        which = content.get("export")
        if which in sides and not views(sides[which].choice())["problem"]:
            view.send({"export": which, "text": schedules.to_json(schedule(sides[which].choice()))})

    def go(stop: Stop | None) -> None:
        for which, side in sides.items():
            side.set(getattr(stop, which)) if stop else side.reset()
        steps.value, variance.value = (stop.steps if stop else "T"), VARIANCES[0]
        story.value = f"<b>{stop.name}.</b> {stop.text}" if stop else WELCOME
        generate()

    steps = ipywidgets.SelectionSlider(options=STEPS, value="T", description="steps", layout=CONTROL)
    variance = ipywidgets.SelectionSlider(options=VARIANCES, description="variance", layout=CONTROL)
    for control in (steps, variance):
        control.add_class(f"ddpm-control-{name}")
    view.settings = settings(steps.value, variance.value)
    follow(view, "settings", settings, {"steps": steps, "variance": variance})
    buttons = []
    for place, stop in enumerate((*TOUR, None), 1):
        label = f"{place}. {stop.name}" if stop else "Reset"
        button = ipywidgets.Button(description=label, layout={"width": "auto"})
        button.on_click(lambda _, stop=stop: go(stop))
        buttons.append(button)
    story = ipywidgets.HTML(WELCOME, layout={"max_width": "1040px", "min_height": "4.5em"})
    for which in sides:
        view.observe(functools.partial(put_knots, which), f"knots_{which.lower()}")
    view.observe(generate, "asked")
    view.on_msg(export)
    tour = ipywidgets.HBox(buttons, layout={"flex_flow": "row wrap"})
    sampler = ipywidgets.VBox([ipywidgets.HTML("<b>Sampler, for both</b>"), steps, variance])
    controls = ipywidgets.HBox([*(side.box for side in sides.values()), sampler], layout={"flex_flow": "row wrap"})
    return Panel([tour, story, controls], view, _static(), _alt(STILL))


def _alt(drawings: Iterable[int]) -> str:
    says = [axes()[k]["says"] for k in drawings]
    return f"Two noise schedules and what follows from each: {'; '.join(says)}."


@functools.cache
def _static() -> bytes:
    """Six of the drawings, of the starting choices, by matplotlib."""
    figure, grid = plt.subplots(2, 3, figsize=(10, 4.7), layout="constrained")
    shown = {name: views(one) for name, one in START.items()}
    last = densities(START, "T", VARIANCES[0])
    for ax, k in zip(grid.flat, STILL, strict=True):
        axis = axes()[k]
        for name, one in shown.items():
            colour, dash, _ = LOOKS[name]
            x, y = (one["x"], one["y"][k]) if k < len(VIEWS) else (last["x"], last[name])
            ax.plot(x, y, color=plotting.COLOURS[colour], ls=DASHES[dash], label=name if k == 0 else None)
        if k == len(VIEWS):
            ax.fill_between(last["x"], last["data"], color=plotting.COLOURS["exact"], alpha=0.2, lw=0, label="data")
        if k == WEIGHT_VIEW:
            ax.axhline(0, color=plotting.COLOURS["noise"], ls=":", label="L_simple")
        ax.set(title=axis["title"], ylim=axis["ylim"])
        ax.set_yticks(axis["ticks"], axis["labels"])
        if k in (0, WEIGHT_VIEW, len(VIEWS)):
            ax.legend()
    for ax, label in zip(grid[-1], ("t / T", "t / T", "x₀"), strict=True):
        ax.set_xlabel(label)
    lines = [f"{name}: {one['readout']}, {one['verdict']['text']}" for name, one in shown.items()]
    figure.suptitle("\n".join([*lines, "; ".join(last["kl"].values())]), fontsize=11)
    return plotting.png(figure)
