"""Noise for a batch whose images have generators of their own."""

from collections.abc import Sequence

import numpy as np

from hcrot.init import as_generator

__all__ = ["GeneratorPerImage"]


class GeneratorPerImage(np.random.Generator):
    """Draws a batch of normal numbers, each image's from a generator of its own, or from a new one with a seed of its own."""

    def __init__(self, generators: Sequence[np.random.Generator | int]):
        if not generators or isinstance(generators, str | bytes):
            expected = "expected a numpy.random.Generator, an int, or a list with one for each image"
            raise TypeError(f"pipelines.sample: generator is {generators!r:.60}, {expected}")
        self.generators = [as_generator(f"pipelines.sample: image {index}", given) for index, given in enumerate(generators)]
        if len({id(generator) for generator in self.generators}) < len(generators):
            raise ValueError("pipelines.sample: the list of generators has one of them twice, expected one for each image")
        super().__init__(self.generators[0].bit_generator)

    # NumPy's has more arguments, which no scheduler needs.
    def standard_normal(self, size: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:  # type: ignore[override]
        return np.stack([generator.standard_normal(size[1:], dtype=dtype) for generator in self.generators])
