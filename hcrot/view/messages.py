"""What the page asks for: a JSON object whose values are read by name and checked, each with a message that says what was expected."""

import base64
import binascii
import json
import math
from collections.abc import Collection
from typing import Any

import numpy as np

__all__ = ["Request", "encoded", "pack", "symmetric"]


class Request:
    """The values of one message.

    Raises:
        ValueError: from each method, if the value is missing or not as the method's name and arguments say.
    """

    def __init__(self, values: Any):
        if not isinstance(values, dict):
            raise ValueError(f"a message must be a JSON object, got {type(values).__name__}")
        self.values = values

    def number(self, name: str, least: float, most: float) -> float:
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise ValueError(f"{name} must be a number from {least:g} to {most:g}, got {value!r:.40}")
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int:
        value = self.number(name, least, most)
        if value != math.floor(value):
            raise ValueError(f"{name} must be a whole number, got {value:g}")
        return int(value)

    def text(self, name: str, longest: int = 60) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > longest:
            raise ValueError(f"{name} must be a text of at most {longest} characters, got {value!r:.40}")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        value = self.values.get(name)
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r:.40}")
        return value

    def labels(self, name: str, most: int, null: int | None) -> list[int]:
        """Numbers of classes; None in the list stands for "of any class"."""
        value = self.values.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= 20:
            raise ValueError(f"{name} must be a list of 1 to 20 classes, got {value!r:.40}")
        labels = [null if label is None else label for label in value]
        if not all(isinstance(label, int) and not isinstance(label, bool) and 0 <= label < most for label in labels):
            raise ValueError(f"{name} must be classes from 0 to {most - 1}, got {value!r:.40}")
        return [int(label) for label in labels if label is not None]

    def parts(self, name: str, most: int) -> list["Request"]:
        """A list of objects."""
        value = self.values.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise ValueError(f"{name} must be a list of 1 to {most} objects, got {value!r:.40}")
        return [Request(part) for part in value]

    def pixels(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """uint8 of this shape, which came as base64."""
        try:
            data = base64.b64decode(self.values.get(name) or "", validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise ValueError(f"{name} must be pixels in base64") from error
        if len(data) != math.prod(shape):
            raise ValueError(f"{name} must be {math.prod(shape)} pixels, got {len(data)}")
        return np.frombuffer(data, np.uint8).reshape(shape)


def pack(images: np.ndarray) -> dict[str, Any]:
    """Images (N, C, H, W) in [-1, 1] as the page reads them: their shape, and bytes in base64."""
    pixels = np.clip(np.round((np.nan_to_num(images) + 1) * 127.5), 0, 255).astype(np.uint8)
    return {"shape": list(images.shape), "data": base64.b64encode(np.ascontiguousarray(pixels).data).decode("ascii")}


def symmetric(array: np.ndarray) -> dict[str, Any]:
    """Numbers of any size, (N, H, W), for a heat map: 0 becomes 128, the largest of all of them 255, and minus that 1."""
    finite = np.nan_to_num(array.astype(np.float64))
    top = float(np.abs(finite).max(initial=0)) or 1.0
    packed = pack(finite[:, None] / top * (127 / 127.5) + 0.5 / 127.5)
    return packed | {"top": top}


def encoded(message: dict[str, Any]) -> str:
    """JSON, in which NaN and infinity, which it does not know, are null."""
    return json.dumps(_finite(message), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
