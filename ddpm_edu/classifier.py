"""A small classifier of images: it judges what was sampled, and gives the features for Fréchet distances (`evaluate`).

Trained on real images, it tells which class a sample resembles and how surely; the activations before its last layer
describe an image by what distinguishes classes, not by single pixels.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ddpm_edu.checkpoint import loading, save_tensors
from ddpm_edu.data import Images, to_float

CLASSIFIER_FORMAT = "ddpm_edu.classifier/1"
PART = 500  # images that a classifier judges at once
RECIPES: dict[str, dict[str, Any]] = {  # arguments of `train_classifier`, for each data set
    "digits": {"epochs": 40, "batch": 64, "lr": 3e-3, "weight_decay": 1e-3},
    "cifar10": {
        "epochs": 12,
        "batch": 128,
        "lr": 5e-3,
        "weight_decay": 0.05,
        "augment": True,
        "bf16": True,
        "residual": True,
        "width": 32,
        "features": 128,
        "dropout": 0.1,
    },
}


class Classifier(nn.Module):
    """Logits (B, classes) of images (B, channels, image_size, image_size) in [-1, 1].

    Three convolutions and two layers; with ``residual`` a network for small photographs instead, four convolutions and
    two residual blocks, each of two more, then two layers. The first convolution has ``width`` channels, the last one
    2 (8) times as many; ``features`` is the number of activations before the last layer; ``dropout`` acts in train mode
    only. ``config`` holds the arguments: ``Classifier(**classifier.config)`` rebuilds it. ValueError for an image_size
    that cannot be halved twice (three times).
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        classes: int,
        width: int = 24,
        features: int = 32,
        dropout: float = 0.3,
        residual: bool = False,
    ) -> None:
        super().__init__()
        halved = 8 if residual else 4
        if image_size < halved or image_size % halved:
            raise ValueError(f"image_size: expected a positive multiple of {halved}, got {image_size}")
        self.config: dict[str, Any] = {
            "image_size": image_size,
            "channels": channels,
            "classes": classes,
            "width": width,
            "features": features,
            "dropout": dropout,
            "residual": residual,
        }
        layers, flat = (
            (_residual_layers(channels, width), 8 * width)
            if residual
            else (_plain_layers(channels, width), 2 * width * (image_size // 4) ** 2)
        )
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(flat, features), nn.ReLU())
        self.head = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, features), each >= 0: what the last layer sees."""
        out: Tensor = self.body(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


def train_classifier(
    data: Images,
    seed: int = 0,
    device: torch.device | str = "cpu",
    *,
    epochs: int,
    batch: int,
    lr: float,
    weight_decay: float,
    augment: bool = False,
    bf16: bool = False,
    **network: Any,
) -> tuple[Classifier, float]:
    """A classifier of ``data`` in evaluation mode, on the CPU, and the mean loss of its last epoch.

    AdamW, whose learning rate rises to ``lr`` and falls to 0 (one cycle); each epoch sees whole batches in a random
    order. ``augment``: each image is flipped at random and shifted by up to 4 pixels. ``bf16``: the convolutions
    calculate in bfloat16. ``network`` goes to `Classifier`; RECIPES has good values of all of these. All random numbers
    are torch's, seeded here with ``seed``. ValueError for fewer images than a batch.
    """
    if len(data.images) < batch:
        raise ValueError(f"data: expected at least {batch} images for a batch, got {len(data.images)}")
    torch.manual_seed(seed)
    u8, y = data.images.to(device), data.labels.to(device)
    classifier = Classifier(u8.shape[-1], u8.shape[1], len(data.classes), **network).to(device)
    if bf16:
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third of the time
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=weight_decay)
    per_epoch = len(u8) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * per_epoch)
    for _ in tqdm(range(epochs), desc="training", unit="epoch"):
        losses = []
        for index in torch.randperm(len(u8))[: per_epoch * batch].reshape(per_epoch, batch):
            x = to_float(u8[index])
            if augment:
                x = flip_and_shift(x)
            with torch.autocast(u8.device.type, torch.bfloat16, enabled=bf16):
                logits = classifier(x)
            loss = F.cross_entropy(logits.float(), y[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
    return classifier.eval().cpu(), torch.stack(losses).mean().item()


def flip_and_shift(x: Tensor, most: int = 4) -> Tensor:
    """Each image of ``x`` (B, C, H, W) mirrored left to right or not, then shifted by at most ``most`` pixels.

    What a shift leaves empty is filled by reflection. The random numbers are torch's global ones.
    """
    n, _, h, w = x.shape
    flip = torch.rand(n, 1, 1, 1) < 0.5
    top, left = torch.randint(2 * most + 1, (2, n, 1))
    rows, columns = top + torch.arange(h), left + torch.arange(w)
    x = F.pad(torch.where(flip.to(x.device), x.flip(-1), x), (most,) * 4, "reflect")
    return x[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(classifier: Classifier, data: Images) -> float:
    """The share of ``data`` whose most likely class is the right one."""
    parts = zip(torch.split(data.images, PART), torch.split(data.labels, PART), strict=True)
    right = torch.cat([classifier(to_float(images)).argmax(1) == labels for images, labels in parts])
    return right.double().mean().item()


def save_classifier(
    path: Path, classifier: Classifier, card: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write ``classifier`` for `load_classifier`, its numbers as ``dtype``; ``card`` is whatever JSON can say."""
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in classifier.state_dict().items()}
    metadata = {"classifier": json.dumps(classifier.config), "card": json.dumps(card)}
    save_tensors(path, CLASSIFIER_FORMAT, tensors, metadata)


def load_classifier(path: Path) -> Classifier:
    """The classifier that `save_classifier` wrote, in float32, on the CPU, in evaluation mode.

    ValueError, in one line that names the file, where it is missing, damaged or not the file of a classifier.
    """
    with loading(path, CLASSIFIER_FORMAT) as (tensors, metadata):
        classifier = Classifier(**json.loads(metadata["classifier"]))
        classifier.load_state_dict(tensors)
        return classifier.eval()


def _plain_layers(channels: int, width: int) -> tuple[nn.Module, ...]:
    return (
        *_convolution(channels, width),
        *_convolution(width, width),
        nn.MaxPool2d(2),
        *_convolution(width, 2 * width),
        nn.MaxPool2d(2),
    )


def _residual_layers(channels: int, width: int) -> tuple[nn.Module, ...]:
    """The layout of David Page's fast ResNet for CIFAR-10 (2018), with half its channels if ``width`` is 32."""
    return (
        *_convolution(channels, width),
        *_convolution(width, 2 * width),
        nn.MaxPool2d(2),
        _Residual(2 * width),
        *_convolution(2 * width, 4 * width),
        nn.MaxPool2d(2),
        *_convolution(4 * width, 8 * width),
        nn.MaxPool2d(2),
        _Residual(8 * width),
        nn.AdaptiveMaxPool2d(1),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(width, width), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _convolution(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()
