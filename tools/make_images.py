"""Make the pictures in images/: python tools/make_images.py (`make images`), about three minutes on two CPU cores.

noise_and_back.png: digits of the data going to noise, and noise going to new digits, by a network that is trained here
(preset `digits`, seed 0). cifar10_samples.png, cifar10_chain.png: what the short CIFAR-10 run of the README gives, with
its commands; left as they are where CIFAR-10 is not at hand.
"""

import sys
import tempfile
from pathlib import Path

import torch

from ddpm_edu import checkpoint, data, gaussian, plotting, sampling
from ddpm_edu.__main__ import main

IMAGES = Path(__file__).resolve().parents[1] / "images"
SHOWN = [0, 20, 40, 60, 80, 100, 140, 200]  # of T = 200


def noise_and_back(weights: Path) -> bytes:
    """Rows 1, 2: two digits along the forward chain. Rows 3, 4: two reverse chains of the network, same times."""
    model, s, _ = checkpoint.load_weights(weights)
    generator = torch.Generator().manual_seed(0)
    x = data.to_float(data.load("digits", "train").images[:2])
    forward = {0: x}
    for t in range(1, s.T + 1):
        x = gaussian.q_step(s, x, t, torch.randn(x.shape, generator=generator))
        forward[t] = x
    reverse = {step.t: step.x for step in sampling.sample(s, model, x.shape, generator=generator, clip_x0=True)}
    rows = [torch.stack([chain[t][k] for t in SHOWN]) for chain in (forward, reverse) for k in (0, 1)]
    axes = plotting.image_strip(rows, [f"t = {t}" for t in SHOWN], ["forward", "forward", "back", "back"])
    return plotting.png(axes)


def run() -> None:
    plotting.use_style()
    with tempfile.TemporaryDirectory() as folder:
        command("train", "--data", "digits", "--out", folder)
        (IMAGES / "noise_and_back.png").write_bytes(noise_and_back(Path(folder) / "weights.safetensors"))
    try:
        data.load("cifar10", "train")
    except FileNotFoundError as error:
        print(f"{error}; the pictures of the CIFAR-10 run stay as they are")
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "weights.safetensors")
        command("train", "--data", "cifar10", "--out", folder)
        samples, chain = str(IMAGES / "cifar10_samples.png"), str(IMAGES / "cifar10_chain.png")
        command("sample", "--weights", weights, "--n", "36", "--steps", "50", "--out", samples)
        command("sample", "--weights", weights, "--n", "1", "--steps", "100", "--chain", "--out", chain)


def command(*arguments: str) -> None:
    """One command line of `python -m ddpm_edu`; the first that fails ends it all."""
    if status := main(arguments):
        sys.exit(status)


if __name__ == "__main__":
    run()
