"""The proof that backward is the derivative of forward: :func:`check_gradients`, and what it says of a mistake.

Begin with ``check.py``. ``trial.py`` has the differences, ``parts.py`` finds the first wrong module, ``clues.py`` what wrong values have in
common, ``untrained.py`` arrays that nobody trains.
"""

from hcrot.gradcheck.check import check_gradients
from hcrot.gradcheck.report import GradientError, GradientLine, GradientReport

__all__ = ["GradientError", "GradientLine", "GradientReport", "check_gradients"]
