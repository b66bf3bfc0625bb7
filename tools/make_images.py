"""Make the pictures in images/: python tools/make_images.py (`make images`), about four minutes on two CPU cores.

- digits: noise_and_back.png, digits of the data going to noise, and noise going to new digits, by a network that is
  trained here (preset `digits`, seed 0).
- chapters: chapters/NN.png, a figure of each notebook, as it is stored there.
- laboratory: laboratory.webp, the film of the schedule laboratory (film.py); left as it is where there is no browser.
- cifar10: cifar10_samples.png, cifar10_chain.png, what the short CIFAR-10 run of the README gives, with its commands;
  left as they are where CIFAR-10 is not at hand.

`python tools/make_images.py chapters` makes these only.
"""

import argparse
import base64
import io
import sys
import tempfile
from pathlib import Path

import course
import film
import PIL.Image
import torch

from ddpm_edu import checkpoint, data, gaussian, plotting, sampling
from ddpm_edu.__main__ import main

IMAGES = course.ROOT / "images"
SHOWN = [0, 20, 40, 60, 80, 100, 140, 200]  # of T = 200
WIDTH = 480  # pixels of a chapter's figure, which is shown half as wide
# How the alt text of the figure begins, where it is not the first of the notebook
FIGURES = {
    "00_start_here": "From left to right noise becomes a digit",
    "01_likelihood_and_kl": "One normal density fitted to two heaps",
    "02_vae_and_elbo": "Ten generated digits",
    "04_posterior": "Densities over x_{t-1}",
    "06_parameterisations": "Weight of a noise error over t",
    "07_network_and_training": "Ten samples each, same noise",
    "08_sampling": "Paths of 25 points",
    "09_score_and_langevin": "Thousands of grey targets",
    "11_flow_matching": "Left, straight lines that cross",
    "break_it": "A flower on a dark background",
}


def noise_and_back(weights: Path) -> bytes:
    """Rows 1, 2: two digits along the forward chain. Rows 3, 4: two reverse chains of the network, same times."""
    model, s, _ = checkpoint.load_weights(weights)
    generator = torch.Generator().manual_seed(0)
    x = data.to_float(data.load("digits", "train").images[:2])
    forward = {0: x}
    for t in range(1, s.T + 1):
        x = gaussian.q_step(s, x, t, torch.randn(x.shape, generator=generator))
        forward[t] = x
    reverse = {step.t: step.x for step in sampling.sample(s, model, x.shape, generator=generator, clip_x0=True)}
    rows = [torch.stack([chain[t][k] for t in SHOWN]) for chain in (forward, reverse) for k in (0, 1)]
    axes = plotting.image_strip(rows, [f"t = {t}" for t in SHOWN], ["forward", "forward", "back", "back"])
    return plotting.png(axes)


def figure(notebook: Path) -> tuple[str, bytes]:
    """Alt text of a notebook's figure, and the figure as a small PNG. ValueError where there is none."""
    for cell in course.code_cells(course.read(notebook)):
        for out in cell.outputs:
            alt = out.get("metadata", {}).get("image/png", {}).get("alt", "")
            if alt and alt.startswith(FIGURES.get(notebook.stem, "")):
                return alt, small(base64.b64decode(out.data["image/png"]))
    raise ValueError(f"{notebook.stem}: no figure whose alt text begins {FIGURES.get(notebook.stem, '')!r}")


def key(notebook: Path) -> str:
    """ "03" or "break_it": the name of its figure."""
    return notebook.stem[:2] if notebook.stem[0].isdigit() else notebook.stem


def small(png: bytes) -> bytes:
    """A picture WIDTH pixels wide."""
    picture = PIL.Image.open(io.BytesIO(png)).convert("RGB")
    height = round(picture.height * WIDTH / picture.width)
    buffer = io.BytesIO()
    picture.resize((WIDTH, height), PIL.Image.Resampling.LANCZOS).quantize(128).save(
        buffer, format="PNG", optimize=True
    )
    return buffer.getvalue()


def digits() -> None:
    plotting.use_style()
    with tempfile.TemporaryDirectory() as folder:
        command("train", "--data", "digits", "--out", folder)
        (IMAGES / "noise_and_back.png").write_bytes(noise_and_back(Path(folder) / "weights.safetensors"))


def chapters() -> None:
    (IMAGES / "chapters").mkdir(exist_ok=True)
    for notebook in course.notebooks():
        if notebook.parent.name == "notebooks":
            path = IMAGES / "chapters" / f"{key(notebook)}.png"
            path.write_bytes(figure(notebook)[1])


def laboratory() -> None:
    try:
        film.shoot(IMAGES / "laboratory.webp")
    except film.NoBrowser as error:
        print(f"{error}; the film of the laboratory stays as it is")


def cifar10() -> None:
    try:
        data.load("cifar10", "train")
    except FileNotFoundError as error:
        print(f"{error}; the pictures of the CIFAR-10 run stay as they are")
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "weights.safetensors")
        command("train", "--data", "cifar10", "--out", folder)
        samples, chain = str(IMAGES / "cifar10_samples.png"), str(IMAGES / "cifar10_chain.png")
        command("sample", "--weights", weights, "--n", "36", "--steps", "50", "--out", samples)
        command("sample", "--weights", weights, "--n", "1", "--steps", "100", "--chain", "--out", chain)


def command(*arguments: str) -> None:
    """One command line of `python -m ddpm_edu`; the first that fails ends it all."""
    if status := main(arguments):
        sys.exit(status)


PARTS = {"digits": digits, "chapters": chapters, "laboratory": laboratory, "cifar10": cifar10}


def run() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures in images/.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"these only, of {', '.join(PARTS)}; else all")
    chosen = parser.parse_args().parts or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    for part in chosen:
        PARTS[part]()


if __name__ == "__main__":
    run()
