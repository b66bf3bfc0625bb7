"""A run small enough for a test: a network of a few thousand weights on random images of 4 x 4."""

import torch

from ddpm_edu import schedules
from ddpm_edu.data import Images
from ddpm_edu.training import Config, State, train

NETWORK = {
    "image_size": 4,
    "channels": 1,
    "width": 8,
    "width_mults": [1, 2],
    "res_blocks": 1,
    "attention_at": [2],
    "dropout": 0.1,
}


# A network learns noise, with a schedule, or a velocity, without; and it is told the class or not.
KINDS = {
    "diffusion": {},
    "flow": {"schedule": None},
    "labels": {"network": NETWORK | {"classes": 4}, "label_drop": 0.4},
    "flow with labels": {"schedule": None, "network": NETWORK | {"classes": 4}, "label_drop": 0.4},
}


def config(**changes) -> Config:
    values = {
        "preset": "none",
        "data": "digits",
        "network": NETWORK,
        "schedule": schedules.linear(20, 0.01, 0.3),
        "steps": 20,
        "batch": 5,
        "lr": 0.01,
        "warmup": 4,
        "lr_decay": True,
        "clip": 1.0,
        "ema_decay": 0.4,
        "flip": True,
        "seed": 3,
    }
    return Config(**(values | changes))


def images(n: int = 12) -> Images:
    u8 = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    return Images(u8, torch.arange(n) % 3, "random", ("a", "b", "c"))


def run(state: State, steps: int) -> list[torch.Tensor]:
    iterator = train(state, images())
    return [next(iterator).loss for _ in range(steps)]


def everything(state: State) -> dict[str, torch.Tensor]:
    """Every tensor that a run consists of, by name."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.model.state_dict().items()}
    for i, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in slots.items()}
    numbers = [state.step, state.ema.updates, state.optimizer.param_groups[0]["lr"]]
    return tensors | {
        "generator": state.generator.get_state(),
        "t_generator": state.t_generator.get_state(),
        "global": torch.get_rng_state(),
        "numbers": torch.tensor(numbers, dtype=torch.float64),
    }


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
