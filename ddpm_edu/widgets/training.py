"""Slider of chapter 07: what an average of weights remembers."""

from typing import Any

import ipywidgets
import torch

from ddpm_edu.widgets.panels import POINTS, WIDE, Panel, live, selection, series, static_curves, verdict

DECAYS = (0.9, 0.98, 0.995, 0.999, 0.9999)
FORGOTTEN = 0.01  # the largest share of the random start that does no harm


def ema_curves(decay: float, steps: int) -> dict[str, Any]:
    """Which part of an average of weights is as old as a step or older, with a constant decay and with the warm-up.

    Update n = 0, 1, ... multiplies what was there by ``decay``, or by min(decay, (1 + n) / (10 + n)) as
    `training.EMA` does; the part from steps 0..i is the product over the updates after i. Data for `Curves`, over the
    step as a share of ``steps``. ValueError unless 0 <= decay < 1 and steps >= 1.
    """
    if not 0 <= decay < 1 or steps < 1:
        raise ValueError(f"decay, steps: expected 0 <= decay < 1 and steps >= 1, got {decay} and {steps}")
    n = torch.arange(steps, dtype=torch.float64)
    warm = torch.clamp((1 + n) / (10 + n), max=decay)
    i = torch.linspace(0, steps, min(steps + 1, POINTS)).round().long()

    def part(d: torch.Tensor) -> torch.Tensor:
        """The product over the updates after each of the steps i."""
        return torch.cat([d.flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])[i]

    constant, warmed = part(torch.full_like(n, decay)), part(warm)
    start = float(constant[0])
    harmless = start < FORGOTTEN
    return {
        "series": [
            series("constant decay", "noise", (i / steps).tolist(), constant.tolist(), dash="7 4"),
            series("with warm-up", "model", (i / steps).tolist(), warmed.tolist()),
        ],
        "xlabel": "step / all steps",
        "ylabel": "part that is as old or older",
        "xlim": [0, 1],
        "ylim": [0, 1.02],
        "xticks": [0, 0.25, 0.5, 0.75, 1],
        "yticks": [0, 0.25, 0.5, 0.75, 1],
        "readout": f"decay {decay:g}, {steps} steps: start {start:.3f}, warm-up {float(warmed[0]):.3f}",
        "verdict": verdict(
            harmless, "the start is forgotten" if harmless else "without warm-up the start is still in it"
        ),
    }


def ema_slider(name: str = "ema") -> Panel:
    """Two sliders, the decay and the number of steps, over `ema_curves`."""
    decay = selection([(f"{d:g}", d) for d in DECAYS], "decay", value=0.995)
    steps = ipywidgets.IntSlider(1300, 100, 5000, step=100, description="steps", layout=WIDE)
    alt = "Which part of the averaged weights is as old as a step or older, with and without a warm-up."
    static = static_curves(ema_curves(0.995, 1300), ema_curves(0.9999, 1300))
    return live(name, ema_curves, {"decay": decay, "steps": steps}, static, alt)
