"""Figures: one palette, one style, alt text for every picture. Functions take arrays and return Axes.

The same thing has the same colour in every chapter, and the colours stay apart for colour-blind readers (the palette of
Okabe and Ito, 2008).
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from cycler import cycler
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {
    "data": "#0072B2",  # blue
    "noise": "#666666",  # grey
    "x0_hat": "#D55E00",  # vermillion
    "posterior": "#009E73",  # green
    "prior": "#CC79A7",  # purple
    "model": "#E69F00",  # orange
    "exact": "#000000",  # black
}

STYLE: Any = {
    "figure.dpi": 110,
    "figure.facecolor": "white",  # readable on a dark page as well
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=list(COLOURS.values())),
    "axes.titlesize": 11,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "svg.hashsalt": "ddpm_edu",  # the same figure gives the same bytes
}


def use_style() -> None:
    """Set the course's figure style for this session."""
    plt.rcParams.update(STYLE)


def show(axes: Any, alt: str) -> None:
    """Display the figure of ``axes`` with ``alt``, one sentence for readers who do not see it, and close it.

    ValueError for an empty ``alt``.
    """
    if not alt.strip():
        raise ValueError("alt: expected a sentence that says what the figure shows, got an empty one")
    display(Image(png(axes)), metadata={"image/png": {"alt": alt}})


def png(axes: Any) -> bytes:
    """The figure of ``axes`` as PNG bytes; it is closed."""
    figure = axes if isinstance(axes, Figure) else np.asarray(axes).flat[0].figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    # 256 colours are enough for the eye, and a notebook full of noise stays small enough to be kept in git.
    small = io.BytesIO()
    PIL.Image.open(buffer).convert("RGB").quantize(256).save(small, format="PNG", optimize=True)
    return small.getvalue()


def curves(
    x: Any, ys: Mapping[str, Any], xlabel: str, ylabel: str, ax: Axes | None = None, colours: Sequence[str] = ()
) -> Axes:
    """One line per entry of ``ys`` over ``x``, with a legend; ``colours`` are keys of COLOURS, in order."""
    ax = plt.subplots(figsize=(6.4, 3.2))[1] if ax is None else ax
    for i, (label, y) in enumerate(ys.items()):
        colour = COLOURS[colours[i]] if colours else None
        ax.plot(x, y, label=label, color=colour)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(ys) > 1:
        ax.legend()
    return ax


def image_strip(
    rows: Sequence[Any], titles: Sequence[str] = (), row_labels: Sequence[str] = (), size: float = 1.15
) -> Any:
    """Rows of pictures, each of shape (n, C, H, W) in [-1, 1] and clipped for display; returns the array of Axes.

    ``titles`` stand above the first row, ``row_labels`` to the left of each; ``size`` is one picture's width in inches.
    """
    pictures = [to_display(row) for row in rows]
    columns = len(pictures[0])
    _, axes = plt.subplots(
        len(rows), columns, figsize=(size * columns, size * len(rows) * 1.05 + 0.3), squeeze=False, layout="compressed"
    )
    for i, row in enumerate(pictures):
        for j, picture in enumerate(row):
            ax = axes[i, j]
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if i == 0 and titles:
                ax.set_title(titles[j])
        if row_labels:
            axes[i, 0].set_ylabel(row_labels[i])
    return axes


def to_display(images: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n, C, H, W) in [-1, 1] to (n, H, W, 3), or (n, H, W) for one channel, in [0, 1]; values outside are clipped.

    ValueError for another shape.
    """
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images, dtype=np.float64)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(f"images: expected shape (n, 1 or 3, H, W), got {array.shape}")
    array = (np.clip(array, -1, 1) + 1) / 2
    return array[:, 0] if array.shape[1] == 1 else array.transpose(0, 2, 3, 1)
