"""The form that deploys a model, and the request that it describes.

It is carried from step to step in the URL, so it has no secrets: environment variables and registry passwords are for
the API and the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubgate.core.deployments.images import VARIANTS
from hubgate.domain.deployments import Access, Hardware
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import InvalidRequest
from hubgate.service.deployments.planner import DeploymentRequest
from hubgate.web.schemas.deployment import DeploymentForm
from hubgate.web.schemas.validation import convert

HARDWARE = "hardware"
"""The field of the chosen hardware: vendor, region and instance, separated by spaces."""
_TEXTS = (
    "model",
    "name",
    "connection",
    "namespace",
    "type",
    "engine",
    "task",
    "revision",
    "register_as",
)
_NUMBERS = ("min_replicas", "max_replicas", "zero_after")
_FIELDS = (*_TEXTS, *_NUMBERS, "delete_on_failure", HARDWARE)
ACCESSES = tuple(Access)
ENGINES = tuple(VARIANTS)
TASKS = tuple(Task)
DEFAULTS: Mapping[str, str] = {
    "type": Access.PRIVATE,
    "min_replicas": "0",
    "max_replicas": "1",
    "zero_after": "15",
}


def sent_form(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of this form among those that a browser sent, with spaces removed."""
    return {name: fields[name].strip() for name in _FIELDS if name in fields}


def request_of(form: Mapping[str, str]) -> DeploymentRequest:
    """What the form asks for; what is empty is chosen by hubgate.

    Raises:
        InvalidRequest: a field is invalid.
    """
    made: dict[str, Any] = {name: form[name] for name in _TEXTS if form.get(name)}
    if "model" not in made:
        raise InvalidRequest(
            "[model] is missing.", remedy="Enter the name of a repository, such as org/name."
        )
    made |= {name: _whole(name, form[name]) for name in _NUMBERS if form.get(name)}
    if form.get("zero_after") == "":
        made["zero_after"] = None
    if hardware := form.get(HARDWARE):
        names = hardware.split(" ")
        if len(names) != 3:
            raise InvalidRequest("The form names no hardware.", remedy="Choose it again.")
        made["vendor"], made["region"], made["instance"] = names
    made["delete_on_failure"] = "delete_on_failure" in form
    return convert(made, DeploymentForm).request()


def hardware_field(hardware: Hardware) -> str:
    """The value of `HARDWARE`."""
    return f"{hardware.vendor} {hardware.region} {hardware.instance}"


def _whole(name: str, text: str) -> int:
    """A whole number in the digits of any language."""
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest(f"[{name}] must be a whole number.")
    return int(text)
