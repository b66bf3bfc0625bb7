"""Time a step of our samplers without the network, beside the schedulers of diffusers.

    python benchmarks/sampler_overhead.py --threads 1

The network is a function that costs nothing: it returns the same tensor always. One of our runs is a whole chain of
`sampling.sample` or `sampling.ddim` with clipped x_0; one of theirs is the loop of their pipelines, a call of ``step``
for each time. Ours draws noise in every step of DDIM too, theirs not. They take turns in one process. Counted is the
CPU time of the process, so that others on the machine disturb little; a ratio below 1 means that we are faster.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import diffusers
import torch
from paired import cpu_name, medians, ratio, take_turns
from torch import Tensor

from ddpm_edu import sampling, schedules

STEPS = {"DDPM": 1000, "DDIM": 100}


def ours(name: str, eps: Tensor) -> float:
    start = time.process_time()
    args = {"generator": torch.Generator(), "clip_x0": True}
    run = sampling.sample if name == "DDPM" else partial(sampling.ddim, steps=STEPS[name])
    for _ in run(schedules.linear(), lambda xt, t: eps, tuple(eps.shape), **args):
        pass
    return time.process_time() - start


def theirs(name: str, eps: Tensor) -> float:
    start = time.process_time()
    generator = torch.Generator()
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_large") if name == "DDPM" else diffusers.DDIMScheduler()
    scheduler.set_timesteps(STEPS[name])
    x = torch.randn(eps.shape, generator=generator)
    for t in scheduler.timesteps:
        x = scheduler.step(eps, t, x, generator=generator).prev_sample
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if min(*args.batches, args.rounds - 1, args.threads) < 1:
        parser.error("expected batches and threads >= 1, and at least 2 rounds for the quartiles")
    torch.set_num_threads(args.threads)
    print(f"{cpu_name()}, {args.threads} threads; torch {torch.__version__}, diffusers {diffusers.__version__}")

    for name, steps in STEPS.items():
        for batch in args.batches:
            eps = torch.randn(batch, 3, 32, 32)
            runs: list[Callable[[], float]] = [partial(ours, name, eps), partial(theirs, name, eps)]
            times = take_turns(runs, args.rounds)
            us = [1e6 * seconds / steps for seconds in medians(times)]
            print(
                f"{name}, batch {batch}: a step takes us {us[0]:.0f} us, diffusers {us[1]:.0f} us; "
                f"paired ratio {ratio(times, 1)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
