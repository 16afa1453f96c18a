"""The compose files, checked against the schema that docker-compose 1.29 shipped. `make test-deploy` installs it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "deploy-tools" / "python" / "bin" / "python"
VALIDATE = """
import json, sys
from importlib.metadata import files
from jsonschema import Draft7Validator
schema, = [one for one in files("docker-compose") if one.name == "compose_spec.json"]
validator = Draft7Validator(json.loads(schema.locate().read_text()))
print(*(f"{list(error.path)}: {error.message[:200]}" for error in validator.iter_errors(json.load(sys.stdin))), sep="\\n")
"""


def errors_of(compose: object) -> str:
    if not PYTHON.exists():
        pytest.skip("the schema is not installed: `make test-deploy` installs it")
    done = subprocess.run(
        [PYTHON, "-c", VALIDATE],
        input=json.dumps(compose),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["compose.yaml", "compose.scale.yaml"])
def test_compose_file_matches_the_schema(name: str) -> None:
    compose = yaml.safe_load((ROOT / name).read_text("utf-8"))
    compose.pop("name", None)  # newer than the schema
    assert errors_of(compose) == ""
    next(iter(compose["services"].values()))["restarts"] = "always"
    assert "restarts" in errors_of(compose), "a misspelt key is found"


@pytest.mark.parametrize("name", ["compose.yaml", "compose.scale.yaml"])
def test_services_have_no_rights_and_a_memory_limit(name: str) -> None:
    services = yaml.safe_load((ROOT / name).read_text("utf-8"))["services"]
    for service, one in services.items():
        assert one["read_only"] is True, service
        assert one["cap_drop"] == ["ALL"], service
        assert one["security_opt"] == ["no-new-privileges:true"], service
        assert any("tmp:size=" in place for place in one["tmpfs"]), service
        assert one["mem_limit"], service
        assert not {"cap_add", "privileged", "pid", "network_mode"} & set(one), service
        is_own = "build" in one  # the Dockerfile names a user who is not root
        assert is_own or one["user"] not in {"root", "0"}, service


def test_the_image_writes_below_its_volumes_only() -> None:
    """Its root is read-only: without HF_HOME, models would be downloaded to the home folder of the user."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    volumes = json.loads(re.search(r"^VOLUME (.*)$", text, re.MULTILINE)[1])  # type: ignore[index]
    for setting in ("HUBGATE_HOME", "HUBGATE_SECRET_KEY_FILE", "HF_HOME"):
        assert any(f" {setting}={volume}" in text for volume in volumes), setting
    assert re.search(r"^USER [1-9]", text, re.MULTILINE)


def test_valkey_requires_the_password_that_gateways_send() -> None:
    services = yaml.safe_load((ROOT / "compose.scale.yaml").read_text("utf-8"))["services"]
    command = services["valkey"]["command"]
    assert command[command.index("--requirepass") + 1] == "${VALKEY_PASSWORD:?}"
    for name in ("gateway-1", "gateway-2", "gateway-3"):
        environment = services[name]["environment"]
        assert environment["HUBGATE_CACHE_URL"].startswith("valkey://:${VALKEY_PASSWORD:?}@valkey:6379/")
