"""The fair order of what waits for one endpoint.

Three levels:

- Interactive callers go before bulk ones, but after a few batches without bulk, one is filled with bulk first.
- Callers take turns of a few texts, however many calls each of them has.
- Within a caller, calls that have not started and calls that have alternate. A single text passes a call of a
  thousand, and a stream of single texts does not hold that call up either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, TypeAlias, TypeVar

from hubgate.domain.calls import BULK_TURN_INTERVAL, Context

HasRoom: TypeAlias = Callable[[str], bool]
"""Whether a caller, by its name, may send something now."""


class QueueEntry:
    """A call in the queue. Its texts leave in order, in one or several batches.

    Args:
        context: whose call it is, and whether it is bulk.
        weights: the weight of each text; a call that generates is one text.
        kind: only entries of one kind share a batch.
    """

    __slots__ = ("context", "kind", "reply", "sent", "weights")

    def __init__(self, context: Context, weights: Sequence[int], kind: object = None) -> None:
        self.context = context
        self.weights = weights
        self.kind = kind
        self.sent = 0
        """How many of its texts have left the queue."""
        self.reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def waiting(self) -> int:
        """How many of its texts are in the queue."""
        return len(self.weights) - self.sent


E = TypeVar("E", bound=QueueEntry)


class Batch(Generic[E]):
    """A range of texts of each entry, all of one kind.

    Args:
        max_texts: of all entries.
        max_weight: of all texts; a text that weighs more goes alone.
    """

    __slots__ = ("full", "max_texts", "max_weight", "parts", "texts", "weight")

    def __init__(self, max_texts: int, max_weight: int) -> None:
        self.max_texts, self.max_weight = max_texts, max_weight
        self.parts: dict[E, range] = {}
        self.texts = self.weight = 0
        self.full = False

    def accepts(self, entry: E) -> bool:
        """The first entry decides the kind."""
        return not entry.reply.done() and (not self.parts or next(iter(self.parts)).kind == entry.kind)

    def add(self, entry: E, max_texts: int) -> int:
        """Take up to `max_texts` further texts of an entry.

        The first text that does not fit closes the batch: if smaller ones could pass, it might wait forever.

        Returns:
            How many were taken.
        """
        start = entry.sent
        stop = min(start + max_texts, len(entry.weights))
        size = sum(entry.weights[start:stop])
        if self.texts + stop - start <= self.max_texts and self.weight + size <= self.max_weight:
            self.texts += stop - start
            self.weight += size
        else:
            stop = self._fit(entry, start, stop)
        if stop > start:
            entry.sent = stop
            self.parts[entry] = range(self.parts[entry].start if entry in self.parts else start, stop)
        self.full = self.full or self.texts == self.max_texts
        return stop - start

    def _fit(self, entry: E, start: int, stop: int) -> int:
        """Take texts one by one while they fit; returns where it stopped."""
        for index in range(start, stop):
            grown = self.weight + entry.weights[index]
            if self.texts == self.max_texts or (self.texts and grown > self.max_weight):
                self.full = True
                return index
            self.texts += 1
            self.weight = grown
        return stop


class FairQueue(Generic[E]):
    """Entries that wait, by caller, in two classes: interactive and bulk.

    Args:
        turn: how many texts a caller may send before the next caller's turn.
    """

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._interactive: _Ring[E] = _Ring(turn)
        self._bulk: _Ring[E] = _Ring(turn)
        self._batches_without_bulk = 0
        """Since the last bulk text left, while one waited."""
        self.calls = 0
        self.weight = 0

    def __bool__(self) -> bool:
        return self.calls > 0

    def __iter__(self) -> Iterator[E]:
        return chain(self._interactive, self._bulk)

    @property
    def texts(self) -> int:
        return self._interactive.texts + self._bulk.texts

    def add(self, entry: E) -> None:
        self._ring(entry).add(entry)
        self.calls += 1
        self.weight += sum(entry.weights)

    def remove(self, entry: E) -> None:
        """Remove what still waits of an entry."""
        if entry.waiting:
            self._ring(entry).remove(entry)
            self.calls -= 1
            self.weight -= sum(entry.weights[entry.sent :])

    def fill(self, batch: Batch[E], has_room: HasRoom | None = None) -> None:
        """Move the texts whose turn it is into a batch. It stays empty if every caller left or has no room."""
        bulk_texts = self._bulk.texts
        for ring in self._order():
            ring.fill(batch, has_room)
        passed_over = bulk_texts and self._bulk.texts == bulk_texts
        self._batches_without_bulk = self._batches_without_bulk + 1 if passed_over else 0
        self.weight -= batch.weight
        self.calls -= sum(not entry.waiting for entry in batch.parts)

    def next_weight(self, has_room: HasRoom | None = None) -> int | None:
        """The weight of the text that leaves next; `None` if none can."""
        for ring in self._order():
            for name, caller in ring.callers.items():
                if has_room is None or has_room(name):
                    return caller.next_weight()
        return None

    def texts_ahead(self, entry: E, batch_texts: int, has_room: HasRoom | None = None) -> int:
        """How many texts will have left when the last one of this new entry leaves, itself included, at least."""
        ahead = self._ring(entry).texts_ahead(entry, has_room)
        if not entry.context.bulk:
            return ahead
        between = (BULK_TURN_INTERVAL - 1) * max(ahead - batch_texts, 0)
        return ahead + min(self._interactive.texts, between)

    def _ring(self, entry: E) -> _Ring[E]:
        return self._bulk if entry.context.bulk else self._interactive

    def _order(self) -> tuple[_Ring[E], _Ring[E]]:
        if self._batches_without_bulk >= BULK_TURN_INTERVAL - 1:
            return self._bulk, self._interactive
        return self._interactive, self._bulk


class _Ring(Generic[E]):
    """Callers that take turns."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self.callers: dict[str, _Caller[E]] = {}
        self.texts = 0

    def __iter__(self) -> Iterator[E]:
        return chain.from_iterable(self.callers.values())

    def add(self, entry: E) -> None:
        name = entry.context.caller
        caller = self.callers.get(name)
        if caller is None:
            caller = self.callers[name] = _Caller(self._turn)
        caller.add(entry)
        self.texts += entry.waiting

    def remove(self, entry: E) -> None:
        name = entry.context.caller
        caller = self.callers[name]
        caller.remove(entry)
        self.texts -= entry.waiting
        if not caller:
            del self.callers[name]

    def fill(self, batch: Batch[E], has_room: HasRoom | None) -> None:
        """Give turns until the batch is full. Callers that were passed over are first in the next batch."""
        passed_over: dict[str, _Caller[E]] = {}
        while self.callers and not batch.full:
            name = next(iter(self.callers))
            caller = self.callers.pop(name)
            taken = caller.take_turn(batch) if has_room is None or has_room(name) else 0
            self.texts -= taken
            if not taken:
                passed_over[name] = caller
            elif caller:
                self.callers[name] = caller
        self.callers = passed_over | self.callers

    def texts_ahead(self, entry: E, has_room: HasRoom | None) -> int:
        caller = self.callers.get(entry.context.caller)
        own = len(entry.weights) + (caller.first_turns if caller else 0)
        if len(self.callers) == (caller is not None):
            return own  # without rivals, as mostly
        most_each = max(own - self._turn, 1)  # what each rival sends before the last turn of this entry
        return own + sum(
            min(rival.texts, most_each)
            for name, rival in self.callers.items()
            if rival is not caller and (has_room is None or has_room(name))
        )


class _Caller(Generic[E]):
    """The entries of one caller."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._new: dict[E, None] = {}
        self._started: dict[E, None] = {}
        """Entries of which some texts have left."""
        self._started_first = False
        self.texts = 0
        self.first_turns = 0
        """How many texts the new entries can send in the first turn of each."""

    def __bool__(self) -> bool:
        return bool(self._new or self._started)

    def __iter__(self) -> Iterator[E]:
        return chain(self._new, self._started)

    def add(self, entry: E) -> None:
        self._new[entry] = None
        self.texts += entry.waiting
        self.first_turns += min(entry.waiting, self._turn)

    def remove(self, entry: E) -> None:
        if entry in self._new:
            self.first_turns -= min(entry.waiting, self._turn)
            del self._new[entry]
        else:
            del self._started[entry]
        self.texts -= entry.waiting

    def take_turn(self, batch: Batch[E]) -> int:
        for line in self._lines():
            taken = self._take_from(line, batch)
            if taken:
                self._started_first = line is self._new
                return taken
        return 0

    def next_weight(self) -> int:
        entry = next(iter(self._lines()[0] or self._lines()[1]))
        return entry.weights[entry.sent]

    def _lines(self) -> tuple[dict[E, None], dict[E, None]]:
        return (self._started, self._new) if self._started_first else (self._new, self._started)

    def _take_from(self, line: dict[E, None], batch: Batch[E]) -> int:
        taken = 0
        for entry in list(line):
            if taken == self._turn or batch.full:
                break
            first_turn = min(entry.waiting, self._turn)
            added = batch.add(entry, self._turn - taken) if batch.accepts(entry) else 0
            if added:
                taken += added
                del line[entry]
                self.first_turns -= first_turn if line is self._new else 0
                if entry.waiting:
                    self._started[entry] = None
        self.texts -= taken
        return taken
