"""The fields of calls that generate text, as a local model takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubgate.domain.calls import Chat, Complete
from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.protocol import SamplingOptions
from hubgate.upstreams.local.options import messages_of, sampling_options, template_options

HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> Chat:
    raw = {name: json.dumps(value).encode() for name, value in {"messages": HELLO, **fields}.items()}
    return Chat(fields=raw)


def test_each_option_is_taken_over() -> None:
    given = {
        "max_completion_tokens": 5,
        "do_sample": True,
        "temperature": 1,
        "top_p": 0.5,
        "top_k": -1,
        "min_p": 0.1,
        "seed": -3,
        "repetition_penalty": 1.2,
        "presence_penalty": -1,
        "frequency_penalty": 2,
        "stop": "end",
    }
    assert sampling_options(chat(**given)) == SamplingOptions(
        max_tokens=5,
        sample=True,
        temperature=1.0,
        top_p=0.5,
        top_k=0,
        min_p=0.1,
        seed=2**31 - 3,
        repetition_penalty=1.2,
        presence_penalty=-1.0,
        frequency_penalty=2.0,
        stop=["end"],
    )


def test_fields_without_effect_are_ignored() -> None:
    given = {
        "user": "someone",
        "metadata": {"a": "b"},
        "n": 1,
        "logprobs": False,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "temperature": None,
        "typical_p": 0.95,
        "details": True,
    }
    assert sampling_options(chat(**given)) == SamplingOptions()
    assert sampling_options(chat(tools=[{"type": "function"}], tool_choice="none")) == SamplingOptions()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function"}]),
        ("logprobs", True),
        ("logit_bias", {"1": 5}),
        ("response_format", {"type": "json_object"}),
        ("best_of", 3),
        ("truncate", 10),
        ("something_new", 1),
    ],
)
def test_what_it_would_ignore_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=rf"a local model, does not support \[{name}\]"):
        sampling_options(chat(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", "all"),
        ("min_p", 1),
        ("seed", 1.5),
        ("repetition_penalty", 0),
        ("presence_penalty", 3),
        ("stop", 1),
    ],
)
def test_value_out_of_range_is_refused_with_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=rf"\[{name}\]"):
        sampling_options(chat(**{name: value}))
    with pytest.raises(InvalidRequest, match=rf"\[{name}\]"):
        sampling_options(Complete(prompt="a", fields={name: json.dumps(value).encode()}))


def test_text_parts_are_joined_and_nulls_removed() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "system", "content": "Be brief.", "name": None},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
    ]
    assert messages_of(chat(messages=messages)) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": ""},
    ]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "at least one message"),
        ("hello", "not valid"),
        ([{"content": "Hello"}], "must have a"),
        ([{"role": "user", "content": 5}], "must be text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "part that is not text"),
    ],
)
def test_messages_that_are_not_text_are_refused(messages: object, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        messages_of(chat(messages=messages))


def test_template_options_cannot_replace_the_conversation() -> None:
    assert template_options(chat(chat_template_kwargs={"enable_thinking": False})) == {
        "enable_thinking": False
    }
    assert template_options(chat()) == {}
    with pytest.raises(InvalidRequest, match=r"cannot set \[messages\]"):
        template_options(chat(chat_template_kwargs={"messages": []}))
