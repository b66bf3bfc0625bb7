"""The slider of chapter 01: curves and readout against formulas written out with the math module, and by summing."""

import io
import math

import pytest
from PIL import Image

from ddpm_edu import plotting, widgets


def density(x, mean, std):
    return math.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))


def kl(m1, s1, m2, s2):
    return math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5


@pytest.mark.parametrize("mean", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("std_p", [0.5, 1.2, 2.0])
@pytest.mark.parametrize("std_q", [0.5, 1.2, 2.0])
def test_kl_curves_are_the_densities_and_the_integrands(mean, std_p, std_q):
    data = widgets.kl_curves(mean, std_p, std_q)
    forward, reverse, p, q = data["series"]
    for k, x in enumerate(p["x"]):
        at_p, at_q = density(x, 0, std_p), density(x, mean, std_q)
        assert p["y"][k] == pytest.approx(at_p, rel=1e-10) and q["y"][k] == pytest.approx(at_q, rel=1e-10)
        log_ratio = math.log(std_q / std_p) + (x - mean) ** 2 / (2 * std_q**2) - x**2 / (2 * std_p**2)
        assert forward["y"][k] == pytest.approx(at_p * log_ratio - at_p + at_q, rel=1e-9, abs=1e-12)
        assert reverse["y"][k] == pytest.approx(-at_q * log_ratio - at_q + at_p, rel=1e-9, abs=1e-12)
        assert forward["y"][k] > -1e-12 and reverse["y"][k] > -1e-12
    want = f"KL(p‖q) = {kl(0, std_p, mean, std_q):.3f} nats, KL(q‖p) = {kl(mean, std_q, 0, std_p):.3f} nats"
    assert data["readout"] == f"q around {mean:.1f}: {want}".replace("-0.000", "0.000").replace("-", "−")


@pytest.mark.parametrize(("mean", "std_p", "std_q"), [(1.0, 1.0, 1.2), (-1.0, 0.8, 0.5), (0.0, 0.7, 1.0)])
def test_the_shaded_areas_are_the_numbers_in_the_readout(mean, std_p, std_q):
    forward, reverse, *_ = widgets.kl_curves(mean, std_p, std_q)["series"]
    step = forward["x"][1] - forward["x"][0]
    assert sum(forward["y"]) * step == pytest.approx(kl(0, std_p, mean, std_q), rel=1e-4)
    assert sum(reverse["y"]) * step == pytest.approx(kl(mean, std_q, 0, std_p), rel=1e-4)


def test_equal_densities_have_no_area():
    data = widgets.kl_curves(0.0, 1.3, 1.3)
    assert max(map(abs, data["series"][0]["y"] + data["series"][1]["y"])) < 1e-15
    assert data["readout"] == "q around 0.0: KL(p‖q) = 0.000 nats, KL(q‖p) = 0.000 nats"


def test_kl_curves_say_what_they_draw():
    data = widgets.kl_curves(1.0, 1.0, 2.0)
    assert [(one["label"], one["kind"]) for one in data["series"]] == [
        ("KL(p‖q)", "area"), ("KL(q‖p)", "area"), ("p, std 1.0", "line"), ("q, std 2.0", "line")
    ]  # fmt: skip
    assert [one["colour"] for one in data["series"]] == [
        plotting.COLOURS[name] for name in ("posterior", "prior", "data", "model")
    ]
    assert all(len(one["x"]) == len(one["y"]) == 101 for one in data["series"])
    assert data["series"][0]["x"][0] == data["xlim"][0] == -8 and data["series"][0]["x"][-1] == data["xlim"][1] == 8


@pytest.mark.parametrize(("std_p", "std_q"), [(0.0, 1.0), (1.0, -0.5), (math.nan, 1.0)])
def test_kl_curves_refuse_what_is_no_standard_deviation(std_p, std_q):
    with pytest.raises(ValueError, match="std_p, std_q: expected standard deviations > 0"):
        widgets.kl_curves(0.0, std_p, std_q)


def test_kl_slider_redraws_and_falls_back_to_a_picture():
    panel = widgets.kl_slider()
    *controls, view = panel.children
    assert view.name == "kl" and view.data == widgets.kl_curves(1.0, 1.0, 2.0)
    assert [one.description for one in controls] == ["mean of q", "std of p", "std of q"]
    assert [(one.min, one.max) for one in controls] == [(-3, 3), (0.5, 2), (0.5, 2)]
    for place, one in enumerate(controls):
        assert "ddpm-slider-kl" in one._dom_classes and one.continuous_update
        for value in (one.min, (one.min + one.max) / 2, one.max):
            one.value = value
            settings = [control.value for control in controls]
            assert settings[place] == value and view.data == widgets.kl_curves(*settings)
    data, metadata = panel._repr_mimebundle_()
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 200
    assert metadata["image/png"]["alt"] == data["text/plain"] == view.alt != ""
