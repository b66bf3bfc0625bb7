"""Ready-made configurations of a training run, one JSON file each."""

import json
from importlib import resources

from ddpm_edu import schedules
from ddpm_edu.training import Config

FILES = {
    file.name.removesuffix(".json"): file for file in resources.files(__name__).iterdir() if file.name.endswith(".json")
}


def preset_names() -> list[str]:
    """The names that `preset` accepts."""
    return sorted(FILES)


def preset(name: str) -> Config:
    """The ready-made configuration ``name``, with seed 0. ValueError that lists the names for an unknown one."""
    if name not in FILES:
        raise ValueError(f"preset: expected one of {', '.join(preset_names())}, got {name!r}")
    values = json.loads(FILES[name].read_text(encoding="utf-8"))
    if values["schedule"] is not None:
        families = {"linear": schedules.linear, "cosine": schedules.cosine, "log_snr_linear": schedules.log_snr_linear}
        values["schedule"] = families[values["schedule"].pop("family")](**values["schedule"])
    return Config(preset=name, seed=0, **values)
