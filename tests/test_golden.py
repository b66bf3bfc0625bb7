"""Every number of golden.json, which separate code computed and a second one confirmed, from the package."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from ddpm_edu import elbo, gaussian, sampling, schedules

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SCHEDULES = {"linear": schedules.linear(), "cosine": schedules.cosine()}
MOMENT = {"x0=0": 0.0, "x0~U[-1,1]": 1 / 3, "|x0|=1": 1.0}


def value(s: schedules.Schedule, name: str) -> float:
    """The number called ``name`` in golden.json."""
    tilde = sampling.beta_tilde(s)
    weights = {"beta": elbo.loss_weight(s, s.beta), "btilde": elbo.loss_weight(s, tilde)}
    tables = {"beta": s.beta, "abar": s.alpha_bar, "SNR": s.snr, "log10SNR": s.snr.log10(), "betatilde": tilde}
    if found := re.fullmatch(r"(\w+?)_(\d+|T)", name):
        kind, t = found[1], s.T if found[2] == "T" else int(found[2])
        return -amplification(s, t) if kind == "amp" else tables[kind][t].item()
    if found := re.fullmatch(r"priorKL_(nats|bpd)_(.*)", name):
        report = elbo.validity(s.beta[1:], MOMENT[found[2]])
        return report.prior_nats if found[1] == "nats" else report.prior_bits
    if found := re.fullmatch(r"w_(beta|btilde) t=(\d+|T)", name):
        return weights[found[1]][s.T if found[2] == "T" else int(found[2])].item()
    if found := re.fullmatch(r"w_(beta|btilde) (min|max|argmin t|argmax t)", name):
        first = 1 if found[1] == "beta" else 2  # with beta_tilde the weight at t = 1 is infinite
        w = weights[found[1]][first:]
        extreme = w.min() if "min" in found[2] else w.max()
        return float((w == extreme).nonzero()[0]) + first if "arg" in found[2] else extreme.item()
    if found := re.fullmatch(r"sum_\{(\d)\.\.T\} w_(beta|btilde)", name):
        return weights[found[2]][int(found[1]) :].sum().item()
    return {
        "sum_{2..T} x0-space weight (=(SNR1-SNRT)/2)": lambda: (weights["btilde"] * s.snr)[2:].sum().item(),
        "(SNR_1-SNR_T)/2": lambda: (s.snr[1] - s.snr[-1]).item() / 2,
        "amp sqrt((1-abar)/abar) T": lambda: -amplification(s, s.T),
        "sum log-ratio beta/btilde/2 (t>=2)": lambda: (s.beta / tilde)[2:].log().sum().item() / 2,
        "first t with SNR<1": lambda: float((s.snr < 1).nonzero()[0]),
        "sqrt(beta_1) in grey levels": lambda: 127.5 * s.beta[1].sqrt().item(),
        "posterior_log_var clamp(1e-20) idx0": lambda: tilde[1].clamp(min=1e-20).log().item(),
        "log betatilde_2": lambda: tilde[2].log().item(),
        "PSNR-ish std x_T: var for E x0^2=1/3,mean0": lambda: (1 + s.alpha_bar[-1] * (1 / 3 - 1)).item(),
    }[name]()


def amplification(s: schedules.Schedule, t: int) -> float:
    """d x0_hat / d eps_hat = -sqrt((1 - alpha_bar_t) / alpha_bar_t), read off the package's conversion."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return gaussian.x0_from_eps(s, zero, t, one).item()


@pytest.mark.parametrize("schedule, name", [(schedule, name) for schedule, names in GOLDEN.items() for name in names])
def test_golden(schedule, name):
    want = GOLDEN[schedule][name]
    # At x_0 = 0 the prior term is about alpha_bar_T^2 / 4: for the cosine schedule that is lost in float64's rounding.
    absolute = 1e-16 if name.startswith("priorKL") and name.endswith("x0=0") else 0
    rel = 1e-6 if name.startswith("priorKL") else 1e-9
    assert value(SCHEDULES[schedule], name) == pytest.approx(want, rel=rel, abs=absolute)
    assert math.isfinite(want)
