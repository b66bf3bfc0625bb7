"""Figures: what is plotted is what was given, alt text is required, and the palette survives colour blindness."""

import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_edu import plotting


def test_curves_draw_the_given_points():
    x = [1, 2, 3]
    ax = plotting.curves(x, {"a": [1.0, 4.0, 9.0], "b": [3.0, 2.0, 1.0]}, "t", "share", colours=["data", "noise"])
    first, second = ax.lines
    np.testing.assert_array_equal(first.get_ydata(), [1, 4, 9])
    np.testing.assert_array_equal(second.get_xdata(), x)
    assert (first.get_color(), second.get_color()) == (plotting.COLOURS["data"], plotting.COLOURS["noise"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "share")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    plt.close("all")


def test_one_curve_needs_no_legend():
    assert plotting.curves([1, 2], {"a": [1, 2]}, "t", "y").get_legend() is None
    plt.close("all")


def test_image_strip_shows_each_picture_with_its_title():
    rows = [torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)]
    axes = plotting.image_strip(rows, ["t = 0", "t = 5"], ["x_t", "x0_hat"])
    assert axes.shape == (2, 2)
    np.testing.assert_allclose(axes[0, 1].images[0].get_array(), (rows[0][1].permute(1, 2, 0).numpy() + 1) / 2)
    assert [ax.get_title() for ax in axes[0]] == ["t = 0", "t = 5"]
    assert [axes[i, 0].get_ylabel() for i in (0, 1)] == ["x_t", "x0_hat"]
    plt.close("all")


def test_to_display_scales_and_clips():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 1.5, -1.01]).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(plotting.to_display(x)[0], [[0, 0, 0.5], [1, 1, 0]])
    colour = torch.zeros(2, 3, 4, 5)
    colour[:, 0] = 1
    shown = plotting.to_display(colour)
    assert shown.shape == (2, 4, 5, 3)
    assert (shown[..., 0] == 1).all() and (shown[..., 1:] == 0.5).all()


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 2, 4, 4), (4, 4)])
def test_to_display_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"images: expected shape \(n, 1 or 3, H, W\)"):
        plotting.to_display(torch.zeros(shape))


def test_show_needs_alt_text_and_stores_it(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda image, metadata: shown.append((image.data, metadata)))
    ax = plotting.curves([1, 2], {"a": [1, 2]}, "t", "y")
    with pytest.raises(ValueError, match="alt: expected a sentence"):
        plotting.show(ax, "  ")
    plotting.show(ax, "A rising line.")
    (data, metadata), *rest = shown
    assert not rest and metadata == {"image/png": {"alt": "A rising line."}}
    assert Image.open(io.BytesIO(data)).size[0] > 200
    assert not plt.get_fignums()


def test_the_same_figure_gives_the_same_bytes():
    once, again = (plotting.png(plotting.curves([1, 2], {"a": [1, 2]}, "t", "y")) for _ in range(2))
    assert once == again


def test_style_is_set():
    with plt.rc_context():
        plotting.use_style()
        assert plt.rcParams["font.size"] == plotting.STYLE["font.size"]
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(plotting.COLOURS.values())


def linear_rgb(colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


# Simulation matrices for complete loss of one cone type in linear RGB (Machado, Oliveira & Fernandes 2009, severity 1).
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "none": np.eye(3).tolist(),
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_for_colour_blind_readers(kind):
    seen = {name: np.array(BLINDNESS[kind]) @ linear_rgb(colour) for name, colour in plotting.COLOURS.items()}
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 0.1, f"{a} and {b} look alike to {kind} readers"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_curves_draw_into_the_axes_that_they_are_given():
    _, (left, right) = plt.subplots(1, 2)
    assert plotting.curves([1, 2], {"a": [1, 2]}, "t", "y", ax=right) is right and len(right.lines) == 1
    assert not left.lines


def test_image_strip_shows_grey_on_a_fixed_scale_with_titles_on_top_only():
    dim = [torch.full((2, 1, 4, 4), -0.5), torch.zeros(2, 1, 4, 4)]
    axes = plotting.image_strip(dim, ["t = 0", "t = 5"])
    picture = axes[0, 0].images[0]
    assert picture.get_clim() == (0, 1) and picture.get_cmap().name == "gray"  # half-bright stays half-bright
    assert [ax.get_title() for ax in axes[1]] == ["", ""]
    assert all(len(ax.get_xticks()) == len(ax.get_yticks()) == 0 for ax in axes.flat)
    assert axes[0, 0].figure.get_size_inches() == pytest.approx([2 * 1.15, 2 * 1.15 * 1.05 + 0.3])
    assert plotting.image_strip([torch.zeros(1, 1, 4, 4)]).shape == (1, 1)


def test_to_display_takes_tensors_with_a_graph_and_refuses_four_channels():
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    assert (plotting.to_display(x) == 0.5).all()
    with pytest.raises(ValueError, match=r"images: expected shape \(n, 1 or 3, H, W\)"):
        plotting.to_display(torch.zeros(1, 4, 4, 4))


def test_png_takes_axes_arrays_of_axes_and_figures_and_keeps_256_colours_on_white():
    with plt.rc_context():
        plotting.use_style()
        axes = plotting.image_strip([torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)] * 2, row_labels=["a", "b"])
        figure = axes[0, 0].figure
        assert axes[0, 0].images[0].get_interpolation() == "nearest"
        for what in (figure, axes, axes[0, 0]):
            picture = Image.open(io.BytesIO(plotting.png(what)))
            assert picture.mode == "P" and len(picture.getcolors()) > 128
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_png_keeps_what_stands_outside_of_the_axes():
    ax = plt.subplots(figsize=(2, 2))[1]
    ax.text(1.5, 0.5, "far to the right", transform=ax.transAxes)
    width = Image.open(io.BytesIO(plotting.png(ax))).size[0]
    assert width > 2 * plt.rcParams["figure.dpi"]


def test_the_same_figure_gives_the_same_svg():
    def svg():
        buffer = io.BytesIO()
        ax = plotting.curves([1, 2], {"a": [1, 2]}, "t", "y")
        ax.fill_between([1, 2], [0, 0], [1, 1], hatch="/")  # hatches and clips get hashed names
        ax.figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    with plt.rc_context():
        plotting.use_style()
        assert svg() == svg()


def test_each_thing_keeps_its_colour():
    assert plotting.COLOURS == {
        "data": "#0072B2", "noise": "#666666", "x0_hat": "#D55E00", "posterior": "#009E73",
        "prior": "#CC79A7", "model": "#E69F00", "exact": "#000000",
    }  # fmt: skip
