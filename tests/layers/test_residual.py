"""The ``residual`` of backward and forward: what has come another way, added where the result is written."""

import numpy as np
import pytest

from hcrot.layers.linear import Linear
from hcrot.layers.norm import GroupNorm, GroupNormSiLU
from hcrot.models.unet_2d_blocks import activated_norm
from hcrot.module import Identity

LAYERS = {
    "GroupNorm": lambda rng: GroupNorm(2, 6),
    "GroupNorm, not affine": lambda rng: GroupNorm(2, 6, affine=False),
    "GroupNormSiLU": lambda rng: GroupNormSiLU(3, 6),
    "ActivatedGroupNorm": lambda rng: activated_norm(3, 6, 1e-5, "mish"),
    "Identity": lambda rng: Identity(),
    "Linear": lambda rng: Linear(5, 4, generator=rng),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("order", ["C", "channels last"])
def test_residual_is_added_to_the_gradient_and_to_nothing_else(name, order, rng):
    layer = LAYERS[name](rng).astype(np.float64)
    for parameter in layer.parameters():
        parameter.data[...] = rng.standard_normal(parameter.shape)
    x, residual = rng.standard_normal((2, 3, 6, 7, 5))
    if order == "channels last":
        residual = np.ascontiguousarray(residual.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    dout = rng.standard_normal(layer(x).shape)
    expected = layer.backward(dout) + residual
    gradients = [parameter.grad.copy() for parameter in layer.parameters()]
    layer.zero_grad()
    layer(x)
    before = residual.copy()
    np.testing.assert_allclose(layer.backward(dout, residual=residual), expected, rtol=0, atol=1e-12)
    assert np.array_equal(residual, before)
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(parameter.grad, gradient)


def test_residual_of_linear_is_added_to_the_output(rng):
    layer = Linear(5, 4, generator=rng).astype(np.float64)
    x, residual = rng.standard_normal((2, 3, 5)), rng.standard_normal((2, 3, 4))
    np.testing.assert_allclose(layer(x, residual), layer(x) + residual, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"Linear: residual must be float64 of shape \(2, 3, 4\), got float64 of shape \(4, 3, 2\)"):
        layer(x, residual.T)


@pytest.mark.parametrize("name", LAYERS)
def test_residual_must_be_like_the_input(name, rng):
    layer = LAYERS[name](rng)
    x = rng.standard_normal((2, 6, 7, 5), dtype=np.float32)
    for wrong in (x[:1], x.astype(np.float64)):
        layer.forget()
        dout = layer(x)
        with pytest.raises(ValueError, match=r"backward: residual must be float32 of shape \(2, 6, 7, 5\), got"):
            layer.backward(dout, residual=wrong)
