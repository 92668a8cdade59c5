"""GroupNorm, GroupNormSiLU and LayerNorm against PyTorch, Attention against diffusers: outputs and every gradient."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hcrot.layers.attention import Attention  # noqa: E402
from hcrot.layers.norm import GroupNorm, GroupNormSiLU, LayerNorm  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FORWARD = {np.float32: 1e-5, np.float64: 1e-10}
BACKWARD = {np.float32: 1e-4, np.float64: 1e-10}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def close(got, expected, tolerance):
    """Equal relative to the largest entry."""
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def compare(ours, theirs, x, dtype, rng, function=None):
    """The same weights, drawn at random (B05), x and cotangent through both; ``function`` of theirs if it is more than a call."""
    ours.astype(dtype)
    theirs.to(torch.float32 if dtype == np.float32 else torch.float64)
    parameters = dict(theirs.named_parameters())
    assert {name: array.shape for name, array in ours.state_dict().items()} == {name: tuple(p.shape) for name, p in parameters.items()}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.data += 0.5 * rng.standard_normal(parameter.shape).astype(dtype)
            parameters[name].copy_(torch.from_numpy(parameter.data.copy()))
    x = x.astype(dtype)
    image = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
    y, expected = ours(x), (function or theirs)(image)
    close(y, expected, FORWARD[dtype])
    dout = rng.standard_normal(y.shape).astype(dtype)
    expected.backward(torch.from_numpy(dout))
    close(ours.backward(dout), image.grad, BACKWARD[dtype])
    for name, parameter in ours.named_parameters():
        if name == "to_k.bias":  # zero but for rounding: the softmax does not see what is added to all keys
            tolerance = BACKWARD[dtype] * np.abs(ours.to_k.weight.grad).max()
            assert max(np.abs(parameter.grad).max(), parameters[name].grad.abs().max()) < tolerance
        else:
            close(parameter.grad, parameters[name].grad, BACKWARD[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    ("groups", "channels", "eps", "affine", "shape"),
    [
        (8, 32, 1e-5, True, (5, 32, 14, 14)),
        (32, 64, 1e-6, True, (2, 64, 7, 9)),
        (1, 6, 1e-5, True, (3, 6, 5, 3)),
        (6, 6, 1e-5, False, (3, 6, 5, 3)),
        (2, 4, 1e-1, True, (7, 4)),
        (2, 4, 1e-5, True, (3, 4, 11)),
        (3, 6, 1e-5, True, (2, 6, 3, 2, 5)),
    ],
)
def test_group_norm(groups, channels, eps, affine, shape, silu, dtype, rng):
    ours = (GroupNormSiLU if silu else GroupNorm)(groups, channels, eps, affine)
    theirs = torch.nn.GroupNorm(groups, channels, eps, affine)
    x = 3 + 2 * rng.standard_normal(shape)
    compare(ours, theirs, x, dtype, rng, (lambda image: torch.nn.functional.silu(theirs(image))) if silu else None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("normalized", "shape", "options"),
    [
        (7, (5, 7), {}),  # B26
        ((7,), (2, 3, 7), {"eps": 1e-2}),
        ((3, 7), (4, 3, 7), {}),
        ((4, 3, 7), (4, 3, 7), {"bias": False}),
        ((3, 7), (2, 4, 3, 7), {"elementwise_affine": False}),
    ],
)
def test_layer_norm(normalized, shape, options, dtype, rng):
    compare(LayerNorm(normalized, **options), torch.nn.LayerNorm(normalized, **options), rng.standard_normal(shape), dtype, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("channels", "dim_head", "shape", "options"),
    [
        (16, 8, (3, 5, 4), {"norm_num_groups": 4}),
        (16, 6, (2, 3, 7), {"norm_num_groups": 8}),  # two heads of 6: inner < C
        (16, None, (2, 4, 4), {"norm_num_groups": 16, "eps": 1e-2}),
        (12, 4, (1, 12, 13), {"rescale_output_factor": 1.7}),
        (12, 12, (2, 1, 6), {"residual_connection": False}),
        (12, 5, (2, 6, 1), {"norm_num_groups": 2, "residual_connection": False, "rescale_output_factor": 2.0}),
    ],
)
def test_attention(channels, dim_head, shape, options, dtype, rng):
    processor = pytest.importorskip("diffusers.models.attention_processor")
    size = dim_head or channels
    theirs = processor.Attention(
        channels,
        heads=channels // size,
        dim_head=size,
        bias=True,
        **{"residual_connection": True, **options},
    )
    batch, height, width = shape
    compare(Attention(channels, dim_head, **options), theirs, rng.standard_normal((batch, channels, height, width)), dtype, rng)
