"""Tests of ddpm_edu.data. Archives are small and come from a server on the loopback interface."""

import hashlib
import http.server
import io
import itertools
import math
import os
import pickle
import struct
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_image

from ddpm_edu import data

RECORDS = 4  # images per batch file of the small archives
NAMES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------------------- toys

# Quadrature over a law x = curve(a) + std z in the plane: the mean of every monomial up to order 4.
POWERS = [(i, j) for i, j in itertools.product(range(5), repeat=2) if 1 <= i + j <= 4]


def expected(curves, std):
    node, weight = np.polynomial.hermite_e.hermegauss(4)  # exact up to degree 7
    z1, z2 = np.meshgrid(node, node)
    w = np.outer(weight, weight) / weight.sum() ** 2
    points = np.concatenate(curves)[:, :, None, None]  # every curve has the same number of equally likely points
    x1, x2 = points[:, 0] + std * z1, points[:, 1] + std * z2
    return np.array([(x1**i * x2**j * w).sum((1, 2)).mean() for i, j in POWERS])


def assert_law(x, want, wrong):
    """Every sample moment within 4.5 standard errors of `want`; each wrong law off by 8 in at least one of them."""
    x = x.double().numpy()
    features = np.stack([x[:, 0] ** i * x[:, 1] ** j for i, j in POWERS], 1)
    mean, se = features.mean(0), features.std(0) / math.sqrt(len(x))
    z = (mean - want) / se
    assert np.abs(z).max() < 4.5, dict(zip(POWERS, z, strict=True))
    for name, other in wrong.items():
        assert np.abs((mean - other) / se).max() > 8, f"no power against: {name}"


def midpoints(low, high, n=3000):
    return low + (high - low) * (np.arange(n) + 0.5) / n


def test_two_moons_follow_their_law():
    def moons(shift=(0.5, 0.25), arc=math.pi):
        a = midpoints(0, arc)
        upper = np.stack([np.cos(a) - shift[0], np.sin(a) - shift[1]], 1)
        return upper, -upper

    assert_law(
        data.two_moons(100_000, generator()),
        expected(moons(), 0.1),
        {
            "noise of variance 0.1": expected(moons(), math.sqrt(0.1)),
            "noise of std 0.01": expected(moons(), 0.01),
            "one moon only": expected(moons()[:1], 0.1),
            "not centred": expected(moons(shift=(0, 0)), 0.1),
            "shift of 1/2 upwards": expected(moons(shift=(0.5, 0.5)), 0.1),
            "quarter circles": expected(moons(arc=math.pi / 2), 0.1),
        },
    )


def test_two_modes_follow_their_law():
    x = data.two_modes(200_000, generator()).double()[:, 0]
    # raw moments of N(m, v): m, m^2 + v, m^3 + 3 m v, m^4 + 6 m^2 v + 3 v^2

    def raw(w, m, v):
        per_mode = zip(w, m, v, strict=True)
        return np.sum(
            [[p * q for q in (a, a**2 + b, a**3 + 3 * a * b, a**4 + 6 * a**2 * b + 3 * b**2)] for p, a, b in per_mode],
            0,
        )

    features = torch.stack([x, x**2, x**3, x**4], 1)
    mean, se = features.mean(0).numpy(), (features.std(0) / math.sqrt(len(x))).numpy()
    w, m, v = (0.3, 0.7), (-1.0, 0.8), (0.04, 0.09)
    assert np.abs((mean - raw(w, m, v)) / se).max() < 4.5
    for wrong in (
        raw(w[::-1], m, v),
        raw(w, m, v[::-1]),
        raw(w, m, (0.04**2, 0.09**2)),
        raw(w, m, (0.2, 0.3)),
        raw(w, (-0.8, 1.0), v),
    ):
        assert np.abs((mean - wrong) / se).max() > 8


@pytest.mark.parametrize(("toy", "d"), [(data.two_modes, 1), (data.two_moons, 2)])
def test_toys_draw_from_their_generator_only(toy, d):
    before = torch.get_rng_state()
    x = toy(7, generator(3))
    assert x.shape == (7, d) and x.dtype == torch.float32
    assert torch.equal(x, toy(7, generator(3))) and not torch.equal(x, toy(7, generator(4)))
    assert torch.equal(before, torch.get_rng_state())


# ----------------------------------------------------------------------------------------------------- bytes and floats


def test_bytes_and_floats_round_trip_over_all_levels():
    u8 = torch.arange(256, dtype=torch.uint8)
    x = data.to_float(u8)
    assert x.dtype == torch.float32 and x[0] == -1 and x[255] == 1
    want = torch.tensor([(2 * k - 255) / 255 for k in range(256)], dtype=torch.float64)
    assert (x.double() - want).abs().max() < 1e-7
    back = data.to_uint8(x)
    assert back.dtype == torch.uint8 and torch.equal(back, u8)
    assert torch.equal(data.to_uint8(want), u8)  # the same in float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_uint8_rounds_to_the_nearest_level(dtype):
    for offset, up in ((0.3, 0), (0.49, 0), (0.51, 1), (0.7, 1)):
        x = torch.tensor([(k + offset) / 127.5 - 1 for k in range(255)], dtype=dtype)
        assert data.to_uint8(x).tolist() == [k + up for k in range(255)]


def test_to_uint8_clamps_and_never_wraps():
    x = torch.tensor([1.01, 1.5, 300.0, math.inf, -1.01, -1.5, -300.0, -math.inf])
    assert data.to_uint8(x).tolist() == [255] * 4 + [0] * 4


def test_to_float_refuses_what_is_not_bytes():
    with pytest.raises(ValueError, match=r"u8: expected a uint8 tensor, got torch.float32"):
        data.to_float(torch.zeros(3))


def test_check_images_accepts_the_closed_interval():
    data.check_images(torch.tensor([-1.0, 0.0, 1.0, 0.5]).reshape(1, 1, 2, 2), 1)
    data.check_images(torch.zeros(2, 3, 4, 4, dtype=torch.float64), 3)


@pytest.mark.parametrize(
    ("x", "channels", "message"),
    [
        (torch.full((1, 1, 2, 2), 1.001), 1, r"x: expected images in \[-1, 1\], got values from 1.001 to 1.001"),
        (torch.full((1, 1, 2, 2), -1.001), 1, r"from -1.001 to -1.001"),
        (torch.tensor([0.0, math.nan]).reshape(1, 1, 1, 2), 1, r"from nan to nan"),
        (
            torch.zeros(1, 3, 2, 2),
            1,
            r"x: expected float images \(B, 1, H, W\), got torch.float32 of shape \(1, 3, 2, 2\)",
        ),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 1, r"got torch.uint8"),
        (torch.zeros(2, 1, 2), 1, r"of shape \(2, 1, 2\)"),
        (torch.zeros(2, 1, 2, 2, 2), 1, r"of shape \(2, 1, 2, 2, 2\)"),
        (torch.zeros(0, 1, 2, 2), 1, r"of shape \(0, 1, 2, 2\)"),
    ],
)
def test_check_images_names_what_is_wrong(x, channels, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.check_images(x, channels)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- batches


def labelled_bytes(n=10):
    """n different images (2, 3, 4) whose bytes are all different within an image."""
    u8 = (torch.arange(n)[:, None] * 25 + torch.arange(24)[None]).to(torch.uint8)
    return data.Images(u8.reshape(n, 2, 3, 4), torch.arange(n) + 100, "test", ("any",))  # each its own label


def which(batch, images):
    """For every image of the batch: its index in the set, and whether it is mirrored left to right."""
    plain = {row.numpy().tobytes(): i for i, row in enumerate(images)}
    mirrored = {row.numpy()[:, :, ::-1].tobytes(): i for i, row in enumerate(images)}
    keys = [((x.double() + 1) * 255 / 2).round().to(torch.uint8).numpy().tobytes() for x in batch]
    assert all(key in plain or key in mirrored for key in keys)
    return [(plain[key], False) if key in plain else (mirrored[key], True) for key in keys]


def test_batches_are_drawn_uniformly_and_half_of_them_mirrored():
    images = labelled_bytes()
    stream = data.batches(images, 400, generator(), flip=True)
    batches = [next(stream) for _ in range(20)]
    drawn = [which(x, images.images) for x, _ in batches]
    assert [[i + 100 for i, _ in batch] for batch in drawn] == [labels.tolist() for _, labels in batches]
    for batch in drawn:  # per image, not per batch: 5.5 standard errors of a fair coin
        assert abs(sum(mirrored for _, mirrored in batch) - 200) < 55
    every = list(itertools.chain(*drawn))
    assert abs(sum(mirrored for _, mirrored in every) - 4000) < 4 * math.sqrt(8000 / 4)
    counts = Counter(i for i, _ in every)
    chi2 = sum((counts[i] - 800) ** 2 / 800 for i in range(10))
    assert 1 < chi2 < 28  # 9 degrees of freedom; epochs without replacement would give 0
    both = Counter(every)
    assert all(abs(both[i, True] - 400) < 100 for i in range(10))


def test_batches_without_flip_mirror_nothing():
    images = labelled_bytes()
    batch, _ = next(data.batches(images, 300, generator()))
    assert batch.shape == (300, 2, 3, 4) and batch.dtype == torch.float32
    assert {mirrored for _, mirrored in which(batch, images.images)} == {False}


@pytest.mark.parametrize("flip", [False, True])
def test_batches_resume_from_the_generators_state_alone(flip):
    images, g = labelled_bytes(), generator(5)
    stream = data.batches(images, 6, g, flip=flip)
    first = [next(stream) for _ in range(3)]
    state = g.get_state()
    want = [next(stream) for _ in range(3)]
    torch.manual_seed(99)
    before, other = torch.get_rng_state(), torch.Generator()
    other.set_state(state)
    again = data.batches(images, 6, other, flip=flip)
    assert all(torch.equal(x, y) for pair in want for x, y in zip(next(again), pair, strict=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first[0][0], first[1][0])


def test_batches_arrive_on_the_device():
    stream = data.batches(labelled_bytes(), 5, generator(), device="meta", flip=True)
    batch, labels = next(stream)
    assert batch.device.type == labels.device.type == "meta"
    assert batch.shape == (5, 2, 3, 4) and labels.shape == (5,)


@pytest.mark.parametrize("flip", [False, True])
def test_the_parts_of_a_batch_make_up_the_batch(flip):
    streams = [
        data.batches(labelled_bytes(), 6, generator(), flip=flip, part=part)
        for part in (slice(None), slice(0, 2), slice(2, 4), slice(4, 6))
    ]
    for _ in range(3):
        (whole, all_labels), *parts = (next(stream) for stream in streams)
        assert torch.equal(torch.cat([x for x, _ in parts]), whole)
        assert torch.equal(torch.cat([labels for _, labels in parts]), all_labels)


def test_batches_refuse_an_empty_batch():
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        next(data.batches(labelled_bytes(), 0, generator()))


# --------------------------------------------------------------------------------------------------- digits and photos


def test_digits_are_scikit_learns_in_a_fixed_split():
    train, test = data.digits("train"), data.digits("test")
    assert train.images.shape == (1438, 1, 8, 8) and test.images.shape == (359, 1, 8, 8)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert train.name == "digits" and train.classes == tuple("0123456789")
    levels = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]  # round(255 k / 16)
    assert torch.cat([train.images, test.images]).unique().tolist() == levels
    grey = {byte: k for k, byte in enumerate(levels)}

    def pairs(images, labels):
        return Counter((tuple(row), label) for row, label in zip(images, labels, strict=True))

    ours = [
        pairs([[grey[b] for b in row] for row in s.images.flatten(1).tolist()], s.labels.tolist())
        for s in (train, test)
    ]
    bunch = load_digits()
    assert ours[0] + ours[1] == pairs(bunch.data.astype(int).tolist(), bunch.target.tolist())
    assert test.labels[:12].tolist() == [9, 4, 7, 0, 2, 6, 1, 3, 1, 3, 7, 3]
    assert train.labels[:12].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]


def test_digits_come_back_from_their_bytes():
    u8 = data.digits("test").images.double()
    grey = u8 * 16 / 255
    assert (grey - grey.round()).abs().max() < 0.04  # half a byte is 0.03 of a level
    assert torch.equal((grey.round() * 255 / 16).round(), u8)


@pytest.mark.parametrize("name", ["china", "flower"])
def test_photo_is_the_centre_square(name):
    whole = load_sample_image(f"{name}.jpg")
    assert whole.shape == (427, 640, 3)
    square = whole[:, 106:533].astype(int)
    same = data.photo(name, 427)
    assert same.dtype == torch.uint8 and same.shape == (3, 427, 427) and same.is_contiguous()
    assert np.array_equal(same.permute(1, 2, 0).numpy(), square)
    small = data.photo(name, 61)
    assert small.shape == (3, 61, 61)
    area = square.reshape(61, 7, 61, 7, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(small.numpy() - area).mean() < 6  # grey levels; a smooth resize, not picked pixels
    picked = square[3::7, 3::7].transpose(2, 0, 1)
    assert np.abs(picked - area).mean() > np.abs(small.numpy() - area).mean() * 1.5


def test_photo_names_the_two_it_knows():
    with pytest.raises(ValueError, match="name: expected 'china' or 'flower', got 'cat'"):
        data.photo("cat", 8)


# ------------------------------------------------------------------------------------------------------- small CIFAR-10


def small_batches():
    """Six batches of RECORDS images: labels (RECORDS,) and pixels (RECORDS, 3072), as Python would count them."""
    rng = np.random.RandomState(0)
    return {name: (rng.randint(0, 10, RECORDS), rng.randint(0, 256, (RECORDS, 3072))) for name in NAMES}


BATCHES = small_batches()


def binary_files():
    return {
        f"{name}.bin": b"".join(bytes([label, *row]) for label, row in zip(labels, pixels.tolist(), strict=True))
        for name, (labels, pixels) in BATCHES.items()
    }


def python2_pickle(labels, pixels):
    """A batch as Python 2 and the numpy of its day wrote it (protocol 2, byte strings, integer flags), by hand."""

    def text(s):
        return b"U" + bytes([len(s)]) + s

    def integer(k):
        return b"J" + struct.pack("<i", k)

    raw = bytes(pixels.flatten().tolist())
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R"
    dtype += b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + integer(1) + integer(len(pixels)) + integer(3072) + b"\x86" + dtype
    array += b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(integer(int(k)) for k in labels) + b"e"
    names = b"](" + b"".join(text(b"%d.png" % k) for k in range(len(labels))) + b"e"
    fields = text(b"batch_label") + text(b"a batch") + text(b"labels") + numbers + text(b"data") + array
    return b"\x80\x02}(" + fields + text(b"filenames") + names + b"u."


def python_files():
    return {name: python2_pickle(*batch) for name, batch in BATCHES.items()}


def archive(folder, files, extra=()):
    """A tar.gz with `files` under `folder`, what the published archives also hold, and the members in `extra`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        top = tarfile.TarInfo(folder)
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(top)
        for name, blob in {**files, "readme.html": b"<html>"}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(blob)
            tar.addfile(member, io.BytesIO(blob))
        for member, blob in extra:
            member.size = len(blob)
            tar.addfile(member, io.BytesIO(blob))
    return content.getvalue()


def write(folder, files):
    folder.mkdir(parents=True)
    for name, blob in files.items():
        (folder / name).write_bytes(blob)


def assert_small(train, test):
    """Both splits hold exactly BATCHES, in order."""
    for images, names in ((train, NAMES[:5]), (test, NAMES[5:])):
        labels = [int(k) for name in names for k in BATCHES[name][0]]
        assert images.labels.tolist() == labels and images.labels.dtype == torch.int64
        assert images.images.dtype == torch.uint8 and images.images.shape == (len(labels), 3, 32, 32)
        for i, (name, k) in enumerate(itertools.product(names, range(RECORDS))):
            row = BATCHES[name][1][k]
            for c, y, x in ((0, 0, 0), (0, 0, 31), (0, 31, 0), (1, 7, 20), (2, 31, 31)):
                assert images.images[i, c, y, x] == row[1024 * c + 32 * y + x]
        assert images.images.sum() == sum(int(BATCHES[name][1].sum()) for name in names)
        assert images.name == "cifar10" and len(images.classes) == 10
        assert images.classes[0] == "airplane" and images.classes[3] == "cat" and images.classes[9] == "truck"


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The module set up for the small files; neither the user's data nor the user's cache can be reached."""
    monkeypatch.setattr(data, "CIFAR10_BATCH", RECORDS)
    monkeypatch.setattr(data, "CIFAR10_MD5", {n: hashlib.md5(b).hexdigest() for n, b in python_files().items()})
    monkeypatch.setattr(data.pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("DDPM_EDU_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "files"), [("cifar-10-batches-bin", binary_files()), ("cifar-10-batches-py", python_files())]
)
def test_both_layouts_are_read_from_the_folder_or_its_parent(small, folder, files):
    write(small / folder, files)
    for place in (small, small / folder, str(small)):
        assert_small(data.cifar10("train", place), data.cifar10("test", place))


def test_cifar10_is_looked_for_in_the_argument_then_the_environment_then_the_cache(small, monkeypatch):
    def folder_with_first_label(folder, label):
        files = binary_files()
        write(folder / "cifar-10-batches-bin", {n: bytes([label]) + blob[1:] for n, blob in files.items()})

    folder_with_first_label(small / "cache" / "ddpm_edu", 1)
    assert data.load("cifar10", "train").labels[0] == 1
    folder_with_first_label(small / "environment", 2)
    monkeypatch.setenv("DDPM_EDU_DATA", str(small / "environment"))
    assert data.load("cifar10", "test").labels[0] == 2
    folder_with_first_label(small / "argument", 3)
    assert data.cifar10("train", small / "argument").labels[0] == 3


def test_missing_cifar10_says_how_to_get_it(small):
    with pytest.raises(FileNotFoundError, match=r"^no CIFAR-10 in .*nowhere: .*`python -m ddpm_edu data cifar10`$"):
        data.cifar10("train", small / "nowhere")


def test_truncated_batch_names_file_and_sizes(small):
    files = binary_files()
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:-1]
    write(small / "cifar-10-batches-bin", files)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin: expected .* of 12292 bytes, got 12291 bytes$"):
        data.cifar10("train", small)
    data.cifar10("test", small)  # whose file is whole
    with pytest.raises(ValueError, match=r"data_batch_3\.bin"):
        data.download_cifar10(small)  # does not call a broken folder done


def test_missing_and_unreadable_batches_are_named(small):
    files = binary_files()
    del files["data_batch_5.bin"], files["test_batch.bin"]
    write(small / "cifar-10-batches-bin", files)
    with pytest.raises(ValueError, match=r"data_batch_5\.bin: .*No such file"):
        data.cifar10("train", small)
    (small / "cifar-10-batches-bin" / "test_batch.bin").mkdir()
    with pytest.raises(ValueError, match=r"test_batch\.bin: .*cannot read it"):
        data.cifar10("test", small)


def test_a_foreign_file_of_the_right_size_is_refused(small):
    files = binary_files()
    files["test_batch.bin"] = b"\x0a" + files["test_batch.bin"][1:]
    write(small / "cifar-10-batches-bin", files)
    with pytest.raises(ValueError, match=r"expected CIFAR-10 labels 0\.\.9, got 10"):
        data.cifar10("test", small)


class Malicious:
    """Unpickling an instance creates the file `sentinel`."""

    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.parametrize("hash_matches", [False, True])
def test_a_malicious_pickle_is_refused_without_running_it(small, monkeypatch, hash_matches):
    blob = pickle.dumps({b"labels": Malicious(small / "sentinel"), b"data": 0}, protocol=4)
    write(small / "cifar-10-batches-py", {**python_files(), "test_batch": blob})
    if hash_matches:
        monkeypatch.setitem(data.CIFAR10_MD5, "test_batch", hashlib.md5(blob).hexdigest())
    reason = r"refused to unpickle it: it asks for \w+\.mkdir" if hash_matches else r"expected the published file, md5"
    with pytest.raises(ValueError, match=rf"test_batch: {reason}"):
        data.cifar10("test", small)
    assert not (small / "sentinel").exists()
    pickle.loads(blob)  # the control: run, it does its work
    assert (small / "sentinel").exists()


def test_a_harmless_pickle_with_another_hash_is_refused_too(small):
    files = python_files()
    files["data_batch_2"] = python2_pickle(*BATCHES["data_batch_1"])
    write(small / "cifar-10-batches-py", files)
    with pytest.raises(
        ValueError, match=r"data_batch_2: expected the published file, md5 \w{32}, got md5 \w{32} in \d+"
    ):
        data.cifar10("train", small)


def test_the_published_hashes_are_the_ones_we_ask_for():
    assert [sha for _, sha, _ in data.CIFAR10_SOURCES] == [
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ]
    for url, _, folder in data.CIFAR10_SOURCES:
        assert url.startswith("https://") and url.endswith(
            {"cifar-10-batches-bin": "cifar-10-binary.tar.gz", "cifar-10-batches-py": "cifar-10-python.tar.gz"}[folder]
        )
    assert tuple(data.CIFAR10_MD5) == NAMES and data.CIFAR10_BATCH == 10_000


# ------------------------------------------------------------------------------------------------------------- download


class Server:
    """Answers on 127.0.0.1; `routes` maps a path to (status, body, length announced); `asked` lists the paths."""

    def __init__(self):
        self.routes, self.asked = {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, body, length = outer.routes[self.path]
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *args):
                """Say nothing: the tests read stderr."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def serve(self, path, body, *, status=200, cut=0, sha256=None, folder="cifar-10-batches-bin"):
        """Serve body less its last `cut` bytes; returns the source for the module's list."""
        self.routes[path] = (status, body[: len(body) - cut], len(body))
        return self.url + path, sha256 or hashlib.sha256(body).hexdigest(), folder


@pytest.fixture
def server():
    s = Server()
    thread = threading.Thread(target=s.http.serve_forever, args=(0.01,))
    thread.start()
    yield s
    s.http.shutdown()
    thread.join()
    s.http.server_close()


GOOD = archive("cifar-10-batches-bin", binary_files())


def use(monkeypatch, *sources):
    monkeypatch.setattr(data, "CIFAR10_SOURCES", sources)


def assert_nothing_left(small):
    assert sorted(p.name for p in small.rglob("*")) == ["home"]


def failed_download(small):
    """The one line of a download into small/home that failed and left nothing."""
    with pytest.raises(ValueError) as caught:
        data.download_cifar10(small / "home")
    assert "\n" not in str(caught.value)
    assert_nothing_left(small)
    return str(caught.value)


def test_download_of_the_binary_archive(small, server, monkeypatch, capsys):
    use(monkeypatch, server.serve("/good", GOOD))
    where = data.download_cifar10(small / "home" / "made")
    assert where == small / "home" / "made" / "cifar-10-batches-bin"
    assert sorted(p.name for p in where.parent.iterdir()) == ["cifar-10-batches-bin"]
    assert sorted(p.name for p in where.iterdir()) == sorted(binary_files())
    assert_small(data.cifar10("train", where.parent), data.cifar10("test", where.parent))
    err = capsys.readouterr().err
    assert "127.0.0.1" in err and "B/s" in err and "source failed" not in err  # a progress bar, no complaint
    assert data.download_cifar10(small / "home" / "made") == where
    assert server.asked == ["/good"]  # the second call found it there


def test_download_of_the_python_archive(small, server, monkeypatch):
    blob = archive("cifar-10-batches-py", {**python_files(), "batches.meta": b"never unpickled"})
    use(monkeypatch, server.serve("/python", blob, folder="cifar-10-batches-py"))
    where = data.download_cifar10(small)
    assert where == small / "cifar-10-batches-py" and sorted(p.name for p in where.iterdir()) == sorted(NAMES)
    assert_small(data.cifar10("train", small), data.cifar10("test", small))


def test_download_goes_where_the_loader_looks(small, server, monkeypatch):
    use(monkeypatch, server.serve("/good", GOOD))
    assert data.download_cifar10() == small / "cache" / "ddpm_edu" / "cifar-10-batches-bin"
    monkeypatch.setenv("DDPM_EDU_DATA", str(small / "environment"))
    assert data.download_cifar10() == small / "environment" / "cifar-10-batches-bin"
    assert_small(data.load("cifar10", "train"), data.load("cifar10", "test"))


def test_second_source_after_a_server_error(small, server, monkeypatch, capsys):
    use(monkeypatch, server.serve("/broken", b"sorry", status=500), server.serve("/good", GOOD))
    data.download_cifar10(small / "home")
    assert server.asked == ["/broken", "/good"]
    err = capsys.readouterr().err
    assert f"source failed: {server.url}/broken: 500 Server Error" in err and "/good:" not in err
    assert_small(data.cifar10("train", small / "home"), data.cifar10("test", small / "home"))
    assert [p.name for p in (small / "home").iterdir()] == ["cifar-10-batches-bin"]


def test_second_source_after_an_archive_that_was_half_unpacked(small, server, monkeypatch):
    files = binary_files()
    files.pop("test_batch.bin")
    short = archive("cifar-10-batches-bin", files)
    use(monkeypatch, server.serve("/short", short), server.serve("/good", GOOD))
    data.download_cifar10(small / "home")
    assert_small(data.cifar10("train", small / "home"), data.cifar10("test", small / "home"))
    assert [p.name for p in (small / "home").iterdir()] == ["cifar-10-batches-bin"]


def test_connection_cut_in_the_middle(small, server, monkeypatch):
    use(monkeypatch, server.serve("/cut", GOOD, cut=len(GOOD) // 2))
    assert f"no source worked: {server.url}/cut: " in failed_download(small)


def test_file_that_is_short_at_the_source(small, server, monkeypatch):
    want = hashlib.sha256(GOOD).hexdigest()
    use(monkeypatch, server.serve("/short", GOOD[:-7], sha256=want))
    assert f"expected sha256 {want}, got " in (line := failed_download(small))
    assert f"({len(GOOD) - 7} bytes)" in line


def test_wrong_hash_of_a_whole_archive(small, server, monkeypatch):
    use(monkeypatch, server.serve("/other", GOOD, sha256="0" * 64))
    got = hashlib.sha256(GOOD).hexdigest()
    assert f"/other: expected sha256 {'0' * 64}, got {got}" in failed_download(small)


def test_every_source_is_named_when_all_fail(small, server, monkeypatch, capsys):
    closed = Server()
    closed.http.server_close()
    use(
        monkeypatch,
        server.serve("/broken", b"", status=503),
        server.serve("/wrong", GOOD, sha256="f" * 64),
        (f"{closed.url}/closed", "e" * 64, "cifar-10-batches-bin"),
    )
    line = failed_download(small)
    for url in (f"{server.url}/broken: 503", f"{server.url}/wrong: expected sha256", f"{closed.url}/closed: "):
        assert url in line
    assert capsys.readouterr().err.count("source failed: ") == 3


def link(name, kind, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../escaped"),
        tarfile.TarInfo("cifar-10-batches-bin/../../escaped"),
        tarfile.TarInfo("cifar-10-batches-bin/../../../home/escaped"),
        tarfile.TarInfo("/cifar-10-batches-bin/escaped"),
        tarfile.TarInfo("elsewhere/data_batch_1.bin"),
        link("cifar-10-batches-bin/data_batch_1.bin", tarfile.SYMTYPE, "/etc/hostname"),
        link("cifar-10-batches-bin/inside", tarfile.SYMTYPE, "data_batch_1.bin"),
        link("cifar-10-batches-bin/data_batch_1.bin", tarfile.LNKTYPE, "cifar-10-batches-bin/data_batch_2.bin"),
        link("cifar-10-batches-bin/pipe", tarfile.FIFOTYPE, ""),
    ],
    ids=lambda member: f"{member.type.decode()}:{member.name}",
)
def test_archive_with_a_foreign_member_is_refused(small, server, monkeypatch, member):
    content = b"escaped" if member.isreg() else b""
    use(monkeypatch, server.serve("/bad", archive("cifar-10-batches-bin", binary_files(), [(member, content)])))
    assert f"refused the archive: {member.name!r} is not a plain file under cifar-10-batches-bin" in failed_download(
        small
    )


def test_archives_that_do_not_hold_what_they_should(small, server, monkeypatch):
    files = binary_files()
    files["data_batch_2.bin"] = files["data_batch_2.bin"][3073:]
    use(
        monkeypatch,
        server.serve("/cut", GOOD[: len(GOOD) // 2]),  # with its own hash, so that only unpacking can tell
        server.serve("/text", b"not an archive at all"),
        server.serve("/short", archive("cifar-10-batches-bin", files)),
        server.serve("/none", archive("cifar-10-batches-bin", {})),
    )
    line = failed_download(small)
    assert "/cut: Compressed file ended" in line and "/text: not a gzip file" in line
    assert "data_batch_2.bin: expected a CIFAR-10 batch file of 12292 bytes, got 9219 bytes" in line
    assert "data_batch_1.bin: expected a CIFAR-10 batch file, cannot read it" in line


def test_malicious_pickle_in_an_archive_does_not_run(small, server, monkeypatch):
    blob = pickle.dumps(Malicious(small / "sentinel"), protocol=4)
    files = {**python_files(), "test_batch": blob}
    use(monkeypatch, server.serve("/p", archive("cifar-10-batches-py", files), folder="cifar-10-batches-py"))
    assert "expected the published file, md5" in failed_download(small)
    monkeypatch.setitem(data.CIFAR10_MD5, "test_batch", hashlib.md5(blob).hexdigest())
    assert "refused to unpickle it" in failed_download(small)


def test_interrupt_leaves_nothing(small, monkeypatch):
    def interrupted(url, sha256, path):
        assert small / "home" in path.parents  # on the same disk, so that the last rename is one step
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.download_cifar10(small / "home")
    assert_nothing_left(small)


def test_interrupt_just_before_the_last_step_leaves_nothing(small, server, monkeypatch):
    def interrupted(source, target):
        assert source.is_dir() and target == small / "home" / "cifar-10-batches-bin"
        raise KeyboardInterrupt

    use(monkeypatch, server.serve("/good", GOOD))
    monkeypatch.setattr(data.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.download_cifar10(small / "home")
    assert_nothing_left(small)


def test_folder_that_cannot_be_written(small):
    (small / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^folder: cannot write to .*file/below: Not a directory$"):
        data.download_cifar10(small / "file" / "below")
    assert [p.name for p in small.iterdir()] == ["file"]


# -------------------------------------------------------------------------------------------------------- load, by name


def test_load_by_name():
    assert torch.equal(data.load("digits", "test").images, data.digits("test").images)
    with pytest.raises(ValueError, match="data: expected one of digits, cifar10, got 'mnist'"):
        data.load("mnist", "train")


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_unknown_split(name):
    with pytest.raises(ValueError, match="split: expected 'train' or 'test', got 'valid'"):
        data.load(name, "valid")


# -------------------------------------------------------------------------------------------------------- real CIFAR-10

REAL = os.environ.get("DDPM_EDU_DATA", "")


@pytest.mark.skipif(
    not (REAL and data._find_cifar10(Path(REAL))), reason="DDPM_EDU_DATA names no folder with CIFAR-10 in it"
)
def test_real_cifar10():
    train, test = data.cifar10("train"), data.cifar10("test")
    assert train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    # The mean of each channel, as published in many a training script: (0.4914, 0.4822, 0.4465) of 255.
    mean = train.images.sum((0, 2, 3), dtype=torch.int64).double() / (50_000 * 1024)
    assert (mean - 255 * torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64)).abs().max() < 0.012
    # The frog that opens the published train set and the cat that opens the test set, wherever they stand: pixels
    # (y, x) = (0, 0), (0, 1), (1, 0), (31, 31), each red, green, blue.
    frog = [[59, 62, 63], [43, 46, 45], [16, 20, 20], [123, 92, 72]]
    cat = [[158, 112, 49], [159, 111, 47], [152, 112, 51], [21, 67, 110]]
    for images, pixels, label in ((train, frog, "frog"), (test, cat, "cat")):
        corners = images.images[:, :, [0, 0, 1, 31], [0, 1, 0, 31]]
        (found,) = (corners == torch.tensor(pixels, dtype=torch.uint8).T).all(2).all(1).nonzero()[:, 0].tolist()
        assert images.classes[images.labels[found]] == label
