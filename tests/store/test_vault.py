"""Tokens are encrypted for one row, with keys that can be rotated and are stored outside the database's folder."""

from __future__ import annotations

import base64
import dataclasses
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.domain.errors import StoreFailed
from hubgate.domain.secret import Secret
from hubgate.settings import InvalidSetting, Settings
from hubgate.store.vault import Sealed, Vault

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = (base64.urlsafe_b64encode(bytes([fill] * 32)).decode().rstrip("=") for fill in (7, 9))
TOKEN = Secret("hf_a-token-that-nobody-may-see")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@given(token=st.text(max_size=200), row=st.text(max_size=20), other=st.text(max_size=20))
def test_decrypts_token_only_in_its_own_row(token: str, row: str, other: str) -> None:
    vault = Vault([OLD])
    sealed = vault.seal(Secret(token), row)
    assert vault.open(sealed, row).reveal() == token
    if other != row:
        with pytest.raises(StoreFailed, match="another endpoint"):
            vault.open(sealed, other)


@given(data=st.data())
def test_rejects_ciphertext_with_one_changed_bit(data: st.DataObject) -> None:
    vault = Vault([OLD])
    sealed = vault.seal(TOKEN, "row")
    box = bytearray(sealed.box)
    bit = data.draw(st.integers(0, len(box) * 8 - 1))
    box[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreFailed, match="changed"):
        vault.open(Sealed(sealed.key_id, bytes(box)), "row")


@given(box=st.binary(max_size=64))
def test_rejects_random_ciphertext(box: bytes) -> None:
    vault = Vault([OLD])
    with pytest.raises(StoreFailed):
        vault.open(Sealed(vault.newest, box), "row")


def test_encrypting_a_token_twice_gives_different_ciphertexts() -> None:
    vault = Vault([OLD])
    assert vault.seal(TOKEN, "row").box != vault.seal(TOKEN, "row").box


def test_newest_key_encrypts_and_older_keys_decrypt() -> None:
    sealed = Vault([OLD]).seal(TOKEN, "row")
    both = Vault([NEW, OLD])
    assert both.open(sealed, "row") == TOKEN
    again = both.reseal(sealed, "row")
    assert again.key_id == both.newest == Vault([NEW]).newest
    assert Vault([NEW]).open(again, "row") == TOKEN


def test_missing_key_error_names_the_key_and_remedy() -> None:
    sealed = Vault([OLD]).seal(TOKEN, "row")
    with pytest.raises(StoreFailed, match=sealed.key_id) as failed:
        Vault([NEW]).open(sealed, "row")
    assert "Put that key back" in failed.value.remedy


def test_vault_and_sealed_token_repr_hide_secrets() -> None:
    vault = Vault([OLD])
    shown = repr(vault) + repr(vars(vault)) + repr(vault.seal(TOKEN, "row"))
    assert OLD not in shown
    assert TOKEN.reveal() not in shown


@pytest.mark.parametrize("written", [OLD, OLD + "=", base64.urlsafe_b64encode(bytes(range(32))).decode()])
def test_accepts_padded_and_unpadded_keys(settings: Settings, written: str) -> None:
    vault = Vault.from_settings(dataclasses.replace(settings, secret_keys=(written,)))
    assert vault.open(vault.seal(TOKEN, "row"), "row") == TOKEN
    assert not settings.secret_key_file.exists(), "keys of the environment need no file"


@pytest.mark.parametrize(
    "written",
    ["changeme", OLD[:-1], OLD + "AA", "!" * 43, "ключ", base64.urlsafe_b64encode(bytes(16)).decode()],
)
def test_rejects_invalid_environment_key_without_showing_it(settings: Settings, written: str) -> None:
    with pytest.raises(InvalidSetting, match="HUBGATE_SECRET_KEY must be base64url of 32 bytes") as refused:
        Vault.from_settings(dataclasses.replace(settings, secret_keys=(OLD, written)))
    assert "secrets.token_urlsafe(32)" in str(refused.value)
    assert written not in str(refused.value)


def test_creates_private_key_file_at_first_use(settings: Settings) -> None:
    sealed = Vault.from_settings(settings).seal(TOKEN, "row")
    file = settings.secret_key_file
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert [path.name for path in file.parent.iterdir()] == [file.name], "no draft is left"
    assert Vault.from_settings(settings).open(sealed, "row") == TOKEN


def test_concurrent_processes_share_one_key_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from hubgate.settings import Settings; from hubgate.store.vault import Vault\n"
        "sys.stdin.readline()\n"
        "print(Vault.from_settings(Settings(home=Path('home'), secret_key_file=Path('keys/key'))).newest)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ids = {process.communicate(timeout=240)[0] for process in started}
    assert len(ids) == 1
    assert ids != {""}


def test_credential_of_systemd_may_be_readable_by_its_group(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since systemd 254, the mode of a credential of a service with DynamicUser is 0440 (systemd issue 29435)."""
    Vault.from_settings(settings)
    settings.secret_key_file.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(settings.secret_key_file.parent))
    Vault.from_settings(settings)
    settings.secret_key_file.chmod(0o444)
    with pytest.raises(StoreFailed, match="other users"):
        Vault.from_settings(settings)


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o644, 0o660, 0o620])
def test_rejects_key_file_accessible_by_others_until_chmod(settings: Settings, loose: int) -> None:
    sealed = Vault.from_settings(settings).seal(TOKEN, "row")
    settings.secret_key_file.chmod(loose)
    with pytest.raises(StoreFailed, match="other users") as refused:
        Vault.from_settings(settings)
    assert refused.value.remedy == f"Run: chmod 600 {settings.secret_key_file}"
    settings.secret_key_file.chmod(0o600)
    assert Vault.from_settings(settings).open(sealed, "row") == TOKEN


@pytest.mark.parametrize("where", ["secret.key", "deeper/secret.key", "../home/secret.key"])
def test_rejects_key_file_in_the_database_folder(settings: Settings, where: str) -> None:
    beside = dataclasses.replace(settings, secret_key_file=settings.home / where)
    with pytest.raises(StoreFailed, match="database's folder") as refused:
        Vault.from_settings(beside)
    assert "HUBGATE_SECRET_KEY_FILE" in refused.value.remedy
    assert not settings.home.exists()


def test_rejects_key_file_linked_into_the_database_folder(settings: Settings) -> None:
    settings.home.mkdir()
    settings.secret_key_file.parent.symlink_to(settings.home)
    with pytest.raises(StoreFailed, match="database's folder"):
        Vault.from_settings(settings)


@pytest.mark.parametrize(
    "content", [b"", b"\n# only words\n", b"not-a-secret-key\n", bytes(range(256)), b"\xff\xfe"]
)
def test_rejects_key_file_without_valid_keys_unchanged(settings: Settings, content: bytes) -> None:
    settings.secret_key_file.parent.mkdir()
    settings.secret_key_file.write_bytes(content)
    settings.secret_key_file.chmod(0o600)
    with pytest.raises(StoreFailed, match="one key a line") as refused:
        Vault.from_settings(settings)
    assert "not-a-secret-key" not in str(refused.value)
    assert settings.secret_key_file.read_bytes() == content


def test_unusable_key_file_raises_store_error(settings: Settings) -> None:
    settings.secret_key_file.mkdir(parents=True)
    with pytest.raises(StoreFailed, match="directory") as failed:
        Vault.from_settings(settings)
    assert "HUBGATE_SECRET_KEY" in failed.value.remedy
    settings.secret_key_file.rmdir()
    settings.secret_key_file.parent.rmdir()
    settings.secret_key_file.parent.write_text("a file where a folder should be")
    with pytest.raises(StoreFailed, match="cannot be used"):
        Vault.from_settings(settings)


def test_rotation_prepends_a_new_key_and_keeps_the_old_one(settings: Settings) -> None:
    vault = Vault.from_settings(settings)
    file, first = settings.secret_key_file, vault.newest
    sealed = vault.seal(TOKEN, "row")
    before = file.read_text().splitlines()
    vault.rotate()
    after = file.read_text().splitlines()
    assert vault.newest != first
    assert [after[0], *after[2:]] == before
    assert mode(file) == 0o600
    reopened = Vault.from_settings(settings)
    assert reopened.newest == vault.newest
    assert reopened.open(sealed, "row") == vault.open(sealed, "row") == TOKEN


def test_failed_rotation_changes_nothing(settings: Settings) -> None:
    vault = Vault.from_settings(settings)
    newest = vault.newest
    settings.secret_key_file.unlink()
    with pytest.raises(StoreFailed, match="No such file"):
        vault.rotate()
    assert vault.newest == newest


def test_rotating_environment_keys_fails_with_instructions(
    settings: Settings,
) -> None:
    vault = Vault.from_settings(dataclasses.replace(settings, secret_keys=(OLD,)))
    with pytest.raises(StoreFailed, match="HUBGATE_SECRET_KEY") as refused:
        vault.rotate()
    assert "Put a new key in front of the old one" in refused.value.remedy
