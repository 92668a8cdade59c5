"""The clipping of gradients by their common norm."""

from collections.abc import Iterable

import numpy as np

from hcrot.init import is_real
from hcrot.kernels.optim import norm_of
from hcrot.module import Parameter
from hcrot.training.checks import parameter_list

__all__ = ["check_max_norm", "clip_grad_norm", "clipping_factor"]


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients so that their common 2-norm is at most ``max_norm`` (Pascanu et al. 2013, algorithm 1).

        norm = sqrt(sum of g^2 over all parameters),    g <- min(1, max_norm / (norm + 1e-6)) g

    In place; parameters that are not trainable at this time are left out. As in PyTorch, a norm that is not finite is not
    hidden: an infinite one makes finite gradients zero and infinite ones NaN, a NaN makes all of them NaN. To leave out such
    a step, call ``optimizer.step(max_grad_norm=..., skip_nonfinite=True)`` instead.

    Args:
        parameters: such as ``model.parameters()``.
        max_norm: > 0; infinity measures, and clips no finite gradient.

    Returns:
        the norm before clipping, summed in float64.

    Raises:
        TypeError, ValueError: no parameters, or ``max_norm`` is not a number > 0.

    Example:
        >>> weight = hcrot.Parameter(np.zeros(2, np.float32))
        >>> weight.grad += np.array([3, 4], np.float32)
        >>> hcrot.clip_grad_norm([weight], 1.0), weight.grad.round(3)
        (5.0, array([0.6, 0.8], dtype=float32))
    """
    parameters = [parameter for parameter in parameter_list("clip_grad_norm", parameters) if parameter.trainable]
    check_max_norm("clip_grad_norm: max_norm", max_norm)
    # Not a dot product: NumPy's is threaded, and its threads would go on spinning beside the kernels'. Nor the kernel of
    # Optimizer.step: for arrays that it meets for the first time, its table takes as long as the squares.
    gradients = [parameter.grad for parameter in parameters]
    with np.errstate(over="ignore"):
        squares = sum(float(np.square(gradient, dtype=np.float64).sum()) for gradient in gradients)
    norm = norm_of(gradients, squares)
    factor = clipping_factor(norm, max_norm)
    if factor != 1:
        for parameter in parameters:
            parameter.grad *= factor
    return norm


def clipping_factor(norm: float, max_norm: float) -> float:
    """``min(1, max_norm / (norm + 1e-6))``; exactly 1 where nothing is clipped."""
    factor = float(max_norm) / (norm + 1e-6)
    return 1.0 if factor >= 1 else factor


def check_max_norm(name: str, max_norm: float) -> None:
    """Raise a ValueError unless it is a number > 0; infinity is one."""
    if not is_real(max_norm) or not max_norm > 0:
        raise ValueError(f"{name} must be a number > 0, got {max_norm!r}")
