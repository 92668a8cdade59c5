"""SR3UNet against PyTorch with the same weights: diffusers' U-Net behind sinusoids of the level that are written out here."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.models.sr3 import SR3Diffusion, SR3UNet, make_beta_schedule  # noqa: E402
from support.small_unets import draw  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_kernel_thread", "one_torch_thread")


class LevelEncoding(torch.nn.Module):
    """[sin(a 10^(-4 i/h)), cos(a 10^(-4 i/h))], i = 0 .. h-1: the encoding of a noise level in the lecture's code."""

    def __init__(self, width):
        super().__init__()
        self.half = width // 2

    def forward(self, level):
        angles = level[:, None] * 10.0 ** (-4 * torch.arange(self.half) / self.half)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


@pytest.mark.parametrize(("channels", "scale"), [(1, 1.0), (2, 300.0)])
def test_loss_and_every_gradient(channels, scale):
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(
        in_channels=2 * channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=None,
    )
    theirs.time_proj = LevelEncoding(8)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    ours = SR3UNet(channels, (8, 16), (1,), 1, dropout=0.0, norm_num_groups=4, noise_level_scale=scale, generator=0)
    ours.load_state_dict({f"unet.{name}": value.numpy() for name, value in theirs.state_dict().items()})

    x0, condition, noise = (draw((3, channels, 6, 4), seed=seed) for seed in (1, 2, 3))
    levels = np.array([0.99, 0.05, 0.5])
    sr3 = SR3Diffusion(ours, make_beta_schedule("linear", 10))
    value, dout = sr3.loss(x0, condition, noise, levels)
    dx, dcondition = ours.backward(dout)

    a = torch.tensor(levels, dtype=torch.float32)
    x = a[:, None, None, None] * torch.tensor(x0) + (1 - a**2).sqrt()[:, None, None, None] * torch.tensor(noise)
    x.requires_grad_()
    y = torch.tensor(condition, requires_grad=True)
    predicted = theirs(torch.cat([y, x], dim=1), scale * a).sample
    loss = torch.nn.functional.l1_loss(predicted, torch.tensor(noise), reduction="sum") / predicted.numel()
    loss.backward()

    assert value == pytest.approx(loss.item(), rel=1e-5)
    with ours.inference():
        found = ours(x.detach().numpy(), condition, levels)
    assert np.abs(found - predicted.detach().numpy()).max() <= 1e-5 * predicted.abs().max().item()
    expected = {f"unet.{name}": parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert found.keys() == expected.keys()
    expected |= {"x": x.grad.numpy(), "condition": y.grad.numpy()}
    found |= {"x": dx, "condition": dcondition}
    for name, gradient in expected.items():
        # softmax sees no number added to a whole row of scores: what to_k.bias gets is rounding alone
        scale_of = expected[name.replace("bias", "weight")] if name.endswith("to_k.bias") else gradient
        assert np.abs(found[name] - gradient).max() <= 1e-4 * np.abs(scale_of).max(), name
