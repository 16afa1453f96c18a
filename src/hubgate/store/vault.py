"""The vault seals tokens, so that the database alone gives none away.

AES-256-GCM with a random nonce. The row's identity is associated data: a sealed token moved to another row does
not open. Several keys, newest first; a sealed token names its key, so that keys can be rotated.
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

NEW_KEY = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
_NONCE_BYTES = 12
_HEADER = "# hubgate's secret keys, newest first. Without them the stored tokens cannot be opened: keep a copy apart.\n"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed token: the id of its key (not the key), and nonce + ciphertext + tag."""

    key_id: str
    box: bytes


class Vault:
    """Seals and opens tokens. Used from one thread."""

    def __init__(self, keys: Sequence[str], *, file: Path | None = None) -> None:
        """Keys are base64url of 32 bytes, newest first; `file` is where they are kept, if they are in a file.

        Raises:
            ValueError: no key, or not such a key.
        """
        ciphers = [_cipher(key) for key in keys]
        if not ciphers:
            raise ValueError("no key")
        self._newest = ciphers[0][0]
        self._ciphers = dict(ciphers)
        self._newest_raw = _raw(keys[0])
        self._file = file

    @classmethod
    def from_settings(cls, settings: Settings) -> Vault:
        """The vault of a gate. Its key file is made at first use.

        Raises:
            InvalidSetting: HUBGATE_SECRET_KEY holds something else than keys.
            StoreFailed: the key file cannot be used, or is not kept safely.
        """
        if settings.secret_keys:
            try:
                return cls(settings.secret_keys)
            except ValueError:
                raise InvalidSetting(
                    "HUBGATE_SECRET_KEY must be base64url of 32 bytes, or several of them with commas between, the "
                    f"newest first. This makes one: {NEW_KEY}"
                ) from None
        file = settings.secret_key_file
        if file.resolve().is_relative_to(settings.home.resolve()):
            raise StoreFailed(
                f"The secret key file {file} lies in the database's folder, so whoever gets a copy of the folder "
                "can open every token.",
                remedy="Move it elsewhere and name its place in HUBGATE_SECRET_KEY_FILE.",
            )
        return cls._from_file(file)

    @classmethod
    def _from_file(cls, file: Path) -> Vault:
        try:
            if not file.exists():
                _make(file)
            lines = _read(file).splitlines()
        except OSError as error:
            raise _file_failed(file, error) from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        try:
            return cls(keys, file=file)
        except ValueError:
            raise StoreFailed(
                f"The secret key file {file} must hold one key a line, each base64url of 32 bytes, the newest first.",
                remedy="Restore it from a copy. If no token was ever stored, delete it and the gate makes a new one.",
            ) from None

    @property
    def newest(self) -> str:
        """The id of the key that seals."""
        return self._newest

    def derived(self, purpose: bytes) -> bytes:
        """A key of 32 bytes for another purpose, from which the newest key cannot be computed."""
        return HKDF(SHA256(), 32, salt=None, info=b"hubgate " + purpose).derive(self._newest_raw)

    def seal(self, token: Secret, identity: str) -> Sealed:
        """Seal a token for the row of this identity."""
        nonce = os.urandom(_NONCE_BYTES)
        box = self._ciphers[self._newest].encrypt(nonce, token.reveal().encode(), identity.encode())
        return Sealed(self._newest, nonce + box)

    def open(self, sealed: Sealed, identity: str) -> Secret:
        """The token that was sealed for this row.

        Raises:
            StoreFailed: its key is lost, or it is not what was sealed for this row.
        """
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise StoreFailed(
                f"The token was sealed under a secret key that this gate does not have (key id {sealed.key_id}).",
                remedy="Put that key back, after the newest one, or give the token again.",
            )
        nonce, box = sealed.box[:_NONCE_BYTES], sealed.box[_NONCE_BYTES:]
        try:
            return Secret(cipher.decrypt(nonce, box, identity.encode()).decode())
        except (InvalidTag, ValueError):
            raise StoreFailed(
                "The sealed token does not open: it was changed, or moved here from another endpoint.",
                remedy="Restore the database from a copy, or give the token again.",
            ) from None

    def reseal(self, sealed: Sealed, identity: str) -> Sealed:
        """The same token under the newest key.

        Raises:
            StoreFailed: it cannot be opened.
        """
        return self.seal(self.open(sealed, identity), identity)

    def rotate(self) -> None:
        """Make a new newest key, on disk before anything is sealed under it. The old ones stay.

        Raises:
            StoreFailed: the keys come from the environment, or the key file cannot be written.
        """
        if self._file is None:
            raise StoreFailed(
                "Every token is sealed under the newest key of HUBGATE_SECRET_KEY, and the gate cannot change its "
                "own environment.",
                remedy="Put a new key in front of the old one with a comma between, start the gate again, and rotate "
                f"again; then the old key can go. This makes a key: {NEW_KEY}",
            )
        key = secrets.token_urlsafe(32)
        try:
            write_private(self._file, f"{_HEADER}{key}\n{_read(self._file).removeprefix(_HEADER)}".encode())
        except OSError as error:
            raise _file_failed(self._file, error) from error
        self._newest_raw = _raw(key)
        self._newest, cipher = _cipher(key)
        self._ciphers[self._newest] = cipher


def _cipher(key: str) -> tuple[str, AESGCM]:
    """The key's id, from which it cannot be guessed, and its cipher."""
    raw = _raw(key)
    return hashlib.sha256(b"hubgate key id" + raw).hexdigest()[:8], AESGCM(raw)


def _raw(key: str) -> bytes:
    raw = base64.b64decode(key + "=" * (-len(key) % 4), altchars=b"-_", validate=True)
    if len(raw) != 32:
        raise ValueError("not 32 bytes")
    return raw


def _make(file: Path) -> None:
    create_private_folder(file.parent)
    with contextlib.suppress(FileExistsError):  # another process was first; its key is as good
        write_private(file, f"{_HEADER}{secrets.token_urlsafe(32)}\n".encode(), new=True)


def _read(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StoreFailed(
                f"The secret key file {file} can be read by other users.", remedy=f"Run: chmod 600 {file}"
            )
        return opened.read()


def _file_failed(file: Path, error: OSError) -> StoreFailed:
    return StoreFailed(
        f"The secret key file {file} cannot be used: {error.strerror or error}.",
        remedy="Give the gate's user a place where it may write, by HUBGATE_SECRET_KEY_FILE, or set HUBGATE_SECRET_KEY.",
    )
