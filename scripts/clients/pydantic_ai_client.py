"""pydantic-ai with OpenAI's Responses API: a conversation, streams, tools, structured output and errors."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from expected import KEY, PROMPT, SPENT_KEY, URL, check_text, passed, version_of
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput  # type: ignore[import-not-found]
from pydantic_ai.exceptions import ModelHTTPError  # type: ignore[import-not-found]
from pydantic_ai.models.openai import OpenAIResponsesModel  # type: ignore[import-not-found]
from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found]

version_of("pydantic-ai-slim", "openai")


class Said(BaseModel):
    """The model replies with an object that has the schema."""

    note: str = ""


def model(name: str = "llm", key: str = KEY) -> Any:
    """What a person sets: the model's name, the address and the key."""
    client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0)
    return OpenAIResponsesModel(name, provider=OpenAIProvider(openai_client=client))


def note(text: str) -> str:
    """Note a text."""
    return f"noted {text}"


async def main() -> None:
    """All of it."""
    agent = Agent(model(), instructions="Be brief.")
    first = await agent.run(PROMPT)
    check_text(first.output, "a run")
    check_text((await agent.run(PROMPT, message_history=first.all_messages())).output, "a second turn")
    async with agent.run_stream(PROMPT) as stream:
        check_text("".join([text async for text in stream.stream_text(delta=True)]), "a stream")
    tools = Agent(model(), tools=[note])
    assert (await tools.run(PROMPT)).output == f"You said: noted {PROMPT}"
    passed("a tool")
    typed = Agent(model(), output_type=NativeOutput(Said))
    assert isinstance((await typed.run(PROMPT, model_settings={"max_tokens": 200})).output, Said)
    passed("an output type")
    spent = Agent(model(key=SPENT_KEY))
    await spent.run(PROMPT)
    await refused(400, Agent(model("fake")))
    await refused(401, Agent(model(key="wrong")))
    await refused(404, Agent(model("none")))
    await refused(429, spent)
    await refused(502, Agent(model("gone-llm")))


async def refused(status: int, agent: Any) -> None:
    """The agent raises its own error, with the status."""
    try:
        await agent.run(PROMPT)
    except ModelHTTPError as error:
        found = error.status_code
    else:
        found = 200
    if found != status:
        raise AssertionError(f"{found}, not {status}")
    passed(f"ModelHTTPError {status}")


asyncio.run(main())
