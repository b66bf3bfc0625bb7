"""Tests of ddpm_edu.unet: the original architecture, checked against diffusers' UNet2DModel and against formulas."""

import json
import math
import re
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm_edu.unet import Attention, ResBlock, UNet, fourier_features, time_embedding


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Random values everywhere, zero-initialised layers and norms included, of a size that keeps signals near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            if p.ndim > 1:
                p.copy_(noise / math.sqrt(p[0].numel()))
            else:
                p.add_(0.3 * noise)


def tiny(**changes) -> UNet:
    """A network that runs in milliseconds, all weights random, in eval mode."""
    net = UNet(**{"image_size": 8, "channels": 1, "width": 16, "width_mults": (1, 2), "attention_at": (4,)} | changes)
    randomise(net)
    return net.eval()


def images(net: UNet, batch: int = 2) -> Tensor:
    return torch.randn(batch, *net.image_shape, generator=torch.Generator().manual_seed(1))


# --- the same function as diffusers' network -------------------------------------------------------------------------


def diffusers_unet(diffusers: ModuleType, width: int, dropout: float = 0.0) -> nn.Module:
    """UNet2DModel as google/ddpm-cifar10-32 configures it, at any width."""
    return diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(width, 2 * width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=None,
        norm_eps=1e-6,
        norm_num_groups=32,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        act_fn="silu",
        dropout=dropout,
    )


def our_name(name: str) -> str:
    """The name in our network of diffusers' weight ``name``, for 2 residual blocks to a level.

    A level is 3 layers on the way down (block, block, downsample) and 4 on the way up (3 blocks, upsample).
    """
    level_of = {"down": 3, "up": 4}

    def layer(match: re.Match[str]) -> str:
        way, level, kind, i = match[1], int(match[2]), match[3], int(match[4])
        number = level * level_of[way] + (i if kind != "sampler" else level_of[way] - 1)
        return f"{way}.{number}" + {"resnet": "", "attention": ".attention", "sampler": ".1"}[kind]

    name = re.sub(
        r"^(down|up)_blocks\.(\d)\.(?:down|up)?(resnet|attention|sampler)s\.(\d)(?:\.conv(?=\.))?", layer, name
    )
    for theirs, ours in {
        "mid_block.resnets.0": "middle1",
        "mid_block.resnets.1": "middle2",
        "mid_block.attentions.0": "middle1.attention",
        "conv_in": "stem",
        "conv_norm_out": "norm_out",
        "time_embedding.linear_1": "time_mlp.0",
        "time_embedding.linear_2": "time_mlp.2",
        "time_emb_proj": "emb",
        "conv_shortcut": "shortcut",
        "group_norm": "norm",
        "to_q": "query",
        "to_k": "key",
        "to_v": "value",
        "to_out.0": "out",
    }.items():
        name = name.replace(theirs, ours)
    return name


def pair(diffusers: ModuleType, width: int, dropout: float = 0.0) -> tuple[UNet, nn.Module]:
    """Our network and diffusers' with the same random weights, float64, eval mode."""
    theirs = diffusers_unet(diffusers, width, dropout).double().eval()
    randomise(theirs)
    ours = UNet(width=width, dropout=dropout).double().eval()
    ours.load_state_dict({our_name(name): value for name, value in theirs.state_dict().items()})
    return ours, theirs


def relative_error(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return ((got - want).abs().max() / want.abs().max()).item()


def test_cifar10_network_equals_diffusers(diffusers):
    ours, theirs = pair(diffusers, width=128)
    xt = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([1, 700])
    with torch.no_grad():
        want = theirs(xt, t - 1).sample
        assert relative_error(ours(xt, t), want) < 1e-5
        # The comparison has power: a time that is off by one is seen.
        assert relative_error(ours(xt, t + 1), want) > 1e-3


# Our number of groups at each count of channels in a network of width 32: at most 32, and at least 4 channels to each.
GROUPS = {32: 8, 64: 16, 96: 24, 128: 32}


def with_fixed_masks(net: nn.Module) -> None:
    """Every dropout of ``net`` now multiplies by a mask that depends on shape and probability alone.

    A seed would not do: masks are drawn in memory order, and diffusers' tensors are laid out otherwise than ours.
    """

    def fixed(p: float):
        def forward(h: Tensor) -> Tensor:
            kept = torch.rand(h.shape, generator=torch.Generator().manual_seed(0)) >= p
            return h * kept / (1 - p)

        return forward

    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.forward = fixed(module.p)


def test_narrow_network_equals_diffusers_with_gradients_and_dropout(diffusers):
    ours, theirs = pair(diffusers, width=32, dropout=0.1)
    for module in theirs.modules():  # diffusers has one number of groups for all layers
        if isinstance(module, nn.GroupNorm):
            module.num_groups = GROUPS[module.num_channels]
    xt = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([1, 2, 1000])
    with torch.no_grad():
        evaluated = ours(xt, t)
        assert relative_error(evaluated, theirs(xt, t - 1).sample) < 1e-5

    for network in ours, theirs:
        with_fixed_masks(network)
    got, want = ours(xt, t), theirs(xt, t - 1).sample
    assert relative_error(got.detach(), want.detach()) < 1e-5
    assert relative_error(got.detach(), evaluated) > 0.01

    got.square().sum().backward()
    want.square().sum().backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, p in theirs.named_parameters():
        if not name.endswith("to_k.bias"):  # zero but for rounding, see test_gradient_reaches_every_parameter
            assert relative_error(gradients[our_name(name)], p.grad) < 1e-5, name


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_parameter_count_of_the_papers_cifar10_network():
    with torch.device("meta"):  # counts without allocating
        net = UNet()
    assert sum(p.numel() for p in net.parameters()) == 35_746_307


def test_defaults_are_the_papers_cifar10_network():
    with torch.device("meta"):
        net = UNet()
    assert net.config == {
        "image_size": 32,
        "channels": 3,
        "width": 128,
        "width_mults": (1, 2, 2, 2),
        "res_blocks": 2,
        "attention_at": (16,),
        "dropout": 0.1,
        "classes": None,
        "groups": None,
        "fourier": (),
    }
    norms = [module for module in net.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(32, 1e-6)}


@pytest.mark.parametrize(
    "size",
    [
        {"image_size": 8, "channels": 1, "width": 16, "width_mults": (1, 2), "attention_at": (4,)},
        {"image_size": 8, "channels": 1, "width": 4, "width_mults": (1, 2, 2, 2), "attention_at": (8, 1)},
        {"image_size": 12, "channels": 2, "width": 20, "width_mults": (1, 3, 1), "attention_at": (), "res_blocks": 1},
        {"image_size": 28, "channels": 1, "width": 16, "width_mults": (1, 2, 2), "attention_at": (14, 7)},
        {"image_size": 32, "channels": 3, "width": 16, "res_blocks": 3},
        {"image_size": 64, "channels": 3, "width": 16, "width_mults": (1, 2, 2, 4), "attention_at": (16, 8)},
        {"image_size": 64, "channels": 3, "width": 8, "width_mults": (1,), "attention_at": ()},
    ],
    ids=lambda size: f"{size['image_size']}x{size['image_size']}x{size['channels']}-{size['width']}",
)
def test_sizes_run_and_depend_on_xt_and_t(size):
    net = UNet(**size)
    randomise(net)
    net.eval()
    xt = images(net)
    with torch.no_grad():
        eps_hat = net(xt, torch.tensor([3, 3]))
        assert eps_hat.shape == xt.shape and eps_hat.dtype == torch.float32 and eps_hat.isfinite().all()
        # No width is so narrow that normalisation takes the time out again.
        assert relative_error(net(xt, torch.tensor([300, 300])), eps_hat) > 0.01
        assert relative_error(net(xt.flip(0), torch.tensor([3, 3])), eps_hat) > 0.01


def test_narrow_networks_have_four_channels_to_a_group():
    net = UNet(image_size=8, channels=1, width=20, width_mults=(1, 2, 4), attention_at=(4,))
    groups = {norm.num_channels: norm.num_groups for norm in net.modules() if isinstance(norm, nn.GroupNorm)}
    assert groups == {20: 5, 40: 10, 60: 15, 80: 20, 120: 30, 160: 32}


def test_one_number_of_groups_can_be_asked_for_in_all_norms(diffusers):
    """As diffusers has it: the same function, where the rule for narrow networks would give another."""
    ours, theirs = pair(diffusers, width=32)
    ours = UNet(width=32, groups=16).double().eval()
    ours.load_state_dict({our_name(name): value for name, value in theirs.state_dict().items()})
    for module in theirs.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 16
    assert {norm.num_groups for norm in ours.modules() if isinstance(norm, nn.GroupNorm)} == {16}
    xt = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([1, 700])
    with torch.no_grad():
        want = theirs(xt, t - 1).sample
        assert relative_error(ours(xt, t), want) < 1e-5
        narrow = UNet(width=32).double().eval()
        narrow.load_state_dict(ours.state_dict())
        assert relative_error(narrow(xt, t), want) > 1e-3


def test_attention_sits_where_it_is_asked_for_and_in_the_middle():
    def places(**changes) -> set[str]:
        net = tiny(image_size=16, width_mults=(1, 2, 2), res_blocks=1, **changes)
        return {name for name, module in net.named_modules() if isinstance(module, Attention)}

    # down: block, downsample, block, downsample, block; up: 2 blocks, upsample, 2 blocks, upsample, 2 blocks
    assert places(attention_at=()) == {"middle1.attention"}
    at_8 = {"down.2.attention", "up.3.attention", "up.4.attention"}
    assert places(attention_at=(8,)) == {"middle1.attention"} | at_8
    ends = {"down.0.attention", "down.4.attention", *(f"up.{i}.attention" for i in (0, 1, 6, 7))}
    assert places(attention_at=[16, 4]) == {"middle1.attention"} | ends


def test_each_image_is_treated_alone():
    net = tiny()
    xt, t = images(net, batch=3), torch.tensor([1, 20, 300])
    with torch.no_grad():
        alone = torch.cat([net(xt[i : i + 1], t[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(net(xt, t), alone, rtol=1e-4, atol=1e-5)


def test_config_rebuilds_the_network_also_through_json():
    arguments = {
        "image_size": 16,
        "channels": 2,
        "width": 12,
        "width_mults": (1, 2),
        "res_blocks": 1,
        "attention_at": (8, 16),
        "dropout": 0.25,
        "classes": 7,
        "groups": 3,
        "fourier": (6, 0),
    }
    net = UNet(**arguments)
    assert net.config == arguments
    again = UNet(**json.loads(json.dumps(net.config)))
    assert again.config == net.config
    again.load_state_dict(net.state_dict())
    assert {module.p for module in again.modules() if isinstance(module, nn.Dropout)} == {0.25}


# --- initialisation --------------------------------------------------------------------------------------------------


def test_output_is_zero_at_initialisation():
    net = UNet(image_size=8, channels=1, width=16, width_mults=(1, 2), attention_at=(4,))
    assert torch.equal(net(images(net), torch.tensor([1, 9])), torch.zeros(2, 1, 8, 8))


def test_blocks_start_as_identity_or_shortcut():
    h, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    same = ResBlock(8, 8, 16, dropout=0.0, attention=True)
    torch.testing.assert_close(same(h, emb), h, rtol=0, atol=0)
    wider = ResBlock(8, 12, 16, dropout=0.0, attention=True)
    torch.testing.assert_close(wider(h, emb), nn.functional.conv2d(h, wider.shortcut.weight), rtol=1e-5, atol=1e-6)
    assert wider.shortcut.weight.shape == (12, 8, 1, 1) and wider.shortcut.weight.abs().max() > 0.1


def test_initial_weights_are_glorot_uniform_or_zero():
    net = UNet(image_size=16, channels=3, width=64, width_mults=(1, 2), attention_at=(8,))
    zero, seen = set(), 0
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert not module.bias.any(), name
            if not module.weight.any():
                zero.add(name)
            elif module.weight.numel() > 4000:
                c_out, c_in, *kernel = module.weight.shape
                bound = math.sqrt(6 / ((c_in + c_out) * math.prod(kernel)))
                assert 0.99 * bound < module.weight.abs().max() <= bound, name
                assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
                seen += 1
    blocks = [name for name, module in net.named_modules() if isinstance(module, ResBlock)]
    attentions = [name for name, module in net.named_modules() if isinstance(module, Attention)]
    assert zero == {"conv_out"} | {f"{b}.conv2" for b in blocks} | {f"{a}.out" for a in attentions}
    assert seen > 40


# --- time, classes, dropout, gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [4, 6, 128])
def test_time_embedding_against_numpy(dim):
    t = torch.tensor([1, 2, 17, 500, 1000])
    i = np.arange(dim // 2)
    angle = (t.numpy()[:, None] - 1) / 10000.0 ** (i / (dim // 2 - 1))  # the network's own time counts from 0
    want = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    got = time_embedding(t, dim)
    assert got.dtype == torch.float32 and got.shape == (5, dim)
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-4)


def test_time_embedding_by_hand():
    # At t = 1 every angle is 0. At t = 2 and dim = 4 the angles are 1 and 1/10000.
    want = [[0, 0, 1, 1], [math.sin(1), math.sin(1e-4), math.cos(1), math.cos(1e-4)]]
    torch.testing.assert_close(time_embedding(torch.tensor([1, 2]), 4), torch.tensor(want), rtol=0, atol=1e-6)


def test_fourier_features_by_hand():
    """Two channels, the numbers 0 and 2: x itself, then sines and cosines of pi x, then those of 4 pi x."""
    x = torch.tensor([[0.5, -0.25], [0.125, 1.0]], dtype=torch.float64)[None, :, None]  # (1, 2, 1, 2)
    root = math.sqrt(0.5)
    want = [
        [0.5, -0.25],
        [0.125, 1],
        [1, -root],  # sin(pi / 2), sin(-pi / 4)
        [math.sin(math.pi / 8), 0],
        [0, root],
        [math.cos(math.pi / 8), -1],
        [0, 0],  # sin(2 pi), sin(-pi)
        [1, 0],
        [1, -1],
        [0, 1],
    ]
    got = fourier_features(x, (0, 2))
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64)[None, :, None], rtol=0, atol=1e-12)
    assert torch.equal(fourier_features(x, ()), x)


def test_a_network_sees_the_fourier_features_beside_the_image():
    """The stem is given as many channels more, and what it is given are these channels in this order."""
    net = tiny(fourier=(1, 3))
    assert net.stem.weight.shape == (16, 5, 3, 3)
    xt, t = images(net), torch.tensor([3, 300])
    seen = []
    net.stem.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad():
        out = net(xt, t)
        want = np.concatenate(
            [xt, *(f(2**n * np.pi * xt.double().numpy()) for n in (1, 3) for f in (np.sin, np.cos))], 1
        )
        np.testing.assert_allclose(seen[0].numpy(), want, atol=1e-4)
        # Grey values one of 255 steps apart look nearly the same without, and very different with n = 6 or 7.
        one = fourier_features(torch.full((1, 1, 1, 1), 2 / 255), (6, 7)).flatten()
        zero = fourier_features(torch.zeros(1, 1, 1, 1), (6, 7)).flatten()
        assert (one - zero).abs().tolist() == pytest.approx([2 / 255, 1, 1, 0, 2], abs=0.02)
    assert out.shape == xt.shape


def test_without_fourier_features_and_groups_nothing_changed():
    """Weights of before these arguments existed fit, and the same seed gives the same network."""
    torch.manual_seed(0)
    plain = UNet(image_size=8, channels=1, width=16, width_mults=(1, 2), attention_at=(4,))
    torch.manual_seed(0)
    said = UNet(image_size=8, channels=1, width=16, width_mults=(1, 2), attention_at=(4,), fourier=(), groups=None)
    assert all(map(torch.equal, plain.state_dict().values(), said.state_dict().values()))
    assert plain.stem.weight.shape == (16, 1, 3, 3)
    old = {name: value for name, value in plain.config.items() if name not in ("fourier", "groups")}
    assert UNet(**old).config == plain.config


def test_class_embedding_is_added_to_the_time_embedding():
    net = tiny(classes=3)
    xt, t = images(net), torch.tensor([5, 5])
    weights = net.state_dict()
    rows = weights.pop("class_emb.weight")
    plain = tiny()
    with torch.no_grad():
        outs = [net(xt, t, torch.tensor([y, y])) for y in range(3)]
        for y, out in enumerate(outs):
            plain.load_state_dict(weights | {"time_mlp.2.bias": weights["time_mlp.2.bias"] + rows[y]})
            torch.testing.assert_close(out, plain(xt, t), rtol=1e-4, atol=1e-5)
        assert relative_error(outs[0], outs[1]) > 0.01 and relative_error(outs[1], outs[2]) > 0.01
        mixed = net(xt, t, torch.tensor([2, 0]))
        torch.testing.assert_close(mixed, torch.stack([outs[2][0], outs[0][1]]), rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_train_mode_only():
    net = tiny(dropout=0.5)
    xt, t = images(net), torch.tensor([5, 50])
    with torch.no_grad():
        net.eval()
        torch.testing.assert_close(net(xt, t), net(xt, t), rtol=0, atol=0)
        evaluated = net(xt, t)
        torch.manual_seed(0)
        net.train()
        first, second = net(xt, t), net(xt, t)
        assert relative_error(first, second) > 0.01 and relative_error(first, evaluated) > 0.01
        without = tiny(dropout=0.0)
        torch.testing.assert_close(without.train()(xt, t), evaluated, rtol=0, atol=0)


def test_gradient_reaches_every_parameter():
    net = tiny(classes=2).double().train()
    xt = images(net).double()
    net(xt, torch.tensor([5, 50]), torch.tensor([0, 1])).square().sum().backward()
    for name, p in net.named_parameters():
        if name.endswith("key.bias"):
            # A bias of the keys adds the same to all scores of a query, and softmax takes it out again.
            assert p.grad.abs().max() < 1e-9, name
        else:
            assert p.grad.abs().max() > 1e-6, name


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, r"image_size: expected a positive multiple of 8, got 30$"),
        ({"image_size": 0}, r"image_size: expected a positive multiple of 8, got 0$"),
        ({"channels": 0}, r"channels: expected at least 1, got 0$"),
        ({"width": 33}, r"width: expected an even number >= 4, got 33$"),
        ({"width": 2}, r"width: expected an even number >= 4, got 2$"),
        ({"width_mults": ()}, r"width_mults: expected a number >= 1 for each level, got \(\)$"),
        ({"width_mults": (1, 0, 2, 2)}, r"width_mults: expected a number >= 1 for each level, got \(1, 0, 2, 2\)$"),
        ({"res_blocks": 0}, r"res_blocks: expected at least 1, got 0$"),
        ({"attention_at": (16, 7)}, r"attention_at: expected resolutions out of \[32, 16, 8, 4\], got \(16, 7\)$"),
        ({"dropout": 1.0}, r"dropout: expected a probability in \[0, 1\), got 1.0$"),
        ({"dropout": -0.1}, r"dropout: expected a probability in \[0, 1\), got -0.1$"),
        ({"classes": 0}, r"classes: expected at least 1, or None, got 0$"),
        ({"groups": 0}, r"groups: expected a divisor of 128, or None, got 0$"),
        ({"groups": -2}, r"groups: expected a divisor of 128, or None, got -2$"),
        ({"groups": 24}, r"groups: expected a divisor of 128, or None, got 24$"),
        ({"groups": 256}, r"groups: expected a divisor of 128, or None, got 256$"),
        ({"fourier": (6, -1)}, r"fourier: expected whole numbers from 0 to 15, got \(6, -1\)$"),
        ({"fourier": (16,)}, r"fourier: expected whole numbers from 0 to 15, got \(16,\)$"),
        ({"fourier": (1.5,)}, r"fourier: expected whole numbers from 0 to 15, got \(1.5,\)$"),
        ({"fourier": 6}, r"fourier: expected a sequence of numbers, got 6$"),
        ({"attention_at": 16}, r"attention_at: expected a sequence of numbers, got 16$"),
        ({"width_mults": 2}, r"width_mults: expected a sequence of numbers, got 2$"),
        ({"fourier": (True,)}, r"fourier: expected whole numbers from 0 to 15, got \(True,\)$"),
    ],
)
def test_bad_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match="^" + message):
        UNet(**changes)


XT, T = torch.zeros(2, 1, 8, 8), torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("xt", "t", "message"),
    [
        (
            XT[:, :, :4],
            T,
            r"xt: expected torch.float32 of shape \(B, 1, 8, 8\), got torch.float32 of shape \(2, 1, 4, 8\)",
        ),
        (torch.zeros(2, 3, 8, 8), T, r"xt: expected .* \(B, 1, 8, 8\), got .* \(2, 3, 8, 8\)$"),
        (XT[0], T, r"xt: expected .* \(B, 1, 8, 8\), got .* \(1, 8, 8\)$"),
        (XT.double(), T, r"xt: expected torch.float32 .*, got torch.float64 "),
        (XT.numpy(), T, r"xt: expected .*, got ndarray$"),
        (XT, T[:1], r"t: expected one time per image, 2, got 1$"),
        (XT, T[None], r"t: expected an int64 tensor of shape \(B,\), got torch.int64 of shape \(1, 2\)$"),
        (XT, T.float(), r"t: expected an int64 tensor of shape \(B,\), got torch.float32 of shape \(2,\)$"),
        (XT, T.int(), r"t: expected an int64 tensor of shape \(B,\), got torch.int32 "),
        (XT, 5, r"t: expected an int64 tensor of shape \(B,\), got int$"),
    ],
)
def test_bad_xt_and_t_are_named(xt, t, message):
    with pytest.raises(ValueError, match="^" + message):
        tiny()(xt, t)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, r"y: expected int64 labels of shape \(2,\), got NoneType$"),
        (torch.tensor([0]), r"y: expected int64 labels of shape \(2,\), got torch.int64 of shape \(1,\)$"),
        (torch.tensor([0.0, 1.0]), r"y: expected int64 labels of shape \(2,\), got torch.float32 of shape \(2,\)$"),
        (torch.tensor([0, 3]), r"y: expected labels 0..2, got 0..3$"),
        (torch.tensor([-1, 2]), r"y: expected labels 0..2, got -1..2$"),
    ],
)
def test_bad_labels_are_named(y, message):
    with pytest.raises(ValueError, match="^" + message):
        tiny(classes=3)(XT, T, y)


def test_labels_need_a_network_with_classes():
    with pytest.raises(ValueError, match=r"^y: expected None, since the network was built without classes, got torch"):
        tiny()(XT, T, torch.tensor([0, 1]))


@pytest.mark.parametrize("dim", [2, 7, 0])
def test_bad_dim_of_the_time_embedding_is_named(dim):
    with pytest.raises(ValueError, match=rf"^dim: expected an even number >= 4, got {dim}$"):
        time_embedding(T, dim)
