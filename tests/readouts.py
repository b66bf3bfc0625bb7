"""What the readout of each panel must contain, from the package's formulas: for the tests in a browser."""

import math
from collections.abc import Callable

import torch

from ddpm_edu import checkpoint, elbo, gaussian, schedules, trajectory, widgets


def _noise_text(t: float) -> str:
    alpha_bar = schedules.linear().alpha_bar[int(t)]
    return f"t = {t:.0f}: {alpha_bar.sqrt():.3f} × picture + {(1 - alpha_bar).sqrt():.3f} × noise" if t else "t = 0:"


def _schedule_text(T: float, beta_T: float) -> str:
    alpha_bar_T = schedules.linear(int(T), 1e-4, beta_T).alpha_bar[-1]
    return f"T = {T:.0f}, β_T = {beta_T:.3f}: ᾱ_T = {alpha_bar_T:.2g}"


def _kl_text(mean: float, std_p: float, std_q: float) -> str:
    zero, var_p, mean_q, var_q = f64(0, std_p**2, mean, std_q**2)
    forward, reverse = (
        gaussian.normal_kl(zero, var_p, mean_q, var_q), gaussian.normal_kl(mean_q, var_q, zero, var_p)
    )  # fmt: skip
    return f"KL(p‖q) = {forward:.3f} nats, KL(q‖p) = {reverse:.3f} nats"


def _elbo_text(mean: float, std: float) -> str:
    return f"gap {gaussian.normal_kl(*f64(mean, std**2, 0.8, 0.2)):.4f} nats"  # the posterior of x = 1 is N(0.8, 0.2)


def _posterior_text(t: float, x0: float, xt: float) -> str:
    mean, var = gaussian.posterior_mean_var(schedules.linear(10, 0.1, 0.5), *f64(x0, xt), int(t))
    return f"t = {t:.0f}: mean {mean:.3f}, variance {var:.3f}".replace("-", "−")


def _bound_text(T: float, schedule: str, variance: str) -> str:
    x0 = f64(0.25 + 0.09).sqrt()[None]  # L_T sees x_0 through its square only, whose mean this is
    return f"T = {T:.0f}: {elbo.L_T(widgets.bound.FAMILIES[schedule](int(T)), x0).item():.4f} + "


def _weights_text(schedule: str, T: float, variance: str, ruler: str) -> str:
    s = widgets.weights.FAMILIES[schedule](int(T))
    first = 1 if variance == "β" else 2
    weight = elbo.loss_weight(s, widgets.weights.VARIANCES[variance](s)) * widgets.weights.RULERS[ruler](s)
    return f"bound {100 * weight[first : int(T) // 10 + 1].sum() / weight[first:].sum():.1f} %"


def _ema_text(decay: float, steps: float) -> str:
    return f"decay {decay:g}, {steps:.0f} steps: start {decay**steps:.3f}, "


def _sampler_text(steps: float, eta: float, noise: str) -> str:
    return widgets.sampler_points(int(steps), eta, noise)["readout"]


def _chain_text(k: float) -> str:
    return f"t = {200 - 4 * k:.0f}: "


def _langevin_text(step_size: float, temperature: float, k: float, start: float) -> str:
    wanted = math.sqrt(temperature)
    limit = f"limit {wanted / math.sqrt(1 - step_size / 2):.3f}" if step_size < 1.999 else "no limit"
    return f"{limit}, wanted {wanted:.3f}"


def _guidance_text(y: float, scale: float) -> str:
    return f"asked for a {y:.0f}, scale {scale:g}: "


def _flow_text(steps: float, tau: float, follow: str) -> str:
    return widgets.flow_paths(follow, int(steps), tau)["readout"]


def _predicted_text(t: float, sample: float, clamp: str) -> str:
    tr = trajectory.load(checkpoint.SHIPPED / "cifar10.trajectory.npz")
    return widgets.predicted_state(tr, tr.t.tolist().index(int(t)), int(sample), clamp)[1]


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# name of a panel -> values of its sliders -> what its readout must contain, from the package's formulas
READOUTS: dict[str, Callable[..., str]] = {
    "kl": _kl_text,
    "elbo": _elbo_text,
    "noise": _noise_text,
    "schedule": _schedule_text,
    "posterior": _posterior_text,
    "bound": _bound_text,
    "weights": _weights_text,
    "ema": _ema_text,
    "sampler": _sampler_text,
    "chain": _chain_text,
    "langevin": _langevin_text,
    "guidance": _guidance_text,
    "flow": _flow_text,
    "predicted": _predicted_text,
}
