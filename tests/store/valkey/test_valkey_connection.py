"""The connection to Valkey, against real servers: killed, frozen, restarted, behind a password, TLS and Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from certificates import write_certificate
from servers.wire import Wire

from hubgate.domain.errors import StoreFailed
from hubgate.settings import InvalidSetting
from hubgate.store.valkey.connection import KEY_PREFIX, RUN_ID, Script, ValkeyConnection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from servers.valkey import ValkeyServer

ECHO = Script("return {KEYS[1], ARGV[1], ARGV[2]}")


def connection_to(url: str, patience: float = 10.0) -> ValkeyConnection:
    return ValkeyConnection(url, "HUBGATE_VALKEY_URL", patience=patience)


async def until(succeeded: Callable[[], Awaitable[bool]]) -> None:
    """Waits until it is true; an unavailable server counts as false."""
    while True:
        with contextlib.suppress(StoreFailed):
            if await succeeded():
                return
        await asyncio.sleep(0.01)


async def until_it_answers(valkey: ValkeyConnection) -> None:
    await until(lambda: succeeds(valkey, "PING"))


async def succeeds(valkey: ValkeyConnection, *command: str) -> bool:
    await valkey.command(*command)
    return True


async def test_concurrent_commands_get_their_own_replies(valkey: ValkeyServer) -> None:
    for url in (valkey.url, valkey.url.replace("valkey://", "redis://"), valkey.socket_url):
        there = connection_to(url)
        replies = await asyncio.gather(*(there.command("ECHO", number) for number in range(1000)))
        assert replies == [b"%d" % number for number in range(1000)]
        assert await there.commands([("SET", KEY_PREFIX + b"a", b"\xff"), ("GET", KEY_PREFIX + b"a")]) == [
            b"OK",
            b"\xff",
        ]
        (info,) = await there.commands([("INFO", "clients")])
        assert b"connected_clients:1\r\n" in info
        await there.close()


async def test_refused_and_cancelled_commands_do_not_harm_others(valkey: ValkeyServer) -> None:
    there = connection_to(valkey.url)
    tasks = [asyncio.create_task(there.command("ECHO", number)) for number in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    with pytest.raises(StoreFailed, match=r"refused a command \(ResponseError\)") as refused:
        await there.commands([("NO_SUCH_COMMAND", "a secret"), ("PING",)])
    assert "a secret" not in str(refused.value)
    assert await asyncio.gather(*tasks[1::2]) == [b"%d" % number for number in range(1, 100, 2)]
    await there.close()


async def test_script_runs_after_a_restart_which_its_run_id_shows(valkey: ValkeyServer) -> None:
    there = connection_to(valkey.url)
    key, one, before = await there.run(ECHO, [KEY_PREFIX + b"k"], 1, RUN_ID)
    assert (key, one) == (KEY_PREFIX + b"k", b"1")
    assert len(before) == 40
    assert (await there.run(ECHO, [b"k"], 2, RUN_ID))[1:] == [b"2", before]
    valkey.kill()
    with pytest.raises(StoreFailed, match="cannot be reached") as failed:
        await there.run(ECHO, [b"k"], 3, RUN_ID)
    assert failed.value.retryable
    valkey.start()
    *_, after = await there.run(ECHO, [b"k"], 4, RUN_ID)  # the first one already
    assert len(after) == 40
    assert after != before
    await there.close()


async def test_restart_while_the_connection_is_idle_fails_no_command(valkey: ValkeyServer) -> None:
    there = connection_to(valkey.url)
    await there.command("PING")
    valkey.kill()
    valkey.start()
    await asyncio.sleep(0.6)
    assert await there.command("PING") == b"PONG"
    await there.close()


async def test_frozen_server_fails_commands_in_time_and_mixes_no_replies(valkey: ValkeyServer) -> None:
    there = connection_to(valkey.url, patience=0.2)
    await until_it_answers(there)
    valkey.freeze()
    with pytest.raises(StoreFailed, match="did not answer in time"):
        await asyncio.gather(*(there.command("ECHO", f"old {number}") for number in range(20)))
    valkey.thaw()
    await until_it_answers(there)
    patient = connection_to(valkey.url)
    assert await asyncio.gather(*(patient.command("ECHO", number) for number in range(20))) == [
        b"%d" % number for number in range(20)
    ]

    async def echoes(number: int) -> bool:
        assert await there.command("ECHO", number) == b"%d" % number
        return True

    for number in range(20):
        await until(partial(echoes, number))
    await there.close()
    await patient.close()


async def test_cut_wire_fails_what_waits_and_heals(valkey: ValkeyServer) -> None:
    with Wire(valkey.port) as wire:
        there = connection_to(f"valkey://127.0.0.1:{wire.port}")
        await there.command("PING")
        wire.freeze()
        waiting = asyncio.create_task(there.command("PING"))
        await asyncio.sleep(0.05)
        wire.cut()
        with pytest.raises(StoreFailed, match="cannot be reached"):
            await waiting
        wire.mend()
        await until_it_answers(there)
        await there.close()


async def test_password_is_needed_and_never_shown(new_valkey: Callable[..., ValkeyServer]) -> None:
    port = new_valkey("--requirepass", "p@ss/word").port
    right = connection_to(f"redis://:p%40ss%2Fword@127.0.0.1:{port}")
    assert await right.command("PING") == b"PONG"
    await right.close()
    for credentials in ("", ":wrong-secret@", "user:wrong-secret@"):
        wrong = connection_to(f"valkey://{credentials}127.0.0.1:{port}")
        with pytest.raises(StoreFailed, match="rejects the user or the password") as failed:
            await wrong.command("PING")
        assert "secret" not in f"{failed.value} {failed.value.remedy} {wrong.name}"
        assert "HUBGATE_VALKEY_URL" in failed.value.remedy
        await wrong.close()


async def test_tls_is_verified(valkey: ValkeyServer, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    with Wire(valkey.port, tls) as wire:
        right = connection_to(f"valkeys://127.0.0.1:{wire.port}/0?ssl_ca_certs={certificate}")
        assert await right.command("PING") == b"PONG"
        await right.close()
        unknown = connection_to(f"rediss://127.0.0.1:{wire.port}")
        with pytest.raises(StoreFailed, match="cannot be reached"):
            await unknown.command("PING")
        await unknown.close()


async def test_sentinel_names_the_primary_also_after_a_failover(
    new_valkey: Callable[..., ValkeyServer], tmp_path: Path
) -> None:
    first, second = new_valkey(), new_valkey()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"sentinel monitor main 127.0.0.1 {first.port} 1\nrequirepass hidden\n")
    sentinel = new_valkey(str(configuration), "--sentinel")
    url = f"valkey+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0?sentinel_password=hidden"
    there, watcher = connection_to(url), connection_to(sentinel.url.replace("//", "//:hidden@"))
    *_, before = await there.run(ECHO, [b"k"], 0, RUN_ID)
    # What a failover does, without the ten seconds that Sentinel takes to decide on it.
    old = connection_to(first.url)
    await old.command("REPLICAOF", "127.0.0.1", second.port)
    await watcher.command("SENTINEL", "REMOVE", "main")
    await watcher.command("SENTINEL", "MONITOR", "main", "127.0.0.1", second.port, 1)
    with pytest.raises(StoreFailed, match="is a replica"):
        await old.command("SET", KEY_PREFIX + b"a", 1)
    await until(lambda: succeeds(there, "SET", "{hg}:a", "1"))
    *_, after = await there.run(ECHO, [b"k"], 0, RUN_ID)
    assert after != before
    assert b"tcp_port:%d" % second.port in await there.command("INFO", "server")
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
        connection_to(url)
    assert "HUBGATE_VALKEY_URL" in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_missing_package_is_an_error_with_a_remedy() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from hubgate.domain.errors import StoreFailed\n"
        "try:\n    import hubgate.store.valkey.connection\n"
        "except StoreFailed as error:\n    print(error, error.remedy)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "need the package redis, which is not installed" in printed
    assert "hubgate[scale]" in printed
