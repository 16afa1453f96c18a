"""The API reference describes exactly the routes of hubgate's own API, and its examples are valid requests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from hubgate.domain.records import Key
from hubgate.web.admin.routes import api_routes
from hubgate.web.http.face import Services
from hubgate.web.schemas.configuration import Configuration
from hubgate.web.schemas.endpoint import EndpointForm, edit_endpoint
from hubgate.web.schemas.key import KeyForm, edit_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripted_gateway import ScriptedGateway

    from hubgate.web.admin.openapi import ApiRoute


@pytest.fixture
async def document(scripted: ScriptedGateway) -> Any:
    reply = await scripted.request("GET", "/api/openapi.json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    return reply.json()


def rows_of(scripted: ScriptedGateway) -> list[ApiRoute]:
    gateway, access = scripted.service, scripted.access
    services = Services(
        gateway=gateway,
        access=access,
        memory=None,
        hub=scripted.hub,
        configuration=Configuration(gateway, access),
        parts=scripted.parts,
    )
    return list(api_routes(services))


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


async def test_openapi_describes_exactly_the_served_routes(scripted: ScriptedGateway, document: Any) -> None:
    found = scripted.app._app.routes  # type: ignore[attr-defined]
    served = {
        f"{method} {route.path.replace(':path', '')}"
        for route in found
        if route.path.startswith("/api")
        for method in route.methods - {"HEAD"}
    }
    assert {f"{method} {path}" for method, path, _ in operations(document)} == served


async def test_every_operation_has_a_unique_id_and_a_summary(document: Any) -> None:
    described = [operation for _, _, operation in operations(document)]
    names = [operation["operationId"] for operation in described]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names), names
    assert all(re.fullmatch(r"\S.*\.", operation["summary"]) for operation in described)


async def test_every_path_parameter_and_reference_is_defined(document: Any) -> None:
    for _, path, operation in operations(document):
        in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert in_path == re.findall(r"\{(\w+)\}", path)
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in schemas


async def test_every_field_of_a_form_is_in_its_schema(scripted: ScriptedGateway, document: Any) -> None:
    schemas = document["components"]["schemas"]
    forms = {row.body for row in rows_of(scripted) if row.body is not None}
    assert len(forms) >= 7
    for form in forms:
        schema = schemas[form.__name__]
        assert set(schema["properties"]) == set(form.__struct_fields__)
        assert schema["additionalProperties"] is False
    changes = schemas["EndpointFormChanges"]
    assert "required" not in changes
    assert {"type": "null"} in changes["properties"]["rate_limit"]["anyOf"]


async def test_every_example_is_a_valid_body_of_its_route(scripted: ScriptedGateway) -> None:
    rows = [row for row in rows_of(scripted) if row.body is not None]
    for row in rows:
        assert row.example is not None, row.path
        if not row.partial:
            msgspec.convert(row.example, row.body)
        elif row.body is EndpointForm:
            edit_endpoint(scripted.service.registry.find("e5"), row.example)
        else:
            assert row.body is KeyForm
            edit_key(Key(id="0a1b2c3d", name="dify", digest=b"", created_at=0.0), row.example)


async def test_request_bodies_are_described_for_exactly_the_routes_with_one(
    scripted: ScriptedGateway, document: Any
) -> None:
    with_body = {f"{m} {p}" for m, p, operation in operations(document) if "requestBody" in operation}
    taking = {
        f"{row.method} /api{row.path.replace(':path', '')}"
        for row in rows_of(scripted)
        if row.body is not None
    }
    assert with_body == taking
