"""Tests of the weights that come with the course: small, whole, described as they are, as good as their cards say."""

import json
import math
import re
import tomllib
from pathlib import Path

import pytest
import safetensors
import torch

from ddpm_edu import __main__ as cli
from ddpm_edu import data
from ddpm_edu.checkpoint import SHIPPED, load_weights, shipped, shipped_names, tensor_hash
from ddpm_edu.classifier import accuracy, load_classifier

README = (SHIPPED / "README.md").read_text(encoding="utf-8")
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


def test_they_are_four_and_small():
    assert shipped_names() == ["digits", "digits-conditional", "digits-flow", "digits-judge"]
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 4_000_000
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
    if name == "digits-judge":
        told |= {"accuracy": f"{card['accuracy']:.4f}"}
    assert table(name) == {key: str(value) for key, value in told.items()}


@pytest.mark.parametrize(("name", "preset"), PRESETS.items())
def test_the_readme_names_the_command_that_makes_them(name, preset):
    card, config = json.loads(metadata_of(name)["card"]), cli.preset(preset)
    command = f"python -m ddpm_edu train --preset {preset} --threads {card['threads']} --out runs/{preset}"
    assert command in section(name)
    made_with = {key: value for key, value in config.to_dict().items() if key not in ("network", "schedule")}
    assert {key: card[key] for key in made_with} == made_with
    model, schedule, _ = load_weights(shipped(name))
    network = config.network | {"width_mults": tuple(config.network["width_mults"]), "attention_at": ()}
    assert model.config == {"classes": None} | network
    assert schedule is None if config.schedule is None else torch.equal(schedule.beta, config.schedule.beta)


def test_the_judge_is_right_for_what_it_has_not_seen():
    metadata = metadata_of("digits-judge")
    card, classifier = json.loads(metadata["card"]), load_classifier(shipped("digits-judge"))
    assert accuracy(classifier, data.digits("test")) == card["accuracy"] >= 0.98
    assert metadata["sha256"] == tensor_hash(classifier.state_dict())
    command = (
        f"python -m ddpm_edu classifier --data digits --threads {card['threads']} --out runs/digits-judge.safetensors"
    )
    assert command in section("digits-judge")


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
