"""Tests of ddpm_edu.metrics: each value of a log line by another way."""

import json
import math

import pytest
import torch
from tiny_run import NETWORK, config
from torch import nn

from ddpm_edu import metrics, schedules
from ddpm_edu.training import Record, State
from ddpm_edu.unet import UNet


def records() -> list[Record]:
    return [
        Record(1, torch.tensor([1, 20, 21]), torch.tensor([1.0, 3.0, 10.0]), torch.tensor(1.0), 0.1),
        Record(2, torch.tensor([200, 181, 180]), torch.tensor([5.0, 6.0, 8.0]), torch.tensor(4.0), 0.2),
    ]


def state(**changes) -> State:
    made = State(config(schedule=schedules.cosine(200), batch=3, **changes))  # T = 200: bins of 20 steps
    made.step, made.seconds = 2, 1.23456
    return made


def test_a_line_gives_the_mean_loss_by_tenths_of_the_chain_and_what_it_cost():
    line = metrics.log_line(state(), records(), seconds=0.5)
    assert line == {
        "step": 2,
        "images": 6,
        "seconds": 1.235,
        "images_per_second": 12.0,
        "loss": pytest.approx(33 / 6),
        "loss_by_t": [2.0, 10.0, None, None, None, None, None, None, 8.0, 5.5],
        "lr": 0.2,
        "grad_norm": 2.5,
        "memory_gib": None,
        "fraction_of_peak": None,
    }
    assert json.loads(json.dumps(line)) == line


def test_the_times_of_a_flow_fall_into_bins_of_a_hundred():
    made = State(config(schedule=None))
    found = [Record(1, torch.tensor([1, 100, 101, 1000]), torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor(1.0), 0.1)]
    assert metrics.log_line(made, found, 1.0)["loss_by_t"] == [2.0, 5.0, *[None] * 7, 7.0]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(wrong):
    bad = Record(3, torch.tensor([1]), torch.tensor([wrong]), torch.tensor(1.0), 0.1)
    with pytest.raises(ValueError, match="the loss is no longer finite at step 2: training diverged"):
        metrics.log_line(state(), [*records(), bad], 1.0)


@pytest.mark.parametrize(
    ("name", "ranks", "peak"),
    [("NVIDIA H100 80GB HBM3", 1, 989e12), ("NVIDIA A100-SXM4-80GB", 4, 4 * 312e12), ("a GPU of tomorrow", 1, None)],
)
def test_on_a_gpu_memory_and_the_fraction_of_its_peak_are_reported(monkeypatch, name, ranks, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    monkeypatch.setattr(metrics, "flops_per_image", lambda network: 10**10)
    monkeypatch.setattr(metrics.distributed, "gather", lambda x: x)
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    made = state()
    made.device = torch.device("cuda")
    line = metrics.log_line(made, records(), seconds=6 / 9000)  # 9000 images a second
    assert line["memory_gib"] == 3 and line["images_per_second"] == pytest.approx(9000)
    want = None if peak is None else pytest.approx(9000 * 1e10 / peak, abs=1e-4)
    assert line["fraction_of_peak"] == want


def by_hand(network: dict) -> int:
    """Forward: 2 H W k^2 c_in c_out for a convolution, 2 n c_in c_out for a linear layer on n vectors."""
    total = 0

    def count(layer, args, out):
        nonlocal total
        total += 2 * out.numel() * math.prod(layer.weight.shape[1:])

    model = UNet(**network)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, *model.image_shape), torch.tensor([1]))
    return total


def test_flops_are_those_of_the_layers_three_times():
    """The backward pass costs as much again for the inputs as for the weights; attention adds a little."""
    small = {**NETWORK, "image_size": 16, "attention_at": [], "width": 32}
    ratio = metrics.flops_per_image(small) / (3 * by_hand(small))
    assert 0.99 < ratio < 1.03, "the first layer needs no gradient of its input, attention comes on top"


def test_a_label_costs_nothing():
    assert metrics.flops_per_image(NETWORK | {"classes": 11}) == metrics.flops_per_image(NETWORK) > 0


def test_the_papers_network_costs_37_gflop_an_image():
    random_state = torch.get_rng_state()
    assert metrics.flops_per_image({}) == pytest.approx(37.3e9, rel=0.01)
    assert torch.equal(torch.get_rng_state(), random_state), "counting must not disturb a run"
