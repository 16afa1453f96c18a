"""The keys page and the settings page, over HTTP."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from console_client import ConsoleClient, FormFields

from hubgate.domain.endpoint import InputType

if TYPE_CHECKING:
    from running_gateway import RunningGateway


@pytest.fixture
def console(gateway: RunningGateway) -> ConsoleClient:
    console = ConsoleClient(gateway)
    console.sign_in()
    return console


def _keys(console: ConsoleClient) -> str:
    return console.get("/ui/keys").text


def _key(console: ConsoleClient, name: str) -> dict[str, Any]:
    keys: list[dict[str, Any]] = console.gateway.request("GET", "/api/keys").json()["keys"]
    return next(key for key in keys if key["name"] == name)


class TestKeys:
    def test_a_key_is_shown_once_and_works(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        sent = console.post("/ui/keys/new", {"name": "dify", "default_endpoint": "alpha"})
        assert sent.status == 303
        page = console.get(sent.headers["location"])
        found = re.search(r'<code id="plain"[^>]*>(hg_[^<]+)<', page.text)
        assert found
        body = {"model": "alpha", "input": "hello"}
        assert console.gateway.request("POST", "/v1/embeddings", body, key=found[1]).status == 200
        again = console.get(sent.headers["location"])
        assert found[1] not in again.text
        assert "If you did not copy it, revoke it and create another." in again.words
        assert "dify" in again.words
        assert "alpha" in again.words

    def test_keys_are_shown_in_pages_and_found_by_name_or_id(self, console: ConsoleClient) -> None:
        assert 'name="q"' not in _keys(console)
        for number in range(51):
            console.gateway.request("POST", "/api/keys", {"name": f"app-{number:02}"})
        first, second = console.get("/ui/keys").text, console.get("/ui/keys?page=2").text
        assert [f">app-{number:02}<" in first for number in (0, 48, 50)] == [True, True, False]
        assert [f">app-{number:02}<" in second for number in (0, 48, 50)] == [False, False, True]
        assert 'href="/ui/keys?page=2"' in first
        assert 'href="/ui/keys?page=1"' in second
        assert console.get("/ui/keys?page=99").text.count(">app-50<") == 1
        for text in ("APP-17", _key(console, "app-17")["id"]):
            found = console.get(f"/ui/keys?q={text}").text
            assert found.count('<bdi class="name">app-') == 1
            assert ">app-17<" in found
        assert "No matches" in console.get("/ui/keys?q=nobody").words

    def test_a_new_key_is_shown_only_to_the_session_that_created_it(self, console: ConsoleClient) -> None:
        sent = console.post("/ui/keys/new", {"name": "dify"})
        other = ConsoleClient(console.gateway)
        other.sign_in()
        assert 'id="plain"' not in other.get(sent.headers["location"]).text
        assert 'id="plain"' in console.get(sent.headers["location"]).text

    def test_oldest_new_keys_are_dropped_over_the_limit(self, console: ConsoleClient) -> None:
        pages = [console.post("/ui/keys/new", {"name": f"key-{n}"}).headers["location"] for n in range(101)]
        assert 'id="plain"' not in console.get(pages[0]).text
        assert 'id="plain"' in console.get(pages[1]).text

    def test_a_key_has_the_rights_of_the_form(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        console.gateway.add("beta")
        console.post(
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
        keys = console.gateway.request("GET", "/api/keys").json()["keys"]
        key = next(key for key in keys if key["name"] == "batch")
        assert (key["bulk"], key["admin"], key["endpoints"]) == (True, False, ["alpha", "beta"])
        assert (key["input_type"], key["requests_per_minute"], key["tokens_per_minute"]) == (
            "ingest",
            60,
            1000,
        )
        assert time.localtime(key["expires_at"])[:6] == (2099, 12, 31, 23, 59, 59)
        words = console.get("/ui/keys").words
        for told in ("Bulk", "60 requests/min", "1,000 tokens/min", "Dec 31, 2099", "Never"):
            assert told in words

    def test_admin_key_can_access_every_model(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        console.post("/ui/keys/new", {"name": "boss", "role": "admin", "endpoints": "alpha"})
        keys = console.gateway.request("GET", "/api/keys").json()["keys"]
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
        self, console: ConsoleClient, fields: dict[str, str], told: str
    ) -> None:
        page = console.post("/ui/keys/new", fields)
        assert told in page.words
        assert len(console.gateway.request("GET", "/api/keys").json()["keys"]) == 1

    def test_a_key_is_edited_and_stays_the_same_key(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        console.gateway.add("beta")
        plain = console.gateway.create_key("dify", endpoints=["alpha"], expires_at=4102444800.5)
        found = re.search(r'href="(/ui/keys/[0-9a-f]{8}/edit)">Edit<span class="sr"> dify', _keys(console))
        assert found
        form = console.get(found[1])
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
        page = console.post(found[1], sent)
        assert "dify-2 is saved." in console.get(page.headers["location"]).words
        key = _key(console, "dify-2")
        assert (key["bulk"], key["endpoints"], key["default_endpoint"]) == (True, ["alpha", "beta"], "beta")
        assert (key["requests_per_minute"], key["expires_at"]) == (60, 4102444800.5), "an untouched day stays"
        body = {"model": "beta", "input": "hello"}
        assert console.gateway.request("POST", "/v1/embeddings", body, key=plain).status == 200
        console.post(found[1], {"name": "dify-2"})
        key = _key(console, "dify-2")
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
        self, console: ConsoleClient, fields: dict[str, str], told: str
    ) -> None:
        console.gateway.create_key("dify", bulk=True)
        page = console.post("/ui/keys/dify/edit", fields)
        assert told in page.words
        assert _key(console, "dify")["bulk"] is True

    def test_a_deleted_model_may_stay_in_a_scope(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        console.gateway.create_key("dify", endpoints=["alpha"])
        console.gateway.request("DELETE", "/api/endpoints/alpha?force=true")
        console.post("/ui/keys/dify/edit", {"name": "dify", "endpoints": "alpha", "class": "bulk"})
        assert _key(console, "dify")["bulk"] is True

    def test_an_admin_key_has_no_scope(self, console: ConsoleClient) -> None:
        console.gateway.create_key("boss", admin=True)
        assert 'id="endpoints"' not in console.get("/ui/keys/boss/edit").text
        console.post("/ui/keys/boss/edit", {"name": "chief", "endpoints": "x"})
        assert _key(console, "chief")["admin"] is True

    @pytest.mark.parametrize("word", InputType)
    def test_the_input_type_of_a_key_survives_saving_its_form(
        self, console: ConsoleClient, word: InputType
    ) -> None:
        console.gateway.create_key("dify", input_type=word)
        console.post("/ui/keys/dify/edit", FormFields(console.get("/ui/keys/dify/edit").text).sent)
        assert _key(console, "dify")["input_type"] == word

    def test_models_are_found_and_added_to_the_scope(self, console: ConsoleClient) -> None:
        for n in range(22):
            console.gateway.add(f"model-{n:02}")
        assert "2 more: type part of the name." in console.get("/ui/keys/new").words
        chosen = {"endpoints": "model-00"}
        page = console.post("/ui/keys/names", {**chosen, "find": "model-0"}, hx_request="true")
        assert re.findall(r'name="add" value="([^"]+)"', page.text)[0] == "model-01"
        assert "more" not in page.words
        page = console.post("/ui/keys/scope", {**chosen, "add": "model-07"}, hx_request="true")
        assert re.search(r"<textarea id=\"endpoints\"[^>]*>model-00\nmodel-07</textarea>", page.text)
        assert "No matches" in console.post("/ui/keys/names", {"find": "x"}, hx_request="true").words

    def test_a_key_is_revoked_after_a_confirmation(self, console: ConsoleClient) -> None:
        console.gateway.create_key("dify")
        found = re.search(
            r'href="(/ui/keys/[0-9a-f]{8}/revoke)">Revoke<span class="sr"> dify', console.get("/ui/keys").text
        )
        assert found
        assert "dify" in console.get(found[1]).words
        console.post(found[1])
        assert "dify" not in console.get("/ui/keys").words

    def test_the_last_admin_key_cannot_be_revoked(self, console: ConsoleClient) -> None:
        keys = console.gateway.request("GET", "/api/keys").json()["keys"]
        page = console.post(f"/ui/keys/{keys[0]['id']}/revoke")
        assert page.status == 400
        assert "last admin key" in page.words


class TestConnections:
    def test_several_tokens_are_entered_one_per_line_and_never_shown_again(
        self, console: ConsoleClient
    ) -> None:
        page = console.get("/ui/settings")
        assert "One token per line. Several are used in turn" in page.words
        tokens = "hf_aTokenThatNobodyHas1234\r\n hf_aTokenThatNobodyHas5678\r\n"
        console.post("/ui/connections", {"name": "team", "token": tokens})
        page = console.get("/ui/settings")
        assert "team …1234 …5678 huggingface 0 models" in page.words
        assert "NobodyHas" not in page.text
        again = console.post("/ui/connections", {"name": "team", "token": tokens})
        assert "NobodyHas" not in again.text

    def test_a_token_is_stored_and_shown_as_its_last_characters(self, console: ConsoleClient) -> None:
        assert "None yet." in console.get("/ui/settings").words
        page = console.post("/ui/connections", {"name": "team", "token": "hf_aTokenThatNobodyHas1234"})
        assert page.headers["location"] == "/ui/settings"
        page = console.get("/ui/settings")
        assert "team …1234 huggingface 0 models" in page.words
        assert "NobodyHas" not in page.text

    def test_a_token_is_replaced_and_deleted(self, console: ConsoleClient) -> None:
        console.post("/ui/connections", {"name": "team", "token": "hf_aTokenThatNobodyHas1234"})
        assert "team" in console.get("/ui/connections/team").words
        console.post("/ui/connections/team", {"token": "hf_aTokenThatNobodyHas5678"})
        assert "…5678" in console.get("/ui/settings").words
        console.post("/ui/connections/team/forget")
        assert "None yet." in console.get("/ui/settings").words

    def test_errors_are_shown(self, console: ConsoleClient) -> None:
        console.post("/ui/connections", {"name": "team", "token": "hf_aTokenThatNobodyHas1234"})
        console.gateway.add("alpha", connection="team")
        assert "It is still in use" in console.post("/ui/connections/team/forget").words
        assert "Invalid request" in console.post("/ui/connections", {"name": "", "token": "x"}).words
        assert "Invalid request" in console.post("/ui/connections/team", {"token": "a b"}).words
        assert console.post("/ui/connections/nothing/forget").status == 200


class TestTheConfiguration:
    YAML = "version: 1\nendpoints:\n  alpha: {source: fake}\nkeys:\n  dify: {bulk: true}\n"

    def test_applying_an_export_changes_nothing(self, console: ConsoleClient) -> None:
        console.gateway.add("alpha")
        page = console.get("/ui/config/export")
        assert page.headers["content-disposition"] == 'attachment; filename="hubgate.yaml"'
        again = console.post("/ui/config", {"yaml": page.text, "do": "apply", "prune": "on"})
        assert "Nothing to change." in again.words

    def test_the_plan_changes_nothing(self, console: ConsoleClient) -> None:
        page = console.post("/ui/config", {"yaml": self.YAML, "do": "plan"})
        assert "2 changes would be made: Add model alpha task text_embedding" in page.words
        assert console.gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}

    def test_it_is_applied_and_shows_new_keys_once(self, console: ConsoleClient) -> None:
        page = console.post("/ui/config", {"yaml": self.YAML, "do": "apply"})
        assert "2 changes were made" in page.words
        assert re.search(r"<code [^>]*>hg_[^<]+</code>", page.text)
        changed = console.post("/ui/config", {"yaml": "keys:\n  dify: {bulk: false}\n", "do": "apply"})
        assert "Change key dify bulk true → false" in changed.words
        indented = "  keys:\n    dify: {bulk: false}\n  connections: {}\n"
        again = console.post("/ui/config", {"yaml": indented, "do": "apply"})
        assert "Nothing to change." in again.words

    def test_token_values_are_entered_by_name(self, console: ConsoleClient) -> None:
        sent = {"yaml": "connections:\n  team: {token: '${TEAM}'}\n", "do": "apply"}
        assert "no value is given" in console.post("/ui/config", sent).words
        console.post("/ui/config", {**sent, "secrets": "x\nTEAM = hf_aTokenThatNobodyHas1234\n"})
        assert "team …1234" in console.get("/ui/settings").words

    def test_invalid_yaml_and_failing_models_are_reported(self, console: ConsoleClient) -> None:
        assert "Invalid request" in console.post("/ui/config", {"yaml": "a: [", "do": "plan"}).words
        sent = {
            "yaml": "endpoints:\n  far: {url: 'http://127.0.0.1:9'}\n  near: {source: fake}\n",
            "do": "apply",
        }
        page = console.post("/ui/config", sent)
        assert "Nothing is listening at this address" in page.words
        assert console.gateway.request("GET", "/api/endpoints/near").status == 200


def test_the_versions_are_shown(console: ConsoleClient) -> None:
    words = console.get("/ui/settings").words
    assert "ICU 77.1" in words
    assert "hubgate 0." in words
