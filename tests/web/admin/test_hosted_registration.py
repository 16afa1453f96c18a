"""A hosted model is registered once it has answered a call, regardless of the Hub's metadata."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike
from lookalikes.hub_api import HubApi
from lookalikes.model import Answer
from running_gateway import RunningGateway

if TYPE_CHECKING:
    from lookalikes.site import Seen

    from hubgate.settings import Settings

NOWHERE = "http://127.0.0.1:9"
MODEL = "org/model"
TOKEN = "hf_" + "hosted" * 5


class ChattingHub(HubApi):
    """A Hub whose metadata lists `MODEL` as served for conversations."""

    def reply(self, seen: Seen) -> Answer:
        serving = {"provider": "novita", "task": "conversational", "status": "live", "providerId": MODEL}
        return Answer(200, {"id": MODEL, "sha": "c" * 40, "inferenceProviderMapping": [serving]})


def hosted(gateway: RunningGateway, task: str, **fields: Any) -> Any:
    form = {"name": "chat", "task": task, "source": "router", "model": MODEL} | fields
    return gateway.request("POST", "/api/endpoints", form)


@pytest.mark.parametrize("task", ["chat_completion", "completion"])
def test_unreachable_hub_and_router_store_nothing_unless_saved_anyway(settings: Settings, task: str) -> None:
    with RunningGateway(replace(settings, hf_endpoint=NOWHERE, router_url=NOWHERE)) as gateway:
        refused = hosted(gateway, task, provider="together")
        assert refused.status >= 400
        assert refused.json()["error"]["cause"] == "connection_refused"
        assert gateway.request("GET", "/api/endpoints").json()["endpoints"] == []
        kept = hosted(gateway, task, save_anyway=True)
        assert (kept.json()["enabled"], kept.json()["tested"]) == (False, False)


def test_model_that_answers_is_registered_without_the_hub(settings: Settings) -> None:
    with (
        lookalike("router", name=MODEL, kind="llm", key=TOKEN) as router,
        RunningGateway(replace(settings, hf_endpoint=NOWHERE, router_url=router.url)) as gateway,
    ):
        without = hosted(gateway, "chat_completion")
        assert without.json()["error"]["cause"] == "token_missing"
        added = hosted(gateway, "chat_completion", token=TOKEN)
        assert added.status < 300, added.json()
        assert (added.json()["tested"], len(router.posts)) == (True, 2)


def test_hub_metadata_alone_does_not_register_a_model(settings: Settings) -> None:
    hub = ChattingHub()
    with (
        hub.running(),
        RunningGateway(replace(settings, hf_endpoint=hub.url, router_url=NOWHERE)) as gateway,
    ):
        for task in ("chat_completion", "completion"):
            refused = hosted(gateway, task, token=TOKEN)
            assert refused.json()["error"]["cause"] == "connection_refused"
