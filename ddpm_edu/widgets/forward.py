"""Sliders of chapter 03: noise on a picture, and the parameters of a schedule."""

import math
from typing import Any

import ipywidgets
import torch
from torch import Tensor

from ddpm_edu import gaussian, plotting, schedules
from ddpm_edu.elbo import NOISE_BITS, validity
from ddpm_edu.schedules import Schedule
from ddpm_edu.widgets.panels import POINTS, WIDE, Frames, Panel, live, png, series, static_curves, verdict


def noised(s: Schedule, x0: Tensor, eps: Tensor, t: int) -> tuple[Tensor, str]:
    """x_t of q(x_t | x_0) for a picture x0 (C, H, W) and fixed noise eps, with a line that says what is left of it.

    t = 0..T, where t = 0 is the picture itself.
    """
    alpha_bar = float(schedules.at(s.alpha_bar, t, x0))
    xt = gaussian.q_sample(s, x0, t, eps) if t else x0
    if t == 0:
        return xt, "t = 0: the picture itself"
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    return xt, f"t = {t}: {signal:.3f} × picture + {noise:.3f} × noise, SNR {_db(s, t)}"


def noise_slider(s: Schedule, x0: Tensor, eps: Tensor, name: str = "noise", frames: int = 50) -> Panel:
    """A slider over t on a picture x0 (C, H, W) in [-1, 1]: frames + 1 states, evenly spaced from t = 0 to T.

    ValueError unless T is a multiple of ``frames``.
    """
    if s.T % frames:
        raise ValueError(f"frames: expected a divisor of T = {s.T}, got {frames}")
    values = list(range(0, s.T + 1, s.T // frames))
    states = [noised(s, x0, eps, t) for t in values]
    alt = f"A picture mixed with one fixed noise, by the factors of time t, from t = 0, clean, to t = {s.T}, noise."
    view = Frames(
        name=name,
        alt=alt,
        frames=[png(xt) for xt, _ in states],
        readouts=[text for _, text in states],
        values=values,
        value=0,
    )
    slider = ipywidgets.IntSlider(0, 0, s.T, step=s.T // frames, description="t", readout=False, layout=WIDE)
    slider.add_class(f"ddpm-slider-{name}")
    ipywidgets.jslink((slider, "value"), (view, "value"))
    shown = range(0, frames + 1, frames // 5)
    titles = [f"t = {values[k]}\n{_db(s, values[k]) if k else 'clean'}" for k in shown]
    strip = plotting.image_strip([torch.stack([states[k][0] for k in shown])], titles, size=1.6)
    return Panel([slider], view, plotting.png(strip), alt)


def schedule_curves(T: int, beta_T: float) -> dict[str, Any]:
    """The factors of picture and noise along a linear schedule from beta_1 = 1e-4 to beta_T, and whether x_T is noise.

    Data for `Curves`: sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) over t/T.
    """
    s = schedules.linear(T, 1e-4, beta_T)
    report = validity(s.beta[1:])
    t = torch.linspace(0, T, min(T + 1, POINTS)).round().long()
    alpha_bar, share = s.alpha_bar[t], (t / T).tolist()
    return {
        "series": [
            series("picture √ᾱₜ", "data", share, alpha_bar.sqrt().tolist()),
            series("noise √(1−ᾱₜ)", "noise", share, (1 - alpha_bar).sqrt().tolist(), dash="7 4"),
        ],
        "xlabel": "t / T",
        "ylabel": "factor in xₜ",
        "xlim": [0, 1],
        "ylim": [0, 1.02],
        "xticks": [0, 0.25, 0.5, 0.75, 1],
        "yticks": [0, 0.25, 0.5, 0.75, 1],
        "readout": f"T = {T}, β_T = {beta_T:.3f}: ᾱ_T = {report.alpha_bar_T:.2g}, "
        f"prior term {report.prior_bits:.2g} bits/dim",
        "verdict": verdict(
            report.x_T_is_noise,
            f"x_T is {'noise' if report.x_T_is_noise else 'not noise'} (limit {NOISE_BITS:g} bits/dim)",
        ),
    }


def schedule_slider(name: str = "schedule") -> Panel:
    """Two sliders, T and beta_T, over `schedule_curves`."""
    T = ipywidgets.IntSlider(1000, 10, 1000, step=10, description="T", layout=WIDE)
    beta_T = ipywidgets.FloatSlider(
        value=0.02, min=0.005, max=0.3, step=0.005, description="β_T", readout_format=".3f", layout=WIDE
    )
    alt = "The factors of picture and noise along a linear schedule, over t / T, and whether it ends in noise."
    static = static_curves(schedule_curves(1000, 0.02), schedule_curves(50, 0.02))
    return live(name, schedule_curves, {"T": T, "beta_T": beta_T}, static, alt)


def _db(s: Schedule, t: int) -> str:
    return f"{10 * math.log10(float(s.snr[t])):.1f} dB".replace("-", "−")
