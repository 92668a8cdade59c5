"""Classifier-free guidance with one call of the network.

`model(x, t, labels)` takes pictures (N, C, H, W), one timestep and labels (N,), and returns the noise. Write `guided`, which returns
eps(null) + w * (eps(label) - eps(null)). Call the model once, with all pictures twice: one batch of 2 N uses a processor better than two of
N. For w = 1 the guidance changes nothing: then call it with the N pictures and their labels only.
"""

from collections.abc import Callable

import numpy as np


def guided(model: Callable, x: np.ndarray, t: int, labels: np.ndarray, null_label: int, w: float) -> np.ndarray:
    # yours: begin
    if w == 1:
        return model(x, t, labels)
    both = model(np.concatenate([x, x]), t, np.concatenate([labels, np.full_like(labels, null_label)]))
    with_class, without = np.split(both, 2)
    return without + w * (with_class - without)
    # yours: end


# kept back: the learner's file ends here

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "np.concatenate([x, x]) is the batch of 2 N. Its labels are the labels, then N times the null label.",
    "np.split(result, 2) gives both halves back, in the order in which you put them in.",
    "Start from the answer without a class and go w times the way to the one with it: w = 0 must ignore the labels.",
]
DERIVATION = """
Bayes' rule: grad log p(x|c) = grad log p(x) + grad log p(c|x). The last term is the difference of what the network says with and without
the class; take it w times. As eps = -sigma score, the same combination holds for the noises:

    eps = eps(x, null) + w (eps(x, c) - eps(x, null))

Ho & Salimans 2022, arXiv:2207.12598, equation 6 with its w being w - 1 here. hcrot.pipelines.sample does it so.
"""
WRONG = {
    "from the answer with the class": ("return without + w", "return with_class + w"),
    "halves exchanged": ("with_class, without = np.split", "without, with_class = np.split"),
    "twice the work for w = 1": ("if w == 1:", "if False:"),
}


def check(yours, check: Check) -> None:
    table, calls = check.normal(11), []

    def model(x, t, labels):
        calls.append(len(x))
        check.that(len(x) == len(labels), f"the model was given {len(x)} pictures and {len(labels)} labels")
        return np.tanh(x + t / 100) * table[labels][:, None, None, None]

    for count, w in ((3, 2.5), (1, 0.0), (4, 1.0), (2, -1.0)):
        x, labels = check.normal(count, 1, 4, 4), check.integers(10, count)
        kept = x.copy()
        without, with_class = model(x, 7, np.full(count, 10)), model(x, 7, labels)
        calls.clear()
        found = yours.guided(model, x, 7, labels, 10, w)
        check.equal(f"guided, w = {w}", found, without + w * (with_class - without))
        check.that(np.array_equal(x, kept), "x is the caller's: it must not be changed")
        expected = [count] if w == 1 else [2 * count]
        check.that(calls == expected, f"w = {w}: the model was called with batches of {calls}, expected {expected}")
