"""Which addresses the gateway refuses to contact, in every notation."""

from __future__ import annotations

import pytest

from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.upstreams.http.addresses import AddressRule

ALWAYS = [
    "169.254.169.254",
    "169.254.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "0.1.2.3",
    "2852039166",
    "0xA9FEA9FE",
    "0xa9.0xfe.0xa9.0xfe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.254.169.254.",
    "0",
    "fe80::1",
    "fe80::1%25eth0",
    "fec0::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "ff02::1",
    "::",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:1:2:3:a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:a9fe:a9:fe00:808:808",
    "64:ff9b:1:a9:fe:a9fe:808:808",
    "64:ff9b:1:1:a9:fea9:fe08:808",
    "64:ff9b:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    "[fd00:ec2::254]",
    "100::1",
]
PRIVATE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "::1",
    "fd12:3456::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "64:ff9b:1:a00:0:100::",
]
PUBLIC = [
    "8.8.8.8",
    "2606:4700::1111",
    "64:ff9b::808:808",
    "64:ff9b:1::808:808",
    "64:ff9b:1:808:8:800::",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
]


@pytest.mark.parametrize("host", ALWAYS)
def test_metadata_link_local_multicast_and_reserved_are_always_refused(host: str) -> None:
    for rule in (AddressRule(allow_private=True), AddressRule(allow_private=False)):
        with pytest.raises(InvalidEndpoint) as caught:
            rule.check_host(host)
        assert caught.value.cause is Cause.ADDRESS_REFUSED
        assert host in caught.value.message


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused_only_if_configured(host: str) -> None:
    AddressRule(allow_private=True).check_host(host)
    with pytest.raises(InvalidEndpoint) as caught:
        AddressRule(allow_private=False).check_host(host)
    assert caught.value.cause is Cause.ADDRESS_REFUSED
    assert "HUBGATE_ALLOW_PRIVATE_ADDRESSES" in caught.value.remedy


@pytest.mark.parametrize(
    "host", [*PUBLIC, "example.org", "localhost", "a1b2.endpoints.huggingface.cloud", ""]
)
def test_public_addresses_and_names_are_allowed(host: str) -> None:
    AddressRule(allow_private=False).check_host(host)
