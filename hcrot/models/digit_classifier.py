"""A small convolutional network that reads digits: the first thing to train, and the judge of what diffusion models draw.

Notation: B images of S x S pixels, K classes, F features.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hcrot import init
from hcrot.files.json_and_arrays import read_arrays, read_folder, read_json, replacing_folder, write_arrays
from hcrot.layers.activation import ReLU
from hcrot.layers.conv import Conv2d
from hcrot.layers.linear import Linear
from hcrot.layers.pooling import MaxPool2d
from hcrot.layers.reshape import Flatten
from hcrot.module import Module, Sequential

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "DigitClassifier"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


class DigitClassifier(Module):
    """3x3 convolutions, each followed by a halving as long as the image is larger than 7x7, then two fully connected layers.

        h = relu(pool(conv(h)))                   for each of the convolutions, from h = images; 28x28 -> 14x14 -> 7x7 -> 7x7
        features = relu(W1 h + b1)
        logits = W2 features + b2

    The maximum over a window and the ReLU may trade places; the maximum comes first, because it leaves the ReLU a quarter of the work.

    Args:
        image_size: S.
        num_classes: K.
        channels: the widths of the convolutions, at least one.
        num_features: F.
        in_channels: C, 1 for grey images, 3 for colour.
        generator: source of the initial values.

    Attributes:
        config: the arguments by name, as config.json holds them.

    Shapes:
        images (B, C, S, S) in [-1, 1] -> logits (B, K).

    Raises:
        ValueError: an argument out of range; in forward, images of another shape or dtype.

    Example:
        >>> hcrot.DigitClassifier(8, generator=0)(np.zeros((2, 1, 8, 8), np.float32)).shape
        (2, 10)
    """

    def __init__(
        self,
        image_size: int = 28,
        num_classes: int = 10,
        channels: Sequence[int] = (16, 32, 32),
        num_features: int = 128,
        in_channels: int = 1,
        *,
        generator: np.random.Generator | int | None = None,
    ):
        sizes = {"image_size": image_size, "num_classes": num_classes, "num_features": num_features, "in_channels": in_channels}
        init.check_positive("DigitClassifier", **sizes)
        if not isinstance(channels, Sequence) or not channels:
            raise ValueError(f"DigitClassifier: channels must be a list of widths, at least one, got {channels!r}")
        init.check_positive("DigitClassifier", **{f"channels[{index}]": width for index, width in enumerate(channels)})
        self.config = {
            "image_size": int(image_size),
            "num_classes": int(num_classes),
            "channels": [int(width) for width in channels],
            "num_features": int(num_features),
            "in_channels": int(in_channels),
        }
        generator = init.default_generator("DigitClassifier", generator)
        layers: list[Module] = []
        size, width = int(image_size), int(in_channels)
        for next_width in map(int, channels):
            layers.append(Conv2d(width, next_width, 3, padding=1, generator=generator))
            if size > 7:
                layers.append(MaxPool2d(2))
                size //= 2
            layers.append(ReLU())
            width = next_width
        self.body = Sequential(*layers, Flatten(), Linear(width * size**2, num_features, generator=generator), ReLU())
        self.head = Linear(num_features, num_classes, generator=generator)

    def forward(self, images: np.ndarray) -> np.ndarray:
        self._check(images)
        return self.head(self.body(images))

    def backward(self, dlogits: np.ndarray) -> np.ndarray:
        return self.body.backward(self.head.backward(dlogits))

    def read(self, images: np.ndarray, batch_size: int = 250) -> tuple[np.ndarray, np.ndarray]:
        """Logits and features of any number of images, in inference and ``batch_size`` at a time.

        The logits are for :func:`hcrot.metrics.accuracy`, the features for :func:`hcrot.metrics.frechet_distance`.

        Args:
            images: (N, C, S, S) in [-1, 1], N >= 1.
            batch_size: how many at a time; the result does not depend on it but for rounding.

        Returns:
            logits (N, K) and features (N, F), of the dtype of the images.

        Raises:
            ValueError: images of another shape or dtype.
        """
        self._check(images)
        (batch_size,) = init.check_positive("DigitClassifier.read", batch_size=batch_size)
        with self.inference():
            parts = [self.body(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
            features = np.concatenate(parts)
            return self.head(features), features

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write config.json and model.safetensors into ``folder``, which is made if need be.

        A classifier that is there is replaced in one move.

        Raises:
            FileExistsError: the folder holds a file that is no part of a classifier and that would be lost.
            OSError: the folder cannot be written; what was there is as it was.
        """
        config = {"_class_name": type(self).__name__, **self.config}
        files = f"{re.escape(CONFIG_NAME)}|{re.escape(WEIGHTS_NAME)}"
        with replacing_folder(f"{type(self).__name__}.save_pretrained", folder, files) as new:
            (new / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")
            write_arrays(new / WEIGHTS_NAME, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> "DigitClassifier":
        """The classifier that :meth:`save_pretrained` wrote into ``folder``.

        Raises:
            FileNotFoundError: one of the two files is missing.
            ValueError: a file is damaged or of another network, or the two do not fit; the message names it.
        """

        def read(place: Path) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
            return place / CONFIG_NAME, read_json(place / CONFIG_NAME), read_arrays(place / WEIGHTS_NAME)

        path, config, weights = read_folder(f"{cls.__name__}.from_pretrained", folder, read)
        name = config.pop("_class_name", None)
        if name != cls.__name__:
            raise ValueError(f"{cls.__name__}.from_pretrained: {path} does not describe a {cls.__name__}: its _class_name is {name!r}")
        try:
            classifier = cls(**config)
            classifier.load_state_dict(weights)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{cls.__name__}.from_pretrained: {folder}: {error}") from error
        return classifier

    def _check(self, images: np.ndarray) -> None:
        size, channels = self.config["image_size"], self.config["in_channels"]
        shape = images.shape if isinstance(images, np.ndarray) else type(images).__name__
        if not isinstance(images, np.ndarray) or images.size == 0 or shape[1:] != (channels, size, size):
            raise ValueError(f"DigitClassifier: expected images of shape (batch, {channels}, {size}, {size}), got {shape}")

    def describe(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.config.items())
