"""Activations, embeddings, pooling, flattening and resampling beside PyTorch's and diffusers'."""

import math

import numpy as np
import pytest

from hcrot.kernels.resample import nearest, nearest_gradient
from hcrot.layers.activation import GELU, Mish, ReLU, Sigmoid, SiLU, Softmax, Tanh
from hcrot.layers.embedding import Embedding, GaussianFourierProjection, TimestepEmbedding, Timesteps
from hcrot.layers.pooling import AvgPool2d, MaxPool2d
from hcrot.layers.resample import Downsample, Upsample
from hcrot.layers.reshape import Flatten

torch = pytest.importorskip("torch")

DTYPES = [(np.float32, 1e-5), (np.float64, 1e-12)]


def compare(ours, theirs, x: np.ndarray, dtype: type, tolerance: float, **options) -> None:
    """Assert equal outputs, input gradients and parameter gradients of two layers with the same weights; float32 gradients to ten times
    the tolerance."""
    ours.astype(dtype)
    theirs.to(torch.float32 if dtype == np.float32 else torch.float64)
    for name, parameter in ours.named_parameters():
        theirs.get_parameter(name).data.copy_(torch.from_numpy(parameter.data.copy()))
    differentiable = np.issubdtype(x.dtype, np.floating)
    x = x.astype(dtype) if differentiable else x
    inputs = torch.from_numpy(x.copy()).requires_grad_(differentiable)

    y, expected = ours(x, **options), theirs(inputs, *options.values())
    dout = np.random.default_rng(9).standard_normal(y.shape).astype(dtype)
    dx = ours.backward(dout)
    expected.backward(torch.from_numpy(dout))

    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    if differentiable:
        np.testing.assert_allclose(dx, inputs.grad.numpy(), rtol=10 * tolerance, atol=10 * tolerance)
    for name, parameter in ours.named_parameters():
        np.testing.assert_allclose(parameter.grad, theirs.get_parameter(name).grad.numpy(), rtol=10 * tolerance, atol=10 * tolerance)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(
    ("ours", "name", "arguments"),
    [
        (SiLU, "SiLU", {}),
        (ReLU, "ReLU", {}),
        (GELU, "GELU", {}),
        (GELU, "GELU", {"approximate": "tanh"}),
        (Mish, "Mish", {}),
        (Sigmoid, "Sigmoid", {}),
        (Tanh, "Tanh", {}),
        (Softmax, "Softmax", {"dim": -1}),
        (Softmax, "Softmax", {"dim": 1}),
        (Softmax, "Softmax", {"dim": 0}),
        (Flatten, "Flatten", {}),
        (Flatten, "Flatten", {"start_dim": -3, "end_dim": 2}),
    ],
)
def test_activations_and_flatten(ours, name, arguments, dtype, tolerance):
    compare(ours(**arguments), getattr(torch.nn, name)(**arguments), 4 * images(2, 3, 5, 7), dtype, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("arguments", [(2,), ((2, 3),), (3, 2), (3, 1, 1), ((3, 2), (1, 2), (1, 0)), ((4, 5), 2, (2, 1))], ids=str)
@pytest.mark.parametrize("ours", [MaxPool2d, AvgPool2d])
def test_pooling(ours, arguments, dtype, tolerance):
    compare(ours(*arguments), getattr(torch.nn, ours.__name__)(*arguments), images(2, 3, 7, 9), dtype, tolerance)


def test_max_pool_breaks_ties_alike():
    # small integers, so that most windows hold their largest number several times
    x = np.random.default_rng(1).integers(0, 3, (2, 3, 8, 9)).astype(np.float64)
    compare(MaxPool2d(3, 2, 1), torch.nn.MaxPool2d(3, 2, 1), x, np.float64, 1e-14)


@pytest.mark.parametrize("indices", [np.array([[1, 1, 4], [0, 1, 2]]), np.array([2])])
@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding(indices, padding_idx):
    for dtype, tolerance in DTYPES:
        compare(Embedding(5, 3, padding_idx), torch.nn.Embedding(5, 3, padding_idx), indices, dtype, tolerance)


def test_nearest_agrees_wherever_pytorch_is_exact():
    """PyTorch multiplies by size / out_size in float32, which falls short of a whole number now and then; there alone we differ."""
    different = 0
    for size in range(1, 65):
        x = torch.arange(size, dtype=torch.float32).reshape(1, 1, 1, size)
        for out_size in range(1, 129):
            ours = np.arange(out_size) * size // out_size
            theirs = torch.nn.functional.interpolate(x, size=(1, out_size), mode="nearest").numpy().ravel()
            wrong = np.flatnonzero(ours != theirs)
            # a seam: the exact position is a whole number
            assert not (wrong * size % out_size).any()
            assert (theirs[wrong] == ours[wrong] - 1).all()
            if out_size == 2 * size or size == (out_size + 1) // 2:
                assert wrong.size == 0
            different += wrong.size > 0
    assert 0 < different < 100


@pytest.mark.parametrize(("size", "out_size"), [((7, 5), (14, 10)), ((7, 5), (13, 9)), ((6, 9), (4, 17)), ((14, 14), (28, 28))])
def test_nearest(size, out_size):
    x, dout = images(2, 3, *size), images(2, 3, *out_size)
    inputs = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.interpolate(inputs, size=out_size, mode="nearest")
    expected.backward(torch.from_numpy(dout))
    np.testing.assert_array_equal(nearest(x, *out_size), expected.detach().numpy())
    np.testing.assert_allclose(nearest_gradient(dout, *size), inputs.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("use_conv", [True, False])
@pytest.mark.parametrize("size", [None, (9, 13), (8, 12), (3, 4)], ids=str)
def test_upsample(size, use_conv, dtype, tolerance):
    upsampling = pytest.importorskip("diffusers.models.upsampling")
    theirs = upsampling.Upsample2D(3, use_conv=use_conv, out_channels=4 if use_conv else None)
    ours = Upsample(3, 4 if use_conv else None, use_conv=use_conv, generator=np.random.default_rng(0))
    compare(ours, theirs, images(2, 3, 5, 7), dtype, tolerance, size=size)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("use_conv", [True, False])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_downsample(size, use_conv, padding, dtype, tolerance):
    downsampling = pytest.importorskip("diffusers.models.downsampling")
    theirs = downsampling.Downsample2D(3, use_conv=use_conv, padding=padding)
    ours = Downsample(3, use_conv=use_conv, padding=padding, generator=np.random.default_rng(0))
    compare(ours, theirs, images(2, 3, *size), dtype, tolerance)


@pytest.mark.parametrize("dim", [2, 8, 33, 224])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0, 0.5])
def test_timesteps(dim, flip, shift):
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    for timesteps in (np.array([0, 1, 500, 999]), np.array([0.25, 3.5, 700.125], np.float32)):
        theirs = embeddings.Timesteps(dim, flip, shift)(torch.from_numpy(timesteps)).numpy()
        # an ulp of the exponential, times a thousand
        np.testing.assert_allclose(Timesteps(dim, flip, shift)(timesteps), theirs, atol=1e-4)
        np.testing.assert_allclose(Timesteps(dim, flip, shift)(timesteps, np.float64), theirs, atol=1e-4)


@pytest.mark.parametrize("timesteps", [np.array([1, 2, 30]), np.array([0.01, 0.5, 79.9], np.float32), np.array([0.3, 700.0])], ids=str)
def test_gaussian_fourier_projection(timesteps):
    """Angles of up to a thousand radians, that an ulp of float32 moves by 1e-4; none in float64."""
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    ours = GaussianFourierProjection(20, 16, generator=np.random.default_rng(0))
    theirs = embeddings.GaussianFourierProjection(20, 16)
    assert {name: tuple(value.shape) for name, value in theirs.state_dict().items()} == {"weight": ours.weight.shape}
    assert [theirs.weight.requires_grad] == [ours.weight.trainable] == [False]
    for dtype, tolerance in [(np.float32, 2e-4), (np.float64, 1e-10)]:
        ours.astype(dtype)
        theirs.to(torch.float32 if dtype == np.float32 else torch.float64)
        theirs.weight.data.copy_(torch.from_numpy(ours.weight.data))
        times = timesteps.astype(dtype)
        y = ours(times)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, theirs(torch.from_numpy(times)).numpy(), atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_timestep_embedding(dtype, tolerance):
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    ours = TimestepEmbedding(6, 10, generator=np.random.default_rng(0))
    theirs = embeddings.TimestepEmbedding(6, 10)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    compare(ours, theirs, images(4, 6), dtype, tolerance)


ACTIVATIONS = [(SiLU, {}), (ReLU, {}), (GELU, {}), (GELU, {"approximate": "tanh"}), (Mish, {}), (Sigmoid, {}), (Tanh, {})]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("ours", "arguments"), ACTIVATIONS)
def test_activations_of_numbers_of_every_size(ours, arguments, dtype, tolerance):
    """Up to where PyTorch's own powers of x overflow; the smallest of these are subnormal, which PyTorch may take for 0."""
    powers = np.logspace(math.log10(np.finfo(dtype).smallest_subnormal), 9, 400)
    x = np.concatenate([-powers, [0], powers])
    compare(ours(**arguments), getattr(torch.nn, ours.__name__)(**arguments), x, dtype, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("ours", "arguments"), ACTIVATIONS)
def test_infinite_and_nan_gradients_go_through_activations_alike(ours, arguments, dtype):
    """Where no slope rounds to 0, as products with that depend on how PyTorch rounds."""
    x = np.tile(np.array([-3, -0.5, 0.25, 2], dtype), 3)
    dout = np.repeat(np.array([np.inf, -np.inf, np.nan], dtype), 4)
    inputs = torch.from_numpy(x.copy()).requires_grad_()
    getattr(torch.nn, ours.__name__)(**arguments)(inputs).backward(torch.from_numpy(dout))
    layer = ours(**arguments)
    layer(x)
    np.testing.assert_array_equal(layer.backward(dout), inputs.grad.numpy())


@pytest.mark.parametrize("arguments", [(2,), (3, 2), (3, 1, 1), ((3, 2), (1, 2), (1, 0)), ((4, 5), 2, (2, 1))], ids=str)
def test_max_pool_passes_what_is_not_finite_alike(arguments):
    rng = np.random.default_rng(3)
    x = images(2, 3, 7, 9)
    x[rng.random(x.shape) < 0.6] = -np.inf
    x[:, 1][rng.random(x[:, 1].shape) < 0.3] = np.nan
    x[:, 2][rng.random(x[:, 2].shape) < 0.3] = np.inf
    ours, theirs = MaxPool2d(*arguments), torch.nn.MaxPool2d(*arguments)
    inputs = torch.from_numpy(x).requires_grad_()
    y, expected = ours(x), theirs(inputs)
    np.testing.assert_array_equal(y, expected.detach().numpy())
    dout = rng.choice([1.5, -2.25, np.inf, np.nan], y.shape)
    expected.backward(torch.from_numpy(dout))
    np.testing.assert_array_equal(ours.backward(dout), inputs.grad.numpy())


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_the_largest_numbers_and_of_what_is_not_finite(dtype):
    most, inf = np.finfo(dtype).max, np.inf
    x = np.array([[most, -most, 0], [1e30, 1e30, -1e30], [1e20, -inf, 1e20], [inf, 0, 1], [-inf, -inf, -inf], [1, 0, np.nan]], dtype)
    dout = np.random.default_rng(4).standard_normal(x.shape).astype(dtype)
    ours, inputs = Softmax(), torch.from_numpy(x.copy()).requires_grad_()
    expected = torch.softmax(inputs, -1)
    expected.backward(torch.from_numpy(dout))
    np.testing.assert_array_equal(ours(x), expected.detach().numpy())
    np.testing.assert_allclose(ours.backward(dout), inputs.grad.numpy(), rtol=1e-5, atol=1e-7)
