"""The command train: a run with its bar, log and checkpoints, that can be stopped and gone on with at any step."""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import torch
from tqdm.auto import tqdm

from ddpm_edu import data, distributed, schedules
from ddpm_edu.checkpoint import load_checkpoint, save_checkpoint, save_weights, write_whole
from ddpm_edu.commands import PROG
from ddpm_edu.commands.files import check_writable
from ddpm_edu.metrics import device_name, log_line
from ddpm_edu.presets import preset
from ddpm_edu.schedules import Schedule
from ddpm_edu.training import Record, State, check_pieces, train

DEFAULT_PRESET = {"digits": "digits", "cifar10": "cifar10-small"}
LOG_EVERY = 50  # steps between two lines of log.jsonl
SAVE_EVERY = 300.0  # seconds between two checkpoints: the most that a power cut costs
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
            took = time.perf_counter() - clock
            state.seconds += took
            lines.append(log_line(state, records, took))
            records.clear()
            if writer:
                with open(log, "a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
            clock = time.perf_counter()  # what a line takes, the first one above all, is no training

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
        state = load_checkpoint(checkpoint, distributed.device())
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
        state = State(replace(config, **asked, **planned), distributed.device())
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
