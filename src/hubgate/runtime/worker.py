"""The worker process: `python -m hubgate.runtime.worker FOLDER --precision … --threads … --lanes …`.

With `--generate` the model generates text: see `runtime.generation.worker`. Otherwise it embeds or reranks. Requests come on stdin, replies go to stdout (see `protocol`). One thread reads, and tokenizes short calls; another
tokenizes the rest in slices, the calls in turn. One thread for each lane runs the model: it takes the next batch whenever
it is free. The worker ends when stdin is closed, and so with hubgate.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import InvalidRequest, RuntimeFailed
from hubgate.runtime.batching import TextQueue, max_batch_tokens
from hubgate.runtime.calls import SLICE_CHARACTERS, WorkerCall, make_call
from hubgate.runtime.machine import CpuShare
from hubgate.runtime.model.compiled import CompiledModel, Lane
from hubgate.runtime.model.spec import ModelSpec, read_model_spec
from hubgate.runtime.order import TurnOrder
from hubgate.runtime.protocol import (
    CancelCall,
    Failed,
    GenerateText,
    Ready,
    Replies,
    Reply,
    Request,
    encode_frame,
    read_request,
)


class Worker:
    """Serves requests with one model until its input ends."""

    def __init__(self, spec: ModelSpec, model: CompiledModel, replies: Replies, waiting: TextQueue) -> None:
        self._spec = spec
        self._replies = replies
        self._model = model
        self._calls: dict[int, WorkerCall] = {}
        self._untokenized = TurnOrder()
        self._steps: dict[int, Iterator[None]] = {}
        """The tokenization steps of calls that are not tokenized yet."""
        self._waiting = waiting
        self._changed = threading.Condition()
        """Guards the calls, the two queues and the end."""
        self._ended = False
        self._failure: BaseException | None = None
        self._writing = threading.Lock()

    def serve(self, requests: BinaryIO) -> None:
        """Serve until the requests end. An unexpected failure of any thread ends the process, not only a call."""
        spec = self._spec
        model = self._model
        self.reply(Ready(spec.width, model.precision, spec.max_tokens, model.self_test, spec.truncate_left))
        for work in (partial(self._read, requests), self._tokenize):
            threading.Thread(target=self._end_after, args=(work,), daemon=True).start()
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
        """Send a reply. Safe to call from all threads."""
        with self._writing:
            self._replies.write(encode_frame(message))
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
        if isinstance(request, CancelCall):
            with self._changed:
                self._forget(request.call)
            return
        if isinstance(request, GenerateText):
            raise InvalidRequest(
                "The model does not generate text.", remedy="Use an endpoint whose model does."
            )
        job = make_call(request, self._spec, self._model.tokens)
        if job.characters <= SLICE_CHARACTERS:
            for _ in job.tokenize():
                pass
            self._queue(job)
            return
        with self._changed:
            self._calls[request.call] = job
            self._steps[request.call] = job.tokenize()
            self._untokenized.add(job.info)
            self._changed.notify_all()

    def _tokenize(self) -> None:
        """Tokenize one slice after the other, each of the call whose turn it is."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._untokenized or self._ended)
                if self._ended:
                    return
                call = self._untokenized.take_turn()[0]
                job, steps = self._calls[call], self._steps[call]
            try:
                next(steps)
                continue
            except StopIteration:
                failure = None
            except (InvalidRequest, RuntimeFailed) as error:
                failure = Failed.of(call, error)
            with self._changed:
                wanted = self._calls.get(call) is job
                self._forget(call)
            if failure is not None:
                self.reply(failure)
            elif wanted:
                self._queue(job)

    def _forget(self, call: int) -> None:
        self._calls.pop(call, None)
        self._steps.pop(call, None)
        self._untokenized.remove(call)
        self._waiting.remove(call)

    def _queue(self, job: WorkerCall) -> None:
        """Add a tokenized call to the queue of the model."""
        if not job.left:
            self.reply(job.reply())
            return
        with self._changed:
            self._calls[job.info.call] = job
            self._waiting.add(job.info, [len(row.ids) for row in job.rows])
            self._changed.notify_all()  # there may be work for every lane

    def _run(self, lane: Lane) -> None:
        """Run one batch after the other."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if self._ended:
                    return
                batch = [(self._calls[place.call], place) for place in self._waiting.take()]
            outputs = lane.run([job.rows[place.index] for job, place in batch])
            done: dict[int, WorkerCall] = {}
            with self._changed:  # another lane may run a part of the same call
                for row, (job, place) in enumerate(batch):
                    job.take(place.index, [output[row] for output in outputs])
                    if not job.left and self._calls.get(place.call) is job:
                        done[place.call] = self._calls.pop(place.call)
            for job in done.values():
                self.reply(job.reply())


class _Serves(Protocol):
    def serve(self, requests: BinaryIO) -> None: ...


def _load_encoder(
    folder: Path, precision: Precision, share: CpuShare, replies: Replies, waiting: TextQueue | None
) -> Worker:
    spec = read_model_spec(folder)
    model = CompiledModel(spec, precision, share)
    if waiting is None:
        waiting = TextQueue(padded_tokens=max_batch_tokens(share.threads // share.lanes))
    return Worker(spec, model, replies, waiting)


def _load_generator(folder: Path, precision: Precision, share: CpuShare, replies: Replies) -> _Serves:
    # Takes a second, which other models need not.
    from hubgate.runtime.generation.spec import read_generation_spec  # noqa: PLC0415
    from hubgate.runtime.generation.worker import GenerationWorker  # noqa: PLC0415

    return GenerationWorker(read_generation_spec(folder), precision, share, replies)


def main(arguments: Sequence[str], waiting: TextQueue | None = None) -> int:
    """Serve the model of a folder; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", type=Precision, default=Precision.F32)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=0)
    parser.add_argument("--generate", action="store_true")
    parser.add_argument("--socket", type=Path)
    given = parser.parse_args(arguments)
    if given.socket is not None:
        return _serve_socket(given, waiting)
    # What libraries print goes to stderr: stdout is for frames only.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return _serve(given, os.fdopen(os.dup(sys.stdin.fileno()), "rb"), replies, waiting)


def _serve_socket(given: argparse.Namespace, waiting: TextQueue | None) -> int:
    """Serve every gateway that connects, until none has been connected for a while."""
    from hubgate.runtime.sharing import SharedPipes, listen  # noqa: PLC0415 - only where gateways share a model

    pipes = SharedPipes(listen(given.socket))
    pipes.wait_for_gateway()  # which is to hear if the model cannot be loaded
    try:
        return _serve(given, pipes.requests, pipes.replies, waiting)
    finally:
        pipes.close()


def _serve(given: argparse.Namespace, requests: BinaryIO, replies: Replies, waiting: TextQueue | None) -> int:
    share = CpuShare(given.threads, given.lanes)
    try:
        if given.generate:
            worker: _Serves = _load_generator(given.folder, given.precision, share, replies)
        else:
            worker = _load_encoder(given.folder, given.precision, share.resolve(), replies, waiting)
    except RuntimeFailed as error:
        replies.write(encode_frame(Failed.of(None, error)))
        replies.flush()
        return 1
    with contextlib.suppress(BrokenPipeError):  # hubgate has ended
        worker.serve(requests)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
