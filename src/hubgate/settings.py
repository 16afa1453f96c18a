"""What the operator sets through the environment, read once at start.

Every variable is documented in docs/settings.md; a test compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

MIN_ADMIN_KEY_LENGTH = 16
MIN_CACHE_BYTES = 1 << 20
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to call a gateway that listens on every address
_MOST_DIGITS = 19
_MOST_SHOWN = 60
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


class InvalidSetting(ValueError):
    """A setting that cannot be used; its text names the variable and says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One gate's settings. Secrets are kept out of `repr`."""

    home: Path
    secret_key_file: Path
    host: str = "127.0.0.1"
    port: int = 8080
    admin_key: str | None = field(default=None, repr=False)
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    allow_private_addresses: bool = True
    keys_in_path: bool = False
    max_body_bytes: int = 32 * 1024 * 1024
    max_total_body_bytes: int = 256 * 1024 * 1024
    """Of the bodies of all requests that are being served."""
    max_connections: int = 1024
    max_reply_bytes: int = 16 * 1024 * 1024
    cache_bytes: int = 1 << 30
    log_level: str = "info"
    hf_endpoint: str | None = None
    trusted_proxies: str = ""
    """Addresses whose X-Forwarded headers are believed, with commas between."""
    hf_offline: bool = False
    endpoints_api_url: str | None = None
    router_url: str = "https://router.huggingface.co"
    local_threads: int = 0
    local_lanes: int = 0
    local_idle_seconds: int = 0
    drain_delay: int = 0
    """Seconds."""

    @property
    def has_gate(self) -> bool:
        """Whether a gateway was ever made in the home, even if its database is lost."""
        return self.database.exists() or database_mark(self.database).exists()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.home / "hubgate.db"

    @property
    def vectors(self) -> Path:
        """The file of the vector cache."""
        return self.home / "vectors.db"

    @property
    def tokenizers(self) -> Path:
        """The folder of the tokenizers of models that run elsewhere."""
        return self.home / "tokenizers"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables.

        Raises:
            InvalidSetting: a value cannot be used.
        """
        env = os.environ if env is None else env
        return cls(
            home=_path(env, "HUBGATE_HOME", "XDG_DATA_HOME", ".local/share", "hubgate"),
            secret_key_file=_path(
                env, "HUBGATE_SECRET_KEY_FILE", "XDG_CONFIG_HOME", ".config", "hubgate/secret.key"
            ),
            host=env.get("HUBGATE_HOST") or "127.0.0.1",
            port=_whole(env, "HUBGATE_PORT", 8080, 0, 65535),
            admin_key=_admin_key(env),
            secret_keys=tuple(k.strip() for k in env.get("HUBGATE_SECRET_KEY", "").split(",") if k.strip()),
            allow_private_addresses=_flag(env, "HUBGATE_ALLOW_PRIVATE_ADDRESSES", default=True),
            keys_in_path=_flag(env, "HUBGATE_KEYS_IN_PATH", default=False),
            max_body_bytes=_body_bytes(env),
            max_total_body_bytes=_total_body_bytes(env),
            max_connections=_whole(env, "HUBGATE_MAX_CONNECTIONS", 1024, 1, 1_000_000),
            max_reply_bytes=_whole(env, "HUBGATE_MAX_REPLY_BYTES", 16 * 1024 * 1024, 1 << 20, 1 << 30),
            cache_bytes=_cache_bytes(env),
            log_level=_log_level(env),
            hf_endpoint=_url(env, "HF_ENDPOINT"),
            trusted_proxies=_proxies(env),
            hf_offline=env.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE,
            endpoints_api_url=_url(env, "HUBGATE_ENDPOINTS_API_URL"),
            router_url=_url(env, "HUBGATE_ROUTER_URL") or "https://router.huggingface.co",
            local_threads=_whole(env, "HUBGATE_LOCAL_THREADS", 0, 0, 1024),
            local_lanes=_whole(env, "HUBGATE_LOCAL_LANES", 0, 0, 64),
            local_idle_seconds=_whole(env, "HUBGATE_LOCAL_IDLE_SECONDS", 0, 0, 1 << 30),
            drain_delay=_whole(env, "HUBGATE_DRAIN_DELAY", 0, 0, 3600),
        )


def _path(env: Mapping[str, str], name: str, base: str, below_home: str, below_base: str) -> Path:
    """What `name` says, else a place below the folder that `base` says, else below one in the user's home."""
    if written := env.get(name):
        below = ""
    elif written := env.get(base):
        below = below_base
    else:
        written, below = env.get("HOME") or "~", f"{below_home}/{below_base}"
    try:
        return (Path(written) / below).expanduser()
    except RuntimeError:
        raise InvalidSetting(
            f"{_shown(written)} names a home folder that cannot be found: write out in {name} where it shall be."
        ) from None


def _shown(value: str) -> str:
    return ascii(value) if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]!a}…"


def _flag(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = env.get(name, "").strip().lower()
    if not value:
        return default
    if value not in _TRUE | _FALSE:
        raise InvalidSetting(f"{name} must be true or false, not {_shown(value)}.")
    return value in _TRUE


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = env.get(name, "").strip()
    if not value:
        return default
    digits = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
    if not digits or not low <= int(value) <= high:
        raise InvalidSetting(f"{name} must be a whole number from {low} to {high}, not {_shown(value)}.")
    return int(value)


def _url(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name, "").strip()
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        usable = False
    if value and not usable:
        raise InvalidSetting(
            f"{name} must be a URL that begins with http:// or https://, not {_shown(value)}."
        )
    return value or None


def _proxies(env: Mapping[str, str]) -> str:
    """As uvicorn reads them; it would take a name for an address that nobody has."""
    value = env.get("HUBGATE_TRUSTED_PROXIES", "").strip()
    for proxy in value.split(",") if value not in {"", "*"} else ():
        try:
            ip_network(proxy.strip())
        except ValueError:
            raise InvalidSetting(
                "HUBGATE_TRUSTED_PROXIES must be addresses or networks with commas between, or *:"
                f" {_shown(proxy.strip())} is neither."
            ) from None
    return value


def _body_bytes(env: Mapping[str, str]) -> int:
    return _whole(env, "HUBGATE_MAX_BODY_BYTES", 32 * 1024 * 1024, 1024, 1 << 30)


def _total_body_bytes(env: Mapping[str, str]) -> int:
    one = _body_bytes(env)
    total = _whole(env, "HUBGATE_MAX_TOTAL_BODY_BYTES", max(256 * 1024 * 1024, one), 1024, 1 << 50)
    if total < one:
        raise InvalidSetting(
            f"HUBGATE_MAX_TOTAL_BODY_BYTES must be at least HUBGATE_MAX_BODY_BYTES, which is {one}."
        )
    return total


def _cache_bytes(env: Mapping[str, str]) -> int:
    size = _whole(env, "HUBGATE_CACHE_BYTES", 1 << 30, 0, 1 << 50)
    if 0 < size < MIN_CACHE_BYTES:
        raise InvalidSetting(
            f"HUBGATE_CACHE_BYTES must be 0 (off) or at least {MIN_CACHE_BYTES}, not {size}."
        )
    return size


def _log_level(env: Mapping[str, str]) -> str:
    level = env.get("HUBGATE_LOG_LEVEL", "").strip().lower() or "info"
    if level not in {"debug", "info", "warning", "error"}:
        raise InvalidSetting(f"HUBGATE_LOG_LEVEL must be debug, info, warning or error, not {_shown(level)}.")
    return level


def _admin_key(env: Mapping[str, str]) -> str | None:
    key = env.get("HUBGATE_ADMIN_KEY", "").strip()
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidSetting(
            "HUBGATE_ADMIN_KEY cannot be sent in a header: use ASCII letters, digits and signs, without spaces."
        )
    if len(key) < MIN_ADMIN_KEY_LENGTH or len(set(key)) < MIN_ADMIN_KEY_LENGTH // 2:
        raise InvalidSetting(
            f"HUBGATE_ADMIN_KEY is too weak: use at least {MIN_ADMIN_KEY_LENGTH} characters that do not repeat, "
            'for example the output of: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return key


def database_mark(database: Path) -> Path:
    """The file that says that there was a database: see `hubgate.store.sqlite.mark`."""
    return database.with_name(f"{database.name}.exists")
