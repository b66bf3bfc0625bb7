"""Tests of ddpm_edu.training: Algorithm 1 against a hand-written loop, exact resumption, files that stay whole."""

import dataclasses
import errno
import json
import math
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from ddpm_edu import schedules, training
from ddpm_edu.data import Images
from ddpm_edu.training import EMA, Config, State, load_checkpoint, load_weights, save_checkpoint, save_weights, train

NETWORK = {
    "image_size": 4,
    "channels": 1,
    "width": 8,
    "width_mults": [1, 2],
    "res_blocks": 1,
    "attention_at": [2],
    "dropout": 0.1,
}


def config(**changes) -> Config:
    values = {
        "preset": "none",
        "data": "digits",
        "network": NETWORK,
        "schedule": schedules.linear(20, 0.01, 0.3),
        "steps": 20,
        "batch": 5,
        "lr": 0.01,
        "warmup": 4,
        "clip": 1.0,
        "ema_decay": 0.4,
        "flip": True,
        "seed": 3,
    }
    return Config(**(values | changes))


def images(n: int = 12) -> Images:
    u8 = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    return Images(u8, torch.zeros(n, dtype=torch.int64), "random", ("all",))


def run(state: State, steps: int) -> list[torch.Tensor]:
    iterator = train(state, images())
    return [next(iterator).loss for _ in range(steps)]


def everything(state: State) -> dict[str, torch.Tensor]:
    """Every tensor that a run consists of, by name."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.model.state_dict().items()}
    for i, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in slots.items()}
    numbers = [state.step, state.ema.updates, state.optimizer.param_groups[0]["lr"]]
    return tensors | {
        "generator": state.generator.get_state(),
        "global": torch.get_rng_state(),
        "numbers": torch.tensor(numbers, dtype=torch.float64),
    }


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


# --- Algorithm 1 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
def test_steps_equal_algorithm_1_written_out_by_hand(flip):
    """Draws, loss, clipping, Adam with warm-up and EMA, in float64 numpy but for the network and its autograd."""
    lr, warmup, clip, decay = 0.01, 3, 0.05, 0.3
    c = config(flip=flip, lr=lr, warmup=warmup, clip=clip, ema_decay=decay, network=NETWORK | {"dropout": 0.0})
    state = State(c)
    net = State(c).model  # the same first weights
    g = torch.Generator().manual_seed(0)
    g.set_state(state.generator.get_state())
    u8 = images().images
    alpha_bar = np.cumprod(1 - np.linspace(0.01, 0.3, 20))
    parameters = list(net.parameters())
    average = [p.detach().double().numpy().copy() for p in parameters]
    m, v = [np.zeros_like(a) for a in average], [np.zeros_like(a) for a in average]
    clipped = 0

    iterator = train(state, images())
    for step in range(1, 7):
        record = next(iterator)
        x0 = u8[torch.randint(len(u8), (5,), generator=g)].double() / 127.5 - 1
        if flip:
            mirror = torch.rand(5, generator=g) < 0.5
            x0[mirror] = x0[mirror].flip(-1)
        t = torch.randint(1, 21, (5,), generator=g)
        eps = torch.randn(x0.shape, generator=g).double()
        a = torch.from_numpy(alpha_bar[t.numpy() - 1])[:, None, None, None]
        xt = (a.sqrt() * x0 + (1 - a).sqrt() * eps).float()
        loss = ((net(xt, t).double() - eps) ** 2).reshape(5, -1).sum(1) / 16
        gradients = [gradient.double().numpy() for gradient in torch.autograd.grad(loss.mean(), parameters)]
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients))
        clipped += norm > clip
        rate = lr * min(step / warmup, 1)
        d = min(decay, step / (9 + step))
        for i, gradient in enumerate(gradients):
            gradient = gradient * min(1, clip / norm)
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.999 * v[i] + 0.001 * gradient**2
            update = rate * (m[i] / (1 - 0.9**step)) / (np.sqrt(v[i] / (1 - 0.999**step)) + 1e-8)
            with torch.no_grad():
                # Adam turns the rounding of a gradient that is 0 in exact arithmetic into a step of size lr: take those
                # entries from the package, and compare the rest.
                theirs = dict(enumerate(state.model.parameters()))[i]
                new = torch.from_numpy(parameters[i].double().numpy() - update).float()
                sure = torch.from_numpy(np.sqrt(v[i]) > 1e-6)
                torch.testing.assert_close(theirs[sure], new[sure], rtol=1e-4, atol=2e-5)
                parameters[i].copy_(theirs)
            average[i] = d * average[i] + (1 - d) * parameters[i].detach().double().numpy()
        assert record.step == state.step == step
        assert record.lr == pytest.approx(rate, rel=1e-12)
        assert torch.equal(record.t, t)
        torch.testing.assert_close(record.loss.double(), loss.detach(), rtol=1e-4, atol=1e-5)
        assert record.grad_norm.item() == pytest.approx(norm, rel=1e-3)
        for theirs, ours in zip(state.ema.model.parameters(), average, strict=True):
            np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-4, atol=1e-6)
    assert clipped >= 3, "the clip was never active: the test has no power over it"


def test_t_is_uniform_from_1_to_T_inclusive():
    state = State(config(schedule=schedules.linear(4, 0.1, 0.4), batch=500))
    iterator = train(state, images())
    counts = torch.bincount(torch.cat([next(iterator).t for _ in range(8)]), minlength=5)
    assert len(counts) == 5 and counts[0] == 0
    spread = math.sqrt(4000 * 0.25 * 0.75)
    assert (counts[1:] - 1000).abs().max() < 4 * spread


def test_dropout_is_active_whatever_the_caller_did_in_between():
    """A caller samples from the network between two steps, which needs eval mode: the next step is in train mode."""
    losses = []
    for meddle in (False, True):
        state = State(config(network=NETWORK | {"dropout": 0.5}))
        iterator = train(state, images())
        for _ in range(3):
            losses.append(next(iterator).loss)
            assert state.model.training and not state.ema.model.training
            if meddle:
                state.model.eval()
    assert all(torch.equal(a, b) for a, b in zip(losses[:3], losses[3:], strict=True))
    state, calm = (State(config(network=NETWORK | {"dropout": p})) for p in (0.5, 0.0))
    assert not torch.equal(run(state, 3)[2], run(calm, 3)[2])


def test_the_loss_falls():
    losses = run(State(config(network=NETWORK | {"dropout": 0.0}, batch=32)), 40)
    first, last = torch.cat(losses[:4]).mean(), torch.cat(losses[-8:]).mean()
    assert first > 0.8 and last < 0.6 * first


def test_the_seed_fixes_a_run_and_its_two_streams_differ():
    a, b, c = (State(config(seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))
    assert not torch.equal(a.model.stem.weight, c.model.stem.weight)
    assert a.generator.initial_seed() == b.generator.initial_seed() != c.generator.initial_seed()
    assert a.generator.initial_seed() != 3, "the noise would repeat the numbers of the first weights"


def test_seconds_add_up():
    state = State(config())
    run(state, 1)
    after_one = state.seconds
    run(state, 2)
    assert 0 < after_one < state.seconds


def test_images_that_do_not_fit_the_network_are_refused():
    wrong = dataclasses.replace(images(), images=torch.zeros(3, 2, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"x: expected float images \(B, 1, H, W\), got .*\(1, 2, 4, 4\)"):
        next(train(State(config()), wrong))


# --- EMA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.9])
def test_ema_equals_an_explicit_loop(decay):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    ema = EMA(net, decay)
    rng = np.random.default_rng(0)
    want = [p.detach().numpy().copy() for p in net.parameters()]
    for n in range(40):
        with torch.no_grad():
            for p in net.parameters():
                p.copy_(torch.from_numpy(rng.normal(size=p.shape)))
            net[1].running_mean.fill_(n + 0.5)
        before = [p.detach().clone() for p in net.parameters()]
        ema.update(net)
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
        weight = min(decay, (n + 1) / (n + 10))
        want = [weight * w + (1 - weight) * p.detach().numpy() for w, p in zip(want, net.parameters(), strict=True)]
        for average, w in zip(ema.model.parameters(), want, strict=True):
            np.testing.assert_allclose(average.numpy(), w, rtol=1e-12, atol=1e-14)
        assert torch.equal(ema.model[1].running_mean, net[1].running_mean)
    assert ema.updates == 40


def test_ema_is_a_copy_for_evaluation_without_gradients():
    net = nn.Linear(2, 2)
    ema = EMA(net, 0.9)
    assert torch.equal(ema.model.weight, net.weight) and ema.model.weight.data_ptr() != net.weight.data_ptr()
    assert not ema.model.training and net.training
    assert not any(p.requires_grad for p in ema.model.parameters()) and net.weight.requires_grad


# --- config -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("batch", 1.5),
        ("warmup", -1),
        ("seed", -1),
        ("lr", 0.0),
        ("lr", math.nan),
        ("clip", 0.0),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
    ],
)
def test_config_refuses_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=name) as error:
        config(**{name: value})
    assert str(value) in str(error.value) and "\n" not in str(error.value)


def test_config_survives_json():
    c = config(schedule=schedules.cosine(7))
    back = Config.from_dict(json.loads(json.dumps(c.to_dict())))
    assert torch.equal(back.schedule.beta, c.schedule.beta)
    assert back.to_dict() == c.to_dict()


# --- checkpoints ------------------------------------------------------------------------------------------------------

CONTINUE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_training import run
from ddpm_edu.training import load_checkpoint, save_checkpoint
torch.set_num_threads(int(sys.argv[4]))
state = load_checkpoint(Path(sys.argv[2]))
losses = run(state, 10)
save_checkpoint(Path(sys.argv[2]), state)
torch.save(torch.stack(losses), sys.argv[3])
"""


def test_a_run_resumed_in_a_new_process_is_the_run_that_never_stopped(tmp_path):
    """20 steps = 10 + checkpoint + 10, with dropout: parameters, EMA, Adam, random states and losses, bit for bit."""
    straight = State(config())
    losses = run(straight, 20)
    want = everything(straight)

    first = State(config())
    begun = run(first, 10)
    save_checkpoint(tmp_path / "checkpoint.pt", first)
    command = [sys.executable, "-c", CONTINUE, os.path.dirname(__file__), str(tmp_path / "checkpoint.pt")]
    subprocess.run([*command, str(tmp_path / "losses.pt"), str(torch.get_num_threads())], check=True, timeout=120)
    torch.rand(17)  # what this process drew in between must not matter
    resumed = load_checkpoint(tmp_path / "checkpoint.pt")

    assert_same(everything(resumed), want)
    assert resumed.step == 20
    assert torch.equal(torch.stack(begun), torch.stack(losses[:10]))
    assert torch.equal(torch.load(tmp_path / "losses.pt"), torch.stack(losses[10:]))


def test_saving_does_not_disturb_the_run_and_loading_gives_all_of_it(tmp_path):
    quiet = State(config())
    want = [*run(quiet, 2), *run(quiet, 2)]
    saved = State(config())
    got = run(saved, 2)
    save_checkpoint(tmp_path / "c.pt", saved)
    snapshot = {name: tensor.clone() for name, tensor in everything(saved).items()}
    got += run(saved, 2)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert_same(everything(loaded), snapshot)
    assert loaded.config.to_dict() == saved.config.to_dict()
    assert 0 < loaded.seconds < saved.seconds
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


class Evil:
    """A pickle that runs a command when it is read."""

    def __init__(self, path) -> None:
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint and the weights file of the same run."""
    folder = tmp_path_factory.mktemp("good")
    state = State(config())
    run(state, 2)
    save_checkpoint(folder / "checkpoint.pt", state)
    save_weights(folder / "weights.safetensors", state.ema.model, state.config.schedule, {"seed": 3})
    return folder


def read_with(loader, path) -> str:
    """The one line that names the path."""
    with pytest.raises(ValueError) as error:
        loader(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


LOADERS = [(load_checkpoint, "checkpoint.pt"), (load_weights, "weights.safetensors")]


@pytest.mark.parametrize(("loader", "name"), LOADERS)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(good, tmp_path, loader, name, kept):
    whole = (good / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    assert "not a whole" in read_with(loader, tmp_path / name)


@pytest.mark.parametrize(("loader", "name"), LOADERS)
def test_a_missing_file_and_a_folder_are_refused(tmp_path, loader, name):
    assert "no such file" in read_with(loader, tmp_path / name)
    read_with(loader, tmp_path)


@pytest.mark.parametrize(("loader", "name"), LOADERS)
@pytest.mark.parametrize("content", [b"hello\n" * 99, b"\x00" * 1000, b"{}", b"PK\x03\x04" + b"\x00" * 99])
def test_a_foreign_file_is_refused(tmp_path, loader, name, content):
    (tmp_path / name).write_bytes(content)
    read_with(loader, tmp_path / name)


@pytest.mark.parametrize(("loader", "name"), LOADERS)
@pytest.mark.parametrize("how", ["pickle", "torch", "torch-legacy"])
def test_code_in_a_file_is_never_run(tmp_path, loader, name, how):
    evil = Evil(tmp_path / "was_here")
    if how == "pickle":
        (tmp_path / name).write_bytes(pickle.dumps(evil))
    else:
        torch.save({"format": evil}, tmp_path / name, _use_new_zipfile_serialization=how == "torch")
    read_with(loader, tmp_path / name)
    assert not (tmp_path / "was_here").exists()
    os.system(evil.command)
    assert (tmp_path / "was_here").exists(), "the test has no power: the command does nothing"


def test_a_flipped_bit_is_noticed(good, tmp_path):
    path = good / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    largest = max(zipfile.ZipFile(path).infolist(), key=lambda part: part.file_size)
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    (tmp_path / "c.pt").write_bytes(content)
    assert "is damaged" in read_with(load_checkpoint, tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other/1"}, "other/1"),
        ({"device": "cuda"}, "it was made on cuda"),
        ({"config": {}}, "schedule"),
        ({"model": {}}, "Missing key"),
    ],
)
def test_a_checkpoint_that_is_not_ours_is_refused(good, tmp_path, change, said):
    saved = torch.load(good / "checkpoint.pt", weights_only=True)
    torch.save(saved | change, tmp_path / "c.pt")
    assert said in read_with(load_checkpoint, tmp_path / "c.pt")


def test_a_checkpoint_without_one_of_its_parts_is_refused(good, tmp_path):
    saved = torch.load(good / "checkpoint.pt", weights_only=True)
    for part in ("format", "config", "model", "ema", "optimizer", "generator", "global_rng", "step"):
        torch.save({name: value for name, value in saved.items() if name != part}, tmp_path / "c.pt")
        assert f"KeyError: '{part}'" in read_with(load_checkpoint, tmp_path / "c.pt")


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_come_back_with_schedule_and_card(tmp_path):
    state = State(config(schedule=schedules.cosine(9)))
    run(state, 3)
    card = {"data": "digits", "loss": None, "seed": 3, "note": "é"}
    save_weights(tmp_path / "w.safetensors", state.ema.model, state.config.schedule, card)
    model, schedule, back = load_weights(tmp_path / "w.safetensors")
    want, raw = state.ema.model.state_dict(), state.model.state_dict()
    assert_same(model.state_dict(), want)
    assert not torch.equal(want["stem.weight"], raw["stem.weight"])
    xt, t = torch.randn(2, 1, 4, 4), torch.tensor([1, 9])
    torch.testing.assert_close(model(xt, t), state.ema.model(xt, t), rtol=1e-5, atol=1e-6)
    assert not model.training
    assert torch.equal(schedule.beta, schedules.cosine(9).beta)
    assert back == card
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_weights_file_is_plain_safetensors_with_json_metadata(good):
    with safetensors.safe_open(good / "weights.safetensors", "np") as file:
        metadata = file.metadata()
        names = set(file.keys())
    assert metadata["format"] == "ddpm_edu.weights/1"
    assert json.loads(metadata["network"])["width"] == NETWORK["width"]
    assert json.loads(metadata["schedule"])["T"] == 20
    assert json.loads(metadata["card"]) == {"seed": 3}
    assert names == set(State(config()).model.state_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "pt"}, "'pt'"),
        ({"network": "{"}, "JSONDecodeError"),
        ({"network": json.dumps(NETWORK | {"width": 16})}, "size mismatch"),
        ({"network": json.dumps({"colour": 1})}, "colour"),
        ({"schedule": "{}"}, "schedule JSON"),
        ({"card": "{"}, "JSONDecodeError"),
        ({}, "None"),
    ],
)
def test_a_safetensors_file_that_is_not_ours_is_refused(good, tmp_path, change, said):
    with safetensors.safe_open(good / "weights.safetensors", "pt") as file:
        metadata = {**file.metadata(), **change} if change else None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", metadata)
    assert said in read_with(load_weights, tmp_path / "w.safetensors")


# --- files that stay whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    training.write_whole(path, b"old")

    def no_space(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, broken, no_space)
    with pytest.raises(OSError, match="No space left") as error:
        training.write_whole(path, b"new and longer")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fills_up_half_way_leaves_the_old_checkpoint_whole(good, tmp_path):
    """The real thing: the system refuses every byte after the 20 000th."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    path = tmp_path / "c.pt"
    state = load_checkpoint(good / "checkpoint.pt")
    save_checkpoint(path, state)
    old = path.read_bytes()
    run(state, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            save_checkpoint(path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG and len(old) > 20_000
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_writing_below_a_file_is_an_oserror_that_names_the_path(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OSError) as error:
        training.write_whole(tmp_path / "file" / "c.pt", b"x")
    assert error.value.filename == str(tmp_path / "file" / "c.pt")


def test_contents_are_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    """A rename that reaches the disk before the bytes would leave an empty checkpoint after a power cut."""
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a))[1])
    training.write_whole(tmp_path / "file", b"x" * 100)
    assert calls == ["fsync", "replace"] and (tmp_path / "file").read_bytes() == b"x" * 100


def test_the_noise_has_a_seed_of_its_own_far_from_the_seeds_that_people_choose():
    for seed in range(5):
        assert State(config(seed=seed)).generator.initial_seed() > 2**32
