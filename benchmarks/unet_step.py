"""Time one training step of our U-Net beside other libraries' of equal width, and count the memory that it needs.

    python benchmarks/unet_step.py --threads 1

A step is forward, mean squared error, backward, Adam, on the same batch of random 32x32 images. Beside ours: diffusers'
UNet2DModel as google/ddpm-cifar10-32 configures it, of the same width and number of weights, and, where it can be
imported (package denoising-diffusion-pytorch), lucidrains' Unet with full attention at 16 x 16 and in the middle, of
the same widths. All networks live in one process and take turns, and the order is swapped from round to round. Printed
is the median over the rounds of our time / theirs, with quartiles: below 1 we are faster. The memory is what a step of
a process of its own adds to its peak (ru_maxrss), weights, gradients and Adam included.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import partial

import diffusers
import torch
from paired import cpu_name, medians, ratio, take_turns
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


def lucidrains(width: int) -> nn.Module:
    """Widths and resolutions as ours; what cannot be chosen there (two blocks, linear attention) is as it is."""
    from denoising_diffusion_pytorch import Unet

    net: nn.Module = Unet(dim=width, dim_mults=(1, 2, 2, 2), full_attn=(False, True, False, False), dropout=0.1)
    return net


MAKERS: dict[str, Callable[[int], nn.Module]] = {
    "ours": lambda width: UNet(width=width),
    "diffusers": theirs,
    "lucidrains": lucidrains,
}


def available() -> list[str]:
    try:
        lucidrains(8)
    except ImportError as error:
        print(f"lucidrains is left out: {error} (pip install denoising-diffusion-pytorch)")
        return ["ours", "diffusers"]
    return list(MAKERS)


def training_step(net: nn.Module, batch: int) -> Callable[[], float]:
    """A function that takes one step and returns its seconds."""
    torch.manual_seed(0)
    adam = torch.optim.Adam(net.parameters(), lr=2e-4)
    xt, eps = torch.randn(2, batch, 3, 32, 32)
    t = torch.randint(1, 1000, (batch,))  # a time for all, also for those that count from 0

    def step() -> float:
        start = time.perf_counter()
        out = net(xt, t)
        loss = nn.functional.mse_loss(out if isinstance(out, Tensor) else out.sample, eps)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return time.perf_counter() - start

    return step


def peak_memory(name: str, width: int, batch: int, threads: int, answer: "multiprocessing.Queue[float]") -> None:
    """Into ``answer``: the MB by which making the network and two steps raise the peak of this process."""
    import resource

    torch.set_num_threads(threads)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    training_step(MAKERS[name](32), 1)()  # a small one first: what the library itself loads is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = training_step(MAKERS[name](width), batch)
    step()
    step()
    answer.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 1e6)


def in_a_process_of_its_own(name: str, width: int, batch: int, threads: int) -> float:
    context = multiprocessing.get_context("forkserver")  # a process that was spawned inherits the peak of its parent
    answer: multiprocessing.Queue[float] = context.Queue()
    process = context.Process(target=peak_memory, args=(name, width, batch, threads, answer))
    process.start()
    megabytes = answer.get()
    process.join()
    return megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128], help="64 is 9 M weights, 128 is 36 M")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if min(*args.widths, args.rounds - 1, args.batch, args.threads) < 1:
        parser.error("expected widths, batch and threads >= 1, and at least 2 rounds for the quartiles")
    if any(width % 32 for width in args.widths):
        parser.error("expected widths that are multiples of 32, the number of groups in diffusers' norms")
    torch.set_num_threads(args.threads)
    print(f"{cpu_name()}, {args.threads} threads; torch {torch.__version__}, diffusers {diffusers.__version__}")
    names = available()

    for width in args.widths:
        print(f"width {width}, batch {args.batch}, {args.rounds} rounds")
        nets = [MAKERS[name](width) for name in names]
        times = take_turns([training_step(net, args.batch) for net in nets], args.rounds)
        memory = map(partial(in_a_process_of_its_own, width=width, batch=args.batch, threads=args.threads), names)
        for i, (name, net, seconds, mb) in enumerate(zip(names, nets, medians(times), memory, strict=True)):
            weights = sum(p.numel() for p in net.parameters())
            print(f"  {name:10} {weights:>11,} weights, median step {seconds:.3f} s, peak memory {mb:,.0f} MB")
            if i:
                print(f"  {'':10} our time / theirs: {ratio(times, i)}", flush=True)


if __name__ == "__main__":
    main()
