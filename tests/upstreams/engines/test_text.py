"""Generation requests to each kind of server, and how its replies are read, recorded ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from hubgate.domain.calls import Chat, Complete, WireFormat
from hubgate.domain.endpoint import Engine
from hubgate.domain.errors import Cause, HubgateError, InvalidRequest, UpstreamUnreadable
from hubgate.upstreams.engines.generation import GenerationRoute
from hubgate.upstreams.engines.replies.errors import refusal
from hubgate.upstreams.engines.replies.events import ServerEvents
from hubgate.upstreams.engines.replies.text import read_generated
from hubgate.upstreams.engines.response_format import Schemas
from hubgate.upstreams.engines.specs import SPECS
from hubgate.upstreams.http.messages import HttpReply
from hubgate.upstreams.server_models import AfterPrompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENGINES = Path(__file__).parents[2] / "data" / "engines"
HOSTED = Path(__file__).parents[4] / "shared" / "recordings" / "hosted" / "exchanges.json"
SCHEMA = {"type": "object"}


def complete(prompt: str = "hi", *, full_text: bool = False, **fields: object) -> Complete:
    values = {name: orjson.dumps(value) for name, value in fields.items()}
    return Complete(prompt=prompt, fields=values, full_text=full_text)


def chat(**fields: object) -> Chat:
    values = {"messages": [], **fields}
    return Chat(fields={name: orjson.dumps(value) for name, value in values.items()})


def body(engine: Engine, call: Chat | Complete, model: str | None = "m", *, stream: bool = False) -> Any:
    return json.loads(SPECS[engine].generation[type(call)].body(call, model, stream=stream))


OPENAI = [Engine.VLLM, Engine.SGLANG, Engine.LLAMACPP, Engine.TRANSFORMERS, Engine.OPENAI]


@pytest.mark.parametrize("engine", OPENAI)
def test_model_comes_first_and_streams_include_usage(engine: Engine) -> None:
    whole = SPECS[engine].generation[Chat].body(chat(max_tokens=4), "m", stream=False)
    assert whole == b'{"model":"m","messages":[],"max_tokens":4}'
    streamed = body(engine, complete(max_tokens=4), stream=True)
    assert streamed == {
        "model": "m",
        "prompt": "hi",
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_model_field_is_omitted_without_a_name() -> None:
    assert "model" not in body(Engine.VLLM, chat(), None)
    assert "model" not in body(Engine.TGI, chat())


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        (Engine.VLLM, "max_completion_tokens"),
        (Engine.OPENAI, "max_completion_tokens"),
        (Engine.TGI, "max_tokens"),
        (Engine.LLAMACPP, "max_tokens"),
        (Engine.TRANSFORMERS, "max_tokens"),
    ],
)
def test_token_limit_uses_the_field_name_of_the_server(engine: Engine, name: str) -> None:
    assert body(engine, chat(max_completion_tokens=3))[name] == 3


def test_max_completion_tokens_overrides_max_tokens() -> None:
    assert body(Engine.TGI, chat(max_tokens=9, max_completion_tokens=3)) == {"messages": [], "max_tokens": 3}


def test_tgi_receives_stop_as_a_list() -> None:
    assert body(Engine.TGI, chat(stop="x"))["stop"] == ["x"]
    assert body(Engine.TGI, chat(stop=["x", "y"]))["stop"] == ["x", "y"]
    assert body(Engine.VLLM, chat(stop="x"))["stop"] == "x"
    assert body(Engine.TGI, complete(stop="x"))["parameters"]["stop"] == ["x"]


NAMED = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
SPELLINGS: list[dict[str, Any]] = [
    {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    {"type": "json_object", "value": SCHEMA},
    {"type": "json", "value": SCHEMA},
    {"type": "json_object", "schema": SCHEMA},
    {"type": "json_schema", "schema": SCHEMA},
    {"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}},
]


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_schema_is_converted_for_each_server(spelled: dict[str, Any]) -> None:
    openai = body(Engine.VLLM, chat(response_format=spelled))["response_format"]
    assert openai["json_schema"]["schema"] == SCHEMA
    assert openai == (spelled if spelled is SPELLINGS[0] else NAMED)
    tgi = body(Engine.TGI, chat(response_format=spelled))["response_format"]
    assert tgi == {"type": "json_object", "value": SCHEMA}
    grammar = body(Engine.TGI, complete(response_format=spelled))["parameters"]["grammar"]
    assert grammar == {"type": "json", "value": SCHEMA}
    assert body(Engine.VLLM, complete(grammar=spelled))["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    "spelled",
    [{"type": "text"}, {"type": "json_object"}, {"type": "regex", "value": "a+"}, "text", ["json"], {}],
)
def test_response_format_without_schema_is_passed_through(spelled: object) -> None:
    for engine in (Engine.VLLM, Engine.TGI):
        assert body(engine, chat(response_format=spelled))["response_format"] == spelled
    assert Schemas.GRAMMAR.convert(b'{"type":"json"') == b'{"type":"json"'


def test_null_fields_are_omitted_from_a_completion() -> None:
    """The old text-generation-inference client sends every parameter."""
    assert body(Engine.VLLM, complete(seed=None, best_of=None)) == {"model": "m", "prompt": "hi"}
    assert "seed" not in body(Engine.TGI, complete(seed=None))["parameters"]


def test_openai_server_receives_its_own_parameter_names() -> None:
    asked = body(Engine.VLLM, complete(do_sample=False, details=True, watermark=False, truncate=9, top_k=3))
    assert asked == {"model": "m", "prompt": "hi", "top_k": 3, "truncate_prompt_tokens": 9}
    assert body(Engine.VLLM, complete(do_sample=False))["temperature"] == 0
    assert "temperature" not in body(Engine.VLLM, complete(do_sample=True))
    assert body(Engine.LLAMACPP, complete(repetition_penalty=1.1))["repeat_penalty"] == 1.1


def test_langchain_default_parameters_are_accepted() -> None:
    assert body(Engine.VLLM, complete(typical_p=0.95)) == {"model": "m", "prompt": "hi"}
    assert body(Engine.TGI, complete(typical_p=0.95))["parameters"]["typical_p"] == 0.95


@pytest.mark.parametrize(
    ("engine", "fields", "named"),
    [
        (Engine.VLLM, {"typical_p": 0.9, "top_n_tokens": 2}, "[top_n_tokens], [typical_p]"),
        (Engine.SGLANG, {"truncate": 9}, "[truncate]"),
        (Engine.OPENAI, {"grammar": {"type": "regex", "value": "a"}}, "[grammar]"),
        (Engine.TGI, {"n": 2, "suffix": "x"}, "[n], [suffix]"),
        (Engine.TGI, {"presence_penalty": 0.5}, "[presence_penalty]"),
        (Engine.TRANSFORMERS, {"n": 2, "logprobs": 3}, "[logprobs], [n]"),
        (Engine.TRANSFORMERS, {"best_of": 2, "logit_bias": {"5": 1}}, "[best_of], [logit_bias]"),
    ],
)
def test_parameters_the_server_would_ignore_are_rejected_by_name(
    engine: Engine, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(engine, complete(**fields))
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "harmless"),
    [
        ("n", 2, 1),
        ("logprobs", True, False),
        ("top_logprobs", 3, 0),
        ("presence_penalty", 0.5, 0),
        ("response_format", {"type": "json_object"}, {"type": "text"}),
        ("tool_choice", "required", "auto"),
        ("parallel_tool_calls", False, True),
        ("reasoning_effort", "low", None),
        ("modalities", ["audio"], ["text"]),
    ],
)
def test_chat_parameters_that_transformers_serve_ignores_are_rejected_by_name(
    name: str, value: object, harmless: object
) -> None:
    """By `UNUSED_CHAT_COMPLETION_FIELDS` in its source."""
    with pytest.raises(InvalidRequest) as caught:
        body(Engine.TRANSFORMERS, chat(**{name: value}))
    assert f"does not support [{name}]" in caught.value.message
    assert body(Engine.TRANSFORMERS, chat(**{name: harmless}))[name] == harmless
    assert body(Engine.VLLM, chat(**{name: value}))[name] == value


def test_tools_reach_transformers_serve() -> None:
    """It passes them to the chat template."""
    tool = {"type": "function", "function": {"name": "look"}}
    assert body(Engine.TRANSFORMERS, chat(tools=[tool], tool_choice="auto"))["tools"] == [tool]


def test_tgi_receives_its_own_parameter_names() -> None:
    call = complete(max_tokens=4, temperature=0.0, logprobs=2, n=1, best_of=1, user="u", presence_penalty=0)
    assert body(Engine.TGI, call) == {
        "inputs": "hi",
        "parameters": {
            "max_new_tokens": 4,
            "top_n_tokens": 2,
            "best_of": 1,
            "return_full_text": False,
            "details": True,
        },
    }
    assert "top_n_tokens" not in body(Engine.TGI, complete(logprobs=0))["parameters"]
    assert body(Engine.TGI, complete(full_text=True))["parameters"]["return_full_text"] is True
    assert body(Engine.TGI, complete(temperature="hot"))["parameters"]["temperature"] == "hot"


def test_toolkit_receives_its_own_parameter_names() -> None:
    call = complete(max_tokens=4, stop=["x"], temperature=0.5, seed=3, n=1, presence_penalty=0, user="u")
    assert body(Engine.TOOLKIT, call) == {
        "inputs": "hi",
        "parameters": {
            "max_new_tokens": 4,
            "temperature": 0.5,
            "seed": 3,
            "do_sample": True,
            "return_full_text": False,
        },
    }
    assert body(Engine.TOOLKIT, complete(temperature=0, top_p=0.5))["parameters"] == {
        "top_p": 0.5,
        "return_full_text": False,
    }


def test_lone_surrogate_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        body(Engine.VLLM, complete("\ud800"))


def reply(content: object, **headers: str) -> HttpReply:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return HttpReply(
        status=200, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=raw
    )


CHAT_ROUTE = SPECS[Engine.VLLM].generation[Chat]
TGI_ROUTE = SPECS[Engine.TGI].generation[Complete]
HELLO = {"generated_text": "hello"}


@pytest.mark.parametrize("content", [HELLO, [HELLO], [[HELLO]]])
def test_generated_text_is_found_in_nested_lists(content: object) -> None:
    told = read_generated(TGI_ROUTE, complete(), reply(content))
    assert json.loads(told.body) == HELLO
    assert (told.tokens, told.wire_format) == (None, WireFormat.TGI)


def test_token_counts_are_read_from_every_known_place() -> None:
    def tokens(route: GenerationRoute, content: object, **headers: str) -> tuple[int | None, int | None]:
        told = read_generated(route, complete(), reply(content, **headers))
        return told.prompt_tokens, told.tokens

    counted = HELLO | {"details": {"generated_tokens": 3}}
    assert tokens(TGI_ROUTE, counted, x_prompt_tokens="2") == (2, 5)
    assert tokens(TGI_ROUTE, HELLO, x_prompt_tokens="2", x_generated_tokens="4") == (2, 6)
    assert tokens(TGI_ROUTE, counted, x_prompt_tokens="many") == (None, None)
    assert tokens(CHAT_ROUTE, {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}) == (
        2,
        5,
    )
    assert tokens(CHAT_ROUTE, {"choices": [], "usage": None}) == (None, None)


@pytest.mark.parametrize("route", [CHAT_ROUTE, TGI_ROUTE])
@pytest.mark.parametrize("content", [b"{", [], [HELLO, HELLO], {"text": "a"}, [1], b"[" * 5000])
def test_reply_without_generated_text_is_rejected(route: GenerationRoute, content: object) -> None:
    with pytest.raises(UpstreamUnreadable, match="no generated text"):
        read_generated(route, complete(), reply(content))


def test_web_page_is_reported() -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        read_generated(CHAT_ROUTE, chat(), reply(b"<html></html>"))
    assert caught.value.cause is Cause.NOT_AN_API


def recorded(name: str) -> dict[str, dict[str, Any]]:
    exchanges = json.loads((ENGINES / f"{name}.json").read_text("utf-8"))
    return {exchange["label"]: exchange["response"] for exchange in exchanges}


ENGINE_OF = {"vllm-0.32.0-llm": Engine.VLLM, "transformers-serve-5.23": Engine.TRANSFORMERS}


@pytest.mark.parametrize("name", ENGINE_OF)
def test_recorded_chat_and_completions_are_passed_through(name: str) -> None:
    responses = recorded(name)
    for label, kind, tokens in (("chat", Chat, (18, 22)), ("completions", Complete, (2, 5))):
        raw = responses[label]["body"].encode()
        call = chat() if kind is Chat else complete()
        told = read_generated(SPECS[ENGINE_OF[name]].generation[kind], call, reply(raw))
        assert told.body == raw
        assert (told.prompt_tokens, told.tokens) == tokens


CAUSES = {
    "chat wrong model": Cause.MODEL_NOT_FOUND,
    "embeddings on llm": Cause.MODEL_NOT_FOUND,
    "root tgi": Cause.MODEL_NOT_FOUND,
    "chat bad json": Cause.INPUT_REFUSED,
}


@pytest.mark.parametrize("name", ENGINE_OF)
def test_recorded_errors_map_to_their_causes(name: str) -> None:
    for label, cause in CAUSES.items():
        response = recorded(name)[label]
        told = refusal(HttpReply(status=response["status"], headers={}, body=response["body"].encode()), None)
        assert (label, told.cause) == (label, cause)


class Taped:
    """A recorded reply, replayed in chunks of a given size."""

    def __init__(self, content: bytes, size: int, kind: str = "text/event-stream") -> None:
        self.status = 200
        self.headers = {"content-type": kind}
        self.content = content
        self.size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    async def read(self) -> bytes:
        chunk, self.content = self.content[: self.size], self.content[self.size :]
        return chunk

    async def rest(self) -> HttpReply:
        return HttpReply(status=200, headers=self.headers, body=self.content)

    async def finish(self) -> None:
        """Nothing is held."""

    async def aclose(self) -> None:
        """Nothing is held."""


async def played(content: str, wire_format: WireFormat, size: int) -> list[Any]:
    events = ServerEvents(Taped(content.encode(), size), wire_format, lambda told: refusal(told, None))
    await events.begin()
    payloads = [json.loads(payload) async for together in events for payload in together]
    await events.aclose()
    return payloads


@pytest.mark.parametrize("size", [7, 100_000])
@pytest.mark.parametrize("name", ENGINE_OF)
async def test_recorded_streams_are_read_to_the_end(name: str, size: int) -> None:
    responses = recorded(name)
    for label in ("chat stream", "chat stream usage", "completions stream"):
        payloads = await played(responses[label]["body"], WireFormat.OPENAI, size)
        reasons = [c.get("finish_reason") for p in payloads for c in p["choices"] if c.get("finish_reason")]
        assert reasons == ["length"]


def hosted(text: str) -> list[dict[str, Any]]:
    exchanges = json.loads(HOSTED.read_text("utf-8"))
    return [
        one for one in exchanges if text in one["headers"].get("content-type", "") and one["status"] == 200
    ]


beside_the_project = pytest.mark.skipif(
    not HOSTED.exists(), reason="the recorded exchanges with hosted models lie beside the project"
)


@beside_the_project
@pytest.mark.parametrize("size", [7, 100_000])
async def test_every_recorded_hosted_stream_is_read_or_reports_an_error(size: int) -> None:
    streams = hosted("event-stream")
    assert len(streams) > 10
    texts = 0
    for stream in streams:
        wire_format = WireFormat.OPENAI if "chat" in stream["kind"] else WireFormat.TGI
        if not stream["body"].endswith("\n\n"):
            continue  # one recording was cut off
        if "Input validation error" in stream["body"]:
            with pytest.raises(HubgateError) as caught:
                await played(stream["body"], wire_format, size)
            assert caught.value.cause is Cause.INPUT_REFUSED
        else:
            assert await played(stream["body"], wire_format, size)
            texts += 1
    assert texts > 8


@beside_the_project
async def test_recorded_flan_t5_stream_is_read() -> None:
    stream = next(one for one in hosted("event-stream") if "flan-t5" in one["url"])
    payloads = await played(stream["body"], WireFormat.TGI, 20)
    assert [payload["token"]["text"] for payload in payloads] == ["one", " two", " three", " four", "</s>"]
    assert payloads[-1]["generated_text"] == "one two three four"


@beside_the_project
def test_every_recorded_hosted_text_is_read() -> None:
    read = 0
    for one in hosted("json"):
        if one["kind"] not in {"chat", "generate"}:
            continue
        route, call = (CHAT_ROUTE, chat()) if '"choices"' in one["body"] else (TGI_ROUTE, complete())
        told = read_generated(route, call, reply(one["body"].encode()))
        assert told.body in one["body"].encode()
        read += 1
    assert read > 10


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_invalid_utf8_is_rejected_and_non_ascii_text_is_accepted(size: int) -> None:
    said = '{"choices": [{"message": {"content": "%s"}}]}' % ("é" * size)
    good = said.encode()
    assert read_generated(CHAT_ROUTE, chat(), reply(good)).body == good
    with pytest.raises(UpstreamUnreadable, match="not valid UTF-8"):
        read_generated(CHAT_ROUTE, chat(), reply(said.encode("latin-1")))


async def test_json_instead_of_a_stream_is_reported() -> None:
    for content, cause in (
        (b'{"choices": []}', Cause.UNREADABLE_REPLY),
        (b"not json", Cause.UNREADABLE_REPLY),
        (b'{"error": {"message": "no cache", "code": "429"}}', Cause.OVERLOADED),
        (b"<html></html>", Cause.NOT_AN_API),
    ):
        events = ServerEvents(
            Taped(content, 99, "application/json"), WireFormat.OPENAI, lambda told: refusal(told, None)
        )
        with pytest.raises(HubgateError) as caught:
            await events.begin()
        assert caught.value.cause is cause


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        ({"error": "Model is overloaded", "error_type": "overloaded"}, Cause.OVERLOADED),
        ({"error": {"message": "bad", "code": 400}}, Cause.INPUT_REFUSED),
        ({"object": "error", "message": "bad", "code": 400}, Cause.INPUT_REFUSED),
        ({"error": {"message": "odd", "code": "internal"}}, Cause.UPSTREAM_FAILED),
        ({"error": ["a", "b"]}, Cause.UPSTREAM_FAILED),
    ],
)
async def test_error_event_maps_to_its_cause(payload: object, cause: Cause) -> None:
    with pytest.raises(HubgateError) as caught:
        await played(f"data: {json.dumps(payload)}\n\n", WireFormat.OPENAI, 99)
    assert caught.value.cause is cause


async def test_null_error_field_or_error_in_text_is_not_an_error() -> None:
    said = {"choices": [{"delta": {"content": '{"error": 1}'}, "finish_reason": "stop"}], "error": None}
    assert await played(f"data: {json.dumps(said)}\n\n", WireFormat.OPENAI, 5) == [said]


async def test_unterminated_last_event_is_accepted_if_complete() -> None:
    said = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    assert await played(f"data: {json.dumps(said)}", WireFormat.OPENAI, 5) == [said]
    with pytest.raises(HubgateError, match="text is incomplete"):
        await played(f"data: {json.dumps(said)[:-2]}", WireFormat.OPENAI, 5)


async def test_malformed_event_does_not_complete_the_stream() -> None:
    taped = Taped(b'data: {"choices": [\n\n', 99)
    events = ServerEvents(taped, WireFormat.OPENAI, lambda told: refusal(told, None))
    await events.begin()
    with pytest.raises(HubgateError, match="text is incomplete"):
        assert [together async for together in events] == []


async def test_stream_with_only_done_is_empty() -> None:
    assert await played("data: [DONE]\n\n", WireFormat.OPENAI, 99) == []


@pytest.mark.parametrize(
    "said", [b'{"choices": [', b'{"choices": [1]}', b'{"choices": [{"index": 0, "text": 1}]}']
)
async def test_prompt_cannot_be_prepended_to_a_chunk_without_text(said: bytes) -> None:
    with pytest.raises(UpstreamUnreadable):
        read_generated(SPECS[Engine.VLLM].generation[Complete], complete(full_text=True), reply(said))
    taped = Taped(b"data: " + said + b"\n\n", 99)
    events = ServerEvents(taped, WireFormat.OPENAI, lambda told: refusal(told, None))
    await events.begin()
    with pytest.raises(UpstreamUnreadable):
        assert [together async for together in AfterPrompt(events, "hi")] == []


async def test_error_event_with_infinite_code_is_an_error() -> None:
    with pytest.raises(UpstreamUnreadable):
        await played('data: {"error": {"code": 1e400}}\n\n', WireFormat.OPENAI, 99)


@pytest.mark.parametrize("stop", [5, ["a", 1], {}])
def test_invalid_stop_is_rejected_before_calling_toolkit(stop: object) -> None:
    with pytest.raises(InvalidRequest, match="stop"):
        body(Engine.TOOLKIT, complete(stop=stop))
