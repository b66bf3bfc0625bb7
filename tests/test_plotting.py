"""Figures: what is plotted is what was given, alt text is required, and the palette survives colour blindness."""

import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_edu import plotting, widgets


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


# Linear sRGB to CIE XYZ; the sums of its rows are the white point
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
# Simulation matrices for complete loss of one cone type in linear RGB (Machado, Oliveira & Fernandes 2009, severity 1).
BLINDNESS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "none": np.eye(3).tolist(),
}
APART = 15  # CIE 1976 colour difference; about 2.3 can just be seen side by side
WELL_APART = 25  # below this, lines in one drawing differ in more than colour


def lab(rgb):
    """CIE L*a*b* of linear RGB."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(a, b, kind):
    """Between two colours "#RRGGBB", as readers with this blindness see them."""
    seen = [lab(np.array(BLINDNESS[kind]) @ linear_rgb(colour)) for colour in (a, b)]
    return np.linalg.norm(seen[0] - seen[1])


@pytest.mark.parametrize(
    ("colour", "expected"),
    [("#FFFFFF", (100, 0, 0)), ("#FF0000", (53.24, 80.09, 67.20)), ("#0000FF", (32.30, 79.19, -107.86))],
)
def test_lab_of_known_colours(colour, expected):
    np.testing.assert_allclose(lab(linear_rgb(colour)), expected, atol=0.02)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_simulation_leaves_grey_as_it_is(kind):
    assert difference("#666666", "#666666", kind) == 0
    np.testing.assert_allclose(np.array(BLINDNESS[kind]) @ linear_rgb("#666666"), linear_rgb("#666666"), atol=1e-5)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_for_colour_blind_readers(kind):
    # All pairs: the drawings of the course bring nearly all of them together
    for (one, a), (other, b) in itertools.combinations(plotting.COLOURS.items(), 2):
        assert difference(a, b, kind) >= APART, f"{one} and {other} look alike with {kind}"


def test_a_palette_of_red_and_green_would_be_found():
    assert difference("#CC4C02", "#6B8E23", "none") > WELL_APART
    assert difference("#CC4C02", "#6B8E23", "deuteranopia") < APART


CURVES = ["kl", "elbo", "schedule", "posterior", "bound", "weight", "ema", "langevin"]


@pytest.mark.parametrize("name", CURVES)
def test_lines_of_a_slider_that_are_close_in_colour_differ_in_dashes_or_kind(name):
    drawn = getattr(widgets, f"{name}_slider")().children[-1].data["series"]
    assert len(drawn) > 1
    for one, other in itertools.combinations([line for line in drawn if line["kind"] != "bar"], 2):  # bars stand apart
        least = min(difference(one["colour"], other["colour"], kind) for kind in BLINDNESS)
        if least < WELL_APART:
            assert (one["dash"], one["kind"]) != (other["dash"], other["kind"]), (
                f"{one['label']} and {other['label']}: {least:.0f} apart, and both drawn alike"
            )


def test_no_slider_with_curves_is_left_out():
    made = {name for name in widgets.__all__ if name.endswith("_curves")}
    assert {f"{name}_curves" for name in CURVES} == made


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
