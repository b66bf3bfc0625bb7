"""The U-Net of DDPM (Ho et al. 2020, appendix B): eps_model(xt, t).

It knows nothing of diffusion: an image and a time go in, an image of the same shape comes out. The layers are those of
the original implementation, so that weights published for it fit. In shape comments B counts images, E = 4 * width.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of time, float32 of shape (B, dim): dim/2 sines, then dim/2 cosines.

    The angle of entry i = 0..dim/2 - 1 of either half is (t - 1) * exp(-ln(10000) * i / (dim/2 - 1)) (Vaswani et al.
    2017, section 3.5, as laid out in the original DDPM implementation). ``t`` is int64 of shape (B,) and holds the
    paper's 1..T; the original network saw 0..T-1, and its weights expect that: hence the t - 1, here and only here.
    Raises ValueError for a t of another dtype or shape, and for a dim that is odd or below 4.
    """
    if not isinstance(t, Tensor) or t.dtype != torch.int64 or t.ndim != 1:
        raise ValueError(f"t: expected an int64 tensor of shape (B,), got {_describe(t)}")
    if dim < 4 or dim % 2:
        raise ValueError(f"dim: expected an even number >= 4, got {dim}")
    half = dim // 2
    frequency = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, dtype=torch.float32, device=t.device))
    angle = (t - 1).float()[:, None] * frequency  # (B, dim/2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def fourier_features(xt: Tensor, ns: Sequence[int]) -> Tensor:
    """(B, C, H, W) -> (B, C (1 + 2 len(ns)), H, W): xt, then for each n C channels sin(2^n pi xt) and C of the cosine.

    They show a network the last bits of a grey value (Kingma et al. 2021). From one of 256 levels in [-1, 1] to the
    next, the angle grows by 2^(n + 1) pi / 255, which is about a quarter of a turn for n = 6 and a half for n = 7.
    """
    angles = [2**n * math.pi * xt for n in ns]
    return torch.cat([xt, *(f(angle) for angle in angles for f in (torch.sin, torch.cos))], dim=1)


class ResBlock(nn.Module):
    """Residual block (B, c_in, H, W) -> (B, c_out, H, W), shifted by the embedding, with self-attention if asked for.

    Its second convolution starts at zero, so that every block starts as the identity (or as its 1x1 shortcut).
    """

    def __init__(
        self, c_in: int, c_out: int, c_emb: int, dropout: float, attention: bool = False, groups: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = _norm(c_in, groups)
        self.conv1 = _init(nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb = _init(nn.Linear(c_emb, c_out))
        self.norm2 = _norm(c_out, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _init(nn.Conv2d(c_out, c_out, 3, padding=1), gain=0)
        self.shortcut = nn.Identity() if c_in == c_out else _init(nn.Conv2d(c_in, c_out, 1))
        self.attention = Attention(c_out, groups) if attention else nn.Identity()

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        r = self.conv1(F.silu(self.norm1(h)))  # (B, c_out, H, W)
        r = r + self.emb(emb)[:, :, None, None]  # the same shift at every pixel
        r = self.conv2(self.dropout(F.silu(self.norm2(r))))
        out: Tensor = self.attention(self.shortcut(h) + r)
        return out


class Attention(nn.Module):
    """Self-attention among the pixels, one head, added to its input (B, C, H, W); starts as the identity."""

    def __init__(self, channels: int, groups: int | None = None) -> None:
        super().__init__()
        self.norm = _norm(channels, groups)
        self.query = _init(nn.Linear(channels, channels))
        self.key = _init(nn.Linear(channels, channels))
        self.value = _init(nn.Linear(channels, channels))
        self.out = _init(nn.Linear(channels, channels), gain=0)

    def forward(self, h: Tensor) -> Tensor:
        pixels = self.norm(h).flatten(2).transpose(1, 2)[:, None]  # (B, 1 head, H*W, C)
        a = F.scaled_dot_product_attention(self.query(pixels), self.key(pixels), self.value(pixels))
        out: Tensor = self.out(a)  # (B, 1, H*W, C)
        return h + out.transpose(2, 3).reshape(h.shape)


class UNet(nn.Module):
    """eps_model(xt, t) of Ho et al. 2020 (appendix B); the defaults are their CIFAR-10 model of 35 746 307 weights.

    * ``image_size``, ``channels``: xt is (B, channels, image_size, image_size);
    * ``width``: channels of the first level, even and at least 4; ``width_mults``: each level's channels over width.
      Every level but the last halves the image, so image_size is a multiple of 2^(levels - 1);
    * ``res_blocks`` per level on the way down, one more on the way up;
    * ``attention_at``: resolutions with self-attention, each one of the levels' (the middle always has it);
    * ``dropout`` inside the residual blocks, in train mode only;
    * ``classes``: number of classes for a class-conditional network, else None;
    * ``groups`` of channels in each norm, a divisor of every level's channels; None: 32, as in the original, or fewer
      in a norm where a group would have less than 4 channels;
    * ``fourier``: the numbers n of the channels that `fourier_features` puts beside xt; none in the original.

    At initialisation the output is exactly 0. ``config`` holds these arguments: ``UNet(**unet.config)`` rebuilds it.
    Raises ValueError, naming the argument, where they do not fit together.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        width: int = 128,
        width_mults: Sequence[int] = (1, 2, 2, 2),
        res_blocks: int = 2,
        attention_at: Sequence[int] = (16,),
        dropout: float = 0.1,
        classes: int | None = None,
        groups: int | None = None,
        fourier: Sequence[int] = (),
    ) -> None:
        super().__init__()
        for name, several in (("width_mults", width_mults), ("attention_at", attention_at), ("fourier", fourier)):
            if not isinstance(several, Sequence):
                raise ValueError(f"{name}: expected a sequence of numbers, got {several!r}")
        width_mults, attention_at, fourier = tuple(width_mults), tuple(attention_at), tuple(fourier)
        sizes = [image_size // 2**level for level in range(len(width_mults))]
        factor = 2 ** (len(width_mults) - 1)
        self.config: dict[str, Any] = {}
        for name, value, good, expected in (
            ("width_mults", width_mults, min(width_mults, default=0) > 0, "a number >= 1 for each level"),
            ("image_size", image_size, image_size > 0 and image_size % factor == 0, f"a positive multiple of {factor}"),
            ("channels", channels, channels > 0, "at least 1"),
            ("width", width, width % 2 == 0 and width >= 4, "an even number >= 4"),
            ("res_blocks", res_blocks, res_blocks > 0, "at least 1"),
            ("attention_at", attention_at, set(attention_at) <= set(sizes), f"resolutions out of {sizes}"),
            ("dropout", dropout, 0 <= dropout < 1, "a probability in [0, 1)"),
            ("classes", classes, classes is None or classes > 0, "at least 1, or None"),
            (
                "groups",
                groups,
                groups is None or (groups > 0 and width % groups == 0),
                f"a divisor of {width}, or None",
            ),
            ("fourier", fourier, all(type(n) is int and 0 <= n <= 15 for n in fourier), "whole numbers from 0 to 15"),
        ):
            if not good:
                raise ValueError(f"{name}: expected {expected}, got {value}")
            self.config[name] = value
        self.image_shape = (channels, image_size, image_size)
        c_emb = 4 * width
        self.time_mlp = nn.Sequential(_init(nn.Linear(width, c_emb)), nn.SiLU(), _init(nn.Linear(c_emb, c_emb)))
        self.class_emb = None if classes is None else nn.Embedding(classes, c_emb)
        self.stem = _init(nn.Conv2d(channels * (1 + 2 * len(fourier)), width, 3, padding=1))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        levels = [(size, width * mult) for size, mult in zip(sizes, width_mults, strict=True)]
        c, c_skips = width, [width]  # channels now, and of every output that the way up will take in again
        for size, c_level in levels:
            for _ in range(res_blocks):
                self.down.append(ResBlock(c, c_level, c_emb, dropout, size in attention_at, groups))
                c = c_level
                c_skips.append(c)
            if size != sizes[-1]:
                # Zeros right and below only: what TensorFlow's "same" padding does at stride 2.
                self.down.append(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), _init(nn.Conv2d(c, c, 3, stride=2))))
                c_skips.append(c)
        self.middle1 = ResBlock(c, c, c_emb, dropout, attention=True, groups=groups)
        self.middle2 = ResBlock(c, c, c_emb, dropout, groups=groups)
        for size, c_level in reversed(levels):
            for _ in range(res_blocks + 1):
                self.up.append(ResBlock(c + c_skips.pop(), c_level, c_emb, dropout, size in attention_at, groups))
                c = c_level
            if size != image_size:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), _init(nn.Conv2d(c, c, 3, padding=1))))
        self.norm_out = _norm(c, groups)
        self.conv_out = _init(nn.Conv2d(c, channels, 3, padding=1), gain=0)

    def forward(self, xt: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """eps_hat, of the shape and dtype of xt (B, C, H, W); t (B,) int64 in 1..T; y (B,) int64 labels if conditional.

        Raises ValueError for another shape or dtype, and for labels that are missing, not expected or out of range.
        """
        image, dtype = self.image_shape, self.stem.weight.dtype
        if not isinstance(xt, Tensor) or xt.shape[1:] != image or xt.dtype != dtype:
            raise ValueError(f"xt: expected {dtype} of shape (B, {', '.join(map(str, image))}), got {_describe(xt)}")
        emb = self.time_mlp(time_embedding(t, self.config["width"]).to(dtype))  # (B, E)
        if len(t) != len(xt):
            raise ValueError(f"t: expected one time per image, {len(xt)}, got {len(t)}")
        if self.class_emb is not None:
            last = self.config["classes"] - 1
            if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != t.shape:
                raise ValueError(f"y: expected int64 labels of shape ({len(xt)},), got {_describe(y)}")
            if ((y < 0) | (y > last)).any():
                raise ValueError(f"y: expected labels 0..{last}, got {int(y.min())}..{int(y.max())}")
            emb = emb + self.class_emb(y)
        elif y is not None:
            raise ValueError(f"y: expected None, since the network was built without classes, got {_describe(y)}")
        emb = F.silu(emb)  # every block begins with it, so it is done once
        h = self.stem(fourier_features(xt, self.config["fourier"]))  # (B, width, H, W)
        skips = [h]
        for layer in self.down:
            h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
            skips.append(h)
        h = self.middle2(self.middle1(h, emb), emb)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), emb) if isinstance(layer, ResBlock) else layer(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))  # (B, C, H, W)
        return out


def _norm(channels: int, groups: int | None) -> nn.GroupNorm:
    """GroupNorm with so many groups; None: the original's 32, or fewer where a group would have less than 4 channels.

    With one channel to a group, norm2 would take the embedding's shift out again, and no block would see t.
    """
    if groups is None:
        groups = max(g for g in range(1, 33) if channels % g == 0 and channels >= 4 * g)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _init(layer: Layer, gain: float = 1.0) -> Layer:
    """The initialisation of the original: Glorot-uniform weights times gain, biases 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def _describe(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
