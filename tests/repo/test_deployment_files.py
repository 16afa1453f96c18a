"""The files in `deploy/` and the compose files use settings that exist, in agreement with each other."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubgate.settings import Settings

ROOT = Path(__file__).parents[2]
DRAIN_SECONDS = Settings.from_env({}).drain_seconds
CHART = ROOT / "deploy" / "helm" / "hubgate"
SETTINGS = set(
    re.findall(r'"((?:HUBGATE|HF)_[A-Z_]+)"', (ROOT / "src/hubgate/settings.py").read_text("utf-8"))
)
LIBRARIES = {"HF_HOME", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"}
SECRETS = {
    "HUBGATE_WEBHOOK_URL",
    "HUBGATE_WEBHOOK_SECRET",
    "HUBGATE_ADMIN_KEY",
    "HUBGATE_SECRET_KEY",
    "HUBGATE_DATABASE_URL",
    "HUBGATE_CACHE_URL",
}


def files() -> list[Path]:
    deployed = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    return [*deployed, ROOT / "compose.yaml", ROOT / "compose.scale.yaml", ROOT / "Dockerfile"]


def names_in(path: Path) -> set[str]:
    return set(re.findall(r"\b(?:HUBGATE|HF)_[A-Z_]*[A-Z]\b", path.read_text("utf-8")))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_a_deployment_file_names_exists(path: Path) -> None:
    assert names_in(path) <= SETTINGS | LIBRARIES


def test_the_chart_accepts_every_setting_in_exactly_one_place() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    accepted = set(schema["properties"]["settings"]["properties"])
    templates = [path for path in (CHART / "templates").rglob("*") if path.is_file()]
    set_by_chart = set().union(*(names_in(path) for path in templates)) - {"HF_HOME"}
    assert set_by_chart >= SECRETS
    assert accepted & set_by_chart == set()
    missing = SETTINGS - {"HUBGATE_SECRET_KEY_FILE"} - set_by_chart - accepted
    assert missing == set(), "add these to `settings` in deploy/helm/hubgate/values.schema.json"


def test_the_schema_of_the_chart_describes_every_value() -> None:
    """And nothing else, so that Helm refuses a misspelt value."""

    def compare(values: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        assert schema["additionalProperties"] is False, where
        assert set(values) == set(schema["properties"]) - {"global"}, where
        for name, value in values.items():
            inner = schema["properties"][name]
            if value and isinstance(value, dict) and "properties" in inner and name != "settings":
                compare(value, inner, f"{where}.{name}")

    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    compare(yaml.safe_load((CHART / "values.yaml").read_text("utf-8")), schema, "values")


def test_compose_gateways_are_those_of_nginx_and_addresses_agree() -> None:
    compose = yaml.safe_load((ROOT / "compose.scale.yaml").read_text("utf-8"))
    services = compose["services"]
    gateways = {name for name in services if name.startswith("gateway-")}
    conf = (ROOT / "deploy/nginx/nginx.conf").read_text("utf-8")
    assert set(re.findall(r"server (\S+):8080", conf)) == gateways == set(services["nginx"]["depends_on"])
    subnet = ip_network(compose["networks"]["default"]["ipam"]["config"][0]["subnet"])
    addresses = {name: services[name]["networks"]["default"]["ipv4_address"] for name in (*gateways, "nginx")}
    assert len(set(addresses.values())) == len(addresses)
    assert all(ip_address(address) in subnet for address in addresses.values())
    for name in gateways:
        environment = services[name]["environment"]
        assert environment["HUBGATE_TRUSTED_PROXIES"] == addresses["nginx"]
        patience = int(services[name]["stop_grace_period"].removesuffix("s"))
        assert patience >= int(environment["HUBGATE_DRAIN_DELAY"]) + DRAIN_SECONDS + 10
    (service,) = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"].values()
    assert int(service["stop_grace_period"].removesuffix("s")) >= DRAIN_SECONDS + 10
    unit = (ROOT / "deploy/systemd/hubgate.service").read_text("utf-8")
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) >= 20 + DRAIN_SECONDS + 10
    used = {volume.split(":")[0] for one in services.values() for volume in one.get("volumes", ())}
    assert {name for name in used if not name.startswith(".")} == set(compose["volumes"])
