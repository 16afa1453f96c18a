"""Prompts: a text, or a conversation in the model's chat template, as tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.runtime.generation.spec import GenerationSpec
from hubgate.runtime.model.excerpt import max_characters
from hubgate.runtime.model.files import TOKENIZER, TokenizerBroken, smaller_weights, unusable
from hubgate.runtime.model.tokenizer import open_tokenizer
from hubgate.runtime.protocol import GenerateText


class PromptEncoder:
    """Encodes the prompts of one model.

    Raises:
        RuntimeFailed: its tokenizer or its chat template cannot be read.
    """

    def __init__(self, spec: GenerationSpec) -> None:
        self._spec = spec
        try:
            self.tokenizer = open_tokenizer(spec.folder)
        except TokenizerBroken as error:
            raise unusable(spec.folder, f"{TOKENIZER} cannot be read") from error
        tokens = self.tokenizer.get_vocab_size(with_added_tokens=True)
        if tokens > spec.vocabulary:
            raise smaller_weights(spec.folder, tokens, spec.vocabulary)
        try:
            self._template = None if spec.template is None else _environment().from_string(spec.template)
        except jinja2.TemplateError as error:
            raise unusable(spec.folder, f"its chat template is not valid Jinja ({error})") from error

    def encode(self, request: GenerateText) -> list[int]:
        """The tokens of a prompt, at least one.

        Raises:
            InvalidRequest: it is empty or too long, or the model has no chat template or one that refuses it.
        """
        text = request.prompt
        if request.messages is not None:
            text = self._render(request.messages, request.template_options)
        limit = self._spec.max_tokens
        if len(text) > max_characters(limit):
            raise self._too_long(f"more than {limit}")
        # A chat template writes the special tokens itself.
        ids = self.tokenizer.encode(text, add_special_tokens=request.messages is None).ids
        if not ids:
            raise InvalidRequest("The prompt is empty.", remedy="Send a text of at least one character.")
        if len(ids) >= limit + (self._spec.text2text is not None):
            raise self._too_long(f"{len(ids)}")
        return list(ids)

    def _too_long(self, count: str) -> InvalidRequest:
        does = "reads and writes" if self._spec.text2text is None else "reads"
        together = " together" if self._spec.text2text is None else ""
        return InvalidRequest(
            f"The prompt has {count} tokens; the model {does} at most {self._spec.max_tokens}{together}.",
            remedy="Shorten the prompt, or use a model with a longer context.",
            cause=Cause.INPUT_TOO_LONG,
        )

    def _render(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        if self._template is None:
            raise InvalidRequest(
                "The model has no chat template, and completes plain texts only.",
                remedy="Send a text instead of messages, or use a model that was trained for chats.",
                cause=Cause.WRONG_TASK,
            )
        try:
            # `tools` and `documents` are defined, as in transformers: templates compare them with none.
            known = {"tools": None, "documents": None, **self._spec.special_tokens, **options}
            return self._template.render(**known, messages=messages, add_generation_prompt=True)
        except _Refused as error:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}.",
                remedy="Send the roles in the order that the model was trained with.",
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, RecursionError) as error:
            raise InvalidRequest(
                f"The model's chat template cannot render these messages: {error}.",
                remedy="Send text as the content of every message.",
            ) from error


def check_template(encoder: PromptEncoder) -> None:
    """Render a message, so that a template that cannot be used is found when the model is loaded.

    Raises:
        RuntimeFailed: it cannot be rendered.
    """
    message = {"role": "user", "content": "Hello"}
    try:
        encoder.encode(GenerateText(0, "", [message]))
    except InvalidRequest as error:
        raise RuntimeFailed(error.message, remedy="Correct the chat template of the model.") from error


class _Refused(Exception):
    """A template refused a conversation with `raise_exception`."""


class _GenerationTag(Extension):
    """`{% generation %}`, which marks the parts to train on: only its content matters here."""

    tags = {"generation"}  # noqa: RUF012 - as the library declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    """The functions and settings that transformers gives to chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(value: object, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
