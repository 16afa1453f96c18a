"""Who leaves next: the fair order of all that waits.

Three levels, each a rule of its own:

- Interactive callers before bulk ones; but after some batches that had no room for bulk, one is filled with it first.
- Callers take turns of a few texts, however many calls each of them has.
- Within a caller, calls of which nothing has left yet and the rests of those of which something has alternate. So a
  single text passes a call of a thousand, and a stream of single texts does not hold that call up either.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from hubgate.core.queue.batch import Batch, QueuedCall
from hubgate.domain.calls import BULK_TURN_INTERVAL


class FairQueue:
    """Tickets that wait, by caller, in two classes.

    Args:
        turn: texts that a caller may send in one go.
    """

    def __init__(self, turn: int) -> None:
        self._interactive, self._bulk = _Ring(turn), _Ring(turn)
        self._overtaken = 0
        self.calls = 0
        self.weight = 0

    def __bool__(self) -> bool:
        return self.calls > 0

    def __iter__(self) -> Iterator[QueuedCall]:
        return chain(self._interactive, self._bulk)

    @property
    def texts(self) -> int:
        """How many texts wait."""
        return self._interactive.texts + self._bulk.texts

    def add(self, ticket: QueuedCall) -> None:
        """Let a ticket wait."""
        self._ring(ticket).add(ticket)
        self.calls += 1
        self.weight += sum(ticket.weights)

    def remove(self, ticket: QueuedCall) -> None:
        """Take out what waits of a ticket, if anything does."""
        if ticket.waiting:
            self._ring(ticket).remove(ticket)
            self.calls -= 1
            self.weight -= sum(ticket.weights[ticket.left :])

    def load(self, most_texts: int, most_weight: int) -> Batch:
        """Close a batch of those whose turn it is. It is empty only if all who wait are leaving."""
        batch = Batch(most_texts, most_weight)
        bulk_texts = self._bulk.texts
        for ring in self._order():
            ring.fill(batch)
        left_behind = bulk_texts and self._bulk.texts == bulk_texts
        self._overtaken = self._overtaken + 1 if left_behind else 0
        self.weight -= batch.weight
        self.calls -= sum(not ticket.waiting for ticket in batch.parts)
        return batch

    def next_weight(self) -> int:
        """What the next text weighs that leaves."""
        for ring in self._order():
            if ring.texts:
                return ring.next_weight()
        return 0

    def ahead(self, ticket: QueuedCall, most_texts: int) -> int:
        """How many texts will have left when the last one of this newcomer does, at the least; so many in a batch."""
        own = self._ring(ticket).ahead(ticket)
        if not ticket.call.context.bulk:
            return own
        between = (BULK_TURN_INTERVAL - 1) * max(own - most_texts, 0)
        return own + min(self._interactive.texts, between)

    def _ring(self, ticket: QueuedCall) -> _Ring:
        return self._bulk if ticket.call.context.bulk else self._interactive

    def _order(self) -> tuple[_Ring, _Ring]:
        if self._overtaken >= BULK_TURN_INTERVAL - 1:
            return self._bulk, self._interactive
        return self._interactive, self._bulk


class _Ring:
    """Callers that take turns."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._callers: dict[str, _Caller] = {}
        self.texts = 0

    def __iter__(self) -> Iterator[QueuedCall]:
        return chain.from_iterable(self._callers.values())

    def add(self, ticket: QueuedCall) -> None:
        name = ticket.call.context.caller
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = _Caller(self._turn)
        caller.add(ticket)
        self.texts += ticket.waiting

    def remove(self, ticket: QueuedCall) -> None:
        name = ticket.call.context.caller
        caller = self._callers[name]
        caller.remove(ticket)
        self.texts -= ticket.waiting
        if not caller:
            del self._callers[name]

    def fill(self, batch: Batch) -> None:
        """Turn by turn, until the batch is full or nobody has anything for it. Who had no turn is next in the next one."""
        passed_over: dict[str, _Caller] = {}
        while self._callers and not batch.full:
            name = next(iter(self._callers))
            caller = self._callers.pop(name)
            taken = caller.board(batch)
            self.texts -= taken
            if not taken:
                passed_over[name] = caller
            elif caller:
                self._callers[name] = caller
        self._callers = passed_over | self._callers

    def next_weight(self) -> int:
        return next(iter(self._callers.values())).next_weight()

    def ahead(self, ticket: QueuedCall) -> int:
        caller = self._callers.get(ticket.call.context.caller)
        own = len(ticket.weights) + (caller.first_turns if caller else 0)
        others = self.texts - (caller.texts if caller else 0)
        rivals = len(self._callers) - (caller is not None)
        return own + min(others, own * rivals)


class _Caller:
    """The calls of one caller."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._fresh: dict[QueuedCall, None] = {}
        """Nothing of them has left yet."""
        self._begun: dict[QueuedCall, None] = {}
        self._begun_first = False
        self.texts = 0
        self.first_turns = 0
        """Texts that the fresh ones can send in the first turn of each."""

    def __bool__(self) -> bool:
        return bool(self._fresh or self._begun)

    def __iter__(self) -> Iterator[QueuedCall]:
        return chain(self._fresh, self._begun)

    def add(self, ticket: QueuedCall) -> None:
        self._fresh[ticket] = None
        self.texts += ticket.waiting
        self.first_turns += min(ticket.waiting, self._turn)

    def remove(self, ticket: QueuedCall) -> None:
        if ticket in self._fresh:
            self.first_turns -= min(ticket.waiting, self._turn)
            del self._fresh[ticket]
        else:
            del self._begun[ticket]
        self.texts -= ticket.waiting

    def board(self, batch: Batch) -> int:
        """Take a turn; returns how many texts were taken along."""
        for line in self._lines():
            taken = self._board_from(line, batch)
            if taken:
                self._begun_first = line is self._fresh
                return taken
        return 0

    def next_weight(self) -> int:
        ticket = next(iter(self._lines()[0] or self._lines()[1]))
        return ticket.weights[ticket.left]

    def _lines(self) -> tuple[dict[QueuedCall, None], dict[QueuedCall, None]]:
        return (self._begun, self._fresh) if self._begun_first else (self._fresh, self._begun)

    def _board_from(self, line: dict[QueuedCall, None], batch: Batch) -> int:
        taken = 0
        for ticket in list(line):
            if taken == self._turn or batch.full:
                break
            first_turn = min(ticket.waiting, self._turn)
            boarded = batch.add(ticket, self._turn - taken) if batch.takes(ticket) else 0
            if boarded:
                taken += boarded
                del line[ticket]
                self.first_turns -= first_turn if line is self._fresh else 0
                if ticket.waiting:
                    self._begun[ticket] = None
        self.texts -= taken
        return taken
