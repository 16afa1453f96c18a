"""Which proxies are trusted for the address of a request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from running_gateway import RunningGateway

from hubgate.service.keys.limits import MAX_WRONG_KEYS

if TYPE_CHECKING:
    from hubgate.settings import Settings


@pytest.mark.parametrize(("trusted", "secure"), [("", False), ("127.0.0.1", True), ("10.0.0.1", False)])
def test_forwarded_protocol_is_accepted_only_from_trusted_proxies(
    settings: Settings, trusted: str, secure: bool
) -> None:
    with RunningGateway(replace(settings, trusted_proxies=trusted)) as gateway:
        form = {"key": gateway.admin_key}
        page = ConsoleClient(gateway).post("/ui/sign-in", form, **{"x-forwarded-proto": "https"})
        assert page.status == 303
        assert ("secure" in str(page.headers["set-cookie"]).lower()) is secure


def test_wrong_keys_are_counted_by_the_real_address(settings: Settings) -> None:
    with RunningGateway(settings) as gateway:
        tries = (
            ConsoleClient(gateway).post("/ui/sign-in", {"key": "wrong"}, **{"x-forwarded-for": f"10.0.0.{n}"})
            for n in range(MAX_WRONG_KEYS + 1)
        )
        assert [page.status for page in tries][-1] == 429
