"""Slider of chapter 13: x_t, the x_0 and the noise that the network predicts from it, along recorded chains."""

import io

import anywidget
import ipywidgets
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor

from ddpm_edu import gaussian, plotting
from ddpm_edu.trajectory import Trajectory
from ddpm_edu.widgets.panels import WIDE, Panel, choose, script, selection

CLAMP = {"on": True, "off": False}
LABELS = ["xₜ, the input", "x̂₀, the prediction", "ε̂, the noise"]
STATIC_LABELS = ["$x_t$", r"$\hat x_0$", r"$\hat\epsilon$"]
GREYS = 64  # of each colour: the eye sees no more in a small picture, and noise in 256 makes larger files


class Sheets(anywidget.AnyWidget):
    """Precomputed pictures side by side; ``frame`` (from 0), ``sample`` (from 1) and ``setting`` choose what is shown.

    A sheet is a PNG of equal pictures: a row for each frame, and a column for each sample of setting 0, then of setting
    1; where ``columns`` says that there are only as many as samples, these hold for both. ``readouts`` go by column,
    then by frame.
    """

    _esm = script("predicted.js")
    name = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    sheets = traitlets.List(traitlets.Bytes()).tag(sync=True)
    columns = traitlets.List(traitlets.Int()).tag(sync=True)
    readouts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    samples = traitlets.Int().tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    sample = traitlets.Int(1).tag(sync=True)
    setting = traitlets.Int(0).tag(sync=True)


def predicted_state(tr: Trajectory, t_index: int, sample: int, clamp: str) -> tuple[Tensor, str]:
    """What is shown at ``tr.t[t_index]`` of chain ``sample`` = 1..8: (3, C, H, W) in [-1, 1], and a line that reads it.

    Shown are x_t, x0_hat and the eps_hat that belongs to the x0_hat in use, which ``clamp`` "on" cuts to [-1, 1],
    as while sampling; "off" shows x0_hat from its own minimum to its own maximum. x_t and eps_hat are cut for display.
    ValueError for a t_index, sample or clamp that is not there.
    """
    clamped = choose(CLAMP, "clamp", clamp)
    if not 0 <= t_index < len(tr.t):
        raise ValueError(f"t_index: expected 0..{len(tr.t) - 1}, got {t_index}")
    if not 1 <= sample <= len(tr.xt):
        raise ValueError(f"sample: expected 1..{len(tr.xt)}, got {sample}")
    t, xt, said = int(tr.t[t_index]), tr.xt[sample - 1, t_index], tr.x0_hat[sample - 1, t_index]
    x0_hat = said.clamp(-1, 1) if clamped else said
    eps_hat = gaussian.eps_from_x0(tr.schedule, xt, t, x0_hat)
    low, high = said.min().item(), said.max().item()
    shown = x0_hat if clamped else 2 * (said - low) / max(high - low, 1e-12) - 1
    alpha_bar = tr.schedule.alpha_bar[t].item()
    outside = (said.abs() > 1).double().mean().item()
    text = (
        f"t = {t}: ᾱₜ = {_short(alpha_bar)}, √(1−ᾱₜ)/√ᾱₜ = {_short(((1 - alpha_bar) / alpha_bar) ** 0.5)}. "
        f"{100 * outside:.1f} % of x̂₀ is outside [−1, 1], "
        + ("and cut off." if clamped else f"shown from {_short(low)} to {_short(high)}.")
    )
    return torch.stack([xt, shown, eps_hat]).clamp(-1, 1), text


def predicted_slider(tr: Trajectory, name: str = "predicted") -> Panel:
    """Three sliders, t, the chain and the clamp, over `predicted_state`; every picture is made once, here."""
    n = len(tr.xt)
    states = [
        [predicted_state(tr, k, sample, clamp) for k in range(len(tr.t))]
        for clamp in CLAMP
        for sample in range(1, n + 1)
    ]
    pictures = torch.stack([torch.stack([shown for shown, _ in column]) for column in states])  # (2 n, F, 3, C, H, W)
    alt = "A noisy picture, the picture that the network predicts from it, and the noise that it predicts."
    columns = [n, 2 * n, 2 * n]
    view = Sheets(
        name=name,
        alt=alt,
        labels=LABELS,
        sheets=[_sheet(pictures[:count, :, kind]) for kind, count in enumerate(columns)],
        columns=columns,
        readouts=[text for column in states for _, text in column],
        samples=n,
    )
    t = selection(tr.t.tolist(), "t")
    sample = ipywidgets.IntSlider(1, 1, n, description="sample", layout=WIDE)
    clamp = selection(CLAMP, "clamp")
    for control, chooses, trait in ((t, "index", "frame"), (sample, "value", "sample"), (clamp, "index", "setting")):
        control.add_class(f"ddpm-slider-{name}")
        ipywidgets.jslink((control, chooses), (view, trait))
    return Panel([t, sample, clamp], view, _static(tr, pictures[0]), alt)


def _static(tr: Trajectory, chain: Tensor) -> bytes:
    """Eight moments of the first chain, (F, 3, C, H, W), in three rows."""
    shown = torch.linspace(0, len(chain) - 1, 8).round().long()
    titles = [f"t = {t}" for t in tr.t[shown].tolist()]
    return plotting.png(plotting.image_strip(list(chain[shown].transpose(0, 1)), titles, STATIC_LABELS))


def _sheet(pictures: Tensor) -> bytes:
    """(columns, rows, C, H, W) in [-1, 1] as one PNG, every colour rounded to one of GREYS values."""
    columns, rows, channels, height, width = pictures.shape
    steps = ((pictures + 1) / 2 * (GREYS - 1)).round() * (255 / (GREYS - 1))
    sheet = steps.permute(1, 3, 0, 4, 2).reshape(rows * height, columns * width, channels).squeeze(2)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(sheet.numpy()).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def _short(value: float) -> str:
    """Three digits, without an exponent where that is short."""
    text = f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")
