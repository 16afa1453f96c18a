"""One worker of `hubgate serve --workers N`: a gateway with a home and a port of its own, and a port that all share.

`python -m hubgate.cli.server.worker`, started by `workers`. The first line of its input is its `Assignment`; when the
input ends, the process that started it is gone, and it stops. It prints one `Started` once it serves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

from hubgate.cli.server.assignment import Assignment
from hubgate.settings import InvalidSetting, Settings

if TYPE_CHECKING:
    import uvicorn

    from hubgate.web.app import Application


class Started(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    """Of this worker alone."""
    first_admin_key: str | None


def main() -> int:
    """Serve until stopped; returns the exit status."""
    from hubgate.cli.server.serve import run_until_stopped
    from hubgate.domain.errors import HubgateError

    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    assignment = msgspec.json.decode(line, type=Assignment)

    def started(url: str, gate: Application, _: uvicorn.Server) -> None:
        print(
            msgspec.json.encode(Started(url=url, first_admin_key=gate.first_admin_key)).decode(), flush=True
        )
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads on
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _stop_at_end, gate)

    try:
        run_until_stopped(
            assignment.settings(Settings.from_env()),
            started,
            label=f"worker-{assignment.number} ",
            shared=assignment,
        )
    except (HubgateError, InvalidSetting) as error:
        print(f"hubgate: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _stop_at_end(gate: Application) -> None:
    if os.read(sys.stdin.fileno(), 1024):
        return
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    if not gate.gateway.draining:  # a second signal would cancel its calls
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
