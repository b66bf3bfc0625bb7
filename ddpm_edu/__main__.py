"""The command line: python -m ddpm_edu train | sample | evaluate | judge | trajectory | export | classifier | data.

Exit status 0 done; 2 wrong use or bad input, with one line on stderr; 130 interrupted; 1 another process that trained
with this one is gone.
"""

import argparse
import io
import json
import math
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import data, distributed, flow, plotting, schedules, trajectory
from ddpm_edu.checkpoint import (
    load_checkpoint,
    load_network,
    load_weights,
    save_checkpoint,
    save_weights,
    shipped,
    shipped_names,
    tensor_hash,
    write_whole,
)
from ddpm_edu.classifier import RECIPES, accuracy, load_classifier, save_classifier, train_classifier
from ddpm_edu.evaluate import (
    GREY_LEVELS,
    Comparison,
    Judgement,
    Memorisation,
    bounds,
    compare,
    eps_mse,
    judge,
    lossless_bits,
    on_levels,
    variances,
)
from ddpm_edu.guidance import classifier_free
from ddpm_edu.interchange import load_diffusers, save_diffusers
from ddpm_edu.metrics import device_name, log_line
from ddpm_edu.sampling import EpsModel, Step, ddim
from ddpm_edu.sampling import sample as ancestral
from ddpm_edu.schedules import Schedule
from ddpm_edu.training import Config, Record, State, check_pieces, train
from ddpm_edu.unet import UNet

PROG = "python -m ddpm_edu"
DEFAULT_PRESET = {"digits": "digits", "cifar10": "cifar10-small"}
LOG_EVERY = 50  # steps between two lines of log.jsonl
SAVE_EVERY = 300.0  # seconds between two checkpoints: the most that a power cut costs
FRAMES = 11  # moments in a strip of the chain, the noise and the sample included
EVALUATION_DRAWS = 100  # values of t for each image
EVALUATION_SEED = 0
AT_ONCE = 2**18  # pixels that a network sees at once while sampling
FLOW_STEPS = 25  # of Heun's method


def preset_names() -> list[str]:
    """The names that `preset` accepts: one JSON file each in ddpm_edu/presets."""
    return sorted(file.name.removesuffix(".json") for file in (resources.files("ddpm_edu") / "presets").iterdir())


def preset(name: str) -> Config:
    """The ready-made configuration ``name``, with seed 0. ValueError that lists the names for an unknown one."""
    if name not in preset_names():
        raise ValueError(f"argument --preset: expected one of {', '.join(preset_names())}, got {name!r}")
    values = json.loads((resources.files("ddpm_edu") / "presets" / f"{name}.json").read_text(encoding="utf-8"))
    if values["schedule"] is not None:
        families = {"linear": schedules.linear, "cosine": schedules.cosine, "log_snr_linear": schedules.log_snr_linear}
        values["schedule"] = families[values["schedule"].pop("family")](**values["schedule"])
    return Config(preset=name, seed=0, **values)


# ---------------------------------------------------------------------------------------------------------------- train


GO_ON, SAVE, STOP = range(3)  # what a rank wishes for after a step; the largest wish is done


def train_command(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    if args.threads:
        torch.set_num_threads(args.threads)
    name = args.preset or DEFAULT_PRESET[args.data or "digits"]
    out = args.out or Path("runs") / name
    checkpoint, weights, log = out / "checkpoint.pt", out / "weights.safetensors", out / "log.jsonl"
    state = start_or_resume(args, name, checkpoint, weights)
    config = state.config
    images = data.load(config.data, "train")
    lines: list[dict[str, Any]] = []
    writer = distributed.rank() == 0
    if writer:
        check_writable("--out", checkpoint)
        for file in (checkpoint, weights, log):
            for leftover in out.glob(f".{file.name}.*.part"):  # of a run that was killed while it wrote
                leftover.unlink()
        lines = cut_log(log, state.step)
        print(
            f"{f'Going on after step {state.step} of' if args.resume else 'Training'} preset {config.preset}: "
            f"{len(images.images):,} images of {config.data}, "
            f"a U-Net of {sum(p.numel() for p in state.model.parameters()):,} weights, T = {config.T}, "
            f"{config.steps:,} steps of {config.batch} images, {torch.get_num_threads()} thread(s) and "
            f"{f'{distributed.ranks()} times ' if distributed.ranks() > 1 else ''}{device_name(state.device)}.",
            flush=True,
        )
    records: list[Record] = []
    clock = time.perf_counter()  # when the first of the records began

    def write_log() -> None:
        nonlocal clock
        if records:
            if state.device.type == "cuda":
                torch.cuda.synchronize(state.device)  # the GPU is behind: only now has it done these steps
            before, clock = clock, time.perf_counter()
            state.seconds += clock - before
            lines.append(log_line(state, records, clock - before))
            records.clear()
            if writer:
                with open(log, "a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")

    def save() -> None:
        nonlocal clock
        write_log()  # before the checkpoint: `cut_log` removes lines that are ahead of it, none can be missing
        if writer:
            loss = lines[-1].get("loss") if lines else None
            save_checkpoint(checkpoint, state)
            save_weights(weights, state.ema.model, config.schedule, card(state, loss))
        clock = time.perf_counter()

    with (
        distributed.joined(state.device),
        signals_as_event() as interrupted,
        closing(train(state, images)) as steps,
        tqdm(total=config.steps, initial=state.step, desc="training", unit="step", disable=not writer) as bar,
    ):
        distributed.seed_dropout(config.seed, state.step)
        saved, wish, told = time.perf_counter(), GO_ON, False
        while state.step < config.steps and wish != STOP:
            records.append(next(steps))
            bar.update()
            if state.halved and not told:
                told = True
                bar.write(
                    f"Not enough memory for this batch at once: going on in {state.accumulate} pieces of "
                    f"{config.batch // state.accumulate} images, which gives the same gradient and takes longer.",
                    file=sys.stderr,
                )
            if state.step % LOG_EVERY == 0:
                write_log()
                bar.set_postfix(loss=f"{lines[-1]['loss']:.4f}")
            now = time.perf_counter()
            wish = SAVE if now - saved > SAVE_EVERY else GO_ON
            if interrupted.is_set() or now - started >= args.time_budget:
                wish = STOP
            wish = distributed.largest(wish)
            if wish == SAVE:
                save()
                saved = time.perf_counter()
        save()

    if writer:
        print(f"Wrote {checkpoint}, {weights} and {log} after step {state.step:,} of {config.steps:,}.")
        if state.step < config.steps:
            print(f"To go on:     {PROG} train --out {shlex.quote(str(out))} --resume")
        few = " --steps 50" if config.schedule and config.T > 250 else ""
        samples = shlex.quote(str(out / "samples.png"))
        print(f"To see images: {PROG} sample --weights {shlex.quote(str(weights))}{few} --out {samples}")
    return 130 if interrupted.is_set() else 0


def start_or_resume(args: argparse.Namespace, name: str, checkpoint: Path, weights: Path) -> State:
    """The run that the flags ask for; ValueError rather than overwrite one or go on with other settings."""
    asked = {field: vars(args)[field] for field in ("preset", "data", "batch", "seed") if vars(args)[field] is not None}
    if args.schedule:
        if preset(name).schedule is None:
            raise ValueError(f"argument --schedule: preset {name} trains flow matching, which has no schedule")
        asked["schedule"] = read_schedule(args.schedule)
    planned = {} if args.steps is None else {"steps": args.steps}
    if args.resume:
        state = load_checkpoint(checkpoint, device())
        made = state.config.to_dict()
        if args.preset:
            asked["network"] = preset(args.preset).network
        for field, wanted in replace(state.config, **asked).to_dict().items():
            if made[field] != wanted:
                short = field not in ("schedule", "network")
                was, now = (made[field], wanted) if short else (f"another {field}", args.schedule or args.preset)
                flag = "preset" if field == "network" else field
                raise ValueError(f"argument --{flag}: {checkpoint} was made with {was}, got {now}")
        state.config = replace(state.config, **planned)
        if state.config.steps < state.step:
            raise ValueError(
                f"argument --steps: expected at least the {state.step} steps already done, got {args.steps}"
            )
    else:
        for file in (checkpoint, weights):
            if file.exists():
                raise ValueError(f"argument --out: {file} exists: give --resume to go on with it, or another --out")
        config = preset(name)
        if args.data not in (None, config.data):
            raise ValueError(f"argument --data: preset {name} trains on {config.data}, got {args.data}")
        state = State(replace(config, **asked, **planned), device())
    state.accumulate = args.accumulate
    check_pieces(state.config.batch, state.accumulate)
    return state


def read_schedule(path: Path) -> Schedule:
    try:
        return schedules.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"argument --schedule: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"argument --schedule: {path}: {error}") from None


def cut_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Keep the lines up to ``step``, in the file and as the result; a line cut short by a crash is the last one.

    ValueError for a file that is no log of ours, which is left as it is.
    """
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                raise ValueError(
                    f"{path}: expected the log of a training run, one JSON object a line, got {text[:60]!r}"
                )
            if line["step"] > step:
                break
            lines.append(line)
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return lines


def card(state: State, loss: float | None) -> dict[str, Any]:
    """What a reader of shared weights wants to know: data, settings, cost and the last mean loss."""
    config = {name: value for name, value in state.config.to_dict().items() if name not in ("network", "schedule")}
    return {
        **config,
        "steps": state.step,
        "images_seen": state.step * state.config.batch,
        "seconds": round(state.seconds, 1),
        "device": device_name(state.device),
        "ranks": distributed.ranks(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "loss": loss,
    }


@contextmanager
def signals_as_event() -> Iterator[Event]:
    """Ctrl-C and SIGTERM set the event, so that a step in progress is finished; a second one stops at once, as usual.

    Not so under torchrun, which sends to all what one has received, and SIGTERM to those that are left when one is
    gone: there these signals do nothing else until the process ends.
    """
    interrupted, usual = Event(), {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    alone = distributed.ranks() == 1

    def on_signal(signum: int, frame: object) -> None:
        interrupted.set()
        if alone:
            signal.signal(signum, usual[signal.Signals(signum)])

    for number in usual:
        signal.signal(number, on_signal)
    try:
        yield interrupted
    finally:
        if alone:
            for number, handler in usual.items():
                signal.signal(number, handler)


# -------------------------------------------------------------------------------------------------- weights in and out


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


# ------------------------------------------------------------------------------------------------------- sample, judge


def sample_command(args: argparse.Namespace) -> int:
    source = Source(args)
    check_writable("--out", args.out)
    steps, n = source.steps, args.n or (4 if args.chain else 64)
    shown = {round(k * steps / (FRAMES - 1)) for k in range(FRAMES)} if args.chain else {steps}
    frames = [step for i, step in enumerate(tqdm(source.chain(n), total=steps + 1, desc="sampling")) if i in shown]
    buffer = io.BytesIO()
    if args.chain:
        plotting.use_style()
        figure = strip(frames)
        figure.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(figure)
    else:
        grid(frames[-1].x).save(buffer, "png")
    write_whole(args.out, buffer.getvalue())
    print(f"Wrote {args.out}: {n} image{'s' if n > 1 else ''} in {steps} steps ({source.sampler}).")
    return 0


def judge_command(args: argparse.Namespace) -> int:
    source = Source(args)
    name = source.card.get("data", "")
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
        report |= {"sampler": source.sampler, "card": source.card, **asdict(compared)}
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


class Source:
    """Weights and how to sample from them: Algorithm 2, DDIM if there are fewer steps, Heun's method for a flow.

    A network with classes draws them in turn, from the first to the last but one, which is "no label".
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.model, self.s, self.card = network_of(args)
        self.model.to(device())
        T, steps = (flow.T, FLOW_STEPS) if self.s is None else (self.s.T, self.s.T)
        self.steps: int = args.steps or steps
        if self.steps > T:
            raise ValueError(f"argument --steps: expected at most the {T} steps of {args.weights}, got {self.steps}")
        if args.guidance is not None and self.model.config["classes"] is None:
            raise ValueError(f"argument --guidance: expected weights with classes, got {args.weights} without")
        self.guidance: float = 1.0 if args.guidance is None else args.guidance
        self.seed: int = args.seed
        self.sampler = "Heun" if self.s is None else "Algorithm 2" if self.steps == T else "DDIM"

    def labels(self, n: int) -> Tensor | None:
        classes = self.model.config["classes"]
        return None if classes is None else torch.arange(n, device=device()) % (classes - 1)

    def chain(self, n: int) -> Iterator[Step]:
        shape, generator = (n, *self.model.image_shape), torch.Generator(device()).manual_seed(self.seed)
        network: EpsModel = in_parts(self.model)
        if (y := self.labels(n)) is not None:
            network = classifier_free(in_parts(self.model), y, self.guidance, null=self.model.config["classes"] - 1)
        if self.s is None:
            points = flow.heun(flow.velocity(network), shape, steps=self.steps, generator=generator)
            return (Step(round(flow.T * point.tau), point.x, point.x0_hat) for point in points)
        if self.steps == self.s.T:
            return ancestral(self.s, network, shape, generator=generator, clip_x0=True)
        return ddim(self.s, network, shape, steps=self.steps, generator=generator, clip_x0=True)


def in_parts(model: UNet) -> Callable[..., Tensor]:
    """The same network, which sees so many images at once as memory allows: 256 of 32 x 32 pixels."""
    part = max(1, AT_ONCE // (model.config["image_size"] ** 2))

    def network(xt: Tensor, *inputs: Tensor) -> Tensor:
        return torch.cat([model(*some) for some in zip(*(torch.split(z, part) for z in (xt, *inputs)), strict=True)])

    return network


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
        raw.to(device())
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
            counted(model.to(device())),
            model.image_shape,
            seed=args.seed,
            raw_model=counted(raw) if raw else None,
            source=source,
            device=device(),
        )
    trajectory.save(args.out, tr)
    print(f"Wrote {args.out}: {len(tr.xt)} chains of {s.T} steps, {args.out.stat().st_size:,} bytes.")
    return 0


def grid(x: Tensor) -> Image.Image:
    """Images (N, C, H, W) in rows and columns on white, every pixel enlarged to a square that a person can see."""
    scale = max(1, 64 // x.shape[-1])
    tiles = data.to_uint8(x.cpu()).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tiles = F.pad(tiles, (2, 2, 2, 2), value=255)
    n, c, h, w = tiles.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    tiles = torch.cat([tiles, tiles.new_full((rows * columns - n, c, h, w), 255)])
    picture = tiles.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(picture.squeeze(2).numpy())


def strip(frames: Sequence[Step]) -> Figure:
    """For each image a row of x_t and below it a row of predicted x_0, clipped for display, t under each frame."""
    n = len(frames[0].x)
    pictures = torch.stack([torch.stack([step.x, step.x0_hat], 1).flatten(0, 1) for step in frames], 1).cpu()
    axes = plotting.image_strip(list(pictures), row_labels=["$x_t$", r"predicted $x_0$"] * n)
    for row in axes[1::2]:
        for ax, step in zip(row, frames, strict=True):
            ax.set_xlabel(f"t = {step.t}")
    figure: Figure = axes[0, 0].figure
    figure.suptitle("The reverse chain; values outside [-1, 1] are clipped for display")
    return figure


# ------------------------------------------------------------------------------------------ evaluate, classifier, data


def evaluate_command(args: argparse.Namespace) -> int:
    model, s, weights_card = network_of(args)
    if s is None:
        raise ValueError(f"argument --weights: {args.weights} is a flow, whose bound in bits/dim is not known here")
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
    network = without_label(model.to(device()))

    def images(split: str, part: slice) -> Tensor:
        return on_levels(splits[split][part], levels).to(device())

    def generator() -> torch.Generator:
        return torch.Generator(device()).manual_seed(EVALUATION_SEED)

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
            "device": device_name(torch.device(device())),
            "seconds": round(time.perf_counter() - started, 1),
            "bounds": {split: {name: asdict(b) for name, b in of.items()} for split, of in found.items()},
            "eps_mse": mse[1:].tolist(),
            "codecs": codecs,
            "card": weights_card,
        }
        write_whole(args.json, (json.dumps(report, indent=2) + "\n").encode())
        print(f"Wrote {args.json}.")
    return 0


def without_label(model: UNet) -> EpsModel:
    """A network with classes as one that is told none."""
    classes = model.config["classes"]
    return model if classes is None else lambda xt, t: model(xt, t, torch.full_like(t, classes - 1))


def classifier_command(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    train_images, test_images = (data.load(args.data, split) for split in ("train", "test"))
    check_writable("--out", args.out)
    print(f"Training a classifier on {len(train_images.images):,} images of {args.data}.", flush=True)
    recipe = RECIPES[args.data] | ({} if args.epochs is None else {"epochs": args.epochs})
    dtype = torch.bfloat16 if recipe.get("bf16") else torch.float32
    started = time.perf_counter()
    classifier, loss = train_classifier(train_images, args.seed, device(), **recipe)
    classifier.to(dtype).float()  # as the file will hold it, so that the accuracy is that of the file
    card = {
        "data": args.data,
        "seed": args.seed,
        "steps": recipe["epochs"] * (len(train_images.images) // recipe["batch"]),
        "batch": recipe["batch"],
        "seconds": round(time.perf_counter() - started, 1),
        "device": device_name(torch.device(device())),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "loss": loss,
        "accuracy": accuracy(classifier, test_images),
    }
    save_classifier(args.out, classifier, card, dtype)
    print(f"Wrote {args.out}: right for {card['accuracy']:.4f} of the {len(test_images.images)} test images.")
    return 0


def data_command(args: argparse.Namespace) -> int:
    print(f"CIFAR-10 is in {data.download_cifar10(args.dir)}.")
    if args.dir:
        print(f"So that training finds it: export DDPM_EDU_DATA={shlex.quote(str(args.dir))}")
    return 0


# --------------------------------------------------------------------------------------------------------------- flags


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
    p.add_argument("--guidance", metavar="W", type=number, help="of a network with classes (default: 1, none)")
    p.add_argument("--seed", metavar="S", type=whole(0), default=0, help="of the noise (default: 0)")


GONE = "another process of this training is gone; the last checkpoint is whole: start all again with --resume"
NO_MEMORY = "not enough memory: expected smaller numbers for --batch or --n, or a larger one for --accumulate"
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


def device() -> str:
    """The GPU of this process, or the CPU where there is none. ValueError for more processes than GPUs."""
    if not torch.cuda.is_available():
        return "cpu"
    if distributed.local_rank() >= torch.cuda.device_count():
        raise ValueError(f"torchrun: expected at most {torch.cuda.device_count()} processes, one for each GPU")
    return f"cuda:{distributed.local_rank()}"


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; SystemExit where argparse ends it (--help, wrong flags)."""
    args = parser().parse_args(argv)
    speaks = distributed.local_rank() == 0  # what every process would say is said once on a machine
    try:
        status: int = args.run(args)
        return status
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except OSError as error:
        message, status, speaks = f"{error.filename}: {error.strerror}" if error.filename else str(error), 2, True
    except ValueError as error:
        message, status = str(error), 2
    except RuntimeError as error:
        if distributed.rank_is_gone(error):
            message, status = GONE, 1
        elif any(sign in str(error) for sign in ("allocate", "out of memory", "overflow")):
            message, status, speaks = NO_MEMORY, 2, True
        else:
            raise
    if speaks:
        print(f"{PROG} {args.command}: error: {' '.join(message.splitlines())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
