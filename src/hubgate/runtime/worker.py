"""The worker process: `python -m hubgate.runtime.worker FOLDER`.

Requests come on stdin, replies leave on stdout (see `frames`). One thread reads and tokenises, one runs the model:
it takes the next batch whenever it is free. The worker ends when stdin does, and so with the gate.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from hubgate.domain.errors import InvalidRequest, RuntimeFailed
from hubgate.runtime.batching import Waiting
from hubgate.runtime.folder import read_folder
from hubgate.runtime.frames import (
    Embedded,
    EmbedTexts,
    Failed,
    Forget,
    Ready,
    Reply,
    Request,
    Tokenized,
    TokenizeTexts,
    frame,
    read_request,
)
from hubgate.runtime.model import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.runtime.folder import Recipe


class _Job:
    """One call on its way: the token ids of its texts, and room for their vectors."""

    def __init__(
        self, request: EmbedTexts, recipe: Recipe, rows: list[list[int]], truncated: list[bool]
    ) -> None:
        self.normalize = recipe.normalize if request.normalize is None else request.normalize
        self.rows = rows
        self.tokens = [len(row) for row in rows]
        self.truncated = truncated
        self.left = len(rows)
        self.vectors = np.empty((len(rows), recipe.shape.hidden), "<f4")

    def reply(self, call: int) -> Embedded:
        """The finished call."""
        return Embedded(call, self.vectors.tobytes(), self.tokens, self.truncated)


class Worker:
    """Answers requests with one model until its input ends."""

    def __init__(self, recipe: Recipe, replies: BinaryIO) -> None:
        self._recipe = recipe
        self._replies = replies
        self._model = Model(recipe)
        self._jobs: dict[int, _Job] = {}
        self._waiting = Waiting()
        self._changed = threading.Condition()
        """Guards the jobs, what waits, and the end."""
        self._ended = False
        self._failure: BaseException | None = None
        self._writing = threading.Lock()

    def serve(self, requests: BinaryIO) -> None:
        """Answer until the requests end. An unexpected failure of either thread ends the process, not a call."""
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        self.reply(Ready(self._recipe.shape.hidden))
        while self._step():
            pass
        if self._failure is not None:
            raise self._failure

    def reply(self, message: Reply) -> None:
        """Send a reply; both threads do."""
        with self._writing:
            self._replies.write(frame(message))
            self._replies.flush()

    def _read(self, requests: BinaryIO) -> None:
        try:
            while (request := read_request(requests)) is not None:
                try:
                    self._accept(request)
                except InvalidRequest as error:
                    self.reply(Failed.of(request.call, error))
        except BaseException as error:  # noqa: BLE001 - handed to the other thread, which raises it
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _accept(self, request: Request) -> None:
        match request:
            case EmbedTexts():
                self._queue(request)
            case TokenizeTexts():
                items = self._model.tokens.tokens(request.texts, special=request.special)
                self.reply(Tokenized(request.call, items))
            case Forget():
                with self._changed:
                    self._jobs.pop(request.call, None)
                    self._waiting.remove(request.call)

    def _queue(self, request: EmbedTexts) -> None:
        texts = self._prompted(request)
        rows, cut = self._model.tokens.ids(texts, truncate=request.truncate, left=request.truncate_left)
        job = _Job(request, self._recipe, rows, cut)
        if not rows:
            self.reply(job.reply(request.call))
            return
        with self._changed:
            self._jobs[request.call] = job
            self._waiting.add(request.call, job.tokens)
            self._changed.notify()

    def _prompted(self, request: EmbedTexts) -> Sequence[str]:
        """The texts behind the prompt that is asked for; the model's default one only where none stands yet."""
        prompts, default = self._recipe.prompts, self._recipe.default_prompt
        if request.prompt_name is None:
            borne = tuple(filter(None, prompts.values()))
            prompt = prompts.get(default, "") if default else ""
            if not prompt:
                return request.texts
            return [text if text.startswith(borne) else prompt + text for text in request.texts]
        if request.prompt_name not in prompts:
            raise InvalidRequest(
                f"The model has no prompt named [{request.prompt_name}].",
                remedy=f"Its prompts: {', '.join(sorted(prompts)) or 'none'}.",
            )
        return [prompts[request.prompt_name] + text for text in request.texts]

    def _step(self) -> bool:
        """Run one batch; whether there may be another."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._ended:
                return False
            batch = [(self._jobs[place.call], place) for place in self._waiting.take()]
        pooled, normalized = self._model.run([job.rows[place.index] for job, place in batch])
        done: dict[int, _Job] = {}
        for row, (job, place) in enumerate(batch):
            job.vectors[place.index] = (normalized if job.normalize else pooled)[row]
            job.left -= 1
            if not job.left:
                done[place.call] = job
        for call, job in done.items():
            with self._changed:
                wanted = self._jobs.pop(call, None) is job
            if wanted:
                self.reply(job.reply(call))
        return True


def main(folder: str) -> int:
    """Serve the model of a folder; the exit status."""
    # Whatever a library prints goes to stderr: stdout carries frames and nothing else.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        worker = Worker(read_folder(Path(folder)), replies)
    except RuntimeFailed as error:
        replies.write(frame(Failed.of(None, error)))
        replies.flush()
        return 1
    with contextlib.suppress(BrokenPipeError):  # the gate has gone: nobody to answer
        worker.serve(os.fdopen(os.dup(sys.stdin.fileno()), "rb"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
