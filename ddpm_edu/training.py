"""Training: Algorithm 1 of Ho et al. 2020, or flow matching, as a generator, on a CPU, on a GPU or on many.

`train` draws, steps and yields; progress bars, logs, checkpoints and the decision to stop belong to the caller. Between
two steps nothing waits for the GPU: what a step has found stays there until somebody reads it. (But for a network with
classes, which checks its labels.)
"""

import copy
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from ddpm_edu import distributed, flow, schedules
from ddpm_edu.data import Images, batches, check_images, to_float
from ddpm_edu.elbo import loss_simple
from ddpm_edu.schedules import Schedule
from ddpm_edu.unet import UNet

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Config:
    """What fixes a run: data, network, schedule and hyper-parameters. ValueError for a number out of its range."""

    preset: str  # where the defaults came from
    data: str  # a name that `data.load` knows
    network: dict[str, Any]  # arguments of UNet
    schedule: Schedule | None  # None: flow matching, whose path needs none
    steps: int  # planned number of optimiser steps
    batch: int  # images in a step, over all ranks
    lr: float  # Adam's learning rate after the warm-up
    warmup: int  # steps over which the learning rate rises linearly to lr
    lr_decay: bool  # from there it falls linearly, and would be 0 in the step after the last one
    clip: float  # largest norm of the gradient over all parameters
    ema_decay: float
    flip: bool  # mirror each image left to right with probability 1/2
    seed: int
    label_drop: float = 0.0  # probability that a label is replaced by the last class, which stands for "no label"

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch", 1), ("warmup", 0), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise ValueError(f"{name}: expected a whole number >= {low}, got {value!r}")
        if not (self.lr > 0 and self.clip > 0 and 0 <= self.ema_decay < 1):
            got = f"{self.lr!r}, {self.clip!r}, {self.ema_decay!r}"
            raise ValueError(f"lr, clip, ema_decay: expected lr > 0, clip > 0, 0 <= ema_decay < 1, got {got}")
        if not 0 <= self.label_drop < 1 or (self.label_drop and self.classes is None):
            expected = "a probability in [0, 1), and 0 for a network without classes"
            raise ValueError(f"label_drop: expected {expected}, got {self.label_drop!r}")

    @property
    def T(self) -> int:
        """The largest of the times 1..T that are drawn: that of the schedule, or of `flow`."""
        return flow.T if self.schedule is None else self.schedule.T

    @property
    def classes(self) -> int | None:
        """How many the network knows, the last one for "no label"; None for a network without."""
        return self.network.get("classes")

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, the schedule as its JSON text (which keeps every beta exactly)."""
        return {**vars(self), "schedule": schedules.to_json(self.schedule) if self.schedule else None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`."""
        betas = values["schedule"]
        return cls(**{**values, "schedule": schedules.from_json(betas) if betas else None})


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
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for kept, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
        self.updates += 1


class State:
    """A run between two steps. ``State(config)`` is its beginning, `checkpoint.load_checkpoint` any later point.

    The network's first weights and its dropout come from torch's global generator, which is seeded here with
    ``config.seed``; images, noise and which labels to drop come from ``generator``, on the device of the network, times
    from ``t_generator``, on the CPU. How the arithmetic is done changes what comes out by rounding only:
    ``accumulate`` is the number of pieces in which a batch is computed (``halved``: since the memory was too small for
    fewer); ``fast``, on a GPU, stands for bf16 autocast and torch.compile. Weights and loss stay float32.
    """

    def __init__(self, config: Config, device: torch.device | str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = torch.device(device)
        self.fast = _is_gpu(self.device)
        self.accumulate, self.halved = 1, False
        self.model = UNet(**config.network).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's types
        self.ema = EMA(self.model, config.ema_decay)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.lr, weight_decay=0, fused=True)
        # Seeds drawn from the global stream: the same seed in all would make the noise repeat the first weights.
        self.generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))
        self.t_generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.step = 0
        self.seconds = 0.0  # of training; whoever draws the steps adds them up


@dataclass(frozen=True)
class Record:
    """One step of training, losses left on the device so that nothing waits for them."""

    step: int  # 1, 2, ...
    t: Tensor  # (B,) int64, on the CPU; of this rank's images, if there are several ranks
    loss: Tensor  # (B,) loss_simple of each image
    grad_norm: Tensor  # 0-d, before clipping
    lr: float


def train(state: State, data: Images) -> Generator[Record, None, None]:
    """Algorithm 1 (Ho et al. 2020) with Adam, warm-up, clipping and EMA: one step for each item drawn, without end.

    Without a schedule it is flow matching, which differs in step 5 only: tau = t / T, and what is predicted is a
    velocity. A network with classes gets the labels too, each replaced by "no label" with ``config.label_drop``.
    When an item arrives, ``state`` is complete and can be saved; another ``train(state, data)`` goes on from there.
    Ranks that `distributed` knows of share each batch. ValueError, with the first item, for images or classes that do
    not fit the network and for a batch that does not fall into equal parts.
    """
    config, g = state.config, state.generator
    check_images(to_float(data.images[:1]), config.network["channels"])
    if config.classes not in (None, len(data.classes) + 1):
        known = len(data.classes)
        raise ValueError(
            f"classes: expected {known + 1}, for the {known} of {data.name} and no label, got {config.classes}"
        )
    check_pieces(config.batch, state.accumulate)
    if state.fast:
        torch.backends.cudnn.benchmark = True  # the shapes never change: it pays to look for the best algorithms
        state.model.compile(dynamic=False)
    network = distributed.replicate(state.model, state.device)
    mine = distributed.part(config.batch)
    for x0, y in batches(data, config.batch, g, state.device, config.flip, mine):  # 1, 2: repeat, x0 ~ q(x0)
        # 3: t ~ Uniform({1, ..., T}). It stays on the CPU, where `at` checks its range without waiting for the GPU.
        t = stratified_t(config.T, config.batch, state.t_generator)[mine]
        eps = torch.randn(config.batch, *x0.shape[1:], generator=g, device=g.device)[mine]  # 4: eps ~ N(0, I)
        if config.classes is not None:
            dropped = torch.rand(config.batch, generator=g, device=g.device)[mine] < config.label_drop
            y = torch.where(dropped.to(y.device), config.classes - 1, y)
        loss = gradient_in_memory(state, network, x0, t, eps.to(x0.device), y)  # 5: gradient of ||eps - eps_hat||^2
        grad_norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip)
        state.step += 1
        lr = learning_rate(config, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.step()
        if distributed.rank() == 0:
            state.ema.update(state.model)
        yield Record(state.step, t, loss, grad_norm, lr)


def gradient(state: State, network: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, y: Tensor) -> Tensor:
    """Leave the gradient of the mean loss in the parameters, averaged over the ranks; return each image's loss, (B,).

    ``network`` is ``state.model``, or what `distributed.replicate` made of it. The batch goes through it in
    ``state.accumulate`` equal pieces, whose gradients add up. A network without classes does not see the labels ``y``.
    """

    def predict(xt: Tensor, t: Tensor, y: Tensor) -> Tensor:
        t, labels = t.to(xt.device, non_blocking=True), () if state.config.classes is None else (y,)
        if not state.fast:
            return cast(Tensor, network(xt, t, *labels))
        with torch.autocast(xt.device.type, torch.bfloat16):
            return cast(Tensor, network(xt, t, *labels)).float()

    network.train()
    state.optimizer.zero_grad()
    losses: list[Tensor] = []
    for x0_k, t_k, eps_k, y_k in zip(*(tensor.chunk(state.accumulate) for tensor in (x0, t, eps, y)), strict=True):
        last = len(losses) == state.accumulate - 1
        with nullcontext() if last else distributed.unsynchronised(network):
            loss = loss_of(state.config.schedule, partial(predict, y=y_k), x0_k, t_k, eps_k)
            torch.autograd.backward(loss.sum() / len(x0))
        losses.append(loss.detach())
    return torch.cat(losses)


def loss_of(
    schedule: Schedule | None, network: Callable[[Tensor, Tensor], Tensor], x0: Tensor, t: Tensor, eps: Tensor
) -> Tensor:
    """`loss_simple` with a schedule, `flow.loss` at tau = t / T without; (B,)."""
    if schedule is None:
        return flow.loss(flow.velocity(network), x0, t / flow.T, eps)
    return loss_simple(schedule, network, x0, t, eps)


def gradient_in_memory(state: State, network: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, y: Tensor) -> Tensor:
    """`gradient`; if the memory is too small for it, once, the same in twice as many pieces, now and from now on.

    Several ranks cannot do so: those that had memory enough would wait for ever. There the error is the end.
    """
    try:
        return gradient(state, network, x0, t, eps, y)
    except torch.OutOfMemoryError:
        if state.halved or distributed.ranks() > 1 or len(x0) % (2 * state.accumulate):
            raise
    # Not inside of the except: the error holds on to the memory of the step that failed.
    state.accumulate, state.halved = 2 * state.accumulate, True
    torch.cuda.empty_cache()
    return gradient(state, network, x0, t, eps, y)


def stratified_t(T: int, batch: int, generator: torch.Generator) -> Tensor:
    """(batch,) int64: one t out of each of ``batch`` equal parts of 1..T, in random order.

    Every t is equally likely, as in Algorithm 1, but each batch holds early and late times in the same shares, so that
    its mean loss varies less. In whole numbers, so that no rounding favours a t: 0..batch T - 1 is cut into ``batch``
    parts of T numbers, one is drawn out of each, and each t stands for ``batch`` numbers.
    """
    start_of_part = T * torch.randperm(batch, generator=generator)
    return (start_of_part + torch.randint(T, (batch,), generator=generator)) // batch + 1


def learning_rate(config: Config, step: int) -> float:
    """Of step 1, 2, ...: a linear rise to ``lr`` in step ``warmup``, then, with ``lr_decay``, a linear fall.

    The fall would reach 0 in the step after the last one that is planned, and stays there.
    """
    peak, end = max(1, config.warmup), config.steps + 1
    rise, fall = step / peak, (end - step) / max(1, end - peak) if config.lr_decay else 1.0
    return config.lr * max(0.0, min(1.0, rise, fall))


def check_pieces(batch: int, accumulate: int) -> None:
    """Raise ValueError unless ``batch`` falls into equal parts for the ranks, and each into ``accumulate`` pieces."""
    mine = distributed.part(batch)
    if (mine.stop - mine.start) % accumulate:
        raise ValueError(f"accumulate: expected a divisor of the {mine.stop - mine.start} images, got {accumulate}")


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
