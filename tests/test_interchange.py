"""Tests of ddpm_edu.interchange against the library diffusers itself: the same network and schedule, both ways."""

import inspect
import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from ddpm_edu import __main__ as cli
from ddpm_edu import interchange, presets, schedules
from ddpm_edu.checkpoint import load_weights, save_weights, shipped
from ddpm_edu.interchange import load_diffusers, save_diffusers
from ddpm_edu.unet import UNet

# The files that google/ddpm-cifar10-32 publishes beside its weights.
CIFAR10 = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
CIFAR10_SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
TINY = {"image_size": 8, "channels": 2, "width": 8, "width_mults": (1, 2), "attention_at": (4,), "dropout": 0.25}
NETWORKS = {
    "tiny": {**TINY, "groups": 4},
    "attention everywhere": {**TINY, "width_mults": (1, 2, 3), "attention_at": (8, 4, 2), "res_blocks": 1, "groups": 2},
    "one level": {**TINY, "width_mults": (1,), "attention_at": (), "res_blocks": 3, "groups": 2},
}


def network(seed: int = 0, **config) -> UNet:
    """With random numbers in every tensor, so that none can be mistaken for another."""
    model = UNet(**config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((1 if p.ndim == 1 else p[0].numel() ** -0.5) * torch.randn(p.shape, generator=generator))
    return model


def same_tensors(a: nn.Module, b: nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def inputs(config: dict, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    size = config["image_size"]
    xt = torch.randn(2, config["channels"], size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return xt, torch.tensor([1, 700])


def same_outputs(ours: UNet, theirs: nn.Module) -> None:
    """In float64; and a time that is off by one is seen, so that the comparison has power."""
    xt, t = inputs(ours.config)
    ours, theirs = ours.double().eval(), theirs.double().eval()
    with torch.no_grad():
        got, want = ours(xt, t), theirs(xt, t - 1).sample
        scale = want.abs().max()
        assert (got - want).abs().max() < 1e-5 * scale
        assert (ours(xt, t + 1) - want).abs().max() > 1e-4 * scale


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of ours, small and right."""
    path = tmp_path_factory.mktemp("good") / "pipeline"
    save_diffusers(path, network(**NETWORKS["tiny"]), schedules.cosine(20))
    return path


# --- out -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_diffusers_opens_our_folder_and_computes_the_same(diffusers, tmp_path, name):
    model, s = network(**NETWORKS[name]), schedules.cosine(30)
    save_diffusers(tmp_path / "made" / "here", model, s)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "made" / "here")
    assert sum(p.numel() for p in pipeline.unet.parameters()) == sum(p.numel() for p in model.parameters())
    same_outputs(model, pipeline.unet)
    assert pipeline.unet.config.dropout == 0.25
    scheduler = pipeline.scheduler
    torch.testing.assert_close(scheduler.betas, s.beta[1:].float(), rtol=0, atol=0)
    assert scheduler.config.prediction_type == "epsilon" and scheduler.config.clip_sample
    assert scheduler.config.num_train_timesteps == 30 and scheduler.config.variance_type == "fixed_large"
    images = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
    assert images.shape == (2, 8, 8, 2) and 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("preset", ["cifar10-laptop", "cifar10-h100", "cifar10-paper"])
def test_the_networks_of_the_cifar10_presets_go_out_and_come_back(diffusers, tmp_path, preset):
    """Names and shapes are those of diffusers' network, and weights, schedule and arguments those that went out."""
    config = presets.preset(preset)
    with torch.device("meta"):
        theirs = diffusers.UNet2DModel(**interchange._config(UNet(**config.network)))
    model = UNet(**config.network)
    ours = {their_name: model.state_dict()[name].shape for name, their_name in interchange.names(model)}
    assert ours == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    save_diffusers(tmp_path, model, config.schedule)
    back, s = load_diffusers(tmp_path)
    assert same_tensors(back, model) and torch.equal(s.beta, config.schedule.beta)
    groups = {"cifar10-laptop": 8, "cifar10-h100": 32, "cifar10-paper": 32}[preset]
    assert back.config == model.config | {"groups": groups}


def test_every_schedule_comes_back_bit_for_bit(tmp_path):
    model = network(**NETWORKS["tiny"])
    for s in (schedules.sigmoid(9), schedules.log_snr_linear(12), schedules.Schedule.from_betas([0.1, 1 / 3])):
        save_diffusers(tmp_path, model, s)
        assert torch.equal(load_diffusers(tmp_path)[1].beta, s.beta)


def test_random_weights_there_and_back_are_equal(tmp_path):
    for name, config in NETWORKS.items():
        model = network(seed=5, **config)
        save_diffusers(tmp_path, model, schedules.linear(4))  # over the one before
        back, _ = load_diffusers(tmp_path)
        assert same_tensors(back, model) and back.config == {"res_blocks": 2} | model.config, name
        assert not back.training and next(back.parameters()).dtype == torch.float32
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": 3, "groups": 4}, r"classes 3, fourier \(\), groups \[4\]$"),
        ({"fourier": (6, 7), "groups": 4}, r"classes None, fourier \(6, 7\), groups \[4\]$"),
        ({}, r"classes None, fourier \(\), groups \[2, 4, 6, 8\]$"),
    ],
)
def test_a_network_that_diffusers_does_not_have_is_refused(tmp_path, changes, said):
    model = UNet(**{**TINY, **changes})
    with pytest.raises(ValueError, match=r"^model: expected a network that diffusers has too: .*; got " + said):
        save_diffusers(tmp_path / "out", model, schedules.linear(4))
    assert not (tmp_path / "out").exists()


# --- in --------------------------------------------------------------------------------------------------------------


def as_diffusers_writes(diffusers, path: Path, config: dict, scheduler: dict, pickled: bool = False) -> nn.Module:
    """A folder written by diffusers, with one level of folders as published ones have, and its network."""
    theirs = diffusers.UNet2DModel(**{name: value for name, value in config.items() if not name.startswith("_")})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_((0.3 if p.ndim == 1 else p[0].numel() ** -0.5) * torch.randn(p.shape, generator=generator))
    theirs.save_pretrained(path, safe_serialization=not pickled)
    made = {name: value for name, value in scheduler.items() if not name.startswith("_")}
    diffusers.DDPMScheduler(**made).save_pretrained(path)
    return theirs.eval()


@pytest.mark.parametrize("pickled", [False, True])
def test_a_folder_of_diffusers_runs_here(diffusers, tmp_path, pickled):
    small = CIFAR10 | {"sample_size": 16, "block_out_channels": [32, 64, 64, 64]}
    theirs = as_diffusers_writes(diffusers, tmp_path, small, CIFAR10_SCHEDULER | {"num_train_timesteps": 40}, pickled)
    assert (tmp_path / "diffusion_pytorch_model.bin").exists() == pickled
    model, s = load_diffusers(tmp_path)
    assert model.config["attention_at"] == (8,) and not model.training
    same_outputs(model, theirs)
    assert s.T == 40 and torch.equal(s.beta, schedules.linear(40).beta)


def test_names_of_2022_are_read_as_diffusers_reads_them(diffusers, tmp_path):
    small = CIFAR10 | {"sample_size": 8, "block_out_channels": [64, 64, 64, 64]}
    as_diffusers_writes(diffusers, tmp_path, small, CIFAR10_SCHEDULER)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = safetensors.torch.load_file(file)
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        tensors = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in tensors.items()}
    assert sum(".proj_attn." in name for name in tensors) == 12  # weights and biases: 2 down, 1 in the middle, 3 up
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    same_outputs(load_diffusers(tmp_path)[0], diffusers.UNet2DModel.from_pretrained(tmp_path))


def test_the_published_cifar10_network_is_ours(tmp_path):
    with torch.device("meta"):
        model, ours = interchange._unet(CIFAR10), UNet()
    assert sum(p.numel() for p in model.parameters()) == 35_746_307
    assert model.config == ours.config | {"groups": 32, "dropout": 0.0}
    assert str(model) == str(ours).replace("Dropout(p=0.1", "Dropout(p=0.0")  # layer by layer, groups and eps included
    assert torch.equal(interchange._schedule(CIFAR10_SCHEDULER).beta, schedules.linear().beta)


@pytest.mark.parametrize(
    ("scheduler", "want"),
    [
        ({}, schedules.linear()),
        ({"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.5, "num_train_timesteps": 7}, None),
        ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, schedules.scaled_linear()),
        ({"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50}, schedules.cosine(50)),
        ({"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3, "beta_schedule": "linear"}, None),
    ],
)
def test_schedules_are_those_of_diffusers(diffusers, scheduler, want):
    s = interchange._schedule(scheduler)
    torch.testing.assert_close(s.beta[1:].float(), diffusers.DDPMScheduler(**scheduler).betas, rtol=1e-4, atol=1e-8)
    assert want is None or torch.equal(s.beta, want.beta)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("UNet2DModel", "UNET_DEFAULTS"), ("DDPMScheduler", "SCHEDULER_DEFAULTS")]
)
def test_what_a_file_does_not_say_is_what_diffusers_takes(diffusers, theirs, ours):
    known = {name: p.default for name, p in inspect.signature(getattr(diffusers, theirs)).parameters.items()}
    assert {name: known[name] for name in getattr(interchange, ours)} == getattr(interchange, ours)


def test_a_field_left_out_is_not_taken_for_the_originals(folder, tmp_path):
    """Without freq_shift diffusers takes 0, and another network results: it must not be read as this one."""
    for name in ("freq_shift", "flip_sin_to_cos", "downsample_padding", "norm_eps", "attention_head_dim"):
        shutil.copytree(folder, tmp_path / name)
        edit(tmp_path / name / "unet" / "config.json", {name: None}, remove=True)
        said = refused(tmp_path / name)
        assert f"unet/config.json: {name}: expected " in said


# --- bad input -------------------------------------------------------------------------------------------------------


def edit(file: Path, change: dict, remove: bool = False) -> None:
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields = {name: value for name, value in fields.items() if name not in change} if remove else fields | change
    file.write_text(json.dumps(fields), encoding="utf-8")


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as error:
        load_diffusers(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"act_fn": "mish"}, "act_fn: expected 'silu', as in the original network, got 'mish'"),
        ({"add_attention": False}, "add_attention: expected True, as in the original network, got False"),
        ({"attention_head_dim": 4}, "attention_head_dim: expected None, as in the original network, got 4"),
        ({"attn_norm_num_groups": 2}, "attn_norm_num_groups: expected None"),
        (
            {"block_out_channels": [8, 12]},
            "block_out_channels: expected [8, 8], as in the original network",
        ),
        ({"block_out_channels": []}, "not what diffusers writes (IndexError"),
        ({"block_out_channels": [8]}, "attention_at: expected resolutions out of [8], got (4,)"),
        ({"center_input_sample": True}, "center_input_sample: expected False"),
        ({"class_embed_type": "timestep"}, "class_embed_type: expected None"),
        ({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}, "down_block_types: expected"),
        ({"downsample_padding": 1}, "downsample_padding: expected 0"),
        ({"downsample_type": "resnet"}, "downsample_type: expected 'conv'"),
        ({"flip_sin_to_cos": True}, "flip_sin_to_cos: expected False"),
        ({"freq_shift": 0}, "freq_shift: expected 1"),
        ({"in_channels": 3}, "out_channels: expected 3, as in the original network, got 2"),
        ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor: expected 1"),
        ({"mid_block_type": None}, "mid_block_type: expected 'UNetMidBlock2D'"),
        ({"norm_eps": 1e-5}, "norm_eps: expected 1e-06"),
        ({"norm_num_groups": 3}, "groups: expected a divisor of 8, or None, got 3"),
        ({"num_class_embeds": 10}, "num_class_embeds: expected None"),
        ({"out_channels": 4}, "out_channels: expected 2, as in the original network, got 4"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift: expected 'default'"),
        ({"sample_size": [8, 8]}, "not what diffusers writes (TypeError"),
        ({"sample_size": 9}, "image_size: expected a positive multiple of 2, got 9"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type: expected 'positional'"),
        ({"time_embedding_dim": 64}, "time_embedding_dim: expected None"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "up_block_types: expected ['AttnUpBlock2D', 'UpBlock2D']"),
        ({"upsample_type": "resnet"}, "upsample_type: expected 'conv'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_another_network_is_refused_by_the_name_of_its_field(folder, tmp_path, change, said):
    shutil.copytree(folder, tmp_path / "f")
    edit(tmp_path / "f" / "unet" / "config.json", change)
    assert said in refused(tmp_path / "f")


@pytest.mark.parametrize("missing", ["sample_size", "in_channels", "block_out_channels", "down_block_types"])
def test_a_field_that_must_be_there_is_asked_for(folder, tmp_path, missing):
    shutil.copytree(folder, tmp_path / "f")
    edit(tmp_path / "f" / "unet" / "config.json", {missing: None}, remove=True)
    assert refused(tmp_path / "f").endswith(f"config.json: expected the field '{missing}', found none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type: expected 'epsilon', got 'v_prediction'"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr: expected False, got True"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas: expected num_train_timesteps = 20 numbers, got 2"),
        ({"trained_betas": [0.1] * 19 + [1.0]}, "betas: expected numbers strictly between 0 and 1, got beta_20 = 1"),
        (
            {"trained_betas": None, "beta_schedule": "sigmoid"},
            "beta_schedule: expected one of linear, scaled_linear, squaredcos_cap_v2, got 'sigmoid'",
        ),
        ({"trained_betas": None, "beta_end": 2.0}, "betas: expected numbers strictly between 0 and 1"),
        ({"trained_betas": None, "num_train_timesteps": 0}, "T: expected a whole number of steps >= 1, got 0"),
        ({"trained_betas": "many"}, "trained_betas: expected num_train_timesteps = 20 numbers, got 4"),
    ],
)
def test_another_schedule_is_refused(folder, tmp_path, change, said):
    shutil.copytree(folder, tmp_path / "f")
    edit(tmp_path / "f" / "scheduler" / "scheduler_config.json", change)
    message = refused(tmp_path / "f")
    assert message.startswith(f"{tmp_path / 'f' / 'scheduler' / 'scheduler_config.json'}: ") and said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "Expecting"), ("[1]", "expected an object in JSON, got list"), ("", "Expecting value"), ("\xff", "utf-8")],
)
@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_file_that_is_no_json_object_is_refused(folder, tmp_path, name, text, said):
    shutil.copytree(folder, tmp_path / "f")
    (tmp_path / "f" / name).write_bytes(text.encode("latin-1"))
    message = refused(tmp_path / "f")
    assert message.startswith(f"{tmp_path / 'f' / name}: ") and said in message


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_missing_file_is_named(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "f")
    (tmp_path / "f" / name).unlink()
    said = f"{tmp_path / 'f' / name}: expected a folder in the layout of diffusers, found no such file"
    assert refused(tmp_path / "f") == said


def test_missing_weights_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "f")
    (tmp_path / "f" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    said = "expected the weights in diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin, found neither"
    assert refused(tmp_path / "f") == f"{tmp_path / 'f' / 'unet'}: {said}"


def test_weights_of_another_network_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "f")
    file = tmp_path / "f" / "unet" / "diffusion_pytorch_model.safetensors"
    whole, tensors = file.read_bytes(), safetensors.torch.load_file(file)
    for change, said in (
        ({"conv_in.bias": None}, "the weights of the network in config.json, but conv_in.bias is missing"),
        ({"extra.weight": torch.ones(1)}, "but extra.weight is not one of them"),
        ({"conv_in.bias": torch.ones(9)}, "size mismatch for stem.bias"),
    ):
        changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        safetensors.torch.save_file(changed, file, {"format": "pt"})
        assert said in refused(tmp_path / "f")
    file.write_bytes(whole[: len(whole) // 2])
    assert refused(tmp_path / "f").startswith(f"{file}: not what diffusers writes (SafetensorError")


class Evil:
    def __init__(self, path) -> None:
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_pickled_file_is_never_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "f")
    (tmp_path / "f" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"conv_in.weight": Evil(tmp_path / "was_here")}, tmp_path / "f/unet/diffusion_pytorch_model.bin")
    assert "diffusion_pytorch_model.bin: not what diffusers writes (UnpicklingError" in refused(tmp_path / "f")
    assert not (tmp_path / "was_here").exists()


# --- the command line ------------------------------------------------------------------------------------------------


def run(capsys, *argv) -> tuple[int, str]:
    status = cli.main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return status, out if status == 0 else err


def test_export_of_a_file_rounds_to_bf16_and_keeps_all_else(capsys, tmp_path):
    status, out = run(capsys, "export", "--weights", "digits", "--out", tmp_path / "new" / "d.safetensors")
    assert status == 0 and f"Wrote {tmp_path / 'new' / 'd.safetensors'}, " in out
    model, s, card = load_weights(shipped("digits"))
    back, again, same_card = load_weights(tmp_path / "new" / "d.safetensors")
    assert same_card == card and torch.equal(again.beta, s.beta) and back.config == model.config
    for name, tensor in back.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float())
    assert (tmp_path / "new" / "d.safetensors").stat().st_size < 0.55 * shipped("digits").stat().st_size


def test_export_of_a_folder_is_what_diffusers_and_we_read(capsys, diffusers, tmp_path):
    model = network(**NETWORKS["tiny"])
    save_weights(tmp_path / "w.safetensors", model, schedules.cosine(20), {"data": "digits"})
    status, out = run(capsys, "export", "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "pipeline")
    assert status == 0 and f"Wrote {tmp_path / 'pipeline'}: " in out
    diffusers.DDPMPipeline.from_pretrained(tmp_path / "pipeline")
    back, s = load_diffusers(tmp_path / "pipeline")
    assert same_tensors(back, model) and torch.equal(s.beta, schedules.cosine(20).beta)
    pictures = []
    for weights in ("w.safetensors", "pipeline"):
        flags = ["--n", 4, "--steps", 3, "--out", tmp_path / "g.png"]
        model = network(channels=1, **{name: value for name, value in NETWORKS["tiny"].items() if name != "channels"})
        save_weights(tmp_path / "w.safetensors", model, schedules.cosine(20), {})
        run(capsys, "export", "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "pipeline")
        assert run(capsys, "sample", "--weights", tmp_path / weights, *flags)[0] == 0
        pictures.append((tmp_path / "g.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_evaluate_takes_such_a_folder(capsys, tmp_path):
    model = network(image_size=8, channels=1, width=8, width_mults=(1, 2), attention_at=(), groups=4)
    save_diffusers(tmp_path / "pipeline", model, schedules.cosine(20))
    flags = ["--data", "digits", "--n", 4, "--json", tmp_path / "e.json"]
    status, out = run(capsys, "evaluate", "--weights", tmp_path / "pipeline", *flags)
    assert status == 0 and "bits/dim" in out
    weights = sum(p.numel() for p in model.parameters())
    card = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["card"]
    assert card == {"source": "pipeline", "parameters": weights}


@pytest.mark.parametrize("name", ["google/ddpm-cifar10-32", "someone/their-model"])
@pytest.mark.parametrize("command", ["sample", "export", "judge"])
def test_a_name_of_the_hub_says_how_to_get_the_folder(capsys, tmp_path, monkeypatch, name, command):
    monkeypatch.chdir(tmp_path)
    flags = [] if command == "judge" else ["--out", "a.png"]
    status, said = run(capsys, command, "--weights", name, *flags)
    assert status == 2 and said.count("\n") == 1
    assert f"{name}: expected a folder in the layout of diffusers, found none" in said
    assert f"pip install huggingface_hub, then hf download {name} --local-dir FOLDER" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--weights", "digits-flow", "--out", "f"], "argument --out: expected the name of a .safetensors file"),
        (["--weights", "digits-conditional", "--out", "f"], "model: expected a network that diffusers has too"),
        (["--weights", "digits", "--out", "f"], "model: expected a network that diffusers has too"),
        (["--weights", "digits", "--no-ema", "--out", "f"], "argument --no-ema: expected a checkpoint.pt"),
        (["--weights", "empty", "--out", "f"], "config.json: expected a folder in the layout of diffusers"),
        (["--weights", "none", "--out", "f"], "none: expected a weights file, found no such file"),
        (["--weights", "none.pt", "--out", "f"], "none.pt: expected a checkpoint, found no such file"),
        (["--weights", "empty.pt", "--out", "f"], "empty.pt: not a whole checkpoint of this package"),
        (
            ["--weights", "digits", "--out", "file/deeper/d.safetensors"],
            "argument --out: expected a folder to write in",
        ),
        (["--weights", "digits", "--out", "dir.safetensors"], "argument --out: expected the name of a file"),
    ],
)
def test_export_refuses_bad_input(capsys, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("dir.safetensors").mkdir()
    Path("empty.pt").touch()
    Path("file").touch()
    status, message = run(capsys, "export", *flags)
    assert status == 2 and message.count("\n") == 1 and said in message
    assert not Path("f").exists()
