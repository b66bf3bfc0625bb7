"""The commands judge and classifier: a classifier judges samples beside real images, and another is trained to."""

import argparse
import io
import json
import time
from dataclasses import asdict

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import data, distributed
from ddpm_edu.checkpoint import shipped, write_whole
from ddpm_edu.classifier import RECIPES, accuracy, load_classifier, save_classifier, train_classifier
from ddpm_edu.commands.files import check_writable
from ddpm_edu.commands.sample import Source, grid
from ddpm_edu.evaluate import Comparison, Judgement, Memorisation, compare, judge
from ddpm_edu.metrics import device_name


def judge_command(args: argparse.Namespace) -> int:
    source = Source(args)
    name = source.card.get("data")
    if name not in RECIPES:
        known = " or ".join(RECIPES)
        raise ValueError(f"argument --weights: expected a card that names {known} as data, got {args.weights}: {name}")
    train_images, test_images = (data.load(name, split) for split in ("train", "test"))
    small, m = name == "digits", len(test_images.images)
    if small and args.n < m:
        raise ValueError(f"argument --n: expected at least {m} samples, got {args.n}")
    if not small and not 4 <= args.n <= m:
        raise ValueError(f"argument --n: expected 4 to {m} samples, as there are {m} test images, got {args.n}")
    if small and args.pairs:
        raise ValueError(f"argument --pairs: expected weights for CIFAR-10, got {args.weights} for {name}")
    classifier = load_classifier(shipped(f"{name}-judge"))
    for argument, path in (("--json", args.json), ("--pairs", args.pairs)):
        if path:
            check_writable(argument, path)
    *_, last = tqdm(source.chain(args.n), total=source.steps + 1, desc="sampling")
    x, y = last.x.cpu(), source.labels(args.n)
    said = f"{args.n} samples of {args.weights}, seed {args.seed}, {source.steps} steps ({source.sampler}), against"
    report = {"steps": source.steps, "seed": args.seed, "guidance": source.guidance}
    if small:
        found = judge(x, classifier, train_images, test_images, None if y is None else y.cpu())
        print(f"{said} {m} test images of {name}:")
        print_judgement(found, source.guidance)
        report |= asdict(found)
    else:
        compared = compare(x, classifier, train_images, test_images, args.seed)
        print(f"{said} {args.n} test images of {name}:")
        print_comparison(compared)
        device = device_name(torch.device(distributed.device()))  # the noise of a seed depends on it
        report |= {"sampler": source.sampler, "device": device, "card": source.card, **asdict(compared)}
    if args.json:
        write_whole(args.json, (json.dumps(report, indent=2) + "\n").encode())
        print(f"Wrote {args.json}.")
    if args.pairs:
        write_whole(args.pairs, pairs_png(data.to_uint8(x), train_images.images, compared.memorisation))
        print(f"Wrote {args.pairs}: samples, and to the right of each the nearest training image.")
    return 0


def print_judgement(found: Judgement, guidance: float) -> None:
    print(
        f"  a sure class (p > 0.8)     {found.confident:.3f} of the samples, {found.confident_test:.3f} of the test "
        f"images, on which the classifier is right for {found.accuracy_test:.3f}\n"
        f"  samples of each class      {' '.join(map(str, found.histogram))}\n"
        f"  Fréchet distance           {found.frechet:.2f}, of real training images {found.frechet_test:.2f}\n"
        f"  nearer to a training image {found.nearer_to_train:.3f} of the samples (0.5: no preference)"
    )
    if found.hit is not None:
        print(f"  of the class asked for     {found.hit:.3f} of the samples, guidance {guidance:g}")


def print_comparison(found: Comparison) -> None:
    """The floor stands beside the distance, and n beside both: with another n both would be others."""
    worse = ", ".join(f"with {how} {distance:.2f}" for how, distance in found.controls.items())
    copying = found.memorisation
    print(
        f"  FD-C (not FID), n = {found.n:<6} {found.frechet:.2f}, of {found.n} training images "
        f"{found.frechet_test:.2f}, of these {worse}\n"
        f"  a sure class (p > 0.8)     {found.confident:.3f} of the samples, {found.confident_test:.3f} of the test "
        f"images, on which the classifier is right for {found.accuracy_test:.3f}\n"
        f"  samples of each class      {' '.join(map(str, found.histogram))}\n"
        f"  precision, recall          {found.precision:.3f}, {found.recall:.3f}, of the training images "
        f"{found.precision_test:.3f}, {found.recall_test:.3f}\n"
        f"  nearest training image     at {copying.to_train:.2f} in the median, of the test images at "
        f"{copying.test_to_train:.2f}: ratio {copying.ratio:.3f} (near 0: copies)"
    )


def pairs_png(samples: Tensor, train: Tensor, found: Memorisation) -> bytes:
    """The closest pairs as one picture: a sample and to its right the training image, mirrored if that is nearer."""
    tiles = []
    for i, j, _ in found.closest:
        sample, image = samples[i].float(), train[j].float()
        mirrored = (sample - image.flip(-1)).norm() < (sample - image).norm()
        tiles += [samples[i], train[j].flip(-1) if mirrored else train[j]]
    buffer = io.BytesIO()
    grid(data.to_float(torch.stack(tiles))).save(buffer, "png")
    return buffer.getvalue()


def classifier_command(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    train_images, test_images = (data.load(args.data, split) for split in ("train", "test"))
    check_writable("--out", args.out)
    print(f"Training a classifier on {len(train_images.images):,} images of {args.data}.", flush=True)
    recipe = RECIPES[args.data] | ({} if args.epochs is None else {"epochs": args.epochs})
    dtype = torch.bfloat16 if recipe.get("bf16") else torch.float32
    started = time.perf_counter()
    classifier, loss = train_classifier(train_images, args.seed, distributed.device(), **recipe)
    classifier.to(dtype).float()  # as the file will hold it, so that the accuracy is that of the file
    card = {
        "data": args.data,
        "seed": args.seed,
        "steps": recipe["epochs"] * (len(train_images.images) // recipe["batch"]),
        "batch": recipe["batch"],
        "seconds": round(time.perf_counter() - started, 1),
        "device": device_name(torch.device(distributed.device())),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "loss": loss,
        "accuracy": accuracy(classifier, test_images),
    }
    save_classifier(args.out, classifier, card, dtype)
    print(f"Wrote {args.out}: right for {card['accuracy']:.4f} of the {len(test_images.images)} test images.")
    return 0
