"""Weights and data in and out: --weights and --out of every command, the commands export and data."""

import argparse
import shlex
import tempfile
from pathlib import Path
from typing import Any

import torch

from ddpm_edu import data
from ddpm_edu.checkpoint import load_network, load_weights, save_weights
from ddpm_edu.interchange import load_diffusers, save_diffusers
from ddpm_edu.sampling import EpsModel
from ddpm_edu.schedules import Schedule
from ddpm_edu.unet import UNet


def network_of(args: argparse.Namespace) -> tuple[UNet, Schedule | None, dict[str, Any]]:
    """Network (on the CPU, in evaluation mode), schedule and card of --weights: a file, a folder or a checkpoint."""
    path: Path = args.weights
    if path.suffix == ".pt":
        return load_network(path, ema=not args.no_ema)
    if args.no_ema:
        raise ValueError(f"argument --no-ema: expected a checkpoint.pt, which holds the newest weights too, got {path}")
    like_a_hub = len(path.parts) == 2 and not path.suffix  # such as google/ddpm-cifar10-32
    if path.is_dir() or (like_a_hub and not path.exists()):
        model, s = load_diffusers(path)
        return model, s, {"source": path.name, "parameters": sum(p.numel() for p in model.parameters())}
    return load_weights(path)


def without_label(model: UNet) -> EpsModel:
    """A network with classes as one that is told none."""
    classes = model.config["classes"]
    return model if classes is None else lambda xt, t: model(xt, t, torch.full_like(t, classes - 1))


def check_writable(argument: str, path: Path) -> None:
    """Make the folder of ``path`` and try to write in it, before hours of work are lost for want of a right."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(
            f"argument {argument}: expected a folder to write in, got {path.parent} ({error.strerror})"
        ) from None
    if path.is_dir():
        raise ValueError(f"argument {argument}: expected the name of a file, got the folder {path}")


def export_command(args: argparse.Namespace) -> int:
    model, s, weights_card = network_of(args)
    if args.out.suffix == ".safetensors":
        check_writable("--out", args.out)
        save_weights(args.out, model, s, weights_card, torch.bfloat16)
        print(f"Wrote {args.out}, {args.out.stat().st_size:,} bytes: weights rounded to bf16, for --weights.")
        return 0
    if s is None:
        raise ValueError(
            f"argument --out: expected the name of a .safetensors file, since {args.weights} is a flow, got {args.out}"
        )
    save_diffusers(args.out, model, s)
    print(f"Wrote {args.out}: a folder for diffusers' DDPMPipeline.from_pretrained, and for --weights.")
    return 0


def data_command(args: argparse.Namespace) -> int:
    print(f"CIFAR-10 is in {data.download_cifar10(args.dir)}.")
    if args.dir:
        print(f"So that training finds it: export DDPM_EDU_DATA={shlex.quote(str(args.dir))}")
    return 0
