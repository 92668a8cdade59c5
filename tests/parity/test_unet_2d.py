"""UNet2dModel against diffusers' UNet2DModel: keys, forward, the input's gradient and every parameter's, for chosen configurations, for
sixty drawn over all arguments, and for those of published checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.layers.activation import ReLU  # noqa: E402
from hcrot.models.unet_2d import UNet2dModel  # noqa: E402
from support.unet_parity import compare, with_the_weights_of, worst  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_kernel_thread", "one_torch_thread")

PLAIN = {"in_channels": 1, "out_channels": 1, "norm_num_groups": 4, "num_class_embeds": 10}
TWO = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
THREE = {
    "block_out_channels": (32, 64, 32),
    "down_block_types": ("DownBlock2D",) * 3,
    "up_block_types": ("UpBlock2D",) * 3,
    "norm_num_groups": 32,
}
CONFIGS = {
    "test-net": TWO,
    "seed-net": THREE,
    "no-class": {**TWO, "num_class_embeds": None},
    "head-dim-none": {**TWO, "attention_head_dim": None},
    "head-dim-6": {**TWO, "attention_head_dim": 6, "attn_norm_num_groups": 8},
    "ddpm-style": {**TWO, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6},
    "no-mid-attention": {**TWO, "add_attention": False, "layers_per_block": 1},
    "no-mid-block": {**TWO, "mid_block_type": None, "center_input_sample": True},
    "wide": {**TWO, "block_out_channels": (16, 8), "in_channels": 3, "out_channels": 2, "time_embedding_dim": 20},
}


def build_both(config, dtype):
    torch.manual_seed(0)
    config = {**PLAIN, **config}
    theirs = diffusers.UNet2DModel(**config).to(getattr(torch, np.dtype(dtype).name))
    return with_the_weights_of(theirs, UNet2dModel(**config, generator=np.random.default_rng(0)).astype(dtype)), theirs


@pytest.mark.parametrize(("dtype", "forward_bound", "gradient_bound"), [(np.float32, 1e-5, 1e-4), (np.float64, 2e-6, 1e-5)])
@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_every_gradient(name, dtype, forward_bound, gradient_bound):
    """In float64 the bound is set by the sinusoids, which both compute in float32."""
    ours, theirs = build_both(CONFIGS[name], dtype)
    config = {**PLAIN, **CONFIGS[name]}
    sample = np.random.default_rng(1).standard_normal((5, config["in_channels"], 8, 12)).astype(dtype)
    labels = np.array([3, 3, 0, 9, 3]) if config["num_class_embeds"] else None
    timesteps = np.array([0, 1, 250, 999, 250])
    compare(ours, theirs, ours(sample, timesteps, labels), (sample, timesteps, labels), forward_bound, gradient_bound)


# sixty configurations drawn over all arguments ----------------------------------------------------------------

DRAWN = {
    "center_input_sample": (False, True),
    "time_embedding_type": ("positional", "fourier", "learned"),
    "freq_shift": (0, 0.5, 1),
    "flip_sin_to_cos": (False, True),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D", "UNetMidBlock2D", None),
    "layers_per_block": (1, 2),
    "mid_block_scale_factor": (1, 2**0.5, 0.7),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "dropout": (0.0, 0.3),
    "act_fn": ("silu", "swish", "mish", "gelu", "relu", "SiLU"),
    "norm_eps": (1e-5, 1e-6, 1e-2),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True, False),
    "class_embed_type": (None, None, "timestep", "identity"),
}
DOWN = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "UNetResDownBlock2D", "UNetResAttnDownBlock2D")
UP = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "UNetResUpBlock2D", "UNetResAttnUpBlock2D")
SEEDS = range(60)


def draw_config(seed):
    """A configuration and an image size that diffusers can halve often enough. Groups have two channels at least, and attention two
    pixels, since otherwise gradients vanish."""
    rng = np.random.default_rng(seed)

    def choose(*values):
        return values[rng.integers(len(values))]

    config = {name: choose(*values) for name, values in DRAWN.items()}
    levels, groups = choose(1, 2, 2, 3), choose(1, 2, 4)
    widths = [groups * int(rng.integers(4 if groups == 1 else 2, 24 // groups)) for _ in range(levels)]
    config |= {
        "block_out_channels": widths,
        "norm_num_groups": groups,
        "down_block_types": [choose(*DOWN) for _ in widths],
        "up_block_types": [choose(*UP) for _ in widths],
        "in_channels": choose(1, 2, 3),
        "out_channels": choose(1, 2, 3),
        "attention_head_dim": choose(None, int(rng.integers(1, min(widths) + 1))),
        "attn_norm_num_groups": choose(None, *(d for d in range(1, widths[-1]) if widths[-1] % d == 0)),
        "time_embedding_dim": choose(None, 20, 33),
        "num_class_embeds": choose(None, 10),
        "num_train_timesteps": 1000 if config["time_embedding_type"] == "learned" else choose(None, 100),
        "sample_size": choose(None, 8, (8, 12)),
    }
    size = tuple(int(side) * 2 ** (levels - 1) for side in rng.integers(2, 5, size=2))
    return config, size


def test_the_draws_cover_every_choice():
    configs = [draw_config(seed)[0] for seed in SEEDS]
    for name, values in DRAWN.items():
        assert {config[name] for config in configs} == set(values), name
    for name, values in (("down_block_types", DOWN), ("up_block_types", UP)):
        assert {kind for config in configs for kind in config[name][:-1]} == set(values), name
    assert any(config["attention_head_dim"] and config["block_out_channels"][-1] % config["attention_head_dim"] for config in configs)


def draw_labels(rng, config, batch, temb_channels):
    kind = config["class_embed_type"]
    if kind == "identity":
        return rng.standard_normal((batch, temb_channels)).astype(np.float32)
    if kind == "timestep":
        return exact_times(rng, batch)
    return rng.integers(0, 10, batch) if config["num_class_embeds"] else None


def exact_times(rng, batch):
    """Times from 1 to 999 whose logarithm PyTorch rounds correctly, as we do. It is an ulp off at 13 of them, which random frequencies
    of 16 * 2 pi turn into 1e-4."""
    times = np.arange(1, 1000)
    good = np.log(times).astype(np.float32) == torch.log(torch.from_numpy(times)).numpy()
    return rng.choice(times[good], batch)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_configurations(seed, monkeypatch):
    config, size = draw_config(seed)
    ours, theirs = build_both(config, np.float32)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    relu, smallest = ReLU.forward, []

    def watched(layer, x):
        smallest.append(np.abs(x).min())
        return relu(layer, x)

    monkeypatch.setattr(ReLU, "forward", watched)
    # at a kink there is no gradient to compare: a ReLU's input within rounding errors of zero may fall on either side
    for attempt in range(20):
        rng, smallest[:] = np.random.default_rng((seed, attempt)), [np.inf]
        sample = rng.standard_normal((3, config["in_channels"], *size)).astype(np.float32)
        timesteps = exact_times(rng, 3)
        labels = draw_labels(rng, config, 3, ours.time_embedding.linear_2.weight.shape[0])
        output = ours(sample, timesteps, labels)
        if min(smallest) > 3e-6:
            break
        ours.forget()
    compare(ours, theirs, output, (sample, timesteps, labels), 1e-5, 1e-4)


# published checkpoints ----------------------------------------------------------------------------------------


def published(name):
    """config.json, from huggingface.co: ddpm-cifar10-32 is google's of that name, ddpm-256 that of google/ddpm-celebahq-256,
    google/ddpm-church-256 and google/ddpm-cat-256, which are alike."""
    return json.loads((Path(__file__).parent / "published" / f"{name}.json").read_text())


@pytest.mark.parametrize(("name", "count"), [("ddpm-cifar10-32", 35_746_307), ("ddpm-256", 113_673_219)])
def test_published_configurations(name, count):
    ours = UNet2dModel.from_config(published(name), generator=np.random.default_rng(0))
    with torch.device("meta"):
        theirs = diffusers.UNet2DModel.from_config(published(name))
    assert ours.num_parameters() == theirs.num_parameters() == count
    assert {key: parameter.shape for key, parameter in ours.named_parameters()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }


def test_the_published_cifar10_network_computes_the_same():
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel.from_config(published("ddpm-cifar10-32")).eval()
    ours = UNet2dModel.from_config(published("ddpm-cifar10-32"))
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    sample = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    with torch.no_grad(), ours.inference():
        assert worst(ours(sample, 500), theirs(torch.from_numpy(sample), 500).sample.numpy()) < 1e-5
