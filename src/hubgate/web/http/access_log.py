"""The access log: one line a request."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from urllib.parse import quote

from hubgate.web.http.request_context import RequestContext

_MAX_LOGGED_PATH = 200
# Printable ASCII without the characters that separate or quote fields of a log line.
_LOG_SAFE = re.compile(r"[!#$&-<>-~]+")
_UNQUOTED = "/:@!$&'()*+,;"

ACCESS_LOG = "hubgate.access"
"""The name of its logger."""

_log = logging.getLogger(ACCESS_LOG)


class LineHandler(logging.Handler):
    """A handler that needs no records: making and passing on one takes four times as long as writing the line."""

    def write_info(self, name: str, message: str) -> None:
        """Write what would be a record of level INFO. To be called on the event loop."""
        raise NotImplementedError


def log_request(method: str, path: str, context: RequestContext, seconds: float) -> None:
    if not _log.isEnabledFor(logging.INFO):
        return
    key = context.key
    message = (
        f"{method} {_log_safe(path[:_MAX_LOGGED_PATH])} {context.status} {seconds * 1000:.1f}ms "
        f"id={context.request_id} client={context.client} key={key.id if key else context.refused_key} "
        f"endpoint={context.endpoint or '-'} texts={context.texts} cause={context.cause}"
    )
    handlers = _log.handlers
    if len(handlers) == 1 and not _log.propagate and isinstance(handlers[0], LineHandler):
        handlers[0].write_info(ACCESS_LOG, message)
    else:
        _log.info("%s", message)


@lru_cache(maxsize=1024)
def _log_safe(path: str) -> str:
    """The path, percent-encoded if it could be read as another field of the log line."""
    return path if _LOG_SAFE.fullmatch(path) else quote(path, _UNQUOTED, errors="replace") or "-"
