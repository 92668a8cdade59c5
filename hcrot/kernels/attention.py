"""Scaled dot-product attention (Vaswani et al. 2017, eq. 1) over several heads, and its gradient.

Notation: B images of T tokens (pixels), h heads of d numbers each; of an array (B, T, h d), head n owns columns ``n d`` to ``(n + 1) d``.
There are as many keys and values as queries, T, where an image attends to itself; in general there are K of them.
For one head of one image, with q of shape (T, d) and k, v of shape (K, d), query i and key j:

    S = q k^T / sqrt(d),    P_ij = exp(S_ij - l_i) with l_i = log sum_j exp(S_ij), the softmax of row i,    o = P v

Backward, from do:

    dv = P^T do,    dP = do v^T,    dS_ij = P_ij (dP_ij - sum_j P_ij dP_ij),    dq = dS k / sqrt(d),    dk = dS^T q / sqrt(d)

Kept for backward are q, k, v and l (B, h, T). P, which is T/d times as large as q, is computed again, for one product and one exponential:
with B 64, h 4, T 196 and d 8 that takes one core 4 ms, about as long as merely writing P's 39 MB into fresh memory.

Why it is fast:
- scores live in a buffer in the cache of the core that works on them, some hundred queries of one head at a time, and never in memory
  (as in Dao et al. 2022, but with all keys at once, which a CPU's cache has room for);
- they are kept transposed, (key, query): then every step of the softmax, its maxima and sums too, runs along memory in vector lanes, and
  the products read rows of contiguous numbers;
- a row of 49 queries (7x7 pixels) is short, so loops run over strips of several rows, as those of ``kernels/norm.py`` do.

Why it is right for scores of every size: where they are large (10^5 and more in float32), l is rounded by as much as it differs from the
largest score, and exp(S - l) would not add up to 1. Forward does without l, backward divides by what they add up to. A row with a score of
infinity or NaN, or -infinity alone, is NaN, as in PyTorch.
"""

import math

import numpy as np

from hcrot.kernels.activation import exp
from hcrot.kernels.im2col import copy
from hcrot.kernels.jit import jit, launched, parallel_jit, share_bounds, shares
from hcrot.kernels.norm import STRIP, repeat_strip, strip_length, sum_strip
from hcrot.kernels.plain import referenced
from hcrot.kernels.product import multiply, product_of

__all__ = [
    "GRAIN", "QUERIES_AT_ONCE", "attention", "attention_backward", "attention_backward_reference", "attention_reference", "exponentiate",
    "exponentiate_and_weigh", "put_head_transposed", "raise_to", "score_gradient", "softmax_columns", "softmax_columns_backward",
    "take_head", "take_head_transposed",
]  # fmt: skip

QUERIES_AT_ONCE = 128
"""So few that their scores stay in cache."""

GRAIN = 5_000
"""Scores worth a thread of their own: some 5 microseconds of work."""


@jit
def take_head(x, column, factor, rows):
    """Copy ``factor`` times the columns of x (T, h d) from ``column`` on to ``rows`` (T, d)."""
    size = rows.shape[1]
    for t in range(rows.shape[0]):
        source, row = x[t, column : column + size], rows[t]
        for c in range(size):
            row[c] = factor * source[c]


@jit
def take_head_transposed(x, column, factor, columns):
    """As :func:`take_head`, but to ``columns`` (d, T)."""
    size = columns.shape[0]
    for t in range(columns.shape[1]):
        source = x[t, column : column + size]
        for c in range(size):
            columns[c, t] = factor * source[c]


@jit
def put_head_transposed(columns, factors, column, x):
    """The way back: ``x[t, column + c] = factors[t] columns[c, t]``."""
    size = columns.shape[0]
    for t in range(columns.shape[1]):
        target = x[t, column : column + size]
        for c in range(size):
            target[c] = factors[t] * columns[c, t]


@jit
def raise_to(x, top):
    for k in range(x.size):
        top[k] = max(top[k], x[k])


@jit
def exponentiate(scores, shift, sums):
    """``p = exp(s - shift)``, in place of the scores; ``sums += p``."""
    for k in range(scores.size):
        scores[k] = exp(scores[k] - shift[k])
        sums[k] += scores[k]


@jit
def exponentiate_and_weigh(scores, shift, weights, sums, weighted):
    """``p = exp(s - shift)``, in place of the scores; ``sums += p``, ``weighted += p weights``."""
    for k in range(scores.size):
        scores[k] = exp(scores[k] - shift[k])
        sums[k] += scores[k]
        weighted[k] += scores[k] * weights[k]


@jit
def score_gradient(probs, factors, means, dprobs):
    """``P = factor p``, in place of p, and ``dS = P (dP - mean)``, in place of dP."""
    for k in range(probs.size):
        probs[k] *= factors[k]
        dprobs[k] = probs[k] * (dprobs[k] - means[k])


@jit
def softmax_columns(scores, strips, tops, totals):
    """Replace the scores by ``exp(s - tops)``, where tops are the maxima over the keys, and add that up over the keys.

    Args:
        scores: (T * w,), the (key, query) matrix row by row. strips: two buffers. tops, totals: (w,), written.
    """
    width = totals.size
    strip = strip_length(strips.shape[1], width)
    shift, sums = strips[0, :strip], strips[1, :strip]
    shift.fill(-np.inf)
    for start in range(0, scores.size, strip):
        raise_to(scores[start : min(start + strip, scores.size)], shift)
    half = strip // 2
    while half >= width:
        raise_to(shift[half : 2 * half], shift[:half])
        half //= 2
    copy(shift[:width], tops)
    repeat_strip(shift, width)
    sums.fill(0)
    for start in range(0, scores.size, strip):
        exponentiate(scores[start : min(start + strip, scores.size)], shift, sums)
    totals.fill(0)
    sum_strip(sums, totals)


@jit
def softmax_columns_backward(scores, dprobs, strips, logsum, totals):
    """Replace the scores by P and dP by ``dS = P (dP - sum over keys of P dP)``, where ``p = exp(s - logsum)`` and ``P = p / sum of p``.

    Args:
        scores, dprobs: (T * w,), (key, query) matrices row by row. strips: three buffers. logsum: (w,). totals: (2, w), a buffer.
    """
    width = logsum.size
    strip = strip_length(strips.shape[1], width)
    shift, sums, weighted = strips[0, :strip], strips[1, :strip], strips[2, :strip]
    copy(logsum, shift[:width])
    repeat_strip(shift, width)
    sums.fill(0)
    weighted.fill(0)
    for start in range(0, scores.size, strip):
        end = min(start + strip, scores.size)
        exponentiate_and_weigh(scores[start:end], shift, dprobs[start:end], sums, weighted)
    totals.fill(0)
    sum_strip(sums, totals[0])
    sum_strip(weighted, totals[1])
    factors, means = sums, weighted
    for i in range(width):
        factors[i] = 1 / totals[0, i]
        means[i] = totals[1, i] / totals[0, i]
    repeat_strip(factors, width)
    repeat_strip(means, width)
    for start in range(0, scores.size, strip):
        end = min(start + strip, scores.size)
        score_gradient(scores[start:end], factors, means, dprobs[start:end])


@parallel_jit
def _attention(product, q, k, v, heads, width, strip, o, logsum, share, num_shares):
    if launched(share, num_shares):
        return
    batch, tokens, inner = q.shape
    others = k.shape[1]
    size, blocks = inner // heads, -(-tokens // width)
    one, scale = q.dtype.type(1), q.dtype.type(1 / math.sqrt(size))
    start, stop = share_bounds(batch * heads * blocks, share, num_shares)
    keys, values = np.empty((others, size), q.dtype), np.empty((others, size), q.dtype)
    columns, buffer = np.empty(size * width, q.dtype), np.empty(others * width, q.dtype)
    strips = np.empty((2, strip), q.dtype)
    totals = np.empty(width, q.dtype)
    for unit in range(start, stop):
        b, head, first = unit // (heads * blocks), unit // blocks % heads, unit % blocks * width
        last = min(first + width, tokens)
        w, column = last - first, head * size
        qt, scores = columns[: size * w].reshape(size, w), buffer[: others * w].reshape(others, w)
        take_head(k[b], column, one, keys)
        take_head(v[b], column, one, values)
        take_head_transposed(q[b, first:last], column, scale, qt)
        multiply(product, keys, qt, scores, False)
        softmax_columns(buffer[: others * w], strips, logsum[b, head, first:last], totals[:w])
        multiply(product, values.T, scores, qt, False)
        for i in range(w):
            logsum[b, head, first + i] += np.log(totals[i])
            totals[i] = one / totals[i]
        put_head_transposed(qt, totals[:w], column, o[b, first:last])


@parallel_jit
def _attention_backward(product, do, q, k, v, logsum, heads, width, strip, dq, dk, dv, share, num_shares):
    if launched(share, num_shares):
        return
    batch, tokens, inner = q.shape
    others = k.shape[1]
    size = inner // heads
    one, scale = q.dtype.type(1), q.dtype.type(1 / math.sqrt(size))
    start, stop = share_bounds(batch * heads, share, num_shares)
    keys, values = np.empty((others, size), q.dtype), np.empty((others, size), q.dtype)
    columns, rows, buffers = np.empty(size * width, q.dtype), np.empty((width, size), q.dtype), np.empty((2, others * width), q.dtype)
    strips = np.empty((3, strip), q.dtype)
    totals, factors = np.empty((2, width), q.dtype), np.full(width, scale, q.dtype)
    for unit in range(start, stop):
        b, head = unit // heads, unit % heads
        column = head * size
        take_head(k[b], column, one, keys)
        take_head(v[b], column, one, values)
        for first in range(0, tokens, width):
            last = min(first + width, tokens)
            w = last - first
            across = columns[: size * w].reshape(size, w)
            probs, dprobs = buffers[0, : others * w].reshape(others, w), buffers[1, : others * w].reshape(others, w)
            take_head_transposed(do[b, first:last], column, one, across)
            multiply(product, values, across, dprobs, False)
            take_head_transposed(q[b, first:last], column, scale, across)
            multiply(product, keys, across, probs, False)
            softmax_columns_backward(
                buffers[0, : others * w], buffers[1, : others * w], strips, logsum[b, head, first:last], totals[:, :w]
            )
            take_head(do[b, first:last], column, one, rows[:w])
            multiply(product, probs, rows[:w], dv[b, :, column : column + size], True)
            take_head(q[b, first:last], column, scale, rows[:w])
            multiply(product, dprobs, rows[:w], dk[b, :, column : column + size], True)
            multiply(product, keys.T, dprobs, across, False)
            put_head_transposed(across, factors[:w], column, dq[b, first:last])


@referenced
def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """``softmax(q k^T / sqrt(d)) v`` for each head of each image.

    Args:
        q: (B, T, h d), k, v: (B, K, h d), float32 or float64, all of one dtype.
        heads: h.

    Returns:
        o (B, T, h d) and logsum (B, h, T), the logarithm of the softmax's denominator, which backward needs.
    """
    q, k, v = (np.ascontiguousarray(a) for a in (q, k, v))
    batch, tokens, inner = q.shape
    o, logsum = np.empty_like(q), np.empty((batch, heads, tokens), q.dtype)
    num_shares = shares(batch * heads * tokens * k.shape[1], GRAIN)
    width = min(tokens, QUERIES_AT_ONCE)
    if batch * heads < num_shares:  # even so, let every thread have as many blocks of queries
        width = -(-tokens // (num_shares * -(-tokens // (width * num_shares))))
    _attention(product_of(q.dtype), q, k, v, heads, width, max(STRIP, width), o, logsum, num_shares)
    return o, logsum


def attention_reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`attention` in plain NumPy."""
    q, k, v = (_split_heads(a, heads) for a in (q, k, v))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3])
    top = scores.max(axis=3)
    p = np.exp(scores - top[..., None])
    total = p.sum(axis=3)
    return _join_heads(p / total[..., None] @ v), top + np.log(total)


@referenced
def attention_backward(
    do: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, logsum: np.ndarray, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradient of :func:`attention`.

    Args:
        do: (B, T, h d), the gradient of o.
        q, k, v, heads: as in the forward pass.
        logsum: (B, h, T), what it returned.

    Returns:
        dq (B, T, h d), dk and dv (B, K, h d).
    """
    do, q, k, v, logsum = (np.ascontiguousarray(a) for a in (do, q, k, v, logsum))
    batch, tokens, inner = q.shape
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    num_shares = min(batch * heads, shares(batch * heads * tokens * k.shape[1], GRAIN))
    width = min(tokens, QUERIES_AT_ONCE)
    _attention_backward(product_of(q.dtype), do, q, k, v, logsum, heads, width, max(STRIP, width), dq, dk, dv, num_shares)
    return dq, dk, dv


def attention_backward_reference(
    do: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, logsum: np.ndarray, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`attention_backward` in plain NumPy."""
    do, q, k, v = (_split_heads(a, heads) for a in (do, q, k, v))
    scale = 1 / math.sqrt(q.shape[3])
    p = np.exp(q @ k.swapaxes(2, 3) * scale - logsum[..., None])
    p /= p.sum(axis=3, keepdims=True)
    dp = do @ v.swapaxes(2, 3)
    ds = p * (dp - (p * dp).sum(axis=3, keepdims=True)) * scale
    return _join_heads(ds @ k), _join_heads(ds.swapaxes(2, 3) @ q), _join_heads(p.swapaxes(2, 3) @ do)


def _split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, T, h d) -> (B, h, T, d)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _join_heads(x: np.ndarray) -> np.ndarray:
    """(B, h, T, d) -> (B, T, h d)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
