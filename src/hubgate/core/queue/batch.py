"""Calls that wait for a batch, and batches: the texts of several calls, sent as one request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeAlias, cast

from msgspec.structs import replace

from hubgate.core.errors import error_for_caller, wrong_count
from hubgate.core.queue.fair_queue import Batch, QueueEntry
from hubgate.core.results import (
    estimate_tokens,
    join_items,
    join_vectors,
    split_items,
    split_vectors,
    utf8_size,
    utf8_sizes,
)
from hubgate.domain.calls import (
    Call,
    Context,
    ItemResult,
    Rerank,
    Result,
    Tokenize,
    Tokens,
    Vectors,
)

PartialResult: TypeAlias = Vectors | ItemResult

_MIN_WAIT_SECONDS = 0.001
"""A shorter wait is a turn of the event loop, and is not reported."""


class QueuedCall(QueueEntry, kw_only=True):
    """A call about texts. Those of a `Tokenize` leave together."""

    call: Call
    since: float
    deadline: float | None = None
    waited: float = 0.0
    """Seconds until its last text left."""
    missing: int
    """How many texts have no result."""
    results: dict[int, PartialResult] | None = None
    """Of some of the texts, by the number of the first."""

    def receive(self, start: int, result: PartialResult) -> None:
        """Accept the result of some of the texts. The last one completes the reply."""
        if len(result.items) == len(self.weights):
            self.answer(result)
            return
        if self.results is None:
            self.results = {}
        self.results[start] = result
        self.missing -= len(result.items)
        if not self.missing:
            self.answer(_joined([self.results[start] for start in sorted(self.results)]))

    def answer(self, result: Result) -> None:
        """Set the reply, unless there is one or the caller has left."""
        if not self.reply.done():
            self.reply.set_result(result)

    def fail(self, error: Exception) -> None:
        """Set an error as the reply, unless there is one or the caller has left."""
        if not self.reply.done():
            self.reply.set_exception(error)


def queued_call(call: Call, now: float, deadline: float | None) -> QueuedCall:
    weights = utf8_sizes(call.texts)
    kind: object
    if isinstance(call, Tokenize):
        weights, kind = [sum(weights)], call
    else:
        kind = (type(call), call.options)
        if isinstance(call, Rerank):  # the model reads the query with each text
            query = utf8_size(call.query)
            weights = [query + each for each in weights]
    return QueuedCall(
        call.context,
        weights,
        kind,
        call=call,
        since=now,
        deadline=deadline,
        missing=len(weights),
    )


def _joined(results: Sequence[PartialResult]) -> PartialResult:
    if isinstance(results[0], Vectors):
        return join_vectors(cast("Sequence[Vectors]", results))
    return join_items(cast("Sequence[ItemResult]", results))


class TextBatch(Batch[QueuedCall]):
    """The texts of one request. A weight is the size of a text in bytes."""

    __slots__ = ("refusals", "waits")

    def __init__(self, max_texts: int, max_weight: int) -> None:
        super().__init__(max_texts, max_weight)
        self.refusals = 0
        """How often the server was overloaded, or said so, when it was sent."""
        self.waits = True
        """See `Context.waits`."""

    @property
    def tokens(self) -> int:
        """An estimate."""
        return estimate_tokens(self.weight, texts=self.texts)

    @property
    def wanted(self) -> bool:
        """Whether any caller still waits for it."""
        return any(not entry.reply.done() for entry in self.parts)

    @property
    def callers(self) -> set[str]:
        return {entry.context.caller for entry in self.parts}

    def call(self) -> Call:
        """The call to send: the original if it is alone and whole."""
        first = next(iter(self.parts))
        call = first.call
        if isinstance(call, Tokenize) or (len(self.parts) == 1 and self.texts == len(first.weights)):
            if call.context.deadline == first.deadline and self.waits and not self.refusals:
                return call
            context = replace(
                call.context, deadline=first.deadline, refused=self.refusals > 0, waits=self.waits
            )
            return replace(call, context=context)
        texts = chain.from_iterable(
            entry.call.texts[part.start : part.stop] for entry, part in self.parts.items()
        )
        return replace(call, texts=list(texts), context=self._context())

    def _context(self) -> Context:
        contexts = [entry.context for entry in self.parts]
        deadlines = [entry.deadline for entry in self.parts if entry.deadline is not None]
        callers = self.callers
        others = len(contexts) - 1
        return Context(
            request_id=contexts[0].request_id + (f"+{others}" if others else ""),
            caller=callers.pop() if len(callers) == 1 else "-",
            bulk=all(context.bulk for context in contexts),
            deadline=max(deadlines) if len(deadlines) == len(contexts) else None,
            refused=self.refusals > 0,
            waits=self.waits,
        )

    def halves(self) -> list[TextBatch]:
        """Two batches with half of the calls each, or with half of the texts of the only call."""
        if len(self.parts) > 1:
            parts = list(self.parts.items())
            middle = len(parts) // 2
            return [self._of(dict(parts[:middle])), self._of(dict(parts[middle:]))]
        ((entry, part),) = self.parts.items()
        middle = part.start + len(part) // 2
        return [self._of({entry: range(part.start, middle)}), self._of({entry: range(middle, part.stop)})]

    def without_last(self) -> tuple[TextBatch, TextBatch]:
        """The last call, and the others."""
        *others, (last, part) = self.parts.items()
        return self._of({last: part}), self._of(dict(others))

    def per_call(self) -> list[TextBatch]:
        return [self._of({entry: part}) for entry, part in self.parts.items()]

    def without_leavers(self) -> TextBatch:
        """The same batch without the calls whose caller has left."""
        return self._of({entry: part for entry, part in self.parts.items() if not entry.reply.done()})

    def joined(self, others: Iterable[TextBatch]) -> list[TextBatch]:
        """This batch and others that were parts of one, as one; or as they are if a call is in several of them."""
        several = [self, *others]
        parts = {entry: part for one in several for entry, part in one.parts.items()}
        return [self._of(parts)] if len(parts) == sum(len(one.parts) for one in several) else several

    def _of(self, parts: dict[QueuedCall, range]) -> TextBatch:
        batch = TextBatch(self.max_texts, self.max_weight)
        batch.parts = parts
        batch.texts = sum(map(len, parts.values()))
        batch.weight = sum(sum(entry.weights[part.start : part.stop]) for entry, part in parts.items())
        batch.refusals, batch.waits = self.refusals, self.waits
        return batch

    def deliver(self, result: Result) -> None:
        """Give each call its part of the result.

        Raises:
            UpstreamUnreadable: there is not one item for each text.
        """
        if isinstance(result, Tokens):
            for entry in self.parts:
                entry.answer(result)
            return
        if len(result.items) != self.texts:
            raise wrong_count(len(result.items), self.texts)
        for (entry, part), share in zip(self.parts.items(), self._split(result), strict=True):
            entry.receive(part.start, share)

    def _split(self, result: PartialResult) -> Sequence[PartialResult]:
        waited = [entry.waited for entry in self.parts]
        if len(self.parts) == 1:
            return [replace(result, waited=waited[0]) if waited[0] >= _MIN_WAIT_SECONDS else result]
        weights = [entry.weights[part.start : part.stop] for entry, part in self.parts.items()]
        if isinstance(result, Vectors):
            return split_vectors(result, weights, waited)
        return split_items(result, weights, waited)

    def fail_before(self, time: float, error: Exception) -> None:
        """Fail the calls whose deadline is before a time."""
        late = {
            entry: part
            for entry, part in self.parts.items()
            if entry.deadline is not None and entry.deadline <= time
        }
        self._of(late).fail(error, shared=len(self.callers) > 1)

    def fail(self, error: Exception, *, shared: bool = False) -> None:
        """Fail all calls. `shared` or not, several callers only get an error that quotes nobody's text."""
        shared = shared or len(self.callers) > 1
        for entry in self.parts:
            entry.fail(error_for_caller(error, shared=shared))
