"""Files of a training run: a checkpoint, from which it goes on exactly, and weights, for sharing.

A checkpoint holds a whole run. Weights are a safetensors file with the network's configuration, the schedule, a card
and a hash of the tensors; a few come with the course, see `shipped`. Reading either never runs code from the file;
writing replaces the old file as a whole or leaves it.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ddpm_edu import schedules
from ddpm_edu.schedules import Schedule
from ddpm_edu.training import Config, State
from ddpm_edu.unet import UNet

CHECKPOINT_FORMAT = "ddpm_edu.checkpoint/3"
WEIGHTS_FORMAT = "ddpm_edu.weights/2"
SHIPPED = Path(__file__).with_name("weights")


def save_checkpoint(path: Path, state: State) -> None:
    """Write the whole run, so that `load_checkpoint` goes on as if it had never stopped.

    Bit for bit on a CPU; a GPU picks its algorithms anew in each process, and may round otherwise.
    """
    contents = {
        "format": CHECKPOINT_FORMAT,
        "config": state.config.to_dict(),
        "device": state.device.type,
        "step": state.step,
        "seconds": state.seconds,
        "model": state.model.state_dict(),
        "ema": state.ema.model.state_dict(),
        "ema_updates": state.ema.updates,
        "optimizer": state.optimizer.state_dict(),
        "generator": state.generator.get_state(),
        "t_generator": state.t_generator.get_state(),
        "global_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(state.device) if state.device.type == "cuda" else None,
    }
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> State:
    """The run that `save_checkpoint` wrote; sets torch's global random state as well.

    ValueError, in one line that names the file, where it is missing, damaged, not a checkpoint of this package, or
    from another kind of device (whose random numbers cannot be continued here).
    """
    with _loading_checkpoint(path) as saved:
        made_on = saved["device"]
    if made_on != torch.device(device).type:
        hide = " (hide the GPU: CUDA_VISIBLE_DEVICES=)" if made_on == "cpu" else ""
        raise ValueError(
            f"{path}: expected a checkpoint made on {device}, got one that can go on only on {made_on}{hide}"
        )
    with reading(path, "checkpoint"):
        state = State(Config.from_dict(saved["config"]), device)
        state.model.load_state_dict(saved["model"])
        state.ema.model.load_state_dict(saved["ema"])
        state.ema.updates = saved["ema_updates"]
        state.optimizer.load_state_dict(saved["optimizer"])
        state.step, state.seconds = saved["step"], saved["seconds"]
        if type(state.step) is not int or state.step < 0:
            raise ValueError(f"expected a step >= 0, got {state.step!r}")
        state.generator.set_state(saved["generator"])
        state.t_generator.set_state(saved["t_generator"])
        torch.set_rng_state(saved["global_rng"])
        if state.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"], state.device)
    return state


def load_network(path: Path, ema: bool = True) -> tuple[UNet, Schedule | None, dict[str, Any]]:
    """What `load_weights` gives, out of a checkpoint from any device: the averaged weights, or without them the newest.

    ValueError as for `load_checkpoint`.
    """
    with _loading_checkpoint(path) as saved:
        config = Config.from_dict(saved["config"])
        model = UNet(**config.network)
        model.load_state_dict(saved["ema" if ema else "model"])
        card = {name: value for name, value in saved["config"].items() if name not in ("network", "schedule")}
        card |= {
            "steps": saved["step"],
            "images_seen": saved["step"] * config.batch,
            "seconds": round(saved["seconds"], 1),
            "device": saved["device"],
            "ema": ema,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        return model.eval(), config.schedule, card


@contextmanager
def _loading_checkpoint(path: Path) -> Iterator[dict[str, Any]]:
    """What a checkpoint holds; what goes wrong in the block is an error of the file too, as in `loading`."""
    with reading(path, "checkpoint"):
        if damaged := zipfile.ZipFile(path).testzip():  # torch.load does not look at the checksums
            raise ValueError(f"its part {damaged} is damaged")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["format"] != CHECKPOINT_FORMAT:
            raise ValueError(f"expected the format {CHECKPOINT_FORMAT!r}, got {saved['format']!r}")
        yield saved


def save_weights(
    path: Path, model: UNet, schedule: Schedule | None, card: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write ``model`` (share the EMA, ``state.ema.model``) for `load_weights`; ``card`` is whatever JSON can say.

    ``schedule`` is None for a network that was trained by flow matching. ``dtype`` is that of the numbers in the file:
    torch.bfloat16 halves it and keeps 8 binary digits of each weight.
    """
    metadata = {
        "network": json.dumps(model.config),
        "schedule": schedules.to_json(schedule) if schedule else "null",
        "card": json.dumps(card),
    }
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    save_tensors(path, WEIGHTS_FORMAT, tensors, metadata)


def load_weights(path: Path) -> tuple[UNet, Schedule | None, dict[str, Any]]:
    """The network (on the CPU, float32, in evaluation mode), schedule and card that `save_weights` wrote.

    ValueError, in one line that names the file, where it is missing, damaged or not a weights file of this package.
    """
    with loading(path, WEIGHTS_FORMAT) as (tensors, metadata):
        model = UNet(**json.loads(metadata["network"]))
        model.load_state_dict(tensors)
        schedule = None if metadata["schedule"] == "null" else schedules.from_json(metadata["schedule"])
        return model.eval(), schedule, json.loads(metadata["card"])


def shipped(name: str) -> Path:
    """The file of the weights ``name`` that come with the course (cards in ddpm_edu/weights/README.md).

    ValueError that lists the names for an unknown one.
    """
    if name not in shipped_names():
        raise ValueError(f"weights: expected one of {', '.join(shipped_names())}, got {name!r}")
    return SHIPPED / f"{name}.safetensors"


def shipped_names() -> list[str]:
    """The names that `shipped` accepts."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def save_tensors(path: Path, format: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file for `loading`, which knows it by ``format`` and verifies the tensors by their hash."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}  # channels_last is not
    metadata = {"format": format, "sha256": tensor_hash(tensors), **metadata}
    write_whole(path, safetensors.torch.save(tensors, metadata))


@contextmanager
def loading(path: Path, format: str) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
    """Tensors and metadata of a file of `save_tensors`; what goes wrong in the block is an error of the file too.

    ValueError, in one line that names the file, where it is missing, damaged, of another format, or where the tensors
    are not those that were saved.
    """
    with reading(path, "weights file"), safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != format:
            raise ValueError(f"expected the format {format!r}, got {metadata.get('format')!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if (got := tensor_hash(tensors)) != metadata["sha256"]:
            raise ValueError(f"expected tensors of sha256 {metadata['sha256']}, got {got}")
        yield tensors, metadata


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """sha256 over name, dtype, shape and bytes of each tensor, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return digest.hexdigest()


def write_whole(path: Path, contents: bytes) -> None:
    """Put ``contents`` at ``path`` entirely or not at all: until the last byte is on disk, the old file stays.

    OSError that names ``path`` where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()  # gone already if all went well


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever reading ``path`` raises into one line: a foreign file can fail in any way at all.

    Not so a lack of memory, of which the file is innocent.
    """
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a {what}, found no such file") from None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not a whole {what} of this package ({type(error).__name__}: {reason})") from None
