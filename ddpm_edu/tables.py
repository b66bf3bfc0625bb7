"""Looking a number up in a table of shape (T + 1,), for one time or for one time per image.

Apart from `schedules`, which makes the tables, and used under its name: ``schedules.at``.
"""

from numbers import Integral

import torch
from torch import Tensor


def at(table: Tensor, t: int | Tensor, x: Tensor, first: int = 0) -> Tensor:
    """table[t], shaped so that it multiplies x: (B, 1, ..., 1) for t of shape (B,), 0-d for an int t.

    ``table`` has shape (T + 1,); the result keeps its dtype (cast the finished coefficient, not the table).
    ``t`` is an int, or an int64 tensor of shape (B,) where x has shape (B, ...); one on the CPU fits any x. ValueError
    for t outside first..T (Python's table[-1] would wrap silently), for another dtype and for another shape.
    """
    T = len(table) - 1
    if not isinstance(t, Tensor):
        if isinstance(t, bool) or not isinstance(t, Integral):
            raise ValueError(f"t: expected an int or an int64 tensor of shape (B,), got {t!r}")
        if not first <= t <= T:
            raise ValueError(f"t: expected {first}..{T}, got {t}")
        return table[int(t)].to(x.device)
    if t.dtype != torch.int64 or t.ndim != 1 or t.shape != x.shape[:1]:
        raise ValueError(f"t: expected an int or an int64 tensor of shape {tuple(x.shape[:1])}, got {describe(t)}")
    if len(t) and not (first <= int(t.min()) and int(t.max()) <= T):
        raise ValueError(f"t: expected {first}..{T}, got values from {int(t.min())} to {int(t.max())}")
    return table.to(t.device)[t].reshape(-1, *(1,) * (x.ndim - 1)).to(x.device, non_blocking=not t.is_cuda)


def describe(value: object) -> str:
    """For an error message: dtype and shape of a tensor, type and value of anything else."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"
