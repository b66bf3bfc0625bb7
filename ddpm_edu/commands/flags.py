"""The flags of every command, and what they accept."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ddpm_edu import distributed
from ddpm_edu.checkpoint import shipped, shipped_names
from ddpm_edu.classifier import RECIPES
from ddpm_edu.commands import PROG
from ddpm_edu.commands.evaluate import EVALUATION_DRAWS, evaluate_command
from ddpm_edu.commands.files import data_command, export_command
from ddpm_edu.commands.judge import classifier_command, judge_command
from ddpm_edu.commands.sample import sample_command
from ddpm_edu.commands.train import DEFAULT_PRESET, train_command
from ddpm_edu.commands.trajectory import trajectory_command
from ddpm_edu.presets import preset_names

TRAIN = "Train a network to predict noise (Algorithm 1); small digits by default, which need no download."
SAMPLE = "Draw images from trained weights and write them as one picture."
EVALUATE = (
    "Measure trained weights on test and training images: an upper bound on their cost in bits/dim (fewer is better)."
)
JUDGE = "Let a classifier judge samples of trained weights, beside real images: does it know them, are they copies?"
TRAJECTORY = "Record how images come out of noise: x_t and the predicted x_0 on the way, for chapter 13."
EXPORT = "Write weights for others: small in our own format, or as a folder that the library diffusers opens."
CLASSIFIER = "Train a small classifier, the one that judges samples."
DATA = "Download a data set once, checked by its hash; it stays on this machine."


class Parser(argparse.ArgumentParser):
    """argparse with its errors in one line, as all others here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n" if distributed.local_rank() == 0 else None)


def parser() -> Parser:
    main_parser = Parser(prog=PROG, description="Train a diffusion model, draw images from it, measure it, get data.")
    commands = main_parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], what: str, example: str) -> Parser:
        added = commands.add_parser(
            name,
            help=what,
            description=what,
            epilog=f"example:\n  {PROG} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    p = command("train", train_command, TRAIN, "train --data digits --steps 300 --out runs/first")
    p.add_argument("--data", choices=list(DEFAULT_PRESET), help="the images to learn (default: digits)")
    p.add_argument("--preset", metavar="NAME", help=f"network and settings: {', '.join(preset_names())}")
    p.add_argument("--schedule", metavar="FILE.json", type=Path, help="your own betas (default: the preset's)")
    p.add_argument("--steps", metavar="N", type=whole(1), help="steps in all, resumed ones included (default: preset)")
    p.add_argument(
        "--time-budget", metavar="S", type=seconds, default=math.inf, help="stop after S seconds, everything written"
    )
    p.add_argument("--batch", metavar="B", type=whole(1), help="images in a step (default: the preset's)")
    p.add_argument("--accumulate", metavar="N", type=whole(1), default=1, help="compute a step in N pieces (memory)")
    p.add_argument("--seed", metavar="S", type=whole(0), help="of all random numbers (default: 0)")
    p.add_argument("--threads", metavar="N", type=whole(1, 1024), help="CPU threads (default: torch decides)")
    p.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: runs/ and the preset's name)")
    p.add_argument("--resume", action="store_true", help="go on with the checkpoint in DIR, exactly where it stopped")

    p = command("sample", sample_command, SAMPLE, "sample --weights digits --out samples.png")
    add_weights(p)
    p.add_argument("--n", metavar="N", type=whole(1), help="number of images (default: 64, or 4 with --chain)")
    add_sampling(p)
    p.add_argument("--chain", action="store_true", help="a strip instead of a grid: x_t and predicted x_0 on the way")
    p.add_argument("--out", metavar="FILE.png", type=png, required=True, help="the picture to write")

    p = command("evaluate", evaluate_command, EVALUATE, "evaluate --weights digits --data digits")
    add_weights(p)
    p.add_argument("--data", choices=list(DEFAULT_PRESET), required=True, help="whose test images to measure")
    p.add_argument("--n", metavar="N", type=whole(2), default=100, help="images of either split (default: 100)")
    p.add_argument(
        "--draws",
        metavar="K",
        type=all_or_whole,
        help=f"values of t for each image, or all (default: {EVALUATION_DRAWS})",
    )
    p.add_argument("--json", metavar="FILE", type=Path, help="write the numbers and the card of the weights here too")

    p = command("judge", judge_command, JUDGE, "judge --weights digits-conditional --guidance 1.5")
    add_weights(p)
    p.add_argument("--n", metavar="N", type=whole(1), default=1000, help="number of samples (default: 1000)")
    add_sampling(p)
    p.add_argument("--json", metavar="FILE", type=Path, help="write the numbers here too")
    p.add_argument(
        "--pairs",
        metavar="FILE.png",
        type=png,
        help="CIFAR-10: draw the eight samples that are closest to training images",
    )

    p = command("trajectory", trajectory_command, TRAJECTORY, "trajectory --weights digits --out runs/digits.npz")
    add_weights(p)
    p.add_argument("--without-ema", metavar="FILE", type=Path, help="a checkpoint.pt whose newest weights sample too")
    p.add_argument("--seed", metavar="S", type=whole(0), default=0, help="of the noise (default: 0)")
    p.add_argument("--out", metavar="FILE.npz", type=Path, required=True, help="the trajectory to write")

    p = command("export", export_command, EXPORT, "export --weights digits --out runs/digits.safetensors")
    add_weights(p)
    p.add_argument(
        "--out",
        metavar="OUT",
        type=Path,
        required=True,
        help="FILE.safetensors: our own format, in bf16; anything else: a folder in the layout of diffusers",
    )

    p = command("classifier", classifier_command, CLASSIFIER, "classifier --data digits --out runs/judge.safetensors")
    p.add_argument("--data", choices=list(RECIPES), required=True, help="the images to learn")
    p.add_argument("--epochs", metavar="N", type=whole(1), help="times to see each image (default: the data set's)")
    p.add_argument("--seed", metavar="S", type=whole(0), default=0, help="of all random numbers (default: 0)")
    p.add_argument("--threads", metavar="N", type=whole(1, 1024), help="CPU threads (default: torch decides)")
    p.add_argument("--out", metavar="FILE", type=Path, required=True, help="the weights to write")

    p = command("data", data_command, DATA, "data cifar10 --dir data")
    p.add_argument("name", choices=["cifar10"], help="the data set to download")
    p.add_argument(
        "--dir", metavar="DIR", type=Path, help="where to put it (default: DDPM_EDU_DATA or the user's cache)"
    )
    return main_parser


def add_weights(p: Parser) -> None:
    names = ", ".join(name for name in shipped_names() if not name.endswith("judge"))
    p.add_argument(
        "--weights",
        metavar="FILE",
        type=weights,
        required=True,
        help=f"weights.safetensors or checkpoint.pt of a training run, a folder in the layout of diffusers, "
        f"or the name of shipped weights: {names}",
    )
    p.add_argument("--no-ema", action="store_true", help="of a checkpoint.pt the newest weights, not their average")


def add_sampling(p: Parser) -> None:
    p.add_argument("--steps", metavar="K", type=whole(1), help="fewer than T: DDIM with K steps (default: all T)")
    p.add_argument("--eta", metavar="E", type=share, help="noise in DDIM: 0 none (default), 1 the posterior's")
    p.add_argument("--guidance", metavar="W", type=number, help="of a network with classes (default: 1, none)")
    p.add_argument("--seed", metavar="S", type=whole(0), default=0, help="of the noise (default: 0)")


def whole(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    """An argument type: a whole number from ``low`` to ``high``, by default the largest that torch takes as a seed."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            at_most = f" and <= {high}" if high < 2**63 - 1 else ""
            raise argparse.ArgumentTypeError(f"expected a whole number >= {low}{at_most}, got {text!r}")
        return value

    return parse


def all_or_whole(text: str) -> int | str:
    return text if text == "all" else whole(1)(text)


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value


def share(text: str) -> float:
    if not 0 <= (value := number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds > 0, got {text!r}")
    return value


def weights(text: str) -> Path:
    return shipped(text) if text in shipped_names() else Path(text)


def png(text: str) -> Path:
    if not text.endswith(".png"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .png, got {text!r}")
    return Path(text)
