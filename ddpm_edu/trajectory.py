"""Recorded reverse chains: what a network believes about x_0 at each t, in a file small enough to come with the course.

The file is a plain npz archive without pickled objects. x_t, x0_hat and eps_hat determine each other, by
x_t = sqrt(alpha_bar_t) x0_hat + sqrt(1 - alpha_bar_t) eps_hat. Stored are x0_hat in half precision and eps_hat in
bytes: eps_hat alone has the same scale at every t, and x_t in bytes would not tell it at small t.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm_edu import schedules
from ddpm_edu.checkpoint import reading, write_whole
from ddpm_edu.data import to_float, to_uint8
from ddpm_edu.gaussian import eps_from_x0, q_sample, x0_from_eps
from ddpm_edu.sampling import EpsModel, Step, ddim, p_step
from ddpm_edu.schedules import Schedule

FORMAT = "ddpm_edu.trajectory/1"
SAMPLES = 64
CHAINS = 8  # of these samples
EVERY = 15  # steps from one recorded time to the next
LAST = 64  # steps of image 0 that are all recorded
DDIM_STEPS = 50
CLONES = 4  # from each time
CLONED_AT = (0.9, 0.75, 0.6, 0.45, 0.3, 0.15)  # as shares of T, moved to the nearest recorded times
LOWEST_T = 100  # fewer steps have no six times to clone at
EPS_MAX = 5.0  # a byte of eps_hat is one of 256 values, evenly from -5 to 5; 1 in 1.7 million normal draws is beyond
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Chains of Algorithm 2 (Ho et al. 2020) with the predicted x_0, all sampled with a clipped x0_hat unless said.

    Tensors are float32 on the CPU, pictures nominally in [-1, 1]; times are int64. F times, images (C, H, W):

    * ``t`` (F,) = T, T - 15, ... down to at least 1; ``xt`` (8, F, C, H, W) and ``x0_hat``, the prediction made from
      the very ``xt`` beside it, as the network says it: not clipped, though the chain goes on with the clipped one;
    * ``last_t`` (64,) = 64..1, ``last_xt`` and ``last_x0_hat`` (64, C, H, W): the same for the last steps of image 0;
    * ``samples`` (64, C, H, W): the samples of this batch, of which the first 8 are where the chains end;
    * ``ddim`` (8, C, H, W): from the same x_T by DDIM, eta = 0, 50 steps;
    * ``unclipped`` (8, C, H, W): the same x_T and noise without the clip;
    * ``raw`` (8 or 0, C, H, W): the same x_T and noise with other weights, the newest instead of their average;
    * ``clone_t`` (6,), falling, each also in ``t``; ``clones`` (6, 4, C, H, W): samples that go on from the x_t of
      image 0 with noise of their own;
    * ``schedule``, and ``source``, what is known about the network: anything that JSON can say, with the seed.
    """

    schedule: Schedule
    source: dict[str, Any]
    t: Tensor
    xt: Tensor
    x0_hat: Tensor
    last_t: Tensor
    last_xt: Tensor
    last_x0_hat: Tensor
    samples: Tensor
    ddim: Tensor
    unclipped: Tensor
    raw: Tensor
    clone_t: Tensor
    clones: Tensor


def frame_times(T: int) -> list[int]:
    """The recorded times T, T - 15, ... >= 1."""
    return list(range(T, 0, -EVERY))


def clone_times(T: int) -> list[int]:
    """The six recorded times from which clones go on, falling. ValueError for T < 100."""
    if T < LOWEST_T:
        raise ValueError(f"schedule: expected T >= {LOWEST_T} steps for a trajectory, got {T}")
    return [T - EVERY * round((1 - share) * T / EVERY) for share in CLONED_AT]


def evaluations(T: int, raw: bool) -> int:
    """The number of images that `record` gives to its networks, for a progress bar."""
    return (SAMPLES + CHAINS * (2 if raw else 1)) * T + CHAINS * DDIM_STEPS + CLONES * sum(clone_times(T))


@torch.no_grad()
def record(
    s: Schedule,
    eps_model: EpsModel,
    image_shape: tuple[int, ...],
    *,
    seed: int = 0,
    raw_model: EpsModel | None = None,
    source: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> Trajectory:
    """Sample all that a `Trajectory` holds; ``samples`` are those of `sampling.sample` with the noise of ``seed``.

    The models live on ``device``; ``raw_model`` makes ``raw``, which is empty without one. ValueError for T < 100.
    """
    starts, frames, shape = clone_times(s.T), frame_times(s.T), (SAMPLES, *image_shape)
    generator = torch.Generator(device).manual_seed(seed)
    chains: dict[int, Step] = {}  # of the first images
    last: list[Step] = []  # of image 0
    for step in _chain(s, eps_model, shape, SAMPLES, generator):
        if step.t in frames:
            chains[step.t] = Step(step.t, step.x[:CHAINS], step.x0_hat[:CHAINS])
        if 0 < step.t <= LAST:
            last.append(Step(step.t, step.x[0], step.x0_hat[0]))
    samples = step.x
    clones = _clones(s, eps_model, {t: chains[t].x[:1] for t in starts}, generator)

    def end(model: EpsModel, clip: bool = True) -> Tensor:
        *_, step = _chain(s, model, shape, CHAINS, torch.Generator(device).manual_seed(seed), clip)
        return step.x

    xT = chains[s.T].x
    *_, by_ddim = ddim(s, eps_model, tuple(xT.shape), steps=DDIM_STEPS, generator=generator, clip_x0=True, xT=xT)
    return Trajectory(
        schedule=s,
        source={"seed": seed, **(source or {})},
        t=torch.tensor(frames),
        xt=torch.stack([step.x for step in chains.values()], 1).cpu(),
        x0_hat=torch.stack([step.x0_hat for step in chains.values()], 1).cpu(),
        last_t=torch.tensor([step.t for step in last]),
        last_xt=torch.stack([step.x for step in last]).cpu(),
        last_x0_hat=torch.stack([step.x0_hat for step in last]).cpu(),
        samples=samples.cpu(),
        ddim=by_ddim.x.cpu(),
        unclipped=end(eps_model, clip=False).cpu(),
        raw=samples[:0].cpu() if raw_model is None else end(raw_model).cpu(),
        clone_t=torch.tensor(starts),
        clones=clones.cpu(),
    )


def save(path: Path, tr: Trajectory) -> None:
    """Write ``tr`` as a compressed npz for `load`, the same bytes for the same trajectory.

    Rounded are: pictures to bytes, as `data.to_uint8` does, hence clipped; x0_hat and the last steps to half precision,
    cut at its largest number, 65504; eps_hat, from which `load` forms ``xt``, to a byte, cut at -5 and 5.
    """
    about = {"format": FORMAT, "schedule": json.loads(schedules.to_json(tr.schedule)), "source": tr.source}
    arrays: Arrays = {"about": np.array(json.dumps(about))}
    for name in ("t", "last_t", "clone_t"):
        arrays[name] = getattr(tr, name).numpy()
    for name in ("samples", "ddim", "unclipped", "raw", "clones"):
        arrays[name] = to_uint8(getattr(tr, name)).numpy()
    for name in ("x0_hat", "last_xt", "last_x0_hat"):
        largest = torch.finfo(torch.float16).max
        arrays[name] = getattr(tr, name).clamp(-largest, largest).half().numpy()
    x0_hat = torch.from_numpy(arrays["x0_hat"]).float()  # as `load` will find it
    eps_hat = [eps_from_x0(tr.schedule, tr.xt[:, k], t, x0_hat[:, k]) for k, t in enumerate(tr.t.tolist())]
    arrays["eps_hat"] = to_uint8(torch.stack(eps_hat, 1) / EPS_MAX).numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())


def load(path: Path) -> Trajectory:
    """The trajectory that `save` wrote, as precise as the file.

    ValueError, in one line that names the file, where it is missing, damaged, or where an array is missing, unknown, of
    another dtype, shape or order, or not finite. Pickled objects are refused unread.
    """
    with reading(path, "trajectory file"):
        opened = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ValueError("expected an npz archive, got a single array")
        with opened:
            arrays: Arrays = {name: opened[name] for name in opened.files}
        if "about" not in arrays or "samples" not in arrays:
            raise ValueError(f"expected arrays named about, samples and others, got {', '.join(arrays) or 'none'}")
        about = json.loads(str(arrays.pop("about")))
        if about["format"] != FORMAT:
            raise ValueError(f"expected the format {FORMAT!r}, got {about['format']!r}")
        s = schedules.from_json(json.dumps(about["schedule"]))
        _check(arrays, s.T)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        pictures = {name: to_float(tensor) for name, tensor in tensors.items() if tensor.dtype == torch.uint8}
        halves = {name: tensor.float() for name, tensor in tensors.items() if tensor.dtype == torch.float16}
        times = {name: tensor for name, tensor in tensors.items() if tensor.dtype == torch.int64}
        eps_hat = EPS_MAX * pictures.pop("eps_hat")
        columns = enumerate(times["t"].tolist())
        xt = torch.stack([q_sample(s, halves["x0_hat"][:, k], t, eps_hat[:, k]) for k, t in columns], 1)
        return Trajectory(schedule=s, source=about["source"], xt=xt, **times, **halves, **pictures)


def _check(arrays: Arrays, T: int) -> None:
    """ValueError for the first array that is not as `save` writes it."""
    image, frames, starts = arrays["samples"].shape[1:], frame_times(T), clone_times(T)
    if len(image) != 3 or image[0] not in (1, 3):
        raise ValueError(f"samples: expected shape (64, 1 or 3, H, W), got {arrays['samples'].shape}")
    expected = {
        "t": ("int64", (len(frames),)),
        "last_t": ("int64", (LAST,)),
        "clone_t": ("int64", (len(starts),)),
        "x0_hat": ("float16", (CHAINS, len(frames), *image)),
        "eps_hat": ("uint8", (CHAINS, len(frames), *image)),
        "last_xt": ("float16", (LAST, *image)),
        "last_x0_hat": ("float16", (LAST, *image)),
        "samples": ("uint8", (SAMPLES, *image)),
        "ddim": ("uint8", (CHAINS, *image)),
        "unclipped": ("uint8", (CHAINS, *image)),
        "raw": ("uint8", (CHAINS if len(arrays.get("raw", ())) else 0, *image)),
        "clones": ("uint8", (len(starts), CLONES, *image)),
    }
    if arrays.keys() != expected.keys():
        raise ValueError(f"expected arrays named {', '.join(sorted(expected))}, got {', '.join(sorted(arrays))}")
    for name, (dtype, shape) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name}: expected {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}")
        if dtype == "float16" and not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got some that are not")
    for name, times in {"t": frames, "last_t": list(range(LAST, 0, -1)), "clone_t": starts}.items():
        if arrays[name].tolist() != times:
            raise ValueError(f"{name}: expected the times {_short(times)}, got {_short(arrays[name].tolist())}")


def _short(times: list[int]) -> str:
    return f"{', '.join(map(str, times[:3]))}, ..., {times[-1]}"


def _chain(
    s: Schedule, eps_model: EpsModel, shape: tuple[int, ...], n: int, generator: torch.Generator, clip: bool = True
) -> Iterator[Step]:
    """`sampling.sample` with its noise on the first ``n`` images of the batch, with the x0_hat before it is clipped."""
    x = torch.randn(shape, generator=generator, device=generator.device)[:n]
    for t in range(s.T, 0, -1):
        x0_hat = _predict(s, eps_model, x, t)
        yield Step(t, x, x0_hat)
        z = torch.randn(shape, generator=generator, device=generator.device)[:n]
        x = p_step(s, x, t, x0_hat.clamp(-1, 1) if clip else x0_hat, s.beta, z)
    yield Step(0, x, x)


def _clones(s: Schedule, eps_model: EpsModel, starts: dict[int, Tensor], generator: torch.Generator) -> Tensor:
    """Samples (K, CLONES, C, H, W) from ``starts``, x_t (1, C, H, W) by falling t; each waits for its t."""
    x = torch.cat(list(starts.values())).repeat_interleave(CLONES, 0)
    for t in range(max(starts), 0, -1):
        going = x[: CLONES * sum(start >= t for start in starts)]
        z = torch.randn(going.shape, generator=generator, device=generator.device)
        going[:] = p_step(s, going, t, _predict(s, eps_model, going, t).clamp(-1, 1), s.beta, z)
    return x.reshape(len(starts), CLONES, *x.shape[1:])


def _predict(s: Schedule, eps_model: EpsModel, x: Tensor, t: int) -> Tensor:
    return x0_from_eps(s, x, t, eps_model(x, torch.full((len(x),), t, device=x.device)))
