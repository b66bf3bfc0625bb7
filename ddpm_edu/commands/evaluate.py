"""The command evaluate: bits/dim of test and training images under trained weights."""

import argparse
import json
import math
import time
from dataclasses import asdict

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import data, distributed
from ddpm_edu.checkpoint import write_whole
from ddpm_edu.commands.files import check_writable, network_of, without_label
from ddpm_edu.evaluate import GREY_LEVELS, bounds, eps_mse, lossless_bits, on_levels, variances
from ddpm_edu.metrics import device_name

EVALUATION_DRAWS = 100  # values of t for each image
EVALUATION_SEED = 0


def evaluate_command(args: argparse.Namespace) -> int:
    model, s, weights_card = network_of(args)
    if s is None:
        raise ValueError(f"argument --weights: {args.weights} is a flow, whose bound in bits/dim is not known here")
    if s.T < 2:
        raise ValueError(f"argument --weights: expected a schedule of at least 2 steps, got T = 1 in {args.weights}")
    draws = s.T - 1 if args.draws == "all" else args.draws or EVALUATION_DRAWS
    splits = {split: data.load(args.data, split).images for split in ("test", "train")}
    mse_draws = min(draws, EVALUATION_DRAWS)
    n, n_mse = args.n, max(args.n, math.ceil(2 * s.T * math.log(s.T + 1) / mse_draws))
    if n > len(splits["test"]):
        raise ValueError(
            f"argument --n: expected at most the {len(splits['test'])} test images of {args.data}, got {n}"
        )
    if n + n_mse > len(splits["train"]):
        raise ValueError(
            f"argument --n: expected at most {len(splits['train'])} training images of {args.data}, got {n} for the "
            f"bound and {n_mse} others for the variances"
        )
    wanted, shape = model.image_shape, tuple(splits["test"].shape[1:])
    if shape != wanted:
        raise ValueError(f"argument --data: {args.weights} is for images {wanted}, got {args.data} {shape}")
    if args.json:
        check_writable("--json", args.json)
    levels, started = GREY_LEVELS[args.data], time.perf_counter()
    network = without_label(model.to(distributed.device()))

    def images(split: str, part: slice) -> Tensor:
        return on_levels(splits[split][part], levels).to(distributed.device())

    def generator() -> torch.Generator:
        return torch.Generator(distributed.device()).manual_seed(EVALUATION_SEED)

    with tqdm(total=2 * n * (draws + 1) + n_mse * mse_draws, desc="evaluating", unit="image") as bar:

        def counted(xt: Tensor, t: Tensor) -> Tensor:
            bar.update(len(xt))
            return network(xt, t)

        others = images("train", slice(n, n + n_mse))
        mse = eps_mse(s, counted, others, generator=generator(), draws=mse_draws, clip_x0=True)
        var = variances(s, mse)
        found = {
            split: bounds(
                s,
                counted,
                images(split, slice(n)),
                generator=generator(),
                draws=draws,
                var=var,
                bins=levels,
                clip_x0=True,
            )
            for split in splits
        }
    codecs = lossless_bits(splits["test"][:n])
    every = "every t" if draws == s.T - 1 else f"{draws} values of t"
    print(
        f"bits/dim of {n} test and {n} training images of {args.data} with {levels} grey levels, {args.weights} "
        f"(upper bound, Ho et al. Eq. 5; clipped x_0, {every} for each image):"
    )
    print("       variances       L_T  L_1..T-1     L_0  bits/dim")
    for split, by_variance in found.items():
        for name, b in by_variance.items():
            terms = f"{b.L_T:9.4f}{b.L_t:10.3f}{b.L_0:8.3f}{b.total:10.3f} +- {b.std_error:.3f}"
            print(f"{split:<7}{name:<10}{terms}")
    print(f"test, lossless, each image a file: {', '.join(f'{codec} {bits:.3f}' for codec, bits in codecs.items())}")
    if args.json:
        report = {
            "weights": args.weights.name,
            "data": args.data,
            "levels": levels,
            "draws": draws,
            "seed": EVALUATION_SEED,
            "device": device_name(torch.device(distributed.device())),
            "seconds": round(time.perf_counter() - started, 1),
            "bounds": {split: {name: asdict(b) for name, b in of.items()} for split, of in found.items()},
            "eps_mse": mse[1:].tolist(),
            "codecs": codecs,
            "card": weights_card,
        }
        write_whole(args.json, (json.dumps(report, indent=2) + "\n").encode())
        print(f"Wrote {args.json}.")
    return 0
