"""Is backward the derivative of forward? A check of every gradient of a module against differences of its outputs.

Fix a random cotangent c and look at one number, ``L = <c, f(x)>``, the dot product of c with the output. Given c, backward must return the
gradient of L. The slope of L along a direction v can be had in two ways:

    analytic = <gradient, v>
    numeric  = (L(x + h v) - L(x - h v)) / 2h,   taken at h and h/2 and extrapolated: (4 numeric(h/2) - numeric(h)) / 3 has error O(h^4)

The cotangent must be random: with c = 1 (the sum of the outputs) the gradient through softmax or a normalisation is zero, and a backward
that returns zeros would pass. One random v sees an error in any entry, so an array costs four forwards however large it is.

A slope needs a smooth f. ReLU, MaxPool and the like have kinks, and a difference taken across one is wrong by itself. Steps from 1e-3 down
to 1e-5 are tried until one agrees, which steers clear of kinks that are not within 1e-5 of the point. At a kink itself (ReLU of exactly
zero, MaxPool of equal numbers) the slopes on the two sides differ, and there is none to compare with. The check fails then and says so:
choose other inputs.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from hcrot import init
from hcrot.accumulators import is_floating
from hcrot.gradcheck.report import GradientError, GradientReport
from hcrot.gradcheck.trial import Trial, plain_arrays, rms
from hcrot.module import Module

__all__ = ["check_gradients"]


def check_gradients(
    module: Module,
    *inputs: Any,
    rtol: float = 1e-6,
    generator: np.random.Generator | int | None = None,
    randomize: bool = True,
    exhaustive: bool = False,
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
        forward: ``forward(module, *inputs)`` -> an array or a tuple of arrays; by default ``module(*inputs)``.
        backward: ``backward(module, *douts)`` -> the gradient of the floating-point input, or a tuple of one for each, in order; by default
            ``module.backward(*douts)``, and accumulators after the douts if it takes more. With ``forward`` or ``backward`` given, make
            accumulators here and return them too.

    Returns:
        the report, when everything agrees.

    Raises:
        GradientError: a gradient is wrong, did not arrive, has another shape or dtype, or was assigned where it must be added; an input, a
            dout or an array that a layer keeps for backward was written to; the output depends on an array that is an attribute of a
            module but no Parameter (a constant may be a read-only array, or a Parameter with ``trainable=False``); the point is a kink; or
            forward gives another output each time.
        TypeError: ``module`` is no Module, ``generator`` neither a Generator nor an int, or backward takes arguments that belong to no
            input. ValueError: there is nothing to differentiate, or a seed below 0.

    Example:
        >>> print(check_gradients(hcrot.Linear(3, 2), np.ones((4, 3))))     # doctest: +SKIP
        gradients of Linear: 3 compared with differences of outputs to 1e-06, all agree
          input 0          (4, 3)           analytic -1.134...  numeric -1.134...  relative error 2.4e-14  ok
          weight (Linear)  (2, 3)           ...
    """
    if not isinstance(module, Module):
        raise TypeError(f"check_gradients: module must be a Module, got {type(module).__name__}")
    generator = init.as_generator("check_gradients", 0 if generator is None else generator)
    subject = copy.deepcopy(module).astype(np.float64).train()
    for parameter in subject.parameters():
        parameter.trainable = True  # of a frozen one there would be no gradient to check
    subject.zero_grad()
    inputs = tuple(_in_float64(value) for value in inputs)
    if not subject.parameters() and not any(map(is_floating, inputs)):
        raise ValueError(f"check_gradients: {type(module).__name__} has no parameters and was given no floating-point array")
    if randomize:
        for parameter in subject.parameters():
            parameter.data += 0.5 * (rms(parameter.data) or 1) * generator.standard_normal(parameter.shape)

    trial = Trial(subject, inputs, forward, backward, generator)
    dinputs, dparameters = trial.backpropagate()
    kinds = {name: type(part).__name__ for name, part in subject.named_modules()}
    names = [name for name, _ in trial.differentiated]
    names += [f"{name} ({kinds[name.rpartition('.')[0]]})" for name in trial.parameter_names]
    arrays = [array for _, array in trial.differentiated] + [parameter.data for parameter in subject.parameters()]
    lines = [
        trial.compare(name, array, gradient, rtol, exhaustive)
        for name, array, gradient in zip(names, arrays, [*dinputs, *dparameters], strict=True)
    ]
    if all(line.verdict == "ok" for line in lines):
        trial.check_accumulation(dparameters)
    else:
        trial.check_accumulators({line.name for line in lines if line.verdict != "ok"})
    trial.check_plain_arrays(_writeable_arrays(module))
    report = GradientReport(type(module).__name__, rtol, tuple(lines), tuple(trial.problems))
    if not report.passed:
        raise GradientError(report)
    return report


def _in_float64(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_float64(item) for item in value]
    return value.astype(np.float64) if is_floating(value) else value


def _writeable_arrays(module: Module) -> set[str]:
    """The names of those that are not read-only: asked of the module itself, since every array of a copy can be written to."""
    return {name for name, array in plain_arrays(module) if array.flags.writeable}
