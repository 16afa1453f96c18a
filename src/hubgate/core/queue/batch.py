"""Tickets, the calls that wait; and batches, the texts of several tickets that leave together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeAlias, cast

from hubgate.core.errors import error_for_caller, wrong_count
from hubgate.core.results import (
    estimate_tokens,
    fill_text_counts,
    join_items,
    join_vectors,
    split_items,
    split_vectors,
    utf8_size,
)
from hubgate.domain.calls import (
    Call,
    Context,
    Embed,
    Rerank,
    Result,
    Scores,
    SparseEmbed,
    SparseVectors,
    Tokenize,
    Tokens,
    Vectors,
)

_WORTH_TELLING = 0.001
"""Seconds; less is a turn of the event loop."""


PartialResult: TypeAlias = Vectors | SparseVectors | Scores


class QueuedCall:
    """A call in the queue. Its texts leave in order, in one or several batches; those of a `Tokenize` leave whole."""

    __slots__ = (
        "_missing",
        "_shares",
        "call",
        "kind",
        "lanes",
        "left",
        "reply",
        "since",
        "waited",
        "weights",
    )

    def __init__(self, call: Call, now: float) -> None:
        self.call = call
        self.weights, self.kind = _measured(call)
        """Only tickets of one kind share a batch."""
        self.since = now
        self.waited = 0.0
        """Seconds until its last text left."""
        self.left = 0
        """How many of its texts have left the queue."""
        self.lanes: dict[asyncio.Task[None], Batch] = {}
        """Those under way with texts of it, and in which batch."""
        self.reply: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._missing = len(self.weights)
        self._shares: dict[int, PartialResult] = {}

    @property
    def waiting(self) -> int:
        """How many of its texts are in the queue."""
        return len(self.weights) - self.left

    def receive(self, start: int, share: PartialResult) -> None:
        """Take the items of some of the texts; with the last of them the call is answered."""
        self._shares[start] = share
        self._missing -= len(share.items)
        if not self._missing:
            self.answer(_joined([self._shares[start] for start in sorted(self._shares)]))

    def answer(self, result: Result) -> None:
        """Answer the call, unless its caller has left."""
        if not self.reply.done():
            self.reply.set_result(result)

    def fail(self, error: Exception) -> None:
        """Answer the call with an error, unless it is answered or its caller has left."""
        if not self.reply.done():
            self.reply.set_exception(error)


def _measured(call: Call) -> tuple[list[int], object]:
    """What each text weighs, and with which others it may share a request."""
    weights = [utf8_size(text) for text in call.texts]
    match call:
        case Embed():
            return weights, call.options
        case Tokenize():
            return [sum(weights)], call
        case Rerank():  # the model reads the query with each text
            own = utf8_size(call.query)
            return [own + each for each in weights], (Rerank, call.options)
        case SparseEmbed():
            return weights, (SparseEmbed, call.options)


def _joined(shares: Sequence[PartialResult]) -> PartialResult:
    match shares[0]:
        case Vectors():
            return join_vectors(cast("Sequence[Vectors]", shares))
        case Scores():
            return join_items(cast("Sequence[Scores]", shares))
        case SparseVectors():
            return join_items(cast("Sequence[SparseVectors]", shares))


class Batch:
    """Of each ticket a range of texts, all of one kind, sent as one call.

    Args:
        most_texts: how many there may be.
        most_weight: what they may weigh together; a text that weighs more goes alone.
    """

    __slots__ = ("full", "most_texts", "most_weight", "parts", "texts", "weight")

    def __init__(self, most_texts: int, most_weight: int) -> None:
        self.most_texts, self.most_weight = most_texts, most_weight
        self.parts: dict[QueuedCall, range] = {}
        self.texts = self.weight = 0
        self.full = False

    def takes(self, ticket: QueuedCall) -> bool:
        """Whether this ticket may come along; the first one decides the kind."""
        return not ticket.reply.done() and (not self.parts or next(iter(self.parts)).kind == ticket.kind)

    def add(self, ticket: QueuedCall, most: int) -> int:
        """Take up to `most` further texts of a ticket; returns how many.

        The first text that does not fit closes the batch: if smaller ones were let past, it might wait for ever.
        """
        start = ticket.left
        stop = min(start + most, len(ticket.weights))
        for index in range(start, stop):
            grown = self.weight + ticket.weights[index]
            if self.texts == self.most_texts or (self.texts and grown > self.most_weight):
                stop, self.full = index, True
                break
            self.texts += 1
            self.weight = grown
        if stop > start:
            ticket.left = stop
            self.parts[ticket] = range(self.parts[ticket].start if ticket in self.parts else start, stop)
        self.full = self.full or self.texts == self.most_texts
        return stop - start

    @property
    def tokens(self) -> int:
        """A guess at the tokens of all texts."""
        return estimate_tokens(self.weight, texts=self.texts)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return any(not ticket.reply.done() for ticket in self.parts)

    def call(self) -> Call:
        """What to ask: the one call itself where it is alone and whole, else one made of all parts."""
        first = next(iter(self.parts))
        call = first.call
        if isinstance(call, Tokenize) or (len(self.parts) == 1 and self.texts == len(first.weights)):
            return call
        texts = chain.from_iterable(
            ticket.call.texts[part.start : part.stop] for ticket, part in self.parts.items()
        )
        return replace(call, texts=list(texts), context=self._context())

    def _context(self) -> Context:
        contexts = [ticket.call.context for ticket in self.parts]
        deadlines = [context.deadline for context in contexts if context.deadline is not None]
        callers = self.callers
        others = len(contexts) - 1
        return Context(
            request_id=contexts[0].request_id + (f"+{others}" if others else ""),
            caller=callers.pop() if len(callers) == 1 else "-",
            bulk=all(context.bulk for context in contexts),
            deadline=max(deadlines) if len(deadlines) == len(contexts) else None,
        )

    def halves(self) -> list[Batch]:
        """Two batches of half the calls each; of half the texts if there is one call only."""
        if len(self.parts) > 1:
            parts = list(self.parts.items())
            middle = len(parts) // 2
            return [self._of(dict(parts[:middle])), self._of(dict(parts[middle:]))]
        ((ticket, part),) = self.parts.items()
        middle = part.start + len(part) // 2
        return [self._of({ticket: range(part.start, middle)}), self._of({ticket: range(middle, part.stop)})]

    def calls(self) -> list[Batch]:
        """One batch a call."""
        return [self._of({ticket: part}) for ticket, part in self.parts.items()]

    def without_leavers(self) -> Batch:
        """The same without the tickets that nobody waits for any more."""
        return self._of({ticket: part for ticket, part in self.parts.items() if not ticket.reply.done()})

    def _of(self, parts: dict[QueuedCall, range]) -> Batch:
        batch = Batch(self.most_texts, self.most_weight)
        batch.parts = parts
        batch.texts = sum(map(len, parts.values()))
        batch.weight = sum(sum(ticket.weights[part.start : part.stop]) for ticket, part in parts.items())
        return batch

    def deliver(self, result: Result) -> None:
        """Hand every ticket its share.

        Raises:
            UpstreamUnreadable: it is not one item a text, so nobody can tell whose is whose.
        """
        if isinstance(result, Tokens):
            for ticket in self.parts:
                ticket.answer(result)
            return
        if len(result.items) != self.texts:
            raise wrong_count(len(result.items), self.texts)
        for (ticket, part), share in zip(self.parts.items(), self._shares(result), strict=True):
            ticket.receive(part.start, share)

    def _shares(self, result: PartialResult) -> Sequence[PartialResult]:
        waited = [ticket.waited for ticket in self.parts]
        if len(self.parts) == 1:
            return [replace(result, waited=waited[0]) if waited[0] >= _WORTH_TELLING else result]
        weights = [ticket.weights[part.start : part.stop] for ticket, part in self.parts.items()]
        if isinstance(result, Vectors):
            whole = fill_text_counts(result, list(chain.from_iterable(weights)))
            return split_vectors(whole, list(map(len, weights)), waited)
        return split_items(result, weights, waited)

    @property
    def callers(self) -> set[str]:
        """Whose calls these are."""
        return {ticket.call.context.caller for ticket in self.parts}

    def fail(self, error: Exception, *, strangers: bool = False) -> None:
        """Tell every ticket; those of several callers, or with `strangers`, only what holds no other's text."""
        strangers = strangers or len(self.callers) > 1
        for ticket in self.parts:
            ticket.fail(error_for_caller(error, strangers=strangers))
