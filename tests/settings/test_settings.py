from __future__ import annotations

from pathlib import Path

import pytest

from hubgate.settings import InvalidSetting, Settings


def test_empty_environment_gives_documented_defaults() -> None:
    settings = Settings.from_env({"HOME": "/home/ada"})
    assert settings.home == Path("/home/ada/.local/share/hubgate")
    assert settings.secret_key_file == Path("/home/ada/.config/hubgate/secret.key")
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.allow_private_addresses is True
    assert settings.keys_in_path is False
    assert settings.admin_key is None
    assert settings.database == settings.home / "hubgate.db"
    assert settings.vectors == settings.home / "vectors"
    assert settings.cache_bytes == 1 << 30


def test_reads_every_variable() -> None:
    settings = Settings.from_env(
        {
            "HUBGATE_HOME": "/data",
            "HUBGATE_HOST": "0.0.0.0",
            "HUBGATE_PORT": "9000",
            "HUBGATE_ADMIN_KEY": "correct-horse-battery",
            "HUBGATE_SECRET_KEY": "new, old,",
            "HUBGATE_SECRET_KEY_FILE": "/secret/key",
            "HUBGATE_ALLOW_PRIVATE_ADDRESSES": "No",
            "HUBGATE_KEYS_IN_PATH": "1",
            "HUBGATE_MAX_BODY_BYTES": "2048",
            "HUBGATE_MAX_TOTAL_BODY_BYTES": "4096",
            "HUBGATE_MAX_CONNECTIONS": "10",
            "HUBGATE_MAX_REPLY_BYTES": "1048576",
            "HUBGATE_CACHE_BYTES": "0",
            "HUBGATE_LOG_LEVEL": "DEBUG",
            "HF_ENDPOINT": "https://mirror.example",
            "HF_HUB_OFFLINE": "1",
            "HUBGATE_TRUSTED_PROXIES": "10.0.0.1,10.0.0.2",
            "HUBGATE_ENDPOINTS_API_URL": "https://endpoints.example/v2",
            "HUBGATE_ENDPOINTS_CATALOG_URL": "https://endpoints.example/catalog",
            "HUBGATE_MAX_DOLLARS_PER_HOUR": "2.5",
            "HUBGATE_DRAIN_DELAY": "15",
            "HUBGATE_ALONE": "Wait",
            "HUBGATE_FILES": "/files",
            "HUBGATE_FILES_MAX_BYTES": "4096",
            "HUBGATE_FILES_TOTAL_BYTES": "8192",
            "HUBGATE_FILES_KEY_BYTES": "2048",
            "HUBGATE_FILES_DAYS": "7",
            "HUBGATE_MAX_TOTAL_REPLY_BYTES": "2097152",
            "HUBGATE_WEBHOOK_URL": "https://hooks.example/x",
            "HUBGATE_WEBHOOK_SECRET": "a secret of at least 24 bytes",
            "HUBGATE_CACHE_URL": "redis+sentinel://one,two/main",
        }
    )
    assert settings.home == Path("/data")
    assert settings.port == 9000
    assert settings.secret_keys == ("new", "old")
    assert settings.secret_key_file == Path("/secret/key")
    assert settings.allow_private_addresses is False
    assert settings.keys_in_path is True
    assert settings.max_body_bytes == 2048
    assert settings.max_total_body_bytes == 4096
    assert settings.max_total_reply_bytes == 2 << 20
    assert settings.max_connections == 10
    assert (settings.files, settings.files_days) == (Path("/files"), 7)
    assert (settings.files_max_bytes, settings.files_total_bytes) == (4096, 8192)
    assert settings.files_key_bytes == 2048
    assert settings.webhook_url == "https://hooks.example/x"
    assert settings.webhook_secret == "a secret of at least 24 bytes"
    assert "secret of" not in repr(settings)
    assert settings.max_reply_bytes == 1 << 20
    assert settings.cache_bytes == 0
    assert settings.log_level == "debug"
    assert settings.hf_endpoint == "https://mirror.example"
    assert settings.hf_offline is True
    assert settings.trusted_proxies == "10.0.0.1,10.0.0.2"
    assert settings.endpoints_api_url == "https://endpoints.example/v2"
    assert settings.endpoints_catalog_url == "https://endpoints.example/catalog"
    assert settings.max_dollars_per_hour == 2.5
    assert settings.drain_delay == 15
    assert settings.shares_alone is False
    assert settings.cache_url == "redis+sentinel://one,two/main"
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize("url", ["s3://bucket/files", "gs://bucket", "abfss://container@account/files"])
def test_files_can_be_in_an_object_store(url: str) -> None:
    settings = Settings.from_env({"HUBGATE_HOME": "/data", "HUBGATE_FILES": f"{url}/"})
    assert (settings.files_url, settings.files) == (url, Path("/data/files"))


@pytest.mark.parametrize("url", ["ftp://host/files", "s3://", "s3://KEY:secret@bucket/files"])
def test_refuses_other_urls_for_files(url: str) -> None:
    with pytest.raises(InvalidSetting, match="HUBGATE_FILES") as refused:
        Settings.from_env({"HUBGATE_FILES": url})
    assert "KEY:secret" not in str(refused.value)


def test_total_body_limit_is_at_least_the_single_body_limit() -> None:
    one = 1 << 30
    assert Settings.from_env({"HUBGATE_MAX_BODY_BYTES": str(one)}).max_total_body_bytes == one


@pytest.mark.parametrize("trusted", ["*", "::1", "10.0.0.0/8, 127.0.0.1"])
def test_accepts_addresses_networks_and_wildcard_as_trusted_proxies(trusted: str) -> None:
    assert Settings.from_env({"HUBGATE_TRUSTED_PROXIES": trusted}).trusted_proxies == trusted


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HUBGATE_PORT", "http"),
        ("HUBGATE_PORT", "65536"),
        ("HUBGATE_PORT", "-1"),
        ("HUBGATE_KEYS_IN_PATH", "maybe"),
        ("HUBGATE_MAX_BODY_BYTES", "1"),
        ("HUBGATE_MAX_TOTAL_BODY_BYTES", "2048"),
        ("HUBGATE_MAX_CONNECTIONS", "0"),
        ("HUBGATE_MAX_REPLY_BYTES", "1048575"),
        ("HUBGATE_CACHE_BYTES", "1048575"),
        ("HUBGATE_LOG_LEVEL", "loud"),
        ("HUBGATE_ADMIN_KEY", "short"),
        ("HUBGATE_ADMIN_KEY", "aaaaaaaaaaaaaaaaaaaaaaaa"),
        ("HUBGATE_ADMIN_KEY", "\udcff\udcfe0123456789abcdef"),
        ("HUBGATE_ADMIN_KEY", "schöne Schlüssel sind lang"),
        ("HUBGATE_PORT", "9" * 5000),
        ("HUBGATE_CACHE_BYTES", "1" * 5000),
        ("HUBGATE_KEYS_IN_PATH", "maybe" * 1000),
        ("HUBGATE_HOME", "~no-such-user/data"),
        ("HUBGATE_SECRET_KEY_FILE", "~no-such-user/secret.key"),
        ("HUBGATE_ROUTER_URL", "router.example.com"),
        ("HUBGATE_ENDPOINTS_API_URL", "https://"),
        ("HF_ENDPOINT", "http://[::1"),
        ("HUBGATE_TRUSTED_PROXIES", "10.0.0.1, proxy.internal"),
        ("HUBGATE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("HUBGATE_ALONE", "yes"),
        ("HUBGATE_MAX_DOLLARS_PER_HOUR", "-1"),
        ("HUBGATE_MAX_DOLLARS_PER_HOUR", "nan"),
        ("HUBGATE_CACHE_URL", "valkey.example:6379"),
        ("HUBGATE_CACHE_URL", "valkey://"),
        ("HUBGATE_CACHE_URL", "memcached://valkey.example"),
    ],
)
def test_rejects_invalid_value_and_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=variable) as refused:
        Settings.from_env({variable: value})
    assert len(str(refused.value)) < 250


def test_rejects_home_of_unknown_user() -> None:
    with pytest.raises(InvalidSetting, match=r"The home folder in '~no-such-user' .* set HUBGATE_HOME"):
        Settings.from_env({"XDG_DATA_HOME": "~no-such-user"})


def test_errors_and_repr_do_not_show_secrets() -> None:
    with pytest.raises(InvalidSetting) as refused:
        Settings.from_env({"HUBGATE_ADMIN_KEY": "s3cret"})
    assert "s3cret" not in str(refused.value)
    shown = repr(
        Settings.from_env({"HUBGATE_ADMIN_KEY": "correct-horse-battery", "HUBGATE_SECRET_KEY": "sesame"})
    )
    assert "horse" not in shown
    assert "sesame" not in shown


@pytest.mark.parametrize(
    "variable",
    ["HF_ENDPOINT", "HUBGATE_ROUTER_URL", "HUBGATE_ENDPOINTS_API_URL", "HUBGATE_ENDPOINTS_CATALOG_URL"],
)
@pytest.mark.parametrize(
    "url", ["https://user:s3cret@h.example", "https://s3cret@h.example", "ftp://u:s3cret@h.example"]
)
def test_a_url_that_gets_tokens_has_no_credentials(variable: str, url: str) -> None:
    with pytest.raises(InvalidSetting, match=variable) as refused:
        Settings.from_env({variable: url})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://h.example/s3cret", "https:///s3cret", "http://[s3cret"])
def test_the_url_of_a_webhook_is_not_shown(url: str) -> None:
    with pytest.raises(InvalidSetting, match="HUBGATE_WEBHOOK_URL must be a URL") as refused:
        Settings.from_env({"HUBGATE_WEBHOOK_URL": url})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "secret", ["", "short", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64 at all, but long"]
)
def test_a_webhook_needs_a_long_secret(secret: str) -> None:
    with pytest.raises(InvalidSetting, match="HUBGATE_WEBHOOK_SECRET must have at least 24 bytes"):
        Settings.from_env({"HUBGATE_WEBHOOK_URL": "https://h.example", "HUBGATE_WEBHOOK_SECRET": secret})
