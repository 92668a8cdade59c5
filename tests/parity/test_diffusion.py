"""GaussianDiffusion against the same process in PyTorch, around diffusers' U-Net with the same weights: loss, every gradient, samples."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.diffusion import GaussianDiffusion, generate_linear_schedule  # noqa: E402
from hcrot.models.unet_2d import UNet2dModel  # noqa: E402
from support.small_unets import TINY, draw  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_kernel_thread", "one_torch_thread")

BETAS = generate_linear_schedule(6, 0.05, 0.4)
LABELS = np.array([2, 0, 1])


def build_both():
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(**TINY)
    ours = UNet2dModel(**TINY, generator=0)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def assert_close(ours, theirs, tolerance):
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_loss_and_every_gradient(loss):
    ours, theirs = build_both()
    x0, noise, t = draw((3, 1, 6, 4)), draw((3, 1, 6, 4), seed=2), np.array([5, 0, 3])
    diffusion = GaussianDiffusion(ours, BETAS, loss=loss, image_size=(6, 4), num_classes=3)
    value, dout = diffusion.get_losses(x0, t, LABELS, noise)
    ours.backward(dout)

    abar = torch.cumprod(1 - torch.tensor(BETAS), 0)[torch.tensor(t)].float().reshape(-1, 1, 1, 1)
    x = abar.sqrt() * torch.tensor(x0) + (1 - abar).sqrt() * torch.tensor(noise)
    predicted = theirs(x, torch.tensor(t), torch.tensor(LABELS)).sample
    error = {"l1": torch.nn.functional.l1_loss, "l2": torch.nn.functional.mse_loss}[loss](predicted, torch.tensor(noise))
    error.backward()
    assert value == pytest.approx(error.item(), rel=1e-5)
    assert_close(diffusion.perturb_x(x0, t, noise), x.numpy(), 1e-6)
    expected = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    found = dict(ours.named_parameters())
    assert found.keys() == expected.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        # softmax sees no number added to all scores: the gradient of to_k.bias is rounding alone
        scale = largest if name.endswith("to_k.bias") else np.abs(gradient).max()
        assert np.abs(found[name].grad - gradient).max() <= 1e-4 * scale, name


def test_a_whole_chain_with_the_same_noise():
    ours, theirs = build_both()
    diffusion = GaussianDiffusion(ours, BETAS, image_size=(6, 4), num_classes=3, generator=7)
    sequence = diffusion.sample_sequence(3, LABELS)

    rng = np.random.default_rng(7)
    normal = lambda: torch.tensor(rng.standard_normal((3, 1, 6, 4), dtype=np.float32))  # noqa: E731
    betas = torch.tensor(BETAS)
    abar = torch.cumprod(1 - betas, 0)
    x = normal()
    for t in reversed(range(6)):
        with torch.no_grad():
            eps = theirs(x, torch.full((3,), t), torch.tensor(LABELS)).sample
        x = (x - (betas[t] / (1 - abar[t]).sqrt()).float() * eps) / (1 - betas[t]).sqrt().float()
        if t > 0:
            x = x + betas[t].sqrt().float() * normal()
        assert_close(sequence[6 - t], x.numpy(), 1e-5)
