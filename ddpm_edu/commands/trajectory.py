"""The command trajectory: reverse chains with their predicted x_0, recorded for chapter 13."""

import argparse

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import distributed, trajectory
from ddpm_edu.checkpoint import load_network, tensor_hash
from ddpm_edu.commands.files import check_writable, network_of, without_label
from ddpm_edu.sampling import EpsModel
from ddpm_edu.unet import UNet


def trajectory_command(args: argparse.Namespace) -> int:
    model, s, weights_card = network_of(args)
    if s is None:
        raise ValueError(f"argument --weights: {args.weights} is a flow, which has no trajectory of this kind")
    raw = None
    if args.without_ema:
        raw, raw_schedule, _ = load_network(args.without_ema, ema=False)
        if raw.config != model.config or raw_schedule is None or not torch.equal(raw_schedule.beta, s.beta):
            raise ValueError(
                f"argument --without-ema: expected the network and the schedule of {args.weights}, got others"
            )
        raw.to(distributed.device())
    check_writable("--out", args.out)
    source = {"sha256": tensor_hash(model.state_dict()), "card": weights_card}
    with tqdm(total=trajectory.evaluations(s.T, raw is not None), desc="sampling", unit="image") as bar:

        def counted(network: UNet) -> EpsModel:
            eps_model = without_label(network)

            def counting(xt: Tensor, t: Tensor) -> Tensor:
                bar.update(len(xt))
                return eps_model(xt, t)

            return counting

        tr = trajectory.record(
            s,
            counted(model.to(distributed.device())),
            model.image_shape,
            seed=args.seed,
            raw_model=counted(raw) if raw else None,
            source=source,
            device=distributed.device(),
        )
    trajectory.save(args.out, tr)
    print(f"Wrote {args.out}: {len(tr.xt)} chains of {s.T} steps, {args.out.stat().st_size:,} bytes.")
    return 0
