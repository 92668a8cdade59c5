"""BatchNorm's running averages.

In training, columns are normalised by the mean and variance of the batch; in inference, by averages over the batches seen so far, of which
each new batch makes up the share ``momentum``.
"""

import numpy as np


class BatchNorm:
    """xhat = (x - mean) / sqrt(var + eps) for x (N, C).

    Args:
        channels: C.
        momentum: how much the latest batch counts in the running averages: 0.1 means a tenth, as in PyTorch.
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        self.momentum, self.eps = momentum, eps
        self.running_mean, self.running_var = np.zeros(channels), np.ones(channels)
        self.training = True

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.training:
            mean, var = x.mean(axis=0), x.var(axis=0)
            # bug: begin
            self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mean
            self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
            # bug: mended
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
            self.running_var = (1 - self.momentum) * self.running_var + self.momentum * var
            # bug: end
        else:
            mean, var = self.running_mean, self.running_var
        return (x - mean) / np.sqrt(var + self.eps)


# kept back: the learner's file ends here

SYMPTOM = """
The accuracy on the test set jumps up and down by ten percent from one epoch to the next, although the training loss falls smoothly. If I
normalise the test images by their own batch, it is steady.
"""

HINTS = [
    "Training and inference differ in one thing only here. Plot running_mean over a hundred batches of equal distribution.",
    "How many batches does the average remember? After a batch of mean 1 that follows many of mean 0, what is it?",
    "The documentation above says which share the latest batch has.",
]

EXPLANATION = """
With momentum 0.1 the latest batch counted nine tenths: the averages were nearly those of the last batch of training. Some libraries mean
by momentum the share of the new (PyTorch: 0.1), others that of the old (TensorFlow: 0.99), and an optimizer's momentum is that of the
old, too. An average that hardly averages looks right in each single number. Plotted, it is as noisy as what it averages.
"""


def check(yours, check) -> None:
    layer = yours.BatchNorm(3)
    for _ in range(60):
        layer(np.array([[1.0, 2.0, 5.0], [-1.0, -2.0, 5.0]]))
    layer(np.array([[10.0, 2.0, 5.0], [8.0, -2.0, 5.0]]))
    mean = layer.running_mean[0]
    check.that(abs(mean - 0.9) < 0.02, f"one odd batch, of mean 9 after many of mean 0, makes the mean in inference {mean:.2f}")
    layer.training = False
    before = layer.running_mean.copy()
    layer(check.normal(4, 3))
    check.equal("the running mean after inference", layer.running_mean, before)
