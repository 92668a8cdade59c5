"""Checkpoints against diffusers: each opens what the other wrote, and computes the same."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from hcrot.files.checkpoint import save_checkpoint  # noqa: E402
from hcrot.models.unet_2d import UNet2dModel  # noqa: E402
from hcrot.pipelines.folder import load_model  # noqa: E402
from hcrot.schedulers import DDPMScheduler  # noqa: E402
from hcrot.training.ema import EMA  # noqa: E402
from support.small_unets import SMALL  # noqa: E402

ARGUMENTS = SMALL | {"num_class_embeds": 10}


def inputs():
    rng = np.random.default_rng(3)
    return rng.normal(size=(3, 1, 8, 8)).astype(np.float32), np.array([0, 500, 999]), np.array([7, 0, 7])


def randomise(arrays):
    rng = np.random.default_rng(4)
    for array in arrays:
        array += 0.1 * rng.normal(size=array.shape).astype(array.dtype)


def output_of_diffusers(model):
    with torch.no_grad():
        return model(*map(torch.from_numpy, inputs()[:2]), class_labels=torch.from_numpy(inputs()[2])).sample.numpy()


def test_diffusers_opens_ours(tmp_path):
    model = UNet2dModel(**ARGUMENTS, generator=np.random.default_rng(0))
    ema = EMA(model.parameters())
    randomise(ema.averages)
    scheduler = DDPMScheduler(num_train_timesteps=321, beta_schedule="squaredcos_cap_v2", variance_type="fixed_large")
    save_checkpoint(tmp_path / "c", model, scheduler, ema=ema, state={}, progress={})

    theirs, report = diffusers.UNet2DModel.from_pretrained(tmp_path / "c", output_loading_info=True)
    assert not any(report.values()), report
    assert dict(theirs.config).items() >= {k: list(v) if isinstance(v, tuple) else v for k, v in ARGUMENTS.items()}.items()
    with ema.swapped_in(), model.inference():
        np.testing.assert_allclose(output_of_diffusers(theirs), model(*inputs()), rtol=0, atol=1e-5)

    loaded = diffusers.DDPMScheduler.from_pretrained(tmp_path / "c")
    np.testing.assert_array_equal(loaded.alphas_cumprod.numpy(), scheduler.alphas_cumprod)
    assert loaded.config.variance_type == "fixed_large"


def test_we_open_what_diffusers_wrote(tmp_path):
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(**ARGUMENTS)
    with torch.no_grad():
        randomise([parameter.numpy() for parameter in theirs.parameters()])
    theirs.save_pretrained(tmp_path)
    diffusers.DDPMScheduler(num_train_timesteps=77, beta_schedule="sigmoid").save_pretrained(tmp_path)

    model = load_model(tmp_path)
    with model.inference():
        np.testing.assert_allclose(model(*inputs()), output_of_diffusers(theirs), rtol=0, atol=1e-5)
    scheduler = DDPMScheduler.from_pretrained(tmp_path)
    assert len(scheduler) == 77 and scheduler.config["beta_schedule"] == "sigmoid"


def test_the_same_configuration_file(tmp_path):
    save_checkpoint(tmp_path / "ours", UNet2dModel(**ARGUMENTS), DDPMScheduler())
    diffusers.UNet2DModel(**ARGUMENTS).save_pretrained(tmp_path / "theirs")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "theirs")
    for name in ("config.json", "scheduler_config.json"):
        ours, theirs = (json.loads((tmp_path / side / name).read_text()) for side in ("ours", "theirs"))
        assert ours == theirs


def test_pickled_weights_of_diffusers_are_refused(tmp_path):
    diffusers.UNet2DModel(**ARGUMENTS).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(FileNotFoundError, match="diffusion_pytorch_model.bin is a pickle"):
        load_model(tmp_path)
