"""check_gradients passes what is right, fails the classical mistakes of layers, planted here on purpose (B01, B04, B05, B49), and takes
modules of every kind. Those of an affine layer are in tests/gradcheck/test_gradcheck_faults.py."""

import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.activation import SiLU
from hcrot.layers.linear import Linear
from hcrot.module import Identity, Module, Parameter, Sequential
from support.gradcheck import Affine, failure, verdicts


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)


@pytest.mark.parametrize("exhaustive", [False, True])
@pytest.mark.parametrize("module", [Affine(), Linear(3, 4, generator=np.random.default_rng(0)), Sequential(Linear(3, 2), Linear(2, 4))])
def test_correct_modules_pass_with_room_to_spare(module, x, exhaustive):
    report = check_gradients(module, x, exhaustive=exhaustive)
    assert report.passed
    assert len(report.lines) == 1 + len(module.parameters())
    assert report.worst_error < 1e-10
    assert "agree" in str(report)


def test_the_module_and_the_input_are_left_as_they_were(x):
    module = Sequential(Affine(), Noise(0.5)).eval()
    module.layers[0].weight.grad[...] = 7
    state, before, draws = module.state_dict(), x.copy(), module.layers[1].generator.bit_generator.state
    check_gradients(module, x)
    assert not module.training
    assert not module.layers[0].training
    assert module.layers[1].generator.bit_generator.state == draws
    np.testing.assert_array_equal(x, before)
    for name, parameter in module.named_parameters():
        np.testing.assert_array_equal(parameter.data, state[name])
        assert parameter.data.dtype == np.float32
    assert (module.layers[0].weight.grad == 7).all()


def test_the_global_random_state_is_not_touched(x):
    before = np.random.get_state()[1].copy()  # noqa: NPY002  (the legacy state is what must stay)
    check_gradients(Affine(), x)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


class Normalise(Module):
    """Over the last axis, with an affine: ``y = weight x_hat + bias``."""

    def __init__(self, size, overwrite):
        self.weight, self.bias = Parameter(np.ones(size, np.float32)), Parameter(np.zeros(size, np.float32))
        self.overwrite = overwrite

    def forward(self, x):
        std = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        x_hat = (x - x.mean(axis=-1, keepdims=True)) / std
        y = x_hat * self.weight.data + self.bias.data
        if self.overwrite:
            x_hat = y
        self.save(x_hat, std)
        return y

    def backward(self, dout):
        x_hat, std = self.saved()
        self.weight.grad += (dout * x_hat).sum(axis=0)
        self.bias.grad += dout.sum(axis=0)
        d = dout * self.weight.data
        return (d - d.mean(axis=-1, keepdims=True) - x_hat * (d * x_hat).mean(axis=-1, keepdims=True)) / std


def test_a_normalisation_that_keeps_its_output_for_x_hat_fails_only_away_from_its_special_point(x):
    """B05: at weight 1 and bias 0 the two are the same, so a check at initialisation saw nothing."""
    assert check_gradients(Normalise(3, overwrite=False), x).passed
    assert check_gradients(Normalise(3, overwrite=True), x, randomize=False).passed
    assert verdicts(failure(Normalise(3, overwrite=True), x))["weight (Normalise)"] == "wrong"


class ZeroSoftmax(Module):
    def forward(self, x):
        self.save(x)
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def backward(self, dout):
        return np.zeros_like(self.saved())


def test_a_softmax_that_returns_zero_fails(x):
    """The gradient of a sum of softmaxes is zero, so a check with a cotangent of ones passes this one."""
    report = failure(ZeroSoftmax(), x)
    assert report.lines[0].verdict == "no gradient arrived"


class Lookup(Module):
    def __init__(self, overwrite):
        self.weight = Parameter(np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32))
        self.overwrite = overwrite

    def forward(self, ids):
        self.save(ids)
        return self.weight.data[ids]

    def backward(self, dout):
        ids = self.saved()
        if self.overwrite:
            self.weight.grad[ids] += dout
        else:
            np.add.at(self.weight.grad, ids, dout)


def test_an_embedding_that_overwrites_repeated_labels_fails():
    """B04, and integer inputs: passed on as they are, not differentiated."""
    repeated, different = np.array([1, 1, 2, 5]), np.array([1, 0, 2, 5])
    assert check_gradients(Lookup(overwrite=False), repeated).passed
    assert check_gradients(Lookup(overwrite=True), different).passed
    assert verdicts(failure(Lookup(overwrite=True), repeated)) == {"weight (Lookup)": "wrong"}


class WritesInput(Affine):
    def forward(self, x):
        y = super().forward(x)
        x *= 2
        return y


class WritesDout(Affine):
    """As ``dz /= factor`` once did to the caller's gradient (B33)."""

    def backward(self, dout):
        dx = super().backward(dout)
        dout *= 2
        return dx


def test_writing_into_an_input_fails(x):
    assert "input 0 was written to" in failure(WritesInput(), x).problems


class WritesKeptInput(Affine):
    def backward(self, dout):
        x = self._kept[1][-1][0][0]
        dx = super().backward(dout)
        x *= 2
        return dx


def test_what_was_written_to_is_repaired_before_the_gradients_are_judged(x):
    report = failure(WritesKeptInput(), x)
    assert "input 0 was written to" in report.problems
    assert set(verdicts(report).values()) == {"ok"}


def test_writing_into_dout_fails(x):
    assert "dout 0 was written to" in failure(WritesDout(), x).problems


class Noise(Module):
    """Dropout, in short."""

    def __init__(self, p, keep_mask=True):
        self.p, self.keep_mask, self.generator = p, keep_mask, np.random.default_rng(3)

    def forward(self, x):
        mask = (self.generator.random(x.shape) >= self.p) / (1 - self.p)
        self.save(mask)
        return x * mask

    def backward(self, dout):
        mask = self.saved()
        return dout * (mask if self.keep_mask else (self.generator.random(dout.shape) >= self.p) / (1 - self.p))


def test_dropout_is_checked_with_the_same_noise_each_time(x):
    assert check_gradients(Sequential(Affine(), Noise(0.4), Affine(4, 2)), x).passed
    assert verdicts(failure(Noise(0.4, keep_mask=False), x))["input 0"] == "wrong"


class HiddenNoise(Module):
    def forward(self, x):
        self.save(True)
        return x + HiddenNoise.source.standard_normal(x.shape)

    def backward(self, dout):
        self.saved()
        return dout

    source = np.random.default_rng(0)


def test_randomness_out_of_reach_fails(x):
    assert any(problem.startswith("two forwards differ") for problem in failure(HiddenNoise(), x).problems)


class Shifted(Module):
    """A block after the second law: temb is shared, so its gradient is added to the caller's accumulator; labels may be None."""

    def __init__(self, broken=False):
        self.project, self.broken = Affine(2, 3), broken

    def forward(self, h, temb, labels=None):
        weight = 1 if labels is None else labels[:, None]
        self.save(weight)
        return h + self.project(temb) * weight

    def backward(self, dh, dtemb):
        dtemb += self.project.backward(dh * self.saved()) * (2 if self.broken else 1)
        return dh


def both_gradients(temb):
    def backward(module, dh):
        dtemb = np.zeros(temb.shape)
        return module.backward(dh, dtemb), dtemb

    return backward


@pytest.mark.parametrize("labels", [None, np.array([1, 2, 3, 2, 1])])
def test_several_inputs_accumulators_labels_and_none(x, labels):
    temb = np.random.default_rng(4).standard_normal((5, 2)).astype(np.float32)
    report = check_gradients(Shifted(), x, temb, labels, backward=both_gradients(temb))
    assert [line.name for line in report.lines][:2] == ["input 0", "input 1"]
    assert verdicts(failure(Shifted(broken=True), x, temb, labels, backward=both_gradients(temb)))["input 1"] == "wrong"


def test_a_gradient_too_few_is_said_so(x):
    temb = np.random.default_rng(4).standard_normal((5, 2))
    report = failure(Shifted(), x, temb, backward=lambda module, dh: module.backward(dh, np.zeros((5, 2))))
    assert report.problems[0] == (
        "backward returned 1 gradient for 2 floating-point inputs: return a tuple, (dh, dtemb), or pass backward="
    )
    assert verdicts(report)["input 1"].startswith("missing")


class Halves(Module):
    def forward(self, x):
        self.save(True)
        return x[:, :1] * 2, x[:, 1:]

    def backward(self, da, db):
        self.saved()
        return np.concatenate([da * 2, db], axis=1)


def test_several_outputs(x):
    assert check_gradients(Halves(), x).passed


def test_forward_may_be_given(x):
    report = check_gradients(Affine(), x, forward=lambda module, x: module(x) * 3, backward=lambda module, dout: module.backward(3 * dout))
    assert report.passed


class Rectify(Module):
    def forward(self, x):
        self.save(x > 0)
        return np.maximum(x, 0)

    def backward(self, dout):
        return dout * self.saved()


def test_kinks_are_avoided_by_smaller_steps():
    x = np.random.default_rng(0).standard_normal((40, 50))
    assert np.abs(x).min() < 1e-3
    assert check_gradients(Rectify(), x).passed


class Scaled(Affine):
    """The same layer at another scale of its output."""

    scale = 1e-8

    def forward(self, x):
        return super().forward(x) * self.scale

    def backward(self, dout):
        return super().backward(dout * self.scale)


class ScaledWrong(Scaled):
    def backward(self, dout):
        return super().backward(dout) * 1.00001


@pytest.mark.parametrize("scale", [1e-20, 1e-8, 1e8])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e5])
def test_the_error_is_relative_at_any_scale(x, scale, size):
    right, wrong = Scaled(), ScaledWrong()
    right.scale = wrong.scale = scale
    assert check_gradients(right, size * x).passed
    assert verdicts(failure(wrong, size * x))["input 0"] == "wrong"


def test_nan_fails(x):
    x[0, 0] = np.nan
    report = failure(Affine(), x)
    assert "wrong" in verdicts(report)["weight (Affine)"]


def test_any_memory_order(x):
    assert check_gradients(Affine(), np.asfortranarray(x)).passed
    assert check_gradients(Affine(), np.repeat(x, 2, axis=1)[:, ::2]).passed


def test_the_generator_decides_the_directions(x):
    def slope(seed):
        return check_gradients(Affine(), x, generator=np.random.default_rng(seed)).lines[0].numeric

    assert slope(1) == slope(1) != slope(2)


def test_bad_arguments(x):
    with pytest.raises(TypeError, match="check_gradients: module must be a Module, got function"):
        check_gradients(lambda x: x, x)
    with pytest.raises(ValueError, match="check_gradients: Identity has no parameters"):
        check_gradients(Identity(), np.arange(3))
    with pytest.raises(TypeError, match="Generator"):
        check_gradients(Affine(), x, generator=3.0)


def test_tied_weights_are_checked_once():
    first, second = Linear(3, 3, bias=False), Linear(3, 3, bias=False)
    second.weight = first.weight
    report = check_gradients(Sequential(first, second), np.random.default_rng(0).standard_normal((2, 3)))
    assert len(report.lines) == 2


class ChangesWhatIsKept(Module):
    """``silu(x W^T + b)``, then a write into what SiLU keeps."""

    def __init__(self):
        self.linear, self.act = Affine(), SiLU()

    def forward(self, x):
        h = self.linear(x)
        y = self.act(h)
        h += 1
        return y

    def backward(self, dout):
        return self.linear.backward(self.act.backward(dout))


def test_a_forward_that_changes_what_a_layer_keeps_is_named(x):
    report = failure(ChangesWhatIsKept(), x)
    assert report.problems == ("SiLU: an array that forward kept for backward was changed in between: change a copy",)
    assert verdicts(report)["input 0"] == "wrong"


def test_a_forward_that_writes_into_its_input_is_not_called_random(x):
    problems = failure(WritesInput(), x).problems
    assert "input 0 was written to" in problems
    assert not any("two forwards differ" in problem for problem in problems)
