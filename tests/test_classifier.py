"""Tests of ddpm_edu.classifier: what it computes, that a seed fixes it, that it learns, and its files."""

import json

import pytest
import safetensors
import torch

from ddpm_edu import data
from ddpm_edu.checkpoint import load_weights, shipped
from ddpm_edu.classifier import Classifier, accuracy, load_classifier, save_classifier, train_classifier
from ddpm_edu.data import Images


def stripes(n: int = 96) -> Images:
    """Black images (1, 8, 8) with one white line, upright (label 1) or not (label 0), somewhere."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    u8 = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
    for i, place in enumerate(torch.randint(8, (n,), generator=g).tolist()):
        u8[i, 0, place] = 255
    u8[labels == 1] = u8[labels == 1].transpose(-1, -2)
    return Images(u8, labels, "stripes", ("lying", "upright"))


def test_the_last_layer_sees_the_features():
    classifier = Classifier(12, 3, 5, width=4, features=7).eval()
    x = torch.randn(6, 3, 12, 12)
    features = classifier.features(x)
    assert features.shape == (6, 7) and (features >= 0).all()
    by_hand = features @ classifier.head.weight.T + classifier.head.bias
    assert classifier(x).shape == (6, 5)
    torch.testing.assert_close(classifier(x), by_hand)
    assert not torch.equal(classifier.train().features(x), features), "dropout and batch statistics"
    assert Classifier(**classifier.config).config == classifier.config


@pytest.mark.parametrize("size", [0, 6, 2])
def test_an_image_that_cannot_be_halved_twice_is_refused(size):
    with pytest.raises(ValueError, match=f"image_size: expected a positive multiple of 4, got {size}"):
        Classifier(size, 1, 10)


def test_it_learns_and_its_seed_fixes_it():
    lines = stripes()
    first, loss = train_classifier(lines, seed=1, epochs=8, batch=16)
    again, _ = train_classifier(lines, seed=1, epochs=8, batch=16)
    other, _ = train_classifier(lines, seed=2, epochs=8, batch=16)
    untrained = Classifier(**first.config).eval()
    assert accuracy(first, lines) == 1 and accuracy(untrained, lines) < 0.8 and loss < 0.2
    assert not first.training
    x = data.to_float(lines.images)
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))


def test_accuracy_is_the_share_of_right_answers():
    lines = stripes(4)
    answers = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])  # the labels are 0, 1, 0, 1
    assert accuracy(lambda x: answers, lines) == 0.5
    assert accuracy(lambda x: answers[[0, 3, 1, 1]], lines) == 0.75


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="data: expected at least 64 images for a batch, got 63"):
        train_classifier(stripes(63))


def test_a_file_gives_the_same_classifier_and_its_card(tmp_path):
    classifier, _ = train_classifier(stripes(), epochs=2, batch=32)
    path = tmp_path / "c.safetensors"
    save_classifier(path, classifier, {"seed": 0})
    back = load_classifier(path)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(back(x), classifier(x)) and not back.training and back.config == classifier.config
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["card"]) == {"seed": 0}


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
    classifier, _ = train_classifier(data.digits("train"), seed=3)
    assert sum(p.numel() for p in classifier.parameters()) == 22_562
    assert accuracy(classifier, data.digits("test")) >= 0.98
