"""Weights in the layout of the diffusers library, in and out: a folder with a network, its weights and a scheduler.

The U-Net is the original's, and diffusers has it too, under other names: so published weights for it, such as
google/ddpm-cifar10-32, run here, and ours run in its pipelines. diffusers itself is not needed for either, and neither
is an internet connection: the folder must be on this machine.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ddpm_edu import schedules
from ddpm_edu.checkpoint import write_whole
from ddpm_edu.schedules import Schedule
from ddpm_edu.unet import ResBlock, UNet

CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
WEIGHTS, PICKLED = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
# What diffusers takes where a file says nothing.
UNET_DEFAULTS: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "mid_block_type": "UNetMidBlock2D",
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
SCHEDULER_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
}
FAMILIES: dict[str, Callable[[int, float, float], Schedule]] = {
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "squaredcos_cap_v2": lambda T, beta_1, beta_T: schedules.cosine(T),
}
RENAMED = {"emb": "time_emb_proj", "shortcut": "conv_shortcut"}  # in a residual block
RENAMED_ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
# The names of 2022, which published files still have.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_diffusers(folder: Path) -> tuple[UNet, Schedule]:
    """The network (on the CPU, float32, in evaluation mode) and the schedule of a folder in the layout of diffusers.

    A pipeline's folder, with ``unet`` and ``scheduler`` inside, or one that holds the files of both. ValueError, in one
    line that names the file and what was expected, for a file that is missing or damaged, and for a network or a
    schedule that is not of the original's kind. No code from a file is ever run.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected a folder in the layout of diffusers, found none; weights on the Hugging Face hub must "
            f"be fetched first: pip install huggingface_hub, then hf download {folder} --local-dir FOLDER"
        )
    unet, scheduler = (folder / "unet", folder / "scheduler") if (folder / "unet").is_dir() else (folder, folder)
    with _reading(unet / CONFIG):
        model = _unet(_read_json(unet / CONFIG))
    with _reading(scheduler / SCHEDULER):
        s = _schedule(_read_json(scheduler / SCHEDULER))
    file = next((unet / name for name in (WEIGHTS, PICKLED) if (unet / name).exists()), None)
    if file is None:
        raise ValueError(f"{unet}: expected the weights in {WEIGHTS} or {PICKLED}, found neither")
    with _reading(file):
        tensors = (
            safetensors.torch.load_file(file)
            if file.name == WEIGHTS
            else torch.load(file, map_location="cpu", weights_only=True)
        )
        found: dict[str, Tensor] = {_modern(name): tensor for name, tensor in tensors.items()}
        wanted = {theirs: ours for ours, theirs in names(model)}
        if odd := sorted(set(found) ^ set(wanted)):
            wrong = "is missing" if odd[0] in wanted else "is not one of them"
            raise ValueError(f"expected the weights of the network in {CONFIG}, but {odd[0]} {wrong}")
        model.load_state_dict({wanted[name]: tensor for name, tensor in found.items()})
    return model.eval(), s


def save_diffusers(folder: Path, model: UNet, schedule: Schedule) -> None:
    """Write ``model`` and ``schedule`` as a folder that diffusers' ``DDPMPipeline.from_pretrained`` opens.

    The betas go in one by one, so that any schedule can. ValueError for a network that its UNet2DModel cannot be: one
    with classes, with Fourier features, or with different numbers of groups in its norms.
    """
    config, state = _config(model), model.state_dict()
    files = {
        f"unet/{CONFIG}": _json(_class_name="UNet2DModel", **config),
        f"unet/{WEIGHTS}": safetensors.torch.save(
            {theirs: state[ours].contiguous() for ours, theirs in names(model)}, {"format": "pt"}
        ),
        f"scheduler/{SCHEDULER}": _json(
            _class_name="DDPMScheduler",
            num_train_timesteps=schedule.T,
            trained_betas=schedule.beta[1:].tolist(),
            variance_type="fixed_large",
            clip_sample=True,
            prediction_type="epsilon",
        ),
        "model_index.json": _json(
            _class_name="DDPMPipeline",
            scheduler=["diffusers", "DDPMScheduler"],
            unet=["diffusers", "UNet2DModel"],
        ),
    }
    for name, contents in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, contents)


def names(model: UNet) -> Iterator[tuple[str, str]]:
    """(our name, diffusers' name) of every tensor of ``model``, which has no classes."""
    renamed = {
        "stem": "conv_in",
        "time_mlp.0": "time_embedding.linear_1",
        "time_mlp.2": "time_embedding.linear_2",
        "middle1": "mid_block.resnets.0",
        "middle1.attention": "mid_block.attentions.0",
        "middle2": "mid_block.resnets.1",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
    }
    for way, layers in (("down", model.down), ("up", model.up)):
        level, number = 0, 0
        for i, layer in enumerate(layers):
            if isinstance(layer, ResBlock):
                renamed[f"{way}.{i}"] = f"{way}_blocks.{level}.resnets.{number}"
                renamed[f"{way}.{i}.attention"] = f"{way}_blocks.{level}.attentions.{number}"
                number += 1
            else:  # the change of size ends a level
                renamed[f"{way}.{i}.1"] = f"{way}_blocks.{level}.{way}samplers.0.conv"
                level, number = level + 1, 0
    for ours in model.state_dict():
        place, _, leaf = ours.rpartition(".")
        if place in renamed:
            yield ours, f"{renamed[place]}.{leaf}"
        else:
            block, _, part = place.rpartition(".")
            inside = RENAMED_ATTENTION if block.endswith("attention") else RENAMED
            yield ours, f"{renamed[block]}.{inside.get(part, part)}.{leaf}"


def _modern(name: str) -> str:
    """The name of today for a tensor in a file of 2022."""
    place, _, leaf = name.rpartition(".")
    parent, _, layer = place.rpartition(".")
    old = ".attentions." in name and layer in OLD_ATTENTION
    return f"{parent}.{OLD_ATTENTION[layer]}.{leaf}" if old else name


def _unet(given: dict[str, Any]) -> UNet:
    """The network that a configuration of UNet2DModel describes. ValueError where ours cannot be it."""
    config = UNET_DEFAULTS | given
    size, widths = config["sample_size"], config["block_out_channels"]
    attention_at = [size // 2**i for i, kind in enumerate(config["down_block_types"]) if kind == "AttnDownBlock2D"]
    model = UNet(
        image_size=size,
        channels=config["in_channels"],
        width=widths[0],
        width_mults=[width // widths[0] for width in widths],
        res_blocks=config["layers_per_block"],
        attention_at=attention_at,
        dropout=config["dropout"],
        groups=config["norm_num_groups"],
    )
    for name, expected in _config(model).items():
        if config[name] != expected:
            raise ValueError(f"{name}: expected {expected!r}, as in the original network, got {config[name]!r}")
    return model


def _config(model: UNet) -> dict[str, Any]:
    """The arguments with which UNet2DModel is the same network as ``model``. ValueError where there are none."""
    c = model.config
    groups = {module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)}
    if c["classes"] is not None or c["fourier"] or len(groups) > 1:
        raise ValueError(
            "model: expected a network that diffusers has too: no classes, no Fourier features, the same groups in all "
            f"norms; got classes {c['classes']}, fourier {c['fourier']}, groups {sorted(groups)}"
        )
    sizes = [c["image_size"] // 2**level for level in range(len(c["width_mults"]))]
    kinds = ["Attn" if size in c["attention_at"] else "" for size in sizes]
    return UNET_DEFAULTS | {
        "sample_size": c["image_size"],
        "in_channels": c["channels"],
        "out_channels": c["channels"],
        "block_out_channels": [c["width"] * mult for mult in c["width_mults"]],
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "layers_per_block": c["res_blocks"],
        "dropout": c["dropout"],
        "norm_num_groups": groups.pop(),
        # Where the original differs from diffusers' defaults.
        "norm_eps": 1e-6,
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    }


def _schedule(given: dict[str, Any]) -> Schedule:
    """The schedule that a configuration of a scheduler describes. ValueError where the package has none like it."""
    config = SCHEDULER_DEFAULTS | given
    for name in ("prediction_type", "rescale_betas_zero_snr"):
        if config[name] != SCHEDULER_DEFAULTS[name]:
            raise ValueError(f"{name}: expected {SCHEDULER_DEFAULTS[name]!r}, got {config[name]!r}")
    T, betas, family = config["num_train_timesteps"], config["trained_betas"], config["beta_schedule"]
    if betas is not None:
        if len(betas) != T:
            raise ValueError(f"trained_betas: expected num_train_timesteps = {T} numbers, got {len(betas)}")
        return Schedule.from_betas(betas)
    if family not in FAMILIES:
        raise ValueError(f"beta_schedule: expected one of {', '.join(FAMILIES)}, got {family!r}")
    return FAMILIES[family](T, config["beta_start"], config["beta_end"])


def _read_json(file: Path) -> dict[str, Any]:
    fields = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object in JSON, got {type(fields).__name__}")
    return fields


def _json(**fields: Any) -> bytes:
    return (json.dumps(fields, indent=2) + "\n").encode()


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn whatever reading ``file`` raises into one line: a foreign file can fail in any way at all."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{file}: expected a folder in the layout of diffusers, found no such file") from None
    except KeyError as error:
        raise ValueError(f"{file}: expected the field {error}, found none") from None
    except ValueError as error:
        raise ValueError(f"{file}: {' '.join(str(error).split())[:200]}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: not what diffusers writes ({type(error).__name__}: {reason})") from None
