"""Training with pictures drawn in between.

After each epoch a few pictures are drawn in inference, where dropout drops nothing. Then training goes on.
"""

from collections.abc import Callable

import hcrot


def draw(model: hcrot.Module, sample: Callable[[hcrot.Module], object]) -> object:
    """What ``sample(model)`` gives, in inference."""
    # bug: begin
    model.eval()
    return sample(model)
    # bug: mended
    before = model.training
    model.eval()
    try:
        return sample(model)
    finally:
        model.train(before)
    # bug: end


def train(
    model: hcrot.Module, step: Callable[[hcrot.Module], None], sample: Callable[[hcrot.Module], object], epochs: int, steps: int
) -> list[object]:
    """``step(model)`` that many times in each epoch; the pictures after each."""
    model.train()
    pictures = []
    for _ in range(epochs):
        for _ in range(steps):
            step(model)
        pictures.append(draw(model, sample))
    return pictures


# kept back: the learner's file ends here

SYMPTOM = """
Training with dropout over-fits as if there were no dropout. If I draw no pictures in between, it does not. And from the second epoch on
an epoch is a little faster.
"""

HINTS = [
    "Print model.training in each step.",
    "What does the first picture change, for good?",
    "Who changes a mode for a while has to put it back, also if an error comes in between: hcrot has `with model.inference():` for this.",
]

EXPLANATION = """
draw switched to inference and never back, so that from the second epoch on dropout dropped nothing (and BatchNorm would have used, and no
longer updated, its averages). The other half of this bug is as common: pictures drawn in training mode. A mode that is set in one place
and needed in another should be a `with` block. `model.inference()` is one.
"""


def check(yours, check) -> None:
    class Spy(hcrot.Module):
        """Notes the mode in which it is used."""

        def __init__(self):
            self.seen = ""

    model = Spy()

    def note(letter):
        model.seen += letter.upper() if model.training else letter.lower()

    yours.train(model, lambda m: note("s"), lambda m: note("p"), 2, 2)
    check.that("P" not in model.seen, "a picture was drawn in training mode")
    idle = model.seen.count("s")
    check.that(idle == 0, f"{idle} of 4 steps of training were made in inference mode")

    def fail(m):
        raise RuntimeError("no space left on the disk")

    model.train()
    try:
        yours.draw(model, fail)
    except RuntimeError:
        check.that(model.training, "when drawing fails and the error is caught, training goes on in inference mode")
    else:
        check.that(False, "an error while drawing is hidden")
