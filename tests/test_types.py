"""What a type checker says of a user's program: hcrot ships its annotations (``py.typed``), so they are part of what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).parent.parent

PROGRAM = """
from typing import Any

import numpy as np
from typing_extensions import assert_type

import hcrot
from hcrot.schedulers.base import NoiseScheduler, SchedulerOutput

rng = np.random.default_rng(0)
images: np.ndarray
noise: np.ndarray
images, noise = rng.standard_normal((2, 4, 1, 8, 8), dtype=np.float32)


class Skip(hcrot.Module):
    def __init__(self, channels: int) -> None:
        self.conv = hcrot.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return hcrot.functional.concatenate(x, self.conv(x))

    def backward(self, dout: np.ndarray) -> np.ndarray:
        dx, dh = hcrot.functional.split(dout, dout.shape[1] // 2)
        return hcrot.functional.plus(dx, self.conv.backward(dh))


layers: list[hcrot.Module] = [Skip(1), hcrot.ReLU()]
assert_type(hcrot.Sequential(*layers)(images), np.ndarray)
assert_type(Skip(1)(images), np.ndarray)
Skip(1)(images, 2)  # type: ignore[call-arg]

model = hcrot.UNet2dModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 64), generator=rng)
scheduler = hcrot.DDPMScheduler(num_train_timesteps=100)
optimizer = hcrot.AdamW(model.parameters(), lr=1e-3)
t = rng.integers(len(scheduler), size=4)
prediction = model(scheduler.add_noise(images, noise, t), t, class_labels=None)
assert_type(prediction, np.ndarray)
model(images)  # type: ignore[call-arg]
model("images", t)  # type: ignore[arg-type]
loss, dout = hcrot.mse_loss(prediction, noise)
assert_type(loss, float)
assert_type(dout, np.ndarray)
assert_type(hcrot.mse_loss(prediction, noise, "none")[0], float | np.ndarray)
model.zero_grad()
model.backward(dout)
hcrot.clip_grad_norm(model.parameters(), 1.0)
optimizer.step()
assert_type(model.eval(), hcrot.UNet2dModel)
assert_type(model.astype(np.float64), hcrot.UNet2dModel)
with model.inference() as quiet:
    assert_type(quiet, hcrot.UNet2dModel)

assert_type(scheduler.step(prediction, 3, images, rng), SchedulerOutput)
assert_type(scheduler.step(prediction, 3, images, rng).prev_sample, np.ndarray)
assert_type(scheduler.step(prediction, 3, images, rng, return_dict=False), tuple[np.ndarray, ...])
ddim = hcrot.DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
assert_type(ddim, hcrot.DDIMScheduler)
assert_type(ddim.step(prediction, 3, images, eta=0.5).prev_sample, np.ndarray)
assert_type(hcrot.pipelines.sample(model, ddim, generator=rng, num_inference_steps=10), np.ndarray)
assert_type(hcrot.pipelines.ddpm(model, scheduler, generator=rng, trajectory=True), tuple[np.ndarray, np.ndarray])

model.save_pretrained("folder", max_shard_size="200MB")
scheduler.save_pretrained("folder")
assert_type(hcrot.UNet2dModel.from_pretrained("folder"), hcrot.UNet2dModel)
assert_type(hcrot.DDPMScheduler.from_pretrained("folder"), hcrot.DDPMScheduler)
assert_type(hcrot.pipelines.load("folder"), tuple[Any, NoiseScheduler])
hcrot.pipelines.sample(*hcrot.pipelines.load("folder"), generator=rng)
"""
"""Never run. With mypy's warn_unused_ignores, each ``type: ignore`` says that the line must be an error."""


def test_a_users_program_has_the_types_that_one_expects(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *map(str, options), str(program)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT)})
    assert (run.returncode, run.stdout + run.stderr) == (0, "")
