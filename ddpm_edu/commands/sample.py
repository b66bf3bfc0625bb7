"""The command sample: a grid of images, or a strip of the chain. `Source` samples for other commands too."""

import argparse
import io
import math
from collections.abc import Callable, Iterator, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import data, distributed, flow, plotting
from ddpm_edu.checkpoint import write_whole
from ddpm_edu.commands.files import check_writable, network_of
from ddpm_edu.guidance import classifier_free
from ddpm_edu.sampling import EpsModel, Step, ddim
from ddpm_edu.sampling import sample as ancestral
from ddpm_edu.unet import UNet

FRAMES = 11  # moments in a strip of the chain, the noise and the sample included
AT_ONCE = 2**18  # pixels that a network sees at once while sampling
FLOW_STEPS = 25  # of Heun's method


def sample_command(args: argparse.Namespace) -> int:
    source = Source(args)
    check_writable("--out", args.out)
    steps, n = source.steps, args.n or (4 if args.chain else 64)
    shown = {round(k * steps / (FRAMES - 1)) for k in range(FRAMES)} if args.chain else {steps}
    frames = [step for i, step in enumerate(tqdm(source.chain(n), total=steps + 1, desc="sampling")) if i in shown]
    buffer = io.BytesIO()
    if args.chain:
        plotting.use_style()
        figure = strip(frames)
        figure.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(figure)
    else:
        grid(frames[-1].x).save(buffer, "png")
    write_whole(args.out, buffer.getvalue())
    print(f"Wrote {args.out}: {n} image{'s' if n > 1 else ''} in {steps} steps ({source.sampler}).")
    return 0


class Source:
    """Weights and how to sample from them: Algorithm 2, DDIM if there are fewer steps, Heun's method for a flow.

    A network with classes draws them in turn, from the first to the last but one, which is "no label".
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.model, self.s, self.card = network_of(args)
        self.model.to(distributed.device())
        T, steps = (flow.T, FLOW_STEPS) if self.s is None else (self.s.T, self.s.T)
        self.steps: int = args.steps or steps
        if self.steps > T:
            raise ValueError(f"argument --steps: expected at most the {T} steps of {args.weights}, got {self.steps}")
        if args.guidance is not None and self.model.config["classes"] is None:
            raise ValueError(f"argument --guidance: expected weights with classes, got {args.weights} without")
        self.guidance: float = 1.0 if args.guidance is None else args.guidance
        self.seed: int = args.seed
        self.sampler = "Heun" if self.s is None else "Algorithm 2" if self.steps == T else "DDIM"
        self.eta: float = args.eta or 0.0
        if args.eta is not None and self.sampler != "DDIM":
            raise ValueError(f"argument --eta: expected --steps below {T} of a network for noise, got {self.sampler}")
        if self.eta:
            self.sampler += f", eta = {self.eta:g}"

    def labels(self, n: int) -> Tensor | None:
        classes = self.model.config["classes"]
        return None if classes is None else torch.arange(n, device=distributed.device()) % (classes - 1)

    def chain(self, n: int) -> Iterator[Step]:
        shape, generator = (n, *self.model.image_shape), torch.Generator(distributed.device()).manual_seed(self.seed)
        network: EpsModel = in_parts(self.model)
        if (y := self.labels(n)) is not None:
            network = classifier_free(in_parts(self.model), y, self.guidance, null=self.model.config["classes"] - 1)
        if self.s is None:
            points = flow.heun(flow.velocity(network), shape, steps=self.steps, generator=generator)
            return (Step(round(flow.T * point.tau), point.x, point.x0_hat) for point in points)
        if self.steps == self.s.T:
            return ancestral(self.s, network, shape, generator=generator, clip_x0=True)
        return ddim(self.s, network, shape, steps=self.steps, eta=self.eta, generator=generator, clip_x0=True)


def in_parts(model: UNet) -> Callable[..., Tensor]:
    """The same network, which sees so many images at once as memory allows: 256 of 32 x 32 pixels."""
    part = max(1, AT_ONCE // (model.config["image_size"] ** 2))

    def network(xt: Tensor, *inputs: Tensor) -> Tensor:
        return torch.cat([model(*some) for some in zip(*(torch.split(z, part) for z in (xt, *inputs)), strict=True)])

    return network


def grid(x: Tensor) -> Image.Image:
    """Images (N, C, H, W) in rows and columns on white, every pixel enlarged to a square that a person can see."""
    scale = max(1, 64 // x.shape[-1])
    tiles = data.to_uint8(x.cpu()).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tiles = F.pad(tiles, (2, 2, 2, 2), value=255)
    n, c, h, w = tiles.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    tiles = torch.cat([tiles, tiles.new_full((rows * columns - n, c, h, w), 255)])
    picture = tiles.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(picture.squeeze(2).numpy())


def strip(frames: Sequence[Step]) -> Figure:
    """For each image a row of x_t and below it a row of predicted x_0, clipped for display, t under each frame."""
    n = len(frames[0].x)
    pictures = torch.stack([torch.stack([step.x, step.x0_hat], 1).flatten(0, 1) for step in frames], 1).cpu()
    axes = plotting.image_strip(list(pictures), row_labels=["$x_t$", r"predicted $x_0$"] * n)
    for row in axes[1::2]:
        for ax, step in zip(row, frames, strict=True):
            ax.set_xlabel(f"t = {step.t}")
    figure: Figure = axes[0, 0].figure
    figure.suptitle("The reverse chain; values outside [-1, 1] are clipped for display")
    return figure
