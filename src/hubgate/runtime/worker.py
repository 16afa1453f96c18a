"""The worker process: `python -m hubgate.runtime.worker FOLDER --precision … --threads … --lanes …`.

Requests come on stdin, replies leave on stdout (see `frames`). One thread reads and tokenises, one for each lane runs
the model: it takes the next batch whenever it is free. The worker ends when stdin does, and so with the gate.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import InvalidRequest, RuntimeFailed
from hubgate.runtime.batching import Waiting
from hubgate.runtime.folder import read_folder
from hubgate.runtime.frames import (
    EmbedTexts,
    Failed,
    Forget,
    RankTexts,
    Ready,
    Reply,
    Request,
    Tokenized,
    TokenizeTexts,
    frame,
    read_request,
)
from hubgate.runtime.jobs import EmbedJob, RankJob
from hubgate.runtime.model import Model
from hubgate.runtime.share import Share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hubgate.runtime.folder import Recipe
    from hubgate.runtime.jobs import Job
    from hubgate.runtime.model import Lane


class Worker:
    """Answers requests with one model until its input ends."""

    def __init__(
        self, recipe: Recipe, model: Model, replies: BinaryIO, waiting: Waiting | None = None
    ) -> None:
        self._recipe = recipe
        self._replies = replies
        self._model = model
        self._jobs: dict[int, Job] = {}
        self._waiting = Waiting() if waiting is None else waiting
        self._changed = threading.Condition()
        """Guards the jobs, what waits, and the end."""
        self._ended = False
        self._failure: BaseException | None = None
        self._writing = threading.Lock()

    def serve(self, requests: BinaryIO) -> None:
        """Answer until the requests end. An unexpected failure of any thread ends the process, not a call."""
        self.reply(Ready(self._recipe.width, self._model.precision))
        reading = partial(self._read, requests)
        threading.Thread(target=self._end_after, args=(reading,), daemon=True).start()
        lanes = [
            threading.Thread(target=self._end_after, args=(partial(self._run, lane),))
            for lane in self._model.lanes
        ]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def reply(self, message: Reply) -> None:
        """Send a reply; all threads do."""
        with self._writing:
            self._replies.write(frame(message))
            self._replies.flush()

    def _end_after(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self, requests: BinaryIO) -> None:
        while (request := read_request(requests)) is not None:
            try:
                self._accept(request)
            except (InvalidRequest, RuntimeFailed) as error:
                self.reply(Failed.of(request.call, error))

    def _accept(self, request: Request) -> None:
        match request:
            case EmbedTexts():
                self._queue(request.call, EmbedJob(request, self._recipe, self._model.tokens))
            case RankTexts():
                self._queue(request.call, RankJob(request, self._recipe, self._model.tokens))
            case TokenizeTexts():
                items = self._model.tokens.tokens(request.texts, special=request.special)
                self.reply(Tokenized(request.call, items))
            case Forget():
                with self._changed:
                    self._jobs.pop(request.call, None)
                    self._waiting.remove(request.call)

    def _queue(self, call: int, job: Job) -> None:
        if not job.left:
            self.reply(job.reply())
            return
        with self._changed:
            self._jobs[call] = job
            self._waiting.add(call, [len(row.ids) for row in job.rows])
            self._changed.notify_all()  # it may be work for every lane

    def _run(self, lane: Lane) -> None:
        """Run one batch after the other until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                batch = [(self._jobs[place.call], place) for place in self._waiting.take()]
            outputs = lane.run([job.rows[place.index] for job, place in batch])
            done: dict[int, Job] = {}
            with self._changed:  # another lane may hold a part of the same call
                for row, (job, place) in enumerate(batch):
                    job.take(place.index, [output[row] for output in outputs])
                    if not job.left and self._jobs.get(place.call) is job:
                        done[place.call] = self._jobs.pop(place.call)
            for job in done.values():
                self.reply(job.reply())


def main(arguments: Sequence[str], waiting: Waiting | None = None) -> int:
    """Serve the model of a folder; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", type=Precision, default=Precision.F32)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=0)
    given = parser.parse_args(arguments)
    # Whatever a library prints goes to stderr: stdout carries frames and nothing else.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        recipe = read_folder(given.folder)
        model = Model(recipe, given.precision, Share(given.threads, given.lanes))
    except RuntimeFailed as error:
        replies.write(frame(Failed.of(None, error)))
        replies.flush()
        return 1
    with contextlib.suppress(BrokenPipeError):  # the gate has gone: nobody to answer
        Worker(recipe, model, replies, waiting).serve(os.fdopen(os.dup(sys.stdin.fileno()), "rb"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
