"""Time one training step of our U-Net beside diffusers' UNet2DModel of equal width and parameter count.

    python benchmarks/unet_step.py --threads 1

A step is forward, mean squared error, backward, Adam, on the same batch of random 32x32 images. Both networks live in
one process and take turns, and the order is swapped from pair to pair, so that a change in the machine's load hits
both. Printed is the median over the pairs of our time / diffusers' time, with quartiles: below 1 we are faster.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from torch import Tensor, nn

from ddpm_edu.unet import UNet


def theirs(width: int) -> nn.Module:
    """The configuration of google/ddpm-cifar10-32, at any width."""
    return diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(width, 2 * width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        dropout=0.1,
    )


def training_step(net: nn.Module, xt: Tensor, t: Tensor, eps: Tensor) -> Callable[[], float]:
    """A function that takes one step and returns its seconds."""
    adam = torch.optim.Adam(net.parameters(), lr=2e-4)

    def step() -> float:
        start = time.perf_counter()
        out = net(xt, t)
        loss = nn.functional.mse_loss(out if isinstance(out, Tensor) else out.sample, eps)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return time.perf_counter() - start

    return step


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128], help="64 is 9 M parameters, 128 is 36 M")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if min(*args.widths, args.pairs - 1, args.batch, args.threads) < 1:
        parser.error("expected widths, batch and threads >= 1, and at least 2 pairs for the quartiles")
    torch.set_num_threads(args.threads)
    print(f"{cpu_name()}, {args.threads} threads; torch {torch.__version__}, diffusers {diffusers.__version__}")

    for width in args.widths:
        torch.manual_seed(0)
        xt, eps = torch.randn(2, args.batch, 3, 32, 32)
        t = torch.randint(1, 1001, (args.batch,))
        nets = UNet(width=width), theirs(width)
        sizes = [sum(p.numel() for p in net.parameters()) for net in nets]
        steps = training_step(nets[0], xt, t, eps), training_step(nets[1], xt, t - 1, eps)
        for step in steps:  # warm-up: the first step allocates, Adam's state included
            step()
        seconds: list[tuple[float, float]] = []
        for pair in range(args.pairs):
            if pair % 2:
                second, first = steps[1](), steps[0]()
                seconds.append((first, second))
            else:
                seconds.append((steps[0](), steps[1]()))
        low, median, high = statistics.quantiles([a / b for a, b in seconds], n=4)
        ours_s, theirs_s = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"width {width}, batch {args.batch}, {args.pairs} pairs")
        print(f"  parameters  ours {sizes[0]:,}  diffusers {sizes[1]:,}")
        print(f"  median step  ours {ours_s:.3f} s  diffusers {theirs_s:.3f} s")
        print(f"  paired ratio ours / diffusers  median {median:.3f}  quartiles {low:.3f} {high:.3f}", flush=True)


if __name__ == "__main__":
    main()
