"""What a slider is put together from: views, the panel around them, and their still pictures.

A panel is a column of controls above a view. Curves are drawn by the browser from the data that a state function
returned; pictures are computed once, and the slider only chooses among them. Where no kernel runs (a repository viewer,
a page made from the notebook) a panel shows its static picture.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import traitlets
from PIL import Image
from torch import Tensor

from ddpm_edu import plotting
from ddpm_edu.gaussian import normal_log_prob
from ddpm_edu.widgets.prefetch import Prefetch

HERE = Path(__file__).parent
WIDE = {"width": "420px"}
DASHES = {"": "-", "7 4": "--", "2 3": ":", "9 3 2 3": "-."}  # as SVG writes them, as matplotlib does
POINTS = 101  # points of a curve: enough for a smooth line, few enough to send on every key press


def script(name: str) -> str:
    """The JavaScript of a drawing, after what drawings share."""
    return "".join((HERE / part).read_text(encoding="utf-8") for part in ("panel.js", name))


class Curves(anywidget.AnyWidget):
    """A drawing as SVG from ``data``, with a line of text and, where there is one, a verdict below.

    ``data`` holds ``series``, a list of {label, colour, dash, x, y} with ``dash`` one of DASHES and an optional
    ``kind``: "line" (the default), "area" (a line, filled down to zero) or "bar" (the bars of several series at one x
    stand side by side); ``xlabel, ylabel, xlim, ylim, xticks, yticks``; optionally ``xlabels`` and ``ylabels``, the
    text at the ticks; ``readout``; optionally ``verdict``, {good, text, colour}.
    """

    _esm = script("curves.js")
    name = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)


class Frames(anywidget.AnyWidget):
    """Precomputed PNG pictures, one per entry of ``values``; ``value`` chooses the one that is shown."""

    _esm = script("frames.js")
    name = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    frames = traitlets.List(traitlets.Bytes()).tag(sync=True)
    readouts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    values = traitlets.List(traitlets.Int()).tag(sync=True)
    value = traitlets.Int().tag(sync=True)


class Panel(ipywidgets.VBox):
    """Controls above a view; ``static`` is the PNG shown where no kernel runs and ``alt`` describes it."""

    def __init__(self, controls: Sequence[Any], view: Any, static: bytes, alt: str) -> None:
        super().__init__([*controls, view])
        self.static, self.alt = static, alt

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/plain": self.alt, "image/png": self.static}, {"image/png": {"alt": self.alt}}


def live(
    name: str,
    state: Callable[..., dict[str, Any]],
    controls: dict[str, Any],
    static: bytes,
    alt: str,
    kind: Callable[..., Any] = Curves,
) -> Panel:
    """A panel whose drawing, a ``kind`` of view, is ``state`` of the controls' values, again whenever one moves.

    ``state`` must depend on nothing else: the browser keeps what it returned.
    """
    view = kind(name=name, alt=alt, data=state(**values(controls)))
    follow(view, "data", state, controls)
    return Panel(list(controls.values()), view, static, alt)


def values(controls: dict[str, Any]) -> dict[str, Any]:
    """The value of each control."""
    return {key: control.value for key, control in controls.items()}


def follow(view: Any, trait: str, state: Callable[..., Any], controls: dict[str, Any]) -> None:
    """From now on, ``trait`` of the view follows ``state`` of the controls' values: in the browser, else from here."""
    ahead = Prefetch(view, trait, state, controls)

    def redraw(_: Any) -> None:
        if not ahead.listening:
            setattr(view, trait, state(**values(controls)))

    for control in controls.values():
        control.add_class(f"ddpm-slider-{view.name}")
        control.observe(redraw, "value")


def frames(name: str, alt: str, states: Sequence[tuple[Tensor, str]]) -> Frames:
    """A view of pictures (C, H, W) in [-1, 1], each with its line of text; ``value`` counts them from 0."""
    return Frames(
        name=name,
        alt=alt,
        frames=[png(picture) for picture, _ in states],
        readouts=[text for _, text in states],
        values=list(range(len(states))),
    )


def series(
    label: str, colour: str, x: list[float], y: list[float], dash: str = "", kind: str = "line"
) -> dict[str, Any]:
    """One of the ``series`` of `Curves`; ``colour`` is a name of the palette."""
    return {"label": label, "colour": plotting.COLOURS[colour], "dash": dash, "x": x, "y": y, "kind": kind}


def density(
    label: str, colour: str, x: Tensor, mean: Tensor, var: Tensor, dash: str = "", kind: str = "line"
) -> dict[str, Any]:
    """`series` of the normal density N(mean, var) at the points ``x``."""
    return series(label, colour, x.tolist(), normal_log_prob(x, mean, var).exp().tolist(), dash, kind)


def verdict(good: bool, text: str) -> dict[str, Any]:
    """The ``verdict`` of `Curves`: green where good, vermillion where not."""
    return {"good": good, "text": text, "colour": plotting.COLOURS["posterior" if good else "x0_hat"]}


def choose(table: dict[str, Any], name: str, key: str) -> Any:
    """table[key]. ValueError that names the argument and the keys there are."""
    if key not in table:
        raise ValueError(f"{name}: expected one of {', '.join(table)}, got {key!r}")
    return table[key]


def selection(options: Iterable[Any], description: str, **chosen: Any) -> ipywidgets.SelectionSlider:
    """A slider over a few choices."""
    return ipywidgets.SelectionSlider(options=list(options), description=description, layout=WIDE, **chosen)


def static_curves(*states: dict[str, Any]) -> bytes:
    """The same drawing by matplotlib, one panel for each state, with the text that stands below it in the browser."""
    _, axes = plt.subplots(1, len(states), figsize=(5 * len(states), 3.4), squeeze=False, layout="constrained")
    for ax, data in zip(axes[0], states, strict=True):
        bars = [line for line in data["series"] if line.get("kind") == "bar"]
        for line in data["series"]:
            x, y, kind = np.asarray(line["x"]), np.asarray(line["y"]), line.get("kind", "line")
            if kind == "bar":
                width = 0.8 / len(bars)
                x = x + (bars.index(line) - (len(bars) - 1) / 2) * width
                ax.bar(x, y, width, color=line["colour"], label=line["label"])
                continue
            ax.plot(x, y, color=line["colour"], ls=DASHES[line["dash"]], label=line["label"])
            if kind == "area":
                ax.fill_between(x, y, color=line["colour"], alpha=0.25, lw=0)
        ax.set(xlabel=data["xlabel"], ylabel=data["ylabel"], xlim=data["xlim"], ylim=data["ylim"])
        if "xlabels" in data:
            ax.set_xticks(data["xticks"], data["xlabels"])
        if "ylabels" in data:
            ax.set_yticks(data["yticks"], data["ylabels"])
        verdict = f"\n{data['verdict']['text']}" if "verdict" in data else ""
        ax.set_title(data["readout"] + verdict)
        ax.legend()
    return plotting.png(axes)


def png(image: Tensor) -> bytes:
    """A picture (C, H, W) in [-1, 1], clipped, as PNG bytes."""
    buffer = io.BytesIO()
    pixels = np.rint(plotting.to_display(image[None])[0] * 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
