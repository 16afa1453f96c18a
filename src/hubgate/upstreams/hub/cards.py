"""Parses Hugging Face's JSON: models and the owners of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hubgate.domain.endpoint import MAX_DIMENSIONS, Task
from hubgate.domain.hub import (
    HubUser,
    ModelCard,
    ModelPrompts,
    ProviderMapping,
)
from hubgate.upstreams.hub.metadata import limit_of
from hubgate.upstreams.json_values import as_list, count_of, field_of, list_of, number_of, text_of

_EMBEDS = frozenset({"feature-extraction", "sentence-similarity"})
"""The Hub uses the two tags for the same task."""
_COMPLETES = frozenset({"text-generation", "text2text-generation"})
_CHATS = _COMPLETES | {"image-text-to-text"}
SPARSE_TAG = "sparse-encoder"
CHAT_TAG = "conversational"
_SIZES = ("hidden_size", "d_model", "n_embd", "dim")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")
_PADDED = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Models whose positions start at 2: two of them are never used."""
_NO_LIMIT = 10_000_000
_MAX_PROMPTS_LENGTH = 100_000
"""Characters of all prompts of a model together."""
_POOLING_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
"""The switches of older versions of sentence-transformers, and the `pooling_mode` of newer ones."""
_MATRYOSHKA_DIMS = re.compile(r'"matryoshka_dims":\s*\[([\d\s,]{1,2000})\]')
_CALLS_PROVIDERS = "inference.serverless.write"
_CALLS_ENDPOINTS = "inference.endpoints.infer.write"
_MANAGES_ENDPOINTS = "inference.endpoints.write"


def read_card(entry: Any) -> ModelCard | None:
    """A model, without the facts that only its files contain; `None` if the entry is not a model."""
    name = text_of(entry, "id")
    if name is None:
        return None
    tags = [tag for tag in list_of(entry, "tags") if isinstance(tag, str)]
    license_id = _tagged(tags, "license:")
    pipeline_tag = text_of(entry, "pipeline_tag")
    parameters = count_of(field_of(entry, "safetensors"), "total") or count_of(
        field_of(entry, "gguf"), "total"
    )
    return ModelCard(
        name=name,
        tasks=tasks_of(pipeline_tag, tags),
        pipeline_tag=pipeline_tag,
        served_by=tuple(_providers(field_of(entry, "inferenceProviderMapping"))),
        gated=field_of(entry, "gated") not in (None, False),
        private=field_of(entry, "private") is True,
        downloads=count_of(entry, "downloads"),
        likes=count_of(entry, "likes"),
        trending=number_of(entry, "trendingScore"),
        parameters=parameters,
        max_input_tokens=count_of(field_of(entry, "gguf"), "context_length"),
        library=text_of(entry, "library_name"),
        license=license_id,
        license_limit=limit_of(license_id),
        quantized_from=_tagged(tags, "base_model:quantized:"),
        tuned_from=_tagged(tags, "base_model:finetune:"),
        revision=text_of(entry, "sha"),
        updated_at=text_of(entry, "lastModified"),
    )


def _tagged(tags: Sequence[str], prefix: str) -> str | None:
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), None)


def tasks_of(pipeline_tag: str | None, tags: Sequence[str]) -> tuple[Task, ...]:
    """The tasks of a model with these tags."""
    tasks = []
    if SPARSE_TAG in tags:
        tasks.append(Task.SPARSE_EMBEDDING)
    elif pipeline_tag in _EMBEDS:
        tasks.append(Task.TEXT_EMBEDDING)
    if pipeline_tag == "text-ranking":
        tasks.append(Task.RERANK)
    if pipeline_tag in _COMPLETES:
        tasks.append(Task.COMPLETION)
    if pipeline_tag in _CHATS and CHAT_TAG in tags:
        tasks.append(Task.CHAT_COMPLETION)
    return tuple(tasks)


def _providers(mapping: Any) -> list[ProviderMapping]:
    """The Hub returns the mapping as a list, or as an object by provider."""
    entries = as_list(mapping)
    if isinstance(mapping, dict):
        entries = [{**entry, "provider": name} for name, entry in mapping.items() if isinstance(entry, dict)]
    return [
        ProviderMapping(
            provider=provider,
            task=text_of(entry, "task") or "",
            status=text_of(entry, "status") or "",
            provider_model=text_of(entry, "providerId") or "",
        )
        for entry in entries
        if (provider := text_of(entry, "provider"))
    ]


def read_files(entry: Any) -> frozenset[str]:
    names = (text_of(file, "rfilename") for file in list_of(entry, "siblings"))
    return frozenset(filter(None, names))


def read_dimensions(config: Any, dense: Any) -> int | None:
    """The dimensions of a model's vectors.

    Args:
        config: the model's `config.json`.
        dense: the `config.json` of the last dense layer after it, if it has one.
    """
    if dense is not None:
        return count_of(dense, "out_features")
    return next(filter(None, (count_of(config, key) for key in _SIZES)), None)


def read_length(config: Any, sentence_bert: Any) -> int | None:
    """The most tokens that a model reads, with special tokens, by `config.json` and `sentence_bert_config.json`."""
    own = field_of(config, "text_config") or config
    positions = next(filter(None, (count_of(own, key) for key in _LENGTHS)), None)
    if positions and text_of(own, "model_type") in _PADDED:
        positions -= 2
    configured = count_of(sentence_bert, "max_seq_length")
    known = [length for length in (configured, positions) if length and length < _NO_LIMIT]
    return min(known, default=None)


def module_folder(modules: Any, kind: str) -> str | None:
    """The folder of the last module of a kind in a `modules.json`, such as `Dense`."""
    folders = [
        path
        for module in as_list(modules)
        if str(field_of(module, "type")).endswith(f".{kind}") and (path := text_of(module, "path"))
    ]
    return folders[-1] if folders else None


def read_prompts(config: Any, pooling: Any) -> ModelPrompts | None:
    """The prompts in a `config_sentence_transformers.json`, and the pooling in the `config.json` of its module.

    Returns:
        `None` if the prompts are not of the usual form, or too long to be prefixes.
    """
    prompts = field_of(config, "prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        return None
    # As sentence-transformers reads null.
    prompts = {name: text or "" for name, text in prompts.items()}
    if sum(len(name) + len(text) for name, text in prompts.items()) > _MAX_PROMPTS_LENGTH:
        return None
    modes = (key for key in _POOLING_MODES if field_of(pooling, key) is True)
    mode = text_of(pooling, "pooling_mode") or next((_POOLING_MODES[key] for key in modes), None)
    return ModelPrompts(
        texts=prompts,
        default=text_of(config, "default_prompt_name"),
        pooling=mode,
        suffix=text_of(config, "suffix") or "",
        pools_prompt=field_of(pooling, "include_prompt") is not False,
    )


def is_matryoshka(entry: Any) -> bool:
    """Whether sentence-transformers trained the model with `MatryoshkaLoss` or `Matryoshka2dLoss`."""
    return any(str(tag).startswith("loss:Matryoshka") for tag in list_of(entry, "tags"))


def read_shorter_dimensions(readme: str) -> tuple[int, ...]:
    """The sizes that a model was trained for, as sentence-transformers writes them into its `README.md`; sorted."""
    found = _MATRYOSHKA_DIMS.search(readme)
    sizes = {int(number) for number in re.findall(r"\d{1,9}", found[1])} if found else set()
    return tuple(sorted(size for size in sizes if 0 < size <= MAX_DIMENSIONS))


def read_user(reply: Any) -> HubUser:
    token = field_of(field_of(reply, "auth"), "accessToken")
    role = text_of(token, "role")
    scopes = _scopes(field_of(token, "fineGrained"))
    names = (text_of(org, "name") for org in list_of(reply, "orgs"))
    return HubUser(
        name=text_of(reply, "name") or "",
        kind=text_of(reply, "type") or "user",
        organisations=tuple(filter(None, names)),
        token_name=text_of(token, "displayName"),
        role=role,
        scopes=scopes,
        calls_providers=_may(role, scopes, _CALLS_PROVIDERS),
        calls_endpoints=_may(role, scopes, _CALLS_ENDPOINTS),
        # Hugging Face describes the role `read` by repositories only.
        manages_endpoints=None if role == "read" else _may(role, scopes, _MANAGES_ENDPOINTS),
    )


def _scopes(fine_grained: Any) -> tuple[str, ...]:
    lists = [field_of(fine_grained, "global")]
    lists += [field_of(entry, "permissions") for entry in list_of(fine_grained, "scoped")]
    scopes = (scope for scopes in lists for scope in as_list(scopes) if isinstance(scope, str))
    return tuple(sorted(set(scopes)))


def _may(role: str | None, scopes: Sequence[str], scope: str) -> bool | None:
    """Only fine-grained tokens have scopes; other roles may call everything that their owner may."""
    if role is None:
        return None
    return scope in scopes if role == "fineGrained" else True
