"""The keys page and the settings page, over HTTP."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from console_client import ConsoleClient, FormFields

from hubgate.domain.calls import InputType

if TYPE_CHECKING:
    from running_gateway import RunningGateway


@pytest.fixture
def visitor(gateway: RunningGateway) -> ConsoleClient:
    visitor = ConsoleClient(gateway)
    visitor.sign_in()
    return visitor


def _keys(visitor: ConsoleClient) -> str:
    return visitor.get("/ui/keys").text


def _key(visitor: ConsoleClient, name: str) -> dict[str, Any]:
    keys: list[dict[str, Any]] = visitor.gateway.request("GET", "/api/keys").json()["keys"]
    return next(key for key in keys if key["name"] == name)


class TestKeys:
    def test_a_key_is_shown_once_and_works(self, visitor: ConsoleClient) -> None:
        visitor.gateway.add("alpha")
        sent = visitor.post("/ui/keys/new", {"name": "dify", "default_endpoint": "alpha"})
        assert sent.status == 303
        page = visitor.get(sent.headers["location"])
        found = re.search(r'<code id="plain"[^>]*>(hg_[^<]+)<', page.text)
        assert found
        body = {"model": "alpha", "input": "hello"}
        assert visitor.gateway.request("POST", "/v1/embeddings", body, key=found[1]).status == 200
        again = visitor.get(sent.headers["location"])
        assert found[1] not in again.text
        assert "If you did not copy it, revoke it and create another." in again.words
        assert "dify" in again.words
        assert "alpha" in again.words

    def test_a_new_key_is_shown_only_to_the_session_that_created_it(self, visitor: ConsoleClient) -> None:
        sent = visitor.post("/ui/keys/new", {"name": "dify"})
        other = ConsoleClient(visitor.gateway)
        other.sign_in()
        assert 'id="plain"' not in other.get(sent.headers["location"]).text
        assert 'id="plain"' in visitor.get(sent.headers["location"]).text

    def test_beyond_the_limit_the_oldest_new_keys_are_dropped(self, visitor: ConsoleClient) -> None:
        pages = [visitor.post("/ui/keys/new", {"name": f"key-{n}"}).headers["location"] for n in range(101)]
        assert 'id="plain"' not in visitor.get(pages[0]).text
        assert 'id="plain"' in visitor.get(pages[1]).text

    def test_a_key_has_the_rights_of_the_form(self, visitor: ConsoleClient) -> None:
        visitor.gateway.add("alpha")
        visitor.gateway.add("beta")
        visitor.post(
            "/ui/keys/new",
            {
                "name": "batch",
                "class": "bulk",
                "endpoints": "alpha, beta alpha",
                "input_type": "ingest",
                "requests_per_minute": "60",
                "tokens_per_minute": "۱۰۰۰",
                "expires": "2099-12-31",
            },
        )
        keys = visitor.gateway.request("GET", "/api/keys").json()["keys"]
        key = next(key for key in keys if key["name"] == "batch")
        assert (key["bulk"], key["admin"], key["endpoints"]) == (True, False, ["alpha", "beta"])
        assert (key["input_type"], key["requests_per_minute"], key["tokens_per_minute"]) == (
            "ingest",
            60,
            1000,
        )
        assert time.localtime(key["expires_at"])[:6] == (2099, 12, 31, 23, 59, 59)
        words = visitor.get("/ui/keys").words
        for told in ("Bulk", "60 requests/min", "1,000 tokens/min", "Dec 31, 2099", "Never"):
            assert told in words

    def test_an_admin_key_reaches_everything(self, visitor: ConsoleClient) -> None:
        visitor.gateway.add("alpha")
        visitor.post("/ui/keys/new", {"name": "boss", "role": "admin", "endpoints": "alpha"})
        keys = visitor.gateway.request("GET", "/api/keys").json()["keys"]
        assert next(key for key in keys if key["name"] == "boss")["admin"] is True

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"name": ""}, "Required."),
            ({"name": "x", "requests_per_minute": "many"}, "Enter a whole number, 1 or higher."),
            ({"name": "x", "expires": "tomorrow"}, "Enter a date as year-month-day."),
            ({"name": "x", "expires": "0001-01-01"}, "Enter a date as year-month-day."),
            ({"name": "x", "default_endpoint": "nothing"}, "No model has this name"),
            ({"name": "admin"}, "Invalid request"),
        ],
    )
    def test_invalid_fields_are_reported_and_create_no_key(
        self, visitor: ConsoleClient, fields: dict[str, str], told: str
    ) -> None:
        page = visitor.post("/ui/keys/new", fields)
        assert told in page.words
        assert len(visitor.gateway.request("GET", "/api/keys").json()["keys"]) == 1

    def test_a_key_is_edited_and_stays_the_same_key(self, visitor: ConsoleClient) -> None:
        visitor.gateway.add("alpha")
        visitor.gateway.add("beta")
        plain = visitor.gateway.create_key("dify", endpoints=["alpha"], expires_at=4102444800.5)
        found = re.search(r'href="(/ui/keys/[0-9a-f]{8}/edit)">Edit<span class="sr"> dify', _keys(visitor))
        assert found
        form = visitor.get(found[1])
        assert re.search(r"<textarea id=\"endpoints\"[^>]*>alpha</textarea>", form.text)
        day = re.search(r'id="expires"[^>]* value="([^"]+)"', form.text)
        assert day
        sent = {
            "name": "dify-2",
            "class": "bulk",
            "endpoints": "alpha\r\nbeta",
            "default_endpoint": "beta",
            "requests_per_minute": "60",
            "expires": day[1],
        }
        page = visitor.post(found[1], sent)
        assert "dify-2 is saved." in visitor.get(page.headers["location"]).words
        key = _key(visitor, "dify-2")
        assert (key["bulk"], key["endpoints"], key["default_endpoint"]) == (True, ["alpha", "beta"], "beta")
        assert (key["requests_per_minute"], key["expires_at"]) == (60, 4102444800.5), "an untouched day stays"
        body = {"model": "beta", "input": "hello"}
        assert visitor.gateway.request("POST", "/v1/embeddings", body, key=plain).status == 200
        visitor.post(found[1], {"name": "dify-2"})
        key = _key(visitor, "dify-2")
        assert (key["bulk"], key["endpoints"], key["requests_per_minute"]) == (False, [], None)
        assert key["expires_at"] is None

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"name": ""}, "Required."),
            ({"name": "dify", "endpoints": "nothing"}, "No model has this name"),
            ({"name": "dify", "expires": "2001-01-01"}, "Invalid request"),
        ],
    )
    def test_an_invalid_change_is_reported_and_changes_nothing(
        self, visitor: ConsoleClient, fields: dict[str, str], told: str
    ) -> None:
        visitor.gateway.create_key("dify", bulk=True)
        page = visitor.post("/ui/keys/dify/edit", fields)
        assert told in page.words
        assert _key(visitor, "dify")["bulk"] is True

    def test_a_deleted_model_may_stay_in_a_scope(self, visitor: ConsoleClient) -> None:
        visitor.gateway.add("alpha")
        visitor.gateway.create_key("dify", endpoints=["alpha"])
        visitor.gateway.request("DELETE", "/api/endpoints/alpha?force=true")
        visitor.post("/ui/keys/dify/edit", {"name": "dify", "endpoints": "alpha", "class": "bulk"})
        assert _key(visitor, "dify")["bulk"] is True

    def test_an_admin_key_has_no_scope(self, visitor: ConsoleClient) -> None:
        visitor.gateway.create_key("boss", admin=True)
        assert 'id="endpoints"' not in visitor.get("/ui/keys/boss/edit").text
        visitor.post("/ui/keys/boss/edit", {"name": "chief", "endpoints": "x"})
        assert _key(visitor, "chief")["admin"] is True

    @pytest.mark.parametrize("word", InputType)
    def test_the_input_type_of_a_key_survives_saving_its_form(
        self, visitor: ConsoleClient, word: InputType
    ) -> None:
        visitor.gateway.create_key("dify", input_type=word)
        visitor.post("/ui/keys/dify/edit", FormFields(visitor.get("/ui/keys/dify/edit").text).sent)
        assert _key(visitor, "dify")["input_type"] == word

    def test_models_are_found_and_added_to_the_scope(self, visitor: ConsoleClient) -> None:
        for n in range(22):
            visitor.gateway.add(f"model-{n:02}")
        assert "2 more: type part of the name." in visitor.get("/ui/keys/new").words
        chosen = {"endpoints": "model-00"}
        page = visitor.post("/ui/keys/names", {**chosen, "find": "model-0"}, hx_request="true")
        assert re.findall(r'name="add" value="([^"]+)"', page.text)[0] == "model-01"
        assert "more" not in page.words
        page = visitor.post("/ui/keys/scope", {**chosen, "add": "model-07"}, hx_request="true")
        assert re.search(r"<textarea id=\"endpoints\"[^>]*>model-00\nmodel-07</textarea>", page.text)
        assert "No matches" in visitor.post("/ui/keys/names", {"find": "x"}, hx_request="true").words

    def test_a_key_is_revoked_after_a_confirmation(self, visitor: ConsoleClient) -> None:
        visitor.gateway.create_key("dify")
        found = re.search(
            r'href="(/ui/keys/[0-9a-f]{8}/revoke)">Revoke<span class="sr"> dify', visitor.get("/ui/keys").text
        )
        assert found
        assert "dify" in visitor.get(found[1]).words
        visitor.post(found[1])
        assert "dify" not in visitor.get("/ui/keys").words

    def test_the_last_admin_key_cannot_be_revoked(self, visitor: ConsoleClient) -> None:
        keys = visitor.gateway.request("GET", "/api/keys").json()["keys"]
        page = visitor.post(f"/ui/keys/{keys[0]['id']}/revoke")
        assert page.status == 400
        assert "last admin key" in page.words


class TestConnections:
    def test_several_tokens_are_entered_one_per_line_and_never_shown_again(
        self, visitor: ConsoleClient
    ) -> None:
        page = visitor.get("/ui/settings")
        assert "One token per line. Several are used in turn" in page.words
        tokens = "hf_aTokenThatNobodyHas1234\r\n hf_aTokenThatNobodyHas5678\r\n"
        visitor.post("/ui/connections", {"name": "team", "token": tokens})
        page = visitor.get("/ui/settings")
        assert "team …1234 …5678 huggingface 0 models" in page.words
        assert "NobodyHas" not in page.text
        again = visitor.post("/ui/connections", {"name": "team", "token": tokens})
        assert "NobodyHas" not in again.text

    def test_a_token_is_stored_and_shown_as_its_last_characters(self, visitor: ConsoleClient) -> None:
        assert "None yet." in visitor.get("/ui/settings").words
        page = visitor.post("/ui/connections", {"name": "team", "token": "hf_aTokenThatNobodyHas1234"})
        assert page.headers["location"] == "/ui/settings"
        page = visitor.get("/ui/settings")
        assert "team …1234 huggingface 0 models" in page.words
        assert "NobodyHas" not in page.text

    def test_a_token_is_replaced_and_deleted(self, visitor: ConsoleClient) -> None:
        visitor.post("/ui/connections", {"name": "team", "token": "hf_aTokenThatNobodyHas1234"})
        assert "team" in visitor.get("/ui/connections/team").words
        visitor.post("/ui/connections/team", {"token": "hf_aTokenThatNobodyHas5678"})
        assert "…5678" in visitor.get("/ui/settings").words
        visitor.post("/ui/connections/team/forget")
        assert "None yet." in visitor.get("/ui/settings").words

    def test_errors_are_shown(self, visitor: ConsoleClient) -> None:
        visitor.post("/ui/connections", {"name": "team", "token": "hf_aTokenThatNobodyHas1234"})
        visitor.gateway.add("alpha", connection="team")
        assert "It is still in use" in visitor.post("/ui/connections/team/forget").words
        assert "Invalid request" in visitor.post("/ui/connections", {"name": "", "token": "x"}).words
        assert "Invalid request" in visitor.post("/ui/connections/team", {"token": "a b"}).words
        assert visitor.post("/ui/connections/nothing/forget").status == 200


class TestTheConfiguration:
    YAML = "version: 1\nendpoints:\n  alpha: {source: fake}\nkeys:\n  dify: {bulk: true}\n"

    def test_applying_an_export_changes_nothing(self, visitor: ConsoleClient) -> None:
        visitor.gateway.add("alpha")
        page = visitor.get("/ui/config/export")
        assert page.headers["content-disposition"] == 'attachment; filename="hubgate.yaml"'
        again = visitor.post("/ui/config", {"yaml": page.text, "do": "apply", "prune": "on"})
        assert "Nothing to change." in again.words

    def test_the_plan_changes_nothing(self, visitor: ConsoleClient) -> None:
        page = visitor.post("/ui/config", {"yaml": self.YAML, "do": "plan"})
        assert "2 changes would be made: Add model alpha task text_embedding" in page.words
        assert visitor.gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}

    def test_it_is_applied_and_shows_new_keys_once(self, visitor: ConsoleClient) -> None:
        page = visitor.post("/ui/config", {"yaml": self.YAML, "do": "apply"})
        assert "2 changes were made" in page.words
        assert re.search(r"<code [^>]*>hg_[^<]+</code>", page.text)
        changed = visitor.post("/ui/config", {"yaml": "keys:\n  dify: {bulk: false}\n", "do": "apply"})
        assert "Change key dify bulk true → false" in changed.words
        indented = "  keys:\n    dify: {bulk: false}\n  connections: {}\n"
        again = visitor.post("/ui/config", {"yaml": indented, "do": "apply"})
        assert "Nothing to change." in again.words

    def test_token_values_are_entered_by_name(self, visitor: ConsoleClient) -> None:
        sent = {"yaml": "connections:\n  team: {token: '${TEAM}'}\n", "do": "apply"}
        assert "no value is given" in visitor.post("/ui/config", sent).words
        visitor.post("/ui/config", {**sent, "secrets": "x\nTEAM = hf_aTokenThatNobodyHas1234\n"})
        assert "team …1234" in visitor.get("/ui/settings").words

    def test_invalid_yaml_and_failing_models_are_reported(self, visitor: ConsoleClient) -> None:
        assert "Invalid request" in visitor.post("/ui/config", {"yaml": "a: [", "do": "plan"}).words
        sent = {
            "yaml": "endpoints:\n  far: {url: 'http://127.0.0.1:9'}\n  near: {source: fake}\n",
            "do": "apply",
        }
        page = visitor.post("/ui/config", sent)
        assert "Nothing is listening at this address" in page.words
        assert visitor.gateway.request("GET", "/api/endpoints/near").status == 200


def test_the_versions_are_shown(visitor: ConsoleClient) -> None:
    words = visitor.get("/ui/settings").words
    assert "ICU 77.1" in words
    assert "hubgate 0." in words
