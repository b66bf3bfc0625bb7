"""Tests of the command line: what it writes, that runs go on exactly, and that bad input costs one line and no file."""

import contextlib
import errno
import json
import math
import os
import random
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import ranks
import safetensors
import safetensors.torch
import tiny_run
import torch
from PIL import Image

from ddpm_edu import __main__ as cli
from ddpm_edu import commands, data, flow, guidance, presets, sampling, schedules, training
from ddpm_edu.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights, shipped
from ddpm_edu.classifier import RECIPES, Classifier, accuracy, load_classifier, train_classifier
from ddpm_edu.data import Images
from ddpm_edu.evaluate import bounds, compare, eps_mse, judge, lossless_bits, on_levels, variances
from ddpm_edu.sampling import Step
from ddpm_edu.unet import UNet

FILES = ["checkpoint.pt", "log.jsonl", "weights.safetensors"]


@pytest.fixture(autouse=True)
def same_threads():
    """--threads is a setting of the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(capsys):
    """Runs one command in this process: (exit status, stdout, stderr)."""

    def run(*argv) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = cli.main([str(arg) for arg in argv])
        except SystemExit as exit:  # argparse's own
            status = exit.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def refused(command):
    """Runs a command that must be refused: exit status 2, nothing on stdout, the message as the only line of stderr."""

    def run(*argv) -> str:
        status, out, err = command(*argv)
        assert status == 2 and out == ""
        assert err.endswith("\n") and err.count("\n") == 1
        assert err.startswith("python -m ddpm_edu") and ": error: " in err
        return err.strip()

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of two steps on digits; copy it before changing it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert cli.main(["train", "--steps", "2", "--batch", "8", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run_folder(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def without_times(folder: Path) -> list[dict]:
    return [{**line, "seconds": 0, "images_per_second": 0} for line in log_of(folder)]


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_writes_checkpoint_ema_weights_and_log(command, tmp_path):
    out = tmp_path / "a folder"
    threads = torch.get_num_threads() + 1
    status, printed, _ = command("train", "--steps", 3, "--batch", 8, "--seed", 5, "--threads", threads, "--out", out)
    assert status == 0 and torch.get_num_threads() == threads
    assert sorted(contents(out)) == FILES
    state = load_checkpoint(out / "checkpoint.pt")
    assert (state.step, state.config.steps, state.config.batch, state.config.seed) == (3, 3, 8, 5)
    assert (state.config.preset, state.config.data) == ("digits", "digits")

    model, schedule, card = load_weights(out / "weights.safetensors")
    averages, raw = state.ema.model.state_dict(), state.model.state_dict()
    assert all(torch.equal(value, averages[name]) for name, value in model.state_dict().items())
    assert not torch.equal(averages["stem.weight"], raw["stem.weight"])
    assert torch.equal(schedule.beta, schedules.cosine(200).beta)
    lines = log_of(out)
    assert [line["step"] for line in lines] == [3]
    assert card["loss"] == lines[0]["loss"] and 0 < card["seconds"] < 60
    wanted = {"data": "digits", "seed": 5, "steps": 3, "batch": 8, "images_seen": 24, "device": "cpu", "lr": 0.015}
    wanted |= {"threads": threads, "parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__}
    assert wanted.items() <= card.items()

    assert "after step 3 of 3" in printed and all(str(out / name) in printed for name in FILES)
    assert "To go on" not in printed
    follow_up = next(line for line in printed.splitlines() if line.startswith("To see images: python -m ddpm_edu "))
    args = commands.flags.parser().parse_args(shlex.split(follow_up.split("ddpm_edu ", 1)[1]))
    assert (
        args.run is commands.sample.sample_command
        and args.weights == out / "weights.safetensors"
        and args.steps is None
    )


def test_a_resumed_run_is_the_run_that_never_stopped(command, tmp_path, monkeypatch):
    monkeypatch.setattr(commands.train, "LOG_EVERY", 2)
    flags = ["--batch", 8, "--seed", 1]
    assert command("train", "--steps", 5, *flags, "--out", tmp_path / "straight")[0] == 0
    interrupting(monkeypatch, at=2, times=1)
    assert command("train", "--steps", 5, *flags, "--out", tmp_path / "parts")[0] == 130
    torch.rand(5)
    status, printed, bar = command("train", "--out", tmp_path / "parts", "--resume")
    assert status == 0 and "Going on after step 2" in printed and "5/5" in bar
    straight, parts = (load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("straight", "parts"))
    assert all(map(torch.equal, straight.state_dict().values(), parts.state_dict().values()))
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("straight", "parts"))
    assert all(map(torch.equal, a.model.state_dict().values(), b.model.state_dict().values()))
    assert torch.equal(a.generator.get_state(), b.generator.get_state()) and a.step == b.step == 5
    straight, parts = (without_times(tmp_path / name) for name in ("straight", "parts"))
    assert straight == parts and [line["step"] for line in straight] == [2, 4, 5]


def test_resuming_a_finished_run_changes_nothing(command, run_folder):
    before = contents(run_folder)
    (run_folder / "weights.safetensors").unlink()
    status, printed, _ = command("train", "--out", run_folder, "--resume")
    assert status == 0 and "after step 2 of 2" in printed
    after = contents(run_folder)
    assert after["log.jsonl"] == before["log.jsonl"]
    tensors = [safetensors.torch.load(c["weights.safetensors"]) for c in (before, after)]
    assert all(torch.equal(tensors[1][name], value) for name, value in tensors[0].items())
    assert load_weights(run_folder / "weights.safetensors")[2]["loss"] == log_of(run_folder)[-1]["loss"]


def test_lines_ahead_of_the_checkpoint_and_torn_ones_leave_the_log(command, run_folder):
    """The machine went down after the log was written and before the checkpoint was, or within a line."""
    kept = log_of(run_folder)
    ahead = {**kept[-1], "step": 3}
    with open(run_folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(ahead) + "\n" + json.dumps(ahead)[:40])
    assert command("train", "--steps", 4, "--out", run_folder, "--resume")[0] == 0
    lines = log_of(run_folder)
    assert lines[:-1] == kept and [line["step"] for line in lines] == [2, 4]
    with open(run_folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 4, "ima')
    assert command("train", "--steps", 4, "--out", run_folder, "--resume")[0] == 0
    assert log_of(run_folder) == lines


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(command, run_folder):
    for name in (".checkpoint.pt.123.part", ".weights.safetensors.4.part", ".log.jsonl.5.part", ".samples.png.6.part"):
        (run_folder / name).write_bytes(b"half")
    assert command("train", "--steps", 3, "--out", run_folder, "--resume")[0] == 0
    assert sorted(contents(run_folder)) == [".samples.png.6.part", *FILES]


def test_a_new_run_starts_a_new_log(command, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "of": "another run that never came to a checkpoint"}\n')
    assert command("train", "--steps", 1, "--batch", 4, "--out", tmp_path)[0] == 0
    assert [line["step"] for line in log_of(tmp_path)] == [1]


def test_the_time_budget_ends_a_run_with_everything_written(command, tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(commands.train.time, "perf_counter", lambda: float(next(clock)))
    flags = ["--steps", 500, "--batch", 2, "--time-budget", 20, "--out", tmp_path]
    status, printed, _ = command("train", *flags)
    step = load_checkpoint(tmp_path / "checkpoint.pt").step
    assert status == 0 and 0 < step < 20 and f"after step {step} of 500" in printed
    assert sorted(contents(tmp_path)) == FILES and log_of(tmp_path)[-1]["step"] == step
    assert f"To go on:     python -m ddpm_edu train --out {tmp_path} --resume" in printed
    status, printed, _ = command("train", "--time-budget", 20, "--out", tmp_path, "--resume")
    assert status == 0 and load_checkpoint(tmp_path / "checkpoint.pt").step > step


def interrupting(monkeypatch, at: int, times: int) -> None:
    """Ctrl-C reaches the process while step `at` is being computed."""
    original = training.loss_simple
    calls = iter(range(1, 1000))

    def loss_simple(*args):
        if next(calls) == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return original(*args)

    monkeypatch.setattr(training, "loss_simple", loss_simple)


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, as in a terminal: a process that a script started in the background would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_finishes_the_step_and_writes_a_checkpoint(command, tmp_path, monkeypatch):
    usual = signal.getsignal(signal.SIGINT)
    interrupting(monkeypatch, at=3, times=1)
    status, printed, _ = command("train", "--steps", 100, "--batch", 4, "--out", tmp_path / "run")
    assert status == 130 and "after step 3 of 100" in printed and "--resume" in printed
    assert signal.getsignal(signal.SIGINT) is usual
    monkeypatch.undo()
    assert command("train", "--steps", 100, "--time-budget", 1e-9, "--out", tmp_path / "run", "--resume")[0] == 0
    interrupting(monkeypatch, at=4, times=1)
    assert command("train", "--steps", 100, "--batch", 4, "--out", tmp_path / "straight")[0] == 130
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("run", "straight"))
    assert all(map(torch.equal, a.model.state_dict().values(), b.model.state_dict().values()))


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_stops_at_once(command, run_folder, monkeypatch):
    usual, before = signal.getsignal(signal.SIGINT), (run_folder / "checkpoint.pt").read_bytes()
    interrupting(monkeypatch, at=2, times=2)
    status, _, err = command("train", "--steps", 100, "--out", run_folder, "--resume")
    assert status == 130 and err.splitlines()[-1].endswith("error: interrupted") and "Traceback" not in err
    assert signal.getsignal(signal.SIGINT) is usual
    assert (run_folder / "checkpoint.pt").read_bytes() == before


def test_a_long_run_is_saved_now_and_then(command, tmp_path, monkeypatch):
    saved = []
    original = commands.train.save_checkpoint
    monkeypatch.setattr(
        commands.train, "save_checkpoint", lambda path, state: (saved.append(state.step), original(path, state))
    )
    monkeypatch.setattr(commands.train, "SAVE_EVERY", 0.0)
    assert command("train", "--steps", 3, "--batch", 2, "--out", tmp_path / "often")[0] == 0
    assert saved[:3] == [1, 2, 3]
    assert [line["step"] for line in log_of(tmp_path / "often")] == [1, 2, 3], "a line never straddles a checkpoint"
    saved.clear()
    clock = iter(range(10**6))  # one reading for each step, and more for each save
    monkeypatch.setattr(commands.train.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(commands.train, "SAVE_EVERY", 3.0)
    assert command("train", "--steps", 9, "--batch", 2, "--out", tmp_path / "sometimes")[0] == 0
    assert saved[-1] == 9 and len(saved) >= 3 and all(b - a >= 2 for a, b in pairwise(saved[:-1]))
    saved.clear()
    monkeypatch.setattr(commands.train, "SAVE_EVERY", 1000.0)
    assert command("train", "--steps", 3, "--batch", 2, "--out", tmp_path / "once")[0] == 0
    assert saved == [3]


def test_seconds_are_those_of_the_steps_and_not_of_the_files(command, tmp_path, monkeypatch):
    """A slow disk: each save takes ten seconds, which the clock is made to say."""
    late = [0.0]
    monkeypatch.setattr(commands.train.time, "perf_counter", lambda original=time.perf_counter: original() + late[0])
    original = commands.train.save_checkpoint
    monkeypatch.setattr(commands.train, "save_checkpoint", lambda *a: (original(*a), late.__setitem__(0, late[0] + 10)))
    monkeypatch.setattr(commands.train, "SAVE_EVERY", 0.0)
    started = time.monotonic()
    assert command("train", "--steps", 4, "--batch", 4, "--out", tmp_path / "run")[0] == 0
    took = time.monotonic() - started
    lines = log_of(tmp_path / "run")
    assert len(lines) == 4 and late[0] == 50  # the last save writes the same once more
    assert 0 < lines[0]["seconds"] < lines[-1]["seconds"] < took
    assert lines[-1]["seconds"] == round(load_checkpoint(tmp_path / "run" / "checkpoint.pt").seconds, 3)
    for a, b in pairwise(lines):
        assert b["images_per_second"] == pytest.approx(4 / (b["seconds"] - a["seconds"]), rel=0.1)


def memory_for(monkeypatch, images: int) -> None:
    original = UNet.forward

    def forward(self, xt, t, y=None):
        if len(xt) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, xt, t, y)

    monkeypatch.setattr(UNet, "forward", forward)


def test_too_little_memory_is_told_and_costs_no_step(command, tmp_path, monkeypatch):
    flags = ["--steps", 3, "--batch", 8]
    assert command("train", *flags, "--out", tmp_path / "ample")[0] == 0
    memory_for(monkeypatch, 4)
    status, _, err = command("train", *flags, "--out", tmp_path / "short")
    told = "Not enough memory for this batch at once: going on in 2 pieces of 4 images"
    assert status == 0 and err.count(told) == 1
    status, _, err = command("train", *flags, "--accumulate", 2, "--out", tmp_path / "asked")
    assert status == 0 and told not in err
    ample, short, asked = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("ample", "short", "asked"))
    assert ample.step == short.step == 3 and torch.equal(ample.generator.get_state(), short.generator.get_state())
    for a, b, c in zip(*(run.model.parameters() for run in (ample, short, asked)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        assert torch.equal(b, c)


def test_memory_that_is_short_twice_is_one_line(command, run_folder, monkeypatch):
    before = contents(run_folder)
    memory_for(monkeypatch, 3)
    status, _, err = command("train", "--steps", 4, "--out", run_folder, "--resume")
    assert status == 2 and err.splitlines()[-1].endswith(cli.NO_MEMORY) and "Traceback" not in err
    assert contents(run_folder) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_a_run_killed_at_twenty_random_moments_is_the_run_that_was_not(command, tmp_path, monkeypatch):
    """SIGKILL, which no program can notice. A checkpoint after each step: at most the step in progress is lost."""
    monkeypatch.setattr(data, "load", lambda name, split: tiny_run.images())
    network = tiny_run.NETWORK | {"width_mults": [1], "attention_at": []}  # few tensors: quick to save
    monkeypatch.setattr(commands.train, "preset", lambda name: tiny_run.config(preset=name, network=network))
    monkeypatch.setattr(commands.train, "SAVE_EVERY", 0.0)
    flags = ["train", "--steps", "100", "--seed", "1"]
    out, rng = tmp_path / "killed", random.Random(0)
    checkpoint = out / "checkpoint.pt"
    reader, writer = os.pipe()
    original = training.gradient
    monkeypatch.setattr(training, "gradient", lambda *a: (os.write(writer, b"."), original(*a))[1])
    monkeypatch.setattr(training, "learning_rate", lambda config, step: 1e-3)  # does not depend on how long we plan
    step = 0
    for _ in range(20):
        resume = ["--resume"] if checkpoint.exists() else []
        child = ranks.fork(lambda resume=resume: cli.main([*flags, "--out", str(out), *resume]), tmp_path)
        for _ in range(rng.randint(1, 4)):  # the steps that it begins
            os.read(reader, 1)
            step += 1
        time.sleep(rng.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        assert ranks.finish([child]) == [-signal.SIGKILL], (tmp_path / "child.err").read_text()
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):
            step += len(os.read(reader, 10**6))
        os.set_blocking(reader, True)
        saved = load_checkpoint(checkpoint).step if checkpoint.exists() else 0
        assert step - 1 <= saved <= step, "more than the step in progress is lost"
        if (out / "weights.safetensors").exists():
            assert load_weights(out / "weights.safetensors")[2]["steps"] in (saved - 1, saved)
        step = saved
    assert 20 < step < 100
    end = ["--steps", str(step + 1)]
    for folder, resume in ((out, ["--resume"]), (tmp_path / "straight", [])):
        assert command(*flags, *end, "--out", folder, *resume)[0] == 0
    assert sorted(contents(out)) == FILES, "what a killed process left is gone"
    a, b = (load_checkpoint(folder / "checkpoint.pt") for folder in (out, tmp_path / "straight"))
    assert a.step == b.step == step + 1
    assert all(map(torch.equal, a.ema.model.state_dict().values(), b.ema.model.state_dict().values()))
    assert without_times(out) == without_times(tmp_path / "straight")


@pytest.mark.parametrize("name", ["digits-conditional", "digits-flow"])
def test_labels_and_flows_are_trained_resumed_and_sampled(command, tmp_path, name):
    flags = ["--preset", name, "--batch", 4, "--out"]
    assert command("train", "--steps", 3, *flags, tmp_path / "straight")[0] == 0
    assert command("train", "--steps", 3, "--time-budget", 1e-9, *flags, tmp_path / "parts")[0] == 0
    status, printed, _ = command("train", "--out", tmp_path / "parts", "--resume")
    assert status == 0 and f"T = {1000 if 'flow' in name else 200}" in printed
    straight, parts = (load_checkpoint(tmp_path / folder / "checkpoint.pt") for folder in ("straight", "parts"))
    assert straight.step == parts.step == 3 and straight.config.preset == name
    assert all(map(torch.equal, straight.model.state_dict().values(), parts.model.state_dict().values()))
    model, schedule, card = load_weights(tmp_path / "parts" / "weights.safetensors")
    assert (schedule is None) == ("flow" in name) and card["label_drop"] == (0 if "flow" in name else 0.15)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    follow_up = shlex.split(next(line for line in printed.splitlines() if line.startswith("To see images:")))
    assert "--steps" not in follow_up
    assert command(*follow_up[6:], "--n", 1, "--steps", 2)[0] == 0


def test_a_schedule_file_replaces_that_of_the_preset(command, tmp_path):
    s = schedules.linear(30, 0.01, 0.2)
    (tmp_path / "s.json").write_text(schedules.to_json(s))
    flags = ["--schedule", tmp_path / "s.json", "--out", tmp_path / "run"]
    assert command("train", *flags, "--steps", 1, "--batch", 2)[0] == 0
    assert torch.equal(load_weights(tmp_path / "run" / "weights.safetensors")[1].beta, s.beta)
    assert command("train", *flags, "--steps", 2, "--batch", 2, "--seed", 0, "--data", "digits", "--resume")[0] == 0


def test_cifar10_gets_the_small_preset_and_a_short_next_command(command, tmp_path, monkeypatch):
    u8 = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = Images(u8, torch.zeros(4, dtype=torch.int64), "cifar10", data.CIFAR10_CLASSES)
    monkeypatch.setattr(data, "load", lambda name, split: {("cifar10", "train"): pictures}[name, split])
    monkeypatch.chdir(tmp_path)
    status, printed, _ = command("train", "--data", "cifar10", "--steps", 1, "--batch", 2)
    assert status == 0 and sorted(contents(tmp_path / "runs" / "cifar10-small")) == FILES
    assert "images of cifar10" in printed and "T = 1000" in printed and "--steps 50 --out" in printed
    model = load_weights(tmp_path / "runs" / "cifar10-small" / "weights.safetensors")[0]
    assert (model.config["image_size"], model.config["channels"]) == (32, 3)


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets.preset_names())
def test_presets_are_complete_and_fit_their_data(name):
    config = presets.preset(name)
    raw = json.loads((resources.files("ddpm_edu") / "presets" / f"{name}.json").read_text(encoding="utf-8"))
    training_fields = ["steps", "batch", "lr", "warmup", "lr_decay", "clip", "ema_decay", "flip"]
    if config.classes is not None:
        training_fields.append("label_drop")
    assert list(raw) == ["data", "network", "schedule", *training_fields]
    assert [getattr(config, field) for field in training_fields] == [raw[field] for field in training_fields]
    if raw["schedule"] is None:
        assert config.schedule is None and config.T == 1000
    else:
        family = getattr(schedules, raw["schedule"]["family"])
        assert torch.equal(config.schedule.beta, family(raw["schedule"]["T"]).beta)
        assert raw["schedule"]["T"] == config.T
    assert (config.preset, config.data, config.seed) == (name, raw["data"], 0)
    shape = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}[config.data]
    label = [] if config.classes is None else [torch.tensor([10])]  # of ten classes, "no label" being the eleventh
    assert UNet(**config.network)(torch.zeros(1, *shape), torch.tensor([1]), *label).shape == (1, *shape)
    assert config.flip == (config.data == "cifar10"), "a mirrored 2 is no digit"


def test_preset_names_are_the_files():
    folder = Path(cli.__file__).parent / "presets"
    assert presets.preset_names() == sorted(path.stem for path in folder.glob("*.json"))
    assert set(commands.train.DEFAULT_PRESET.values()) <= set(presets.preset_names())


# --- bad input to train -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "0"], "argument --steps: expected a whole number >= 1, got '0'"),
        (["--steps", "many"], "argument --steps: expected a whole number >= 1, got 'many'"),
        (["--batch", "0"], "argument --batch: expected a whole number >= 1, got '0'"),
        (["--batch", "1.5"], "argument --batch: expected a whole number >= 1, got '1.5'"),
        (["--seed", "-1"], "argument --seed: expected a whole number >= 0, got '-1'"),
        (["--seed", str(2**63)], "argument --seed: expected a whole number"),
        (["--threads", "0"], "argument --threads: expected a whole number >= 1 and <= 1024, got '0'"),
        (["--threads", "999999"], "argument --threads: expected a whole number >= 1 and <= 1024, got '999999'"),
        (["--accumulate", "0"], "argument --accumulate: expected a whole number >= 1, got '0'"),
        (["--accumulate", "3", "--batch", "8"], "accumulate: expected a divisor of the 8 images, got 3"),
        (["--time-budget", "0"], "argument --time-budget: expected a number of seconds > 0, got '0'"),
        (["--time-budget", "nan"], "argument --time-budget: expected a number of seconds > 0, got 'nan'"),
        (["--time-budget", "soon"], "argument --time-budget: expected a number of seconds > 0, got 'soon'"),
        (["--data", "mnist"], "argument --data: invalid choice: 'mnist' (choose from "),
        (["--preset", "huge"], "preset: expected one of cifar10-h100, cifar10-laptop, cifar10-likelihood, "),
        (["--preset", "../digits"], "digits, digits-conditional, digits-flow, digits-long, got '../digits'"),
        (["--preset", "digits", "--data", "cifar10"], "argument --data: preset digits trains on digits, got cifar10"),
        (["--step", "3"], "unrecognized arguments"),
        (["--resume"], "checkpoint.pt: expected a checkpoint, found no such file"),
        (["--preset", "digits-flow", "--schedule", "s.json"], "--schedule: preset digits-flow trains flow matching, "),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(refused, tmp_path, flags, said):
    assert said in refused("train", *flags, "--out", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "not valid JSON"),
        ('{"format": "ddpm_edu.schedule/1", "T": 1}', "'betas'"),
        ('{"format": "ddpm_edu.schedule/1", "T": 1, "betas": [0.1], "name": 1}', "'name'"),
        ('{"format": "ddpm_edu.schedule/1", "T": 2, "betas": [0.1, 1.5]}', "beta_2 = 1.5"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (None, "cannot read"),
    ],
)
def test_a_wrong_schedule_file_is_refused(refused, tmp_path, text, said):
    path = tmp_path / "s.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    error = refused("train", "--schedule", path, "--out", tmp_path / "run")
    assert "argument --schedule: " in error and str(path) in error and said in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.safetensors"])
def test_a_run_is_never_overwritten(refused, run_folder, name):
    for other in set(FILES) - {name}:
        (run_folder / other).unlink()
    before = contents(run_folder)
    error = refused("train", "--steps", 1, "--out", run_folder)
    assert f"argument --out: {run_folder / name} exists: give --resume" in error
    assert contents(run_folder) == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "cifar10"], "argument --data: {} was made with digits, got cifar10"),
        (["--preset", "cifar10-small"], "argument --preset: {} was made with digits, got cifar10-small"),
        (["--batch", "16"], "argument --batch: {} was made with 8, got 16"),
        (["--seed", "1"], "argument --seed: {} was made with 0, got 1"),
        (["--schedule", "s.json"], "argument --schedule: {} was made with another schedule, got s.json"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(refused, run_folder, monkeypatch, flags, said):
    monkeypatch.chdir(run_folder.parent)
    Path("s.json").write_text(schedules.to_json(schedules.cosine(201)))
    before = contents(run_folder)
    assert said.format(run_folder / "checkpoint.pt") in refused(
        "train", "--steps", 3, *flags, "--out", run_folder, "--resume"
    )
    assert contents(run_folder) == before


def test_a_checkpoint_of_another_network_is_not_the_preset_asked_for(refused, run_folder):
    saved = torch.load(run_folder / "checkpoint.pt", weights_only=True)
    network = {**saved["config"]["network"], "width": 8}
    small = UNet(**network)
    saved |= {"config": {**saved["config"], "network": network}, "model": small.state_dict(), "ema": small.state_dict()}
    saved["optimizer"] = torch.optim.AdamW(small.parameters()).state_dict()
    torch.save(saved, run_folder / "checkpoint.pt")
    before = contents(run_folder)
    said = refused("train", "--preset", "digits", "--steps", 3, "--out", run_folder, "--resume")
    assert f"argument --preset: {run_folder / 'checkpoint.pt'} was made with another network, got digits" in said
    assert contents(run_folder) == before


@pytest.mark.parametrize("damage", ["truncated", "foreign", "weights"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(refused, run_folder, damage):
    path = run_folder / "checkpoint.pt"
    whole = path.read_bytes()
    weights = (run_folder / "weights.safetensors").read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "foreign": b"hello", "weights": weights}[damage])
    before = contents(run_folder)
    error = refused("train", "--steps", 3, "--out", run_folder, "--resume")
    assert f"{path}: not a whole checkpoint" in error
    assert contents(run_folder) == before


def test_missing_data_is_said_before_anything_is_written(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_EDU_DATA", str(tmp_path / "nothing"))
    error = refused("train", "--data", "cifar10", "--out", tmp_path / "run")
    assert "get it with `python -m ddpm_edu data cifar10`" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_folder_that_cannot_be_made_is_refused(refused, tmp_path, below):
    (tmp_path / "file").write_text("here first")
    error = refused("train", "--steps", 1, "--out", tmp_path / below)
    assert f"argument --out: expected a folder to write in, got {tmp_path / below}" in error
    assert (tmp_path / "file").read_text() == "here first"


def test_no_space_left_is_one_line_and_the_old_checkpoint_stays(command, run_folder, monkeypatch):
    before = contents(run_folder)

    def no_space(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(commands.train, "cut_log", lambda path, step: log_of(run_folder))
    monkeypatch.setattr(os, "fsync", no_space)
    status, _, err = command("train", "--steps", 4, "--out", run_folder, "--resume")
    assert status == 2 and "Traceback" not in err
    assert err.splitlines()[-1] == (
        f"python -m ddpm_edu train: error: {run_folder / 'checkpoint.pt'}: No space left on device"
    )
    after = contents(run_folder)
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in ("checkpoint.pt", "weights.safetensors"))
    monkeypatch.undo()
    assert command("train", "--steps", 4, "--out", run_folder, "--resume")[0] == 0
    assert [line["step"] for line in log_of(run_folder)] == [2, 4], "the line of the failed try is gone"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_disk_is_one_line(command, run_folder, monkeypatch):
    before = (run_folder / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(commands.train, "cut_log", lambda path, step: [])
    (run_folder / "log.jsonl").unlink()
    (run_folder / "log.jsonl").symlink_to("/dev/full")
    status, _, err = command("train", "--steps", 4, "--out", run_folder, "--resume")
    assert status == 2 and "Traceback" not in err and "No space left on device" in err.splitlines()[-1]
    assert (run_folder / "checkpoint.pt").read_bytes() == before


def test_a_run_that_diverges_does_not_replace_its_checkpoint(command, run_folder, monkeypatch):
    before = contents(run_folder)
    monkeypatch.setattr(training, "loss_simple", lambda s, net, x0, t, eps: net(x0, t).flatten(1).mean(1) * math.nan)
    status, _, err = command("train", "--steps", 4, "--out", run_folder, "--resume")
    assert status == 2 and "the loss is no longer finite at step 4" in err.splitlines()[-1]
    assert contents(run_folder) == before


# --- sample -----------------------------------------------------------------------------------------------------------


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image)


def final(chain) -> np.ndarray:
    return data.to_uint8(list(chain)[-1].x).numpy()


def test_eta_is_the_noise_of_ddim(command, refused, trained, tmp_path):
    weights, out = trained / "weights.safetensors", tmp_path / "g.png"
    flags = ["sample", "--weights", weights, "--n", 2, "--out", out]
    model, s, _ = load_weights(weights)
    for eta, told in ((0, "(DDIM)"), (0.5, "(DDIM, eta = 0.5)"), (1, "(DDIM, eta = 1)")):
        status, printed, _ = command(*flags, "--steps", 7, "--eta", eta)
        g = torch.Generator().manual_seed(0)
        want = final(sampling.ddim(s, model, (2, 1, 8, 8), steps=7, eta=eta, generator=g, clip_x0=True))
        assert status == 0 and told in printed
        got = picture(out)[2:66:8, [*range(2, 66, 8), *range(70, 134, 8)]]  # two tiles of 64 x 64, a margin of 2
        assert (got == np.concatenate([want[0, 0], want[1, 0]], 1)).all()
    for eta, wanted in (("-0.1", "a number from 0 to 1"), ("1.5", "a number from 0 to 1"), ("nan", "a number")):
        assert refused(*flags, f"--eta={eta}").endswith(f"argument --eta: expected {wanted}, got '{eta}'")
    said = "argument --eta: expected --steps below {} of a network for noise, got {}"
    assert refused(*flags, "--eta", 1).endswith(said.format(s.T, "Algorithm 2"))
    flags[2] = small(tmp_path / "w", "flow")
    assert refused(*flags, "--eta", 1, "--steps", 5).endswith(said.format(1000, "Heun"))


@pytest.mark.parametrize("steps", [None, 200, 7])
def test_sample_writes_a_grid_of_what_the_sampler_gives(command, trained, tmp_path, steps):
    weights = trained / "weights.safetensors"
    flags = [] if steps is None else ["--steps", steps]
    status, printed, _ = command(
        "sample", "--weights", weights, "--n", 5, "--seed", 3, *flags, "--out", tmp_path / "g.png"
    )
    assert status == 0 and str(tmp_path / "g.png") in printed
    model, s, _ = load_weights(weights)
    g = torch.Generator().manual_seed(3)
    if steps == 7:
        want = final(sampling.ddim(s, model, (5, 1, 8, 8), steps=7, generator=g, clip_x0=True))
        assert "DDIM" in printed
    else:
        want = final(sampling.sample(s, model, (5, 1, 8, 8), generator=g, clip_x0=True))
        assert "Algorithm 2" in printed
    got = picture(tmp_path / "g.png")
    cell = 64 + 4
    assert got.shape == (2 * cell, 3 * cell)
    for k in range(5):
        row, column = divmod(k, 3)
        tile = got[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        assert (tile[:2] == 255).all() and (tile[:, -2:] == 255).all()
        assert np.array_equal(tile[2:-2, 2:-2], np.kron(want[k, 0], np.ones((8, 8), np.uint8)))
    assert (got[cell:, 2 * cell :] == 255).all()


def test_grid_keeps_the_colours():
    x = torch.full((1, 3, 32, 32), -1.0)
    x[:, 0, :, :16] = 1.0  # red on the left
    x[:, 2, 16:] = 1.0  # blue below
    got = np.array(commands.sample.grid(x))
    assert got.shape == (68, 68, 3)
    assert got[10, 10].tolist() == [255, 0, 0] and got[10, 60].tolist() == [0, 0, 0]
    assert got[60, 10].tolist() == [255, 0, 255] and got[60, 60].tolist() == [0, 0, 255]


def test_sample_defaults_to_64_images_and_seed_0(command, trained, tmp_path):
    flags = ["--weights", trained / "weights.safetensors", "--steps", 2]
    for name, more in (("a", []), ("b", ["--seed", 0, "--n", 64]), ("c", ["--seed", 1])):
        assert command("sample", *flags, *more, "--out", tmp_path / "new" / f"{name}.png")[0] == 0
    a, b, c = (picture(tmp_path / "new" / f"{name}.png") for name in "abc")
    assert a.shape == (8 * 68, 8 * 68)
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_chain_writes_x_t_above_predicted_x0_with_t_below(command, trained, tmp_path, monkeypatch):
    figures = []
    original = commands.sample.strip
    monkeypatch.setattr(
        commands.sample, "strip", lambda frames: figures.append((frames, original(frames))) or figures[-1][1]
    )
    weights = trained / "weights.safetensors"
    status, _, _ = command(
        "sample", "--weights", weights, "--chain", "--n", 2, "--seed", 4, "--out", tmp_path / "c.png"
    )
    assert status == 0 and picture(tmp_path / "c.png").shape[1] > 1000
    frames, figure = figures[0]
    times = [200, 180, 160, 140, 120, 100, 80, 60, 40, 20, 0]
    assert [step.t for step in frames] == times
    model, s, _ = load_weights(weights)
    g = torch.Generator().manual_seed(4)
    by_time = {step.t: step for step in sampling.sample(s, model, (2, 1, 8, 8), generator=g, clip_x0=True)}
    axes = np.array(figure.axes).reshape(4, 11)
    for column, t in enumerate(times):
        for image in range(2):
            above, below = axes[2 * image, column], axes[2 * image + 1, column]
            assert below.get_xlabel() == f"t = {t}" and above.get_xlabel() == ""
            for ax, x in ((above, by_time[t].x), (below, by_time[t].x0_hat)):
                shown = ax.images[0]
                np.testing.assert_allclose(shown.get_array(), (x[image, 0].clamp(-1, 1) + 1) / 2, rtol=1e-6)
                assert shown.get_clim() == (0, 1) and shown.get_cmap().name == "gray"
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["$x_t$", "predicted $x_0$"] * 2


def test_chain_shows_four_images_and_the_times_that_ddim_visits(command, trained, tmp_path, monkeypatch):
    seen = []
    original = commands.sample.strip
    monkeypatch.setattr(commands.sample, "strip", lambda frames: seen.extend(frames) or original(frames))
    flags = ["--weights", trained / "weights.safetensors", "--chain", "--steps", 4]
    assert command("sample", *flags, "--out", tmp_path / "c.png")[0] == 0
    assert [step.t for step in seen] == [200, 150, 100, 50, 0] and len(seen[0].x) == 4
    assert all(step.x0_hat.abs().max() <= 1 for step in seen), "x0_hat of this untrained net is large unless clipped"


def small(path: Path, kind: str) -> Path:
    """Weights of an untrained network for digits, none of them 0, so that t and label count."""
    torch.manual_seed(1)
    network = {
        **tiny_run.NETWORK,
        "image_size": 8,
        "attention_at": [],
        "classes": 11 if "labels" in kind else None,
        "dropout": 0.0,
    }
    model = UNet(**network)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    save_weights(path, model, None if "flow" in kind else schedules.cosine(6), {"data": "digits"})
    return path


@pytest.mark.parametrize("scale", [None, 2.5])
def test_sample_draws_the_classes_in_turn(command, tmp_path, scale):
    weights = small(tmp_path / "w", "labels")
    flags = [] if scale is None else ["--guidance", scale]
    assert command("sample", "--weights", weights, "--n", 12, *flags, "--out", tmp_path / "g.png")[0] == 0
    model, s, _ = load_weights(weights)
    y = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    want = {}
    for w in (1.0, 2.5):
        guided = guidance.classifier_free(model, y, w, 10)
        g = torch.Generator().manual_seed(0)
        want[w] = final(sampling.sample(s, guided, (12, 1, 8, 8), generator=g, clip_x0=True))
    got = (
        picture(tmp_path / "g.png").reshape(3, 68, 4, 68).transpose(0, 2, 1, 3)[:, :, 2:-2:8, 2:-2:8].reshape(12, 8, 8)
    )
    assert np.array_equal(got, want[scale or 1.0][:, 0]) and not np.array_equal(want[1.0], want[2.5])


@pytest.mark.parametrize("steps", [None, 4])
def test_sample_solves_a_flow_with_heuns_method(command, tmp_path, steps):
    weights, flags = small(tmp_path / "w", "flow"), [] if steps is None else ["--steps", steps]
    status, printed, _ = command(
        "sample", "--weights", weights, "--n", 1, "--seed", 2, *flags, "--out", tmp_path / "g.png"
    )
    assert status == 0 and f"1 image in {steps or 25} steps (Heun)" in printed
    model, g = load_weights(weights)[0], torch.Generator().manual_seed(2)
    want = final(flow.heun(flow.velocity(model), (1, 1, 8, 8), steps=steps or 25, generator=g))
    assert np.array_equal(picture(tmp_path / "g.png")[2:-2:8, 2:-2:8], want[0, 0])


def test_a_chain_of_a_flow_shows_a_thousand_tau(command, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        commands.sample, "strip", lambda frames, original=commands.sample.strip: seen.extend(frames) or original(frames)
    )
    flags = ["--weights", small(tmp_path / "w", "flow with labels"), "--chain", "--n", 2, "--steps", 4]
    assert command("sample", *flags, "--out", tmp_path / "c.png")[0] == 0
    assert [step.t for step in seen] == [1000, 750, 500, 250, 0]


def test_weights_that_come_with_the_course_are_known_by_name(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("a file of this name does not hide them")
    flags = ["--n", 3, "--steps", 2, "--out"]
    assert command("sample", "--weights", "digits", *flags, "a.png")[0] == 0
    assert command("sample", "--weights", shipped("digits"), *flags, "b.png")[0] == 0
    assert np.array_equal(picture(Path("a.png")), picture(Path("b.png")))


@pytest.mark.parametrize(
    ("kind", "flags", "said"),
    [
        ("diffusion", ["--guidance", "2"], "argument --guidance: expected weights with classes, got w without"),
        ("flow", ["--guidance", "2"], "argument --guidance: expected weights with classes, got w without"),
        ("labels", ["--guidance", "inf"], "argument --guidance: expected a number, got 'inf'"),
        ("labels", ["--guidance", "strong"], "argument --guidance: expected a number, got 'strong'"),
        ("labels", ["--steps", "7"], "argument --steps: expected at most the 6 steps of w, got 7"),
        ("flow", ["--steps", "1001"], "argument --steps: expected at most the 1000 steps of w, got 1001"),
        ("flow", ["--weights", "digits-judge"], "digits-judge.safetensors: not a whole weights file of this package"),
    ],
)
@pytest.mark.parametrize("name", ["sample", "judge"])
def test_flags_that_do_not_fit_the_weights_are_refused(refused, tmp_path, monkeypatch, name, kind, flags, said):
    monkeypatch.chdir(tmp_path)
    small(Path("w"), kind)
    assert said in refused(name, "--weights", "w", *flags, *(["--out", "g.png"] if name == "sample" else []))
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_strip_clips_colours_for_display():
    x = torch.tensor([-3.0, 0.0, 3.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    figure = commands.sample.strip([Step(9, x, -x)])
    above, below = (ax.images[0].get_array()[0, 0].tolist() for ax in figure.axes)
    assert above == [0, 0.5, 1] and below == [1, 0.5, 0]
    assert figure.axes[1].get_xlabel() == "t = 9"
    plt.close(figure)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "201"], "argument --steps: expected at most the 200 steps of"),
        (["--steps", "0"], "argument --steps: expected a whole number >= 1, got '0'"),
        (["--n", "0"], "argument --n: expected a whole number >= 1, got '0'"),
        (["--out", "picture.jpg"], "argument --out: expected a name that ends in .png, got 'picture.jpg'"),
        (["--out", "file/deeper/g.png"], "argument --out: expected a folder to write in, got file/deeper"),
        (["--weights", "missing"], "missing: expected a weights file, found no such file"),
        (["--weights", "file"], "file: not a whole weights file of this package"),
        (["--weights", "truncated"], "truncated: not a whole weights file of this package"),
        (["--weights", "pickle"], "pickle: not a whole weights file of this package"),
    ],
)
def test_sample_refuses_bad_input(refused, trained, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("here first")
    whole = (trained / "weights.safetensors").read_bytes()
    Path("truncated").write_bytes(whole[: len(whole) // 2])
    shutil.copy(trained / "checkpoint.pt", "pickle")
    before = contents(tmp_path)
    error = refused("sample", "--weights", trained / "weights.safetensors", "--out", "g.png", *flags)
    assert said in error
    assert contents(tmp_path) == before


def test_a_checkpoint_gives_its_average_or_its_newest_weights(command, trained, tmp_path):
    """Each the picture of the same weights in a file of their own."""
    state = load_checkpoint(trained / "checkpoint.pt")
    torch.nn.init.constant_(state.model.conv_out.bias, 1.5)  # after so few steps they would look the same
    save_checkpoint(tmp_path / "c.pt", state)
    for name, model in (("average", state.ema.model), ("newest", state.model)):
        save_weights(tmp_path / f"{name}.safetensors", model, state.config.schedule, {})
    pictures = []
    for flags in (
        [tmp_path / "c.pt"],
        [tmp_path / "average.safetensors"],
        [tmp_path / "c.pt", "--no-ema"],
        [tmp_path / "newest.safetensors"],
    ):
        out = tmp_path / "g.png"
        assert command("sample", "--weights", *flags, "--n", 4, "--steps", 3, "--out", out)[0] == 0
        pictures.append(out.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2] == pictures[3]


@pytest.mark.parametrize("name", ["sample", "evaluate", "judge", "export"])
def test_weights_that_are_not_what_their_card_says_are_refused(refused, trained, tmp_path, name):
    """A single number was changed in a file that is whole otherwise."""
    changed = tmp_path / "changed.safetensors"
    with safetensors.safe_open(trained / "weights.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        tensors["stem.bias"][0] += 2**-10
        safetensors.torch.save_file(tensors, changed, file.metadata())
    flags = {"evaluate": ["--data", "digits"], "judge": []}.get(name, ["--out", tmp_path / "g.png"])
    said = refused(name, "--weights", changed, *flags)
    assert f"{changed}: not a whole weights file of this package" in said and "expected tensors of sha256" in said
    assert list(tmp_path.iterdir()) == [changed]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(command, trained, tmp_path, monkeypatch):
    out = tmp_path / "g.png"
    flags = ["--weights", trained / "weights.safetensors", "--n", 1, "--steps", 1, "--out", out]
    assert command("sample", *flags)[0] == 0
    before = contents(tmp_path)

    def no_space(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    status, _, err = command("sample", *flags, "--seed", 1)
    assert status == 2 and err.splitlines()[-1].endswith(f"error: {out}: No space left on device")
    assert contents(tmp_path) == before


# --- evaluate, data ---------------------------------------------------------------------------------------------------


def fake_cifar10(monkeypatch, train: int = 60, test: int = 20) -> dict[str, Images]:
    """Random pictures of 8 x 8 pixels in the place of CIFAR-10."""
    rng = np.random.RandomState(0)
    splits = {
        split: Images(
            torch.from_numpy(rng.randint(0, 256, (n, 3, 8, 8)).astype(np.uint8)),
            torch.from_numpy(rng.randint(0, 3, n)), "cifar10", ("a", "b", "c"),
        )
        for split, n in (("train", train), ("test", test))
    }  # fmt: skip
    monkeypatch.setattr(data, "load", lambda name, split: splits[split])
    return splits


@pytest.mark.parametrize(("draws", "said"), [(None, "3 values of t"), (4, "4 values of t"), ("all", "every t")])
def test_evaluate_prints_and_writes_the_bounds(command, trained, tmp_path, monkeypatch, draws, said):
    """The network of a run with T = 6: every t is 5 draws, and the variances take 8 images, as 2 * 6 * ln 7 / 3 < 8."""
    monkeypatch.setattr(commands.evaluate, "EVALUATION_DRAWS", 3)
    model, _, card = load_weights(trained / "weights.safetensors")
    s, weights, report = schedules.cosine(6), tmp_path / "w.safetensors", tmp_path / "new" / "e.json"
    save_weights(weights, model, s, card)
    flags = [] if draws is None else ["--draws", draws]
    status, printed, _ = command(
        "evaluate", "--weights", weights, "--data", "digits", "--n", 7, *flags, "--json", report
    )

    def g():
        return torch.Generator().manual_seed(0)

    train, test = (data.digits(split).images for split in ("train", "test"))
    k = {None: 3, "all": 5}.get(draws, draws)
    mse = eps_mse(s, model, on_levels(train[7:15], 17), generator=g(), draws=3, clip_x0=True)
    settings = dict(draws=k, bins=17, clip_x0=True, var=variances(s, mse))
    want = {
        split: bounds(s, model, on_levels(u8[:7], 17), generator=g(), **settings)
        for split, u8 in (("test", test), ("train", train))
    }
    codecs = lossless_bits(test[:7])
    assert status == 0 and printed.startswith("bits/dim of 7 test and 7 training images of digits with 17 grey levels")
    assert f"{said} for each image" in printed and f"PNG {codecs['PNG']:.3f}, WebP {codecs['WebP']:.3f}" in printed
    rows = [line.split() for line in printed.splitlines()[2:8]]
    assert rows == [
        [split, name, f"{b.L_T:.4f}", *(f"{x:.3f}" for x in (b.L_t, b.L_0, b.total)), "+-", f"{b.std_error:.3f}"]
        for split, table in want.items()
        for name, b in table.items()
    ]
    assert len({len(line) for line in printed.splitlines()[2:8]}) == 1, "aligned"
    assert printed.splitlines()[1].split() == ["variances", "L_T", "L_1..T-1", "L_0", "bits/dim"]
    got = json.loads(report.read_text(encoding="utf-8"))
    assert got.pop("seconds") > 0
    assert got == {
        "weights": "w.safetensors",
        "data": "digits",
        "levels": 17,
        "draws": k,
        "seed": 0,
        "device": "cpu",
        "bounds": {
            split: {name: vars(b) | {"by_t": list(b.by_t)} for name, b in table.items()}
            for split, table in want.items()
        },
        "eps_mse": mse[1:].tolist(),
        "codecs": codecs,
        "card": card,
    }
    assert list(got["bounds"]["test"]) == ["beta", "beta_tilde", "optimal"] and len(got["eps_mse"]) == 6


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--n", "1"], "argument --n: expected a whole number >= 2, got '1'"),
        (["--n", "360"], "argument --n: expected at most the 359 test images of digits, got 360"),
        (
            ["--n", "300", "--draws", "1"],
            "argument --n: expected at most 1438 training images of digits, got 300 for the bound and 2122 others",
        ),
        (["--draws", "0"], "argument --draws: expected a whole number >= 1, got '0'"),
        (["--draws", "some"], "argument --draws: expected a whole number >= 1, got 'some'"),
        (["--data", "mnist"], "argument --data: invalid choice: 'mnist'"),
        (["--weights", "missing"], "missing: expected a weights file, found no such file"),
        (["--json", "file/e.json"], "argument --json: expected a folder to write in, got file"),
    ],
)
def test_evaluate_refuses_bad_input(refused, trained, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("here first")
    assert said in refused("evaluate", "--weights", trained / "weights.safetensors", "--data", "digits", *flags)
    assert contents(tmp_path) == {"file": b"here first"}


def test_evaluate_refuses_images_of_another_shape(refused, trained, monkeypatch):
    u8 = torch.zeros(999, 3, 32, 32, dtype=torch.uint8)
    monkeypatch.setattr(data, "load", lambda name, split: Images(u8, torch.zeros(9, dtype=torch.int64), name, ("a",)))
    error = refused("evaluate", "--weights", trained / "weights.safetensors", "--data", "cifar10", "--n", "9")
    assert "argument --data: " in error and "is for images (1, 8, 8), got cifar10 (3, 32, 32)" in error


def test_evaluate_tells_a_network_with_classes_no_label(command, tmp_path, monkeypatch):
    weights = small(tmp_path / "w", "labels")
    status, printed, _ = command("evaluate", "--weights", weights, "--data", "digits", "--n", 5, "--draws", 2)
    model, s, _ = load_weights(weights)
    x0, totals = on_levels(data.digits("test").images[:5], 17), []
    for label in (10, 0):
        found = bounds(
            s, lambda xt, t, label=label: model(xt, t, 0 * t + label), x0,
            generator=torch.Generator().manual_seed(0), draws=2, var={"beta": s.beta}, bins=17, clip_x0=True,
        )  # fmt: skip
        totals.append(f"{found['beta'].total:.3f}")
    assert status == 0 and totals[0] != totals[1]
    assert printed.splitlines()[2].split()[:2] == ["test", "beta"] and printed.splitlines()[2].split()[5] == totals[0]


def test_evaluate_has_no_bound_of_a_flow(refused, tmp_path):
    weights = small(tmp_path / "w", "flow")
    said = f"argument --weights: {weights} is a flow, whose bound in bits/dim is not known here"
    assert refused("evaluate", "--weights", weights, "--data", "digits").endswith(said)


def test_evaluate_needs_two_steps(refused, tmp_path):
    model, _, card = load_weights(small(tmp_path / "w", "diffusion"))
    save_weights(tmp_path / "w", model, schedules.constant(1), card)
    for draws in ("all", "5"):
        said = refused("evaluate", "--weights", tmp_path / "w", "--data", "digits", "--draws", draws)
        assert f"at least 2 steps, got T = 1 in {tmp_path / 'w'}" in said


# --- judge, classifier ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["labels", "flow", "diffusion"])
def test_judge_prints_and_writes_what_the_judge_finds(command, tmp_path, kind):
    weights, report = small(tmp_path / "w", kind), tmp_path / "new" / "j.json"
    flags = ["--guidance", 1.5] if kind == "labels" else []
    status, printed, _ = command(
        "judge", "--weights", weights, "--n", 360, "--steps", 3, "--seed", 4, *flags, "--json", report
    )
    assert status == 0
    model, s, _ = load_weights(weights)
    g, shape, y = torch.Generator().manual_seed(4), (360, 1, 8, 8), None
    if kind == "labels":
        y = torch.arange(360) % 10
        model = guidance.classifier_free(model, y, 1.5, 10)
    if kind == "flow":
        chain = flow.heun(flow.velocity(model), shape, steps=3, generator=g)
    else:
        chain = sampling.ddim(s, model, shape, steps=3, generator=g, clip_x0=True)
    classifier = load_classifier(shipped("digits-judge"))
    want = judge(list(chain)[-1].x, classifier, data.digits("train"), data.digits("test"), y)
    got = json.loads(report.read_text(encoding="utf-8"))
    settings = {"steps": 3, "seed": 4, "guidance": 1.5 if kind == "labels" else 1.0}
    assert got == settings | vars(want) | {"histogram": list(want.histogram)}
    for number in (f"{want.confident:.3f}", f"{want.frechet:.2f}", f"{want.nearer_to_train:.3f}", "360 samples"):
        assert number in printed
    assert ("of the class asked for" in printed) == (kind == "labels")


def test_judge_refuses_fewer_samples_than_test_images_and_weights_of_other_data(refused, tmp_path):
    weights = small(tmp_path / "w", "diffusion")
    said = refused("judge", "--weights", weights, "--n", 358)
    assert "argument --n: expected at least 359 samples, got 358" in said
    model, s, _ = load_weights(weights)
    for card, said in (({"data": "mnist"}, "mnist"), ({}, "None")):
        save_weights(weights, model, s, card)
        wanted = f"argument --weights: expected a card that names digits or cifar10 as data, got {weights}: {said}"
        assert refused("judge", "--weights", weights).endswith(wanted)


def colour(path: Path) -> Path:
    """Weights of an untrained network for images (3, 8, 8) that calls its data CIFAR-10."""
    torch.manual_seed(2)
    network = tiny_run.NETWORK | {"channels": 3, "image_size": 8, "attention_at": [], "dropout": 0.0}
    save_weights(path, UNet(**network), schedules.cosine(6), {"data": "cifar10"})
    return path


def test_judge_compares_photographs_with_as_many_real_ones(command, tmp_path, monkeypatch):
    splits, weights, report = fake_cifar10(monkeypatch), colour(tmp_path / "w"), tmp_path / "new" / "j.json"
    torch.manual_seed(3)
    classifier = Classifier(8, 3, 3, width=2, features=4, residual=True).eval()
    monkeypatch.setattr(commands.judge, "shipped", lambda name: Path(name))
    monkeypatch.setattr(commands.judge, "load_classifier", lambda path: {Path("cifar10-judge"): classifier}[path])
    monkeypatch.setattr(commands.sample, "AT_ONCE", 5 * 64)  # 5 images of 8 x 8 pixels
    flags = ["--n", 12, "--steps", 3, "--seed", 4, "--json", report, "--pairs", tmp_path / "p.png"]
    status, printed, _ = command("judge", "--weights", weights, *flags)
    model, s, card = load_weights(weights)
    chain = sampling.ddim(s, model, (12, 3, 8, 8), steps=3, generator=torch.Generator().manual_seed(4), clip_x0=True)
    x = list(chain)[-1].x
    want = compare(x, classifier, splits["train"], splits["test"], seed=4)
    got = json.loads(report.read_text(encoding="utf-8"))
    settings = {"steps": 3, "seed": 4, "guidance": 1.0, "sampler": "DDIM", "device": "cpu", "card": card}
    assert {name: got.pop(name) for name in settings} == settings
    copying, controls = got.pop("memorisation"), got.pop("controls")
    assert copying.pop("closest") == [pytest.approx(list(pair)) for pair in want.memorisation.closest]
    assert copying == {name: pytest.approx(vars(want.memorisation)[name]) for name in copying}
    assert list(copying) == ["ratio", "to_train", "test_to_train"]
    assert controls == pytest.approx(want.controls, rel=1e-4)
    assert got == {name: pytest.approx(vars(want)[name], rel=1e-4) for name in got}
    assert got.keys() == vars(want).keys() - {"memorisation", "controls"}
    assert status == 0 and "12 samples of" in printed and "3 steps (DDIM), against 12 test images" in printed
    assert "FD-C (not FID), n = 12" in printed and printed.count("FID") == 1
    numbers = [want.frechet, want.frechet_test, *want.controls.values(), want.memorisation.to_train]
    for number in (f"{number:.2f}" for number in numbers):
        assert number in printed
    for number in (want.precision, want.recall, want.precision_test, want.recall_test, want.memorisation.ratio):
        assert f"{number:.3f}" in printed

    tiles = picture(tmp_path / "p.png")  # 16 tiles of 64 x 64 and a margin of 2, four in a row
    assert tiles.shape == (4 * 68, 4 * 68, 3)
    for k, (i, j, _) in enumerate(want.memorisation.closest):
        row, column = divmod(2 * k, 4)
        left, right = (
            tiles[68 * row + 2 : 68 * row + 66 : 8, 68 * c + 2 : 68 * c + 66 : 8] for c in (column, column + 1)
        )
        sample, image = data.to_uint8(x[i]).permute(1, 2, 0).numpy(), splits["train"].images[j].permute(1, 2, 0).numpy()
        assert (left == sample).all()
        assert (right == min(image, image[:, ::-1], key=lambda y: ((y.astype(float) - sample) ** 2).sum())).all()


@pytest.mark.parametrize(("at_once", "sizes"), [(5 * 64, [5, 5, 2]), (64, [1] * 12), (1, [1] * 12), (9999, [12])])
def test_the_network_sees_no_more_images_at_once_than_memory_allows(tmp_path, monkeypatch, at_once, sizes):
    model, seen = load_weights(small(tmp_path / "w", "labels"))[0], []
    model.register_forward_pre_hook(lambda _, inputs: seen.append([len(x) for x in inputs]))
    monkeypatch.setattr(commands.sample, "AT_ONCE", at_once)
    xt, t, y = torch.randn(12, 1, 8, 8), torch.arange(12) % 6 + 1, torch.arange(12) % 11
    with torch.no_grad():
        got = commands.sample.in_parts(model)(xt, t, y)
        assert seen == [[n, n, n] for n in sizes]
        torch.testing.assert_close(got, model(xt, t, y))


def test_judge_refuses_numbers_that_cannot_be_compared_and_pairs_of_digits(refused, tmp_path, monkeypatch):
    weights = small(tmp_path / "digits", "diffusion")
    said = refused("judge", "--weights", weights, "--n", 360, "--pairs", tmp_path / "p.png")
    assert said.endswith(f"argument --pairs: expected weights for CIFAR-10, got {weights} for digits")
    assert "expected a name that ends in .png, got 'p.jpg'" in refused(
        "judge", "--weights", weights, "--pairs", "p.jpg"
    )
    fake_cifar10(monkeypatch)
    for n in (3, 21):
        said = refused("judge", "--weights", colour(tmp_path / "w"), "--n", n)
        assert said.endswith(f"argument --n: expected 4 to 20 samples, as there are 20 test images, got {n}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "w"]


def test_classifier_writes_what_training_gives(command, tmp_path):
    out, threads = tmp_path / "new" / "c.safetensors", torch.get_num_threads()
    flags = ["--data", "digits", "--seed", 7, "--epochs", 2, "--threads", threads, "--out", out]
    status, printed, _ = command("classifier", *flags)
    want, loss = train_classifier(data.digits("train"), 7, **RECIPES["digits"] | {"epochs": 2})
    got, x = load_classifier(out), data.to_float(data.digits("test").images)
    assert status == 0 and torch.equal(got(x), want(x))
    share = accuracy(want, data.digits("test"))
    assert f"Wrote {out}: right for {share:.4f} of the 359 test images." in printed
    with safetensors.safe_open(out, "pt") as file:
        card = json.loads(file.metadata()["card"])
    wanted = {"data": "digits", "seed": 7, "loss": loss, "accuracy": share, "parameters": 22_562, "threads": threads}
    wanted |= {"steps": 2 * 22, "batch": 64, "device": "cpu", "torch": torch.__version__}
    assert wanted.items() <= card.items() and card["seconds"] > 0


def test_classifier_of_photographs_is_stored_in_bf16_and_its_accuracy_is_that_of_the_file(
    command, tmp_path, monkeypatch
):
    splits, out = fake_cifar10(monkeypatch, train=40), tmp_path / "c.safetensors"
    recipe = RECIPES["cifar10"] | {"batch": 20, "width": 2, "features": 4}
    monkeypatch.setitem(RECIPES, "cifar10", recipe)
    status, printed, _ = command("classifier", "--data", "cifar10", "--out", out)
    want, loss = train_classifier(splits["train"], **recipe)
    got = load_classifier(out)
    for name, tensor in got.state_dict().items():
        assert tensor.dtype == want.state_dict()[name].dtype
        assert torch.equal(tensor, want.state_dict()[name].bfloat16().to(tensor.dtype))
    with safetensors.safe_open(out, "pt") as file:
        card = json.loads(file.metadata()["card"])
        assert file.get_tensor("head.weight").dtype == torch.bfloat16
    assert status == 0 and card["steps"] == recipe["epochs"] * 2 and card["loss"] == loss
    assert card["accuracy"] == accuracy(got, splits["test"]) and f"{card['accuracy']:.4f} of the 20" in printed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "mnist"], "argument --data: invalid choice: 'mnist'"),
        (["--epochs", "0"], "argument --epochs: expected a whole number >= 1, got '0'"),
        (["--out", "file/c.safetensors"], "argument --out: expected a folder to write in, got file"),
        (["--seed", "-1"], "argument --seed: expected a whole number >= 0, got '-1'"),
    ],
)
def test_classifier_refuses_bad_input(refused, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("here first")
    assert said in refused("classifier", "--data", "digits", "--out", "c.safetensors", *flags)
    assert contents(tmp_path) == {"file": b"here first"}


def test_data_downloads_and_says_where_it_is(command, refused, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(data, "download_cifar10", lambda folder=None: asked.append(folder) or tmp_path / "there")
    status, printed, _ = command("data", "cifar10", "--dir", tmp_path)
    assert status == 0 and f"CIFAR-10 is in {tmp_path / 'there'}." in printed
    assert f"export DDPM_EDU_DATA={tmp_path}" in printed
    assert command("data", "cifar10") == (0, f"CIFAR-10 is in {tmp_path / 'there'}.\n", "")
    assert asked == [tmp_path, None]

    def fails(folder=None):
        raise ValueError("no source worked:\nfirst; second")

    monkeypatch.setattr(data, "download_cifar10", fails)
    assert refused("data", "cifar10").endswith("error: no source worked: first; second")
    assert "invalid choice: 'imagenet'" in refused("data", "imagenet")


# --- help and the whole way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "sample", "evaluate", "judge", "classifier", "data"])
def test_help_shows_an_example_that_works(command, name):
    status, printed, _ = command(name, "--help")
    assert status == 0
    example = printed.split("example:\n")[1].strip()
    assert example.startswith(f"python -m ddpm_edu {name} ")
    assert commands.flags.parser().parse_args(example.split()[3:]).command == name
    assert status == 0 and f"{name} " in command("--help")[1]


def test_no_command_is_refused(refused):
    assert "required: command" in refused()


def test_the_whole_way_in_fresh_processes(tmp_path):
    def run(*argv) -> subprocess.CompletedProcess:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "ddpm_edu", *argv], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        return done

    assert run("train", "--steps", "4", "--out", "first").returncode == 0
    weights = "first/weights.safetensors"
    assert run("sample", "--weights", weights, "--n", "4", "--out", "g.png").returncode == 0
    assert run("sample", "--weights", weights, "--chain", "--out", "c.png").returncode == 0
    assert run("evaluate", "--weights", weights, "--data", "digits", "--n", "4").stdout.count("test   optimal") == 1
    assert picture(tmp_path / "g.png").shape == (136, 136) and picture(tmp_path / "c.png").ndim == 3


def test_the_exit_status_reaches_the_shell(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["ddpm_edu", "train", "--resume", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(cli.__file__, run_name="__main__")
    assert exit.value.code == 2


# What a hostile disk or a foreign file can do


@pytest.mark.parametrize("text", ["5\n", "[]\n", "null\n", '{"a": 1}\n', '{"step": "2"}\n'])
def test_a_foreign_log_is_refused_and_left_alone(refused, run_folder, text):
    (run_folder / "log.jsonl").write_text(text)
    before = contents(run_folder)
    said = refused("train", "--steps", 3, "--resume", "--out", run_folder)
    assert f"{run_folder / 'log.jsonl'}: expected the log of a training run, one JSON object a line, got" in said
    assert contents(run_folder) == before


def test_a_log_of_bytes_that_are_no_text_is_cut_there(command, run_folder):
    with open(run_folder / "log.jsonl", "ab") as file:
        file.write(b"\xff\xfe\x00")
    assert command("train", "--steps", 3, "--resume", "--out", run_folder)[0] == 0
    assert [json.loads(line)["step"] for line in (run_folder / "log.jsonl").read_text().splitlines()] == [2, 3]


def test_resume_cannot_plan_fewer_steps_than_are_done(refused, run_folder):
    before = contents(run_folder)
    said = refused("train", "--steps", 1, "--resume", "--out", run_folder)
    assert "argument --steps: expected at least the 2 steps already done, got 1" in said
    assert contents(run_folder) == before


@pytest.mark.parametrize("step", ["two", -1, 1.0])
def test_a_checkpoint_with_a_nonsensical_step_is_refused(refused, run_folder, step):
    saved = torch.load(run_folder / "checkpoint.pt", weights_only=True)
    torch.save({**saved, "step": step}, run_folder / "checkpoint.pt")
    before = contents(run_folder)
    assert f"expected a step >= 0, got {step!r}" in refused("train", "--resume", "--out", run_folder)
    assert contents(run_folder) == before


@pytest.mark.parametrize("name", ["train", "sample", "evaluate"])
def test_no_right_to_write_is_found_before_the_work(refused, trained, tmp_path, monkeypatch, name):
    def denied(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def work(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr(commands.files.tempfile, "TemporaryFile", denied)
    work_of = {commands.train: ["train"], commands.sample: ["ancestral"], commands.evaluate: ["eps_mse", "bounds"]}
    for module, functions in work_of.items():
        for function in functions:
            monkeypatch.setattr(module, function, work)
    weights, target = trained / "weights.safetensors", tmp_path / "out"
    flag, arguments = {
        "train": ("--out", ["--out", target]),
        "sample": ("--out", ["--weights", weights, "--out", target / "g.png"]),
        "evaluate": ("--json", ["--weights", weights, "--data", "digits", "--json", target / "e.json"]),
    }[name]
    said = refused(name, *arguments)
    assert f"argument {flag}: expected a folder to write in, got {target} (Permission denied)" in said


def test_a_picture_cannot_be_written_over_a_folder(refused, trained, tmp_path):
    (tmp_path / "a.png").mkdir()
    said = refused("sample", "--weights", trained / "weights.safetensors", "--out", tmp_path / "a.png")
    assert f"argument --out: expected the name of a file, got the folder {tmp_path / 'a.png'}" in said


@pytest.mark.parametrize("n", [10**13, 2**63 - 1])
def test_more_than_the_memory_holds_is_one_line(command, trained, tmp_path, n):
    weights, out = trained / "weights.safetensors", tmp_path / "g.png"
    status, printed, err = command("sample", "--weights", weights, "--n", n, "--out", out)
    assert status == 2 and printed == "" and "Traceback" not in err
    assert err.splitlines()[-1].endswith(cli.NO_MEMORY)
    assert not out.exists()
