"""Flow matching against normal data, for which the velocity and the whole flow are known, and against autograd."""

import itertools
import math

import pytest
import torch

from ddpm_edu import flow

M, V = 0.6, 0.25  # the data are N(M, V)
SOLVERS = ["euler", "heun"]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def exact(x, tau):
    """E[eps - x_0 | x_tau] for N(M, V) by the rule for jointly normal variables."""
    tau = tau.reshape(-1, *(1,) * (x.ndim - 1))
    var = (1 - tau) ** 2 * V + tau**2
    return -M + (tau - (1 - tau) * V) / var * (x - (1 - tau) * M)


def flowed(x1, tau):
    """Where the exact flow takes x_1: it keeps the number of standard deviations from the mean."""
    return (1 - tau) * M + math.sqrt((1 - tau) ** 2 * V + tau**2) * x1


def run(solver, model, x1, steps):
    return list(
        getattr(flow, solver)(model, tuple(x1.shape), steps=steps, generator=generator(), x1=x1, dtype=x1.dtype)
    )


# The path and the loss


def test_the_path_runs_from_data_to_noise():
    x0, eps = randn(3, 2), randn(3, 2, seed=1)
    assert torch.equal(flow.path(x0, eps, 0.0), x0) and torch.equal(flow.path(x0, eps, 1.0), eps)
    torch.testing.assert_close(flow.path(x0, eps, 0.3), 0.7 * x0 + 0.3 * eps, rtol=1e-13, atol=0)
    tau = torch.tensor([0.0, 0.5, 1.0])
    got = flow.path(x0, eps, tau)
    torch.testing.assert_close(got, torch.stack([x0[0], (x0[1] + eps[1]) / 2, eps[2]]), rtol=1e-14, atol=0)


def test_the_target_is_the_derivative_of_the_path():
    """By autograd: a model that returns d path / d tau has loss 0, and its negative has not."""
    x0, eps, tau = randn(4, 3), randn(4, 3, seed=1), torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    derivative = torch.autograd.functional.jacobian(lambda r: flow.path(x0, eps, r), tau).diagonal(dim1=0, dim2=2).T
    torch.testing.assert_close(flow.loss(lambda x, r: derivative, x0, tau, eps), torch.zeros(4).double())
    assert (flow.loss(lambda x, r: -derivative, x0, tau, eps) > 0.1).all()


def test_the_loss_is_a_mean_square_per_example_at_the_point_of_the_path():
    x0, eps, tau = randn(4, 3, 2), randn(4, 3, 2, seed=1), torch.tensor([0.1, 0.3, 0.9, 1.0], dtype=torch.float64)
    seen = []

    def model(x, r):
        seen.append((x, r))
        return 0.5 * x

    got = flow.loss(model, x0, tau, eps)
    [(x, r)] = seen
    assert r is tau and got.shape == (4,)
    for i, share in enumerate(tau.tolist()):
        torch.testing.assert_close(x[i], (1 - share) * x0[i] + share * eps[i], rtol=1e-12, atol=1e-14)
        error = sum((0.5 * a - (e - d)) ** 2 for a, e, d in zip(*(z[i].flatten() for z in (x, eps, x0)), strict=True))
        assert got[i].item() == pytest.approx(error.item() / 6, rel=1e-12)


def test_the_loss_carries_gradients_and_least_squares_finds_the_exact_velocity():
    """At fixed tau the best affine a x + b for normal data is the exact velocity: regression of a large sample."""
    n, share = 100_000, 0.4
    x0, eps = M + math.sqrt(V) * randn(n, 1), randn(n, 1, seed=1)
    tau = torch.full((n,), share, dtype=torch.float64)
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def model(x, r):
        return parameters[0] * x + parameters[1]

    hessian = torch.autograd.functional.hessian(
        lambda p: flow.loss(lambda x, r: p[0] * x + p[1], x0, tau, eps).mean(), parameters.detach()
    )
    flow.loss(model, x0, tau, eps).mean().backward()
    a, b = -torch.linalg.solve(hessian, parameters.grad)
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    at_0, at_1 = (exact(x, tau[:1]).item() for x in (zero, one))
    assert b.item() == pytest.approx(at_0, abs=0.02) and a.item() == pytest.approx(at_1 - at_0, abs=0.02)


@pytest.mark.parametrize(
    "tau", [-0.1, 1.1, math.nan, torch.tensor([0.5, 0.5, 2.0]), torch.tensor([0.5, math.nan, 0.0])]
)
def test_tau_out_of_range(tau):
    with pytest.raises(ValueError, match=r"tau: expected 0\.\.1, got values from"):
        flow.path(randn(3, 2), randn(3, 2), tau)


def test_bad_paths_and_losses():
    x = randn(3, 2)
    with pytest.raises(ValueError, match=r"eps: expected the shape of x0, \(3, 2\), got \(3, 1\)"):
        flow.path(x, x[:, :1], 0.5)
    for bad in (torch.tensor([0.5]), torch.full((3, 1), 0.5), torch.tensor([0, 1, 0])):
        with pytest.raises(ValueError, match=r"tau: expected a number or a floating-point tensor of shape \(3,\), got"):
            flow.path(x, x, bad)
    with pytest.raises(ValueError, match=r"tau: expected a tensor of shape \(B,\), got 0.5"):
        flow.loss(lambda x, r: x, x, 0.5, x)
    with pytest.raises(ValueError, match=r"velocity_model: expected an output of shape \(3, 2\), got \(3, 1\)"):
        flow.loss(lambda x, r: x[:, :1], x, torch.full((3,), 0.5), x)


def test_the_path_keeps_float32_with_weights_from_float64():
    x0, eps = randn(2, 2).float(), randn(2, 2, seed=1).float()
    got = flow.path(x0, eps, torch.tensor([0.1, 0.9]))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0], 0.9 * x0[0] + 0.1 * eps[0])


# The solvers


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2)])
def test_the_error_falls_with_the_order_of_the_method(solver, order):
    x1 = torch.tensor([[-1.5], [0.4], [2.0]], dtype=torch.float64)
    want = flowed(x1, 0.0)
    error = [(run(solver, exact, x1, steps)[-1].x - want).abs().max().item() for steps in (64, 128, 256)]
    for coarse, fine in itertools.pairwise(error):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert error[-1] < {1: 1e-2, 2: 1e-4}[order]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_whole_way_down_is_the_exact_flow(solver):
    x1 = randn(5, 2)
    points = run(solver, exact, x1, 400)
    assert [point.tau for point in points] == [k / 400 for k in range(400, -1, -1)]
    for point in points:
        torch.testing.assert_close(point.x, flowed(x1, point.tau), rtol=0, atol=5e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_noise_becomes_data(solver):
    n = 20_000
    *_, last = getattr(flow, solver)(exact, (n, 1), steps=200, generator=generator(), dtype=torch.float64)
    assert last.tau == 0 and torch.equal(last.x, last.x0_hat)
    assert abs(last.x.mean().item() - M) < 4 * math.sqrt(V / n) + 0.01
    assert abs(last.x.var().item() - V) < 4 * V * math.sqrt(2 / n) + 0.01


def test_one_euler_step_by_hand():
    seen = []

    def model(x, tau):
        seen.append((x.clone(), tau))
        return 3 * x + tau[:, None]

    x1 = randn(3, 2)
    points = run("euler", model, x1, 2)
    middle = x1 - 0.5 * (3 * x1 + 1)
    last = middle - 0.5 * (3 * middle + 0.5)
    for point, want in zip(points, (x1, middle, last), strict=True):
        torch.testing.assert_close(point.x, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(points[0].x0_hat, x1 - (3 * x1 + 1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(points[1].x0_hat, middle - 0.5 * (3 * middle + 0.5), rtol=1e-12, atol=1e-12)
    assert [(tau.tolist(), tau.dtype) for _, tau in seen] == [([t] * 3, torch.float64) for t in (1.0, 0.5)]


def test_two_heun_steps_by_hand_the_last_is_euler_s():
    taus = []

    def model(x, tau):
        taus.append(tau[0].item())
        return 3 * x + tau[:, None] ** 2

    x1 = randn(3, 2)
    points = run("heun", model, x1, 2)
    first = 3 * x1 + 1
    trial = x1 - 0.5 * first
    middle = x1 - 0.5 * (first + 3 * trial + 0.25) / 2
    last = middle - 0.5 * (3 * middle + 0.25)
    for point, want in zip(points, (x1, middle, last), strict=True):
        torch.testing.assert_close(point.x, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(points[0].x0_hat, x1 - first, rtol=1e-12, atol=1e-12)
    assert taus == [1.0, 0.5, 0.5]  # 2 steps - 1 evaluations, none at tau = 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_straight_lines_need_one_step(solver):
    """Data in one point: v = (x - a) / tau is constant along each path, and x0_hat is right from the start."""
    a = 0.7

    def model(x, tau):
        return (x - a) / tau[:, None]

    for steps in (1, 3):
        points = run(solver, model, randn(4, 2), steps)
        for point in points:
            torch.testing.assert_close(point.x0_hat, torch.full((4, 2), a, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_start_dtype_and_graph(solver):
    weight = torch.ones(1, requires_grad=True)
    points = list(getattr(flow, solver)(lambda x, tau: weight * x, (4, 2), steps=3, generator=generator()))
    assert torch.equal(points[0].x, torch.randn(4, 2, generator=generator()))
    assert all(p.x.dtype == p.x0_hat.dtype == torch.float32 for p in points)
    assert not any(p.x.requires_grad or p.x0_hat.requires_grad for p in points)
    start = randn(4, 2).requires_grad_()
    copy = start.detach().clone()
    *_, last = getattr(flow, solver)(lambda x, tau: x, (4, 2), steps=3, generator=generator(), x1=start)
    assert last.x.dtype == torch.float32 and torch.equal(start, copy)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_shape_may_be_a_list(solver):
    x1 = torch.ones(2, 3)
    point = next(getattr(flow, solver)(lambda x, tau: x, [2, 3], steps=1, generator=generator(), x1=x1))
    assert torch.equal(point.x, x1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_bad_solver_input(solver):
    def first(model=lambda x, tau: x, steps=2, x1=None):
        return next(getattr(flow, solver)(model, (2, 3), steps=steps, generator=generator(), x1=x1))

    for steps in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"steps: expected a whole number >= 1, got {steps}"):
            first(steps=steps)
    with pytest.raises(ValueError, match=r"x1: expected floating-point data of shape \(2, 3\), got torch.float32 of"):
        first(x1=torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"x1: expected floating-point data of shape \(2, 3\), got torch.int64"):
        first(x1=torch.zeros(2, 3).long())
    with pytest.raises(ValueError, match=r"velocity_model: expected an output of shape \(2, 3\), got \(2, 1\)"):
        first(model=lambda x, tau: x[:, :1])


# Networks of whole times


def test_a_network_of_whole_times_sees_tau_in_thousandths_and_never_0():
    seen = []

    def network(x, t):
        seen.append(t)
        return 2 * x

    x = randn(6, 2).float()
    tau = torch.tensor([0.0, 0.0004, 0.0006, 0.5, 0.9996, 1.0])
    assert torch.equal(flow.velocity(network)(x, tau), 2 * x)
    [t] = seen
    assert t.tolist() == [1, 1, 1, 500, 1000, 1000] and t.dtype == torch.int64


def test_every_grid_time_is_met_exactly_also_in_float32():
    seen = []
    model = flow.velocity(lambda x, t: seen.append(t[0].item()) or x)
    list(flow.euler(model, (1, 1), steps=1000, generator=generator()))
    assert seen == list(range(1000, 0, -1))


def test_bad_tau_for_a_network():
    model = flow.velocity(lambda x, t: x)
    with pytest.raises(ValueError, match="tau: expected a number or a floating-point tensor of shape"):
        model(randn(2, 2), torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"tau: expected 0\.\.1, got values from 0.5 to 1.5"):
        model(randn(2, 2), torch.tensor([0.5, 1.5]))
