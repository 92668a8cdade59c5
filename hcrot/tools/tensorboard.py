"""TensorBoard's files, by the package tensorboardX, which needs neither TensorFlow nor PyTorch: ``pip install hcrot[tensorboard]``."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

__all__ = ["check_installed", "open_events"]


def check_installed() -> Any:
    """The package, imported.

    Raises:
        ModuleNotFoundError: it is not there; the message says how to get it.
    """
    try:
        import tensorboardX
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--tensorboard needs the package tensorboardX: pip install 'hcrot[tensorboard]'") from error
    return tensorboardX


def open_events(folder: Path, step: int, wanted: bool = True) -> AbstractContextManager[Any]:
    """A writer of ``folder/tensorboard`` with ``add_scalar(name, value, step)``, to be left like a file; None if it is not wanted.

    Args:
        folder: of the run; ``tensorboard --logdir folder`` shows it.
        step: after which the run goes on. TensorBoard forgets what earlier files say of later steps, which are done again.
        wanted: whether there is to be one.

    Raises:
        ModuleNotFoundError: as :func:`check_installed`.
    """
    if not wanted:
        return nullcontext()
    return check_installed().SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
