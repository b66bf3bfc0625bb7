"""The schedule laboratory: two schedules, A and B, side by side, and everything that follows from their betas.

The schedules are those of `families`, what is drawn of them is in `comparison`; here are the panel and its controls.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import torch
import traitlets

from ddpm_edu import data, plotting, schedules
from ddpm_edu.widgets import generated
from ddpm_edu.widgets.comparison import SNR_VIEW, TOUR, VIEWS, WEIGHT_VIEW, Stop, axes, densities, settings, views
from ddpm_edu.widgets.families import FAMILIES, LENGTHS, NAMES, START, Choice, choice, knots_of, schedule
from ddpm_edu.widgets.panels import DASHES, Panel, follow, script
from ddpm_edu.widgets.prefetch import Prefetch

LOOKS = {"A": ("data", "", "solid"), "B": ("x0_hat", "7 4", "dashed")}  # the same in each view
SIDE = 48  # pixels of one
CONTROL = {"width": "350px"}
VARIANCES = tuple(generated.VARIANCES)
WELCOME = "Move a slider, or take a tour: each button sets the controls and says what to look at."
DRAW = "Move the seven knots in the drawing of the SNR: with the mouse, or with Tab and the arrow keys."
STEPS = (2, 5, 10, 20, 50, 100, 200, 500, "T")  # of the sampler
STILL = (0, 1, SNR_VIEW, 5, WEIGHT_VIEW, len(VIEWS))  # the drawings that the still picture has room for


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
