"""The settings, read once from the environment. docs/settings.md documents them; a test compares the two."""

from __future__ import annotations

import hashlib
import math
import os
import re
import socket
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

MIN_ADMIN_KEY_LENGTH = 16
MIN_CACHE_BYTES = 1 << 20
MIN_WEBHOOK_SECRET_BYTES = 24
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - how to reach a gateway that listens on all addresses
_MAX_DIGITS = 19
_MAX_SHOWN = 60
_MAX_NAME = 63
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_OBJECT_STORES = {"s3", "gs", "az", "abfs", "abfss"}
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_VALKEY_SCHEMES = {"unix"} | {
    scheme + kind for scheme in ("valkey", "valkeys", "redis", "rediss") for kind in ("", "+sentinel")
}


class InvalidSetting(ValueError):
    """The message names the variable and describes the valid values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
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
    """For all requests in flight together."""
    max_total_reply_bytes: int = 256 * 1024 * 1024
    """For the replies to all requests in flight."""
    max_connections: int = 1024
    max_pending_per_address: int = 256
    """Connections of one address that owe a head, or a body without a known key."""
    max_reply_bytes: int = 16 * 1024 * 1024
    cache_bytes: int = 1 << 30
    log_level: str = "info"
    hf_endpoint: str | None = None
    trusted_proxies: str = ""
    """Comma-separated addresses whose X-Forwarded headers are trusted, or `*`."""
    hf_offline: bool = False
    database_url: str | None = field(default=None, repr=False)
    """Of a PostgreSQL database, instead of the file in the home. It may contain a password."""
    migrate: bool = True
    """Whether `hubgate serve` migrates the database."""
    gate_name: str | None = None
    """What this gateway is called among those of its database."""
    cache_url: str | None = field(default=None, repr=False)
    """Of a Valkey or Redis server with the vector cache. It may contain a password."""
    shares_alone: bool = True
    """Whether a gateway goes on with its share of rate limits while the database is away."""
    endpoints_api_url: str | None = None
    endpoints_catalog_url: str | None = None
    max_dollars_per_hour: float | None = None
    """For the Inference Endpoints of a namespace, at their max replicas."""
    router_url: str = "https://router.huggingface.co"
    local_threads: int = 0
    local_lanes: int = 0
    local_idle_seconds: int = 0
    drain_delay: int = 0
    """Seconds."""
    drain_seconds: int = 120
    files_folder: Path | None = None
    """For the files of batches; `None`: a folder in the home."""
    files_url: str | None = None
    """Of a folder in an object store that has these files."""
    files_max_bytes: int = 512 * 1024 * 1024
    """Of one uploaded file."""
    files_total_bytes: int = 10 * 1024 * 1024 * 1024
    files_key_bytes: int = 2 * 1024 * 1024 * 1024
    """Of the files of one key."""
    files_days: int = 30
    webhook_url: str | None = field(default=None, repr=False)
    """It may contain a password."""
    webhook_secret: str | None = field(default=None, repr=False)
    shared_models: Path | None = None
    """The folder of the local models that several workers share. The command line sets it."""

    @property
    def gate(self) -> str:
        """The name of this gateway; by default that of the machine, with an ending that each home has of its own."""
        if self.gate_name:
            return self.gate_name
        host = _NOT_IN_NAMES.sub("-", socket.gethostname()[:_MAX_NAME]) or "hubgate"
        return f"{host}-{hashlib.sha256(str(self.home.absolute()).encode()).hexdigest()[:4]}"

    @property
    def is_initialized(self) -> bool:
        """Whether a gateway was ever created in this home, even if its database is lost."""
        return self.database.exists() or database_marker(self.database).exists()

    @property
    def database(self) -> Path:
        return self.home / "hubgate.db"

    @property
    def vectors(self) -> Path:
        return self.home / "vectors"

    @property
    def files(self) -> Path:
        """The folder for the files of batches, or for copies of those in the object store."""
        return self.files_folder or self.home / "files"

    @property
    def tokenizers(self) -> Path:
        """A folder for the tokenizers of remote models."""
        return self.home / "tokenizers"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables.

        Raises:
            InvalidSetting: a value is invalid.
        """
        env = os.environ if env is None else env
        return cls(
            home=_path(env, "HUBGATE_HOME", "XDG_DATA_HOME", ".local/share", "hubgate"),
            secret_key_file=_path(
                env, "HUBGATE_SECRET_KEY_FILE", "XDG_CONFIG_HOME", ".config", "hubgate/secret.key"
            ),
            host=env.get("HUBGATE_HOST") or "127.0.0.1",
            port=_integer(env, "HUBGATE_PORT", 8080, 0, 65535),
            admin_key=_admin_key(env),
            secret_keys=tuple(k.strip() for k in env.get("HUBGATE_SECRET_KEY", "").split(",") if k.strip()),
            allow_private_addresses=_flag(env, "HUBGATE_ALLOW_PRIVATE_ADDRESSES", default=True),
            keys_in_path=_flag(env, "HUBGATE_KEYS_IN_PATH", default=False),
            max_body_bytes=_max_body_bytes(env),
            max_total_body_bytes=_total_body_bytes(env),
            max_total_reply_bytes=_integer(
                env, "HUBGATE_MAX_TOTAL_REPLY_BYTES", 256 * 1024 * 1024, 1 << 20, 1 << 50
            ),
            max_connections=_integer(env, "HUBGATE_MAX_CONNECTIONS", 1024, 1, 1_000_000),
            max_pending_per_address=_integer(env, "HUBGATE_MAX_PENDING_PER_ADDRESS", 256, 1, 1_000_000),
            max_reply_bytes=_integer(env, "HUBGATE_MAX_REPLY_BYTES", 16 * 1024 * 1024, 1 << 20, 1 << 30),
            cache_bytes=_cache_bytes(env),
            log_level=_log_level(env),
            hf_endpoint=_url(env, "HF_ENDPOINT"),
            trusted_proxies=_proxies(env),
            hf_offline=env.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE,
            database_url=read_database_url("HUBGATE_DATABASE_URL", env.get("HUBGATE_DATABASE_URL", "")),
            migrate=_choice(env, "HUBGATE_MIGRATE", "auto", "never"),
            gate_name=_gate_name(env),
            cache_url=_cache_url(env),
            shares_alone=_choice(env, "HUBGATE_ALONE", "share", "wait"),
            endpoints_api_url=_url(env, "HUBGATE_ENDPOINTS_API_URL"),
            endpoints_catalog_url=_url(env, "HUBGATE_ENDPOINTS_CATALOG_URL"),
            max_dollars_per_hour=_dollars(env, "HUBGATE_MAX_DOLLARS_PER_HOUR"),
            router_url=_url(env, "HUBGATE_ROUTER_URL") or "https://router.huggingface.co",
            local_threads=_integer(env, "HUBGATE_LOCAL_THREADS", 0, 0, 1024),
            local_lanes=_integer(env, "HUBGATE_LOCAL_LANES", 0, 0, 64),
            local_idle_seconds=_integer(env, "HUBGATE_LOCAL_IDLE_SECONDS", 0, 0, 1 << 30),
            drain_delay=_integer(env, "HUBGATE_DRAIN_DELAY", 0, 0, 3600),
            drain_seconds=_integer(env, "HUBGATE_DRAIN_SECONDS", 120, 0, 3600),
            files_folder=_files_folder(env),
            files_url=_files_url(env),
            files_max_bytes=_integer(env, "HUBGATE_FILES_MAX_BYTES", 512 * 1024 * 1024, 1024, 1 << 50),
            files_total_bytes=_integer(env, "HUBGATE_FILES_TOTAL_BYTES", 10 * 1024**3, 1024, 1 << 60),
            files_key_bytes=_integer(env, "HUBGATE_FILES_KEY_BYTES", 2 * 1024**3, 1024, 1 << 60),
            files_days=_integer(env, "HUBGATE_FILES_DAYS", 30, 1, 3650),
            webhook_url=_url(env, "HUBGATE_WEBHOOK_URL", may_be_secret=True),
            webhook_secret=_webhook_secret(env),
        )


def _path(env: Mapping[str, str], name: str, base: str, below_home: str, below_base: str) -> Path:
    """The path in variable `name`, else one below the folder in variable `base`, else one in the user's home."""
    if folder := env.get(name):
        below = ""
    elif folder := env.get(base):
        below = below_base
    else:
        folder, below = env.get("HOME") or "~", f"{below_home}/{below_base}"
    try:
        return (Path(folder) / below).expanduser()
    except RuntimeError:
        raise InvalidSetting(
            f"The home folder in {_shown(folder)} cannot be determined: set {name} to an absolute path."
        ) from None


def _files_folder(env: Mapping[str, str]) -> Path | None:
    folder = env.get("HUBGATE_FILES")
    return Path(folder).expanduser() if folder and "://" not in folder else None


def _files_url(env: Mapping[str, str]) -> str | None:
    url = env.get("HUBGATE_FILES", "")
    if "://" not in url:
        return None
    scheme, _, place = url.partition("://")
    if scheme not in _OBJECT_STORES or not place.strip("/"):
        raise InvalidSetting(
            "HUBGATE_FILES must be a folder, or the URL of one in an object store: s3://BUCKET/FOLDER, gs://, az:// or abfs://."
        )
    if "@" in place.partition("/")[0] and scheme != "abfss":
        raise InvalidSetting(
            "HUBGATE_FILES must not contain credentials: use the variables of the store, such as AWS_ACCESS_KEY_ID."
        )
    return url.rstrip("/")


def _shown(value: str) -> str:
    return ascii(value) if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]!a}…"


def _flag(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = env.get(name, "").strip().lower()
    if not value:
        return default
    if value not in _TRUE | _FALSE:
        raise InvalidSetting(f"{name} must be true or false, not {_shown(value)}.")
    return value in _TRUE


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = env.get(name, "").strip()
    if not value:
        return default
    is_integer = value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS
    if not is_integer or not low <= int(value) <= high:
        raise InvalidSetting(f"{name} must be a whole number from {low} to {high}, not {_shown(value)}.")
    return int(value)


def _dollars(env: Mapping[str, str], name: str) -> float | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InvalidSetting(f"{name} must be a number of US dollars, not {_shown(text)}.")
    return value


def _url(env: Mapping[str, str], name: str, *, may_be_secret: bool = False) -> str | None:
    """A URL. One that may be secret may contain credentials and is not shown."""
    value = env.get(name, "").strip()
    try:
        parts = urlsplit(value)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
        has_credentials = "@" in parts.netloc
    except ValueError:
        is_valid = has_credentials = False
    if value and not is_valid:
        shown = "" if may_be_secret or "@" in value else f", not {_shown(value)}"
        raise InvalidSetting(f"{name} must be a URL that starts with http:// or https://{shown}.")
    if has_credentials and not may_be_secret:
        raise InvalidSetting(
            f"{name} must not contain a user name or a password: hubgate sends access tokens there instead."
        )
    return value or None


def _choice(env: Mapping[str, str], name: str, default: str, other: str) -> bool:
    """Whether it is the default."""
    value = env.get(name, "").strip().lower() or default
    if value not in {default, other}:
        raise InvalidSetting(f"{name} must be {default} or {other}, not {_shown(value)}.")
    return value == default


def _proxies(env: Mapping[str, str]) -> str:
    # uvicorn would accept a host name, which then matches no client.
    value = env.get("HUBGATE_TRUSTED_PROXIES", "").strip()
    for proxy in value.split(",") if value not in {"", "*"} else ():
        try:
            ip_network(proxy.strip())
        except ValueError:
            raise InvalidSetting(
                "HUBGATE_TRUSTED_PROXIES must be comma-separated addresses or networks, or *,"
                f" not {_shown(proxy.strip())}."
            ) from None
    return value


def _max_body_bytes(env: Mapping[str, str]) -> int:
    return _integer(env, "HUBGATE_MAX_BODY_BYTES", 32 * 1024 * 1024, 1024, 1 << 30)


def _total_body_bytes(env: Mapping[str, str]) -> int:
    single = _max_body_bytes(env)
    total = _integer(env, "HUBGATE_MAX_TOTAL_BODY_BYTES", max(256 * 1024 * 1024, single), 1024, 1 << 50)
    if total < single:
        raise InvalidSetting(
            f"HUBGATE_MAX_TOTAL_BODY_BYTES must be at least HUBGATE_MAX_BODY_BYTES, which is {single}."
        )
    return total


def _cache_bytes(env: Mapping[str, str]) -> int:
    size = _integer(env, "HUBGATE_CACHE_BYTES", 1 << 30, 0, 1 << 50)
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


def _webhook_secret(env: Mapping[str, str]) -> str | None:
    """`whsec_` and base64, as Standard Webhooks writes it, or any long text."""
    secret = env.get("HUBGATE_WEBHOOK_SECRET", "").strip()
    if secret.startswith("whsec_"):
        try:
            size = len(b64decode(secret.removeprefix("whsec_"), validate=True))
        except ValueError:
            size = 0
    else:
        size = len(secret)
    if env.get("HUBGATE_WEBHOOK_URL", "").strip() and size < MIN_WEBHOOK_SECRET_BYTES:
        raise InvalidSetting(
            f"HUBGATE_WEBHOOK_SECRET must have at least {MIN_WEBHOOK_SECRET_BYTES} bytes, for example the output of: "
            "python3 -c \"import base64, os; print('whsec_' + base64.b64encode(os.urandom(32)).decode())\""
        )
    return secret or None


def _admin_key(env: Mapping[str, str]) -> str | None:
    key = env.get("HUBGATE_ADMIN_KEY", "").strip()
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidSetting(
            "HUBGATE_ADMIN_KEY cannot be sent in an HTTP header: use ASCII letters, digits and punctuation, no spaces."
        )
    if len(key) < MIN_ADMIN_KEY_LENGTH or len(set(key)) < MIN_ADMIN_KEY_LENGTH // 2:
        raise InvalidSetting(
            f"HUBGATE_ADMIN_KEY is too weak: use at least {MIN_ADMIN_KEY_LENGTH} random characters, "
            'for example the output of: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return key


def read_database_url(name: str, value: str) -> str | None:
    """The URL of a PostgreSQL database in the setting or option `name`; `None` if it is empty.

    Raises:
        InvalidSetting: it is another kind of URL. It is not shown, as it may contain a password.
    """
    url = value.strip()
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise InvalidSetting(f"{name} must be a URL that starts with postgresql://.")
    return url or None


def _gate_name(env: Mapping[str, str]) -> str | None:
    name = env.get("HUBGATE_GATE_NAME", "").strip()
    if len(name) > _MAX_NAME or _NOT_IN_NAMES.search(name):
        raise InvalidSetting(
            f"HUBGATE_GATE_NAME must have at most {_MAX_NAME} letters, digits, dots, hyphens and underscores, "
            f"not {_shown(name)}."
        )
    return name or None


def _cache_url(env: Mapping[str, str]) -> str | None:
    # `hubgate.store.vectors.valkey_url` reads it. It is not shown, as it may contain a password.
    url = env.get("HUBGATE_CACHE_URL", "").strip()
    scheme, _, rest = url.partition("://")
    if url and not (scheme in _VALKEY_SCHEMES and rest):
        raise InvalidSetting(
            "HUBGATE_CACHE_URL must be a URL that starts with valkey://, valkeys:// (TLS), redis://, rediss:// (TLS),"
            " unix:// (a socket) or valkey+sentinel://."
        )
    return url or None


def database_marker(database: Path) -> Path:
    """The file that records that a database was created: see `hubgate.store.sqlite.mark`."""
    return database.with_name(f"{database.name}.exists")
