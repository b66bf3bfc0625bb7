"""Sliders of chapter 08: a sampler on three clusters, live, and the chain of one digit."""

import functools
from collections.abc import Sequence
from typing import Any

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from torch import Tensor

from ddpm_edu import plotting, sampling, schedules
from ddpm_edu.widgets.panels import WIDE, Panel, choose, frames, live, script, selection, verdict

Array = np.ndarray[Any, np.dtype[np.float64]]

LINEAR = schedules.linear()
STEPS = (1, 2, 5, 10, 20, 50, 100)
NOISES = {"matched": "the noise that belongs to η", "β": "the forward variance of the jump", "none": "no noise"}
N = 300  # points: enough to see three clusters, few enough for a live slider
WEIGHTS = np.array([0.2, 0.5, 0.3])  # the clusters of the chapter
MEANS = np.array([[-1.2, 0.8], [0.2, -0.9], [1.2, 0.7]])
COVS = np.array([[[0.05, 0.03], [0.03, 0.06]], [[0.12, -0.03], [-0.03, 0.04]], [[0.03, 0.0], [0.0, 0.09]]])
VARS, AXES = np.linalg.eigh(COVS)  # variances along the axes of each cluster, (3, 2); the axes, (3, 2, 2)


class Points(anywidget.AnyWidget):
    """A drawing as SVG from ``data``, with a line of text and a verdict below.

    ``data`` holds ``clouds``, a list of {label, colour, opacity, x, y}; ``xlim, ylim``; ``readout``; ``verdict``.
    """

    _esm = script("points.js")
    name = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)


def clusters_eps(xt: Array, alpha_bar: float) -> Array:
    """E[eps | x_t] for the clusters, (N, 2): each cluster is normal, with variances alpha_bar VARS + 1 - alpha_bar."""
    along, var, log_joint = _by_cluster(xt, alpha_bar)
    share = np.exp(log_joint - log_joint.max(0))
    share /= share.sum(0)
    pull = (along / var) @ AXES.transpose(0, 2, 1)
    eps: Array = np.sqrt(1 - alpha_bar) * (share[..., None] * pull).sum(0)
    return eps


def sampler_points(steps: int, eta: float, noise: str) -> dict[str, Any]:
    """N points made in ``steps`` steps of DDIM with the exact eps of the clusters; data for `Points`.

    The mean is that of ``eta``; ``noise`` is one of NOISES and need not fit it. The readout has the share of the points
    that is nearest to each cluster and their width in it, 1 for the data. Every call uses the same random numbers.
    ValueError for another noise, and as `sampling.even_grid` and `sampling.ddim` for steps and eta.
    """
    choose(NOISES, "noise", noise)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a number from 0 to 1, got {eta}")
    times = sampling.even_grid(LINEAR.T, steps)
    abar = LINEAR.alpha_bar.numpy()
    x, truth = _randn(0), _truth()
    for k, (t, r) in enumerate(zip(times, [*times[1:], 0], strict=True), start=1):
        beta = 1 - abar[t] / abar[r]
        var = eta**2 * (1 - abar[r]) / (1 - abar[t]) * beta
        eps_hat = clusters_eps(x, abar[t])
        x0_hat = (x - np.sqrt(1 - abar[t]) * eps_hat) / np.sqrt(abar[t])
        x = np.sqrt(abar[r]) * x0_hat + np.sqrt(1 - abar[r] - var) * eps_hat
        if r > 0:
            x = x + np.sqrt({"matched": var, "β": beta, "none": 0.0}[noise]) * _randn(k)
    along, var_0, log_joint = _by_cluster(x, 1.0)
    nearest = log_joint.argmax(0)
    shares = np.bincount(nearest, minlength=3) / N
    width = float(np.sqrt((along**2 / var_0)[nearest, np.arange(N)].mean()))
    good = bool(np.abs(shares - WEIGHTS).max() < 0.1 and abs(width - 1) < 0.2)
    text = " / ".join(f"{share:.2f}" for share in shares)
    return {
        "clouds": [_cloud("data", "data", 0.35, truth), _cloud("samples", "x0_hat", 0.9, x)],
        "xlim": [-2.4, 2.4],
        "ylim": [-2, 2],
        "readout": f"{steps} steps, η = {eta:.1f}, noise: {noise}. "
        f"Clusters {text} (data 0.20 / 0.50 / 0.30), width {width:.2f} (data 1).",
        "verdict": verdict(good, "like the data" if good else "not like the data"),
    }


def sampler_slider(name: str = "sampler") -> Panel:
    """Three sliders over `sampler_points`: the number of steps, eta, and the noise that is added."""
    controls = {
        "steps": selection(STEPS, "steps", value=50),
        "eta": ipywidgets.FloatSlider(
            value=1.0, min=0, max=1, step=0.1, description="η", readout_format=".1f", layout=WIDE
        ),
        "noise": selection(NOISES, "noise", value="matched"),
    }
    alt = "Points that a sampler made, over the three clusters of the data."
    shown = [(50, 1.0, "matched"), (50, 0.0, "none"), (50, 1.0, "none"), (5, 1.0, "matched")]
    static = _static([sampler_points(*one) for one in shown])
    return live(name, sampler_points, controls, static, alt, Points)


def chain_frame(step: sampling.Step, before: sampling.Step | None) -> tuple[Tensor, str]:
    """x_t on the left and x0_hat on the right, (1, H, 2 W + 1), and what changed since the step before (None: nothing).

    Both steps hold one picture, (1, 1, H, W).
    """
    x, x0_hat = step.x[0], step.x0_hat[0]
    picture = torch.cat([x, torch.ones_like(x[..., :1]), x0_hat], -1)
    text = f"t = {step.t}: left xₜ, right x̂₀"
    if before is not None:
        change = (step.x0_hat - before.x0_hat).square().mean().sqrt()
        text += f", which moved by {change:.3f} per pixel"
    return picture, text


def chain_slider(chain: Sequence[sampling.Step], name: str = "chain") -> Panel:
    """A slider over the steps of one picture's chain, as `sampling.sample` and `sampling.ddim` yield them.

    ValueError unless the chain holds one picture with one channel.
    """
    if not chain or chain[0].x.shape[:2] != (1, 1):
        raise ValueError("chain: expected the steps of one picture, each of shape (1, 1, H, W)")
    states = [chain_frame(step, chain[k - 1] if k else None) for k, step in enumerate(chain)]
    alt = "A picture on its way from noise, and beside it the picture that the network predicts from it."
    view = frames(name, alt, states)
    slider = ipywidgets.IntSlider(0, 0, len(states) - 1, description="steps done", layout=WIDE)
    slider.add_class(f"ddpm-slider-{name}")
    ipywidgets.jslink((slider, "value"), (view, "value"))
    shown = [round(k * (len(chain) - 1) / 6) for k in range(7)]
    rows = [torch.stack([getattr(chain[k], field)[0] for k in shown]) for field in ("x", "x0_hat")]
    strip = plotting.image_strip(rows, [f"t = {chain[k].t}" for k in shown], ["$x_t$", r"$\hat x_0$"])
    return Panel([slider], view, plotting.png(strip), alt)


def _by_cluster(xt: Array, alpha_bar: float) -> tuple[Array, Array, Array]:
    """For each cluster x_t less its mean along its axes (3, N, 2), the variances there (3, 1, 2), log joint (3, N)."""
    along = (xt - np.sqrt(alpha_bar) * MEANS[:, None]) @ AXES
    var = alpha_bar * VARS[:, None] + 1 - alpha_bar
    log_joint = np.log(WEIGHTS)[:, None] - 0.5 * (along**2 / var + np.log(var)).sum(-1)
    return along, var, log_joint


@functools.cache
def _randn(k: int) -> Array:
    """The start (k = 0) or the noise of the k-th step, the same in every call."""
    return np.random.RandomState(k).standard_normal((N, 2))


@functools.cache
def _truth() -> Array:
    """N points of the data: each cluster has its share."""
    which = np.repeat(np.arange(3), (N * WEIGHTS).round().astype(int))
    z = np.random.RandomState(1000).standard_normal((N, 1, 2)) * np.sqrt(VARS[which])[:, None]
    points: Array = MEANS[which] + (z @ AXES[which].transpose(0, 2, 1))[:, 0]
    return points


def _cloud(label: str, colour: str, opacity: float, points: Array) -> dict[str, Any]:
    x, y = points.T.round(3).tolist()
    return {"label": label, "colour": plotting.COLOURS[colour], "opacity": opacity, "x": x, "y": y}


def _static(states: Sequence[dict[str, Any]]) -> bytes:
    """The drawings side by side, each under its three settings and its verdict."""
    _, axes = plt.subplots(1, len(states), figsize=(2.5 * len(states), 3.1), layout="constrained")
    for ax, data in zip(axes, states, strict=True):
        for cloud in data["clouds"]:
            ax.plot(cloud["x"], cloud["y"], ".", color=cloud["colour"], alpha=cloud["opacity"], ms=3)
        settings = data["readout"].split(". Clusters")[0].replace(", noise", "\nnoise")
        ax.set(xlim=data["xlim"], ylim=data["ylim"], xticks=[], yticks=[])
        ax.set_title(f"{settings}\n{data['verdict']['text']}")
    return plotting.png(axes)
