"""A token that is not a valid HTTP header value is rejected in every input, without an internal error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from running_gateway import RunningGateway

TOKENS = ("hf_…", "hf_with a space", "hf_\u0000", "   ", "hf_good\nhf_ünsendable")
URL = "http://127.0.0.1:1"
GIVEN: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "local": ("POST", "/api/endpoints", {"name": "q", "model": "a/b"}, "token"),
    "kept": (
        "POST",
        "/api/endpoints",
        {"name": "q", "model": "a/b", "enabled": False, "save_anyway": True},
        "token",
    ),
    "dedicated": ("POST", "/api/endpoints", {"name": "q", "url": URL}, "token"),
    "hosted": ("POST", "/api/endpoints", {"name": "q", "model": "a/b", "provider": "auto"}, "token"),
    "fake": ("POST", "/api/endpoints", {"name": "q", "source": "fake"}, "token"),
    "diagnosis": ("POST", "/api/diagnose", {"name": "q", "model": "a/b"}, "token"),
    "change": ("PATCH", "/api/endpoints/words", {}, "token"),
    "connection": ("POST", "/api/connections", {"name": "q"}, "token"),
    "elasticsearch": ("PUT", "/_inference/text_embedding/q", {"service": "hugging_face"}, "service_settings"),
}


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("where", GIVEN)
def test_unsendable_token_is_rejected_in_every_form(gateway: RunningGateway, where: str, token: str) -> None:
    gateway.add("words")
    method, path, form, field = GIVEN[where]
    given = {"url": URL, "api_key": token} if field == "service_settings" else token
    reply = gateway.request(method, path, {**form, field: given})
    assert reply.status == 400, reply.body
    assert "ünsendable" not in reply.body.decode()


@pytest.mark.parametrize("token", TOKENS[:1])
def test_unsendable_token_is_rejected_in_a_header_and_a_configuration(
    gateway: RunningGateway, token: str
) -> None:
    sent = {"x-hf-token": token.encode().decode("latin-1")}
    assert gateway.request("GET", "/api/hub/whoami", headers=sent).status == 400
    text = "connections: {team: {token: '${T}'}}"
    reply = gateway.request("POST", "/api/config", {"yaml": text, "secrets": {"T": token}})
    assert reply.json()["steps"][0]["failure"]["cause"] == "invalid_request"
