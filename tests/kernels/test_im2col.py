"""im2col and col2im: the definition, the worked examples, the adjoint identity."""

import doctest

import numpy as np
import pytest

from hcrot.kernels import im2col as module
from hcrot.kernels.im2col import col2im, col2im_reference, im2col, im2col_reference, make_geometry, output_size
from hcrot.kernels.jit import get_num_threads, set_num_threads

# image shape (B, C, H, W), kernel_size, stride, padding, dilation
CASES = [
    ((1, 1, 1, 1), 1, 1, 0, 1),
    ((2, 3, 1, 1), 3, 1, 1, 1),
    ((3, 2, 5, 7), 3, 1, 1, 1),
    ((3, 2, 5, 7), (2, 3), (2, 1), 0, 1),  # B22: rows took the stride of columns
    ((2, 5, 6, 4), (3, 1), (1, 3), (2, 0), 1),
    ((2, 1, 9, 8), (3, 2), 2, (1, 0, 2, 3), 1),
    ((1, 4, 9, 11), 3, 1, 2, (2, 3)),
    ((2, 3, 8, 7), 3, (3, 2), (0, 1, 0, 1), 2),
    ((2, 2, 6, 5), (4, 2), 1, "same", (1, 2)),
    ((2, 2, 6, 5), (6, 5), 1, "valid", 1),
    ((1, 2, 3, 4), 2, 5, 3, 1),  # whole windows of padding
    ((7, 3, 13, 11), 3, 2, 1, 1),  # enough columns for several threads
]


def by_definition(x, kernel_size, stride, padding, dilation):
    """columns[(b, oy, ox), (i, j, c)] = x[b, c, oy stride_h - top + i dilation_h, ox stride_w - left + j dilation_w], number by number."""
    kernel_h, kernel_w, stride_h, stride_w, top, _, left, _, dilation_h, dilation_w = geometry = make_geometry(
        kernel_size, stride, padding, dilation
    )
    batch, channels, height, width = x.shape
    out_h, out_w = output_size(height, width, geometry)
    columns = np.zeros((batch, out_h, out_w, kernel_h, kernel_w, channels), x.dtype)
    for b, oy, ox, i, j, c in np.ndindex(*columns.shape):
        y, at = oy * stride_h - top + i * dilation_h, ox * stride_w - left + j * dilation_w
        if 0 <= y < height and 0 <= at < width:
            columns[b, oy, ox, i, j, c] = x[b, c, y, at]
    return columns.reshape(batch * out_h * out_w, kernel_h * kernel_w * channels)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("unfold", [im2col, im2col_reference])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "kernel_size", "stride", "padding", "dilation"), CASES)
def test_im2col_is_its_definition(rng, unfold, dtype, shape, kernel_size, stride, padding, dilation):
    x = rng.standard_normal(shape).astype(dtype)
    before = x.copy()
    columns = unfold(x, kernel_size, stride, padding, dilation)
    assert columns.dtype == dtype
    np.testing.assert_array_equal(columns, by_definition(x, kernel_size, stride, padding, dilation))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(("unfold", "fold"), [(im2col, col2im), (im2col_reference, col2im_reference)])
@pytest.mark.parametrize(("shape", "kernel_size", "stride", "padding", "dilation"), CASES)
def test_col2im_is_the_adjoint(rng, unfold, fold, shape, kernel_size, stride, padding, dilation):
    """S1-11: <im2col(x), c> = <x, col2im(c)> for all x and c determines col2im."""
    x = rng.standard_normal(shape)
    columns = unfold(x, kernel_size, stride, padding, dilation)
    c = rng.standard_normal(columns.shape)
    before = c.copy()
    image = fold(c, shape, kernel_size, stride, padding, dilation)
    assert image.shape == shape
    np.testing.assert_allclose(np.vdot(columns, c), np.vdot(x, image), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(c, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "kernel_size", "stride", "padding", "dilation"), CASES)
def test_col2im_equals_its_reference(rng, dtype, shape, kernel_size, stride, padding, dilation):
    c = rng.standard_normal(im2col_reference(np.zeros(shape), kernel_size, stride, padding, dilation).shape).astype(dtype)
    got = col2im(c, shape, kernel_size, stride, padding, dilation)
    expected = col2im_reference(c, shape, kernel_size, stride, padding, dilation)
    assert got.dtype == expected.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


def test_the_worked_example_of_the_article():
    """S1-05, S1-06, S1-12; columns times filter, not filter times columns, which is right for this symmetric example only."""
    x, kernel = np.arange(1.0, 10.0).reshape(1, 1, 3, 3), np.array([[0.1, 0.2], [0.3, 0.4]])
    columns = im2col(x, 2)
    np.testing.assert_array_equal(columns, [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]])
    np.testing.assert_allclose((columns @ kernel.ravel()).reshape(2, 2), [[3.7, 4.7], [6.7, 7.7]], rtol=1e-15)


def test_the_examples_in_the_docstrings():
    attempted = doctest.testmod(module).attempted
    assert attempted >= 3
    assert doctest.testmod(module).failed == 0


def test_any_memory_order_gives_the_same_columns(rng):
    x = rng.standard_normal((3, 4, 6, 5))
    columns = im2col(x, 3, 2, 1)
    for other in (
        np.asfortranarray(x),
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.repeat(x, 2, axis=3)[..., ::2],
        np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1],
    ):
        np.testing.assert_array_equal(im2col(other, 3, 2, 1), columns)
    image = col2im(columns, x.shape, 3, 2, 1)
    np.testing.assert_array_equal(col2im(np.asfortranarray(columns), x.shape, 3, 2, 1), image)
    np.testing.assert_array_equal(col2im(np.repeat(columns, 2, axis=1)[:, ::2], x.shape, 3, 2, 1), image)


def test_the_number_of_threads_changes_nothing(rng):
    x, before = rng.standard_normal((5, 3, 17, 15)), get_num_threads()
    several = im2col(x, 3, 1, 1)
    image = col2im(several, x.shape, 3, 1, 1)
    try:
        set_num_threads(1)
        np.testing.assert_array_equal(im2col(x, 3, 1, 1), several)
        np.testing.assert_array_equal(col2im(several, x.shape, 3, 1, 1), image)
    finally:
        set_num_threads(before)


def test_results_are_channels_last_in_memory(rng):
    image = col2im(rng.standard_normal((2 * 16, 9 * 3)), (2, 3, 4, 4), 3, 1, 1)
    assert image.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((1, 3, 3)), 2), r"im2col: x: expected a float32 or float64 array of shape .* got float64 array of shape \(1, 3, 3\)"),
        ((np.ones((1, 1, 3, 3), int), 2), "im2col: x: expected .* got int64 array"),
        ((np.ones((1, 1, 3, 3), np.float16), 2), "im2col: x: expected .* got float16 array"),
        (([[[[1.0]]]], 1), "im2col: x: expected .* got list"),
        ((np.ones((1, 1, 3, 3)), 4), r"im2col: a 3x3 image is too small for kernel_size \(4, 4\)"),
        ((np.ones((1, 1, 3, 9)), 2, 1, 0, 3), "im2col: a 3x9 image is too small"),
        ((np.ones((1, 1, 3, 3)), 0), "im2col: kernel_size must be an int or two ints of at least 1, got 0"),
        ((np.ones((1, 1, 3, 3)), 1.5), "im2col: kernel_size"),
        ((np.ones((1, 1, 3, 3)), (1, 2, 3)), "im2col: kernel_size"),
        ((np.ones((1, 1, 3, 3)), 2, 0), "im2col: stride"),
        ((np.ones((1, 1, 3, 3)), 2, (1, -1)), "im2col: stride"),
        ((np.ones((1, 1, 3, 3)), 2, 1, -1), "im2col: padding must be an int or two ints of at least 0, got -1"),
        ((np.ones((1, 1, 3, 3)), 2, 1, (1, 1, 1, -1)), "im2col: padding must be made of ints of at least 0"),
        ((np.ones((1, 1, 3, 3)), 2, 1, (1, 1, 1)), "im2col: padding"),
        ((np.ones((1, 1, 3, 3)), 2, 1, "full"), "im2col: padding must be ints, 'same' or 'valid', got 'full'"),
        ((np.ones((1, 1, 3, 3)), 2, 2, "same"), "im2col: padding 'same' needs stride 1"),
        ((np.ones((1, 1, 3, 3)), 2, 1, 0, 0), "im2col: dilation"),
    ],
)
def test_im2col_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        im2col(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((4, 3)), (1, 1, 3, 3), 2), r"col2im: columns of images \(1, 1, 3, 3\) must have shape \(4, 4\), got \(4, 3\)"),
        ((np.ones((9, 4)), (1, 1, 3, 3), 2), r"col2im: columns .* must have shape \(4, 4\), got \(9, 4\)"),
        ((np.ones((4, 4)), (1, 1, 1, 3), 2), "col2im: a 1x3 image is too small"),
        ((np.ones((4, 4)), (1, 1, 3, 3), 2, -1), "col2im: stride"),
    ],
)
def test_col2im_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        col2im(*arguments)
    with pytest.raises(ValueError, match=message):
        col2im_reference(*arguments)
