"""Metrics: the Fréchet distance against closed forms and against its definition; accuracy by hand."""

import numpy as np
import pytest
import scipy.linalg

from hcrot.tools.metrics import accuracy, accuracy_by_class, frechet_distance


def by_definition(a, b):
    mean_a, mean_b, cov_a, cov_b = a.mean(0), b.mean(0), np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root)


def cloud(rng, count, width):
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


@pytest.mark.parametrize(("count_a", "count_b", "width"), [(50, 70, 5), (40, 40, 16), (300, 9, 8)])
def test_frechet_distance_is_its_definition(count_a, count_b, width):
    rng = np.random.default_rng(width)
    a, b = cloud(rng, count_a, width), cloud(rng, count_b, width)
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_frechet_distance_of_one_feature_by_hand():
    # (mu_a - mu_b)^2 + (sigma_a - sigma_b)^2 with means 1 and 12, deviations sqrt(2) and sqrt(8)
    a, b = np.array([[0.0], [2.0]]), np.array([[10.0], [14.0]])
    assert frechet_distance(a, b) == pytest.approx(11**2 + 2, rel=1e-12)


def test_frechet_distance_of_a_shift_and_of_a_scale():
    a = cloud(np.random.default_rng(0), 60, 7)
    shift = np.arange(7.0)
    assert frechet_distance(a, a + shift) == pytest.approx(shift @ shift, rel=1e-9)
    centred = a - a.mean(axis=0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * np.trace(np.cov(a.T)), rel=1e-9)


@pytest.mark.parametrize("count", [3, 200])
def test_frechet_distance_to_itself_is_zero_even_where_covariances_are_singular(count):
    a = cloud(np.random.default_rng(1), count, 12)
    a[:, 4] = 0
    a[:, 5] = a[:, 6]
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-12 * np.trace(np.cov(a.T))


def test_frechet_distance_computes_float32_features_in_float64_and_leaves_them_alone():
    rng = np.random.default_rng(2)
    a, b = (1000 + cloud(rng, 40, 6)).astype(np.float32), (1000 + cloud(rng, 50, 6)).astype(np.float32)
    before = a.copy()
    assert frechet_distance(a, b) == frechet_distance(a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), r"features_a must have the shape .*got \(1, 3\)"),
        (np.zeros((5, 3)), np.zeros((5, 3, 1)), r"features_b must have the shape .*got \(5, 3, 1\)"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "features_a has 3 features and features_b 4"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "features_b has numbers that are not finite"),
    ],
)
def test_frechet_distance_of_bad_input(a, b, message):
    with pytest.raises(ValueError, match=f"frechet_distance: {message}"):
        frechet_distance(a, b)


LOGITS = np.array([[3, 1, 0, 0], [0, 2, 1, 0], [0, 5, 6, 0], [9, 1, 1, 0], [1, 1, 0, 0]], np.float32)


def test_accuracy_by_hand():
    labels = np.array([0, 1, 1, 2, 0], np.uint8)
    share = accuracy(LOGITS, labels)
    assert type(share) is float and share == 0.6
    for kind in (np.uint8, np.int32, np.uint64):
        np.testing.assert_array_equal(accuracy_by_class(LOGITS, labels.astype(kind)), [1, 0.5, 0, np.nan])


@pytest.mark.parametrize("metric", [accuracy, accuracy_by_class])
@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (LOGITS[:, 0], np.zeros(5, int), ValueError, r"logits must be an array of shape \(N, K\).*got \(5,\)"),
        (LOGITS[:0], np.zeros(0, int), ValueError, r"logits .* got \(0, 4\)"),
        (LOGITS, np.zeros(5), TypeError, "labels must be an array of integers, got an array of float64"),
        (LOGITS, [0, 0, 0, 0, 0], TypeError, "labels must be an array of integers, got list"),
        (LOGITS, np.zeros(4, int), ValueError, r"labels \(4,\) do not fit logits \(5, 4\)"),
        (LOGITS, np.full(5, 4), ValueError, r"labels range from 4 to 4, expected 0 \.\. 3"),
        (LOGITS, np.array([0, 1, 2, 3, -1]), ValueError, "labels range from -1 to 3"),
        (np.full((2, 3), np.nan), np.zeros(2, int), ValueError, "logits have NaN"),
    ],
)
def test_accuracy_of_bad_input(metric, logits, labels, error, message):
    with pytest.raises(error, match=f"{metric.__name__}: {message}"):
        metric(logits, labels)
