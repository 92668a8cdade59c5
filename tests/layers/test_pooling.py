import numpy as np
import pytest

from hcrot.gradcheck import check_gradients
from hcrot.layers.pooling import AvgPool2d, MaxPool2d

GEOMETRIES = [(2, None, 0), ((2, 3), None, 0), (3, 2, 0), (3, 1, 1), ((3, 2), (1, 2), (1, 0)), (2, 3, 0), (1, None, 0), ((4, 5), 2, (2, 1))]
BOTH = [MaxPool2d, AvgPool2d]


def pool_pixel_by_pixel(x, function, fill, kernel, stride, padding):
    """The definition, one window at a time."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0], padding[0]), (padding[1], padding[1])), constant_values=fill)
    height = (padded.shape[2] - kernel[0]) // stride[0] + 1
    width = (padded.shape[3] - kernel[1]) // stride[1] + 1
    y = np.empty((*x.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            window = padded[:, :, i * stride[0] : i * stride[0] + kernel[0], j * stride[1] : j * stride[1] + kernel[1]]
            y[:, :, i, j] = function(window, axis=(2, 3))
    return y


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("layer", "function", "fill"), [(MaxPool2d, np.max, -np.inf), (AvgPool2d, np.mean, 0)])
def test_values_are_those_of_the_definition(layer, function, fill, geometry):
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 9)) - 3
    kernel, stride, padding = geometry
    pairs = [value if isinstance(value, tuple) else (value, value) for value in (kernel, stride or kernel, padding)]
    expected = pool_pixel_by_pixel(x, function, fill, *pairs)
    np.testing.assert_allclose(layer(*geometry)(x), expected, rtol=1e-14)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("layer", BOTH)
def test_gradients(layer, geometry):
    check_gradients(layer(*geometry), np.random.default_rng(0).standard_normal((2, 3, 7, 9)))


@pytest.mark.parametrize("layer", BOTH)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept_and_memory_is_channels_last(layer, dtype):
    rng = np.random.default_rng(1)
    x, dout = rng.standard_normal((2, 3, 7, 9)).astype(dtype), rng.standard_normal((2, 3, 4, 5)).astype(dtype)
    pool = layer(3, 2, 1)
    y, dx = pool(x), pool.backward(dout)
    channels_last = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dout)]
    np.testing.assert_array_equal(pool(channels_last[0]), y)
    np.testing.assert_array_equal(pool.backward(channels_last[1]), dx)
    assert y.dtype == dx.dtype == dtype
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_max_pool_gives_a_tie_to_the_first():
    pool = MaxPool2d(2, 1)
    x = np.array([[1.0, 5, 5], [5, 5, 0]]).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(pool(x), [[[[5, 5]]]])
    np.testing.assert_array_equal(pool.backward(np.array([[[[2.0, 3.0]]]])), [[[[0, 5, 0], [0, 0, 0]]]])


def test_max_pool_forgets_the_last_batch():
    # B24: gradients of every batch went to the places of the first
    pool = MaxPool2d(2)
    for place in range(4):
        x = np.zeros((1, 1, 2, 2))
        x.ravel()[place] = 1
        pool(x)
        np.testing.assert_array_equal(pool.backward(np.ones((1, 1, 1, 1))), x)


def test_max_pool_shows_nan():
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 1, 2] = np.nan
    np.testing.assert_array_equal(MaxPool2d(2)(x), [[[[0, np.nan]]]])


@pytest.mark.parametrize("layer", BOTH)
def test_arguments_are_checked(layer):
    name = layer.__name__
    with pytest.raises(ValueError, match=f"{name}: kernel_size must be an int or two ints of at least 1, got 0"):
        layer(0)
    with pytest.raises(ValueError, match=f"{name}: stride must be an int or two ints of at least 1, got 0"):
        layer(2, 0)
    with pytest.raises(ValueError, match=f"{name}: padding must be an int or two ints of at least 0, got -1"):
        layer(2, 2, -1)
    with pytest.raises(ValueError, match=rf"{name}: padding \(0, 2\) must be at most half of kernel_size \(3, 3\)"):
        layer(3, 1, (0, 2))
    with pytest.raises(ValueError, match=f"{name}: a 2x5 image is too small for kernel_size"):
        layer(3)(np.ones((1, 1, 2, 5)))
    for shape in ((4, 5), (1, 2, 3, 4, 5), (0, 2, 4, 5)):
        message = rf"{name}: expected images of shape \(\[batch,\] channels, height, width\), got shape \({shape[0]}, "
        with pytest.raises(ValueError, match=message):
            layer(2)(np.ones(shape))
    with pytest.raises(TypeError, match=f"{name}: expected a float32 or float64 array, got int64"):
        layer(2)(np.ones((1, 1, 4, 4), np.int64))


def test_max_pool_shows_nan_and_gives_its_gradient_to_the_last():
    pool = MaxPool2d((1, 3), 1)
    x = np.array([5, np.nan, np.nan, 7, -np.inf]).reshape(1, 1, 1, 5)
    np.testing.assert_array_equal(pool(x), [[[[np.nan, np.nan, np.nan]]]])
    np.testing.assert_array_equal(pool.backward(np.array([[[[2.0, 3, 4]]]])), [[[[0, 0, 9, 0, 0]]]])


def test_max_pool_gives_nothing_to_padding():
    pool = MaxPool2d(3, 2, 1)
    x = np.full((1, 1, 3, 3), -np.inf)
    np.testing.assert_array_equal(pool(x), np.full((1, 1, 2, 2), -np.inf))
    np.testing.assert_array_equal(pool.backward(np.array([[[[2.0, 3], [4, 5]]]])), [[[[2, 3, 0], [4, 5, 0], [0, 0, 0]]]])


def test_max_pool_gives_an_infinite_gradient_to_its_own_place_alone():
    pool = MaxPool2d(2)
    pool(np.arange(4.0).reshape(1, 1, 2, 2))
    np.testing.assert_array_equal(pool.backward(np.full((1, 1, 1, 1), np.inf)), [[[[0, 0], [0, np.inf]]]])


def test_max_pool_of_more_places_than_a_byte_counts():
    pool, x = MaxPool2d(17), np.random.default_rng(2).standard_normal((2, 3, 17, 34))
    y = pool(x)
    dx = pool.backward(np.ones_like(y))
    np.testing.assert_array_equal(np.sort(x[dx == 1]), np.sort(y.ravel()))
    assert dx.sum() == y.size
