"""The address that the gateway listens on."""

from __future__ import annotations

import pytest

from hubgate.cli.server.serve import listen
from hubgate.settings import InvalidSetting


@pytest.mark.parametrize("host", ["a" * 5000, "a..b", "..", "\udcff", "no.such.name.invalid", "198.51.100.1"])
def test_unusable_host_is_reported_as_an_invalid_setting(host: str) -> None:
    with pytest.raises(InvalidSetting, match="HUBGATE_HOST") as refused:
        listen(host, 0)
    assert ascii(host[:10]).strip("'") in str(refused.value)
    assert len(str(refused.value)) < 250
