"""The slider of chapter 07 without a browser: the memory of an average, from a history of weights."""

import math
import time

import ipywidgets
import pytest

from ddpm_edu import plotting, widgets


def memory(decay, steps, warm_up):
    """Parts of steps 0..i: the average is carried along, and each number in it knows the step that it came from."""
    shares = [1.0] + [0.0] * steps
    for n in range(steps):
        d = min(decay, (1 + n) / (10 + n)) if warm_up else decay
        shares = [d * share for share in shares]
        shares[n + 1] += 1 - d
    return [math.fsum(shares[: i + 1]) for i in range(steps + 1)]


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.995, 0.9999])
@pytest.mark.parametrize("steps", [1, 7, 100, 400])
def test_ema_curves_are_the_parts_of_a_carried_average(decay, steps):
    data = widgets.ema_curves(decay, steps)
    for one, warm_up in zip(data["series"], (False, True), strict=True):
        want = memory(decay, steps, warm_up)
        shown = [want[round(x * steps)] for x in one["x"]]
        assert one["y"] == pytest.approx(shown, abs=1e-12)
        assert (one["x"][0], one["x"][-1], one["y"][-1]) == (0, 1, 1)
        assert len(one["x"]) == min(steps + 1, 101)


@pytest.mark.parametrize(
    ("decay", "steps", "start", "good"),
    [
        (0.995, 1300, "0.001", True),
        (0.9999, 1300, "0.878", False),
        (0.9, 100, "0.000", True),
        (0.999, 5000, "0.007", True),
    ],
)
def test_ema_curves_say_what_is_left_of_the_start(decay, steps, start, good):
    data = widgets.ema_curves(decay, steps)
    assert f"{decay**steps:.3f}" == start
    assert data["readout"] == f"decay {decay:g}, {steps} steps: start {start}, warm-up 0.000"
    assert data["verdict"]["good"] is good
    colour = plotting.COLOURS["posterior" if good else "x0_hat"]
    assert data["verdict"]["colour"] == colour
    assert data["verdict"]["text"] == ("the start is forgotten" if good else "without warm-up the start is still in it")


def test_ema_curves_say_what_they_draw():
    data = widgets.ema_curves(0.995, 1300)
    assert [one["label"] for one in data["series"]] == ["constant decay", "with warm-up"]
    assert [one["colour"] for one in data["series"]] == [plotting.COLOURS[key] for key in ("noise", "model")]
    assert [one["dash"] for one in data["series"]] == ["7 4", ""]
    assert (data["xlabel"], data["ylabel"]) == ("step / all steps", "part that is as old or older")
    assert (data["xlim"], data["ylim"]) == ([0, 1], [0, 1.02])


@pytest.mark.parametrize(("decay", "steps"), [(1.0, 10), (-0.1, 10), (0.9, 0), (math.nan, 10)])
def test_ema_curves_refuse_what_is_no_average(decay, steps):
    with pytest.raises(ValueError, match=r"decay, steps: expected 0 <= decay < 1 and steps >= 1"):
        widgets.ema_curves(decay, steps)


def test_ema_slider_redraws_at_minimum_middle_and_maximum():
    decay, steps, view = widgets.ema_slider().children
    assert (view.name, decay.description, steps.description) == ("ema", "decay", "steps")
    assert isinstance(decay, ipywidgets.SelectionSlider) and isinstance(steps, ipywidgets.IntSlider)
    assert (steps.min, steps.max) == (100, 5000)
    assert view.data == widgets.ema_curves(0.995, 1300)
    for value in (0.9, 0.995, 0.9999):
        decay.value = value
        assert view.data == widgets.ema_curves(value, steps.value)
    for value in (steps.min, 2500, steps.max):
        steps.value = value
        assert view.data == widgets.ema_curves(decay.value, value)
    assert all("ddpm-slider-ema" in control._dom_classes for control in (decay, steps))


def test_ema_slider_falls_back_to_a_picture_of_two_decays(monkeypatch):
    drawn = []
    original = plotting.png
    monkeypatch.setattr(plotting, "png", lambda axes: drawn.extend(axes.flat) or original(axes))
    data, metadata = widgets.ema_slider()._repr_mimebundle_()
    states = [widgets.ema_curves(d, 1300) for d in (0.995, 0.9999)]
    assert [ax.get_title() for ax in drawn] == [f"{one['readout']}\n{one['verdict']['text']}" for one in states]
    assert metadata["image/png"]["alt"] == data["text/plain"] != ""


def test_ema_curves_are_fast():
    widgets.ema_curves(0.995, 5000)
    start = time.perf_counter()
    for _ in range(20):
        widgets.ema_curves(0.995, 5000)
    assert (time.perf_counter() - start) / 20 < 0.02  # about 1 ms; the margin is for a busy machine
