"""Mini-batches.

All rows in batches of ``batch_size``; the last one may be smaller. With a generator, they come in a new order in each epoch.
"""

from collections.abc import Iterator

import numpy as np


def batches(data: np.ndarray, batch_size: int, generator: np.random.Generator | None = None) -> Iterator[np.ndarray]:
    """Yield the rows of the data, (N, ...), in batches.

    Args:
        data: the rows.
        batch_size: how many rows a batch has.
        generator: source of the order; None: as they are.
    """
    if batch_size < 1:
        raise ValueError(f"batches: batch_size must be at least 1, got {batch_size}")
    order = np.arange(len(data)) if generator is None else generator.permutation(len(data))
    # bug: begin
    for places in np.array_split(order, max(1, len(data) // batch_size)):
        yield data[places]
    # bug: mended
    for start in range(0, len(data), batch_size):
        yield data[order[start : start + batch_size]]
    # bug: end


# kept back: the learner's file ends here

SYMPTOM = """
With some data sets the memory runs out although the batch size is small. I measured: of 100 images with a batch size of 64 I get one
batch of 100. With 128 images all is right.
"""

HINTS = [
    "List the lengths of the batches for N = 128, 127, 100 and 65, with a batch size of 64.",
    "np.array_split(order, n): what is n, and what happens to what is left over?",
    "How many batches must there be? N / batch_size, rounded up or down?",
]

EXPLANATION = """
array_split divides into n parts of nearly equal size, and n was rounded down, so every batch may be larger than was asked for: up to
twice as large. The predecessor's Dataloader did this (B41: 100 rows, batch size 64, one batch of 100). Test lengths that do not divide.
"""


def check(yours, check) -> None:
    for rows, size, expected in ((8, 4, [4, 4]), (10, 4, [4, 4, 2]), (7, 4, [4, 3]), (3, 4, [3])):
        found = list(yours.batches(np.arange(rows), size))
        sizes = [len(batch) for batch in found]
        check.that(sizes == expected, f"{rows} rows in batches of {size} have the sizes {sizes}, expected {expected}")
        check.equal("all rows, in order", np.concatenate(found), np.arange(rows))
    mixed = list(np.concatenate(list(yours.batches(np.arange(20), 6, np.random.default_rng(0)))))
    once = sorted(mixed) == list(range(20)) and mixed != sorted(mixed)
    check.that(once, "with a generator, the rows do not come once each, in another order")
