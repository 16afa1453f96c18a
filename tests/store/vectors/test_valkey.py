"""Commands to Valkey, on real servers: killed, frozen, restarted, behind a password, TLS and Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from certificates import write_certificate
from servers.valkey import command
from servers.wire import Wire

from hubgate.domain.errors import StoreFailed
from hubgate.settings import InvalidSetting
from hubgate.store.vectors.valkey import KEY_PREFIX, Valkey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from servers.valkey import ValkeyServer


async def until(succeeded: Callable[[], Awaitable[bool]]) -> None:
    """Waits until it is true; an unavailable server counts as false."""
    while True:
        with contextlib.suppress(StoreFailed):
            if await succeeded():
                return
        await asyncio.sleep(0.01)


async def until_it_answers(valkey: Valkey, patience: float = 10.0) -> None:
    await until(lambda: succeeds(valkey, "PING", patience=patience))


async def succeeds(valkey: Valkey, *words: str, patience: float = 10.0) -> bool:
    await command(valkey, *words, patience=patience)
    return True


async def test_concurrent_commands_get_their_own_replies(valkey: ValkeyServer) -> None:
    for url in (valkey.url, valkey.url.replace("valkey://", "redis://"), valkey.socket_url):
        there = Valkey(url)
        replies = await asyncio.gather(*(command(there, "ECHO", number) for number in range(1000)))
        assert replies == [b"%d" % number for number in range(1000)]
        key = KEY_PREFIX + b"a"
        assert await there.commands([("SET", key, b"\xff"), ("GET", key)], patience=10) == [b"OK", b"\xff"]
        assert b"connected_clients:8\r\n" in await command(there, "INFO", "clients")
        await there.close()


async def test_refused_and_cancelled_commands_do_not_harm_others(valkey: ValkeyServer) -> None:
    there = Valkey(valkey.url)
    tasks = [asyncio.create_task(command(there, "ECHO", number)) for number in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    with pytest.raises(StoreFailed, match=r"refused a command \(ResponseError\)") as refused:
        await there.commands([("NO_SUCH_COMMAND", "a secret"), ("PING",)], patience=10)
    assert "a secret" not in str(refused.value)
    assert await asyncio.gather(*tasks[1::2]) == [b"%d" % number for number in range(1, 100, 2)]
    await there.close()


async def test_killed_server_fails_a_command_and_answers_after_its_start(valkey: ValkeyServer) -> None:
    there = Valkey(valkey.url)
    await command(there, "PING")
    valkey.kill()
    with pytest.raises(StoreFailed, match="cannot be reached") as failed:
        await command(there, "PING")
    assert failed.value.retryable
    valkey.start()
    assert await command(there, "PING") == b"PONG"  # the first one already
    await there.close()


async def test_restart_while_the_connection_is_idle_fails_no_command(valkey: ValkeyServer) -> None:
    there = Valkey(valkey.url)
    await command(there, "PING")
    valkey.kill()
    valkey.start()
    await asyncio.sleep(0.6)
    assert await command(there, "PING") == b"PONG"
    await there.close()


async def test_frozen_server_fails_commands_in_time_and_mixes_no_replies(valkey: ValkeyServer) -> None:
    there = Valkey(valkey.url)
    await until_it_answers(there)
    valkey.freeze()
    with pytest.raises(StoreFailed, match="did not answer in time"):
        await asyncio.gather(*(command(there, "ECHO", f"old {n}", patience=0.2) for n in range(20)))
    valkey.thaw()
    await until_it_answers(there)
    numbers = range(100)
    assert await asyncio.gather(*(command(there, "ECHO", n) for n in numbers)) == [b"%d" % n for n in numbers]
    await there.close()


async def test_cut_wire_fails_what_waits_and_heals(valkey: ValkeyServer) -> None:
    with Wire(valkey.port) as wire:
        there = Valkey(f"valkey://127.0.0.1:{wire.port}")
        await command(there, "PING")
        wire.freeze()
        waiting = asyncio.create_task(command(there, "PING"))
        await asyncio.sleep(0.05)
        wire.cut()
        with pytest.raises(StoreFailed, match="cannot be reached"):
            await waiting
        wire.mend()
        await until_it_answers(there)
        await there.close()


async def test_password_is_needed_and_never_shown(new_valkey: Callable[..., ValkeyServer]) -> None:
    port = new_valkey("--requirepass", "p@ss/word").port
    right = Valkey(f"redis://:p%40ss%2Fword@127.0.0.1:{port}")
    assert await command(right, "PING") == b"PONG"
    await right.close()
    for credentials in ("", ":wrong-secret@", "user:wrong-secret@"):
        wrong = Valkey(f"valkey://{credentials}127.0.0.1:{port}")
        with pytest.raises(StoreFailed, match="rejects the user or the password") as failed:
            await command(wrong, "PING")
        assert "secret" not in f"{failed.value} {failed.value.remedy} {wrong.name}"
        assert "HUBGATE_CACHE_URL" in failed.value.remedy
        await wrong.close()


async def test_tls_is_verified(valkey: ValkeyServer, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    with Wire(valkey.port, tls) as wire:
        right = Valkey(f"valkeys://127.0.0.1:{wire.port}/0?ssl_ca_certs={certificate}")
        assert await command(right, "PING") == b"PONG"
        await right.close()
        unknown = Valkey(f"rediss://127.0.0.1:{wire.port}")
        with pytest.raises(StoreFailed, match="cannot be reached"):
            await command(unknown, "PING")
        await unknown.close()


async def test_sentinel_names_the_primary_also_after_a_failover(
    new_valkey: Callable[..., ValkeyServer], tmp_path: Path
) -> None:
    first, second = new_valkey(), new_valkey()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"sentinel monitor main 127.0.0.1 {first.port} 1\nrequirepass hidden\n")
    sentinel = new_valkey(str(configuration), "--sentinel")
    url = f"valkey+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0?sentinel_password=hidden"
    there, watcher = Valkey(url), Valkey(sentinel.url.replace("//", "//:hidden@"))
    assert b"tcp_port:%d" % first.port in await command(there, "INFO", "server")
    # What a failover does, without the ten seconds that Sentinel takes to decide on it.
    old = Valkey(first.url)
    await command(old, "REPLICAOF", "127.0.0.1", second.port)
    await command(watcher, "SENTINEL", "REMOVE", "main")
    await command(watcher, "SENTINEL", "MONITOR", "main", "127.0.0.1", second.port, 1)
    with pytest.raises(StoreFailed, match="is a replica"):
        await command(old, "SET", KEY_PREFIX + b"a", 1)
    await until(lambda: succeeds(there, "SET", "{hg}:a", "1"))
    assert b"tcp_port:%d" % second.port in await command(there, "INFO", "server")
    assert "main behind 127.0.0.1:1, " in there.name
    for each in (there, old, watcher):
        await each.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("valkey://user:hidden@", "names no host"),
        ("valkey://:hidden@host:0x10/0", "must look like"),
        ("valkey://:hidden@host:6379/first", "number of the database"),
        ("redis://:hidden@one,two", r"only a URL with \+sentinel"),
        ("redis://:hidden@host?timeout=1", "does not apply"),
        ("redis://:hidden@host?ssl_ca_certs=/file", "does not apply"),
        ("rediss://:hidden@host?ssl_check_hostname=perhaps", "true or false"),
        ("redis+sentinel://:hidden@host", "the name is missing"),
        ("unix://:hidden@host/socket", "unix:///path"),
    ],
)
def test_invalid_url_is_refused_without_being_shown(url: str, problem: str) -> None:
    with pytest.raises(InvalidSetting, match=problem) as refused:
        Valkey(url)
    assert "HUBGATE_CACHE_URL" in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_missing_package_is_an_error_with_a_remedy() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from hubgate.domain.errors import StoreFailed\n"
        "try:\n    import hubgate.store.vectors.valkey\n"
        "except StoreFailed as error:\n    print(error, error.remedy)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "needs the package redis, which is not installed" in printed
    assert "hubgate[scale]" in printed
