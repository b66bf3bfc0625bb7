"""Tests of ddpm_edu.distributed: several ranks train what one trains, and end together."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch
from tiny_run import NETWORK, config, images

from ddpm_edu import __main__ as cli
from ddpm_edu import commands, data, distributed
from ddpm_edu.checkpoint import load_checkpoint, save_checkpoint
from ddpm_edu.training import State, gradient, train

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture
def as_rank(monkeypatch):
    """Pretend to be a rank, as far as torchrun's environment goes."""

    def pretend(rank: int, size: int) -> None:
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size)):
            monkeypatch.setenv(name, str(value))

    return pretend


def test_the_parts_of_the_ranks_are_the_batch(as_rank):
    assert list(range(12))[distributed.part(12)] == list(range(12))
    parts = []
    for rank in range(4):
        as_rank(rank, 4)
        parts.append(list(range(12))[distributed.part(12)])
    assert [len(part) for part in parts] == [3] * 4 and [i for part in parts for i in part] == list(range(12))
    with pytest.raises(ValueError, match="batch: expected a multiple of the 4 ranks, got 14"):
        distributed.part(14)


def test_one_rank_needs_nobody():
    model, x = torch.nn.Linear(1, 1), torch.ones(2)
    assert distributed.replicate(model, torch.device("cpu")) is model
    assert distributed.gather(x) is x and distributed.largest(1) == 1
    before = torch.get_rng_state()
    distributed.seed_dropout(0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not distributed.rank_is_gone(RuntimeError("Connection closed by peer"))
    with distributed.joined(torch.device("cpu")):
        assert not torch.distributed.is_initialized()


def test_each_rank_masks_its_images_in_its_own_way(as_rank):
    """Dropout comes from the global stream: rank 0 keeps the saved one, others have one by seed, rank and step."""
    streams = {}
    for rank, seed, step in ((0, 3, 0), (1, 3, 0), (2, 3, 0), (1, 4, 0), (1, 3, 7)):
        as_rank(rank, 4)
        for _ in range(2):
            torch.manual_seed(3)
            distributed.seed_dropout(seed, step)
            streams.setdefault(tuple(torch.rand(3).tolist()), set()).add((rank, seed, step))
    assert len(streams) == 5 and all(len(who) == 1 for who in streams.values())
    torch.manual_seed(3)
    assert streams[tuple(torch.rand(3).tolist())] == {(0, 3, 0)}


# --- the gradients of two ranks are those of one ----------------------------------------------------------------------


def vector(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()]).double()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def test_two_ranks_give_the_gradients_of_one(tmp_path):
    """The same checkpoint goes on with one rank and with two, at once and in two pieces: a resume with another number.

    What the ranks draw is one batch: their t in a row are those of one rank. Both have the same weights afterwards.
    """
    begun = State(config(network=NETWORK | {"dropout": 0.0}, batch=8, clip=1e9, steps=100))
    for _ in itertools.islice(train(begun, images()), 6):
        pass  # at the very start most gradients are 0
    save_checkpoint(tmp_path / "c.pt", begun)

    def run(pieces: int) -> dict[str, torch.Tensor]:
        state = load_checkpoint(tmp_path / "c.pt")
        state.accumulate = pieces
        steps = train(state, images())
        record = next(steps)
        found = {
            "gradient": vector(state.model),
            "t": distributed.gather(record.t),
            "loss": distributed.gather(record.loss),
            "largest": torch.tensor(distributed.largest(distributed.rank())),
        }
        later = list(itertools.islice(steps, 3))[-1]
        found["ema.updates"] = torch.tensor(state.ema.updates)
        found["weights"] = torch.cat([p.detach().flatten() for p in state.model.parameters()])
        return found | {"norm later": later.grad_norm.double()}

    def work(rank: int) -> None:
        with distributed.joined(torch.device("cpu")):
            torch.save([run(1), run(2)], tmp_path / f"{rank}.pt")

    assert ranks.finish(ranks.start(2, work, tmp_path)) == [0, 0], (tmp_path / "0.err").read_text()
    want = run(1)
    (at_once, in_pieces), other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for got in (at_once, in_pieces):
        assert relative(got["gradient"], want["gradient"]) < 1e-5
        assert torch.equal(got["t"], want["t"]) and relative(got["loss"], want["loss"]) < 1e-5
        assert relative(got["norm later"], want["norm later"]) < 1e-2
        assert got["ema.updates"] == 10
    assert at_once["largest"] == 1 and other[0]["ema.updates"] == 6, "the EMA is kept by rank 0"
    assert torch.equal(at_once["weights"], other[0]["weights"]) and torch.equal(at_once["t"], other[0]["t"])


def test_half_of_a_batch_has_another_gradient():
    """The power of the test above: a rank that forgot the other would be far off."""
    state = State(config(network=NETWORK | {"dropout": 0.0}, batch=8, clip=1e9, steps=100))
    for _ in itertools.islice(train(state, images()), 6):
        pass
    g = torch.Generator().manual_seed(0)
    x0, t, eps = torch.rand(8, 1, 4, 4, generator=g), torch.arange(1, 9), torch.randn(8, 1, 4, 4, generator=g)
    y = torch.zeros(8, dtype=torch.int64)
    gradient(state, state.model, x0, t, eps, y)
    whole = vector(state.model)
    gradient(state, state.model, x0[:4], t[:4], eps[:4], y[:4])
    assert relative(vector(state.model), whole) > 0.1


# --- the command line under torchrun ----------------------------------------------------------------------------------


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def digits(monkeypatch):
    """Read once, not in every process."""
    read = data.load("digits", "train")
    monkeypatch.setattr(data, "load", lambda name, split: {("digits", "train"): read}[name, split])


def test_two_ranks_write_what_one_writes_and_one_goes_on_with_it(tmp_path, monkeypatch, capsys, digits):
    monkeypatch.setattr(commands.train, "LOG_EVERY", 2)
    flags = ["train", "--steps", "7", "--batch", "8"]

    def begin(rank: int) -> int:
        seeded = tmp_path / f"seeded {rank}"
        monkeypatch.setattr(distributed, "seed_dropout", lambda seed, step: seeded.write_text(f"{seed} {step}"))
        budget = ["--time-budget", "1e-9"] if rank == 1 else []  # one clock is enough to stop both after a step
        return cli.main([*flags, "--out", str(tmp_path / "two"), *budget])

    def go_on(rank: int) -> int:
        return cli.main([*flags, "--out", str(tmp_path / "two"), "--accumulate", "2", "--resume"])

    for work in (begin, go_on):
        assert ranks.finish(ranks.start(2, work, tmp_path)) == [0, 0], (tmp_path / "0.err").read_text()
    assert [(tmp_path / f"seeded {rank}").read_text() for rank in range(2)] == ["0 0"] * 2
    said = (tmp_path / "0.out").read_text()
    assert "after step 1 of 7" in said and "2 times cpu" in said and "after step 7 of 7" in said
    assert (tmp_path / "1.out").read_text() == (tmp_path / "1.err").read_text() == ""
    files = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert files == ["checkpoint.pt", "log.jsonl", "weights.safetensors"]
    assert cli.main([*flags, "--time-budget", "1e-9", "--out", str(tmp_path / "one")]) == 0
    assert cli.main([*flags, "--out", str(tmp_path / "one"), "--resume"]) == 0
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    assert torch.equal(one.generator.get_state(), two.generator.get_state())
    assert torch.equal(one.t_generator.get_state(), two.t_generator.get_state())
    assert one.step == two.step == 7 and one.ema.updates == two.ema.updates == 7
    for a, b in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert all(a[field] == b[field] for field in ("step", "images", "lr"))
        assert [b["loss"], b["grad_norm"]] == pytest.approx([a["loss"], a["grad_norm"]], rel=1e-3)
        assert [loss is None for loss in a["loss_by_t"]] == [loss is None for loss in b["loss_by_t"]]
    assert cli.main([*flags[:1], "--steps", "8", "--out", str(tmp_path / "two"), "--resume"]) == 0
    assert "Going on after step 7" in capsys.readouterr().out


def test_a_signal_to_one_rank_stops_all_with_everything_written(tmp_path, monkeypatch, digits):
    def work(rank: int) -> int:
        original = commands.train.log_line
        monkeypatch.setattr(commands.train, "LOG_EVERY", 1)

        def log_line(state, records, seconds):
            if rank == 1 and state.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # torchrun sends on what the terminal has sent
            return original(state, records, seconds)

        def save_weights(*args):
            time.sleep(0.5)
            saving(*args)

        saving = commands.train.save_weights
        monkeypatch.setattr(commands.train, "log_line", log_line)
        monkeypatch.setattr(commands.train, "save_weights", save_weights)
        status = cli.main(["train", "--steps", "1000", "--batch", "4", "--out", str(tmp_path / "run")])
        if not (tmp_path / "run" / "weights.safetensors").exists():
            return 3  # torchrun would end rank 0 while it writes
        return status

    assert ranks.finish(ranks.start(2, work, tmp_path)) == [0, 130], (tmp_path / "0.err").read_text()
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == log_of(tmp_path / "run")[-1]["step"] == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_number_of_ranks_that_does_not_divide_the_batch_is_one_line(as_rank, tmp_path, capsys, rank):
    as_rank(rank, 3)
    assert cli.main(["train", "--batch", "8", "--out", str(tmp_path / "run")]) == 2
    said = "python -m ddpm_edu train: error: batch: expected a multiple of the 3 ranks, got 8\n"
    assert capsys.readouterr() == ("", said if rank == 0 else "")
    with pytest.raises(SystemExit):
        cli.main(["train", "--batch", "0"])
    assert capsys.readouterr().err.count("\n") == (1 if rank == 0 else 0)
    assert list(tmp_path.iterdir()) == []


def test_what_one_rank_alone_knows_is_said_by_it(as_rank, tmp_path, capsys):
    as_rank(1, 2)
    (tmp_path / "file").touch()
    assert cli.main(["train", "--batch", "8", "--schedule", str(tmp_path / "none.json"), "--out", "x"]) == 2
    assert capsys.readouterr().err == "", "rank 0 says it"

    def no_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands.train, "start_or_resume", no_memory)
        assert cli.main(["train", "--out", str(tmp_path / "run")]) == 2
    assert cli.NO_MEMORY in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(as_rank, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.device() == "cuda:0"
    as_rank(1, 3)
    assert distributed.device() == "cuda:1"
    as_rank(2, 3)
    with pytest.raises(ValueError, match="torchrun: expected at most 2 processes, one for each GPU"):
        distributed.device()


def children_of(process: int) -> list[int]:
    """Of a process on Linux, by rank."""
    found = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    environments = {child: Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in found}
    ranked = {
        int(entry[5:]): child for child, entries in environments.items() for entry in entries if entry[:5] == b"RANK="
    }
    return [ranked[rank] for rank in sorted(ranked)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list a process's children")
def test_a_killed_rank_ends_the_job_with_a_clear_message_and_a_whole_checkpoint(tmp_path):
    """With the real torchrun. Two processes begin, one is killed, and one process goes on from what they wrote."""
    script = tmp_path / "often.py"
    script.write_text(
        "import sys\nfrom ddpm_edu import __main__ as cli, commands\ncommands.train.SAVE_EVERY = 0.0\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    job = subprocess.Popen(
        [*torchrun, str(script), "train", "--steps", "100000", "--batch", "4", "--out", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + 200
        while not (out / "weights.safetensors").exists() and job.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        victims = children_of(job.pid)
        assert len(victims) == 2, "the two ranks did not start"
        os.kill(victims[1], signal.SIGKILL)
        said, _ = job.communicate(timeout=100)
    finally:
        job.kill()
    assert job.returncode not in (0, None)
    assert f"python -m ddpm_edu train: error: {cli.GONE}" in said and "Signal 9 (SIGKILL)" in said
    step = load_checkpoint(out / "checkpoint.pt").step
    assert step >= 1
    assert cli.main(["train", "--steps", str(step + 1), "--out", str(out), "--resume"]) == 0
    assert load_checkpoint(out / "checkpoint.pt").step == step + 1
