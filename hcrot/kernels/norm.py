"""Group normalisation (Wu & He 2018), alone or followed by SiLU.

Notation: B images of C channels and P pixels, G groups of C/G neighbouring channels. Each group of each image is normalised by the mean
and variance of its own ``P C/G`` numbers:

    xhat = (x - mean) rstd,    rstd = 1 / sqrt(var + eps),    n = weight xhat + bias,    y = n, or silu(n) = n sigmoid(n)

Backward: dn is dy, or ``dy silu'(n)`` with ``silu'(n) = s (1 + n (1 - s))`` and ``s = sigmoid(n)``. Every x of a group acts on its mean and
variance, but all that comes of it are two sums per image and channel, ``S1 = sum_p dn`` and ``S2 = sum_p dn xhat``:

    dweight = sum_b S2,    dbias = sum_b S1,
    dx = rstd (weight dn - m1 - xhat m2),    m1 = sum_c weight S1 / (P C/G) over the channels c of the group,    m2 likewise from S2

Kept for backward are x, mean and rstd: xhat, n and sigmoid(n) are computed again more cheaply than they are written and read.

Why it is fast:
- an image is finished before the next one begins, so that its second and third pass find it in the core's own cache;
- numbers that belong to channels are repeated for as many pixels as make a *strip* of some 500, so that every loop runs over hundreds of
  contiguous numbers, whatever C is;
- SiLU costs no pass of its own, and its exponential runs in vector lanes.

Why it is exact: the variance is a pass of its own, not ``E[x^2] - E[x]^2``, which cancels. Strips are added up in the arrays' dtype, and
these partial sums go to float64 before they grow large, so that a 256x256 image loses nothing. n is computed as ``scale x + offset``: where
mean is much larger than 1 / rstd, that rounds no more than x itself was rounded when it was stored.

Why it is right for numbers of every size: where squares overflow (x of 1e19 and more in float32, 1e154 in float64) or vanish, the moments
of that group are taken once more, slowly, of numbers divided by the largest. Backward needs no such care. It works with xhat, and never
with the square of rstd, which would be 0 or infinite there.
"""

import math

import numpy as np

from hcrot.kernels.activation import silu_backward_of, silu_gradient_reference, silu_of, silu_reference
from hcrot.kernels.im2col import add, copy
from hcrot.kernels.jit import distinct_jit, jit, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.plain import referenced

__all__ = ["group_norm", "group_norm_backward", "group_norm_backward_reference", "group_norm_reference", "row_moments"]

STRIP = 512
"""About how many numbers make a strip. Measured on Zen 4: 384 to 768 are alike, 128 is a third slower."""

STRIPS_PER_SUM = 32
"""How many strips are added up in the arrays' dtype before their sum is added to a float64 total."""

SMALL_VARIANCE = 1e-30
"""A variance, eps included, for which squares below the smallest normal float32, 1e-38, don't count."""


@distinct_jit
def add_squares(x, center, sums):
    for k in range(x.size):
        sums[k] += (x[k] - center[k]) * (x[k] - center[k])


@distinct_jit
def add_products(dn, x, rstd, shift, sums, products):
    """Add dn to the sums, and ``dn xhat`` to the products, with ``xhat = rstd x + shift``."""
    for k in range(x.size):
        sums[k] += dn[k]
        products[k] += dn[k] * (x[k] * rstd[k] + shift[k])


@distinct_jit
def affine(x, scale, offset, silu, y):
    """``n = scale x + offset``; y is n or silu(n)."""
    if silu:
        for k in range(x.size):
            y[k] = silu_of(x[k] * scale[k] + offset[k])
    else:
        for k in range(x.size):
            y[k] = x[k] * scale[k] + offset[k]


@distinct_jit
def affine_gradient(dy, x, scale, offset, silu, dn):
    """The gradient dn of n in :func:`affine`."""
    if silu:
        for k in range(x.size):
            dn[k] = silu_backward_of(x[k] * scale[k] + offset[k], dy[k])
    else:
        copy(dy, dn)


@distinct_jit
def combine(dn, scale, x, rstd, slope, offset):
    """``dn <- scale dn + rstd (slope x + offset)``."""
    for k in range(x.size):
        dn[k] = dn[k] * scale[k] + rstd[k] * (x[k] * slope[k] + offset[k])


@distinct_jit
def combine_and_add(dn, scale, x, rstd, slope, offset, residual):
    """``dn <- scale dn + rstd (slope x + offset) + residual``."""
    for k in range(x.size):
        dn[k] = dn[k] * scale[k] + rstd[k] * (x[k] * slope[k] + offset[k]) + residual[k]


@jit
def strip_length(most, period):
    """A power of two, so that strips can be halved, times ``period``: the largest that is at most ``most``, if any is."""
    length = period
    while 2 * length <= most:
        length *= 2
    return length


@jit
def sum_strip(strip, totals):
    """Add up the repetitions in a strip, halving it again and again, and add that to totals; the strip itself is lost."""
    half = strip.size // 2
    while half >= totals.size:
        add(strip[half : 2 * half], strip[:half])
        half //= 2
    add(strip[: totals.size], totals)


@jit
def repeat_strip(strip, period):
    """Repeat the first ``period`` numbers of a strip through the rest of it, doubling again and again."""
    done = period
    while done < strip.size:
        copy(strip[:done], strip[done : 2 * done])
        done *= 2


@jit
def scaled_moments(x, start, size, channels, eps):
    """Mean and rstd of one group, without squares that overflow or vanish: those are of numbers divided by the largest of them.

    Args:
        x: (P C,). start, size: first channel of the group and how many it has. channels: C.
    """
    top, mean, var = 1e-300, 0.0, 0.0  # a reciprocal of less might be infinite
    for pixel in range(start, x.size, channels):
        for k in range(pixel, pixel + size):
            top = max(top, abs(np.float64(x[k])))
    count = x.size // channels * size
    for pixel in range(start, x.size, channels):
        for k in range(pixel, pixel + size):
            mean += x[k] / top
    mean /= count
    for pixel in range(start, x.size, channels):
        for k in range(pixel, pixel + size):
            var += (x[k] / top - mean) ** 2
    return top * mean, np.float64(1) / math.hypot(top * math.sqrt(var / count), math.sqrt(eps))


@jit
def moments(x, eps, mean, rstd, strips, totals):
    """Mean and rstd of each group of one image.

    Args:
        x: (P C,). mean, rstd: (G,), written. strips: (2, length of a strip) and totals: float64 (C,), buffers.
    """
    sums, center = strips[0], strips[1]
    strip, size, count = sums.size, totals.size // mean.size, x.size // mean.size
    for squared in (False, True):
        totals.fill(0)
        for first in range(0, x.size, STRIPS_PER_SUM * strip):
            sums.fill(0)
            last = min(first + STRIPS_PER_SUM * strip, x.size)
            for start in range(first, last, strip):
                part = x[start : min(start + strip, last)]
                if squared:
                    add_squares(part, center, sums)
                else:
                    add(part, sums)
            sum_strip(sums, totals)
        for g in range(mean.size):
            total = 0.0
            for c in range(g * size, (g + 1) * size):
                total += totals[c]
            if squared:
                variance = total / count + eps
                rstd[g] = 1 / np.sqrt(variance)
                if not SMALL_VARIANCE < variance < np.inf:  # or NaN
                    mean[g], rstd[g] = scaled_moments(x, g * size, size, totals.size, eps)
            else:
                mean[g] = total / count
                for c in range(g * size, (g + 1) * size):
                    center[c] = mean[g]
        if not squared:
            repeat_strip(center, totals.size)


@parallel_jit
def _group_norm(x, weight, bias, eps, silu, y, mean, rstd, strip, share, num_shares):
    if launched(share, num_shares):
        return
    channels, size = weight.size, weight.size // mean.shape[1]
    first, last = share_bounds(x.shape[0], share, num_shares)
    strips = np.empty((4, strip), x.dtype)
    totals = np.empty(channels, np.float64)
    scale, offset = strips[2], strips[3]
    for b in range(first, last):
        moments(x[b], eps, mean[b], rstd[b], strips[:2], totals)
        for g in range(mean.shape[1]):
            for c in range(g * size, (g + 1) * size):
                scale[c] = rstd[b, g] * weight[c]
                offset[c] = bias[c] - mean[b, g] * scale[c]
        repeat_strip(scale, channels)
        repeat_strip(offset, channels)
        for start in range(0, x.shape[1], strip):
            end = min(start + strip, x.shape[1])
            affine(x[b, start:end], scale, offset, silu, y[b, start:end])


@jit
def gradient_moments(dy, x, silu, dn, strips, totals):
    """Write dn, its sum per channel to ``totals[0]``, that of ``dn xhat`` to ``totals[1]``; one image.

    Args:
        dy, x, dn: (P C,). strips: (6, length of a strip): two buffers, then the strips of rstd, shift, scale and offset, with
            ``xhat = rstd x + shift`` and ``n = scale x + offset``. totals: float64 (2, C).
    """
    sums, products, rate, shift, scale, offset = strips[0], strips[1], strips[2], strips[3], strips[4], strips[5]
    strip = sums.size
    totals.fill(0)
    for first in range(0, x.size, STRIPS_PER_SUM * strip):
        strips[:2].fill(0)
        last = min(first + STRIPS_PER_SUM * strip, x.size)
        for start in range(first, last, strip):
            end = min(start + strip, last)
            affine_gradient(dy[start:end], x[start:end], scale, offset, silu, dn[start:end])
            add_products(dn[start:end], x[start:end], rate, shift, sums, products)
        sum_strip(sums, totals[0])
        sum_strip(products, totals[1])


@parallel_jit
def _group_norm_backward(dy, x, mean, rstd, weight, bias, silu, residual, dx, dparameters, strip, share, num_shares):
    if launched(share, num_shares):
        return
    groups, channels = mean.shape[1], weight.size
    size, count = channels // groups, x.shape[1] // groups
    first, last = share_bounds(x.shape[0], share, num_shares)
    strips = np.empty((6, strip), x.dtype)
    totals = np.empty((2, channels), np.float64)
    rate, shift, scale, offset = strips[2], strips[3], strips[4], strips[5]
    for b in range(first, last):
        for g in range(groups):
            for c in range(g * size, (g + 1) * size):
                rate[c] = rstd[b, g]
                shift[c] = -mean[b, g] * rstd[b, g]
                scale[c] = rstd[b, g] * weight[c]
                offset[c] = bias[c] - mean[b, g] * scale[c]
        for i in range(2, 6):
            repeat_strip(strips[i], channels)
        gradient_moments(dy[b], x[b], silu, dx[b], strips, totals)
        slope, constant = shift, offset  # which are not needed any more
        for g in range(groups):
            m1, m2 = 0.0, 0.0
            for c in range(g * size, (g + 1) * size):
                m1 += weight[c] * totals[0, c] / count
                m2 += weight[c] * totals[1, c] / count
            for c in range(g * size, (g + 1) * size):
                constant[c] = -m1 - m2 * shift[c]
                slope[c] = -m2 * rate[c]
                dparameters[share, 0, c] += totals[1, c]
                dparameters[share, 1, c] += totals[0, c]
        repeat_strip(constant, channels)
        repeat_strip(slope, channels)
        for start in range(0, x.shape[1], strip):
            end = min(start + strip, x.shape[1])
            if residual.size > 0:
                combine_and_add(dx[b, start:end], scale, x[b, start:end], rate, slope, constant, residual[b, start:end])
            else:
                combine(dx[b, start:end], scale, x[b, start:end], rate, slope, constant)


def _pixels(x: np.ndarray) -> np.ndarray:
    """Images (B, C, ...) as (B, P C), one pixel after the other: a view if their memory is channels-last, else a copy."""
    axes = (0, 2, 3, 1) if x.ndim == 4 else (0, *range(2, x.ndim), 1)
    return np.ascontiguousarray(x.transpose(axes)).reshape(len(x), -1)


def _images(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The way back from :func:`_pixels`: a view."""
    last = len(shape) - 1
    axes = (0, 3, 1, 2) if last == 3 else (0, last, *range(1, last))
    return pixels.reshape(shape[0], *shape[2:], shape[1]).transpose(axes)


@referenced
def group_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, num_groups: int, eps: float, silu: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise groups of channels, scale and shift each channel and, if ``silu``, apply SiLU.

    Args:
        x: (B, C, ...), any number of further axes, float32 or float64.
        weight, bias: (C,), of x's dtype.
        num_groups: G; divides C.
        eps: added to the variance.
        silu: whether y is silu(n) or n.

    Returns:
        y (B, C, ...), memory channels-last, and mean and rstd (B, G), which backward needs. All of x's dtype.
    """
    pixels = _pixels(x)
    y = np.empty_like(pixels)
    mean, rstd = np.empty((len(x), num_groups), x.dtype), np.empty((len(x), num_groups), x.dtype)
    weight, bias = np.ascontiguousarray(weight), np.ascontiguousarray(bias)
    _group_norm(pixels, weight, bias, eps, silu, y, mean, rstd, strip_length(STRIP, x.shape[1]), shares(len(x), 1))
    return _images(y, x.shape), mean, rstd


def row_moments(rows: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and ``1 / sqrt(var + eps)`` of each row, in plain NumPy, without squares that overflow or vanish: those are of numbers divided
    by the largest of the row.

    Args:
        rows: (R, N), float32 or float64.

    Returns:
        mean and rstd (R, 1), of the same dtype; NaN for rows that are not finite.
    """
    top = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(rows.dtype).tiny)
    scaled = rows / top
    mean, deviation = scaled.mean(axis=1, keepdims=True), scaled.std(axis=1, keepdims=True)
    return top * mean, 1 / np.hypot(top * deviation, rows.dtype.type(math.sqrt(eps)))


def _expand(per_group: np.ndarray, channels: int, ndim: int) -> np.ndarray:
    """Numbers of groups (B, G) as numbers of channels (B, C, 1, ...)."""
    per_channel = np.repeat(per_group, channels // per_group.shape[1], axis=1)
    return per_channel.reshape(*per_channel.shape, *[1] * (ndim - 2))


def _affine_reference(x, mean, rstd, weight, bias) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xhat, weight and n, all shaped to go with x."""
    weight, bias = (parameter.reshape(-1, *[1] * (x.ndim - 2)) for parameter in (weight, bias))
    xhat = (x - _expand(mean, x.shape[1], x.ndim)) * _expand(rstd, x.shape[1], x.ndim)
    return xhat, weight, weight * xhat + bias


def group_norm_reference(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, num_groups: int, eps: float, silu: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`group_norm` in plain NumPy."""
    mean, rstd = (per_group.reshape(-1, num_groups) for per_group in row_moments(x.reshape(x.shape[0] * num_groups, -1), eps))
    _, _, n = _affine_reference(x, mean, rstd, weight, bias)
    return silu_reference(n) if silu else n, mean, rstd


@referenced
def group_norm_backward(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    silu: bool,
    residual: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradient of :func:`group_norm`.

    Args:
        dy: (B, C, ...), the gradient of y.
        x, weight, bias, silu: as in the forward pass.
        mean, rstd: (B, G), what it returned.
        residual: (B, C, ...) or None, added to dx where it is written, which saves a pass through memory.

    Returns:
        dx (B, C, ...), memory channels-last, dweight and dbias (C,). All of x's dtype.
    """
    pixels = _pixels(x)
    dx = np.empty_like(pixels)
    num_shares = shares(x.shape[0], 1)
    dparameters = np.zeros((num_shares, 2, x.shape[1]))
    mean, rstd, weight, bias = (np.ascontiguousarray(a) for a in (mean, rstd, weight, bias))
    strip = strip_length(STRIP, x.shape[1])
    rest = np.empty((0, 0), x.dtype) if residual is None else _pixels(residual)
    _group_norm_backward(_pixels(dy), pixels, mean, rstd, weight, bias, silu, rest, dx, dparameters, strip, num_shares)
    dweight, dbias = dparameters.sum(axis=0).astype(x.dtype)
    return _images(dx, x.shape), dweight, dbias


def group_norm_backward_reference(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    silu: bool,
    residual: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`group_norm_backward` in plain NumPy."""
    xhat, scale, n = _affine_reference(x, mean, rstd, weight, bias)
    dn = silu_gradient_reference(n, dy) if silu else dy
    m1, m2 = ((scale * a).reshape(*mean.shape, -1).mean(axis=2) for a in (dn, dn * xhat))
    m1, m2, rstd = (_expand(a, x.shape[1], x.ndim) for a in (m1, m2, rstd))
    pixels = (0, *range(2, x.ndim))
    dx = rstd * (scale * dn - m1 - xhat * m2)
    return dx if residual is None else dx + residual, (dn * xhat).sum(axis=pixels), dn.sum(axis=pixels)
