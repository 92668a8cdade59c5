"""hcrot.pipelines against diffusers' pipelines, which are handed the same noise."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot import pipelines  # noqa: E402
from hcrot.models.unet_2d import UNet2dModel  # noqa: E402
from hcrot.schedulers import DDIMScheduler, DDPMScheduler  # noqa: E402
from support.small_unets import SMALL  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread", "one_kernel_thread")

ARGUMENTS = SMALL | {"sample_size": (8, 12), "in_channels": 2, "out_channels": 2}
SCHEDULE = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}


@pytest.fixture
def models():
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(**ARGUMENTS)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    ours = UNet2dModel(**ARGUMENTS)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


@pytest.fixture
def same_noise(monkeypatch):
    """Have diffusers draw from numpy.random.Generators, one or a list of them, where it says randn_tensor."""

    def draw(shape, generator=None, **options):
        if isinstance(generator, list):
            return torch.from_numpy(np.stack([one.standard_normal(shape[1:], dtype=np.float32) for one in generator]))
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))

    for kind in ("ddpm", "ddim"):
        monkeypatch.setattr(f"diffusers.pipelines.{kind}.pipeline_{kind}.randn_tensor", draw)
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{kind}.randn_tensor", draw)


def generators(listed):
    return [np.random.default_rng(seed) for seed in (3, 1, 4)] if listed else np.random.default_rng(3)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"variance_type": "fixed_large", "timestep_spacing": "trailing"}, {"prediction_type": "v_prediction", "clip_sample": False}],
)
def test_ddpm(models, same_noise, options, listed):
    ours, theirs = models
    pipeline = diffusers.DDPMPipeline(theirs, diffusers.DDPMScheduler(**SCHEDULE | options))
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(batch_size=3, generator=generators(listed), num_inference_steps=20, output_type="pt").images.numpy()
    images = pipelines.ddpm(
        ours, DDPMScheduler(**SCHEDULE | options), batch_size=3, generator=generators(listed), num_inference_steps=20, progress=False
    )
    assert images.std() > 0.2
    np.testing.assert_allclose(images / 2 + 0.5, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize(
    ("options", "eta", "clipped"),
    [
        ({}, 0.0, None),
        ({"timestep_spacing": "trailing"}, 1.0, True),
        ({"prediction_type": "v_prediction", "clip_sample": False}, 0.4, None),
    ],
)
def test_ddim(models, same_noise, options, eta, clipped, listed):
    """Both are handed the scheduler that the model was trained with, a DDPM, and make a DDIM of it."""
    ours, theirs = models
    pipeline = diffusers.DDIMPipeline(theirs, diffusers.DDPMScheduler(**SCHEDULE | options))
    pipeline.set_progress_bar_config(disable=True)
    more = {"eta": eta, "num_inference_steps": 20, "batch_size": 3}
    expected = pipeline(**more, use_clipped_model_output=clipped, generator=generators(listed), output_type="pt").images.numpy()
    more |= {} if clipped is None else {"use_clipped_model_output": clipped}
    images = pipelines.ddim(ours, DDPMScheduler(**SCHEDULE | options), **more, generator=generators(listed), progress=False)
    assert images.std() > 0.2
    np.testing.assert_allclose(images / 2 + 0.5, expected, rtol=0, atol=1e-4)


def test_ddim_of_a_saved_pipeline(models, same_noise, tmp_path):
    ours, theirs = models
    pipelines.save(tmp_path / "p", ours, DDIMScheduler(**SCHEDULE))
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "p")
    assert isinstance(pipeline.scheduler, diffusers.DDIMScheduler)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(batch_size=2, generator=generators(False), num_inference_steps=10, output_type="pt").images.numpy()
    images = pipelines.ddim(*pipelines.load(tmp_path / "p"), batch_size=2, generator=generators(False), num_inference_steps=10)
    np.testing.assert_allclose(images / 2 + 0.5, expected, rtol=0, atol=1e-4)
