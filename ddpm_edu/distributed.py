"""Many GPUs, many machines: one process for each GPU (a rank), all of them started by torchrun, one model among them.

Every rank holds the whole network and computes the gradient on its part of each batch; the gradients are averaged while
they are computed. Each rank draws the random numbers of the whole batch from the same generator and keeps its part, so
that the batch, its times and its noise do not depend on the number of ranks. Without torchrun there is one rank, and
every function below leaves its argument as it is.
"""

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def rank() -> int:
    """This process: 0..ranks() - 1. Rank 0 keeps the EMA and writes the files."""
    return int(os.environ.get("RANK", 0))


def ranks() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """The number of this process on its own machine, and of its GPU there."""
    return int(os.environ.get("LOCAL_RANK", 0))


def part(batch: int) -> slice:
    """Where this rank's images lie in a batch. ValueError where the batch cannot be shared out evenly."""
    if batch % ranks():
        raise ValueError(f"batch: expected a multiple of the {ranks()} ranks, got {batch}")
    size = batch // ranks()
    return slice(rank() * size, (rank() + 1) * size)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other ranks; tensors on the CPU travel by gloo, those on a GPU by NCCL.

    What `replicate` made must be gone at the end: it would wait for ever to take leave of a group that is no more.
    """
    if ranks() == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield
    # Not after an error, when there may be nobody left to wait for.
    largest(0)  # who leaves first must not leave while rank 0 is writing: torchrun would end what is left
    dist.destroy_process_group()


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """The same network, whose backward pass leaves the gradient averaged over the ranks in every parameter."""
    if ranks() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def unsynchronised(network: nn.Module) -> AbstractContextManager[None]:
    """Where only a piece of the gradient is computed: averaging can wait for the last piece."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def gather(x: Tensor) -> Tensor:
    """The tensors of all ranks in a row, along the first dimension."""
    if ranks() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(ranks())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def largest(wish: int) -> int:
    """The largest of what the ranks wish for: clocks differ, yet all must stop after the same step.

    It travels between the CPUs, so that no GPU is waited for. RuntimeError where a rank is gone.
    """
    if ranks() == 1:
        return wish
    wishes = torch.tensor(wish)
    dist.all_reduce(wishes, op=dist.ReduceOp.MAX)
    return int(wishes)


def seed_dropout(seed: int, step: int) -> None:
    """Give every rank but the first a global random stream of its own, or all parts of a batch would be masked alike.

    Rank 0 keeps the stream that its checkpoint holds. So dropout, and nothing else, depends on the number of ranks,
    and on where a run with several ranks was resumed.
    """
    if rank():
        torch.manual_seed(random.Random(f"{seed} {rank()} {step}").getrandbits(63))


def rank_is_gone(error: RuntimeError) -> bool:
    """Did this error come from talking to the other ranks?"""
    return ranks() > 1 and any(sign in str(error) for sign in ("gloo", "NCCL", "Connection"))


def device() -> str:
    """The GPU of this process, or the CPU where there is none. ValueError for more processes than GPUs."""
    if not torch.cuda.is_available():
        return "cpu"
    if local_rank() >= torch.cuda.device_count():
        raise ValueError(f"torchrun: expected at most {torch.cuda.device_count()} processes, one for each GPU")
    return f"cuda:{local_rank()}"
