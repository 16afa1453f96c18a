"""nginx, twice: as the model server behind everything, and as the plain proxy that is the limit of what a gateway can do."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import struct
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from support.loopback import free_port, wait_for
from support.machine import program
from support.processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL, LARGE = 384, 1024
"""The dimensions of the canned models."""
_VECTORS = 96
_HERE = Path(__file__).parent

_COMMON = """
{modules}
worker_processes 1;
master_process off;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
"""
_HTTP = """
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    tcp_nodelay on;
"""
_UPSTREAM = """
http {{
    {http}
    access_log off;
    lua_package_path "{here}/?.lua;;";
    init_by_lua_block {{
        canned = require "canned"
        for _, dimensions in ipairs({{ {dimensions} }}) do canned.load("{folder}", dimensions) end
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /health {{ return 200; }}
        location ~ ^/(tei|vllm)/\\d+/health$ {{ return 200; }}
        location ~ ^/tei/\\d+/info$ {{ default_type application/json; return 200 '{info}'; }}
        location ~ ^/tei/(\\d+)/embed$ {{ content_by_lua_block {{ canned.answer("tei", tonumber(ngx.var[1])) }} }}
        location ~ ^/tei/(\\d+)/v1/embeddings$ {{ content_by_lua_block {{ canned.answer("openai", tonumber(ngx.var[1])) }} }}
        location = /llm/v1/models {{ default_type application/json; return 200 '{models}'; }}
        location = /llm/openapi.json {{ default_type application/json; return 200 '{openapi}'; }}
        location = /llm/v1/chat/completions {{ content_by_lua_block {{ canned.chat() }} }}
        location ~ ^/vllm/\\d+/v1/models$ {{ default_type application/json; return 200 '{models}'; }}
        location ~ ^/vllm/(\\d+)/v1/embeddings$ {{ content_by_lua_block {{ canned.answer("openai", tonumber(ngx.var[1])) }} }}
        location ~ ^/vllm/\\d+/v1/chat/completions$ {{ content_by_lua_block {{ canned.chat() }} }}
    }}
}}
"""
_PROXY = """
http {{
    {http}
    log_format gate '$time_iso8601 $remote_addr "$request" $status $request_time $body_bytes_sent';
    access_log {folder}/access.log gate;
    upstream model {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffers 32 64k;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"""
_INFO = {
    "model_id": "canned",
    "model_sha": None,
    "model_dtype": "float32",
    "served_model_name": "canned",
    "model_type": {"embedding": {"pooling": "mean"}},
    "max_concurrent_requests": 512,
    "max_input_length": 512,
    "max_batch_tokens": 65536,
    "max_client_batch_size": 256,
    "auto_truncate": True,
    "tokenization_workers": 1,
    "version": "1.9.3",
}
_MODEL = {"id": "canned", "object": "model", "owned_by": "vllm", "root": "canned", "max_model_len": 512}


@contextmanager
def upstream(folder: Path, core: int) -> Iterator[tuple[str, Process]]:
    """A model server that answers at once: TEI's routes, and vLLM's, for embeddings and for chats.

    They are at `/tei/{dimensions}`, `/vllm/{dimensions}` and `/llm`.

    Texts must begin with `Text `, so that it can count them; those with `Text slow` take a tenth of a second.
    """
    folder.mkdir()
    for dimensions in (SMALL, LARGE):
        _write_vectors(folder, dimensions)
    config = _UPSTREAM.format(
        http=_HTTP.format(folder=folder),
        here=_HERE,
        folder=folder,
        dimensions=f"{SMALL}, {LARGE}",
        port=(port := free_port()),
        info=json.dumps(_INFO),
        models=json.dumps({"object": "list", "data": [_MODEL]}),
        openapi=json.dumps({"paths": {"/v1/chat/completions": {}}}),
    )
    with _run(folder, config, port, core, _modules()) as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def proxy(folder: Path, core: int, upstream_url: str) -> Iterator[tuple[str, Process]]:
    """A plain proxy before it, with kept connections and an access log, and nothing else."""
    folder.mkdir()
    config = _PROXY.format(
        http=_HTTP.format(folder=folder),
        folder=folder,
        upstream=upstream_url.rpartition(":")[2],
        port=(port := free_port()),
    )
    with _run(folder, config, port, core) as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def _run(folder: Path, config: str, port: int, core: int, modules: str = "") -> Iterator[Process]:
    path = folder / "nginx.conf"
    path.write_text(_COMMON.format(folder=folder, modules=modules) + config)
    command = [program("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(path)]
    with Process(command, core=core, output=folder / "output.log") as process:
        wait_for(f"http://127.0.0.1:{port}/health", process.check)
        yield process


def _modules() -> str:
    """The lines that load nginx's Lua, from the folder it was built for."""
    built = subprocess.run([program("nginx"), "-V"], capture_output=True, text=True, check=True).stderr
    told = re.search(r"--modules-path=(\S+)", built)
    folders = [told[1]] if told else []
    for folder in (*folders, "/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"):
        if Path(folder, "ngx_http_lua_module.so").exists():
            names = ("ndk_http_module", "ngx_http_lua_module")
            return "\n".join(f"load_module {folder}/{name}.so;" for name in names)
    raise SystemExit(
        "The canned upstream needs nginx's Lua module. On Debian or Ubuntu: apt-get install libnginx-mod-http-lua"
    )


def _write_vectors(folder: Path, dimensions: int) -> None:
    """Random directions of length 1, one a line, with as many digits as TEI writes."""
    random.seed(dimensions)
    with (
        (folder / f"{dimensions}.json").open("w") as texts,
        (folder / f"{dimensions}.base64").open("w") as b64,
    ):
        for _ in range(_VECTORS):
            numbers = [random.gauss(0, 1) for _ in range(dimensions)]
            length = math.hypot(*numbers)
            singles = struct.pack(f"<{dimensions}f", *(number / length for number in numbers))
            texts.write("[" + ",".join(f"{x:.8g}" for x in struct.unpack(f"<{dimensions}f", singles)) + "]\n")
            b64.write('"' + base64.b64encode(singles).decode() + '"\n')
