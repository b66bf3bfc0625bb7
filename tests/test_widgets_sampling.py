"""The sliders of chapter 08 against the package's own sampler and mixture, and the frames of a chain."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_edu import exact, gaussian, plotting, sampling, schedules, widgets
from ddpm_edu.widgets import sampling as module

LINEAR = schedules.linear()
CLUSTERS = exact.Mixture(module.WEIGHTS, module.MEANS, module.COVS)
STATES = [(steps, eta, noise) for steps in (1, 20, 100) for eta in (0.0, 0.5, 1.0) for noise in module.NOISES]


def by_package(steps, eta, noise):
    """The same points from `Mixture.eps` and the package's formulas, one step at a time."""
    times = sampling.even_grid(1000, steps)
    x = torch.from_numpy(np.random.RandomState(0).standard_normal((300, 2)))
    for k, (t, r) in enumerate(zip(times, [*times[1:], 0], strict=True), start=1):
        abar_t, abar_r = LINEAR.alpha_bar[t], LINEAR.alpha_bar[r]
        eps = CLUSTERS.eps(LINEAR, x, t)
        x0_hat = gaussian.x0_from_eps(LINEAR, x, t, eps)
        beta = 1 - abar_t / abar_r
        var = eta**2 * (1 - abar_r) / (1 - abar_t) * beta
        x = abar_r.sqrt() * x0_hat + (1 - abar_r - var).clamp(min=0).sqrt() * eps
        if r:
            z = torch.from_numpy(np.random.RandomState(k).standard_normal((300, 2)))
            x = x + {"matched": var, "β": beta, "none": 0 * beta}[noise].sqrt() * z
    return x


def width_and_shares(x):
    each = [torch.distributions.MultivariateNormal(m, c) for m, c in zip(CLUSTERS.means, CLUSTERS.covs, strict=True)]
    nearest = (torch.stack([law.log_prob(x) for law in each]) + CLUSTERS.weights.log()[:, None]).argmax(0)
    off = x - CLUSTERS.means[nearest]
    distance = torch.einsum("ni,nij,nj->n", off, torch.linalg.inv(CLUSTERS.covs)[nearest], off)
    return (distance.mean() / 2).sqrt().item(), (nearest.bincount(minlength=3) / 300).tolist()


@pytest.mark.parametrize(("steps", "eta", "noise"), STATES)
def test_points_and_readout_are_those_of_the_package(steps, eta, noise):
    data, want = widgets.sampler_points(steps, eta, noise), by_package(steps, eta, noise)
    truth, made = data["clouds"]
    np.testing.assert_allclose(np.column_stack([made["x"], made["y"]]), want, atol=6e-4)
    width, shares = width_and_shares(want)
    assert data["readout"] == (
        f"{steps} steps, η = {eta:.1f}, noise: {noise}. Clusters {shares[0]:.2f} / {shares[1]:.2f} / {shares[2]:.2f} "
        f"(data 0.20 / 0.50 / 0.30), width {width:.2f} (data 1)."
    )
    assert [len(cloud[axis]) for cloud in (truth, made) for axis in "xy"] == [300] * 4
    assert [cloud["colour"] for cloud in (truth, made)] == [plotting.COLOURS["data"], plotting.COLOURS["x0_hat"]]


@pytest.mark.parametrize("t", [1, 300, 1000])
def test_eps_of_the_clusters_is_that_of_the_mixture(t):
    x = np.random.RandomState(9).standard_normal((50, 2))
    got = module.clusters_eps(x, float(LINEAR.alpha_bar[t]))
    np.testing.assert_allclose(got, CLUSTERS.eps(LINEAR, torch.from_numpy(x), t), atol=1e-12)


@pytest.mark.parametrize(
    ("state", "good"),
    [
        ((50, 1.0, "matched"), True),
        ((50, 0.0, "none"), True),
        ((50, 1.0, "none"), False),  # the collapse
        ((50, 0.0, "β"), False),  # noise for which no room was made
        ((1, 1.0, "matched"), False),
    ],
)
def test_verdict(state, good):
    verdict = widgets.sampler_points(*state)["verdict"]
    assert verdict["good"] == good and verdict["text"] == ("like the data" if good else "not like the data")
    assert verdict["colour"] == plotting.COLOURS["posterior" if good else "x0_hat"]


def test_without_noise_and_with_the_mean_of_eta_1_all_points_are_one():
    x = by_package(50, 1.0, "none")
    assert (x.std(0) < 0.1).all() and (by_package(50, 0.0, "none").std(0) > 0.5).all()


def test_the_drawn_data_are_the_clusters():
    x, y = (np.asarray(widgets.sampler_points(1, 0.0, "none")["clouds"][0][axis]) for axis in "xy")
    for k, rows in enumerate((slice(0, 60), slice(60, 210), slice(210, 300))):
        points = np.column_stack([x[rows], y[rows]])
        np.testing.assert_allclose(points.mean(0), module.MEANS[k], atol=0.1)
        np.testing.assert_allclose(np.cov(points.T), module.COVS[k], atol=0.03)


def test_the_same_state_gives_the_same_points():
    assert widgets.sampler_points(10, 0.5, "matched") == widgets.sampler_points(10, 0.5, "matched")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ((0, 0.0, "none"), "steps: expected a whole number from 1 to T = 1000"),
        ((1001, 0.0, "none"), "steps: expected"),
        ((10, 1.5, "none"), "eta: expected a number from 0 to 1, got 1.5"),
        ((10, float("nan"), "none"), "eta: expected"),
        ((10, 0.5, "loud"), "noise: expected one of matched, β, none, got 'loud'"),
    ],
)
def test_bad_states_are_refused(state, message):
    with pytest.raises(ValueError, match=message):
        widgets.sampler_points(*state)


def test_slider_redraws_at_the_ends_and_between():
    panel = widgets.sampler_slider()
    steps, eta, noise, view = panel.children
    assert (steps.value, eta.value, noise.value, view.name) == (50, 1.0, "matched", "sampler")
    assert view.data == widgets.sampler_points(50, 1.0, "matched")
    for control, values in ((steps, (1, 10, 100)), (eta, (0.0, 0.5, 1.0)), (noise, ("β", "none"))):
        for value in values:
            control.value = value
            assert view.data == widgets.sampler_points(steps.value, eta.value, noise.value)
        assert "ddpm-slider-sampler" in control._dom_classes and control.description
    assert (eta.min, eta.max, eta.step) == (0, 1, 0.1)
    assert panel.alt == view.alt != ""
    assert Image.open(io.BytesIO(panel.static)).size[0] > 800


def chain():
    def model(xt, t):
        return 0.5 * xt

    generator = torch.Generator().manual_seed(0)
    return list(sampling.ddim(schedules.linear(40), model, (1, 1, 8, 8), steps=6, generator=generator))


def test_a_frame_is_x_t_beside_its_prediction_and_says_what_moved():
    steps = chain()
    picture, text = widgets.chain_frame(steps[2], steps[1])
    assert picture.shape == (1, 8, 17)
    assert torch.equal(picture[..., :8], steps[2].x[0]) and torch.equal(picture[..., 9:], steps[2].x0_hat[0])
    assert (picture[..., 8] == 1).all()
    moved = np.sqrt(np.mean((steps[2].x0_hat.numpy() - steps[1].x0_hat.numpy()) ** 2))
    assert text == f"t = {steps[2].t}: left xₜ, right x̂₀, which moved by {moved:.3f} per pixel"
    assert widgets.chain_frame(steps[0], None)[1] == "t = 40: left xₜ, right x̂₀"


def test_the_chain_slider_has_a_frame_for_each_step():
    steps = chain()
    panel = widgets.chain_slider(steps)
    slider, view = panel.children
    assert (slider.min, slider.max, slider.value) == (0, 6, 0) and "ddpm-slider-chain" in slider._dom_classes
    assert view.values == list(range(7)) and view.name == "chain" and panel.alt == view.alt != ""
    for k, frame in enumerate(view.frames):
        picture, text = widgets.chain_frame(steps[k], steps[k - 1] if k else None)
        assert view.readouts[k] == text
        pixels = np.asarray(Image.open(io.BytesIO(frame)))
        want = (np.clip(picture[0].numpy(), -1, 1) + 1) / 2 * 255
        np.testing.assert_allclose(pixels, want, atol=0.51)
    assert view.readouts[-1].startswith("t = 0: ")
    assert Image.open(io.BytesIO(panel.static)).size[0] > 400


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 8, 8)])
def test_a_chain_of_another_shape_is_refused(shape):
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match="chain: expected the steps of one picture"):
        widgets.chain_slider([sampling.Step(0, x, x)])
    with pytest.raises(ValueError, match="chain: expected"):
        widgets.chain_slider([])
