"""The vault seals tokens, so that the database alone reveals none.

AES-256-GCM with a random nonce. The id of the row is associated data: a sealed token that was moved to another row does
not open. There may be several keys, newest first. A sealed token names its key, so that keys can be rotated.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hubgate.domain.errors import StoreFailed
from hubgate.domain.secret import Secret
from hubgate.files import create_private_folder, write_private
from hubgate.settings import InvalidSetting, Settings

_CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Set by systemd: a folder that only this service can read."""
NEW_KEY = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
_NONCE_BYTES = 12
_HEADER = "# hubgate's secret keys, newest first. Without them the stored tokens cannot be opened: keep a copy elsewhere.\n"


@dataclass(frozen=True, slots=True)
class Sealed:
    """The id of the key, and nonce + ciphertext + tag."""

    key_id: str
    box: bytes


class Vault:
    """Seals and opens tokens. Used from one thread."""

    def __init__(self, keys: Sequence[str], *, file: Path | None = None) -> None:
        """Keys are base64url of 32 bytes, newest first. `file` is where they come from, if it is a file.

        Raises:
            ValueError: there is no key, or an invalid one.
        """
        ciphers = [_cipher(key) for key in keys]
        if not ciphers:
            raise ValueError("no key")
        self._newest = ciphers[0][0]
        self._ciphers = dict(ciphers)
        self._raw_keys = [_raw(key) for key in keys]
        self._file = file

    @classmethod
    def from_settings(cls, settings: Settings) -> Vault:
        """The vault of the settings. A missing key file is created, but not for a database that gateways share.

        Raises:
            InvalidSetting: HUBGATE_SECRET_KEY is invalid, or missing for a shared database.
            StoreFailed: the key file cannot be used, or others can read it.
        """
        if settings.secret_keys:
            try:
                return cls(settings.secret_keys)
            except ValueError:
                raise InvalidSetting(
                    "HUBGATE_SECRET_KEY must be base64url of 32 bytes, or several of them, separated by commas, newest "
                    f"first. To create one, run: {NEW_KEY}"
                ) from None
        file = settings.secret_key_file
        if file.resolve().is_relative_to(settings.home.resolve()):
            raise StoreFailed(
                f"The secret key file {file} is in the database's folder, so anyone with a copy of the folder can "
                "open every token.",
                remedy="Move it elsewhere, and set HUBGATE_SECRET_KEY_FILE to its path.",
            )
        return cls._from_file(file, shared=settings.database_url is not None)

    @classmethod
    def _from_file(cls, file: Path, *, shared: bool) -> Vault:
        try:
            if not file.exists():
                if shared:
                    raise InvalidSetting(
                        "HUBGATE_SECRET_KEY must be set with HUBGATE_DATABASE_URL: every gateway of the database needs "
                        f"the same key, so none creates one. Set it, or put the key into {file}. To create a key, run: "
                        f"{NEW_KEY}"
                    )
                _create(file)
            lines = _read(file).splitlines()
        except OSError as error:
            raise _file_failed(file, error) from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        try:
            return cls(keys, file=None if shared else file)
        except ValueError:
            raise StoreFailed(
                f"The secret key file {file} must contain one key a line, each base64url of 32 bytes, newest first.",
                remedy="Restore it from a backup. If no token was ever stored, delete it, and hubgate creates a new one.",
            ) from None

    @property
    def key_ids(self) -> Sequence[str]:
        """The ids of all keys, newest first."""
        return list(self._ciphers)

    @property
    def newest(self) -> str:
        """The id of the key that seals."""
        return self._newest

    def derived(self, purpose: bytes) -> bytes:
        """A key of 32 bytes for another purpose. The newest key cannot be computed from it."""
        return self.derived_from_each(purpose)[0]

    def derived_from_each(self, purpose: bytes, *, salt: bytes | None = None) -> Sequence[bytes]:
        """As `derived`, from every key, newest first. While keys are rotated, gateways differ in which is the newest."""
        info = b"hubgate " + purpose
        return [HKDF(SHA256(), 32, salt=salt, info=info).derive(raw) for raw in self._raw_keys]

    def seal(self, token: Secret, identity: str) -> Sealed:
        """Seal a token for the row of this id."""
        nonce = os.urandom(_NONCE_BYTES)
        box = self._ciphers[self._newest].encrypt(nonce, token.reveal().encode(), identity.encode())
        return Sealed(self._newest, nonce + box)

    def open(self, sealed: Sealed, identity: str) -> Secret:
        """The token that was sealed for this row.

        Raises:
            StoreFailed: its key is missing, or it was not sealed for this row.
        """
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise StoreFailed(
                f"The token was sealed under a secret key that hubgate does not have (key id {sealed.key_id}).",
                remedy="Put that key back, after the newest one, or enter the token again.",
            )
        nonce, box = sealed.box[:_NONCE_BYTES], sealed.box[_NONCE_BYTES:]
        try:
            return Secret(cipher.decrypt(nonce, box, identity.encode()).decode())
        except (InvalidTag, ValueError):
            raise StoreFailed(
                "The sealed token cannot be opened: it was changed, or moved here from another endpoint.",
                remedy="Restore the database from a backup, or enter the token again.",
            ) from None

    def reseal(self, sealed: Sealed, identity: str) -> Sealed:
        """Seal the same token under the newest key.

        Raises:
            StoreFailed: it cannot be opened.
        """
        return self.seal(self.open(sealed, identity), identity)

    def rotate(self) -> None:
        """Create a new key and save it before anything is sealed under it. The old keys are kept.

        Raises:
            StoreFailed: the keys come from the environment, or the key file cannot be written.
        """
        if self._file is None:
            raise StoreFailed(
                "Every token is sealed under the newest key of HUBGATE_SECRET_KEY, and hubgate cannot change its own "
                "environment.",
                remedy="Put a new key in front of the old one, separated by a comma, restart hubgate, and rotate again. "
                "Then remove the old key. Gateways that share a database need the new key behind the old one first, all "
                f"of them. To create a key, run: {NEW_KEY}",
            )
        key = secrets.token_urlsafe(32)
        try:
            write_private(self._file, f"{_HEADER}{key}\n{_read(self._file).removeprefix(_HEADER)}".encode())
        except OSError as error:
            raise _file_failed(self._file, error) from error
        self._raw_keys.insert(0, _raw(key))
        self._newest, cipher = _cipher(key)
        self._ciphers[self._newest] = cipher


def _cipher(key: str) -> tuple[str, AESGCM]:
    """The id of the key, which does not reveal it, and its cipher."""
    raw = _raw(key)
    return hashlib.sha256(b"hubgate key id" + raw).hexdigest()[:8], AESGCM(raw)


def _raw(key: str) -> bytes:
    raw = base64.b64decode(key + "=" * (-len(key) % 4), altchars=b"-_", validate=True)
    if len(raw) != 32:
        raise ValueError("not 32 bytes")
    return raw


def _create(file: Path) -> None:
    create_private_folder(file.parent)
    with contextlib.suppress(FileExistsError):  # another process was first
        write_private(file, f"{_HEADER}{secrets.token_urlsafe(32)}\n".encode(), new=True)


def _read(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        others = stat.S_IRWXG | stat.S_IRWXO
        if file.parent == Path(os.environ.get(_CREDENTIALS, "")):
            others &= (
                ~stat.S_IRGRP
            )  # systemd >= 254 lets the service's user in by an ACL, whose mask is shown there
        if mode & others:
            raise StoreFailed(
                f"The secret key file {file} can be read by other users.", remedy=f"Run: chmod 600 {file}"
            )
        return opened.read()


def _file_failed(file: Path, error: OSError) -> StoreFailed:
    return StoreFailed(
        f"The secret key file {file} cannot be used: {error.strerror or error}.",
        remedy="Set HUBGATE_SECRET_KEY_FILE to a path that hubgate's user may write to, or set HUBGATE_SECRET_KEY.",
    )
