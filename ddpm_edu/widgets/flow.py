"""Slider of chapter 11: what is followed from noise to data, the lines of the training pairs or the ODE, by Euler."""

import functools
from typing import Any

import ipywidgets
import numpy as np
import torch

from ddpm_edu.widgets.panels import WIDE, Panel, choose, live, selection, series, static_curves, verdict

Array = np.ndarray[Any, np.dtype[np.float64]]

FOLLOW = {"ODE": "Euler, K = {}", "pairs": "lines of the pairs", "reflow": "lines after reflow"}  # labels
STEPS = (1, 2, 3, 4, 6, 8, 16, 32)
WEIGHTS, MEANS, VARS = np.array([0.3, 0.7]), np.array([-1.0, 0.8]), np.array([0.04, 0.09])  # of the two modes
START = torch.special.ndtri((torch.arange(14).double() + 0.5) / 14).numpy()  # quantiles of the noise
FINE = 400  # steps of the reference; every 16th is drawn
CLOSE = 0.05  # mean distance from the exact paths below which the eye sees no difference


def flow_velocity(x: Array, tau: float) -> Array:
    """E[eps - x_0 | x_tau = x] on the straight path x_tau = (1 - tau) x_0 + tau eps, for the two modes."""
    var = (1 - tau) ** 2 * VARS + tau**2
    off = x[:, None] - (1 - tau) * MEANS
    joint = WEIGHTS / np.sqrt(var) * np.exp(-(off**2) / (2 * var))
    velocity = off * (tau - (1 - tau) * VARS) / var - MEANS
    mean: Array = (joint * velocity).sum(1) / joint.sum(1)
    return mean


def flow_paths(follow: str, steps: int, tau: float) -> dict[str, Any]:
    """Fourteen points on their way from tau = 1 down to ``tau``: data for `Curves`, beside the exact paths of the ODE.

    "ODE": ``steps`` Euler steps, and the mean distance from the exact paths. "pairs": straight lines to a data point
    each, chosen once and without regard to the noise, and how many times lines have crossed. "reflow": straight lines
    to the ends of the exact paths. ValueError for another name, for a tau outside [0, 1] and for steps < 1.
    """
    choose(FOLLOW, "follow", follow)
    if not 0 <= tau <= 1 or steps < 1:
        raise ValueError(f"tau, steps: expected tau in [0, 1] and at least one step, got {tau} and {steps}")
    grid, exact = _exact()
    times, points = _euler(steps) if follow == "ODE" else _lines(follow)
    drawn = np.append(times[times > tau], tau)
    paths = np.array([np.interp(drawn, times[::-1], path[::-1]) for path in points.T])
    here = np.array([np.interp(tau, grid[::-1], path[::-1]) for path in exact.T])
    if follow != "ODE":
        crossings = int(np.triu(paths[:, None, -1] > paths[None, :, -1], 1).sum())  # START rises
        text, judged = f"{follow}, τ = {tau:.2f}: {crossings} crossings so far", {}
    else:
        distance = float(np.abs(paths[:, -1] - here).mean())
        text = f"ODE, K = {steps}, τ = {tau:.2f}: mean error {distance:.3f}"
        judged = {"verdict": verdict(distance < CLOSE, "on the curves" if distance < CLOSE else "off the curves")}
    return {
        "series": [
            _bundle("the ODE, exact", "noise", grid[::16], exact[::16].T),
            _bundle(FOLLOW[follow].format(steps), "x0_hat", drawn, paths),
        ],
        "xlabel": "τ, from noise to data",
        "ylabel": "x",
        "xlim": [1, 0],
        "ylim": [-2.2, 3],
        "xticks": [1, 0.75, 0.5, 0.25, 0],
        "yticks": [-2, -1, 0, 1, 2, 3],
        "readout": text.replace("-", "−"),
        **judged,
    }


def flow_slider(name: str = "flow") -> Panel:
    """Three sliders over `flow_paths`: the number of Euler steps, how far down to draw, and what is followed."""
    controls = {
        "steps": selection(STEPS, "steps K", value=2),
        "tau": ipywidgets.FloatSlider(
            value=0.0, min=0, max=1, step=0.05, description="τ", readout_format=".2f", layout=WIDE
        ),
        "follow": selection(FOLLOW, "follow", value="ODE"),
    }
    alt = "Fourteen points between noise and data: the exact, curved paths, and over them what Euler's method makes."
    static = static_curves(flow_paths("ODE", 2, 0.0), flow_paths("ODE", 8, 0.0))
    return live(name, flow_paths, controls, static, alt)


@functools.cache
def _exact() -> tuple[Array, Array]:
    """Times from 1 to 0, and the positions (FINE + 1, 14) on the exact paths: Runge-Kutta of order 4."""
    times, h, x = np.linspace(1, 0, FINE + 1), 1 / FINE, START
    rows = [x]
    for tau in times[:-1]:
        one = flow_velocity(x, tau)
        two = flow_velocity(x - h / 2 * one, tau - h / 2)
        three = flow_velocity(x - h / 2 * two, tau - h / 2)
        four = flow_velocity(x - h * three, tau - h)
        x = x - h / 6 * (one + 2 * two + 2 * three + four)
        rows.append(x)
    return times, np.array(rows)


def _euler(steps: int) -> tuple[Array, Array]:
    times, rows = np.linspace(1, 0, steps + 1), [START]
    for tau in times[:-1]:
        rows.append(rows[-1] - flow_velocity(rows[-1], tau) / steps)
    return times, np.array(rows)


def _lines(follow: str) -> tuple[Array, Array]:
    """Straight to where the exact paths end: each to its own end, or for "pairs" to ends that are dealt out anew."""
    ends = _exact()[1][-1]
    order = np.random.RandomState(0).permutation(len(ends)) if follow == "pairs" else np.arange(len(ends))
    return np.array([1.0, 0.0]), np.array([START, ends[order]])


def _bundle(label: str, colour: str, times: Array, paths: Array) -> dict[str, Any]:
    """Many paths as one series: along each and back again, then from start to start outside of the picture."""
    tau = np.concatenate([[1.2], times, times[::-1], [1.2]])
    x = np.array([[path[0], *path, *path[::-1], path[0]] for path in paths])
    return series(label, colour, np.tile(tau, len(paths)).round(4).tolist(), x.ravel().round(4).tolist())
