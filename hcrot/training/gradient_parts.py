"""The gradient of a step, summed of parts that ranks share out: the same bits whatever the number of ranks.

A step's images are cut into N parts. The gradient of the step is the sum of theirs, in their order, rounded after each:

    g = ((g_0 + g_1) + g_2) + ... + g_(N-1)

One process computes one part after another. R ranks compute N/R parts each, the first rank the first ones. Sums of floating-point numbers
depend on their order, so nothing is added on the way, as a ring or a tree would. Each rank is sent all parts of one slice of the gradient,
1/R of it (all to all), adds them in order, and sends the sum to all (all gather). With N = R that moves as many bytes as a ring does
(Patarasuk & Yuan 2009): 2 (R - 1)/R times the gradient out of each rank, and as many into it.

**While backward goes on.** Each direct part of the network has flat memory of its own: a *bucket*, to which its gradients are copied as
soon as its backward is done, and which is then sent while the backward of the parts before it is computed (Li et al. 2020, section 3.2.3).

**What is random** (noise, dropout, augmentation) is drawn anew for each part, from a seed that is drawn for it. Each rank draws the seeds
of all parts, and the numbers of its own.

**More ranks than parts.** Some ranks then have no part. They send zeros that nobody adds, and get the sum like all others. A single part is
computed by every rank: no seed is drawn for it, so the generators of a rank that left it out would not be where those of the others are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np

from hcrot.init import is_int
from hcrot.module import Module, Parameter, flat
from hcrot.training.distributed import Ranks, wait_for

__all__ = ["Bucket", "GradientParts", "buckets", "most_parts", "places", "told_of_backward"]

Piece = TypeVar("Piece", bound=Any)


class GradientParts:
    """Sums gradients over the parts of a step.

        parts = GradientParts(model, 4, ranks)
        for step in range(steps):
            losses = []
            for rows in parts.of(np.array_split(next(batches), 4), rng):
                loss, dout = ...                                # of the images in these rows, divided by the number of parts
                model.backward(dout)
                losses.append(loss)
            loss = parts.sum(losses)                            # now the gradients are those of the whole step, on every rank
            optimizer.step(max_grad_norm=1.0, zero_grad=True)   # and so are norm, weights and averages

    With one part this is one backward and nothing else: nothing is copied, and ``rng`` is used as it is.

    Args:
        model: in training mode, its parameters all of one dtype. Gradients are zero when a step begins.
        count: how many parts, N. It decides the result, and the number of ranks does not.
        ranks: of the job; None: this process alone.

    Attributes:
        numbers: which of the parts are this rank's; none, where there are fewer parts than ranks.
        buckets: flat memory, for each direct part of the model and, last, for what belongs to none of them or to several.

    Raises:
        TypeError: ``count`` is no int.
        ValueError: no part, parameters of two dtypes, or with several parts a running mean (BatchNorm2d), which would depend on who has
            seen which images.
    """

    def __init__(self, model: Module, count: int, ranks: Ranks | None = None):
        self.model, self.ranks = model, ranks or Ranks()
        if not is_int(count):
            raise TypeError(f"GradientParts: count must be an int, got {count!r}")
        if count < 1:
            raise ValueError(f"GradientParts: expected a count of at least 1, got {count}")
        running = [name for name, module in model.named_modules() if getattr(module, "running_mean", None) is not None]
        if count > 1 and running:
            name = running[0] or type(model).__name__
            raise ValueError(f"GradientParts: {name} has a running mean, which is no sum of parts: expected 1 part, got {count}")
        dtypes = {parameter.dtype for parameter in model.parameters()}
        if len(dtypes) > 1:
            raise ValueError(f"GradientParts: expected parameters of one dtype, got {' and '.join(sorted(map(str, dtypes)))}")
        self.count, self.numbers = int(count), self.ranks.share(count)
        self.buckets = buckets(model, self.count, self.ranks) if count > 1 else []
        self._empty: list[int] = []

    def of(self, pieces: Sequence[Piece], *generators: np.random.Generator) -> Iterator[Piece]:
        """Those of the pieces, one for each part, that are this rank's; when the next one is asked for, the gradient of one is complete.

        Between two pieces, the generators draw numbers that belong to the part: so do those in the model. At the end they are where they
        would be if there were no parts but the seeds. A piece of length 0 is left out.

        Args:
            pieces: one for each part; anything with a length.
            generators: the same on every rank. The first draws the seeds.

        Raises:
            ValueError: another number of pieces than parts, or several parts and no generator.
        """
        if len(pieces) != self.count or (self.count > 1 and not generators):
            raise ValueError(f"GradientParts.of: expected {self.count} pieces and a generator, got {len(pieces)} and {len(generators)}")
        if self.count == 1:
            yield pieces[0]
            return
        drawing = list({id(g): g for g in (*generators, *(g for _, g in self.model.named_generators()))}.values())
        seeds = generators[0].integers(2**63, size=self.count).tolist()
        after = [generator.bit_generator.state for generator in drawing]
        self._empty = [number for number in self.numbers if not len(pieces[number])]
        for bucket in self.buckets:
            bucket.begin()
        try:
            for number in self.numbers:
                for index, generator in enumerate(drawing):
                    generator.bit_generator.state = type(generator.bit_generator)([seeds[number], index]).state
                if len(pieces[number]):
                    last = number == self.numbers[-1]
                    with told_of_backward(self.model, self._send) if last and self.ranks.size > 1 else nullcontext():
                        yield pieces[number]
                for bucket in self.buckets:
                    bucket.keep(number - self.numbers[0])
        finally:
            for generator, state in zip(drawing, after, strict=True):
                generator.bit_generator.state = state

    def sum(self, losses: Sequence[float]) -> float:
        """Put the sum of all parts' gradients into the parameters' ``grad``, on every rank.

        Args:
            losses: of the pieces that :meth:`of` has handed out.

        Returns:
            the sum of all parts' losses, in float64 and in the order of the parts.
        """
        for action in (Bucket.send, Bucket.add, Bucket.deliver):  # each for all buckets, so that none waits for the next step of another
            for bucket in self.buckets:
                action(bucket)
        return float(self.total(losses, ()))

    def total(self, values: Sequence[np.ndarray | float], shape: tuple[int, ...]) -> np.ndarray:
        """The sum over all parts of what each has, in float64 and in the order of the parts; the same on every rank.

        Args:
            values: arrays of the pieces that :meth:`of` has handed out.
            shape: of each.
        """
        own, kept = iter(values), np.zeros((most_parts(self.count, self.ranks.size), *shape))
        for place, number in enumerate(self.numbers):
            if number not in self._empty:
                kept[place] = next(own)
        everyones = self.ranks.gather(kept)
        return sum((everyones[place] for place in places(self.count, self.ranks.size)), np.zeros(shape))

    def _send(self, part: Module) -> None:
        """Send the bucket of a direct part of the model, whose last backward is done, and see to those that are under way."""
        for bucket in self.buckets:
            if bucket.part is part:
                bucket.keep(len(self.numbers) - 1)
                bucket.send()
            elif bucket.request is not None and bucket.request.Test():
                bucket.add()


def most_parts(count: int, size: int) -> int:
    """The number of parts of the rank that has most."""
    return -(-count // size)


def places(count: int, size: int) -> list[tuple[int, int]]:
    """Of each part its rank, and its place among the parts of that rank."""
    shares = [Ranks.share_of(rank, size, count) for rank in range(size)]
    return [(rank, place) for rank, share in enumerate(shares) for place in range(len(share))]


class Bucket:
    """The gradients of some parameters in flat memory, part by part, and the way of each number to the rank that adds it up and back.

    Args:
        part: of the model, to which they belong.
        parameters: one or more.
        count: parts of a step.
        ranks: of the job.

    Attributes:
        total: (ranks, slice). The gradient of a part on its way to ``own``; in one process, the sum so far; at the end the whole sum.
        own: (ranks, parts of the rank that has most, slice), the gradients of this rank's parts, cut into a slice for each rank.
        others: the same shape; what each rank has sent, its parts of this rank's slice.
        added: (slice,), the sum of those.
    """

    def __init__(self, part: Module, parameters: list[Parameter], count: int, ranks: Ranks):
        self.part, self.parameters, self.places = part, parameters, places(count, ranks.size)
        # A communicator of its own: ranks may send their buckets in different orders.
        self.comm: Any = None if ranks.comm is None else ranks.comm.Dup()
        sizes, dtype = [parameter.data.size for parameter in parameters], parameters[0].dtype
        length = -(-sum(sizes) // ranks.size)
        self.total = np.zeros((ranks.size, length), dtype)
        self.views = np.split(self.total.reshape(-1)[: sum(sizes)], np.cumsum(sizes)[:-1])
        if self.comm is not None:
            self.own = np.zeros((ranks.size, most_parts(count, ranks.size), length), dtype)
            self.others, self.added = np.zeros_like(self.own), np.zeros(length, dtype)
        self.begin()

    def begin(self) -> None:
        """Forget the last step."""
        self.request: Any = None
        self.delivery: Any = None
        self.kept = self.sent = False

    def keep(self, place: int) -> None:
        """Move the gradients of this rank's part in this place here from the parameters; in one process, add them up here.

        Raises:
            RuntimeError: they have been sent, and something was added to them since.
        """
        if self.sent:
            if any(parameter.grad.any() for parameter in self.parameters):
                raise RuntimeError(f"GradientParts: gradients of {type(self.part).__name__} changed after its last backward was done")
            return
        adds = self.comm is None and self.kept
        for parameter, numbers in zip(self.parameters, self.views, strict=True):
            np.add(numbers, flat(parameter.grad), out=numbers) if adds else np.copyto(numbers, flat(parameter.grad))
            parameter.grad.fill(0)
        if self.comm is not None:
            self.own[:, place] = self.total
        self.kept = True

    def send(self) -> None:
        """Begin to send each rank its slice of this rank's parts, if that has not begun."""
        if self.comm is not None and not self.sent:
            self.request = self.comm.Ialltoall(self.own, self.others)
        self.sent = True

    def add(self) -> None:
        """Add up the parts of this rank's slice, in their order, and begin to send the sum, if that has not begun."""
        if self.request is not None:
            wait_for(self.request)
            first, *rest = self.places
            np.copyto(self.added, self.others[first])
            for place in rest:
                np.add(self.added, self.others[place], out=self.added)
            self.delivery, self.request = self.comm.Iallgather(self.added, self.total), None

    def deliver(self) -> None:
        """Put the sum where the gradients were."""
        if self.comm is not None:
            wait_for(self.delivery)
        for parameter, numbers in zip(self.parameters, self.views, strict=True):
            np.copyto(flat(parameter.grad), numbers)


def buckets(model: Module, count: int, ranks: Ranks) -> list[Bucket]:
    """A bucket for each direct part of the model, and one for parameters that belong to none of them or to several."""
    owners: dict[Parameter, list[Module]] = {parameter: [] for parameter in model.parameters()}
    for part in dict.fromkeys(model.children()):
        for parameter in dict.fromkeys(part.parameters()):
            owners[parameter].append(part)
    found: dict[Module, list[Parameter]] = {}
    for parameter, parts in owners.items():
        found.setdefault(parts[0] if len(parts) == 1 else model, []).append(parameter)
    return [Bucket(part, parameters, count, ranks) for part, parameters in found.items()]


@contextmanager
def told_of_backward(model: Module, done: Callable[[Module], None]) -> Iterator[None]:
    """Within the ``with`` block, ``done(part)`` is called when the last backward of a direct part of the model is done: when nothing is
    left of what its forwards have kept."""

    def telling(part: Module) -> Callable:
        backward, below = part.backward, part.modules()

        def told(*gradients: Any, **options: Any) -> Any:
            result = backward(*gradients, **options)
            if all(module._kept is None for module in below):
                done(part)
            return result

        return told

    parts = list(dict.fromkeys(model.children()))
    for part in parts:
        part.backward = telling(part)  # type: ignore[method-assign]  # an attribute of the object hides the method
    try:
        yield
    finally:
        for part in parts:
            del part.backward
