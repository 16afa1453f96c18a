"""Requests to a server that generates text: chats and completions."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
from elasticsearch import ApiError, NotFoundError
from huggingface_hub.errors import HfHubHTTPError

from engines.stage import refused, same
from hubgate.core.sse import SseParser

if TYPE_CHECKING:
    from engines.stage import Check, Stage

CHAT, TEXT = "chat_completion", "completion"
PROMPT = "which boats come with the first light ?"
ASKED: Any = [{"role": "system", "content": "answer in one word"}, {"role": "user", "content": PROMPT}]
COUNTS = {"prompt_tokens", "completion_tokens", "total_tokens"}
"""The details of usage differ: a server may have cached what it was asked before."""
MOST = 12
"""Tokens to be written, where it can be said."""


def recognised(stage: Stage) -> None:
    """The gateway knows what it is, and finds it well."""
    stage.check_recognised(CHAT)
    stage.check_recognised(TEXT)


def openai_chats(stage: Stage) -> None:
    """By openai: chats have the server's own text, end and usage, whole and streamed."""
    expected = _chat(stage)
    model = stage.name_of(CHAT)
    whole = stage.openai.chat.completions.create(model=model, messages=ASKED, max_tokens=MOST)
    _same_end(whole.choices[0], expected)
    same(whole.choices[0].message.content, expected["message"]["content"])
    assert whole.usage is not None
    told = whole.usage.model_dump(include=COUNTS)
    same(told, {count: expected["usage"][count] for count in COUNTS}, "usage")
    chunks = list(
        stage.openai.chat.completions.create(
            model=model,
            messages=ASKED,
            max_tokens=MOST,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert len(choices) > MOST / 2, f"{len(choices)} chunks are no stream"
    same("".join(choice.delta.content or "" for choice in choices), expected["message"]["content"])
    _same_end(choices[-1], expected)
    usage = next(chunk.usage for chunk in reversed(chunks) if chunk.usage)
    same(usage.completion_tokens, expected["usage"]["completion_tokens"], "usage of a stream")


def openai_completes(stage: Stage) -> None:
    """By openai: completions have the server's own text, end and usage, whole, streamed and after the prompt."""
    expected, model = _completion(stage), stage.name_of(TEXT)
    create = stage.openai.completions.create
    whole = create(model=model, prompt=PROMPT, max_tokens=MOST)
    same(whole.choices[0].text, expected["text"])
    _same_end(whole.choices[0], expected)
    assert whole.usage is not None
    same(whole.usage.total_tokens, expected["usage"]["total_tokens"], "usage")
    chunks = list(create(model=model, prompt=PROMPT, max_tokens=MOST, stream=True))
    same("".join(choice.text for chunk in chunks for choice in chunk.choices), expected["text"])
    echoed = create(model=model, prompt=PROMPT, max_tokens=MOST, echo=True)
    same(echoed.choices[0].text, PROMPT + expected["text"])


def openai_to_the_end(stage: Stage) -> None:
    """By openai: a chat that comes to its own end says so."""
    expected = _chat(stage, most=200)
    whole = stage.openai.chat.completions.create(model=stage.name_of(CHAT), messages=ASKED, max_tokens=200)
    same(whole.choices[0].message.content, expected["message"]["content"])
    _same_end(whole.choices[0], expected)


def hub_chats(stage: Stage) -> None:
    """By huggingface_hub: chats have the server's own text, whole and streamed."""
    expected, client = _chat(stage), stage.hub(CHAT)
    whole = client.chat_completion(ASKED, max_tokens=MOST)
    same(whole.choices[0].message.content, expected["message"]["content"])
    chunks = client.chat_completion(ASKED, max_tokens=MOST, stream=True)
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    same(told, expected["message"]["content"])


def hub_generates(stage: Stage) -> None:
    """By huggingface_hub: generated texts are the server's own, whole and streamed, with the details of TGI."""
    expected, client = _completion(stage), stage.hub(TEXT)
    written = expected["usage"]["completion_tokens"]
    same(client.text_generation(PROMPT, max_new_tokens=MOST), expected["text"])
    whole = client.text_generation(PROMPT, max_new_tokens=MOST, details=True, return_full_text=True)
    same(whole.generated_text, PROMPT + expected["text"])
    assert whole.details is not None
    same(whole.details.generated_tokens, written, "generated_tokens")
    same("".join(client.text_generation(PROMPT, max_new_tokens=MOST, stream=True)), expected["text"])
    events = list(client.text_generation(PROMPT, max_new_tokens=MOST, stream=True, details=True))
    same(events[-1].generated_text, expected["text"])
    assert events[-1].details is not None
    same(events[-1].details.generated_tokens, written, "generated_tokens of a stream")


def elastic_completes(stage: Stage) -> None:
    """By elasticsearch: completions are the server's own, whole and streamed, asked as a user asks and as long as it likes."""
    told = stage.directly("/v1/chat/completions", messages=[{"role": "user", "content": PROMPT}])
    expected = told["choices"][0]["message"]["content"]
    name = stage.name_of(TEXT)
    whole = stage.elastic.inference.completion(inference_id=name, input=PROMPT)
    same(whole["completion"], [{"result": expected}])
    events = _elastic_events(stage, f"/_inference/completion/{name}/_stream", {"input": PROMPT})
    same("".join(delta["delta"] for event in events for delta in event["completion"]), expected)


def elastic_chats(stage: Stage) -> None:
    """By elasticsearch: chats are the server's own, whole and streamed."""
    expected, name = _chat(stage)["message"]["content"], stage.name_of(CHAT)
    asked = {"messages": ASKED, "max_completion_tokens": MOST}
    told = _elastic_events(stage, f"/_inference/chat_completion/{name}/_stream", asked)
    deltas = [choice["delta"] for event in told for choice in event["choices"]]
    same("".join(delta.get("content", "") for delta in deltas), expected)
    reply = stage.gateway.request("POST", f"/_inference/chat_completion/{name}", asked)
    same(reply.json()["choices"][0]["message"]["content"], expected)


def many_at_once(stage: Stage) -> None:
    """Of 24 conversations at once, streamed and whole, each has its own answer."""
    words = ["gate", "harbour", "boats", "gulls", "ice", "nets"]
    asked = [[{"role": "user", "content": f"{word} {other}"}] for word in words[:4] for other in words]
    expected = [_chat(stage, messages=messages)["message"]["content"] for messages in asked]
    assert len(set(expected)) > len(words), "the model says the same to everything"

    def ask(place: int) -> str:
        create, model = stage.openai.chat.completions.create, stage.name_of(CHAT)
        messages: Any = asked[place]
        if place % 2:
            whole = create(model=model, messages=messages, max_tokens=MOST)
            return whole.choices[0].message.content or ""
        chunks = create(model=model, messages=messages, max_tokens=MOST, stream=True)
        return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)

    with ThreadPoolExecutor(len(asked)) as pool:
        same(list(pool.map(ask, range(len(asked)))), expected)


def left_early(stage: Stage) -> None:
    """A stream that its reader leaves takes nothing from the next one."""
    model = stage.name_of(CHAT)
    for _ in range(5):
        stream = stage.openai.chat.completions.create(
            model=model, messages=ASKED, max_tokens=200, stream=True
        )
        next(iter(stream))
        stream.close()
    openai_chats(stage)


def counted(stage: Stage) -> None:
    """The tokens of whole and streamed texts stand in the gateway's usage, as the server tells them."""
    expected, before = _chat(stage)["usage"], stage.used(CHAT)
    model, create = stage.name_of(CHAT), stage.openai.chat.completions.create
    create(model=model, messages=ASKED, max_tokens=MOST)
    list(create(model=model, messages=ASKED, max_tokens=MOST, stream=True))
    after = stage.used(CHAT)
    told = (after[0] - before[0], after[1] - before[1])
    same(told, (2 * expected["prompt_tokens"], 2 * expected["completion_tokens"]), "usage")


def refuses_names(stage: Stage) -> None:
    """A name that is no endpoint's is refused on all three faces, in each client's own error."""
    said = "none-such"
    create = stage.openai.chat.completions.create
    refused(lambda: create(model=said, messages=ASKED), openai.NotFoundError, said)
    hub = stage.hub("none_such")
    refused(lambda: hub.chat_completion(ASKED), HfHubHTTPError, said)
    elastic = stage.elastic.inference
    refused(lambda: elastic.completion(inference_id=said, input=PROMPT), NotFoundError, said)


def refuses_tasks(stage: Stage) -> None:
    """What it does not do is refused, called and registered."""
    words = "not text_embedding"
    model = stage.name_of(CHAT)
    refused(lambda: stage.openai.embeddings.create(model=model, input=PROMPT), openai.BadRequestError, words)
    elastic = stage.elastic.inference
    refused(lambda: elastic.text_embedding(inference_id=model, input=PROMPT), ApiError)
    reply = stage.gateway.request("POST", f"/hf/{model}/embed", {"inputs": PROMPT})
    assert words in reply.json()["error"], reply.body
    told = stage.register("wrong", "text_embedding")["error"]
    same(told["cause"], "wrong_task")


def too_long_is_told(stage: Stage) -> None:
    """A text longer than the model reads is refused on all three faces, with that cause."""
    long = "gate " * 600
    create, model = stage.openai.chat.completions.create, stage.name_of(CHAT)
    messages: Any = [{"role": "user", "content": long}]
    words = "longer than the model's limit"
    refused(lambda: create(model=model, messages=messages), openai.BadRequestError, words)
    refused(lambda: list(create(model=model, messages=messages, stream=True)), openai.BadRequestError, words)
    refused(lambda: stage.hub(TEXT).text_generation(long), Exception, words)
    elastic = stage.elastic.inference
    refused(lambda: elastic.completion(inference_id=stage.name_of(TEXT), input=long), ApiError, words)


def too_long_is_as_there(stage: Stage) -> None:
    """A text longer than the model was made for is answered as there: the server refuses none."""
    messages: Any = [{"role": "user", "content": "gate " * 600}]
    expected = _chat(stage, messages=messages)["message"]["content"]
    model = stage.name_of(CHAT)
    whole = stage.openai.chat.completions.create(model=model, messages=messages, max_tokens=MOST)
    same(whole.choices[0].message.content, expected)


def broken_is_told(stage: Stage) -> None:
    """A call over which the server crashes is told as that, and the next one is answered."""
    messages: Any = [{"role": "user", "content": 7}]
    model = stage.name_of(CHAT)
    create = stage.openai.chat.completions.create
    refused(lambda: create(model=model, messages=messages), openai.APIStatusError, "The server")
    openai_chats(stage)


def _chat(stage: Stage, *, messages: Any = ASKED, most: int = MOST) -> Any:
    """The server's own choice, with the usage."""
    told = stage.directly("/v1/chat/completions", messages=messages, max_tokens=most)
    return told["choices"][0] | {"usage": told["usage"]}


def _completion(stage: Stage) -> Any:
    told = stage.directly("/v1/completions", prompt=PROMPT, max_tokens=MOST)
    return told["choices"][0] | {"usage": told["usage"]}


def _same_end(choice: Any, expected: Any) -> None:
    same(choice.finish_reason, expected["finish_reason"], "finish_reason")


def _elastic_events(stage: Stage, path: str, body: object) -> list[Any]:
    headers = {"accept": "text/event-stream", "content-type": "application/json"}
    told = stage.elastic.perform_request("POST", path, headers=headers, body=body)
    parser = SseParser()
    payloads = parser.feed(str(told.body).encode())
    assert parser.done, "it does not end with [DONE]"
    return [json.loads(payload) for payload in payloads]


CHECKS: tuple[Check, ...] = (
    recognised,
    openai_chats,
    openai_completes,
    openai_to_the_end,
    hub_chats,
    hub_generates,
    elastic_completes,
    elastic_chats,
    many_at_once,
    left_early,
    counted,
    refuses_names,
    refuses_tasks,
)
