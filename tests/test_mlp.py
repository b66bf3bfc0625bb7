"""Tests of ddpm_edu.mlp against numpy and by hand."""

import json
import math

import numpy as np
import pytest
import torch

from ddpm_edu.mlp import MLP


def random_mlp(*args, **kwargs) -> MLP:
    """An MLP whose every weight is random, the zero-initialised layer included."""
    net = MLP(*args, **kwargs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[-1]))
    return net


def test_values_against_numpy():
    net = random_mlp(2, width=6, depth=2)
    xt, t = torch.tensor([[0.3, -1.2], [2.0, 0.1], [0.0, 0.0]]), torch.tensor([1, 2, 250])
    frequency = np.array([1, 0.01, 0.0001])
    angle = (t.numpy()[:, None] - 1) * frequency
    emb = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    weights = {name: p.detach().double().numpy() for name, p in net.named_parameters()}

    def linear(name: str, h: np.ndarray) -> np.ndarray:
        return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def silu(h: np.ndarray) -> np.ndarray:
        return h / (1 + np.exp(-h))

    h = silu(linear("hidden.0", xt.numpy()) + linear("time.0", emb))
    want = linear("last", silu(linear("hidden.1", h) + linear("time.1", emb)))
    np.testing.assert_allclose(net(xt, t).detach().numpy(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dim", "width", "depth", "parameters"), [(1, 128, 4, 115_969), (2, 8, 1, 114)])
def test_sizes(dim, width, depth, parameters):
    net = random_mlp(dim, width, depth)
    # (dim + 1) * width + (width + 1) * width, then depth - 1 times twice (width + 1) * width, then (width + 1) * dim
    assert sum(p.numel() for p in net.parameters()) == parameters
    xt = torch.randn(5, dim, generator=torch.Generator().manual_seed(1))
    early, late = net(xt, torch.full((5,), 3)), net(xt, torch.full((5,), 300))
    assert early.shape == xt.shape and early.dtype == torch.float32
    assert (early - late).abs().max() > 0.01
    assert (early[0] - early[1:]).abs().max() > 0.01


def test_output_is_zero_at_initialisation_and_hidden_layers_are_not():
    torch.manual_seed(0)
    net = MLP(2)
    assert torch.equal(net(torch.randn(4, 2), torch.tensor([1, 2, 3, 4])), torch.zeros(4, 2))
    hidden = [*net.hidden, *net.time]
    assert len(hidden) == 8 and all(layer.weight.std() > 0.01 for layer in hidden)


def test_gradient_reaches_every_parameter():
    net = random_mlp(2, width=16, depth=3)
    net(torch.ones(2, 2), torch.tensor([5, 50])).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad.abs().max() > 1e-6, name


def test_config_rebuilds_the_network():
    net = MLP(1, width=10, depth=2)
    assert net.config == {"dim": 1, "width": 10, "depth": 2}
    again = MLP(**json.loads(json.dumps(net.config)))
    again.load_state_dict(net.state_dict())
    assert MLP(2).config == {"dim": 2, "width": 128, "depth": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, r"dim: expected at least 1, got 0$"),
        ({"dim": 2, "width": 5}, r"width: expected an even number >= 4, got 5$"),
        ({"dim": 2, "width": 2}, r"width: expected an even number >= 4, got 2$"),
        ({"dim": 2, "depth": 0}, r"depth: expected at least 1, got 0$"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        MLP(**arguments)


XT, T = torch.zeros(3, 2), torch.tensor([1, 2, 3])


@pytest.mark.parametrize(
    ("xt", "t", "message"),
    [
        (XT[:, :1], T, r"xt: expected torch.float32 of shape \(B, 2\), got torch.float32 of shape \(3, 1\)$"),
        (XT[0], T, r"xt: expected .* \(B, 2\), got torch.float32 of shape \(2,\)$"),
        (XT.double(), T, r"xt: expected torch.float32 .*, got torch.float64 "),
        ([0.0, 0.0], T, r"xt: expected .*, got list$"),
        (XT, T[:2], r"t: expected one time per point, 3, got 2$"),
        (XT, T.float(), r"t: expected an int64 tensor of shape \(B,\), got torch.float32 "),
        (XT, 1, r"t: expected an int64 tensor of shape \(B,\), got int$"),
    ],
)
def test_bad_xt_and_t_are_named(xt, t, message):
    with pytest.raises(ValueError, match="^" + message):
        MLP(2)(xt, t)
