"""``hcrot.plain``: layers run the plain-NumPy references, and nothing that Numba has compiled."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hcrot
from hcrot.kernels import jit
from hcrot.kernels.launch import recorded
from hcrot.kernels.plain import is_plain, why_slow


@pytest.fixture(autouse=True)
def compiled_kernels():
    """Whatever HCROT_PLAIN says, these tests compare with the kernels."""
    with hcrot.plain(False):
        yield


@pytest.fixture
def nothing_compiled(monkeypatch):
    """Every call of a kernel is an error."""

    def refuse(self, *arguments):
        raise AssertionError(f"{self.kernel.__name__} was called")

    monkeypatch.setattr(jit.Kernel, "__call__", refuse)


def small_unet(dtype) -> hcrot.UNet2dModel:
    rng = np.random.default_rng(0)
    model = hcrot.UNet2dModel(
        sample_size=(9, 6), in_channels=2, out_channels=3, block_out_channels=(16, 20), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=10,
        num_class_embeds=3, generator=rng,
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.data.shape)
    return model.astype(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_a_network_gives_the_same_numbers_forward_backward_and_after_a_step(dtype, bound):
    rng = np.random.default_rng(1)
    x, dout = rng.standard_normal((2, 2, 9, 6)).astype(dtype), rng.standard_normal((2, 3, 9, 6)).astype(dtype)
    results = []
    for mode in (False, True):
        model = small_unet(dtype)
        optimizer, ema = hcrot.Adam(model.parameters(), lr=1e-3, eps=1e-3), hcrot.EMA(model.parameters())
        with hcrot.plain(mode):
            y = model(x, np.array([3, 700]), np.array([0, 2]))
            dx = model.backward(dout)
            gradients = {name: parameter.grad.copy() for name, parameter in model.named_parameters()}
            optimizer.step()
            ema.step()
            with ema.swapped_in():
                averages = {f"average of {name}": parameter.data.copy() for name, parameter in model.named_parameters()}
        weights = {f"new {name}": parameter.data for name, parameter in model.named_parameters()}
        results.append({"y": y, "dx": dx} | gradients | weights | averages)
    compiled, plain = results
    largest = max(np.abs(value).max() for value in gradients.values())
    for name, expected in compiled.items():
        assert plain[name].dtype == dtype
        scale = largest if name in gradients else np.abs(expected).max()
        np.testing.assert_allclose(plain[name], expected, rtol=0, atol=bound * max(scale, 1), err_msg=name)


def test_nothing_compiled_runs_in_a_convolution_or_in_a_network(nothing_compiled):
    conv, model = hcrot.Conv2d(2, 3, kernel_size=3, padding=1), small_unet(np.float32)
    x = np.ones((1, 2, 9, 6), np.float32)
    with pytest.raises(AssertionError, match="_conv2d was called"):
        conv(x)
    with hcrot.plain():
        assert conv.backward(conv(x)).shape == x.shape
        optimizer = hcrot.AdamW(model.parameters(), lr=1e-3)
        model.backward(model(x, 3, np.array([1])))
        hcrot.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        hcrot.col2im(hcrot.im2col(x, 3), x.shape, 3)


def test_a_planned_network_heeds_the_switch():
    model, t, labels = small_unet(np.float32), 3, np.array([1])
    x = np.ones((1, 2, 9, 6), np.float32)
    with model.inference():
        expected = [model(x, t, labels) for _ in range(3)][-1]
        with hcrot.plain(), recorded() as calls, pytest.MonkeyPatch.context() as patch:
            patch.setattr("hcrot.plan.Replay.__call__", lambda self: pytest.fail("a plan was followed"))
            y = model(x, t, labels)
        assert not calls
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(model(x, t, labels), expected)


def test_the_switch_is_put_back_also_after_an_error():
    with pytest.raises(KeyError), hcrot.plain():
        assert is_plain()
        raise KeyError
    assert not is_plain()
    with pytest.raises(TypeError, match="set_plain: mode must be True or False, got int"):
        hcrot.set_plain(1)


def test_bad_input_is_refused_as_the_kernels_refuse_it():
    for mode in (False, True):
        with hcrot.plain(mode), pytest.raises(ValueError, match="im2col: a 2x2 image is too small"):
            hcrot.im2col(np.ones((1, 1, 2, 2)), 3)
        with hcrot.plain(mode), pytest.raises(ValueError, match="im2col: x: expected a float32 or float64 array"):
            hcrot.im2col(np.ones((2, 2)), 3)


STEP = """
import sys, numpy as np, hcrot
from hcrot.kernels import jit
layer = hcrot.Sequential(hcrot.Conv2d(2, 4, kernel_size=3, padding=1), hcrot.GroupNorm(2, 4), hcrot.SiLU())
optimizer = hcrot.AdamW(layer.parameters(), lr=1e-3)
y = layer(np.ones((1, 2, 5, 4), np.float32))
layer.backward(y)
optimizer.step()
hcrot.set_num_threads(1)
assert not [k for k in vars(sys.modules["hcrot.kernels.conv"]).values() if isinstance(k, jit.Kernel) and "compiled" in vars(k)]
"""


def run(code: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, timeout=120)


def test_the_environment_variable_switches_it_on():
    done = run(STEP + "print(hcrot.kernels.plain.why_slow())", HCROT_PLAIN="1")
    said = "many times slower than usual: plain NumPy runs instead of the compiled kernels, because HCROT_PLAIN=1 is set\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert why_slow() == "", "where it is off"
    refused = run("import hcrot; hcrot.SiLU", HCROT_PLAIN="yes").stderr
    assert "HCROT_PLAIN: must be 1 (plain NumPy) or 0 (compiled kernels), got 'yes'" in refused


def test_without_numba_it_is_what_runs(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('no Numba here')\n")
    paths = [str(tmp_path), str(Path(hcrot.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    switch = "try:\n    hcrot.set_plain(False)\nexcept RuntimeError as error:\n    print(error)"
    code = f"{STEP}\nprint(hcrot.kernels.plain.why_slow().partition(', because ')[2])\n{switch}"
    done = run(code, PYTHONPATH=os.pathsep.join(filter(None, paths)), HCROT_PLAIN="")
    assert done.returncode == 0, done.stderr
    line = "Numba cannot be imported (no Numba here): plain NumPy runs instead of the compiled kernels, which is slow"
    assert done.stderr == f"hcrot: {line}\n"
    said, refused = done.stdout.splitlines()
    assert said == "Numba cannot be imported (no Numba here); pip install numba"
    assert refused == "set_plain: without Numba there is plain NumPy only (no Numba here); pip install numba"
