"""How the next token is chosen: a call's options, completed by the model's own defaults."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from hubgate.domain.errors import Cause, InvalidRequest
from hubgate.runtime.generation.spec import GenerationSpec, SamplingDefaults
from hubgate.runtime.protocol import GenerateText


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one text is generated."""

    max_new_tokens: int
    min_new_tokens: int
    """Of a decoder-only model."""
    sample: bool
    """Whether tokens are drawn at random, instead of taking the most likely one."""
    seed: int
    temperature: float
    top_p: float
    top_k: int
    """0 for no limit."""
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float


def make_plan(request: GenerateText, spec: GenerationSpec, prompt_tokens: int) -> Plan:
    """The plan of a call. A prompt that fills the model's context was refused before.

    Tokens are drawn if the call asks for it, or sets how; without either, the model's `generation_config.json` decides.

    Raises:
        InvalidRequest: the prompt fills the length that the file allows, and the call sets none.
    """
    options, default = request.options, spec.defaults
    drawn = (options.temperature, options.top_p, options.top_k, options.min_p)
    sample = options.sample
    if options.temperature == 0:
        sample = False
    elif sample is None:
        sample = default.sample or any(value is not None for value in drawn)
    before = prompt_tokens if spec.text2text is None else 0
    longest = min(spec.max_tokens - before, options.max_tokens or _longest(default, before))
    shortest = (
        max(0, default.min_length - before) if default.min_new_tokens is None else default.min_new_tokens
    )
    return Plan(
        max_new_tokens=longest,
        min_new_tokens=min(longest, shortest),
        sample=sample,
        seed=secrets.randbits(31) if options.seed is None else options.seed,
        temperature=options.temperature or default.temperature,
        top_p=options.top_p or default.top_p,
        top_k=default.top_k if options.top_k is None else options.top_k,
        min_p=default.min_p if options.min_p is None else options.min_p,
        repetition_penalty=options.repetition_penalty or default.repetition_penalty,
        presence_penalty=options.presence_penalty or 0.0,
        frequency_penalty=options.frequency_penalty or 0.0,
    )


def _longest(default: SamplingDefaults, before: int) -> int:
    if default.max_length is None:
        return default.max_new_tokens
    if default.max_length <= before:
        raise InvalidRequest(
            f"The prompt has {before} tokens; by the model's generation_config.json, the prompt and the text have at "
            f"most {default.max_length} together.",
            remedy="Shorten the prompt, or set the maximum number of tokens in the call.",
            cause=Cause.INPUT_TOO_LONG,
        )
    return min(default.max_new_tokens, default.max_length - before)
