"""Slider of chapter 05: the terms of the bound on normal data, and how far their sum is from the entropy."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddpm_edu import sampling, schedules
from ddpm_edu.gaussian import normal_kl, normal_log_prob
from ddpm_edu.schedules import Schedule
from ddpm_edu.widgets.panels import Panel, choose, live, selection, series, static_curves, verdict

MEAN, VAR = 0.3, 0.25  # of the data, x_0 ~ N(MEAN, VAR)
ENTROPY = 0.5 * math.log(2 * math.pi * math.e * VAR)
TIGHT = 0.01  # nats; a bound nearer to the entropy than this is called tight
STRETCHES = 9  # the terms L_{t-1} are added up over so many stretches of the chain
LIMITS = [0.25, 0.5, 1, 2, 4, 8, 16, math.inf]  # of the axis, in nats, to either side: few, so that it seldom jumps


def _path(T: int) -> Schedule:
    """The paper's linear schedule as a curve over t / T, cut into T steps."""
    u = torch.arange(T + 1, dtype=torch.float64) / T
    log_alpha_bar = -(0.1 * u + 9.95 * u**2)
    return Schedule.from_betas(-torch.expm1(log_alpha_bar.diff()))


def _best(s: Schedule) -> Tensor:
    """Var(x_{t-1} | x_t) of the normal data; index 0, where there is no step, holds 0."""
    v = s.alpha_bar * VAR + 1 - s.alpha_bar
    return torch.cat([s.beta[:1], s.beta[1:] * v[:-1] / v[1:]])


FAMILIES: dict[str, Callable[[int], Schedule]] = {
    "linear": _path,
    "cosine": schedules.cosine,
    "linear, short": schedules.linear,
}
VARIANCES: dict[str, Callable[[Schedule], Tensor]] = {"best": _best, "β": lambda s: s.beta, "β̃": sampling.beta_tilde}


def bound_terms(s: Schedule, var: Tensor) -> tuple[float, Tensor, float, float]:
    """E[L_T], the terms E[L_{t-1}] for t = 2..T, E[L_0], and the gap E[log q(x_0)] + E[L], all in nats.

    For x_0 ~ N(MEAN, VAR) and reverse steps with the exact mean; ``var`` is a table (T + 1,) of their variances, all
    positive from t = 1 on.
    """
    before, now, beta = s.alpha_bar[:-1], s.alpha_bar[1:], s.beta[1:]
    on_x0 = before.sqrt() * beta / (1 - now)
    error = on_x0**2 * VAR * (1 - now) / (now * VAR + 1 - now)  # E|mu_tilde - mu|^2
    zero, off = torch.zeros((), dtype=torch.float64), error.sqrt()
    L_t = normal_kl(off[1:], sampling.beta_tilde(s)[2:], zero, var[2:])
    L_0 = -normal_log_prob(off[0], zero, var[1])
    L_T = 0.5 * (now[-1] * (VAR + MEAN**2 - 1) - torch.log1p(-now[-1]))
    excess = now[-1] * (VAR - 1)  # Var(x_T) - 1, so small that 1 is not added and taken away again
    prior = 0.5 * (excess + now[-1] * MEAN**2 - torch.log1p(excess))
    gap = prior + normal_kl(zero, _best(s)[1:], zero, var[1:]).sum()
    return float(L_T), L_t, float(L_0), float(gap)


def bound_curves(T: int, schedule: str, variance: str) -> dict[str, Any]:
    """Bars: L_T, the terms L_{t-1} in nine stretches from the noisy to the clean end, L_0, and the gap. For `Curves`.

    ``schedule`` is a key of FAMILIES, ``variance`` one of VARIANCES; sigma_1^2 = beta_1 where beta_tilde_1 would be 0.
    ValueError for T < 2 and for another key.
    """
    if T < 2:
        raise ValueError(f"T: expected at least 2 steps, got {T}")
    s = choose(FAMILIES, "schedule", schedule)(T)
    var = choose(VARIANCES, "variance", variance)(s).clone()
    if var[1] == 0:
        var[1] = s.beta[1]
    L_T, L_t, L_0, gap = bound_terms(s, var)
    stretch = (STRETCHES * torch.arange(1, T) - 1) // (T - 1)  # of t = 2..T
    stretches = torch.zeros(STRETCHES, dtype=torch.float64).index_add(0, stretch, L_t).flip(0)
    bars = [
        ("L_T", "prior", [0], [L_T]),
        ("L_t−1", "posterior", range(1, STRETCHES + 1), stretches.tolist()),
        ("L_0", "model", [STRETCHES + 1], [L_0]),
        ("gap", "exact", [STRETCHES + 3], [gap]),
    ]
    wide = 0.8 / len(bars)  # of a bar, which the view moves aside by its series: moved back here
    total = L_T + float(L_t.sum()) + L_0
    tight = gap < TIGHT
    heights = [L_T, *stretches.tolist(), L_0, gap]
    high = next(limit for limit in LIMITS if limit > 1.05 * max(heights))
    low = -next(limit for limit in LIMITS if limit > -1.05 * min(heights))
    return {
        "series": [
            series(
                label, colour, [0.25 * slot - (i - (len(bars) - 1) / 2) * wide for slot in slots], heights, kind="bar"
            )
            for i, (label, colour, slots, heights) in enumerate(bars)
        ],
        "xlabel": "noisy end … clean end",
        "ylabel": "nats",
        "xlim": [-0.25, 0.25 * (STRETCHES + 4)],
        "ylim": [low, high],
        "xticks": [0, 0.25 * (STRETCHES + 1) / 2, 0.25 * (STRETCHES + 1), 0.25 * (STRETCHES + 3)],
        "xlabels": ["L_T", "steps between", "L_0", "gap"],
        "yticks": [low, low / 2, 0, high / 2, high],
        "readout": f"T = {T}: {L_T:.4f} + {float(L_t.sum()):.4f} {'-' if L_0 < 0 else '+'} {abs(L_0):.4f} = "
        f"{total:.4f} nats,\n"
        f"{total / math.log(2):.3f} bits/dim; entropy {ENTROPY:.4f}, gap {gap:.2g}".replace("-", "−"),
        "verdict": verdict(tight, f"{'tight: gap below' if tight else 'loose: gap above'} {TIGHT} nats"),
    }


def _still(T: int) -> dict[str, Any]:
    """The drawing for the best variance, with its settings in the place of the longer readout."""
    data = bound_curves(T, "linear", "best")
    total = sum(y for one in data["series"][:3] for y in one["y"])
    return data | {"readout": f"T = {T}, best variance: sum {total:.4f} nats"}


def bound_slider(name: str = "bound") -> Panel:
    """T, schedule and variance over `bound_curves`."""
    controls = {
        "T": selection([10, 25, 50, 100, 250, 1000], "T", value=1000),
        "schedule": selection(FAMILIES, "schedule"),
        "variance": selection(VARIANCES, "σₜ² is"),
    }
    alt = "The terms of the bound as bars, from the noisy end to the clean end, and at the right the gap."
    static = static_curves(*(_still(T) for T in (10, 1000)))
    return live(name, bound_curves, controls, static, alt)
