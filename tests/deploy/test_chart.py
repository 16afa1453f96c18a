"""The Helm chart, with Helm itself and the schemas of Kubernetes. `make test-deploy` installs both."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "hubgate"
TOOLS = ROOT / "build" / "deploy-tools" / "bin"
EVERYTHING = {
    "autoscaling.enabled": "true",
    "autoscaling.queueCalls": "20",
    "httpRoute.enabled": "true",
    "httpRoute.parentRefs[0].name": "edge",
    "serviceMonitor.enabled": "true",
    "serviceMonitor.keySecret.name": "metrics-key",
    "settings.HUBGATE_MAX_CONNECTIONS": "4096",
    "settings.HUBGATE_KEYS_IN_PATH": "true",
}
KUBERNETES = ("1.30", "1.35")


def tool(name: str) -> str:
    path = shutil.which(name, path=TOOLS) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: `make test-deploy` installs it")
    return path


def helm(*arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    options = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    return subprocess.run(
        [tool("helm"), *arguments, *options], capture_output=True, text=True, timeout=240, check=False
    )


def rendered(**values: str) -> dict[str, Any]:
    """The objects of the chart, by their kind."""
    done = helm("template", "demo", str(CHART), "--namespace", "models", existingSecret="hubgate", **values)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


def containers(objects: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each pod's spec, with its container."""
    pods = (
        objects["Deployment"]["spec"]["template"]["spec"],
        objects["Job"]["spec"]["template"]["spec"],
        objects["Pod"]["spec"],
    )
    for spec in pods:
        (container,) = spec["containers"]
        yield spec, container


def test_chart_passes_helms_strict_lint() -> None:
    done = helm("lint", "--strict", str(CHART), existingSecret="hubgate")
    assert done.returncode == 0, done.stdout + done.stderr


def test_defaults_drain_before_the_grace_period_ends_and_give_no_rights() -> None:
    objects = rendered(drainDelaySeconds="20")
    assert set(objects) == {
        "Deployment",
        "Job",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Service",
    }
    assert objects["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 150
    assert "pre-upgrade" in objects["Job"]["metadata"]["annotations"]["helm.sh/hook"]
    for spec, container in containers(objects):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    environment = {
        one["name"]: one for one in objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert environment["HUBGATE_DRAIN_DELAY"]["value"] == "20"
    assert environment["HUBGATE_DRAIN_SECONDS"]["value"] == "120"
    assert environment["HUBGATE_MIGRATE"]["value"] == "never"
    assert environment["HUBGATE_CACHE_BYTES"]["value"] == "1073741824"
    assert "valueFrom" in environment["HUBGATE_SECRET_KEY"]
    migration = objects["Job"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert not {"HUBGATE_SECRET_KEY", "HUBGATE_ADMIN_KEY"} & {one["name"] for one in migration}


def test_autoscaling_sets_no_number_of_replicas() -> None:
    objects = rendered(**EVERYTHING)
    assert {"HTTPRoute", "HorizontalPodAutoscaler", "ServiceMonitor"} <= set(objects)
    assert "replicas" not in objects["Deployment"]["spec"]
    assert rendered()["Deployment"]["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"replicas": "3"}, "'replicas'"),
        ({"settings.HUBGATE_LOG_LEVLE": "debug"}, "HUBGATE_LOG_LEVLE"),
        ({"drainDelaySeconds": "soon"}, "drainDelaySeconds"),
        ({"existingSecret": ""}, "existingSecret is required"),
        ({"ingress.enabled": "true", "httpRoute.enabled": "true"}, "not both"),
        ({"serviceMonitor.enabled": "true"}, "serviceMonitor.keySecret.name is required"),
    ],
)
def test_wrong_values_are_refused_with_their_name(values: dict[str, str], expected: str) -> None:
    done = helm("template", "demo", str(CHART), **({"existingSecret": "hubgate"} | values))
    assert done.returncode != 0
    assert expected in done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
def test_objects_match_the_schemas_of_kubernetes(version: str, tmp_path: Path) -> None:
    validator = tool("kubernetes-validate")
    for number, values in enumerate(
        ({}, EVERYTHING, {"ingress.enabled": "true", "ingress.hosts[0]": "a.example"})
    ):
        objects = rendered(**values)
        for own in ("HTTPRoute", "ServiceMonitor"):  # of other projects: their schemas are not Kubernetes'
            objects.pop(own, None)
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump_all(objects.values()), "utf-8")
        done = subprocess.run(
            [validator, "--strict", "-k", version, file],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
