"""UNet2dModel against diffusers' UNet2DModel: keys, forward, the input's gradient and every parameter's."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.kernels import jit  # noqa: E402
from hcrot.models.unet_2d import UNet2dModel  # noqa: E402

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


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are tiny: on a busy machine threads would only wait for each other."""
    before = jit.get_num_threads(), torch.get_num_threads()
    jit.set_num_threads(1)
    torch.set_num_threads(1)
    yield
    jit.set_num_threads(before[0])
    torch.set_num_threads(before[1])


def build_both(config, dtype):
    torch.manual_seed(0)
    config = {**PLAIN, **config}
    theirs = diffusers.UNet2DModel(**config).to(getattr(torch, np.dtype(dtype).name))
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms' weights away from 1, biases from 0 (B05)
            parameter += 0.1 * torch.randn_like(parameter)
    ours = UNet2dModel(**config, generator=np.random.default_rng(0)).astype(dtype)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def worst(ours, theirs, scale_of=None):
    """The largest difference, relative to the largest entry."""
    return np.abs(ours - theirs).max() / np.abs(theirs if scale_of is None else scale_of).max()


def sibling_of_a_vanishing(key, model):
    """Where a gradient is zero but for rounding, the parameter beside it whose gradient gives the scale; else None.

    Softmax does not see a number added to a whole row of scores, so none of to_k's bias. A norm with one channel to a group does not see a
    number added to a whole channel, so neither the bias of the convolution before it nor the time.
    """
    block, _, name = key.rpartition("resnets.")
    if key.endswith("to_k.bias"):
        return key.replace("bias", "weight")
    if not name:
        return None
    modules = dict(model.named_modules())
    resnet = f"{block}resnets.{name.split('.')[0]}"
    last = f"up_blocks.{len(model.up_blocks) - 1}.resnets.{len(model.up_blocks[-1].resnets) - 1}"
    for norm, shifts, sibling in (
        (f"{resnet}.norm2", ("conv1.bias", "time_emb_proj.weight", "time_emb_proj.bias"), "conv1.weight"),
        ("conv_norm_out", ("conv2.bias", "conv_shortcut.bias") if resnet == last else (), "conv2.weight"),
    ):
        if key.removeprefix(f"{resnet}.") in shifts and modules[norm].num_groups == modules[norm].num_channels:
            return f"{resnet}.{sibling}"
    return None


@pytest.mark.parametrize(("dtype", "forward_bound", "gradient_bound"), [(np.float32, 1e-5, 1e-4), (np.float64, 2e-6, 1e-5)])
@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_every_gradient(name, dtype, forward_bound, gradient_bound):
    """In float64 the bound is set by diffusers' sinusoids, which it computes in float32."""
    ours, theirs = build_both(CONFIGS[name], dtype)
    rng = np.random.default_rng(1)
    config = {**PLAIN, **CONFIGS[name]}
    sample = rng.standard_normal((5, config["in_channels"], 8, 12)).astype(dtype)
    timesteps = np.array([0, 1, 250, 999, 250])
    labels = np.array([3, 3, 0, 9, 3]) if config["num_class_embeds"] else None

    torch_sample = torch.from_numpy(sample).requires_grad_()
    torch_labels = None if labels is None else torch.from_numpy(labels)
    expected = theirs(torch_sample, torch.from_numpy(timesteps), torch_labels).sample
    output = ours(sample, timesteps, labels)
    assert output.dtype == dtype
    assert worst(output, expected.detach().numpy()) < forward_bound

    cotangent = rng.standard_normal(output.shape).astype(dtype)
    expected.backward(torch.from_numpy(cotangent))
    dsample = ours.backward(cotangent)
    errors = {"sample": worst(dsample, torch_sample.grad.numpy())}
    gradients = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    for key, parameter in ours.named_parameters():
        errors[key] = worst(parameter.grad, gradients[key], scale_of=gradients[sibling_of_a_vanishing(key, ours) or key])
    assert {key: error for key, error in errors.items() if not error < gradient_bound} == {}


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_shapes_and_order(name):
    ours, theirs = build_both(CONFIGS[name], np.float32)
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, tuple(value.shape)) for key, value in theirs.state_dict().items()
    ]


def test_config_is_theirs():
    ours, theirs = build_both(TWO, np.float32)
    assert ours.config == {key: list(value) if isinstance(value, tuple) else value for key, value in theirs.config.items() if key[0] != "_"}
