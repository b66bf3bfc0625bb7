"""Tests of ddpm_edu.classifier: what it computes, that a seed fixes it, that it learns, and its files."""

import json

import pytest
import safetensors
import torch

from ddpm_edu import data
from ddpm_edu.checkpoint import load_weights, shipped
from ddpm_edu.classifier import (
    RECIPES,
    Classifier,
    accuracy,
    flip_and_shift,
    load_classifier,
    save_classifier,
    train_classifier,
)
from ddpm_edu.data import Images

PLAIN = {"lr": 3e-3, "weight_decay": 1e-3}


def stripes(n: int = 96) -> Images:
    """Black images (1, 8, 8) with one white line, upright (label 1) or not (label 0), somewhere."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    u8 = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
    for i, place in enumerate(torch.randint(8, (n,), generator=g).tolist()):
        u8[i, 0, place] = 255
    u8[labels == 1] = u8[labels == 1].transpose(-1, -2)
    return Images(u8, labels, "stripes", ("lying", "upright"))


@pytest.mark.parametrize("residual", [False, True])
def test_the_last_layer_sees_the_features(residual):
    torch.manual_seed(0)
    classifier = Classifier(16, 3, 5, width=4, features=7, residual=residual).eval()
    x = torch.randn(6, 3, 16, 16)
    features = classifier.features(x)
    assert features.shape == (6, 7) and (features >= 0).all()
    by_hand = features @ classifier.head.weight.T + classifier.head.bias
    assert classifier(x).shape == (6, 5)
    torch.testing.assert_close(classifier(x), by_hand)
    assert not torch.equal(classifier.train().features(x), features), "dropout and batch statistics"
    assert Classifier(**classifier.config).config == classifier.config


def test_the_residual_network_by_hand():
    """Written again with functions, from the weights alone; each block adds what it computes to what it was given."""
    torch.manual_seed(1)
    classifier = Classifier(16, 3, 5, width=2, features=7, dropout=0.5, residual=True)
    x = torch.randn(8, 3, 16, 16)
    classifier(x)  # running statistics that are not 0 and 1
    classifier.eval()
    convolutions = [m for m in classifier.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in classifier.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m.out_channels for m in convolutions] == [2, 4, 4, 4, 8, 16, 16, 16]
    layers = list(zip(convolutions, norms, strict=True))

    def convolve(z, i):
        conv, norm = layers[i]
        z = torch.conv2d(z, conv.weight, conv.bias, padding=1)
        mean, var = (v[:, None, None] for v in (norm.running_mean, norm.running_var))
        return ((z - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()

    def halve(z):
        return z.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

    z = halve(convolve(convolve(x, 0), 1))
    z = z + convolve(convolve(z, 2), 3)
    z = halve(convolve(z, 4))
    z = halve(convolve(z, 5))
    z = z + convolve(convolve(z, 6), 7)
    linear = next(m for m in classifier.body.modules() if isinstance(m, torch.nn.Linear))
    want = (z.amax((2, 3)) @ linear.weight.T + linear.bias).relu()
    torch.testing.assert_close(classifier.features(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "multiple"), [(0, 4), (6, 4), (2, 4), (0, 8), (12, 8), (4, 8)])
def test_an_image_that_cannot_be_halved_often_enough_is_refused(size, multiple):
    with pytest.raises(ValueError, match=f"image_size: expected a positive multiple of {multiple}, got {size}"):
        Classifier(size, 1, 10, residual=multiple == 8)


def test_flips_and_shifts_by_hand():
    """Each of many images is one of 2 x 9 x 9 crops of its padded self, every one of which turns up about as often."""
    x = torch.arange(2 * 16 * 16).float().reshape(1, 2, 16, 16)
    torch.manual_seed(0)
    got = flip_and_shift(x.expand(4000, -1, -1, -1))
    mirror = [4, 3, 2, 1, *range(16), 14, 13, 12, 11]  # where a padded row of 24 looks
    crops = {}
    for flip in (False, True):
        image = x[0].flip(-1) if flip else x[0]
        for top in range(9):
            for left in range(9):
                crop = image[:, mirror[top : top + 16]][:, :, mirror[left : left + 16]]
                crops[crop.numpy().tobytes()] = (flip, top, left)
    assert len(crops) == 162
    found = torch.tensor([crops[image.numpy().tobytes()] for image in got])
    for column, values in enumerate((2, 9, 9)):
        share = found[:, column].bincount(minlength=values) / 4000
        assert (share - 1 / values).abs().max() < 4 * (1 / values / 4000) ** 0.5
    assert len({tuple(row) for row in found.tolist()}) == 162, "drawn independently of each other"


def test_small_shifts_stay_small():
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    torch.manual_seed(0)
    seen = {tuple(image.flatten().tolist()) for image in flip_and_shift(x.expand(500, -1, -1, -1), most=1)}
    assert len(seen) == 2 * 3 * 3 and tuple(range(64)) in seen


def test_it_learns_photographs_with_flips_shifts_and_bf16():
    """One colour or another, in noise: the network of RECIPES, narrower."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    u8 = torch.randint(0, 200, (200, 3, 16, 16), generator=g, dtype=torch.uint8)
    u8[labels == 1, 0] += 55
    colours = Images(u8, labels, "colours", ("grey", "red"))
    recipe = RECIPES["cifar10"] | {"epochs": 6, "batch": 20, "width": 4, "features": 8}
    classifier, loss = train_classifier(colours, seed=1, **recipe)
    again, _ = train_classifier(colours, seed=1, **recipe)
    plain, _ = train_classifier(colours, seed=1, **recipe | {"augment": False})
    single, _ = train_classifier(colours, seed=1, **recipe | {"bf16": False})
    assert accuracy(classifier, colours) > 0.95 and loss < 0.5 and not classifier.training
    assert classifier.config["residual"] and classifier.config["features"] == 8 and classifier.config["dropout"] == 0.1
    assert all(p.dtype == torch.float32 for p in classifier.parameters()), "bf16 is for the products only"
    x = data.to_float(u8[:9])
    assert torch.equal(classifier(x), again(x))
    assert not torch.equal(classifier(x), plain(x)) and not torch.equal(classifier(x), single(x))


def test_it_learns_and_its_seed_fixes_it():
    lines = stripes()
    first, loss = train_classifier(lines, seed=1, epochs=8, batch=16, **PLAIN)
    again, _ = train_classifier(lines, seed=1, epochs=8, batch=16, **PLAIN)
    other, _ = train_classifier(lines, seed=2, epochs=8, batch=16, **PLAIN)
    untrained = Classifier(**first.config).eval()
    assert accuracy(first, lines) == 1 and accuracy(untrained, lines) < 0.8 and loss < 0.2
    assert not first.training
    x = data.to_float(lines.images)
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"weight_decay": 0.5}, {"epochs": 3}, {"batch": 48}, {"width": 8}])
def test_every_setting_counts(change):
    settings = {"epochs": 2, "batch": 32, **PLAIN}
    usual, loss = train_classifier(stripes(), **settings)
    other, other_loss = train_classifier(stripes(), **settings | change)
    assert loss != other_loss
    x = data.to_float(stripes(4).images)
    assert not torch.equal(usual(x), other(x))


def test_accuracy_is_the_share_of_right_answers():
    lines = stripes(4)
    answers = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])  # the labels are 0, 1, 0, 1
    assert accuracy(lambda x: answers, lines) == 0.5
    assert accuracy(lambda x: answers[[0, 3, 1, 1]], lines) == 0.75


def test_accuracy_of_more_images_than_go_through_at_once():
    lines, seen = stripes(1096), []

    def first_row_white(x):
        seen.append(len(x))
        return (x[:, 0, 0, :].amin(1) > 0).float()[:, None] * torch.tensor([1.0, 0]) + torch.tensor([0, 0.5])

    want = ((lines.images[:, 0, 0].amin(1) > 0) == (lines.labels == 0)).double().mean().item()
    assert accuracy(first_row_white, lines) == want and 0.5 < want < 0.7
    assert sum(seen) == 1096 and max(seen) <= 500


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="data: expected at least 64 images for a batch, got 63"):
        train_classifier(stripes(63), **RECIPES["digits"])


def test_a_file_gives_the_same_classifier_and_its_card(tmp_path):
    classifier, _ = train_classifier(stripes(), epochs=2, batch=32, **PLAIN)
    path = tmp_path / "c.safetensors"
    save_classifier(path, classifier, {"seed": 0})
    back = load_classifier(path)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(back(x), classifier(x)) and not back.training and back.config == classifier.config
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["card"]) == {"seed": 0}


def test_a_file_in_bf16_is_half_as_large_and_gives_float32(tmp_path):
    torch.manual_seed(0)
    classifier = Classifier(8, 1, 2, residual=True, width=8)
    for dtype in (torch.float32, torch.bfloat16):
        save_classifier(tmp_path / str(dtype), classifier, {}, dtype)
    sizes = [(tmp_path / str(dtype)).stat().st_size for dtype in (torch.float32, torch.bfloat16)]
    assert 1.6 < sizes[0] / sizes[1] < 2
    back = load_classifier(tmp_path / "torch.bfloat16")
    for name, tensor in classifier.state_dict().items():
        assert back.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(back.state_dict()[name], tensor.bfloat16().to(tensor.dtype))


def test_the_digits_classifier_of_before_has_the_features_that_it_had():
    """Its file does not know of the residual network. The numbers were noted before there was one."""
    classifier = load_classifier(shipped("digits-judge"))
    assert classifier.config["residual"] is False and len(classifier.body) == 15
    f = classifier.features(data.to_float(data.digits("test").images[:2]))
    assert f.sum(1).tolist() == pytest.approx([99.962234, 125.383293], rel=1e-5)


def test_files_of_others_are_refused(tmp_path):
    for path, load in ((shipped("digits"), load_classifier), (shipped("digits-judge"), load_weights)):
        with pytest.raises(ValueError, match=r"expected the format 'ddpm_edu\.\w+/\d', got 'ddpm_edu\.\w+/\d'"):
            load(path)
    with pytest.raises(ValueError, match="expected a weights file, found no such file"):
        load_classifier(tmp_path / "none")
    whole = shipped("digits-judge").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole weights file of this package"):
        load_classifier(tmp_path / "half")


def test_on_digits_it_is_right_for_98_percent_of_what_it_has_not_seen():
    classifier, _ = train_classifier(data.digits("train"), seed=3, **RECIPES["digits"])
    assert sum(p.numel() for p in classifier.parameters()) == 22_562
    assert accuracy(classifier, data.digits("test")) >= 0.98
