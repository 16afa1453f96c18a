"""The fair order of what waits for one endpoint.

Three levels:

- Interactive callers go before bulk ones, but after a few batches without bulk, one is filled with bulk first.
- Callers take turns of a few texts, however many calls each of them has.
- Within a caller, calls that have not started and calls that have alternate. A single text passes a call of a
  thousand, and a stream of single texts does not hold that call up either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from hubgate.domain.calls import BULK_TURN_INTERVAL, Context

MAX_WAITING_CALLS = 2000
"""In the queue of one endpoint: Elasticsearch's limit."""
HasRoom: TypeAlias = Callable[[str], bool]
"""Whether a caller, by its name, may send something now."""


def _new_reply() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


class QueueEntry(msgspec.Struct, eq=False):
    """A call in the queue. Its texts leave in order, in one or several batches."""

    context: Context
    """Whose call it is, and whether it is bulk."""
    weights: Sequence[int]
    """The weight of each text; a call that generates is one text."""
    kind: object = None
    """Only entries of one kind share a batch."""
    sent: int = 0
    """How many of its texts have left the queue."""
    reply: asyncio.Future[Any] = msgspec.field(default_factory=_new_reply)

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

    As long as all are short, of one caller, one class and one kind, they are just a line: the fair order is then the
    order in which they came.

    Args:
        turn: how many texts a caller may send before the next caller's turn.
    """

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._line: deque[E] = deque()
        """All entries, if not empty."""
        self._interactive: _Ring[E] = _Ring(turn)
        self._bulk: _Ring[E] = _Ring(turn)
        self._batches_without_bulk = 0
        """Since the last bulk text left, while one waited."""
        self.calls = 0
        self.texts = 0
        self.weight = 0

    def __bool__(self) -> bool:
        return self.calls > 0

    def __iter__(self) -> Iterator[E]:
        return chain(self._line, self._interactive, self._bulk)

    def add(self, entry: E) -> None:
        """Add a new entry."""
        texts, line = len(entry.weights), self._line
        if texts <= self._turn and (_belong_together(line[0], entry) if line else not self.calls):
            line.append(entry)
        else:
            self._sort_line()
            self._ring(entry).add(entry)
        self.calls += 1
        self.texts += texts
        self.weight += sum(entry.weights)

    def remove(self, entry: E) -> None:
        """Remove what still waits of an entry."""
        if entry.waiting:
            if self._line:
                self._line.remove(entry)
            else:
                self._ring(entry).remove(entry)
            self._subtract(entry)

    def fill(self, batch: Batch[E], has_room: HasRoom | None = None) -> None:
        """Move the texts whose turn it is into a batch. It stays empty if every caller left or has no room."""
        if self._line:
            self._fill_from_line(batch, has_room)
            return
        bulk_texts = self._bulk.texts
        for ring in self._order():
            ring.fill(batch, has_room)
        passed_over = bulk_texts and self._bulk.texts == bulk_texts
        self._batches_without_bulk = self._batches_without_bulk + 1 if passed_over else 0
        self.texts -= batch.texts
        self.weight -= batch.weight
        self.calls -= sum(not entry.waiting for entry in batch.parts)

    def next_weight(self, has_room: HasRoom | None = None) -> int | None:
        """The weight of the text that leaves next; `None` if none can."""
        if self._line:
            first = self._line[0]
            return first.weights[first.sent] if has_room is None or has_room(first.context.caller) else None
        for ring in self._order():
            for name, caller in ring.callers.items():
                if has_room is None or has_room(name):
                    return caller.next_weight()
        return None

    def texts_ahead(self, entry: E, batch_texts: int, has_room: HasRoom | None = None) -> int:
        """How many texts will have left when the last one of this new entry leaves, itself included, at least."""
        if self._line:
            if _belong_together(self._line[0], entry):
                return self.texts + len(entry.weights)
            self._sort_line()
        ahead = self._ring(entry).texts_ahead(entry, has_room)
        if not entry.context.bulk:
            return ahead
        between = (BULK_TURN_INTERVAL - 1) * max(ahead - batch_texts, 0)
        return ahead + min(self._interactive.texts, between)

    def _sort_line(self) -> None:
        """Let its entries take turns with others."""
        for entry in self._line:
            self._ring(entry).add(entry)
        self._line.clear()

    def _fill_from_line(self, batch: Batch[E], has_room: HasRoom | None) -> None:
        line = self._line
        if has_room is not None and not has_room(line[0].context.caller):
            return
        while line and not batch.full:
            entry = line[0]
            if entry.reply.done():  # its caller has left
                self._subtract(entry)
                entry.sent = len(entry.weights)
            else:
                batch.add(entry, len(entry.weights))
                if entry.sent < len(entry.weights):
                    break
                self.calls -= 1
            line.popleft()
        self.texts -= batch.texts
        self.weight -= batch.weight

    def _subtract(self, entry: E) -> None:
        """Do not count what still waits of an entry."""
        self.calls -= 1
        self.texts -= entry.waiting
        self.weight -= sum(entry.weights[entry.sent :])

    def _ring(self, entry: E) -> _Ring[E]:
        return self._bulk if entry.context.bulk else self._interactive

    def _order(self) -> tuple[_Ring[E], _Ring[E]]:
        if self._batches_without_bulk >= BULK_TURN_INTERVAL - 1:
            return self._bulk, self._interactive
        return self._interactive, self._bulk


def _belong_together(one: E, other: E) -> bool:
    mine, others = one.context, other.context
    return mine.caller == others.caller and mine.bulk is others.bulk and one.kind == other.kind


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
