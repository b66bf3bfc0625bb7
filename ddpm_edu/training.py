"""Training: Algorithm 1 of Ho et al. 2020 as a generator, and what lets a run stop at any step and go on exactly.

`train` draws, steps and yields; progress bars, logs and the decision to stop belong to the caller. A checkpoint holds a
whole run. Weights for sharing are a safetensors file with the network's configuration, the schedule and a card. Reading
either never runs code from the file.
"""

import copy
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ddpm_edu import schedules
from ddpm_edu.data import Images, batches, check_images, to_float
from ddpm_edu.elbo import loss_simple
from ddpm_edu.schedules import Schedule
from ddpm_edu.unet import UNet

CHECKPOINT_FORMAT = "ddpm_edu.checkpoint/1"
WEIGHTS_FORMAT = "ddpm_edu.weights/1"
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Config:
    """What fixes a run: data, network, schedule and hyper-parameters. ValueError for a number out of its range."""

    preset: str  # where the defaults came from
    data: str  # a name that `data.load` knows
    network: dict[str, Any]  # arguments of UNet
    schedule: Schedule
    steps: int  # planned number of optimiser steps
    batch: int
    lr: float  # Adam's learning rate after the warm-up
    warmup: int  # steps over which the learning rate rises linearly to lr
    clip: float  # largest norm of the gradient over all parameters
    ema_decay: float
    flip: bool  # mirror each image left to right with probability 1/2
    seed: int

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch", 1), ("warmup", 0), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise ValueError(f"{name}: expected a whole number >= {low}, got {value!r}")
        if not (self.lr > 0 and self.clip > 0 and 0 <= self.ema_decay < 1):
            got = f"{self.lr!r}, {self.clip!r}, {self.ema_decay!r}"
            raise ValueError(f"lr, clip, ema_decay: expected lr > 0, clip > 0, 0 <= ema_decay < 1, got {got}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, the schedule as its JSON text (which keeps every beta exactly)."""
        return {**vars(self), "schedule": schedules.to_json(self.schedule)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`."""
        return cls(**{**values, "schedule": schedules.from_json(values["schedule"])})


class EMA(Generic[Network]):
    """An exponential moving average of a network's parameters, and the newest of its buffers, in ``.model``.

    Update n = 0, 1, ... is average = d_n average + (1 - d_n) parameter with d_n = min(decay, (1 + n) / (10 + n)):
    the warm-up forgets the random start, which a constant decay would keep for 1 / (1 - decay) steps.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: Network) -> None:
        """Move the average towards ``model``, whose parameters and buffers must be those of the first one."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, parameter in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(parameter, 1 - decay)
        for kept, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
        self.updates += 1


class State:
    """A run between two steps. ``State(config)`` is its beginning, `load_checkpoint` any later point.

    The network's first weights and its dropout come from torch's global generator, which is seeded here with
    ``config.seed``; images, times and noise come from ``generator``, on the device of the network.
    """

    def __init__(self, config: Config, device: torch.device | str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = torch.device(device)
        self.model = UNet(**config.network).to(device)
        self.ema = EMA(self.model, config.ema_decay)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr)
        # A seed drawn from the global stream: the same seed in both would make the noise repeat the first weights.
        self.generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))
        self.step = 0
        self.seconds = 0.0


@dataclass(frozen=True)
class Record:
    """One step of training, tensors left on the device so that nothing waits for them."""

    step: int  # 1, 2, ...
    t: Tensor  # (B,) int64
    loss: Tensor  # (B,) loss_simple of each image
    grad_norm: Tensor  # 0-d, before clipping
    lr: float


def train(state: State, data: Images) -> Iterator[Record]:
    """Algorithm 1 (Ho et al. 2020) with Adam, warm-up, clipping and EMA: one step for each item drawn, without end.

    When an item arrives, ``state`` is complete and can be saved; another ``train(state, data)`` goes on from there.
    ValueError, with the first item, for images that do not fit the network.
    """
    config, s, g = state.config, state.config.schedule, state.generator
    check_images(to_float(data.images[:1]), config.network["channels"])
    for x0 in batches(data, config.batch, g, state.device, config.flip):  # 1, 2: repeat, x0 ~ q(x0)
        started = time.perf_counter()
        t = torch.randint(1, s.T + 1, (len(x0),), generator=g, device=x0.device)  # 3: t ~ Uniform({1, ..., T})
        eps = torch.randn(x0.shape, generator=g, device=x0.device)  # 4: eps ~ N(0, I)
        state.model.train()
        loss = loss_simple(s, state.model, x0, t, eps)  # 5: descend on the gradient of ||eps - eps_hat||^2
        state.optimizer.zero_grad()
        torch.autograd.backward(loss.mean())
        grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
        state.step += 1
        lr = config.lr * min(1.0, state.step / max(1, config.warmup))
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.step()
        state.ema.update(state.model)
        state.seconds += time.perf_counter() - started
        yield Record(state.step, t, loss.detach(), grad_norm, lr)


def save_checkpoint(path: Path, state: State) -> None:
    """Write the whole run, so that `load_checkpoint` goes on bit for bit as if it had never stopped."""
    contents = {
        "format": CHECKPOINT_FORMAT,
        "config": state.config.to_dict(),
        "device": state.device.type,
        "step": state.step,
        "seconds": state.seconds,
        "model": state.model.state_dict(),
        "ema": state.ema.model.state_dict(),
        "ema_updates": state.ema.updates,
        "optimizer": state.optimizer.state_dict(),
        "generator": state.generator.get_state(),
        "global_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(state.device) if state.device.type == "cuda" else None,
    }
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> State:
    """The run that `save_checkpoint` wrote; sets torch's global random state as well.

    ValueError, in one line that names the file, where it is missing, damaged, not a checkpoint of this package, or
    from another kind of device (whose random numbers cannot be continued here).
    """
    with _reading(path, "checkpoint"):
        if damaged := zipfile.ZipFile(path).testzip():  # torch.load does not look at the checksums
            raise ValueError(f"its part {damaged} is damaged")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["format"] != CHECKPOINT_FORMAT:
            raise ValueError(f"expected the format {CHECKPOINT_FORMAT!r}, got {saved['format']!r}")
        if saved["device"] != torch.device(device).type:
            raise ValueError(f"it was made on {saved['device']} and can only go on there, not on {device}")
        state = State(Config.from_dict(saved["config"]), device)
        state.model.load_state_dict(saved["model"])
        state.ema.model.load_state_dict(saved["ema"])
        state.ema.updates = saved["ema_updates"]
        state.optimizer.load_state_dict(saved["optimizer"])
        state.step, state.seconds = saved["step"], saved["seconds"]
        if type(state.step) is not int or state.step < 0:
            raise ValueError(f"expected a step >= 0, got {state.step!r}")
        state.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["global_rng"])
        if state.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"], state.device)
    return state


def save_weights(path: Path, model: UNet, schedule: Schedule, card: dict[str, Any]) -> None:
    """Write ``model`` (share the EMA, ``state.ema.model``) for `load_weights`; ``card`` is whatever JSON can say."""
    metadata = {
        "format": WEIGHTS_FORMAT,
        "network": json.dumps(model.config),
        "schedule": schedules.to_json(schedule),
        "card": json.dumps(card),
    }
    write_whole(path, safetensors.torch.save(model.state_dict(), metadata))


def load_weights(path: Path) -> tuple[UNet, Schedule, dict[str, Any]]:
    """The network (on the CPU, in evaluation mode), schedule and card that `save_weights` wrote.

    ValueError, in one line that names the file, where it is missing, damaged or not a weights file of this package.
    """
    with _reading(path, "weights file"), safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != WEIGHTS_FORMAT:
            raise ValueError(f"expected the format {WEIGHTS_FORMAT!r}, got {metadata.get('format')!r}")
        model = UNet(**json.loads(metadata["network"]))
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
        return model.eval(), schedules.from_json(metadata["schedule"]), json.loads(metadata["card"])


def write_whole(path: Path, contents: bytes) -> None:
    """Put ``contents`` at ``path`` entirely or not at all: until the last byte is on disk, the old file stays.

    OSError that names ``path`` where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()  # gone already if all went well


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever reading ``path`` raises into one line: a foreign file can fail in any way at all."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a {what}, found no such file") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not a whole {what} of this package ({type(error).__name__}: {reason})") from None
