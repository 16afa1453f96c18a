"""An object store: S3, Google Cloud Storage, Azure, or what speaks as S3. Needs obstore: the extra `[objects]`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import from_url

from hubgate.features.bulk.batches.model import StoredObject

_CHUNK_BYTES = 4 << 20
_CHUNKS_AT_ONCE = 4
_CLIENT = {
    "allow_http": True,  # if the operator has set such an endpoint
    "connect_timeout": "10s",
    "read_timeout": "30s",
    "timeout": "10m",  # of a whole download
}


class ObjectStorage:
    """The objects below a URL such as `s3://bucket/folder`; an `Objects`. Credentials come from the environment.

    Args:
        url: of the folder.

    Raises:
        OSError: the URL cannot be used.
    """

    def __init__(self, url: str) -> None:
        with _errors():
            self._store = from_url(url, client_options=_CLIENT) if "file:" not in url else from_url(url)

    def create(self, name: str, content: bytes) -> bytes:
        with _errors():
            try:
                obstore.put(self._store, name, content, mode="create")
            except AlreadyExistsError:
                return bytes(obstore.get(self._store, name).bytes())
        return content

    def put(self, name: str, content: Path | bytes) -> None:
        with _errors():
            obstore.put(self._store, name, content, chunk_size=_CHUNK_BYTES, max_concurrency=_CHUNKS_AT_ONCE)

    def get(self, name: str) -> Iterator[bytes]:
        with _errors():
            for data in obstore.get(self._store, name).stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(data)

    def list(self, folder: str | None = None) -> Sequence[StoredObject]:
        with _errors():
            return [
                StoredObject(found["path"], found["size"], found["last_modified"].timestamp())
                for page in obstore.list(self._store, folder, chunk_size=1000)
                for found in page
            ]

    def delete(self, names: Sequence[str]) -> None:
        with _errors():
            for name in names:
                with contextlib.suppress(NotFoundError, FileNotFoundError):
                    obstore.delete(self._store, name)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, _message(error)) from error
    except BaseError as error:
        raise OSError(errno.EIO, _message(error)) from error


def _message(error: Exception) -> str:
    return f"the object store answered: {str(error).partition(chr(10))[0][:200]}"
