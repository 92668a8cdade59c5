"""A matrix product in blocks that fit a cache.

A is (M, K), B is (K, N). Write `blocks`, a generator of triples of slices (rows, depth, columns), none longer than `size`, such that

    for rows, depth, columns in blocks(...):
        C[rows, columns] += A[rows, depth] @ B[depth, columns]

is C = A B. The block of C should stay in the cache until it is done: all its pieces of K come one after the other. The sizes need not
divide: the last slices may be shorter. Slices have a start and a stop, and end inside of the matrices.
"""

from collections.abc import Iterator


def blocks(M: int, K: int, N: int, size: int) -> Iterator[tuple[slice, slice, slice]]:
    # yours: begin
    for i in range(0, M, size):
        for j in range(0, N, size):
            for k in range(0, K, size):
                yield slice(i, min(i + size, M)), slice(k, min(k + size, K)), slice(j, min(j + size, N))
    # yours: end


# kept back: the learner's file ends here

import numpy as np  # noqa: E402

from hcrot.learn.checks import Check  # noqa: E402

HINTS = [
    "range(0, M, size) has the starts of the blocks of rows, also where size does not divide M.",
    "The end of a slice is min(start + size, M).",
    "Which of the three loops is the innermost? The one over K, for then rows and columns, the block of C, stay the same.",
]
DERIVATION = """
C_ij is a sum over k, and a sum may be taken in pieces: over the blocks of k. Every triple of a block of rows, of columns and of depth is
needed once, so there are three loops over starts. With k innermost, a block of C is loaded and stored once, and only blocks of A and B
change. Three squares of size^2 numbers have to fit the cache. Each number that is fetched is then used `size` times.
Goto & van de Geijn 2008, ACM Transactions on Mathematical Software 34.
"""
WRONG = {
    "the rest is left out": ("range(0, M, size)", "range(0, M - size + 1, size)"),
    "slices beyond the end": ("min(k + size, K)", "k + size"),
    "k is not the innermost": (
        "for j in range(0, N, size):\n            for k in range(0, K, size):",
        "for k in range(0, K, size):\n            for j in range(0, N, size):",
    ),
}


def check(yours, check: Check) -> None:
    for M, K, N, size in ((8, 8, 8, 4), (7, 10, 5, 3), (2, 9, 3, 5), (4, 4, 4, 1)):
        a, b = check.normal(M, K), check.normal(K, N)
        c, last, done, count = np.zeros((M, N)), None, set(), 0
        for triple in yours.blocks(M, K, N, size):
            check.that(len(triple) == 3 and all(isinstance(part, slice) for part in triple), "expected triples of slices")
            for what, part, length in zip(("rows", "depth", "columns"), triple, (M, K, N), strict=True):
                inside = part.start is not None and part.stop is not None and 0 <= part.start < part.stop <= length
                check.that(inside, f"{what} is {part}, expected a start and a stop within 0 .. {length}")
                check.that(part.stop - part.start <= size, f"{what} has {part.stop - part.start} numbers, size is {size}")
            rows, depth, columns = triple
            here = (rows.start, columns.start)
            check.that(here == last or here not in done, f"the block of C at {here} is left before it is done, and comes back")
            last = here
            done.add(here)
            c[rows, columns] += a[rows, depth] @ b[depth, columns]
            count += 1
        fewest = -(-M // size) * -(-K // size) * -(-N // size)
        check.that(count <= fewest, f"there are {count} blocks of up to {size} numbers each way, {fewest} are enough")
        check.equal(f"the product for M={M}, K={K}, N={N}, size={size}", c, a @ b)
