"""What a line of a training log says: the loss, early and late times apart, and how well the hardware is used."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ddpm_edu import distributed
from ddpm_edu.training import Record, State
from ddpm_edu.unet import UNet

BINS = 10  # of t
# Products and sums a second in bf16 without sparsity, by the makers' data sheets; the name is what torch calls the GPU.
PEAK_FLOPS = {
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def log_line(state: State, records: Sequence[Record], seconds: float) -> dict[str, Any]:
    """One interval of training as values for JSON: its ``records``, which took ``seconds``; of all ranks together.

    The mean loss overall and in ten equal bins of t (None where a bin saw no t); the mean norm of the gradient; the
    last learning rate; the most memory that this rank's GPU ever held; the fraction of the GPUs' peak. None for what a
    CPU has not, and for the peak of an unknown GPU. Every rank must call it, for the losses are collected. ValueError
    for a loss that is no number any more: such a state must not replace the last good checkpoint.
    """
    t = distributed.gather(torch.cat([record.t for record in records]))
    loss = distributed.gather(torch.cat([record.loss for record in records])).cpu().double()
    if not loss.isfinite().all():
        raise ValueError(
            f"the loss is no longer finite at step {state.step}: training diverged, nothing was saved of it"
        )
    bins = (t - 1) * BINS // state.config.T
    images_per_second = len(records) * state.config.batch / seconds
    on_gpu = state.device.type == "cuda"
    return {
        "step": state.step,
        "images": state.step * state.config.batch,
        "seconds": round(state.seconds, 3),
        "images_per_second": round(images_per_second, 1),
        "loss": loss.mean().item(),
        "loss_by_t": [_mean(loss[bins == b]) for b in range(BINS)],
        "lr": records[-1].lr,
        "grad_norm": torch.stack([record.grad_norm for record in records]).mean().item(),
        "memory_gib": round(torch.cuda.max_memory_allocated(state.device) / 2**30, 2) if on_gpu else None,
        "fraction_of_peak": fraction_of_peak(state, images_per_second),
    }


def fraction_of_peak(state: State, images_per_second: float) -> float | None:
    """What the networks compute in a second over what the GPUs can do at best; None where that is not known."""
    peak = PEAK_FLOPS.get(device_name(state.device))
    if peak is None:
        return None
    return round(images_per_second * flops_per_image(state.config.network) / (distributed.ranks() * peak), 4)


def flops_per_image(network: dict[str, Any]) -> int:
    """Products and sums in one forward and backward pass of ``UNet(**network)``, counted on tensors without data."""
    return _count(json.dumps(network))


def device_name(device: torch.device) -> str:
    """What torch calls the GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@cache
def _count(network: str) -> int:
    with torch.device("meta"):
        model = UNet(**json.loads(network) | {"classes": None})  # a label is looked up: no product
        xt, t = torch.empty(1, *model.image_shape), torch.ones(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(model(xt, t).sum())
    return int(counter.get_total_flops())


def _mean(losses: Tensor) -> float | None:
    return losses.mean().item() if len(losses) else None
