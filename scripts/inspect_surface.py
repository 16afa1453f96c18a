"""Runs inside a revision of hubgate for `compare_surface.py`: serves, and writes down what only its process can show."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

PARAMETER_ATTRIBUTES = (
    "required",
    "min",
    "max",
    "default",
    "nargs",
    "multiple",
    "is_flag",
    "hidden",
    "envvar",
)
Routes = list[tuple[str, list[str]]]


def main(output: Path) -> None:
    """Serve, and write the file once requests are answered."""
    package = importlib.import_module("hubgate")
    assert Path(str(package.__file__)).is_relative_to(Path.cwd()), f"{package.__file__} is another revision"
    routes = _record_routes()
    threading.Thread(target=_write_when_ready, args=(output, routes), daemon=True).start()
    importlib.import_module("hubgate.cli").main(["serve"])


def _record_routes() -> Routes:
    """The path and methods of every Starlette route that is made from now on."""
    routes: Routes = []
    route = importlib.import_module("starlette.routing").Route
    original: Callable[..., None] = route.__init__

    def record(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        routes.append((self.path, sorted(self.methods or ["GET"])))

    route.__init__ = record
    return routes


def _write_when_ready(output: Path, routes: Routes) -> None:
    try:
        url = f"http://127.0.0.1:{os.environ['HUBGATE_PORT']}/healthz"
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                break
            time.sleep(0.1)
        found = {
            "routes": routes,
            "handlers": sorted(_handler_paths()),
            "commands": dict(_commands()),
            "settings": _settings(),
            "causes": sorted(importlib.import_module("hubgate.domain.errors").Cause),
        }
        temporary = output.with_suffix(".part")
        temporary.write_text(json.dumps(found), "utf-8")
        temporary.rename(output)
    except Exception:  # noqa: BLE001 - the whole process must end, or its caller waits
        traceback.print_exc()
        os._exit(1)


def _handler_paths() -> Iterator[str]:
    """The paths of routes that are found in dictionaries, whatever object holds these."""
    for known in gc.get_objects():
        if type(known) is dict and known and all(isinstance(key, str) for key in known):
            values = list(known.values())
            functions = [value.func if isinstance(value, partial) else value for value in values]
            modules = [getattr(function, "__module__", None) for function in functions]
            if all(callable(v) and not isinstance(v, type) for v in values) and all(
                isinstance(m, str) and m.startswith("hubgate.web") for m in modules
            ):
                yield from (key.strip("/") for key in known if re.fullmatch(r"[\w/]*", key))


def _commands() -> Iterator[tuple[str, dict[str, Any]]]:
    typer = importlib.import_module("typer")
    app = importlib.import_module("hubgate.cli.main").app
    yield from _command_tree("hubgate", typer.main.get_command(app))


def _command_tree(path: str, command: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    parameters: dict[str, dict[str, str]] = {}
    for one in command.params:
        known: dict[str, Any] = {name: getattr(one, name, None) for name in PARAMETER_ATTRIBUTES}
        known["type"] = re.sub(r" at 0x\w+", "", str(one.type))
        is_option = one.opts[0].startswith("-")
        known |= {"opts": sorted(one.opts), "secondary_opts": sorted(one.secondary_opts)} if is_option else {}
        parameters["/".join(sorted(one.opts)) if is_option else f"argument {len(parameters)}"] = {
            "structure": json.dumps(known, default=str, sort_keys=True),
            "words": str(getattr(one, "help", "")),
        }
    yield path, {"parameters": parameters, "help": command.help or ""}
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _command_tree(f"{path} {name}", child)


def _settings() -> dict[str, str]:
    module = importlib.import_module("hubgate.settings")
    settings = module.Settings.from_env({"HOME": "/home/nobody"})
    values = {name: repr(getattr(settings, name)) for name in settings.__dataclass_fields__}
    source = Path(str(module.__file__)).read_text("utf-8")
    return values | dict.fromkeys(
        re.findall(r'"((?:HUBGATE|HF)_[A-Z_]+)"', source), "read from the environment"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
