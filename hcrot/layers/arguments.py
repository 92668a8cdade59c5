"""Arguments of torch.nn's constructors that hcrot's layers do not have: each is refused by its name, with the reason or with what to type.

An argument is let pass where it asks for nothing, as ``inplace=False`` and ``device=None`` do.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["IN_PLACE", "PLACE", "refuse", "without"]

Constructor = TypeVar("Constructor", bound=Callable[..., None])

IN_PLACE = "a layer never writes into the array that it is given"
PLACE = {
    "device": "hcrot computes on the CPU",
    "dtype": "a layer is made in float32, and layer.astype(np.float64) turns it into float64",
}
"""Why PyTorch's arguments of that name are refused."""


def refuse(name: str, reason: str, **arguments: object) -> None:
    """Raise a ValueError that begins with ``name``, and names the argument and the reason, if one of ``arguments`` asks for something."""
    for argument, value in arguments.items():
        if value is not None and value is not False:
            raise ValueError(f"{name}: {argument}={value!r} is not supported: {reason}")


def without(**reasons: str) -> Callable[[Constructor], Constructor]:
    """Decorate a constructor, to :func:`refuse` keyword arguments that it does not have.

    So ``inspect.signature`` and ``help`` show none of them, and a call says more than Python's "unexpected keyword argument".

    Args:
        reasons: the reason for each, by its name.
    """

    def decorate(constructor: Constructor) -> Constructor:
        @functools.wraps(constructor)
        def checked(self: Any, *arguments: Any, **options: Any) -> None:
            for argument in reasons.keys() & options.keys():
                refuse(type(self).__name__, reasons[argument], **{argument: options.pop(argument)})
            constructor(self, *arguments, **options)

        return checked  # type: ignore[return-value]

    return decorate
