"""Data: 1-D and 2-D toys, small digits, two photographs, CIFAR-10; images as bytes in memory, batches as floats.

Toys are float32 tensors (n, d). Images are uint8 (N, C, H, W) until `batches` turns them into float32 in [-1, 1].
Everything but `download_cifar10` works without a network.
"""

import hashlib
import io
import math
import os
import pickle
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import pooch
import torch
from PIL import Image
from torch import Generator, Tensor
from tqdm.auto import tqdm


def two_modes(n: int, generator: Generator) -> Tensor:
    """(n, 1) float32 draws of 0.3 N(-1, 0.04) + 0.7 N(0.8, 0.09) (the second arguments are variances)."""
    z = torch.randn(n, 1, generator=generator)
    return torch.where(torch.rand(n, 1, generator=generator) < 0.3, -1 + 0.2 * z, 0.8 + 0.3 * z)


def two_moons(n: int, generator: Generator) -> Tensor:
    """(n, 2) float32: two half circles that interlock, centred, with noise of standard deviation 0.1.

    x = +-(cos a - 1/2, sin a - 1/4) + 0.1 z with a ~ U(0, pi), either sign with probability 1/2, z ~ N(0, I).
    """
    a = math.pi * torch.rand(n, 1, generator=generator)
    sign = torch.where(torch.rand(n, 1, generator=generator) < 0.5, 1.0, -1.0)
    return sign * torch.cat([a.cos() - 0.5, a.sin() - 0.25], 1) + 0.1 * torch.randn(n, 2, generator=generator)


@dataclass(frozen=True, eq=False)
class Images:
    """A labelled set of images: `images` uint8 (N, C, H, W), `labels` int64 (N,) counting from 0 into `classes`."""

    images: Tensor
    labels: Tensor
    name: str
    classes: tuple[str, ...]


def to_float(u8: Tensor) -> Tensor:
    """Bytes 0..255 to float32 in [-1, 1]: u8 / 127.5 - 1 (Ho et al. 2020, section 3.3). Any shape.

    ValueError for another dtype.
    """
    if u8.dtype != torch.uint8:
        raise ValueError(f"u8: expected a uint8 tensor, got {u8.dtype}")
    return u8.to(torch.float32) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """The nearest byte to (x + 1) 127.5, so that `to_uint8(to_float(u8))` is `u8`. Any shape.

    Values outside [-1, 1] are clamped first (a cast alone would wrap: 1.01 would turn black).
    """
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def check_images(x: Tensor, channels: int | None = None) -> None:
    """Raise ValueError unless x is a non-empty float tensor (B, channels, H, W) with every value in [-1, 1]."""
    if not x.is_floating_point() or x.ndim != 4 or channels not in (None, x.shape[1]) or x.numel() == 0:
        wanted = f"(B, {channels or 'C'}, H, W)"
        raise ValueError(f"x: expected float images {wanted}, got {x.dtype} of shape {tuple(x.shape)}")
    low, high = x.min().item(), x.max().item()
    if not (low >= -1 and high <= 1):  # put this way round so that NaN fails too
        raise ValueError(f"x: expected images in [-1, 1], got values from {low:g} to {high:g}")


def batches(
    data: Images,
    batch_size: int,
    generator: Generator,
    device: torch.device | str = "cpu",
    flip: bool = False,
    part: slice = slice(None),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches on `device`, drawn with replacement: float32 images (batch_size, C, H, W) in [-1, 1], labels.

    The bytes move to the device once. Every batch draws its indices, and with `flip` one fair coin per image that
    mirrors it left to right, from the generator and from nothing else: a generator put back to a saved state goes on
    with exactly the batches that would have followed. With `part`, only those images of each batch are made; what is
    drawn stays the same. ValueError for batch_size < 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    u8, labels = data.images.to(device), data.labels.to(device)
    while True:
        index = torch.randint(len(u8), (batch_size,), generator=generator, device=generator.device)[part].to(device)
        x = to_float(u8[index])
        if flip:
            mirrored = torch.rand(batch_size, 1, 1, 1, generator=generator, device=generator.device)[part] < 0.5
            x = torch.where(mirrored.to(device), x.flip(-1), x)
        yield x, labels[index]


def photo(name: str, size: int) -> Tensor:
    """One of scikit-learn's two photographs, "china" or "flower", as uint8 (3, size, size): centre square, resized.

    ValueError for another name.
    """
    if name not in ("china", "flower"):
        raise ValueError(f"name: expected 'china' or 'flower', got {name!r}")
    from sklearn.datasets import load_sample_image  # here, because it takes a second to load

    picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def load(name: str, split: str) -> Images:
    """The data set "digits" or "cifar10" by name; split is "train" or "test". ValueError for other names."""
    known = {"digits": digits, "cifar10": cifar10}
    if name not in known:
        raise ValueError(f"data: expected one of {', '.join(known)}, got {name!r}")
    return known[name](split)


def digits(split: str) -> Images:
    """scikit-learn's 1797 handwritten digits, (1, 8, 8): 1438 to train, 359 to test, split by a fixed permutation.

    Their 17 grey levels k = 0..16 become the bytes round(255 k / 16), so that k = round(16 byte / 255) comes back.
    """
    _check_split(split)
    from sklearn.datasets import load_digits  # here, because it takes a second to load

    bunch = load_digits()
    u8 = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    # numpy promises never to change the stream of RandomState; torch makes no such promise for randperm.
    order = np.random.RandomState(0).permutation(len(u8))
    n_test = len(u8) // 5
    chosen = order[-n_test:] if split == "test" else order[:-n_test]
    labels = torch.from_numpy(bunch.target[chosen].astype(np.int64))
    return Images(torch.from_numpy(u8[chosen]), labels, "digits", tuple("0123456789"))


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")


BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
_BINARY_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_TENSORFLOW = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
CIFAR10_SOURCES = (  # where an archive lies, its sha256, the folder in it
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", _BINARY_SHA256, BINARY),
    ("https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz", _BINARY_SHA256, BINARY),
    (f"{_TENSORFLOW}/cifar-10-python.tar.gz", _PYTHON_SHA256, PYTHON),
)
CIFAR10_MD5 = {  # the batch files, and the md5 of each in the python layout (the figures that torchvision checks)
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CIFAR10_BATCH = 10_000  # images in a batch file
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(split: str, folder: str | Path | None = None) -> Images:
    """CIFAR-10, (3, 32, 32): 50000 images to train, 10000 to test; no download (see `download_cifar10`).

    Looks in `folder`, else in the folder that DDPM_EDU_DATA names, else in the user's cache; there for
    cifar-10-batches-bin or cifar-10-batches-py, or for the batch files themselves. Raises FileNotFoundError where
    there are none, ValueError that names the file where one is missing, cut short or not the published one.
    """
    _check_split(split)
    home = _cifar10_home(folder)
    found = _find_cifar10(home)
    if found is None:
        raise FileNotFoundError(f"no CIFAR-10 in {home}: get it with `python -m ddpm_edu data cifar10`")
    return _read_cifar10(*found, split)


def download_cifar10(folder: str | Path | None = None) -> Path:
    """Put CIFAR-10 where `cifar10(split, folder)` finds it, unless it is there already; return the batch files' folder.

    Tries CIFAR10_SOURCES in turn, with a progress bar and one line on stderr for each that failed. An archive is
    opened only after its sha256 matched, and its files appear in the folder together, at the end, or not at all.
    Raises ValueError in one line: every source and why it failed, or why the folder cannot be used.
    """
    home = _cifar10_home(folder)
    found = _find_cifar10(home)
    if found is not None:
        for split in ("train", "test"):
            _read_cifar10(*found, split)
        return found[0]
    try:
        home.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".cifar10-", dir=home)
    except OSError as error:
        raise ValueError(f"folder: cannot write to {home}: {error.strerror}") from error
    failures = []
    with staging:
        for url, sha256, inner in CIFAR10_SOURCES:
            work = Path(tempfile.mkdtemp(dir=staging.name))
            try:
                _fetch(url, sha256, work / "archive")
                _unpack(work / "archive", work / inner)
                os.replace(work / inner, home / inner)
                return home / inner
            except (OSError, EOFError, ValueError, tarfile.TarError) as error:
                failures.append(f"{url}: {error}")
                print(f"source failed: {failures[-1]}", file=sys.stderr)
    raise ValueError(f"CIFAR-10: no source worked: {'; '.join(failures)}")


def _fetch(url: str, sha256: str, archive: Path) -> None:
    with tqdm(total=1, desc=url.split("/")[2], unit="B", unit_scale=True) as bar:  # pooch sets the true total
        pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)(url, str(archive), None)
    got = pooch.file_hash(str(archive), alg="sha256")
    if got != sha256:
        raise ValueError(f"expected sha256 {sha256}, got {got} ({archive.stat().st_size} bytes)")


def _unpack(archive: Path, folder: Path) -> None:
    """Copy the batch files out; what an archive calls its members never chooses where on the disk we write."""
    folder.mkdir()
    suffix = ".bin" if folder.name == BINARY else ""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not (member.isfile() or member.isdir()) or path.parts[:1] != (folder.name,) or ".." in path.parts:
                raise ValueError(f"refused the archive: {member.name!r} is not a plain file under {folder.name}")
            content = tar.extractfile(member)
            if content is not None and path.name.removesuffix(suffix) in CIFAR10_MD5:
                with open(folder / path.name, "wb") as file:
                    shutil.copyfileobj(content, file)
    for split in ("train", "test"):
        _read_cifar10(folder, suffix, split)


def _cifar10_home(folder: str | Path | None) -> Path:
    return Path(folder or os.environ.get("DDPM_EDU_DATA") or pooch.os_cache("ddpm_edu")).expanduser()


def _find_cifar10(home: Path) -> tuple[Path, str] | None:
    """The folder of the batch files, and what follows their names: ".bin", or "" in the python layout."""
    for folder, suffix in ((home / BINARY, ".bin"), (home / PYTHON, ""), (home, ".bin"), (home, "")):
        if any((folder / (name + suffix)).exists() for name in CIFAR10_MD5):
            return folder, suffix
    return None


def _read_cifar10(folder: Path, suffix: str, split: str) -> Images:
    names = [name for name in CIFAR10_MD5 if name.startswith("test") == (split == "test")]
    records = np.concatenate([_read_batch(folder / (name + suffix)) for name in names])
    labels, images = records[:, 0].astype(np.int64), records[:, 1:].reshape(-1, 3, 32, 32)
    if labels.max() >= len(CIFAR10_CLASSES):
        raise ValueError(f"{folder}: expected CIFAR-10 labels 0..9, got {labels.max()}")
    return Images(torch.from_numpy(images), torch.from_numpy(labels), "cifar10", CIFAR10_CLASSES)


def _read_batch(path: Path) -> np.ndarray:
    """uint8 (CIFAR10_BATCH, 3073): per image a label byte, then the red, green and blue planes row by row."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: expected a CIFAR-10 batch file, cannot read it: {error.strerror}") from error
    if path.suffix == ".bin":
        size = CIFAR10_BATCH * 3073
        if len(content) != size:
            raise ValueError(f"{path}: expected a CIFAR-10 batch file of {size} bytes, got {len(content)} bytes")
        return np.frombuffer(content, np.uint8).reshape(-1, 3073)
    md5, got = CIFAR10_MD5[path.name], hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != md5:  # a pickle is a program: it runs only if it is the published one
        raise ValueError(f"{path}: expected the published file, md5 {md5}, got md5 {got} in {len(content)} bytes")
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: refused to unpickle it: {error}") from error
    return np.column_stack([np.array(batch[b"labels"], np.uint8), batch[b"data"]])


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain Python values and numpy arrays; the published files ask for these three names and no other."""

    allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        # Python 2 wrote the flags as integers, which numpy 2.4 deprecates.
        ("numpy", "dtype"): lambda kind, align, copy: np.dtype(kind, bool(align), bool(copy)),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.allowed[module, name]
