"""The functions of hcrot.functional: their values, their adjoints, a block made of them, and what they refuse."""

import numpy as np
import pytest

import hcrot
from hcrot.functional import attention, attention_backward, concatenate, pixel_sums, plus, split


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_values_are_those_of_numpy(rng, dtype, order):
    a, b = (order(rng.standard_normal((3, channels, 5, 7)).astype(dtype)) for channels in (4, 2))
    y = concatenate(a, b)
    np.testing.assert_array_equal(y, np.concatenate([a, b], axis=1))
    for part, expected in zip(split(y, np.int64(4)), (a, b), strict=True):
        np.testing.assert_array_equal(part, expected)
    np.testing.assert_array_equal(plus(a, 2 * a), a + 2 * a)
    np.testing.assert_allclose(pixel_sums(a), a.sum(axis=(2, 3)), rtol=1e-6, atol=1e-5)
    assert {array.dtype for array in (y, *split(y, 1), plus(a, a), pixel_sums(a))} == {np.dtype(dtype)}


def test_split_is_the_adjoint_of_concatenate(rng):
    """``<c, concatenate(a, b)> = <split(c), (a, b)>``, for every c."""
    a, b, c = (rng.standard_normal((2, channels, 3, 5)) for channels in (3, 4, 7))
    da, db = split(c, 3)
    assert np.vdot(c, concatenate(a, b)) == pytest.approx(np.vdot(da, a) + np.vdot(db, b), rel=1e-12)


def test_pixel_sums_is_the_adjoint_of_adding_one_number_to_all_pixels(rng):
    s, c = rng.standard_normal((2, 3)), rng.standard_normal((2, 3, 4, 5))
    assert np.vdot(c, np.broadcast_to(s[:, :, None, None], c.shape)) == pytest.approx(np.vdot(pixel_sums(c), s), rel=1e-12)


class Skip(hcrot.Module):
    """The block in the docstring of hcrot.functional."""

    def __init__(self, channels):
        self.conv = hcrot.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return concatenate(x, self.conv(x))

    def backward(self, dout):
        dx, dh = split(dout, dout.shape[1] // 2)
        return plus(dx, self.conv.backward(dh))


def test_a_block_of_them_has_the_right_gradients(rng):
    hcrot.check_gradients(Skip(3), rng.standard_normal((2, 3, 5, 4)))


class Attend(hcrot.Module):
    """Attention as a module, so that its gradients can be checked."""

    def forward(self, q, k, v):
        o, logsum = attention(q, k, v)
        self.save(q, k, v, logsum)
        return o

    def backward(self, do):
        return attention_backward(do, *self.saved())


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_attention(rng, order):
    q, k, v = (order(rng.standard_normal((2, 3, tokens, 5))) for tokens in (4, 7, 7))
    scores = np.exp(np.einsum("bhid,bhjd->bhij", q, k) / np.sqrt(5))
    expected = np.einsum("bhij,bhjd->bhid", scores / scores.sum(axis=3, keepdims=True), v)
    o, logsum = attention(q, k, v)
    np.testing.assert_allclose(o, expected, rtol=1e-12)
    np.testing.assert_allclose(logsum, np.log(scores.sum(axis=3)), rtol=1e-12)
    assert attention(*(array.astype(np.float32) for array in (q, k, v)))[0].dtype == np.float32
    hcrot.check_gradients(Attend(), q, k, v)


IMAGES = np.ones((2, 3, 4, 5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: concatenate(IMAGES[0], IMAGES), r"concatenate: a must be images of shape .* got shape \(3, 4, 5\)"),
        (lambda: concatenate(IMAGES, [1]), "concatenate: b must be images of shape .* got list"),
        (lambda: concatenate(IMAGES, IMAGES[:1]), r"concatenate: a and b must have .* \(2, 3, 4, 5\) and float64 of shape \(1, 3, 4, 5\)"),
        (lambda: concatenate(IMAGES, IMAGES.astype(np.float32)), "concatenate: a and b must have the same dtype"),
        (lambda: concatenate(IMAGES, IMAGES[..., :4]), "concatenate: a and b must have the same dtype, batch, height and width"),
        (lambda: split(IMAGES.astype(int), 1), "split: x must be float32 or float64, got int64"),
        (lambda: split(IMAGES, 3), "split: width must be an int from 1 to 2, for images with 3 channels, got 3"),
        (lambda: split(IMAGES, 0), "split: width must be an int from 1 to 2"),
        (lambda: split(IMAGES, True), "split: width must be an int from 1 to 2.* got True"),
        (lambda: split(IMAGES, 1.0), r"split: width must be an int from 1 to 2.* got 1\.0"),
        (lambda: plus(IMAGES, IMAGES[:, :1]), "plus: a and b must have the same shape and dtype, got float64"),
        (lambda: plus(IMAGES[:0], IMAGES[:0]), r"plus: a must be images .* got shape \(0, 3, 4, 5\), which is empty"),
        (lambda: attention(IMAGES, IMAGES[0], IMAGES), r"attention: k must have .* tokens, d\), got shape \(3, 4, 5\)"),
        (lambda: attention(IMAGES.astype(int), IMAGES, IMAGES), "attention: q must be float32 or float64, got int64"),
        (lambda: attention(IMAGES, IMAGES, IMAGES[:, :, :2]), r"k and v as many tokens, got .* float64 \(2, 3, 2, 5\)"),
        (lambda: attention(IMAGES, IMAGES[:, :2], IMAGES[:, :2]), "q, k and v must have the same dtype, batch, heads and d"),
        (lambda: attention_backward(IMAGES[:1], *[IMAGES] * 4), r"do must be float64 of shape \(2, 3, 4, 5\), got float64 of shape \(1,"),
        (lambda: attention_backward(*[IMAGES] * 4, 0), r"logsum must be float64 of shape \(2, 3, 4\), got int"),
        (lambda: pixel_sums(np.ones((2, 3))), r"pixel_sums: x must be images of shape .* got shape \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
