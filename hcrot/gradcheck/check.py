"""Is backward the derivative of forward? A check of every gradient of a module against differences of its outputs.

Fix a random cotangent c and look at one number, ``L = <c, f(x)>``, the dot product of c with the output. Given c, backward must return the
gradient of L. The slope of L along a direction v can be had in two ways:

    analytic = <gradient, v>
    numeric  = (L(x + h v) - L(x - h v)) / 2h,   taken at h and h/2 and extrapolated: (4 numeric(h/2) - numeric(h)) / 3 has error O(h^4)

The cotangent must be random: with c = 1 (the sum of the outputs) the gradient through softmax or a normalisation is zero, and a backward
that returns zeros would pass. One random v sees an error in any entry, so an array costs four forwards however large it is.

A slope needs a smooth f. ReLU, MaxPool and the like have kinks, and a difference taken across one is wrong by itself. Steps from 1e-3 down
to 1e-5 are tried until one agrees, which steers clear of kinks that are not within 1e-5 of the point. At a kink itself (ReLU of exactly
zero, MaxPool of equal numbers) the slopes on the two sides differ, and there is none to compare with. Where that is seen, the same backward
is compared at a point beside it, some hundredths away, and the line says so. What backward returns at the kink itself is not judged.
"""

import copy
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hcrot import init
from hcrot.accumulators import is_floating
from hcrot.gradcheck.parts import explained, first_wrong, returned_nothing
from hcrot.gradcheck.report import GradientError, GradientLine, GradientReport
from hcrot.gradcheck.trial import OutOfTime, Trial, in_float64, rms
from hcrot.gradcheck.untrained import check_plain_arrays, without_effect, writeable_arrays
from hcrot.module import Module

__all__ = ["check_gradients"]


def check_gradients(
    module: Module,
    *inputs: Any,
    rtol: float = 1e-6,
    generator: np.random.Generator | int | None = None,
    randomize: bool = True,
    exhaustive: bool = False,
    explain: float = 10.0,
    forward: Callable | None = None,
    backward: Callable | None = None,
) -> GradientReport:
    """Compare the gradient of every floating-point input and every parameter with differences of outputs, in float64.

    Everything happens on copies, in training mode: the module, its gradients, mode and generators and the inputs are left as they were.
    Generators within the module are rewound before each forward, so that dropout drops the same entries each time.

    Args:
        module: what to check.
        inputs: arguments of forward. Floating-point arrays are differentiated; all others (labels, timesteps, numbers, None) are passed on.
            Where backward takes accumulators, as blocks of a U-Net do, a list of arrays is a stack of skip connections, which forward pops
            and pushes; what it pops is differentiated, too (:mod:`hcrot.accumulators`).
        rtol: largest relative error allowed.
        generator: source of directions, cotangent and perturbation, or the seed of a new one; by default always the same.
        randomize: first perturb every parameter by half its size, since an error may hide at a special point (B05: at weight 1, bias 0).
        exhaustive: compare entry by entry instead of along one direction: slow, but tells which entry is wrong.
        explain: how many seconds to spend, after a gradient was found wrong, on where and why; 0 for none. The parts of the module are
            checked by themselves, on the inputs that they got, the smallest first. Of what is wrong about the smallest wrong one, the
            report says what the values have in common: a constant ratio and which size that is, a sign, swapped or reversed axes, or
            which entries it is about.
        forward: ``forward(module, *inputs)`` -> an array or a tuple of arrays; by default ``module(*inputs)``.
        backward: ``backward(module, *douts)`` -> the gradient of the floating-point input, or a tuple of one for each, in order; by default
            ``module.backward(*douts)``, and accumulators after the douts if it takes more. With ``forward`` or ``backward`` given, make
            accumulators here and return them too.

    Returns:
        the report, when everything agrees.

    Raises:
        GradientError: a gradient is wrong, did not arrive, has another shape or dtype, or was assigned where it must be added; an input, a
            dout or an array that a layer keeps for backward was written to; a Parameter was replaced by an array; the output depends on an
            array that is an attribute of a module but no Parameter (a constant may be a read-only array, or a Parameter with
            ``trainable=False``), or is not finite; or forward gives another output each time.
        TypeError: ``module`` is no Module, ``generator`` neither a Generator nor an int, a Parameter is used as an array, a part's backward
            returned None, or backward takes arguments that belong to no input. ValueError: there is nothing to differentiate, a seed below
            0, or ``explain`` is no number of seconds.

    Example:
        >>> print(hcrot.check_gradients(hcrot.Linear(3, 2, generator=0), np.ones((4, 3))))   # doctest: +ELLIPSIS
        gradients of Linear: 3 compared with differences of outputs to 1e-06, all agree
          input 0          (4, 3)           analytic ...  numeric ...  relative error ...  ok
          ...

        A layer ``y = w x^2`` whose backward has ``x`` for ``2 x``:

        >>> hcrot.check_gradients(hcrot.Sequential(hcrot.Linear(3, 4), Square(4), hcrot.Linear(4, 2)), x)   # doctest: +SKIP
        GradientError: gradients of Sequential: 6 compared with differences of outputs to 1e-06, 3 wrong
          the mistake is in 1 (Square); checked by itself, input 0: wrong: each analytic value is exactly half of the numeric one
          input 0            (6, 3)           analytic -4.357...  numeric -8.714...  relative error 5.0e-01  wrong
          0.weight (Linear)  (4, 3)           ...

        Attention of 8 channels that divides by sqrt(8) in forward only:

        >>> hcrot.check_gradients(MyAttention(8), x)   # doctest: +SKIP
        GradientError: gradients of MyAttention: 7 compared with differences of outputs to 1e-06, 4 wrong
          every part of MyAttention is right by itself: the mistake is in its own forward or backward
          q.weight (Linear)  (8, 8)           ...  wrong: analytic / numeric = 2.828 = sqrt(8), and self.dim is 8
    """
    if not isinstance(module, Module):
        raise TypeError(f"check_gradients: module must be a Module, got {type(module).__name__}")
    if not isinstance(explain, int | float) or not 0 <= explain < np.inf:
        raise ValueError(f"check_gradients: explain must be a number of seconds of at least 0, got {explain!r:.60}")
    # not default_rng(0): inputs are often drawn from that, and a cotangent that equals the input hides what is wrong in a normalisation
    generator = init.as_generator("check_gradients", np.random.default_rng([0, 1]) if generator is None else generator)
    subject = copy.deepcopy(module).astype(np.float64).train()
    for parameter in subject.parameters():
        parameter.trainable = True  # of a frozen one there would be no gradient to check
    subject.zero_grad()
    inputs = tuple(in_float64(value) for value in inputs)
    if not subject.parameters() and not any(map(is_floating, inputs)):
        raise ValueError(f"check_gradients: {type(module).__name__} has no parameters and was given no floating-point array")
    if randomize:
        for parameter in subject.parameters():
            parameter.data += 0.5 * (rms(parameter.data) or 1) * generator.standard_normal(parameter.shape)

    with _parameters_named():
        trial = Trial(subject, inputs, forward, backward, generator)
        dinputs, dparameters = _backpropagated(trial)
    gradients = [*dinputs, *dparameters]
    lines = [trial.compare(index, gradient, rtol, exhaustive) for index, gradient in enumerate(gradients)]
    wrong = {line.name for line in lines if line.verdict != "ok"}
    trial.check_accumulation(dparameters, wrong)
    check_plain_arrays(trial, writeable_arrays(module))
    notes = without_effect(trial, lines)
    problems = tuple(trial.problems)
    if wrong and explain:
        trial.deadline = time.monotonic() + explain
        found, in_a_part = first_wrong(trial, rtol)
        notes = found + notes
        if not in_a_part:
            lines = _explained(trial, lines, gradients)
    report = GradientReport(type(module).__name__, rtol, tuple(lines), problems, tuple(notes))
    if not report.passed:
        raise GradientError(report)
    return report


@contextmanager
def _parameters_named() -> Iterator[None]:
    """Within the block, an error that comes of a Parameter used as an array says where that was, and what to write."""
    try:
        yield
    except (TypeError, AttributeError) as error:
        if "Parameter" not in str(error):
            raise
        called = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name != "parameter.py"][-1]
        hint = "" if ".data" in str(error) else "; a Parameter is not an array: write parameter.data for its values"
        place = f"{Path(called.filename).name}, line {called.lineno}: {called.line}"
        raise type(error)(f"check_gradients: {error}{hint} ({place})") from error


def _explained(trial: Trial, lines: list[GradientLine], gradients: list[Any]) -> list[GradientLine]:
    """The lines with clues, as far as there is time."""
    found = list(lines)
    with suppress(OutOfTime):
        for index, (line, gradient) in enumerate(zip(lines, gradients, strict=True)):
            if line.verdict != "ok":
                found[index] = explained(trial, index, gradient, line)
    return found


def _backpropagated(trial: Trial) -> tuple[list[Any], list[np.ndarray]]:
    """`Trial.backpropagate`, with an error of its own for a part that returned no gradient to the one before it."""
    try:
        return trial.backpropagate()
    except Exception as error:
        if culprit := returned_nothing(trial):
            raise TypeError(
                f"check_gradients: the backward of {culprit} returned None: return the gradient of its input. "
                f"After that came {type(error).__name__}: {error}"
            ) from error
        raise
