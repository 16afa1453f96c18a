"""OpenAI's agents SDK with its default, the Responses API: a conversation, streams, tools and structured output."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import openai
from agents import (  # type: ignore[import-not-found]
    Agent,
    ModelSettings,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from expected import KEY, PROMPT, SPENT_KEY, URL, check_text, passed, version_of
from pydantic import BaseModel

version_of("openai-agents", "openai")
set_tracing_disabled(True)  # it would send the conversation to OpenAI


class Said(BaseModel):
    """The model replies with an object that has the schema."""

    note: str = ""


@function_tool  # type: ignore[untyped-decorator]
def note(text: str) -> str:
    """Note a text."""
    return f"noted {text}"


def use(key: str) -> None:
    """What a person sets: the address and the key."""
    set_default_openai_client(openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=key, max_retries=0))


async def converse() -> None:
    """Two turns: the first one's items are sent again."""
    agent = Agent(name="plain", instructions="Be brief.", model="llm")
    first = await Runner.run(agent, PROMPT)
    check_text(first.final_output, "a run")
    assert first.context_wrapper.usage.total_tokens == 6
    again = [*first.to_input_list(), {"role": "user", "content": PROMPT}]
    check_text((await Runner.run(agent, again)).final_output, "a second turn")


async def call_tools() -> None:
    """A tool is called and its output sent back, in a stream too."""
    agent = Agent(name="tools", model="llm", tools=[note])
    assert (await Runner.run(agent, PROMPT)).final_output == f"You said: noted {PROMPT}"
    passed("a tool")
    run = Runner.run_streamed(agent, PROMPT)
    text = ""
    async for event in run.stream_events():
        data = getattr(event, "data", None)
        text += data.delta if data is not None and data.type == "response.output_text.delta" else ""
    assert text == run.final_output == f"You said: noted {PROMPT}"
    passed("a tool in a stream")


async def structure() -> None:
    """The agent's output type becomes a schema."""
    settings = ModelSettings(max_tokens=200)
    agent = Agent(name="typed", model="llm", model_settings=settings, output_type=Said)
    run = await Runner.run(agent, PROMPT)
    assert isinstance(run.final_output, Said)
    passed("an output type")


async def refused(call: Callable[[], Awaitable[Any]], kind: type[Exception]) -> None:
    """The client raises its own error."""
    try:
        await call()
    except kind as error:
        passed(f"{type(error).__name__}: {error}"[:120])
    else:
        raise AssertionError(f"not {kind.__name__}")


async def main() -> None:
    """All of it, and the errors."""
    use(KEY)
    await converse()
    await call_tools()
    await structure()
    agent = Agent(name="plain", model="llm")
    await refused(lambda: Runner.run(agent, PROMPT, previous_response_id="resp_1"), openai.BadRequestError)
    await refused(lambda: Runner.run(Agent(name="x", model="none"), PROMPT), openai.NotFoundError)
    await refused(lambda: Runner.run(Agent(name="x", model="gone-llm"), PROMPT), openai.InternalServerError)
    use("wrong")
    await refused(lambda: Runner.run(agent, PROMPT), openai.AuthenticationError)
    use(SPENT_KEY)
    await Runner.run(agent, PROMPT)
    await refused(lambda: Runner.run(agent, PROMPT), openai.RateLimitError)


asyncio.run(main())
