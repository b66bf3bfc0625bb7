"""Tests of ddpm_edu.training: Algorithm 1 against a hand-written loop, and that what makes it fast changes nothing."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from tiny_run import KINDS, NETWORK, assert_same, config, images, run
from torch import nn

from ddpm_edu import schedules, training
from ddpm_edu.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from ddpm_edu.training import EMA, Config, State, learning_rate, stratified_t, train

# --- Algorithm 1 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "flip"), [*((kind, False) for kind in KINDS), ("diffusion", True), ("labels", True)])
def test_steps_equal_algorithm_1_written_out_by_hand(kind, flip):
    """Draws, loss, clipping, Adam with warm-up and decay, EMA; in float64 numpy but for network and autograd."""
    lr, warmup, clip, decay = 0.01, 3, 0.05, 0.3
    flow, labels = "flow" in kind, "labels" in kind
    T = 1000 if flow else 20
    network = NETWORK | {"dropout": 0.0, "classes": 4 if labels else None}
    changes = KINDS[kind] | {"network": network, "flip": flip}
    c = config(lr=lr, warmup=warmup, clip=clip, ema_decay=decay, **changes)
    state = State(c)
    net = State(c).model  # the same first weights
    g = torch.Generator().manual_seed(0)
    g.set_state(state.generator.get_state())
    g_t = torch.Generator()
    g_t.set_state(state.t_generator.get_state())
    u8 = images().images
    alpha_bar = np.cumprod(1 - np.linspace(0.01, 0.3, 20))
    parameters = list(net.parameters())
    average = [p.detach().double().numpy().copy() for p in parameters]
    m, v = [np.zeros_like(a) for a in average], [np.zeros_like(a) for a in average]
    clipped = 0

    iterator = train(state, images())
    for step in range(1, 7):
        record = next(iterator)
        index = torch.randint(len(u8), (5,), generator=g)
        x0, y = u8[index].double() / 127.5 - 1, index % 3
        if flip:
            mirror = torch.rand(5, generator=g) < 0.5
            x0[mirror] = x0[mirror].flip(-1)
        part = torch.randperm(5, generator=g_t)  # of 1..20 in five: 1..4, 5..8, ...
        t = 1 + ((part + torch.randint(T, (5,), generator=g_t) / T) * T / 5 + 1e-3).long()
        eps = torch.randn(x0.shape, generator=g).double()
        if labels:
            y[torch.rand(5, generator=g) < 0.4] = 3
        if flow:
            tau = t.double()[:, None, None, None] / 1000
            xt, target = x0 + tau * (eps - x0), eps - x0
        else:
            a = torch.from_numpy(alpha_bar[t.numpy() - 1])[:, None, None, None]
            xt, target = a.sqrt() * x0 + (1 - a).sqrt() * eps, eps
        out = net(xt.float(), t, *([y] if labels else []))
        loss = ((out.double() - target) ** 2).reshape(5, -1).sum(1) / 16
        gradients = [gradient.double().numpy() for gradient in torch.autograd.grad(loss.mean(), parameters)]
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients))
        clipped += norm > clip
        rate = np.interp(step, [0, warmup, 21], [0, lr, 0])
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


@pytest.mark.parametrize(("T", "batch"), [(1, 3), (4, 1), (4, 4), (10, 4), (4, 10), (7, 5), (1000, 3)])
def test_every_t_is_exactly_as_likely_as_every_other(monkeypatch, T, batch):
    """Over all the values that `randint` can give, every t comes up equally often."""
    counts = torch.zeros(T + 1, dtype=torch.int64)
    for value in range(T):
        monkeypatch.setattr(torch, "randint", lambda high, size, generator, value=value: torch.full(size, value))
        counts += torch.bincount(stratified_t(T, batch, torch.Generator()), minlength=T + 1)
    assert counts[0] == 0 and (counts[1:] == batch).all()


@pytest.mark.parametrize(("T", "batch"), [(1000, 10), (20, 20), (10, 4), (3, 7)])
def test_one_t_from_each_part_of_the_chain_in_random_order(T, batch):
    generator = torch.Generator().manual_seed(0)
    drawn = [stratified_t(T, batch, generator) for _ in range(300)]
    assert all(t.dtype == torch.int64 and t.shape == (batch,) for t in drawn)
    part = torch.arange(batch)  # part i reaches from i T / batch to (i + 1) T / batch
    for t in drawn:
        ordered = t.sort().values
        assert (ordered * batch > part * T).all() and ((ordered - 1) * batch < (part + 1) * T).all()
    assert T > 300 or torch.equal(torch.cat(drawn).unique(), torch.arange(1, T + 1))
    first = torch.stack([t[0] for t in drawn]).double()  # an example at a fixed place sees the whole chain
    assert abs(first.mean() - (T + 1) / 2) < 4 * math.sqrt((T**2 - 1) / 12 / 300)


def test_a_stratified_batch_is_a_better_estimate_of_the_mean_over_t():
    generator = torch.Generator().manual_seed(0)
    loss = torch.linspace(1, 0, 1001) ** 3  # of t: large at small t, as in practice
    plain = torch.stack([loss[torch.randint(1, 1001, (32,), generator=generator)].mean() for _ in range(200)])
    stratified = torch.stack([loss[stratified_t(1000, 32, generator)].mean() for _ in range(200)])
    assert stratified.std() < plain.std() / 10
    assert abs(stratified.mean() - loss[1:].mean()) < 4 * stratified.std() / math.sqrt(200)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    c = config(steps=10, warmup=4, lr=2.0)
    rates = [learning_rate(c, step) for step in range(1, 14)]
    assert rates == pytest.approx([0.5, 1, 1.5, 2, 12 / 7, 10 / 7, 8 / 7, 6 / 7, 4 / 7, 2 / 7, 0, 0, 0])
    constant = dataclasses.replace(c, lr_decay=False)
    assert [learning_rate(constant, step) for step in (1, 4, 10, 99)] == [0.5, 2, 2, 2]
    assert learning_rate(dataclasses.replace(c, warmup=0), 1) == 2
    short = dataclasses.replace(c, steps=3)  # never arrives at its peak
    assert [learning_rate(short, step) for step in (1, 2, 3, 4)] == [0.5, 1, 1.5, 0]


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
    losses = run(State(config(network=NETWORK | {"dropout": 0.0}, batch=32, lr_decay=False)), 40)
    first, last = torch.cat(losses[:4]).mean(), torch.cat(losses[-8:]).mean()
    assert first > 0.8 and last < 0.6 * first


def test_the_seed_fixes_a_run_and_its_streams_differ():
    a, b, c = (State(config(seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(x, y) for x, y in zip(a.model.parameters(), b.model.parameters(), strict=True))
    assert not torch.equal(a.model.stem.weight, c.model.stem.weight)
    seeds = [{x.generator.initial_seed(), x.t_generator.initial_seed()} for x in (a, b, c)]
    assert seeds[0] == seeds[1] and not seeds[0] & seeds[2]
    assert len(seeds[0] | {3}) == 3, "one stream would repeat the numbers of another, or of the first weights"


def seen_labels(label_drop: float, batch: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels that the network gets in one step, and those of the images; hardly noised, an image can be told."""
    almost_clean = schedules.linear(20, 1e-8, 1e-8)
    c = config(schedule=almost_clean, batch=batch, network=KINDS["labels"]["network"], label_drop=label_drop)
    state, seen = State(c), []
    state.model.register_forward_pre_hook(lambda model, args: seen.extend(args))
    next(train(state, images()))
    xt, _, y = seen
    x0 = images().images / 127.5 - 1
    pixels = torch.stack([x0, x0.flip(-1)], 1).flatten(2).double()  # flips are on
    index = torch.cdist(xt.flatten(1).double(), pixels.flatten(0, 1)).argmin(1) // 2
    return y, index % 3


def test_labels_belong_to_their_images_and_are_dropped_as_often_as_asked():
    y, of_images = seen_labels(label_drop=0.2)
    kept = y != 3
    assert y.dtype == torch.int64 and torch.equal(y[kept], of_images[kept])
    share, error = (~kept).double().mean().item(), math.sqrt(0.2 * 0.8 / 3000)
    assert abs(share - 0.2) < 4 * error < 0.04, "4 standard errors; dropping the others would give 0.8"
    for label in range(3):
        of_class = of_images == label
        share = (~kept[of_class]).double().mean().item()
        assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / of_class.sum().item()), "whatever the label"
    y, of_images = seen_labels(label_drop=0.0)
    assert torch.equal(y, of_images)


@pytest.mark.parametrize("classes", [3, 5])
def test_images_with_another_number_of_classes_are_refused(classes):
    state = State(config(network=NETWORK | {"classes": classes}))
    with pytest.raises(ValueError, match=f"classes: expected 4, for the 3 of random and no label, got {classes}"):
        next(train(state, images()))


def test_images_that_do_not_fit_the_network_are_refused():
    wrong = dataclasses.replace(images(), images=torch.zeros(3, 2, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"x: expected float images \(B, 1, H, W\), got .*\(1, 2, 4, 4\)"):
        next(train(State(config()), wrong))


# --- what makes it fast, and does not change what comes out -----------------------------------------------------------


def on_a_device_that_cannot_be_read(c: Config) -> State:
    """Parameters and optimiser on torch's "meta" device, whose tensors have no values: reading one is an error."""
    state = State(c)
    state.device = torch.device("meta")
    state.model.to("meta")
    state.ema.model.to("meta")
    state.optimizer = torch.optim.AdamW(state.model.parameters())
    return state


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_no_step_waits_for_the_device(kind):
    """Any .item(), .cpu() or truth value of a tensor on the device would raise: the whole step runs without one."""
    state = on_a_device_that_cannot_be_read(config(**KINDS[kind]))
    records = list(itertools.islice(train(state, images()), 3))
    assert state.optimizer.state[state.model.stem.weight]["exp_avg"].device.type == "meta"
    assert [record.loss.device.type for record in records] == ["meta"] * 3
    assert [record.t.device.type for record in records] == ["cpu"] * 3
    assert records[0].grad_norm.device.type == "meta"


@pytest.mark.parametrize("where", ["a t on the device", "a loss that is read", "a norm that is compared", "a copy"])
def test_a_step_that_waits_for_the_device_is_noticed(monkeypatch, where):
    state = on_a_device_that_cannot_be_read(config())
    if where == "a t on the device":  # whose range `at` checks
        monkeypatch.setattr(training, "stratified_t", lambda T, batch, generator: torch.ones(batch).long().to("meta"))
    elif where == "a norm that is compared":
        original = nn.utils.clip_grad_norm_
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda p, c: original(p, c, error_if_nonfinite=True))
    else:
        read = torch.Tensor.item if where == "a loss that is read" else torch.Tensor.cpu
        original = training.loss_simple
        monkeypatch.setattr(training, "loss_simple", lambda *a: (loss := original(*a), read(loss.sum()))[0])
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        next(train(state, images()))


def a_batch() -> tuple[torch.Tensor, ...]:
    """Eight images, times, noises and labels, always the same."""
    g = torch.Generator().manual_seed(1)
    x0 = torch.rand(8, 1, 4, 4, generator=g) * 2 - 1
    return x0, torch.randint(1, 21, (8,), generator=g), torch.randn(8, 1, 4, 4, generator=g), torch.arange(8) % 3


def gradients(state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of `a_batch`, and the gradient of their mean in one long vector."""
    loss = training.gradient(state, state.model, *a_batch())
    return loss, torch.cat([p.grad.flatten() for p in state.model.parameters()]).double()


def trained(steps: int = 5, **changes) -> State:
    """A few steps in, since at the start most gradients are 0."""
    state = State(config(**({"network": NETWORK | {"dropout": 0.0}, "batch": 8} | changes)))
    run(state, steps)
    return state


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize(("pieces", "classes"), [(2, None), (4, None), (8, None), (4, 4)])
def test_pieces_of_a_batch_give_its_gradient(pieces, classes):
    state = trained(network=NETWORK | {"dropout": 0.0, "classes": classes})
    loss, whole = gradients(state)
    state.accumulate = pieces
    seen = []
    state.model.register_forward_pre_hook(lambda model, args: seen.append(len(args[0])))
    loss_in_pieces, in_pieces = gradients(state)
    assert seen == [8 // pieces] * pieces
    assert relative(in_pieces, whole) < 1e-6 and relative(loss_in_pieces, loss) < 1e-6


def refuse_more_than(state: State, images: int) -> list[int]:
    """Let the network run out of memory above so many images; returns the sizes that it met, as they come."""
    met: list[int] = []

    def hook(model: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        met.append(len(args[0]))
        if len(args[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    state.model.register_forward_pre_hook(hook)
    return met


def test_too_little_memory_halves_the_batch_once_and_changes_nothing_else():
    c = config(network=NETWORK | {"dropout": 0.0}, batch=8, flip=True)
    ample, short = State(c), State(c)
    met = refuse_more_than(short, 4)
    want, got = (list(itertools.islice(train(state, images()), 4)) for state in (ample, short))
    assert met == [8, 4, 4, 4, 4, 4, 4, 4, 4] and (short.accumulate, short.halved) == (2, True)
    assert (ample.accumulate, ample.halved) == (1, False)
    for a, b in zip(want, got, strict=True):
        assert torch.equal(a.t, b.t)
        torch.testing.assert_close(b.loss, a.loss, rtol=1e-4, atol=1e-5)
    assert torch.equal(ample.generator.get_state(), short.generator.get_state())


def test_memory_that_fails_in_the_second_piece_leaves_no_half_gradient_behind():
    state, want = trained(), gradients(trained())[1]
    state.accumulate = 2
    met: list[int] = []

    def hook(model, args):
        met.append(len(args[0]))
        if len(met) == 2:
            raise torch.OutOfMemoryError("out of memory")

    state.model.register_forward_pre_hook(hook)
    training.gradient_in_memory(state, state.model, *a_batch())
    assert met == [4, 4, 2, 2, 2, 2] and state.accumulate == 4
    assert relative(torch.cat([p.grad.flatten() for p in state.model.parameters()]).double(), want) < 1e-6


@pytest.mark.parametrize(("batch", "holds"), [(8, 3), (5, 4)])
def test_memory_that_is_too_small_for_half_or_a_batch_without_halves_is_an_error(batch, holds):
    state = State(config(batch=batch))
    met = refuse_more_than(state, holds)
    with pytest.raises(torch.OutOfMemoryError):
        next(train(state, images()))
    assert met == ([8, 4] if batch == 8 else [5])


def test_memory_that_becomes_too_small_again_is_an_error():
    state = State(config(batch=8))
    met = refuse_more_than(state, 4)
    steps = train(state, images())
    next(steps)
    refuse_more_than(state, 2)
    with pytest.raises(torch.OutOfMemoryError):
        next(steps)
    assert met == [8, 4, 4, 4] and state.accumulate == 2


@pytest.mark.parametrize(("batch", "pieces"), [(5, 2), (8, 3), (8, 16)])
def test_a_batch_that_does_not_fall_into_the_pieces_is_refused(batch, pieces):
    state = State(config(batch=batch))
    state.accumulate = pieces
    with pytest.raises(ValueError, match=f"accumulate: expected a divisor of the {batch} images, got {pieces}"):
        next(train(state, images()))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The path of a GPU, on the CPU: bf16, channels_last, fused optimiser; torch.compile is noted, not done."""
    compiled = []
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(training, "_is_gpu", lambda device: True)
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append((self, options)))
    return compiled


def test_on_a_gpu_the_network_computes_in_bf16_and_all_else_stays_float32(as_on_a_gpu):
    state = State(config(network=NETWORK | {"dropout": 0.0}))
    assert state.fast and state.optimizer.defaults["fused"] and state.optimizer.defaults["weight_decay"] == 0
    assert state.model.middle1.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    seen = {}
    state.model.middle1.conv1.register_forward_hook(lambda m, args, out: seen.update(conv=out))
    state.model.register_forward_hook(lambda m, args, out: seen.update(out=out, xt=args[0]))
    losses = run(state, 3)
    assert seen["conv"].dtype == seen["out"].dtype == torch.bfloat16 and seen["xt"].dtype == torch.float32
    assert seen["conv"].is_contiguous(memory_format=torch.channels_last)
    assert {loss.dtype for loss in losses} == {torch.float32}
    kept = [
        *state.model.parameters(),
        *state.ema.model.parameters(),
        *state.optimizer.state_dict()["state"][0].values(),
    ]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    assert as_on_a_gpu == [(state.model, {"dynamic": False})]


def test_the_fast_path_trains_what_the_plain_one_trains(as_on_a_gpu, monkeypatch):
    c = config(network=NETWORK | {"dropout": 0.0}, batch=32)
    fast = State(c)
    monkeypatch.setattr(training, "_is_gpu", lambda device: False)
    plain = State(c)
    for state in (fast, plain):
        run(state, 8)
    (loss, got), (loss_plain, want) = gradients(fast), gradients(plain)
    assert not torch.equal(got, want), "bf16 was not used"
    assert relative(loss, loss_plain) < 0.02 and relative(got, want) < 0.1


def test_weights_and_checkpoints_of_the_fast_path_are_those_of_any_other(as_on_a_gpu, tmp_path):
    """Tensors in channels_last lie differently in memory: files must not care."""
    state = State(config())
    run(state, 2)
    save_weights(tmp_path / "w.safetensors", state.ema.model, state.config.schedule, {})
    assert_same(load_weights(tmp_path / "w.safetensors")[0].state_dict(), state.ema.model.state_dict())
    save_checkpoint(tmp_path / "c.pt", state)
    want = run(state, 2)
    back = load_checkpoint(tmp_path / "c.pt")
    assert back.model.middle1.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(map(torch.equal, run(back, 2), want))


def test_on_a_cpu_the_network_computes_in_float32_without_compiling(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", None)
    state = State(config())
    seen = []
    state.model.middle1.conv1.register_forward_hook(lambda m, args, out: seen.append(out))
    run(state, 1)
    assert not state.fast and seen[0].dtype == torch.float32
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and state.optimizer.defaults["fused"]


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
        ("label_drop", 0.1),
    ],
)
def test_config_refuses_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=name) as error:
        config(**{name: value})
    assert str(value) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_labels_are_dropped_with_a_probability_below_1(value):
    with pytest.raises(ValueError, match=rf"label_drop: expected a probability in \[0, 1\), .* got {value}"):
        config(network=NETWORK | {"classes": 4}, label_drop=value)


@pytest.mark.parametrize("kind", KINDS)
def test_config_survives_json(kind):
    c = config(**{"schedule": schedules.cosine(7)} | KINDS[kind])
    back = Config.from_dict(json.loads(json.dumps(c.to_dict())))
    assert back.to_dict() == c.to_dict()
    assert (back.T, back.classes, back.label_drop) == (c.T, c.classes, c.label_drop)
    if c.schedule is None:
        assert back.schedule is None and c.T == 1000
    else:
        assert torch.equal(back.schedule.beta, c.schedule.beta) and c.T == 7


def test_the_noise_has_a_seed_of_its_own_far_from_the_seeds_that_people_choose():
    for seed in range(5):
        state = State(config(seed=seed))
        assert state.generator.initial_seed() > 2**32 and state.t_generator.initial_seed() > 2**32
