"""The attention kernels: references, definition, extremes, and every way of cutting into blocks, strips and shares."""

import numpy as np
import pytest

from hcrot.kernels import attention as kernels
from hcrot.kernels.attention import attention, attention_backward, attention_backward_reference, attention_reference
from support.processes import run

# batch, tokens, heads, size of a head
CASES = [
    (1, 1, 1, 1),
    (2, 5, 3, 4),
    (3, 49, 2, 8),
    (1, 143, 1, 5),  # several blocks of queries, the last one smaller
    (2, 130, 2, 16),
    (1, 7, 4, 1),
    (1, 260, 1, 3),
]

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def draw(batch, tokens, heads, size, dtype=np.float64):
    """q, k, v and do; scores are some units wide, so that the softmax is neither flat nor a maximum."""
    rng = np.random.default_rng(0)
    return tuple((1.5 * rng.standard_normal((batch, tokens, heads * size))).astype(dtype) for _ in range(4))


def close(got, expected, dtype=np.float64):
    """Equal up to rounding, relative to the largest entry."""
    assert got.dtype == dtype
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * max(1e-3, np.abs(expected).max()))


def compare(q, k, v, do, heads):
    """Both kernels against their references."""
    dtype = q.dtype.type
    results = attention(q, k, v, heads)
    for got, expected in zip(results, attention_reference(q, k, v, heads), strict=True):
        close(got, expected, dtype)
    arguments = do, q, k, v, results[1], heads
    for got, expected in zip(attention_backward(*arguments), attention_backward_reference(*arguments), strict=True):
        close(got, expected, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("batch", "tokens", "heads", "size"), CASES)
def test_kernels_agree_with_their_references(batch, tokens, heads, size, dtype):
    arrays = draw(batch, tokens, heads, size, dtype)
    before = [a.copy() for a in arrays]
    compare(*arrays, heads)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "heads", "size"), [(2, 5, 9, 3, 4), (1, 143, 3, 2, 5), (3, 1, 7, 1, 2), (2, 4, 150, 2, 8), (2, 6, 1, 2, 3)]
)
def test_more_or_fewer_keys_than_queries(batch, queries, keys, heads, size, dtype):
    q, _, _, do = draw(batch, queries, heads, size, dtype)
    _, k, v, _ = draw(batch, keys, heads, size, dtype)
    compare(q, k, v, do, heads)


@pytest.mark.parametrize("num_shares", [1, 3])
@pytest.mark.parametrize("keys", [2, 17])
def test_more_or_fewer_keys_in_every_way_of_cutting(monkeypatch, num_shares, keys):
    monkeypatch.setattr(kernels, "shares", lambda work, grain: num_shares)
    monkeypatch.setattr(kernels, "QUERIES_AT_ONCE", 5)
    q, _, _, do = draw(2, 13, 2, 3)
    _, k, v, _ = draw(2, keys, 2, 3)
    compare(q, k, v, do, 2)


def test_the_definition_written_out():
    q, k, v, _ = draw(2, 3, 2, 4)
    o, logsum = attention(q, k, v, 2)
    for b in range(2):
        for head in range(2):
            own = slice(4 * head, 4 * head + 4)
            for i in range(3):
                weights = np.array([np.exp(q[b, i, own] @ k[b, j, own] / 2) for j in range(3)])
                np.testing.assert_allclose(o[b, i, own], weights @ v[b, :, own] / weights.sum())
                np.testing.assert_allclose(logsum[b, head, i], np.log(weights.sum()))


@pytest.mark.parametrize("width", [1, 5, 13, 200])
@pytest.mark.parametrize("strip", [1, 30, 10_000])
@pytest.mark.parametrize("num_shares", [1, 2, 5])
def test_every_way_of_cutting_gives_the_same_numbers(monkeypatch, num_shares, strip, width):
    monkeypatch.setattr(kernels, "STRIP", strip)
    monkeypatch.setattr(kernels, "shares", lambda work, grain: num_shares)
    monkeypatch.setattr(kernels, "QUERIES_AT_ONCE", width)
    compare(*draw(1, 13, 2, 3), 2)
    compare(*draw(3, 13, 1, 4), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_any_size(dtype):
    # B30: without the shift by the maximum, exp overflows; B29: and the weights sum to exactly 1, no eps beside the exponentials
    q, k, v = (np.array(values, dtype).reshape(1, 3, 1) for values in ([-1000, 0, 1000], [10, 0, -10], [1, 2, 4]))
    o, logsum = attention(q, k, v, 1)
    np.testing.assert_allclose(o.ravel(), [4, 7 / 3, 1], rtol=1e-6)
    np.testing.assert_allclose(logsum.ravel(), [1e4, np.log(3), 1e4], rtol=1e-6)
    for gradient in attention_backward(np.ones_like(q), q, k, v, logsum, 1):
        assert np.isfinite(gradient).all()


def test_a_far_away_key_gets_no_weight_at_all():
    # B29: an eps in the softmax would leave 1e-8 to it
    q, k = np.full((1, 1, 1), 100.0), np.array([10.0, -10]).reshape(1, 2, 1)
    o, _ = attention(np.repeat(q, 2, axis=1), k, np.array([0, 1e30]).reshape(1, 2, 1), 1)
    np.testing.assert_array_equal(o, 0)


def test_nan_shows_and_stays_in_its_image_and_head():
    q, k, v, _ = draw(2, 5, 3, 4)
    k[1, 2, 5] = np.nan
    o, _ = attention(q, k, v, 3)
    assert np.isnan(o[1, :, 4:8]).all()
    assert np.isfinite(o[0]).all() and np.isfinite(o[1, :, :4]).all() and np.isfinite(o[1, :, 8:]).all()


def test_any_memory_order_gives_the_same_numbers():
    q, k, v, do = draw(2, 13, 2, 4)
    o, logsum = attention(q, k, v, 2)
    expected = o, *attention_backward(do, q, k, v, logsum, 2)
    gaps = [np.repeat(a, 2, axis=2)[..., ::2] for a in (q, k, v, do)]
    fortran = [np.asfortranarray(a) for a in (q, k, v, do)]
    for q, k, v, do in (gaps, fortran):
        o, logsum = attention(q, k, v, 2)
        for one, other in zip((o, *attention_backward(do, q, k, v, logsum, 2)), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_works_without_compilation():
    program = """
import numpy as np
from hcrot.kernels.attention import *
rng = np.random.default_rng(0)
q, k, v, do = (rng.standard_normal((2, 5, 6)) for _ in range(4))
o, logsum = attention(q, k, v, 2)
np.testing.assert_allclose(o, attention_reference(q, k, v, 2)[0], rtol=1e-10)
arguments = do, q, k, v, logsum, 2
for got, expected in zip(attention_backward(*arguments), attention_backward_reference(*arguments)):
    np.testing.assert_allclose(got, expected, rtol=1e-10)
"""
    result = run(program, NUMBA_DISABLE_JIT="1")
    assert result.returncode == 0, result.stderr


def integer_attention(size: float, dtype: type) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """q, k, v, do of one head, whose scores are whole multiples of size and so exact, and the true o, dq, dk, dv.

    Of three keys two share the largest score; the third has no part in the softmax.
    """
    q, k = np.array([1, 2, 4], dtype) * dtype(size), np.array([3, 3, 1], dtype)
    v, do = np.array([1, 5, 7], dtype), np.array([2, -1, 3], dtype)
    p = np.array([[0.5, 0.5, 0]] * 3)
    ds = p * (np.outer(do, v) - (p * np.outer(do, v)).sum(axis=1, keepdims=True))
    exact = [p @ v, ds @ k, ds.T @ q.astype(np.float64), p.T @ do]
    return [a.reshape(1, 3, 1) for a in (q, k, v, do)], [a.reshape(1, 3, 1) for a in exact]


@pytest.mark.parametrize("functions", [(attention, attention_backward), (attention_reference, attention_backward_reference)])
@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 2.0**power) for power in (7, 17, 30, 60, 100)] + [(np.float64, 2.0**power) for power in (10, 60, 900)]
)
def test_large_scores_share_alike_in_backward_too(functions, dtype, size):
    """log(2) is lost beside a score of 10^8."""
    forward, backward = functions
    (q, k, v, do), (o, *gradients) = integer_attention(size, dtype)
    got, logsum = forward(q, k, v, 1)
    np.testing.assert_allclose(got, o, rtol=1e-6)
    for array, exact in zip(backward(do, q, k, v, logsum, 1), gradients, strict=True):
        np.testing.assert_allclose(array, exact, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("functions", [(attention, attention_backward), (attention_reference, attention_backward_reference)])
@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rows_of_scores_that_are_not_finite_are_nan_and_no_others(functions, wrong, dtype):
    forward, backward = functions
    q = np.array([1, wrong, 2], dtype).reshape(1, 3, 1)
    k, v, do = (np.random.default_rng(0).uniform(0.5, 1, (3, 1, 3, 1))).astype(dtype)
    o, logsum = forward(q, k, v, 1)
    assert np.isnan(o).ravel().tolist() == [False, True, False]
    dq, dk, dv = backward(do, q, k, v, logsum, 1)
    assert np.isnan(dq).ravel().tolist() == [False, True, False]
    assert np.isnan(dk).all() and np.isnan(dv).all()
