"""A small network for toy data in 1 or 2 dimensions: eps_model(xt, t) without convolutions."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_edu.unet import time_embedding


class MLP(nn.Module):
    """eps_model(xt, t) for xt of shape (B, dim): ``depth`` hidden layers of ``width`` units with SiLU.

    Every hidden layer adds a linear map of the `time_embedding` of t, which has size width (hence even and at least 4):
    told t only once, at the input, the network trains slowly. The last layer starts at zero, so that the output is
    exactly 0 at initialisation. ``config`` holds the arguments: ``MLP(**mlp.config)`` rebuilds it. Raises ValueError,
    naming the argument.
    """

    def __init__(self, dim: int, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim: expected at least 1, got {dim}")
        if width < 4 or width % 2:
            raise ValueError(f"width: expected an even number >= 4, got {width}")
        if depth < 1:
            raise ValueError(f"depth: expected at least 1, got {depth}")
        self.config: dict[str, Any] = {"dim": dim, "width": width, "depth": depth}
        self.hidden = nn.ModuleList(nn.Linear(dim if i == 0 else width, width) for i in range(depth))
        self.time = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """eps_hat, of the shape and dtype of xt (B, dim); t is int64 of shape (B,) and holds 1..T.

        Raises ValueError for another shape or dtype.
        """
        dim, dtype = self.config["dim"], self.last.weight.dtype
        if not isinstance(xt, Tensor) or xt.shape[1:] != (dim,) or xt.dtype != dtype:
            got = f"{xt.dtype} of shape {tuple(xt.shape)}" if isinstance(xt, Tensor) else type(xt).__name__
            raise ValueError(f"xt: expected {dtype} of shape (B, {dim}), got {got}")
        emb = time_embedding(t, self.config["width"]).to(dtype)  # (B, width)
        if len(t) != len(xt):
            raise ValueError(f"t: expected one time per point, {len(xt)}, got {len(t)}")
        h = xt
        for hidden, time in zip(self.hidden, self.time, strict=True):
            h = F.silu(hidden(h) + time(emb))  # (B, width)
        out: Tensor = self.last(h)
        return out
