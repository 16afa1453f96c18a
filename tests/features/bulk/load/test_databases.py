"""The URL of `--to` is checked before its client is imported, and not shown, as it may contain a password."""

from __future__ import annotations

import pytest

from hubgate.features.bulk.engine.rows import JobStopped
from hubgate.features.bulk.load.databases import open_target


@pytest.mark.parametrize("url", ["mysql://user:s3cret@host", "user:s3cret@host", "pgvector://"])
def test_an_unknown_database_is_refused(url: str) -> None:
    with pytest.raises(JobStopped, match="is not the URL of a known database") as refused:
        open_target(url, "t", None)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["qdrant", "qdrant+https"])
def test_credentials_that_would_not_be_sent_are_refused(scheme: str) -> None:
    with pytest.raises(JobStopped, match="no user name") as refused:
        open_target(f"{scheme}://user:s3cret@127.0.0.1:6333", "t", None)
    assert "s3cret" not in str(refused.value)
