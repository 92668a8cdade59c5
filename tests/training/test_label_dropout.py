"""Labels are dropped as often as asked for, independently, and the generator is left alone where none can be."""

import numpy as np
import pytest

import hcrot


def test_labels_are_dropped_as_often_as_asked_for():
    labels = np.random.default_rng(0).integers(0, 10, 20_000)
    found = hcrot.drop_labels(labels, 10, 0.2, np.random.default_rng(1))
    dropped = found == 10
    assert dropped.mean() == pytest.approx(0.2, abs=0.01) and found.dtype == labels.dtype
    np.testing.assert_array_equal(found[~dropped], labels[~dropped])
    for digit in range(10):
        assert dropped[labels == digit].mean() == pytest.approx(0.2, abs=0.05)
    assert dropped[:-1][dropped[1:]].mean() == pytest.approx(0.2, abs=0.03)
    np.testing.assert_array_equal(hcrot.drop_labels(labels, 10, 1, 0), 10)


def test_with_probability_zero_nothing_is_drawn():
    rng, labels = np.random.default_rng(3), np.arange(5)
    before = rng.bit_generator.state
    np.testing.assert_array_equal(hcrot.drop_labels(labels, 9, 0.0, rng), labels)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(3), 10, 0.1, 0), TypeError, "labels must be integers"),
        ((np.zeros((3, 1), int), 10, 0.1, 0), TypeError, "labels must be integers"),
        ((np.arange(3), 2, 0.1, 0), ValueError, "null_label must be an int that is no label"),
        ((np.arange(3), None, 0.1, 0), ValueError, "null_label"),
        ((np.arange(3), 10, 1.5, 0), ValueError, "probability must be a number from 0 to 1"),
        ((np.arange(3), 10, True, 0), ValueError, "probability"),
        ((np.arange(3), 10, 0.5, None), TypeError, "generator"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        hcrot.drop_labels(*arguments)
