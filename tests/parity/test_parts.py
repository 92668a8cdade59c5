"""RMSNorm, BatchNorm2d, PixelShuffle, PixelUnshuffle and Residual against PyTorch, CrossAttention against diffusers: outputs, every
gradient, running values.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hcrot  # noqa: E402

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


def give_weights(ours, theirs, dtype, rng):
    """Both the same weights, drawn at random (B05)."""
    ours.astype(dtype)
    theirs.to(torch.float32 if dtype == np.float32 else torch.float64)
    parameters = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if name in parameters:
            parameter.data += 0.5 * rng.standard_normal(parameter.shape).astype(dtype)
            with torch.no_grad():
                parameters[name].copy_(torch.from_numpy(parameter.data.copy()))
    return parameters


def compare(ours, theirs, x, dtype, rng, function=None):
    """The same weights, x and cotangent through both; ``function`` of theirs if it is more than a call."""
    parameters = give_weights(ours, theirs, dtype, rng)
    assert {name for name, parameter in ours.named_parameters() if not parameter.constant} == parameters.keys()
    x = x.astype(dtype)
    image = torch.from_numpy(x.copy()).requires_grad_()
    y, expected = ours(x), (function or theirs)(image)
    close(y, expected, FORWARD[dtype])
    dout = rng.standard_normal(y.shape).astype(dtype)
    expected.backward(torch.from_numpy(dout))
    close(ours.backward(dout), image.grad, BACKWARD[dtype])
    for name, expected_parameter in parameters.items():
        close(dict(ours.named_parameters())[name].grad, expected_parameter.grad, BACKWARD[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("normalized", "shape", "options"),
    [
        (7, (5, 7), {}),
        ((7,), (2, 3, 7), {"eps": 1e-2}),
        ((3, 7), (2, 4, 3, 7), {}),
        ((4, 3, 7), (4, 3, 7), {"elementwise_affine": False, "eps": 1e-6}),
    ],
)
def test_rms_norm(normalized, shape, options, dtype, rng):
    x = 1 + rng.standard_normal(shape)
    compare(hcrot.RMSNorm(normalized, **options), torch.nn.RMSNorm(normalized, **options), x, dtype, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options", [{}, {"eps": 1e-2, "momentum": 0.3}, {"momentum": None}, {"affine": False}, {"bias": False}, {"track_running_stats": False}]
)
def test_batch_norm(options, dtype, rng):
    ours, theirs = hcrot.BatchNorm2d(5, **options), torch.nn.BatchNorm2d(5, **options)
    for scale in (1, 3, 0.2):  # three batches, so that the running values have a past
        compare(ours, theirs, scale * (rng.standard_normal((3, 5, 7, 4)) + 2), dtype, rng)
        ours.zero_grad()
        theirs.zero_grad()
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value, state[name], rtol=1e-5 if dtype == np.float32 else 1e-11, err_msg=name)
    x = rng.standard_normal((2, 5, 3, 6)).astype(dtype)
    close(ours.eval()(x), theirs.eval()(torch.from_numpy(x)), FORWARD[dtype])


def test_running_values_of_pytorch_load():
    ours, theirs = hcrot.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    theirs(torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(0)))
    state = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    with pytest.raises(ValueError, match="num_batches_tracked has dtype int64"):
        ours.load_state_dict(state)
    ours.load_state_dict(state | {"num_batches_tracked": state["num_batches_tracked"].astype(np.float32)})
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 4), dtype=np.float32)
    close(ours.eval()(x), theirs.eval()(torch.from_numpy(x)), 1e-5)


@pytest.mark.parametrize(("shape", "factor"), [((2, 12, 3, 5), 2), ((9, 4, 2), 3), ((2, 1, 4, 1, 1), 2), ((2, 3, 4, 5), 1)])
def test_pixel_shuffle_and_back(shape, factor, rng):
    compare(hcrot.PixelShuffle(factor), torch.nn.PixelShuffle(factor), rng.standard_normal(shape), np.float32, rng)
    large = (*shape[:-2], shape[-2] * factor, shape[-1] * factor)
    compare(hcrot.PixelUnshuffle(factor), torch.nn.PixelUnshuffle(factor), rng.standard_normal(large), np.float32, rng)


def test_residual(rng):
    theirs = torch.nn.Sequential()
    theirs.module = torch.nn.Conv2d(3, 3, 3, padding=1)
    x = rng.standard_normal((2, 3, 5, 4))
    compare(hcrot.Residual(hcrot.Conv2d(3, 3, 3, padding=1)), theirs, x, np.float32, rng, lambda image: image + theirs.module(image))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("channels", "context", "heads", "size"), [(12, 5, 3, 7), (4, 20, 2, 1), (6, 6, 1, 6)])
@pytest.mark.parametrize(("shape", "keys"), [((3, 11), 4), ((2, 3, 5), 19)])
def test_cross_attention(channels, context, heads, size, shape, keys, dtype, rng):
    processor = pytest.importorskip("diffusers.models.attention_processor")
    ours = hcrot.CrossAttention(channels, context, heads, size)
    theirs = processor.Attention(channels, context, heads=heads, dim_head=size)
    parameters = give_weights(ours, theirs, dtype, rng)
    assert {name for name, _ in ours.named_parameters()} == parameters.keys()
    x = rng.standard_normal((shape[0], channels, *shape[1:]) if len(shape) == 3 else (*shape, channels)).astype(dtype)
    other = rng.standard_normal((shape[0], keys, context)).astype(dtype)
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, other)]
    y, expected = ours(x, other), theirs(*tensors)
    close(y, expected, FORWARD[dtype])
    dout = rng.standard_normal(y.shape).astype(dtype)
    expected.backward(torch.from_numpy(dout))
    for gradient, tensor in zip(ours.backward(dout), tensors, strict=True):
        close(gradient, tensor.grad, BACKWARD[dtype])
    largest = max(parameter.grad.abs().max() for parameter in parameters.values())
    for name, parameter in ours.named_parameters():
        expected = parameters[name].grad.numpy()
        np.testing.assert_allclose(parameter.grad, expected, rtol=0, atol=BACKWARD[dtype] * float(largest), err_msg=name)


@pytest.mark.parametrize(("heads", "size"), [(3, 8), (1, 2), (5, None)])
def test_attention_wider_or_narrower_than_its_input(heads, size, rng):
    processor = pytest.importorskip("diffusers.models.attention_processor")
    ours = hcrot.Attention(6, size, 3, heads=heads)
    theirs = processor.Attention(6, heads=heads, dim_head=size or 6, norm_num_groups=3, bias=True, residual_connection=True)
    parameters = give_weights(ours, theirs, np.float64, rng)
    x = rng.standard_normal((2, 6, 4, 3))
    image = torch.from_numpy(x).requires_grad_()
    y, expected = ours(x), theirs(image)
    close(y, expected, 1e-10)
    dout = rng.standard_normal(y.shape)
    expected.backward(torch.from_numpy(dout))
    close(ours.backward(dout), image.grad, 1e-10)
    for name, parameter in ours.named_parameters():
        expected = parameters[name].grad.numpy()
        np.testing.assert_allclose(parameter.grad, expected, rtol=0, atol=1e-10 * max(1, np.abs(expected).max()), err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "arguments", "options"),
    [
        ((3, 4, 11), (4, 6, 3), {"padding": 1}),
        ((2, 6, 17), (6, 4, 4), {"stride": 3, "padding": 2, "dilation": 2, "groups": 2}),
        ((6, 9), (6, 6, 3), {"padding": "same", "groups": 6, "bias": False}),
        ((1, 3, 5), (3, 1, 5), {"padding": "valid"}),
    ],
)
def test_conv1d(shape, arguments, options, dtype, rng):
    compare(hcrot.Conv1d(*arguments, **options), torch.nn.Conv1d(*arguments, **options), rng.standard_normal(shape), dtype, rng)


def test_functional_attention(rng):
    arrays = [rng.standard_normal((2, 3, tokens, 5), dtype=np.float32) for tokens in (6, 9, 9)]
    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    o, logsum = hcrot.functional.attention(*arrays)
    expected = torch.nn.functional.scaled_dot_product_attention(*tensors)
    close(o, expected, FORWARD[np.float32])
    do = rng.standard_normal(o.shape, dtype=np.float32)
    expected.backward(torch.from_numpy(do))
    for gradient, tensor in zip(hcrot.functional.attention_backward(do, *arrays, logsum), tensors, strict=True):
        close(gradient, tensor.grad, BACKWARD[np.float32])
