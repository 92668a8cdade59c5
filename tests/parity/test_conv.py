"""Linear, Conv2d and ConvTranspose2d against PyTorch: outputs and every gradient, in configurations drawn at random."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hcrot.layers.conv import Conv2d, ConvTranspose2d  # noqa: E402
from hcrot.layers.linear import Linear  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FORWARD = {np.float32: 1e-5, np.float64: 1e-13}
BACKWARD = {np.float32: 1e-4, np.float64: 1e-12}


def close(got, expected, tolerance):
    """Equal relative to the largest entry."""
    expected = expected.detach().numpy()
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(1e-30, np.abs(expected).max()))


def compare(ours, theirs, x, dtype, rng, prepare=lambda image: image):
    """Same weights, input and cotangent through both; ``prepare`` is what PyTorch's layer can't do by itself."""
    ours.astype(dtype)
    with torch.no_grad():
        assert list(ours.state_dict()) == list(dict(theirs.named_parameters()))
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.from_numpy(ours.state_dict()[name]))
    x = x.astype(dtype)
    image = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
    y, expected = ours(x), theirs(prepare(image))
    close(y, expected, FORWARD[dtype])
    dout = rng.standard_normal(y.shape).astype(dtype)
    expected.backward(torch.from_numpy(dout))
    close(ours.backward(dout), image.grad, BACKWARD[dtype])
    for name, parameter in ours.named_parameters():
        close(parameter.grad, dict(theirs.named_parameters())[name].grad, BACKWARD[dtype])


def torch_dtype(dtype):
    return torch.float32 if dtype == np.float32 else torch.float64


def pair(rng, low, high):
    return tuple(int(v) for v in rng.integers(low, high, 2))


def memory_order(rng, x):
    """The same image array, C-ordered, channels-last, Fortran-ordered or with gaps."""
    return [
        lambda a: a,
        lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    ][rng.integers(4)](x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (300, 3), (5, 7, 3), (2, 3, 4, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(dtype, shape, bias):
    rng = np.random.default_rng(0)
    theirs = torch.nn.Linear(3, 5, bias=bias, dtype=torch_dtype(dtype))
    compare(Linear(3, 5, bias, generator=rng), theirs, rng.standard_normal(shape), dtype, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(25))
def test_conv2d(dtype, seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 3]))
    channels, outputs = (groups * int(v) for v in rng.integers(1, 6, 2))
    kernel, stride, dilation = pair(rng, 1, 5), pair(rng, 1, 4), pair(rng, 1, 3)
    padding, bias = pair(rng, 0, 4), bool(rng.integers(2))
    size = [max(1, d * (k - 1) + 1 - 2 * p) + int(rng.integers(7)) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    ours = Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias, generator=rng)
    theirs = torch.nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias, dtype=torch_dtype(dtype))
    x = rng.standard_normal((int(rng.integers(1, 5)), channels, *size))
    compare(ours, theirs, memory_order(rng, x), dtype, rng)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [1, 3, (2, 5), (4, 1)])
@pytest.mark.parametrize("dilation", [1, (1, 2)])
def test_conv2d_padding_by_name(padding, kernel, dilation):
    rng = np.random.default_rng(0)
    theirs = torch.nn.Conv2d(3, 4, kernel, padding=padding, dilation=dilation, dtype=torch.float64)
    compare(Conv2d(3, 4, kernel, 1, padding, dilation, generator=rng), theirs, rng.standard_normal((2, 3, 9, 11)), np.float64, rng)


@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (2, 0, 1, 3), (1, 0, 0, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv2d_padding_per_side(sides, stride):
    rng = np.random.default_rng(0)
    top, bottom, left, right = sides
    theirs = torch.nn.Conv2d(3, 4, 3, stride, dtype=torch.float64)
    ours, x = Conv2d(3, 4, 3, stride, sides, generator=rng), rng.standard_normal((2, 3, 8, 7))
    compare(ours, theirs, x, np.float64, rng, lambda image: torch.nn.functional.pad(image, (left, right, top, bottom)))


@pytest.mark.parametrize("shape", [(64, 32, 14, 14), (1, 64, 28, 28), (5, 128, 7, 7), (3, 1, 28, 28)])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 1, 0)])
def test_conv2d_in_the_sizes_of_a_unet(shape, kernel, stride, padding):
    """Several blocks on every thread, in float32."""
    rng = np.random.default_rng(0)
    theirs = torch.nn.Conv2d(shape[1], 32, kernel, stride, padding)
    compare(Conv2d(shape[1], 32, kernel, stride, padding, generator=rng), theirs, rng.standard_normal(shape), np.float32, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(20))
def test_conv_transpose2d(dtype, seed):
    """B23: options that were accepted and then raised."""
    rng = np.random.default_rng(100 + seed)
    channels, outputs = pair(rng, 1, 6)
    kernel, stride = pair(rng, 1, 5), pair(rng, 1, 4)
    padding = tuple(int(rng.integers(k + 1)) for k in kernel)
    extra, bias = tuple(int(rng.integers(s)) for s in stride), bool(rng.integers(2))
    # enough input that something is left of the output
    size = [int(rng.integers(1, 6)) + -(-2 * p // s) for p, s in zip(padding, stride, strict=True)]
    ours = ConvTranspose2d(channels, outputs, kernel, stride, padding, extra, bias=bias, generator=rng)
    theirs = torch.nn.ConvTranspose2d(channels, outputs, kernel, stride, padding, extra, bias=bias, dtype=torch_dtype(dtype))
    x = rng.standard_normal((int(rng.integers(1, 5)), channels, *size))
    compare(ours, theirs, memory_order(rng, x), dtype, rng)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda rng: Linear(40, 300, generator=rng), lambda: torch.nn.Linear(40, 300)),
        (lambda rng: Conv2d(16, 60, (3, 2), groups=4, generator=rng), lambda: torch.nn.Conv2d(16, 60, (3, 2), groups=4)),
        (lambda rng: ConvTranspose2d(30, 60, (3, 2), generator=rng), lambda: torch.nn.ConvTranspose2d(30, 60, (3, 2))),
    ],
)
def test_initial_values_are_drawn_from_the_same_distribution(ours, theirs):
    """B19."""
    torch.manual_seed(0)
    state, reference = ours(np.random.default_rng(0)).state_dict(), theirs().state_dict()
    for name, array in state.items():
        expected = reference[name].numpy()
        assert array.shape == expected.shape
        np.testing.assert_allclose(np.abs(array).max(), np.abs(expected).max(), rtol=0.1)
        np.testing.assert_allclose(array.std(), expected.std(), rtol=0.15)
