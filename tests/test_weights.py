"""Tests of the weights that come with the course: small, whole, described as they are, as good as their cards say."""

import json
import math
import os
import re
import tomllib
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from ddpm_edu import __main__ as cli
from ddpm_edu import data, gaussian, presets, trajectory
from ddpm_edu.checkpoint import SHIPPED, load_weights, shipped, shipped_names, tensor_hash
from ddpm_edu.classifier import RECIPES, accuracy, load_classifier

README = (SHIPPED / "README.md").read_text(encoding="utf-8")
REAL = os.environ.get("DDPM_EDU_DATA", "")
PRESETS = {"digits": "digits-long", "digits-conditional": "digits-conditional", "digits-flow": "digits-flow"}


def metadata_of(name: str) -> dict[str, str]:
    with safetensors.safe_open(shipped(name), "pt") as file:
        return file.metadata()


def section(name: str) -> str:
    return README.split(f"## `{name}`\n")[1].split("\n## ")[0]


def table(name: str) -> dict[str, str]:
    """The card in a section: its table of two columns."""
    rows = re.findall(r"^\| ([\w ]+) \| (.+) \|$", section(name), re.MULTILINE)
    return {key: value.strip("`").replace(",", "") for key, value in rows}


def test_they_are_six_and_small():
    assert shipped_names() == [
        "cifar10",
        "cifar10-judge",
        "digits",
        "digits-conditional",
        "digits-flow",
        "digits-judge",
    ]
    assert all(path.stat().st_size <= 5_000_000 for path in map(shipped, shipped_names()))
    assert sum(shipped(name).stat().st_size for name in shipped_names() if name.startswith("digits")) < 4_000_000
    assert (SHIPPED / "cifar10.trajectory.npz").stat().st_size <= 6_000_000
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 17_000_000
    assert re.findall(r"^## `(.*)`$", README, re.MULTILINE) == shipped_names()


def test_an_installed_package_holds_them():
    project = tomllib.loads((Path(cli.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["ddpm_edu"]
    packed = {path for pattern in patterns for path in Path(cli.__file__).parent.glob(pattern)}
    assert set(SHIPPED.iterdir()) <= packed


@pytest.mark.parametrize("name", shipped_names())
def test_the_readme_says_what_the_file_says(name):
    metadata = metadata_of(name)
    card = json.loads(metadata["card"])
    told = {key: card[key] for key in ("data", "seed", "steps", "batch", "seconds", "device", "threads", "torch")}
    told |= {"loss": f"{card['loss']:.4f}", "parameters": card["parameters"], "sha256": metadata["sha256"]}
    if name == "cifar10":
        told |= {"preset": card["preset"], "images seen": card["images_seen"]}
    if name.endswith("judge"):
        told |= {"accuracy": f"{card['accuracy']:.4f}"}
    assert table(name) == {key: str(value) for key, value in told.items()}


@pytest.mark.parametrize(("name", "preset"), PRESETS.items())
def test_the_readme_names_the_command_that_makes_them(name, preset):
    card, config = json.loads(metadata_of(name)["card"]), presets.preset(preset)
    command = f"python -m ddpm_edu train --preset {preset} --threads {card['threads']} --out runs/{preset}"
    assert command in section(name)
    made_with = {key: value for key, value in config.to_dict().items() if key not in ("network", "schedule")}
    assert {key: card[key] for key in made_with} == made_with
    model, schedule, _ = load_weights(shipped(name))
    network = config.network | {"width_mults": tuple(config.network["width_mults"]), "attention_at": ()}
    assert model.config == {"classes": None, "groups": None, "fourier": ()} | network
    assert schedule is None if config.schedule is None else torch.equal(schedule.beta, config.schedule.beta)


def test_the_readme_names_the_commands_that_make_those_for_cifar10():
    """One run, whatever preset it had, that may have been stopped and gone on with: its last command planned enough."""
    text, card = section("cifar10"), json.loads(metadata_of("cifar10")["card"])
    out, config = f"runs/{card['preset']}", presets.preset(card["preset"])
    flags = rf"(--preset {card['preset']}|--resume) (?:--steps (\d+) )?--threads \d+ --out {out}\b"
    first, *later = re.findall(rf"^python -m ddpm_edu train {flags}", text, re.MULTILINE)
    assert first[0] != "--resume" and {kind for kind, _ in later} <= {"--resume"}
    assert card["steps"] <= int([first, *later][-1][1] or config.steps)
    assert f"export --weights {out}/weights.safetensors --out ddpm_edu/weights/cifar10.safetensors" in text
    assert f"trajectory --weights cifar10 --without-ema {out}/checkpoint.pt --out cifar10.trajectory.npz" in text
    made_with = {key: value for key, value in config.to_dict().items() if key not in ("network", "schedule", "steps")}
    assert {key: card[key] for key in made_with} == made_with and card["images_seen"] == card["steps"] * card["batch"]
    model, schedule, _ = load_weights(shipped("cifar10"))
    network = {key: tuple(value) if isinstance(value, list) else value for key, value in config.network.items()}
    assert {key: model.config[key] for key in network} == network
    assert torch.equal(schedule.beta, config.schedule.beta)
    assert {tensor.dtype for tensor in safetensors.torch.load_file(shipped("cifar10")).values()} == {torch.bfloat16}


def json_of(name: str) -> dict:
    return json.loads((SHIPPED / name).read_text(encoding="utf-8"))


def test_the_log_is_that_of_these_weights():
    card = json.loads(metadata_of("cifar10")["card"])
    lines = [json.loads(line) for line in (SHIPPED / "cifar10.log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps)) and steps[-1] == card["steps"]
    assert lines[-1]["loss"] == card["loss"] and abs(lines[-1]["seconds"] - card["seconds"]) < 0.06


def test_the_trajectory_is_that_of_these_weights():
    model, schedule, card = load_weights(shipped("cifar10"))
    tr = trajectory.load(SHIPPED / "cifar10.trajectory.npz")
    assert tr.source == {"seed": 0, "sha256": tensor_hash(model.state_dict()), "card": card}
    assert torch.equal(tr.schedule.beta, schedule.beta) and len(tr.raw) == 8
    k = len(tr.t) // 2  # here the rounding of the file hardly counts
    t, xt = int(tr.t[k]), tr.xt[:2, k]
    with torch.no_grad():
        said = gaussian.x0_from_eps(schedule, xt, t, model(xt, torch.full((2,), t)))
    assert (said - tr.x0_hat[:2, k]).square().mean().sqrt() < 0.02


@pytest.mark.parametrize("name", ["cifar10.evaluation.json", "cifar10.judgement.json"])
def test_the_measurements_are_of_these_weights_and_the_readme_quotes_them(name):
    found, text = json_of(name), section("cifar10")
    assert found["card"] == json.loads(metadata_of("cifar10")["card"])
    if "bounds" in found:
        quoted = [f"{b['total']:.3f} ± {b['std_error']:.3f}" for b in found["bounds"]["test"].values()]
        quoted.append(f"evaluate --weights cifar10 --data cifar10 --n {found['bounds']['test']['optimal']['n']}")
    else:
        quoted = [f"Fréchet distance {found['frechet']:.2f};", f"{found['frechet_test']:.2f} |", f"--n {found['n']}"]
    assert [one for one in quoted if one not in text] == []


def test_the_judge_is_right_for_what_it_has_not_seen():
    metadata = metadata_of("digits-judge")
    card, classifier = json.loads(metadata["card"]), load_classifier(shipped("digits-judge"))
    assert accuracy(classifier, data.digits("test")) == card["accuracy"] >= 0.98
    assert metadata["sha256"] == tensor_hash(classifier.state_dict())
    command = (
        f"python -m ddpm_edu classifier --data digits --threads {card['threads']} --out runs/digits-judge.safetensors"
    )
    assert command in section("digits-judge")


def test_the_judge_of_cifar10_is_what_its_card_says():
    metadata, text = metadata_of("cifar10-judge"), section("cifar10-judge")
    card, stored = json.loads(metadata["card"]), safetensors.torch.load_file(shipped("cifar10-judge"))
    assert metadata["sha256"] == tensor_hash(stored)
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.bfloat16}
    recipe = {key: RECIPES["cifar10"][key] for key in ("width", "features", "dropout", "residual")}
    assert load_classifier(shipped("cifar10-judge")).config == recipe | {"image_size": 32, "channels": 3, "classes": 10}
    planned = re.search(
        rf"classifier --data cifar10 (?:--epochs (\d+) )?--threads {card['threads']} "
        rf"--out ddpm_edu/weights/cifar10-judge.safetensors\n",
        text,
    )
    epochs = int(planned[1] or RECIPES["cifar10"]["epochs"])
    assert card["batch"] == RECIPES["cifar10"]["batch"] and card["steps"] == epochs * (50_000 // card["batch"])
    assert f"{epochs} passes" in text


@pytest.mark.skipif(
    not (REAL and data._find_cifar10(Path(REAL))), reason="DDPM_EDU_DATA names no folder with CIFAR-10 in it"
)
def test_the_judge_of_cifar10_is_right_for_what_it_has_not_seen():
    test, n = data.cifar10("test"), 1000
    some = data.Images(test.images[:n], test.labels[:n], test.name, test.classes)
    said = json.loads(metadata_of("cifar10-judge")["card"])["accuracy"]
    got = accuracy(load_classifier(shipped("cifar10-judge")), some)
    assert abs(got - said) < 4 * math.sqrt(said * (1 - said) / n)


@pytest.mark.parametrize(
    ("name", "flags", "below"),
    [
        ("digits", ["--steps", "25"], 0.03),
        ("digits-conditional", ["--steps", "25", "--guidance", "1.5"], 0.03),
        ("digits-flow", ["--steps", "10"], 0.05),
    ],
)
def test_they_draw_digits(tmp_path, name, flags, below):
    """With few samples and steps, hence with 3 standard errors of the share more than the cards promise."""
    n = 400
    assert cli.main(["judge", "--weights", name, "--n", str(n), *flags, "--json", str(tmp_path / "j.json")]) == 0
    found = json.loads((tmp_path / "j.json").read_text(encoding="utf-8"))
    assert found["confident"] > found["confident_test"] - below - 3 * math.sqrt(0.05 * 0.95 / n)
    assert min(found["histogram"]) > 15 and found["nearer_to_train"] < 0.65
    assert found["frechet"] < 3 * found["frechet_test"]
    if name == "digits-conditional":
        assert found["hit"] >= 0.97
