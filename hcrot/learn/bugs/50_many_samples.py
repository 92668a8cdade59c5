"""Drawing many pictures in batches.

``count`` pictures from a seed. The same seed gives the same pictures; no two pictures of one call are the same.
"""

from collections.abc import Callable

import numpy as np


def draw_many(
    sampler: Callable[[np.ndarray, np.random.Generator], np.ndarray], count: int, shape: tuple[int, ...], batch_size: int, seed: int
) -> np.ndarray:
    """(count, *shape).

    Args:
        sampler: ``sampler(noise, generator)`` turns noise (n, *shape) into pictures, and may draw more noise from the generator.
        count: how many pictures.
        shape: of one.
        batch_size: how many are drawn at a time.
        seed: of all randomness.
    """
    if count < 1 or batch_size < 1:
        raise ValueError(f"draw_many: count and batch_size must be at least 1, got {count} and {batch_size}")
    pictures = []
    # bug: begin
    for start in range(0, count, batch_size):
        generator = np.random.default_rng(seed)
        noise = generator.standard_normal((min(batch_size, count - start), *shape))
        pictures.append(sampler(noise, generator))
    # bug: mended
    generator = np.random.default_rng(seed)
    for start in range(0, count, batch_size):
        noise = generator.standard_normal((min(batch_size, count - start), *shape))
        pictures.append(sampler(noise, generator))
    # bug: end
    return np.concatenate(pictures)


# kept back: the learner's file ends here

SYMPTOM = """
The Fréchet distance of 10000 samples is bad: precision is high, recall is low. Each picture, looked at alone, is good. With one large
batch in place of many small ones all is well.
"""

HINTS = [
    "High precision and low recall: the pictures are good, but there are too few different ones. Look at a whole page of them.",
    "np.unique(pictures, axis=0) counts the different ones. How does the number depend on the batch size?",
    "How many times is a generator made of the seed?",
]

EXPLANATION = """
Each batch began anew from the seed, so all batches were the same: 10000 pictures, but only as many different ones as a batch has. An int
that is handed on gives the same numbers wherever a generator is made of it. Make one generator where the seed comes in, and hand on the
generator. Workers that load data in parallel have the same trouble: each needs a seed of its own (np.random.SeedSequence.spawn).
"""


def check(yours, check) -> None:
    def sampler(noise, generator):
        return 0.5 * noise + 0.5 * generator.standard_normal(noise.shape)

    pictures = yours.draw_many(sampler, 10, (2,), 4, 7)
    check.equal("the shape of ten pictures", np.shape(pictures), (10, 2))
    different = len(np.unique(np.round(pictures, 9), axis=0))
    check.that(different == 10, f"of 10 pictures only {different} are different")
    check.equal("ten pictures of the same seed", yours.draw_many(sampler, 10, (2,), 4, 7), pictures)
    check.that(not np.allclose(yours.draw_many(sampler, 10, (2,), 4, 8), pictures), "another seed gives the same pictures")
