"""Mini-batches: every item once per epoch, in an order that a resumed run finds again."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from hcrot.init import as_generator, is_int

__all__ = ["Batches"]


class Items(Protocol):
    """Anything with a length whose items an int finds."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Batches:
    """Arrays, or other collections, of the same length n, cut into batches: entry i of each batch array comes from the same item.

        for epoch in range(batches.epoch, epochs):
            for images, labels in batches:
                ...

    One pass of `for` is one epoch: each item exactly once, the last batch as small as what is left, or with `drop_last` left out. The
    order of epoch e is a fresh permutation of 0..n-1, a function of (seed, e) alone; the seed is drawn from `generator` once, here.
    Three integers therefore say where a run is, whatever else the generator has been used for since.

    A pass that was left in the middle (by `break`, by a checkpoint) is continued by the next one, which takes exactly
    the batches that remain of that epoch.

    Args:
        arrays: each (n, ...), n >= 1; one that is mapped from a file is read batch by batch. Or anything with `len` whose items an int
            finds, such as a list, or a Dataset of PyTorch's: its items become one array, or where they are tuples one array per entry.
        batch_size: items per batch, at least 1.
        generator: the order is drawn from it, or from a new one with this seed. None: no shuffling, items come as they are stored.
        drop_last: whether to leave out the last batch of an epoch where it is smaller than the others.

    Attributes:
        epoch: how many epochs have been handed out whole, the batch in hand included.
        position: how many items of the current epoch have been handed out.

    Raises:
        TypeError: one of `arrays` has no length or no items, `batch_size` is no int, or `generator` neither a Generator, an int nor None.
        ValueError: no arrays, an empty one, or different lengths, `batch_size` < 1, or with `drop_last` more than n, or a seed below 0.
    """

    def __init__(
        self, *arrays: np.ndarray | Items, batch_size: int, generator: np.random.Generator | int | None, drop_last: bool = False
    ):
        for array in arrays:
            if np.ndim(array) == 0 if isinstance(array, np.ndarray) else not (hasattr(array, "__len__") and hasattr(array, "__getitem__")):
                came = f"an array of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise TypeError(f"Batches: expected arrays of shape (n, ...) or collections with len and indexing, got {came}")
        lengths = [len(array) for array in arrays]
        if not lengths or min(lengths) == 0 or min(lengths) != max(lengths):
            raise ValueError(f"Batches: expected arrays of one length, at least 1, got lengths {lengths}")
        if not is_int(batch_size):
            raise TypeError(f"Batches: batch_size must be an int, got {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"Batches: batch_size must be at least 1, got {batch_size}")
        if drop_last and batch_size > lengths[0]:
            raise ValueError(f"Batches: with drop_last, batch_size must be at most the number of items {lengths[0]}, got {batch_size}")
        source = None if generator is None else as_generator("Batches", generator)
        self.arrays = arrays
        self.count = lengths[0]
        self.batch_size = int(batch_size)
        self.drop_last = bool(drop_last)
        self.seed = None if source is None else int(source.integers(2**63))
        self.epoch = 0
        self.position = 0

    def __repr__(self) -> str:
        order = "in order" if self.seed is None else "shuffled"
        dropped = ", drop_last=True" if self.drop_last else ""
        place = f"epoch={self.epoch}, position={self.position:,}"
        return f"Batches({self.count:,} items {order}, batch_size={self.batch_size}{dropped}, {len(self):,} batches, {place})"

    def __len__(self) -> int:
        """Batches in a whole epoch: n / batch_size, rounded up, or with drop_last down."""
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches that remain of the current epoch, each a tuple with one new array (batch, ...) per array."""
        epoch, order = self.epoch, self._order(self.epoch)
        least = self.batch_size if self.drop_last else 1
        for start in range(self.position, self.count, self.batch_size):
            stop = start + self.batch_size
            # Moved on before the batch is handed over: a state taken while it is worked on says that it has been given.
            self.epoch, self.position = (epoch, stop) if stop + least <= self.count else (epoch + 1, 0)
            rows = order[start:stop]
            if len(rows) >= least:  # a run resumed with another batch size may begin at a smaller one
                yield tuple(batch for array in self.arrays for batch in _take(array, rows))

    def _order(self, epoch: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(self.count)
        return np.random.default_rng([self.seed, epoch]).permutation(self.count)

    def state_dict(self) -> dict[str, int | None]:
        """Where the run is, in plain integers for JSON: the next batch after `load_state_dict` is the one due now."""
        return {"seed": self.seed, "count": self.count, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken. A `for` that is already running is not redirected; the next one starts there.

        The batch size is not part of it: with the same one the run continues bit for bit, with another every item still
        comes once per epoch.

        Raises:
            ValueError: other keys than `state_dict` writes, numbers out of range, a state of arrays of another length,
                a shuffled state for an unshuffled run or the reverse. Nothing is changed then.
        """
        expected = set(self.state_dict())
        if set(state) != expected:
            raise ValueError(f"Batches.load_state_dict: expected the keys {sorted(expected)}, got {sorted(state)}")
        if state["count"] != self.count:
            raise ValueError(f"Batches.load_state_dict: the state is of {state['count']} items, here are {self.count}")
        if (state["seed"] is None) != (self.seed is None):
            raise ValueError("Batches.load_state_dict: the state and these batches must both be shuffled, or neither")
        seed, epoch, position = state["seed"], state["epoch"], state["position"]
        numbers = [epoch, position] if seed is None else [seed, epoch, position]
        if not all(is_int(number) and number >= 0 for number in numbers) or position >= self.count:
            raise ValueError(f"Batches.load_state_dict: expected integers >= 0 and a position below {self.count}, "
                             f"got {state}")
        self.seed, self.epoch, self.position = seed if seed is None else int(seed), int(epoch), int(position)


def _take(array: Any, rows: np.ndarray) -> list[np.ndarray]:
    """The items in these rows, as one array, or where they are tuples as one array per entry."""
    if isinstance(array, np.ndarray):
        return [np.asarray(array[rows])]
    items = [array[int(row)] for row in rows]
    return [np.stack(entries) for entries in zip(*items, strict=True)] if isinstance(items[0], tuple) else [np.stack(items)]
