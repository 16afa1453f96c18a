"""From Hugging Face's JSON to what the gate knows of a model, of the owner of a token, of an Inference Endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubgate.domain.endpoint import Task
from hubgate.domain.hub import Deployment, DeploymentState, HubUser, ModelCard, ProviderMapping
from hubgate.upstreams.engines.specs import engine_of_image

_EMBEDS = frozenset({"feature-extraction", "sentence-similarity"})
"""The Hub gives a model one of the two, and means the same."""
_WRITES = frozenset({"text-generation", "text2text-generation"})
_CHATS = _WRITES | {"image-text-to-text"}
SPARSE_TAG = "sparse-encoder"
CHAT_TAG = "conversational"
_SIZES = ("hidden_size", "d_model", "n_embd", "dim")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")
_PADDED = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Models that count their positions from 2: two of them are never used."""
_NO_LIMIT = 10_000_000
_CALLS_PROVIDERS = "inference.serverless.write"
_CALLS_ENDPOINTS = "inference.endpoints.infer.write"


def read_card(entry: Any) -> ModelCard | None:
    """A model of a search or by name, without what only its files tell; `None` if it is none."""
    name = _text(_of(entry, "id"))
    if name is None:
        return None
    tags = [tag for tag in _list(_of(entry, "tags")) if isinstance(tag, str)]
    pipeline_tag = _text(_of(entry, "pipeline_tag"))
    parameters = _whole(_of(_of(entry, "safetensors"), "total")) or _whole(_of(_of(entry, "gguf"), "total"))
    return ModelCard(
        name=name,
        tasks=tasks_of(pipeline_tag, tags),
        pipeline_tag=pipeline_tag,
        served_by=tuple(_servings(_of(entry, "inferenceProviderMapping"))),
        gated=_of(entry, "gated") not in (None, False),
        private=_of(entry, "private") is True,
        downloads=_whole(_of(entry, "downloads")),
        likes=_whole(_of(entry, "likes")),
        trending=_number(_of(entry, "trendingScore")),
        parameters=parameters,
        max_input_tokens=_whole(_of(_of(entry, "gguf"), "context_length")),
        library=_text(_of(entry, "library_name")),
        license=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None),
        revision=_text(_of(entry, "sha")),
        updated_at=_text(_of(entry, "lastModified")),
    )


def tasks_of(pipeline_tag: str | None, tags: Sequence[str]) -> tuple[Task, ...]:
    """Which of the gate's tasks a model of these tags does."""
    tasks = []
    if SPARSE_TAG in tags:
        tasks.append(Task.SPARSE_EMBEDDING)
    elif pipeline_tag in _EMBEDS:
        tasks.append(Task.TEXT_EMBEDDING)
    if pipeline_tag == "text-ranking":
        tasks.append(Task.RERANK)
    if pipeline_tag in _WRITES:
        tasks.append(Task.COMPLETION)
    if pipeline_tag in _CHATS and CHAT_TAG in tags:
        tasks.append(Task.CHAT_COMPLETION)
    return tuple(tasks)


def _servings(mapping: Any) -> list[ProviderMapping]:
    """The Hub writes the mapping as a list, or as an object by provider."""
    entries = _list(mapping)
    if isinstance(mapping, dict):
        entries = [{**entry, "provider": name} for name, entry in mapping.items() if isinstance(entry, dict)]
    return [
        ProviderMapping(
            provider=provider,
            task=_text(_of(entry, "task")) or "",
            status=_text(_of(entry, "status")) or "",
            provider_model=_text(_of(entry, "providerId")) or "",
        )
        for entry in entries
        if (provider := _text(_of(entry, "provider")))
    ]


def read_files(entry: Any) -> frozenset[str]:
    """The names of a model's files."""
    names = (_text(_of(file, "rfilename")) for file in _list(_of(entry, "siblings")))
    return frozenset(filter(None, names))


def read_dimensions(config: Any, dense: Any) -> int | None:
    """The numbers of a vector.

    Args:
        config: the model's `config.json`.
        dense: the `config.json` of the last dense layer after it, if it has one.
    """
    if dense is not None:
        return _whole(_of(dense, "out_features"))
    return next(filter(None, (_whole(_of(config, key)) for key in _SIZES)), None)


def read_length(config: Any, sentence_bert: Any) -> int | None:
    """The tokens that a model reads, special ones included, by `config.json` and `sentence_bert_config.json`."""
    own = _of(config, "text_config") or config
    positions = next(filter(None, (_whole(_of(own, key)) for key in _LENGTHS)), None)
    if positions and _text(_of(own, "model_type")) in _PADDED:
        positions -= 2
    said = _whole(_of(sentence_bert, "max_seq_length"))
    known = [length for length in (said, positions) if length and length < _NO_LIMIT]
    return min(known, default=None)


def dense_folder(modules: Any) -> str | None:
    """The folder of the last dense layer in a `modules.json`: it decides how long the vectors are."""
    folders = [
        path
        for module in _list(modules)
        if str(_of(module, "type")).endswith(".Dense") and (path := _text(_of(module, "path")))
    ]
    return folders[-1] if folders else None


def read_user(reply: Any) -> HubUser:
    """The reply to whoami."""
    token = _of(_of(reply, "auth"), "accessToken")
    role = _text(_of(token, "role"))
    scopes = _scopes(_of(token, "fineGrained"))
    names = (_text(_of(org, "name")) for org in _list(_of(reply, "orgs")))
    return HubUser(
        name=_text(_of(reply, "name")) or "",
        kind=_text(_of(reply, "type")) or "user",
        organisations=tuple(filter(None, names)),
        token_name=_text(_of(token, "displayName")),
        role=role,
        scopes=scopes,
        calls_providers=_may(role, scopes, _CALLS_PROVIDERS),
        calls_endpoints=_may(role, scopes, _CALLS_ENDPOINTS),
    )


def read_deployment(item: dict[str, Any], namespace: str) -> Deployment:
    """One Inference Endpoint, from its JSON."""
    model, status, compute = (_dict(_of(item, key)) for key in ("model", "status", "compute"))
    provider, image = _dict(item.get("provider")), _dict(model.get("image"))
    kind = next(iter(image), None)
    address = _text(_dict(image.get(kind)).get("url")) if kind else None
    word = _text(status.get("state"))
    replicas = _dict(compute.get("scaling")).get("minReplica")
    price = compute.get("pricePerHour")
    where = (_text(provider.get("vendor")), _text(provider.get("region")))
    what = (_text(compute.get("instanceType")), _text(compute.get("instanceSize")))
    return Deployment(
        name=_text(item.get("name")) or "",
        namespace=namespace,
        state=DeploymentState(word) if word in set(DeploymentState) else DeploymentState.UNKNOWN,
        status_message=_text(status.get("message")) or "",
        url=_text(status.get("url")),
        repository=_text(model.get("repository")),
        revision=_text(model.get("revision")),
        task=_text(model.get("task")),
        engine=engine_of_image(kind, address),
        image=address or kind,
        access=_text(item.get("type")),
        hardware=" ".join(filter(None, what)) or None,
        region=" ".join(filter(None, where)) or None,
        min_replicas=replicas if isinstance(replicas, int) else None,
        price_per_hour=float(price) if isinstance(price, int | float) else None,
    )


def _scopes(fine_grained: Any) -> tuple[str, ...]:
    lists = [_of(fine_grained, "global")]
    lists += [_of(entry, "permissions") for entry in _list(_of(fine_grained, "scoped"))]
    scopes = (scope for scopes in lists for scope in _list(scopes) if isinstance(scope, str))
    return tuple(sorted(set(scopes)))


def _may(role: str | None, scopes: Sequence[str], scope: str) -> bool | None:
    """A token of another role than fine-grained may do whatever its owner may, short of writing."""
    if role is None:
        return None
    return scope in scopes if role == "fineGrained" else True


def _of(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
