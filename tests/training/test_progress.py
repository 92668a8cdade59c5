"""What is told of a run under way."""

import numpy as np

from hcrot.training.progress import errors_by_quarter, means_by_quarter


def test_losses_are_told_by_quarter_of_the_time():
    target = np.zeros((3, 1, 2, 2), np.float32)
    prediction = np.array([1, 3, 5], np.float32)[:, None, None, None] + target
    sums = errors_by_quarter(prediction, target, np.array([0, 249, 999]), 1000)
    assert sums.tolist() == [[10, 0, 0, 25], [2, 0, 0, 1]]
    assert means_by_quarter(sums) == [5.0, None, None, 25.0]
