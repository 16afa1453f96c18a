"""The hosts that a stored token may be sent to.

A host is an origin such as `https://gpu.example.com` or `http://10.0.0.5:8080`. `https://*.example.com` covers all
subdomains, and `huggingface` covers the hosts of Hugging Face.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hubgate.domain.errors import InvalidRequest

HUGGING_FACE = "huggingface"
DEFAULT_HOSTS = (HUGGING_FACE,)
HUGGING_FACE_HOSTS = (
    "https://huggingface.co",
    "https://*.huggingface.co",
    "https://*.endpoints.huggingface.cloud",
)
MAX_HOSTS = 100
_HOST = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<name>(?:\*\.[a-z0-9_-]+\.)?[a-z0-9._-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/.*)?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin(scheme: str, host: str, port: int | None) -> str:
    """The normalized origin, without the scheme's default port."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{name}:{port}"


def parse_hosts(given: Iterable[str]) -> tuple[str, ...]:
    """Parse and normalize hosts.

    Raises:
        InvalidRequest: a host is invalid, or there are none or too many.
    """
    hosts = tuple(dict.fromkeys(_parse(text.strip().lower()) for text in given if text.strip()))
    if not 0 < len(hosts) <= MAX_HOSTS:
        raise InvalidRequest(
            f"[hosts] must contain 1 to {MAX_HOSTS} hosts.",
            remedy=f"Omit it for the hosts of Hugging Face, which is the same as [{HUGGING_FACE}].",
        )
    return hosts


def is_covered(where: str, hosts: Iterable[str]) -> bool:
    """Whether one of the hosts covers an origin. `huggingface` must have been expanded before."""
    return any(where == host or _is_subdomain(where, host) for host in hosts)


def _is_subdomain(where: str, host: str) -> bool:
    start, wildcard, domain = host.partition("*")
    return bool(wildcard) and where.startswith(start) and where.removeprefix(start).endswith(domain)


def _parse(text: str) -> str:
    if text == HUGGING_FACE:
        return text
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65_535:
        raise InvalidRequest(
            f"Invalid host [{text[:200]}] in [hosts].",
            remedy="Use https://gpu.example.com, http://10.0.0.5:8080, https://*.example.com (all subdomains) "
            f"or {HUGGING_FACE}. Write international names in ASCII form.",
        )
    port = int(found["port"]) if found["port"] else None
    return origin(found["scheme"] or "https", found["name"].strip("[]"), port)
