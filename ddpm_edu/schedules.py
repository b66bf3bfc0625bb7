"""Noise schedules: the numbers beta_1..beta_T that fix the forward chain, and how to look them up.

Conventions of the whole package, stated once:

* Time is t = 1..T, as in Ho et al. 2020. Tables have length T + 1 and index 0 is clean data:
  ``beta[0] = 0``, ``alpha[0] = 1``, ``alpha_bar[0] = 1``.
* Tables are float64. A coefficient is formed in float64 and cast to the data's dtype last, because
  1 - alpha_bar cancels near t = 1 (float32 tables lose three digits there).
* Much public code counts from 0: its index is our t minus 1.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from ddpm_edu.tables import at as at  # looked for here, beside the tables that it reads
from ddpm_edu.tables import describe

JSON_FORMAT = "ddpm_edu.schedule/1"


@dataclass(frozen=True, eq=False)
class Schedule:
    """The forward chain q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I), t = 1..T (Ho et al. 2020, Eq. 2).

    Three float64 tables of shape (T + 1,), index 0 being clean data: ``beta``, the variance added at step t;
    ``alpha`` = 1 - beta; ``alpha_bar``, the product of alpha_1..alpha_t. Build one with `linear`, `cosine`, ... or
    `Schedule.from_betas`. Raises ValueError where a beta_t is not strictly between 0 and 1, where the tables contradict
    each other, or where alpha_bar does not decrease (betas so large that the product underflows).
    """

    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor

    def __post_init__(self) -> None:
        for name in ("beta", "alpha", "alpha_bar"):
            table = getattr(self, name)
            if not isinstance(table, Tensor) or table.dtype != torch.float64 or table.ndim != 1 or len(table) < 2:
                raise ValueError(f"{name}: expected a float64 tensor of shape (T + 1,), T >= 1, got {describe(table)}")
            if len(table) != len(self.beta):
                raise ValueError(f"{name}: expected T + 1 = {len(self.beta)} entries as in beta, got {len(table)}")
        _check_betas(self.beta[1:])
        if (first := (self.beta[0].item(), self.alpha_bar[0].item())) != (0, 1):
            raise ValueError(f"index 0 is clean data: expected beta[0], alpha_bar[0] = 0, 1, got {first}")
        flat = (~(self.alpha_bar[1:] < self.alpha_bar[:-1])).nonzero()
        if len(flat):
            t = int(flat[0]) + 1
            before, now = self.alpha_bar[t - 1].item(), self.alpha_bar[t].item()
            raise ValueError(f"alpha_bar: expected to fall at every step, got {before:g}, then {now:g} at t = {t}")
        error = (self.alpha - 1 + self.beta).abs() + (self.alpha_bar / torch.cumprod(self.alpha, 0) - 1).abs()
        if not (error < 1e-9).all():
            raise ValueError("alpha, alpha_bar: expected 1 - beta and its cumulative product")

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self.beta) - 1

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), shape (T + 1,); infinite at index 0."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Tensor) -> "Schedule":
        """The schedule with the given beta_1..beta_T (no entry for t = 0): any list or 1-D tensor of numbers.

        ValueError unless there is at least one and all lie strictly between 0 and 1.
        """
        try:  # float64 at once: a list of Python numbers must not pass through torch's float32 default
            values = torch.as_tensor(betas, dtype=torch.float64).detach().cpu()
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"betas: expected numbers beta_1..beta_T, got {str(betas)[:60]}") from None
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(f"betas: expected a list beta_1..beta_T, at least one, got {describe(values)}")
        beta = torch.cat([torch.zeros(1, dtype=torch.float64), values])
        _check_betas(beta[1:])
        return cls(beta, 1 - beta, torch.cumprod(1 - beta, 0))


def linear(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """beta_t evenly spaced from beta_1 to beta_T (Ho et al. 2020, section 4). ValueError for betas outside (0, 1)."""
    return Schedule.from_betas(torch.linspace(beta_1, beta_T, _check_T(T), dtype=torch.float64))


def scaled_linear(T: int = 1000, beta_1: float = 0.00085, beta_T: float = 0.012) -> Schedule:
    """sqrt(beta_t) evenly spaced, as in latent diffusion (Rombach et al. 2022). ValueError for betas outside (0, 1)."""
    if not (0 < beta_1 < 1 and 0 < beta_T < 1):
        raise ValueError(f"beta_1, beta_T: expected numbers strictly between 0 and 1, got {beta_1}, {beta_T}")
    return Schedule.from_betas(
        torch.linspace(math.sqrt(beta_1), math.sqrt(beta_T), _check_T(T), dtype=torch.float64) ** 2
    )


def constant(T: int = 1000, beta: float = 0.01) -> Schedule:
    """beta_t = beta for every t, so that alpha_bar_t = (1 - beta)^t. ValueError for beta outside (0, 1)."""
    return Schedule.from_betas(torch.full((_check_T(T),), beta, dtype=torch.float64))


def cosine(T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """alpha_bar_t = f(t) / f(0) with f(t) = cos^2(pi/2 (t/T + s) / (1 + s)) (Nichol & Dhariwal 2021, Eq. 17).

    beta_t = 1 - alpha_bar_t / alpha_bar_{t-1} is clipped at max_beta < 1: f(T) is 0, and without the clip the last
    step would be beta_T = 1. ValueError for s < 0 or max_beta outside (0, 1).
    """
    if not s >= 0:
        raise ValueError(f"s: expected a number >= 0, got {s}")
    return _from_alpha_bar(lambda u: torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2, T, max_beta)


def log_snr_linear(T: int = 1000, log_snr_1: float = 13.3, log_snr_T: float = -5.0) -> Schedule:
    """ln SNR_t = ln(alpha_bar_t / (1 - alpha_bar_t)) falls linearly in t, from log_snr_1 at t = 1 to log_snr_T at T.

    The schedule that Kingma et al. 2021 (variational diffusion models) start from, cut into T steps. With the variances
    beta_tilde_t the bound (Ho et al. 2020, Eq. 12) weighs ||eps - eps_hat||^2 by (SNR_{t-1} / SNR_t - 1) / 2, here one
    and the same number for all t = 2..T: L_simple weighs these terms as the bound does, and only t = 1 otherwise.
    ValueError unless T >= 2 and log_snr_1 > log_snr_T, both finite; and where a step is lost in rounding.
    """
    if not (_check_T(T) >= 2 and math.inf > log_snr_1 > log_snr_T > -math.inf):
        raise ValueError(
            "T, log_snr_1, log_snr_T: expected T >= 2 and finite numbers log_snr_1 > log_snr_T, "
            f"got {T}, {log_snr_1}, {log_snr_T}"
        )
    log_snr = torch.linspace(log_snr_1, log_snr_T, T, dtype=torch.float64)
    beta = torch.sigmoid(-log_snr)  # 1 - alpha_bar_t; 1 - alpha_bar_t / alpha_bar_{t-1}, without cancellation, is:
    beta[1:] *= -torch.expm1(log_snr.diff())
    return Schedule.from_betas(beta)


def sigmoid(
    T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
) -> Schedule:
    """alpha_bar_t falls like a sigmoid over [start, end] / tau, rescaled to go from 1 to 0 (Jabri et al. 2022).

    With u = t / T and g(u) = sigmoid((start + (end - start) u) / tau):
    alpha_bar_t = (g(1) - g(u)) / (g(1) - g(0)); beta_t is clipped at max_beta < 1, as in `cosine`.
    ValueError unless start < end, tau > 0 and 0 < max_beta < 1.
    """
    if not (start < end and tau > 0):
        raise ValueError(f"start, end, tau: expected start < end and tau > 0, got {start}, {end}, {tau}")

    def f(u: Tensor) -> Tensor:
        g = torch.sigmoid((start + (end - start) * u) / tau)
        return g[-1] - g

    return _from_alpha_bar(f, T, max_beta)


def to_json(schedule: Schedule) -> str:
    """JSON with exactly the fields ``format`` ("ddpm_edu.schedule/1"), ``T`` and ``betas``, the list beta_1..beta_T."""
    return json.dumps({"format": JSON_FORMAT, "T": schedule.T, "betas": schedule.beta[1:].tolist()})


def from_json(text: str) -> Schedule:
    """Read the text that `to_json` writes. Raises ValueError that names the field that is missing, extra or wrong."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"schedule JSON: not valid JSON ({error})") from None
    wanted = {"format", "T", "betas"}
    if (found := set(fields) if isinstance(fields, dict) else set()) != wanted:
        raise ValueError(f"schedule JSON: missing {sorted(wanted - found)}, unknown {sorted(found - wanted)}")
    if fields["format"] != JSON_FORMAT:
        raise ValueError(f"schedule JSON: format: expected {JSON_FORMAT!r}, got {fields['format']!r}")
    betas = fields["betas"]
    if not isinstance(betas, list) or not all(type(beta) in (int, float) for beta in betas):
        raise ValueError("schedule JSON: betas: expected a list of numbers beta_1..beta_T")
    if type(fields["T"]) is not int or fields["T"] != len(betas):
        raise ValueError(f"schedule JSON: T: expected the number of betas, {len(betas)}, got {fields['T']!r}")
    return Schedule.from_betas(betas)


def _from_alpha_bar(f: Callable[[Tensor], Tensor], T: int, max_beta: float) -> Schedule:
    """The schedule whose alpha_bar is f(t/T) / f(0), each beta_t clipped at max_beta."""
    if not 0 < max_beta < 1:
        raise ValueError(f"max_beta: expected a number strictly between 0 and 1, got {max_beta}")
    f_t = f(torch.arange(_check_T(T) + 1, dtype=torch.float64) / T)
    return Schedule.from_betas((1 - f_t[1:] / f_t[:-1]).clamp(max=max_beta))


def _check_T(T: int) -> int:
    if isinstance(T, bool) or not isinstance(T, Integral) or T < 1:
        raise ValueError(f"T: expected a whole number of steps >= 1, got {T!r}")
    return int(T)


def _check_betas(betas: Tensor) -> None:
    bad = ~((betas > 0) & (betas < 1))  # NaN compares false, so it is caught as well
    if bad.any():
        t = int(bad.nonzero()[0]) + 1
        raise ValueError(f"betas: expected numbers strictly between 0 and 1, got beta_{t} = {betas[t - 1].item():g}")
