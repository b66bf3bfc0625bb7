"""Tests of ddpm_edu.checkpoint: exact resumption, files that stay whole, and files of others that are refused."""

import errno
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import safetensors
import safetensors.torch
import torch
from tiny_run import KINDS, NETWORK, assert_same, config, everything, run

from ddpm_edu import checkpoint, schedules
from ddpm_edu.checkpoint import (
    load_checkpoint,
    load_network,
    load_weights,
    save_checkpoint,
    save_weights,
    shipped,
    tensor_hash,
)
from ddpm_edu.training import State

# --- checkpoints ------------------------------------------------------------------------------------------------------

CONTINUE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tiny_run import run
from ddpm_edu.checkpoint import load_checkpoint, save_checkpoint
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
    saved.seconds = 1.5
    save_checkpoint(tmp_path / "c.pt", saved)
    snapshot = {name: tensor.clone() for name, tensor in everything(saved).items()}
    got += run(saved, 2)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert_same(everything(loaded), snapshot)
    assert loaded.config.to_dict() == saved.config.to_dict()
    assert loaded.seconds == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_each_kind_goes_on_bit_for_bit(tmp_path, kind):
    """With dropout, flips and, where there are labels, with the draws of which to drop."""
    straight = State(config(**KINDS[kind]))
    want = run(straight, 4)
    expected = everything(straight)
    parts = State(config(**KINDS[kind]))
    got = run(parts, 2)
    save_checkpoint(tmp_path / "c.pt", parts)
    torch.rand(3)
    resumed = load_checkpoint(tmp_path / "c.pt")
    got += run(resumed, 2)
    assert_same(everything(resumed), expected)
    assert all(map(torch.equal, got, want))


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


LOADERS = [
    (load_checkpoint, "checkpoint.pt"),
    (load_network, "checkpoint.pt"),
    (load_weights, "weights.safetensors"),
]


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
        ({"format": "ddpm_edu.checkpoint/2"}, "expected the format 'ddpm_edu.checkpoint/3'"),
        ({"device": "cuda"}, "got one that can go on only on cuda"),
        ({"config": {}}, "schedule"),
        ({"model": {}}, "Missing key"),
    ],
)
def test_a_checkpoint_that_is_not_ours_is_refused(good, tmp_path, change, said):
    saved = torch.load(good / "checkpoint.pt", weights_only=True)
    torch.save(saved | change, tmp_path / "c.pt")
    assert said in read_with(load_checkpoint, tmp_path / "c.pt")


def test_a_lack_of_memory_is_no_fault_of_the_file(good, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(checkpoint, "State", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_checkpoint(good / "checkpoint.pt")


def test_a_run_of_a_cpu_says_how_to_go_on_beside_a_gpu(good):
    with pytest.raises(ValueError, match=r"on cuda:0, got one that can go on only on cpu \(hide the GPU: CUDA_VISIBLE"):
        load_checkpoint(good / "checkpoint.pt", "cuda:0")


def test_a_checkpoint_without_one_of_its_parts_is_refused(good, tmp_path):
    saved = torch.load(good / "checkpoint.pt", weights_only=True)
    for part in ("format", "config", "model", "ema", "optimizer", "generator", "t_generator", "global_rng", "step"):
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


def test_weights_in_bf16_come_back_as_float32_rounded_to_8_binary_digits(tmp_path):
    state = State(config())
    run(state, 3)
    for name, dtype in (("full", torch.float32), ("half", torch.bfloat16)):
        save_weights(tmp_path / name, state.ema.model, state.config.schedule, {"seed": 3}, dtype)
    full, half = (load_weights(tmp_path / name) for name in ("full", "half"))
    for name, tensor in half[0].state_dict().items():
        want = full[0].state_dict()[name]
        assert tensor.dtype == torch.float32 and torch.equal(tensor, want.to(torch.bfloat16).float()), name
        assert ((tensor - want).abs() <= 2**-8 * want.abs()).all(), name
    assert any(not torch.equal(*pair) for pair in zip(full[0].parameters(), half[0].parameters(), strict=True))
    assert half[2] == full[2] and torch.equal(half[1].beta, full[1].beta)
    with safetensors.safe_open(tmp_path / "half", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
        assert file.metadata()["sha256"] == tensor_hash(stored)
    assert tensor_hash(stored) != tensor_hash({name: tensor.float() for name, tensor in stored.items()})
    stored["stem.bias"][0] += 1
    with safetensors.safe_open(tmp_path / "half", "pt") as file:
        safetensors.torch.save_file(stored, tmp_path / "changed", file.metadata())
    assert "expected tensors of sha256" in read_with(load_weights, tmp_path / "changed")


def test_the_networks_of_a_checkpoint_are_the_average_and_the_newest(tmp_path):
    """Of a checkpoint from any device: nothing of it goes on, so that its random states do not matter."""
    state = State(config())
    run(state, 3)
    state.seconds = 2.34
    save_checkpoint(tmp_path / "c.pt", state)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.save(saved | {"device": "cuda", "cuda_rng": torch.zeros(16, dtype=torch.uint8)}, tmp_path / "gpu.pt")
    for name in ("c.pt", "gpu.pt"):
        averaged, schedule, card = load_network(tmp_path / name)
        newest, _, other = load_network(tmp_path / name, ema=False)
        assert_same(averaged.state_dict(), state.ema.model.state_dict())
        assert_same(newest.state_dict(), state.model.state_dict())
        assert not torch.equal(averaged.stem.weight, newest.stem.weight)
        assert not averaged.training and not newest.training
        assert torch.equal(schedule.beta, state.config.schedule.beta)
        assert other == card | {"ema": False} and card["ema"] is True
    assert card["steps"] == 3 and card["images_seen"] == 3 * state.config.batch and card["seconds"] == 2.3
    assert card["data"] == state.config.data and card["seed"] == 3 and card["device"] == "cuda"
    assert card["parameters"] == sum(p.numel() for p in state.model.parameters())
    assert not {"network", "schedule"} & set(card)


def test_weights_of_a_flow_have_no_schedule(tmp_path):
    model = State(config(**KINDS["flow with labels"])).ema.model
    save_weights(tmp_path / "w.safetensors", model, None, {})
    back, schedule, _ = load_weights(tmp_path / "w.safetensors")
    assert schedule is None and back.config["classes"] == 4
    assert_same(back.state_dict(), model.state_dict())


def test_tensors_that_were_changed_are_refused(good, tmp_path):
    """The file is whole and has the right names and shapes: only the hash can tell."""
    with safetensors.safe_open(good / "weights.safetensors", "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    before = tensor_hash(tensors)
    assert metadata["sha256"] == before
    tensors["stem.bias"][3] += 2**-20
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", metadata)
    said = read_with(load_weights, tmp_path / "w.safetensors")
    assert f"expected tensors of sha256 {before}, got {tensor_hash(tensors)}" in said
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", metadata | {"sha256": tensor_hash(tensors)})
    load_weights(tmp_path / "w.safetensors")
    del metadata["sha256"]
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", metadata)
    assert "sha256" in read_with(load_weights, tmp_path / "w.safetensors")


def test_the_hash_is_that_of_names_types_shapes_and_bytes():
    a, b = torch.arange(6).reshape(2, 3), torch.tensor([1.5, -2.0])
    by_hand = hashlib.sha256(b"a torch.int64 (2, 3)\n" + struct.pack("<6q", *range(6)))
    by_hand.update(b"b torch.float32 (2,)\n" + struct.pack("<2f", 1.5, -2))
    assert tensor_hash({"b": b, "a": a}) == by_hand.hexdigest()
    image = torch.randn(2, 3, 4, 4)
    assert tensor_hash({"x": image}) == tensor_hash({"x": image.to(memory_format=torch.channels_last)})
    others = [{"a": a, "c": b}, {"a": a.T, "b": b}, {"a": a.reshape(3, 2), "b": b}, {"a": a.int(), "b": b}, {"a": a}]
    assert len({tensor_hash(tensors) for tensors in [*others, {"a": a, "b": b}]}) == 6


def test_shipped_weights_are_found_by_name_and_others_are_not():
    assert shipped("digits").name == "digits.safetensors" and shipped("digits").is_file()
    with pytest.raises(ValueError, match=r"weights: expected one of .*digits, .*digits-judge.*, got '\.\./digits'$"):
        shipped("../digits")


def test_the_weights_file_is_plain_safetensors_with_json_metadata(good):
    with safetensors.safe_open(good / "weights.safetensors", "np") as file:
        metadata = file.metadata()
        names = set(file.keys())
    assert metadata["format"] == "ddpm_edu.weights/2"
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
    checkpoint.write_whole(path, b"old")

    def no_space(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, broken, no_space)
    with pytest.raises(OSError, match="No space left") as error:
        checkpoint.write_whole(path, b"new and longer")
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
        checkpoint.write_whole(tmp_path / "file" / "c.pt", b"x")
    assert error.value.filename == str(tmp_path / "file" / "c.pt")


def test_contents_are_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    """A rename that reaches the disk before the bytes would leave an empty checkpoint after a power cut."""
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a))[1])
    checkpoint.write_whole(tmp_path / "file", b"x" * 100)
    assert calls == ["fsync", "replace"] and (tmp_path / "file").read_bytes() == b"x" * 100
