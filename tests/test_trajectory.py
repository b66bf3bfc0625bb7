"""Tests of recorded chains: what belongs to which t, what a file keeps, which files are refused; and of the command."""

import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch

from ddpm_edu import __main__ as cli
from ddpm_edu import sampling, schedules, trajectory
from ddpm_edu.checkpoint import load_weights, save_checkpoint, save_weights, tensor_hash
from ddpm_edu.training import Config, State
from ddpm_edu.unet import UNet

S = schedules.linear(100, 1e-3, 0.15)
SHAPE = (3, 4, 4)
TIMES = [100, 85, 70, 55, 40, 25, 10]
ARRAYS = [field.name for field in dataclasses.fields(trajectory.Trajectory)][2:]


def model(xt, t):
    """No good network, but one whose answer depends on t and, far from linearly, on every pixel near by."""
    shift = t.reshape(-1, 1, 1, 1) / 30
    return 0.7 * torch.sin(1.7 * xt + shift) + 0.3 * xt.roll(1, -1) + 0.1


def other(xt, t):
    return model(xt, t) - 0.2


def x0_by_hand(xt, t, network=model):
    """What the network says of x_0, float64."""
    xt, abar = xt.double(), S.alpha_bar[t].item()
    return (xt - math.sqrt(1 - abar) * network(xt, torch.full((len(xt),), t))) / math.sqrt(abar)


def chain(network=model, seed=3, clip=True):
    """Every step of the package's own sampler, by t."""
    generator = torch.Generator().manual_seed(seed)
    steps = sampling.sample(S, network, (64, *SHAPE), generator=generator, clip_x0=clip)
    return {step.t: step for step in steps}


@pytest.fixture(scope="module")
def tr():
    return trajectory.record(S, model, SHAPE, seed=3, raw_model=other, source={"card": {"steps": 7}})


@pytest.fixture
def file(tr, tmp_path):
    trajectory.save(tmp_path / "a.npz", tr)
    return tmp_path / "a.npz"


# --- record -----------------------------------------------------------------------------------------------------------


def test_every_prediction_is_made_from_the_picture_beside_it_at_its_own_time(tr):
    steps = chain()
    assert tr.t.tolist() == TIMES and tr.t.dtype == torch.int64
    assert tr.xt.shape == tr.x0_hat.shape == (8, 7, *SHAPE)
    for k, t in enumerate(TIMES):
        torch.testing.assert_close(tr.xt[:, k], steps[t].x[:8])
        want = x0_by_hand(steps[t].x[:8], t)
        torch.testing.assert_close(tr.x0_hat[:, k].double(), want, rtol=1e-5, atol=1e-5)
        # the slip: a prediction under the time of a neighbour, or one made a step before or after, would show
        for wrong in (t - 1, t + 1) if t < 100 else (t - 1,):
            assert (x0_by_hand(steps[wrong].x[:8], wrong) - want).abs().max() > 0.01
            assert (x0_by_hand(steps[t].x[:8], wrong) - want).abs().max() > 0.001


def test_predictions_are_kept_as_said_and_the_chain_goes_on_with_clipped_ones(tr):
    assert tr.x0_hat[:, 0].abs().max() > 5 and (tr.x0_hat.abs() > 1).double().mean() > 0.2
    clipped, free = chain(), chain(clip=False)
    torch.testing.assert_close(tr.samples, clipped[0].x)
    assert (clipped[0].x - free[0].x).abs().max() > 0.1


def test_clones_go_on_with_clipped_predictions_too(tr):
    """At t = 1 the mean is the prediction itself and there is no noise: what is clipped ends within [-1, 1]."""
    assert tr.clones.abs().max() < 1 + 1e-5 and tr.unclipped.abs().max() > 1.2


def test_the_last_steps_of_image_0_are_all_there(tr):
    steps = chain()
    assert tr.last_t.tolist() == list(range(64, 0, -1)) and tr.last_t.dtype == torch.int64
    for k, t in enumerate(range(64, 0, -1)):
        torch.testing.assert_close(tr.last_xt[k], steps[t].x[0])
        want = x0_by_hand(steps[t].x[:1], t)[0]
        torch.testing.assert_close(tr.last_x0_hat[k].double(), want, rtol=1e-5, atol=1e-5)
    assert torch.equal(tr.last_xt[64 - 25], tr.xt[0, TIMES.index(25)])


def test_other_ways_down_start_from_the_same_noise(tr):
    xT = chain()[100].x[:8]
    *_, by_ddim = sampling.ddim(
        S, model, (8, *SHAPE), steps=50, generator=torch.Generator(), eta=0.0, clip_x0=True, xT=xT
    )
    torch.testing.assert_close(tr.ddim, by_ddim.x)
    torch.testing.assert_close(tr.unclipped, chain(clip=False)[0].x[:8])
    torch.testing.assert_close(tr.raw, chain(other)[0].x[:8])
    ends = [tr.samples[:8], tr.ddim, tr.unclipped, tr.raw]
    assert all((a - b).abs().max() > 0.05 for i, a in enumerate(ends) for b in ends[:i])


def test_without_other_weights_raw_is_empty():
    tr = trajectory.record(S, model, SHAPE)
    assert tr.raw.shape == (0, *SHAPE) and tr.source == {"seed": 0}


@pytest.mark.parametrize("v", [0.02, 0.05])
def test_clones_are_drawn_from_the_posterior_of_the_picture_they_left(v):
    """Pixels N(0, v), independent: x_0 given x_t is N(gain x_t, v (1 - abar) / total), and the exact eps is known."""

    def exact(xt, t):
        abar = S.alpha_bar[t].reshape(-1, 1, 1, 1)
        return ((1 - abar).sqrt() / (abar * v + 1 - abar)).float() * xt

    tr = trajectory.record(S, exact, (3, 16, 16), seed=1)
    assert tr.clones.shape == (6, 4, 3, 16, 16)
    for k, t in enumerate(tr.clone_t.tolist()):
        abar = S.alpha_bar[t].item()
        total = abar * v + 1 - abar
        xt = tr.xt[0, TIMES.index(t)]
        z = (tr.clones[k] - math.sqrt(abar) * v / total * xt) / math.sqrt(v * (1 - abar) / total)
        assert abs(z.std().item() - 1) < 0.08  # 3072 numbers: 0.013 is one standard error, the rest large steps' bias
        assert abs(z.mean().item()) < 4 / math.sqrt(z.numel())
        assert abs((z * xt).mean().item()) / xt.std().item() < 0.09  # nothing of x_t is left in what remains
        pairs = [(z[i] * z[j]).mean().item() for i in range(4) for j in range(i)]
        assert max(map(abs, pairs)) < 5 / math.sqrt(768)  # noise of their own


def test_a_clone_waits_for_its_time():
    seen = []

    def listening(xt, t):
        assert len(set(t.tolist())) == 1 and t.dtype == torch.int64
        seen.append((len(xt), int(t[0])))
        return model(xt, t)

    tr = trajectory.record(S, listening, SHAPE, raw_model=listening)
    starts = [85, 70, 55, 40, 25, 10]
    assert tr.clone_t.tolist() == starts
    down = list(range(100, 0, -1))
    cloned = [(4 * sum(start >= t for start in starts), t) for t in range(85, 0, -1)]
    grid = [(8, t) for t in range(100, 0, -2)]
    once = [(8, t) for t in down]
    assert sorted(seen) == sorted([(64, t) for t in down] + cloned + grid + once + once)
    assert trajectory.evaluations(100, raw=True) == sum(n for n, _ in seen)
    assert trajectory.evaluations(100, raw=False) == sum(n for n, _ in seen) - 800


def test_a_seed_gives_the_same_again_and_another_seed_something_else(tr):
    again, another = (trajectory.record(S, model, SHAPE, seed=seed, raw_model=other) for seed in (3, 4))
    assert (again.source, another.source) == ({"seed": 3}, {"seed": 4})
    for name in ARRAYS:
        assert torch.equal(getattr(tr, name), getattr(again, name))
        if not name.endswith("t") or name in ("xt", "last_xt"):
            assert not torch.equal(getattr(tr, name), getattr(another, name)), name
    assert tr.source == {"seed": 3, "card": {"steps": 7}}


def test_times_of_the_papers_chain():
    assert trajectory.frame_times(1000)[:3] == [1000, 985, 970] and trajectory.frame_times(1000)[-1] == 10
    assert len(trajectory.frame_times(1000)) == 67
    assert trajectory.clone_times(1000) == [895, 745, 595, 445, 295, 145]
    assert trajectory.frame_times(31) == [31, 16, 1]


@pytest.mark.parametrize("T", [100, 101, 137, 200, 1000, 1001, 4000])
def test_clones_start_at_six_recorded_times(T):
    times = trajectory.clone_times(T)
    assert len(set(times)) == 6 and times == sorted(times, reverse=True)
    assert set(times) <= set(trajectory.frame_times(T))
    assert all(abs(t / T - share) <= 7.5 / T for t, share in zip(times, (0.9, 0.75, 0.6, 0.45, 0.3, 0.15), strict=True))


def test_a_chain_that_is_too_short_is_refused_before_any_work():
    def never(xt, t):
        raise AssertionError

    with pytest.raises(ValueError, match="^schedule: expected T >= 100 steps for a trajectory, got 99$"):
        trajectory.record(schedules.linear(99), never, SHAPE)


# --- save and load ----------------------------------------------------------------------------------------------------


def test_a_file_keeps_times_schedule_and_source(tr, file):
    got = trajectory.load(file)
    for name in ("t", "last_t", "clone_t"):
        assert torch.equal(getattr(got, name), getattr(tr, name))
    assert torch.equal(got.schedule.beta, S.beta) and got.source == tr.source
    assert all(getattr(got, name).dtype == getattr(tr, name).dtype for name in ARRAYS)
    assert all(getattr(got, name).shape == getattr(tr, name).shape for name in ARRAYS)


def test_a_file_rounds_by_no_more_than_it_says(tr, file):
    got = trajectory.load(file)
    for name in ("samples", "ddim", "unclipped", "raw", "clones"):
        assert (getattr(got, name) - getattr(tr, name).clamp(-1, 1)).abs().max() <= 1.001 / 255
    for name in ("x0_hat", "last_xt", "last_x0_hat"):
        torch.testing.assert_close(getattr(got, name), getattr(tr, name), rtol=2**-11, atol=2**-25)
    for k, t in enumerate(TIMES):
        abar = S.alpha_bar[t].item()
        # of the eps_hat that leads from the rounded x0_hat to x_t, the byte is the nearest: no error but this one
        assert (got.xt[:, k] - tr.xt[:, k]).abs().max() <= math.sqrt(1 - abar) * 5.0001 / 255 + 1e-5
        eps = (got.xt[:, k].double() - math.sqrt(abar) * got.x0_hat[:, k].double()) / math.sqrt(1 - abar)
        said = (tr.xt[:, k].double() - math.sqrt(abar) * tr.x0_hat[:, k].double()) / math.sqrt(1 - abar)
        slack = math.sqrt(abar / (1 - abar)) * tr.x0_hat[:, k].abs() * 2**-11
        assert ((eps - said).abs() <= 5.001 / 255 + slack).all(), "eps_hat is as good at small t as at large t"


def test_saving_what_was_loaded_changes_nothing(tr, file, tmp_path):
    trajectory.save(tmp_path / "b.npz", trajectory.load(file))
    trajectory.save(tmp_path / "c.npz", tr)
    assert file.read_bytes() == (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz", "c.npz"]


def test_what_no_file_can_hold_is_cut(tr, tmp_path):
    x0_hat, xt, samples = tr.x0_hat.clone(), tr.xt.clone(), tr.samples.clone()
    x0_hat[0, 0, 0, 0, 0], x0_hat[0, 0, 0, 0, 1] = 1e6, -1e6
    samples[0, 0, 0, 0], samples[0, 0, 0, 1] = 1.7, -1.7
    k, abar = 6, S.alpha_bar[10].item()
    xt[1, k] = math.sqrt(abar) * x0_hat[1, k] + math.sqrt(1 - abar) * 9
    xt[2, k] = math.sqrt(abar) * x0_hat[2, k] - math.sqrt(1 - abar) * 9
    changed = dataclasses.replace(tr, x0_hat=x0_hat, xt=xt, samples=samples)
    trajectory.save(tmp_path / "a.npz", changed)
    got = trajectory.load(tmp_path / "a.npz")
    assert got.x0_hat[0, 0, 0, 0, :2].tolist() == [65504, -65504]
    assert got.samples[0, 0, 0, :2].tolist() == [1, -1]
    for image, sign in ((1, 1), (2, -1)):
        want = math.sqrt(abar) * got.x0_hat[image, k] + sign * math.sqrt(1 - abar) * 5
        torch.testing.assert_close(got.xt[image, k], want, rtol=1e-5, atol=1e-5)


def test_a_file_without_other_weights(tmp_path):
    trajectory.save(tmp_path / "a.npz", trajectory.record(S, model, (1, 5, 6)))
    got = trajectory.load(tmp_path / "a.npz")
    assert got.raw.shape == (0, 1, 5, 6) and got.samples.shape == (64, 1, 5, 6)


def arrays_of(file):
    with np.load(file) as opened:
        return {name: opened[name] for name in opened.files}


def test_the_file_is_plain_and_small_of_dtype(file):
    assert {name: str(array.dtype) for name, array in arrays_of(file).items() if name != "about"} == {
        "t": "int64",
        "last_t": "int64",
        "clone_t": "int64",
        "x0_hat": "float16",
        "eps_hat": "uint8",
        "last_xt": "float16",
        "last_x0_hat": "float16",
        "samples": "uint8",
        "ddim": "uint8",
        "unclipped": "uint8",
        "raw": "uint8",
        "clones": "uint8",
    }


def about(arrays, **changes):
    return np.array(json.dumps(json.loads(str(arrays["about"])) | changes))


def swapped(array):
    array = array.copy()
    array[[1, 2]] = array[[2, 1]]
    return array


def with_nan(array):
    array = array.copy()
    array.flat[5] = np.nan
    return array


LAST_TIMES = r"last_t: expected the times 64, 63, 62, \.\.\., 1, got "
SPOILT = {
    "missing": (lambda a: {**a, "ddim": None}, "expected arrays named .*ddim.*, got "),
    "no about": (lambda a: {**a, "about": None}, "expected arrays named about, samples and others, got "),
    "no samples": (lambda a: {**a, "samples": None}, "expected arrays named about, samples and others, got "),
    "unknown": (lambda a: {**a, "more": a["t"]}, "expected arrays named .*, got .*more"),
    "dtype": (
        lambda a: {**a, "x0_hat": a["x0_hat"].astype(np.float32)},
        r"x0_hat: expected float16 of shape \(8, 7, 3, 4, 4\), got float32",
    ),
    "dtype of t": (lambda a: {**a, "t": a["t"].astype(np.int32)}, r"t: expected int64 of shape \(7,\), got int32"),
    "shape": (
        lambda a: {**a, "clones": a["clones"][:, :3]},
        r"clones: expected uint8 of shape \(6, 4, 3, 4, 4\), got uint8 of shape \(6, 3, ",
    ),
    "fewer frames": (lambda a: {**a, "eps_hat": a["eps_hat"][:, 1:]}, "eps_hat: expected uint8 of shape"),
    "half of raw": (lambda a: {**a, "raw": a["raw"][:4]}, "raw: expected uint8 of shape"),
    "samples": (lambda a: {**a, "samples": a["samples"][0]}, r"samples: expected shape \(64, 1 or 3, H, W\), got"),
    "two channels": (lambda a: {**a, "samples": a["samples"][:, :2]}, "samples: expected shape"),
    "order of t": (
        lambda a: {**a, "t": swapped(a["t"])},
        r"t: expected the times 100, 85, 70, \.\.\., 10, got 100, 70, 85, ",
    ),
    "t from 0": (lambda a: {**a, "t": a["t"] - 1}, "t: expected the times 100, .*, got 99, 84"),
    "rising last_t": (lambda a: {**a, "last_t": a["last_t"][::-1]}, LAST_TIMES + "1, 2, 3"),
    "last_t from 0": (lambda a: {**a, "last_t": a["last_t"] - 1}, LAST_TIMES + "63, 62"),
    "order of clone_t": (lambda a: {**a, "clone_t": swapped(a["clone_t"])}, "clone_t: expected the times 85, 70, 55"),
    "NaN": (lambda a: {**a, "x0_hat": with_nan(a["x0_hat"])}, "x0_hat: expected finite numbers"),
    "NaN at the end": (lambda a: {**a, "last_xt": with_nan(a["last_xt"])}, "last_xt: expected finite numbers"),
    "format": (
        lambda a: {**a, "about": about(a, format="other/1")},
        "expected the format 'ddpm_edu.trajectory/1', got 'other/1'",
    ),
    "schedule": (lambda a: {**a, "about": about(a, schedule={"format": "no"})}, "schedule"),
    "no text": (lambda a: {**a, "about": np.array("{")}, "JSON"),
    "longer schedule": (
        lambda a: {**a, "about": about(a, schedule=json.loads(schedules.to_json(schedules.linear(200))))},
        "expected",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_file_that_is_not_as_saved_is_refused(file, case):
    spoil, message = SPOILT[case]
    arrays = {name: array for name, array in spoil(arrays_of(file)).items() if array is not None}
    np.savez_compressed(file, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        trajectory.load(file)
    assert str(error.value).startswith(f"{file}: not a whole trajectory file of this package (")
    assert "\n" not in str(error.value)


def test_a_pickle_is_not_opened(file, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    trap = np.array([Trap()], dtype=object)
    np.savez_compressed(file, allow_pickle=True, **(arrays_of(file) | {"t": trap}))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Trap()))
    for path in (file, tmp_path / "b.npz"):
        with pytest.raises(ValueError, match="not a whole trajectory file .*pickle"):
            trajectory.load(path)
    assert not (tmp_path / "opened").exists()


def test_a_damaged_file_is_refused(file, tmp_path):
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for contents in (whole[: len(whole) // 2], whole[:-30], bytes(damaged), b"", b"text"):
        file.write_bytes(contents)
        with pytest.raises(ValueError, match="not a whole trajectory file of this package"):
            trajectory.load(file)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="expected an npz archive, got a single array"):
        trajectory.load(tmp_path / "one.npy")
    with pytest.raises(ValueError, match=r"none\.npz: expected a trajectory file, found no such file$"):
        trajectory.load(tmp_path / "none.npz")


# --- the command ------------------------------------------------------------------------------------------------------


NETWORK = {
    "image_size": 8,
    "channels": 1,
    "width": 8,
    "width_mults": [1],
    "res_blocks": 1,
    "attention_at": [],
    "dropout": 0.0,
}


def trained(folder, schedule=S, **network):
    """Weights (the average) and a checkpoint of a run that has taken no step, their numbers drawn apart by hand."""
    config = Config(
        preset="none",
        data="digits",
        network=NETWORK | network,
        schedule=schedule,
        steps=5,
        batch=4,
        lr=0.01,
        warmup=1,
        lr_decay=False,
        clip=1.0,
        ema_decay=0.5,
        flip=False,
        seed=0,
    )
    state = State(config, "cpu")
    generator = torch.Generator().manual_seed(1)
    for unet, size in ((state.model, 0.3), (state.ema.model, 0.2)):
        for parameter in unet.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=size)
    folder.mkdir()
    save_checkpoint(folder / "checkpoint.pt", state)
    save_weights(folder / "w.safetensors", state.ema.model, schedule, {"data": "digits", "steps": 0})
    return folder, state


def test_the_command_writes_a_trajectory_of_its_weights(tmp_path, capsys):
    folder, state = trained(tmp_path / "run")
    out = tmp_path / "new" / "t.npz"
    flags = ["--weights", folder / "w.safetensors", "--without-ema", folder / "checkpoint.pt", "--seed", 5]
    assert cli.main(list(map(str, ["trajectory", *flags, "--out", out]))) == 0
    assert f"Wrote {out}: 8 chains of 100 steps, {out.stat().st_size:,} bytes." in capsys.readouterr().out
    network, s, card = load_weights(folder / "w.safetensors")
    want = trajectory.record(s, network, (1, 8, 8), seed=5, raw_model=state.model.eval())
    trajectory.save(tmp_path / "want.npz", want)
    got, want = trajectory.load(out), trajectory.load(tmp_path / "want.npz")
    assert all(torch.equal(getattr(got, name), getattr(want, name)) for name in ARRAYS)
    assert len(got.raw) == 8 and not torch.equal(got.raw, got.samples[:8])
    assert got.source == {"seed": 5, "sha256": tensor_hash(network.state_dict()), "card": card}


def test_the_command_takes_seed_0_and_no_other_weights_by_default(tmp_path):
    folder, _ = trained(tmp_path / "run", classes=3)
    flags = ["--weights", folder / "w.safetensors", "--out", tmp_path / "t.npz"]
    assert cli.main(list(map(str, ["trajectory", *flags]))) == 0
    got = trajectory.load(tmp_path / "t.npz")
    network: UNet = load_weights(folder / "w.safetensors")[0]
    without = trajectory.record(S, lambda xt, t: network(xt, t, torch.full_like(t, 2)), (1, 8, 8))
    trajectory.save(tmp_path / "want.npz", without)
    assert torch.equal(got.samples, trajectory.load(tmp_path / "want.npz").samples)
    assert len(got.raw) == 0 and got.source["seed"] == 0


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    folder, state = trained(tmp_path / "run")
    wider, _ = trained(tmp_path / "wider", width=16)
    slower, _ = trained(tmp_path / "slower", schedule=schedules.linear(100, 1e-3, 0.16))
    save_weights(tmp_path / "flow.safetensors", state.model, None, {})
    save_weights(tmp_path / "short.safetensors", state.model, schedules.linear(99), {})
    mine, out = ["--weights", folder / "w.safetensors"], ["--out", tmp_path / "t.npz"]
    others = "argument --without-ema: expected the network and the schedule of "
    for flags, message in [
        (["--weights", tmp_path / "flow.safetensors", *out], "argument --weights: "),
        (["--weights", tmp_path / "short.safetensors", *out], "schedule: expected T >= 100 steps"),
        (["--weights", tmp_path / "none", *out], "none: expected a weights file, found no such file"),
        ([*mine, "--without-ema", wider / "checkpoint.pt", *out], others),
        ([*mine, "--without-ema", slower / "checkpoint.pt", *out], others),
        ([*mine, "--without-ema", tmp_path / "no.pt", *out], "no.pt: expected a checkpoint, found no such file"),
        ([*mine, "--out", tmp_path], "argument --out: expected the name of a file, got the folder "),
    ]:
        capsys.readouterr()
        assert cli.main(list(map(str, ["trajectory", *flags]))) == 2
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if "error: " in line]
        assert len(errors) == 1 and message in errors[0] and printed.out == ""
    assert not (tmp_path / "t.npz").exists()
