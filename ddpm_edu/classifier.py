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

from ddpm_edu.checkpoint import loading, save_tensors
from ddpm_edu.data import Images, to_float

CLASSIFIER_FORMAT = "ddpm_edu.classifier/1"
EPOCHS, BATCH = 40, 64


class Classifier(nn.Module):
    """Logits (B, classes) of images (B, channels, image_size, image_size) in [-1, 1]: three convolutions, two layers.

    The first two convolutions have ``width`` channels, the third twice as many; ``features`` is the number of
    activations before the last layer; ``dropout`` acts in train mode only. ``config`` holds the arguments:
    ``Classifier(**classifier.config)`` rebuilds it. ValueError for an image_size that cannot be halved twice.
    """

    def __init__(
        self, image_size: int, channels: int, classes: int, width: int = 24, features: int = 32, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if image_size < 4 or image_size % 4:
            raise ValueError(f"image_size: expected a positive multiple of 4, got {image_size}")
        self.config: dict[str, Any] = {
            "image_size": image_size,
            "channels": channels,
            "classes": classes,
            "width": width,
            "features": features,
            "dropout": dropout,
        }
        self.body = nn.Sequential(
            *_convolution(channels, width),
            *_convolution(width, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width * (image_size // 4) ** 2, features),
            nn.ReLU(),
        )
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
    epochs: int = EPOCHS,
    batch: int = BATCH,
    lr: float = 3e-3,
    weight_decay: float = 1e-3,
) -> tuple[Classifier, float]:
    """A classifier of ``data`` in evaluation mode, on the CPU, and the mean loss of its last epoch.

    AdamW, whose learning rate rises to ``lr`` and falls to 0 (one cycle); each epoch sees whole batches in a random
    order. All random numbers are torch's, seeded here with ``seed``. ValueError for fewer images than a batch.
    """
    if len(data.images) < batch:
        raise ValueError(f"data: expected at least {batch} images for a batch, got {len(data.images)}")
    torch.manual_seed(seed)
    x, y = to_float(data.images).to(device), data.labels.to(device)
    classifier = Classifier(x.shape[-1], x.shape[1], len(data.classes)).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=weight_decay)
    per_epoch = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * per_epoch)
    for _ in range(epochs):
        losses = []
        for index in torch.randperm(len(x))[: per_epoch * batch].reshape(per_epoch, batch):
            loss = F.cross_entropy(classifier(x[index]), y[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
    return classifier.eval().cpu(), torch.stack(losses).mean().item()


@torch.no_grad()
def accuracy(classifier: Classifier, data: Images) -> float:
    """The share of ``data`` whose most likely class is the right one."""
    right: Tensor = classifier(to_float(data.images)).argmax(1) == data.labels
    return right.double().mean().item()


def save_classifier(path: Path, classifier: Classifier, card: dict[str, Any]) -> None:
    """Write ``classifier`` for `load_classifier`; ``card`` is whatever JSON can say."""
    metadata = {"classifier": json.dumps(classifier.config), "card": json.dumps(card)}
    save_tensors(path, CLASSIFIER_FORMAT, classifier.state_dict(), metadata)


def load_classifier(path: Path) -> Classifier:
    """The classifier that `save_classifier` wrote, on the CPU, in evaluation mode.

    ValueError, in one line that names the file, where it is missing, damaged or not the file of a classifier.
    """
    with loading(path, CLASSIFIER_FORMAT) as (tensors, metadata):
        classifier = Classifier(**json.loads(metadata["classifier"]))
        classifier.load_state_dict(tensors)
        return classifier.eval()


def _convolution(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()
