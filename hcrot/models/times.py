"""What networks share that take one time per image."""

import numpy as np

__all__ = ["check_times"]


def check_times(name: str, time: float | np.ndarray, batch: int) -> np.ndarray:
    """``time`` as an array (batch,): a single number is meant for every image.

    Raises:
        TypeError: no numbers. ValueError: an array of another shape. Both begin with ``name``.
    """
    times = np.asarray(time)
    if times.dtype.kind not in "iuf":
        raise TypeError(f"{name}: time must be integers or floating-point numbers, got {times.dtype}")
    if times.shape not in ((), (1,), (batch,)):
        raise ValueError(f"{name}: time must be a number or an array of shape ({batch},), one per image, got shape {times.shape}")
    return np.broadcast_to(times.reshape(-1), (batch,))
