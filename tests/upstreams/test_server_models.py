"""Text generation by each kind of server, with and without streaming, over a socket."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from lookalikes import LookAlike, lookalike
from msgspec import structs

from hubgate.domain.calls import Chat, Complete, WireFormat
from hubgate.domain.endpoint import Endpoint, Engine, Source, Target, Task
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, UpstreamRefused
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hubgate.domain.calls import GenerationCall
    from hubgate.domain.ports import Events, TextGenerator

OPENAI = ["vllm", "sglang", "llamacpp", "transformers"]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[ModelSources]:
    sources = ModelSources(Settings(home=tmp_path, secret_key_file=tmp_path / "key"))
    yield sources
    await sources.close()


async def opened(
    sources: ModelSources, server: LookAlike, token: Secret | None = None, **fields: Any
) -> TextGenerator:
    values = {"name": "w", "task": Task.COMPLETION, "source": Source.DEDICATED, "url": server.url} | fields
    draft = Endpoint(**values)
    return sources.open_generator(
        Target(replace(draft, facts=await sources.detect(Target(draft, token))), token)
    )


def chat(text: str = "one two", **fields: object) -> Chat:
    values = {"messages": [{"role": "user", "content": text}], **fields}
    return Chat(fields={name: orjson.dumps(value) for name, value in values.items()})


def complete(prompt: str = "one two", *, full_text: bool = False, **fields: object) -> Complete:
    values = {name: orjson.dumps(value) for name, value in fields.items()}
    return Complete(prompt=prompt, fields=values, full_text=full_text)


async def read(events: Events) -> list[Any]:
    payloads = [json.loads(payload) async for together in events for payload in together]
    await events.aclose()
    return payloads


async def streamed(writer: TextGenerator, call: GenerationCall) -> list[Any]:
    return await read(await writer.stream(call))


def chat_text(chunks: list[Any]) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def text_of(chunks: list[Any]) -> str:
    return "".join(c["choices"][0]["text"] for c in chunks if c["choices"])


@pytest.mark.parametrize("engine", [*OPENAI, "tgi"])
async def test_every_chat_server_works_with_and_without_streaming(sources: ModelSources, engine: str) -> None:
    with lookalike(engine, kind="llm") as server:
        writer = await opened(sources, server)
        whole = await writer.generate(chat())
        chunks = await streamed(writer, chat())
        await writer.close()
    body = json.loads(whole.body)
    assert whole.wire_format is WireFormat.OPENAI
    assert body["choices"][0]["message"]["content"] == "You said: one two"
    assert (whole.prompt_tokens, whole.tokens) == (2, 6)
    assert chat_text(chunks) == "You said: one two"
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if chunk.get("usage")] == [6]


@pytest.mark.parametrize("engine", OPENAI)
async def test_every_openai_server_completes_texts(sources: ModelSources, engine: str) -> None:
    with lookalike(engine, kind="llm") as server:
        writer = await opened(sources, server)
        whole = await writer.generate(complete(max_tokens=3))
        chunks = await streamed(writer, complete(max_tokens=3))
    assert json.loads(whole.body)["choices"][0]["text"] == "You said: one"
    assert json.loads(whole.body)["choices"][0]["finish_reason"] == "length"
    assert (whole.prompt_tokens, whole.tokens) == (2, 5)
    assert text_of(chunks) == "You said: one"


async def test_tgi_completes_texts_with_its_own_format(sources: ModelSources) -> None:
    with lookalike("tgi", kind="llm") as server:
        writer = await opened(sources, server)
        whole = await writer.generate(complete(max_tokens=3))
        events = await writer.stream(complete(max_tokens=3))
        payloads = await read(events)
    assert whole.wire_format is events.wire_format is WireFormat.TGI
    assert json.loads(whole.body)["generated_text"] == "You said: one"
    assert (whole.prompt_tokens, whole.tokens) == (2, 5)
    assert [payload["token"]["text"] for payload in payloads] == ["You", " said:", " one"]
    assert payloads[-1]["generated_text"] == "You said: one"


@pytest.mark.parametrize("kind", ["llm", "text2text"])
async def test_toolkit_replies_whole_or_as_one_stream_event(sources: ModelSources, kind: str) -> None:
    """A text2text pipeline rejects `return_full_text`, which is discovered once."""
    with lookalike("toolkit", kind=kind) as server:
        writer = await opened(sources, server)
        whole = await writer.generate(complete())
        asked = len(server.posts)
        payloads = await streamed(writer, complete())
        assert len(server.posts) == asked + 1
    assert whole.wire_format is WireFormat.TGI
    assert json.loads(whole.body) == {"generated_text": "You said: one two"}
    assert whole.tokens is None
    assert [payload["generated_text"] for payload in payloads] == ["You said: one two"]
    assert payloads[0]["token"]["text"] == "You said: one two"


@pytest.mark.parametrize("is_first", [False, True], ids=["later", "first"])
async def test_one_error_reply_does_not_change_the_route_of_all_calls(
    sources: ModelSources, is_first: bool
) -> None:
    """A caller who sends `return_text` gets an error that names `return_full_text`, as a text2text pipeline's does."""
    with lookalike("toolkit", kind="llm") as server:
        writer = await opened(sources, server)
        if not is_first:
            await writer.generate(complete())
        server.fail("exclusive")
        with pytest.raises(HubgateError):
            await writer.generate(complete(return_text=True))
        server.heal()
        assert json.loads((await writer.generate(complete())).body) == {"generated_text": "You said: one two"}
        assert server.posts[-1].json["parameters"]["return_full_text"] is False


async def test_toolkit_chats_whole_or_as_one_chunk(sources: ModelSources) -> None:
    with lookalike("toolkit", kind="llm") as server:
        writer = await opened(sources, server)
        call = chat(max_tokens=9, temperature=0.5, stop=["two"], tools=None)
        whole = json.loads((await writer.generate(call)).body)
        sent = server.posts[-1].json
        events = await writer.stream(call)
        assert events.wire_format is WireFormat.OPENAI
        chunks = await read(events)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "You said: one "}
    assert (whole["object"], whole["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
    assert sent["inputs"] == [{"role": "user", "content": "one two"}]
    assert sent["parameters"] == {
        "max_new_tokens": 9,
        "temperature": 0.5,
        "do_sample": True,
        "return_full_text": False,
    }
    assert [chunk["object"] for chunk in chunks] == ["chat.completion.chunk"]
    assert chat_text(chunks) == "You said: one "


@pytest.mark.parametrize("kind", ["summarization", "translation"])
async def test_toolkit_summarization_and_translation_replies_are_read(
    sources: ModelSources, kind: str
) -> None:
    """These are the replies of BART and T5 deployed with the Hub's default task."""
    with lookalike("toolkit", kind=kind) as server:
        writer = await opened(sources, server)
        whole = await writer.generate(complete(max_tokens=3))
        payloads = await streamed(writer, complete())
    assert json.loads(whole.body) == {"generated_text": "You said: one"}
    assert payloads[0]["token"]["text"] == payloads[0]["generated_text"] == "You said: one two"


@pytest.mark.parametrize("engine", [*OPENAI, "tgi", "toolkit"])
async def test_full_text_starts_with_the_prompt_on_request(sources: ModelSources, engine: str) -> None:
    with lookalike(engine, kind="llm") as server:
        writer = await opened(sources, server)
        whole = json.loads((await writer.generate(complete(full_text=True))).body)
        payloads = await streamed(writer, complete(full_text=True))
    if engine in OPENAI:
        assert whole["choices"][0]["text"] == text_of(payloads) == "one twoYou said: one two"
    else:
        assert whole["generated_text"] == payloads[-1]["generated_text"] == "one twoYou said: one two"


async def test_toolkit_respects_stop_sequences(sources: ModelSources) -> None:
    with lookalike("toolkit", kind="llm") as server:
        writer = await opened(sources, server)
        texts = [
            json.loads((await writer.generate(complete(stop=stop, full_text=full))).body)["generated_text"]
            for stop, full in ((" one", False), (["two", " one"], False), (["no"], False), (" one", True))
        ]
        assert "stop" not in server.posts[-1].json["parameters"]
    assert texts == ["You said:", "You said:", "You said: one two", "one twoYou said:"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llamacpp", "tgi"])
async def test_schema_is_forwarded_from_any_supported_format(sources: ModelSources, engine: str) -> None:
    with lookalike(engine, kind="llm") as server:
        writer = await opened(sources, server)
        for spelled in (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            {"type": "json_object", "value": SCHEMA},
        ):
            whole = json.loads((await writer.generate(chat(response_format=spelled, max_tokens=99))).body)
            assert json.loads(whole["choices"][0]["message"]["content"]) == {"schema": SCHEMA}


async def test_parameter_that_transformers_serve_ignores_is_not_sent(sources: ModelSources) -> None:
    with lookalike("transformers", kind="llm") as server:
        writer = await opened(sources, server)
        posts = len(server.posts)
        error = await failure(writer, chat(n=2, response_format={"type": "json_object"}))
        assert "transformers serve, does not support [n], [response_format]" in error.message
        assert len(server.posts) == posts
        assert (await writer.generate(chat(n=1, response_format={"type": "text"}))).tokens == 6


async def test_tool_calls_work(sources: ModelSources) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    with lookalike("vllm", kind="llm") as server:
        writer = await opened(sources, server)
        whole = json.loads((await writer.generate(chat(tools=[tool]))).body)
        chunks = await streamed(writer, chat(tools=[tool]))
    assert whole["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look"
    assert chunks[1]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "look"


async def test_unconverted_fields_arrive_byte_for_byte(sources: ModelSources) -> None:
    fields = {"messages": b'[{"role":"user","content":"a \\u00e4  \\/"}]', "odd": b'{"x": [1.50, 1e2]}'}
    with lookalike("vllm", kind="llm") as server:
        writer = await opened(sources, server)
        await writer.generate(Chat(fields=fields))
        sent = server.posts[-1].body
    assert sent == b'{"model":"look/alike","messages":%(messages)b,"odd":%(odd)b}' % {
        name.encode(): value for name, value in fields.items()
    }


async def test_any_model_name_is_accepted_for_text_generation(sources: ModelSources) -> None:
    """Servers like vLLM require the name they report; transformers serve often serves an unreported one, or none."""
    for engine in ("vllm", "transformers"):
        with lookalike(engine, kind="llm") as server:
            writer = await opened(sources, server, model="org/whatever")
            assert (await writer.generate(chat())).tokens == 6
            posts = len(server.posts)
            assert chat_text(await streamed(writer, chat())) == "You said: one two"
            assert len(server.posts) == posts + 1


async def failure(writer: TextGenerator, call: GenerationCall) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await writer.generate(call)
    return caught.value


async def broken(events: Events) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await read(events)
    return caught.value


@pytest.mark.parametrize("engine", ["vllm", "tgi"])
async def test_out_of_range_parameter_is_rejected_before_the_stream_starts(
    sources: ModelSources, engine: str
) -> None:
    """text-generation-inference reports it in the first event of a stream with status 200."""
    with lookalike(engine, kind="llm") as server:
        writer = await opened(sources, server)
        told = await failure(writer, complete(max_tokens=5000))
        with pytest.raises(HubgateError) as caught:
            await writer.stream(complete(max_tokens=5000))
    assert told.cause is caught.value.cause is Cause.INPUT_REFUSED
    assert "5000" in told.message
    assert "5000" in caught.value.message


async def test_parameter_unknown_to_the_toolkit_is_named(sources: ModelSources) -> None:
    with lookalike("toolkit", kind="text2text") as server:
        error = await failure(await opened(sources, server), complete(seed=3, logprobs=2))
    assert error.cause is Cause.INPUT_REFUSED
    assert "does not know [seed], [logprobs]." in error.message


@pytest.mark.parametrize("engine", ["toolkit", "tgi"])
async def test_model_without_chat_support_reports_it(sources: ModelSources, engine: str) -> None:
    with lookalike(engine, kind="base") as server:
        error = await failure(await opened(sources, server), chat())
    assert error.cause in {Cause.WRONG_TASK, Cause.INPUT_REFUSED}


@pytest.mark.parametrize("engine", ["vllm", "tei", "infinity", "sglang"])
async def test_embedding_server_is_rejected_for_text_generation(sources: ModelSources, engine: str) -> None:
    with lookalike(engine) as server, pytest.raises(InvalidEndpoint) as caught:
        await opened(sources, server)
    assert caught.value.cause is Cause.WRONG_TASK


async def test_engine_without_generation_opens_no_generator(sources: ModelSources) -> None:
    draft = Endpoint(
        name="w", task=Task.COMPLETION, source=Source.DEDICATED, url="http://127.0.0.1:1", engine=Engine.TEI
    )
    with pytest.raises(InvalidEndpoint, match="does not generate text"):
        sources.open_generator(Target(draft))


FAULTS = {
    "error-event": (Cause.UPSTREAM_FAILED, "out of cache blocks"),
    "error-object": (Cause.UPSTREAM_FAILED, "EngineCore"),
    "garbage": (Cause.UNREADABLE_REPLY, "not a JSON object"),
    "not-utf8-event": (Cause.UNREADABLE_REPLY, "not valid UTF-8"),
    "cut": (Cause.CONNECTION_LOST, "closed the connection"),
    "unfinished": (Cause.CONNECTION_LOST, "text is incomplete"),
}


@pytest.mark.parametrize("engine", ["vllm", "tgi", "transformers"])
async def test_broken_stream_yields_received_events_and_then_its_cause(
    sources: ModelSources, engine: str
) -> None:
    with lookalike(engine, kind="llm") as server:
        writer = await opened(sources, server)
        for fault, (cause, words) in FAULTS.items():
            server.fail(fault, times=1)
            events = await writer.stream(complete())
            texts: list[bytes] = []
            error = None
            try:
                async for together in events:
                    texts += together
            except HubgateError as raised:
                error = raised
            await events.aclose()
            assert error is not None
            assert (fault, error.cause, len(texts)) == (fault, cause, 2)
            assert words in error.message


async def test_stalled_stream_times_out(sources: ModelSources) -> None:
    with lookalike("vllm", kind="llm") as server:
        endpoint = Endpoint(name="w", task=Task.COMPLETION, source=Source.DEDICATED, url=server.url)
        endpoint = replace(endpoint, facts=await sources.detect(Target(endpoint)), timeout=0.3)
        server.fail("stall")
        with pytest.raises(HubgateError, match=r"0\.3 seconds") as late:
            await read(await sources.open_generator(Target(endpoint)).stream(complete()))
    assert late.value.cause is Cause.UPSTREAM_TIMEOUT


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("html", Cause.NOT_AN_API),
        ("not-json", Cause.UNREADABLE_REPLY),
        ("wrong-token", Cause.WRONG_TOKEN),
        ("waking-503", Cause.WAKING),
        ("close", Cause.CONNECTION_LOST),
        ("redirect", Cause.UPSTREAM_REDIRECTS),
    ],
)
async def test_invalid_stream_is_an_error_at_start(sources: ModelSources, fault: str, cause: Cause) -> None:
    with lookalike("vllm", kind="llm") as server:
        writer = await opened(sources, server, Secret("hf_one"))
        server.fail(fault)
        assert (await failure(writer, chat())).cause is cause
        with pytest.raises(HubgateError) as caught:
            await writer.stream(chat())
    assert caught.value.cause is cause


async def test_closing_a_stream_closes_its_connection(sources: ModelSources) -> None:
    with lookalike("vllm", kind="llm") as server:
        writer = await opened(sources, server)
        server.fail("stall")
        events = await writer.stream(complete())
        await events.aclose()
        await events.aclose()
        await asyncio.to_thread(server.wait_until, lambda s: s.streams == 0 and s.abandoned == 1)


async def test_cancelling_a_stream_read_closes_its_connection(sources: ModelSources) -> None:
    with lookalike("vllm", kind="llm") as server:
        writer = await opened(sources, server)
        server.fail("stall")

        async def reader() -> None:
            events = await writer.stream(complete())
            try:
                await read(events)
            finally:
                await events.aclose()

        task = asyncio.create_task(reader())
        await asyncio.to_thread(server.wait_until, lambda s: s.streams == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.wait_until, lambda s: s.streams == 0 and s.abandoned == 1)


async def test_hold_time_is_sent_as_scale_up_timeout(sources: ModelSources) -> None:
    with lookalike("vllm", kind="llm") as server:
        writer = await opened(sources, server)
        call = chat()
        await writer.generate(structs.replace(call, context=structs.replace(call.context, hold=42.9)))
        assert server.posts[-1].headers["x-scale-up-timeout"] == "42"
        await writer.generate(call)
        assert "x-scale-up-timeout" not in server.posts[-1].headers


async def test_chat_that_is_too_long_gets_no_advice_to_truncate(sources: ModelSources) -> None:
    with lookalike("llamacpp", kind="llm", max_tokens=10) as server:
        writer = await opened(sources, server, task=Task.CHAT_COMPLETION)
        with pytest.raises(UpstreamRefused) as caught:
            await writer.generate(chat("word " * 20))
        streamed = await _error_of_stream(writer, chat("word " * 20))
    for error in (caught.value, streamed):
        assert error.cause is Cause.INPUT_TOO_LONG
        assert error.remedy.startswith("Send a shorter prompt")


async def _error_of_stream(writer: TextGenerator, call: Chat) -> UpstreamRefused:
    with pytest.raises(UpstreamRefused) as caught:
        await writer.stream(call)
    return caught.value
