"""What is told of a run under way."""

import numpy as np

from hcrot.training.progress import loss_by_quarter


def test_losses_are_told_by_quarter_of_the_time():
    assert loss_by_quarter(np.array([1.0, 3.0, 5.0]), np.array([0, 249, 999]), 1000) == [2.0, None, None, 5.0]
