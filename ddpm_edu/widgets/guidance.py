"""Slider of chapter 10: digits of one class, sampled from the same noises at growing guidance scales."""

from collections.abc import Mapping

import ipywidgets
import torch
from torch import Tensor

from ddpm_edu import plotting
from ddpm_edu.widgets.panels import WIDE, Panel, choose, follow, frames, selection

ROWS = 4  # a frame shows ROWS * ROWS digits
DIGITS = 10


def guided_digits(
    drawn: Mapping[float, Tensor], asked: Tensor, read: Mapping[float, Tensor], y: int, scale: float
) -> tuple[Tensor, str]:
    """The first 16 digits sampled for class y at one scale, as one picture (1, H, W), and a line that counts the hits.

    ``drawn[scale]`` are images (n, 1, h, w), sampled for the classes ``asked``, int64 (n,); ``read[scale]``, int64
    (n,), is what a classifier took them for. The line also gives the mean Euclidean distance between two of the 16.
    ValueError for a scale that was not drawn and for a class of which there are less than 16.
    """
    images = choose({f"{key:g}": value for key, value in drawn.items()}, "scale", f"{scale:g}")
    mine = (asked == y).nonzero()[: ROWS * ROWS, 0]
    if len(mine) < ROWS * ROWS:
        raise ValueError(f"y: expected a class that was asked for {ROWS * ROWS} times or more, got {y!r}")
    n, hits = len(mine), int((read[scale][mine] == y).sum())
    distance = torch.pdist(images[mine].flatten(1).double()).mean()
    text = f"asked for a {y}, scale {scale:g}: {hits} of {n} are read as a {y}; mean distance of two {distance:.2f}"
    return _sheet(images[mine]), text


def guidance_slider(
    drawn: Mapping[float, Tensor], asked: Tensor, read: Mapping[float, Tensor], name: str = "guidance"
) -> Panel:
    """Two sliders, the class and the scale, over `guided_digits`; every frame is made once, here."""
    scales = list(drawn)
    states = [guided_digits(drawn, asked, read, y, scale) for y in range(DIGITS) for scale in scales]
    alt = "Sixteen digits of the class that was asked for, from the same sixteen noises at every guidance scale."
    view = frames(name, alt, states)
    y = ipywidgets.IntSlider(7, 0, DIGITS - 1, description="digit", layout=WIDE)
    scale = selection(scales, "scale S", value=scales[0])

    def frame(y: int, scale: float) -> int:
        return y * len(scales) + scales.index(scale)

    view.value = frame(y.value, scale.value)
    follow(view, "value", frame, {"y": y, "scale": scale})
    shown = [scales[0], scales[len(scales) // 4], scales[-1]]
    sheets, texts = zip(*(guided_digits(drawn, asked, read, 7, value) for value in shown), strict=True)
    titles = [text.replace(": ", "\n").replace("; ", "\n") for text in texts]
    strip = plotting.image_strip([torch.stack(sheets)], titles, size=2.6)
    return Panel([y, scale], view, plotting.png(strip), alt)


def _sheet(images: Tensor) -> Tensor:
    """(16, 1, h, w) as one picture, four to a row, with a black line of one pixel around each."""
    framed = torch.nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)
    height, width = framed.shape[-2:]
    rows = framed.reshape(ROWS, ROWS, height, width).transpose(1, 2)
    return rows.reshape(1, ROWS * height, ROWS * width)
