"""A job finds its gateway, and finds it again after a restart."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from model_script import task
from running_gateway import RunningGateway

from hubgate.cli.server.own import ensure_gateway
from hubgate.domain.errors import Cause, HubgateError, StoreFailed, WrongTask
from hubgate.features.bulk.folder import RunOptions
from hubgate.features.bulk.http import GatewayEmbedder
from hubgate.store.lock import HomeLock, running_gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hubgate.settings import Settings


@asynccontextmanager
async def answering(settings: Settings, answer: web.Response) -> AsyncIterator[None]:
    """A server that holds the home's lock and sends this reply to every request."""

    async def handle(_: web.Request) -> web.Response:
        return answer

    runner = web.ServerRunner(web.Server(handle))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    with HomeLock(settings.home) as lock:
        lock.announce(f"http://127.0.0.1:{runner.addresses[0][1]}")
        yield
    await runner.cleanup()


def embedder(settings: Settings, tmp_path: Path, **fields: object) -> GatewayEmbedder:
    what = task(tmp_path / "in.jsonl", tmp_path / "out.jsonl", endpoint="words", **fields)
    return GatewayEmbedder(settings.home, what, RunOptions())


def test_jobs_own_gateway_is_found_by_other_commands_and_stopped_afterwards(settings: Settings) -> None:
    with ensure_gateway(settings) as own:
        assert own
        assert running_gateway(settings.home) is not None
        with ensure_gateway(settings) as another:
            assert not another
    assert running_gateway(settings.home) is None


def test_unusable_home_is_reported_by_the_job(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StoreFailed, match="cannot be used"), ensure_gateway(settings):
        pass


def test_unusable_database_is_reported_by_the_jobs_own_gateway(settings: Settings) -> None:
    settings.home.mkdir()
    settings.database.write_text("no database " * 1000)
    with pytest.raises(StoreFailed), ensure_gateway(settings):
        pass
    assert running_gateway(settings.home) is None


def test_waits_for_a_gateway_that_is_starting(settings: Settings) -> None:
    began, announced = threading.Event(), threading.Event()

    def start() -> None:
        with HomeLock(settings.home) as lock:
            began.set()
            lock.announce("http://127.0.0.1:1")
            announced.wait(240)

    starting = threading.Thread(target=start)
    starting.start()
    began.wait(240)
    try:
        with ensure_gateway(settings) as own:
            assert not own
    finally:
        announced.set()
        starting.join()


async def test_gateway_is_found_again_after_a_restart(settings: Settings, tmp_path: Path) -> None:
    async with embedder(settings, tmp_path) as embed:
        with RunningGateway(settings) as gateway:
            gateway.add("words", dimensions=4)
            assert len((await embed(["a", "b c"])).pieces) == 2
        with pytest.raises(HubgateError, match="hubgate does not respond") as lost:
            await embed(["a"])
        assert (lost.value.cause, lost.value.retryable) == (Cause.GATE_STOPPING, True)
        with pytest.raises(HubgateError, match=r"hubgate is no longer running\. Start it"):
            await embed(["a"])
        with RunningGateway(settings):
            reply = await embed(["a b"])
            assert (reply.tokens, reply.exact, reply.pieces[0].tokens) == (2, True, 2)


async def test_gateway_restarted_at_the_same_address_has_another_key(
    settings: Settings, tmp_path: Path
) -> None:
    async with embedder(settings, tmp_path) as embed:
        with RunningGateway(settings) as gateway:
            gateway.add("words", dimensions=4)
            await embed(["a"])
            assert embed._gateway is not None
            old = embed._gateway
            embed._gateway = type(old)(url=old.url, pid=old.pid, key="of the one before")
            with pytest.raises(HubgateError, match=r"hubgate was restarted\."):
                await embed(["a"])
            assert len((await embed(["a"])).pieces) == 1


async def test_gateway_error_is_reported_with_its_cause(settings: Settings, tmp_path: Path) -> None:
    with RunningGateway(settings) as gateway:
        async with embedder(settings, tmp_path) as embed:
            with pytest.raises(HubgateError) as unknown:
                await embed.model()
            assert (unknown.value.cause, unknown.value.retryable) == (Cause.ENDPOINT_NOT_FOUND, False)
            gateway.add("words", dimensions=4)
            with pytest.raises(HubgateError, match="is an empty string") as empty:
                await embed(["a", ""])
            assert empty.value.cause is Cause.INVALID_REQUEST
            assert await embed.model() == {
                "model": "fake",
                "dimensions": 4,
                "revision": None,
                "pooling": "words",
                "precision": None,
                "prefixes": {},
            }


async def test_endpoint_that_returns_no_vectors_is_reported(settings: Settings, tmp_path: Path) -> None:
    shown = {"task": "completion", "facts": {}}
    answer = web.json_response(shown)
    async with answering(settings, answer), embedder(settings, tmp_path) as embed:
        with pytest.raises(WrongTask, match=r"Endpoint \[words\] serves completion, not text_embedding"):
            await embed.model()


async def test_untested_endpoint_is_reported_with_how_to_test_it(settings: Settings, tmp_path: Path) -> None:
    answer = web.json_response({"task": "text_embedding", "facts": {}})
    async with answering(settings, answer), embedder(settings, tmp_path) as embed:
        with pytest.raises(HubgateError, match="Test it with `hubgate enable words`") as untested:
            await embed.model()
        assert untested.value.cause is Cause.DISABLED


@pytest.mark.parametrize("name", ["w?x=1", "a b", "w/../words", "wörter"])
async def test_invalid_endpoint_name_is_requested_unchanged(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    with RunningGateway(settings) as gateway:
        for endpoint in ("w", "words"):
            gateway.add(endpoint, dimensions=4)
        what = task(tmp_path / "in.jsonl", tmp_path / "out.jsonl", endpoint=name)
        async with GatewayEmbedder(settings.home, what, RunOptions()) as embed:
            with pytest.raises(HubgateError) as unknown:
                await embed.model()
    assert unknown.value.cause in {Cause.ENDPOINT_NOT_FOUND, Cause.NOT_FOUND}


async def test_response_with_too_few_vectors_is_rejected(settings: Settings, tmp_path: Path) -> None:
    answer = web.json_response({"data": [], "usage": {"total_tokens": 1}})
    async with answering(settings, answer), embedder(settings, tmp_path) as embed:
        with pytest.raises(HubgateError, match="returned vectors for 0 of 1 texts") as few:
            await embed(["a"])
        assert few.value.cause is Cause.WRONG_COUNT


async def test_response_not_from_the_gateway_is_reported(settings: Settings, tmp_path: Path) -> None:
    answer = web.Response(status=502, text="<html>Bad gateway</html>")
    async with answering(settings, answer), embedder(settings, tmp_path) as embed:
        with pytest.raises(
            HubgateError, match="reply with status 502, not from hubgate: check for a proxy"
        ) as odd:
            await embed(["a"])
        assert odd.value.cause is Cause.INTERNAL
