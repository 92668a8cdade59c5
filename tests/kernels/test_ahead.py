"""The process that compiles the backward kernels ahead."""

import os
import shutil
import subprocess
import sys
import threading

import numba
import pytest

from hcrot.kernels import jit
from support.processes import run

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")

TRAINING_STEP = """
import numpy as np, hcrot
model = hcrot.UNet2dModel(
    sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 32), norm_num_groups=4,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), generator=np.random.default_rng(0),
)
x = np.ones((16, 1, 8, 8), np.float32)
loss, gradient = hcrot.mse_loss(model(x, 3), x)
model.backward(gradient)
hcrot.AdamW(model.parameters()).step(max_grad_norm=1.0)
"""
BACKWARD = {
    "_adam", "_square_sums", "_silu_gradient", "_conv2d_input_gradient", "_nearest_gradient", "_plus", "_split", "_pixel_sums",
    "_conv2d_weight_gradient", "_weight_gradient", "_transform_weight_gradient", "_group_norm_backward", "_attention_backward",
}  # fmt: skip


def backward_kernels(folder, names):
    """For copytree: those files of a cache that are of them, or that are being written."""
    return [name for name in names if "tmp" in name or any(name.split(".")[1:2] and name.split(".")[1].startswith(f"{kernel}-")
                                                           for kernel in BACKWARD)]  # fmt: skip


def test_a_training_step_finds_its_backward_compiled(tmp_path):
    """Were the small arrays of other types than a network's, the step would compile the same kernels once more."""

    def compiled() -> dict[str, set[str]]:
        files = [file.name for file in tmp_path.rglob("*.nbc")]
        return {kernel: {name for name in files if name.split(".")[1].startswith(f"{kernel}-")} for kernel in BACKWARD}

    if os.environ.get("NUMBA_CACHE_DIR"):  # other kernels need not be compiled once more
        shutil.copytree(os.environ["NUMBA_CACHE_DIR"], tmp_path, dirs_exist_ok=True, ignore=backward_kernels)
    assert not any(compiled().values())
    assert run("from hcrot.kernels import ahead; ahead.compile_backward()", NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    before = compiled()
    assert all(before.values()), before
    assert run(TRAINING_STEP, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    assert compiled() == before


@pytest.fixture
def started(monkeypatch):
    """The commands that are run, and prepare as it is in a new process that finds no kernels compiled."""
    commands, done = [], threading.Event()

    def record(command, **options):
        commands.append((command, options))
        done.set()

    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.setattr(jit, "has_compiled_kernels", lambda: False)
    monkeypatch.setattr(jit, "get_num_threads", lambda: 2)
    jit.prepare.cache_clear()
    yield lambda: done.wait(0.2) and commands
    jit.prepare.cache_clear()


def test_it_is_started_when_nothing_is_compiled(started, capfd):
    jit.prepare()
    [(command, options)] = started()
    assert command[:2] == [sys.executable, "-c"] and "compile_backward" in command[2] and str(sys.path) in command[2]
    assert set(options.values()) == {subprocess.DEVNULL}
    assert "compiling kernels" in capfd.readouterr().err


@pytest.mark.parametrize("why", ["compiled", "one thread", "the process itself", "frozen", "part of another program", "no program"])
def test_it_is_not_started(started, why, monkeypatch, capfd):
    changes = {
        "compiled": (jit, "has_compiled_kernels", lambda: True),
        "one thread": (jit, "get_num_threads", lambda: 1),
        "the process itself": (jit, "before_compiling", []),
        "frozen": (sys, "frozen", True),
        "part of another program": (sys, "executable", "/usr/bin/blender"),
        "no program": (sys, "executable", None),
    }
    owner, name, value = changes[why]
    monkeypatch.setattr(owner, name, value, raising=False)
    jit.prepare()
    assert not started()
    assert ("compiling kernels" in capfd.readouterr().err) == (why not in ("compiled", "the process itself"))
