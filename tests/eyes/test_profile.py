"""hcrot.profile: the time of each layer of any Module. Times are made long enough by sleeping that noise does not matter."""

import time

import numpy as np
import pytest

import hcrot
from hcrot.module import Module
from support.module_cases import small_unet


class Slow(Module):
    def __init__(self, inner=None):
        self.inner = inner

    def forward(self, x):
        time.sleep(0.02)
        self.save(x.copy())
        return self.inner(x) if self.inner else x + 1

    def backward(self, dout):
        self.saved()
        time.sleep(0.04)
        return self.inner.backward(dout) if self.inner else dout


def test_time_goes_to_the_module_that_takes_it():
    x = np.ones((4, 5), np.float32)
    result = hcrot.profile(hcrot.Sequential(Slow(Slow()), hcrot.ReLU()), x, repeats=1)
    outer, inner = result["0"], result["0.inner"]
    assert inner.forward >= 0.02 and inner.backward >= 0.04  # no upper bounds: the machine may be busy
    assert outer.forward >= 0.02 + inner.forward and outer.backward >= 0.04 + inner.backward
    assert outer.own_forward <= outer.forward - inner.forward and outer.own_backward <= outer.backward - inner.backward
    assert result["1"].forward < inner.forward and next(iter(result.by_kind)) == "Slow"
    assert sum(line.own for line in result.lines) == pytest.approx(result.forward + result.backward, rel=0.3)
    assert inner.kept == x.nbytes and outer.kept == 2 * x.nbytes and outer.output_bytes == x.nbytes
    assert "0 (Slow)" in repr(result) and "<table" in result._repr_html_()


def test_a_network_and_a_block_are_left_as_they_were():
    model = small_unet(0)
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 6), dtype=np.float32)
    result = hcrot.profile(model, x, np.arange(2), repeats=1, depth=1)
    assert all(not parameter.grad.any() for parameter in model.parameters())
    assert all(line.forward > 0 for line in result.lines if line.output)
    assert result["conv_in"].backward > 0
    block = model.mid_block  # its backward adds to an array of its caller's
    assert hcrot.profile(block, np.ones((2, 6, 3, 3), np.float32), np.ones((2, 16), np.float32), repeats=1).backward > 0


def test_without_backward_there_is_the_forward():
    result = hcrot.profile(hcrot.Timesteps(6), np.arange(3), repeats=1)
    assert result.forward > 0 and result.backward == 0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="profile: inputs are missing"):
        hcrot.profile(hcrot.ReLU())
    with pytest.raises(ValueError, match="profile: repeats"):
        hcrot.profile(hcrot.ReLU(), np.ones(3), repeats=0)
    with pytest.raises(TypeError, match="profile: model must be a Module"):
        hcrot.profile(np.ones(3), np.ones(3))
