"""The hosts that a stored token may be sent to.

A host is written as an origin, `https://gpu.example.com` or `http://10.0.0.5:8080`; `https://*.example.com` covers
every name below a domain, and the word `huggingface` covers the hosts of Hugging Face.
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
_USUAL_PORTS = {"http": 80, "https": 443}


def origin(scheme: str, host: str, port: int | None) -> str:
    """The one spelling of an origin, without the scheme's usual port."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if port in (None, _USUAL_PORTS.get(scheme)) else f"{scheme}://{name}:{port}"


def parse_hosts(given: Iterable[str]) -> tuple[str, ...]:
    """Hosts as an operator writes them, each in its one spelling.

    Raises:
        InvalidRequest: one of them is not a host, or there are none or too many.
    """
    hosts = tuple(dict.fromkeys(_parse(text.strip().lower()) for text in given if text.strip()))
    if not 0 < len(hosts) <= MAX_HOSTS:
        raise InvalidRequest(
            f"[hosts] must name from 1 to {MAX_HOSTS} hosts.",
            remedy=f"Leave it out for the hosts of Hugging Face, which is the same as [{HUGGING_FACE}].",
        )
    return hosts


def covered(where: str, hosts: Iterable[str]) -> bool:
    """Whether an origin is one of these hosts. `huggingface` must have been replaced by what it stands for."""
    return any(where == host or _below(where, host) for host in hosts)


def _below(where: str, host: str) -> bool:
    start, wildcard, domain = host.partition("*")
    return bool(wildcard) and where.startswith(start) and where.removeprefix(start).endswith(domain)


def _parse(text: str) -> str:
    if text == HUGGING_FACE:
        return text
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65_535:
        raise InvalidRequest(
            f"[hosts] holds [{text[:200]}], which is not a host.",
            remedy="Write https://gpu.example.com, http://10.0.0.5:8080, https://*.example.com (every name below it) "
            f"or {HUGGING_FACE}; an international name in its ASCII form.",
        )
    port = int(found["port"]) if found["port"] else None
    return origin(found["scheme"] or "https", found["name"].strip("[]"), port)
