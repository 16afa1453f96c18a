"""Compares the public surface of two revisions of hubgate: `compare_surface.py OLD [NEW]`.

Checks out both revisions, starts each with the packages of this environment and the same model servers behind it, and
compares the command line, the settings, the database schema, the locale keys, every route and its replies (status,
headers, shape of the body). A difference in structure is an error; changed wording is only listed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "fuzz")]
from lookalikes import lookalike  # noqa: E402
from lookalikes.hub_api import running_hub_api  # noqa: E402
from routes import CALLED, CONSOLE_FORM, ELASTIC_ENDPOINT  # noqa: E402

ADMIN_KEY = "an-admin-key-for-the-comparison"
MODELS = {
    "e5": ("tei", "embedding", "text_embedding"),
    "sparse": ("tei", "sparse", "sparse_embedding"),
    "ranker": ("tei", "reranker", "rerank"),
    "chat": ("vllm", "llm", "chat_completion"),
    "text": ("tgi", "llm", "completion"),
}
METHODS = ("GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "DELETE")
COMPARED_HEADERS = (
    "content-type",
    "allow",
    "location",
    "x-hubgate-cause",
    "x-should-retry",
    "www-authenticate",
)
HTML_ATTRIBUTES = ("id", "type", "name", "value", "action", "method", "formaction", "href", "src", "for")
ELASTIC_CALLS = (
    "_inference/NAME",
    "_inference/TASK/NAME",
    "_inference/NAME/_stream",
    "_inference/TASK/NAME/_stream",
)
PROSE = {"description", "summary", "title"}
LAST = re.compile(r"/(delete|forget|revoke|disable|sign-out|config)$")
START_SECONDS = 60.0


Inside = Mapping[str, Any]
"""What `inspect_surface.py` wrote down."""


class Request(NamedTuple):
    method: str
    path: str
    body: str = ""


@dataclass
class Surface:
    """Structure must be equal; words may change."""

    structure: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    def add_json(self, path: str, value: Any) -> None:
        """The shape of a JSON value: keys, types, and strings that look like identifiers."""
        if isinstance(value, dict):
            names = value.keys() - PROSE if path.startswith("openapi") else value.keys()
            self.structure[path] = f"{{{', '.join(sorted(map(_stable, names)))}}}"
            for name, item in value.items():
                self.add_json(f"{path}.{_stable(name)}", item)
        elif isinstance(value, list):
            self.structure[path] = "[]" if not value else "[…]"
            for index, item in enumerate(value if len(value) < 100 else value[:1]):
                self.add_json(f"{path}[{index}]", item)
        elif isinstance(value, str) and path.rpartition(".")[2] in PROSE:
            self.words[path] = _stable(value)
        elif isinstance(value, str) and not re.fullmatch(r"[\w./:-]*", value):
            self.structure[path] = "text"
            self.words[path] = _stable(value)
        elif isinstance(value, str):
            self.structure[path] = repr(_stable(value))
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self.structure[path] = "number" if number else repr(value)


def _stable(text: str) -> str:
    """Without what differs from run to run: versions, ids, times, ports, folders."""
    text = re.sub(r"/tmp/[\w./-]*", "/tmp/…", text)  # noqa: S108 - a pattern
    text = re.sub(r"\b[0-9a-f]{8,}(-[0-9a-f]{4,})*\b|\b(hg|req|chatcmpl|cmpl)[-_][\w-]{6,}", "<id>", text)
    return re.sub(r"\d+(\.\d+)*( seconds?\b)?", "#", text)


class _Page(HTMLParser):
    """The structure of an HTML page (forms, fields, links) and its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.marks: list[str] = []
        self.words: list[str] = []
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "style"}:
            self._hidden += 1
        known = dict(attrs)
        if known.get("name") == "csrf":
            known["value"] = ""
        kept = {
            name: _stable(value or "")
            for name, value in known.items()
            if name in HTML_ATTRIBUTES or name.startswith("hx-")
        }
        kept.pop("hx-headers", None)
        if kept:
            self.marks.append(f"<{tag} {' '.join(f'{n}={v!r}' for n, v in sorted(kept.items()))}>")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in {"script", "style"}

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._hidden:
            self.words.append(_stable(" ".join(data.split())))


class Revision:
    """One revision that runs, with a model server of each kind behind it."""

    def __init__(self, source: Path, folder: Path, servers: Mapping[str, str], hub: str) -> None:
        self.source = source
        self.servers = servers
        self.home = folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("HUBGATE_", "HF_"))
        }
        self.env |= {
            "PYTHONPATH": str(source / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(folder),
            "HUBGATE_HOME": str(self.home),
            "HUBGATE_PORT": str(self.port),
            "HUBGATE_ADMIN_KEY": ADMIN_KEY,
            "HUBGATE_LOCAL_IDLE_SECONDS": "3600",  # the local model is not loaded at the start
            "HF_ENDPOINT": hub,
            "HUBGATE_ENDPOINTS_API_URL": hub,
            "HF_HUB_OFFLINE": "1",
        }
        self.output = folder / "inside.json"
        self.cookie, self.csrf = "", ""

    @contextmanager
    def running(self) -> Iterator[Inside]:
        """Run it; gives what `inspect_surface.py` wrote down."""
        command = [sys.executable, str(ROOT / "scripts" / "inspect_surface.py"), str(self.output)]
        with (self.output.with_suffix(".log")).open("wb") as log:
            process = subprocess.Popen(command, env=self.env, cwd=self.source, stdout=log, stderr=log)
        try:
            end = time.monotonic() + START_SECONDS
            while not self.output.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(self.output.with_suffix(".log").read_text("utf-8")[-4000:])
                time.sleep(0.1)
            yield json.loads(self.output.read_text("utf-8"))
        finally:
            process.kill()
            process.wait()

    def prepare(self) -> None:
        """Register the models, and sign in to the console."""
        for name, (_, _, task) in MODELS.items():
            form = {"name": name, "url": self.servers[name], "task": task}
            status, _, body = self.send("POST", "/api/endpoints", json.dumps(form).encode())
            assert status == 201, body
        _, headers, body = self.send("GET", "/ui/sign-in")
        form = {"csrf": _token_in(body), "key": ADMIN_KEY}
        cookies = [headers.get("set-cookie", "")]
        self.cookie = "; ".join(cookie.partition(";")[0] for cookie in cookies if cookie)
        _, headers, _ = self.send("POST", "/ui/sign-in", urllib.parse.urlencode(form).encode())
        self.cookie = headers["set-cookie"].partition(";")[0]
        self.csrf = _token_in(self.send("GET", "/ui/settings")[2])

    def send(
        self, method: str, path: str, body: bytes | None = None, *, key: str | None = ADMIN_KEY
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        headers = {"content-type": "application/json"}
        if path.startswith("/ui"):
            headers = {"content-type": "application/x-www-form-urlencoded"}
            headers |= {"cookie": self.cookie} if key and self.cookie else {}
        elif key:
            headers["authorization"] = f"Bearer {key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()


def _token_in(body: bytes) -> str:
    found = re.search(rb'name="csrf" value="([^"]+)"', body)
    return found[1].decode() if found else ""


def requests_for(inside: Sequence[Inside]) -> list[Request]:
    """Every request that is sent to both revisions: every route that either of them serves, with every method."""
    handlers = {path for one in inside for path in one["handlers"]}
    paths = handlers | {f"hf/NAME/{path}".rstrip("/") for path in handlers} | set(ELASTIC_CALLS)
    calls = [
        Request("POST", "/" + path.replace("NAME", name).replace("TASK", MODELS[name][2]), json.dumps(body))
        for path in paths
        for name, bodies in CALLED.items()
        for body in ({}, *bodies)
    ]
    routes = {(path, method) for one in inside for path, methods in one["routes"] for method in methods}
    others = []
    for path in {path for path, _ in routes} | {f"/{path}" for path in handlers}:
        filled = re.sub(r"\{task\}", "text_embedding", path)
        filled = re.sub(r"\{file\}", "console.css", filled)
        filled = re.sub(r"\{\w+(:path)?\}", "e5", filled)
        for method in METHODS:
            if (path, method) in routes and method not in {"GET", "HEAD", "OPTIONS"}:
                write = urllib.parse.urlencode if path.startswith("/ui") else json.dumps
                others += [Request(method, filled, write(body)) for body in (CONSOLE_FORM, ELASTIC_ENDPOINT)]
            others.append(Request(method, filled))
    # What deletes comes last.
    return sorted(
        {*calls, *others}, key=lambda one: (bool(LAST.search(one.path)), one.method == "DELETE", one)
    )


def surface_of(revision: Revision, inside: Inside, requests: Sequence[Request]) -> Surface:
    """All that can be seen of a revision."""
    found = Surface()
    for name, command in inside["commands"].items():
        found.structure[f"command {name}"] = "exists"
        found.words[f"command {name}"] = command["help"]
        for parameter, known in command["parameters"].items():
            found.structure[f"command {name} {parameter}"] = known["structure"]
            found.words[f"command {name} {parameter}"] = known["words"]
    found.structure |= {f"setting {name}": value for name, value in inside["settings"].items()}
    found.structure["error causes"] = " ".join(inside["causes"])
    found.structure |= {f"route {method} {path}": "served" for path, ms in inside["routes"] for method in ms}
    for file in sorted(revision.source.rglob("src/hubgate/web/console/locales/*.json")):
        keys = json.loads(file.read_text("utf-8"))
        found.words |= {
            f"locale {file.name} {key}": str(text) for key, text in keys.items() if "en." in file.name
        }
    revision.prepare()
    found.add_json("openapi", json.loads(revision.send("GET", "/api/openapi.json")[2]))
    _add_schema(found, revision.home / "hubgate.db")
    for request in requests:
        if request.path == "/api/openapi.json":
            continue
        for key in (None, ADMIN_KEY):
            body = request.body
            if request.path.startswith("/ui") and request.method == "POST" and key:
                body += "&" + urllib.parse.urlencode({"csrf": revision.csrf})
            name = f"{' '.join(request)[:300]} {'with' if key else 'without'} key"
            try:
                reply = revision.send(request.method, request.path, body.encode(), key=key)
                _add_reply(found, name, *reply)
            except (OSError, http.client.HTTPException) as error:
                found.structure[name] = f"no reply: {type(error).__name__}"
    return found


def _add_schema(found: Surface, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
            found.structure[f"database {kind} {name}"] = " ".join((sql or "").split())


def _add_reply(found: Surface, name: str, status: int, headers: dict[str, str], body: bytes) -> None:
    kept = {one: _stable(headers[one]) for one in COMPARED_HEADERS if one in headers}
    found.structure[name] = f"{status} {kept}"
    content = headers.get("content-type", "")
    text = body.decode("utf-8", "replace")
    if "json" in content and body:
        found.add_json(name, json.loads(body))
    elif "event-stream" in content:
        for index, line in enumerate(text.splitlines()):
            data = line.removeprefix("data:").strip()
            if data.startswith("{"):
                found.add_json(f"{name} event {index}", json.loads(data))
    elif "html" in content:
        page = _Page(text)
        found.structure[f"{name} page"] = "\n".join(page.marks)
        found.words[f"{name} page"] = "\n".join(page.words)
    elif "/metrics" in name:
        families = sorted(set(re.findall(r"^# TYPE (\S+ \S+)", text, re.MULTILINE)))
        found.structure[f"{name} families"] = "\n".join(families)
    elif "static" not in name:
        found.words[f"{name} body"] = _stable(text)


def compare(old: Surface, new: Surface, *, all_words: bool) -> int:
    """Print what differs; gives the number of differences in structure."""
    differing = 0
    for name in sorted(old.structure.keys() | new.structure.keys()):
        before, after = old.structure.get(name), new.structure.get(name)
        if before != after:
            differing += 1
            print(f"STRUCTURE {name}")
            _print_change(before, after)
    changed: dict[tuple[str, str], int] = {}
    for name in old.words.keys() & new.words.keys():
        pair = (old.words[name], new.words[name])
        if pair[0] != pair[1]:
            changed[pair] = changed.get(pair, 0) + 1
    print(f"\n{len(changed)} changed wordings")
    for (before, after), count in sorted(changed.items()) if all_words else ():
        print(f"WORDS ({count} places)")
        _print_change(before, after)
    print(
        f"\n{len(old.structure)} → {len(new.structure)} facts compared, {differing} differences in structure"
    )
    return differing


def _print_change(before: str | None, after: str | None) -> None:
    if before is None or after is None:
        print(f"  only in {'the new' if before is None else 'the old'} one: {(after or before or '')[:300]}")
        return
    old_lines, new_lines = before.splitlines() or [""], after.splitlines() or [""]
    for sign, lines, others in (("-", old_lines, new_lines), ("+", new_lines, old_lines)):
        for line in [line for line in lines if line not in others][:10]:
            print(f"  {sign} {line[:400]}")


@contextmanager
def checked_out(revision: str | None, folder: Path) -> Iterator[Path]:
    """A revision's files; without a revision, those of this working tree."""
    if revision is None:
        yield ROOT
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def main() -> int:
    """Compare two revisions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", help="default: this working tree")
    parser.add_argument("--words", action="store_true", help="list changed wordings too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        hub = stack.enter_context(running_hub_api()).url
        servers = {
            name: stack.enter_context(lookalike(engine, kind=kind)).url
            for name, (engine, kind, _) in MODELS.items()
        }
        both = []
        for label, revision in (("old", options.old), ("new", options.new)):
            source = stack.enter_context(checked_out(revision, folder / label / "source"))
            (folder / label / "home").mkdir(parents=True)
            both.append(Revision(source, folder / label / "home", servers, hub))
        inside = [stack.enter_context(one.running()) for one in both]
        requests = requests_for(inside)
        surfaces = [surface_of(one, known, requests) for one, known in zip(both, inside, strict=True)]
    return 1 if compare(*surfaces, all_words=options.words) else 0


if __name__ == "__main__":
    raise SystemExit(main())
